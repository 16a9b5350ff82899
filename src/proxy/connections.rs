//! Every downstream connection, in the hands of the worker that owns it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::proxy::Gateway;
use crate::proxy::watch::{Ending, Millis, Watch};
use crate::snapshot::BindKey;

/// All of them, worker by worker.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: AtomicUsize,
    /// Ever opened; numbers them in their order.
    opened: AtomicU64,
    shelves: Mutex<Vec<Arc<Shelf>>>,
}

/// The connections of one worker. Locked when one comes or goes and by the sweep, not by requests.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<Slots>);

#[derive(Debug, Default)]
struct Slots {
    open: HashMap<u64, (BindKey, Arc<Watch>)>,
}

impl Connections {
    /// How many are open now.
    pub(crate) fn count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A shelf for one more worker.
    pub(super) fn shelf(&self) -> Arc<Shelf> {
        let shelf = Arc::<Shelf>::default();
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&shelf));
        shelf
    }

    /// Counts one more and gives it a number; at `limit` the longest idle one has to go for it.
    /// `None` if none is idle.
    pub(super) fn admit(&self, limit: usize) -> Option<u64> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        if self.open.fetch_add(1, Ordering::Relaxed) < limit {
            return Some(number);
        }
        let shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest =
            shelves.iter().filter_map(|shelf| shelf.longest_idle()).min_by_key(|(rank, _)| *rank);
        match oldest {
            Some((_, watch)) => {
                watch.end(Ending::AtOnce);
                Some(number)
            }
            None => {
                self.left();
                None
            }
        }
    }

    /// One is gone.
    fn left(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shelf {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, number: u64, bind: BindKey, watch: Arc<Watch>) {
        self.slots().open.insert(number, (bind, watch));
    }

    fn take(&self, number: u64) {
        self.slots().open.remove(&number);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots().open.is_empty()
    }

    /// Looks at each; what comes back is how it is to end, if it is.
    pub(super) fn end_where(&self, judge: impl Fn(BindKey, &Watch) -> Option<Ending>) {
        for (bind, watch) in self.slots().open.values() {
            if let Some(ending) = judge(*bind, watch) {
                watch.end(ending);
            }
        }
    }

    /// The one that is idle since the longest time, the first of those that rest alike; and its
    /// rank. What is told to end already is no longer in anybody's way.
    fn longest_idle(&self) -> Option<((Millis, u64), Arc<Watch>)> {
        let slots = self.slots();
        let idle = slots.open.iter().filter(|(_, (_, watch))| !watch.is_ending());
        let ranked =
            idle.filter_map(|(number, (_, watch))| Some(((watch.idle_since()?, *number), watch)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(rank, watch)| (rank, Arc::clone(watch)))
    }
}

/// A connection's place among those of its worker; dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Place {
    gateway: Arc<Gateway>,
    shelf: Arc<Shelf>,
    number: u64,
}

impl Place {
    /// Puts a connection that was admitted under `number` on the shelf of its worker.
    pub(super) fn new(
        gateway: Arc<Gateway>,
        shelf: Arc<Shelf>,
        number: u64,
        bind: BindKey,
        watch: &Arc<Watch>,
    ) -> Self {
        shelf.put(number, bind, Arc::clone(watch));
        Self { gateway, shelf, number }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shelf.take(self.number);
        self.gateway.connections.left();
    }
}
