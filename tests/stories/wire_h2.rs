//! HTTP/2, hostile clients: frames, fields and floods (RFC 9113, RFC 7541).

use std::time::Duration;

use crate::support::{
    ACK, Answer, Backend, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, Gateway, H2,
    HEADERS, Origin, Outcome, PADDED, PING, PRIORITY, PRIORITY_FLAG, PUSH_PROMISE, RST_STREAM,
    SETTINGS, Seen, Step, Target, WINDOW_UPDATE, clock, literal, request_fields, soon, until,
};

type Fields<'a> = Vec<(&'a [u8], &'a [u8])>;

/// The block of a whole request.
fn block(method: &str, path: &str) -> Vec<u8> {
    request_fields(method, path).iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// A GET of /attack, with `more` behind its fields.
fn get_with<'a>(more: &[(&'a [u8], &'a [u8])]) -> Fields<'a> {
    let mut fields = request_fields("GET", "/attack").to_vec();
    fields.extend(more);
    fields
}

/// The same with another value of the field `name`; without it if there is none.
fn get_but<'a>(name: &'a [u8], value: Option<&'a [u8]>) -> Fields<'a> {
    let mut fields = get_with(&[]);
    match (fields.iter().position(|(known, _)| *known == name), value) {
        (Some(at), Some(value)) => fields[at].1 = value,
        (Some(at), None) => drop(fields.remove(at)),
        (None, value) => fields.extend(value.map(|value| (name, value))),
    }
    fields
}

fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Frame {
    Frame::new(kind, flags, stream, payload)
}

fn post(stream: u32, path: &str) -> Frame {
    Frame::head(stream, 0, &request_fields("POST", path))
}

fn frames(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(Frame::bytes).collect()
}

/// Whether the gateway ends the connection, and does so soon.
async fn ends(h2: &mut H2) -> bool {
    tokio::time::timeout(Duration::from_secs(5), h2.goes_away()).await.is_ok()
}

/// RFC 9113: what breaks the connection for everybody on it.
#[tokio::test]
async fn an_error_of_the_connection_ends_it() {
    let target = Target::start().await;
    let get = || Frame::get(1, "/attack");
    let settings = |id: u16, value: u32| {
        Frame::new(SETTINGS, 0, 0, [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
    };
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("HEADERS of 16 MiB", new(HEADERS, END_HEADERS, 1, [0; 100]).bytes_with_length(0xff_ffff)),
        ("DATA on stream 0", new(DATA, 0, 0, [0; 5]).bytes()),
        ("HEADERS on stream 0", new(HEADERS, 5, 0, block("GET", "/attack")).bytes()),
        ("PRIORITY on stream 0", new(PRIORITY, 0, 0, [0; 5]).bytes()),
        ("RST_STREAM on stream 0", Frame::reset(0, 8).bytes()),
        ("SETTINGS on stream 1", new(SETTINGS, 0, 1, []).bytes()),
        ("PING on stream 1", new(PING, 0, 1, [0; 8]).bytes()),
        ("GOAWAY on stream 1", new(GOAWAY, 0, 1, [0; 8]).bytes()),
        ("CONTINUATION on stream 0", new(CONTINUATION, END_HEADERS, 0, []).bytes()),
        ("DATA on an idle stream", new(DATA, 0, 1, [0; 5]).bytes()),
        ("RST_STREAM on an idle stream", Frame::reset(1, 8).bytes()),
        ("WINDOW_UPDATE on an idle stream", Frame::window(1, 5).bytes()),
        ("CONTINUATION on an idle stream", new(CONTINUATION, END_HEADERS, 1, []).bytes()),
        ("an even stream", Frame::get(2, "/attack").bytes()),
        ("PUSH_PROMISE", frames(&[post(1, "/a"), new(PUSH_PROMISE, 4, 1, [0, 0, 0, 2])])),
        ("padding longer than DATA", frames(&[post(1, "/a"), new(DATA, PADDED, 1, [9, 0, 0])])),
        ("padding longer than HEADERS", new(HEADERS, END_HEADERS | PADDED, 1, [9, 0]).bytes()),
        ("SETTINGS ACK with content", new(SETTINGS, ACK, 0, [0; 6]).bytes()),
        ("SETTINGS of 5 bytes", new(SETTINGS, 0, 0, [0; 5]).bytes()),
        ("ENABLE_PUSH of 2", settings(2, 2).bytes()),
        ("INITIAL_WINDOW_SIZE of 2^31", settings(4, 1 << 31).bytes()),
        ("MAX_FRAME_SIZE of 16383", settings(5, 16383).bytes()),
        ("MAX_FRAME_SIZE of 2^24", settings(5, 1 << 24).bytes()),
        ("PING of 7 bytes", new(PING, 0, 0, [0; 7]).bytes()),
        ("RST_STREAM of 3 bytes", frames(&[post(1, "/a"), new(RST_STREAM, 0, 1, [0; 3])])),
        ("WINDOW_UPDATE of 3 bytes", new(WINDOW_UPDATE, 0, 0, [0; 3]).bytes()),
        ("WINDOW_UPDATE of 0", Frame::window(0, 0).bytes()),
        ("a window beyond 2^31", Frame::window(0, 0x7fff_ffff).bytes()),
        (
            "a frame within a head",
            frames(&[
                new(HEADERS, END_STREAM, 1, block("GET", "/attack")),
                new(PRIORITY, 0, 1, [0, 0, 0, 0, 1]),
                new(CONTINUATION, END_HEADERS, 1, []),
            ]),
        ),
        (
            "another stream's head within a head",
            frames(&[
                new(HEADERS, END_STREAM, 1, block("GET", "/attack")),
                new(CONTINUATION, END_HEADERS, 3, []),
            ]),
        ),
        (
            "an unknown frame within a head",
            frames(&[
                new(HEADERS, END_STREAM, 1, block("GET", "/attack")),
                new(0xfa, 0, 1, []),
                new(CONTINUATION, END_HEADERS, 1, []),
            ]),
        ),
        ("CONTINUATION behind a whole head", frames(&[get(), new(CONTINUATION, 4, 1, [])])),
        ("a lower stream", frames(&[Frame::get(5, "/canary/a"), Frame::get(3, "/attack")])),
        ("an index of no table", new(HEADERS, 5, 1, [0xff, 0xff, 0xff, 0x7f]).bytes()),
        ("index 0", new(HEADERS, 5, 1, [0x80]).bytes()),
        ("a literal that is cut", new(HEADERS, 5, 1, [0x00, 0x7f]).bytes()),
        ("Huffman with EOS", new(HEADERS, 5, 1, [0, 0x84, 255, 255, 255, 255, 0]).bytes()),
        ("a table larger than agreed", new(HEADERS, 5, 1, [0x3f, 0xff, 0xff, 0x7f]).bytes()),
        ("a table's size behind fields", {
            let mut late = block("GET", "/attack");
            late.push(0x20);
            new(HEADERS, 5, 1, late).bytes()
        }),
    ];
    for (what, bytes) in table {
        let mut h2 = H2::connect(&target.gateway).await;
        h2.send(&bytes).await;
        let ended = ends(&mut h2).await;
        target.faults.unless(ended, || format!("{what}: the connection goes on"));
        let targets = target.origin.targets();
        let reached = targets.iter().any(|path| path == "/attack");
        // A head that was whole may have been taken before the fault behind it was seen.
        let behind = what.contains("behind a whole head");
        target.faults.unless(!reached || behind, || format!("{what}: {targets:?}"));
    }
    target.is_unharmed("broken connections").await;

    for preface in ["GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"]
    {
        let mut h2 = H2::bare(&target.gateway).await;
        h2.send(preface).await;
        assert!(ends(&mut h2).await, "{preface}");
    }
}

/// RFC 9113 section 8.3.1: `:path` begins with `/`, but for the `*` of OPTIONS.
#[tokio::test]
async fn a_path_begins_with_a_slash() {
    let target = Target::start().await;
    for path in ["?q", "?", "?/attack", "attack", "http://shop.test/attack", "*", "*?q", ""] {
        let mut h2 = H2::connect(&target.gateway).await;
        h2.frame(&Frame::get(1, path)).await;
        let outcome = h2.outcome(1).await;
        target.faults.unless(outcome.is_refusal(), || format!("`{path}`: {outcome:?}"));
    }
    assert_eq!(target.origin.targets(), [""; 0]);
    target.is_unharmed("paths without a slash").await;
}

/// RFC 9113: what breaks one stream. It may be taken for worse, never for good.
#[tokio::test]
async fn an_error_of_a_stream_is_answered_on_it_or_ends_the_connection() {
    let target = Target::start().await;
    let head_with = |extra: &[u8]| [block("GET", "/attack"), extra.to_vec()].concat();
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("DATA above the frame size", {
            let large = new(DATA, END_STREAM, 1, vec![0; 16385]);
            frames(&[post(1, "/attack"), large])
        }),
        ("PRIORITY of 4 bytes", frames(&[post(1, "/attack"), new(PRIORITY, 0, 1, [0; 4])])),
        ("WINDOW_UPDATE of 0", frames(&[post(1, "/attack"), Frame::window(1, 0)])),
        ("a window beyond 2^31", { frames(&[post(1, "/attack"), Frame::window(1, 0x7fff_ffff)]) }),
        ("trailers that do not end", {
            let trailers = new(HEADERS, END_HEADERS, 1, literal(b"x-a", b"b"));
            frames(&[post(1, "/attack"), trailers])
        }),
        ("a name of no bytes", { new(HEADERS, 5, 1, head_with(&literal(b"", b"x"))).bytes() }),
    ];
    for (what, bytes) in table {
        let mut h2 = H2::connect(&target.gateway).await;
        h2.send(&bytes).await;
        let outcome = h2.outcome(1).await;
        target.faults.unless(outcome.is_refusal(), || format!("{what}: {outcome:?}"));
    }
    // Pseudo-header fields have no place in trailers (section 8.1): as they are, by the index of a
    // name, or as a whole by an index of the static table or of the dynamic one, which has the `:path`
    // of the request; and between other fields.
    let mut indexed = request_fields("POST", "/attack")[..3]
        .iter()
        .flat_map(|(name, value)| literal(name, value))
        .collect::<Vec<_>>();
    indexed.extend(b"\x44\x07/attack");
    let open = new(HEADERS, END_HEADERS, 1, indexed);
    let fields = [
        literal(b":path", b"/x"),
        b"\x04\x02/x".to_vec(),
        b"\x84".to_vec(),
        b"\x88".to_vec(),
        b"\xbe".to_vec(),
        [literal(b"x-a", b"b"), literal(b":path", b"/x")].concat(),
    ];
    for block in fields {
        let mut h2 = H2::connect(&target.gateway).await;
        let trailers = new(HEADERS, END_HEADERS | END_STREAM, 1, block);
        let data = new(DATA, 0, 1, *b"x");
        h2.send(frames(&[open.clone(), data, trailers.clone()])).await;
        let outcome = h2.outcome(1).await;
        target.faults.unless(outcome == Outcome::Reset(1), || format!("{trailers:?}: {outcome:?}"));
        // And the connection goes on, with trailers that are in order.
        let trailers = new(HEADERS, END_HEADERS | END_STREAM, 3, literal(b"x-a", b"b"));
        h2.send(frames(&[post(3, "/fine"), new(DATA, 0, 3, *b"x"), trailers])).await;
        let outcome = h2.outcome(3).await;
        target.faults.unless(outcome.status() == Some(200), || format!("after it: {outcome:?}"));
    }
    // (what, frames behind a GET that is whole)
    let closed = [
        ("DATA", new(DATA, END_STREAM, 1, [0; 5])),
        ("HEADERS", new(HEADERS, 5, 1, block("GET", "/attack"))),
    ];
    for (what, frame) in closed {
        for between in [None, Some(Frame::reset(1, 8))] {
            let mut h2 = H2::connect(&target.gateway).await;
            let mut bytes = Frame::get(1, "/canary/closed").bytes();
            bytes.extend(between.iter().flat_map(Frame::bytes));
            bytes.extend(frame.bytes());
            h2.send(&bytes).await;
            // The answer to the first may come; a second one may not.
            let answers = tokio::time::timeout(Duration::from_secs(2), async {
                let mut heads = 0;
                while let Some(frame) = h2.next().await {
                    heads += usize::from(frame.kind == HEADERS);
                    if matches!(frame.kind, RST_STREAM | GOAWAY) {
                        break;
                    }
                }
                heads
            });
            assert!(answers.await.unwrap_or(1) < 2, "{what} on a closed stream");
        }
    }
    let whole = target.origin.targets();
    assert!(!whole.iter().any(|path| path == "/attack"), "{whole:?}");
    target.is_unharmed("broken streams").await;
}

/// RFC 9113 sections 4.1, 5.5, 6.2, 6.7: what a client may do is not held against it.
#[tokio::test]
async fn what_is_allowed_is_no_error() {
    let target = Target::start().await;
    let fields = block("GET", "/fine");
    let (first, rest) = fields.split_at(3);
    let priority = [&[0, 0, 0, 0, 16][..], &fields].concat();
    let padded = [&[4][..], &fields, &[0; 4]].concat();
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("an unknown frame", frames(&[new(0xfa, 0xff, 0, [1; 9]), Frame::get(1, "/fine")])),
        ("unknown flags", new(HEADERS, 0x80 | 0x40 | 5, 1, fields.clone()).bytes()),
        ("the reserved bit", {
            let mut bytes = Frame::get(1, "/fine").bytes();
            bytes[5] |= 0x80;
            bytes
        }),
        ("padding", new(HEADERS, PADDED | 5, 1, padded).bytes()),
        ("priority", new(HEADERS, PRIORITY_FLAG | 5, 1, priority).bytes()),
        ("PRIORITY of an idle stream", {
            frames(&[new(PRIORITY, 0, 7, [0, 0, 0, 0, 16]), Frame::get(1, "/fine")])
        }),
        ("a head in three frames", {
            frames(&[
                new(HEADERS, END_STREAM, 1, first),
                new(CONTINUATION, 0, 1, []),
                new(CONTINUATION, END_HEADERS, 1, rest),
            ])
        }),
        ("SETTINGS that nobody knows", {
            frames(&[new(SETTINGS, 0, 0, [0xff, 0xff, 0, 0, 0, 1]), Frame::get(1, "/fine")])
        }),
        ("a body in empty frames", {
            let empty = new(DATA, 0, 1, []);
            let last = new(DATA, END_STREAM | PADDED, 1, [2, b'x', 0, 0]);
            frames(&[post(1, "/fine"), empty.clone(), empty, last])
        }),
    ];
    for (what, bytes) in table {
        let mut h2 = H2::connect(&target.gateway).await;
        h2.send(&bytes).await;
        let outcome = h2.outcome(1).await;
        target.faults.unless(outcome.status() == Some(200), || format!("{what}: {outcome:?}"));
    }
    let mut h2 = H2::connect(&target.gateway).await;
    h2.frame(&Frame::new(PING, 0, 0, *b"01234567")).await;
    let pong = soon("an answer", async {
        loop {
            let frame = h2.next().await.expect("an answer before the end");
            if frame.kind == PING {
                return frame;
            }
        }
    })
    .await;
    assert_eq!((pong.flags, &pong.payload[..]), (ACK, &b"01234567"[..]));
}

