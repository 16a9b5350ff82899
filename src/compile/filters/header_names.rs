//! Names of the headers that filters may change.

use http::HeaderName;

use crate::compile::misfit::Misfit;
use crate::config::FieldPath;

use super::invalid::InvalidFilter;

/// Parses the name of a header that a filter may change. Connection headers frame the message (RFC
/// 9110 section 7.6.1, RFC 9112 section 6): changing one would change where a request ends for the
/// backend.
pub(in crate::compile) fn changeable(
    name: &str,
    at: impl FnOnce() -> FieldPath,
) -> Result<HeaderName, Misfit> {
    const CONNECTION: [&str; 9] = [
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    ];
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Misfit::Reported)?;
    match parsed.as_str() {
        "host" => Err(InvalidFilter::HostHeader.at(at())),
        name if CONNECTION.contains(&name) => Err(InvalidFilter::ConnectionHeader(parsed).at(at())),
        _ => Ok(parsed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_leaves_what_frames_the_message_alone() {
        // (header, may be changed)
        let table = [
            ("X-Forwarded-Proto", true),
            ("authorization", true),
            ("Host", false),
            ("Transfer-Encoding", false),
            ("content-length", false),
            ("Connection", false),
            ("upgrade", false),
            ("a b", false),
            ("", false),
        ];
        for (name, want) in table {
            let changed = changeable(name, FieldPath::default);
            assert_eq!(changed.is_ok(), want, "{name}");
        }
    }
}
