//! Tables for a terminal. Columns are as wide as their content. On a narrow terminal, less
//! important columns are shortened, then left out; no line is wider than the terminal.

use unicode_width::UnicodeWidthStr;

use super::text::{Colour, Screen, cut, cut_before, printable};

/// The number of spaces between two columns.
const GAP: usize = 2;

#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    steps: Vec<Step>,
    lines: Vec<Line>,
}

#[derive(Debug)]
pub(super) struct Column {
    head: String,
    /// The minimum width on the screen.
    least: usize,
    to_the_right: bool,
}

/// A step that makes a table narrower: the index of a column, and its minimum width; 0 leaves it
/// out.
pub(super) type Step = (usize, usize);

#[derive(Debug)]
pub(super) struct Cell {
    content: Content,
    /// The maximum width on the screen.
    most: usize,
    colour: Option<Colour>,
}

#[derive(Debug)]
enum Content {
    /// Parts; shortened to the first one and the number of the others.
    List(Vec<String>),
    /// A name; shortened at its beginning, because the end of `namespace/name` is more significant.
    Name(String),
    Text(String),
}

#[derive(Debug)]
enum Line {
    /// Text that spans all columns.
    Across(String),
    Row(Vec<Cell>),
}

impl Column {
    pub(super) fn new(head: impl Into<String>) -> Self {
        Self { head: head.into(), least: 0, to_the_right: false }
    }

    /// Creates a right-aligned column for numbers. It is at least `least` columns wide, so that its
    /// position stays the same while the numbers change.
    pub(super) fn of_figures(head: impl Into<String>, least: usize) -> Self {
        Self { head: head.into(), least, to_the_right: true }
    }
}

impl Cell {
    pub(super) fn list(parts: impl IntoIterator<Item = String>) -> Self {
        let parts = parts.into_iter().map(|part| printable(&part));
        Self { content: Content::List(parts.collect()), most: usize::MAX, colour: None }
    }

    pub(super) fn name(name: &str) -> Self {
        Self { content: Content::Name(printable(name)), most: usize::MAX, colour: None }
    }

    /// Limits the width of the cell, even on a wide screen.
    pub(super) fn at_most(self, most: usize) -> Self {
        Self { most, ..self }
    }

    pub(super) fn in_colour(self, colour: Colour) -> Self {
        Self { colour: Some(colour), ..self }
    }

    fn text(&self) -> String {
        match &self.content {
            Content::List(parts) => parts.join(", "),
            Content::Name(text) | Content::Text(text) => text.clone(),
        }
    }

    /// Returns the text, shortened to at most `width` columns.
    fn within(&self, width: usize) -> String {
        let (text, width) = (self.text(), width.min(self.most));
        match &self.content {
            Content::List(parts) if text.width() > width && parts.len() > 1 => {
                let more = format!(" +{}", parts.len() - 1);
                cut(&parts[0], width.saturating_sub(more.width())) + &more
            }
            Content::Name(_) => cut_before(&text, width),
            Content::List(_) | Content::Text(_) => cut(&text, width),
        }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { content: Content::Text(printable(text.as_ref())), most: usize::MAX, colour: None }
    }
}