#[tokio::test]
async fn a_malformed_request_reaches_no_backend() {
    let target = Target::start().await;
    let table: Vec<(&str, Fields<'_>)> = vec![
        // RFC 9113 section 8.2.1: names and values.
        ("upper case", get_with(&[(b"X-Upper", b"a")])),
        ("CR in a value", get_with(&[(b"x-a", b"b\rc")])),
        ("LF in a value", get_with(&[(b"x-a", b"b\nc")])),
        ("CRLF in a value", get_with(&[(b"x-a", b"b\r\nx-b: c")])),
        ("NUL in a value", get_with(&[(b"x-a", b"b\0c")])),
        ("CR in a name", get_with(&[(b"x\ra", b"b")])),
        ("LF in a name", get_with(&[(b"x\na", b"b")])),
        ("CRLF in a name", get_with(&[(b"x-a: b\r\nx-b", b"c")])),
        ("NUL in a name", get_with(&[(b"x\0a", b"b")])),
        ("colon in a name", get_with(&[(b"x:a", b"b")])),
        ("space in a name", get_with(&[(b"x a", b"b")])),
        ("high byte in a name", get_with(&[(b"x\xff", b"b")])),
        // Section 8.2.2: what is of HTTP/1.1 alone.
        ("connection", get_with(&[(b"connection", b"close")])),
        ("transfer-encoding", get_with(&[(b"transfer-encoding", b"chunked")])),
        ("upgrade", get_with(&[(b"upgrade", b"websocket")])),
        ("keep-alive", get_with(&[(b"keep-alive", b"timeout=5")])),
        ("proxy-connection", get_with(&[(b"proxy-connection", b"keep-alive")])),
        ("te of another kind", get_with(&[(b"te", b"gzip")])),
        // Section 8.3: pseudo-fields.
        ("no method", get_but(b":method", None)),
        ("no scheme", get_but(b":scheme", None)),
        ("no path", get_but(b":path", None)),
        ("empty path", get_but(b":path", Some(b""))),
        ("path without a slash", get_but(b":path", Some(b"attack"))),
        ("asterisk with GET", get_but(b":path", Some(b"*"))),
        ("CR in the path", get_but(b":path", Some(b"/a\rb"))),
        ("CRLF in the path", get_but(b":path", Some(b"/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"))),
        ("space in the path", get_but(b":path", Some(b"/a b"))),
        ("NUL in the path", get_but(b":path", Some(b"/a\0b"))),
        ("space in the method", get_but(b":method", Some(b"GET /smuggled HTTP/1.1\r\n"))),
        ("empty method", get_but(b":method", Some(b""))),
        ("CRLF in the authority", get_but(b":authority", Some(b"shop.test\r\nx: y"))),
        ("space in the authority", get_but(b":authority", Some(b"shop.test evil.test"))),
        ("userinfo in the authority", get_but(b":authority", Some(b"user@shop.test"))),
        ("path in the authority", get_but(b":authority", Some(b"shop.test/attack"))),
        ("two in the authority", get_but(b":authority", Some(b"shop.test,evil.test"))),
        ("CRLF in the scheme", get_but(b":scheme", Some(b"https\r\nx: y"))),
        ("scheme with a host", get_but(b":scheme", Some(b"https://evil.test/?"))),
        ("two methods", get_with(&[(b":method", b"POST")])),
        ("two paths", get_with(&[(b":path", b"/other")])),
        ("two authorities", get_with(&[(b":authority", b"evil.test")])),
        ("unknown pseudo-field", get_with(&[(b":unknown", b"x")])),
        ("status", get_with(&[(b":status", b"200")])),
        ("pseudo-field behind fields", {
            let mut fields = get_but(b":path", None);
            fields.extend([(&b"x-a"[..], &b"b"[..]), (b":path", b"/attack")]);
            fields
        }),
        // Section 8.3.1: one host.
        ("another host", get_with(&[(b"host", b"evil.test")])),
        ("two hosts", get_with(&[(b"host", b"shop.test"), (b"host", b"evil.test")])),
        ("no host at all", get_but(b":authority", None)),
        // RFC 8441 and RFC 9113 section 8.5.
        ("CONNECT", vec![(b":method", b"CONNECT"), (b":authority", b"127.0.0.1:22")]),
        ("CONNECT with a path", get_but(b":method", Some(b"CONNECT"))),
        ("protocol without CONNECT", get_with(&[(b":protocol", b"websocket")])),
        ("protocol of another kind", {
            let mut fields = get_but(b":method", Some(b"CONNECT"));
            fields.push((b":protocol", b"connect-udp"));
            fields
        }),
        // Lengths that are none.
        ("a length that is none", get_with(&[(b"content-length", b"x")])),
        ("a length with a sign", get_with(&[(b"content-length", b"+0")])),
        ("two lengths", get_with(&[(b"content-length", b"0"), (b"content-length", b"5")])),
    ];
    for (what, fields) in table {
        let mut h2 = H2::connect(&target.gateway).await;
        h2.frame(&Frame::head(1, END_STREAM, &fields)).await;
        let outcome = h2.outcome(1).await;
        // 501 and 404 are no answers of a backend either.
        let status = outcome.status();
        let refused = outcome.is_refusal() || matches!(status, Some(404 | 501));
        target.faults.unless(refused, || format!("{what}: {outcome:?}"));
    }
    let targets = target.origin.targets();
    assert!(targets.is_empty(), "{targets:?}");
    target.is_unharmed("malformed requests").await;
}

