//! The response that the query selects: `?status=NNN`, `?delay=1s`, `?size=N`.

use std::time::Duration;

use http::StatusCode;

/// Limit on `delay`.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// Limit on `size`, in bytes.
const MAX_SIZE: u64 = 1 << 30;

/// The response that a client asked for. Other parameters are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// `status`, 200 to 599; default 200.
    pub(super) status: StatusCode,
    /// `delay` in `ms` or `s`, at most a minute; default none.
    pub(super) delay: Duration,
    /// `size` of the body in bytes, at most 1 GiB; by default the body is the request as JSON.
    pub(super) size: Option<u64>,
}

impl Wanted {
    /// Parses a query, without its `?`.
    ///
    /// # Errors
    ///
    /// One of the three has an invalid value.
    pub(super) fn parse(query: &str) -> Result<Self, InvalidWish> {
        let mut wanted = Self { status: StatusCode::OK, delay: Duration::ZERO, size: None };
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "status" => wanted.status = status(value)?,
                "delay" => wanted.delay = delay(value)?,
                "size" => wanted.size = Some(size(value)?),
                _ => {}
            }
        }
        Ok(wanted)
    }
}

fn status(value: &str) -> Result<StatusCode, InvalidWish> {
    let number = value.parse().ok().filter(|number| (200..600).contains(number));
    number
        .and_then(|number: u16| StatusCode::from_u16(number).ok())
        .ok_or_else(|| InvalidWish::Status(value.into()))
}

fn delay(value: &str) -> Result<Duration, InvalidWish> {
    let (digits, unit) = match value.strip_suffix("ms") {
        Some(digits) => (digits, 1),
        None => (value.strip_suffix('s').unwrap_or(""), 1000),
    };
    let millis = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    millis
        .map(Duration::from_millis)
        .filter(|delay| *delay <= MAX_DELAY)
        .ok_or_else(|| InvalidWish::Delay(value.into()))
}

fn size(value: &str) -> Result<u64, InvalidWish> {
    let bytes = value.parse().ok().filter(|bytes| *bytes <= MAX_SIZE);
    bytes.ok_or_else(|| InvalidWish::Size(value.into()))
}

/// The reason why the query is invalid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidWish {
    #[error("`delay={0}` is not a time up to a minute; use `500ms` or `2s`")]
    Delay(String),
    #[error("`size={0}` is not a number of bytes up to 1073741824")]
    Size(String),
    #[error("`status={0}` is not a final status; use 200 to 599")]
    Status(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_followed_within_their_limits() {
        let plain = Wanted { status: StatusCode::OK, delay: Duration::ZERO, size: None };
        let status = |code| Wanted { status: StatusCode::from_u16(code).unwrap(), ..plain.clone() };
        let delay = |millis| Wanted { delay: Duration::from_millis(millis), ..plain.clone() };
        let size = |bytes| Wanted { size: Some(bytes), ..plain.clone() };

        // (query, the response wanted, or the invalid parameter)
        let table = [
            ("", Ok(plain.clone())),
            ("a=b&statuses=1", Ok(plain.clone())),
            ("status=404", Ok(status(404))),
            ("status=599", Ok(status(599))),
            ("status=101", Err("status")),
            ("status=600", Err("status")),
            ("status=", Err("status")),
            ("status", Err("status")),
            ("delay=1s", Ok(delay(1000))),
            ("delay=20ms", Ok(delay(20))),
            ("delay=60s", Ok(delay(60_000))),
            ("delay=61s", Err("delay")),
            ("delay=1", Err("delay")),
            ("delay=-1s", Err("delay")),
            ("delay=99999999999999999999s", Err("delay")),
            ("delay=18446744073709551615s", Err("delay")),
            ("size=0", Ok(size(0))),
            ("a&size=12", Ok(size(12))),
            ("size=1073741825", Err("size")),
            ("size=1k", Err("size")),
        ];
        for (query, want) in table {
            match (Wanted::parse(query), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want, "{query}"),
                (Err(wrong), Err(name)) => {
                    assert!(
                        wrong.to_string().starts_with(&format!("`{name}=")),
                        "{query}: {wrong}"
                    );
                }
                (got, want) => panic!("{query}: {got:?} instead of {want:?}"),
            }
        }
    }
}
