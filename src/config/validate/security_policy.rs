//! SecurityPolicy: the rules of Envoy Gateway's CRD for the fields that are served.

use http::Method;

use crate::api::envoy::{PolicyCors, PolicyTarget, SecurityPolicySpec};
use crate::config::path::Path;
use crate::config::scalar::shown;

use super::http_route::is_origin;
use super::violations::{Reference, Violations};

pub(super) fn spec(spec: &SecurityPolicySpec, at: Path<'_>, found: &mut Violations) {
    let (one, many) = (spec.target_ref.is_some(), !spec.target_refs.is_empty());
    let selects = !spec.target_selectors.is_empty();
    let problem = "either targetRef or targetRefs must be used";
    found.require(!(one && many) && (one || many || selects), at, problem);
    if let Some(reference) = &spec.target_ref {
        target(reference, at.field("targetRef"), found);
    }
    for (index, reference) in spec.target_refs.iter().enumerate() {
        target(reference, at.field("targetRefs").item(index), found);
    }
    if let Some(spec) = &spec.cors {
        cors(spec, at.field("cors"), found);
    }
}

fn target(target: &PolicyTarget, at: Path<'_>, found: &mut Violations) {
    let PolicyTarget { group, kind, name, section_name } = target;
    let to = Reference { group: group.as_deref(), kind: Some(kind), name, namespace: None };
    found.reference(at, to);
    if let Some(section) = section_name {
        found.section_name(at.field("sectionName"), section);
    }
}

fn cors(cors: &PolicyCors, at: Path<'_>, found: &mut Violations) {
    for (index, origin) in cors.allow_origins.iter().enumerate() {
        let port = origin.rsplit_once(':').and_then(|(_, port)| port.parse::<u32>().ok());
        if !is_origin(origin) || port.is_some_and(|port| port == 0 || port > 65535) {
            let problem = format!(
                "`{}` is not an origin; write it like `https://shop.example`, \
                 `https://*.shop.example` or `*`",
                shown(origin)
            );
            found.add(at.field("allowOrigins").item(index), problem);
        }
    }
    for (index, method) in cors.allow_methods.iter().enumerate() {
        if method != "*" && Method::from_bytes(method.as_bytes()).is_err() {
            let problem = format!("`{}` is not a method", shown(method));
            found.add(at.field("allowMethods").item(index), problem);
        }
    }
    let headers = [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)];
    for (field, headers) in headers {
        for (index, header) in headers.iter().enumerate().filter(|(_, header)| *header != "*") {
            found.header_name(at.field(field).item(index), header);
        }
    }
}
