//! An attempt to replace the served configuration, up to the point after which nothing can fail.

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

/// The inputs of a load: a view of the running gateway. A load changes none of it, so it can run on
/// a separate thread.
#[derive(Debug)]
pub(super) struct Attempt {
    pub cause: LoadCause,
    pub loader: Arc<Loader>,
    pub previous: Previous,
    /// `None` before the first load.
    pub accepted: Option<Arc<Accepted>>,
    pub view: Arc<View>,
    pub sockets: Sockets,
    pub workers: usize,
    pub rules: AdmissionRules,
    pub last_good: Option<LastGood>,
}

impl Attempt {
    /// Reads and compiles the files. For a change over the API only the API's directory is read, so
    /// that no half-written file of the user is loaded.
    pub(super) fn load(&self) -> Load {
        match (self.cause, &self.accepted) {
            (LoadCause::Api, Some(accepted)) => self.loader.load_api(accepted, &self.previous),
            _ => self.loader.load(&self.previous),
        }
    }

    /// Binds the sockets of a load. If another process has a port and a configuration is served
    /// already, the load is compiled again without the listeners of that port.
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

    /// Judges whether a load may replace the served configuration, and returns the number of new
    /// faults.
    pub(super) fn judge(&self, load: &Load) -> Result<usize, LoadRefusal> {
        // Validation has refused what an API server would refuse; everything else becomes
        // conditions.
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

    /// Makes the sockets of a load listen, and prepares everything else. If `is_good`, the files
    /// are kept as the last good configuration.
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

/// True if serving without these binds is better than a refused load: a configuration is served
/// already, and its updates should not wait for these ports.
fn can_do_without(running: &Snapshot, failed: &[CannotBind]) -> bool {
    running.generation > 0 && failed.iter().all(|one| !one.ours)
}
