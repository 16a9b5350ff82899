//! Classification of hyper's errors: their effect on the request and on its connection.

use std::error::Error;

use crate::upstream::failure::{FailureKind, SendFailure};

/// A classified error.
pub(super) struct Http2Fault {
    pub failure: SendFailure,
    pub processed: Processed,
    /// The connection accepts no more requests.
    pub link_is_over: bool,
}

/// Knowledge about the processing of a failed request by the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Processed {
    /// The backend reported it: REFUSED_STREAM, or GOAWAY with a lower last stream (RFC 9113
    /// section 8.7).
    No,
    /// The connection broke.
    Perhaps,
    /// The backend answered with an error, or processed the request as far as it chose.
    Yes,
}

impl Http2Fault {
    pub(super) fn of(error: &hyper::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        let mut protocol = None;
        while let Some(this) = cause {
            protocol = protocol.or_else(|| this.downcast_ref::<h2::Error>());
            cause = this.source();
        }
        let reset = |details: String| SendFailure::new(FailureKind::ResetBeforeHead, details);
        match protocol {
            // h2 reports this error only to the streams above the last stream of the GOAWAY.
            Some(h2) if h2.is_go_away() && h2.is_remote() => {
                let failure = reset(describe(h2));
                Self { failure, processed: Processed::No, link_is_over: true }
            }
            Some(h2) if h2.is_io() => {
                let failure = match h2.get_io() {
                    Some(error) => SendFailure::reset(error),
                    None => reset(describe(h2)),
                };
                Self { failure, processed: Processed::Perhaps, link_is_over: true }
            }
            Some(h2) if h2.is_remote() => {
                let processed = match h2.reason() {
                    Some(h2::Reason::REFUSED_STREAM) => Processed::No,
                    _ => Processed::Yes,
                };
                Self { failure: reset(describe(h2)), processed, link_is_over: false }
            }
            Some(h2) => {
                const WHY: &str = "not valid HTTP/2";
                let failure = SendFailure::new(FailureKind::InvalidResponse(WHY), describe(h2));
                Self { failure, processed: Processed::Yes, link_is_over: h2.is_go_away() }
            }
            None => {
                let broke = error.is_canceled() || error.is_closed();
                let processed = if broke { Processed::Perhaps } else { Processed::Yes };
                Self { failure: reset(error.to_string()), processed, link_is_over: true }
            }
        }
    }
}

/// Describes an error without the debug data of a GOAWAY, which the peer controls.
fn describe(error: &h2::Error) -> String {
    match (error.get_io(), error.reason()) {
        (Some(io), _) => io.to_string(),
        (None, Some(reason)) if error.is_go_away() => format!("connection ended: {reason}"),
        (None, Some(reason)) => format!("stream reset: {reason}"),
        (None, None) => error.to_string(),
    }
}
