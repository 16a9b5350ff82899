//! Messages of the control socket: plain data, JSON on the wire.
//!
//! Fields may be added at any time, but a field never changes its meaning: the command that asks
//! may be older or newer than the gateway that answers.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{Diagnostic, Severity};
use crate::control::admission;
use crate::snapshot::Counts;

/// The maximum number of diagnostics in one answer.
const DIAGNOSTICS: usize = 1000;

/// The answer to `POST /drain_listeners`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Draining {
    /// Open connections of clients.
    pub connections: usize,
    /// The drain timeout.
    pub timeout_ms: u64,
}

/// The result of a reload: the answer to `POST /reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Reloaded {
    /// False if nothing was changed, and the previous configuration is still served.
    pub loaded: bool,
    /// The configuration that is served now.
    pub serving: Serving,
    pub files: usize,
    pub objects: usize,
    pub took_ms: u64,
    /// The reason for a refusal that the files did not cause, such as a port that is in use.
    pub refused: Option<String>,
    /// The reason for a refusal that the files caused.
    pub refusal: Option<RefusalReport>,
    /// Faults and warnings by file and position, at most 1000.
    pub diagnostics: Vec<DiagnosticReport>,
}

/// The reasons why files are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct RefusalReport {
    /// For humans: missing objects, causes, consequences, and what would no longer be served.
    pub lines: Vec<String>,
    /// True if the operator can confirm the removal: a reload that allows removals would be served.
    pub is_removal: bool,
    /// New faults that do not follow from another one, at most 1000.
    pub causes: Vec<DiagnosticReport>,
    /// The number of new faults that follow from the causes.
    pub consequences: usize,
}

/// The answer to `GET /reloads`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct ReloadHistory {
    /// The last loads, the latest first. Only the latest has its diagnostics.
    pub reloads: Vec<Past>,
}

/// A past load.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Past {
    /// RFC 3339.
    pub at: String,
    /// `start`, `files`, `signal`, `asked` or `api`.
    pub cause: String,
    #[serde(flatten)]
    pub came_to: Reloaded,
}

/// A fault or warning about the files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct DiagnosticReport {
    /// `error` or `warning`.
    pub severity: String,
    /// True if nothing of the load can be served because of it.
    pub fatal: bool,
    pub file: PathBuf,
    /// Line and column, from 1; `None` if it concerns the file as a whole.
    pub line: Option<usize>,
    pub column: Option<usize>,
    pub object: String,
    pub field: String,
    pub problem: String,
    /// The full line as `check` prints it.
    pub text: String,
}

/// The size of the served configuration, and its generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Serving {
    pub generation: u64,
    pub gateways: usize,
    pub listeners: usize,
    pub routes: usize,
    pub backends: usize,
}

/// The answer to `GET /status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct StatusReport {
    pub version: String,
    pub pid: u32,
    /// The user and group of the gateway, which must own its files.
    pub uid: u32,
    pub gid: u32,
    pub serving: Serving,
    /// The STATUS line of `systemctl status`.
    pub status: String,
    /// Why the files are not served; `None` if they are.
    pub trouble: Option<String>,
    /// The same as a full report, if the files are at fault.
    pub refusal: Option<RefusalReport>,
    /// `strict` or `partial`.
    pub reload_policy: String,
    /// Problems apart from the configuration that exist now: files that cannot be watched, logs
    /// that cannot be written.
    pub impaired: Vec<String>,
    /// Open connections of clients.
    pub connections: usize,
    /// The EnvoyGateway document, and the prefix of its absolute paths.
    pub config: Option<PathBuf>,
    pub config_root: Option<PathBuf>,
    /// The directory that the API writes to.
    pub api_dir: Option<PathBuf>,
    /// The loopback address of the API, if it has one beside this socket.
    pub api: Option<ApiAt>,
    pub letsencrypt_dir: PathBuf,
    pub acme_webroot: PathBuf,
}

/// The access data of the API.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct ApiAt {
    pub address: SocketAddr,
    pub token_file: PathBuf,
    /// The certificate that was generated at this start.
    pub ca_file: PathBuf,
}

/// The answer to a request that is unknown, invalid or forbidden.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct ErrorReport {
    /// An API server's Status calls it `message`.
    #[serde(alias = "message")]
    pub error: String,
}

impl Reloaded {
    /// Converts the first diagnostics, up to the limit of an answer.
    pub(in crate::control) fn told(diagnostics: &[Diagnostic]) -> Vec<DiagnosticReport> {
        diagnostics.iter().take(DIAGNOSTICS).map(DiagnosticReport::from).collect()
    }
}

impl From<&admission::LoadRefusal> for RefusalReport {
    fn from(refusal: &admission::LoadRefusal) -> Self {
        Self {
            lines: refusal.lines(),
            is_removal: refusal.is_removal(),
            causes: Reloaded::told(&refusal.causes),
            consequences: refusal.consequences,
        }
    }
}

impl Serving {
    pub(in crate::control) fn new(generation: u64, counts: Counts) -> Self {
        let Counts { gateways, listeners, routes, backends } = counts;
        Self { generation, gateways, listeners, routes, backends }
    }
}

impl From<&Diagnostic> for DiagnosticReport {
    fn from(diagnostic: &Diagnostic) -> Self {
        let Diagnostic { severity, fatal, place, object, field, problem, origin: _ } = diagnostic;
        Self {
            severity: match severity {
                Severity::Error => "error".into(),
                Severity::Warning => "warning".into(),
            },
            fatal: *fatal,
            file: place.file.to_path_buf(),
            line: place.position.map(|position| position.line),
            column: place.position.map(|position| position.column),
            object: object.clone(),
            field: field.clone(),
            problem: problem.clone(),
            text: diagnostic.to_string(),
        }
    }
}
