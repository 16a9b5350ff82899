//! HTTP filters: what a rule does to a request before it is forwarded, and to its response.
//!
//! One file per filter, a directory for a large one. A filter is a plain struct that was checked
//! when the snapshot was compiled, so running it cannot fail on bad configuration. To add one: its
//! file, with an implementation of [`HttpFilter`], its lines here, and one arm where `compile`
//! builds it. `chain.rs` runs them.
//!
//! A filter that sees the body of a response wraps it in `on_response`; one that reads that of a request
//! does so in `on_request_body`.
//!
//! Invariant: nothing here reads YAML types, opens a socket or looks at a clock.

pub(crate) mod authorization;
mod broken;
mod chain;
pub(crate) mod coding;
pub(crate) mod compressor;
pub(crate) mod cors;
mod credential_injection;
pub(crate) mod csrf;
pub(crate) mod direct_response;
pub(crate) mod exchange;
pub(crate) mod fault_injection;
mod field_changes;
mod filter_enum;
pub(crate) mod header_modifier;
mod http_filter;
mod matching;
pub(crate) mod path_modifier;
pub(crate) mod query;
pub(crate) mod rate_limit;
pub(crate) mod redirect;
mod request_buffer;
#[cfg(test)]
pub(crate) mod testing;
mod upgrades;
pub(crate) mod url_rewrite;
mod verdict;

pub(crate) use authorization::Authorization;
pub(crate) use broken::Broken;
pub(crate) use chain::{on_failure, on_refusal, on_request, on_request_body, on_response};
pub(crate) use coding::Coding;
pub(crate) use compressor::Compressor;
pub(crate) use cors::Cors;
pub(crate) use credential_injection::CredentialInjection;
pub(crate) use csrf::Csrf;
pub(crate) use direct_response::DirectResponse;
pub(crate) use exchange::{Exchange, HostName, Scheme};
pub(crate) use fault_injection::FaultInjection;
pub(crate) use field_changes::{FieldChanges, NameMatch, Put};
pub(crate) use header_modifier::{HeaderModifier, RequestHeaders, ResponseHeaders};
pub(crate) use http_filter::{HttpFilter, Phase};
pub(crate) use matching::{PathMatch, ValueMatch};
pub(crate) use path_modifier::PathModifier;
pub(crate) use rate_limit::RateLimit;
pub(crate) use redirect::Redirect;
pub(crate) use request_buffer::RequestBuffer;
pub(crate) use upgrades::Upgrades;
pub(crate) use url_rewrite::UrlRewrite;
pub(crate) use verdict::{Stop, Verdict};

use filter_enum::filter_enum;

filter_enum! {
    /// One filter of a rule.
    pub(crate) enum Filter {
        Authorization(Authorization),
        Broken(Broken),
        Compressor(Compressor),
        Cors(Cors),
        CredentialInjection(CredentialInjection),
        Csrf(Csrf),
        DirectResponse(DirectResponse),
        FaultInjection(FaultInjection),
        RateLimit(RateLimit),
        Redirect(Redirect),
        RequestBuffer(RequestBuffer),
        RequestHeaders(RequestHeaders),
        ResponseHeaders(ResponseHeaders),
        Upgrades(Upgrades),
        UrlRewrite(UrlRewrite),
    }
}
