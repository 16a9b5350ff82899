//! Request handling, from the request head to the response.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue, Method, StatusCode, request};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;

use crate::body::{Body, Request, Response};
use crate::failure::Failure;
use crate::filters::exchange::path_of;
use crate::filters::{self, Exchange, Filter, Stop, Verdict};
use crate::observe::Seen;
use crate::path::Ambiguous;
use crate::proxy::attempts::Destination;
use crate::proxy::balancing::{RequestHash, named_endpoints};
use crate::proxy::client_body::ClientBody;
use crate::proxy::client_connection::ClientConnection;
use crate::proxy::downstream_body::DownstreamBody;
use crate::proxy::exchange_record::Record;
use crate::proxy::forwarded_fields::{self, ForwardedFields, RequestOrigin};
use crate::proxy::guard::{self, Admitted};
use crate::proxy::hop_by_hop::Upgrade;
use crate::proxy::noted_fields::NotedFields;
use crate::proxy::response_body::TrackedBody;
use crate::proxy::session::RequestSession;
use crate::proxy::upgrade::{Switched, Switching};
use crate::proxy::{
    acme_webroot, attempts, client_policy, grpc_web, mirror, response_override, shown_fields,
    upgrade,
};
use crate::snapshot::{
    Balancing, Bind, Choice, ClientPolicy, Listener, ResponseOverrides, Rule, WeightedClusters,
};
use crate::trace::Trace;
use crate::upstream::Aim;

/// Serves one request of a connection.
///
/// Never returns an error: every failure becomes a response. The record writes its log line when
/// the response body has ended or the client has disconnected.
///
/// The head is taken out of the request before the future begins, so that the future holds it once.
pub(super) fn serve(
    connection: Arc<ClientConnection>,
    mut request: http::Request<DownstreamBody>,
) -> impl Future<Output = Result<http::Response<TrackedBody>, Infallible>> + Send {
    let fields = NotedFields::of(request.headers());
    let mut record = Record::begin(connection, &request, fields);
    let protocol = record.protocol;
    let is_head = request.method() == Method::HEAD;
    let tunnel = upgrade::wanted(&mut request, fields);
    let (mut head, body) = request.into_parts();
    let mut body = ClientBody::of(body, fields, &mut record);
    if body.is_some() && (!protocol.keeps_connections() || asks_to_close(&head.headers)) {
        record.leave_body();
    }
    async move {
        let answered = answer(&mut record, &mut head, fields, &mut body, tunnel).await;
        let Answered { mut response, deadline, switched } =
            answered.unwrap_or_else(|failure| failed(failure, &mut record, body.take()));
        drop(body);
        if record.connection.process.shows_routes {
            shown_fields::to_client(&record, response.headers_mut());
        }
        if is_head {
            leave_out_body(&mut response);
        }
        if !protocol.has_streams() && (record.open.watch().is_ending() || record.leaves_body()) {
            record.leave_body();
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(policy) = record.policy.take() {
            client_policy::on_response(&policy, &record, response.headers_mut());
        }
        record.answers(response.headers());
        if let Some(switched) = switched {
            record.respond(response.status());
            upgrade::run(record, switched);
            return Ok(TrackedBody::switch(response));
        }
        let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at.into())));
        Ok(TrackedBody::response(response, record, deadline))
    }
}

/// The outcome of a request.
struct Answered {
    response: Response,
    /// The time by which the last byte of the response must be sent.
    deadline: Option<Instant>,
    /// Set if the exchange has become a tunnel, which begins after the response head.
    switched: Option<Switched>,
}

impl Answered {
    /// An answer that the gateway gives without asking a backend.
    fn here(record: &mut Record, response: Response) -> Self {
        record.answered_here();
        Self { response, deadline: None, switched: None }
    }
}

/// Builds the response for a failure. `body` is the part of the request body that was not
/// forwarded.
fn failed(failure: Failure, record: &mut Record, body: Option<ClientBody>) -> Answered {
    if failure.closes() {
        record.leave_body();
        body.into_iter().for_each(ClientBody::leave);
    }
    let mut response = record.fail(failure);
    response.headers_mut().extend(std::mem::take(&mut record.sharing));
    // A response that reports an expired limit is not itself subject to that limit.
    Answered { response, deadline: None, switched: None }
}

