//! W3C Trace Context: parsing and writing of the fields `traceparent` and `tracestate`.
//!
//! Writes version 00, according to level 1 of the specification; the keys of `tracestate` members
//! may also have the form of level 2.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Length in bytes of `version-traceid-parentid-flags`.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;
/// Maximum size in bytes of the `tracestate` that is forwarded; section 3.3.1.5 requires at least
/// this.
const STATE_BYTES: usize = 512;
/// Maximum number of members of `tracestate` (section 3.3.1.1).
const STATE_MEMBERS: usize = 32;
/// Members longer than this are removed first from a field that is too large (section 3.3.1.5).
const LONG_MEMBER: usize = 128;

/// Identifier of a trace; never 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceId(NonZeroU128);

/// Identifier of a span within its trace; never 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpanId(NonZeroU64);

impl TraceId {
    /// Returns a random identifier. It is not a secret.
    pub(super) fn random() -> Self {
        Self(NonZeroU128::new(fastrand::u128(1..)).unwrap_or(NonZeroU128::MIN))
    }

    pub(super) fn number(self) -> u128 {
        self.0.get()
    }
}

impl SpanId {
    /// Returns a random identifier.
    pub(super) fn random() -> Self {
        Self(NonZeroU64::new(fastrand::u64(1..)).unwrap_or(NonZeroU64::MIN))
    }

    pub(super) fn number(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The contents of a `traceparent`: the trace, the parent span, and the sampling decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub trace: TraceId,
    pub span: SpanId,
    pub sampled: bool,
}

impl Context {
    /// Parses the value of a `traceparent` (sections 3.2.2 and 3.2.3).
    ///
    /// Returns `None` for a value that must be replaced: an id of zeros, upper case, version `ff`,
    /// and anything after the flags in version 00. For later versions, the part that version 00
    /// defines is used; any rest must begin with `-`, and is not forwarded.
    pub(crate) fn parse(field: &[u8]) -> Option<Self> {
        let (known, more) = field.split_at_checked(LENGTH)?;
        let version = hex(&known[..2])?;
        let has_dashes = [2, 35, 52].iter().all(|&at| known[at] == b'-');
        let may_have_more = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => matches!(more.first(), None | Some(b'-')),
        };
        if !has_dashes || !may_have_more {
            return None;
        }
        let flags = u8::try_from(hex(&known[53..])?).ok()?;
        Some(Self {
            trace: TraceId(NonZeroU128::new(hex(&known[3..35])?)?),
            span: SpanId(NonZeroU64::new(u64::try_from(hex(&known[36..52])?).ok()?)?),
            sampled: flags & SAMPLED != 0,
        })
    }

    /// Returns the context in the headers of a request. Several fields count as none.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(TRACEPARENT).iter();
        let only = fields.next().filter(|_| fields.next().is_none())?;
        Self::parse(only.as_bytes())
    }

    /// Returns the value of a `traceparent` of version 00. `sampled` is the only flag that may be
    /// set.
    pub(crate) fn field(self) -> [u8; LENGTH] {
        let mut field = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut field[3..35], self.trace.number());
        write_hex(&mut field[36..52], self.span.number().into());
        write_hex(&mut field[53..], u8::from(self.sampled).into());
        field
    }

    /// Replaces the `traceparent` in `headers`.
    pub(super) fn put(self, headers: &mut HeaderMap) {
        // 55 digits and dashes are always a valid value.
        if let Ok(value) = HeaderValue::from_bytes(&self.field()) {
            headers.insert(TRACEPARENT, value);
        }
    }
}

/// Parses hexadecimal digits, lower case only (section 3.2.1).
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// Writes the last hexadecimal digits of `number` that fit into `room`.
fn write_hex(room: &mut [u8], mut number: u128) {
    for digit in room.iter_mut().rev() {
        let value = u8::try_from(number & 0xf).unwrap_or_default();
        *digit = if value < 10 { b'0' + value } else { b'a' + value - 10 };
        number >>= 4;
    }
}

