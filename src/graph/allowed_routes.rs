//! Attachment of routes to listeners: parentRefs, allowedRoutes, hostnames.

use crate::api::{ObjectKey, ParentReference};
use crate::net::HostPattern;

use super::index::ObjectIndex;
use super::listeners::{Attached, Listener, Namespaces};
use super::routes::Route;
use super::verdict::FalseCondition;

/// The reason why no listener of a parent accepts a route.
pub(super) struct NotAttached {
    pub refusal: FalseCondition,
    at: RefusedField,
}

/// The field of the route that a refusal is about.
enum RefusedField {
    Hostnames,
    Parent,
    ParentSection,
}

impl NotAttached {
    /// Returns the path of the field, for the parentRef at `place`.
    pub(super) fn field(&self, place: usize) -> String {
        match self.at {
            RefusedField::Hostnames => "spec.hostnames".into(),
            RefusedField::Parent => format!("spec.parentRefs[{place}]"),
            RefusedField::ParentSection => format!("spec.parentRefs[{place}].sectionName"),
        }
    }
}

/// Attaches `route`, which gets the index `number` in the graph, to those `listeners` of `parent`
/// that `reference` selects and that accept the route.
///
/// Routes are attached to listeners that are not accepted, too: attachedRoutes counts them.
///
/// # Errors
///
/// No listener accepts the route. The reason is that of the first check that leaves no listener:
/// selection by the parentRef, then kind and namespace, then a common hostname.
pub(super) fn attach(
    route: &Route<'_>,
    number: usize,
    reference: &ParentReference,
    parent: &ObjectKey,
    listeners: &mut [Listener<'_>],
    index: &ObjectIndex<'_>,
) -> Result<(), NotAttached> {
    let selected = |listener: &Listener<'_>| {
        reference.section_name.as_ref().is_none_or(|name| *name == listener.spec.name)
            && reference.port.is_none_or(|port| port == listener.spec.port)
    };
    if !listeners.iter().any(selected) {
        return Err(no_such_listener(reference, parent, listeners));
    }
    let allowed: Vec<usize> = listeners
        .iter()
        .filter(|listener| selected(listener) && allows(listener, &parent.namespace, route, index))
        .map(|listener| listener.place)
        .collect();
    if allowed.is_empty() {
        let selected: Vec<_> = listeners.iter().filter(|one| selected(one)).collect();
        return Err(not_allowed(route, &selected, &parent.namespace));
    }
    if route.valid.is_err() {
        // The hostnames of the route are not known. The route itself has the refusal.
        return Ok(());
    }
    let mut taken = false;
    for place in &allowed {
        let listener = &mut listeners[*place];
        let Some(hosts) = hosts(listener.hostname.as_ref(), &route.hostnames) else { continue };
        taken = true;
        // Two parentRefs may select the same listener.
        if listener.routes.last().is_none_or(|last| last.route != number) {
            listener.routes.push(Attached { route: number, hosts });
        }
    }
    if taken { Ok(()) } else { Err(no_common_host(route, listeners, &allowed)) }
}

fn allows(
    listener: &Listener<'_>,
    own_namespace: &str,
    route: &Route<'_>,
    index: &ObjectIndex<'_>,
) -> bool {
    listener.kinds.contains(&route.key.kind.as_str())
        && listener.namespaces.take(&route.key.namespace, own_namespace, index)
}

/// Returns the hostnames that both listener and route accept, empty for any host; `None` if they
/// have none in common (HTTPRoute `hostnames`).
///
/// A route without hostnames gets the hostname of the listener, so that both count as equally
/// specific in a shared table.
fn hosts(listener: Option<&HostPattern>, route: &[HostPattern]) -> Option<Vec<HostPattern>> {
    let Some(listener) = listener else { return Some(route.to_vec()) };
    if route.is_empty() {
        return Some(vec![listener.clone()]);
    }
    let mut hosts: Vec<HostPattern> = Vec::new();
    for common in route.iter().filter_map(|hostname| listener.intersect(hostname)) {
        if !hosts.contains(&common) {
            hosts.push(common);
        }
    }
    (!hosts.is_empty()).then_some(hosts)
}

fn no_such_listener(
    reference: &ParentReference,
    parent: &ObjectKey,
    listeners: &[Listener<'_>],
) -> NotAttached {
    let wanted = match (&reference.section_name, reference.port) {
        (Some(name), Some(port)) => format!("`{name}` on port {port}"),
        (Some(name), None) => format!("`{name}`"),
        (None, Some(port)) => format!("on port {port}"),
        (None, None) => "at all".into(),
    };
    let there = listeners
        .iter()
        .map(|listener| format!("`{}` on port {}", listener.spec.name, listener.spec.port));
    let there = listed(there, "and");
    let ObjectKey { kind, namespace, name } = parent;
    let message = format!("{kind} `{namespace}/{name}` has no listener {wanted}; it has {there}");
    let named = reference.section_name.is_some();
    NotAttached {
        refusal: FalseCondition::new("NoMatchingParent", message),
        at: if named { RefusedField::ParentSection } else { RefusedField::Parent },
    }
}

fn not_allowed(route: &Route<'_>, selected: &[&Listener<'_>], own_namespace: &str) -> NotAttached {
    let kind = route.key.kind;
    let takes_kind: Vec<_> =
        selected.iter().filter(|listener| listener.kinds.contains(&kind.as_str())).collect();
    let names = one_of(selected.iter().map(|listener| format!("`{}`", listener.spec.name)));
    let message = if takes_kind.is_empty() {
        format!("listener {names} takes no {kind}; see its `protocol` and `allowedRoutes.kinds`")
    } else {
        let lets_in = one_of(takes_kind.iter().map(|listener| match listener.namespaces {
            Namespaces::Same => format!("those of `{own_namespace}`"),
            Namespaces::Selected(_) => "those of namespaces that its selector takes".into(),
            Namespaces::All | Namespaces::None => "none".into(),
        }));
        format!(
            "listener {names} takes no routes of namespace `{}`, only {lets_in}; see its \
             `allowedRoutes.namespaces`",
            route.key.namespace
        )
    };
    NotAttached {
        refusal: FalseCondition::new("NotAllowedByListeners", message),
        at: RefusedField::Parent,
    }
}

fn no_common_host(route: &Route<'_>, listeners: &[Listener<'_>], places: &[usize]) -> NotAttached {
    let names = one_of(places.iter().map(|place| {
        let listener = &listeners[*place];
        let host = listener.hostname.as_ref().map_or_else(String::new, ToString::to_string);
        format!("`{host}` of listener `{}`", listener.spec.name)
    }));
    let hostnames = one_of(route.hostnames.iter().map(|hostname| format!("`{hostname}`")));
    let message = format!("{hostnames} has nothing in common with {names}");
    NotAttached {
        refusal: FalseCondition::new("NoMatchingListenerHostname", message),
        at: RefusedField::Hostnames,
    }
}

fn one_of(names: impl Iterator<Item = String>) -> String {
    listed(names, "or")
}

/// Formats a list as `a, b or c`, without duplicates, and with at most five names so that a message
/// stays on one line.
fn listed(names: impl Iterator<Item = String>, last_word: &str) -> String {
    let mut all: Vec<String> = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    let more = all.len().saturating_sub(5);
    all.truncate(5);
    if more > 0 {
        return format!("{} and {more} more", all.join(", "));
    }
    match all.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} {last_word} {last}", rest.join(", ")),
        None => "none".into(),
    }
}
