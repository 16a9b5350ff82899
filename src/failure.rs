//! Failures of exchanges, with the status, flag and details of each.

use http::{HeaderValue, StatusCode};

use crate::path::Ambiguous;
use crate::stats::ResponseFlag;
use crate::tls::TlsCause;
use crate::upstream::{BreakerLimit, FailureKind};

/// The reason why an exchange failed. The status that the client gets follows from it.
///
/// This file is the only place that maps a cause to a status and to the log's `flags` and
/// `details`; no handler chooses a status itself. Only a filter brings its own, in a [`Denial`].
/// Flags and details are Envoy's, so that dashboards and habits carry over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    // The client's request cannot be served.
    AmbiguousPath(Ambiguous),
    BadHost,
    BadTarget,
    CodingUnknown,
    ExpectationUnknown,
    HeadMalformed,
    HeadTooLarge,
    MethodNotServed,
    MethodTooLong,
    MisdirectedRequest,
    RequestBodyBroken,
    /// The request was not complete by its deadline.
    RequestBodyLate,
    RequestBodyStalled,
    TargetTooLong,
    TooManyFields,
    TwofoldLength,
    /// A field has `_` in its name, and the listener refuses such.
    UnderscoreInName,
    // The configuration has no usable route or backend for the request.
    BackendInvalid,
    /// A filter of the rule refuses the request.
    Denied(&'static Denial),
    NoBackend,
    NoRoute,
    // The backend did not respond.
    ConnectFailed,
    ConnectTimeout,
    NoEndpoint,
    NoUpgrade,
    RequestTimeout,
    ResponseInvalid,
    /// No byte moved in either direction for the idle timeout of the rule.
    StreamIdle,
    /// The exchange reached the maximum duration of the rule.
    StreamTooLong,
    /// The same while the request was still arriving.
    StreamTooLongArriving,
    /// The backend accepted the connection, but the TLS handshake with it failed.
    Tls(TlsCause),
    UpstreamReset,
    /// The last of several attempts was reset too.
    UpstreamResetAgain,
    UpstreamTimeout,
    // No client is left to respond to, or no response is possible.
    ClientGone,
    /// The process ended before the exchange did.
    DrainTimeout,
    /// No byte moved in a tunnel or flow for its idle timeout.
    TunnelIdle,
    // A limit was reached.
    /// The client's requests use the maximum number of upstream connections per client.
    ClientShare,
    NoDescriptor,
    /// The backend has reached a limit of its circuit breaker.
    Overflow(BreakerLimit),
    /// Memory is short.
    Overloaded,
}

/// What the client and the log are told if a filter refuses a request. Each filter that refuses
/// requests has one, so that a new filter changes nothing here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    pub status: StatusCode,
    /// Envoy's response flag; `None` if Envoy sets none.
    pub flag: Option<ResponseFlag>,
    /// Envoy's response code details, or the gateway's own if Envoy has none.
    pub details: &'static str,
    /// The response body; a gRPC client gets it as `grpc-message`.
    pub text: &'static str,
    /// The gRPC status, if it does not follow from `status`.
    pub grpc_status: Option<&'static str>,
}

