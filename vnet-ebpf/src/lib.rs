//! vnet's eBPF side: maps, packet runners and the one place that knows what a verdict is to the kernel. The
//! logic is in `vnet-datapath`; nothing here is interesting, and it should stay that way.
//!
//! On any other target than BPF this crate is empty, so that the workspace builds and tests on the host.
#![no_std]

#[cfg(target_arch = "bpf")]
pub mod capture;
#[cfg(target_arch = "bpf")]
pub mod early;
#[cfg(target_arch = "bpf")]
pub mod environment;
#[cfg(target_arch = "bpf")]
pub mod log;
#[cfg(target_arch = "bpf")]
pub mod maps;
#[cfg(target_arch = "bpf")]
pub mod shape;
#[cfg(target_arch = "bpf")]
pub mod sk_addr;
#[cfg(target_arch = "bpf")]
pub mod skb;
#[cfg(target_arch = "bpf")]
pub mod steps;
#[cfg(target_arch = "bpf")]
mod tables;
#[cfg(target_arch = "bpf")]
pub mod verdict;
#[cfg(target_arch = "bpf")]
pub mod xdp;

#[cfg(target_arch = "bpf")]
pub use tables::Maps;
#[cfg(target_arch = "bpf")]
pub use {
    vnet_common::{Hook, Tuple},
    vnet_datapath::{
        Scratch, answer, begin, conntrack, fragments, mappings, nat, open, option_at, pipeline, related,
    },
};

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing in the programs can panic; were it otherwise the verifier would refuse this loop.
    loop {}
}
