//! A reload, step by step: everything changes, or nothing does.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracing::Level;

use crate::api::{Kind, Object, ObjectKey};
use crate::clock;
use crate::compile::{self, Compiled, Inputs};
use crate::config::{self, Diagnostic, FilePrint, Loaded, Located, Settings, Severity, SourceFile};
use crate::control::conditions::Conditions;
use crate::control::last_good::LastGood;
use crate::control::socket::{Past, Reloaded, Serving};
use crate::control::watch::Watched;
use crate::control::{CannotBind, CannotStart, Control, sockets};
use crate::graph::Held;
use crate::kube_api::Source;
use crate::net::AddressPool;
use crate::observe::{LogFiles, counted, whole_millis};
use crate::snapshot::Snapshot;
use crate::tls::{CertStore, News, Tickets};
use crate::upstream::{Bounds, Descriptors, Upstreams};

/// Why a reload happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// An object was written over the API.
    Api,
    /// Over the control socket.
    Asked,
    Files,
    Signal,
}

impl Cause {
    fn word(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Asked => "asked",
            Self::Files => "files",
            Self::Signal => "signal",
        }
    }
}

/// Where the configuration is.
#[derive(Clone, Debug)]
pub(crate) enum Sources {
    /// The EnvoyGateway document, which names the directories.
    Document { file: PathBuf, root: Option<PathBuf> },
    /// Directories of resources, without such a document.
    Directories(Vec<PathBuf>),
}

/// Loads that are told of.
const PAST: usize = 20;
/// Below the first directory of resources.
const API_DIRECTORY: &str = "api";

/// Turns files into snapshots. Serves the reload and `edge-gateway check` alike.
#[derive(Debug)]
pub(crate) struct Loader {
    sources: Sources,
    /// Names that count as set in the environment where it does not have them.
    defaults: Vec<(String, String)>,
    certificates: CertStore,
    tickets: Tickets,
    upstreams: Arc<Upstreams>,
    pool: Option<AddressPool>,
    /// Who holds which address of the pool in what is served.
    held: Held,
    /// What the last load read, for the watch.
    read: Vec<PathBuf>,
    /// When it began to.
    read_at: SystemTime,
    /// Where the API writes, if not below the first directory of resources.
    api_dir: Option<PathBuf>,
    /// The files of the last load, as they were when it began.
    print: Vec<FilePrint>,
    /// Where access logs of Gateways go.
    log_files: LogFiles,
    trusts_proxies: bool,
}

/// What a load came to.
#[derive(Debug)]
pub(crate) struct Load {
    /// `None` after a fatal fault.
    pub compiled: Option<Compiled>,
    /// All faults and warnings, by file and place.
    pub diagnostics: Vec<Diagnostic>,
    pub files: usize,
    pub objects: usize,
    /// What was read, where it can be served.
    pub read: Option<(Settings, Vec<SourceFile>)>,
    /// The same as objects, for the API.
    pub sources: Vec<Source>,
    /// Where the API writes; none where nothing is known of directories.
    pub api_dir: Option<PathBuf>,
}

impl Loader {
    pub(crate) fn new(
        sources: Sources,
        certificates: CertStore,
        tickets: Tickets,
        upstreams: Arc<Upstreams>,
    ) -> Self {
        Self {
            sources,
            defaults: Vec::new(),
            certificates,
            tickets,
            upstreams,
            pool: None,
            held: Held::new(),
            read: Vec::new(),
            read_at: SystemTime::UNIX_EPOCH,
            api_dir: None,
            print: Vec::new(),
            log_files: LogFiles::unopened(),
            trusts_proxies: false,
        }
    }

    /// Some peers may say who the client is, so headers that say it are not removed from all.
    pub(crate) fn trusts_proxies(mut self, trusts: bool) -> Self {
        self.trusts_proxies = trusts;
        self
    }

