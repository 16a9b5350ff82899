//! The loader: reads files, and returns the next snapshot and all diagnostics. Starts, reloads and
//! `edge-gateway check` use it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tracing::Level;

use crate::api::ObjectKey;
use crate::clock;
use crate::compile::{self, Compiled, Inputs};
use crate::config::{
    self, CheckedObject, Diagnostic, FieldPath, FileOrigin, Origin, Settings, Severity,
};
use crate::control::watch::Watched;
use crate::control::{CannotBind, sockets};
use crate::graph::Held;
use crate::kube_api::SourceObject;
use crate::net::AddressPool;
use crate::observe::LogFiles;
use crate::provider::{self, FilePrint, Loaded, SourceFile};
use crate::snapshot::{ClientLimits, Snapshot};
use crate::tls::{CertStore, News, Tickets};
use crate::upstream::{Bounds, Descriptors, Upstreams};

/// The location of the configuration.
#[derive(Clone, Debug)]
pub(crate) enum ConfigSources {
    /// The EnvoyGateway document, which names the directories.
    Document { file: PathBuf, root: Option<PathBuf> },
    /// Directories of resources, without such a document.
    Directories(Vec<PathBuf>),
}

/// The default directory that the API writes to, below the first directory of resources.
const API_DIRECTORY: &str = "api";

/// Reads files and compiles them. It changes nothing in the running gateway and keeps no state
/// between loads, so one thread can load while another reads certificates again.
#[derive(Debug)]
pub(crate) struct Loader {
    sources: ConfigSources,
    /// Values of variables that the environment does not set.
    defaults: Vec<(String, String)>,
    certificates: CertStore,
    tickets: Tickets,
    upstreams: Arc<Upstreams>,
    trusts_proxies: bool,
    pool: Option<AddressPool>,
    /// The directory that the API writes to, if not the default one.
    api_dir: Option<PathBuf>,
    /// The files of the access logs of Gateways.
    log_files: LogFiles,
    /// Limits on clients of listeners that set none.
    client_limits: Arc<ClientLimits>,
}

/// The state of the previous load. Unchanged clusters, counters and addresses are carried over to
/// the next snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Previous {
    pub snapshot: Arc<Snapshot>,
    /// The Gateway that holds each address of the pool.
    pub held: Held,
    pub seen: Seen,
}

/// The files that a load read, as they were when it began.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The paths to watch.
    paths: Vec<PathBuf>,
    at: SystemTime,
    print: Vec<FilePrint>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { paths: Vec::new(), at: SystemTime::UNIX_EPOCH, print: Vec::new() }
    }
}

impl Seen {
    /// The time at which the load began to read.
    pub(super) fn at(&self) -> SystemTime {
        self.at
    }
}

/// The result of a load.
#[derive(Debug)]
pub(crate) struct Load {
    /// `None` after a fatal fault.
    pub compiled: Option<Compiled>,
    /// All faults and warnings, by file and position.
    pub diagnostics: Vec<Diagnostic>,
    pub files: usize,
    pub objects: usize,
    pub seen: Seen,
    /// `None` if the EnvoyGateway document cannot be read.
    read: Option<Read>,
}

/// Settings and objects that were read and not compiled yet.
#[derive(Debug)]
struct Read {
    settings: Settings,
    /// Warnings about the EnvoyGateway document.
    warnings: Vec<Diagnostic>,
    loaded: Loaded,
    /// The directory that the API writes to; `None` if the settings name no directory.
    api_dir: Option<PathBuf>,
}

/// The files and settings that the served configuration was made of.
#[derive(Debug)]
pub(super) struct Accepted {
    pub settings: Settings,
    pub files: Vec<SourceFile>,
    /// The file of each object.
    pub objects: HashMap<ObjectKey, Arc<Path>>,
    pub diagnostics: Vec<Diagnostic>,
    /// Warnings about settings and paths, not about a file.
    warnings: Vec<Diagnostic>,
    pub missing: Vec<PathBuf>,
}

/// A load that can be served.
#[derive(Debug)]
pub(super) struct Ready {
    pub compiled: Compiled,
    pub accepted: Accepted,
    /// Its objects, in the form that the API returns.
    pub sources: Vec<SourceObject>,
    /// The directory that the API writes to; `None` if the settings name no directory.
    pub api_dir: Option<PathBuf>,
    pub files: usize,
    pub objects: usize,
}

