//! A certificate chain and its key, checked against each other, and the facts about them.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use rustls_pemfile::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::net::HostPattern;

use super::authorities::Authorities;
use super::chain::{self, Chain, moment};
use super::crypto::crypto;
use super::fault::{Cause, CertFault};
use super::pem;

/// A chain and the key that fits it, ready to be served.
///
/// [`Certificate::read`] is the only way to create one, so every instance may be served.
pub(super) struct Certificate {
    key: Arc<CertifiedKey>,
    facts: CertFacts,
    /// The time at which the chain was last found good, which may not last. Locked by the control
    /// thread alone.
    found_good: Mutex<Option<SystemTime>>,
}

/// The time for which a chain that was found good is not judged again. Less than the hour after
/// which certificates are re-read without a change.
const GOOD_FOR: Duration = Duration::from_secs(50 * 60);

/// The two files of a pair, with the names that messages use for them.
pub(super) struct Pair<'a> {
    pub chain: &'a [u8],
    pub chain_file: String,
    pub key: &'a [u8],
    pub key_file: String,
    /// The certbot lineage that they belong to, if any.
    pub lineage: Option<String>,
}

impl Certificate {
    /// Checks that a pair can be served: every certificate of the chain parses, and the key is that
    /// of the first.
    ///
    /// Nothing else is required. The names are not judged: a certificate without names, with
    /// `*.org`, or with unknown URIs may be a test or a habit. The dates are not judged either:
    /// this function does not know whether a better certificate is available.
    ///
    /// # Errors
    ///
    /// The faulty file of the two, and the reason.
    pub(super) fn read(pair: Pair<'_>) -> Result<Self, CertFault> {
        let Pair { chain_file, key_file, lineage, .. } = pair;
        let in_chain = |cause| CertFault::new(&chain_file, cause);
        let in_key = |cause| CertFault::new(&key_file, cause);

        let chain = pem::chain(pair.chain).map_err(in_chain)?;
        let parsed = parse(&chain).map_err(in_chain)?;
        let key = pem::private_key(pair.key).map_err(in_key)?;
        let key = crypto()
            .key_provider
            .load_private_key(key)
            .map_err(|error| in_key(Cause::UnusableKey(error.to_string())))?;

        // Not `CertifiedKey::keys_match`, which makes the same check by way of webpki: webpki
        // refuses certificates (version 1, unknown critical extensions) that can be served. A key
        // that does not expose its public half is trusted; no key from this provider is like that.
        if let Some(public) = key.public_key() {
            let fits = |one: &X509Certificate<'_>| one.public_key().raw == public.as_ref();
            if !parsed.first().is_some_and(fits) {
                let fits = parsed.iter().position(fits).map(|index| index + 1);
                return Err(in_chain(Cause::KeyMismatch { key: key_file, fits }));
            }
        }
        let key_type = match key.algorithm() {
            SignatureAlgorithm::RSA => KeyType::Rsa,
            SignatureAlgorithm::ECDSA => KeyType::Ecdsa,
            _ => KeyType::Ed25519,
        };
        let leaf = &parsed[0];
        let facts = CertFacts {
            lineage,
            names: names(leaf),
            issuer: leaf.issuer().to_string(),
            serial: hex(leaf.raw_serial()),
            key_type,
            not_before: moment(leaf.validity().not_before.timestamp()),
            not_after: moment(leaf.validity().not_after.timestamp()),
            file: chain_file,
        };
        drop(parsed);
        let key = Arc::new(CertifiedKey::new(chain, key));
        Ok(Self { key, facts, found_good: Mutex::default() })
    }

    /// Judges the chain. `roots` returns the roots that this host trusts, and is called only if
    /// they are needed.
    pub(super) fn chain(
        &self,
        roots: impl FnOnce() -> Option<Authorities>,
        now: SystemTime,
    ) -> Chain {
        let mut found_good = self.found_good.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age < GOOD_FOR);
        if found_good.is_some_and(is_recent) {
            return Chain::Trusted;
        }
        // It was parsed when it was read, so it can be parsed again.
        let chain = match parse(&self.key.cert) {
            Ok(parsed) => {
                let known = crypto().signature_verification_algorithms;
                chain::judge(&self.key.cert, &parsed, roots().as_ref(), known, now)
            }
            Err(_) => Chain::Trusted,
        };
        *found_good = (chain == Chain::Trusted).then_some(now);
        chain
    }

    pub(super) fn facts(&self) -> &CertFacts {
        &self.facts
    }

    pub(super) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// True if the client can check a signature of this key.
    pub(super) fn suits(&self, schemes: &[SignatureScheme]) -> bool {
        self.key.key.choose_scheme(schemes).is_some()
    }

    /// True if the two are interchangeable. The key is that of the chain, so the chain decides.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.facts.file == other.facts.file && self.key.cert == other.key.cert
    }

    /// True if this certificate covers every name of `other`.
    pub(super) fn serves_names_of(&self, other: &Self) -> bool {
        let own = &self.facts.names;
        other.facts.names.iter().all(|name| own.contains(name) || self.facts.covers(name))
    }
}

