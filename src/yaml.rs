//! Writer of YAML, the only one: JSON values in the form of `kubectl get -o yaml`.
//!
//! The output reads back as the same value in any reader: a text that some reader could take for a
//! number, a boolean or null is quoted. The reader of YAML is in `config`.

use std::fmt::{self, Formatter, Write};

use serde_json::Value;

/// Prints a value as one YAML document, its last line ended.
#[derive(Clone, Copy)]
pub(crate) struct Yaml<'a>(pub &'a Value);

impl fmt::Debug for Yaml<'_> {
    // The value may be a secret.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Yaml")
    }
}

impl fmt::Display for Yaml<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Object(fields) if !fields.is_empty() => map(f, 0, fields, ""),
            Value::Array(items) if !items.is_empty() => list(f, 0, items),
            other => {
                scalar(f, 0, other)?;
                f.write_char('\n')
            }
        }
    }
}

/// Writes the fields of a mapping, one per line; `dash` precedes the first, as in a list item.
fn map(
    f: &mut Formatter<'_>,
    indent: usize,
    fields: &serde_json::Map<String, Value>,
    dash: &str,
) -> fmt::Result {
    for (number, (name, value)) in fields.iter().enumerate() {
        match number {
            0 if !dash.is_empty() => write!(f, "{:1$}{dash}", "", indent - dash.len())?,
            _ => write!(f, "{:indent$}", "")?,
        }
        write!(f, "{}:", Text(name))?;
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                f.write_char('\n')?;
                map(f, indent + 2, inner, "")?;
            }
            // As kubectl writes it: the dashes are below the name, without an indent.
            Value::Array(items) if !items.is_empty() => {
                f.write_char('\n')?;
                list(f, indent, items)?;
            }
            other => {
                f.write_char(' ')?;
                scalar(f, indent + 2, other)?;
                f.write_char('\n')?;
            }
        }
    }
    Ok(())
}

fn list(f: &mut Formatter<'_>, indent: usize, items: &[Value]) -> fmt::Result {
    for item in items {
        match item {
            Value::Object(fields) if !fields.is_empty() => map(f, indent + 2, fields, "- ")?,
            Value::Array(inner) if !inner.is_empty() => {
                writeln!(f, "{:indent$}-", "")?;
                list(f, indent + 2, inner)?;
            }
            other => {
                write!(f, "{:indent$}- ", "")?;
                scalar(f, indent + 2, other)?;
                f.write_char('\n')?;
            }
        }
    }
    Ok(())
}

/// Writes a value on the line of its name; the further lines of a multi-line text are indented by
/// `indent`.
fn scalar(f: &mut Formatter<'_>, indent: usize, value: &Value) -> fmt::Result {
    match value {
        Value::Null => f.write_str("null"),
        Value::Bool(value) => write!(f, "{value}"),
        Value::Number(value) => write!(f, "{value}"),
        Value::String(text) if indent > 0 && is_block(text) => block(f, indent, text),
        Value::String(text) => write!(f, "{}", Text(text)),
        Value::Array(_) => f.write_str("[]"),
        Value::Object(_) => f.write_str("{}"),
    }
}

/// True for a multi-line text that a block can hold unchanged.
fn is_block(text: &str) -> bool {
    let shown = |c: char| c == '\n' || (!c.is_control() && !"\u{2028}\u{2029}\u{feff}".contains(c));
    // A first line that begins with a space would be taken for the indent.
    text.contains('\n') && !text.starts_with([' ', '\n']) && text.chars().all(shown)
}

fn block(f: &mut Formatter<'_>, indent: usize, text: &str) -> fmt::Result {
    let body = text.trim_end_matches('\n');
    f.write_str(match text.len() - body.len() {
        0 => "|-",
        1 => "|",
        _ => "|+",
    })?;
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        f.write_char('\n')?;
        if !line.is_empty() {
            write!(f, "{:indent$}{line}", "")?;
        }
    }
    Ok(())
}

/// A text as a scalar: plain if that reads back as the same text, else in double quotes.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if is_plain(self.0) {
            return f.write_str(self.0);
        }
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\t' => f.write_str("\\t")?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// True for a text that needs no quotes. In doubt, a text is quoted.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.contains(char::is_control)
        && !WORDS.contains(&&*text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_reads_back_as_itself() {
        // (text, as written)
        let table = [
            ("the route is attached", "the route is attached"),
            ("eg", "eg"),
            ("true", "\"true\""),
            ("No", "\"No\""),
            ("8080", "\"8080\""),
            ("", "\"\""),
            ("`x` is wrong", "\"`x` is wrong\""),
            ("field: wrong", "\"field: wrong\""),
            ("a # b", "\"a # b\""),
            ("say \"so\" \\ now", "say \"so\" \\ now"),
            ("\"quoted\" \\", "\"\\\"quoted\\\" \\\\\""),
            ("two\nlines\u{7}", "\"two\\nlines\\u0007\""),
            ("::", "\"::\""),
        ];
        for (text, want) in table {
            assert_eq!(Text(text).to_string(), want, "{text:?}");
        }
    }

    #[test]
    fn a_value_is_written_as_kubectl_writes_it() {
        let value = json!({
            "kind": "ConfigMap",
            "data": {
                "a": "one\ntwo\n",
                "b": "one\n\n  two",
                "c": "one\n\n",
                "d": " one\ntwo",
                "e": "one\r\ntwo",
            },
            "empty": { "list": [], "map": {} },
            "rules": [
                { "matches": [{ "path": "/" }], "weight": 1 },
                "text",
                [1, true, null],
            ],
            "on": 1.5,
        });
        let want = "\
kind: ConfigMap
data:
  a: |
    one
    two
  b: |-
    one

      two
  c: |+
    one

  d: \" one\\ntwo\"
  e: \"one\\u000d\\ntwo\"
empty:
  list: []
  map: {}
rules:
- matches:
  - path: \"/\"
  weight: 1
- text
-
  - 1
  - true
  - null
\"on\": 1.5
";
        assert_eq!(Yaml(&value).to_string(), want);
        assert_eq!(Yaml(&json!({})).to_string(), "{}\n");
        assert_eq!(Yaml(&json!(["a\nb"])).to_string(), "- |-\n  a\n  b\n");
    }
}
