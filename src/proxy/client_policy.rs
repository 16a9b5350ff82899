//! Effects of a listener's ClientTrafficPolicy on requests and responses.

use std::sync::atomic::Ordering;

use http::header::{HOST, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request};

use crate::body::{Body, Response};
use crate::failure::Failure;
use crate::path::Ambiguous;
use crate::proxy::exchange_record::Record;
use crate::proxy::guard::Admitted;
use crate::snapshot::matcher::is_grpc;
use crate::snapshot::{ClientPolicy, EscapedSlashes};

const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

/// Changes an admitted request before it is routed. Returns the response to one that the policy
/// itself answers.
pub(super) fn on_request(
    policy: &ClientPolicy,
    record: &Record,
    head: &mut request::Parts,
    admitted: &mut Admitted,
) -> Result<Option<Response>, Failure> {
    if policy.health_check.as_deref().is_some_and(|path| path == record.written_target()) {
        return Ok(Some(health(record)));
    }
    if admitted.is_unescaped && policy.escaped_slashes == EscapedSlashes::Redirected {
        return redirect(head).map(Some);
    }
    if policy.strips_host_dot
        && let Some(host) = without_dot(&admitted.host_field)
    {
        head.headers.insert(HOST, host.clone());
        admitted.host_field = host;
    }
    if let Some(changes) = &policy.early {
        changes.apply(&mut head.headers);
    }
    Ok(None)
}

/// Returns the answer to a health check: 200, or 503 while the process drains.
fn health(record: &Record) -> Response {
    let mut response = Response::new(Body::Empty);
    if record.connection.process.draining.load(Ordering::Relaxed) {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// Returns the redirect to the path in which escaped separators are read as `/`.
fn redirect(head: &request::Parts) -> Result<Response, Failure> {
    let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    // Browsers would read `//host` as another host.
    if is_grpc(&head.headers) || target.starts_with("//") {
        return Err(Failure::AmbiguousPath(Ambiguous::EscapedSeparator));
    }
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let location = HeaderValue::from_str(target).map_err(|_| Failure::BadTarget)?;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// Changes a response on its way to the client, whoever made it.
pub(super) fn on_response(policy: &ClientPolicy, record: &Record, headers: &mut HeaderMap) {
    if policy.shows_envoy_headers
        && let Some(milliseconds) = record.upstream_milliseconds()
    {
        headers.insert(SERVICE_TIME, milliseconds.into());
    }
    if let Some(changes) = &policy.late {
        changes.apply(headers);
    }
}

/// Returns a host without the dot behind its name; `None` if it has none.
fn without_dot(field: &HeaderValue) -> Option<HeaderValue> {
    let text = field.to_str().ok()?;
    let end = text.find(':').unwrap_or(text.len());
    let (name, port) = text.split_at(end);
    let name = name.strip_suffix('.')?;
    HeaderValue::from_str(&format!("{name}{port}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dot_behind_a_host_is_left_out() {
        let table = [
            ("a.test.", Some("a.test")),
            ("a.test.:80", Some("a.test:80")),
            ("a.test", None),
            ("a.test:80", None),
            ("[::1]:80", None),
            ("[::1]", None),
        ];
        for (host, want) in table {
            let got = without_dot(&HeaderValue::from_static(host));
            assert_eq!(got.as_ref().map(|host| host.to_str().unwrap()), want, "{host}");
        }
    }
}
