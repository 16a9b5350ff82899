//! The rows of a route table as a list, for display.

use std::sync::Arc;

use crate::filters::PathMatch;
use crate::snapshot::{Conditions, Rule};

use super::table::{Candidate, Node, PathTable, RouteTable};

/// One match of one rule, in the order in which it is tried.
#[derive(Clone, Debug)]
pub(crate) struct Row<'a> {
    /// A hostname or wildcard as written; `None` is any host.
    pub host: Option<String>,
    pub path: PathMatch,
    pub conditions: &'a Conditions,
    pub rule: &'a Arc<Rule>,
}

impl RouteTable {
    /// Returns every row: by host, the most specific first, and for each host in the order of
    /// precedence. Paths that cannot match the same request are in alphabetical order.
    pub(crate) fn rows(&self) -> Vec<Row<'_>> {
        let mut rows = Vec::new();
        for (host, paths) in self.hosts.sorted() {
            let mut of_host = Vec::new();
            paths.rows(&mut of_host);
            rows.extend(of_host.into_iter().map(|(path, Candidate { conditions, rule })| Row {
                host: host.clone(),
                path,
                conditions,
                rule,
            }));
        }
        rows
    }
}

impl PathTable {
    fn rows<'a>(&'a self, rows: &mut Vec<(PathMatch, &'a Candidate)>) {
        let mut exact: Vec<_> = self.exact.iter().collect();
        exact.sort_by_key(|(path, _)| *path);
        for (path, candidates) in exact {
            rows.extend(candidates.iter().map(|of| (PathMatch::Exact(path.clone()), of)));
        }
        let regex = self.regex.iter().map(|(regex, _, of)| (PathMatch::Regex(regex.clone()), of));
        rows.extend(regex);
        self.prefix.rows("", rows);
    }
}

impl Node {
    /// Adds children before their parent, in the order in which they are tried.
    fn rows<'a>(&'a self, path: &str, rows: &mut Vec<(PathMatch, &'a Candidate)>) {
        let mut children: Vec<_> = self.children.iter().collect();
        children.sort_by_key(|(element, _)| *element);
        for (element, child) in children {
            child.rows(&format!("{path}/{element}"), rows);
        }
        let path = if path.is_empty() { "/" } else { path };
        rows.extend(self.here.iter().map(|of| (PathMatch::Prefix(path.into()), of)));
    }
}
