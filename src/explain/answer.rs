//! The answer to a question, as data.

use serde::{Deserialize, Serialize};

/// What would become of a request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Explained {
    /// `GET https://shop.test/cart`.
    pub request: String,
    pub listener: Option<Chosen>,
    /// Listeners of the same port that were not chosen.
    pub other_listeners: Vec<Lost>,
    /// `httproute/NAMESPACE/NAME/rule/N`.
    pub rule: Option<String>,
    /// The match of the rule that took the request.
    pub matched: Option<String>,
    /// Other matches, in the order in which they are tried.
    pub lost: Vec<Lost>,
    /// Matches that are not listed since there are too many.
    pub left_out: usize,
    /// What each filter does to this request, in running order.
    pub filters: Vec<Effect>,
    /// Where it could go, with the share of each in percent.
    pub backends: Vec<Backend>,
    /// What the backend gets: request line and fields that were changed.
    pub forwarded: Option<String>,
    /// The answer, where it is made here.
    pub answer: Option<Answer>,
}

/// The listener that takes a request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Chosen {
    /// `namespace/gateway/sectionName`.
    pub name: String,
    pub hostname: Option<String>,
    pub port: u16,
    /// Names in the certificates that it would show.
    pub certificates: Vec<String>,
}

/// What did not take the request, and why not.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Lost {
    pub what: String,
    pub why: String,
}

/// What a filter does.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Effect {
    /// As `check --table` has it.
    pub filter: String,
    /// `path: /shop/cart -> /cart`; empty if it leaves this request alone.
    pub changes: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Backend {
    /// With its protocol and endpoints.
    pub what: String,
    pub percent: f64,
    /// What the filters of the reference do.
    pub filters: Vec<Effect>,
}

/// An answer without a backend.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: Vec<String>,
    /// Envoy's response flag, where the request is not completed.
    pub flag: Option<String>,
    /// Why; what would change it.
    pub why: String,
}
