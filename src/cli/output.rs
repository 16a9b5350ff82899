//! Output of a command: its format, its printing, and its errors.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use crate::app::Failed;
use crate::yaml::Yaml;

use super::text::Screen;

#[derive(Args, Debug)]
pub(super) struct Output {
    /// A table that fits the terminal, one with more columns and nothing shortened, JSON or YAML
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Json,
    Table,
    Wide,
    Yaml,
}

/// The columns of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Columns {
    All,
    Usual,
}

impl Format {
    /// Prints `told` as JSON or YAML, or as the given table.
    ///
    /// # Errors
    ///
    /// Fails like [`print()`].
    pub(super) fn print(
        self,
        told: &impl Serialize,
        table: impl FnOnce(Columns, Screen) -> String,
    ) -> Result<(), Failed> {
        print(&match self.columns() {
            Some((columns, screen)) => table(columns, screen),
            None => self.written(told),
        })
    }

    /// The columns and the screen of the table, if the format is a table.
    pub(super) fn columns(self) -> Option<(Columns, Screen)> {
        let screen = Screen::of_stdout();
        match self {
            Self::Json | Self::Yaml => None,
            Self::Table => Some((Columns::Usual, screen)),
            Self::Wide => Some((Columns::All, Screen { width: None, ..screen })),
        }
    }

    /// Formats as YAML if that is selected, else as JSON.
    pub(super) fn written(self, told: &impl Serialize) -> String {
        // Plain data with text keys always serialises.
        let value = serde_json::to_value(told).unwrap_or(Value::Null);
        match self {
            Self::Yaml => Yaml(&value).to_string(),
            Self::Json | Self::Table | Self::Wide => format!("{value:#}\n"),
        }
    }
}

/// Prints the result of a command to standard output. A reader that has closed the pipe (`| head`)
/// is not an error.
///
/// # Errors
///
/// Fails if the result could not be written completely, for example because the disk is full.
pub(super) fn print(text: &str) -> Result<(), Failed> {
    let mut stdout = io::stdout().lock();
    // The buffer would also be flushed at exit, but errors would be lost then.
    settled(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// Converts the result of writing to standard output. A closed pipe is not an error.
pub(super) fn settled(written: io::Result<()>) -> Result<(), Failed> {
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failed::Output(error)),
        _ => Ok(()),
    }
}

/// Prints an error to standard error, each line with the name of the program.
pub(super) fn fail(error: impl Display) -> ExitCode {
    for line in error.to_string().lines() {
        // Without standard error, the failure cannot be reported.
        let _ = writeln!(io::stderr(), "edge-gateway: {line}");
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_an_error_and_a_reader_that_left_is_none() {
        // (error of a write, the command fails)
        let table = [
            (None, false),
            (Some(ErrorKind::BrokenPipe), false),
            (Some(ErrorKind::StorageFull), true),
            (Some(ErrorKind::WriteZero), true),
        ];
        for (kind, fails) in table {
            let written = kind.map_or(Ok(()), |kind| Err(kind.into()));
            assert_eq!(settled(written).is_err(), fails, "{kind:?}");
        }
    }
}
