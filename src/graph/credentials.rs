//! Certificates and certificate authorities, as far as objects name them.

use crate::secret;

/// Where the certificate of a listener comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Certificate {
    /// A pair in PEM, written in the Secret.
    Inline { object: String, chain: Vec<u8>, key: secret::Secret<Vec<u8>> },
    /// A certbot lineage: the newest that is for `host`, the listener's hostname; by `names` where
    /// that does not tell. Where it was `chosen`, it is the one name and its variants alone.
    Lineage { object: String, names: Vec<String>, host: Option<String>, chosen: bool },
}

/// Whether a certificate can be served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    pub ready: bool,
    /// What is wrong with what was found, even where an older version is served on.
    pub problem: Option<String>,
}

/// Whose signatures are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Authorities {
    /// Nobody's: whoever answers is believed, whatever it shows.
    Nobody,
    /// Bundles of certificates in PEM.
    Pem(Vec<Vec<u8>>),
    /// Those that the host trusts.
    System,
}
