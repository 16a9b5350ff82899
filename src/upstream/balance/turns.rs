//! Round robin over the endpoints of a cluster, and over the addresses of a name.

use std::sync::Arc;

use crate::upstream::balance::candidate::Candidate;
use crate::upstream::balance::screen::Screen;
use crate::upstream::cluster::Cluster;
use crate::upstream::endpoint::{Endpoint, Found};
use crate::upstream::failure::{FailureKind, SendFailure};
use crate::upstream::member::Member;

/// Round robin of one request. Looks up only the names whose turn it is.
#[derive(Debug)]
pub(super) struct Turns {
    /// Start of the round robin for this request.
    turn: usize,
    /// Number of endpoints considered in this round.
    visited: usize,
    /// The remaining hosts of a name.
    within: Option<Within>,
}

#[derive(Debug)]
struct Within {
    found: Arc<Found>,
    turn: usize,
    visited: usize,
}

impl Turns {
    /// `turn` grows with each request.
    pub(super) fn new(turn: usize) -> Self {
        Self { turn, visited: 0, within: None }
    }

    /// Begins again with the first endpoint of this request.
    pub(super) fn restart(&mut self) {
        self.visited = 0;
    }

    /// Returns the next host of this round, `None` at its end. `failure` becomes that of the last
    /// name that does not resolve.
    pub(super) async fn next<'a>(
        &mut self,
        cluster: &'a Cluster,
        screen: &mut Screen<'_>,
        failure: &mut SendFailure,
    ) -> Option<Candidate<'a>> {
        let endpoints = cluster.endpoints();
        loop {
            if let Some(within) = &mut self.within {
                match within.next() {
                    Some(member) if screen.admits(member.host()) => {
                        return Some(Candidate::Named(member));
                    }
                    Some(_) => continue,
                    None => self.within = None,
                }
            }
            if self.visited == endpoints.len() {
                return None;
            }
            let endpoint = endpoints.get(choice(self.turn, self.visited, endpoints.len()))?;
            self.visited += 1;
            match endpoint {
                Endpoint::Fixed(member) => {
                    if screen.admits(member.host()) {
                        return Some(Candidate::Fixed(member));
                    }
                }
                Endpoint::Named(named) => {
                    match named.members(cluster.settings().connect_timeout).await {
                        Ok(found) => {
                            let turn = self.turn / endpoints.len();
                            self.within = Some(Within { found, turn, visited: 0 });
                        }
                        // The first round has recorded this failure already.
                        Err(_) if screen.is_second_round() => {}
                        Err(unresolved) => {
                            let details = String::from(&*unresolved);
                            *failure = SendFailure::new(FailureKind::Unresolved, details)
                                .at(named.endpoint_name());
                        }
                    }
                }
            }
        }
    }
}

impl Within {
    fn next(&mut self) -> Option<Arc<Member>> {
        let members = &self.found.members;
        if self.visited == members.len() {
            return None;
        }
        let at = choice(self.turn, self.visited, members.len());
        self.visited += 1;
        Some(Arc::clone(&members[at]))
    }
}

/// Returns the index of a request's choice number `number` (from 0) among `count` endpoints or
/// addresses of a name; `turn` grows with each request.
fn choice(turn: usize, number: usize, count: usize) -> usize {
    turn.wrapping_add(number) % count.max(1)
}
