//! Signals that tooling of other proxies sends: none of them ends the gateway.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::Value;

use crate::support::{ENVOY_GATEWAY, Gateway, Origin, Process, serve_all, until};

/// Events that the gateway has logged, one after the other.
fn events(process: &Process) -> Vec<Value> {
    process.stderr().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn is_event(event: &Value, message: &str) -> bool {
    event["message"].as_str().is_some_and(|said| said.starts_with(message))
}

/// By number, since the ones of real time have no name that everybody knows.
fn send(number: i32, to: &Process) {
    let sent =
        Command::new("sh").args(["-c", &format!("kill -{number} {}", to.pid())]).status().unwrap();
    assert!(sent.success(), "signal {number}");
}

#[tokio::test]
async fn no_signal_of_other_tooling_ends_the_gateway() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    let process = gateway.process();
    let told = [
        Signal::SIGUSR2,
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGIO,
        Signal::SIGPWR,
        Signal::SIGTTIN,
        Signal::SIGTTOU,
        Signal::SIGSTKFLT,
        Signal::SIGXFSZ,
    ]
    .map(|signal| signal as i32);
    // Of these nobody is told.
    let silent = [Signal::SIGWINCH, Signal::SIGPIPE, Signal::SIGURG, Signal::SIGCONT];
    for number in told.into_iter().chain(34..=64) {
        send(number, process);
        until("the word of it", || {
            let ignored = |event: &Value| {
                is_event(event, "signal ignored") && event["number"].as_i64() == Some(number.into())
            };
            assert!(!process.has_ended(), "signal {number} ended it");
            events(process).iter().any(ignored)
        })
        .await;
    }
    for signal in silent {
        process.signal(signal);
    }
    process.signal(Signal::SIGUSR1);
    until("the files", || {
        events(process).iter().any(|event| is_event(event, "log files opened again"))
    })
    .await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    // SIGQUIT is how nginx is told to finish its requests and end.
    process.signal(Signal::SIGQUIT);
    assert!(gateway.exit().await.success());
}

/// What comes while the configuration is read is kept, and done once there is somebody to do it.
#[tokio::test]
async fn a_signal_that_comes_before_the_first_load_is_not_lost_and_ends_nothing() {
    let shop = Origin::replying("shop").await;
    let setup =
        Gateway::setup().file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]));
    // Whoever reads a pipe waits until somebody writes to it.
    let config = setup.path("standalone.yaml");
    fs::remove_file(&config).unwrap();
    nix::unistd::mkfifo(&config, Mode::S_IRWXU).unwrap();
    let gateway = setup.launch();
    let process = gateway.process();
    let mut reading = None;
    until("the configuration is read", || {
        let open =
            OpenOptions::new().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&config);
        reading = open.ok();
        reading.is_some() || process.has_ended()
    })
    .await;
    let early = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM, Signal::SIGIO];
    for signal in early {
        process.signal(signal);
    }
    send(34, process);
    // Read again by the load itself.
    let file = config.with_extension("next");
    fs::write(&file, ENVOY_GATEWAY).unwrap();
    fs::rename(&file, &config).unwrap();
    reading.unwrap().write_all(ENVOY_GATEWAY.as_bytes()).unwrap();

    until("the reload", || {
        assert!(!process.has_ended(), "a signal ended it");
        let said = events(process);
        let all = ["reloading on SIGHUP", "log files opened again", "signal ignored"];
        all.iter().all(|message| said.iter().any(|event| is_event(event, message)))
    })
    .await;
    until("the load of it", || {
        let said = events(process);
        said.iter().filter(|event| is_event(event, "serving ")).count() >= 2
    })
    .await;
    let said = events(process);
    let serving = said.iter().find(|event| is_event(event, "serving ")).unwrap();
    // Figures of events are numbers.
    assert!(serving["took_ms"].is_u64() && serving["generation"].is_u64(), "{serving}");
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
}
