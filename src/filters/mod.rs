//! HTTP filters: what a rule does to a request before it is forwarded, and to its response.
//!
//! One file per filter. A filter is a plain struct that was checked when the snapshot was
//! compiled, so running it cannot fail on bad configuration. To add one: its file, one variant of
//! [`Filter`], and one arm where `compile` builds it; the compiler names the rest.
//!
//! Invariant: nothing here reads YAML types, opens a socket or looks at the wall clock.

pub(crate) mod cors;
pub(crate) mod direct_response;
pub(crate) mod exchange;
mod filter;
pub(crate) mod header_modifier;
pub(crate) mod path_modifier;
pub(crate) mod redirect;
pub(crate) mod url_rewrite;
mod verdict;

pub(crate) use cors::Cors;
pub(crate) use direct_response::DirectResponse;
pub(crate) use exchange::{Exchange, HostName, Scheme};
pub(crate) use filter::Filter;
pub(crate) use header_modifier::HeaderModifier;
pub(crate) use path_modifier::PathModifier;
pub(crate) use redirect::Redirect;
pub(crate) use url_rewrite::UrlRewrite;
pub(crate) use verdict::Verdict;