impl Loader {
    pub(crate) fn new(
        sources: ConfigSources,
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
            trusts_proxies: false,
            pool: None,
            api_dir: None,
            log_files: LogFiles::unopened(),
            client_limits: Arc::default(),
        }
    }

    /// Limits the connections of clusters.
    pub(crate) fn bounded(self, bounds: Bounds, descriptors: &'static Descriptors) -> Self {
        let upstreams = self.upstreams.bounded(bounds, descriptors);
        Self { upstreams, ..self }
    }

    /// Gives each Gateway that names no address one of `pool` instead of all addresses of the host.
    pub(crate) fn address_pool(mut self, pool: Option<AddressPool>) -> Self {
        self.pool = pool;
        self
    }

    /// Sets whether some peers may state the client's address in headers (`--trusted-proxies`).
    pub(crate) fn trusts_proxies(mut self, trusts: bool) -> Self {
        self.trusts_proxies = trusts;
        self
    }

    /// Opens the files of access logs, instead of only checking that they could be opened.
    pub(crate) fn log_files(mut self, files: LogFiles) -> Self {
        self.log_files = files;
        self
    }

    /// Sets the limits on clients of listeners that set none.
    pub(crate) fn client_limits(mut self, limits: ClientLimits) -> Self {
        self.client_limits = Arc::new(limits);
        self
    }

    /// Sets the value of `${name}` for the case that the environment does not set it.
    pub(crate) fn default_variable(mut self, name: String, value: String) -> Self {
        self.defaults.push((name, value));
        self
    }

    /// Sets the directory that the API writes to, instead of `api` below the first directory of
    /// resources.
    pub(crate) fn api_dir(mut self, directory: Option<PathBuf>) -> Self {
        self.api_dir = directory;
        self
    }

    /// Returns the directory that the API writes to, and nothing else does.
    fn api_directory(&self, settings: &Settings) -> Option<PathBuf> {
        let below = || settings.paths.first().map(|first| first.join(API_DIRECTORY));
        self.api_dir.clone().or_else(below)
    }

    /// Returns names, sizes and times of the files that a load of `paths` reads.
    fn fingerprint(&self, paths: &[PathBuf]) -> Vec<FilePrint> {
        sorted([provider::fingerprint(paths), self.document_print()].concat())
    }

    fn document_print(&self) -> Vec<FilePrint> {
        match &self.sources {
            ConfigSources::Document { file, .. } => {
                provider::fingerprint(std::slice::from_ref(file))
            }
            ConfigSources::Directories(_) => Vec::new(),
        }
    }

    /// True if no file has changed since the load of `seen` began.
    pub(super) fn is_up_to_date(&self, seen: &Seen) -> bool {
        seen.print == self.fingerprint(&seen.paths)
    }

    /// True if the files are identical to the served configuration, byte for byte.
    pub(super) fn holds(&self, accepted: &Accepted) -> bool {
        self.settings().is_ok_and(|(settings, _)| {
            settings == accepted.settings
                && provider::is_unchanged(&settings.paths, &accepted.files)
        })
    }

    /// The log level of the EnvoyGateway document; `None` if it sets none or cannot be read.
    pub(crate) fn log_level(&self) -> Option<Level> {
        let (settings, _) = self.settings().ok()?;
        settings.log_level?.parse().ok()
    }

    /// Returns the value of `${name}`: from the environment, else the default.
    fn variable(&self, name: &str) -> Option<String> {
        let default = || self.defaults.iter().find(|(own, _)| *own == name);
        let value = std::env::var(name).ok().or_else(|| default().map(|(_, value)| value.clone()));
        value.map(|value| config::value_of(name, &value))
    }

    /// Reads the settings and adds the API's directory to their paths. Also returns warnings about
    /// them.
    fn settings(&self) -> Result<(Settings, Vec<Diagnostic>), Vec<Diagnostic>> {
        let (mut settings, warnings) = self.sources.settings(&|name| self.variable(name))?;
        self.add_api_directory(&mut settings);
        Ok((settings, warnings))
    }

    /// Adds the API's directory to the paths if it exists.
    fn add_api_directory(&self, settings: &mut Settings) {
        if let Some(directory) = self.api_directory(settings)
            && directory.is_dir()
            && !settings.paths.contains(&directory)
        {
            settings.paths.push(directory);
        }
    }

    /// Reads every file and compiles it.
    pub(crate) fn load(&self, previous: &Previous) -> Load {
        let at = clock::wall();
        let (settings, warnings) = match self.settings() {
            Ok(read) => read,
            Err(diagnostics) => {
                let seen = Seen { at, ..previous.seen.clone() };
                return Load::unread(diagnostics, seen);
            }
        };
        let document = self.document_print();
        let loaded = provider::load(&settings, &|name| self.variable(name));
        let print = sorted([&*loaded.prints, &document].concat());
        let seen = Seen { paths: settings.paths.clone(), at, print };
        self.compile(self.read_of(settings, warnings, loaded), seen, previous, &[])
    }

    /// Compiles the last good configuration. The user's files are watched, not its copies.
    pub(super) fn load_kept(
        &self,
        settings: Settings,
        files: &[SourceFile],
        previous: &Previous,
    ) -> Load {
        let loaded = provider::load_kept(&settings, files, None, &|name| self.variable(name));
        let read = self.read_of(settings, Vec::new(), loaded);
        self.compile(read, previous.seen.clone(), previous, &[])
    }

    /// Reads only the API's directory and compiles it together with the other files in their served
    /// version, so a change over the API does not load a file that is just being edited.
    pub(super) fn load_api(&self, accepted: &Accepted, previous: &Previous) -> Load {
        let mut settings = accepted.settings.clone();
        self.add_api_directory(&mut settings);
        let directory = self.api_directory(&settings);
        let environment = |name: &str| self.variable(name);
        let renewed = directory.as_deref();
        let loaded = provider::load_kept(&settings, &accepted.files, renewed, &environment);
        let mut seen = previous.seen.clone();
        if let Some(directory) = directory {
            seen.print.retain(|file| !file.is_in(&directory));
            seen.print.extend(loaded.prints.iter().cloned());
            seen.print.sort();
            if !seen.paths.contains(&directory) {
                seen.paths.push(directory);
            }
        }
        let warnings = accepted.warnings.clone();
        self.compile(self.read_of(settings, warnings, loaded), seen, previous, &[])
    }

    /// Compiles the objects of `load` again, without the listeners of the binds in `failed`.
    pub(super) fn without(&self, load: Load, previous: &Previous, failed: &[CannotBind]) -> Load {
        match load.read {
            Some(read) => self.compile(read, load.seen, previous, failed),
            None => load,
        }
    }

    fn read_of(&self, settings: Settings, warnings: Vec<Diagnostic>, loaded: Loaded) -> Read {
        Read { api_dir: self.api_directory(&settings), settings, warnings, loaded }
    }

    fn compile(&self, read: Read, seen: Seen, previous: &Previous, failed: &[CannotBind]) -> Load {
        let Previous { snapshot: previous, held, .. } = previous;
        let Read { settings, warnings, loaded, .. } = &read;
        let domain = self.variable(config::DOMAIN);
        let mut compiled = (!loaded.is_fatal()).then(|| {
            compile::compile(
                &loaded.objects,
                &Inputs {
                    previous,
                    settings,
                    environment: &|name| self.variable(name),
                    domain: domain.as_deref(),
                    certificates: &self.certificates,
                    tickets: &self.tickets,
                    upstreams: &self.upstreams,
                    trusts_proxies: self.trusts_proxies,
                    // An address that is already served stays usable, even if its interface is down
                    // for a moment.
                    unusable_address: &|address| {
                        let is_served =
                            previous.binds.iter().any(|bind| bind.key.address == Some(address));
                        (!is_served).then(|| sockets::unusable_address(address)).flatten()
                    },
                    unusable_bind: &|key| {
                        failed.iter().find(|one| one.key == key).map(ToString::to_string)
                    },
                    pool: self.pool.as_ref(),
                    held,
                    log_files: &self.log_files,
                    client_limits: &self.client_limits,
                },
            )
        });
        let faults = compiled.as_mut().map(|compiled| std::mem::take(&mut compiled.faults));
        let mut diagnostics = warnings.clone();
        diagnostics.extend(loaded.diagnostics(faults.unwrap_or_default()));
        diagnostics
            .extend(domain.as_deref().and_then(|domain| self.sources.fault_of_domain(domain)));
        diagnostics.sort_by(|a, b| a.place.cmp(&b.place));
        let (files, objects) = (loaded.files.len(), loaded.objects.len());
        Load { compiled, diagnostics, files, objects, seen, read: Some(read) }
    }

    /// Re-reads every certificate on its own and logs the results. Returns true if a renewal seems
    /// to be in progress and a retry soon is worthwhile. With `patient`, faults of such a renewal
    /// are not logged yet.
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

    /// The first problem of a certificate, if any.
    pub(crate) fn certificate_problem(&self) -> Option<String> {
        self.certificates.problems().into_iter().next()
    }

    pub(crate) fn sources(&self) -> &ConfigSources {
        &self.sources
    }

    pub(crate) fn letsencrypt_dir(&self) -> &Path {
        self.certificates.letsencrypt_dir()
    }

    /// Returns the paths whose changes trigger a reload. `seen` is that of the last load.
    pub(super) fn watched(&self, seen: &Seen) -> Watched {
        let mut configuration = seen.paths.clone();
        match &self.sources {
            ConfigSources::Document { file, .. } => configuration.push(file.clone()),
            ConfigSources::Directories(directories) => {
                configuration.extend(directories.iter().cloned());
            }
        }
        Watched { configuration, certificates: self.certificates.watched() }
    }
}

