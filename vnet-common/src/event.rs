//! What the programs tell: one fixed record, sent through a ring buffer.

use bytemuck::{Pod, Zeroable};

use crate::{DropReason, Tuple};

/// Something worth telling: a flow began, or a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Event {
    /// Nanoseconds since boot.
    pub time: u64,
    /// The packet's tuple as it arrived; all zero if it had none.
    pub tuple: Tuple,
    /// What it becomes, for a new flow; all zero otherwise.
    pub translated: Tuple,
    /// Interface on which it arrived.
    pub ifindex: u32,
    /// Length in bytes, link header included.
    pub length: u32,
    /// A [`DropReason`], or 0 for a new flow.
    pub reason: u8,
    /// A [`Hook`].
    pub hook: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

impl Event {
    /// The reason of a drop; `None` if a flow began.
    #[must_use]
    pub const fn drop_reason(&self) -> Option<DropReason> {
        DropReason::from_u8(self.reason)
    }
}

/// Where a packet met vnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hook {
    /// Sent by an endpoint.
    FromEndpoint = 1,
    /// Received by an uplink.
    FromUplink = 2,
    /// About to leave by an uplink, having come through the host's stack.
    ToUplink = 3,
    /// About to enter a network by its bridge, having come through the host's stack.
    ToBridge = 5,
    /// A fragment that has waited for the first of its datagram.
    FromHold = 4,
    /// Received by an uplink, before the host's stack has seen it (XDP).
    XdpUplink = 6,
    /// About to enter a network that has no bridge, from the host itself or having come through its stack.
    ToNetwork = 7,
    /// About to leave by an uplink, whoever sends it: where limits of cgroups hold.
    Shape = 8,
}

impl Hook {
    /// Every hook.
    pub const ALL: [Self; 8] = [
        Self::FromEndpoint,
        Self::FromUplink,
        Self::ToUplink,
        Self::FromHold,
        Self::ToBridge,
        Self::ToNetwork,
        Self::XdpUplink,
        Self::Shape,
    ];

    /// The name of the hook and of its program.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromEndpoint => "from_endpoint",
            Self::FromUplink => "from_uplink",
            Self::ToUplink => "to_uplink",
            Self::ToBridge => "to_bridge",
            Self::FromHold => "from_hold",
            Self::XdpUplink => "xdp_uplink",
            Self::ToNetwork => "to_network",
            Self::Shape => "shape",
        }
    }

    /// The hook that a byte of an event stands for.
    #[must_use]
    pub const fn from_u8(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::FromEndpoint),
            2 => Some(Self::FromUplink),
            3 => Some(Self::ToUplink),
            5 => Some(Self::ToBridge),
            4 => Some(Self::FromHold),
            6 => Some(Self::XdpUplink),
            7 => Some(Self::ToNetwork),
            8 => Some(Self::Shape),
            _ => None,
        }
    }
}
