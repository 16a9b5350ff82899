//! The kinds of `gateway.envoyproxy.io/v1alpha1`.

mod backend;
pub(crate) mod backend_settings;
pub(crate) mod backend_traffic_policy;
pub(crate) mod client_tls;
pub(crate) mod client_traffic_policy;
mod envoy_proxy;
pub(crate) mod health_check;
pub(crate) mod load_balancer;
mod policy;
mod quantity;
pub(crate) mod rate_limit;
pub(crate) mod response_override;
pub(crate) mod route_filter;
mod security_policy;

pub(crate) use self::backend::{
    AppProtocol, Backend, BackendEndpoint, BackendSpec, BackendTls, BackendType,
};
pub(crate) use self::backend_traffic_policy::{BackendTrafficPolicy, BackendTrafficPolicySpec};
pub(crate) use self::client_traffic_policy::{ClientTrafficPolicy, ClientTrafficPolicySpec};
pub(crate) use self::envoy_proxy::{
    AccessLog, AccessLogFormat, AccessLogFormatType, AccessLogSetting, AccessLogSink,
    AccessLogSinkType, AccessLogType, CustomTag, CustomTagType, EnvoyProxy, EnvoyProxySpec,
    Tracing, TracingProvider, TracingProviderType,
};
pub(crate) use self::policy::{
    BODY_KEY, EnvoyPolicy, EnvoyPolicySpec, MergeType, PolicySelector, PolicyTarget,
};
pub(crate) use self::quantity::Quantity;
pub(crate) use self::route_filter::{DirectBodyType, DirectResponse, RouteFilter};
pub(crate) use self::security_policy::{
    AuthorizationAction, AuthorizationRule, Csrf, PolicyAuthorization, PolicyCors, SecurityPolicy,
    SecurityPolicySpec,
};
