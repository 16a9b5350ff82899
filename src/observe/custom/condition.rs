//! Conditions of access log settings, in a subset of CEL, the Common Expression Language.
//!
//! Example: `response.code >= 500 || request.headers['x-debug'] == 'on'`. Envoy's attributes are
//! compared with strings and numbers, `in` searches headers and lists, `startsWith`, `endsWith` and
//! `contains` test strings, and `&&`, `||`, `!` and parentheses combine them. An expression is
//! parsed once; evaluating it allocates nothing.
//!
//! As in CEL, a missing value (such as a header that was not sent) is an error: every comparison
//! with it is neither true nor false. An exchange for which the whole expression is an error is not
//! logged.

use crate::observe::record::AccessRecord;

use super::headers::Wanted;
use super::operator::{Field, Part, Side, Source, header};

/// Limit on the nesting of parentheses and `!`, and so on the recursion of the parser.
const DEEPEST: usize = 32;
/// Limit on the length of an expression, in bytes.
const LONGEST: usize = 4096;

/// A parsed expression, evaluated on an exchange.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Condition(Node);

#[derive(Debug, PartialEq, Eq)]
enum Node {
    And(Box<Self>, Box<Self>),
    Compare(Field, Order, i64),
    Constant(bool),
    Is(Field, Test, Box<str>),
    IsOneOf(Field, Box<[Literal]>),
    Not(Box<Self>),
    Or(Box<Self>, Box<Self>),
    /// True if a header was sent.
    Sent(Side, usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Literal {
    Bool(bool),
    Number(i64),
    Words(Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    NotEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Contains,
    Ends,
    Equal,
    NotEqual,
    Starts,
}

/// Attributes with a string value.
const WORDS: &[(&str, Field)] = &[
    ("connection.requested_server_name", Field::ServerName),
    ("connection.tls_version", Field::TlsVersion),
    ("request.host", Field::First(Source::Authority, None)),
    ("request.id", Field::First(Source::RequestId, None)),
    ("request.method", Field::First(Source::Method, None)),
    ("request.path", Field::First(Source::Path, None)),
    ("request.protocol", Field::Protocol),
    ("request.scheme", Field::First(Source::Scheme, None)),
    ("request.url_path", Field::First(Source::PathWithoutQuery, None)),
    ("request.useragent", Field::First(Source::UserAgent, None)),
    ("response.code_details", Field::Details),
    ("xds.route_name", Field::Route),
];

/// Attributes with a number value.
const NUMBERS: &[(&str, Field)] = &[
    ("request.size", Field::BytesReceived),
    ("response.code", Field::Status),
    ("response.size", Field::BytesSent),
    ("source.port", Field::Direct(Part::Port)),
    ("upstream.request_attempt_count", Field::Attempts),
];

impl Condition {
    /// Parses an expression.
    ///
    /// # Errors
    ///
    /// The part of the expression that is not supported, and what is.
    pub(crate) fn read(expression: &str, wanted: &mut Wanted) -> Result<Self, String> {
        if expression.len() > LONGEST {
            return Err(format!(
                "an expression of {} bytes is too long; use at most {LONGEST}",
                expression.len()
            ));
        }
        let mut reading = Reading { rest: expression, whole: expression, wanted, depth: 0 };
        let node = reading.or()?;
        reading.skip();
        match reading.rest.is_empty() {
            true => Ok(Self(node)),
            false => Err(reading.unexpected("`&&`, `||` or the end")),
        }
    }

    /// Returns true if the expression is true for the exchange.
    pub(super) fn holds(&self, record: &AccessRecord<'_>) -> bool {
        self.0.holds(record) == Some(true)
    }
}

impl Node {
    /// Evaluates the node. `None` is CEL's error.
    fn holds(&self, record: &AccessRecord<'_>) -> Option<bool> {
        match self {
            // Either side may determine the result, even if the other is an error.
            Self::And(one, other) => match (one.holds(record), other.holds(record)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Self::Or(one, other) => match (one.holds(record), other.holds(record)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Self::Not(node) => node.holds(record).map(|holds| !holds),
            Self::Constant(holds) => Some(*holds),
            Self::Sent(side, place) => Some(match side {
                Side::Request => record.seen.request(*place).is_some(),
                Side::Response => record.seen.response(*place).is_some(),
            }),
            Self::Compare(field, order, with) => {
                let number = field.number(record)?;
                Some(match order {
                    Order::Equal => number == *with,
                    Order::Greater => number > *with,
                    Order::GreaterOrEqual => number >= *with,
                    Order::Less => number < *with,
                    Order::LessOrEqual => number <= *with,
                    Order::NotEqual => number != *with,
                })
            }
            Self::Is(field, test, with) => {
                let (words, with) = (field.words(record)?, with.as_bytes());
                Some(match test {
                    Test::Contains => memchr::memmem::find(words, with).is_some(),
                    Test::Ends => words.ends_with(with),
                    Test::Equal => words == with,
                    Test::NotEqual => words != with,
                    Test::Starts => words.starts_with(with),
                })
            }
            Self::IsOneOf(field, literals) => {
                if let Some(number) = field.number(record) {
                    return Some(literals.contains(&Literal::Number(number)));
                }
                let words = field.words(record)?;
                Some(literals.iter().any(|one| match one {
                    Literal::Words(one) => one.as_bytes() == words,
                    Literal::Bool(_) | Literal::Number(_) => false,
                }))
            }
        }
    }
}

/// One side of a comparison.
enum Operand {
    Literal(Literal),
    Number(Field),
    Words(Field),
}

struct Reading<'r> {
    rest: &'r str,
    whole: &'r str,
    wanted: &'r mut Wanted,
    depth: usize,
}

impl<'r> Reading<'r> {
    fn or(&mut self) -> Result<Node, String> {
        let mut node = self.and()?;
        while self.takes("||") {
            node = Node::Or(Box::new(node), Box::new(self.and()?));
        }
        Ok(node)
    }

    fn and(&mut self) -> Result<Node, String> {
        let mut node = self.unary()?;
        while self.takes("&&") {
            node = Node::And(Box::new(node), Box::new(self.unary()?));
        }
        Ok(node)
    }

    fn unary(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("brackets stand more than {DEEPEST} deep; use fewer"));
        }
        let node = self.one();
        self.depth -= 1;
        node
    }

    fn one(&mut self) -> Result<Node, String> {
        self.skip();
        if !self.rest.starts_with("!=") && self.takes("!") {
            return Ok(Node::Not(Box::new(self.unary()?)));
        }
        if self.takes("(") {
            let node = self.or()?;
            return match self.takes(")") {
                true => Ok(node),
                false => Err(self.unexpected("`)`")),
            };
        }
        self.relation()
    }

    /// Parses `attribute == 'words'`, `'name' in request.headers` or
    /// `attribute.startsWith('words')`.
    fn relation(&mut self) -> Result<Node, String> {
        let left = self.operand()?;
        self.skip();
        if let Operand::Words(field) = &left
            && let Some(rest) = self.rest.strip_prefix('.')
        {
            let end = rest.find('(').unwrap_or(rest.len());
            let test = match rest[..end].trim() {
                "contains" => Test::Contains,
                "endsWith" => Test::Ends,
                "startsWith" => Test::Starts,
                other => {
                    let shown = other.get(..40).unwrap_or(other);
                    return Err(format!(
                        "`{shown}` is not understood here; use startsWith, endsWith or contains"
                    ));
                }
            };
            self.rest = rest.get(end + 1..).unwrap_or_default();
            let Operand::Literal(Literal::Words(words)) = self.operand()? else {
                return Err(self.unexpected("words in quotes"));
            };
            return match self.takes(")") {
                true => Ok(Node::Is(field.clone(), test, words)),
                false => Err(self.unexpected("`)`")),
            };
        }
        if self.word("in") {
            return self.is_in(left);
        }
        // Longer operators first.
        let orders = [
            ("==", Order::Equal),
            ("!=", Order::NotEqual),
            (">=", Order::GreaterOrEqual),
            ("<=", Order::LessOrEqual),
            (">", Order::Greater),
            ("<", Order::Less),
        ];
        let Some((_, order)) = orders.into_iter().find(|(sign, _)| self.takes(sign)) else {
            return match left {
                Operand::Literal(Literal::Bool(holds)) => Ok(Node::Constant(holds)),
                _ => Err(self.unexpected("a comparison (`==`, `!=`, `<`, `<=`, `>`, `>=`, `in`)")),
            };
        };
        let right = self.operand()?;
        match (left, right) {
            (Operand::Number(field), Operand::Literal(Literal::Number(number))) => {
                Ok(Node::Compare(field, order, number))
            }
            (Operand::Literal(Literal::Number(number)), Operand::Number(field)) => {
                Ok(Node::Compare(field, order.turned(), number))
            }
            (Operand::Words(field), Operand::Literal(Literal::Words(words)))
            | (Operand::Literal(Literal::Words(words)), Operand::Words(field)) => match order {
                Order::Equal => Ok(Node::Is(field, Test::Equal, words)),
                Order::NotEqual => Ok(Node::Is(field, Test::NotEqual, words)),
                _ => Err("words are compared by `==` and `!=` alone".into()),
            },
            _ => Err(format!(
                "`{}` compares what cannot be compared; write an attribute on one side, and a \
                 number or words in quotes, as the attribute is, on the other",
                self.whole
            )),
        }
    }

    fn is_in(&mut self, left: Operand) -> Result<Node, String> {
        self.skip();
        if self.rest.starts_with('[') {
            let field = match left {
                Operand::Number(field) | Operand::Words(field) => field,
                Operand::Literal(_) => return Err(self.unexpected("`request.headers`")),
            };
            self.rest = &self.rest[1..];
            let mut literals = Vec::new();
            while !self.takes("]") {
                let Operand::Literal(literal) = self.operand()? else {
                    return Err(self.unexpected("a number, or words in quotes"));
                };
                literals.push(literal);
                if !self.takes(",") && !self.rest.trim_start().starts_with(']') {
                    return Err(self.unexpected("`,` or `]`"));
                }
            }
            return Ok(Node::IsOneOf(field, literals.into()));
        }
        let Operand::Literal(Literal::Words(name)) = left else {
            return Err(self.unexpected("a list, `[...]`"));
        };
        let side = match () {
            () if self.word("request.headers") => Side::Request,
            () if self.word("response.headers") => Side::Response,
            () => return Err(self.unexpected("`request.headers` or `response.headers`")),
        };
        let place = self.header(side, &name)?;
        Ok(Node::Sent(side, place))
    }

    fn header(&mut self, side: Side, name: &str) -> Result<usize, String> {
        let name = header(&name.to_ascii_lowercase()).map_err(|why| why.to_string())?;
        Ok(match side {
            Side::Request => self.wanted.request(name),
            Side::Response => self.wanted.response(name),
        })
    }

    fn operand(&mut self) -> Result<Operand, String> {
        self.skip();
        let rest = self.rest;
        let Some(first) = rest.chars().next() else {
            return Err(self.unexpected("an attribute, a number, or words in quotes"));
        };
        match first {
            '\'' | '"' => self.quoted(first).map(|words| Operand::Literal(Literal::Words(words))),
            '-' | '0'..='9' => {
                let end =
                    rest[1..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |n| n + 1);
                let number = rest[..end].parse();
                let number = number.map_err(|_| self.unexpected("a whole number"))?;
                self.rest = &rest[end..];
                Ok(Operand::Literal(Literal::Number(number)))
            }
            _ => self.attribute(),
        }
    }

    /// Parses a string in quotes. A backslash escapes a quote or a backslash.
    fn quoted(&mut self, quote: char) -> Result<Box<str>, String> {
        let mut words = String::new();
        let mut chars = self.rest[1..].char_indices();
        while let Some((at, char)) = chars.next() {
            match char {
                '\\' => match chars.next() {
                    Some((_, next @ ('\\' | '\'' | '"'))) => words.push(next),
                    _ => return Err("after a backslash stands a quote or a backslash".into()),
                },
                _ if char == quote => {
                    self.rest = &self.rest[at + 2..];
                    return Ok(words.into());
                }
                _ => words.push(char),
            }
        }
        Err(format!("a closing {quote} is missing"))
    }

    fn attribute(&mut self) -> Result<Operand, String> {
        for (word, holds) in [("true", true), ("false", false)] {
            if self.word(word) {
                return Ok(Operand::Literal(Literal::Bool(holds)));
            }
        }
        for (name, side) in
            [("request.headers", Side::Request), ("response.headers", Side::Response)]
        {
            if self.word(name) {
                let Some(inside) = self.rest.trim_start().strip_prefix('[') else {
                    return Err(self.unexpected(&format!("`['NAME']` after `{name}`")));
                };
                self.rest = inside;
                let Operand::Literal(Literal::Words(header)) = self.operand()? else {
                    return Err(self.unexpected("the name of a header in quotes"));
                };
                if !self.takes("]") {
                    return Err(self.unexpected("`]`"));
                }
                let place = self.header(side, &header)?;
                return Ok(Operand::Words(Field::First(
                    match side {
                        Side::Request => Source::RequestHeader(place),
                        Side::Response => Source::ResponseHeader(place),
                    },
                    None,
                )));
            }
        }
        for (name, field) in NUMBERS {
            if self.word(name) {
                return Ok(Operand::Number(field.clone()));
            }
        }
        for (name, field) in WORDS {
            if self.word(name) {
                return Ok(Operand::Words(field.clone()));
            }
        }
        let known: Vec<&str> = NUMBERS.iter().chain(WORDS).map(|(name, _)| *name).collect();
        Err(format!(
            "{}; known are request.headers['NAME'], response.headers['NAME'], {}",
            self.unexpected("an attribute"),
            known.join(", ")
        ))
    }

    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Consumes an operator if it is next.
    fn takes(&mut self, sign: &str) -> bool {
        self.skip();
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Consumes a word if it is next as a whole; a method may follow it.
    fn word(&mut self, word: &str) -> bool {
        self.skip();
        let Some(rest) = self.rest.strip_prefix(word) else { return false };
        if rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            return false;
        }
        self.rest = rest;
        true
    }

    fn unexpected(&self, needed: &str) -> String {
        let at = self.whole.len() - self.rest.len();
        let column = self.whole.get(..at).map_or(0, |before| before.chars().count()) + 1;
        let rest = self.rest.trim();
        let end = rest.char_indices().nth(24).map_or(rest.len(), |(at, _)| at);
        match rest.is_empty() {
            true => format!("the expression ends where {needed} is needed"),
            false => {
                format!("`{}` stands at character {column} where {needed} is needed", &rest[..end])
            }
        }
    }
}

impl Order {
    /// Returns the order with its two sides swapped.
    fn turned(self) -> Self {
        match self {
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            same @ (Self::Equal | Self::NotEqual) => same,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::observe::custom::{GatewayLog, Seen};
    use crate::observe::record::tests::sample;

    fn holds(expression: &str, status: u16) -> bool {
        let mut wanted = Wanted::default();
        let condition = Condition::read(expression, &mut wanted).unwrap();
        let log = GatewayLog::new(Vec::new(), wanted);
        let mut headers = HeaderMap::new();
        headers.insert("x-debug", HeaderValue::from_static("on"));
        let mut seen = Seen::default();
        seen.see_request(log.wanted(), &headers);
        condition.holds(&AccessRecord { status, seen: &seen, ..sample() })
    }

    #[test]
    fn expressions_mean_what_cel_has_them_mean() {
        // (expression, result with status 200, result with status 503)
        let table = [
            ("response.code >= 400", false, true),
            ("400 <= response.code", false, true),
            ("response.code == 200", true, false),
            ("response.code in [404, 503]", false, true),
            ("!(response.code in [404,503,])", true, false),
            ("response.code > 199 && response.code < 300", true, false),
            ("response.code == 503 || request.url_path == '/cart'", true, true),
            ("request.method != \"GET\"", false, false),
            ("request.method in ['GET', 'HEAD']", true, true),
            ("request.path.startsWith('/cart') && !request.path.contains('health')", true, true),
            ("request.host.endsWith('.example.com')", true, true),
            ("'x-debug' in request.headers", true, true),
            ("!('x-none' in request.headers)", true, true),
            ("request.headers['X-Debug'] == 'on'", true, true),
            // A missing value is an error, and so is its negation.
            ("request.headers['x-none'] != 'on'", false, false),
            ("!(request.headers['x-none'] == 'on')", false, false),
            ("request.headers['x-none'] == 'on' || response.code == 503", false, true),
            ("response.code == 503 || request.headers['x-none'] == 'on'", false, true),
            ("!(request.headers['x-none'] == 'on' && response.code == 503)", true, false),
            ("response.code == 0", false, false),
            ("true", true, true),
            ("false || (true && !false)", true, true),
            ("request.path == 'it\\'s'", false, false),
        ];
        for (expression, good, bad) in table {
            let got = (holds(expression, 200), holds(expression, 503));
            assert_eq!(got, (good, bad), "{expression}");
        }
        assert!(!holds("response.code != 500", 0), "there was no answer");
    }

    #[test]
    fn what_is_not_understood_is_told_with_its_place() {
        let deep = format!("{}true{}", "(".repeat(40), ")".repeat(40));
        let nots = format!("{}true", "!".repeat(40));
        let long = format!("true{}", " || true".repeat(1000));
        // (expression, part of the error)
        let table = [
            ("", "the expression ends where an attribute"),
            ("response.code", "ends where a comparison"),
            ("response.code >", "ends where an attribute, a number"),
            ("response.code > 'a'", "compares what cannot be compared"),
            ("response.code = 5", "`= 5` stands at character 15 where a comparison"),
            ("response.cod > 5", "known are request.headers['NAME']"),
            ("request.path > 'a'", "by `==` and `!=` alone"),
            ("request.path.matches('a')", "`matches` is not understood here; use startsWith"),
            ("request.path == 'a", "a closing ' is missing"),
            ("request.path == 'a\\n'", "after a backslash"),
            ("(true", "ends where `)` is needed"),
            ("true true", "`true` stands at character 6 where `&&`, `||` or the end"),
            ("'a' in request.path", "`request.headers` or `response.headers`"),
            ("request.headers.a == 'b'", "`['NAME']` after `request.headers`"),
            ("request.headers['a b'] == 'b'", "`a b` is not the name of a header"),
            ("response.code == 99999999999999999999", "a whole number"),
            ("response.code in [1 2]", "`,` or `]`"),
            (&deep, "more than 32 deep"),
            (&nots, "more than 32 deep"),
            (&long, "bytes is too long"),
            ("é == 'é", "stands at character 1"),
        ];
        for (expression, want) in table {
            let got = Condition::read(expression, &mut Wanted::default()).unwrap_err();
            assert!(got.contains(want), "{expression}: {got}");
        }
    }
}
