//! Binds: socket addresses and the listeners that share them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::net::HostPattern;
use crate::observe::GatewayLog;
use crate::snapshot::{
    BindKey, ClientLimits, ClientPolicy, ConnectionLimit, Forwards, HostTable, ProxyHeader,
    RouteTable,
};
use crate::stats::{Downstream, Sharded};
use crate::tls::{CertFacts, CertSlot, ClientValidation, ListenerCertificates};
use crate::trace::TracingSettings;
use crate::upstream::KeepAlive;

/// One socket address: its protocol and the listeners on it.
#[derive(Debug)]
pub(crate) struct Bind {
    pub key: BindKey,
    /// `sectionName`s of the listeners: a socket that is passed in under one of these names serves
    /// this bind.
    pub names: Vec<Arc<str>>,
    /// True if connections begin with a TLS handshake. If false, they begin with a request or, if
    /// the listener forwards, with any bytes that client and backend agree on.
    pub tls: bool,
    /// True if one of the listeners has protocol HTTPS: a handshake for an unknown name is then
    /// refused with the alert `unrecognized_name`.
    pub https: bool,
    /// True if one of the listeners has protocol TLS: no answer is sent before the listener of the
    /// connection is known.
    pub forwards_tls: bool,
    /// Listeners by hostname. A connection or request belongs to the most specific one, and only
    /// its routes are tried (Gateway API, listener isolation).
    pub listeners: HostTable<Arc<Listener>>,
    /// The limits on a connection until its listener is known; for a connection without TLS, the
    /// limits until its end.
    pub limits: Arc<ClientLimits>,
    /// The ClientTrafficPolicy of the listeners of a bind without TLS.
    pub policy: Option<Arc<ClientPolicy>>,
    /// True if a ClientTrafficPolicy applies to a listener.
    pub has_policies: bool,
    /// The PROXY header of all connections, TLS or not: required if one of the listeners requires it.
    pub proxy_header: Option<ProxyHeader>,
    /// The limit on connections of a bind without TLS.
    pub connection_limit: Option<ConnectionLimit>,
    /// Keep-alive probes of all connections. By default only connections whose bytes are forwarded
    /// have some.
    pub keep_alive: Option<KeepAlive>,
    /// The access log of exchanges that belong to no listener: the log of the bind's Gateways, if
    /// they all have the same one.
    pub access_log: Option<Arc<GatewayLog>>,
    /// Carried over from snapshot to snapshot.
    pub counts: Arc<Sharded<Downstream>>,
}

impl Bind {
    /// Returns the hostnames that clients use for `listener` and that none of its certificates
    /// covers, so that clients refuse the connection. Empty while the listener has no certificate
    /// at all.
    pub(crate) fn uncovered<'l>(&self, listener: &'l Listener) -> Vec<&'l HostPattern> {
        let facts: Vec<CertFacts> = match listener.hosts.is_empty() {
            true => Vec::new(),
            false => listener.certificates.iter().flat_map(|slot| slot.facts()).collect(),
        };
        if facts.is_empty() {
            return Vec::new();
        }
        let is_covered = |host: &HostPattern| facts.iter().any(|facts| facts.is_for(host));
        // Another listener of the address may match the name more specifically.
        let comes_here = |host: &HostPattern| match host.exact() {
            Some(name) => {
                self.listeners.best(name).is_some_and(|best| std::ptr::eq(&**best, listener))
            }
            None => true,
        };
        let hosts = listener.hosts.iter();
        hosts.filter(|host| !is_covered(host) && comes_here(host)).collect()
    }

    /// Returns the ClientTrafficPolicy for a connection whose handshake named `sni`, which is `None`
    /// without TLS.
    pub(crate) fn policy_of(&self, sni: Option<&str>) -> Option<&Arc<ClientPolicy>> {
        if !self.has_policies {
            return None;
        }
        match sni {
            None => self.policy.as_ref(),
            Some(sni) => self.listeners.best(sni)?.policy.as_ref(),
        }
    }

    /// Returns the destination of all traffic of this bind, if it is forwarded without inspection:
    /// that of a TCP or UDP listener, which has no hostname and so is alone on the bind.
    pub(crate) fn forwards(&self) -> Option<(&Arc<Listener>, &Forwards)> {
        let listener = self.listeners.best("").filter(|_| !self.tls)?;
        match &listener.traffic {
            Traffic::Forward(forwards) => Some((listener, forwards)),
            Traffic::Http(_) | Traffic::Passthrough(_) => None,
        }
    }
}

