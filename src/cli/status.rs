//! `edge-gateway status`: the objects of the gateway that runs, with their conditions.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::control::socket::{CannotAsk, call, call_for};
use crate::control::{Condition, Conditions};
use crate::yaml::Yaml;

use super::fail;
use super::paths::Socket;
use super::text::{Colour, has_colours, paint, printable, wrapped};

const PATIENCE: Duration = Duration::from_secs(30);
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
/// Where what has a status is.
const GATEWAY: &str = "/apis/gateway.networking.k8s.io/v1";
const GROUPS: [&str; 4] =
    [GATEWAY, "/apis/gateway.envoyproxy.io/v1alpha1", "/api/v1", "/apis/discovery.k8s.io/v1"];
/// What is shown unasked, in this order.
const UNASKED: [&str; 9] = [
    "gatewayclasses",
    "gateways",
    "listenersets",
    "httproutes",
    "grpcroutes",
    "tlsroutes",
    "tcproutes",
    "udproutes",
    "backendtlspolicies",
];

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway status                              everything that has a status, a line each
  edge-gateway status httproute keycloak -o yaml   one object, as `kubectl get -o yaml` has it
  edge-gateway status gateways -n default")]
pub(super) struct Status {
    /// A kind: gateways, httproute, svc, ...
    kind: Option<String>,
    /// One object of it, in whichever namespace
    #[arg(requires = "kind")]
    name: Option<String>,
    /// Only objects of this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
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

/// A resource, as discovery has it.
struct Found {
    group: &'static str,
    plural: String,
    kind: String,
    namespaced: bool,
    /// What it may be called beside its plural.
    names: Vec<String>,
}

impl Status {
    pub(super) fn run(self) -> Result<ExitCode, CannotAsk> {
        let socket = &self.socket.control_socket;
        let mut found = resources(socket)?;
        if let Some(kind) = &self.kind {
            found.retain(|one| one.is_called(kind));
            found.truncate(1);
            if found.is_empty() {
                return Ok(fail(format!("`{kind}` is not a kind that the gateway serves")));
            }
        } else {
            let place = |one: &Found| UNASKED.iter().position(|plural| *plural == one.plural);
            found.retain(|one| one.group == GATEWAY && place(one).is_some());
            found.sort_by_key(place);
        }
        let text = match self.output {
            Output::Table => self.tables(socket, &found)?,
            Output::Json | Output::Yaml => self.objects(socket, &found)?,
        };
        let Some(text) = text else {
            return Ok(fail("there is no such object"));
        };
        let _ = io::stdout().write_all(text.as_bytes());
        Ok(ExitCode::SUCCESS)
    }

    fn target(&self, of: &Found) -> String {
        let namespace = self.namespace.as_ref().filter(|_| of.namespaced);
        let namespace = namespace.map(|name| format!("/namespaces/{}", in_name(name)));
        let selected = self
            .name
            .as_ref()
            .map(|name| format!("&fieldSelector=metadata.name%3D{}", in_name(name)));
        format!(
            "{}{}/{}?includeObject=Object{}",
            of.group,
            namespace.unwrap_or_default(),
            of.plural,
            selected.unwrap_or_default()
        )
    }

    /// None where one object was asked for and there is none.
    fn objects(&self, socket: &Path, found: &[Found]) -> Result<Option<String>, CannotAsk> {
        let mut objects = Vec::new();
        for of in found {
            let list: Value = call(socket, "GET", &self.target(of), PATIENCE)?;
            objects.extend(list["items"].as_array().cloned().unwrap_or_default());
        }
        let value = match (objects.len(), &self.name) {
            (0, Some(_)) => return Ok(None),
            (1, Some(_)) => objects.remove(0),
            _ => json!({ "apiVersion": "v1", "kind": "List", "items": objects }),
        };
        Ok(Some(match self.output {
            Output::Json => format!("{value:#}\n"),
            Output::Table | Output::Yaml => Yaml(&value).to_string(),
        }))
    }

    fn tables(&self, socket: &Path, found: &[Found]) -> Result<Option<String>, CannotAsk> {
        let (mut text, mut troubles) = (String::new(), String::new());
        for of in found {
            let table: Value = call_for(TABLE, socket, "GET", &self.target(of), PATIENCE)?;
            let rows = table["rows"].as_array().map_or(&[][..], Vec::as_slice);
            if rows.is_empty() {
                continue;
            }
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&lines(of, &table, rows));
            for row in rows {
                troubles.push_str(&trouble(&of.kind, &row["object"], has_colours()));
            }
        }
        if text.is_empty() {
            let nothing = "there is nothing of that\n".to_owned();
            return Ok(if self.name.is_some() { None } else { Some(nothing) });
        }
        if !troubles.is_empty() {
            let _ = write!(text, "\n{troubles}");
        }
        Ok(Some(text))
    }
}

