//! Tests of whole handshakes in memory, and of raw bytes from peers that do not use TLS.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, SignatureScheme, SupportedProtocolVersion};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, ProtocolVersion};
use rustls_pemfile::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;

use crate::tls::crypto::crypto;
use crate::tls::resolver::ListenerCertificates;
use crate::tls::server::{Tickets, server_config};
use crate::tls::store::CertStore;
use crate::tls::testing::{Certbot, Issue, ecdsa, rsa};

use super::*;

/// A client verifier that accepts every certificate, and supports `schemes`.
#[derive(Debug)]
struct Gullible(Vec<SignatureScheme>);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
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
        self.0.clone()
    }
}

const ECDSA: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
const PSS: SignatureScheme = SignatureScheme::RSA_PSS_SHA256;

fn client_of(
    crypto: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
    schemes: &[SignatureScheme],
    alpn: &[&[u8]],
) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(crypto))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(schemes.to_vec())))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

fn client(
    versions: &[&'static SupportedProtocolVersion],
    schemes: &[SignatureScheme],
) -> ClientConfig {
    client_of(CryptoProvider::clone(crypto()), versions, schemes, &[])
}

fn any_client(alpn: &[&[u8]]) -> ClientConfig {
    let crypto = CryptoProvider::clone(crypto());
    client_of(crypto, rustls::ALL_VERSIONS, &[ECDSA, PSS], alpn)
}

const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

/// A listener of the lineages `a` (ECDSA and RSA) and `b` (ECDSA), and a certbot to renew them.
struct Listener {
    certbot: Certbot,
    store: CertStore,
    certificates: ListenerCertificates,
    tickets: Tickets,
    config: Arc<ServerConfig>,
}

impl Listener {
    fn new() -> Self {
        let certbot = Certbot::new();
        certbot.issue("a", &Issue::to(&["a.test"]));
        certbot.issue("a-rsa", &Issue::dated(rsa(), &["a.test"], 2024, 2090));
        certbot.issue("b", &Issue::to(&["b.test"]));
        let store = CertStore::new(certbot.dir());
        let slots = ["a", "b"].map(|name| store.slot(Certbot::source(&[name])));
        Self::of(certbot, store, ListenerCertificates::new(slots.to_vec()))
    }

    fn of(certbot: Certbot, store: CertStore, certificates: ListenerCertificates) -> Self {
        let tickets = Tickets::new().unwrap();
        let config = server_config(certificates.clone(), ALPN, &tickets, None);
        Self { certbot, store, certificates, tickets, config }
    }

    /// Applies a new configuration: everything is new except the arguments of `server_config`.
    fn reconfigure(&mut self) {
        self.config = server_config(self.certificates.clone(), ALPN, &self.tickets, None);
    }

    /// Runs a handshake. Returns both ends, whatever the result.
    async fn meet(
        &self,
        client: &Arc<ClientConfig>,
        name: &str,
    ) -> (
        io::Result<tokio_rustls::client::TlsStream<DuplexStream>>,
        io::Result<TlsStream<DuplexStream>>,
    ) {
        let (near, far) = duplex(64 * 1024);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connect = TlsConnector::from(Arc::clone(client)).connect(name, near);
        let accept = async {
            let hello = accept_hello(far).await.map_err(io::Error::other)?;
            let mut stream = hello.finish(Arc::clone(&self.config)).await?;
            // The tickets of TLS 1.3 are sent with the first bytes.
            stream.write_all(b"x").await?;
            stream.flush().await?;
            Ok(stream)
        };
        let (mut near, far) = tokio::join!(connect, accept);
        if let Ok(stream) = &mut near {
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
        }
        (near, far)
    }
}

#[tokio::test]
async fn the_name_and_the_client_choose_the_certificate() {
    let listener = Listener::new();
    let leaf = |name| listener.certbot.leaf(name);
    let old = [&rustls::version::TLS12];
    let new = [&rustls::version::TLS13];
    // (versions, schemes of the client, name, lineage served)
    let table: [(&[_], &[_], _, _); 8] = [
        (&new, &[PSS, ECDSA], "a.test", "a"),
        (&old, &[PSS, ECDSA], "a.test", "a"),
        (&new, &[PSS], "a.test", "a-rsa"),
        (&old, &[PSS], "a.test", "a-rsa"),
        (&new, &[PSS, ECDSA], "b.test", "b"),
        (&new, &[PSS, ECDSA], "B.test.", "b"),
        (&new, &[PSS, ECDSA], "c.test", "a"),
        (&new, &[PSS, ECDSA], "192.0.2.1", "a"),
    ];
    for (versions, schemes, name, want) in table {
        let client = Arc::new(client(versions, schemes));
        let (near, far) = listener.meet(&client, name).await;
        let (near, _) = (near.unwrap(), far.unwrap());
        let served = near.get_ref().1.peer_certificates().unwrap();
        assert_eq!(served[0].as_ref(), leaf(want), "{name} {schemes:?}");
    }
}

#[tokio::test]
async fn the_server_prefers_h2_and_aes_128() {
    let listener = Listener::new();
    // The client prefers the opposite order.
    let mut crypto = CryptoProvider::clone(crypto());
    crypto.cipher_suites.reverse();
    let client = client_of(crypto, rustls::ALL_VERSIONS, &[ECDSA], &[b"http/1.1", b"h2"]);
    let (_near, far) = listener.meet(&Arc::new(client), "a.test").await;
    let far = far.unwrap();
    let session = far.get_ref().1;
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let suite = session.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
}

#[tokio::test]
async fn nothing_in_common_by_alpn_is_no_application_protocol() {
    let listener = Listener::new();
    let (near, far) = listener.meet(&Arc::new(any_client(&[b"imap"])), "a.test").await;
    let error = near.unwrap_err().downcast::<rustls::Error>().unwrap();
    let alert = AlertDescription::NoApplicationProtocol;
    assert_eq!(error, rustls::Error::AlertReceived(alert));
    assert!(far.is_err());

    let (near, far) = listener.meet(&Arc::new(any_client(&[])), "a.test").await;
    assert!(near.is_ok());
    assert_eq!(far.unwrap().get_ref().1.alpn_protocol(), None);
}

#[tokio::test]
async fn a_session_outlives_a_renewal_and_a_new_configuration() {
    let mut listener = Listener::new();
    // Without tickets, sessions of TLS 1.3 would fill the small store meant for TLS 1.2.
    assert!(listener.config.ticketer.enabled());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = Arc::new(client(&[version], &[ECDSA]));
        let kind = |stream: io::Result<TlsStream<_>>| stream.unwrap().get_ref().1.handshake_kind();
        let (_near, far) = listener.meet(&client, "a.test").await;
        assert_ne!(kind(far), Some(HandshakeKind::Resumed), "{version:?}");

        let (_near, far) = listener.meet(&client, "b.test").await;
        assert_ne!(kind(far), Some(HandshakeKind::Resumed), "{version:?}: another name");

        listener.certbot.issue("a", &Issue::to(&["a.test"]));
        listener.store.reload();
        listener.reconfigure();
        let (_near, far) = listener.meet(&client, "a.test").await;
        assert_eq!(kind(far), Some(HandshakeKind::Resumed), "{version:?}");
    }
}

