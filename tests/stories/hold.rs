//! Requests held while a backend restarts: `edge-gateway.io/hold-requests-for`.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use nix::sys::signal::Signal;
use tokio::net::TcpStream;

use crate::metrics::{scrape, value};
use crate::needs::{INSTALL, needs};
use crate::support::{
    Answer, Gateway, Origin, Process, Setup, Wire, clock, free_address, full, in_package,
    serve_all, soon,
};

/// A route `shop` to an address, whose Backend has these annotations.
fn held(shop: SocketAddr, annotations: &str) -> String {
    serve_all("shop", "shop.test", &[shop]).replacen(
        "metadata:\n  name: shop\n",
        &format!("metadata:\n  name: shop\n  annotations: {{{annotations}}}\n"),
        1,
    )
}

fn setup(shop: SocketAddr, annotations: &str, metrics: SocketAddr) -> Setup {
    Gateway::setup().metrics_at(metrics).file("routes/shop.yaml", &held(shop, annotations))
}

const FOR_LONG: &str = "edge-gateway.io/hold-requests-for: 30s";

fn of_rule(text: &str, name: &str) -> f64 {
    let labels = "{envoy_cluster_name=\"httproute/envoy-gateway-system/shop/rule/0\"}";
    value(text, &format!("edge_gateway_cluster_rq_held_{name}{labels}"))
}

