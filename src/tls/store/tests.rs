//! Tests of the certificates served after changes on disk.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::secret::Secret;
use crate::tls::certificate::KeyType;
use crate::tls::chain::Chain;
use crate::tls::slot::Peer;
use crate::tls::testing::{Certbot, Issue, ecdsa, rsa};

use super::*;

fn inline(object: &str, chain: &str, key: &str) -> CertSource {
    CertSource::Inline {
        object: object.into(),
        chain: chain.into(),
        key: Secret::new(key.into()),
        shown_to: Peer::Clients,
    }
}

fn store(certbot: &Certbot) -> CertStore {
    CertStore::new(certbot.dir())
}

/// Returns the serials of the served certificates, in order.
fn serials(slot: &CertSlot) -> Vec<String> {
    slot.facts().into_iter().map(|facts| facts.serial).collect()
}

/// Returns the lineages of the served certificates, in order.
fn lineages(slot: &CertSlot) -> Vec<String> {
    slot.facts().into_iter().filter_map(|facts| facts.lineage).collect()
}

#[test]
fn the_same_source_has_the_same_slot_while_somebody_uses_it() {
    let store = store(&Certbot::new());
    let source = || Certbot::source(&["a"]);
    let slot = store.slot(source());
    assert!(Arc::ptr_eq(&slot, &store.slot(source())));
    assert!(!Arc::ptr_eq(&slot, &store.slot(Certbot::source(&["b"]))));
    assert_eq!(store.reload().len(), 1, "the other slot is used no more");
    drop(slot);
    assert_eq!(store.reload(), []);
    assert!(store.lock().is_empty());
}

#[test]
fn a_renewal_is_seen_whole_or_not_at_all() {
    let certbot = Certbot::new();
    certbot.issue("a", &Issue::to(&["a"]));
    let store = store(&certbot);
    let slot = store.slot(Certbot::source(&["a"]));
    let before = serials(&slot);

    let steps = certbot.renewal("a", &Issue::to(&["a"]));
    let last = steps.len() - 1;
    let mut waited = 0;
    for (number, step) in steps.into_iter().enumerate() {
        step();
        let reports = store.reload();
        assert!(slot.is_ready(), "step {number}");
        if number < last {
            assert_eq!(serials(&slot), before, "step {number}: {reports:?}");
        }
        for report in reports.iter().filter(|report| report.news != News::Changed) {
            assert_eq!(report.news, News::Fault { retry: true }, "step {number}: {report}");
            waited += 1;
        }
    }
    // The five steps from the removal of `privkey.pem` to that of `fullchain.pem` have a fault: the
    // key is missing, then it is newer than the chain, then the chain is missing.
    assert_eq!(waited, 5);
    assert_ne!(serials(&slot), before);
    assert_eq!(slot.problem(), None);
    assert_eq!(store.reload(), [], "nothing new");
}

#[test]
fn certbot_may_work_while_the_gateway_reads() {
    let certbot = Certbot::new();
    let issues = [Issue::to(&["a"]), Issue::to(&["a"])];
    certbot.issue("a", &issues[0]);
    let store = store(&certbot);
    let slot = store.slot(Certbot::source(&["a"]));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for report in store.reload() {
                    assert_ne!(report.news, News::Fault { retry: false }, "{report}");
                }
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                slot.any().unwrap().keys_match().unwrap();
            }
        });
        for number in 1..=200 {
            certbot.issue("a", &issues[number % 2]);
        }
        done.store(true, Ordering::Relaxed);
    });
    store.reload();
    assert_eq!(slot.any().unwrap().cert[0].as_ref(), certbot.leaf("a"));
}

#[test]
fn a_renewal_is_reported_with_what_is_served_now() {
    let certbot = Certbot::new();
    certbot.issue("a", &Issue::to(&["a.test"]));
    let store = store(&certbot);
    let slot = store.slot(Certbot::source(&["a"]));
    certbot.issue("a", &Issue::to(&["a.test"]));
    let reports = store.reload();
    let [report] = &reports[..] else { panic!("one line, not {reports:?}") };
    let file = certbot.live().join("a/fullchain.pem");
    let serial = serials(&slot).concat();
    let want = format!(
        "Secret test/pair: serving `{}` (a.test; ECDSA, serial {serial}, until \
         2090-01-01T00:00:00Z)",
        file.display()
    );
    assert_eq!(report.to_string(), want);
}

