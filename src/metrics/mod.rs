//! What the gateway counted, as a text for a scraper.
//!
//! Names, types and labels are Envoy's where Envoy has the metric, so that what was drawn of Envoy is
//! drawn of us: times in milliseconds, a rule of a route where Envoy has a cluster. What is ours
//! alone begins with `edge_gateway_` and follows Prometheus: seconds and bytes.
//!
//! Invariants: no label comes from a client, and the text stays bounded: beyond 250 rules the
//! busiest are told in full, and of the others what an alert needs.

mod downstream;
mod exposition;
mod listen;
mod proc_figures;
mod scrape;
mod server;
mod upstream;

pub(crate) use exposition::Format;
pub(crate) use listen::serve;
pub(crate) use scrape::Metrics;
pub(crate) use server::State;
