//! The interface of a filter.

use std::fmt::Display;

use http::{HeaderMap, request};

use crate::body::{Body, Response};
use crate::filters::{Exchange, Verdict};

/// When a filter runs. Declaration order is running order; there are no numbers to keep in step.
///
/// The order is Envoy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Refuses changes to protocols that the route does not take.
    Upgrade,
    /// Delays and refuses requests on purpose.
    Inject,
    /// Answers a CORS preflight, ahead of anything that a preflight could not satisfy.
    Admit,
    /// Refuses clients that may not use the route.
    Authorize,
    /// Refuses requests beyond a limit, of clients that may use the route.
    Limit,
    /// Holds the request until it has arrived.
    Hold,
    /// Compresses the response, as the phases below have left it.
    Compress,
    /// Changes to the request on its way to the backend.
    Rewrite,
    /// Answers in place of a backend. Last, so that no redirect is a way around the other phases.
    Answer,
}

/// One filter of a rule. Its `Display` are its words for `check --table`, `routes` and `explain`,
/// one line for each thing that it does; secrets are left out of them.
pub(crate) trait HttpFilter: Display {
    fn phase(&self) -> Phase;

    /// Returns true if the filter sees bodies.
    fn sees_bodies(&self) -> bool {
        false
    }

    /// Returns true if the filter has an implementation of [`Self::on_request_body`].
    fn reads_requests(&self) -> bool {
        false
    }

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

    /// Runs if the request has a body, when all filters have passed its head. The filter wraps the
    /// body, or reads it, within a limit, and puts another in its place.
    async fn on_request_body(
        &self,
        _exchange: &mut Exchange,
        _head: &mut request::Parts,
        _body: &mut Body,
    ) -> Verdict {
        Verdict::Continue(())
    }

    /// Runs on the way back to the client, before any of the body. A filter that sees the body puts a
    /// wrapper around it, which works on each frame as it comes and leaves trailers where they are. It
    /// removes the fields that are no longer true, and holds no more than a piece of the body.
    fn on_response(&self, _exchange: &Exchange, _response: &mut Response) {}

    /// Adds the fields that the response to a failure has, whatever fails behind this filter or if it
    /// refuses the request itself.
    fn on_failure(&self, _exchange: &Exchange, _headers: &mut HeaderMap) {}
}
