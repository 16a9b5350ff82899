//! The thread of a load, which leaves the control loop free to answer.

use std::thread::Builder;

use tokio::sync::oneshot;

/// The reported reason if the thread has panicked.
pub(super) const LOADER_DIED: &str = "the load has ended by a fault of the gateway; see the log";

/// A load under way on a separate thread. Dropping it abandons the load: the thread ends before it
/// opens anything, and its result is discarded.
#[derive(Debug)]
pub(super) struct Loading<T>(oneshot::Receiver<T>);

/// Lets the thread check whether its result is still needed.
pub(super) struct StillWanted<'a>(&'a dyn Fn() -> bool);

/// The load was abandoned: its result is no longer needed.
#[derive(Debug)]
pub(super) struct Abandoned;

impl<T: Send + 'static> Loading<T> {
    /// Starts a thread that runs `work`.
    ///
    /// # Errors
    ///
    /// The reason, in words, if the system provides no thread.
    pub(super) fn start(
        work: impl FnOnce(&StillWanted<'_>) -> Result<T, Abandoned> + Send + 'static,
    ) -> Result<Self, String> {
        let (result, received) = oneshot::channel();
        // The thread is not joined: it ends with its result, or with the process.
        let started = Builder::new().name("loader".into()).spawn(move || {
            let done = work(&StillWanted(&|| !result.is_closed()));
            if let Ok(done) = done {
                let _ = result.send(done);
            }
        });
        started.map_err(|error| format!("the system gives no thread to load on: {error}"))?;
        Ok(Self(received))
    }

    /// Waits for the result; `None` if the thread has panicked. Cancel safe. Must not be called
    /// again after it has resolved.
    pub(super) async fn done(&mut self) -> Option<T> {
        (&mut self.0).await.ok()
    }
}

impl StillWanted<'_> {
    /// Checks whether the result is still needed.
    ///
    /// # Errors
    ///
    /// Fails if the load was abandoned.
    pub(super) fn check(&self) -> Result<(), Abandoned> {
        if (self.0)() { Ok(()) } else { Err(Abandoned) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_load_that_dies_or_is_abandoned_has_no_result() {
        let mut loading = Loading::start(|wanted| wanted.check().map(|()| 7)).unwrap();
        assert_eq!(loading.done().await, Some(7));
        let mut died = Loading::<()>::start(|_| panic!("as a test wants it")).unwrap();
        assert_eq!(died.done().await, None);

        let (go, wait) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let loading = Loading::start(move |wanted| {
            wait.recv().unwrap();
            tell.send(wanted.check().is_err()).unwrap();
            wanted.check()
        });
        drop(loading);
        go.send(()).unwrap();
        assert!(told.recv().unwrap(), "the thread hears that nobody waits");
    }
}
