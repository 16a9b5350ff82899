//! Heap allocations for one request and the memory of an idle connection, counted in a gateway that
//! runs in a process of its own.
//!
//! This binary is both: started with `run`, it is the gateway with an allocator that counts, and tells
//! the counts on a UNIX socket. Otherwise it starts itself so, sends requests one after the other, and
//! compares the steady figures with [`REQUESTS`] and [`CONNECTIONS`]. A figure that falls is a
//! failure as well: lower the number in the commit that lowers the figure.

#![allow(clippy::unwrap_used, reason = "a test that cannot run must stop")]
#![allow(clippy::print_stdout, reason = "the figures are its result")]
#![allow(clippy::disallowed_methods, reason = "the test runs outside the gateway and its clock")]

mod client;
mod gateway;
mod http2;

use std::alloc::System;
use std::env;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use client::{Client, Http1, Http1Once, Kind, in_clear, over_tls};
use gateway::Gateway;
use http2::Http2;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations and reallocations for one request, in a debug build.
const REQUESTS: [(&str, Protocol, Kind, f64); 8] = [
    ("HTTP/1.1, forwarded", Protocol::Http1, Kind::Forwarded, 4.1),
    ("HTTP/1.1, redirected", Protocol::Http1, Kind::Redirected, 5.1),
    ("HTTP/1.1, no route", Protocol::Http1, Kind::Unknown, 6.1),
    ("HTTP/1.1, ambiguous path, with its connection", Protocol::Http1Once, Kind::Ambiguous, 29.1),
    ("HTTP/2, forwarded", Protocol::Http2, Kind::Forwarded, 8.1),
    ("HTTP/2, redirected", Protocol::Http2, Kind::Redirected, 9.1),
    ("HTTP/2, no route", Protocol::Http2, Kind::Unknown, 12.1),
    ("HTTP/2, ambiguous path", Protocol::Http2, Kind::Ambiguous, 12.1),
];
/// Timers and threads beside the request path allocate, too: this much of an allocation for a request.
const ALLOWANCE: f64 = 0.2;

/// Bytes that an idle connection over TLS holds before and after its first request, in a debug build.
/// What aws-lc allocates for the keys, about 1,200 bytes, does not go through Rust's allocator.
const CONNECTIONS: [(&str, Protocol, u64, u64); 2] =
    [("HTTP/1.1", Protocol::Http1, 8_103, 8_199), ("HTTP/2", Protocol::Http2, 39_450, 43_742)];
/// Tables of connections grow in steps: so many bytes of them for a connection.
const ROOM: u64 = 64;

#[derive(Clone, Copy)]
enum Protocol {
    Http1,
    /// A connection for each request.
    Http1Once,
    Http2,
}

/// Buffers, pools and tables have their size after so many requests.
const WARM_UP: u32 = 500;
const COUNTED: u32 = 1000;
/// The lowest figure of so many rounds counts.
const ROUNDS: u32 = 5;
/// Connections that are opened to see what one of them holds.
const IDLE: usize = 64;
/// Buffers of a connection that rests for so long are given back.
const REST: Duration = Duration::from_secs(3);
/// No request and no start takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The path of the UNIX socket where the counts are asked for.
const COUNTS: &str = "ALLOCATIONS_SOCKET";
/// The name of the certificate.
const HOST: &str = "shop.test";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "run") {
        tell_counts(Path::new(&env::var_os(COUNTS).unwrap()));
        return edge_gateway::cli::main();
    }
    let is_meant = |filter: &String| "allocations_for_a_request".contains(filter.as_str());
    if arguments.iter().any(|argument| argument == "--list")
        || arguments.iter().any(|argument| !argument.starts_with('-') && !is_meant(argument))
    {
        return ExitCode::SUCCESS;
    }
    let gateway = Gateway::start();
    let mut differ = false;
    for (what, protocol, kind, expected) in REQUESTS {
        let figure = for_a_request(&gateway, protocol, kind);
        let is_off = (figure - expected).abs() > ALLOWANCE;
        let verdict = if is_off { "differs" } else { "ok" };
        println!("{what}: expected {expected} allocations, found {figure:.2}: {verdict}");
        differ |= is_off;
    }
    for (what, protocol, before, after) in CONNECTIONS {
        let found = of_a_connection(&gateway, protocol);
        let ends = ["before", "after"].into_iter().zip([before, after]).zip([found.0, found.1]);
        for ((end, expected), found) in ends {
            let is_off = found.abs_diff(expected) > ROOM;
            let verdict = if is_off { "differs" } else { "ok" };
            println!(
                "{what}, idle {end} a request: expected {expected} bytes, found {found}: {verdict}"
            );
            differ |= is_off;
        }
    }
    if differ { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Answers each byte on the socket with two numbers: the allocations of this process so far, and the
/// bytes that are allocated now.
fn tell_counts(at: &Path) {
    let listener = UnixListener::bind(at).unwrap();
    thread::spawn(move || {
        let (mut asker, _) = listener.accept().unwrap();
        while asker.read_exact(&mut [0]).is_ok() {
            let stats = ALLOCATOR.stats();
            let count = stats.allocations as u64 + stats.reallocations as u64;
            let live = stats.bytes_allocated as u64 - stats.bytes_deallocated as u64;
            asker.write_all(&[count.to_ne_bytes(), live.to_ne_bytes()].concat()).unwrap();
        }
    });
}

/// Allocations for one request, in clear.
fn for_a_request(gateway: &Gateway, protocol: Protocol, kind: Kind) -> f64 {
    let mut client: Box<dyn Client> = match protocol {
        Protocol::Http1 => Box::new(Http1::new(in_clear(gateway.in_clear))),
        Protocol::Http1Once => Box::new(Http1Once(gateway.in_clear)),
        Protocol::Http2 => Box::new(Http2::new(in_clear(gateway.in_clear))),
    };
    for _ in 0..WARM_UP {
        client.exchange(kind);
    }
    let round = |_| {
        let before = gateway.counts().allocations;
        for _ in 0..COUNTED {
            client.exchange(kind);
        }
        gateway.counts().allocations - before
    };
    let lowest = (0..ROUNDS).map(round).min().unwrap();
    f64::from(u32::try_from(lowest).unwrap()) / f64::from(COUNTED)
}

/// Bytes that an idle connection holds, before and after its first request.
///
/// The request is one that no backend sees, since the pool keeps a connection to a backend for a while.
fn of_a_connection(gateway: &Gateway, protocol: Protocol) -> (u64, u64) {
    let open = || -> Box<dyn Client> {
        match protocol {
            Protocol::Http1 | Protocol::Http1Once => {
                Box::new(Http1::new(over_tls(gateway, "http/1.1")))
            }
            Protocol::Http2 => Box::new(Http2::new(over_tls(gateway, "h2"))),
        }
    };
    // What the first connections allocate for all that follow.
    for _ in 0..IDLE {
        open().exchange(Kind::Redirected);
    }
    let rested = || {
        thread::sleep(REST);
        gateway.counts().live
    };
    let empty = rested();
    let mut opened: Vec<_> = (0..IDLE).map(|_| open()).collect();
    let before = rested();
    for client in &mut opened {
        client.exchange(Kind::Redirected);
    }
    let after = rested();
    let each = |live: u64| live.saturating_sub(empty) / IDLE as u64;
    (each(before), each(after))
}
