//! Entry points of the fuzz targets in `fuzz/` and of `tests/crds`; not part of the library's
//! interface.
//!
//! The parsers of untrusted bytes are private to their modules, and a fuzz target is a separate
//! crate. Each function here passes untrusted bytes to such a parser. A panic, a hang and a failed
//! `assert` below are findings; an error is a valid result.

use std::collections::BTreeMap;
use std::path::Path;

use http::{HeaderMap, HeaderValue};
use tokio::io::{Join, Sink};

use crate::config::{self, Severity, field_path};
use crate::filters::HostName;
use crate::kube_api::{self, ListShape};
use crate::net::{Cidr, HostPattern};
use crate::path;
use crate::provider;
use crate::proxy;
use crate::tls::{self, Hello};
use crate::trace;

/// Runs the configuration reader on `bytes`, as one file of documents.
pub fn yaml(bytes: &[u8]) {
    let set = |name: &str| (name == "DOMAIN").then(|| "example.org".to_owned());
    let loaded = provider::parse_bytes(Path::new("fuzz.yaml"), bytes, &set);
    for index in 0..loaded.objects.len() {
        // A lookup of a place walks the same text again.
        loaded.place(index, &field_path!(spec.rules[0].matches[0].path.value));
    }
    for diagnostic in &loaded.diagnostics([]) {
        assert!(!diagnostic.problem.is_empty(), "{diagnostic}");
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert!(config::reads_as_parsed(text), "as the parser reads it");
    }
}

/// Returns the violations of the objects in `bytes` against the rules of their kinds.
///
/// For `tests/crds`, which checks the same objects against the CRDs.
pub fn refusals(bytes: &[u8]) -> Vec<String> {
    let loaded = provider::parse_bytes(Path::new("object.yaml"), bytes, &|_| None);
    let errors = loaded.diagnostics([]).into_iter().filter(|one| one.severity == Severity::Error);
    errors.map(|one| one.to_string()).collect()
}

/// Returns the places in objects of a kind that server-side apply merges differently from the
/// default for their type, each with its merge strategy: `x-kubernetes-list-type` with the keys, or
/// `x-kubernetes-map-type`.
///
/// For `tests/crds`, which reads the same from the CRDs.
pub fn shapes(kind: &str) -> BTreeMap<String, String> {
    let word = |shape| match shape {
        ListShape::Map(keys) => {
            keys.iter().fold("map".into(), |all, (key, _)| format!("{all} {key}"))
        }
        ListShape::Set => "set".to_owned(),
        ListShape::Whole => "atomic".to_owned(),
    };
    kube_api::shapes(kind).map(|(place, shape)| (place.to_owned(), word(shape))).collect()
}

/// Returns the defaults that a client of the Kubernetes API reads in objects of a kind, by field.
///
/// For `tests/crds`, which reads the same from the CRDs.
pub fn defaults(kind: &str) -> BTreeMap<String, serde_json::Value> {
    let of_kind = kube_api::defaults(kind)
        .filter_map(|(field, json)| Some((field.to_owned(), serde_json::from_str(json).ok()?)));
    of_kind.collect()
}

/// Runs a parser of the first bytes of a peer; the first byte selects the parser, the rest is its
/// input.
///
/// The digits `0` to `5` work too, so a seed can be written by hand.
pub fn parsers(bytes: &[u8]) {
    let Some((pick, rest)) = bytes.split_first() else { return };
    match (pick % 6, std::str::from_utf8(rest)) {
        (0, _) => client_hello(rest),
        (1, Ok(text)) => token(text),
        (2, Ok(text)) => one_path(text),
        (3, Ok(text)) => names_and_ranges(text),
        (4, _) => traceparent(rest),
        (5, _) => tracestate(rest),
        _ => {}
    }
}

/// Parses a ClientHello or other first bytes of a connection, which ends after them.
fn client_hello(bytes: &[u8]) {
    accepted(bytes, |hello| {
        let name = hello.sni().unwrap_or_default();
        assert_eq!(name, name.to_ascii_lowercase(), "a name is compared in lower case");
        hello.alpn().for_each(|protocol| assert!(protocol.len() < 256));
    });
}

