//! Discovery: groups, versions and resources, in the forms that kubectl requests.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

use crate::api::Kind;
use crate::config;

use super::answer::ApiAnswer;
use super::call::{AnswerShape, ApiCall};
use super::kinds::{self, ApiResource};
use super::refused::ApiError;

/// The version of Kubernetes whose API this one resembles: field validation, aggregated discovery,
/// OpenAPI v3.
const LIKE: (&str, &str) = ("1", "33");

/// Answers paths that are not those of a resource.
///
/// # Errors
///
/// The path is unknown.
pub(super) fn about(
    path: &str,
    call: &ApiCall,
    writable: bool,
    version: u64,
) -> Result<ApiAnswer, ApiError> {
    let steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty()).collect();
    let aggregated = call.shape == AnswerShape::Discovery;
    let body = match &steps[..] {
        [] => json!({ "paths": paths() }),
        ["healthz" | "livez" | "readyz"] => {
            return Ok(ApiAnswer::bytes("text/plain", b"ok".to_vec()));
        }
        ["version"] => version_info(),
        ["api"] if aggregated => return Ok(aggregate(true, writable)),
        ["apis"] if aggregated => return Ok(aggregate(false, writable)),
        ["api"] => json!({ "kind": "APIVersions", "versions": ["v1"] }),
        ["apis"] => {
            let groups = kinds::groups().into_iter().filter(|(group, _)| !group.is_empty());
            let groups: Vec<Value> =
                groups.map(|(name, versions)| group(name, &versions)).collect();
            json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
        }
        ["apis", name] => {
            let groups = kinds::groups();
            let found = groups.iter().find(|(group, _)| group == name);
            let (name, versions) = found.ok_or_else(ApiError::no_such_resource)?;
            let mut group = group(name, versions);
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            group
        }
        ["api", version] => resource_list("", version, writable)?,
        ["apis", group, version] => resource_list(group, version, writable)?,
        ["openapi", "v2"] => return Ok(openapi_v2()),
        ["openapi", "v3"] => openapi_index(),
        ["openapi", "v3", "api", version] => openapi_v3("", version)?,
        ["openapi", "v3", "apis", group, version] => openapi_v3(group, version)?,
        // The path that `place` returns for a list of events. The gateway makes no events.
        ["api", "v1", "events"] => json!({
            "kind": "EventList",
            "apiVersion": "v1",
            "metadata": { "resourceVersion": version.to_string() },
            "items": [],
        }),
        _ => return Err(ApiError::no_such_resource()),
    };
    Ok(ApiAnswer::json(200, body))
}

fn paths() -> Vec<String> {
    let mut paths = vec!["/api".into(), "/api/v1".into(), "/apis".into()];
    for (group, versions) in kinds::groups().into_iter().filter(|(group, _)| !group.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.extend(["/healthz", "/openapi/v2", "/openapi/v3", "/version"].map(Into::into));
    paths
}

fn version_info() -> Value {
    let (major, minor) = LIKE;
    json!({
        "major": major,
        "minor": minor,
        "gitVersion": format!("v{major}.{minor}.0+edge-gateway-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("linux/{}", std::env::consts::ARCH),
    })
}

fn group(name: &str, versions: &[&str]) -> Value {
    let of =
        |version: &str| json!({ "groupVersion": format!("{name}/{version}"), "version": version });
    json!({
        "name": name,
        "versions": versions.iter().map(|version| of(version)).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(|version| of(version)),
    })
}

/// Returns the resources of a version, in their order; none if the version does not exist.
fn of_version<'v>(
    group: &'v str,
    version: &'v str,
) -> impl Iterator<Item = &'static ApiResource> + 'v {
    let is_in = move |resource: &&ApiResource| {
        resource.info.group == group && resource.info.versions.contains(&version)
    };
    kinds::resources().iter().filter(is_in)
}

fn verbs(writable: bool) -> Vec<&'static str> {
    let mut verbs = vec!["get", "list", "watch"];
    if writable {
        verbs.extend(["create", "delete", "patch", "update"]);
    }
    verbs
}

