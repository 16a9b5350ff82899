//! Rate limits of this host.

mod bucket;
mod selector;
mod table;

use std::fmt::{self, Display, Formatter};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request};

use crate::body::Response;
use crate::failure::{Denial, Failure};
use crate::filters::exchange::LimitShown;
use crate::filters::{Exchange, HttpFilter, Phase, Stop, Verdict};
use crate::stats::{RateLimits, ResponseFlag, Sharded};

use bucket::{Level, TokenBucket};
use table::{BucketTable, Place};

pub(crate) use bucket::Rate;
pub(crate) use selector::Selector;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Refuses requests beyond limits. Envoy Gateway's `rateLimit.local` of a BackendTrafficPolicy.
///
/// A request takes tokens from the bucket of each limit that it meets, the slowest to be refilled
/// first; the first one without tokens refuses it, and those before it stay charged.
#[derive(Clone, Debug)]
pub(crate) struct RateLimit {
    /// The slowest to be refilled first.
    limits: Arc<[Limit]>,
    /// For requests that meet none of `limits`.
    others: Option<Arc<Limit>>,
    counts: Arc<Sharded<RateLimits>>,
}

/// One limit.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    /// A request meets the limit if all of them accept it.
    pub selectors: Box<[Selector]>,
    pub rate: Rate,
    /// The unit as written, for example `Minute`.
    pub unit: Box<str>,
    /// The policy that the limit is written in: `namespace/name`.
    pub policy: Box<str>,
    /// The tokens that a request takes.
    pub cost: u64,
    /// True if a request without tokens is counted and let through.
    pub is_shadow: bool,
    /// True if responses have the `X-RateLimit-*` fields of this limit.
    pub has_headers: bool,
    /// Carried over from snapshot to snapshot.
    pub buckets: Arc<Buckets>,
}

/// The buckets of a limit: one, or one for each value.
#[derive(Debug)]
pub(crate) struct Buckets {
    /// The zero of the buckets' clock.
    begun: Instant,
    kind: BucketsKind,
}

#[derive(Debug)]
enum BucketsKind {
    One(TokenBucket),
    Each(Box<BucketTable>),
}

impl Buckets {
    /// Creates the buckets of a limit with these selectors, all full.
    pub(crate) fn new(selectors: &[Selector], now: Instant) -> Self {
        let kind = match selectors.iter().any(Selector::is_each) {
            false => BucketsKind::One(TokenBucket::default()),
            true => BucketsKind::Each(Box::new(BucketTable::new())),
        };
        Self { begun: now, kind }
    }
}

impl Limit {
    /// Takes the tokens for a request; `None` if the limit does not count it.
    fn take(
        &self,
        exchange: &Exchange,
        head: &request::Parts,
        counts: &RateLimits,
    ) -> Option<Result<Level, Level>> {
        let since = exchange.started.saturating_duration_since(self.buckets.begun);
        let now = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        match &self.buckets.kind {
            BucketsKind::One(bucket) => {
                // No selector of such a limit has values of its own.
                self.accepts(exchange, head, &mut DefaultHasher::new())?;
                Some(bucket.take(self.rate, self.cost, now))
            }
            BucketsKind::Each(table) => {
                let mut key = table.hasher();
                self.accepts(exchange, head, &mut key)?;
                let (taken, place) = table.take(key.finish(), self.rate, self.cost, now);
                match place {
                    Place::Own => {}
                    Place::TakenOver => counts.buckets_reused.one_more(),
                    Place::Shared => counts.buckets_shared.one_more(),
                }
                Some(taken)
            }
        }
    }

    fn accepts(
        &self,
        exchange: &Exchange,
        head: &request::Parts,
        key: &mut impl Hasher,
    ) -> Option<()> {
        let mut selectors = self.selectors.iter();
        selectors.all(|selector| selector.accepts(exchange.client, head, key)).then_some(())
    }

    /// Describes a bucket to the client.
    fn shown(&self, level: Level) -> LimitShown {
        LimitShown {
            limit: self.rate.requests,
            remaining: level.remaining,
            reset: whole_seconds(level.next),
        }
    }
}

