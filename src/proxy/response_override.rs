//! The replacement of a response by another (BackendTrafficPolicy `responseOverride`).

use http::header::{CONNECTION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::body::{Body, Response};
use crate::filters::Exchange;
use crate::observe::Seen;
use crate::proxy::exchange_record::Record;
use crate::snapshot::{Replacement, ResponseOverrides};

/// Returns the response in place of `response`, if there is one. Nothing of the replaced response
/// is kept. `sharing` are the fields that the filters of the rule add to each failure.
///
/// The response to a gRPC call is one with a status of gRPC, whose message is the body.
pub(super) fn replacement(
    overrides: &ResponseOverrides,
    response: &Response,
    record: &Record,
    exchange: &Exchange,
    mut seen: Box<Seen>,
    sharing: &HeaderMap,
) -> Option<Response> {
    let is_local = record.is_answered_here();
    let by = overrides.of(response.status(), response.headers(), is_local)?;
    let mut new = match by {
        Replacement::Redirect(redirect) => {
            let location = HeaderValue::try_from(redirect.elsewhere(exchange, record.target()));
            let mut new = Response::default();
            *new.status_mut() = redirect.status;
            // The path came from the client and may have bytes that no field can have.
            new.headers_mut().insert(LOCATION, location.ok()?);
            new
        }
        Replacement::Response(of) => {
            seen.see_response(&overrides.wanted, response.headers());
            let status = of.status.unwrap_or_else(|| response.status());
            let text = of.body.as_ref().map(|body| {
                let mut named = String::new();
                body.expand(&record.so_far(response.status(), &seen, &mut named))
            });
            let text = text.unwrap_or_default();
            let mut new = if record.is_grpc() {
                record.grpc_answer(status, &text)
            } else {
                let mut new = Response::new(Body::from_bytes(text));
                *new.status_mut() = status;
                let plain = HeaderValue::from_static("text/plain");
                let kind = of.content_type.clone().or_else(|| of.body.as_ref().map(|_| plain));
                kind.and_then(|kind| new.headers_mut().insert(CONTENT_TYPE, kind));
                new
            };
            of.headers.apply(new.headers_mut());
            new
        }
    };
    if is_local {
        // They are true of whatever the client gets.
        for name in [CONNECTION, RETRY_AFTER] {
            if let Some(value) = response.headers().get(&name) {
                new.headers_mut().entry(name).or_insert(value.clone());
            }
        }
    }
    for (name, value) in sharing {
        if !new.headers().contains_key(name) {
            new.headers_mut().insert(name, value.clone());
        }
    }
    if matches!(new.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        *new.body_mut() = Body::Empty;
    }
    Some(new)
}
