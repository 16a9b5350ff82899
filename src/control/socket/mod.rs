//! The control socket: the running gateway, asked over HTTP/1.1 on a UNIX socket; and the same on the
//! admin address, for browsers.
//!
//! ```text
//! POST /reload               reads everything again; 200 if it was loaded, 422 if it was refused
//!      ?wait=false           the same, answered with 202 before it is done
//!      ?allow_removal=true   objects that are missing in the files were removed on purpose
//!      ?dry_run=true         changes nothing, and answers what a reload would do
//! POST /drain_listeners      drains and ends the process, as SIGTERM does
//! GET  /certs                the certificates that are served, or should be
//! GET  /conditions           conditions of objects that are not as they should be
//! GET  /reloads              the last loads, with their diagnostics
//! GET  /status               the state of this process
//! ...  /api, /apis           the objects, as an API server shows them: `kube_api`; here alone
//! ...  everything else       questions that do not need the loop: `admin`
//! ```
//!
//! The tasks here only carry questions: the control loop answers them, one at a time, between its
//! other events. What needs a load waits until none is under way; everything else is answered at once. Who may
//! connect to the socket is settled by the mode of the file (owner and group), and who may change
//! anything by the kernel's word on who it is: root and our own user. The admin address is for
//! whoever is on this host; it refuses what a foreign page in a browser sends, and changes something
//! only for a request with a field that no such page can set ([`admin_address`]).
//!
//! Everything that a peer could hold is limited: connections, one request on each of the socket's,
//! its head, the time for all of it.

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

/// The servers of the control socket and the admin address, and the questions they pass on. Dropping it
/// closes every connection and removes the socket's file.
#[derive(Debug)]
pub(super) struct ControlSocket {
    asks: Asks,
    reloads: mpsc::Receiver<AskReload>,
    questions: mpsc::Receiver<Ask>,
    rehearsals: mpsc::Receiver<Ask>,
    file: Option<OwnFile>,
    servers: JoinSet<()>,
    /// What serves the admin address.
    pages: JoinSet<()>,
}

/// The socket's file, as long as it is ours.
#[derive(Debug)]
struct OwnFile {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
}

/// Why there is no control socket.
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
    /// One that listens nowhere yet.
    pub(super) fn new() -> Self {
        let (reload, reloads) = mpsc::channel(QUEUE);
        let (question, questions) = mpsc::channel(QUEUE);
        let (rehearsal, rehearsals) = mpsc::channel(QUEUE);
        let asks = Asks { reload, question, rehearsal };
        let (servers, pages) = (JoinSet::new(), JoinSet::new());
        Self { asks, reloads, questions, rehearsals, file: None, servers, pages }
    }

    /// Listens at `path`. A socket that a dead process left behind is replaced. Must be called inside a
    /// runtime.
    ///
    /// # Errors
    ///
    /// Another process listens there, or there can be no socket there.
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

    /// Answers on `address`, too, as soon as it can be bound. Must be called inside a runtime.
    pub(super) fn listen(&mut self, address: SocketAddr, admin: Admin) {
        self.pages.spawn(admin_address::serve(address, self.asks.clone(), admin));
    }

    /// Closes the socket, so that the next process can open it. The admin address goes on answering
    /// questions that do not need the control loop, as long as the result is kept.
    pub(super) fn draining(self) -> JoinSet<()> {
        self.pages
    }

    /// The next question; one that needs a load only if it `may_load`. Cancel safe.
    pub(super) async fn next(&mut self, may_load: bool) -> Ask {
        let ask = tokio::select! {
            // A question is answered at once; a load takes a while.
            biased;
            question = self.questions.recv() => question,
            rehearsal = self.rehearsals.recv(), if may_load => rehearsal,
            reload = self.reloads.recv(), if may_load => reload.map(Ask::Reload),
        };
        match ask {
            Some(ask) => ask,
            // A sender of each is ours.
            None => std::future::pending().await,
        }
    }

    /// Everybody else who has asked for a reload by now: the reload that begins next answers them all.
    /// So ten hooks of one renewal cause one reload.
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
        // The file of a process that has replaced it stays.
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests;
