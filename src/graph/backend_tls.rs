//! TLS settings of backends, and the certificate authorities for them.
//!
//! A backend for which a policy or its own spec configures TLS never receives cleartext: if the
//! settings cannot be used, it receives no requests.

use std::sync::Arc;

use crate::api::{LocalObjectReference, ObjectKey};
use crate::config::Origin;

use super::ca_certificate_refs::{self, Unusable};
use super::credentials::{NamedAuthorities, NamedCertificate};
use super::facts::LoadFacts;
use super::index::ObjectIndex;
use super::verdict::{ConditionResult, FalseCondition, Faults, refuse};

/// The value of `wellKnownCACertificates` for the authorities that the host trusts.
const SYSTEM: &str = "System";

/// The encryption of the connections to a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encryption {
    #[default]
    Clear,
    /// The TLS settings cannot be used; the backend receives no requests.
    Refused,
    Tls(Arc<UpstreamTls>),
}

/// The TLS settings of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UpstreamTls {
    pub authorities: NamedAuthorities,
    /// The server name (SNI) of handshakes. `None` if nothing is verified and no name is known.
    pub server_name: Option<String>,
    /// The names of which the certificate must have at least one. If empty, the certificate must
    /// cover `server_name`.
    pub names: Vec<ExpectedAltName>,
    /// The client certificate for this backend. It replaces the client certificate of the Gateway.
    pub client: Option<NamedCertificate>,
}

/// A name that the certificate of a backend may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExpectedAltName {
    /// A hostname. Its first label may be a wildcard.
    Hostname(String),
    Uri(String),
}

/// Certificate authorities after their lookup.
pub(super) struct AuthoritiesFound {
    /// `None` if no authority can be used.
    pub authorities: Option<NamedAuthorities>,
    /// Condition ResolvedRefs.
    pub resolved: ConditionResult,
    /// Condition Accepted, as far as it depends on at least one usable authority.
    pub valid: ConditionResult,
}

/// Looks up the certificate authorities for a backend. The reasons are those of a BackendTLSPolicy.
pub(super) fn authorities_of(
    references: &[LocalObjectReference],
    well_known: Option<&str>,
    key: &ObjectKey,
    at: &str,
    index: &ObjectIndex<'_>,
    facts: &LoadFacts<'_>,
    faults: &mut Faults,
) -> AuthoritiesFound {
    if references.is_empty() {
        let field = format!("{at}.wellKnownCACertificates");
        let valid = match well_known {
            Some(SYSTEM) => (facts.authorities)(&NamedAuthorities::System)
                .map_err(|why| FalseCondition::new("NoValidCACertificate", why)),
            Some(word) => {
                let message =
                    format!("`{word}` is no set of authorities known here; use `{SYSTEM}`");
                Err(FalseCondition::new("Invalid", message))
            }
            // This breaks a rule of the kind and is already reported.
            None => {
                let valid = Err(FalseCondition::new("Invalid", "no authorities are named"));
                return AuthoritiesFound { authorities: None, resolved: Ok(()), valid };
            }
        };
        if let Err(refusal) = &valid {
            let origin = match well_known {
                Some(SYSTEM) => Origin::Host,
                _ => Origin::Written,
            };
            faults.error_of(origin, key, field, &*refusal.message);
        }
        let authorities = valid.is_ok().then_some(NamedAuthorities::System);
        return AuthoritiesFound { authorities, resolved: Ok(()), valid };
    }
    let mut resolved = Ok(());
    let mut bundles = Vec::new();
    for (place, reference) in references.iter().enumerate() {
        let LocalObjectReference { group, kind, name } = reference;
        match ca_certificate_refs::look_up((group, kind), &key.namespace, name, index, facts) {
            Ok(bundle) => bundles.push(bundle),
            Err(unusable) => {
                let (reason, problem) = match unusable {
                    Unusable::Kind(problem) => ("InvalidKind", problem),
                    Unusable::Content(problem) => ("InvalidCACertificateRef", problem),
                };
                faults.error(key, format!("{at}.caCertificateRefs[{place}]"), &*problem);
                refuse(&mut resolved, FalseCondition::new(reason, problem));
            }
        }
    }
    let valid = match (&resolved, bundles.is_empty()) {
        (Err(refusal), true) => {
            let message = format!("there is no CA to check the backend by: {}", refusal.message);
            Err(FalseCondition::new("NoValidCACertificate", message))
        }
        _ => Ok(()),
    };
    let authorities = (!bundles.is_empty()).then_some(NamedAuthorities::Pem(bundles));
    AuthoritiesFound { authorities, resolved, valid }
}
