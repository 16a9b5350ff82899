//! The request, room by room.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT};
use http::{HeaderMap, HeaderValue, Method, StatusCode, request};
use http_body::Body as _;

use crate::body::{Body, Response};
use crate::clock;
use crate::failure::Failure;
use crate::filters::exchange::path_of;
use crate::filters::{self, Exchange, Filter, Stop, Verdict};
use crate::path::Ambiguous;
use crate::proxy::client_body::ClientBody;
use crate::proxy::client_connection::Connection;
use crate::proxy::exchange_record::Record;
use crate::proxy::forwarded_fields::Told;
use crate::proxy::guard::{self, Admitted, Upgrade};
use crate::proxy::request_body::RequestBody;
use crate::proxy::response_body::Tracked;
use crate::proxy::upgrade::Switched;
use crate::proxy::{acme_webroot, attempts, grpc_web, mirror, session, shown_fields, upgrade};
use crate::snapshot::{Bind, Choice, Listener};
use crate::trace::Trace;

/// Serves one request of a connection.
///
/// Never an error: whatever goes wrong becomes a response, and the record writes its line when the
/// response's body has ended or nobody is left to read it.
pub(super) async fn serve(
    connection: Arc<Connection>,
    mut request: http::Request<RequestBody>,
) -> Result<http::Response<Tracked>, Infallible> {
    let mut record = Record::begin(connection, &request);
    let protocol = record.protocol;
    let is_head = request.method() == Method::HEAD;
    let tunnel = upgrade::wanted(&mut request);
    let is_announced = request.headers().contains_key(EXPECT);
    let (head, body) = request.into_parts();
    let mut body = ClientBody::of(body, &mut record, is_announced);
    if body.is_some() && (!protocol.keeps_connections() || asks_to_close(&head.headers)) {
        record.leave_body();
    }
    let (mut deadline, mut switched) = (None, None);
    let answered = answer(&mut record, head, &mut body, tunnel, &mut deadline, &mut switched).await;
    let mut response = answered.unwrap_or_else(|failure| {
        // The answer to a limit that has passed is not under that limit.
        deadline = None;
        if failure.closes() {
            record.leave_body();
            body.take().into_iter().for_each(ClientBody::leave);
        }
        let mut response = record.fail(failure);
        response.headers_mut().extend(std::mem::take(&mut record.sharing));
        response
    });
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
    record.answers(response.headers());
    if let Some(switched) = switched {
        record.respond(response.status());
        upgrade::run(record, switched);
        return Ok(Tracked::switch(response));
    }
    let deadline = deadline.map(|at: Instant| Box::pin(tokio::time::sleep_until(at.into())));
    Ok(Tracked::response(response, record, deadline))
}

