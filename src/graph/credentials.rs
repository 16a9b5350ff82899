//! Certificates and certificate authorities, as far as objects name them.

use crate::secret;

/// A certificate that a listener or a backend names, not read yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NamedCertificate {
    /// A pair in PEM, written in the Secret.
    Inline { object: String, chain: Vec<u8>, key: secret::Secret<Vec<u8>> },
    /// A certbot lineage: the newest that is for `host`, the listener's hostname; by `names` where
    /// that does not tell. Where it was `chosen`, it is the one name and its variants alone.
    Lineage { object: String, names: Vec<String>, host: Option<String>, chosen: bool },
}

/// The state of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    pub ready: bool,
    /// The problem with what was found, also where an older version is still served.
    pub problem: Option<String>,
}

/// Certificate authorities that an object names, not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NamedAuthorities {
    /// None: any certificate is accepted (`insecureSkipVerify`).
    Nobody,
    /// Bundles of certificates in PEM.
    Pem(Vec<Vec<u8>>),
    /// The authorities that the host trusts.
    System,
}
