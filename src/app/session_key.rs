//! The key that encrypts session tokens, kept across restarts.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::downstream::{KEY_LENGTH, SessionKey};

const FILE: &str = "session.key";

/// Returns the key in the state directory, and creates one if there is none.
///
/// If it cannot be stored, the gateway uses a temporary key: all sessions begin anew at the next
/// start.
///
/// # Errors
///
/// Fails if the system has no random numbers.
pub(super) fn session_key(state: Option<&Path>) -> io::Result<SessionKey> {
    if let Some(state) = state {
        match kept(state) {
            Ok(key) => return Ok(key),
            Err(error) => {
                let path = state.join(FILE);
                tracing::warn!(path = %path.display(), %error, "sessions end with this process");
            }
        }
    }
    let bytes = SessionKey::random_bytes().map_err(io::Error::other)?;
    SessionKey::new(&bytes).map_err(io::Error::other)
}

fn kept(state: &Path) -> io::Result<SessionKey> {
    let path = state.join(FILE);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => make(state, &path)?,
        read => read?,
    };
    SessionKey::new(&bytes).map_err(|_| {
        let problem =
            format!("it is not {KEY_LENGTH} bytes long; remove it, and a new one is made");
        io::Error::new(ErrorKind::InvalidData, problem)
    })
}

/// Creates the key. Two processes that start at once agree on it: only the first hard link
/// succeeds, and both read the linked file.
fn make(state: &Path, path: &Path) -> io::Result<Vec<u8>> {
    let new = state.join(format!("{FILE}.{}", std::process::id()));
    let bytes = SessionKey::random_bytes().map_err(io::Error::other)?;
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).and_then(
        |mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        },
    );
    let linked = written.and_then(|()| match fs::hard_link(&new, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    let removed = fs::remove_file(&new);
    linked.and(removed)?;
    fs::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let state = tempfile::tempdir().unwrap();
        session_key(Some(state.path())).unwrap();
        let path = state.path().join(FILE);
        let first = fs::read(&path).unwrap();
        assert_eq!(first.len(), KEY_LENGTH);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        session_key(Some(state.path())).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first);
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_key_that_cannot_be_kept_stops_nothing() {
        let state = tempfile::tempdir().unwrap();
        fs::write(state.path().join(FILE), "short").unwrap();
        assert!(kept(state.path()).unwrap_err().to_string().contains("remove it"));
        session_key(Some(state.path())).unwrap();
        session_key(Some(&state.path().join("none"))).unwrap();
        session_key(None).unwrap();
    }
}
