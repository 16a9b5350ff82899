//! Certificates and certificate authorities, as objects name them.

use crate::secret;

/// A certificate that a listener or a backend names, not read yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NamedCertificate {
    /// A key pair in PEM from the Secret.
    Inline { object: String, chain: Vec<u8>, key: secret::Secret<Vec<u8>> },
    /// A certbot lineage: the newest one that covers `host`, the listener's hostname; if that does
    /// not decide, the first of `names` that has one. If it was `chosen`, only that one name and
    /// its variants count.
    Lineage { object: String, names: Vec<String>, host: Option<String>, chosen: bool },
}

/// The state of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    pub ready: bool,
    /// The problem with the certificate that was found. Also set while an older version is still
    /// served.
    pub problem: Option<String>,
}

/// Certificate authorities that an object names, not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NamedAuthorities {
    /// No authorities: any certificate is accepted (`insecureSkipVerify`).
    Nobody,
    /// Bundles of CA certificates in PEM.
    Pem(Vec<Vec<u8>>),
    /// The authorities that the host trusts.
    System,
}
