//! What can go wrong between a request and the bytes of its response.

use std::borrow::Cow;
use std::io;

use nix::errno::Errno;

use crate::body::BodyError;
use crate::tls::{TlsCause, TlsFailure};
use crate::upstream::address::EndpointName;
use crate::upstream::breaker::Denied;

/// Why there is no response head. Which status and which response flag that makes is `proxy`'s to
/// say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FailureKind {
    /// The client's requests use as many connections as they may.
    #[error("the client's share is spent")]
    ClientShare,
    /// No endpoint took the connection: refused, unreachable, no such socket.
    #[error("connection refused")]
    ConnectRefused,
    /// No endpoint took the connection in time.
    #[error("connect timeout")]
    ConnectTimeout,
    /// The request cannot be written for this backend. A fault of whoever built it.
    #[error("invalid request: {0}")]
    InvalidRequest(&'static str),
    /// What came back is no HTTP, or HTTP that must not be passed on.
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
    /// The cluster has as many connections as it may, and as many requests wait for one as may.
    #[error("overflow")]
    Overflow,
    /// The client's body broke off, or its length is not what its head said. Not the backend's fault.
    #[error("request body broken")]
    RequestBody,
    /// The connection ended before a whole response head. The backend may have acted on the request.
    #[error("connection ended before the response")]
    ResetBeforeHead,
    /// The connection was taken, and then there was no TLS session on it.
    #[error("no TLS session")]
    Tls(TlsCause),
    #[error("name does not resolve")]
    Unresolved,
}

impl FailureKind {
    /// True if no endpoint is at fault: none is avoided for it, and another would be no better.
    pub(super) fn is_ours(self) -> bool {
        matches!(self, Self::ClientShare | Self::NoDescriptor | Self::Overflow)
    }
}

/// A request that has no response, with what the log should say.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{kind}: {details}")]
pub(crate) struct SendFailure {
    pub kind: FailureKind,
    /// The last endpoint that was tried.
    pub endpoint: Option<EndpointName>,
    /// The operating system's words or ours. May quote no byte of the peer.
    pub details: Cow<'static, str>,
}

impl SendFailure {
    pub(super) fn new(kind: FailureKind, details: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, endpoint: None, details: details.into() }
    }

    /// A connection that ended before a response head, with the system's words; or with the backend's
    /// refusal of the handshake, which over TLS 1.3 comes only after we have made ours.
    pub(super) fn reset(error: &io::Error) -> Self {
        match TlsFailure::refusal(error) {
            Some(TlsFailure { cause, details }) => Self::new(FailureKind::Tls(cause), details),
            None => Self::new(FailureKind::ResetBeforeHead, error.to_string()),
        }
    }

    /// There is no socket, or no connection on it: by the fault of the endpoint, or because this host
    /// has no descriptor or memory for one.
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
            Denied::Overflow => {
                let details = "the backend has as many connections and requests as it may";
                Self::new(FailureKind::Overflow, details)
            }
        }
    }
}

/// Why a response body ended before its end. The client must see that it did.
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
