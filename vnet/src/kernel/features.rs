//! What the running kernel offers beyond the oldest supported one.
//!
//! The kernel's own type information names every constant of its BPF interface, so a feature that a vendor has
//! taken into an older kernel is found, and one that a version number promises is not believed.

use std::fs;

use vnet_common::features;

const TYPES: &str = "/sys/kernel/btf/vmlinux";

/// Names that stand for a feature: the constant that came with it, or a function of the kernel that did where the
/// constant is older.
const NAMES: [(&str, u32); 4] = [
    ("BPF_FIB_LOOKUP_SRC", features::FIB_SOURCE),
    ("BPF_F_IPV6", features::CHECKSUM_IPV6),
    ("BPF_SKB_TSTAMP_DELIVERY_MONO", features::SET_DEPARTURE),
    // bpf_set_retval is of Linux 5.18. Since this function it is for all cgroup hooks (dea6a4e17013, bed89185af0d).
    ("cgroup_common_func_proto", features::SET_RETVAL),
];

/// The programs' `FEATURES` word for the running kernel; 0 for one that does not tell. Reads some megabytes.
pub(super) fn of_running_kernel() -> u32 {
    fs::read(TYPES).map_or(0, |types| named_in(&types))
}

/// The features whose names are among those of some type information: each stands between two zeros.
fn named_in(types: &[u8]) -> u32 {
    types.split(|byte| *byte == 0).fold(0, |found, name| {
        let known = NAMES.iter().find(|(known, _)| known.as_bytes() == name);
        found | known.map_or(0, |(_, bit)| *bit)
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
        assert_eq!(named_in(b"\0BPF_FUNC_set_retval\0"), 0, "it may be for other hooks alone");
        assert_eq!(named_in(b"\0cgroup_common_func_proto\0"), features::SET_RETVAL);
        assert_eq!(named_in(b""), 0);
    }
}
