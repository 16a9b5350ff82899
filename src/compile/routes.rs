//! Rules of routes, from their written form to rules that run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::api::{
    self, BackendRef, CookieLifetime, GrpcRouteRule, HttpRouteRule, PlainBackendRef,
    SessionPersistence, SessionPersistenceType,
};
use crate::config::{Fault, FieldPath, field_path};
use crate::filters::{Filter, HttpFilter, PathMatch};
use crate::graph::{
    BackendTarget, FilterRefs, Gateway, Graph, Guard, Listener, ListenerPolicies, ListenerPolicy,
    NamedCertificate, Route, RouteObject, RuleRefs, SecurityPolicies, TrafficEffect,
    TrafficPolicies,
};
use crate::snapshot::{
    Carrier, Choice, Conditions, Forward, Mirror, Retry, Rule, Session, Timeouts, Transport,
};
use crate::stable_hash::hash_32;
use crate::stats::{Sharded, Upstream};

use super::balancing::RuleBackend;
use super::clusters::{Carries, Clusters};
use super::connection::ConnectionSettings;
use super::filters::{self, Step};
use super::health::HealthChecks;
use super::misfit::Misfit;
use super::{attempts, balancing, matches, never};

/// A compiled route.
#[derive(Debug, Default)]
pub(super) struct CompiledRoute {
    /// The matches and their rules, in the order in which they are written.
    pub rows: Vec<(PathMatch, Conditions, Arc<Rule>)>,
    /// The destination of all traffic, for a route that is not an HTTP route.
    pub forward: Option<Arc<Forward>>,
    /// The destination of traffic that a listener has decrypted, if a backend uses TLS.
    pub decrypted: Option<Arc<Forward>>,
    /// Faults of values that cannot run, except those that break a rule of the kind.
    pub faults: Vec<Fault>,
    /// The indices of rules that cannot run. Their rows are in `rows` and answer 500.
    stopped: BTreeSet<usize>,
}

/// All routes, each once for each variant that its listeners need.
#[derive(Debug)]
pub(super) struct CompiledRoutes<'g>(Vec<Vec<(Variant<'g>, CompiledRoute)>>);

/// The properties by which the rules of a route differ from one listener to another.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Variant<'g> {
    /// The client certificate of the Gateway for backends that use TLS.
    client: Option<&'g NamedCertificate>,
    /// The SecurityPolicy of the listener.
    security: ListenerPolicy,
    /// The BackendTrafficPolicies of the listener.
    traffic: ListenerPolicies,
}

/// The policies of a load.
#[derive(Clone, Copy)]
struct Policies<'g> {
    security: &'g SecurityPolicies<'g>,
    traffic: &'g TrafficPolicies<'g>,
}

impl<'g> Policies<'g> {
    fn of(graph: &'g Graph<'_>) -> Self {
        Self { security: &graph.security, traffic: &graph.traffic }
    }
}

impl<'g> Variant<'g> {
    fn of(
        route: &Route<'_>,
        gateway: &'g Gateway<'_>,
        listener: &Listener<'_>,
        policies: Policies<'_>,
    ) -> Self {
        let client = gateway.client_certificate.as_ref().filter(|_| route.is_encrypted());
        let Policies { security, traffic } = policies;
        let (security, traffic) =
            (security.on_listener(listener), traffic.all_on_listener(listener));
        Self { client, security, traffic }
    }
}

impl<'g> CompiledRoutes<'g> {
    /// Compiles all routes. Fields that have no effect yet are reported in `warnings`.
    pub(super) fn new(
        graph: &'g Graph<'_>,
        clusters: &mut Clusters<'_>,
        trusts_proxies: bool,
        warnings: &mut Vec<Fault>,
    ) -> Self {
        let variants = variants(graph);
        let compiled = graph.routes.iter().zip(variants).map(|(of, mut variants)| {
            let first = variants.pop().unwrap_or_default();
            let policies = Policies::of(graph);
            let compiled = route(of, policies, clusters, first, trusts_proxies, warnings);
            let mut all = vec![(first, compiled)];
            all.extend(variants.into_iter().map(|variant| {
                // The first variant has reported every fault.
                let compiled =
                    route(of, policies, clusters, variant, trusts_proxies, &mut Vec::new());
                (variant, compiled)
            }));
            all
        });
        Self(compiled.collect())
    }

