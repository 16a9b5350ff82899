//! The record of an exchange, from its head to its last byte: the data of its log line.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Uri};
use http_body::Body as _;

use crate::body::{Body, Response};
use crate::clock;
use crate::clock::coarse_now;
use crate::downstream::{CarriedBytes, OpenExchange, logged_endpoint, new_request_id};
use crate::failure::Failure;
use crate::filters::exchange::path_of;
use crate::observe::{AccessRecord, GatewayLog, Seen};
use crate::proxy::body_progress::BodyProgress;
use crate::proxy::client_connection::ClientConnection;
use crate::proxy::client_protocol::ClientProtocol;
use crate::proxy::downstream_body::DownstreamBody;
use crate::proxy::grpc::{self, GrpcCall};
use crate::proxy::grpc_web;
use crate::proxy::noted_fields::{Noted, NotedFields};
use crate::snapshot::{ClientPolicy, Limit, Rule};
use crate::stats::{ResponseFlag, ResponseFlags};
use crate::trace::Trace;
use crate::upstream::{EndpointName, RequestPermit};

/// The state of an exchange so far. Dropping it writes the line of the access log, so that each
/// request has one line, however it ends.
#[derive(Debug)]
pub(super) struct Record {
    pub connection: Arc<ClientConnection>,
    /// The exchange counts as open while this guard lives.
    pub open: OpenExchange,
    started: Instant,
    method: Method,
    target: Uri,
    pub protocol: ClientProtocol,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    pub call: GrpcCall,
    /// Set if the call arrived as gRPC-Web and is forwarded as gRPC.
    pub grpc_web: Option<grpc_web::GrpcWebCall>,
    pub client: IpAddr,
    pub request_id: Option<HeaderValue>,
    listener: ListenerName,
    /// The access log of the Gateway, if it has its own.
    log: Option<Arc<GatewayLog>>,
    /// The header fields that this log includes.
    seen: Seen,
    /// The ClientTrafficPolicy of the listener, until the response has been changed by it.
    pub policy: Option<Arc<ClientPolicy>>,
    pub rule: Option<Arc<Rule>>,
    /// Fields that the filters of the rule add to the response to a failure.
    pub sharing: HeaderMap,
    pub upstream: Option<EndpointName>,
    /// Number of attempts at a backend.
    attempts: u32,
    /// The exchange counts as a request of its cluster, if the cluster counts them.
    pub permit: Option<RequestPermit>,
    /// The request has waited for a backend that accepts a connection.
    pub held: bool,
    /// The last attempt qualified for a retry, but the rule allowed no more.
    pub exhausted: bool,
    upstream_duration: Option<Duration>,
    /// 0 until there is a response.
    status: u16,
    failure: Option<Failure>,
    /// The request was delayed on purpose.
    pub is_delayed: bool,
    /// The details of a denial, if its filter knows more than the denial says.
    pub details: Option<Arc<str>>,
    /// The gateway made the response itself, possibly by a filter.
    answered_here: bool,
    /// The progress of the request body, if one was forwarded.
    pub received: Option<Arc<BodyProgress>>,
    pub response_bytes: u64,
    /// Set if the exchange became a tunnel.
    pub carried: Option<Arc<CarriedBytes>>,
    /// `None` if the request is not traced.
    pub trace: Option<Box<Trace>>,
}

/// The name of the listener of an exchange.
#[derive(Debug)]
enum ListenerName {
    Unknown,
    /// That of the first request of the connection, as is usual.
    OfConnection,
    Other(Arc<str>),
}

