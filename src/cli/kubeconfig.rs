//! `edge-gateway kubeconfig`: a kubeconfig for the running gateway.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::app::Failed;
use crate::control::socket::{ApiAt, StatusReport, call};
use crate::yaml::Yaml;

use super::output::{fail, print};
use super::paths::Socket;

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway kubeconfig > ~/.kube/edge-gateway
  kubectl --kubeconfig ~/.kube/edge-gateway get gateways,httproutes -A")]
pub(super) struct Kubeconfig {
    #[command(flatten)]
    socket: Socket,
}

impl Kubeconfig {
    pub(super) fn run(self) -> Result<ExitCode, Failed> {
        let status: StatusReport = call(&self.socket.control_socket, "GET", "/status", PATIENCE)?;
        let Some(api) = status.api else {
            return Ok(fail("the gateway serves no address for kubectl; run it with --api-listen"));
        };
        print(&Yaml(&kubeconfig(&api)).to_string())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Returns a kubeconfig that refers to the files of token and certificate, so it stays valid when
/// their contents change.
fn kubeconfig(api: &ApiAt) -> Value {
    const NAME: &str = "edge-gateway";
    let file = |path: &Path| path.display().to_string();
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": NAME,
            "cluster": {
                "server": format!("https://{}", api.address),
                "certificate-authority": file(&api.ca_file),
            },
        }],
        "users": [{ "name": NAME, "user": { "tokenFile": file(&api.token_file) } }],
        "contexts": [{ "name": NAME, "context": { "cluster": NAME, "user": NAME } }],
        "current-context": NAME,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_names_the_address_and_the_files() {
        let api = ApiAt {
            address: "[::1]:6443".parse().unwrap(),
            token_file: "/run/edge-gateway/api-token".into(),
            ca_file: "/run/edge-gateway/api-ca.pem".into(),
        };
        let text = Yaml(&kubeconfig(&api)).to_string();
        for part in [
            "server: https://[::1]:6443\n",
            "certificate-authority: \"/run/edge-gateway/api-ca.pem\"\n",
            "tokenFile: \"/run/edge-gateway/api-token\"\n",
            "current-context: edge-gateway\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
