//! `edge-gateway explain`: the route of a request, and the reasons for it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::app::Failed;
use crate::explain::{Explained, Question, explain};

use super::output::{Format, print};
use super::paths::{ACME_WEBROOT, AskOrRead};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway explain https://example.org/cart     by the running gateway, else by the files
  edge-gateway explain POST https://example.org/api -H 'Content-Type: application/json'
  edge-gateway explain http://example.org --config standalone-prod.yaml --json")]
pub(super) struct Explain {
    /// The request; the default method is GET, the default scheme https
    #[arg(value_name = "[METHOD] URL", num_args = 1..=2, required = true)]
    request: Vec<String>,
    /// A header field of the request, as `Name: value`; may repeat
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// The client's address, for the rules of a SecurityPolicy; 127.0.0.1 where it is not given
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// certbot's webroot, used if no gateway is running
    #[arg(long, value_name = "DIR", default_value = ACME_WEBROOT)]
    acme_webroot: PathBuf,
    #[command(flatten)]
    asked: AskOrRead,
}

impl Explain {
    /// Runs the command. The exit code is 1 if the request is refused: no backend gets it, and no
    /// filter answers it.
    pub(super) fn run(self) -> Result<ExitCode, Failed> {
        let (method, url) = match &*self.request {
            [method, url] => (method.as_str(), url.as_str()),
            [url] => ("GET", url.as_str()),
            _ => ("GET", ""),
        };
        let mut question = Question::new(method, url, &self.headers)?;
        question.client = self.client;
        const PATH: &str = "/explain?";
        let mut query = form_urlencoded::Serializer::for_suffix(PATH.to_owned(), PATH.len());
        query.append_pair("method", method).append_pair("url", url);
        query.extend_pairs(self.headers.iter().map(|header| ("header", header)));
        query.extend_pairs(self.client.map(|client| ("client", client.to_string())));
        let target = query.finish();
        let explained: Explained = self
            .asked
            .told(&target, |snapshot| explain(snapshot, &self.acme_webroot, &question))?;
        print(&match self.json {
            true => Format::Json.written(&explained),
            false => explained.to_string(),
        })?;
        let failed = explained.answer.is_some_and(|answer| answer.refused);
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}
