//! The product's own echo backend, as a program beside the gateway.

use std::net::SocketAddr;
use std::process::Command;

use tokio::net::TcpStream;

use super::{Process, own_loopback, soon};

#[derive(Debug)]
pub(crate) struct Echo {
    pub address: SocketAddr,
    _process: Process,
}

impl Echo {
    /// Starts it on a loopback address of its own.
    pub(crate) async fn start() -> Self {
        Self::at(SocketAddr::from((own_loopback(), 8080))).await
    }

    pub(crate) async fn at(address: SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-gateway"));
        command.args(["echo", "--listen", &address.to_string()]);
        let process = Process::spawn(command);
        soon("the echo listens", async {
            while TcpStream::connect(address).await.is_err() {
                assert!(!process.has_ended(), "the echo ended: {}", process.stderr());
                // The echo tells nobody but its log that it listens.
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
        Self { address, _process: process }
    }
}