#[test]
fn a_fault_on_disk_takes_nothing_away() {
    let issue = Issue::to(&["a"]);
    let other = Issue::to(&["a"]);
    let expired = Issue::dated(&ecdsa(), &["a"], 2020, 2021);
    let early = Issue::dated(&ecdsa(), &["a"], 2088, 2090);
    // (file, its new text or `None` to remove it, part of the message)
    let table = [
        ("fullchain1.pem", Some(&issue.chain[..issue.chain.len() / 2]), "cut short"),
        ("fullchain1.pem", Some(""), "no certificate"),
        ("fullchain1.pem", Some(&other.chain), "does not fit"),
        ("fullchain1.pem", None, "not there"),
        ("privkey1.pem", Some(&issue.key[..40]), "cut short"),
        ("privkey1.pem", Some(&other.key), "does not fit"),
        ("privkey1.pem", None, "not there"),
    ];
    for (file, text, want) in table {
        let certbot = Certbot::new();
        certbot.issue("a", &issue);
        let store = store(&certbot);
        let slot = store.slot(Certbot::source(&["a"]));
        let before = serials(&slot);
        let path = certbot.archive().join("a").join(file);
        match text {
            Some(text) => fs::write(path, text).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
        let reports = store.reload();
        let [report] = &reports[..] else { panic!("one line, not {reports:?}") };
        let line = report.to_string();
        assert!(line.contains(want), "{want}: {line}");
        assert!(line.contains(file.trim_end_matches("1.pem")), "{line}");
        assert!(line.contains(&format!("still serving `{}", certbot.live().display())), "{line}");
        assert_eq!(serials(&slot), before, "{line}");
        assert!(slot.problem().unwrap().contains(want));
    }

    for (issue, want) in [(expired, "expired on 2021-01-01"), (early, "not valid before 2088")] {
        let certbot = Certbot::new();
        certbot.issue("a", &Issue::to(&["a"]));
        let store = store(&certbot);
        let slot = store.slot(Certbot::source(&["a"]));
        let before = serials(&slot);
        certbot.issue("a", &issue);
        let line = store.reload()[0].to_string();
        assert!(line.contains(want), "{line}");
        assert!(line.contains(&format!("serial {}", before[0])), "{line}");
        assert_eq!(serials(&slot), before);
    }
}

#[test]
fn a_lineage_that_is_gone_is_served_on() {
    let certbot = Certbot::new();
    certbot.issue("a", &Issue::to(&["a"]));
    let store = store(&certbot);
    let slot = store.slot(Certbot::source(&["a"]));
    fs::remove_dir_all(certbot.live()).unwrap();
    let line = store.reload()[0].to_string();
    assert!(line.contains("no certbot lineage of the name `a`"), "{line}");
    assert!(line.contains("still serving"), "{line}");
    assert!(slot.is_ready());
}

#[test]
fn the_fault_of_one_is_no_fault_of_another() {
    let certbot = Certbot::new();
    certbot.issue("a", &Issue::to(&["a"]));
    certbot.issue("b", &Issue::to(&["b"]));
    let store = store(&certbot);
    let [a, b] = ["a", "b"].map(|name| store.slot(Certbot::source(&[name])));
    let before = (serials(&a), serials(&b));
    fs::write(certbot.live().join("a/fullchain.pem"), "").unwrap();
    certbot.issue("b", &Issue::to(&["b"]));
    let news: Vec<_> = store.reload().into_iter().map(|report| report.news).collect();
    assert!(news.contains(&News::Changed), "{news:?}");
    assert!(news.contains(&News::Fault { retry: false }), "{news:?}");
    assert_eq!(serials(&a), before.0);
    assert_ne!(serials(&b), before.1);
}

#[test]
fn without_anything_better_an_expired_certificate_is_served_aloud() {
    let certbot = Certbot::new();
    certbot.issue("a", &Issue::dated(&ecdsa(), &["a"], 2020, 2021));
    let store = store(&certbot);
    let slot = store.slot(Certbot::source(&["a"]));
    assert!(slot.is_ready());
    assert!(slot.problem().unwrap().contains("expired on 2021-01-01T00:00:00Z"));
    let reports = store.reload();
    assert_eq!(reports[0].news, News::Fault { retry: false });

    certbot.issue("a-0001", &Issue::to(&["a"]));
    store.reload();
    assert_eq!(lineages(&slot), ["a-0001"]);
    assert_eq!(slot.problem(), None, "nobody is served the expired one any more");
}

#[test]
fn of_one_key_type_the_newest_valid_one_and_of_several_each() {
    let rsa = rsa();
    let ec = ecdsa();
    let both = ["a", "b"];
    // (lineages with their certificates, lineages served)
    type Row<'a> = (Vec<(&'a str, Issue)>, Vec<&'a str>);
    let table: [Row<'_>; 9] = [
        (
            vec![
                ("a", Issue::dated(rsa, &["a"], 2024, 2090)),
                ("a-ecdsa", Issue::dated(&ec, &["a"], 2024, 2090)),
            ],
            vec!["a-ecdsa", "a"],
        ),
        // The newer, though it expires earlier.
        (
            vec![
                ("a", Issue::dated(&ec, &["a"], 2024, 2090)),
                ("a-0001", Issue::dated(&ec, &["a"], 2025, 2089)),
            ],
            vec!["a-0001"],
        ),
        (
            vec![
                ("a", Issue::dated(&ec, &["a"], 2025, 2090)),
                ("a-0001", Issue::dated(&ec, &["a"], 2024, 2090)),
            ],
            vec!["a"],
        ),
        // The newest is not valid yet.
        (
            vec![
                ("a", Issue::dated(&ec, &["a"], 2024, 2090)),
                ("a-0001", Issue::dated(&ec, &["a"], 2089, 2090)),
            ],
            vec!["a"],
        ),
        // A certificate with more names replaces one with fewer. With fewer, each serves the
        // clients that ask for its names.
        (
            vec![
                ("a", Issue::dated(&ec, &["a"], 2024, 2090)),
                ("a-0001", Issue::dated(&ec, &both, 2025, 2090)),
            ],
            vec!["a-0001"],
        ),
        (
            vec![
                ("a", Issue::dated(&ec, &both, 2024, 2090)),
                ("a-0001", Issue::dated(&ec, &["a"], 2025, 2090)),
                ("a-rsa", Issue::dated(rsa, &["b"], 2025, 2090)),
            ],
            vec!["a-0001", "a", "a-rsa"],
        ),
        // An expired certificate is not served beside a valid one.
        (
            vec![
                ("a", Issue::dated(&ec, &both, 2020, 2021)),
                ("a-0001", Issue::dated(&ec, &["a"], 2024, 2090)),
            ],
            vec!["a-0001"],
        ),
        // An expired certificate of another key type comes last, for clients that can check no
        // other.
        (
            vec![
                ("a", Issue::dated(rsa, &["a"], 2024, 2090)),
                ("a-ecdsa", Issue::dated(&ec, &["a"], 2020, 2021)),
            ],
            vec!["a", "a-ecdsa"],
        ),
        (vec![("a-0001", Issue::dated(&ec, &["a"], 2024, 2090))], vec!["a-0001"]),
    ];
    for (number, (issues, want)) in table.into_iter().enumerate() {
        let certbot = Certbot::new();
        for (name, issue) in &issues {
            certbot.issue(name, issue);
        }
        let slot = store(&certbot).slot(Certbot::source(&["a"]));
        assert_eq!(lineages(&slot), want, "row {number}");
    }
}

