//! The house keeps its shape: a room uses only rooms on lower floors, the two wings meet in
//! `snapshot` alone, and the files of a room can be read one after the other.
//!
//! Cargo checks such rules between crates. Within one crate nobody does, so this test reads the
//! sources, without what is compiled for tests alone, and names file, line and rule.

#![allow(clippy::unwrap_used, reason = "a test that cannot read the sources must stop")]

mod circles;
mod source;
mod tracked;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use source::Source;

const FLOORS: &[&[&str]] = &[
    &[
        "api",
        "body",
        "carry_over",
        "clock",
        "http_client",
        "local_http",
        "net",
        "patch",
        "path",
        "proxy_protocol",
        "secret",
        "stable_hash",
        "stats",
        "yaml",
    ],
    &["observe", "systemd"],
    &["config", "echo", "tls"],
    &["graph", "upstream"],
    &["failure"],
    &["filters", "trace"],
    &["snapshot"],
    &["background", "compile", "describe", "downstream", "kube_api", "provider"],
    &["proxy", "streams"],
    &["edge", "explain", "metrics"],
    &["admin"],
    &["control"],
    &["app", "doctor"],
    &["cli", "fuzz"],
];
const CONTROL_WING: &[&str] = &["api", "config", "graph"];
const DATA_WING: &[&str] = &[
    "background",
    "downstream",
    "edge",
    "failure",
    "filters",
    "proxy",
    "snapshot",
    "streams",
    "tls",
    "trace",
    "upstream",
];
/// Rooms that may talk over sockets, serve no request, and know the control wing alone.
const BESIDE: &[&str] = &["kube_api", "provider"];

