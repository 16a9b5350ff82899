//! `requestHeaderModifier` and `responseHeaderModifier`.

use std::fmt::{self, Display, Formatter};

use http::{HeaderMap, HeaderName, HeaderValue, request};

use crate::body::Response;
use crate::filters::{Exchange, HttpFilter, Phase, Verdict};

/// Changes to a set of headers.
///
/// HTTPRoute `HTTPHeaderFilter`: `set` replaces every value of a name, `add` appends one, `remove`
/// takes all away; names are case-insensitive. The lists name different headers, so their order
/// does not matter where the configuration is valid; it is set, add, remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeaderModifier {
    pub set: Box<[(HeaderName, HeaderValue)]>,
    pub add: Box<[(HeaderName, HeaderValue)]>,
    pub remove: Box<[HeaderName]>,
}

impl HeaderModifier {
    /// Changes `headers`.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }

    /// A line for each change to the headers of a `message`.
    fn describe(&self, message: &str, f: &mut Formatter<'_>) -> fmt::Result {
        let mut end = "";
        for (verb, pairs) in [("set", &self.set), ("add", &self.add)] {
            for (name, value) in pairs {
                let text = String::from_utf8_lossy(value.as_bytes());
                let text = if value.is_sensitive() { "[redacted]".into() } else { text };
                write!(f, "{end}{verb} {message} header {name}: {text}")?;
                end = "\n";
            }
        }
        for name in &self.remove {
            write!(f, "{end}remove {message} header {name}")?;
            end = "\n";
        }
        Ok(())
    }
}

/// `requestHeaderModifier`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestHeaders(pub HeaderModifier);

impl Display for RequestHeaders {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.describe("request", f)
    }
}

impl HttpFilter for RequestHeaders {
    fn phase(&self) -> Phase {
        Phase::Rewrite
    }

    fn apply(&self, _: &mut Exchange, head: &mut request::Parts) -> Verdict {
        self.0.apply(&mut head.headers);
        Verdict::Continue(())
    }
}

/// `responseHeaderModifier`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResponseHeaders(pub HeaderModifier);

impl Display for ResponseHeaders {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.describe("response", f)
    }
}

impl HttpFilter for ResponseHeaders {
    fn phase(&self) -> Phase {
        Phase::Rewrite
    }

    fn on_response(&self, _: &Exchange, response: &mut Response) {
        self.0.apply(response.headers_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_replaces_add_appends_remove_removes() {
        let pair = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let modifier = HeaderModifier {
            set: [pair("x-set", "new")].into(),
            add: [pair("x-add", "second")].into(),
            remove: [HeaderName::from_static("x-gone")].into(),
        };
        let mut headers: HeaderMap = [
            pair("x-set", "old"),
            pair("x-add", "first"),
            pair("x-gone", "1"),
            pair("x-kept", "1"),
        ]
        .into_iter()
        .collect();
        headers.append("x-set", HeaderValue::from_static("older"));

        modifier.apply(&mut headers);

        let all = |name| headers.get_all(name).iter().map(|value| value.to_str().unwrap());
        assert_eq!(all("x-set").collect::<Vec<_>>(), ["new"]);
        assert_eq!(all("x-add").collect::<Vec<_>>(), ["first", "second"]);
        assert_eq!(all("x-gone").count(), 0);
        assert_eq!(all("x-kept").count(), 1);
    }
}
