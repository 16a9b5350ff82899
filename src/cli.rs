//! The command line: `run`, `dev`, `check`, `echo`.

use std::fmt::Display;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use tracing::Level;

use crate::app::{self, Failed, Options, dev};
use crate::compile;
use crate::config::Severity;
use crate::control::Sources;
use crate::echo;
use crate::net::Cidr;
use crate::observe::LogFormat;
use crate::proxy::Limits;
use crate::snapshot::Snapshot;
use crate::systemd::{self, Handed};

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    // First of all: this changes the environment, which no other thread may be reading.
    let handed = match systemd::inherited() {
        Ok(handed) => handed,
        Err(error) => return fail(error),
    };
    match Cli::parse().command {
        Command::Run(run) => run.run(handed).map_or_else(fail, |()| ExitCode::SUCCESS),
        Command::Dev(dev) => dev.run(handed).map_or_else(fail, |()| ExitCode::SUCCESS),
        Command::Check(check) => check.run().unwrap_or_else(fail),
        Command::Echo(echo) => echo.run().map_or_else(fail, |()| ExitCode::SUCCESS),
    }
}

/// The definition of the command line, for its man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

fn fail(error: impl Display) -> ExitCode {
    for line in error.to_string().lines() {
        // Nobody is left to be told if standard error is gone.
        let _ = writeln!(io::stderr(), "edge-gateway: {line}");
    }
    ExitCode::FAILURE
}

/// The front door of a Linux host: Gateway API files in, TLS and HTTP out.
#[derive(Debug, Parser)]
#[command(
    name = "edge-gateway",
    version,
    about,
    after_help = "\
Examples:
  edge-gateway dev                            try it: no root, no certificate, no configuration
  edge-gateway check --config /etc/edge-gateway/edge-gateway.yaml
  edge-gateway run --config /etc/edge-gateway/edge-gateway.yaml
  systemctl reload edge-gateway               or SIGHUP: certificates first, then the configuration"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a configuration until told to stop (SIGTERM drains, SIGHUP reloads)
    Run(Box<Run>),
    /// Try it on this machine: ports 8080 and 8443, a certificate for localhost, an echo backend
    Dev(Dev),
    /// Say what is wrong with a configuration; exit code 1 if anything is
    Check(Check),
    /// Run the echo backend alone: it answers with the request that it received
    Echo(Echo),
}

/// Where the configuration and the certificates are.
#[derive(Args, Debug)]
struct Paths {
    /// The EnvoyGateway document; its provider.custom.resource.file.paths name the directories
    #[arg(
        long,
        value_name = "FILE",
        env = "EDGE_GATEWAY_CONFIG",
        default_value = "/etc/edge-gateway/edge-gateway.yaml"
    )]
    config: PathBuf,
    /// Stands before the absolute paths of that document
    #[arg(long, value_name = "DIR")]
    config_root: Option<PathBuf>,
    /// certbot's directory, the one with `live` in it
    #[arg(long, value_name = "DIR", default_value = "/etc/letsencrypt")]
    letsencrypt_dir: PathBuf,
}

impl Paths {
    fn sources(&self) -> Sources {
        Sources::Document { file: self.config.clone(), root: self.config_root.clone() }
    }
}

#[derive(Args, Debug)]
struct Run {
    #[command(flatten)]
    paths: Paths,
    /// certbot's --webroot-path: HTTP-01 challenges are answered from it ahead of every route
    #[arg(long, value_name = "DIR", default_value = "/var/lib/edge-gateway/acme")]
    acme_webroot: PathBuf,
    #[command(flatten)]
    serve: Serve,
}

/// How to serve, whatever is served.
#[derive(Args, Debug)]
struct Serve {
    /// Peers whose X-Forwarded-* and X-Request-Id headers count, as address ranges
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',')]
    trusted_proxies: Vec<Cidr>,
    /// An address for a backend's name in place of looking it up; may repeat
    #[arg(long, value_name = "NAME=IP", value_parser = name_and_address)]
    resolve: Vec<(String, IpAddr)>,
    /// How long SIGTERM waits for what is under way
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time, allow_hyphen_values = true)]
    drain_timeout: Duration,
    /// Do not reload when a file changes; SIGHUP alone does
    #[arg(long)]
    no_watch: bool,
    /// auto, journald, json or text; auto is journald under systemd, text on a terminal, else json
    #[arg(long, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,
    /// error, warn, info, debug or trace [default: the document's logging.level.default, or info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<Level>,
    /// Threads that serve [default: one a processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    #[command(flatten)]
    limits: LimitArgs,
}

