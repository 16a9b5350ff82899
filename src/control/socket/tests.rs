use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::kube_api::{KubeApi, Rules};

use super::*;

const SOON: Duration = Duration::from_secs(10);

fn front() -> Front {
    KubeApi::new(Rules::default()).0.front().clone()
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    (dir, path)
}

/// Answers every question with the same, as the control loop would.
async fn answering(path: &Path, patience: Patience) -> JoinSet<()> {
    let mut socket = ControlSocket::open_with(path, front(), patience).unwrap();
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            match socket.next().await {
                Ask::Reload(waiting) => {
                    let reloaded = Reloaded { loaded: true, took_ms: 7, ..Reloaded::default() };
                    for answer in waiting.into_iter().chain(socket.also_waiting()) {
                        let _ = answer.send(reloaded.clone());
                    }
                }
                Ask::Certificates(answer) => {
                    let _ = answer.send(Certificates::default());
                }
                Ask::Status(answer) => {
                    let _ = answer.send(Status { pid: 42, ..Status::default() });
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
    let status: Status = asked(&path, "GET", "/status").await.unwrap();
    assert_eq!(status.pid, 42);
    let refused = asked::<Status>(&path, "GET", "/nothing").await.unwrap_err().to_string();
    assert!(refused.contains("`/nothing` is nothing here"), "{refused}");
}

#[tokio::test]
async fn only_owner_and_group_may_connect() {
    let (_dir, path) = place();
    let _socket = ControlSocket::open(&path, front()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o660);
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let (_dir, path) = place();
    // A process that was killed leaves its file behind.
    drop(net::UnixListener::bind(&path).unwrap());
    let first = ControlSocket::open(&path, front()).unwrap();
    let failed = ControlSocket::open(&path, front()).unwrap_err();
    assert!(matches!(failed, CannotOpen::Live { .. }), "{failed}");
    drop(first);
    assert!(!path.exists(), "an own file is removed");

    fs::write(&path, "notes").unwrap();
    let failed = ControlSocket::open(&path, front()).unwrap_err();
    assert!(matches!(failed, CannotOpen::NoSocket { .. }), "{failed}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "notes");

    let nowhere = path.with_file_name("nowhere").join("control.sock");
    let failed = ControlSocket::open(&nowhere, front()).unwrap_err();
    assert!(failed.to_string().contains("nowhere"), "{failed}");
}

#[tokio::test]
async fn the_file_of_a_successor_stays() {
    let (_dir, path) = place();
    let old = ControlSocket::open(&path, front()).unwrap();
    fs::remove_file(&path).unwrap();
    let _new = ControlSocket::open(&path, front()).unwrap();
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
    let status: Status = asked(&path, "GET", "/status").await.unwrap();
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
        // The gateway may close before it has read all of it.
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
    let mut socket = ControlSocket::open(&path, front()).unwrap();
    let mut callers = JoinSet::new();
    for _ in 0..5 {
        let path = path.clone();
        callers.spawn(async move { asked::<Reloaded>(&path, "POST", "/reload").await.unwrap() });
    }
    let mut done = 0;
    let mut waiting = Vec::new();
    while waiting.len() < 5 {
        let Ask::Reload(answer) = socket.next().await else { panic!("a reload was asked for") };
        waiting.extend(answer);
        waiting.extend(socket.also_waiting());
        done += 1;
    }
    assert!(done <= 5);
    for answer in waiting {
        answer.send(Reloaded { loaded: true, ..Reloaded::default() }).unwrap();
    }
    while let Some(reloaded) = callers.join_next().await {
        assert!(reloaded.unwrap().loaded);
    }
}
