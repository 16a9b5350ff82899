//! HTTPRouteFilters that an `extensionRef` refers to.

use crate::api::{DirectBodyType, DirectResponse, LocalObjectReference, ObjectKey, RouteFilter};

use super::index::ObjectIndex;

/// A direct response in place of a backend's, with its body looked up.
#[derive(Debug)]
pub(crate) struct DirectAnswer<'a> {
    /// The HTTP status code, 200 to 599.
    pub status: u16,
    pub content_type: Option<&'a str>,
    pub body: &'a str,
}

/// The maximum size of a direct response's body in bytes, which is Envoy's default.
const LARGEST: usize = 4096;

/// The key of a ConfigMap that holds a body. If it is missing, the first key is used.
const BODY_KEY: &str = "response.body";

/// Looks up and reads the filter that `reference` names.
///
/// # Errors
///
/// The filter cannot be used. Requests that should pass through it are answered with 500.
pub(super) fn look_up<'a>(
    reference: &LocalObjectReference,
    route: &ObjectKey,
    index: &ObjectIndex<'a>,
) -> Result<DirectAnswer<'a>, String> {
    let name = &reference.name;
    let Some(filter) = index.route_filter(&route.namespace, name) else {
        return Err(format!("there is no HTTPRouteFilter {}/{name}", route.namespace));
    };
    read(filter, index)
        .map_err(|problem| format!("HTTPRouteFilter {}/{name}: {problem}", route.namespace))
}

fn read<'a>(filter: &'a RouteFilter, index: &ObjectIndex<'a>) -> Result<DirectAnswer<'a>, String> {
    let Some(direct) = &filter.spec.direct_response else {
        return Err("only `directResponse` is supported yet".into());
    };
    let status = direct.status_code.unwrap_or(200);
    if !(200..=599).contains(&status) {
        return Err(format!("`{status}` is not a status of an answer; use 200 to 599"));
    }
    let body = body(direct, filter, index)?;
    if body.len() > LARGEST {
        let length = body.len();
        return Err(format!("a body of {length} bytes is too long; use at most {LARGEST}"));
    }
    Ok(DirectAnswer { status, content_type: direct.content_type.as_deref(), body })
}

fn body<'a>(
    direct: &'a DirectResponse,
    filter: &'a RouteFilter,
    index: &ObjectIndex<'a>,
) -> Result<&'a str, String> {
    let Some(body) = &direct.body else { return Ok("") };
    match body.kind() {
        DirectBodyType::Inline => Ok(body.inline.as_deref().unwrap_or_default()),
        DirectBodyType::ValueRef => {
            let Some(reference) = &body.value_ref else {
                return Err("type is ValueRef but `valueRef` is missing".into());
            };
            let namespace = filter.metadata.namespace();
            let missing = || {
                format!("there is no ConfigMap {namespace}/{} with a value in it", reference.name)
            };
            let map = index.config_map(namespace, &reference.name).ok_or_else(missing)?;
            let value = map.data.get(BODY_KEY).or_else(|| map.data.values().next());
            value.map(String::as_str).ok_or_else(missing)
        }
        DirectBodyType::Unknown(other) => {
            Err(format!("`{other}` is not a type of body; use Inline or ValueRef"))
        }
    }
}
