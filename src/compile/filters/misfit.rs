//! Reasons why a filter cannot run.

use http::HeaderName;

/// A filter that cannot run: which field of it, and why.
#[derive(Debug, PartialEq)]
pub(in crate::compile) struct Misfit {
    /// `requestRedirect.statusCode`; empty for the filter as a whole.
    pub field: String,
    pub error: InvalidFilter,
}

/// Why a filter cannot run.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(in crate::compile) enum InvalidFilter {
    #[error("`*` stands for everything; leave the other entries out")]
    AnyBesideOthers,
    #[error("`{0}` belongs to the connection and not to the message; leave it out")]
    ConnectionHeader(HeaderName),
    #[error("0 is not a share; use 1 or more")]
    Denominator,
    #[error("`host` is not changed like other headers; use a URLRewrite filter with `hostname`")]
    HostHeader,
    #[error("`{0}` is not a header name; use letters, digits and `-`")]
    HeaderName(String),
    #[error("header `{0}`: the value has a control character")]
    HeaderValue(String),
    #[error("`{host}` is not a hostname: {why}")]
    Hostname { host: String, why: String },
    #[error("`{0}` is not a method; use GET, POST and so on, in capitals")]
    Method(String),
    #[error("filter.{field} must be specified for {kind} filter.type")]
    MissingSettings { kind: String, field: &'static str },
    #[error("`{0}` cannot stand on a backendRef; move it to the filters of the rule")]
    NotOnBackend(String),
    #[error(
        "`{0}` is not an origin; write it like `https://www.example.com` or `https://*.example.com`"
    )]
    Origin(String),
    #[error("`{0}` is not a path; use `/` first, and neither spaces, `?` nor `#`")]
    Path(String),
    #[error("`{kind}` needs `{field}`")]
    PathSettings { kind: String, field: &'static str },
    #[error("`{0}` is not a status of a redirect; use 301, 302, 303, 307 or 308")]
    RedirectStatus(u16),
    #[error("`{0}` is not a scheme of a redirect; use http or https")]
    Scheme(String),
    #[error("use `percent` or `fraction`, not both")]
    ShareTwice,
    #[error("more than all requests cannot be copied; use at most {0}")]
    ShareTooLarge(u32),
    #[error("filter type `{0}` is not supported")]
    Unsupported(String),
}

impl InvalidFilter {
    pub(super) fn at(self, field: impl Into<String>) -> Misfit {
        Misfit { field: field.into(), error: self }
    }
}
