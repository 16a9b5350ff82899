//! The addresses of the pool that Gateways hold, stored for the next start.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::graph::Held;

/// A file of lines `ADDRESS NAMESPACE/GATEWAY`.
#[derive(Debug)]
pub(super) struct KeptAddresses {
    file: PathBuf,
    held: Held,
}

impl KeptAddresses {
    /// Reads the file below the state directory (`$STATE_DIRECTORY`, systemd's `StateDirectory=`).
    /// A missing file counts as empty, and unreadable lines are skipped: new addresses are chosen
    /// then.
    pub(super) fn read(state: &Path) -> Self {
        let file = state.join("addresses");
        let text = fs::read_to_string(&file).unwrap_or_default();
        let line = |line: &str| {
            let (address, holder) = line.split_once(' ')?;
            Some((holder.to_owned(), address.parse().ok()?))
        };
        Self { file, held: text.lines().filter_map(line).collect() }
    }

    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Replaces the content of the file by `held`, atomically.
    ///
    /// # Errors
    ///
    /// Fails if the directory cannot be written. The previous content remains.
    pub(super) fn keep(&mut self, held: &Held) -> io::Result<()> {
        if self.held == *held {
            return Ok(());
        }
        let mut text = String::new();
        for (holder, address) in held {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{address} {holder}");
        }
        let new = self.file.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&new, &self.file)?;
        self.held.clone_from(held);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_there_at_the_next_start() {
        let state = tempfile::tempdir().unwrap();
        let mut kept = KeptAddresses::read(state.path());
        assert!(kept.held().is_empty());
        let held: Held = [("default/gw", "127.1.0.7"), ("other/gw#2", "fd00::1")]
            .map(|(holder, address)| (holder.to_owned(), address.parse().unwrap()))
            .into();
        kept.keep(&held).unwrap();
        assert_eq!(KeptAddresses::read(state.path()).held(), &held);

        fs::write(state.path().join("addresses"), "\nx y\n127.1.0.7\n127.1.0.8 a/b\n").unwrap();
        let read = KeptAddresses::read(state.path());
        assert_eq!(read.held(), &Held::from([("a/b".to_owned(), "127.1.0.8".parse().unwrap())]));
    }
}
