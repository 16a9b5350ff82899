//! Traces: what a backend is told, what a collector gets, and that nobody waits for it.

use std::net::SocketAddr;

use http::Request;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::support::{
    Answer, Collector, Echo, GATEWAY_CLASS, Gateway, Origin, Setup, Span, Step, Takes, Wire,
    backend, clock, free_address, full, h2c_backend, http_route, own_loopback, refusing_address,
    rule_to, serve_all, soon, until,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// An EnvoyProxy that traces; `tracing` is YAML, written at the left edge.
fn proxy(tracing: &str) -> String {
    let tracing: String = tracing.lines().map(|line| format!("      {line}\n")).collect();
    format!(
        "---\n\
         apiVersion: gateway.envoyproxy.io/v1alpha1\n\
         kind: EnvoyProxy\n\
         metadata:\n  name: traced\n  namespace: envoy-gateway-system\n\
         spec:\n  telemetry:\n    tracing:\n{tracing}"
    )
}

/// Everything of it to the collector at `address`; `more` is beside the provider.
fn proxy_to(address: SocketAddr, more: &str) -> String {
    let (host, port) = (address.ip(), address.port());
    proxy(&format!("provider:\n  type: OpenTelemetry\n  host: {host}\n  port: {port}\n{more}"))
}

/// A gateway whose class has this EnvoyProxy.
fn setup(proxy: &str) -> Setup {
    let class = format!(
        "{GATEWAY_CLASS}  parametersRef:\n    group: gateway.envoyproxy.io\n    kind: EnvoyProxy\n    \
         name: traced\n    namespace: envoy-gateway-system\n"
    );
    Gateway::setup().file("common/gatewayclass.yaml", &class).file("common/proxy.yaml", proxy)
}

/// One that sends everything for shop.test to `shop`.
async fn gateway(collector: SocketAddr, shop: SocketAddr) -> Gateway {
    setup(&proxy_to(collector, ""))
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop]))
        .start()
        .await
}

/// The trace and the span of a `traceparent`, and whether it is sampled.
fn parts(traceparent: &str) -> (String, String, bool) {
    let parts: Vec<&str> = traceparent.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { panic!("{traceparent}") };
    assert_eq!((version, trace.len(), span.len(), flags.len()), ("00", 32, 16, 2));
    (trace.to_owned(), span.to_owned(), flags == "01")
}

