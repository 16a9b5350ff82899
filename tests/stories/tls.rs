//! Handshakes: which certificate is shown, to whom, and what is refused.

use std::time::Duration;

use http::Request;
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Answer, Gateway, Hello, Http2, Leaf, Lineage, Origin, Record, Setup, Tls, Wire, backend, ca,
    clock, empty, http_route, record, rule_to, serve_all, server_name, soon, until,
};

const NO_APPLICATION_PROTOCOL: u8 = 120;

/// A Gateway with a listener for each hostname on one port, and a Secret for each; the socket `tls`
/// is bound to that port.
fn several_hosts(setup: Setup) -> (Setup, [u64; 3]) {
    let leaves =
        [("exact", "shop.example.test"), ("wildcard", "*.example.test"), ("other", "other.test")];
    let setup = setup.without_sockets().socket("http", "127.0.0.1:0").socket("tls", "127.0.0.1:0");
    let port = setup.port("tls");
    let mut gateway = String::from(
        "apiVersion: gateway.networking.k8s.io/v1\n\
         kind: Gateway\n\
         metadata:\n  name: eg\n  namespace: envoy-gateway-system\n\
         spec:\n  gatewayClassName: eg\n  listeners:\n    \
         - {name: http, protocol: HTTP, port: 8080}\n",
    );
    let mut secrets = String::new();
    let serials = leaves.map(|(name, host)| {
        let leaf = ca().leaf(&[host]);
        gateway.push_str(&format!(
            "    - name: {name}\n      protocol: HTTPS\n      port: {port}\n      \
             hostname: \"{host}\"\n      tls:\n        certificateRefs: [{{name: {name}}}]\n"
        ));
        secrets.push_str(&secret(name, &leaf));
        leaf.serial
    });
    let setup = setup.file("common/gateway.yaml", &gateway).file("common/secrets.yaml", &secrets);
    (setup, serials)
}

/// A Secret that holds the pair itself.
pub(crate) fn secret(name: &str, leaf: &Leaf) -> String {
    let indented = |pem: &str| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!(
        "---\napiVersion: v1\nkind: Secret\n\
         metadata:\n  name: {name}\n  namespace: envoy-gateway-system\n\
         type: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indented(&format!("{}{}", leaf.certificate_pem, leaf.chain_pem)),
        indented(&leaf.key_pem)
    )
}

#[tokio::test]
async fn the_certificate_is_that_of_the_name_exact_before_wildcard() {
    let (setup, [exact, wildcard, other]) = several_hosts(Gateway::setup());
    let gateway = setup.start().await;
    let address = gateway.address("tls");

    // (name, serial)
    let table = [
        ("shop.example.test", exact),
        ("SHOP.example.TEST", exact),
        ("blog.example.test", wildcard),
        ("other.test", other),
    ];
    for (name, serial) in table {
        assert_eq!(Tls::of(name).serial(address).await.unwrap(), serial, "{name}");
    }
    for name in ["example.test", "unknown.test"] {
        let error = Tls::of(name).serial(address).await.unwrap_err().to_string();
        assert!(error.contains("UnrecognisedName"), "{name}: {error}");
    }
}

/// RFC 6066 section 3: a name that is not ours gets no certificate of ours and reaches no backend.
#[tokio::test]
async fn a_broken_name_is_refused_with_an_alert() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;

    let named = |names: &[&[u8]]| Hello::modern("x").with(0, Some(server_name(names).1));
    let hellos = [
        ("empty name", named(&[b""])),
        ("name with NUL", named(&[b"shop.test\0.evil"])),
        ("two names", named(&[b"shop.test", b"blog.test"])),
        ("name with a slash", named(&[b"shop.test/../"])),
        ("empty list", Hello::modern("x").with(0, Some(vec![0, 0]))),
        ("no name", Hello::modern("x").with(0, None)),
    ];
    for (what, hello) in hellos {
        let answer = Record::answer_to(gateway.https(), &hello.bytes()).await;
        let refused = match (what, &answer) {
            (_, Record::Alert(_)) => true,
            // A listener without a hostname is for those who name none.
            ("no name", Record::Handshake(_)) => true,
            _ => false,
        };
        assert!(refused, "{what}: {answer:?}");
    }
    assert_eq!(shop.connections(), 0);
}

