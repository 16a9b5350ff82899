//! The silence timeout for streams, which the sweep over connections does not cover.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::Sleep;

use crate::clock::coarse_now;
use crate::downstream::Millis;

/// A silence timeout. Its timer is armed by the first wait and reset only when it fires, so flowing
/// bytes cost nothing.
#[derive(Debug)]
pub(super) struct Stall {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, timer: None }
    }

    /// Returns true if nothing has moved since `since` for the limit. Otherwise, the task is woken
    /// when the limit may have passed.
    pub(super) fn poll(&mut self, since: Millis, cx: &mut Context<'_>) -> bool {
        let limit = u64::try_from(self.limit.as_millis()).unwrap_or(Millis::MAX);
        loop {
            let rested = coarse_now().saturating_sub(since);
            let Some(left) = limit.checked_sub(rested).filter(|left| *left > 0) else {
                return true;
            };
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(left))));
            if timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.timer = None;
        }
    }
}
