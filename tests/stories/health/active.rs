//! Checks that the gateway sends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::{
    Answer, Gateway, Greeter, Origin, Step, TlsOrigin, Wire, backend, ca, clock, free_address,
    http_route, refusing_address, rule_to, serve_all, soon, until,
};

use super::{SHOP, Sick, answers, becomes, metric, of_shop, policy};

const HTTP: &str = "active: {type: HTTP, interval: 50ms, timeout: 2s, unhealthyThreshold: 2, \
                    healthyThreshold: 2, http: {path: /health}}";

#[tokio::test]
async fn an_unhealthy_endpoint_gets_no_requests_until_it_is_healthy_again() {
    let (at, one, two) = (free_address(), Sick::new("one").await, Sick::new("two").await);
    let files = serve_all("shop", "shop.test", &[one.address(), two.address()]) + &of_shop(HTTP);
    let gateway = Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
    becomes(at, "health_check_healthy", 2.0).await;
    let both = answers(&gateway, 4).await;
    assert!(both.contains(&"200 one".into()) && both.contains(&"200 two".into()), "{both:?}");
    let check = one.origin.requests().into_iter().find(|seen| seen.target() == "/health").unwrap();
    assert_eq!(check.header("host").as_deref(), Some("shop.test"));

    one.health.store(500, Ordering::SeqCst);
    becomes(at, "membership_healthy", 1.0).await;
    assert_eq!(answers(&gateway, 6).await, ["200 two"; 6]);
    let explained = gateway.setup_ref().command("explain http://shop.test/").output().unwrap();
    let explained = String::from_utf8(explained.stdout).unwrap();
    let states = [(&one, "unhealthy"), (&two, "healthy")];
    for (origin, state) in states {
        let line = format!("endpoint  {} is {state}", origin.address());
        assert!(explained.contains(&line), "{explained}");
    }
    assert!(explained.contains("checked by GET /health with Host shop.test every 50ms"));
    let failed = |line: &str| {
        line.contains("endpoint failed its health check")
            && line.contains(&one.address().to_string())
            && line.contains("status 500")
    };
    until("a log line", || gateway.process().stderr().lines().any(failed)).await;

    one.health.store(200, Ordering::SeqCst);
    becomes(at, "membership_healthy", 2.0).await;
    let both = answers(&gateway, 4).await;
    assert!(both.contains(&"200 one".into()), "{both:?}");
    let text = crate::metrics::scrape(at).await;
    for name in ["attempt", "success", "failure"] {
        let series = format!(
            "envoy_cluster_health_check_{name}_total{{envoy_cluster_name=\"{SHOP}/rule/0\"}}"
        );
        let series = if text.contains(&series) { series } else { series.replace("_total{", "{") };
        assert!(crate::metrics::value(&text, &series) >= 1.0, "{name}: {text}");
    }
}

#[tokio::test]
async fn a_reload_keeps_the_health_and_the_schedule_of_checks() {
    let (at, one, two) = (free_address(), Sick::new("one").await, Sick::new("two").await);
    one.health.store(503, Ordering::SeqCst);
    let check = of_shop("active: {type: HTTP, interval: 1h, http: {path: /health}}");
    let files = serve_all("shop", "shop.test", &[one.address(), two.address()]) + &check;
    let gateway = Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
    becomes(at, "health_check_failure", 1.0).await;
    becomes(at, "health_check_success", 1.0).await;
    assert_eq!(answers(&gateway, 3).await, ["200 two"; 3]);

    // Another route to the same backend; and settings of the connections, which make the cluster new.
    gateway.write(
        "routes/more.yaml",
        &(http_route("more", &["shop.test"], &rule_to("/more", "shop"))
            + &policy("kind: HTTPRoute, name: more", "")
                .replace("name: health", "name: more")
                .replace("healthCheck: {}", "timeout: {tcp: {connectTimeout: 3s}}")),
    );
    gateway.reload().await;
    let changed = files + "  timeout: {tcp: {connectTimeout: 4s}}\n";
    gateway.write("routes/shop.yaml", &changed);
    gateway.reload().await;
    for _ in 0..3 {
        assert_eq!(answers(&gateway, 3).await, ["200 two"; 3]);
    }
    let checks = [&one, &two].map(|origin| origin.checks.load(Ordering::SeqCst));
    assert_eq!(checks, [1, 1], "no check is made again");
    assert!((metric(at, "health_check_attempt", SHOP).await - 2.0).abs() < 1e-9);
}

