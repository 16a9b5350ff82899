//! Paths of the configuration, the certificates and the control socket.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::de::DeserializeOwned;

use crate::app::{self, Failed};
use crate::control::socket::{CannotAsk, call};
use crate::control::{ConfigSources, Loader, Previous};
use crate::snapshot::Snapshot;

const CONFIG_VARIABLE: &str = "EDGE_GATEWAY_CONFIG";
const CONFIG: &str = "/etc/edge-gateway/edge-gateway.yaml";
pub(super) const ACME_WEBROOT: &str = "/var/lib/edge-gateway/acme";
pub(super) const LETSENCRYPT: &str = "/etc/letsencrypt";
const ENV_FILE: &str = "/etc/default/edge-gateway";
/// Timeout of an answer, which a reload may delay.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Paths of the configuration and the certificates.
#[derive(Args, Debug)]
pub(super) struct Paths {
    /// The EnvoyGateway document; its provider.custom.resource.file.paths name the directories
    #[arg(
        long,
        value_name = "FILE",
        env = CONFIG_VARIABLE,
        default_value = CONFIG
    )]
    pub config: PathBuf,
    /// Prefix of the absolute paths in that document
    #[arg(long, value_name = "DIR")]
    pub config_root: Option<PathBuf>,
    /// certbot's directory, which contains `live`
    #[arg(long, value_name = "DIR", default_value = LETSENCRYPT)]
    pub letsencrypt_dir: PathBuf,
    /// Directory of objects written over the API
    /// [default: `api` in the first directory of resources]
    #[arg(long, value_name = "DIR")]
    pub api_dir: Option<PathBuf>,
}

impl Paths {
    /// The paths of a service without flags.
    pub(super) fn usual() -> Self {
        let config = std::env::var_os(CONFIG_VARIABLE).filter(|config| !config.is_empty());
        Self {
            config: config.map_or_else(|| CONFIG.into(), PathBuf::from),
            config_root: None,
            letsencrypt_dir: LETSENCRYPT.into(),
            api_dir: None,
        }
    }

    pub(super) fn sources(&self) -> ConfigSources {
        ConfigSources::Document { file: self.config.clone(), root: self.config_root.clone() }
    }

    /// Creates the loader for these files. Names in `resolve` are not looked up.
    ///
    /// # Errors
    ///
    /// Fails if the TLS library has no random numbers.
    pub(super) fn loader(
        &self,
        resolve: Vec<(String, Vec<IpAddr>)>,
        variables: Vec<(String, String)>,
    ) -> Result<Loader, Failed> {
        let loader = app::loader(self.sources(), self.letsencrypt_dir.clone(), resolve, variables)?;
        Ok(loader.api_dir(self.api_dir.clone()))
    }

    /// Returns the snapshot that a gateway with these files would serve.
    ///
    /// # Errors
    ///
    /// Fails if the files do not load; their errors have been printed.
    fn snapshot(&self, variables: &Variables) -> Result<Snapshot, Failed> {
        let load = self.loader(Vec::new(), variables.read()?)?.load(&Previous::default());
        let Some(compiled) = load.compiled else {
            for diagnostic in load.diagnostics.iter().filter(|diagnostic| diagnostic.fatal) {
                let _ = writeln!(io::stderr(), "{diagnostic}");
            }
            return Err(Failed::Configuration);
        };
        Ok(compiled.snapshot)
    }
}

/// The control socket of the running gateway.
#[derive(Args, Debug)]
pub(super) struct Socket {
    /// The control socket of the running gateway
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/edge-gateway/control.sock",
        // The unit file may append its own flag after those of the operator.
        overrides_with = "control_socket"
    )]
    pub control_socket: PathBuf,
}

/// Files to read instead of asking the running gateway.
#[derive(Args, Debug)]
#[command(next_help_heading = "Files to read in place of asking the running gateway")]
pub(super) struct Given {
    /// The EnvoyGateway document
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Prefix of the absolute paths in that document
    #[arg(long, value_name = "DIR")]
    config_root: Option<PathBuf>,
    /// certbot's directory, which contains `live`
    #[arg(long, value_name = "DIR")]
    letsencrypt_dir: Option<PathBuf>,
}

