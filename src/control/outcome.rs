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

/// What came of a load that was to replace what serves.
#[derive(Debug)]
pub(super) struct LoadOutcome {
    pub seen: Seen,
    /// All faults and warnings, by file and place.
    pub diagnostics: Vec<Diagnostic>,
    pub files: usize,
    pub objects: usize,
    pub result: Result<Box<Replacement>, NotServed>,
}

/// Everything that is needed to serve a load. Nothing of it can fail any more.
#[derive(Debug)]
pub(super) struct Replacement {
    pub snapshot: Snapshot,
    pub sockets: ReadySockets,
    pub accepted: Accepted,
    /// Which Gateway holds which address of the pool.
    pub held: Held,
    pub conditions: BadConditions,
    /// What the API shows.
    pub view: View,
    /// Where the API writes; none where nothing is known of directories.
    pub api_dir: Option<PathBuf>,
}

/// Why a load is not served.
#[derive(Debug)]
pub(super) enum NotServed {
    Binds(Vec<CannotBind>),
    /// No descriptor is free for a worker's copy of a socket.
    Copies(io::Error),
    Files(LoadRefusal),
    /// The load itself did not come to an end.
    Load(String),
}

impl LoadOutcome {
    /// That of a load that did not come to an end. `seen` is of the one before.
    pub(super) fn failed(seen: Seen, why: String) -> Self {
        let result = Err(NotServed::Load(why));
        Self { seen, diagnostics: Vec::new(), files: 0, objects: 0, result }
    }
}

impl NotServed {
    /// The files are to blame: the errors among `diagnostics`.
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
