//! A trial load (`dry_run`): reports the result that a reload would have, without one.

use std::time::Instant;

use tokio::sync::oneshot;

use crate::clock;
use crate::control::Control;
use crate::control::attempt::Attempt;
use crate::control::cause::LoadCause;
use crate::control::loading::{Abandoned, LOADER_DIED, Loading, StillWanted};
use crate::control::socket::{RefusalReport, Reloaded};
use crate::control::under_way::UnderWay;

impl Control {
    /// Loads and judges the files, and answers with the result that a reload would have. No other
    /// load may be under way.
    pub(super) fn rehearse(&mut self, allow_removal: bool, answer: oneshot::Sender<Reloaded>) {
        let begun = clock::now();
        let attempt = self.attempt(LoadCause::Asked { allow_removal });
        match Loading::start(move |wanted| attempt.rehearse(wanted)) {
            Ok(loading) => self.under_way = Some(UnderWay::Rehearsal { answer, begun, loading }),
            Err(why) => {
                let failed = Reloaded { refused: Some(why), ..Reloaded::default() };
                let _ = answer.send(self.as_of_now(failed, begun));
            }
        }
    }

    /// Answers with the result of a trial load; `None` if its thread has panicked.
    pub(super) fn rehearsed(
        &self,
        would: Option<Reloaded>,
        answer: oneshot::Sender<Reloaded>,
        begun: Instant,
    ) {
        let died = || Reloaded { refused: Some(LOADER_DIED.into()), ..Reloaded::default() };
        let _ = answer.send(self.as_of_now(would.unwrap_or_else(died), begun));
    }
}

impl Attempt {
    fn rehearse(&self, wanted: &StillWanted<'_>) -> Result<Reloaded, Abandoned> {
        let load = self.load();
        wanted.check()?;
        let refusal = self.judge(&load).err();
        Ok(Reloaded {
            loaded: refusal.is_none(),
            files: load.files,
            objects: load.objects,
            diagnostics: Reloaded::told(&load.diagnostics),
            refusal: refusal.as_ref().map(RefusalReport::from),
            ..Reloaded::default()
        })
    }
}