impl Given {
    /// The paths to read, if any was given.
    fn paths(self) -> Option<Paths> {
        self.are_any().then(|| self.or(Paths::usual()))
    }

    pub(super) fn are_any(&self) -> bool {
        let Self { config, config_root, letsencrypt_dir } = self;
        config.is_some() || config_root.is_some() || letsencrypt_dir.is_some()
    }

    /// Merges the given paths with `others`. The root of `others` is used only with its document.
    pub(super) fn or(self, others: Paths) -> Paths {
        let Self { config, config_root, letsencrypt_dir } = self;
        Paths {
            config_root: config_root.or_else(|| others.config_root.filter(|_| config.is_none())),
            config: config.unwrap_or(others.config),
            letsencrypt_dir: letsencrypt_dir.unwrap_or(others.letsencrypt_dir),
            api_dir: others.api_dir,
        }
    }
}

/// The source of an answer: the running gateway, or files.
#[derive(Args, Debug)]
pub(super) struct AskOrRead {
    #[command(flatten)]
    variables: Variables,
    #[command(flatten)]
    socket: Socket,
    #[command(flatten)]
    given: Given,
}

impl AskOrRead {
    /// Returns the answer of the running gateway to `GET target`. If files were given, or if no
    /// gateway answers, `of` creates the answer from the snapshot compiled from the files.
    ///
    /// # Errors
    ///
    /// Fails if the gateway refuses, or if the files do not load.
    pub(super) fn told<T: DeserializeOwned>(
        self,
        target: &str,
        of: impl FnOnce(&Snapshot) -> T,
    ) -> Result<T, Failed> {
        let paths = match self.given.paths() {
            Some(paths) => paths,
            None => match call(&self.socket.control_socket, "GET", target, PATIENCE) {
                Ok(told) => return Ok(told),
                Err(error @ CannotAsk::Refused(_)) => return Err(error.into()),
                Err(error) => {
                    let _ = writeln!(io::stderr(), "{error}\nThe configuration files say:\n");
                    Paths::usual()
                }
            },
        };
        Ok(of(&paths.snapshot(&self.variables)?))
    }
}

/// The environment of the service, for commands that run outside it.
#[derive(Args, Debug)]
pub(super) struct Variables {
    /// Values of variables that are not set, as in systemd's EnvironmentFile=
    /// [default: /etc/default/edge-gateway, if it is there]
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

impl Variables {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// Fails if a file that was given cannot be read.
    pub(super) fn read(&self) -> Result<Vec<(String, String)>, Failed> {
        let path = self.env_file.as_deref().unwrap_or_else(|| Path::new(ENV_FILE));
        match fs::read_to_string(path) {
            Ok(text) => Ok(assignments(&text)),
            Err(error) if self.env_file.is_none() && error.kind() == ErrorKind::NotFound => {
                Ok(Vec::new())
            }
            Err(source) => Err(Failed::Files { what: path.display().to_string(), source }),
        }
    }
}

/// Parses `NAME=value` lines, with one value that may be quoted. Unlike systemd.exec(5), continued
/// lines and escapes are not supported.
fn assignments(text: &str) -> Vec<(String, String)> {
    // A byte order mark, written by editors on Windows.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| {
            let value = value.trim();
            let quoted = ['"', '\'']
                .into_iter()
                .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
            (name.trim().to_owned(), quoted.unwrap_or(value).to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_file_is_read_as_systemd_does() {
        let text = "\
# A comment=no
; DOMAIN=another

DOMAIN=example.org
  EDGE_GATEWAY_ENV = stage
EDGE_GATEWAY_OPTS=\"--drain-timeout 1m\"
QUOTE='it is \"this\"'
HALF=\"open
EMPTY=
no assignment
";
        let want = [
            ("DOMAIN", "example.org"),
            ("EDGE_GATEWAY_ENV", "stage"),
            ("EDGE_GATEWAY_OPTS", "--drain-timeout 1m"),
            ("QUOTE", "it is \"this\""),
            ("HALF", "\"open"),
            ("EMPTY", ""),
        ];
        // The same file, saved on Windows.
        let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
        assert_eq!(assignments(&windows), assignments(text));
        let got = assignments(text);
        let got: Vec<_> = got.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(got, want);
    }
}
