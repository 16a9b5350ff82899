//! EnvoyProxies: the supported fields, and warnings about the others.
//!
//! An EnvoyProxy applies to the GatewayClasses and Gateways that name it as their parameters. The
//! EnvoyProxy of a Gateway replaces that of its class, as in Envoy Gateway; the two are not merged.

use std::collections::HashMap;

use crate::api::envoy::{CustomTagType, EnvoyProxySpec, Tracing, TracingProviderType};
use crate::api::{EnvoyProxy, Kind, ObjectKey};

use super::backends::{BackendLookup, Resolved, resolve};
use super::verdict::Faults;

/// An EnvoyProxy with its references looked up.
#[derive(Debug)]
pub(crate) struct Proxy<'a> {
    pub object: &'a EnvoyProxy,
    pub key: ObjectKey,
    /// One entry for each of `spec.telemetry.tracing.provider.backendRefs`.
    pub collectors: Vec<Resolved<'a>>,
}

/// Every EnvoyProxy of a load, used or not.
#[derive(Debug, Default)]
pub(super) struct Proxies<'a> {
    /// In the order of their names.
    pub all: Vec<Proxy<'a>>,
    by_key: HashMap<ObjectKey, usize>,
}

impl Proxies<'_> {
    pub(super) fn find(&self, key: &ObjectKey) -> Option<usize> {
        self.by_key.get(key).copied()
    }
}

/// Looks up the references of all EnvoyProxies, and warns about unsupported fields.
pub(super) fn proxies<'a>(lookup: BackendLookup<'_, 'a>, faults: &mut Faults) -> Proxies<'a> {
    let mut proxies = Proxies::default();
    for object in &lookup.index.envoy_proxies {
        let metadata = &object.metadata;
        let key = ObjectKey::new(Kind::EnvoyProxy, metadata.namespace(), &metadata.name);
        tell_unserved(&object.spec, &key, faults);
        let collectors = match object.tracing() {
            Some(tracing) => {
                judge_tags(tracing, &key, faults);
                collectors(tracing, &key, lookup, faults)
            }
            None => Vec::new(),
        };
        proxies.by_key.insert(key.clone(), proxies.all.len());
        proxies.all.push(Proxy { object, key, collectors });
    }
    proxies
}

fn collectors<'a>(
    tracing: &Tracing,
    key: &ObjectKey,
    lookup: BackendLookup<'_, 'a>,
    faults: &mut Faults,
) -> Vec<Resolved<'a>> {
    let field = "spec.telemetry.tracing.provider";
    let provider = &tracing.provider;
    if *provider.kind() != TracingProviderType::OpenTelemetry && provider.kind().unknown().is_none()
    {
        let problem = format!(
            "traces are not sent to {}, and none is made; use OpenTelemetry, whose collector passes \
             them on",
            provider.kind()
        );
        faults.error(key, format!("{field}.type"), problem);
    }
    for (is_written, of, problem) in [
        (
            provider.backend_settings.is_some(),
            "provider.backendSettings",
            "is not served; this changes nothing",
        ),
        (
            provider.backend_refs.len() > 1,
            "provider.backendRefs[1]",
            "only the first is used; name one Service or Backend with several endpoints",
        ),
        (tracing.span_name.is_some(), "spanName", "is not served; spans have Envoy's names"),
        (!tracing.tags.is_empty(), "tags", "is not served and adds no tag; use `customTags`"),
    ] {
        if is_written {
            faults.warning(key, format!("spec.telemetry.tracing.{of}"), problem);
        }
    }
    let refs = provider.backend_refs.iter().enumerate();
    refs.map(|(place, reference)| {
        let resolved = resolve(reference.object(), key, lookup);
        if let Err(broken) = &resolved {
            let field = match broken.field {
                "" => format!("{field}.backendRefs[{place}]"),
                rest => format!("{field}.backendRefs[{place}].{rest}"),
            };
            faults.error_of(broken.origin(), key, field, &*broken.problem);
        }
        resolved
    })
    .collect()
}

/// Reports tags without the field that their type requires. Such a tag has no value and is left
/// out.
fn judge_tags(tracing: &Tracing, key: &ObjectKey, faults: &mut Faults) {
    for (name, tag) in &tracing.custom_tags {
        let lacks = match tag.kind() {
            CustomTagType::Literal => tag.literal.is_none().then_some("literal"),
            CustomTagType::Environment => tag.environment.is_none().then_some("environment"),
            CustomTagType::RequestHeader => tag.request_header.is_none().then_some("requestHeader"),
            CustomTagType::Unknown(_) => None,
        };
        if let Some(lacks) = lacks {
            let problem = format!("the type is {}, but `{lacks}` is missing; write it", tag.kind());
            faults.error(key, format!("spec.telemetry.tracing.customTags[\"{name}\"]"), problem);
        }
    }
}

/// Warns about settings of an Envoy process, and names the equivalent here.
fn tell_unserved(spec: &EnvoyProxySpec, key: &ObjectKey, faults: &mut Faults) {
    let telemetry = spec.telemetry.as_ref();
    for (field, is_written, instead) in [
        (
            "provider",
            spec.provider.is_some(),
            "the gateway is a service of this host, set up by its unit",
        ),
        (
            "logging",
            spec.logging.is_some(),
            "use `--log-level`, or `logging.level` of the EnvoyGateway document",
        ),
        ("bootstrap", spec.bootstrap.is_some(), "there is no Envoy here"),
        ("concurrency", spec.concurrency.is_some(), "use `--workers`"),
        ("extraArgs", spec.extra_args.is_some(), "there is no Envoy here"),
        (
            "mergeGateways",
            spec.merge_gateways.is_some(),
            "Gateways of one host share its ports in any case",
        ),
        ("shutdown", spec.shutdown.is_some(), "use `--drain-timeout`"),
        ("routingType", spec.routing_type.is_some(), ""),
        ("filterOrder", spec.filter_order.is_some(), ""),
        ("backendTLS", spec.backend_tls.is_some(), "use `spec.tls.backend` of the Gateway"),
        ("ipFamily", spec.ip_family.is_some(), ""),
        ("preserveRouteOrder", spec.preserve_route_order.is_some(), ""),
        ("luaValidation", spec.lua_validation.is_some(), ""),
        (
            "telemetry.metrics",
            telemetry.is_some_and(|of| of.metrics.is_some()),
            "metrics are at `--metrics-listen`",
        ),
        ("telemetry.requestID", telemetry.is_some_and(|of| of.request_id.is_some()), ""),
    ] {
        if is_written {
            let colon = if instead.is_empty() { "" } else { "; " };
            let problem = format!("is not served and changes nothing{colon}{instead}");
            faults.warning(key, format!("spec.{field}"), problem);
        }
    }
}