/// The value of a metric that has no label.
async fn metric(at: SocketAddr, name: &str) -> u64 {
    let mut wire = loop {
        // The gateway is ready before its metrics are.
        if let Ok(stream) = tokio::net::TcpStream::connect(at).await {
            break Wire::tcp(stream);
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    wire.send(format!("GET /metrics HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n")).await;
    let text = wire.reply().await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
}

/// Waits until a metric has come to `least`.
async fn counted(at: SocketAddr, name: &str, least: u64) -> u64 {
    soon(name, async {
        loop {
            let value = metric(at, name).await;
            if value >= least {
                return value;
            }
            // What is waited for is counted by another thread of the gateway.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_request_begins_a_trace() {
    let (collector, shop) = (Collector::start().await, Origin::replying("served").await);
    let gateway = gateway(collector.address, shop.address).await;
    let url = "http://shop.test/cart?item=7&access_token=hunter2";
    let reply = gateway.get_with(url, "User-Agent: story\r\n").await;
    assert_eq!(reply.text(), "served");

    let seen = shop.last();
    let (trace, span, sampled) = parts(&seen.header("traceparent").unwrap());
    assert!(sampled && seen.header("tracestate").is_none());
    let line = gateway.logged("the request", |line| line["status"] == 200).await;
    assert_eq!(line["trace_id"], *trace);

    let (request, tries) = collector.trace(&trace).await;
    assert_eq!((&*request.name, request.kind, &*request.parent), ("ingress", SpanKind::Server, ""));
    let [only] = &tries[..] else { panic!("{tries:?}") };
    let rule = "httproute/envoy-gateway-system/shop/rule/0";
    assert_eq!((only.kind, &*only.id, &*only.trace), (SpanKind::Client, &*span, &*trace));
    assert_eq!(only.name, format!("router {rule} egress"));
    assert!(!request.failed && !only.failed);
    assert!(request.began <= only.began && only.began <= only.ended && only.ended <= request.ended);

    for (name, value) in [
        ("component", "proxy"),
        ("guid:x-request-id", &*seen.header("x-request-id").unwrap()),
        ("http.method", "GET"),
        ("http.protocol", "HTTP/1.1"),
        ("http.status_code", "200"),
        ("http.url", "http://shop.test/cart?item=7&access_token=[redacted]"),
        ("peer.address", "127.0.0.1"),
        ("request_size", "0"),
        ("response_flags", "-"),
        ("response_size", "6"),
        ("route_name", rule),
        ("upstream_address", &*shop.address.to_string()),
        ("upstream_cluster", rule),
        ("user_agent", "story"),
        ("error", ""),
    ] {
        assert_eq!(request.get(name), value, "{name}");
    }
    assert_eq!(request.resource["service.name"], "eg.envoy-gateway-system");
    assert_eq!(only.get("upstream_address"), shop.address.to_string());
    assert_eq!((only.get("http.status_code"), only.get("retry.count")), ("200", ""));
}

#[tokio::test]
async fn a_trace_is_continued_over_http2_and_grpc() {
    let (collector, shop) = (Collector::start().await, Echo::start().await);
    let files = h2c_backend("shop", &[shop.address])
        + &http_route("shop", &["shop.test"], &rule_to("/", "shop"));
    let gateway =
        setup(&proxy_to(collector.address, "")).file("routes/shop.yaml", &files).start().await;
    let mut http2 = gateway.http2("shop.test").await;
    for (content, body) in [("text/plain", &b"x"[..]), ("application/grpc", b"\0\0\0\0\x01x")] {
        let request = Request::post("https://shop.test/shop.Orders/Place")
            .header("content-type", content)
            .header("te", "trailers")
            .header("traceparent", format!("00-{TRACE}-{SPAN}-01"))
            .header("tracestate", "congo=t61rcWkgMzE")
            .header("tracestate", "rojo=1");
        let answer = http2.fetch(request.body(full(body)).unwrap()).await.unwrap();
        assert_eq!(answer.status, 200, "{content}");
        if content == "text/plain" {
            let headers = &answer.json()["headers"];
            let told = parts(headers["traceparent"][0].as_str().unwrap());
            assert_eq!((&*told.0, told.2), (TRACE, true));
            assert_eq!(headers["tracestate"], serde_json::json!(["congo=t61rcWkgMzE,rojo=1"]));
        }
    }
    let is_request = |span: &Span| span.trace == TRACE && span.parent == SPAN;
    let requests = collector.took("both requests", 2, is_request).await;
    for request in &requests {
        assert_eq!((request.kind, &*request.name), (SpanKind::Server, "ingress"));
        assert_eq!(request.state, "congo=t61rcWkgMzE,rojo=1");
        assert_eq!(request.get("http.protocol"), "HTTP/2");
        assert_eq!(request.get("http.url"), "https://shop.test/shop.Orders/Place");
        let tries = collector.took("its try", 1, |span| span.parent == request.id).await;
        assert_eq!((tries.len(), tries[0].kind), (1, SpanKind::Client));
    }
    assert_ne!(requests[0].id, requests[1].id);
    let ends: Vec<_> = requests.iter().map(|span| span.get("grpc.status_code")).collect();
    assert_eq!(ends, ["", "0"]);
    let line = gateway.logged("a request", |line| line["protocol"] == "HTTP/2").await;
    assert_eq!(line["trace_id"], TRACE);
}

#[tokio::test]
async fn what_its_caller_does_not_sample_is_passed_on_and_not_exported() {
    let (collector, shop) = (Collector::start().await, Origin::replying("served").await);
    let gateway = gateway(collector.address, shop.address).await;
    let lines = format!("traceparent: 00-{TRACE}-{SPAN}-00\r\ntracestate: a=1\r\n");
    gateway.get_with("http://shop.test/unsampled", &lines).await;
    let told = parts(&shop.last().header("traceparent").unwrap());
    assert_eq!((&*told.0, told.2), (TRACE, false));
    assert_ne!(told.1, SPAN);
    assert_eq!(shop.last().header("tracestate").unwrap(), "a=1");
    let line = gateway.logged("the request", |line| line["path"] == "/unsampled").await;
    assert_eq!(line["trace_id"], TRACE);

    // What comes after it is exported, and in the order in which it came.
    gateway.get("http://shop.test/sampled").await;
    let (trace, ..) = parts(&shop.last().header("traceparent").unwrap());
    collector.trace(&trace).await;
    assert!(collector.spans().iter().all(|span| span.trace == trace), "{:?}", collector.spans());
}

#[tokio::test]
async fn a_share_of_requests_is_sampled_and_none_at_a_rate_of_0() {
    let (collector, shop) = (Collector::start().await, Origin::replying("served").await);
    let gateway = setup(&proxy_to(collector.address, "samplingRate: 0\n"))
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    for _ in 0..20 {
        gateway.get("http://shop.test/").await;
        assert!(!parts(&shop.last().header("traceparent").unwrap()).2);
    }
    let half = "samplingFraction: {numerator: 1, denominator: 2}\n";
    gateway.write("common/proxy.yaml", &proxy_to(collector.address, half));
    gateway.reload().await;
    let mut sampled = 0;
    for _ in 0..200 {
        gateway.get("http://shop.test/").await;
        sampled += usize::from(parts(&shop.last().header("traceparent").unwrap()).2);
    }
    // Off by 50 of 100 is 7 standard deviations.
    assert!((50..=150).contains(&sampled), "{sampled} of 200");
    collector.took("the sampled", sampled, |span| span.kind == SpanKind::Server).await;
}

#[tokio::test]
async fn a_broken_traceparent_is_replaced() {
    let (collector, shop) = (Collector::start().await, Origin::replying("served").await);
    let gateway = gateway(collector.address, shop.address).await;
    let good = format!("00-{TRACE}-{SPAN}-01");
    let zeros = "0".repeat(32);
    for broken in [
        format!("traceparent: ff-{TRACE}-{SPAN}-01\r\n"),
        format!("traceparent: 00-{zeros}-{SPAN}-01\r\n"),
        format!("traceparent: 00-{}-{SPAN}-01\r\n", TRACE.to_uppercase()),
        format!("traceparent: {good}-more\r\n"),
        format!("traceparent: {good}\r\ntraceparent: {good}\r\n"),
        "traceparent: \r\n".into(),
        String::new(),
    ] {
        gateway.get_with("http://shop.test/", &format!("{broken}tracestate: a=1\r\n")).await;
        let seen = shop.last();
        let (trace, _, sampled) = parts(&seen.header("traceparent").unwrap());
        assert!(sampled && trace != TRACE, "{broken}");
        assert_eq!(seen.header("tracestate"), None, "{broken}");
        let (request, _) = collector.trace(&trace).await;
        assert_eq!(request.parent, "", "{broken}");
    }
}

#[tokio::test]
async fn each_try_has_a_span_of_its_own() {
    let collector = Collector::start().await;
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let shop =
        Origin::scripted(move |_| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            // On a connection that was kept, what is reset next would be sent again unseen.
            0 => Answer::status(503, "not yet").then(Step::Close),
            1 => Answer::reset(),
            _ => Answer::ok("served"),
        })
        .await;
    let rules = "- backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: shop}]\n  \
                 retry: {codes: [503], attempts: 2, backoff: 1ms}\n";
    let files = backend("shop", &[shop.address]) + &http_route("shop", &["shop.test"], rules);
    let gateway =
        setup(&proxy_to(collector.address, "")).file("routes/shop.yaml", &files).start().await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "served");
    let told: Vec<_> =
        shop.seen().iter().map(|seen| parts(&seen.header("traceparent").unwrap())).collect();
    let (request, tries) = collector.trace(&told[0].0).await;
    assert_eq!(request.get("http.status_code"), "200");
    let ids: Vec<_> = tries.iter().map(|span| &*span.id).collect();
    assert_eq!(ids, told.iter().map(|told| &*told.1).collect::<Vec<_>>());
    let came_to = |span: &Span| {
        let names = ["http.status_code", "response_flags", "retry.count", "error"];
        names.map(|name| span.get(name).to_owned())
    };
    assert_eq!(came_to(&tries[0]), ["503", "-", "", "true"]);
    assert_eq!(came_to(&tries[1]), ["0", "UC", "1", "true"]);
    assert_eq!(came_to(&tries[2]), ["200", "-", "2", ""]);
    assert_eq!(tries.iter().map(|span| span.failed).collect::<Vec<_>>(), [true, true, false]);
    assert!(tries[0].ended <= tries[1].began && tries[1].ended <= tries[2].began);
}

#[tokio::test]
async fn what_no_backend_answers_has_a_span_too() {
    let collector = Collector::start().await;
    let gateway = gateway(collector.address, refusing_address()).await;
    assert_eq!(gateway.get("http://shop.test/").await.status(), 503);
    let line = gateway.logged("the failure", |line| line["status"] == 503).await;
    let (request, tries) = collector.trace(line["trace_id"].as_str().unwrap()).await;
    assert!(request.failed && tries[0].failed);
    assert_eq!((request.get("response_flags"), request.get("error")), ("UF", "true"));

    let files = h2c_backend("shop", &[refusing_address()])
        + &http_route("shop", &["shop.test"], &rule_to("/", "shop"));
    let calls =
        setup(&proxy_to(collector.address, "")).file("routes/shop.yaml", &files).start().await;
    let mut http2 = calls.http2("shop.test").await;
    let call = Request::post("https://shop.test/shop.Orders/Place")
        .header("content-type", "application/grpc");
    assert_eq!(http2.fetch(call.body(full("")).unwrap()).await.unwrap().status, 200);
    let line = calls.logged("the call", |line| line["protocol"] == "HTTP/2").await;
    let (request, tries) = collector.trace(line["trace_id"].as_str().unwrap()).await;
    assert!(request.failed && tries[0].failed);
    assert_eq!((request.get("grpc.status_code"), request.get("error")), ("14", "true"));

    assert_eq!(gateway.get("http://nobody.test/").await.status(), 404);
    let line = gateway.logged("no route", |line| line["status"] == 404).await;
    let (request, tries) = collector.trace(line["trace_id"].as_str().unwrap()).await;
    assert!(!request.failed && tries.is_empty());
    assert_eq!((request.get("response_flags"), request.get("route_name")), ("NR", ""));
}

#[tokio::test]
async fn tags_metadata_and_resource_are_those_of_the_configuration() {
    let (collector, shop) = (Collector::start().await, Origin::replying("served").await);
    let refs = "provider:\n  type: OpenTelemetry\n  serviceName: front-door\n  backendRefs:\n    \
                - {group: gateway.envoyproxy.io, kind: Backend, name: collector}\n  \
                openTelemetry:\n    headers: [{name: x-api-key, value: sesame-17}]\n    \
                resourceAttributes: {deployment.environment: story}\n\
                customTags:\n  \
                team: {type: Literal, literal: {value: web}}\n  \
                domain: {type: Environment, environment: {name: DOMAIN}}\n  \
                zone: {type: Environment, environment: {name: NO_SUCH, defaultValue: here}}\n  \
                tenant: {type: RequestHeader, requestHeader: {name: X-Tenant}}\n  \
                tier: {type: RequestHeader, requestHeader: {name: X-Tier, defaultValue: free}}\n  \
                nothing: {type: RequestHeader, requestHeader: {name: X-Nothing}}\n";
    let files = serve_all("shop", "shop.test", &[shop.address])
        + &h2c_backend("collector", &[collector.address]);
    let gateway = setup(&proxy(refs)).file("routes/shop.yaml", &files).start().await;
    gateway.get_with("http://shop.test/", &format!("X-Tenant: {}\r\n", "t".repeat(300))).await;
    let (trace, ..) = parts(&shop.last().header("traceparent").unwrap());
    let (request, tries) = collector.trace(&trace).await;
    assert_eq!((tries[0].get("team"), tries[0].get("tier")), ("web", "free"));
    assert_eq!((request.get("team"), request.get("domain")), ("web", "gateway.test"));
    assert_eq!((request.get("zone"), request.get("tier")), ("here", "free"));
    assert_eq!(request.get("tenant"), "t".repeat(256));
    assert!(!request.attributes.contains_key("nothing"));
    assert_eq!(request.resource["service.name"], "front-door");
    assert_eq!(request.resource["deployment.environment"], "story");
    let call = &collector.calls()[0];
    assert_eq!(
        (&call["x-api-key"], &call["te"]),
        (&"sesame-17".parse().unwrap(), &"trailers".parse().unwrap())
    );
    assert!(!gateway.process().stderr().contains("sesame-17"));
}

#[tokio::test]
async fn a_collector_that_is_down_costs_spans_and_nothing_else() {
    let (at, shop) = (free_address(), Origin::replying("served").await);
    let down = SocketAddr::from((own_loopback(), 4317));
    let gateway = setup(&proxy_to(down, ""))
        .metrics_at(at)
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    for _ in 0..10 {
        assert_eq!(gateway.get("http://shop.test/").await.text(), "served");
    }
    assert_eq!(counted(at, "edge_gateway_spans_dropped_total", 20).await, 20);
    assert_eq!(metric(at, "edge_gateway_spans_exported_total").await, 0);
    let said = |what| gateway.process().stderr().contains(what);
    until("it is told", || said("traces cannot be exported")).await;

    let collector = Collector::at(down, |_| Takes::All).await;
    gateway.get("http://shop.test/").await;
    let (trace, ..) = parts(&shop.last().header("traceparent").unwrap());
    collector.trace(&trace).await;
    assert_eq!(counted(at, "edge_gateway_spans_exported_total", 2).await, 2);
    until("it is told", || said("traces are exported again")).await;
}

#[tokio::test]
async fn a_collector_that_does_not_answer_fills_its_queue_and_no_more() {
    let (at, shop) = (free_address(), Origin::replying("served").await);
    let collector = Collector::answering(|_| Takes::Never).await;
    let gateway = setup(&proxy_to(collector.address, ""))
        .metrics_at(at)
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let mut wire = gateway.wire().await;
    let asks = "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n".repeat(100);
    // Two spans each: 4096 have room in the queue, 256 in the message that is not answered.
    for _ in 0..24 {
        wire.send(&asks).await;
        for _ in 0..100 {
            assert_eq!(wire.reply().await.text(), "served");
        }
    }
    let dropped = counted(at, "edge_gateway_spans_dropped_total", 1).await;
    assert!((448..=704).contains(&dropped), "{dropped} of 4800 spans");
    // Nor does it hold up the end.
    drop(wire);
    let begun = clock();
    gateway.terminate();
    assert!(gateway.exit().await.success());
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_a_collector_says_is_believed_if_it_is_a_status() {
    let (at, shop) = (free_address(), Origin::replying("served").await);
    // (answer, calls that it is worth, spans of two that are taken)
    let table = [
        (Takes::AllBut(1), 1, 1),
        (Takes::AllBut(3), 1, 0),
        (Takes::AllBut(-1), 1, 2),
        (Takes::Status("7"), 1, 0),
        (Takes::Status("x"), 1, 0),
        (Takes::Http(404), 1, 0),
        (Takes::Flood, 1, 0),
        (Takes::Short, 1, 0),
        (Takes::Silence, 1, 0),
        (Takes::Status("14"), 2, 2),
        (Takes::Http(503), 2, 2),
    ];
    let mut answers = Vec::new();
    for (answer, calls, _) in table {
        answers.push(answer);
        // What may be asked again is taken then.
        answers.extend((calls == 2).then_some(Takes::All));
    }
    let collector =
        Collector::answering(move |call| answers.get(call).copied().unwrap_or(Takes::All)).await;
    let gateway = setup(&proxy_to(collector.address, ""))
        .metrics_at(at)
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let (mut dropped, mut exported) = (0, 0);
    for (answer, calls, taken) in table {
        let before = collector.calls().len();
        gateway.get("http://shop.test/").await;
        collector.called(before + calls).await;
        exported += taken;
        dropped += 2 - taken;
        let came = counted(at, "edge_gateway_spans_dropped_total", dropped).await;
        assert_eq!(came, dropped, "{answer:?}");
        let came = counted(at, "edge_gateway_spans_exported_total", exported).await;
        assert_eq!(came, exported, "{answer:?}");
    }
}

#[tokio::test]
async fn a_reload_leaves_no_span_behind() {
    let shop = Origin::replying("served").await;
    let (first, second) = (Collector::start().await, Collector::start().await);
    let gateway = gateway(first.address, shop.address).await;
    let ask = async || {
        gateway.get("http://shop.test/").await;
        parts(&shop.last().header("traceparent").unwrap()).0
    };
    let to_first = ask().await;
    first.trace(&to_first).await;
    // Another route, the same collector: the connection to it stays.
    let route = serve_all("blog", "blog.test", &[shop.address]);
    gateway.write("routes/blog.yaml", &route);
    gateway.reload().await;
    let to_first = ask().await;
    first.trace(&to_first).await;
    assert_eq!(first.connections(), 1);

    // What waits for the one is not lost for the other.
    let to_first = ask().await;
    gateway.write("common/proxy.yaml", &proxy_to(second.address, ""));
    gateway.reload().await;
    let to_second = ask().await;
    first.trace(&to_first).await;
    second.trace(&to_second).await;
    assert!(second.spans().iter().all(|span| span.trace == to_second));

    // Without a collector a request is passed on as it is.
    gateway.remove("common/proxy.yaml");
    gateway.write("common/gatewayclass.yaml", GATEWAY_CLASS);
    gateway.reload().await;
    gateway.get_with("http://shop.test/off", "traceparent: anything\r\n").await;
    assert_eq!(shop.last().header("traceparent").unwrap(), "anything");
    let line = gateway.logged("the request", |line| line["path"] == "/off").await;
    assert!(line["trace_id"].is_null(), "{line}");
}

#[tokio::test]
async fn the_last_spans_are_sent_before_the_end() {
    let (collector, shop) = (Collector::start().await, Origin::replying("served").await);
    let gateway = gateway(collector.address, shop.address).await;
    gateway.get("http://shop.test/").await;
    gateway.terminate();
    assert!(gateway.exit().await.success());
    let (trace, ..) = parts(&shop.last().header("traceparent").unwrap());
    let kinds: Vec<_> =
        collector.spans().iter().map(|span| (span.trace == trace, span.kind)).collect();
    assert_eq!(kinds, [(true, SpanKind::Client), (true, SpanKind::Server)]);
}
