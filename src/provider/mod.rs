//! The provider of the objects of a load: files today.
//!
//! [`load`] reads the files that the settings name and gives [`Loaded`]: objects that are held against
//! the rules of their kind, for `graph` and `compile`, which know nothing of files. What those find
//! wrong comes back as [`Fault`](crate::config::Fault)s, and [`Loaded::diagnostics`] finds the places,
//! since the provider alone knows where objects come from.

mod files;
mod load;
mod loaded;
#[cfg(test)]
mod tests;

pub(crate) use self::files::{FilePrint, fingerprint, is_configuration};
pub(crate) use self::load::{is_unchanged, load, load_kept, parse_bytes};
pub(crate) use self::loaded::{Loaded, SourceFile};
