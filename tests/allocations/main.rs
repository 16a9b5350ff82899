//! Heap allocations for one request, counted in a gateway that runs in a process of its own.
//!
//! This binary is both: started with `run`, it is the gateway with an allocator that counts, and tells
//! the count on a UNIX socket. Otherwise it starts itself so, sends requests one after the other, and
//! compares the steady figure with [`EXPECTED`]. A figure that falls is a
//! failure as well: lower the number in the commit that lowers the figure.

#![allow(clippy::unwrap_used, reason = "a test that cannot run must stop")]
#![allow(clippy::print_stdout, reason = "the figures are its result")]
#![allow(clippy::disallowed_methods, reason = "the test runs outside the gateway and its clock")]

mod http2;

use std::alloc::System;
use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tempfile::TempDir;

use http2::Http2;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations and reallocations for one request, in a debug build.
const EXPECTED: [(&str, f64); 4] = [
    ("HTTP/1.1, forwarded", 6.0),
    ("HTTP/1.1, redirected", 12.0),
    ("HTTP/2, forwarded", 10.0),
    ("HTTP/2, redirected", 14.0),
];
/// Timers and threads beside the request path allocate, too: this much of an allocation for a request.
const ALLOWANCE: f64 = 0.2;
/// Buffers, pools and tables have their size after so many requests.
const WARM_UP: u32 = 500;
const REQUESTS: u32 = 1000;
/// The lowest figure of so many rounds counts.
const ROUNDS: u32 = 5;
/// No request and no start takes longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The path of the UNIX socket where the count is asked for.
const COUNTS: &str = "ALLOCATIONS_SOCKET";

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
    let backend = backend();
    let gateway = Gateway::start(backend);
    let figures = [
        gateway.figure(&mut Http1::connect(gateway.address), "/forwarded"),
        gateway.figure(&mut Http1::connect(gateway.address), "/redirected"),
        gateway.figure(&mut Http2::connect(gateway.address), "/forwarded"),
        gateway.figure(&mut Http2::connect(gateway.address), "/redirected"),
    ];
    let mut code = ExitCode::SUCCESS;
    for ((what, expected), figure) in EXPECTED.into_iter().zip(figures) {
        let differs = (figure - expected).abs() > ALLOWANCE;
        let verdict = if differs { "differs" } else { "ok" };
        println!("{what}: expected {expected} allocations, found {figure:.2}: {verdict}");
        if differs {
            code = ExitCode::FAILURE;
        }
    }
    code
}

/// Answers each byte on the socket with the allocations of this process so far.
fn tell_counts(at: &Path) {
    let listener = UnixListener::bind(at).unwrap();
    thread::spawn(move || {
        let (mut asker, _) = listener.accept().unwrap();
        while asker.read_exact(&mut [0]).is_ok() {
            let stats = ALLOCATOR.stats();
            let count = stats.allocations as u64 + stats.reallocations as u64;
            asker.write_all(&count.to_ne_bytes()).unwrap();
        }
    });
}

/// A backend that answers every request on every connection with the same bytes.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                let mut length = 0;
                while let Ok(count @ 1..) = stream.read(&mut buffer[length..]) {
                    length += count;
                    if buffer[..length].ends_with(b"\r\n\r\n") {
                        length = 0;
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\
                                       content-length: 5\r\n\r\nhello";
                        stream.write_all(answer).unwrap();
                    }
                }
            });
        }
    });
    address
}

/// Sends one request and reads the whole response to it.
trait Client {
    fn exchange(&mut self, path: &str);
}