impl Found {
    fn is_called(&self, word: &str) -> bool {
        let word = word.to_ascii_lowercase();
        // As kubectl takes it: `gateways.gateway.networking.k8s.io`.
        let word = word.split('.').next().unwrap_or_default();
        self.plural == word || self.names.iter().any(|name| name == word)
    }
}

fn resources(socket: &Path) -> Result<Vec<Found>, CannotAsk> {
    let mut all = Vec::new();
    for group in GROUPS {
        let list: Value = call(socket, "GET", group, PATIENCE)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for one in list["resources"].as_array().into_iter().flatten() {
            let plural = text(&one["name"]);
            // Parts of others, and what nothing here makes.
            if plural.contains('/') || plural == "events" {
                continue;
            }
            let short = one["shortNames"].as_array().into_iter().flatten().map(text);
            all.push(Found {
                group,
                plural,
                kind: text(&one["kind"]),
                namespaced: one["namespaced"] == true,
                names: short.chain([text(&one["singularName"])]).collect(),
            });
        }
    }
    Ok(all)
}

/// Without what is in no name: nothing has such a one.
fn in_name(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).collect()
}

/// A table in columns as wide as what is in them.
fn lines(of: &Found, table: &Value, rows: &[Value]) -> String {
    let columns = table["columnDefinitions"].as_array().map_or(&[][..], Vec::as_slice);
    let shown: Vec<usize> = (0..columns.len()).filter(|at| columns[*at]["priority"] == 0).collect();
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    };
    let name = |at: &usize| cell(&columns[*at]["name"]).to_ascii_uppercase();
    let mut head: Vec<String> = shown.iter().map(name).collect();
    if let Some(first) = head.first_mut() {
        *first = of.kind.to_ascii_uppercase();
    }
    if of.namespaced {
        head.insert(0, "NAMESPACE".into());
    }
    let mut grid = vec![head];
    for row in rows {
        let mut line: Vec<String> = shown.iter().map(|at| cell(&row["cells"][*at])).collect();
        if of.namespaced {
            line.insert(0, cell(&row["object"]["metadata"]["namespace"]));
        }
        grid.push(line);
    }
    let width = |at: usize| grid.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..grid[0].len()).map(width).collect();
    let mut text = String::new();
    for line in &grid {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}   "));
        text.push_str(cells.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}

/// The conditions of an object that are not as they should be, each with its message.
fn trouble(kind: &str, object: &Value, colours: bool) -> String {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let name = match metadata["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    };
    let mut bad = Conditions::default();
    bad.add(&name, &object["status"]);
    let mut text = String::new();
    for Condition { object, part, kind, status, reason, message } in bad.conditions {
        let part = if part.is_empty() { part } else { format!(", {part}") };
        let said = format!("{object}{part}: {kind} is {status}, {reason}: {message}");
        for line in wrapped("! ", &said).lines() {
            text.push_str(&paint(line, Colour::Red, colours));
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_what_is_in_it() {
        let of = Found {
            group: GATEWAY,
            plural: "gateways".into(),
            kind: "Gateway".into(),
            namespaced: true,
            names: Vec::new(),
        };
        let table = json!({
            "columnDefinitions": [
                { "name": "Name", "priority": 0 },
                { "name": "Class", "priority": 0 },
                { "name": "Description", "priority": 1 },
                { "name": "Age", "priority": 0 },
            ],
        });
        let row = |name: &str, age: &str| {
            json!({
                "cells": [name, "eg", "long", age],
                "object": { "metadata": { "namespace": "shop" } },
            })
        };
        let rows = [row("eg", "5s"), row("another", "3h")];
        let want = "\
NAMESPACE   GATEWAY   CLASS   AGE
shop        eg        eg      5s
shop        another   eg      3h
";
        assert_eq!(lines(&of, &table, &rows), want);
    }

    #[test]
    fn what_is_not_as_it_should_be_is_told() {
        let condition = |kind: &str, status: &str| json!({ "type": kind, "status": status, "reason": "Why", "message": "because" });
        let gateway = json!({
            "metadata": { "namespace": "shop", "name": "eg" },
            "status": {
                "conditions": [condition("Accepted", "True"), condition("Programmed", "False")],
                "listeners": [
                    { "name": "http", "conditions": [condition("Conflicted", "True")] },
                    { "name": "https", "conditions": [condition("Conflicted", "False")] },
                ],
            },
        });
        let want = "\
! Gateway shop/eg: Programmed is False, Why: because
! Gateway shop/eg, listener http: Conflicted is True, Why: because
";
        assert_eq!(trouble("Gateway", &gateway, false), want);
        let on = json!({ "name": "eg" });
        let parent = json!({ "parentRef": on, "conditions": [condition("ResolvedRefs", "False")] });
        let route = json!({
            "metadata": { "namespace": "shop", "name": "cart" },
            "status": { "parents": [parent] },
        });
        let want = "! HTTPRoute shop/cart, on eg: ResolvedRefs is False, Why: because\n";
        assert_eq!(trouble("HTTPRoute", &route, false), want);
    }
}
