//! Values that never reach a log.

use std::fmt;

/// Something that prints as `[redacted]`, whatever it holds.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Secret<T>(T);

impl<T> Secret<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(value)
    }

    /// The value, for the one place that has a use for it.
    pub(crate) fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// True for headers whose values may be secrets, by their names, which are in lower case.
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
