//! Ancestors of BackendTLSPolicies: the Gateways that tell of them.

use super::backend_tls_policies::Policies;
use super::gateways::Gateway;
use super::listener_sets::ListenerSet;
use super::routes::Route;

/// Gateways that one policy tells its status for (`PolicyStatus.ancestors`, at most 16).
pub(super) const MAX_ANCESTORS: usize = 16;

/// Notes with each policy the Gateways whose routes refer to what it targets.
pub(super) fn find_ancestors(
    policies: &mut Policies<'_>,
    gateways: &[Gateway<'_>],
    sets: &[ListenerSet<'_>],
    routes: &[Route<'_>],
) {
    let own = gateways.iter().map(|gateway| &gateway.listeners).enumerate();
    let added = sets.iter().map(|set| (set.gateway, &set.listeners));
    for (place, listeners) in own.chain(added) {
        for on in listeners.iter().flat_map(|listener| &listener.routes) {
            for policy in routes[on.route].rules.iter().flat_map(|refs| &refs.policies) {
                let ancestors = &mut policies.all[*policy].ancestors;
                if ancestors.len() < MAX_ANCESTORS {
                    ancestors.insert(place);
                }
            }
        }
    }
}
