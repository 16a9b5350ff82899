//! The command line: one file for each command, and the flags that several share.

mod api;
mod certs;
mod check;
mod dev;
mod doctor;
mod echo;
mod explain;
mod export;
mod kubeconfig;
mod output;
mod paths;
mod reload;
mod routes;
mod run;
mod serve;
mod status;
mod table;
mod text;
mod top;
mod values;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::control::signals;
use crate::systemd;

use certs::Certs;
use check::Check;
use dev::Dev;
use doctor::Doctor;
use echo::Echo;
use explain::Explain;
use export::Export;
use kubeconfig::Kubeconfig;
use output::{fail, settled};
use reload::Reload;
use routes::Routes;
use run::Run;
use status::Status;
use top::Top;

/// The exit code for invalid arguments, as in clap.
const USAGE: u8 = 2;
/// Environment variables that hold paths. A path could end with any character, so they are checked.
const PATHS: [&str; 6] = [
    "EDGE_GATEWAY_CONFIG",
    "HOME",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "STATE_DIRECTORY",
    "XDG_STATE_HOME",
];

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    // Must come first: until then a signal ends the process.
    signals::hold();
    // Changes the environment, so no other thread may be running yet.
    let handed = match systemd::inherited() {
        Ok(handed) => handed,
        Err(error) => return fail(error),
    };
    if let Some(fault) = line_end() {
        fail(fault);
        return ExitCode::from(USAGE);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return other_than_a_command(&error),
    };
    if !matches!(cli.command, Command::Run(_) | Command::Dev(_)) {
        signals::let_go();
    }
    match cli.command {
        Command::Run(run) => run.run(handed).map_or_else(fail, |()| ExitCode::SUCCESS),
        Command::Dev(dev) => dev.run(handed).map_or_else(fail, |()| ExitCode::SUCCESS),
        Command::Check(check) => check.run().unwrap_or_else(fail),
        Command::Explain(explain) => explain.run().unwrap_or_else(fail),
        Command::Certs(certs) => certs.run().unwrap_or_else(fail),
        Command::Routes(routes) => routes.run().unwrap_or_else(fail),
        Command::Top(top) => top.run().unwrap_or_else(fail),
        Command::Status(status) => status.run().unwrap_or_else(fail),
        Command::Kubeconfig(kubeconfig) => kubeconfig.run().unwrap_or_else(fail),
        Command::Reload(reload) => reload.run().unwrap_or_else(fail),
        Command::Doctor(doctor) => doctor.run().unwrap_or_else(fail),
        Command::Export(export) => export.run().unwrap_or_else(fail),
        Command::Echo(echo) => echo.run().map_or_else(fail, |()| ExitCode::SUCCESS),
    }
}

/// Returns the definition of the command line, for man pages and shell completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Returns an error for the first argument, or path in the environment, that ends with a line end.
/// Scripts and environment files saved on Windows cause this.
fn line_end() -> Option<String> {
    let arguments = std::env::args_os().skip(1).map(|argument| ("the argument", argument));
    let paths = PATHS.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    paths.chain(arguments).find_map(|(what, value)| ended_line(what, &value))
}

fn ended_line(what: &str, value: &OsStr) -> Option<String> {
    let end = match value.as_bytes().last()? {
        b'\r' => "carriage return",
        b'\n' => "newline",
        _ => return None,
    };
    let value = value.to_string_lossy();
    Some(format!(
        "{what} `{}` ends with a {end}: remove it; a file that was saved on Windows has one at the end of \
         each line",
        value.escape_debug()
    ))
}

/// Prints the help, the version or the error in the arguments.
fn other_than_a_command(error: &clap::Error) -> ExitCode {
    let printed = error.print().and_then(|()| io::stdout().flush());
    match settled(printed) {
        Ok(()) => u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(failed) => fail(failed),
    }
}

/// The front door of a Linux host: Gateway API files in, TLS and HTTP out.
#[derive(Debug, Parser)]
#[command(
    name = "edge-gateway",
    version,
    about,
    after_help = "\
Examples:
  edge-gateway dev                            try it: no root, no certificate, no configuration
  edge-gateway check --config /etc/edge-gateway/edge-gateway.yaml
  edge-gateway run --config /etc/edge-gateway/edge-gateway.yaml
  systemctl reload edge-gateway               or SIGHUP: certificates first, then the configuration"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a configuration until told to stop (SIGTERM drains, SIGHUP reloads)
    Run(Box<Run>),
    /// Try it on this machine: ports 8080 and 8443, a certificate for localhost, an echo backend
    Dev(Box<Dev>),
    /// Check a configuration and print every error; exit code 1 if there is one
    Check(Check),
    /// Explain what happens to a request: the route that takes it, those that lost, the destination
    Explain(Explain),
    /// Show the served certificates: days left, and what is wrong with them
    Certs(Certs),
    /// Show the objects of the running gateway with their conditions, as `kubectl get` does
    Status(Status),
    /// Show the routes of the running gateway: every match with its backends and its hits
    Routes(Routes),
    /// Show the live traffic of the running gateway: requests, errors and latency by route
    Top(Top),
    /// Print a kubeconfig for the running gateway (which needs --api-listen)
    Kubeconfig(Kubeconfig),
    /// Reload the certificates and the configuration of the running gateway
    Reload(Reload),
    /// Examine this host, and print the command that repairs each fault
    Doctor(Box<Doctor>),
    /// Export the configuration as objects for a Kubernetes cluster
    Export(Export),
    /// Run only the echo backend: it answers with the request that it received
    Echo(Echo),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_end_at_the_end_of_a_word_is_told_and_none_elsewhere() {
        // (argument, part of the message)
        let table = [
            ("--config=/etc/a.yaml", None),
            ("a\rb", None),
            ("", None),
            ("/etc/a.yaml\r", Some("the argument `/etc/a.yaml\\r` ends with a carriage return")),
            ("30s\n", Some("`30s\\n` ends with a newline")),
        ];
        for (word, want) in table {
            let fault = ended_line("the argument", OsStr::new(word));
            assert_eq!(fault.is_some(), want.is_some(), "{word:?}");
            let fault = fault.unwrap_or_default();
            assert!(fault.contains(want.unwrap_or_default()), "{fault}");
            assert!(!fault.contains(['\r', '\n']), "{fault:?}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
