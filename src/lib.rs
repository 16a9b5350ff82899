//! A gateway for one host: Gateway API files in, TLS and HTTP out.
//!
//! # The house
//!
//! Two wings and one door. The control wing turns files into meaning: [`api`] (what may be
//! written), [`config`] (what was written, and where), [`graph`] (what refers to what),
//! [`compile`] (what will run). The data wing moves bytes: [`tls`], [`upstream`], [`filters`],
//! [`proxy`]. They meet in [`snapshot`], which `compile` fills and `proxy` reads.
//!
//! To see where a request goes, read `proxy/http.rs`. To see how a reload goes, read
//! `control/reload.rs`. Which room may use which is checked by `tests/architecture.rs`.

mod admin;
mod api;
mod app;
mod ask;
mod body;
pub mod cli;
mod clock;
mod compile;
mod config;
mod control;
mod doctor;
mod echo;
mod explain;
mod filters;
#[doc(hidden)]
pub mod fuzz;
mod graph;
mod kube_api;
mod loopback;
mod metrics;
mod net;
mod observe;
mod proxy;
mod secret;
mod snapshot;
mod stats;
mod systemd;
mod tls;
mod trace;
mod upstream;
mod yaml;
