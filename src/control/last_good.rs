//! The files of the last configuration that loaded, for a start at which the files do not.
//!
//! A reload that fails leaves what runs in service; a start has nothing that runs. So what loaded
//! last is kept as it was read, variables and all, and a start falls back on it rather than closing
//! the door.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::config::{self, Settings, SourceFile};
use crate::control::Sources;

/// Where they are kept.
#[derive(Clone, Debug)]
pub(super) struct LastGood {
    directory: PathBuf,
}

const DOCUMENT: &str = "edge-gateway.yaml";
const RESOURCES: &str = "resources";

impl LastGood {
    /// Below the state directory (`$STATE_DIRECTORY`, systemd's `StateDirectory=`).
    pub(super) fn new(state: &Path) -> Self {
        Self { directory: state.join("last-good") }
    }

    /// What was kept, if anything was.
    pub(super) fn sources(&self) -> Option<Sources> {
        // Between the two renames of `keep` only the one before is there.
        [self.directory.clone(), self.beside("old")]
            .into_iter()
            .map(|directory| directory.join(DOCUMENT))
            .find(|file| file.is_file())
            .map(|file| Sources::Document { file, root: None })
    }

    /// Keeps `files` in place of what was kept before; whole, or not at all.
    ///
    /// Secrets may stand in them: they are for their owner alone, as the directory is.
    ///
    /// # Errors
    ///
    /// The directory cannot be written. What was kept before is kept on.
    pub(super) fn keep(&self, settings: &Settings, files: &[SourceFile]) -> io::Result<()> {
        let (new, old) = (self.beside("new"), self.beside("old"));
        remove(&new)?;
        let resources = new.join(RESOURCES);
        DirBuilder::new().recursive(true).mode(0o700).create(&resources)?;
        write(&new.join(DOCUMENT), &document(settings))?;
        for (number, file) in files.iter().enumerate() {
            let name = file.path.file_name().unwrap_or_default().to_string_lossy();
            // In the order in which they were read; names may repeat over directories. A file that
            // was named itself is read whatever its name is; in a directory it needs an ending.
            let ending = if config::is_configuration(&name) { "" } else { ".yaml" };
            write(&resources.join(format!("{number:05}-{name}{ending}")), file.text())?;
        }
        remove(&old)?;
        if self.directory.exists() {
            fs::rename(&self.directory, &old)?;
        }
        fs::rename(&new, &self.directory)?;
        remove(&old)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        self.directory.with_extension(suffix)
    }
}

/// The EnvoyGateway document that reads the kept files as they were read.
fn document(settings: &Settings) -> String {
    let text = |value: &str| serde_json::Value::from(value).to_string();
    format!(
        "# Written by edge-gateway: the last configuration that loaded. Changes here are lost.\n\
         apiVersion: gateway.envoyproxy.io/v1alpha1\n\
         kind: EnvoyGateway\n\
         gateway: {{controllerName: {}}}\n\
         provider:\n  type: Custom\n  custom:\n    resource:\n      type: File\n      file: {{paths: [{}]}}\n\
         extensionApis: {{enableBackend: {}}}\n",
        text(&settings.controller_name),
        text(RESOURCES),
        settings.enable_backend,
    )
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
