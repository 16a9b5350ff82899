//! HTTPRouteFilter: filters beyond the Gateway API's own, for `extensionRef`.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::api::ObjectMeta;
use crate::api::open_enum::open_enum;
use crate::api::shared::LocalObjectReference;

/// A filter that a rule names by `extensionRef`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct RouteFilter {
    pub metadata: ObjectMeta,
    pub spec: RouteFilterSpec,
}

/// One of these; the others are not supported yet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteFilterSpec {
    pub direct_response: Option<DirectResponse>,
    pub url_rewrite: Option<IgnoredAny>,
    pub credential_injection: Option<IgnoredAny>,
    pub matches: Option<IgnoredAny>,
}

/// An answer in place of a backend's.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DirectResponse {
    /// 200 where absent.
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
    /// `Inline` where absent.
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
