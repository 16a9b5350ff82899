//! ClientTrafficPolicies: settings of listeners.
//!
//! A listener has one policy, as a whole: its own, or that of its ListenerSet, or that of its
//! Gateway. Of two policies for the same target, the first in tie-breaking order applies, as in
//! Envoy Gateway. A listener whose policy cannot be applied is closed.
//!
//! The HTTP listeners of one port share its connections: the listener of a request is known only
//! when its head has been read. So they must share their policy as well, as in Envoy Gateway. A
//! policy for some of them alone is refused, and those are closed. A policy that reaches all of them,
//! by whatever targets, is accepted; Envoy Gateway requires that they are one target.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use crate::api::envoy::ClientTrafficPolicySpec;
use crate::api::envoy::client_traffic_policy::SchemeTransform;
use crate::api::{ObjectKey, Protocol};
use crate::config::field_path;
use crate::graph::gateways::Gateway;
use crate::graph::index::ObjectIndex;
use crate::graph::listener_sets::{ListenerSet, served_listeners};
use crate::graph::listeners::Listener;
use crate::graph::routes::Route;
use crate::graph::verdict::{FalseCondition, Faults, refuse};
use crate::observe::listed;

use super::claims::{Claim, OnConflict};
use super::policies::{Applied, AttachedPolicies};
use super::report::PolicyReport;

/// The maximum number of listeners in a message.
const MOST: usize = 5;

/// The ClientTrafficPolicies of a load.
#[derive(Debug)]
pub(crate) struct ClientPolicies<'a> {
    attached: AttachedPolicies<'a, ClientTrafficPolicySpec>,
    /// The listeners, by the object and name of each, whose policy is refused because of other
    /// listeners on their port.
    refused: HashSet<(ObjectKey, String)>,
}

/// The ClientTrafficPolicy of a listener, or a refusal in its place.
pub(crate) type ClientEffect<'p> = Applied<'p, ClientTrafficPolicySpec>;

/// The objects that a policy of a listener reaches by its target.
#[derive(Clone, Copy, Debug)]
enum Reach<'t> {
    Listener,
    ListenerSet(&'t ObjectKey),
    Gateway(&'t ObjectKey),
}

impl Reach<'_> {
    fn includes(self, listener: &Listener<'_>) -> bool {
        match self {
            Self::Listener => false,
            Self::ListenerSet(set) => listener.owner.listener_set.as_ref() == Some(set),
            Self::Gateway(gateway) => listener.owner.gateway == *gateway,
        }
    }
}

/// Returns false for addresses that no other network reaches.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !(address.is_loopback() || address.is_private() || address.is_link_local())
        }
        IpAddr::V6(address) => {
            !(address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local())
        }
    }
}

