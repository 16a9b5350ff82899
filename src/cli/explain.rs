//! `edge-gateway explain`: what would become of a request, and why.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::admin::encoded;
use crate::app::Failed;
use crate::control::socket::{CannotAsk, call};
use crate::explain::{Explained, Question, explain};
use crate::proxy::Limits;

use super::fail;
use super::paths::{Given, Paths, Socket, Variables};

/// For an answer, which a reload may hold up.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway explain https://example.org/cart     by the gateway that runs, else by the files
  edge-gateway explain POST https://example.org/api -H 'Content-Type: application/json'
  edge-gateway explain http://example.org --config standalone-prod.yaml --json")]
pub(super) struct Explain {
    /// The request: GET where there is no method, https where there is no scheme
    #[arg(value_name = "[METHOD] URL", num_args = 1..=2, required = true)]
    request: Vec<String>,
    /// A field of the request, as `Name: value`; may repeat
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    variables: Variables,
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    given: Given,
}

impl Explain {
    /// Exit code 1 where no backend is reached and no filter answers.
    pub(super) fn run(self) -> Result<ExitCode, Failed> {
        let (method, url) = match &*self.request {
            [method, url] => (method.as_str(), url.as_str()),
            [url] => ("GET", url.as_str()),
            _ => ("GET", ""),
        };
        let question = Question::new(method, url, &self.headers)?;
        let explained = match self.given.paths() {
            Some(paths) => offline(paths, &self.variables, &question)?,
            None => {
                let mut target =
                    format!("/explain?method={}&url={}", encoded(method), encoded(url));
                for header in &self.headers {
                    target.push_str("&header=");
                    target.push_str(&encoded(header));
                }
                match call(&self.socket.control_socket, "GET", &target, PATIENCE) {
                    Ok(explained) => explained,
                    Err(error @ CannotAsk::Refused(_)) => return Ok(fail(error)),
                    Err(error) => {
                        let _ = writeln!(io::stderr(), "{error}\nThis is what the files say:\n");
                        offline(Paths::usual(), &self.variables, &question)?
                    }
                }
            }
        };
        let text = match self.json {
            // Plain data with text for keys: nothing in it can fail to be written.
            true => serde_json::to_string_pretty(&explained).unwrap_or_default() + "\n",
            false => explained.to_string(),
        };
        let _ = io::stdout().write_all(text.as_bytes());
        let failed =
            explained.answer.is_some_and(|answer| answer.flag.is_some() || answer.status == 0);
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// What a gateway would do that was started with these files.
fn offline(paths: Paths, variables: &Variables, question: &Question) -> Result<Explained, Failed> {
    let snapshot = paths.snapshot(variables)?;
    Ok(explain(&snapshot, &Limits::default(), question))
}
