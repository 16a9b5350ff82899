//! A load that takes long holds up nothing but the next load.
//!
//! The EnvoyGateway document is a pipe here: whoever reads it waits until somebody writes to it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::Value;

use crate::operator::{operator, stdout};
use crate::support::{
    ENVOY_GATEWAY, Gateway, Message, NAMES, Origin, Setup, ca, clock, serve_all, soon, until,
};

/// A load that waits for its document.
struct SlowLoad(File);

impl SlowLoad {
    /// Has a load begin, and waits until it reads the document. The loads after it read a file.
    async fn begin(gateway: &Gateway) -> Self {
        // It is ready before it has looked whether files changed since the first load.
        assert_eq!(causes(gateway.setup_ref()).await, ["start"]);
        let document = gateway.path("standalone.yaml");
        let pipe = document.with_extension("pipe");
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        fs::rename(&pipe, &document).unwrap();
        gateway.process().signal(Signal::SIGHUP);
        let mut reading = None;
        until("the document is read", || {
            let flags = OFlag::O_NONBLOCK.bits();
            reading = OpenOptions::new().write(true).custom_flags(flags).open(&document).ok();
            reading.is_some()
        })
        .await;
        let file = document.with_extension("next");
        fs::write(&file, ENVOY_GATEWAY).unwrap();
        fs::rename(&file, &document).unwrap();
        Self(reading.unwrap())
    }

    fn end(mut self) {
        self.0.write_all(ENVOY_GATEWAY.as_bytes()).unwrap();
    }
}

/// The load is begun and not ended, as the service manager sees it.
fn is_loading(gateway: &Gateway) -> bool {
    let messages = gateway.notify().messages();
    let last = messages.iter().rfind(|message| message.is("RELOADING") || message.is("READY"));
    last.is_some_and(|message| message.is("RELOADING"))
}

async fn causes(setup: &Setup) -> Vec<String> {
    let socket = setup.control_socket().to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        use std::io::Read;
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        stream.write_all(b"GET /reloads HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str::<Value>(body).unwrap()
    });
    let answer = soon("the loads are told", asked).await.unwrap();
    let loads = answer["reloads"].as_array().unwrap().iter();
    loads.map(|load| load["cause"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn operators_clients_and_the_watchdog_are_answered_during_a_load() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::setup()
        .watching()
        .watchdog(200_000)
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let setup = gateway.setup_ref();
    let load = SlowLoad::begin(&gateway).await;

    let mut since = gateway.notify().messages().len();
    for _ in 0..5 {
        let fed = |message: &Message| message.is("WATCHDOG");
        since = gateway.notify().message("WATCHDOG=1", since, fed).await.0 + 1;
    }
    let status = operator(setup, "status", &[]).await;
    assert!(status.status.success() && stdout(&status).contains("GATEWAYCLASS"), "{status:?}");
    // A renewed certificate does not wait for the end of the load either.
    let renewed = ca().leaf(&NAMES);
    gateway.lineage().renew(&renewed);
    soon("the new certificate is served", async {
        while gateway.serial("shop.test").await != renewed.serial {
            // The gateway waits for the files to be quiet before it reads them.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    assert!(is_loading(&gateway), "{:?}", gateway.notify().messages());

    load.end();
    until("the load ends", || !is_loading(&gateway)).await;
}

#[tokio::test]
async fn what_changes_during_a_load_is_served_by_one_load_after_it() {
    let (first, last) = (Origin::replying("first").await, Origin::replying("last").await);
    let gateway = Gateway::in_front_of(first.address).await;
    let load = SlowLoad::begin(&gateway).await;

    gateway.write("routes/shop.yaml", &serve_all("shop", "shop.test", &[last.address]));
    for _ in 0..3 {
        gateway.process().signal(Signal::SIGHUP);
    }
    let setup = gateway.setup_ref();
    assert_eq!(causes(setup).await, ["start"], "none is answered before it is loaded");
    load.end();
    soon("both loads", async {
        while causes(setup).await.len() < 3 {
            // What is waited for is the state of another process.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(causes(setup).await, ["signal", "signal", "start"]);
    assert_eq!(gateway.get("http://shop.test/").await.text(), "last");
}

#[tokio::test]
async fn of_two_quick_changes_the_last_is_served() {
    let (first, last) = (Origin::replying("first").await, Origin::replying("last").await);
    let gateway = Gateway::setup()
        .watching()
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[first.address]))
        .start()
        .await;
    let load = SlowLoad::begin(&gateway).await;
    gateway.write("routes/shop.yaml", "kind: half of a file");
    load.end();
    gateway.write("routes/shop.yaml", &serve_all("shop", "shop.test", &[last.address]));
    soon("the last change is served", async {
        while gateway.get("http://shop.test/").await.text() != "last" {
            // The gateway waits for the files to be quiet before it reads them.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// An answer is about files that were read after the question.
#[tokio::test]
async fn who_asks_during_a_load_is_answered_by_the_next() {
    let (first, last) = (Origin::replying("first").await, Origin::replying("last").await);
    let gateway = Gateway::in_front_of(first.address).await;
    let load = SlowLoad::begin(&gateway).await;
    let setup = gateway.setup_ref();
    let mut asking = setup.command("reload --wait").spawn().unwrap();
    let mut rehearsing = setup.command("check");
    rehearsing.args(setup.files()).stdout(std::process::Stdio::piped());
    let mut rehearsing = rehearsing.spawn().unwrap();
    // For both to reach the gateway; there is nothing to see of it.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(asking.try_wait().unwrap().is_none() && rehearsing.try_wait().unwrap().is_none());

    gateway.write("routes/shop.yaml", &serve_all("shop", "shop.test", &[last.address]));
    load.end();
    let ended = tokio::task::spawn_blocking(move || {
        (asking.wait().unwrap(), rehearsing.wait_with_output().unwrap())
    });
    let (asked, rehearsed) = soon("both are answered", ended).await.unwrap();
    assert!(asked.success(), "{asked:?}");
    assert!(rehearsed.status.success(), "{rehearsed:?}");
    assert_eq!(gateway.get("http://shop.test/").await.text(), "last");
    assert_eq!(causes(setup).await, ["asked", "signal", "start"]);
}

/// The service manager hears the end of the reload before that of the process.
#[tokio::test]
async fn sigterm_during_a_load_ends_the_process_at_once() {
    let gateway = Gateway::start().await;
    let _load = SlowLoad::begin(&gateway).await;
    let begin = clock();
    gateway.terminate();
    assert!(gateway.exit().await.success());
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let messages = gateway.notify().messages();
    let states = ["READY", "RELOADING", "STOPPING"];
    let order: Vec<_> = messages
        .iter()
        .filter_map(|message| states.into_iter().find(|state| message.is(state)))
        .collect();
    assert_eq!(order, ["READY", "RELOADING", "READY", "STOPPING"], "{messages:?}");
}
