//! Endpoint-independent mappings.

use bytemuck::{Pod, Zeroable};

#[cfg(doc)]
use crate::CtEntry;
use crate::Tuple;

/// One direction of an endpoint-independent mapping (RFC 4787 section 4.1).
///
/// The key is a [`Tuple`] without the peer: from the endpoint, its address and port as the source and the external
/// address as the destination, without a port; from outside, the external address and port as the destination and an
/// unspecified source. One with the peer's address, but not its port, says that the endpoint has sent there (RFC 4787
/// section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct MappingEntry {
    /// What the key becomes.
    pub translated: Tuple,
    /// Seconds since boot at which a flow of the mapping was last seen, exact to one second.
    pub last_seen: u32,
    /// One of [`crate::filtering`], for the direction from outside.
    pub filtering: u8,
    /// [`CtEntry::FLAG_BRIEF`] as long as every flow that it has served is such, and so kept no longer than those
    /// (RFC 4787 REQ-5a); otherwise 0, once and for all.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 2],
}