fn categories(resource: &ApiResource) -> &'static [&'static str] {
    match resource.info.group {
        "gateway.networking.k8s.io" => &["gateway-api"],
        "gateway.envoyproxy.io" => &["envoy-gateway"],
        _ => &[],
    }
}

fn resource_list(group: &str, version: &str, writable: bool) -> Result<Value, ApiError> {
    let mut resources = Vec::new();
    for resource in of_version(group, version) {
        let mut one = json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.is_namespaced(),
            "kind": resource.info.kind.as_str(),
            "verbs": verbs(writable),
        });
        if !resource.short.is_empty() {
            one["shortNames"] = resource.short.into();
        }
        if !categories(resource).is_empty() {
            one["categories"] = categories(resource).into();
        }
        resources.push(one);
        if resource.has_status() {
            resources.push(json!({
                "name": format!("{}/status", resource.plural),
                "singularName": "",
                "namespaced": resource.is_namespaced(),
                "kind": resource.info.kind.as_str(),
                "verbs": ["get"],
            }));
        }
    }
    if resources.is_empty() {
        return Err(ApiError::no_such_resource());
    }
    if group.is_empty() {
        resources.push(json!({
            "name": "events",
            "singularName": "event",
            "namespaced": true,
            "kind": "Event",
            "verbs": ["list"],
            "shortNames": ["ev"],
        }));
    }
    let group_version =
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    }))
}

/// Returns the core group, or all others, with their resources in one document, for kubectl 1.27
/// and later.
fn aggregate(core: bool, writable: bool) -> ApiAnswer {
    let groups = kinds::groups().into_iter().filter(|(group, _)| group.is_empty() == core);
    let items: Vec<Value> = groups
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = of_version(group, version)
                        .map(|resource| aggregated(resource, version, writable))
                        .chain(core.then(events))
                        .collect();
                    json!({ "version": version, "resources": resources, "freshness": "Current" })
                })
                .collect();
            json!({ "metadata": { "name": group }, "versions": versions })
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    });
    // Only the media type shows a client that it got the form that it prefers.
    let content_type = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    ApiAnswer::bytes(content_type, list.to_string().into_bytes())
}

/// Returns the resource of events. Only the list is supported, and it is empty.
fn events() -> Value {
    json!({
        "resource": "events",
        "responseKind": { "group": "", "version": "v1", "kind": "Event" },
        "scope": "Namespaced",
        "singularResource": "event",
        "shortNames": ["ev"],
        "verbs": ["list"],
    })
}

fn aggregated(resource: &ApiResource, version: &str, writable: bool) -> Value {
    let kind = json!({
        "group": resource.info.group,
        "version": version,
        "kind": resource.info.kind.as_str(),
    });
    let mut one = json!({
        "resource": resource.plural,
        "responseKind": kind,
        "scope": if resource.is_namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": verbs(writable),
    });
    if !resource.short.is_empty() {
        one["shortNames"] = resource.short.into();
    }
    if !categories(resource).is_empty() {
        one["categories"] = categories(resource).into();
    }
    if resource.has_status() {
        let part = json!({ "subresource": "status", "responseKind": kind, "verbs": ["get"] });
        one["subresources"] = json!([part]);
    }
    one
}

/// Returns an OpenAPI document without schemas. kubectl before 1.25 needs one before it writes
/// anything, accepts only protobuf, and does not validate kinds that are not in it. The gateway
/// checks the rules itself.
fn openapi_v2() -> ApiAnswer {
    // message Document { string swagger = 1; Info info = 2; Paths paths = 8; }
    // message Info { string title = 1; string version = 2; }
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        // Texts here are shorter than 128 bytes, so a length is one byte.
        let length = u8::try_from(bytes.len()).unwrap_or_default();
        [&[number << 3 | 2, length], bytes].concat()
    }
    let info = [field(1, b"edge-gateway"), field(2, env!("CARGO_PKG_VERSION").as_bytes())].concat();
    let document = [field(1, b"2.0"), field(2, &info), field(8, &[])].concat();
    ApiAnswer::bytes("application/com.github.proto-openapi.spec.v2.v1.0+protobuf", document)
}

