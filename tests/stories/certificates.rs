//! Certificates of certbot's: which lineage is meant, and what becomes of one that is bad.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use crate::support::{
    Gateway, Hello, Leaf, Lineage, NAMES, Origin, Record, Tls, ca, serve_all, soon, until,
};

/// The name of a Secret is the user's own; the annotation says which lineage it stands for.
#[tokio::test]
async fn a_secret_names_its_lineage() {
    let setup = Gateway::setup();
    let leaf = ca().leaf(&["shop.test"]);
    Lineage::create(&setup.letsencrypt(), "shop.test-0001", &leaf);
    let secret = "\
apiVersion: v1
kind: Secret
metadata:
  name: eih-tls-cert
  namespace: envoy-gateway-system
  annotations:
    edge-gateway.io/lineage: shop.test-0001
type: kubernetes.io/tls
";
    let gateway = setup.file("common/secret.yaml", secret).start().await;
    assert_eq!(gateway.serial("shop.test").await, leaf.serial);
}

/// certbot's folders: which one it is issued to is certbot's affair, and what is deleted is gone.
#[tokio::test]
async fn of_two_lineages_the_newer_serves_until_it_is_deleted() {
    let gateway = Gateway::setup().watching().start().await;
    let old = ca().leaf_of(2024, &["gateway.test", "shop.test"]);
    gateway.lineage().renew(&old);
    until_serial(&gateway, "shop.test", old.serial).await;

    // As after `certbot certonly -d shop.test -d gateway.test -d new.test`.
    let new = ca().leaf_of(2025, &["gateway.test", "new.test", "shop.test"]);
    let lineage = Lineage::create(&gateway.setup_ref().letsencrypt(), "gateway.test-0001", &new);
    until_serial(&gateway, "shop.test", new.serial).await;
    // And one whose folder tells nothing.
    let third = ca().leaf_of(2026, &["gateway.test"]);
    let stranger = Lineage::create(&gateway.setup_ref().letsencrypt(), "main", &third);
    until_serial(&gateway, "gateway.test", third.serial).await;
    assert_eq!(gateway.serial("shop.test").await, new.serial, "it is for fewer names");

    for (delete, name, back) in [(stranger, "gateway.test", &new), (lineage, "shop.test", &old)] {
        std::fs::remove_dir_all(delete.live()).unwrap();
        until_serial(&gateway, name, back.serial).await;
    }
}