impl Record {
    pub(super) fn begin(
        connection: Arc<ClientConnection>,
        request: &http::Request<DownstreamBody>,
        fields: NotedFields,
    ) -> Box<Self> {
        let value = |noted, name| {
            if fields.has(noted) { request.headers().get(name).cloned() } else { None }
        };
        let counts = connection.counts.here();
        counts.requests.one_more();
        counts.requests_active.one_more();
        Box::new(Self {
            open: connection.watch.open(),
            started: clock::now(),
            method: request.method().clone(),
            target: request.uri().clone(),
            protocol: ClientProtocol::of(request.version()),
            host: value(Noted::Host, HOST),
            user_agent: value(Noted::UserAgent, USER_AGENT),
            call: GrpcCall::of(request),
            grpc_web: None,
            client: connection.origin.peer.ip().to_canonical(),
            connection,
            request_id: None,
            listener: ListenerName::Unknown,
            log: None,
            seen: Seen::default(),
            policy: None,
            rule: None,
            sharing: HeaderMap::new(),
            upstream: None,
            attempts: 0,
            permit: None,
            held: false,
            exhausted: false,
            upstream_duration: None,
            status: 0,
            failure: None,
            is_delayed: false,
            details: None,
            answered_here: false,
            received: None,
            response_bytes: 0,
            carried: None,
            trace: None,
        })
    }

    /// Sets the access log of the exchange to `log` and records the request fields that it
    /// includes.
    pub(super) fn logged_by(&mut self, log: Option<&Arc<GatewayLog>>, headers: &HeaderMap) {
        self.log = log.cloned();
        if let Some(log) = &self.log {
            self.seen.see_request(log.wanted(), headers);
        }
    }

    /// Records the response fields that the access log includes. `headers` are those that the
    /// client gets.
    pub(super) fn answers(&mut self, headers: &HeaderMap) {
        if let Some(log) = &self.log {
            self.seen.see_response(log.wanted(), headers);
        }
    }

    /// Returns the time at which the head was complete.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Returns the path as the client sent it.
    pub(super) fn written_path(&self) -> &str {
        path_of(&self.target)
    }

    /// Returns the path and query as the client sent them.
    pub(super) fn written_target(&self) -> &str {
        self.target.path_and_query().map_or("", |target| target.as_str())
    }

    /// Returns true if only the end of the connection delimits `response`: HTTP/1.0 has no chunks.
    pub(super) fn ends_with_its_connection(&self, response: &Response) -> bool {
        !self.protocol.ends_bodies()
            && !response.body().is_end_stream()
            && response.body().size_hint().exact().is_none()
            && !response.headers().contains_key(CONTENT_LENGTH)
    }

    /// Records that the request belongs to the listener with this name.
    pub(super) fn belongs_to(&mut self, listener: &Arc<str>) {
        let of_connection = self.connection.listener.get_or_init(|| Arc::clone(listener));
        self.listener = match Arc::ptr_eq(of_connection, listener) || of_connection == listener {
            true => ListenerName::OfConnection,
            // A client may use one connection for the hosts of several listeners.
            false => ListenerName::Other(Arc::clone(listener)),
        };
    }

    /// Returns the name of the listener, if the request got as far as that.
    pub(super) fn listener(&self) -> Option<&str> {
        match &self.listener {
            ListenerName::Unknown => None,
            ListenerName::OfConnection => self.connection.listener.get().map(|name| &**name),
            ListenerName::Other(name) => Some(name),
        }
    }

    /// Records that the request matched `rule`.
    pub(super) fn matched(&mut self, rule: &Arc<Rule>) {
        rule.counts.here().hits.one_more();
        self.rule = Some(Arc::clone(rule));
        self.call.matched(rule);
    }

    /// Records that an attempt at a backend of `rule` begins.
    pub(super) fn tries(&mut self, rule: &Rule) {
        let counts = rule.counts.here();
        if self.attempts == 0 {
            counts.requests.one_more();
            counts.requests_active.one_more();
        } else {
            counts.retries.one_more();
        }
        self.attempts += 1;
        self.upstream_duration = None;
    }

    pub(super) fn is_grpc(&self) -> bool {
        self.call.is_grpc() || self.grpc_web.is_some()
    }

