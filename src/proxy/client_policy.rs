//! Effects of a listener's ClientTrafficPolicy on requests and responses.

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::proxy::exchange_record::Record;
use crate::proxy::guard::Admitted;
use crate::snapshot::ClientPolicy;

const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

/// Changes an admitted request before it is routed.
pub(super) fn on_request(policy: &ClientPolicy, headers: &mut HeaderMap, admitted: &mut Admitted) {
    if policy.strips_host_dot
        && let Some(host) = without_dot(&admitted.host_field)
    {
        headers.insert(HOST, host.clone());
        admitted.host_field = host;
    }
    if let Some(changes) = &policy.early {
        changes.apply(headers);
    }
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
