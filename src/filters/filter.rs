//! Every filter by name, with the phase in which it runs.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, request};

use crate::filters::{
    Cors, DirectResponse, Exchange, HeaderModifier, Redirect, UrlRewrite, Verdict,
};

/// One step of a rule, in the order of [`Phase`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Filter {
    /// A filter that could not be built. HTTPRoute `filters`: it must not be skipped, so whatever
    /// reaches it gets a 500.
    Broken,
    Cors(Cors),
    DirectResponse(DirectResponse),
    Redirect(Redirect),
    RequestHeaders(HeaderModifier),
    ResponseHeaders(HeaderModifier),
    UrlRewrite(UrlRewrite),
}

/// When a filter runs. Declaration order is running order; there are no numbers to keep in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Answers a CORS preflight, ahead of anything that a preflight could not satisfy.
    Preflight,
    /// Changes to the request on its way to the backend.
    Rewrite,
    /// Answers in place of a backend. Last, so that no redirect is a way around what stands before.
    Answer,
}

impl Filter {
    /// Runs on the way to the backend.
    pub(crate) fn on_request(&self, exchange: &mut Exchange, head: &mut request::Parts) -> Verdict {
        match self {
            Self::Broken => {
                let mut response = http::Response::new(Bytes::new());
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                return Verdict::Break(response);
            }
            Self::Cors(cors) => return cors.on_request(exchange, head),
            Self::DirectResponse(direct) => return direct.answer(),
            Self::Redirect(redirect) => return redirect.answer(exchange, head),
            Self::RequestHeaders(modifier) => modifier.apply(&mut head.headers),
            Self::ResponseHeaders(_) => {}
            Self::UrlRewrite(rewrite) => rewrite.apply(exchange, head),
        }
        Verdict::Continue(())
    }

    /// Runs on the way back to the client, in reverse order of the list.
    pub(crate) fn on_response(&self, exchange: &Exchange, headers: &mut HeaderMap) {
        match self {
            Self::Cors(cors) => cors.on_response(exchange, headers),
            Self::ResponseHeaders(modifier) => modifier.apply(headers),
            Self::Broken
            | Self::DirectResponse(_)
            | Self::Redirect(_)
            | Self::RequestHeaders(_)
            | Self::UrlRewrite(_) => {}
        }
    }

    /// When it runs.
    pub(crate) fn phase(&self) -> Phase {
        match self {
            Self::Cors(_) => Phase::Preflight,
            Self::RequestHeaders(_) | Self::ResponseHeaders(_) | Self::UrlRewrite(_) => {
                Phase::Rewrite
            }
            Self::Broken | Self::DirectResponse(_) | Self::Redirect(_) => Phase::Answer,
        }
    }
}
