//! The gateway's own formats of an access record: JSON, text, and native fields of journald.

use std::time::{Duration, SystemTime};

use super::journal;
use super::record::{
    AccessRecord, HOST_BYTES, METHOD_BYTES, REQUEST_ID_BYTES, TARGET_BYTES, USER_AGENT_BYTES,
    Upstream, cut,
};
use super::redact;
use super::text::{self, Escape, KnownIp, Stamp};

/// The value of a field; the variant determines the format.
#[derive(Clone, Copy, Debug)]
enum FieldValue<'r> {
    Address(KnownIp<'r>, u16),
    Host(&'r str),
    Ip(KnownIp<'r>),
    Millis(Duration),
    Number(u64),
    /// Printable ASCII without quotes.
    Plain(&'r str),
    Target(&'r str),
    /// Text from a peer or an operator, and the limit in bytes to which it is cut.
    Text(&'r [u8], usize),
    Time(SystemTime),
    Upstream(Upstream<'r>),
}

impl FieldValue<'_> {
    /// Returns true if JSON has the value without quotes.
    fn is_number(self) -> bool {
        matches!(self, Self::Millis(_) | Self::Number(_))
    }

    #[inline(always)]
    fn write(self, out: &mut Vec<u8>, stamp: &mut Stamp, escape: Escape) {
        match self {
            Self::Address(ip, port) => ip.write_with_port(out, port),
            Self::Host(host) => redact::host(out, cut(host, HOST_BYTES), escape),
            Self::Ip(ip) => ip.write(out),
            Self::Millis(duration) => text::millis(out, duration),
            Self::Number(number) => text::number(out, number),
            Self::Plain(plain) => out.extend_from_slice(plain.as_bytes()),
            Self::Target(target) => redact::target(out, cut(target, TARGET_BYTES), escape),
            Self::Text(text, most) => escape(out, cut(text, most)),
            Self::Time(time) => stamp.write(out, time),
            Self::Upstream(upstream) => upstream.write(out, escape),
        }
    }
}

/// The name of a field with everything that surrounds it in each format: constants, so that a field
/// costs one copy of a known length.
struct Key {
    json_null: &'static str,
    json_number: &'static str,
    json_string: &'static str,
    journal: &'static [u8],
}

macro_rules! key {
    ($name:literal) => {
        &Key {
            json_null: concat!("\"", $name, "\":null,"),
            json_number: concat!("\"", $name, "\":"),
            json_string: concat!("\"", $name, "\":\""),
            journal: {
                const NAME: &[u8] = concat!("EG_", $name, "=").as_bytes();
                const UPPER_CASE: [u8; NAME.len()] = upper_case(NAME);
                &UPPER_CASE
            },
        }
    };
}

const fn upper_case<const N: usize>(name: &[u8]) -> [u8; N] {
    let mut upper_case = [0; N];
    upper_case.copy_from_slice(name);
    upper_case.make_ascii_uppercase();
    upper_case
}

/// A format that is a list of fields.
trait FieldWriter {
    fn put(&mut self, key: &'static Key, value: Option<FieldValue<'_>>);
}

impl<'r> AccessRecord<'r> {
    /// Passes every field to a writer in the order of the output, with its value if it is known. A
    /// new field of the log is one line here.
    ///
    /// Inlined, as are the writers, so that keys and kinds of values are constants there.
    #[inline(always)]
    fn fields(&self, to: &mut impl FieldWriter) {
        use FieldValue::{Address, Host, Ip, Millis, Number, Plain, Target, Text, Time};
        let text = |text: &'r str| Text(text.as_bytes(), usize::MAX);
        to.put(key!("time"), Some(Time(self.time)));
        to.put(key!("method"), Some(Text(self.method.as_bytes(), METHOD_BYTES)));
        to.put(key!("host"), Some(Host(self.host)));
        to.put(key!("path"), Some(Target(self.path)));
        to.put(key!("status"), Some(Number(self.status.into())));
        to.put(key!("request_bytes"), Some(Number(self.request_bytes)));
        to.put(key!("response_bytes"), Some(Number(self.response_bytes)));
        to.put(key!("duration_ms"), Some(Millis(self.duration)));
        to.put(key!("upstream_ms"), self.upstream_duration.map(Millis));
        to.put(key!("upstream"), self.upstream.map(FieldValue::Upstream));
        to.put(key!("attempts"), Some(Number(self.attempts.into())));
        to.put(key!("route"), self.route.map(text));
        to.put(key!("flags"), Some(Plain(self.flags.short())));
        to.put(key!("details"), self.details.map(Plain));
        to.put(key!("request_id"), Some(Text(self.request_id.as_bytes(), REQUEST_ID_BYTES)));
        to.put(key!("trace_id"), self.trace_id.map(text));
        to.put(key!("peer"), Some(Address(self.peer_ip(), self.peer.port())));
        to.put(key!("client"), Some(Ip(self.client_ip())));
        to.put(key!("protocol"), Some(Plain(self.protocol)));
        to.put(key!("user_agent"), self.user_agent.map(|agent| Text(agent, USER_AGENT_BYTES)));
        to.put(key!("listener"), Some(text(self.listener)));
        to.put(key!("tls"), self.tls.map(Plain));
    }
}

/// The members of a JSON object. Each is followed by a comma.
struct JsonMembers<'o> {
    out: &'o mut Vec<u8>,
    stamp: &'o mut Stamp,
}

impl FieldWriter for JsonMembers<'_> {
    #[inline(always)]
    fn put(&mut self, key: &'static Key, value: Option<FieldValue<'_>>) {
        let Self { out, stamp } = self;
        match value {
            None => out.extend_from_slice(key.json_null.as_bytes()),
            Some(value) if value.is_number() => {
                out.extend_from_slice(key.json_number.as_bytes());
                value.write(out, stamp, text::json);
                out.push(b',');
            }
            Some(value) => {
                out.extend_from_slice(key.json_string.as_bytes());
                value.write(out, stamp, text::json);
                out.extend_from_slice(b"\",");
            }
        }
    }
}

/// Fields of a datagram for journald, each with a newline.
struct JournalFields<'o> {
    out: &'o mut Vec<u8>,
    stamp: &'o mut Stamp,
}

impl FieldWriter for JournalFields<'_> {
    #[inline(always)]
    fn put(&mut self, key: &'static Key, value: Option<FieldValue<'_>>) {
        let Self { out, stamp } = self;
        if let Some(value) = value {
            out.extend_from_slice(key.journal);
            let start = out.len();
            value.write(out, stamp, text::plain);
            debug_assert!(!out[start..].contains(&b'\n'), "a value was not escaped");
            out.push(b'\n');
        }
    }
}

impl AccessRecord<'_> {
    /// Writes one JSON object and a newline. All keys are always present; unknown values are null.
    pub(super) fn json(&self, out: &mut Vec<u8>, stamp: &mut Stamp) {
        out.push(b'{');
        self.fields(&mut JsonMembers { out, stamp });
        // In place of the last comma.
        out.pop();
        out.extend_from_slice(b"}\n");
    }

    /// Writes one human-readable line and a newline.
    pub(super) fn text(&self, out: &mut Vec<u8>, stamp: &mut Stamp) {
        stamp.write(out, self.time);
        out.push(b' ');
        self.message(out);
        out.push(b'\n');
    }

    /// Writes a datagram for journald. Records are sent in batches, so the journal's own timestamp
    /// is up to 0.1 s late; therefore each record has its time in a field.
    pub(super) fn journal(&self, out: &mut Vec<u8>, stamp: &mut Stamp) {
        out.extend_from_slice(journal::COMMON_FIELDS.as_bytes());
        out.extend_from_slice(b"MESSAGE=");
        self.message(out);
        out.push(b'\n');
        self.fields(&mut JournalFields { out, stamp });
    }

    /// Writes the text format without the time, which the journal adds:
    /// `203.0.113.9 "GET shop.test/a HTTP/1.1" 200 1234B 12.345ms route=shop/cart ...`
    fn message(&self, out: &mut Vec<u8>) {
        self.client_ip().write(out);
        out.extend_from_slice(b" \"");
        text::plain(out, cut(self.method, METHOD_BYTES));
        out.push(b' ');
        redact::host(out, cut(self.host, HOST_BYTES), text::plain);
        redact::target(out, cut(self.path, TARGET_BYTES), text::plain);
        out.push(b' ');
        out.extend_from_slice(self.protocol.as_bytes());
        out.extend_from_slice(b"\" ");
        text::number(out, self.status.into());
        out.push(b' ');
        text::number(out, self.response_bytes);
        out.extend_from_slice(b"B ");
        text::millis(out, self.duration);
        out.extend_from_slice(b"ms");
        if let Some(route) = self.route {
            out.extend_from_slice(b" route=");
            text::plain(out, route.as_bytes());
        }
        if let Some(upstream) = self.upstream {
            out.extend_from_slice(b" upstream=");
            upstream.write(out, text::plain);
        }
        if self.attempts > 1 {
            out.extend_from_slice(b" attempts=");
            text::number(out, self.attempts.into());
        }
        if !self.flags.is_empty() {
            out.extend_from_slice(b" flags=");
            out.extend_from_slice(self.flags.short().as_bytes());
        }
        // Some failures have no flag. The details of a response that is not a failure say nothing new.
        let is_failure = !matches!(self.details, Some("direct_response" | "via_upstream"));
        if let Some(details) = self.details.filter(|_| is_failure || !self.flags.is_empty()) {
            out.extend_from_slice(b" details=");
            out.extend_from_slice(details.as_bytes());
        }
        out.extend_from_slice(b" id=");
        text::plain(out, cut(self.request_id, REQUEST_ID_BYTES));
        if let Some(id) = self.trace_id {
            out.extend_from_slice(b" trace=");
            text::plain(out, id.as_bytes());
        }
        if let Some(agent) = self.user_agent {
            out.extend_from_slice(b" agent=\"");
            text::plain(out, cut(agent, USER_AGENT_BYTES));
            out.push(b'"');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::record::tests::sample;
    use crate::stats::{ResponseFlag, ResponseFlags};

    fn written(write: impl FnOnce(&mut Vec<u8>, &mut Stamp)) -> String {
        let mut out = Vec::new();
        write(&mut out, &mut Stamp::new());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_json_form_has_every_key_in_its_order() {
        let line = written(|out, stamp| sample().json(out, stamp));
        assert_eq!(
            line,
            concat!(
                r#"{"time":"2026-09-14T12:00:00.001Z","method":"GET","host":"shop.example.com","#,
                r#""path":"/cart?item=7&token=[redacted]","status":200,"request_bytes":0,"#,
                r#""response_bytes":5321,"duration_ms":12.345,"upstream_ms":11.002,"#,
                r#""upstream":"10.0.0.5:8080","attempts":1,"route":"shop/cart","flags":"-","#,
                r#""details":"via_upstream","request_id":"0f8fad5b-d9cb-469f-a165-70867728950e","#,
                r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","#,
                r#""peer":"203.0.113.9:50123","client":"198.51.100.7","protocol":"HTTP/2","#,
                r#""user_agent":"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0","#,
                r#""listener":"https","tls":"TLSv1.3"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn the_text_of_an_address_that_is_at_hand_changes_no_byte() {
        // (peer, its text, client)
        let table = [
            ("203.0.113.9:50123", "203.0.113.9", "203.0.113.9"),
            ("[::ffff:203.0.113.9]:50123", "203.0.113.9", "203.0.113.9"),
            ("[2001:db8::1]:443", "2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1", "198.51.100.7"),
        ];
        for (peer, text, client) in table {
            let (peer, client) = (peer.parse().unwrap(), client.parse().unwrap());
            let made = AccessRecord { peer, client, ..sample() };
            let at_hand = AccessRecord { peer_text: Some(text.as_bytes()), ..made.clone() };
            for form in [AccessRecord::json, AccessRecord::text, AccessRecord::journal] {
                let line = |record| written(|out, stamp| form(record, out, stamp));
                assert_eq!(line(&at_hand), line(&made));
            }
        }
    }

    #[test]
    fn what_is_not_known_is_null() {
        let record = AccessRecord {
            upstream_duration: None,
            upstream: None,
            attempts: 1,
            route: None,
            details: None,
            user_agent: None,
            trace_id: None,
            tls: None,
            flags: ResponseFlag::NoRouteFound.into(),
            ..sample()
        };
        let line = written(|out, stamp| record.json(out, stamp));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        for key in ["upstream_ms", "upstream", "route", "details", "trace_id", "user_agent", "tls"]
        {
            assert_eq!(value.get(key), Some(&serde_json::Value::Null), "{key}");
        }
    }

    #[test]
    fn hostile_words_stay_one_line_of_valid_json() {
        let record = AccessRecord {
            method: "G\"ET",
            host: "u:p@a\r\nb",
            path: "/\u{1b}[2J?q=\"}\n{\"status\":200",
            request_id: "x\\\"\n",
            user_agent: Some(b"\xff\x00\"\\\n"),
            upstream: Some(Upstream::Name("/run/\"a\".sock")),
            attempts: 1,
            ..sample()
        };
        let line = written(|out, stamp| record.json(out, stamp));
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.bytes().all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["path"], record.path);
        assert_eq!(value["host"], "[redacted]@a\r\nb");
        assert_eq!(value["upstream"], "/run/\"a\".sock");

        let line = written(|out, stamp| record.text(out, stamp));
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.bytes().all(|byte| byte == b'\n' || (0x20..0x7f).contains(&byte)));
    }

    #[test]
    fn a_peers_words_are_cut() {
        let long = "a".repeat(100_000);
        let path = format!("/{long}");
        let record = AccessRecord {
            method: &long,
            host: &long,
            path: &path,
            request_id: &long,
            user_agent: Some(long.as_bytes()),
            ..sample()
        };
        for line in [
            written(|out, stamp| record.json(out, stamp)),
            written(|out, stamp| record.text(out, stamp)),
        ] {
            assert!(line.len() < 12_000, "{}", line.len());
        }
    }

    #[test]
    fn the_journal_has_the_text_form_as_its_message() {
        let quiet = AccessRecord { user_agent: None, trace_id: None, route: None, ..sample() };
        let failed = AccessRecord {
            flags: ResponseFlag::UpstreamConnectionFailure.into(),
            attempts: 3,
            ..sample()
        };
        for record in [sample(), quiet, failed] {
            let text = written(|out, stamp| record.text(out, stamp));
            let (_time, text) = text.trim_end().split_once(' ').unwrap();
            let datagram = written(|out, stamp| record.journal(out, stamp));
            let message = datagram.lines().find_map(|line| line.strip_prefix("MESSAGE="));
            assert_eq!(message, Some(text));
        }
    }

    #[test]
    fn the_text_form_is_for_people() {
        assert_eq!(
            written(|out, stamp| sample().text(out, stamp)),
            "2026-09-14T12:00:00.001Z 198.51.100.7 \
             \"GET shop.example.com/cart?item=7&token=[redacted] HTTP/2\" 200 5321B 12.345ms \
             route=shop/cart upstream=10.0.0.5:8080 id=0f8fad5b-d9cb-469f-a165-70867728950e \
             trace=4bf92f3577b34da6a3ce929d0e0e4736 agent=\"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\"\n"
        );
        let failed = ResponseFlag::UpstreamConnectionFailure.into();
        // (flags, details, part of the line); not every failure has a flag
        let table = [
            (failed, "upstream_reset", "ms flags=UF details=upstream_reset id="),
            (ResponseFlags::default(), "denied", "ms details=denied id="),
            (ResponseFlags::default(), "direct_response", "ms id="),
        ];
        for (flags, details, want) in table {
            let record = AccessRecord {
                flags,
                details: Some(details),
                route: None,
                upstream: None,
                ..sample()
            };
            let line = written(|out, stamp| record.text(out, stamp));
            assert!(line.contains(want), "{line}");
        }
    }
}
