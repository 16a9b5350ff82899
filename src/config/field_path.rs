//! Paths of fields as values: the segments from the root of an object to a field.

use std::borrow::Cow;
use std::fmt;

/// The path from the root of an object to one of its fields; empty for the object as a whole.
///
/// Prints as `spec.rules[0].name` and `metadata.labels["a.b/c"]`, and is parsed from such a text by
/// `From`. [`field_path!`] builds a path with numbers in it.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FieldPath(Vec<Segment>);

/// One part of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Segment {
    /// A field of a mapping.
    Field(Cow<'static, str>),
    /// An item of a list, from 0.
    Item(usize),
}

/// Builds a path with numbers in it: `field_path!(spec.rules[number].backendRefs[0])`.
macro_rules! field_path {
    (@ $path:expr;) => { $path };
    (@ $path:expr; . $name:ident $($rest:tt)*) => {
        field_path!(@ $path.field(stringify!($name)); $($rest)*)
    };
    (@ $path:expr; [$index:expr] $($rest:tt)*) => {
        field_path!(@ $path.item($index); $($rest)*)
    };
    ($name:ident $($rest:tt)*) => {
        field_path!(
            @ $crate::config::FieldPath::default().field(stringify!($name)); $($rest)*
        )
    };
}
pub(crate) use field_path;

impl FieldPath {
    /// Returns the path of the field `name` below this path.
    pub(crate) fn field(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.0.push(Segment::Field(name.into()));
        self
    }

    /// Returns the path of an item of the list at this path.
    pub(crate) fn item(mut self, index: usize) -> Self {
        self.0.push(Segment::Item(index));
        self
    }

    /// Returns this path followed by `rest`.
    pub(crate) fn join(mut self, rest: impl Into<Self>) -> Self {
        self.0.append(&mut rest.into().0);
        self
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Returns true if this is the path `start` or a path below it.
    pub(crate) fn starts_with(&self, start: &Self) -> bool {
        self.0.starts_with(&start.0)
    }

    /// Returns the index of the item of the list `spec.NAME` that this path leads to, or into.
    pub(crate) fn item_of_spec(&self, list: &str) -> Option<usize> {
        match self.segments() {
            [Segment::Field(spec), Segment::Field(name), Segment::Item(item), ..]
                if spec == "spec" && name == list =>
            {
                Some(*item)
            }
            _ => None,
        }
    }

    /// Returns the index of the rule of a route that this path leads to, or into.
    pub(crate) fn rule(&self) -> Option<usize> {
        self.item_of_spec("rules")
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, segment) in self.0.iter().enumerate() {
            match segment {
                // In quotes if the name contains a separator.
                Segment::Field(name) if name.is_empty() || name.contains(['.', '[', ']', '"']) => {
                    write!(f, "[\"{name}\"]")?;
                }
                Segment::Field(name) if place == 0 => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
                Segment::Item(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<&str> for FieldPath {
    /// Parses `spec.rules[0].name` or `metadata.labels["a.b/c"]`. Parsing stops at the first text
    /// that is not part of a path.
    fn from(text: &str) -> Self {
        let mut path = Self::default();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(quoted) = rest.strip_prefix("[\"") {
                let Some((name, after)) = quoted.split_once("\"]") else { break };
                path = path.field(name.to_owned());
                rest = after;
            } else if let Some(bracket) = rest.strip_prefix('[') {
                let Some((index, after)) = bracket.split_once(']') else { break };
                let Ok(index) = index.parse() else { break };
                path = path.item(index);
                rest = after;
            } else {
                rest = rest.strip_prefix('.').unwrap_or(rest);
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                if end == 0 {
                    break;
                }
                path = path.field(rest[..end].to_owned());
                rest = &rest[end..];
            }
        }
        path
    }
}

impl From<String> for FieldPath {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_at_dots_and_brackets_and_prints_as_it_was_written() {
        let field = |name: &'static str| Segment::Field(name.into());
        // (path, segments, as printed)
        let table: [(&str, Vec<Segment>, &str); 7] = [
            ("", vec![], ""),
            ("spec", vec![field("spec")], "spec"),
            (
                "spec.rules[0].name",
                vec![field("spec"), field("rules"), Segment::Item(0), field("name")],
                "spec.rules[0].name",
            ),
            ("items[2]", vec![field("items"), Segment::Item(2)], "items[2]"),
            (
                "metadata[\"a.b/c\"].d",
                vec![field("metadata"), field("a.b/c"), field("d")],
                "metadata[\"a.b/c\"].d",
            ),
            ("a..b", vec![field("a")], "a"),
            ("a[x]", vec![field("a")], "a"),
        ];
        for (text, segments, printed) in table {
            let path = FieldPath::from(text);
            assert_eq!(path.segments(), segments, "{text}");
            assert_eq!(path.to_string(), printed, "{text}");
        }
    }

    #[test]
    fn a_path_with_numbers_says_which_rule_it_is_of() {
        let (rule, place) = (3, 1);
        let path = field_path!(spec.rules[rule].backendRefs[place].name);
        assert_eq!(path, FieldPath::from("spec.rules[3].backendRefs[1].name"));
        assert_eq!(path.rule(), Some(3));
        assert_eq!(path.item_of_spec("listeners"), None);
        assert_eq!(field_path!(spec.rules).rule(), None);
        assert_eq!(field_path!(status.rules[1]).rule(), None);
        let joined = field_path!(spec.listeners[2]).join("tls.options");
        assert_eq!(joined.to_string(), "spec.listeners[2].tls.options");
        assert_eq!(joined.item_of_spec("listeners"), Some(2));
    }
}
