//! The rules of matches of texts.

use crate::api::envoy::response_override::{StringMatch, StringMatchType};
use crate::config::path::Path;

use super::violations::Violations;

/// Checks matches of texts.
pub(super) fn string_matches(matches: &[StringMatch], at: Path<'_>, found: &mut Violations) {
    for (index, of) in matches.iter().enumerate() {
        string_match(of.kind.as_ref(), &of.value, at.item(index), found);
    }
}

/// Checks a match of a text, whose type may be absent.
pub(super) fn string_match(
    kind: Option<&StringMatchType>,
    value: &str,
    at: Path<'_>,
    found: &mut Violations,
) {
    found.word(at.field("type"), kind.and_then(StringMatchType::unknown), StringMatchType::WORDS);
    found.length(at.field("value"), value, 1..=1024);
    if kind == Some(&StringMatchType::RegularExpression) {
        found.regular_expression(at.field("value"), value);
    }
}
