//! Changes: a call that changes an object, and its answer.

use serde_json::Value;

use crate::api::ObjectKey;

use super::files::FileChange;
use super::kinds::ApiResource;

/// A call that changes something.
#[derive(Debug)]
pub(crate) struct Change {
    pub(super) resource: &'static ApiResource,
    /// The version of the kind in which the caller speaks.
    pub(super) version: String,
    pub(super) namespace: String,
    /// Empty where a new object says it itself.
    pub(super) name: String,
    pub(super) verb: Verb,
    pub(super) options: WriteOptions,
}

/// What the query says beside the path.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct WriteOptions {
    pub validation: Validation,
    pub dry_run: bool,
    pub manager: String,
    pub force: bool,
    /// Now, for what gets a time.
    pub now: String,
}

/// What is done about fields that are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Validation {
    Ignore,
    Strict,
    #[default]
    Warn,
}

/// The operation. Its body may hold secrets, so it prints as its verb alone.
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

/// A change that can be made.
#[derive(Debug)]
pub(crate) struct PreparedChange {
    /// Empty where everything is as it should be.
    pub files: Vec<FileChange>,
    pub key: ObjectKey,
    pub(super) outcome: ChangeOutcome,
    pub(super) warnings: Vec<String>,
}

/// What is answered once the files are loaded.
pub(super) enum ChangeOutcome {
    Created,
    Deleted(Value),
    /// Nothing is written: this is what it would be.
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

/// `created HTTPRoute shop/cart`, for the log.
impl std::fmt::Display for PreparedChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}", self.outcome, self.key)
    }
}

impl Change {
    /// Says in a line of the log what is wanted.
    pub(crate) fn label(&self) -> String {
        let Self { verb, resource, namespace, name, .. } = self;
        let separator = if namespace.is_empty() { "" } else { "/" };
        format!("{verb:?} {} {namespace}{separator}{name}", resource.singular)
    }
}

/// The patches that are known, for the one that is not.
pub(super) const PATCHES: &str = "application/json-patch+json, application/merge-patch+json, \
                                  application/apply-patch+yaml";
