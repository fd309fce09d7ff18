//! What the control plane says of the kernel and of the maps when it loads the programs.

use vnet_common::features;
use vnet_common::maps::FLOW_SLOTS_ENTRIES;

/// Bits of [`features`]; replaced before loading. The verifier takes it for a constant, and removes the code
/// behind a bit that is not set.
#[unsafe(no_mangle)]
static FEATURES: u32 = 0;

/// How many entries the map `flow_slots` has; replaced before loading if it was made with others.
#[unsafe(no_mangle)]
static FLOW_SLOTS: u32 = FLOW_SLOTS_ENTRIES as u32;

/// Whether the kernel has a feature.
#[inline(always)]
pub(crate) fn has(feature: u32) -> bool {
    const { assert!(features::FIB_SOURCE != features::CHECKSUM_IPV6) };
    // SAFETY: a plain static; volatile because the loader replaces its value after compilation.
    let bits = unsafe { core::ptr::read_volatile(&raw const FEATURES) };
    bits & feature != 0
}

/// How many confirmed flows there is room for.
#[inline(always)]
pub fn flow_slots() -> u32 {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const FLOW_SLOTS) }
}
