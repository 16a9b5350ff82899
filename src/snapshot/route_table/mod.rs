//! The route table: maps host and path to a rule; the first match wins.

mod rows;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use rows::Row;
pub(crate) use table::{Entry, RouteTable};
