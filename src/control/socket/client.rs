//! The other end of the control socket, for commands.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::http_client::{self, Answer, Request, Server};

use super::words::ErrorReport;

/// Bytes of an answer: the certificates of thousands of listeners, or a thousand diagnostics.
const LONGEST: usize = 64 << 20;

/// Asks the gateway that runs, and waits for its answer at most `patience`.
///
/// # Errors
///
/// Nobody answers, or what was asked for is refused.
pub(crate) fn call<T: DeserializeOwned>(
    socket: &Path,
    method: &str,
    target: &str,
    patience: Duration,
) -> Result<T, CannotAsk> {
    call_for("*/*", socket, method, target, patience)
}

/// As [`call`], for an answer of the media types `accept`.
///
/// # Errors
///
/// Those of [`call`].
pub(crate) fn call_for<T: DeserializeOwned>(
    accept: &str,
    socket: &Path,
    method: &str,
    target: &str,
    patience: Duration,
) -> Result<T, CannotAsk> {
    let silent = |source| CannotAsk::Silent { socket: socket.to_owned(), source };
    let request =
        Request { method, host: "localhost", target, accept, longest: LONGEST, timeout: patience };
    let Answer { status, body, .. } =
        http_client::send(Server::Unix(socket), &request).map_err(silent)?;
    // A reload that was refused is an answer, too.
    if let Ok(answer) = serde_json::from_slice(&body)
        && (status < 300 || status == 422)
    {
        return Ok(answer);
    }
    let refused: ErrorReport = serde_json::from_slice(&body).unwrap_or_default();
    let error = if refused.error.is_empty() { format!("status {status}") } else { refused.error };
    Err(CannotAsk::Refused(error))
}

/// Why the gateway that runs does not say what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CannotAsk {
    #[error("the gateway refuses: {0}")]
    Refused(String),
    #[error("no gateway answers at {}: {source}{}", .socket.display(), hint(source))]
    Silent { socket: PathBuf, source: io::Error },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            "; see `systemctl status edge-gateway`, or name its --control-socket"
        }
        ErrorKind::PermissionDenied => "; ask as root, or as the user it runs as",
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "; it is busy, or it hangs",
        _ => "",
    }
}
