//! Selection of the certificate that a client gets.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureScheme};

use crate::net;

use super::slot::CertSlot;

/// The certificates of one listener, in the order of its `certificateRefs`.
///
/// A server name that no certificate covers is not refused: the listener has been selected by then,
/// and it serves its certificates (Gateway API, `Listener.hostname`). The result is `None`, which
/// refuses the handshake, only if no slot has a certificate.
#[derive(Clone, Debug)]
pub(crate) struct ListenerCertificates(Vec<Arc<CertSlot>>);

impl ListenerCertificates {
    pub(crate) fn new(slots: Vec<Arc<CertSlot>>) -> Self {
        Self(slots)
    }

    /// True if there is a certificate to serve.
    #[cfg(test)]
    pub(crate) fn is_ready(&self) -> bool {
        self.0.iter().any(|slot| slot.is_ready())
    }

    /// Returns `config` with the certificate for the address, for a client that sent no server name
    /// and connected to the address `local`; `None` if there is no such certificate.
    pub(crate) fn at(&self, local: IpAddr, config: &ServerConfig) -> Option<Arc<ServerConfig>> {
        let name = self.address(local)?.to_string();
        let mut config = config.clone();
        config.cert_resolver = Arc::new(AtAddress { certificates: self.clone(), name });
        Some(Arc::new(config))
    }

    /// Returns the address that a client which connected to `local` used, if a certificate covers
    /// it.
    ///
    /// A host behind NAT does not have the address that its clients use. If `local` is private and
    /// the certificates cover one set of addresses alone, that set is used.
    fn address(&self, local: IpAddr) -> Option<IpAddr> {
        let local = local.to_canonical();
        let all: Vec<_> = self.0.iter().flat_map(|slot| slot.addresses()).collect();
        let (first, others) = all.split_first()?;
        if all.iter().any(|of| of.contains(&local)) {
            return Some(local);
        }
        let is_the_only_one = others.iter().all(|of| of == first);
        first.first().copied().filter(|_| is_the_only_one && !net::is_public(local))
    }

    /// Selects, in this order: a certificate for the name that the client can check, any that it
    /// can check, the first. The last does not help the client, but lets rustls report the true
    /// reason.
    fn pick(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let slots = || self.0.iter();
        name.and_then(|name| slots().find_map(|slot| slot.pick(Some(name), schemes)))
            .or_else(|| slots().find_map(|slot| slot.pick(None, schemes)))
            .or_else(|| slots().find_map(|slot| slot.any()))
    }
}

impl ResolvesServerCert for ListenerCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(|name| name.strip_suffix('.').unwrap_or(name));
        self.pick(name, hello.signature_schemes())
    }
}

/// The certificates of a listener, for a client that connected by address.
#[derive(Debug)]
struct AtAddress {
    certificates: ListenerCertificates,
    /// The address, as certificates write it.
    name: String,
}

impl ResolvesServerCert for AtAddress {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certificates.pick(Some(&self.name), hello.signature_schemes())
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::CertStore;
    use super::super::testing::{Certbot, Issue, rsa};
    use super::*;

    #[test]
    fn the_name_decides_then_the_key_then_the_order() {
        let certbot = Certbot::new();
        certbot.issue("a", &Issue::to(&["a.test", "*.w.test"]));
        certbot.issue("b", &Issue::to(&["b.test"]));
        certbot.issue(
            "b-rsa",
            &Issue::with(rsa(), |params| {
                params.subject_alt_names =
                    vec![rcgen::SanType::DnsName("b.test".try_into().unwrap())];
            }),
        );
        let store = CertStore::new(certbot.dir());
        let certificates =
            ["empty", "a", "b"].map(|name| store.slot(Certbot::source(&[name]))).to_vec();
        let certificates = ListenerCertificates::new(certificates);
        let files = ["a", "b", "b-rsa"].map(|name| certbot.leaf(name));

        let ec = SignatureScheme::ECDSA_NISTP256_SHA256;
        let pss = SignatureScheme::RSA_PSS_SHA256;
        let ed = SignatureScheme::ED25519;
        // (name, schemes that the client can check, index of the file served)
        let table: [(Option<&str>, &[SignatureScheme], usize); 10] = [
            (Some("a.test"), &[ec, pss], 0),
            (Some("x.w.test"), &[ec, pss], 0),
            (Some("b.test"), &[pss, ec], 1),
            (Some("b.test"), &[pss], 2),
            (Some("b.test"), &[ec], 1),
            // No certificate covers it: the first.
            (Some("c.test"), &[ec, pss], 0),
            (None, &[ec, pss], 0),
            // The first that it can check.
            (Some("a.test"), &[pss], 2),
            (None, &[pss], 2),
            // None that it can check.
            (Some("b.test"), &[ed], 0),
        ];
        for (name, schemes, want) in table {
            let got = certificates.pick(name, schemes).unwrap();
            assert_eq!(got.cert[0].as_ref(), files[want], "{name:?} {schemes:?}");
        }
    }

    #[test]
    fn an_address_is_that_of_the_connection_or_the_only_one_behind_nat() {
        let certbot = Certbot::new();
        certbot.issue("a.test", &Issue::to(&["a.test"]));
        let store = CertStore::new(certbot.dir());
        let certificates =
            ListenerCertificates::new(vec![store.slot(Certbot::source(&["a.test"]))]);
        let address = |local: &str| {
            certificates.address(local.parse().unwrap()).map(|address| address.to_string())
        };
        assert_eq!(address("10.0.0.1"), None, "no certificate is for an address");

        certbot.issue("one", &Issue::to(&["203.0.113.7", "2001:db8::7"]));
        store.reload();
        // (address of the connection, address of the certificate)
        let table = [
            ("203.0.113.7", Some("203.0.113.7")),
            ("::ffff:203.0.113.7", Some("203.0.113.7")),
            ("2001:db8::7", Some("2001:db8::7")),
            ("10.0.0.1", Some("203.0.113.7")),
            ("127.0.0.1", Some("203.0.113.7")),
            ("198.51.100.1", None),
            ("2001:db8::8", None),
        ];
        for (local, want) in table {
            assert_eq!(address(local).as_deref(), want, "{local}");
        }
        certbot.issue("two", &Issue::to(&["203.0.113.8"]));
        store.reload();
        assert_eq!(address("203.0.113.8").as_deref(), Some("203.0.113.8"));
        assert_eq!(address("10.0.0.1"), None, "nobody can say which");
    }

    #[test]
    fn without_a_certificate_there_is_no_answer() {
        let certbot = Certbot::new();
        let store = CertStore::new(certbot.dir());
        let slot = store.slot(Certbot::source(&["a"]));
        let certificates = ListenerCertificates::new(vec![slot]);
        assert!(!certificates.is_ready());
        assert!(certificates.pick(None, &[SignatureScheme::ED25519]).is_none());

        certbot.issue("a", &Issue::to(&["a"]));
        store.reload();
        assert!(certificates.is_ready());
    }
}
