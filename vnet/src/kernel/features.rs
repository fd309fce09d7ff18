//! What the running kernel offers beyond the oldest supported one.
//!
//! The kernel's own type information names every constant of its BPF interface, so a feature that a vendor has
//! taken into an older kernel is found, and one that a version number promises is not believed.

use std::fs;

use vnet_common::features;

const TYPES: &str = "/sys/kernel/btf/vmlinux";

/// Constants that stand for a feature.
const CONSTANTS: [(&str, u32); 2] =
    [("BPF_FIB_LOOKUP_SRC", features::FIB_SOURCE), ("BPF_F_IPV6", features::CHECKSUM_IPV6)];

/// The programs' `FEATURES` word for the running kernel; 0 for one that does not tell. Reads some megabytes.
pub(super) fn of_running_kernel() -> u32 {
    fs::read(TYPES).map_or(0, |types| named_in(&types))
}

/// The features whose constants are among the names of some type information: each stands between two zeros.
fn named_in(types: &[u8]) -> u32 {
    types.split(|byte| *byte == 0).fold(0, |found, name| {
        let constant = CONSTANTS.iter().find(|(constant, _)| constant.as_bytes() == name);
        found | constant.map_or(0, |(_, bit)| *bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_is_named_in_full_or_not_at_all() {
        assert_eq!(named_in(b"\0BPF_FIB_LOOKUP_SRC\0x\0"), features::FIB_SOURCE);
        assert_eq!(named_in(b"\0a\0BPF_F_IPV6\0"), features::CHECKSUM_IPV6);
        assert_eq!(named_in(b"\0BPF_F_IPV6\0BPF_FIB_LOOKUP_SRC\0"), 3);
        assert_eq!(named_in(b"\0BPF_FIB_LOOKUP_SRC_\0ABPF_F_IPV6\0"), 0);
        assert_eq!(named_in(b""), 0);
    }
}
