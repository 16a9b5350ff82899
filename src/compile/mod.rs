//! Compilation: objects and the running snapshot in, the next snapshot, conditions and faults out.
//!
//! [`compile`] builds the graph and turns it into binds, route tables, rules and clusters, each
//! made by its own constructor; there are no types in between. It opens no socket and publishes
//! nothing. It reads certificates and opens log files through the store and the set of files that
//! the caller passes.
//!
//! Compilation never fails: a rule that cannot run answers 500 and is reported in the conditions of
//! its route, a listener that cannot be served is left out, and everything else is served.

mod access_logs;
mod attempts;
mod balancing;
mod binds;
mod client_connections;
mod client_policy;
mod clusters;
mod connection;
mod coverage;
mod field_changes;
mod filters;
#[cfg(test)]
mod goldens;
mod health;
mod hold;
mod inputs;
mod matches;
mod misfit;
mod never;
mod path_pattern;
mod routes;
mod slots;
mod tracing;
mod trust;

use std::collections::HashSet;
use std::sync::Arc;

use crate::config::{CheckedObject, Fault};
use crate::graph::{self, Graph, Held, LoadFacts, ObjectStatuses};
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

/// The result of a compilation.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// The new snapshot; its generation is that of the previous one plus 1.
    pub snapshot: Snapshot,
    /// The conditions of all objects that this gateway manages; `Display` prints them as YAML.
    pub statuses: ObjectStatuses,
    /// The holders of the pool's addresses.
    pub held: Held,
    /// The faults found in the meaning of the objects.
    pub faults: Vec<Fault>,
}

/// Builds the next snapshot from the objects of a load.
pub(crate) fn compile(objects: &[CheckedObject], inputs: &Inputs<'_>) -> Compiled {
    let slots = Slots::new(inputs.certificates);
    let trust = Trust::default();
    let facts = LoadFacts {
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
    let mut graph = graph::build(objects, &facts);

    let carried = &inputs.previous.carried;
    let mut clusters = Clusters::new(carried, inputs.upstreams, &slots, &trust);
    let mut warnings = Vec::new();
    let trusts_proxies = inputs.trusts_proxies || graph.client.keep_fields();
    let compiled = CompiledRoutes::new(&graph, &mut clusters, trusts_proxies, &mut warnings);
    let tracings = Tracings::new(&graph, &mut clusters, carried, inputs.environment);
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
    let (clusters, mut of_clusters) = clusters.finish();
    warnings.append(&mut of_clusters);
    let rules = compiled.iter().flat_map(|route| &route.rows);
    let rules = rules.map(|(_, _, rule)| (Arc::clone(&rule.name), Arc::clone(rule))).collect();
    let forwards = compiled.iter().flat_map(|route| route.decrypted.iter().chain(&route.forward));
    let forwards = forwards.map(|of| (Arc::clone(&of.name), Arc::clone(of))).collect();
    let counts = count(&graph, clusters.len());

    let of_routes = compiled.into_faults();
    let statuses = graph::statuses(&graph, &of_routes);
    let mut faults = std::mem::take(&mut graph.faults);
    faults.append(&mut warnings);
    faults.extend(of_routes.into_iter().flatten());
    let collectors = tracings.collectors;
    let generation = inputs.previous.generation + 1;
    Compiled {
        snapshot: Snapshot {
            generation,
            binds,
            clusters,
            rules,
            forwards,
            collectors,
            carried: Arc::clone(carried),
            counts,
        },
        statuses,
        held: graph.held,
        faults,
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
