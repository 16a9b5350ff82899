//! The record of a byte stream or flow: the data of its log line.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock;
use crate::downstream::{CarriedBytes, Process, logged_endpoint, new_request_id};
use crate::failure::Failure;
use crate::observe::{AccessRecord, GatewayLog};
use crate::snapshot::{Bind, Listener};
use crate::stats::ResponseFlags;
use crate::upstream::{EndpointName, SendFailure};

/// The state of a byte stream or flow so far. Dropping it writes the line of the access log, so
/// that each has one line, however it ends.
#[derive(Debug)]
pub(crate) struct StreamRecord {
    process: Arc<Process>,
    pub peer: SocketAddr,
    started: Instant,
    /// `TCP`, `UDP`, or `TLS` if the backend does the handshake.
    pub protocol: &'static str,
    /// The server name that the client requested.
    pub sni: Box<str>,
    /// The TLS version, if the gateway did the handshake.
    pub tls: Option<&'static str>,
    listener: Option<Arc<str>>,
    log: Option<Arc<GatewayLog>>,
    pub route: Option<Arc<str>>,
    pub upstream: Option<EndpointName>,
    upstream_duration: Option<Duration>,
    pub failure: Option<Failure>,
    /// The details of a denial, if its rule has a name.
    pub details: Option<Arc<str>>,
    pub carried: Arc<CarriedBytes>,
}

impl StreamRecord {
    pub(crate) fn begin(process: Arc<Process>, peer: SocketAddr, protocol: &'static str) -> Self {
        Self {
            process,
            peer,
            started: clock::now(),
            protocol,
            sni: Box::default(),
            tls: None,
            listener: None,
            log: None,
            route: None,
            upstream: None,
            upstream_duration: None,
            failure: None,
            details: None,
            carried: Arc::default(),
        }
    }

    /// Sets the listener on which the connection or flow arrived.
    pub(crate) fn by(&mut self, listener: &Listener) {
        self.listener = Some(Arc::clone(&listener.name));
        self.log.clone_from(&listener.access_log);
    }

    /// Sets the access log for a connection whose server name matches no listener of the bind.
    pub(crate) fn by_nobody(&mut self, bind: &Bind) {
        self.log.clone_from(&bind.access_log);
    }

    /// Records that a backend has accepted the connection.
    pub(crate) fn connected(&mut self) {
        self.upstream_duration = Some(clock::now().saturating_duration_since(self.started));
    }

    /// Records that no backend has accepted the connection.
    pub(crate) fn not_connected(&mut self, failed: SendFailure) {
        tracing::debug!(details = %failed.details, peer = %self.peer, "no backend");
        self.upstream = failed.endpoint;
        self.failure = Some(failed.kind.into());
    }
}

impl Drop for StreamRecord {
    fn drop(&mut self) {
        let flags = ResponseFlags::new(self.failure.and_then(Failure::flag), false);
        let details = self.failure.map_or("via_upstream", Failure::details);
        let details = self.details.as_deref().unwrap_or(details);
        let mut named = String::new();
        let upstream = self.upstream.as_ref().map(|endpoint| logged_endpoint(endpoint, &mut named));
        let id = new_request_id();
        let (request_bytes, response_bytes) = self.carried.bytes();
        self.process.access_log.record(
            self.log.as_deref(),
            &AccessRecord {
                host: if self.sni.is_empty() { "-" } else { &self.sni },
                protocol: self.protocol,
                request_bytes,
                response_bytes,
                duration: clock::now().saturating_duration_since(self.started),
                upstream_duration: self.upstream_duration,
                upstream,
                attempts: u32::from(self.upstream.is_some()),
                route: self.route.as_deref(),
                flags,
                details: Some(details),
                request_id: id.to_str().unwrap_or("-"),
                listener: self.listener.as_deref().unwrap_or("-"),
                sni: Some(&*self.sni).filter(|name| !name.is_empty()),
                tls: self.tls,
                ..AccessRecord::unknown(clock::wall(), self.peer)
            },
        );
    }
}
