//! The queue of log lines: many threads add lines, one writer thread writes them.
//!
//! A thread writes its line into its own shard, under a lock that is taken with `try_lock` and held
//! only for that line. Therefore only the writer thread waits for the reader of a log. The size of
//! a shard is limited: a line that does not fit is dropped and counted.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::sink::{LENGTH_BYTES, Lost, Sink};
use crate::clock;
use crate::stats::Trouble;

/// Limit on the size of all shards together, in bytes: a quarter of a second of 50,000 access
/// records per second. The memory is not used while the reader keeps up.
const SPOOL_BYTES: usize = 8 << 20;
/// Size at which a shard is written before the end of the delay, in bytes; less if the shard is
/// small. Larger batches wake the writer thread less often.
const BATCH_BYTES: usize = 512 << 10;
/// Delay after which access records are written; many records are written earlier.
const RECORD_DELAY: Duration = Duration::from_millis(100);
/// Limit on the time that the end of the process waits for the reader of a log.
pub(super) const LAST_FLUSH: Duration = Duration::from_secs(1);
/// Minimum time between two reports of losses.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Maximum time between two reports of a lasting fault; the time doubles after each report.
const REMIND_EVERY: Duration = Duration::from_secs(600);

/// A bounded queue of lines and the thread that writes them; clones share both.
///
/// When the last clone is dropped, the thread writes the remaining lines and ends.
#[derive(Clone, Debug)]
pub(super) struct Spool(Arc<Owner>);

#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    writer: Thread,
}

#[derive(Debug)]
struct Shared {
    shards: Box<[Shard]>,
    shard_bytes: usize,
    batch_bytes: usize,
    has_lengths: bool,
    /// Lines were added, or a pass was requested, since the last pass began.
    pending: AtomicBool,
    /// The next pass begins without waiting for the delay.
    urgent: AtomicBool,
    stop: AtomicBool,
    dropped: AtomicU64,
    /// The name of the output in reports.
    target: Box<str>,
    /// The reason why the last lines could not be written, while that lasts.
    fault: Trouble,
    flushes: Mutex<Flushes>,
    flushed: Condvar,
}

/// Aligned so that neighbours do not share a cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Batch>);

#[derive(Debug, Default)]
struct Batch {
    /// Longer than `end` only after a thread panicked while it wrote a line.
    bytes: Vec<u8>,
    /// The end of the last whole line.
    end: usize,
    lines: u64,
}

#[derive(Debug, Default)]
struct Flushes {
    wanted: u64,
    done: u64,
}

impl Spool {
    /// Starts a spool for access records, with one shard per processor, at most 16.
    ///
    /// # Errors
    ///
    /// The writer thread cannot be started.
    pub(super) fn for_records(target: &str, sink: impl Sink) -> io::Result<Self> {
        let shards = thread::available_parallelism().map_or(1, Into::into).min(16);
        Self::start("access", target, sink, shards, RECORD_DELAY)
    }

    /// Starts the writer thread. A line is written within `delay`, earlier if there are many lines.
    ///
    /// `name` names the log and `target` its output in reports of losses.
    pub(super) fn start<S: Sink>(
        name: &'static str,
        target: &str,
        sink: S,
        shards: usize,
        delay: Duration,
    ) -> io::Result<Self> {
        let shards = shards.max(1);
        let shard_bytes = SPOOL_BYTES / shards;
        let shared = Arc::new(Shared {
            shard_bytes,
            // A shard that is written early enough has room while the writer is busy.
            batch_bytes: BATCH_BYTES.min(shard_bytes / 4),
            shards: (0..shards).map(|_| Shard::default()).collect(),
            has_lengths: S::HAS_LENGTHS,
            pending: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            target: target.into(),
            fault: Trouble::default(),
            flushes: Mutex::default(),
            flushed: Condvar::new(),
        });
        let writer = Writer {
            name,
            sink,
            delay,
            shared: Arc::clone(&shared),
            spare: Vec::new(),
            unwritten: 0,
            reported: 0,
            reported_at: None,
            impaired: None,
            impaired_at: None,
        };
        let thread = thread::Builder::new().name(format!("log-{name}")).spawn(|| writer.run())?;
        Ok(Self(Arc::new(Owner { shared, writer: thread.thread().clone() })))
    }

