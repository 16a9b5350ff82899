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
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
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
