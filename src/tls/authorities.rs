//! Certificate authorities, against which peers are validated.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pemfile::CertificateDer;

use super::fault::Cause;
use super::pem;

/// Trust anchors, at least one. Equal if they are the same certificates in the same order.
#[derive(Clone)]
pub(crate) struct Authorities {
    certificates: Arc<[CertificateDer<'static>]>,
    roots: Arc<RootCertStore>,
}

impl Authorities {
    /// Parses every certificate of some bundles in PEM.
    ///
    /// # Errors
    ///
    /// A bundle is malformed, has no certificate, or has one that cannot be a trust anchor.
    pub(crate) fn of_pem<'b>(bundles: impl IntoIterator<Item = &'b [u8]>) -> Result<Self, String> {
        let mut certificates = Vec::new();
        for bundle in bundles {
            certificates.extend(pem::chain(bundle).map_err(|cause| match cause {
                Cause::NoCertificate => {
                    "there is no certificate in it; it must begin with `-----BEGIN CERTIFICATE-----`"
                        .to_owned()
                }
                cause => cause.to_string(),
            })?);
        }
        let mut roots = RootCertStore::empty();
        for (position, certificate) in (1..).zip(&certificates) {
            roots
                .add(certificate.clone())
                .map_err(|error| format!("certificate {position} cannot be read: {error}"))?;
        }
        Self::new(certificates, roots)
    }

    /// Reads the authorities that this host trusts: the file and directory of its OpenSSL, or those
    /// that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
    ///
    /// # Errors
    ///
    /// There are none; the error has the reason.
    pub(crate) fn of_host() -> Result<Self, String> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        // An old store may hold certificates that cannot be trust anchors; the others are used.
        let certificates = found.certs.into_iter().filter(|one| roots.add(one.clone()).is_ok());
        let certificates: Vec<_> = certificates.collect();
        if let (true, Some(error)) = (certificates.is_empty(), found.errors.first()) {
            return Err(format!("the CA certificates of this host cannot be read: {error}"));
        }
        Self::new(certificates, roots).map_err(|_| {
            "this host has no CA certificates; install them (Debian: `apt install ca-certificates`)"
                .to_owned()
        })
    }

    fn new(
        certificates: Vec<CertificateDer<'static>>,
        roots: RootCertStore,
    ) -> Result<Self, String> {
        if certificates.is_empty() {
            return Err("there is no certificate".into());
        }
        Ok(Self { certificates: certificates.into(), roots: Arc::new(roots) })
    }

    /// Returns the number of certificates.
    pub(crate) fn count(&self) -> usize {
        self.certificates.len()
    }

    pub(super) fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// True if this exact certificate is one of them.
    pub(super) fn contains(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.iter().any(|one| one.as_ref() == certificate.as_ref())
    }
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.certificates, &other.certificates)
            || self.certificates == other.certificates
    }
}

impl Eq for Authorities {}

impl Hash for Authorities {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for certificate in &*self.certificates {
            certificate.as_ref().hash(state);
        }
    }
}

/// Prints the number of certificates: they are long.
impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({})", self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Issue;
    use super::*;

    #[test]
    fn a_bundle_is_whole_or_refused() {
        let (one, two) = (Issue::to(&["a"]).chain, Issue::to(&["b"]).chain);
        let both = format!("text before\n{one}{two}");
        let authorities = Authorities::of_pem([both.as_bytes()]).unwrap();
        assert_eq!(authorities.count(), 2);
        assert_eq!(authorities, Authorities::of_pem([one.as_bytes(), two.as_bytes()]).unwrap());
        assert_ne!(authorities, Authorities::of_pem([one.as_bytes()]).unwrap());
        // As editors and `cat` write them.
        for both in [
            format!("{}{two}", one.trim_end()),
            format!("\u{feff}{one}\u{feff}{two}"),
            format!("{one}{two}").replace('\n', "\r\n"),
        ] {
            assert_eq!(authorities, Authorities::of_pem([both.as_bytes()]).unwrap(), "{both}");
        }

        let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        // (bundle, message)
        let table = [
            (String::new(), "there is no certificate in it"),
            ("hello".into(), "there is no certificate in it"),
            (one[..one.len() - 30].to_owned(), "cut short"),
            (format!("{one}{no_certificate}"), "certificate 2 cannot be read"),
            (
                format!("{one}{}", two.replace("CERTIFICATE", "TRUSTED CERTIFICATE")),
                "`openssl x509`",
            ),
            (format!("{one}{}", two.replace("-----BEGIN", "----BEGIN")), "section 2 has no line"),
            (Issue::to(&["a"]).key, "there is no certificate in it"),
        ];
        for (bundle, want) in table {
            let why = Authorities::of_pem([bundle.as_bytes()]).unwrap_err();
            assert!(why.contains(want), "{want}: {why}");
        }
        assert!(Authorities::of_pem([]).is_err());
    }
}
