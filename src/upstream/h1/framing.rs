//! Framing of responses, and persistence of their connections (RFC 9112 sections 6 and 9).

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode, Version};

use crate::upstream::h1::request::parse_length;
use crate::upstream::h1::response::Head;

/// The framing of a response body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseFraming {
    /// No body, regardless of the fields.
    Absent,
    Chunked,
    Length(u64),
    /// The body ends with the connection.
    UntilClose,
}

/// Determines the framing of a final response and normalises its fields: removes
/// `transfer-encoding`, and makes `content-length` canonical or removes it.
///
/// # Errors
///
/// Framing that another recipient could interpret differently.
pub(super) fn settle(
    head: Head,
    headers: &mut HeaderMap,
    to_head: bool,
) -> Result<ResponseFraming, &'static str> {
    let chunked = is_chunked(headers)?;
    let length = length(headers)?;
    if chunked && length.is_some() {
        return Err("content-length and transfer-encoding");
    }
    if chunked && head.version != Version::HTTP_11 {
        return Err("transfer-encoding in HTTP/1.0");
    }
    if chunked {
        headers.remove(TRANSFER_ENCODING);
    }
    if head.status == StatusCode::NO_CONTENT && length.is_some() {
        // RFC 9110 section 8.6: a 204 must not have `content-length` either.
        headers.remove(CONTENT_LENGTH);
    }
    let bodiless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(match length {
        _ if to_head || bodiless => ResponseFraming::Absent,
        _ if chunked => ResponseFraming::Chunked,
        Some(length) => ResponseFraming::Length(length),
        None => ResponseFraming::UntilClose,
    })
}

/// Returns true for `chunked` (RFC 9112 section 6.1). Other codings and lists are refused: the
/// gateway never requests them (it sends no `te`), and recipients interpret them differently.
fn is_chunked(headers: &HeaderMap) -> Result<bool, &'static str> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(false) };
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err("transfer-encoding is not `chunked`");
    }
    Ok(true)
}

