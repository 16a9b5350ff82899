//! More than one try (GEP-1731).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{
    Answer, Gateway, Origin, Seen, backend, clock, h2c_backend, http_route, refusing_address,
};

/// Everything for shop.test to `addresses`; `settings` are lines of the rule.
fn route(addresses: &[SocketAddr], settings: &str) -> String {
    let rules = format!(
        "- backendRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: shop}}]\n{settings}"
    );
    format!("{}{}", backend("shop", addresses), http_route("shop", &["shop.test"], &rules))
}

async fn gateway(addresses: &[SocketAddr], settings: &str) -> Gateway {
    Gateway::setup().file("routes/shop.yaml", &route(addresses, settings)).start().await
}

/// A backend that answers `failing` until it was asked `failures` times.
async fn recovering(failures: usize, failing: Answer) -> Origin {
    let asked = AtomicUsize::new(0);
    Origin::scripted(move |_: &Seen| match asked.fetch_add(1, Ordering::SeqCst) {
        number if number < failures => failing.clone(),
        _ => Answer::ok("served"),
    })
    .await
}

#[tokio::test]
async fn listed_codes_are_tried_again_and_the_last_answer_is_passed_on() {
    // (codes, attempts, code, failures, status, tries)
    let table = [
        ("500", 3, 500, 2, 200, 3),
        ("500", 3, 500, 4, 500, 4),
        ("500", 3, 503, 2, 503, 1),
        ("500, 502, 503, 504", 2, 502, 1, 200, 2),
        ("500, 502, 503, 504", 2, 504, 3, 504, 3),
        ("429", 1, 429, 1, 200, 2),
    ];
    for (codes, attempts, code, failures, status, tries) in table {
        let what = format!("{codes} {attempts}: {code} {failures}");
        let shop = recovering(failures, Answer::status(code, "not yet")).await;
        let settings = format!("  retry: {{codes: [{codes}], attempts: {attempts}, backoff: 1ms}}");
        let gateway = gateway(&[shop.address], &settings).await;
        let reply = gateway.get("http://shop.test/").await;
        assert_eq!(reply.status(), status, "{what}");
        assert_eq!(reply.text(), if status == 200 { "served" } else { "not yet" }, "{what}");
        assert_eq!(shop.seen().len(), tries, "{what}");
        let line = gateway.logged(&what, |line| line["status"] == status).await;
        assert_eq!(line["attempts"], tries, "{line}");
        let spent = tries == attempts + 1 && status != 200;
        assert_eq!(line["flags"], if spent { "URX" } else { "-" }, "{line}");
    }
}

#[tokio::test]
async fn a_connection_that_fails_is_tried_again() {
    let reset = recovering(2, Answer::reset()).await;
    let gateway = gateway(&[reset.address], "  retry: {attempts: 2, backoff: 1ms}").await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "served");
    assert_eq!(reset.seen().len(), 3);

    // (backend, settings, status, flags, tries)
    let resets = Origin::scripted(|_| Answer::reset()).await;
    let silent = Origin::scripted(|_| Answer::hang()).await;
    let limited = "  timeouts: {backendRequest: 100ms}\n  retry: {attempts: 2, backoff: 1ms}";
    let table = [
        (resets.address, "  retry: {attempts: 2, backoff: 1ms}", 503, "UC,URX", 3),
        (resets.address, "", 502, "UC", 1),
        (refusing_address(), "  retry: {attempts: 1, backoff: 1ms}", 503, "UF,URX", 2),
        (silent.address, limited, 504, "UT,URX", 3),
    ];
    for (address, settings, status, flags, tries) in table {
        gateway.write("routes/shop.yaml", &route(&[address], settings));
        gateway.reload().await;
        assert_eq!(gateway.get("http://shop.test/failing").await.status(), status, "{settings}");
        let line = gateway.logged(flags, |line| line["flags"] == flags).await;
        assert_eq!((&line["attempts"], &line["status"]), (&tries.into(), &status.into()), "{line}");
    }
    assert_eq!(silent.connections(), 3, "each try is given up before the next");
}