    /// Binds the clusters that it makes from now on.
    pub(crate) fn bounded(self, bounds: Bounds, descriptors: &'static Descriptors) -> Self {
        let upstreams = self.upstreams.bounded(bounds, descriptors);
        Self { upstreams, ..self }
    }

    /// Gives each Gateway that names no address one of `pool`, in place of all of the host.
    pub(crate) fn address_pool(mut self, pool: Option<AddressPool>) -> Self {
        self.pool = pool;
        self
    }

    /// Opens the files of access logs, in place of looking whether they could be.
    pub(crate) fn log_files(mut self, files: LogFiles) -> Self {
        self.log_files = files;
        self
    }

    /// Lets Gateways have the addresses that they had.
    pub(super) fn remember(&mut self, held: Held) {
        self.held = held;
    }

    /// Sets `name` for `${name}` where the environment does not.
    pub(crate) fn default_variable(mut self, name: String, value: String) -> Self {
        self.defaults.push((name, value));
        self
    }

    /// Has the API write to `directory`, in place of `api` below the first directory of resources.
    pub(crate) fn api_dir(mut self, directory: Option<PathBuf>) -> Self {
        self.api_dir = directory;
        self
    }

    /// Where the API writes: one directory that is its own.
    fn api_directory(&self, settings: &Settings) -> Option<PathBuf> {
        let below = || settings.paths.first().map(|first| first.join(API_DIRECTORY));
        self.api_dir.clone().or_else(below)
    }

    /// The files that a load of `paths` reads, to be known again.
    fn fingerprint(&self, paths: &[PathBuf]) -> Vec<FilePrint> {
        let mut print = config::fingerprint(paths);
        if let Sources::Document { file, .. } = &self.sources {
            print.extend(config::fingerprint(std::slice::from_ref(file)));
        }
        print
    }

    /// True if no file has changed since the last load began.
    pub(super) fn is_up_to_date(&self) -> bool {
        self.print == self.fingerprint(&self.read)
    }

    /// The log level that the EnvoyGateway document asks for, if it can be read and does.
    pub(crate) fn log_level(&self) -> Option<Level> {
        let (settings, _) = self.sources.settings(&|name| self.variable(name)).ok()?;
        settings.log_level?.parse().ok()
    }

    /// `${name}`, from the environment or else of our own.
    fn variable(&self, name: &str) -> Option<String> {
        let default = || self.defaults.iter().find(|(own, _)| *own == name);
        let value = std::env::var(name).ok().or_else(|| default().map(|(_, value)| value.clone()));
        value.map(|value| config::value_of(name, &value))
    }

    /// Loads from elsewhere, once.
    pub(super) fn load_from(&mut self, sources: Sources, previous: &Snapshot) -> Load {
        let own = std::mem::replace(&mut self.sources, sources);
        // What is watched are the files that somebody may mend.
        let (read, api_dir) = (self.read.clone(), self.api_dir.take());
        let load = self.load(previous);
        (self.sources, self.read, self.api_dir) = (own, read, api_dir);
        load
    }

    /// Reads every file and compiles what it says. Changes nothing that runs.
    pub(crate) fn load(&mut self, previous: &Snapshot) -> Load {
        self.load_without(previous, &[])
    }

