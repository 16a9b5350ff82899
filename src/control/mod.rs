//! The control loop: signals, file changes, the control socket and the service manager, one event
//! at a time.
//!
//! Files are loaded on a separate thread, so the loop keeps answering in the meantime. `reload.rs`
//! has the steps of a reload. `admission.rs` has the rules by which a load may replace the served
//! configuration.

mod addresses;
mod admission;
mod api;
mod attempt;
mod cannot_start;
mod cause;
mod certificates;
mod conditions;
mod drain;
mod events;
mod first_load;
mod last_good;
mod loader;
mod loading;
mod outcome;
mod publish;
mod readable;
mod rehearsal;
mod reload;
mod report;
pub(crate) mod signals;
pub(crate) mod socket;
mod sockets;
mod standing;
mod status;
mod under_way;
pub(crate) mod watch;
mod workers;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::admin::Admin;
use crate::background::Tasks;
use crate::clock;
use crate::downstream::Process;
use crate::graph::Held;
use crate::kube_api::{ApiRules, ChangeRequest, Front, KubeApi, Listen};
use crate::stats::Reloads;
use crate::systemd::{self, ForAnother, Inherited, Notify};
use crate::tls::RETRY_DELAYS;

pub(crate) use admission::ReloadPolicy;
pub(crate) use cannot_start::CannotStart;
pub(crate) use certificates::{
    CertificateFacts, CertificateRow, CertificateState, Certificates, ShownOn, certificates,
};
pub(crate) use conditions::{BadCondition, BadConditions};
pub(crate) use loader::{ConfigSources, Load, Loader, Previous};
pub(crate) use sockets::CannotBind;

use addresses::KeptAddresses;
use cause::LoadCause;
use events::{Awaited, CERTIFICATES_EVERY, Event, Events};
use last_good::LastGood;
use loader::{Accepted, Seen};
use signals::{Signal, Signals};
use socket::{ApiAt, Ask, CannotOpen, ControlSocket, Past, Reloaded};
use sockets::Sockets;
use standing::Standing;
use under_way::{Ended, Purpose, UnderWay};
use watch::{Changed, FileWatch, Watched};
use workers::Workers;

/// Time to send the last answers before the control socket is closed.
const LAST_ANSWER: Duration = Duration::from_millis(100);

/// The state of the running gateway: everything that a reload changes, and the tasks that serve.
#[derive(Debug)]
pub(crate) struct Control {
    loader: Arc<Loader>,
    gateway: Arc<Process>,
    sockets: Sockets,
    workers: Workers,
    /// Background tasks of the served snapshot.
    tasks: Tasks,
    notify: Notify,
    drain_timeout: Duration,
    /// `None` while `run` owns it.
    socket: Option<ControlSocket>,
    /// The load under way, if any.
    under_way: Option<UnderWay>,
    /// A reload that begins once no other load is under way.
    due: Option<LoadCause>,
    /// The last loads, the latest first.
    past: VecDeque<Past>,
    /// Conditions that reported a problem when the last load was published.
    conditions: BadConditions,
    /// Diagnostics that have been logged.
    standing: Standing,
    /// The faults with which a load from files is still served.
    policy: ReloadPolicy,
    /// The files and settings of the served configuration; `None` before the first load.
    accepted: Option<Arc<Accepted>>,
    /// The files that the last load read.
    seen: Seen,
    last_good: Option<LastGood>,
    /// The Gateway that holds each address of the pool, and the file that stores this.
    held: Held,
    addresses: Option<KeptAddresses>,
    /// Why the files are not served, in one line; `None` if they are.
    trouble: Option<String>,
    /// The same as a full report, if the files are at fault.
    refusal: Option<socket::RefusalReport>,
    /// A retry, set if the last read found certificates that were being replaced.
    retry: Option<CertificateRetry>,
    /// True if certificates were read again after the load under way began.
    has_newer_certificates: bool,
    reloads: Arc<Reloads>,
    api: KubeApi,
    /// Changes requested over the API; `None` while `run` owns it.
    changes: Option<mpsc::Receiver<ChangeRequest>>,
    /// The loopback address of the API, beside the control socket.
    api_at: Option<ApiAt>,
    /// The directory that the API writes to.
    api_dir: Option<PathBuf>,
    /// True if the last load was for a change over the API: the watch will report that file, too.
    is_own_change: bool,
}

