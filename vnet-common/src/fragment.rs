//! Fragments of a datagram and where it goes.

use bytemuck::{Pod, Zeroable};

use crate::{Addr, Proto, Zone};

/// What the fragments of a datagram have in common (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct FragmentKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Identification in network byte order; that of IPv4 comes first, before two zeros.
    pub id: [u8; 4],
    /// Which side of vnet it comes from.
    pub zone: Zone,
    /// Protocol, as the header of the first fragment has it.
    pub proto: Proto,
    /// Zero.
    pub reserved: u8,
}

/// What became of the first fragment, and so becomes of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FragmentValue {
    /// Source address that they get.
    pub src: Addr,
    /// Destination address that they get.
    pub dst: Addr,
    /// The side they leave to.
    pub zone: Zone,
    /// Zero.
    pub reserved: [u8; 2],
    /// IPv4 identification that they get (RFC 6864 section 5.3.1), in the first two bytes.
    pub id: [u8; 4],
    /// Seconds since boot at which the first came.
    pub began: u32,
}
