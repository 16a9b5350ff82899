//! Decoding of a document: from a tree of values to a struct, by serde, with the place of every
//! fault.
//!
//! A derived `Deserialize` gives up at its first fault. [`decode`] therefore runs it again with the
//! faulty value left out, until it finds no new fault; a document without faults is read once.
//!
//! Three kinds of faults stop a document: a value that does not fit its field, an unknown field,
//! and a variable that is not set.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::diagnostic::Position;
use super::path::Path;
use super::scalar::{InvalidVariable, Word, interpolate, shown, word};
use super::suggest::hint;
use super::tree::{Entry, Node, Value};
use super::variables::Variables;

/// The maximum number of faults reported for one document; later ones seldom say anything new.
const MAX_FAULTS: usize = 50;
/// The maximum number of values visited to find the faults of a document; a document of this size
/// is read only once.
const MAX_WORK: usize = 1_000_000;

const BOOLEAN: &str = "`true` or `false`";
const DURATION: &str = "a duration";
const INTEGER: &str = "an integer";
const LIST: &str = "a list";
const MAPPING: &str = "a mapping";
const NUMBER: &str = "a number";
const TEXT: &str = "text";

/// The ranges of integers that are narrower than those of their types, by field, so that the range
/// in a message is the valid one.
const RANGES: &[(&str, i128, i128)] = &[
    ("attempts", 1, u32::MAX as i128),
    ("codes", 400, 599),
    ("denominator", 1, i32::MAX as i128),
    ("maxAge", 1, i32::MAX as i128),
    ("numerator", 0, i32::MAX as i128),
    ("percent", 0, 100),
    ("port", 1, 65535),
    ("samplingRate", 0, 100),
    ("weight", 0, 1_000_000),
];

/// Looks up a variable of the environment.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One fault of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Misread {
    pub at: Position,
    /// `spec.rules[0].filters[1].type`, from the root that was decoded.
    pub field: String,
    pub problem: String,
}

/// The options of [`decode`].
#[derive(Clone, Copy)]
pub(super) struct DecodeRules<'a> {
    pub environment: Environment<'a>,
    /// Fields of the root that are known without being in the struct.
    pub root_fields: &'a [&'a str],
    /// True if messages must not contain values.
    pub secret: bool,
    pub variables: Variables,
}

/// The result of [`decode`]: the value if every required field could be read, the faults that make
/// it useless, and the unknown fields.
#[derive(Debug)]
pub(super) struct DecodedDocument<T> {
    pub value: Option<T>,
    pub faults: Vec<Misread>,
    pub unknown: Vec<Misread>,
}

/// Reads `node` as a `T`.
pub(super) fn decode<'n, T: Deserialize<'n>>(
    node: &'n Node,
    rules: DecodeRules<'_>,
) -> DecodedDocument<T> {
    let most = (MAX_WORK / node.values()).clamp(1, MAX_FAULTS);
    let mut left_out = HashSet::new();
    let mut faults = Vec::new();
    let unknown = RefCell::new(Vec::new());
    let value = loop {
        let reader = DecodeRun { rules, left_out: &left_out, unknown: &unknown };
        let root = Cursor {
            reader: &reader,
            node,
            named_at: None,
            path: Path::Root,
            variables: rules.variables,
            is_duration: false,
        };
        let error = match T::deserialize(root) {
            Ok(value) => break Some(value),
            Err(error) => error,
        };
        let fault = error.fault.map_or_else(
            || Misread { at: node.at, field: String::new(), problem: error.problem.clone() },
            |fault| *fault,
        );
        // A field that is missing because it was left out is reported already.
        let told =
            error.missing.is_some_and(|name| left_out.contains(&missing(&fault.field, name)));
        let again = !fault.field.is_empty() && left_out.insert(fault.field.clone());
        if !told {
            faults.push(fault);
        }
        if !again || left_out.len() >= most {
            break None;
        }
    };
    let value = value.filter(|_| faults.is_empty());
    let mut unknown: Vec<Misread> = unknown.into_inner();
    unknown.sort_by(|a, b| (a.at, &a.field).cmp(&(b.at, &b.field)));
    DecodedDocument { value, faults, unknown }
}

/// Returns the path of the field `name` of `parent`, which may be the root.
fn missing(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.into() } else { format!("{parent}.{name}") }
}

/// The state shared by all cursors of one run.
struct DecodeRun<'a> {
    rules: DecodeRules<'a>,
    left_out: &'a HashSet<String>,
    unknown: &'a RefCell<Vec<Misread>>,
}

