//! The rules of GatewayClass, Gateway and ListenerSet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::api::{
    AddressType, DefaultScope, FromNamespaces, FrontendTlsSettings, FrontendValidationMode,
    GatewayAddress, GatewayClassSpec, GatewayInfrastructure, GatewaySpec, GatewayTls, Listener,
    ListenerNamespaces, ListenerSetSpec, ListenerTls, Protocol, SecretObjectReference, TlsMode,
};
use crate::config::names;
use crate::config::path::Path;
use crate::config::scalar::shown;

use super::violations::{Reference, Violations};

pub(super) fn class(spec: &GatewayClassSpec, at: Path<'_>, found: &mut Violations) {
    let controller = &spec.controller_name;
    let is_controller = controller.split_once('/').is_some_and(|(domain, path)| {
        names::subdomain(domain).is_ok() && !path.is_empty() && path.bytes().all(is_path_byte)
    });
    if !is_controller || controller.len() > 253 {
        let problem = format!(
            "`{}` is not a controller name; write it like `gateway.envoyproxy.io/gatewayclass-controller`",
            shown(controller)
        );
        found.add(at.field("controllerName"), problem);
    }
    if let Some(description) = &spec.description {
        found.length(at.field("description"), description, 0..=64);
    }
    if let Some(parameters) = &spec.parameters_ref {
        let to = Reference {
            group: Some(&parameters.group),
            kind: Some(&parameters.kind),
            name: &parameters.name,
            namespace: parameters.namespace.as_deref(),
        };
        found.reference(at.field("parametersRef"), to);
    }
}

pub(super) fn gateway(spec: &GatewaySpec, at: Path<'_>, found: &mut Violations) {
    found.length(at.field("gatewayClassName"), &spec.gateway_class_name, 1..=253);
    listeners(&spec.listeners, at.field("listeners"), found);
    addresses(&spec.addresses, at.field("addresses"), found);
    if let Some(spec) = &spec.infrastructure {
        infrastructure(spec, at.field("infrastructure"), found);
    }
    if let Some(namespaces_spec) =
        spec.allowed_listeners.as_ref().and_then(|a| a.namespaces.as_ref())
    {
        let at = at.field("allowedListeners");
        namespaces(
            namespaces_spec,
            &["All", "Selector", "Same", "None"],
            at.field("namespaces"),
            found,
        );
    }
    if let Some(spec) = &spec.tls {
        tls(spec, at.field("tls"), found);
    }
    if let Some(scope) = &spec.default_scope {
        found.word(at.field("defaultScope"), scope.unknown(), DefaultScope::WORDS);
    }
}

pub(super) fn listener_set(spec: &ListenerSetSpec, at: Path<'_>, found: &mut Violations) {
    let parent = &spec.parent_ref;
    let to = Reference {
        group: parent.group.as_deref(),
        kind: parent.kind.as_deref(),
        name: &parent.name,
        namespace: parent.namespace.as_deref(),
    };
    found.reference(at.field("parentRef"), to);
    listeners(&spec.listeners, at.field("listeners"), found);
}

fn listeners(listeners: &[Listener], at: Path<'_>, found: &mut Violations) {
    found.count(at, listeners.len(), 1..=64);
    for (index, spec) in listeners.iter().enumerate() {
        listener(spec, at.item(index), found);
    }
    let names = listeners.iter().map(|listener| &listener.name);
    found.unique(at, names, "Listener name must be unique within the Gateway");
    let places = listeners.iter().map(|l| (l.port, &l.protocol, l.hostname.as_deref()));
    let problem = "Combination of port, protocol and hostname must be unique for each listener";
    found.unique(at, places, problem);
}

fn listener(listener: &Listener, at: Path<'_>, found: &mut Violations) {
    found.section_name(at.field("name"), &listener.name);
    if let Some(hostname) = &listener.hostname {
        found.hostname(at.field("hostname"), hostname);
    }
    found.port(at.field("port"), listener.port);
    // An unknown protocol is reported in the status and is not a violation; an empty one is a
    // violation.
    let protocol_at = at.field("protocol");
    found.length(protocol_at, listener.protocol.as_str(), 1..=255);
    if !listener.protocol.as_str().is_empty() && !is_protocol(listener.protocol.as_str()) {
        let problem = format!(
            "`{}` is not a protocol; use letters and digits, behind a domain and `/` for one of \
             somebody's own",
            shown(listener.protocol.as_str())
        );
        found.add(protocol_at, problem);
    }

    let (protocol, tls) = (&listener.protocol, listener.tls.as_ref());
    if matches!(protocol, Protocol::Http | Protocol::Tcp | Protocol::Udp) {
        let problem = "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']";
        found.require(tls.is_none(), at.field("tls"), problem);
    }
    if *protocol == Protocol::Https {
        let terminates = tls.is_none_or(|tls| *tls.mode() == TlsMode::Terminate);
        found.require(terminates, at.field("tls"), "tls mode must be Terminate for protocol HTTPS");
    }
    if *protocol == Protocol::Tls {
        found.require(tls.is_some(), at, "tls mode must be set for protocol TLS");
    }
    if matches!(protocol, Protocol::Tcp | Protocol::Udp) {
        let problem = "hostname must not be specified for protocols ['TCP', 'UDP']";
        found.require(listener.hostname().is_none(), at.field("hostname"), problem);
    }
    if let Some(tls) = tls {
        listener_tls(tls, at.field("tls"), found);
    }
    if let Some(allowed) = &listener.allowed_routes {
        let at = at.field("allowedRoutes");
        if let Some(spec) = &allowed.namespaces {
            namespaces(spec, &["All", "Selector", "Same"], at.field("namespaces"), found);
        }
        let at = at.field("kinds");
        found.count(at, allowed.kinds.len(), 0..=8);
        for (index, kind) in allowed.kinds.iter().enumerate() {
            let at = at.item(index);
            found.group(at.field("group"), kind.group());
            found.kind(at.field("kind"), &kind.kind);
        }
    }
}

