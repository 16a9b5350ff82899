//! The HTTP version of an exchange on the client's side.

use http::Version;

/// The protocol of an exchange on the client's side. All differences between protocols are
/// expressed by its methods, so that a further protocol is added in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientProtocol {
    Http10,
    Http11,
    Http2,
}

impl ClientProtocol {
    pub(super) fn of(version: Version) -> Self {
        match version {
            // hyper's HTTP/2 server reports only this version, and a server for HTTP/3 would do
            // likewise.
            version if version >= Version::HTTP_2 => Self::Http2,
            Version::HTTP_11 => Self::Http11,
            _ => Self::Http10,
        }
    }

    /// Returns the name used in the access log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }

    /// Returns true if each exchange has its own stream, which ends, stalls and is reset
    /// independently of the others. If not, an exchange occupies its whole connection, and a body
    /// that is not read to its end blocks the next request.
    pub(super) fn has_streams(self) -> bool {
        match self {
            Self::Http10 | Self::Http11 => false,
            Self::Http2 => true,
        }
    }

    /// Returns true if target and host are pseudo-header fields (RFC 9113 section 8.3.1), rather
    /// than a request line with a `Host` field.
    pub(super) fn has_pseudo_fields(self) -> bool {
        self.has_streams()
    }

    /// Returns true if a request must have a `Host` field (RFC 9112 section 3.2).
    pub(super) fn needs_host_field(self) -> bool {
        self == Self::Http11
    }

    /// Returns true if a response of unknown length can end without the end of the connection: by
    /// chunks, or with its stream.
    pub(super) fn ends_bodies(self) -> bool {
        self != Self::Http10
    }

    /// Returns true if a connection persists after an exchange by default.
    pub(super) fn keeps_connections(self) -> bool {
        self != Self::Http10
    }

    /// Returns true if a request may change the protocol of its connection by `Upgrade` (RFC 9110
    /// section 7.8).
    pub(super) fn has_upgrade(self) -> bool {
        self == Self::Http11
    }

    /// Returns true if the protocol can carry gRPC.
    pub(super) fn carries_grpc(self) -> bool {
        self.has_streams()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_depends_on_the_protocol_follows_from_its_version() {
        // (version, protocol, streams, Host field needed, bodies delimited, Upgrade)
        let table = [
            (Version::HTTP_09, ClientProtocol::Http10, false, false, false, false),
            (Version::HTTP_10, ClientProtocol::Http10, false, false, false, false),
            (Version::HTTP_11, ClientProtocol::Http11, false, true, true, true),
            (Version::HTTP_2, ClientProtocol::Http2, true, false, true, false),
        ];
        for (version, want, streams, host, ends, upgrade) in table {
            let protocol = ClientProtocol::of(version);
            assert_eq!(protocol, want, "{version:?}");
            assert_eq!(protocol.has_streams(), streams, "{version:?}");
            assert_eq!(protocol.has_pseudo_fields(), streams, "{version:?}");
            assert_eq!(protocol.carries_grpc(), streams, "{version:?}");
            assert_eq!(protocol.needs_host_field(), host, "{version:?}");
            assert_eq!(protocol.ends_bodies(), ends, "{version:?}");
            assert_eq!(protocol.keeps_connections(), ends, "{version:?}");
            assert_eq!(protocol.has_upgrade(), upgrade, "{version:?}");
        }
    }
}