/// Returns true if the client asks to close the connection after this exchange.
fn asks_to_close(headers: &HeaderMap) -> bool {
    headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// Removes the body of a response to HEAD and keeps its length (RFC 9110 section 9.3.2). Over
/// HTTP/1 hyper would drop the body unread, which would look as if the client had disconnected;
/// over HTTP/2 hyper would send it.
fn leave_out_body(response: &mut Response) {
    if response.body().is_end_stream() {
        return;
    }
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = Body::Empty;
}

/// Routes a request to a rule and forwards it to a backend of that rule.
async fn answer(
    record: &mut Record,
    head: &mut request::Parts,
    fields: NotedFields,
    body: &mut Option<ClientBody>,
    tunnel: Option<OnUpgrade>,
) -> Result<Answered, Failure> {
    let connection = Arc::clone(&record.connection);
    let process = &connection.process;
    // Loaded once: the rest of the request uses this configuration, whatever is published
    // meanwhile.
    let snapshot = process.snapshot.here();
    let bind = snapshot.bind(connection.bind).ok_or(Failure::NoRoute)?;
    record.logged_by(bind.access_log.as_ref(), &head.headers);

    // In a block, and `policy` not used behind it: what lives over an `.await` makes the future of
    // every request larger.
    let Admitted { host, host_field, upgrade, is_unescaped: _ } = {
        let policy = bind.policy_of(connection.sni.as_deref());
        record.policy = policy.cloned();
        let mut admitted = admit(record, head, fields, policy)?;
        if let Some(policy) = policy
            && let Some(response) = client_policy::on_request(policy, record, head, &mut admitted)?
        {
            return Ok(Answered::here(record, response));
        }
        admitted
    };
    if let Some(response) = answer_of_gateway(&connection, bind, head).await {
        return Ok(Answered::here(record, response));
    }
    if process.shortage.is_severe() {
        return Err(Failure::Overloaded);
    }
    let trusted = &process.trusted_proxies;
    let policy = record.policy.as_deref();
    let RequestOrigin { client, request_id, scheme, port, fields: forwarded } =
        connection.origin.of_request(
            &mut head.headers,
            fields,
            &host,
            &host_field,
            trusted,
            policy,
        )?;
    (record.client, record.request_id) = (client, request_id);
    if upgrade == Some(Upgrade::Http2) {
        // Routes, filters and backends see the HTTP/1.1 handshake that corresponds to the CONNECT.
        upgrade::to_http1(head);
    }

    let listener = listener(&connection, bind, host.as_str())?;
    record.belongs_to(&listener.name);
    let mut forwarded = Some(forwarded);
    if forwarded_fields::are_read_by(listener) {
        tell(record, &mut head.headers, forwarded.take());
    }
    if let Some(tracing) = &listener.tracing {
        let started = record.started();
        record.trace = Some(Trace::begin(tracing, &mut head.headers, scheme.as_str(), started));
    }
    record.logged_by(listener.access_log.as_ref(), &head.headers);
    // The listener for this name serves another protocol on this port.
    let routes = listener.routes().ok_or(Failure::MisdirectedRequest)?;
    let path = path_of(&head.uri);
    let found = routes.find(host.as_str(), path, head).ok_or(Failure::NoRoute)?;
    let rule = found.rule;
    if routes.other_reading(host.as_str(), path, head, rule).is_some() {
        return Err(Failure::AmbiguousPath(Ambiguous::OtherRule));
    }
    record.matched(rule);
    // Read before a filter changes the path: the session belongs to the path that the client sent.
    let mut session = rule.session.as_deref().map(|session| {
        let fixed = &path[..found.fixed];
        RequestSession::new(session, &process.session_key, record.written_path(), fixed)
    });
    tell(record, &mut head.headers, forwarded.filter(|_| !rule.answers_at_once()));
    let mut exchange = Exchange {
        client,
        started: record.started(),
        scheme,
        host,
        port,
        matched_prefix: found.matched_prefix,
        allowed_origin: None,
        details: None,
        limit: None,
        hides_limits: record.policy.as_ref().is_some_and(|policy| policy.hides_limits),
        retry_after: None,
        is_delayed: false,
        coding: None,
        is_memory_short: rule.sees_bodies && process.shortage.is_short(),
        passed: 0,
    };
    let tunnel = upgrade.zip(tunnel);
    let seen = rule.overrides.as_ref().map(|overrides| overrides.see(&head.headers));
    let answered = follow(record, rule, &mut session, &mut exchange, head, body, tunnel).await;
    match (&rule.overrides, seen) {
        (Some(overrides), Some(seen)) => {
            Ok(overridden(answered, overrides, seen, record, &exchange, body))
        }
        _ => answered,
    }
}

/// Replaces the response to a request, or to its failure, if the rule has another one for it.
fn overridden(
    answered: Result<Answered, Failure>,
    overrides: &ResponseOverrides,
    seen: Box<Seen>,
    record: &mut Record,
    exchange: &Exchange,
    body: &mut Option<ClientBody>,
) -> Answered {
    let sharing = record.sharing.clone();
    let answered = answered.unwrap_or_else(|failure| failed(failure, record, body.take()));
    if answered.switched.is_some() {
        return answered;
    }
    let response = &answered.response;
    match response_override::replacement(overrides, response, record, exchange, seen, &sharing) {
        Some(response) => Answered { response, deadline: None, switched: None },
        None => answered,
    }
}

/// Refuses requests that no route may see, and removes from the head all that must not be
/// forwarded.
fn admit(
    record: &Record,
    head: &mut request::Parts,
    fields: NotedFields,
    policy: Option<&Arc<ClientPolicy>>,
) -> Result<Admitted, Failure> {
    let watch = record.open.watch();
    if watch.opened_with_long_target() {
        return Err(Failure::TargetTooLong);
    }
    if watch.opened_twofold() {
        return Err(Failure::TwofoldLength);
    }
    guard::admit(head, fields, watch.limits(), policy.map(|policy| &**policy))
}

/// Sets the fields that describe the client, unless they are in the head already.
fn tell(record: &Record, headers: &mut HeaderMap, forwarded: Option<ForwardedFields<'_>>) {
    if let Some(forwarded) = forwarded {
        forwarded.insert_into(headers, record.request_id.clone());
    }
}

/// Returns the response that the gateway gives itself, before any route is considered.
async fn answer_of_gateway(
    connection: &ClientConnection,
    bind: &Bind,
    head: &request::Parts,
) -> Option<Response> {
    if head.method == Method::OPTIONS && head.uri.path() == "*" {
        let mut answer = Response::new(Body::Empty);
        *answer.status_mut() = StatusCode::NO_CONTENT;
        return Some(answer);
    }
    if bind.tls { None } else { challenge(connection, head).await }
}

/// Answers an HTTP-01 challenge from the file that certbot left in the webroot, for any host. A
/// request for an unknown token continues to the routes, so that a backend can run ACME itself.
async fn challenge(connection: &ClientConnection, head: &request::Parts) -> Option<Response> {
    if head.method != Method::GET && head.method != Method::HEAD {
        return None;
    }
    let token = acme_webroot::token(path_of(&head.uri))?.to_owned();
    let webroot = connection.process.acme_webroot.clone();
    let content = tokio::task::spawn_blocking(move || acme_webroot::read(&webroot, &token))
        .await
        .ok()?
        .ok()?;
    let mut response = Response::new(Body::from_bytes(content));
    let plain = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    Some(response)
}

/// Returns the listener with the most specific hostname for a request.
///
/// Over TLS the handshake has already chosen a listener. A request for a host of another listener
/// is answered 421 (GEP-3567, RFC 9110 section 15.5.20), so that the client opens a connection for
/// that host: the certificate and the limits may differ.
fn listener<'a>(
    connection: &ClientConnection,
    bind: &'a Bind,
    host: &str,
) -> Result<&'a Arc<Listener>, Failure> {
    let by_host = bind.listeners.best(host);
    let Some(sni) = &connection.sni else { return by_host.ok_or(Failure::NoRoute) };
    if **sni == *host {
        return by_host.ok_or(Failure::NoRoute);
    }
    match (by_host, bind.listeners.best(sni)) {
        (Some(by_host), Some(by_sni)) if Arc::ptr_eq(by_host, by_sni) => Ok(by_host),
        (Some(_), _) => Err(Failure::MisdirectedRequest),
        (None, _) => Err(Failure::NoRoute),
    }
}

