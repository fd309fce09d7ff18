//! Fragments of a datagram and what becomes of it.

use bytemuck::{Pod, Zeroable};

use crate::{Addr, Port, Proto, Zone};

/// What the fragments of a datagram have in common (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct FragmentKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Identification in network byte order; that of IPv4 comes first, before two zeros.
    pub id: [u8; 4],
    /// Which side of vnet it comes from.
    pub zone: Zone,
    /// Protocol of IPv4; zero for IPv6, whose identifications are the same for all protocols.
    pub proto: Proto,
    /// Zero.
    pub reserved: u8,
}

/// What the first fragment has told, which is the only one with a transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FragmentValue {
    /// Seconds since boot at which the first came.
    pub began: u32,
    /// Its source port; the identifier of an ICMP query. With the key this makes the tuple of the datagram's flow.
    pub sport: Port,
    /// Its destination port; the identifier of an ICMP query.
    pub dport: Port,
    /// IPv4 identification that translated fragments get (RFC 6864 section 5.3.1).
    pub id: [u8; 2],
    /// Transport protocol.
    pub proto: Proto,
    /// Bytes of headers in front of the payload: no later fragment may begin inside them.
    pub header: u8,
    /// What became of the first: [`Self::TRANSLATED`], [`Self::PASSED`], or the [`crate::DropReason`] for which it was
    /// dropped.
    pub fate: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

impl FragmentValue {
    /// It belongs to a flow and got the tuple of that.
    pub const TRANSLATED: u8 = 255;
    /// It went on unchanged.
    pub const PASSED: u8 = 254;
}