impl Load {
    fn unread(diagnostics: Vec<Diagnostic>, seen: Seen) -> Self {
        Self { compiled: None, diagnostics, files: 0, objects: 0, seen, read: None }
    }

    /// Returns the file of each object that was read.
    pub(super) fn places(&self) -> HashMap<ObjectKey, Arc<Path>> {
        let objects =
            self.read.iter().flat_map(|read| read.loaded.objects.iter().zip(&read.loaded.origins));
        objects.map(|(of, origin)| (of.object.key(), Arc::clone(&origin.file))).collect()
    }

    /// The files that were read.
    pub(super) fn source_files(&self) -> &[SourceFile] {
        self.read.as_ref().map_or(&[], |read| &read.loaded.files)
    }

    /// The paths of the settings.
    pub(super) fn paths(&self) -> &[PathBuf] {
        self.read.as_ref().map_or(&[], |read| &read.settings.paths)
    }

    /// Paths of the settings that do not exist.
    pub(super) fn missing(&self) -> &[PathBuf] {
        self.read.as_ref().map_or(&[], |read| &read.loaded.missing)
    }

    /// True if the load has read exactly these settings and files.
    pub(super) fn is_of(&self, settings: &Settings, files: &[SourceFile]) -> bool {
        let Some(read) = &self.read else { return false };
        let own = &read.loaded.files;
        read.settings == *settings
            && own.len() == files.len()
            && own.iter().zip(files).all(|(a, b)| a.path == b.path && a.text() == b.text())
    }

