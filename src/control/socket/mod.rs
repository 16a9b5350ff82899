//! The control socket: an HTTP/1.1 server on a UNIX socket that answers questions about the running
//! gateway and controls it. The admin address offers the same to browsers.
//!
//! ```text
//! POST /reload               reads everything again; 200 if it was loaded, 422 if it was refused
//!      ?wait=false           the same, answered with 202 before it is done
//!      ?allow_removal=true   objects that are missing in the files were removed on purpose
//!      ?dry_run=true         changes nothing, and answers what a reload would do
//! POST /drain_listeners      drains and ends the process, as SIGTERM does
//! GET  /certs                the certificates that are served, or should be
//! GET  /conditions           conditions of objects that report a problem
//! GET  /reloads              the last loads, with their diagnostics
//! GET  /status               the state of this process
//! ...  /api, /apis           the objects, as an API server returns them: `kube_api`; only here
//! ...  everything else       requests that do not need the control loop: `admin`
//! ```
//!
//! The tasks here only pass on requests: the control loop answers them, one at a time, between its
//! other events. A request that needs a load waits until none is under way; all others are answered
//! at once. The mode of the file (owner and group) determines who may connect to the socket.
//! Changes are allowed for root and the gateway's own user, by the credentials that the kernel
//! reports for the peer. The admin address is open to all users of this host; it refuses requests
//! that a foreign page in a browser sends, and changes something only for a request with a field
//! that no such page can set ([`admin_address`]).
//!
//! Everything that a peer could hold is limited: the number of connections, one request on each of
//! the socket's, the size of its head, and its total time.

mod admin_address;
mod client;
mod question;
mod server;
mod words;

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::admin::Admin;
use crate::kube_api::Front;

pub(crate) use client::{CannotAsk, call, call_for};
pub(super) use question::{Ask, AskReload};
pub(crate) use words::{
    ApiAt, Draining, Past, RefusalReport, ReloadHistory, Reloaded, Serving, StatusReport,
};

use server::{Asks, Patience, QUEUE, SocketDoor, serve};

/// Owner and group may connect.
const MODE: u32 = 0o660;

/// The servers of the control socket and the admin address, and the requests that they pass on.
/// Dropping it closes every connection and removes the socket's file.
#[derive(Debug)]
pub(super) struct ControlSocket {
    asks: Asks,
    reloads: mpsc::Receiver<AskReload>,
    questions: mpsc::Receiver<Ask>,
    rehearsals: mpsc::Receiver<Ask>,
    file: Option<OwnFile>,
    servers: JoinSet<()>,
    /// The tasks that serve the admin address.
    pages: JoinSet<()>,
}

/// The socket's file, as long as this process owns it.
#[derive(Debug)]
struct OwnFile {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
}

/// The reason why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub(super) enum CannotOpen {
    #[error("{}: {source}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: another gateway answers on it", .path.display())]
    Live { path: PathBuf },
    #[error("{}: there is a file of that name, which is no socket", .path.display())]
    NoSocket { path: PathBuf },
}

impl ControlSocket {
    /// Creates one that listens nowhere yet.
    pub(super) fn new() -> Self {
        let (reload, reloads) = mpsc::channel(QUEUE);
        let (question, questions) = mpsc::channel(QUEUE);
        let (rehearsal, rehearsals) = mpsc::channel(QUEUE);
        let asks = Asks { reload, question, rehearsal };
        let (servers, pages) = (JoinSet::new(), JoinSet::new());
        Self { asks, reloads, questions, rehearsals, file: None, servers, pages }
    }

    /// Listens at `path`. A socket that a dead process left behind is replaced. Must be called
    /// inside a runtime.
    ///
    /// # Errors
    ///
    /// Fails if another process listens there, or if no socket can be created there.
    pub(super) fn open(
        &mut self,
        path: &Path,
        front: Front,
        admin: Admin,
    ) -> Result<(), CannotOpen> {
        let listener = self.bind(path)?;
        let door = SocketDoor { asks: self.asks.clone(), front, admin };
        self.servers.spawn(serve(listener, door, Patience::default()));
        Ok(())
    }

    fn bind(&mut self, path: &Path) -> Result<UnixListener, CannotOpen> {
        let failed = |source| CannotOpen::File { path: path.to_owned(), source };
        make_room(path)?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        self.file = Some(OwnFile { path: path.to_owned(), identity: identity(path) });
        fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed)?;
        Ok(listener)
    }

    /// Also answers on `address`, as soon as it can be bound. Must be called inside a runtime.
    pub(super) fn listen(&mut self, address: SocketAddr, admin: Admin) {
        self.pages.spawn(admin_address::serve(address, self.asks.clone(), admin));
    }

    /// Closes the socket, so that the next process can open it. While the result is kept, the admin
    /// address still answers requests that do not need the control loop.
    pub(super) fn draining(self) -> JoinSet<()> {
        self.pages
    }

    /// Waits for the next request. One that needs a load is returned only if `may_load`. Cancel
    /// safe.
    pub(super) async fn next(&mut self, may_load: bool) -> Ask {
        let ask = tokio::select! {
            // Other requests are quick; a load takes a while.
            biased;
            question = self.questions.recv() => question,
            rehearsal = self.rehearsals.recv(), if may_load => rehearsal,
            reload = self.reloads.recv(), if may_load => reload.map(Ask::Reload),
        };
        match ask {
            Some(ask) => ask,
            // Unreachable: `self.asks` holds a sender of each channel.
            None => std::future::pending().await,
        }
    }

    /// Takes all further requests for a reload: the next reload answers them together. So ten hooks
    /// of one renewal cause one reload.
    pub(super) fn also_waiting(&mut self) -> Vec<AskReload> {
        std::iter::from_fn(|| self.reloads.try_recv().ok()).collect()
    }
}

/// Removes the socket of a dead process.
fn make_room(path: &Path) -> Result<(), CannotOpen> {
    let path = path.to_owned();
    let metadata = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(CannotOpen::File { path, source }),
    };
    if !metadata.file_type().is_socket() {
        return Err(CannotOpen::NoSocket { path });
    }
    match net::UnixStream::connect(&path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(&path).map_err(|source| CannotOpen::File { path, source })
        }
        Err(source) => Err(CannotOpen::File { path, source }),
        Ok(_) => Err(CannotOpen::Live { path }),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        // The file may belong to a process that has replaced this one.
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests;