#[test]
fn a_broken_variant_leaves_the_others_and_its_last_good_self() {
    let certbot = Certbot::new();
    certbot.issue("a", &Issue::dated(rsa(), &["a"], 2024, 2090));
    certbot.issue("a-ecdsa", &Issue::to(&["a"]));
    let store = store(&certbot);
    let slot = store.slot(Certbot::source(&["a"]));
    let before = serials(&slot);
    fs::write(certbot.archive().join("a-ecdsa/privkey1.pem"), "").unwrap();
    assert_eq!(store.reload().len(), 1);
    assert_eq!(serials(&slot), before);

    // If it is removed on purpose, it is no longer served.
    fs::remove_dir_all(certbot.live().join("a-ecdsa")).unwrap();
    assert_eq!(store.reload(), []);
    let types: Vec<_> = slot.facts().iter().map(|facts| facts.key_type).collect();
    assert_eq!(types, [KeyType::Rsa]);
}

#[test]
fn a_variant_takes_nothing_from_a_broken_namesake_with_more_names() {
    let certbot = Certbot::new();
    certbot.issue("a", &Issue::to(&["a", "b"]));
    certbot.issue("a-0001", &Issue::dated(&ecdsa(), &["a"], 2025, 2090));
    let store = store(&certbot);
    let slot = store.slot(Certbot::source(&["a"]));
    fs::write(certbot.archive().join("a/fullchain1.pem"), "").unwrap();
    store.reload();
    assert_eq!(lineages(&slot), ["a-0001", "a"]);
}

