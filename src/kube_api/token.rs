//! The bearer token that every request over TCP needs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::secret::Secret;

/// The number of random bytes of a generated token.
const BYTES: usize = 32;
/// The permitted length of a token. Shorter ones can be guessed, longer ones do not fit the head of
/// a request.
const LENGTH: std::ops::RangeInclusive<usize> = 16..=1024;

/// The token that a caller must present.
#[derive(Clone, Debug)]
pub(super) struct BearerToken(Secret<Vec<u8>>);

/// The reason why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoToken {
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: others than its owner may read it; `chmod 600` it", .path.display())]
    Open { path: PathBuf },
    #[error("{}: a token has 16 to 1024 printable characters", .path.display())]
    Unfit { path: PathBuf },
}

impl BearerToken {
    /// Returns the token in the file at `path`. If the file is missing, a token is generated.
    ///
    /// # Errors
    ///
    /// The file cannot be read or written, can be read by others, or has no valid token.
    pub(super) fn in_file(path: &Path) -> Result<Self, NoToken> {
        let failed = |source| NoToken::File { path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(path).map_err(failed)?;
                File::open(path).map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
            return Err(NoToken::Open { path: path.to_owned() });
        }
        let mut text = String::new();
        file.take(4096).read_to_string(&mut text).map_err(failed)?;
        let token = text.trim();
        if !LENGTH.contains(&token.len()) || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(NoToken::Unfit { path: path.to_owned() });
        }
        Ok(Self(Secret::new(token.as_bytes().to_vec())))
    }

    /// Returns true if `shown` is this token. The duration does not depend on how much of it is
    /// right.
    pub(super) fn is(&self, shown: &[u8]) -> bool {
        let token = self.0.reveal();
        let wrong =
            token.iter().enumerate().fold(token.len() ^ shown.len(), |wrong, (at, byte)| {
                let other = shown.get(at).copied().unwrap_or_default();
                std::hint::black_box(wrong | usize::from(byte ^ other))
            });
        std::hint::black_box(wrong) == 0
    }
}

fn make(path: &Path) -> io::Result<()> {
    let mut random = [0; BYTES];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    // Two gateways may start at once: the second one reads the token that the first one made.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => file.write_all(text.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes a file that everybody may read, atomically.
pub(super) fn publish(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let token = BearerToken::in_file(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.len(), 2 * BYTES);
        assert!(token.is(text.as_bytes()));
        assert!(BearerToken::in_file(&path).unwrap().is(text.as_bytes()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn nothing_but_the_token_is_taken() {
        let token = BearerToken(Secret::new(b"0123456789abcdef".to_vec()));
        for wrong in
            ["", "0123456789abcde", "0123456789abcdeg", "0123456789abcdef0", "1123456789abcdef"]
        {
            assert!(!token.is(wrong.as_bytes()), "{wrong}");
        }
        assert!(token.is(b"0123456789abcdef"));
    }

    #[test]
    fn a_file_that_keeps_no_secret_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let write = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            BearerToken::in_file(&path)
        };
        assert!(write("0123456789abcdef\n", 0o600).is_ok());
        assert!(matches!(write("0123456789abcdef\n", 0o640), Err(NoToken::Open { .. })));
        assert!(matches!(write("short", 0o600), Err(NoToken::Unfit { .. })));
        assert!(matches!(write("with a space in it", 0o600), Err(NoToken::Unfit { .. })));
        let nowhere = dir.path().join("nowhere/token");
        assert!(matches!(BearerToken::in_file(&nowhere), Err(NoToken::File { .. })));
    }
}
