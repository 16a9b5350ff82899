//! The actors of a story: the gateway, its backends, its clients, its certificate authority, and
//! the service manager that starts it.
//!
//! Nothing here knows how the gateway works inside; it is a program that is given files, sockets
//! and signals, and bytes.

mod collector;
mod echo;
mod frames;
mod gateway;
mod greeter;
mod haproxy;
mod hello;
mod hostile;
mod notify;
mod nowhere;
mod origin;
mod pki;
mod process;
mod records;
mod terminal;
mod tls_origin;
mod udp;
mod web;
mod wire;
mod yaml;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::RwLock;

pub(crate) use self::collector::{Collector, Span, Takes};
pub(crate) use self::echo::Echo;
pub(crate) use self::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, H2, HEADERS, Outcome, PADDED,
    PING, PRIORITY, PRIORITY_FLAG, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, literal,
    request_fields,
};
pub(crate) use self::gateway::{Gateway, NAMES, Setup};
pub(crate) use self::greeter::Greeter;
pub(crate) use self::haproxy::Haproxy;
pub(crate) use self::hello::{Hello, Record, record, server_name};
pub(crate) use self::hostile::{Faults, Target, replies};
pub(crate) use self::notify::Message;
pub(crate) use self::nowhere::{NOWHERE, nowhere, says_why};
pub(crate) use self::origin::{Answer, Backend, Origin, Seen, Step};
pub(crate) use self::pki::{Ca, Leaf, Lineage, ca};
pub(crate) use self::process::Process;
pub(crate) use self::records::Records;
pub(crate) use self::terminal::on_terminal;
pub(crate) use self::tls_origin::TlsOrigin;
pub(crate) use self::udp::{Asker, UdpEcho};
pub(crate) use self::web::{Fetched, Http2, SendBody, channel, empty, full};
pub(crate) use self::wire::{Head, Reply, Tls, Wire};
pub(crate) use self::yaml::{
    ENVOY_GATEWAY, GATEWAY, GATEWAY_CLASS, backend, forward_route, gateway_of, h2c_backend,
    http_route, rule_to, serve_all,
};

/// A port that is free on every address, for a gateway that binds it itself. It is none of those
/// that the kernel gives away, so nobody else takes it meanwhile.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + std::process::id() % 10_000;
    loop {
        let next = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(20_000 + (first + next) % 10_000).unwrap();
        if TcpListener::bind(("::", port)).is_ok() {
            return port;
        }
    }
}

/// How long a story waits for what must happen at once. Long, for a machine that is busy.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The output of `future`, which must not let itself be waited for.
///
/// # Panics
///
/// Says that `what` did not happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {SOON:?}"),
    }
}

/// Waits until `holds`, looking every few milliseconds: for what nobody tells us of.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    soon(what, async {
        while !holds() {
            // What is waited for is the state of another process or of the kernel.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A stopwatch that was started now.
pub(crate) fn clock() -> Instant {
    Instant::now()
}

/// A loopback address that no other test uses, for a backend whose port is given.
pub(crate) fn own_loopback() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let process = std::process::id().to_be_bytes();
    // 127.64.0.0/10 and up: away from 127.0.0.1 and its neighbours.
    Ipv4Addr::new(127, 64 | (process[2] & 0x3f), process[3], next[3].max(1))
}

/// A port on an address of this test's own, which is free now: for what a gateway binds itself.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind((own_loopback(), 0)).unwrap().local_addr().unwrap()
}

/// An address that nobody listens on: connecting to it is refused.
pub(crate) fn refusing_address() -> SocketAddr {
    // Ports below 1024 of a fresh loopback address; no test binds one.
    SocketAddr::from((own_loopback(), 9))
}

/// Whether this machine has IPv6; a container may be without.
pub(crate) fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// For who needs a port that is given: those that bind it on loopback addresses of their own share
/// it, and who binds it on every address has it alone.
pub(crate) static GIVEN_PORTS: RwLock<()> = RwLock::const_new(());

/// The test binary runs in the package; fixtures and caches lie below it.
pub(crate) fn in_package(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
