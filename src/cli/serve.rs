//! The flags that `run` and `dev` share.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tracing::Level;

use crate::app::{Options, Wishes};
use crate::control::{ConfigSources, ReloadPolicy};
use crate::downstream::ProcessLimits;
use crate::kube_api::ApiRules;
use crate::net::{AddressPool, Cidr};
use crate::observe::{AccessFormat, LogChoice, LogFormat, Sample, StatusRanges};
use crate::snapshot::ClientLimits;
use crate::upstream::Bounds;

use super::values::{grouped, name_and_address, size, time};

/// Flags of `run` and `dev`.
#[derive(Args, Debug)]
pub(super) struct Serve {
    /// Peers whose X-Forwarded-* and X-Request-Id headers are trusted, as address ranges
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',')]
    trusted_proxies: Vec<Cidr>,
    /// Address to use for a backend's name instead of a lookup; may repeat
    #[arg(long, value_name = "NAME=IP", value_parser = name_and_address)]
    resolve: Vec<(String, IpAddr)>,
    /// Pool from which each Gateway without `spec.addresses` gets an address of its own
    /// [default: such a Gateway listens on every address of the host]
    #[arg(long, value_name = "CIDR")]
    address_pool: Option<AddressPool>,
    /// Time that open requests and connections have to finish after SIGTERM
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time, allow_hyphen_values = true)]
    drain_timeout: Duration,
    /// strict or partial. strict refuses a whole reload that brings a new fault; partial takes the
    /// faulty object out of service and serves the rest. Both refuse a reload that would close a
    /// listener
    #[arg(long, value_name = "POLICY", default_value_t)]
    reload_policy: ReloadPolicy,
    /// Do not reload when a file changes, only on request, such as SIGHUP
    #[arg(long)]
    no_watch: bool,
    /// auto, journald, json or text; auto is journald under systemd, text on a terminal, else json
    #[arg(long, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,
    /// auto, the same as the other log, or envoy-json: Envoy Gateway's default, on standard output
    #[arg(long, value_name = "FORMAT", default_value_t)]
    access_log_format: AccessFormat,
    /// Log only requests that were answered with these statuses, such as 400-599 or 404,5xx
    #[arg(long, value_name = "STATUS,...")]
    access_log_status: Option<StatusRanges>,
    /// Log this share of requests, such as 1/10, and every failed one
    #[arg(long, value_name = "N/M")]
    access_log_sample: Option<Sample>,
    /// error, warn, info, debug or trace [default: the document's logging.level.default, or info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<Level>,
    /// Worker threads [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    #[command(flatten)]
    limits: LimitArgs,
}

