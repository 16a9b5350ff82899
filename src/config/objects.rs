//! The documents of one file as objects.
//!
//! The kind is read first; it determines the type of the whole document. Plain structs keep the
//! place of every fault; an enum over all kinds would not.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use crate::api::envoy::EnvoyPolicy;
use crate::api::{
    ENVOY_GROUP, KINDS, Kind, KindInfo, Object, ObjectMeta, Scope, TypeMeta, Unsupported,
};

use super::decode::{DecodeRules, DecodedDocument, Environment, Misread, decode};
use super::diagnostic::{Diagnostic, Place, Position};
use super::fault::{Origin, Severity};
use super::field_path::{FieldPath, field_path};
use super::file_origin::FileOrigin;
use super::suggest::nearest;
use super::tree::{Entry, Node, Value};
use super::variables::Variables;
use super::written::Written;
use super::yaml::{Document, DocumentSpan};
use super::{json, names, text};

/// Fields of Envoy Gateway's SecurityPolicy that are not supported yet, below `spec`; `[]` stands for
/// each item of a list.
const SECURITY_FEATURES: &[&str] = &[
    "apiKeyAuth",
    "authorization.rules[].cel",
    "authorization.rules[].operation.path",
    "authorization.rules[].principal.clientCert",
    "authorization.rules[].principal.clientIPGeoLocations",
    "authorization.rules[].principal.jwt",
    "authorization.rules[].principal.sourceCIDRs",
    "basicAuth",
    "csrf.shadowFraction",
    "extAuth",
    "geoIP",
    "jwt",
    "oidc",
];

/// Fields of Envoy Gateway's BackendTrafficPolicy that are not supported yet, in the same form.
const TRAFFIC_FEATURES: &[&str] = &[
    "admissionControl",
    "bandwidthLimit",
    "circuitBreaker.perEndpoint",
    "connection.preconnect",
    "connection.socketBufferLimit",
    "dns",
    "healthCheck.active.healthCheckLog",
    "http2.connectionKeepalive.idleInterval",
    "http2.onInvalidMessage",
    "loadBalancer.backendUtilization",
    "loadBalancer.zoneAware",
    "rateLimit.global",
    "rateLimit.local.rules[].shared",
    "routingType",
    "tcpKeepalive",
    "telemetry",
    "useClientProtocol",
];

/// Fields of Envoy Gateway's ClientTrafficPolicy that are not supported yet, in the same form.
const CLIENT_FEATURES: &[&str] = &[
    "connection.bufferLimit",
    "connection.connectionLimit.maxStreamDuration",
    "connection.maxAcceptPerSocketEvent",
    "connection.socketBufferLimit",
    "headers.xForwardedClientCert",
    "http1.disableSafeMaxConnectionDuration",
    "http1.http10.useDefaultHost",
    "http1.preserveHeaderCase",
    "http2.connectionKeepalive.idleInterval",
    "http2.connectionKeepalive.intervalJitter",
    "http2.onInvalidMessage",
    "http3",
    "tls.alpnProtocols",
    "tls.ciphers",
    "tls.ecdhCurves",
    "tls.fingerprints",
    "tls.maxVersion",
    "tls.minVersion",
    "tls.session",
    "tls.signatureAlgorithms",
];

/// Those of a ClientTrafficPolicy that protect listeners, in the same form.
const CLIENT_PROTECTIONS: &[&str] = &["tls.clientValidation"];

/// Fields of the root that every kind has.
const ROOT_FIELDS: &[&str] = &["apiVersion", "kind", "status"];

/// The objects and faults of one file, in the order of the file.
pub(super) struct DocumentReader<'a> {
    pub file: &'a Arc<Path>,
    /// The text that the spans of documents are parts of; `None` if there is none.
    pub text: Option<&'a Arc<str>>,
    pub environment: Environment<'a>,
    /// True if unknown fields are warnings.
    pub lenient: bool,
    /// True if variables are not replaced, because the objects do not come from a file.
    pub verbatim: bool,
    pub objects: Vec<(Object, FileOrigin)>,
    pub diagnostics: Vec<Diagnostic>,
}

/// The fields of a policy that are not supported yet, by their effect.
#[derive(Clone, Copy)]
struct UnsupportedFields<'f> {
    /// Each is a fault of this object alone: the policy is kept, so that its targets fail closed.
    closing: &'f [&'f str],
    /// Each is a warning: without it the targets are served as without the policy.
    ignored: &'f [&'f str],
}

