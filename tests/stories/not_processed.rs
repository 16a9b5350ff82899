//! Requests that a backend has not processed go to another connection, whatever their method, and none
//! goes twice to a backend that may have processed it (RFC 9113 section 8.7).

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::needs::{INSTALL, needs};
use crate::support::{
    Backend, DATA, END_STREAM, Frame, GOAWAY, Gateway, H2, HEADERS, Process, Wire, free_address,
    h2c_backend, http_route, in_package, rule_to, soon,
};

/// Clients at the same time, each on a connection of its own.
const CLIENTS: usize = 12;

async fn in_front_of(backend: SocketAddr) -> Gateway {
    let files = h2c_backend("shop", &[backend])
        + &http_route("shop", &["shop.test"], &rule_to("/", "shop"));
    Gateway::setup().file("routes/shop.yaml", &files).start().await
}

/// Has every client send `posts` requests one after the other, and returns the bodies of those that were
/// not answered 200.
async fn load(gateway: &Gateway, posts: usize) -> Vec<String> {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let mut wire = gateway.wire().await;
        clients.spawn(async move {
            let mut failed = Vec::new();
            for number in 0..posts {
                let body = format!("{client}-{number}");
                let length = body.len();
                wire.send(format!(
                    "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}\r\n\r\n{body}"
                ))
                .await;
                let status = wire.reply().await.status();
                if status != 200 {
                    failed.push(format!("{body}: {status}"));
                }
            }
            failed
        });
    }
    let mut failed = Vec::new();
    while let Some(of_one) = clients.join_next().await {
        failed.extend(of_one.unwrap());
    }
    failed
}

/// Answers `requests` on a connection, then says GOAWAY: what came behind them has not been looked at.
async fn serve(stream: TcpStream, requests: usize, processed: Arc<Mutex<Vec<String>>>) {
    let mut h2 = H2::backend(Wire::tcp(stream)).await;
    let mut bodies = HashMap::<u32, Vec<u8>>::new();
    let mut last = None;
    let mut seen = 0;
    while let Some(frame) = h2.next().await {
        if last.is_some_and(|last| frame.stream > last) {
            continue;
        }
        match frame.kind {
            HEADERS => {
                seen += 1;
                bodies.insert(frame.stream, Vec::new());
                if seen == requests {
                    last = Some(frame.stream);
                }
            }
            DATA => bodies.entry(frame.stream).or_default().extend(&frame.payload),
            _ => continue,
        }
        if !frame.is(END_STREAM) {
            continue;
        }
        let body = bodies.remove(&frame.stream).unwrap();
        processed.lock().unwrap().push(String::from_utf8(body).unwrap());
        h2.frame(&Frame::head(frame.stream, END_STREAM, &[(b":status", b"200")])).await;
        if let Some(last) = last.filter(|_| bodies.is_empty()) {
            // Others come meanwhile, as they do where client and backend are far from each other.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let payload = [last.to_be_bytes(), [0; 4]].concat();
            h2.frame(&Frame::new(GOAWAY, 0, 0, payload)).await;
        }
    }
}

#[tokio::test]
async fn a_post_that_goaway_leaves_out_is_processed_once() {
    const POSTS: usize = 50;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = in_front_of(listener.local_addr().unwrap()).await;
    let processed = Arc::<Mutex<Vec<String>>>::default();
    let (record, mut server) = (Arc::clone(&processed), JoinSet::new());
    server.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let stream = listener.accept().await.unwrap().0;
            connections.spawn(serve(stream, 20, Arc::clone(&record)));
        }
    });
    assert_eq!(load(&gateway, POSTS).await, Vec::<String>::new());
    let processed = processed.lock().unwrap();
    let once: HashSet<_> = processed.iter().collect();
    assert_eq!((processed.len(), once.len()), (CLIENTS * POSTS, CLIENTS * POSTS));
}

/// The nginx that `scripts/install test` unpacks, or that of the host.
fn nginx() -> Option<PathBuf> {
    let unpacked = in_package("tests/.cache/nginx/usr/sbin/nginx");
    let found = [unpacked, "/usr/sbin/nginx".into()].into_iter().find(|path| path.exists());
    needs("nginx", found, INSTALL)
}

/// nginx ends each connection after `keepalive_requests`, in the middle of what comes.
#[tokio::test]
async fn no_post_fails_while_nginx_renews_its_connections() {
    let Some(nginx) = nginx() else { return };
    let address = free_address();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|of| format!("{of}_temp_path {at}/{of};"))
        .concat();
    let configuration = format!(
        "daemon off; master_process off; pid {at}/pid; error_log stderr;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; {paths}\n\
         server {{ listen {address} http2; keepalive_requests 20; location / {{ return 200 ok; }} }} }}\n"
    );
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, configuration).unwrap();
    let mut command = Command::new(nginx);
    command.args(["-e", "stderr", "-p"]).arg(folder.path()).arg("-c").arg(&file);
    let nginx = Process::spawn(command);
    soon("nginx listens", async {
        while TcpStream::connect(address).await.is_err() {
            assert!(!nginx.has_ended(), "{}", nginx.stderr());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let gateway = in_front_of(address).await;
    assert_eq!(load(&gateway, 100).await, Vec::<String>::new());
}

/// RFC 9110 section 15.5.9: a backend that closes a connection which rests may say so with 408, and a
/// request may be under way meanwhile. It was not received.
#[tokio::test]
async fn a_408_to_a_connection_that_rested_is_no_answer() {
    const TIMED_OUT: &str =
        "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let backend = Backend::bind().await;
    let route = crate::support::serve_all("shop", "shop.test", &[backend.address]);
    let gateway =
        Gateway::setup().flag("--workers 1").file("routes/shop.yaml", &route).start().await;
    for method in ["GET", "DELETE", "POST"] {
        let mut client = gateway.wire().await;
        let lines = "Host: shop.test\r\nContent-Length: 0\r\n\r\n";
        let ask = format!("{method} / HTTP/1.1\r\n{lines}");
        client.send(&ask).await;
        let mut first = backend.accept().await;
        first.request().await.unwrap();
        first.send(OK).await;
        assert_eq!(client.reply().await.status(), 200, "{method}");
        client.send(&ask).await;
        first.request().await.unwrap();
        first.send(TIMED_OUT).await;
        let mut second = backend.accept().await;
        second.request().await.unwrap();
        second.send(OK).await;
        assert_eq!(client.reply().await.status(), 200, "{method}");
        // On a connection that was opened for it, it is the backend's answer.
        second.finish().await;
        client.send(&ask).await;
        let mut third = backend.accept().await;
        third.request().await.unwrap();
        third.send(TIMED_OUT).await;
        assert_eq!(client.reply().await.status(), 408, "{method}");
    }
}