/// Calls `then` with the ClientHello in `bytes`, if rustls accepts it.
fn accepted(bytes: &[u8], then: impl FnOnce(&Hello<Join<&[u8], Sink>>)) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let Ok(runtime) = runtime else { return };
    let stream = tokio::io::join(bytes, tokio::io::sink());
    if let Ok(hello) = runtime.block_on(tls::accept_hello(stream)) {
        then(&hello);
    }
}

/// Runs the reader of the server name, for connections whose handshake a backend may answer. If the
/// bytes are cut, the result is the same or "incomplete". If rustls finds a name, the reader finds
/// the same or refuses, because the name decides whether rustls is used at all.
pub fn server_name(bytes: &[u8]) {
    let whole = tls::server_name(bytes);
    for cut in [5, bytes.len() / 3, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        match tls::server_name(&bytes[..cut.min(bytes.len())]) {
            Ok(None) => {}
            early => assert_eq!(early, whole, "cut at {cut}"),
        }
    }
    if let Ok(Some(name)) = &whole {
        assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()) && name.len() < 254, "{name}");
    }
    accepted(bytes, |hello| {
        if let Some(name) = hello.sni() {
            let agrees = match &whole {
                Ok(read) => read.as_deref() == Some(name),
                Err(_) => true,
            };
            assert!(agrees, "rustls reads {name}, we {whole:?}");
        }
    });
}

/// A token never leads out of its directory.
fn token(text: &str) {
    for path in [text, &format!("/.well-known/acme-challenge/{text}")] {
        if let Some(token) = proxy::acme_token(path) {
            assert!(!token.contains(['/', '.', '\\', '\0', '%']) && token.len() <= 128, "{token}");
        }
    }
}

/// A path in normal form has no dot segment and no `//`, and normalising it again changes nothing.
fn one_path(text: &str) {
    let Ok(normal) = path::normalise(text) else { return };
    assert!(normal.starts_with('/'), "{text} -> {normal}");
    assert!(!normal.contains("//"), "{text} -> {normal}");
    assert!(normal.split('/').all(|part| part != "." && part != ".."), "{text} -> {normal}");
    assert_eq!(path::normalise(&normal).as_deref(), Ok(&*normal), "{text}");
    assert_eq!(path::settle(&normal), normal, "{text}");
    for reading in path::other_readings(&normal) {
        assert!(reading.starts_with('/') && !reading.contains("//"), "{text} -> {reading}");
    }
}

/// Hosts, host patterns and address ranges: an accepted text parses to the same value again.
fn names_and_ranges(text: &str) {
    if let Ok(field) = HeaderValue::from_str(text)
        && let Some(host) = HostName::parse(&field)
    {
        let host = host.as_str();
        assert_eq!(host, host.to_ascii_lowercase(), "{text}");
        assert!(!host.is_empty() && !host.contains(['/', '@', ' ', ',']), "{text}");
    }
    if let Ok(pattern) = HostPattern::parse(text) {
        assert_eq!(HostPattern::parse(&pattern.to_string()), Ok(pattern), "{text}");
    }
    if let Ok(range) = text.parse::<Cidr>() {
        let address = text.split('/').next().and_then(|address| address.parse().ok());
        assert!(address.is_some_and(|address| range.contains(address)), "{text}");
    }
}

/// A continued trace is written in a form that parses to the same context.
fn traceparent(bytes: &[u8]) {
    if let Some(context) = trace::Context::parse(bytes) {
        assert_eq!(trace::Context::parse(&context.field()), Some(context));
    }
}

/// One field per line: the result is one field, within the length limit, and settling it again
/// changes nothing.
fn tracestate(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for field in bytes.split(|byte| *byte == b'\n').take(40) {
        if let Ok(field) = HeaderValue::from_bytes(field) {
            headers.append("tracestate", field);
        }
    }
    let settled = trace::settle_state(&mut headers);
    assert!(headers.get_all("tracestate").iter().eq(settled.iter()));
    assert!(settled.as_ref().is_none_or(|field| field.len() <= 512));
    assert_eq!(trace::settle_state(&mut headers), settled);
}
