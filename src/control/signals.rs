//! SIGHUP, SIGTERM and SIGINT as events.

use std::future;
use std::io;

use futures_util::StreamExt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGHUP: read certificates and configuration again.
    Reload,
    /// SIGTERM or SIGINT: drain and end; the second one ends at once.
    Terminate,
}

/// Signals that arrived, one after the other.
///
/// Equal ones that arrive before the first was taken become one, and their order is not kept; a
/// hundred SIGHUPs during a reload are one reload more.
pub(crate) struct Signals(signal_hook_tokio::Signals);

impl Signals {
    /// Begins to catch signals: until then SIGHUP kills us, so this comes before READY=1, after
    /// which a hook may send one. Needs a runtime around it.
    ///
    /// # Errors
    ///
    /// The process is out of descriptors.
    pub(crate) fn register() -> io::Result<Self> {
        signal_hook_tokio::Signals::new([SIGHUP, SIGINT, SIGTERM]).map(Self)
    }

    /// The next signal. Cancel safe.
    pub(crate) async fn next(&mut self) -> Signal {
        match self.0.next().await {
            Some(SIGHUP) => Signal::Reload,
            Some(_) => Signal::Terminate,
            // The stream ends only when its handle is closed, and nobody holds one.
            None => future::pending().await,
        }
    }
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signals")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sys::signal::{self, raise};
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    // One test, since signals are the process's: a second one would take the first one's.
    #[tokio::test]
    async fn each_signal_asks_for_its_own_thing() {
        let mut signals = Signals::register().unwrap();
        let table = [
            (signal::SIGHUP, Signal::Reload),
            (signal::SIGTERM, Signal::Terminate),
            (signal::SIGINT, Signal::Terminate),
        ];
        for (sent, want) in table {
            raise(sent).unwrap();
            assert_eq!(timeout(PATIENCE, signals.next()).await, Ok(want), "{sent}");
        }

        // A wait that was given up takes nothing with it.
        assert!(timeout(Duration::from_millis(10), signals.next()).await.is_err());
        raise(signal::SIGHUP).unwrap();
        raise(signal::SIGHUP).unwrap();
        assert_eq!(timeout(PATIENCE, signals.next()).await, Ok(Signal::Reload));
        assert!(timeout(Duration::from_millis(10), signals.next()).await.is_err());
    }
}
