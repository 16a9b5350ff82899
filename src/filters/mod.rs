//! HTTP filters: what a rule does to a request before it is forwarded, and to its response.
//!
//! One file per filter, a directory for a large one. A filter is a plain struct that was checked
//! when the snapshot was compiled, so running it cannot fail on bad configuration. To add one: its
//! file, with an implementation of [`HttpFilter`], its lines here, and one arm where `compile`
//! builds it. `chain.rs` runs them.
//!
//! Absent: a filter does not see bodies. One that does (a limit on the length of a request, a
//! transformation) gets a method `on_body(&self, &Exchange, Frame)` beside `on_response`, and
//! `proxy/http.rs` wraps the request's body where `chain::passed` has such a filter, and only there.
//!
//! Invariant: nothing here reads YAML types, opens a socket or looks at a clock.

pub(crate) mod authorization;
mod broken;
mod chain;
pub(crate) mod cors;
mod credential_injection;
pub(crate) mod direct_response;
pub(crate) mod exchange;
mod field_changes;
mod filter_enum;
pub(crate) mod header_modifier;
mod http_filter;
mod matching;
pub(crate) mod path_modifier;
pub(crate) mod query;
pub(crate) mod rate_limit;
pub(crate) mod redirect;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod url_rewrite;
mod verdict;

pub(crate) use authorization::Authorization;
pub(crate) use broken::Broken;
pub(crate) use chain::{on_failure, on_refusal, on_request, on_response};
pub(crate) use cors::Cors;
pub(crate) use credential_injection::CredentialInjection;
pub(crate) use direct_response::DirectResponse;
pub(crate) use exchange::{Exchange, HostName, Scheme};
pub(crate) use field_changes::{FieldChanges, NameMatch, Put};
pub(crate) use header_modifier::{HeaderModifier, RequestHeaders, ResponseHeaders};
pub(crate) use http_filter::{HttpFilter, Phase};
pub(crate) use matching::{PathMatch, ValueMatch};
pub(crate) use path_modifier::PathModifier;
pub(crate) use rate_limit::RateLimit;
pub(crate) use redirect::Redirect;
pub(crate) use url_rewrite::UrlRewrite;
pub(crate) use verdict::{Stop, Verdict};

use filter_enum::filter_enum;

filter_enum! {
    /// One filter of a rule.
    pub(crate) enum Filter {
        Authorization(Authorization),
        Broken(Broken),
        Cors(Cors),
        CredentialInjection(CredentialInjection),
        DirectResponse(DirectResponse),
        RateLimit(RateLimit),
        Redirect(Redirect),
        RequestHeaders(RequestHeaders),
        ResponseHeaders(ResponseHeaders),
        UrlRewrite(UrlRewrite),
    }
}
