//! Events of the control loop: everything that wakes it.

use std::future::pending;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use crate::control::signals::{Signal, Signals};
use crate::control::socket::{Ask, ControlSocket};
use crate::control::under_way::{Ended, UnderWay};
use crate::control::watch::{Changed, FileWatch};
use crate::kube_api::ChangeRequest;
use crate::systemd;

/// The interval of certificate checks, because certificates expire without a file change.
pub(super) const CERTIFICATES_EVERY: Duration = Duration::from_secs(3600);

/// An event of the control loop.
#[derive(Debug)]
pub(super) enum Event {
    /// A request to the control socket or the admin address.
    Asked(Ask),
    /// A change requested over the API.
    ChangeAsked(ChangeRequest),
    FilesChanged(Changed),
    /// A retry is due: the last read found certificates that were being replaced.
    CertificatesDue,
    /// The hourly check, since certificates expire without a file change.
    CertificatesHourly,
    LoadEnded(Ended),
    /// A reload that had to wait can begin.
    ReloadDue,
    Signal(Signal),
    WatchdogDue,
}

/// Internal state that the loop waits for.
#[derive(Debug)]
pub(super) struct Awaited<'a> {
    pub under_way: Option<&'a mut UnderWay>,
    /// True if a reload waits for the load under way.
    pub is_reload_due: bool,
    pub certificates_due: Option<Instant>,
}

/// The sources of events.
#[derive(Debug)]
pub(super) struct Events {
    signals: Signals,
    pub watch: FileWatch,
    pub socket: ControlSocket,
    changes: Option<mpsc::Receiver<ChangeRequest>>,
    hours: Interval,
    watchdog: Option<Interval>,
}

impl Events {
    /// Creates the sources. Must be called inside a runtime.
    pub(super) fn new(
        signals: Signals,
        watch: FileWatch,
        socket: ControlSocket,
        changes: Option<mpsc::Receiver<ChangeRequest>>,
    ) -> Self {
        let mut hours = interval(CERTIFICATES_EVERY);
        hours.reset();
        let watchdog = systemd::watchdog_interval().map(|every| {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self { signals, watch, socket, changes, hours, watchdog }
    }

    /// Ends the intake of requests, changes and changed files. Returns the signals and the control
    /// socket.
    pub(super) fn end(self) -> (Signals, ControlSocket) {
        (self.signals, self.socket)
    }

    /// Waits for the next event. Requests that need a load wait in their queues until none is under
    /// way. Cancel safe.
    pub(super) async fn next(&mut self, awaited: Awaited<'_>) -> Event {
        let Awaited { under_way, is_reload_due, certificates_due } = awaited;
        let is_idle = under_way.is_none();
        tokio::select! {
            signal = self.signals.next() => Event::Signal(signal),
            ask = self.socket.next(is_idle) => Event::Asked(ask),
            Some(asked) = change(self.changes.as_mut()), if is_idle => Event::ChangeAsked(asked),
            () = async {}, if is_idle && is_reload_due => Event::ReloadDue,
            ended = ended(under_way) => Event::LoadEnded(ended),
            changed = self.watch.next() => Event::FilesChanged(changed),
            () = due(certificates_due) => Event::CertificatesDue,
            _ = self.hours.tick() => Event::CertificatesHourly,
            () = tick(self.watchdog.as_mut()) => Event::WatchdogDue,
        }
    }
}

async fn change(changes: Option<&mut mpsc::Receiver<ChangeRequest>>) -> Option<ChangeRequest> {
    match changes {
        Some(changes) => changes.recv().await,
        None => pending().await,
    }
}

async fn ended(under_way: Option<&mut UnderWay>) -> Ended {
    match under_way {
        Some(under_way) => under_way.ended().await,
        None => pending().await,
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

async fn tick(ticks: Option<&mut Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => pending().await,
    }
}
