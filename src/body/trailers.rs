//! Filter for trailers.

use http::{HeaderMap, HeaderName};

/// Removes the trailer fields that must not follow a body (RFC 9110 section 6.5.1): those that
/// frame or route a message, authenticate or identify its sender, determine the processing of its
/// content, or belong to one connection. Returns `None` if no field is left.
pub(crate) fn settle_trailers(mut trailers: HeaderMap) -> Option<HeaderMap> {
    let refused: Vec<HeaderName> =
        trailers.keys().filter(|name| !may_be_trailer(name)).cloned().collect();
    for name in refused {
        trailers.remove(name);
    }
    (!trailers.is_empty()).then_some(trailers)
}

fn may_be_trailer(name: &HeaderName) -> bool {
    const NEVER: [&str; 39] = [
        "age",
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expect",
        "expires",
        "forwarded",
        "host",
        "http2-settings",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "location",
        "max-forwards",
        "pragma",
        "proxy",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "retry-after",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
        "www-authenticate",
        "x-real-ip",
        "x-request-id",
    ];
    let name = name.as_str();
    // A name with `_` may alias another name at a CGI backend.
    NEVER.binary_search(&name).is_err() && !name.starts_with("x-forwarded-") && !name.contains('_')
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn trailers_pass_but_those_that_frame_route_name_or_belong_to_a_connection() {
        // (name, passes)
        let table = [
            ("content-md5", true),
            ("digest", true),
            ("grpc-message", true),
            ("grpc-status", true),
            ("server-timing", true),
            ("x-sum", true),
            ("age", false),
            ("authorization", false),
            ("connection", false),
            ("content-length", false),
            ("content-type", false),
            ("cookie", false),
            ("forwarded", false),
            ("host", false),
            ("http2-settings", false),
            ("keep-alive", false),
            ("proxy-connection", false),
            ("set-cookie", false),
            ("te", false),
            ("trailer", false),
            ("transfer-encoding", false),
            ("upgrade", false),
            ("x-forwarded-for", false),
            ("x-real-ip", false),
            ("x-request-id", false),
            ("content_length", false),
            ("x_sum", false),
        ];
        for (name, passes) in table {
            let map = HeaderMap::from_iter([(
                HeaderName::from_static(name),
                HeaderValue::from_static("1"),
            )]);
            assert_eq!(settle_trailers(map).is_some(), passes, "{name}");
        }
    }
}
