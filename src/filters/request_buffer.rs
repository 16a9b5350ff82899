//! Requests that are held as a whole before a backend sees them.

use std::fmt::{self, Display, Formatter};
use std::mem;
use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use http::{StatusCode, request};

use crate::body::{Body, HeldMemory, NotHeld, hold};
use crate::failure::{Denial, Failure};
use crate::filters::{Exchange, HttpFilter, Phase, Stop, Verdict};

/// Holds each request until it has arrived. Envoy Gateway's `requestBuffer` of a
/// BackendTrafficPolicy.
#[derive(Clone, Debug)]
pub(crate) struct RequestBuffer {
    /// The maximum length of a body, in bytes.
    pub limit: u64,
    /// The policy that says so: `namespace/name`.
    pub policy: Box<str>,
    pub memory: Arc<HeldMemory>,
}

impl RequestBuffer {
    pub(crate) const DENIAL: &'static Denial = &Denial {
        status: StatusCode::PAYLOAD_TOO_LARGE,
        flag: None,
        details: "request_payload_too_large",
        text: "Payload Too Large",
        grpc_status: None,
    };

    fn refusal(why: &NotHeld) -> Stop {
        Stop::Refuse(match why {
            NotHeld::Broken => Failure::RequestBodyBroken,
            NotHeld::NoMemory => Failure::Overloaded,
            NotHeld::TooLong => Failure::Denied(Self::DENIAL),
        })
    }
}

impl PartialEq for RequestBuffer {
    fn eq(&self, other: &Self) -> bool {
        (self.limit, &self.policy) == (other.limit, &other.policy)
    }
}

impl Display for RequestBuffer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { limit, policy, .. } = self;
        write!(f, "hold requests of at most {limit} bytes (BackendTrafficPolicy {policy})")
    }
}

impl HttpFilter for RequestBuffer {
    fn phase(&self) -> Phase {
        Phase::Hold
    }

    fn reads_requests(&self) -> bool {
        true
    }

    async fn on_request_body(
        &self,
        _: &mut Exchange,
        head: &mut request::Parts,
        body: &mut Body,
    ) -> Verdict {
        let announced =
            head.headers.get(CONTENT_LENGTH).and_then(|of| of.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: u64| length > self.limit) {
            // Nothing is read, so a client that waits for `100 Continue` keeps its body.
            return Verdict::Break(Self::refusal(&NotHeld::TooLong));
        }
        match hold(mem::take(body), self.limit, &self.memory).await {
            Ok((held, length)) => {
                *body = held;
                if let Some(length) = length {
                    head.headers.insert(CONTENT_LENGTH, length.into());
                }
                Verdict::Continue(())
            }
            Err(why) => Verdict::Break(Self::refusal(&why)),
        }
    }
}
