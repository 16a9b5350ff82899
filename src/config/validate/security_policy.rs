//! The rules of SecurityPolicy: those of Envoy Gateway's CRD for the supported fields.

use http::Method;

use crate::api::envoy::{PolicyCors, SecurityPolicySpec};
use crate::config::path::Path;
use crate::config::scalar::shown;

use super::http_route::is_origin;
use super::policy_targets;
use super::violations::Violations;

pub(super) fn spec(spec: &SecurityPolicySpec, at: Path<'_>, found: &mut Violations) {
    policy_targets::spec(spec, at, found);
    if let Some(spec) = &spec.cors {
        cors(spec, at.field("cors"), found);
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
