//! `edge-gateway check`: the errors of a configuration, and the routes that it would serve.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::app::Failed;
use crate::config::Severity;
use crate::control::Previous;
use crate::control::socket::{CannotAsk, RefusalReport, Reloaded, StatusReport, call};
use crate::describe;
use crate::net::{AddressPool, Cidr};
use crate::observe::counted;

use super::output::print;
use super::paths::{Paths, Socket, Variables};

/// Timeout of the trial load in the running gateway.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// Same as for `run`; addresses that the running gateway has assigned are not known here
    #[arg(long, value_name = "CIDR")]
    address_pool: Option<AddressPool>,
    /// Same as for `run`: peers whose X-Forwarded-* headers are trusted
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',')]
    trusted_proxies: Vec<Cidr>,
    #[command(flatten)]
    socket: Socket,
    /// Print the conditions of every object, as `kubectl get -o yaml` shows them
    #[arg(long)]
    status: bool,
    /// Print what would be served: listeners, hosts and matches in order of precedence
    #[arg(long)]
    table: bool,
}

impl Check {
    pub(super) fn run(self) -> Result<ExitCode, Failed> {
        let refusal = self.refusal();
        let loader = self.paths.loader(Vec::new(), self.variables.read()?)?;
        let loader = loader.address_pool(self.address_pool);
        let loader = loader.trusts_proxies(!self.trusted_proxies.is_empty());
        let load = loader.load(&Previous::default());
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
                out.push_str(&describe::snapshot(&compiled.snapshot));
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
        let is_refused = refusal.is_some();
        out.push_str(&refusal.unwrap_or_default());
        print(&out)?;
        Ok(if faults == 0 && !is_refused { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Returns the verdict of the running gateway on these files; `None` if no gateway answers, or
    /// if it uses another document.
    fn refusal(&self) -> Option<String> {
        let socket = &self.socket.control_socket;
        let status: StatusReport = call(socket, "GET", "/status", PATIENCE).ok()?;
        let same = |a: &Path, b: &Path| fs::canonicalize(a).ok() == fs::canonicalize(b).ok();
        let config = status.config?;
        if !same(&config, &self.paths.config) || status.config_root != self.paths.config_root {
            return None;
        }
        let target = "/reload?dry_run=true";
        let would: Reloaded = match call(socket, "POST", target, PATIENCE) {
            Ok(would) => would,
            // An older gateway, or a user who may not make changes.
            Err(CannotAsk::Refused(why)) => {
                let _ =
                    writeln!(io::stderr(), "The running gateway does not judge the files: {why}");
                return None;
            }
            Err(CannotAsk::Silent { .. }) => return None,
        };
        would.refusal.map(|refusal| told(&refusal, would.serving.generation))
    }
}

/// Returns the text for a reload that the running gateway would refuse. Its faults are printed
/// already.
fn told(refusal: &RefusalReport, generation: u64) -> String {
    let mut told = format!(
        "The running gateway would refuse a reload, and go on serving generation {generation}\n"
    );
    if refusal.is_removal {
        for line in &refusal.lines {
            told.push_str(&format!("  {line}\n"));
        }
        told.push_str("If that is meant, run `edge-gateway reload --wait --allow-removal`\n");
    }
    told
}
