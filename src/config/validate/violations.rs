//! Rules that many fields share, and the violations of one object.

use std::collections::HashSet;
use std::fmt::Display;
use std::hash::Hash;
use std::ops::RangeInclusive;

use crate::api::ObjectKey;
use crate::api::envoy::Quantity;
use crate::api::shared::Fraction;
use crate::config::fault::{Fault, Reason};
use crate::config::names;
use crate::config::path::Path;
use crate::config::scalar::shown;
use crate::config::suggest::hint;
use crate::net::{Cidr, HostPattern};

/// The violations of one object, in the order in which they are found.
#[derive(Debug)]
pub(super) struct Violations {
    object: ObjectKey,
    faults: Vec<Fault>,
}

impl Violations {
    pub(super) fn of(object: ObjectKey) -> Self {
        Self { object, faults: Vec::new() }
    }

    pub(super) fn into_vec(self) -> Vec<Fault> {
        self.faults
    }

    pub(super) fn add(&mut self, at: Path<'_>, problem: impl Into<String>) {
        self.faults.push(Fault::error(self.object.clone(), at.to_field_path(), problem));
    }

    /// Adds a violation for filters that exclude each other.
    pub(super) fn incompatible(&mut self, at: Path<'_>, problem: impl Into<String>) {
        let fault = Fault::error(self.object.clone(), at.to_field_path(), problem);
        self.faults.push(Fault { reason: Reason::IncompatibleFilters, ..fault });
    }

    /// Checks a rule that has upstream's message.
    pub(super) fn require(&mut self, holds: bool, at: Path<'_>, problem: &str) {
        if !holds {
            self.add(at, problem);
        }
    }

    /// Checks the number of items of a list.
    pub(super) fn count(&mut self, at: Path<'_>, length: usize, allowed: RangeInclusive<usize>) {
        let (least, most) = allowed.into_inner();
        if length > most {
            self.add(at, format!("{length} items are too many; at most {most} are allowed"));
        } else if length < least {
            self.add(at, format!("{length} items are too few; at least {least} must be written"));
        }
    }

    pub(super) fn number<N: Copy + PartialOrd + Display>(
        &mut self,
        at: Path<'_>,
        value: N,
        allowed: RangeInclusive<N>,
    ) {
        let (least, most) = allowed.into_inner();
        if value < least || value > most {
            self.add(at, format!("{value} is out of range; use a number from {least} to {most}"));
        }
    }

    /// Checks a number that may be absent.
    pub(super) fn optional<N: Copy + PartialOrd + Display>(
        &mut self,
        at: Path<'_>,
        value: Option<N>,
        allowed: RangeInclusive<N>,
    ) {
        if let Some(value) = value {
            self.number(at, value, allowed);
        }
    }

    /// Checks a number of bytes in the notation of Kubernetes.
    pub(super) fn quantity(&mut self, at: Path<'_>, quantity: &Quantity) {
        if let Quantity::Text(text) = quantity
            && !quantity.is_well_formed()
        {
            let problem = format!(
                "`{}` is not a whole quantity; write it like `32768`, `32Ki` or `1M`",
                shown(text)
            );
            self.add(at, problem);
        }
    }

    /// Checks an address range with its prefix length. Returns false if it is none.
    pub(super) fn address_range(&mut self, at: Path<'_>, range: &str) -> bool {
        let is_range = range.contains('/') && range.parse::<Cidr>().is_ok();
        if !is_range {
            let problem = format!(
                "`{}` is not an address range; write it like `10.0.0.0/8` or `2001:db8::/32`",
                shown(range)
            );
            self.add(at, problem);
        }
        is_range
    }

    pub(super) fn regular_expression(&mut self, at: Path<'_>, text: &str) {
        if regex::Regex::new(text).is_err() {
            self.add(at, format!("`{}` is not a regular expression", shown(text)));
        }
    }

    /// Checks a fraction.
    pub(super) fn fraction(&mut self, at: Path<'_>, fraction: Fraction) {
        let most = i32::MAX.unsigned_abs();
        self.number(at.field("denominator"), fraction.denominator(), 1..=most);
        self.number(at.field("numerator"), fraction.numerator, 0..=most);
        let problem = "numerator must be less than or equal to denominator";
        self.require(fraction.numerator <= fraction.denominator(), at, problem);
    }

    pub(super) fn port(&mut self, at: Path<'_>, port: u16) {
        self.number(at, port, 1..=u16::MAX);
    }

    /// Checks a word of a closed list; `unknown` is the word if the list does not contain it.
    pub(super) fn word(&mut self, at: Path<'_>, unknown: Option<&str>, known: &[&str]) {
        if let Some(word) = unknown {
            self.add(at, format!("`{}` is not supported{}", shown(word), hint(word, known)));
        }
    }

    /// Checks that no value is repeated; a repeated value is reported at its later place.
    pub(super) fn unique<T: Eq + Hash>(
        &mut self,
        at: Path<'_>,
        values: impl IntoIterator<Item = T>,
        problem: &str,
    ) {
        let mut seen = HashSet::new();
        for (index, value) in values.into_iter().enumerate() {
            if !seen.insert(value) {
                self.add(at.item(index), problem);
            }
        }
    }

