//! A program that runs beside the test, its two outputs and its end.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::sync::watch;

use super::{soon, until};

/// A running program. Dropping it kills it, and prints what it said if the test is failing.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    leads_group: bool,
    stdout: watch::Receiver<Vec<String>>,
    stderr: watch::Receiver<Vec<String>>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    pub(crate) fn spawn(command: Command) -> Self {
        Self::run(command, false)
    }

    /// The same for a program that starts others, which end with it.
    pub(crate) fn spawn_with_children(mut command: Command) -> Self {
        command.process_group(0);
        Self::run(command, true)
    }

    fn run(mut command: Command, leads_group: bool) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        // The descriptors given to the child are in the command; the child has them now.
        drop(command);
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        let (ended, exit) = watch::channel(None);
        thread::spawn(move || {
            let status = child.wait().unwrap();
            ended.send_replace(Some(status));
        });
        Self { pid, leads_group, stdout, stderr, exit }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if !self.has_ended() {
            kill(self.pid, signal).unwrap();
        }
    }

    /// Stops it, until it is told to [`go_on`](Self::go_on).
    pub(crate) async fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        let stat = format!("/proc/{}/stat", self.pid);
        let is_stopped = || {
            let stat = std::fs::read_to_string(&stat).unwrap();
            stat.rsplit(") ").next().is_some_and(|state| state.starts_with('T'))
        };
        until("the program stops", is_stopped).await;
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// How it ended, once it has.
    pub(crate) async fn exit(&self) -> ExitStatus {
        let mut exit = self.exit.clone();
        let status =
            soon("the program ends", exit.wait_for(Option::is_some)).await.unwrap().unwrap();
        // What it said last may still be on its way through the pipes.
        for lines in [&self.stdout, &self.stderr] {
            let mut lines = lines.clone();
            soon("the outputs end", async { while lines.changed().await.is_ok() {} }).await;
        }
        status
    }

    pub(crate) fn stdout(&self) -> Vec<String> {
        self.stdout.borrow().clone()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.borrow().join("\n")
    }

    /// The first line of the output that `fits`, once it is there.
    pub(crate) async fn stdout_line(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let mut lines = self.stdout.clone();
        let found = |lines: &Vec<String>| lines.iter().find(|line| fits(line)).cloned();
        let seen = soon(what, lines.wait_for(|lines| found(lines).is_some())).await;
        match seen {
            Ok(lines) => found(&lines).unwrap(),
            Err(_) => panic!("{what}: the program ended without it"),
        }
    }

    /// Memory that is resident now, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Descriptors that are open now.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid)).unwrap().count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.has_ended() {
            let kill = if self.leads_group { killpg } else { kill };
            let _ = kill(self.pid, Signal::SIGKILL);
        }
        if thread::panicking() {
            for (name, lines) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
                let lines = lines.borrow();
                let last = lines.len().saturating_sub(50);
                eprintln!(
                    "--- {name} of {}, from line {last}\n{}",
                    self.pid,
                    lines[last..].join("\n")
                );
            }
        }
    }
}

fn lines(from: impl Read + Send + 'static) -> watch::Receiver<Vec<String>> {
    let (sender, receiver) = watch::channel(Vec::new());
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            sender.send_modify(|lines| lines.push(String::from_utf8_lossy(&line).into_owned()));
        }
    });
    receiver
}
