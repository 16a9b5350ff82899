//! Cause to status, in one place.

use http::{HeaderValue, StatusCode};

use crate::proxy::path::Ambiguous;
use crate::tls::TlsCause;

/// Why an exchange could not be completed, and so what the client gets.
///
/// One place maps cause to status and to the log's `flags` and `details`; no handler picks a status
/// by hand. Flags and details are Envoy's, so dashboards and habits carry over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    // What the client sent cannot be served.
    AmbiguousPath(Ambiguous),
    BadHost,
    BadTarget,
    CodingUnknown,
    ExpectationUnknown,
    HeadMalformed,
    HeadTooLarge,
    MethodNotServed,
    MisdirectedRequest,
    RequestBodyBroken,
    RequestBodyStalled,
    TargetTooLong,
    TooManyFields,
    TwofoldLength,
    // The configuration has no answer.
    BackendInvalid,
    FilterInvalid,
    NoBackend,
    NoRoute,
    // The backend did not answer.
    ConnectFailed,
    ConnectTimeout,
    NoEndpoint,
    NoUpgrade,
    RequestTimeout,
    ResponseInvalid,
    /// It took the connection, and there was no TLS session on it.
    Tls(TlsCause),
    UpstreamReset,
    /// The last of several tries ended so too.
    UpstreamResetAgain,
    UpstreamTimeout,
    // Nobody is left to answer.
    ClientGone,
    /// The process ends, and did not wait any longer.
    DrainTimeout,
    /// Nothing moved in a tunnel or flow for as long as it may rest.
    TunnelIdle,
    // There is no room.
    Overloaded,
}

