//! `urlRewrite`.

use http::header::HOST;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderValue, request};

use crate::filters::exchange::path_of;
use crate::filters::{Exchange, PathModifier};

/// Changes what the backend is asked for. HTTPRoute `HTTPURLRewriteFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UrlRewrite {
    /// The `Host` that the backend sees; the client's where `None`.
    pub hostname: Option<HeaderValue>,
    pub path: Option<PathModifier>,
}

impl UrlRewrite {
    pub(crate) fn apply(&self, exchange: &Exchange, head: &mut request::Parts) {
        if let Some(hostname) = &self.hostname {
            head.headers.insert(HOST, hostname.clone());
        }
        let Some(modifier) = &self.path else { return };
        let mut target = modifier.apply(path_of(&head.uri), exchange.matched_prefix);
        if let Some(query) = head.uri.query() {
            target.push('?');
            target.push_str(query);
        }
        // Both parts were valid on their own; should they not be together, the path stays.
        if let Ok(target) = PathAndQuery::try_from(target) {
            head.uri = Uri::from(target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filters::{HostName, Scheme};

    #[test]
    fn host_and_path_change_and_the_query_stays() {
        let rewrite = UrlRewrite {
            hostname: Some(HeaderValue::from_static("one.example.org")),
            path: Some(PathModifier::Prefix("/one".into())),
        };
        let host = HeaderValue::from_static("example.org");
        let exchange = Exchange {
            scheme: Scheme::Http,
            host: HostName::parse(&host).unwrap(),
            port: 80,
            matched_prefix: "/prefix".len(),
            allowed_origin: None,
        };
        let (mut head, ()) =
            http::Request::get("/prefix/one?x=1").header(HOST, host).body(()).unwrap().into_parts();

        rewrite.apply(&exchange, &mut head);

        assert_eq!(head.uri, "/one/one?x=1");
        assert_eq!(head.headers[HOST], "one.example.org");
    }
}
