//! Delays and failures on purpose.

use std::fmt::{self, Display, Formatter};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::{StatusCode, request};

use crate::failure::{Denial, Failure};
use crate::filters::{Exchange, HttpFilter, Phase, Stop, Verdict};
use crate::stats::{Faults, ResponseFlag, Sharded};

/// Delays requests, and refuses them. Envoy Gateway's `faultInjection` of a BackendTrafficPolicy.
#[derive(Clone, Debug)]
pub(crate) struct FaultInjection {
    pub delay: Option<(Duration, Share)>,
    pub abort: Option<(&'static Denial, Share)>,
    /// The policy that says so: `namespace/name`.
    pub policy: Box<str>,
    pub counts: Arc<Sharded<Faults>>,
}

/// A share of all requests, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share(u32);

impl Share {
    const WHOLE: u32 = 1_000_000;

    /// Creates a share from a percentage; what is below 0 or above 100 is cut off.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the value is cut to the range first"
    )]
    pub(crate) fn of_percent(percent: f64) -> Self {
        Self((percent.clamp(0.0, 100.0) * 10_000.0).round() as u32)
    }

    /// Returns true if a request is part of the share; `ticket` is a random number below 1,000,000.
    fn takes(self, ticket: u32) -> bool {
        ticket < self.0
    }

    fn draw(self) -> bool {
        self.takes(fastrand::u32(..Self::WHOLE))
    }
}

impl Display for Share {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", f64::from(self.0) / 10_000.0)
    }
}

/// The statuses of HTTP that a request can be refused with.
const STATUSES: std::ops::RangeInclusive<u16> = 200..=600;

/// The refusals: with each status of HTTP, then with each of gRPC.
static ABORTS: LazyLock<Vec<Denial>> = LazyLock::new(|| {
    let abort = |status: u16, grpc_status| {
        let status = StatusCode::from_u16(status).unwrap_or_default();
        let has_text = !matches!(status.as_u16(), 204 | 205 | 304);
        Denial {
            status,
            flag: Some(ResponseFlag::FaultInjected),
            details: "fault_filter_abort",
            text: if has_text { "fault filter abort" } else { "" },
            grpc_status,
        }
    };
    let of_http = STATUSES.map(|status| abort(status, None));
    // grpc/doc/http-grpc-status-mapping.md, backwards, as in Envoy.
    let of_grpc = [
        (200, "0"),
        (499, "1"),
        (500, "2"),
        (400, "3"),
        (504, "4"),
        (404, "5"),
        (409, "6"),
        (403, "7"),
        (429, "8"),
        (400, "9"),
        (409, "10"),
        (400, "11"),
        (501, "12"),
        (500, "13"),
        (503, "14"),
        (500, "15"),
        (401, "16"),
    ];
    of_http.chain(of_grpc.map(|(status, grpc)| abort(status, Some(grpc)))).collect()
});

/// Returns the refusal with a status of HTTP; `None` if it is not in 200 to 600.
pub(crate) fn http_abort(status: i32) -> Option<&'static Denial> {
    let status = u16::try_from(status).ok().filter(|status| STATUSES.contains(status))?;
    ABORTS.get(usize::from(status - STATUSES.start()))
}

/// Returns the refusal with a status of gRPC; `None` if it is not in 0 to 16.
pub(crate) fn grpc_abort(status: i32) -> Option<&'static Denial> {
    ABORTS.get(STATUSES.len() + usize::try_from(status).ok()?)
}

impl PartialEq for FaultInjection {
    fn eq(&self, other: &Self) -> bool {
        (&self.delay, &self.abort, &self.policy) == (&other.delay, &other.abort, &other.policy)
    }
}

impl Display for FaultInjection {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some((delay, share)) = &self.delay {
            write!(
                f,
                "delay {share} of the requests by {delay:?} (BackendTrafficPolicy {})",
                self.policy
            )?;
        }
        if let Some((abort, share)) = &self.abort {
            f.write_str(if self.delay.is_some() { "\n" } else { "" })?;
            match abort.grpc_status {
                Some(status) => {
                    write!(f, "refuse {share} of the requests with gRPC status {status}")?;
                }
                None => write!(f, "refuse {share} of the requests with {}", abort.status.as_u16())?,
            }
            write!(f, " (BackendTrafficPolicy {})", self.policy)?;
        }
        Ok(())
    }
}

impl HttpFilter for FaultInjection {
    fn phase(&self) -> Phase {
        Phase::Inject
    }

    async fn on_request(&self, exchange: &mut Exchange, _: &mut request::Parts) -> Verdict {
        if let Some((delay, _)) = self.delay.filter(|(_, share)| share.draw()) {
            exchange.is_delayed = true;
            let _active = Active::begin(&self.counts);
            // Boxed, so that other requests do not reserve memory for it.
            Box::pin(tokio::time::sleep(delay)).await;
        }
        if let Some((abort, _)) = self.abort.filter(|(_, share)| share.draw()) {
            self.counts.here().aborts.one_more();
            return Verdict::Break(Stop::Refuse(Failure::Denied(abort)));
        }
        Verdict::Continue(())
    }
}

/// A request that is being delayed.
struct Active<'c>(&'c Sharded<Faults>);

impl<'c> Active<'c> {
    fn begin(counts: &'c Sharded<Faults>) -> Self {
        let here = counts.here();
        here.delays.one_more();
        here.active.one_more();
        Self(counts)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.here().active.one_less();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_steps_of_a_millionth() {
        // (percent, requests of a million)
        let table = [
            (0.0, 0),
            (0.0001, 1),
            (0.00004, 0),
            (12.5, 125_000),
            (33.3333, 333_333),
            (100.0, 1_000_000),
            (250.0, 1_000_000),
            (-1.0, 0),
            (f64::NAN, 0),
        ];
        for (percent, want) in table {
            let share = Share::of_percent(percent);
            assert_eq!(share.0, want, "{percent}");
            assert_eq!(share.takes(0), want > 0);
            assert_eq!(share.takes(999_999), want == 1_000_000);
        }
    }

    #[test]
    fn a_refusal_has_the_status_that_is_asked_for() {
        for status in [200, 204, 418, 503, 599, 600] {
            let abort = http_abort(status).unwrap();
            assert_eq!(i32::from(abort.status.as_u16()), status);
            assert_eq!(abort.grpc_status, None);
        }
        for status in 0..=16 {
            assert_eq!(grpc_abort(status).unwrap().grpc_status, Some(&*status.to_string()));
        }
        assert_eq!(grpc_abort(14).unwrap().status, StatusCode::SERVICE_UNAVAILABLE);
        for (of, status) in [
            (http_abort as fn(i32) -> _, 199),
            (http_abort, 601),
            (grpc_abort, 17),
            (grpc_abort, -1),
        ] {
            assert_eq!(of(status), None);
        }
    }
}