/// The place of an object in its file.
#[derive(Clone, Copy)]
struct Spot<'s> {
    document: &'s DocumentSpan,
    /// `items[3]` for the fourth item of a list, empty for a document.
    prefix: &'s FieldPath,
    object: &'s str,
    kind: Kind,
}

impl DocumentReader<'_> {
    /// Reads one document.
    pub(super) fn document(&mut self, document: &Document) {
        for fault in &document.faults {
            self.report(
                Severity::Error,
                "",
                fault.at,
                &FieldPath::default(),
                fault.problem.clone(),
            );
        }
        match &document.root {
            // Nothing between two `---`, or only comments.
            Some(root) if root.is_null() => {}
            Some(root) => self.object(root, &document.span, &FieldPath::default()),
            None => {}
        }
    }

    fn object(&mut self, root: &Node, document: &DocumentSpan, prefix: &FieldPath) {
        let has_type = ["apiVersion", "kind"].iter().any(|name| root.entry(name).is_some());
        if !has_type && text::is_json(self.file) {
            // Other programs keep their JSON files in the same directories.
            let problem =
                "ignored: not an object of Kubernetes, it has neither `apiVersion` nor `kind`";
            return self.report(Severity::Warning, "", root.at, prefix, problem.into());
        }
        if !matches!(root.value, Value::Map(_)) {
            let problem = "this is not an object; write `apiVersion: ...`, `kind: ...` and so on";
            return self.report(Severity::Error, "", root.at, prefix, problem.into());
        }
        let object = label(root);
        let [api_version, kind] = ["apiVersion", "kind"].map(|name| root.entry(name));
        let (Some(api_version), Some(kind)) = (api_version, kind) else {
            for (name, found) in [("apiVersion", api_version), ("kind", kind)] {
                if found.is_none() {
                    let problem = format!("`{name}` is missing; every object has one");
                    self.report(Severity::Error, &object, root.at, prefix, problem);
                }
            }
            return;
        };
        let types = types(root);
        if is_list(&types)
            && let Some(items) = root.entry("items")
        {
            return self.items(items, document);
        }
        match find(&types) {
            KindLookup::Kind(info) => {
                self.known(root, Spot { document, prefix, object: &object, kind: info.kind });
            }
            KindLookup::Foreign => {
                let TypeMeta { api_version, kind: name } = types;
                let problem = format!(
                    "{name} of {api_version} is not a kind that this gateway knows; ignored"
                );
                self.report(Severity::Warning, &object, kind.value.at, prefix, problem);
            }
            KindLookup::Wrong { field, problem } => {
                let entry = if field == "kind" { kind } else { api_version };
                let field = prefix.clone().join(field);
                self.report(Severity::Error, &object, entry.value.at, &field, problem);
            }
        }
    }

    /// Reads the items of `kind: List`. Lists inside lists are rejected; `kubectl` does not write
    /// them.
    fn items(&mut self, items: &Entry, document: &DocumentSpan) {
        let Value::List(nodes) = &items.value.value else {
            let problem = "expected a list of objects".into();
            return self.report(Severity::Error, "", items.key_at, &field_path!(items), problem);
        };
        for (index, node) in nodes.iter().enumerate() {
            let prefix = field_path!(items[index]);
            if node.entry("items").is_some()
                && node.entry("metadata").is_none_or(|m| m.value.entry("name").is_none())
            {
                let problem = "a list stands inside of a list; write its items here".into();
                self.report(Severity::Error, "", node.at, &prefix, problem);
            } else {
                self.object(node, document, &prefix);
            }
        }
    }

    fn known(&mut self, root: &Node, spot: Spot<'_>) {
        match spot.kind {
            Kind::GatewayClass => self.decode(root, spot, Object::GatewayClass),
            Kind::Gateway => self.decode(root, spot, Object::Gateway),
            Kind::ListenerSet => self.decode(root, spot, Object::ListenerSet),
            Kind::HttpRoute => self.decode(root, spot, Object::HttpRoute),
            Kind::GrpcRoute => self.decode(root, spot, Object::GrpcRoute),
            Kind::TlsRoute => self.decode(root, spot, Object::TlsRoute),
            Kind::TcpRoute => self.decode(root, spot, Object::TcpRoute),
            Kind::UdpRoute => self.decode(root, spot, Object::UdpRoute),
            Kind::ReferenceGrant => self.decode(root, spot, Object::ReferenceGrant),
            Kind::Backend => self.decode(root, spot, Object::Backend),
            Kind::RouteFilter => self.decode(root, spot, Object::RouteFilter),
            Kind::EnvoyProxy => self.envoy_proxy(root, spot),
            Kind::Secret => self.decode(root, spot, Object::Secret),
            Kind::ConfigMap => self.decode(root, spot, Object::ConfigMap),
            Kind::Service => self.decode(root, spot, Object::Service),
            Kind::EndpointSlice => self.decode(root, spot, Object::EndpointSlice),
            Kind::Namespace => self.decode(root, spot, Object::Namespace),
            Kind::BackendTlsPolicy => self.decode(root, spot, Object::BackendTlsPolicy),
            Kind::SecurityPolicy => {
                let unsupported = UnsupportedFields { closing: SECURITY_FEATURES, ignored: &[] };
                self.policy(root, spot, unsupported, Object::SecurityPolicy);
            }
            Kind::BackendTrafficPolicy => {
                let unsupported = UnsupportedFields { closing: &[], ignored: TRAFFIC_FEATURES };
                self.policy(root, spot, unsupported, |policy| {
                    Object::BackendTrafficPolicy(Box::new(policy))
                });
            }
            Kind::ClientTrafficPolicy => {
                let (closing, ignored) = (CLIENT_PROTECTIONS, CLIENT_FEATURES);
                let unsupported = UnsupportedFields { closing, ignored };
                self.policy(root, spot, unsupported, |policy| {
                    Object::ClientTrafficPolicy(Box::new(policy))
                });
            }
            Kind::Other(_) => self.unsupported(root, spot),
        }
    }

    fn decode<'n, T: Deserialize<'n>>(
        &mut self,
        root: &'n Node,
        spot: Spot<'_>,
        make: impl FnOnce(T) -> Object,
    ) {
        let rules = self.rules(spot, ROOT_FIELDS);
        let DecodedDocument { value, mut faults, unknown } = decode(root, rules);
        if self.lenient {
            for Misread { at, field, problem } in unknown {
                let field = spot.prefix.clone().join(field);
                self.report(Severity::Warning, spot.object, at, &field, problem);
            }
        } else {
            faults.extend(unknown);
        }
        if let Some(object) = value.map(make)
            && faults.is_empty()
        {
            let wrong = names::check(object.kind(), object.metadata());
            let Some((field, problem)) = wrong else {
                return self.keep(object, root, spot);
            };
            let named =
                root.entry("metadata").and_then(|m| m.value.entry(&field["metadata.".len()..]));
            let at = named.map_or(root.at, |entry| entry.value.at);
            faults.push(Misread { at, field: field.into(), problem });
        }
        for Misread { at, field, problem } in faults {
            let field = spot.prefix.clone().join(field);
            self.report(Severity::Error, spot.object, at, &field, problem);
        }
    }

    fn rules<'r>(&'r self, spot: Spot<'_>, root_fields: &'r [&'r str]) -> DecodeRules<'r> {
        DecodeRules {
            environment: self.environment,
            root_fields,
            secret: spot.kind == Kind::Secret,
            variables: self.variables(spot.kind),
        }
    }

    fn variables(&self, kind: Kind) -> Variables {
        if self.verbatim { Variables::Kept } else { Variables::of(kind) }
    }

    /// Reads an object of a kind that has no effect here. Its faults are not reported because they
    /// do no harm.
    fn unsupported(&mut self, root: &Node, spot: Spot<'_>) {
        #[derive(Default, Deserialize)]
        struct MetadataOnly {
            #[serde(default)]
            metadata: ObjectMeta,
        }

        let names = fields(root);
        let Spot { kind, .. } = spot;
        let rules = self.rules(spot, &names);
        let metadata = decode::<MetadataOnly>(root, rules).value.unwrap_or_default().metadata;
        let problem = format!("{kind} is not supported yet, ignored");
        let at = root.entry("kind").map_or(root.at, |entry| entry.value.at);
        self.report(Severity::Warning, spot.object, at, spot.prefix, problem);
        self.keep(Object::Unsupported(Unsupported { kind, metadata }), root, spot);
    }

    /// Reads an EnvoyProxy. Most of its fields configure Envoy and are ignored with a warning; so
    /// is a field that this release does not know.
    fn envoy_proxy(&mut self, root: &Node, spot: Spot<'_>) {
        let before = std::mem::replace(&mut self.lenient, true);
        self.decode(root, spot, Object::EnvoyProxy);
        self.lenient = before;
    }

    /// Reads a policy of Envoy Gateway.
    fn policy<S>(
        &mut self,
        root: &Node,
        spot: Spot<'_>,
        unsupported: UnsupportedFields<'_>,
        make: fn(EnvoyPolicy<S>) -> Object,
    ) where
        S: for<'n> Deserialize<'n> + Default,
    {
        let rules = self.rules(spot, ROOT_FIELDS);
        let DecodedDocument { value, faults, mut unknown } = decode::<EnvoyPolicy<S>>(root, rules);
        let closing = unsupported_features(root, unsupported.closing);
        let ignored = unsupported_features(root, unsupported.ignored);
        let is_known = |fault: &Misread| {
            closing.iter().chain(&ignored).any(|(_, unsupported)| *unsupported == fault.at)
        };
        unknown.retain(|fault| !is_known(fault));
        for Misread { at, field, problem } in faults.into_iter().chain(unknown) {
            self.report(
                Severity::Error,
                spot.object,
                at,
                &spot.prefix.clone().join(field),
                problem,
            );
        }
        let Some(mut policy) = value else { return };
        let problem = match spot.kind {
            Kind::ClientTrafficPolicy => {
                "not supported yet. So as not to be open to everybody, its listeners are closed. \
                 Write `spec.tls.frontend` of the Gateway instead"
            }
            _ => {
                "not supported yet. So as not to expose what the policy protects, its targets get \
                 500. Remove the policy or the routes"
            }
        };
        let closing = closing.into_iter().map(|(field, at)| {
            policy.unsupported.push(field.clone());
            (field, at, Severity::Error, problem)
        });
        let ignored = ignored.into_iter().map(|(field, at)| {
            (field, at, Severity::Warning, "not supported yet; this changes nothing")
        });
        for (field, at, severity, problem) in closing.chain(ignored) {
            self.diagnostics.push(Diagnostic {
                severity,
                fatal: false,
                place: Place { file: Arc::clone(self.file), position: Some(at) },
                object: spot.object.into(),
                field: spot.prefix.clone().join(&*field).to_string(),
                problem: problem.into(),
                origin: Origin::Written,
            });
        }
        if let Some((field, problem)) = names::check(spot.kind, &policy.metadata) {
            return self.report(Severity::Error, spot.object, root.at, &field.into(), problem);
        }
        if let Some(spec) = root.entry("spec") {
            let variables = self.variables(spot.kind);
            policy.written = json::value(&spec.value, self.environment, variables);
        }
        self.keep(make(policy), root, spot);
    }

    fn keep(&mut self, object: Object, root: &Node, spot: Spot<'_>) {
        // An item of a list is only a part of its document.
        let text = self.text.filter(|_| *spot.prefix == FieldPath::default());
        let part = text.and_then(|text| Written::of_document(text, spot.document));
        let variables = self.variables(spot.kind);
        let written =
            part.unwrap_or_else(|| Written::new(&json::value(root, self.environment, variables)));
        let origin = FileOrigin {
            file: Arc::clone(self.file),
            document: spot.document.clone(),
            prefix: spot.prefix.clone(),
            written,
        };
        self.objects.push((object, origin));
    }

    /// Reports a fault. Every error found before the objects are complete is fatal, because the
    /// intent of the writer is not known.
    fn report(
        &mut self,
        severity: Severity,
        object: &str,
        at: Position,
        field: &FieldPath,
        problem: String,
    ) {
        self.diagnostics.push(Diagnostic {
            severity,
            fatal: severity == Severity::Error,
            place: Place { file: Arc::clone(self.file), position: Some(at) },
            object: object.into(),
            field: field.to_string(),
            problem,
            origin: Origin::Written,
        });
    }
}

