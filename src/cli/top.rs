//! `edge-gateway top`: what the gateway that runs is doing now, by route.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;

use crate::admin::{Counted, Stats, quantile};
use crate::clock;
use crate::control::socket::{CannotAsk, call};

use super::paths::Socket;
use super::text::{Colour, cell, has_colours, paint};
use super::values::time;

const PATIENCE: Duration = Duration::from_secs(30);
/// Columns of ROUTE; the figures follow.
const NAME: usize = 46;

#[derive(Args, Debug)]
#[command(after_help = "\
Errors are answers of 500 and above. P50 and P99 are milliseconds until the last byte of the
backend's response, read from buckets, so only as exact as those. A rule that answers by itself (a
redirect, a direct response) has requests alone.

Examples:
  edge-gateway top                           until Ctrl-C
  edge-gateway top --once --interval 10s     the averages of ten seconds")]
pub(super) struct Top {
    /// Print one table and end
    #[arg(long)]
    once: bool,
    /// What is averaged over, and the time between two tables
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time, allow_hyphen_values = true)]
    interval: Duration,
    /// Routes that are shown, the busiest first
    #[arg(long, value_name = "N", default_value_t = 20)]
    rows: usize,
    #[command(flatten)]
    socket: Socket,
}

impl Top {
    pub(super) fn run(self) -> Result<ExitCode, CannotAsk> {
        let socket = &self.socket.control_socket;
        let interval = self.interval.max(Duration::from_millis(100));
        let mut before = stats(socket)?;
        loop {
            wait(interval);
            let now = stats(socket)?;
            let table = table(&before, &now, self.rows, has_colours());
            // Home, then each line over the one before it: a cleared screen would flicker.
            let text = match self.once {
                true => table,
                false => format!("\x1b[H{}\x1b[J", table.replace('\n', "\x1b[K\n")),
            };
            let written = io::stdout().write_all(text.as_bytes());
            if self.once || written.and_then(|()| io::stdout().flush()).is_err() {
                return Ok(ExitCode::SUCCESS);
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

/// What happened between two readings, at most 100 columns wide.
fn table(before: &Stats, now: &Stats, rows: usize, colours: bool) -> String {
    #[allow(clippy::cast_precision_loss, reason = "milliseconds of 285,000 years are exact")]
    let seconds = (now.time_ms.saturating_sub(before.time_ms)).max(1) as f64 / 1e3;
    let all = now.downstream.since(Some(&before.downstream));
    let mut text = format!(
        "{} requests/s, {} errors/s, p50 {}, p99 {}, {} connections, generation {}\n",
        per_second(all.hits, seconds),
        per_second(all.responses[4], seconds),
        milliseconds(0.5, now, &all),
        milliseconds(0.99, now, &all),
        now.connections,
        now.generation,
    );
    let failed: Vec<_> = now
        .flags
        .iter()
        .map(|(flag, count)| {
            let before = before.flags.iter().find(|(other, _)| other == flag);
            (flag, count.saturating_sub(before.map_or(0, |(_, count)| *count)))
        })
        .filter(|(_, count)| *count > 0)
        .map(|(flag, count)| format!("{flag} {}/s", per_second(count, seconds)))
        .collect();
    let failed = if failed.is_empty() { "nothing".into() } else { failed.join(", ") };
    let _ = writeln!(text, "not completed: {failed}\n");
    let figures = |figures: [&str; 6]| {
        let [requests, errors, p50, p99, active, retries] = figures;
        format!("{requests:>9} {errors:>8} {p50:>9} {p99:>9} {active:>6} {retries:>7}")
    };
    let heads = figures(["REQ/S", "ERR/S", "P50 MS", "P99 MS", "OPEN", "RETRY/S"]);
    let _ = writeln!(text, "{}{heads}", cell("ROUTE", NAME));

    let mut routes: Vec<_> = now
        .routes
        .iter()
        .map(|route| {
            let old = before.routes.iter().find(|other| other.name == route.name);
            (route.since(old), route.hits)
        })
        .collect();
    routes.sort_by(|(a, all_a), (b, all_b)| {
        b.hits.cmp(&a.hits).then(all_b.cmp(all_a)).then_with(|| a.name.cmp(&b.name))
    });
    for (route, _) in routes.iter().take(rows) {
        let [requests, errors, retries] =
            [route.hits, route.responses[4], route.retries].map(|one| per_second(one, seconds));
        let [p50, p99] = [0.5, 0.99]
            .map(|share| milliseconds(share, now, route).trim_end_matches(" ms").to_owned());
        let line = figures([&requests, &errors, &p50, &p99, &route.active.to_string(), &retries]);
        let line = format!("{}{line}", cell(&route.name, NAME));
        let has_errors = route.responses[4] > 0;
        text.push_str(&paint(&line, Colour::Red, colours && has_errors));
        text.push('\n');
    }
    match routes.len().saturating_sub(rows) {
        0 if routes.is_empty() => text.push_str("no route was asked for yet\n"),
        0 => {}
        more => {
            let _ = writeln!(text, "and {more} more; see --rows");
        }
    }
    text
}

fn per_second(count: u64, seconds: f64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "no host serves 2^53 requests a second")]
    let rate = count as f64 / seconds;
    if rate > 0.0 && rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

fn milliseconds(share: f64, stats: &Stats, of: &Counted) -> String {
    match quantile(share, &stats.buckets_ms, &of.times) {
        None => "-".into(),
        Some(time) if time < 10.0 => format!("{time:.1} ms"),
        Some(time) => format!("{time:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(name: &str, hits: u64, errors: u64, times: &[u64]) -> Counted {
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
            downstream: counted("all", 100, 0, &[100, 100, 100, 100]),
            flags: vec![("UF".into(), 4)],
            routes: vec![counted("httproute/a/old/rule/0", 100, 0, &[100, 100, 100, 100])],
            buckets_ms: buckets_ms.clone(),
            ..Stats::default()
        };
        let now = Stats {
            time_ms: 3000,
            generation: 2,
            connections: 7,
            downstream: counted("all", 160, 10, &[100, 160, 160, 160]),
            flags: vec![("UF".into(), 14), ("NR".into(), 0)],
            routes: vec![
                counted("httproute/a/old/rule/0", 110, 0, &[100, 110, 110, 110]),
                counted("httproute/a/new/rule/0", 50, 10, &[0, 0, 50, 50]),
            ],
            buckets_ms,
        };
        let want = "\
30 requests/s, 5.0 errors/s, p50 5.5 ms, p99 9.9 ms, 7 connections, generation 2
not completed: UF 5.0/s

ROUTE                                             REQ/S    ERR/S    P50 MS    P99 MS   OPEN RETRY/S
httproute/a/new/rule/0                               25      5.0        55        99      0       0
httproute/a/old/rule/0                              5.0        0       5.5       9.9      0       0
";
        let got = table(&before, &now, 10, false);
        assert_eq!(got, want);
        assert!(got.lines().all(|line| line.chars().count() <= 100));
        assert!(table(&before, &now, 1, false).ends_with("and 1 more; see --rows\n"));
    }
}