fn listener_tls(tls: &ListenerTls, at: Path<'_>, found: &mut Violations) {
    if let Some(mode) = &tls.mode {
        found.word(at.field("mode"), mode.unknown(), TlsMode::WORDS);
    }
    if *tls.mode() == TlsMode::Terminate {
        let problem = "certificateRefs or options must be specified when mode is Terminate";
        found.require(!tls.certificate_refs.is_empty() || !tls.options.is_empty(), at, problem);
    }
    let refs = at.field("certificateRefs");
    found.count(refs, tls.certificate_refs.len(), 0..=64);
    for (index, reference) in tls.certificate_refs.iter().enumerate() {
        secret(reference, refs.item(index), found);
    }
    let at = at.field("options");
    found.count(at, tls.options.len(), 0..=16);
    for (option, value) in &tls.options {
        found.length(at.field(option), value, 0..=4096);
    }
}

/// Checks the pattern of a protocol. Upstream anchors only its first alternative at both ends.
fn is_protocol(text: &str) -> bool {
    let ends = |text: &str| {
        let ends = [text.bytes().next(), text.bytes().last()];
        ends.iter().all(|b| b.is_some_and(|b| b.is_ascii_alphanumeric()))
    };
    let is_word = ends(text) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    is_word || has_domain_and_path(text, |b| b.is_ascii_alphanumeric())
}

/// Returns true if `text` ends in a domain, `/` and a path of these bytes. Text before the domain
/// does not matter, because upstream's patterns are not anchored there.
fn has_domain_and_path(text: &str, path: impl Fn(u8) -> bool) -> bool {
    text.match_indices('/').any(|(slash, _)| {
        let (before, after) = (&text[..slash], &text[slash + 1..]);
        let domain =
            before.bytes().last().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        domain && !after.is_empty() && after.bytes().all(&path)
    })
}

fn secret(reference: &SecretObjectReference, at: Path<'_>, found: &mut Violations) {
    let to = Reference {
        group: reference.group.as_deref(),
        kind: reference.kind.as_deref(),
        name: &reference.name,
        namespace: reference.namespace.as_deref(),
    };
    found.reference(at, to);
}

fn namespaces(spec: &ListenerNamespaces, words: &[&str], at: Path<'_>, found: &mut Violations) {
    let from = spec.from.as_ref().map(FromNamespaces::as_str);
    found.word(at.field("from"), from.filter(|from| !words.contains(from)), words);
}

fn addresses(addresses: &[GatewayAddress], at: Path<'_>, found: &mut Violations) {
    found.count(at, addresses.len(), 0..=16);
    for (index, address) in addresses.iter().enumerate() {
        let at = at.item(index);
        let (kind, value) = (at.field("type"), at.field("value"));
        found.length(kind, address.kind().as_str(), 1..=253);
        if !address.kind().as_str().is_empty() && !is_address_type(address.kind().as_str()) {
            let problem = format!(
                "`{}` is not a type of addresses; use IPAddress",
                shown(address.kind().as_str())
            );
            found.add(kind, problem);
        }
        found.length(value, address.value.as_deref().unwrap_or_default(), 0..=253);
        if let (AddressType::IpAddress, Some(address)) = (address.kind(), &address.value)
            && !is_ip(address)
        {
            let problem = format!(
                "`{}` is not an IP address; write it like `192.0.2.1`, or leave the field out",
                shown(address)
            );
            found.add(value, problem);
        }
        if let (AddressType::Hostname, Some(host)) = (address.kind(), &address.value) {
            let problem = "Hostname value must be empty or contain only valid characters (matching \
                           ^(\\*\\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$)";
            found.require(names::hostname(host).is_ok(), value, problem);
        }
    }
    for (kind, problem) in [
        (AddressType::IpAddress, "IPAddress values must be unique"),
        (AddressType::Hostname, "Hostname values must be unique"),
    ] {
        // An address of another type, or without a value, is distinguished by its index.
        let values = addresses.iter().enumerate().map(|(index, address)| {
            match address.value.as_deref().filter(|_| *address.kind() == kind) {
                Some(value) => (None, value),
                None => (Some(index), ""),
            }
        });
        found.unique(at, values, problem);
    }
}

