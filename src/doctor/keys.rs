//! Check of the private keys: the gateway can read those in use, and other users cannot.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::finding::Finding;
use super::subject::Subject;

const CHECK: &str = "key";
/// The script of the package that gives the service access to its keys.
const HELPER: &str = "/usr/lib/edge-gateway/certs";

/// The user that must be able to read the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyReader {
    name: String,
    uid: u32,
    gids: Vec<u32>,
}

/// Owner, group and mode of a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Access {
    uid: u32,
    gid: u32,
    mode: u32,
}

pub(super) fn look(subject: &Subject) -> Vec<Finding> {
    let reader = reader(subject);
    let lineages: BTreeSet<_> = subject
        .certificates
        .certificates
        .iter()
        .filter_map(|row| row.certificate.as_ref()?.lineage.clone())
        .collect();
    lineages
        .into_iter()
        .map(|lineage| {
            let link = subject.letsencrypt_dir.join("live").join(lineage).join("privkey.pem");
            match access(&link) {
                Ok((key, folders)) => judge(&key, &folders, reader.as_ref()),
                Err(error) => unreadable(&link, &error),
            }
        })
        .collect()
}

/// Returns the user of the running gateway, else of the service; `None` if there is no such user.
fn reader(subject: &Subject) -> Option<KeyReader> {
    let user = match &subject.status {
        Ok(status) => User::from_uid(Uid::from_raw(status.uid)).ok()??,
        Err(_) => User::from_name(&subject.user).ok()??,
    };
    let name = std::ffi::CString::new(user.name.clone()).ok()?;
    let groups = getgrouplist(&name, user.gid).unwrap_or_default();
    let mut gids: Vec<_> = groups.into_iter().map(Gid::as_raw).collect();
    gids.push(user.gid.as_raw());
    Some(KeyReader { name: user.name, uid: user.uid.as_raw(), gids })
}

type Found = (PathBuf, Access);

/// Returns the key that a link points to, and the directories on the paths to link and key.
fn access(link: &Path) -> io::Result<(Found, Vec<Found>)> {
    let key = fs::canonicalize(link)?;
    let metadata = fs::metadata(&key)?;
    let folders: BTreeSet<_> = link.ancestors().chain(key.ancestors()).skip(1).collect();
    let folders = folders
        .into_iter()
        .filter(|folder| *folder != key && !folder.as_os_str().is_empty())
        .filter_map(|folder| Some((folder.to_owned(), Access::of(&fs::metadata(folder).ok()?))))
        .collect();
    Ok(((key, Access::of(&metadata)), folders))
}

impl Access {
    fn of(metadata: &Metadata) -> Self {
        Self { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() & 0o7777 }
    }

    /// True if `reader` has the permissions `wanted`: 4 to read, 1 to traverse.
    fn lets(self, reader: &KeyReader, wanted: u32) -> bool {
        let shift = match () {
            () if reader.uid == 0 => return true,
            () if reader.uid == self.uid => 6,
            () if reader.gids.contains(&self.gid) => 3,
            () => 0,
        };
        (self.mode >> shift) & wanted == wanted
    }
}

fn judge(key: &Found, folders: &[Found], reader: Option<&KeyReader>) -> Finding {
    let (path, access) = key;
    let shown = path.display();
    if access.mode & 0o007 != 0 {
        return Finding::fail(
            CHECK,
            format!("everybody on this host can use {shown}"),
            format!("chmod o= {shown}"),
        );
    }
    let owner = format!("{}:{} {:04o}", user(access.uid), group(access.gid), access.mode);
    let Some(reader) = reader else {
        return Finding::ok(CHECK, format!("{shown} is {owner}"));
    };
    let repair = |path: &Path, mode: &str| match Path::new(HELPER).exists() {
        true => HELPER.to_owned(),
        false => {
            let group = reader.gids.last().map_or_else(String::new, |gid| group(*gid));
            format!("chgrp {group} {0} && chmod {mode} {0}", path.display())
        }
    };
    if let Some((folder, _)) = folders.iter().find(|(_, access)| !access.lets(reader, 1)) {
        let what = format!("{} cannot pass {} to its keys", reader.name, folder.display());
        return Finding::fail(CHECK, what, repair(folder, "0750"));
    }
    if !access.lets(reader, 4) {
        let what = format!("{} cannot read {shown}, which is {owner}", reader.name);
        return Finding::fail(CHECK, what, repair(path, "0640"));
    }
    Finding::ok(CHECK, format!("{shown} is {owner}, and {} can read it", reader.name))
}

