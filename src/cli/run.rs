//! `edge-gateway run`: the gateway itself.

use std::path::PathBuf;

use clap::Args;

use crate::app::{self, Failed};
use crate::systemd::Handed;

use super::api::Api;
use super::paths::{ACME_WEBROOT, Paths, Socket};
use super::serve::Serve;
use super::values::{AddressOrNone, address_or_none, loopback_or_none};

#[derive(Args, Debug)]
pub(super) struct Run {
    #[command(flatten)]
    paths: Paths,
    /// certbot's --webroot-path: HTTP-01 challenges are answered from it before all routes
    #[arg(long, value_name = "DIR", default_value = ACME_WEBROOT)]
    acme_webroot: PathBuf,
    /// State directory: the last good configuration, served at a start at which the files do not
    /// load, have a new fault or lack a listener or route; and the addresses given from
    /// --address-pool
    #[arg(long, value_name = "DIR", env = "STATE_DIRECTORY")]
    state_dir: Option<PathBuf>,
    /// Address and port of the metrics (/stats/prometheus), or none
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:19001", value_parser = address_or_none, overrides_with = "metrics_listen")]
    metrics_listen: AddressOrNone,
    /// Loopback address and port of the dashboard and the admin API, or none
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:19000", value_parser = loopback_or_none, overrides_with = "admin_listen")]
    admin_listen: AddressOrNone,
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    api: Api,
    #[command(flatten)]
    serve: Serve,
}

impl Run {
    pub(super) fn run(self, handed: Handed) -> Result<(), Failed> {
        let sources = self.paths.sources();
        let mut options =
            self.serve.options(sources, self.paths.letsencrypt_dir, self.acme_webroot);
        options.api = self.api.rules();
        options.api_listen = self.api.listen(&self.socket.control_socket);
        options.api_dir = self.paths.api_dir;
        options.control_socket = Some(self.socket.control_socket);
        options.admin = self.admin_listen.0;
        options.metrics = self.metrics_listen.0;
        options.state_dir = self.state_dir.filter(|dir| !dir.as_os_str().is_empty());
        app::run(options, handed, async {})
    }
}
