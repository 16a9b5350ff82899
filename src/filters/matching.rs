//! Conditions on the path of a request and on the value of a field or query parameter.
//!
//! Filters use them as well as the matches of routes.

use std::fmt::{self, Display, Formatter};

use regex::Regex;

/// A condition on the path.
#[derive(Clone, Debug)]
pub(crate) enum PathMatch {
    /// Byte for byte; a trailing slash counts.
    Exact(Box<str>),
    /// By whole elements, with a trailing slash ignored: `/foo` matches `/foo`, `/foo/` and
    /// `/foo/x`, not `/foox`.
    Prefix(Box<str>),
    /// Matches the whole path. Ranks after `Exact` and before `Prefix`.
    Regex(Regex),
}

impl PathMatch {
    pub(crate) fn accepts(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *path,
            Self::Prefix(prefix) => {
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                path.strip_prefix(prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

impl Display for PathMatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => write!(f, "= {path}"),
            Self::Prefix(path) => write!(f, "{path} and below"),
            Self::Regex(regex) => write!(f, "~ {regex}"),
        }
    }
}

/// A condition on a value.
#[derive(Clone, Debug)]
pub(crate) enum ValueMatch {
    Exact(Box<str>),
    /// Matches the whole value.
    Regex(Regex),
}

impl ValueMatch {
    pub(crate) fn accepts(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

impl Display for ValueMatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(value) => write!(f, "= {value}"),
            Self::Regex(regex) => write!(f, "~ {regex}"),
        }
    }
}
