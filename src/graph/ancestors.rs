//! Statuses of BackendTLSPolicies. Their ancestors are the Gateways whose routes refer to their
//! targets.

use std::collections::BTreeMap;

use super::backend_tls_policies::BackendTlsPolicies;
use super::gateways::Gateway;
use super::listener_sets::{ListenerSet, all_listeners};
use super::policy::{Ancestor, AncestorReport, PolicyReport};
use super::routes::Route;

/// Returns the statuses of the policies. The routes must already be attached to listeners.
pub(super) fn reports(
    policies: &BackendTlsPolicies<'_>,
    gateways: &[Gateway<'_>],
    sets: &[ListenerSet<'_>],
    routes: &[Route<'_>],
) -> Vec<PolicyReport> {
    let reports = policies.all.iter().map(|policy| PolicyReport {
        key: policy.key.clone(),
        generation: policy.object.metadata.generation.unwrap_or(1),
        ancestors: BTreeMap::new(),
    });
    let mut reports: Vec<PolicyReport> = reports.collect();
    for listener in all_listeners(gateways, sets) {
        for on in &listener.routes {
            for place in routes[on.route].rules.iter().flat_map(|refs| &refs.policies) {
                let policy = &policies.all[*place];
                let ancestor = Ancestor { key: listener.owner.gateway.clone(), section: None };
                reports[*place].ancestors.entry(ancestor).or_insert_with(|| AncestorReport {
                    accepted: policy.accepted.clone(),
                    accepted_message: "the backends are spoken to by TLS",
                    resolved: Some(policy.resolved.clone()),
                    merged: None,
                    overridden: None,
                    warnings: Vec::new(),
                });
            }
        }
    }
    reports
}
