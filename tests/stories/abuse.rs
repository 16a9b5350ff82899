//! Peers that take and give as slowly as they can, or leave as often as they can.

use std::time::Duration;

use crate::support::{
    Answer, Backend, DATA, Frame, Gateway, H2, Origin, RST_STREAM, clock, serve_all, soon, until,
};

/// A client that reads nothing holds the backend's answer, and its connection, for its time only.
#[tokio::test]
async fn a_reader_that_never_reads_is_let_go_with_its_backend() {
    for http2 in [false, true] {
        let backend = Backend::bind().await;
        let gateway = Gateway::setup()
            .flag("--send-timeout 1s")
            .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[backend.address]))
            .start()
            .await;
        let mut plain = gateway.wire().await;
        plain.set_receive_buffer(16 << 10);
        let mut h2 = H2::connect_with(&gateway, &[(4, 0)]).await;
        if http2 {
            h2.frame(&Frame::get(1, "/")).await;
        } else {
            plain.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
        }
        let mut origin = backend.accept().await;
        origin.request().await.unwrap();
        origin.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
        let begin = clock();
        let chunk = vec![0; 256 << 10];
        // It takes what buffers take, then nothing, then it ends.
        let what = if http2 { "by HTTP/2, the backend is let go" } else { "the backend is let go" };
        soon(what, async { while origin.push(&chunk).await.is_ok() {} }).await;
        assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn a_storm_of_clients_that_leave_leaves_nothing_behind() {
    let shop = Origin::scripted(|seen| match seen.target().as_str() {
        "/slow" => Answer::hang(),
        _ => Answer::ok("ok"),
    })
    .await;
    let gateway = Gateway::in_front_of(shop.address).await;
    gateway.get("https://shop.test/").await;
    let before = gateway.process().descriptors();
    for round in 0..10 {
        let mut clients = Vec::new();
        for number in 0..30 {
            let mut wire = gateway.wire().await;
            let body = "Content-Length: 10\r\n\r\nhalf";
            let body = if number % 2 == 0 { "\r\n" } else { body };
            wire.send(format!("POST /slow HTTP/1.1\r\nHost: shop.test\r\n{body}")).await;
            clients.push(wire);
        }
        // Some have reached the backend by now, and some have not.
        if round % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for client in clients {
            client.reset();
        }
    }
    let begin = clock();
    until("the backend is let go", || shop.open() <= 2).await;
    until("descriptors come back", || gateway.process().descriptors() <= before + 4).await;
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(gateway.get("https://shop.test/").await.text(), "ok");
}

/// One client that does its worst on one connection is not felt on another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_served_while_one_uploads_without_end() {
    let shop = Origin::replying("ok").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let mut busy = gateway.tls_wire("shop.test").await;
    busy.send("POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let chunk = [&b"10000\r\n"[..], &[0; 0x10000], b"\r\n"].concat();
    let upload = async { while busy.push(&chunk).await.is_ok() {} };
    let others = async {
        for _ in 0..20 {
            let begin = clock();
            assert_eq!(gateway.get("https://shop.test/").await.text(), "ok");
            assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        }
    };
    tokio::select! {
        () = upload => panic!("the gateway closed"),
        () = others => {}
    }
}

/// The window of a stream is the client's to open. While it is shut its own stream is late, however
/// busy the others of the connection are; and they are not harmed by it (RFC 9113 section 10.5).
#[tokio::test]
async fn a_stream_without_room_is_reset_alone() {
    let shop = Origin::scripted(|seen| match seen.target().as_str() {
        "/large" => Answer::ok(&"x".repeat(1 << 20)),
        _ => Answer::ok("ok"),
    })
    .await;
    let gateway = Gateway::setup()
        .flag("--send-timeout 1s")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    // (window of a stream, how much it is opened by each time)
    for (window, more) in [(0, 0), (1000, 0), (65_535, 0), (0, 1000)] {
        let mut h2 = H2::connect_with(&gateway, &[(4, window)]).await;
        h2.frame(&Frame::window(0, 10 << 20)).await;
        h2.frame(&Frame::get(1, "/large")).await;
        let begin = clock();
        let (mut answered, mut last_word) = (0, None);
        for number in 1_u32..=20 {
            let busy = 1 + 2 * number;
            h2.frame(&Frame::get(busy, "/busy")).await;
            h2.frame(&Frame::window(busy, 1000)).await;
            if more > 0 && last_word.is_none() {
                h2.frame(&Frame::window(1, more)).await;
            }
            // The pace of a client that is busy, for longer than the limit.
            tokio::time::sleep(Duration::from_millis(150)).await;
            loop {
                let frame = soon("an answer", h2.next()).await.expect("the connection goes on");
                if frame.stream == 1 && frame.kind == RST_STREAM {
                    last_word = Some(frame.payload);
                }
                if frame.stream == busy && frame.kind == DATA {
                    answered += 1;
                    break;
                }
            }
        }
        assert_eq!(answered, 20, "window {window}");
        assert!(begin.elapsed() > Duration::from_secs(2), "{:?}", begin.elapsed());
        // A client that opens its window little by little is slow, and at work.
        let want = (more == 0).then(|| vec![0, 0, 0, 8]);
        assert_eq!(last_word, want, "window {window}, opened by {more}");
    }
    // What was to be sent is let go, the slow one with its connection.
    until("the backend is let go", || shop.open() <= 2).await;
}
