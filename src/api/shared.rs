//! Types that several kinds share: references, selectors, conditions, session persistence.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de};

use super::duration::Duration;
use super::kinds::{CORE_GROUP, GATEWAY_GROUP};
use super::open_enum::open_enum;

/// `parentRefs[]`: the Gateway (or ListenerSet, or Service) that a route attaches to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ParentReference {
    pub group: Option<String>,
    pub kind: Option<String>,
    /// Default: the route's own namespace.
    pub namespace: Option<String>,
    pub name: String,
    /// The name of one listener. Default: all listeners.
    pub section_name: Option<String>,
    /// Selects the listeners on this port; with `sectionName`, the listener that has both.
    pub port: Option<u16>,
}

impl ParentReference {
    /// Returns the group; default: `gateway.networking.k8s.io`.
    pub(crate) fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(GATEWAY_GROUP)
    }

    /// Returns the kind; default: `Gateway`.
    pub(crate) fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Gateway")
    }
}

/// A reference to a backend without a weight, as in a mirror.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackendObjectReference {
    pub group: Option<String>,
    pub kind: Option<String>,
    pub name: String,
    /// Default: the route's own namespace.
    pub namespace: Option<String>,
    /// Required for a Service; ignored for a Backend.
    pub port: Option<u16>,
}

impl BackendObjectReference {
    pub(crate) fn object(&self) -> BackendName<'_> {
        let Self { group, kind, name, namespace, port } = self;
        let (group, kind) = (group.as_deref(), kind.as_deref());
        BackendName { group, kind, name, namespace: namespace.as_deref(), port: *port }
    }
}

/// The object that a reference to a backend names, whatever the type of the reference.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackendName<'r> {
    pub group: Option<&'r str>,
    pub kind: Option<&'r str>,
    pub name: &'r str,
    /// Default: the route's own namespace.
    pub namespace: Option<&'r str>,
    /// Required for a Service; ignored for a Backend.
    pub port: Option<u16>,
}

impl<'r> BackendName<'r> {
    /// Returns the group; default: the core group, `""`.
    pub(crate) fn group(&self) -> &'r str {
        self.group.unwrap_or(CORE_GROUP)
    }

    /// Returns the kind; default: `Service`.
    pub(crate) fn kind(&self) -> &'r str {
        self.kind.unwrap_or("Service")
    }
}

/// `backendRefs[]` of a route with filters of type `F`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "F: Deserialize<'de>"))]
pub(crate) struct BackendRef<F> {
    pub group: Option<String>,
    pub kind: Option<String>,
    pub name: String,
    /// Default: the route's own namespace.
    pub namespace: Option<String>,
    /// Required for a Service; ignored for a Backend.
    pub port: Option<u16>,
    pub weight: Option<u32>,
    #[serde(default)]
    pub filters: Vec<F>,
}

impl<F> BackendRef<F> {
    /// Returns the weight; default: 1. A backend of weight 0 gets no traffic.
    pub(crate) fn weight(&self) -> u32 {
        self.weight.unwrap_or(1)
    }

    /// Returns the object that is referred to.
    pub(crate) fn object(&self) -> BackendName<'_> {
        let (group, kind) = (self.group.as_deref(), self.kind.as_deref());
        let namespace = self.namespace.as_deref();
        BackendName { group, kind, name: &self.name, namespace, port: self.port }
    }
}

/// `backendRefs[]` of a route without filters.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PlainBackendRef {
    pub group: Option<String>,
    pub kind: Option<String>,
    pub name: String,
    /// Default: the route's own namespace.
    pub namespace: Option<String>,
    /// Required for a Service; ignored for a Backend.
    pub port: Option<u16>,
    pub weight: Option<u32>,
}

impl PlainBackendRef {
    /// Returns the weight; default: 1. A backend of weight 0 gets no traffic.
    pub(crate) fn weight(&self) -> u32 {
        self.weight.unwrap_or(1)
    }

    /// Returns the object that is referred to.
    pub(crate) fn object(&self) -> BackendName<'_> {
        let (group, kind) = (self.group.as_deref(), self.kind.as_deref());
        let namespace = self.namespace.as_deref();
        BackendName { group, kind, name: &self.name, namespace, port: self.port }
    }
}

/// `certificateRefs[]` and `clientCertificateRef`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecretObjectReference {
    pub group: Option<String>,
    pub kind: Option<String>,
    pub name: String,
    /// Default: the namespace of the referring object.
    pub namespace: Option<String>,
}

impl SecretObjectReference {
    /// Returns the group; default: the core group, `""`.
    pub(crate) fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(CORE_GROUP)
    }

    /// Returns the kind; default: `Secret`.
    pub(crate) fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Secret")
    }
}

/// A reference with explicit group and kind, possibly to another namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ObjectReference {
    pub group: String,
    pub kind: String,
    pub name: String,
    pub namespace: Option<String>,
}

/// A reference with explicit group and kind, in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LocalObjectReference {
    pub group: String,
    pub kind: String,
    pub name: String,
}

