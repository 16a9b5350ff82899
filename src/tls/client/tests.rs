use std::sync::LazyLock;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::secret::Secret;
use crate::tls::clients::ClientValidation;
use crate::tls::pem;
use crate::tls::slot::{CertSource, Peer};
use crate::tls::store::CertStore;

/// An authority, which issues certificates to backends and clients.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn authorities(&self) -> Authorities {
        Authorities::of_pem([self.pem.as_bytes()]).unwrap()
    }

    /// Issues a chain and its key, in PEM.
    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::default();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn named(&self, names: Vec<SanType>) -> (String, String) {
        self.issue(|params| params.subject_alt_names = names)
    }
}

/// Two authorities of the same name.
static CAS: LazyLock<(Ca, Ca)> = LazyLock::new(|| (Ca::new(), Ca::new()));

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

fn settings(authorities: Option<Authorities>, names: Vec<AltName>) -> ClientSettings {
    let server_name = Some(ServerName::try_from("web.test").unwrap());
    ClientSettings { authorities, server_name, names, identity: None }
}

/// A backend with a certificate, which accepts `alpn` and validates clients by `clients`.
fn backend(
    pair: &(String, String),
    alpn: &[&[u8]],
    clients: Option<&ClientValidation>,
) -> TlsAcceptor {
    let config = ServerConfig::builder_with_provider(Arc::clone(crypto()))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(clients) => config.with_client_cert_verifier(clients.verifier()),
    };
    let chain = pem::chain(pair.0.as_bytes()).unwrap();
    let mut config =
        config.with_single_cert(chain, pem::private_key(pair.1.as_bytes()).unwrap()).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// The result of a handshake at the client and at the backend.
struct Shaken {
    client: Result<TlsStream<DuplexStream>, TlsFailure>,
    backend: io::Result<tokio_rustls::server::TlsStream<DuplexStream>>,
}

async fn shake(client: &Client, alpn: Alpn, backend: &TlsAcceptor) -> Shaken {
    let (ours, theirs) = duplex(64 << 10);
    let both = async { tokio::join!(client.handshake(ours, alpn), backend.accept(theirs)) };
    let (client, backend) = tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    Shaken { client, backend }
}

async fn cause(settings: &ClientSettings, pair: &(String, String)) -> Option<TlsCause> {
    let backend = backend(pair, &[b"http/1.1"], None);
    let shaken = shake(&Client::new(settings), Alpn::Http11, &backend).await;
    shaken.client.err().map(|failure| failure.cause)
}

