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
    let mut sending =
        Sending::new(std::mem::take(request)).map_err(|kind| SendFailure::new(kind, "not sent"))?;
    let mut share = errand
        .client
        .map(|client| client.take().ok_or_else(SendFailure::client_share))
        .transpose()?;
    let mut candidates = Candidates::new(cluster, errand.aim);
    while let Some(member) = candidates.next(errand.tried).await {
        let address = member.address();
        let (breaker, look) = (cluster.breaker(), sending.look());
        let way = breaker.admit(errand.counts, || pool::take(&member, look)).await;
        let permit = match way.map_err(|denied| SendFailure::from(denied).at(address.clone()))? {
            Way::Open(permit) => permit,
            Way::Found(mut connection) => {
                connection.hold(share.take());
                match sending.exchange(&mut connection, errand.moved).await {
                    Ok(head) if sending.was_not_received(head) => {
                        errand.counts.here().resends.one_more();
                        tracing::debug!(endpoint = %address, "pooled connection timed out, sending again");
                        sending.rewind();
                    }
                    Ok(head) => return sending.answer(head, connection),
                    Err(broken) if sending.may_go_again(&broken) => {
                        errand.counts.here().resends.one_more();
                        tracing::debug!(endpoint = %address, "pooled connection was dead, sending again");
                        sending.rewind();
                    }
                    Err(broken) => return Err(broken.into_failure().at(address.clone())),
                }
                share = connection.take_share();
                drop(connection);
                breaker
                    .room(errand.counts)
                    .await
                    .map_err(|denied| SendFailure::from(denied).at(address.clone()))?
            }
        };
        // Boxed, so that requests on pooled connections do not reserve memory for it.
        let connecting = Box::pin(connect(cluster, address, Alpn::Http11, errand.counts, permit));
        match connecting.await {
            Ok(stream) => {
                let mut connection = Box::new(Connection::new(stream, cluster, &member));
                connection.hold(share);
                return match sending.exchange(&mut connection, errand.moved).await {
                    Ok(head) => sending.answer(head, connection),
                    Err(broken) => Err(broken.into_failure().at(address.clone())),
                };
            }
            Err(refused) if refused.kind.is_ours() => return Err(refused),
            Err(refused) => candidates.missed(refused),
        }
    }
    Err(candidates.failure())
}

#[cfg(test)]
mod tests;
