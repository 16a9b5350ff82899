//! HTTP/1.1 to backends: a codec that the future of the exchange drives.
//!
//! There is no task and no channel: [`send`] writes and reads while it waits for the head, and the
//! response body continues both whenever it is polled. So a stalled client applies backpressure to
//! the backend and a stalled backend to the client, and dropping either future closes the
//! connection.
//!
//! The modules: [`request`] determines the framing of a request and writes its head, [`pump`] sends
//! the request; [`response`] parses heads, [`framing`] determines the end of a response, [`chunks`]
//! decodes chunked bodies, [`body`] streams the response body; [`connection`] has the buffers,
//! [`exchange`] sends one request and receives its response head over a connection, [`tunnel`] is
//! the connection after a 101.

mod body;
mod chunks;
mod connection;
mod exchange;
mod framing;
mod pump;
mod request;
mod response;
mod tunnel;

use std::sync::Arc;

use crate::body::Request;
use crate::tls::Alpn;
use crate::upstream::balance::Candidates;
use crate::upstream::breaker::Way;
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::connect;
use crate::upstream::errand::{Answer, Errand};
use crate::upstream::failure::SendFailure;
use crate::upstream::holding::Holding;
use crate::upstream::pool;

use exchange::Sending;

pub(super) use connection::Connection;
pub(super) use pump::Mismatch;
pub(super) use request::RequestFraming;
pub(crate) use tunnel::Tunnel;

/// Implements [`Cluster::send_for`] for HTTP/1.1.
pub(super) async fn send(
    cluster: &Arc<Cluster>,
    errand: Errand<'_>,
    request: &mut Request,
) -> Result<Answer, SendFailure> {
    let mut sending = Sending::new(request).map_err(|kind| SendFailure::new(kind, "not sent"))?;
    let mut share = errand
        .client
        .map(|client| client.take().ok_or_else(SendFailure::client_share))
        .transpose()?;
    let (breaker, look) = (cluster.breaker(), sending.look());
    let mut candidates = Candidates::new(cluster, errand.aim);
    while let Some(member) = candidates.next(errand.tried).await {
        let address = member.address();
        let denied = |denied| SendFailure::from(denied).at(address.clone());
        let find = || pool::take(&member, errand.proxied, look);
        let mut active = candidates.begin();
        // The futures of the rare ways are boxed, so that no request reserves memory for them.
        let mut way = match breaker.at_hand(find) {
            Some(found) => Way::Found(found),
            None => Box::pin(breaker.admit(errand.counts, find)).await.map_err(denied)?,
        };
        loop {
            let (mut connection, pooled) = match way {
                Way::Found(connection) => (connection, true),
                Way::Open(permit) => {
                    let (alpn, proxied) = (Alpn::Http11, errand.proxied);
                    let opened = connect(cluster, address, alpn, proxied, errand.counts, permit);
                    match Box::pin(opened).await {
                        Ok(stream) => {
                            let connection = Connection::new(stream, cluster, &member, proxied);
                            (Box::new(connection), false)
                        }
                        Err(refused) if refused.kind.is_ours() => return Err(refused),
                        Err(refused) => {
                            candidates.missed(refused);
                            break;
                        }
                    }
                }
            };
            drop(connection.hold(Holding { share: share.take(), active: active.take() }));
            let cause = match sending.exchange(&mut connection, errand.moved).await {
                Ok(head) if pooled && sending.was_not_received(head) => "timed out",
                Ok(head) => {
                    member.host().answered(head.status, sending.fields());
                    return sending.answer(head, connection);
                }
                Err(broken) if pooled && sending.may_go_again(&broken) => "dead",
                Err(broken) => {
                    let failure = broken.into_failure();
                    member.host().failed(failure.kind);
                    return Err(failure.at(address.clone()));
                }
            };
            errand.counts.here().resends.one_more();
            tracing::debug!(endpoint = %address, cause, "pooled connection failed, sending again");
            sending.rewind();
            Holding { share, active } = connection.hold(Holding::default());
            drop(connection);
            way = Way::Open(Box::pin(breaker.room(errand.counts)).await.map_err(denied)?);
        }
    }
    Err(candidates.failure())
}

#[cfg(test)]
mod tests;
