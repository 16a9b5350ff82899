//! The hosts that a request may use next.

use std::sync::Arc;

use crate::upstream::address::{Address, EndpointName};
use crate::upstream::balance::aim::Aim;
use crate::upstream::balance::candidate::Candidate;
use crate::upstream::cluster::Cluster;
use crate::upstream::health::host_health::Standing as Health;
use crate::upstream::health::leniency::Leniency;
use crate::upstream::host::Host;

/// Decides which hosts a request may use next. This is the only place that looks at the state of a
/// host; policies choose among the hosts that it admits.
///
/// A request has two rounds over the hosts, and tries each host once. The first round admits the
/// hosts whose standing is [`Standing::First`], the second those that come last.
#[derive(Debug)]
pub(super) struct Screen<'a> {
    cluster: &'a Cluster,
    aim: &'a Aim,
    /// The hosts that are used without being healthy; `None` until one of them is met.
    leniency: Option<Leniency>,
    /// A host was left out because of its health.
    left_out_sick: bool,
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
    /// The host cannot be reached, or failed to serve an earlier attempt of the request.
    Last,
    /// The host is not healthy.
    Never,
}

impl<'a> Screen<'a> {
    pub(super) fn new(cluster: &'a Cluster, aim: &'a Aim) -> Self {
        Self {
            cluster,
            aim,
            leniency: None,
            left_out_sick: false,
            tried: Vec::new(),
            left_out: false,
            second_round: false,
        }
    }

    /// Returns true if this host belongs to this round and has not been tried.
    pub(super) fn admits(&mut self, host: &Arc<Host>) -> bool {
        match self.standing(host) {
            Standing::Never => {
                self.left_out_sick = true;
                return false;
            }
            Standing::Last if !self.second_round => {
                self.left_out = true;
                return false;
            }
            Standing::First | Standing::Last => {}
        }
        !self.tried.iter().any(|tried| Arc::ptr_eq(tried.host(), host))
    }

    /// Returns the standing of a host. Looks at the other hosts of the cluster only if this one is
    /// not healthy.
    pub(super) fn standing(&mut self, host: &Host) -> Standing {
        let health = host.standing();
        if health != Health::Healthy {
            let leniency = *self.leniency.get_or_insert_with(|| self.cluster.leniency());
            if !leniency.admits(health) {
                return Standing::Never;
            }
        }
        let is = |avoided: &Address| avoided == host.address();
        let avoided = self.aim.avoid.iter().filter_map(EndpointName::address).any(is);
        if avoided || !host.is_reachable() { Standing::Last } else { Standing::First }
    }

    /// Returns true if a host was left out because of its health.
    pub(super) fn has_left_out_sick(&self) -> bool {
        self.left_out_sick
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
