//! Loads under way, each with those who wait for its end.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::control::cause::LoadCause;
use crate::control::loading::Loading;
use crate::control::outcome::LoadOutcome;
use crate::control::socket::Reloaded;
use crate::kube_api::{ApiError, PreparedChange, Undo, View};

/// The load under way; there is one at a time.
#[derive(Debug)]
pub(super) enum UnderWay {
    /// Nothing is changed; the answer says what a reload would come to.
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

/// What a reload is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// A change over the API was written: it will be served, or undone.
    Change(WrittenChange),
    /// Everything is read again; those who asked for it wait.
    All { cause: LoadCause, waiting: Vec<oneshot::Sender<Reloaded>> },
}

/// A change over the API whose files are written.
#[derive(Debug)]
pub(super) struct WrittenChange {
    /// For the log.
    pub label: String,
    pub prepared: PreparedChange,
    pub undo: Undo,
    pub answer: Answer,
}

/// Where the answer to a change goes: what was done, and everything as it is after it.
pub(super) type Answer = oneshot::Sender<Result<(PreparedChange, Arc<View>), ApiError>>;

/// The end of a load; none of it where its thread has died.
#[derive(Debug)]
pub(super) enum Ended {
    Rehearsal(Option<Reloaded>),
    Reload(Option<LoadOutcome>),
}

impl UnderWay {
    /// Waits for the end. Cancel safe, and not to be called again after it has resolved.
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
