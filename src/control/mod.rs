//! The control loop: signals, file changes, the control socket and the service manager, one event at a
//! time.
//!
//! Files are loaded on a thread of their own, so that the loop answers meanwhile. To see how a reload
//! goes, read `reload.rs`. Which load may replace what serves is decided in `admission.rs`.

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

/// Time for the last answers before the control socket is closed.
const LAST_ANSWER: Duration = Duration::from_millis(100);

/// What runs: everything that a reload changes, and the tasks that serve.
#[derive(Debug)]
pub(crate) struct Control {
    loader: Arc<Loader>,
    gateway: Arc<Process>,
    sockets: Sockets,
    workers: Workers,
    /// Those of the snapshot that is served.
    tasks: Tasks,
    notify: Notify,
    drain_timeout: Duration,
    /// None while `run` has it.
    socket: Option<ControlSocket>,
    /// The load under way, if there is one.
    under_way: Option<UnderWay>,
    /// A reload that will begin when no other load is under way.
    due: Option<LoadCause>,
    /// The last loads, the latest first.
    past: VecDeque<Past>,
    /// Conditions that were not as they should be when the last load was served.
    conditions: BadConditions,
    /// Diagnostics of the files that the log has told.
    standing: Standing,
    /// The faults and removals with which a load of the files is still served.
    policy: ReloadPolicy,
    /// What is served was made of this; none before the first load.
    accepted: Option<Arc<Accepted>>,
    /// The files that the last load read.
    seen: Seen,
    last_good: Option<LastGood>,
    /// Which Gateway holds which address of the pool, and the file that remembers it.
    held: Held,
    addresses: Option<KeptAddresses>,
    /// Why the files are not what is served, if they are not: in one line.
    trouble: Option<String>,
    /// The same as a whole, where the files are to blame.
    refusal: Option<socket::RefusalReport>,
    /// The certificates are being replaced: they are read again then.
    retry: Option<CertificateRetry>,
    /// Certificates were read since the load under way began.
    has_newer_certificates: bool,
    reloads: Arc<Reloads>,
    api: KubeApi,
    /// Changes asked for over the API; none while `run` has it.
    changes: Option<mpsc::Receiver<ChangeRequest>>,
    /// Where the API is served beside the control socket.
    api_at: Option<ApiAt>,
    /// Where the API writes.
    api_dir: Option<PathBuf>,
    /// True if the last load was for a change over the API: the watch will report its file, too.
    is_own_change: bool,
}

/// A look at the certificates that is due.
#[derive(Clone, Copy, Debug)]
struct CertificateRetry {
    at: Instant,
    /// How many there were before it.
    tries: usize,
}

/// How the gateway is to run, beside what it serves.
#[derive(Debug)]
pub(crate) struct ControlSetup {
    pub inherited: Vec<Inherited>,
    /// What was handed over to another process.
    pub for_another: Option<ForAnother>,
    pub workers: usize,
    pub drain_timeout: Duration,
    pub notify: Notify,
    /// Where the control socket is to be.
    pub control_socket: Option<PathBuf>,
    /// Answers what needs no answer of ours.
    pub admin: Admin,
    /// Where it does beside the control socket.
    pub admin_listen: Option<SocketAddr>,
    /// Where the last configuration that loaded is kept, and which Gateway has which address of the
    /// pool.
    pub state_dir: Option<PathBuf>,
    /// What a reload from files may bring with it.
    pub policy: ReloadPolicy,
    /// Where loads are counted.
    pub reloads: Arc<Reloads>,
    /// What the API allows.
    pub api: ApiRules,
    /// Where it is served beside the control socket.
    pub api_listen: Option<Listen>,
}

impl Control {
    /// Loads the configuration for the first time and begins to serve it.
    ///
    /// # Errors
    ///
    /// Nothing runs then: a fatal fault of the configuration, or a socket that cannot be had.
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

    /// Runs until told to stop, then drains.
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
                    // The sockets are closed next; whoever asked is to hear of it before.
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
        // Before the drain: what is asked over the control socket from now on is for the next
        // process. Load balancers still read at the admin address that this one is not ready.
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

    /// Notices what changed between the first load and the watch.
    fn catch_up(&mut self, watch_files: bool) {
        match self.watched(watch_files).changed_since(self.seen.at()) {
            // Files that were written just before the load have the times of its beginning.
            Changed { configuration: true, .. } if !self.is_current() => {
                self.due = Some(LoadCause::Files);
            }
            Changed { certificates: true, .. } => self.look_at_certificates(0),
            Changed { .. } => {}
        }
    }

    /// Answers a question, or begins the load that it is answered after.
    fn answer(&mut self, ask: Ask, socket: &mut ControlSocket) {
        // Whoever does not wait any more has no use for an answer.
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
        // SIGHUP reads the files whether they look changed or not.
        if changed.configuration && self.due.is_none() {
            self.due = Some(LoadCause::Files);
        }
        // A reload begins with them, but it may have to wait, or not be needed.
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

    /// Begins a load of everything, which is the one that was due, too.
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
            // Each ends as what it began as.
            _ => {}
        }
        if std::mem::take(&mut self.has_newer_certificates) {
            self.look_at_certificates(0);
        }
    }

    /// True if the files are what is served.
    fn is_current(&self) -> bool {
        self.accepted.as_ref().is_some_and(|accepted| self.loader.holds(accepted))
    }

    /// Which files matter now.
    fn watched(&self, watch_files: bool) -> Watched {
        if watch_files { self.loader.watched(&self.seen) } else { Watched::default() }
    }

    /// WATCHDOG=1 only if every worker's loop answers: that is the loop that does the work.
    async fn feed_watchdog(&self) {
        let patience = systemd::watchdog_interval().unwrap_or(CERTIFICATES_EVERY);
        if tokio::time::timeout(patience, self.workers.answer()).await.is_ok() {
            self.notify.watchdog();
        } else {
            tracing::error!("a worker does not answer; the service manager will restart us");
        }
    }

    /// Re-reads every certificate by itself, and tells the service manager.
    fn look_at_certificates(&mut self, tries: usize) {
        self.reload_certificates(tries);
        self.has_newer_certificates = self.under_way.is_some();
        self.notify.status(&self.status_line());
    }

    /// Re-reads every certificate; a broken file leaves the last good one in service.
    fn reload_certificates(&mut self, tries: usize) {
        let again = self.loader.reload_certificates(tries < RETRY_DELAYS.len());
        let delay = RETRY_DELAYS.get(tries).filter(|_| again);
        self.retry = delay.map(|delay| CertificateRetry {
            at: Instant::from_std(clock::now()) + *delay,
            tries: tries + 1,
        });
    }
}

/// Opens the control socket, or says why there is none: the gateway serves without it all the same,
/// so that two of them can share the sockets of a restart.
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
