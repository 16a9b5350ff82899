//! Changes of header fields on a whole listener: `earlyRequestHeaders` and `lateResponseHeaders` of a
//! ClientTrafficPolicy.

use std::fmt::{self, Display, Formatter};

use http::{HeaderMap, HeaderName, HeaderValue};
use regex::Regex;

use crate::net::FRAMING_FIELDS;

/// Changes of header fields. Fields are removed first, then added and set, so that a field that is
/// removed and set has the new value alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct FieldChanges {
    pub remove: Box<[HeaderName]>,
    pub remove_matching: Box<[NameMatch]>,
    /// Each name once.
    pub put: Box<[(Put, HeaderName, HeaderValue)]>,
}

/// The effect of a value on the lines that a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Add,
    AddIfAbsent,
    Set,
}

/// A condition on the name of a field, in lower case.
#[derive(Clone, Debug)]
pub(crate) enum NameMatch {
    Exact(Box<str>),
    Prefix(Box<str>),
    /// Matches the whole name.
    Regex(Regex),
    Suffix(Box<str>),
}

impl NameMatch {
    pub(crate) fn accepts(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *name,
            Self::Prefix(prefix) => name.starts_with(&**prefix),
            Self::Regex(regex) => regex.is_match(name),
            Self::Suffix(suffix) => name.ends_with(&**suffix),
        }
    }
}

impl Display for NameMatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Regex(regex) => write!(f, "~ {regex}"),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

impl FieldChanges {
    /// Changes the fields of a head. A match of names does not remove the fields that frame the
    /// message, and the host.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        if !self.remove_matching.is_empty() {
            let is_matched = |name: &&HeaderName| {
                let name = name.as_str();
                let is_kept = name == "host" || FRAMING_FIELDS.contains(&name);
                !is_kept && self.remove_matching.iter().any(|of| of.accepts(name))
            };
            let matched: Vec<HeaderName> = headers.keys().filter(is_matched).cloned().collect();
            for name in matched {
                headers.remove(name);
            }
        }
        for (put, name, value) in &self.put {
            match put {
                Put::Add => drop(headers.append(name, value.clone())),
                Put::AddIfAbsent if headers.contains_key(name) => {}
                Put::AddIfAbsent | Put::Set => drop(headers.insert(name, value.clone())),
            }
        }
    }

    /// Returns the changes in words.
    pub(crate) fn in_words(&self) -> Vec<String> {
        let removed = self.remove.iter().map(|name| format!("remove {name}"));
        let matched = self.remove_matching.iter().map(|of| format!("remove {of}"));
        let put = self.put.iter().map(|(put, name, value)| {
            let verb = match put {
                Put::Add => "add",
                Put::AddIfAbsent => "add if absent",
                Put::Set => "set",
            };
            let value = match value.is_sensitive() {
                true => "[redacted]".into(),
                false => String::from_utf8_lossy(value.as_bytes()),
            };
            format!("{verb} {name}: {value}")
        });
        removed.chain(matched).chain(put).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_removed_before_they_are_put() {
        let name = HeaderName::from_static;
        let put = |put, at, value| (put, name(at), HeaderValue::from_static(value));
        let changes = FieldChanges {
            remove: [name("x-gone"), name("x-new")].into(),
            remove_matching: [
                NameMatch::Prefix("x-id-".into()),
                NameMatch::Prefix("host".into()),
                NameMatch::Suffix("te".into()),
                NameMatch::Suffix("-secret".into()),
                NameMatch::Exact("x-exact".into()),
                NameMatch::Regex(Regex::new("^(?:x-[0-9]+)$").unwrap()),
            ]
            .into(),
            put: [
                put(Put::Set, "x-new", "2"),
                put(Put::Add, "x-more", "2"),
                put(Put::AddIfAbsent, "x-there", "2"),
                put(Put::AddIfAbsent, "x-absent", "2"),
            ]
            .into(),
        };
        let names = [
            "x-gone",
            "x-new",
            "x-id-a",
            "a-secret",
            "x-exact",
            "x-exact-2",
            "x-17",
            "x-17a",
            "x-more",
            "x-there",
            "host",
            "te",
        ];
        let mut headers: HeaderMap =
            names.map(|of| (name(of), HeaderValue::from_static("1"))).into_iter().collect();
        changes.apply(&mut headers);
        let mut left: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        left.sort();
        assert_eq!(
            left,
            [
                "host: 1",
                "te: 1",
                "x-17a: 1",
                "x-absent: 2",
                "x-exact-2: 1",
                "x-more: 1",
                "x-more: 2",
                "x-new: 2",
                "x-there: 1"
            ]
        );
    }
}
