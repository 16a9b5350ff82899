//! A gateway for one host: Gateway API files in, TLS and HTTP out.
//!
//! # The house
//!
//! Two wings and one door. The control wing turns files into meaning: [`api`] (the kinds that may be
//! written), [`config`] (texts to objects), [`provider`] (their files), [`graph`] (references between objects),
//! [`compile`] (the next snapshot). The data wing moves bytes: [`tls`], [`upstream`], [`filters`],
//! [`downstream`] (connections from clients), [`proxy`] (HTTP), [`streams`] (bytes and datagrams),
//! [`edge`] (workers and sockets), [`background`] (tasks beside them), [`failure`], [`trace`]. They meet in [`snapshot`], which `compile`
//! fills and `proxy` reads.
//!
//! Above both, [`control`] reloads and drains, and [`app`] starts and stops the process. For
//! operators: [`cli`] (commands), [`admin`] (the dashboard and its API), [`metrics`], [`describe`] (a
//! snapshot in words), [`explain`], [`doctor`], and [`kube_api`] (objects as an API server shows them). [`observe`] writes logs,
//! [`stats`] counts, [`systemd`] speaks to the service manager.
//!
//! Small rooms on the ground: [`http_client`] (of commands), [`local_http`] (servers for this host),
//! [`body`], [`carry_over`] (state that outlives a reload), [`clock`], [`net`] (addresses and names),
//! [`patch`] (patches of JSON), [`path`] (their one spelling), [`secret`], [`yaml`] (the
//! writer). [`echo`] is the server of `edge-gateway echo`, [`fuzz`] the entrance for `fuzz/`.
//!
//! To see where a request goes, read `proxy/http.rs`. To see how a reload goes, read
//! `control/reload.rs`. `tests/architecture` checks which room may use which.

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
mod secret;
mod snapshot;
mod stats;
mod streams;
mod systemd;
mod tls;
mod trace;
mod upstream;
mod yaml;
