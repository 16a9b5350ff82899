//! Values of environment variables.

use std::net::IpAddr;

/// The variable that contains the name of the host's certificates.
pub(crate) const DOMAIN: &str = "DOMAIN";

/// Returns the normalised value of the variable `name`.
///
/// Trailing line ends are removed: `docker run --env-file` keeps the carriage returns of a file
/// that was saved on Windows, where systemd drops them, and `$(...)` of a shell drops newlines. The
/// value of `DOMAIN` is a hostname: it is trimmed, in lower case and without a trailing dot.
pub(crate) fn value_of(name: &str, value: &str) -> String {
    let value = value.trim_end_matches(['\r', '\n']);
    if name != DOMAIN {
        return value.into();
    }
    let value = value.trim().to_ascii_lowercase();
    value.strip_suffix('.').unwrap_or(&value).into()
}

/// Returns the problem with a value of `DOMAIN` that is neither a hostname nor another name of a
/// certbot lineage.
pub(crate) fn fault_of_domain(value: &str) -> Option<String> {
    let name = value.strip_prefix("*.").unwrap_or(value);
    let is_of_a_name = |char: char| char.is_ascii_alphanumeric() || "-._".contains(char);
    if name.chars().all(is_of_a_name) || name.parse::<IpAddr>().is_ok() {
        return None;
    }
    let (value, hint) = (value.escape_debug(), hint(name));
    Some(format!(
        "the environment variable DOMAIN is `{value}`: expected a hostname such as example.org{hint}; no \
         certificate is found by it"
    ))
}

fn hint(name: &str) -> &'static str {
    match name {
        _ if name.contains("://") => ", found a URL",
        _ if name.contains(['"', '\'']) => ", found quotes, which `docker run --env-file` keeps",
        _ if name.contains(':') => ", found a port",
        _ if name.contains([',', ' ']) => ", found several names",
        _ if name.contains(char::is_control) => ", found control characters",
        _ if !name.is_ascii() => "; write it in its form with xn--",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_it_was_meant() {
        // (variable, value, normalised value)
        let table = [
            ("DOMAIN", "app.example.test", "app.example.test"),
            ("DOMAIN", "app.example.test\r", "app.example.test"),
            ("DOMAIN", "app.example.test\r\n", "app.example.test"),
            ("DOMAIN", "app.example.test\n\n", "app.example.test"),
            ("DOMAIN", " App.Example.Test. ", "app.example.test"),
            ("DOMAIN", "", ""),
            ("DOMAIN", "192.0.2.1", "192.0.2.1"),
            ("TOKEN", "Secret. \r\n", "Secret. "),
            ("TOKEN", "a\r\nb", "a\r\nb"),
            ("TOKEN", "", ""),
        ];
        for (name, value, want) in table {
            assert_eq!(value_of(name, value), want, "{name}={value:?}");
        }
    }

    #[test]
    fn what_is_no_name_is_told_with_what_was_found() {
        for right in ["example.test", "*.example.test", "my_cert", "192.0.2.1", "2001:db8::1", ""] {
            assert_eq!(fault_of_domain(right), None, "{right}");
        }
        // (value, part of the message)
        let table = [
            ("https://example.test", "found a URL"),
            ("\"example.test\"", "found quotes"),
            ("example.test:443", "found a port"),
            ("a.test b.test", "found several names"),
            ("a\rb", "DOMAIN is `a\\rb`"),
            ("bücher.test", "xn--"),
        ];
        for (wrong, want) in table {
            let fault = fault_of_domain(wrong).unwrap_or_default();
            assert!(fault.contains(want), "{wrong}: {fault}");
            assert!(!fault.contains('\r'), "{fault:?}");
        }
    }
}
