//! Keep-alive probes of the kernel on TCP connections.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// When the kernel asks a silent peer whether it is still there. A peer that has lost its power or its
/// route says nothing, and its connection would be held for as long as nobody sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct KeepAlive {
    /// Silence before the first probe. Default 60 s.
    pub time: Duration,
    /// Between probes. Default 15 s.
    pub interval: Duration,
    /// Unanswered probes that end the connection. Default 4.
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
        // Without it the idle timeout has to do.
        let _ = SockRef::from(stream).set_tcp_keepalive(&settings);
    }
}