async fn until_held(metrics: SocketAddr, count: f64) {
    soon("requests wait", async {
        while of_rule(&scrape(metrics).await, "active") != count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn sent(gateway: &Gateway, request: &str) -> Wire {
    let mut wire = gateway.wire().await;
    wire.send(request).await;
    wire
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: shop.test\r\n\r\n";
const POST: &str = "POST /b HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\norder";

async fn back(at: SocketAddr) -> Origin {
    Origin::at(at, |_| Answer::ok("served")).await
}

#[tokio::test]
async fn requests_wait_for_a_backend_that_restarts_and_none_fails() {
    let (shop, metrics) = (free_address(), free_address());
    let gateway = setup(shop, FOR_LONG, metrics).start().await;
    let mut waiting = Vec::new();
    for request in [GET, POST].repeat(10) {
        waiting.push(sent(&gateway, request).await);
    }
    let mut http2 = gateway.http2("shop.test").await;
    let over_http2 = Request::post("https://shop.test/b").body(full("order")).unwrap();
    let over_http2 = tokio::spawn(async move { http2.fetch(over_http2).await.unwrap().status });
    until_held(metrics, 21.0).await;

    let origin = back(shop).await;
    for mut wire in waiting {
        assert_eq!(soon("an answer", wire.reply()).await.text(), "served");
    }
    assert_eq!(over_http2.await.unwrap(), 200);
    let orders = origin.requests().iter().filter(|seen| seen.text() == "order").count();
    assert_eq!((orders, origin.requests().len()), (11, 21), "each arrives once and whole");
    let line = gateway.logged("a request that waited", |line| line["status"] == 200).await;
    assert_eq!(
        (&line["details"], &line["attempts"], &line["flags"]),
        (&"via_upstream{held}".into(), &1.into(), &"-".into()),
        "{line}"
    );
    let text = scrape(metrics).await;
    assert_eq!((of_rule(&text, "total"), of_rule(&text, "active")), (21.0, 0.0));
    // A request that does not wait is like any other.
    assert_eq!(gateway.get("http://shop.test/quick").await.text(), "served");
    let line = gateway.logged("one that did not", |line| line["path"] == "/quick").await;
    assert_eq!(line["details"], "via_upstream", "{line}");
}

#[tokio::test]
async fn the_wait_ends_after_its_time_and_the_request_fails_as_without_it() {
    let (shop, metrics) = (free_address(), free_address());
    let short = "edge-gateway.io/hold-requests-for: 700ms";
    let gateway = setup(shop, short, metrics).start().await;
    let begin = clock();
    let reply = gateway.get("http://shop.test/").await;
    let took = begin.elapsed();
    assert_eq!(reply.status(), 503);
    assert!(took >= Duration::from_millis(700) && took < Duration::from_secs(8), "{took:?}");
    let line = gateway.logged("the failure", |line| line["status"] == 503).await;
    assert_eq!(line["flags"], "UF");
    assert_eq!(line["details"], "upstream_reset_before_response_started{connection_failure|held}");
    assert_eq!(of_rule(&scrape(metrics).await, "timeout_total"), 1.0);
}

#[tokio::test]
async fn a_timeout_of_the_route_ends_the_wait() {
    let (shop, metrics) = (free_address(), free_address());
    let files = held(shop, FOR_LONG).replacen(
        "    - matches:",
        "    - timeouts: {request: 500ms}\n      matches:",
        1,
    );
    assert!(files.contains("500ms"), "{files}");
    let gateway =
        Gateway::setup().metrics_at(metrics).file("routes/shop.yaml", &files).start().await;
    let reply = gateway.get("http://shop.test/").await;
    assert_eq!(reply.status(), 504);
    let line = gateway.logged("the timeout", |line| line["status"] == 504).await;
    assert_eq!(line["flags"], "UT");
}

#[tokio::test]
async fn no_more_requests_wait_than_may_and_a_client_that_leaves_makes_room() {
    let (shop, metrics) = (free_address(), free_address());
    let two = format!("{FOR_LONG}, edge-gateway.io/hold-requests-limit: \"2\"");
    let gateway = setup(shop, &two, metrics).start().await;
    let mut waiting = vec![sent(&gateway, GET).await, sent(&gateway, POST).await];
    until_held(metrics, 2.0).await;
    let reply = gateway.get("http://shop.test/third").await;
    assert_eq!(reply.status(), 503);
    let line = gateway.logged("the refusal", |line| line["status"] == 503).await;
    assert_eq!(
        line["details"], "upstream_reset_before_response_started{connection_failure}",
        "it did not wait"
    );
    assert_eq!(of_rule(&scrape(metrics).await, "overflow_total"), 1.0);

    drop(waiting.remove(0));
    until_held(metrics, 1.0).await;
    waiting.push(sent(&gateway, GET).await);
    until_held(metrics, 2.0).await;
    let _origin = back(shop).await;
    for mut wire in waiting {
        assert_eq!(soon("an answer", wire.reply()).await.text(), "served");
    }
}

#[tokio::test]
async fn reloads_and_the_end_of_the_process_lose_no_request_that_waits() {
    let (shop, metrics) = (free_address(), free_address());
    let gateway = setup(shop, FOR_LONG, metrics).start().await;
    let mut first = sent(&gateway, POST).await;
    until_held(metrics, 1.0).await;
    let other = serve_all("other", "other.test", &[shop]);
    gateway.write("routes/other.yaml", &other);
    gateway.reload().await;
    let mut second = sent(&gateway, POST).await;
    until_held(metrics, 2.0).await;
    gateway.terminate();
    gateway.notify().message("STOPPING=1", 0, |message| message.is("STOPPING")).await;
    let _origin = back(shop).await;
    for wire in [&mut first, &mut second] {
        assert_eq!(soon("an answer", wire.reply()).await.text(), "served");
    }
    assert!(gateway.exit().await.success());
}

/// A process that ends leaves the connections that it has not accepted yet to a reset.
#[tokio::test]
async fn what_a_backend_may_have_received_is_sent_again_only_if_it_may_be() {
    let (asked, metrics) = (AtomicUsize::new(0), free_address());
    let shop = Origin::scripted(move |_| match asked.fetch_add(1, Ordering::SeqCst) % 3 {
        0 | 1 => Answer::reset(),
        _ => Answer::ok("served"),
    })
    .await;
    let gateway = setup(shop.address, FOR_LONG, metrics).start().await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "served");
    assert_eq!(shop.seen().len(), 3);
    let mut post = sent(&gateway, POST).await;
    assert_eq!(soon("an answer", post.reply()).await.status(), 502);
    assert_eq!(shop.seen().len(), 4, "an order is not placed twice");
}

#[tokio::test]
async fn explain_and_check_say_what_waits() {
    let (shop, metrics) = (free_address(), free_address());
    let gateway = setup(shop, FOR_LONG, metrics).start().await;
    let printed = run(gateway.setup_ref().command("explain http://shop.test/a")).await;
    assert!(printed.contains("; while it restarts, up to 1000 requests wait for 30s"), "{printed}");
    gateway.write("routes/shop.yaml", &held(shop, "edge-gateway.io/hold-requests-for: soon"));
    let mut check = gateway.setup_ref().command("check");
    check.args(gateway.setup_ref().files());
    let printed = run(check).await;
    assert!(printed.contains("expected a duration of at most 5m, like `10s`"), "{printed}");
    assert!(printed.contains("shop.yaml:6:"), "{printed}");
}

/// The output of a command.
async fn run(mut command: Command) -> String {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

/// gunicorn with a thread pool, once it listens at `at`: what `systemctl start` does.
async fn gunicorn(at: SocketAddr) -> Option<Process> {
    let gunicorn = in_package("tests/.cache/venv/bin/gunicorn");
    let there = gunicorn.exists().then_some(gunicorn);
    let mut command = Command::new(needs("Django with gunicorn", there, INSTALL)?);
    command.current_dir(in_package("tests/django"));
    command.args(["--threads", "4", "--bind", &at.to_string(), "billing.wsgi"]);
    command.env("DOMAIN", "shop.test").env("PYTHONDONTWRITEBYTECODE", "1");
    let process = Process::spawn_with_children(command);
    soon("gunicorn answers", async {
        // It listens before its worker has begun, and tells nobody but its log.
        while !answers(at).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    Some(process)
}

async fn answers(at: SocketAddr) -> bool {
    let Ok(stream) = TcpStream::connect(at).await else { return false };
    let mut wire = Wire::tcp(stream);
    wire.push(b"GET /billing/ HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.is_ok()
        && wire.try_reply_to("GET").await.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gunicorn_is_restarted_under_load_and_no_request_fails() {
    let (shop, metrics) = (free_address(), free_address());
    let Some(mut service) = gunicorn(shop).await else { return };
    let gateway = Arc::new(setup(shop, FOR_LONG, metrics).start().await);
    let (done, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let (gateway, done, count) =
                (Arc::clone(&gateway), Arc::clone(&done), Arc::clone(&count));
            tokio::spawn(async move {
                let mut kept = gateway.tls_wire("shop.test").await;
                while !done.load(Ordering::Relaxed) {
                    let reply = if number % 2 == 0 {
                        gateway.get("https://shop.test/billing/").await
                    } else {
                        kept.send("GET /billing/ HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
                        kept.reply().await
                    };
                    assert_eq!(reply.status(), 200, "{reply:?}");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let more = async |what: &str| {
        let enough = count.load(Ordering::Relaxed) + 40;
        soon(what, async {
            while count.load(Ordering::Relaxed) < enough {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    };
    for _ in 0..3 {
        more("requests are under way").await;
        service.signal(Signal::SIGTERM);
        service.exit().await;
        service = gunicorn(shop).await.unwrap();
    }
    more("it serves again").await;
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let text = scrape(metrics).await;
    assert!(of_rule(&text, "total") >= 3.0, "{} waited", of_rule(&text, "total"));
    assert_eq!(of_rule(&text, "timeout_total"), 0.0);
}
