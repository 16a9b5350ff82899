//! The tasks in which hyper serves the streams of HTTP/2 connections.

use std::any::type_name;
use std::cell::RefCell;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::proxy::response_window;

thread_local! {
    static EXPECTED: RefCell<Option<Leash>> = const { RefCell::new(None) };
}

/// A hold on the task in which hyper writes to the stream of an HTTP/2 tunnel.
///
/// hyper ends such a stream with END_STREAM whenever its user lets go of it, and has no way to
/// reset it. Where the task ends first, h2 resets the stream with CANCEL.
#[derive(Clone, Debug, Default)]
pub(super) struct Leash(Arc<OnceLock<AbortHandle>>);

impl Leash {
    /// True if the task is over: the stream was reset, or all was written.
    pub(super) fn has_ended(&self) -> bool {
        self.0.get().is_some_and(AbortHandle::is_finished)
    }

    /// Ends the task.
    pub(super) fn end(&self) {
        if let Some(task) = self.0.get() {
            task.abort();
        }
    }
}

/// A leash for the tunnel that is the outcome of the stream being served: hyper starts its task as
/// soon as it has the answer, before this thread does anything else.
pub(super) fn expect_tunnel() -> Leash {
    let leash = Leash::default();
    EXPECTED.set(Some(leash.clone()));
    leash
}

/// Where hyper puts the tasks of HTTP/2 streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamExecutor {
    /// For a client to make room for more of a response on its stream.
    pub send_timeout: Duration,
}

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    #[allow(clippy::disallowed_methods, reason = "as for `spawn`, with a hold on the task")]
    fn execute(&self, task: F) {
        let task = tokio::spawn(response_window::within(self.send_timeout, task));
        // An answer that could not be sent has no tunnel, and what comes next is another's task.
        // The type cannot be named; should its name change, tunnels end with END_STREAM, as a story
        // sees.
        if let Some(leash) = EXPECTED.take()
            && type_name::<F>().contains("UpgradedSendStreamTask")
        {
            let _ = leash.0.set(task.abort_handle());
        }
    }
}
