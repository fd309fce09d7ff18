//! What vnet remembers of a flow.

use bytemuck::{Pod, Zeroable};

use crate::Tuple;

/// One direction of a tracked flow; the key is the [`Tuple`] of its packets as they arrive.
///
/// The two directions are two entries of one map: `unconfirmed` until both sides have shown that they hear each other,
/// `conntrack` from then on. Each names its twin: a packet leaves with the tuple
/// `translated`, so the answer arrives with `translated` reversed, in the zone it was sent to.
///
/// Seconds since boot are those that the machine was awake (`CLOCK_MONOTONIC_COARSE`), here and wherever vnet counts them:
/// the clock that costs least to read. `nf_conntrack` counts no others either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct CtEntry {
    /// For tests of upgrades: a field that other versions have not.
    #[cfg(feature = "other-abi")]
    pub other: u64,
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
    /// Any of the `FLAG_` constants.
    pub flags: u8,
    /// Zero.
    pub reserved: u8,
}

impl CtEntry {
    /// The flow belongs to an endpoint-independent mapping, which it keeps alive.
    pub const FLAG_MAPPED: u8 = 1;
    /// Its external address is one that routing has chosen: the flow ends when the host has it no longer.
    pub const FLAG_ROUTED: u8 = 2;
    /// It is an endpoint's question to a name server: kept for [`crate::DatapathConfig::dns`] seconds, whatever its
    /// state.
    pub const FLAG_BRIEF: u8 = 4;

    /// The key of the entry of the other direction.
    #[must_use]
    #[inline(always)]
    pub const fn twin(&self) -> Tuple {
        self.translated.answer()
    }
}

/// How far a flow has come: RFC 7857 section 2 for TCP, where an established flow has seen the opener's packet after
/// an answer. Other protocols know only `New`, `Answered` and `Established`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CtState {
    /// Only the side that opened the flow has been seen.
    New = 1,
    /// Both sides have been seen, and the opener again, or the answer came from where nobody can forge it.
    Established = 2,
    /// TCP: a FIN of both sides has been seen.
    Closing = 3,
    /// The other side has answered, and the opener has not been seen since: it may have forged its address.
    Answered = 4,
    /// TCP: the opener has sent a FIN; the other side may go on for as long as it likes.
    OpenerClosed = 5,
    /// TCP: the answering side has sent a FIN.
    AnswerClosed = 6,
    /// TCP: a RST has been seen. It may have been forged, so that any other packet brings the flow back.
    Reset = 7,
}

impl CtState {
    /// The state that a byte of a map stands for; unknown bytes are those of a new flow, which ends soonest.
    #[must_use]
    #[inline(always)]
    pub const fn from_u8(byte: u8) -> Self {
        match byte {
            2 => Self::Established,
            3 => Self::Closing,
            4 => Self::Answered,
            5 => Self::OpenerClosed,
            6 => Self::AnswerClosed,
            7 => Self::Reset,
            _ => Self::New,
        }
    }

    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::New,
        Self::Answered,
        Self::Established,
        Self::OpenerClosed,
        Self::AnswerClosed,
        Self::Closing,
        Self::Reset,
    ];

    /// A word for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Answered => "answered",
            Self::OpenerClosed => "opener-closed",
            Self::AnswerClosed => "answer-closed",
            Self::Reset => "reset",
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

/// What an endpoint has in use; the key is the index of the host-side end of its veth pair. Of an uplink only what its
/// fragments have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct EndpointUse {
    /// Held while the rest is changed.
    pub lock: bpf_spin_lock,
    /// Confirmed flows that the endpoint began and that are still tracked.
    pub flows: u32,
    /// Flows that it may still begin without an answer.
    pub credit: u32,
    /// Seconds since boot up to which `credit` has been given.
    pub credited: u32,
    /// Flows that it was refused for having too many.
    pub refused: u64,
    /// Fragments that began to wait for the first of their datagram in the second `held_at`.
    pub held: u32,
    /// Seconds since boot.
    pub held_at: u32,
}

impl EndpointUse {
    /// That of an endpoint which has begun nothing yet: whatever it may have of credit, no matter when the machine was
    /// started. The first charge cuts it to the limit.
    pub const NOTHING: Self = Self {
        lock: bpf_spin_lock { val: 0 },
        flows: 0,
        credit: u32::MAX,
        credited: 0,
        refused: 0,
        held: 0,
        held_at: 0,
    };
}

/// The next slots of the flow table to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FlowHand {
    /// Held while the rest is changed.
    pub lock: bpf_spin_lock,
    /// Index into `flow_slots`, for whoever needs a slot.
    pub next: u32,
    /// Another, for whoever needs flows to be over: it goes round those that have ever been used.
    pub sweep: u32,
    /// How many flows have been confirmed: counted while they are in both tables.
    pub moves: u32,
}

/// A lock of the kernel's, under the name by which the verifier knows it (`struct bpf_spin_lock`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct bpf_spin_lock {
    /// The kernel's.
    pub val: u32,
}