/// A value about to be read.
#[derive(Clone, Copy)]
struct Cursor<'r, 'n> {
    reader: &'r DecodeRun<'r>,
    node: &'n Node,
    /// The place of the field's name.
    named_at: Option<Position>,
    path: Path<'r>,
    variables: Variables,
    /// True if the text has to be a duration.
    is_duration: bool,
}

/// A fault that is passed up; it has no place until the first cursor above it adds one.
#[derive(Debug)]
struct Error {
    problem: String,
    /// The missing field, if that is the problem.
    missing: Option<&'static str>,
    fault: Option<Box<Misread>>,
}

impl Error {
    fn new(problem: String) -> Self {
        Self { problem, missing: None, fault: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {expected}, found {found}"))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(format!("expected {expected}, found {found}"))
    }

    fn missing_field(field: &'static str) -> Self {
        let problem = format!("`{field}` is missing; it is required");
        Self { problem, missing: Some(field), fault: None }
    }
}

impl<'r, 'n> Cursor<'r, 'n> {
    /// Adds the place and the path to an error that has none.
    fn place(&self, mut error: Error) -> Error {
        if error.fault.is_none() {
            let at = match (&self.node.value, self.named_at) {
                // A fault of a list or mapping as a whole is shown at its name.
                (Value::List(_) | Value::Map(_), Some(named_at)) => named_at,
                _ => self.node.at,
            };
            let problem = self.without_environment(&error.problem);
            error.fault = Some(Box::new(Misread { at, field: self.path.to_string(), problem }));
        }
        error
    }

    /// Returns a message about this value with the values of environment variables removed, because
    /// they may be passwords.
    fn without_environment(&self, problem: &str) -> String {
        let written = self.node.text().unwrap_or_default();
        match self.replaced(written) {
            // Messages put values in backticks; nothing else is in backticks except a unit.
            Ok(Some(replaced)) => problem
                .replace(&format!("`{replaced}`"), &format!("`{written}`"))
                .replace(&format!("`{replaced}s`"), &format!("`{written}s`")),
            _ => problem.into(),
        }
    }

    /// Returns the text with its variables replaced, or `None` if it has none.
    fn replaced(&self, text: &str) -> Result<Option<String>, InvalidVariable> {
        if !self.variables.are_replaced() {
            return Ok(None);
        }
        interpolate(text, self.reader.rules.environment)
    }

    fn is_left_out(&self) -> bool {
        !self.reader.left_out.is_empty() && self.reader.left_out.contains(&self.path.to_string())
    }

    /// Describes the value as written.
    fn found(&self) -> String {
        let secret = self.reader.rules.secret;
        match &self.node.value {
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
            Value::Scalar { text, plain: true } => match word(text) {
                Word::Null => "nothing".into(),
                Word::Bool(_) if secret => "a boolean".into(),
                Word::Int(_) | Word::Float if secret => "a number".into(),
                Word::Text if secret => "a text".into(),
                Word::Bool(_) => format!("the boolean `{text}`"),
                Word::Int(_) | Word::Float => format!("the number `{text}`"),
                Word::Text => format!("the text `{}`", shown(text)),
            },
            Value::Scalar { .. } if secret => "a text".into(),
            Value::Scalar { text, .. } => format!("the text \"{}\"", shown(text)),
        }
    }

    fn wrong(&self, expected: &str) -> Error {
        let found = self.found();
        let hint = self.remedy(expected).map_or_else(String::new, |hint| format!("; {hint}"));
        self.place(Error::new(format!("expected {expected}, found {found}{hint}")))
    }

    /// Returns a hint for a value of the wrong type.
    fn remedy(&self, expected: &str) -> Option<String> {
        let secret = self.reader.rules.secret;
        let plain = match &self.node.value {
            Value::Scalar { text, plain: true } => Some((text, word(text))),
            _ => None,
        };
        Some(match (expected, &self.node.value, plain) {
            (LIST, ..) => "begin each item with `- `".into(),
            (MAPPING, ..) => "write lines of `name: value`".into(),
            (INTEGER, Value::Scalar { text, plain: false }, _)
                if matches!(word(text), Word::Int(_)) =>
            {
                "remove the quotes".into()
            }
            (INTEGER, _, Some((text, Word::Float))) if !secret => {
                format!("write `{}`", whole(text)?)
            }
            (DURATION, _, Some((_, Word::Int(seconds)))) if seconds >= 0 => {
                format!("write `{seconds}s`")
            }
            (DURATION, ..) => "write it like `10s`, `1m30s` or `500ms`".into(),
            (TEXT, _, Some((_, Word::Bool(_) | Word::Int(_) | Word::Float))) => {
                "put it in quotes".into()
            }
            _ => return None,
        })
    }

