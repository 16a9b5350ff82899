//! Health checks of backends, on the wire.

mod active;
mod passive;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use crate::metrics::{scrape, value};
use crate::support::{Answer, Gateway, Origin, soon};

/// A BackendTrafficPolicy for one target with these fields, a YAML flow mapping without braces.
fn policy(target: &str, fields: &str) -> String {
    format!(
        "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: BackendTrafficPolicy\n\
         metadata: {{name: health, namespace: envoy-gateway-system}}\nspec:\n  \
         targetRefs: [{{group: gateway.networking.k8s.io, {target}}}]\n  healthCheck: {{{fields}}}\n"
    )
}

/// A policy of route `shop`.
fn of_shop(fields: &str) -> String {
    policy("kind: HTTPRoute, name: shop", fields)
}

/// An origin whose requests and checks (`/health`) get statuses that a test changes.
struct Sick {
    origin: Origin,
    status: Arc<AtomicU16>,
    health: Arc<AtomicU16>,
    checks: Arc<AtomicUsize>,
}

impl Sick {
    async fn new(name: &'static str) -> Self {
        let status = Arc::new(AtomicU16::new(200));
        let health = Arc::new(AtomicU16::new(200));
        let checks = Arc::new(AtomicUsize::new(0));
        let (of_requests, of_checks) = (Arc::clone(&status), Arc::clone(&health));
        let count = Arc::clone(&checks);
        let origin = Origin::scripted(move |seen| match &*seen.target() {
            "/health" => {
                count.fetch_add(1, Ordering::SeqCst);
                Answer::status(of_checks.load(Ordering::SeqCst), "checked")
            }
            _ => Answer::status(of_requests.load(Ordering::SeqCst), name),
        })
        .await;
        Self { origin, status, health, checks }
    }

    fn address(&self) -> SocketAddr {
        self.origin.address
    }

    /// The requests that were not checks.
    fn served(&self) -> usize {
        self.origin.targets().iter().filter(|target| *target != "/health").count()
    }
}

/// The value of a metric of route `kind`/`name`.
async fn metric(at: SocketAddr, name: &str, route: &str) -> f64 {
    let rule = format!("{route}/rule/0");
    value(&scrape(at).await, &format!("envoy_cluster_{name}{{envoy_cluster_name=\"{rule}\"}}"))
}

const SHOP: &str = "httproute/envoy-gateway-system/shop";

/// Waits until a metric of route `shop` has a value.
async fn becomes(at: SocketAddr, name: &str, want: f64) {
    let what = format!("{name} becomes {want}");
    soon(&what, async {
        while (metric(at, name, SHOP).await - want).abs() > 1e-9 {
            // What is waited for is the state of another process.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// The answers to a number of requests for `shop.test`, one after the other.
async fn answers(gateway: &Gateway, count: usize) -> Vec<String> {
    let mut answers = Vec::new();
    for _ in 0..count {
        let reply = gateway.get("http://shop.test/").await;
        answers.push(format!("{} {}", reply.status(), reply.text().trim_end()));
    }
    answers
}