#[tokio::test]
async fn all_tries_together_keep_to_the_limit_of_the_request() {
    let silent = Origin::scripted(|_| Answer::hang()).await;
    let settings = "  timeouts: {request: 500ms, backendRequest: 200ms}\n  \
                    retry: {attempts: 9, backoff: 10ms}";
    let gateway = gateway(&[silent.address], settings).await;
    let start = clock();
    assert_eq!(gateway.get("http://shop.test/").await.status(), 504);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let tries = silent.connections();
    assert!((2..=3).contains(&tries), "{tries} tries of 200 ms in 500 ms");

    // What came is passed on where the wait for another try is longer than what is left.
    let busy = Origin::scripted(|_| Answer::status(503, "busy")).await;
    let settings = "  timeouts: {request: 10s}\n  retry: {codes: [503], backoff: 10s}";
    gateway.write("routes/shop.yaml", &route(&[busy.address], settings));
    gateway.reload().await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "busy");
    assert_eq!(busy.seen().len(), 1);
}

#[tokio::test]
async fn another_try_waits_for_the_backoff_and_goes_to_another_endpoint() {
    let failing = Origin::scripted(|_| Answer::status(503, "")).await;
    let serving = Origin::replying("served").await;
    let settings = "  retry: {codes: [503], attempts: 1, backoff: 300ms}";
    let gateway = gateway(&[failing.address, serving.address], settings).await;
    let start = clock();
    for _ in 0..4 {
        assert_eq!(gateway.get("http://shop.test/").await.text(), "served");
    }
    assert_eq!(failing.seen().len(), 2, "each endpoint has its turn");
    assert!(start.elapsed() >= Duration::from_millis(600), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_body_is_sent_again_if_it_is_short_enough_to_be_kept() {
    let settings = "  retry: {codes: [503], attempts: 1, backoff: 1ms}";
    // (length, framed by its length, tries, status)
    let table = [
        (5, true, 2, 200),
        (64 << 10, true, 2, 200),
        (64 << 10, false, 2, 200),
        ((64 << 10) + 1, true, 1, 503),
        (1 << 20, false, 1, 503),
    ];
    for (length, has_length, tries, status) in table {
        let what = format!("{length} bytes, {has_length}");
        let shop = recovering(1, Answer::status(503, "")).await;
        let gateway = gateway(&[shop.address], settings).await;
        let mut client = gateway.wire().await;
        let body: Vec<u8> = (0..length).map(|at: usize| b"retry-this"[at % 10]).collect();
        let framing = match has_length {
            true => format!("Content-Length: {length}\r\n\r\n"),
            false => format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n"),
        };
        client.send(format!("POST / HTTP/1.1\r\nHost: shop.test\r\n{framing}")).await;
        client.send(&body).await;
        if !has_length {
            client.send("\r\n0\r\n\r\n").await;
        }
        assert_eq!(client.reply().await.status(), status, "{what}");
        let seen = shop.seen();
        assert_eq!(seen.len(), tries, "{what}");
        assert!(seen.iter().all(|seen| seen.body == body && seen.complete), "{what}");
    }
}

#[tokio::test]
async fn over_http2_a_try_is_as_good_as_over_http1() {
    // A port that takes connections and speaks no HTTP/2: each try ends there.
    let deaf = Arc::new(Origin::scripted(|_| Answer::reset()).await);
    let rules = "- backendRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: shop}]\n  \
                 retry: {attempts: 2, backoff: 1ms}";
    let yaml = format!(
        "{}{}",
        h2c_backend("shop", &[deaf.address]),
        http_route("shop", &["shop.test"], rules)
    );
    let gateway = Gateway::setup().file("routes/shop.yaml", &yaml).start().await;
    let mut client = gateway.http2("shop.test").await;
    assert_eq!(client.get("https://shop.test/").await.status, 503);
    let line = gateway.logged("three tries", |line| line["attempts"] == 3).await;
    assert_eq!(line["status"], 503, "{line}");
}
