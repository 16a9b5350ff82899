//! For each rule of the CRDs an object that breaks it, written by hand.

#![allow(clippy::needless_pass_by_value, reason = "what is written in place is passed as it is")]

use serde_json::{Map, Value as Json, json};

/// What no object can break, and why.
pub(crate) const UNREACHABLE: &[(&str, &str)] = &[(
    "type must be one of ['Exact', 'PathPrefix', 'RegularExpression']",
    "the enum of the same words comes first, and what breaks it is judged no further",
)];

/// `(what is said, an object of which it is said)`.
pub(crate) fn table() -> Vec<(&'static str, Json)> {
    let mut rows = classes_and_gateways();
    rows.extend(listeners());
    rows.extend(parents_and_rules());
    rows.extend(paths_and_methods());
    rows.extend(filters());
    rows.extend(filter_settings());
    rows.extend(hostnames_of_tls());
    rows.extend(policies());
    rows
}

fn object(kind: &str, spec: Json) -> Json {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": { "name": "a" },
        "spec": spec,
    })
}

/// A Gateway that is all right but for `field`.
fn gateway(field: &str, value: Json) -> Json {
    let http = json!([{ "name": "http", "port": 80, "protocol": "HTTP" }]);
    let mut spec = json!({ "gatewayClassName": "a", "listeners": http });
    spec[field] = value;
    object("Gateway", spec)
}

fn classes_and_gateways() -> Vec<(&'static str, Json)> {
    let addresses = |list: Json| gateway("addresses", list);
    let hostname = |name: &str| json!({ "type": "Hostname", "value": name });
    let keys = |map: &str, key: &str| {
        let keys = Map::from_iter([(key.to_owned(), "a".into())]);
        gateway("infrastructure", json!({ map: keys }))
    };
    let long = format!("{}/a", "a".repeat(253));
    let port = json!({ "port": 443, "tls": {} });
    vec![
        ("IPAddress values must be unique", {
            let one = json!({ "type": "IPAddress", "value": "192.0.2.1" });
            addresses(json!([one, one]))
        }),
        (
            "Hostname values must be unique",
            addresses(json!([hostname("a.test"), hostname("a.test")])),
        ),
        (
            "Hostname value must be empty or contain only valid characters (matching \
             ^(\\*\\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$)",
            addresses(json!([hostname("A.test")])),
        ),
        (
            "Label keys must be in the form of an optional DNS subdomain prefix followed by a \
             required name segment of up to 63 characters.",
            keys("labels", "-a"),
        ),
        (
            "Annotation keys must be in the form of an optional DNS subdomain prefix followed by a \
             required name segment of up to 63 characters.",
            keys("annotations", "A/a"),
        ),
        (
            "If specified, the label key's prefix must be a DNS subdomain not longer than 253 \
             characters in total.",
            keys("labels", &long),
        ),
        (
            "If specified, the annotation key's prefix must be a DNS subdomain not longer than 253 \
             characters in total.",
            keys("annotations", &long),
        ),
        (
            "Port for TLS configuration must be unique within the Gateway",
            gateway("tls", json!({ "frontend": { "default": {}, "perPort": [port, port] } })),
        ),
    ]
}

fn listeners() -> Vec<(&'static str, Json)> {
    let listeners = |list: Json| gateway("listeners", list);
    let set = |list: Json| {
        object("ListenerSet", json!({ "parentRef": { "name": "a" }, "listeners": list }))
    };
    let named = |name: &str, port: u16| json!({ "name": name, "port": port, "protocol": "HTTP" });
    let with_tls = |protocol: &str, tls: Json| {
        listeners(json!([{ "name": "a", "port": 1, "protocol": protocol, "tls": tls }]))
    };
    vec![
        (
            "Listener name must be unique within the Gateway",
            listeners(json!([named("a", 80), named("a", 81)])),
        ),
        (
            "Listener name must be unique within the Gateway",
            set(json!([named("a", 80), named("a", 81)])),
        ),
        (
            "Combination of port, protocol and hostname must be unique for each listener",
            listeners(json!([named("a", 80), named("b", 80)])),
        ),
        (
            "Combination of port, protocol and hostname must be unique for each listener",
            set(json!([named("a", 80), named("b", 80)])),
        ),
        (
            "hostname must not be specified for protocols ['TCP', 'UDP']",
            listeners(json!([{ "name": "a", "port": 1, "protocol": "UDP", "hostname": "a.test" }])),
        ),
        (
            "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']",
            with_tls("TCP", json!({ "mode": "Passthrough" })),
        ),
        (
            "tls mode must be Terminate for protocol HTTPS",
            with_tls("HTTPS", json!({ "mode": "Passthrough" })),
        ),
        (
            "tls mode must be set for protocol TLS",
            listeners(json!([{ "name": "a", "port": 1, "protocol": "TLS" }])),
        ),
        (
            "certificateRefs or options must be specified when mode is Terminate",
            with_tls("HTTPS", json!({ "certificateRefs": [], "options": {} })),
        ),
    ]
}

