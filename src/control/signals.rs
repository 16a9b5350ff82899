//! Signal handling: turns signals into events.
//!
//! The default action of most signals ends the process, and tooling written for other proxies sends
//! several: logrotate SIGUSR1, upgrade scripts SIGUSR2, supervisors SIGHUP during a start. So all
//! of them are blocked from the first instruction on ([`hold`]): the kernel keeps pending signals
//! until [`Signals::register`] has installed handlers, which only wake the loop.
//!
//! Invariant: [`hold`] is called before the first thread starts. A thread inherits the signal mask,
//! and a signal that one thread does not block takes its default, fatal action.

use std::collections::BTreeSet;
use std::future;
use std::io;

use futures_util::{FutureExt, StreamExt};
use nix::sys::signal::{self, SigSet};
use signal_hook::consts::FORBIDDEN;

/// The action that a signal requests. The order is the order of handling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Signal {
    /// SIGTERM, SIGINT or SIGQUIT: drain and exit; the second one exits at once.
    Terminate,
    /// SIGUSR1: reopen log files, which have been renamed.
    Reopen,
    /// SIGHUP: reload certificates and configuration.
    Reload,
}

/// Signals that keep their default action: faults of the program, resource limits, job control of
/// terminals, signals that end nothing by default, and SIGPIPE, which the standard library ignores.
const AS_ALWAYS: [signal::Signal; 14] = [
    signal::SIGABRT,
    signal::SIGBUS,
    signal::SIGCHLD,
    signal::SIGCONT,
    signal::SIGFPE,
    signal::SIGILL,
    signal::SIGPIPE,
    signal::SIGSEGV,
    signal::SIGSYS,
    signal::SIGTRAP,
    signal::SIGTSTP,
    signal::SIGURG,
    signal::SIGWINCH,
    signal::SIGXCPU,
];
/// Signals that end a process which has not begun to serve.
const ENDING: [signal::Signal; 2] = [signal::SIGINT, signal::SIGTERM];

/// Blocks every signal that would end or stop the process, except SIGINT and SIGTERM. The kernel
/// keeps blocked signals pending until [`Signals`] reads them. Must be called first, before any
/// thread starts.
pub(crate) fn hold() {
    // Fails only for an invalid way of changing the mask.
    let _ = without(all(), ENDING).thread_block();
}

/// Restores the default action of signals, for a command that serves nothing. SIGUSR1 and SIGUSR2
/// stay blocked: a sender that signals every process of this name means the gateway.
pub(crate) fn let_go() {
    let held = without(all(), [signal::SIGUSR1, signal::SIGUSR2]);
    let _ = held.thread_unblock();
}

/// All signals that are ever blocked, including real-time signals.
fn all() -> SigSet {
    without(SigSet::all(), AS_ALWAYS)
}

fn without(mut set: SigSet, others: impl IntoIterator<Item = signal::Signal>) -> SigSet {
    for other in others {
        set.remove(other);
    }
    set
}

/// The numbers of real-time signals. The C library reserves the two below.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// The numbers of signals that have a name and a handler. With [`REAL_TIME`] they are all that are
/// ever blocked.
fn named() -> impl Iterator<Item = i32> {
    let named = signal::Signal::iterator().filter(|one| !AS_ALWAYS.contains(one));
    named.map(|one| one as i32).filter(|number| !FORBIDDEN.contains(number))
}

/// Received signals, including those since [`hold`].
///
/// Equal signals that arrive before the first of them is taken are merged, and their order is not
/// kept: a hundred SIGHUPs during a reload cause one further reload.
pub(crate) struct Signals {
    arrived: signal_hook_tokio::Signals,
    /// Read from the kernel, and not yet returned.
    waiting: BTreeSet<Signal>,
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signals").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Signals {
    /// Installs handlers for all signals, including SIGINT and SIGTERM, and unblocks those that
    /// were blocked. Must be called inside a runtime.
    ///
    /// # Errors
    ///
    /// Fails if no file descriptor is free.
    pub(crate) fn register() -> io::Result<Self> {
        let arrived = signal_hook_tokio::Signals::new(named())?;
        for number in REAL_TIME {
            // valgrind keeps the last of them to itself and refuses a handler for it.
            let _ = arrived.handle().add_signal(number);
        }
        all().thread_unblock()?;
        Ok(Self { arrived, waiting: BTreeSet::new() })
    }