/// Prints the facts only: the chain is long, and the key is secret.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificate").field(&self.facts).finish()
    }
}

/// Facts about a certificate: its leaf, as read from the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertFacts {
    /// The file of the chain, or the field of the Secret if the pair is inline.
    pub file: String,
    /// The certbot lineage, if it came from one.
    pub lineage: Option<String>,
    /// DNS names and IP addresses of the subject alternative names, lower case; the common name if
    /// there are none.
    pub names: Vec<String>,
    /// Distinguished name of the issuer.
    pub issuer: String,
    /// Serial number in lower-case hexadecimal, as certbot and browsers show it.
    pub serial: String,
    pub key_type: KeyType,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

impl CertFacts {
    /// True if `host` (lower case, no trailing dot) is among the names.
    ///
    /// RFC 9525 section 6.3: `*` matches exactly one label, the first.
    pub(crate) fn covers(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(suffix) => parent == Some(suffix),
            None => name == host,
        })
    }

    /// True if the certificate serves clients of `host`. A wildcard is served by a certificate with
    /// the same wildcard, or with any name below it: an owner of certificates for some of the names
    /// is taken to use those names.
    pub(crate) fn is_for(&self, host: &HostPattern) -> bool {
        let is_below = |name: &String| host.accepts(name.strip_prefix("*.").unwrap_or(name));
        match host.suffix() {
            Some(suffix) => self
                .names
                .iter()
                .any(|name| name.strip_prefix('*') == Some(suffix) || is_below(name)),
            None => host.exact().is_some_and(|name| self.covers(name)),
        }
    }

    /// Returns the IP addresses among the names.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.names.iter().filter_map(|name| name.parse().ok())
    }

    pub(crate) fn is_valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// True if less than a quarter of the lifetime is left. A working renewal happens before that:
    /// certbot renews at a third, for any lifetime.
    pub(crate) fn is_renewal_overdue(&self, now: SystemTime) -> bool {
        let lifetime = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_after.duration_since(now).unwrap_or_default() < lifetime / 4
    }
}

/// The algorithm of a key. The declaration order is the order of preference if a client can check
/// several: an ECDSA signature costs a tenth of an RSA one, and browsers do not check Ed25519.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum KeyType {
    Ecdsa,
    Ed25519,
    Rsa,
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ecdsa => "ECDSA",
            Self::Ed25519 => "Ed25519",
            Self::Rsa => "RSA",
        })
    }
}

pub(super) fn parse<'a>(
    chain: &'a [CertificateDer<'_>],
) -> Result<Vec<X509Certificate<'a>>, Cause> {
    let wrong = |position, why| Cause::UnreadableCertificate { position, why };
    (1..)
        .zip(chain)
        .map(|(position, der)| match X509Certificate::from_der(der) {
            Ok(([], parsed)) => Ok(parsed),
            Ok(_) => Err(wrong(position, "bytes follow its end".into())),
            Err(error) => Err(wrong(position, error.to_string())),
        })
        .collect()
}

fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let mut names: Vec<String> = leaf
        .iter_extensions()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => Some(address(bytes)?.to_string()),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        let common = leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok());
        names.extend(common.map(str::to_ascii_lowercase));
    }
    names
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn hex(bytes: &[u8]) -> String {
    // DER puts a zero in front of a number whose first bit is set; it is not part of the serial.
    let bytes = bytes.strip_prefix(&[0]).unwrap_or(bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use rcgen::SanType;

    use super::super::testing::{Issue, ecdsa, rsa};
    use super::*;

    fn read(issue: &Issue) -> Result<Certificate, CertFault> {
        Certificate::read(Pair {
            chain: issue.chain.as_bytes(),
            chain_file: "tls.crt".into(),
            key: issue.key.as_bytes(),
            key_file: "tls.key".into(),
            lineage: None,
        })
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        let facts = read(&Issue::to(&["*.example.org", "Example.net", "*.org"])).unwrap().facts;
        // (host, covered)
        let table = [
            ("a.example.org", true),
            ("a.b.example.org", false),
            ("example.net", true),
            ("a.example.net", false),
            ("example.org", true),
            ("org", false),
            ("", false),
        ];
        for (host, want) in table {
            assert_eq!(facts.covers(host), want, "{host}");
        }
    }

    #[test]
    fn a_wildcard_hostname_is_served_by_it_or_by_names_below() {
        // (names, hostname, true if the certificate serves it)
        let table: [(&[&str], _, _); 9] = [
            (&["*.a.test"], "*.a.test", true),
            (&["a.test"], "*.a.test", false),
            (&["x.a.test"], "*.a.test", true),
            (&["*.x.a.test"], "*.a.test", true),
            (&["x.b.test"], "*.a.test", false),
            (&["*.a.test"], "a.test", false),
            (&["*.a.test"], "x.a.test", true),
            (&["*.a.test"], "y.x.a.test", false),
            (&["203.0.113.7"], "a.test", false),
        ];
        for (names, host, want) in table {
            let facts = read(&Issue::to(names)).unwrap().facts;
            let host = HostPattern::parse(host).unwrap();
            assert_eq!(facts.is_for(&host), want, "{names:?} for {host}");
        }
    }

    #[test]
    fn odd_names_are_served_all_the_same() {
        let uri = "::not a uri::".try_into().unwrap();
        // (names in the certificate, names read)
        let table = [
            (vec![], vec!["rcgen self signed cert"]),
            (vec![SanType::URI(uri)], vec!["rcgen self signed cert"]),
            (vec![SanType::IpAddress([192, 0, 2, 1].into())], vec!["192.0.2.1"]),
        ];
        for (names, want) in table {
            let issue = Issue::with(&ecdsa(), |params| params.subject_alt_names = names);
            assert_eq!(read(&issue).unwrap().facts.names, want);
        }
    }

    #[test]
    fn facts_are_those_of_the_leaf() {
        let issue = Issue::with(rsa(), |params| {
            params.serial_number = Some(vec![0xab, 0x01].into());
            params.not_before = rcgen::date_time_ymd(2024, 1, 1);
            params.not_after = rcgen::date_time_ymd(2090, 1, 1);
        });
        let facts = read(&issue).unwrap().facts;
        assert_eq!(facts.serial, "ab01");
        assert_eq!(facts.key_type, KeyType::Rsa);
        assert_eq!(facts.not_before, moment(1_704_067_200));
        assert!(facts.issuer.contains("rcgen"), "{}", facts.issuer);
        assert!(!facts.is_valid_at(moment(1_704_067_199)));
        assert!(facts.is_valid_at(moment(1_704_067_200)));
        assert!(!facts.is_valid_at(facts.not_after));
        // 66 years, so the last quarter begins 16.5 years before the end.
        let year = Duration::from_secs(365 * 24 * 3600);
        assert!(!facts.is_renewal_overdue(facts.not_after - 17 * year));
        assert!(facts.is_renewal_overdue(facts.not_after - 16 * year));
        assert!(facts.is_renewal_overdue(facts.not_after + year));
    }

    #[test]
    fn a_key_may_be_written_in_any_of_three_ways() {
        let section = |kind: &str, der: &[u8]| {
            let text = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
        };
        // PKCS#8 contains the older forms, after version and algorithm.
        let (rsa, ec) = (rsa(), ecdsa());
        let params =
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        // (pair as certbot writes it, key as openssl may write it)
        let table = [
            (Issue::with(rsa, |_| ()), section("PRIVATE KEY", &rsa.serialize_der())),
            (Issue::with(rsa, |_| ()), section("RSA PRIVATE KEY", &rsa.serialize_der()[26..])),
            (Issue::with(&ec, |_| ()), section("PRIVATE KEY", &ec.serialize_der())),
            (
                Issue::with(&ec, |_| ()),
                params.to_owned() + &section("EC PRIVATE KEY", &ec.serialize_der()[29..]),
            ),
        ];
        for (issue, key) in table {
            let kind = key.lines().next().unwrap_or_default().to_owned();
            read(&Issue { key, ..issue }).unwrap_or_else(|fault| panic!("{kind}: {fault}"));
        }
    }

    #[test]
    fn a_pair_that_does_not_fit_is_refused_and_says_why() {
        let good = Issue::to(&["example.org"]);
        let other = Issue::to(&["example.net"]);
        let text = |chain: &str, key: &str| Issue { chain: chain.into(), key: key.into() };
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        // (pair, message)
        let table = [
            (text(&good.chain, &other.key), "belongs to another certificate"),
            (text(&format!("{}{}", other.chain, good.chain), &good.key), "number 2 of the chain"),
            (text(&good.key, &good.key), "`tls.crt`: no certificate"),
            (text(&good.chain, &good.chain), "`tls.key`: no private key"),
            (text(&good.chain[..300], &good.key), "`tls.crt`: not valid PEM"),
            (text(&format!("{}{broken}", good.chain), &good.key), "certificate 2 of the chain"),
            (
                text(&good.chain, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
                "`tls.key`: the key cannot be used",
            ),
        ];
        for (pair, want) in table {
            let message = read(&pair).unwrap_err().to_string();
            assert!(message.contains(want), "{want}: {message}");
        }
    }
}