    /// Adds a line, or drops and counts it if there is no room.
    pub(super) fn push(&self, line: &[u8]) {
        self.push_with(|out| out.extend_from_slice(line));
    }

    /// Adds the line that `write` appends to a buffer, or drops and counts it if there is no room.
    /// The lock of a shard is held meanwhile, so `write` must not block.
    pub(super) fn push_with(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let shared = &*self.0.shared;
        let mut batch = shared.shard();
        let before = batch.end;
        if !batch.add(shared.has_lengths, shared.shard_bytes, write) {
            drop(batch);
            self.lost();
            return;
        }
        let after = batch.end;
        drop(batch);
        if before < shared.batch_bytes && after >= shared.batch_bytes {
            self.hurry();
        } else if !shared.pending.load(Ordering::Relaxed)
            && !shared.pending.swap(true, Ordering::AcqRel)
        {
            self.0.writer.unpark();
        }
    }

    /// Counts a line that was lost before it could be added.
    pub(super) fn lost(&self) {
        self.0.shared.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of lines dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.0.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until every line added before this call is written or lost, for at most `patience`.
    /// Returns false on timeout. Blocks: not to be called by a thread that serves requests.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let shared = &*self.0.shared;
        let mut flushes = held(&shared.flushes);
        flushes.wanted += 1;
        let ticket = flushes.wanted;
        self.hurry();
        let waiting = shared
            .flushed
            .wait_timeout_while(flushes, patience, |flushes| flushes.done < ticket)
            .unwrap_or_else(PoisonError::into_inner);
        !waiting.1.timed_out()
    }

    /// Returns the output and the reason why lines cannot be written, while that lasts.
    pub(super) fn fault(&self) -> Option<String> {
        let shared = &*self.0.shared;
        shared.fault.told().map(|fault| format!("{}: {fault}", shared.target))
    }

    /// Makes the writer start a pass at once, even if there are no lines. Does not wait for it.
    pub(super) fn hurry(&self) {
        self.0.shared.urgent.store(true, Ordering::Release);
        self.0.shared.pending.store(true, Ordering::Release);
        self.0.writer.unpark();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.writer.unpark();
    }
}

impl Shared {
    /// Locks the shard of this thread, or another one that is free while the writer empties that.
    fn shard(&self) -> MutexGuard<'_, Batch> {
        let own = thread_number() % self.shards.len();
        let (before, from) = self.shards.split_at(own);
        for shard in from.iter().chain(before) {
            match shard.0.try_lock() {
                Ok(batch) => return batch,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        // All shards are locked at this moment, each for the duration of a line.
        held(&self.shards[own].0)
    }
}

impl Batch {
    /// Adds the line that `write` appends. Returns false and leaves the batch as it was if it would
    /// have more than `most` bytes.
    fn add(&mut self, has_lengths: bool, most: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.bytes.truncate(self.end);
        let start = self.end + if has_lengths { LENGTH_BYTES } else { 0 };
        self.bytes.resize(start, 0);
        write(&mut self.bytes);
        let end = self.bytes.len();
        if end > most {
            self.bytes.truncate(self.end);
            return false;
        }
        if has_lengths {
            // A line is far smaller than 4 GiB, since a batch is.
            let length = u32::try_from(end - start).unwrap_or(u32::MAX);
            self.bytes[self.end..start].copy_from_slice(&length.to_ne_bytes());
        }
        self.end = end;
        self.lines += 1;
        true
    }

    /// Empties the batch. Returns its bytes and the number of its lines; `spare` becomes its buffer.
    fn take(&mut self, spare: Vec<u8>) -> (Vec<u8>, u64) {
        let mut bytes = mem::replace(&mut self.bytes, spare);
        bytes.truncate(mem::take(&mut self.end));
        (bytes, mem::take(&mut self.lines))
    }
}

/// Returns the number of this thread. Threads are numbered in the order of their first line, so
/// that they spread over the shards.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.try_with(|number| *number).unwrap_or(0)
}

