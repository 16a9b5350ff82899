//! Which endpoint, and which after it if it cannot be reached.
//!
//! Round robin over the endpoints; a name with several addresses takes them in turn as well. What
//! did not take a connection lately comes last, so that one dead address does not slow every other
//! request.
//!
//! Deliberately absent: several connects at once ("happy eyeballs"). A name whose first address is
//! a black hole costs one request the connect timeout, and is then avoided for [`AVOID_SILENT`].

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::{Address, Endpoint, EndpointName};
use crate::upstream::failure::{FailureKind, SendFailure};

/// How long an address that refused a connection comes last.
const AVOID_REFUSING: Duration = Duration::from_secs(5);

/// How long an address that did not answer comes last. Trying it costs a request the whole connect
/// timeout.
const AVOID_SILENT: Duration = Duration::from_secs(30);

/// Which endpoint a caller would have, of those of the cluster. The default is whose turn it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aim {
    /// Comes first, if it is an address of the cluster and was not found dead lately.
    pub prefer: Option<EndpointName>,
    /// These come last: they had the request before and did not serve it.
    pub avoid: Vec<EndpointName>,
}

/// The addresses of a cluster in the order in which one request should try them, each at most once.
#[derive(Debug)]
pub(super) struct Candidates<'a> {
    cluster: &'a Cluster,
    /// To be looked at before any turn.
    prefer: Option<&'a Address>,
    /// What it was, if it came first.
    preferred: Option<&'a Address>,
    /// Whose turn it is.
    turn: usize,
    /// Endpoints looked at in this round.
    visited: usize,
    /// The rest of a name's addresses.
    within: Option<Within>,
    /// What the first round leaves out and the second takes.
    avoided: Vec<Address>,
    second_round: bool,
}

#[derive(Debug)]
struct Within {
    addresses: Arc<[IpAddr]>,
    port: u16,
    turn: usize,
    visited: usize,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(cluster: &'a Cluster, aim: &'a Aim) -> Self {
        let mut avoided = cluster.avoided().now(clock::now);
        avoided.extend(aim.avoid.iter().filter_map(EndpointName::address).cloned());
        Self {
            cluster,
            prefer: aim.prefer.as_ref().and_then(EndpointName::address),
            preferred: None,
            // Another try of a request is no turn: else, of two endpoints, each would always get the
            // same requests.
            turn: if aim.avoid.is_empty() { cluster.next_turn() } else { cluster.turn() },
            visited: 0,
            within: None,
            avoided,
            second_round: false,
        }
    }

    /// The next address; an error for an endpoint whose name does not resolve; `None` when all were
    /// tried.
    pub(super) async fn next(&mut self) -> Option<Result<Address, SendFailure>> {
        let endpoints = self.cluster.endpoints();
        if let Some(address) = self.prefer.take()
            && !self.avoided.contains(address)
            && is_of(self.cluster, address).await
        {
            self.preferred = Some(address);
            return Some(Ok(address.clone()));
        }
        loop {
            if let Some(within) = &mut self.within {
                match within.next() {
                    Some(address) if self.is_next(&address) => {
                        return Some(Ok(address));
                    }
                    Some(_) => continue,
                    None => self.within = None,
                }
            }
            if self.visited == endpoints.len() {
                if self.second_round || self.avoided.is_empty() {
                    return None;
                }
                self.second_round = true;
                self.visited = 0;
            }
            let endpoint = endpoints.get(self.turn.wrapping_add(self.visited) % endpoints.len())?;
            self.visited += 1;
            match endpoint {
                Endpoint::Fixed(address) => {
                    if self.is_next(address) {
                        return Some(Ok(address.clone()));
                    }
                }
                Endpoint::Named { name, port } => {
                    match name.addresses(self.cluster.settings().connect_timeout).await {
                        Ok(addresses) => {
                            let turn = self.turn / endpoints.len();
                            self.within = Some(Within { addresses, port: *port, turn, visited: 0 });
                        }
                        // The first round has said so already.
                        Err(_) if self.second_round => {}
                        Err(failure) => {
                            let failure = String::from(&*failure);
                            return Some(Err(SendFailure::new(FailureKind::Unresolved, failure)
                                .at(EndpointName::unresolved(name.host(), *port))));
                        }
                    }
                }
            }
        }
    }

    /// True if this address belongs to this round and has not had its try.
    fn is_next(&self, address: &Address) -> bool {
        self.avoided.contains(address) == self.second_round && self.preferred != Some(address)
    }
}

