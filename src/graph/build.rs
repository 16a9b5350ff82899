//! The graph of one load, built from its objects.

use crate::config::{CheckedObject, Fault};

use super::ancestors;
use super::backend_encryption::BackendEncryption;
use super::backends::{self, BackendLookup};
use super::conflicts;
use super::facts::{Held, LoadFacts};
use super::gateways::{self, Class, Gateway};
use super::index::ObjectIndex;
use super::listener_sets::{self, ListenerSet, served_listeners};
use super::listeners::Listener;
use super::policy::{
    ClientPolicies, PolicyReport, SecurityPolicies, TrafficPolicies, security_policies,
    traffic_policies,
};
use super::proxies::{self, Proxy};
use super::route_builder;
use super::routes::Route;
use super::verdict::Faults;

/// The objects of one load with their relations.
///
/// Gateways, ListenerSets and routes are in tie-breaking order: the older `creationTimestamp`
/// first, objects without one after those with one, then by `namespace/name`.
#[derive(Debug)]
pub(crate) struct Graph<'a> {
    /// The `controllerName` of this controller.
    pub controller_name: String,
    /// The GatewayClasses with this `controllerName`.
    pub classes: Vec<Class<'a>>,
    /// The Gateways of those classes.
    pub gateways: Vec<Gateway<'a>>,
    /// The ListenerSets whose parent is one of those Gateways.
    pub listener_sets: Vec<ListenerSet<'a>>,
    /// The routes with at least one of those Gateways, or one of their ListenerSets, as a parent.
    pub routes: Vec<Route<'a>>,
    /// The addresses of the pool, by holder.
    pub held: Held,
    pub security: SecurityPolicies<'a>,
    pub traffic: TrafficPolicies<'a>,
    pub client: ClientPolicies<'a>,
    /// The statuses of policies, by kind, and within a kind in tie-breaking order.
    pub(super) policy_reports: Vec<PolicyReport>,
    /// All EnvoyProxies, used or not, in the order of their names.
    pub proxies: Vec<Proxy<'a>>,
    /// The faults, in the order of the objects above, and within one object in the order of its
    /// fields.
    pub faults: Vec<Fault>,
}

impl<'a> Graph<'a> {
    /// Returns the listeners that are served, each with its Gateway.
    pub(crate) fn served(&self) -> impl Iterator<Item = (&Gateway<'a>, &Listener<'a>)> {
        served_listeners(&self.gateways, &self.listener_sets)
    }
}

/// Looks up every reference and judges every relation.
///
/// The faults of `objects` are violations of the rules of their kinds. They are already reported;
/// here they decide what is not served.
pub(crate) fn build<'a>(objects: &'a [CheckedObject], facts: &LoadFacts<'_>) -> Graph<'a> {
    let index = ObjectIndex::new(objects);
    let mut faults = Faults::default();
    let encryption = BackendEncryption::new(&index, facts, &mut faults);
    let lookup = BackendLookup { index: &index, facts, encryption: &encryption };
    let proxies = proxies::proxies(lookup, &mut faults);
    let classes = gateways::classes(&index, &proxies, facts, &mut faults);
    let (mut gateways, held) = gateways::gateways(&index, &classes, &proxies, facts, &mut faults);
    let mut listener_sets = listener_sets::listener_sets(&index, facts, &gateways, &mut faults);
    conflicts::judge(&mut gateways, &mut listener_sets, facts, &mut faults);
    backends::judge_slices(&index, &mut faults);
    let routes = route_builder::routes(lookup, &mut gateways, &mut listener_sets, &mut faults);
    let mut security = security_policies(&index, &mut faults);
    security.merge(&gateways, &listener_sets, &routes, &mut faults);
    let mut traffic = traffic_policies(&index, &mut faults);
    traffic.merge(&gateways, &listener_sets, &routes, &mut faults);
    let client = ClientPolicies::new(&index, &gateways, &listener_sets, &mut faults);
    let mut policy_reports =
        ancestors::reports(&encryption.policies, &gateways, &listener_sets, &routes);
    policy_reports.extend(security.reports(&gateways, &listener_sets, &routes));
    policy_reports.extend(traffic.reports(&gateways, &listener_sets, &routes));
    policy_reports.extend(client.reports(&gateways, &listener_sets, &routes));
    Graph {
        controller_name: facts.controller_name.to_owned(),
        classes,
        gateways,
        listener_sets,
        routes,
        security,
        traffic,
        client,
        policy_reports,
        proxies: proxies.all,
        held,
        faults: faults.into_vec().into_iter().filter(|fault| !index.is_refused(fault)).collect(),
    }
}