    /// Returns the time that the exchange may be silent in both directions; `None` without a limit.
    /// Without a limit of the rule, one applies to gRPC calls to a rule without any timeout.
    pub(super) fn idle_limit(&self) -> Option<Duration> {
        let timeouts = &self.rule.as_ref()?.timeouts;
        match timeouts.stream_idle {
            Limit::After(limit) => Some(limit),
            Limit::Off => None,
            Limit::Unset => (self.is_grpc() && timeouts.is_unset())
                .then_some(self.connection.watch.limits().tunnel_timeout),
        }
    }

    /// Returns true if the rule limits the silence of its exchanges, or lets them be silent for
    /// ever, so that the timeouts of the listener do not apply.
    pub(super) fn has_own_idle_limit(&self) -> bool {
        self.rule.as_ref().is_some_and(|rule| rule.timeouts.stream_idle != Limit::Unset)
    }

    /// Returns true if the gateway waits for the client to send its request body.
    pub(super) fn awaits_body(&self) -> bool {
        self.received.as_deref().is_some_and(BodyProgress::is_awaited)
    }

    /// Returns the failure of an exchange that lasts longer than its rule allows; `arrives` is true
    /// if the request still arrives.
    pub(super) fn too_long(&self, arrives: bool) -> Failure {
        let by_stream = self.rule.as_ref().is_some_and(|rule| rule.timeouts.stream_comes_first());
        match (by_stream, arrives) {
            (false, _) => Failure::RequestTimeout,
            (true, false) => Failure::StreamTooLong,
            (true, true) => Failure::StreamTooLongArriving,
        }
    }

    /// Returns true if the client's request body stalled for longer than its timeout.
    pub(super) fn is_body_stalled(&self) -> bool {
        self.received.as_ref().is_some_and(|body| body.stalled.load(Ordering::Relaxed))
    }

    /// Returns true if the request body was not complete by its deadline.
    pub(super) fn is_body_late(&self) -> bool {
        self.received.as_ref().is_some_and(|body| body.late.load(Ordering::Relaxed))
    }

    /// Returns the failure of an exchange whose request body broke off.
    pub(super) fn broken_body(&self) -> Failure {
        if self.is_body_late() {
            Failure::RequestBodyLate
        } else if self.is_body_stalled() {
            Failure::RequestBodyStalled
        } else if self.is_abandoned() {
            Failure::ClientGone
        } else {
            Failure::RequestBodyBroken
        }
    }

    /// Returns true if the client abandoned the request before its body had ended.
    pub(super) fn is_abandoned(&self) -> bool {
        self.received.as_ref().is_some_and(|body| body.abandoned.load(Ordering::Relaxed))
    }

    /// Marks the rest of an HTTP/1 request body as not to be read: the connection ends with the
    /// response.
    pub(super) fn leave_body(&self) {
        if let Some(received) = self.received.as_ref().filter(|_| !self.protocol.has_streams()) {
            received.left.store(true, Ordering::Relaxed);
        }
    }

    /// Returns true if an HTTP/1 connection ends with the response and the rest of the body is not
    /// read.
    pub(super) fn leaves_body(&self) -> bool {
        self.received.as_ref().is_some_and(|body| body.left.load(Ordering::Relaxed))
    }

    /// Records that the head of a backend's response has arrived.
    pub(super) fn answered_by(&mut self, endpoint: EndpointName) {
        self.upstream_duration = Some(clock::now().saturating_duration_since(self.started));
        self.upstream = Some(endpoint);
    }

    /// Returns the milliseconds until the backend's response; `None` without one.
    pub(super) fn upstream_milliseconds(&self) -> Option<u64> {
        let took = self.upstream_duration?;
        Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
    }

    /// Returns the number of attempts at a backend so far.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Records that the gateway makes the response itself, possibly by a filter.
    pub(super) fn answered_here(&mut self) {
        self.answered_here = true;
    }

