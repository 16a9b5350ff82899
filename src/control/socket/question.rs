//! Requests that the control loop answers.

use tokio::sync::oneshot;

use crate::control::certificates::Certificates;
use crate::control::conditions::BadConditions;

use super::words::{Draining, ReloadHistory, Reloaded, StatusReport};

/// A request to the control loop, with the sender for the answer.
#[derive(Debug)]
pub(in crate::control) enum Ask {
    Certificates(oneshot::Sender<Certificates>),
    Conditions(oneshot::Sender<BadConditions>),
    Drain(oneshot::Sender<Draining>),
    /// A trial load: the result that a reload would have.
    Rehearse {
        allow_removal: bool,
        answer: oneshot::Sender<Reloaded>,
    },
    Reload(AskReload),
    Reloads(oneshot::Sender<ReloadHistory>),
    Status(oneshot::Sender<StatusReport>),
}

/// A request for a reload.
#[derive(Debug)]
pub(in crate::control) struct AskReload {
    /// True if missing objects were removed on purpose.
    pub allow_removal: bool,
    /// `None` if the client does not wait for the answer.
    pub answer: Option<oneshot::Sender<Reloaded>>,
}
