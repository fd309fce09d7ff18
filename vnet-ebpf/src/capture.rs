//! Dropped packets, shown to whoever captures them.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use vnet_common::{CaptureHeader, MAX_SNAPLEN};
use vnet_datapath::Packet;

use crate::maps;

/// A context of any kind.
struct Context(*mut c_void);

impl EbpfContext for Context {
    fn as_ptr(&self) -> *mut c_void {
        self.0
    }
}

/// Hands over a dropped packet, if somebody captures such: the kernel copies its first bytes itself.
#[inline(always)]
pub fn show<P: Packet>(context: *mut c_void, packet: &P, ifindex: u32, reason: u32, hook: u32) {
    let Some(filter) = maps::CAPTURE.get(0) else { return };
    if !filter.selects(reason, hook) {
        return;
    }
    let length = packet.length();
    let captured = length.min(filter.snaplen).min(MAX_SNAPLEN);
    // SAFETY: reading the clock has no preconditions.
    let time = unsafe { bpf_ktime_get_boot_ns() };
    let (reason, hook) = (reason as u8, hook as u8);
    let header = CaptureHeader { time, ifindex, length, captured, reason, hook, reserved: [0; 2] };
    maps::CAPTURED.output(&Context(context), bytemuck::bytes_of(&header), captured);
}