fn length(headers: &mut HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() {
        return Err("content-length twice");
    }
    let length = parse_length(value.as_bytes()).ok_or("content-length is not a number")?;
    if value.len() > 1 && value.as_bytes().starts_with(b"0") {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(Some(length))
}

/// Returns true if the backend will accept another request on this connection.
///
/// HTTP/1.0 connections are not kept, not even with `keep-alive`.
pub(super) fn is_kept_alive(head: Head, headers: &HeaderMap) -> bool {
    head.version == Version::HTTP_11
        && !headers.get_all(CONNECTION).iter().any(|value| has_token(value, "close"))
}

/// Returns true if a comma-separated field contains `token`.
pub(super) fn has_token(value: &HeaderValue, token: &str) -> bool {
    value
        .as_bytes()
        .split(|byte| *byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::upstream::testing::Fields;

    fn map(fields: &Fields) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).fold(
            HeaderMap::new(),
            |mut map, (name, value)| {
                map.append(name, value);
                map
            },
        )
    }

    const CL: &str = "content-length";
    const TE: &str = "transfer-encoding";

    #[test]
    fn the_end_of_a_response_is_clear_or_it_is_refused() {
        use ResponseFraming::{Absent, Chunked, Length, UntilClose};
        const OLD: Version = Version::HTTP_10;
        const NEW: Version = Version::HTTP_11;

        // (version, status, to HEAD, fields, framing or part of the message)
        type Row = (Version, u16, bool, &'static Fields, Result<ResponseFraming, &'static str>);
        let table: [Row; 32] = [
            (NEW, 200, false, &[(CL, "5")], Ok(Length(5))),
            (NEW, 200, false, &[(CL, "005")], Ok(Length(5))),
            (NEW, 200, false, &[(CL, "0")], Ok(Length(0))),
            (NEW, 200, false, &[(TE, "chunked")], Ok(Chunked)),
            (NEW, 200, false, &[(TE, "Chunked")], Ok(Chunked)),
            (NEW, 200, false, &[], Ok(UntilClose)),
            (OLD, 200, false, &[], Ok(UntilClose)),
            (OLD, 200, false, &[(CL, "5")], Ok(Length(5))),
            (NEW, 204, false, &[], Ok(Absent)),
            (NEW, 204, false, &[(CL, "5")], Ok(Absent)),
            (NEW, 304, false, &[(CL, "5")], Ok(Absent)),
            (NEW, 304, false, &[(TE, "chunked")], Ok(Absent)),
            (NEW, 200, true, &[(CL, "5")], Ok(Absent)),
            (NEW, 200, true, &[(TE, "chunked")], Ok(Absent)),
            (NEW, 200, true, &[], Ok(Absent)),
            (NEW, 200, false, &[(CL, "5"), (CL, "5")], Err("twice")),
            (NEW, 200, false, &[(CL, "5"), (CL, "6")], Err("twice")),
            (NEW, 200, false, &[(CL, "5, 5")], Err("not a number")),
            (NEW, 200, false, &[(CL, "+2")], Err("not a number")),
            (NEW, 200, false, &[(CL, "-1")], Err("not a number")),
            (NEW, 200, false, &[(CL, "0x2")], Err("not a number")),
            (NEW, 200, false, &[(CL, "")], Err("not a number")),
            (NEW, 200, false, &[(CL, "9223372036854775808")], Err("not a number")),
            (NEW, 200, false, &[(CL, "99999999999999999999")], Err("not a number")),
            (NEW, 304, false, &[(CL, "x")], Err("not a number")),
            (NEW, 200, false, &[(CL, "5"), (TE, "chunked")], Err("and transfer")),
            (NEW, 200, true, &[(CL, "5"), (TE, "chunked")], Err("and transfer")),
            (NEW, 200, false, &[(TE, "chunked"), (TE, "chunked")], Err("not `chunked`")),
            (NEW, 200, false, &[(TE, "chunked, chunked")], Err("not `chunked`")),
            (NEW, 200, false, &[(TE, "gzip, chunked")], Err("not `chunked`")),
            (NEW, 200, false, &[(TE, "xchunked")], Err("not `chunked`")),
            (OLD, 200, false, &[(TE, "chunked")], Err("HTTP/1.0")),
        ];
        for (version, status, to_head, fields, want) in table {
            let head = Head { version, status: StatusCode::from_u16(status).unwrap() };
            let mut headers = map(fields);
            let got = settle(head, &mut headers, to_head);
            match (got, want) {
                (Err(got), Err(want)) => assert!(got.contains(want), "{fields:?}: {got}"),
                (got, want) => assert_eq!(got, want, "{version:?} {status} {fields:?}"),
            }
            if got.is_ok() {
                assert!(!headers.contains_key(TE), "{fields:?}");
                assert!(status != 204 || !headers.contains_key(CL), "{fields:?}");
            }
            if got == Ok(Length(5)) {
                assert_eq!(headers[CL], "5", "the canonical number travels on");
            }
        }
    }

    #[test]
    fn only_a_new_connection_that_does_not_say_close_is_kept() {
        // (version, fields, kept)
        let table: [(Version, &Fields, bool); 6] = [
            (Version::HTTP_11, &[], true),
            (Version::HTTP_11, &[("connection", "keep-alive")], true),
            (Version::HTTP_11, &[("connection", "Close")], false),
            (Version::HTTP_11, &[("connection", "x-a"), ("connection", "x-b ,close")], false),
            (Version::HTTP_10, &[], false),
            (Version::HTTP_10, &[("connection", "keep-alive")], false),
        ];
        for (version, fields, want) in table {
            let head = Head { version, status: StatusCode::OK };
            assert_eq!(is_kept_alive(head, &map(fields)), want, "{version:?} {fields:?}");
        }
    }
}
