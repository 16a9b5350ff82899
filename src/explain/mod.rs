//! The outcome of a request: evaluates it with the same snapshot, guard, matchers and filters as a
//! real one, and lists the alternatives that lost and the reasons.
//!
//! This module decides nothing. The rule is the one that the route table finds; the list of lost
//! matches is the table in its order of precedence, each row with the first condition that the
//! request does not meet.

mod answer;
mod challenge;
mod question;
mod rows;
mod text;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use http::request;
use http::uri::PathAndQuery;

use crate::clock;
use crate::describe;
use crate::failure::Failure;
use crate::filters::exchange::path_of;
use crate::filters::{Exchange, Filter, HttpFilter, Scheme, Stop, Verdict};
use crate::path::{Ambiguous, has_escaped_separator};
use crate::proxy;
use crate::secret::is_secret_header;
use crate::snapshot::{
    Balancing, Bind, Choice, ClientLimits, ClientPolicy, EscapedSlashes, Listener, Rule, Snapshot,
    Traffic, Transport, WeightedClusters,
};
use crate::upstream::{Cluster, EndpointState};

use answer::{Answer, Backend, Chosen, Effect};
use challenge::Challenge;

pub(crate) use answer::{Explained, Lost};
pub(crate) use question::{InvalidQuestion, Question};

/// Evaluates `question` against `snapshot`. HTTP-01 challenges are answered from `webroot`, which
/// this function reads.
pub(crate) fn explain(snapshot: &Snapshot, webroot: &Path, question: &Question) -> Explained {
    let mut told = Explained { request: question.to_string(), ..Explained::default() };
    let answer = follow(snapshot, webroot, question, &mut told).err();
    told.answer = answer.map(|answer| {
        // Without a status there is no answer at all.
        let refused = answer.refused || answer.flag.is_some() || answer.status == 0;
        Answer { refused, ..answer }
    });
    told
}

/// Follows the path of a request through `proxy/http.rs`. An answer of the gateway itself ends it.
fn follow(
    snapshot: &Snapshot,
    webroot: &Path,
    question: &Question,
    told: &mut Explained,
) -> Result<(), Answer> {
    let mut head = question.head();
    let bind = bind(snapshot, question)?;
    let limits = limits(bind, question);
    let policy = policy(bind, question);
    let written = target_of(&head).to_owned();
    let host = proxy::admitted_host(&mut head, limits, policy).map_err(not_admitted)?;
    if let Some(policy) = policy {
        by_policy(policy, &written, &mut head)?;
    }
    match challenge::look(bind, webroot, &head) {
        Challenge::None => {}
        Challenge::GoesOn(why) => {
            told.lost.push(Lost { what: "HTTP-01 challenge".into(), why });
        }
        Challenge::Answered(with) => {
            return Err(Answer {
                status: 200,
                headers: vec!["content-type: text/plain".into()],
                why: format!("an HTTP-01 challenge is answered ahead of every route, with {with}"),
                ..Answer::default()
            });
        }
    }
    let (listener, rule, prefix) = route(bind, host.as_str(), &head, told)?;
    told.rule = Some(rule.name.to_string());

    let mut exchange = Exchange {
        client: question.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).to_canonical(),
        started: clock::now(),
        scheme: question.scheme,
        port: host.port().unwrap_or(question.port),
        host,
        matched_prefix: prefix,
        allowed_origin: None,
        details: None,
        limit: None,
        hides_limits: policy.is_some_and(|policy| policy.hides_limits),
        retry_after: None,
        is_delayed: false,
        coding: None,
        is_memory_short: false,
        passed: 0,
    };
    if let Some(overrides) = &rule.overrides {
        told.filters.push(Effect { filter: overrides.to_string(), changes: Vec::new() });
    }
    let before = head.clone();
    for filter in &rule.filters {
        let (effect, answer) = rehearse(filter, &mut exchange, &mut head);
        told.filters.push(effect);
        if let Some(answer) = answer {
            return Err(answer);
        }
    }
    backends(&rule, listener, &exchange, &head, told)?;
    told.forwarded = Some(forwarded(&before, &head));
    Ok(())
}