/// Returns those of `features` that the spec of a policy has, with the places of their names, in the
/// order of the file.
fn unsupported_features(root: &Node, features: &[&str]) -> Vec<(String, Position)> {
    let mut found = Vec::new();
    if let Some(spec) = root.entry("spec") {
        for feature in features {
            written_at(&spec.value, feature, "spec", &mut found);
        }
    }
    found.sort_by_key(|(_, at)| *at);
    found
}

/// Adds each place of `feature` below `node`, with its path; `at` is the path of `node`.
fn written_at(node: &Node, feature: &str, at: &str, found: &mut Vec<(String, Position)>) {
    let (first, rest) = match feature.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (feature, None),
    };
    let name = first.trim_end_matches("[]");
    let Some(entry) = node.entry(name).filter(|entry| !entry.value.is_null()) else { return };
    let at = format!("{at}.{name}");
    match (rest, &entry.value.value) {
        (None, _) => found.push((at, entry.key_at)),
        (Some(rest), Value::List(items)) if first != name => {
            for (index, item) in items.iter().enumerate() {
                written_at(item, rest, &format!("{at}[{index}]"), found);
            }
        }
        (Some(rest), _) => written_at(&entry.value, rest, &at, found),
    }
}

/// Returns the names of all fields of an object.
fn fields(root: &Node) -> Vec<&str> {
    match &root.value {
        Value::Map(entries) => entries.iter().map(|entry| entry.key.as_str()).collect(),
        Value::List(_) | Value::Scalar { .. } => Vec::new(),
    }
}

