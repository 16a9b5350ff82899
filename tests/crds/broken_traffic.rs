//! For each rule of BackendTrafficPolicy an object that breaks it, and objects that break none.

#![allow(clippy::needless_pass_by_value, reason = "what is written in place is passed as it is")]

use serde_json::{Value as Json, json};

use crate::envoy_policy;

/// What no object can break, and why.
pub(crate) const UNREACHABLE: &[(&str, &str)] = &[
    ("minSuccessRate must be between 1 and 100", LIMITS),
    ("maxRejectionPercent must be between 0 and 100", LIMITS),
];

const LIMITS: &str = "the limits of the schema say the same and come first";

fn policy(spec: Json) -> Json {
    envoy_policy("BackendTrafficPolicy", "HTTPRoute", &spec)
}

/// `(what is said, an object of which it is said)`.
pub(crate) fn table() -> Vec<(&'static str, Json)> {
    let mut rows = targets();
    rows.extend(whole());
    rows.extend(load_balancers());
    rows.extend(health_checks());
    rows.extend(rate_limits());
    rows.extend(overrides());
    rows.extend(others());
    rows
}

fn targets() -> Vec<(&'static str, Json)> {
    let target = |group: &str, kind: &str| json!({ "group": group, "kind": kind, "name": "a" });
    let ours = "gateway.networking.k8s.io";
    let one = |target: Json| {
        let mut policy = policy(json!({ "targetRef": target }));
        policy["spec"].as_object_mut().expect("a spec").shift_remove("targetRefs");
        policy
    };
    let many = |target: Json| policy(json!({ "targetRefs": [target] }));
    let selector = |selector: Json| policy(json!({ "targetSelectors": [selector] }));
    vec![
        (
            "either targetRef or targetRefs must be used",
            policy(json!({ "targetRef": target(ours, "Gateway") })),
        ),
        (
            "this policy can only have a targetRef.group of gateway.networking.k8s.io",
            one(target("", "Gateway")),
        ),
        (
            "this policy can only have a targetRef.kind of \
             Gateway/ListenerSet/HTTPRoute/GRPCRoute/TCPRoute/UDPRoute/TLSRoute",
            one(target(ours, "Service")),
        ),
        (
            "this policy can only have a targetRefs[*].group of gateway.networking.k8s.io",
            many(target("a.b", "Gateway")),
        ),
        (
            "this policy can only have a targetRefs[*].kind of \
             Gateway/ListenerSet/HTTPRoute/GRPCRoute/TCPRoute/UDPRoute/TLSRoute",
            many(target(ours, "Backend")),
        ),
        (
            "mergeType can only be used with xRoute targets",
            policy(json!({
                "mergeType": "JSONMerge", "targetRefs": [target(ours, "Gateway")],
            })),
        ),
        (
            "Replace is not a valid MergeType for BackendTrafficPolicySpec",
            policy(json!({ "mergeType": "Replace" })),
        ),
        (
            "group must be gateway.networking.k8s.io",
            selector(json!({ "group": "a.b", "kind": "Gateway" })),
        ),
        (
            "selector must be specified when from is Selector",
            selector(json!({ "kind": "Gateway", "namespaces": { "from": "Selector" } })),
        ),
    ]
}

fn whole() -> Vec<(&'static str, Json)> {
    let target = json!({ "group": "gateway.networking.k8s.io", "kind": "TCPRoute", "name": "a" });
    vec![
        (
            "either compression or compressor can be set, not both",
            policy(json!({ "compression": [], "compressor": [{ "type": "Gzip", "gzip": {} }] })),
        ),
        (
            "requestBuffer cannot be used together with httpUpgrade",
            policy(json!({
                "requestBuffer": { "limit": "1Ki" }, "httpUpgrade": [{ "type": "websocket" }],
            })),
        ),
        (
            "admissionControl can only be used with HTTPRoute, GRPCRoute, Gateway, or ListenerSet \
             targets",
            policy(json!({ "admissionControl": {}, "targetRefs": [target] })),
        ),
        (
            "predictivePercent in preconnect policy only works with RoundRobin or Random load \
             balancers",
            policy(json!({
                "connection": { "preconnect": { "predictivePercent": 100 } },
                "loadBalancer": { "type": "LeastRequest" },
            })),
        ),
    ]
}

