//! HTTP/2 to backends that are configured for it: in clear (RFC 9113 section 3.3), or over TLS.
//!
//! hyper implements the protocol. This module adds: a few connections for each worker and address,
//! shared by their streams; a new connection when all are full; and the decision when a request may
//! be sent again.
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

use crate::body::{Replay, Request};
use crate::upstream::balance::Candidates;
use crate::upstream::cluster::Cluster;
use crate::upstream::errand::{Answer, Errand};
use crate::upstream::failure::{FailureKind, SendFailure};
use crate::upstream::h1::RequestFraming;

use fault::{Http2Fault, Processed};
use link::open_stream;
use request_body::{RequestBody, Upload};
use response::response;

pub(super) use link::{drain, end_one, sweep};

/// Implements [`Cluster::send_for`] for HTTP/2.
pub(super) async fn send(
    cluster: &Arc<Cluster>,
    errand: Errand<'_>,
    request: &mut Request,
) -> Result<Answer, SendFailure> {
    let scheme = if cluster.tls().is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    let outgoing = Outgoing::of(std::mem::take(request), scheme)
        .map_err(|kind| SendFailure::new(kind, "not sent"))?;
    let mut candidates = Candidates::new(cluster, errand.aim);
    let mut resends = 0;
    while let Some(member) = candidates.next(errand.tried).await {
        let address = member.address();
        // Counted while the connection is opened, too.
        let mut active = candidates.begin();
        loop {
            let upload = Arc::<Upload>::default();
            let Errand { counts, client, proxied, .. } = errand;
            let opened = open_stream(cluster, counts, client, proxied, &member, &upload).await;
            let mut stream = match opened {
                Ok(stream) => stream.counted(active.take().or_else(|| candidates.begin())),
                Err(refused) if refused.kind.is_ours() => return Err(refused.at(address.clone())),
                Err(refused) => {
                    candidates.missed(refused);
                    break;
                }
            };
            let error = match stream.send(outgoing.again(&upload)).await {
                Ok(incoming) => {
                    outgoing.body.settle();
                    member.host().answered(incoming.status(), incoming.headers());
                    let response = response(stream, incoming);
                    return Ok(Answer { response, endpoint: address.clone().into(), tunnel: None });
                }
                Err(error) => error,
            };
            if upload.is_broken() {
                let details = error.into_error().to_string();
                return Err(SendFailure::new(FailureKind::RequestBody, details).at(address.clone()));
            }
            let unsent = error.message().is_some();
            let fault = Http2Fault::of(&error.into_error());
            match fault.link_is_over {
                true => stream.retire_link(&member),
                // A refused stream shows that the peer's limit of streams has arrived.
                false => stream.heard(),
            }
            let may_go_again = match fault.processed {
                _ if unsent => true,
                Processed::No => true,
                // Like an HTTP/1.1 connection that was closed while idle.
                Processed::Perhaps => {
                    outgoing.is_replayable() && !stream.is_first() && resends == 0
                }
                Processed::Yes => false,
            };
            if !may_go_again || resends == MOST_RESENDS || !outgoing.body.is_whole() {
                member.host().failed(fault.failure.kind);
                return Err(fault.failure.at(address.clone()));
            }
            tracing::debug!(endpoint = %address, "request was not processed, sending again");
            errand.counts.here().resends.one_more();
            resends += 1;
        }
    }
    Err(candidates.failure())
}

/// Maximum number of times that a request is sent again. Each time it may meet another connection
/// that is closing.
const MOST_RESENDS: u32 = 4;

/// The request in the form of HTTP/2: `:authority` from `host`, and a body that must match its
/// length.
struct Outgoing {
    head: http::request::Parts,
    body: Replay,
    /// The length that the head promises, if any.
    length: Option<u64>,
}

impl Outgoing {
    fn of(request: Request, scheme: Scheme) -> Result<Self, FailureKind> {
        let (mut head, body) = request.into_parts();
        if head.method == Method::CONNECT || head.headers.contains_key(UPGRADE) {
            return Err(FailureKind::NoUpgrade);
        }
        let length = match RequestFraming::of(&head.method, &head.headers, &body)? {
            RequestFraming::Length(length) => {
                head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
                Some(length)
            }
            RequestFraming::Absent | RequestFraming::Chunked => None,
        };
        head.headers.remove(TRANSFER_ENCODING);
        let authority = match head.headers.remove(HOST) {
            Some(host) => Authority::try_from(host.as_bytes()).ok(),
            None => head.uri.authority().cloned(),
        };
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(scheme);
        uri.authority = Some(authority.ok_or(FailureKind::InvalidRequest("host is no authority"))?);
        uri.path_and_query =
            Some(head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
        head.uri = Uri::from_parts(uri)
            .map_err(|_| FailureKind::InvalidRequest("target has no place in HTTP/2"))?;
        Ok(Self { head, body: Replay::new(body), length })
    }

    /// Returns the request from its beginning.
    fn again(&self, upload: &Arc<Upload>) -> http::Request<RequestBody> {
        let body = RequestBody::new(self.body.again(), self.length, Arc::clone(upload));
        let mut request = http::Request::new(body);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.head.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.head.headers.clone();
        request
    }

    /// Returns true if the backend may receive the request twice (RFC 9110 section 9.2.2) and the
    /// body is empty.
    fn is_replayable(&self) -> bool {
        self.head.method.is_idempotent() && matches!(self.body, Replay::Empty)
    }
}

#[cfg(test)]
mod tests;
