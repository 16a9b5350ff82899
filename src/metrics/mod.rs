//! Metrics in the text format of Prometheus.
//!
//! Names, types and labels are Envoy's where Envoy has the metric, so that dashboards made for
//! Envoy work: times are in milliseconds, and a rule of a route takes the place of Envoy's cluster.
//! The gateway's own metrics begin with `edge_gateway_` and follow the conventions of Prometheus:
//! seconds and bytes.
//!
//! Invariants: no label comes from a client, and the size of the text is bounded: with more than
//! 250 rules, only the busiest have all metrics, and the others have those that an alert needs.

mod downstream;
mod exposition;
mod health;
mod listen;
mod proc_figures;
mod scrape;
mod server;
mod upstream;

pub(crate) use exposition::Format;
pub(crate) use listen::serve;
pub(crate) use scrape::Metrics;
pub(crate) use server::State;
