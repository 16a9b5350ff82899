//! GatewayClasses and Gateways of this controller, and their conditions.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::api::{self, FromNamespaces, Kind, ObjectKey};
use crate::config::Origin;

use super::addresses::{self, Addresses, Allocation};
use super::certificate_refs;
use super::credentials::NamedCertificate;
use super::facts::{Held, LoadFacts};
use super::frontend;
use super::index::ObjectIndex;
use super::listeners::{self, Listener, ListenerOwner};
use super::proxies::Proxies;
use super::verdict::{ConditionResult, FalseCondition, Faults};

/// A GatewayClass with the `controllerName` of this controller.
#[derive(Debug)]
pub(crate) struct Class<'a> {
    pub object: &'a api::GatewayClass,
    /// Condition Accepted.
    pub accepted: ConditionResult,
    /// The EnvoyProxy for Gateways of the class that have none of their own, as an index in
    /// `Graph::proxies`.
    pub proxy: Option<usize>,
}

/// A Gateway of one of this controller's classes.
#[derive(Debug)]
pub(crate) struct Gateway<'a> {
    pub object: &'a api::Gateway,
    pub key: ObjectKey,
    /// The addresses to listen on; `None` is every address of the host. Empty if no address can be
    /// used.
    pub addresses: Vec<Option<IpAddr>>,
    /// The listeners, in the order in which they are written.
    pub listeners: Vec<Listener<'a>>,
    /// `Ok` if the Gateway as a whole can be served. Its listeners are judged separately.
    pub(super) valid: ConditionResult,
    /// `Ok` if every requested address can be listened on.
    pub(super) usable: ConditionResult,
    /// The client certificate for connections to backends with TLS.
    pub client_certificate: Option<NamedCertificate>,
    /// `Ok` if that certificate can be used, or if none is configured.
    pub(super) client_resolved: ConditionResult,
    /// The EnvoyProxy of the Gateway, or else of its class, as an index in `Graph::proxies`.
    pub proxy: Option<usize>,
}

impl Gateway<'_> {
    /// Returns condition Accepted: the reason if it is True, the refusal if it is False.
    ///
    /// If only some listeners are not accepted, the Gateway is accepted with reason
    /// ListenersNotValid. If none is accepted, the Gateway is not (conformance
    /// GatewayListenerUnsupportedProtocol).
    pub(super) fn accepted(&self) -> Result<&'static str, FalseCondition> {
        self.valid.clone()?;
        let refused: Vec<_> = self
            .listeners
            .iter()
            .filter(|listener| listener.accepted.is_err())
            .map(|listener| format!("`{}`", listener.spec.name))
            .collect();
        if refused.is_empty() {
            Ok("Accepted")
        } else if refused.len() < self.listeners.len() {
            Ok("ListenersNotValid")
        } else {
            let message = format!("no listener is valid: {}", refused.join(", "));
            Err(FalseCondition::new("ListenersNotValid", message))
        }
    }

    /// Returns true if the Gateway is accepted and has an address to listen on.
    pub(crate) fn is_served(&self) -> bool {
        self.accepted().is_ok() && !self.addresses.is_empty()
    }
}

/// Returns the GatewayClasses of this controller.
pub(super) fn classes<'a>(
    index: &ObjectIndex<'a>,
    proxies: &Proxies<'_>,
    facts: &LoadFacts<'_>,
    faults: &mut Faults,
) -> Vec<Class<'a>> {
    let ours =
        index.classes.iter().filter(|class| class.spec.controller_name == facts.controller_name);
    ours.map(|class| {
        let key = ObjectKey::new(Kind::GatewayClass, "", &class.metadata.name);
        let broken = index.broken(&key).next().map_or(Ok(()), |fault| {
            Err(FalseCondition::new("InvalidParameters", fault.to_string()))
        });
        let written = class.spec.parameters_ref.as_ref();
        let parameters = written.map(|written| Parameters {
            group: &written.group,
            kind: &written.kind,
            meant: class.envoy_proxy(),
        });
        let lookup = ParametersLookup { key: &key, field: "spec.parametersRef", index, proxies };
        let found = judge_parameters(parameters, lookup, faults);
        let proxy = found.as_ref().ok().copied().flatten();
        let accepted = [broken, found.map(|_| ())].into_iter().collect();
        Class { object: class, accepted, proxy }
    })
    .collect()
}

