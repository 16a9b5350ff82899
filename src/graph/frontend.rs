//! `spec.tls.frontend`: validation of the client certificates of HTTPS listeners (GEP-91).

use crate::api::{
    self, FrontendTlsSettings, FrontendTlsValidation, FrontendValidationMode, GATEWAY_GROUP,
    ObjectKey, ObjectReference, Protocol,
};

use super::ca_certificate_refs::{self, Unusable};
use super::credentials::NamedAuthorities;
use super::facts::LoadFacts;
use super::grants::{Referent, Referrer, advice};
use super::index::ObjectIndex;
use super::listeners::{FrontendValidation, Listener};
use super::verdict::{ConditionResult, FalseCondition, Faults, refuse};

/// The validation for some ports, after the lookup of its references.
#[derive(Clone, Debug)]
struct PortValidation {
    /// `None` if no authority can be used; then no client is accepted.
    validation: Option<FrontendValidation>,
    /// Condition ResolvedRefs of the listeners that the validation applies to.
    resolved: ConditionResult,
}

/// Applies the client validation of the Gateway to its HTTPS listeners. The setting of a port
/// replaces the default, even if it is empty.
pub(super) fn apply(
    gateway: &api::Gateway,
    key: &ObjectKey,
    listeners: &mut [Listener<'_>],
    index: &ObjectIndex<'_>,
    facts: &LoadFacts<'_>,
    faults: &mut Faults,
) {
    let frontend = gateway.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref());
    let Some(frontend) = frontend else { return };
    let mut look_up = |settings: &FrontendTlsSettings, at: &str| {
        let validation = settings.validation.as_ref()?;
        let at = format!("spec.tls.frontend.{at}.validation");
        Some(found(validation, key, &at, index, facts, faults))
    };
    let default = look_up(&frontend.default, "default");
    let per_port: Vec<(u16, Option<PortValidation>)> = frontend
        .per_port
        .iter()
        .enumerate()
        .map(|(place, of)| (of.port, look_up(&of.tls, &format!("perPort[{place}].tls"))))
        .collect();
    for listener in listeners.iter_mut().filter(|of| of.spec.protocol == Protocol::Https) {
        let of_port = per_port.iter().find(|(port, _)| *port == listener.spec.port);
        let Some(found) = of_port.map_or(&default, |(_, found)| found) else { continue };
        if let Err(refusal) = &found.resolved {
            refuse(&mut listener.resolved, refusal.clone());
        }
        listener.clients.clone_from(&found.validation);
        if found.validation.is_none() {
            let why = found.resolved.as_ref().err().map_or("", |refusal| &refusal.message);
            let message = format!("there is no CA to check client certificates by: {why}");
            refuse(&mut listener.accepted, FalseCondition::new("NoValidCACertificate", message));
        }
    }
}

/// Returns the ports that accept clients without a valid certificate.
pub(super) fn insecure(gateway: &api::Gateway) -> Vec<String> {
    let frontend = gateway.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref());
    let Some(frontend) = frontend else { return Vec::new() };
    let falls_back = |settings: &FrontendTlsSettings| {
        settings.validation.as_ref().is_some_and(|of| {
            of.mode.as_ref() == Some(&FrontendValidationMode::AllowInsecureFallback)
        })
    };
    let ports = frontend.per_port.iter().filter(|of| falls_back(&of.tls));
    let ports = ports.map(|of| format!("port {}", of.port));
    falls_back(&frontend.default)
        .then(|| "the default".to_owned())
        .into_iter()
        .chain(ports)
        .collect()
}

fn found(
    validation: &FrontendTlsValidation,
    gateway: &ObjectKey,
    at: &str,
    index: &ObjectIndex<'_>,
    facts: &LoadFacts<'_>,
    faults: &mut Faults,
) -> PortValidation {
    let mut resolved = Ok(());
    let mut bundles = Vec::new();
    for (place, reference) in validation.ca_certificate_refs.iter().enumerate() {
        match bundle(reference, gateway, index, facts) {
            Ok(bundle) => bundles.push(bundle),
            Err(refusal) => {
                let field = format!("{at}.caCertificateRefs[{place}]");
                faults.error(gateway, field, &*refusal.message);
                refuse(&mut resolved, refusal);
            }
        }
    }
    let insecure_fallback = match &validation.mode {
        None | Some(FrontendValidationMode::AllowValidOnly) => false,
        Some(FrontendValidationMode::AllowInsecureFallback) => true,
        // This breaks a rule of the kind: the Gateway is not served.
        Some(FrontendValidationMode::Unknown(_)) => false,
    };
    let authorities = NamedAuthorities::Pem(bundles);
    let validation = (authorities != NamedAuthorities::Pem(Vec::new()))
        .then_some(FrontendValidation { authorities, insecure_fallback });
    PortValidation { validation, resolved }
}

fn bundle(
    reference: &ObjectReference,
    gateway: &ObjectKey,
    index: &ObjectIndex<'_>,
    facts: &LoadFacts<'_>,
) -> Result<Vec<u8>, FalseCondition> {
    let ObjectReference { group, kind, name, namespace } = reference;
    let namespace = namespace.as_deref().unwrap_or(&gateway.namespace);
    let from = Referrer { group: GATEWAY_GROUP, kind: "Gateway", namespace: &gateway.namespace };
    let to = Referent { group, kind, namespace, name };
    if !index.permits(from, to) {
        return Err(FalseCondition::new("RefNotPermitted", advice(from, to)));
    }
    ca_certificate_refs::look_up((group, kind), namespace, name, index, facts).map_err(|why| {
        match why {
            Unusable::Kind(problem) => FalseCondition::new("InvalidCACertificateKind", problem),
            Unusable::Content(problem) => FalseCondition::new("InvalidCACertificateRef", problem),
        }
    })
}
