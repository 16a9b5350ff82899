//! The query of a request to the admin API. Unknown, repeated and malformed parameters are errors.

/// The parameters of a query that have not been read yet.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

/// The reason why a query is invalid.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Unasked {
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("{0}")]
    Question(String),
    #[error("`{0}` is given twice")]
    Twice(&'static str),
    #[error("`{0}` is not a parameter of this page")]
    Unknown(String),
    #[error("`{0}` must be {1}")]
    Wrong(&'static str, &'static str),
}

impl Query {
    /// Parses `a=b&c=d`, in the format of HTML forms.
    pub(crate) fn new(query: &str) -> Self {
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// Takes all values of `name`.
    pub(crate) fn all(&mut self, name: &str) -> Vec<String> {
        let (of_name, others) =
            std::mem::take(&mut self.0).into_iter().partition(|(own, _)| own == name);
        self.0 = others;
        let of_name: Vec<(String, String)> = of_name;
        of_name.into_iter().map(|(_, value)| value).collect()
    }

    /// Takes the value of `name`.
    ///
    /// # Errors
    ///
    /// Fails if the parameter is given twice.
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

    /// Checks that all parameters have been read.
    ///
    /// # Errors
    ///
    /// Fails if a parameter is left, since the page does not support it.
    pub(crate) fn finish(self) -> Result<(), Unasked> {
        match self.0.into_iter().next() {
            Some((name, _)) => Err(Unasked::Unknown(name)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