/// RFC 9110 section 15.5.20: the certificate was shown for one host, the request is for another.
#[tokio::test]
async fn a_request_for_the_host_of_another_listener_is_misdirected() {
    let origin = Origin::replying("any").await;
    let (setup, _) = several_hosts(Gateway::setup());
    let routes = backend("any", &[origin.address]) + &http_route("any", &[], &rule_to("/", "any"));
    let gateway = setup.file("routes/any.yaml", &routes).start().await;
    let address = gateway.address("tls");

    // (name in the handshake, host in the request, status)
    let table = [
        ("shop.example.test", "shop.example.test", 200),
        ("shop.example.test", "blog.example.test", 421),
        ("shop.example.test", "other.test", 421),
        ("blog.example.test", "shop.example.test", 421),
        ("blog.example.test", "news.example.test", 200),
        ("other.test", "shop.example.test", 421),
        ("other.test", "unknown.test", 404),
    ];
    for (name, host, status) in table {
        let mut wire = Wire::tls(address, name).await;
        wire.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(wire.reply().await.status(), status, "{host} by {name}, HTTP/1.1");

        let stream = Tls::of(name).alpn(&["h2"]).connect(address).await.unwrap();
        let mut http2 = Http2::over(stream).await;
        let request = Request::get(format!("https://{host}/")).body(empty()).unwrap();
        assert_eq!(http2.fetch(request).await.unwrap().status, status, "{host} by {name}, HTTP/2");
    }
    assert_eq!(origin.requests().len(), 4);
}

#[tokio::test]
async fn protocols_are_agreed_upon_or_the_handshake_fails() {
    let gateway = Gateway::start().await;

    // (offered, agreed)
    let table: [(&[&str], Option<&str>); 5] = [
        (&["h2", "http/1.1"], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["imap", "http/1.1"], Some("http/1.1")),
        (&[], None),
    ];
    for (offered, agreed) in table {
        let stream = Tls::of("shop.test").alpn(offered).connect(gateway.https()).await.unwrap();
        let got = stream.get_ref().1.alpn_protocol().map(String::from_utf8_lossy);
        assert_eq!(got.as_deref(), agreed, "{offered:?}");
    }

    // RFC 7301 section 3.2; what is not HTTP must not be answered in HTTP (ALPACA).
    for offered in ["imap", "h3", "http/1.0", "http/2"] {
        let name = offered.as_bytes();
        let length = u8::try_from(name.len()).unwrap();
        let list = [&[0, length + 1, length], name].concat();
        let hello = Hello::modern("shop.test").with(16, Some(list));
        let answer = Record::answer_to(gateway.https(), &hello.bytes()).await;
        // Servers of 1.3 may ask for a key first; rustls looks at ALPN after that.
        let tls = Tls::of("shop.test").alpn(&[offered]).connect(gateway.https()).await;
        let error = tls.unwrap_err().to_string();
        assert!(
            answer == Record::Alert(NO_APPLICATION_PROTOCOL)
                || error.contains("NoApplicationProtocol"),
            "{offered}: {answer:?}, {error}"
        );
    }
}

#[tokio::test]
async fn both_versions_of_tls_serve_and_are_resumed_and_nothing_is_sent_early() {
    let gateway = Gateway::start().await;
    for version in [&TLS12, &TLS13] {
        let tls = Tls::versions("shop.test", &[version])
            .alpn(&["http/1.1"])
            .with(|config| config.enable_early_data = true);
        for resumed in [false, true] {
            let mut stream = tls.connect(gateway.https()).await.unwrap();
            // A ticket comes with the first answer, so there has to be one.
            let request = b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = Vec::new();
            soon("an answer", stream.read_to_end(&mut answer)).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 404 "), "{answer:?}");
            let tls = stream.get_ref().1;
            assert_eq!(tls.handshake_kind() == Some(HandshakeKind::Resumed), resumed);
            assert_eq!(tls.protocol_version(), Some(version.version));
            assert!(!tls.is_early_data_accepted(), "0-RTT is off");
        }
    }
}

