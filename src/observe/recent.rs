//! The most recent exchanges, for live views.
//!
//! Nothing is kept while there is no reader: an exchange then costs one atomic load. While
//! there is a reader, each exchange is formatted once more, and is left out if another thread holds
//! the lock.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::record::AccessRecord;
use super::text::Stamp;

/// Number of exchanges that are kept.
const KEPT: usize = 256;
/// Time after the last read during which exchanges are kept.
const INTEREST: Duration = Duration::from_secs(15);

/// The list of recent exchanges, numbered from 1.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// The time until which exchanges are kept, in seconds since 1970; 0 without a reader.
    until: AtomicU64,
    /// Number of exchanges left out because another thread held the lock.
    missed: AtomicU64,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    /// JSON objects, each with a newline at its end.
    kept: VecDeque<Box<[u8]>>,
    /// The number of the last exchange.
    last: u64,
}

impl Recent {
    /// Keeps `record` if there is a reader. Never blocks.
    pub(super) fn record(&self, record: &AccessRecord<'_>, stamp: &mut Stamp) {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            return;
        }
        if seconds(record.time) > until {
            // The reader is gone. One that reads at this moment renews the time with its next read, a
            // second later.
            self.until.store(0, Ordering::Relaxed);
            if let Ok(mut lines) = self.lines.try_lock() {
                lines.kept = VecDeque::new();
            }
            return;
        }
        let mut line = Vec::with_capacity(768);
        record.json(&mut line, stamp);
        match self.lines.try_lock() {
            Ok(mut lines) => {
                lines.last += 1;
                if lines.kept.len() == KEPT {
                    lines.kept.pop_front();
                }
                lines.kept.push_back(line.into());
            }
            Err(_) => {
                self.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Returns the exchanges that ended after the one with the number `after`, as JSON: `last`, the
    /// number of the last exchange; `missed`, the number of exchanges left out since the start;
    /// `requests`, each in the JSON format of the access log.
    pub(crate) fn since(&self, after: u64, now: SystemTime) -> String {
        let until = seconds(now) + INTEREST.as_secs();
        self.until.store(until, Ordering::Relaxed);
        // Copied under the lock, formatted without it.
        let (last, kept) = {
            let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let new = usize::try_from(lines.last.saturating_sub(after)).unwrap_or(usize::MAX);
            // A number beyond the last comes from a previous process.
            let new = if after > lines.last { usize::MAX } else { new };
            let skip = lines.kept.len().saturating_sub(new);
            let kept: Vec<_> = lines.kept.iter().skip(skip).cloned().collect();
            (lines.last, kept)
        };
        let missed = self.missed.load(Ordering::Relaxed);
        let mut text = format!("{{\"last\":{last},\"missed\":{missed},\"requests\":[");
        for (place, line) in kept.iter().enumerate() {
            if place > 0 {
                text.push(',');
            }
            text.push_str(String::from_utf8_lossy(line).trim_end());
        }
        text.push_str("]}\n");
        text
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::record::tests::sample;
    use super::*;

    fn paths(of: &Recent, after: u64, now: SystemTime) -> (u64, Vec<String>) {
        let told: Value = serde_json::from_str(&of.since(after, now)).unwrap();
        let requests = told["requests"].as_array().unwrap().iter();
        let paths = requests.map(|one| one["path"].as_str().unwrap().to_owned());
        (told["last"].as_u64().unwrap(), paths.collect())
    }

    #[test]
    fn nothing_is_kept_unless_somebody_looks() {
        let (recent, mut stamp) = (Recent::default(), Stamp::new());
        let now = sample().time;
        let mut record = |path: &str, time| {
            recent.record(&AccessRecord { path, time, ..sample() }, &mut stamp);
        };
        record("/unseen", now);
        assert_eq!(paths(&recent, 0, now), (0, vec![]));
        record("/a", now);
        record("/b?token=hidden", now);
        assert_eq!(paths(&recent, 0, now), (2, vec!["/a".into(), "/b?token=[redacted]".into()]));
        assert_eq!(paths(&recent, 1, now), (2, vec!["/b?token=[redacted]".into()]));
        assert_eq!(paths(&recent, 2, now), (2, vec![]));
        assert_eq!(paths(&recent, 99, now).1.len(), 2, "a number of another process");

        let later = now + INTEREST + Duration::from_secs(1);
        record("/too-late", later);
        record("/later-still", later);
        assert_eq!(paths(&recent, 0, later), (2, vec![]));
        record("/seen", later);
        assert_eq!(paths(&recent, 0, later), (3, vec!["/seen".into()]));
    }

    #[test]
    fn the_list_is_bounded_and_a_request_never_waits_for_it() {
        let (recent, mut stamp) = (Recent::default(), Stamp::new());
        let now = sample().time;
        recent.since(0, now);
        for _ in 0..KEPT + 10 {
            recent.record(&sample(), &mut stamp);
        }
        assert_eq!(paths(&recent, 0, now).1.len(), KEPT);
        let held = recent.lines.lock().unwrap();
        recent.record(&sample(), &mut stamp);
        drop(held);
        assert_eq!(recent.missed.load(Ordering::Relaxed), 1);
    }
}
