//! Certificates in certbot's layout: `live/NAME/fullchain.pem` and `privkey.pem`, links to
//! `archive/NAME/fullchain7.pem` and `privkey7.pem`.
//!
//! A renewal writes the new files into `archive` first and then replaces the links one by one
//! (cert, privkey, chain, fullchain), each by `unlink` and `symlink`. So for a moment a link is
//! missing, and for another the key is new and the chain is old. The version numbers show this: a
//! pair is read only if both links name the same version, and then through the targets of the
//! links, which are never written again.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::authorities::Authorities;
use super::certificate::{Certificate, Pair};
use super::fault::{Cause, CertFault};

/// Limit on the size of a file, in bytes. A chain has 4 KiB; a device or a log put there by mistake
/// has more.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The lineages under `live` at one moment, each read at most once, and the roots that this host
/// trusts.
///
/// Used for one pass over all certificates: a file is not read twice.
#[derive(Debug)]
pub(super) struct Library {
    live: PathBuf,
    /// The directories under `live`, sorted by name.
    present: Result<Vec<String>, CertFault>,
    read: RefCell<HashMap<String, Found>>,
    roots: OnceCell<Option<Authorities>>,
}

/// The certificate of a lineage, or its fault.
pub(super) type Found = Result<Arc<Certificate>, CertFault>;

impl Library {
    /// Lists `live`, which need not exist.
    pub(super) fn open(live: PathBuf) -> Self {
        let present = match directories(&live) {
            Ok(mut present) => {
                present.sort();
                Ok(present)
            }
            // Before the first certificate is issued, `live` does not exist.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(CertFault::io(&live, &error)),
        };
        Self { live, present, read: RefCell::default(), roots: OnceCell::new() }
    }

    /// Returns every lineage, sorted by name.
    ///
    /// # Errors
    ///
    /// `live` cannot be read.
    pub(super) fn lineages(&self) -> Result<&[String], CertFault> {
        self.present.as_deref().map_err(Clone::clone)
    }

    /// Returns the lineages of each of `names`: `NAME` itself first, then its variants by name;
    /// empty if there are none.
    ///
    /// Variants are lineages that certbot or a person's habit puts beside it: `NAME-ecdsa`,
    /// `NAME-rsa`, `NAME-0001`. They count even if `NAME` itself is gone, as after `certbot
    /// delete`. `*.example.org` is looked up as `example.org`, which is certbot's name for it.
    ///
    /// # Errors
    ///
    /// `live` cannot be read, or a name is not valid.
    pub(super) fn groups(&self, names: &[String]) -> Result<Vec<Vec<String>>, CertFault> {
        let present = self.lineages()?;
        let group = |name: &String| {
            let name = name.strip_prefix("*.").unwrap_or(name);
            if !is_valid(name) {
                return Err(self.fault(Cause::InvalidName(name.to_owned())));
            }
            // `NAME` is a prefix of all its variants, so it sorts first.
            Ok(present.iter().filter(|entry| is_variant(entry, name)).cloned().collect())
        };
        names.iter().map(group).collect()
    }

    /// Returns the pair of one lineage.
    pub(super) fn read(&self, name: &str) -> Found {
        if let Some(found) = self.read.borrow().get(name) {
            return found.clone();
        }
        let found = read(&self.live, name).map(Arc::new);
        self.read.borrow_mut().insert(name.to_owned(), found.clone());
        found
    }

    /// Returns the CA certificates of this host; `None` if it has none.
    pub(super) fn roots(&self) -> Option<Authorities> {
        self.roots.get_or_init(|| Authorities::of_host().ok()).clone()
    }

    /// Returns a fault of `live` itself.
    pub(super) fn fault(&self, cause: Cause) -> CertFault {
        CertFault::new(self.live.display().to_string(), cause)
    }
}