    pub(super) fn length(&mut self, at: Path<'_>, text: &str, allowed: RangeInclusive<usize>) {
        let (least, most) = allowed.into_inner();
        let length = text.chars().count();
        if length > most {
            self.add(at, format!("{length} characters are too many; at most {most} are allowed"));
        } else if length < least {
            self.add(at, "nothing is written; write something or leave the field out");
        }
    }

    /// Checks a hostname, whose first label may be a wildcard. An API server accepts IP addresses
    /// and labels that are too long for DNS; those are reported where the hostname is used.
    pub(super) fn hostname(&mut self, at: Path<'_>, host: &str) {
        let Err(why) = names::hostname(host) else { return };
        // The gateway's own parser is stricter and gives a more precise reason.
        let why = HostPattern::parse(host).map_or_else(|why| why.to_string(), |_| why.into());
        self.add(at, format!("`{}` is not a hostname: {why}", shown(host)));
    }

    /// Checks an API group; empty for the core group.
    pub(super) fn group(&mut self, at: Path<'_>, group: &str) {
        if !group.is_empty() {
            self.named(at, "an API group", group, names::subdomain);
        }
    }

    /// Checks a hostname without a wildcard.
    pub(super) fn precise_hostname(&mut self, at: Path<'_>, host: &str) {
        self.named(at, "a hostname without wildcard", host, names::subdomain);
    }

    /// Checks a DNS name: lower-case labels separated by dots.
    pub(super) fn section_name(&mut self, at: Path<'_>, name: &str) {
        self.named(at, "a name", name, names::subdomain);
    }

    pub(super) fn namespace(&mut self, at: Path<'_>, name: Option<&str>) {
        if let Some(name) = name {
            self.named(at, "a namespace", name, names::label);
        }
    }

    fn named(
        &mut self,
        at: Path<'_>,
        what: &str,
        text: &str,
        check: fn(&str) -> Result<(), &'static str>,
    ) {
        if let Err(why) = check(text) {
            self.add(at, format!("`{}` is not {what}: {why}", shown(text)));
        }
    }

    /// Checks the group, kind, name and namespace of a reference, below `at`.
    pub(super) fn reference(&mut self, at: Path<'_>, to: Reference<'_>) {
        if let Some(group) = to.group {
            self.group(at.field("group"), group);
        }
        if let Some(kind) = to.kind {
            self.kind(at.field("kind"), kind);
        }
        self.length(at.field("name"), to.name, 1..=253);
        self.namespace(at.field("namespace"), to.namespace);
    }

    pub(super) fn kind(&mut self, at: Path<'_>, kind: &str) {
        let letters = kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let first = kind.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
        if !letters || !first || kind.ends_with('-') || kind.len() > 63 {
            self.add(at, format!("`{}` is not a kind; use letters and digits", shown(kind)));
        }
    }

    pub(super) fn header_name(&mut self, at: Path<'_>, name: &str) {
        if !is_token(name) || name.len() > 256 {
            let problem = format!(
                "`{}` is not a header name; use letters, digits and `-`, at most 256",
                shown(name)
            );
            self.add(at, problem);
        }
    }

    /// Checks the value of a header.
    pub(super) fn header_value(&mut self, at: Path<'_>, value: &str) {
        self.length(at, value, 1..=4096);
        if value.chars().any(|c| c.is_control() && c != '\t') {
            self.add(at, "the value has a control character; write it on one line");
        }
    }
}

/// A reference of any type, reduced to its parts.
#[derive(Clone, Copy)]
pub(super) struct Reference<'a> {
    pub group: Option<&'a str>,
    pub kind: Option<&'a str>,
    pub name: &'a str,
    pub namespace: Option<&'a str>,
}

/// Returns true for a `token` of RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use crate::api::Kind;

    use super::*;

    #[test]
    fn texts_that_an_api_server_refuses_are_refused() {
        type Check = fn(&mut Violations, Path<'_>, &str);
        let long = "a".repeat(300);
        // (check, right, wrong)
        let table: [(Check, &[&str], &[&str]); 6] = [
            (
                Violations::hostname,
                &["a.b", "*.a.b", "a", "1.2.3.4"],
                &["", "A", "*", "a.*", "a:80", &long],
            ),
            (Violations::precise_hostname, &["a.b", "1.2.3.4"], &["*.a", "", "a b", &long]),
            (Violations::section_name, &["http", "a.b"], &["HTTP", "a_b", "-a", "", &long]),
            (Violations::kind, &["Service", "TLSRoute2", "a-b"], &["", "1a", "a-", "a.b", &long]),
            (Violations::header_name, &["X-A", "x_a", "a.b"], &["", "a b", "a:", "ä", &long]),
            (Violations::header_value, &["a", "a  b", "ä", "a\tb"], &["", "a\nb", "a\u{7f}"]),
        ];
        let key = ObjectKey::new(Kind::HttpRoute, "default", "a");
        for (check, right, wrong) in table {
            for (texts, want) in [(right, 0), (wrong, 1)] {
                for text in texts {
                    let mut found = Violations::of(key.clone());
                    check(&mut found, Path::Root, text);
                    assert_eq!(found.faults.len(), want, "{text}: {:?}", found.faults);
                }
            }
        }
    }
}