impl Failure {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::AmbiguousPath(_)
            | Self::BadHost
            | Self::BadTarget
            | Self::HeadMalformed
            | Self::RequestBodyBroken
            | Self::TwofoldLength
            | Self::UnderscoreInName => StatusCode::BAD_REQUEST,
            Self::CodingUnknown | Self::MethodTooLong | Self::NoUpgrade => {
                StatusCode::NOT_IMPLEMENTED
            }
            Self::ExpectationUnknown => StatusCode::EXPECTATION_FAILED,
            Self::MethodNotServed => StatusCode::METHOD_NOT_ALLOWED,
            Self::MisdirectedRequest => StatusCode::MISDIRECTED_REQUEST,
            Self::RequestBodyLate | Self::RequestBodyStalled | Self::StreamTooLongArriving => {
                StatusCode::REQUEST_TIMEOUT
            }
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BackendInvalid | Self::NoBackend => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Denied(denial) => denial.status,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::ClientShare
            | Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::NoDescriptor
            | Self::NoEndpoint
            | Self::Overflow(_)
            | Self::Overloaded
            | Self::Tls(_)
            | Self::UpstreamResetAgain => StatusCode::SERVICE_UNAVAILABLE,
            Self::ResponseInvalid | Self::UpstreamReset => StatusCode::BAD_GATEWAY,
            Self::RequestTimeout
            | Self::StreamIdle
            | Self::StreamTooLong
            | Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            // No response is received. The log has the status that was sent, or 0, as in Envoy.
            Self::ClientGone | Self::DrainTimeout | Self::TunnelIdle => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// Returns Envoy's response flag; `None` if Envoy sets none.
    pub(crate) fn flag(self) -> Option<ResponseFlag> {
        Some(match self {
            Self::Denied(denial) => return denial.flag,
            Self::RequestBodyLate => return None,
            Self::AmbiguousPath(_)
            | Self::BadHost
            | Self::BadTarget
            | Self::CodingUnknown
            | Self::ExpectationUnknown
            | Self::HeadMalformed
            | Self::HeadTooLarge
            | Self::MethodNotServed
            | Self::MethodTooLong
            | Self::RequestBodyBroken
            | Self::TargetTooLong
            | Self::TooManyFields
            | Self::TwofoldLength
            | Self::UnderscoreInName => ResponseFlag::DownstreamProtocolError,
            Self::MisdirectedRequest | Self::NoRoute => ResponseFlag::NoRouteFound,
            Self::BackendInvalid | Self::NoBackend => ResponseFlag::NoClusterFound,
            Self::ConnectFailed | Self::ConnectTimeout | Self::Tls(_) => {
                ResponseFlag::UpstreamConnectionFailure
            }
            Self::NoEndpoint => ResponseFlag::NoHealthyUpstream,
            Self::NoUpgrade | Self::ResponseInvalid => ResponseFlag::UpstreamProtocolError,
            Self::UpstreamReset | Self::UpstreamResetAgain => {
                ResponseFlag::UpstreamConnectionTermination
            }
            Self::RequestTimeout | Self::UpstreamTimeout => ResponseFlag::UpstreamRequestTimeout,
            Self::RequestBodyStalled | Self::StreamIdle | Self::TunnelIdle => {
                ResponseFlag::StreamIdleTimeout
            }
            Self::StreamTooLong | Self::StreamTooLongArriving => {
                ResponseFlag::UpstreamMaxStreamDurationReached
            }
            Self::ClientGone => ResponseFlag::DownstreamConnectionTermination,
            Self::DrainTimeout => ResponseFlag::DurationTimeout,
            Self::ClientShare | Self::NoDescriptor | Self::Overloaded => {
                ResponseFlag::OverloadManagerTerminated
            }
            Self::Overflow(_) => ResponseFlag::UpstreamOverflow,
        })
    }

