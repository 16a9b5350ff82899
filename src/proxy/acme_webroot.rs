//! HTTP-01 challenges from certbot's webroot (RFC 8555 section 8.3).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

const PREFIX: &str = "/.well-known/acme-challenge/";

/// Maximum size of a token's file in bytes; certbot writes fewer than 100.
const LARGEST: u64 = 4096;

/// Returns the token of a challenge path; `None` for other paths.
///
/// A token consists of base64url characters only (RFC 8555 section 8.1); the maximum of 128
/// characters is three times the length that a CA uses. Thus no path can leave the folder,
/// regardless of the file system.
pub(crate) fn token(path: &str) -> Option<&str> {
    let token = path.strip_prefix(PREFIX)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    ((1..=128).contains(&token.len()) && token.bytes().all(allowed)).then_some(token)
}

/// Reads the file that certbot wrote for `token` under `webroot`. Blocks on the file system.
///
/// Below the webroot, no symbolic link is followed, and only a small regular file is read.
///
/// # Errors
///
/// Returns the reason why the file cannot be read; `NotFound` if there is none for the token.
pub(crate) fn read(webroot: &Path, token: &str) -> io::Result<Vec<u8>> {
    let directory = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let root = File::open(webroot)?;
    let well_known = open_below(&root, ".well-known", directory)?;
    let challenges = open_below(&well_known, "acme-challenge", directory)?;
    // O_NONBLOCK: opening a named pipe must not wait for its writer.
    let file = open_below(&challenges, token, OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK)?;
    let file = File::from(file);
    let facts = file.metadata()?;
    if !facts.is_file() || facts.len() > LARGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a small, plain file"));
    }
    let mut content = Vec::new();
    file.take(LARGEST).read_to_end(&mut content)?;
    Ok(content)
}

fn open_below(directory: impl AsFd, name: &str, flags: OFlag) -> io::Result<OwnedFd> {
    let flags = flags | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::empty()).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_token_is_base64url_and_nothing_else() {
        // (path, token)
        let table = [
            ("/.well-known/acme-challenge/abc-DEF_123", Some("abc-DEF_123")),
            ("/.well-known/acme-challenge/", None),
            ("/.well-known/acme-challenge/a.b", None),
            ("/.well-known/acme-challenge/a/b", None),
            ("/.well-known/acme-challenge/..", None),
            ("/.well-known/acme-challenge/a%2fb", None),
            ("/.well-known/acme-challenges/a", None),
            ("/x/.well-known/acme-challenge/a", None),
        ];
        for (path, want) in table {
            assert_eq!(token(path), want, "{path}");
        }
        let long = format!("{PREFIX}{}", "a".repeat(129));
        assert_eq!(token(&long), None);
    }

    #[test]
    fn only_plain_files_are_read_and_no_link_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let secret = root.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        assert_eq!(read(root.path(), "t").unwrap_err().kind(), io::ErrorKind::NotFound);

        let folder = root.path().join(".well-known/acme-challenge");
        fs::create_dir_all(folder.join("folder")).unwrap();
        fs::write(folder.join("good"), "good.thumbprint").unwrap();
        fs::write(folder.join("large"), vec![b'x'; 5000]).unwrap();
        symlink(&secret, folder.join("link")).unwrap();
        nix::unistd::mkfifo(&folder.join("pipe"), Mode::S_IRWXU).unwrap();

        assert_eq!(read(root.path(), "good").unwrap(), b"good.thumbprint");
        for refused in ["link", "large", "folder", "pipe", "missing"] {
            assert!(read(root.path(), refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_linked_folder_is_not_entered() {
        let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(elsewhere.path().join("acme-challenge")).unwrap();
        fs::write(elsewhere.path().join("acme-challenge/t"), "x").unwrap();
        symlink(elsewhere.path(), root.path().join(".well-known")).unwrap();
        assert!(read(root.path(), "t").is_err());
    }
}
