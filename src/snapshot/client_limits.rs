//! Limits on the clients of a listener: how long a connection may take, and how much.

use std::time::Duration;

/// Limits on each connection of a listener.
///
/// The command line sets the defaults. A connection takes them once, when its listener is known,
/// and keeps them to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientLimits {
    /// From the first byte of a request head (or from the handshake, for the first request) to its
    /// end. 10 s.
    pub head_timeout: Duration,
    /// From accept to the end of the TLS handshake. 10 s.
    pub handshake_timeout: Duration,
    /// Without an open exchange, between requests. 60 s.
    pub idle_timeout: Duration,
    /// Without a byte of a request body that is awaited, nor of its response. 30 s.
    pub body_timeout: Duration,
    /// Without room for a byte that is to be sent, on a connection or an HTTP/2 stream. 30 s.
    pub send_timeout: Duration,
    /// From the last byte that moved in either direction to the head of the backend's response,
    /// where the route sets no timeout of its own, `0s` included. 60 s; `None` waits for ever.
    pub response_timeout: Option<Duration>,
    /// Without a byte in either direction of an upgraded connection or a gRPC call. 1 h.
    pub tunnel_timeout: Duration,
    /// Without a datagram in either direction of a flow. 60 s.
    pub udp_idle_timeout: Duration,
    /// Bytes of a request head; more is answered 431. 32 KiB.
    pub head_bytes: usize,
    /// Header fields of a request; more is answered 431. 100.
    pub head_fields: usize,
    /// Bytes of a request target; more is answered 414. 8 KiB.
    pub target_bytes: usize,
    /// Streams open at once on an HTTP/2 connection. 100.
    pub http2_streams: u32,
    /// Bytes of request bodies that an HTTP/2 connection may hold for backends that do not read
    /// yet; a stream may have a quarter of it. 1 MiB.
    pub http2_window: u32,
    /// Bytes of a response that an HTTP/2 stream may hold for a client that does not read yet.
    /// 128 KiB.
    pub http2_send_buffer: usize,
    /// Tokens of `Upgrade` that travel on. `websocket`.
    pub upgrades: Vec<String>,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(30),
            response_timeout: Some(Duration::from_secs(60)),
            tunnel_timeout: Duration::from_secs(3600),
            udp_idle_timeout: Duration::from_secs(60),
            head_bytes: 32 << 10,
            head_fields: 100,
            target_bytes: 8 << 10,
            http2_streams: 100,
            http2_window: 1 << 20,
            http2_send_buffer: 128 << 10,
            upgrades: vec!["websocket".into()],
        }
    }
}