/// Locks a mutex. A panic while it is held cannot leave a partial value, so poisoning is ignored.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Writer<S> {
    name: &'static str,
    sink: S,
    delay: Duration,
    shared: Arc<Shared>,
    spare: Vec<u8>,
    /// Number of lines that the sink could not write.
    unwritten: u64,
    /// Number of lines dropped for lack of room, as of the last report.
    reported: u64,
    reported_at: Option<Instant>,
    impaired: Option<Impaired>,
    /// Time of the last report of a fault.
    impaired_at: Option<Instant>,
}

/// A current fault: lines cannot be written.
struct Impaired {
    /// The value of `unwritten` at the last report (`told`) and before the fault (`before`).
    told: u64,
    before: u64,
    told_at: Instant,
    /// Time from the last report to the next.
    pause: Duration,
    /// False if the fault is not reported yet, because the previous one was reported shortly
    /// before.
    is_told: bool,
}

impl<S: Sink> Writer<S> {
    fn run(mut self) {
        loop {
            // Read first: the shards then contain every line added before the stop.
            let stop = self.shared.stop.load(Ordering::Acquire);
            if self.shared.pending.load(Ordering::Acquire) || stop {
                if !stop {
                    self.collect();
                }
                self.pass();
            } else {
                thread::park();
            }
            if stop {
                return;
            }
        }
    }

    /// Waits for more lines until the delay is over or a pass is urgent.
    fn collect(&self) {
        let until = clock::now() + self.delay;
        let hurried = || {
            self.shared.urgent.load(Ordering::Acquire) || self.shared.stop.load(Ordering::Acquire)
        };
        while !hurried() {
            let left = until.saturating_duration_since(clock::now());
            if left.is_zero() {
                break;
            }
            thread::park_timeout(left);
        }
    }