#[test]
fn every_use_points_down_and_stays_in_its_wing() {
    let mut wrong = Vec::new();
    for (module, source) in sources() {
        let [from, ..] = &module[..] else { continue };
        for (line, number) in source.lines.iter().zip(1..) {
            for rule in broken_rules(from, line) {
                wrong.push(format!("{}:{number}: {rule}", source.file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_room_has_a_floor_and_every_floor_its_rooms() {
    let rooms: BTreeSet<String> =
        sources().into_iter().filter_map(|(module, _)| module.into_iter().next()).collect();
    let wrong = misplaced(rooms.iter().map(String::as_str));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_files_of_a_room_are_in_a_circle() {
    let wrong: Vec<String> = circles::circles(&sources())
        .into_iter()
        .filter(|(_, circles)| !circles.is_empty())
        .map(|(room, circles)| format!("`{room}` has files in circles: {circles:#?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The way of a request is the same for every protocol, so the server of one is known at the door
/// alone: where its requests come in, and where the protocol is asked for what depends on it.
#[test]
fn the_way_of_a_request_knows_no_server_of_a_protocol() {
    let at_the_door = |word: &str| match word {
        "Incoming" => &["downstream_body", "speak", "speak_http1"][..],
        // `upgrade` makes of a CONNECT the request that it stands for.
        _ => &["client_protocol", "upgrade"],
    };
    let mut wrong = Vec::new();
    for (module, source) in sources().iter().filter(|(module, _)| module[0] == "proxy") {
        for (line, number) in source.lines.iter().zip(1..) {
            let code = line.split("//").next().unwrap_or_default();
            for word in ["Incoming", "Version::HTTP"].into_iter().filter(|word| code.contains(word))
            {
                if !module.get(1).is_some_and(|file| at_the_door(word).contains(&file.as_str())) {
                    wrong.push(format!("{}:{number}: names `{word}`", source.file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tracked_files_are_small_and_text() {
    let wrong = tracked::wrong(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A number of 128 bits is text in a JSON event, so nothing that is logged has one.
#[test]
fn figures_of_events_are_numbers_in_json() {
    let mut wrong = Vec::new();
    for file in rust_files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))) {
        let text = fs::read_to_string(&file).unwrap();
        for (line, _) in wide_fields(&text) {
            wrong.push(format!("{}:{line}: log it by `observe::whole_millis`", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let event = "tracing::warn!(\n    pause_ms = pause.as_millis(),\n    \"accept failed\"\n);";
    assert_eq!(wide_fields(event).len(), 1);
    assert!(wide_fields("let wide = pause.as_millis();").is_empty());
}

/// Line and text of each field of an event that has 128 bits.
fn wide_fields(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut within = false;
    for (line, number) in text.lines().zip(1..) {
        let code = line.split("//").next().unwrap_or_default();
        within |= code.contains("tracing::") && code.contains("!(");
        let is_wide = ["as_millis()", "as_micros()", "as_nanos()", "u128"]
            .iter()
            .any(|wide| code.contains(wide));
        if within && is_wide {
            found.push((number, line));
        }
        within &= !code.trim_end().ends_with([';', ',']) || !code.contains(')');
    }
    found
}

#[test]
fn the_rules_catch_what_they_forbid() {
    assert!(broken_rules("net", "use crate::filters::Filter;").len() == 1);
    assert!(broken_rules("filters", "use crate::config::Place;")[0].contains("other wing"));
    assert!(broken_rules("compile", "use crate::{api, filters};").len() == 1);
    assert!(broken_rules("compile", "use crate::filters::Filter; // crate::nowhere").is_empty());
    assert!(broken_rules("kube_api", "use crate::downstream::Process;").len() == 1);
    assert!(broken_rules("graph", "tokio::task::yield_now()")[0].contains("no sockets"));
    assert!(broken_rules("net", "use crate::attic::Trunk;")[0].contains("no floor"));
    // What is exported at the top, such as a macro, is no room.
    assert!(broken_rules("net", "crate::Thing").is_empty());
}

#[test]
fn a_room_without_a_floor_is_found() {
    let known = FLOORS.iter().copied().flatten().copied();
    assert!(misplaced(known.clone()).is_empty());
    assert!(misplaced(known.clone().chain(["attic"]))[0].contains("`attic` has no floor"));
    assert!(misplaced(known.skip(1))[0].contains("there is no room"));
}

#[test]
fn only_what_is_for_tests_is_skipped() {
    let text = "\
use crate::api::Kind;
#[cfg(test)]
use crate::proxy::Hidden;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod inline {
    use crate::proxy::Hidden;
}
#[cfg(any(test, unix))]
use crate::net::Shown;
impl Thing {
    #[cfg(test)]
    fn hidden() {
        crate::proxy::hidden();
    }
    fn shown() {
        let _ = format!(\"{}\", crate::clock::now());
    }
}
";
    let source = Source::parse(Path::new("a.rs"), text);
    let left = source.lines.join("\n");
    for shown in ["api::Kind", "net::Shown", "clock::now"] {
        assert!(left.contains(shown), "{shown}: {left}");
    }
    assert!(!left.contains("idden"), "{left}");
    assert_eq!(source.lines.len(), text.lines().count(), "lines keep their numbers");
    assert_eq!(source.test_modules, ["tests"]);
    let paths: Vec<String> = source.paths.iter().map(|path| path.join("::")).collect();
    assert_eq!(paths, ["crate::api::Kind", "crate::net::Shown", "crate::clock::now"]);
}

#[test]
fn a_circle_is_found_and_a_re_export_makes_none() {
    let parse = |module: &[&str], text: &str| {
        let module: Vec<String> = module.iter().map(|part| (*part).to_owned()).collect();
        (module, Source::parse(Path::new("a.rs"), text))
    };
    let of = |sources: &[(Vec<String>, Source)]| circles::circles(sources).remove("room").unwrap();
    let lines = of(&[
        parse(&["room"], "mod a;\nmod b;\npub(crate) use self::a::A;\nuse self::b::B;"),
        parse(&["room", "a"], "pub(crate) struct A;"),
        parse(&["room", "b"], "use crate::room::A;\npub(crate) struct B(A);"),
    ]);
    assert!(lines.is_empty(), "{lines:?}");
    // (files a and b, and what is in the room's own)
    let table = [
        ("use super::b::B;", "fn b() { super::a::f() }", "mod a;\nmod b;", 2),
        ("use super::Own;", "", "mod a;\nmod b;\nuse self::a::f;\nstruct Own;", 2),
        ("", "use super::Own;", "mod a;\nmod b;\nfn f() { log!(b::g()) }\nstruct Own;", 2),
        (
            "use super::b::B;",
            "use super::Own;",
            "mod a;\nmod b;\nfn f() -> a::A {}\nstruct Own;",
            3,
        ),
    ];
    for (a, b, own, want) in table {
        let circles =
            of(&[parse(&["room"], own), parse(&["room", "a"], a), parse(&["room", "b"], b)]);
        assert_eq!(circles.iter().map(Vec::len).collect::<Vec<_>>(), [want], "{own}: {circles:?}");
    }
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
        let Some(there) = floor(to) else {
            broken.push(format!("`{to}` has no floor"));
            continue;
        };
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
    let named = code.match_indices("crate::").map(|(at, prefix)| {
        let rest = &code[at + prefix.len()..];
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    });
    named.filter(|room| !room.is_empty())
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// What is wrong with a house of these rooms.
fn misplaced<'a>(rooms: impl Iterator<Item = &'a str>) -> Vec<String> {
    let rooms: BTreeSet<&str> = rooms.collect();
    let unlisted = rooms.iter().filter(|room| floor(room).is_none());
    let unlisted = unlisted.map(|room| format!("src/{room} has no floor: `{room}` has no floor"));
    let listed = FLOORS.iter().copied().flatten();
    let absent = listed.filter(|room| !rooms.contains(*room));
    let absent = absent.map(|room| format!("there is no room `{room}`; take it out of the floors"));
    unlisted.chain(absent).collect()
}

/// Every file of `src` that is not for tests alone, with the path of its module; `lib.rs` and
/// `main.rs`, which are the map and the door bell, apart.
fn sources() -> Vec<(Vec<String>, Source)> {
    let top = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let mut all: Vec<(Vec<String>, Source)> = Vec::new();
    for file in rust_files(top) {
        let below = file.strip_prefix(top).unwrap().with_extension("");
        let mut module: Vec<String> =
            below.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if module.last().is_some_and(|last| last == "mod") {
            module.pop();
        }
        if !matches!(module[0].as_str(), "lib" | "main") {
            all.push((module, Source::parse(&file, &fs::read_to_string(&file).unwrap())));
        }
    }
    let for_tests: Vec<Vec<String>> = all
        .iter()
        .flat_map(|(module, source)| {
            source
                .test_modules
                .iter()
                .map(|test| [&module[..], std::slice::from_ref(test)].concat())
        })
        .collect();
    all.retain(|(module, _)| !for_tests.iter().any(|test| module.starts_with(test)));
    all
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
    found.sort();
    found
}
