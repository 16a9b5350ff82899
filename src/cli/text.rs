//! Text for a terminal: size, colours, wrapped lines.

use std::io::{self, IsTerminal};

use terminal_size::terminal_size_of;
use unicode_width::UnicodeWidthStr;

/// The maximum width of prose, in columns: longer lines are hard to read.
const PROSE: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Green,
    Red,
    Yellow,
}

/// The capabilities of standard output.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Screen {
    /// Columns; `None` if lines have no limit, as in a pipe or a file.
    pub width: Option<usize>,
    /// Lines; `None` if the height has no limit.
    pub height: Option<usize>,
    pub colours: bool,
}

impl Screen {
    /// Returns the capabilities of standard output. On a terminal, `COLUMNS` overrides its reported
    /// width, and colours are used unless the user disables them (`NO_COLOR`, see no-color.org) or
    /// the terminal has none.
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
            // The default for a terminal that does not report its size, such as a serial line.
            width: Some(width.unwrap_or(80)),
            height: size.map(|(_, height)| height.0.into()),
            colours: set("NO_COLOR").is_none()
                && set("TERM").is_none_or(|terminal| terminal != "dumb"),
        }
    }

    /// Returns a screen of this width, without colours.
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

    /// Wraps `text` into lines of at most 100 columns that fit, each with its newline. The first
    /// line begins with `first`, and the others are indented by its width. A word that is too long
    /// for a line gets its own line; if the terminal is too narrow for that, it is split.
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

/// Shortens `text` to at most `width` columns; a shortened text ends in `…`.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    match width {
        0 => String::new(),
        _ => format!("{}…", &text[..fitting(text, width, "…")]),
    }
}

/// Like [`cut`], but keeps the end of `text`: `…` is at its beginning.
pub(super) fn cut_before(text: &str, width: usize) -> String {
    if text.width() <= width || width == 0 {
        return cut(text, width);
    }
    let starts = text.char_indices().map(|(at, _)| at);
    // To bound the cost for very long texts, only the last 16 bytes for each column are measured.
    let from = text.len().saturating_sub(16 * width);
    let mut ends = starts.filter(|at| *at >= from).map(|at| &text[at..]);
    format!("…{}", ends.find(|end| end.width() < width).unwrap_or_default())
}

/// Returns the number of bytes of the longest prefix of `text` that fits into `width` columns
/// together with `tail`.
fn fitting(text: &str, width: usize, tail: &str) -> usize {
    let ends = text.char_indices().map(|(at, char)| at + char.len_utf8());
    // Characters in sequence may be narrower or wider than separately, so the whole prefix is
    // measured each time. More than 16 bytes for a column do not occur in normal text.
    ends.take_while(|end| *end <= 16 * width)
        .filter(|end| text[..*end].width() + tail.width() <= width)
        .last()
        .unwrap_or(0)
}

/// Replaces control characters, which could move the cursor or change colours, and characters that
/// change the text direction: files and certificates may come from untrusted sources.
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
        // (text, width, shortened text)
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
