//! `/routes`: all matches, in the order of matching, and all rules.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::describe;
use crate::snapshot::{Choice, Forward, Row, Rule, Snapshot, Traffic, WeightedClusters};

/// The answer to `GET /routes`.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Routes {
    pub routes: Vec<RouteRow>,
}

/// A match on a listener.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct RouteRow {
    /// `namespace/gateway/sectionName`.
    pub listener: String,
    /// The port in the Gateway.
    pub port: u16,
    /// `None` for any host.
    pub host: Option<String>,
    /// `prefix /cart method GET`; empty if the protocol is not HTTP.
    #[serde(rename = "match")]
    pub matched: String,
    /// `httproute/NAMESPACE/NAME/rule/N`.
    pub rule: String,
    pub filters: Vec<String>,
    pub backends: Vec<RouteBackend>,
    /// Requests that matched the rule, by all of its matches on all listeners: the same number for
    /// each row of the rule. Connections or UDP flows if the protocol is not HTTP. `None` if not
    /// counted.
    pub hits: Option<u64>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct RouteBackend {
    /// `None` for an invalid reference.
    pub name: Option<String>,
    pub weight: u32,
}

impl Routes {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let mut routes = Vec::new();
        for bind in &snapshot.binds {
            for (_, listener) in bind.listeners.sorted() {
                let on = |route: RouteRow| RouteRow {
                    listener: listener.name.to_string(),
                    port: bind.key.port,
                    ..route
                };
                match &listener.traffic {
                    Traffic::Http(table) => {
                        routes.extend(table.rows().iter().map(|row| on(RouteRow::matching(row))));
                    }
                    Traffic::Forward(of) | Traffic::Passthrough(of) => {
                        let all = of.sorted().into_iter();
                        routes.extend(all.map(|(host, to)| on(RouteRow::forwarding(host, to))));
                    }
                }
            }
        }
        Self { routes }
    }
}

impl RouteRow {
    fn matching(row: &Row<'_>) -> Self {
        Self {
            host: row.host.clone(),
            matched: describe::conditions(row),
            rule: row.rule.name.to_string(),
            filters: row.rule.filters.iter().map(ToString::to_string).collect(),
            backends: backends(row.rule.backends.as_ref()),
            hits: Some(row.rule.counts.sum(|of| &of.hits)),
            ..Self::default()
        }
    }

    fn forwarding(host: Option<String>, to: &Forward) -> Self {
        Self {
            host,
            rule: to.name.to_string(),
            backends: backends(to.backends.as_ref()),
            hits: Some(to.counts.sum(|of| &of.hits)),
            ..Self::default()
        }
    }
}

fn backends(of: Option<&WeightedClusters>) -> Vec<RouteBackend> {
    let all = of.into_iter().flat_map(WeightedClusters::weighted);
    all.map(|(weight, choice)| RouteBackend {
        name: match choice {
            Choice::Invalid => None,
            Choice::Cluster { cluster, .. } => Some(cluster.settings().name.to_string()),
        },
        weight,
    })
    .collect()
}

/// Returns every rule with all of its actions, in the format of `check --table`.
pub(super) fn rules(snapshot: &Snapshot) -> Vec<Value> {
    let told = |rule: &Rule| json!({ "name": &*rule.name, "does": describe::rule(rule) });
    snapshot.rules.values().map(|rule| told(rule)).collect()
}