/// Returns the route of a rule: `httproute/NAMESPACE/NAME` of `httproute/NAMESPACE/NAME/rule/0`.
fn route_of(rule: &str) -> &str {
    rule.rsplit_once("/rule/").map_or(rule, |(route, _)| route)
}

/// The handling of a listener's connections.
#[derive(Debug)]
pub(crate) enum Traffic {
    /// The content, after the handshake if there is one, is forwarded to a backend unchanged.
    Forward(Forwards),
    /// The content is HTTP, and every request is routed by itself.
    Http(RouteTable),
    /// All bytes are forwarded to a backend, including the TLS handshake.
    Passthrough(Forwards),
}

/// One listener of a Gateway.
#[derive(Debug)]
pub(crate) struct Listener {
    /// `namespace/gateway/sectionName`, for logs; for a ListenerSet `namespace/gateway/` followed
    /// by its own `namespace/name/sectionName`.
    pub name: Arc<str>,
    pub hostname: Option<HostPattern>,
    /// The TLS configuration of a listener that terminates TLS. A listener without any certificate
    /// has one too; it refuses handshakes until the first certificate exists.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// The validation of client certificates by `tls`; for display.
    pub clients: Option<ClientValidation>,
    /// The certificates that `tls` chooses from, in the order of the certificateRefs; for display.
    pub certificates: Vec<Arc<CertSlot>>,
    /// The certificates for handshakes; empty if no client can be accepted.
    pub shown: ListenerCertificates,
    /// The hostnames that clients use, of the listener and of its routes, if it terminates TLS.
    pub hosts: Vec<HostPattern>,
    pub traffic: Traffic,
    pub limits: Arc<ClientLimits>,
    /// The ClientTrafficPolicy, if one applies.
    pub policy: Option<Arc<ClientPolicy>>,
    /// The limit on connections of a listener with TLS.
    pub connection_limit: Option<ConnectionLimit>,
    /// `None` if its requests are not traced.
    pub tracing: Option<Arc<TracingSettings>>,
    /// The access log of its exchanges, if it is not the default access log of the process.
    pub access_log: Option<Arc<GatewayLog>>,
}

impl Listener {
    /// Returns the routes of this listener, as `httproute/NAMESPACE/NAME`.
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

    /// Returns true if no handshake can succeed because no certificate is ready.
    pub(crate) fn refuses_handshakes(&self) -> bool {
        self.tls.is_some() && !self.certificates.iter().any(|slot| slot.is_ready())
    }

    /// Returns the TLS configuration for a client that connected to the address `local` and sent
    /// `sni`, which is empty if it sent none.
    pub(crate) fn handshake(&self, sni: &str, local: IpAddr) -> Option<Arc<rustls::ServerConfig>> {
        let config = self.tls.as_ref()?;
        let by_address = sni.is_empty().then(|| self.shown.at(local, config)).flatten();
        Some(by_address.unwrap_or_else(|| Arc::clone(config)))
    }

    /// Returns the routes of requests; `None` if the traffic is not HTTP.
    pub(crate) fn routes(&self) -> Option<&RouteTable> {
        match &self.traffic {
            Traffic::Http(routes) => Some(routes),
            Traffic::Forward(_) | Traffic::Passthrough(_) => None,
        }
    }
}
