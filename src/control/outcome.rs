//! Results of a load.

use std::io;
use std::path::PathBuf;

use crate::config::{Diagnostic, Severity};
use crate::control::admission::LoadRefusal;
use crate::control::cannot_start::CannotStart;
use crate::control::conditions::BadConditions;
use crate::control::loader::{Accepted, Seen};
use crate::control::sockets::{CannotBind, CannotListen, ReadySockets};
use crate::graph::Held;
use crate::kube_api::View;
use crate::snapshot::Snapshot;

/// The result of a load that was meant to replace the served configuration.
#[derive(Debug)]
pub(super) struct LoadOutcome {
    pub seen: Seen,
    /// All faults and warnings, by file and position.
    pub diagnostics: Vec<Diagnostic>,
    pub files: usize,
    pub objects: usize,
    pub result: Result<Box<Replacement>, NotServed>,
}

/// Everything needed to serve a load. No later step can fail.
#[derive(Debug)]
pub(super) struct Replacement {
    pub snapshot: Snapshot,
    pub sockets: ReadySockets,
    pub accepted: Accepted,
    /// The Gateway that holds each address of the pool.
    pub held: Held,
    pub conditions: BadConditions,
    /// The objects that the API returns.
    pub view: View,
    /// The directory that the API writes to; `None` if the settings name no directory.
    pub api_dir: Option<PathBuf>,
}

/// The reason why a load is not served.
#[derive(Debug)]
pub(super) enum NotServed {
    Binds(Vec<CannotBind>),
    /// No file descriptor is free for a worker's copy of a socket.
    Copies(io::Error),
    Files(LoadRefusal),
    /// The load itself did not finish.
    Load(String),
}

impl LoadOutcome {
    /// The result of a load that did not finish. `seen` is that of the previous load.
    pub(super) fn failed(seen: Seen, why: String) -> Self {
        let result = Err(NotServed::Load(why));
        Self { seen, diagnostics: Vec::new(), files: 0, objects: 0, result }
    }
}

impl NotServed {
    /// Returns a refusal because of the errors among `diagnostics`.
    pub(super) fn faults(diagnostics: &[Diagnostic]) -> Self {
        let errors = diagnostics.iter().filter(|one| one.severity == Severity::Error);
        Self::Files(LoadRefusal { causes: errors.cloned().collect(), ..LoadRefusal::default() })
    }
}

impl From<CannotListen> for NotServed {
    fn from(error: CannotListen) -> Self {
        match error {
            CannotListen::Bind(bind) => Self::Binds(vec![bind]),
            CannotListen::Copies(error) => Self::Copies(error),
        }
    }
}

impl From<NotServed> for CannotStart {
    fn from(not_served: NotServed) -> Self {
        match not_served {
            NotServed::Binds(failed) => Self::Binds(failed),
            NotServed::Copies(source) => Self::Copies { source },
            NotServed::Files(LoadRefusal { causes, .. }) => Self::Configuration(causes),
            NotServed::Load(why) => Self::Load(why),
        }
    }
}
