//! The interface of a filter.

use std::fmt::Display;

use http::{HeaderMap, request};

use crate::filters::{Exchange, Verdict};

/// When a filter runs. Declaration order is running order; there are no numbers to keep in step.
///
/// The order is Envoy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Answers a CORS preflight, ahead of anything that a preflight could not satisfy.
    Admit,
    /// Refuses clients that may not use the route.
    Authorize,
    /// Refuses requests beyond a limit, of clients that may use the route.
    Limit,
    /// Changes to the request on its way to the backend.
    Rewrite,
    /// Answers in place of a backend. Last, so that no redirect is a way around the other phases.
    Answer,
}

/// One filter of a rule. Its `Display` are its words for `check --table`, `routes` and `explain`,
/// one line for each thing that it does; secrets are left out of them.
pub(crate) trait HttpFilter: Display {
    fn phase(&self) -> Phase;

    /// Changes the request, or stops it, at once. Nothing but the exchange and the head is affected,
    /// so `explain` calls this for a request that was never sent.
    fn apply(&self, _exchange: &mut Exchange, _head: &mut request::Parts) -> Verdict {
        Verdict::Continue(())
    }

    /// Runs on the way to the backend.
    ///
    /// Only a filter that waits for somebody, or whose verdict has an effect elsewhere (it counts, it
    /// takes a token), has an implementation of its own. The futures of all others are ready when
    /// they are first polled. None is boxed.
    async fn on_request(&self, exchange: &mut Exchange, head: &mut request::Parts) -> Verdict {
        self.apply(exchange, head)
    }

    /// Runs on the way back to the client.
    fn on_response(&self, _exchange: &Exchange, _headers: &mut HeaderMap) {}

    /// Adds the fields that the response to a failure has, whatever fails behind this filter or if it
    /// refuses the request itself.
    fn on_failure(&self, _exchange: &Exchange, _headers: &mut HeaderMap) {}
}
