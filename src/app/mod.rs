//! The start of the gateway: builds the runtime, starts every task, and stops them in order.

pub(crate) mod dev;
mod host_limits;
mod session_key;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tracing::Level;

use crate::admin::Admin;
use crate::control::signals::Signals;
use crate::control::socket::CannotAsk;
use crate::control::{CannotStart, ConfigSources, Control, ControlSetup, Loader, ReloadPolicy};
use crate::downstream::{Process, ProcessLimits, Shortage};
use crate::explain::InvalidQuestion;
use crate::kube_api::{ApiRules, Listen};
use crate::metrics::{self, Metrics};
use crate::net::{AddressPool, Cidr};
use crate::observe::{self, AccessFormat, LogChoice, LogFormat};
use crate::snapshot::{ClientLimits, Snapshot, SnapshotCell};
use crate::stats::Reloads;
use crate::systemd::{Handed, Notify};
use crate::tls::{CertStore, Tickets};
use crate::upstream::{Descriptors, Upstreams};

pub(crate) use host_limits::Wishes;

/// All settings from the command line.
#[derive(Debug)]
pub(crate) struct Options {
    pub sources: ConfigSources,
    pub letsencrypt_dir: PathBuf,
    pub acme_webroot: PathBuf,
    pub trusted_proxies: Vec<Cidr>,
    /// Fixed addresses of names, which are not looked up.
    pub resolve: Vec<(String, Vec<IpAddr>)>,
    /// The pool of addresses for Gateways that name none; `None` gives them all addresses of the
    /// host.
    pub address_pool: Option<AddressPool>,
    pub drain_timeout: Duration,
    /// `None` opens no control socket.
    pub control_socket: Option<PathBuf>,
    /// The directory for the last good configuration and other state of the next start; `None`
    /// keeps nothing.
    pub state_dir: Option<PathBuf>,
    /// The faults with which a load from files is still served.
    pub policy: ReloadPolicy,
    /// The address of the metrics; `None` disables them.
    pub metrics: Option<SocketAddr>,
    /// The address of the admin API and the dashboard, beside the control socket; `None` disables
    /// it.
    pub admin: Option<SocketAddr>,
    pub watch: bool,
    /// The rules of the API.
    pub api: ApiRules,
    /// The loopback address of the API, beside the control socket.
    pub api_listen: Option<Listen>,
    /// The directory that the API writes to, if not below the first directory of resources.
    pub api_dir: Option<PathBuf>,
    pub log_format: LogFormat,
    pub access_log_format: AccessFormat,
    pub access_log_choice: LogChoice,
    /// `None` uses the level of the EnvoyGateway document, else info.
    pub log_level: Option<Level>,
    pub limits: ProcessLimits,
    /// Limits on clients of listeners that set none.
    pub client_limits: ClientLimits,
    /// If true, backends and clients are told which route a request took. Used by `dev`.
    pub shows_routes: bool,
    /// Limits set on the command line, which are otherwise derived from the host.
    pub wishes: Wishes,
    /// The number of worker threads.
    pub workers: usize,
    /// Values for `${NAME}` that the environment does not set.
    pub variables: Vec<(String, String)>,
}

