//! Envoy's command operators, which insert values of an exchange into a format.

use std::fmt;

use http::header::{AUTHORIZATION, COOKIE, HeaderName, PROXY_AUTHORIZATION, SET_COOKIE};
use jiff::Timestamp;
use jiff::fmt::strtime::BrokenDownTime;

use crate::observe::record::{
    AccessRecord, HOST_BYTES, METHOD_BYTES, REQUEST_ID_BYTES, TARGET_BYTES, USER_AGENT_BYTES,
    Upstream, cut,
};
use crate::observe::redact;
use crate::observe::text::{self, Escape, Stamp};
use crate::stats::ResponseFlags;

use super::headers::Wanted;

/// Limit on the value of a header, in bytes; a format may set a lower one.
const HEADER_BYTES: usize = 1 << 10;
/// The limit of an operator for which the format sets none. Headers of a peer have their own
/// limits.
const UNCUT: usize = usize::MAX;

/// The value that an operator inserts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Absent,
    Attempts,
    BytesReceived,
    BytesSent,
    Details,
    Duration,
    EmitTime(Option<TimeFormat>),
    Flags,
    FlagsLong,
    /// The first of two sources that has a value.
    First(Source, Option<Source>),
    Local(Part),
    /// The address of the connection's peer.
    Direct(Part),
    Protocol,
    /// The address of the client: the peer, or the address that a trusted peer sent.
    Remote(Part),
    ResponseDuration,
    ResponseSending,
    Route,
    ServerName,
    StartTime(Option<TimeFormat>),
    Status,
    TlsVersion,
    TraceId(usize),
    Upstream(Part),
    UpstreamCluster,
}

/// A whole address, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Host,
    Port,
}

/// The source of a value: a header, or a value that Envoy exposes as a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Authority,
    Method,
    Path,
    PathWithoutQuery,
    /// A header with a URL, which may have secrets in its query.
    Referer(usize),
    RequestHeader(usize),
    RequestId,
    ResponseHeader(usize),
    Scheme,
    /// A header with a secret; its value is written as `[redacted]`.
    Secret(usize, Side),
    Status,
    UpstreamDuration,
    UserAgent,
}

/// The message that has the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Request,
    Response,
}

/// A validated format of strftime(3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TimeFormat(Box<str>);

/// The reason why an operator cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unservable {
    /// The operator is invalid, which makes the whole format unusable.
    Malformed(String),
    /// The operator is not supported by the gateway; Envoy may support it.
    Unserved(String),
}

/// Operators without parameters.
const PLAIN: &[(&str, Field)] = &[
    ("BYTES_RECEIVED", Field::BytesReceived),
    ("BYTES_SENT", Field::BytesSent),
    ("CONNECTION_TERMINATION_DETAILS", Field::Absent),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Field::Direct(Part::Whole)),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", Field::Direct(Part::Host)),
    ("DOWNSTREAM_DIRECT_REMOTE_PORT", Field::Direct(Part::Port)),
    ("DOWNSTREAM_LOCAL_ADDRESS", Field::Local(Part::Whole)),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Field::Local(Part::Host)),
    ("DOWNSTREAM_LOCAL_PORT", Field::Local(Part::Port)),
    ("DOWNSTREAM_REMOTE_ADDRESS", Field::Remote(Part::Whole)),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Field::Remote(Part::Host)),
    ("DOWNSTREAM_REMOTE_PORT", Field::Remote(Part::Port)),
    ("DOWNSTREAM_TLS_VERSION", Field::TlsVersion),
    ("DURATION", Field::Duration),
    ("PROTOCOL", Field::Protocol),
    ("REQUESTED_SERVER_NAME", Field::ServerName),
    ("RESPONSE_CODE", Field::Status),
    ("RESPONSE_CODE_DETAILS", Field::Details),
    ("RESPONSE_DURATION", Field::ResponseDuration),
    ("RESPONSE_FLAGS", Field::Flags),
    ("RESPONSE_FLAGS_LONG", Field::FlagsLong),
    ("RESPONSE_TX_DURATION", Field::ResponseSending),
    ("ROUTE_NAME", Field::Route),
    ("STREAM_ID", Field::First(Source::RequestId, None)),
    ("UPSTREAM_CLUSTER", Field::UpstreamCluster),
    ("UPSTREAM_CLUSTER_RAW", Field::UpstreamCluster),
    ("UPSTREAM_HOST", Field::Upstream(Part::Whole)),
    ("UPSTREAM_LOCAL_ADDRESS", Field::Absent),
    ("UPSTREAM_REMOTE_ADDRESS", Field::Upstream(Part::Whole)),
    ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Field::Upstream(Part::Host)),
    ("UPSTREAM_REMOTE_PORT", Field::Upstream(Part::Port)),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", Field::Attempts),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", Field::Absent),
];

