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

mod access_logs;
mod binds;
mod clusters;
mod coverage;
mod filters;
#[cfg(test)]
mod goldens;
mod inputs;
mod matches;
mod never;
mod path_pattern;
mod routes;
mod slots;
mod tracing;
mod trust;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::api::{Object, ObjectKey};
use crate::config::{Diagnostic, Loaded, Located, Origin, Severity};
use crate::graph::{self, Facts, Fault, Graph, Held, RuleFault, Statuses};
use crate::snapshot::{Counts, Snapshot};
use crate::tls::Peer;

use access_logs::AccessLogs;
use binds::Parts;
use clusters::Clusters;
use routes::CompiledRoutes;
use slots::Slots;
use tracing::Tracings;
use trust::{Trust, is_server_name};

pub(crate) use inputs::Inputs;
#[cfg(test)]
pub(crate) use never::{REDUCED, REMOVED};

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
    let logs = AccessLogs::new(&graph, inputs.log_files, &mut warnings);
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
