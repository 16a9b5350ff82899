//! The schema of a kind, traced from the type into which its documents are decoded.
//!
//! There is no second description of the fields that could differ from the decoder. A [`Tracer`]
//! acts as a document that has every field: the type's own `Deserialize` asks it for each field,
//! and it records the name and the requested type.
//!
//! Rules that are not in the types (lengths, patterns, words) are not in the schema; `validate` has
//! them, and the Kubernetes API of this gateway reports them in its answers.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::api::{self, Kind};

/// Returns the schema of an object of `kind` in OpenAPI v3, without `apiVersion`, `kind` and
/// `status`; `None` for a kind whose fields are not read.
pub(crate) fn schema(kind: Kind) -> Option<Value> {
    let trace = match kind {
        Kind::GatewayClass => traced::<api::GatewayClass>,
        Kind::Gateway => traced::<api::Gateway>,
        Kind::ListenerSet => traced::<api::ListenerSet>,
        Kind::HttpRoute => traced::<api::HttpRoute>,
        Kind::GrpcRoute => traced::<api::GrpcRoute>,
        Kind::TlsRoute => traced::<api::TlsRoute>,
        Kind::TcpRoute => traced::<api::TcpRoute>,
        Kind::UdpRoute => traced::<api::UdpRoute>,
        Kind::ReferenceGrant => traced::<api::ReferenceGrant>,
        Kind::Backend => traced::<api::Backend>,
        Kind::RouteFilter => traced::<api::RouteFilter>,
        Kind::EnvoyProxy => traced::<api::EnvoyProxy>,
        Kind::Secret => traced::<api::Secret>,
        Kind::ConfigMap => traced::<api::ConfigMap>,
        Kind::Service => traced::<api::Service>,
        Kind::EndpointSlice => traced::<api::EndpointSlice>,
        Kind::Namespace => traced::<api::Namespace>,
        Kind::BackendTlsPolicy => traced::<api::BackendTlsPolicy>,
        Kind::BackendTrafficPolicy => traced::<api::BackendTrafficPolicy>,
        Kind::ClientTrafficPolicy => traced::<api::ClientTrafficPolicy>,
        Kind::SecurityPolicy => traced::<api::SecurityPolicy>,
        Kind::Other(_) => return None,
    };
    trace()
}

fn traced<'de, T: Deserialize<'de>>() -> Option<Value> {
    let mut shape = anything();
    // A value that the type rejects would hide the fields after it; a test checks that this does
    // not happen.
    T::deserialize(Tracer { shape: &mut shape, text: "" }).ok()?;
    Some(shape)
}

/// The schema of any value, or of a part that is not read.
fn anything() -> Value {
    json!({ "x-kubernetes-preserve-unknown-fields": true })
}

/// A stand-in for a value that records the type it is read as.
struct Tracer<'s> {
    shape: &'s mut Value,
    /// A text that the type accepts.
    text: &'static str,
}

#[derive(Debug)]
struct TraceError(String);

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TraceError {}

