//! Changes of header fields, from `earlyRequestHeaders` and `lateResponseHeaders` of a
//! ClientTrafficPolicy, whose rules have been checked.

use std::collections::HashSet;

use http::{HeaderName, HeaderValue};
use regex::RegexBuilder;

use crate::api::envoy::client_traffic_policy::HeaderFilter;
use crate::api::envoy::response_override::{StringMatch, StringMatchType};
use crate::filters::{FieldChanges, NameMatch, Put};
use crate::secret::is_secret_header;

/// Returns the changes. Of several values for a name the first is used, in the order `add`, `set`,
/// `addIfAbsent`, as in Envoy Gateway.
pub(super) fn compile(filter: &HeaderFilter) -> FieldChanges {
    let HeaderFilter { set, add, add_if_absent, remove, remove_on_match } = filter;
    let mut known = HashSet::new();
    let lists = [(Put::Add, add), (Put::Set, set), (Put::AddIfAbsent, add_if_absent)];
    let put =
        lists.into_iter().flat_map(|(put, list)| list.iter().flatten().map(move |of| (put, of)));
    let put = put.filter_map(|(put, header)| {
        let name = name(&header.name)?;
        let mut value = HeaderValue::from_str(&header.value.replace("%%", "%")).ok()?;
        value.set_sensitive(is_secret_header(name.as_str()));
        known.insert(name.clone()).then_some((put, name, value))
    });
    FieldChanges {
        put: put.collect(),
        remove: remove.iter().flatten().filter_map(|of| name(of)).collect(),
        remove_matching: remove_on_match.iter().flatten().filter_map(name_match).collect(),
    }
}

fn name(text: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(text.as_bytes()).ok()
}

/// Returns a condition on a name, which does not depend on the case of letters.
pub(super) fn name_match(of: &StringMatch) -> Option<NameMatch> {
    let lower = || of.value.to_ascii_lowercase().into();
    Some(match of.kind.as_ref().unwrap_or(&StringMatchType::Exact) {
        StringMatchType::Exact => NameMatch::Exact(lower()),
        StringMatchType::Prefix => NameMatch::Prefix(lower()),
        StringMatchType::Suffix => NameMatch::Suffix(lower()),
        StringMatchType::RegularExpression => {
            let whole = format!("^(?:{})$", of.value);
            NameMatch::Regex(RegexBuilder::new(&whole).case_insensitive(true).build().ok()?)
        }
        StringMatchType::Unknown(_) => return None,
    })
}
