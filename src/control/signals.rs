//! Signals as events.
//!
//! Most signals end a process that does not handle them, and tooling written for other proxies sends
//! several: logrotate SIGUSR1, upgrade scripts SIGUSR2, supervisors SIGHUP while a start is under way.
//! So all of them are blocked from the first instruction on ([`hold`]): the kernel keeps what arrives
//! until [`Signals::register`] has handlers for them, which only wake the loop.
//!
//! Invariant: [`hold`] comes before the first thread. A thread inherits what is blocked, and one that
//! does not block a signal takes it in its deadly form.

use std::collections::BTreeSet;
use std::future;
use std::io;

use futures_util::{FutureExt, StreamExt};
use nix::sys::signal::{self, SigSet};
use signal_hook::consts::FORBIDDEN;

/// What a signal asks for; what is to be done first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Signal {
    /// SIGTERM, SIGINT or SIGQUIT: drain and end; the second one ends at once.
    Terminate,
    /// SIGUSR1: open log files again, which somebody has renamed.
    Reopen,
    /// SIGHUP: read certificates and configuration again.
    Reload,
}

/// Those that do what they always do: faults of our own, limits of the system, what a terminal does
/// with its jobs, what ends nothing anyway, and SIGPIPE, which the standard library ignores.
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
/// Those that end a process which has not begun to serve.
const ENDING: [signal::Signal; 2] = [signal::SIGINT, signal::SIGTERM];

/// Holds back every signal that would end or stop the process, but for SIGINT and SIGTERM. Those that
/// arrive are kept until [`Signals`] reads them. To be called first of all, before any thread starts.
pub(crate) fn hold() {
    // Fails for an unknown way to change the mask alone.
    let _ = without(all(), ENDING).thread_block();
}

/// Lets signals do what they always do, for a command that serves nothing. SIGUSR1 and SIGUSR2 are
/// still held back: who sends them to every process of this name means the gateway.
pub(crate) fn let_go() {
    let held = without(all(), [signal::SIGUSR1, signal::SIGUSR2]);
    let _ = held.thread_unblock();
}

/// All that are ever held back, real-time signals too.
fn all() -> SigSet {
    without(SigSet::all(), AS_ALWAYS)
}

fn without(mut set: SigSet, others: impl IntoIterator<Item = signal::Signal>) -> SigSet {
    for other in others {
        set.remove(other);
    }
    set
}

/// The numbers of real-time signals. The C library keeps the two below for itself.
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// The numbers of those that have a handler: all that are ever held back.
fn handled() -> impl Iterator<Item = i32> {
    let named = signal::Signal::iterator().filter(|one| !AS_ALWAYS.contains(one));
    let named = named.map(|one| one as i32).filter(|number| !FORBIDDEN.contains(number));
    named.chain(REAL_TIME)
}

/// Signals that arrived, those since [`hold`] too.
///
/// Equal ones that arrive before the first was taken become one, and their order is not kept; a
/// hundred SIGHUPs during a reload are one reload more.
pub(crate) struct Signals {
    arrived: signal_hook_tokio::Signals,
    /// Read and not yet given out.
    waiting: BTreeSet<Signal>,
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signals").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Signals {
    /// Handles all signals, SIGINT and SIGTERM too, and lets those in that were held back. Needs a
    /// runtime around it.
    ///
    /// # Errors
    ///
    /// The process is out of descriptors.
    pub(crate) fn register() -> io::Result<Self> {
        let arrived = signal_hook_tokio::Signals::new(handled())?;
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
            // All that are there: by their numbers SIGHUP comes before SIGTERM.
            self.waiting.extend(meaning(first));
            while let Some(Some(next)) = self.arrived.next().now_or_never() {
                self.waiting.extend(meaning(next));
            }
        }
    }
}

/// What is asked for; nothing by a signal that has no meaning here, which is logged.
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

    /// Handlers are the process's: whoever raises a signal is the only one who listens.
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
        // A wait that was given up takes nothing with it.
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