/// Changes a request whose target was `written` as the ClientTrafficPolicy of its listener says, before
/// it is routed. An answer of the policy itself ends it.
fn by_policy(
    policy: &ClientPolicy,
    written: &str,
    head: &mut request::Parts,
) -> Result<(), Answer> {
    let by = |what: &str| format!("{what} of ClientTrafficPolicy {}", policy.name);
    if policy.health_check.as_deref() == Some(written) {
        let why = by("it is the health check");
        return Err(Answer { status: 200, why, ..Answer::default() });
    }
    let path = written.split('?').next().unwrap_or_default();
    if policy.escaped_slashes == EscapedSlashes::Redirected && has_escaped_separator(path) {
        let headers = vec![format!("location: {}", target_of(head))];
        let why = by("the path has an escaped slash, see `path.escapedSlashesAction`");
        return Err(Answer { status: 307, headers, why, ..Answer::default() });
    }
    if let Some(changes) = &policy.early {
        changes.apply(&mut head.headers);
    }
    Ok(())
}

/// Returns the path and query of a request.
fn target_of(head: &request::Parts) -> &str {
    head.uri.path_and_query().map_or("/", PathAndQuery::as_str)
}

/// Returns the answer to a request that is refused.
fn not_admitted(failure: Failure) -> Answer {
    let text = failure.text().trim_end();
    let why = match failure {
        Failure::AmbiguousPath(ambiguous) => format!("{text}: {ambiguous}"),
        _ => text.into(),
    };
    let flag = failure.flag().map(|flag| flag.short().into());
    let status = failure.status().as_u16();
    Answer { status, flag, refused: true, why, ..Answer::default() }
}

/// Returns the bind that receives the request; of several addresses with the port, any one.
fn bind<'s>(snapshot: &'s Snapshot, question: &Question) -> Result<&'s Arc<Bind>, Answer> {
    let tcp = || snapshot.binds.iter().filter(|bind| bind.key.transport == Transport::Tcp);
    let of_port: Vec<_> = tcp().filter(|bind| bind.key.port == question.port).collect();
    let tls = question.scheme == Scheme::Https;
    if let Some(bind) = of_port.iter().find(|bind| bind.tls == tls) {
        return Ok(bind);
    }
    // The port of a socket that is passed in may be that of the URL and differ from that of its
    // listener.
    if !question.names_port
        && let Some(bind) = tcp().find(|bind| bind.tls == tls)
    {
        return Ok(bind);
    }
    let why = if of_port.is_empty() {
        let mut ports: Vec<_> = snapshot.binds.iter().map(|bind| bind.key.port).collect();
        ports.dedup();
        let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
        match &*ports {
            [] => "nothing is served; `edge-gateway check --status` says why".into(),
            _ => format!("no listener has port {}; there are {}", question.port, ports.join(", ")),
        }
    } else {
        let spoken = if tls { "in clear, not TLS" } else { "TLS, not in clear" };
        format!("the listeners of port {} speak {spoken}", question.port)
    };
    Err(Answer { why, ..Answer::default() })
}

/// Returns the limits of the connection: over TLS those of the listener for the name, else of the
/// bind.
fn limits<'s>(bind: &'s Bind, question: &Question) -> &'s ClientLimits {
    let listener = question.host().filter(|_| bind.tls);
    let listener = listener.and_then(|host| bind.listeners.best(host.as_str()));
    listener.map_or(&*bind.limits, |listener| &*listener.limits)
}

/// Returns the ClientTrafficPolicy of the connection.
fn policy<'s>(bind: &'s Bind, question: &Question) -> Option<&'s ClientPolicy> {
    let name = question.host();
    let sni = bind.tls.then(|| name.as_ref().map_or("", |host| host.as_str()));
    bind.policy_of(sni).map(|policy| &**policy)
}