impl Table {
    pub(super) fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), steps: Vec::new(), lines: Vec::new() }
    }

    /// Sets the steps that make the table narrower, in this order, until it fits. After the last
    /// step, columns are left out from the right.
    pub(super) fn narrowed_by(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.steps = steps.into_iter().collect();
        self
    }

    /// Adds a row, with a cell for each column.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.lines.push(Line::Row(cells.into_iter().collect()));
    }

    /// Adds lines that span all columns. Each must end with a newline and already fit.
    pub(super) fn across(&mut self, lines: String) {
        self.lines.push(Line::Across(lines));
    }

    /// Formats the table with its heads. Each line ends with a newline.
    pub(super) fn drawn(&self, screen: Screen) -> String {
        let widths = self.widths(screen.width);
        let heads: Vec<Cell> = self.columns.iter().map(|column| (&column.head).into()).collect();
        let mut text = self.line(&heads, &widths, screen);
        for line in &self.lines {
            match line {
                Line::Across(lines) => text.push_str(lines),
                Line::Row(cells) => text.push_str(&self.line(cells, &widths, screen)),
            }
        }
        text
    }

    fn line(&self, cells: &[Cell], widths: &[Option<usize>], screen: Screen) -> String {
        let mut line = String::new();
        for ((cell, column), width) in cells.iter().zip(&self.columns).zip(widths) {
            let Some(width) = *width else { continue };
            if !line.is_empty() {
                line.push_str(&" ".repeat(GAP));
            }
            let text = cell.within(width);
            let pad = " ".repeat(width.saturating_sub(text.width()));
            let text = match cell.colour {
                Some(colour) => screen.paint(&text, colour),
                None => text,
            };
            line.extend(if column.to_the_right { [pad, text] } else { [text, pad] });
        }
        line.truncate(line.trim_end().len());
        line + "\n"
    }

    /// Returns the width of each column; `None` if it is left out.
    fn widths(&self, room: Option<usize>) -> Vec<Option<usize>> {
        let mut left_out = vec![false; self.columns.len()];
        let Some(room) = room else { return self.narrowed(usize::MAX, &mut left_out) };
        let from_the_right = (1..self.columns.len()).rev();
        for next in from_the_right.map(Some).chain([None]) {
            let widths = self.narrowed(room, &mut left_out);
            match next {
                _ if total(&widths) <= room => return widths,
                Some(next) => left_out[next] = true,
                None => {}
            }
        }
        // Only the first column, in the available width.
        let first = self.columns.first().map(|_| Some(room));
        first.into_iter().chain(std::iter::repeat(None)).take(self.columns.len()).collect()
    }

    /// Returns the widths after as many steps as are needed.
    fn narrowed(&self, room: usize, left_out: &mut [bool]) -> Vec<Option<usize>> {
        'anew: loop {
            let natural = (0..self.columns.len()).map(|at| self.natural(at));
            let mut widths: Vec<Option<usize>> = natural
                .zip(&*left_out)
                .map(|(width, left_out)| (!left_out).then_some(width))
                .collect();
            for &(at, least) in &self.steps {
                let over = total(&widths).saturating_sub(room);
                let Some(width) = widths[at].filter(|_| over > 0) else { continue };
                if least == 0 {
                    // Without this column, the others may need less shortening.
                    left_out[at] = true;
                    continue 'anew;
                }
                widths[at] = Some(width.saturating_sub(over).max(least.min(width)));
            }
            return widths;
        }
    }

    /// Returns the width that shows all content of a column.
    fn natural(&self, at: usize) -> usize {
        let rows = self.lines.iter().filter_map(|line| match line {
            Line::Across(_) => None,
            Line::Row(cells) => cells.get(at),
        });
        let Column { head, least, .. } = &self.columns[at];
        let widths = rows.map(|cell| cell.within(usize::MAX).width());
        widths.fold(head.width().max(*least), usize::max)
    }
}

/// Returns the total width of the shown columns with the gaps between them.
fn total(widths: &[Option<usize>]) -> usize {
    let shown = widths.iter().flatten();
    shown.map(|width| width + GAP).sum::<usize>().saturating_sub(GAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let columns = [
            Column::new("NAME"),
            Column::new("HOSTS"),
            Column::new("KEY"),
            Column::of_figures("HITS", 6),
        ];
        let mut table = Table::new(columns).narrowed_by([(1, 9), (2, 0), (1, 5), (0, 4)]);
        let hosts = ["shop.example", "blog.example"].map(String::from);
        table.row([Cell::name("default/shop"), Cell::list(hosts), "ECDSA".into(), "12".into()]);
        table.across("    beside it\n".into());
        table.row(["日本".into(), "-".into(), Cell::from("RSA"), Cell::from("3")]);
        table
    }

    #[test]
    fn columns_give_way_in_their_order() {
        // (width of the screen, table)
        let wide = "\
NAME          HOSTS                       KEY      HITS
default/shop  shop.example, blog.example  ECDSA      12
    beside it
日本          -                           RSA         3
";
        let shorter = "\
NAME          HOSTS            KEY      HITS
default/shop  shop.example +1  ECDSA      12
    beside it
日本          -                RSA         3
";
        let without_key = "\
NAME          HOSTS           HITS
default/shop  shop.exa… +1      12
    beside it
日本          -                  3
";
        let narrow = "\
NAME          HOSTS    HITS
default/shop  s… +1      12
    beside it
日本          -           3
";
        let narrower = "\
NAME   HOSTS    HITS
…shop  s… +1      12
    beside it
日本   -           3
";
        let names = "\
NAME
…/shop
    beside it
日本
";
        let table_of = [
            (None, wide),
            (Some(200), wide),
            (Some(55), wide),
            (Some(44), shorter),
            (Some(34), without_key),
            (Some(27), narrow),
            (Some(20), narrower),
            (Some(6), names),
        ];
        for (width, want) in table_of {
            let got = table().drawn(Screen { width, ..Screen::default() });
            assert_eq!(got, want, "{width:?}\n{got}");
        }
    }

    #[test]
    fn no_line_is_wider_than_the_screen() {
        for width in 13..80 {
            let got = table().drawn(Screen::of_width(width));
            assert!(got.lines().all(|line| line.width() <= width), "{width}:\n{got}");
        }
    }

    #[test]
    fn a_colour_takes_no_room() {
        let mut table = Table::new([Column::new("A"), Column::new("B")]);
        table.row([Cell::from("no").in_colour(Colour::Red), "x".into()]);
        let screen = Screen { colours: true, ..Screen::of_width(80) };
        assert_eq!(table.drawn(screen), "A   B\n\x1b[31mno\x1b[0m  x\n");
    }
}
