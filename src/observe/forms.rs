//! Formats of the logs, by their names on the command line.

use std::fmt::{Display, Formatter, Result as Formatted};
use std::str::FromStr;

/// The value of `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Journald if standard error is connected to the journal (`JOURNAL_STREAM`), as it is in a
    /// service; otherwise text if standard output is a terminal; otherwise JSON.
    #[default]
    Auto,
    /// Native fields. If journald cannot be reached, JSON records on standard output and text
    /// events on standard error, which also lead to the journal in a service.
    Journald,
    /// One JSON object per line.
    Json,
    /// One human-readable line.
    Text,
}

impl FromStr for LogFormat {
    type Err = InvalidFormat;

    fn from_str(text: &str) -> Result<Self, InvalidFormat> {
        Ok(match text {
            "auto" => Self::Auto,
            "journald" => Self::Journald,
            "json" => Self::Json,
            "text" => Self::Text,
            _ => return Err(InvalidFormat(text.to_owned())),
        })
    }
}

impl Display for LogFormat {
    fn fmt(&self, f: &mut Formatter<'_>) -> Formatted {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Journald => "journald",
            Self::Json => "json",
            Self::Text => "text",
        })
    }
}

/// The value of `--access-log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AccessFormat {
    /// The format of the events.
    #[default]
    Auto,
    /// JSON lines on standard output with the keys of Envoy Gateway's default format.
    EnvoyJson,
}

impl FromStr for AccessFormat {
    type Err = InvalidAccessFormat;

    fn from_str(text: &str) -> Result<Self, InvalidAccessFormat> {
        match text {
            "auto" => Ok(Self::Auto),
            "envoy-json" => Ok(Self::EnvoyJson),
            _ => Err(InvalidAccessFormat(text.to_owned())),
        }
    }
}

impl Display for AccessFormat {
    fn fmt(&self, f: &mut Formatter<'_>) -> Formatted {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::EnvoyJson => "envoy-json",
        })
    }
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("`{0}` is not a format of the access log; use auto or envoy-json")]
pub(crate) struct InvalidAccessFormat(String);

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("`{0}` is not a log format; use auto, journald, json or text")]
pub(crate) struct InvalidFormat(String);

/// The output of the logs, after `Auto` is resolved and journald was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Journald,
    Json,
    Text,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_known_by_its_name() {
        for format in [LogFormat::Auto, LogFormat::Journald, LogFormat::Json, LogFormat::Text] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        let error = "xml".parse::<LogFormat>().unwrap_err();
        assert!(error.to_string().starts_with("`xml` is not a log format; use auto,"), "{error}");
    }
}
