//! Text for a terminal: colours, cells of a table, wrapped lines.

use std::io::{self, IsTerminal};

/// Columns that every terminal has room for.
pub(super) const WIDTH: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Green,
    Red,
    Yellow,
}

/// Whether colours are of any use: standard output is a terminal, and nobody has refused them
/// (`NO_COLOR`, see no-color.org, or a terminal that has none).
pub(super) fn has_colours() -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    io::stdout().is_terminal()
        && set("NO_COLOR").is_none()
        && set("TERM").is_none_or(|terminal| terminal != "dumb")
}

pub(super) fn paint(text: &str, colour: Colour, colours: bool) -> String {
    if !colours {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Green => 32,
        Colour::Red => 31,
        Colour::Yellow => 33,
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// `text` in `width` columns, neither more nor less; what is cut off ends in `…`.
pub(super) fn cell(text: &str, width: usize) -> String {
    let text = printable(text);
    let length = text.chars().count();
    if length <= width {
        return text + &" ".repeat(width - length);
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// `text` in lines of at most [`WIDTH`] columns, each with its newline: the first after `first`,
/// the others as far in. A word that is too long for a line has one of its own.
pub(super) fn wrapped(first: &str, text: &str) -> String {
    let indent = " ".repeat(first.chars().count());
    let mut lines = String::new();
    let mut line = first.to_owned();
    let mut length = indent.len();
    let mut is_empty = true;
    for word in printable(text).split(' ') {
        let word_length = word.chars().count();
        if !is_empty && length + 1 + word_length > WIDTH {
            lines.push_str(line.trim_end());
            lines.push('\n');
            line.clone_from(&indent);
            length = indent.len();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
            length += 1;
        }
        line.push_str(word);
        length += word_length;
        is_empty = false;
    }
    lines.push_str(line.trim_end());
    lines.push('\n');
    lines
}

/// Control characters could move a cursor or colour what follows; files and certificates are not
/// always written by friends.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_has_its_width_whatever_is_in_it() {
        // (text, width, cell)
        let table = [
            ("ab", 4, "ab  "),
            ("abcd", 4, "abcd"),
            ("abcde", 4, "abc…"),
            ("äöü", 4, "äöü "),
            ("a\x1b[2J", 6, "a\u{fffd}[2J "),
            ("", 2, "  "),
        ];
        for (text, width, want) in table {
            assert_eq!(cell(text, width), want, "{text:?}");
        }
    }

    #[test]
    fn lines_break_between_words_and_stay_within_the_width() {
        let text = "word ".repeat(60);
        let lines = wrapped("  -> ", &text);
        assert!(lines.lines().all(|line| line.chars().count() <= WIDTH), "{lines}");
        assert!(lines.starts_with("  -> word word") && lines.contains("\n     word"), "{lines}");
        let long = "x".repeat(150);
        assert_eq!(wrapped("- ", &format!("a {long} b")), format!("- a\n  {long}\n  b\n"));
        assert_eq!(wrapped("- ", ""), "-\n");
    }

    #[test]
    fn a_colour_ends_where_its_text_does() {
        assert_eq!(paint("36 d", Colour::Green, true), "\x1b[32m36 d\x1b[0m");
        assert_eq!(paint("36 d", Colour::Green, false), "36 d");
    }
}