/// A scheduled re-read of the certificates.
#[derive(Clone, Copy, Debug)]
struct CertificateRetry {
    at: Instant,
    /// The number of retries, this one included.
    tries: usize,
}

/// Settings of the process, apart from the configuration that it serves.
#[derive(Debug)]
pub(crate) struct ControlSetup {
    pub inherited: Vec<Inherited>,
    /// Sockets that were handed over to another process.
    pub for_another: Option<ForAnother>,
    pub workers: usize,
    pub drain_timeout: Duration,
    pub notify: Notify,
    /// The path of the control socket.
    pub control_socket: Option<PathBuf>,
    /// The handler of requests that do not need the control loop.
    pub admin: Admin,
    /// The admin address, beside the control socket.
    pub admin_listen: Option<SocketAddr>,
    /// The directory that keeps the last good configuration and the addresses that Gateways hold.
    pub state_dir: Option<PathBuf>,
    /// The faults with which a load from files is still served.
    pub policy: ReloadPolicy,
    /// Counters of loads.
    pub reloads: Arc<Reloads>,
    /// The rules of the API.
    pub api: ApiRules,
    /// The loopback address of the API, beside the control socket.
    pub api_listen: Option<Listen>,
}

impl Control {
    /// Loads the configuration for the first time and begins to serve it.
    ///
    /// # Errors
    ///
    /// Fails on a fatal fault of the configuration or a socket that cannot be opened. Nothing is
    /// served then.
    pub(crate) fn start(
        loader: Loader,
        gateway: Arc<Process>,
        setup: ControlSetup,
    ) -> Result<Self, CannotStart> {
        let addresses = setup.state_dir.as_deref().map(KeptAddresses::read);
        let held = addresses.as_ref().map(|kept| kept.held().clone()).unwrap_or_default();
        let workers = Workers::start(setup.workers, &gateway).map_err(CannotStart::Workers)?;
        let (api, changes) = KubeApi::new(setup.api);
        let mut control = Self {
            loader: Arc::new(loader),
            gateway,
            sockets: Sockets::new(setup.inherited, setup.for_another),
            workers,
            tasks: Tasks::default(),
            notify: setup.notify,
            drain_timeout: setup.drain_timeout,
            socket: None,
            under_way: None,
            due: None,
            past: VecDeque::new(),
            conditions: BadConditions::default(),
            standing: Standing::default(),
            policy: setup.policy,
            accepted: None,
            seen: Seen::default(),
            last_good: setup.state_dir.as_deref().map(LastGood::new),
            held,
            addresses,
            trouble: None,
            refusal: None,
            retry: None,
            has_newer_certificates: false,
            reloads: setup.reloads,
            api,
            changes: Some(changes),
            api_at: None,
            api_dir: None,
            is_own_change: false,
        };
        match control.first_load() {
            Ok(()) => {}
            Err(failed) => {
                control.workers.abort();
                control.workers.join();
                return Err(failed);
            }
        }
        let mut socket = ControlSocket::new();
        if let Some(path) = &setup.control_socket {
            open(&mut socket, path, control.api.front().clone(), setup.admin.clone());
        }
        if let Some(address) = setup.admin_listen {
            socket.listen(address, setup.admin);
        }
        control.socket = Some(socket);
        if let Some(listen) = &setup.api_listen {
            control.listen(listen);
        }
        Ok(control)
    }

