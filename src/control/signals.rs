//! Signals as events.
//!
//! Most signals end a process that does not handle them, and tooling written for other proxies sends
//! several: logrotate SIGUSR1, upgrade scripts SIGUSR2, supervisors SIGHUP while a start is under way.
//! So all of them are held back from the first instruction on ([`hold`]): the kernel keeps what
//! arrives, and the loop reads it from a descriptor ([`Signals`]) once there is a loop. No handler
//! runs, and no thread is interrupted.
//!
//! Invariant: [`hold`] and [`Signals::register`] come before the first thread. A thread inherits what
//! is held back, and one that does not hold a signal back takes it in its deadly form.

use std::collections::BTreeSet;
use std::future;
use std::io;

use crate::control::readable::Readable;
use nix::sys::signal::{self, SigSet};
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};

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

/// Signals that arrived, those since [`hold`] too.
///
/// Equal ones that arrive before the first was taken become one, and their order is not kept; a
/// hundred SIGHUPs during a reload are one reload more.
#[derive(Debug)]
pub(crate) struct Signals {
    arrived: SignalFd,
    readable: Readable,
    /// Read and not yet given out.
    waiting: BTreeSet<Signal>,
}

impl Signals {
    /// Holds back SIGINT and SIGTERM, too, and begins to read. Needs a runtime around it, and no
    /// other thread yet.
    ///
    /// # Errors
    ///
    /// The process is out of descriptors.
    pub(crate) fn register() -> io::Result<Self> {
        let all = all();
        all.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let arrived = SignalFd::with_flags(&all, flags)?;
        Ok(Self { readable: Readable::of(&arrived)?, arrived, waiting: BTreeSet::new() })
    }

    /// The next signal. Cancel safe.
    pub(crate) async fn next(&mut self) -> Signal {
        loop {
            if let Some(next) = self.waiting.pop_first() {
                return next;
            }
            let read = || match self.arrived.read_signal()? {
                Some(signal) => Ok(signal),
                None => Err(io::ErrorKind::WouldBlock.into()),
            };
            let Ok(first) = self.readable.read(read).await else {
                // The runtime is ending.
                return future::pending().await;
            };
            // All that are there: the kernel gives out SIGHUP before SIGTERM.
            self.waiting.extend(meaning(&first));
            while let Ok(next) = read() {
                self.waiting.extend(meaning(&next));
            }
        }
    }
}

/// What is asked for; nothing by a signal that has no meaning here, which is told.
fn meaning(arrived: &siginfo) -> Option<Signal> {
    let named = i32::try_from(arrived.ssi_signo).ok().and_then(|number| number.try_into().ok());
    match named {
        Some(signal::SIGHUP) => Some(Signal::Reload),
        Some(signal::SIGUSR1) => Some(Signal::Reopen),
        Some(signal::SIGINT | signal::SIGQUIT | signal::SIGTERM) => Some(Signal::Terminate),
        named => {
            let number = arrived.ssi_signo;
            let name = named.map_or("real-time", signal::Signal::as_str);
            let sender = arrived.ssi_pid;
            tracing::info!(number, name, sender, "signal ignored");
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

    // `raise` sends to this thread alone, which holds back what it sends.
    async fn expect(signals: &mut Signals, want: &[Signal], what: &str) {
        for want in want {
            assert_eq!(timeout(PATIENCE, signals.next()).await, Ok(*want), "{what}");
        }
        let more = timeout(Duration::from_millis(10), signals.next()).await;
        assert!(more.is_err(), "{what}: {more:?} besides");
    }

    #[tokio::test]
    async fn each_signal_asks_for_its_own_thing_and_none_ends_the_process() {
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
