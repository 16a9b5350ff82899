//! State that outlives a reload of the configuration, found by key.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A map of values that live as long as they are in use: connections of a cluster, counters of a
/// rule, an open file.
///
/// The next configuration gets the value of the running one by the same key, so its state survives
/// the reload. A value that no configuration uses is dropped, and a later configuration creates a
/// new one. If a value depends on settings, its key contains them: other settings yield another
/// value.
///
/// The lock is taken while a configuration is loaded and for lookups of names, never by a request.
#[derive(Debug)]
pub(crate) struct CarryOver<K, V>(Mutex<HashMap<K, Weak<V>>>);

impl<K, V> Default for CarryOver<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V> CarryOver<K, V> {
    /// Returns the value of `key` that is in use, or else a new one.
    pub(crate) fn get_or_make(&self, key: K, make: impl FnOnce(&K) -> Arc<V>) -> Arc<V> {
        let mut known = self.locked();
        if let Some(value) = known.get(&key).and_then(Weak::upgrade) {
            return value;
        }
        let value = make(&key);
        insert(&mut known, key, &value);
        value
    }

    /// Returns the value of `key` that is in use.
    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        self.locked().get(key).and_then(Weak::upgrade)
    }

    /// Sets the value of `key`.
    pub(crate) fn insert(&self, key: K, value: &Arc<V>) {
        insert(&mut self.locked(), key, value);
    }

    /// Returns all values that are in use.
    pub(crate) fn all(&self) -> Vec<Arc<V>> {
        self.locked().values().filter_map(Weak::upgrade).collect()
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<K, Weak<V>>> {
        // A panic while the lock was held leaves the map consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes unused values before the map would grow.
fn insert<K: Eq + Hash, V>(known: &mut HashMap<K, Weak<V>>, key: K, value: &Arc<V>) {
    if known.len() == known.capacity() {
        known.retain(|_, value| value.strong_count() > 0);
    }
    known.insert(key, Arc::downgrade(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_again_as_long_as_somebody_uses_it() {
        let carried = CarryOver::<&str, u8>::default();
        let made = |value| move |_: &&str| Arc::new(value);
        let before = carried.get_or_make("rule", made(1));
        // The next configuration, while the previous one is still in use.
        let after = carried.get_or_make("rule", made(2));
        assert!(Arc::ptr_eq(&before, &after));
        assert_eq!(*carried.get_or_make("other rule", made(3)), 3);
        drop(before);
        assert_eq!(carried.get("rule").as_deref(), Some(&1));
        drop(after);
        assert_eq!(carried.get("rule"), None, "nobody uses it any more");
        assert_eq!(*carried.get_or_make("rule", made(4)), 4);
    }

    #[test]
    fn values_that_nobody_uses_are_forgotten() {
        let carried = CarryOver::<u32, u32>::default();
        let kept = carried.get_or_make(7, |key| Arc::new(*key));
        for key in 0..10_000 {
            carried.get_or_make(key, |key| Arc::new(*key));
        }
        assert!(carried.locked().len() < 100);
        assert!(carried.all() == [kept]);
    }

    #[test]
    fn a_key_may_come_to_mean_another_value() {
        let carried = CarryOver::default();
        let (one, other) = (Arc::new(1), Arc::new(2));
        carried.insert("file", &one);
        carried.insert("file", &other);
        assert_eq!(carried.get("file"), Some(other));
    }
}
