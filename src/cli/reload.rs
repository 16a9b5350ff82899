//! `edge-gateway reload`: asks the gateway that runs to read everything again.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::app::Failed;
use crate::control::socket::{Reloaded, Serving, call};
use crate::observe::counted;

use super::fail;
use super::output::print;
use super::paths::Socket;

/// For a reload that was accepted to be over: longer than the gateway lets anybody wait.
const PATIENCE: Duration = Duration::from_secs(130);

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway reload --wait       prints what came of it; exit code 1 if it was refused
  systemctl reload edge-gateway    the same; its output goes to the journal")]
pub(super) struct Reload {
    /// Wait until it is done, and say what came of it
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    socket: Socket,
}

impl Reload {
    pub(super) fn run(self) -> Result<ExitCode, Failed> {
        let socket = &self.socket.control_socket;
        if !self.wait {
            let _: serde_json::Value = call(socket, "POST", "/reload?wait=false", PATIENCE)?;
            return Ok(ExitCode::SUCCESS);
        }
        let reloaded: Reloaded = call(socket, "POST", "/reload", PATIENCE)?;
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

/// Everything that is wrong with the files, a line each, as `check` prints it.
fn faults(reloaded: &Reloaded) -> String {
    reloaded.diagnostics.iter().map(|told| format!("{}\n", told.text)).collect()
}

/// What came of the reload; the error is that of one that was refused.
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
    let why = match &reloaded.refused {
        Some(why) => why.clone(),
        None => "the configuration has faults, see above".into(),
    };
    Err(format!("{why}; nothing was changed, generation {generation} is served on"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_printed_says_what_is_served_now() {
        let reloaded = |loaded: bool, refused: Option<&str>| -> Reloaded {
            // As a gateway of another version may write it.
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
                Err("the configuration has faults, see above; nothing was changed, generation 7 \
                     is served on"),
            ),
            (
                reloaded(false, Some("port 80 is taken")),
                Err("port 80 is taken; nothing was changed, generation 7 is served on"),
            ),
        ];
        for (answer, want) in table {
            assert_eq!(faults(&answer), "routes/a.yaml:3:7: HTTPRoute a/b: spec: wrong\n");
            assert_eq!(outcome(&answer), want.map(Into::into).map_err(Into::into));
        }
    }
}
