//! Where the configuration and the certificates are.

use std::path::PathBuf;

use clap::Args;

use crate::control::Sources;

/// Where the configuration and the certificates are.
#[derive(Args, Debug)]
pub(super) struct Paths {
    /// The EnvoyGateway document; its provider.custom.resource.file.paths name the directories
    #[arg(
        long,
        value_name = "FILE",
        env = "EDGE_GATEWAY_CONFIG",
        default_value = "/etc/edge-gateway/edge-gateway.yaml"
    )]
    pub config: PathBuf,
    /// Stands before the absolute paths of that document
    #[arg(long, value_name = "DIR")]
    pub config_root: Option<PathBuf>,
    /// certbot's directory, the one with `live` in it
    #[arg(long, value_name = "DIR", default_value = "/etc/letsencrypt")]
    pub letsencrypt_dir: PathBuf,
}

impl Paths {
    pub(super) fn sources(&self) -> Sources {
        Sources::Document { file: self.config.clone(), root: self.config_root.clone() }
    }
}

/// Where the gateway that runs can be asked.
#[derive(Args, Debug)]
pub(super) struct Socket {
    /// Where `reload`, `certs` and `doctor` reach the gateway that runs
    #[arg(long, value_name = "PATH", default_value = "/run/edge-gateway/control.sock")]
    pub control_socket: PathBuf,
}