    /// Runs until asked to stop, then drains.
    pub(crate) async fn run(mut self, signals: Signals, watch_files: bool) {
        let unwatched = Arc::clone(&self.reloads.unwatched);
        let watch = FileWatch::start(self.watched(watch_files), unwatched);
        let socket = self.socket.take().unwrap_or_else(ControlSocket::new);
        let mut events = Events::new(signals, watch, socket, self.changes.take());
        self.notify.ready(&self.status_line());
        self.catch_up(watch_files);
        loop {
            match events.next(self.awaited()).await {
                Event::Asked(Ask::Drain(answer)) => {
                    let _ = answer.send(self.draining());
                    tracing::info!("told to drain");
                    // The sockets are closed next; the client has to get its answer first.
                    tokio::time::sleep(LAST_ANSWER).await;
                    break;
                }
                Event::Asked(ask) => self.answer(ask, &mut events.socket),
                Event::ChangeAsked(asked) => self.change(asked),
                Event::FilesChanged(changed) => {
                    self.files_changed(changed);
                    events.watch.rewatch(self.watched(watch_files));
                }
                Event::CertificatesDue => {
                    let tries = self.retry.take().map_or(0, |retry| retry.tries);
                    self.look_at_certificates(tries);
                    events.watch.rewatch(self.watched(watch_files));
                }
                Event::CertificatesHourly => {
                    self.look_at_certificates(0);
                    events.watch.rewatch(self.watched(watch_files));
                }
                Event::LoadEnded(ended) => {
                    self.load_ended(ended);
                    events.watch.rewatch(self.watched(watch_files));
                }
                Event::ReloadDue => self.begin_due(),
                Event::Signal(Signal::Reload) => self.due = Some(LoadCause::Signal),
                Event::Signal(Signal::Reopen) => self.gateway.access_log.reopen(),
                Event::Signal(Signal::Terminate) => break,
                Event::WatchdogDue => self.feed_watchdog().await,
            }
        }
        if self.abandon() {
            tokio::time::sleep(LAST_ANSWER).await;
        }
        let (signals, socket) = events.end();
        // Before the drain: requests to the control socket are now for the next process. Load
        // balancers still read from the admin address that this process is not ready.
        let _pages = socket.draining();
        self.api.close();
        self.drain(signals).await;
    }

