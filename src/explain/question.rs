//! The request of a question.

use std::fmt;
use std::net::IpAddr;

use http::header::HOST;
use http::{HeaderName, HeaderValue, Method, Request, Uri, request};

use crate::filters::{HostName, Scheme};

/// A request as curl would send it.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub method: Method,
    pub scheme: Scheme,
    /// `host` or `host:port`, for the `Host` field.
    authority: HeaderValue,
    pub port: u16,
    /// True if the URL contains the port.
    pub names_port: bool,
    /// Path and query.
    target: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The client's address; that of the host itself if `None`.
    pub client: Option<IpAddr>,
}

/// The reason why a question is invalid.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum InvalidQuestion {
    #[error("`{0}` is no method")]
    Method(String),
    #[error("`{0}` is no URL; write it like https://example.org/path")]
    Url(String),
    #[error("`{0}` is no header; write it like `Name: value`")]
    Header(String),
}

impl Question {
    /// Returns the host of the request, if it is valid.
    pub(super) fn host(&self) -> Option<HostName> {
        HostName::parse(&self.authority)
    }

    /// Parses a question. A URL without a scheme is an https URL.
    ///
    /// # Errors
    ///
    /// An invalid method, URL (of http or https) or header.
    pub(crate) fn new(
        method: &str,
        url: &str,
        headers: &[String],
    ) -> Result<Self, InvalidQuestion> {
        let no_url = || InvalidQuestion::Url(url.into());
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| InvalidQuestion::Method(method.into()))?;
        let full = if url.contains("://") { url.to_owned() } else { format!("https://{url}") };
        let full = full.split('#').next().unwrap_or_default();
        let uri: Uri = full.parse().map_err(|_| no_url())?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err(no_url()),
        };
        let authority = uri.authority().ok_or_else(no_url)?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let mut question = Self {
            method,
            scheme,
            port: authority.port_u16().unwrap_or_else(|| scheme.well_known_port()),
            names_port: authority.port_u16().is_some(),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| no_url())?,
            target: target.parse().map_err(|_| no_url())?,
            headers: Vec::new(),
            client: None,
        };
        for header in headers {
            let (name, value) =
                field(header).ok_or_else(|| InvalidQuestion::Header(header.into()))?;
            if name == HOST {
                question.authority = value;
            } else {
                question.headers.push((name, value));
            }
        }
        Ok(question)
    }

    /// Returns the head that the gateway would read.
    pub(super) fn head(&self) -> request::Parts {
        let mut head = Request::new(()).into_parts().0;
        head.method = self.method.clone();
        head.uri = self.target.clone();
        head.headers.insert(HOST, self.authority.clone());
        for (name, value) in &self.headers {
            head.headers.append(name, value.clone());
        }
        head
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.authority.to_str().unwrap_or_default();
        write!(f, "{} {}://{authority}{}", self.method, self.scheme.as_str(), self.target)
    }
}

fn field(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_asked_as_of_curl() {
        // (method, URL, headers, parsed question)
        let table: [(&str, &str, &[&str], Result<&str, &str>); 9] = [
            ("GET", "https://a.test/x?y", &[], Ok("GET https://a.test/x?y")),
            ("GET", "a.test", &[], Ok("GET https://a.test/")),
            ("PUT", "http://a.test:8080", &[], Ok("PUT http://a.test:8080/")),
            ("GET", "http://127.0.0.1/#top", &["Host: a.test"], Ok("GET http://a.test/")),
            ("GET", "ftp://a.test/", &[], Err("`ftp://a.test/` is no URL")),
            ("GET", "https:///x", &[], Err("`https:///x` is no URL")),
            ("G T", "a.test", &[], Err("`G T` is no method")),
            ("GET", "a.test", &["Accept"], Err("`Accept` is no header")),
            ("GET", "a.test", &["A b: c"], Err("`A b: c` is no header")),
        ];
        for (method, url, headers, want) in table {
            let headers: Vec<_> = headers.iter().map(ToString::to_string).collect();
            let got = Question::new(method, url, &headers).map(|question| question.to_string());
            match (got, want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want),
                (Err(got), Err(want)) => assert!(got.to_string().starts_with(want), "{got}"),
                (got, want) => panic!("{url}: {got:?}, not {want:?}"),
            }
        }
    }
}