/// Passes a request through the filters of its rule and of its backend, forwards it, and passes the
/// response back through the filters.
async fn follow(
    record: &mut Record,
    rule: &Rule,
    session: &mut Option<RequestSession<'_>>,
    exchange: &mut Exchange,
    head: &mut request::Parts,
    body: &mut Option<ClientBody>,
    tunnel: Option<(Upgrade, OnUpgrade)>,
) -> Result<Answered, Failure> {
    let deadline = rule.timeouts.whole().map(|limit| exchange.started + limit);
    let passed = filters::on_request(&rule.filters, exchange, head).await;
    record.is_delayed = exchange.is_delayed;
    if let Verdict::Break(stop) = passed {
        return stopped(stop, (&rule.filters, &[]), exchange, record, deadline);
    }
    filters::on_failure(&rule.filters, exchange, &mut record.sharing);
    if let Some(session) = session {
        session.look_up(&head.headers);
    }
    let balancing = rule.balancing.as_deref();
    let hash =
        balancing.and_then(|of| RequestHash::new(of, exchange.client, &record.connection, head));
    let mut aim = session.as_ref().map(RequestSession::aim).unwrap_or_default();
    aim.hash = hash.as_ref().and_then(|hash| hash.hash);
    let choice = match session.as_ref().and_then(RequestSession::choice) {
        Some(choice) => choice,
        None => {
            let backends = rule.backends.as_ref().ok_or(Failure::NoBackend)?;
            choose(backends, balancing, &head.headers, &mut aim)
        }
    };
    let Choice::Cluster { cluster, filters } = choice else { return Err(Failure::BackendInvalid) };
    record.call.goes_to(cluster);
    if let Verdict::Break(stop) = filters::on_request(filters, exchange, head).await {
        return stopped(stop, (&rule.filters, filters), exchange, record, deadline);
    }

    let mut held = None;
    if rule.reads_requests
        && let Some(sent) = body.take()
    {
        let sent = sent.forward(record);
        // Boxed, so that other requests do not reserve memory for it.
        match Box::pin(read(rule, exchange, head, sent, deadline)).await {
            Ok(read) => held = Some(Box::new(read)),
            Err(Stop::Refuse(Failure::RequestBodyBroken)) => return Err(record.broken_body()),
            Err(stop) => {
                return stopped(stop, (&rule.filters, filters), exchange, record, deadline);
            }
        }
    }
    let switching =
        tunnel.map(|(kind, client)| Box::new(Switching::new(kind, client, &head.headers)));
    let mut cluster = cluster;
    let to = Destination { cluster: &mut cluster, aim: &mut aim, has_filters: !filters.is_empty() };
    let to = Forwarding { rule, client: exchange.client, to, deadline };
    let (mut response, switched) = forward(record, to, head, body, held, switching).await?;
    filters::on_response(&rule.filters, filters, exchange, &mut response);
    if let Some(session) = session {
        let sent_to = (&**cluster, record.upstream.as_ref());
        session.tell(sent_to, exchange.scheme, response.headers_mut());
    }
    if let Some(hash) = hash {
        hash.tell(response.headers_mut());
    }
    Ok(Answered { response, deadline, switched })
}