/// A selector by labels. Both lists must match; an empty selector matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LabelSelector {
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

impl LabelSelector {
    /// Returns true if an object with these labels is selected. An unknown operator selects
    /// nothing.
    pub(crate) fn accepts(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| {
                let value = labels.get(&requirement.key);
                match requirement.operator {
                    LabelSelectorOperator::In => {
                        value.is_some_and(|value| requirement.values.contains(value))
                    }
                    LabelSelectorOperator::NotIn => {
                        value.is_none_or(|value| !requirement.values.contains(value))
                    }
                    LabelSelectorOperator::Exists => value.is_some(),
                    LabelSelectorOperator::DoesNotExist => value.is_none(),
                    LabelSelectorOperator::Unknown(_) => false,
                }
            })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LabelSelectorRequirement {
    pub key: String,
    pub operator: LabelSelectorOperator,
    #[serde(default)]
    pub values: Vec<String>,
}

open_enum! {
    LabelSelectorOperator {
        In = "In",
        NotIn = "NotIn",
        Exists = "Exists",
        DoesNotExist = "DoesNotExist",
    }
}

open_enum! {
    /// The comparison of a header, a query parameter or a gRPC method. Default: `Exact`.
    MatchType {
        Exact = "Exact",
        RegularExpression = "RegularExpression",
    }
}

open_enum! {
    /// `defaultScope` and `useDefaultGateways` (experimental).
    DefaultScope {
        All = "All",
        None = "None",
    }
}

/// A fraction: `numerator` of `denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Fraction {
    pub numerator: u32,
    pub denominator: Option<u32>,
}

impl Fraction {
    /// Returns the denominator; default: 100.
    pub(crate) fn denominator(&self) -> u32 {
        self.denominator.unwrap_or(100)
    }
}

/// `sessionPersistence` (experimental, GEP-1619).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionPersistence {
    pub session_name: Option<String>,
    pub absolute_timeout: Option<Duration>,
    #[serde(rename = "type")]
    pub kind: Option<SessionPersistenceType>,
    pub cookie_config: Option<CookieConfig>,
}

impl SessionPersistence {
    /// Returns the kind; default: `Cookie`.
    pub(crate) fn kind(&self) -> &SessionPersistenceType {
        self.kind.as_ref().unwrap_or(&SessionPersistenceType::Cookie)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CookieConfig {
    /// Default: `Session`.
    pub lifetime_type: Option<CookieLifetime>,
}

open_enum! {
    SessionPersistenceType {
        Cookie = "Cookie",
        Header = "Header",
    }
}

open_enum! {
    CookieLifetime {
        Permanent = "Permanent",
        Session = "Session",
    }
}

/// A point in time in the format of RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Timestamp(pub jiff::Timestamp);

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// The schema recognises timestamps by this name.
        #[derive(Deserialize)]
        #[serde(rename = "Timestamp")]
        struct Text(String);

        let Text(text) = Text::deserialize(from)?;
        text.parse().map(Self).map_err(|_| {
            de::Error::custom(format_args!(
                "`{text}` is not a time; write it like `2026-01-31T12:00:00Z`"
            ))
        })
    }
}

/// One condition of an object's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    /// `Accepted`, `ResolvedRefs`, `Programmed`, ...
    pub kind: &'static str,
    pub status: ConditionStatus,
    /// A word of the specification.
    pub reason: &'static str,
    pub message: String,
    /// The time since which the status has this value; `None` if no previous load is known.
    pub last_transition: Option<jiff::Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConditionStatus {
    True,
    False,
}

impl std::fmt::Display for ConditionStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::True => "True",
            Self::False => "False",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_takes_what_every_part_of_it_takes() {
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
        };
        let selector = |operator: &str, values: &[&str]| LabelSelector {
            match_labels: labels(&[("team", "a")]),
            match_expressions: vec![LabelSelectorRequirement {
                key: "tier".into(),
                operator: LabelSelectorOperator::from(operator.to_owned()),
                values: values.iter().map(|value| (*value).into()).collect(),
            }],
        };
        let web = [("team", "a"), ("tier", "web")];
        let bare = [("team", "a")];

        // (operator, values, labels, selected)
        type Row<'a> = (&'a str, &'a [&'a str], &'a [(&'a str, &'a str)], bool);
        let table: [Row<'_>; 9] = [
            ("In", &["web", "api"], &web, true),
            ("In", &["web"], &bare, false),
            ("NotIn", &["web"], &web, false),
            ("NotIn", &["web"], &bare, true),
            ("Exists", &[], &web, true),
            ("Exists", &[], &bare, false),
            ("DoesNotExist", &[], &bare, true),
            ("Gt", &["1"], &web, false),
            ("Exists", &[], &[("tier", "web")], false),
        ];
        for (operator, values, on, want) in table {
            let got = selector(operator, values).accepts(&labels(on));
            assert_eq!(got, want, "{operator} {values:?} on {on:?}");
        }
        assert!(LabelSelector::default().accepts(&labels(&[])));
    }
}
