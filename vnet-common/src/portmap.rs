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
    /// The host's address; [`Addr::ANY_V4`] or [`Addr::ANY_V6`] for all of that family; [`Self::some_of_family`] for
    /// the note that the ports are published on some address of that family and not on all, which leads nowhere.
    pub addr: Addr,
    /// First port of the block: the bits after `prefix_len` are zero.
    pub port: Port,
    /// Transport protocol.
    pub proto: Proto,
    /// Length of the block's prefix in bits, 0 to 16.
    pub prefix_len: u8,
}

impl PortMapKey {
    /// What stands for "some address of this one's family": one that no interface can have (RFC 919 section 7, and of
    /// IPv6 a multicast address). A socket that binds every address has to know of ports that are published on
    /// any, and this map cannot be searched for them.
    #[must_use]
    #[inline(always)]
    pub const fn some_of_family(addr: &Addr) -> Addr {
        if addr.is_v4() { Addr::v4([0xff; 4]) } else { Addr::v6([0xff; 16]) }
    }

    /// Whether this is such a note.
    #[must_use]
    pub fn is_reservation(&self) -> bool {
        self.addr == Self::some_of_family(&self.addr)
    }
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