impl RateLimit {
    pub(crate) const DENIAL: &'static Denial = &Denial {
        status: StatusCode::TOO_MANY_REQUESTS,
        flag: Some(ResponseFlag::RateLimited),
        details: "local_rate_limited",
        text: "local_rate_limited",
        grpc_status: None,
    };

    /// Creates the filter; `others` is the limit for requests that meet none of `limits`.
    pub(crate) fn new(
        mut limits: Vec<Limit>,
        others: Option<Limit>,
        counts: Arc<Sharded<RateLimits>>,
    ) -> Self {
        // A limit of 0 has no tokens at all, so it is the slowest.
        let speed = |limit: &Limit| (limit.rate.requests != 0, limit.rate.interval());
        limits.sort_by(|one, other| match (speed(one), speed(other)) {
            ((true, one), (true, other)) => other.cmp(&one),
            ((one, _), (other, _)) => one.cmp(&other),
        });
        Self { limits: limits.into(), others: others.map(Arc::new), counts }
    }

    /// Returns the limits that count a request, in words; takes no tokens.
    pub(crate) fn counting(&self, exchange: &Exchange, head: &request::Parts) -> Vec<String> {
        let counts =
            |limit: &&Limit| limit.accepts(exchange, head, &mut DefaultHasher::new()).is_some();
        let mut counting: Vec<_> = self.limits.iter().filter(counts).collect();
        if counting.is_empty() {
            counting.extend(self.others.as_deref());
        }
        counting.into_iter().map(ToString::to_string).collect()
    }

    /// Takes the tokens for a request of every limit that counts it.
    fn charge(&self, exchange: &mut Exchange, head: &request::Parts) -> Verdict {
        let counts = self.counts.here();
        counts.enabled.one_more();
        let (mut met, mut is_short) = (false, false);
        for limit in self.limits.iter() {
            let Some(taken) = limit.take(exchange, head, counts) else { continue };
            met = true;
            is_short |= taken.is_err();
            Self::judge(limit, taken, exchange, counts)?;
        }
        if let Some(limit) = self.others.as_ref().filter(|_| !met)
            && let Some(taken) = limit.take(exchange, head, counts)
        {
            is_short |= taken.is_err();
            Self::judge(limit, taken, exchange, counts)?;
        }
        if !is_short {
            counts.ok.one_more();
        }
        Verdict::Continue(())
    }

    fn judge(
        limit: &Limit,
        taken: Result<Level, Level>,
        exchange: &mut Exchange,
        counts: &RateLimits,
    ) -> Verdict {
        let (Ok(level) | Err(level)) = taken;
        if limit.has_headers && !exchange.hides_limits {
            let shown = limit.shown(level);
            let is_tighter = exchange.limit.is_none_or(|of| shown.remaining < of.remaining);
            if is_tighter || taken.is_err() && !limit.is_shadow {
                exchange.limit = Some(shown);
            }
        }
        if taken.is_ok() {
            return Verdict::Continue(());
        }
        counts.rate_limited.one_more();
        if limit.is_shadow {
            return Verdict::Continue(());
        }
        counts.enforced.one_more();
        exchange.retry_after = level.enough.map(|wait| whole_seconds(wait).max(1));
        Verdict::Break(Stop::Refuse(Failure::Denied(Self::DENIAL)))
    }
}

/// Sets the fields that describe a limit to the client.
fn show(limit: Option<LimitShown>, headers: &mut HeaderMap) {
    let Some(LimitShown { limit, remaining, reset }) = limit else { return };
    for (name, value) in [(LIMIT, limit), (REMAINING, remaining), (RESET, reset)] {
        headers.insert(name, value.into());
    }
}

/// Rounds up to whole seconds.
fn whole_seconds(time: Duration) -> u32 {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

impl PartialEq for RateLimit {
    /// Two filters with the same buckets are the same.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.limits, &other.limits)
    }
}

impl Display for RateLimit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let has_limits = !self.limits.is_empty();
        for (number, limit) in self.limits.iter().enumerate() {
            f.write_str(if number == 0 { "" } else { "\n" })?;
            write!(f, "{limit} for ")?;
            for (number, selector) in limit.selectors.iter().enumerate() {
                write!(f, "{}{selector}", if number == 0 { "" } else { ", " })?;
            }
        }
        let Some(limit) = &self.others else { return Ok(()) };
        match has_limits {
            true => write!(f, "\n{limit} for all other requests"),
            false => write!(f, "{limit}"),
        }
    }
}