/// A route with one rule.
fn route(kind: &str, rule: Json) -> Json {
    with_rules(kind, json!([rule]), json!([]))
}

fn with_rules(kind: &str, rules: Json, parents: Json) -> Json {
    let mut spec = json!({ "parentRefs": parents, "rules": rules });
    // Without a name, it would match nothing.
    if kind == "TLSRoute" {
        spec["hostnames"] = json!(["a.test"]);
    }
    object(kind, spec)
}

fn parents_and_rules() -> Vec<(&'static str, Json)> {
    let parents = |kind: &str, parents: Json| {
        with_rules(kind, json!([{ "backendRefs": [{ "name": "a", "port": 1 }] }]), parents)
    };
    let section = |name: &str| json!({ "name": "a", "sectionName": name });
    let session = |kind: &str, session: Json| route(kind, json!({ "sessionPersistence": session }));
    let many = |kind: &str, of_each: Json| {
        let rule = json!({ "matches": vec![of_each; 43] });
        object(kind, json!({ "rules": [rule, rule, rule] }))
    };
    let too_many = "While 16 rules and 64 matches per rule are allowed, the total number of matches \
                    across all rules in a route must be less than 128";
    let mut rows = vec![
        (too_many, many("HTTPRoute", json!({ "path": { "value": "/a" } }))),
        (too_many, many("GRPCRoute", json!({ "method": { "service": "a" } }))),
    ];
    for kind in ["HTTPRoute", "GRPCRoute"] {
        let for_life = json!({ "cookieConfig": { "lifetimeType": "Permanent" } });
        let of_header = json!({ "type": "Header", "cookieConfig": { "lifetimeType": "Session" } });
        rows.extend([
            (
                "AbsoluteTimeout must be specified when cookie lifetimeType is Permanent",
                session(kind, for_life),
            ),
            ("cookieConfig can only be set with type Cookie", session(kind, of_header)),
        ]);
    }
    for kind in ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"] {
        let rule = json!({ "name": "a", "backendRefs": [{ "name": "a", "port": 1 }] });
        let backend = json!({ "backendRefs": [{ "name": "a" }] });
        rows.extend([
            (
                "sectionName or port must be specified when parentRefs includes 2 or more \
                 references to the same parent",
                parents(kind, json!([section("a"), { "name": "a" }])),
            ),
            (
                "sectionName or port must be unique when parentRefs includes 2 or more references \
                 to the same parent",
                parents(kind, json!([section("a"), section("a")])),
            ),
            ("Must have port for Service reference", route(kind, backend)),
        ]);
        // The others have one rule.
        if matches!(kind, "HTTPRoute" | "GRPCRoute") {
            let twice = object(kind, json!({ "rules": [rule, rule] }));
            rows.push(("Rule name must be unique within the route", twice));
        }
    }
    rows
}