impl de::Error for TraceError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $format:literal,)+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
            *self.shape = json!({ "type": "integer", "format": $format });
            visitor.$visit(1)
        })+
    };
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = TraceError;

    /// A port by number or by name.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        *self.shape = json!({ "x-kubernetes-int-or-string": true });
        visitor.visit_i64(1)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        *self.shape = json!({ "type": "boolean" });
        visitor.visit_bool(false)
    }

    numbers! {
        deserialize_i32 visit_i32 "int32",
        deserialize_i64 visit_i64 "int64",
        deserialize_u8 visit_u8 "int32",
        deserialize_u16 visit_u16 "int32",
        deserialize_u32 visit_u32 "int32",
        deserialize_u64 visit_u64 "int64",
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        *self.shape = json!({ "type": "number" });
        visitor.visit_f64(1.0)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        *self.shape = json!({ "type": "string" });
        visitor.visit_str(self.text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, TraceError> {
        let text = match name {
            "Duration" => "1s",
            "Timestamp" => "2026-01-31T12:00:00Z",
            _ => self.text,
        };
        visitor.visit_newtype_struct(Tracer { text, ..self })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        let mut items = None;
        let value = visitor.visit_seq(OneItem { value: &mut items, key: None })?;
        *self.shape = json!({ "type": "array", "items": items.unwrap_or_else(anything) });
        Ok(value)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        let mut values = None;
        let value = visitor.visit_map(OneItem { value: &mut values, key: Some("key") })?;
        let values = values.unwrap_or_else(anything);
        *self.shape = json!({ "type": "object", "additionalProperties": values });
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TraceError> {
        let mut properties = Map::new();
        let value = visitor.visit_map(EveryField {
            names: names.iter(),
            name: "",
            properties: &mut properties,
        })?;
        *self.shape = json!({ "type": "object", "properties": properties });
        Ok(value)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TraceError> {
        *self.shape = anything();
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct enum
        identifier
    }
}

/// A list of one item, or a mapping of one key.
struct OneItem<'s> {
    value: &'s mut Option<Value>,
    key: Option<&'static str>,
}

impl OneItem<'_> {
    fn trace<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, TraceError> {
        seed.deserialize(Tracer { shape: self.value.insert(anything()), text: "" })
    }
}

impl<'de> SeqAccess<'de> for OneItem<'_> {
    type Error = TraceError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, TraceError> {
        if self.value.is_some() { Ok(None) } else { self.trace(seed).map(Some) }
    }
}

impl<'de> MapAccess<'de> for OneItem<'_> {
    type Error = TraceError;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, TraceError> {
        let Some(key) = self.key.take() else { return Ok(None) };
        seed.deserialize(StrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, TraceError> {
        self.trace(seed)
    }
}

/// A struct with all of its fields.
struct EveryField<'s> {
    names: std::slice::Iter<'static, &'static str>,
    name: &'static str,
    properties: &'s mut Map<String, Value>,
}

impl<'de> MapAccess<'de> for EveryField<'_> {
    type Error = TraceError;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, TraceError> {
        let Some(name) = self.names.next() else { return Ok(None) };
        self.name = name;
        seed.deserialize(StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, TraceError> {
        let shape = self.properties.entry(self.name).or_insert_with(anything);
        seed.deserialize(Tracer { shape, text: "" })
    }
}

#[cfg(test)]
mod tests {
    use crate::api::KINDS;

    use super::*;

    #[test]
    fn every_kind_that_is_read_has_a_schema_with_all_its_fields() {
        for info in KINDS.iter().filter(|info| !matches!(info.kind, Kind::Other(_))) {
            let schema = schema(info.kind).unwrap_or_else(|| panic!("{}", info.kind));
            assert_eq!(schema["properties"]["metadata"]["type"], "object", "{}", info.kind);
        }
        assert!(schema(Kind::Other("Pod")).is_none());
    }

    #[test]
    fn a_schema_has_the_fields_and_types_that_are_read() {
        let of = |kind, pointer: &str| {
            let schema = schema(kind).unwrap();
            let found = schema.pointer(pointer).cloned();
            found.unwrap_or_else(|| panic!("{pointer} in {schema:#}"))
        };
        let rule = "/properties/spec/properties/rules/items/properties";
        let path = |rest: &str| format!("{rule}/{rest}");
        // (kind, pointer, type)
        let table = [
            (Kind::HttpRoute, path("backendRefs/items/properties/port"), "integer"),
            (Kind::HttpRoute, path("timeouts/properties/request"), "string"),
            (Kind::HttpRoute, path("matches/items/properties/headers"), "array"),
            (
                Kind::HttpRoute,
                path("filters/items/properties/cors/properties/allowCredentials"),
                "boolean",
            ),
            (
                Kind::Gateway,
                "/properties/spec/properties/listeners/items/properties/tls".into(),
                "object",
            ),
            (Kind::ConfigMap, "/properties/data/additionalProperties".into(), "string"),
            (Kind::Service, "/properties/metadata/properties/creationTimestamp".into(), "string"),
        ];
        for (kind, pointer, want) in table {
            assert_eq!(of(kind, &pointer)["type"], want, "{kind} {pointer}");
        }
        let port = "/properties/spec/properties/ports/items/properties/targetPort";
        assert_eq!(of(Kind::Service, port)["x-kubernetes-int-or-string"], true);
    }
}
