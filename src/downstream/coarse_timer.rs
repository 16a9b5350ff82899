//! Timers that the worker's sweep checks, for limits of a second and more.
//!
//! A timer of the runtime takes a lock and a clock read when it is armed and a lock when it is
//! dropped, which nearly every timer of a request is. A timer here is a place in a list of its
//! worker: the sweep, which runs anyway, looks through the list and wakes the tasks that are late.
//! It never expires early, and up to two sweeps late.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::coarse_now;
use crate::downstream::connection_watch::Millis;

/// Interval between two sweeps of a worker.
pub(crate) const SWEEP: Duration = Duration::from_millis(100);

/// Limits below this are exact: the runtime keeps them.
const EXACT_BELOW: Duration = Duration::from_secs(1);

thread_local! {
    static TIMERS: RefCell<Timers> = const { RefCell::new(Timers::new()) };
}

/// Resolves after `limit`: exactly if it is below a second, else up to two sweeps later.
///
/// Only for the tasks of workers: on other threads nothing sweeps.
pub(crate) async fn sleep(limit: Duration) {
    if limit < EXACT_BELOW {
        // Boxed, because this is rare and its timer is larger than the rest.
        return Box::pin(tokio::time::sleep(limit)).await;
    }
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(Millis::MAX);
    // The present time is between that of the last sweep and that of the next.
    let sweep_ms = u64::try_from(SWEEP.as_millis()).unwrap_or(Millis::MAX);
    let due = coarse_now().saturating_add(limit_ms).saturating_add(sweep_ms);
    CoarseTimer { due, place: None }.await;
}

/// Wakes the tasks of this thread whose timers have expired at `now`. Each sweep calls it.
pub(crate) fn wake_expired(now: Millis) {
    TIMERS.with_borrow(|timers| {
        for timer in timers.list.iter().flatten().filter(|timer| timer.due <= now) {
            timer.waker.wake_by_ref();
        }
    });
}

/// A timer of one task. It must be polled and dropped on one thread, as every task of a worker is.
#[derive(Debug)]
struct CoarseTimer {
    due: Millis,
    /// Its place in the list; `None` before the first poll.
    place: Option<usize>,
}

impl Future for CoarseTimer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if coarse_now() >= self.due {
            return Poll::Ready(());
        }
        TIMERS.with_borrow_mut(|timers| match self.place {
            None => self.place = Some(timers.add(self.due, cx.waker())),
            Some(place) => timers.renew(place, cx.waker()),
        });
        Poll::Pending
    }
}

impl Drop for CoarseTimer {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            // The thread-local values of a worker may be destroyed before its runtime.
            let _ = TIMERS.try_with(|timers| timers.borrow_mut().remove(place));
        }
    }
}

/// The timers of one thread.
#[derive(Debug)]
struct Timers {
    list: Vec<Option<Timer>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Timer {
    due: Millis,
    waker: Waker,
}

impl Timers {
    const fn new() -> Self {
        Self { list: Vec::new(), free: Vec::new() }
    }

    fn add(&mut self, due: Millis, waker: &Waker) -> usize {
        let timer = Some(Timer { due, waker: waker.clone() });
        match self.free.pop() {
            Some(place) => {
                self.list[place] = timer;
                place
            }
            None => {
                self.list.push(timer);
                self.list.len() - 1
            }
        }
    }

    fn renew(&mut self, place: usize, waker: &Waker) {
        if let Some(Some(timer)) = self.list.get_mut(place) {
            timer.waker.clone_from(waker);
        }
    }

    fn remove(&mut self, place: usize) {
        if self.list.get_mut(place).and_then(Option::take).is_some() {
            self.free.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::task::yield_now;

    use super::*;
    use crate::clock::{self, set_coarse_now};

    fn count() -> usize {
        TIMERS.with_borrow(|timers| timers.list.iter().flatten().count())
    }

    #[tokio::test]
    async fn a_timer_expires_at_a_sweep_and_never_early() {
        // Beyond the time that other tests set, and below the limits of a head in them.
        set_coarse_now(6000);
        let begun = coarse_now();
        let mut timers = tokio::task::JoinSet::new();
        for limit in [1000, 3000, 2000] {
            timers.spawn(async move {
                sleep(Duration::from_millis(limit)).await;
                limit
            });
        }
        yield_now().await;
        assert_eq!(count(), 3);
        // (time of a sweep, the limit that has expired since the sweep before)
        for (now, expired) in
            [(1000, None), (1099, None), (1100, Some(1000)), (2099, None), (2200, Some(2000))]
        {
            set_coarse_now(begun + now);
            wake_expired(begun + now);
            yield_now().await;
            let ended = timers.try_join_next().map(Result::unwrap);
            assert_eq!(ended, expired, "at {now}");
        }
        timers.abort_all();
        while timers.join_next().await.is_some() {}
        assert_eq!(count(), 0, "a dropped timer leaves its place");
    }

    #[tokio::test]
    async fn a_limit_below_a_second_needs_no_sweep() {
        let mut timer = pin!(sleep(Duration::from_millis(50)));
        assert!(futures_util::poll!(timer.as_mut()).is_pending());
        assert_eq!(count(), 0);
        let begun = clock::now();
        timer.await;
        let took = begun.elapsed();
        assert!(took > Duration::from_millis(40) && took < Duration::from_secs(10), "{took:?}");
    }

    #[tokio::test]
    async fn places_are_reused() {
        for _ in 0..100 {
            let mut timer = pin!(sleep(Duration::from_secs(60)));
            let mut other = pin!(sleep(Duration::from_secs(60)));
            for timer in [timer.as_mut(), other.as_mut()] {
                let polled = futures_util::poll!(timer);
                assert!(polled.is_pending());
            }
        }
        assert_eq!(TIMERS.with_borrow(|timers| timers.list.len()), 2);
    }
}
