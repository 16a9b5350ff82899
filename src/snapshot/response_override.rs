//! Responses in place of others, from `responseOverride` of a BackendTrafficPolicy.

use std::fmt::{self, Display, Formatter};
use std::ops::RangeInclusive;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use regex::Regex;

use crate::filters::{HeaderModifier, Redirect};
use crate::observe::{Format, Seen, Wanted};

/// The responses of a rule that are replaced.
#[derive(Debug)]
pub(crate) struct ResponseOverrides {
    /// The first that matches a response replaces it.
    pub all: Box<[ResponseOverride]>,
    /// The fields of requests and responses that the new bodies show.
    pub wanted: Wanted,
    /// The policy that says so: `namespace/name`.
    pub policy: Box<str>,
}

/// A response in place of each one that matches.
#[derive(Debug)]
pub(crate) struct ResponseOverride {
    pub source: ReplacedSource,
    /// The status must be in one of them, if there are any.
    pub statuses: Box<[RangeInclusive<u16>]>,
    /// Each must match.
    pub headers: Box<[(HeaderName, TextMatch)]>,
    pub by: Replacement,
}

/// The responses that may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplacedSource {
    All,
    Backend,
    /// Those that the gateway makes itself.
    Local,
}

/// A condition on the value of a field; several lines are one value, joined by commas.
#[derive(Clone, Debug)]
pub(crate) enum TextMatch {
    Exact(Box<str>),
    Prefix(Box<str>),
    /// Matches the whole value.
    Regex(Regex),
    Suffix(Box<str>),
}

/// The new response.
#[derive(Debug)]
pub(crate) enum Replacement {
    Redirect(Redirect),
    Response(Box<NewResponse>),
}

/// A response whose body is made for the request.
#[derive(Debug)]
pub(crate) struct NewResponse {
    /// `None` keeps the status.
    pub status: Option<StatusCode>,
    pub content_type: Option<HeaderValue>,
    /// `None` for an empty body.
    pub body: Option<Format>,
    pub headers: HeaderModifier,
}

impl ResponseOverrides {
    /// Notes the fields of a request that a new body may show.
    pub(crate) fn see(&self, request: &HeaderMap) -> Box<Seen> {
        let mut seen = Box::<Seen>::default();
        seen.see_request(&self.wanted, request);
        seen
    }

    /// Returns what replaces a response.
    pub(crate) fn of(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        is_local: bool,
    ) -> Option<&Replacement> {
        let found = self.all.iter().find(|of| of.matches(status.as_u16(), headers, is_local));
        found.map(|of| &of.by)
    }
}

impl ResponseOverride {
    fn matches(&self, status: u16, headers: &HeaderMap, is_local: bool) -> bool {
        let is_from = match self.source {
            ReplacedSource::All => true,
            ReplacedSource::Backend => !is_local,
            ReplacedSource::Local => is_local,
        };
        is_from
            && (self.statuses.is_empty() || self.statuses.iter().any(|of| of.contains(&status)))
            && self.headers.iter().all(|(name, value)| value.accepts(headers, name))
    }
}

impl TextMatch {
    fn accepts(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        let mut lines = headers.get_all(name).iter().map(HeaderValue::to_str);
        let joined;
        let value = match (lines.next(), lines.next()) {
            (Some(Ok(value)), None) => value,
            (Some(Ok(first)), Some(Ok(second))) => {
                let rest = lines.map_while(Result::ok);
                joined = [first, second].into_iter().chain(rest).collect::<Vec<_>>().join(",");
                &joined
            }
            _ => return false,
        };
        match self {
            Self::Exact(exact) => **exact == *value,
            Self::Prefix(prefix) => value.starts_with(&**prefix),
            Self::Regex(regex) => regex.is_match(value),
            Self::Suffix(suffix) => value.ends_with(&**suffix),
        }
    }
}

impl Display for TextMatch {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "= {text}"),
            Self::Prefix(text) => write!(f, "{text}..."),
            Self::Regex(regex) => write!(f, "~ {regex}"),
            Self::Suffix(text) => write!(f, "...{text}"),
        }
    }
}

