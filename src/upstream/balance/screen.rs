//! The hosts that a request may use next.

use std::sync::Arc;

use crate::upstream::address::{Address, EndpointName};
use crate::upstream::balance::aim::Aim;
use crate::upstream::balance::candidate::Candidate;
use crate::upstream::host::Host;

/// Decides which hosts a request may use next. This is the only place that looks at the state of a
/// host; policies choose among the hosts that it admits.
///
/// A request has two rounds over the hosts, and tries each host once. The first round admits the
/// hosts whose standing is [`Standing::First`], the second all others.
#[derive(Debug)]
pub(super) struct Screen<'a> {
    aim: &'a Aim,
    /// The candidates that were tried. Allocates only if a host could not be reached.
    tried: Vec<Candidate<'a>>,
    /// The first round skipped some hosts, which the second round tries.
    left_out: bool,
    second_round: bool,
}

/// The standing of a host for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    First,
    /// The host is unavailable, or failed to serve an earlier attempt of the request.
    Last,
}

impl<'a> Screen<'a> {
    pub(super) fn new(aim: &'a Aim) -> Self {
        Self { aim, tried: Vec::new(), left_out: false, second_round: false }
    }

    /// Returns true if this host belongs to this round and has not been tried.
    pub(super) fn admits(&mut self, host: &Arc<Host>) -> bool {
        if !self.second_round && self.standing(host) == Standing::Last {
            self.left_out = true;
            return false;
        }
        !self.tried.iter().any(|tried| Arc::ptr_eq(tried.host(), host))
    }

    /// Returns the standing of a host. State of a host that takes it out of service belongs in
    /// [`Host::is_available`]; a rule about all hosts of the cluster (a panic threshold) belongs
    /// here.
    pub(super) fn standing(&self, host: &Host) -> Standing {
        let is = |avoided: &Address| avoided == host.address();
        let avoided = self.aim.avoid.iter().filter_map(EndpointName::address).any(is);
        if avoided || !host.is_available() { Standing::Last } else { Standing::First }
    }

    /// Records that the request has tried a candidate.
    pub(super) fn has_tried(&mut self, candidate: Candidate<'a>) {
        self.tried.push(candidate);
    }

    /// Begins the second round. Returns false if there is none.
    pub(super) fn next_round(&mut self) -> bool {
        let begins = self.left_out && !self.second_round;
        self.second_round |= begins;
        begins
    }

    pub(super) fn is_second_round(&self) -> bool {
        self.second_round
    }
}