/// What a client may take.
#[derive(Args, Debug)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Connections open at once; beyond it the longest idle one is closed
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    max_connections: usize,
    /// For a request head, from its first byte to its last
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time, allow_hyphen_values = true)]
    head_timeout: Duration,
    /// For a TLS handshake
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time, allow_hyphen_values = true)]
    tls_handshake_timeout: Duration,
    /// For a connection without a request
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time, allow_hyphen_values = true)]
    idle_timeout: Duration,
    /// For the next byte of a request body that is awaited
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time, allow_hyphen_values = true)]
    body_timeout: Duration,
    /// For a client to take the next byte of a response
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time, allow_hyphen_values = true)]
    send_timeout: Duration,
    /// For a backend's response head, where the route sets no timeout; 0s waits for ever
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time, allow_hyphen_values = true)]
    response_timeout: Duration,
    /// For a WebSocket on which nothing moves
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time, allow_hyphen_values = true)]
    tunnel_idle_timeout: Duration,
    /// Bytes of a request head (431 beyond)
    #[arg(long, value_name = "SIZE", default_value = "32KiB", value_parser = size, allow_hyphen_values = true)]
    max_head_bytes: usize,
    /// Header fields of a request (431 beyond)
    #[arg(long, value_name = "N", default_value_t = 100)]
    max_head_fields: usize,
    /// Bytes of a request target (414 beyond)
    #[arg(long, value_name = "SIZE", default_value = "8KiB", value_parser = size, allow_hyphen_values = true)]
    max_target_bytes: usize,
    /// Streams open at once on an HTTP/2 connection
    #[arg(long, value_name = "N", default_value_t = 100)]
    h2_max_streams: u32,
    /// Upgrade tokens that reach a backend
    #[arg(long, value_name = "TOKEN,...", value_delimiter = ',', default_value = "websocket")]
    upgrade: Vec<String>,
}

impl LimitArgs {
    fn limits(&self) -> Limits {
        Limits {
            connections: self.max_connections,
            head_timeout: self.head_timeout,
            handshake_timeout: self.tls_handshake_timeout,
            idle_timeout: self.idle_timeout,
            body_timeout: self.body_timeout,
            send_timeout: self.send_timeout,
            response_timeout: Some(self.response_timeout).filter(|limit| !limit.is_zero()),
            tunnel_timeout: self.tunnel_idle_timeout,
            head_bytes: self.max_head_bytes,
            head_fields: self.max_head_fields,
            target_bytes: self.max_target_bytes,
            http2_streams: self.h2_max_streams,
            upgrades: self.upgrade.clone(),
        }
    }
}

impl Serve {
    fn options(self, sources: Sources, letsencrypt_dir: PathBuf, acme_webroot: PathBuf) -> Options {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Options {
            sources,
            letsencrypt_dir,
            acme_webroot,
            limits: self.limits.limits(),
            trusted_proxies: self.trusted_proxies,
            resolve: grouped(self.resolve),
            drain_timeout: self.drain_timeout,
            watch: !self.no_watch,
            log_format: self.log_format,
            log_level: self.log_level,
            workers: self.workers.map_or(processors, usize::from),
            variables: Vec::new(),
        }
    }
}

impl Run {
    fn run(self, handed: Handed) -> Result<(), Failed> {
        let sources = self.paths.sources();
        let options = self.serve.options(sources, self.paths.letsencrypt_dir, self.acme_webroot);
        app::run(options, handed, async {})
    }
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway dev                 an example configuration, which it prints the place of
  edge-gateway dev ./gateway       the YAML files of that directory and those below it")]
struct Dev {
    /// Serve the YAML files of this directory in place of the example
    dir: Option<PathBuf>,
    #[command(flatten)]
    serve: Serve,
}

impl Dev {
    fn run(self, handed: Handed) -> Result<(), Failed> {
        let state = state_directory();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(address)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|source| Failed::Listen { address, source })?;
        let address = listener.local_addr().map_err(|source| Failed::Listen { address, source })?;
        let prepared = dev::prepare(&state, self.dir.as_deref(), address)?;
        let welcome = welcome(&prepared, address);
        let mut options = self.serve.options(
            Sources::Directories(prepared.directories),
            prepared.letsencrypt_dir,
            prepared.acme_webroot,
        );
        options.variables.push(("DOMAIN", "localhost".into()));
        app::run(options, handed, async {
            let _ = io::stdout().write_all(welcome.as_bytes());
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    if let Err(error) = echo::serve(listener).await {
                        tracing::error!("the echo backend ended: {error}");
                    }
                }
                Err(error) => tracing::error!("the echo backend cannot listen: {error}"),
            }
        })
    }
}

/// What a newcomer reads first.
fn welcome(prepared: &dev::Prepared, echo: SocketAddr) -> String {
    match &prepared.example {
        Some(example) => format!(
            "\nOpen http://localhost:8080/ or https://localhost:8443/ (the certificate is self-signed).\n\
             Try  curl http://localhost:8080/hello/world\n     \
             curl -k https://localhost:8443/anything?status=418\n     \
             curl -i http://localhost:8080/secure\n\
             Change the YAML in {} and save: it is live at once.\n\
             Ctrl-C ends it.\n\n",
            example.display()
        ),
        None => format!(
            "\nServing {} on the ports of its Gateway, with a self-signed certificate for localhost.\n\
             An echo backend listens on {echo}. Change the YAML and save: it is live at once.\n\
             Ctrl-C ends it.\n\n",
            prepared.directories.first().map_or_else(String::new, |own| own.display().to_string()),
        ),
    }
}

