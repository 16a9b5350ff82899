//! Resolution of caCertificateRefs: bundles of certificate authorities.

use crate::api::{CORE_GROUP, Kind, ObjectKey};

use super::credentials::NamedAuthorities;
use super::facts::LoadFacts;
use super::index::ObjectIndex;

/// The key of a ConfigMap or Secret that holds a CA bundle.
const BUNDLE: &str = "ca.crt";

/// The reason why a reference to authorities cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// The kind of the referent holds no authorities.
    Kind(String),
    /// The referent does not exist, or has no usable authorities.
    Content(String),
}

/// Returns the PEM bundle that a reference resolves to. The caller has checked ReferenceGrants.
///
/// # Errors
///
/// The reference or its referent is wrong; the message says what would be right.
pub(super) fn look_up(
    (group, kind): (&str, &str),
    namespace: &str,
    name: &str,
    index: &ObjectIndex<'_>,
    facts: &LoadFacts<'_>,
) -> Result<Vec<u8>, Unusable> {
    let kind = match (group, kind) {
        (CORE_GROUP, "ConfigMap") => Kind::ConfigMap,
        (CORE_GROUP, "Secret") => Kind::Secret,
        (group, kind) => {
            let kind = match group {
                CORE_GROUP => kind.to_owned(),
                group => format!("{kind}.{group}"),
            };
            let problem =
                format!("`{kind}` holds no CA certificates; refer to a ConfigMap or a Secret");
            return Err(Unusable::Kind(problem));
        }
    };
    let object = format!("{kind} `{namespace}/{name}`");
    if let Some(fault) = index.broken(&ObjectKey::new(kind, namespace, name)).next() {
        return Err(Unusable::Content(format!("{object} is not valid: {fault}")));
    }
    let value = match kind {
        Kind::ConfigMap => {
            index.config_map(namespace, name).map(|map| map.data.get(BUNDLE).map(String::as_bytes))
        }
        _ => index.secret(namespace, name).map(|secret| secret.value(BUNDLE)),
    };
    let Some(value) = value else {
        return Err(Unusable::Content(format!("there is no {object}")));
    };
    let Some(value) = value.filter(|value| !value.trim_ascii().is_empty()) else {
        let problem =
            format!("{object} has no `{BUNDLE}`; write the CA certificates there, in PEM");
        return Err(Unusable::Content(problem));
    };
    let bundle = NamedAuthorities::Pem(vec![value.to_vec()]);
    match (facts.authorities)(&bundle) {
        Ok(()) => Ok(value.to_vec()),
        Err(why) => Err(Unusable::Content(format!("`{BUNDLE}` of {object}: {why}"))),
    }
}
