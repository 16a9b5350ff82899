//! The graph of the objects of one load: references resolved, relations judged.
//!
//! [`build()`] takes the objects of one load, from any source, and determines which Gateways belong
//! to this controller, which listeners can be served, which routes attach to which listener, and
//! which objects their references resolve to. Nothing here fails: what is broken stays in the
//! graph, marked with the reason that the specification defines for it, and is reported to its
//! author as a [`Fault`](crate::config::Fault).
//!
//! The values of a rule (a regular expression, a header, a timeout) are not judged here but in
//! `compile`, which returns faults for rules that cannot run. [`statuses`] makes the conditions of
//! both.
//!
//! Invariant: no lookup of an object walks a list, so the cost of a load stays in proportion to its
//! size, even with ten thousand routes.

mod addresses;
mod allowed_routes;
mod ancestors;
mod backend_encryption;
mod backend_spec_tls;
mod backend_tls;
mod backend_tls_policies;
mod backends;
mod build;
mod ca_certificate_refs;
mod certificate_refs;
mod conflicts;
mod credentials;
mod extension_filters;
mod facts;
mod features;
mod frontend;
mod gateways;
mod grants;
mod index;
mod listener_sets;
mod listeners;
mod object_status;
mod policy;
mod proxies;
mod references;
mod render;
mod route_builder;
mod route_object;
mod routes;
mod status;
mod verdict;

pub(crate) use backend_tls::{Encryption, ExpectedAltName, UpstreamTls};
pub(crate) use backends::{AppProtocol, BackendTarget, Resolved};
pub(crate) use build::{Graph, build};
pub(crate) use credentials::{NamedAuthorities, NamedCertificate, Readiness};
pub(crate) use extension_filters::ExtensionFilter;
pub(crate) use facts::{Held, LoadFacts};
pub(crate) use gateways::Gateway;
pub(crate) use listeners::{Attached, FrontendValidation, Listener};
pub(crate) use object_status::{ObjectStatus, StatusPart};
pub(crate) use policy::{
    AppliedSecurity, AppliedTraffic, ClientEffect, ClientPolicies, Guard, ListenerPolicies,
    ListenerPolicy, SecurityPolicies, TrafficEffect, TrafficPolicies,
};
pub(crate) use proxies::Proxy;
pub(crate) use references::{FilterRefs, RuleRefs};
pub(crate) use route_object::RouteObject;
pub(crate) use routes::Route;
#[cfg(test)]
pub(crate) use status::{ListenerStatus, ParentStatus, RouteStatus};
pub(crate) use status::{ObjectStatuses, statuses};