fn load_balancers() -> Vec<(&'static str, Json)> {
    let balancer = |balancer: Json| policy(json!({ "loadBalancer": balancer }));
    let hash = |hash: Json| balancer(json!({ "type": "ConsistentHash", "consistentHash": hash }));
    let local = json!({ "preferLocal": {} });
    let module = json!({ "name": "a", "lbPolicyName": "a" });
    vec![
        (
            "If LoadBalancer type is consistentHash, consistentHash field needs to be set.",
            balancer(json!({ "type": "ConsistentHash" })),
        ),
        (
            "If LoadBalancer type is BackendUtilization, backendUtilization field needs to be set.",
            balancer(json!({ "type": "Random", "backendUtilization": {} })),
        ),
        (
            "If LoadBalancer type is DynamicModule, dynamicModule field needs to be set.",
            balancer(json!({ "type": "DynamicModule" })),
        ),
        (
            "Currently SlowStart is only supported for RoundRobin, LeastRequest, and \
             BackendUtilization load balancers.",
            balancer(json!({ "type": "Random", "slowStart": { "window": "1s" } })),
        ),
        (
            "PreferLocal zone-aware routing is not supported for ConsistentHash load balancers. Use \
             weightedZones instead.",
            balancer(json!({
                "type": "ConsistentHash", "consistentHash": { "type": "SourceIP" },
                "zoneAware": local,
            })),
        ),
        (
            "PreferLocal zone-aware routing is not currently supported for BackendUtilization load \
             balancers. Only WeightedZones can be used with BackendUtilization.",
            balancer(json!({
                "type": "BackendUtilization", "backendUtilization": {}, "zoneAware": local,
            })),
        ),
        (
            "ZoneAware routing is not supported for DynamicModule load balancers.",
            balancer(json!({
                "type": "DynamicModule", "dynamicModule": module, "zoneAware": {},
            })),
        ),
        (
            "ZoneAware PreferLocal and WeightedZones cannot be specified together.",
            balancer(json!({
                "type": "Random", "zoneAware": { "preferLocal": {}, "weightedZones": [] },
            })),
        ),
        (
            "EndpointOverride is not supported for DynamicModule load balancers.",
            balancer(json!({
                "type": "DynamicModule", "dynamicModule": module,
                "endpointOverride": { "extractFrom": [{ "header": "x-a" }] },
            })),
        ),
        (
            "reportingPeriod must be greater than 0",
            balancer(json!({
                "type": "BackendUtilization",
                "backendUtilization": { "outOfBand": { "reportingPeriod": "0s" } },
            })),
        ),
        (
            "If consistent hash type is header, the header field must be set.",
            hash(json!({ "type": "Header" })),
        ),
        (
            "If consistent hash type is headers, the headers field must be set.",
            hash(json!({ "type": "SourceIP", "headers": [] })),
        ),
        (
            "If consistent hash type is cookie, the cookie field must be set.",
            hash(json!({ "type": "Cookie" })),
        ),
        (
            "If consistent hash type is queryParams, the queryParams field must be set.",
            hash(json!({ "type": "QueryParams" })),
        ),
    ]
}

fn health_checks() -> Vec<(&'static str, Json)> {
    let active = |active: Json| policy(json!({ "healthCheck": { "active": active } }));
    let http = |http: Json| active(json!({ "type": "HTTP", "http": http }));
    let payload = |payload: Json| active(json!({ "type": "TCP", "tcp": { "send": payload } }));
    let log = |log: Json| active(json!({ "type": "TCP", "tcp": {}, "healthCheckLog": log }));
    vec![
        (
            "If Health Checker type is HTTP, http field needs to be set.",
            active(json!({ "type": "HTTP" })),
        ),
        (
            "If Health Checker type is TCP, tcp field needs to be set.",
            active(json!({ "type": "TCP" })),
        ),
        (
            "The grpc field can only be set if the Health Checker type is GRPC.",
            active(json!({ "type": "TCP", "tcp": {}, "grpc": {} })),
        ),
        (
            "The requestBody field can only be set when method is POST or PUT.",
            http(json!({
                "path": "/", "method": "get", "requestBody": { "type": "Text", "text": "a" },
            })),
        ),
        (
            "If payload type is Text, text field needs to be set.",
            payload(json!({ "type": "Text" })),
        ),
        (
            "If payload type is Binary, binary field needs to be set.",
            payload(json!({ "type": "Text", "text": "a", "binary": "YQ==" })),
        ),
        (
            "a failure type and a success type must both be specified together",
            log(json!({ "matches": ["Failure"] })),
        ),
        (
            "If ProxyHealthCheckLogSink type is File, file field needs to be set.",
            log(json!({ "sinks": [{ "type": "File" }] })),
        ),
    ]
}