/// A gateway with one worker, one HTTP listener and two rules.
struct Gateway {
    address: SocketAddr,
    child: Child,
    counts: UnixStream,
    _dir: TempDir,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Gateway {
    fn start(backend: SocketAddr) -> Self {
        let dir = TempDir::with_prefix("allocations-").unwrap();
        // Nobody else takes it in the meantime: the kernel hands such ports out in turn.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let objects = dir.path().join("objects");
        fs::create_dir(&objects).unwrap();
        fs::write(dir.path().join("standalone.yaml"), standalone(&objects)).unwrap();
        fs::write(objects.join("all.yaml"), configuration(free.port(), backend)).unwrap();
        fs::create_dir(dir.path().join("letsencrypt")).unwrap();
        let path = |name: &str| dir.path().join(name);
        let child = Command::new(env::current_exe().unwrap())
            .args(["run", "--workers", "1", "--no-watch", "--log-format", "json"])
            .args(["--metrics-listen", "none", "--admin-listen", "none"])
            .arg("--config")
            .arg(path("standalone.yaml"))
            .arg("--letsencrypt-dir")
            .arg(path("letsencrypt"))
            .arg("--control-socket")
            .arg(path("control.sock"))
            .env_clear()
            .env(COUNTS, path("counts.sock"))
            // Lines of the access log are written, and nobody reads them.
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let counts = until(|| UnixStream::connect(path("counts.sock")).ok());
        until(|| TcpStream::connect(free).ok());
        Self { address: free, child, counts, _dir: dir }
    }

    /// Allocations so far.
    fn count(&self) -> u64 {
        let mut counts = &self.counts;
        counts.write_all(&[0]).unwrap();
        let mut count = [0; 8];
        counts.read_exact(&mut count).unwrap();
        u64::from_ne_bytes(count)
    }

    /// Allocations for one request.
    fn figure(&self, client: &mut impl Client, path: &str) -> f64 {
        for _ in 0..WARM_UP {
            client.exchange(path);
        }
        let round = |_| {
            let before = self.count();
            for _ in 0..REQUESTS {
                client.exchange(path);
            }
            self.count() - before
        };
        let lowest = (0..ROUNDS).map(round).min().unwrap();
        f64::from(u32::try_from(lowest).unwrap()) / f64::from(REQUESTS)
    }
}

fn until<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(outcome) = attempt() {
            return outcome;
        }
        assert!(begun.elapsed() < PATIENCE, "the gateway does not start");
        thread::sleep(Duration::from_millis(20));
    }
}

fn standalone(objects: &Path) -> String {
    format!(
        "\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyGateway
provider:
  type: Custom
  custom:
    resource:
      type: File
      file:
        paths:
          - {}
    infrastructure:
      type: Host
      host: {{}}
extensionApis:
  enableBackend: true
",
        objects.display()
    )
}

fn configuration(port: u16, backend: SocketAddr) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata:
  name: eg
spec:
  controllerName: gateway.envoyproxy.io/gatewayclass-controller
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: eg
spec:
  gatewayClassName: eg
  addresses:
    - value: 127.0.0.1
  listeners:
    - name: http
      protocol: HTTP
      port: {port}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata:
  name: backend
spec:
  endpoints:
    - ip:
        address: {}
        port: {}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: both
spec:
  parentRefs:
    - name: eg
  rules:
    - matches:
        - path:
            value: /forwarded
      backendRefs:
        - group: gateway.envoyproxy.io
          kind: Backend
          name: backend
    - matches:
        - path:
            value: /redirected
      filters:
        - type: RequestRedirect
          requestRedirect:
            scheme: https
            statusCode: 301
",
        backend.ip(),
        backend.port()
    )
}

/// A connection of HTTP/1.1.
struct Http1 {
    stream: TcpStream,
    buffer: [u8; 4096],
}

impl Http1 {
    fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, buffer: [0; 4096] }
    }
}

impl Client for Http1 {
    fn exchange(&mut self, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: shop.test\r\naccept: */*\r\n\r\n");
        self.stream.write_all(request.as_bytes()).unwrap();
        let (status, body) = match path {
            "/forwarded" => ("HTTP/1.1 200 ", &b"hello"[..]),
            _ => ("HTTP/1.1 301 ", &b"\r\n\r\n"[..]),
        };
        let mut length = 0;
        while !self.buffer[..length].ends_with(body) {
            let count = self.stream.read(&mut self.buffer[length..]).unwrap();
            assert!(count > 0, "the gateway closed the connection");
            length += count;
        }
        assert!(self.buffer.starts_with(status.as_bytes()));
    }
}
