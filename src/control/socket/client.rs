//! The client of the control socket, for commands.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::http_client::{self, Answer, Request, Server};

use super::words::ErrorReport;

/// The maximum size of an answer in bytes: certificates of thousands of listeners, or a thousand
/// diagnostics.
const LONGEST: usize = 64 << 20;

/// Sends a request to the running gateway, and waits for its answer for up to `patience`.
///
/// # Errors
///
/// Fails if no gateway answers, or if it refuses the request.
pub(crate) fn call<T: DeserializeOwned>(
    socket: &Path,
    method: &str,
    target: &str,
    patience: Duration,
) -> Result<T, CannotAsk> {
    call_for("*/*", socket, method, target, patience)
}

/// Like [`call`], but accepts an answer of the media types `accept`.
///
/// # Errors
///
/// Fails like [`call`].
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
    // The answer to a refused reload (422) is a full answer, too.
    if let Ok(answer) = serde_json::from_slice(&body)
        && (status < 300 || status == 422)
    {
        return Ok(answer);
    }
    let refused: ErrorReport = serde_json::from_slice(&body).unwrap_or_default();
    let error = if refused.error.is_empty() { format!("status {status}") } else { refused.error };
    Err(CannotAsk::Refused(error))
}

/// The reason why the running gateway gave no answer.
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