/// Operators with required or optional parameters, and `TRACE_ID`.
const OTHERS: &str =
    "EMIT_TIME, START_TIME, REQ(X?Y):Z, REQ_WITHOUT_QUERY(X?Y):Z, RESP(X?Y):Z, TRACE_ID";

/// Returns the field and the limit of an operator from its name, parameters and length.
///
/// # Errors
///
/// The fault in the operator and its correction.
pub(super) fn operator(
    name: &str,
    parameters: Option<&str>,
    limit: Option<usize>,
    wanted: &mut Wanted,
) -> Result<(Field, usize), Unservable> {
    let limit = limit.unwrap_or(UNCUT);
    if let Some((_, field)) = PLAIN.iter().find(|(known, _)| *known == name) {
        return match parameters {
            None => Ok((field.clone(), limit)),
            Some(_) => Err(Unservable::Malformed(format!("`%{name}%` takes nothing in brackets"))),
        };
    }
    let headers = |of: &str| match parameters {
        Some(written) => Ok(written.to_owned()),
        None => Err(Unservable::Malformed(format!(
            "`%{of}%` needs the name of a header: write `%{of}(NAME)%`"
        ))),
    };
    let field = match name {
        "START_TIME" => Field::StartTime(time_format(parameters)?),
        "EMIT_TIME" => Field::EmitTime(time_format(parameters)?),
        "REQ" => first(&headers(name)?, |word| request(word, wanted))?,
        "REQ_WITHOUT_QUERY" => first(&headers(name)?, |word| match request(word, wanted)? {
            Source::Path => Ok(Source::PathWithoutQuery),
            other => Ok(other),
        })?,
        "RESP" => first(&headers(name)?, |word| response(word, wanted))?,
        "TRACE_ID" if parameters.is_none() => {
            Field::TraceId(wanted.request(HeaderName::from_static("traceparent")))
        }
        _ => return Err(Unservable::Unserved(unserved(name))),
    };
    Ok((field, limit))
}

fn unserved(name: &str) -> String {
    let plain: Vec<&str> = PLAIN.iter().map(|(name, _)| *name).collect();
    let shown = name.get(..64).unwrap_or(name);
    format!(
        "`%{shown}%` is not served and is written as `-`; use one of {OTHERS}, {}",
        plain.join(", ")
    )
}

/// Parses `X?Y`: a source and an optional second one.
fn first(
    written: &str,
    mut source: impl FnMut(&str) -> Result<Source, Unservable>,
) -> Result<Field, Unservable> {
    Ok(match written.split_once('?') {
        Some((one, other)) => Field::First(source(one)?, Some(source(other)?)),
        None => Field::First(source(written)?, None),
    })
}

