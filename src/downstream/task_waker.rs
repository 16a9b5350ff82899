//! The waker of the task that serves a connection.

use std::sync::{Mutex, PoisonError};
use std::task::Waker;

/// The task to wake when a connection is asked for something.
///
/// Unlike `tokio::sync::Notify`, the waiting task takes the lock once and not at each poll: the
/// waker stays here after a wake-up, and a task that polls again with the same waker is known.
#[derive(Debug, Default)]
pub(super) struct TaskWaker(Mutex<Option<Waker>>);

impl TaskWaker {
    /// Sets the task to wake, unless it is that of the caller's last call, `known`. The caller
    /// looks for what it waits for afterwards.
    pub(super) fn is(&self, waker: &Waker, known: &mut Option<Waker>) {
        if known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            return;
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
        *known = Some(waker.clone());
    }

    /// Wakes the task. What it is to find must have been stored before.
    pub(super) fn wake(&self) {
        let waker = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
