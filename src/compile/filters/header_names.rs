//! Names of the headers that filters may change.

use http::HeaderName;

use crate::compile::misfit::Misfit;
use crate::config::FieldPath;
use crate::net::FRAMING_FIELDS;

use super::invalid::InvalidFilter;

/// Parses the name of a header that a filter may change. Those that frame the message
/// may not be changed.
pub(in crate::compile) fn changeable(
    name: &str,
    at: impl FnOnce() -> FieldPath,
) -> Result<HeaderName, Misfit> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Misfit::Reported)?;
    match parsed.as_str() {
        "host" => Err(InvalidFilter::HostHeader.at(at())),
        name if FRAMING_FIELDS.contains(&name) => {
            Err(InvalidFilter::ConnectionHeader(parsed).at(at()))
        }
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
