//! The deployment in `tests/fixtures/deployment`, as it stands: its YAML untouched, certificates as
//! certbot lays them out, two Django projects under gunicorn, the echo in Keycloak's place.
//!
//! The names in its Backends are given to the gateway by `--resolve`, where a host has them in
//! /etc/hosts.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::Request;
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::RwLockReadGuard;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use crate::needs::{INSTALL, needs};
use crate::support::{
    Echo, GIVEN_PORTS, Gateway, Process, Reply, Tls, Wire, ca, full, h2c_backend, http_route,
    in_package, own_loopback, rule_to, soon, until,
};

struct Deployment {
    gateway: Gateway,
    keycloak: Echo,
    _services: [Process; 2],
    // Last, so that the processes that have the ports are killed before others may take them.
    _ports: RwLockReadGuard<'static, ()>,
}

impl Deployment {
    /// Starts all of it; none where Python's part was not installed, which CI does not let pass.
    async fn start() -> Option<Self> {
        let gunicorn = in_package("tests/.cache/venv/bin/gunicorn");
        let there = gunicorn.exists().then_some(gunicorn);
        let gunicorn = needs("Django with gunicorn", there, INSTALL)?;
        let ports = GIVEN_PORTS.read().await;
        let [billing, reports, keycloak] = [own_loopback(), own_loopback(), own_loopback()];
        let on_tcp = async |name: &str, address: Ipv4Addr| {
            let is_open = async || TcpStream::connect((address, 8000)).await.is_ok();
            service(&gunicorn, name, &format!("{address}:8000"), is_open).await
        };
        let services = [on_tcp("billing", billing).await, on_tcp("reports", reports).await];
        let keycloak_echo = Echo::at(SocketAddr::from((keycloak, 8080))).await;
        let folder = in_package("tests/fixtures/deployment");
        let gateway = Gateway::with_configuration(&folder, "standalone-prod.yaml")
            .watching()
            .flag(&format!("--resolve billing.local={billing}"))
            .flag(&format!("--resolve reports.local={reports}"))
            .flag(&format!("--resolve keycloak.local={keycloak}"))
            .start()
            .await;
        Some(Self { gateway, keycloak: keycloak_echo, _services: services, _ports: ports })
    }

    async fn json(&self, path: &str) -> Value {
        let reply = self.gateway.get(&format!("https://gateway.test{path}")).await;
        assert_eq!(reply.status(), 200, "{path}: {reply:?}");
        serde_json::from_slice(&reply.body).unwrap()
    }
}