/// True if the connection is to end with this exchange, by the word of the client.
fn asks_to_close(headers: &HeaderMap) -> bool {
    headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// RFC 9110 section 9.3.2: HEAD is told how long the body would be, and gets none. Where hyper drops
/// a body unread it would look as if the client had left; over HTTP/2 it sends it.
fn leave_out_body(response: &mut Response) {
    if response.body().is_end_stream() {
        return;
    }
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = Body::Empty;
}

/// Where a request goes, from top to bottom.
async fn answer(
    record: &mut Record,
    mut head: request::Parts,
    body: &mut Option<ClientBody>,
    tunnel: Option<hyper::upgrade::OnUpgrade>,
    deadline: &mut Option<Instant>,
    switched: &mut Option<Switched>,
) -> Result<Response, Failure> {
    let connection = Arc::clone(&record.connection);
    let process = &connection.process;
    // Once: everything below sees this configuration, whatever is published meanwhile.
    let snapshot = process.snapshot.load();
    let bind = snapshot.bind(connection.bind).ok_or(Failure::NoRoute)?;
    record.logged_by(bind.access_log.as_ref(), &head.headers);

    if record.open.watch().opened_with_long_target() {
        return Err(Failure::TargetTooLong);
    }
    if record.open.watch().opened_twofold() {
        return Err(Failure::TwofoldLength);
    }
    let Admitted { host, host_field, upgrade } =
        guard::admit(&mut head, connection.watch.limits())?;
    if head.method == Method::OPTIONS && head.uri.path() == "*" {
        let mut answer = Response::new(Body::Empty);
        *answer.status_mut() = StatusCode::NO_CONTENT;
        return Ok(here(record, answer));
    }
    if !bind.tls
        && let Some(answer) = challenge(&connection, &head).await
    {
        return Ok(here(record, answer));
    }
    if process.shortage.is_severe() {
        return Err(Failure::Overloaded);
    }
    let Told { client, request_id, scheme, port } =
        connection.origin.tell(&mut head.headers, &host, &host_field, &process.trusted_proxies);
    (record.client, record.request_id) = (client, Some(request_id));

    if upgrade == Some(Upgrade::Http2) {
        // Routes, filters and backends see the handshake that it stands for.
        upgrade::to_http1(&mut head);
    }
    let listener = listener(&connection, bind, host.as_str())?;
    record.listener = Some(Arc::clone(&listener.name));
    if let Some(tracing) = &listener.tracing {
        let started = record.started();
        record.trace = Some(Trace::begin(tracing, &mut head.headers, scheme.as_str(), started));
    }
    record.logged_by(listener.access_log.as_ref(), &head.headers);
    // A name that another protocol is served under on this port.
    let routes = listener.routes().ok_or(Failure::MisdirectedRequest)?;
    let found = routes.find(host.as_str(), path_of(&head.uri), &head).ok_or(Failure::NoRoute)?;
    let rule = found.rule;
    if routes.other_reading(host.as_str(), path_of(&head.uri), &head, rule).is_some() {
        return Err(Failure::AmbiguousPath(Ambiguous::OtherRule));
    }
    rule.counts.here().hits.one_more();
    record.rule = Some(Arc::clone(rule));
    record.call.matched(rule);
    // Before a filter changes the path: the cookie is the client's. Of a client that spells the path
    // otherwise (`//a`) no part of it is known.
    let fixed = &path_of(&head.uri)[..found.fixed];
    let session_path: Box<str> = match rule.session {
        Some(_) if record.written_path().starts_with(fixed) => fixed.into(),
        _ => Box::default(),
    };
    let mut exchange = Exchange {
        client,
        started: record.started(),
        scheme,
        host,
        port,
        matched_prefix: found.matched_prefix,
        allowed_origin: None,
        passed: 0,
    };
    *deadline = rule.timeouts.request.duration().map(|limit| exchange.started + limit);
    if let Verdict::Break(stop) = filters::on_request(&rule.filters, &mut exchange, &mut head).await
    {
        return stopped(stop, &rule.filters, &[], &exchange, record);
    }
    filters::on_failure(&rule.filters, &exchange, &mut record.sharing);
    let session = rule.session.as_deref();
    let now = session.map_or(SystemTime::UNIX_EPOCH, |_| clock::wall());
    let held = session.and_then(|of| session::held(of, &process.session_key, &head.headers, now));
    let choice = match &held {
        Some(held) => held.choice,
        None => rule.backends.as_ref().ok_or(Failure::NoBackend)?.next(),
    };
    let Choice::Cluster { cluster, filters } = choice else { return Err(Failure::BackendInvalid) };
    record.call.goes_to(cluster);
    if let Verdict::Break(stop) = filters::on_request(filters, &mut exchange, &mut head).await {
        return stopped(stop, &rule.filters, filters, &exchange, record);
    }

    if process.shows_routes {
        shown_fields::to_backend(record, &mut head.headers);
    }
    let web = if rule.grpc { grpc_web::Call::translate(&mut head) } else { None };
    record.grpc_web = web;
    let body = match upgrade {
        // What the stream carries is the tunnel's.
        Some(Upgrade::Http2) => Body::Empty,
        _ => body.take().map_or(Body::Empty, |body| body.forward(record)),
    };
    let body = match web {
        Some(call) => call.request_body(body),
        None => body,
    };
    let handshake = match upgrade {
        Some(Upgrade::Http2) => Some(upgrade::Handshake::of(&head.headers)),
        _ => None,
    };
    let client = connection.client_of(exchange.client);
    let body = mirror::copy(&rule.mirrors, &head, body, client);
    let request = http::Request::from_parts(head, body);
    let aim = held.as_ref().map(session::Held::aim).unwrap_or_default();
    let (mut response, came_tunnel) =
        attempts::send(record, cluster, rule, request, aim, *deadline).await?;

    match (response.status(), upgrade, tunnel, came_tunnel) {
        (StatusCode::SWITCHING_PROTOCOLS, Some(kind), Some(downstream), Some(upstream)) => {
            if handshake.is_some_and(|handshake| !handshake.is_met_by(response.headers())) {
                return Err(Failure::ResponseInvalid);
            }
            upgrade::answer(kind, &mut response);
            let websocket = upgrade::is_websocket(&response);
            *switched = Some(Switched { kind, websocket, downstream, upstream });
        }
        (StatusCode::SWITCHING_PROTOCOLS, ..) => return Err(Failure::ResponseInvalid),
        // To a CONNECT, any 2xx says that there is a tunnel (RFC 9110 section 9.3.6).
        (status, Some(Upgrade::Http2), ..) if status.is_success() => {
            return Err(Failure::ResponseInvalid);
        }
        _ => guard::remove_hop_by_hop(response.headers_mut()),
    }
    if let Some(call) = web {
        response = call.response(response);
    }
    filters::on_response(&rule.filters, filters, &exchange, response.headers_mut());
    if let Some(of) = session {
        let sent_to = (choice, record.upstream.as_ref());
        let (key, place) = (&process.session_key, (exchange.scheme, &*session_path));
        session::tell(of, key, sent_to, held.as_ref(), place, now, response.headers_mut());
    }
    Ok(response)
}

/// The listener that a request belongs to: the one with the most specific hostname.
///
/// Over TLS the handshake chose one already. A request for a host of another listener came over a
/// connection that was opened for something else (GEP-3567, RFC 9110 section 15.5.20): 421, so that
/// the client opens its own; its certificate and its limits may be others.
fn listener<'a>(
    connection: &Connection,
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

/// HTTP-01: what certbot left in the webroot, ahead of every route and for any host. A token that
/// is not there goes on to the routes, so that a backend can run ACME itself.
async fn challenge(connection: &Connection, head: &request::Parts) -> Option<Response> {
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

/// Notes that no backend was asked.
fn here(record: &mut Record, answer: Response) -> Response {
    record.answered_here();
    answer
}

/// The end of a request at a filter. An answer goes back through the filters that the request has
/// passed.
fn stopped(
    stop: Stop,
    of_rule: &[Filter],
    of_backend: &[Filter],
    exchange: &Exchange,
    record: &mut Record,
) -> Result<Response, Failure> {
    match stop {
        Stop::Answer(answer) => {
            let mut answer = answer.map(Body::from_bytes);
            filters::on_response(of_rule, of_backend, exchange, answer.headers_mut());
            Ok(here(record, answer))
        }
        Stop::Refuse(failure) => {
            filters::on_failure(of_rule, exchange, &mut record.sharing);
            Err(failure)
        }
    }
}
