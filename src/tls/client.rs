//! TLS to backends: settings, certificate validation, client certificates and failures.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ResolvesClientCert, verify_server_cert_signed_by_trust_anchor, verify_server_name,
};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme,
};
use rustls_pemfile::{CertificateDer, IpAddr, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use super::authorities::Authorities;
use super::crypto::crypto;
use super::slot::CertSlot;

/// The settings of TLS to a backend. Equal settings make equal handshakes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientSettings {
    /// The authorities that must have signed the backend's certificate; `None` accepts any
    /// certificate.
    pub authorities: Option<Authorities>,
    /// The server name of the handshake (SNI); an IP address is not sent. `None` if nothing is
    /// verified and no name is known.
    pub server_name: Option<ServerName<'static>>,
    /// The names of which the certificate must have one. If empty, it must cover `server_name`.
    pub names: Vec<AltName>,
    /// The certificate presented to a backend that requests one.
    pub identity: Option<Identity>,
}

/// A name that a certificate may have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AltName {
    /// A host. A certificate for that host matches, and so does one for a wildcard over it.
    Host(ServerName<'static>),
    /// A URI, compared byte for byte.
    Uri(String),
    /// The part after `*.`: matches any name with one more label, and the same wildcard.
    Wildcard(String),
}

impl AltName {
    /// Parses a hostname, possibly with a wildcard as its first label. `None` if it is not a
    /// hostname.
    pub(crate) fn host(text: &str) -> Option<Self> {
        match text.strip_prefix("*.") {
            Some(suffix) => Some(Self::Wildcard(suffix.to_ascii_lowercase())),
            None => ServerName::try_from(text.to_owned()).ok().map(Self::Host),
        }
    }
}

/// The certificate that the gateway presents to a backend. The slot is read at each handshake, so a
/// renewed certificate is used from the next handshake on.
#[derive(Clone)]
pub(crate) struct Identity(Arc<CertSlot>);

impl Identity {
    pub(crate) fn new(slot: Arc<CertSlot>) -> Self {
        Self(slot)
    }

    /// Returns the Secret that it comes from.
    pub(crate) fn object(&self) -> &str {
        self.0.object()
    }
}

/// Identities from the same source are equal.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.0.source() == other.0.source()
    }
}

impl Eq for Identity {}

impl std::hash::Hash for Identity {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.source().hash(state);
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.object())
    }
}

impl ResolvesClientCert for Identity {
    /// Ignores the backend's list of acceptable authorities: there is one certificate, and the
    /// backend reports what is wrong with it.
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.pick(None, schemes)
    }

    fn has_certs(&self) -> bool {
        self.0.is_ready()
    }
}

/// The application protocol that a handshake offers (ALPN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alpn {
    /// `h2`. The handshake fails if the backend does not select it.
    Http2,
    /// `http/1.1`. The backend need not select it.
    Http11,
    /// None: the protocol above TLS is not known.
    Unspoken,
}

/// A TLS client for backends. Resumes its earlier sessions.
pub(crate) struct Client {
    http11: TlsConnector,
    http2: TlsConnector,
    unspoken: TlsConnector,
    server_name: ServerName<'static>,
}

impl Client {
    pub(crate) fn new(settings: &ClientSettings) -> Self {
        let verifier = Arc::new(Verifier {
            authorities: settings.authorities.clone(),
            names: settings.names.clone().into(),
        });
        let connector = |alpn: &[&[u8]]| {
            let config = ClientConfig::builder_with_provider(Arc::clone(crypto()))
                .with_safe_default_protocol_versions()
                .expect("the list of cipher suites has some for TLS 1.2 and for TLS 1.3")
                .dangerous()
                .with_custom_certificate_verifier(Arc::clone(&verifier) as _);
            let mut config = match &settings.identity {
                None => config.with_no_client_auth(),
                Some(identity) => config.with_client_cert_resolver(Arc::new(identity.clone())),
            };
            config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
            TlsConnector::from(Arc::new(config))
        };
        // A placeholder: an address is never sent, and it is not verified if no name is known.
        let nobody = || ServerName::IpAddress(IpAddr::from(std::net::IpAddr::from([0, 0, 0, 0])));
        Self {
            http11: connector(&[b"http/1.1"]),
            http2: connector(&[b"h2"]),
            unspoken: connector(&[]),
            server_name: settings.server_name.clone().unwrap_or_else(nobody),
        }
    }

    /// Makes a handshake over `stream`. It has no timeout.
    ///
    /// # Errors
    ///
    /// The handshake failed; the error has the reason.
    pub(crate) async fn handshake<S>(
        &self,
        stream: S,
        alpn: Alpn,
    ) -> Result<TlsStream<S>, TlsFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = match alpn {
            Alpn::Http11 => &self.http11,
            Alpn::Http2 => &self.http2,
            Alpn::Unspoken => &self.unspoken,
        };
        let stream = connector
            .connect(self.server_name.clone(), stream)
            .await
            .map_err(|error| TlsFailure::of(&error))?;
        let chosen = stream.get_ref().1.alpn_protocol();
        if alpn == Alpn::Http2 && chosen != Some(b"h2") {
            return Err(TlsFailure {
                cause: TlsCause::NoProtocol,
                details: "the backend speaks no HTTP/2".into(),
            });
        }
        Ok(stream)
    }
}

