//! Client certificates: a listener's requirements on them, and their verifier (GEP-91).

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pemfile::{CertificateDer, UnixTime};

use super::authorities::Authorities;
use super::crypto::crypto;

/// A listener's requirements on client certificates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientValidation {
    /// The authorities that must have signed the certificate.
    pub authorities: Authorities,
    /// True if clients without a valid certificate are accepted too. A certificate is still
    /// requested.
    pub insecure_fallback: bool,
}

impl ClientValidation {
    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        let roots = Arc::clone(self.authorities.roots());
        let valid_only =
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(crypto())).build();
        let valid_only =
            valid_only.expect("there is at least one authority and no revocation list");
        if self.insecure_fallback { Arc::new(AnyOrNone(valid_only)) } else { valid_only }
    }
}

/// Verifier that requests a certificate and accepts every client, whatever it presents.
///
/// Nothing of the certificate is passed to filters, backends or logs, so it identifies no client.
/// If that changes, the signatures must be checked here.
#[derive(Debug)]
struct AnyOrNone(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AnyOrNone {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
