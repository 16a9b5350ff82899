//! HAProxy, from Debian's package: the other end of PROXY headers.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::{Process, soon};
use crate::needs::{INSTALL, needs};

/// A running HAProxy. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Haproxy {
    _process: Process,
    _dir: TempDir,
}

impl Haproxy {
    /// Starts HAProxy with these frontends and backends, and waits until it accepts connections at
    /// `at`. `pem` is the file that `CERT` in the configuration stands for. `None` if HAProxy is
    /// missing.
    pub(crate) async fn start(config: &str, pem: &str, at: &[SocketAddr]) -> Option<Self> {
        let binary = Path::new("/usr/sbin/haproxy");
        let binary = needs("HAProxy", binary.exists().then_some(binary), INSTALL)?;
        let dir = TempDir::with_prefix("haproxy-").unwrap();
        let certificate = dir.path().join("both.pem");
        std::fs::write(&certificate, pem).unwrap();
        let file = dir.path().join("haproxy.cfg");
        let defaults = "global\n    nbthread 1\n    maxconn 100\ndefaults\n    mode http\n    \
                        timeout client 60s\n    timeout server 60s\n    timeout connect 5s\n";
        let config = config.replace("CERT", certificate.to_str().unwrap());
        std::fs::write(&file, format!("{defaults}{config}")).unwrap();
        let mut command = Command::new(binary);
        command.arg("-db").arg("-f").arg(&file);
        let process = Process::spawn(command);
        for address in at {
            soon("HAProxy listens", async {
                while TcpStream::connect(address).await.is_err() {
                    assert!(!process.has_ended(), "HAProxy ended");
                    // HAProxy does not say when it is ready.
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            })
            .await;
        }
        Some(Self { _process: process, _dir: dir })
    }
}
