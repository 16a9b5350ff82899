//! certbot commands, for advice in messages.

use std::net::IpAddr;

/// Returns the command that issues a certificate for `names`; with `lineage`, under that name,
/// where it replaces an existing one.
///
/// It uses the challenge on port 80 and `webroot`, or a DNS plugin if one of the names is a
/// wildcard, which no other challenge can prove. It is one line, quoted for a shell.
pub(crate) fn certonly(webroot: &str, lineage: Option<&str>, names: &[String]) -> String {
    let has_wildcard = names.iter().any(|name| name.starts_with("*."));
    let mut words = vec!["certbot".to_owned(), "certonly".into()];
    match has_wildcard {
        true => words.extend(["--authenticator".into(), "dns-PLUGIN".into()]),
        false => words.extend(["--webroot".into(), "-w".into(), webroot.into()]),
    }
    if let Some(lineage) = lineage {
        words.extend(["--cert-name".into(), lineage.into()]);
    }
    words.extend(identifiers(names));
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// Returns certbot's flags for `names`: domains, and addresses, for which Let's Encrypt issues
/// certificates of a few days only.
pub(crate) fn identifiers(names: &[String]) -> Vec<String> {
    let is_address = |name: &&String| name.parse::<IpAddr>().is_ok();
    let mut words = Vec::new();
    if names.iter().any(|name| is_address(&name)) {
        words.extend(["--preferred-profile".into(), "shortlived".into()]);
    }
    for name in names {
        let flag = if is_address(&name) { "--ip-address" } else { "-d" };
        words.extend([flag.to_owned(), name.clone()]);
    }
    words
}

/// Quotes a word for a shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "_@%+=:,./-".contains(char);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_proved_by_the_challenge_that_can() {
        // (lineage, names, command)
        let table: [(_, &[&str], _); 4] = [
            (None, &["a.test"], "certbot certonly --webroot -w /acme -d a.test"),
            (
                Some("a"),
                &["a.test", "b.test"],
                "certbot certonly --webroot -w /acme --cert-name a -d a.test -d b.test",
            ),
            (
                Some("a"),
                &["a.test", "*.a.test"],
                "certbot certonly --authenticator dns-PLUGIN --cert-name a -d a.test -d '*.a.test'",
            ),
            (
                None,
                &["203.0.113.7", "2001:db8::7"],
                "certbot certonly --webroot -w /acme --preferred-profile shortlived \
                 --ip-address 203.0.113.7 --ip-address 2001:db8::7",
            ),
        ];
        for (lineage, names, want) in table {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(certonly("/acme", lineage, &names), want);
        }
    }

    #[test]
    fn a_word_survives_the_shell() {
        // (word, as it is printed)
        let table = [("a.test", "a.test"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'")];
        for (word, want) in table {
            assert_eq!(quoted(word), want);
        }
    }
}
