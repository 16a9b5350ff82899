//! Session persistence: requests that belong together.

use std::time::Duration;

use http::HeaderName;

use crate::snapshot::Choice;

/// The session persistence of a rule: requests of one client go to one endpoint.
///
/// `spec.rules[].sessionPersistence` of HTTPRoute and GRPCRoute (GEP-1619). The client sends a
/// token that it received with the first response; the gateway stores no sessions.
#[derive(Debug)]
pub(crate) struct Session {
    /// The scope of the tokens: a token of another rule is not valid.
    pub scope: Box<str>,
    pub carrier: Carrier,
    /// The lifetime of a token from its creation. `None` if it is valid as long as its endpoint
    /// exists.
    pub absolute_timeout: Option<Duration>,
    /// All backends of the rule, including those of weight 0: existing sessions keep such a
    /// backend.
    pub choices: Box<[Choice]>,
}

/// The carrier of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// A cookie with this name; if it is `permanent`, it outlives the browser's own session.
    Cookie { name: Box<str>, permanent: bool },
    /// This header field of responses and requests.
    Header(HeaderName),
}
