//! The HTTP side of the API: requests and responses, independent of the connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ORIGIN, VARY, WARNING};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::clock;

use super::answer::{AnswerBody, ApiAnswer};
use super::call::ApiCall;
use super::change::{Change, PreparedChange};
use super::decide::{ApiRules, Todo, decide};
use super::refused::ApiError;
use super::view::View;

/// The maximum size of a request body in bytes, as in an API server.
const BODY: usize = 3 << 20;
/// The timeout for a request body.
const BODY_PATIENCE: Duration = Duration::from_secs(10);
/// The timeout for a change, including the load.
const CHANGE_PATIENCE: Duration = Duration::from_secs(60);
/// The maximum number of concurrent watches.
const WATCHES: usize = 128;
/// The maximum number of changes that wait for the control loop.
pub(super) const QUEUE: usize = 64;
/// The maximum number of warnings in one answer.
const WARNINGS: usize = 20;

pub(crate) type AnyBody = UnsyncBoxBody<Bytes, Infallible>;

/// A change for the control loop, and the channel for its answer.
#[derive(Debug)]
pub(crate) struct ChangeRequest {
    pub change: Change,
    /// The channel for the prepared change and the view after it, or for the refusal.
    pub answer: oneshot::Sender<Result<(PreparedChange, Arc<View>), ApiError>>,
}

/// The request handler: it answers from the last view, or through the control loop. Clones share
/// their state.
#[derive(Clone, Debug)]
pub(crate) struct Front {
    views: watch::Receiver<Arc<View>>,
    changes: mpsc::Sender<ChangeRequest>,
    rules: ApiRules,
    watches: Arc<Semaphore>,
}

impl Front {
    pub(super) fn new(
        views: watch::Receiver<Arc<View>>,
        changes: mpsc::Sender<ChangeRequest>,
        rules: ApiRules,
    ) -> Self {
        Self { views, changes, rules, watches: Arc::new(Semaphore::new(WATCHES)) }
    }

    /// Returns true for a path that the API answers.
    pub(crate) fn is_for(path: &str) -> bool {
        let first = path.split('/').nth(1).unwrap_or_default();
        matches!(first, "api" | "apis" | "openapi" | "version" | "healthz" | "livez" | "readyz")
    }

    /// Answers a request of a client that may read. With `may_change` the client may also make the
    /// changes that `--api-writable` permits.
    pub(crate) async fn serve(
        &self,
        request: Request<Incoming>,
        may_change: bool,
    ) -> Response<AnyBody> {
        match self.answer(request, may_change).await {
            Ok(response) => response,
            Err(refused) => self.refused(refused),
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        may_change: bool,
    ) -> Result<Response<AnyBody>, ApiError> {
        if request.headers().contains_key(ORIGIN) {
            return Err(ApiError::forbidden("pages of a browser are not answered"));
        }
        let (parts, body) = request.into_parts();
        let call = ApiCall::new(&parts)?;
        let body = read(body).await?;
        let rules = ApiRules { writable: self.rules.writable && may_change, ..self.rules };
        let now = jiff::Timestamp::try_from(clock::wall()).unwrap_or_default();
        let view = Arc::clone(&self.views.borrow());
        match decide(&view, &call, &body, rules, now)? {
            Todo::Answer(answer) => Ok(respond(answer)),
            Todo::Change(change, presenting) => {
                let (answer, answered) = oneshot::channel();
                let stopping = || ApiError::unavailable("the gateway is stopping");
                self.changes
                    .send(ChangeRequest { change, answer })
                    .await
                    .map_err(|_| stopping())?;
                let done = tokio::time::timeout(CHANGE_PATIENCE, answered).await;
                let done = done.map_err(|_| ApiError::timeout())?.map_err(|_| stopping())?;
                let (prepared, view) = done?;
                presenting.changed(prepared, &view).map(respond)
            }
            Todo::Watch(watching) => {
                let permit = Arc::clone(&self.watches).try_acquire_owned();
                let permit = permit.map_err(|_| ApiError::too_many("watches"))?;
                let lines = watching.lines(self.views.clone(), permit);
                let frames = lines.map(|line| Ok(Frame::data(line)));
                let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(CONTENT_TYPE, json);
                Ok(response)
            }
        }
    }

    /// Returns the response to a refused request.
    pub(crate) fn refused(&self, refused: ApiError) -> Response<AnyBody> {
        let mut response = respond(ApiAnswer::from(refused));
        if response.status() == StatusCode::METHOD_NOT_ALLOWED {
            let methods = if self.rules.writable { "GET, POST, PUT, PATCH, DELETE" } else { "GET" };
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        }
        response
    }
}

async fn read(body: Incoming) -> Result<Bytes, ApiError> {
    let limited = Limited::new(body, BODY).collect();
    match tokio::time::timeout(BODY_PATIENCE, limited).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::too_large()),
        Ok(Err(_)) => Err(ApiError::bad_request("the body was cut off")),
        Err(_) => Err(ApiError::bad_request("the body did not come in time")),
    }
}

fn respond(answer: ApiAnswer) -> Response<AnyBody> {
    let (content_type, bytes) = match answer.body {
        AnswerBody::Bytes { content_type, bytes } => (content_type, bytes),
        AnswerBody::Json(value) => {
            // A JSON value has only text as keys, so it can be written.
            let mut bytes = serde_json::to_vec(&value).unwrap_or_default();
            bytes.push(b'\n');
            ("application/json", bytes)
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(bytes)).boxed_unsync());
    *response.status_mut() =
        StatusCode::from_u16(answer.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    for warning in answer.warnings.iter().take(WARNINGS) {
        let text: String = warning
            .chars()
            .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
            .collect();
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            headers.append(WARNING, value);
        }
    }
    response
}
