//! Text form of a snapshot: the running configuration, in the order of matching.
//!
//! `check --table`, `explain`, the dashboard and the golden tests use this text, so that they agree
//! with the running configuration. Values of headers that may contain secrets are left out.

use std::collections::HashSet;
use std::fmt::{Display, Formatter, Result, Write};
use std::sync::Arc;

use crate::filters::{Filter, HttpFilter, PathMatch, Phase, ValueMatch};
use crate::proxy_protocol;
use crate::secret::is_secret_header;
use crate::snapshot::{
    AddressSource, Bind, Carrier, Choice, ClientDetection, Conditions, Forward, Limit, Listener,
    ProxyHeader, RetriedFailures, Retry, Row, Rule, Session, Snapshot, Timeouts, Traffic,
    Transport, WeightedClusters,
};
use crate::tls::{AltName, ClientSettings};
use crate::trace::{CollectorSettings, TracingSettings};
use crate::upstream::{
    BalanceKind, BalancePolicy, Bounds, Cluster, ClusterSettings, EndpointSettings, HoldSettings,
    LifetimeLimits, Protocol, RequestBounds, RetryBound,
};

/// Returns binds with their listeners, hosts and matches, then every rule once: filters, backends,
/// limits.
pub(crate) fn snapshot(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = write_all(&mut text, snapshot);
    text
}

/// Returns the destination of a cluster's requests, in the format of [`snapshot`].
pub(crate) fn backend(cluster: &Cluster) -> String {
    ClusterWords(cluster).to_string()
}

/// Returns one row with its rule, in the format of [`snapshot`].
pub(crate) fn row(row: &Row<'_>) -> String {
    format!("{}, {}", HostWords(row.host.as_deref()), Match(row))
}

/// Returns the conditions of a row without its host, in the format of [`snapshot`].
pub(crate) fn conditions(row: &Row<'_>) -> String {
    RowConditions(row).to_string()
}

/// Returns the filters, backends and limits of a rule, one per line, in the format of [`snapshot`].
pub(crate) fn rule(rule: &Rule) -> Vec<String> {
    let mut text = String::new();
    let _ = write_rule(&mut text, rule);
    // The first line is the name.
    text.lines().skip(1).map(|line| line.trim_start().to_owned()).collect()
}

fn write_all(to: &mut String, snapshot: &Snapshot) -> Result {
    let mut rules: Vec<&Arc<Rule>> = Vec::new();
    let mut seen: HashSet<*const Rule> = HashSet::new();
    let mut forwards: Vec<&Arc<Forward>> = Vec::new();
    for bind in &snapshot.binds {
        write_bind(to, bind)?;
        for (_, listener) in bind.listeners.sorted() {
            write_listener(to, listener)?;
            let routes = match &listener.traffic {
                Traffic::Http(routes) => routes,
                Traffic::Forward(of) | Traffic::Passthrough(of) => {
                    for (host, forward) in of.sorted() {
                        writeln!(to, "    {} -> {}", HostWords(host.as_deref()), forward.name)?;
                        if !forwards.iter().any(|known| Arc::ptr_eq(known, forward)) {
                            forwards.push(forward);
                        }
                    }
                    continue;
                }
            };
            let mut host = None;
            for row in routes.rows() {
                if host.as_ref() != Some(&row.host) {
                    writeln!(to, "    {}", HostWords(row.host.as_deref()))?;
                    host = Some(row.host.clone());
                }
                writeln!(to, "      {}", Match(&row))?;
                if seen.insert(Arc::as_ptr(row.rule)) {
                    rules.push(row.rule);
                }
            }
        }
    }
    rules.iter().try_for_each(|rule| write_rule(to, rule))?;
    forwards.iter().try_for_each(|forward| write_forward(to, forward))
}

