//! The rules of Backend (gateway.envoyproxy.io).

use std::net::IpAddr;

use crate::api::envoy::{AppProtocol, BackendEndpoint, BackendSpec, BackendTls, BackendType};
use crate::config::path::Path;
use crate::config::scalar::shown;

use super::route;
use super::violations::Violations;

pub(super) fn spec(spec: &BackendSpec, at: Path<'_>, found: &mut Violations) {
    found.word(at.field("type"), spec.kind().unknown(), BackendType::WORDS);
    let endpoints = at.field("endpoints");
    if *spec.kind() == BackendType::DynamicResolver {
        let problem = "DynamicResolver type cannot have endpoints specified";
        found.require(spec.endpoints.is_empty(), endpoints, problem);
    } else {
        found.count(endpoints, spec.endpoints.len(), 1..=64);
    }
    for (index, spec) in spec.endpoints.iter().enumerate() {
        endpoint(spec, endpoints.item(index), found);
    }
    let named = spec.endpoints.iter().filter(|endpoint| endpoint.fqdn.is_some()).count();
    let problem = "fqdn addresses cannot be mixed with other address types";
    found.require(named == 0 || named == spec.endpoints.len(), endpoints, problem);

    let protocols = at.field("appProtocols");
    for (index, protocol) in spec.app_protocols.iter().enumerate() {
        found.word(protocols.item(index), protocol.unknown(), AppProtocol::WORDS);
    }
    if let Some(spec) = &spec.tls {
        tls(spec, at.field("tls"), found);
    }
}

fn endpoint(endpoint: &BackendEndpoint, at: Path<'_>, found: &mut Violations) {
    let kinds = [endpoint.fqdn.is_some(), endpoint.ip.is_some(), endpoint.unix.is_some()];
    match kinds.into_iter().filter(|is_set| *is_set).count() {
        0 => found.add(at, "one of fqdn, ip or unix must be specified"),
        1 => {}
        _ => found.add(at, "only one of fqdn, ip or unix can be specified"),
    }
    if let Some(hostname) = &endpoint.hostname {
        found.precise_hostname(at.field("hostname"), hostname);
    }
    if let Some(fqdn) = &endpoint.fqdn {
        let at = at.field("fqdn");
        found.precise_hostname(at.field("hostname"), &fqdn.hostname);
        found.port(at.field("port"), fqdn.port);
    }
    if let Some(ip) = &endpoint.ip {
        let at = at.field("ip");
        if ip.address.parse::<IpAddr>().is_err() {
            let problem =
                format!("`{}` is not an IP address; use `fqdn` for a name", shown(&ip.address));
            found.add(at.field("address"), problem);
        }
        found.port(at.field("port"), ip.port);
    }
    if let Some(unix) = &endpoint.unix {
        let at = at.field("unix");
        let problem = "unix domain socket path must not exceed 108 characters";
        found.require(unix.path.len() <= 108, at.field("path"), problem);
        found.require(!unix.path.is_empty(), at.field("path"), "the path is empty");
    }
}

fn tls(tls: &BackendTls, at: Path<'_>, found: &mut Violations) {
    let has_refs = !tls.ca_certificate_refs.is_empty();
    let is_known = tls.well_known_ca_certificates.as_deref().is_some_and(|word| !word.is_empty());
    let problem = "must not contain both CACertificateRefs and WellKnownCACertificates";
    found.require(!(has_refs && is_known), at, problem);
    let skips = tls.insecure_skip_verify == Some(true);
    let problem = "must not contain either CACertificateRefs or WellKnownCACertificates when \
                   InsecureSkipVerify is enabled";
    found.require(!skips || !(has_refs || is_known), at, problem);
    let refs = at.field("caCertificateRefs");
    found.count(refs, tls.ca_certificate_refs.len(), 0..=8);
    for (index, reference) in tls.ca_certificate_refs.iter().enumerate() {
        route::extension(reference, refs.item(index), found);
    }
}
