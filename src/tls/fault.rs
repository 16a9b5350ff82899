//! Faults of certificates on disk, with messages for the person who installed them.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use jiff::Timestamp;

use super::certbot::certonly;

/// A fault of one file of one certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{file}`: {cause}")]
pub(super) struct CertFault {
    pub file: String,
    pub cause: Cause,
    /// True if the fault may end by itself within seconds, because the files are being replaced.
    pub retry: bool,
}

impl CertFault {
    pub(super) fn new(file: impl Into<String>, cause: Cause) -> Self {
        Self { file: file.into(), cause, retry: false }
    }

    /// Returns the fault as one that may pass: the files are replaced in place, and the next read
    /// may find them complete.
    pub(super) fn passing(self) -> Self {
        Self { retry: true, ..self }
    }

    pub(super) fn io(path: &Path, error: &io::Error) -> Self {
        let file = path.display().to_string();
        match error.kind() {
            // Between certbot's `unlink` and `symlink` the file is missing too.
            io::ErrorKind::NotFound => Self::new(file, Cause::Missing).passing(),
            io::ErrorKind::PermissionDenied => Self::new(file, Cause::Forbidden),
            _ => Self::new(file, Cause::Unreadable(error.to_string())),
        }
    }
}

/// The reason why a certificate cannot be used, or should not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Cause {
    #[error(
        "is version {chain} while `privkey.pem` is version {key}: certbot is replacing them, or \
         was stopped in between; `certbot update_symlinks` mends that"
    )]
    BeingRenewed { chain: u64, key: u64 },
    #[error("not valid PEM: {0}")]
    BrokenPem(String),
    /// The certificate is served, but clients cannot follow its chain.
    #[error("{0}")]
    Chain(String),
    #[error(
        "the key is encrypted and the gateway has no passphrase; store it in the clear (`openssl \
         pkey` does that), readable by the gateway alone"
    )]
    EncryptedKey,
    #[error("expired on {}; renew it, with certbot: `certbot renew`", day(*.0))]
    Expired(SystemTime),
    #[error("permission denied; let the user or group of the gateway read it")]
    Forbidden,
    #[error(
        "`{0}` is not a lineage name; use a directory name under `live`, without `/` and without a \
         leading dot"
    )]
    InvalidName(String),
    #[error("the key of `{key}` does not fit the first certificate{}", instead(*.fits))]
    KeyMismatch {
        key: String,
        /// The certificate of the chain that the key fits, counted from 1.
        fits: Option<usize>,
    },
    #[error("not there; the chain and its key must stand side by side")]
    Missing,
    #[error(
        "no certificate in it; it must begin with the certificate of the host, `-----BEGIN \
         CERTIFICATE-----`"
    )]
    NoCertificate,
    #[error(
        "no private key in it; it must hold `-----BEGIN PRIVATE KEY-----` (or `RSA PRIVATE KEY`, \
         `EC PRIVATE KEY`){}",
        if *.certificate { "; there is a certificate in it, so the two may be swapped" } else { "" }
    )]
    NoKey { certificate: bool },
    #[error(
        "no certbot lineage of the name {}; issue one with {}",
        quoted(.looked_for),
        issue(.chosen.as_deref(), wanted(.host.as_deref(), .looked_for))
    )]
    NoLineage {
        looked_for: Vec<String>,
        host: Option<String>,
        /// The lineage that a Secret names.
        chosen: Option<String>,
    },
    #[error("not a regular file; use a file or a link to one")]
    NotAFile,
    #[error("not valid before {}; is the clock of this host right?", day(*.0))]
    NotYetValid(SystemTime),
    /// The format found instead of usable PEM, and how to convert it.
    #[error("{0}")]
    OtherForm(&'static str),
    #[error("larger than {limit} bytes; a chain has a few KiB")]
    TooLarge { limit: u64 },
    #[error("cannot be read: {0}")]
    Unreadable(String),
    #[error("certificate {position} of the chain cannot be read: {why}")]
    UnreadableCertificate { position: usize, why: String },
    #[error(
        "the key cannot be used: {0}; use ECDSA (P-256, P-384, P-521), RSA of 2048 to 8192 bits, \
         or Ed25519"
    )]
    UnusableKey(String),
}

/// Formats a moment for logs: RFC 3339, UTC, whole seconds.
pub(super) fn day(moment: SystemTime) -> impl fmt::Display {
    Timestamp::try_from(moment)
        .ok()
        .and_then(|stamp| Timestamp::from_second(stamp.as_second()).ok())
        .map_or_else(|| "an unknown date".to_owned(), |stamp| stamp.to_string())
}

fn instead(position: Option<usize>) -> String {
    match position {
        Some(position) => format!(
            " but number {position} of the chain; the certificate of the host must come first"
        ),
        None => ", it belongs to another certificate; both must come from one issue".into(),
    }
}

/// Returns the command that issues a certificate for `name`, under `lineage` if that is a different
/// name.
fn issue(lineage: Option<&str>, name: &str) -> String {
    let lineage = lineage.filter(|lineage| *lineage != name);
    let command = certonly("WEBROOT", lineage, &[name.to_owned()]);
    match name.starts_with("*.") {
        true => format!("`{command}`, PLUGIN being a DNS plugin of certbot's"),
        false => format!("`{command}`, WEBROOT being that of --acme-webroot"),
    }
}

/// Returns the name to issue for: that of the listener, else the first with a dot that was looked
/// for.
fn wanted<'a>(host: Option<&'a str>, names: &'a [String]) -> &'a str {
    let domain = || names.iter().find(|name| name.contains('.')).map(String::as_str);
    host.or_else(domain).unwrap_or("DOMAIN")
}

fn quoted(names: &[String]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(" or ")
}
