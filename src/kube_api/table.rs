//! Lists as `kubectl get` prints them: one row for each object, in the columns of its CRD.

use serde_json::{Value, json};

use crate::api::Kind;

use super::presenting::Presenting;
use super::view::Item;

/// One column: its name, its type (`string`, `integer` or `date`), its priority (0 if it is always
/// shown), and its value.
struct TableColumn {
    name: &'static str,
    kind: &'static str,
    priority: u8,
    cell: fn(&Value) -> Value,
}

const fn column(name: &'static str, cell: fn(&Value) -> Value) -> TableColumn {
    TableColumn { name, kind: "string", priority: 0, cell }
}

const NAME: TableColumn = column("Name", |object| text(object, "/metadata/name"));
const HOSTNAMES: TableColumn = column("Hostnames", |object| array(object, "/spec/hostnames"));
const AGE: &str = "Age";

/// Returns the columns of a kind, without name and age.
fn columns(kind: Kind) -> &'static [TableColumn] {
    match kind.as_str() {
        "GatewayClass" => {
            const {
                &[
                    column("Controller", |object| text(object, "/spec/controllerName")),
                    column("Accepted", |object| condition(object, "Accepted")),
                ]
            }
        }
        "Gateway" => {
            const {
                &[
                    column("Class", |object| text(object, "/spec/gatewayClassName")),
                    // Only the first address, as in the CRD.
                    column("Address", |object| text(object, "/status/addresses/0/value")),
                    column("Programmed", |object| condition(object, "Programmed")),
                ]
            }
        }
        "ListenerSet" => {
            const {
                &[
                    column("Accepted", |object| condition(object, "Accepted")),
                    column("Programmed", |object| condition(object, "Programmed")),
                ]
            }
        }
        "HTTPRoute" | "GRPCRoute" | "TLSRoute" => const { &[HOSTNAMES] },
        "Namespace" => const { &[column("Status", |object| text(object, "/status/phase"))] },
        "Secret" => {
            const {
                &[
                    column("Type", |object| text(object, "/type")),
                    TableColumn {
                        kind: "integer",
                        ..column("Data", |object| count(object, &["data"]))
                    },
                ]
            }
        }
        "ConfigMap" => {
            const {
                &[TableColumn {
                    kind: "integer",
                    ..column("Data", |object| count(object, &["data", "binaryData"]))
                }]
            }
        }
        "Service" => {
            const {
                &[
                    column("Type", |object| text(object, "/spec/type")),
                    column("Cluster-IP", |object| or_none(text(object, "/spec/clusterIP"))),
                    column("External-IP", external),
                    column("Port(s)", service_ports),
                ]
            }
        }
        "EndpointSlice" => {
            const {
                &[
                    column("AddressType", |object| text(object, "/addressType")),
                    column("Ports", |object| {
                        or_none(joined(object, "/ports", |port| port.get("port")))
                    }),
                    column("Endpoints", |object| {
                        or_none(joined(object, "/endpoints", |endpoint| {
                            endpoint.pointer("/addresses/0")
                        }))
                    }),
                ]
            }
        }
        _ => &[],
    }
}

/// Returns objects as a `Table`.
pub(super) fn table(of: &Presenting, items: &[&Item], metadata: Value) -> Value {
    let own = columns(of.resource.kind());
    let mut definitions = vec![definition(&NAME)];
    definitions.extend(own.iter().map(definition));
    definitions.push(json!({
        "name": AGE,
        "type": "string",
        "format": "",
        "description": "",
        "priority": 0,
    }));
    let rows: Vec<Value> = items
        .iter()
        .map(|item| {
            let object = &item.value();
            let mut cells = vec![(NAME.cell)(object)];
            cells.extend(own.iter().map(|column| (column.cell)(object)));
            cells.push(age(object, of.now).into());
            let row = if of.whole_rows { of.object(item) } else { of.metadata(item) };
            json!({ "cells": cells, "object": row })
        })
        .collect();
    let mut table = json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1" });
    table["metadata"] = metadata;
    table["columnDefinitions"] = definitions.into();
    table["rows"] = rows.into();
    table
}

fn definition(column: &TableColumn) -> Value {
    json!({
        "name": column.name,
        "type": column.kind,
        "format": if column.name == "Name" { "name" } else { "" },
        "description": "",
        "priority": column.priority,
    })
}

fn text(object: &Value, path: &str) -> Value {
    object.pointer(path).cloned().unwrap_or_default()
}

/// Returns an array as JSON text, as a column of a CRD shows it.
fn array(object: &Value, path: &str) -> Value {
    object.pointer(path).map(|array| array.to_string().into()).unwrap_or_default()
}

fn or_none(value: Value) -> Value {
    match value.as_str() {
        None | Some("") => "<none>".into(),
        Some(_) => value,
    }
}

fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == kind);
    found.map(|condition| condition["status"].clone()).unwrap_or_default()
}

fn count(object: &Value, fields: &[&str]) -> Value {
    let maps = fields.iter().filter_map(|field| object.get(field)).filter_map(Value::as_object);
    maps.map(serde_json::Map::len).sum::<usize>().into()
}

/// Returns a part of each item of a list, separated by commas.
fn joined(object: &Value, path: &str, part: fn(&Value) -> Option<&Value>) -> Value {
    let items = object.pointer(path).and_then(Value::as_array);
    let parts: Vec<String> = items
        .into_iter()
        .flatten()
        .filter_map(part)
        .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
        .collect();
    parts.join(",").into()
}

fn external(object: &Value) -> Value {
    if object.pointer("/spec/type").is_some_and(|kind| kind == "ExternalName") {
        return text(object, "/spec/externalName");
    }
    or_none(joined(object, "/status/loadBalancer/ingress", |one| one.get("ip")))
}

fn service_ports(object: &Value) -> Value {
    let ports = object.pointer("/spec/ports").and_then(Value::as_array);
    let ports: Vec<String> = ports
        .into_iter()
        .flatten()
        .map(|port| {
            let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
            format!("{}/{protocol}", port["port"])
        })
        .collect();
    or_none(ports.join(",").into())
}

/// Returns the age of an object in the notation of kubectl.
fn age(object: &Value, now: i64) -> String {
    let created = object.pointer("/metadata/creationTimestamp").and_then(Value::as_str);
    let created = created.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    created.map_or_else(|| "<unknown>".into(), |at| duration(now - at.as_second()))
}

/// Formats a duration as Kubernetes does, for example `2m5s`, `3h`, `5d4h`: with two units for the
/// smaller values in a range, with one for the others.
fn duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |first: i64, unit: &str, second: i64, other: &str| match second {
        0 => format!("{first}{unit}"),
        _ => format!("{first}{unit}{second}{other}"),
    };
    match seconds {
        // Clocks may differ.
        ..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_the_units_that_matter() {
        let table = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (601, "10m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (30_000, "8h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (900_000, "10d"),
            (-5, "<invalid>"),
        ];
        for (seconds, want) in table {
            assert_eq!(duration(seconds), want, "{seconds}");
        }
    }
}