    /// Returns Envoy's response code details, or the gateway's own if Envoy has none.
    pub(crate) fn details(self) -> &'static str {
        match self {
            Self::AmbiguousPath(_) => "path_normalization_failed",
            Self::BadHost => "invalid_host",
            Self::BadTarget => "invalid_target",
            Self::CodingUnknown => "unknown_transfer_coding",
            Self::ExpectationUnknown => "unknown_expectation",
            Self::HeadMalformed => "http1.codec_error",
            Self::HeadTooLarge => "headers_too_large",
            Self::MethodNotServed => "method_not_served",
            Self::MethodTooLong => "method_too_long",
            Self::MisdirectedRequest => "misdirected_request",
            Self::RequestBodyBroken => "request_body_broken",
            Self::RequestBodyLate => "request_overall_timeout",
            Self::RequestBodyStalled => "stream_idle_timeout",
            Self::TargetTooLong => "target_too_long",
            Self::TooManyFields => "too_many_headers",
            Self::TwofoldLength => "length_and_transfer_encoding",
            Self::UnderscoreInName => "http1.unexpected_underscore",
            Self::BackendInvalid => "backend_ref_invalid",
            Self::Denied(denial) => denial.details,
            Self::NoBackend => "no_backend_ref",
            Self::NoRoute => "route_not_found",
            Self::ConnectFailed => "upstream_reset_before_response_started{connection_failure}",
            Self::ConnectTimeout => "upstream_reset_before_response_started{connection_timeout}",
            Self::NoEndpoint => "no_healthy_upstream",
            Self::NoUpgrade => "upgrade_over_http2_upstream",
            Self::RequestTimeout => "request_overall_timeout",
            Self::ResponseInvalid => "upstream_reset_before_response_started{protocol_error}",
            Self::StreamIdle => "stream_idle_timeout",
            Self::StreamTooLong | Self::StreamTooLongArriving => {
                "upstream_max_stream_duration_reached"
            }
            Self::Tls(cause) => tls_details(cause),
            Self::UpstreamReset | Self::UpstreamResetAgain => {
                "upstream_reset_before_response_started{connection_termination}"
            }
            Self::UpstreamTimeout => "upstream_response_timeout",
            Self::ClientGone => "downstream_remote_disconnect",
            Self::DrainTimeout => "drain_timeout",
            Self::ClientShare => "overload{client_share}",
            Self::NoDescriptor => "overload{descriptors}",
            Self::Overflow(limit) => overflow_details(limit),
            Self::Overloaded => "overload",
            Self::TunnelIdle => "stream_idle_timeout",
        }
    }

    /// Returns the response body: a line of plain text that reveals nothing of the configuration.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::AmbiguousPath(_) => "the path is ambiguous\n",
            Self::BadHost => "the host is missing or malformed\n",
            Self::BadTarget => "the request target is malformed\n",
            Self::CodingUnknown => "this transfer coding is not understood here\n",
            Self::ExpectationUnknown => "the expectation cannot be met\n",
            Self::HeadMalformed => "the request is malformed\n",
            Self::HeadTooLarge => "the request head is too large\n",
            Self::MethodNotServed => "this method is not served here\n",
            Self::MethodTooLong => "the method is too long\n",
            Self::MisdirectedRequest => "this connection does not serve that host\n",
            Self::RequestBodyBroken => "the request body is malformed\n",
            Self::RequestBodyLate | Self::RequestBodyStalled => {
                "the request body did not come in time\n"
            }
            Self::TargetTooLong => "the request target is too long\n",
            Self::TooManyFields => "too many header fields\n",
            Self::TwofoldLength => "the request says its length twice\n",
            Self::UnderscoreInName => "a header field has `_` in its name\n",
            Self::BackendInvalid | Self::NoBackend => "the route for this request is not usable\n",
            Self::Denied(denial) => denial.text,
            Self::NoRoute => "no route matches this host and path\n",
            Self::ConnectFailed | Self::ConnectTimeout | Self::NoEndpoint | Self::Tls(_) => {
                "the service behind this address is not reachable\n"
            }
            Self::NoUpgrade => "the service behind this address takes no WebSocket\n",
            Self::ResponseInvalid | Self::UpstreamReset | Self::UpstreamResetAgain => {
                "the service behind this address gave no valid answer\n"
            }
            Self::StreamTooLongArriving => "the request did not come in time\n",
            Self::RequestTimeout
            | Self::StreamIdle
            | Self::StreamTooLong
            | Self::UpstreamTimeout => "the service behind this address did not answer in time\n",
            Self::ClientGone | Self::DrainTimeout | Self::TunnelIdle => "",
            Self::ClientShare => {
                "too many requests of this address are under way; try again in a moment\n"
            }
            Self::NoDescriptor => "the gateway is short of connections; try again in a moment\n",
            Self::Overflow(_) => "the service behind this address has too much to do\n",
            Self::Overloaded => "the gateway is short of memory; try again in a moment\n",
        }
    }

    /// Returns true if an HTTP/1 connection must be closed. The gateway reads no more from a client
    /// that violated the protocol, because it cannot be certain where the next request begins.
    pub(crate) fn closes(self) -> bool {
        self == Self::RequestBodyLate || self.flag() == Some(ResponseFlag::DownstreamProtocolError)
    }

    /// Returns the value of `Retry-After` in seconds (RFC 9110 section 10.2.3), if known.
    pub(crate) fn retry_after(self) -> Option<HeaderValue> {
        let passes = matches!(self, Self::ClientShare | Self::NoDescriptor | Self::Overloaded);
        passes.then(|| HeaderValue::from_static("1"))
    }

    /// Returns the gRPC status for a gRPC client, which reads no HTTP status
    /// (grpc/doc/statuscodes.md; a broken backend is UNAVAILABLE, as GRPCRoute requires).
    pub(crate) fn grpc_status(self) -> &'static str {
        match self {
            Self::NoRoute
            | Self::MethodNotServed
            | Self::MethodTooLong
            | Self::MisdirectedRequest
            | Self::NoUpgrade => "12",
            Self::RequestBodyLate
            | Self::RequestBodyStalled
            | Self::RequestTimeout
            | Self::StreamIdle
            | Self::StreamTooLong
            | Self::StreamTooLongArriving
            | Self::UpstreamTimeout => "4",
            Self::BackendInvalid
            | Self::NoBackend
            | Self::ClientShare
            | Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::NoDescriptor
            | Self::NoEndpoint
            | Self::Overflow(_)
            | Self::Overloaded
            | Self::ResponseInvalid
            | Self::Tls(_)
            | Self::UpstreamReset
            | Self::UpstreamResetAgain => "14",
            Self::Denied(denial) => {
                denial.grpc_status.unwrap_or_else(|| grpc_status(denial.status))
            }
            Self::ClientGone | Self::DrainTimeout | Self::TunnelIdle => "1",
            Self::AmbiguousPath(_)
            | Self::BadHost
            | Self::BadTarget
            | Self::CodingUnknown
            | Self::ExpectationUnknown
            | Self::HeadMalformed
            | Self::HeadTooLarge
            | Self::RequestBodyBroken
            | Self::TargetTooLong
            | Self::TooManyFields
            | Self::TwofoldLength
            | Self::UnderscoreInName => "13",
        }
    }
}

