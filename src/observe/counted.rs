//! Counts and lists in readable text.

/// Returns a count with its noun: `1 route`, `2 routes`. The plural is formed with an `s`.
pub(crate) fn counted(count: impl TryInto<u64>, what: &str) -> String {
    // A count that does not fit is plural in any case.
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Returns the first `most` names as a list, such as `a, b and 3 more`.
pub(crate) fn listed(names: impl IntoIterator<Item = String>, most: usize) -> String {
    let mut names = names.into_iter();
    let first: Vec<_> = names.by_ref().take(most).collect();
    let more = names.count();
    match first.split_last() {
        None => String::new(),
        Some(_) if more > 0 => format!("{} and {more} more", first.join(", ")),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_as_far_as_there_is_room() {
        let told = |count: usize| listed((0..count).map(|n| n.to_string()), 3);
        let texts = [told(0), told(1), told(2), told(3), told(5)];
        assert_eq!(texts, ["", "0", "0 and 1", "0, 1 and 2", "0, 1, 2 and 2 more"]);
    }

    #[test]
    fn one_is_no_plural() {
        let texts = [0, 1, 2].map(|count: usize| counted(count, "more fault"));
        assert_eq!(texts, ["0 more faults", "1 more fault", "2 more faults"]);
    }
}