/// Prints only the server name: the connectors hold session keys.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({:?})", self.server_name)
    }
}

/// The reason why there is no TLS session with a backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{details}")]
pub(crate) struct TlsFailure {
    pub cause: TlsCause,
    /// The message, from rustls or from the gateway. Quotes no bytes of the peer except names in
    /// its certificate.
    pub details: String,
}

/// The kinds of TLS failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsCause {
    /// The certificate has expired, or is not valid yet.
    CertificateDated,
    /// The certificate cannot be used: it is malformed, for another purpose, or badly signed.
    CertificateInvalid,
    /// The certificate is for another name.
    CertificateName,
    /// No trusted authority has signed the certificate.
    CertificateUnknown,
    /// The connection ended during the handshake.
    Closed,
    /// The backend supports none of the offered protocols.
    NoProtocol,
    /// The response is not TLS, or not understood.
    Protocol,
    /// The backend refused the handshake with an alert, for example because it requires a client
    /// certificate.
    Refused,
}

impl TlsFailure {
    /// Returns the backend's refusal, if that is why a connection broke. In TLS 1.3 a client
    /// completes its handshake before the backend has checked its certificate.
    pub(crate) fn refusal(error: &io::Error) -> Option<Self> {
        let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        matches!(inner, rustls::Error::AlertReceived(_)).then(|| Self::of(error))
    }

    fn of(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let cause = match inner {
            Some(rustls::Error::InvalidCertificate(error)) => of_certificate(error),
            Some(rustls::Error::NoApplicationProtocol) => TlsCause::NoProtocol,
            Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
                TlsCause::NoProtocol
            }
            Some(rustls::Error::AlertReceived(_)) => TlsCause::Refused,
            Some(_) => TlsCause::Protocol,
            None => TlsCause::Closed,
        };
        Self { cause, details: error.to_string() }
    }
}

fn of_certificate(error: &CertificateError) -> TlsCause {
    match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => TlsCause::CertificateDated,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            TlsCause::CertificateName
        }
        // `BadSignature`: the issuer has the name of a trusted authority, but another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            TlsCause::CertificateUnknown
        }
        _ => TlsCause::CertificateInvalid,
    }
}

/// Verifier of backend certificates.
///
/// rustls builds the chains and checks the signatures. This verifier adds the names that are
/// accepted (BackendTLSPolicy `subjectAltNames`), and accepts a certificate that is itself one of
/// the authorities.
#[derive(Debug)]
struct Verifier {
    authorities: Option<Authorities>,
    /// If empty, the certificate must cover the server name of the handshake.
    names: Box<[AltName]>,
}

impl Verifier {
    fn check_chain(
        &self,
        authorities: &Authorities,
        certificate: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        // If the backend's own certificate is configured as an authority, it is accepted, whether
        // or not it is marked as a CA: `openssl req -x509` marks it as one, and webpki then refuses
        // it as a server certificate.
        if authorities.contains(certificate) {
            return check_dates(certificate, now);
        }
        verify_server_cert_signed_by_trust_anchor(
            parsed,
            authorities.roots(),
            intermediates,
            now,
            crypto().signature_verification_algorithms.all,
        )
    }

    fn check_names(
        &self,
        certificate: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        asked: &ServerName<'_>,
    ) -> Result<(), rustls::Error> {
        if self.names.is_empty() {
            return verify_server_name(parsed, asked);
        }
        let is_had = self.names.iter().any(|name| match name {
            AltName::Host(host) => verify_server_name(parsed, host).is_ok(),
            AltName::Uri(uri) => has_alt_name(certificate, |name| match name {
                GeneralName::URI(had) => *had == uri,
                _ => false,
            }),
            AltName::Wildcard(suffix) => has_alt_name(certificate, |name| match name {
                // Exactly one more label; `*` is also one.
                GeneralName::DNSName(had) => had.split_once('.').is_some_and(|(label, rest)| {
                    !label.is_empty() && rest.eq_ignore_ascii_case(suffix)
                }),
                _ => false,
            }),
        });
        if is_had { Ok(()) } else { Err(CertificateError::NotValidForName.into()) }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(authorities) = &self.authorities {
            let parsed = ParsedCertificate::try_from(certificate)?;
            self.check_chain(authorities, certificate, &parsed, intermediates, now)?;
            self.check_names(certificate, &parsed, asked)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &crypto().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &crypto().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        crypto().signature_verification_algorithms.supported_schemes()
    }
}

fn check_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let parsed = parse(certificate).ok_or(CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let now = ASN1Time::from_timestamp(now).map_err(|_| CertificateError::BadEncoding)?;
    let validity = parsed.validity();
    if now < validity.not_before {
        Err(CertificateError::NotValidYet.into())
    } else if now > validity.not_after {
        Err(CertificateError::Expired.into())
    } else {
        Ok(())
    }
}

fn has_alt_name(certificate: &CertificateDer<'_>, fits: impl Fn(&GeneralName<'_>) -> bool) -> bool {
    let Some(parsed) = parse(certificate) else { return false };
    parsed.iter_extensions().any(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => names.general_names.iter().any(&fits),
        _ => false,
    })
}

/// Parses a certificate. `None` if it is malformed or incomplete, or if other bytes follow it.
fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Some(parsed),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