fn unreadable(link: &Path, error: &io::Error) -> Finding {
    let shown = link.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => Finding::warn(
            CHECK,
            format!("only root can see {shown}"),
            Some("sudo edge-gateway doctor".into()),
        ),
        _ => Finding::fail(CHECK, format!("{shown}: {error}"), "certbot certificates"),
    }
}

fn user(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

fn group(gid: u32) -> String {
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    group.map_or_else(|| gid.to_string(), |group| group.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Rating;

    fn at(path: &str, uid: u32, gid: u32, mode: u32) -> Found {
        (path.into(), Access { uid, gid, mode })
    }

    #[test]
    fn the_gateway_reads_its_key_and_nobody_else_does() {
        let gateway = KeyReader { name: "edge-gateway".into(), uid: 990, gids: vec![990] };
        let root = KeyReader { name: "root".into(), uid: 0, gids: vec![0] };
        let open = || at("/etc", 0, 0, 0o755);
        let (ok, fail) = (Rating::Ok, Rating::Fail);
        // (key, folder, reader, rating, part of the finding)
        let table = [
            (at("/k", 0, 990, 0o640), open(), Some(&gateway), ok, "can read it"),
            (at("/k", 0, 990, 0o640), at("/live", 0, 990, 0o750), Some(&gateway), ok, "can read"),
            (at("/k", 0, 0, 0o600), open(), Some(&gateway), fail, "cannot read /k"),
            (at("/k", 0, 990, 0o600), open(), Some(&gateway), fail, "cannot read /k"),
            (at("/k", 0, 990, 0o640), at("/live", 0, 0, 0o700), Some(&gateway), fail, "pass /live"),
            (at("/k", 0, 0, 0o644), open(), Some(&gateway), fail, "everybody"),
            (at("/k", 0, 0, 0o644), open(), Some(&root), fail, "everybody"),
            (at("/k", 0, 0, 0o600), at("/live", 0, 0, 0o700), Some(&root), ok, "root can read"),
            (at("/k", 990, 0, 0o400), open(), Some(&gateway), ok, "can read it"),
            (at("/k", 0, 0, 0o600), open(), None, ok, "/k is root:root 0600"),
        ];
        for (key, folder, reader, rating, what) in table {
            let found = judge(&key, &[folder], reader);
            assert_eq!(found.rating, rating, "{found:?}");
            assert!(found.what.contains(what), "{found:?}");
            assert!(found.repair.is_some() || rating == ok, "{found:?}");
        }
    }

    #[test]
    fn the_way_to_a_key_goes_by_its_link_and_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let (live, archive) = (dir.path().join("live/a"), dir.path().join("archive/a"));
        fs::create_dir_all(&live).unwrap();
        fs::create_dir_all(&archive).unwrap();
        fs::write(archive.join("privkey1.pem"), "").unwrap();
        std::os::unix::fs::symlink("../../archive/a/privkey1.pem", live.join("privkey.pem"))
            .unwrap();
        let (key, folders) = access(&live.join("privkey.pem")).unwrap();
        assert!(key.0.ends_with("archive/a/privkey1.pem"));
        for folder in [&live, &archive, live.parent().unwrap(), Path::new("/")] {
            assert!(folders.iter().any(|(found, _)| found == folder), "{folder:?} in {folders:?}");
        }
    }
}