/// Reads the pair of one lineage, both files or neither.
///
/// # Errors
///
/// The faulty file, and the reason. Faults that certbot may be about to end set `retry`.
fn read(live: &Path, name: &str) -> Result<Certificate, CertFault> {
    let chain_file = live.join(name).join("fullchain.pem");
    let key_file = live.join(name).join("privkey.pem");
    let chain_target = target(&chain_file)?;
    let key_target = target(&key_file)?;
    let versions = (version(&chain_target, "fullchain"), version(&key_target, "privkey"));
    // Files of one version were complete before the links moved. All others may be half written, by
    // a copy in progress.
    let settled = match versions {
        (Some(chain), Some(key)) if chain != key => {
            let cause = Cause::BeingRenewed { chain, key };
            return Err(CertFault::new(chain_file.display().to_string(), cause).passing());
        }
        (Some(_), Some(_)) => true,
        _ => false,
    };
    let key = contents(&key_target)?;
    let chain = contents(&chain_target)?;
    Certificate::read(Pair {
        chain: &chain,
        chain_file: chain_file.display().to_string(),
        key: &key,
        key_file: key_file.display().to_string(),
        lineage: Some(name.into()),
    })
    .map_err(|fault| if settled { fault } else { fault.passing() })
}

/// Returns the directories in which a change of this lineage would show: its own, and those that
/// its links lead to.
pub(super) fn directories_of(live: &Path, name: &str) -> BTreeSet<PathBuf> {
    let own = live.join(name);
    let files = ["fullchain.pem", "privkey.pem"].map(|file| own.join(file));
    let targets = files.iter().filter_map(|file| fs::canonicalize(file).ok());
    let mut found: BTreeSet<_> =
        targets.filter_map(|file| file.parent().map(Path::to_owned)).collect();
    found.insert(own);
    found
}

/// True for a name that stays in `live`. certbot takes names from domain names; the characters are
/// not checked.
fn is_valid(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && !name.contains(['/', '\0'])
        && !name.contains("..")
}

/// True for `name` itself and for `name-ecdsa`, `name-rsa`, `name-0001` and their combinations.
fn is_variant(entry: &str, name: &str) -> bool {
    let Some(rest) = entry.strip_prefix(name) else { return false };
    rest.is_empty()
        || rest.strip_prefix('-').is_some_and(|rest| {
            rest.split('-').all(|part| match part {
                "ecdsa" | "rsa" => true,
                number => number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit()),
            })
        })
}

fn directories(live: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(live)? {
        let entry = entry?;
        // `live/README` is not a directory; a link to a directory counts as one.
        if fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir()) {
            found.extend(entry.file_name().into_string());
        }
    }
    Ok(found)
}

/// Returns the target of the link `file`, one step only; the file itself if it is not a link.
///
/// One step, because with `--reuse-key` the key of a new version is a link to that of the old one,
/// and the name of the new one counts.
fn target(file: &Path) -> Result<PathBuf, CertFault> {
    match fs::read_link(file) {
        Ok(target) => Ok(file.parent().map_or_else(|| target.clone(), |dir| dir.join(&target))),
        // EINVAL: the file exists and is not a link.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(file.to_owned()),
        Err(error) => Err(CertFault::io(file, &error)),
    }
}

/// Returns the version number: the 7 of `fullchain7.pem`.
fn version(file: &Path, stem: &str) -> Option<u64> {
    file.file_name()?.to_str()?.strip_prefix(stem)?.strip_suffix(".pem")?.parse().ok()
}