/// Returns the backend of a request without a session: the one of an available endpoint that the
/// request names, which it then prefers; or else by weight, the same for the same hash.
fn choose<'a>(
    backends: &'a WeightedClusters,
    balancing: Option<&Balancing>,
    headers: &HeaderMap,
    aim: &mut Aim,
) -> &'a Choice {
    for endpoint in balancing.iter().flat_map(|of| named_endpoints(of, headers)) {
        if let Some(choice) = backends.with_endpoint(&endpoint) {
            aim.prefer = Some(endpoint);
            return choice;
        }
    }
    backends.next(aim.hash)
}

/// Passes the body of a request through the filters of its rule.
///
/// # Errors
///
/// The end of the request, if a filter stops it or the request has no time left.
async fn read(
    rule: &Rule,
    exchange: &mut Exchange,
    head: &mut request::Parts,
    mut body: Body,
    deadline: Option<Instant>,
) -> Result<Body, Stop> {
    let reading = filters::on_request_body(&rule.filters, exchange, head, &mut body);
    let verdict = match deadline {
        None => reading.await,
        Some(at) => match tokio::time::timeout_at(at.into(), reading).await {
            Ok(verdict) => verdict,
            Err(_) => Verdict::Break(Stop::Refuse(Failure::RequestTimeout)),
        },
    };
    match verdict {
        Verdict::Continue(()) => Ok(body),
        Verdict::Break(stop) => Err(stop),
    }
}

