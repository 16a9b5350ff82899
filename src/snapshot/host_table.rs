//! A table by hostname, with lookup of the most specific entry first.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::net::HostPattern;

/// Values stored under an exact name, a wildcard, or any host.
///
/// A lookup takes one step per label of the host, however many names there are.
#[derive(Debug)]
pub(crate) struct HostTable<T> {
    exact: HashMap<Box<str>, T>,
    /// By the part after the `*`, including the dot.
    wildcard: HashMap<Box<str>, T>,
    any: Option<T>,
}

impl<T> Default for HostTable<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new(), any: None }
    }
}

impl<T> HostTable<T> {
    /// Returns the entry of `pattern`, where `None` is any host; `make` creates it if it does not
    /// exist.
    pub(crate) fn entry(
        &mut self,
        pattern: Option<&HostPattern>,
        make: impl FnOnce() -> T,
    ) -> &mut T {
        let Some(pattern) = pattern else { return self.any.get_or_insert_with(make) };
        let (map, key) = match (pattern.exact(), pattern.suffix()) {
            (Some(name), _) => (&mut self.exact, name),
            (None, suffix) => (&mut self.wildcard, suffix.unwrap_or_default()),
        };
        map.entry(key.into()).or_insert_with(make)
    }

    /// Returns the values for `host`, the most specific first: the exact name, then wildcards from
    /// the longest, then any host. `host` is in lower case and without a port.
    pub(crate) fn candidates<'a>(&'a self, host: &str) -> impl Iterator<Item = &'a T> {
        let exact = self.exact.get(host);
        let labels = if self.wildcard.is_empty() { "" } else { host };
        let wildcard = labels
            .match_indices('.')
            // `*` matches one label or more, so it does not match a host that begins with the dot.
            .filter(|(at, _)| *at > 0)
            .filter_map(|(at, _)| self.wildcard.get(&host[at..]));
        exact.into_iter().chain(wildcard).chain(&self.any)
    }

    /// Returns the most specific value for `host`.
    pub(crate) fn best(&self, host: &str) -> Option<&T> {
        self.candidates(host).next()
    }

    /// Returns all values with their hostnames, where `None` is any host: exact names, then
    /// wildcards from the longest, then any host; those of one length in alphabetical order.
    pub(crate) fn sorted(&self) -> Vec<(Option<String>, &T)> {
        let mut exact: Vec<_> = self.exact.iter().collect();
        exact.sort_by_key(|(name, _)| *name);
        let mut wildcard: Vec<_> = self.wildcard.iter().collect();
        wildcard.sort_by_key(|(suffix, _)| (Reverse(suffix.split('.').count()), *suffix));
        let exact = exact.into_iter().map(|(name, of)| (Some(name.to_string()), of));
        let wildcard = wildcard.into_iter().map(|(suffix, of)| (Some(format!("*{suffix}")), of));
        exact.chain(wildcard).chain(self.any.as_ref().map(|of| (None, of))).collect()
    }

    /// Returns all values, mutably, to complete them after the table is filled.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.exact.values_mut().chain(self.wildcard.values_mut()).chain(&mut self.any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_name_comes_first() {
        let mut table = HostTable::default();
        for name in ["a.b.example.com", "*.b.example.com", "*.example.com"] {
            let pattern = HostPattern::parse(name).unwrap();
            table.entry(Some(&pattern), || name);
        }
        table.entry(None, || "any");

        // (host, candidates)
        let table_of_hosts: [(&str, &[&str]); 5] = [
            ("a.b.example.com", &["a.b.example.com", "*.b.example.com", "*.example.com", "any"]),
            ("x.b.example.com", &["*.b.example.com", "*.example.com", "any"]),
            ("b.example.com", &["*.example.com", "any"]),
            ("example.com", &["any"]),
            (".example.com", &["any"]),
        ];
        for (host, want) in table_of_hosts {
            let got: Vec<_> = table.candidates(host).copied().collect();
            assert_eq!(got, want, "{host}");
        }
    }
}
