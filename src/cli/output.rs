//! How a command prints what the gateway told it.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

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

/// Which columns a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Columns {
    All,
    Usual,
}

impl Format {
    /// Prints `told`, or the table of it.
    pub(super) fn print(
        self,
        told: &impl Serialize,
        table: impl FnOnce(Columns, Screen) -> String,
    ) {
        print(&match self.columns() {
            Some((columns, screen)) => table(columns, screen),
            None => self.written(told),
        });
    }

    /// How the table is that is meant, if it is one.
    pub(super) fn columns(self) -> Option<(Columns, Screen)> {
        let screen = Screen::of_stdout();
        match self {
            Self::Json | Self::Yaml => None,
            Self::Table => Some((Columns::Usual, screen)),
            Self::Wide => Some((Columns::All, Screen { width: None, ..screen })),
        }
    }

    /// As YAML if that is meant, else as JSON.
    pub(super) fn written(self, told: &impl Serialize) -> String {
        // Plain data with text for keys: nothing in it can fail to be written.
        let value = serde_json::to_value(told).unwrap_or(Value::Null);
        match self {
            Self::Yaml => Yaml(&value).to_string(),
            Self::Json | Self::Table | Self::Wide => format!("{value:#}\n"),
        }
    }
}

/// Prints to whoever still reads.
pub(super) fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}
