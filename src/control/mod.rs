//! The loop: signals, file changes, the control socket and the service manager, one event at a time.
//!
//! To see how a reload goes, read `reload.rs`; what may replace what serves is in `admission.rs`.

mod addresses;
mod admission;
mod api;
mod cannot_start;
mod cause;
mod certificates;
mod conditions;
mod drain;
mod last_good;
mod loader;
mod readable;
mod reload;
pub(crate) mod signals;
pub(crate) mod socket;
mod sockets;
mod standing;
pub(crate) mod watch;
mod workers;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{getegid, geteuid};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::admin::Admin;
use crate::background::Tasks;
use crate::clock;
use crate::downstream::Process;
use crate::kube_api::{Asked, Front, KubeApi, Listen, Rules};
use crate::observe::counted;
use crate::stats::Reloads;
use crate::systemd::{self, ForAnother, Inherited, Notify};
use crate::tls::RETRY_DELAYS;

pub(crate) use admission::Policy;
pub(crate) use cannot_start::CannotStart;
pub(crate) use certificates::{Certificates, Facts, On, Row, Verdict, certificates};
pub(crate) use conditions::{Condition, Conditions};
pub(crate) use loader::{Load, Loader, Sources};
pub(crate) use sockets::CannotBind;

use addresses::KeptAddresses;
use cause::Cause;
use last_good::LastGood;
use loader::Accepted;
use signals::{Signal, Signals};
use socket::{ApiAt, Ask, CannotOpen, ControlSocket, Draining, Past, Serving, Status};
use sockets::Sockets;
use standing::Standing;
use watch::{Changed, Watch, Watched};
use workers::Workers;

/// Certificates expire without a file being touched, so they are looked at this often too.
const CERTIFICATES_EVERY: Duration = Duration::from_secs(3600);
/// For the answer to whoever had the gateway drain to be sent.
const LAST_ANSWER: Duration = Duration::from_millis(100);

/// What runs: everything that a reload changes, and the tasks that serve.
#[derive(Debug)]
pub(crate) struct Control {
    loader: Loader,
    gateway: Arc<Process>,
    sockets: Sockets,
    workers: Workers,
    /// Those of the snapshot that is served.
    tasks: Tasks,
    notify: Notify,
    drain_timeout: Duration,
    /// None while `run` has it.
    socket: Option<ControlSocket>,
    /// The last loads, the latest first.
    past: VecDeque<Past>,
    /// What was not as it should be when the last one was served.
    conditions: Conditions,
    /// What the log has told of the files.
    standing: Standing,
    /// What a reload from files may bring with it.
    policy: Policy,
    /// What is served was made of this; none before the first load.
    accepted: Option<Accepted>,
    last_good: Option<LastGood>,
    addresses: Option<KeptAddresses>,
    /// Why the files are not what is served, where they are not: in a line, and whole, unless the
    /// files are not to blame.
    trouble: Option<String>,
    refusal: Option<socket::Refusal>,
    /// The certificates are being renewed under our eyes: look again then.
    retry: Option<Retry>,
    reloads: Arc<Reloads>,
    api: KubeApi,
    /// What is asked of the API; none while `run` has it.
    changes: Option<mpsc::Receiver<Asked>>,
    /// Where the API is served beside the control socket.
    api_at: Option<ApiAt>,
    /// Where the API writes.
    api_dir: Option<PathBuf>,
    /// True if what was loaded last was written over the API: the watch will tell of it, too.
    is_own_change: bool,
}

/// A look at the certificates that is due.
#[derive(Clone, Copy, Debug)]
struct Retry {
    at: Instant,
    /// How many there were before it.
    tries: usize,
}

