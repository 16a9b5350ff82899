//! `loadBalancer` of Envoy Gateway's cluster settings.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::api::duration::Duration;
use crate::api::open_enum::open_enum;

/// The choice of an endpoint; `type` selects the settings that apply.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LoadBalancer {
    #[serde(rename = "type")]
    pub kind: LoadBalancerType,
    pub consistent_hash: Option<ConsistentHash>,
    pub slow_start: Option<SlowStart>,
    pub zone_aware: Option<ZoneAware>,
    pub endpoint_override: Option<EndpointOverride>,
    pub backend_utilization: Option<BackendUtilization>,
    pub dynamic_module: Option<LoadBalancerModule>,
}

open_enum! {
    LoadBalancerType {
        ConsistentHash = "ConsistentHash",
        LeastRequest = "LeastRequest",
        Random = "Random",
        RoundRobin = "RoundRobin",
        BackendUtilization = "BackendUtilization",
        DynamicModule = "DynamicModule",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConsistentHash {
    #[serde(rename = "type")]
    pub kind: ConsistentHashType,
    /// The size of the Maglev table, a prime number. Default: 65537.
    pub table_size: Option<i64>,
    pub header: Option<NamedHash>,
    pub headers: Option<Vec<NamedHash>>,
    pub cookie: Option<HashCookie>,
    pub query_params: Option<Vec<NamedHash>>,
}

open_enum! {
    ConsistentHashType {
        SourceIp = "SourceIP",
        Header = "Header",
        Headers = "Headers",
        Cookie = "Cookie",
        QueryParams = "QueryParams",
    }
}

/// A header or query parameter whose value is hashed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct NamedHash {
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct HashCookie {
    pub name: String,
    /// `0s`: a session cookie. Absent: a cookie of this name is read, never set.
    pub ttl: Option<Duration>,
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

/// The time in which a new endpoint comes to its full share.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct SlowStart {
    pub window: Duration,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ZoneAware {
    pub prefer_local: Option<PreferLocalZone>,
    pub weighted_zones: Option<Vec<WeightedZone>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PreferLocalZone {
    /// Default: 6.
    pub min_endpoints_threshold: Option<i64>,
    pub force: Option<ForceLocalZone>,
    /// Default: 100.
    pub percentage_enabled: Option<i32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ForceLocalZone {
    /// Default: 1.
    pub min_endpoints_in_zone_threshold: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct WeightedZone {
    pub zone: String,
    pub weight: i32,
}

/// Endpoints named by a header of the request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointOverride {
    pub extract_from: Vec<EndpointOverrideSource>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct EndpointOverrideSource {
    pub header: Option<String>,
}

/// Weights by the load that backends report (ORCA).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackendUtilization {
    /// Default: 10 s.
    pub blackout_period: Option<Duration>,
    /// Default: 3 min.
    pub weight_expiration_period: Option<Duration>,
    /// Default: 1 s.
    pub weight_update_period: Option<Duration>,
    pub error_utilization_penalty_percent: Option<i32>,
    #[serde(default)]
    pub metric_names_for_computing_utilization: Vec<String>,
    /// Default: false.
    pub keep_response_headers: Option<bool>,
    pub out_of_band: Option<OutOfBandReports>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OutOfBandReports {
    pub reporting_period: Option<Duration>,
    pub port: Option<u16>,
    pub authority: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LoadBalancerModule {
    pub name: String,
    pub lb_policy_name: String,
    pub config: Option<IgnoredAny>,
}
