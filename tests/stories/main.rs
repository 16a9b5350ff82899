//! What users of the gateway live through, told against the real binary.
//!
//! One file per theme; the actors are in `support`. The gateway is started as systemd starts it:
//! it is given its sockets and says when it is ready, so no story needs a fixed port or a sleep to
//! begin with. What a backend received decides, in bytes, not the status code alone.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on must stop")]
#![allow(clippy::large_futures, reason = "a story is one future and runs once")]
#![allow(clippy::disallowed_methods, reason = "the stories run outside the gateway and its clock")]

mod abuse;
mod access_log;
mod acme;
mod addresses;
mod admin;
mod backend_tls;
mod balance;
mod bodies;
mod bounds;
mod certificates;
mod client_certificates;
mod client_connections;
mod client_policies;
mod commands;
mod credentials;
mod dashboard;
mod deployment;
mod dev;
mod drain;
mod explain;
mod forwarded;
mod forwarding;
mod grpc;
mod grpc_web;
mod h2spec;
mod health;
mod hold;
mod http2;
mod incomplete;
mod kube_api;
mod last_word;
mod limits;
mod load_balancer;
mod metrics;
mod mistakes;
mod names;
#[path = "../needs/mod.rs"]
mod needs;
mod not_processed;
mod operator;
mod parked;
mod patience;
mod policies;
mod proxy_protocol;
mod redirect;
mod reload;
mod restart;
mod retry;
mod routing;
mod session;
mod signals;
mod slow_load;
mod support;
mod systemd;
mod tcp_route;
mod tls;
mod tls_route;
mod tracing;
mod traffic;
mod traffic_http2;
mod traffic_limits;
mod udp_route;
mod upgrade;
mod wire_framing;
mod wire_h2;
mod wire_hop;
mod wire_paths;
mod wire_syntax;
mod wire_upstream;
