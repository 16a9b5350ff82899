//! Self-signed certificates in certbot's layout, for the tests of this module.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rcgen::{CertificateParams, KeyPair};
use rustls_pemfile::CertificateDer;
use rustls_pemfile::pem::PemObject;
use tempfile::TempDir;

use super::slot::{CertSource, Peer};

/// A chain and its key, in PEM, as an authority would issue it.
#[derive(Clone, Debug)]
pub(super) struct Issue {
    pub chain: String,
    pub key: String,
}

impl Issue {
    /// ECDSA P-256, valid from 2024 to 2090.
    pub(super) fn to(names: &[&str]) -> Self {
        Self::dated(&ecdsa(), names, 2024, 2090)
    }

    /// Valid from 1 January of `from` to 1 January of `until`.
    pub(super) fn dated(key: &KeyPair, names: &[&str], from: i32, until: i32) -> Self {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let fresh = CertificateParams::new(names).unwrap();
        Self::with(key, |params| {
            *params = fresh;
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(until, 1, 1);
        })
    }

    pub(super) fn with(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::default();
        change(&mut params);
        let chain = params.self_signed(key).unwrap().pem();
        Self { chain, key: key.serialize_pem() }
    }
}

pub(super) fn ecdsa() -> KeyPair {
    KeyPair::generate().unwrap()
}

/// Shared by all tests: it takes a while to generate.
pub(super) fn rsa() -> &'static KeyPair {
    static RSA: LazyLock<KeyPair> =
        LazyLock::new(|| KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap());
    &RSA
}

/// A directory in certbot's layout.
#[derive(Debug)]
pub(super) struct Certbot(TempDir);

impl Certbot {
    /// With an empty `live` and an empty `archive`.
    pub(super) fn new() -> Self {
        let certbot = Self(TempDir::new().unwrap());
        fs::create_dir(certbot.live()).unwrap();
        fs::create_dir(certbot.archive()).unwrap();
        certbot
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    pub(super) fn live(&self) -> PathBuf {
        self.0.path().join("live")
    }

    pub(super) fn archive(&self) -> PathBuf {
        self.0.path().join("archive")
    }

    /// A source as a Secret would name it.
    pub(super) fn source(names: &[&str]) -> CertSource {
        CertSource::Lineage {
            object: "Secret test/pair".into(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            host: None,
            chosen: false,
            shown_to: Peer::Clients,
        }
    }

    /// Issues or renews a lineage, all steps at once.
    pub(super) fn issue(&self, name: &str, issue: &Issue) {
        for step in self.renewal(name, issue) {
            step();
        }
    }

    /// Returns the steps of a renewal, in certbot's own order: the archived files, then for each
    /// link its removal and its re-creation.
    pub(super) fn renewal(&self, name: &str, issue: &Issue) -> Vec<Box<dyn FnOnce()>> {
        let (live, archive) = (self.live().join(name), self.archive().join(name));
        fs::create_dir_all(&live).unwrap();
        fs::create_dir_all(&archive).unwrap();
        let version = 1 + fs::read_dir(&archive).unwrap().count() / 4;
        let files = [
            ("cert", issue.chain.clone()),
            ("privkey", issue.key.clone()),
            ("chain", String::new()),
            ("fullchain", issue.chain.clone()),
        ];
        let mut steps: Vec<Box<dyn FnOnce()>> = Vec::new();
        for (kind, text) in files.clone() {
            let file = archive.join(format!("{kind}{version}.pem"));
            steps.push(Box::new(move || fs::write(file, text).unwrap()));
        }
        for (kind, _) in files {
            let link = live.join(format!("{kind}.pem"));
            let gone = link.clone();
            steps.push(Box::new(move || match fs::remove_file(gone) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => (),
                done => done.unwrap(),
            }));
            let target = Path::new("../../archive").join(name).join(format!("{kind}{version}.pem"));
            steps.push(Box::new(move || symlink(target, link).unwrap()));
        }
        steps
    }

    /// Returns the first certificate of a lineage, as in its file.
    pub(super) fn leaf(&self, name: &str) -> Vec<u8> {
        let file = self.live().join(name).join("fullchain.pem");
        CertificateDer::from_pem_file(file).unwrap().to_vec()
    }
}
