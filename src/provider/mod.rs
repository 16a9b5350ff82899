//! The provider of the objects of a load; today the only provider is files.
//!
//! [`load()`] reads the files that the settings name and returns [`Loaded`]: objects that are checked
//! against the rules of their kind, for `graph` and `compile`, which know nothing of files. Their
//! findings come back as [`Fault`](crate::config::Fault)s, and [`Loaded::diagnostics`] adds the
//! places, since only the provider knows where objects come from.

mod files;
mod load;
mod loaded;
#[cfg(test)]
mod tests;

pub(crate) use self::files::{FilePrint, fingerprint, is_configuration};
pub(crate) use self::load::{is_unchanged, load, load_kept, parse_bytes};
pub(crate) use self::loaded::{Loaded, SourceFile};