/// Limits on clients.
#[derive(Args, Debug)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Connections open at once; beyond it, the connection idle for longest is closed [default:
    /// 20000, or fewer as memory and files allow]
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,
    /// Connections open at once from one address, or one /64 of IPv6; trusted proxies are exempt
    /// [default: a quarter of all, 64 at least]
    #[arg(long, value_name = "N")]
    max_connections_per_peer: Option<usize>,
    /// Connections to backends that requests from one address or /64 use (503 beyond); behind
    /// trusted proxies, from each client that they name [default: a quarter of those to all
    /// backends]
    #[arg(long, value_name = "N")]
    max_backend_connections_per_peer: Option<usize>,
    /// Connections open at once to one backend; further requests wait [default: 1024, or fewer as
    /// files allow]
    #[arg(long, value_name = "N")]
    max_connections_per_backend: Option<usize>,
    /// Requests that may wait for a connection to one backend (503 beyond)
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_pending_per_backend: usize,
    /// Memory limit [default: that of the cgroup, else of the host]
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    memory_limit: Option<usize>,
    /// Timeout of a request head, from its first byte to its last
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time, allow_hyphen_values = true)]
    head_timeout: Duration,
    /// Timeout of a TLS handshake
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time, allow_hyphen_values = true)]
    tls_handshake_timeout: Duration,
    /// Timeout of a connection without a request
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time, allow_hyphen_values = true)]
    idle_timeout: Duration,
    /// Timeout of the next byte of a request body, while no response is sent
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time, allow_hyphen_values = true)]
    body_timeout: Duration,
    /// Timeout of a client that does not read its response, separately for each HTTP/2 stream
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time, allow_hyphen_values = true)]
    send_timeout: Duration,
    /// Timeout of a backend's response head, from the last byte that moved, where the route sets no
    /// timeout; 0s: no limit
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time, allow_hyphen_values = true)]
    response_timeout: Duration,
    /// Timeout of an idle WebSocket, tunnel or gRPC call
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time, allow_hyphen_values = true)]
    tunnel_idle_timeout: Duration,
    /// UDP flows open at once, shared equally by the UDP listeners [default: 4096, or a sixteenth
    /// of the files that may be open]
    #[arg(long, value_name = "N", default_value_t = 4096, hide_default_value = true)]
    max_udp_flows: usize,
    /// Timeout of an idle UDP flow
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time, allow_hyphen_values = true)]
    udp_idle_timeout: Duration,
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
    fn process_limits(&self) -> ProcessLimits {
        ProcessLimits {
            udp_flows: self.max_udp_flows,
            backend: Bounds { pending: self.max_pending_per_backend, ..Bounds::default() },
            // The remaining limits are derived from the host; see `app/host_limits.rs`.
            ..ProcessLimits::default()
        }
    }

    fn client_limits(&self) -> ClientLimits {
        ClientLimits {
            head_timeout: self.head_timeout,
            handshake_timeout: self.tls_handshake_timeout,
            connection_age: None,
            connection_requests: None,
            idle_timeout: self.idle_timeout,
            body_timeout: self.body_timeout,
            send_timeout: self.send_timeout,
            response_timeout: Some(self.response_timeout).filter(|limit| !limit.is_zero()),
            tunnel_timeout: self.tunnel_idle_timeout,
            udp_idle_timeout: self.udp_idle_timeout,
            head_bytes: self.max_head_bytes,
            head_fields: self.max_head_fields,
            target_bytes: self.max_target_bytes,
            http2_streams: self.h2_max_streams,
            upgrades: self.upgrade.clone(),
            // The remaining limits are derived from the host; see `app/host_limits.rs`.
            ..ClientLimits::default()
        }
    }
}

impl Serve {
    pub(super) fn options(
        self,
        sources: ConfigSources,
        letsencrypt_dir: PathBuf,
        acme_webroot: PathBuf,
    ) -> Options {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Options {
            sources,
            letsencrypt_dir,
            acme_webroot,
            limits: self.limits.process_limits(),
            client_limits: self.limits.client_limits(),
            shows_routes: false,
            wishes: Wishes {
                connections: self.limits.max_connections,
                connections_a_peer: self.limits.max_connections_per_peer,
                upstream_a_peer: self.limits.max_backend_connections_per_peer,
                connections_a_backend: self.limits.max_connections_per_backend,
                memory: self.limits.memory_limit.and_then(|bytes| u64::try_from(bytes).ok()),
            },
            trusted_proxies: self.trusted_proxies,
            resolve: grouped(self.resolve),
            address_pool: self.address_pool,
            drain_timeout: self.drain_timeout,
            control_socket: None,
            state_dir: None,
            policy: self.reload_policy,
            metrics: None,
            admin: None,
            api: ApiRules::default(),
            api_listen: None,
            api_dir: None,
            watch: !self.no_watch,
            log_format: self.log_format,
            access_log_format: self.access_log_format,
            access_log_choice: LogChoice {
                statuses: self.access_log_status,
                sample: self.access_log_sample,
            },
            log_level: self.log_level,
            workers: self.workers.map_or(processors, usize::from),
            variables: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        serve: Serve,
    }

    #[test]
    fn the_flags_default_to_the_documented_limits() {
        let flags = Flags::parse_from(["run"]);
        let (got, want) = (flags.serve.limits.process_limits(), ProcessLimits::default());
        assert_eq!(format!("{got:?}"), format!("{want:?}"));
        assert_eq!(flags.serve.limits.client_limits(), ClientLimits::default());
    }
}
