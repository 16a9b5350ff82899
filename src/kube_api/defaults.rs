//! The defaults that an API server fills in for absent fields: those of the CRDs and of the core
//! kinds.
//!
//! Objects are decoded and served without them (there, a default is a method). They are for clients
//! that read an object over the API, and for detecting whether its meaning has changed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// A field (`[]` for every item of a list, `{}` for every key) and its default as JSON. It is filled in only if the
/// parent of the field is written.
type Default = (&'static str, &'static str);

const PARENTS: &[Default] = &[
    ("spec.parentRefs[].group", r#""gateway.networking.k8s.io""#),
    ("spec.parentRefs[].kind", r#""Gateway""#),
];

const BACKENDS: &[Default] = &[
    ("spec.rules[].backendRefs[].group", r#""""#),
    ("spec.rules[].backendRefs[].kind", r#""Service""#),
    ("spec.rules[].backendRefs[].weight", "1"),
];

const LISTENERS: &[Default] = &[
    ("spec.listeners[].allowedRoutes", r#"{"namespaces":{"from":"Same"}}"#),
    ("spec.listeners[].allowedRoutes.namespaces", r#"{"from":"Same"}"#),
    ("spec.listeners[].allowedRoutes.namespaces.from", r#""Same""#),
    ("spec.listeners[].allowedRoutes.kinds[].group", r#""gateway.networking.k8s.io""#),
    ("spec.listeners[].tls.mode", r#""Terminate""#),
    ("spec.listeners[].tls.certificateRefs[].group", r#""""#),
    ("spec.listeners[].tls.certificateRefs[].kind", r#""Secret""#),
];

const GATEWAY: &[Default] = &[
    ("spec.addresses[].type", r#""IPAddress""#),
    ("spec.allowedListeners.namespaces", r#"{"from":"None"}"#),
    ("spec.allowedListeners.namespaces.from", r#""None""#),
    ("spec.tls.backend.clientCertificateRef.group", r#""""#),
    ("spec.tls.backend.clientCertificateRef.kind", r#""Secret""#),
    ("spec.tls.frontend.default.validation.mode", r#""AllowValidOnly""#),
    ("spec.tls.frontend.perPort[].tls.validation.mode", r#""AllowValidOnly""#),
    (
        "status",
        r#"{"conditions":[
            {"lastTransitionTime":"1970-01-01T00:00:00Z","message":"Waiting for controller",
             "reason":"Pending","status":"Unknown","type":"Accepted"},
            {"lastTransitionTime":"1970-01-01T00:00:00Z","message":"Waiting for controller",
             "reason":"Pending","status":"Unknown","type":"Programmed"}]}"#,
    ),
];

const GATEWAY_CLASS: &[Default] = &[(
    "status",
    r#"{"conditions":[
        {"lastTransitionTime":"1970-01-01T00:00:00Z","message":"Waiting for controller",
         "reason":"Pending","status":"Unknown","type":"Accepted"}]}"#,
)];

const LISTENER_SET: &[Default] = &[
    ("spec.parentRef.group", r#""gateway.networking.k8s.io""#),
    ("spec.parentRef.kind", r#""Gateway""#),
    (
        "status",
        r#"{"conditions":[
            {"lastTransitionTime":"1970-01-01T00:00:00Z","message":"Waiting for controller",
             "reason":"Pending","status":"Unknown","type":"Accepted"},
            {"lastTransitionTime":"1970-01-01T00:00:00Z","message":"Waiting for controller",
             "reason":"Pending","status":"Unknown","type":"Programmed"}]}"#,
    ),
];

const HTTP_ROUTE: &[Default] = &[
    ("spec.rules", r#"[{"matches":[{"path":{"type":"PathPrefix","value":"/"}}]}]"#),
    ("spec.rules[].matches", r#"[{"path":{"type":"PathPrefix","value":"/"}}]"#),
    ("spec.rules[].matches[].path", r#"{"type":"PathPrefix","value":"/"}"#),
    ("spec.rules[].matches[].path.type", r#""PathPrefix""#),
    ("spec.rules[].matches[].path.value", r#""/""#),
    ("spec.rules[].matches[].headers[].type", r#""Exact""#),
    ("spec.rules[].matches[].queryParams[].type", r#""Exact""#),
    ("spec.rules[].sessionPersistence.type", r#""Cookie""#),
    ("spec.rules[].sessionPersistence.cookieConfig.lifetimeType", r#""Session""#),
];

const GRPC_ROUTE: &[Default] = &[
    ("spec.rules[].matches[].method.type", r#""Exact""#),
    ("spec.rules[].matches[].headers[].type", r#""Exact""#),
    ("spec.rules[].sessionPersistence.type", r#""Cookie""#),
    ("spec.rules[].sessionPersistence.cookieConfig.lifetimeType", r#""Session""#),
];

/// Defaults below each place of a filter.
const FILTERS: &[Default] = &[
    ("filters[].requestMirror.backendRef.group", r#""""#),
    ("filters[].requestMirror.backendRef.kind", r#""Service""#),
    ("filters[].requestMirror.fraction.denominator", "100"),
    ("filters[].requestRedirect.statusCode", "302"),
    ("filters[].cors.maxAge", "5"),
    ("filters[].externalAuth.backendRef.group", r#""""#),
    ("filters[].externalAuth.backendRef.kind", r#""Service""#),
];

const TRAFFIC_POLICY: &[Default] = &[
    ("spec.circuitBreaker.maxConnections", "1024"),
    ("spec.circuitBreaker.maxParallelRequests", "1024"),
    ("spec.circuitBreaker.maxParallelRetries", "1024"),
    ("spec.circuitBreaker.maxPendingRequests", "1024"),
    ("spec.circuitBreaker.perEndpoint.maxConnections", "1024"),
    ("spec.circuitBreaker.retryBudget.percent.denominator", "100"),
    ("spec.faultInjection.abort.percentage", "100"),
    ("spec.faultInjection.delay.percentage", "100"),
    ("spec.healthCheck.active.healthyThreshold", "1"),
    ("spec.healthCheck.active.interval", r#""3s""#),
    ("spec.healthCheck.active.timeout", r#""1s""#),
    ("spec.healthCheck.active.unhealthyThreshold", "3"),
    ("spec.healthCheck.passive.alwaysEjectOneEndpoint", "false"),
    ("spec.healthCheck.passive.baseEjectionTime", r#""30s""#),
    ("spec.healthCheck.passive.consecutive5XxErrors", "5"),
    ("spec.healthCheck.passive.consecutiveLocalOriginFailures", "5"),
    ("spec.healthCheck.passive.interval", r#""3s""#),
    ("spec.healthCheck.passive.maxEjectionPercent", "10"),
    ("spec.healthCheck.passive.splitExternalLocalOriginErrors", "false"),
    ("spec.loadBalancer.backendUtilization.keepResponseHeaders", "false"),
    ("spec.loadBalancer.consistentHash.tableSize", "65537"),
    ("spec.rateLimit.global.rules[].clientSelectors[].headers[].invert", "false"),
    ("spec.rateLimit.global.rules[].clientSelectors[].headers[].type", r#""Exact""#),
    ("spec.rateLimit.global.rules[].clientSelectors[].methods[].invert", "false"),
    ("spec.rateLimit.global.rules[].clientSelectors[].path.invert", "false"),
    ("spec.rateLimit.global.rules[].clientSelectors[].path.type", r#""PathPrefix""#),
    ("spec.rateLimit.global.rules[].clientSelectors[].path.value", r#""/""#),
    ("spec.rateLimit.global.rules[].clientSelectors[].queryParams[].invert", "false"),
    ("spec.rateLimit.global.rules[].clientSelectors[].queryParams[].type", r#""Exact""#),
    ("spec.rateLimit.global.rules[].clientSelectors[].sourceCIDR.invert", "false"),
    ("spec.rateLimit.global.rules[].clientSelectors[].sourceCIDR.type", r#""Exact""#),
    ("spec.rateLimit.local.rules[].clientSelectors[].headers[].invert", "false"),
    ("spec.rateLimit.local.rules[].clientSelectors[].headers[].type", r#""Exact""#),
    ("spec.rateLimit.local.rules[].clientSelectors[].methods[].invert", "false"),
    ("spec.rateLimit.local.rules[].clientSelectors[].path.invert", "false"),
    ("spec.rateLimit.local.rules[].clientSelectors[].path.type", r#""PathPrefix""#),
    ("spec.rateLimit.local.rules[].clientSelectors[].path.value", r#""/""#),
    ("spec.rateLimit.local.rules[].clientSelectors[].queryParams[].invert", "false"),
    ("spec.rateLimit.local.rules[].clientSelectors[].queryParams[].type", r#""Exact""#),
    ("spec.rateLimit.local.rules[].clientSelectors[].sourceCIDR.invert", "false"),
    ("spec.rateLimit.local.rules[].clientSelectors[].sourceCIDR.type", r#""Exact""#),
    ("spec.responseOverride[].match.responseHeaders[].value.type", r#""Exact""#),
    ("spec.responseOverride[].match.statusCodes[].type", r#""Value""#),
    ("spec.responseOverride[].redirect.statusCode", "302"),
    ("spec.responseOverride[].response.body.type", r#""Inline""#),
    ("spec.retry.numRetries", "2"),
    ("spec.targetSelectors[].group", r#""gateway.networking.k8s.io""#),
    ("spec.targetSelectors[].namespaces.from", r#""Same""#),
    ("spec.telemetry.tracing.clientSamplingFraction.denominator", "100"),
    ("spec.telemetry.tracing.customTags.{}.type", r#""Literal""#),
    ("spec.telemetry.tracing.overallSamplingFraction.denominator", "100"),
    ("spec.telemetry.tracing.samplingFraction.denominator", "100"),
];

const CLIENT_POLICY: &[Default] = &[
    ("spec.connection.maxAcceptPerSocketEvent", "1"),
    ("spec.headers.earlyRequestHeaders.removeOnMatch[].type", r#""Exact""#),
    ("spec.headers.lateResponseHeaders.removeOnMatch[].type", r#""Exact""#),
    ("spec.http1.ignoredUpgradeTypes[].type", r#""Exact""#),
    ("spec.targetSelectors[].group", r#""gateway.networking.k8s.io""#),
    ("spec.targetSelectors[].namespaces.from", r#""Same""#),
    ("spec.tls.clientValidation.caCertificateRefs[].group", r#""""#),
    ("spec.tls.clientValidation.caCertificateRefs[].kind", r#""Secret""#),
    ("spec.tls.clientValidation.crl.refs[].group", r#""""#),
    ("spec.tls.clientValidation.crl.refs[].kind", r#""Secret""#),
    ("spec.tls.clientValidation.subjectAltNames.dnsNames[].type", r#""Exact""#),
    ("spec.tls.clientValidation.subjectAltNames.emailAddresses[].type", r#""Exact""#),
    ("spec.tls.clientValidation.subjectAltNames.ipAddresses[].type", r#""Exact""#),
    ("spec.tls.clientValidation.subjectAltNames.otherNames[].type", r#""Exact""#),
    ("spec.tls.clientValidation.subjectAltNames.uris[].type", r#""Exact""#),
];

const SERVICE: &[Default] = &[
    ("spec.type", r#""ClusterIP""#),
    ("spec.sessionAffinity", r#""None""#),
    ("spec.ports[].protocol", r#""TCP""#),
    ("status", r#"{"loadBalancer":{}}"#),
];

const ENDPOINT_SLICE: &[Default] = &[("ports[].name", r#""""#), ("ports[].protocol", r#""TCP""#)];

const NAMESPACE: &[Default] = &[("status", r#"{"phase":"Active"}"#)];

/// Fills in the defaults of `kind`.
pub(super) fn fill(kind: &str, object: &mut Value) {
    let each = |object: &mut Value, tables: &[&[Default]]| {
        for (field, default) in tables.iter().copied().flatten() {
            put(object, field, default);
        }
    };
    match kind {
        "GatewayClass" => each(object, &[GATEWAY_CLASS]),
        "Gateway" => each(object, &[LISTENERS, GATEWAY]),
        "ListenerSet" => each(object, &[LISTENERS, LISTENER_SET]),
        "HTTPRoute" | "GRPCRoute" => {
            let own = if kind == "HTTPRoute" { HTTP_ROUTE } else { GRPC_ROUTE };
            each(object, &[PARENTS, own, BACKENDS]);
            for before in ["spec.rules[]", "spec.rules[].backendRefs[]"] {
                for (field, default) in FILTERS {
                    put(object, &format!("{before}.{field}"), default);
                }
            }
        }
        "TLSRoute" | "TCPRoute" | "UDPRoute" => each(object, &[PARENTS, BACKENDS]),
        "Service" => {
            each(object, &[SERVICE]);
            let ports = object.pointer_mut("/spec/ports").and_then(Value::as_array_mut);
            for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
                if let Some(number) = port.get("port").cloned() {
                    port.entry("targetPort").or_insert(number);
                }
            }
        }
        "EndpointSlice" => each(object, &[ENDPOINT_SLICE]),
        "Namespace" => each(object, &[NAMESPACE]),
        "BackendTrafficPolicy" => each(object, &[TRAFFIC_POLICY]),
        "ClientTrafficPolicy" => each(object, &[CLIENT_POLICY]),
        "Secret" => secret(object),
        _ => {}
    }
}

/// Returns the defaults of a kind of Envoy Gateway, as JSON by field; `{}` stands for each key of a
/// mapping.
pub(crate) fn defaults(kind: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let of_kind = match kind {
        "BackendTrafficPolicy" => TRAFFIC_POLICY,
        "ClientTrafficPolicy" => CLIENT_POLICY,
        _ => &[],
    };
    of_kind.iter().copied()
}

fn put(object: &mut Value, field: &str, default: &str) {
    let (step, rest) = match field.split_once('.') {
        Some((step, rest)) => (step, Some(rest)),
        None => (field, None),
    };
    let Some(fields) = object.as_object_mut() else { return };
    match (step.strip_suffix("[]"), rest) {
        (None, Some(rest)) if step == "{}" => {
            fields.values_mut().for_each(|value| put(value, rest, default));
        }
        (None, None) => {
            if !fields.contains_key(step) {
                // The tables are constants, and a test parses all of them.
                fields.insert(step.into(), serde_json::from_str(default).unwrap_or(Value::Null));
            }
        }
        (None, Some(rest)) => {
            if let Some(inner) = fields.get_mut(step) {
                put(inner, rest, default);
            }
        }
        (Some(list), rest) => {
            let items = fields.get_mut(list).and_then(Value::as_array_mut);
            for item in items.into_iter().flatten() {
                if let Some(rest) = rest {
                    put(item, rest, default);
                }
            }
        }
    }
}

/// Moves `stringData`, which is write-only, to `data`, and fills in the type.
fn secret(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    if let Some(Value::Object(texts)) = fields.shift_remove("stringData") {
        let data = fields.entry("data").or_insert_with(|| Map::new().into());
        if let Some(data) = data.as_object_mut() {
            for (name, text) in texts {
                let text = text.as_str().unwrap_or_default();
                data.insert(name, STANDARD.encode(text).into());
            }
        }
    }
    fields.entry("type").or_insert_with(|| json!("Opaque"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_json() {
        let tables = [
            PARENTS,
            BACKENDS,
            LISTENERS,
            GATEWAY,
            GATEWAY_CLASS,
            LISTENER_SET,
            HTTP_ROUTE,
            GRPC_ROUTE,
            FILTERS,
            SERVICE,
            ENDPOINT_SLICE,
            NAMESPACE,
            TRAFFIC_POLICY,
            CLIENT_POLICY,
        ];
        for (field, default) in tables.into_iter().flatten() {
            assert!(serde_json::from_str::<Value>(default).is_ok(), "{field}: {default}");
        }
    }

    #[test]
    fn what_is_absent_is_filled_in_and_what_is_written_stays() {
        let path = json!({ "type": "PathPrefix", "value": "/" });
        // (kind, written, filled in)
        let table = [
            (
                "HTTPRoute",
                json!({ "spec": { "parentRefs": [{ "name": "eg" }] } }),
                json!({ "spec": {
                    "parentRefs": [
                        { "name": "eg", "group": "gateway.networking.k8s.io", "kind": "Gateway" }
                    ],
                    "rules": [{ "matches": [{ "path": path }] }],
                } }),
            ),
            (
                "HTTPRoute",
                json!({ "spec": { "rules": [
                    {
                        "matches": [{ "path": { "value": "/a" } }, { "headers": [{ "name": "x" }] }],
                        "backendRefs": [{ "name": "a", "weight": 0, "filters": [
                            { "requestRedirect": {} }
                        ] }],
                    },
                    { "filters": [{ "requestMirror": { "backendRef": { "kind": "Backend" } } }] },
                ] } }),
                json!({ "spec": { "rules": [
                    {
                        "matches": [
                            { "path": { "value": "/a", "type": "PathPrefix" } },
                            { "headers": [{ "name": "x", "type": "Exact" }], "path": path },
                        ],
                        "backendRefs": [{
                            "name": "a", "weight": 0, "group": "", "kind": "Service",
                            "filters": [{ "requestRedirect": { "statusCode": 302 } }],
                        }],
                    },
                    {
                        "filters": [
                            { "requestMirror": { "backendRef": { "kind": "Backend", "group": "" } } }
                        ],
                        "matches": [{ "path": path }],
                    },
                ] } }),
            ),
            (
                "Gateway",
                json!({ "status": 1, "spec": { "listeners": [
                    { "tls": { "certificateRefs": [{ "name": "c" }] } },
                    { "allowedRoutes": { "kinds": [{ "kind": "GRPCRoute" }] } },
                ] } }),
                json!({ "status": 1, "spec": { "listeners": [
                    {
                        "tls": {
                            "certificateRefs": [{ "name": "c", "group": "", "kind": "Secret" }],
                            "mode": "Terminate",
                        },
                        "allowedRoutes": { "namespaces": { "from": "Same" } },
                    },
                    { "allowedRoutes": {
                        "kinds": [{ "kind": "GRPCRoute", "group": "gateway.networking.k8s.io" }],
                        "namespaces": { "from": "Same" },
                    } },
                ] } }),
            ),
            (
                "Secret",
                json!({ "stringData": { "a": "one" }, "data": { "b": "dHdv" } }),
                json!({ "data": { "b": "dHdv", "a": "b25l" }, "type": "Opaque" }),
            ),
        ];
        for (kind, mut object, want) in table {
            fill(kind, &mut object);
            assert_eq!(object, want, "{kind}");
        }
    }
}
