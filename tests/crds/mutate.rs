//! Objects that nobody wrote: those that somebody did, changed in a place or two.

use std::collections::HashMap;

use fastrand::Rng;
use regex::Regex;
use serde_json::{Map, Value as Json, json};

use super::schema::{member, properties, text};

/// Texts near the borders of the patterns and lengths of the CRDs.
const TEXTS: &[&str] = &[
    "",
    "a",
    "A",
    "a.b",
    "*.a.b",
    "*",
    "*.",
    "a*b",
    "-a",
    "a-",
    "a..b",
    ".a",
    "a.",
    "a_b",
    "a b",
    "ä",
    "1.2.3.4",
    "1.2.3.256",
    "::1",
    "*.10.0.0.1",
    "/",
    "/a",
    "a/b",
    "//",
    "/a//b",
    "/./",
    "/../",
    "/a/..",
    "/a/.",
    "/%2f",
    "/%2F",
    "/%41",
    "/%4",
    "/#",
    "/a?b",
    "example.com/a",
    "Example.com/a",
    "https://a.test",
    "https://*.a.test:8443",
    "ftp://a.test",
    "http://a:123456",
    "spiffe://a/b",
    "a:b",
    "0s",
    "1s",
    "1h",
    "90m",
    "1h1m1s1ms",
    "1h1m1s1ms1s",
    "1.5s",
    "100000s",
    "-1s",
    "x-a",
    "X A",
    "Service",
    "Gateway",
    "1Kind",
    "gateway.networking.k8s.io",
    "System",
    "HTTP",
    "HTTPS",
    "TLS",
    "TCP",
    "UDP",
    "Terminate",
    "Passthrough",
    "IPAddress",
    "Hostname",
    "NamedAddress",
    "Exact",
    "PathPrefix",
    "RegularExpression",
    "ReplaceFullPath",
    "ReplacePrefixMatch",
    "Cookie",
    "Header",
    "Permanent",
    "Session",
    "URI",
    "All",
    "Same",
    "None",
    "Selector",
    "foo.Bar",
];
/// Texts near the border of the pattern of quantities.
const QUANTITIES: &[&str] = &["1", "0", "32Ki", "1K", "10k", "1M", "1.5Mi", "-1", "1KiB"];
const NUMBERS: &[i64] = &[
    -1,
    0,
    1,
    2,
    10,
    80,
    99,
    100,
    101,
    200,
    301,
    304,
    399,
    400,
    404,
    599,
    600,
    1_000_000,
    1_000_001,
    65_535,
    65_536,
    2_147_483_647,
    2_147_483_648,
    -2_147_483_648,
];
const LENGTHS: &[usize] = &[63, 64, 128, 129, 253, 254, 256, 257, 1024, 1025, 4096, 4097];

/// What the changes are made with.
pub(crate) struct Hand<'a> {
    pub rng: Rng,
    /// By pattern, the texts that it matches.
    pub fitting: &'a HashMap<String, Vec<&'static str>>,
}

/// Which of the texts each pattern of the CRDs matches.
pub(crate) fn fitting<'p>(
    patterns: impl Iterator<Item = (&'p String, &'p Regex)>,
) -> HashMap<String, Vec<&'static str>> {
    let texts = |pattern: &Regex| {
        let of_quantity = if is_quantity(pattern.as_str()) { QUANTITIES } else { &[] };
        let texts = TEXTS.iter().chain(of_quantity).copied();
        texts.filter(|text| pattern.is_match(text)).collect()
    };
    patterns.map(|(source, pattern)| (source.clone(), texts(pattern))).collect()
}

fn is_quantity(pattern: &str) -> bool {
    pattern.contains("[EPTGMK]i")
}

/// One change somewhere in `value`, which stands where `schema` says; `others` are lent from.
pub(crate) fn change(hand: &mut Hand<'_>, schema: &Json, value: &mut Json, others: &[&Json]) {
    // Deep down there is more to change than at the top.
    let goes_down = hand.rng.u8(..100) < 85;
    match value {
        Json::Object(fields) if !fields.is_empty() && goes_down => {
            let at = hand.rng.usize(..fields.len());
            let Some((name, inner)) = fields.iter_mut().nth(at) else { return };
            let Some(schema) = member(schema, name) else { return };
            let lenders: Vec<&Json> = others.iter().filter_map(|of| of.get(name)).collect();
            change(hand, schema, inner, &lenders);
        }
        Json::Array(items) if !items.is_empty() && goes_down => {
            let at = hand.rng.usize(..items.len());
            let lenders: Vec<&Json> =
                others.iter().filter_map(|of| of.as_array()).flatten().collect();
            change(hand, &schema["items"], &mut items[at], &lenders);
        }
        Json::Object(fields) => change_fields(hand, schema, fields, others),
        Json::Array(items) => change_items(hand, schema, items, others),
        _ => *value = scalar(hand, schema),
    }
}

fn change_fields(
    hand: &mut Hand<'_>,
    schema: &Json,
    fields: &mut Map<String, Json>,
    others: &[&Json],
) {
    match hand.rng.u8(..10) {
        0..2 if !fields.is_empty() => {
            let at = hand.rng.usize(..fields.len());
            let name = fields.keys().nth(at).cloned().unwrap_or_default();
            fields.shift_remove(&name);
        }
        2 => {
            fields.insert("nosuchfield".into(), json!(1));
        }
        3 if !others.is_empty() => {
            if let Json::Object(lent) = others[hand.rng.usize(..others.len())] {
                fields.extend(lent.clone());
            }
        }
        _ => {
            let all: Vec<_> = properties(schema).collect();
            if all.is_empty() {
                let name = TEXTS[hand.rng.usize(..TEXTS.len())];
                fields.insert(name.into(), scalar(hand, &schema["additionalProperties"]));
            } else {
                let (name, schema) = all[hand.rng.usize(..all.len())];
                fields.insert(name.clone(), written(hand, schema));
            }
        }
    }
}

