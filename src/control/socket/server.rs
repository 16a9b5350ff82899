//! The server of the control socket: one request for each connection, passed on to the control
//! loop.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::header::ALLOW;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::unistd::geteuid;
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::admin::{Admin, Answer};
use crate::kube_api::Front;

use super::question::{Ask, AskReload};
use super::words::{ErrorReport, Reloaded};

/// The maximum number of connections; others wait in the backlog.
const CONNECTIONS: usize = 16;
/// The maximum number of requests of each kind that wait for the control loop.
pub(super) const QUEUE: usize = CONNECTIONS;
const HEAD_BYTES: usize = 8 << 10;
const HEAD_FIELDS: usize = 32;

/// Timeouts of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the head of the request.
    pub head: Duration,
    /// For the whole connection, including a reload that the client waits for.
    pub connection: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { head: Duration::from_secs(5), connection: Duration::from_secs(120) }
    }
}

/// The channels to the control loop.
#[derive(Clone, Debug)]
pub(super) struct Asks {
    pub reload: mpsc::Sender<AskReload>,
    pub question: mpsc::Sender<Ask>,
    /// Requests that need a load.
    pub rehearsal: mpsc::Sender<Ask>,
}

/// The handlers of requests to the control socket.
#[derive(Clone, Debug)]
pub(super) struct SocketDoor {
    pub asks: Asks,
    pub front: Front,
    pub admin: Admin,
}

/// Accepts connections forever.
pub(super) async fn serve(listener: UnixListener, door: SocketDoor, patience: Patience) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, door.clone(), patience));
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket: no connection is accepted");
                    // Most likely no file descriptor is free: an immediate retry would spin.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: UnixStream, door: SocketDoor, patience: Patience) {
    let trusted =
        stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == geteuid().as_raw());
    let may_change = match trusted {
        true => Ok(()),
        false => Err("only root and the user of the gateway may change anything"),
    };
    let service = service_fn(|request: Request<Incoming>| {
        let SocketDoor { asks, front, admin } = door.clone();
        async move {
            let response = if Front::is_for(request.uri().path()) {
                front.serve(request, trusted).await
            } else {
                answer(&request, may_change, &asks, &admin).await.map(BodyExt::boxed_unsync)
            };
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    // Errors of the connection concern only the client.
    let _ = tokio::time::timeout(patience.connection, served).await;
}

/// Answers a request. The client may read; it may also change something unless `may_change` is an
/// error, which has the reason.
pub(super) async fn answer<B>(
    request: &Request<B>,
    may_change: Result<(), &'static str>,
    asks: &Asks,
    admin: &Admin,
) -> Response<Full<Bytes>> {
    let uri = request.uri();
    let Some(methods) = Admin::methods(uri.path()) else {
        return answer_by_loop(request, may_change, asks).await;
    };
    if let Some(refused) = forbidden(request, methods, may_change) {
        return refused;
    }
    let changes = request.method() == Method::POST;
    let answer = admin.answer(changes, uri.path(), uri.query().unwrap_or_default()).await;
    let mut response = Response::new(Full::new(answer.body.clone()));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.fields();
    response
}

/// Refuses methods that the path does not support, and changes by clients that may not make them.
fn forbidden<B>(
    request: &Request<B>,
    methods: &'static str,
    may_change: Result<(), &'static str>,
) -> Option<Response<Full<Bytes>>> {
    let method = request.method();
    if !methods.split(", ").any(|one| one == method) {
        let error = format!("`{method}` is not for `{}`; use {methods}", request.uri().path());
        let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, error);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        return Some(response);
    }
    match may_change {
        Err(why) if method == Method::POST => Some(refused(StatusCode::FORBIDDEN, why.into())),
        _ => None,
    }
}

async fn answer_by_loop<B>(
    request: &Request<B>,
    may_change: Result<(), &'static str>,
    asks: &Asks,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let methods = match path {
        "/drain_listeners" | "/reload" => "POST",
        "/certs" | "/conditions" | "/reloads" | "/status" => "GET, HEAD",
        _ => return refused(StatusCode::NOT_FOUND, format!("`{path}` is nothing here")),
    };
    if let Some(refused) = forbidden(request, methods, may_change) {
        return refused;
    }
    match (path, request.uri().query()) {
        ("/reload", query) => match How::read(query.unwrap_or_default()) {
            Ok(how) => reload(how, asks).await,
            Err(error) => refused(StatusCode::BAD_REQUEST, error),
        },
        ("/drain_listeners", None) => {
            let (answer, answered) = oneshot::channel();
            let _ = asks.question.send(Ask::Drain(answer)).await;
            reply(answered, |_| StatusCode::ACCEPTED).await
        }
        ("/certs", None) => ask(asks, Ask::Certificates).await,
        ("/conditions", None) => ask(asks, Ask::Conditions).await,
        ("/reloads", None) => ask(asks, Ask::Reloads).await,
        ("/status", None) => ask(asks, Ask::Status).await,
        (_, query) => {
            let query = query.unwrap_or_default();
            refused(StatusCode::BAD_REQUEST, format!("`?{query}` means nothing here"))
        }
    }
}

/// The options of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct How {
    waits: bool,
    allow_removal: bool,
    dry_run: bool,
}

impl How {
    /// Parses a query.
    ///
    /// # Errors
    ///
    /// Fails on unknown parameters and values.
    fn read(query: &str) -> Result<Self, String> {
        let mut how = Self { waits: true, allow_removal: false, dry_run: false };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let field = match name {
                "wait" => &mut how.waits,
                "allow_removal" => &mut how.allow_removal,
                "dry_run" => &mut how.dry_run,
                _ => return Err(format!("`?{query}` means nothing here")),
            };
            *field = value.parse().map_err(|_| format!("`{name}` is true or false"))?;
        }
        Ok(how)
    }
}

