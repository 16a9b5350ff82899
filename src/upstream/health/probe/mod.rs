//! Health checks on the wire: one check of one host, over a connection of its own.

mod exchange;
mod grpc;
mod http;
mod tcp;

use std::net::SocketAddr;

use ::http::uri::Scheme;

use crate::tls::Alpn;
use crate::upstream::address::Address;
use crate::upstream::cluster::Cluster;
use crate::upstream::connect::connect;
use crate::upstream::health::outcome::Outcome;
use crate::upstream::health::settings::{ActiveCheck, Probe};

/// Makes one check of a host: connects as requests of the cluster do, sends the request, judges the
/// answer. Takes at most the timeout of the check.
pub(in crate::upstream) async fn probe(
    cluster: &Cluster,
    check: &ActiveCheck,
    address: &Address,
    authority: &str,
) -> Outcome {
    let exchange = exchange(cluster, check, address, authority);
    // Boxed: the future is large, and a task for each host has it in its own memory anyway.
    match tokio::time::timeout(check.timeout, Box::pin(exchange)).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::unanswered(format!("no answer in {:?}", check.timeout)),
    }
}

async fn exchange(
    cluster: &Cluster,
    check: &ActiveCheck,
    address: &Address,
    authority: &str,
) -> Outcome {
    let Some(watched) = cluster.watched() else { return Outcome::Unmade };
    let Ok(permit) = watched.breaker().permit_now(watched.counts()) else {
        return Outcome::Unmade;
    };
    let address = at_port(address, check.port);
    let alpn = match &check.probe {
        Probe::Grpc { .. } => Alpn::Http2,
        Probe::Http(probe) if probe.http2 => Alpn::Http2,
        Probe::Http(_) => Alpn::Http11,
        Probe::Tcp(_) => Alpn::Unspoken,
    };
    let stream = match connect(cluster, &address, alpn, None, watched.counts(), permit).await {
        Ok(stream) => stream,
        Err(failure) if failure.kind.is_ours() => return Outcome::Unmade,
        Err(failure) => return Outcome::unanswered(failure.to_string()),
    };
    let scheme = if cluster.tls().is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    match &check.probe {
        Probe::Grpc { service } => grpc::grpc(stream, service, authority, scheme).await,
        Probe::Http(probe) => http::http(stream, probe, authority, scheme).await,
        Probe::Tcp(probe) => tcp::tcp(stream, probe).await,
    }
}

/// Returns the address of the checks of a host.
fn at_port(address: &Address, port: Option<u16>) -> Address {
    match (address, port) {
        (Address::Ip(address), Some(port)) => Address::Ip(SocketAddr::new(address.ip(), port)),
        (address, _) => address.clone(),
    }
}
