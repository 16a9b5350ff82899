//! The protocol that a client speaks on an exchange.

use http::Version;

/// The protocol of an exchange on the client's side. What depends on it is asked here, so that a
/// further protocol is added in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientProtocol {
    Http10,
    Http11,
    Http2,
}

impl ClientProtocol {
    pub(super) fn of(version: Version) -> Self {
        match version {
            // hyper's server for HTTP/2 says this version alone, and so would one for HTTP/3.
            version if version >= Version::HTTP_2 => Self::Http2,
            Version::HTTP_11 => Self::Http11,
            _ => Self::Http10,
        }
    }

    /// As the access log has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }

    /// True if each exchange has a stream of its own, which ends, stalls and is reset without the
    /// others. If not, an exchange has all of its connection, and a body that is not read to its
    /// end stands before the next request.
    pub(super) fn has_streams(self) -> bool {
        match self {
            Self::Http10 | Self::Http11 => false,
            Self::Http2 => true,
        }
    }

    /// True if target and host come as pseudo-header fields (RFC 9113 section 8.3.1), not in a
    /// request line with a `Host` field.
    pub(super) fn has_pseudo_fields(self) -> bool {
        self.has_streams()
    }

    /// True if a request has to have a `Host` field (RFC 9112 section 3.2).
    pub(super) fn needs_host_field(self) -> bool {
        self == Self::Http11
    }

    /// True if a response can end without its length being known and without the connection ending:
    /// by chunks, or with its stream.
    pub(super) fn ends_bodies(self) -> bool {
        self != Self::Http10
    }

    /// True if a connection goes on after an exchange where nobody says otherwise.
    pub(super) fn keeps_connections(self) -> bool {
        self != Self::Http10
    }

    /// True if a request may change the protocol of its connection by `Upgrade` (RFC 9110 section
    /// 7.8).
    pub(super) fn has_upgrade(self) -> bool {
        self == Self::Http11
    }

    /// True if gRPC can be spoken over it.
    pub(super) fn carries_grpc(self) -> bool {
        self.has_streams()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_depends_on_the_protocol_follows_from_its_version() {
        // (version, protocol, streams, Host field needed, bodies end by themselves, Upgrade)
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
