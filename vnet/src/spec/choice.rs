//! Choices among a few words.

/// Declares an enum from one table, so that what people type, what is recorded and what is printed cannot drift
/// apart.
macro_rules! choice {
    (
        $(#[$meta:meta])*
        $name:ident ($what:literal) {
            $($(#[$attribute:meta])+ $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$attribute])+ #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// The words for them, in the same order.
            pub const WORDS: &'static [&'static str] = &[$($word,)+];

            /// The word for it.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.word())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::spec::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.iter().copied().find(|choice| choice.word() == text);
                found.ok_or_else(|| $crate::spec::Error::Choice {
                    text: text.to_owned(),
                    what: $what,
                    words: Self::WORDS,
                })
            }
        }
    };
}

pub(super) use choice;
