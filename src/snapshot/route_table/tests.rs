//! Tests of the indexed table against a matcher that follows the text of the specification line by
//! line.

use std::sync::Arc;

use http::request;
use proptest::prelude::*;
use regex::Regex;

use crate::filters::{PathMatch, ValueMatch};
use crate::net::HostPattern;
use crate::snapshot::{Conditions, Entry, HeaderMatch, QueryMatch, RouteTable, Rule, Timeouts};

use super::table::fixed_part;

fn rule(name: &str) -> Arc<Rule> {
    Arc::new(Rule {
        name: name.into(),
        grpc: false,
        filters: Box::default(),
        sees_bodies: false,
        reads_requests: false,
        mirrors: Box::default(),
        backends: None,
        counts: Arc::default(),
        timeouts: Timeouts::default(),
        retry: None,
        session: None,
        balancing: None,
        overrides: None,
    })
}

fn entry(name: &str, path: PathMatch) -> Entry {
    Entry { hosts: Vec::new(), path, conditions: Conditions::default(), rule: rule(name) }
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.into())
}

fn exact(path: &str) -> PathMatch {
    PathMatch::Exact(path.into())
}

fn get(target: &str) -> request::Parts {
    http::Request::get(target).body(()).unwrap().into_parts().0
}

#[test]
fn paths_follow_the_precedence_of_the_spec() {
    let regex = |text| PathMatch::Regex(Regex::new(text).unwrap());
    // (path, candidates, the name of the winner and the length of the matched prefix)
    let table: [(&str, Vec<PathMatch>, Option<(&str, usize)>); 14] = [
        ("/foo", vec![prefix("/"), prefix("/foo")], Some(("1", 4))),
        ("/foo/bar", vec![prefix("/foo"), prefix("/foo/bar/")], Some(("1", 8))),
        ("/foobar", vec![prefix("/foo")], None),
        ("/foo/", vec![prefix("/foo")], Some(("0", 4))),
        ("/foo", vec![prefix("/foo/")], Some(("0", 4))),
        ("/a", vec![prefix("/a"), exact("/a")], Some(("1", 0))),
        ("/b", vec![exact("/b/")], None),
        ("/b/", vec![exact("/b")], None),
        ("/B", vec![exact("/b"), prefix("/b")], None),
        ("/a/b", vec![prefix("/a/b"), regex("^(?:/a/.*)$")], Some(("1", 0))),
        ("/a/b", vec![regex("^(?:/a/.*)$"), exact("/a/b")], Some(("1", 0))),
        ("/x", vec![prefix("/")], Some(("0", 0))),
        ("/x", vec![prefix("/x"), prefix("/x")], Some(("0", 2))),
        ("/x/y/z", vec![prefix("/x/y/w"), prefix("/x")], Some(("1", 2))),
    ];
    for (path, candidates, want) in table {
        let entries =
            candidates.iter().zip(0..).map(|(path, i)| entry(&i.to_string(), path.clone()));
        let table = RouteTable::new(entries);
        let found = table.find("any.host", path, &get(path));
        let got = found.as_ref().map(|found| (&*found.rule.name, found.matched_prefix));
        assert_eq!(got, want, "{path} among {candidates:?}");
    }
}

#[test]
fn a_less_specific_host_serves_what_the_more_specific_one_does_not() {
    let host = |name| vec![HostPattern::parse(name).unwrap()];
    let table = RouteTable::new([
        Entry { hosts: host("*.example.com"), ..entry("wildcard", prefix("/")) },
        Entry { hosts: host("a.example.com"), ..entry("exact", prefix("/only")) },
    ]);
    let name = |path| table.find("a.example.com", path, &get(path)).map(|found| &*found.rule.name);
    assert_eq!(name("/only"), Some("exact"));
    assert_eq!(name("/else"), Some("wildcard"));
    assert!(table.find("example.com", "/", &get("/")).is_none());
}

