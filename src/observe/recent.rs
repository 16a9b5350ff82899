//! The last exchanges, for whoever watches them live.
//!
//! Nothing is kept while nobody looks: then an exchange pays one look at a number. While somebody
//! does, it writes one more line, and leaves it out where another thread has the list just then.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::record::AccessRecord;
use super::text::Stamp;

/// Exchanges that are kept.
const KEPT: usize = 256;
/// Whoever looked this long ago looks no more.
const INTEREST: Duration = Duration::from_secs(15);

/// The list. Numbers begin with 1.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// Seconds since 1970 up to which somebody is interested.
    until: AtomicU64,
    /// Left out because another thread had the list.
    missed: AtomicU64,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    /// JSON objects, a newline behind each.
    kept: VecDeque<Box<[u8]>>,
    /// The number of the last one.
    last: u64,
}

impl Recent {
    /// Keeps `record`, if anybody wants it. Never waits.
    pub(super) fn record(&self, record: &AccessRecord<'_>, stamp: &mut Stamp) {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            return;
        }
        if seconds(record.time) > until {
            // Nobody looks any more; who looks again just now says so again in a second.
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

    /// What ended after the exchange of this number, as JSON: `last`, the number of the last one;
    /// `missed`, how many were left out since the start; `requests`, each as in the access log.
    pub(crate) fn since(&self, after: u64, now: SystemTime) -> String {
        let until = seconds(now) + INTEREST.as_secs();
        self.until.store(until, Ordering::Relaxed);
        // Copied under the lock and written without.
        let (last, kept) = {
            let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let new = usize::try_from(lines.last.saturating_sub(after)).unwrap_or(usize::MAX);
            // A number beyond the last is one of the process before.
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