/// One line for each.
impl Display for ResponseOverrides {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (number, of) in self.all.iter().enumerate() {
            f.write_str(if number == 0 { "" } else { "\n" })?;
            write!(f, "{of} (BackendTrafficPolicy {})", self.policy)?;
        }
        Ok(())
    }
}

impl Display for ResponseOverride {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source {
            ReplacedSource::All => "replace responses",
            ReplacedSource::Backend => "replace responses of backends",
            ReplacedSource::Local => "replace responses of the gateway",
        })?;
        let mut comma = " with status";
        for statuses in &self.statuses {
            let (first, last) = (statuses.start(), statuses.end());
            match first == last {
                true => write!(f, "{comma} {first}")?,
                false => write!(f, "{comma} {first} to {last}")?,
            }
            comma = ",";
        }
        for (name, value) in &self.headers {
            write!(f, " with header {name} {value}")?;
        }
        match &self.by {
            Replacement::Redirect(redirect) => write!(f, ": {redirect}"),
            Replacement::Response(new) => {
                match new.status {
                    Some(status) => write!(f, ": answer {}", status.as_u16())?,
                    None => f.write_str(": answer with the same status")?,
                }
                let kind = new.content_type.as_ref().and_then(|kind| kind.to_str().ok());
                match (&new.body, kind) {
                    (None, _) => f.write_str(" and no body"),
                    (Some(_), Some(kind)) => write!(f, " and a body of type {kind}"),
                    (Some(_), None) => f.write_str(" and a body"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_matches_replaces_the_response() {
        let of = |source, statuses: &[RangeInclusive<u16>], value: Option<TextMatch>, to: u16| {
            let name = HeaderName::from_static("x-kind");
            ResponseOverride {
                source,
                statuses: statuses.into(),
                headers: value.into_iter().map(|value| (name.clone(), value)).collect(),
                by: Replacement::Response(Box::new(NewResponse {
                    status: StatusCode::from_u16(to).ok(),
                    content_type: None,
                    body: None,
                    headers: HeaderModifier::default(),
                })),
            }
        };
        use ReplacedSource::{All, Backend, Local};
        let overrides = ResponseOverrides {
            all: [
                of(Local, &[503..=503], None, 201),
                of(Backend, &[503..=503], None, 202),
                of(All, &[404..=404, 500..=599], None, 203),
                of(All, &[200..=299], Some(TextMatch::Prefix("er".into())), 204),
                of(All, &[], Some(TextMatch::Suffix("or".into())), 205),
                of(All, &[], Some(TextMatch::Exact("a,b".into())), 206),
                of(All, &[], Some(TextMatch::Regex(Regex::new("^(?:x+)$").unwrap())), 207),
            ]
            .into(),
            wanted: Wanted::default(),
            policy: "a/b".into(),
        };
        // (status, lines of x-kind, local, new status)
        let table: [(u16, &[&'static str], bool, Option<u16>); 13] = [
            (503, &[], true, Some(201)),
            (503, &[], false, Some(202)),
            (404, &[], true, Some(203)),
            (599, &[], false, Some(203)),
            (403, &[], false, None),
            (600, &[], false, None),
            (200, &["error"], false, Some(204)),
            (302, &["error"], false, Some(205)),
            (302, &["err"], false, None),
            (302, &["a", "b"], false, Some(206)),
            (302, &["a"], false, None),
            (302, &["xx"], false, Some(207)),
            (302, &["xxy"], false, None),
        ];
        for (status, lines, is_local, want) in table {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-kind", HeaderValue::from_static(line));
            }
            let status = StatusCode::from_u16(status).unwrap();
            let got = overrides.of(status, &headers, is_local).map(|by| match by {
                Replacement::Response(new) => new.status.unwrap().as_u16(),
                Replacement::Redirect(_) => 0,
            });
            assert_eq!(got, want, "{status} {lines:?} {is_local}");
        }
    }
}
