//! The kinds of `gateway.envoyproxy.io/v1alpha1`.

mod backend;
mod envoy_proxy;
mod policy;
pub(crate) mod route_filter;
mod security_policy;

pub(crate) use self::backend::{
    AppProtocol, Backend, BackendEndpoint, BackendSpec, BackendTls, BackendType,
};
pub(crate) use self::envoy_proxy::{
    AccessLog, AccessLogFormat, AccessLogFormatType, AccessLogSetting, AccessLogSink,
    AccessLogSinkType, AccessLogType, CustomTag, CustomTagType, EnvoyProxy, EnvoyProxySpec,
    Tracing, TracingProvider, TracingProviderType,
};
pub(crate) use self::policy::{
    EnvoyPolicy, EnvoyPolicySpec, MergeType, PolicySelector, PolicyTarget,
};
pub(crate) use self::route_filter::{DirectBodyType, DirectResponse, RouteFilter};
pub(crate) use self::security_policy::{
    AuthorizationAction, PolicyAuthorization, PolicyCors, SecurityPolicy, SecurityPolicySpec,
};
