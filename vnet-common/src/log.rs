//! What the programs log: how much, of what, and the words of a record.
//!
//! A record is text of numbers, separated by single spaces, as aya-log formats them: what it is ([`LogKind`]), where (a
//! [`crate::Hook`]), the interface's index, a number that says more ([`LogKind`] says what), and twice the protocol, the
//! zone, source address, source port, destination address, destination port of a tuple: as it was met, and what it
//! becomes, or all zeros. Names stay on the other side: a program has no room for them.

use crate::DropReason;

/// How much the programs log: of each level, those above it as well. The numbers are aya-log's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LogLevel {
    /// Nothing.
    Off = 0,
    /// What should not happen.
    Error = 1,
    /// What is broken, or does not fit any more.
    Warn = 2,
    /// Nothing more than [`Self::Warn`]: what happens all the time is below.
    Info = 3,
    /// Each dropped packet, each flow that begins, is confirmed, or ends as far as a packet shows it.
    Debug = 4,
    /// Each packet.
    Trace = 5,
}

impl LogLevel {
    /// Every level.
    pub const ALL: [Self; 6] = [Self::Off, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// The level at which a drop is logged.
    #[must_use]
    #[inline(always)]
    pub const fn of_drop(reason: DropReason) -> Self {
        match reason {
            DropReason::Rewrite => Self::Error,
            DropReason::Malformed
            | DropReason::FlowTableFull
            | DropReason::NoFreePort
            | DropReason::Quota
            | DropReason::NoSourceAddress
            | DropReason::NoSuchEndpoint => Self::Warn,
            _ => Self::Debug,
        }
    }
}

/// What a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LogKind {
    /// A packet; the number is a [`LogVerdict`].
    Packet = 1,
    /// A dropped packet; the number is a [`DropReason`].
    Drop = 2,
    /// A flow that begins.
    Begin = 3,
    /// A flow that both sides have shown to hear each other by.
    Confirm = 4,
    /// A flow that is over, found so by a packet; the tuples are its two.
    End = 5,
}

impl LogKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Packet, Self::Drop, Self::Begin, Self::Confirm, Self::End];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packet => "packet",
            Self::Drop => "drop",
            Self::Begin => "begin",
            Self::Confirm => "confirm",
            Self::End => "end",
        }
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LogVerdict {
    /// It goes on through the host's stack.
    Pass = 0,
    /// It leaves by an uplink.
    Forward = 1,
    /// It appears inside an endpoint.
    Deliver = 2,
    /// It is dropped.
    Drop = 3,
    /// It is dropped, and its sender is told.
    Answer = 4,
    /// It is a fragment that waits for the first of its datagram.
    Hold = 5,
    /// It has waited, and goes back to where it came from.
    Return = 6,
}

impl LogVerdict {
    /// Every verdict.
    pub const ALL: [Self; 7] =
        [Self::Pass, Self::Forward, Self::Deliver, Self::Drop, Self::Answer, Self::Hold, Self::Return];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Forward => "forward",
            Self::Deliver => "deliver",
            Self::Drop => "drop",
            Self::Answer => "answer",
            Self::Hold => "hold",
            Self::Return => "return",
        }
    }
}