/// One Django project under gunicorn, once it listens at `bind`, as `is_open` tells.
async fn service(
    gunicorn: &PathBuf,
    name: &str,
    bind: &str,
    is_open: impl AsyncFn() -> bool,
) -> Process {
    let mut command = Command::new(gunicorn);
    command.current_dir(in_package("tests/django"));
    command.args(["--threads", "4", "--bind", bind]);
    command.arg(format!("{name}.wsgi"));
    command.env("DOMAIN", "gateway.test").env("PYTHONDONTWRITEBYTECODE", "1");
    let process = Process::spawn_with_children(command);
    let listens = async {
        while !is_open().await {
            // gunicorn tells nobody but its log that it listens.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(name, listens).await;
    assert!(!process.has_ended(), "another program has {bind}: {}", process.stderr());
    process
}

#[tokio::test]
async fn it_serves_as_it_stands() {
    let Some(deployment) = Deployment::start().await else { return };
    let gateway = &deployment.gateway;

    let reply = gateway.get("http://gateway.test/billing/?a=b").await;
    assert_eq!(reply.status(), 301);
    assert_eq!(reply.header("location").as_deref(), Some("https://gateway.test/billing/?a=b"));
    gateway.write_challenge("token", "token.thumbprint");
    let challenge = "http://gateway.test/.well-known/acme-challenge/token";
    assert_eq!(gateway.get(challenge).await.text(), "token.thumbprint");

    let billing = deployment.json("/billing/?a=b").await;
    assert_eq!(billing["service"], "billing");
    assert_eq!(billing["secure"], true);
    assert_eq!(billing["host"], "gateway.test");
    assert_eq!(billing["port"], "443");
    assert_eq!(billing["url"], "https://gateway.test/billing/?a=b");
    assert_eq!(billing["forwarded"]["X-Forwarded-Proto"], "https");
    assert_eq!(billing["forwarded"]["X-Forwarded-Host"], "gateway.test");
    assert_eq!(billing["forwarded"]["X-Forwarded-Port"], "443");
    assert_eq!(billing["forwarded"]["X-Forwarded-For"], "127.0.0.1");
    assert_eq!(deployment.json("/reports/").await["service"], "reports");

    for path in ["/auth/realms/one", "/auth/admin/", "/auth/resources/x.css", "/auth/js/x.js"] {
        let image = deployment.json(path).await;
        assert_eq!(image["path"], path);
        assert_eq!(image["headers"]["x-forwarded-host"], serde_json::json!(["gateway.test"]));
    }
    // A prefix is whole elements, and what has no route has no backend.
    for path in ["/", "/auth/", "/auth/realmsx", "/billingx/", "/echo/"] {
        let reply = gateway.get(&format!("https://gateway.test{path}")).await;
        assert_eq!(reply.status(), 404, "{path}");
    }
}

/// Django takes a form only from the page it gave it to, by https, from this very host.
#[tokio::test]
async fn django_believes_what_it_is_told() {
    let Some(deployment) = Deployment::start().await else { return };
    let gateway = &deployment.gateway;
    let page = gateway.get("https://gateway.test/billing/pay/").await;
    let cookie = page.header("set-cookie").unwrap();
    assert!(cookie.contains("Secure"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let form = format!("csrfmiddlewaretoken={}&amount=42", page.text());
    let mut wire = gateway.tls_wire("gateway.test").await;
    wire.send(format!(
        "POST /billing/pay/ HTTP/1.1\r\nHost: gateway.test\r\nCookie: {cookie}\r\n\
         Referer: https://gateway.test/billing/pay/\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    ))
    .await;
    let reply = wire.reply().await;
    assert_eq!((reply.status(), reply.text().as_str()), (200, "paid 42"));

    // A client that says so itself is not believed.
    let forged = "X-Forwarded-Proto: http\r\nX-Forwarded-Host: evil.test\r\n";
    let reply = gateway.get_with("https://gateway.test/billing/", forged).await;
    assert_eq!(reply.status(), 200, "{reply:?}");
    assert!(!reply.text().contains("evil"), "{reply:?}");
}

/// The Backend of docs/unix-sockets.md, with gunicorn at its path.
#[tokio::test]
async fn django_is_served_over_a_unix_socket() {
    let gunicorn = in_package("tests/.cache/venv/bin/gunicorn");
    let there = gunicorn.exists().then_some(gunicorn);
    let Some(gunicorn) = needs("Django with gunicorn", there, INSTALL) else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("http.sock");
    let _service = service(&gunicorn, "billing", &format!("unix:{}", path.display()), async || {
        UnixStream::connect(&path).await.is_ok()
    })
    .await;

    let guide = fs::read_to_string(in_package("docs/unix-sockets.md")).unwrap();
    let backend = guide.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let backend = backend
        .replace("/run/shop/http.sock", path.to_str().unwrap())
        .replace("name: shop\n", "name: shop\n  namespace: envoy-gateway-system\n");
    let route = http_route("shop", &["gateway.test"], &rule_to("/", "shop"));
    let files = format!("---\n{backend}{route}");
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    let reply = gateway.get("https://gateway.test/billing/?a=b").await;
    assert_eq!(reply.status(), 200, "{reply:?}");
    let billing: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(billing["service"], "billing");
    // gunicorn believes a peer on a UNIX socket, and Django gunicorn.
    assert_eq!(billing["secure"], true);
    assert_eq!(billing["host"], "gateway.test");
    assert_eq!(billing["forwarded"]["X-Forwarded-For"], "127.0.0.1");
}

#[tokio::test]
async fn every_protocol_reaches_the_services() {
    let Some(deployment) = Deployment::start().await else { return };
    let gateway = &deployment.gateway;

    let mut http2 = gateway.http2("gateway.test").await;
    let report = http2.get("https://gateway.test/reports/lines?count=5000").await;
    assert_eq!(report.text().lines().count(), 5_000);
    let body = vec![b'r'; 3 << 20];
    let request = Request::post("https://gateway.test/reports/upload").body(full(body)).unwrap();
    let answer = http2.fetch(request).await.unwrap();
    assert!(answer.text().starts_with("3145728 "), "{answer:?}");

    let tls = Tls::of("gateway.test").connect(gateway.https()).await.unwrap();
    let url = "wss://gateway.test/auth/realms/chat";
    let handshake = tokio_tungstenite::client_async(url, tls);
    let (mut socket, _) = soon("a handshake", handshake).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(soon("an echo", socket.next()).await.unwrap().unwrap(), Message::text("hello"));

    // gRPC needs a backend that says it speaks HTTP/2: a new file, saved while it runs.
    let backend = h2c_backend("grpc", &[deployment.keycloak.address]);
    let rules = "- backendRefs:\n    - {group: gateway.envoyproxy.io, kind: Backend, name: grpc}\n  \
                 matches:\n    - path: {type: PathPrefix, value: /shop.Orders}\n";
    gateway.write("prod/routes/grpc.yaml", &(backend + &http_route("grpc", &[], rules)));
    let call = async || {
        let request = Request::post("https://gateway.test/shop.Orders/Place")
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let mut http2 = gateway.http2("gateway.test").await;
        http2.fetch(request.body(full("\0\0\0\0\x02hi")).unwrap()).await.unwrap()
    };
    let answer = soon("the route is live", async {
        loop {
            let answer = call().await;
            if answer.status != 404 {
                return answer;
            }
            // The gateway waits for the files to be quiet before it reads them.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(answer.text(), "\0\0\0\0\x02hi");
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_changed_while_it_serves_and_nobody_notices() {
    let Some(deployment) = Deployment::start().await else { return };
    let gateway = &deployment.gateway;
    let address = gateway.https();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut clients = JoinSet::new();
    for path in ["/billing/", "/reports/", "/auth/realms/one"] {
        let stopped = stopped.clone();
        clients.spawn(async move {
            let mut count = 0;
            let mut wire = Wire::tls(address, "gateway.test").await;
            while !*stopped.borrow() {
                wire.send(format!("GET {path} HTTP/1.1\r\nHost: gateway.test\r\n\r\n")).await;
                let reply = soon("an answer", wire.try_reply_to("GET")).await;
                let status = reply.as_ref().map(Reply::status);
                assert_eq!(status, Some(200), "{path} after {count}: {reply:?}");
                count += 1;
            }
            count
        });
    }

    let renewed = ca().leaf(&["gateway.test"]);
    gateway.lineage().renew(&renewed);
    gateway.reload().await;
    assert_eq!(gateway.serial("gateway.test").await, renewed.serial);

    let broken = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: [\n";
    gateway.write("common/routes/invoices.yaml", broken);
    until("the fault is named", || {
        gateway.process().stderr().contains("common/routes/invoices.yaml:")
    })
    .await;
    assert_eq!(deployment.json("/billing/").await["service"], "billing", "the old routes serve");

    let billing = fs::read_to_string(gateway.path("common/routes/billing.yaml")).unwrap();
    let invoices = billing
        .replace("name: billing\n  namespace", "name: invoices\n  namespace")
        .replace("value: /billing/", "value: /invoices/");
    gateway.write("common/routes/invoices.yaml", &invoices);
    soon("the new route is live", async {
        // Django knows no such page; the gateway's own 404 is not Django's.
        while gateway.get("https://gateway.test/invoices/").await.header("server").as_deref()
            != Some("gunicorn")
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;

    stop.send_replace(true);
    while let Some(count) = soon("clients end", clients.join_next()).await {
        assert!(count.unwrap() > 0);
    }
}

#[tokio::test]
async fn it_ends_when_the_last_answer_is_given() {
    let Some(deployment) = Deployment::start().await else { return };
    let gateway = &deployment.gateway;
    let mut wire = gateway.tls_wire("gateway.test").await;
    wire.send("GET /auth/realms/one?delay=1s HTTP/1.1\r\nHost: gateway.test\r\n\r\n").await;
    // The echo says nothing for a second; the request is with it long before that is over.
    tokio::time::sleep(Duration::from_millis(300)).await;
    gateway.terminate();
    let reply = wire.reply().await;
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.header("connection").as_deref(), Some("close"));
    assert!(gateway.exit().await.success());
}
