//! What vnet remembers of a flow.

use bytemuck::{Pod, Zeroable};

use crate::Tuple;

/// One direction of a tracked flow; the key is the [`Tuple`] of its packets as they arrive.
///
/// The two directions are two entries of one map. Each names its twin: a packet leaves with the tuple
/// `translated`, so the answer arrives with `translated` reversed, in the zone it was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct CtEntry {
    /// What the packet's tuple becomes. Its `zone` is the side the packet leaves to.
    pub translated: Tuple,
    /// Packets seen in this direction.
    pub packets: u64,
    /// Bytes seen in this direction, from the network header on.
    pub bytes: u64,
    /// Seconds since boot at which either direction was last seen, exact to one second.
    pub last_seen: u32,
    /// Seconds since boot at which the flow began.
    pub created: u32,
    /// The port mapping that opened the flow ([`crate::PortMapValue::id`]), 0 if none did.
    pub mapping: u32,
    /// A [`CtState`].
    pub state: u8,
    /// An [`Origin`].
    pub origin: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

impl CtEntry {
    /// The key of the entry of the other direction.
    #[must_use]
    #[inline(always)]
    pub const fn twin(&self) -> Tuple {
        self.translated.answer()
    }
}

/// How far a flow has come. RFC 7857 section 2 for TCP; UDP and ICMP only know the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CtState {
    /// Only the side that opened the flow has been seen.
    New = 1,
    /// Both sides have been seen.
    Established = 2,
    /// A FIN or RST has been seen.
    Closing = 3,
}

impl CtState {
    /// The state that a byte of a map stands for; unknown bytes are those of a new flow, which ends soonest.
    #[must_use]
    #[inline(always)]
    pub const fn from_u8(byte: u8) -> Self {
        match byte {
            2 => Self::Established,
            3 => Self::Closing,
            _ => Self::New,
        }
    }

    /// A word for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::Closing => "closing",
        }
    }
}

/// Which of a flow's two directions an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Origin {
    /// The direction of the first packet.
    Opener = 1,
    /// The direction of the answer.
    Answer = 2,
}

impl Origin {
    /// The origin that a byte of a map stands for.
    #[must_use]
    #[inline(always)]
    pub const fn from_u8(byte: u8) -> Self {
        match byte {
            2 => Self::Answer,
            _ => Self::Opener,
        }
    }

    /// The other direction.
    #[must_use]
    #[inline(always)]
    pub const fn other(self) -> Self {
        match self {
            Self::Opener => Self::Answer,
            Self::Answer => Self::Opener,
        }
    }
}
