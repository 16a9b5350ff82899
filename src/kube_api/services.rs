//! A Service for each served Gateway, so that clients that look for one find the addresses.
//!
//! In a cluster, resources are created for a Gateway, with a Service in front of them. Here the
//! Gateway is this process: the Service describes the gateway's own sockets, no traffic is routed
//! to it, and it cannot be changed. It has the labels and annotations of `spec.infrastructure`
//! (GEP-1762, GEP-1867).

use serde_json::{Map, Value, json};

use crate::api::{Kind, ObjectKey};

/// The maximum length of a Service's name in characters.
const LONGEST: usize = 63;

/// Returns the Service of a Gateway, if the Gateway has addresses. It has the form of a written
/// object, with its status.
pub(super) fn of(gateway: &Value) -> Option<(ObjectKey, Value)> {
    let text = |path: &str| gateway.pointer(path).and_then(Value::as_str);
    let (namespace, name) = (text("/metadata/namespace")?, text("/metadata/name")?);
    let class = text("/spec/gatewayClassName")?;
    let addresses: Vec<Value> = gateway
        .pointer("/status/addresses")?
        .as_array()?
        .iter()
        .filter(|address| address.get("type").is_none_or(|kind| kind == "IPAddress"))
        .filter_map(|address| address.get("value"))
        .map(|ip| json!({ "ip": ip }))
        .collect();
    if addresses.is_empty() {
        return None;
    }
    let part = |field: &str| -> Map<String, Value> {
        let path = format!("/spec/infrastructure/{field}");
        gateway.pointer(&path).and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let mut labels = part("labels");
    labels.insert("gateway.networking.k8s.io/gateway-name".into(), name.into());
    labels.insert("gateway.networking.k8s.io/gateway-class-name".into(), class.into());
    let own = service_name(name, class);
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": own,
            "namespace": namespace,
            "labels": labels,
            "annotations": part("annotations"),
            "ownerReferences": [{
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "name": name,
                "uid": text("/metadata/uid")?,
            }],
        },
        "spec": { "type": "LoadBalancer", "ports": ports(gateway) },
        "status": { "loadBalancer": { "ingress": addresses } },
    });
    Some((ObjectKey::new(Kind::Service, namespace, &own), service))
}

/// Returns `GATEWAY-CLASS`, cut to the maximum length. Dots become hyphens.
fn service_name(gateway: &str, class: &str) -> String {
    let mut name = format!("{gateway}-{class}").replace('.', "-");
    if name.len() > LONGEST {
        // Names are ASCII, so every position is a character boundary.
        name.truncate(LONGEST);
        name.truncate(name.trim_end_matches('-').len());
    }
    name
}

fn ports(gateway: &Value) -> Vec<Value> {
    let mut ports: Vec<Value> = Vec::new();
    let listeners = gateway.pointer("/spec/listeners").and_then(Value::as_array);
    for listener in listeners.into_iter().flatten() {
        let is_udp = listener.get("protocol").is_some_and(|protocol| protocol == "UDP");
        let protocol = if is_udp { "UDP" } else { "TCP" };
        let Some(port) = listener.get("port") else { continue };
        let name = format!("{}-{port}", protocol.to_ascii_lowercase());
        let one = json!({ "name": name, "port": port, "protocol": protocol, "targetPort": port });
        if !ports.contains(&one) {
            ports.push(one);
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_listens_has_a_service() {
        let mut gateway = json!({
            "metadata": { "name": "eg", "namespace": "default", "uid": "u" },
            "spec": {
                "gatewayClassName": "mine",
                "infrastructure": { "labels": { "a": "b" }, "annotations": { "c": "d" } },
                "listeners": [
                    { "name": "a", "port": 80, "protocol": "HTTP" },
                    { "name": "b", "port": 80, "protocol": "HTTP" },
                    { "name": "c", "port": 53, "protocol": "UDP" },
                ],
            },
            "status": { "addresses": [{ "type": "IPAddress", "value": "127.0.0.1" }] },
        });
        let (key, service) = of(&gateway).unwrap();
        assert_eq!(key.to_string(), "Service default/eg-mine");
        let labels = json!({
            "a": "b",
            "gateway.networking.k8s.io/gateway-name": "eg",
            "gateway.networking.k8s.io/gateway-class-name": "mine",
        });
        assert_eq!(service["metadata"]["labels"], labels);
        assert_eq!(service["metadata"]["annotations"], json!({ "c": "d" }));
        let ports: Vec<_> =
            service["spec"]["ports"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
        assert_eq!(ports, ["tcp-80", "udp-53"]);
        assert_eq!(service["status"]["loadBalancer"]["ingress"][0]["ip"], "127.0.0.1");

        gateway["status"]["addresses"] = json!([]);
        assert!(of(&gateway).is_none());
    }

    #[test]
    fn a_name_that_is_too_long_is_cut() {
        let name = service_name(&"a".repeat(62), "class");
        assert_eq!(name, "a".repeat(62));
    }
}
