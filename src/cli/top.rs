//! `edge-gateway top`: the live traffic of the running gateway, by route.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::admin::{Counted, Stats, quantile};
use crate::app::Failed;
use crate::clock;
use crate::control::socket::{CannotAsk, call};
use crate::observe::counted;

use super::output::{Columns, Output, settled};
use super::paths::{PATIENCE, Socket};
use super::routes::named;
use super::table::{Cell, Column, Table};
use super::text::{Colour, Screen};
use super::values::time;

#[derive(Args, Debug)]
#[command(after_help = "\
Errors are answers of 500 and above. P50 and P99 are milliseconds until the last byte of the
backend's response, read from buckets, so only as exact as those. A rule that answers by itself (a
redirect, a direct response) has requests alone.

Examples:
  edge-gateway top                           until Ctrl-C
  edge-gateway top --once --interval 10s     the averages of ten seconds
  edge-gateway top -o json                   those of one second, for a program")]
pub(super) struct Top {
    /// Print one table and exit, as for JSON and YAML
    #[arg(long)]
    once: bool,
    /// Time between two tables, over which rates are averaged
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time, allow_hyphen_values = true)]
    interval: Duration,
    /// Number of routes to show, the busiest first
    #[arg(long, value_name = "N", default_value_t = 20)]
    rows: usize,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    socket: Socket,
}

impl Top {
    pub(super) fn run(self) -> Result<ExitCode, Failed> {
        let socket = &self.socket.control_socket;
        let interval = self.interval.max(Duration::from_millis(100));
        let mut before = stats(socket)?;
        loop {
            wait(interval);
            let now = stats(socket)?;
            let sample = Sample::between(&before, &now);
            let Some((columns, screen)) = self.output.output.columns().filter(|_| !self.once)
            else {
                let table = |columns, screen| table(&sample, columns, self.rows, screen);
                self.output.output.print(&sample, table)?;
                return Ok(ExitCode::SUCCESS);
            };
            // Seven lines are needed for the rest; more lines than fit would scroll.
            let rest = 7 + sample.unavailable.len();
            let room =
                screen.height.map_or(usize::MAX, |height| height.saturating_sub(rest).max(1));
            let table = table(&sample, columns, self.rows.min(room), screen);
            // Moves the cursor home and overwrites each line: clearing the screen would flicker.
            let text = format!("\x1b[H{}\x1b[J", table.replace('\n', "\x1b[K\n"));
            let mut stdout = io::stdout().lock();
            let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
            if written.is_err() {
                return settled(written).map(|()| ExitCode::SUCCESS);
            }
            before = now;
        }
    }
}

fn stats(socket: &Path) -> Result<Stats, CannotAsk> {
    call(socket, "GET", "/stats?format=json", PATIENCE)
}

