//! HTTPRouteFilters that routes refer to by `extensionRef`, with their values from Secrets and ConfigMaps.

use crate::api::envoy::route_filter::{RouteFilterSpec, ValueRef};
use crate::api::{
    CORE_GROUP, DirectBodyType, DirectResponse, Kind, LocalObjectReference, ObjectKey, RouteFilter,
};
use crate::secret::Secret;

use super::backends::BrokenRef;
use super::grants::{Referent, Referrer, advice};
use super::index::ObjectIndex;

/// An HTTPRouteFilter whose references are looked up.
#[derive(Debug)]
pub(crate) struct ExtensionFilter<'a> {
    pub key: ObjectKey,
    pub spec: &'a RouteFilterSpec,
    /// Each with the field that refers to it.
    values: Vec<(&'static str, Secret<&'a [u8]>)>,
}

impl<'a> ExtensionFilter<'a> {
    /// Returns the value that the reference in `field` refers to; empty without such a reference.
    pub(crate) fn value(&self, field: &str) -> &'a [u8] {
        let found = self.values.iter().find(|(of, _)| *of == field);
        found.map_or(&[], |(_, value)| value.reveal())
    }
}

/// The maximum size of a direct response in bytes; Envoy's default.
const LARGEST: usize = 4096;

/// Looks up the filter that `reference` names.
///
/// # Errors
///
/// The problem, if the filter is missing or invalid. Requests that must pass through it get 500.
pub(super) fn look_up<'a>(
    reference: &LocalObjectReference,
    route: &ObjectKey,
    index: &ObjectIndex<'a>,
) -> Result<ExtensionFilter<'a>, BrokenRef> {
    let key = ObjectKey::new(Kind::RouteFilter, &route.namespace, &reference.name);
    let broken = |reason, problem: String| {
        let problem = format!("{problem}; requests that should pass through it are answered 500");
        BrokenRef::new(reason, "", problem).of(key.clone())
    };
    let Some(filter) = index.route_filter(&route.namespace, &reference.name) else {
        return Err(broken("InvalidKind", format!("there is no {key}")));
    };
    read(filter, &key, index)
        .map_err(|(reason, problem)| broken(reason, format!("{key}: {problem}")))
}

/// The reason of ResolvedRefs=False, and its message.
type Problem = (&'static str, String);

fn read<'a>(
    filter: &'a RouteFilter,
    key: &ObjectKey,
    index: &ObjectIndex<'a>,
) -> Result<ExtensionFilter<'a>, Problem> {
    let spec = &filter.spec;
    let invalid = |problem: String| ("InvalidKind", problem);
    if let Some(field) = spec.unsupported() {
        return Err(invalid(format!("`{field}` is not supported yet")));
    }
    if *spec == RouteFilterSpec::default() {
        return Err(invalid("`spec` is empty; write `directResponse`, for example".into()));
    }
    spec.direct_response.as_ref().map_or(Ok(()), check_direct_response).map_err(invalid)?;
    let values = spec.values().into_iter().map(|reference| {
        let value = match reference.expects {
            Kind::ConfigMap => config_value(&reference, key, index).map_err(invalid),
            _ => secret_value(&reference, key, index),
        };
        Ok((reference.field, Secret::new(value?)))
    });
    let found =
        ExtensionFilter { key: key.clone(), spec, values: values.collect::<Result<_, _>>()? };
    let length = found.value(DirectResponse::BODY).len();
    if length > LARGEST {
        return Err(invalid(too_long(length)));
    }
    Ok(found)
}

fn check_direct_response(direct: &DirectResponse) -> Result<(), String> {
    let status = direct.status_code.unwrap_or(200);
    if !(200..=599).contains(&status) {
        return Err(format!("`{status}` is not a status of an answer; use 200 to 599"));
    }
    let Some(body) = &direct.body else { return Ok(()) };
    match body.kind() {
        DirectBodyType::Inline => {
            let length = body.inline.as_deref().unwrap_or_default().len();
            if length > LARGEST { Err(too_long(length)) } else { Ok(()) }
        }
        DirectBodyType::ValueRef if body.value_ref.is_none() => {
            Err("type is ValueRef but `valueRef` is missing".into())
        }
        DirectBodyType::ValueRef => Ok(()),
        DirectBodyType::Unknown(other) => {
            Err(format!("`{other}` is not a type of body; use Inline or ValueRef"))
        }
    }
}

fn too_long(length: usize) -> String {
    format!("a body of {length} bytes is too long; use at most {LARGEST}")
}

/// Returns a value of a ConfigMap in the namespace of the filter.
fn config_value<'a>(
    reference: &ValueRef<'_>,
    from: &ObjectKey,
    index: &ObjectIndex<'a>,
) -> Result<&'a [u8], String> {
    let (namespace, name) = (&from.namespace, reference.name);
    let missing = || format!("there is no ConfigMap {namespace}/{name} with a value in it");
    let map = index.config_map(namespace, name).ok_or_else(missing)?;
    let value = map.data.get(reference.key).or_else(|| map.data.values().next());
    value.map(String::as_bytes).ok_or_else(missing)
}

/// Returns a value of a Secret. A Secret of another namespace needs a ReferenceGrant.
fn secret_value<'a>(
    reference: &ValueRef<'_>,
    from: &ObjectKey,
    index: &ObjectIndex<'a>,
) -> Result<&'a [u8], Problem> {
    let ValueRef { field, group, kind, name, key, .. } = *reference;
    let invalid = |problem: String| ("InvalidKind", format!("{field}: {problem}"));
    if (group, kind) != (CORE_GROUP, "Secret") {
        return Err(invalid(format!("`{kind}` holds no credentials; refer to a Secret")));
    }
    let namespace = reference.namespace.unwrap_or(&from.namespace);
    let (of, named) = (from.kind.group(), from.kind.as_str());
    let by = Referrer { group: of, kind: named, namespace: &from.namespace };
    let to = Referent { group: CORE_GROUP, kind: "Secret", namespace, name };
    if !index.permits(by, to) {
        return Err(("RefNotPermitted", format!("{field}: {}", advice(by, to))));
    }
    let secret = ObjectKey::new(Kind::Secret, namespace, name);
    let Some(found) = index.secret(namespace, name) else {
        return Err(invalid(format!("there is no {secret}")));
    };
    let value = found.value(key).filter(|value| !value.is_empty());
    value.ok_or_else(|| invalid(format!("{secret} has no `{key}`; write it under `stringData`")))
}
