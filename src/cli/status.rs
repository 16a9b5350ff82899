//! `edge-gateway status`: the objects of the running gateway with their conditions.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::admin::Stats;
use crate::app::Failed;
use crate::control::socket::{self, CannotAsk, call, call_for};
use crate::control::{BadCondition, BadConditions};

use super::output::{Columns, Output, fail, print};
use super::paths::{PATIENCE, Socket};
use super::table::{Cell, Column, Step, Table};
use super::text::{Colour, Screen};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
/// Paths of the API groups whose objects have a status.
const GATEWAY: &str = "/apis/gateway.networking.k8s.io/v1";
const GROUPS: [&str; 4] =
    [GATEWAY, "/apis/gateway.envoyproxy.io/v1alpha1", "/api/v1", "/apis/discovery.k8s.io/v1"];
/// The kinds that are shown by default, in this order.
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
    /// The name of one object, in any namespace
    #[arg(requires = "kind")]
    name: Option<String>,
    /// Show only objects of this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    socket: Socket,
}

/// A resource of the API discovery.
struct Found {
    group: &'static str,
    plural: String,
    kind: String,
    namespaced: bool,
    /// Other names than the plural.
    names: Vec<String>,
}

impl Status {
    pub(super) fn run(self) -> Result<ExitCode, Failed> {
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
        let text = match self.output.output.columns() {
            Some((columns, screen)) => self.tables(socket, &found, columns, screen)?,
            None => self.objects(socket, &found)?,
        };
        let Some(text) = text else {
            return Ok(fail("there is no such object"));
        };
        print(&text)?;
        if self.kind.is_none()
            && let Some((_, screen)) = self.output.output.columns()
        {
            let of_all: socket::StatusReport = call(socket, "GET", "/status", PATIENCE)?;
            print(&impaired(&of_all.impaired, screen))?;
            let stats: Stats = call(socket, "GET", "/stats?format=json", PATIENCE)?;
            print(&impaired(&stats.unavailable, screen))?;
            print(&refused(&of_all, screen))?;
        }
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

    /// `None` if a single object was requested and does not exist.
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
        Ok(Some(self.output.output.written(&value)))
    }

    /// `None` if a single object was requested and does not exist.
    fn tables(
        &self,
        socket: &Path,
        found: &[Found],
        columns: Columns,
        screen: Screen,
    ) -> Result<Option<String>, CannotAsk> {
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
            text.push_str(&drawn(of, &table, rows, columns, screen));
            for row in rows {
                troubles.push_str(&trouble(&of.kind, &row["object"], screen));
            }
        }
        if text.is_empty() {
            return Ok(self.name.is_none().then(|| self.nothing(screen)));
        }
        if !troubles.is_empty() {
            let _ = write!(text, "\n{troubles}");
        }
        Ok(Some(text))
    }
}

impl Status {
    /// Advice for an empty table.
    fn nothing(&self, screen: Screen) -> String {
        let of_what = match (&self.kind, &self.namespace) {
            (Some(kind), Some(namespace)) => format!("no {kind} in the namespace {namespace}"),
            (Some(kind), None) => format!("no {kind}"),
            (None, Some(namespace)) => format!("nothing that has a status in {namespace}"),
            (None, None) => "nothing that has a status".into(),
        };
        let said = format!(
            "{of_what} is served; `edge-gateway check` says what the files have, and what is wrong \
             with them"
        );
        screen.wrapped("", &said)
    }
}

