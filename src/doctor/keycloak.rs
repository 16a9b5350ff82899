//! Check of the headers that Keycloak receives: with a wrong `X-Forwarded-Proto` or `-Host` it
//! redirects in a loop, or refuses its own tokens.

use std::collections::HashSet;

use crate::filters::{Filter, HeaderModifier};
use crate::snapshot::{Choice, RouteTable, Rule, WeightedClusters};
use crate::upstream::{ClusterSettings, EndpointSettings};

use super::finding::{Finding, Rating};
use super::subject::Subject;

const CHECK: &str = "Keycloak";
const WORD: &str = "keycloak";

/// The value of a forwarding header that arrives at Keycloak.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Arrival {
    /// The true value, set by the gateway from the client's connection.
    Truth,
    Set(String),
    /// A second value is added to the first.
    Added(String),
    Removed,
}

/// A rule with Keycloak as a backend.
#[derive(Debug)]
struct KeycloakRule<'a> {
    rule: &'a str,
    /// The host of the route, if it has exactly one.
    host: Option<&'a str>,
    tls: bool,
    https_port: u16,
}

pub(super) fn look(subject: &Subject) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    let mut seen = HashSet::new();
    for bind in subject.load.compiled.iter().flat_map(|compiled| &compiled.snapshot.binds) {
        for (_, listener) in bind.listeners.sorted() {
            for row in listener.routes().into_iter().flat_map(RouteTable::rows) {
                for modifiers in ways(row.rule) {
                    let host = row.host.as_deref().or(subject.domain.as_deref());
                    let way = KeycloakRule {
                        rule: &row.rule.name,
                        host: host.filter(|host| !host.starts_with("*.")),
                        tls: bind.tls,
                        https_port: subject.https_port,
                    };
                    let found = judge(&way, &modifiers);
                    // A rule may have many matches and hosts; the same finding is reported once.
                    if seen.insert((row.rule.name.clone(), found.what.clone())) {
                        findings.push(found);
                    }
                }
            }
        }
    }
    if findings.iter().any(|finding| finding.rating != Rating::Ok) {
        findings.retain(|finding| finding.rating != Rating::Ok);
    }
    findings
}

/// Returns the header modifiers of each path from a rule to Keycloak.
fn ways(rule: &Rule) -> Vec<Vec<&HeaderModifier>> {
    let choices = rule.backends.iter().flat_map(WeightedClusters::weighted);
    choices
        .filter_map(|(_, choice)| match choice {
            Choice::Cluster { cluster, filters } if is_keycloak(cluster.settings()) => {
                Some(modifiers(&rule.filters).chain(modifiers(filters)).collect())
            }
            Choice::Cluster { .. } | Choice::Invalid => None,
        })
        .collect()
}

fn modifiers(filters: &[Filter]) -> impl Iterator<Item = &HeaderModifier> {
    filters.iter().filter_map(|filter| match filter {
        Filter::RequestHeaders(headers) => Some(&headers.0),
        _ => None,
    })
}

fn is_keycloak(cluster: &ClusterSettings) -> bool {
    let names_it = |text: &str| text.to_ascii_lowercase().contains(WORD);
    names_it(&cluster.name)
        || cluster.endpoints.iter().any(|endpoint| match endpoint {
            EndpointSettings::Name { host, .. } => names_it(host),
            EndpointSettings::Unix(path) => names_it(&path.to_string_lossy()),
            EndpointSettings::Address(_) => false,
        })
}

fn arrival(modifiers: &[&HeaderModifier], name: &str) -> Arrival {
    let mut told = Arrival::Truth;
    for modifier in modifiers {
        let text =
            |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        if let Some((_, value)) = modifier.set.iter().find(|(set, _)| set == name) {
            told = Arrival::Set(text(value));
        }
        if let Some((_, value)) = modifier.add.iter().find(|(added, _)| added == name) {
            told = Arrival::Added(text(value));
        }
        if modifier.remove.iter().any(|removed| removed == name) {
            told = Arrival::Removed;
        }
    }
    told
}

