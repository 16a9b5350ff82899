//! `requestHeaderModifier` and `responseHeaderModifier`.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Changes to a set of headers.
///
/// HTTPRoute `HTTPHeaderFilter`: `set` replaces every value of a name, `add` appends one, `remove`
/// takes all away; names are case-insensitive. The lists name different headers, so their order
/// does not matter where the configuration is valid; it is set, add, remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeaderModifier {
    pub set: Box<[(HeaderName, HeaderValue)]>,
    pub add: Box<[(HeaderName, HeaderValue)]>,
    pub remove: Box<[HeaderName]>,
}

impl HeaderModifier {
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_replaces_add_appends_remove_removes() {
        let pair = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let modifier = HeaderModifier {
            set: [pair("x-set", "new")].into(),
            add: [pair("x-add", "second")].into(),
            remove: [HeaderName::from_static("x-gone")].into(),
        };
        let mut headers: HeaderMap = [
            pair("x-set", "old"),
            pair("x-add", "first"),
            pair("x-gone", "1"),
            pair("x-kept", "1"),
        ]
        .into_iter()
        .collect();
        headers.append("x-set", HeaderValue::from_static("older"));

        modifier.apply(&mut headers);

        let all = |name| headers.get_all(name).iter().map(|value| value.to_str().unwrap());
        assert_eq!(all("x-set").collect::<Vec<_>>(), ["new"]);
        assert_eq!(all("x-add").collect::<Vec<_>>(), ["first", "second"]);
        assert_eq!(all("x-gone").count(), 0);
        assert_eq!(all("x-kept").count(), 1);
    }
}
