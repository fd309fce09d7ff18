//! The endpoints of an instance.

use bytemuck::{Pod, Zeroable};

use crate::{Mac, Zone};

/// An endpoint's address: whose it is and how to reach it. The key is the [`crate::Addr`]; an endpoint has one
/// entry for each of its addresses, link-local ones included, and an address without an entry is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct EndpointValue {
    /// For tests of upgrades: a field elsewhere than in other versions.
    #[cfg(feature = "other-abi")]
    pub bridge: u32,
    /// Index of the host-side end of the endpoint's veth pair.
    pub ifindex: u32,
    /// Index of its network's bridge, or of the interface that it has instead.
    #[cfg(not(feature = "other-abi"))]
    pub bridge: u32,
    /// The endpoint's hardware address: the only one it may send from.
    pub mac: Mac,
    /// Hardware address of its gateway, from which routed packets arrive.
    pub gateway_mac: Mac,
    /// Its network.
    pub zone: Zone,
    /// Largest packet it takes, in bytes from the network header on.
    pub mtu: u16,
    /// Length of its network's prefix for this address, in bits of the 128 (an IPv4 `/24` is 120).
    pub prefix_len: u8,
    /// Any of the `FLAG_` constants: those of [`crate::NetworkValue`], as its network has them, and its own.
    pub flags: u8,
    /// Any of the bits of [`crate::mapping`], as its network has it.
    pub mapping: u8,
    /// One of [`crate::filtering`], as its network has it.
    pub filtering: u8,
}

impl EndpointValue {
    /// What is delivered to it goes through the queue of its veth pair, because there is a limit to what it may receive.
    pub const FLAG_QUEUED: u8 = 128;

    /// Whether it or its network has a flag.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}