fn judge(way: &KeycloakRule<'_>, modifiers: &[&HeaderModifier]) -> Finding {
    let KeycloakRule { rule, host, tls, https_port } = *way;
    let leave =
        |name: &str| format!("in {rule}, leave {name} to the gateway: take it out of the filter");
    for name in ["x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"] {
        let (severe, wrong) = match arrival(modifiers, name) {
            Arrival::Truth => continue,
            Arrival::Removed => (true, format!("{rule} removes {name}")),
            Arrival::Added(value) => {
                (true, format!("{rule} adds `{value}` to the {name} that is there"))
            }
            Arrival::Set(value) => {
                let (right, severe) = match name {
                    "x-forwarded-proto" => (!tls || value == "https", true),
                    "x-forwarded-host" => {
                        let name = value.split(':').next().unwrap_or_default();
                        (host.is_none_or(|host| host.eq_ignore_ascii_case(name)), true)
                    }
                    // With the right proto, Keycloak mostly works with a wrong port.
                    _ => (!tls || value == "443" || value == https_port.to_string(), false),
                };
                if right {
                    continue;
                }
                let should = match (name, host) {
                    ("x-forwarded-host", Some(host)) => format!("clients ask for {host}"),
                    _ => "clients use HTTPS".into(),
                };
                (severe, format!("{rule} sets {name} to `{value}`, and {should}"))
            }
        };
        return match severe {
            true => Finding::fail(CHECK, wrong, leave(name)),
            false => Finding::warn(CHECK, wrong, Some(leave(name))),
        };
    }
    let what = format!(
        "{rule} sends it X-Forwarded-*; start it with --proxy-headers=xforwarded, so that it reads them"
    );
    Finding::ok(CHECK, what)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn keycloak_is_told_the_truth_or_nothing_else() {
        let pair = |(name, value): (&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let set = |pairs: &[(&'static str, &'static str)]| HeaderModifier {
            set: pairs.iter().copied().map(pair).collect(),
            ..HeaderModifier::default()
        };
        let add = HeaderModifier {
            add: [pair(("x-forwarded-proto", "https"))].into(),
            ..HeaderModifier::default()
        };
        let remove = HeaderModifier {
            remove: [HeaderName::from_static("x-forwarded-host")].into(),
            ..HeaderModifier::default()
        };
        let (ok, warn, fail) = (Rating::Ok, Rating::Warn, Rating::Fail);
        let host = Some("id.test");
        // (filter, host of the route, TLS, rating, part of the finding)
        let table = [
            (HeaderModifier::default(), host, true, ok, "X-Forwarded-*"),
            (
                set(&[
                    ("x-forwarded-proto", "https"),
                    ("x-forwarded-host", "id.test"),
                    ("x-forwarded-port", "443"),
                ]),
                host,
                true,
                ok,
                "X-Forwarded-*",
            ),
            (
                set(&[("x-forwarded-proto", "http")]),
                host,
                true,
                fail,
                "x-forwarded-proto to `http`",
            ),
            // A proxy in front of the gateway terminates TLS.
            (set(&[("x-forwarded-proto", "https")]), host, false, ok, "X-Forwarded-*"),
            (set(&[("x-forwarded-host", "old.test")]), host, true, fail, "ask for id.test"),
            (set(&[("x-forwarded-host", "ID.test:443")]), host, true, ok, "X-Forwarded-*"),
            (set(&[("x-forwarded-host", "old.test")]), None, true, ok, "X-Forwarded-*"),
            (set(&[("x-forwarded-port", "8443")]), host, true, warn, "x-forwarded-port"),
            (set(&[("x-forwarded-port", "9443")]), host, true, ok, "X-Forwarded-*"),
            (add, host, true, fail, "adds `https`"),
            (remove, host, true, fail, "removes x-forwarded-host"),
        ];
        for (modifier, host, tls, rating, what) in table {
            let way = KeycloakRule { rule: "httproute/a/b/rule/0", host, tls, https_port: 9443 };
            let found = judge(&way, &[&modifier]);
            assert_eq!(found.rating, rating, "{modifier:?}: {found:?}");
            assert!(found.what.contains(what), "{found:?}");
        }
    }

    #[test]
    fn a_later_filter_has_the_last_word() {
        let pair = |value| {
            [(HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static(value))]
        };
        let first = HeaderModifier { set: pair("http").into(), ..HeaderModifier::default() };
        let last = HeaderModifier { set: pair("https").into(), ..HeaderModifier::default() };
        assert_eq!(arrival(&[&first, &last], "x-forwarded-proto"), Arrival::Set("https".into()));
        assert_eq!(arrival(&[], "x-forwarded-proto"), Arrival::Truth);
    }

    #[test]
    fn keycloak_is_known_by_its_name() {
        let name = |host: &str| EndpointSettings::Name { host: host.into(), port: 8080 };
        // (name of the backend, endpoint, is Keycloak)
        let table = [
            ("backend/a/keycloak", name("id.local"), true),
            ("backend/a/id", name("Keycloak.local"), true),
            ("backend/a/id", EndpointSettings::Unix("/run/keycloak.sock".into()), true),
            ("backend/a/shop", name("shop.local"), false),
        ];
        for (cluster, endpoint, want) in table {
            let settings = ClusterSettings::new(cluster, vec![endpoint]);
            assert_eq!(is_keycloak(&settings), want, "{settings:?}");
        }
    }
}
