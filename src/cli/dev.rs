//! `edge-gateway dev`: a trial gateway.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use clap::Args;

use crate::app::{self, Failed, dev};
use crate::control::ConfigSources;
use crate::echo;
use crate::systemd::Handed;

use super::serve::Serve;
use super::values::{AddressOrNone, address_or_none, loopback_or_none};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway dev                 an example configuration, which it prints the place of
  edge-gateway dev ./gateway       the YAML files of that directory and those below it")]
pub(super) struct Dev {
    /// Serve the YAML files of this directory in place of the example
    dir: Option<PathBuf>,
    /// Path of the control socket, for `reload`, `certs` and others [default: none]
    #[arg(long, value_name = "PATH")]
    control_socket: Option<PathBuf>,
    /// Loopback address and port of the dashboard and the admin API, or none
    /// [default: 127.0.0.1:19000, or another port where that is taken]
    #[arg(long, value_name = "ADDRESS", value_parser = loopback_or_none)]
    admin_listen: Option<AddressOrNone>,
    /// Address and port of the metrics (/stats/prometheus), or none
    /// [default: 127.0.0.1:19001, or another port where that is taken]
    #[arg(long, value_name = "ADDRESS", value_parser = address_or_none)]
    metrics_listen: Option<AddressOrNone>,
    #[command(flatten)]
    serve: Serve,
}

impl Dev {
    pub(super) fn run(self, handed: Handed) -> Result<(), Failed> {
        let state = state_directory();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(address)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .map_err(|source| Failed::Listen { address, source })?;
        let address = listener.local_addr().map_err(|source| Failed::Listen { address, source })?;
        let prepared = dev::prepare(&state, self.dir.as_deref(), address)?;
        let admin = self.admin_listen.map_or_else(|| free(19000).map(Some), |given| Ok(given.0))?;
        let metrics =
            self.metrics_listen.map_or_else(|| free(19001).map(Some), |given| Ok(given.0))?;
        let welcome = welcome(&prepared, address, admin);
        let mut options = self.serve.options(
            ConfigSources::Directories(prepared.directories),
            prepared.letsencrypt_dir,
            prepared.acme_webroot,
        );
        options.control_socket = self.control_socket;
        (options.admin, options.metrics) = (admin, metrics);
        options.shows_routes = true;
        options.variables.push(("DOMAIN".into(), "localhost".into()));
        app::run(options, handed, async {
            let _ = io::stdout().write_all(welcome.as_bytes());
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    if let Err(error) = echo::serve(listener).await {
                        tracing::error!(%error, "the echo backend ended");
                    }
                }
                Err(error) => tracing::error!(%error, "the echo backend cannot listen"),
            }
        })
    }
}

/// Returns the first text that a new user reads.
fn welcome(prepared: &dev::Prepared, echo: SocketAddr, admin: Option<SocketAddr>) -> String {
    let dashboard = match admin {
        Some(address) => format!("The dashboard is at http://{address}/.\n"),
        None => String::new(),
    };
    match &prepared.example {
        Some(example) => format!(
            "\nOpen http://localhost:8080/ or https://localhost:8443/ (the certificate is self-signed).\n\
             Try  curl http://localhost:8080/hello/world\n     \
             curl -k https://localhost:8443/anything?status=418\n     \
             curl -i http://localhost:8080/secure\n\
             The echo shows a request as a service would receive it, with the route that it took.\n\
             {dashboard}\
             Change the YAML in {} and save: it is live at once.\n\
             Ctrl-C ends it.\n\n",
            example.display()
        ),
        None => format!(
            "\nServing {} on the ports of its Gateway, with a self-signed certificate for localhost.\n\
             An echo backend listens on {echo}; it shows a request as a service would receive it, \
             with the route that it took.\n\
             {dashboard}\
             Change the YAML and save: it is live at once.\n\
             Ctrl-C ends it.\n\n",
            prepared.directories.first().map_or_else(String::new, |own| own.display().to_string()),
        ),
    }
}

/// Returns the loopback address with this port, or with a free port if it is in use.
fn free(port: u16) -> Result<SocketAddr, Failed> {
    let usual = SocketAddr::from(([127, 0, 0, 1], port));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let bound = TcpListener::bind(usual).or_else(|_| TcpListener::bind(any));
    bound
        .and_then(|listener| listener.local_addr())
        .map_err(|source| Failed::Listen { address: usual, source })
}

/// The state directory of the XDG base directory specification.
fn state_directory() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(std::env::temp_dir)
        .join("edge-gateway/dev")
}