/// True if `address` is one of the cluster's, as far as its names resolve.
async fn is_of(cluster: &Cluster, address: &Address) -> bool {
    for endpoint in cluster.endpoints() {
        match (endpoint, address) {
            (Endpoint::Fixed(fixed), _) if fixed == address => return true,
            (Endpoint::Named { name, port }, Address::Ip(wanted)) if wanted.port() == *port => {
                let patience = cluster.settings().connect_timeout;
                if name.addresses(patience).await.is_ok_and(|all| all.contains(&wanted.ip())) {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

impl Within {
    fn next(&mut self) -> Option<Address> {
        if self.visited == self.addresses.len() {
            return None;
        }
        let at = self.turn.wrapping_add(self.visited) % self.addresses.len();
        self.visited += 1;
        Some(Address::Ip(SocketAddr::new(self.addresses[at], self.port)))
    }
}

/// Addresses that did not take a connection, until when. Almost always empty, and then one load.
#[derive(Debug, Default)]
pub(super) struct Avoided {
    any: AtomicBool,
    until: Mutex<Vec<(Address, Instant)>>,
}

impl Avoided {
    /// Notes that `address` could not be reached.
    pub(super) fn add(&self, address: Address, kind: FailureKind, now: Instant) {
        let span = match kind {
            FailureKind::ConnectTimeout => AVOID_SILENT,
            _ => AVOID_REFUSING,
        };
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.retain(|(other, end)| *other != address && *end > now);
        until.push((address, now + span));
        self.any.store(true, Ordering::Relaxed);
    }

    pub(super) fn now(&self, now: impl FnOnce() -> Instant) -> Vec<Address> {
        if !self.any.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let now = now();
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.retain(|(_, end)| *end > now);
        self.any.store(!until.is_empty(), Ordering::Relaxed);
        until.iter().map(|(address, _)| address.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::cluster::ClusterSettings;
    use crate::upstream::endpoint::EndpointSettings;
    use crate::upstream::names::Names;

    fn address(last: u8) -> Address {
        Address::Ip(SocketAddr::from(([10, 0, 0, last], 80)))
    }

    fn cluster(endpoints: Vec<EndpointSettings>) -> Arc<Cluster> {
        let fixed = [
            ("two.test".to_owned(), vec![[10, 0, 0, 8].into(), [10, 0, 0, 9].into()]),
            ("none.test".to_owned(), vec![]),
        ];
        Cluster::new(ClusterSettings::new("test", endpoints), &Names::new(fixed))
    }

    fn at(last: u8) -> EndpointSettings {
        EndpointSettings::Address(SocketAddr::from(([10, 0, 0, last], 80)))
    }

    fn named(host: &str) -> EndpointSettings {
        EndpointSettings::Name { host: host.into(), port: 80 }
    }

    /// All candidates of one request by their last byte, 0 for a name that does not resolve.
    async fn order(cluster: &Cluster) -> Vec<u8> {
        order_of(cluster, &Aim::default()).await
    }

    async fn order_of(cluster: &Cluster, aim: &Aim) -> Vec<u8> {
        let mut candidates = Candidates::new(cluster, aim);
        let mut order = Vec::new();
        while let Some(next) = candidates.next().await {
            order.push(match next {
                Ok(Address::Ip(SocketAddr::V4(address))) => address.ip().octets()[3],
                Ok(other) => panic!("{other}"),
                Err(failure) => {
                    assert_eq!(failure.kind, FailureKind::Unresolved);
                    0
                }
            });
        }
        order
    }

    #[tokio::test]
    async fn turns_go_round_and_every_address_comes_once() {
        // (endpoints, the order of one request after the other)
        let table: [(Vec<EndpointSettings>, &[&[u8]]); 5] = [
            (vec![], &[&[], &[]]),
            (vec![at(1)], &[&[1], &[1]]),
            (vec![at(1), at(2), at(3)], &[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2], &[1, 2, 3]]),
            (vec![named("two.test")], &[&[8, 9], &[9, 8], &[8, 9]]),
            (vec![named("none.test"), at(1)], &[&[0, 1], &[1, 0]]),
        ];
        for (endpoints, want) in table {
            let cluster = cluster(endpoints);
            for want in want {
                assert_eq!(order(&cluster).await, *want, "{:?}", cluster.settings().endpoints);
            }
        }
    }

    #[tokio::test]
    async fn what_could_not_be_reached_comes_last_for_a_while() {
        let cluster = cluster(vec![at(1), named("two.test")]);
        let now = clock::now();
        cluster.avoided().add(address(1), FailureKind::ConnectRefused, now);
        cluster.avoided().add(address(8), FailureKind::ConnectTimeout, now);
        assert_eq!(order(&cluster).await, [9, 1, 8]);
        assert_eq!(order(&cluster).await, [9, 8, 1]);

        let after = |seconds| cluster.avoided().now(|| now + Duration::from_secs(seconds));
        assert_eq!(after(4), [address(1), address(8)]);
        assert_eq!(after(6), [address(8)]);
        assert_eq!(after(31), []);
        assert_eq!(order(&cluster).await.len(), 3);
    }

    #[tokio::test]
    async fn an_aim_moves_addresses_of_the_cluster_and_adds_none() {
        let endpoints = vec![at(1), at(2), named("two.test")];
        // (preferred, avoided, order)
        let table: [(Option<u8>, &[u8], &[u8]); 7] = [
            (None, &[], &[1, 2, 8, 9]),
            (Some(2), &[], &[2, 1, 8, 9]),
            (Some(9), &[], &[9, 1, 2, 8]),
            (Some(7), &[], &[1, 2, 8, 9]),
            (None, &[1, 8], &[2, 9, 1, 8]),
            (Some(1), &[1], &[2, 8, 9, 1]),
            (Some(8), &[2], &[8, 1, 9, 2]),
        ];
        for (prefer, avoid, want) in table {
            let cluster = cluster(endpoints.clone());
            let name = |last: u8| EndpointName::from(address(last));
            let avoid = avoid.iter().copied().map(name).collect();
            let aim = Aim { prefer: prefer.map(name), avoid };
            assert_eq!(order_of(&cluster, &aim).await, want, "{aim:?}");
        }

        let lately = cluster(endpoints);
        lately.avoided().add(address(2), FailureKind::ConnectRefused, clock::now());
        let aim = Aim { prefer: Some(address(2).into()), avoid: Vec::new() };
        assert_eq!(order_of(&lately, &aim).await, [1, 8, 9, 2]);
    }
}