/// The reason why a command ends with exit code 1.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("{0}")]
    Asked(#[from] CannotAsk),
    /// The diagnostics were printed one by one.
    #[error("the configuration has faults, see above")]
    Configuration,
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{0}")]
    Question(#[from] InvalidQuestion),
    #[error("the log cannot be opened: {0}")]
    Log(#[source] io::Error),
    #[error("{0}")]
    Start(#[from] CannotStart),
    #[error("the system gives no {what}: {source}")]
    System { what: &'static str, source: io::Error },
    #[error("{what}: {source}")]
    Files { what: String, source: io::Error },
    #[error("the result cannot be written to standard output: {0}")]
    Output(#[source] io::Error),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Creates the loader of `run` and `check`.
///
/// # Errors
///
/// Fails if the TLS library has no random numbers.
pub(crate) fn loader(
    sources: ConfigSources,
    letsencrypt_dir: PathBuf,
    resolve: Vec<(String, Vec<IpAddr>)>,
    variables: Vec<(String, String)>,
) -> Result<Loader, rustls::Error> {
    let loader = Loader::new(
        sources,
        CertStore::new(letsencrypt_dir),
        Tickets::new()?,
        Upstreams::new(resolve),
    );
    Ok(variables
        .into_iter()
        .fold(loader, |loader, (name, value)| loader.default_variable(name, value)))
}

/// Serves until asked to stop. `handed` are the sockets of the service manager; `beside` runs as
/// long as the gateway does.
///
/// # Errors
///
/// Fails if nothing could be served. Once it has begun to serve, it returns `Ok`.
pub(crate) fn run(
    options: Options,
    handed: Handed,
    beside: impl Future<Output = ()>,
) -> Result<(), Failed> {
    let loader =
        loader(options.sources, options.letsencrypt_dir, options.resolve, options.variables)?;
    let loader = loader.address_pool(options.address_pool).api_dir(options.api_dir);
    let loader = loader.trusts_proxies(!options.trusted_proxies.is_empty());
    let level = options.log_level.or_else(|| loader.log_level()).unwrap_or(Level::INFO);
    let system = |what| move |source| Failed::System { what, source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("event queue"))?;
    let _inside = runtime.enter();
    // Must come before the first thread starts, which is that of the log.
    let signals = Signals::register().map_err(system("descriptor for signals"))?;
    let logs = observe::init(options.log_format, level).map_err(Failed::Log)?;
    for ignored in &handed.ignored {
        tracing::warn!("{ignored}");
    }
    if let Some(other) = &handed.for_another {
        tracing::warn!("{other}");
    }
    let host_limits::FittedLimits { limits, client_limits, memory } =
        host_limits::fit_to_host(options.limits, options.client_limits, options.wishes);
    let descriptors = Descriptors::new(limits.upstream_connections, limits.upstream_a_peer);
    let loader = loader.bounded(limits.backend, descriptors).client_limits(client_limits);

    let process = Arc::new(Process {
        snapshot: SnapshotCell::new(Snapshot::default()),
        limits,
        trusted_proxies: options.trusted_proxies,
        acme_webroot: options.acme_webroot,
        session_key: session_key::session_key(options.state_dir.as_deref())
            .map_err(system("random numbers"))?,
        access_log: logs
            .access_log(options.access_log_format, options.access_log_choice)
            .map_err(Failed::Log)?,
        connections: Arc::default(),
        shortage: Shortage::new(memory),
        descriptors,
        shows_routes: options.shows_routes,
        draining: AtomicBool::new(false),
    });
    let loader = loader.log_files(process.access_log.files());
    let reloads = Arc::<Reloads>::default();
    let metrics = Arc::new(Metrics::new(Arc::clone(&process), Arc::clone(&reloads)));
    let setup = ControlSetup {
        inherited: handed.sockets,
        for_another: handed.for_another,
        workers: options.workers,
        drain_timeout: options.drain_timeout,
        notify: Notify::from_env(),
        control_socket: options.control_socket,
        admin: Admin::new(Arc::clone(&process), Arc::clone(&metrics), logs.level()),
        admin_listen: options.admin,
        state_dir: options.state_dir,
        policy: options.policy,
        reloads,
        api: options.api,
        api_listen: options.api_listen,
    };
    let control = Control::start(loader, process, setup)?;
    let scraped = async {
        match options.metrics {
            Some(address) => metrics::serve(address, metrics).await,
            None => std::future::pending().await,
        }
    };
    runtime.block_on(async {
        tokio::select! {
            () = control.run(signals, options.watch) => {}
            () = scraped => {}
            never = async { beside.await; std::future::pending::<std::convert::Infallible>().await } => match never {},
        }
    });
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}