fn request(word: &str, wanted: &mut Wanted) -> Result<Source, Unservable> {
    let word = word.to_ascii_lowercase();
    Ok(match &*word {
        ":authority" | "host" => Source::Authority,
        ":method" => Source::Method,
        // The path is logged as the client sent it. Envoy keeps that path in
        // `x-envoy-original-path` when it rewrites the path.
        ":path" | "x-envoy-original-path" => Source::Path,
        ":scheme" => Source::Scheme,
        "user-agent" => Source::UserAgent,
        "x-request-id" => Source::RequestId,
        _ => {
            let name = header(&word)?;
            let secret = is_secret(&name);
            let place = wanted.request(name);
            match &*word {
                _ if secret => Source::Secret(place, Side::Request),
                "referer" => Source::Referer(place),
                _ => Source::RequestHeader(place),
            }
        }
    })
}

fn response(word: &str, wanted: &mut Wanted) -> Result<Source, Unservable> {
    let word = word.to_ascii_lowercase();
    Ok(match &*word {
        ":status" => Source::Status,
        "x-envoy-upstream-service-time" => Source::UpstreamDuration,
        _ => {
            let name = header(&word)?;
            let secret = is_secret(&name);
            let place = wanted.response(name);
            if secret {
                Source::Secret(place, Side::Response)
            } else {
                Source::ResponseHeader(place)
            }
        }
    })
}

fn is_secret(name: &HeaderName) -> bool {
    [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION, SET_COOKIE].contains(name)
}

pub(super) fn header(word: &str) -> Result<HeaderName, Unservable> {
    HeaderName::try_from(word).map_err(|_| {
        let shown = word.get(..64).unwrap_or(word).escape_debug();
        Unservable::Malformed(format!("`{shown}` is not the name of a header"))
    })
}

fn time_format(written: Option<&str>) -> Result<Option<TimeFormat>, Unservable> {
    let Some(written) = written.filter(|written| !written.is_empty()) else { return Ok(None) };
    // Envoy's specifiers for fractions of a second.
    let format = written.replace("%E3S", "%S%.3f").replace("%E6S", "%S%.6f");
    let format = TimeFormat(format.into());
    let mut sample = Vec::new();
    let is_plain = |bytes: &[u8]| {
        bytes.iter().all(|byte| (0x20..0x7f).contains(byte) && !matches!(byte, b'"' | b'\\'))
    };
    match format.write(&mut sample, Timestamp::UNIX_EPOCH) {
        Ok(()) if is_plain(&sample) => Ok(Some(format)),
        Ok(()) => Err(Unservable::Malformed(format!(
            "the time format `{written}` has characters that do not belong into a line; leave out \
             quotes, backslashes and what is not ASCII"
        ))),
        Err(error) => Err(Unservable::Malformed(format!(
            "`{written}` is not a format of strftime: {error}; use `%Y-%m-%dT%H:%M:%SZ`, or nothing \
             for that with milliseconds"
        ))),
    }
}

impl TimeFormat {
    fn write(&self, out: &mut Vec<u8>, time: Timestamp) -> Result<(), jiff::Error> {
        BrokenDownTime::from(time).format(&*self.0, out)
    }
}

impl fmt::Display for Unservable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(problem) | Self::Unserved(problem) => f.write_str(problem),
        }
    }
}

impl Field {
    /// Returns true if JSON has the value as a number.
    pub(super) fn is_number(&self) -> bool {
        matches!(
            self,
            Self::Attempts
                | Self::BytesReceived
                | Self::BytesSent
                | Self::Direct(Part::Port)
                | Self::Duration
                | Self::Local(Part::Port)
                | Self::Remote(Part::Port)
                | Self::ResponseDuration
                | Self::ResponseSending
                | Self::Status
                | Self::Upstream(Part::Port)
        )
    }