fn paths_and_methods() -> Vec<(&'static str, Json)> {
    let path = |kind: &str, value: &str| {
        let path = json!({ "type": kind, "value": value });
        route("HTTPRoute", json!({ "matches": [{ "path": path }] }))
    };
    let method = |method: Json| route("GRPCRoute", json!({ "matches": [{ "method": method }] }));
    let timeouts = json!({ "request": "1s", "backendRequest": "1001ms" });
    vec![
        (
            "value must be an absolute path and start with '/' when type one of ['Exact', \
             'PathPrefix']",
            path("PathPrefix", "a"),
        ),
        (
            "must only contain valid characters (matching \
             ^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$) for types ['Exact', 'PathPrefix']",
            path("Exact", "/a b"),
        ),
        ("must not contain '#' when type one of ['Exact', 'PathPrefix']", path("Exact", "/a#b")),
        (
            "must not contain '%2F' when type one of ['Exact', 'PathPrefix']",
            path("Exact", "/a%2Fb"),
        ),
        (
            "must not contain '%2f' when type one of ['Exact', 'PathPrefix']",
            path("Exact", "/a%2fb"),
        ),
        (
            "must not contain '/../' when type one of ['Exact', 'PathPrefix']",
            path("PathPrefix", "/a/../b"),
        ),
        (
            "must not contain '/./' when type one of ['Exact', 'PathPrefix']",
            path("PathPrefix", "/a/./b"),
        ),
        ("must not contain '//' when type one of ['Exact', 'PathPrefix']", path("Exact", "/a//b")),
        ("must not end with '/.' when type one of ['Exact', 'PathPrefix']", path("Exact", "/a/.")),
        (
            "must not end with '/..' when type one of ['Exact', 'PathPrefix']",
            path("Exact", "/a/.."),
        ),
        ("One or both of 'service' or 'method' must be specified", method(json!({}))),
        (
            "method must only contain valid characters (matching ^[A-Za-z_][A-Za-z_0-9]*$)",
            method(json!({ "method": "a.b" })),
        ),
        (
            "service must only contain valid characters (matching \
             ^(?i)\\.?[a-z_][a-z_0-9]*(\\.[a-z_][a-z_0-9]*)*$)",
            method(json!({ "service": "a..b" })),
        ),
        (
            "backendRequest timeout cannot be longer than request timeout",
            route("HTTPRoute", json!({ "timeouts": timeouts })),
        ),
    ]
}

/// Filters of a rule.
fn filtered(kind: &str, filters: Json) -> Json {
    route(kind, json!({ "filters": filters }))
}

/// Which field a filter has, and which alone.
fn filters() -> Vec<(&'static str, Json)> {
    let headers = json!({ "remove": ["x-a"] });
    let mirror = json!({ "backendRef": { "name": "a", "port": 1 } });
    let mut rows = Vec::new();
    // (type, field, settings, what is said with another type, of none, of two)
    for (kind, field, settings, with_another, without, twice) in [
        (
            "RequestHeaderModifier",
            "requestHeaderModifier",
            &headers,
            "filter.requestHeaderModifier must be nil if the filter.type is not \
             RequestHeaderModifier",
            "filter.requestHeaderModifier must be specified for RequestHeaderModifier filter.type",
            Some("RequestHeaderModifier filter cannot be repeated"),
        ),
        (
            "ResponseHeaderModifier",
            "responseHeaderModifier",
            &headers,
            "filter.responseHeaderModifier must be nil if the filter.type is not \
             ResponseHeaderModifier",
            "filter.responseHeaderModifier must be specified for ResponseHeaderModifier filter.type",
            Some("ResponseHeaderModifier filter cannot be repeated"),
        ),
        (
            "RequestMirror",
            "requestMirror",
            &mirror,
            "filter.requestMirror must be nil if the filter.type is not RequestMirror",
            "filter.requestMirror must be specified for RequestMirror filter.type",
            None,
        ),
        (
            "RequestRedirect",
            "requestRedirect",
            &json!({ "statusCode": 301 }),
            "filter.requestRedirect must be nil if the filter.type is not RequestRedirect",
            "filter.requestRedirect must be specified for RequestRedirect filter.type",
            Some("RequestRedirect filter cannot be repeated"),
        ),
        (
            "URLRewrite",
            "urlRewrite",
            &json!({ "hostname": "a.test" }),
            "filter.urlRewrite must be nil if the filter.type is not URLRewrite",
            "filter.urlRewrite must be specified for URLRewrite filter.type",
            Some("URLRewrite filter cannot be repeated"),
        ),
        (
            "CORS",
            "cors",
            &json!({ "maxAge": 1 }),
            "filter.cors must be nil if the filter.type is not CORS",
            "filter.cors must be specified for CORS filter.type",
            Some("CORS filter cannot be repeated"),
        ),
        (
            "ExternalAuth",
            "externalAuth",
            &json!({ "protocol": "HTTP", "backendRef": { "name": "a", "port": 1 }, "http": {} }),
            "filter.externalAuth must be nil if the filter.type is not ExternalAuth",
            "filter.externalAuth must be specified for ExternalAuth filter.type",
            None,
        ),
        (
            "ExtensionRef",
            "extensionRef",
            &json!({ "group": "a", "kind": "A", "name": "a" }),
            "filter.extensionRef must be nil if the filter.type is not ExtensionRef",
            "filter.extensionRef must be specified for ExtensionRef filter.type",
            None,
        ),
    ] {
        let another = if kind == "CORS" { "URLRewrite" } else { "CORS" };
        let whole = json!({ "type": kind, field: settings });
        rows.extend([
            (with_another, filtered("HTTPRoute", json!([{ "type": another, field: settings }]))),
            (without, filtered("HTTPRoute", json!([{ "type": kind }]))),
        ]);
        rows.extend(twice.map(|said| (said, filtered("HTTPRoute", json!([whole, whole])))));
        if matches!(kind, "RequestHeaderModifier" | "ResponseHeaderModifier") {
            rows.push((without, filtered("GRPCRoute", json!([{ "type": kind }]))));
            rows.extend(twice.map(|said| (said, filtered("GRPCRoute", json!([whole, whole])))));
        }
    }
    let redirect = json!({ "type": "RequestRedirect", "requestRedirect": {} });
    let rewrite = json!({ "type": "URLRewrite", "urlRewrite": {} });
    rows.push((
        "May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not \
         both",
        filtered("HTTPRoute", json!([redirect, rewrite])),
    ));
    rows.push((
        "RequestRedirect filter must not be used together with backendRefs",
        route(
            "HTTPRoute",
            json!({ "filters": [redirect], "backendRefs": [{ "name": "a", "port": 1 }] }),
        ),
    ));
    rows
}

