//! Text for a terminal: its size, colours, wrapped lines.

use std::io::{self, IsTerminal};

use terminal_size::terminal_size_of;
use unicode_width::UnicodeWidthStr;

/// Columns of prose where nothing says that there are fewer: longer lines are hard to read.
const PROSE: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Green,
    Red,
    Yellow,
}

/// What standard output can show.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Screen {
    /// Columns; none where lines have no limit: in a pipe or a file.
    pub width: Option<usize>,
    /// Lines; none where nothing is to fit.
    pub height: Option<usize>,
    pub colours: bool,
}

impl Screen {
    /// That of standard output. Where it is a terminal, `COLUMNS` goes before what the terminal says,
    /// and colours are shown unless somebody has refused them (`NO_COLOR`, see no-color.org) or the
    /// terminal has none.
    pub(super) fn of_stdout() -> Self {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return Self::default();
        }
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let size = terminal_size_of(stdout);
        let columns =
            || set("COLUMNS")?.to_str()?.trim().parse().ok().filter(|columns| *columns > 0);
        let width = columns().or_else(|| size.map(|(width, _)| width.0.into()));
        Self {
            // As a terminal is that does not know: a serial line, say.
            width: Some(width.unwrap_or(80)),
            height: size.map(|(_, height)| height.0.into()),
            colours: set("NO_COLOR").is_none()
                && set("TERM").is_none_or(|terminal| terminal != "dumb"),
        }
    }

    /// One of so many columns, without colours.
    #[cfg(test)]
    pub(super) fn of_width(width: usize) -> Self {
        Self { width: Some(width), ..Self::default() }
    }

    pub(super) fn paint(self, text: &str, colour: Colour) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Green => 32,
            Colour::Red => 31,
            Colour::Yellow => 33,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// `text` in lines that fit, none of more than a hundred columns, each with its newline: the
    /// first after `first`, the others as far in. A word that is too long for a line has one of its
    /// own; a terminal that has no room for that either gets it in pieces.
    pub(super) fn wrapped(self, first: &str, text: &str) -> String {
        let width = self.width.map_or(PROSE, |width| width.min(PROSE));
        let indent = " ".repeat(first.width().min(width / 2));
        let room = width - indent.len();
        let mut lines = String::new();
        let mut line = first.to_owned();
        let mut length = first.width();
        let mut is_empty = true;
        let mut end = |line: &mut String, length: &mut usize| {
            lines.push_str(line.trim_end());
            lines.push('\n');
            line.clone_from(&indent);
            *length = indent.len();
        };
        for word in printable(text).split(' ') {
            let mut word = word;
            if !is_empty && length + 1 + word.width() > width {
                end(&mut line, &mut length);
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
                length += 1;
            }
            while self.width.is_some() && word.width() > room {
                let first = word.chars().next().map_or(0, char::len_utf8);
                let (piece, rest) = word.split_at(fitting(word, room, "").max(first));
                line.push_str(piece);
                end(&mut line, &mut length);
                word = rest;
            }
            line.push_str(word);
            length += word.width();
            is_empty = false;
        }
        end(&mut line, &mut length);
        lines
    }
}

/// `text` in at most `width` columns; what is cut off ends in `…`.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    match width {
        0 => String::new(),
        _ => format!("{}…", &text[..fitting(text, width, "…")]),
    }
}

/// As [`cut`], from the other side: `…` stands before the end of `text`.
pub(super) fn cut_before(text: &str, width: usize) -> String {
    if text.width() <= width || width == 0 {
        return cut(text, width);
    }
    let starts = text.char_indices().map(|(at, _)| at);
    // Of a text that nobody would read, no more than its last 16 bytes a column are measured.
    let from = text.len().saturating_sub(16 * width);
    let mut ends = starts.filter(|at| *at >= from).map(|at| &text[at..]);
    format!("…{}", ends.find(|end| end.width() < width).unwrap_or_default())
}

/// Bytes of the longest beginning of `text` that with `tail` has room in `width` columns.
fn fitting(text: &str, width: usize, tail: &str) -> usize {
    let ends = text.char_indices().map(|(at, char)| at + char.len_utf8());
    // Characters together may be narrower or wider than one by one, so all of it is measured each
    // time; a column that takes more than 16 bytes is no text.
    ends.take_while(|end| *end <= 16 * width)
        .filter(|end| text[..*end].width() + tail.width() <= width)
        .last()
        .unwrap_or(0)
}

/// Control characters could move a cursor or colour what follows, and others turn its direction;
/// files and certificates are not always written by friends.
pub(super) fn printable(text: &str) -> String {
    let is_harmful = |char: char| {
        char.is_control() || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|char| if is_harmful(char) { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_has_its_width_whatever_is_in_it() {
        // (text, width, what is left)
        let table = [
            ("ab", 4, "ab"),
            ("abcd", 4, "abcd"),
            ("abcde", 4, "abc…"),
            ("äöü", 4, "äöü"),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("e\u{301}e\u{301}e\u{301}", 2, "e\u{301}…"),
            ("abc", 1, "…"),
            ("abc", 0, ""),
            ("", 2, ""),
        ];
        for (text, width, want) in table {
            assert_eq!(cut(text, width), want, "{text:?} in {width}");
        }
        let table =
            [("ab/cd", 5, "ab/cd"), ("ab/cd", 4, "…/cd"), ("a/日本", 4, "…本"), ("a", 0, "")];
        for (text, width, want) in table {
            assert_eq!(cut_before(text, width), want, "{text:?} in {width}");
        }
    }

    #[test]
    fn what_could_play_with_a_terminal_is_replaced() {
        assert_eq!(printable("a\x1b[2J\u{202e}b\nc"), "a\u{fffd}[2J\u{fffd}b\u{fffd}c");
    }

    #[test]
    fn lines_break_between_words_and_stay_within_the_width() {
        let text = "word ".repeat(60);
        for (screen, width) in [(Screen::default(), 100), (Screen::of_width(40), 40)] {
            let lines = screen.wrapped("  -> ", &text);
            assert!(lines.lines().all(|line| line.width() <= width), "{lines}");
            assert!(lines.starts_with("  -> word word"), "{lines}");
            assert!(lines.contains("\n     word"), "{lines}");
        }
        let long = "x".repeat(150);
        let text = format!("a {long} b");
        assert_eq!(Screen::default().wrapped("- ", &text), format!("- a\n  {long}\n  b\n"));
        let pieces = Screen::of_width(80).wrapped("- ", &text);
        assert!(pieces.lines().all(|line| line.width() <= 80), "{pieces}");
        assert_eq!(pieces.matches('x').count(), 150);
        assert_eq!(Screen::default().wrapped("- ", ""), "-\n");
    }

    #[test]
    fn a_colour_ends_where_its_text_does() {
        let coloured = Screen { colours: true, ..Screen::default() };
        assert_eq!(coloured.paint("36 d", Colour::Green), "\x1b[32m36 d\x1b[0m");
        assert_eq!(Screen::default().paint("36 d", Colour::Green), "36 d");
    }
}
