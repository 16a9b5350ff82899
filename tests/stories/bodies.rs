//! Filters that see bodies or replace responses, on the wire: BackendTrafficPolicy `compressor`,
//! `responseOverride`, `requestBuffer`, `faultInjection`, `httpUpgrade`.

use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use http::Request;

use crate::metrics::{scrape, value};
use crate::needs::{INSTALL, needs};
use crate::support::{Answer, Gateway, Origin, Step, empty, free_address, serve_all};
use crate::traffic::policy;

/// A policy of route `shop` with these fields.
fn of_shop(fields: &str) -> String {
    policy("shop", "kind: HTTPRoute, name: shop", fields)
}

const ALL: &str =
    "  compressor: [{type: Brotli, brotli: {}}, {type: Gzip, gzip: {}}, {type: Zstd, zstd: {}}]\n";

async fn gateway(shop: &Origin, policy: &str) -> Gateway {
    let files = serve_all("shop", "shop.test", &[shop.address]) + policy;
    Gateway::setup().file("routes/shop.yaml", &files).start().await
}

/// Runs a program to its end.
async fn output_of(mut program: Command) -> Output {
    program.stderr(Stdio::null());
    tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap()
}

fn page() -> String {
    format!("<p>{}</p>", "all that a shop sells, and more. ".repeat(2000))
}

/// A backend of pages.
async fn pages() -> Origin {
    Origin::scripted(|seen| {
        let body = page();
        let length = body.len();
        let body = if seen.method() == "HEAD" { "" } else { &body };
        Answer::raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\
             ETag: \"1\"\r\nAccept-Ranges: bytes\r\n\r\n{body}"
        ))
    })
    .await
}

