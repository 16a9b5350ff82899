//! Load balancing: the order in which a request tries the endpoints of a cluster.
//!
//! By default round robin over the endpoints, and over the addresses of a name ([`turns`]); other
//! policies compare all hosts ([`picks`]). An address that recently failed to accept a connection comes last, so that one dead address does
//! not slow every other request: [`screen`] decides which hosts a request may use, a policy chooses
//! among them.
//!
//! This is the only loop over the endpoints of a cluster: [`Candidates::next`] returns a candidate,
//! [`Candidates::missed`] reports that it could not be reached, and [`Candidates::failure`] returns
//! the failure of the last host if none could be reached.
//!
//! Deliberately absent: several connection attempts at once ("happy eyeballs"). A name whose first
//! address silently drops packets costs one request the connect timeout; that address is then
//! avoided for 30 s.

mod aim;
mod candidate;
mod picks;
mod screen;
mod turns;

use std::time::Duration;

use crate::clock;
use crate::upstream::address::EndpointName;
use crate::upstream::balance_policy::BalanceKind;
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::failure::{FailureKind, SendFailure};
use crate::upstream::host::ActiveRequest;

use picks::Picks;
use screen::{Screen, Standing};
use turns::Turns;

pub(crate) use aim::{Aim, hash_of_client};
pub(super) use candidate::Candidate;

/// The hosts of a cluster in the order in which one request should try them, each at most once.
#[derive(Debug)]
pub(super) struct Candidates<'a> {
    cluster: &'a Cluster,
    aim: &'a Aim,
    /// The preferred endpoint has been considered.
    begun: bool,
    screen: Screen<'a>,
    order: Order<'a>,
    /// The candidate that was returned last.
    last: Option<Candidate<'a>>,
    /// The failure of the last endpoint that could not be used.
    failure: SendFailure,
}

/// The order of the hosts by the policy of the cluster.
#[derive(Debug)]
enum Order<'a> {
    /// Of the default policy.
    Turns(Turns),
    /// Of the policies that compare all hosts.
    Picks(Picks<'a>),
}

impl<'a> Order<'a> {
    fn new(cluster: &'a Cluster, aim: &Aim) -> Self {
        // A retry does not advance the round robin: otherwise, with two endpoints, each would always
        // get the same requests.
        let turn = || if aim.avoid.is_empty() { cluster.next_turn() } else { cluster.turn() };
        let Some(rosters) = cluster.rosters() else { return Self::Turns(Turns::new(turn())) };
        let turn = match cluster.settings().policy.kind {
            BalanceKind::RoundRobin => turn(),
            _ => 0,
        };
        Self::Picks(Picks::new(rosters, turn))
    }
}

impl<'a> Candidates<'a> {
    pub(super) fn new(cluster: &'a Cluster, aim: &'a Aim) -> Self {
        Self {
            cluster,
            aim,
            begun: false,
            screen: Screen::new(cluster, aim),
            order: Order::new(cluster, aim),
            last: None,
            failure: SendFailure::new(FailureKind::NoEndpoint, "the cluster has no endpoint"),
        }
    }

    /// Returns the next host and stores its name in `tried`; `None` if all hosts were tried.
    pub(super) async fn next(&mut self, tried: &mut Option<EndpointName>) -> Option<Candidate<'a>> {
        if let Some(last) = self.last.take() {
            self.screen.has_tried(last);
        }
        let candidate = self.find().await?;
        *tried = Some(candidate.address().clone().into());
        self.last = Some(candidate.clone());
        Some(candidate)
    }

    /// Reports that the host returned last could not be reached. It comes last for a while, for all
    /// requests.
    pub(super) fn missed(&mut self, failure: SendFailure) {
        if let Some(last) = &self.last {
            last.host().missed(failure.kind, clock::now());
        }
        self.failure = failure;
    }

    /// Reports that the host returned last is unsuitable for this request.
    pub(super) fn unfit(&mut self, failure: SendFailure) {
        self.failure = failure;
    }

    /// Counts the request at the host that was returned last, if the cluster counts requests.
    pub(super) fn begin(&self) -> Option<ActiveRequest> {
        let counts = self.cluster.settings().policy.counts_requests();
        self.last.as_ref().filter(|_| counts).map(|last| ActiveRequest::at(last.host()))
    }

    /// Returns the failure of the last host, after all failed.
    pub(super) fn failure(self) -> SendFailure {
        match self.failure.kind {
            FailureKind::NoEndpoint if self.screen.has_left_out_sick() => {
                SendFailure { details: "no endpoint is healthy".into(), ..self.failure }
            }
            _ => self.failure,
        }
    }

    async fn find(&mut self) -> Option<Candidate<'a>> {
        if !self.begun {
            self.begun = true;
            if let Some(candidate) = self.preferred(self.cluster.settings().connect_timeout).await {
                return Some(candidate);
            }
        }
        loop {
            let (screen, failure) = (&mut self.screen, &mut self.failure);
            let found = match &mut self.order {
                Order::Turns(turns) => turns.next(self.cluster, screen, failure).await,
                // Boxed, so that requests of the default policy do not reserve memory for it.
                Order::Picks(picks) => {
                    Box::pin(picks.next(self.cluster, self.aim, screen, failure)).await
                }
            };
            if found.is_some() || !self.screen.next_round() {
                return found;
            }
            if let Order::Turns(turns) = &mut self.order {
                turns.restart();
            }
        }
    }

    /// Returns the preferred host if it is an available host of this cluster, as far as its names
    /// resolve.
    async fn preferred(&mut self, patience: Duration) -> Option<Candidate<'a>> {
        let address = self.aim.prefer.as_ref().and_then(EndpointName::address)?;
        for endpoint in self.cluster.endpoints() {
            let candidate = match endpoint {
                Endpoint::Fixed(member) => {
                    Some(Candidate::Fixed(member)).filter(|_| member.address() == address)
                }
                Endpoint::Named(named) => {
                    let Ok(found) = named.members(patience).await else { continue };
                    let member = found.members.iter().find(|member| member.address() == address);
                    member.cloned().map(Candidate::Named)
                }
            };
            if let Some(candidate) = candidate {
                let is_first = self.screen.standing(candidate.host()) == Standing::First;
                return Some(candidate).filter(|_| is_first);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