/// Returns the listener and the rule, and records the ones that lost.
fn route<'s>(
    bind: &'s Arc<Bind>,
    host: &str,
    head: &request::Parts,
    told: &mut Explained,
) -> Result<(&'s Arc<Listener>, Arc<Rule>, usize), Answer> {
    let port = bind.key.port;
    let chosen = bind.listeners.best(host);
    for (hostname, other) in bind.listeners.sorted() {
        if chosen.is_some_and(|chosen| Arc::ptr_eq(chosen, other)) {
            continue;
        }
        let why = match other.hostname.as_ref().is_none_or(|pattern| pattern.accepts(host)) {
            true => "another listener names the host more exactly".into(),
            false => format!("its hostname is {}", hostname.as_deref().unwrap_or("any")),
        };
        told.other_listeners.push(Lost { what: other.name.to_string(), why });
    }
    let Some(listener) = chosen else {
        let why = format!("no listener of port {port} takes the host {host}");
        return Err(Answer { status: 404, flag: Some("NR".into()), why, ..Answer::default() });
    };
    let facts: Vec<_> = listener.certificates.iter().flat_map(|slot| slot.facts()).collect();
    let refused = match facts.iter().any(|facts| facts.covers(host)) {
        true => String::new(),
        false => format!(" (not for {host}: clients refuse it)"),
    };
    told.listener = Some(Chosen {
        name: listener.name.to_string(),
        hostname: listener.hostname.as_ref().map(ToString::to_string),
        port,
        policy: listener.policy.as_ref().map(|policy| policy.name.to_string()),
        certificates: facts.iter().map(|facts| facts.names.join(", ") + &refused).collect(),
    });
    let Traffic::Http(routes) = &listener.traffic else {
        let why = "the listener passes on what comes as it is, and looks at no request".into();
        return Err(Answer { why, ..Answer::default() });
    };
    let found = routes.find(host, path_of(&head.uri), head);
    let taken = rows::judge(routes, host, head, found.map(|found| found.rule), told);
    let Some(found) = found else {
        let why = match taken {
            0 => format!("no route of {} is for the host {host}", listener.name),
            _ => "no match of a route takes it".into(),
        };
        return Err(Answer { status: 404, flag: Some("NR".into()), why, ..Answer::default() });
    };
    if let Some((reading, other)) = routes.other_reading(host, path_of(&head.uri), head, found.rule)
    {
        let why = format!(
            "the path is ambiguous: {} takes it as it is, but a backend that decodes `%2F` and drops \
             `;` parameters reads `{reading}`, which belongs to {}",
            found.rule.name, other.name
        );
        let failure = Failure::AmbiguousPath(Ambiguous::OtherRule);
        return Err(Answer { why, ..not_admitted(failure) });
    }
    Ok((listener, Arc::clone(found.rule), found.matched_prefix))
}

/// Returns the effect of one filter on the request, and its answer if it has one.
///
/// Only `apply` is called, so a filter that waits or counts does neither for a request that was
/// never sent.
fn rehearse(
    filter: &Filter,
    exchange: &mut Exchange,
    head: &mut request::Parts,
) -> (Effect, Option<Answer>) {
    let before = head.clone();
    let verdict = filter.apply(exchange, head);
    // A filter that stops a request leaves nothing of the head that would matter.
    let changes = if verdict.is_continue() { changes(&before, head) } else { Vec::new() };
    let mut effect = Effect { filter: filter.to_string(), changes };
    if matches!(filter, Filter::Authorization(_)) {
        let client = exchange.client;
        effect.changes.push(format!("as for a client at {client}; `--client` is for another"));
    }
    if let Filter::RateLimit(limits) = filter {
        let counting = limits.counting(exchange, head).into_iter();
        effect.changes.extend(counting.map(|limit| format!("counted by {limit}")));
    }
    let answer = match verdict {
        Verdict::Continue(()) => None,
        Verdict::Break(Stop::Answer(answer)) => {
            let headers = answer.headers().iter();
            let headers =
                headers.map(|(name, value)| format!("{name}: {}", shown(name.as_str(), value)));
            Some(Answer {
                status: answer.status().as_u16(),
                headers: headers.collect(),
                why: "a filter answers in place of a backend".into(),
                ..Answer::default()
            })
        }
        Verdict::Break(Stop::Refuse(failure)) if matches!(filter, Filter::Broken(_)) => {
            let why = "the rule has a fault and is refused; `edge-gateway check` says which";
            Some(Answer { why: why.into(), ..not_admitted(failure) })
        }
        Verdict::Break(Stop::Refuse(failure)) => {
            let mut answer = not_admitted(failure);
            if let Some(details) = &exchange.details {
                answer.why = format!("{} ({details})", answer.why);
            }
            Some(answer)
        }
    };
    (effect, answer)
}