/// Replaces `tracestate` by one valid field, or removes it; returns the field.
///
/// Several fields form one list (section 3.3.1). A list that breaks a rule is removed completely,
/// since its meaning is unknown: invalid characters in a key or a value, more than 32 members, a
/// duplicate key. Beyond 512 bytes, long members are removed first, then members from the end.
pub(crate) fn settle_state(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let mut fields = headers.get_all(TRACESTATE).iter();
    let first = fields.next()?;
    let is_alone = fields.next().is_none();
    let settled = {
        let all = headers.get_all(TRACESTATE).iter().map(HeaderValue::as_bytes);
        members(all).and_then(|members| match is_alone && first.len() <= STATE_BYTES {
            true if members.is_empty() => None,
            true => Some(first.clone()),
            false => joined(members),
        })
    };
    match &settled {
        Some(value) => {
            headers.insert(TRACESTATE, value.clone());
        }
        None => {
            headers.remove(TRACESTATE);
        }
    }
    settled
}

/// Returns the members of a `tracestate`; `None` if one is invalid or there are too many.
fn members<'v>(fields: impl Iterator<Item = &'v [u8]>) -> Option<Vec<&'v [u8]>> {
    let mut members: Vec<&[u8]> = Vec::new();
    let parts = fields.flat_map(|field| field.split(|byte| *byte == b','));
    for part in parts.map(<[u8]>::trim_ascii).filter(|part| !part.is_empty()) {
        let key = key(part)?;
        let is_there = members.iter().any(|other| self::key(other) == Some(key));
        if is_there || members.len() == STATE_MEMBERS {
            return None;
        }
        members.push(part);
    }
    Some(members)
}

/// Returns the key of a member, if key and value have valid characters and lengths.
fn key(member: &[u8]) -> Option<&[u8]> {
    let equals = member.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    let begins = key.first().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let goes_on = key.iter().all(|b| {
        b.is_ascii_lowercase()
            || b.is_ascii_digit()
            || matches!(b, b'_' | b'-' | b'*' | b'/' | b'@')
    });
    let is_value =
        !value.is_empty() && value.iter().all(|b| matches!(b, b' '..=b'~') && *b != b'=');
    (begins && goes_on && key.len() <= 256 && is_value && value.len() <= 256).then_some(key)
}

