//! Loads under way, each with the clients that wait for its end.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::control::cause::LoadCause;
use crate::control::loading::Loading;
use crate::control::outcome::LoadOutcome;
use crate::control::socket::Reloaded;
use crate::kube_api::{ApiError, PreparedChange, Undo, View};

/// The load under way; there is at most one.
#[derive(Debug)]
pub(super) enum UnderWay {
    /// A trial load. It changes nothing; the answer has the result that a reload would have.
    Rehearsal {
        answer: oneshot::Sender<Reloaded>,
        begun: Instant,
        loading: Loading<Reloaded>,
    },
    Reload {
        purpose: Purpose,
        begun: Instant,
        loading: Loading<LoadOutcome>,
    },
}

/// The purpose of a reload.
#[derive(Debug)]
pub(super) enum Purpose {
    /// A change over the API was written: it is served, or undone.
    Change(Box<WrittenChange>),
    /// Everything is read again, for the clients in `waiting`.
    All { cause: LoadCause, waiting: Vec<oneshot::Sender<Reloaded>> },
}

/// A change over the API whose files are written.
#[derive(Debug)]
pub(super) struct WrittenChange {
    /// Used in the log.
    pub label: String,
    pub prepared: PreparedChange,
    pub undo: Undo,
    pub answer: Answer,
}

/// The receiver of the answer to a change: what was done, and all objects after it.
pub(super) type Answer = oneshot::Sender<Result<(PreparedChange, Arc<View>), ApiError>>;

/// The end of a load; `None` if its thread has panicked.
#[derive(Debug)]
pub(super) enum Ended {
    Rehearsal(Option<Reloaded>),
    Reload(Option<LoadOutcome>),
}

impl UnderWay {
    /// Waits for the end. Cancel safe. Must not be called again after it has resolved.
    pub(super) async fn ended(&mut self) -> Ended {
        match self {
            Self::Rehearsal { loading, .. } => Ended::Rehearsal(loading.done().await),
            Self::Reload { loading, .. } => Ended::Reload(loading.done().await),
        }
    }
}

impl Purpose {
    pub(super) fn cause(&self) -> LoadCause {
        match self {
            Self::All { cause, .. } => *cause,
            Self::Change(_) => LoadCause::Api,
        }
    }
}