fn backends(
    rule: &Rule,
    listener: &Listener,
    exchange: &Exchange,
    head: &request::Parts,
    told: &mut Explained,
) -> Result<(), Answer> {
    let Some(backends) = &rule.backends else {
        let why = format!("the rule, on {}, has no backend with a weight", listener.name);
        return Err(Answer { status: 500, flag: Some("NC".into()), why, ..Answer::default() });
    };
    told.balanced = rule.balancing.as_deref().map(|of| balanced(of, exchange, head));
    for (place, backends) in backends.priorities().enumerate() {
        priority(backends, place > 0, exchange, head, told);
    }
    Ok(())
}

/// Records the backends of one priority.
fn priority(
    backends: &WeightedClusters,
    fallback: bool,
    exchange: &Exchange,
    head: &request::Parts,
    told: &mut Explained,
) {
    let total: u32 = backends.own().map(|(weight, _)| weight).sum();
    for (weight, choice) in backends.own() {
        let percent = f64::from(weight) * 100.0 / f64::from(total);
        let (what, filters, endpoints) = match choice {
            Choice::Invalid => {
                ("a reference that leads nowhere: 500".into(), Vec::new(), Vec::new())
            }
            Choice::Cluster { cluster, filters } => {
                let (mut exchange, mut head) = (exchange.clone(), head.clone());
                let effects =
                    filters.iter().map(|filter| rehearse(filter, &mut exchange, &mut head).0);
                (describe::backend(cluster), effects.collect(), endpoints(cluster))
            }
        };
        let what = match fallback {
            true => format!("{what} (fallback, while too few of the others are available)"),
            false => what,
        };
        told.backends.push(Backend { what, percent, filters, endpoints });
    }
}

/// Returns the load balancer of a policy, and the part of this request that decides on the endpoint.
fn balanced(balancing: &Balancing, exchange: &Exchange, head: &request::Parts) -> String {
    let named: Vec<_> = proxy::named_endpoints(balancing, &head.headers).collect();
    let hash = balancing.hash.as_ref();
    let hash = hash.map(|input| proxy::hash_of_request(input, exchange.client, head));
    let decides = match (&*named, hash) {
        ([first, ..], _) => format!("the request names {first}, which is used if it is available"),
        ([], None) => return balancing.to_string(),
        ([], Some(Some(_))) => "requests with the same value go to the same endpoint".into(),
        ([], Some(None)) => "the request does not have it: the endpoint is random".into(),
    };
    format!("{balancing}: {decides}")
}

/// Returns the state of each endpoint of a cluster with health checks.
fn endpoints(cluster: &Cluster) -> Vec<String> {
    if cluster.health_group().is_none() {
        return Vec::new();
    }
    let state = |state: EndpointState| {
        let address = state.address.or(state.name).unwrap_or_default();
        format!("{address} is {}", state.health.as_str())
    };
    cluster.states().into_iter().map(state).collect()
}

/// Returns the request as a backend gets it: the request line and the fields that filters changed.
fn forwarded(before: &request::Parts, after: &request::Parts) -> String {
    let mut text = format!("{} {}", after.method, after.uri);
    for change in changes(before, after) {
        if !change.starts_with("target: ") {
            text.push('\n');
            text.push_str(&change);
        }
    }
    text
}

/// Returns the differences between two heads.
fn changes(before: &request::Parts, after: &request::Parts) -> Vec<String> {
    let mut changes = Vec::new();
    if before.uri != after.uri {
        changes.push(format!("target: {} -> {}", before.uri, after.uri));
    }
    let mut names: Vec<_> = before.headers.keys().chain(after.headers.keys()).collect();
    names.sort_by_key(|name| name.as_str());
    names.dedup();
    for name in names {
        let all = |head: &request::Parts| {
            let values = head.headers.get_all(name).iter();
            values.map(|value| shown(name.as_str(), value)).collect::<Vec<_>>().join(", ")
        };
        let same = before.headers.get_all(name).iter().eq(after.headers.get_all(name).iter());
        match (same, before.headers.contains_key(name), after.headers.contains_key(name)) {
            (true, ..) => {}
            (_, true, false) => changes.push(format!("{name}: removed")),
            (_, false, _) => changes.push(format!("{name}: {}", all(after))),
            (_, true, true) => changes.push(format!("{name}: {} -> {}", all(before), all(after))),
        }
    }
    changes
}

fn shown(name: &str, value: &http::HeaderValue) -> String {
    if value.is_sensitive() || is_secret_header(name) {
        return "[redacted]".into();
    }
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
