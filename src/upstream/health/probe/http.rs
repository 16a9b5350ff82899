//! The HTTP check: a request whose response has an expected status, and expected bytes.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, USER_AGENT};
use http::uri::{Authority, Scheme, Uri};
use http::{HeaderValue, Request};
use http_body_util::Full;
use memchr::memmem;

use crate::upstream::connect::Stream;
use crate::upstream::health::outcome::{Failing, Outcome};
use crate::upstream::health::probe::exchange::{Received, over_http1, over_http2};
use crate::upstream::health::settings::HttpProbe;

/// The `User-Agent` of checks. Envoy's has the same purpose: backends leave checks out of their logs.
pub(super) const AGENT: HeaderValue = HeaderValue::from_static("edge-gateway-health-check");

/// Sends the request of the check over a new connection.
pub(super) async fn http(
    stream: Stream,
    probe: &HttpProbe,
    authority: &str,
    scheme: Scheme,
) -> Outcome {
    let Some(request) = request(probe, authority, scheme) else {
        return Outcome::refused("the Host of the check is not valid");
    };
    let received = match probe.http2 {
        true => over_http2(stream, request).await,
        false => over_http1(stream, request).await,
    };
    match received {
        Ok(received) => judged(probe, &received),
        Err(error) => Outcome::unanswered(format!("no valid response: {error}")),
    }
}

fn request(probe: &HttpProbe, authority: &str, scheme: Scheme) -> Option<Request<Full<Bytes>>> {
    let mut request = Request::new(Full::new(probe.body.clone()));
    *request.method_mut() = probe.method.clone();
    *request.uri_mut() = match probe.http2 {
        true => Uri::builder()
            .scheme(scheme)
            .authority(Authority::try_from(authority).ok()?)
            .path_and_query(probe.path.clone())
            .build()
            .ok()?,
        false => Uri::from(probe.path.clone()),
    };
    let headers = request.headers_mut();
    if !probe.http2 {
        headers.insert(HOST, HeaderValue::try_from(authority).ok()?);
    }
    headers.insert(USER_AGENT, AGENT);
    if !probe.body.is_empty() {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(probe.body.len()));
    }
    Some(request)
}

fn judged(probe: &HttpProbe, received: &Received) -> Outcome {
    let status = received.status;
    if !probe.expected.contains(&status) {
        let cause = format!("status {}", status.as_u16());
        return match probe.retriable.contains(&status) {
            true => Outcome::Failed { how: Failing::Counted, cause: cause.into() },
            false => Outcome::refused(cause),
        };
    }
    match memmem::find(&received.body, &probe.receive) {
        Some(_) => Outcome::Passed,
        None => Outcome::refused("the response does not contain the expected bytes"),
    }
}