async fn reload(how: How, asks: &Asks) -> Response<Full<Bytes>> {
    let How { waits, allow_removal, dry_run } = how;
    let (answer, answered) = oneshot::channel();
    if dry_run {
        let _ = asks.rehearsal.send(Ask::Rehearse { allow_removal, answer }).await;
    } else if waits {
        let _ = asks.reload.send(AskReload { allow_removal, answer: Some(answer) }).await;
    } else {
        return match asks.reload.send(AskReload { allow_removal, answer: None }).await {
            Ok(()) => json(StatusCode::ACCEPTED, &serde_json::Map::new()),
            Err(_) => stopping(),
        };
    }
    let status = |reloaded: &Reloaded| match reloaded.loaded {
        true => StatusCode::OK,
        false => StatusCode::UNPROCESSABLE_ENTITY,
    };
    reply(answered, status).await
}

async fn ask<T: Serialize>(
    asks: &Asks,
    question: impl FnOnce(oneshot::Sender<T>) -> Ask,
) -> Response<Full<Bytes>> {
    let (answer, answered) = oneshot::channel();
    let _ = asks.question.send(question(answer)).await;
    reply(answered, |_| StatusCode::OK).await
}

async fn reply<T: Serialize>(
    answered: oneshot::Receiver<T>,
    status: impl Fn(&T) -> StatusCode,
) -> Response<Full<Bytes>> {
    match answered.await {
        Ok(answer) => json(status(&answer), &answer),
        Err(_) => stopping(),
    }
}

fn stopping() -> Response<Full<Bytes>> {
    refused(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping".into())
}

pub(super) fn refused(status: StatusCode, error: String) -> Response<Full<Bytes>> {
    json(status, &ErrorReport { error })
}

fn json(status: StatusCode, answer: &impl Serialize) -> Response<Full<Bytes>> {
    let answer = Answer::json(answer);
    let mut response = Response::new(Full::new(answer.body.clone()));
    *response.status_mut() = status;
    *response.headers_mut() = answer.fields();
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks() -> (Asks, mpsc::Receiver<AskReload>) {
        let (reload, reloads) = mpsc::channel(QUEUE);
        let (question, _) = mpsc::channel(QUEUE);
        let (rehearsal, _) = mpsc::channel(QUEUE);
        (Asks { reload, question, rehearsal }, reloads)
    }

    #[tokio::test]
    async fn only_what_is_allowed_reaches_the_loop() {
        // (method, target, may change, status, requested reloads)
        let table = [
            ("POST", "/reload?wait=false", true, 202, 1),
            ("POST", "/reload?wait=false", false, 403, 0),
            ("GET", "/reload", true, 405, 0),
            ("HEAD", "/reload", true, 405, 0),
            ("POST", "/reload?wait=perhaps", true, 400, 0),
            ("POST", "/reload?removal=true", true, 400, 0),
            ("POST", "/reload?wait=false&allow_removal=true", true, 202, 1),
            ("POST", "/reload?allow_removal=true", false, 403, 0),
            ("POST", "/reload?dry_run=true", false, 403, 0),
            ("POST", "/status", true, 405, 0),
            ("GET", "/status?x", true, 400, 0),
            ("GET", "/nothing", true, 404, 0),
            ("GET", "/drain_listeners", true, 405, 0),
            ("POST", "/drain_listeners", false, 403, 0),
            ("GET", "/reload/", true, 404, 0),
        ];
        for (method, target, may_change, status, reloads) in table {
            let (asks, mut asked) = asks();
            let request = Request::builder().method(method).uri(target).body(()).unwrap();
            let may_change = if may_change { Ok(()) } else { Err("you may not") };
            let response = answer_by_loop(&request, may_change, &asks).await;
            assert_eq!(response.status(), status, "{method} {target}");
            let mut count = 0;
            while asked.try_recv().is_ok() {
                count += 1;
            }
            assert_eq!(count, reloads, "{method} {target}");
        }
    }

    #[test]
    fn how_a_reload_is_to_be_is_read_from_the_query() {
        let how = |waits, allow_removal, dry_run| Ok(How { waits, allow_removal, dry_run });
        let table = [
            ("", how(true, false, false)),
            ("wait=true", how(true, false, false)),
            ("wait=false&allow_removal=true", how(false, true, false)),
            ("dry_run=true", how(true, false, true)),
            ("allow_removal", Err("`allow_removal` is true or false".into())),
            ("wait=1", Err("`wait` is true or false".into())),
            ("x=true", Err("`?x=true` means nothing here".into())),
        ];
        for (query, want) in table {
            assert_eq!(How::read(query), want, "{query}");
        }
    }

    #[tokio::test]
    async fn a_gateway_that_stops_leaves_nobody_waiting() {
        let (asks, reloads) = asks();
        drop(reloads);
        let request = Request::post("/reload").body(()).unwrap();
        assert_eq!(answer_by_loop(&request, Ok(()), &asks).await.status(), 503);
        let request = Request::post("/reload?wait=false").body(()).unwrap();
        assert_eq!(answer_by_loop(&request, Ok(()), &asks).await.status(), 503);
        let request = Request::get("/status").body(()).unwrap();
        assert_eq!(answer_by_loop(&request, Ok(()), &asks).await.status(), 503);
    }
}
