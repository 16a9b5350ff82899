//! Settings of listeners from ClientTrafficPolicies.
//!
//! The defaults are those of the command line; what a policy says takes precedence. To serve another
//! field: a limit or timeout goes to `snapshot::ClientLimits` by [`limits`], any other setting to
//! `snapshot::ClientPolicy`.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::api::envoy::backend_settings::Http2Settings;
use crate::api::envoy::client_traffic_policy::{
    ClientIpDetection, EscapedSlashes as EscapedSlashesAction, HeaderSettings, RequestIdAction,
    UnderscoresAction, XForwardedFor,
};
use crate::api::envoy::{ClientTrafficPolicySpec, Quantity};
use crate::api::{self, Protocol};
use crate::graph::{ClientEffect, ClientPolicies, Listener};
use crate::snapshot::{
    AddressSource, ClientDetection, ClientLimits, ClientPolicy, EscapedSlashes, RequestIds, Rule,
    Underscores,
};

use super::routes::refusing;
use super::{client_connections, field_changes};

/// The value of a timeout that is turned off.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The settings of one listener.
#[derive(Debug)]
pub(super) struct ListenerSettings {
    pub limits: Arc<ClientLimits>,
    /// The policy that applies; `None` if none does or if it cannot be applied.
    pub policy: Option<Arc<ClientPolicy>>,
    /// True if the policy of the listener cannot be applied: HTTP requests are answered with 500,
    /// other connections are closed.
    pub closed: bool,
}

impl ListenerSettings {
    /// Returns the settings of a listener, with `defaults` for limits that its policy does not set.
    pub(super) fn of(
        policies: &ClientPolicies<'_>,
        listener: &Listener<'_>,
        defaults: &Arc<ClientLimits>,
    ) -> Self {
        let mut settings = Self { limits: Arc::clone(defaults), policy: None, closed: false };
        // No field of the kind is about datagrams.
        if listener.spec.protocol == Protocol::Udp {
            return settings;
        }
        match policies.on_listener(listener) {
            None => {}
            Some(ClientEffect::Refused) => settings.closed = true,
            Some(ClientEffect::Policy(applied)) => {
                let metadata = applied.metadata();
                let name = format!("{}/{}", metadata.namespace(), metadata.name).into();
                settings.policy = Some(Arc::new(policy(name, applied.spec)));
                let limits = limits(defaults, applied.spec, &listener.spec.protocol);
                if limits != **defaults {
                    settings.limits = Arc::new(limits);
                }
            }
        }
        settings
    }
}

/// Returns the settings of a policy, other than limits.
fn policy(name: Arc<str>, spec: &ClientTrafficPolicySpec) -> ClientPolicy {
    let headers = spec.headers.clone().unwrap_or_default();
    let paths = spec.path.clone().unwrap_or_default();
    let early = headers.early_request_headers.as_ref();
    let late = headers.late_response_headers.as_ref();
    ClientPolicy {
        name,
        proxy_header: client_connections::proxy_header(spec),
        connections: client_connections::bound(spec),
        keep_alive: client_connections::keep_alive(spec),
        detection: spec.client_ip_detection.as_ref().map(detection),
        request_ids: request_ids(&headers),
        underscores: match headers.with_underscores_action {
            Some(UnderscoresAction::Allow) => Underscores::Allowed,
            Some(UnderscoresAction::RejectRequest) => Underscores::Refused,
            _ => Underscores::Dropped,
        },
        early: early.map(field_changes::compile).map(Box::new),
        late: late.map(field_changes::compile).map(Box::new),
        strips_host_dot: headers
            .host
            .as_ref()
            .is_some_and(|host| host.strip_trailing_host_dot.unwrap_or_default()),
        hides_limits: headers.disable_rate_limit_headers.unwrap_or_default(),
        shows_envoy_headers: headers.enable_envoy_headers.unwrap_or_default(),
        escaped_slashes: match paths.escaped_slashes_action {
            Some(EscapedSlashesAction::RejectRequest) => EscapedSlashes::Refused,
            Some(EscapedSlashesAction::UnescapeAndForward) => EscapedSlashes::Unescaped,
            Some(EscapedSlashesAction::UnescapeAndRedirect) => EscapedSlashes::Redirected,
            _ => EscapedSlashes::Kept,
        },
        keeps_slashes: paths.disable_merge_slashes.unwrap_or_default(),
        health_check: spec.health_check.as_ref().map(|check| check.path.as_str().into()),
        grpc_web: spec.grpc.as_ref().and_then(|grpc| grpc.enable_web),
    }
}

fn request_ids(headers: &HeaderSettings) -> RequestIds {
    match &headers.request_id {
        Some(RequestIdAction::PreserveOrGenerate) => RequestIds::Kept,
        Some(RequestIdAction::Preserve | RequestIdAction::Disable) => RequestIds::AsReceived,
        Some(RequestIdAction::Generate) => RequestIds::Generated,
        None if headers.preserve_x_request_id == Some(true) => RequestIds::Kept,
        Some(RequestIdAction::Unknown(_)) | None => RequestIds::Trusted,
    }
}

