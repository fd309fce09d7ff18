//! How much a host's stack hands to an interface at once.

use serde::{Deserialize, Serialize};

/// Most bytes of one aggregate, which is cut into segments as late as possible: `gso_ipv4_max_size` and `gso_max_size`
/// of an interface. More than [`Self::LEGACY`] is known as BIG TCP (Linux 5.19 for IPv6, 6.3 for IPv4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GsoSizes {
    /// Of IPv4.
    pub v4: u32,
    /// Of IPv6.
    pub v6: u32,
}

impl GsoSizes {
    /// What the kernel gives every interface (`GSO_LEGACY_MAX_SIZE`).
    pub const LEGACY: Self = Self { v4: 1 << 16, v6: 1 << 16 };

    /// What vnet goes up to: three times as much. The kernel's own limit of 512 KiB makes streams slower: an aggregate
    /// of it leaves little room beside it in a receiver's buffer.
    pub const MOST: Self = Self { v4: 3 << 16, v6: 3 << 16 };

    /// The smaller of both, for each family.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        Self { v4: self.v4.min(other.v4), v6: self.v6.min(other.v6) }
    }
}

impl Default for GsoSizes {
    fn default() -> Self {
        Self::LEGACY
    }
}