    /// Returns the scalar with its variables replaced.
    fn scalar(&self, expected: &str) -> Result<Scalar<'n>, Error> {
        let Value::Scalar { text, plain } = &self.node.value else {
            return Err(self.wrong(expected));
        };
        let replaced = self.replaced(text).map_err(|invalid| {
            let invalid = match invalid {
                InvalidVariable::Malformed(_) if self.reader.rules.secret => {
                    InvalidVariable::Malformed("${...".into())
                }
                invalid => invalid,
            };
            self.place(Error::new(invalid.to_string()))
        })?;
        Ok(Scalar { written: text, plain: *plain, replaced })
    }

    fn visit_text<V: Visitor<'n>>(
        &self,
        scalar: Scalar<'n>,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match scalar.replaced {
            Some(replaced) => visitor.visit_string(replaced),
            None => visitor.visit_borrowed_str(scalar.written),
        }
        .map_err(|error| self.place(error))
    }

    /// Reads an integer from `least` to `most`.
    fn number(&self, least: i128, most: i128) -> Result<i128, Error> {
        let scalar = self.scalar(INTEGER)?;
        let Word::Int(value) = scalar.word() else { return Err(self.wrong(INTEGER)) };
        if !(least..=most).contains(&value) {
            let narrow = RANGES.iter().find(|(field, ..)| self.path.is_of(field));
            let (least, most) = narrow.map_or((least, most), |(_, least, most)| (*least, *most));
            let problem = format!("`{value}` is out of range; use a number from {least} to {most}");
            return Err(self.place(Error::new(problem)));
        }
        Ok(value)
    }
}

/// Returns `10` for `1e1` or `10.0`; `None` for a number that is not whole or is larger than any
/// integer here.
fn whole(text: &str) -> Option<i64> {
    let number: f64 = text.parse().ok()?;
    let is_whole = number.fract() == 0.0 && number.abs() < 1e15;
    #[allow(clippy::cast_possible_truncation, reason = "whole, and far below 2^53")]
    is_whole.then_some(number as i64)
}

/// A scalar, before and after its variables are replaced.
struct Scalar<'n> {
    written: &'n str,
    plain: bool,
    replaced: Option<String>,
}

impl Scalar<'_> {
    /// Returns the type of the scalar; a quoted scalar is always text.
    fn word(&self) -> Word {
        match (&self.replaced, self.plain) {
            (_, false) => Word::Text,
            (Some(replaced), true) => word(replaced),
            (None, true) => word(self.written),
        }
    }

    /// Returns true if the scalar is valid where text is required. `${PORT}` is, whatever the port
    /// is.
    fn is_text(&self) -> bool {
        self.replaced.is_some() || self.word() == Word::Text
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty,)+) => {
        $(fn $method<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
            let value = self.number(<$type>::MIN.into(), <$type>::MAX.into())?;
            let value = <$type>::try_from(value).map_err(|_| self.wrong(INTEGER))?;
            visitor.$visit(value).map_err(|error| self.place(error))
        })+
    };
}

impl<'n> Deserializer<'n> for Cursor<'_, 'n> {
    type Error = Error;

    /// Used only by fields that take several types, such as a port by number or by name.
    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::List(_) => return self.deserialize_seq(visitor),
            Value::Map(_) => return self.deserialize_map(visitor),
            Value::Scalar { .. } => {}
        }
        let scalar = self.scalar("a word or a number")?;
        let visited = match scalar.word() {
            Word::Text | Word::Float => return self.visit_text(scalar, visitor),
            Word::Null => visitor.visit_unit(),
            Word::Bool(value) => visitor.visit_bool(value),
            Word::Int(value) => match i64::try_from(value) {
                Ok(value) => visitor.visit_i64(value),
                Err(_) => Err(self.wrong("a smaller number")),
            },
        };
        visited.map_err(|error| self.place(error))
    }

    fn deserialize_bool<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        let Word::Bool(value) = self.scalar(BOOLEAN)?.word() else {
            return Err(self.wrong(BOOLEAN));
        };
        visitor.visit_bool(value).map_err(|error| self.place(error))
    }

    numbers! {
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
    }

    fn deserialize_f64<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        let scalar = self.scalar(NUMBER)?;
        let is_number = matches!(scalar.word(), Word::Int(_) | Word::Float);
        let text = scalar.replaced.as_deref().unwrap_or(scalar.written);
        let value = text.parse::<f64>().ok().filter(|value| is_number && value.is_finite());
        let value = value.ok_or_else(|| self.wrong(NUMBER))?;
        visitor.visit_f64(value).map_err(|error| self.place(error))
    }

    fn deserialize_str<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        let expected = if self.is_duration { DURATION } else { TEXT };
        let scalar = self.scalar(expected)?;
        if !scalar.is_text() {
            return Err(self.wrong(expected));
        }
        self.visit_text(scalar, visitor)
    }

    fn deserialize_string<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'n>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(Self { is_duration: name == "Duration", ..self })
    }

    fn deserialize_seq<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::List(items) = &self.node.value else {
            return Err(self.wrong(LIST));
        };
        visitor
            .visit_seq(ListItems { of: &self, items, next: 0 })
            .map_err(|error| self.place(error))
    }

    fn deserialize_map<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.wrong(MAPPING));
        };
        let fields = StructFields { of: &self, entries: entries.iter(), known: None, value: None };
        visitor.visit_map(fields).map_err(|error| self.place(error))
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.wrong(MAPPING));
        };
        let others: &[&str] = if name == "ObjectMeta" { &OF_API_SERVERS } else { &[] };
        let known = Some(KnownFields { names: known, others });
        let fields = StructFields { of: &self, entries: entries.iter(), known, value: None };
        visitor.visit_map(fields).map_err(|error| self.place(error))
    }

    fn deserialize_ignored_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        <W: Visitor<'n>>
        i128 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
    }
}