fn change_items(hand: &mut Hand<'_>, schema: &Json, items: &mut Vec<Json>, others: &[&Json]) {
    let lent: Vec<&Json> = others.iter().filter_map(|of| of.as_array()).flatten().collect();
    match hand.rng.u8(..10) {
        0 if !items.is_empty() => {
            let at = hand.rng.usize(..items.len());
            items.remove(at);
        }
        1..4 if !items.is_empty() => {
            let item = items[hand.rng.usize(..items.len())].clone();
            items.push(item);
        }
        4 if !items.is_empty() => {
            let most = schema["maxItems"].as_u64().unwrap_or(64);
            let most = usize::try_from(most.min(130)).unwrap_or_default();
            let item = items[hand.rng.usize(..items.len())].clone();
            let count = most + hand.rng.usize(..2);
            let numbered = |number: usize| {
                let mut item = item.clone();
                match &mut item {
                    Json::Object(fields) if fields.contains_key("name") => {
                        fields.insert("name".into(), json!(format!("n{number}")));
                        if fields.contains_key("port") && fields.contains_key("protocol") {
                            fields.insert("port".into(), json!(1000 + number));
                        }
                    }
                    Json::String(text) => *text = format!("n{number}"),
                    _ => {}
                }
                item
            };
            *items = (0..count).map(numbered).collect();
        }
        5..8 if !lent.is_empty() => items.push(lent[hand.rng.usize(..lent.len())].clone()),
        _ => items.push(written(hand, &schema["items"])),
    }
}

/// A value of that schema, right in most of its parts.
fn written(hand: &mut Hand<'_>, schema: &Json) -> Json {
    if hand.rng.u8(..100) < 3 {
        return scalar(hand, &Json::Null);
    }
    match text(&schema["type"]) {
        "object" => {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let mut fields = Map::new();
            for (name, schema) in properties(schema) {
                let is_required = required.iter().any(|field| field == name);
                if hand.rng.u8(..100) < if is_required { 97 } else { 30 } {
                    fields.insert(name.clone(), written(hand, schema));
                }
            }
            if let Some(schema) = schema.get("additionalProperties") {
                let name = TEXTS[hand.rng.usize(..TEXTS.len())];
                fields.insert(name.into(), scalar(hand, schema));
            }
            Json::Object(fields)
        }
        "array" => (0..hand.rng.usize(..3)).map(|_| written(hand, &schema["items"])).collect(),
        _ => scalar(hand, schema),
    }
}

fn scalar(hand: &mut Hand<'_>, schema: &Json) -> Json {
    if let Some(parts) = schema["allOf"].as_array() {
        let part = parts.last().cloned().unwrap_or_default();
        let is_text = !is_quantity(text(&part["pattern"])) || hand.rng.u8(..100) < 70;
        let kind = if is_text { "string" } else { "integer" };
        if is_text && is_quantity(text(&part["pattern"])) && hand.rng.bool() {
            return json!(QUANTITIES[hand.rng.usize(..QUANTITIES.len())]);
        }
        let words = part.get("enum").cloned().unwrap_or_default();
        return scalar(hand, &json!({ "type": kind, "enum": words, "pattern": part["pattern"] }));
    }
    if let Some(words) = schema["enum"].as_array()
        && hand.rng.u8(..10) < 8
    {
        return words[hand.rng.usize(..words.len())].clone();
    }
    let kind = match (text(&schema["type"]), hand.rng.u8(..100)) {
        (kind, 5..) if !kind.is_empty() => kind,
        _ => ["string", "integer", "boolean", "object", "array"][hand.rng.usize(..5)],
    };
    match kind {
        "string" => {
            let fitting = schema["pattern"].as_str().and_then(|of| hand.fitting.get(of));
            match (fitting, hand.rng.u8(..100)) {
                (_, ..3) => json!("a".repeat(LENGTHS[hand.rng.usize(..LENGTHS.len())])),
                (Some(texts), 10..) if !texts.is_empty() => {
                    json!(texts[hand.rng.usize(..texts.len())])
                }
                _ => json!(TEXTS[hand.rng.usize(..TEXTS.len())]),
            }
        }
        "integer" => {
            let least = schema["minimum"].as_i64().unwrap_or(i64::MIN);
            let most = schema["maximum"].as_i64().unwrap_or(i64::MAX);
            let fits = |number: &&i64| (least..=most).contains(*number);
            let fitting: Vec<&i64> = NUMBERS.iter().filter(fits).collect();
            match hand.rng.u8(..100) {
                10.. if !fitting.is_empty() => json!(fitting[hand.rng.usize(..fitting.len())]),
                _ => json!(NUMBERS[hand.rng.usize(..NUMBERS.len())]),
            }
        }
        "number" => json!(f64::from(hand.rng.i32(-10..2000)) / 10.0),
        "boolean" => json!(hand.rng.bool()),
        "array" => json!([]),
        _ => json!({}),
    }
}