    /// Records the head or the trailers of a gRPC response, as the client gets them, in the trace.
    pub(super) fn told(&mut self, headers: &HeaderMap) {
        let is_grpc = self.is_grpc();
        if let Some(trace) = self.trace.as_mut().filter(|_| is_grpc) {
            trace.answered(headers);
        }
    }

    pub(super) fn respond(&mut self, status: http::StatusCode) {
        // If the client has already disconnected, nothing is sent.
        if self.failure != Some(Failure::ClientGone) {
            self.status = status.as_u16();
        }
    }

    /// Counts the exchange, its status and its failure.
    fn count(&self, took: Duration) {
        let counts = self.connection.counts.here();
        counts.requests_active.one_less();
        counts.responses.add(self.status);
        counts.times.add(took);
        counts.failed(self.flags());
        let Some(rule) = self.rule.as_ref().filter(|_| self.attempts > 0) else { return };
        let counts = rule.counts.here();
        counts.requests_active.one_less();
        counts.responses.add(self.status);
        counts.times.add(took);
        match self.flag() {
            Some(ResponseFlag::UpstreamRequestTimeout) => counts.timeouts.one_more(),
            Some(ResponseFlag::UpstreamMaxStreamDurationReached) => counts.too_long.one_more(),
            _ => {}
        }
    }

    fn flag(&self) -> Option<ResponseFlag> {
        self.failure.and_then(Failure::flag)
    }

    fn flags(&self) -> ResponseFlags {
        ResponseFlags::new(self.flag(), self.exhausted).with_delay(self.is_delayed)
    }

    /// Returns the bytes of the bodies, or of the tunnel, from the client and to the client.
    fn bytes(&self) -> (u64, u64) {
        if let Some(carried) = self.carried.as_deref() {
            return carried.bytes();
        }
        let received = self.received.as_ref();
        (received.map_or(0, |body| body.bytes.load(Ordering::Relaxed)), self.response_bytes)
    }

    /// Returns true if the gateway made the response itself.
    pub(super) fn is_answered_here(&self) -> bool {
        self.answered_here || self.failure.is_some()
    }

    /// Returns the request target as the client sent it.
    pub(super) fn target(&self) -> &Uri {
        &self.target
    }

