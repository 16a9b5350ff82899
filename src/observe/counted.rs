//! Numbers of things, as people say them.

/// `1 route`, `2 routes`. What is counted takes an `s` for several.
pub(crate) fn counted(count: impl TryInto<u64>, what: &str) -> String {
    // What does not fit is several all the same.
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        let texts = [0, 1, 2].map(|count: usize| counted(count, "more fault"));
        assert_eq!(texts, ["0 more faults", "1 more fault", "2 more faults"]);
    }
}
