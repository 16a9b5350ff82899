//! One listener by itself: its protocol, hostname, certificates, and the routes that it lets in.

use crate::api::{
    self, FromNamespaces, GATEWAY_GROUP, LabelSelector, LabelSelectorOperator, ObjectKey, Protocol,
    TlsMode,
};
use crate::config::{FieldPath, field_path};
use crate::net::HostPattern;

use super::certificate_refs;
use super::credentials::{NamedAuthorities, NamedCertificate};
use super::facts::LoadFacts;
use super::index::ObjectIndex;
use super::verdict::{Faults, Judged, Refusal, refuse};

/// The object that a listener is written in: a Gateway, or a ListenerSet of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenerOwner {
    pub gateway: ObjectKey,
    /// None for a listener of the Gateway itself.
    pub listener_set: Option<ObjectKey>,
}

impl ListenerOwner {
    /// The object with the listener in its `spec.listeners`.
    pub(crate) fn object(&self) -> &ObjectKey {
        self.listener_set.as_ref().unwrap_or(&self.gateway)
    }
}

/// A listener of a Gateway of ours, or of a ListenerSet of it.
#[derive(Debug)]
pub(crate) struct Listener<'a> {
    pub spec: &'a api::Listener,
    pub owner: ListenerOwner,
    /// Its place in `spec.listeners` of its object.
    pub place: usize,
    /// Any host where `None`; also where the hostname is not valid and the listener is not accepted.
    pub hostname: Option<HostPattern>,
    /// The kinds of routes it takes, each a kind of the Gateway API's group.
    pub kinds: Vec<&'static str>,
    /// The certificates of a listener that ends TLS, ready or not.
    pub certificates: Vec<NamedCertificate>,
    /// The validation of client certificates, of an HTTPS listener that asks for them.
    pub clients: Option<FrontendValidation>,
    /// The routes on it, in the order of ties.
    pub routes: Vec<Attached>,
    /// Condition Accepted. A listener that is not accepted is not served, though routes attach.
    pub accepted: Judged,
    /// True if connections begin with a TLS handshake.
    pub tls: bool,
    /// True if the backend ends that handshake (protocol TLS, mode Passthrough).
    pub passthrough: bool,
    /// False while a certificate is needed and there is none: the bind is there and refuses
    /// handshakes.
    pub(super) ready: bool,
    /// Condition ResolvedRefs.
    pub(super) resolved: Judged,
    /// Condition Conflicted, where it is True.
    pub(super) conflict: Option<Refusal>,
    /// Condition OverlappingTLSConfig, where it is True: its message.
    pub(super) overlap: Option<String>,
    /// The namespaces that routes may come from.
    pub(super) namespaces: Namespaces<'a>,
}

/// The validation of client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrontendValidation {
    /// The authorities for client certificates. Never empty.
    pub authorities: NamedAuthorities,
    /// True if clients without a valid certificate are accepted, too; they are still asked for one.
    pub insecure_fallback: bool,
}

/// A route on a listener.
#[derive(Debug)]
pub(crate) struct Attached {
    /// Its place in `Graph::routes`.
    pub route: usize,
    /// What listener and route both accept; empty for any host.
    pub hosts: Vec<HostPattern>,
}

/// Which namespaces routes may come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Namespaces<'a> {
    All,
    /// None, because the field is not valid.
    None,
    Same,
    Selected(&'a LabelSelector),
}

impl Namespaces<'_> {
    /// True for objects in `namespace`, where `own` is the namespace of the object that selects.
    pub(super) fn take(self, namespace: &str, own: &str, index: &ObjectIndex<'_>) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Same => namespace == own,
            Self::Selected(selector) => {
                index.namespace_labels(namespace, |labels| selector.accepts(labels))
            }
        }
    }
}

impl Listener<'_> {
    /// `namespace/gateway/section`; for a listener of a ListenerSet `namespace/gateway/` and then its
    /// own `namespace/set/section`.
    pub(crate) fn full_name(&self) -> String {
        let ListenerOwner { gateway, listener_set } = &self.owner;
        let mut name = String::new();
        for key in std::iter::once(gateway).chain(listener_set) {
            name.push_str(&format!("{}/{}/", key.namespace, key.name));
        }
        name + &self.spec.name
    }

    /// True if a client could be answered, were its Gateway served.
    pub(super) fn can_be_served(&self) -> bool {
        self.accepted.is_ok() && self.ready && !self.kinds.is_empty()
    }

    /// Makes the listener one that is not accepted because of others.
    pub(super) fn conflicts(&mut self, refusal: Refusal) {
        self.accepted = Err(refusal.clone());
        self.conflict = Some(refusal);
    }

    /// The place of a fault: a field of the listener, or all of it where `rest` is empty.
    pub(super) fn field(&self, rest: &str) -> FieldPath {
        field(self.place, rest)
    }
}