fn write_forward(to: &mut String, forward: &Forward) -> Result {
    writeln!(to, "forward {}", forward.name)?;
    if let Some(authorization) = &forward.authorization {
        writeln!(to, "  {authorization}")?;
    }
    let Some(backends) = &forward.backends else {
        return to.write_str("  no backend: refused\n");
    };
    if forward.hashes_clients {
        to.push_str("  one endpoint for each client address\n");
    }
    for (place, priority) in backends.priorities().enumerate() {
        let word = if place == 0 { "" } else { "fallback " };
        for (weight, choice) in priority.own() {
            match choice {
                Choice::Invalid => writeln!(to, "  {word}weight {weight} to nothing: refused")?,
                Choice::Cluster { cluster, .. } => {
                    writeln!(to, "  {word}weight {weight} to {}", Endpoints(cluster))?;
                }
            }
        }
    }
    Ok(())
}

fn write_bind(to: &mut String, bind: &Bind) -> Result {
    to.push_str("bind ");
    match bind.key.address {
        None => write!(to, "*:{}", bind.key.port)?,
        Some(ip) => write!(to, "{}", std::net::SocketAddr::new(ip, bind.key.port))?,
    }
    let served = || bind.listeners.sorted().into_iter().map(|(_, listener)| &listener.traffic);
    let only = |is: fn(&Traffic) -> bool| served().all(is);
    let protocol = match (bind.key.transport, bind.tls) {
        (Transport::Udp, _) => "udp",
        (Transport::Tcp, true) if only(|traffic| matches!(traffic, Traffic::Http(_))) => "https",
        (Transport::Tcp, true) if only(|traffic| !matches!(traffic, Traffic::Http(_))) => "tls",
        (Transport::Tcp, true) => "https and tls",
        (Transport::Tcp, false) if bind.forwards().is_some() => "tcp",
        (Transport::Tcp, false) => "http",
    };
    write!(to, " {protocol}, sockets named {}", bind.names.join(", "))?;
    match bind.proxy_header {
        None => {}
        Some(ProxyHeader::Optional) => to.push_str(", PROXY header optional"),
        Some(ProxyHeader::Required) => to.push_str(", behind PROXY header"),
    }
    let of_listeners = bind.listeners.sorted().into_iter();
    let mut policies = of_listeners.filter_map(|(_, listener)| listener.policy.as_ref());
    let bound = policies.find_map(|policy| policy.connections).filter(|_| !bind.tls);
    if let Some(bound) = bound {
        write!(to, ", at most {} connections", bound.most)?;
    }
    to.push('\n');
    Ok(())
}

fn write_listener(to: &mut String, listener: &Listener) -> Result {
    let host = listener.hostname.as_ref().map(ToString::to_string);
    let traffic = match (&listener.traffic, &listener.tls) {
        (Traffic::Passthrough(_), _) => ", tls passed through",
        (Traffic::Forward(_), Some(_)) => ", tls ended here",
        (Traffic::Forward(_) | Traffic::Http(_), _) => "",
    };
    let clients = match &listener.clients {
        None => "",
        Some(clients) if clients.insecure_fallback => {
            ", asking clients for certificates that need not be valid"
        }
        Some(_) => ", for clients with valid certificates",
    };
    write!(to, "  listener {} {}{traffic}{clients}", listener.name, HostWords(host.as_deref()))?;
    if let Some(policy) = &listener.policy {
        write!(to, ", ClientTrafficPolicy {}", policy.name)?;
        if let Some(of) = &policy.detection {
            write!(to, ", client address {}", Detection(of))?;
        }
        for (of, changes) in [("requests", &policy.early), ("responses", &policy.late)] {
            for change in changes.iter().flat_map(|changes| changes.in_words()) {
                write!(to, ", of {of} {change}")?;
            }
        }
    }
    if let Some(tracing) = &listener.tracing {
        let TracingSettings { collector, sampling, tags } = &**tracing;
        let (numerator, denominator) = (sampling.numerator, sampling.denominator);
        let CollectorSettings { cluster, service, .. } = collector.settings();
        write!(to, ", tracing {numerator} of {denominator} as {service} to {}", cluster.name)?;
        for tag in tags {
            write!(to, ", tag {}", tag.name)?;
        }
    }
    to.write_char('\n')?;
    let Some(log) = &listener.access_log else { return Ok(()) };
    if log.settings().is_empty() {
        return to.write_str("    no access log\n");
    }
    for setting in log.settings() {
        let files: Vec<_> =
            setting.files.iter().map(|file| file.path().display().to_string()).collect();
        let only = if setting.conditions.is_empty() { "" } else { ", of what matches" };
        writeln!(to, "    access log to {}{only}", files.join(", "))?;
    }
    Ok(())
}