#[test]
fn a_secret_edited_in_place_keeps_its_last_good_pair() {
    let good = Issue::to(&["a"]);
    let store = store(&Certbot::new());
    let slot = store.slot(inline("Secret x/a", &good.chain, &good.key));
    assert!(slot.is_ready());
    let edited = store.slot(inline("Secret x/a", &good.chain, "nonsense"));
    assert_eq!(serials(&edited), serials(&slot));
    assert!(edited.problem().unwrap().starts_with("`tls.key`: no private key"));

    drop(slot);
    store.reload();
    assert!(edited.is_ready(), "it is its own now");
    let stranger = store.slot(inline("Secret x/b", &good.chain, "nonsense"));
    assert!(!stranger.is_ready());
    let line = store.reload().pop().unwrap().to_string();
    assert!(line.ends_with("so handshakes are refused"), "{line}");
}

#[test]
fn no_listener_shows_the_certificate_of_another() {
    let certbot = Certbot::new();
    certbot.issue("a.test", &Issue::to(&["a.test"]));
    let store = store(&certbot);
    let of_host = |host: &str| CertSource::Lineage {
        object: "Secret test/pair".into(),
        names: vec!["pair".into(), host.into()],
        host: Some(host.into()),
        chosen: false,
        shown_to: Peer::Clients,
    };
    let first = store.slot(of_host("a.test"));
    assert!(first.is_ready());
    let second = store.slot(of_host("b.test"));
    assert!(!second.is_ready(), "nothing was issued for b.test");
    let annotated = store.slot(Certbot::source(&["missing"]));
    assert!(!annotated.is_ready(), "nor for a listener without a hostname");
    let pair = store.slot(inline("Secret test/pair", "", ""));
    assert!(!pair.is_ready(), "nor is it the pair of a Secret");

    fs::remove_dir_all(certbot.live().join("a.test")).unwrap();
    let renamed = store.slot(CertSource::Lineage {
        object: "Secret test/pair".into(),
        names: vec!["other".into()],
        host: Some("a.test".into()),
        chosen: false,
        shown_to: Peer::Clients,
    });
    assert_eq!(serials(&renamed), serials(&first), "the same listener, with another `${{DOMAIN}}`");
}

/// The source of a listener of `host` that refers to a Secret named `secret`.
fn of_host(secret: &str, host: &str, chosen: bool) -> CertSource {
    CertSource::Lineage {
        object: format!("Secret test/{secret}"),
        names: if chosen { vec![secret.into()] } else { vec![secret.into(), host.into()] },
        host: Some(host.into()),
        chosen,
        shown_to: Peer::Clients,
    }
}

