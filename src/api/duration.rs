//! Durations in the format of the Gateway API.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

/// A duration of GEP-2257: `1h30m`, `500ms`, `0s`. Whole milliseconds; at most four parts of at
/// most 99999 units each.
///
/// `0s` is a value of its own and differs from an absent duration: in HTTPRoute `timeouts` it turns
/// a limit off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Duration(std::time::Duration);

impl Duration {
    pub(crate) const fn get(self) -> std::time::Duration {
        self.0
    }
}

impl FromStr for Duration {
    type Err = InvalidDuration;

    /// Parses `^([0-9]{1,5}(h|m|s|ms)){1,4}$`.
    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        let invalid = || InvalidDuration(text.into());
        let mut rest = text;
        let mut millis = 0_u64;
        for part in 0.. {
            if rest.is_empty() && part > 0 {
                break;
            }
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if part == 4 || digits == 0 || digits > 5 {
                return Err(invalid());
            }
            let (number, after) = rest.split_at(digits);
            let units = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
            let (unit, scale) =
                units.into_iter().find(|(unit, _)| after.starts_with(unit)).ok_or_else(invalid)?;
            millis += number.parse::<u64>().map_err(|_| invalid())? * scale;
            rest = &after[unit.len()..];
        }
        Ok(Self(std::time::Duration::from_millis(millis)))
    }
}

impl fmt::Display for Duration {
    /// Writes the canonical form of GEP-2257: largest units first, no zero units, `0s` for zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, scale) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if millis >= scale {
                write!(f, "{}{unit}", millis / scale)?;
                millis %= scale;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// The decoder and the schema recognise durations by this name.
        #[derive(Deserialize)]
        #[serde(rename = "Duration")]
        struct Text(String);

        Text::deserialize(from)?.0.parse().map_err(de::Error::custom)
    }
}

/// A text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration; write {hint}", hint = hint(.0))]
pub(crate) struct InvalidDuration(String);

fn hint(text: &str) -> String {
    let is_number = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if is_number { format!("`{text}s`") } else { "it like `10s`, `1m30s` or `500ms`".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_gep_2257_says() {
        // (text, milliseconds, canonical form)
        let table = [
            ("0s", 0, "0s"),
            ("0h0m0s0ms", 0, "0s"),
            ("10s", 10_000, "10s"),
            ("500ms", 500, "500ms"),
            ("1h30m", 5_400_000, "1h30m"),
            ("90m", 5_400_000, "1h30m"),
            ("1500ms", 1_500, "1s500ms"),
            ("1m1m", 120_000, "2m"),
            ("99999h", 359_996_400_000, "99999h"),
        ];
        for (text, millis, canonical) in table {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(duration.get().as_millis(), millis, "{text}");
            assert_eq!(duration.to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn the_hint_for_a_bare_number_is_a_duration() {
        for (text, hint) in [("30", "write `30s`"), ("1.5s", "write it like `10s`")] {
            let error = text.parse::<Duration>().unwrap_err().to_string();
            assert!(error.contains(hint), "{error}");
        }
        assert!("30s".parse::<Duration>().is_ok());
    }

    #[test]
    fn what_gep_2257_forbids_is_refused() {
        for text in
            ["", "10", "s", "1.5s", "-1s", "+1s", "1d", "1us", "100000s", "1h1h1h1h1h", "1s ", "1S"]
        {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }
}