impl<'a> ClientPolicies<'a> {
    /// Attaches the policies to listeners.
    pub(in crate::graph) fn new(
        index: &ObjectIndex<'a>,
        gateways: &[Gateway<'a>],
        sets: &[ListenerSet<'a>],
        faults: &mut Faults,
    ) -> Self {
        let attached =
            AttachedPolicies::new(&index.client_policies, OnConflict::FirstWins, index, faults);
        let mut policies = Self { attached, refused: HashSet::new() };
        if !policies.attached.all.is_empty() {
            policies.judge_ports(gateways, sets, faults);
            policies.judge_detection(gateways, sets, faults);
            policies.judge_values(faults);
        }
        policies
    }

    /// Refuses policies on HTTP listeners that share a port with listeners they do not reach.
    fn judge_ports(
        &mut self,
        gateways: &[Gateway<'a>],
        sets: &[ListenerSet<'a>],
        faults: &mut Faults,
    ) {
        let mut ports: BTreeMap<(Option<IpAddr>, u16), Vec<&Listener<'_>>> = BTreeMap::new();
        for (gateway, listener) in served_listeners(gateways, sets) {
            if listener.spec.protocol == Protocol::Http {
                for address in &gateway.addresses {
                    ports.entry((*address, listener.spec.port)).or_default().push(listener);
                }
            }
        }
        let mut told = BTreeSet::new();
        for listeners in ports.values().filter(|listeners| listeners.len() > 1) {
            for listener in listeners {
                let Some((place, target, reach)) = self.policy_of(listener) else { continue };
                let others = listeners.iter().filter(|other| {
                    !std::ptr::eq(**other, *listener)
                        && !reach.includes(other)
                        && self.policy_of(other).is_none_or(|(of_other, ..)| of_other != place)
                });
                let others: BTreeSet<String> = others.map(|other| other.full_name()).collect();
                if others.is_empty() {
                    continue;
                }
                let problem = format!(
                    "{} shares port {} with {}, which the policy does not reach. HTTP listeners of \
                     one port share their connections and so their policy; make it reach all of \
                     them, or use another port",
                    listener.full_name(),
                    listener.spec.port,
                    listed(others, MOST),
                );
                let section = matches!(reach, Reach::Listener).then(|| &*listener.spec.name);
                let target = target.clone();
                self.refused.insert((listener.owner.object().clone(), listener.spec.name.clone()));
                let policy = &mut self.attached.all[place];
                let targets = policy.targets.targets.iter_mut();
                let of_policy =
                    targets.filter(|of| of.key == target && of.section.as_deref() == section);
                for of_policy in of_policy {
                    if told.insert((policy.key.clone(), problem.clone())) {
                        faults.error(&policy.key, of_policy.field.clone(), &*problem);
                    }
                    let refusal = FalseCondition::new("Invalid", problem.clone());
                    refuse(&mut of_policy.attached, refusal);
                }
            }
        }
    }

    /// Warns of values that this gateway does not have; what it does instead is always the same.
    fn judge_values(&self, faults: &mut Faults) {
        for policy in &self.attached.all {
            let spec = &policy.object.spec;
            if spec.scheme == Some(SchemeTransform::Preserve) {
                let problem = "not supported: the scheme of requests to HTTP/2 backends follows \
                               their TLS, as with `MatchBackend`";
                faults.warning(&policy.key, field_path!(spec.scheme), problem);
            }
            if spec.http1.as_ref().is_some_and(|http1| http1.enable_trailers == Some(false)) {
                let problem = "not supported: trailers are always forwarded";
                faults.warning(&policy.key, field_path!(spec.http1.enableTrailers), problem);
            }
        }
    }

    /// Warns of policies that believe the address that any peer sends, on listeners that clients may
    /// reach without a proxy.
    fn judge_detection(
        &self,
        gateways: &[Gateway<'a>],
        sets: &[ListenerSet<'a>],
        faults: &mut Faults,
    ) {
        let mut told = HashSet::new();
        for (gateway, listener) in served_listeners(gateways, sets) {
            let Some((place, ..)) = self.policy_of(listener) else { continue };
            let policy = &self.attached.all[place];
            let Some(of) = &policy.object.spec.client_ip_detection else { continue };
            let hops = of.x_forwarded_for.as_ref().and_then(|of| of.num_trusted_hops);
            let field = match (hops, &of.custom_header) {
                (Some(count), _) if count > 0 => "xForwardedFor.numTrustedHops",
                (None, Some(_)) => "customHeader",
                _ => continue,
            };
            let is_public = |address: &Option<IpAddr>| address.is_none_or(is_public);
            if !gateway.addresses.iter().any(is_public) || !told.insert(place) {
                continue;
            }
            let problem = "the address that any peer sends is believed: a client that reaches the \
                           listener without a proxy can claim any address. Use \
                           `xForwardedFor.trustedCIDRs`, or an address that only the proxy reaches";
            let at = field_path!(spec.clientIPDetection).join(field);
            faults.warning(&policy.key, at, problem);
        }
    }

    /// Returns the index of a listener's policy, with the target by which it reaches the listener.
    fn policy_of<'l>(
        &self,
        listener: &'l Listener<'_>,
    ) -> Option<(usize, &'l ObjectKey, Reach<'l>)> {
        let (claim, (target, section)) = self.attached.levels(listener).next()?;
        let Claim::Policy(place) = claim else { return None };
        let reach = match &listener.owner.listener_set {
            _ if section.is_some() => Reach::Listener,
            Some(set) if set == target => Reach::ListenerSet(target),
            _ => Reach::Gateway(target),
        };
        Some((place, target, reach))
    }

    /// Returns the policy of a listener, or a refusal; `None` if no policy applies to it.
    pub(crate) fn on_listener(&self, listener: &Listener<'_>) -> Option<ClientEffect<'_>> {
        let applied = self.attached.applied_on(listener)?;
        let is_refused = !self.refused.is_empty()
            && self
                .refused
                .contains(&(listener.owner.object().clone(), listener.spec.name.clone()));
        Some(if is_refused { Applied::Refused } else { applied })
    }

    /// Returns true if a policy may leave or put fields into requests that are otherwise removed
    /// before routing.
    pub(crate) fn keep_fields(&self) -> bool {
        self.attached.all.iter().any(|policy| {
            let spec = &policy.object.spec;
            spec.client_ip_detection.is_some() || spec.headers.is_some()
        })
    }

    /// Returns the statuses of the policies. The routes must already be attached to listeners.
    pub(in crate::graph) fn reports(
        &self,
        gateways: &[Gateway<'a>],
        sets: &[ListenerSet<'a>],
        routes: &[Route<'a>],
    ) -> Vec<PolicyReport> {
        self.attached.reports(gateways, sets, routes)
    }
}
