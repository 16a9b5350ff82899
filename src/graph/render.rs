//! Statuses as YAML, in the form of `kubectl get -o yaml`.
//!
//! Written by hand, since nothing else in the house writes YAML. `lastTransitionTime` is absent: a
//! condition is worked out anew with every load, and nothing remembers when it last was another.

use std::fmt::{self, Formatter, Write};

use crate::api::{Condition, GATEWAY_GROUP, ObjectKey, ParentReference};

use super::status::{
    GatewayClassStatus, GatewayStatus, ListenerStatus, ParentStatus, RouteStatus, Statuses,
};

pub(super) fn render(statuses: &Statuses, f: &mut Formatter<'_>) -> fmt::Result {
    let mut documents = Documents { to: f, first: true };
    for class in &statuses.classes {
        documents.class(class)?;
    }
    for gateway in &statuses.gateways {
        documents.gateway(gateway)?;
    }
    for route in &statuses.routes {
        documents.route(route)?;
    }
    Ok(())
}

struct Documents<'d, 'f> {
    to: &'d mut Formatter<'f>,
    first: bool,
}

impl Documents<'_, '_> {
    fn class(&mut self, status: &GatewayClassStatus) -> fmt::Result {
        self.begin(&status.key)?;
        self.conditions(2, &status.conditions, status.generation)
    }

    fn gateway(&mut self, status: &GatewayStatus) -> fmt::Result {
        self.begin(&status.key)?;
        if !status.addresses.is_empty() {
            self.to.write_str("  addresses:\n")?;
        }
        for address in &status.addresses {
            writeln!(self.to, "  - type: IPAddress\n    value: {}", Text(address))?;
        }
        self.conditions(2, &status.conditions, status.generation)?;
        self.to.write_str("  listeners:\n")?;
        status.listeners.iter().try_for_each(|one| self.listener(one, status.generation))
    }

    fn listener(&mut self, status: &ListenerStatus, generation: i64) -> fmt::Result {
        writeln!(self.to, "  - attachedRoutes: {}", status.attached_routes)?;
        self.conditions(4, &status.conditions, generation)?;
        writeln!(self.to, "    name: {}", Text(&status.name))?;
        if status.supported_kinds.is_empty() {
            return self.to.write_str("    supportedKinds: []\n");
        }
        self.to.write_str("    supportedKinds:\n")?;
        status.supported_kinds.iter().try_for_each(|kind| {
            writeln!(self.to, "    - group: {GATEWAY_GROUP}\n      kind: {kind}")
        })
    }

    fn route(&mut self, status: &RouteStatus) -> fmt::Result {
        self.begin(&status.key)?;
        self.to.write_str("  parents:\n")?;
        status.parents.iter().try_for_each(|parent| self.parent(parent, status.generation))
    }

    fn parent(&mut self, status: &ParentStatus, generation: i64) -> fmt::Result {
        let ParentStatus { parent, controller, conditions } = status;
        // The first line of the item carries the dash, so the list's own indent is two less.
        self.to.write_str("  - conditions:\n")?;
        self.items(4, conditions, generation)?;
        writeln!(self.to, "    controllerName: {}\n    parentRef:", Text(controller))?;
        let ParentReference { namespace, name, section_name, port, .. } = parent;
        writeln!(self.to, "      group: {}", Text(parent.group()))?;
        writeln!(self.to, "      kind: {}", Text(parent.kind()))?;
        writeln!(self.to, "      name: {}", Text(name))?;
        if let Some(namespace) = namespace {
            writeln!(self.to, "      namespace: {}", Text(namespace))?;
        }
        if let Some(port) = port {
            writeln!(self.to, "      port: {port}")?;
        }
        if let Some(section_name) = section_name {
            writeln!(self.to, "      sectionName: {}", Text(section_name))?;
        }
        Ok(())
    }

    fn begin(&mut self, key: &ObjectKey) -> fmt::Result {
        if !std::mem::replace(&mut self.first, false) {
            self.to.write_str("---\n")?;
        }
        let ObjectKey { kind, namespace, name } = key;
        writeln!(self.to, "apiVersion: {}/v1\nkind: {kind}\nmetadata:", kind.group())?;
        writeln!(self.to, "  name: {}", Text(name))?;
        if !namespace.is_empty() {
            writeln!(self.to, "  namespace: {}", Text(namespace))?;
        }
        self.to.write_str("status:\n")
    }

    fn conditions(&mut self, indent: usize, all: &[Condition], generation: i64) -> fmt::Result {
        writeln!(self.to, "{:indent$}conditions:", "")?;
        self.items(indent, all, generation)
    }

    fn items(&mut self, indent: usize, all: &[Condition], generation: i64) -> fmt::Result {
        for Condition { kind, status, reason, message } in all {
            writeln!(self.to, "{:indent$}- message: {}", "", Text(message))?;
            writeln!(self.to, "{:indent$}  observedGeneration: {generation}", "")?;
            writeln!(self.to, "{:indent$}  reason: {reason}", "")?;
            writeln!(self.to, "{:indent$}  status: \"{status}\"", "")?;
            writeln!(self.to, "{:indent$}  type: {kind}", "")?;
        }
        Ok(())
    }
}

/// A text as a scalar: plain where that reads back as the same text, else in double quotes.
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

/// Errs on the side of quotes.
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
}
