//! Suggestions: the known word that is nearest to an unknown one.

/// Returns the word that was probably meant: one that differs only in case, else the nearest by
/// edit distance, if it is near enough.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let same = known.iter().find(|known| known.eq_ignore_ascii_case(word));
    same.or_else(|| {
        // A word of four letters with two wrong ones is a different word.
        let most = (word.chars().count() / 4).clamp(1, 3);
        let near = known.iter().map(|known| (distance(word, known), known));
        near.filter(|(distance, _)| *distance <= most)
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, known)| known)
    })
    .copied()
}

/// Returns the edit distance between two words: insert, delete, replace, or swap two neighbours.
fn distance(a: &str, b: &str) -> usize {
    // A word from a file may be megabytes long; the known words are short.
    if a.len().abs_diff(b.len()) > 16 {
        return usize::MAX;
    }
    strsim::osa_distance(a, b)
}

/// Returns `; did you mean ...?`, or the list of known words if no word is near.
pub(super) fn hint(word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(near) => format!("; did you mean `{near}`?"),
        None if known.is_empty() => String::new(),
        None => format!("; known here: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_near_word_is_suggested() {
        let known = ["matches", "filters", "backendRefs", "name", "timeouts", "port"];
        // (word, suggestion)
        let table = [
            ("matchs", Some("matches")),
            ("macthes", Some("matches")),
            ("BackendRefs", Some("backendRefs")),
            ("backendrefs", Some("backendRefs")),
            ("backendRef", Some("backendRefs")),
            ("timeout", Some("timeouts")),
            ("prot", Some("port")),
            ("naem", Some("name")),
            ("nome", Some("name")),
            ("nose", None),
            ("backndRfs", Some("backendRefs")),
            ("weight", None),
            ("x", None),
            ("", None),
        ];
        for (word, want) in table {
            assert_eq!(nearest(word, &known), want, "{word}");
        }
    }
}
