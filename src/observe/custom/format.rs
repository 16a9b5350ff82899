//! Custom formats of access log lines: literal text and Envoy's command operators between two `%`.
//! A format is parsed once into pieces; writing a line iterates over them.
//!
//! Values from a peer cannot leave their field: quotes, backslashes and everything but printable
//! ASCII are escaped, in text like nginx (`\x0A`), in JSON by its own rules.

use std::collections::BTreeMap;

use crate::observe::record::AccessRecord;
use crate::observe::text::{self, Escape, Stamp};

use super::headers::Wanted;
use super::operator::{Field, Unservable, operator};

/// The keys and operators of Envoy Gateway's default format.
const DEFAULT: &[(&str, &str)] = &[
    (":authority", "%REQ(:AUTHORITY)%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("duration", "%DURATION%"),
    ("method", "%REQ(:METHOD)%"),
    ("protocol", "%PROTOCOL%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("route_name", "%ROUTE_NAME%"),
    ("start_time", "%START_TIME%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("user-agent", "%REQ(USER-AGENT)%"),
    ("x-envoy-origin-path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("x-envoy-upstream-service-time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x-forwarded-for", "%REQ(X-FORWARDED-FOR)%"),
    ("x-request-id", "%REQ(X-REQUEST-ID)%"),
];

/// A parsed format.
#[derive(Debug)]
pub(crate) struct Format {
    pieces: Box<[Piece]>,
    escape: Escape,
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    /// Literal text.
    Words(Box<str>),
    /// A value of the exchange as text, `-` if it is unknown. The limit on a peer's value is in
    /// bytes.
    Field(Field, usize),
    /// A value of the exchange as a JSON number, string or null, with the same limit.
    Value(Field, usize),
}

/// A fault in a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FormatFault {
    /// The key of the JSON object with the fault.
    pub key: Option<String>,
    /// The description of the fault and its correction.
    pub problem: String,
    /// True if the whole format is unusable. If false, `-` or null is written in place of the
    /// operator.
    pub is_malformed: bool,
}

impl Format {
    /// Parses a line of text; a missing newline is added. Returns `None` if it is malformed.
    pub(crate) fn text(
        written: &str,
        wanted: &mut Wanted,
        faults: &mut Vec<FormatFault>,
    ) -> Option<Self> {
        let mut pieces = pieces(written, None, wanted, faults)?;
        match pieces.last_mut() {
            Some(Piece::Words(words)) if words.ends_with('\n') => {}
            _ => pieces.push(Piece::Words("\n".into())),
        }
        Some(Self { pieces: pieces.into(), escape: text::plain })
    }

    /// Parses the body of a response of this type. What a client has sent is escaped as the type
    /// requires, so that it cannot become markup. Returns `None` if it is malformed.
    pub(crate) fn body(
        written: &str,
        content_type: Option<&str>,
        wanted: &mut Wanted,
        faults: &mut Vec<FormatFault>,
    ) -> Option<Self> {
        let pieces = pieces(written, None, wanted, faults)?.into();
        let kind = content_type.unwrap_or_default().to_ascii_lowercase();
        let escape = match () {
            () if kind.contains("json") => text::json,
            () if kind.contains("html") || kind.contains("xml") => text::html,
            () => text::plain,
        };
        Some(Self { pieces, escape })
    }

    /// Returns the text for an exchange.
    pub(crate) fn expand(&self, record: &AccessRecord<'_>) -> Vec<u8> {
        let mut text = Vec::new();
        self.write(record, &mut text, &mut Stamp::new());
        text
    }

    /// Parses the values of a JSON object. A value that is a single operator has the type of the
    /// operator. Returns `None` if a value is malformed.
    pub(crate) fn json(
        written: &BTreeMap<String, String>,
        wanted: &mut Wanted,
        faults: &mut Vec<FormatFault>,
    ) -> Option<Self> {
        let written = written.iter().map(|(key, value)| (&**key, &**value));
        Self::object(written, wanted, faults)
    }

    /// Returns Envoy Gateway's default format, for settings without one.
    pub(crate) fn default_json(wanted: &mut Wanted) -> Self {
        let mut none = Vec::new();
        // The table has no faults, which a test verifies.
        Self::object(DEFAULT.iter().copied(), wanted, &mut none)
            .unwrap_or_else(|| Self { pieces: Box::default(), escape: text::json })
    }

    fn object<'w>(
        written: impl Iterator<Item = (&'w str, &'w str)>,
        wanted: &mut Wanted,
        faults: &mut Vec<FormatFault>,
    ) -> Option<Self> {
        let mut all = Vec::new();
        let mut words = String::from("{");
        let mut is_whole = true;
        for (place, (key, value)) in written.enumerate() {
            if place > 0 {
                words.push(',');
            }
            words.push_str(&quoted(key));
            words.push(':');
            let Some(mut value) = pieces(value, Some(key), wanted, faults) else {
                is_whole = false;
                continue;
            };
            if let [Piece::Field(..)] = &value[..] {
                all.push(Piece::Words(std::mem::take(&mut words).into()));
                if let Some(Piece::Field(field, limit)) = value.pop() {
                    all.push(Piece::Value(field, limit));
                }
                continue;
            }
            words.push('"');
            for piece in value {
                match piece {
                    Piece::Words(of) => words.push_str(inside(&quoted(&of))),
                    field => {
                        all.push(Piece::Words(std::mem::take(&mut words).into()));
                        all.push(field);
                    }
                }
            }
            words.push('"');
        }
        words.push_str("}\n");
        all.push(Piece::Words(words.into()));
        is_whole.then(|| Self { pieces: all.into(), escape: text::json })
    }

    /// Writes the line, including its newline.
    pub(super) fn write(&self, record: &AccessRecord<'_>, out: &mut Vec<u8>, stamp: &mut Stamp) {
        for piece in &self.pieces {
            match piece {
                Piece::Words(words) => out.extend_from_slice(words.as_bytes()),
                Piece::Field(field, limit) => {
                    if !field.write(record, out, stamp, self.escape, *limit) {
                        out.push(b'-');
                    }
                }
                Piece::Value(field, limit) => {
                    let before = out.len();
                    let quote = !field.is_number();
                    if quote {
                        out.push(b'"');
                    }
                    if !field.write(record, out, stamp, self.escape, *limit) {
                        out.truncate(before);
                        out.extend_from_slice(b"null");
                    } else if quote {
                        out.push(b'"');
                    }
                }
            }
        }
    }
}

/// Returns a quoted JSON string of printable ASCII.
fn quoted(words: &str) -> String {
    let mut out = vec![b'"'];
    text::json(&mut out, words.as_bytes());
    out.push(b'"');
    String::from_utf8(out).unwrap_or_default()
}

fn inside(quoted: &str) -> &str {
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default()
}

/// Parses a format. Returns `None` if it is malformed.
fn pieces(
    written: &str,
    key: Option<&str>,
    wanted: &mut Wanted,
    faults: &mut Vec<FormatFault>,
) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut words = String::new();
    let mut rest = written;
    let mut is_whole = true;
    while let Some((before, after)) = rest.split_once('%') {
        words.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            words.push('%');
            rest = after;
            continue;
        }
        let Spelled { name, parameters, limit, after } = match spelled(after) {
            Ok(spelled) => spelled,
            Err(problem) => {
                let key = key.map(str::to_owned);
                faults.push(FormatFault { key, problem, is_malformed: true });
                return None;
            }
        };
        rest = after;
        let field = match operator(name, parameters, limit, wanted) {
            Ok(field) => field,
            Err(why) => {
                let is_malformed = matches!(why, Unservable::Malformed(_));
                let key = key.map(str::to_owned);
                faults.push(FormatFault { key, problem: why.to_string(), is_malformed });
                is_whole &= !is_malformed;
                (Field::Absent, 0)
            }
        };
        if !words.is_empty() {
            pieces.push(Piece::Words(std::mem::take(&mut words).into()));
        }
        pieces.push(Piece::Field(field.0, field.1));
    }
    words.push_str(rest);
    if !words.is_empty() {
        pieces.push(Piece::Words(words.into()));
    }
    is_whole.then_some(pieces)
}

