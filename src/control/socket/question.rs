//! Questions that the control loop answers.

use tokio::sync::oneshot;

use crate::control::certificates::Certificates;
use crate::control::conditions::BadConditions;

use super::words::{Draining, ReloadHistory, Reloaded, StatusReport};

/// What somebody wants of the control loop, and where the answer goes.
#[derive(Debug)]
pub(in crate::control) enum Ask {
    Certificates(oneshot::Sender<Certificates>),
    Conditions(oneshot::Sender<BadConditions>),
    Drain(oneshot::Sender<Draining>),
    /// What a reload would come to.
    Rehearse {
        allow_removal: bool,
        answer: oneshot::Sender<Reloaded>,
    },
    Reload(AskReload),
    Reloads(oneshot::Sender<ReloadHistory>),
    Status(oneshot::Sender<StatusReport>),
}

/// A reload that is asked for.
#[derive(Debug)]
pub(in crate::control) struct AskReload {
    /// What is gone is meant to be.
    pub allow_removal: bool,
    /// None where nobody waits for the answer.
    pub answer: Option<oneshot::Sender<Reloaded>>,
}
