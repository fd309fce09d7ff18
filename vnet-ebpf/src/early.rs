//! The program that uplinks with XDP have in front of all else.

use aya_ebpf::bindings::{BPF_ANY, xdp_action, xdp_md};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use bytemuck::Zeroable;
use vnet_common::{Addr, Hook, Tuple};
use vnet_datapath::early::{self, Early};

use crate::verdict::{self, Dropped};
use crate::xdp::Frame;
use crate::{Maps, maps, steps};

/// Of so many drops for one reason, on each CPU, one is told of: telling takes a lock that all CPUs share.
const TOLD: u64 = 1_024;

/// Drops a frame or lets it pass, as it is.
#[inline(always)]
pub fn run(context: *mut xdp_md) -> u32 {
    let frame = Frame::new(context);
    let mut tuple = Tuple::zeroed();
    let Err(reason) = early::judge(&frame, &Maps::without_context(), &mut tuple) else {
        return xdp_action::XDP_PASS;
    };
    let dropped = Dropped { ifindex: frame.ifindex(), hook: Hook::XdpUplink, reason, tuple: &tuple };
    if verdict::count(&dropped).is_multiple_of(TOLD) {
        verdict::tell(&frame, &dropped);
    }
    // SAFETY: the context is valid for the call.
    unsafe { steps::vnet_dropped_early(context.cast(), reason as u32, Hook::XdpUplink as u32) };
    xdp_action::XDP_DROP
}

impl Early for Maps {
    #[inline(always)]
    fn is_denied(&self, source: &Addr) -> bool {
        maps::DENIED.get(&Key::new(128, *source)).is_some()
    }

    #[inline(always)]
    fn nanoseconds(&self) -> u64 {
        // SAFETY: reading the clock has no preconditions.
        unsafe { bpf_ktime_get_boot_ns() }
    }

    #[inline(always)]
    fn source_due(&self, prefix: &Addr) -> u64 {
        // SAFETY: a map's value, which stays mapped while the program runs; a number that is written whole.
        maps::FLOOD_SOURCES.get_ptr_mut(prefix).map_or(0, |due| unsafe { core::ptr::read_volatile(due) })
    }

    #[inline(always)]
    fn set_source_due(&self, prefix: &Addr, due: u64) {
        match maps::FLOOD_SOURCES.get_ptr_mut(prefix) {
            // SAFETY: as above.
            Some(place) => unsafe { core::ptr::write_volatile(place, due) },
            // A failure means that the source is not known; its flow begins all the same.
            None => _ = maps::FLOOD_SOURCES.insert(prefix, due, u64::from(BPF_ANY)),
        }
    }

    #[inline(always)]
    fn total_due(&self) -> u64 {
        // SAFETY: as above.
        maps::FLOOD_TOTAL.get_ptr_mut(0).map_or(0, |due| unsafe { core::ptr::read_volatile(due) })
    }

    #[inline(always)]
    fn set_total_due(&self, due: u64) {
        if let Some(place) = maps::FLOOD_TOTAL.get_ptr_mut(0) {
            // SAFETY: as above.
            unsafe { core::ptr::write_volatile(place, due) };
        }
    }
}
