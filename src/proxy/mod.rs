//! HTTP on downstream connections, from the first request to the last response.
//!
//! `speak.rs` and `speak_http1.rs` run hyper on a connection; `http.rs` handles each request, step by step.
//!
//! Invariant: nothing in this module reads YAML types. A request uses one configuration snapshot
//! from its head to its last byte.

mod acme_webroot;
mod attempt;
mod attempts;
mod balancing;
mod body_progress;
mod client_body;
mod client_claims;
mod client_connection;
mod client_policy;
mod client_protocol;
mod downstream_body;
mod exchange_record;
mod forwarded_fields;
mod gathered_stream;
mod grpc;
mod grpc_web;
mod guard;
mod held;
mod hop_by_hop;
mod http;
mod http1_scan;
mod http2_trailers;
mod http_ended;
mod linger;
mod metered;
mod mirror;
mod noted_fields;
mod request_line;
mod response_body;
mod response_override;
mod response_window;
mod session;
mod shown_fields;
mod speak;
mod speak_http1;
mod stall;
mod stream_tasks;
mod upgrade;
mod websocket;

pub(crate) use acme_webroot::{read as acme_challenge, token as acme_token};
pub(crate) use balancing::{hash as hash_of_request, named_endpoints};
pub(crate) use client_connection::ClientConnection;
pub(crate) use forwarded_fields::ConnectionOrigin;
pub(crate) use guard::admitted_host;
pub(crate) use http_ended::HttpEnded;
pub(crate) use speak::{Speaking, SpokenHttp, speak};
