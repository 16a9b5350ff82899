//! Addresses of Gateways: requested addresses, addresses of the pool, or every address of the host.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::api::{self, AddressType, ObjectKey};
use crate::config::Origin;
use crate::net::AddressPool;
use crate::stable_hash::hash_32;

use super::facts::{Held, LoadFacts};
use super::index::ObjectIndex;
use super::verdict::{ConditionResult, FalseCondition, Faults, refuse};

/// The addresses of a Gateway.
pub(super) struct Addresses {
    /// The addresses to listen on; `None` is every address of the host.
    pub found: Vec<Option<IpAddr>>,
    /// `Ok` if the types of all requested addresses are supported.
    pub supported: ConditionResult,
    /// `Ok` if all requested addresses can be listened on.
    pub usable: ConditionResult,
}

/// Judges `spec.addresses`, and assigns addresses of the pool where it leaves the choice open.
pub(super) fn judge(
    gateway: &api::Gateway,
    key: &ObjectKey,
    allocation: &mut Allocation<'_>,
    facts: &LoadFacts<'_>,
    faults: &mut Faults,
) -> Addresses {
    let mut found: Vec<Option<IpAddr>> = Vec::new();
    let (mut supported, mut usable) = (Ok(()), Ok(()));
    let mut assigned = 0;
    let mut unsupported = |field: String, problem: String, faults: &mut Faults| {
        faults.error(key, field, &*problem);
        refuse(&mut supported, FalseCondition::new("UnsupportedAddress", problem));
    };
    let mut assign = |field: &str, faults: &mut Faults| {
        assigned += 1;
        match allocation.assign(key, assigned, facts.unusable_address) {
            Ok(address) => Some(address),
            Err(problem) => {
                faults.error_of(Origin::Host, key, field, &*problem);
                refuse(&mut usable, FalseCondition::new("AddressNotAssigned", problem));
                None
            }
        }
    };
    if gateway.spec.addresses.is_empty() {
        found.extend(assign("spec.addresses", faults));
    }
    let mut not_usable = Ok(());
    for (place, address) in gateway.spec.addresses.iter().enumerate() {
        let field = format!("spec.addresses[{place}]");
        if *address.kind() != AddressType::IpAddress {
            let problem =
                format!("address type `{}` is not supported; use IPAddress", address.kind());
            unsupported(format!("{field}.type"), problem, faults);
            continue;
        }
        let Some(value) = address.value() else {
            found.extend(assign(&field, faults));
            continue;
        };
        let Ok(ip) = value.parse::<IpAddr>() else {
            let problem = format!("`{value}` is not an IP address; write it like `192.0.2.1`");
            unsupported(format!("{field}.value"), problem, faults);
            continue;
        };
        if let Some(why) = (facts.unusable_address)(ip) {
            let problem =
                format!("`{ip}` cannot be listened on: {why}; use an address of this host");
            faults.error_of(Origin::Host, key, format!("{field}.value"), &*problem);
            refuse(&mut not_usable, FalseCondition::new("AddressNotUsable", problem));
            continue;
        }
        // The unspecified IPv6 address includes IPv4.
        let ip = Some(ip).filter(|ip| !(ip.is_ipv6() && ip.is_unspecified()));
        if !found.contains(&ip) {
            found.push(ip);
        }
    }
    if found.contains(&None) {
        found = vec![None];
    }
    Addresses { found, supported, usable: not_usable.and(usable) }
}

/// The allocation of addresses of the pool to Gateways.
///
/// A Gateway keeps its address for as long as it exists. The search for a new address starts at a
/// position that depends on the name of the Gateway. So Gateways mostly get the same addresses
/// again if no state was kept, and the address of a deleted Gateway is not reassigned at once.
pub(super) struct Allocation<'p> {
    pool: Option<&'p AddressPool>,
    held: Held,
    /// The held addresses, and all addresses that are written under `spec.addresses`.
    taken: HashSet<IpAddr>,
    /// Addresses found to be unusable in this load.
    unusable: HashSet<IpAddr>,
}

impl<'p> Allocation<'p> {
    /// Creates the allocation. Gateways of `index` keep the addresses that they held before, if the
    /// pool contains them.
    pub(super) fn new(index: &ObjectIndex<'_>, facts: &LoadFacts<'p>) -> Self {
        let mut allocation = Self {
            pool: facts.pool,
            held: Held::new(),
            taken: HashSet::new(),
            unusable: HashSet::new(),
        };
        let Some(pool) = facts.pool else { return allocation };
        for (holder, address) in facts.held {
            let gateway = holder.split('#').next().unwrap_or_default();
            let exists = gateway
                .split_once('/')
                .is_some_and(|(namespace, name)| index.has_gateway(namespace, name));
            if exists && pool.contains(*address) && allocation.taken.insert(*address) {
                allocation.held.insert(holder.clone(), *address);
            }
        }
        let written = index.gateways.iter().flat_map(|gateway| &gateway.spec.addresses);
        let written = written.filter_map(|address| address.value()?.parse::<IpAddr>().ok());
        allocation.taken.extend(written);
        allocation
    }

    /// Returns the addresses held in the end, including those of Gateways that need none at the
    /// moment.
    pub(super) fn finish(self) -> Held {
        self.held
    }

    /// Returns the `number`th address, from 1, of those that Gateway `key` leaves to the gateway to
    /// choose; `None` (every address of the host) if there is no pool.
    ///
    /// # Errors
    ///
    /// No address of the pool is both free and usable.
    fn assign(
        &mut self,
        key: &ObjectKey,
        number: usize,
        unusable: &dyn Fn(IpAddr) -> Option<String>,
    ) -> Result<Option<IpAddr>, String> {
        let Some(pool) = self.pool else { return Ok(None) };
        let holder = match number {
            1 => format!("{}/{}", key.namespace, key.name),
            _ => format!("{}/{}#{number}", key.namespace, key.name),
        };
        if let Some(address) = self.held.get(&holder) {
            if unusable(*address).is_none() {
                return Ok(Some(*address));
            }
            self.taken.remove(address);
            self.unusable.insert(*address);
            self.held.remove(&holder);
        }
        let size = pool.len();
        let first = hash_32(&holder) % size;
        for step in 0..size {
            let address = pool.nth((first + step) % size);
            if self.taken.contains(&address) || self.unusable.contains(&address) {
                continue;
            }
            if unusable(address).is_some() {
                self.unusable.insert(address);
                continue;
            }
            self.taken.insert(address);
            self.held.insert(holder, address);
            return Ok(Some(address));
        }
        let taken = self.taken.iter().filter(|address| pool.contains(**address)).count();
        let unusable = self.unusable.len();
        Err(format!(
            "no address of --address-pool {pool} is free: of {size}, {taken} are taken and \
             {unusable} cannot be listened on here; give the Gateway one under `spec.addresses`, or \
             use a larger pool"
        ))
    }
}
