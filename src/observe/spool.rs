//! Lines on their way out: many threads put them in, one thread writes them.
//!
//! A thread puts its line into a shard of its own, under a lock that is held for the length of a
//! copy and taken with `try_lock`; so nobody waits for a reader of the log, only the writing
//! thread does. Shards are bounded: what does not fit is dropped and counted.

use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::clock;
use crate::stats::Trouble;

/// What all shards together hold at most, in bytes: a quarter of a second of 50,000 access records
/// a second. Memory that is never touched while the reader keeps up.
const SPOOL_BYTES: usize = 8 << 20;
/// A shard this full is written without waiting for the end of the delay.
const BATCH_BYTES: usize = 128 << 10;
/// A record is written within this time, and at once when many come.
const RECORD_DELAY: Duration = Duration::from_millis(100);
/// How long the end of the process may wait for whoever reads a log.
pub(super) const LAST_FLUSH: Duration = Duration::from_secs(1);
/// Losses are reported at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// A fault that lasts is told again after twice the time before, and at least this often.
const REMIND_EVERY: Duration = Duration::from_secs(600);

/// Where the writing thread leaves what it collected.
pub(super) trait Sink: Send + 'static {
    /// Puts a line into a batch, in whatever framing [`write`](Self::write) expects.
    fn frame(batch: &mut Vec<u8>, line: &[u8]);

    /// Writes a batch of `lines` lines, waiting as long as it takes.
    ///
    /// # Errors
    ///
    /// How many of them were lost, and why.
    fn write(&mut self, batch: &[u8], lines: u64) -> Result<(), Lost>;

    /// Called before the batches of a pass, and where there are none: time to write to another file.
    fn turn(&mut self) {}
}

/// Lines that could not be written.
#[derive(Debug)]
pub(super) struct Lost {
    pub lines: u64,
    pub error: io::Error,
}

/// A bounded queue of lines and the thread that writes them; clones share both.
///
/// The last clone to be dropped ends the thread, once what is left was written.
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
    frame: fn(&mut Vec<u8>, &[u8]),
    /// Something was put in since the writer last looked.
    pending: AtomicBool,
    /// The delay is to be cut short.
    urgent: AtomicBool,
    stop: AtomicBool,
    dropped: AtomicU64,
    /// Where the lines go, for people.
    target: Box<str>,
    /// Why the last lines could not be written; none while they can.
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
    bytes: Vec<u8>,
    lines: u64,
}

#[derive(Debug, Default)]
struct Flushes {
    wanted: u64,
    done: u64,
}

impl Spool {
    /// A spool for access records, with as many shards as there are processors.
    ///
    /// # Errors
    ///
    /// The thread that writes cannot be started.
    pub(super) fn for_records(target: &str, sink: impl Sink) -> io::Result<Self> {
        let shards = thread::available_parallelism().map_or(1, Into::into).min(16);
        Self::start("access", target, sink, shards, RECORD_DELAY)
    }

