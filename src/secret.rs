//! Secret values, which never reach a log.

use std::fmt;

/// A value that prints as `[redacted]`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Secret<T>(T);

impl<T> Secret<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(value)
    }

    /// Returns the value, for the one place that uses it.
    pub(crate) fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// True for headers whose values may be secrets, by their name in lower case.
pub(crate) fn is_secret_header(name: &str) -> bool {
    let words = ["authorization", "cookie", "password", "secret", "token", "api-key", "apikey"];
    words.iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_prints_as_redacted() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "[redacted]");
    }
}