/// What stands in the one field of a filter.
fn filter_settings() -> Vec<(&'static str, Json)> {
    let one = |kind: &str, field: &str, settings: Json| {
        filtered("HTTPRoute", json!([{ "type": kind, field: settings }]))
    };
    let cors = |field: &str, list: Json| one("CORS", "cors", json!({ field: list }));
    let mirror = |kind: &str, share: Json| {
        let mut mirror = json!({ "backendRef": { "name": "a", "port": 1 } });
        mirror.as_object_mut().into_iter().for_each(|all| all.extend(fields(&share)));
        filtered(kind, json!([{ "type": "RequestMirror", "requestMirror": mirror }]))
    };
    let auth = |protocol: &str, more: Json| {
        let mut auth = json!({ "protocol": protocol, "backendRef": { "name": "a", "port": 1 } });
        auth.as_object_mut().into_iter().for_each(|all| all.extend(fields(&more)));
        one("ExternalAuth", "externalAuth", auth)
    };
    let rewrite = |path: Json| one("URLRewrite", "urlRewrite", json!({ "path": path }));
    let prefix = json!({ "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/" } });
    let exact = json!([{ "path": { "type": "Exact", "value": "/a" } }]);
    // Of a rule that matches no prefix: in the rule itself, or in its backend.
    let of_rule = |kind: &str, field: &str| {
        let filters = json!([{ "type": kind, field: prefix }]);
        route("HTTPRoute", json!({ "matches": exact, "filters": filters }))
    };
    let of_backend = |kind: &str, field: &str| {
        let filters = json!([{ "type": kind, field: prefix }]);
        let backend = json!({ "name": "a", "port": 1, "filters": filters });
        route("HTTPRoute", json!({ "matches": exact, "backendRefs": [backend] }))
    };
    let mut rows = vec![
        (
            "AllowHeaders cannot contain '*' alongside other methods",
            cors("allowHeaders", json!(["*", "x-a"])),
        ),
        (
            "AllowMethods cannot contain '*' alongside other methods",
            cors("allowMethods", json!(["*", "GET"])),
        ),
        (
            "AllowOrigins cannot contain '*' alongside other origins",
            cors("allowOrigins", json!(["*", "https://a.test"])),
        ),
        ("grpc must be specified when protocol is set to 'GRPC'", auth("GRPC", json!({}))),
        ("http must be specified when protocol is set to 'HTTP'", auth("HTTP", json!({}))),
        (
            "protocol must be 'GRPC' when grpc is set",
            auth("HTTP", json!({ "http": {}, "grpc": {} })),
        ),
        (
            "protocol must be 'HTTP' when http is set",
            auth("GRPC", json!({ "http": {}, "grpc": {} })),
        ),
        (
            "replaceFullPath must be specified when type is set to 'ReplaceFullPath'",
            rewrite(json!({ "type": "ReplaceFullPath" })),
        ),
        (
            "replacePrefixMatch must be specified when type is set to 'ReplacePrefixMatch'",
            rewrite(json!({ "type": "ReplacePrefixMatch" })),
        ),
        (
            "type must be 'ReplaceFullPath' when replaceFullPath is set",
            rewrite(json!({
                "type": "ReplacePrefixMatch", "replacePrefixMatch": "/", "replaceFullPath": "/",
            })),
        ),
        (
            "type must be 'ReplacePrefixMatch' when replacePrefixMatch is set",
            rewrite(json!({
                "type": "ReplaceFullPath", "replacePrefixMatch": "/", "replaceFullPath": "/",
            })),
        ),
        (
            "When using RequestRedirect filter with path.replacePrefixMatch, exactly one PathPrefix \
             match must be specified",
            of_rule("RequestRedirect", "requestRedirect"),
        ),
        (
            "When using URLRewrite filter with path.replacePrefixMatch, exactly one PathPrefix match \
             must be specified",
            of_rule("URLRewrite", "urlRewrite"),
        ),
        (
            "Within backendRefs, when using RequestRedirect filter with path.replacePrefixMatch, \
             exactly one PathPrefix match must be specified",
            of_backend("RequestRedirect", "requestRedirect"),
        ),
        (
            "Within backendRefs, When using URLRewrite filter with path.replacePrefixMatch, exactly \
             one PathPrefix match must be specified",
            of_backend("URLRewrite", "urlRewrite"),
        ),
    ];
    for kind in ["HTTPRoute", "GRPCRoute"] {
        rows.extend([
            (
                "Only one of percent or fraction may be specified in HTTPRequestMirrorFilter",
                mirror(kind, json!({ "percent": 1, "fraction": { "numerator": 1 } })),
            ),
            (
                "numerator must be less than or equal to denominator",
                mirror(kind, json!({ "fraction": { "numerator": 101 } })),
            ),
        ]);
    }
    rows
}