impl Found {
    fn is_called(&self, word: &str) -> bool {
        let word = word.to_ascii_lowercase();
        // kubectl also accepts `gateways.gateway.networking.k8s.io`.
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
            // Subresources, and events, which the gateway does not have.
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

/// Removes characters that occur in no name. An object of such a name does not exist.
fn in_name(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).collect()
}

/// Draws the table that the gateway sent, with an additional column for the overall status.
fn drawn(of: &Found, table: &Value, rows: &[Value], columns: Columns, screen: Screen) -> String {
    let definitions = table["columnDefinitions"].as_array().map_or(&[][..], Vec::as_slice);
    let is_shown = |at: &usize| columns == Columns::All || definitions[*at]["priority"] == 0;
    // The first column is the name, which is shown in the column of the kind.
    let shown: Vec<usize> = (1..definitions.len()).filter(is_shown).collect();
    let judged = UNASKED.contains(&&*of.plural);
    let namespace = of.namespaced.then(|| "NAMESPACE".to_owned());
    let own = |at: &usize| definitions[*at]["name"].as_str().unwrap_or_default().to_uppercase();
    let heads: Vec<String> = namespace
        .into_iter()
        .chain([of.kind.to_uppercase()])
        .chain(judged.then(|| "STATUS".to_owned()))
        .chain(shown.iter().map(own))
        .collect();

    // The additional columns of a kind are narrowed first, from the last one, the age.
    let (names, all) = (heads.len() - shown.len(), heads.len());
    let shortened = (names..all).map(|at| (at, heads[at].len().max(14)));
    let steps: Vec<Step> = shortened
        .chain([(0, 14), (names - 1, 10)])
        .chain((names..all).rev().map(|at| (at, 0)))
        .chain([(usize::from(of.namespaced), 12), (0, 9)])
        .collect();
    let mut drawn = Table::new(heads.into_iter().map(Column::new)).narrowed_by(steps);
    for row in rows {
        let object = &row["object"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let namespace = of.namespaced.then(|| text(&object["metadata"]["namespace"]).into());
        let status = judged.then(|| status(&of.kind, object));
        let own = shown.iter().map(|at| cell(&row["cells"][*at]));
        let name = cell(&row["cells"][0]);
        drawn.row(namespace.into_iter().chain([name]).chain(status).chain(own));
    }
    drawn.drawn(screen)
}

/// Converts a table value. Lists are JSON in a string, as in the columns of a CRD.
fn cell(value: &Value) -> Cell {
    match value {
        Value::Null => "".into(),
        Value::String(text) => match serde_json::from_str::<Vec<String>>(text) {
            Ok(parts) => Cell::list(parts),
            Err(_) => text.into(),
        },
        other => other.to_string().into(),
    }
}

/// Returns `ok`, or the reasons of the conditions that report a problem.
fn status(kind: &str, object: &Value) -> Cell {
    let mut reasons: Vec<String> = Vec::new();
    for BadCondition { reason, .. } in bad(kind, object).conditions {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    match reasons.is_empty() {
        true => Cell::from("ok").in_colour(Colour::Green),
        false => Cell::list(reasons).in_colour(Colour::Red),
    }
}

fn bad(kind: &str, object: &Value) -> BadConditions {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let name = match metadata["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    };
    BadConditions::of_json(&name, &object["status"])
}

/// Faults of the gateway itself.
fn impaired(all: &[String], screen: Screen) -> String {
    let mut text = String::new();
    for what in all {
        for line in screen.wrapped("! ", what).lines() {
            text.push_str(&screen.paint(line, Colour::Red));
            text.push('\n');
        }
    }
    text
}

/// The reason why the files are not served, if they are not.
fn refused(status: &socket::StatusReport, screen: Screen) -> String {
    let Some(trouble) = &status.trouble else { return String::new() };
    let generation = status.serving.generation;
    let first = format!("the files are refused; still serving generation {generation}");
    let mut said = vec![first];
    match &status.refusal {
        Some(refusal) => said.extend(refusal.lines.iter().cloned()),
        None => said.push(trouble.clone()),
    }
    if status.refusal.as_ref().is_some_and(|refusal| refusal.is_removal) {
        said.push("if that is meant, run `edge-gateway reload --wait --allow-removal`".into());
    }
    let mut text = String::from("\n");
    for line in said
        .iter()
        .flat_map(|said| screen.wrapped("! ", said).lines().map(str::to_owned).collect::<Vec<_>>())
    {
        text.push_str(&screen.paint(&line, Colour::Red));
        text.push('\n');
    }
    text
}

/// Formats the conditions of an object that report a problem, each with its message.
fn trouble(kind: &str, object: &Value, screen: Screen) -> String {
    let mut text = String::new();
    for condition in bad(kind, object).conditions {
        for line in screen.wrapped("! ", &condition.to_string()).lines() {
            text.push_str(&screen.paint(line, Colour::Red));
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::control::socket::RefusalReport;

    use super::*;

    #[test]
    fn files_that_are_refused_are_told_with_what_is_served() {
        let status = |trouble: Option<&str>, is_removal| socket::StatusReport {
            trouble: trouble.map(Into::into),
            refusal: trouble.map(|_| RefusalReport {
                lines: vec!["a.yaml holds no object any more; HTTPRoute a/b was in it".into()],
                is_removal,
                ..RefusalReport::default()
            }),
            ..socket::StatusReport::default()
        };
        let screen = Screen::default();
        assert_eq!(refused(&status(None, false), screen), "");
        let told = refused(&status(Some("a.yaml"), true), screen);
        let want = "
! the files are refused; still serving generation 0
! a.yaml holds no object any more; HTTPRoute a/b was in it
! if that is meant, run `edge-gateway reload --wait --allow-removal`
";
        assert_eq!(told, want);
        assert!(!refused(&status(Some("a.yaml"), false), screen).contains("--allow-removal"));
    }

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
        let row = |name: &str, age: &str, status: Value| {
            json!({
                "cells": [name, "[\"a.example\",\"*.b.org\"]", "long", age],
                "object": { "metadata": { "namespace": "shop" }, "status": status },
            })
        };
        let no = |reason: &str| json!({ "type": "Accepted", "status": "False", "reason": reason });
        let rows = [
            row("eg", "5s", Value::Null),
            row("another", "3h", json!({ "conditions": [no("Why"), no("Unsaid"), no("Why")] })),
        ];
        let want = "\
NAMESPACE  GATEWAY  STATUS       CLASS               AGE
shop       eg       ok           a.example, *.b.org  5s
shop       another  Why, Unsaid  a.example, *.b.org  3h
";
        assert_eq!(drawn(&of, &table, &rows, Columns::Usual, Screen::default()), want);
        let narrow = "\
NAMESPACE  GATEWAY  STATUS       CLASS           AGE
shop       eg       ok           a.example +1    5s
shop       another  Why, Unsaid  a.example +1    3h
";
        assert_eq!(drawn(&of, &table, &rows, Columns::Usual, Screen::of_width(52)), narrow);
        let wide = drawn(&of, &table, &rows, Columns::All, Screen::default());
        assert!(wide.contains("DESCRIPTION") && wide.contains("long"), "{wide}");
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
        assert_eq!(trouble("Gateway", &gateway, Screen::default()), want);
        let on = json!({ "name": "eg" });
        let parent = json!({ "parentRef": on, "conditions": [condition("ResolvedRefs", "False")] });
        let route = json!({
            "metadata": { "namespace": "shop", "name": "cart" },
            "status": { "parents": [parent] },
        });
        let want = "! HTTPRoute shop/cart, on eg: ResolvedRefs is False, Why: because\n";
        assert_eq!(trouble("HTTPRoute", &route, Screen::default()), want);
    }
}