/// The state directory of the XDG base directory specification.
fn state_directory() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(std::env::temp_dir)
        .join("edge-gateway/dev")
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway check                         the installed configuration
  edge-gateway check --config standalone-prod.yaml --config-root ./host --status")]
struct Check {
    #[command(flatten)]
    paths: Paths,
    /// Print the conditions of every object, as `kubectl get -o yaml` shows them
    #[arg(long)]
    status: bool,
    /// Print what would be served: listeners, hosts and matches in order of precedence
    #[arg(long)]
    table: bool,
}

impl Check {
    fn run(self) -> Result<ExitCode, Failed> {
        let sources = self.paths.sources();
        let mut loader = app::loader(sources, self.paths.letsencrypt_dir, Vec::new(), Vec::new())?;
        let load = loader.load(&Snapshot::default());
        let mut out = String::new();
        let count = |severity| {
            load.diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count()
        };
        for diagnostic in &load.diagnostics {
            out.push_str(&format!("{diagnostic}\n"));
        }
        if let Some(compiled) = &load.compiled {
            if self.status {
                out.push_str(&compiled.statuses.to_string());
            }
            if self.table {
                out.push_str(&compile::describe(&compiled.snapshot));
            }
        }
        let (faults, warnings) = (count(Severity::Error), count(Severity::Warning));
        out.push_str(&format!(
            "{} in {}: {}, {}\n",
            counted(load.objects, "object"),
            counted(load.files, "file"),
            counted(faults, "fault"),
            counted(warnings, "warning"),
        ));
        let _ = io::stdout().write_all(out.as_bytes());
        Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway echo --listen 127.0.0.1:3000
  curl '127.0.0.1:3000/path?status=418'      also ?delay=1s and ?size=1000")]
struct Echo {
    /// Address and port; HTTP/1.1, h2c, WebSocket and gRPC are answered on it
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
}

impl Echo {
    fn run(self) -> Result<(), Failed> {
        let address = self.listen;
        let system = |source| Failed::System { what: "event queue", source };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(system)?;
        runtime.block_on(async {
            let failed = |source| Failed::Listen { address, source };
            let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
            echo::serve(listener).await.map_err(failed)
        })
    }
}

/// `1 warning`, `2 warnings`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn grouped(pairs: Vec<(String, IpAddr)>) -> Vec<(String, Vec<IpAddr>)> {
    let mut grouped: Vec<(String, Vec<IpAddr>)> = Vec::new();
    for (name, address) in pairs {
        match grouped.iter_mut().find(|(own, _)| *own == name) {
            Some((_, addresses)) => addresses.push(address),
            None => grouped.push((name, vec![address])),
        }
    }
    grouped
}

fn name_and_address(text: &str) -> Result<(String, IpAddr), String> {
    let pair = text.split_once('=').and_then(|(name, address)| {
        Some((name.to_owned(), address.parse().ok()?)).filter(|(name, _)| !name.is_empty())
    });
    pair.ok_or_else(|| "write it like `keycloak.local=127.0.0.1`".into())
}

/// A time as the Gateway API writes it (GEP-2257).
fn time(text: &str) -> Result<Duration, String> {
    let parsed: Result<crate::api::Duration, _> = text.parse();
    parsed
        .map(crate::api::Duration::get)
        .map_err(|_| "write it like `500ms`, `30s` or `1h30m`".into())
}

fn size(text: &str) -> Result<usize, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "B"),
    };
    let factor = match unit {
        "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        _ => None,
    };
    let number: Option<usize> = number.parse().ok();
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| "write it like `8192`, `32KiB` or `1MiB`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn sizes_and_times_are_read_with_their_units() {
        // (text, bytes)
        let sizes = [("8192", Ok(8192)), ("32KiB", Ok(32 << 10)), ("1MiB", Ok(1 << 20))];
        for (text, want) in sizes {
            assert_eq!(size(text), want, "{text}");
        }
        for wrong in ["", "KiB", "8 KiB", "1GB", "-1", "99999999999999999999MiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(time("1m30s"), Ok(Duration::from_secs(90)));
        assert!(time("90").is_err());
    }

    #[test]
    fn the_flags_default_to_the_documented_limits() {
        let cli = Cli::parse_from(["edge-gateway", "run"]);
        let Command::Run(run) = cli.command else { panic!("`run` was asked for") };
        let (got, want) = (run.serve.limits.limits(), Limits::default());
        assert_eq!(format!("{got:?}"), format!("{want:?}"));
    }
}
