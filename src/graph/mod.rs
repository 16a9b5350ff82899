//! What refers to what: every reference looked up, every relation judged.
//!
//! [`build`] takes the objects of one load, wherever they came from, and says which Gateways are
//! ours, which listeners can be served, which routes are on which listener and where their
//! references lead. Nothing here fails: what is broken stays in the graph, marked with the reason
//! that the specification has for it, and is a [`Fault`] for the person who wrote it.
//!
//! What the values of a rule mean (a regular expression, a header, a timeout) is not decided here
//! but in `compile`, which hands back a [`RuleFault`] for what cannot run; [`statuses`] makes the
//! conditions of both.
//!
//! Invariant: no object is looked up by walking a list, so a load of ten thousand routes costs
//! what its size says.

mod addresses;
mod attach;
mod attachment;
mod authorities;
mod backend_tls;
mod backends;
mod certificates;
mod conflicts;
mod direct_response;
mod facts;
mod features;
mod frontend;
mod gateways;
mod grants;
mod guard;
mod index;
mod listener_sets;
mod listeners;
mod proxies;
mod references;
mod render;
mod routes;
mod security;
mod status;
mod verdict;

use crate::api::Object;

use index::Index;
use security::SecurityPolicies;
use verdict::Faults;

pub(crate) use addresses::Held;
pub(crate) use backend_tls::{AltName, BackendTls, Encryption, Policy};
pub(crate) use backends::{AppProtocol, Resolved, Target};
pub(crate) use certificates::{Certificate, Readiness};
pub(crate) use direct_response::DirectAnswer;
pub(crate) use facts::Facts;
pub(crate) use frontend::ClientValidation;
pub(crate) use gateways::{Class, Gateway};
pub(crate) use guard::Guard;
pub(crate) use listener_sets::ListenerSet;
pub(crate) use listeners::{Attached, Listener};
pub(crate) use proxies::Proxy;
pub(crate) use references::{FilterRefs, RuleRefs};
pub(crate) use routes::{Route, RouteObject};
pub(crate) use security::GoverningPolicy;
#[cfg(test)]
pub(crate) use status::ListenerStatus;
pub(crate) use status::{Statuses, statuses};
pub(crate) use verdict::{Authorities, Fault, Refusal, RuleFault};

/// The objects of one load with their relations.
///
/// Gateways, ListenerSets and routes stand in the order in which ties are settled: the older
/// `creationTimestamp` first, objects without one after those with one, then by `namespace/name`.
#[derive(Debug)]
pub(crate) struct Graph<'a> {
    /// Our `controllerName`.
    pub controller_name: String,
    /// The GatewayClasses that name it.
    pub classes: Vec<Class<'a>>,
    /// The Gateways of those classes.
    pub gateways: Vec<Gateway<'a>>,
    /// The ListenerSets whose parent is one of those Gateways.
    pub listener_sets: Vec<ListenerSet<'a>>,
    /// The routes that name at least one of those Gateways, or a ListenerSet of one, as a parent.
    pub routes: Vec<Route<'a>>,
    /// Who holds which address of the pool.
    pub held: Held,
    /// The BackendTLSPolicies, in the order in which ties are settled.
    pub policies: Vec<Policy<'a>>,
    /// The SecurityPolicies, in the order in which ties are settled.
    pub security_policies: Vec<GoverningPolicy<'a>>,
    /// The EnvoyProxies, in the order of their names, used or not.
    pub proxies: Vec<Proxy<'a>>,
    /// In the order of the objects above, and within one object of its fields.
    pub faults: Vec<Fault>,
}

impl<'a> Graph<'a> {
    /// The listeners that are served: each with its Gateway, and the ListenerSet that it is of.
    pub(crate) fn served(
        &self,
    ) -> impl Iterator<Item = (&Gateway<'a>, Option<&ListenerSet<'a>>, &Listener<'a>)> {
        let gateways = self.gateways.iter().filter(|gateway| gateway.is_served());
        let own = gateways.flat_map(|gateway| {
            gateway.listeners.iter().map(move |listener| (gateway, None, listener))
        });
        let sets = self.listener_sets.iter().map(|set| (&self.gateways[set.gateway], set));
        let sets = sets.filter(|(gateway, set)| set.is_served(gateway));
        let added = sets.flat_map(|(gateway, set)| {
            set.listeners.iter().map(move |listener| (gateway, Some(set), listener))
        });
        own.chain(added).filter(|(_, _, listener)| listener.accepted.is_ok())
    }
}

/// Looks up every reference and judges every relation.
///
/// With each object comes what is known to be wrong with it by itself, as `field: problem`: the
/// rules of its kind that it breaks, for which an API server would not have taken it. Somebody
/// else has told those; here they decide what is not served.
pub(crate) fn build<'a>(
    objects: impl IntoIterator<Item = (&'a Object, &'a [String])>,
    facts: &Facts<'_>,
) -> Graph<'a> {
    let mut index = Index::new(objects);
    let mut faults = Faults::default();
    index.backend_tls = backend_tls::policies(&index, facts, &mut faults);
    index.tls_of_backends = backend_tls::backends(&index, facts, &mut faults);
    let proxies = proxies::proxies(&index, facts, &mut faults);
    let classes = gateways::classes(&index, &proxies, facts, &mut faults);
    let (mut gateways, held) = gateways::gateways(&index, &classes, &proxies, facts, &mut faults);
    let mut listener_sets = listener_sets::listener_sets(&index, facts, &gateways, &mut faults);
    conflicts::judge(&mut gateways, &mut listener_sets, facts, &mut faults);
    backends::judge_slices(&index, &mut faults);
    let mut routes = routes::routes(&index, facts, &mut gateways, &mut listener_sets, &mut faults);
    let security = SecurityPolicies::new(&index, &mut faults);
    security.govern(&mut gateways, &mut listener_sets, &mut routes);
    let security_policies = security.into_governing(&routes);
    let mut policies = index.backend_tls;
    backend_tls::find_ancestors(&mut policies, &gateways, &listener_sets, &routes);
    Graph {
        controller_name: facts.controller_name.to_owned(),
        classes,
        gateways,
        listener_sets,
        routes,
        policies: policies.all,
        security_policies,
        proxies: proxies.all,
        held,
        faults: faults.into_vec(),
    }
}
