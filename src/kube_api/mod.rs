//! An API like that of Kubernetes for the objects of this gateway: `kubectl` without Kubernetes.
//!
//! ```text
//!  front    HTTP requests and responses; server   listener on a loopback address; token
//!  call     the parts of a request: path, query, form
//!  decide   the decision about a call; discovery, watch, selector: reads
//!  answer   status and body; presenting, forms, table: presentation of objects
//!  change   the requested change; write   its result, as files; body, patch, apply, lists,
//!           defaults, secrets
//!  view     all objects, as of one load; item_json, services
//!  refused  the errors of an API server
//! ```
//!
//! Files remain the source of truth. Each load makes a [`View`] of their contents, from which every
//! read is answered. A change is written to a file, and answered after that file is loaded. No
//! proxied request passes through this module, and nothing in it depends on the meaning of a route
//! or listener: an object is JSON that `config` has checked against the rules of its kind, with the
//! status from `graph`.
//!
//! Everything that a client could occupy is limited: connections, bodies, watches and their
//! history, and the time for each.

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
mod item_json;
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
pub(crate) use defaults::defaults;
pub(crate) use files::{Undo, change};
pub(crate) use front::{ChangeRequest, Front};
pub(crate) use lists::{ListShape, shapes};
pub(crate) use refused::ApiError;
pub(crate) use server::{ApiCannotListen, Listen};
pub(crate) use view::{SourceObject, View};

use front::QUEUE;

/// The API of one gateway: its view, which the control loop renews, and the tasks that serve it.
#[derive(Debug)]
pub(crate) struct KubeApi {
    views: channel::Sender<Arc<View>>,
    front: Front,
    tasks: JoinSet<()>,
}

impl KubeApi {
    /// Creates an API with an empty view. The receiver yields the requested changes.
    pub(crate) fn new(rules: ApiRules) -> (Self, mpsc::Receiver<ChangeRequest>) {
        let (views, seen) = channel::channel(Arc::new(View::new(now())));
        let (changes, asked) = mpsc::channel(QUEUE);
        let front = Front::new(seen, changes, rules);
        (Self { views, front, tasks: JoinSet::new() }, asked)
    }

    /// Returns the request handler.
    pub(crate) fn front(&self) -> &Front {
        &self.front
    }

    /// Also serves the API on a loopback address. Needs to be called within a runtime.
    ///
    /// # Errors
    ///
    /// The socket, the token or the certificate cannot be created.
    pub(crate) fn listen(&mut self, listen: &Listen) -> Result<SocketAddr, ApiCannotListen> {
        server::listen(listen, self.front.clone(), &mut self.tasks)
    }

    /// Returns the view of the last load.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.views.borrow())
    }

    /// Makes `view` the current one.
    pub(crate) fn show(&self, view: View) {
        self.views.send_replace(Arc::new(view));
    }

    /// Stops the listener and aborts its connections.
    pub(crate) fn close(&mut self) {
        self.tasks.abort_all();
    }
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::try_from(clock::wall()).unwrap_or_default()
}
