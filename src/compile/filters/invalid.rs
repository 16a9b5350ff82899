//! The reasons why a filter that keeps the rules of its kind cannot run.

use http::HeaderName;

use crate::compile::misfit::Misfit;
use crate::config::FieldPath;

/// The reason why a filter cannot run.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum InvalidFilter {
    #[error("`*` stands for everything; leave the other entries out")]
    AnyBesideOthers,
    #[error("`{0}` belongs to the connection and not to the message; leave it out")]
    ConnectionHeader(HeaderName),
    #[error("`host` is not changed like other headers; use a URLRewrite filter with `hostname`")]
    HostHeader,
    #[error("`{host}` is not a hostname: {why}")]
    Hostname { host: String, why: String },
    #[error("`{0}` cannot stand on a backendRef; move it to the filters of the rule")]
    NotOnBackend(&'static str),
    #[error(
        "`{0}` is not an origin; write it like `https://www.example.com` or `https://*.example.com`"
    )]
    Origin(String),
    #[error("`{0}` is not a path; use `/` first, and neither spaces, `?` nor `#`")]
    Path(String),
    #[error("filter type `{0}` is not supported")]
    Unsupported(String),
}

impl InvalidFilter {
    pub(super) fn at(self, field: FieldPath) -> Misfit {
        Misfit::unusable(field, &self)
    }
}
