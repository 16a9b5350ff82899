//! Messages that break off: nobody gets one as if it were whole (RFC 9112 section 8, RFC 9113 section
//! 8.1), whichever protocol it came by and goes by.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::{
    Backend, DATA, END_STREAM, Faults, Frame, GOAWAY, Gateway, H2, Origin, Outcome, RST_STREAM,
    backend, channel, h2c_backend, http_route, request_fields, soon,
};

const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

/// How a client leaves an upload of 1000 bytes behind.
#[derive(Clone, Copy, Debug)]
enum Leaves {
    /// HTTP/1.1 with this length announced, by FIN or by RST.
    Length(Leave),
    Chunks(Leave),
    /// HTTP/2, by RST_STREAM.
    Stream(u32),
    /// HTTP/2, by GOAWAY and FIN.
    GoAway,
    Connection,
}

#[derive(Clone, Copy, Debug)]
enum Leave {
    Fin,
    Rst,
}

const LEAVES: [Leaves; 9] = [
    Leaves::Length(Leave::Fin),
    Leaves::Length(Leave::Rst),
    Leaves::Chunks(Leave::Fin),
    Leaves::Chunks(Leave::Rst),
    Leaves::Stream(NO_ERROR),
    Leaves::Stream(CANCEL),
    Leaves::Stream(REFUSED_STREAM),
    Leaves::GoAway,
    Leaves::Connection,
];

impl Leaves {
    /// Uploads to `path` and leaves once `arrived` has resolved.
    async fn upload(self, gateway: &Gateway, path: &str, arrived: impl Future<Output = ()>) {
        let content = "x".repeat(1000);
        let (head, leave) = match self {
            Self::Length(leave) => (format!("Content-Length: 2000\r\n\r\n{content}"), leave),
            Self::Chunks(leave) => {
                (format!("Transfer-Encoding: chunked\r\n\r\n3e8\r\n{content}\r\n"), leave)
            }
            Self::Stream(_) | Self::GoAway | Self::Connection => {
                let mut h2 = H2::connect(gateway).await;
                h2.frame(&Frame::head(1, 0, &request_fields("POST", path))).await;
                h2.frame(&Frame::new(DATA, 0, 1, content)).await;
                arrived.await;
                match self {
                    Self::Stream(code) => {
                        h2.frame(&Frame::reset(1, code)).await;
                        // The connection goes on.
                        h2.frame(&Frame::get(3, "/whole")).await;
                        assert_eq!(h2.outcome(3).await.status(), Some(200), "{self:?}");
                    }
                    Self::GoAway => {
                        h2.frame(&Frame::new(GOAWAY, 0, 0, [0; 8])).await;
                        h2.close().await;
                    }
                    _ => h2.close().await,
                }
                return;
            }
        };
        let mut client = gateway.wire().await;
        client.send(format!("POST {path} HTTP/1.1\r\nHost: shop.test\r\n{head}")).await;
        arrived.await;
        match leave {
            Leave::Fin => {
                client.finish().await;
                client.rest().await;
            }
            Leave::Rst => client.reset(),
        }
    }
}

/// A rule for `path` to the Backend `shop`, and what more `lines` say.
fn rule(path: &str, lines: &str) -> String {
    format!(
        "- matches:\n    - path: {{value: {path}}}\n  \
         backendRefs:\n    - {{group: gateway.envoyproxy.io, kind: Backend, name: shop}}\n{lines}"
    )
}

