//! The query of a request to the admin API: each name known, each value of the form that it has.

/// The pairs of a query that are still to be asked for.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

/// Why a question is none.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Unasked {
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("{0}")]
    Question(String),
    #[error("`{0}` stands there twice")]
    Twice(&'static str),
    #[error("`{0}` means nothing here")]
    Unknown(String),
    #[error("`{0}` is {1}")]
    Wrong(&'static str, &'static str),
}

impl Query {
    /// Reads `a=b&c=d`, as a form has it.
    pub(crate) fn new(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(pairs.map(|(name, value)| (decoded(name), decoded(value))).collect())
    }

    /// Every value of `name`.
    pub(crate) fn all(&mut self, name: &str) -> Vec<String> {
        let (of_name, others) =
            std::mem::take(&mut self.0).into_iter().partition(|(own, _)| own == name);
        self.0 = others;
        let of_name: Vec<(String, String)> = of_name;
        of_name.into_iter().map(|(_, value)| value).collect()
    }

    /// The value of `name`.
    ///
    /// # Errors
    ///
    /// There are several.
    pub(crate) fn one(&mut self, name: &'static str) -> Result<Option<String>, Unasked> {
        let mut values = self.all(name);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(Unasked::Twice(name)),
        }
    }

    pub(crate) fn wrong(&self, name: &'static str, right: &'static str) -> Unasked {
        Unasked::Wrong(name, right)
    }

    /// # Errors
    ///
    /// Something was not asked for.
    pub(crate) fn finish(self) -> Result<(), Unasked> {
        match self.0.into_iter().next() {
            Some((name, _)) => Err(Unasked::Unknown(name)),
            None => Ok(()),
        }
    }
}

/// Percent-encoding and `+` undone; what is no encoding is left as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => match after.split_at_checked(2).and_then(|(digits, after)| {
                // `from_str_radix` would take a sign.
                let both = digits.iter().all(u8::is_ascii_hexdigit);
                let digits = std::str::from_utf8(digits).ok().filter(|_| both)?;
                Some((u8::from_str_radix(digits, 16).ok()?, after))
            }) {
                Some((byte, after)) => {
                    rest = after;
                    byte
                }
                None => b'%',
            },
            byte => *byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Undoes [`decoded`]: `text` as a value in a query.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_a_form_writes_it() {
        // (in the query, value)
        let table = [
            ("a+b", "a b"),
            ("a%2Bb%20c", "a+b c"),
            ("%E2%82%AC", "\u{20ac}"),
            ("%", "%"),
            ("%+1", "% 1"),
            ("%zz%4", "%zz%4"),
            ("%FF", "\u{fffd}"),
        ];
        for (text, want) in table {
            assert_eq!(decoded(text), want, "{text}");
        }
        for text in ["a b", "https://a.test/?x=1&y=\u{20ac}", "100%", "+"] {
            assert_eq!(decoded(&encoded(text)), text);
        }
    }

    #[test]
    fn what_is_unknown_or_twice_is_told() {
        let mut query = Query::new("url=a&header=x&header=y&bogus");
        assert_eq!(query.one("url"), Ok(Some("a".into())));
        assert_eq!(query.one("method"), Ok(None));
        assert_eq!(query.all("header"), ["x", "y"]);
        assert_eq!(query.finish(), Err(Unasked::Unknown("bogus".into())));
        assert_eq!(Query::new("url=a&url=b").one("url"), Err(Unasked::Twice("url")));
        assert_eq!(Query::new("").finish(), Ok(()));
    }
}
