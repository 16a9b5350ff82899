//! `edge-gateway routes`: the routes of the running gateway, in the order of matching.

use std::collections::HashSet;
use std::process::ExitCode;

use clap::Args;

use crate::admin::{RouteBackend, RouteRow, Routes as Served};
use crate::app::Failed;
use crate::control::socket::call;
use crate::control::{BadCondition, BadConditions};

use super::output::{Columns, Output};
use super::paths::{PATIENCE, Socket};
use super::table::{Cell, Column, Step, Table};
use super::text::Screen;

/// The maximum number of refused objects that are listed if nothing is served.
const REASONS: usize = 10;
/// Steps for the columns HOST, MATCH, GOES TO, ROUTE, RULE and HITS.
const NARROWER: [Step; 12] = [
    (1, 40),
    (2, 30),
    (3, 20),
    (2, 14),
    (1, 24),
    (0, 18),
    (3, 12),
    (4, 0),
    (3, 0),
    (1, 14),
    (0, 10),
    (2, 8),
];

#[derive(Args, Debug)]
#[command(after_help = "\
A row is one match; the first that a request meets takes it, by host and then from the top. HITS are
requests since the start that the rule took, by all of its matches on all listeners together; they are
in its first row, and its other rows have \". What else a rule does to a request is in `-o wide`;
`edge-gateway explain` tells what becomes of one request.

Examples:
  edge-gateway routes
  edge-gateway routes --host shop.example.org
  edge-gateway routes -o json")]
pub(super) struct Routes {
    /// Show only rows whose host contains this text
    #[arg(long, value_name = "TEXT")]
    host: Option<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    socket: Socket,
}

