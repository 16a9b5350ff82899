//! Judgement of certificate chains: can clients follow a chain to a root? Made when a certificate
//! is read, never in a handshake.
//!
//! Signatures and dates are checked by the function that rustls clients use. This file adds the
//! name of the missing or wrong certificate, and tells an incomplete chain from a complete one
//! below a root that this host does not have: a private authority, or one for tests.

use std::time::{Duration, SystemTime};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore};
use rustls_pemfile::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

use super::authorities::Authorities;
use super::fault::day;

/// The result of judging a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Chain {
    /// The chain leads to a root that this host trusts.
    #[default]
    Trusted,
    /// The chain is complete, but this host does not have its root. The text names the root or the
    /// issuer of the last certificate, or says that the certificate has signed itself.
    Unknown(String),
    /// Clients cannot follow the chain. The text says what is wrong, and how to fix it.
    Broken(String),
}

/// Judges a chain. `parsed` are the same certificates, the leaf first; `host` are the roots that
/// this host trusts; `known` are the signature algorithms that can be verified.
pub(super) fn judge(
    chain: &[CertificateDer<'_>],
    parsed: &[X509Certificate<'_>],
    host: Option<&Authorities>,
    known: WebPkiSupportedAlgorithms,
    now: SystemTime,
) -> Chain {
    let (Some(first), Some(leaf)) = (chain.first(), parsed.first()) else {
        return Chain::Trusted;
    };
    if host.is_some_and(|host| host.contains(first)) {
        return Chain::Trusted;
    }
    if is_self_issued(leaf) {
        return Chain::Unknown(format!(
            "it has signed itself: clients refuse it unless they were given it{}",
            without_store(host)
        ));
    }
    // webpki refuses some certificates (version 1, for example) that can be served. They are not
    // judged.
    let Ok(end_entity) = ParsedCertificate::try_from(first) else { return Chain::Trusted };
    // The dates of the leaf itself are reported elsewhere.
    let at = within(now, leaf);
    let verify = |roots: &RootCertStore| {
        let at = UnixTime::since_unix_epoch(
            at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
        );
        verify_server_cert_signed_by_trust_anchor(&end_entity, roots, &chain[1..], at, known.all)
    };
    if host.is_some_and(|host| verify(host.roots()).is_ok()) {
        return Chain::Trusted;
    }

    let path = path(parsed, at);
    for &place in &path[1..] {
        let (number, one) = (place + 1, &parsed[place]);
        let (subject, validity) = (one.subject(), one.validity());
        let from = moment(validity.not_before.timestamp());
        let until = moment(validity.not_after.timestamp());
        if until <= at {
            return Chain::Broken(format!(
                "certificate {number} of the chain ({subject}) expired on {}: clients refuse the \
                 chain; replace it with the one that the CA uses now{RENEWED}",
                day(until)
            ));
        }
        if at < from {
            return Chain::Broken(format!(
                "certificate {number} of the chain ({subject}) is not valid before {}: clients refuse \
                 the chain; is the clock of this host right?",
                day(from)
            ));
        }
    }
    let Some((&last, [.., _])) = path.split_last() else {
        return Chain::Broken(breaks_off(leaf, parsed.get(1), host));
    };
    let mut roots = RootCertStore::empty();
    // If the anchor cannot be read, the store stays empty, and `verify` returns an error.
    let _ = roots.add(chain[last].clone().into_owned());
    match verify(&roots) {
        Ok(_) => {
            let (last, what) = (&parsed[last], "among the CA certificates of this host: clients");
            let tail = format!("{what} that do not have it refuse{}", without_store(host));
            Chain::Unknown(match is_self_issued(last) {
                true => format!("its root ({}) is not {tail}", last.subject()),
                false => format!("it leads to {}, which is not {tail}", last.issuer()),
            })
        }
        Err(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) => Chain::Broken(format!(
            "the chain has a certificate named like the issuer ({}), but another key signed: clients \
             refuse the chain; replace it with the one that belongs to this certificate{RENEWED}",
            leaf.issuer()
        )),
        Err(error) => Chain::Broken(format!("clients refuse the chain: {error}")),
    }
}

const RENEWED: &str = " (`certbot renew --force-renewal --cert-name NAME` fetches it)";

fn breaks_off(
    leaf: &X509Certificate<'_>,
    second: Option<&X509Certificate<'_>>,
    host: Option<&Authorities>,
) -> String {
    let issuer = leaf.issuer();
    let found = match second {
        Some(second) => format!(
            "the chain goes on with {}, which has not issued the first certificate; its issuer is \
             {issuer}",
            second.subject()
        ),
        None => format!(
            "the chain ends with the certificate of the host; its issuer, {issuer}, is not in the file \
             and not among the CA certificates of this host"
        ),
    };
    format!(
        "{found}: clients that do not know {issuer} refuse it; put the certificate of {issuer} behind \
         the first, as certbot's `fullchain.pem` has it{}",
        without_store(host)
    )
}

/// Returns the hint for a host without any CA certificates.
fn without_store(host: Option<&Authorities>) -> &'static str {
    match host {
        Some(_) => "",
        None => {
            " (this host has no CA certificates to judge by; Debian: `apt install ca-certificates`)"
        }
    }
}

/// Returns the path from the leaf up, by the names of issuers: indexes into the chain.
fn path(parsed: &[X509Certificate<'_>], at: SystemTime) -> Vec<usize> {
    let mut path = vec![0];
    while let Some(&last) = path.last() {
        let below = &parsed[last];
        if is_self_issued(below) {
            break;
        }
        let issuers = (1..parsed.len()).filter(|place| {
            !path.contains(place) && parsed[*place].subject().as_raw() == below.issuer().as_raw()
        });
        // Of several with the same name, prefer the one with the signing key, then a valid one.
        let Some(next) = issuers.max_by_key(|place| {
            let one = &parsed[*place];
            let has_key = authority_key(below).is_some_and(|key| subject_key(one) == Some(key));
            (has_key, within(at, one) == at)
        }) else {
            break;
        };
        path.push(next);
    }
    path
}

fn is_self_issued(one: &X509Certificate<'_>) -> bool {
    one.subject().as_raw() == one.issuer().as_raw()
}

/// Returns the identifier of the key that signed a certificate.
fn authority_key<'a>(one: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    one.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(of) => of.key_identifier.as_ref().map(|key| key.0),
        _ => None,
    })
}