/// RFC 9113 section 8.1.1: what was announced and what came differ.
#[tokio::test]
async fn a_length_unlike_the_data_completes_no_request() {
    let target = Target::start().await;
    // (length, parts of the body, the head ends the stream)
    let table: [(&[u8], &[&str], bool); 6] = [
        (b"5", &[], true),
        (b"5", &["abc"], false),
        (b"5", &["abcdefg"], false),
        (b"5", &["abc", "defg"], false),
        (b"0", &["a"], false),
        (b"5", &[""], false),
    ];
    for (length, parts, ends_here) in table {
        let what = format!("{} for {parts:?}", length.escape_ascii());
        let before = target.origin.requests().len();
        let mut fields = request_fields("POST", "/attack").to_vec();
        fields.push((b"content-length", length));
        let mut h2 = H2::connect(&target.gateway).await;
        let mut bytes = Frame::head(1, if ends_here { END_STREAM } else { 0 }, &fields).bytes();
        for (number, part) in parts.iter().enumerate() {
            let last = if number + 1 == parts.len() { END_STREAM } else { 0 };
            bytes.extend(Frame::new(DATA, last, 1, part.as_bytes()).bytes());
        }
        h2.send(&bytes).await;
        let outcome = h2.outcome(1).await;
        target.faults.unless(outcome.is_refusal(), || format!("{what}: {outcome:?}"));
        let reached = target.origin.requests().split_off(before);
        target.faults.unless(reached.is_empty(), || format!("{what}: {reached:?}"));
        target.is_unharmed(&what).await;
    }
}