impl Display for Limit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let unit = self.unit.to_ascii_lowercase();
        write!(f, "limit {} each {unit}", self.rate.requests)?;
        if self.cost != 1 {
            write!(f, ", a request takes {}", self.cost)?;
        }
        f.write_str(if self.is_shadow { ", only counted" } else { "" })?;
        write!(f, " (BackendTrafficPolicy {})", self.policy)
    }
}

impl HttpFilter for RateLimit {
    fn phase(&self) -> Phase {
        Phase::Limit
    }

    async fn on_request(&self, exchange: &mut Exchange, head: &mut request::Parts) -> Verdict {
        self.charge(exchange, head)
    }

    fn on_response(&self, exchange: &Exchange, response: &mut Response) {
        show(exchange.limit, response.headers_mut());
    }

    fn on_failure(&self, exchange: &Exchange, headers: &mut HeaderMap) {
        show(exchange.limit, headers);
        if let Some(seconds) = exchange.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::filters::{ValueMatch, testing};

    fn limit(requests: u32, seconds: u64, selectors: Vec<Selector>) -> Limit {
        let selectors: Box<[_]> = selectors.into();
        Limit {
            rate: Rate::new(requests, Duration::from_secs(seconds)),
            unit: if seconds == 1 { "Second".into() } else { "Minute".into() },
            policy: "a/b".into(),
            cost: 1,
            is_shadow: false,
            has_headers: true,
            buckets: Arc::new(Buckets::new(&selectors, testing::exchange("a.test").started)),
            selectors,
        }
    }

    fn header(name: &'static str) -> Selector {
        let (name, value) = (HeaderName::from_static(name), ValueMatch::Exact("1".into()));
        Selector::Header { name, value, invert: false }
    }

    fn filter(limits: Vec<Limit>, others: Option<Limit>) -> RateLimit {
        RateLimit::new(limits, others, Arc::default())
    }

    /// Sends a request with these headers; returns whether it passes, and the fields of its response.
    async fn sent(filter: &RateLimit, headers: &[&'static str]) -> (bool, HeaderMap) {
        let (mut exchange, mut head) = (testing::exchange("a.test"), testing::head("/"));
        // Time stands still, so that nothing comes back between two requests.
        let limit = filter.limits.first().or(filter.others.as_deref()).unwrap();
        exchange.started = limit.buckets.begun + Duration::from_secs(100);
        for name in headers {
            head.headers.insert(*name, HeaderValue::from_static("1"));
        }
        let (mut response, mut fields) = (Response::default(), HeaderMap::new());
        match filter.on_request(&mut exchange, &mut head).await {
            Verdict::Continue(()) => {
                filter.on_response(&exchange, &mut response);
                (true, std::mem::take(response.headers_mut()))
            }
            Verdict::Break(Stop::Refuse(failure)) => {
                assert_eq!(
                    (failure.status().as_u16(), failure.text()),
                    (429, "local_rate_limited")
                );
                assert_eq!(
                    (failure.details(), failure.grpc_status()),
                    ("local_rate_limited", "14")
                );
                filter.on_failure(&exchange, &mut fields);
                (false, fields)
            }
            Verdict::Break(Stop::Answer(answer)) => panic!("{answer:?}"),
        }
    }

    async fn passing(filter: &RateLimit, headers: &[&'static str], of: usize) -> usize {
        let mut passed = 0;
        for _ in 0..of {
            passed += usize::from(sent(filter, headers).await.0);
        }
        passed
    }

    #[tokio::test]
    async fn every_limit_that_counts_a_request_must_have_tokens() {
        let filter = || {
            let limits = vec![limit(5, 60, vec![header("x-a")]), limit(3, 60, vec![header("x-b")])];
            filter(limits, Some(limit(2, 60, vec![])))
        };
        // (headers, requests that pass of ten)
        let table: [(&[&'static str], usize); 4] =
            [(&["x-a"], 5), (&["x-b"], 3), (&["x-a", "x-b"], 3), (&[], 2)];
        for (headers, want) in table {
            assert_eq!(passing(&filter(), headers, 10).await, want, "{headers:?}");
        }
        // A request that the slower limit refuses takes nothing of the faster one.
        let both = filter();
        assert_eq!(passing(&both, &["x-a", "x-b"], 10).await, 3);
        assert_eq!(passing(&both, &["x-a"], 10).await, 2);
    }

    #[tokio::test]
    async fn a_shadow_counts_and_refuses_nobody() {
        let shadow = Limit { is_shadow: true, ..limit(2, 60, vec![]) };
        let filter = filter(vec![], Some(shadow));
        assert_eq!(passing(&filter, &[], 5).await, 5);
        let counts = |of: fn(&RateLimits) -> &crate::stats::Counter| filter.counts.sum(of);
        assert_eq!(counts(|of| &of.enabled), 5);
        assert_eq!(counts(|of| &of.ok), 2);
        assert_eq!(counts(|of| &of.rate_limited), 3);
        assert_eq!(counts(|of| &of.enforced), 0);
    }

    #[tokio::test]
    async fn a_response_shows_the_tightest_bucket() {
        let limits = vec![limit(60, 60, vec![header("x-a")]), limit(2, 1, vec![header("x-b")])];
        let filter = filter(limits, None);
        let shown = |fields: &HeaderMap| {
            [LIMIT, REMAINING, RESET, RETRY_AFTER]
                .map(|name| fields.get(name).map(|value| value.to_str().unwrap().to_owned()))
        };
        let fields = |all: [Option<&str>; 4]| all.map(|one| one.map(str::to_owned));
        let headers = &["x-a", "x-b"];
        let (_, first) = sent(&filter, headers).await;
        assert_eq!(shown(&first), fields([Some("2"), Some("1"), Some("0"), None]));
        let (_, second) = sent(&filter, headers).await;
        assert_eq!(shown(&second), fields([Some("2"), Some("0"), Some("1"), None]));
        let (passes, third) = sent(&filter, headers).await;
        assert!(!passes);
        assert_eq!(shown(&third), fields([Some("2"), Some("0"), Some("1"), Some("1")]));
        let (_, other) = sent(&filter, &[]).await;
        assert_eq!(shown(&other), fields([None; 4]), "no limit counts it");
    }

    #[tokio::test]
    async fn headers_may_be_off_and_a_limit_of_zero_never_lets_anybody_try_again() {
        let off = Limit { has_headers: false, ..limit(0, 60, vec![]) };
        let filter = filter(vec![], Some(off));
        let (passes, fields) = sent(&filter, &[]).await;
        assert!(!passes && fields.is_empty(), "{fields:?}");
    }

    #[test]
    fn explaining_a_request_takes_nothing() {
        let filter = filter(vec![limit(1, 1, vec![header("x-a")])], Some(limit(0, 60, vec![])));
        let (mut exchange, mut head) = (testing::exchange("a.test"), testing::head("/"));
        assert!(filter.apply(&mut exchange, &mut head).is_continue());
        let said = filter.counting(&exchange, &head);
        assert_eq!(said, ["limit 0 each minute (BackendTrafficPolicy a/b)"]);
        head.headers.insert("x-a", HeaderValue::from_static("1"));
        let said = filter.counting(&exchange, &head);
        assert_eq!(said, ["limit 1 each second (BackendTrafficPolicy a/b)"]);
    }

    #[test]
    fn the_slowest_limit_is_asked_first() {
        let limits = [(10, 1), (10, 60), (0, 1), (1, 60)];
        let limits =
            limits.map(|(requests, seconds)| limit(requests, seconds, vec![header("x-a")]));
        let filter = filter(limits.into(), None);
        let order: Vec<_> = filter.limits.iter().map(|limit| limit.rate.interval()).collect();
        let millis = [0, 60_000, 6_000, 100].map(Duration::from_millis);
        assert_eq!(order, millis);
        assert!(
            filter
                .to_string()
                .starts_with("limit 0 each second (BackendTrafficPolicy a/b) for header x-a = 1\n")
        );
    }
}