    /// Writes the value, with at most `limit` bytes of a peer's text. Writes nothing and returns
    /// false if the value is unknown for this exchange.
    pub(super) fn write(
        &self,
        record: &AccessRecord<'_>,
        out: &mut Vec<u8>,
        stamp: &mut Stamp,
        escape: Escape,
        limit: usize,
    ) -> bool {
        match self {
            Self::Absent => return false,
            Self::Attempts => text::number(out, record.attempts.into()),
            Self::BytesReceived => text::number(out, record.request_bytes),
            Self::BytesSent => text::number(out, record.response_bytes),
            Self::Details => return words(out, record.details, escape, limit),
            Self::Duration => text::number(out, text::whole_millis(record.duration)),
            Self::EmitTime(format) => time(out, stamp, format.as_ref(), record.time),
            Self::StartTime(format) => time(out, stamp, format.as_ref(), record.began()),
            Self::Flags => out.extend_from_slice(record.flags.short().as_bytes()),
            Self::FlagsLong => flags_long(out, record.flags),
            Self::First(source, None) => return source.write(record, out, escape, limit),
            Self::First(source, Some(other)) => {
                return source.write(record, out, escape, limit)
                    || other.write(record, out, escape, limit);
            }
            Self::Local(part) => {
                let Some(address) = record.local else { return false };
                part.write(out, address);
            }
            Self::Direct(part) => part.write(out, record.peer),
            Self::Remote(part) => part.write(out, (record.client, record.peer.port()).into()),
            Self::Protocol => out.extend_from_slice(record.protocol.as_bytes()),
            Self::ResponseDuration => {
                let Some(took) = record.upstream_duration else { return false };
                text::number(out, text::whole_millis(took));
            }
            Self::ResponseSending => {
                let Some(took) = record.upstream_duration else { return false };
                text::number(out, text::whole_millis(record.duration.saturating_sub(took)));
            }
            Self::Route => return words(out, record.route, escape, limit),
            Self::ServerName => return words(out, record.sni, escape, limit),
            Self::Status => text::number(out, record.status.into()),
            Self::TlsVersion => return words(out, record.tls, escape, limit),
            Self::TraceId(place) => {
                // A request that is not traced here may be part of a trace of its client.
                let told = || record.seen.request(*place).and_then(trace_id);
                let id = record.trace_id.map(str::as_bytes).or_else(told);
                return words(out, id, escape, limit);
            }
            Self::Upstream(part) => match (record.upstream, part) {
                (None, _) | (Some(Upstream::Name(_)), Part::Port) => return false,
                (Some(Upstream::Address(address)), part) => part.write(out, address),
                (Some(Upstream::Name(name)), _) => escape(out, name.as_bytes()),
            },
            Self::UpstreamCluster => return words(out, record.upstream_cluster(), escape, limit),
        }
        true
    }

    /// Returns the value as text, if it is available as text without formatting.
    pub(super) fn words<'r>(&self, record: &'r AccessRecord<'_>) -> Option<&'r [u8]> {
        match self {
            Self::Details => record.details.map(str::as_bytes),
            Self::Flags => Some(record.flags.short().as_bytes()),
            Self::First(source, None) => source.words(record),
            Self::Protocol => Some(record.protocol.as_bytes()),
            Self::Route => record.route.map(str::as_bytes),
            Self::ServerName => record.sni.map(str::as_bytes),
            Self::TlsVersion => record.tls.map(str::as_bytes),
            _ => None,
        }
    }

    /// Returns the value as a number, if it is one.
    pub(super) fn number(&self, record: &AccessRecord<'_>) -> Option<i64> {
        let number = match self {
            Self::Attempts => record.attempts.into(),
            Self::BytesReceived => record.request_bytes,
            Self::BytesSent => record.response_bytes,
            Self::Duration => text::whole_millis(record.duration),
            Self::Direct(Part::Port) | Self::Remote(Part::Port) => record.peer.port().into(),
            // In CEL, there is no response code without a response.
            Self::Status if record.status == 0 => return None,
            Self::Status => record.status.into(),
            _ => return None,
        };
        i64::try_from(number).ok()
    }
}