    /// As [`load`](Self::load), but without the listeners of these binds.
    fn load_without(&mut self, previous: &Snapshot, failed: &[CannotBind]) -> Load {
        self.read_at = clock::wall();
        let environment = |name: &str| self.variable(name);
        let (mut settings, mut diagnostics) = match self.sources.settings(&environment) {
            Ok(read) => read,
            Err(diagnostics) => {
                return Load::failed(diagnostics, 0, 0);
            }
        };
        let api_dir = self.api_directory(&settings);
        if let Some(directory) = api_dir.as_ref().filter(|directory| directory.is_dir())
            && !settings.paths.contains(directory)
        {
            settings.paths.push(directory.clone());
        }
        let print = self.fingerprint(&settings.paths);
        let mut loaded: Loaded = config::load(&settings, &environment);
        refuse_what_closes_gateways(&mut loaded, previous);
        let (files, objects) = (loaded.files.len(), loaded.objects.len());
        let domain = environment(config::DOMAIN);
        diagnostics
            .extend(domain.as_deref().and_then(|domain| self.sources.fault_of_domain(domain)));
        self.read.clone_from(&settings.paths);
        self.print = print;
        if loaded.is_fatal() {
            diagnostics.extend(loaded.diagnostics);
            diagnostics.sort_by(|a, b| a.place.cmp(&b.place));
            return Load::failed(diagnostics, files, objects);
        }
        let mut compiled = compile::compile(
            &loaded,
            &Inputs {
                previous,
                settings: &settings,
                environment: &|name| self.variable(name),
                domain: domain.as_deref(),
                certificates: &self.certificates,
                tickets: &self.tickets,
                upstreams: &self.upstreams,
                unusable_address: &sockets::unusable_address,
                unusable_bind: &|key| {
                    failed.iter().find(|one| one.key == key).map(ToString::to_string)
                },
                pool: self.pool.as_ref(),
                held: &self.held,
                log_files: &self.log_files,
                trusts_proxies: self.trusts_proxies,
            },
        );
        diagnostics.extend(loaded.diagnostics);
        diagnostics.append(&mut compiled.diagnostics);
        diagnostics.sort_by(|a, b| a.place.cmp(&b.place));
        let sources = sources(loaded.objects);
        let read = Some((settings, loaded.files));
        Load { compiled: Some(compiled), diagnostics, files, objects, read, sources, api_dir }
    }

    /// Re-reads every certificate by itself and logs what came of it. True if a renewal seems to
    /// be under way and it is worth looking again soon; such faults are logged only without
    /// `patient`.
    pub(crate) fn reload_certificates(&self, patient: bool) -> bool {
        let mut again = false;
        for report in self.certificates.reload() {
            match report.news {
                News::Changed => tracing::info!("{report}"),
                News::Fault { retry: true } if patient => again = true,
                News::Fault { .. } => tracing::error!("{report}"),
            }
        }
        again
    }

    /// The first thing that is wrong with a certificate, if any.
    pub(crate) fn certificate_problem(&self) -> Option<String> {
        self.certificates.problems().into_iter().next()
    }

    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }

    pub(crate) fn letsencrypt_dir(&self) -> &Path {
        self.certificates.letsencrypt_dir()
    }

    /// When the last load began to read.
    pub(super) fn read_at(&self) -> SystemTime {
        self.read_at
    }

    /// What a change of should make a reload.
    pub(crate) fn watched(&self) -> Watched {
        let mut configuration = self.read.clone();
        match &self.sources {
            Sources::Document { file, .. } => configuration.push(file.clone()),
            Sources::Directories(directories) => configuration.extend(directories.iter().cloned()),
        }
        Watched { configuration, certificates: self.certificates.watched() }
    }
}

impl Load {
    fn failed(diagnostics: Vec<Diagnostic>, files: usize, objects: usize) -> Self {
        Self {
            compiled: None,
            diagnostics,
            files,
            objects,
            read: None,
            sources: Vec::new(),
            api_dir: None,
        }
    }
}

/// What was read, as the API shows it.
fn sources(objects: Vec<Located<Object>>) -> Vec<Source> {
    let mut in_file: HashMap<Arc<Path>, usize> = HashMap::new();
    for located in &objects {
        *in_file.entry(Arc::clone(&located.file)).or_default() += 1;
    }
    objects
        .into_iter()
        .map(|located| Source {
            key: located.object.key(),
            written: located.written.0,
            alone: in_file.get(&located.file) == Some(&1) && located.prefix.is_empty(),
            file: located.file,
        })
        .collect()
}

