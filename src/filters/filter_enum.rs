//! The enum of all filters, written from a list.

/// Writes an enum of filters, which is a filter itself.
macro_rules! filter_enum {
    ($(#[$doc:meta])* $visible:vis enum $name:ident { $($variant:ident($filter:ty),)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        $visible enum $name {
            $($variant($filter),)*
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                match self { $(Self::$variant(filter) => filter.fmt(f),)* }
            }
        }

        impl $crate::filters::HttpFilter for $name {
            fn phase(&self) -> $crate::filters::Phase {
                match self { $(Self::$variant(filter) => filter.phase(),)* }
            }

            fn sees_bodies(&self) -> bool {
                match self { $(Self::$variant(filter) => filter.sees_bodies(),)* }
            }

            fn reads_requests(&self) -> bool {
                match self { $(Self::$variant(filter) => filter.reads_requests(),)* }
            }

            fn apply(&self, exchange: &mut $crate::filters::Exchange, head: &mut ::http::request::Parts) -> $crate::filters::Verdict {
                match self { $(Self::$variant(filter) => filter.apply(exchange, head),)* }
            }

            async fn on_request(
                &self,
                exchange: &mut $crate::filters::Exchange,
                head: &mut ::http::request::Parts,
            ) -> $crate::filters::Verdict {
                match self {
                    $(Self::$variant(filter) => filter.on_request(exchange, head).await,)*
                }
            }

            async fn on_request_body(
                &self,
                exchange: &mut $crate::filters::Exchange,
                head: &mut ::http::request::Parts,
                body: &mut $crate::body::Body,
            ) -> $crate::filters::Verdict {
                match self {
                    $(Self::$variant(filter) => filter.on_request_body(exchange, head, body).await,)*
                }
            }

            fn on_response(&self, exchange: &$crate::filters::Exchange, response: &mut $crate::body::Response) {
                match self { $(Self::$variant(filter) => filter.on_response(exchange, response),)* }
            }

            fn on_failure(&self, exchange: &$crate::filters::Exchange, headers: &mut ::http::HeaderMap) {
                match self { $(Self::$variant(filter) => filter.on_failure(exchange, headers),)* }
            }
        }
    };
}

pub(super) use filter_enum;

#[cfg(test)]
mod tests {
    use std::fmt::{self, Display, Formatter};
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use http::{HeaderName, HeaderValue, request};

    use crate::failure::Failure;
    use crate::filters::{
        Exchange, Filter, HeaderModifier, HttpFilter, Phase, RequestHeaders, Stop, Verdict,
        on_request, testing,
    };

    /// A filter that waits for somebody and refuses where nobody has an answer.
    #[derive(Clone, Debug, PartialEq)]
    struct Waits {
        turns: usize,
        refuses: bool,
    }

    impl Display for Waits {
        fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
            f.write_str("wait")
        }
    }

    impl HttpFilter for Waits {
        fn phase(&self) -> Phase {
            Phase::Admit
        }

        async fn on_request(&self, _: &mut Exchange, _: &mut request::Parts) -> Verdict {
            // What a filter keeps while it waits is in the future of the request.
            let question = [0_u8; 256];
            for _ in 0..self.turns {
                tokio::task::yield_now().await;
            }
            std::hint::black_box(&question);
            match self.refuses {
                true => Verdict::Break(Stop::Refuse(Failure::Overloaded)),
                false => Verdict::Continue(()),
            }
        }
    }

    filter_enum! {
        enum WithWaits { Headers(RequestHeaders), Waits(Waits), }
    }

    fn headers() -> RequestHeaders {
        let pair = (HeaderName::from_static("x-passed"), HeaderValue::from_static("1"));
        RequestHeaders(HeaderModifier { add: [pair].into(), ..HeaderModifier::default() })
    }

    /// Runs `filters` to their end. Returns the verdict, the polls that it took, how often the request
    /// passed the header filter, and the size of the future.
    fn run<F: HttpFilter>(filters: &[F]) -> (Verdict, usize, usize, usize) {
        let (mut exchange, mut head) = (testing::exchange("shop.test"), testing::head("/"));
        let mut polls = 0;
        let (verdict, size) = {
            let mut running = pin!(on_request(filters, &mut exchange, &mut head));
            loop {
                polls += 1;
                let polled = running.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                if let Poll::Ready(verdict) = polled {
                    break (verdict, size_of_val(&*running));
                }
            }
        };
        (verdict, polls, head.headers.get_all("x-passed").iter().count(), size)
    }

    #[tokio::test]
    async fn a_filter_may_wait_and_the_others_do_not() {
        let waits = |turns, refuses| WithWaits::Waits(Waits { turns, refuses });
        let header = WithWaits::Headers(headers());
        let at_once = [Filter::RequestHeaders(headers()), Filter::RequestHeaders(headers())];
        let (verdict, polls, passed, size) = run(&at_once);
        assert_eq!((verdict.is_continue(), polls, passed), (true, 1, 2));
        assert!(size <= 256, "{size} bytes in the future of each request");

        let (verdict, polls, passed, _) = run(&[header.clone(), waits(3, false), header.clone()]);
        assert_eq!((verdict.is_continue(), polls, passed), (true, 4, 2));

        let (verdict, polls, passed, _) = run(&[header.clone(), waits(1, true), header]);
        assert!(matches!(verdict, Verdict::Break(Stop::Refuse(_))), "{verdict:?}");
        assert_eq!((polls, passed), (2, 1), "what is behind the refusal does not run");
    }
}