fn wait(time: Duration) {
    let end = clock::now() + time;
    loop {
        let left = end.saturating_duration_since(clock::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

/// The traffic between two readings.
#[derive(Debug, Serialize)]
struct Sample {
    seconds: f64,
    generation: u64,
    /// Open client connections.
    connections: usize,
    /// Responses of all listeners.
    all: Rates,
    /// Requests that were not completed, by Envoy's response flag.
    failed_per_second: BTreeMap<String, f64>,
    /// Sorted, the busiest first.
    routes: Vec<Rates>,
    /// Endpoints that health checks have taken out of service.
    unavailable: Vec<String>,
}

/// The traffic of one route, or of all listeners.
#[derive(Debug, Serialize)]
struct Rates {
    name: String,
    requests_per_second: f64,
    /// Responses with status 500 and above.
    errors_per_second: f64,
    retries_per_second: f64,
    /// `None` if nothing was timed.
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    /// Requests under way.
    active: u64,
    /// Requests since the start.
    hits: u64,
}

impl Sample {
    fn between(before: &Stats, now: &Stats) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of 285,000 years are exact")]
        let seconds = (now.time_ms.saturating_sub(before.time_ms)).max(1) as f64 / 1e3;
        let rates = |counted: &Counted, old: Option<&Counted>| {
            let since = counted.since(old);
            let time = |share| quantile(share, &now.buckets_ms, &since.times);
            Rates {
                name: counted.name.clone(),
                requests_per_second: per_second(since.hits, seconds),
                errors_per_second: per_second(since.responses[4], seconds),
                retries_per_second: per_second(since.retries, seconds),
                p50_ms: time(0.5),
                p99_ms: time(0.99),
                active: counted.active,
                hits: counted.hits,
            }
        };
        let routes = before.routes.iter().map(|route| (&*route.name, route));
        let known: HashMap<_, _> = routes.collect();
        let of_route = |route: &Counted| rates(route, known.get(&*route.name).copied());
        let mut routes: Vec<_> = now.routes.iter().map(of_route).collect();
        routes.sort_by(|a, b| {
            let busier = b.requests_per_second.total_cmp(&a.requests_per_second);
            busier.then(b.hits.cmp(&a.hits)).then_with(|| a.name.cmp(&b.name))
        });
        let failed = now.flags.iter().map(|(flag, count)| {
            let before = before.flags.iter().find(|(other, _)| other == flag);
            (flag, count.saturating_sub(before.map_or(0, |(_, count)| *count)))
        });
        Self {
            seconds,
            generation: now.generation,
            connections: now.connections,
            all: rates(&now.downstream, Some(&before.downstream)),
            failed_per_second: failed
                .filter(|(_, count)| *count > 0)
                .map(|(flag, count)| (flag.clone(), per_second(count, seconds)))
                .collect(),
            routes,
            unavailable: now.unavailable.clone(),
        }
    }
}

fn table(sample: &Sample, columns: Columns, rows: usize, screen: Screen) -> String {
    let Sample { all, connections, generation, .. } = sample;
    let unit = |time: Option<f64>| match time {
        Some(time) => format!("{} ms", short(time)),
        None => "-".into(),
    };
    let mut text = screen.wrapped(
        "",
        &format!(
            "{} requests/s, {} errors/s, p50 {}, p99 {}, {}, generation {generation}",
            short(all.requests_per_second),
            short(all.errors_per_second),
            unit(all.p50_ms),
            unit(all.p99_ms),
            counted(*connections, "connection"),
        ),
    );
    let failed = sample.failed_per_second.iter();
    let failed: Vec<_> = failed.map(|(flag, rate)| format!("{flag} {}/s", short(*rate))).collect();
    let failed = if failed.is_empty() { "nothing".into() } else { failed.join(", ") };
    text.push_str(&screen.wrapped("", &format!("not completed: {failed}")));
    for endpoint in &sample.unavailable {
        text.push_str(&screen.wrapped("! ", endpoint));
    }
    text.push('\n');
    if sample.routes.is_empty() {
        let nothing = "no route was asked for yet; `edge-gateway routes` shows what there is";
        return text + &screen.wrapped("", nothing);
    }
    text.push_str(&grid(&sample.routes[..rows.min(sample.routes.len())], columns, screen));
    match sample.routes.len().saturating_sub(rows) {
        0 => text,
        more => text + &screen.wrapped("", &format!("and {more} more; see --rows")),
    }
}

fn grid(routes: &[Rates], columns: Columns, screen: Screen) -> String {
    let names: &[&str] = match columns {
        Columns::All => &["RULE"],
        Columns::Usual => &["ROUTE", "RULE"],
    };
    let figures =
        [("REQ/S", 7), ("ERR/S", 7), ("P50 MS", 7), ("P99 MS", 7), ("OPEN", 5), ("RETRY/S", 7)];
    let names = names.iter().map(|name| Column::new(*name));
    let figures = figures.into_iter().map(|(head, least)| Column::of_figures(head, least));
    // Steps for the columns ROUTE, RULE, REQ/S, ERR/S, P50 MS, P99 MS, OPEN and RETRY/S.
    let narrower = [(0, 30), (7, 0), (6, 0), (0, 20), (4, 0), (0, 10)];
    let mut table = Table::new(names.chain(figures));
    if columns == Columns::Usual {
        table = table.narrowed_by(narrower);
    }
    for rates in routes {
        let time = |time: Option<f64>| time.map_or_else(|| "-".into(), short);
        let names: Vec<Cell> = match (columns, named(&rates.name)) {
            (Columns::All, _) => vec![(&rates.name).into()],
            (Columns::Usual, (route, rule)) => vec![Cell::name(route), rule.into()],
        };
        let cells = names.into_iter().chain([
            short(rates.requests_per_second).into(),
            short(rates.errors_per_second).into(),
            time(rates.p50_ms).into(),
            time(rates.p99_ms).into(),
            rates.active.to_string().into(),
            short(rates.retries_per_second).into(),
        ]);
        match rates.errors_per_second > 0.0 {
            true => table.row(cells.map(|cell: Cell| cell.in_colour(Colour::Red))),
            false => table.row(cells),
        }
    }
    table.drawn(screen)
}

fn per_second(count: u64, seconds: f64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "no host serves 2^53 requests a second")]
    let rate = count as f64 / seconds;
    rate
}

