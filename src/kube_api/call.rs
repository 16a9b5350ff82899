//! An API call in parts: method, path, query and the acceptable form of the answer.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, Method};

use super::kinds::{self, ApiResource};
use super::refused::ApiError;

/// An API call without its body.
#[derive(Debug)]
pub(super) struct ApiCall {
    pub method: Method,
    pub path: String,
    pub query: CallQuery,
    pub shape: AnswerShape,
    /// The media type of the body, without parameters.
    pub content_type: String,
}

/// The form in which the caller wants the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AnswerShape {
    /// Groups and resources in one document.
    Discovery,
    /// Metadata only, such as names and labels.
    Metadata,
    #[default]
    Object,
    Table,
}

impl ApiCall {
    /// Parses the head of a request.
    ///
    /// # Errors
    ///
    /// No acceptable media type can be served.
    pub(super) fn new(parts: &Parts) -> Result<Self, ApiError> {
        let text = |name: HeaderName| {
            parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        let content_type = text(CONTENT_TYPE).split(';').next().unwrap_or_default();
        let path = decoded(parts.uri.path());
        Ok(Self {
            method: parts.method.clone(),
            shape: shape(text(ACCEPT))?,
            path,
            query: CallQuery::new(parts.uri.query().unwrap_or_default()),
            content_type: content_type.trim().to_ascii_lowercase(),
        })
    }
}

/// Returns the first acceptable form that is supported.
fn shape(accept: &str) -> Result<AnswerShape, ApiError> {
    if accept.trim().is_empty() {
        return Ok(AnswerShape::Object);
    }
    for media in accept.split(',') {
        let mut parts = media.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        if !matches!(&*kind, "application/json" | "*/*" | "application/*") {
            continue;
        }
        let mut wanted = None;
        let mut version = "v1";
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("as", value)) => wanted = Some(value),
                Some(("v", value)) => version = value,
                _ => {}
            }
        }
        match (wanted, version) {
            (None, _) => return Ok(AnswerShape::Object),
            (Some("Table"), "v1") => return Ok(AnswerShape::Table),
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), "v1") => {
                return Ok(AnswerShape::Metadata);
            }
            (Some("APIGroupDiscoveryList"), "v2") => return Ok(AnswerShape::Discovery),
            _ => {}
        }
    }
    // kubectl requests the OpenAPI document by media types of its own, and it is answered
    // regardless of what is acceptable. A client that prefers protobuf gets objects as JSON.
    if accept.contains("openapi") || accept.contains("protobuf") || accept.contains("text/plain") {
        return Ok(AnswerShape::Object);
    }
    Err(ApiError::not_acceptable())
}

/// The fields of a query, in order.
#[derive(Debug)]
pub(super) struct CallQuery(Vec<(String, String)>);

impl CallQuery {
    fn new(text: &str) -> Self {
        let pairs = text.split('&').filter(|part| !part.is_empty());
        Self(
            pairs
                .map(|part| part.split_once('=').unwrap_or((part, "")))
                .map(|(name, value)| (decoded(name), decoded(&value.replace('+', " "))))
                .collect(),
        )
    }

    /// Returns the first value of a field; empty if the field is absent.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(one, _)| one == name).map_or("", |(_, value)| value)
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1")
    }
}

