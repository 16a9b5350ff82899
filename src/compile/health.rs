//! Health checks of backends, from BackendTrafficPolicies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, StatusCode};

use crate::api;
use crate::api::Backend;
use crate::api::envoy::BackendTrafficPolicySpec;
use crate::api::envoy::health_check::{
    ActiveHealthCheck, ActiveHealthCheckType, HealthCheckPayload, HttpHealthCheck,
    PassiveHealthCheck,
};
use crate::stable_hash::hash_32;
use crate::upstream::{
    ActiveCheck, HealthSettings, HttpProbe, PassiveCheck, Probe, Protocol, TcpProbe,
};

/// Default of the time in which the first checks of a cluster are spread.
const SPREAD: Duration = Duration::from_millis(250);

/// Default of `panicThreshold`: Envoy's.
const PANIC: u8 = 50;

/// The methods that Envoy knows, except CONNECT.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"];

/// The health checks of a rule, before its backends are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HealthChecks {
    settings: HealthSettings,
    /// The percentage of healthy hosts below which health is ignored.
    pub panic_threshold: u8,
    /// True if the policy names the `Host` of checks.
    names_authority: bool,
}

impl HealthChecks {
    /// Returns the checks of the policies that reach a route, the most specific first: those of the
    /// first policy that has any. `hostname` is the first of the route.
    pub(super) fn of(specs: &[&BackendTrafficPolicySpec], hostname: Option<&str>) -> Option<Self> {
        let written = specs.iter().find_map(|spec| spec.health_check.as_ref())?;
        let active = written.active.as_ref().and_then(|check| active(check, hostname));
        let http = written.active.as_ref().and_then(|check| check.http.as_ref());
        let names_authority = http.is_some_and(|http| http.hostname.is_some());
        let may_eject_all = written.panic_threshold == Some(0);
        let passive = written.passive.as_ref().map(|check| passive(check, may_eject_all));
        if active.is_none() && passive.is_none() {
            return None;
        }
        let settings = HealthSettings { backend: "".into(), active, passive };
        let threshold = written.panic_threshold.and_then(|of| u8::try_from(of).ok());
        Some(Self { settings, panic_threshold: threshold.unwrap_or(PANIC), names_authority })
    }

    /// Returns the name of a cluster with these checks, from its name without them.
    pub(super) fn name(&self, name: &str) -> String {
        format!("{name}/health/{:08x}", hash_32(&format!("{self:?}")))
    }

    /// Returns the settings for the cluster of a backend; `backend` is its name, `object` the
    /// Backend, if it is one.
    pub(super) fn for_backend(
        &self,
        backend: &str,
        object: Option<&Backend>,
        protocol: Protocol,
    ) -> Arc<HealthSettings> {
        let mut settings = HealthSettings { backend: backend.into(), ..self.settings.clone() };
        if let Some(check) = &mut settings.active {
            if let Probe::Http(probe) = &mut check.probe {
                probe.http2 = protocol != Protocol::Http1;
            }
            if let Some(object) = object.filter(|_| !self.names_authority) {
                check.own_authorities = own_authorities(object);
            }
        }
        Arc::new(settings)
    }
}

/// Returns the `hostname`s of endpoints, by the names of the endpoints.
fn own_authorities(backend: &Backend) -> BTreeMap<String, Box<str>> {
    let own = backend.spec.endpoints.iter().filter_map(|endpoint| {
        let hostname = endpoint.hostname.as_deref()?;
        let ip = endpoint.ip.as_ref();
        let ip = ip.and_then(|ip| {
            Some(std::net::SocketAddr::new(ip.address.parse().ok()?, ip.port).to_string())
        });
        let fqdn = endpoint.fqdn.as_ref().map(|of| format!("{}:{}", of.hostname, of.port));
        let unix = endpoint.unix.as_ref().map(|unix| format!("unix:{}", unix.path));
        Some((ip.or(fqdn).or(unix)?, hostname.into()))
    });
    own.collect()
}