/// True if it is better to serve on without these binds than to refuse the load.
fn can_do_without(previous: &Snapshot, failed: &[CannotBind]) -> bool {
    previous.generation > 0 && failed.iter().all(|one| !one.ours)
}

/// Makes a load fail in which a Gateway or ListenerSet that is served now breaks the rules of its
/// kind, or the Gateway's class or EnvoyProxy does: an API server would not have taken the change, and here it
/// would close its listeners.
fn refuse_what_closes_gateways(loaded: &mut Loaded, previous: &Snapshot) {
    if loaded.objects.iter().all(|located| located.faults.is_empty()) {
        return;
    }
    let served: Vec<&Located<Object>> = loaded
        .objects
        .iter()
        .filter(|located| {
            let key = located.object.key();
            match key.kind {
                Kind::Gateway => previous.serves_gateway(&key.namespace, &key.name),
                Kind::ListenerSet => previous.serves_listener_set(&key.namespace, &key.name),
                _ => false,
            }
        })
        .collect();
    let is_class_of_served = |name: &str| {
        served.iter().any(|located| match &located.object {
            Object::Gateway(gateway) => gateway.spec.gateway_class_name == name,
            _ => false,
        })
    };
    let named: HashSet<ObjectKey> = loaded
        .objects
        .iter()
        .filter_map(|located| match &located.object {
            Object::Gateway(gateway) => served
                .iter()
                .any(|one| std::ptr::eq(*one, located))
                .then(|| gateway.envoy_proxy())
                .flatten(),
            Object::GatewayClass(class) => {
                is_class_of_served(&class.metadata.name).then(|| class.envoy_proxy()).flatten()
            }
            _ => None,
        })
        .collect();
    let closing: Vec<String> = loaded
        .objects
        .iter()
        .filter(|located| !located.faults.is_empty())
        .filter(|located| match &located.object {
            Object::GatewayClass(class) => is_class_of_served(&class.metadata.name),
            Object::EnvoyProxy(_) => named.contains(&located.object.key()),
            _ => served.iter().any(|one| std::ptr::eq(*one, *located)),
        })
        .map(|located| located.object.key().to_string())
        .collect();
    for diagnostic in &mut loaded.diagnostics {
        let is_error = diagnostic.severity == Severity::Error;
        diagnostic.fatal |= is_error && closing.contains(&diagnostic.object);
    }
}

impl Sources {
    /// A warning at the document as a whole: what is wrong is not in any file.
    fn fault_of_domain(&self, domain: &str) -> Option<Diagnostic> {
        let file = match self {
            Self::Document { file, .. } => Some(file),
            Self::Directories(directories) => directories.first(),
        };
        Some(Diagnostic {
            severity: Severity::Warning,
            fatal: false,
            problem: config::fault_of_domain(domain)?,
            place: config::Place { file: Arc::from(&**file?), position: None },
            object: String::new(),
            field: String::new(),
        })
    }

    fn settings(
        &self,
        environment: config::Environment<'_>,
    ) -> Result<(Settings, Vec<Diagnostic>), Vec<Diagnostic>> {
        match self {
            Self::Document { file, root } => Settings::read(file, root.as_deref(), environment),
            Self::Directories(paths) => Ok((Settings::of_paths(paths.clone()), Vec::new())),
        }
    }
}

