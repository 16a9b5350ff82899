//! The house keeps its shape: a room uses only rooms on lower floors, and the two wings meet in
//! `snapshot` alone.
//!
//! Cargo checks such rules between crates. Within one crate nobody does, so this test reads the
//! source text and names file, line and rule.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the sources must stop")]

use std::fs;
use std::path::{Path, PathBuf};

const FLOORS: &[&[&str]] = &[
    &["api", "ask", "body", "clock", "loopback", "net", "secret", "stats", "yaml"],
    &["observe", "systemd"],
    &["config", "echo", "tls"],
    &["graph", "upstream"],
    &["filters", "trace"],
    &["snapshot"],
    &["compile", "kube_api", "proxy"],
    &["explain", "metrics"],
    &["admin"],
    &["control"],
    &["app", "doctor"],
    &["cli", "fuzz"],
];
const CONTROL_WING: &[&str] = &["api", "config", "graph"];
const DATA_WING: &[&str] = &["filters", "proxy", "snapshot", "tls", "trace", "upstream"];
/// Rooms that serve people, and no request: they talk over sockets, and know the control wing alone.
const BESIDE: &[&str] = &["kube_api"];

#[test]
fn every_use_points_down_and_stays_in_its_wing() {
    let mut wrong = Vec::new();
    for file in rust_files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))) {
        let Some(from) = room_of(&file) else { continue };
        let text = fs::read_to_string(&file).unwrap();
        // Unit tests stand at the foot of the file and may reach anywhere.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (line, number) in code.lines().zip(1..) {
            for rule in broken_rules(&from, line) {
                wrong.push(format!("{}:{number}: {rule}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_rules_catch_what_they_forbid() {
    assert!(broken_rules("net", "use crate::filters::Filter;").len() == 1);
    assert!(broken_rules("filters", "use crate::config::Place;")[0].contains("other wing"));
    assert!(broken_rules("compile", "use crate::{api, filters};").len() == 1);
    assert!(broken_rules("compile", "use crate::filters::Filter; // crate::nowhere").is_empty());
    assert!(broken_rules("kube_api", "use crate::proxy::Gateway;").len() == 1);
    assert!(broken_rules("graph", "tokio::task::yield_now()")[0].contains("no sockets"));
}

fn broken_rules(from: &str, line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    let mut broken = Vec::new();
    if code.contains("crate::{") || code.contains("super::super") {
        broken.push("name the room in full: `use crate::room::Thing`".into());
    }
    if CONTROL_WING.contains(&from) && (code.contains("tokio::") || code.contains("hyper::")) {
        broken.push(format!("`{from}` turns files into meaning: no sockets, no tokio, no hyper"));
    }
    for to in rooms_named(code).filter(|to| *to != from) {
        let Some(there) = floor(to) else { continue };
        for (here, elsewhere) in
            [(CONTROL_WING, DATA_WING), (DATA_WING, CONTROL_WING), (BESIDE, DATA_WING)]
        {
            if here.contains(&from) && elsewhere.contains(&to) {
                broken.push(format!("`{from}` may not use `{to}`, which is in the other wing"));
            }
        }
        if broken.is_empty() && floor(from).is_some_and(|here| there >= here) {
            broken.push(format!("`{from}` may not use `{to}`, which is not below it"));
        }
    }
    broken
}

/// The rooms that a line of code names by `crate::room`.
fn rooms_named(code: &str) -> impl Iterator<Item = &str> {
    code.match_indices("crate::").map(|(at, prefix)| {
        let rest = &code[at + prefix.len()..];
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    })
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The room a file belongs to; none for `lib.rs` and `main.rs`, which are the map and the door bell.
fn room_of(file: &Path) -> Option<String> {
    let below = file.strip_prefix(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).unwrap();
    let first = below.components().next()?.as_os_str().to_str()?;
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(room, "lib" | "main")).then(|| room.to_owned())
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