    /// The next signal. Cancel safe.
    pub(crate) async fn next(&mut self) -> Signal {
        loop {
            if let Some(next) = self.waiting.pop_first() {
                return next;
            }
            let Some(first) = self.arrived.next().await else {
                // The runtime is ending.
                return future::pending().await;
            };
            // Takes all pending signals first: in the order of their numbers, SIGHUP would come
            // before SIGTERM.
            self.waiting.extend(meaning(first));
            while let Some(Some(next)) = self.arrived.next().now_or_never() {
                self.waiting.extend(meaning(next));
            }
        }
    }
}

/// Returns the action of a signal. A signal without a meaning here is logged and ignored.
fn meaning(number: i32) -> Option<Signal> {
    let named = signal::Signal::try_from(number).ok();
    match named {
        Some(signal::SIGHUP) => Some(Signal::Reload),
        Some(signal::SIGUSR1) => Some(Signal::Reopen),
        Some(signal::SIGINT | signal::SIGQUIT | signal::SIGTERM) => Some(Signal::Terminate),
        named => {
            let name = named.map_or("real-time", signal::Signal::as_str);
            tracing::info!(number, name, "signal ignored");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sys::signal::raise;
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Handlers are global to the process, so only one test at a time may raise signals.
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    async fn expect(signals: &mut Signals, want: &[Signal], what: &str) {
        for want in want {
            assert_eq!(timeout(PATIENCE, signals.next()).await, Ok(*want), "{what}");
        }
        let more = timeout(Duration::from_millis(10), signals.next()).await;
        assert!(more.is_err(), "{what}: {more:?} besides");
    }

    #[tokio::test]
    async fn each_signal_asks_for_its_own_thing_and_none_ends_the_process() {
        let _alone = ALONE.lock().await;
        hold();
        for early in [signal::SIGHUP, signal::SIGUSR1, signal::SIGUSR2, signal::SIGALRM] {
            raise(early).unwrap();
        }
        let mut signals = Signals::register().unwrap();
        let held = [Signal::Reopen, Signal::Reload];
        expect(&mut signals, &held, "what came before the loop is not lost").await;

        let asks = |sent: signal::Signal| match sent {
            signal::SIGHUP => Some(Signal::Reload),
            signal::SIGUSR1 => Some(Signal::Reopen),
            signal::SIGINT | signal::SIGQUIT | signal::SIGTERM => Some(Signal::Terminate),
            _ => None,
        };
        for sent in signal::Signal::iterator() {
            let never = [signal::SIGKILL, signal::SIGSTOP];
            if !never.contains(&sent) && !AS_ALWAYS.contains(&sent) {
                raise(sent).unwrap();
                expect(&mut signals, asks(sent).as_slice(), sent.as_str()).await;
            }
        }
    }

    #[tokio::test]
    async fn equal_signals_are_one_and_the_end_comes_first() {
        let _alone = ALONE.lock().await;
        hold();
        let mut signals = Signals::register().unwrap();
        // A cancelled wait loses no signal.
        expect(&mut signals, &[], "nothing came").await;
        for sent in [signal::SIGHUP, signal::SIGHUP, signal::SIGUSR1, signal::SIGTERM] {
            raise(sent).unwrap();
        }
        let order = [Signal::Terminate, Signal::Reopen, Signal::Reload];
        expect(&mut signals, &order, "by what is to be done first").await;
    }

    #[test]
    fn a_command_that_serves_nothing_holds_back_two() {
        hold();
        let_go();
        let held = SigSet::thread_get_mask().unwrap();
        for signal in signal::Signal::iterator() {
            let want = matches!(signal, signal::SIGUSR1 | signal::SIGUSR2);
            assert_eq!(held.contains(signal), want, "{signal}");
        }
    }
}