/// `None` if the check breaks a rule of the CRD.
fn active(check: &ActiveHealthCheck, hostname: Option<&str>) -> Option<ActiveCheck> {
    let probe = match check.kind {
        ActiveHealthCheckType::Http => Probe::Http(Box::new(http(check.http.as_ref()?)?)),
        ActiveHealthCheckType::Tcp => {
            let tcp = check.tcp.as_ref()?;
            Probe::Tcp(TcpProbe {
                send: bytes(tcp.send.as_ref()),
                receive: bytes(tcp.receive.as_ref()),
            })
        }
        ActiveHealthCheckType::Grpc => {
            let grpc = check.grpc.as_ref();
            let service = grpc.and_then(|grpc| grpc.service.clone());
            Probe::Grpc { service: service.unwrap_or_default().into() }
        }
        ActiveHealthCheckType::Unknown(_) => return None,
    };
    let interval = time(check.interval, 3);
    let jitter = check.initial_jitter.map(api::Duration::get);
    let threshold = |written: Option<i32>, default: u32| {
        written.and_then(|written| u32::try_from(written).ok()).unwrap_or(default).max(1)
    };
    let written = check.http.as_ref().and_then(|http| http.hostname.as_deref());
    let of_route = hostname.filter(|_| matches!(probe, Probe::Http(_)));
    Some(ActiveCheck {
        probe,
        interval,
        timeout: time(check.timeout, 1),
        initial_jitter: jitter.unwrap_or_else(|| SPREAD.min(interval / 10)),
        unhealthy_threshold: threshold(check.unhealthy_threshold, 3),
        healthy_threshold: threshold(check.healthy_threshold, 1),
        port: check.overrides.as_ref().and_then(|overrides| overrides.port),
        authority: written.or(of_route).map(Into::into),
        own_authorities: BTreeMap::new(),
    })
}

/// Outlier detection with the defaults of the CRD, and of Envoy where it has none. Envoy never reaches
/// a limit of 0.
fn passive(check: &PassiveHealthCheck, may_eject_all: bool) -> PassiveCheck {
    let limit = |written: Option<i32>| {
        written.and_then(|written| u32::try_from(written).ok()).filter(|written| *written > 0)
    };
    let percent = |written: Option<i32>| written.and_then(|written| u8::try_from(written).ok());
    let splits = check.split_external_local_origin_errors == Some(true);
    PassiveCheck {
        errors: limit(Some(check.consecutive_5xx_errors.unwrap_or(5))),
        gateway_errors: limit(check.consecutive_gateway_errors),
        local_failures: splits.then(|| {
            limit(Some(check.consecutive_local_origin_failures.unwrap_or(5))).unwrap_or(u32::MAX)
        }),
        failure_percentage: percent(check.failure_percentage_threshold),
        interval: time(check.interval, 3),
        base_ejection: time(check.base_ejection_time, 30),
        max_percent: percent(check.max_ejection_percent).filter(|most| *most > 0).unwrap_or(10),
        always_one: check.always_eject_one_endpoint == Some(true),
        may_eject_all,
    }
}

/// Returns a written time, or the default in seconds. A time of 0 would be no pause, or one within
/// which no host can answer.
fn time(written: Option<api::Duration>, default: u64) -> Duration {
    let written = written.map(api::Duration::get).filter(|written| !written.is_zero());
    written.unwrap_or_else(|| Duration::from_secs(default))
}

fn http(check: &HttpHealthCheck) -> Option<HttpProbe> {
    let statuses = |written: &[u16]| -> Box<[StatusCode]> {
        written.iter().filter_map(|status| StatusCode::from_u16(*status).ok()).collect()
    };
    let expected = statuses(&check.expected_statuses);
    let method = check.method.as_deref().unwrap_or("GET").to_ascii_uppercase();
    Some(HttpProbe {
        http2: false,
        // The same as in Envoy Gateway for a method that it does not know.
        method: METHODS
            .contains(&&*method)
            .then(|| Method::from_bytes(method.as_bytes()).ok())
            .flatten()
            .unwrap_or(Method::GET),
        path: PathAndQuery::try_from(&*check.path).ok()?,
        body: bytes(check.request_body.as_ref()),
        expected: if expected.is_empty() { [StatusCode::OK].into() } else { expected },
        retriable: statuses(&check.retriable_statuses),
        receive: bytes(check.expected_response.as_ref()),
    })
}

fn bytes(payload: Option<&HealthCheckPayload>) -> Bytes {
    let Some(payload) = payload else { return Bytes::new() };
    let binary = payload.binary.as_ref().and_then(|binary| STANDARD.decode(binary).ok());
    let text = payload.text.clone().map(String::into_bytes);
    binary.or(text).unwrap_or_default().into()
}
