//! Doors for the fuzz targets in `fuzz/`, and for nobody else: no part of the library's interface.
//!
//! A reader of foreign bytes is private to its room, and a fuzz target is a crate of its own. Each
//! function here takes bytes as a stranger would send them and hands them to such a reader. A
//! panic, a hang and a broken promise (an `assert` below) are findings; an error is an answer.

use crate::net::Cidr;
use crate::net::HostPattern;

/// The configuration reader: `bytes` as one file of documents.
pub fn yaml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    text.lines().for_each(names_and_ranges);
}

/// The readers of what a peer sends first; the first byte picks one, the rest is its input.
///
/// `0` to `3` as digits do as well, so a seed can be written by hand.
pub fn parsers(bytes: &[u8]) {
    let Some((pick, rest)) = bytes.split_first() else { return };
    if pick % 4 == 3
        && let Ok(text) = std::str::from_utf8(rest)
    {
        names_and_ranges(text);
    }
}

/// Hostnames and address ranges: what is accepted reads the same once more after it was printed.
fn names_and_ranges(text: &str) {
    if let Ok(pattern) = HostPattern::parse(text) {
        assert_eq!(HostPattern::parse(&pattern.to_string()), Ok(pattern), "{text}");
    }
    if let Ok(range) = text.parse::<Cidr>() {
        let address = text.split('/').next().and_then(|address| address.parse().ok());
        assert!(address.is_some_and(|address| range.contains(address)), "{text}");
    }
}
