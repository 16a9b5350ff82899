//! `edge-gateway certs`: the served certificates, their days left, and their faults.

mod setup;
mod table;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::app::Failed;
use crate::clock;
use crate::control::{Certificates, certificates};

use super::output::{Format, Output};
use super::paths::AskOrRead;

use setup::Setup;

#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Exit code 1 if a certificate is missing, broken or out of date, if clients cannot follow its chain, if
a hostname of a listener or route has none, or if a renewal is overdue: less than a quarter of its
lifetime is left, where a working renewal would have come at a third. A chain that leads to a root
which this host does not know is told, and is no fault.

Examples:
  edge-gateway certs                         of the running gateway, else of the configuration
  edge-gateway certs -o json
  edge-gateway certs setup example.org       the certbot command for the first certificate"
)]
pub(super) struct Certs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    output: Output,
    /// The same as -o json
    #[arg(long, conflicts_with = "output")]
    json: bool,
    #[command(flatten)]
    asked: AskOrRead,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the certbot command that gets a certificate for these names, or run it
    Setup(Setup),
}

impl Certs {
    pub(super) fn run(self) -> Result<ExitCode, Failed> {
        if let Some(Command::Setup(setup)) = self.command {
            return setup.run();
        }
        let read = |snapshot: &_| certificates(snapshot, clock::wall());
        let certificates: Certificates = self.asked.told("/certs", read)?;
        let format = if self.json { Format::Json } else { self.output.output };
        format
            .print(&certificates, |columns, screen| table::table(&certificates, columns, screen))?;
        Ok(if certificates.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