    /// Writes the lines of all shards.
    fn pass(&mut self) {
        // Cleared before the shards are emptied, so that a line added meanwhile sets the flag
        // again; and before the flushes are counted, for the same reason.
        self.shared.urgent.swap(false, Ordering::AcqRel);
        self.shared.pending.swap(false, Ordering::AcqRel);
        let wanted = held(&self.shared.flushes).wanted;
        let lost_before = self.shared.dropped.load(Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        self.sink.turn();
        for shard in &shared.shards {
            self.write(shard);
        }
        if self.shared.dropped.load(Ordering::Relaxed) == lost_before {
            self.report(lost_before - self.unwritten);
        }
        held(&self.shared.flushes).done = wanted;
        self.shared.flushed.notify_all();
    }

    fn write(&mut self, shard: &Shard) {
        let (bytes, lines) = {
            let mut batch = held(&shard.0);
            if batch.lines == 0 {
                return;
            }
            batch.take(mem::take(&mut self.spare))
        };
        match self.sink.write(&bytes, lines) {
            Ok(()) => self.written(),
            Err(lost) => {
                self.shared.dropped.fetch_add(lost.lines, Ordering::Relaxed);
                self.not_written(&lost);
            }
        }
        // The memory of a burst is released.
        if bytes.capacity() <= 2 * self.shared.batch_bytes {
            self.spare = bytes;
            self.spare.clear();
        }
    }

    /// Reports that lines cannot be written and the reason: at once, and repeatedly while that
    /// lasts.
    fn not_written(&mut self, lost: &Lost) {
        let before = self.unwritten;
        self.unwritten += lost.lines;
        self.shared.fault.begins(&lost.error.to_string());
        let now = clock::now();
        let (before, told, pause) = match &self.impaired {
            None => match self.impaired_at.filter(|at| now < *at + REPORT_EVERY) {
                // A disk with room for only some of the lines would otherwise cause many reports.
                Some(told_at) => {
                    let pause = REPORT_EVERY;
                    self.impaired =
                        Some(Impaired { told: before, before, told_at, pause, is_told: false });
                    return;
                }
                None => (before, before, REPORT_EVERY),
            },
            Some(one) if now < one.told_at + one.pause => return,
            Some(one) => (one.before, one.told, (one.pause * 2).min(REMIND_EVERY)),
        };
        let (log, to, lines) = (self.name, &*self.shared.target, self.unwritten - told);
        tracing::error!(log, to, error = %lost.error, lines, "log cannot be written");
        self.impaired_at = Some(now);
        let told = self.unwritten;
        self.impaired = Some(Impaired { told, before, told_at: now, pause, is_told: true });
    }

    /// Reports the end of a fault: lines are written again.
    fn written(&mut self) {
        if let Some(impaired) = self.impaired.take() {
            self.shared.fault.ends();
            let (log, to) = (self.name, &*self.shared.target);
            let lost = self.unwritten - impaired.before;
            if impaired.is_told {
                tracing::info!(log, to, lost, "log is written again");
            }
        }
    }

    /// Reports the number of lines dropped because the reader was too slow, once lines fit again.
    fn report(&mut self, dropped: u64) {
        if dropped == self.reported
            || self.reported_at.is_some_and(|at| clock::now() < at + REPORT_EVERY)
        {
            return;
        }
        let (log, to, lines) = (self.name, &*self.shared.target, dropped - self.reported);
        tracing::warn!(log, to, lines, reason = "the reader is too slow", "log lines dropped");
        self.reported = dropped;
        self.reported_at = Some(clock::now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A sink that accepts each batch only after the test allows it.
    struct Reader {
        allow: mpsc::Receiver<()>,
        batches: mpsc::Sender<(Vec<u8>, u64)>,
    }

    impl Sink for Reader {
        fn write(&mut self, batch: &[u8], lines: u64) -> Result<(), Lost> {
            match self.allow.recv() {
                Ok(()) => {
                    let _ = self.batches.send((batch.to_vec(), lines));
                    Ok(())
                }
                Err(_) => Err(Lost { lines, error: io::ErrorKind::BrokenPipe.into() }),
            }
        }
    }

    type Written = mpsc::Receiver<(Vec<u8>, u64)>;

    fn reader() -> (Reader, mpsc::Sender<()>, Written) {
        let (allow, allowed) = mpsc::channel();
        let (batches, written) = mpsc::channel();
        (Reader { allow: allowed, batches }, allow, written)
    }

    #[test]
    fn a_stuck_reader_costs_lines_and_never_time() {
        let (sink, allow, written) = reader();
        let spool = Spool::start("test", "somewhere", sink, 1, Duration::ZERO).unwrap();
        let line = vec![b'x'; 1024];
        let fits = (SPOOL_BYTES / line.len()) as u64;
        // The writer may have taken one batch before it blocked.
        for _ in 0..3 * fits {
            spool.push(&line);
        }
        let dropped = spool.dropped();
        assert!(dropped >= fits, "{dropped} of {} lines dropped", 3 * fits);
        assert!(!spool.flush(Duration::from_millis(1)));

        for _ in 0..3 {
            allow.send(()).unwrap();
        }
        spool.flush(PATIENCE);
        let kept: u64 = written.try_iter().map(|(_, lines)| lines).sum();
        assert_eq!(kept + dropped, 3 * fits);
        // Lines are written again.
        allow.send(()).unwrap();
        spool.push(b"again\n");
        assert!(spool.flush(PATIENCE));
        assert_eq!(written.try_iter().last().unwrap().0, b"again\n");
        assert_eq!(spool.dropped(), dropped);
    }

    #[test]
    fn a_batch_is_one_write_and_comes_without_being_asked_for() {
        let (sink, allow, written) = reader();
        let spool = Spool::start("test", "somewhere", sink, 1, Duration::from_millis(100)).unwrap();
        spool.push(b"a\n");
        spool.push(b"b\n");
        allow.send(()).unwrap();
        assert_eq!(written.recv_timeout(PATIENCE).unwrap(), (b"a\nb\n".to_vec(), 2));
    }

    #[test]
    fn a_full_batch_does_not_wait_for_the_delay() {
        let (sink, allow, written) = reader();
        let spool = Spool::start("test", "somewhere", sink, 1, Duration::from_secs(3600)).unwrap();
        allow.send(()).unwrap();
        spool.push(&vec![b'x'; BATCH_BYTES]);
        assert_eq!(written.recv_timeout(PATIENCE).unwrap().1, 1);
    }

    #[test]
    fn what_is_left_at_the_end_is_written() {
        let (sink, allow, written) = reader();
        let spool = Spool::start("test", "somewhere", sink, 1, Duration::from_secs(3600)).unwrap();
        allow.send(()).unwrap();
        spool.push(b"last\n");
        drop(spool);
        assert_eq!(written.recv_timeout(PATIENCE).unwrap().0, b"last\n");
        // The thread ends, which drops its end of the channel.
        assert!(written.recv_timeout(PATIENCE).is_err());
    }

    #[test]
    fn a_line_of_a_thread_that_panicked_is_left_out() {
        let (sink, allow, written) = reader();
        let spool = Spool::start("test", "somewhere", sink, 1, Duration::from_secs(3600)).unwrap();
        spool.push(b"a\n");
        let panics = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"half of a li");
            panic!("on purpose");
        };
        let shared = spool.clone();
        assert!(thread::spawn(move || shared.push_with(panics)).join().is_err());
        spool.push(b"b\n");
        allow.send(()).unwrap();
        assert!(spool.flush(PATIENCE));
        assert_eq!(written.recv_timeout(PATIENCE).unwrap(), (b"a\nb\n".to_vec(), 2));
    }

    #[test]
    fn lines_of_many_threads_stay_whole() {
        let (sink, allow, written) = reader();
        let spool = Spool::start("test", "somewhere", sink, 4, Duration::from_millis(1)).unwrap();
        let lines = 2_000;
        for _ in 0..8 * lines {
            allow.send(()).unwrap();
        }
        thread::scope(|scope| {
            for thread in 0..8u8 {
                let spool = spool.clone();
                scope.spawn(move || {
                    for _ in 0..lines {
                        spool.push(&[b'a' + thread, b'a' + thread, b'\n']);
                    }
                });
            }
        });
        assert!(spool.flush(PATIENCE));
        let all: Vec<u8> = written.try_iter().flat_map(|(bytes, _)| bytes).collect();
        assert_eq!(all.len(), 8 * lines * 3);
        assert!(all.chunks(3).all(|line| line[0] == line[1] && line[2] == b'\n'));
    }

    /// A sink that fails until the test allows it to write.
    struct Full(Arc<AtomicBool>);

    impl Sink for Full {
        fn write(&mut self, _batch: &[u8], lines: u64) -> Result<(), Lost> {
            match self.0.load(Ordering::Relaxed) {
                true => Ok(()),
                false => Err(Lost { lines, error: io::ErrorKind::StorageFull.into() }),
            }
        }
    }

    #[test]
    fn a_fault_is_known_with_place_and_reason_as_long_as_it_lasts() {
        let has_room = Arc::new(AtomicBool::new(false));
        let sink = Full(Arc::clone(&has_room));
        let spool = Spool::start("test", "/var/log/x.log", sink, 1, Duration::ZERO).unwrap();
        assert_eq!(spool.fault(), None);
        for lines in 1..=3 {
            spool.push(b"x\n");
            assert!(spool.flush(PATIENCE));
            let want = format!("/var/log/x.log: {}", io::Error::from(io::ErrorKind::StorageFull));
            assert_eq!((spool.dropped(), spool.fault()), (lines, Some(want)));
        }
        has_room.store(true, Ordering::Relaxed);
        spool.push(b"x\n");
        assert!(spool.flush(PATIENCE));
        assert_eq!((spool.dropped(), spool.fault()), (3, None));
    }
}