#[tokio::test]
async fn crumbs_of_a_cookie_are_one_cookie_at_the_backend() {
    let target = Target::start().await;
    let fields = get_with(&[(b"cookie", b"a=1"), (b"x-a", b"b"), (b"cookie", b"c=2; d=3")]);
    let mut h2 = H2::connect(&target.gateway).await;
    h2.frame(&Frame::head(1, END_STREAM, &fields)).await;
    assert_eq!(h2.outcome(1).await.status(), Some(200));
    assert_eq!(target.origin.last().header("cookie").as_deref(), Some("a=1; c=2; d=3"));
}

#[tokio::test]
async fn a_host_that_agrees_is_no_second_host() {
    let target = Target::start().await;
    for fields in [get_with(&[(b"host", b"shop.test")]), {
        let mut fields = get_but(b":authority", None);
        fields.push((b"host", b"shop.test"));
        fields
    }] {
        let mut h2 = H2::connect(&target.gateway).await;
        h2.frame(&Frame::head(1, END_STREAM, &fields)).await;
        assert_eq!(h2.outcome(1).await.status(), Some(200), "{fields:?}");
        assert_eq!(target.origin.last().header("host").as_deref(), Some("shop.test"));
    }
}

/// Sends `bytes` over and over until they are sent `times` times or the gateway has had enough.
async fn flood(h2: &mut H2, times: usize, mut bytes: impl FnMut(usize) -> Vec<u8>) {
    let mut buffer = Vec::new();
    for number in 0..times {
        buffer.extend(bytes(number));
        if buffer.len() < 16 << 10 && number + 1 < times {
            continue;
        }
        // A gateway that reads no more, as it queues no more answers, has done its part too.
        match tokio::time::timeout(Duration::from_secs(3), h2.push(&buffer)).await {
            Ok(true) => buffer.clear(),
            Ok(false) | Err(_) => return,
        }
    }
}

