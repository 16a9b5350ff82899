//! The objects of this gateway over an API like that of Kubernetes: `kubectl` without Kubernetes.
//!
//! ```text
//!  front    a request in, a response out; server   on a loopback address; token
//!  call     what is asked: path, query, form
//!  decide   what is done about it; discovery, watch, selector: what is read
//!  answer   status and body; presenting, forms, table: how objects are shown
//!  change   what is asked for; write   what it comes to, as files; body, patch, apply, lists,
//!           defaults, secrets
//!  view     everything there is, as of one load; services
//!  refused  the errors of an API server
//! ```
//!
//! Files stay the truth. Each load makes a [`View`] of what stands in them, from which every read is
//! answered; a change is written to a file, and answered once that is loaded. No request that the
//! gateway serves comes through here, and nothing here knows a route from a listener: an object is
//! JSON that `config` has held against the rules of its kind, with the status that `graph` gives it.
//!
//! Everything that a peer could hold is limited: connections, bodies, watches, the history that they
//! read, the time for all of it.

mod answer;
mod apply;
mod body;
mod call;
mod change;
mod decide;
mod defaults;
mod discovery;
mod files;
mod forms;
mod front;
mod kinds;
mod lists;
mod presenting;
mod refused;
mod secrets;
mod selector;
mod server;
mod services;
mod table;
mod token;
mod view;
mod watch;
mod write;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinSet;

use crate::clock;

pub(crate) use change::{Change, PreparedChange};
pub(crate) use decide::ApiRules;
pub(crate) use files::{Undo, change};
pub(crate) use front::{ChangeRequest, Front};
pub(crate) use lists::{ListShape, shapes};
pub(crate) use refused::ApiError;
pub(crate) use server::{CannotListen, Listen};
pub(crate) use view::{SourceObject, View};

use front::QUEUE;

/// The API of one gateway: its view, which the control loop renews, and those who serve it.
#[derive(Debug)]
pub(crate) struct KubeApi {
    views: channel::Sender<Arc<View>>,
    front: Front,
    tasks: JoinSet<()>,
}

impl KubeApi {
    /// An API that shows nothing yet; the changes that are asked of it come out at the other end.
    pub(crate) fn new(rules: ApiRules) -> (Self, mpsc::Receiver<ChangeRequest>) {
        let (views, seen) = channel::channel(Arc::new(View::new(now())));
        let (changes, asked) = mpsc::channel(QUEUE);
        let front = Front::new(seen, changes, rules);
        (Self { views, front, tasks: JoinSet::new() }, asked)
    }

    /// Who answers requests.
    pub(crate) fn front(&self) -> &Front {
        &self.front
    }

    /// Serves on a loopback address, too. Needs a runtime around it.
    ///
    /// # Errors
    ///
    /// There can be no socket, token or certificate.
    pub(crate) fn listen(&mut self, listen: &Listen) -> Result<SocketAddr, CannotListen> {
        server::listen(listen, self.front.clone(), &mut self.tasks)
    }

    /// Everything as of the last load.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.views.borrow())
    }

    /// Shows this from now on.
    pub(crate) fn show(&self, view: View) {
        self.views.send_replace(Arc::new(view));
    }

    /// Ends every conversation.
    pub(crate) fn close(&mut self) {
        self.tasks.abort_all();
    }
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::try_from(clock::wall()).unwrap_or_default()
}
