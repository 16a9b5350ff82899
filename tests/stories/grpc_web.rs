//! gRPC-Web: calls of browsers to a gRPC backend, over HTTP/1.1 and HTTP/2, in bytes and in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;

use crate::grpc::{grpc_route, message};
use crate::support::{Echo, Gateway, Wire, full, h2c_backend, refusing_address};

/// A GRPCRoute for `shop.Orders` to an echo, and one to a backend that is not there.
async fn serve() -> (Echo, Gateway) {
    let echo = Echo::start().await;
    let files = h2c_backend("echo", &[echo.address])
        + &grpc_route("echo", "{service: shop.Orders}")
        + &h2c_backend("dead", &[refusing_address()])
        + &grpc_route("dead", "{service: shop.Dead}");
    let gateway = Gateway::setup().file("routes/echo.yaml", &files).start().await;
    (echo, gateway)
}

/// Sends a call over HTTP/1.1 and returns the response.
async fn call(wire: &mut Wire, path: &str, fields: &str, body: &[u8]) -> crate::support::Reply {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {}\r\n{fields}\r\n",
        body.len()
    );
    wire.send([head.as_bytes(), body].concat()).await;
    wire.reply().await
}

const TRAILERS: &[u8] = b"\x80\0\0\0\x0fgrpc-status:0\r\n";

#[tokio::test]
async fn a_browser_calls_over_http1_in_either_form() {
    let (_echo, gateway) = serve().await;
    let asked = message("order");
    let answered = [&asked[..], TRAILERS].concat();
    // Each message of a text is padded by itself, wherever the frames were cut.
    let in_text = |text: &[u8]| -> Vec<u8> {
        text.chunks(4).flat_map(|group| STANDARD.decode(group).unwrap()).collect()
    };

    // (content-type, accept, content-type of the response)
    let table = [
        ("application/grpc-web+proto", "*/*", "application/grpc-web+proto"),
        (
            "application/grpc-web-text",
            "application/grpc-web-text",
            "application/grpc-web-text+proto",
        ),
        (
            "application/grpc-web-text+proto",
            "application/grpc-web+proto",
            "application/grpc-web+proto",
        ),
        ("application/grpc-web", "application/grpc-web-text", "application/grpc-web-text+proto"),
    ];
    let mut wire = gateway.tls_wire("shop.test").await;
    for (content_type, accept, want) in table {
        let fields = format!("Content-Type: {content_type}\r\nAccept: {accept}\r\n");
        let sent = match content_type.contains("text") {
            true => STANDARD.encode(&asked).into_bytes(),
            false => asked.to_vec(),
        };
        let reply = call(&mut wire, "/shop.Orders/Place", &fields, &sent).await;
        assert_eq!(reply.status(), 200, "{content_type}");
        assert_eq!(reply.header("content-type").as_deref(), Some(want), "{content_type}");
        let body = match want.contains("text") {
            true => in_text(&reply.body),
            false => reply.body,
        };
        assert_eq!(body, answered, "{content_type}");
    }
}

#[tokio::test]
async fn a_browser_calls_over_http2() {
    let (_echo, gateway) = serve().await;
    let mut http2 = gateway.http2("shop.test").await;
    let request = Request::post("https://shop.test/shop.Orders/Place")
        .header("content-type", "application/grpc-web+proto");
    let answer = http2.fetch(request.body(full(message("order"))).unwrap()).await.unwrap();
    assert_eq!(answer.headers["content-type"], "application/grpc-web+proto");
    assert_eq!(answer.body, [&message("order")[..], TRAILERS].concat());
    assert!(answer.trailers.is_none(), "a browser reads no trailers");
}

#[tokio::test]
async fn failures_are_reported_as_grpc_web() {
    let (_echo, gateway) = serve().await;
    let mut wire = gateway.tls_wire("shop.test").await;

    let fields = "Content-Type: application/grpc-web+proto\r\n";
    let reply = call(&mut wire, "/shop.Dead/Place", fields, &message("order")).await;
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.header("content-type").as_deref(), Some("application/grpc-web+proto"));
    assert_eq!(reply.header("grpc-status").as_deref(), Some("14"));

    // No route: a client maps the status of HTTP.
    let reply = call(&mut wire, "/shop.Other/Place", fields, &message("order")).await;
    assert_eq!(reply.status(), 404);

    // Invalid base64.
    let text = "Content-Type: application/grpc-web-text\r\n";
    let reply = call(&mut wire, "/shop.Orders/Place", text, b"AA!A").await;
    assert_eq!(reply.header("grpc-status").as_deref(), Some("13"), "{}", reply.text());
}

/// A GRPCRoute takes calls alone, and an HTTPRoute passes the content type on as it is.
#[tokio::test]
async fn only_calls_to_a_grpc_route_are_translated() {
    let (_echo, gateway) = serve().await;
    let get = gateway
        .get_with("https://shop.test/shop.Orders/Place", "Content-Type: application/grpc-web\r\n")
        .await;
    // gRPC calls are POSTs; a backend of gRPC answers other methods by itself.
    assert!(get.header("content-type").is_none_or(|kind| !kind.contains("grpc-web")), "{get:?}");
    let mut wire = gateway.tls_wire("shop.test").await;
    let json = "Content-Type: application/json\r\n";
    let post = call(&mut wire, "/shop.Orders/Place", json, b"{}").await;
    assert_eq!(post.status(), 404);
}

/// A page of another origin calls where a SecurityPolicy lets it, and from nowhere else.
#[tokio::test]
async fn a_security_policy_lets_pages_of_other_origins_call() {
    let echo = Echo::start().await;
    let policy = "\
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {name: pages, namespace: envoy-gateway-system}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: echo}]
  cors:
    allowOrigins: [https://pages.test]
    allowMethods: [POST]
    allowHeaders: [content-type, x-grpc-web]
    exposeHeaders: [grpc-status, grpc-message]
    maxAge: 10m
";
    let files = h2c_backend("echo", &[echo.address])
        + &grpc_route("echo", "{service: shop.Orders}")
        + policy;
    let gateway = Gateway::setup().file("routes/echo.yaml", &files).start().await;

    // (origin, allowed)
    for (origin, allowed) in [("https://pages.test", true), ("https://other.test", false)] {
        let want = allowed.then(|| origin.to_owned());
        let mut wire = gateway.tls_wire("shop.test").await;
        wire.send(format!(
            "OPTIONS /shop.Orders/Place HTTP/1.1\r\nHost: shop.test\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: content-type,x-grpc-web\r\n\r\n"
        ))
        .await;
        let preflight = wire.reply().await;
        assert_eq!(preflight.header("access-control-allow-origin"), want, "{origin}");
        let headers = preflight.header("access-control-allow-headers");
        let want_headers = allowed.then(|| "content-type, x-grpc-web".to_owned());
        assert_eq!(headers, want_headers, "{origin}");

        let fields = format!("Content-Type: application/grpc-web+proto\r\nOrigin: {origin}\r\n");
        let reply = call(&mut wire, "/shop.Orders/Place", &fields, &message("order")).await;
        assert_eq!(reply.body, [&message("order")[..], TRAILERS].concat(), "{origin}");
        assert_eq!(reply.header("access-control-allow-origin"), want, "{origin}");
        let exposed = reply.header("access-control-expose-headers");
        assert_eq!(exposed.is_some(), allowed, "{origin}");
    }
}