/// RFC 8996, RFC 9325: what is known to be weak is not there to be chosen.
#[tokio::test]
async fn old_versions_and_weak_suites_are_refused() {
    let gateway = Gateway::start().await;
    let version = |number| Hello { version: number, ..Hello::tls12("shop.test") };
    let suites = |suites: &[u16]| Hello { suites: suites.into(), ..Hello::tls12("shop.test") };
    let ssl2 = vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10];
    let table = [
        ("SSL 2", ssl2),
        ("SSL 3", version(0x0300).bytes()),
        ("TLS 1.0", version(0x0301).bytes()),
        ("TLS 1.1", version(0x0302).bytes()),
        ("1.1 by extension", Hello::tls12("shop.test").with(43, Some(vec![2, 3, 2])).bytes()),
        ("NULL", suites(&[0x0000, 0x0001, 0x0002, 0x003b]).bytes()),
        ("EXPORT", suites(&[0x0003, 0x0006, 0x0008]).bytes()),
        ("RC4", suites(&[0x0004, 0x0005, 0xc007, 0xc011]).bytes()),
        ("3DES", suites(&[0x000a, 0xc008, 0xc012]).bytes()),
        ("anonymous", suites(&[0x0018, 0x0034, 0xc018]).bytes()),
        ("static RSA", suites(&[0x002f, 0x0035, 0x009c, 0x009d]).bytes()),
        ("CBC", suites(&[0xc009, 0xc00a, 0xc013, 0xc014, 0xc023, 0xc024]).bytes()),
        ("DHE", suites(&[0x0033, 0x009e, 0x009f]).bytes()),
    ];
    for (what, bytes) in table {
        let mut wire = Wire::connect(gateway.https()).await;
        wire.send(&bytes).await;
        // SSL 2 may look like the start of a long record; then the end of it says enough.
        wire.finish().await;
        let answer = Record::read(&mut wire).await;
        assert!(matches!(answer, Record::Alert(_) | Record::Closed), "{what}: {answer:?}");
    }
}

#[tokio::test]
async fn tls_12_is_taken_only_with_what_makes_it_safe() {
    let gateway = Gateway::start().await;
    let answer = Record::answer_to(gateway.https(), &Hello::tls12("shop.test").bytes()).await;
    let (extensions, random) = answer.server_hello();
    assert!(extensions.contains(&23), "extended_master_secret: {extensions:?}");
    assert!(extensions.contains(&0xff01), "renegotiation_info: {extensions:?}");
    assert!(!extensions.contains(&15), "no heartbeat: {extensions:?}");
    // RFC 8446 section 4.1.3: who could have had 1.3 can tell that somebody took it away.
    assert_eq!(&random, b"DOWNGRD\x01");
}

#[tokio::test]
async fn a_client_hello_of_any_honest_size_is_read_and_no_larger_one_is_kept() {
    let gateway = Gateway::start().await;
    let padded = |size| Hello::modern("shop.test").with(21, Some(vec![0; size]));

    for (what, bytes) in [
        ("one record", Hello::modern("shop.test").bytes()),
        ("a byte a record", Hello::modern("shop.test").records(1)),
        ("4 KiB, as with post-quantum keys", padded(4 << 10).bytes()),
        ("15 KiB", padded(15 << 10).bytes()),
    ] {
        let answer = Record::answer_to(gateway.https(), &bytes).await;
        assert!(matches!(answer, Record::Handshake(_)), "{what}: {answer:?}");
    }

    let before = gateway.process().resident_kib();
    let claim = |length: u32| {
        let length = length.to_be_bytes();
        record(22, &[&[1, length[1], length[2], length[3]], &[0; 1000][..]].concat())
    };
    for (what, bytes) in [
        ("60 KiB", padded(60 << 10).bytes()),
        ("a claim of 16 MiB", claim((16 << 20) - 1)),
        ("a record of 60 KiB", [&[22, 3, 1, 0xf0, 0][..], &[1; 1000]].concat()),
        ("not a record", vec![0xff; 1000]),
    ] {
        let answer = Record::answer_to(gateway.https(), &bytes).await;
        assert!(matches!(answer, Record::Alert(_) | Record::Closed), "{what}: {answer:?}");
    }
    let grown = gateway.process().resident_kib().saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more");
}

/// Each has a clock of its own, and the second starts when the first stops.
#[tokio::test]
async fn a_handshake_may_take_longer_than_a_head() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::setup()
        .flag("--tls-handshake-timeout 20s --head-timeout 500ms --idle-timeout 500ms")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let stream = tokio::net::TcpStream::connect(gateway.https()).await.unwrap();
    // A client that is slow on purpose.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let tls = Tls::of("shop.test").alpn(&["http/1.1"]);
    let mut wire = Wire::over(tls.handshake(stream).await.unwrap());
    wire.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!(wire.reply().await.text(), "shop");
}

