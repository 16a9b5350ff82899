//! What an operator asks of the running gateway, and what they are told.

mod certs;
mod doctor;
mod reload;
mod tables;

use std::process::Output;

use crate::support::{Setup, soon};

/// Runs `edge-gateway COMMAND` beside the gateway, as its operator would.
pub(crate) async fn operator(setup: &Setup, command: &str, flags: &[&str]) -> Output {
    let mut command = setup.command(command);
    command.args(flags);
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap());
    soon("the command ends", ran).await.unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The text of a table in one line.
pub(super) fn unwrapped(output: &Output) -> String {
    stdout(output).split_whitespace().collect::<Vec<_>>().join(" ")
}
