//! Maglev tables: the same host for the same hash.
//!
//! Each host fills places of the table in an order of its own, taking turns with the others, so that
//! all get nearly the same number (Eisenbud et al., "Maglev: A Fast and Reliable Software Network
//! Load Balancer", NSDI 2016, section 3.4). If a host joins or leaves, most places keep their host.

use crate::stable_hash::mixed;

/// The number of places of a table that are asked for a hash before the hosts are asked in order.
const PROBES: u64 = 16;

/// A Maglev table. Takes 4 bytes for each place.
#[derive(Debug)]
pub(super) struct Maglev {
    /// The number of a host for each place. Empty if there is no host.
    places: Box<[u32]>,
    /// The hashes of the hosts.
    hosts: Box<[u64]>,
}

impl Maglev {
    /// Fills a table of `size` places, a prime number, for hosts with these hashes. The order of the
    /// hosts matters little, but the same order gives the same table.
    pub(super) fn new(hashes: &[u64], size: u32) -> Self {
        if hashes.is_empty() || size < 2 {
            return Self { places: Box::default(), hosts: hashes.into() };
        }
        let count = u64::from(size);
        let walk = |hash: &u64| (hash % count, mixed(*hash) % (count - 1) + 1);
        let mut walks: Vec<(u64, u64)> = hashes.iter().map(walk).collect();
        let mut places = vec![u32::MAX; index(count)];
        for number in 0..places.len() {
            let host = number % hashes.len();
            let (at, skip) = &mut walks[host];
            while places[index(*at)] != u32::MAX {
                *at = (*at + *skip) % count;
            }
            places[index(*at)] = u32::try_from(host).unwrap_or_default();
        }
        Self { places: places.into(), hosts: hashes.into() }
    }

    /// Returns true if the table was made for hosts with these hashes.
    pub(super) fn is_of(&self, hashes: &[u64]) -> bool {
        *self.hosts == *hashes
    }

    /// Returns the hosts in the order in which a request with this hash tries them; some come several
    /// times. If the first is not available, its requests are divided among the others, and those of
    /// the others stay where they are.
    pub(super) fn order(&self, hash: u64) -> impl Iterator<Item = usize> {
        let (places, hosts) = (&self.places, self.hosts.len());
        let probes = if places.is_empty() { 0 } else { PROBES };
        let probes = (0..probes).map(move |number| {
            let hash = if number == 0 { hash } else { mixed(hash.wrapping_add(number)) };
            places[index(hash % places.len() as u64)] as usize
        });
        let start = index(mixed(hash) % hosts.max(1) as u64);
        probes.chain((0..hosts).map(move |number| (start + number) % hosts))
    }
}

/// Converts a number below the length of a slice.
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stable_hash::hash_64;

    const SIZE: u32 = 65_537;

    fn table(hosts: &[&str], size: u32) -> Maglev {
        let hashes: Vec<u64> = hosts.iter().map(|host| hash_64(host.as_bytes())).collect();
        Maglev::new(&hashes, size)
    }

    /// The host of each of some thousand keys.
    fn hosts_of(table: &Maglev, is_available: impl Fn(usize) -> bool) -> Vec<usize> {
        let keys = (0..20_000).map(|key: u64| hash_64(&key.to_ne_bytes()));
        keys.map(|hash| table.order(hash).find(|host| is_available(*host)).unwrap()).collect()
    }

    #[test]
    fn hosts_have_equal_shares_of_the_table() {
        for (size, hosts) in [(SIZE, 5), (SIZE, 16), (101, 3), (2, 2), (5, 5)] {
            let names: Vec<String> = (0..hosts).map(|host| format!("10.0.0.{host}:80")).collect();
            let names: Vec<&str> = names.iter().map(|name| &**name).collect();
            let table = table(&names, size);
            let share =
                |host: usize| table.places.iter().filter(|of| **of as usize == host).count();
            let shares: Vec<usize> = (0..hosts).map(share).collect();
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(most - least <= 1, "{size} {shares:?}");
        }
    }

    #[test]
    fn an_unavailable_host_loses_its_keys_and_no_other_host_does() {
        let table = table(&["a", "b", "c", "d"], SIZE);
        let (all, without) = (hosts_of(&table, |_| true), hosts_of(&table, |host| host != 1));
        let mut taken_over = [0; 4];
        for (before, after) in all.iter().zip(without) {
            assert!(*before == 1 || *before == after);
            taken_over[after] += usize::from(*before == 1);
        }
        let sum: usize = taken_over.iter().sum();
        for host in [0, 2, 3] {
            assert!(taken_over[host].abs_diff(sum / 3) < sum / 10, "{taken_over:?}");
        }
    }

    #[test]
    fn a_host_that_leaves_moves_few_keys_of_others() {
        let (before, after) = (table(&["a", "b", "c", "d"], SIZE), table(&["a", "b", "d"], SIZE));
        let renumbered = |host: usize| if host == 2 { 3 } else { host };
        let pairs = hosts_of(&before, |_| true).into_iter().zip(hosts_of(&after, |_| true));
        let moved = pairs.filter(|(before, after)| *before != 2 && *before != renumbered(*after));
        let moved = moved.count();
        assert!(moved < 15_000 / 20, "{moved} of 15,000");
    }

    #[test]
    fn every_host_is_tried() {
        for hosts in [&[][..], &["a"], &["a", "b", "c"]] {
            let table = table(hosts, 101);
            let mut tried: Vec<usize> = table.order(7).collect();
            tried.sort_unstable();
            tried.dedup();
            assert_eq!(tried.len(), hosts.len());
        }
    }
}
