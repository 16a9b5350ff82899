//! `urlRewrite`.

use std::fmt::{self, Display, Formatter};

use http::header::HOST;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderValue, request};

use crate::filters::exchange::path_of;
use crate::filters::{Exchange, HttpFilter, PathModifier, Phase, Verdict};

/// Changes what the backend is asked for. HTTPRoute `HTTPURLRewriteFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UrlRewrite {
    /// The `Host` that the backend sees; the client's where `None`.
    pub hostname: Option<HeaderValue>,
    pub path: Option<PathModifier>,
}

impl Display for UrlRewrite {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("rewrite")?;
        if let Some(hostname) = &self.hostname {
            write!(f, " host to {}", hostname.to_str().unwrap_or_default())?;
        }
        self.path.iter().try_for_each(|path| write!(f, " {path}"))
    }
}

impl HttpFilter for UrlRewrite {
    fn phase(&self) -> Phase {
        Phase::Rewrite
    }

    fn apply(&self, exchange: &mut Exchange, head: &mut request::Parts) -> Verdict {
        if let Some(hostname) = &self.hostname {
            head.headers.insert(HOST, hostname.clone());
        }
        let Some(modifier) = &self.path else { return Verdict::Continue(()) };
        let mut target = modifier.apply(path_of(&head.uri), exchange.matched_prefix);
        if let Some(query) = head.uri.query() {
            target.push('?');
            target.push_str(query);
        }
        // Both parts were valid on their own; should they not be together, the path stays.
        if let Ok(target) = PathAndQuery::try_from(target) {
            head.uri = Uri::from(target);
        }
        Verdict::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filters::testing;

    #[test]
    fn host_and_path_change_and_the_query_stays() {
        let rewrite = UrlRewrite {
            hostname: Some(HeaderValue::from_static("one.example.org")),
            path: Some(PathModifier::Prefix("/one".into())),
        };
        let host = HeaderValue::from_static("example.org");
        let mut exchange =
            Exchange { matched_prefix: "/prefix".len(), ..testing::exchange("example.org") };
        let (mut head, ()) =
            http::Request::get("/prefix/one?x=1").header(HOST, host).body(()).unwrap().into_parts();

        let verdict = rewrite.apply(&mut exchange, &mut head);

        assert!(verdict.is_continue(), "{verdict:?}");
        assert_eq!(head.uri, "/one/one?x=1");
        assert_eq!(head.headers[HOST], "one.example.org");
    }
}
