//! `responseOverride[]` of a BackendTrafficPolicy.

use serde::Deserialize;

use crate::api::http_route::{HeaderModifier, HttpPathModifier, Scheme};
use crate::api::open_enum::open_enum;

/// An answer in place of one that matches: `response` or `redirect`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct ResponseOverride {
    #[serde(rename = "match")]
    pub of: ResponseMatch,
    /// Default: All.
    pub source: Option<ResponseSource>,
    pub response: Option<CustomResponse>,
    pub redirect: Option<CustomRedirect>,
}

open_enum! {
    ResponseSource {
        All = "All",
        Local = "Local",
        Backend = "Backend",
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResponseMatch {
    /// One of them must match.
    pub status_codes: Option<Vec<StatusCodeMatch>>,
    /// All of them must match.
    pub response_headers: Option<Vec<ResponseHeaderMatch>>,
}

/// A status, or a range of statuses; `type` selects the field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct StatusCodeMatch {
    /// Default: Value.
    #[serde(rename = "type")]
    pub kind: Option<StatusCodeMatchType>,
    pub value: Option<i64>,
    pub range: Option<StatusCodeRange>,
}

impl StatusCodeMatch {
    /// Returns true if `type` selects `range`.
    pub(crate) fn has_range(&self) -> bool {
        self.kind == Some(StatusCodeMatchType::Range)
    }
}

open_enum! {
    StatusCodeMatchType {
        Value = "Value",
        Range = "Range",
    }
}

/// Both ends are included.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct StatusCodeRange {
    pub start: i64,
    pub end: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct ResponseHeaderMatch {
    pub name: String,
    pub value: StringMatch,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct StringMatch {
    /// Default: Exact.
    #[serde(rename = "type")]
    pub kind: Option<StringMatchType>,
    pub value: String,
}

open_enum! {
    StringMatchType {
        Exact = "Exact",
        Prefix = "Prefix",
        Suffix = "Suffix",
        RegularExpression = "RegularExpression",
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CustomResponse {
    pub content_type: Option<String>,
    pub body: Option<CustomBody>,
    pub status_code: Option<i64>,
    pub header: Option<HeaderModifier>,
}

/// A body: `inline`, or `valueRef`, selected by `type`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CustomBody {
    /// Default: Inline.
    #[serde(rename = "type")]
    pub kind: Option<CustomBodyType>,
    pub inline: Option<String>,
    pub value_ref: Option<CustomBodyRef>,
}

open_enum! {
    CustomBodyType {
        Inline = "Inline",
        ValueRef = "ValueRef",
    }
}

/// A ConfigMap with the key `response.body`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct CustomBodyRef {
    pub group: String,
    pub kind: String,
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CustomRedirect {
    pub scheme: Option<Scheme>,
    pub hostname: Option<String>,
    pub path: Option<HttpPathModifier>,
    pub port: Option<i32>,
    /// 301 or 302. Default: 302.
    pub status_code: Option<i64>,
}