#[tokio::test]
async fn two_routes_to_one_backend_have_one_check() {
    let (at, one) = (free_address(), Sick::new("one").await);
    let check = policy(
        "kind: Gateway, name: eg",
        "active: {type: HTTP, interval: 1h, http: {path: /health, hostname: own.test}}",
    );
    let files = serve_all("shop", "shop.test", &[one.address()])
        + &http_route("blog", &["blog.test"], &rule_to("/", "shop"))
        + &check;
    let gateway = Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
    becomes(at, "health_check_success", 1.0).await;
    assert_eq!(answers(&gateway, 1).await, ["200 one"]);
    assert_eq!(one.checks.load(Ordering::SeqCst), 1);
    let blog = SHOP.replace("shop", "blog");
    assert!((metric(at, "health_check_success", &blog).await - 1.0).abs() < 1e-9);
}

/// The state of each backend after its checks, whatever it does to them.
#[tokio::test]
async fn hostile_answers_to_a_check_are_bounded() {
    let endless = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
    let mut floods = JoinSet::new();
    let mut flood = async |bytes: &'static [u8], again: &'static [u8]| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        floods.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(async move {
                    let mut wire = Wire::over(stream);
                    wire.send(bytes).await;
                    while wire.push(again).await.is_ok() {}
                });
            }
        });
        address
    };
    let hanging = Origin::scripted(|_| Answer::hang()).await;
    let slow = Origin::scripted(move |_| Answer::raw(endless).then(Step::Hang)).await;
    let wrong = Origin::scripted(|_| Answer::raw("220 mail.test ESMTP\r\n")).await;
    // (backend, more of the check, healthy)
    let table = [
        (hanging.address, "", false),
        (slow.address, "", false),
        (wrong.address, "", false),
        (refusing_address(), "", false),
        (flood(endless.as_bytes(), &[b'x'; 65536]).await, "", true),
        (flood(endless.as_bytes(), &[b'x'; 65536]).await, "never", false),
        (
            flood(b"HTTP/1.1 200 OK\r\n", b"X-Field: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n").await,
            "",
            false,
        ),
        (flood(b"HTTP/1.1 200 OK\r\nX-Field: ", &[b'x'; 65536]).await, "", false),
    ];
    for (address, expected, healthy) in table {
        let at = free_address();
        let expected = match expected {
            "" => String::new(),
            text => format!(", expectedResponse: {{type: Text, text: {text}}}"),
        };
        let check = format!(
            "active: {{type: HTTP, interval: 100ms, timeout: 300ms, unhealthyThreshold: 1, \
             http: {{path: /health{expected}}}}}"
        );
        let files = serve_all("shop", "shop.test", &[address]) + &of_shop(&check);
        let gateway =
            Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
        let name = if healthy { "health_check_success" } else { "health_check_failure" };
        let counted = async {
            while metric(at, name, SHOP).await < 2.0 {
                tokio::task::yield_now().await;
            }
        };
        soon(&format!("{address} has two of {name}"), counted).await;
        let (all, wanted) = (1.0, f64::from(u8::from(healthy)));
        assert!((metric(at, "membership_total", SHOP).await - all).abs() < 1e-9);
        assert!((metric(at, "membership_healthy", SHOP).await - wanted).abs() < 1e-9);
        drop(gateway);
    }
}

