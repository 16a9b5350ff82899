//! Keep-alive probes of the kernel on TCP connections.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Settings of the probes that the kernel sends to a silent peer. A peer without power or network
/// sends nothing, and its connection would stay open until the gateway sends something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeepAlive {
    /// Silence before the first probe. Default 60 s.
    pub time: Duration,
    /// Interval between probes. Default 15 s.
    pub interval: Duration,
    /// Number of unanswered probes that ends the connection. Default 4.
    pub probes: u32,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self { time: Duration::from_secs(60), interval: Duration::from_secs(15), probes: 4 }
    }
}

impl KeepAlive {
    pub(crate) fn apply(self, stream: &TcpStream) {
        let settings = TcpKeepalive::new()
            .with_time(self.time)
            .with_interval(self.interval)
            .with_retries(self.probes);
        // If this fails, the idle timeout still applies.
        let _ = SockRef::from(stream).set_tcp_keepalive(&settings);
    }
}
