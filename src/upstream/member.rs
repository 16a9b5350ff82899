//! The addresses of one cluster, and the tables that have a value for each of them.
//!
//! A host is shared by all clusters that use its address; a member is not, because connections
//! belong to one cluster. Each member has a small number, so that a worker finds its connections to
//! the member by an index instead of a hash. Numbers are reused: a member that is gone leaves its
//! index to the next one, with a higher serial, so that a table never takes the values of one
//! member for those of another.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::upstream::address::Address;
use crate::upstream::host::Host;

/// An address of one cluster.
#[derive(Debug)]
pub(super) struct Member {
    host: Arc<Host>,
    number: Number,
}

impl Member {
    pub(super) fn new(host: Arc<Host>) -> Self {
        Self { host, number: NUMBERS.lock().unwrap_or_else(PoisonError::into_inner).take() }
    }

    pub(super) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    pub(super) fn address(&self) -> &Address {
        self.host.address()
    }

    pub(super) fn number(&self) -> Number {
        self.number
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        NUMBERS.lock().unwrap_or_else(PoisonError::into_inner).give_back(self.number);
    }
}

/// The number of a member. No two members that live at the same time have the same index; of all
/// members that ever had an index, the last has the highest serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    index: usize,
    serial: u64,
}

/// Locked while a configuration is loaded and when a name gets other addresses, never by a request.
static NUMBERS: Mutex<Numbers> =
    Mutex::new(Numbers { free: BinaryHeap::new(), next: 0, serial: 0 });

#[derive(Debug)]
struct Numbers {
    /// Indexes of members that are gone. The lowest is reused first, so that tables remain short.
    free: BinaryHeap<Reverse<usize>>,
    /// The lowest index that was never used.
    next: usize,
    serial: u64,
}

impl Numbers {
    fn take(&mut self) -> Number {
        self.serial += 1;
        let index = self.free.pop().map(|Reverse(index)| index).unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        Number { index, serial: self.serial }
    }

    fn give_back(&mut self, number: Number) {
        self.free.push(Reverse(number.index));
    }
}

/// A table of one worker with a value for each of some members.
#[derive(Debug)]
pub(super) struct ByMember<T>(Vec<Option<Box<Slot<T>>>>);

#[derive(Debug)]
struct Slot<T> {
    serial: u64,
    value: T,
}

impl<T> Default for ByMember<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByMember<T> {
    /// Returns the value of the member with this number.
    pub(super) fn get_mut(&mut self, number: Number) -> Option<&mut T> {
        let slot = self.0.get_mut(number.index)?.as_mut()?;
        (slot.serial == number.serial).then_some(&mut slot.value)
    }

    /// Returns the value of a member, made by `make` if there is none. The value of an earlier member
    /// with the same index is dropped.
    pub(super) fn of(&mut self, member: &Member, make: impl FnOnce() -> T) -> &mut T {
        let Number { index, serial } = member.number();
        let place = self.place(index);
        if place.as_ref().is_some_and(|slot| slot.serial != serial) {
            *place = None;
        }
        &mut place.get_or_insert_with(|| Box::new(Slot { serial, value: make() })).value
    }

    /// Sets the value of the member with this number. Returns the value that then has no place: that
    /// of an earlier member with the same index, or `value` itself if a later member has one.
    pub(super) fn insert(&mut self, number: Number, value: T) -> Option<T> {
        let place = self.place(number.index);
        if place.as_ref().is_some_and(|slot| slot.serial > number.serial) {
            return Some(value);
        }
        let slot = Box::new(Slot { serial: number.serial, value });
        place.replace(slot).map(|former| former.value)
    }

    fn place(&mut self, index: usize) -> &mut Option<Box<Slot<T>>> {
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        &mut self.0[index]
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flatten().map(|slot| &mut slot.value)
    }

    /// Drops the values for which `keep` returns false.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        for place in &mut self.0 {
            if place.as_mut().is_some_and(|slot| !keep(&mut slot.value)) {
                *place = None;
            }
        }
    }

    /// Drops all values.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    #[cfg(test)]
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten().map(|slot| &slot.value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Members come and go in any order, and values are stored and asked for under numbers of
        /// present and of former members: each number finds its own value or none.
        #[test]
        fn a_number_finds_its_own_value_or_none(
            steps in prop::collection::vec((0_u8..4, any::<prop::sample::Index>()), 1..200)
        ) {
            let mut numbers = Numbers { free: BinaryHeap::new(), next: 0, serial: 0 };
            let mut table = ByMember::<u64>::default();
            let (mut present, mut ever) = (vec![numbers.take()], Vec::new());
            ever.extend(&present);
            // The values that must be found, by index: none where the last one was replaced.
            let mut stored = HashMap::new();
            for (step, which) in steps {
                match step {
                    0 => {
                        let number = numbers.take();
                        prop_assert!(present.iter().all(|other| other.index != number.index));
                        prop_assert!(number.index <= ever.len());
                        present.push(number);
                        ever.push(number);
                    }
                    1 if !present.is_empty() => {
                        numbers.give_back(present.swap_remove(which.index(present.len())));
                    }
                    2 => {
                        let number = *which.get(&ever);
                        let left = table.insert(number, number.serial);
                        match stored.get(&number.index).copied() {
                            Some(later) if later > number.serial => {
                                prop_assert_eq!(left, Some(number.serial));
                            }
                            former => {
                                prop_assert_eq!(left, former);
                                stored.insert(number.index, number.serial);
                            }
                        }
                    }
                    _ => {
                        for number in &ever {
                            let found = table.get_mut(*number).copied();
                            let own = stored.get(&number.index).copied();
                            prop_assert_eq!(found, own.filter(|serial| *serial == number.serial));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_lowest_free_index_is_reused_first() {
        let mut numbers = Numbers { free: BinaryHeap::new(), next: 0, serial: 0 };
        let members: Vec<_> = (0..5).map(|_| numbers.take()).collect();
        assert!(members.iter().map(|number| number.index).eq(0..5));
        for member in [3, 1, 4] {
            numbers.give_back(members[member]);
        }
        let again: Vec<_> = (0..4).map(|_| numbers.take().index).collect();
        assert_eq!(again, [1, 3, 4, 5]);
    }
}