/// How the gateway is to run, beside what it serves.
#[derive(Debug)]
pub(crate) struct Setup {
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
    pub policy: Policy,
    /// Where loads are counted.
    pub reloads: Arc<Reloads>,
    /// What the API allows.
    pub api: Rules,
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
        mut loader: Loader,
        gateway: Arc<Process>,
        setup: Setup,
    ) -> Result<Self, CannotStart> {
        let addresses = setup.state_dir.as_deref().map(KeptAddresses::read);
        if let Some(kept) = &addresses {
            loader.remember(kept.held().clone());
        }
        let workers = Workers::start(setup.workers, &gateway).map_err(CannotStart::Workers)?;
        let (api, changes) = KubeApi::new(setup.api);
        let mut control = Self {
            loader,
            gateway,
            sockets: Sockets::new(setup.inherited, setup.for_another),
            workers,
            tasks: Tasks::default(),
            notify: setup.notify,
            drain_timeout: setup.drain_timeout,
            socket: None,
            past: VecDeque::new(),
            conditions: Conditions::default(),
            standing: Standing::default(),
            policy: setup.policy,
            accepted: None,
            last_good: setup.state_dir.as_deref().map(LastGood::new),
            addresses,
            trouble: None,
            refusal: None,
            retry: None,
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
    pub(crate) async fn run(mut self, mut signals: Signals, watch_files: bool) {
        let unwatched = Arc::clone(&self.reloads.unwatched);
        let mut watch = Watch::start(self.watched(watch_files), unwatched);
        let mut hours = tokio::time::interval(CERTIFICATES_EVERY);
        hours.reset();
        let mut watchdog = systemd::watchdog_interval().map(|every| {
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        let mut socket = self.socket.take();
        let mut changes = self.changes.take();
        self.notify.ready(&self.status_line());
        match self.watched(watch_files).changed_since(self.loader.read_at()) {
            // Files that were written just before the load have the times of its beginning.
            Changed { configuration: true, .. } if !self.is_current() => {
                self.reload(Cause::Files);
                watch.rewatch(self.watched(watch_files));
            }
            Changed { certificates: true, .. } => self.look_at_certificates(0),
            Changed { .. } => {}
        }
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Reload => {
                        self.reload(Cause::Signal);
                    }
                    Signal::Reopen => {
                        self.gateway.access_log.reopen();
                        continue;
                    }
                    Signal::Terminate => break,
                },
                ask = asked(socket.as_mut()) => match ask {
                    Ask::Reload(first) => {
                        let mut asked = vec![first];
                        asked.extend(socket.iter_mut().flat_map(ControlSocket::also_waiting));
                        let allow_removal = asked.iter().any(|one| one.allow_removal);
                        let reloaded = self.reload(Cause::Asked { allow_removal });
                        // Whoever does not wait any more has no use for it.
                        for answer in asked.into_iter().filter_map(|one| one.answer) {
                            let _ = answer.send(reloaded.clone());
                        }
                    }
                    Ask::Rehearse { allow_removal, answer } => {
                        let _ = answer.send(self.rehearse(allow_removal));
                        continue;
                    }
                    Ask::Certificates(answer) => {
                        let snapshot = self.gateway.snapshot.load();
                        let _ = answer.send(certificates(&snapshot, clock::wall()));
                        continue;
                    }
                    Ask::Conditions(answer) => {
                        let _ = answer.send(self.conditions.clone());
                        continue;
                    }
                    Ask::Drain(answer) => {
                        let _ = answer.send(self.draining());
                        tracing::info!("told to drain");
                        // The sockets are closed next; whoever asked is to hear of it before.
                        tokio::time::sleep(LAST_ANSWER).await;
                        break;
                    }
                    Ask::Reloads(answer) => {
                        let reloads = self.past.iter().cloned().collect();
                        let _ = answer.send(socket::Reloads { reloads });
                        continue;
                    }
                    Ask::Status(answer) => {
                        let _ = answer.send(self.status());
                        continue;
                    }
                },
                Some(asked) = wanted(changes.as_mut()) => self.change(asked),
                changed = watch.next() => match changed {
                    Changed { configuration: true, certificates: false }
                        if self.is_own_change && self.loader.is_up_to_date() => continue,
                    Changed { configuration: true, .. } => {
                        self.reload(Cause::Files);
                    }
                    Changed { configuration: false, .. } => self.look_at_certificates(0),
                },
                () = due(self.retry) => {
                    let tries = self.retry.take().map_or(0, |retry| retry.tries);
                    self.look_at_certificates(tries);
                }
                _ = hours.tick() => self.look_at_certificates(0),
                () = tick(watchdog.as_mut()) => {
                    self.feed_watchdog().await;
                    continue;
                }
            }
            watch.rewatch(self.watched(watch_files));
        }
        // Before the drain: what is asked over the control socket from now on is for the next
        // process. Who looks whether requests may be sent here reads at the admin address that not.
        let _pages = socket.map(ControlSocket::draining);
        drop(changes);
        self.api.close();
        self.drain(signals).await;
    }

    /// True if the files are what is served.
    fn is_current(&self) -> bool {
        self.accepted.as_ref().is_some_and(|accepted| self.loader.holds(accepted))
    }

    /// Which files matter now.
    fn watched(&self, watch_files: bool) -> Watched {
        if watch_files { self.loader.watched() } else { Watched::default() }
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
        self.notify.status(&self.status_line());
    }

    /// Re-reads every certificate; a broken file leaves the last good one in service.
    fn reload_certificates(&mut self, tries: usize) {
        let again = self.loader.reload_certificates(tries < RETRY_DELAYS.len());
        let delay = RETRY_DELAYS.get(tries).filter(|_| again);
        self.retry = delay
            .map(|delay| Retry { at: Instant::from_std(clock::now()) + *delay, tries: tries + 1 });
    }

    fn draining(&self) -> Draining {
        Draining {
            connections: self.gateway.connections.count(),
            timeout_ms: u64::try_from(self.drain_timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// What the control socket tells of us.
    fn status(&self) -> Status {
        let snapshot = self.gateway.snapshot.load();
        let (config, config_root) = match self.loader.sources() {
            Sources::Document { file, root } => (Some(file.clone()), root.clone()),
            Sources::Directories(_) => (None, None),
        };
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
            serving: Serving::new(snapshot.generation, snapshot.counts),
            status: self.status_line(),
            trouble: self.trouble.clone(),
            refusal: self.refusal.clone(),
            reload_policy: self.policy.to_string(),
            impaired: self.impaired(),
            connections: self.gateway.connections.count(),
            config,
            config_root,
            api_dir: self.api_dir.clone(),
            api: self.api_at.clone(),
            letsencrypt_dir: self.loader.letsencrypt_dir().to_owned(),
            acme_webroot: self.gateway.acme_webroot.clone(),
        }
    }

    /// What is not as it should be beside the configuration, as long as that is so.
    fn impaired(&self) -> Vec<String> {
        let unwatched = self.reloads.unwatched.told();
        let unwatched =
            unwatched.map(|why| format!("files cannot be watched and are compared: {why}"));
        let logs = self.gateway.access_log.faults().into_iter();
        unwatched
            .into_iter()
            .chain(logs.map(|log| format!("log cannot be written: {log}")))
            .collect()
    }

    /// The STATUS line of `systemctl status`.
    fn status_line(&self) -> String {
        let snapshot = self.gateway.snapshot.load();
        let counts = snapshot.counts;
        let mut status = format!(
            "serving {} on {} to {}, generation {}",
            counted(counts.routes, "route"),
            counted(counts.listeners, "listener"),
            counted(counts.backends, "backend"),
            snapshot.generation
        );
        if let Some(trouble) = self.trouble.as_ref() {
            status.push_str("; last reload failed: ");
            status.push_str(trouble);
        } else if let Some(problem) =
            self.loader.certificate_problem().or_else(|| self.impaired().into_iter().next())
        {
            status.push_str("; ");
            status.push_str(&problem);
        }
        status
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

async fn asked(socket: Option<&mut ControlSocket>) -> Ask {
    match socket {
        Some(socket) => socket.next().await,
        None => std::future::pending().await,
    }
}

async fn wanted(changes: Option<&mut mpsc::Receiver<Asked>>) -> Option<Asked> {
    match changes {
        Some(changes) => changes.recv().await,
        None => std::future::pending().await,
    }
}

async fn due(retry: Option<Retry>) {
    match retry {
        Some(retry) => tokio::time::sleep_until(retry.at).await,
        None => std::future::pending().await,
    }
}

async fn tick(ticks: Option<&mut tokio::time::Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}