/// Returns the Gateways of `classes`, each with its listeners judged by themselves, and the
/// addresses of the pool by holder.
pub(super) fn gateways<'a>(
    index: &ObjectIndex<'a>,
    classes: &[Class<'_>],
    proxies: &Proxies<'_>,
    facts: &LoadFacts<'_>,
    faults: &mut Faults,
) -> (Vec<Gateway<'a>>, Held) {
    let mut allocation = Allocation::new(index, facts);
    let ours: HashMap<&str, &Class<'_>> =
        classes.iter().map(|class| (&*class.object.metadata.name, class)).collect();
    let mut gateways = Vec::new();
    for object in &index.gateways {
        let key = ObjectKey::new(Kind::Gateway, object.metadata.namespace(), &object.metadata.name);
        let class_name = &*object.spec.gateway_class_name;
        let Some(class) = ours.get(class_name) else {
            say_why_not_ours(&key, class_name, index, facts, faults);
            continue;
        };
        let owner = ListenerOwner { gateway: key.clone(), listener_set: None };
        let specs = object.spec.listeners.iter().enumerate();
        let mut listeners: Vec<_> = specs
            .map(|(place, spec)| listeners::judge(&owner, spec, place, index, facts, faults))
            .collect();
        frontend::apply(object, &key, &mut listeners, index, facts, faults);
        let client = client_certificate(object, &key, index, facts, faults);
        let Addresses { found: addresses, supported, usable } =
            addresses::judge(object, &key, &mut allocation, facts, faults);
        let infrastructure = object.spec.infrastructure.as_ref();
        let written = infrastructure.and_then(|of| of.parameters_ref.as_ref());
        let parameters = written.map(|written| Parameters {
            group: &written.group,
            kind: &written.kind,
            meant: object.envoy_proxy(),
        });
        let field = "spec.infrastructure.parametersRef";
        let lookup = ParametersLookup { key: &key, field, index, proxies };
        let own = judge_parameters(parameters, lookup, faults);
        let proxy = own.as_ref().ok().copied().flatten().or(class.proxy);
        // Every part is judged, so that every fault is reported.
        let judged = [
            judge_class(class, &key, faults),
            judge_rules(&key, index),
            own.map(|_| ()),
            supported,
        ];
        let valid = judged.into_iter().collect();
        judge_allowed_listeners(object, &key, faults);
        warn_of_unsupported(object, &key, faults);
        let client_resolved =
            client.as_ref().map_or_else(|refusal| Err(refusal.clone()), |_| Ok(()));
        gateways.push(Gateway {
            object,
            key,
            addresses,
            listeners,
            valid,
            usable,
            client_certificate: client.ok().flatten(),
            client_resolved,
            proxy,
        });
    }
    (gateways, allocation.finish())
}

/// Reports faults of `allowedListeners` of a Gateway. With such a fault it accepts fewer
/// ListenerSets.
fn judge_allowed_listeners(gateway: &api::Gateway, key: &ObjectKey, faults: &mut Faults) {
    let allowed = gateway.spec.allowed_listeners.as_ref().and_then(|of| of.namespaces.as_ref());
    let Some(allowed) = allowed.filter(|of| of.from == Some(FromNamespaces::Selector)) else {
        return;
    };
    let field = "spec.allowedListeners.namespaces";
    match &allowed.selector {
        None => {
            let problem = "`from: Selector` needs a `selector`; add one, or use All";
            faults.error(key, field, problem);
        }
        Some(selector) => {
            for (rest, problem) in listeners::selector_faults(selector) {
                faults.error(key, format!("{field}.selector.{rest}"), problem);
            }
        }
    }
}

/// Looks up `spec.tls.backend.clientCertificateRef`. Without it, backends that request a client
/// certificate receive none; they decide whether to accept the connection.
fn client_certificate(
    gateway: &api::Gateway,
    key: &ObjectKey,
    index: &ObjectIndex<'_>,
    facts: &LoadFacts<'_>,
    faults: &mut Faults,
) -> Result<Option<NamedCertificate>, FalseCondition> {
    let backend = gateway.spec.tls.as_ref().and_then(|tls| tls.backend.as_ref());
    let Some(reference) = backend.and_then(|of| of.client_certificate_ref.as_ref()) else {
        return Ok(None);
    };
    match certificate_refs::of_client(key, reference, index, facts) {
        Ok(certificate) => Ok(Some(certificate)),
        Err(refusal) => {
            faults.error(key, "spec.tls.backend.clientCertificateRef", &*refusal.message);
            Err(refusal)
        }
    }
}