fn stream(number: usize) -> u32 {
    2 * u32::try_from(number).unwrap() + 1
}

/// CVE-2023-44487, CVE-2025-8671: streams that are opened and reset, by either side, cost work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_resets_ends_the_connection_before_it_costs_much() {
    let answer = |seen: &Seen| match seen.target().as_str() {
        "/attack" => Answer::ok("late").after(Duration::from_millis(200)),
        _ => Answer::ok("ok"),
    };
    // (what, the bytes that open and close one stream)
    type Reset = fn(usize) -> Vec<u8>;
    let table: [(&str, Reset); 4] = [
        ("RST_STREAM", |n| frames(&[Frame::get(stream(n), "/attack"), Frame::reset(stream(n), 8)])),
        ("WINDOW_UPDATE of 0", |n| {
            frames(&[Frame::get(stream(n), "/attack"), Frame::window(stream(n), 0)])
        }),
        ("a window beyond 2^31", |n| {
            frames(&[Frame::get(stream(n), "/attack"), Frame::window(stream(n), 0x7fff_ffff)])
        }),
        ("DATA behind the end", |n| {
            let data = Frame::new(DATA, END_STREAM, stream(n), [0; 1]);
            frames(&[Frame::get(stream(n), "/attack"), data])
        }),
    ];
    for (what, one) in table {
        let origin = Origin::scripted(answer).await;
        let gateway = Gateway::in_front_of(origin.address).await;
        let mut h2 = H2::connect(&gateway).await;
        let others = async {
            for _ in 0..5 {
                let begin = clock();
                assert_eq!(gateway.get("https://shop.test/other").await.status(), 200, "{what}");
                assert!(begin.elapsed() < Duration::from_secs(2), "{what}: {:?}", begin.elapsed());
            }
        };
        tokio::join!(flood(&mut h2, 10_000, one), others);
        assert!(ends(&mut h2).await, "{what}: the connection goes on");
        let reached = origin.seen().iter().filter(|seen| seen.target() == "/attack").count();
        assert!(reached < 1_000, "{what}: {reached} requests reached the backend");
    }
}