/// To an HTTP/1.1 backend, with and without tries, and to a mirror.
#[tokio::test]
async fn an_upload_that_breaks_off_is_whole_for_no_backend() {
    let (shop, copy) = (Origin::replying("ok").await, Origin::replying("ok").await);
    let mirror = "  filters:\n    - type: RequestMirror\n      requestMirror: {backendRef: \
                  {group: gateway.envoyproxy.io, kind: Backend, name: copy}}\n";
    let rules = rule("/", "")
        + &rule("/again", "  retry: {codes: [400, 503], attempts: 2, backoff: 1ms}\n")
        + &rule("/mirrored", mirror);
    let files = backend("shop", &[shop.address])
        + &backend("copy", &[copy.address])
        + &http_route("shop", &["shop.test"], &rules);
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    let faults = Faults::default();
    for leaves in LEAVES {
        for path in ["/plain", "/again", "/mirrored"] {
            let (before, before_copy) = (shop.seen().len(), copy.seen().len());
            let opened = shop.connections();
            // A moment for what was sent to arrive.
            let arrived = tokio::time::sleep(Duration::from_millis(100));
            leaves.upload(&gateway, path, arrived).await;
            shop.saw(before + 1).await;
            if path == "/mirrored" {
                copy.saw(before_copy + 1).await;
            }
            let seen = shop.seen().split_off(before);
            let seen_copy = copy.seen().split_off(before_copy);
            let whole = seen
                .iter()
                .chain(&seen_copy)
                .find(|seen| seen.complete && seen.target() != "/whole");
            faults.unless(whole.is_none(), || {
                format!(
                    "{leaves:?} {path}, on {} more connections: {whole:?}",
                    shop.connections() - opened
                )
            });
        }
    }
    // What a client gives up is no fault of its request.
    let line = gateway.logged("an abandoned upload", |line| {
        line["protocol"] == "HTTP/2" && line["path"] == "/plain"
    });
    let line = line.await;
    assert_eq!((&line["flags"], &line["status"]), (&"DC".into(), &0.into()), "{line}");
}

/// To an HTTP/2 backend: the stream is reset, and with a code that says so.
#[tokio::test]
async fn an_upload_that_breaks_off_is_reset_at_an_http2_backend() {
    let origin = Backend::bind().await;
    let files = h2c_backend("shop", &[origin.address])
        + &http_route("shop", &["shop.test"], &rule("/", ""));
    let faults = Faults::default();
    for leaves in LEAVES {
        let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
        let (got, gets) = tokio::sync::oneshot::channel();
        let upload = leaves.upload(&gateway, "/upload", async { gets.await.unwrap() });
        let serve = async {
            let mut h2 = H2::backend(origin.accept().await).await;
            let stream = h2.request().await;
            let mut got = Some(got);
            let mut bytes = 0;
            let end = loop {
                let frame = soon("the upload breaks off", h2.next()).await;
                let Some(frame) = frame else { break None };
                if frame.stream != stream {
                    continue;
                }
                match frame.kind {
                    DATA if frame.is(END_STREAM) => break Some(DATA.into()),
                    DATA => {
                        bytes += frame.payload.len();
                        if bytes == 1000
                            && let Some(got) = got.take()
                        {
                            got.send(()).unwrap();
                        }
                    }
                    RST_STREAM => break Some(1000 + frame.number(0)),
                    _ => {}
                }
            };
            faults.unless(end == Some(1000 + CANCEL), || format!("{leaves:?}: {end:?}"));
            // The other request of the client, if there is one.
            if matches!(leaves, Leaves::Stream(_)) {
                let other = h2.request().await;
                h2.frame(&answer(other, END_STREAM)).await;
            }
            h2
        };
        tokio::join!(upload, serve);
    }
}

/// The head of a response, 200 without a length.
fn answer(stream: u32, flags: u8) -> Frame {
    Frame::head(stream, flags, &[(b":status", b"200")])
}

/// How an HTTP/2 backend leaves its response behind.
#[derive(Clone, Copy, Debug)]
enum Ends {
    Reset(u32),
    /// Its stream is not among those that GOAWAY leaves.
    GoAway,
    Connection,
    /// It is whole; the reset tells that the request is not wanted further (RFC 9113 section 8.1).
    WholeThenReset,
}