fn say_why_not_ours(
    key: &ObjectKey,
    class_name: &str,
    index: &ObjectIndex<'_>,
    facts: &LoadFacts<'_>,
    faults: &mut Faults,
) {
    let field = "spec.gatewayClassName";
    match index.classes.iter().find(|class| class.metadata.name == class_name) {
        Some(class) => faults.warning(
            key,
            field,
            format!(
                "not served here: GatewayClass `{class_name}` belongs to controller `{}`; this one \
                 is `{}`",
                class.spec.controller_name, facts.controller_name
            ),
        ),
        None => faults.error_of(
            Origin::Referent(ObjectKey::new(Kind::GatewayClass, "", class_name)),
            key,
            field,
            format!(
                "there is no GatewayClass `{class_name}`; add one with controllerName `{}`",
                facts.controller_name
            ),
        ),
    }
}

fn judge_class(class: &Class<'_>, key: &ObjectKey, faults: &mut Faults) -> ConditionResult {
    let Err(refusal) = &class.accepted else { return Ok(()) };
    let name = &class.object.metadata.name;
    let problem = format!("GatewayClass `{name}` is not accepted: {}", refusal.message);
    let origin = Origin::Referent(ObjectKey::new(Kind::GatewayClass, "", name));
    faults.error_of(origin, key, "spec.gatewayClassName", &*problem);
    Err(FalseCondition::new("Invalid", problem))
}

/// Judges the Gateway by the rules of its kind, except for those that concern a single listener.
fn judge_rules(key: &ObjectKey, index: &ObjectIndex<'_>) -> ConditionResult {
    let mut broken = index.broken(key).filter(|fault| listeners::place_of(&fault.field).is_none());
    broken.next().map_or(Ok(()), |fault| Err(FalseCondition::new("Invalid", fault.to_string())))
}

/// A reference of a class or Gateway to its parameters.
struct Parameters<'a> {
    group: &'a str,
    kind: &'a str,
    /// `None` if the reference is not to an EnvoyProxy.
    meant: Option<ObjectKey>,
}

/// The referring object and field, and the indexes for the lookup.
#[derive(Clone, Copy)]
struct ParametersLookup<'l> {
    key: &'l ObjectKey,
    field: &'l str,
    index: &'l ObjectIndex<'l>,
    proxies: &'l Proxies<'l>,
}

/// Returns the EnvoyProxy that the parameters refer to, as an index. Any other reference is
/// refused: the specification requires that if the referent is not found, not supported or
/// malformed.
fn judge_parameters(
    parameters: Option<Parameters<'_>>,
    lookup: ParametersLookup<'_>,
    faults: &mut Faults,
) -> Result<Option<usize>, FalseCondition> {
    let Some(Parameters { group, kind, meant }) = parameters else { return Ok(None) };
    let ParametersLookup { key, field, index, proxies } = lookup;
    let origin = meant.clone().map_or(Origin::Written, Origin::Referent);
    let problem = if let Some(meant) = meant {
        match (proxies.find(&meant), index.broken(&meant).next()) {
            (Some(place), None) => return Ok(Some(place)),
            (Some(_), Some(fault)) => format!("{meant} is not valid: {fault}"),
            (None, _) => format!(
                "there is no EnvoyProxy `{}/{}`; write it, or leave the reference out",
                meant.namespace, meant.name
            ),
        }
    } else {
        let kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        format!("`{kind}` holds no parameters of this gateway; leave the reference out")
    };
    faults.error_of(origin, key, field, &*problem);
    Err(FalseCondition::new("InvalidParameters", problem))
}

fn warn_of_unsupported(gateway: &api::Gateway, key: &ObjectKey, faults: &mut Faults) {
    let spec = &gateway.spec;
    let mut not_yet = |field: &str, is: bool, what: &str| {
        if is {
            faults.warning(key, field, format!("{what} not supported yet; this changes nothing"));
        }
    };
    not_yet("spec.defaultScope", spec.default_scope.is_some(), "default Gateways are");
}
