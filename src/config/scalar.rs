//! Scalars: the words of YAML, and `${NAME}` in a text.

/// The type of a scalar without quotes, as the YAML readers of Kubernetes determine it (YAML 1.1
/// words, with the number forms of 1.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Word {
    Null,
    Bool(bool),
    Int(i128),
    Float,
    Text,
}

/// Reads a scalar without quotes.
pub(super) fn word(text: &str) -> Word {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Word::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Word::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            Word::Bool(false)
        }
        _ => integer(text)
            .map(Word::Int)
            .unwrap_or_else(|| if is_float(text) { Word::Float } else { Word::Text }),
    }
}

fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.get(..2) {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        _ => (10, digits),
    };
    // `from_str_radix` accepts a sign, which would make `--5` a number.
    if !digits.bytes().next()?.is_ascii_alphanumeric() {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    Some(if negative { -value } else { value })
}

fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let starts = unsigned.bytes().next().is_some_and(|b| b.is_ascii_digit() || b == b'.');
    starts
        && (matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN")
            || (unsigned.bytes().any(|b| b.is_ascii_digit()) && unsigned.parse::<f64>().is_ok()))
}

/// Replaces `${NAME}` by the value of the variable, and `$$` by a dollar sign. Returns `None` if
/// the text has neither.
///
/// A dollar sign before any other character is kept, so that `^/a$` needs no escape. The values of
/// variables are not searched for further variables.
///
/// # Errors
///
/// A variable that is not set, or a reference that is malformed.
pub(super) fn interpolate(
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, InvalidVariable> {
    if !text.contains("$$") && !text.contains("${") {
        return Ok(None);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        rest = if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            after
        } else if let Some(inner) = after.strip_prefix('{') {
            let name = inner.split_once('}').map(|(name, _)| name).filter(|name| is_name(name));
            let Some(name) = name else {
                return Err(InvalidVariable::Malformed(shown(&rest[at..])));
            };
            let value = variable(name);
            out.push_str(&value.ok_or_else(|| InvalidVariable::NotSet(name.into()))?);
            &inner[name.len() + 1..]
        } else {
            out.push('$');
            after
        };
    }
    out.push_str(rest);
    Ok(Some(out))
}

/// The reason why `${NAME}` cannot be replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidVariable {
    #[error("`{0}` is not a variable; write `${{NAME}}`, or `$${{` for a dollar sign and a brace")]
    Malformed(String),
    #[error(
        "`{0}` is not set in the environment; set it, or write `$${{{0}}}` for the text itself"
    )]
    NotSet(String),
}

fn is_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Returns the beginning of a text for a message: one line of at most 60 characters.
pub(super) fn shown(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut short: String =
        line.chars().take(60).map(|c| if c.is_control() { '?' } else { c }).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_without_quotes_are_read_as_kubernetes_reads_them() {
        let table = [
            ("", Word::Null),
            ("~", Word::Null),
            ("null", Word::Null),
            ("nUll", Word::Text),
            ("true", Word::Bool(true)),
            ("No", Word::Bool(false)),
            ("nO", Word::Text),
            ("0", Word::Int(0)),
            ("443", Word::Int(443)),
            ("-1", Word::Int(-1)),
            ("+1", Word::Int(1)),
            ("0x1F", Word::Int(31)),
            ("0o17", Word::Int(15)),
            ("--5", Word::Text),
            ("0x-5", Word::Text),
            ("-", Word::Text),
            ("1.10", Word::Float),
            ("1e3", Word::Float),
            (".5", Word::Float),
            (".inf", Word::Float),
            (".", Word::Text),
            ("infinity", Word::Text),
            ("1.2.3", Word::Text),
            ("10s", Word::Text),
            ("e1", Word::Text),
            ("é1", Word::Text),
        ];
        for (text, want) in table {
            assert_eq!(word(text), want, "{text}");
        }
    }

    #[test]
    fn variables_and_dollar_signs_are_replaced_once() {
        let environment = |name: &str| match name {
            "DOMAIN" => Some("shop.example".to_owned()),
            "TRICK" => Some("${DOMAIN}$$".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        // (text, replaced)
        let table = [
            ("${DOMAIN}", "shop.example"),
            ("a.${DOMAIN}:80", "a.shop.example:80"),
            ("${DOMAIN}${DOMAIN}", "shop.exampleshop.example"),
            ("${EMPTY}", ""),
            ("${TRICK}", "${DOMAIN}$$"),
            ("$${DOMAIN}", "${DOMAIN}"),
            ("$$$$", "$$"),
            ("$$$", "$$"),
            ("^/a$", "^/a$"),
            ("$DOMAIN", "$DOMAIN"),
            ("${DOMAIN}$", "shop.example$"),
            ("é$$é", "é$é"),
        ];
        for (text, want) in table {
            let got = interpolate(text, &environment).unwrap();
            assert_eq!(got.as_deref().unwrap_or(text), want, "{text}");
        }

        // (text, part of the message)
        let table = [
            ("${MISSING}", "`MISSING` is not set"),
            ("${DOMAIN", "is not a variable"),
            ("${}", "is not a variable"),
            ("${A-B}", "is not a variable"),
            ("${1}", "is not a variable"),
            ("${DOMAIN}${", "`${` is not a variable"),
        ];
        for (text, want) in table {
            let message = interpolate(text, &environment).unwrap_err().to_string();
            assert!(message.contains(want), "{text}: {message}");
        }
    }
}