impl Routes {
    pub(super) fn run(self) -> Result<ExitCode, Failed> {
        let mut served: Served = call(&self.socket.control_socket, "GET", "/routes", PATIENCE)?;
        let part = self.host.as_deref();
        if let Some(part) = part {
            served.routes.retain(|row| row.host.as_ref().is_some_and(|host| host.contains(part)));
        }
        // Needed only if nothing is served at all.
        let asks_why = served.routes.is_empty() && part.is_none();
        let why: BadConditions = match asks_why {
            true => call(&self.socket.control_socket, "GET", "/conditions", PATIENCE)?,
            false => BadConditions::default(),
        };
        self.output.output.print(&served, |columns, screen| match served.routes.is_empty() {
            true => nothing(part, &why.conditions, screen),
            false => table(&served, columns, screen),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Advice for an empty table; `why` has the conditions of refused objects.
fn nothing(part: Option<&str>, why: &[BadCondition], screen: Screen) -> String {
    let said = match (part, why) {
        (Some(part), _) => format!(
            "no host of a route has `{part}` in it; `edge-gateway routes` without --host shows all"
        ),
        (None, []) => {
            "no routes are served. Write an HTTPRoute into a file of the configuration and \
                       save it; where there is one, `edge-gateway check` says what is wrong with it"
                .into()
        }
        (None, _) => {
            "no routes are served, because objects of the configuration are refused:".into()
        }
    };
    let mut text = screen.wrapped("", &said);
    for one in why.iter().take(REASONS) {
        text.push_str(&screen.wrapped("! ", &one.to_string()));
    }
    let more = why.len().saturating_sub(REASONS);
    if more > 0 {
        text.push_str(
            &screen.wrapped("", &format!("and {more} more; `edge-gateway status` lists all")),
        );
    }
    text
}

fn table(served: &Served, columns: Columns, screen: Screen) -> String {
    match columns {
        Columns::All => wide(served, screen),
        Columns::Usual => usual(served, screen),
    }
}

/// Draws the usual columns, with a line above the routes of each listener.
fn usual(served: &Served, screen: Screen) -> String {
    let heads = ["HOST", "MATCH", "GOES TO", "ROUTE", "RULE"].map(Column::new);
    let mut table =
        Table::new(heads.into_iter().chain([Column::of_figures("HITS", 0)])).narrowed_by(NARROWER);
    let mut listener = None;
    let mut counted = HashSet::new();
    for route in &served.routes {
        let on = (&route.listener, route.port);
        if listener.replace(on) != Some(on) {
            table.across(screen.wrapped("", &format!("listener {}, port {}", on.0, on.1)));
        }
        let (name, rule) = named(&route.rule);
        table.row([
            host(route).into(),
            (&route.matched).into(),
            goes_to(route),
            Cell::name(name),
            rule.into(),
            hits(route, &mut counted).into(),
        ]);
    }
    table.drawn(screen)
}

/// Draws one row for each match, with all columns.
fn wide(served: &Served, screen: Screen) -> String {
    let heads = ["LISTENER", "PORT", "HOST", "MATCH", "GOES TO", "RULE", "HITS", "FILTERS"];
    let mut table = Table::new(heads.map(Column::new));
    let mut counted = HashSet::new();
    for route in &served.routes {
        table.row([
            (&route.listener).into(),
            route.port.to_string().into(),
            host(route).into(),
            (&route.matched).into(),
            goes_to(route),
            (&route.rule).into(),
            hits(route, &mut counted).into(),
            filters(route).into(),
        ]);
    }
    table.drawn(screen)
}

fn host(route: &RouteRow) -> &str {
    route.host.as_deref().unwrap_or("*")
}

/// Hits are counted by rule: the first row of a rule shows them, the others show a ditto mark.
fn hits<'r>(route: &'r RouteRow, counted: &mut HashSet<&'r str>) -> String {
    match route.hits {
        None => "-".into(),
        Some(_) if !counted.insert(&route.rule) => "\"".into(),
        Some(hits) => hits.to_string(),
    }
}

fn filters(route: &RouteRow) -> String {
    let lines = route.filters.iter().flat_map(|filter| filter.lines());
    lines.map(str::trim).collect::<Vec<_>>().join(", ")
}

/// Returns the backends with their shares, or the filters that answer instead.
fn goes_to(route: &RouteRow) -> Cell {
    let all: u64 = route.backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let to = |backend: &RouteBackend| match &backend.name {
        Some(name) => backend_named(name, &route.rule),
        None => "nothing (500)".into(),
    };
    match &route.backends[..] {
        [] if route.filters.is_empty() => "nothing (500)".into(),
        [] => filters(route).into(),
        [one] => to(one).into(),
        several => Cell::list(several.iter().map(|one| {
            let share = (u64::from(one.weight) * 100 + all / 2) / all.max(1);
            format!("{} {share}%", to(one))
        })),
    }
}

/// Returns `cart` or `cart:8080`, with the namespace if it differs from that of the route.
fn backend_named(name: &str, rule: &str) -> String {
    let mut parts = name.split('/');
    let (Some(kind), Some(namespace), Some(name)) = (parts.next(), parts.next(), parts.next())
    else {
        return name.into();
    };
    let port = parts.next().filter(|_| kind == "service");
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    match rule.split('/').nth(1) == Some(namespace) {
        true => format!("{name}{port}"),
        false => format!("{namespace}/{name}{port}"),
    }
}

/// Splits `httproute/shop/cart/rule/0` into the route `shop/cart` and the rule number `0`.
pub(super) fn named(rule: &str) -> (&str, &str) {
    let of_kind = rule.split_once('/').map_or(rule, |(_, rest)| rest);
    of_kind.split_once("/rule/").unwrap_or((of_kind, "-"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn served() -> Served {
        let route = |rule: u8, matched: &str, backends: Value, hits: Value| {
            json!({
                "listener": "default/eg/http", "port": 80, "host": "shop.test", "match": matched,
                "rule": format!("httproute/default/shop/rule/{rule}"), "filters": [], "backends": backends,
                "hits": hits,
            })
        };
        let two = json!([
            { "name": "backend/default/a", "weight": 9 }, { "name": null, "weight": 1 },
        ]);
        let one = json!([{ "name": "service/default/cart/8080/grpc", "weight": 1 }]);
        let other = json!([{ "name": "backend/shared/db/tcp", "weight": 1 }]);
        let mut redirect = route(4, "exact /old", json!([]), json!(3));
        redirect["filters"] = json!(["redirect 301 scheme https", "set a: b\nset c: d\n"]);
        serde_json::from_value(json!({ "routes": [
            route(0, "prefix /cart", one.clone(), json!(12)),
            route(1, "prefix /a/very/long/path/that/nobody/wants method GET", two, Value::Null),
            route(2, "prefix /db", other, json!(0)),
            route(3, "prefix /none", json!([]), json!(0)),
            redirect,
            route(0, "prefix /basket", one, json!(12)),
        ]}))
        .unwrap()
    }

    #[test]
    fn a_row_says_where_a_match_goes() {
        let want = "\
HOST       MATCH                                                  GOES TO
listener default/eg/http, port 80
shop.test  prefix /cart                                           cart:8080
shop.test  prefix /a/very/long/path/that/nobody/wants method GET  a 90%, nothing (500) 10%
shop.test  prefix /db                                             shared/db
shop.test  prefix /none                                           nothing (500)
shop.test  exact /old                                             redirect 301 scheme https, set a
";
        let got = table(&served(), Columns::Usual, Screen::default());
        for (got, want) in got.lines().zip(want.lines()) {
            assert!(got.starts_with(want), "{got}");
        }
        let row = format!("{:45}  default/shop  0       12\n", "cart:8080");
        assert!(got.contains(&row), "{got}");
        // The same rule, so its hits are shown once.
        let again = format!("{:45}  default/shop  0        \"\n", "cart:8080");
        assert!(got.contains(&again), "{got}");
        let wide = table(&served(), Columns::All, Screen::default());
        assert_eq!(wide.split_whitespace().filter(|word| *word == "12").count(), 1, "{wide}");
        assert!(got.contains("redirect 301 scheme https, set a: b, set c: d  "), "{got}");
    }

    #[test]
    fn a_row_fits_the_terminal_whatever_is_in_it() {
        let want = "\
HOST       MATCH                        GOES TO         ROUTE         RULE  HITS
listener default/eg/http, port 80
shop.test  prefix /cart                 cart:8080       default/shop  0       12
shop.test  prefix /a/very/long/path/t…  a 90% +1        default/shop  1        -
";
        let got = table(&served(), Columns::Usual, Screen::of_width(80));
        let start = |text: &str| text.lines().take(4).collect::<Vec<_>>().join("\n");
        assert_eq!(start(&got), start(want), "{got}");
    }

    #[test]
    fn where_nothing_is_it_says_what_to_do() {
        let screen = Screen::default();
        assert!(nothing(None, &[], screen).contains("Write an HTTPRoute"));
        assert!(nothing(Some("sho"), &[], screen).contains("`sho`"));
    }

    #[test]
    fn where_objects_are_refused_it_says_which_and_why() {
        let condition = |number: usize| BadCondition {
            object: "Gateway default/eg".into(),
            part: format!("listener l{number}"),
            kind: "Accepted".into(),
            status: "False".into(),
            reason: "UnsupportedProtocol".into(),
            message: "`HTPS` is not a protocol".into(),
        };
        let why: Vec<_> = (0..REASONS + 2).map(condition).collect();
        let text = nothing(None, &why, Screen::default());
        let first = "! Gateway default/eg, listener l0: Accepted is False, UnsupportedProtocol: \
                     `HTPS` is not a protocol\n";
        assert!(text.contains(first), "{text}");
        assert!(text.contains("and 2 more; `edge-gateway status`"), "{text}");
        assert!(!text.contains("Write an HTTPRoute"), "{text}");
    }
}