impl Source {
    fn words<'r>(&self, record: &'r AccessRecord<'_>) -> Option<&'r [u8]> {
        let found = match self {
            Self::Authority => record.host.as_bytes(),
            Self::Method => record.method.as_bytes(),
            Self::Path => record.path.as_bytes(),
            Self::PathWithoutQuery => record.path.split('?').next().unwrap_or_default().as_bytes(),
            Self::Referer(place)
            | Self::RequestHeader(place)
            | Self::Secret(place, Side::Request) => record.seen.request(*place)?,
            Self::ResponseHeader(place) | Self::Secret(place, Side::Response) => {
                record.seen.response(*place)?
            }
            Self::RequestId => record.request_id.as_bytes(),
            Self::Scheme => {
                let scheme = if record.tls.is_some() { "https" } else { "http" };
                scheme.as_bytes()
            }
            Self::UserAgent => record.user_agent?,
            Self::Status | Self::UpstreamDuration => return None,
        };
        Some(found)
    }

    fn write(
        &self,
        record: &AccessRecord<'_>,
        out: &mut Vec<u8>,
        escape: Escape,
        limit: usize,
    ) -> bool {
        match self {
            Self::Status if record.status > 0 => {
                text::number(out, record.status.into());
                return true;
            }
            Self::UpstreamDuration => {
                let Some(took) = record.upstream_duration else { return false };
                text::number(out, text::whole_millis(took));
                return true;
            }
            _ => {}
        }
        let Some(found) = self.words(record).filter(|found| !found.is_empty()) else {
            return false;
        };
        let most = |own: usize| limit.min(own);
        match self {
            Self::Authority => redact::host(out, cut(found, most(HOST_BYTES)), escape),
            Self::Path | Self::PathWithoutQuery => {
                redact::target(out, cut(found, most(TARGET_BYTES)), escape);
            }
            Self::Secret(..) => out.extend_from_slice(b"[redacted]"),
            Self::Method => escape(out, cut(found, most(METHOD_BYTES))),
            Self::RequestId => escape(out, cut(found, most(REQUEST_ID_BYTES))),
            Self::UserAgent => escape(out, cut(found, most(USER_AGENT_BYTES))),
            Self::Referer(_) => redact::target(out, cut(found, most(HEADER_BYTES)), escape),
            _ => escape(out, cut(found, most(HEADER_BYTES))),
        }
        true
    }
}

impl Part {
    fn write(self, out: &mut Vec<u8>, address: std::net::SocketAddr) {
        match self {
            Self::Whole => text::socket_address(out, address),
            Self::Host => text::ip(out, address.ip()),
            Self::Port => text::number(out, address.port().into()),
        }
    }
}

fn words(out: &mut Vec<u8>, words: Option<impl AsRef<[u8]>>, escape: Escape, limit: usize) -> bool {
    let Some(words) = words else { return false };
    escape(out, cut(words.as_ref(), limit));
    true
}

fn time(
    out: &mut Vec<u8>,
    stamp: &mut Stamp,
    format: Option<&TimeFormat>,
    time: std::time::SystemTime,
) {
    match format {
        None => stamp.write(out, time),
        Some(format) => {
            let time = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
            let before = out.len();
            if format.write(out, time).is_err() {
                out.truncate(before);
            }
        }
    }
}

/// Returns the trace ID of 32 digits from a `traceparent` of W3C Trace Context (version, trace ID,
/// parent, flags).
fn trace_id(traceparent: &[u8]) -> Option<&[u8]> {
    let id = traceparent.get(3..35)?;
    let is_one = traceparent.get(2) == Some(&b'-') && traceparent.get(35) == Some(&b'-');
    (is_one && id.iter().all(u8::is_ascii_hexdigit)).then_some(id)
}

/// Writes the flags with Envoy's long names.
fn flags_long(out: &mut Vec<u8>, flags: ResponseFlags) {
    if flags.is_empty() {
        out.push(b'-');
    }
    for (place, flag) in flags.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(flag.long().as_bytes());
    }
}
