//! For each rule of ClientTrafficPolicy an object that breaks it, and objects that break none.

#![allow(clippy::needless_pass_by_value, reason = "what is written in place is passed as it is")]

use serde_json::{Value as Json, json};

use crate::envoy_policy;

const OURS: &str = "gateway.networking.k8s.io";

fn policy(spec: Json) -> Json {
    envoy_policy("ClientTrafficPolicy", "Gateway", &spec)
}

/// `(what is said, an object of which it is said)`.
pub(crate) fn table() -> Vec<(&'static str, Json)> {
    let mut rows = targets();
    rows.extend(settings());
    rows
}

fn targets() -> Vec<(&'static str, Json)> {
    let target = |group: &str, kind: &str| json!({ "group": group, "kind": kind, "name": "a" });
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
            policy(json!({ "targetRef": target(OURS, "Gateway") })),
        ),
        (
            "this policy can only have a targetRef.group of gateway.networking.k8s.io",
            one(target("", "Gateway")),
        ),
        (
            "this policy can only have a targetRef.kind of Gateway or ListenerSet",
            one(target(OURS, "HTTPRoute")),
        ),
        (
            "this policy can only have a targetRefs[*].group of gateway.networking.k8s.io",
            many(target("a.b", "Gateway")),
        ),
        (
            "this policy can only have a targetRefs[*].kind of Gateway or ListenerSet",
            many(target(OURS, "Service")),
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

fn settings() -> Vec<(&'static str, Json)> {
    let keepalive = json!({ "interval": "1s", "timeout": "1s" });
    let cert = |cert: Json| policy(json!({ "headers": { "xForwardedClientCert": cert } }));
    let validation = |of: Json| policy(json!({ "tls": { "clientValidation": of } }));
    vec![
        (
            "exactly one of xForwardedFor, customHeader, or directSourceIP must be set",
            policy(json!({ "clientIPDetection": {
                "customHeader": { "name": "x-a" }, "directSourceIP": {},
            } })),
        ),
        (
            "only one of numTrustedHops or trustedCIDRs must be set",
            policy(json!({ "clientIPDetection": { "xForwardedFor": {
                "numTrustedHops": 1, "trustedCIDRs": ["10.0.0.0/8"],
            } } })),
        ),
        (
            "closeDelay can only be configured when value is set",
            policy(json!({ "connection": { "connectionLimit": { "closeDelay": "1s" } } })),
        ),
        (
            "preserveXRequestID and requestID cannot both be set.",
            policy(json!({ "headers": {
                "preserveXRequestID": true, "requestID": "Generate",
            } })),
        ),
        (
            "certDetailsToAdd can only be set when mode is AppendForward or SanitizeSet",
            cert(json!({ "mode": "Sanitize", "certDetailsToAdd": ["Cert"] })),
        ),
        (
            "timeout must be less than interval",
            policy(json!({ "http2": { "connectionKeepalive": keepalive } })),
        ),
        (
            "setting ciphers has no effect if the minimum possible TLS version is 1.3",
            policy(json!({ "tls": { "minVersion": "1.3", "ciphers": ["a"] } })),
        ),
        (
            "minVersion must be smaller or equal to maxVersion",
            policy(json!({ "tls": { "minVersion": "1.3", "maxVersion": "1.2" } })),
        ),
        (
            "allowExpiredCertificate can only be set when mode is VerifyIfGiven or RequireAndVerify",
            validation(json!({ "mode": "Request", "allowExpiredCertificate": true })),
        ),
    ]
}

/// Objects that have the fields which upstream's examples lack.
pub(crate) fn valid() -> Vec<Json> {
    let matches = json!([{ "value": "a" }, { "type": "Suffix", "value": "b" }]);
    let filter = json!({
        "set": [{ "name": "x-a", "value": "a" }], "add": [{ "name": "x-b", "value": "b" }],
        "addIfAbsent": [{ "name": "x-c", "value": "c" }], "remove": ["x-d"],
        "removeOnMatch": [{ "type": "RegularExpression", "value": "x-.*" }],
    });
    let secret = json!([{ "name": "a" }, { "kind": "ConfigMap", "name": "b", "namespace": "c" }]);
    vec![
        policy(json!({
            "tcpKeepalive": { "probes": 3, "idleTime": "1m", "interval": "5s" },
            "proxyProtocol": { "optional": true },
            "clientIPDetection": { "xForwardedFor": {
                "trustedCIDRs": ["10.0.0.0/8", "2001:db8::/32"], "disableXForwardedForAppend": true,
            } },
            "path": { "escapedSlashesAction": "KeepUnchanged", "disableMergeSlashes": true },
            "timeout": {
                "tcp": {
                    "idleTimeout": "1h", "tlsHandshakeTimeout": "5s",
                    "connectionInspectionTimeout": "5s",
                },
                "http": {
                    "requestReceivedTimeout": "1m", "idleTimeout": "90s",
                    "streamIdleTimeout": "5m", "requestHeadersReceivedTimeout": "5s",
                },
            },
            "connection": {
                "connectionLimit": {
                    "value": 10, "closeDelay": "1s", "maxConnectionDuration": "1h",
                    "maxRequestsPerConnection": 100, "maxStreamDuration": "1h",
                },
                "bufferLimit": "32Ki", "socketBufferLimit": 4096, "maxAcceptPerSocketEvent": 2,
            },
        })),
        policy(json!({
            "clientIPDetection": { "customHeader": { "name": "x-a", "failClosed": true } },
            "headers": {
                "enableEnvoyHeaders": true, "disableRateLimitHeaders": true,
                "withUnderscoresAction": "DropHeader", "requestID": "Preserve",
                "xForwardedClientCert": { "mode": "AppendForward", "certDetailsToAdd": ["URI"] },
                "earlyRequestHeaders": filter, "lateResponseHeaders": filter,
                "host": { "stripTrailingHostDot": true },
            },
            "http1": {
                "enableTrailers": true, "preserveHeaderCase": true,
                "http10": { "useDefaultHost": true }, "disableSafeMaxConnectionDuration": true,
                "ignoredUpgradeTypes": matches,
            },
            "http2": { "maxConcurrentStreams": 10, "onInvalidMessage": "TerminateStream" },
            "http3": {}, "grpc": { "enableWeb": false }, "healthCheck": { "path": "/healthz" },
            "scheme": "MatchBackend",
        })),
        policy(json!({
            "clientIPDetection": { "directSourceIP": {} },
            "headers": { "preserveXRequestID": true },
            "enableProxyProtocol": true,
            "tls": {
                "minVersion": "1.2", "maxVersion": "Auto", "ciphers": ["a"],
                "ecdhCurves": ["X25519"], "signatureAlgorithms": ["b"],
                "alpnProtocols": ["h2"], "fingerprints": ["JA3", "JA4"],
                "session": { "resumption": { "stateless": {}, "stateful": {} } },
                "clientValidation": {
                    "mode": "VerifyIfGiven", "caCertificateRefs": secret,
                    "spkiHashes": ["a"], "certificateHashes": ["b"],
                    "allowExpiredCertificate": true,
                    "crl": { "refs": secret, "onlyVerifyLeafCertificate": true },
                    "subjectAltNames": {
                        "dnsNames": matches, "emailAddresses": matches, "ipAddresses": matches,
                        "uris": matches, "otherNames": [{ "oid": "1.2", "value": "a" }],
                    },
                },
            },
        })),
        policy(json!({ "tls": { "clientValidation": { "optional": true } } })),
    ]
}