fn openapi_index() -> Value {
    let mut paths = serde_json::Map::new();
    for (group, versions) in kinds::groups() {
        for version in versions {
            let path = match group {
                "" => format!("api/{version}"),
                group => format!("apis/{group}/{version}"),
            };
            // Clients keep a document for as long as its hash is the same.
            let mut hash = DefaultHasher::new();
            openapi_v3(group, version).unwrap_or_default().to_string().hash(&mut hash);
            let url = format!("/openapi/v3/{path}?hash={:016x}", hash.finish());
            paths.insert(path, json!({ "serverRelativeURL": url }));
        }
    }
    json!({ "paths": paths })
}

/// Returns the fields of a kind that the gateway reads. Other fields are kept and have no effect.
fn schema(resource: &ApiResource) -> Value {
    let kind = resource.info.kind;
    let mut schema = config::schema(kind).unwrap_or_else(|| json!({ "type": "object" }));
    for (name, description) in
        [("apiVersion", "Group and version of the kind."), ("kind", "The kind of the object.")]
    {
        schema["properties"][name] = json!({ "type": "string", "description": description });
    }
    if resource.has_status() {
        schema["properties"]["status"] = json!({
            "type": "object",
            "description": "Conditions, written by the gateway alone.",
            "x-kubernetes-preserve-unknown-fields": true,
        });
    }
    schema["description"] = match kind {
        Kind::Other(_) => format!("{kind} is not supported yet; its fields are kept and ignored."),
        _ => format!(
            "{kind} as this gateway reads it. docs/configuration.md tells what each field does, and \
             which are not supported."
        ),
    }
    .into();
    schema["x-kubernetes-preserve-unknown-fields"] = true.into();
    schema
}

/// Returns the operations of a version, which show kubectl that fields are validated here, and the
/// fields of its kinds, for `kubectl explain`.
fn openapi_v3(group: &str, version: &str) -> Result<Value, ApiError> {
    let mut paths = serde_json::Map::new();
    let mut schemas = serde_json::Map::new();
    for resource in of_version(group, version) {
        let kind = json!([{
            "group": group,
            "version": version,
            "kind": resource.info.kind.as_str(),
        }]);
        let root = if group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{group}/{version}")
        };
        let namespace = if resource.is_namespaced() { "/namespaces/{namespace}" } else { "" };
        let parameter = |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string", "uniqueItems": true } });
        let parameters = ["dryRun", "fieldManager", "fieldValidation", "force"].map(parameter);
        let operation = |action: &str| {
            json!({
                "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind": kind[0],
                "parameters": parameters,
                "responses": { "200": { "description": "OK" } },
            })
        };
        let plural = &resource.plural;
        paths.insert(format!("{root}{namespace}/{plural}"), json!({ "post": operation("post") }));
        paths.insert(
            format!("{root}{namespace}/{plural}/{{name}}"),
            json!({ "patch": operation("patch"), "put": operation("put") }),
        );
        let mut name: Vec<&str> = group.split('.').rev().collect();
        name.extend([version, resource.info.kind.as_str()]);
        let mut schema = schema(resource);
        schema["x-kubernetes-group-version-kind"] = kind;
        schemas.insert(name.join(".").trim_start_matches('.').into(), schema);
    }
    if paths.is_empty() {
        return Err(ApiError::no_such_resource());
    }
    Ok(json!({
        "openapi": "3.0.0",
        "info": { "title": "edge-gateway", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "schemas": schemas },
    }))
}
