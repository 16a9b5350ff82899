//! Settings of the connections of clients, from ClientTrafficPolicies.

use std::time::Duration;

use crate::api;
use crate::api::envoy::ClientTrafficPolicySpec;
use crate::api::envoy::backend_settings::TcpKeepalive;
use crate::api::envoy::client_traffic_policy::ConnectionLimit;
use crate::snapshot::{ClientLimits, ConnectionBound, ProxyHeader};
use crate::upstream::KeepAlive;

/// The keep-alive probes of Linux, where a policy leaves a field out.
const KERNEL: KeepAlive =
    KeepAlive { time: Duration::from_secs(7200), interval: Duration::from_secs(75), probes: 9 };

/// `enableProxyProtocol` is an older form of `proxyProtocol: {}`, which takes precedence.
pub(super) fn proxy_header(policy: &ClientTrafficPolicySpec) -> Option<ProxyHeader> {
    match &policy.proxy_protocol {
        Some(of) if of.optional == Some(true) => Some(ProxyHeader::Optional),
        Some(_) => Some(ProxyHeader::Required),
        None => (policy.enable_proxy_protocol == Some(true)).then_some(ProxyHeader::Required),
    }
}

/// Returns the bound on the number of open connections.
pub(super) fn bound(policy: &ClientTrafficPolicySpec) -> Option<ConnectionBound> {
    let limit = limit(policy)?;
    Some(ConnectionBound {
        most: usize::try_from(limit.value?).unwrap_or(usize::MAX),
        close_delay: limit.close_delay.map_or(Duration::ZERO, api::Duration::get),
    })
}

/// Sets the limits on the life of a connection.
pub(super) fn set_lifetime(limits: &mut ClientLimits, policy: &ClientTrafficPolicySpec) {
    let Some(limit) = limit(policy) else { return };
    let age = limit.max_connection_duration.map(api::Duration::get);
    limits.connection_age = age.filter(|age| !age.is_zero());
    limits.connection_requests = limit.max_requests_per_connection.filter(|most| *most > 0);
}

fn limit(policy: &ClientTrafficPolicySpec) -> Option<&ConnectionLimit> {
    policy.connection.as_ref()?.connection_limit.as_ref()
}

/// Returns the keep-alive probes; a field that is not written has the kernel's value.
pub(super) fn keep_alive(policy: &ClientTrafficPolicySpec) -> Option<KeepAlive> {
    let TcpKeepalive { probes, idle_time, interval } = policy.tcp_keepalive.as_ref()?;
    // The kernel counts whole seconds, of which 0 is invalid.
    let seconds = |of: &Option<api::Duration>, default| {
        of.map_or(default, |of| Duration::from_secs(of.get().as_secs().max(1)))
    };
    Some(KeepAlive {
        time: seconds(idle_time, KERNEL.time),
        interval: seconds(interval, KERNEL.interval),
        probes: probes
            .and_then(|probes| u32::try_from(probes).ok())
            .unwrap_or(KERNEL.probes)
            .max(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> ClientTrafficPolicySpec {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn probes_are_those_of_the_policy_and_else_of_the_kernel() {
        let probes = |yaml: &str| {
            let KeepAlive { time, interval, probes } = keep_alive(&spec(yaml)).unwrap();
            (time.as_secs(), interval.as_secs(), probes)
        };
        assert_eq!(keep_alive(&spec("{}")), None);
        assert_eq!(probes("tcpKeepalive: {}"), (7200, 75, 9));
        assert_eq!(
            probes("tcpKeepalive: {probes: 3, idleTime: 1500ms, interval: 10ms}"),
            (1, 1, 3)
        );
    }

    #[test]
    fn a_duration_or_number_of_0_is_no_limit() {
        let lifetime = |yaml: &str| {
            let mut limits = ClientLimits::default();
            set_lifetime(&mut limits, &spec(&format!("connection: {{connectionLimit: {yaml}}}")));
            (limits.connection_age, limits.connection_requests)
        };
        assert_eq!(lifetime("{value: 1}"), (None, None));
        assert_eq!(
            lifetime("{maxConnectionDuration: 0s, maxRequestsPerConnection: 0}"),
            (None, None)
        );
        assert_eq!(
            lifetime("{maxConnectionDuration: 1m, maxRequestsPerConnection: 7}"),
            (Some(Duration::from_secs(60)), Some(7))
        );
    }
}
