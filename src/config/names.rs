//! Names of objects, and the rules for them.

use crate::api::{Kind, ObjectMeta};

/// Returns the wrong field of `metadata` and the problem, if there is one.
pub(super) fn check(kind: Kind, metadata: &ObjectMeta) -> Option<(&'static str, String)> {
    let named = match kind {
        Kind::Namespace => label(&metadata.name),
        Kind::Service => label(&metadata.name).and_then(|()| match metadata.name.as_bytes() {
            [first, ..] if first.is_ascii_digit() => Err("it begins with a digit"),
            _ => Ok(()),
        }),
        _ => subdomain(&metadata.name),
    };
    if let Err(why) = named {
        return Some(("metadata.name", invalid("a name", &metadata.name, why)));
    }
    let namespace = metadata.namespace.as_deref()?;
    let why = label(namespace).err()?;
    Some(("metadata.namespace", invalid("a namespace", namespace, why)))
}

fn invalid(what: &str, text: &str, why: &str) -> String {
    let text = super::scalar::shown(text);
    format!("`{text}` is not {what}: {why}; use lower case letters, digits and `-`")
}

/// Checks an RFC 1123 subdomain: labels separated by dots.
///
/// # Errors
///
/// The reason why the text is not a subdomain.
pub(super) fn subdomain(text: &str) -> Result<(), &'static str> {
    if text.len() > 253 {
        return Err("it is longer than 253 characters");
    }
    text.split('.').try_for_each(characters)
}

/// Checks a subdomain whose first label may be `*`.
///
/// # Errors
///
/// The reason why the text is not a hostname.
pub(super) fn hostname(text: &str) -> Result<(), &'static str> {
    if text.len() > 253 {
        return Err("it is longer than 253 characters");
    }
    subdomain(text.strip_prefix("*.").unwrap_or(text))
}

/// Returns true if an API server accepts the text as a hostname; this gateway may accept less.
pub(crate) fn is_hostname(text: &str) -> bool {
    hostname(text).is_ok()
}

/// Checks an RFC 1123 label: at most 63 letters, digits and hyphens.
///
/// # Errors
///
/// The reason why the text is not a label.
pub(super) fn label(text: &str) -> Result<(), &'static str> {
    if text.len() > 63 {
        return Err("it is longer than 63 characters");
    }
    characters(text)
}

fn characters(label: &str) -> Result<(), &'static str> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if label.is_empty() {
        return Err("it is empty, or holds an empty part");
    }
    if label.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("it has capital letters");
    }
    if !label.bytes().all(allowed) {
        return Err("it has other characters than letters, digits and `-`");
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err("it begins or ends with `-`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_their_kind() {
        // (kind, name, namespace, field that is wrong)
        let table = [
            (Kind::HttpRoute, "cart", Some("shop"), None),
            (Kind::HttpRoute, "cart.v1", None, None),
            (Kind::HttpRoute, "1-cart", None, None),
            (Kind::HttpRoute, "", None, Some("metadata.name")),
            (Kind::HttpRoute, "Cart", None, Some("metadata.name")),
            (Kind::HttpRoute, "cart_v1", None, Some("metadata.name")),
            (Kind::HttpRoute, "-cart", None, Some("metadata.name")),
            (Kind::HttpRoute, "cart..v1", None, Some("metadata.name")),
            (Kind::HttpRoute, "cart", Some("a.b"), Some("metadata.namespace")),
            (Kind::HttpRoute, "cart", Some(""), Some("metadata.namespace")),
            (Kind::Service, "cart.v1", None, Some("metadata.name")),
            (Kind::Service, "1cart", None, Some("metadata.name")),
            (Kind::Namespace, "shop", None, None),
            (Kind::Namespace, "a.b", None, Some("metadata.name")),
        ];
        for (kind, name, namespace, want) in table {
            let namespace = namespace.map(Into::into);
            let metadata = ObjectMeta { name: name.into(), namespace, ..ObjectMeta::default() };
            let got = check(kind, &metadata).map(|(field, _)| field);
            assert_eq!(got, want, "{kind} {metadata:?}");
        }
    }
}