impl Control {
    /// Replaces what runs, or changes nothing; either way the service manager hears the end of it.
    pub(super) fn reload(&mut self, cause: Cause) -> Reloaded {
        let begun = clock::now();
        self.is_own_change = cause == Cause::Api;
        self.notify.reloading();
        // First and by themselves: a broken YAML file must never keep an old certificate in
        // service.
        self.reload_certificates(0);
        tracing::info!(
            "reloading because {}",
            match cause {
                Cause::Api => "an object was written over the API",
                Cause::Asked => "the control socket was asked to",
                Cause::Files => "files have changed",
                Cause::Signal => "of SIGHUP",
            }
        );
        let reloaded = match self.load() {
            Ok(reloaded) => {
                self.trouble = None;
                reloaded
            }
            Err(CannotStart::Configuration(diagnostics)) => {
                let fatal = diagnostics.iter().find(|diagnostic| diagnostic.fatal);
                self.trouble = Some(fatal.map_or_else(String::new, ToString::to_string));
                let diagnostics = Reloaded::told(&diagnostics);
                Reloaded { loaded: false, diagnostics, ..Reloaded::default() }
            }
            Err(other) => {
                tracing::error!("{other}");
                self.trouble = Some(other.to_string());
                Reloaded { loaded: false, refused: Some(other.to_string()), ..Reloaded::default() }
            }
        };
        if self.trouble.is_some() {
            tracing::error!("reload failed, what ran before is served on");
        }
        self.notify.ready(&self.status_line());
        let reloaded = self.as_of_now(reloaded, begun);
        self.note(cause.word(), reloaded.clone());
        reloaded
    }

    /// With what is served now, and how long it took.
    fn as_of_now(&self, reloaded: Reloaded, begun: Instant) -> Reloaded {
        let snapshot = self.gateway.snapshot.load();
        let took = clock::now().saturating_duration_since(begun);
        Reloaded {
            serving: Serving::new(snapshot.generation, snapshot.counts),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            ..reloaded
        }
    }

    /// Keeps what a load came to, for those who ask later.
    fn note(&mut self, cause: &str, came_to: Reloaded) {
        if let Some(before) = self.past.front_mut() {
            before.came_to.diagnostics = Vec::new();
        }
        let at = jiff::Timestamp::try_from(clock::wall()).unwrap_or_default();
        let at = format!("{at:.0}");
        self.past.push_front(Past { at, cause: cause.into(), came_to });
        self.past.truncate(PAST);
    }

    /// One load, from the files to the sockets.
    pub(super) fn load(&mut self) -> Result<Reloaded, CannotStart> {
        let begun = clock::now();
        let previous = self.gateway.snapshot.load();
        let mut load = self.loader.load(&previous);
        let mut read = load.read.take();
        self.reloads.diagnostics.set(load.diagnostics.len() as u64);
        let mut served = self.serve(load, begun);
        // A port that somebody else has takes its listeners out, where something runs already that
        // is not to wait for it.
        if let Err(CannotStart::Binds(failed)) = &served
            && can_do_without(&previous, failed)
        {
            let mut load = self.loader.load_without(&previous, failed);
            read = load.read.take();
            self.reloads.diagnostics.set(load.diagnostics.len() as u64);
            served = self.serve(load, begun);
        }
        self.count(served.is_ok(), begun);
        let reloaded = served?;
        if let (Some(kept), Some((settings, files))) = (&self.last_good, read)
            && let Err(error) = kept.keep(&settings, &files)
        {
            tracing::warn!("the configuration cannot be kept for a start without it: {error}");
        }
        Ok(reloaded)
    }

    /// The first load. Where the files cannot be read as what they say, what loaded last is served.
    pub(super) fn first_load(&mut self) -> Result<(), CannotStart> {
        let begun = clock::now();
        let diagnostics = match self.load() {
            Err(CannotStart::Configuration(diagnostics)) => diagnostics,
            Err(other) => return Err(other),
            Ok(reloaded) => {
                self.note("start", self.as_of_now(reloaded, begun));
                return Ok(());
            }
        };
        let Some(kept) = self.last_good.as_ref().and_then(LastGood::sources) else {
            return Err(CannotStart::Configuration(diagnostics));
        };
        tracing::error!("the files do not load; serving the last configuration that did");
        let load = self.loader.load_from(kept, &Snapshot::default());
        if load.compiled.is_none() {
            return Err(CannotStart::Configuration(diagnostics));
        }
        // It says nothing of the files that somebody is to mend.
        let standing = std::mem::take(&mut self.standing);
        let kept = self.serve(load, begun)?;
        self.standing = standing;
        let told = Reloaded::told(&diagnostics);
        let kept = Reloaded { loaded: false, diagnostics: told, ..kept };
        self.note("start", self.as_of_now(kept, begun));
        let fatal = diagnostics.iter().find(|one| one.fatal).map(ToString::to_string);
        self.trouble = fatal.map(|fatal| format!("what loaded last is served; {fatal}"));
        Ok(())
    }

