//! Construction of the routes of this controller's Gateways: parents, hostnames and references are
//! looked up, and routes are attached to listeners.

use std::collections::HashMap;

use crate::api::{CORE_GROUP, GATEWAY_GROUP, Kind, ObjectKey, ParentReference};
use crate::config::{Fault, Origin};
use crate::net::HostPattern;

use super::allowed_routes;
use super::backends::BackendLookup;
use super::gateways::Gateway;
use super::index::ObjectIndex;
use super::listener_sets::ListenerSet;
use super::references::RuleLookup;
use super::route_object::RouteObject;
use super::routes::{Parent, Route};
use super::verdict::{ConditionResult, FalseCondition, Faults, refuse};

/// Builds the routes of this controller's Gateways and attaches them to listeners.
pub(super) fn routes<'a>(
    lookup: BackendLookup<'_, 'a>,
    gateways: &mut [Gateway<'a>],
    sets: &mut [ListenerSet<'a>],
    faults: &mut Faults,
) -> Vec<Route<'a>> {
    let index = lookup.index;
    let of_gateways = gateways.iter().enumerate();
    let of_gateways = of_gateways.map(|(place, of)| (of.key.clone(), ParentPlace::Gateway(place)));
    let of_sets = sets.iter().enumerate();
    let of_sets = of_sets.map(|(place, of)| (of.key.clone(), ParentPlace::ListenerSet(place)));
    let by_key: HashMap<ObjectKey, ParentPlace> = of_gateways.chain(of_sets).collect();
    let mut routes = Vec::with_capacity(index.routes.len());
    for object in &index.routes {
        let metadata = object.metadata();
        let key = ObjectKey::new(object.kind(), metadata.namespace(), &metadata.name);
        let parents = parents(*object, &key, index, &by_key, faults);
        if parents.is_empty() {
            continue;
        }
        let (broken, valid) = broken(&key, index);
        let (hostnames, hostnames_valid) = hostnames(*object, &key, faults);
        let valid = valid.and(hostnames_valid);
        let mut route = Route {
            object: *object,
            hostnames,
            parents: Vec::with_capacity(parents.len()),
            rules: Vec::new(),
            valid,
            broken,
            key,
        };
        for (place, reference, parent) in parents {
            let (parent, listeners) = match parent {
                ParentPlace::Gateway(at) => (&gateways[at].key, &mut *gateways[at].listeners),
                ParentPlace::ListenerSet(at) => (&sets[at].key, &mut *sets[at].listeners),
            };
            let attached =
                allowed_routes::attach(&route, routes.len(), reference, parent, listeners, index);
            let attached = attached.map_err(|refused| {
                let field = refused.field(place);
                let origin = Origin::Referent(parent.clone());
                faults.error_of(origin, &route.key, field, &*refused.refusal.message);
                refused.refusal
            });
            route.parents.push(Parent { reference, attached });
        }
        let mut look_up = RuleLookup { route: &route.key, backends: lookup, faults };
        route.rules = match object {
            RouteObject::Grpc(object) => {
                let rules = object.spec.rules.iter().enumerate();
                rules.map(|(rule, of)| look_up.rule(rule, &of.backend_refs, &of.filters)).collect()
            }
            RouteObject::Http(object) => {
                let rules = object.spec.rules().iter().enumerate();
                rules.map(|(rule, of)| look_up.rule(rule, &of.backend_refs, &of.filters)).collect()
            }
            RouteObject::Tcp(_) | RouteObject::Tls(_) | RouteObject::Udp(_) => {
                let rules = object.plain_rules().unwrap_or_default();
                let rules = rules.into_iter().enumerate();
                rules.map(|(rule, refs)| look_up.plain_rule(rule, refs)).collect()
            }
        };
        routes.push(route);
    }
    routes
}

/// Returns the violations of the rules of its kind by the route: those of single rules, and a
/// refusal if the route as a whole violates one.
fn broken<'a>(key: &ObjectKey, index: &ObjectIndex<'a>) -> (Vec<&'a Fault>, ConditionResult) {
    let mut faults = Vec::new();
    let mut valid = Ok(());
    for fault in index.broken(key) {
        match fault.rule() {
            Some(_) => faults.push(fault),
            None => {
                let refusal = FalseCondition::new(fault.reason.as_str(), fault.to_string());
                refuse(&mut valid, refusal);
            }
        }
    }
    (faults, valid)
}

/// The index of a parent in the graph.
#[derive(Clone, Copy, Debug)]
enum ParentPlace {
    Gateway(usize),
    ListenerSet(usize),
}

/// Returns the parentRefs to Gateways of this controller or their ListenerSets: the index of each,
/// the parentRef, and the place of the parent.
fn parents<'a>(
    object: RouteObject<'a>,
    key: &ObjectKey,
    index: &ObjectIndex<'a>,
    by_key: &HashMap<ObjectKey, ParentPlace>,
    faults: &mut Faults,
) -> Vec<(usize, &'a ParentReference, ParentPlace)> {
    let mut parents = Vec::new();
    if object.parent_refs().is_empty() {
        let problem = "the route is attached to nothing; name a Gateway under `spec.parentRefs`";
        faults.warning(key, "spec.parentRefs", problem);
    }
    for (place, reference) in object.parent_refs().iter().enumerate() {
        let field = format!("spec.parentRefs[{place}]");
        let kind = match (reference.group(), reference.kind()) {
            (GATEWAY_GROUP, "Gateway") => Kind::Gateway,
            (GATEWAY_GROUP, "ListenerSet") => Kind::ListenerSet,
            // A mesh attaches routes to Services; a gateway ignores that.
            (CORE_GROUP, "Service") => continue,
            (group, kind) => {
                let dot = if group.is_empty() { "" } else { "." };
                let problem = format!("routes attach to no `{kind}{dot}{group}`; name a Gateway");
                faults.error(key, format!("{field}.kind"), problem);
                continue;
            }
        };
        let namespace = reference.namespace.as_deref().unwrap_or(&key.namespace);
        let exists = match kind {
            Kind::ListenerSet => index.has_listener_set(namespace, &reference.name),
            _ => index.has_gateway(namespace, &reference.name),
        };
        match by_key.get(&ObjectKey::new(kind, namespace, &reference.name)) {
            Some(at) => parents.push((place, reference, *at)),
            // The parent has a fault of its own that explains why it is not served.
            None if exists => {}
            None => {
                let problem = format!("there is no {kind} `{namespace}/{}`", reference.name);
                let origin = Origin::Referent(ObjectKey::new(kind, namespace, &reference.name));
                faults.error_of(origin, key, format!("{field}.name"), problem);
            }
        }
    }
    parents
}

/// Parses the hostnames. An invalid hostname disables the whole route: without it the list could be
/// empty, which means every host.
fn hostnames(
    object: RouteObject<'_>,
    key: &ObjectKey,
    faults: &mut Faults,
) -> (Vec<HostPattern>, ConditionResult) {
    let mut hostnames = Vec::with_capacity(object.hostnames().len());
    let mut valid = Ok(());
    for (place, hostname) in object.hostnames().iter().enumerate() {
        match HostPattern::parse(hostname) {
            Ok(hostname) => hostnames.push(hostname),
            Err(error) => {
                let problem = format!("`{hostname}` is not a hostname: {error}");
                faults.error(key, format!("spec.hostnames[{place}]"), &*problem);
                refuse(&mut valid, FalseCondition::new("UnsupportedValue", problem));
            }
        }
    }
    (hostnames, valid)
}
