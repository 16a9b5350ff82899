//! Open enums, for values that a later release may extend.

/// Declares an enum of words with an `Unknown` variant.
///
/// `Unknown` keeps a value that this release does not know, so that decoding never fails on it; the
/// specification requires Accepted=False with reason UnsupportedValue for such an object.
macro_rules! open_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum $name {
            $($(#[$variant_doc])* $variant,)+
            /// A value that this release does not know.
            Unknown(String),
        }

        impl $name {
            /// Every known value, in the order of the specification.
            #[allow(dead_code, reason = "not every kind of word is listed in a message")]
            pub(crate) const WORDS: &'static [&'static str] = &[$($word),+];

            /// Returns the value as written.
            pub(crate) fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Unknown(word) => word,
                }
            }
        }

        #[allow(dead_code, reason = "one face for all words, whether all of it is used or not")]
        impl $name {
            /// Returns the value, if it is unknown.
            pub(crate) fn unknown(&self) -> Option<&str> {
                match self {
                    Self::Unknown(word) => Some(word),
                    _ => None,
                }
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match word.as_str() {
                    $($word => Self::$variant,)+
                    _ => Self::Unknown(word),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from).map(Self::from)
            }
        }
    };
}

pub(super) use open_enum;

#[cfg(test)]
mod tests {
    open_enum! {
        Fruit {
            Apple = "apple",
            Pear = "pear",
        }
    }

    #[test]
    fn a_word_that_is_not_known_is_kept_as_written() {
        for word in ["apple", "pear", "Apple", "quince", ""] {
            assert_eq!(Fruit::from(word.to_owned()).as_str(), word);
        }
        assert_eq!(Fruit::from("pear".to_owned()), Fruit::Pear);
        assert_eq!(Fruit::from("Apple".to_owned()), Fruit::Unknown("Apple".into()));
    }
}