/// CVE-2024-27316: a head without end.
#[tokio::test]
async fn a_flood_of_continuations_ends_the_connection() {
    let target = Target::start().await;
    // (what, content of each frame)
    for (what, part) in [
        ("fields", literal(b"x-field", &[b'x'; 1000])),
        ("nothing", Vec::new()),
        ("a byte a frame", vec![0]),
    ] {
        let before = target.gateway.process().resident_kib();
        let mut h2 = H2::connect(&target.gateway).await;
        h2.frame(&Frame::new(HEADERS, END_STREAM, 1, block("GET", "/attack"))).await;
        flood(&mut h2, 100_000, |_| Frame::new(CONTINUATION, 0, 1, part.clone()).bytes()).await;
        assert!(ends(&mut h2).await, "{what}: the connection goes on");
        let grown = target.gateway.process().resident_kib().saturating_sub(before);
        assert!(grown < 8 << 10, "{what}: {grown} KiB more");
        target.is_unharmed(what).await;
    }
}

/// CVE-2019-9511 to 9518: frames that ask for an answer, or for nothing, from who never reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_small_frames_cost_no_memory_and_harm_nobody() {
    let target = Target::start().await;
    type One = fn(usize) -> Vec<u8>;
    let table: [(&str, One); 7] = [
        ("PING", |_| Frame::new(PING, 0, 0, [0; 8]).bytes()),
        ("SETTINGS", |_| Frame::new(SETTINGS, 0, 0, [0, 4, 0, 0, 0xff, 0xff]).bytes()),
        ("empty SETTINGS", |_| Frame::new(SETTINGS, 0, 0, []).bytes()),
        ("PRIORITY", |n| Frame::new(PRIORITY, 0, stream(n % 1000), [0, 0, 0, 0, 1]).bytes()),
        ("WINDOW_UPDATE", |_| Frame::window(0, 1).bytes()),
        ("an unknown frame", |_| Frame::new(0xfa, 0, 0, [0; 8]).bytes()),
        ("empty DATA", |n| {
            let head = if n == 0 { post(1, "/attack").bytes() } else { Vec::new() };
            [head, Frame::new(DATA, 0, 1, []).bytes()].concat()
        }),
    ];
    for (what, one) in table {
        let before = target.gateway.process().resident_kib();
        let mut h2 = H2::connect(&target.gateway).await;
        flood(&mut h2, 200_000, one).await;
        let grown = target.gateway.process().resident_kib().saturating_sub(before);
        assert!(grown < 16 << 10, "{what}: {grown} KiB more");
        let begin = clock();
        target.is_unharmed(what).await;
        assert!(begin.elapsed() < Duration::from_secs(2), "{what}: {:?}", begin.elapsed());
    }
}

