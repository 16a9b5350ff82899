//! The first load. No configuration is served yet, so it runs on the control thread, with the steps
//! of a reload.
//!
//! The last good configuration takes the role of the served one: if the files could not replace it,
//! they are refused, and it is served instead.

use std::time::Instant;

use crate::clock;
use crate::control::admission::{self, RunningConfiguration};
use crate::control::attempt::Attempt;
use crate::control::cause::LoadCause;
use crate::control::last_good::LastGood;
use crate::control::loader::{Load, Ready};
use crate::control::outcome::NotServed;
use crate::control::socket::Reloaded;
use crate::control::{CannotStart, Control};

impl Control {
    pub(super) fn first_load(&mut self) -> Result<(), CannotStart> {
        let begun = clock::now();
        let attempt = self.attempt(LoadCause::Start);
        let load = attempt.load();
        self.seen = load.seen.clone();
        self.reloads.diagnostics.set(load.diagnostics.len() as u64);
        let diagnostics = Reloaded::told(&load.diagnostics);
        let kept = attempt.last_good_beside(&load);
        let refusal = match attempt.judge_beside(&load, kept.as_ref()) {
            Err(refusal) => refusal,
            Ok(new_faults) => {
                let served = self.serve_files(&attempt, load, new_faults == 0, begun);
                self.count(served.is_ok(), begun);
                let served = self.as_of_now(served?, begun);
                self.note(LoadCause::Start, served);
                return Ok(());
            }
        };
        self.count(false, begun);
        let Some(kept) = kept else {
            let all = load.diagnostics;
            self.standing.tell_failed(&all);
            return Err(CannotStart::Configuration(all));
        };
        self.standing.tell_refused(&refusal);
        tracing::error!("the files are refused; serving the last good configuration");
        let served = match self.serve_last_good(&attempt, kept, begun) {
            Ok(served) => served,
            // Serving files with a fault is better than serving nothing.
            Err(_) if load.compiled.is_some() => {
                tracing::error!("the last good configuration cannot be served; serving the files");
                self.serve_files(&attempt, load, false, begun)?
            }
            Err(not_served) => return Err(not_served.into()),
        };
        let trouble = format!("the last good configuration is served; {refusal}");
        self.refused(Some(trouble), Some((&refusal).into()));
        let refusal = Some((&refusal).into());
        let served = Reloaded { loaded: false, diagnostics, refusal, ..served };
        self.note(LoadCause::Start, self.as_of_now(served, begun));
        Ok(())
    }

    fn serve_files(
        &mut self,
        attempt: &Attempt,
        load: Load,
        is_good: bool,
        begun: Instant,
    ) -> Result<Reloaded, NotServed> {
        self.standing.tell(&load.diagnostics, self.loader.sources());
        let (load, bound) = attempt.bind(load);
        let bound = bound?;
        let (files, objects) = (load.files, load.objects);
        let faults = load.diagnostics.clone();
        let ready = load.ready().ok_or_else(|| NotServed::faults(&faults))?;
        let replacement = attempt.replacement(ready, bound, is_good)?;
        self.publish(replacement, files, objects, begun);
        let diagnostics = Reloaded::told(&faults);
        Ok(Reloaded { loaded: true, files, objects, diagnostics, ..Reloaded::default() })
    }

    fn serve_last_good(
        &mut self,
        attempt: &Attempt,
        kept: Ready,
        begun: Instant,
    ) -> Result<Reloaded, NotServed> {
        let bound = attempt.sockets.prepare(&kept.compiled.snapshot).map_err(NotServed::Binds)?;
        let (files, objects) = (kept.files, kept.objects);
        let replacement = attempt.replacement(kept, bound, false)?;
        self.publish(replacement, files, objects, begun);
        Ok(Reloaded { loaded: true, files, objects, ..Reloaded::default() })
    }
}

impl Attempt {
    /// Compiles the last good configuration, if there is one and the files differ from it.
    fn last_good_beside(&self, load: &Load) -> Option<Ready> {
        let (settings, files) = self.last_good.as_ref().and_then(LastGood::read)?;
        if load.compiled.is_some() && load.is_of(&settings, &files) {
            return None;
        }
        self.loader.load_kept(settings, &files, &self.previous).ready()
    }

    /// Judges the files as a reload would if the last good configuration was served.
    fn judge_beside(
        &self,
        load: &Load,
        kept: Option<&Ready>,
    ) -> Result<usize, admission::LoadRefusal> {
        let handed_over = self.sockets.handed_over();
        let running = kept.map(|kept| RunningConfiguration {
            snapshot: &kept.compiled.snapshot,
            accepted: &kept.accepted,
            handed_over: &handed_over,
        });
        admission::judge(load, running, self.rules)
    }
}
