//! Limits: on sizes, on numbers, on time. One bad peer never harms another.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use http::Request;

use crate::support::{
    Answer, CONTINUATION, DATA, END_STREAM, Frame, GOAWAY, Gateway, H2, HEADERS, Origin, PING,
    Target, Tls, Wire, clock, empty, literal, request_fields, serve_all, soon, until,
};

fn get(target: &str, lines: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: shop.test\r\n{lines}\r\n").into_bytes()
}

fn path_of(length: usize) -> String {
    format!("/{}", "a".repeat(length - 1))
}

#[tokio::test]
async fn a_target_has_a_limit() {
    let target = Target::start().await;
    // RFC 9110 section 4.1: at least 8,000 bytes.
    let long = path_of(8_000);
    assert_eq!(target.passes("8,000 bytes", &get(&long, "")).await.target(), long);
    let query = format!("/?{}", "q".repeat(7_998));
    assert_eq!(target.passes("8,000 bytes of query", &get(&query, "")).await.target(), query);
    // Most of them are too long for a whole head too.
    for length in [8 * 1024 + 1, 20_000, 65_534, 65_535, 100_000, 256 << 10, 1 << 20] {
        let what = format!("{length} bytes");
        target.refuses(&what, &get(&path_of(length), ""), &[414]).await;
        let absolute = format!("http://shop.test{}", path_of(length));
        target.refuses(&format!("{what}, absolute"), &get(&absolute, ""), &[414]).await;
    }
    // Of a later request of a connection too, and over TLS; the head need not end.
    for tls in [false, true] {
        let mut wire = match tls {
            false => target.gateway.wire().await,
            true => target.gateway.tls_wire("shop.test").await,
        };
        wire.send(get("/first", "")).await;
        assert_eq!(wire.reply().await.status(), 200);
        wire.send(format!("GET {}", path_of(100_000))).await;
        let reply = wire.reply().await;
        assert_eq!(reply.status(), 414, "over TLS: {tls}");
        assert_eq!(reply.header("connection").as_deref(), Some("close"));
    }
    let is_long = |entry: &serde_json::Value| entry["details"] == "target_too_long";
    let entry = target.gateway.logged("a long one", is_long).await;
    assert_eq!((&entry["status"], &entry["flags"]), (&414.into(), &"DPE".into()), "{entry}");
    assert!(target.origin.targets().iter().all(|target| target.len() <= 8_000));
    let mut http2 = target.gateway.http2("shop.test").await;
    let url = format!("https://shop.test{long}");
    assert_eq!(http2.get(&url).await.status, 200);
    let url = format!("https://shop.test{}", path_of(8 * 1024 + 1));
    let request = Request::get(url).body(empty()).unwrap();
    assert_eq!(http2.fetch(request).await.unwrap().status, 414);
    // hyper refuses a head of HTTP/2 that is too large as a whole, and nobody sees its target.
    let attack = path_of(256 << 10);
    let fields = request_fields("GET", &attack);
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
    let mut h2 = H2::connect(&target.gateway).await;
    let count = block.len().div_ceil(16 << 10);
    for (number, part) in block.chunks(16 << 10).enumerate() {
        let (kind, first) = if number == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
        let last = if number + 1 == count { 4 } else { 0 };
        h2.push(&Frame::new(kind, first | last, 1, part).bytes()).await;
    }
    let outcome = h2.outcome(1).await;
    assert!(outcome.is_refusal(), "{outcome:?}");
    assert!(!target.origin.targets().contains(&attack));
}

