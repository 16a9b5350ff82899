//! The admin address: a loopback address for programs and browsers on this host.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;

use crate::admin::Admin;
use crate::local_http::{self, Limits};

use super::server::{Asks, answer, refused};

/// The maximum number of connections; others wait in the backlog. A browser opens six.
const CONNECTIONS: usize = 32;
const LIMITS: Limits = Limits {
    head_bytes: 16 << 10,
    head_fields: 64,
    head_time: Duration::from_secs(75),
    // An open page reconnects then.
    connection_time: Some(Duration::from_secs(3600)),
};
/// The field that changes require, with any value. A page of another origin cannot set it: the
/// browser sends a preflight request first, which is refused.
const CHANGES: &str = "x-edge-gateway-admin";

/// Answers on `address` forever.
pub(super) async fn serve(address: SocketAddr, asks: Asks, admin: Admin) {
    let listener = local_http::listen(address, "dashboard and admin API", "/").await;
    let answers = |stream| {
        let (asks, admin) = (asks.clone(), admin.clone());
        local_http::serve(stream, LIMITS, move |request| {
            let (asks, admin) = (asks.clone(), admin.clone());
            async move { guarded(&request, &asks, &admin).await }
        })
    };
    local_http::accept(listener, CONNECTIONS, "admin API", answers).await;
}

async fn guarded<B>(request: &Request<B>, asks: &Asks, admin: &Admin) -> Response<Full<Bytes>> {
    if let Some(error) = stranger(request) {
        return refused(StatusCode::FORBIDDEN, error.into());
    }
    let may_change = match request.headers().contains_key(CHANGES) {
        true => Ok(()),
        false => Err("what changes anything needs the field `x-edge-gateway-admin: 1`"),
    };
    answer(request, may_change, asks, admin).await
}

/// Returns the reason if a request is refused because of its Host or its origin.
fn stranger<B>(request: &Request<B>) -> Option<&'static str> {
    if !local_http::is_own_name(request.headers()) {
        return Some("Host must be a name of this host's loopback: localhost, 127.0.0.1 or [::1]");
    }
    local_http::is_foreign(request.headers())
        .then_some("pages of another origin are not answered; type the address in")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_by_another_name_or_from_another_page_is_told_nothing() {
        // (field, value, is refused)
        let table = [
            ("host", "localhost:19000", false),
            ("host", "evil.example", true),
            ("origin", "http://localhost:19000", false),
            ("origin", "http://localhost:3000", true),
            ("sec-fetch-site", "cross-site", true),
        ];
        for (name, value, want) in table {
            let mut request = Request::new(());
            request.headers_mut().insert("host", "localhost:19000".parse().unwrap());
            request.headers_mut().insert(name, value.parse().unwrap());
            assert_eq!(stranger(&request).is_some(), want, "{name}: {value}");
        }
    }
}
