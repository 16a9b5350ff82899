//! The drain: no new connections, open requests finish, then the process ends.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock;
use crate::control::Control;
use crate::control::signals::{Signal, Signals};
use crate::observe::counted;

/// Time beyond the drain timeout in which workers may write their last records.
const GRACE: Duration = Duration::from_secs(2);
/// Time in which background tasks may finish, such as sending the last traces to collectors.
const LAST_TASKS: Duration = Duration::from_secs(2);

impl Control {
    /// Stops accepting, lets exchanges finish up to the drain timeout, and returns. A second signal
    /// to terminate ends all connections at once.
    pub(super) async fn drain(mut self, mut signals: Signals) {
        self.gateway.draining.store(true, Ordering::Relaxed);
        self.workers.drain(clock::now() + self.drain_timeout);
        // Sent after the workers have closed their sockets: later connections reach the next
        // process.
        let _ = tokio::time::timeout(GRACE, self.workers.answer()).await;
        self.notify.stopping();
        let connections = counted(self.gateway.connections.count(), "connection");
        self.notify.status(&format!("draining {connections}"));
        self.notify.extend_timeout(self.drain_timeout + GRACE + LAST_TASKS);
        tracing::info!("draining {connections} for up to {} s", self.drain_timeout.as_secs());
        // A hanging worker must not delay the exit: a restart waits for it.
        let mut end = pin!(tokio::time::sleep(self.drain_timeout + GRACE));
        loop {
            tokio::select! {
                () = self.workers.done() => {
                    self.workers.join();
                    break;
                }
                () = &mut end => {
                    tracing::error!("a worker did not end with the drain; leaving without it");
                    break;
                }
                signal = signals.next() => match signal {
                    Signal::Terminate => {
                        tracing::warn!("told twice to stop; ending all connections");
                        self.workers.abort();
                    }
                    Signal::Reopen => self.gateway.access_log.reopen(),
                    // A draining process loads nothing.
                    Signal::Reload => {}
                }
            }
        }
        self.tasks.finish(LAST_TASKS).await;
        self.gateway.access_log.flush();
        match self.gateway.access_log.dropped() {
            0 => tracing::info!("stopped"),
            dropped => {
                let lost = counted(dropped, "record");
                tracing::info!("stopped; {lost} of the access log lost");
            }
        }
    }
}
