//! `edge-gateway reload`: reloads the running gateway.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::app::Failed;
use crate::control::socket::{Reloaded, Serving, call};
use crate::observe::counted;

use super::output::{fail, print};
use super::paths::Socket;

/// Timeout of a reload: longer than the limit of the gateway for a connection.
const PATIENCE: Duration = Duration::from_secs(130);

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway reload --wait       prints the result; exit code 1 if it was refused
  edge-gateway reload --wait --allow-removal    after a listener was taken out of the files
  systemctl reload edge-gateway    the same; its output goes to the journal")]
pub(super) struct Reload {
    /// Wait for the end of the reload and print its result
    #[arg(long)]
    wait: bool,
    /// Allow removals: listeners, Gateways, whole files or the last route may be missing from the
    /// files
    #[arg(long)]
    allow_removal: bool,
    #[command(flatten)]
    socket: Socket,
}

impl Reload {
    pub(super) fn run(self) -> Result<ExitCode, Failed> {
        let socket = &self.socket.control_socket;
        // Only the parameters that are needed, since an older gateway may not know them all.
        let target = match (self.wait, self.allow_removal) {
            (true, false) => "/reload",
            (true, true) => "/reload?allow_removal=true",
            (false, false) => "/reload?wait=false",
            (false, true) => "/reload?wait=false&allow_removal=true",
        };
        if !self.wait {
            let _: serde_json::Value = call(socket, "POST", target, PATIENCE)?;
            return Ok(ExitCode::SUCCESS);
        }
        let reloaded: Reloaded = call(socket, "POST", target, PATIENCE)?;
        print(&faults(&reloaded))?;
        match outcome(&reloaded) {
            Ok(loaded) => {
                print(&format!("{loaded}\n"))?;
                Ok(ExitCode::SUCCESS)
            }
            Err(refused) => Ok(fail(refused)),
        }
    }
}

/// Formats the causes of a refusal, one line each; without a refusal all diagnostics, as `check`
/// prints them.
fn faults(reloaded: &Reloaded) -> String {
    if let Some(refusal) = &reloaded.refusal {
        return refusal.lines.iter().map(|line| format!("{line}\n")).collect();
    }
    reloaded.diagnostics.iter().map(|told| format!("{}\n", told.text)).collect()
}

/// Returns the result of the reload; an error if it was refused.
fn outcome(reloaded: &Reloaded) -> Result<String, String> {
    let Serving { generation, listeners, routes, backends, .. } = reloaded.serving;
    let took = reloaded.took_ms;
    if reloaded.loaded {
        return Ok(format!(
            "loaded in {took} ms: serving {} on {} to {}, generation {generation}",
            counted(routes, "route"),
            counted(listeners, "listener"),
            counted(backends, "backend"),
        ));
    }
    let why = reloaded.refused.as_deref().unwrap_or("reload failed, see above");
    let hint = match &reloaded.refusal {
        Some(refusal) if refusal.is_removal => {
            "\nIf that is meant, run `edge-gateway reload --wait --allow-removal`"
        }
        _ => "",
    };
    Err(format!("{why}; still serving the previous configuration, generation {generation}{hint}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_printed_says_what_is_served_now() {
        let reloaded = |loaded: bool, refused: Option<&str>| -> Reloaded {
            // Most fields are missing, as from a gateway of another version.
            let answer = json!({
                "loaded": loaded,
                "refused": refused,
                "took_ms": 4,
                "serving": { "generation": 7, "routes": 3, "listeners": 2, "news": 1 },
                "diagnostics": [{ "text": "routes/a.yaml:3:7: HTTPRoute a/b: spec: wrong" }],
            });
            serde_json::from_value(answer).unwrap()
        };
        // (answer, last line)
        let table = [
            (
                reloaded(true, None),
                Ok("loaded in 4 ms: serving 3 routes on 2 listeners to 0 backends, generation 7"),
            ),
            (
                reloaded(false, None),
                Err("reload failed, see above; still serving the previous configuration, \
                     generation 7"),
            ),
            (
                reloaded(false, Some("port 80 is taken")),
                Err("port 80 is taken; still serving the previous configuration, generation 7"),
            ),
        ];
        for (answer, want) in table {
            assert_eq!(faults(&answer), "routes/a.yaml:3:7: HTTPRoute a/b: spec: wrong\n");
            assert_eq!(outcome(&answer), want.map(Into::into).map_err(Into::into));
        }
    }
}
