//! The route table, and the lookup of the rule of a request.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderName, request};
use regex::Regex;

use crate::filters::PathMatch;
use crate::net::HostPattern;
use crate::path;
use crate::snapshot::{Conditions, HostTable, Rule};

/// The rules of one listener.
///
/// Precedence is that of HTTPRoute `matches`, across all routes of the listener: the more specific
/// hostname, then an exact path, then a regular expression, then the longer prefix, then a method,
/// then more headers, then more query parameters, then the order in which `compile` adds them
/// (older route, `namespace/name`, place in the route).
///
/// A lookup takes one hash of the host's labels and one walk along the path, whatever the number of
/// routes; only regular expressions are tried one by one.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    pub(super) hosts: HostTable<PathTable>,
    matched_headers: Vec<HeaderName>,
}

/// One match of one rule, as input of the table.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Empty for any host of the listener.
    pub hosts: Vec<HostPattern>,
    pub path: PathMatch,
    pub conditions: Conditions,
    pub rule: Arc<Rule>,
}

/// The result of a lookup.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub rule: &'a Arc<Rule>,
    /// The number of path bytes covered by the matched prefix; see `Exchange::matched_prefix`.
    pub matched_prefix: usize,
    /// The number of leading path bytes that all requests of the match share, in whole elements:
    /// all of an exact path, a prefix, the part of a regular expression before its first special
    /// character.
    pub fixed: usize,
}

/// The rules of one hostname by path.
#[derive(Debug, Default)]
pub(super) struct PathTable {
    pub(super) exact: HashMap<Box<str>, Vec<Candidate>>,
    pub(super) regex: Vec<(Regex, usize, Candidate)>,
    pub(super) prefix: Node,
}

/// An element of a path in the tree of prefixes.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) children: HashMap<Box<str>, Self>,
    pub(super) here: Vec<Candidate>,
}

#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) conditions: Conditions,
    pub(super) rule: Arc<Rule>,
}

impl RouteTable {
    /// Builds the table from `entries`; of two with equal precedence, the earlier one wins.
    pub(crate) fn new(entries: impl IntoIterator<Item = Entry>) -> Self {
        let mut hosts = HostTable::default();
        let mut matched_headers = Vec::new();
        for Entry { hosts: patterns, path, conditions, rule } in entries {
            for header in &conditions.headers {
                if !matched_headers.contains(&header.name) {
                    matched_headers.push(header.name.clone());
                }
            }
            let candidate = Candidate { conditions, rule };
            if patterns.is_empty() {
                hosts.entry(None, PathTable::default).file(&path, candidate);
                continue;
            }
            for pattern in &patterns {
                hosts.entry(Some(pattern), PathTable::default).file(&path, candidate.clone());
            }
        }
        hosts.values_mut().for_each(PathTable::sort);
        Self { hosts, matched_headers }
    }

    /// Returns the names of the headers that conditions are about, each once.
    pub(crate) fn matched_headers(&self) -> &[HeaderName] {
        &self.matched_headers
    }

    /// Returns the rule for a request to `host` (lower case, no port) and `path` (normalised, no
    /// query).
    pub(crate) fn find(&self, host: &str, path: &str, head: &request::Parts) -> Option<Found<'_>> {
        self.hosts.candidates(host).find_map(|paths| paths.find(path, head))
    }

    /// Returns a reading of `path` by a lenient backend that belongs to another rule than `rule`,
    /// the one that matched the path as it is; and that other rule.
    ///
    /// A request for such a path must not be forwarded: it would bypass one of the two rules.
    pub(crate) fn other_reading(
        &self,
        host: &str,
        path: &str,
        head: &request::Parts,
        rule: &Arc<Rule>,
    ) -> Option<(String, &Arc<Rule>)> {
        path::other_readings(path).into_iter().find_map(|reading| {
            let other = self.find(host, &reading, head)?.rule;
            (!Arc::ptr_eq(other, rule)).then_some((reading, other))
        })
    }
}

impl PathTable {
    fn file(&mut self, path: &PathMatch, candidate: Candidate) {
        match path {
            PathMatch::Exact(path) => add(self.exact.entry(path.clone()).or_default(), candidate),
            PathMatch::Regex(regex) => {
                self.regex.push((regex.clone(), fixed_part(regex.as_str()), candidate));
            }
            PathMatch::Prefix(prefix) => {
                let mut node = &mut self.prefix;
                for element in prefix.split('/').filter(|element| !element.is_empty()) {
                    node = node.children.entry(element.into()).or_default();
                }
                add(&mut node.here, candidate);
            }
        }
    }

    fn sort(&mut self) {
        self.exact.values_mut().for_each(|candidates: &mut Vec<Candidate>| sort(candidates));
        self.regex.sort_by_key(|(_, _, candidate)| Reverse(candidate.conditions.rank()));
        self.prefix.sort();
    }

    fn find(&self, path: &str, head: &request::Parts) -> Option<Found<'_>> {
        if let Some(candidate) = self.exact.get(path).and_then(|here| first(here, head)) {
            return Some(Found { rule: &candidate.rule, matched_prefix: 0, fixed: path.len() });
        }
        let by_regex = self.regex.iter().find(|(regex, _, candidate)| {
            regex.is_match(path) && candidate.conditions.accept(head)
        });
        if let Some((_, fixed, candidate)) = by_regex {
            return Some(Found { rule: &candidate.rule, matched_prefix: 0, fixed: *fixed });
        }
        self.prefix.find(path, 0, head)
    }
}

impl Node {
    fn sort(&mut self) {
        sort(&mut self.here);
        self.children.values_mut().for_each(Self::sort);
    }

    /// Finds the longest prefix first: children are tried before their parent. `at` is the end of
    /// this node in `path`. The recursion is as deep as the longest configured prefix, not as the
    /// path.
    fn find(&self, path: &str, at: usize, head: &request::Parts) -> Option<Found<'_>> {
        if !self.children.is_empty()
            && let Some(rest) = path[at..].strip_prefix('/')
        {
            let length = rest.find('/').unwrap_or(rest.len());
            if let Some(child) = self.children.get(&rest[..length])
                && let Some(found) = child.find(path, at + 1 + length, head)
            {
                return Some(found);
            }
        }
        let candidate = first(&self.here, head)?;
        Some(Found { rule: &candidate.rule, matched_prefix: at, fixed: at })
    }
}

/// Returns the number of bytes of whole path elements before the first special character of a
/// regular expression.
///
/// An optional part, such as `b` in `/a/b?`, is in the last element and so is left out.
pub(super) fn fixed_part(regex: &str) -> usize {
    let pattern = regex.strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$"));
    let pattern = pattern.unwrap_or(regex);
    // Alternatives may begin differently.
    if pattern.contains('|') {
        return 0;
    }
    let sign = |b: u8| b"\\.+*?()[]{}^$".contains(&b);
    let literal = pattern.bytes().position(sign).unwrap_or(pattern.len());
    pattern[..literal].rfind('/').unwrap_or(0)
}

/// Adds a candidate. Nearly all places of a table have one, so the first is given no room for more.
fn add(candidates: &mut Vec<Candidate>, candidate: Candidate) {
    if candidates.is_empty() {
        candidates.reserve_exact(1);
    }
    candidates.push(candidate);
}

fn sort(candidates: &mut [Candidate]) {
    candidates.sort_by_key(|candidate| Reverse(candidate.conditions.rank()));
}

fn first<'a>(candidates: &'a [Candidate], head: &request::Parts) -> Option<&'a Candidate> {
    candidates.iter().find(|candidate| candidate.conditions.accept(head))
}