/// Formats a number with one decimal below 10, else with none.
fn short(number: f64) -> String {
    if number > 0.0 && number < 10.0 { format!("{number:.1}") } else { format!("{number:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, hits: u64, errors: u64, times: &[u64]) -> Counted {
        Counted {
            name: name.into(),
            hits,
            responses: [0, hits - errors, 0, 0, errors],
            times: times.into(),
            ..Counted::default()
        }
    }

    #[test]
    fn rates_are_of_the_time_between_two_readings() {
        let buckets_ms = vec![1.0, 10.0, 100.0];
        let before = Stats {
            time_ms: 1000,
            downstream: of("all", 100, 0, &[100, 100, 100, 100]),
            flags: vec![("UF".into(), 4)],
            routes: vec![of("httproute/a/old/rule/0", 100, 0, &[100, 100, 100, 100])],
            buckets_ms: buckets_ms.clone(),
            ..Stats::default()
        };
        let now = Stats {
            time_ms: 3000,
            generation: 2,
            connections: 7,
            downstream: of("all", 160, 10, &[100, 160, 160, 160]),
            flags: vec![("UF".into(), 14), ("NR".into(), 0)],
            routes: vec![
                of("httproute/a/old/rule/0", 110, 0, &[100, 110, 110, 110]),
                of("httproute/a/new/rule/0", 50, 10, &[0, 0, 50, 50]),
            ],
            buckets_ms,
            unavailable: vec!["10.0.0.7:8080 of backend/a/new is unhealthy".into()],
        };
        let sample = Sample::between(&before, &now);
        let want = "\
30 requests/s, 5.0 errors/s, p50 5.5 ms, p99 9.9 ms, 7 connections, generation 2
not completed: UF 5.0/s
! 10.0.0.7:8080 of backend/a/new is unhealthy

ROUTE  RULE    REQ/S    ERR/S   P50 MS   P99 MS   OPEN  RETRY/S
a/new  0          25      5.0       55       99      0        0
a/old  0         5.0        0      5.5      9.9      0        0
";
        assert_eq!(table(&sample, Columns::Usual, 10, Screen::default()), want);
        for width in [30, 60, 80] {
            let narrow = table(&sample, Columns::Usual, 10, Screen::of_width(width));
            assert!(narrow.lines().all(|line| line.len() <= width), "{narrow}");
        }
        let one = table(&sample, Columns::Usual, 1, Screen::default());
        assert!(one.ends_with("and 1 more; see --rows\n"), "{one}");
        let wide = table(&sample, Columns::All, 10, Screen::default());
        assert!(wide.contains("httproute/a/new/rule/0 "), "{wide}");
        let told = serde_json::to_value(&sample).unwrap();
        assert_eq!(told["routes"][0]["requests_per_second"], 25.0, "{told}");
        assert_eq!(told["failed_per_second"], serde_json::json!({ "UF": 5.0 }), "{told}");
    }
}