/// The listener that a field of a Gateway or ListenerSet belongs to.
pub(super) fn place_of(field: &FieldPath) -> Option<usize> {
    field.item_of_spec("listeners")
}

fn field(place: usize, rest: &str) -> FieldPath {
    field_path!(spec.listeners[place]).join(rest)
}

/// Judges `spec.listeners[place]` of its owner by itself, without its neighbours.
pub(super) fn judge<'a>(
    owner: &ListenerOwner,
    spec: &'a api::Listener,
    place: usize,
    index: &ObjectIndex<'a>,
    facts: &LoadFacts<'_>,
    faults: &mut Faults,
) -> Listener<'a> {
    let key = owner.object();
    let mut check = ListenerCheck { key, place, faults, accepted: Ok(()) };
    check.rules(index);
    let tls = matches!(spec.protocol, Protocol::Https | Protocol::Tls);
    let mode = spec.tls.as_ref().map(api::ListenerTls::mode);
    let passthrough = spec.protocol == Protocol::Tls && mode == Some(&TlsMode::Passthrough);
    let takes: &[&'static str] = match &spec.protocol {
        Protocol::Http | Protocol::Https => &["HTTPRoute", "GRPCRoute"],
        Protocol::Tls => &["TLSRoute"],
        Protocol::Tcp => &["TCPRoute"],
        Protocol::Udp => &["UDPRoute"],
        Protocol::Unknown(word) => {
            let problem = format!("`{word}` is not a protocol; use HTTP, HTTPS, TLS, TCP or UDP");
            check.refuse("UnsupportedProtocol", "protocol", problem);
            &[]
        }
    };
    let hostname = check.hostname(spec);
    if !takes.is_empty() {
        check.tls(spec);
    }
    let namespaces = check.namespaces(spec);
    let accepted = check.accepted;

    let (kinds, kinds_resolved) = kinds(key, spec, place, takes, faults);
    let mut listener = Listener {
        spec,
        owner: owner.clone(),
        place,
        hostname,
        kinds,
        certificates: Vec::new(),
        clients: None,
        routes: Vec::new(),
        accepted,
        tls,
        passthrough,
        ready: !tls || passthrough,
        resolved: kinds_resolved,
        conflict: None,
        overlap: None,
        namespaces,
    };
    // Without a valid `tls` there is nothing that the references could be for.
    if tls && !passthrough && listener.accepted.is_ok() {
        let found = certificate_refs::look_up(key, spec, place, index, facts, faults);
        listener.certificates = found.certificates;
        listener.ready = found.ready;
        listener.resolved = listener.resolved.and(found.resolved);
    }
    listener
}

/// What makes a listener one that is not accepted. The first refusal is the condition's, every one
/// is a fault.
struct ListenerCheck<'c> {
    key: &'c ObjectKey,
    place: usize,
    faults: &'c mut Faults,
    accepted: Judged,
}