/// Whoever probes the gateway with what is no request is seen all the same.
#[tokio::test]
async fn a_head_that_cannot_be_read_has_its_line_in_the_log() {
    // (what, bytes, status, details)
    let large = format!("X-Large: {}\r\n", "a".repeat(33 << 10));
    let table = [
        ("no HTTP", b"\x16\x03\x01\x00\x05hello\r\n\r\n".to_vec(), 400, "http1.codec_error"),
        ("no field", get("/", "no colon\r\n"), 400, "http1.codec_error"),
        ("too large", get("/", &large), 431, "headers_too_large"),
    ];
    for (what, bytes, status, details) in table {
        let gateway = Gateway::start().await;
        gateway.raw(bytes).await;
        let entry = gateway.logged(what, |entry| entry["status"] == status).await;
        assert_eq!(entry["flags"], "DPE", "{entry}");
        assert_eq!(entry["details"], details, "{entry}");
        assert_eq!((&entry["method"], &entry["path"]), (&"-".into(), &"-".into()), "{entry}");
        assert!(entry["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{entry}");
        assert_eq!(entry["request_id"].as_str().unwrap().len(), 36, "{entry}");
    }
    let gateway = Gateway::start().await;
    gateway.raw("GET / HTTP/1.1\r\n\r\n").await;
    let entry = gateway.logged("a request without a host", |entry| entry["status"] == 400).await;
    assert_eq!(entry["request_id"].as_str().unwrap().len(), 36, "{entry}");
}

#[tokio::test]
async fn a_head_has_a_limit() {
    let target = Target::start().await;
    let fields =
        |count: usize| (0..count).map(|number| format!("X-{number}: a\r\n")).collect::<String>();
    let field = |length: usize| format!("X-Large: {}\r\n", "a".repeat(length));
    target.passes("90 fields", &get("/a", &fields(90))).await;
    target.passes("30,000 bytes", &get("/a", &field(30_000))).await;
    for (what, lines) in [
        ("101 fields", fields(101)),
        ("10,000 fields", fields(10_000)),
        ("33 KiB", field(33 << 10)),
        ("1 MiB", field(1 << 20)),
        ("a name of 40 KiB", format!("{}: a\r\n", "x".repeat(40 << 10))),
        ("many of 1 KiB", field(1 << 10).repeat(40)),
    ] {
        target.refuses(what, &get("/attack", &lines), &[431]).await;
    }

    let large = [b'a'; 33 << 10];
    let mut fields = request_fields("GET", "/attack").to_vec();
    fields.push((b"x-large", &large[..10_000]));
    fields.push((b"x-large", &large[..15_000]));
    fields.push((b"x-large", &large[..15_000]));
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
    let mut h2 = H2::connect(&target.gateway).await;
    for (number, part) in block.chunks(16 << 10).enumerate() {
        let kind = if number == 0 { HEADERS } else { CONTINUATION };
        let first = if number == 0 { END_STREAM } else { 0 };
        let last = if (number + 1) * (16 << 10) >= block.len() { 4 } else { 0 };
        h2.frame(&Frame::new(kind, first | last, 1, part)).await;
    }
    let outcome = h2.outcome(1).await;
    assert!(outcome.is_refusal(), "{outcome:?}");
    assert!(!target.origin.targets().contains(&"/attack".to_owned()));
}

#[tokio::test]
async fn the_limits_are_settings() {
    let target = Target::with(|setup| {
        setup.flag("--max-target-bytes 100 --max-head-bytes 1000 --max-head-fields 10")
    })
    .await;
    target.passes("within", &get(&path_of(100), "X-A: b\r\n")).await;
    target.refuses("target", &get(&path_of(101), ""), &[414]).await;
    target.refuses("bytes", &get("/", &format!("X-A: {}\r\n", "a".repeat(1000))), &[431]).await;
    target.refuses("fields", &get("/", &"X-A: b\r\n".repeat(11)), &[431]).await;
}

/// Counted from the first moment, not from the last byte.
#[tokio::test]
async fn a_head_that_does_not_come_in_time_ends_the_connection() {
    let shop = Origin::replying("ok").await;
    let gateway = Gateway::setup()
        .flag("--head-timeout 1s")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;

    // (what, sent at once, then sent every 200 ms)
    let table: [(&str, &str, &str); 6] = [
        ("silent", "", ""),
        ("half a request line", "GET /att", ""),
        ("half a head", "GET / HTTP/1.1\r\nHost: shop.test\r\n", ""),
        ("byte by byte", "GET / HTTP/1.1\r\nX-Slow: ", "a"),
        ("line by line", "GET / HTTP/1.1\r\nHost: shop.test\r\n", "X-A: b\r\n"),
        ("empty lines", "", "\r\n"),
    ];
    for (what, first, drip) in table {
        for tls in [false, true] {
            let mut wire = match tls {
                false => gateway.wire().await,
                true => gateway.tls_wire("shop.test").await,
            };
            let begin = clock();
            wire.send(first).await;
            let dripping = async {
                while !drip.is_empty() {
                    // A client that is slow on purpose.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    if begin.elapsed() > Duration::from_secs(6) {
                        return;
                    }
                    // Reading and writing at once is not what this client does; a failure to
                    // write comes a little after the end.
                    wire.send(drip).await;
                    if tokio::time::timeout(Duration::from_millis(1), wire.more()).await
                        == Ok(false)
                    {
                        return;
                    }
                }
            };
            dripping.await;
            let answer = wire.rest().await;
            let took = begin.elapsed();
            assert!(took < Duration::from_secs(5), "{what}: {took:?}");
            let text = String::from_utf8_lossy(&answer).into_owned();
            assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{what}: {text}");
        }
    }
    assert!(shop.requests().is_empty(), "{:?}", shop.seen());
    assert_eq!(gateway.get("http://shop.test/").await.status(), 200);
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_its_time() {
    let shop = Origin::replying("ok").await;
    let gateway = Gateway::setup()
        .flag("--idle-timeout 1s")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let mut wire = gateway.wire().await;
    wire.send(get("/", "")).await;
    assert_eq!(wire.reply().await.status(), 200);
    let begin = clock();
    assert_eq!(wire.rest().await, b"");
    let took = begin.elapsed();
    assert!(took > Duration::from_millis(700) && took < Duration::from_secs(5), "{took:?}");

    // HTTP/2 too, and PINGs keep nobody busy (RFC 9113 section 6.7).
    let mut h2 = H2::connect(&gateway).await;
    h2.frame(&Frame::get(1, "/")).await;
    assert_eq!(h2.outcome(1).await.status(), Some(200));
    let begin = clock();
    let ended = soon("the connection ends", async {
        loop {
            h2.frame(&Frame::new(PING, 0, 0, [0; 8])).await;
            match tokio::time::timeout(Duration::from_millis(200), h2.next()).await {
                Ok(None) => return true,
                Ok(Some(frame)) if frame.kind == GOAWAY => return true,
                _ => assert!(begin.elapsed() < Duration::from_secs(10), "it goes on"),
            }
        }
    });
    assert!(ended.await);
}

/// R.U.D.Y.: a body that comes so slowly that it never ends.
#[tokio::test]
async fn a_body_that_stalls_does_not_hold_its_backend_for_ever() {
    let target = Target::start().await;
    for (what, head, part) in [
        ("length", "Content-Length: 100000\r\n", "half"),
        ("chunks", "Transfer-Encoding: chunked\r\n", "4\r\nhalf\r\n"),
        ("in a chunk", "Transfer-Encoding: chunked\r\n", "ffff\r\nhalf"),
    ] {
        let mut wire = target.gateway.wire().await;
        let begin = clock();
        wire.send(format!("POST /attack HTTP/1.1\r\nHost: shop.test\r\n{head}\r\n{part}")).await;
        let text = String::from_utf8_lossy(&wire.rest().await).into_owned();
        assert!(begin.elapsed() < Duration::from_secs(8), "{what}: {:?}", begin.elapsed());
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 408"), "{what}: {text}");
    }
    assert!(target.origin.requests().is_empty(), "no request was whole");
    target.is_unharmed("stalled bodies").await;
    until("the backend is let go", || target.origin.open() <= 2).await;
}

/// The streams of an HTTP/2 connection stall each by itself, however busy the others are.
#[tokio::test]
async fn a_body_that_stalls_on_a_stream_ends_that_stream_alone() {
    let shop = Origin::replying("ok").await;
    let gateway = Gateway::setup()
        .flag("--body-timeout 1s")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let mut h2 = H2::connect(&gateway).await;
    h2.frame(&Frame::head(1, 0, &request_fields("POST", "/attack"))).await;
    h2.frame(&Frame::new(DATA, 0, 1, *b"half")).await;
    for stream in (3..83).step_by(2) {
        // Somebody else is served meanwhile, so that the connection itself is never silent.
        h2.frame(&Frame::get(stream, "/busy")).await;
        // The pace of a client that is busy, for twice the limit.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let outcome = h2.outcome(1).await;
    assert_eq!(outcome.status(), Some(408), "{outcome:?}");
    let entry = gateway.logged("the stalled one", |entry| entry["path"] == "/attack").await;
    assert_eq!((&entry["status"], &entry["flags"]), (&408.into(), &"SI".into()), "{entry}");
    assert!(entry["duration_ms"].as_f64().unwrap() < 1800.0, "{entry}");
    assert!(!shop.targets().contains(&"/attack".to_owned()), "no request was whole");
    until("the backend is let go", || shop.open() <= 2).await;
}

/// One peer alone takes no room from the others.
#[tokio::test]
async fn a_peer_has_a_limit_of_its_own() {
    let shop = Origin::scripted(|seen| match seen.target().as_str() {
        "/long" => Answer::hang(),
        _ => Answer::ok("ok"),
    })
    .await;
    let route = serve_all("shop", "shop.test", &[shop.address]);
    let limited = || {
        let setup = Gateway::setup().flag("--max-connections-per-peer 3");
        setup.file("routes/shop.yaml", &route)
    };
    let gateway = limited().start().await;
    let mut idle = Vec::new();
    for target in ["/1", "/2", "/3", "/4"] {
        let mut wire = gateway.wire().await;
        wire.send(get(target, "")).await;
        assert_eq!(wire.reply().await.status(), 200, "{target}");
        // Until then the exchange may be open yet, although its answer is here.
        gateway.logged("the answer", |entry| entry["path"] == target).await;
        idle.push(wire);
    }
    assert_eq!(idle[0].rest().await, b"", "the first one of the peer made room");

    // Whoever has none idle has to wait; another address does not.
    for wire in &mut idle[1..] {
        wire.send(get("/long", "")).await;
    }
    shop.saw(4 + 3).await;
    let mut refused = gateway.wire().await;
    let _ = refused.push(&get("/", "")).await;
    assert_eq!(refused.rest().await, b"");
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = Wire::tcp(other.connect(gateway.http()).await.unwrap());
    other.send(get("/", "Connection: close\r\n")).await;
    assert_eq!(other.reply().await.status(), 200);

    // The connections of a proxy are those of many.
    let gateway = limited().flag("--trusted-proxies 127.0.0.0/8").start().await;
    let mut open = Vec::new();
    for _ in 0..6 {
        let mut wire = gateway.wire().await;
        wire.send(get("/", "")).await;
        assert_eq!(wire.reply().await.status(), 200);
        open.push(wire);
    }
    open[0].send(get("/", "")).await;
    assert_eq!(open[0].reply().await.status(), 200);
}

/// The memory that was found is kept to: whoever rests goes, whoever comes then is told to wait, and
/// afterwards all is as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_takes_no_more_memory_than_there_is() {
    let shop = Origin::scripted(|seen| match seen.target().as_str() {
        "/large" => Answer::ok(&"x".repeat(1 << 20)),
        _ => Answer::ok("ok"),
    })
    .await;
    let gateway = Gateway::setup()
        // Memory ends before the 1,024 connections to the backend, beyond which requests wait.
        .flag("--memory-limit 40MiB --workers 1")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let told = "for 40 MiB of memory (--memory-limit)";
    until("a line about it", || gateway.process().stderr().contains(told)).await;
    let mut resting = gateway.wire().await;
    resting.send(get("/", "")).await;
    assert_eq!(resting.reply().await.status(), 200);

    // Clients that ask for a hundred large answers and read none.
    let requests: Vec<u8> =
        (0..100).flat_map(|number| Frame::get(1 + 2 * number, "/large").bytes()).collect();
    let mut flood = Vec::new();
    let mut most = 0;
    let mut refused = None;
    for _ in 0..60 {
        // The largest window, so that it is the gateway that has to hold what comes.
        let mut h2 = H2::connect_with(&gateway, &[(4, i32::MAX.cast_unsigned())]).await;
        h2.push(&requests).await;
        flood.push(h2);
        most = most.max(gateway.process().resident_kib());
        let reply = gateway.get("http://shop.test/").await;
        if reply.status() == 503 {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.expect("there is an end to it");
    assert_eq!(refused.header("retry-after").as_deref(), Some("1"));
    let entry = gateway.logged("the refusal", |entry| entry["flags"] == "OM").await;
    assert_eq!(entry["details"], "overload", "{entry}");
    assert_eq!(resting.rest().await, b"", "it made room");
    // Four times a second is not at once, and what is under way goes on.
    most = most.max(gateway.process().resident_kib());
    assert!(most < 96 << 10, "{most} KiB");

    drop(flood);
    soon("it serves again", async {
        while gateway.get("http://shop.test/").await.status() != 200 {
            // It looks four times a second.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

/// At the limit, the connection that has been idle for longest makes room.
#[tokio::test]
async fn connections_have_a_limit_and_the_oldest_idle_one_makes_room() {
    let shop = Origin::replying("ok").await;
    let gateway = Gateway::setup()
        .flag("--max-connections 10")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let mut idle = Vec::new();
    for _ in 0..10 {
        let mut wire = gateway.wire().await;
        wire.send(get("/", "")).await;
        assert_eq!(wire.reply().await.status(), 200);
        idle.push(wire);
    }
    let begin = clock();
    assert_eq!(gateway.get("http://shop.test/").await.status(), 200, "the eleventh");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(idle[0].rest().await, b"", "the first one made room");
    let last = idle.last_mut().unwrap();
    last.send(get("/", "")).await;
    assert_eq!(last.reply().await.status(), 200, "the last one stays");
}

/// No descriptor left: accepting pauses, and goes on when there are some.
#[tokio::test]
async fn descriptors_that_run_out_are_waited_for() {
    let shop = Origin::replying("ok").await;
    let gateway = Gateway::setup()
        .descriptors(64)
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let told = "limits: 16 connections (64 per client address)";
    until("a line about it", || gateway.process().stderr().contains(told)).await;
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(gateway.wire().await);
    }
    // Long enough to see a loop that spins.
    let before = cpu_ticks(&gateway);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = cpu_ticks(&gateway) - before;
    assert!(spent < 50, "{spent} of 100 ticks in a second of waiting");
    assert!(!gateway.process().has_ended());

    drop(crowd);
    let begin = clock();
    assert_eq!(gateway.get("http://shop.test/").await.status(), 200);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

/// Time of the processor that the gateway has used, in ticks of 10 ms.
fn cpu_ticks(gateway: &Gateway) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", gateway.process().pid())).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test]
async fn connections_that_come_and_go_leave_nothing_behind() {
    let shop = Origin::replying("ok").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    gateway.get("https://shop.test/").await;
    let before = gateway.process().descriptors();
    for round in 0..50 {
        let mut plain = gateway.wire().await;
        plain.send("GET / HTTP/1.1\r\nHost: sh").await;
        let mut whole = gateway.wire().await;
        whole.send(get("/", "")).await;
        let tls = Tls::of("shop.test").connect(gateway.https()).await.unwrap();
        if round % 2 == 0 {
            plain.reset();
            whole.reset();
        }
        drop(tls);
    }
    until("descriptors come back", || gateway.process().descriptors() <= before + 4).await;
    assert_eq!(gateway.get("http://shop.test/").await.status(), 200);
}

#[tokio::test]
async fn a_setting_that_is_none_is_named_and_ends_the_start() {
    for flag in [
        "--head-timeout soon",
        "--max-head-bytes -1",
        "--max-connections none",
        "--trusted-proxies 10.0.0.0/99",
        "--drain-timeout 5",
    ] {
        let gateway = Gateway::setup().flag(flag).launch();
        assert!(!gateway.exit().await.success(), "{flag}");
        let stderr = gateway.process().stderr();
        assert!(stderr.contains(flag.split(' ').next().unwrap()), "{flag}: {stderr}");
    }
}

/// What cannot be logged is dropped; who waits for an answer does not wait for a disk or a pipe.
#[tokio::test]
async fn a_log_that_takes_nothing_stops_nobody() {
    let shop = Origin::replying("ok").await;
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Open at both ends, so that writing to it neither fails nor waits for a reader; it just fills.
    let _stuck = File::options().read(true).write(true).open(&pipe).unwrap();
    for log in [Path::new("/dev/full"), &pipe] {
        let gateway = Gateway::setup()
            .log_to(log)
            .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
            .start()
            .await;
        let mut wire = Wire::connect(gateway.http()).await;
        // At some hundred bytes a line, several times what a pipe holds.
        for _ in 0..1_000 {
            wire.send(get("/", "")).await;
            assert_eq!(wire.reply().await.status(), 200, "{}", log.display());
        }
        assert_eq!(gateway.get("https://shop.test/").await.status(), 200, "{}", log.display());
    }
}