fn rate_limits() -> Vec<(&'static str, Json)> {
    let rule = |rule: Json| {
        let mut whole = json!({ "limit": { "requests": 1, "unit": "Hour" } });
        for (field, value) in rule.as_object().into_iter().flatten() {
            whole[field] = value.clone();
        }
        policy(json!({ "rateLimit": { "local": { "rules": [whole] } } }))
    };
    let metadata = json!({ "namespace": "a", "key": "b" });
    vec![
        (
            "response cost is not supported for Local Rate Limits",
            rule(json!({ "cost": { "response": { "from": "Number", "number": 1 } } })),
        ),
        (
            "limit fromMetadata is not supported for Local Rate Limits",
            rule(json!({
                "limit": { "requests": 1, "unit": "Day", "fromMetadata": metadata },
            })),
        ),
        (
            "at least one of headers, methods, path, sourceCIDR or queryParams must be specified",
            rule(json!({ "clientSelectors": [{}] })),
        ),
        (
            "only one of number or metadata can be specified",
            rule(json!({
                "cost": { "request": { "from": "Number", "number": 1, "metadata": metadata } },
            })),
        ),
    ]
}

fn overrides() -> Vec<(&'static str, Json)> {
    let rule = |rule: Json| {
        let mut whole = json!({ "match": { "statusCodes": [{ "value": 404 }] } });
        for (field, value) in rule.as_object().into_iter().flatten() {
            whole[field] = value.clone();
        }
        policy(json!({ "responseOverride": [whole] }))
    };
    let matches = |of: Json| rule(json!({ "match": of, "response": {} }));
    let body = |body: Json| rule(json!({ "response": { "body": body } }));
    let path = |path: Json| rule(json!({ "redirect": { "path": path } }));
    let secret = json!({ "group": "", "kind": "Secret", "name": "a" });
    let range = json!({ "start": 500, "end": 500 });
    vec![
        (
            "exactly one of response or redirect must be specified",
            rule(json!({ "response": {}, "redirect": {} })),
        ),
        ("at least one of statusCodes or responseHeaders must be specified", matches(json!({}))),
        (
            "value must be set for type Value",
            matches(json!({ "statusCodes": [{ "type": "Value" }] })),
        ),
        (
            "range must be set for type Range",
            matches(json!({ "statusCodes": [{ "type": "Range" }] })),
        ),
        (
            "end must be greater than start",
            matches(json!({ "statusCodes": [{ "type": "Range", "range": range }] })),
        ),
        (
            "only ReplaceFullPath is supported for path.type",
            path(json!({ "type": "ReplacePrefixMatch", "replacePrefixMatch": "/" })),
        ),
        (
            "replaceFullPath must be specified when type is set to 'ReplaceFullPath'",
            path(json!({ "type": "ReplaceFullPath" })),
        ),
        (
            "type must be 'ReplaceFullPath' when replaceFullPath is set",
            path(json!({ "type": "ReplacePrefixMatch", "replaceFullPath": "/" })),
        ),
        (
            "replacePrefixMatch must be specified when type is set to 'ReplacePrefixMatch'",
            path(json!({ "type": "ReplacePrefixMatch" })),
        ),
        (
            "type must be 'ReplacePrefixMatch' when replacePrefixMatch is set",
            path(json!({ "type": "ReplaceFullPath", "replacePrefixMatch": "/" })),
        ),
        ("inline must be set for type Inline", body(json!({ "type": "Inline" }))),
        ("valueRef must be set for type ValueRef", body(json!({ "type": "ValueRef" }))),
        (
            "only ConfigMap is supported for ValueRef",
            body(json!({ "type": "ValueRef", "valueRef": secret })),
        ),
        (
            "Remove is not supported for header in CustomResponse",
            rule(json!({ "response": { "header": { "remove": ["x-a"] } } })),
        ),
    ]
}

fn others() -> Vec<(&'static str, Json)> {
    let abort = |abort: Json| policy(json!({ "faultInjection": { "abort": abort } }));
    let keepalive = json!({ "interval": "1s", "timeout": "1s" });
    vec![
        (
            "at least one of request or response must be specified",
            policy(json!({
                "bandwidthLimit": {},
            })),
        ),
        (
            "samplingWindow must be at least 1s",
            policy(json!({ "admissionControl": { "samplingWindow": "999ms" } })),
        ),
        (
            "numerator must be less than or equal to denominator",
            policy(json!({
                "circuitBreaker": { "retryBudget": { "percent": { "numerator": 101 } } },
            })),
        ),
        ("Delay and abort faults are set at least one.", policy(json!({ "faultInjection": {} }))),
        (
            "httpStatus and grpcStatus cannot be simultaneously defined.",
            abort(json!({ "httpStatus": 500, "grpcStatus": 14 })),
        ),
        ("httpStatus and grpcStatus are set at least one.", abort(json!({}))),
        (
            "timeout must be less than interval",
            policy(json!({ "http2": { "connectionKeepalive": keepalive } })),
        ),
        (
            "The connect configuration is only allowed when the type is CONNECT.",
            policy(json!({ "httpUpgrade": [{ "type": "websocket", "connect": {} }] })),
        ),
    ]
}