#[tokio::test]
async fn statuses_and_bytes_decide() {
    // (status, fields of `http`, healthy)
    let table = [
        (200, "", true),
        (204, "", false),
        (204, ", expectedStatuses: [204, 301]", true),
        (200, ", expectedStatuses: [204, 301]", false),
        (200, ", expectedResponse: {type: Text, text: ecke}", true),
        (200, ", expectedResponse: {type: Binary, binary: Y2hlY2tlZA==}", true),
        (200, ", expectedResponse: {type: Text, text: other}", false),
        (200, ", method: head", true),
    ];
    for (status, fields, healthy) in table {
        let (at, one) = (free_address(), Sick::new("one").await);
        one.health.store(status, Ordering::SeqCst);
        let check =
            format!("active: {{type: HTTP, interval: 1h, http: {{path: /health{fields}}}}}");
        let files = serve_all("shop", "shop.test", &[one.address()]) + &of_shop(&check);
        let _gateway =
            Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
        let name = if healthy { "health_check_success" } else { "health_check_failure" };
        becomes(at, name, 1.0).await;
        if fields.contains("head") {
            assert_eq!(one.origin.last().method(), "HEAD");
        }
    }
}

#[tokio::test]
async fn a_check_names_its_host_and_sends_its_body_to_its_port() {
    let (at, shop, probes) = (free_address(), Sick::new("shop").await, Sick::new("probes").await);
    let check = of_shop(&format!(
        "active: {{type: HTTP, interval: 1h, overrides: {{port: {}}}, http: {{path: /health, \
         hostname: own.test, method: POST, requestBody: {{type: Text, text: ping}}}}}}",
        probes.address().port()
    ));
    let files = serve_all("shop", "shop.test", &[shop.address()]) + &check;
    let gateway = Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
    becomes(at, "health_check_success", 1.0).await;
    let seen = probes.origin.last();
    assert_eq!((seen.method(), seen.text()), ("POST".into(), "ping".into()));
    assert_eq!(seen.header("host").as_deref(), Some("own.test"));
    assert_eq!(answers(&gateway, 1).await, ["200 shop"]);
    assert_eq!(shop.checks.load(Ordering::SeqCst), 0);
}

