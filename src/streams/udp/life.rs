//! The end of flows: expiry, and eviction to make room for others.

use std::time::Duration;

use crate::downstream::Millis;

/// Time that a flow without a backend accepts datagrams, so that a peer that keeps sending causes
/// one log line in that time and not thousands.
const NOWHERE: Duration = Duration::from_secs(1);

/// The facts that decide when a flow ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub begun: Millis,
    /// Time of the last datagram, from either side.
    pub moved: Millis,
    /// The backend has sent a datagram.
    pub answered: bool,
    /// There is no backend, or it cannot be reached.
    pub nowhere: bool,
    /// The backend's port is closed.
    pub refused: bool,
}

impl Life {
    /// Returns the rank of the flow for eviction. Flows of lower worth are evicted first: those
    /// never answered, and among equals those idle for longest.
    pub(super) fn worth(self) -> (bool, Millis) {
        (self.answered, self.moved)
    }

    /// Returns true if no datagram has moved for `limit`, or none can.
    pub(super) fn is_over(self, now: Millis, limit: Duration) -> bool {
        let over = |since: Millis, limit: Duration| {
            u128::from(now.saturating_sub(since)) >= limit.as_millis()
        };
        self.refused || over(self.moved, limit) || self.nowhere && over(self.begun, NOWHERE)
    }
}

/// Returns the flows to evict so that one more may be added: none while there are fewer than
/// `room`.
///
/// At the limit, several flows are evicted at once: the next datagrams may each begin a flow too,
/// and choosing one victim at a time would scan all flows each time.
pub(super) fn least_worth<K: Copy>(
    flows: impl ExactSizeIterator<Item = (K, Life)>,
    room: usize,
) -> Vec<K> {
    if flows.len() < room {
        return Vec::new();
    }
    let surplus = flows.len() + 1 - room;
    let count = surplus.max(room / 64).min(flows.len());
    let mut ranked: Vec<_> = flows.map(|(key, life)| (life.worth(), key)).collect();
    if count < ranked.len() {
        ranked.select_nth_unstable_by_key(count, |(worth, _)| *worth);
    }
    ranked.truncate(count);
    ranked.into_iter().map(|(_, key)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: Millis = 1_000;

    fn life(moved: Millis) -> Life {
        Life { begun: BEGUN, moved, answered: false, nowhere: false, refused: false }
    }

    #[test]
    fn a_flow_is_over_when_it_has_rested_for_the_limit_or_leads_nowhere() {
        let nowhere = |moved| Life { nowhere: true, ..life(moved) };
        let answered = |moved| Life { answered: true, ..life(moved) };
        // (flow, now, over); the limit is 60 s
        let table = [
            (life(BEGUN), BEGUN, false),
            (life(BEGUN), 60_999, false),
            (life(BEGUN), 61_000, true),
            (life(60_000), 61_000, false),
            (answered(BEGUN), 61_000, true),
            // Regardless of the datagrams that arrive.
            (nowhere(1_999), 1_999, false),
            (nowhere(2_000), 2_000, true),
            (Life { refused: true, ..answered(BEGUN) }, BEGUN, true),
            // A time read slightly earlier than the flow's own.
            (life(BEGUN), 999, false),
        ];
        for (flow, now, want) in table {
            assert_eq!(flow.is_over(now, Duration::from_secs(60)), want, "{flow:?} at {now}");
        }
        // During a drain the limit is shorter.
        assert!(life(BEGUN).is_over(6_000, Duration::from_secs(5)));
    }

    #[test]
    fn those_never_answered_go_first_and_of_those_alike_the_ones_that_rest_longest() {
        let answered = |moved| Life { answered: true, ..life(moved) };
        let flows = [answered(1), life(40), answered(2), life(30), life(50), answered(3)];
        // (room, evicted flows); there are six, and one is to be added
        let table: [(usize, &[usize]); 6] = [
            (7, &[]),
            (6, &[3]),
            (5, &[1, 3]),
            (4, &[1, 3, 4]),
            (3, &[0, 1, 3, 4]),
            (1, &[0, 1, 2, 3, 4, 5]),
        ];
        for (room, want) in table {
            let mut gone = least_worth(flows.iter().copied().enumerate(), room);
            gone.sort_unstable();
            assert_eq!(gone, want, "room for {room}");
        }
    }

    #[test]
    fn room_is_made_for_as_many_as_a_flood_brings() {
        // (flows, room, number of evicted flows)
        let table = [(0, 1, 0), (1, 1, 1), (63, 64, 0), (64, 64, 1), (127, 128, 0), (128, 128, 2)];
        let long = [(6_400, 6_400, 100), (6_399, 6_400, 0), (6_400, 10, 6_391)];
        for (count, room, want) in table.into_iter().chain(long) {
            let flows = (0..count).map(|number| (number, life(number as Millis)));
            let gone = least_worth(flows, room);
            assert_eq!(gone.len(), want, "{count} flows, room for {room}");
            assert!(gone.iter().all(|number| *number < want), "the oldest go");
        }
    }
}