/// CVE-2016-6581: a field that is sent once and named ten thousand times.
#[tokio::test]
async fn a_head_that_unpacks_without_end_is_refused() {
    let target = Target::start().await;
    let before = target.gateway.process().resident_kib();
    // A literal that goes into the table, then its index, 62, again and again.
    let mut block = block("GET", "/attack");
    block.push(0x40);
    block.extend(&literal(b"x-bomb", &[b'x'; 3000])[1..]);
    block.extend([0x80 | 62; 10_000]);
    let mut h2 = H2::connect(&target.gateway).await;
    h2.frame(&Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, block)).await;
    let outcome = h2.outcome(1).await;
    assert!(outcome.is_refusal(), "{outcome:?}");
    assert!(target.origin.requests().is_empty(), "{:?}", target.origin.seen());
    let grown = target.gateway.process().resident_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more");
    target.is_unharmed("a bomb").await;
}

/// CVE-2019-9517: whoever opens no window for answers does not make the gateway keep them.
#[tokio::test]
async fn answers_that_are_not_read_are_not_kept() {
    let big = "x".repeat(8 << 20);
    let origin = Origin::scripted(move |seen| match seen.target().as_str() {
        "/attack" => Answer::ok(&big),
        _ => Answer::ok("ok"),
    })
    .await;
    let gateway = Gateway::in_front_of(origin.address).await;
    gateway.get("https://shop.test/").await;
    let before = gateway.process().resident_kib();
    let mut h2 = H2::connect_with(&gateway, &[(4, 0)]).await;
    for number in 0..50 {
        h2.frame(&Frame::get(stream(number), "/attack")).await;
    }
    origin.saw(51).await;
    // Time to take in what the gateway would take in.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = gateway.process().resident_kib().saturating_sub(before);
    assert!(grown < 50 * 400, "{grown} KiB more for 50 streams");
    assert_eq!(gateway.get("https://shop.test/").await.status(), 200);
    // And a client that goes away takes them with it.
    drop(h2);
    until("the answers are given up", || origin.open() <= 2).await;
}

