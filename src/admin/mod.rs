//! The admin interface: answers about the running gateway, and the dashboard that shows them.
//!
//! This module does not listen: the control socket and the admin address (`control/socket`) pass
//! requests on, and answer those that need the control loop. Answers are read from the snapshot and
//! from counters, on a thread of the blocking pool, so client requests never wait for them.
//!
//! Invariant: no answer contains a secret. Rules and filters come from `describe`, which leaves
//! secrets out, and access records had theirs removed when they were written.

mod answer;
mod clusters;
mod listeners;
mod page;
mod query;
mod routes;
mod stats;

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use crate::clock;
use crate::downstream::Process;
use crate::explain::{Question, explain};
use crate::metrics::{Format, Metrics, State};
use crate::observe::LogLevel;
use crate::snapshot::Snapshot;

use clusters::Clusters;
use query::{Query, Unasked};

pub(crate) use answer::Answer;
pub(crate) use routes::{RouteBackend, RouteRow, Routes};
pub(crate) use stats::{Counted, Stats, quantile};

/// The maximum size of a request to `/explain`, in bytes.
const QUESTION: usize = 16 << 10;

/// Answers that do not need the control loop. A clone is a handle to the same data.
#[derive(Clone, Debug)]
pub(crate) struct Admin(Arc<Sources>);

/// The sources of the answers.
#[derive(Debug)]
struct Sources {
    process: Arc<Process>,
    metrics: Arc<Metrics>,
    log: LogLevel,
}

impl Admin {
    pub(crate) fn new(process: Arc<Process>, metrics: Arc<Metrics>, log: LogLevel) -> Self {
        Self(Arc::new(Sources { process, metrics, log }))
    }

    /// Returns the methods of a path that is answered here. Only POST makes changes.
    pub(crate) fn methods(path: &str) -> Option<&'static str> {
        match path {
            "/" | "/dashboard.css" | "/dashboard.js" | "/clusters" | "/config_dump"
            | "/explain" | "/healthz" | "/listeners" | "/ready" | "/requests" | "/routes"
            | "/stats" => Some("GET, HEAD"),
            "/logging" => Some("GET, HEAD, POST"),
            _ => None,
        }
    }

    /// Answers a request whose method is one of [`methods`](Self::methods).
    pub(crate) async fn answer(&self, changes: bool, path: &str, query: &str) -> Answer {
        let (this, path) = (self.clone(), path.to_owned());
        let query = Query::new(query);
        // Thousands of routes take a while, and the control loop must not wait for them.
        let answered = tokio::task::spawn_blocking(move || this.look(changes, &path, query)).await;
        match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(unasked)) => Answer::refused(StatusCode::BAD_REQUEST, &unasked.to_string()),
            Err(_) => Answer::refused(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping"),
        }
    }

    fn look(&self, changes: bool, path: &str, mut query: Query) -> Result<Answer, Unasked> {
        let Sources { process, metrics, log } = &*self.0;
        let snapshot = process.snapshot.load();
        if let Some(file) = page::file(path) {
            query.finish()?;
            return Ok(file);
        }
        let answer = match path {
            "/healthz" => Answer::text("ok\n".into()),
            "/ready" => ready(State::of(process)),
            "/clusters" => Answer::json(&Clusters::of(&snapshot)),
            "/listeners" => Answer::json(&listeners::Listeners::of(&snapshot)),
            "/routes" => Answer::json(&Routes::of(&snapshot)),
            "/config_dump" => Answer::json(&dump(&snapshot)),
            "/stats" => match query.one("format")?.as_deref() {
                None | Some("text") => Answer::text(plain(&metrics.text(Format::Prometheus))),
                Some("json") => Answer::json(&Stats::of(process, &snapshot)),
                Some("prometheus") => {
                    let format = Format::Prometheus;
                    let body = metrics.text(format).into();
                    Answer { content_type: format.content_type(), ..Answer::of(body) }
                }
                Some(_) => return Err(query.wrong("format", "text, json or prometheus")),
            },
            "/explain" => {
                let method = query.one("method")?.unwrap_or_else(|| "GET".into());
                let url = query.one("url")?.ok_or(Unasked::Missing("url"))?;
                let headers = query.all("header");
                let length = headers.iter().map(String::len).sum::<usize>() + url.len();
                if length > QUESTION {
                    return Err(Unasked::Question("the request is too long".into()));
                }
                let client = query.one("client")?;
                let client = client.map(|text| text.parse()).transpose();
                let client = client.map_err(|_| query.wrong("client", "an IP address"))?;
                let mut question = Question::new(&method, &url, &headers)
                    .map_err(|error| Unasked::Question(error.to_string()))?;
                question.client = client;
                let webroot = &process.acme_webroot;
                Answer::json(&explain(&snapshot, webroot, &question))
            }
            "/requests" => {
                let after = match query.one("after")? {
                    Some(text) => text.parse().map_err(|_| query.wrong("after", "a number"))?,
                    None => 0,
                };
                let recent = process.access_log.recent().since(after, clock::wall());
                Answer { content_type: "application/json", ..Answer::of(recent.into()) }
            }
            "/logging" => {
                if let Some(level) = query.one("level")?.filter(|_| changes) {
                    let level = level
                        .parse()
                        .map_err(|_| query.wrong("level", "error, warn, info, debug or trace"))?;
                    log.set(level);
                    tracing::info!(to = %level, "log level changed");
                } else if changes {
                    return Err(Unasked::Missing("level"));
                }
                Answer::json(&json!({ "level": log.level().as_str().to_ascii_lowercase() }))
            }
            // Unreachable: `methods` allows no other path.
            _ => Answer::refused(StatusCode::NOT_FOUND, "no such page"),
        };
        query.finish()?;
        Ok(answer)
    }
}

/// Returns readiness for load balancers, with Envoy's names of the states.
fn ready(state: State) -> Answer {
    let status = match state {
        State::Live => StatusCode::OK,
        State::Draining | State::Initializing => StatusCode::SERVICE_UNAVAILABLE,
    };
    Answer { status, ..Answer::text(format!("{state}\n")) }
}

/// Returns the whole served configuration, for a bug report.
fn dump(snapshot: &Snapshot) -> serde_json::Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "generation": snapshot.generation,
        "listeners": listeners::Listeners::of(snapshot).listeners,
        "routes": Routes::of(snapshot).routes,
        "rules": routes::rules(snapshot),
        "clusters": Clusters::of(snapshot).clusters,
    })
}

/// Returns the samples without comments, as `name{labels}: value`.
fn plain(exposition: &str) -> String {
    let samples = exposition.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.rsplit_once(' '))
        .fold(String::new(), |text, (name, value)| text + name + ": " + value + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_as_long_as_it_takes_connections() {
        // (state, status, text)
        let table = [
            (State::Live, 200, "LIVE\n"),
            (State::Draining, 503, "DRAINING\n"),
            (State::Initializing, 503, "INITIALIZING\n"),
        ];
        for (state, status, text) in table {
            let answer = ready(state);
            assert_eq!((answer.status.as_u16(), &*answer.body), (status, text.as_bytes()));
        }
    }

    #[test]
    fn plain_statistics_are_samples_alone() {
        let text = "# HELP a b\n# TYPE a counter\na{x=\"y z\"} 3\nb 0.5\n";
        assert_eq!(plain(text), "a{x=\"y z\"}: 3\nb: 0.5\n");
    }
}