/// Checks the formats `ipv4` and `ipv6` of an API server, which accepts leading zeros in IPv4.
fn is_ip(text: &str) -> bool {
    let is_part = |part: &str| {
        part.bytes().all(|b| b.is_ascii_digit())
            && (part.trim_start_matches('0').parse::<u8>().is_ok()
                || (!part.is_empty() && part.bytes().all(|b| b == b'0')))
    };
    text.parse::<IpAddr>().is_ok() || (text.split('.').count() == 4 && text.split('.').all(is_part))
}

/// Checks the pattern of an address type; its alternatives are as little anchored as upstream's.
fn is_address_type(text: &str) -> bool {
    text.starts_with("Hostname")
        || ["IPAddress", "NamedAddress"].iter().any(|word| text.contains(word))
        || has_domain_and_path(text, is_path_byte)
}

/// Returns true for a byte that is valid after the `/` of a name with a domain.
fn is_path_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)
}

fn infrastructure(spec: &GatewayInfrastructure, at: Path<'_>, found: &mut Violations) {
    keys(&spec.labels, 8, "Label", "label", at.field("labels"), found);
    keys(&spec.annotations, 16, "Annotation", "annotation", at.field("annotations"), found);
    for (key, value) in &spec.labels {
        let labels = at.field("labels");
        let ends = |text: &str| {
            let ends = [text.bytes().next(), text.bytes().last()];
            ends.iter().all(|b| b.is_none_or(|b| b.is_ascii_alphanumeric()))
        };
        let letters = value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if value.len() > 63 || !letters || !ends(value) {
            let problem = format!(
                "`{}` is not a label value; use at most 63 letters, digits, `-`, `_` and `.`",
                shown(value)
            );
            found.add(labels.field(key), problem);
        }
    }
    for (key, value) in &spec.annotations {
        let annotations = at.field("annotations");
        found.length(annotations.field(key), value, 0..=4096);
    }
    if let Some(parameters) = &spec.parameters_ref {
        let to = Reference {
            group: Some(&parameters.group),
            kind: Some(&parameters.kind),
            name: &parameters.name,
            namespace: None,
        };
        found.reference(at.field("parametersRef"), to);
    }
}

fn keys(
    map: &BTreeMap<String, String>,
    most: usize,
    at_the_start: &str,
    within: &str,
    at: Path<'_>,
    found: &mut Violations,
) {
    found.count(at, map.len(), 0..=most);
    for key in map.keys() {
        let (prefix, name) = match key.split_once('/') {
            Some((prefix, name)) => (Some(prefix), name),
            None => (None, key.as_str()),
        };
        let ends = [name.bytes().next(), name.bytes().last()];
        let is_name = name.len() <= 63
            && ends.iter().all(|b| b.is_some_and(|b| b.is_ascii_alphanumeric()))
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !is_name || prefix.is_some_and(|prefix| names::subdomain(prefix).is_err()) {
            let problem = format!(
                "{at_the_start} keys must be in the form of an optional DNS subdomain prefix followed \
                 by a required name segment of up to 63 characters."
            );
            found.add(at.field(key), problem);
        }
        if key.split('/').next().is_some_and(|prefix| prefix.len() >= 253) {
            let problem = format!(
                "If specified, the {within} key's prefix must be a DNS subdomain not longer than 253 \
                 characters in total."
            );
            found.add(at.field(key), problem);
        }
    }
}

fn tls(tls: &GatewayTls, at: Path<'_>, found: &mut Violations) {
    if let Some(reference) = tls.backend.as_ref().and_then(|b| b.client_certificate_ref.as_ref()) {
        let at = at.field("backend");
        secret(reference, at.field("clientCertificateRef"), found);
    }
    let Some(frontend) = &tls.frontend else { return };
    let at = at.field("frontend");
    frontend_settings(&frontend.default, at.field("default"), found);
    let at = at.field("perPort");
    found.count(at, frontend.per_port.len(), 0..=64);
    for (index, spec) in frontend.per_port.iter().enumerate() {
        let at = at.item(index);
        found.port(at.field("port"), spec.port);
        frontend_settings(&spec.tls, at.field("tls"), found);
    }
    let ports = frontend.per_port.iter().map(|spec| spec.port);
    found.unique(at, ports, "Port for TLS configuration must be unique within the Gateway");
}

fn frontend_settings(settings: &FrontendTlsSettings, at: Path<'_>, found: &mut Violations) {
    let Some(validation) = &settings.validation else { return };
    let at = at.field("validation");
    if let Some(mode) = &validation.mode {
        found.word(at.field("mode"), mode.unknown(), FrontendValidationMode::WORDS);
    }
    let at = at.field("caCertificateRefs");
    found.count(at, validation.ca_certificate_refs.len(), 1..=16);
    for (index, reference) in validation.ca_certificate_refs.iter().enumerate() {
        let to = Reference {
            group: Some(&reference.group),
            kind: Some(&reference.kind),
            name: &reference.name,
            namespace: reference.namespace.as_deref(),
        };
        found.reference(at.item(index), to);
    }
}
