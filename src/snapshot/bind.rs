//! A socket address and the listeners that share it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::net::HostPattern;
use crate::observe::GatewayLog;
use crate::snapshot::{BindKey, ClientLimits, Forwards, HostTable, RouteTable};
use crate::stats::{Downstream, Sharded};
use crate::tls::{CertFacts, CertSlot, ClientValidation, ListenerCertificates};
use crate::trace::Tracing;

/// One socket address: its protocol and the listeners on it.
#[derive(Debug)]
pub(crate) struct Bind {
    pub key: BindKey,
    /// `sectionName`s of the listeners: a socket handed over under one of them serves this bind.
    pub names: Vec<Arc<str>>,
    /// True if connections begin with a TLS handshake. If not, they begin with a request, or, where
    /// the listener forwards, with whatever client and backend have agreed on.
    pub tls: bool,
    /// True if a listener of HTTPS is among them: who asks for a name that nobody has is told so.
    pub https: bool,
    /// True if a listener of protocol TLS is among them: nothing is answered before it is known whose
    /// connection it is.
    pub forwards_tls: bool,
    /// Listeners by hostname. A connection or request belongs to the most specific one, and only
    /// its routes are tried (Gateway API, listener isolation).
    pub listeners: HostTable<Arc<Listener>>,
    /// The limits on a connection until its listener is known, and of one in clear to its end.
    pub limits: Arc<ClientLimits>,
    /// How exchanges are logged that belong to no listener: as those of its Gateways, where all of
    /// them have one log of their own.
    pub access_log: Option<Arc<GatewayLog>>,
    /// Carried over from snapshot to snapshot.
    pub counts: Arc<Sharded<Downstream>>,
}

impl Bind {
    /// The hostnames that clients come to `listener` by and that none of its certificates covers:
    /// clients refuse it there. None of them while it has no certificate at all.
    pub(crate) fn uncovered<'l>(&self, listener: &'l Listener) -> Vec<&'l HostPattern> {
        let facts: Vec<CertFacts> = match listener.hosts.is_empty() {
            true => Vec::new(),
            false => listener.certificates.iter().flat_map(|slot| slot.facts()).collect(),
        };
        if facts.is_empty() {
            return Vec::new();
        }
        let is_covered = |host: &HostPattern| facts.iter().any(|facts| facts.is_for(host));
        // Another listener of the address may have the name for itself.
        let comes_here = |host: &HostPattern| match host.exact() {
            Some(name) => {
                self.listeners.best(name).is_some_and(|best| std::ptr::eq(&**best, listener))
            }
            None => true,
        };
        let hosts = listener.hosts.iter();
        hosts.filter(|host| !is_covered(host) && comes_here(host)).collect()
    }

    /// Where everything goes that comes in here, if it is not looked into: a TCP or UDP listener,
    /// which has no name and so no neighbour.
    pub(crate) fn forwards(&self) -> Option<(&Arc<Listener>, &Forwards)> {
        let listener = self.listeners.best("").filter(|_| !self.tls)?;
        match &listener.traffic {
            Traffic::Forward(forwards) => Some((listener, forwards)),
            Traffic::Http(_) | Traffic::Passthrough(_) => None,
        }
    }
}

/// The route of a rule: `httproute/NAMESPACE/NAME` of `httproute/NAMESPACE/NAME/rule/0`.
fn route_of(rule: &str) -> &str {
    rule.rsplit_once("/rule/").map_or(rule, |(route, _)| route)
}

/// What a listener does with a connection.
#[derive(Debug)]
pub(crate) enum Traffic {
    /// What it carries, behind the handshake if there is one, goes to a backend as it is.
    Forward(Forwards),
    /// It is HTTP, and every request has a route of its own.
    Http(RouteTable),
    /// All of it goes to a backend, the TLS handshake too.
    Passthrough(Forwards),
}

/// One listener of a Gateway.
#[derive(Debug)]
pub(crate) struct Listener {
    /// `namespace/gateway/sectionName`, for logs; of a ListenerSet `namespace/gateway/` and then its
    /// own `namespace/name/sectionName`.
    pub name: Arc<str>,
    pub hostname: Option<HostPattern>,
    /// The handshake of a listener that ends TLS. One without any certificate has settings too,
    /// whose handshakes are refused until the first certificate is there.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// What `tls` asks clients for; for people.
    pub clients: Option<ClientValidation>,
    /// What `tls` chooses from, in the order of the certificateRefs; for people.
    pub certificates: Vec<Arc<CertSlot>>,
    /// The same for handshakes; none of them where nobody can be let in.
    pub shown: ListenerCertificates,
    /// The hostnames that clients come by: of the listener and of its routes, where it ends TLS.
    pub hosts: Vec<HostPattern>,
    pub traffic: Traffic,
    pub limits: Arc<ClientLimits>,
    /// None: its requests are not traced.
    pub tracing: Option<Arc<Tracing>>,
    /// How its exchanges are logged, where that is not as the gateway's own log has it.
    pub access_log: Option<Arc<GatewayLog>>,
}

impl Listener {
    /// The routes that are on it, as `httproute/NAMESPACE/NAME`.
    pub(crate) fn route_names(&self) -> BTreeSet<&str> {
        match &self.traffic {
            Traffic::Http(routes) => {
                routes.rows().into_iter().map(|row| route_of(&row.rule.name)).collect()
            }
            Traffic::Forward(forwards) | Traffic::Passthrough(forwards) => {
                forwards.sorted().into_iter().map(|(_, forward)| route_of(&forward.name)).collect()
            }
        }
    }

    /// True if no handshake can end, for want of a certificate.
    pub(crate) fn refuses_handshakes(&self) -> bool {
        self.tls.is_some() && !self.certificates.iter().any(|slot| slot.is_ready())
    }

    /// The handshake for a client that came to the address `local`, and asked for `sni`, which is
    /// empty where it asked for nothing.
    pub(crate) fn handshake(&self, sni: &str, local: IpAddr) -> Option<Arc<rustls::ServerConfig>> {
        let config = self.tls.as_ref()?;
        let by_address = sni.is_empty().then(|| self.shown.at(local, config)).flatten();
        Some(by_address.unwrap_or_else(|| Arc::clone(config)))
    }

    /// The routes of requests; `None` where it is not HTTP that is served.
    pub(crate) fn routes(&self) -> Option<&RouteTable> {
        match &self.traffic {
            Traffic::Http(routes) => Some(routes),
            Traffic::Forward(_) | Traffic::Passthrough(_) => None,
        }
    }
}