/// RFC 9113 section 6.9.1: what the window does not allow is not sent.
#[tokio::test]
async fn the_clients_window_is_kept_to() {
    let target = Target::start().await;
    let mut h2 = H2::connect_with(&target.gateway, &[(4, 1)]).await;
    h2.frame(&Frame::get(1, "/a")).await;
    let mut data = Vec::new();
    let first = soon("a byte", async {
        loop {
            let frame = h2.next().await.unwrap();
            if frame.kind == DATA && !frame.payload.is_empty() {
                return frame;
            }
        }
    })
    .await;
    data.extend(first.payload);
    assert_eq!(data, b"o");
    h2.frame(&Frame::window(1, 10)).await;
    match h2.outcome(1).await {
        // The head came before, so the status is not seen again.
        Outcome::Answer { body, .. } => assert_eq!(body, b"k"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_aborted_stream_aborts_its_request_alone() {
    let backend = Backend::bind().await;
    let gateway = Gateway::in_front_of(backend.address).await;
    let mut h2 = H2::connect(&gateway).await;
    h2.frame(&post(1, "/aborted")).await;
    h2.frame(&Frame::new(DATA, 0, 1, *b"half")).await;
    let mut first = backend.accept().await;
    let head = soon("a head", first.head()).await.unwrap();
    assert_eq!(head.target(), "/aborted");
    let begin = clock();
    h2.frame(&Frame::reset(1, 8)).await;
    let rest = first.rest().await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the body must not look whole: {rest:?}");
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());

    h2.frame(&Frame::get(3, "/next")).await;
    let mut second = backend.accept().await;
    assert_eq!(second.request().await.unwrap().target(), "/next");
    second.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(h2.outcome(3).await, Outcome::Answer { status: 200, body: b"ok".to_vec() });
}

#[tokio::test]
async fn a_slow_answer_that_breaks_does_not_end_in_order() {
    let origin = Origin::scripted(|_| {
        Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
            .then(Step::Wait(Duration::from_millis(50)))
            .then(Step::Close)
    })
    .await;
    let gateway = Gateway::in_front_of(origin.address).await;
    let mut h2 = H2::connect(&gateway).await;
    h2.frame(&Frame::get(1, "/a")).await;
    let outcome = h2.outcome(1).await;
    assert!(matches!(outcome, Outcome::Cut { status: 200, .. }), "{outcome:?}");
}
