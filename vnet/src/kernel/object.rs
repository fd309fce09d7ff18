//! The eBPF objects that the build script makes: those that are part of this binary, and those for the tests.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::error::Error;

/// The object as the build script made it; empty if it had nothing to make it with.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/vnet-ebpf"));

/// The packet logic as XDP programs, for the tests that compare the runners; made like [`OBJECT`]. The binary does
/// not name it, so the linker leaves it out.
pub static RUNNERS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/runners"));

/// What asks the kernel for `vnet trace` (`kernel::probe`); made like [`OBJECT`], and part of this binary as well.
pub static PROBE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probe"));

/// What generates frames in the kernel, for tests and benchmarks; likewise.
pub static GENERATOR: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/generator"));

/// The object.
pub(super) fn bytes() -> Result<&'static [u8], Error> {
    if OBJECT.is_empty() { Err(Error::BuiltWithoutPrograms) } else { Ok(OBJECT) }
}

/// The object of the probe.
pub(super) fn probe() -> Result<&'static [u8], Error> {
    if PROBE.is_empty() { Err(Error::BuiltWithoutPrograms) } else { Ok(PROBE) }
}

/// A word that tells this object from others, as a file's name; `None` if there is no object.
pub(super) fn build() -> Option<String> {
    if OBJECT.is_empty() {
        return None;
    }
    // Not for safety but to notice an upgrade; another hash for the same object would only load it once more.
    let mut hasher = DefaultHasher::new();
    OBJECT.hash(&mut hasher);
    Some(format!("build-{:016x}", hasher.finish()))
}
