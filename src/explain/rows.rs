//! The rows of a listener's route table: the one that matched, and the reasons why the others did
//! not.

use std::sync::Arc;

use http::request;

use crate::describe;
use crate::filters::PathMatch;
use crate::filters::exchange::path_of;
use crate::net::HostPattern;
use crate::snapshot::{RouteTable, Row, Rule};

use super::{Explained, Lost};

/// The maximum number of lost rows that are listed.
const MOST: usize = 20;

/// Records the matched row and the lost ones. Returns the number of rows for this host.
pub(super) fn judge(
    routes: &RouteTable,
    host: &str,
    head: &request::Parts,
    found: Option<&Arc<Rule>>,
    told: &mut Explained,
) -> usize {
    let rows = routes.rows();
    let of_host: Vec<_> = rows.iter().filter(|row| is_for(row, host)).collect();
    // Rows of other paths are listed only if no row matches this path.
    let on_path = |row: &&&Row<'_>| misses_path(row, head).is_none();
    let near: Vec<_> = match of_host.iter().any(|row| on_path(&row)) {
        true => of_host.iter().filter(on_path).collect(),
        false => of_host.iter().collect(),
    };
    for row in near {
        let lost = match why_not(row, head) {
            None if told.matched.is_none()
                && found.is_some_and(|rule| Arc::ptr_eq(rule, row.rule)) =>
            {
                told.matched = Some(describe::row(row));
                continue;
            }
            None => "a match that is tried before it takes the request".into(),
            Some(why) => why,
        };
        if told.lost.len() == MOST {
            told.left_out += 1;
            continue;
        }
        told.lost.push(Lost { what: describe::row(row), why: lost });
    }
    of_host.len()
}

fn is_for(row: &Row<'_>, host: &str) -> bool {
    let Some(pattern) = &row.host else { return true };
    HostPattern::parse(pattern).is_ok_and(|pattern| pattern.accepts(host))
}

/// Returns the first condition of the row that the request does not meet.
fn why_not(row: &Row<'_>, head: &request::Parts) -> Option<String> {
    misses_path(row, head).or_else(|| row.conditions.missed(head))
}

fn misses_path(row: &Row<'_>, head: &request::Parts) -> Option<String> {
    let path = path_of(&head.uri);
    let misses = || match &row.path {
        PathMatch::Exact(exact) => format!("the path is not {exact}"),
        PathMatch::Regex(regex) => format!("the path does not match {regex}"),
        PathMatch::Prefix(prefix) => format!("the path is not below {prefix}"),
    };
    (!row.path.accepts(path)).then(misses)
}
