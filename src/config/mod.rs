//! Configuration text: turns documents into objects and reports their faults.
//!
//! [`read()`] takes a text and finds all its faults at once; it never stops at the first. A document
//! that does not decode makes the load fail ([`Diagnostic::fatal`]). An object that breaks a rule
//! of its kind ([`CheckedObject::faults`]) is kept and marked, so that `graph` can report it in the
//! object's status.
//!
//! The path of a document: [`text`] and [`yaml`] make a tree of it, [`objects`] reads its kind and
//! then the whole with [`decode`], [`validate`] checks it against the rules of its kind. [`source`]
//! finds the place of a field later. [`schema`](mod@schema) describes the fields of a kind.
//!
//! The only file that this module reads is the EnvoyGateway document ([`Settings`]); `provider`
//! reads the others.

mod checked;
mod decode;
mod diagnostic;
mod environment;
mod fault;
mod field_path;
mod file_origin;
mod json;
mod names;
mod objects;
mod offered;
mod path;
mod read;
mod scalar;
mod schema;
mod settings;
mod simple_yaml;
mod source;
mod suggest;
mod text;
mod tree;
mod tree_builder;
mod validate;
mod variables;
mod written;
mod yaml;

pub(crate) use self::checked::CheckedObject;
pub(crate) use self::decode::Environment;
#[cfg(test)]
pub(crate) use self::diagnostic::Position;
pub(crate) use self::diagnostic::{Diagnostic, Place};
pub(crate) use self::environment::{DOMAIN, fault_of_domain, value_of};
pub(crate) use self::fault::{Fault, Origin, Reason, Severity};
pub(crate) use self::field_path::{FieldPath, field_path};
pub(crate) use self::file_origin::FileOrigin;
pub(crate) use self::json::read_yaml;
pub(crate) use self::names::is_hostname;
pub(crate) use self::offered::{Rejected, for_file, offered};
pub(crate) use self::read::read;
pub(crate) use self::schema::schema;
#[cfg(test)]
pub(crate) use self::settings::DEFAULT_CONTROLLER;
pub(crate) use self::settings::Settings;
pub(crate) use self::source::SourceMap;
pub(crate) use self::suggest::nearest;
pub(crate) use self::validate::{is_origin, is_path};
pub(crate) use self::written::Written;
pub(crate) use self::yaml::reads_as_parsed;
