//! The HTTP/1.1 server for scrapers, on a separate address and never on a listener of a Gateway.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE, VARY};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

use crate::local_http::{self, Limits};
use crate::metrics::exposition::Format;
use crate::metrics::scrape::Metrics;

/// Limit on concurrent connections; others wait in the backlog.
const CONNECTIONS: usize = 16;
const LIMITS: Limits = Limits {
    head_bytes: 8 << 10,
    head_fields: 32,
    head_time: Duration::from_secs(75),
    // A scraper with a persistent connection opens another one after this.
    connection_time: Some(Duration::from_secs(3600)),
};

/// Serves metrics on `address` without end. If the address is in use, this is logged once and the
/// function waits until it is free; meanwhile the gateway runs without the endpoint.
pub(crate) async fn serve(address: SocketAddr, metrics: Arc<Metrics>) {
    let listener = local_http::listen(address, "metrics", "/stats/prometheus").await;
    let answers = |stream| {
        let metrics = Arc::clone(&metrics);
        local_http::serve(stream, LIMITS, move |request| {
            let metrics = Arc::clone(&metrics);
            async move { answer(&request, address, metrics).await }
        })
    };
    local_http::accept(listener, CONNECTIONS, "metrics", answers).await;
}

async fn answer<B>(
    request: &Request<B>,
    address: SocketAddr,
    metrics: Arc<Metrics>,
) -> Response<Full<Bytes>> {
    if address.ip().is_loopback() && !local_http::is_own_name(request.headers()) {
        return says(StatusCode::FORBIDDEN, "ask for localhost or 127.0.0.1\n");
    }
    if !matches!(request.uri().path(), "/stats/prometheus" | "/metrics") {
        return says(StatusCode::NOT_FOUND, "metrics are at /stats/prometheus and /metrics\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = says(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::wanted(accept.unwrap_or_default());
    // The text of ten thousand routes takes a while, and must not block the control loop.
    let Ok(text) = tokio::task::spawn_blocking(move || metrics.text(format)).await else {
        return says(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping\n");
    };
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    let form = HeaderValue::from_static(format.content_type());
    answer.headers_mut().insert(CONTENT_TYPE, form);
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    answer
}

fn says(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    answer
}