/// Joins the members that fit into one field.
fn joined(mut members: Vec<&[u8]>) -> Option<HeaderValue> {
    let length = |members: &[&[u8]]| members.iter().map(|member| member.len() + 1).sum::<usize>();
    // There is one comma less than members.
    if length(&members) > STATE_BYTES + 1 {
        members.retain(|member| member.len() <= LONG_MEMBER);
    }
    while length(&members) > STATE_BYTES + 1 {
        members.pop();
    }
    let field = members.join(&b","[..]);
    HeaderValue::from_bytes(&field).ok().filter(|field| !field.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn headers(name: &HeaderName, fields: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(name.clone(), HeaderValue::from_str(field).unwrap());
        }
        headers
    }

    #[test]
    fn a_traceparent_is_read_to_the_letter() {
        let zeros = (&*"0".repeat(32), &*"0".repeat(16));
        let upper = TRACE.to_uppercase();
        // (field, sampled; None is replaced)
        let table: &[(String, Option<bool>)] = &[
            (format!("00-{TRACE}-{SPAN}-01"), Some(true)),
            (format!("00-{TRACE}-{SPAN}-00"), Some(false)),
            (format!("00-{TRACE}-{SPAN}-02"), Some(false)),
            (format!("00-{TRACE}-{SPAN}-ff"), Some(true)),
            // Future versions.
            (format!("01-{TRACE}-{SPAN}-01"), Some(true)),
            (format!("cc-{TRACE}-{SPAN}-01-what-the-future-will-be"), Some(true)),
            (format!("cc-{TRACE}-{SPAN}-01-"), Some(true)),
            (format!("cc-{TRACE}-{SPAN}-01.what"), None),
            (format!("cc-{TRACE}-{SPAN}-0"), None),
            (format!("ff-{TRACE}-{SPAN}-01"), None),
            // Version 00.
            (format!("00-{TRACE}-{SPAN}-01-"), None),
            (format!("00-{TRACE}-{SPAN}-01-more"), None),
            (format!("00-{TRACE}-{SPAN}"), None),
            (format!("00-{TRACE}-{SPAN}-1"), None),
            (format!("0-{TRACE}-{SPAN}-01"), None),
            (format!("00-{}-{SPAN}-01", zeros.0), None),
            (format!("00-{TRACE}-{}-01", zeros.1), None),
            (format!("00-{upper}-{SPAN}-01"), None),
            (format!("00-{TRACE}-{}-01", SPAN.to_uppercase()), None),
            (format!("0X-{TRACE}-{SPAN}-01"), None),
            (format!("00-{TRACE}-{SPAN}-0A"), None),
            (format!("00_{TRACE}-{SPAN}-01"), None),
            (format!("00-{TRACE}_{SPAN}-01"), None),
            (format!("00-{TRACE}-{SPAN}_01"), None),
            (format!("00-{}g-{SPAN}-01", &TRACE[..31]), None),
            (format!(" 00-{TRACE}-{SPAN}-01"), None),
            ("00".into(), None),
            (String::new(), None),
            ("00-ä".repeat(20), None),
        ];
        for (field, sampled) in table {
            let read = Context::parse(field.as_bytes());
            assert_eq!(read.map(|context| context.sampled), *sampled, "{field}");
            if let Some(context) = read {
                assert_eq!(format!("{:?}", context.trace), TRACE);
                assert_eq!(format!("{:?}", context.span), SPAN);
            }
        }
    }

    #[test]
    fn two_fields_are_as_good_as_none() {
        let field = format!("00-{TRACE}-{SPAN}-01");
        assert!(Context::of(&headers(&TRACEPARENT, &[&field])).is_some());
        assert!(Context::of(&headers(&TRACEPARENT, &[&field, &field])).is_none());
        assert!(Context::of(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_tracestate_is_passed_on_or_left_out() {
        let one = |length: usize| format!("k=v{}", "x".repeat(length - 3));
        let many =
            |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let tenth = |n: usize| format!("k{n:02}={}", "v".repeat(76));
        let long: Vec<String> = (0..7).map(tenth).collect();
        let with_a_long_one =
            format!("{},long={},{}", long[0], "l".repeat(200), long[1..6].join(","));
        let without = long[..6].join(",");
        // (fields, forwarded; "" for no field)
        let table: &[(&[&str], &str)] = &[
            (
                &["congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"],
                "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7",
            ),
            (&["a=1", "b=2"], "a=1,b=2"),
            (&["a=1 , \tb=2,", "", "c=3"], "a=1,b=2,c=3"),
            (&["a=1 , b=2"], "a=1 , b=2"),
            (&["fw529a3039@dt=FfAAAA,0a-*_/=x y"], "fw529a3039@dt=FfAAAA,0a-*_/=x y"),
            (&[""], ""),
            (&[" , "], ""),
            (&["a"], ""),
            (&["a="], ""),
            (&["=b"], ""),
            (&["A=b"], ""),
            (&["_a=b"], ""),
            (&["a b=c"], ""),
            (&["a=b=c"], ""),
            (&["a=\u{e9}"], ""),
            (&["a=1,b=2,a=3"], ""),
            (&["a=1", "a=2"], ""),
            (&[&many(32)], &many(32)),
            (&[&many(33)], ""),
            (&[&one(258)], &one(258)),
            (&[&one(259)], ""),
            (&[&long[..6].join(",")], &long[..6].join(",")),
            // 80 bytes each and a comma between them: six fit into 512.
            (&[&long.join(",")], &without),
            (&[&with_a_long_one], &without),
        ];
        for (fields, want) in table {
            let mut headers = headers(&TRACESTATE, fields);
            let settled = settle_state(&mut headers);
            let text = settled.as_ref().map_or("", |value| value.to_str().unwrap());
            assert_eq!(text, *want, "{fields:?}");
            let left: Vec<_> = headers.get_all(TRACESTATE).iter().collect();
            assert_eq!(left, settled.iter().collect::<Vec<_>>(), "{fields:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(trace in 1_u128.., span in 1_u64.., sampled: bool) {
            let context = Context {
                trace: TraceId(NonZeroU128::new(trace).unwrap()),
                span: SpanId(NonZeroU64::new(span).unwrap()),
                sampled,
            };
            prop_assert_eq!(Context::parse(&context.field()), Some(context));
        }

        #[test]
        fn a_settled_tracestate_stays_as_it_is(fields in prop::collection::vec("[a-c=, @]{0,40}|[a-z]{1,9}=[ -~]{1,300}", 0..9)) {
            let fields: Vec<&str> = fields.iter().map(|field| field.trim()).collect();
            let mut once = headers(&TRACESTATE, &fields);
            let settled = settle_state(&mut once);
            prop_assert!(settled.as_ref().is_none_or(|value| value.len() <= STATE_BYTES));
            prop_assert_eq!(settle_state(&mut once), settled);
        }
    }
}
