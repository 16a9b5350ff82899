//! Results of loads: for the log, for metrics, and for clients.

use std::time::{Instant, SystemTime};

use crate::clock;
use crate::control::Control;
use crate::control::cannot_start::{NO_DESCRIPTOR, list};
use crate::control::cause::LoadCause;
use crate::control::outcome::NotServed;
use crate::control::socket::{self, Past, Reloaded, Serving};

/// The number of loads that are kept.
const PAST: usize = 20;

impl Control {
    /// Logs why a load is not served, and keeps the reason for later requests.
    pub(super) fn tell(&mut self, not_served: &NotServed, cause: LoadCause) -> Reloaded {
        let refusal = match not_served {
            NotServed::Files(refusal) => {
                self.standing.tell_refused(refusal);
                Some(socket::RefusalReport::from(refusal))
            }
            NotServed::Binds(_) | NotServed::Copies(_) | NotServed::Load(_) => None,
        };
        let refused = match not_served {
            NotServed::Binds(failed) => Some(list(failed)),
            NotServed::Copies(error) => Some(format!("{NO_DESCRIPTOR}: {error}")),
            NotServed::Files(_) => None,
            NotServed::Load(why) => Some(why.clone()),
        };
        if let Some(refused) = &refused {
            tracing::error!("{refused}");
        }
        // A change over the API is undone, so no problem remains.
        if cause != LoadCause::Api {
            let trouble = match not_served {
                NotServed::Files(refusal) => Some(refusal.to_string()),
                NotServed::Binds(_) | NotServed::Copies(_) | NotServed::Load(_) => refused.clone(),
            };
            self.refused(trouble, refusal.clone());
        }
        Reloaded { loaded: false, refused, refusal, ..Reloaded::default() }
    }

    /// Stores why the files are not served; `None` if they are.
    pub(super) fn refused(
        &mut self,
        trouble: Option<String>,
        refusal: Option<socket::RefusalReport>,
    ) {
        self.reloads.files_refused.set(u64::from(trouble.is_some()));
        (self.trouble, self.refusal) = (trouble, refusal);
    }

    /// Adds what is served now, and the duration of the load.
    pub(super) fn as_of_now(&self, reloaded: Reloaded, begun: Instant) -> Reloaded {
        let snapshot = self.gateway.snapshot.load();
        let took = clock::now().saturating_duration_since(begun);
        Reloaded {
            serving: Serving::new(snapshot.generation, snapshot.counts),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            ..reloaded
        }
    }

    /// Stores the result of a load, for `GET /reloads`.
    pub(super) fn note(&mut self, cause: LoadCause, came_to: Reloaded) {
        if let Some(before) = self.past.front_mut() {
            before.came_to.diagnostics = Vec::new();
        }
        let at = jiff::Timestamp::try_from(clock::wall()).unwrap_or_default();
        let at = format!("{at:.0}");
        self.past.push_front(Past { at, cause: cause.word().into(), came_to });
        self.past.truncate(PAST);
    }

    /// Counts a load in the metrics.
    pub(super) fn count(&self, loaded: bool, begun: Instant) {
        let reloads = &self.reloads;
        let took = clock::now().saturating_duration_since(begun);
        reloads.last_took.set(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        reloads.last_was_loaded.set(u64::from(loaded));
        if loaded {
            reloads.loaded.one_more();
            let since = clock::wall().duration_since(SystemTime::UNIX_EPOCH);
            reloads.last_loaded_at.set(since.map_or(0, |since| since.as_secs()));
        } else {
            reloads.refused.one_more();
        }
    }
}
