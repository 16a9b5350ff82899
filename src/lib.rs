//! A gateway for one host: Gateway API files in, TLS and HTTP out.
//!
//! # The rooms
//!
//! Two wings share one type, [`snapshot::Snapshot`]. The control wing turns files into a configuration:
//! [`api`] (the kinds as plain data), [`config`] (texts to objects), [`provider`] (their files), [`graph`]
//! (references, policies, statuses), [`compile`] (the next snapshot). The data wing moves bytes: [`edge`]
//! (workers and sockets), [`downstream`] (connections of clients), [`proxy`] (HTTP), [`streams`] (TCP and
//! UDP), [`filters`], [`upstream`] (backends), [`tls`], [`failure`], [`trace`], [`background`] (tasks beside
//! requests).
//!
//! Above both, [`control`] reloads and drains, and [`app`] starts and stops the process. For operators:
//! [`cli`], [`admin`] (dashboard and admin API), [`metrics`], [`describe`] (a snapshot in words),
//! [`explain`], [`doctor`], and [`kube_api`] (objects as an API server shows them). [`observe`] writes
//! logs, [`stats`] counts, [`systemd`] talks to the service manager.
//!
//! The ground floor: [`body`], [`carry_over`] (state that outlives a reload), [`clock`], [`http_client`]
//! (of commands), [`local_http`] (servers for this host), [`net`] (addresses and names), [`patch`] (patches
//! of JSON), [`path`] (normalisation), [`proxy_protocol`] (its headers), [`secret`], [`stable_hash`],
//! [`yaml`] (the writer). [`echo`] is the server of
//! `edge-gateway echo`, [`fuzz`] has the entry points of `fuzz/`.
//!
//! To see the path of a request, read `proxy/http.rs`; to see a reload, read `control/reload.rs`.
//! `tests/architecture` checks which room may use which.

mod admin;
mod api;
mod app;
mod background;
mod body;
mod carry_over;
pub mod cli;
mod clock;
mod compile;
mod config;
mod control;
mod describe;
mod doctor;
mod downstream;
mod echo;
mod edge;
mod explain;
mod failure;
mod filters;
#[doc(hidden)]
pub mod fuzz;
mod graph;
mod http_client;
mod kube_api;
mod local_http;
mod metrics;
mod net;
mod observe;
mod patch;
mod path;
mod provider;
mod proxy;
mod proxy_protocol;
mod secret;
mod snapshot;
mod stable_hash;
mod stats;
mod streams;
mod systemd;
mod tls;
mod trace;
mod upstream;
mod yaml;