/// The items of a list, without those that are left out.
struct ListItems<'c, 'r, 'n> {
    of: &'c Cursor<'r, 'n>,
    items: &'n [Arc<Node>],
    next: usize,
}

impl<'n> SeqAccess<'n> for ListItems<'_, '_, 'n> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'n>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        while let Some(node) = self.items.get(self.next) {
            let path = Path::Item(&self.of.path, self.next);
            self.next += 1;
            let item = Cursor { node, named_at: None, path, ..*self.of };
            if !item.is_left_out() {
                // A type's own checks run after the value is handed out, so their errors get their
                // place here.
                return seed.deserialize(item).map(Some).map_err(|error| item.place(error));
            }
        }
        Ok(None)
    }

    // Without it, each list would be kept with room for four items or more.
    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next)
    }
}

/// The fields of `metadata` that an API server manages; `kubectl get` writes them.
const OF_API_SERVERS: [&str; 9] = [
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// The fields of a struct.
struct KnownFields {
    names: &'static [&'static str],
    /// Other fields that are accepted and have no effect.
    others: &'static [&'static str],
}

/// The fields of a mapping, without those that are null, unknown or left out.
struct StructFields<'c, 'r, 'n> {
    of: &'c Cursor<'r, 'n>,
    entries: std::slice::Iter<'n, Entry>,
    known: Option<KnownFields>,
    value: Option<&'n Entry>,
}

impl<'n> StructFields<'_, '_, 'n> {
    fn skips(&self, entry: &'n Entry) -> bool {
        let path = Path::Field(&self.of.path, &entry.key);
        let cursor = Cursor { node: &entry.value, named_at: None, path, ..*self.of };
        let Some(known) = &self.known else { return cursor.is_left_out() };
        if known.names.contains(&entry.key.as_str()) {
            // In Kubernetes a null field is the same as an absent field.
            return cursor.node.is_null() || cursor.is_left_out();
        }
        let is_root = matches!(self.of.path, Path::Root);
        let others = if is_root { self.of.reader.rules.root_fields } else { known.others };
        let mut unknown = self.of.reader.unknown.borrow_mut();
        // Every run visits the same field again, and so does every alias of it.
        let is_told = unknown.len() >= MAX_FAULTS || unknown.iter().any(|f| f.at == entry.key_at);
        if !is_told && !others.contains(&entry.key.as_str()) {
            let problem =
                format!("unknown field `{}`{}", shown(&entry.key), hint(&entry.key, known.names));
            let field = self.of.path.to_string();
            unknown.push(Misread { at: entry.key_at, field, problem });
        }
        true
    }
}

impl<'n> MapAccess<'n> for StructFields<'_, '_, 'n> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'n>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        while let Some(entry) = self.entries.next() {
            if !self.skips(entry) {
                self.value = Some(entry);
                let key = StrDeserializer::<Error>::new(&entry.key);
                return seed.deserialize(key).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some(entry) = self.value.take() else {
            return seed.deserialize(StringDeserializer::<Error>::new(String::new()));
        };
        let path = Path::Field(&self.of.path, &entry.key);
        let named_at = Some(entry.key_at);
        let variables = self.of.variables.field(&entry.key);
        let field = Cursor { node: &entry.value, named_at, path, variables, ..*self.of };
        seed.deserialize(field).map_err(|error| field.place(error))
    }
}