/// Returns the gRPC status for a status of HTTP (grpc/doc/http-grpc-status-mapping.md).
pub(crate) fn grpc_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        429 | 502..=504 => "14",
        _ => "2",
    }
}

/// Maps the failure of a backend that gave no connection or no response head.
impl From<FailureKind> for Failure {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::ClientShare => Self::ClientShare,
            FailureKind::ConnectRefused => Self::ConnectFailed,
            FailureKind::ConnectTimeout => Self::ConnectTimeout,
            FailureKind::InvalidRequest(_) => Self::BadTarget,
            FailureKind::InvalidResponse(_) => Self::ResponseInvalid,
            FailureKind::NoDescriptor => Self::NoDescriptor,
            FailureKind::NoEndpoint | FailureKind::Unresolved => Self::NoEndpoint,
            FailureKind::NoUpgrade => Self::NoUpgrade,
            FailureKind::Overflow(limit) => Self::Overflow(limit),
            FailureKind::RequestBody => Self::RequestBodyBroken,
            FailureKind::ResetBeforeHead => Self::UpstreamReset,
            FailureKind::Tls(cause) => Self::Tls(cause),
        }
    }
}

/// Returns Envoy's details, and the limit by its name in a BackendTrafficPolicy.
fn overflow_details(limit: BreakerLimit) -> &'static str {
    match limit {
        BreakerLimit::Connections => {
            "upstream_reset_before_response_started{overflow|maxConnections}"
        }
        BreakerLimit::ParallelRequests => {
            "upstream_reset_before_response_started{overflow|maxParallelRequests}"
        }
        BreakerLimit::PendingRequests => {
            "upstream_reset_before_response_started{overflow|maxPendingRequests}"
        }
    }
}

