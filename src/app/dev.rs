//! The trial gateway of `edge-gateway dev`: it needs no root, no certificate and no configuration.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::app::Failed;

/// The files that `dev` prepares before it starts the gateway.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Directories of resources to serve.
    pub directories: Vec<PathBuf>,
    /// The directory that contains `live/localhost`.
    pub letsencrypt_dir: PathBuf,
    pub acme_webroot: PathBuf,
    /// The directory of the example; `None` if the user gave a directory.
    pub example: Option<PathBuf>,
}

/// Writes the missing files of the example and a certificate for localhost below `state`, and
/// returns their paths. With `own`, that directory and its subdirectories are served instead.
///
/// # Errors
///
/// Fails if a file cannot be written, or if `own` is not a directory.
pub(crate) fn prepare(
    state: &Path,
    own: Option<&Path>,
    echo: SocketAddr,
) -> Result<Prepared, Failed> {
    let letsencrypt_dir = state.join("letsencrypt");
    certificate(&letsencrypt_dir.join("live/localhost"))?;
    let acme_webroot = state.join("acme");
    create(&acme_webroot)?;
    let (directories, example) = match own {
        Some(own) => (with_subdirectories(own)?, None),
        None => {
            let example = state.join("config");
            write_example(&example, echo)?;
            (vec![example.clone()], Some(example))
        }
    };
    Ok(Prepared { directories, letsencrypt_dir, acme_webroot, example })
}

/// Writes a self-signed certificate for localhost, new at each start.
fn certificate(lineage: &Path) -> Result<(), Failed> {
    create(lineage)?;
    let names = ["localhost", "*.localhost", "127.0.0.1", "::1"].map(String::from);
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| Failed::Files {
        what: "a certificate for localhost cannot be made".into(),
        source: io::Error::other(error),
    })?;
    write(&lineage.join("fullchain.pem"), &made.cert.pem())?;
    write_private(&lineage.join("privkey.pem"), &made.signing_key.serialize_pem())
}

/// Writes the example. Existing files belong to the user by now and are kept, except for the
/// address of the echo backend, which changes at each start.
fn write_example(directory: &Path, echo: SocketAddr) -> Result<(), Failed> {
    create(directory)?;
    for (name, text) in [("gateway.yaml", GATEWAY), ("routes.yaml", ROUTES)] {
        let path = directory.join(name);
        if !path.exists() {
            write(&path, text)?;
        }
    }
    let backend = BACKEND
        .replace("ADDRESS", &echo.ip().to_string())
        .replace("PORT", &echo.port().to_string());
    write(&directory.join("echo-backend.yaml"), &backend)
}

const GATEWAY: &str = include_str!("dev/gateway.yaml");
const ROUTES: &str = include_str!("dev/routes.yaml");
const BACKEND: &str = include_str!("dev/echo-backend.yaml");

/// Returns `own` and its subdirectories, since any of them may contain configuration files.
fn with_subdirectories(own: &Path) -> Result<Vec<PathBuf>, Failed> {
    let failed = |source| Failed::Files { what: own.display().to_string(), source };
    let mut found = vec![own.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let hidden =
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if path.is_dir() && !path.is_symlink() && !hidden {
                found.push(path);
            }
        }
    }
    Ok(found)
}

fn create(directory: &Path) -> Result<(), Failed> {
    fs::create_dir_all(directory)
        .map_err(|source| Failed::Files { what: directory.display().to_string(), source })
}

/// Writes a file that only its owner may read.
fn write_private(path: &Path, text: &str) -> Result<(), Failed> {
    let written = || {
        // Opening an existing file would keep its mode.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    };
    written().map_err(|source| Failed::Files { what: path.display().to_string(), source })
}

fn write(path: &Path, text: &str) -> Result<(), Failed> {
    fs::write(path, text)
        .map_err(|source| Failed::Files { what: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_is_for_its_owner_alone() {
        let state = tempfile::tempdir().unwrap();
        let key = state.path().join("letsencrypt/live/localhost/privkey.pem");
        create(key.parent().unwrap()).unwrap();
        write(&key, "from before").unwrap();
        prepare(state.path(), None, "127.0.0.1:1".parse().unwrap()).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(fs::read_to_string(&key).unwrap().contains("PRIVATE KEY"));
    }
}