/// The source of the client's address.
struct Detection<'a>(&'a ClientDetection);

impl Display for Detection<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.0.source {
            AddressSource::Field { name, required } => {
                let else_403 = if *required { ", else 403" } else { "" };
                write!(f, "from {name}{else_403}")
            }
            AddressSource::Hops(count) => write!(f, "from entry {count} of x-forwarded-for"),
            AddressSource::Peer => f.write_str("of the peer"),
            AddressSource::Ranges(ranges) => {
                let ranges: Vec<_> = ranges.iter().map(ToString::to_string).collect();
                write!(f, "from x-forwarded-for of {}", ranges.join(", "))
            }
        }
    }
}

struct HostWords<'a>(Option<&'a str>);

impl Display for HostWords<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            Some(name) => write!(f, "host {name}"),
            None => f.write_str("any host"),
        }
    }
}

struct Match<'r, 'a>(&'r Row<'a>);

impl Display for Match<'_, '_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} -> {}", RowConditions(self.0), self.0.rule.name)
    }
}

/// The conditions of a row without its host.
struct RowConditions<'r, 'a>(&'r Row<'a>);

impl Display for RowConditions<'_, '_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Row { path, conditions, .. } = self.0;
        match path {
            PathMatch::Exact(path) => write!(f, "exact {path}")?,
            PathMatch::Prefix(path) => write!(f, "prefix {path}")?,
            PathMatch::Regex(regex) => write!(f, "regex {regex}")?,
        }
        let Conditions { method, grpc, headers, query } = conditions;
        if *grpc {
            f.write_str(" grpc")?;
        }
        if let Some(method) = method {
            write!(f, " method {method}")?;
        }
        for header in headers {
            match is_secret_header(header.name.as_str()) {
                true => write!(f, " header {}=[redacted]", header.name)?,
                false => write!(f, " header {}{}", header.name, MatchValue(&header.value))?,
            }
        }
        for param in query {
            write!(f, " query {}{}", param.name, MatchValue(&param.value))?;
        }
        Ok(())
    }
}

struct MatchValue<'a>(&'a ValueMatch);

impl Display for MatchValue<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            ValueMatch::Exact(value) => write!(f, "={value:?}"),
            ValueMatch::Regex(regex) => write!(f, "~{regex}"),
        }
    }
}