#[tokio::test]
async fn a_backend_is_believed_by_its_issuer_its_dates_and_its_name() {
    let (ca, other) = &*CAS;
    let by = |ca: &Ca| settings(Some(ca.authorities()), Vec::new());
    let good = ca.named(vec![dns("web.test")]);
    let dated = |from, until| {
        ca.issue(|params| {
            params.subject_alt_names = vec![dns("web.test")];
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
        })
    };
    let for_clients = ca.issue(|params| {
        params.subject_alt_names = vec![dns("web.test")];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    // (settings, certificate, cause of the failure)
    let table = [
        (by(ca), &good, None),
        (by(other), &good, Some(TlsCause::CertificateUnknown)),
        (by(ca), &ca.named(vec![dns("other.test")]), Some(TlsCause::CertificateName)),
        (by(ca), &ca.named(Vec::new()), Some(TlsCause::CertificateName)),
        (by(ca), &dated(2020, 2021), Some(TlsCause::CertificateDated)),
        (by(ca), &dated(2080, 2090), Some(TlsCause::CertificateDated)),
        (by(ca), &for_clients, Some(TlsCause::CertificateInvalid)),
        // Without authorities every certificate is accepted.
        (settings(None, Vec::new()), &dated(2020, 2021), None),
        (settings(None, Vec::new()), &ca.named(vec![dns("other.test")]), None),
    ];
    for (row, (settings, pair, want)) in table.into_iter().enumerate() {
        assert_eq!(cause(&settings, pair).await, want, "row {row}");
    }
}

/// BackendTLSPolicy `subjectAltNames`: one match is enough, and the hostname is then used for SNI
/// alone.
#[tokio::test]
async fn of_alternative_names_one_suffices_and_the_hostname_does_not_count() {
    let (ca, other) = &*CAS;
    let host = |name: &str| AltName::host(name).unwrap();
    let id = |uri: &str| AltName::Uri(uri.into());
    let spiffe = "spiffe://web.test/a";
    // (names in the settings, names in the certificate, true if accepted)
    let table = [
        (vec![host("web.test")], vec![dns("web.test")], true),
        (vec![host("a.test")], vec![dns("web.test")], false),
        (vec![host("a.test")], vec![dns("web.test"), dns("A.test")], true),
        (vec![host("a.b.test")], vec![dns("*.b.test")], true),
        (vec![host("a.b.test")], vec![dns("*.c.b.test")], false),
        (vec![host("c.a.b.test")], vec![dns("*.b.test")], false),
        // A wildcard of a top-level domain matches no name.
        (vec![host("a.test")], vec![dns("*.test")], false),
        (vec![host("a.test"), host("b.test")], vec![dns("b.test")], true),
        (vec![id(spiffe)], vec![uri(spiffe)], true),
        (vec![id(spiffe)], vec![dns("web.test"), uri(spiffe)], true),
        (vec![id(spiffe)], vec![dns("web.test")], false),
        (vec![id(spiffe)], vec![uri("spiffe://web.test/A")], false),
        (vec![id(spiffe)], vec![uri("spiffe://web.test/a/")], false),
        (vec![id(spiffe)], vec![dns("spiffe")], false),
        (vec![id(spiffe), host("a.test")], vec![dns("a.test")], true),
        (vec![id(spiffe), host("a.test")], vec![uri("spiffe://web.test/b"), dns("b.test")], false),
        (vec![host("*.a.test")], vec![dns("b.a.test")], true),
        (vec![host("*.a.test")], vec![dns("*.a.test")], true),
        (vec![host("*.a.test")], vec![dns("B.A.TEST")], true),
        (vec![host("*.a.test")], vec![dns("a.test")], false),
        (vec![host("*.a.test")], vec![dns("c.b.a.test")], false),
        (vec![host("*.a.test")], vec![uri("https://b.a.test")], false),
    ];
    for (names, had, believed) in table {
        let settings = settings(Some(ca.authorities()), names);
        let want = (!believed).then_some(TlsCause::CertificateName);
        let got = cause(&settings, &ca.named(had.clone())).await;
        assert_eq!(got, want, "{:?} by {had:?}", settings.names);
    }
    // A matching name does not make up for an unknown issuer.
    let settings = settings(Some(other.authorities()), vec![host("web.test")]);
    let got = cause(&settings, &ca.named(vec![dns("web.test")])).await;
    assert_eq!(got, Some(TlsCause::CertificateUnknown));
}

/// `openssl req -x509` marks its certificates as a CA.
#[tokio::test]
async fn a_certificate_that_is_named_itself_is_believed_within_its_dates() {
    let own = |is_ca: bool, name: &str, from, until| {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let by = |pem: &str| settings(Some(Authorities::of_pem([pem.as_bytes()]).unwrap()), Vec::new());
    // (certificate, cause of the failure)
    let table = [
        (own(true, "web.test", 2024, 2090), None),
        (own(false, "web.test", 2024, 2090), None),
        (own(true, "other.test", 2024, 2090), Some(TlsCause::CertificateName)),
        (own(true, "web.test", 2020, 2021), Some(TlsCause::CertificateDated)),
        (own(true, "web.test", 2080, 2090), Some(TlsCause::CertificateDated)),
    ];
    for (row, (pair, want)) in table.into_iter().enumerate() {
        assert_eq!(cause(&by(&pair.0), &pair).await, want, "row {row}");
    }
    // A different certificate of the same name is not accepted.
    let (one, two) = (own(true, "web.test", 2024, 2090), own(true, "web.test", 2024, 2090));
    assert!(cause(&by(&one.0), &two).await.is_some());
}

#[tokio::test]
async fn the_protocol_is_asked_for_and_must_be_granted_where_it_is_http2() {
    let (ca, _) = &*CAS;
    let pair = ca.named(vec![dns("web.test")]);
    let client = Client::new(&settings(Some(ca.authorities()), Vec::new()));
    // (offered protocol, protocols of the backend, cause of the failure)
    let table: [(Alpn, &[&[u8]], Option<TlsCause>); 6] = [
        (Alpn::Http11, &[b"http/1.1", b"h2"], None),
        (Alpn::Http11, &[], None),
        (Alpn::Http11, &[b"h2"], Some(TlsCause::NoProtocol)),
        (Alpn::Http2, &[b"http/1.1", b"h2"], None),
        (Alpn::Http2, &[], Some(TlsCause::NoProtocol)),
        (Alpn::Http2, &[b"http/1.1"], Some(TlsCause::NoProtocol)),
    ];
    for (alpn, takes, want) in table {
        let shaken = shake(&client, alpn, &backend(&pair, takes, None)).await;
        let got = shaken.client.err().map(|failure| failure.cause);
        assert_eq!(got, want, "{alpn:?} of {takes:?}");
    }
}

#[tokio::test]
async fn what_is_asked_for_is_the_name_and_never_an_address() {
    let (ca, _) = &*CAS;
    // (name in the settings, SNI at the backend)
    let table = [("web.test", Some("web.test")), ("192.0.2.1", None)];
    for (name, want) in table {
        let address = SanType::IpAddress([192, 0, 2, 1].into());
        let pair = ca.named(vec![dns("web.test"), address]);
        let server_name = Some(ServerName::try_from(name).unwrap());
        let settings =
            ClientSettings { server_name, ..settings(Some(ca.authorities()), Vec::new()) };
        let shaken = shake(&Client::new(&settings), Alpn::Http11, &backend(&pair, &[], None)).await;
        assert!(shaken.client.is_ok(), "{name}");
        let backend = shaken.backend.unwrap();
        assert_eq!(backend.get_ref().1.server_name(), want, "{name}");
    }
}

#[tokio::test]
async fn a_peer_without_tls_is_no_backend() {
    let (ca, _) = &*CAS;
    let client = Client::new(&settings(Some(ca.authorities()), Vec::new()));
    // (response of the peer, cause of the failure)
    let table = [("HTTP/1.1 400 Bad Request\r\n\r\n", TlsCause::Protocol), ("", TlsCause::Closed)];
    for (says, want) in table {
        let (ours, mut theirs) = duplex(64 << 10);
        theirs.write_all(says.as_bytes()).await.unwrap();
        theirs.shutdown().await.unwrap();
        let failure = client.handshake(ours, Alpn::Http11).await.unwrap_err();
        assert_eq!(failure.cause, want, "{says:?}: {failure}");
    }
}

#[tokio::test]
async fn a_client_shows_its_certificate_to_those_who_ask() {
    let (ca, other) = &*CAS;
    let pair = ca.named(vec![dns("web.test")]);
    let of_client = ca.issue(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let store = CertStore::new("/nowhere".into());
    let slot = |pair: &(String, String)| {
        store.slot(CertSource::Inline {
            object: "Secret test/client".into(),
            chain: pair.0.clone().into_bytes(),
            key: Secret::new(pair.1.clone().into_bytes()),
            shown_to: Peer::Backends,
        })
    };
    let identity = Identity::new(slot(&of_client));
    assert_eq!(identity, Identity::new(slot(&of_client)));
    assert_ne!(identity, Identity::new(slot(&pair)));

    let asks =
        |ca: &Ca| ClientValidation { authorities: ca.authorities(), insecure_fallback: false };
    let shows =
        ClientSettings { identity: Some(identity), ..settings(Some(ca.authorities()), Vec::new()) };
    let shows_nothing = settings(Some(ca.authorities()), Vec::new());
    // (client, requirements of the backend, number of certificates that it sees; `None` if it
    // refuses)
    let table = [
        (&shows, None, Some(0)),
        (&shows, Some(asks(ca)), Some(1)),
        (&shows, Some(asks(other)), None),
        (&shows_nothing, Some(asks(ca)), None),
        (&shows_nothing, None, Some(0)),
    ];
    for (row, (settings, clients, want)) in table.into_iter().enumerate() {
        let backend = backend(&pair, &[], clients.as_ref());
        let shaken = shake(&Client::new(settings), Alpn::Http11, &backend).await;
        let seen = shaken.backend.ok().map(|stream| {
            stream.get_ref().1.peer_certificates().map_or(0, <[CertificateDer<'_>]>::len)
        });
        assert_eq!(seen, want, "row {row}");
        // In TLS 1.3 the client completes the handshake before the backend validates it, and learns
        // the result when it reads.
        let mut stream = shaken.client.unwrap();
        if seen.is_none() {
            let error = stream.read_u8().await.unwrap_err();
            let refusal = TlsFailure::refusal(&error).unwrap();
            assert_eq!(refusal.cause, TlsCause::Refused, "row {row}");
        }
    }
}

#[tokio::test]
async fn a_second_handshake_resumes_the_first() {
    let (ca, _) = &*CAS;
    let backend = backend(&ca.named(vec![dns("web.test")]), &[], None);
    let client = Client::new(&settings(Some(ca.authorities()), Vec::new()));
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let Shaken { client, backend } = shake(&client, Alpn::Http11, &backend).await;
        let (mut client, mut backend) = (client.unwrap(), backend.unwrap());
        assert_eq!(client.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        // The tickets arrive with the first bytes.
        backend.write_all(b"x").await.unwrap();
        backend.flush().await.unwrap();
        client.read_u8().await.unwrap();
        kinds.push(client.get_ref().1.handshake_kind().unwrap());
    }
    assert_eq!(kinds, [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed]);
}
