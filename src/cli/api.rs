//! Flags of the Kubernetes API of the running gateway.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::kube_api::{ApiRules, Listen};

/// The default file names of the token and the certificate, beside the control socket.
const TOKEN: &str = "api-token";
const CA: &str = "api-ca.pem";

#[derive(Args, Debug)]
#[command(next_help_heading = "API")]
pub(super) struct Api {
    /// Serve the Kubernetes API on this loopback address, too, for kubectl (`edge-gateway
    /// kubeconfig`)
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = loopback)]
    api_listen: Option<SocketAddr>,
    /// File of the token that clients of that address send; created if it is missing
    /// [default: api-token beside the control socket]
    #[arg(long, value_name = "FILE")]
    api_token_file: Option<PathBuf>,
    /// Allow writes over the Kubernetes API: to root and the gateway's user on the control socket,
    /// to holders of the token on the address
    #[arg(long)]
    api_writable: bool,
    /// Show the values of Secrets over the Kubernetes API to clients that may write
    #[arg(long)]
    api_secrets: bool,
}

impl Api {
    pub(super) fn rules(&self) -> ApiRules {
        ApiRules { writable: self.api_writable, secrets: self.api_secrets }
    }

    pub(super) fn listen(&self, control_socket: &Path) -> Option<Listen> {
        let address = self.api_listen?;
        let token_file = self.api_token_file.clone().unwrap_or_else(|| token_file(control_socket));
        Some(Listen { address, token_file, ca_file: ca_file(control_socket) })
    }
}

/// Returns the default path of the token for the gateway with this control socket.
pub(super) fn token_file(control_socket: &Path) -> PathBuf {
    control_socket.with_file_name(TOKEN)
}

/// Returns the default path of the certificate.
pub(super) fn ca_file(control_socket: &Path) -> PathBuf {
    control_socket.with_file_name(CA)
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "write it like 127.0.0.1:6443".to_owned())?;
    if !address.ip().is_loopback() {
        return Err("only a loopback address; reach it from elsewhere through `ssh -L`".into());
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_loopback_address_is_taken() {
        let table = [
            ("127.0.0.1:6443", true),
            ("[::1]:6443", true),
            ("0.0.0.0:6443", false),
            ("192.0.2.1:6443", false),
            ("localhost:6443", false),
            ("127.0.0.1", false),
        ];
        for (text, want) in table {
            assert_eq!(loopback(text).is_ok(), want, "{text}");
        }
    }
}