#[tokio::test]
async fn who_does_not_finish_the_handshake_is_let_go() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::setup()
        .flag("--tls-handshake-timeout 1s")
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let hello = Hello::modern("shop.test").bytes();

    let silent = Wire::connect(gateway.https()).await;
    let mut half = Wire::connect(gateway.https()).await;
    half.send(&hello[..hello.len() / 2]).await;
    let mut dripping = Wire::connect(gateway.https()).await;
    let begin = clock();
    let (mut silent, mut half) = (silent, half);
    let drip = async {
        for byte in &hello {
            if dripping.push(&[*byte]).await.is_err() {
                return;
            }
            // A client that is slow on purpose.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::join!(silent.rest(), half.rest(), drip);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(gateway.get("https://shop.test/").await.text(), "shop");
}

#[tokio::test]
async fn cleartext_on_the_tls_port_is_not_served() {
    let shop = Origin::replying("shop").await;
    let gateway = Gateway::in_front_of(shop.address).await;
    for start in ["GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut wire = Wire::connect(gateway.https()).await;
        wire.send(start).await;
        let rest = wire.rest().await;
        let text = String::from_utf8_lossy(&rest);
        assert!(!text.contains("200"), "{text}");
        assert!(!text.starts_with("HTTP/") || text.contains(" 400 "), "{text}");
    }
    assert_eq!(shop.connections(), 0);
}

/// certbot keeps an RSA and an ECDSA certificate for one name in two lineages.
#[tokio::test]
async fn rsa_and_ecdsa_stand_side_by_side() {
    let setup = Gateway::setup();
    let (ecdsa, rsa) = (ca().leaf(&["pair.test"]), ca().rsa_leaf(&["pair.test"]));
    Lineage::create(&setup.letsencrypt(), "pair.test", &rsa);
    Lineage::create(&setup.letsencrypt(), "pair.test-ecdsa", &ecdsa);
    let listener = "    - name: pair
      protocol: HTTPS
      port: 9443
      hostname: pair.test
      tls:
        certificateRefs: [{name: pair.test}]
";
    let gateway_file = std::fs::read_to_string(setup.path("common/gateway.yaml")).unwrap();
    let gateway = setup
        .file("common/gateway.yaml", &(gateway_file + listener))
        .socket("pair", "127.0.0.1:0")
        .start()
        .await;
    let address = gateway.address("pair");

    let today = Tls::of("pair.test").serial(address).await.unwrap();
    assert_eq!(today, ecdsa.serial, "ECDSA for who can");
    // ECDHE_RSA alone, and signatures of RSA alone.
    let mut hello = Hello::tls12("pair.test").with(13, Some(vec![0, 4, 8, 4, 4, 1]));
    hello.suites = vec![0xc02f, 0xc030];
    let answer = Record::answer_to(address, &hello.bytes()).await;
    assert!(matches!(answer, Record::Handshake(_)), "RSA for who cannot: {answer:?}");
}

#[tokio::test]
async fn before_the_first_certificate_port_80_works_and_443_refuses() {
    let setup = Gateway::setup();
    let lineage = setup.letsencrypt().join("live/gateway.test");
    let shop = Origin::replying("shop").await;
    std::fs::remove_dir_all(setup.letsencrypt().join("live")).unwrap();
    std::fs::create_dir(setup.letsencrypt().join("live")).unwrap();
    let gateway = setup
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;

    gateway.write_challenge("token", "token.thumbprint");
    let reply = gateway.get("http://shop.test/.well-known/acme-challenge/token").await;
    assert_eq!(reply.text(), "token.thumbprint");
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
    let answer = Record::answer_to(gateway.https(), &Hello::modern("shop.test").bytes()).await;
    assert!(matches!(answer, Record::Alert(_)), "{answer:?}");

    let first = ca().leaf(&["shop.test"]);
    std::fs::remove_dir_all(setup_archive(&gateway)).unwrap();
    Lineage::create(&gateway.setup_ref().letsencrypt(), "gateway.test", &first);
    assert!(lineage.is_dir());
    gateway.reload().await;
    assert_eq!(gateway.serial("shop.test").await, first.serial);
}

fn setup_archive(gateway: &Gateway) -> std::path::PathBuf {
    gateway.setup_ref().letsencrypt().join("archive/gateway.test")
}

#[tokio::test]
async fn handshakes_that_fail_leave_nothing_behind() {
    let shop = Origin::scripted(|_| Answer::ok("shop")).await;
    let gateway = Gateway::in_front_of(shop.address).await;
    gateway.get("https://shop.test/").await;
    let before = gateway.process().descriptors();
    for number in 0..100 {
        let mut wire = Wire::connect(gateway.https()).await;
        let hello = Hello::modern("unknown.test").bytes();
        wire.send(&hello[..hello.len() - (number % 2) * 20]).await;
        wire.finish().await;
        wire.rest().await;
    }
    until("descriptors come back", || gateway.process().descriptors() <= before + 2).await;
    assert_eq!(gateway.get("https://shop.test/").await.text(), "shop");
}
