//! What an error of hyper means for the request and for its connection.

use std::error::Error;

use crate::upstream::failure::{FailureKind, SendFailure};

/// An error, judged.
pub(super) struct Fault {
    pub failure: SendFailure,
    /// The peer says, or it is plain, that it did not act on the request; or the connection broke,
    /// which is enough for a request that may be sent twice.
    pub may_go_again: bool,
    /// The connection takes no more requests.
    pub link_is_over: bool,
}

impl Fault {
    pub(super) fn of(error: &hyper::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        let mut protocol = None;
        while let Some(this) = cause {
            protocol = protocol.or_else(|| this.downcast_ref::<h2::Error>());
            cause = this.source();
        }
        let reset = |details: String| SendFailure::new(FailureKind::ResetBeforeHead, details);
        match protocol {
            Some(h2) if h2.is_io() || (h2.is_go_away() && h2.is_remote()) => {
                let failure = match h2.get_io() {
                    Some(error) => SendFailure::reset(error),
                    None => reset(describe(h2)),
                };
                Self { failure, may_go_again: true, link_is_over: true }
            }
            Some(h2) if h2.is_remote() => Self {
                failure: reset(describe(h2)),
                may_go_again: h2.reason() == Some(h2::Reason::REFUSED_STREAM),
                link_is_over: false,
            },
            Some(h2) => {
                const WHY: &str = "not valid HTTP/2";
                let failure = SendFailure::new(FailureKind::InvalidResponse(WHY), describe(h2));
                Self { failure, may_go_again: false, link_is_over: h2.is_go_away() }
            }
            None => Self {
                failure: reset(error.to_string()),
                may_go_again: error.is_canceled() || error.is_closed(),
                link_is_over: true,
            },
        }
    }
}

/// An error without what a GOAWAY may carry, which is the peer's to choose.
fn describe(error: &h2::Error) -> String {
    match (error.get_io(), error.reason()) {
        (Some(io), _) => io.to_string(),
        (None, Some(reason)) if error.is_go_away() => format!("connection ended: {reason}"),
        (None, Some(reason)) => format!("stream reset: {reason}"),
        (None, None) => error.to_string(),
    }
}
