//! Changes: calls that change an object, and their outcomes.

use serde_json::Value;

use crate::api::ObjectKey;

use super::files::FileChange;
use super::kinds::ApiResource;

/// A call that changes an object.
#[derive(Debug)]
pub(crate) struct Change {
    pub(super) resource: &'static ApiResource,
    /// The API version of the kind that the caller uses.
    pub(super) version: String,
    pub(super) namespace: String,
    /// Empty if the new object has its name in the body.
    pub(super) name: String,
    pub(super) verb: Verb,
    pub(super) options: WriteOptions,
}

/// Options from the query.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct WriteOptions {
    pub validation: Validation,
    pub dry_run: bool,
    pub manager: String,
    pub force: bool,
    /// The current time, for timestamps.
    pub now: String,
}

/// The handling of unknown fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Validation {
    Ignore,
    Strict,
    #[default]
    Warn,
}

/// The operation. Its body may contain secrets, so `Debug` prints only the verb.
pub(super) enum Verb {
    Apply(Value),
    Create(Value),
    Delete { uid: Option<String>, version: Option<String> },
    JsonPatch(Value),
    MergePatch(Value),
    StrategicPatch(Value),
    Update(Value),
}

impl std::fmt::Debug for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Apply(_) => "apply",
            Self::Create(_) => "create",
            Self::Delete { .. } => "delete",
            Self::JsonPatch(_) | Self::MergePatch(_) | Self::StrategicPatch(_) => "patch",
            Self::Update(_) => "update",
        })
    }
}

/// A change that is checked and can be made.
#[derive(Debug)]
pub(crate) struct PreparedChange {
    /// The file changes. Empty if nothing has to change.
    pub files: Vec<FileChange>,
    pub key: ObjectKey,
    pub(super) outcome: ChangeOutcome,
    pub(super) warnings: Vec<String>,
}

/// The outcome that is answered after the files are loaded.
pub(super) enum ChangeOutcome {
    Created,
    Deleted(Value),
    /// Nothing is written. `object` is the result of the change.
    DryRun {
        object: Value,
        created: bool,
    },
    Updated,
}

impl std::fmt::Debug for ChangeOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Deleted(_) => "deleted",
            Self::DryRun { .. } => "nothing, as asked for",
            Self::Updated => "updated",
        })
    }
}

/// Formats the change for the log, for example `created HTTPRoute shop/cart`.
impl std::fmt::Display for PreparedChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}", self.outcome, self.key)
    }
}

impl Change {
    /// Returns the requested change as text for the log.
    pub(crate) fn label(&self) -> String {
        let Self { verb, resource, namespace, name, .. } = self;
        let separator = if namespace.is_empty() { "" } else { "/" };
        format!("{verb:?} {} {namespace}{separator}{name}", resource.singular)
    }
}

/// The supported patch types, for the error about an unsupported one.
pub(super) const PATCHES: &str = "application/json-patch+json, application/merge-patch+json, \
                                  application/apply-patch+yaml";
