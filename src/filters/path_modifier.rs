//! `path` of a redirect or a rewrite.

use std::fmt::{self, Display, Formatter};

/// A new path.
///
/// HTTPRoute `HTTPPathModifier`. The query always stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PathModifier {
    /// `ReplaceFullPath`: this path, whatever the request had.
    Full(Box<str>),
    /// `ReplacePrefixMatch`: this in place of the matched prefix, trailing slashes of both ignored.
    Prefix(Box<str>),
}

impl Display for PathModifier {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(path) => write!(f, "path to {path:?}"),
            Self::Prefix(prefix) => write!(f, "prefix to {prefix:?}"),
        }
    }
}

impl PathModifier {
    /// The new path for `path`, of which the match covered the first `matched` bytes.
    ///
    /// Never empty and always absolute; a replacement never makes `//`.
    pub(crate) fn apply(&self, path: &str, matched: usize) -> String {
        match self {
            Self::Full(full) if full.starts_with('/') => full.to_string(),
            Self::Full(full) => format!("/{full}"),
            Self::Prefix(replacement) => {
                let rest = path.get(matched..).unwrap_or_default();
                let replacement = replacement.trim_end_matches('/');
                let mut new = String::with_capacity(replacement.len() + rest.len() + 1);
                if !replacement.is_empty() && !replacement.starts_with('/') {
                    new.push('/');
                }
                new.push_str(replacement);
                new.push_str(rest);
                if new.is_empty() {
                    new.push('/');
                }
                new
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the `ReplacePrefixMatch` documentation, and the prefix `/`.
    #[test]
    fn a_replaced_prefix_never_makes_a_double_slash_or_nothing() {
        // (path, matched prefix without trailing slash, replacement, new path)
        let table = [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/bar", "", "/xyz", "/xyz/bar"),
            ("/", "", "/xyz", "/xyz/"),
        ];
        for (path, prefix, replacement, want) in table {
            let modifier = PathModifier::Prefix(replacement.into());
            assert_eq!(
                modifier.apply(path, prefix.len()),
                want,
                "{path}, {prefix} -> {replacement}"
            );
        }
    }

    #[test]
    fn a_full_path_takes_the_place_of_all() {
        assert_eq!(PathModifier::Full("/new".into()).apply("/a/b", 2), "/new");
        assert_eq!(PathModifier::Full("".into()).apply("/a/b", 2), "/");
    }
}