fn fields(object: &Json) -> Map<String, Json> {
    object.as_object().cloned().unwrap_or_default()
}

fn hostnames_of_tls() -> Vec<(&'static str, Json)> {
    let hostname = |name: &str| {
        let rules = json!([{ "backendRefs": [{ "name": "a", "port": 1 }] }]);
        object("TLSRoute", json!({ "hostnames": [name], "rules": rules }))
    };
    vec![
        ("Hostnames cannot contain an IP", hostname("192.0.2.1")),
        ("Hostnames must be valid based on RFC-1123", hostname("a_b.test")),
        (
            "Wildcards on hostnames must be the first label, and the rest of hostname must be valid \
             based on RFC-1123",
            hostname("a.*.test"),
        ),
    ]
}

fn policies() -> Vec<(&'static str, Json)> {
    let policy = |targets: Json, validation: Json| {
        object("BackendTLSPolicy", json!({ "targetRefs": targets, "validation": validation }))
    };
    let target = |section: Option<&str>| {
        let mut target = json!({ "group": "", "kind": "Service", "name": "a" });
        section.into_iter().for_each(|section| target["sectionName"] = section.into());
        target
    };
    let targets = |targets: [Json; 2]| {
        let validation = json!({ "hostname": "a.test", "wellKnownCACertificates": "System" });
        policy(targets.into_iter().collect(), validation)
    };
    let validation = |validation: Json| policy(json!([target(None)]), validation);
    let san = |san: Json| {
        validation(json!({
            "hostname": "a.test", "wellKnownCACertificates": "System", "subjectAltNames": [san],
        }))
    };
    let authority = json!([{ "group": "", "kind": "ConfigMap", "name": "a" }]);
    let both = json!({
        "hostname": "a.test", "wellKnownCACertificates": "System", "caCertificateRefs": authority,
    });
    vec![
        ("must not contain both CACertificateRefs and WellKnownCACertificates", validation(both)),
        (
            "must specify either CACertificateRefs or WellKnownCACertificates",
            validation(json!({ "hostname": "a.test" })),
        ),
        (
            "SubjectAltName element must contain Hostname, if Type is set to Hostname",
            san(json!({ "type": "Hostname" })),
        ),
        (
            "SubjectAltName element must contain URI, if Type is set to URI",
            san(json!({ "type": "URI" })),
        ),
        (
            "SubjectAltName element must not contain Hostname, if Type is not set to Hostname",
            san(json!({ "type": "URI", "uri": "spiffe://a/b", "hostname": "a.test" })),
        ),
        (
            "SubjectAltName element must not contain URI, if Type is not set to URI",
            san(json!({ "type": "Hostname", "uri": "spiffe://a/b", "hostname": "a.test" })),
        ),
        (
            "sectionName must be specified when targetRefs includes 2 or more references to the same \
             target",
            targets([target(None), target(Some("a"))]),
        ),
        (
            "sectionName must be unique when targetRefs includes 2 or more references to the same \
             target",
            targets([target(Some("a")), target(Some("a"))]),
        ),
    ]
}