    /// Converts the load into everything needed to serve it; `None` after a fatal fault.
    pub(super) fn ready(self) -> Option<Ready> {
        let objects = self.places();
        let Self { compiled, diagnostics, files: file_count, objects: object_count, read, .. } =
            self;
        let Read { settings, mut warnings, loaded, api_dir } = read?;
        let Loaded { objects: checked, origins, files, of_paths, missing, .. } = loaded;
        warnings.extend(of_paths);
        let files = files.into_iter().map(SourceFile::kept).collect();
        Some(Ready {
            compiled: compiled?,
            accepted: Accepted { settings, files, objects, diagnostics, warnings, missing },
            sources: sources(&checked, origins),
            api_dir,
            files: file_count,
            objects: object_count,
        })
    }

    /// The objects, in the form that the API returns; empty after a fatal fault.
    pub(crate) fn into_sources(self) -> Vec<SourceObject> {
        self.ready().map_or_else(Vec::new, |ready| ready.sources)
    }
}

fn sorted(mut prints: Vec<FilePrint>) -> Vec<FilePrint> {
    prints.sort();
    prints
}

/// The objects that were read, in the form that the API returns.
fn sources(objects: &[CheckedObject], origins: Vec<FileOrigin>) -> Vec<SourceObject> {
    let mut in_file: HashMap<Arc<Path>, usize> = HashMap::new();
    for origin in &origins {
        *in_file.entry(Arc::clone(&origin.file)).or_default() += 1;
    }
    let each = objects.iter().zip(origins);
    let each = each.map(|(checked, origin)| SourceObject {
        key: checked.object.key(),
        written: origin.written,
        alone: in_file.get(&origin.file) == Some(&1) && origin.prefix == FieldPath::default(),
        file: origin.file,
    });
    each.collect()
}

impl ConfigSources {
    /// A warning about the document as a whole, since the fault is not in any file.
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
            origin: Origin::Host,
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
