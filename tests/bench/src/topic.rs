//! What can be asked for on the command line, and has a section of its own on the page.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::case::{Case, Effort};
use crate::{conntrack, endpoints, floods, mappings, programs, sustained};

/// A section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Traffic of one case.
    Traffic(Case),
    /// New connections for minutes.
    Sustained,
    /// Many published ports.
    Mappings,
    /// Many tracked connections.
    Conntrack,
    /// The eBPF programs by themselves.
    Programs,
    /// Making and removing endpoints, and the command's own start.
    Endpoints,
    /// Frames that nobody wants.
    Floods,
}

impl Topic {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 11] = [
        Self::Traffic(Case::Masquerade),
        Self::Traffic(Case::Published),
        Self::Traffic(Case::Hairpin),
        Self::Traffic(Case::HostLocal),
        Self::Traffic(Case::Direct),
        Self::Sustained,
        Self::Mappings,
        Self::Conntrack,
        Self::Programs,
        Self::Endpoints,
        Self::Floods,
    ];

    /// As on the command line and in names of files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Traffic(case) => case.name(),
            Self::Sustained => sustained::NAME,
            Self::Mappings => mappings::NAME,
            Self::Conntrack => conntrack::NAME,
            Self::Programs => programs::NAME,
            Self::Endpoints => endpoints::NAME,
            Self::Floods => floods::NAME,
        }
    }

    /// What it takes with so many repetitions: measured on a quiet machine of two CPUs with every rival there.
    #[must_use]
    pub fn takes(self, effort: Effort, repetitions: u32) -> Duration {
        // Seconds: whatever the repetitions, and for each of them.
        let (once, each) = match (self, effort) {
            (Self::Traffic(_), Effort::Full) => (0, 35),
            (Self::Traffic(_), Effort::Quick) => (0, 10),
            (Self::Sustained, effort) => (sustained::takes(effort, repetitions), 0),
            (Self::Mappings, Effort::Full) => (0, 40),
            (Self::Mappings, Effort::Quick) => (0, 4),
            (Self::Conntrack, Effort::Full) => (60, 8),
            (Self::Conntrack, Effort::Quick) => (4, 2),
            (Self::Programs, _) => (1, 1),
            (Self::Endpoints, Effort::Full) => (80, 13),
            (Self::Endpoints, Effort::Quick) => (8, 6),
            (Self::Floods, effort) => (50 * u64::from(floods::repetitions(effort, repetitions)), 0),
        };
        Duration::from_secs(once + each * u64::from(repetitions))
    }

    /// In a sentence.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Traffic(case) => case.what(),
            Self::Sustained => {
                "a program of the host opens connections to the published port at 127.0.0.1, four at a time and as \
                 fast as they go, for two minutes (ten seconds in a quick run); each has a byte sent back and ends \
                 with a reset, so that no port of the client's has to wait for its next connection"
            }
            Self::Mappings => {
                "many published ports: publishing all of them, connecting to the last one, adding one beside them and \
                 removing it, as commands and by vnet's library without their start; and ten thousand ports that are one range"
            }
            Self::Conntrack => {
                "many tracked connections: packets through them by test run, scattered over all of them; a real one \
                 beside them; what one takes of memory; and connections begun where expired ones have to make room"
            }
            Self::Programs => {
                "one packet through one program by BPF_PROG_TEST_RUN, which executes no redirect and has no wire: the \
                 quickest of many rounds, in each of which a small program writes thousands of packets anew and hands \
                 them on by tail call; what that one takes is taken off"
            }
            Self::Floods => {
                "what a frame that nobody wants costs one CPU, generated in the kernel: dropped by XDP, by nft at the \
                 interface, by iptables in the raw table; and an honest client meanwhile; and whether XDP would \
                 deliver better"
            }
            Self::Endpoints => {
                "an endpoint with a published port made and removed, namespace included, beside another one; 200 in \
                 a row on one network and 1,000 on four (fewer in a quick run); and what vnet takes to start, to come \
                 up and to go down"
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

    #[test]
    fn all_of_it_is_done_within_half_an_hour_and_a_quick_run_within_four_minutes() {
        for (effort, minutes) in [(Effort::Full, 30), (Effort::Quick, 4)] {
            let all: Duration =
                Topic::ALL.iter().map(|topic| topic.takes(effort, effort.repetitions())).sum();
            assert!(all <= Duration::from_secs(60 * minutes), "{effort:?}: {all:?}");
        }
    }
}
