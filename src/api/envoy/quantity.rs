//! Numbers of bytes in the notation of Kubernetes.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// A whole quantity: a number of bytes, or text such as `32Ki` or `1M`. Whether the text is well
/// formed is a rule of the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Quantity {
    Int(i64),
    Text(String),
}

/// The units, each with its size.
const UNITS: &[(&str, u64)] = &[
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];

impl Quantity {
    /// Returns true for a number, and for text that matches `^[1-9]+[0-9]*([EPTGMK]i|[EPTGMk])?$`.
    pub(crate) fn is_well_formed(&self) -> bool {
        match self {
            Self::Int(_) => true,
            Self::Text(text) => parts(text).is_some(),
        }
    }

    /// Returns the number of bytes, `u64::MAX` if it is greater; `None` if the quantity is malformed
    /// or below 0.
    pub(crate) fn bytes(&self) -> Option<u64> {
        match self {
            Self::Int(number) => u64::try_from(*number).ok(),
            Self::Text(text) => {
                let (digits, unit) = parts(text)?;
                Some(digits.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(unit))
            }
        }
    }
}

/// Splits a text into its digits and the size of its unit.
fn parts(text: &str) -> Option<(&str, u64)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let size = match unit {
        "" => 1,
        unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
    };
    (!digits.is_empty() && !digits.starts_with('0')).then_some((digits, size))
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;

        impl de::Visitor<'_> for Either {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as `32Ki`")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Quantity, E> {
                Ok(Quantity::Int(value))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Quantity, E> {
                Ok(Quantity::Int(i64::try_from(value).unwrap_or(i64::MAX)))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Quantity, E> {
                Ok(Quantity::Text(value.into()))
            }
        }

        from.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_a_whole_number_of_bytes() {
        // (text, bytes)
        let table = [
            ("1", Some(1)),
            ("32Ki", Some(32_768)),
            ("10k", Some(10_000)),
            ("2Mi", Some(2_097_152)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("99999999999999999999", Some(u64::MAX)),
            ("99Ei", Some(u64::MAX)),
            ("", None),
            ("0", None),
            ("01", None),
            ("1K", None),
            ("1.5Mi", None),
            ("-1", None),
            ("Ki", None),
            ("1 Ki", None),
            ("1KiB", None),
        ];
        for (text, want) in table {
            let quantity = Quantity::Text(text.into());
            assert_eq!(quantity.bytes(), want, "{text}");
            assert_eq!(quantity.is_well_formed(), want.is_some(), "{text}");
        }
        assert_eq!(Quantity::Int(7).bytes(), Some(7));
        assert_eq!(Quantity::Int(-7).bytes(), None);
    }
}
