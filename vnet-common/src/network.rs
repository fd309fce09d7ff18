//! Prefixes, uplinks and the host's own addresses.

use bytemuck::{Pod, Zeroable};

use crate::{Addr, Zone};

/// A prefix, as the kernel's longest-prefix-match maps want it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct PrefixKey {
    /// Length in bits of the 128: an IPv4 `/24` is 120.
    pub prefix_len: u32,
    /// The prefix; bits after its length are zero.
    pub addr: Addr,
}

impl PrefixKey {
    /// The key that finds the longest prefix of one address.
    #[must_use]
    #[inline(always)]
    pub const fn host(addr: Addr) -> Self {
        Self { prefix_len: 128, addr }
    }
}

/// A network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct NetworkValue {
    /// Index of the network's bridge.
    pub bridge: u32,
    /// The network's number.
    pub zone: Zone,
    /// Any of the `FLAG_` constants.
    pub flags: u8,
    /// Zero.
    pub reserved: u8,
}

impl NetworkValue {
    /// Endpoints reach neither the world nor other networks.
    pub const FLAG_INTERNAL: u8 = 1;
    /// Endpoints do not reach each other.
    pub const FLAG_ISOLATED: u8 = 2;
}

/// A prefix whose packets leave the host with another source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct MasqueradeValue {
    /// The source to use; unspecified means the one that the host's routing would choose.
    pub to: Addr,
}

/// An interface that leads to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct UplinkValue {
    /// Its first global IPv4 address, [`Addr::ANY_V4`] if it has none. Used only where the kernel cannot choose
    /// the source itself (before 6.7).
    pub v4: Addr,
    /// Its first global IPv6 address, [`Addr::ANY_V6`] if it has none.
    pub v6: Addr,
}

/// An address of the host; the key is the [`Addr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct HostAddressValue {
    /// Index of the interface that has it.
    pub ifindex: u32,
}
