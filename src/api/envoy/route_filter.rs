//! HTTPRouteFilter: filters that the Gateway API does not have, for `extensionRef`.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::api::ObjectMeta;
use crate::api::open_enum::open_enum;
use crate::api::shared::LocalObjectReference;

/// A filter that a rule refers to by `extensionRef`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct RouteFilter {
    pub metadata: ObjectMeta,
    pub spec: RouteFilterSpec,
}

/// The spec, with one of these fields; only `direct_response` is supported.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteFilterSpec {
    pub direct_response: Option<DirectResponse>,
    pub url_rewrite: Option<IgnoredAny>,
    pub credential_injection: Option<IgnoredAny>,
    pub matches: Option<IgnoredAny>,
}

/// An answer sent instead of a backend's.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DirectResponse {
    /// Default: 200.
    pub status_code: Option<u16>,
    pub content_type: Option<String>,
    pub body: Option<DirectBody>,
}

/// The body of an answer: `inline`, or the value of a ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DirectBody {
    #[serde(rename = "type")]
    pub kind: Option<DirectBodyType>,
    pub inline: Option<String>,
    pub value_ref: Option<LocalObjectReference>,
}

impl DirectBody {
    /// Returns the kind; default: `Inline`.
    pub(crate) fn kind(&self) -> &DirectBodyType {
        self.kind.as_ref().unwrap_or(&DirectBodyType::Inline)
    }
}

open_enum! {
    DirectBodyType {
        Inline = "Inline",
        /// The key `response.body` of a ConfigMap, or the first one.
        ValueRef = "ValueRef",
    }
}
