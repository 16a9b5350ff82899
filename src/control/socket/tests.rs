use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::control::certificates::Certificates;
use crate::control::conditions::BadConditions;
use crate::downstream::{KEY_LENGTH, Process, ProcessLimits, SessionKey, Shortage};
use crate::kube_api::{ApiRules, KubeApi};
use crate::metrics::Metrics;
use crate::observe::{AccessLog, LogLevel};
use crate::snapshot::{Snapshot, SnapshotCell};
use crate::upstream::Descriptors;

use super::*;

const SOON: Duration = Duration::from_secs(10);

fn front() -> Front {
    KubeApi::new(ApiRules::default()).0.front().clone()
}

fn admin() -> Admin {
    let process = Arc::new(Process {
        snapshot: SnapshotCell::new(Snapshot::default()),
        limits: ProcessLimits::default(),
        trusted_proxies: Vec::new(),
        acme_webroot: PathBuf::new(),
        session_key: SessionKey::new(&[7; KEY_LENGTH]).unwrap(),
        access_log: AccessLog::discard(),
        connections: Arc::default(),
        shortage: Shortage::new(None),
        descriptors: Descriptors::unlimited(),
        shows_routes: false,
        draining: AtomicBool::new(false),
    });
    let metrics = Arc::new(Metrics::new(Arc::clone(&process), Arc::default()));
    Admin::new(process, metrics, LogLevel::new(tracing::Level::INFO, |_| {}))
}

fn open(path: &Path) -> Result<ControlSocket, CannotOpen> {
    open_with(path, Patience::default())
}

fn open_with(path: &Path, patience: Patience) -> Result<ControlSocket, CannotOpen> {
    let mut socket = ControlSocket::new();
    let listener = socket.bind(path)?;
    let door = SocketDoor { asks: socket.asks.clone(), front: front(), admin: admin() };
    socket.servers.spawn(serve(listener, door, patience));
    Ok(socket)
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    (dir, path)
}

/// Answers every request with fixed values, in place of the control loop.
async fn answering(path: &Path, patience: Patience) -> JoinSet<()> {
    let mut socket = open_with(path, patience).unwrap();
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            match socket.next(true).await {
                Ask::Reload(first) => {
                    let reloaded = Reloaded { loaded: true, took_ms: 7, ..Reloaded::default() };
                    for asked in std::iter::once(first).chain(socket.also_waiting()) {
                        if let Some(answer) = asked.answer {
                            let _ = answer.send(reloaded.clone());
                        }
                    }
                }
                Ask::Rehearse { answer, .. } => {
                    let _ = answer.send(Reloaded::default());
                }
                Ask::Certificates(answer) => {
                    let _ = answer.send(Certificates::default());
                }
                Ask::Conditions(answer) => {
                    let _ = answer.send(BadConditions::default());
                }
                Ask::Drain(answer) => {
                    let _ = answer.send(Draining { connections: 3, timeout_ms: 1 });
                }
                Ask::Reloads(answer) => {
                    let _ = answer.send(ReloadHistory::default());
                }
                Ask::Status(answer) => {
                    let _ = answer.send(StatusReport { pid: 42, ..StatusReport::default() });
                }
            }
        }
    });
    task
}

async fn asked<T: serde::de::DeserializeOwned + Send + 'static>(
    path: &Path,
    method: &'static str,
    target: &'static str,
) -> Result<T, CannotAsk> {
    let path = path.to_owned();
    let asked = tokio::task::spawn_blocking(move || call(&path, method, target, SOON));
    asked.await.unwrap()
}