/// A parsed `NAME(parameters):limit%`, and the rest of the format after it.
struct Spelled<'w> {
    name: &'w str,
    parameters: Option<&'w str>,
    limit: Option<usize>,
    after: &'w str,
}

fn spelled(written: &str) -> Result<Spelled<'_>, String> {
    let is_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let end = written.bytes().position(|byte| !is_name(byte)).unwrap_or(written.len());
    let (name, mut rest) = written.split_at(end);
    let shown = || format!("%{}", written.get(..end + 1).unwrap_or(name).escape_debug());
    if name.is_empty() {
        return Err(format!(
            "`{}` is no command operator; write `%NAME%`, or `%%` for a percent sign",
            shown()
        ));
    }
    let mut parameters = None;
    if let Some(inside) = rest.strip_prefix('(') {
        let Some((of, after)) = inside.split_once(')') else {
            return Err(format!("`%{name}(` has no closing bracket; write `%{name}(...)%`"));
        };
        (parameters, rest) = (Some(of), after);
    }
    let mut limit = None;
    if let Some(after) = rest.strip_prefix(':') {
        let end = after.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(after.len());
        let (digits, after) = after.split_at(end);
        let Ok(bytes) = digits.parse() else {
            return Err(format!("`%{name}...:{digits}` needs a length in bytes after the colon"));
        };
        (limit, rest) = (Some(bytes), after);
    }
    let Some(after) = rest.strip_prefix('%') else {
        return Err(format!(
            "`{}` is not closed; write `%{name}%`, or `%%` for a percent sign",
            shown()
        ));
    };
    Ok(Spelled { name, parameters, limit, after })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use serde_json::Value;

    use super::*;
    use crate::observe::custom::{GatewayLog, Seen};
    use crate::observe::record::tests::sample;

    fn written(format: &Format, wanted: Wanted, headers: &[(&'static str, &[u8])]) -> String {
        let log = GatewayLog::new(Vec::new(), wanted);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let mut seen = Seen::default();
        seen.see_request(log.wanted(), &map);
        seen.see_response(log.wanted(), &map);
        let mut out = Vec::new();
        let record = AccessRecord { seen: &seen, trace_id: None, ..sample() };
        format.write(&record, &mut out, &mut Stamp::new());
        String::from_utf8(out).unwrap()
    }

    fn text(format: &str, headers: &[(&'static str, &[u8])]) -> String {
        let (mut wanted, mut faults) = (Wanted::default(), Vec::new());
        let format = Format::text(format, &mut wanted, &mut faults).unwrap();
        assert_eq!(faults, []);
        written(&format, wanted, headers)
    }

    #[test]
    fn a_body_shows_what_a_client_sent_as_text() {
        // (type, body, text)
        let table = [
            (
                None,
                "100%% of %REQ(X-A)%",
                r#"100% of <b>"ü"#.replace('"', "\\x22").replace('ü', "\\xC3\\xBC"),
            ),
            (
                Some("text/html; charset=utf-8"),
                "<p>%REQ(X-A)%</p>",
                "<p>&#60;b&#62;&#34;&#252;</p>".into(),
            ),
            (Some("application/json"), r#"{"a":"%REQ(X-A)%"}"#, r#"{"a":"<b>\"\u00fc"}"#.into()),
            (Some("text/html"), "%RESPONSE_CODE% %REQ(X-None)%", "200 -".into()),
        ];
        for (kind, body, want) in table {
            let (mut wanted, mut faults) = (Wanted::default(), Vec::new());
            let body = Format::body(body, kind, &mut wanted, &mut faults).unwrap();
            assert_eq!(faults, []);
            let headers: &[(&'static str, &[u8])] = &[("x-a", "<b>\"ü".as_bytes())];
            assert_eq!(written(&body, wanted, headers), want, "{kind:?}");
        }
        let (mut wanted, mut faults) = (Wanted::default(), Vec::new());
        assert!(Format::body("50% off", None, &mut wanted, &mut faults).is_none());
        assert!(faults[0].is_malformed);
    }

    #[test]
    fn operators_say_what_envoy_has_them_say() {
        // (format, line)
        let table = [
            ("%START_TIME%", "2026-09-14T11:59:59.988Z"),
            ("%START_TIME(%d/%b/%Y:%H:%M:%S %z)%", "14/Sep/2026:11:59:59 +0000"),
            ("%START_TIME(%Y-%m-%dT%H:%M:%E3SZ)%", "2026-09-14T11:59:59.988Z"),
            ("%START_TIME(%s)%", "1789387199"),
            ("%EMIT_TIME%", "2026-09-14T12:00:00.001Z"),
            ("%REQ(:METHOD)% %REQ(:AUTHORITY)%", "GET shop.example.com"),
            ("%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", "/cart?item=7&token=[redacted]"),
            ("%REQ_WITHOUT_QUERY(:PATH)%", "/cart"),
            ("%REQ(:SCHEME)% %PROTOCOL%", "https HTTP/2"),
            ("%REQ(:PATH):5%", "/cart"),
            ("%REQ(X-None)%", "-"),
            ("%REQ(X-None?X-Tenant)%", "blue"),
            ("%REQ(x-tenant):2%", "bl"),
            ("%RESP(X-Tenant)% %RESP(:STATUS)%", "blue 200"),
            ("%REQ(Referer)%", "https://a.test/?token=[redacted]"),
            ("%REQ(Authorization)%|%REQ(Cookie)%|%RESP(Set-Cookie)%", "[redacted]|-|-"),
            ("%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%", "11"),
            ("%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS%", "200 via_upstream -"),
            ("%BYTES_RECEIVED% %BYTES_SENT% %DURATION%", "0 5321 12"),
            ("%RESPONSE_DURATION% %RESPONSE_TX_DURATION%", "11 1"),
            (
                "%UPSTREAM_HOST% %UPSTREAM_CLUSTER% %ROUTE_NAME%",
                "10.0.0.5:8080 shop/cart shop/cart",
            ),
            ("%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT%", "10.0.0.5 8080"),
            ("%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "1"),
            ("%DOWNSTREAM_REMOTE_ADDRESS%", "198.51.100.7:50123"),
            ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "198.51.100.7"),
            ("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", "203.0.113.9:50123"),
            ("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", "203.0.113.9"),
            ("%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_PORT%", "192.0.2.1:443 443"),
            ("%REQUESTED_SERVER_NAME% %DOWNSTREAM_TLS_VERSION%", "shop.example.com TLSv1.3"),
            ("%REQ(X-REQUEST-ID):8% %STREAM_ID:8%", "0f8fad5b 0f8fad5b"),
            ("%TRACE_ID%", "0af7651916cd43dd8448eb211c80319c"),
            ("%UPSTREAM_LOCAL_ADDRESS%%UPSTREAM_TRANSPORT_FAILURE_REASON%", "--"),
            ("100 %% \"%REQ(USER-AGENT):7%\"\n", "100 % \"Mozilla\""),
            ("", ""),
        ];
        let headers: &[(&'static str, &[u8])] = &[
            ("x-tenant", b"blue"),
            ("authorization", b"Bearer hunter2"),
            ("referer", b"https://a.test/?token=hunter2"),
            ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ];
        for (format, line) in table {
            assert_eq!(text(format, headers), format!("{line}\n"), "{format}");
        }
    }

    #[test]
    fn a_trace_of_ones_own_goes_before_the_clients() {
        let mut wanted = Wanted::default();
        let format = Format::text("%TRACE_ID%", &mut wanted, &mut Vec::new()).unwrap();
        let mut out = Vec::new();
        format.write(&sample(), &mut out, &mut Stamp::new());
        assert_eq!(out, format!("{}\n", sample().trace_id.unwrap()).as_bytes());
    }

    #[test]
    fn the_default_is_that_of_the_command_line() {
        let mut wanted = Wanted::default();
        let format = Format::default_json(&mut wanted);
        let line = written(&format, wanted, &[("x-forwarded-for", b"198.51.100.7")]);
        let mut own = Vec::new();
        sample().envoy(&mut own, &mut Stamp::new());
        assert_eq!(line.as_bytes(), own);
    }

    #[test]
    fn json_has_types_and_null() {
        let keys = [
            ("a\"b", "%RESPONSE_CODE%"),
            ("flags", "%RESPONSE_FLAGS%"),
            ("mixed", "\"%RESPONSE_CODE%\" %REQ(X-None)%"),
            ("none", "%REQ(X-None)%"),
            ("words", "just \"words\"\n"),
        ];
        let keys = keys.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let (mut wanted, mut faults) = (Wanted::default(), Vec::new());
        let format = Format::json(&keys.into(), &mut wanted, &mut faults).unwrap();
        assert_eq!(faults, []);
        let line = written(&format, wanted, &[]);
        assert_eq!(
            line,
            concat!(
                r#"{"a\"b":200,"flags":"-","mixed":"\"200\" -","none":null,"#,
                r#""words":"just \"words\"\u000a"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn no_peer_breaks_a_line() {
        let hostile: &[u8] = b"a\"} \xff\\\x1b[2J {\"status\":200";
        let line = text("%REQ(X-A)% %RESP(X-A)%", &[("x-a", b"a\t\"b\"\\ \xc2\x9b\xff")]);
        let escaped = r"a\x09\x22b\x22\x5C \xC2\x9B\xFF";
        assert_eq!(line, format!("{escaped} {escaped}\n"));

        let (mut wanted, mut faults) = (Wanted::default(), Vec::new());
        let keys = [
            ("agent", "%REQ(USER-AGENT)%"),
            ("host", "%REQ(:AUTHORITY)% and %REQ(:PATH)%"),
            ("id", "%REQ(X-REQUEST-ID)%"),
        ];
        let keys = keys.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let json = Format::json(&keys.into(), &mut wanted, &mut faults).unwrap();
        let plain = "\"%REQ(USER-AGENT)%\" %REQ(:AUTHORITY)% %REQ(:PATH)% %REQ(X-REQUEST-ID)%";
        let plain = Format::text(plain, &mut wanted, &mut faults).unwrap();
        let record = AccessRecord {
            user_agent: Some(hostile),
            host: "a\r\nb\"",
            path: "/\u{2028}\n\"}",
            request_id: "\n\n",
            ..sample()
        };
        for format in [&json, &plain] {
            let mut out = Vec::new();
            format.write(&record, &mut out, &mut Stamp::new());
            assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert!(out.iter().all(|byte| *byte == b'\n' || (0x20..0x7f).contains(byte)));
        }
        let mut out = Vec::new();
        json.write(&record, &mut out, &mut Stamp::new());
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value.as_object().unwrap().len(), 3);
        assert_eq!(value["host"], "a\r\nb\" and /\u{2028}\n\"}");
        let mut out = Vec::new();
        plain.write(&record, &mut out, &mut Stamp::new());
        // Only the quotes of the format.
        assert_eq!(out.iter().filter(|byte| **byte == b'"').count(), 2);
    }

    #[test]
    fn a_fault_says_what_would_be_right() {
        // (format, a part of the problem, malformed)
        let table = [
            ("%REQ(:PATH)", "`%REQ(` is not closed; write `%REQ%`", true),
            ("%REQ(:PATH%", "`%REQ(` has no closing bracket", true),
            ("100 % sure", "`% ` is no command operator; write `%NAME%`, or `%%`", true),
            ("%", "`%` is no command operator", true),
            ("%response_code%", "is no command operator", true),
            ("%REQ%", "`%REQ%` needs the name of a header", true),
            ("%REQ(a b)%", "`a b` is not the name of a header", true),
            ("%REQ(X):%", "needs a length in bytes after the colon", true),
            ("%PROTOCOL(X)%", "`%PROTOCOL%` takes nothing in brackets", true),
            ("%START_TIME(%Y-%!)%", "is not a format of strftime", true),
            ("%START_TIME(\"%Y\")%", "leave out quotes", true),
            ("%RESPONSE_COD%", "`%RESPONSE_COD%` is not served and is written as `-`", false),
            ("%DYNAMIC_METADATA(a:b)%", "use one of EMIT_TIME, START_TIME, REQ(X?Y):Z", false),
        ];
        for (format, problem, is_malformed) in table {
            let mut faults = Vec::new();
            let made = Format::text(format, &mut Wanted::default(), &mut faults);
            assert_eq!(made.is_none(), is_malformed, "{format}");
            assert_eq!(faults.len(), 1, "{format}: {faults:?}");
            assert!(faults[0].problem.contains(problem), "{format}: {}", faults[0].problem);
            assert_eq!(faults[0].is_malformed, is_malformed, "{format}");
        }
    }
}
