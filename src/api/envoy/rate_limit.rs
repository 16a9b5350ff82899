//! `rateLimit` of a BackendTrafficPolicy.

use serde::Deserialize;

use crate::api::http_route::{HttpMethod, PathMatchType};
use crate::api::open_enum::open_enum;

/// Limits of the number of requests. Without `type`, `local` and `global` both apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct RateLimit {
    /// Deprecated. If written, only the field of this name applies.
    #[serde(rename = "type")]
    pub kind: Option<RateLimitType>,
    /// Limits of this host.
    pub local: Option<LocalRateLimit>,
    /// Limits of several hosts together.
    pub global: Option<GlobalRateLimit>,
}

open_enum! {
    RateLimitType {
        Global = "Global",
        Local = "Local",
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct LocalRateLimit {
    #[serde(default)]
    pub rules: Vec<RateLimitRule>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct GlobalRateLimit {
    pub rules: Vec<RateLimitRule>,
}

/// A limit, and the requests that it counts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RateLimitRule {
    /// All of them must match. Without any, a local rule is for the requests that no other rule
    /// matches.
    #[serde(default)]
    pub client_selectors: Vec<RateLimitSelector>,
    pub limit: RateLimitValue,
    pub cost: Option<RateLimitCost>,
    /// Default: false. No effect on local rules.
    pub shared: Option<bool>,
    /// True if requests over the limit are counted and let through. Default: false.
    pub shadow_mode: Option<bool>,
    pub x_rate_limit_headers: Option<XRateLimitHeaders>,
}

open_enum! {
    XRateLimitHeaders {
        Off = "Off",
        DraftVersion03 = "DraftVersion03",
    }
}

/// Conditions on a request, all of which must be met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RateLimitSelector {
    pub headers: Option<Vec<RateLimitMatch>>,
    /// One of them must be the request's.
    pub methods: Option<Vec<RateLimitMethod>>,
    pub path: Option<RateLimitPath>,
    #[serde(rename = "sourceCIDR")]
    pub source_cidr: Option<RateLimitSource>,
    pub query_params: Option<Vec<RateLimitMatch>>,
}

/// A condition on a header or query parameter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct RateLimitMatch {
    #[serde(rename = "type")]
    pub kind: Option<RateLimitMatchType>,
    pub name: String,
    pub value: Option<String>,
    /// Default: false.
    pub invert: Option<bool>,
}

impl RateLimitMatch {
    /// Returns the kind; default: `Exact`.
    pub(crate) fn kind(&self) -> &RateLimitMatchType {
        self.kind.as_ref().unwrap_or(&RateLimitMatchType::Exact)
    }
}

open_enum! {
    RateLimitMatchType {
        Exact = "Exact",
        RegularExpression = "RegularExpression",
        /// Each value has a limit of its own.
        Distinct = "Distinct",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct RateLimitMethod {
    pub value: HttpMethod,
    /// Default: false.
    pub invert: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct RateLimitPath {
    #[serde(rename = "type")]
    pub kind: Option<PathMatchType>,
    /// Default: `/`.
    pub value: Option<String>,
    /// Default: false.
    pub invert: Option<bool>,
}

impl RateLimitPath {
    /// Returns the kind; default: `PathPrefix`.
    pub(crate) fn kind(&self) -> &PathMatchType {
        self.kind.as_ref().unwrap_or(&PathMatchType::PathPrefix)
    }

    /// Returns the value; default: `/`.
    pub(crate) fn value(&self) -> &str {
        self.value.as_deref().unwrap_or("/")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct RateLimitSource {
    #[serde(rename = "type")]
    pub kind: Option<RateLimitSourceType>,
    /// An address range in CIDR form.
    pub value: String,
    /// Default: false.
    pub invert: Option<bool>,
}

impl RateLimitSource {
    /// Returns the kind; default: `Exact`.
    pub(crate) fn kind(&self) -> &RateLimitSourceType {
        self.kind.as_ref().unwrap_or(&RateLimitSourceType::Exact)
    }
}

open_enum! {
    RateLimitSourceType {
        /// The clients of the range have one limit together.
        Exact = "Exact",
        /// Each address of the range has a limit of its own.
        Distinct = "Distinct",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RateLimitValue {
    /// 0 refuses every request.
    pub requests: u32,
    pub unit: RateLimitUnit,
    pub from_metadata: Option<MetadataKey>,
}

open_enum! {
    RateLimitUnit {
        Second = "Second",
        Minute = "Minute",
        Hour = "Hour",
        Day = "Day",
        Week = "Week",
        /// 30 days.
        Month = "Month",
        /// 365 days.
        Year = "Year",
    }
}

/// A place in Envoy's dynamic metadata.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct MetadataKey {
    pub namespace: String,
    pub key: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct RateLimitCost {
    pub request: Option<RateLimitCostSource>,
    pub response: Option<RateLimitCostSource>,
}

/// The tokens that a request takes; `from` selects the field.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct RateLimitCostSource {
    pub from: RateLimitCostFrom,
    pub number: Option<u64>,
    pub metadata: Option<MetadataKey>,
}

open_enum! {
    RateLimitCostFrom {
        Number = "Number",
        Metadata = "Metadata",
    }
}