fn contents(file: &Path) -> Result<Vec<u8>, CertFault> {
    let fault = |cause| Err(CertFault::new(file.display().to_string(), cause));
    let unreadable = |error| CertFault::io(file, &error);
    // Checked before it is opened: opening a FIFO would wait for its writer.
    if !fs::metadata(file).map_err(unreadable)?.is_file() {
        return fault(Cause::NotAFile);
    }
    let mut contents = Vec::new();
    let mut limited = File::open(file).map_err(unreadable)?.take(MAX_FILE_BYTES + 1);
    let bytes = limited.read_to_end(&mut contents).map_err(unreadable)?;
    if u64::try_from(bytes).is_ok_and(|bytes| bytes <= MAX_FILE_BYTES) {
        Ok(contents)
    } else {
        fault(Cause::TooLarge { limit: MAX_FILE_BYTES })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::testing::{Certbot, Issue};
    use super::*;

    #[test]
    fn a_name_brings_its_variants_and_no_others() {
        let certbot = Certbot::new();
        for name in ["b", "b-0001", "b-ecdsa", "b-rsa-0002", "b-old", "b.org", "c", "d-0001"] {
            fs::create_dir_all(certbot.live().join(name)).unwrap();
        }
        fs::write(certbot.live().join("README"), "").unwrap();
        // (name, lineages)
        let table: [(&str, &[&str]); 7] = [
            ("a", &[]),
            ("b", &["b", "b-0001", "b-ecdsa", "b-rsa-0002"]),
            ("c", &["c"]),
            ("*.b.org", &["b.org"]),
            ("d", &["d-0001"]),
            ("b-old", &["b-old"]),
            ("README", &[]),
        ];
        let library = Library::open(certbot.live());
        let names = table.map(|(name, _)| name.to_owned());
        let groups = library.groups(&names).unwrap();
        for ((name, want), group) in table.iter().zip(groups) {
            assert_eq!(group, *want, "{name}");
        }
    }

    #[test]
    fn no_name_leaves_live() {
        let certbot = Certbot::new();
        fs::create_dir_all(certbot.live().join("ok")).unwrap();
        let library = Library::open(certbot.live());
        for name in ["", ".", "..", "../archive", "a/b", "/etc", ".hidden", "a\0b", "a..b"] {
            let fault = library.groups(&["ok".into(), name.into()]).unwrap_err().to_string();
            assert!(fault.contains("not a lineage name"), "{name:?}: {fault}");
        }
    }

    #[test]
    fn a_file_is_refused_before_it_can_do_harm() {
        let certbot = Certbot::new();
        let issue = Issue::to(&["a"]);
        // (replacement of the chain, part of the message, passing)
        type Put = fn(&Path);
        let table: [(Put, &str, bool); 5] = [
            (|file| fs::create_dir(file).unwrap(), "not a regular file", false),
            (|file| fs::write(file, vec![b'a'; 1 << 21]).unwrap(), "larger than", false),
            (|file| symlink(file, file).unwrap(), "cannot be read", false),
            (|file| symlink("/nowhere/fullchain.pem", file).unwrap(), "not there", true),
            (|_| (), "not there", true),
        ];
        for (number, (put, want, passing)) in table.into_iter().enumerate() {
            let name = format!("n{number}");
            certbot.issue(&name, &issue);
            let file = certbot.live().join(&name).join("fullchain.pem");
            fs::remove_file(&file).unwrap();
            put(&file);
            let fault = read(&certbot.live(), &name).unwrap_err();
            assert!(fault.to_string().contains(want), "{want}: {fault}");
            assert_eq!(fault.retry, passing, "{fault}");
        }
    }

    #[test]
    fn a_reused_key_is_of_the_version_that_its_link_names() {
        let certbot = Certbot::new();
        let issue = Issue::to(&["a"]);
        certbot.issue("a", &issue);
        certbot.issue("a", &issue);
        let archived = certbot.archive().join("a/privkey2.pem");
        fs::remove_file(&archived).unwrap();
        symlink("privkey1.pem", &archived).unwrap();
        assert_eq!(read(&certbot.live(), "a").unwrap().facts().lineage.as_deref(), Some("a"));
    }

    #[test]
    fn plain_files_in_live_are_read_too_and_may_be_half_written() {
        let certbot = Certbot::new();
        let (old, new) = (Issue::to(&["a"]), Issue::to(&["a"]));
        let own = certbot.live().join("a");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("fullchain.pem"), &old.chain).unwrap();
        fs::write(own.join("privkey.pem"), &old.key).unwrap();
        read(&certbot.live(), "a").unwrap();

        fs::write(own.join("privkey.pem"), &new.key).unwrap();
        let fault = read(&certbot.live(), "a").unwrap_err();
        assert!(fault.to_string().contains("does not fit"), "{fault}");
        assert!(fault.retry);
    }

    #[test]
    fn changes_show_where_the_links_are_and_where_they_lead() {
        let certbot = Certbot::new();
        certbot.issue("a", &Issue::to(&["a"]));
        let want = [certbot.archive().join("a"), certbot.live().join("a")];
        assert_eq!(directories_of(&certbot.live(), "a"), want.into());
    }
}