#[test]
fn the_names_in_the_certificate_decide_not_the_name_of_the_folder() {
    let (ec, rsa) = (ecdsa(), rsa());
    let shop: &[&str] = &["shop.a.test"];
    let wild: &[&str] = &["a.test", "*.a.test"];
    let issue = |names: &[&str], from, until| Issue::dated(&ec, names, from, until);
    let old = || issue(shop, 2024, 2090);
    let new = || issue(shop, 2025, 2089);
    // (name of the Secret, `chosen`, lineages, lineages served)
    type Row<'a> = (&'a str, bool, Vec<(&'a str, Issue)>, &'a [&'a str]);
    let table: [Row<'_>; 16] = [
        ("pair", false, vec![("other", old())], &["other"]),
        (
            "pair",
            false,
            vec![("shop.a.test", old()), ("shop.a.test-0001", new())],
            &["shop.a.test-0001"],
        ),
        ("pair", false, vec![("shop.a.test", old()), ("other", new())], &["other"]),
        ("pair", false, vec![("shop.a.test", new()), ("other", old())], &["shop.a.test"]),
        // Equally new: the name breaks the tie.
        ("pair", false, vec![("aaa", old()), ("shop.a.test", old())], &["shop.a.test"]),
        // Fewer names are enough for one host, and a directory name is not enough.
        (
            "pair",
            false,
            vec![("shop.a.test", issue(&["shop.a.test", "b.test"], 2024, 2090)), ("x", new())],
            &["x"],
        ),
        (
            "pair",
            false,
            vec![("shop.a.test", issue(&["b.test"], 2025, 2090)), ("x", old())],
            &["x"],
        ),
        // The hostname itself before a wildcard, while it is valid.
        ("pair", false, vec![("a.test", issue(wild, 2025, 2090)), ("x", old())], &["x"]),
        (
            "pair",
            false,
            vec![("a.test", issue(wild, 2024, 2090)), ("x", issue(shop, 2020, 2021))],
            &["a.test"],
        ),
        // A certificate that is not valid yet does not count as newer.
        (
            "pair",
            false,
            vec![("shop.a.test", old()), ("x", issue(shop, 2089, 2090))],
            &["shop.a.test"],
        ),
        // One of each key type.
        (
            "pair",
            false,
            vec![("one", Issue::dated(rsa, shop, 2025, 2090)), ("two", old())],
            &["two", "one"],
        ),
        // The lineage that a person named, while it is valid and covers the host.
        ("mine", false, vec![("mine", old()), ("shop.a.test", new())], &["mine"]),
        ("mine", false, vec![("mine", issue(shop, 2020, 2021)), ("x", new())], &["x"]),
        ("mine", false, vec![("mine", issue(&["b.test"], 2025, 2090)), ("x", old())], &["x"]),
        // If a Secret chooses the lineage, only that one and its variants are served.
        ("mine", true, vec![("mine", issue(&["b.test"], 2020, 2021)), ("x", new())], &["mine"]),
        ("mine", true, vec![("mine", old()), ("mine-0001", new()), ("x", new())], &["mine-0001"]),
    ];
    for (number, (secret, chosen, issues, want)) in table.into_iter().enumerate() {
        let certbot = Certbot::new();
        for (name, issue) in &issues {
            certbot.issue(name, issue);
        }
        let slot = store(&certbot).slot(of_host(secret, "shop.a.test", chosen));
        assert_eq!(lineages(&slot), want, "row {number}");
    }
}

#[test]
fn without_a_newer_lineage_the_older_one_serves_again() {
    let certbot = Certbot::new();
    certbot.issue("a.test", &Issue::dated(&ecdsa(), &["a.test"], 2024, 2090));
    let store = store(&certbot);
    let slot = store.slot(of_host("pair", "a.test", false));
    certbot.issue("b.test", &Issue::dated(&ecdsa(), &["a.test", "b.test"], 2025, 2090));
    store.reload();
    assert_eq!(lineages(&slot), ["b.test"]);
    assert!(store.watched().contains(&certbot.live().join("b.test")));

    // Half renewed, it is still served; removed, as by `certbot delete`, it is not.
    fs::remove_file(certbot.live().join("b.test/privkey.pem")).unwrap();
    store.reload();
    assert_eq!(lineages(&slot), ["b.test"]);
    assert!(slot.problem().unwrap().contains("b.test/privkey.pem"));
    fs::remove_dir_all(certbot.live().join("b.test")).unwrap();
    store.reload();
    assert_eq!(lineages(&slot), ["a.test"]);
    assert_eq!(slot.problem(), None);
}

#[test]
fn a_stranger_that_cannot_be_read_is_no_concern() {
    let certbot = Certbot::new();
    certbot.issue("a.test", &Issue::to(&["a.test"]));
    certbot.issue("mail", &Issue::to(&["mail.test"]));
    fs::write(certbot.archive().join("mail/privkey1.pem"), "").unwrap();
    let store = store(&certbot);
    let slot = store.slot(of_host("pair", "a.test", false));
    assert_eq!((slot.problem(), store.reload()), (None, vec![]));
    // It does not hide that there is none for the host.
    let none = store.slot(of_host("pair", "b.test", false));
    assert!(none.problem().unwrap().contains("no certbot lineage of the name `pair` or `b.test`"));
}

#[test]
fn a_listener_for_every_host_serves_each_with_the_newest_for_it() {
    let certbot = Certbot::new();
    certbot.issue("a.test", &Issue::dated(&ecdsa(), &["a.test", "www.a.test"], 2024, 2090));
    certbot.issue("new", &Issue::dated(&ecdsa(), &["a.test", "mail.a.test"], 2025, 2090));
    certbot.issue("b.test", &Issue::to(&["b.test"]));
    let slot = store(&certbot).slot(Certbot::source(&["pair", "a.test"]));
    assert_eq!(lineages(&slot), ["new", "a.test"]);
    let shown = |name| {
        let picked = slot.pick(Some(name), &[rustls::SignatureScheme::ECDSA_NISTP256_SHA256]);
        picked.map(|key| key.cert[0].to_vec())
    };
    assert_eq!(shown("a.test"), Some(certbot.leaf("new")));
    assert_eq!(shown("www.a.test"), Some(certbot.leaf("a.test")));
    assert_eq!(shown("b.test"), None);
}

#[test]
fn a_key_never_shows() {
    let issue = Issue::to(&["a"]);
    let slot = store(&Certbot::new()).slot(inline("Secret x/a", &issue.chain, &issue.key));
    let shown = format!("{slot:?}");
    assert!(shown.contains("[redacted]"));
    assert!(!shown.contains(&format!("{:?}", issue.key.as_bytes())));
}

#[test]
fn what_is_watched_is_there_and_is_where_changes_show() {
    let certbot = Certbot::new();
    let store = CertStore::new(certbot.dir().join("not/yet"));
    assert_eq!(store.watched(), Vec::<PathBuf>::new(), "no lineage in use");
    let _slot = store.slot(Certbot::source(&["a"]));
    assert_eq!(store.watched(), [certbot.dir()], "the nearest that is there");

    certbot.issue("a", &Issue::to(&["a"]));
    certbot.issue("b", &Issue::to(&["b"]));
    let store = CertStore::new(certbot.dir());
    let chosen = store.slot(of_host("a", "a", true));
    let want =
        [certbot.dir(), certbot.archive().join("a"), certbot.live(), certbot.live().join("a")];
    assert_eq!(store.watched(), want);
    drop(chosen);
    let _slot = store.slot(Certbot::source(&["a"]));
    assert!(store.watched().contains(&certbot.archive().join("b")), "it may come to be for `a`");
}

#[test]
fn a_certificate_for_an_address_is_served_beside_the_others() {
    let certbot = Certbot::new();
    let store = store(&certbot);
    let slot = store.slot(Certbot::source(&["a.test"]));
    let key = ecdsa();
    certbot.issue("a.test", &Issue::dated(&key, &["a.test"], 2024, 2090));
    // Issued later, and so preferred if all else is equal.
    certbot.issue("203.0.113.7", &Issue::dated(&key, &["203.0.113.7"], 2025, 2090));
    store.reload();
    assert_eq!(lineages(&slot), ["a.test", "203.0.113.7"]);
    assert_eq!(slot.problem(), None);
    let of_host = store.slot(of_host("pair", "a.test", false));
    assert_eq!(lineages(&of_host), ["a.test"], "a listener with a hostname has no such clients");

    certbot.issue("203.0.113.7", &Issue::dated(&key, &["203.0.113.7"], 2025, 2026));
    store.reload();
    assert_eq!(lineages(&slot), ["a.test", "203.0.113.7"], "it is not for the same clients");
    assert!(slot.problem().unwrap().contains("expired"));

    certbot.issue("203.0.113.7", &Issue::dated(&key, &["203.0.113.7"], 2025, 2090));
    fs::remove_dir_all(certbot.live().join("a.test")).unwrap();
    // A store that has served nothing yet.
    let store = CertStore::new(certbot.dir());
    let slot = store.slot(Certbot::source(&["b.test"]));
    assert_eq!(lineages(&slot), ["203.0.113.7"]);
    assert!(slot.problem().unwrap().contains("no certbot lineage of the name `b.test`"));
    let nameless = store.slot(Certbot::source(&["pair"]));
    assert_eq!(nameless.problem(), None, "no host was looked for");
}

#[test]
fn a_chain_that_breaks_off_is_told_and_served() {
    let certbot = Certbot::new();
    let (root, leaf) = (ecdsa(), ecdsa());
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "A Root");
    let issuer = rcgen::Issuer::new(params, root);
    let alone = rcgen::CertificateParams::new(vec!["a.test".into()]).unwrap();
    let chain = alone.signed_by(&leaf, &issuer).unwrap().pem();
    let (chain, key) = (chain, leaf.serialize_pem());
    certbot.issue("a.test", &Issue { chain: chain.clone(), key: key.clone() });
    let store = store(&certbot);
    let slot = store.slot(Certbot::source(&["a.test"]));
    assert!(slot.is_ready());
    assert!(slot.problem().unwrap().contains("its issuer, CN=A Root"), "{:?}", slot.problem());
    assert!(matches!(slot.judged()[0].chain, Chain::Broken(_)));
    let report = store.reload().pop().unwrap();
    assert_eq!(report.news, News::Fault { retry: false });
    assert!(report.message.contains("still serving"), "{report}");

    // Backends validate against authorities of their own.
    let to_backends = CertSource::Inline {
        object: "Secret test/client".into(),
        chain: chain.into(),
        key: Secret::new(key.into()),
        shown_to: Peer::Backends,
    };
    assert_eq!(store.slot(to_backends).problem(), None);
}
