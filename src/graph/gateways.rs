//! GatewayClasses and Gateways: which are ours, and whether they can be served.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::api::{self, ENVOY_GROUP, Kind, ObjectKey};

use super::addresses::{self, Addresses, Allocation, Held};
use super::certificates::{self, Certificate};
use super::frontend;
use super::index::Index;
use super::listener_sets;
use super::listeners::{self, Listener, Owner};
use super::{Facts, Faults, Judged, Refusal};

/// A GatewayClass that names our controller.
#[derive(Debug)]
pub(crate) struct Class<'a> {
    pub object: &'a api::GatewayClass,
    /// Condition Accepted.
    pub accepted: Judged,
}

/// A Gateway of one of our classes.
#[derive(Debug)]
pub(crate) struct Gateway<'a> {
    pub object: &'a api::Gateway,
    pub key: ObjectKey,
    /// Where it listens; `None` is every address of the host. Empty if no address can be used.
    pub addresses: Vec<Option<IpAddr>>,
    /// In the order in which they are written.
    pub listeners: Vec<Listener<'a>>,
    /// Whether the Gateway as a whole can be served, its listeners aside.
    pub(super) valid: Judged,
    /// Whether every address that was asked for can be listened on.
    pub(super) usable: Judged,
    /// What is shown to backends that are spoken to by TLS.
    pub client_certificate: Option<Certificate>,
    /// Whether what is to be shown to backends can be.
    pub(super) client_resolved: Judged,
}

impl Gateway<'_> {
    /// Condition Accepted, and the reason that goes with it where it is True.
    ///
    /// Some listeners that are not accepted leave the Gateway accepted with reason
    /// ListenersNotValid, all of them do not (conformance GatewayListenerUnsupportedProtocol).
    pub(super) fn accepted(&self) -> Result<&'static str, Refusal> {
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
            Err(Refusal::new("ListenersNotValid", message))
        }
    }

    /// True if anything of it is served.
    pub(crate) fn is_served(&self) -> bool {
        self.accepted().is_ok() && !self.addresses.is_empty()
    }
}

/// The classes that are ours.
pub(super) fn classes<'a>(
    index: &Index<'a>,
    facts: &Facts<'_>,
    faults: &mut Faults,
) -> Vec<Class<'a>> {
    let ours =
        index.classes.iter().filter(|class| class.spec.controller_name == facts.controller_name);
    ours.map(|class| {
        let key = ObjectKey::new(Kind::GatewayClass, "", &class.metadata.name);
        let parameters = class.spec.parameters_ref.as_ref().map(|parameters| Parameters {
            group: &parameters.group,
            kind: &parameters.kind,
            namespace: parameters.namespace.as_deref().unwrap_or_default(),
            name: &parameters.name,
        });
        let broken = index.broken(&key).next().map_or(Ok(()), |(field, problem)| {
            Err(Refusal::new("InvalidParameters", format!("{field}: {problem}")))
        });
        let found = judge_parameters(parameters, &key, "spec.parametersRef", index, faults);
        let accepted = [broken, found].into_iter().collect();
        Class { object: class, accepted }
    })
    .collect()
}

/// The Gateways of `classes`, each with its listeners judged by themselves, and who holds which
/// address of the pool.
pub(super) fn gateways<'a>(
    index: &Index<'a>,
    classes: &[Class<'_>],
    facts: &Facts<'_>,
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
        let owner = Owner { key: &key, metadata: &object.metadata, gateway: object };
        let specs = object.spec.listeners.iter().enumerate();
        let mut listeners: Vec<_> = specs
            .map(|(place, spec)| listeners::judge(owner, spec, place, index, facts, faults))
            .collect();
        frontend::apply(object, &key, &mut listeners, index, facts, faults);
        let client = client_certificate(object, &key, index, facts, faults);
        let Addresses { found: addresses, supported, usable } =
            addresses::judge(object, &key, &mut allocation, facts, faults);
        let infrastructure = object.spec.infrastructure.as_ref();
        let parameters = infrastructure.and_then(|of| of.parameters_ref.as_ref());
        let parameters = parameters.map(|parameters| Parameters {
            group: &parameters.group,
            kind: &parameters.kind,
            namespace: object.metadata.namespace(),
            name: &parameters.name,
        });
        let field = "spec.infrastructure.parametersRef";
        // Each is judged, so that each is told.
        let judged = [
            judge_class(class, &key, faults),
            judge_rules(&key, index),
            judge_parameters(parameters, &key, field, index, faults),
            supported,
        ];
        let valid = judged.into_iter().collect();
        listener_sets::judge_allowed(object, &key, faults);
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
        });
    }
    (gateways, allocation.finish())
}

/// `spec.tls.backend.clientCertificateRef`. Without it backends that ask for a certificate get none,
/// and say themselves what comes of that.
fn client_certificate(
    gateway: &api::Gateway,
    key: &ObjectKey,
    index: &Index<'_>,
    facts: &Facts<'_>,
    faults: &mut Faults,
) -> Result<Option<Certificate>, Refusal> {
    let backend = gateway.spec.tls.as_ref().and_then(|tls| tls.backend.as_ref());
    let Some(reference) = backend.and_then(|of| of.client_certificate_ref.as_ref()) else {
        return Ok(None);
    };
    match certificates::of_client(key, reference, index, facts) {
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
    index: &Index<'_>,
    facts: &Facts<'_>,
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
        None => faults.error(
            key,
            field,
            format!(
                "there is no GatewayClass `{class_name}`; add one with controllerName `{}`",
                facts.controller_name
            ),
        ),
    }
}

fn judge_class(class: &Class<'_>, key: &ObjectKey, faults: &mut Faults) -> Judged {
    let Err(refusal) = &class.accepted else { return Ok(()) };
    let name = &class.object.metadata.name;
    let problem = format!("GatewayClass `{name}` is not accepted: {}", refusal.message);
    faults.error(key, "spec.gatewayClassName", &*problem);
    Err(Refusal::new("Invalid", problem))
}

/// The rules of its kind that the Gateway breaks, those of single listeners aside.
fn judge_rules(key: &ObjectKey, index: &Index<'_>) -> Judged {
    let mut broken = index.broken(key).filter(|(field, _)| listeners::place_of(field).is_none());
    broken.next().map_or(Ok(()), |(field, problem)| {
        Err(Refusal::new("Invalid", format!("{field}: {problem}")))
    })
}

/// A reference to settings of a class or Gateway.
#[derive(Clone, Copy)]
struct Parameters<'a> {
    group: &'a str,
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
}

/// Settings of a kind that is known, EnvoyProxy, are passed over with a warning; anything else is
/// refused, as the specification asks where the referent is not found or not supported.
fn judge_parameters(
    parameters: Option<Parameters<'_>>,
    key: &ObjectKey,
    field: &str,
    index: &Index<'_>,
    faults: &mut Faults,
) -> Judged {
    let Some(Parameters { group, kind, namespace, name }) = parameters else { return Ok(()) };
    let known = (group, kind) == (ENVOY_GROUP, "EnvoyProxy");
    if known && index.has_other(Kind::Other("EnvoyProxy"), namespace, name) {
        let problem =
            format!("EnvoyProxy `{namespace}/{name}` is not supported yet and changes nothing");
        faults.warning(key, field, problem);
        return Ok(());
    }
    let problem = if known {
        format!("there is no EnvoyProxy `{namespace}/{name}`; write it, or leave the reference out")
    } else {
        let kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        format!("`{kind}` holds no parameters of this gateway; leave the reference out")
    };
    faults.error(key, field, &*problem);
    Err(Refusal::new("InvalidParameters", problem))
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
