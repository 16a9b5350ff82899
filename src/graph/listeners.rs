//! A single listener: its protocol, hostname, certificates, and the routes that it accepts.

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
use super::verdict::{ConditionResult, FalseCondition, Faults, refuse};

/// The object that a listener is written in: a Gateway, or a ListenerSet of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenerOwner {
    pub gateway: ObjectKey,
    /// `None` for a listener of the Gateway itself.
    pub listener_set: Option<ObjectKey>,
}

impl ListenerOwner {
    /// Returns the object with the listener in its `spec.listeners`.
    pub(crate) fn object(&self) -> &ObjectKey {
        self.listener_set.as_ref().unwrap_or(&self.gateway)
    }
}

/// A listener of a Gateway of this controller, or of a ListenerSet of such a Gateway.
#[derive(Debug)]
pub(crate) struct Listener<'a> {
    pub spec: &'a api::Listener,
    pub owner: ListenerOwner,
    /// The index in `spec.listeners` of its object.
    pub place: usize,
    /// The hostname; `None` means any host. Also `None` if the hostname is invalid, in which case
    /// the listener is not accepted.
    pub hostname: Option<HostPattern>,
    /// The accepted kinds of routes, all of the Gateway API's group.
    pub kinds: Vec<&'static str>,
    /// The certificates of a listener that terminates TLS, ready or not.
    pub certificates: Vec<NamedCertificate>,
    /// The validation of client certificates, for an HTTPS listener that requests them.
    pub clients: Option<FrontendValidation>,
    /// The attached routes, in tie-breaking order.
    pub routes: Vec<Attached>,
    /// Condition Accepted. Routes attach to a listener that is not accepted, but it is not served.
    pub accepted: ConditionResult,
    /// True if connections begin with a TLS handshake.
    pub tls: bool,
    /// True if the backend terminates that TLS handshake (protocol TLS, mode Passthrough).
    pub passthrough: bool,
    /// False while a required certificate is missing: the socket is bound but refuses handshakes.
    pub(super) ready: bool,
    /// Condition ResolvedRefs.
    pub(super) resolved: ConditionResult,
    /// Condition Conflicted, if it is True.
    pub(super) conflict: Option<FalseCondition>,
    /// The message of condition OverlappingTLSConfig, if it is True.
    pub(super) overlap: Option<String>,
    /// The namespaces from which routes are accepted.
    pub(super) namespaces: Namespaces<'a>,
}

/// Settings for the validation of client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrontendValidation {
    /// The authorities for client certificates. Never empty.
    pub authorities: NamedAuthorities,
    /// True if clients without a valid certificate are accepted as well. They are still asked for a
    /// certificate.
    pub insecure_fallback: bool,
}

/// A route attached to a listener.
#[derive(Debug)]
pub(crate) struct Attached {
    /// The index of the route in `Graph::routes`.
    pub route: usize,
    /// The hostnames that both listener and route accept; empty for any host.
    pub hosts: Vec<HostPattern>,
}

/// The namespaces from which routes or ListenerSets are accepted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Namespaces<'a> {
    All,
    /// No namespace: the field is `None` or invalid.
    None,
    Same,
    Selected(&'a LabelSelector),
}

impl Namespaces<'_> {
    /// Returns true if objects in `namespace` are accepted. `own` is the namespace of the object
    /// with the setting.
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
    /// Returns the full name: `namespace/gateway/section`. For a listener of a ListenerSet,
    /// `namespace/set/section` of the set follows `namespace/gateway/`.
    pub(crate) fn full_name(&self) -> String {
        let ListenerOwner { gateway, listener_set } = &self.owner;
        let mut name = String::new();
        for key in std::iter::once(gateway).chain(listener_set) {
            name.push_str(&format!("{}/{}/", key.namespace, key.name));
        }
        name + &self.spec.name
    }

    /// Returns true if the listener can answer clients, provided that its Gateway is served.
    pub(super) fn can_be_served(&self) -> bool {
        self.accepted.is_ok() && self.ready && !self.kinds.is_empty()
    }

    /// Marks the listener as not accepted because it conflicts with others.
    pub(super) fn conflicts(&mut self, refusal: FalseCondition) {
        self.accepted = Err(refusal.clone());
        self.conflict = Some(refusal);
    }

    /// Returns the path of a field of the listener, or of the whole listener if `rest` is empty.
    pub(super) fn field(&self, rest: &str) -> FieldPath {
        field(self.place, rest)
    }
}

/// Returns the index of the listener that a field of a Gateway or ListenerSet belongs to.
pub(super) fn place_of(field: &FieldPath) -> Option<usize> {
    field.item_of_spec("listeners")
}

fn field(place: usize, rest: &str) -> FieldPath {
    field_path!(spec.listeners[place]).join(rest)
}

/// Judges `spec.listeners[place]` of its owner by itself, regardless of other listeners.
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
    // Without a valid `tls` the certificate references have no use.
    if tls && !passthrough && listener.accepted.is_ok() {
        let found = certificate_refs::look_up(key, spec, place, index, facts, faults);
        listener.certificates = found.certificates;
        listener.ready = found.ready;
        listener.resolved = listener.resolved.and(found.resolved);
    }
    listener
}

/// The check whether a listener is accepted. The first refusal becomes the condition; every refusal
/// is reported as a fault.
struct ListenerCheck<'c> {
    key: &'c ObjectKey,
    place: usize,
    faults: &'c mut Faults,
    accepted: ConditionResult,
}

impl ListenerCheck<'_> {
    fn refuse(&mut self, reason: &'static str, rest: &str, problem: impl Into<String>) {
        let problem = problem.into();
        self.faults.error(self.key, field(self.place, rest), &*problem);
        refuse(&mut self.accepted, FalseCondition::new(reason, problem));
    }

    /// Refuses the listener if it breaks a rule of its kind.
    fn rules(&mut self, index: &ObjectIndex<'_>) {
        let mut broken =
            index.broken(self.key).filter(|fault| place_of(&fault.field) == Some(self.place));
        if let Some(fault) = broken.next() {
            self.accepted = Err(FalseCondition::new("UnsupportedValue", fault.to_string()));
        }
    }

    fn unsupported(&mut self, rest: &str, problem: impl Into<String>) {
        self.refuse("UnsupportedValue", rest, problem);
    }

    fn hostname(&mut self, spec: &api::Listener) -> Option<HostPattern> {
        let hostname = spec.hostname()?;
        // A rule of the kind reports this: clients of TCP and UDP listeners send no hostname.
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
        // Rules of the kind decide which protocols have TLS, and in which modes.
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
            // Rules of the kind report all other words.
            FromNamespaces::None | FromNamespaces::Unknown(_) => Namespaces::None,
        }
    }
}

/// Returns the faults of a selector: the field below it, and the problem. An API server does not
/// check them.
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

/// Returns supportedKinds: the written kinds that fit the protocol, or all that fit it if none is
/// written.
fn kinds(
    key: &ObjectKey,
    spec: &api::Listener,
    place: usize,
    takes: &[&'static str],
    faults: &mut Faults,
) -> (Vec<&'static str>, ConditionResult) {
    let written = spec.allowed_routes.as_ref().map_or(&[][..], |allowed| &allowed.kinds);
    // An unknown protocol fits no kind, and is reported by itself.
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
                refuse(&mut judged, FalseCondition::new("InvalidRouteKinds", problem));
            }
        }
    }
    (kinds, judged)
}
