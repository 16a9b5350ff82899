//! Conditions: the results of the graph and the compiler, in the terms of the specification.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::api::{Condition, ConditionStatus, Kind, ObjectKey, ParentReference};
use crate::config::{Fault, Reason};

use super::build::Graph;
use super::frontend;
use super::gateways::{Class, Gateway};
use super::listener_sets::ListenerSet;
use super::listeners::Listener;
use super::policy::{AncestorReport, PolicyReport};
use super::references::RuleRefs;
use super::routes::Route;
use super::verdict::{ConditionResult, FalseCondition, refuse};

/// The maximum number of ancestors in the status of a policy (Gateway API,
/// `PolicyStatus.ancestors`).
const MAX_ANCESTORS: usize = 16;

/// The statuses of all objects of this controller. `Display` writes them as YAML in the form of
/// `kubectl get -o yaml`.
///
/// It owns its contents, so it outlives the objects that it was made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ObjectStatuses {
    pub classes: Vec<GatewayClassStatus>,
    pub gateways: Vec<GatewayStatus>,
    pub listener_sets: Vec<ListenerSetStatus>,
    pub routes: Vec<RouteStatus>,
    pub policies: Vec<PolicyStatus>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GatewayClassStatus {
    pub key: ObjectKey,
    /// `observedGeneration` of the conditions: the generation of the object, 1 if none is written.
    pub generation: i64,
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GatewayStatus {
    pub key: ObjectKey,
    pub generation: i64,
    /// The IP addresses that the Gateway listens on.
    pub addresses: Vec<String>,
    /// The number of ListenerSets whose condition Accepted is True.
    pub attached_listener_sets: usize,
    pub conditions: Vec<Condition>,
    pub listeners: Vec<ListenerStatus>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListenerSetStatus {
    pub key: ObjectKey,
    pub generation: i64,
    pub conditions: Vec<Condition>,
    pub listeners: Vec<ListenerStatus>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListenerStatus {
    pub name: String,
    /// The accepted kinds, all of the Gateway API's group.
    pub supported_kinds: Vec<&'static str>,
    /// The number of routes on this listener whose condition Accepted is True.
    pub attached_routes: usize,
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RouteStatus {
    pub key: ObjectKey,
    pub generation: i64,
    pub parents: Vec<ParentStatus>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ParentStatus {
    /// The parentRef as the route has it.
    pub parent: ParentReference,
    pub controller: Arc<str>,
    pub conditions: Vec<Condition>,
}

/// The status of a policy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PolicyStatus {
    pub key: ObjectKey,
    pub generation: i64,
    /// One entry for each ancestor that the policy applies to, at most 16.
    pub ancestors: Vec<AncestorStatus>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AncestorStatus {
    /// A Gateway or a ListenerSet.
    pub ancestor: ObjectKey,
    /// The listener of the ancestor, if the policy applies only to that one.
    pub section: Option<String>,
    pub controller: Arc<str>,
    pub conditions: Vec<Condition>,
}

/// Returns the statuses of all objects in `graph`. `faults` has, for each of `graph.routes` in the
/// same order, the faults for which rules cannot run.
pub(crate) fn statuses(graph: &Graph<'_>, faults: &[Vec<Fault>]) -> ObjectStatuses {
    let verdicts: Vec<RouteVerdict> = graph
        .routes
        .iter()
        .zip(faults)
        .map(|(route, faults)| RouteVerdict::new(route, faults))
        .collect();
    let controller: Arc<str> = graph.controller_name.as_str().into();
    ObjectStatuses {
        classes: graph.classes.iter().map(class).collect(),
        gateways: gateways(graph, &verdicts),
        listener_sets: graph
            .listener_sets
            .iter()
            .map(|of| listener_set(of, &graph.gateways[of.gateway], &verdicts))
            .collect(),
        routes: graph
            .routes
            .iter()
            .zip(&verdicts)
            .map(|(of, verdict)| route(of, verdict, &controller))
            .collect(),
        policies: graph.policy_reports.iter().map(|of| policy(of, &controller)).collect(),
    }
}

/// The conditions of a route that are the same for every parent.
struct RouteVerdict {
    accepted: ConditionResult,
    /// The message of condition PartiallyInvalid, if it is True.
    partial: Option<String>,
    resolved: ConditionResult,
}

impl RouteVerdict {
    fn new(route: &Route<'_>, faults: &[Fault]) -> Self {
        let mut found: Vec<&Fault> = route.broken.iter().copied().chain(faults).collect();
        found.sort_by_key(|fault| fault.rule());
        let rules: BTreeSet<usize> = found.iter().filter_map(|fault| fault.rule()).collect();
        let problems = || {
            let problems = found.iter().map(ToString::to_string);
            problems.collect::<Vec<_>>().join("; ")
        };
        let mut verdict =
            Self { accepted: route.valid.clone(), partial: None, resolved: resolved(route) };
        if found.is_empty() {
            return verdict;
        }
        if rules.len() >= route.rules.len() {
            // IncompatibleFilters takes precedence: it is the only reason that is more specific
            // than UnsupportedValue.
            let is_incompatible = |fault: &&Fault| fault.reason == Reason::IncompatibleFilters;
            let incompatible = found.iter().copied().find(is_incompatible);
            let reason = incompatible.map_or(Reason::UnsupportedValue, |fault| fault.reason);
            refuse(&mut verdict.accepted, FalseCondition::new(reason.as_str(), problems()));
        } else if verdict.accepted.is_ok() {
            let rules: Vec<_> = rules.iter().map(ToString::to_string).collect();
            let (s, it) = if rules.len() == 1 { ("", "it matches") } else { ("s", "they match") };
            verdict.partial = Some(format!(
                "Dropped Rule{s} {}, what {it} is answered 500: {}",
                rules.join(", "),
                problems()
            ));
        }
        verdict
    }
}

/// Returns condition ResolvedRefs of a route, with the reason of the first broken reference and the
/// problems of all.
fn resolved(route: &Route<'_>) -> ConditionResult {
    let mut broken = route.rules.iter().flat_map(RuleRefs::broken).peekable();
    let Some(first) = broken.peek() else { return Ok(()) };
    let reason = first.reason;
    let mut problems: Vec<&str> = Vec::new();
    for broken in broken {
        if !problems.contains(&&*broken.problem) {
            problems.push(&broken.problem);
        }
    }
    Err(FalseCondition::new(reason, problems.join("; ")))
}

fn class(class: &Class<'_>) -> GatewayClassStatus {
    let metadata = &class.object.metadata;
    GatewayClassStatus {
        key: ObjectKey::new(Kind::GatewayClass, "", &metadata.name),
        generation: metadata.generation.unwrap_or(1),
        conditions: vec![condition(
            "Accepted",
            "Accepted",
            "the GatewayClass is served here",
            class.accepted.as_ref().err(),
        )],
    }
}

fn gateways(graph: &Graph<'_>, routes: &[RouteVerdict]) -> Vec<GatewayStatus> {
    let mut attached = vec![0; graph.gateways.len()];
    for set in &graph.listener_sets {
        attached[set.gateway] += usize::from(set.accepted(&graph.gateways[set.gateway]).is_ok());
    }
    let gateways = graph.gateways.iter().zip(attached);
    gateways.map(|(of, attached)| gateway(of, attached, routes)).collect()
}

fn gateway(gateway: &Gateway<'_>, attached: usize, routes: &[RouteVerdict]) -> GatewayStatus {
    let accepted = gateway.accepted();
    let programmed = programmed(gateway);
    let mut conditions = vec![
        match &accepted {
            Ok("Accepted") => is_true("Accepted", "Accepted", "the Gateway is valid"),
            Ok(reason) => is_true(
                "Accepted",
                reason,
                "the Gateway is valid, but for some listeners; see their conditions",
            ),
            Err(refusal) => is_false("Accepted", refusal),
        },
        condition(
            "Programmed",
            "Programmed",
            "the listeners are served on the addresses of this status",
            programmed.as_ref().err(),
        ),
        condition(
            "ResolvedRefs",
            "ResolvedRefs",
            "every reference was found",
            gateway_resolved(gateway).as_ref().err(),
        ),
    ];
    let insecure = frontend::insecure(gateway.object);
    if !insecure.is_empty() {
        let message =
            format!("clients without a valid certificate are let in: {}", insecure.join(", "));
        let kind = "InsecureFrontendValidationMode";
        conditions.push(is_true(kind, "ConfigurationChanged", &message));
    }
    let served = accepted.is_ok();
    let addresses = gateway.addresses.iter().filter(|_| served).flat_map(|address| match address {
        Some(address) => vec![address.to_string()],
        None => vec!["0.0.0.0".into(), "::".into()],
    });
    GatewayStatus {
        key: gateway.key.clone(),
        generation: gateway.object.metadata.generation.unwrap_or(1),
        addresses: addresses.collect(),
        attached_listener_sets: attached,
        conditions,
        listeners: gateway
            .listeners
            .iter()
            .map(|of| listener(of, gateway.is_served(), routes))
            .collect(),
    }
}

fn listener_set(
    set: &ListenerSet<'_>,
    gateway: &Gateway<'_>,
    routes: &[RouteVerdict],
) -> ListenerSetStatus {
    let accepted = set.accepted(gateway);
    let programmed = match &accepted {
        Ok(_) if gateway.is_served() => Ok(()),
        Err(refusal) if refusal.reason != "ParentNotAccepted" => Err(refusal.clone()),
        _ => {
            Err(FalseCondition::new("ParentNotProgrammed", "its Gateway is not served; see there"))
        }
    };
    let conditions = vec![
        match &accepted {
            Ok("Accepted") => is_true("Accepted", "Accepted", "the listeners are valid"),
            Ok(reason) => is_true(
                "Accepted",
                reason,
                "the listeners are valid, but for some of them; see their conditions",
            ),
            Err(refusal) => is_false("Accepted", refusal),
        },
        condition(
            "Programmed",
            "Programmed",
            "the listeners are served on the addresses of the Gateway",
            programmed.as_ref().err(),
        ),
    ];
    let served = set.is_served(gateway);
    ListenerSetStatus {
        key: set.key.clone(),
        generation: set.object.metadata.generation.unwrap_or(1),
        conditions,
        listeners: set.listeners.iter().map(|of| listener(of, served, routes)).collect(),
    }
}

fn programmed(gateway: &Gateway<'_>) -> ConditionResult {
    if let Err(refusal) = gateway.accepted() {
        return Err(FalseCondition::new("Invalid", refusal.message));
    }
    gateway.usable.clone()
}

/// Returns condition ResolvedRefs of a Gateway: its own references first, then a summary of its
/// listeners.
fn gateway_resolved(gateway: &Gateway<'_>) -> ConditionResult {
    gateway.client_resolved.clone()?;
    let unresolved: Vec<_> = gateway
        .listeners
        .iter()
        .filter(|listener| listener.resolved.is_err())
        .map(|listener| format!("`{}`", listener.spec.name))
        .collect();
    if unresolved.is_empty() {
        return Ok(());
    }
    let message = format!("references of {} are broken; see there", unresolved.join(", "));
    Err(FalseCondition::new("ListenersNotResolved", message))
}

fn listener(listener: &Listener<'_>, served: bool, routes: &[RouteVerdict]) -> ListenerStatus {
    let mut conditions = vec![condition(
        "Accepted",
        "Accepted",
        "the listener is valid",
        listener.accepted.as_ref().err(),
    )];
    if let Some(conflict) = &listener.conflict {
        conditions.push(is_true("Conflicted", conflict.reason, &conflict.message));
    }
    if let Some(message) = &listener.overlap {
        conditions.push(is_true("OverlappingTLSConfig", "OverlappingHostnames", message));
    }
    let programmed = listener_programmed(listener, served);
    conditions.push(condition(
        "Programmed",
        "Programmed",
        "the listener is served",
        programmed.as_ref().err(),
    ));
    conditions.push(condition(
        "ResolvedRefs",
        "ResolvedRefs",
        "every reference was found",
        listener.resolved.as_ref().err(),
    ));
    let accepted = listener.routes.iter().filter(|on| routes[on.route].accepted.is_ok());
    ListenerStatus {
        name: listener.spec.name.clone(),
        supported_kinds: listener.kinds.clone(),
        attached_routes: accepted.count(),
        conditions,
    }
}

/// Returns condition Programmed of a listener. `served` is true if its Gateway or ListenerSet is
/// served.
fn listener_programmed(listener: &Listener<'_>, served: bool) -> ConditionResult {
    if let Err(refusal) = &listener.accepted {
        let reason = match refusal.reason {
            "PortUnavailable" => "PortUnavailable",
            _ => listener.conflict.as_ref().map_or("Invalid", |conflict| conflict.reason),
        };
        return Err(FalseCondition::new(reason, &*refusal.message));
    }
    if !served {
        return Err(FalseCondition::new("Invalid", "what it belongs to is not served; see there"));
    }
    if !listener.ready {
        let why = "no certificate can be served, so handshakes are refused";
        return Err(FalseCondition::new("Invalid", why));
    }
    if listener.kinds.is_empty() {
        return Err(FalseCondition::new("Invalid", "it takes no kind of route"));
    }
    Ok(())
}

fn route(route: &Route<'_>, verdict: &RouteVerdict, controller: &Arc<str>) -> RouteStatus {
    let parents = route.parents.iter().map(|parent| {
        let accepted = parent.attached.clone().and_then(|()| verdict.accepted.clone());
        let mut conditions = vec![condition(
            "Accepted",
            "Accepted",
            "the route is attached",
            accepted.as_ref().err(),
        )];
        if let Some(message) = verdict.partial.as_ref().filter(|_| accepted.is_ok()) {
            conditions.push(is_true("PartiallyInvalid", "UnsupportedValue", message));
        }
        conditions.push(condition(
            "ResolvedRefs",
            "ResolvedRefs",
            "every reference was found",
            verdict.resolved.as_ref().err(),
        ));
        ParentStatus {
            parent: parent.reference.clone(),
            controller: Arc::clone(controller),
            conditions,
        }
    });
    RouteStatus {
        key: route.key.clone(),
        generation: route.object.metadata().generation.unwrap_or(1),
        parents: parents.collect(),
    }
}

fn policy(report: &PolicyReport, controller: &Arc<str>) -> PolicyStatus {
    let mut ancestors: Vec<_> = report.ancestors.iter().collect();
    let is_cut = ancestors.len() > MAX_ANCESTORS;
    if is_cut {
        ancestors.sort_by_key(|(_, of)| (of.accepted.is_ok(), of.overridden.is_none()));
        ancestors.truncate(MAX_ANCESTORS);
    }
    let last = ancestors.len().saturating_sub(1);
    let ancestors = ancestors.into_iter().enumerate().map(|(place, (ancestor, of))| {
        let mut conditions = policy_conditions(of);
        if is_cut && place == last {
            let message = "there are more ancestors than the 16 that a status may list";
            conditions.push(is_true("Aggregated", "Aggregated", message));
        }
        AncestorStatus {
            ancestor: ancestor.key.clone(),
            section: ancestor.section.clone(),
            controller: Arc::clone(controller),
            conditions,
        }
    });
    PolicyStatus {
        key: report.key.clone(),
        generation: report.generation,
        ancestors: ancestors.collect(),
    }
}

fn policy_conditions(of: &AncestorReport) -> Vec<Condition> {
    let accepted = of.accepted.as_ref().err();
    let mut conditions = vec![condition("Accepted", "Accepted", of.accepted_message, accepted)];
    if let Some(resolved) = &of.resolved {
        let message = "every reference was found";
        conditions.push(condition(
            "ResolvedRefs",
            "ResolvedRefs",
            message,
            resolved.as_ref().err(),
        ));
    }
    for (kind, message) in [("Merged", &of.merged), ("Overridden", &of.overridden)] {
        if let Some(message) = message {
            conditions.push(is_true(kind, kind, message));
        }
    }
    match &of.warnings[..] {
        [] => {}
        [(reason, message)] => conditions.push(is_true("Warning", reason, message)),
        several => {
            let (first, _) = several[0];
            let is_one = several.iter().all(|(reason, _)| *reason == first);
            let messages: Vec<&str> = several.iter().map(|(_, message)| &**message).collect();
            let reason = if is_one { first } else { "Warnings" };
            conditions.push(is_true("Warning", reason, &messages.join("; ")));
        }
    }
    conditions
}

/// Returns a condition: True with `reason` and `message` if nothing was refused, else False.
fn condition(
    kind: &'static str,
    reason: &'static str,
    message: &str,
    refused: Option<&FalseCondition>,
) -> Condition {
    refused.map_or_else(|| is_true(kind, reason, message), |refusal| is_false(kind, refusal))
}

fn is_true(kind: &'static str, reason: &'static str, message: &str) -> Condition {
    Condition {
        kind,
        status: ConditionStatus::True,
        reason,
        message: message.into(),
        last_transition: None,
    }
}

fn is_false(kind: &'static str, refusal: &FalseCondition) -> Condition {
    Condition {
        kind,
        status: ConditionStatus::False,
        reason: refusal.reason,
        message: refusal.message.clone(),
        last_transition: None,
    }
}
