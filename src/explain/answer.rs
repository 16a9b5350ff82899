//! The outcome of a request, as data.

use serde::{Deserialize, Serialize};

/// The outcome of a request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Explained {
    /// `GET https://shop.test/cart`.
    pub request: String,
    pub listener: Option<Chosen>,
    /// The other listeners of the same port.
    pub other_listeners: Vec<Lost>,
    /// `httproute/NAMESPACE/NAME/rule/N`.
    pub rule: Option<String>,
    /// The match that the request met.
    pub matched: Option<String>,
    /// Other matches, in the order in which they are tried.
    pub lost: Vec<Lost>,
    /// The number of matches that are not listed because there are too many.
    pub left_out: usize,
    /// The effect of each filter on this request, in running order.
    pub filters: Vec<Effect>,
    /// The load balancer of a policy, and its choice for this request.
    pub balanced: Option<String>,
    /// The possible backends, with the share of each in percent.
    pub backends: Vec<Backend>,
    /// The request as the backend gets it: request line and changed fields.
    pub forwarded: Option<String>,
    /// The answer, if the gateway makes it itself.
    pub answer: Option<Answer>,
}

/// The listener of a request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Chosen {
    /// `namespace/gateway/sectionName`.
    pub name: String,
    pub hostname: Option<String>,
    pub port: u16,
    /// `namespace/name` of its ClientTrafficPolicy.
    pub policy: Option<String>,
    /// The names in the listener's certificates.
    pub certificates: Vec<String>,
}

/// An alternative that was not chosen, and the reason.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Lost {
    pub what: String,
    pub why: String,
}

/// The effect of a filter.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Effect {
    /// In the format of `check --table`.
    pub filter: String,
    /// `path: /shop/cart -> /cart`; empty if the filter does not change this request.
    pub changes: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Backend {
    /// The cluster with its protocol and endpoints.
    pub what: String,
    pub percent: f64,
    /// The effects of the filters of the reference.
    pub filters: Vec<Effect>,
    /// `10.0.0.7:8080 is healthy`, for each endpoint of a backend with health checks.
    pub endpoints: Vec<String>,
}

/// An answer without a backend.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: Vec<String>,
    /// Envoy's response flag, if the request is not completed.
    pub flag: Option<String>,
    /// True if the request is refused: nothing answers it as the configuration intends.
    pub refused: bool,
    /// The reason, and a remedy.
    pub why: String,
}