#[tokio::test]
async fn a_renewal_is_served_to_the_next_client_and_kept_from_no_open_one() {
    let listener = Listener::new();
    let before = listener.certbot.leaf("a");
    let client = || Arc::new(client(&[&rustls::version::TLS13], &[ECDSA]));
    let (near, far) = listener.meet(&client(), "a.test").await;
    let (mut near, mut far) = (near.unwrap(), far.unwrap());

    listener.certbot.issue(
        "a",
        &Issue::with(&ecdsa(), |params| {
            params.subject_alt_names = vec![rcgen::SanType::DnsName("a.test".try_into().unwrap())];
            params.not_before = rcgen::date_time_ymd(2025, 1, 1);
        }),
    );
    listener.store.reload();
    let (again, _far) = listener.meet(&client(), "a.test").await;
    let again = again.unwrap();
    let served = again.get_ref().1.peer_certificates().unwrap();
    assert_eq!(served[0].as_ref(), listener.certbot.leaf("a"));
    assert_ne!(served[0].as_ref(), before);

    near.write_all(b"still here").await.unwrap();
    let mut bytes = [0; 10];
    far.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"still here");
}

#[tokio::test]
async fn without_a_certificate_the_handshake_is_refused() {
    let certbot = Certbot::new();
    let store = CertStore::new(certbot.dir());
    let certificates = ListenerCertificates::new(vec![store.slot(Certbot::source(&["a"]))]);
    let listener = Listener::of(certbot, store, certificates);
    let (near, far) = listener.meet(&Arc::new(any_client(&[])), "a.test").await;
    assert!(near.unwrap_err().to_string().contains("alert"));
    assert!(far.is_err());
}

/// Returns the ClientHello of a client, as sent.
fn hello_of(client: ClientConfig, name: &str) -> Vec<u8> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Passes `bytes` to the server, followed by silence. Returns the result, and the answer until it
/// closes.
async fn answer_to(bytes: &[u8]) -> (Result<Hello<DuplexStream>, HelloError>, Vec<u8>) {
    let (mut near, far) = duplex(1024 * 1024);
    near.write_all(bytes).await.unwrap();
    let result = accept_hello(far).await;
    let mut answer = Vec::new();
    if result.is_err() {
        near.read_to_end(&mut answer).await.unwrap();
    }
    (result, answer)
}

