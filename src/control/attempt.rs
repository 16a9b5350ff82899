//! An attempt to replace what serves, up to the point after which nothing can fail.

use std::sync::Arc;

use crate::clock;
use crate::control::admission::{self, AdmissionRules, LoadRefusal, RunningConfiguration};
use crate::control::cause::LoadCause;
use crate::control::conditions::BadConditions;
use crate::control::last_good::LastGood;
use crate::control::loader::{Accepted, Load, Loader, Previous, Ready};
use crate::control::outcome::{NotServed, Replacement};
use crate::control::sockets::{BoundSockets, CannotBind, Sockets};
use crate::graph::ObjectStatus;
use crate::kube_api::View;
use crate::snapshot::Snapshot;

/// What a load needs to know of what serves. It changes nothing of that, so it can run on a thread of
/// its own.
#[derive(Debug)]
pub(super) struct Attempt {
    pub cause: LoadCause,
    pub loader: Arc<Loader>,
    pub previous: Previous,
    /// None before the first load.
    pub accepted: Option<Arc<Accepted>>,
    pub view: Arc<View>,
    pub sockets: Sockets,
    pub workers: usize,
    pub rules: AdmissionRules,
    pub last_good: Option<LastGood>,
}

impl Attempt {
    /// Reads the files and compiles what they say. A change over the API takes no part of a file that
    /// somebody is writing, so only the directory of the API is read for it.
    pub(super) fn load(&self) -> Load {
        match (self.cause, &self.accepted) {
            (LoadCause::Api, Some(accepted)) => self.loader.load_api(accepted, &self.previous),
            _ => self.loader.load(&self.previous),
        }
    }

    /// Binds the sockets of a load. Where another process has a port and something serves already, the
    /// load goes on without the listeners of that port: what was read is compiled again.
    pub(super) fn bind(&self, load: Load) -> (Load, Result<BoundSockets, NotServed>) {
        let Some(compiled) = &load.compiled else { return (load, Ok(BoundSockets::default())) };
        let failed = match self.sockets.prepare(&compiled.snapshot) {
            Ok(bound) => return (load, Ok(bound)),
            Err(failed) => failed,
        };
        if !can_do_without(&self.previous.snapshot, &failed) {
            return (load, Err(NotServed::Binds(failed)));
        }
        let load = self.loader.without(load, &self.previous, &failed);
        let bound = load.compiled.as_ref().map(|next| self.sockets.prepare(&next.snapshot));
        let bound = bound.unwrap_or_else(|| Ok(BoundSockets::default()));
        (load, bound.map_err(NotServed::Binds))
    }

    /// Judges whether a load may replace what serves, and counts its new faults.
    pub(super) fn judge(&self, load: &Load) -> Result<usize, LoadRefusal> {
        // Validation has refused what an API server would; everything else becomes conditions.
        if self.cause == LoadCause::Api && load.compiled.is_some() {
            return Ok(0);
        }
        let handed_over = &self.sockets.handed_over();
        let running = self.accepted.as_ref().map(|accepted| RunningConfiguration {
            snapshot: &self.previous.snapshot,
            accepted,
            handed_over,
        });
        admission::judge(load, running, self.rules)
    }

    /// Has the sockets of a load listen, and gets everything else ready. A load that `is_good` is kept
    /// for a start at which the files cannot be served.
    pub(super) fn replacement(
        &self,
        ready: Ready,
        bound: BoundSockets,
        is_good: bool,
    ) -> Result<Replacement, NotServed> {
        let sockets = self.sockets.listen(bound, self.workers)?;
        // From here on nothing can fail.
        let Ready { compiled, accepted, sources, api_dir, .. } = ready;
        if let (true, Some(last_good)) = (is_good, &self.last_good)
            && let Err(error) = last_good.keep(&accepted.settings, &accepted.files)
        {
            tracing::warn!(%error, "the configuration cannot be kept for a start without it");
        }
        let statuses: Vec<ObjectStatus> = compiled.statuses.into_objects().collect();
        let mut conditions = BadConditions::default();
        statuses.iter().for_each(|status| conditions.add(status));
        let now = jiff::Timestamp::try_from(clock::wall()).unwrap_or_default();
        let view = self.view.next(sources, statuses, api_dir.as_deref(), now);
        let (snapshot, held) = (compiled.snapshot, compiled.held);
        Ok(Replacement { snapshot, sockets, accepted, held, conditions, view, api_dir })
    }
}

/// True if it is better to serve without these binds than to refuse the load: something serves already
/// that should not wait for them.
fn can_do_without(running: &Snapshot, failed: &[CannotBind]) -> bool {
    running.generation > 0 && failed.iter().all(|one| !one.ours)
}
