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
    /// Index of the network's bridge, or of the interface that it has instead.
    pub bridge: u32,
    /// The network's number.
    pub zone: Zone,
    /// Any of the `FLAG_` constants.
    pub flags: u8,
    /// Zero.
    pub reserved: u8,
    /// The network's gateway in this prefix: the host, for its endpoints.
    pub gateway: Addr,
}

impl NetworkValue {
    /// Endpoints reach neither the world nor other networks.
    pub const FLAG_INTERNAL: u8 = 1;
    /// Endpoints do not reach each other.
    pub const FLAG_ISOLATED: u8 = 2;
    /// Anybody outside may address the endpoints directly (gateway mode `nat-unprotected`).
    pub const FLAG_UNPROTECTED: u8 = 4;
    /// Endpoints keep their own addresses towards the world, and the ports published for them answer there (gateway
    /// mode `routed`).
    pub const FLAG_ROUTED: u8 = 8;
    /// Its endpoints are no ports of a bridge: what goes on from them enters the host's stack by the network's interface.
    pub const FLAG_UNBRIDGED: u8 = 16;
}

/// How an endpoint's own ports become external ones: bits of [`crate::EndpointValue::mapping`]. None set is
/// address-and-port-dependent mapping with overlapping ports (RFC 7857 section 3).
pub mod mapping {
    /// One external port for all destinations of a UDP socket, which it shares with nobody (RFC 4787 REQ-1, REQ-3).
    pub const ENDPOINT_INDEPENDENT_UDP: u8 = 1;
    /// As much for TCP (RFC 5382 REQ-1, REQ-7).
    pub const ENDPOINT_INDEPENDENT_TCP: u8 = 2;
}

/// Who may send to an external port whose mapping is endpoint-independent (RFC 4787 REQ-8): values of
/// [`crate::EndpointValue::filtering`].
pub mod filtering {
    /// Only the addresses and ports that were sent to.
    pub const ADDRESS_AND_PORT: u8 = 0;
    /// Only the addresses that were sent to, from any port.
    pub const ADDRESS: u8 = 1;
    /// Anybody.
    pub const ENDPOINT_INDEPENDENT: u8 = 2;
}

/// A prefix whose packets leave the host with another source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct MasqueradeValue {
    /// The source to use; unspecified means the one that the host's routing would choose.
    pub to: Addr,
    /// Any of the `FLAG_` constants.
    pub flags: u32,
}

impl MasqueradeValue {
    /// The source keeps its own address.
    pub const FLAG_EXEMPT: u32 = 1;
    /// `to` is the source's alone (a floating address): its ports stay what they are.
    pub const FLAG_ONE_TO_ONE: u32 = 2;
}

/// Where an external address leads that belongs to one endpoint alone; the key is the external [`Addr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FloatingValue {
    /// The endpoint's address.
    pub addr: Addr,
    /// Its network.
    pub zone: Zone,
    /// Zero.
    pub reserved: [u8; 2],
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
