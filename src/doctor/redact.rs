//! Redaction of a report: replaces host names and addresses, so that it can be published.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::upstream::EndpointSettings;

use super::dns::RESOLVER;
use super::subject::Subject;

/// Last parts of words that look like a domain but are not: files, units, fields, API groups.
const FILES: [&str; 13] = [
    "conf", "json", "list", "md", "path", "pem", "service", "sh", "sock", "socket", "timer",
    "yaml", "yml",
];
const OUR_NAMES: [&str; 3] =
    ["edge-gateway.io", "gateway.envoyproxy.io", "gateway.networking.k8s.io"];

/// Replaces host names and addresses by numbered placeholders. Equal names get the same
/// placeholder.
///
/// Known names are replaced wherever they occur as a word. Otherwise, every word that looks like a
/// domain or an address is replaced. Loopback and unspecified addresses remain.
#[derive(Debug, Default)]
pub(crate) struct Redactor {
    known: Vec<String>,
    words: HashMap<String, String>,
}

impl Redactor {
    /// Collects the names of the configuration, its certificates, and this host.
    pub(crate) fn new(subject: &Subject) -> Self {
        let mut known = subject.hosts();
        for row in &subject.certificates.certificates {
            known.extend(row.listeners.iter().filter_map(|on| on.hostname.clone()));
            if let Some(facts) = &row.certificate {
                known.extend(facts.names.iter().cloned());
                known.extend(facts.lineage.clone());
            }
        }
        for cluster in subject.load.compiled.iter().flat_map(|load| load.snapshot.clusters.keys()) {
            known.extend(cluster.endpoints.iter().filter_map(|endpoint| match endpoint {
                EndpointSettings::Name { host, .. } => Some(host.to_string()),
                EndpointSettings::Address(_) | EndpointSettings::Unix(_) => None,
            }));
        }
        known.extend(nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()));
        Self::of(known)
    }

    fn of(known: impl IntoIterator<Item = String>) -> Self {
        let known = known.into_iter().map(|name| plain(&name).to_owned());
        // `localhost` is the same on every host.
        let known = known.filter(|name| !name.is_empty() && name != "localhost");
        Self { known: known.collect(), words: HashMap::new() }
    }

    pub(crate) fn redact(&mut self, text: &str) -> String {
        let mut redacted = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(|char| !is_of_word(char)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            redacted.push_str(&self.word(word));
            let next = after.find(is_of_word).unwrap_or(after.len());
            let (between, following) = after.split_at(next);
            redacted.push_str(between);
            rest = following;
        }
        redacted
    }

    fn word(&mut self, word: &str) -> String {
        if let Ok(address) = word.parse::<IpAddr>() {
            return self.address(address);
        }
        // Punctuation after a word is not part of it.
        let core = word.trim_end_matches(['.', ':']);
        let (core, tail) = word.split_at(core.len());
        if let Ok(address) = core.parse::<SocketAddr>() {
            return format!("{}:{}{tail}", self.address(address.ip()), address.port());
        }
        if let Ok(address) = core.parse::<IpAddr>() {
            return self.address(address) + tail;
        }
        let (name, port) = match core.split_once(':') {
            Some((name, port)) => (name, format!(":{port}")),
            None => (core, String::new()),
        };
        let bare = plain(name);
        let star = &name[..name.len() - bare.len()];
        match self.is_host(bare) {
            true => format!("{star}{}{port}{tail}", self.replacement("host", &bare.to_lowercase())),
            false => word.to_owned(),
        }
    }

    fn is_host(&self, name: &str) -> bool {
        if self.known.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return true;
        }
        let Some((first, last)) = name.rsplit_once('.') else { return false };
        !first.is_empty()
            && !first.starts_with('.')
            && !first.starts_with("spec")
            && last.len() >= 2
            && last.chars().all(|char| char.is_ascii_lowercase())
            && !FILES.contains(&last)
            && !OUR_NAMES.contains(&name)
    }

    fn address(&mut self, address: IpAddr) -> String {
        let text = address.to_string();
        if address.is_loopback() || address.is_unspecified() || text == RESOLVER {
            return text;
        }
        self.replacement("address", &text)
    }

    fn replacement(&mut self, kind: &str, of: &str) -> String {
        let next = self.words.values().filter(|word| word.starts_with(kind)).count() + 1;
        self.words.entry(of.to_owned()).or_insert_with(|| format!("{kind}-{next}")).clone()
    }
}

/// Returns a name without its wildcard.
fn plain(name: &str) -> &str {
    name.strip_prefix("*.").unwrap_or(name)
}

fn is_of_word(char: char) -> bool {
    char.is_alphanumeric() || matches!(char, '.' | '-' | '_' | ':' | '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_replaced_and_nothing_else() {
        let known = ["example.org", "*.shop.test", "keycloak.local", "vps7", "localhost"];
        let mut redactor = Redactor::of(known.map(String::from));
        // (text, redacted); the numbers continue from row to row
        let table = [
            ("example.org is 203.0.113.7, this host", "host-1 is address-1, this host"),
            (
                "203.0.113.7:80 answers for EXAMPLE.org with 404",
                "address-1:80 answers for host-1 with 404",
            ),
            (
                "/etc/letsencrypt/live/example.org/privkey.pem",
                "/etc/letsencrypt/live/host-1/privkey.pem",
            ),
            ("backend/a/id: keycloak.local:8080: refused", "backend/a/id: host-2:8080: refused"),
            ("*.shop.test, a.shop.test", "*.host-3, host-4"),
            ("http://unheard.of/x?y=1", "http://host-5/x?y=1"),
            ("2001:db8::7 and [2001:db8::7]:443", "address-2 and [address-2]:443"),
            ("admin@example.org on vps7.", "admin@host-1 on host-6."),
            ("127.0.0.1:80 and :: and localhost:80", "127.0.0.1:80 and :: and localhost:80"),
            ("systemctl start edge-gateway.service", "systemctl start edge-gateway.service"),
            ("gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1"),
            (
                "a.yaml:3:7: HTTPRoute a/b: spec.rules[0].matches[1].path: wrong",
                "a.yaml:3:7: HTTPRoute a/b: spec.rules[0].matches[1].path: wrong",
            ),
            ("generation 3, 0.4 s, version 1.2.3", "generation 3, 0.4 s, version 1.2.3"),
            ("example.organic, not-example.org-at-all", "host-7, not-example.org-at-all"),
        ];
        for (text, want) in table {
            assert_eq!(redactor.redact(text), want, "{text}");
        }
    }
}
