//! All known members of a cluster, for the policies that compare them.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::stable_hash::hash_64;
use crate::upstream::balance_policy::{BalanceKind, BalancePolicy};
use crate::upstream::endpoint::{Endpoint, Found, Named};
use crate::upstream::failure::{FailureKind, SendFailure};
use crate::upstream::host::Host;
use crate::upstream::maglev::Maglev;
use crate::upstream::member::Member;

/// The rosters of a cluster whose policy compares all hosts, one after the other.
#[derive(Debug)]
pub(super) enum Rosters {
    /// The cluster has no names: requests change no count that other workers use.
    Fixed(Roster),
    /// The addresses of names may change.
    Changing(ArcSwap<Roster>),
}

/// The members of a cluster in the order of their addresses.
#[derive(Debug)]
pub(super) struct Roster {
    seats: Box<[Seat]>,
    /// The members of each name, in the order of the endpoints.
    found: Box<[Arc<Found>]>,
    table: Option<Arc<Maglev>>,
}

/// The place of a host in a roster.
#[derive(Debug)]
pub(super) struct Seat {
    pub host: Arc<Host>,
    /// The member, if its endpoint is a name.
    pub named: Option<Arc<Member>>,
    /// The place of the endpoint in the cluster.
    pub endpoint: usize,
}

/// The roster of one request.
#[derive(Debug)]
pub(super) enum CurrentRoster<'a> {
    Fixed(&'a Roster),
    Changing(Arc<Roster>),
}

impl Deref for CurrentRoster<'_> {
    type Target = Roster;

    fn deref(&self) -> &Roster {
        match self {
            Self::Fixed(roster) => roster,
            Self::Changing(roster) => roster,
        }
    }
}

impl Rosters {
    /// Returns `None` for a policy that does not compare hosts.
    pub(super) fn new(policy: BalancePolicy, endpoints: &[Endpoint]) -> Option<Self> {
        if !policy.compares_hosts() {
            return None;
        }
        let found: Box<[_]> = names(endpoints).map(Named::known).collect();
        let is_fixed = found.is_empty();
        let roster = Roster::new(policy, endpoints, found, None);
        Some(match is_fixed {
            true => Self::Fixed(roster),
            false => Self::Changing(ArcSwap::from_pointee(roster)),
        })
    }

    /// Returns the current roster. Starts lookups of names that are outdated; waits only if no
    /// member is known at all.
    ///
    /// # Errors
    ///
    /// No name of the cluster resolves, and there is no other endpoint.
    pub(super) async fn current(
        &self,
        policy: BalancePolicy,
        endpoints: &[Endpoint],
        patience: Duration,
    ) -> Result<CurrentRoster<'_>, SendFailure> {
        let changing = match self {
            Self::Fixed(roster) => return Ok(CurrentRoster::Fixed(roster)),
            Self::Changing(changing) => changing,
        };
        let roster = refreshed(changing, policy, endpoints);
        if !roster.seats.is_empty() {
            return Ok(CurrentRoster::Changing(roster));
        }
        let mut failure = SendFailure::new(FailureKind::NoEndpoint, "the cluster has no endpoint");
        for named in names(endpoints) {
            match named.members(patience).await {
                Ok(_) => {
                    return Ok(CurrentRoster::Changing(refreshed(changing, policy, endpoints)));
                }
                Err(unresolved) => {
                    failure = SendFailure::new(FailureKind::Unresolved, String::from(&*unresolved))
                        .at(named.endpoint_name());
                }
            }
        }
        Err(failure)
    }
}

/// Returns the roster of the present addresses of all names.
fn refreshed(
    changing: &ArcSwap<Roster>,
    policy: BalancePolicy,
    endpoints: &[Endpoint],
) -> Arc<Roster> {
    let roster = changing.load_full();
    let is_current = names(endpoints)
        .zip(&roster.found)
        .all(|(named, found)| Arc::ptr_eq(&named.in_use(), found));
    if is_current {
        return roster;
    }
    // Two workers that do this at the same time make equal rosters.
    let found = names(endpoints).map(Named::known).collect();
    let roster = Arc::new(Roster::new(policy, endpoints, found, Some(&roster)));
    changing.store(Arc::clone(&roster));
    roster
}

fn names(endpoints: &[Endpoint]) -> impl Iterator<Item = &Named> {
    endpoints.iter().filter_map(|endpoint| match endpoint {
        Endpoint::Fixed(_) => None,
        Endpoint::Named(named) => Some(named),
    })
}

impl Roster {
    fn new(
        policy: BalancePolicy,
        endpoints: &[Endpoint],
        found: Box<[Arc<Found>]>,
        before: Option<&Self>,
    ) -> Self {
        let mut seats: Vec<(String, Seat)> = Vec::new();
        let mut add = |member: &Member, named, endpoint| {
            let host = Arc::clone(member.host());
            seats.push((member.address().to_string(), Seat { host, named, endpoint }));
        };
        let mut names = found.iter();
        for (place, endpoint) in endpoints.iter().enumerate() {
            match endpoint {
                Endpoint::Fixed(member) => add(member, None, place),
                Endpoint::Named(_) => {
                    for member in names.next().into_iter().flat_map(|found| found.members.iter()) {
                        add(member, Some(Arc::clone(member)), place);
                    }
                }
            }
        }
        // A resolver that returns the addresses in another order changes nothing.
        seats.sort_by(|(one, _), (other, _)| one.cmp(other));
        seats.dedup_by(|(one, _), (other, _)| one == other);
        let table = match policy.kind {
            BalanceKind::ConsistentHash { table_size } => {
                let hashes: Vec<u64> =
                    seats.iter().map(|(address, _)| hash_64(address.as_bytes())).collect();
                let known = before.and_then(|before| before.table.as_ref());
                let known = known.filter(|table| table.is_of(&hashes));
                Some(known.cloned().unwrap_or_else(|| Arc::new(Maglev::new(&hashes, table_size))))
            }
            _ => None,
        };
        Self { seats: seats.into_iter().map(|(_, seat)| seat).collect(), found, table }
    }

    pub(super) fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// Returns the table of a policy that has one. Its hosts are the seats.
    pub(super) fn table(&self) -> Option<&Maglev> {
        self.table.as_deref()
    }
}