/// Returns the match according to the specification, in its own order, by looking at every entry.
fn linear<'a>(
    entries: &'a [Entry],
    host: &str,
    path: &str,
    head: &request::Parts,
) -> Option<&'a str> {
    let elements = |path: &str| -> Vec<String> {
        path.split('/').filter(|element| !element.is_empty()).map(Into::into).collect()
    };
    let mut best: Option<(_, &Entry)> = None;
    for entry in entries {
        let host_rank = if entry.hosts.is_empty() {
            Some((0, 0))
        } else {
            let fitting = entry.hosts.iter().filter(|pattern| pattern.accepts(host));
            fitting.map(|p| (if p.exact().is_some() { 2 } else { 1 }, p.to_string().len())).max()
        };
        let path_rank = match &entry.path {
            PathMatch::Exact(exact) => (**exact == *path).then_some((2, 0)),
            PathMatch::Regex(regex) => regex.is_match(path).then_some((1, 0)),
            PathMatch::Prefix(prefix) => {
                let (have, want) = (elements(path), elements(prefix));
                have.starts_with(&want).then_some((0, want.join("/").len()))
            }
        };
        let (Some(host_rank), Some(path_rank)) = (host_rank, path_rank) else { continue };
        if !entry.conditions.accept(head) {
            continue;
        }
        let rank = (host_rank, path_rank, entry.conditions.rank());
        if best.as_ref().is_none_or(|(other, _)| rank > *other) {
            best = Some((rank, entry));
        }
    }
    best.map(|(_, entry)| &*entry.rule.name)
}

fn any_path() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]{1,2}", 0..4).prop_map(|elements| format!("/{}", elements.join("/")))
}

/// Host, kind of path, path, method, and whether a header and a parameter are required.
type Parts = (Vec<&'static str>, u8, String, u8, bool, bool);

fn any_entry() -> impl Strategy<Value = Parts> {
    let host = prop::sample::select(vec!["a.test", "b.test", "*.test", "*.a.test", "x.a.test"]);
    (prop::collection::vec(host, 0..3), 0..3_u8, any_path(), 0..3_u8, any::<bool>(), any::<bool>())
}

fn built(parts: &[Parts]) -> Vec<Entry> {
    let build = |(i, (hosts, kind, path, method, header, query)): (usize, &Parts)| {
        let value = ValueMatch::Exact("1".into());
        let header = header.then(|| HeaderMatch {
            name: http::HeaderName::from_static("x"),
            value: value.clone(),
        });
        let query = query.then(|| QueryMatch { name: "q".into(), value });
        Entry {
            hosts: hosts.iter().map(|host: &&str| HostPattern::parse(host).unwrap()).collect(),
            path: match kind {
                0 => exact(path),
                1 => prefix(path),
                _ => PathMatch::Regex(Regex::new(&format!("^(?:{path}.*)$")).unwrap()),
            },
            conditions: Conditions {
                method: [None, Some(http::Method::GET), Some(http::Method::PUT)]
                    [usize::from(*method)]
                .clone(),
                grpc: false,
                headers: header.into_iter().collect(),
                query: query.into_iter().collect(),
            },
            rule: rule(&i.to_string()),
        }
    };
    parts.iter().enumerate().map(build).collect()
}

proptest! {
    #[test]
    fn the_index_agrees_with_the_text_of_the_spec(
        parts in prop::collection::vec(any_entry(), 0..24),
        requests in prop::collection::vec((any_path(), any::<bool>(), any::<bool>(), any::<bool>()), 1..24),
        host in prop::sample::select(vec!["a.test", "b.test", "c.test", "x.a.test", "y.a.test", "test"]),
    ) {
        let entries = built(&parts);
        let table = RouteTable::new(entries.clone());
        for (path, slash, header, query) in requests {
            let path = if slash && path != "/" { format!("{path}/") } else { path };
            let target = if query { format!("{path}?q=1") } else { path.clone() };
            let mut head = get(&target);
            if header {
                head.headers.insert("x", http::HeaderValue::from_static("1"));
            }
            let got = table.find(host, &path, &head).map(|found| &*found.rule.name);
            prop_assert_eq!(got, linear(&entries, host, &path, &head), "{} {}", host, target);
        }
    }
}

#[test]
fn a_session_of_a_regular_expression_is_of_the_folder_before_it() {
    let table = [
        ("/p1/p2/.*/p3", "/p1/p2"),
        ("/a/b?", "/a"),
        ("/[a-z]+", ""),
        ("/a/x|/b/.*", ""),
        ("/a/b/c", "/a/b"),
        (".*", ""),
    ];
    for (pattern, want) in table {
        assert_eq!(&pattern[..fixed_part(&format!("^(?:{pattern})$"))], want, "{pattern}");
    }
}
