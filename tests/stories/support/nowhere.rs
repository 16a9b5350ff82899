//! Listeners of connections or datagrams that lead nowhere, each for another reason.

use super::{Gateway, Setup, forward_route, refusing_address};

/// (listener, flags, details)
pub(crate) const NOWHERE: [(&str, &str, &str); 4] = [
    ("refusing", "UF", "upstream_reset_before_response_started{connection_failure}"),
    ("dangling", "NC", "backend_ref_invalid"),
    ("weightless", "NC", "no_backend_ref"),
    ("bare", "NR", "route_not_found"),
];

/// Routes of this kind for them.
pub(crate) fn nowhere(setup: Setup, kind: &str) -> Setup {
    let gone = refusing_address();
    let dangling = format!(
        "\
---
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: dangling, namespace: envoy-gateway-system}}
spec:
  parentRefs: [{{name: eg, sectionName: dangling}}]
  rules: [{{backendRefs: [{{name: nobody, port: 5432}}]}}]
"
    );
    let to_gone = |name: &str, weight| forward_route(kind, name, name, &[], &[(gone, weight)]);
    setup
        .file("routes/refusing.yaml", &to_gone("refusing", 1))
        .file("routes/dangling.yaml", &dangling)
        .file("routes/weightless.yaml", &to_gone("weightless", 0))
}

/// Waits for the line of one of them, and holds it to what it should say.
pub(crate) async fn says_why(gateway: &Gateway, name: &str, flags: &str, details: &str) {
    let listener = format!("envoy-gateway-system/eg/{name}");
    let record = gateway.logged(name, |record| record["listener"] == *listener).await;
    assert_eq!((&record["flags"], &record["details"]), (&flags.into(), &details.into()));
}
