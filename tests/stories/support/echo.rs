//! The product's own echo backend, as a program beside the gateway.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::{Process, own_loopback, soon};

#[derive(Debug)]
pub(crate) struct Echo {
    pub address: SocketAddr,
    _process: Process,
}

impl Echo {
    /// Starts it on a loopback address of its own, where no other test takes the port meanwhile.
    pub(crate) async fn start() -> Self {
        let free = TcpListener::bind((own_loopback(), 0)).await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        Self::at(address).await
    }

    pub(crate) async fn at(address: SocketAddr) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-gateway"));
        command.args(["echo", "--listen", &address.to_string()]);
        let process = Process::spawn(command);
        soon("the echo listens", async {
            while TcpStream::connect(address).await.is_err() {
                // The echo tells nobody but its log that it listens.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert!(!process.has_ended(), "another program has {address}: {}", process.stderr());
        Self { address, _process: process }
    }
}
