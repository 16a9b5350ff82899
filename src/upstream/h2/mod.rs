//! HTTP/2 to backends that are known to speak it: in clear (RFC 9113 section 3.3), or over TLS.
//!
//! hyper does the protocol. What is ours: a few connections for each worker and address, shared by
//! their streams; a new one when all are full; and the knowledge of when a request may be sent
//! again.
//!
//! Deliberately absent: upgrades (RFC 8441 towards the backend). A WebSocket needs an HTTP/1.1
//! backend.

mod fault;
mod link;
mod outlast;
mod request_body;
mod response;

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Uri, Version};
use http_body::Body as _;

use crate::body::Request;
use crate::upstream::balance::Candidates;
use crate::upstream::cluster::{Answer, Cluster, Errand};
use crate::upstream::failure::{FailureKind, SendFailure};
use crate::upstream::h1::RequestFraming;

use fault::Fault;
use link::open_stream;
use request_body::{RequestBody, Upload};
use response::response;

pub(super) use link::{drain, sweep};

/// [`Cluster::send_for`] for HTTP/2.
pub(super) async fn send(
    cluster: &Arc<Cluster>,
    errand: Errand<'_>,
    request: Request,
) -> Result<Answer, SendFailure> {
    let scheme = if cluster.tls().is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    let (mut request, upload) =
        prepare(request, scheme).map_err(|kind| SendFailure::new(kind, "not sent"))?;
    let replayable = request.method().is_idempotent() && request.body().is_end_stream();
    let mut candidates = Candidates::new(cluster, errand.aim);
    let mut again = false;
    while let Some(host) = candidates.next(errand.tried).await {
        let address = host.address().clone();
        loop {
            let mut stream = match open_stream(cluster, errand.counts, &address, &upload).await {
                Ok(stream) => stream,
                Err(refused) => {
                    candidates.missed(refused);
                    break;
                }
            };
            let copy = (replayable && !again && !stream.is_first()).then(|| copy(&request));
            let mut error = match stream.send(request).await {
                Ok(incoming) => {
                    let response = response(stream, incoming);
                    return Ok(Answer { response, endpoint: address.into(), tunnel: None });
                }
                Err(error) => error,
            };
            if upload.is_broken() {
                let details = error.into_error().to_string();
                return Err(SendFailure::new(FailureKind::RequestBody, details).at(address));
            }
            let unsent = error.take_message();
            let fault = Fault::of(&error.into_error());
            if fault.link_is_over {
                stream.retire_link(cluster, &address);
            }
            match unsent.or_else(|| copy.filter(|_| fault.may_go_again)) {
                Some(same) if !again => {
                    tracing::debug!(endpoint = %address, "connection was closing, sending again");
                    errand.counts.here().resends.one_more();
                    drop(stream);
                    upload.begin_again();
                    request = same;
                    again = true;
                }
                _ => return Err(fault.failure.at(address)),
            }
        }
    }
    Err(candidates.failure())
}

type Outgoing = http::Request<RequestBody>;

/// The request as HTTP/2 wants it: `:authority` from `host`, and a body that is held to its length.
fn prepare(request: Request, scheme: Scheme) -> Result<(Outgoing, Arc<Upload>), FailureKind> {
    let (mut parts, body) = request.into_parts();
    if parts.method == Method::CONNECT || parts.headers.contains_key(UPGRADE) {
        return Err(FailureKind::NoUpgrade);
    }
    let left = match RequestFraming::of(&parts.method, &parts.headers, &body)? {
        RequestFraming::Length(length) => {
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            Some(length)
        }
        RequestFraming::Absent | RequestFraming::Chunked => None,
    };
    parts.headers.remove(TRANSFER_ENCODING);
    let authority = match parts.headers.remove(HOST) {
        Some(host) => Authority::try_from(host.as_bytes()).ok(),
        None => parts.uri.authority().cloned(),
    };
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(scheme);
    uri.authority = Some(authority.ok_or(FailureKind::InvalidRequest("host is no authority"))?);
    uri.path_and_query =
        Some(parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
    parts.uri = Uri::from_parts(uri)
        .map_err(|_| FailureKind::InvalidRequest("target has no place in HTTP/2"))?;
    parts.version = Version::HTTP_2;
    let (body, upload) = RequestBody::new(body, left);
    Ok((Outgoing::from_parts(parts, body), upload))
}

/// A second copy of a request without body.
fn copy(request: &Outgoing) -> Outgoing {
    let mut copy = Outgoing::new(request.body().empty_like());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

#[cfg(test)]
mod tests;