#[tokio::test]
async fn a_hello_tells_name_and_protocols_lower_case_without_the_dot() {
    let bytes = hello_of(any_client(&[b"h2", b"http/1.1"]), "Shop.Example");
    let (hello, _) = answer_to(&bytes).await;
    let hello = hello.unwrap();
    assert_eq!(hello.sni(), Some("shop.example"));
    assert!(hello.alpn().eq([&b"h2"[..], b"http/1.1"]));

    // The client of rustls removes a trailing dot, so insert one here.
    let mut dotted = bytes;
    let at = dotted.windows(12).position(|part| part == b"Shop.Example").unwrap();
    dotted[at + 11] = b'.';
    let (hello, _) = answer_to(&dotted).await;
    assert_eq!(hello.unwrap().sni(), Some("shop.exampl"));

    let (hello, _) = answer_to(&hello_of(any_client(&[]), "192.0.2.1")).await;
    let hello = hello.unwrap();
    assert_eq!(hello.sni(), None);
    assert_eq!(hello.alpn().count(), 0);
}

#[tokio::test]
async fn an_unknown_name_gets_the_alert_and_the_end() {
    let (mut near, far) = duplex(64 * 1024);
    near.write_all(&hello_of(any_client(&[]), "nobody.test")).await.unwrap();
    accept_hello(far).await.unwrap().refuse_unrecognized_name().await;
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 112]);
}

#[tokio::test]
async fn names_that_are_none_are_refused() {
    let bytes = hello_of(any_client(&[]), "nobody.test");
    let at = bytes.windows(11).position(|part| part == b"nobody.test").unwrap();
    // (replacement of `nobody.test`)
    for name in [b"nobody\0test", b"nobody test", b".obody.test", b"nobody..est"] {
        let mut bytes = bytes.clone();
        bytes[at..at + 11].copy_from_slice(name);
        let (hello, answer) = answer_to(&bytes).await;
        assert!(matches!(hello, Err(HelloError::Invalid(_))), "{name:?}");
        assert_eq!(answer.first(), Some(&21), "{name:?}");
    }
}

/// A ClientHello of at most `bytes` on the wire and little less, filled up with protocol names.
fn swollen(bytes: usize) -> Vec<u8> {
    let bare = hello_of(any_client(&[b"x"]), "a.test").len();
    let names = vec![vec![b'x'; 250]; (bytes - bare) / 251];
    let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    hello_of(any_client(&names), "a.test")
}

#[tokio::test]
async fn a_hello_may_have_16_kib_in_any_pieces_and_no_more() {
    let (hello, _) = answer_to(&swollen(MAX_HELLO_BYTES - 5)).await;
    assert_eq!(hello.unwrap().sni(), Some("a.test"));

    // Records of a hundred bytes each.
    let whole = swollen(8_000);
    let mut pieces = Vec::new();
    for piece in whole[5..].chunks(100) {
        pieces.extend([22, 3, 1, 0, u8::try_from(piece.len()).unwrap()]);
        pieces.extend(piece);
    }
    let (hello, _) = answer_to(&pieces).await;
    assert_eq!(hello.unwrap().sni(), Some("a.test"));

    for bytes in [MAX_HELLO_BYTES + 300, 60_000] {
        let (hello, answer) = answer_to(&swollen(bytes)).await;
        assert!(matches!(hello, Err(HelloError::TooLarge)), "{bytes}: {hello:?}");
        assert_eq!(answer, [21, 3, 3, 0, 2, 2, 50], "{bytes}");
    }
}

#[tokio::test]
async fn what_is_no_hello_is_told_apart() {
    let whole = hello_of(any_client(&[]), "a.test");
    // A record of 16 KiB whose message claims 16 MiB.
    let mut claim = vec![22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    claim.resize(5 + 0x4000, 0);
    // (bytes, reason, first bytes of the answer)
    let table: [(&[u8], &str, &[u8]); 7] = [
        (b"", "closed", b""),
        (&whole[..60], "cut_short", b""),
        (b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "plain_http", b"HTTP/1.1 400 "),
        (b"G", "plain_http", b"HTTP/1.1 400 "),
        (b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", "invalid_hello", &[21]),
        (b"\x00\x00\x00\x00\x00\x00\x00", "invalid_hello", &[21]),
        (&claim, "hello_too_large", &[21, 3, 3, 0, 2, 2, 50]),
    ];
    for (bytes, reason, answer) in table {
        let (mut near, far) = duplex(64 * 1024);
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
        let error = accept_hello(far).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error:?}");
        let mut got = Vec::new();
        near.read_to_end(&mut got).await.unwrap();
        assert!(got.starts_with(answer), "{bytes:?} {reason}: {got:?}");
        assert_eq!(got.is_empty(), answer.is_empty(), "{reason}: {got:?}");
    }
}

#[test]
fn the_answer_to_plain_http_is_as_long_as_it_says() {
    let text = std::str::from_utf8(PLAIN_HTTP).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len()).trim_end().to_owned()));
}