/// Returns Envoy's details up to `TLS_error:`. The text after it is BoringSSL's in Envoy, and the
/// gateway's own here.
fn tls_details(cause: TlsCause) -> &'static str {
    match cause {
        TlsCause::CertificateDated => {
            "upstream_reset_before_response_started{connection_failure|TLS_error:certificate_expired}"
        }
        TlsCause::CertificateInvalid => {
            "upstream_reset_before_response_started{connection_failure|TLS_error:certificate_invalid}"
        }
        TlsCause::CertificateName => {
            "upstream_reset_before_response_started{connection_failure|TLS_error:certificate_for_another_name}"
        }
        TlsCause::CertificateUnknown => {
            "upstream_reset_before_response_started{connection_failure|TLS_error:certificate_of_unknown_issuer}"
        }
        TlsCause::Closed => {
            "upstream_reset_before_response_started{connection_failure|TLS_error:connection_closed}"
        }
        TlsCause::NoProtocol => {
            "upstream_reset_before_response_started{connection_failure|TLS_error:no_application_protocol}"
        }
        TlsCause::Protocol => {
            "upstream_reset_before_response_started{connection_failure|TLS_error:not_tls}"
        }
        TlsCause::Refused => {
            "upstream_reset_before_response_started{connection_failure|TLS_error:refused_by_backend}"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filters::fault_injection::http_abort;
    use crate::filters::{Authorization, Broken, Csrf, RateLimit, RequestBuffer, Upgrades};
    use crate::stats::{Downstream, ResponseFlags};

    /// One of the refusals on purpose.
    fn abort() -> &'static Denial {
        http_abort(503).unwrap()
    }

    /// Every failure. Each names the next, so that the compiler reports a new one that is missing
    /// here.
    fn all() -> Vec<Failure> {
        use Failure as F;
        let next = |failure| {
            Some(match failure {
                F::AmbiguousPath(_) => F::BadHost,
                F::BadHost => F::BadTarget,
                F::BadTarget => F::CodingUnknown,
                F::CodingUnknown => F::ExpectationUnknown,
                F::ExpectationUnknown => F::HeadMalformed,
                F::HeadMalformed => F::HeadTooLarge,
                F::HeadTooLarge => F::MethodNotServed,
                F::MethodNotServed => F::MethodTooLong,
                F::MethodTooLong => F::MisdirectedRequest,
                F::MisdirectedRequest => F::RequestBodyBroken,
                F::RequestBodyBroken => F::RequestBodyLate,
                F::RequestBodyLate => F::RequestBodyStalled,
                F::RequestBodyStalled => F::TargetTooLong,
                F::TargetTooLong => F::TooManyFields,
                F::TooManyFields => F::TwofoldLength,
                F::TwofoldLength => F::UnderscoreInName,
                F::UnderscoreInName => F::BackendInvalid,
                F::BackendInvalid => F::Denied(Broken::DENIAL),
                F::Denied(denial) if denial == Broken::DENIAL => F::Denied(Authorization::DENIAL),
                F::Denied(denial) if denial == Authorization::DENIAL => F::Denied(Csrf::DENIAL),
                F::Denied(denial) if denial == Csrf::DENIAL => F::Denied(RateLimit::DENIAL),
                F::Denied(denial) if denial == RateLimit::DENIAL => {
                    F::Denied(RequestBuffer::DENIAL)
                }
                F::Denied(denial) if denial == RequestBuffer::DENIAL => F::Denied(Upgrades::DENIAL),
                F::Denied(denial) if denial == Upgrades::DENIAL => F::Denied(abort()),
                F::Denied(_) => F::NoBackend,
                F::NoBackend => F::NoRoute,
                F::NoRoute => F::ConnectFailed,
                F::ConnectFailed => F::ConnectTimeout,
                F::ConnectTimeout => F::NoEndpoint,
                F::NoEndpoint => F::NoUpgrade,
                F::NoUpgrade => F::RequestTimeout,
                F::RequestTimeout => F::ResponseInvalid,
                F::ResponseInvalid => F::StreamIdle,
                F::StreamIdle => F::StreamTooLong,
                F::StreamTooLong => F::StreamTooLongArriving,
                F::StreamTooLongArriving => F::Tls(TlsCause::Closed),
                F::Tls(_) => F::UpstreamReset,
                F::UpstreamReset => F::UpstreamResetAgain,
                F::UpstreamResetAgain => F::UpstreamTimeout,
                F::UpstreamTimeout => F::ClientGone,
                F::ClientGone => F::DrainTimeout,
                F::DrainTimeout => F::TunnelIdle,
                F::TunnelIdle => F::ClientShare,
                F::ClientShare => F::NoDescriptor,
                F::NoDescriptor => F::Overflow(BreakerLimit::Connections),
                F::Overflow(BreakerLimit::Connections) => {
                    F::Overflow(BreakerLimit::PendingRequests)
                }
                F::Overflow(BreakerLimit::PendingRequests) => {
                    F::Overflow(BreakerLimit::ParallelRequests)
                }
                F::Overflow(BreakerLimit::ParallelRequests) => F::Overloaded,
                F::Overloaded => return None,
            })
        };
        std::iter::successors(Some(F::AmbiguousPath(Ambiguous::Backslash)), |now| next(*now))
            .collect()
    }

    #[test]
    fn every_failure_is_counted_under_its_own_flag() {
        for failure in all() {
            let counts = Downstream::default();
            counts.failed(failure.flag().into());
            for flag in ResponseFlag::ALL {
                let want = u64::from(Some(flag) == failure.flag());
                assert_eq!(counts.flag(flag).value(), want, "{failure:?} as {flag:?}");
            }
        }
    }

    #[test]
    fn the_documentation_of_the_metric_has_every_flag() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let text = std::fs::read_to_string(path).unwrap();
        let all = ResponseFlag::ALL.map(|flag| format!("`{}`", flag.short())).join(", ");
        assert!(text.contains(&all), "{all}");
    }

    /// The rows of a table in the documentation as cells, without its head.
    fn documented(heading: &str, columns: &str) -> Vec<Vec<String>> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let text = std::fs::read_to_string(path).unwrap();
        let section = text.split_once(heading).unwrap().1;
        let table = section.split_once(columns).unwrap().1;
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        rows.map(|row| {
            let row = row.replace("\\|", "\0");
            let cells = row.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().trim_matches('`').replace('\0', "|")).collect()
        })
        .collect()
    }

    #[test]
    fn the_documentation_has_every_failure_and_no_other() {
        let columns = "| status | flag | details | the client reads | cause |";
        let rows = documented("\n## Status codes and flags\n", columns);
        assert!(rows.len() > 20, "{rows:?}");
        // A failure without a response has the status that was sent, or 0.
        let status = |failure: Failure| match failure.text() {
            "" => 0,
            _ => failure.status().as_u16(),
        };
        let is_of = |row: &[String], failure: Failure| {
            let flag = row[1].split(',').next().unwrap();
            let details = match failure {
                Failure::Tls(_) => row[2].contains("|TLS_error:"),
                _ => row[2] == failure.details(),
            };
            let flags = ResponseFlags::from(failure.flag());
            row[0] == status(failure).to_string() && flag == flags.short() && details
        };
        for failure in all() {
            let row = rows.iter().find(|row| is_of(row, failure));
            let row = row.unwrap_or_else(|| panic!("{failure:?} is not documented"));
            let reads = row[3].as_str();
            assert!(reads == "(nothing)" || reads == failure.text().trim_end(), "{row:?}");
        }
        for row in &rows {
            assert!(all().into_iter().any(|failure| is_of(row, failure)), "no failure is {row:?}");
        }
    }
}
