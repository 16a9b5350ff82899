//! TLS to backends: how they are spoken to, and whose certificates are believed.
//!
//! A backend that something asks TLS for is never spoken to in clear: where what asks cannot be
//! used, no request goes there.

use std::sync::Arc;

use crate::api::{LocalObjectReference, ObjectKey};
use crate::config::Origin;

use super::ca_certificate_refs::{self, Unusable};
use super::credentials::{Authorities, Certificate};
use super::facts::Facts;
use super::index::Index;
use super::verdict::{Faults, Judged, Refusal, refuse};

/// The word for the authorities that the host trusts.
const SYSTEM: &str = "System";

/// Whether the endpoints of a backend are spoken to by TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encryption {
    #[default]
    Clear,
    /// TLS is asked for by something that cannot be used: no request may go there.
    Refused,
    Tls(Arc<BackendTls>),
}

/// How a backend is spoken to by TLS, and how it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackendTls {
    pub authorities: Authorities,
    /// What the handshake asks for. None where nothing is verified and no name is known.
    pub server_name: Option<String>,
    /// Of these the certificate must have one. Where there are none it must be for `server_name`.
    pub names: Vec<AltName>,
    /// What is shown to this backend in place of the Gateway's client certificate.
    pub client: Option<Certificate>,
}

/// A name that a certificate may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AltName {
    /// Possibly with a wildcard as its first label.
    Hostname(String),
    Uri(String),
}

/// Whom to believe, looked up.
pub(super) struct Found {
    /// None if there is nobody.
    pub authorities: Option<Authorities>,
    /// Whether every reference can be used.
    pub resolved: Judged,
    /// Whether there is anybody.
    pub valid: Judged,
}

/// Reasons are those of a BackendTLSPolicy.
pub(super) fn authorities_of(
    references: &[LocalObjectReference],
    well_known: Option<&str>,
    key: &ObjectKey,
    at: &str,
    index: &Index<'_>,
    facts: &Facts<'_>,
    faults: &mut Faults,
) -> Found {
    if references.is_empty() {
        let field = format!("{at}.wellKnownCACertificates");
        let valid = match well_known {
            Some(SYSTEM) => (facts.authorities)(&Authorities::System)
                .map_err(|why| Refusal::new("NoValidCACertificate", why)),
            Some(word) => {
                let message =
                    format!("`{word}` is no set of authorities known here; use `{SYSTEM}`");
                Err(Refusal::new("Invalid", message))
            }
            // A rule of the kind is broken, and told.
            None => {
                let valid = Err(Refusal::new("Invalid", "no authorities are named"));
                return Found { authorities: None, resolved: Ok(()), valid };
            }
        };
        if let Err(refusal) = &valid {
            let origin = match well_known {
                Some(SYSTEM) => Origin::Host,
                _ => Origin::Written,
            };
            faults.error_of(origin, key, field, &*refusal.message);
        }
        let authorities = valid.is_ok().then_some(Authorities::System);
        return Found { authorities, resolved: Ok(()), valid };
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
                refuse(&mut resolved, Refusal::new(reason, problem));
            }
        }
    }
    let valid = match (&resolved, bundles.is_empty()) {
        (Err(refusal), true) => {
            let message = format!("there is no CA to check the backend by: {}", refusal.message);
            Err(Refusal::new("NoValidCACertificate", message))
        }
        _ => Ok(()),
    };
    let authorities = (!bundles.is_empty()).then_some(Authorities::Pem(bundles));
    Found { authorities, resolved, valid }
}