impl Failure {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::AmbiguousPath(_)
            | Self::BadHost
            | Self::BadTarget
            | Self::HeadMalformed
            | Self::RequestBodyBroken
            | Self::TwofoldLength => StatusCode::BAD_REQUEST,
            Self::CodingUnknown | Self::NoUpgrade => StatusCode::NOT_IMPLEMENTED,
            Self::ExpectationUnknown => StatusCode::EXPECTATION_FAILED,
            Self::MethodNotServed => StatusCode::METHOD_NOT_ALLOWED,
            Self::MisdirectedRequest => StatusCode::MISDIRECTED_REQUEST,
            Self::RequestBodyStalled => StatusCode::REQUEST_TIMEOUT,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BackendInvalid | Self::FilterInvalid | Self::NoBackend => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::NoEndpoint
            | Self::Overloaded
            | Self::Tls(_)
            | Self::UpstreamResetAgain => StatusCode::SERVICE_UNAVAILABLE,
            Self::ResponseInvalid | Self::UpstreamReset => StatusCode::BAD_GATEWAY,
            Self::RequestTimeout | Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            // Nobody receives it. The log has the status that was sent, or 0, as Envoy's has.
            Self::ClientGone | Self::DrainTimeout | Self::TunnelIdle => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// Envoy's response flag.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::AmbiguousPath(_)
            | Self::BadHost
            | Self::BadTarget
            | Self::CodingUnknown
            | Self::ExpectationUnknown
            | Self::HeadMalformed
            | Self::HeadTooLarge
            | Self::MethodNotServed
            | Self::RequestBodyBroken
            | Self::TargetTooLong
            | Self::TooManyFields
            | Self::TwofoldLength => "DPE",
            Self::MisdirectedRequest | Self::NoRoute => "NR",
            Self::BackendInvalid | Self::NoBackend => "NC",
            Self::FilterInvalid => "LR",
            Self::ConnectFailed | Self::ConnectTimeout | Self::Tls(_) => "UF",
            Self::NoEndpoint => "UH",
            Self::NoUpgrade | Self::ResponseInvalid => "UPE",
            Self::UpstreamReset | Self::UpstreamResetAgain => "UC",
            Self::RequestTimeout | Self::UpstreamTimeout => "UT",
            Self::RequestBodyStalled => "SI",
            Self::ClientGone => "DC",
            Self::DrainTimeout => "DT",
            Self::Overloaded => "OM",
            Self::TunnelIdle => "SI",
        }
    }

    /// Envoy's response code details, or our own where Envoy has none.
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
            Self::MisdirectedRequest => "misdirected_request",
            Self::RequestBodyBroken => "request_body_broken",
            Self::RequestBodyStalled => "stream_idle_timeout",
            Self::TargetTooLong => "target_too_long",
            Self::TooManyFields => "too_many_headers",
            Self::TwofoldLength => "length_and_transfer_encoding",
            Self::BackendInvalid => "backend_ref_invalid",
            Self::FilterInvalid => "filter_invalid",
            Self::NoBackend => "no_backend_ref",
            Self::NoRoute => "route_not_found",
            Self::ConnectFailed => "upstream_reset_before_response_started{connection_failure}",
            Self::ConnectTimeout => "upstream_reset_before_response_started{connection_timeout}",
            Self::NoEndpoint => "no_healthy_upstream",
            Self::NoUpgrade => "upgrade_over_http2_upstream",
            Self::RequestTimeout => "request_overall_timeout",
            Self::ResponseInvalid => "upstream_reset_before_response_started{protocol_error}",
            Self::Tls(cause) => tls_details(cause),
            Self::UpstreamReset | Self::UpstreamResetAgain => {
                "upstream_reset_before_response_started{connection_termination}"
            }
            Self::UpstreamTimeout => "upstream_response_timeout",
            Self::ClientGone => "downstream_remote_disconnect",
            Self::DrainTimeout => "drain_timeout",
            Self::Overloaded => "overload",
            Self::TunnelIdle => "stream_idle_timeout",
        }
    }

    /// What the client reads: a line of plain text that names nothing of the inside.
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
            Self::MisdirectedRequest => "this connection does not serve that host\n",
            Self::RequestBodyBroken => "the request body is malformed\n",
            Self::RequestBodyStalled => "the request body did not come in time\n",
            Self::TargetTooLong => "the request target is too long\n",
            Self::TooManyFields => "too many header fields\n",
            Self::TwofoldLength => "the request says its length twice\n",
            Self::BackendInvalid | Self::FilterInvalid | Self::NoBackend => {
                "the route for this request is not usable\n"
            }
            Self::NoRoute => "no route matches this host and path\n",
            Self::ConnectFailed | Self::ConnectTimeout | Self::NoEndpoint | Self::Tls(_) => {
                "the service behind this address is not reachable\n"
            }
            Self::NoUpgrade => "the service behind this address takes no WebSocket\n",
            Self::ResponseInvalid | Self::UpstreamReset | Self::UpstreamResetAgain => {
                "the service behind this address gave no valid answer\n"
            }
            Self::RequestTimeout | Self::UpstreamTimeout => {
                "the service behind this address did not answer in time\n"
            }
            Self::ClientGone | Self::DrainTimeout | Self::TunnelIdle => "",
            Self::Overloaded => "the gateway is short of memory; try again in a moment\n",
        }
    }

    /// True if an HTTP/1 connection must be closed: whoever sends what no honest client does is
    /// not read on, and no doubt is left about where its next request begins.
    pub(crate) fn closes(self) -> bool {
        self.flag() == "DPE"
    }

    /// When to try again, in seconds (RFC 9110 section 10.2.3), where that is known.
    pub(crate) fn retry_after(self) -> Option<HeaderValue> {
        (self == Self::Overloaded).then(|| HeaderValue::from_static("1"))
    }

    /// The gRPC status for a gRPC client, which reads no HTTP status (grpc/doc/statuscodes.md, with
    /// a broken backend as UNAVAILABLE, as GRPCRoute asks).
    pub(crate) fn grpc_status(self) -> &'static str {
        match self {
            Self::NoRoute | Self::MethodNotServed | Self::MisdirectedRequest | Self::NoUpgrade => {
                "12"
            }
            Self::RequestBodyStalled | Self::RequestTimeout | Self::UpstreamTimeout => "4",
            Self::BackendInvalid
            | Self::NoBackend
            | Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::NoEndpoint
            | Self::Overloaded
            | Self::ResponseInvalid
            | Self::Tls(_)
            | Self::UpstreamReset
            | Self::UpstreamResetAgain => "14",
            Self::FilterInvalid => "2",
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
            | Self::TwofoldLength => "13",
        }
    }
}

/// Envoy's words up to what BoringSSL says; those of rustls are others.
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