    /// Starts the thread. A line is written within `delay` of its arrival, sooner if many come.
    ///
    /// `name` is what losses are reported under, and `target` where the lines go, for people.
    pub(super) fn start<S: Sink>(
        name: &'static str,
        target: &str,
        sink: S,
        shards: usize,
        delay: Duration,
    ) -> io::Result<Self> {
        let shards = shards.max(1);
        let shared = Arc::new(Shared {
            shard_bytes: SPOOL_BYTES / shards,
            shards: (0..shards).map(|_| Shard::default()).collect(),
            frame: S::frame,
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

    /// Puts a line in, or drops and counts it.
    pub(super) fn push(&self, line: &[u8]) {
        let shared = &*self.0.shared;
        let mut batch = shared.shard();
        let before = batch.bytes.len();
        if before + line.len() > shared.shard_bytes {
            drop(batch);
            shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        (shared.frame)(&mut batch.bytes, line);
        batch.lines += 1;
        let after = batch.bytes.len();
        drop(batch);
        if before < BATCH_BYTES && after >= BATCH_BYTES {
            self.hurry();
        } else if !shared.pending.load(Ordering::Relaxed)
            && !shared.pending.swap(true, Ordering::AcqRel)
        {
            self.0.writer.unpark();
        }
    }

    /// Counts a line that was lost before it came here.
    pub(super) fn lost(&self) {
        self.0.shared.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// How many lines were dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.0.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until every line put in before this call was written or lost, for at most `patience`;
    /// tells whether it was. Blocks: not for a thread that serves requests.
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

    /// Where lines go and why they cannot be written, as long as that is so.
    pub(super) fn fault(&self) -> Option<String> {
        let shared = &*self.0.shared;
        shared.fault.told().map(|fault| format!("{}: {fault}", shared.target))
    }

    /// Has the writer pass once, also where no line waits. Does not wait for it.
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
    /// This thread's shard, or another that is free while the writer empties it.
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
        // All are taken at this moment, each for the length of a copy.
        held(&self.shards[own].0)
    }
}

/// Numbers threads in the order of their first line, so that they spread over the shards.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.try_with(|number| *number).unwrap_or(0)
}

/// A panic while the lock was held leaves whole bytes behind, so the lock is taken all the same.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Writer<S> {
    name: &'static str,
    sink: S,
    delay: Duration,
    shared: Arc<Shared>,
    spare: Vec<u8>,
    /// Lines that the sink could not write.
    unwritten: u64,
    /// Lines for which there was no room, as far as they were told.
    reported: u64,
    reported_at: Option<Instant>,
    impaired: Option<Impaired>,
    /// When a fault was told last.
    impaired_at: Option<Instant>,
}

/// Lines cannot be written.
struct Impaired {
    /// `unwritten`, when it was told last, and before the first of them.
    told: u64,
    before: u64,
    told_at: Instant,
    /// The time to the next word of it.
    pause: Duration,
    /// False where it came back so soon after it was told last that it waits for its turn.
    is_told: bool,
}

impl<S: Sink> Writer<S> {
    fn run(mut self) {
        loop {
            // Read first: what was put in before the stop is then in the shards.
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

    /// Lets lines gather until the delay is over or somebody hurries.
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

    /// Writes what every shard holds.
    fn pass(&mut self) {
        // Cleared before the shards are emptied, so a line put in behind our back is announced
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
            let spare = mem::take(&mut self.spare);
            (mem::replace(&mut batch.bytes, spare), mem::take(&mut batch.lines))
        };
        match self.sink.write(&bytes, lines) {
            Ok(()) => self.written(),
            Err(lost) => {
                self.shared.dropped.fetch_add(lost.lines, Ordering::Relaxed);
                self.not_written(&lost);
            }
        }
        // After a burst its memory is given back.
        if bytes.capacity() <= 2 * BATCH_BYTES {
            self.spare = bytes;
            self.spare.clear();
        }
    }

    /// Says that lines cannot be written, and why: at once, and from time to time while that lasts.
    fn not_written(&mut self, lost: &Lost) {
        let before = self.unwritten;
        self.unwritten += lost.lines;
        self.shared.fault.begins(&lost.error.to_string());
        let now = clock::now();
        let (before, told, pause) = match &self.impaired {
            None => match self.impaired_at.filter(|at| now < *at + REPORT_EVERY) {
                // A disk with room for some lines and not for others would fill the log.
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

    /// Says that lines are written again, where they were not.
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

    /// Lines flow again for which there was no room, since their reader was too slow: says how many.
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

/// Standard output, standard error, or whatever else takes bytes: each line ends in a newline of
/// its own, a batch is one write.
pub(super) struct Descriptor<W> {
    to: W,
    /// The last write ended within a line.
    torn: bool,
}

impl Descriptor<File> {
    /// Not by way of `io::stdout()`, which would look for the last newline in every batch.
    pub(super) fn stdout() -> io::Result<Self> {
        Ok(Self::new(io::stdout().as_fd().try_clone_to_owned()?.into()))
    }

    pub(super) fn stderr() -> io::Result<Self> {
        Ok(Self::new(io::stderr().as_fd().try_clone_to_owned()?.into()))
    }
}

impl<W: Write> Descriptor<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, torn: false }
    }

    /// # Errors
    ///
    /// Why it ended, and how many bytes were written before.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut rest = bytes;
        // Somebody else who holds the descriptor may have made it non-blocking. A reader who takes
        // nothing for a second costs us the batch.
        let mut patience = 100;
        while !rest.is_empty() {
            match self.to.write(rest) {
                Ok(0) => return Err((bytes.len() - rest.len(), io::ErrorKind::WriteZero.into())),
                Ok(written) => {
                    self.torn = rest[written - 1] != b'\n';
                    rest = &rest[written..];
                    patience = 100;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && patience > 0 => {
                    patience -= 1;
                    thread::park_timeout(Duration::from_millis(10));
                }
                Err(error) => return Err((bytes.len() - rest.len(), error)),
            }
        }
        Ok(())
    }
}

impl<W: Write + Send + 'static> Sink for Descriptor<W> {
    fn frame(batch: &mut Vec<u8>, line: &[u8]) {
        batch.extend_from_slice(line);
    }

    fn write(&mut self, batch: &[u8], lines: u64) -> Result<(), Lost> {
        if self.torn {
            self.write_all(b"\n").map_err(|(_, error)| Lost { lines, error })?;
        }
        self.write_all(batch).map_err(|(written, error)| {
            let whole = batch[..written].iter().filter(|byte| **byte == b'\n').count();
            Lost { lines: lines.saturating_sub(whole as u64), error }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Takes batches, each one only after the test allowed it.
    struct Reader {
        allow: mpsc::Receiver<()>,
        batches: mpsc::Sender<(Vec<u8>, u64)>,
    }

    impl Sink for Reader {
        fn frame(batch: &mut Vec<u8>, line: &[u8]) {
            batch.extend_from_slice(line);
        }

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
        // The writer may have taken some away before it got stuck, once.
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
        // Things flow again.
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
        // And the thread ends, which drops its end of the channel.
        assert!(written.recv_timeout(PATIENCE).is_err());
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

    /// Takes a few bytes, then fails once, then takes all.
    struct Flaky(Vec<u8>, u32);

    impl Write for Flaky {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            match self.1 {
                1 => {
                    self.0.extend_from_slice(&bytes[..3]);
                    Ok(3)
                }
                2 => Err(io::ErrorKind::StorageFull.into()),
                _ => {
                    self.0.extend_from_slice(bytes);
                    Ok(bytes.len())
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_was_cut_does_not_spoil_the_next() {
        let mut descriptor = Descriptor::new(Flaky(Vec::new(), 0));
        let lost = descriptor.write(b"first\n", 1).unwrap_err();
        assert_eq!((lost.lines, lost.error.kind()), (1, io::ErrorKind::StorageFull));
        assert!(descriptor.write(b"second\n", 1).is_ok());
        assert_eq!(descriptor.to.0, b"fir\nsecond\n");
    }

    #[test]
    fn lines_that_went_out_whole_are_not_counted_as_lost() {
        let mut descriptor = Descriptor::new(Flaky(Vec::new(), 0));
        assert_eq!(descriptor.write(b"a\nbc\nd\n", 3).unwrap_err().lines, 2);
        assert_eq!(descriptor.to.0, b"a\nb");
    }

    /// Has no room until it is allowed to have.
    struct Full(Arc<AtomicBool>);

    impl Sink for Full {
        fn frame(batch: &mut Vec<u8>, line: &[u8]) {
            batch.extend_from_slice(line);
        }

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
