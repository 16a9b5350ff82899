//! What is said over the control socket: plain data, JSON on the wire.
//!
//! A field may be added at any time; one that is there keeps its meaning, for the command that asks
//! may be older or newer than the gateway that answers.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{Diagnostic, Severity};
use crate::control::admission;
use crate::snapshot::Counts;

/// Diagnostics that one answer holds.
const DIAGNOSTICS: usize = 1000;

/// The answer to `POST /drain_listeners`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Draining {
    /// Connections of clients that are open.
    pub connections: usize,
    /// How long they have.
    pub timeout_ms: u64,
}

/// What a reload came to: the answer to `POST /reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Reloaded {
    /// False if nothing was changed, and the previous configuration is still served.
    pub loaded: bool,
    /// What is served now.
    pub serving: Serving,
    pub files: usize,
    pub objects: usize,
    pub took_ms: u64,
    /// Why it was refused, where that is no fault of the files: a port that cannot be had.
    pub refused: Option<String>,
    /// Why it was refused, where the files are to blame.
    pub refusal: Option<RefusalReport>,
    /// Faults and warnings by file and place, the first thousand.
    pub diagnostics: Vec<DiagnosticReport>,
}

/// Why files are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct RefusalReport {
    /// For people: what is gone, the causes, what follows, what would not be served any more.
    pub lines: Vec<String>,
    /// True if it is for the operator to say that it is meant: a reload that allows removals would
    /// be served.
    pub is_removal: bool,
    /// New faults that follow from nothing else, the first thousand.
    pub causes: Vec<DiagnosticReport>,
    /// How many new faults follow from those.
    pub consequences: usize,
}

/// The answer to `GET /reloads`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct ReloadHistory {
    /// The last loads, the latest first. Only that one has its diagnostics.
    pub reloads: Vec<Past>,
}

/// A load that was.
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

/// One thing wrong with the files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct DiagnosticReport {
    /// `error` or `warning`.
    pub severity: String,
    /// True if nothing of the load may be served because of it.
    pub fatal: bool,
    pub file: PathBuf,
    /// Line and column from 1; none where the file as a whole is meant.
    pub line: Option<usize>,
    pub column: Option<usize>,
    pub object: String,
    pub field: String,
    pub problem: String,
    /// All of it as `check` prints it.
    pub text: String,
}

/// How much is served, and as which generation.
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
    /// Whom the gateway runs as, and so whose its files must be.
    pub uid: u32,
    pub gid: u32,
    pub serving: Serving,
    /// The STATUS line of `systemctl status`.
    pub status: String,
    /// Why the files are not what is served, if they are not.
    pub trouble: Option<String>,
    /// The same, whole, where the files are to blame.
    pub refusal: Option<RefusalReport>,
    /// `strict` or `partial`.
    pub reload_policy: String,
    /// What is not as it should be beside the configuration, as long as that is so: files that cannot be
    /// watched, logs that cannot be written.
    pub impaired: Vec<String>,
    /// Connections of clients that are open.
    pub connections: usize,
    /// The EnvoyGateway document, and what stands before its absolute paths.
    pub config: Option<PathBuf>,
    pub config_root: Option<PathBuf>,
    /// Where the API writes.
    pub api_dir: Option<PathBuf>,
    /// Where the API is served beside this socket, if it is.
    pub api: Option<ApiAt>,
    pub letsencrypt_dir: PathBuf,
    pub acme_webroot: PathBuf,
}

/// How the API is reached.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct ApiAt {
    pub address: SocketAddr,
    pub token_file: PathBuf,
    /// The certificate of this start.
    pub ca_file: PathBuf,
}

/// The answer where something else was asked for than there is, or may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct ErrorReport {
    /// An API server's Status has it under another name.
    #[serde(alias = "message")]
    pub error: String,
}

impl Reloaded {
    /// The first diagnostics that an answer has room for.
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