/// The name of an endpoint comes before that of the route, and the handshake names the server.
#[tokio::test]
async fn a_check_goes_over_the_tls_of_the_backend() {
    let (at, origin) = (free_address(), TlsOrigin::new(&ca().leaf(&["inner.test"])).await);
    let pem: String = ca().pem().lines().map(|line| format!("    {line}\n")).collect();
    let tls = format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca, namespace: \
         envoy-gateway-system}}\ndata:\n  ca.crt: |\n{pem}---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
         metadata: {{name: shop, namespace: envoy-gateway-system}}\nspec:\n  \
         targetRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: shop}}]\n  \
         validation: {{caCertificateRefs: [{{group: \"\", kind: ConfigMap, name: ca}}], \
         hostname: inner.test}}\n"
    );
    let check = of_shop("active: {type: HTTP, interval: 1h, http: {path: /health}}");
    let files = serve_all("shop", "shop.test", &[origin.address]) + &tls + &check;
    let _gateway = Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
    becomes(at, "health_check_success", 1.0).await;
    let told = origin.told();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].server_name.as_deref(), Some("inner.test"));
    assert_eq!(told[0].alpn.as_deref(), Some("http/1.1"));
}

/// A gRPC server that answers each check with this message and `grpc-status`.
async fn grpc_server(
    message: &'static [u8],
    code: &'static str,
) -> (std::net::SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service =
                hyper::service::service_fn(move |request: Request<Incoming>| async move {
                    use http_body_util::BodyExt;

                    let (head, body) = request.into_parts();
                    assert_eq!(head.uri.path(), "/grpc.health.v1.Health/Check");
                    let asked = body.collect().await.unwrap().to_bytes();
                    assert_eq!(&*asked, b"\0\0\0\0\x06\x0a\x04shop");
                    let trailers = HeaderMap::from_iter([(
                        http::HeaderName::from_static("grpc-status"),
                        HeaderValue::from_static(code),
                    )]);
                    let body = http_body_util::Full::new(bytes::Bytes::from_static(message))
                        .with_trailers(async move { Some(Ok(trailers)) });
                    let mut response = Response::new(body);
                    let grpc = HeaderValue::from_static("application/grpc");
                    response.headers_mut().insert("content-type", grpc);
                    Ok::<_, std::convert::Infallible>(response)
                });
            connections.spawn(async move {
                let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = http2.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, server)
}

#[tokio::test]
async fn a_grpc_server_says_whether_it_serves() {
    // (message, grpc-status, healthy)
    let table: [(&[u8], _, bool); 3] = [
        (b"\0\0\0\0\x02\x08\x01", "0", true),
        (b"\0\0\0\0\x02\x08\x02", "0", false),
        (b"\0\0\0\0\x02\x08\x01", "5", false),
    ];
    for (message, code, healthy) in table {
        let (at, (address, _server)) = (free_address(), grpc_server(message, code).await);
        let check = of_shop("active: {type: GRPC, interval: 1h, grpc: {service: shop}}");
        let files = serve_all("shop", "shop.test", &[address]) + &check;
        let _gateway =
            Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
        let name = if healthy { "health_check_success" } else { "health_check_failure" };
        becomes(at, name, 1.0).await;
    }
}

/// Connections of a TCPRoute go to the endpoint that answers as expected.
#[tokio::test]
async fn a_tcp_route_has_health_checks_too() {
    let (at, mail, other) =
        (free_address(), Greeter::plain("mail").await, Greeter::plain("other").await);
    let route = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\n\
                 metadata: {name: mail, namespace: envoy-gateway-system}\nspec:\n  \
                 parentRefs: [{name: eg, sectionName: tcp}]\n  rules:\n    - backendRefs: \
                 [{group: gateway.envoyproxy.io, kind: Backend, name: mail}]\n";
    let check = policy(
        "kind: TCPRoute, name: mail",
        "active: {type: TCP, interval: 100ms, unhealthyThreshold: 1, tcp: {send: {type: Text, \
         text: ping}, receive: {type: Text, text: \"from mail\"}}}",
    );
    let listener = "- {name: tcp, protocol: TCP, port: 9300}\n";
    let files = backend("mail", &[other.address, mail.address]) + route + &check;
    let gateway = Gateway::setup()
        .metrics_at(at)
        .socket("tcp", "127.0.0.1:0")
        .file("common/gateway.yaml", &crate::support::gateway_of(listener))
        .file("routes/mail.yaml", &files)
        .start()
        .await;
    let rule = "tcproute/envoy-gateway-system/mail";
    let settled = async {
        while metric(at, "health_check_healthy", rule).await > 1.0
            || metric(at, "health_check_failure", rule).await < 2.0
        {
            tokio::task::yield_now().await;
        }
    };
    soon("the other one is unhealthy", settled).await;
    for _ in 0..4 {
        let mut client = Wire::connect(gateway.address("tcp")).await;
        assert_eq!(client.exactly(16).await, b"hello from mail\n");
    }
}

#[tokio::test]
async fn checks_end_with_the_snapshot_that_needs_them() {
    let (at, one) = (free_address(), Sick::new("one").await);
    let served = serve_all("shop", "shop.test", &[one.address()]);
    let files = served.clone() + &of_shop(HTTP);
    let gateway = Gateway::setup().metrics_at(at).file("routes/shop.yaml", &files).start().await;
    becomes(at, "health_check_healthy", 1.0).await;
    gateway.write("routes/shop.yaml", &served);
    gateway.reload().await;
    until("the connections of checks are closed", || one.origin.open() == 0).await;
    let after = one.checks.load(Ordering::SeqCst);
    let begun = clock();
    // Checks would come every 50 ms.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let more = one.checks.load(Ordering::SeqCst) - after;
    assert!(more <= 1, "{more} checks in {:?}", begun.elapsed());
    assert_eq!(answers(&gateway, 1).await, ["200 one"]);
    assert_eq!(one.served(), 1);
}