#[tokio::test]
async fn curl_reads_every_coding() {
    let there = std::path::Path::new("/usr/bin/curl").exists().then_some(());
    if needs("curl", there, INSTALL).is_none() {
        return;
    }
    let shop = pages().await;
    let files = serve_all("shop", "shop.test", &[shop.address]) + &of_shop(ALL);
    let metrics = free_address();
    let setup = Gateway::setup().file("routes/shop.yaml", &files);
    let gateway = setup.metrics_at(metrics).start().await;
    for (accepted, coding) in [
        ("gzip", "gzip"),
        ("br", "br"),
        ("zstd", "zstd"),
        ("gzip;q=0.5, zstd;q=0.4, *;q=0", "gzip"),
    ] {
        let resolve = format!("shop.test:{}:127.0.0.1", gateway.http().port());
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--compressed", "--include", "--resolve", &resolve])
            .args(["--header", &format!("Accept-Encoding: {accepted}")])
            .arg(format!("http://shop.test:{}/", gateway.http().port()));
        let output = output_of(curl).await;
        assert!(output.status.success(), "{accepted}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(body == page(), "{accepted}: {} bytes", body.len());
        let head = head.to_ascii_lowercase();
        assert!(head.contains(&format!("\r\ncontent-encoding: {coding}")), "{head}");
        assert!(head.contains("\r\nvary: accept-encoding"), "{head}");
        for gone in ["content-length:", "etag:", "accept-ranges:"] {
            assert!(!head.contains(gone), "{gone} {head}");
        }
        assert_eq!(shop.last().header("accept-encoding"), None);
    }
    let text = scrape(metrics).await;
    let of = |name: &str| value(&text, &format!("envoy_http_compressor_envoy_compression_{name}"));
    assert_eq!(of("gzip_compressor_gzip_response_compressed"), 2.0);
    assert_eq!(of("brotli_compressor_brotli_response_compressed"), 1.0);
    let length = page().len() as f64;
    assert_eq!(of("zstd_compressor_zstd_response_total_uncompressed_bytes"), length);
    let encoded = of("zstd_compressor_zstd_response_total_compressed_bytes");
    assert!(encoded > 0.0 && encoded < length / 4.0, "{encoded}");
}

#[tokio::test]
async fn a_browser_shows_what_was_compressed() {
    let chromium = std::path::Path::new("/usr/bin/chromium");
    if needs("chromium", chromium.exists().then_some(()), INSTALL).is_none() {
        return;
    }
    let shop = pages().await;
    // Without encryption a browser accepts gzip only.
    for (scheme, kind, coding) in [
        ("http", "Gzip, gzip: {}", "gzip"),
        ("https", "Brotli, brotli: {}", "br"),
        ("https", "Zstd, zstd: {}", "zstd"),
    ] {
        let gateway =
            gateway(&shop, &of_shop(&format!("  compressor: [{{type: {kind}}}]\n"))).await;
        let to = if scheme == "http" { gateway.http() } else { gateway.https() };
        let home = gateway.path("browser");
        let mut browser = Command::new("timeout");
        browser
            .arg("120")
            .arg(chromium)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-quic", "--ignore-certificate-errors", "--dump-dom"])
            .arg(format!("--user-data-dir={}", home.display()))
            .arg(format!("--host-resolver-rules=MAP shop.test 127.0.0.1:{}", to.port()))
            .arg(format!("{scheme}://shop.test/"))
            .env("HOME", &home);
        let output = output_of(browser).await;
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(shown.contains(&page()), "{coding}: {} bytes", shown.len());
        // It has asked for the page and accepts the coding, so the bytes on the wire were few.
        let line =
            gateway.logged("the page", |line| line["path"] == "/" && line["status"] == 200).await;
        let sent = line["response_bytes"].as_u64().unwrap();
        assert!(sent > 0 && sent < page().len() as u64 / 4, "{coding}: {line}");
    }
}

#[tokio::test]
async fn what_a_backend_sends_slowly_arrives_as_it_is_sent() {
    let wait = Duration::from_millis(700);
    let chunk = |text: &str| Step::Send(format!("{:x}\r\n{text}\r\n", text.len()).into());
    let shop = Origin::scripted(move |_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\
                    Trailer: X-Sum\r\n\r\n";
        let mut answer = Answer::raw(head);
        for number in 0..3 {
            answer = answer.then(chunk(&format!("data: {number}\n\n"))).then(Step::Wait(wait));
        }
        answer.then(Step::Send(b"0\r\nX-Sum: 3\r\n\r\n".into()))
    })
    .await;
    let gateway = gateway(&shop, &of_shop(ALL)).await;
    for coding in ["gzip", "br", "zstd"] {
        let mut wire = gateway.wire().await;
        let line = format!("Accept-Encoding: {coding}\r\n");
        wire.send(format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{line}\r\n")).await;
        let head = wire.head().await.unwrap();
        assert_eq!(head.one("content-encoding").as_deref(), Some(coding));
        let (mut encoded, began) = (Vec::new(), std::time::Instant::now());
        for number in 0..3 {
            let want = format!("data: {number}\n\n");
            // Each chunk must be there before the backend sends the next.
            let bound = wait * (number + 1) - Duration::from_millis(50);
            while !decoded(coding, &encoded).ends_with(want.as_bytes()) {
                let line = wire.through(b"\r\n").await.unwrap();
                let size = usize::from_str_radix(String::from_utf8(line).unwrap().trim(), 16);
                encoded.extend(wire.exactly(size.unwrap()).await);
                wire.exactly(2).await;
            }
            assert!(began.elapsed() < bound, "{coding} {number}: {:?}", began.elapsed());
        }
        wire.through(b"\r\n0\r\n\r\n").await.unwrap();
    }
    let mut client = gateway.http2("shop.test").await;
    let request = Request::get("https://shop.test/").header("accept-encoding", "gzip");
    let answer = client.fetch(request.body(empty()).unwrap()).await.unwrap();
    assert_eq!(decoded("gzip", &answer.body), b"data: 0\n\ndata: 1\n\ndata: 2\n\n");
    assert_eq!(answer.trailers.unwrap()["x-sum"], "3");
}

/// What can be decoded of the beginning of an encoded body.
fn decoded(coding: &str, encoded: &[u8]) -> Vec<u8> {
    let mut read: Box<dyn Read> = match coding {
        "gzip" => Box::new(flate2::read::GzDecoder::new(encoded)),
        "br" => Box::new(brotli::Decompressor::new(encoded, 1)),
        _ => Box::new(zstd::stream::read::Decoder::new(encoded).unwrap()),
    };
    let mut plain = Vec::new();
    let mut byte = [0];
    while read.read(&mut byte).is_ok_and(|count| count == 1) {
        plain.push(byte[0]);
    }
    plain
}

#[tokio::test]
async fn what_must_not_be_compressed_is_passed_on_as_it_is() {
    let shop = Origin::scripted(|seen| {
        let fields = seen.header("x-fields").unwrap_or_default().replace('|', "\r\n");
        let body = "a".repeat(100);
        let body = if seen.method() == "HEAD" { "" } else { &body };
        Answer::raw(format!("HTTP/1.1 {fields}\r\nContent-Length: 100\r\n\r\n{body}"))
    })
    .await;
    let gateway = gateway(&shop, &of_shop(ALL)).await;
    // (method, Accept-Encoding, status and fields of the backend)
    let table = [
        ("GET", "deflate", "200 OK|ETag: \"1\""),
        ("GET", "identity, gzip;q=0.5", "200 OK"),
        ("HEAD", "gzip", "200 OK|Content-Type: text/html"),
        ("GET", "gzip", "200 OK|Content-Type: image/png"),
        ("GET", "gzip", "200 OK|Content-Encoding: br"),
        ("GET", "gzip", "200 OK|Cache-Control: no-transform"),
        ("GET", "gzip", "206 Partial Content|Content-Range: bytes 0-99/200"),
    ];
    let mut wire = gateway.wire().await;
    for (method, accepted, fields) in table {
        let lines = format!("Accept-Encoding: {accepted}\r\nX-Fields: {fields}\r\n");
        wire.send(format!("{method} / HTTP/1.1\r\nHost: shop.test\r\n{lines}\r\n")).await;
        let reply = wire.reply_to(method).await;
        assert_eq!(reply.header("content-length").as_deref(), Some("100"), "{fields}");
        let length = if method == "HEAD" { 0 } else { 100 };
        assert_eq!(reply.body.len(), length, "{fields}");
        let coding = reply.header("content-encoding");
        assert_eq!(coding.is_some(), fields.contains("Content-Encoding"), "{fields}");
    }
}

#[tokio::test]
async fn a_response_is_replaced_by_another() {
    let shop = Origin::scripted(|seen| match seen.target().as_str() {
        "/gone" => {
            Answer::raw("HTTP/1.1 404 Not Found\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\nno")
        }
        "/busy" => Answer::status(503, "busy"),
        "/login?to=%2F" => Answer::status(401, ""),
        "/reset" => Answer::reset(),
        _ => Answer::ok("shop"),
    })
    .await;
    let fields = r#"  rateLimit:
    local:
      rules:
        - clientSelectors: [{path: {type: Exact, value: /limited}}]
          limit: {requests: 0, unit: Hour}
  responseOverride:
    - match: {statusCodes: [{type: Range, range: {start: 500, end: 599}}]}
      source: Local
      response:
        statusCode: 500
        contentType: text/html
        body: {type: ValueRef, valueRef: {group: "", kind: ConfigMap, name: sorry}}
    - match: {statusCodes: [{value: 404}, {value: 429}]}
      response:
        contentType: application/json
        body: {inline: '{"was": %RESPONSE_CODE%, "why": "%RESPONSE_CODE_DETAILS%", "page": "%REQ(X-Page)%"}'}
        header: {set: [{name: X-Replaced, value: "yes"}]}
    - match: {statusCodes: [{value: 401}]}
      redirect: {scheme: https, hostname: login.test, path: {type: ReplaceFullPath, replaceFullPath: /in}}
"#;
    let map = "---\napiVersion: v1\nkind: ConfigMap\n\
               metadata: {name: sorry, namespace: envoy-gateway-system}\n\
               data:\n  response.body: \"<h1>%RESPONSE_FLAGS% %REQ(X-Page)%</h1>\"\n";
    let gateway = gateway(&shop, &(of_shop(fields) + map)).await;
    let json = |was, why| format!(r#"{{"was": {was}, "why": "{why}", "page": "\"<a>"}}"#);
    // (target, status, type, body, status in the log, flags)
    let table = [
        ("/", 200, None, "shop".to_owned(), "-"),
        ("/gone", 404, Some("application/json"), json(404, "via_upstream"), "-"),
        ("/limited", 429, Some("application/json"), json(429, "local_rate_limited"), "RL"),
        ("/reset", 500, Some("text/html"), "<h1>UC &#34;&#60;a&#62;</h1>".into(), "UC"),
        // The backend itself says so.
        ("/busy", 503, None, "busy".into(), "-"),
        ("/login?to=%2F", 302, None, String::new(), "-"),
    ];
    for (target, status, kind, body, flags) in table {
        let url = format!("http://shop.test{target}");
        let reply = gateway.get_with(&url, "X-Page: \"<a>\r\n").await;
        assert_eq!((reply.status(), reply.text()), (status, body), "{target}");
        assert_eq!(reply.header("content-type").as_deref(), kind, "{target}");
        assert_eq!(reply.header("set-cookie"), None, "{target}");
        let is_json = kind == Some("application/json");
        assert_eq!(reply.header("x-replaced").is_some(), is_json, "{target}");
        let location = (status == 302).then_some("https://login.test/in");
        assert_eq!(reply.header("location").as_deref(), location, "{target}");
        let entry = gateway.logged(target, |entry| entry["path"] == target).await;
        assert_eq!((&entry["status"], &entry["flags"]), (&status.into(), &flags.into()), "{entry}");
    }
    let nobody = gateway.get("http://nobody.test/").await;
    assert_eq!((nobody.status(), nobody.header("x-replaced")), (404, None), "no route has it");
    let head = {
        let mut wire = gateway.wire().await;
        wire.send("HEAD /gone HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
        wire.reply_to("HEAD").await
    };
    assert_eq!((head.status(), head.body.len()), (404, 0));
    assert!(head.head.length().is_some_and(|length| length > 20), "{head:?}");
}

#[tokio::test]
async fn a_backend_sees_a_request_when_all_of_it_has_arrived() {
    let shop = Origin::replying("shop").await;
    let files = serve_all("shop", "shop.test", &[shop.address])
        + &of_shop("  requestBuffer: {limit: 10}\n");
    let setup = Gateway::setup().file("routes/shop.yaml", &files).flag("--body-timeout 2s");
    let gateway = setup.start().await;
    let head = "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut wire = gateway.wire().await;
    wire.send(format!("{head}4\r\nfour\r\n")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(shop.connections(), 0, "the backend is not bothered yet");
    wire.send("6\r\ntenten\r\n0\r\n\r\n").await;
    assert_eq!(wire.reply().await.status(), 200);
    let seen = shop.last();
    assert_eq!(
        (seen.text().as_str(), seen.header("content-length").as_deref()),
        ("fourtenten", Some("10"))
    );
    assert_eq!(seen.header("transfer-encoding"), None);

    // A request without a body is as always.
    assert_eq!(gateway.get("http://shop.test/").await.status(), 200);
    assert_eq!(shop.last().header("content-length"), None);

    let table = [
        format!("{head}6\r\nsixsix\r\n5\r\nsixsi\r\n0\r\n\r\n"),
        "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 11\r\n\r\nsixsixsixsi".into(),
        "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n"
            .into(),
    ];
    let before = shop.requests().len();
    for request in table {
        let mut wire = gateway.wire().await;
        wire.send(&request).await;
        let head = wire.head().await.unwrap();
        assert_eq!(head.status(), 413, "{request}");
        let (body, ..) = wire.body_of(&head).await;
        assert_eq!(body, b"Payload Too Large", "{request}");
    }
    assert_eq!(shop.requests().len(), before);
    let entry = gateway.logged("the refusal", |entry| entry["status"] == 413).await;
    assert_eq!(entry["details"], "request_payload_too_large");

    // A client that stops sending.
    let mut wire = gateway.wire().await;
    wire.send(format!("{head}4\r\nfour\r\n")).await;
    assert_eq!(wire.rest().await, b"", "the connection ends");
    assert_eq!(shop.requests().len(), before);

    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(gateway.get_with("http://shop.test/", upgrade).await.status(), 403);
}

#[tokio::test]
async fn faults_are_injected_on_purpose() {
    let shop = Origin::replying("shop").await;
    let files = serve_all("shop", "shop.test", &[shop.address]);
    let abort = of_shop("  faultInjection: {abort: {httpStatus: 418}}\n");
    let metrics = free_address();
    let setup = Gateway::setup().file("routes/shop.yaml", &(files.clone() + &abort));
    let gateway = setup.metrics_at(metrics).start().await;
    let reply = gateway.get("http://shop.test/").await;
    assert_eq!((reply.status(), reply.text().as_str()), (418, "fault filter abort"));
    let entry = gateway.logged("the refusal", |entry| entry["status"] == 418).await;
    assert_eq!((&entry["flags"], &entry["details"]), (&"FI".into(), &"fault_filter_abort".into()));
    assert!(shop.requests().is_empty());

    let delay = of_shop(
        "  faultInjection: {delay: {fixedDelay: 600ms}, abort: {httpStatus: 503, percentage: 0}}\n",
    );
    gateway.write("routes/shop.yaml", &(files + &delay));
    gateway.reload().await;
    let began = std::time::Instant::now();
    assert_eq!(gateway.get("http://shop.test/late").await.status(), 200);
    assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
    let entry = gateway.logged("the delay", |entry| entry["path"] == "/late").await;
    assert_eq!((&entry["flags"], &entry["details"]), (&"DI".into(), &"via_upstream".into()));
    let text = scrape(metrics).await;
    for (name, want) in [("aborts_injected", 1.0), ("delays_injected", 1.0), ("active_faults", 0.0)]
    {
        assert_eq!(value(&text, &format!("envoy_http_fault_{name}")), want, "{name}");
    }
}

#[tokio::test]
async fn a_list_of_upgrades_replaces_the_default() {
    let shop = Origin::scripted(|seen| match seen.header("upgrade") {
        Some(_) => Answer::raw(
            "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        ),
        None => Answer::ok("shop"),
    })
    .await;
    // (list, status of a WebSocket handshake)
    let table = [
        ("", 101),
        ("  httpUpgrade: [{type: WebSocket}]\n", 101),
        ("  httpUpgrade: [{type: CONNECT}]\n", 403),
    ];
    for (list, want) in table {
        let policy = if list.is_empty() { String::new() } else { of_shop(list) };
        let gateway = gateway(&shop, &policy).await;
        let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
        let mut wire = gateway.wire().await;
        wire.send(format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{upgrade}\r\n")).await;
        assert_eq!(wire.head().await.unwrap().status(), want, "{list}");
        assert_eq!(gateway.get("http://shop.test/").await.status(), 200, "{list}");
        if want == 403 {
            let entry = gateway.logged("the refusal", |entry| entry["status"] == 403).await;
            assert_eq!(entry["details"], "upgrade_failed");
        }
    }
}
