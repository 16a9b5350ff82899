//! From meaning to what runs: objects and the running snapshot in, the next snapshot, conditions
//! and diagnostics out.
//!
//! [`compile`] has the graph built and turns what it found into binds, route tables, rules and
//! clusters, each made by the constructor of the thing itself; there are no types in between. It
//! opens no socket and publishes nothing. Certificates are read and log files are opened, by the
//! store and the set of files that are handed in.
//!
//! Nothing fails here: a rule that cannot run answers 500 and says so in the conditions of its
//! route, a listener that cannot be served is left out, and everything else is served.

mod binds;
mod clusters;
mod coverage;
mod describe;
mod encryption;
mod filters;
#[cfg(test)]
mod goldens;
mod logs;
mod matches;
mod never;
mod path_pattern;
mod routes;
mod tracing;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::api::{Object, ObjectKey};
use crate::config::{Diagnostic, Environment, Loaded, Located, Origin, Settings, Severity};
use crate::graph::{self, Facts, Fault, Graph, Held, RuleFault, Statuses};
use crate::net::AddressPool;
use crate::observe::LogFiles;
use crate::snapshot::{BindKey, Counts, Snapshot};
use crate::tls::{CertStore, Peer, Tickets};
use crate::upstream::Upstreams;

use binds::{Parts, Slots};
use clusters::Clusters;
use encryption::{Trust, is_server_name};
use logs::Logs;
use routes::CompiledRoutes;
use tracing::Tracings;

pub(crate) use describe::{
    describe, describe_backend, describe_conditions, describe_filter, describe_match, describe_rule,
};
pub(crate) use filters::is_secret;
#[cfg(test)]
pub(crate) use never::{REDUCED, REMOVED};

/// What a compilation needs beside the objects.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// The snapshot that runs: what is unchanged of it lives on, and the next one counts from it.
    pub previous: &'a Snapshot,
    /// `controller_name` and `enable_backend` of it.
    pub settings: &'a Settings,
    /// What variables are set to.
    pub environment: Environment<'a>,
    /// `${DOMAIN}`, if it is set.
    pub domain: Option<&'a str>,
    pub certificates: &'a CertStore,
    pub tickets: &'a Tickets,
    pub upstreams: &'a Upstreams,
    /// Why an address of `Gateway.spec.addresses` cannot be listened on, `None` if it can.
    pub unusable_address: &'a dyn Fn(IpAddr) -> Option<String>,
    /// Why a bind cannot be had, `None` if nothing speaks against it.
    pub unusable_bind: &'a dyn Fn(BindKey) -> Option<String>,
    /// Gateways that name no address get one of these; `None` gives them all of the host.
    pub pool: Option<&'a AddressPool>,
    /// Who held which address of the pool before.
    pub held: &'a Held,
    /// Where access logs of Gateways go.
    pub log_files: &'a LogFiles,
    /// Some peers may say who the client is (`--trusted-proxies`).
    pub trusts_proxies: bool,
}

impl std::fmt::Debug for Inputs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inputs")
            .field("generation", &self.previous.generation)
            .field("settings", &self.settings)
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

/// What came of a load.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// Generation is that of the previous one and 1.
    pub snapshot: Snapshot,
    /// Conditions of everything that is ours; `Display` prints them as YAML.
    pub statuses: Statuses,
    /// Who holds which address of the pool.
    pub held: Held,
    /// What is wrong with the meaning of the objects, by file and place. What `loaded` has found
    /// already is not told again.
    pub diagnostics: Vec<Diagnostic>,
}