fn subject_key<'a>(one: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    one.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(key) => Some(key.0),
        _ => None,
    })
}

/// Converts seconds since 1970 to a time. Earlier times become 1970, which is just as expired.
pub(super) fn moment(seconds: i64) -> SystemTime {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Returns `now`, or the moment nearest to it at which the certificate is valid.
fn within(now: SystemTime, one: &X509Certificate<'_>) -> SystemTime {
    let validity = one.validity();
    let from = moment(validity.not_before.timestamp());
    let until = moment(validity.not_after.timestamp());
    let last = until.checked_sub(Duration::from_secs(1)).unwrap_or(until);
    if now < from { from } else { now.min(last.max(from)) }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::super::crypto::crypto;
    use super::super::{certificate, pem};
    use super::*;

    struct Ca {
        issuer: Issuer<'static, KeyPair>,
        pem: String,
    }

    impl Ca {
        fn new(name: &str, by: Option<&Self>, years: (i32, i32)) -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.use_authority_key_identifier_extension = true;
            dated(&mut params, years);
            let pem = match by {
                Some(by) => params.signed_by(&key, &by.issuer).unwrap().pem(),
                None => params.self_signed(&key).unwrap().pem(),
            };
            Self { issuer: Issuer::new(params, key), pem }
        }

        fn leaf(&self, years: (i32, i32)) -> String {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["a.test".into()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, "a.test");
            params.use_authority_key_identifier_extension = true;
            dated(&mut params, years);
            params.signed_by(&key, &self.issuer).unwrap().pem()
        }
    }

    fn dated(params: &mut CertificateParams, (from, until): (i32, i32)) {
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
    }

    fn judged(pem: &str, host: Option<&Authorities>, now: SystemTime) -> Chain {
        let chain = pem::chain(pem.as_bytes()).unwrap();
        let parsed = certificate::parse(&chain).unwrap();
        judge(&chain, &parsed, host, crypto().signature_verification_algorithms, now)
    }

    #[test]
    fn a_chain_leads_to_a_root_or_breaks_off() {
        let long = (2020, 2090);
        let root = Ca::new("Root", None, long);
        let inter = Ca::new("Inter", Some(&root), long);
        let lower = Ca::new("Lower", Some(&inter), long);
        let old = Ca::new("Old", Some(&root), (2020, 2024));
        let future = Ca::new("Future", Some(&root), (2080, 2090));
        let other = Ca::new("Other", Some(&root), long);
        let namesake = Ca::new("Inter", Some(&root), long);
        let leaf = inter.leaf(long);
        // 2030-01-01.
        let now = moment(1_893_456_000);
        let trusting = |ca: &Ca| Authorities::of_pem([ca.pem.as_bytes()]).unwrap();
        let (host, stranger) = (trusting(&root), trusting(&Ca::new("Nobody", None, long)));
        let below = [&*leaf, &inter.pem].concat();

        // (case, chain, trusted by a host with the root, (broken, message) for a host without the
        // root)
        let unknown = |part| (false, part);
        let broken = |part| (true, part);
        let table: [(&str, String, bool, (bool, &str)); 12] = [
            ("whole", below.clone(), true, unknown("it leads to CN=Root, which is not among")),
            ("with its root", below.clone() + &root.pem, true, unknown("its root (CN=Root)")),
            (
                "two intermediates",
                [&*lower.leaf(long), &lower.pem, &inter.pem].concat(),
                true,
                unknown("it leads to CN=Root"),
            ),
            (
                "in another order",
                [&*lower.leaf(long), &inter.pem, &lower.pem].concat(),
                true,
                unknown("it leads to CN=Root"),
            ),
            ("a stray one beside", below + &other.pem, true, unknown("CN=Root")),
            (
                "a namesake beside",
                [&*leaf, &namesake.pem, &inter.pem].concat(),
                true,
                unknown("CN=Root"),
            ),
            ("alone", leaf.clone(), false, broken("ends with the certificate of the host")),
            ("of the root, alone", root.leaf(long), true, broken("issuer, CN=Root, is not in")),
            (
                "another's",
                [&*leaf, &other.pem].concat(),
                false,
                broken("goes on with CN=Other, which has not issued"),
            ),
            ("a namesake", [&*leaf, &namesake.pem].concat(), false, broken("another key signed")),
            (
                "expired",
                [&*old.leaf(long), &old.pem].concat(),
                false,
                broken("certificate 2 of the chain (CN=Old) expired on 2024-01-01"),
            ),
            (
                "not yet valid",
                [&*future.leaf(long), &future.pem].concat(),
                false,
                broken("(CN=Future) is not valid before 2080-01-01"),
            ),
        ];
        for (what, pem, trusted, (is_broken, part)) in table {
            let chain = judged(&pem, Some(&host), now);
            assert_eq!(chain == Chain::Trusted, trusted, "{what}: {chain:?}");
            for (host, hint) in [(Some(&stranger), ""), (None, "apt install ca-certificates")] {
                let chain = judged(&pem, host, now);
                let said = match (&chain, is_broken) {
                    (Chain::Broken(said), true) | (Chain::Unknown(said), false) => said,
                    other => panic!("{what}: {other:?}"),
                };
                assert!(said.contains(part), "{what}: {said}");
                let dated = what == "expired" || what == "not yet valid" || what == "a namesake";
                assert!(said.contains(hint) || dated, "{what}: {said}");
            }
        }
    }

    #[test]
    fn who_signed_itself_is_unknown_and_not_broken() {
        let own = Ca::new("Own", None, (2020, 2090));
        let now = moment(1_893_456_000);
        let host = Authorities::of_pem([Ca::new("Nobody", None, (2020, 2090)).pem.as_bytes()]);
        let host = host.unwrap();
        let Chain::Unknown(said) = judged(&own.pem, Some(&host), now) else { panic!() };
        assert!(said.contains("signed itself"), "{said}");
        let host = Authorities::of_pem([own.pem.as_bytes()]).unwrap();
        assert_eq!(judged(&own.pem, Some(&host), now), Chain::Trusted);
    }

    #[test]
    fn a_certificate_that_has_expired_has_no_worse_chain_than_it_had() {
        let root = Ca::new("Root", None, (2020, 2090));
        let inter = Ca::new("Inter", Some(&root), (2020, 2026));
        let chain = [&*inter.leaf((2022, 2024)), &inter.pem].concat();
        let host = Authorities::of_pem([root.pem.as_bytes()]).unwrap();
        // 2030-01-01, when leaf and intermediate have expired.
        assert_eq!(judged(&chain, Some(&host), moment(1_893_456_000)), Chain::Trusted);
    }
}
