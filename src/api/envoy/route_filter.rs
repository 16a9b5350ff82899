//! HTTPRouteFilter: filters that the Gateway API does not have, for `extensionRef`.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::api::open_enum::open_enum;
use crate::api::shared::{LocalObjectReference, SecretObjectReference};
use crate::api::{CORE_GROUP, Kind, ObjectMeta};

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
    pub credential_injection: Option<CredentialInjection>,
    pub matches: Option<IgnoredAny>,
}

/// A reference of a filter to one value in another object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueRef<'a> {
    /// Of `spec`; no two references of a filter have the same.
    pub field: &'static str,
    /// ConfigMap or Secret.
    pub expects: Kind,
    pub group: &'a str,
    pub kind: &'a str,
    /// The namespace of the filter where absent.
    pub namespace: Option<&'a str>,
    pub name: &'a str,
    /// The key of the value; of a ConfigMap without it, the first value is taken.
    pub key: &'static str,
}

impl RouteFilterSpec {
    /// Every reference that it holds.
    pub(crate) fn values(&self) -> Vec<ValueRef<'_>> {
        let body = self.direct_response.as_ref().and_then(|direct| direct.body.as_ref());
        let body = body.filter(|body| *body.kind() == DirectBodyType::ValueRef);
        let body = body.and_then(|body| body.value_ref.as_ref()).map(|reference| ValueRef {
            field: DirectResponse::BODY,
            expects: Kind::ConfigMap,
            group: CORE_GROUP,
            kind: Kind::ConfigMap.as_str(),
            namespace: None,
            name: &reference.name,
            key: "response.body",
        });
        let credential = self.credential_injection.as_ref().map(|injection| {
            let reference = &injection.credential.value_ref;
            ValueRef {
                field: CredentialInjection::CREDENTIAL,
                expects: Kind::Secret,
                group: reference.group(),
                kind: reference.kind(),
                namespace: reference.namespace.as_deref(),
                name: &reference.name,
                key: "credential",
            }
        });
        body.into_iter().chain(credential).collect()
    }

    /// The first field that is written and not supported.
    pub(crate) fn unsupported(&self) -> Option<&'static str> {
        let fields =
            [("matches", self.matches.is_some()), ("urlRewrite", self.url_rewrite.is_some())];
        fields.into_iter().find_map(|(field, is_written)| is_written.then_some(field))
    }
}

/// A credential that is sent to the backend.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CredentialInjection {
    /// `Authorization` where absent.
    pub header: Option<String>,
    /// True if the header of the client is replaced. False where absent.
    pub overwrite: Option<bool>,
    pub credential: InjectedCredential,
}

impl CredentialInjection {
    /// The field that refers to the credential.
    pub(crate) const CREDENTIAL: &'static str = "credentialInjection.credential.valueRef";
}

/// The place of a credential.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InjectedCredential {
    /// The key `credential` of a Secret: the whole value of the header.
    pub value_ref: SecretObjectReference,
}

/// An answer in place of a backend's.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DirectResponse {
    /// Default: 200.
    pub status_code: Option<u16>,
    pub content_type: Option<String>,
    pub body: Option<DirectBody>,
}

impl DirectResponse {
    /// The field that refers to a body.
    pub(crate) const BODY: &'static str = "directResponse.body.valueRef";
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