    /// Returns a route as it runs on a listener of `gateway`, `None` if it is not attached there.
    pub(super) fn on(
        &self,
        graph: &Graph<'g>,
        route: usize,
        gateway: &Gateway<'_>,
        listener: &Listener<'_>,
    ) -> Option<&CompiledRoute> {
        let policies = Policies::of(graph);
        let wanted = Variant::of(&graph.routes[route], gateway, listener, policies);
        self.0[route].iter().find(|(variant, _)| *variant == wanted).map(|(_, route)| route)
    }

    /// Returns all compiled routes in all variants.
    pub(super) fn iter(&self) -> impl Iterator<Item = &CompiledRoute> {
        self.0.iter().flatten().map(|(_, route)| route)
    }

    /// Returns the faults of each route.
    pub(super) fn into_faults(self) -> Vec<Vec<Fault>> {
        let first = |mut all: Vec<(_, CompiledRoute)>| all.swap_remove(0).1.faults;
        self.0.into_iter().map(first).collect()
    }
}

/// Returns the variants of each route that its listeners need, each once.
fn variants<'g>(graph: &'g Graph<'_>) -> Vec<Vec<Variant<'g>>> {
    let mut variants: Vec<Vec<Variant<'_>>> = vec![Vec::new(); graph.routes.len()];
    let own = graph.gateways.iter().map(|gateway| (gateway, &gateway.listeners));
    let sets = graph.listener_sets.iter();
    let added = sets.map(|set| (&graph.gateways[set.gateway], &set.listeners));
    for (gateway, listeners) in own.chain(added) {
        for listener in listeners {
            for on in &listener.routes {
                let variant =
                    Variant::of(&graph.routes[on.route], gateway, listener, Policies::of(graph));
                let known = &mut variants[on.route];
                if !known.contains(&variant) {
                    known.push(variant);
                }
            }
        }
    }
    variants
}

/// Compiles the rules of a route. Fields that have no effect yet are reported in `warnings`.
///
/// A rule that cannot run as written answers 500 for the requests that it matches. If it were left
/// out, its requests would match a broader rule and so bypass its purpose.
fn route(
    route: &Route<'_>,
    policies: Policies<'_>,
    clusters: &mut Clusters<'_>,
    variant: Variant<'_>,
    trusts_proxies: bool,
    warnings: &mut Vec<Fault>,
) -> CompiledRoute {
    let (into, connection) = (CompiledRoute::default(), ConnectionSettings::default());
    let mut compiler = Compiler {
        route,
        policies,
        connection,
        health: None,
        clusters,
        variant,
        trusts_proxies,
        warnings,
        into,
    };
    compiler.not_yet("spec.useDefaultGateways", route.object.uses_default_gateways());
    match route.object {
        RouteObject::Http(object) => {
            match &object.spec.rules {
                // The CRD's default: one rule that matches everything and has no backend.
                None => compiler.http(0, &HttpRouteRule::default(), &RuleRefs::default()),
                Some(rules) => {
                    for (number, (rule, refs)) in rules.iter().zip(&route.rules).enumerate() {
                        compiler.http(number, rule, refs);
                    }
                }
            }
        }
        RouteObject::Grpc(object) => {
            for (number, (rule, refs)) in object.spec.rules.iter().zip(&route.rules).enumerate() {
                compiler.grpc(number, rule, refs);
            }
        }
        RouteObject::Tcp(_) | RouteObject::Tls(_) | RouteObject::Udp(_) => {
            let rule = route.object.plain_rules().and_then(|rules| rules.first().copied());
            let forward = compiler.forward(rule, compiler.carries());
            compiler.into.forward = Some(forward);
            if matches!(route.object, RouteObject::Tls(_)) && route.is_encrypted() {
                let mut none = Vec::new();
                let mut again = Compiler { warnings: &mut none, ..compiler };
                again.into.decrypted = Some(again.forward(rule, Carries::Decrypted));
                return again.into;
            }
        }
    }
    compiler.into
}

