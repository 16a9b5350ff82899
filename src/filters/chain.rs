//! A request on its way through its filters, and its response on the way back.

use http::{HeaderMap, request};

use crate::body::{Body, Response};
use crate::filters::{Exchange, HttpFilter, Verdict};

/// Runs `filters` on a request, one after the other, until one of them stops it.
///
/// The filters of the rule run first, then those of the backend that was chosen; the exchange counts
/// those that the request has passed.
pub(crate) async fn on_request<F: HttpFilter>(
    filters: &[F],
    exchange: &mut Exchange,
    head: &mut request::Parts,
) -> Verdict {
    for filter in filters {
        filter.on_request(exchange, head).await?;
        exchange.passed += 1;
    }
    Verdict::Continue(())
}

/// Runs `filters` on the body of a request, until one of them stops it.
pub(crate) async fn on_request_body<F: HttpFilter>(
    filters: &[F],
    exchange: &mut Exchange,
    head: &mut request::Parts,
    body: &mut Body,
) -> Verdict {
    for filter in filters {
        filter.on_request_body(exchange, head, body).await?;
    }
    Verdict::Continue(())
}

/// Runs the filters that the request has passed on its response, the last one first.
pub(crate) fn on_response<F: HttpFilter>(
    of_rule: &[F],
    of_backend: &[F],
    exchange: &Exchange,
    response: &mut Response,
) {
    for filter in passed(of_rule, of_backend, exchange) {
        filter.on_response(exchange, response);
    }
}

/// The fields that the response to a failure has, whatever fails from here on.
pub(crate) fn on_failure<F: HttpFilter>(
    of_rule: &[F],
    exchange: &Exchange,
    headers: &mut HeaderMap,
) {
    for filter in passed(of_rule, &[], exchange) {
        filter.on_failure(exchange, headers);
    }
}

/// The fields that the response to a refusal by a filter of the rule has: those of the filters that
/// the request has passed, and of the one that refuses.
pub(crate) fn on_refusal<F: HttpFilter>(
    of_rule: &[F],
    exchange: &Exchange,
    headers: &mut HeaderMap,
) {
    for filter in of_rule.iter().take(exchange.passed + 1).rev() {
        filter.on_failure(exchange, headers);
    }
}

fn passed<'f, F>(
    of_rule: &'f [F],
    of_backend: &'f [F],
    exchange: &Exchange,
) -> impl Iterator<Item = &'f F> {
    let of_backend = of_backend.iter().take(exchange.passed.saturating_sub(of_rule.len())).rev();
    of_backend.chain(of_rule.iter().take(exchange.passed).rev())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, StatusCode};

    use super::*;
    use crate::filters::{
        Broken, Cors, Filter, HeaderModifier, Redirect, ResponseHeaders, Stop, cors, testing,
    };

    /// A filter that says in the response that it has seen it.
    fn sees(name: &'static str) -> Filter {
        let pair = (HeaderName::from_static("x-seen"), HeaderValue::from_static(name));
        Filter::ResponseHeaders(ResponseHeaders(HeaderModifier {
            add: [pair].into(),
            ..HeaderModifier::default()
        }))
    }

    fn redirect() -> Filter {
        Filter::Redirect(Redirect {
            hostname: None,
            path: None,
            port: None,
            scheme: None,
            status: StatusCode::FOUND,
        })
    }

    #[tokio::test]
    async fn a_response_sees_the_filters_that_its_request_has_passed_in_reverse() {
        type Row = (Vec<Filter>, Vec<Filter>, &'static [&'static str], bool);
        // (of the rule, of the backend, who sees the response, whether a backend is asked)
        let table: [Row; 4] = [
            (vec![sees("a"), sees("b")], vec![sees("c"), sees("d")], &["d", "c", "b", "a"], true),
            (vec![sees("a"), redirect(), sees("b")], vec![sees("c")], &["a"], false),
            (vec![sees("a"), sees("b")], vec![sees("c"), redirect()], &["c", "b", "a"], false),
            (vec![redirect(), sees("a")], vec![], &[], false),
        ];
        for (of_rule, of_backend, want, goes_on) in table {
            let (mut exchange, mut head) = (testing::exchange("shop.test"), testing::head("/"));
            let mut verdict = on_request(&of_rule, &mut exchange, &mut head).await;
            if verdict.is_continue() {
                verdict = on_request(&of_backend, &mut exchange, &mut head).await;
            }
            assert_eq!(verdict.is_continue(), goes_on, "{of_rule:?} {of_backend:?}");
            let mut response = Response::default();
            on_response(&of_rule, &of_backend, &exchange, &mut response);
            let seen: Vec<_> = response.headers().get_all("x-seen").iter().collect();
            assert_eq!(seen, want, "{of_rule:?} {of_backend:?}");
        }
    }

    #[tokio::test]
    async fn a_refusal_is_a_failure_that_pages_of_other_origins_may_read() {
        let cors = Filter::Cors(Cors {
            origins: [cors::OriginPattern::Any].into(),
            credentials: false,
            methods: cors::AllowList::Nothing,
            headers: cors::AllowList::Nothing,
            expose: cors::AllowList::Nothing,
            max_age: None,
        });
        let filters = [cors, Filter::Broken(Broken)];
        let (mut exchange, mut head) = (testing::exchange("shop.test"), testing::head("/"));
        head.headers.insert("origin", HeaderValue::from_static("https://page.test"));
        let verdict = on_request(&filters, &mut exchange, &mut head).await;
        let Verdict::Break(Stop::Refuse(failure)) = verdict else { panic!("{verdict:?}") };
        assert_eq!((failure.status().as_u16(), failure.details()), (500, "filter_invalid"));
        let mut headers = HeaderMap::new();
        on_refusal(&filters, &exchange, &mut headers);
        assert_eq!(headers["access-control-allow-origin"], "*");
    }
}
