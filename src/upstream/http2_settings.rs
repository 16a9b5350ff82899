//! Settings of HTTP/2 connections to backends.

use std::time::Duration;

/// Settings of the HTTP/2 connections of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Http2Settings {
    /// Receive window of a stream, in bytes. Default: 256 KiB.
    pub stream_window: u32,
    /// Receive window of a connection, in bytes, for all streams together. Default: 1 MiB.
    pub connection_window: u32,
    /// Maximum number of concurrent streams of a connection; the peer's limit applies too. Default:
    /// that of the peer alone.
    pub max_streams: usize,
    /// Default: `None`.
    pub ping: Option<Ping>,
}

/// A PING that is sent regularly, also on an idle connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ping {
    pub interval: Duration,
    /// Each connection adds a random share of its interval, at most this percentage.
    pub jitter_percent: u32,
    /// A PING that is not acknowledged for this time ends the connection.
    pub timeout: Duration,
}

impl Default for Http2Settings {
    fn default() -> Self {
        Self {
            stream_window: 256 << 10,
            connection_window: 1 << 20,
            max_streams: usize::MAX,
            ping: None,
        }
    }
}

impl Ping {
    /// Returns the interval of one connection; `chance` is a random number.
    pub(super) fn interval_of(&self, chance: u32) -> Duration {
        let share =
            f64::from(chance) / f64::from(u32::MAX) * f64::from(self.jitter_percent) / 100.0;
        self.interval.mul_f64(1.0 + share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jitter_is_added_to_the_interval() {
        let seconds = Duration::from_secs;
        // (jitter, chance, interval)
        let table = [(0, u32::MAX, 10), (50, 0, 10), (50, u32::MAX, 15), (100, u32::MAX, 20)];
        for (jitter_percent, chance, want) in table {
            let ping = Ping { interval: seconds(10), jitter_percent, timeout: seconds(1) };
            assert_eq!(ping.interval_of(chance), seconds(want), "{jitter_percent}");
        }
    }
}
