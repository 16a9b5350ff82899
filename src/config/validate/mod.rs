//! The rules of each kind that need no other object: limits, required parts, words.
//!
//! They are the rules of the CRDs (OpenAPI and CEL) of the Gateway API 1.6.1, experimental channel,
//! against which an API server checks every object; for the kinds of Envoy Gateway, those of its 1.9.
//! If upstream has a message, the message here is
//! the same word for word, so that a search finds it.
//!
//! The validity of regular expressions is not checked here; `compile` finds that out by compiling
//! them.

mod backend;
mod backend_settings;
mod backend_tls_policy;
mod backend_traffic_policy;
mod client_tls;
mod client_traffic_policy;
mod envoy_proxy;
mod gateway;
mod grpc_route;
mod health_check;
mod http_route;
mod l4_route;
mod load_balancer;
mod policy_targets;
mod rate_limit;
mod reference_grant;
mod response_override;
mod route;
mod security_policy;
mod string_match;
mod violations;

use crate::api::Object;

use super::fault::Fault;
use super::path::Path;

pub(crate) use self::http_route::{is_origin, is_path};
use self::violations::Violations;

/// Returns a fault for each rule that the object breaks.
pub(super) fn object(object: &Object) -> Vec<Fault> {
    let mut found = Violations::of(object.key());
    let spec = Path::Root.field("spec");
    match object {
        Object::GatewayClass(class) => gateway::class(&class.spec, spec, &mut found),
        Object::Gateway(gateway) => gateway::gateway(&gateway.spec, spec, &mut found),
        Object::ListenerSet(set) => gateway::listener_set(&set.spec, spec, &mut found),
        Object::HttpRoute(route) => http_route::spec(&route.spec, spec, &mut found),
        Object::GrpcRoute(route) => grpc_route::spec(&route.spec, spec, &mut found),
        Object::TlsRoute(route) => l4_route::tls(&route.spec, spec, &mut found),
        Object::TcpRoute(route) => l4_route::tcp(&route.spec, spec, &mut found),
        Object::UdpRoute(route) => l4_route::udp(&route.spec, spec, &mut found),
        Object::ReferenceGrant(grant) => reference_grant::spec(&grant.spec, spec, &mut found),
        Object::Backend(backend) => backend::spec(&backend.spec, spec, &mut found),
        Object::EnvoyProxy(proxy) => envoy_proxy::spec(&proxy.spec, spec, &mut found),
        Object::BackendTlsPolicy(policy) => {
            backend_tls_policy::spec(&policy.spec, spec, &mut found);
        }
        Object::BackendTrafficPolicy(policy) => {
            backend_traffic_policy::policy(policy, spec, &mut found);
        }
        Object::ClientTrafficPolicy(policy) => {
            client_traffic_policy::policy(policy, spec, &mut found);
        }
        Object::SecurityPolicy(policy) => {
            security_policy::policy(policy, spec, &mut found);
        }
        // These are checked where other objects refer to them.
        Object::RouteFilter(_)
        | Object::Secret(_)
        | Object::ConfigMap(_)
        | Object::Service(_)
        | Object::EndpointSlice(_)
        | Object::Namespace(_)
        | Object::Unsupported(_) => {}
    }
    found.into_vec()
}