/// Returns `apiVersion` and `kind` as written; empty if they are not scalars.
fn types(root: &Node) -> TypeMeta {
    TypeMeta {
        api_version: word(Some(root), "apiVersion").unwrap_or_default(),
        kind: word(Some(root), "kind").unwrap_or_default(),
    }
}

fn word(node: Option<&Node>, field: &str) -> Option<String> {
    node?.entry(field)?.value.text().map(str::to_owned)
}

/// Returns `Kind namespace/name` of a document that may be broken.
fn label(root: &Node) -> String {
    let unknown = || "?".to_owned();
    let types = types(root);
    let kind = word(Some(root), "kind").unwrap_or_else(unknown);
    let metadata = root.entry("metadata").map(|entry| &*entry.value);
    let name = word(metadata, "name").unwrap_or_else(unknown);
    if Kind::find(types.group(), &kind).is_some_and(|info| info.scope == Scope::Cluster) {
        return format!("{kind} {name}");
    }
    let namespace = word(metadata, "namespace").unwrap_or_else(|| "default".into());
    format!("{kind} {namespace}/{name}")
}

/// The result of the lookup of `apiVersion` and `kind`.
enum KindLookup {
    Kind(&'static KindInfo),
    /// A kind of another API.
    Foreign,
    Wrong {
        field: &'static str,
        problem: String,
    },
}

fn find(types: &TypeMeta) -> KindLookup {
    let TypeMeta { api_version, kind } = types;
    let group = types.group();
    if let Some(info) = Kind::find(group, kind) {
        if info.versions.contains(&types.version()) {
            return KindLookup::Kind(info);
        }
        let problem =
            format!("{kind} has no version `{api_version}`; write `{}`", info.api_version());
        return KindLookup::Wrong { field: "apiVersion", problem };
    }
    let of_group: Vec<&str> =
        KINDS.iter().filter(|info| info.group == group).map(|info| info.kind.as_str()).collect();
    if let Some(near) = nearest(kind, &of_group) {
        let problem = format!("`{kind}` is not a kind of {api_version}; did you mean `{near}`?");
        return KindLookup::Wrong { field: "kind", problem };
    }
    // The kind alone is right, and its group is misspelt or belongs to another kind. A name
    // that another API uses in its own group (a Service of Knative, say) is left to that API.
    let named = KINDS.iter().find(|info| info.kind.as_str() == kind);
    if let Some(info) = named
        && (KINDS.iter().any(|info| info.group == group) || nearest(group, &[info.group]).is_some())
    {
        let problem =
            format!("{kind} has no version `{api_version}`; write `{}`", info.api_version());
        return KindLookup::Wrong { field: "apiVersion", problem };
    }
    if group == ENVOY_GROUP && kind == "EnvoyGateway" {
        let problem = "an EnvoyGateway document is not a resource: it names the directories of \
                       resources; move it elsewhere, and give its file to `--config`";
        return KindLookup::Wrong { field: "kind", problem: problem.into() };
    }
    let ours = ["gateway.networking.k8s.io", "gateway.envoyproxy.io"];
    if ours.contains(&group) {
        let problem =
            format!("`{kind}` is not a kind of {group}; known are {}", of_group.join(", "));
        return KindLookup::Wrong { field: "kind", problem };
    }
    KindLookup::Foreign
}

/// Returns true for `kind: List`, and for a list of one kind as an API server returns it.
fn is_list(types: &TypeMeta) -> bool {
    let Some(item) = types.kind.strip_suffix("List") else { return false };
    item.is_empty() || Kind::find(types.group(), item).is_some()
}