#[tokio::test]
async fn a_response_that_breaks_off_is_whole_for_no_client() {
    let origin = Backend::bind().await;
    let files = h2c_backend("shop", &[origin.address])
        + &http_route("shop", &["shop.test"], &rule("/", ""));
    let table = [
        Ends::Reset(NO_ERROR),
        Ends::Reset(CANCEL),
        Ends::Reset(REFUSED_STREAM),
        Ends::GoAway,
        Ends::Connection,
        Ends::WholeThenReset,
    ];
    let faults = Faults::default();
    for ends in table {
        let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
        let whole = matches!(ends, Ends::WholeThenReset);
        let serve = async || {
            let mut h2 = H2::backend(origin.accept().await).await;
            let stream = h2.request().await;
            let last = if whole { END_STREAM } else { 0 };
            h2.frame(&answer(stream, 0)).await;
            h2.frame(&Frame::new(DATA, last, stream, "half")).await;
            // The client sees the beginning, whatever comes of it.
            tokio::time::sleep(Duration::from_millis(100)).await;
            match ends {
                Ends::Reset(code) => h2.frame(&Frame::reset(stream, code)).await,
                Ends::WholeThenReset => h2.frame(&Frame::reset(stream, NO_ERROR)).await,
                Ends::GoAway => h2.frame(&Frame::new(GOAWAY, 0, 0, [0; 8])).await,
                Ends::Connection => {}
            }
            if !matches!(ends, Ends::Connection) {
                soon("the gateway leaves", async { while h2.next().await.is_some() {} }).await;
            }
            h2.close().await;
        };
        let http1 = async |version: &str| {
            let mut client = gateway.wire().await;
            let lines = "Host: shop.test\r\nConnection: close\r\n\r\n";
            client.send(format!("GET / HTTP/{version}\r\n{lines}")).await;
            let reply = client.reply().await;
            assert_eq!((reply.status(), reply.text().as_str()), (200, "half"), "{ends:?}");
            // HTTP/1.0 has no chunks: there the end of the connection says how it was.
            reply.complete && !client.broken
        };
        let http2 = async {
            let mut client = H2::connect(&gateway).await;
            client.frame(&Frame::get(1, "/")).await;
            let outcome = client.outcome(1).await;
            if let Outcome::Cut { code, .. } = outcome {
                faults.unless(code != NO_ERROR && code != REFUSED_STREAM, || {
                    format!("{ends:?}: reset with {code}")
                });
            }
            matches!(outcome, Outcome::Answer { .. })
        };
        // One after the other: each has a connection to the backend of its own, which ends with it.
        for version in ["1.1", "1.0"] {
            let (complete, ()) = tokio::join!(http1(version), serve());
            faults.unless(complete == whole, || format!("{ends:?} by HTTP/{version}: {complete}"));
        }
        let (complete, ()) = tokio::join!(http2, serve());
        faults.unless(complete == whole, || format!("{ends:?} by HTTP/2: {complete}"));
    }
}

/// RFC 9110 section 6.5.1. Trailers go on to and from HTTP/2 backends, but for those that are none.
#[tokio::test]
async fn trailers_that_would_be_headers_go_no_further() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let files = h2c_backend("shop", &[listener.local_addr().unwrap()])
        + &http_route("shop", &["shop.test"], &rule("/", ""));
    let gateway = Gateway::setup().file("routes/shop.yaml", &files).start().await;
    let odd = [
        ("content-length", "4"),
        ("host", "evil.test"),
        ("x-forwarded-for", "192.0.2.1"),
        ("authorization", "Basic eDp5"),
        ("set-cookie", "a=b"),
        ("x_sum", "2"),
    ];
    let trailers: HeaderMap = odd
        .into_iter()
        .chain([("x-sum", "1")])
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let answers = trailers.clone();
    let mut server = JoinSet::new();
    server.spawn(async move {
        // A worker has a connection of its own.
        let mut connections = JoinSet::new();
        loop {
            let stream = listener.accept().await.unwrap().0;
            let (tell, answers) = (tell.clone(), answers.clone());
            connections.spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let (tell, answers) = (tell.clone(), answers.clone());
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        while body.data().await.is_some() {}
                        tell.send(body.trailers().await.unwrap()).unwrap();
                        let mut stream = respond.send_response(Response::new(()), false).unwrap();
                        stream.send_data("body".into(), false).unwrap();
                        stream.send_trailers(answers).unwrap();
                    });
                }
            });
        }
    });
    let only_sum =
        HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from_static("1"))]);

    let (frames, body) = channel();
    let request = Request::post("https://shop.test/").body(body).unwrap();
    let mut http2 = gateway.http2("shop.test").await;
    let sent = async {
        frames.send(hyper::body::Frame::data("body".into())).await.unwrap();
        frames.send(hyper::body::Frame::trailers(trailers)).await.unwrap();
        drop(frames);
    };
    let (fetched, ()) = tokio::join!(http2.fetch(request), sent);
    assert_eq!(fetched.unwrap().trailers.as_ref(), Some(&only_sum));
    assert_eq!(soon("the trailers", told.recv()).await.unwrap().as_ref(), Some(&only_sum));

    let mut client = gateway.wire().await;
    let lines = odd.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n\
             4\r\nbody\r\n0\r\nx-sum: 1\r\n{lines}\r\n"
        ))
        .await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.text().as_str(), reply.complete), (200, "body", true));
    assert_eq!(soon("the trailers", told.recv()).await.unwrap().as_ref(), Some(&only_sum));
}