/// Decodes percent-encoding, for example `%41` to `A`. An invalid escape stays as it is.
fn decoded(text: &str) -> String {
    if !text.contains('%') {
        return text.into();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 3).filter(|_| *byte == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The meaning of a path.
#[derive(Debug)]
pub(super) enum CallPlace<'p> {
    /// `/api`, `/apis`, `/apis/GROUP`, `/apis/GROUP/VERSION`, `/version` and so on.
    About(&'p str),
    Of(CallTarget<'p>),
}

/// A collection, an object, or a subresource of an object.
#[derive(Debug)]
pub(super) struct CallTarget<'p> {
    pub resource: &'static ApiResource,
    pub version: &'p str,
    /// `None` for all namespaces, and for kinds without a namespace.
    pub namespace: Option<&'p str>,
    pub name: Option<&'p str>,
    pub part: Option<&'p str>,
}

/// Returns the meaning of `path`.
///
/// # Errors
///
/// The resource is not served.
pub(super) fn place(path: &str) -> Result<CallPlace<'_>, ApiError> {
    let steps: Vec<&str> = path.split('/').filter(|step| !step.is_empty()).collect();
    let (group, version, rest) = match &steps[..] {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return Ok(CallPlace::About(path)),
    };
    let (namespace, rest) = match rest {
        // `namespaces/NAME` alone is the Namespace object, and so are its subresources.
        ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => (None, rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
        _ => (None, rest),
    };
    let (plural, name, part) = match rest {
        [plural] => (*plural, None, None),
        [plural, name] => (*plural, Some(*name), None),
        [plural, name, part] => (*plural, Some(*name), Some(*part)),
        _ => return Err(ApiError::no_such_resource()),
    };
    if (group, version, plural, name) == ("", "v1", "events", None) {
        return Ok(CallPlace::About("/api/v1/events"));
    }
    let resource = kinds::find(group, version, plural).ok_or_else(ApiError::no_such_resource)?;
    let misplaced = resource.is_namespaced() != namespace.is_some()
        && !(resource.is_namespaced() && name.is_none());
    if misplaced {
        return Err(ApiError::no_such_resource());
    }
    Ok(CallPlace::Of(CallTarget { resource, version, namespace, name, part }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_collection_or_an_object() {
        let gateway = "/apis/gateway.networking.k8s.io/v1";
        // (path, kind, namespace, name, part)
        type Row<'a> = (&'a str, &'a str, Option<&'a str>, Option<&'a str>, Option<&'a str>);
        let table: [Row<'_>; 8] = [
            ("/httproutes", "HTTPRoute", None, None, None),
            ("/namespaces/shop/httproutes", "HTTPRoute", Some("shop"), None, None),
            ("/namespaces/shop/httproutes/cart", "HTTPRoute", Some("shop"), Some("cart"), None),
            (
                "/namespaces/shop/gateways/eg/status",
                "Gateway",
                Some("shop"),
                Some("eg"),
                Some("status"),
            ),
            ("/gatewayclasses/eg", "GatewayClass", None, Some("eg"), None),
            ("/../../../api/v1/namespaces", "", None, None, None),
            ("/gateways/eg", "", None, None, None),
            ("/namespaces/shop/gatewayclasses/eg", "", None, None, None),
        ];
        for (path, kind, namespace, name, part) in table {
            let path = format!("{gateway}{path}");
            match place(&path) {
                Ok(CallPlace::Of(found)) => {
                    assert_eq!(found.resource.info.kind.as_str(), kind, "{path}");
                    let got = (found.namespace, found.name, found.part);
                    assert_eq!(got, (namespace, name, part), "{path}");
                }
                Ok(CallPlace::About(_)) => panic!("{path}"),
                Err(refused) => assert_eq!((kind, refused.code), ("", 404), "{path}"),
            }
        }
        for path in ["/api", "/apis", "/apis/x/v1", "/version", "/", "/api/v1", "/healthz"] {
            assert!(matches!(place(path), Ok(CallPlace::About(_))), "{path}");
        }
        let Ok(CallPlace::Of(found)) = place("/api/v1/namespaces/shop") else {
            panic!("a namespace")
        };
        assert_eq!(
            (found.resource.info.kind, found.name),
            (crate::api::Kind::Namespace, Some("shop"))
        );
        let Ok(CallPlace::Of(found)) = place("/api/v1/namespaces/shop/secrets") else {
            panic!("secrets")
        };
        assert_eq!((found.namespace, found.name), (Some("shop"), None));
    }

    #[test]
    fn the_first_form_that_is_served_is_taken() {
        let tables = "application/json;as=Table;v=v1;g=meta.k8s.io,\
                      application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                         application/json";
        // (accept, shape)
        let table = [
            ("", Some(AnswerShape::Object)),
            ("*/*", Some(AnswerShape::Object)),
            ("application/json", Some(AnswerShape::Object)),
            ("application/vnd.kubernetes.protobuf,application/json", Some(AnswerShape::Object)),
            (tables, Some(AnswerShape::Table)),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Some(AnswerShape::Object),
            ),
            (discovery, Some(AnswerShape::Discovery)),
            (
                "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
                Some(AnswerShape::Metadata),
            ),
            ("text/html", None),
            ("application/xml;q=1", None),
        ];
        for (accept, want) in table {
            assert_eq!(shape(accept).ok(), want, "{accept}");
        }
    }

    #[test]
    fn a_query_is_decoded() {
        let query = CallQuery::new("labelSelector=a%3Db%2Cc&watch=1&limit=5&x&y=%zz+z");
        assert_eq!(query.text("labelSelector"), "a=b,c");
        assert!(query.is_true("watch") && !query.is_true("limit") && !query.is_true("x"));
        assert_eq!(query.text("y"), "%zz z");
        assert_eq!(query.text("absent"), "");
    }
}
