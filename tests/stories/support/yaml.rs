//! Objects as an operator writes them.

use std::net::SocketAddr;

/// The control plane's document; its paths lie below `--config-root`.
pub(crate) const ENVOY_GATEWAY: &str = "\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyGateway
provider:
  type: Custom
  custom:
    resource:
      type: File
      file:
        paths:
          - /etc/envoy-gateway/common
          - /etc/envoy-gateway/routes
    infrastructure:
      type: Host
      host: {}
extensionApis:
  enableBackend: true
";

pub(crate) const GATEWAY_CLASS: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata:
  name: eg
spec:
  controllerName: gateway.envoyproxy.io/gatewayclass-controller
";

/// The Gateway of most stories: `http` and `https`, no hostname, one certificate.
pub(crate) const GATEWAY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: eg
  namespace: envoy-gateway-system
spec:
  gatewayClassName: eg
  listeners:
    - name: http
      protocol: HTTP
      port: 8080
    - name: https
      protocol: HTTPS
      port: 8443
      tls:
        mode: Terminate
        certificateRefs:
          - kind: Secret
            name: eih-tls-cert
";

/// A Backend of HTTP/1.1 at `addresses`.
pub(crate) fn backend(name: &str, addresses: &[SocketAddr]) -> String {
    let endpoints: String = addresses
        .iter()
        .map(|address| {
            format!(
                "    - ip:\n        address: {}\n        port: {}\n",
                address.ip(),
                address.port()
            )
        })
        .collect();
    format!(
        "---\n\
         apiVersion: gateway.envoyproxy.io/v1alpha1\n\
         kind: Backend\n\
         metadata:\n  name: {name}\n  namespace: envoy-gateway-system\n\
         spec:\n  endpoints:\n{endpoints}"
    )
}

/// A Backend that speaks HTTP/2 without TLS.
pub(crate) fn h2c_backend(name: &str, addresses: &[SocketAddr]) -> String {
    format!("{}  appProtocols:\n    - gateway.envoyproxy.io/h2c\n", backend(name, addresses))
}

/// An HTTPRoute of the Gateway for `hosts` (all if there are none); `rules` is a YAML list, written
/// at the left edge.
pub(crate) fn http_route(name: &str, hosts: &[&str], rules: &str) -> String {
    let mut text = format!(
        "---\n\
         apiVersion: gateway.networking.k8s.io/v1\n\
         kind: HTTPRoute\n\
         metadata:\n  name: {name}\n  namespace: envoy-gateway-system\n\
         spec:\n  parentRefs:\n    - name: eg\n"
    );
    if !hosts.is_empty() {
        text.push_str("  hostnames:\n");
        for host in hosts {
            text.push_str(&format!("    - \"{host}\"\n"));
        }
    }
    text.push_str("  rules:\n");
    for line in rules.lines() {
        text.push_str(&format!("    {line}\n"));
    }
    text
}

/// A rule that sends the paths below `prefix` to the Backend `name`.
pub(crate) fn rule_to(prefix: &str, name: &str) -> String {
    format!(
        "- matches:\n    - path:\n        type: PathPrefix\n        value: {prefix}\n  \
         backendRefs:\n    - group: gateway.envoyproxy.io\n      kind: Backend\n      name: {name}\n"
    )
}

/// Backend and route `name`: everything for `host` goes to `addresses`.
pub(crate) fn serve_all(name: &str, host: &str, addresses: &[SocketAddr]) -> String {
    format!("{}{}", backend(name, addresses), http_route(name, &[host], &rule_to("/", name)))
}

/// The Gateway of [`GATEWAY`] with these listeners, a YAML list written at the left edge.
pub(crate) fn gateway_of(listeners: &str) -> String {
    let (head, _) = GATEWAY.split_once("    - name: http\n").unwrap();
    let listeners = listeners.lines().map(|line| format!("    {line}\n"));
    format!("{head}{}", listeners.collect::<String>())
}

/// A route of `kind` that is no HTTP, for the listener `section` of the Gateway, with a Backend for
/// each address and the weight that it has.
pub(crate) fn forward_route(
    kind: &str,
    name: &str,
    section: &str,
    hosts: &[&str],
    backends: &[(SocketAddr, u32)],
) -> String {
    let mut text = String::new();
    let mut refs = String::new();
    for (place, (address, weight)) in backends.iter().enumerate() {
        let backend_name = format!("{name}-{place}");
        text.push_str(&backend(&backend_name, &[*address]));
        refs.push_str(&format!(
            "        - {{group: gateway.envoyproxy.io, kind: Backend, name: {backend_name}, \
             weight: {weight}}}\n"
        ));
    }
    let hosts: String = hosts.iter().map(|host| format!("    - \"{host}\"\n")).collect();
    let hosts = if hosts.is_empty() { hosts } else { format!("  hostnames:\n{hosts}") };
    text + &format!(
        "---\n\
         apiVersion: gateway.networking.k8s.io/v1\n\
         kind: {kind}\n\
         metadata:\n  name: {name}\n  namespace: envoy-gateway-system\n\
         spec:\n  parentRefs:\n    - name: eg\n      sectionName: {section}\n\
         {hosts}  rules:\n    - backendRefs:\n{refs}"
    )
}
