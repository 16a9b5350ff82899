//! Failures between a request and the end of its response.

use std::borrow::Cow;
use std::io;

use nix::errno::Errno;

use crate::body::BodyError;
use crate::tls::{TlsCause, TlsFailure};
use crate::upstream::address::EndpointName;
use crate::upstream::breaker::{BreakerLimit, Denied};

/// The reason why there is no response head. `proxy` maps it to a status and a response flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FailureKind {
    /// The client's requests use the maximum number of connections.
    #[error("the client's share is spent")]
    ClientShare,
    /// No endpoint accepted the connection: refused, unreachable, or no such socket.
    #[error("connection refused")]
    ConnectRefused,
    /// No endpoint accepted the connection in time.
    #[error("connect timeout")]
    ConnectTimeout,
    /// The request cannot be encoded for this backend; a bug of the caller.
    #[error("invalid request: {0}")]
    InvalidRequest(&'static str),
    /// The response is not HTTP, or is HTTP that must not be forwarded.
    #[error("invalid response: {0}")]
    InvalidResponse(&'static str),
    /// The process has no descriptor left for a connection to a backend.
    #[error("no descriptor left")]
    NoDescriptor,
    #[error("no endpoint")]
    NoEndpoint,
    /// The request asks for an upgrade, and the backend's protocol has none.
    #[error("no upgrade over HTTP/2")]
    NoUpgrade,
    /// The cluster has reached a limit of its circuit breaker.
    #[error("overflow")]
    Overflow(BreakerLimit),
    /// The client's request body broke off, or differs from the length in its head. Not the
    /// backend's fault.
    #[error("request body broken")]
    RequestBody,
    /// The connection ended before a complete response head. The backend may have processed the
    /// request.
    #[error("connection ended before the response")]
    ResetBeforeHead,
    /// The connection was accepted, but the TLS handshake failed.
    #[error("no TLS session")]
    Tls(TlsCause),
    #[error("name does not resolve")]
    Unresolved,
}

impl FailureKind {
    /// Returns true if no endpoint is at fault: none is avoided, and no other one is tried.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::ClientShare | Self::NoDescriptor | Self::Overflow(_))
    }
}

/// The failure of a request without a response, with details for the log.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{kind}: {details}")]
pub(crate) struct SendFailure {
    pub kind: FailureKind,
    /// The last endpoint that was tried.
    pub endpoint: Option<EndpointName>,
    /// The message of the operating system or of the gateway. Must not quote bytes of the peer.
    pub details: Cow<'static, str>,
}

impl SendFailure {
    pub(super) fn new(kind: FailureKind, details: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, endpoint: None, details: details.into() }
    }

    /// Returns the failure for a connection that ended before a response head, with the system's
    /// message; or the backend's refusal of the handshake, which with TLS 1.3 arrives only after
    /// the client side has finished the handshake.
    pub(super) fn reset(error: &io::Error) -> Self {
        match TlsFailure::refusal(error) {
            Some(TlsFailure { cause, details }) => Self::new(FailureKind::Tls(cause), details),
            None => Self::new(FailureKind::ResetBeforeHead, error.to_string()),
        }
    }

    /// Returns the failure for a connection that could not be opened: the endpoint is at fault, or
    /// the local host has no descriptor or memory left for a socket.
    pub(super) fn unconnected(error: &io::Error) -> Self {
        let kind = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                FailureKind::NoDescriptor
            }
            _ => FailureKind::ConnectRefused,
        };
        Self::new(kind, error.to_string())
    }

    pub(super) fn client_share() -> Self {
        Self::new(FailureKind::ClientShare, "the client uses as many connections as it may")
    }

    pub(super) fn at(self, endpoint: impl Into<EndpointName>) -> Self {
        Self { endpoint: Some(endpoint.into()), ..self }
    }
}

impl From<Denied> for SendFailure {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::NoDescriptor => {
                Self::new(FailureKind::NoDescriptor, "no descriptor is left for backends")
            }
            Denied::Overflow(limit) => {
                let details = "the backend has as many connections and requests as it may";
                Self::new(FailureKind::Overflow(limit), details)
            }
        }
    }
}

/// The reason why a response body ended early. The client must be able to detect it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyFault {
    #[error("response body is not valid: {0}")]
    Invalid(&'static str),
    #[error("request body broke while the response was under way")]
    Request(#[source] BodyError),
    #[error("connection broke within the response body")]
    Reset(#[source] io::Error),
    #[error("connection ended before the response body did")]
    Truncated,
}
