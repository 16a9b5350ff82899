//! Both ends of a flow of datagrams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::soon;

/// A backend that answers every datagram with its name and what it heard; `later` late, and `say
/// nothing` not at all.
#[derive(Debug)]
pub(crate) struct UdpEcho {
    pub address: SocketAddr,
    heard: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl UdpEcho {
    pub(crate) async fn start(name: &'static str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let heard = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&heard);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut read = vec![0; 65536];
            loop {
                let (length, from) = socket.recv_from(&mut read).await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let said = &read[..length];
                if said == b"say nothing" {
                    continue;
                }
                let answer = [name.as_bytes(), b": ", said].concat();
                if said == b"later" {
                    tokio::time::sleep(Duration::from_millis(1500)).await;
                }
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        Self { address, heard, _task: task }
    }

    /// Datagrams so far.
    pub(crate) fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }
}

/// A client with an address of its own, and so a flow.
#[derive(Debug)]
pub(crate) struct Asker(UdpSocket);

impl Asker {
    pub(crate) async fn of(gateway: SocketAddr) -> Self {
        let any = if gateway.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let socket = UdpSocket::bind(any).await.unwrap();
        socket.connect(gateway).await.unwrap();
        Self(socket)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub(crate) async fn send(&self, text: &str) {
        self.0.send(text.as_bytes()).await.unwrap();
    }

    /// What comes next.
    pub(crate) async fn hear(&self) -> String {
        let mut read = vec![0; 65536];
        let length = soon("a datagram", self.0.recv(&mut read)).await.unwrap();
        String::from_utf8(read[..length].to_vec()).unwrap()
    }

    pub(crate) async fn ask(&self, text: &str) -> String {
        self.send(text).await;
        self.hear().await
    }

    /// True if nothing comes for a while.
    pub(crate) async fn hears_nothing(&self) -> bool {
        let mut read = [0; 64];
        tokio::time::timeout(Duration::from_millis(300), self.0.recv(&mut read)).await.is_err()
    }
}
