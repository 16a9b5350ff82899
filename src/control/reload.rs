//! The nine steps of a reload: either everything changes, or nothing does.
//!
//! Steps 1 and 2 ([`Control::begin`]) and 8 and 9 ([`Control::end`]) are quick, and run on the
//! control loop. Steps 3 to 7 ([`Attempt::run`]) take longer, depending on the size of the
//! configuration, and run on a separate thread, so the loop keeps answering. Only one load runs at
//! a time; further requests wait for its end.

use std::sync::Arc;
use std::time::Instant;

use crate::clock;
use crate::control::Control;
use crate::control::admission::AdmissionRules;
use crate::control::attempt::Attempt;
use crate::control::cause::LoadCause;
use crate::control::loader::Previous;
use crate::control::loading::{Abandoned, LOADER_DIED, Loading, StillWanted};
use crate::control::outcome::{LoadOutcome, NotServed};
use crate::control::socket::Reloaded;
use crate::control::under_way::{Purpose, UnderWay};

impl Control {
    /// Begins a reload. No other load may be under way.
    pub(super) fn begin(&mut self, purpose: Purpose) {
        let (begun, cause) = (clock::now(), purpose.cause());
        self.is_own_change = cause == LoadCause::Api;
        // 1. Send RELOADING=1 to the service manager.
        self.notify.reloading();
        tracing::info!(cause = cause.word(), "{}", cause.phrase());
        // 2. Read certificates again, on their own: a broken YAML file must never keep an old
        //    certificate in service.
        self.reload_certificates(0);
        self.has_newer_certificates = false;
        let attempt = self.attempt(cause);
        match Loading::start(move |wanted| attempt.run(wanted)) {
            Ok(loading) => self.under_way = Some(UnderWay::Reload { purpose, begun, loading }),
            Err(why) => {
                self.end(purpose, LoadOutcome::failed(self.seen.clone(), why), begun);
            }
        }
    }
}

impl Attempt {
    /// The steps that take long, and those that can fail.
    fn run(&self, wanted: &StillWanted<'_>) -> Result<LoadOutcome, Abandoned> {
        // 3. Read every file, and collect all faults.
        // 4. Resolve references, and compile the next snapshot.
        let load = self.load();
        wanted.check()?;
        // 5. Bind new sockets.
        let (load, bound) = self.bind(load);
        // 6. Judge whether the load may replace the served configuration.
        let judged = bound.and_then(|bound| match self.judge(&load) {
            Ok(new_faults) => Ok((bound, new_faults)),
            Err(refusal) => Err(NotServed::Files(refusal)),
        });
        wanted.check()?;
        let (seen, diagnostics) = (load.seen.clone(), load.diagnostics.clone());
        let (files, objects) = (load.files, load.objects);
        // 7. Listen on new sockets, and copy them for each worker. From here on nothing can fail.
        let result = judged.and_then(|(bound, new_faults)| {
            let ready = load.ready().ok_or_else(|| NotServed::faults(&diagnostics))?;
            self.replacement(ready, bound, new_faults == 0).map(Box::new)
        });
        Ok(LoadOutcome { seen, diagnostics, files, objects, result })
    }
}

impl Control {
    /// Ends a reload.
    pub(super) fn end(&mut self, purpose: Purpose, outcome: LoadOutcome, begun: Instant) {
        // 8. Publish the snapshot, accept from new sockets on the workers, and close old ones; or
        //    change nothing.
        let cause = purpose.cause();
        let reloaded = self.serve(outcome, cause, begun);
        // 9. Send READY=1 to the service manager, and answer the waiting clients.
        self.notify.ready(&self.status_line());
        let reloaded = self.as_of_now(reloaded, begun);
        self.note(cause, reloaded.clone());
        match purpose {
            Purpose::Change(change) => self.changed(*change, reloaded),
            Purpose::All { waiting, .. } => {
                for answer in waiting {
                    // A client that no longer waits has dropped its receiver.
                    let _ = answer.send(reloaded.clone());
                }
            }
        }
    }

    /// Ends a reload. If its thread has panicked, the load counts as refused.
    pub(super) fn ended(&mut self, purpose: Purpose, outcome: Option<LoadOutcome>, begun: Instant) {
        let died = || LoadOutcome::failed(self.seen.clone(), LOADER_DIED.into());
        let outcome = outcome.unwrap_or_else(died);
        self.end(purpose, outcome, begun);
    }

    fn serve(&mut self, outcome: LoadOutcome, cause: LoadCause, begun: Instant) -> Reloaded {
        let LoadOutcome { seen, diagnostics, files, objects, result } = outcome;
        self.seen = seen;
        self.reloads.diagnostics.set(diagnostics.len() as u64);
        let told = Reloaded::told(&diagnostics);
        self.count(result.is_ok(), begun);
        match result {
            Ok(replacement) => {
                self.standing.tell(&diagnostics, self.loader.sources());
                self.publish(*replacement, files, objects, begun);
                // A change over the API does not affect the state of files that were refused.
                if cause != LoadCause::Api {
                    self.refused(None, None);
                }
                let loaded = Reloaded { loaded: true, files, objects, ..Reloaded::default() };
                Reloaded { diagnostics: told, ..loaded }
            }
            Err(not_served) => {
                let refused = self.tell(&not_served, cause);
                tracing::error!("reload failed; still serving the previous configuration");
                Reloaded { diagnostics: told, ..refused }
            }
        }
    }

    /// Abandons the load under way, if any, because the process exits. Returns true if a client
    /// waits for its result.
    pub(super) fn abandon(&mut self) -> bool {
        let Some(under_way) = self.under_way.take() else { return false };
        tracing::info!("load abandoned");
        match under_way {
            UnderWay::Rehearsal { .. } => true,
            UnderWay::Reload { purpose, .. } => {
                // Without READY=1 after RELOADING=1, systemd would leave the unit in the reloading
                // state.
                self.notify.ready(&self.status_line());
                match purpose {
                    Purpose::All { waiting, .. } => !waiting.is_empty(),
                    Purpose::Change(change) => {
                        // It is unknown whether the change could be served.
                        change.undo.undo();
                        true
                    }
                }
            }
        }
    }

    pub(super) fn attempt(&self, cause: LoadCause) -> Attempt {
        let previous = Previous {
            snapshot: self.gateway.snapshot.load(),
            held: self.held.clone(),
            seen: self.seen.clone(),
        };
        Attempt {
            cause,
            loader: Arc::clone(&self.loader),
            previous,
            accepted: self.accepted.clone(),
            view: self.api.view(),
            sockets: self.sockets.clone(),
            workers: self.workers.count(),
            rules: AdmissionRules { policy: self.policy, allow_removal: cause.allows_removal() },
            last_good: self.last_good.clone(),
        }
    }
}
