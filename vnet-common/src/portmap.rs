//! Published ports.

use bytemuck::{Pod, Zeroable};

use crate::{Addr, Port, Proto, Zone};

/// What is published: a block of ports whose numbers share their first `prefix_len` bits.
///
/// A range of ports is cut into such blocks as an address range is cut into prefixes: one port is one entry
/// with `prefix_len` 16, and a range of n ports is at most `2 * log2(n)` entries, whatever n is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct PortMapKey {
    /// The host's address; [`Addr::ANY_V4`] or [`Addr::ANY_V6`] for all of that family.
    pub addr: Addr,
    /// First port of the block: the bits after `prefix_len` are zero.
    pub port: Port,
    /// Transport protocol.
    pub proto: Proto,
    /// Length of the block's prefix in bits, 0 to 16.
    pub prefix_len: u8,
}

/// Where a published port leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PortMapValue {
    /// Address of the target.
    pub addr: Addr,
    /// The target's port for the first port of this block; later ports count on from it.
    pub port: Port,
    /// The target's network.
    pub zone: Zone,
    /// Number of the mapping, from 1; all blocks of a range share it.
    pub id: u32,
    /// Any of the `FLAG_` constants.
    pub flags: u32,
}

impl PortMapValue {
    /// Only clients with a prefix in `allow_from` may use it.
    pub const FLAG_RESTRICTED: u32 = 1;
}

/// Who may use a restricted mapping: the data of a longest-prefix-match key, whose length is 32 bits for the mapping
/// and those of the client's prefix (an IPv4 `/24` is 32 + 120).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct AllowFrom {
    /// [`PortMapValue::id`].
    pub mapping: u32,
    /// The client, or its prefix with zero bits after it.
    pub client: Addr,
}

/// [`AllowFrom`] as the kernel's longest-prefix-match maps want it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct AllowFromKey {
    /// Length in bits of the 160.
    pub prefix_len: u32,
    /// The prefix.
    pub data: AllowFrom,
}