fn write_rule(to: &mut String, rule: &Rule) -> Result {
    writeln!(to, "rule {}", rule.name)?;
    for filter in &rule.filters {
        write_filter(to, "  ", filter)?;
    }
    if let Some(overrides) = &rule.overrides {
        for line in overrides.to_string().lines() {
            writeln!(to, "  {line}")?;
        }
    }
    for mirror in &rule.mirrors {
        let (numerator, denominator) = (mirror.numerator, mirror.denominator);
        writeln!(to, "  copy {numerator} of {denominator} to {}", ClusterWords(&mirror.cluster))?;
    }
    let answers = rule.filters.iter().any(|filter| filter.phase() == Phase::Answer);
    match &rule.backends {
        Some(backends) => write_backends(to, backends)?,
        None if answers => {}
        None => to.push_str("  no backend: 500\n"),
    }
    let Timeouts { request, backend_request, stream_idle, stream } = rule.timeouts;
    let stream = stream.map_or(Limit::Unset, Limit::After);
    let limits = [
        ("request", request),
        ("backend request", backend_request),
        ("idle", stream_idle),
        ("stream", stream),
    ];
    for (name, limit) in limits {
        match limit {
            Limit::Unset => {}
            Limit::Off => writeln!(to, "  {name} timeout off")?,
            Limit::After(limit) => writeln!(to, "  {name} timeout {limit:?}")?,
        }
    }
    if let Some(session) = &rule.session {
        let Session { carrier, absolute_timeout, choices, .. } = &**session;
        match carrier {
            Carrier::Cookie { name, permanent: true } => write!(to, "  permanent cookie {name}")?,
            Carrier::Cookie { name, .. } => write!(to, "  cookie {name}")?,
            Carrier::Header(name) => write!(to, "  header {name}")?,
        }
        write!(to, " keeps to an endpoint of {}", choices.len())?;
        match absolute_timeout {
            Some(timeout) => writeln!(to, ", for {timeout:?}")?,
            None => to.push('\n'),
        }
    }
    if let Some(balancing) = &rule.balancing {
        writeln!(to, "  balanced by {balancing}")?;
    }
    if let Some(retry) = &rule.retry {
        write_retry(to, retry)?;
    }
    Ok(())
}

/// The number of successive statuses that are listed one by one.
const MOST_CODES: usize = 10;

fn write_retry(to: &mut String, retry: &Retry) -> Result {
    let Retry { failures, codes, attempts, backoff, grpc, tries_per_priority, .. } = retry;
    let mut causes = Vec::new();
    match failures {
        RetriedFailures::All => causes.push("a connection that fails".to_owned()),
        RetriedFailures::Connecting => causes.push("a connection that cannot be opened".to_owned()),
        RetriedFailures::None => {}
    }
    for run in codes.chunk_by(|one, next| one.as_u16() + 1 == next.as_u16()) {
        match run {
            [first, .., last] if run.len() > MOST_CODES => {
                causes.push(format!("{} to {}", first.as_u16(), last.as_u16()));
            }
            _ => causes.extend(run.iter().map(|code| code.as_u16().to_string())),
        }
    }
    causes.extend(grpc.iter().map(|status| format!("gRPC status {status}")));
    write!(to, "  up to {attempts} retries, after {backoff:?}, on {}", causes.join(", "))?;
    match tries_per_priority {
        Some(tries) => writeln!(to, ", {tries} at each priority"),
        None => writeln!(to),
    }
}

fn write_backends(to: &mut String, backends: &WeightedClusters) -> Result {
    for (place, priority) in backends.priorities().enumerate() {
        let word = if place == 0 { "" } else { "fallback " };
        for (weight, choice) in priority.own() {
            match choice {
                Choice::Invalid => writeln!(to, "  {word}weight {weight} to nothing: 500")?,
                Choice::Cluster { cluster, filters } => {
                    writeln!(to, "  {word}weight {weight} to {}", ClusterWords(cluster))?;
                    for filter in filters {
                        write_filter(to, "    ", filter)?;
                    }
                }
            }
        }
    }
    Ok(())
}

struct ClusterWords<'a>(&'a Cluster);

impl Display for ClusterWords<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let settings = self.0.settings();
        let protocol = match (settings.protocol, &settings.tls) {
            (Protocol::Http1, _) => "http/1.1",
            (Protocol::H2c, None) => "h2c",
            (Protocol::H2c, Some(_)) => "h2",
            (Protocol::H2cOrUpgrade, None) => "h2c, websocket by http/1.1",
            (Protocol::H2cOrUpgrade, Some(_)) => "h2, websocket by http/1.1",
        };
        write!(f, "{} by {protocol}", settings.name)?;
        write_endpoints(f, settings)?;
        if let Some(requests) = settings.requests {
            write_breaker(f, settings.bounds, requests)?;
        }
        let LifetimeLimits { age, requests } = settings.lifetime;
        if let Some(age) = age {
            write!(f, "; connections last {age:?}")?;
        }
        if let Some(requests) = requests {
            write!(f, "; connections serve {requests} requests")?;
        }
        if let Some(HoldSettings { patience, most }) = settings.hold {
            write!(f, "; while it restarts, up to {most} requests wait for {patience:?}")?;
        }
        Ok(())
    }
}