    fn awaited(&mut self) -> Awaited<'_> {
        Awaited {
            under_way: self.under_way.as_mut(),
            is_reload_due: self.due.is_some(),
            certificates_due: self.retry.map(|retry| retry.at),
        }
    }

    /// Detects changes made between the first load and the start of the watch.
    fn catch_up(&mut self, watch_files: bool) {
        match self.watched(watch_files).changed_since(self.seen.at()) {
            // Files written just before the load may have the timestamp of its beginning.
            Changed { configuration: true, .. } if !self.is_current() => {
                self.due = Some(LoadCause::Files);
            }
            Changed { certificates: true, .. } => self.look_at_certificates(0),
            Changed { .. } => {}
        }
    }

    /// Answers a request, or begins the load that it waits for.
    fn answer(&mut self, ask: Ask, socket: &mut ControlSocket) {
        // A client that no longer waits has dropped its receiver, so a failed send is ignored.
        match ask {
            Ask::Certificates(answer) => {
                let snapshot = self.gateway.snapshot.load();
                let _ = answer.send(certificates(&snapshot, clock::wall()));
            }
            Ask::Conditions(answer) => {
                let _ = answer.send(self.conditions.clone());
            }
            Ask::Drain(answer) => {
                let _ = answer.send(self.draining());
            }
            Ask::Rehearse { allow_removal, answer } => self.rehearse(allow_removal, answer),
            Ask::Reload(first) => {
                let mut asked = vec![first];
                asked.extend(socket.also_waiting());
                let allow_removal = asked.iter().any(|one| one.allow_removal);
                let waiting = asked.into_iter().filter_map(|one| one.answer).collect();
                self.begin_all(LoadCause::Asked { allow_removal }, waiting);
            }
            Ask::Reloads(answer) => {
                let reloads = self.past.iter().cloned().collect();
                let _ = answer.send(socket::ReloadHistory { reloads });
            }
            Ask::Status(answer) => {
                let _ = answer.send(self.status());
            }
        }
    }

    fn files_changed(&mut self, changed: Changed) {
        // A SIGHUP that is due has priority: it reads the files even if they look unchanged.
        if changed.configuration && self.due.is_none() {
            self.due = Some(LoadCause::Files);
        }
        // A reload begins by re-reading certificates, but it may have to wait, or not be needed.
        let begins = changed.configuration && self.under_way.is_none() && !self.is_own_change;
        if changed.certificates && !begins {
            self.look_at_certificates(0);
        }
    }

    /// Begins the reload that is due.
    fn begin_due(&mut self) {
        let Some(cause) = self.due.take() else { return };
        // The file of a change over the API is loaded already.
        let is_known = self.is_own_change && self.loader.is_up_to_date(&self.seen);
        if cause == LoadCause::Files && is_known {
            return;
        }
        self.begin_all(cause, Vec::new());
    }

    /// Begins a load of everything. It also satisfies the reload that is due.
    fn begin_all(&mut self, cause: LoadCause, waiting: Vec<oneshot::Sender<Reloaded>>) {
        self.due = None;
        self.begin(Purpose::All { cause, waiting });
    }

    fn load_ended(&mut self, ended: Ended) {
        match (self.under_way.take(), ended) {
            (Some(UnderWay::Reload { purpose, begun, .. }), Ended::Reload(outcome)) => {
                self.ended(purpose, outcome, begun);
            }
            (Some(UnderWay::Rehearsal { answer, begun, .. }), Ended::Rehearsal(would)) => {
                self.rehearsed(would, answer, begun);
            }
            // A load always ends as the kind that it began as.
            _ => {}
        }
        if std::mem::take(&mut self.has_newer_certificates) {
            self.look_at_certificates(0);
        }
    }

    /// True if the files are identical to the served configuration.
    fn is_current(&self) -> bool {
        self.accepted.as_ref().is_some_and(|accepted| self.loader.holds(accepted))
    }

    /// Returns the paths to watch.
    fn watched(&self, watch_files: bool) -> Watched {
        if watch_files { self.loader.watched(&self.seen) } else { Watched::default() }
    }

    /// Sends WATCHDOG=1 only if the event loop of every worker answers, since the workers do the
    /// actual work.
    async fn feed_watchdog(&self) {
        let patience = systemd::watchdog_interval().unwrap_or(CERTIFICATES_EVERY);
        if tokio::time::timeout(patience, self.workers.answer()).await.is_ok() {
            self.notify.watchdog();
        } else {
            tracing::error!("a worker does not answer; the service manager will restart us");
        }
    }

    /// Re-reads every certificate on its own, and updates the status of the service manager.
    fn look_at_certificates(&mut self, tries: usize) {
        self.reload_certificates(tries);
        self.has_newer_certificates = self.under_way.is_some();
        self.notify.status(&self.status_line());
    }

    /// Re-reads every certificate; if a file is broken, its last good certificate stays in service.
    fn reload_certificates(&mut self, tries: usize) {
        let again = self.loader.reload_certificates(tries < RETRY_DELAYS.len());
        let delay = RETRY_DELAYS.get(tries).filter(|_| again);
        self.retry = delay.map(|delay| CertificateRetry {
            at: Instant::from_std(clock::now()) + *delay,
            tries: tries + 1,
        });
    }
}

/// Opens the control socket, or logs why there is none. The gateway also serves without it, so two
/// gateways can share their sockets during a restart.
fn open(socket: &mut ControlSocket, path: &Path, front: Front, admin: Admin) {
    match socket.open(path, front, admin) {
        Ok(()) => tracing::debug!("control socket at {}", path.display()),
        Err(error @ CannotOpen::Live { .. }) => {
            tracing::error!("no control socket, so `reload` and `certs` ask the other: {error}");
        }
        Err(error) => {
            tracing::warn!("no control socket, so `reload` and `certs` do not reach us: {error}");
        }
    }
}
