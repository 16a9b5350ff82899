//! `edge-gateway routes`: what the gateway that runs serves, in the order in which it is tried.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::admin::Routes as Served;
use crate::control::socket::{CannotAsk, call};
use crate::yaml::Yaml;

use super::paths::Socket;
use super::text::{cell, printable};

const PATIENCE: Duration = Duration::from_secs(30);
/// Columns of HOST, MATCH, RULE and BACKENDS; two spaces between them, and HITS at the end.
const WIDTHS: [usize; 4] = [20, 22, 26, 16];

#[derive(Args, Debug)]
#[command(after_help = "\
A row is one match; the first that a request meets takes it, by host and then from the top. HITS are
requests since the start that the rule took, by whichever of its matches.

Examples:
  edge-gateway routes
  edge-gateway routes --host shop.example.org
  edge-gateway routes -o json")]
pub(super) struct Routes {
    /// Only rows whose host holds this text
    #[arg(long, value_name = "TEXT")]
    host: Option<String>,
    /// How they are printed
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,
    #[command(flatten)]
    socket: Socket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
    Table,
    Yaml,
}

impl Routes {
    pub(super) fn run(self) -> Result<ExitCode, CannotAsk> {
        let mut served: Served = call(&self.socket.control_socket, "GET", "/routes", PATIENCE)?;
        if let Some(part) = &self.host {
            served.routes.retain(|row| row.host.as_ref().is_some_and(|host| host.contains(part)));
        }
        // Plain data with text for keys: nothing in it can fail to be written.
        let value = || serde_json::to_value(&served).unwrap_or(Value::Null);
        let text = match self.output {
            Output::Json => format!("{:#}\n", value()),
            Output::Table => table(&served),
            Output::Yaml => Yaml(&value()).to_string(),
        };
        let _ = io::stdout().write_all(text.as_bytes());
        Ok(ExitCode::SUCCESS)
    }
}

/// All of them, at most 100 columns wide.
fn table(served: &Served) -> String {
    if served.routes.is_empty() {
        return "there is no such route\n".into();
    }
    let mut text = line(["HOST", "MATCH", "RULE", "BACKENDS"], "HITS");
    let mut listener = None;
    for route in &served.routes {
        let on = (&route.listener, route.port);
        if listener.replace(on) != Some(on) {
            text.push_str(&format!("listener {}, port {}\n", printable(on.0), on.1));
        }
        let names = route.backends.iter().map(|backend| {
            let name = backend
                .name
                .as_deref()
                .map_or("nothing: 500", |name| name.rsplit('/').next().unwrap_or(name));
            match route.backends.len() {
                1 => name.to_owned(),
                _ => format!("{name} {}", backend.weight),
            }
        });
        let backends = names.collect::<Vec<_>>().join(", ");
        let hits = route.hits.map_or_else(|| "-".into(), |hits| hits.to_string());
        let host = route.host.as_deref().unwrap_or("*");
        text.push_str(&line([host, &route.matched, &short(&route.rule), &backends], &hits));
    }
    text
}

/// The rule of a route without the word in between: `shop/cart 0`.
fn short(rule: &str) -> String {
    let of_kind = rule.split_once('/').map_or(rule, |(_, rest)| rest);
    of_kind.replacen("/rule/", " ", 1)
}

fn line(cells: [&str; 4], last: &str) -> String {
    let cells = cells.into_iter().zip(WIDTHS);
    cells.fold(String::new(), |text, (content, width)| text + &cell(content, width) + "  ")
        + last
        + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_fits_the_terminal_whatever_is_in_it() {
        let route = |matched: &str, backends: Value, hits: Value| {
            json!({
                "listener": "default/eg/http", "port": 80, "host": "shop.test", "match": matched,
                "rule": "httproute/default/shop/rule/0", "filters": [], "backends": backends,
                "hits": hits,
            })
        };
        let two =
            json!([{ "name": "backend/default/a", "weight": 9 }, { "name": null, "weight": 1 }]);
        let one = json!([{ "name": "backend/default/cart", "weight": 1 }]);
        let long = "prefix /a/very/long/path/that/nobody/wants method GET";
        let served = json!({
            "routes": [route("prefix /cart", one, json!(12)), route(long, two, Value::Null)],
        });
        let text = table(&serde_json::from_value(served).unwrap());
        let want = "\
HOST                  MATCH                   RULE                        BACKENDS          HITS
listener default/eg/http, port 80
shop.test             prefix /cart            default/shop 0              cart              12
shop.test             prefix /a/very/long/p…  default/shop 0              a 9, nothing: 5…  -
";
        assert_eq!(text, want);
    }
}