#[tokio::test]
async fn what_is_asked_is_answered() {
    let (_dir, path) = place();
    let _gateway = answering(&path, Patience::default()).await;
    let reloaded: Reloaded = asked(&path, "POST", "/reload").await.unwrap();
    assert_eq!((reloaded.loaded, reloaded.took_ms), (true, 7));
    let status: StatusReport = asked(&path, "GET", "/status").await.unwrap();
    assert_eq!(status.pid, 42);
    let draining: Draining = asked(&path, "POST", "/drain_listeners").await.unwrap();
    assert_eq!(draining.connections, 3);
    let dump: serde_json::Value = asked(&path, "GET", "/config_dump").await.unwrap();
    assert_eq!(dump["routes"], serde_json::json!([]));
    let refused = asked::<StatusReport>(&path, "GET", "/nothing").await.unwrap_err().to_string();
    assert!(refused.contains("`/nothing` is nothing here"), "{refused}");
}

#[tokio::test]
async fn only_owner_and_group_may_connect() {
    let (_dir, path) = place();
    let _socket = open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o660);
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let (_dir, path) = place();
    // A killed process leaves its socket file behind.
    drop(net::UnixListener::bind(&path).unwrap());
    let first = open(&path).unwrap();
    let failed = open(&path).unwrap_err();
    assert!(matches!(failed, CannotOpen::Live { .. }), "{failed}");
    drop(first);
    assert!(!path.exists(), "an own file is removed");

    fs::write(&path, "notes").unwrap();
    let failed = open(&path).unwrap_err();
    assert!(matches!(failed, CannotOpen::NoSocket { .. }), "{failed}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "notes");

    let nowhere = path.with_file_name("nowhere").join("control.sock");
    let failed = open(&nowhere).unwrap_err();
    assert!(failed.to_string().contains("nowhere"), "{failed}");
}

#[tokio::test]
async fn the_file_of_a_successor_stays() {
    let (_dir, path) = place();
    let old = open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let _new = open(&path).unwrap();
    drop(old);
    assert!(path.exists());
}

#[tokio::test]
async fn those_who_say_nothing_keep_nobody_out() {
    let (_dir, path) = place();
    let head = Duration::from_millis(100);
    let _gateway = answering(&path, Patience { head, ..Patience::default() }).await;
    let mut silent: Vec<_> = (0..40).map(|_| UnixStream::connect(&path).unwrap()).collect();
    for stream in &mut silent {
        stream.write_all(b"POST /reload HTTP/1.1\r\nHost:").unwrap();
    }
    let status: StatusReport = asked(&path, "GET", "/status").await.unwrap();
    assert_eq!(status.pid, 42);
    drop(silent);
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let (_dir, path) = place();
    let _gateway = answering(&path, Patience::default()).await;
    let stream = UnixStream::connect(&path).unwrap();
    let said = tokio::task::spawn_blocking(move || {
        let mut stream = stream;
        stream.set_read_timeout(Some(SOON)).unwrap();
        let head = format!("GET /status HTTP/1.1\r\nHost: {}", "x".repeat(64 << 10));
        // The gateway may close the connection before it has read everything.
        let _ = stream.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    });
    let said = said.await.unwrap();
    assert!(said.is_empty() || said.contains(" 431 "), "{said}");
}

#[tokio::test]
async fn reloads_that_wait_are_done_as_one() {
    let (_dir, path) = place();
    let mut socket = open(&path).unwrap();
    let mut callers = JoinSet::new();
    for _ in 0..5 {
        let path = path.clone();
        callers.spawn(async move { asked::<Reloaded>(&path, "POST", "/reload").await.unwrap() });
    }
    let mut done = 0;
    let mut waiting = Vec::new();
    while waiting.len() < 5 {
        let Ask::Reload(answer) = socket.next(true).await else { panic!("a reload was asked for") };
        waiting.push(answer);
        waiting.extend(socket.also_waiting());
        done += 1;
    }
    assert!(done <= 5);
    for answer in waiting.into_iter().filter_map(|asked| asked.answer) {
        answer.send(Reloaded { loaded: true, ..Reloaded::default() }).unwrap();
    }
    while let Some(reloaded) = callers.join_next().await {
        assert!(reloaded.unwrap().loaded);
    }
}