/// Waits until the certificate that is shown for `name` is the one with this serial number.
async fn until_serial(gateway: &Gateway, name: &str, serial: u64) {
    soon("the certificate", async {
        while gateway.serial(name).await != serial {
            // Handshakes in a tight loop would take the time that the gateway needs to read.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// Renewals as fast as they can be written, read in the middle of each other, under handshakes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_handshake_fails_while_links_are_swapped() {
    let gateway = Gateway::setup().watching().start().await;
    let address = gateway.https();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut clients = JoinSet::new();
    for _ in 0..2 {
        let stopped = stopped.clone();
        clients.spawn(async move {
            let mut count = 0;
            while !*stopped.borrow() {
                // A pair that does not fit fails here: the client checks the signature.
                soon("a handshake", Tls::of("shop.test").serial(address)).await.unwrap();
                count += 1;
            }
            count
        });
    }
    let mut last = 0;
    for number in 0..100 {
        let leaf = ca().leaf(&["gateway.test", "shop.test"]);
        gateway.lineage().renew(&leaf);
        last = leaf.serial;
        if number % 5 == 0 {
            gateway.process().signal(Signal::SIGHUP);
        }
        // So that some renewals are seen whole and others in the middle.
        tokio::time::sleep(Duration::from_millis(number % 10)).await;
    }
    gateway.reload().await;
    assert_eq!(gateway.serial("shop.test").await, last);
    stop.send_replace(true);
    let mut total = 0;
    while let Some(count) = soon("clients end", clients.join_next()).await {
        total += count.unwrap();
    }
    assert!(total > 20, "{total} handshakes");
}

/// Nothing better is there, so it is shown, and somebody is told.
#[tokio::test]
async fn an_expired_certificate_is_loud() {
    let setup = Gateway::setup();
    std::fs::remove_dir_all(setup.letsencrypt()).unwrap();
    let expired = ca().expired_leaf(&["gateway.test", "shop.test"]);
    Lineage::create(&setup.letsencrypt(), "gateway.test", &expired);
    let shop = Origin::replying("shop").await;
    let gateway = setup
        .file("routes/shop.yaml", &serve_all("shop", "shop.test", &[shop.address]))
        .start()
        .await;
    let answer = Record::answer_to(gateway.https(), &Hello::modern("shop.test").bytes()).await;
    assert!(matches!(answer, Record::Handshake(_) | Record::Alert(_)), "{answer:?}");
    until("it is told", || gateway.process().stderr().contains("expired")).await;
    assert_eq!(gateway.get("http://shop.test/").await.text(), "shop");
}

/// What editors, `cat` and Windows make of PEM is read: the client has the root alone, so a chain
/// without its second certificate is no chain.
#[tokio::test]
async fn a_chain_is_served_whole_however_it_was_saved() {
    let gateway = Gateway::start().await;
    let issuer = ca().intermediate();
    type Save = fn(&Leaf) -> Leaf;
    let table: [(&str, Save); 4] = [
        ("no newline between the certificates", |leaf| Leaf {
            certificate_pem: leaf.certificate_pem.trim_end().into(),
            ..leaf.clone()
        }),
        ("byte order marks", |leaf| Leaf {
            certificate_pem: format!("\u{feff}{}", leaf.certificate_pem),
            chain_pem: format!("\u{feff}{}", leaf.chain_pem),
            key_pem: format!("\u{feff}{}", leaf.key_pem),
            ..leaf.clone()
        }),
        ("CRLF", |leaf| Leaf {
            certificate_pem: leaf.certificate_pem.replace('\n', "\r\n"),
            chain_pem: leaf.chain_pem.replace('\n', "\r\n"),
            key_pem: leaf.key_pem.replace('\n', "\r\n"),
            ..leaf.clone()
        }),
        ("text around", |leaf| Leaf {
            certificate_pem: format!("subject=CN = a\n{}issuer=CN = b\n", leaf.certificate_pem),
            key_pem: format!("Bag Attributes\n    a: b\n{}", leaf.key_pem),
            ..leaf.clone()
        }),
    ];
    for (how, save) in table {
        let leaf = issuer.leaf(&NAMES);
        gateway.lineage().renew(&save(&leaf));
        gateway.reload().await;
        assert_eq!(gateway.serial("shop.test").await, leaf.serial, "{how}");
    }
}

/// A file that cannot be read keeps the last good pair, and is told by its true fault.
#[tokio::test]
async fn a_chain_that_cannot_be_read_is_refused_with_the_truth() {
    let gateway = Gateway::start().await;
    let before = gateway.serial("shop.test").await;
    let leaf = ca().intermediate().leaf(&NAMES);
    type Spoil = fn(&Leaf) -> Vec<u8>;
    // (what becomes of the chain, part of what is told)
    let table: [(Spoil, &str); 3] = [
        (
            |leaf| leaf.certificate_pem.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            "is UTF-16 text",
        ),
        (
            |leaf| leaf.certificate_pem.replace("CERTIFICATE", "TRUSTED CERTIFICATE").into_bytes(),
            "a form that only OpenSSL reads",
        ),
        (
            |leaf| (leaf.certificate_pem.clone() + &leaf.chain_pem.replace("-----", "----")).into(),
            "section 2 has no line",
        ),
    ];
    for (spoil, told) in table {
        gateway.lineage().renew(&leaf);
        let chain = gateway.lineage().live().join("fullchain.pem");
        std::fs::remove_file(&chain).unwrap();
        std::fs::write(&chain, spoil(&leaf)).unwrap();
        gateway.reload().await;
        assert_eq!(gateway.serial("shop.test").await, before, "{told}");
        until(told, || gateway.process().stderr().contains(told)).await;
    }
}

/// A client that goes to an address asks for no name. It gets the certificate for the address that it
/// came to, and behind NAT, where the host does not have that, the one for an address.
#[tokio::test]
async fn a_certificate_for_an_address_serves_clients_that_come_by_it() {
    let gateway = Gateway::start().await;
    let named = gateway.serial("gateway.test").await;
    // Issued later, and so preferred among equals.
    let (own, public) = (ca().leaf(&["127.0.0.1"]), ca().leaf(&["203.0.113.7"]));
    let letsencrypt = gateway.setup_ref().letsencrypt();
    // It checks the certificate for this name, and asks for none.
    let shown = async |name: &str| {
        let silent = Tls::of(name).with(|config| config.enable_sni = false);
        silent.serial(gateway.https()).await.unwrap()
    };
    assert_eq!(shown("gateway.test").await, named, "there is no other");

    Lineage::create(&letsencrypt, "203.0.113.7", &public);
    gateway.reload().await;
    assert_eq!(shown("203.0.113.7").await, public.serial, "behind NAT");
    assert_eq!(gateway.serial("gateway.test").await, named);

    Lineage::create(&letsencrypt, "127.0.0.1", &own);
    gateway.reload().await;
    assert_eq!(gateway.serial("127.0.0.1").await, own.serial, "the address that it came to");
    assert_eq!(gateway.serial("gateway.test").await, named);

    let mut command = gateway.setup_ref().command("certs");
    let certs = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let table = String::from_utf8(certs.stdout).unwrap();
    assert_eq!(certs.status.code(), Some(0), "{table}");
    assert!(
        table.contains("lineage 127.0.0.1") && table.contains("lineage 203.0.113.7"),
        "{table}"
    );

    // Two for addresses, none of which this host has: nobody can say which.
    std::fs::remove_dir_all(letsencrypt.join("live/127.0.0.1")).unwrap();
    Lineage::create(&letsencrypt, "203.0.113.8", &ca().leaf(&["203.0.113.8"]));
    gateway.reload().await;
    assert_eq!(shown("gateway.test").await, named);
}
