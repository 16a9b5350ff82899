//! The limit on the number of open connections of a listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::snapshot::BindKey;

/// The bound of a policy, for each listener by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionBound {
    /// The number of open connections beyond which another is closed. At least 1.
    pub most: usize,
    /// The time for which a connection beyond the limit is kept, unread, before it is closed.
    pub close_delay: Duration,
}

/// A bound, and the connections that count for it, over all workers.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionLimit {
    bound: ConnectionBound,
    open: Arc<AtomicUsize>,
}

/// The connections that are counted together. Their number outlives a reload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CountedTogether {
    /// Those of a port without TLS.
    Bind(BindKey),
    /// Those of a listener with TLS, by its name.
    Listener(Arc<str>),
}

/// A connection that counts for a limit until it is dropped.
#[derive(Debug)]
#[must_use = "the connection is counted only while this lives"]
pub(crate) struct CountedConnection(Arc<AtomicUsize>);

impl ConnectionLimit {
    pub(crate) fn new(bound: ConnectionBound, open: Arc<AtomicUsize>) -> Self {
        Self { bound, open }
    }

    /// Counts one more connection.
    ///
    /// # Errors
    ///
    /// The limit is reached. Returns the time for which the connection is to be kept, unread.
    pub(crate) fn take(&self) -> Result<CountedConnection, Duration> {
        let counted = CountedConnection(Arc::clone(&self.open));
        match self.open.fetch_add(1, Ordering::Relaxed) < self.bound.most {
            true => Ok(counted),
            false => Err(self.bound.close_delay),
        }
    }

    /// Returns the number of open connections.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_while_they_live_and_over_a_change_of_the_bound() {
        let open = Arc::<AtomicUsize>::default();
        let limit = |most| {
            let close_delay = Duration::from_secs(3);
            ConnectionLimit::new(ConnectionBound { most, close_delay }, Arc::clone(&open))
        };
        let (two, three) = (limit(2), limit(3));
        let held = [two.take().unwrap(), two.take().unwrap()];
        assert_eq!(two.take().unwrap_err(), Duration::from_secs(3));
        assert_eq!(two.open(), 2, "one that is turned away does not count");
        let third = three.take().unwrap();
        assert!(three.take().is_err() && two.take().is_err());
        drop((held, third));
        assert_eq!(three.open(), 0);
    }
}
