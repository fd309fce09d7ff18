//! Where tuples and entries are put together.

use bytemuck::{Pod, Zeroable};
use vnet_common::{CtEntry, Tuple};

/// Working memory of one packet. In the kernel it is one CPU's element of a map: the programs' stack of 512
/// bytes is too small for it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Scratch {
    /// The packet's tuple as it arrived.
    pub tuple: Tuple,
    /// What it becomes.
    pub translated: Tuple,
    /// The tuple of the answers to that.
    pub answer: Tuple,
    /// A tuple to be removed.
    pub spare: Tuple,
    /// An entry about to be added.
    pub entry: CtEntry,
}