/// Ends a request that a filter of its rule or its backend has stopped. An answer goes back through
/// the filters that the request has passed.
fn stopped(
    stop: Stop,
    (of_rule, of_backend): (&[Filter], &[Filter]),
    exchange: &Exchange,
    record: &mut Record,
    deadline: Option<Instant>,
) -> Result<Answered, Failure> {
    match stop {
        Stop::Answer(answer) => {
            let mut answer = answer.map(Body::from_bytes);
            filters::on_response(of_rule, of_backend, exchange, &mut answer);
            Ok(Answered { deadline, ..Answered::here(record, answer) })
        }
        Stop::Refuse(failure) => {
            record.details.clone_from(&exchange.details);
            filters::on_refusal(of_rule, exchange, &mut record.sharing);
            Err(failure)
        }
    }
}

/// The destination of a forwarded request.
struct Forwarding<'r, 'a> {
    rule: &'r Rule,
    /// The client whose share of upstream connections the request uses.
    client: IpAddr,
    to: Destination<'r, 'a>,
    deadline: Option<Instant>,
}

/// Sends a request to its backend, as often as the retry policy of its rule allows. Returns the
/// backend's response, without hop-by-hop fields, and the tunnel that it begins, if any.
async fn forward(
    record: &mut Record,
    forwarding: Forwarding<'_, '_>,
    head: &mut request::Parts,
    body: &mut Option<ClientBody>,
    held: Option<Box<Body>>,
    switching: Option<Box<Switching>>,
) -> Result<(Response, Option<Switched>), Failure> {
    let Forwarding { rule, client, to, deadline } = forwarding;
    if record.connection.process.shows_routes {
        shown_fields::to_backend(record, &mut head.headers);
    }
    let is_web = record.policy.as_ref().and_then(|policy| policy.grpc_web).unwrap_or(rule.grpc);
    record.grpc_web = if is_web { grpc_web::GrpcWebCall::translate(head) } else { None };
    let web = record.grpc_web;
    let body = match &switching {
        Some(switching) if switching.has_stream() => Body::Empty,
        _ => match held {
            Some(held) => *held,
            None => body.take().map_or(Body::Empty, |body| body.forward(record)),
        },
    };
    let body = match web {
        Some(call) => call.request_body(body),
        None => body,
    };
    let connection = &record.connection;
    let client = connection.client_of(client);
    let body = mirror::copy(&rule.mirrors, head, body, client, connection);
    let mut request = Request::new(body);
    std::mem::swap(request.method_mut(), &mut head.method);
    std::mem::swap(request.uri_mut(), &mut head.uri);
    *request.version_mut() = head.version;
    std::mem::swap(request.headers_mut(), &mut head.headers);
    std::mem::swap(request.extensions_mut(), &mut head.extensions);
    let (mut response, tunnel) = attempts::send(record, to, rule, &mut request, deadline).await?;
    let switched = Switching::finish(switching.map(|switching| *switching), &mut response, tunnel)?;
    if let Some(call) = web {
        response = call.response(response);
    }
    Ok((response, switched))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what `function` returns.
    const fn size_of_output<A, B, F>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// Each request allocates this future and copies it once.
    #[test]
    fn the_future_of_a_request_is_small() {
        const { assert!(size_of_output(serve) <= 3904) };
    }
}
