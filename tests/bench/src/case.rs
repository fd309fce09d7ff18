//! What is measured: cases (who talks to whom) and kinds (how).

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// An endpoint to the outside
    Masquerade,
    /// The outside to a port of the host that leads to an endpoint
    Published,
    /// An endpoint to another by the published port
    Hairpin,
    /// A program of the host to the published port at 127.0.0.1
    HostLocal,
    /// An endpoint to another by its own address
    Direct,
}

impl Case {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 5] =
        [Self::Masquerade, Self::Published, Self::Hairpin, Self::HostLocal, Self::Direct];

    /// As on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Masquerade => "masquerade",
            Self::Published => "published",
            Self::Hairpin => "hairpin",
            Self::HostLocal => "host-local",
            Self::Direct => "direct",
        }
    }

    /// In a sentence.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Masquerade => "an endpoint dials a server outside, which sees the host's address",
            Self::Published => "a client outside dials a port of the host that leads to an endpoint",
            Self::Hairpin => "an endpoint dials another by the host's address and the published port",
            Self::HostLocal => "a program of the host dials the published port at 127.0.0.1",
            Self::Direct => "an endpoint dials another on the same network by its own address",
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One byte there and back, again and again, on one TCP connection
    Rr,
    /// Connect, one byte there and back, close
    Crr,
    /// One TCP stream
    Stream1,
    /// Eight TCP streams at once
    Stream8,
    /// Datagrams of 18 bytes, as fast as they go
    Udp,
    /// More and more connections open at once, one byte there and back on each in turn
    Ladder,
}

impl Kind {
    /// All of them, in the order of the page.
    pub const ALL: [Self; 6] = [Self::Rr, Self::Crr, Self::Stream1, Self::Stream8, Self::Udp, Self::Ladder];

    /// As on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Crr => "crr",
            Self::Stream1 => "stream1",
            Self::Stream8 => "stream8",
            Self::Udp => "udp",
            Self::Ladder => "ladder",
        }
    }

    /// As a heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Rr => "TCP, one byte there and back",
            Self::Crr => "TCP, connect, one byte, close",
            Self::Stream1 => "TCP, one stream",
            Self::Stream8 => "TCP, eight streams",
            Self::Udp => "UDP, cost of sending 18 bytes",
            Self::Ladder => "TCP, one byte on many connections in turn",
        }
    }

    /// What its number is in.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Rr | Self::Crr | Self::Ladder => "µs",
            Self::Stream1 | Self::Stream8 => "Gbit/s",
            Self::Udp => "ns",
        }
    }

    /// Whether more is better.
    #[must_use]
    pub const fn more_is_better(self) -> bool {
        matches!(self, Self::Stream1 | Self::Stream8)
    }

    /// Whether client and server share a CPU. Those of a dialogue do: one waits for the other anyway, and waking a
    /// sleeping CPU would be most of what is measured.
    #[must_use]
    pub const fn shares_cpu(self) -> bool {
        matches!(self, Self::Rr | Self::Crr | Self::Ladder)
    }

    /// How many operations make a measurement: round trips, connections, mebibytes, datagrams, connections open at
    /// the top.
    #[must_use]
    pub const fn count(self, effort: Effort) -> u64 {
        match (self, effort) {
            (Self::Rr, Effort::Full) => 20_000,
            (Self::Crr, Effort::Full) => 6_000,
            (Self::Stream1 | Self::Stream8, Effort::Full) => 2_048,
            (Self::Udp, Effort::Full) => 150_000,
            (Self::Ladder, Effort::Full) => 1_000,
            (Self::Rr, Effort::Quick) => 4_000,
            (Self::Crr, Effort::Quick) => 600,
            (Self::Stream1 | Self::Stream8, Effort::Quick) => 512,
            (Self::Udp, Effort::Quick) => 30_000,
            (Self::Ladder, Effort::Quick) => 100,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effort {
    /// Enough to publish.
    Full,
    /// Enough to see that it works.
    Quick,
}

impl Effort {
    /// How often each measurement is repeated.
    #[must_use]
    pub const fn repetitions(self) -> u32 {
        match self {
            Self::Full => 5,
            Self::Quick => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The command line, the results and the page must speak of the same things.
    #[test]
    fn names_are_the_same_everywhere() {
        for case in Case::ALL {
            assert_eq!(case.to_possible_value().unwrap().get_name(), case.name());
            assert_eq!(serde_json::to_value(case).unwrap(), case.name());
        }
        for kind in Kind::ALL {
            assert_eq!(kind.to_possible_value().unwrap().get_name(), kind.name());
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        assert_eq!(Case::value_variants(), Case::ALL);
        assert_eq!(Kind::value_variants(), Kind::ALL);
    }
}