/// Makes the next snapshot of what was loaded.
pub(crate) fn compile(loaded: &Loaded, inputs: &Inputs<'_>) -> Compiled {
    let slots = Slots::new(inputs.certificates);
    let trust = Trust::default();
    let facts = Facts {
        controller_name: &inputs.settings.controller_name,
        enable_backend: inputs.settings.enable_backend,
        domain: inputs.domain,
        certificate: &|certificate| slots.readiness(certificate, Peer::Clients),
        client_certificate: &|certificate| slots.readiness(certificate, Peer::Backends),
        authorities: &|authorities| trust.check(authorities),
        server_name: &is_server_name,
        unusable_address: inputs.unusable_address,
        unusable_port: &|address, listener| (inputs.unusable_bind)(binds::key(address, listener)),
        pool: inputs.pool,
        held: inputs.held,
    };
    let objects = loaded.objects.iter().map(|located| (&located.object, &*located.faults));
    let mut graph = graph::build(objects, &facts);

    let mut clusters = Clusters::new(inputs.previous, inputs.upstreams, &slots, &trust);
    let mut warnings = Vec::new();
    let compiled = CompiledRoutes::new(&graph, &mut clusters, inputs.trusts_proxies, &mut warnings);
    let tracings = Tracings::new(&graph, &mut clusters, inputs.previous, inputs.environment);
    let logs = Logs::new(&graph, inputs.log_files, &mut warnings);
    let binds = binds::binds(Parts {
        graph: &graph,
        logs: &logs,
        tracings: &tracings,
        routes: &compiled,
        slots: &slots,
        trust: &trust,
        inputs,
    });
    warnings.extend(coverage::warnings(&graph, &binds));
    let clusters = clusters.finish();
    let rules = compiled.iter().flat_map(|route| &route.rows);
    let rules = rules.map(|(_, _, rule)| (Arc::clone(&rule.name), Arc::clone(rule))).collect();
    let forwards = compiled.iter().flat_map(|route| route.decrypted.iter().chain(&route.forward));
    let forwards = forwards.map(|of| (Arc::clone(&of.name), Arc::clone(of))).collect();
    let counts = count(&graph, clusters.len());

    let faults: Vec<Vec<RuleFault>> = compiled.into_faults();
    let statuses = graph::statuses(&graph, &faults);
    let mut found = std::mem::take(&mut graph.faults);
    found.append(&mut warnings);
    for (route, faults) in graph.routes.iter().zip(faults) {
        found.extend(faults.into_iter().map(|RuleFault { field, problem, .. }| Fault {
            object: route.key.clone(),
            field,
            problem,
            severity: Severity::Error,
            origin: Origin::Written,
        }));
    }
    let Tracings { collectors, spans, .. } = tracings;
    let generation = inputs.previous.generation + 1;
    Compiled {
        snapshot: Snapshot {
            generation,
            binds,
            clusters,
            rules,
            forwards,
            collectors,
            spans,
            counts,
        },
        statuses,
        held: graph.held,
        diagnostics: diagnostics(loaded, found),
    }
}

fn count(graph: &Graph<'_>, backends: usize) -> Counts {
    let routes: HashSet<usize> =
        graph.served().flat_map(|(.., listener)| &listener.routes).map(|on| on.route).collect();
    Counts {
        gateways: graph.gateways.iter().filter(|gateway| gateway.is_served()).count(),
        listeners: graph.served().count(),
        routes: routes.len(),
        backends,
    }
}

/// Faults with the places where they stand, without those that the load has told.
fn diagnostics(loaded: &Loaded, faults: Vec<Fault>) -> Vec<Diagnostic> {
    if faults.is_empty() {
        return Vec::new();
    }
    let objects: HashMap<ObjectKey, &Located<Object>> =
        loaded.objects.iter().map(|located| (located.object.key(), located)).collect();
    let mut told: HashMap<&str, Vec<&str>> = HashMap::new();
    for diagnostic in &loaded.diagnostics {
        told.entry(&diagnostic.object).or_default().push(&diagnostic.field);
    }
    let mut diagnostics: Vec<Diagnostic> = faults
        .into_iter()
        .filter_map(|fault| {
            let located = objects.get(&fault.object)?;
            let diagnostic = loaded.fault(located, &fault.field, fault.problem);
            let told = told.get(&*diagnostic.object).map_or(&[][..], Vec::as_slice);
            let known = told.iter().any(|field| covers(field, &diagnostic.field));
            (!known).then_some(Diagnostic {
                severity: fault.severity,
                origin: fault.origin,
                ..diagnostic
            })
        })
        .collect();
    diagnostics.sort_by(|a, b| a.place.cmp(&b.place));
    diagnostics
}

/// True if a diagnostic of `told` is about `field`: about itself or a part of it.
fn covers(told: &str, field: &str) -> bool {
    told.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}
