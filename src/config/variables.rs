//! Fields in which variables are replaced.
//!
//! `${NAME}` is replaced in configuration. The payload of an object is not configuration: a script
//! in a ConfigMap, a key in a Secret, the body of a response, an annotation of another tool.
//! `kubectl apply` takes it verbatim, and so does this gateway.

use crate::api::Kind;

/// The rule for the replacement of variables in a value or in its parts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Variables {
    /// A mapping in which only `edge-gateway.io/...` is configuration.
    Annotations,
    /// The fields listed; variables are replaced in all others.
    Fields(&'static [(&'static str, Self)]),
    /// The text is kept as written.
    Kept,
    /// `${NAME}` is replaced, and `$$` is a dollar sign.
    Replaced,
}

use Variables::{Annotations, Fields, Kept, Replaced};

const METADATA: Variables = Fields(&[("annotations", Annotations)]);
const BODY: Variables = Fields(&[("inline", Kept)]);

/// The prefix of this gateway's annotations, which are configuration.
const OURS: &str = "edge-gateway.io/";

impl Variables {
    /// Returns the rule for an object of `kind`.
    pub(super) fn of(kind: Kind) -> Self {
        match kind {
            Kind::ConfigMap => {
                Fields(&[("metadata", METADATA), ("data", Kept), ("binaryData", Kept)])
            }
            Kind::Secret => Fields(&[("metadata", METADATA), ("data", Kept), ("stringData", Kept)]),
            Kind::RouteFilter => Fields(&[
                ("metadata", METADATA),
                ("spec", Fields(&[("directResponse", Fields(&[("body", BODY)]))])),
            ]),
            Kind::Other("BackendTrafficPolicy") => Fields(&[
                ("metadata", METADATA),
                (
                    "spec",
                    Fields(&[(
                        "responseOverride",
                        Fields(&[("response", Fields(&[("body", BODY)]))]),
                    )]),
                ),
            ]),
            Kind::Other("EnvoyExtensionPolicy") => Fields(&[
                ("metadata", METADATA),
                ("spec", Fields(&[("lua", Fields(&[("inline", Kept)]))])),
            ]),
            _ => Fields(&[("metadata", METADATA)]),
        }
    }

    /// Returns the rule for the value of a field. The items of a list have the rule of the list.
    pub(super) fn field(self, name: &str) -> Self {
        match self {
            Annotations if name.starts_with(OURS) => Replaced,
            Annotations => Kept,
            Fields(fields) => {
                let found = fields.iter().find(|(field, _)| *field == name);
                found.map_or(Replaced, |(_, rule)| *rule)
            }
            Kept | Replaced => self,
        }
    }

    /// Returns true if variables are replaced in a text with this rule.
    pub(super) fn are_replaced(self) -> bool {
        !matches!(self, Kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_object_carries_is_kept_as_it_is() {
        // (kind, path, replaced)
        let table: [(Kind, &[&str], bool); 17] = [
            (Kind::ConfigMap, &["data", "entry.sh"], false),
            (Kind::ConfigMap, &["binaryData", "a"], false),
            (Kind::ConfigMap, &["metadata", "name"], true),
            (Kind::ConfigMap, &["metadata", "annotations", "kubectl.kubernetes.io/a"], false),
            (Kind::Secret, &["data", "tls.key"], false),
            (Kind::Secret, &["stringData", "tls.key"], false),
            (Kind::Secret, &["type"], true),
            (Kind::Secret, &["metadata", "annotations", "edge-gateway.io/certbot-lineage"], true),
            (Kind::RouteFilter, &["spec", "directResponse", "body", "inline"], false),
            (Kind::RouteFilter, &["spec", "directResponse", "body", "valueRef", "name"], true),
            (Kind::RouteFilter, &["spec", "directResponse", "contentType"], true),
            (Kind::HttpRoute, &["metadata", "annotations", "a"], false),
            (Kind::HttpRoute, &["metadata", "labels", "a"], true),
            (Kind::HttpRoute, &["spec", "hostnames"], true),
            (
                Kind::Other("BackendTrafficPolicy"),
                &["spec", "responseOverride", "response", "body", "inline"],
                false,
            ),
            (Kind::Other("BackendTrafficPolicy"), &["spec", "rateLimit"], true),
            (Kind::Other("EnvoyExtensionPolicy"), &["spec", "lua", "inline"], false),
        ];
        for (kind, path, want) in table {
            let rule = path.iter().fold(Variables::of(kind), |rule, name| rule.field(name));
            assert_eq!(rule.are_replaced(), want, "{kind} {path:?}");
        }
    }
}
