//! The command line: one file a command, and the flags that several share.

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

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::systemd;

use certs::Certs;
use check::Check;
use dev::Dev;
use doctor::Doctor;
use echo::Echo;
use explain::Explain;
use export::Export;
use kubeconfig::Kubeconfig;
use output::settled;
use reload::Reload;
use routes::Routes;
use run::Run;
use status::Status;
use top::Top;

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    // First of all: this changes the environment, which no other thread may be reading.
    let handed = match systemd::inherited() {
        Ok(handed) => handed,
        Err(error) => return fail(error),
    };
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return other_than_a_command(&error),
    };
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

/// The definition of the command line, for its man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Prints the help, the version or what is wrong with the arguments.
fn other_than_a_command(error: &clap::Error) -> ExitCode {
    let printed = error.print().and_then(|()| io::stdout().flush());
    match settled(printed) {
        Ok(()) => u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(failed) => fail(failed),
    }
}

fn fail(error: impl Display) -> ExitCode {
    for line in error.to_string().lines() {
        // Nobody is left to be told if standard error is gone.
        let _ = writeln!(io::stderr(), "edge-gateway: {line}");
    }
    ExitCode::FAILURE
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
    /// Say what is wrong with a configuration; exit code 1 if anything is
    Check(Check),
    /// Say what would become of a request: which route takes it, what lost, where it goes
    Explain(Explain),
    /// Show the certificates that are served: how long they last, and what is wrong with them
    Certs(Certs),
    /// Show the objects of the gateway that runs with their conditions, as `kubectl get` does
    Status(Status),
    /// Show what the gateway that runs serves: every match with its backends and its hits
    Routes(Routes),
    /// Show what the gateway that runs is doing now: requests, errors and latency by route
    Top(Top),
    /// Print a configuration of kubectl for the gateway that runs with --api-listen
    Kubeconfig(Kubeconfig),
    /// Have the gateway that runs read certificates and configuration again
    Reload(Reload),
    /// Look for what is wrong with this host, and say what mends it
    Doctor(Box<Doctor>),
    /// Write the configuration as a Kubernetes cluster takes it
    Export(Export),
    /// Run the echo backend alone: it answers with the request that it received
    Echo(Echo),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }
}