impl ListenerCheck<'_> {
    fn refuse(&mut self, reason: &'static str, rest: &str, problem: impl Into<String>) {
        let problem = problem.into();
        self.faults.error(self.key, field(self.place, rest), &*problem);
        refuse(&mut self.accepted, Refusal::new(reason, problem));
    }

    /// The rules of its kind that the listener breaks.
    fn rules(&mut self, index: &ObjectIndex<'_>) {
        let mut broken =
            index.broken(self.key).filter(|fault| place_of(&fault.field) == Some(self.place));
        if let Some(fault) = broken.next() {
            self.accepted = Err(Refusal::new("UnsupportedValue", fault.to_string()));
        }
    }

    fn unsupported(&mut self, rest: &str, problem: impl Into<String>) {
        self.refuse("UnsupportedValue", rest, problem);
    }

    fn hostname(&mut self, spec: &api::Listener) -> Option<HostPattern> {
        let hostname = spec.hostname()?;
        // A rule of the kind: nothing on such a listener says a hostname.
        if let Protocol::Tcp | Protocol::Udp = spec.protocol {
            return None;
        }
        match HostPattern::parse(hostname) {
            Ok(hostname) => Some(hostname),
            Err(error) => {
                self.unsupported("hostname", format!("`{hostname}` is not a hostname: {error}"));
                None
            }
        }
    }

    fn tls(&mut self, spec: &api::Listener) {
        let Some(tls) = &spec.tls else { return };
        // Which protocols have TLS, and in which modes, are rules of the kind.
        if !matches!(spec.protocol, Protocol::Https | Protocol::Tls) {
            return;
        }
        if let Some(option) = tls.options.keys().next() {
            let problem = format!("option `{option}` is not known here and changes nothing");
            self.faults.warning(self.key, field(self.place, "tls.options"), problem);
        }
    }

    fn namespaces<'a>(&mut self, spec: &'a api::Listener) -> Namespaces<'a> {
        let allowed = spec.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
        let rest = "allowedRoutes.namespaces";
        match spec.allowed_from() {
            FromNamespaces::All => Namespaces::All,
            FromNamespaces::Same => Namespaces::Same,
            FromNamespaces::Selector => {
                match allowed.and_then(|namespaces| namespaces.selector.as_ref()) {
                    Some(selector) => {
                        for (field, problem) in selector_faults(selector) {
                            self.unsupported(&format!("{rest}.selector.{field}"), problem);
                        }
                        Namespaces::Selected(selector)
                    }
                    None => {
                        let problem = "`from: Selector` needs a `selector`; add one, or use All";
                        self.unsupported(rest, problem);
                        Namespaces::None
                    }
                }
            }
            // No other word is among those of the kind.
            FromNamespaces::None | FromNamespaces::Unknown(_) => Namespaces::None,
        }
    }
}

/// Faults of a selector: the field below it, and the problem. An API server does not check them.
pub(super) fn selector_faults(selector: &LabelSelector) -> impl Iterator<Item = (String, String)> {
    selector.match_expressions.iter().enumerate().filter_map(|(number, requirement)| {
        let none = requirement.values.is_empty();
        let (rest, problem) = match &requirement.operator {
            LabelSelectorOperator::Unknown(word) => (
                "operator",
                format!("`{word}` is not an operator; use In, NotIn, Exists or DoesNotExist"),
            ),
            word @ (LabelSelectorOperator::In | LabelSelectorOperator::NotIn) if none => {
                ("values", format!("`{word}` needs values; write at least one"))
            }
            word @ (LabelSelectorOperator::Exists | LabelSelectorOperator::DoesNotExist)
                if !none =>
            {
                ("values", format!("`{word}` has no values; leave them out"))
            }
            LabelSelectorOperator::In
            | LabelSelectorOperator::NotIn
            | LabelSelectorOperator::Exists
            | LabelSelectorOperator::DoesNotExist => return None,
        };
        Some((format!("matchExpressions[{number}].{rest}"), problem))
    })
}

/// supportedKinds: those of the written kinds that fit the protocol, or all that fit it.
fn kinds(
    key: &ObjectKey,
    spec: &api::Listener,
    place: usize,
    takes: &[&'static str],
    faults: &mut Faults,
) -> (Vec<&'static str>, Judged) {
    let written = spec.allowed_routes.as_ref().map_or(&[][..], |allowed| &allowed.kinds);
    // A protocol that is not served fits no kind, and is reported itself.
    if written.is_empty() || takes.is_empty() {
        return (takes.to_vec(), Ok(()));
    }
    let mut kinds = Vec::new();
    let mut judged = Ok(());
    for (number, kind) in written.iter().enumerate() {
        let known =
            takes.iter().find(|known| **known == kind.kind && kind.group() == GATEWAY_GROUP);
        match known {
            Some(known) if !kinds.contains(known) => kinds.push(*known),
            Some(_) => {}
            None => {
                let name = match kind.group() {
                    GATEWAY_GROUP => kind.kind.clone(),
                    group => format!("{}.{group}", kind.kind),
                };
                let problem = format!(
                    "a listener of protocol {} takes no `{name}`; use {}",
                    spec.protocol,
                    takes.join(" or ")
                );
                faults.error(
                    key,
                    field(place, &format!("allowedRoutes.kinds[{number}]")),
                    &*problem,
                );
                refuse(&mut judged, Refusal::new("InvalidRouteKinds", problem));
            }
        }
    }
    (kinds, judged)
}
