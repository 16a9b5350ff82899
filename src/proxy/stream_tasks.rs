//! The executor for the tasks in which hyper serves HTTP/2 streams.

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

/// A handle on the task in which hyper writes to the stream of an HTTP/2 tunnel.
///
/// hyper ends such a stream with END_STREAM whenever its user drops it, and offers no way to reset
/// it. If the task ends first, h2 resets the stream with CANCEL.
#[derive(Clone, Debug, Default)]
pub(super) struct Leash(Arc<OnceLock<AbortHandle>>);

impl Leash {
    /// Returns true if the task has ended: the stream was reset, or everything was written.
    pub(super) fn has_ended(&self) -> bool {
        self.0.get().is_some_and(AbortHandle::is_finished)
    }

    /// Aborts the task.
    pub(super) fn end(&self) {
        if let Some(task) = self.0.get() {
            task.abort();
        }
    }
}

/// Returns a leash for the tunnel of the stream that is being served. hyper starts the tunnel's
/// task as soon as it has the response, before this thread does anything else.
pub(super) fn expect_tunnel() -> Leash {
    let leash = Leash::default();
    EXPECTED.set(Some(leash.clone()));
    leash
}

/// The executor to which hyper passes the tasks of HTTP/2 streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamExecutor {
    /// Maximum time for a client to make room for more of a response on its stream.
    pub send_timeout: Duration,
}

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    #[allow(clippy::disallowed_methods, reason = "as for `spawn`, with a hold on the task")]
    fn execute(&self, task: F) {
        let task = tokio::spawn(response_window::within(self.send_timeout, task));
        // A response that could not be sent has no tunnel, and the next task belongs to another
        // stream. The type is not public, so it is recognised by its name. If the name changes,
        // tunnels end with END_STREAM, which a story detects.
        if let Some(leash) = EXPECTED.take()
            && type_name::<F>().contains("UpgradedSendStreamTask")
        {
            let _ = leash.0.set(task.abort_handle());
        }
    }
}
