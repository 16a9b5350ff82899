//! A certificate authority, and the directory in which certbot keeps what it gets from one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256,
    RsaKeySize, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};

/// The authority that every story trusts.
pub(crate) fn ca() -> &'static Ca {
    static CA: LazyLock<Ca> = LazyLock::new(Ca::new);
    &CA
}

pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub certificate_pem: String,
    pub chain_pem: String,
    pub key_pem: String,
    /// Every leaf has its own, so a client can tell which one it was shown.
    pub serial: u64,
}

impl Leaf {
    /// The settings of a server that shows it.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let certificate = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key);
        Arc::new(config.unwrap())
    }
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Stories Root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// An authority that this one vouches for. Chains of it end with its certificate: clients have the
    /// root.
    pub(crate) fn intermediate(&self) -> Self {
        self.intermediate_with(|_| {})
    }

    pub(crate) fn intermediate_with(&self, edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Stories Intermediate");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.certificate.der().to_vec())).unwrap();
        roots
    }

    /// A fresh certificate for `names`, with an ECDSA key.
    pub(crate) fn leaf(&self, names: &[&str]) -> Leaf {
        self.sign(names, &KeyPair::generate().unwrap(), |_| {})
    }

    pub(crate) fn rsa_leaf(&self, names: &[&str]) -> Leaf {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        self.sign(names, &key, |_| {})
    }

    /// A certificate that has a URI among its names.
    pub(crate) fn leaf_with_uri(&self, names: &[&str], uri: &str) -> Leaf {
        self.sign(names, &KeyPair::generate().unwrap(), |params| {
            params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        })
    }

    pub(crate) fn expired_leaf(&self, names: &[&str]) -> Leaf {
        self.sign(names, &KeyPair::generate().unwrap(), |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 4, 1);
        })
    }

    /// A certificate that was issued in `year`, and is valid for long.
    pub(crate) fn leaf_of(&self, year: i32, names: &[&str]) -> Leaf {
        self.sign(names, &KeyPair::generate().unwrap(), |params| {
            params.not_before = date_time_ymd(year, 1, 1);
        })
    }

    /// A certificate that is still valid, and should have been renewed: it was for decades, and two
    /// years at most are left.
    pub(crate) fn overdue_leaf(&self, names: &[&str]) -> Leaf {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let year = 1970 + i32::try_from(since.as_secs() / (365 * 86_400 + 20_926)).unwrap();
        self.sign(names, &KeyPair::generate().unwrap(), |params| {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(year + 2, 1, 1);
        })
    }

    fn sign(&self, names: &[&str], key: &KeyPair, edit: impl Fn(&mut CertificateParams)) -> Leaf {
        static NEXT: AtomicU64 = AtomicU64::new(1000);
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names[0].as_str());
        params.serial_number = Some(SerialNumber::from(serial));
        edit(&mut params);
        let certificate = params.signed_by(key, &self.issuer).unwrap();
        Leaf {
            certificate_pem: certificate.pem(),
            chain_pem: self.certificate.pem(),
            key_pem: key.serialize_pem(),
            serial,
        }
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ca")
    }
}

/// One certificate of certbot's: numbered files in `archive`, links to them in `live`.
#[derive(Debug)]
pub(crate) struct Lineage {
    archive: PathBuf,
    live: PathBuf,
    version: AtomicU32,
}

/// In the order in which certbot swaps the links.
const KINDS: [&str; 4] = ["cert", "privkey", "chain", "fullchain"];

impl Lineage {
    /// Lays out `root` (an /etc/letsencrypt) as certbot does when it first gets `leaf`.
    pub(crate) fn create(root: &Path, name: &str, leaf: &Leaf) -> Self {
        let archive = root.join("archive").join(name);
        let live = root.join("live").join(name);
        fs::create_dir_all(&archive).unwrap();
        fs::create_dir_all(&live).unwrap();
        let lineage = Self { archive, live, version: AtomicU32::new(0) };
        lineage.renew(leaf);
        lineage
    }

    /// Renews as certbot does: new files first, then one link after the other.
    pub(crate) fn renew(&self, leaf: &Leaf) {
        self.archive(leaf);
        for kind in KINDS {
            self.swap(kind);
        }
    }

    /// The first half of a renewal: the files of the next version.
    pub(crate) fn archive(&self, leaf: &Leaf) {
        let version = self.version.fetch_add(1, Ordering::Relaxed) + 1;
        let Leaf { certificate_pem, chain_pem, key_pem, .. } = leaf;
        let fullchain = format!("{certificate_pem}{chain_pem}");
        for (kind, pem) in KINDS.into_iter().zip([certificate_pem, key_pem, chain_pem, &fullchain])
        {
            fs::write(self.archive.join(format!("{kind}{version}.pem")), pem).unwrap();
        }
    }

    /// A step of the second half: one link now points to the latest version.
    pub(crate) fn swap(&self, kind: &str) {
        let version = self.version.load(Ordering::Relaxed);
        let link = self.live.join(format!("{kind}.pem"));
        let _ = fs::remove_file(&link);
        let name = self.archive.file_name().unwrap().to_str().unwrap();
        symlink(format!("../../archive/{name}/{kind}{version}.pem"), link).unwrap();
    }

    pub(crate) fn live(&self) -> &Path {
        &self.live
    }
}
