//! The gateway whose allocations are counted, and its backend.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use crate::{COUNTS, HOST, PATIENCE};

/// A gateway with one worker, one HTTP and one HTTPS listener, and two rules.
pub(crate) struct Gateway {
    pub in_clear: SocketAddr,
    pub tls: SocketAddr,
    pub certificate: CertificateDer<'static>,
    child: Child,
    counts: UnixStream,
    _dir: TempDir,
}

/// What the allocator of the gateway's process says.
#[derive(Clone, Copy)]
pub(crate) struct Counts {
    /// Allocations and reallocations since the start.
    pub allocations: u64,
    /// Bytes that are allocated now.
    pub live: u64,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Gateway {
    pub(crate) fn start() -> Self {
        let dir = TempDir::with_prefix("allocations-").unwrap();
        let path = |name: &str| dir.path().join(name);
        // Nobody else takes them in the meantime: the kernel hands such ports out in turn.
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let (in_clear, tls) = (free(), free());
        let objects = path("objects");
        fs::create_dir(&objects).unwrap();
        fs::write(path("standalone.yaml"), standalone(&objects)).unwrap();
        fs::write(objects.join("all.yaml"), configuration(in_clear, tls, backend())).unwrap();
        let certificate = certify(&path("letsencrypt"));
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
        until(|| TcpStream::connect(in_clear).ok());
        until(|| TcpStream::connect(tls).ok());
        Self { in_clear, tls, certificate, child, counts, _dir: dir }
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = &self.counts;
        counts.write_all(&[0]).unwrap();
        let mut number = || {
            let mut bytes = [0; 8];
            counts.read_exact(&mut bytes).unwrap();
            u64::from_ne_bytes(bytes)
        };
        Counts { allocations: number(), live: number() }
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

/// Writes a certificate and its key as certbot lays them out.
fn certify(letsencrypt: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    let lineage = letsencrypt.join("live").join(HOST);
    fs::create_dir_all(&lineage).unwrap();
    fs::write(lineage.join("fullchain.pem"), made.cert.pem()).unwrap();
    fs::write(lineage.join("privkey.pem"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
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

fn configuration(in_clear: SocketAddr, tls: SocketAddr, backend: SocketAddr) -> String {
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
      port: {}
    - name: https
      protocol: HTTPS
      port: {}
      tls:
        certificateRefs:
          - name: {HOST}
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
        in_clear.port(),
        tls.port(),
        backend.ip(),
        backend.port()
    )
}