    /// Returns the exchange up to a response with this status, which the client does not get.
    pub(super) fn so_far<'r>(
        &'r self,
        status: http::StatusCode,
        seen: &'r Seen,
        named: &'r mut String,
    ) -> AccessRecord<'r> {
        AccessRecord { status: status.as_u16(), ..self.access_record(clock::now(), seen, named) }
    }

    /// Returns the data of the log line, for an exchange that ends `now`. `named` is the memory for the
    /// name of an endpoint.
    fn access_record<'r>(
        &'r self,
        now: Instant,
        seen: &'r Seen,
        named: &'r mut String,
    ) -> AccessRecord<'r> {
        let details = match self.failure {
            Some(Failure::Denied(denial)) => self.details.as_deref().unwrap_or(denial.details),
            Some(Failure::ConnectFailed) if self.held => {
                "upstream_reset_before_response_started{connection_failure|held}"
            }
            Some(Failure::NoEndpoint) if self.held => "no_healthy_upstream{held}",
            Some(failure) => failure.details(),
            None if self.answered_here => "direct_response",
            None if self.held => "via_upstream{held}",
            None => "via_upstream",
        };
        let upstream = self.upstream.as_ref().map(|endpoint| logged_endpoint(endpoint, named));
        let (request_bytes, response_bytes) = self.bytes();
        let connection = &self.connection;
        let host = self.host.as_ref().map_or_else(
            || self.target.authority().map_or("", |authority| authority.as_str()),
            |host| host.to_str().unwrap_or(""),
        );
        let target = self.target.path_and_query().map_or("", |target| target.as_str());
        AccessRecord {
            time: clock::wall_at(now),
            peer: connection.origin.peer,
            peer_text: Some(connection.origin.peer_text()),
            client: self.client,
            method: self.method.as_str(),
            host,
            path: target,
            protocol: self.protocol.as_str(),
            status: self.status,
            request_bytes,
            response_bytes,
            duration: now.saturating_duration_since(self.started),
            upstream_duration: self.upstream_duration,
            upstream,
            attempts: self.attempts,
            route: self.rule.as_ref().map(|rule| &*rule.name),
            flags: self.flags(),
            details: Some(details),
            request_id: self.request_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or("-"),
            trace_id: self.trace.as_ref().map(|trace| trace.id()),
            user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes),
            listener: self.listener().unwrap_or("-"),
            local: Some(connection.local),
            sni: connection.sni.as_deref().filter(|name| !name.is_empty()),
            tls: connection.tls,
            seen,
        }
    }

    /// Records a failure after the response head was sent. The first failure is kept.
    pub(super) fn broke(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    /// Builds the response to a gRPC call for a status of HTTP, with a message.
    pub(super) fn grpc_answer(&self, status: http::StatusCode, message: &[u8]) -> Response {
        let answer = grpc::answer(status, message.trim_ascii_end());
        match self.grpc_web {
            Some(call) => call.response(answer),
            None => answer,
        }
    }

    /// Builds the response for a failure.
    pub(super) fn fail(&mut self, failure: Failure) -> Response {
        self.failure = Some(failure);
        let mut response = if let Some(call) = self.grpc_web {
            call.response(grpc::failed(failure))
        } else if self.is_grpc() {
            grpc::failed(failure)
        } else {
            let mut response = Response::new(Body::from_bytes(failure.text()));
            *response.status_mut() = failure.status();
            let text = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, text);
            response
        };
        if let Some(seconds) = failure.retry_after() {
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        if failure.closes() && !self.protocol.has_streams() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Writes the log line of a request whose head could not be read. Only its sender is known.
pub(super) fn refused(connection: &ClientConnection, failure: Failure) {
    let id = new_request_id();
    let counts = connection.counts.here();
    counts.requests.one_more();
    counts.responses.add(failure.status().as_u16());
    counts.failed(failure.flag().into());
    let snapshot = connection.process.snapshot.here();
    let log = snapshot.bind(connection.bind).and_then(|bind| bind.access_log.as_deref());
    connection.process.access_log.record(
        log,
        &AccessRecord {
            path: "-",
            protocol: ClientProtocol::Http11.as_str(),
            status: failure.status().as_u16(),
            flags: failure.flag().into(),
            details: Some(failure.details()),
            request_id: id.to_str().unwrap_or("-"),
            local: Some(connection.local),
            sni: connection.sni.as_deref(),
            tls: connection.tls,
            ..AccessRecord::unknown(clock::wall(), connection.origin.peer)
        },
    );
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.status == 0 {
            self.failure = Some(Failure::ClientGone);
        }
        if let Some(received) = &self.received {
            received.answered.store(coarse_now(), Ordering::Relaxed);
            received.over.notify_one();
        }
        let cut_off = self.failure == Some(Failure::ClientGone)
            || self.failure.is_none() && self.carried.is_some();
        if cut_off && self.open.watch().is_shut_down() {
            self.failure = Some(Failure::DrainTimeout);
        }
        if self.failure == Some(Failure::ClientGone) && self.protocol.has_streams() {
            self.connection.watch.abandoned();
        }
        let now = clock::now();
        let duration = now.saturating_duration_since(self.started);
        self.count(duration);
        // A request that was answered before it got an ID is logged with a new ID.
        self.request_id.get_or_insert_with(new_request_id);
        let mut named = String::new();
        let record = self.access_record(now, &self.seen, &mut named);
        self.connection.process.access_log.record(self.log.as_deref(), &record);
        if let Some(trace) = &self.trace {
            trace.finish(&record);
        }
    }
}
