//! WebSocket echo: over HTTP/1.1 (RFC 6455) and HTTP/2 (RFC 8441), on any path.

use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderValue, Method, StatusCode, Version};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::responses::{IDLE, empty};
use super::tasks::Spawner;
use crate::body::Response;

/// Limit on the size of a message, in bytes.
const MAX_MESSAGE: usize = 1 << 20;

/// True if `request` is a WebSocket handshake.
pub(super) fn is_asked_for<B>(request: &http::Request<B>) -> bool {
    if request.version() == Version::HTTP_2 {
        let protocol = request.extensions().get::<Protocol>();
        return request.method() == Method::CONNECT
            && protocol.is_some_and(|protocol| protocol.as_str() == "websocket");
    }
    let offers = request.headers().get_all(UPGRADE).iter();
    let mut tokens = offers.flat_map(|offer| offer.as_bytes().split(|byte| *byte == b','));
    tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"websocket"))
}

/// Responds to the handshake, and echoes messages once the connection is a tunnel. `held` is
/// dropped when the tunnel ends.
pub(super) fn accept(
    request: http::Request<Incoming>,
    spawner: &Spawner,
    held: impl Send + 'static,
) -> Response {
    let headers = request.headers();
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut response = empty(StatusCode::UPGRADE_REQUIRED);
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return response;
    }
    // Over HTTP/2 no key is needed: the stream itself proves that no proxy misread the request.
    let mut response = empty(StatusCode::OK);
    if request.version() != Version::HTTP_2 {
        let key = headers.get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
        let Some(Ok(accept)) = key.map(HeaderValue::try_from) else {
            return empty(StatusCode::BAD_REQUEST);
        };
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    let upgrade = hyper::upgrade::on(request);
    spawner.spawn(async move {
        tunnel(upgrade).await;
        drop(held);
    });
    response
}

async fn tunnel(upgrade: OnUpgrade) {
    let Ok(Ok(upgraded)) = tokio::time::timeout(IDLE, upgrade).await else { return };
    let config = WebSocketConfig::default()
        .read_buffer_size(8 << 10)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let stream = TokioIo::new(upgraded);
    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    echo(socket).await;
}

/// Sends back each message until either side closes; pings and closes are answered too.
async fn echo(mut socket: WebSocketStream<TokioIo<Upgraded>>) {
    while let Ok(Some(Ok(message))) = tokio::time::timeout(IDLE, socket.next()).await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
    let _ = socket.close(None).await;
}