/// Returns the source of the client's address. A value that cannot be used, which `config` has
/// refused, believes nobody.
fn detection(of: &ClientIpDetection) -> ClientDetection {
    let ClientIpDetection { x_forwarded_for, custom_header, direct_source_ip: _ } = of;
    let appends = x_forwarded_for
        .as_ref()
        .is_none_or(|of| !of.disable_x_forwarded_for_append.unwrap_or_default());
    let source = match (x_forwarded_for, custom_header) {
        (Some(of), _) => hops(of),
        (None, Some(header)) => match HeaderName::from_bytes(header.name.as_bytes()) {
            Ok(name) => {
                AddressSource::Field { name, required: header.fail_closed.unwrap_or_default() }
            }
            Err(_) => AddressSource::Peer,
        },
        (None, None) => AddressSource::Peer,
    };
    ClientDetection { source, appends }
}

fn hops(of: &XForwardedFor) -> AddressSource {
    match (&of.trusted_cidrs, of.num_trusted_hops) {
        (Some(ranges), _) => {
            AddressSource::Ranges(ranges.iter().filter_map(|range| range.parse().ok()).collect())
        }
        (None, Some(count)) if count > 0 => {
            AddressSource::Hops(usize::try_from(count).unwrap_or(usize::MAX))
        }
        (None, _) => AddressSource::Peer,
    }
}

/// Returns the limits of a listener with a policy.
fn limits(
    defaults: &ClientLimits,
    policy: &ClientTrafficPolicySpec,
    protocol: &Protocol,
) -> ClientLimits {
    let mut limits = defaults.clone();
    let timeouts = policy.timeout.clone().unwrap_or_default();
    let (tcp, http) = (timeouts.tcp.unwrap_or_default(), timeouts.http.unwrap_or_default());
    set(&mut limits.handshake_timeout, tcp.tls_handshake_timeout);
    limits.inspection_timeout = tcp.connection_inspection_timeout.map(or_for_ever);
    if !matches!(protocol, Protocol::Http | Protocol::Https) {
        set(&mut limits.tunnel_timeout, tcp.idle_timeout);
        return limits;
    }
    client_connections::set_lifetime(&mut limits, policy);
    set(&mut limits.head_timeout, http.request_headers_received_timeout);
    set(&mut limits.idle_timeout, http.idle_timeout);
    if let Some(limit) = http.stream_idle_timeout {
        set(&mut limits.body_timeout, Some(limit));
        set(&mut limits.tunnel_timeout, Some(limit));
        limits.response_timeout = Some(limit.get()).filter(|limit| !limit.is_zero());
    }
    let whole = http.request_received_timeout.map(api::Duration::get);
    limits.request_timeout = whole.filter(|limit| !limit.is_zero());
    if let Some(http1) = &policy.http1 {
        let ignored: Vec<_> =
            http1.ignored_upgrade_types.iter().filter_map(field_changes::name_match).collect();
        limits.upgrades.retain(|token| {
            let token = token.to_ascii_lowercase();
            !ignored.iter().any(|of| of.accepts(&token))
        });
    }
    if let Some(http2) = &policy.http2 {
        set_http2(&mut limits, http2);
    }
    limits
}

fn set_http2(limits: &mut ClientLimits, http2: &Http2Settings) {
    if let Some(streams) = http2.max_concurrent_streams {
        limits.http2_streams = u32::try_from(streams).unwrap_or(limits.http2_streams);
    }
    let bytes = |size: &Option<Quantity>| {
        let bytes = size.as_ref().and_then(Quantity::bytes)?;
        Some(u32::try_from(bytes).unwrap_or(u32::MAX).min(i32::MAX.unsigned_abs()))
    };
    limits.http2_stream_window =
        bytes(&http2.initial_stream_window_size).or(limits.http2_stream_window);
    if let Some(window) = bytes(&http2.initial_connection_window_size) {
        // The default for streams stays as it is.
        let of_stream = limits.http2_stream_window.unwrap_or(limits.http2_window / 4);
        limits.http2_stream_window = Some(of_stream);
        limits.http2_window = window;
    }
    if let Some(keepalive) = &http2.connection_keepalive {
        limits.ping_interval = keepalive.interval.map(or_for_ever).or(limits.ping_interval);
        limits.ping_timeout = keepalive.timeout.map(or_for_ever).or(limits.ping_timeout);
    }
}

/// Sets a limit to a timeout, if there is one.
fn set(limit: &mut Duration, timeout: Option<api::Duration>) {
    if let Some(timeout) = timeout {
        *limit = or_for_ever(timeout);
    }
}

/// Returns a timeout; `0s` turns it off.
fn or_for_ever(timeout: api::Duration) -> Duration {
    Some(timeout.get()).filter(|timeout| !timeout.is_zero()).unwrap_or(FOR_EVER)
}

/// Returns the limits of a connection to a port with TLS until its listener is known: `defaults`, but
/// for the handshake the longer limits of both.
pub(super) fn until_known(
    defaults: &ClientLimits,
    one: &ClientLimits,
    other: &ClientLimits,
) -> ClientLimits {
    ClientLimits {
        handshake_timeout: one.handshake_timeout.max(other.handshake_timeout),
        inspection_timeout: one
            .inspection_timeout
            .zip(other.inspection_timeout)
            .map(|(one, other)| one.max(other)),
        ..defaults.clone()
    }
}

/// Returns the rule that runs in place of `rule` on a listener that is closed.
pub(super) fn closed_rule(rule: &Rule) -> Arc<Rule> {
    Arc::new(refusing(Arc::clone(&rule.name), Arc::clone(&rule.counts)))
}