/// The parts that the rules of all route kinds have in common; `F` is the type of the filters.
struct RuleParts<'r, F> {
    rows: Vec<Result<(PathMatch, Conditions), Misfit>>,
    filters: &'r [F],
    backend_refs: &'r [BackendRef<F>],
    compile: fn(&F) -> Result<Step, Misfit>,
    timeouts: Timeouts,
    retry: Option<Retry>,
    /// Scope, carrier and timeout.
    session: Option<(Box<str>, Carrier, Option<Duration>)>,
}

struct Compiler<'c, 'n> {
    route: &'c Route<'c>,
    policies: Policies<'c>,
    /// The settings of connections for the rule that is compiled.
    connection: ConnectionSettings,
    /// The health checks of its backends.
    health: Option<HealthChecks>,
    clusters: &'c mut Clusters<'n>,
    variant: Variant<'c>,
    trusts_proxies: bool,
    warnings: &'c mut Vec<Fault>,
    into: CompiledRoute,
}

impl<'c> Compiler<'c, '_> {
    fn http(&mut self, number: usize, rule: &HttpRouteRule, refs: &RuleRefs<'_>) {
        let mut rows: Vec<_> = rule.matches.iter().map(matches::http).collect();
        if rows.is_empty() {
            rows.push(Ok((matches::everything(), Conditions::default())));
        }
        for (place, of) in rule.matches.iter().enumerate() {
            if let Some(why) = of.method.as_ref().and_then(never::method) {
                self.warn(field_path!(spec.rules[number].matches[place].method), why);
            }
            let headers = of.headers.iter().map(|of| (of.kind(), &*of.name, &*of.value));
            self.warn_of_headers(number, place, headers);
        }
        let session = rule.session_persistence.as_deref();
        let session = session.and_then(|raw| self.session(number, rule.name.as_deref(), raw));
        let written = RuleParts {
            rows,
            filters: &rule.filters,
            backend_refs: &rule.backend_refs,
            compile: filters::http,
            timeouts: attempts::timeouts(rule.timeouts.unwrap_or_default()),
            retry: rule.retry.as_deref().map(attempts::retry),
            session,
        };
        self.rule(number, written, refs);
    }

    fn grpc(&mut self, number: usize, rule: &GrpcRouteRule, refs: &RuleRefs<'_>) {
        let mut rows: Vec<_> = rule.matches.iter().map(matches::grpc).collect();
        if rows.is_empty() {
            let conditions = Conditions { grpc: true, ..Conditions::default() };
            rows.push(Ok((matches::everything(), conditions)));
        }
        for (place, of) in rule.matches.iter().enumerate() {
            let headers = of.headers.iter().map(|of| (of.kind(), &*of.name, &*of.value));
            self.warn_of_headers(number, place, headers);
        }
        let session = rule.session_persistence.as_deref();
        let session = session.and_then(|raw| self.session(number, rule.name.as_deref(), raw));
        let written = RuleParts {
            rows,
            filters: &rule.filters,
            backend_refs: &rule.backend_refs,
            compile: filters::grpc,
            timeouts: Timeouts::default(),
            retry: None,
            session,
        };
        self.rule(number, written, refs);
    }

    /// Warns of header matches that no request meets; the requests match another rule, or none.
    fn warn_of_headers<'h>(
        &mut self,
        rule: usize,
        place: usize,
        headers: impl Iterator<Item = (&'h api::MatchType, &'h str, &'h str)>,
    ) {
        for (number, (kind, name, value)) in headers.enumerate() {
            if let Some(why) = never::header(kind, name, value, self.trusts_proxies) {
                self.warn(field_path!(spec.rules[rule].matches[place].headers[number]), why);
            }
        }
    }

    /// Reports a rule that has backends, all of weight 0.
    fn judge_weights(&mut self, rule: usize, weights: impl Iterator<Item = u32>, effect: &str) {
        let mut weights = weights.peekable();
        if weights.peek().is_some() && weights.all(|weight| weight == 0) {
            let problem = format!("every backend of this rule has weight 0: {effect}");
            // An error, since traffic is refused, although the specification has no condition for
            // it.
            let field = field_path!(spec.rules[rule].backendRefs);
            self.warnings.push(Fault::error(self.route.key.clone(), field, problem));
        }
    }

    /// Compiles the one rule of a route that is not an HTTP route.
    fn forward(&mut self, written: Option<&[PlainBackendRef]>, carries: Carries) -> Arc<Forward> {
        let refs = self.route.rules.first().map_or(&[][..], |rule| &rule.backends);
        let policies = self.policies.traffic.each_on_route(self.route, self.variant.traffic);
        let specs: Vec<_> = policies.filter_map(TrafficEffect::policy).map(|of| of.spec).collect();
        self.connection = ConnectionSettings::of(&specs);
        self.health = HealthChecks::of(&specs, self.hostname());
        let load_balancer = specs.iter().find_map(|spec| spec.load_balancer.as_ref());
        let (refused, authorization) = match self.guard(0) {
            None => (false, None),
            Some(Guard::Refused) => (true, None),
            Some(Guard::Policy(policy)) => match filters::authorization(&policy).transpose() {
                Ok(authorization) => (false, authorization),
                Err(_) => (true, None),
            },
        };
        let written = written.filter(|_| !refused && !self.route.breaks_rules(0));
        let written = written.unwrap_or_default();
        let effect = match carries {
            Carries::Datagrams => "its datagrams are dropped",
            _ => "its connections are closed",
        };
        self.judge_weights(0, written.iter().map(PlainBackendRef::weight), effect);
        let mut choices = Vec::with_capacity(written.len());
        for (raw, target) in written.iter().zip(refs) {
            let choice = match target {
                Ok(target) => self.choice(target, carries, Box::default()),
                Err(_) => Choice::Invalid,
            };
            choices.push(RuleBackend {
                weight: raw.weight(),
                choice,
                fallback: balancing::is_fallback(target),
            });
        }
        let transport = match carries {
            Carries::Datagrams => Transport::Udp,
            _ => Transport::Tcp,
        };
        let (name, backends) = (self.name(0), balancing::by_priority(&choices));
        let counts = self.clusters.counts(&name);
        let hashes_clients = load_balancer.is_some_and(balancing::hashes_clients);
        Arc::new(Forward { name, transport, authorization, backends, hashes_clients, counts })
    }

    fn rule<F>(&mut self, number: usize, mut written: RuleParts<'_, F>, refs: &RuleRefs<'_>) {
        let traffic = self.traffic(number);
        let policy = traffic.and_then(TrafficEffect::policy);
        let specs = policy.as_ref().map(|policy| policy.spec);
        self.connection = ConnectionSettings::of(specs.as_slice());
        self.health = HealthChecks::of(specs.as_slice(), self.hostname());
        if let Some(policy) = policy {
            written.timeouts = attempts::timeouts_with(written.timeouts, policy.spec);
            written.retry = written.retry.or_else(|| attempts::retry_of_policy(policy.spec));
            if let Some(retry) = &mut written.retry {
                retry.buffer = attempts::buffer(policy.spec);
            }
        }
        let mut rows = Vec::with_capacity(written.rows.len());
        for (place, row) in written.rows.into_iter().enumerate() {
            match row {
                Ok(row) => rows.push(row),
                Err(misfit) => self.misfit(number, field_path!(matches[place]), misfit),
            }
        }
        let (mut run, mut mirrors) = (Vec::new(), Vec::new());
        for (place, filter) in written.filters.iter().enumerate() {
            let refs = refs.filters.get(place);
            let steps = steps(filter, written.compile, refs).unwrap_or_else(|misfit| {
                self.misfit(number, field_path!(filters[place]), misfit);
                Vec::new()
            });
            for step in steps {
                match step {
                    Step::Run(filter) => run.push(filter),
                    Step::Mirror { numerator, denominator } => {
                        // A mirror without a valid backend is left out (HTTPRoute `requestMirror`).
                        if let Some(FilterRefs::Mirror(Ok(target))) = refs
                            && let Some(cluster) = self.cluster(target, self.carries())
                        {
                            mirrors.push(Mirror { cluster, numerator, denominator });
                        }
                    }
                }
            }
        }
        let choices = self.choices(number, written.backend_refs, written.compile, refs);
        if !run.iter().any(|filter| matches!(filter, Filter::DirectResponse(_))) {
            let weights = written.backend_refs.iter().map(BackendRef::weight);
            self.judge_weights(number, weights, "its requests get 500");
        }

        let overrides = policy.as_ref().map(|of| filters::response_overrides(of, self.warnings));
        let overrides = overrides.unwrap_or(Ok(None)).unwrap_or_else(|broken| {
            run.push(Filter::Broken(broken));
            None
        });
        let guard = self.guard(number);
        if let Some(Guard::Policy(policy)) = guard {
            run.extend(filters::of_policy(&policy, &run));
        }
        let name = self.name(number);
        if let Some(policy) = &policy {
            run.extend(self.clusters.rate_limit(policy, &name));
            run.extend(self.clusters.traffic_filters(policy));
        }
        let cors = run.iter().any(|filter| matches!(filter, Filter::Cors(_)));
        if cors {
            let preflights: Vec<_> = rows
                .iter()
                .flat_map(|(path, of)| {
                    matches::preflights(of).into_iter().map(|asked| (path.clone(), asked))
                })
                .collect();
            rows.extend(preflights);
        }
        let is_broken = guard == Some(Guard::Refused)
            || traffic == Some(TrafficEffect::Refused)
            || self.route.breaks_rules(number)
            || self.into.stopped.contains(&number)
            // A broken filter refuses everything: no request may be answered as if the filter were
            // absent.
            || run.iter().any(|filter| matches!(filter, Filter::Broken(_)));
        run.sort_by_key(HttpFilter::phase);
        let counts = self.clusters.counts(&name);
        let grpc = self.carries() == Carries::Grpc;
        let rule = if is_broken {
            Rule { grpc, ..refusing(name, counts) }
        } else {
            let sees_bodies = run.iter().any(HttpFilter::sees_bodies);
            let reads_requests = run.iter().any(HttpFilter::reads_requests);
            let (filters, mirrors) = (run.into(), mirrors.into());
            let RuleParts { timeouts, retry, .. } = written;
            let backends = balancing::by_priority(&choices);
            let session = written.session.map(|(scope, carrier, absolute_timeout)| {
                let choices = choices.into_iter().map(|backend| backend.choice).collect();
                Box::new(Session { scope, carrier, absolute_timeout, choices })
            });
            let balancing = policy.as_ref().and_then(balancing::of_policy);
            Rule {
                name,
                grpc,
                filters,
                sees_bodies,
                reads_requests,
                mirrors,
                backends,
                timeouts,
                retry,
                session,
                balancing,
                overrides,
                counts,
            }
        };
        let rule = Arc::new(rule);
        let rows = rows.into_iter().map(|(path, of)| (path, of, Arc::clone(&rule)));
        self.into.rows.extend(rows);
    }

    /// Returns the backends of a rule, including those of weight 0.
    fn choices<F>(
        &mut self,
        number: usize,
        written: &[BackendRef<F>],
        compile: fn(&F) -> Result<Step, Misfit>,
        refs: &RuleRefs<'_>,
    ) -> Vec<RuleBackend> {
        let mut choices = Vec::with_capacity(written.len());
        for (place, raw) in written.iter().enumerate() {
            let mut run = Vec::with_capacity(raw.filters.len());
            for (of, filter) in raw.filters.iter().enumerate() {
                let refs = refs.backend_filters.get(place).and_then(|refs| refs.get(of));
                let filters = steps(filter, compile, refs);
                match filters.and_then(|steps| {
                    steps.into_iter().map(filters::on_backend).collect::<Result<Vec<_>, _>>()
                }) {
                    Ok(filters) => run.extend(filters),
                    Err(misfit) => {
                        let field = field_path!(backendRefs[place].filters[of]);
                        self.misfit(number, field, misfit);
                    }
                }
            }
            run.sort_by_key(HttpFilter::phase);
            if run.iter().any(|filter| matches!(filter, Filter::Broken(_))) {
                run = vec![filters::broken()];
            }
            let target = refs.backends.get(place);
            let choice = match target {
                Some(Ok(target)) => self.choice(target, self.carries(), run.into()),
                Some(Err(_)) | None => Choice::Invalid,
            };
            let fallback = target.is_some_and(balancing::is_fallback);
            choices.push(RuleBackend { weight: raw.weight(), choice, fallback });
        }
        choices
    }

    /// Returns the scope of sessions, their carrier, and their timeout (GEP-1619).
    fn session(
        &mut self,
        number: usize,
        rule: Option<&str>,
        raw: &SessionPersistence,
    ) -> Option<(Box<str>, Carrier, Option<Duration>)> {
        let of = self.name(number);
        // A named rule keeps its sessions when it is moved within the route.
        let scope = match (rule, of.rsplit_once('/')) {
            (Some(name), Some((before, _))) => format!("{before}/{name}"),
            _ => of.to_string(),
        };
        let name = raw.session_name.clone().filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| format!("edge-session-{:08x}", hash_32(&scope)));
        let field = || field_path!(sessionPersistence.sessionName);
        let header = HeaderName::try_from(&*name).ok();
        let carrier = match raw.kind() {
            // The name of a cookie is a token, like that of a header (RFC 6265 section 4.1.1).
            SessionPersistenceType::Cookie if header.is_some() => {
                let lifetime = raw.cookie_config.as_ref().and_then(|of| of.lifetime_type.as_ref());
                let permanent = lifetime == Some(&CookieLifetime::Permanent);
                Carrier::Cookie { name: name.into(), permanent }
            }
            SessionPersistenceType::Header if filters::changeable(&name, field).is_ok() => {
                if let Some(why) = never::field_name(&name.to_ascii_lowercase()) {
                    let problem = format!("no session is ever recognised: {why}");
                    self.warn(field_path!(spec.rules[number]).join(field()), problem);
                }
                Carrier::Header(header?)
            }
            // It breaks a rule of the kind.
            SessionPersistenceType::Unknown(_) => return None,
            SessionPersistenceType::Cookie => {
                let problem =
                    format!("`{name}` is not the name of a cookie; use letters and digits");
                self.fault(number, field(), problem);
                return None;
            }
            SessionPersistenceType::Header => {
                let problem = format!(
                    "`{name}` is not a header that a session can have; write it like `X-Session`"
                );
                self.fault(number, field(), problem);
                return None;
            }
        };
        // `0s` would end every session with its first request.
        let timeout = raw.absolute_timeout.map(api::Duration::get).filter(|limit| !limit.is_zero());
        Some((scope.into(), carrier, timeout))
    }

    /// Returns the destination of a share of the traffic: the backend, or [`Choice::Invalid`] if it
    /// cannot be used.
    fn choice(
        &mut self,
        target: &BackendTarget<'_>,
        carries: Carries,
        filters: Box<[Filter]>,
    ) -> Choice {
        match self.cluster(target, carries) {
            Some(cluster) => Choice::Cluster { cluster, filters },
            None => Choice::Invalid,
        }
    }

    fn cluster(
        &mut self,
        target: &BackendTarget<'_>,
        carries: Carries,
    ) -> Option<Arc<crate::upstream::Cluster>> {
        let health = self.health.as_ref();
        self.clusters.get(target, carries, self.variant.client, self.connection, health)
    }

    /// Returns the first hostname of the route that is not a wildcard.
    fn hostname(&self) -> Option<&'c str> {
        let hostnames = self.route.object.hostnames().iter().map(String::as_str);
        hostnames.into_iter().find(|name| !name.starts_with('*'))
    }

    fn carries(&self) -> Carries {
        match self.route.object {
            RouteObject::Grpc(_) => Carries::Grpc,
            RouteObject::Http(_) => Carries::Http,
            RouteObject::Tcp(_) | RouteObject::Tls(_) => Carries::Bytes,
            RouteObject::Udp(_) => Carries::Datagrams,
        }
    }

    /// Returns the effect of SecurityPolicies on a rule.
    fn guard(&self, rule: usize) -> Option<Guard<'_>> {
        self.policies.security.on_rule(self.route, rule, self.variant.security)
    }

    /// Returns the effect of BackendTrafficPolicies on a rule.
    fn traffic(&self, rule: usize) -> Option<TrafficEffect<'c>> {
        let of_listener = self.variant.traffic.nearest();
        self.policies.traffic.on_rule(self.route, rule, of_listener)
    }

    /// Returns Envoy Gateway's name of the rule, so that existing dashboards keep working.
    fn name(&self, number: usize) -> Arc<str> {
        let kind = match self.route.object {
            RouteObject::Grpc(_) => "grpcroute",
            RouteObject::Http(_) => "httproute",
            RouteObject::Tcp(_) => "tcproute",
            RouteObject::Tls(_) => "tlsroute",
            RouteObject::Udp(_) => "udproute",
        };
        let key = &self.route.key;
        format!("{kind}/{}/{}/rule/{number}", key.namespace, key.name).into()
    }

    /// Stops a rule because of the match or filter at `at`, a path below the rule.
    fn misfit(&mut self, rule: usize, at: FieldPath, misfit: Misfit) {
        match misfit {
            // The rule is already refused; this makes sure of it.
            Misfit::Reported => drop(self.into.stopped.insert(rule)),
            Misfit::Unusable { field, problem } => self.fault(rule, at.join(field), problem),
        }
    }

    /// Reports a fault that stops a rule; `field` is a path below the rule.
    fn fault(&mut self, rule: usize, field: FieldPath, problem: String) {
        let field = field_path!(spec.rules[rule]).join(field);
        self.into.faults.push(Fault::error(self.route.key.clone(), field, problem));
        self.into.stopped.insert(rule);
    }

    fn not_yet(&mut self, field: &str, is_written: bool) {
        if is_written {
            self.warn(field.into(), "not supported yet; this changes nothing");
        }
    }

    fn warn(&mut self, field: FieldPath, problem: impl Into<String>) {
        self.warnings.push(Fault::warning(self.route.key.clone(), field, problem));
    }
}

/// The steps that one entry of `filters` comes to.
fn steps<F>(
    written: &F,
    compile: fn(&F) -> Result<Step, Misfit>,
    refs: Option<&FilterRefs<'_>>,
) -> Result<Vec<Step>, Misfit> {
    match refs {
        Some(FilterRefs::Extension(found)) => {
            Ok(filters::extension(found)?.into_iter().map(Step::Run).collect())
        }
        _ => Ok(vec![compile(written)?]),
    }
}

/// Returns a rule that answers every request with 500.
pub(super) fn refusing(name: Arc<str>, counts: Arc<Sharded<Upstream>>) -> Rule {
    Rule {
        name,
        grpc: false,
        filters: [filters::broken()].into(),
        sees_bodies: false,
        reads_requests: false,
        mirrors: Box::default(),
        backends: None,
        timeouts: Timeouts::default(),
        retry: None,
        counts,
        session: None,
        balancing: None,
        overrides: None,
    }
}