/// Objects that have the fields which upstream's examples lack.
pub(crate) fn valid() -> Vec<Json> {
    let metadata = json!({ "namespace": "a", "key": "b" });
    let selector = json!({
        "headers": [{ "name": "x-a", "type": "Distinct" }, { "name": "x-b", "value": "c" }],
        "methods": [{ "value": "GET", "invert": true }],
        "path": { "type": "Exact", "value": "/a" },
        "sourceCIDR": { "type": "Distinct", "value": "10.0.0.0/8" },
        "queryParams": [{ "name": "q", "type": "RegularExpression", "value": "a.*" }],
    });
    let rule = json!({
        "clientSelectors": [selector],
        "limit": { "requests": 5, "unit": "Minute" },
        "cost": { "request": { "from": "Number", "number": 2 } },
        "shared": true, "shadowMode": true, "xRateLimitHeaders": "Off",
    });
    let global = json!({
        "clientSelectors": [selector],
        "limit": { "requests": 5, "unit": "Year", "fromMetadata": metadata },
        "cost": { "response": { "from": "Metadata", "metadata": metadata } },
    });
    let fraction = json!({ "numerator": 1, "denominator": 10 });
    let limit = json!({ "value": "1Mi", "unit": "Hour" });
    vec![
        policy(json!({
            "rateLimit": { "local": { "rules": [rule] }, "global": { "rules": [global] } },
        })),
        policy(json!({
            "loadBalancer": {
                "type": "BackendUtilization",
                "zoneAware": { "weightedZones": [{ "zone": "a", "weight": 1 }] },
                "endpointOverride": { "extractFrom": [{ "header": "x-a" }] },
                "backendUtilization": {
                    "blackoutPeriod": "1s", "weightExpirationPeriod": "1s",
                    "weightUpdatePeriod": "1s", "errorUtilizationPenaltyPercent": 1,
                    "keepResponseHeaders": true, "metricNamesForComputingUtilization": ["a"],
                    "outOfBand": { "reportingPeriod": "1s", "port": 1, "authority": "a" },
                },
            },
        })),
        policy(json!({
            "loadBalancer": {
                "type": "DynamicModule",
                "dynamicModule": { "name": "a", "lbPolicyName": "b", "config": { "a": 1 } },
            },
        })),
        policy(json!({
            "bandwidthLimit": {
                "request": { "limit": limit },
                "response": { "limit": limit, "responseTrailers": { "prefix": "x" } },
            },
            "faultInjection": {
                "delay": { "fixedDelay": "1s", "percentage": 0.5 },
                "abort": { "grpcStatus": 14, "percentage": 50 },
            },
            "admissionControl": {
                "samplingWindow": "30s", "minSuccessRate": 95, "rejectionAggression": 1,
                "minRequestRate": 5, "maxRejectionPercent": 80,
                "successCriteria": {
                    "http": { "statusCodes": [200] }, "grpc": { "statusCodes": ["Ok"] },
                },
            },
        })),
        policy(json!({
            "telemetry": {
                "metrics": { "routeStatName": "a" },
                "tracing": {
                    "samplingFraction": fraction, "clientSamplingFraction": fraction,
                    "overallSamplingFraction": fraction, "tags": { "a": "b" },
                    "spanName": { "server": "a", "client": "b" },
                    "customTags": {
                        "a": { "type": "Environment", "environment": { "name": "A" } },
                        "b": { "type": "RequestHeader", "requestHeader": { "name": "A" } },
                        "c": { "type": "Literal", "literal": { "value": "A" } },
                    },
                },
            },
            "http2": {
                "initialStreamWindowSize": "64Ki", "initialConnectionWindowSize": 65536,
                "maxConcurrentStreams": 100, "onInvalidMessage": "TerminateStream",
                "connectionKeepalive": {
                    "interval": "2s", "timeout": "1s", "intervalJitter": 10, "idleInterval": "1m",
                },
            },
        })),
        policy(json!({
            "healthCheck": {
                "active": {
                    "type": "HTTP", "initialJitter": "1s", "overrides": { "port": 81 },
                    "http": {
                        "path": "/", "method": "POST", "hostname": "a.test",
                        "expectedStatuses": [200], "retriableStatuses": [503],
                        "requestBody": { "type": "Binary", "binary": "YQ==" },
                        "expectedResponse": { "type": "Text", "text": "a" },
                    },
                    "healthCheckLog": {
                        "sinks": [{ "type": "File", "file": { "path": "/a" } }],
                        "matches": ["Failure", "Success"],
                    },
                },
            },
            "responseOverride": [{
                "source": "Local",
                "match": {
                    "responseHeaders": [{ "name": "x-a", "value": { "value": "b" } }],
                    "statusCodes": [{ "type": "Range", "range": { "start": 500, "end": 599 } }],
                },
                "redirect": { "scheme": "https", "hostname": "a.test", "port": 443 },
            }],
        })),
    ]
}
