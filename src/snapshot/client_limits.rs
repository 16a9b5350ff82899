//! Limits on the clients of a listener: times and sizes.

use std::time::Duration;

/// Limits on each connection of a listener.
///
/// The command line sets the defaults. A connection takes them once, when its listener is known,
/// and keeps them to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientLimits {
    /// The time from the first byte of a request head (for the first request, from the handshake)
    /// to its end. Default: 10 s.
    pub head_timeout: Duration,
    /// The time from accept to the end of the TLS handshake. Default: 10 s.
    pub handshake_timeout: Duration,
    /// The time from the first byte to the end of the ClientHello, by which the listener is chosen.
    /// Default: none; `handshake_timeout` includes it.
    pub inspection_timeout: Option<Duration>,
    /// The time without an open exchange, between requests. Default: 60 s.
    pub idle_timeout: Duration,
    /// The time from the end of a request head to the end of its body. Default: none.
    pub request_timeout: Option<Duration>,
    /// The time without a byte of an awaited request body or of its response. Default: 30 s.
    pub body_timeout: Duration,
    /// The time without space for a byte to be sent, on a connection or an HTTP/2 stream. Default:
    /// 30 s.
    pub send_timeout: Duration,
    /// The time from the last byte in either direction to the head of the backend's response, if
    /// the route sets no timeout of its own (`0s` counts as one). Default: 60 s; `None` waits for
    /// ever.
    pub response_timeout: Option<Duration>,
    /// The time without a byte in either direction of an upgraded connection or a gRPC call.
    /// Default: 1 h.
    pub tunnel_timeout: Duration,
    /// The time without a datagram in either direction of a flow. Default: 60 s.
    pub udp_idle_timeout: Duration,
    /// The age at which an HTTP connection is asked to end: after the requests that are open, with
    /// `Connection: close` or GOAWAY. Default: none.
    pub connection_age: Option<Duration>,
    /// The number of requests after which an HTTP connection is asked to end. Default: none.
    pub connection_requests: Option<u32>,
    /// The maximum size of a request head in bytes; a larger one gets 431. Default: 32 KiB.
    pub head_bytes: usize,
    /// The maximum number of header fields of a request; more get 431. Default: 100.
    pub head_fields: usize,
    /// The maximum size of a request target in bytes; a longer one gets 414. Default: 8 KiB.
    pub target_bytes: usize,
    /// The maximum number of concurrent streams of an HTTP/2 connection. Default: 100.
    pub http2_streams: u32,
    /// The bytes of request bodies that an HTTP/2 connection may buffer for backends that do not
    /// read yet; a stream may use a quarter of it. Default: 1 MiB.
    pub http2_window: u32,
    /// The bytes of the request body of an HTTP/2 stream that may be buffered. Default: a quarter of
    /// `http2_window`.
    pub http2_stream_window: Option<u32>,
    /// The time between two PINGs of an HTTP/2 connection with open streams. Default: half of
    /// `idle_timeout`.
    pub ping_interval: Option<Duration>,
    /// The time that a client has for the answer to a PING. Default: `send_timeout`.
    pub ping_timeout: Option<Duration>,
    /// The bytes of a response that an HTTP/2 stream may buffer for a client that does not read
    /// yet. Default: 128 KiB.
    pub http2_send_buffer: usize,
    /// The tokens of `Upgrade` that are forwarded. Default: `websocket`.
    pub upgrades: Vec<String>,
}

impl ClientLimits {
    /// Returns the time between two PINGs of an HTTP/2 connection.
    pub(crate) fn ping_interval(&self) -> Duration {
        self.ping_interval.unwrap_or(self.idle_timeout / 2)
    }

    /// Returns the time without a byte after which an HTTP/2 client with open streams is gone.
    pub(crate) fn quiet_timeout(&self) -> Duration {
        self.ping_interval() + self.ping_timeout.unwrap_or(self.send_timeout)
    }
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            inspection_timeout: None,
            idle_timeout: Duration::from_secs(60),
            request_timeout: None,
            body_timeout: Duration::from_secs(30),
            send_timeout: Duration::from_secs(30),
            response_timeout: Some(Duration::from_secs(60)),
            tunnel_timeout: Duration::from_secs(3600),
            udp_idle_timeout: Duration::from_secs(60),
            connection_age: None,
            connection_requests: None,
            head_bytes: 32 << 10,
            head_fields: 100,
            target_bytes: 8 << 10,
            http2_streams: 100,
            http2_window: 1 << 20,
            http2_stream_window: None,
            ping_interval: None,
            ping_timeout: None,
            http2_send_buffer: 128 << 10,
            upgrades: vec!["websocket".into()],
        }
    }
}
