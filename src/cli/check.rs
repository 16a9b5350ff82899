//! `edge-gateway check`: what is wrong with a configuration, and what it would serve.

use std::process::ExitCode;

use clap::Args;

use crate::app::Failed;
use crate::compile;
use crate::config::Severity;
use crate::net::{AddressPool, Cidr};
use crate::observe::counted;
use crate::snapshot::Snapshot;

use super::output::print;
use super::paths::{Paths, Variables};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway check                         the installed configuration
  edge-gateway check --config standalone-prod.yaml --config-root ./host --status")]
pub(super) struct Check {
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    variables: Variables,
    /// As `run` has it. What the gateway that runs has given to whom is not known here
    #[arg(long, value_name = "CIDR")]
    address_pool: Option<AddressPool>,
    /// As `run` has it: the peers whose X-Forwarded-* headers count
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',')]
    trusted_proxies: Vec<Cidr>,
    /// Print the conditions of every object, as `kubectl get -o yaml` shows them
    #[arg(long)]
    status: bool,
    /// Print what would be served: listeners, hosts and matches in order of precedence
    #[arg(long)]
    table: bool,
}

impl Check {
    pub(super) fn run(self) -> Result<ExitCode, Failed> {
        let loader = self.paths.loader(Vec::new(), self.variables.read()?)?;
        let loader = loader.address_pool(self.address_pool);
        let mut loader = loader.trusts_proxies(!self.trusted_proxies.is_empty());
        let load = loader.load(&Snapshot::default());
        let mut out = String::new();
        let count = |severity| {
            load.diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity).count()
        };
        for diagnostic in &load.diagnostics {
            out.push_str(&format!("{diagnostic}\n"));
        }
        if let Some(compiled) = &load.compiled {
            if self.status {
                out.push_str(&compiled.statuses.to_string());
            }
            if self.table {
                out.push_str(&compile::describe(&compiled.snapshot));
            }
        }
        let (faults, warnings) = (count(Severity::Error), count(Severity::Warning));
        out.push_str(&format!(
            "{} in {}: {}, {}\n",
            counted(load.objects, "object"),
            counted(load.files, "file"),
            counted(faults, "fault"),
            counted(warnings, "warning"),
        ));
        print(&out)?;
        Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
