//! What can be asked for on the command line, and has a section of its own on the page.

use std::fmt;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::case::Case;

/// A section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Traffic of one case.
    Traffic(Case),
    /// Many published ports.
    Mappings,
    /// The eBPF programs by themselves.
    Programs,
    /// Making and removing endpoints, and the command's own start.
    Endpoints,
    /// Frames that nobody wants.
    Floods,
}

impl Topic {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 9] = [
        Self::Traffic(Case::Masquerade),
        Self::Traffic(Case::Published),
        Self::Traffic(Case::Hairpin),
        Self::Traffic(Case::HostLocal),
        Self::Traffic(Case::Direct),
        Self::Mappings,
        Self::Programs,
        Self::Endpoints,
        Self::Floods,
    ];

    /// As on the command line and in names of files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Traffic(case) => case.name(),
            Self::Mappings => "mappings",
            Self::Programs => "programs",
            Self::Endpoints => "endpoints",
            Self::Floods => "floods",
        }
    }

    /// In a sentence.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Traffic(case) => case.what(),
            Self::Mappings => {
                "many published ports: connecting to the last one, adding one beside them, removing it, and publishing \
                 all of them, as commands; repetitions follow one another on the same host"
            }
            Self::Programs => {
                "one packet through one program by BPF_PROG_TEST_RUN, which executes no redirect and has no wire; \
                 what reading the clock costs is taken off"
            }
            Self::Floods => {
                "what a frame that nobody wants costs one CPU, generated in the kernel: dropped by XDP, by nft at the \
                 interface, by iptables in the raw table; and an honest client meanwhile; and whether XDP would \
                 deliver better"
            }
            Self::Endpoints => {
                "an endpoint with a published port, as commands: made and removed; and a command's start"
            }
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ValueEnum for Topic {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(self.what()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_a_topic() {
        for case in Case::ALL {
            assert!(Topic::ALL.contains(&Topic::Traffic(case)), "{case}");
        }
    }
}
