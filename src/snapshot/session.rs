//! Which requests belong together.

use std::time::Duration;

use http::HeaderName;

use crate::snapshot::Choice;

/// Requests of one client that go to one endpoint.
///
/// `spec.rules[].sessionPersistence` of HTTPRoute and GRPCRoute (GEP-1619). The client brings a
/// token that it was given with the first response; the gateway keeps nothing of a session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Whose tokens these are: a token of another rule is none.
    pub scope: Box<str>,
    pub carrier: Carrier,
    /// How long a token is good from when it was given. None: as long as its endpoint is there.
    pub absolute_timeout: Option<Duration>,
    /// Everything that the rule names, those of weight 0 too: a session outlives its weight.
    pub choices: Box<[Choice]>,
}

/// How a token travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// In a cookie of this name; the browser keeps it over its own end if it is `permanent`.
    Cookie { name: Box<str>, permanent: bool },
    /// In this field, of responses and of requests.
    Header(HeaderName),
}