    /// Serves what was loaded, or changes nothing. The load began at `begun`.
    fn serve(&mut self, load: Load, begun: Instant) -> Result<Reloaded, CannotStart> {
        let Some(compiled) = load.compiled else {
            self.standing.tell_failed(&load.diagnostics);
            return Err(CannotStart::Configuration(load.diagnostics));
        };
        let next = compiled.snapshot;
        let mut prepared = match self.sockets.prepare(&next) {
            Ok(prepared) => prepared,
            Err(failed) => {
                // Else they are told with the load that does without those binds.
                if !can_do_without(&self.gateway.snapshot.load(), &failed) {
                    self.standing.tell(&load.diagnostics, self.loader.sources());
                }
                return Err(CannotStart::Binds(failed));
            }
        };

        self.standing.tell(&load.diagnostics, self.loader.sources());
        for warning in &prepared.warnings {
            tracing::warn!("{warning}");
        }

        // From here on nothing can fail.
        let (generation, counts) = (next.generation, next.counts);
        self.conditions = Conditions::default();
        for (key, status) in compiled.statuses.objects() {
            self.conditions.add(&key.to_string(), &status);
        }
        let statuses = compiled.statuses.objects().map(|(key, status)| (key.clone(), status));
        self.api.show(load.sources, statuses, load.api_dir.as_deref());
        self.api_dir = load.api_dir;
        // Before the first request that is traced.
        self.exporter.serve(&next.collectors);
        self.gateway.snapshot.publish(next);
        self.sockets.commit(&mut prepared);
        for (bind, socket, listener) in &prepared.new {
            if let Err(error) = self.workers.listen(*bind, *socket, listener) {
                tracing::error!("port {}: {error}", bind.port);
            }
        }
        for socket in prepared.gone {
            self.workers.close(socket);
        }
        if let Some(Err(error)) = self.addresses.as_mut().map(|kept| kept.keep(&compiled.held)) {
            tracing::warn!("the addresses of Gateways cannot be kept for the next start: {error}");
        }
        self.loader.remember(compiled.held);
        let took = clock::now().saturating_duration_since(begun);
        tracing::info!(
            generation,
            took_ms = whole_millis(took),
            "serving {} on {} to {}, from {} in {}",
            counted(counts.routes, "route"),
            counted(counts.listeners, "listener"),
            counted(counts.backends, "backend"),
            counted(load.objects, "object"),
            counted(load.files, "file"),
        );
        self.warn_if_slow(took);
        Ok(Reloaded {
            loaded: true,
            files: load.files,
            objects: load.objects,
            diagnostics: Reloaded::told(&load.diagnostics),
            ..Reloaded::default()
        })
    }

    fn count(&self, loaded: bool, begun: Instant) {
        let reloads = &self.reloads;
        let took = clock::now().saturating_duration_since(begun);
        reloads.last_took.set(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        reloads.last_was_loaded.set(u64::from(loaded));
        if loaded {
            reloads.loaded.one_more();
            let since = clock::wall().duration_since(SystemTime::UNIX_EPOCH);
            reloads.last_loaded_at.set(since.map_or(0, |since| since.as_secs()));
        } else {
            reloads.refused.one_more();
        }
    }

    /// A load holds up the control loop, and with it the watchdog.
    fn warn_if_slow(&self, took: Duration) {
        if took > Duration::from_secs(5) {
            tracing::warn!("the configuration took {} s to load", took.as_secs());
        }
    }
}