/// A cluster without its protocol.
struct Endpoints<'a>(&'a Cluster);

impl Display for Endpoints<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let settings = self.0.settings();
        write!(f, "{}", settings.name)?;
        write_endpoints(f, settings)
    }
}

/// Writes the TLS settings and endpoints, which follow the name.
fn write_endpoints(f: &mut Formatter<'_>, settings: &ClusterSettings) -> Result {
    if let Some(tls) = &settings.tls {
        write!(f, "{}", Tls(tls))?;
    }
    let BalancePolicy { kind, slow_start } = settings.policy;
    match kind {
        BalanceKind::ConsistentHash { table_size } => write!(f, ", consistent hash {table_size}")?,
        BalanceKind::LeastRequest => f.write_str(", least request")?,
        BalanceKind::Random => f.write_str(", random")?,
        BalanceKind::RoundRobin => {}
    }
    if !slow_start.is_zero() {
        write!(f, ", slow start {slow_start:?}")?;
    }
    if let Some(check) = settings.health.as_ref().and_then(|health| health.active.as_ref()) {
        write!(f, ", checked by {check}")?;
    }
    match settings.proxy_protocol {
        None => {}
        Some(proxy_protocol::Version::V1) => f.write_str(" with PROXY header v1")?,
        Some(proxy_protocol::Version::V2) => f.write_str(" with PROXY header v2")?,
    }
    f.write_str(":")?;
    if settings.endpoints.is_empty() {
        return f.write_str(" no endpoint");
    }
    for endpoint in &settings.endpoints {
        match endpoint {
            EndpointSettings::Address(address) => write!(f, " {address}")?,
            EndpointSettings::Name { host, port } => write!(f, " {host}:{port}")?,
            EndpointSettings::Unix(path) => write!(f, " unix:{}", path.display())?,
        }
    }
    Ok(())
}

/// Writes the circuit breaker that a policy sets.
fn write_breaker(f: &mut Formatter<'_>, bounds: Bounds, of: RequestBounds) -> Result {
    let (connections, pending, requests) = (bounds.connections, bounds.pending, of.requests);
    write!(
        f,
        "; at most {connections} connections, {pending} waiting and {requests} parallel requests, "
    )?;
    match of.retries {
        RetryBound::Number(number) => write!(f, "{number} retries"),
        RetryBound::Share { numerator, denominator, at_least } => {
            write!(f, "{numerator} of {denominator} requests as retries and at least {at_least}")
        }
    }
}

struct Tls<'a>(&'a ClientSettings);

impl Display for Tls<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let ClientSettings { authorities, server_name, names, identity } = self.0;
        f.write_str(" over tls")?;
        if let Some(name) = server_name {
            write!(f, " to {}", name.to_str())?;
        }
        match authorities {
            None => f.write_str(", verified by nobody")?,
            Some(authorities) if authorities.count() == 1 => f.write_str(", verified by 1 ca")?,
            Some(authorities) => write!(f, ", verified by {} cas", authorities.count())?,
        }
        for (place, name) in names.iter().enumerate() {
            f.write_str(if place == 0 { " as " } else { " or " })?;
            match name {
                AltName::Host(host) => f.write_str(&host.to_str())?,
                AltName::Uri(uri) => f.write_str(uri)?,
                AltName::Wildcard(suffix) => write!(f, "*.{suffix}")?,
            }
        }
        if let Some(identity) = identity {
            write!(f, ", showing {}", identity.object())?;
        }
        Ok(())
    }
}

fn write_filter(to: &mut String, indent: &str, filter: &Filter) -> Result {
    filter.to_string().lines().try_for_each(|line| writeln!(to, "{indent}{line}"))
}
