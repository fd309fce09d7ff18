//! What a verdict is to the kernel, and what happens to what is dropped.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_ANY, BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_boot_ns, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_change_type,
};
use vnet_common::{DropKey, DropReason, Hook, Tuple};
use vnet_datapath::step::Step;
use vnet_datapath::{Decided, Delivery, NextHop, Packet, Scratch};

use crate::log;
use crate::maps;
use crate::skb::Skb;
use crate::steps;
use crate::xdp::Frame;

/// Mark of a packet that `from_endpoint` has sent on to an uplink itself: `to_uplink` has nothing to do for it.
/// In `tc_index`, which nothing else uses between the two hooks. Whatever passes is cleared of it, since the
/// sender's own programs, or another instance on the way, could have set it.
pub const FORWARDED: u32 = 0x7e7;

/// Mark of a fragment that waits, in the upper half of `tc_index`; the lower half says since when, in units of
/// 2^[`CLOCK_SHIFT`] nanoseconds. The packet's own mark says where it came from: both survive the way through the pair
/// of interfaces between which it waits.
const HELD: u32 = 0x7e00;
/// Mark of a fragment that has waited. A sender's own programs could set it too, and would have its fragments dropped.
const WAITED: u32 = 0x7d00;
/// 8.4 milliseconds.
const CLOCK_SHIFT: u32 = 23;
/// 201 milliseconds, in which a fragment goes round at least once even when all places are taken.
const LONGEST_WAIT: u32 = 24;

const PACKET_HOST: u32 = 0;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// Whether the packet is a fragment that has waited for its first; it is no longer marked then.
#[inline(always)]
pub fn has_waited(skb: &mut Skb) -> bool {
    let waited = skb.tc_index() == WAITED;
    if waited {
        skb.set_tc_index(0);
        skb.set_mark(0);
    }
    waited
}

/// Where the packet came from that waits, and whether it has done so long enough; `None` if it is no such packet.
#[inline(always)]
pub fn waiting(skb: &Skb) -> Option<(u32, bool)> {
    let marked = skb.tc_index();
    if marked & 0xff00 != HELD {
        return None;
    }
    let waited = clock().wrapping_sub(marked) & 0xff;
    Some((skb.mark(), waited >= LONGEST_WAIT))
}

/// The time in units of 2^[`CLOCK_SHIFT`] nanoseconds, of which there are 256.
#[inline(always)]
fn clock() -> u32 {
    // SAFETY: reading the clock has no preconditions.
    (unsafe { bpf_ktime_get_boot_ns() } >> CLOCK_SHIFT) as u32 & 0xff
}

/// Carries out a classifier's verdict on the packet of which `scratch` has the tuple, if it has one.
#[inline(always)]
pub fn tc(skb: &mut Skb, hook: Hook, scratch: &mut Scratch, step: Step) -> i32 {
    log::packet(scratch, step, hook as u32);
    if step == Step::HOLD {
        if hook != Hook::FromHold {
            skb.set_mark(skb.ifindex());
            skb.set_tc_index(HELD | clock());
        }
        let hold = maps::CONFIG.get(0).map_or(0, |config| config.hold);
        // SAFETY: plain numbers.
        return unsafe { bpf_redirect(hold, 0) as i32 };
    }
    if step == Step::RETURN {
        skb.set_tc_index(WAITED);
        // SAFETY: as above.
        return unsafe { bpf_redirect(scratch.place.arrived, u64::from(BPF_F_INGRESS)) as i32 };
    }
    if let Some(reason) = step.reason() {
        let context = skb.context().cast();
        let dropped = Dropped { ifindex: skb.ifindex(), hook, reason, tuple: &scratch.tuple };
        let dropped = drop(skb, context, &dropped);
        return if scratch.answering.is_wanted() { answer(skb, scratch) } else { dropped };
    }
    let decided = &scratch.decided;
    let kind = if step == Step::DONE { decided.kind() } else { Decided::PASS };
    if kind == Decided::FORWARD {
        skb.set_tc_index(FORWARDED);
        return forward(decided.next_hop());
    }
    if kind != Decided::DELIVER {
        skb.set_tc_index(0);
        if hook == Hook::FromEndpoint && scratch.entrance != 0 {
            // SAFETY: plain numbers.
            return unsafe { bpf_redirect(scratch.entrance, u64::from(BPF_F_INGRESS)) as i32 };
        }
        return TC_ACT_UNSPEC;
    }
    let delivery = decided.delivery();
    if delivery.routed && skb.store(0, &link_addresses(&delivery)).is_none() {
        let reason = DropReason::Rewrite;
        log::packet(scratch, Step::drop(reason), hook as u32);
        let context = skb.context().cast();
        let dropped = Dropped { ifindex: skb.ifindex(), hook, reason, tuple: &scratch.tuple };
        return drop(skb, context, &dropped);
    }
    // Frames between neighbours are addressed past this interface; the receiver would not take them.
    if skb.packet_type() != PACKET_HOST {
        // SAFETY: plain numbers; a refusal leaves the packet as it is, to be dropped by the receiver.
        unsafe { bpf_skb_change_type(skb.context(), PACKET_HOST) };
    }
    // SAFETY: plain numbers.
    unsafe {
        if delivery.queued {
            bpf_redirect(delivery.ifindex, 0) as i32
        } else {
            bpf_redirect_peer(delivery.ifindex, 0) as i32
        }
    }
}

/// Sends the error about a packet instead of it.
#[inline(always)]
fn answer(skb: &mut Skb, scratch: &mut Scratch) -> i32 {
    // SAFETY: both pointers are valid for the call.
    if unsafe { steps::vnet_build_answer(skb.context().cast(), scratch) } == 0 {
        return TC_ACT_SHOT;
    }
    skb.set_tc_index(FORWARDED);
    // SAFETY: plain numbers.
    unsafe { bpf_redirect(scratch.answering.ifindex, 0) as i32 }
}

/// The next hop as `bpf_redirect_neigh` wants it: without it the helper would route a second time.
#[inline(always)]
fn forward(next_hop: NextHop) -> i32 {
    #[repr(C)]
    struct Neighbour {
        family: u32,
        addr: [u32; 4],
    }
    let words @ [.., last] = next_hop.addr.words();
    let mut neighbour = if next_hop.addr.is_v4() {
        Neighbour { family: AF_INET, addr: [last, 0, 0, 0] }
    } else {
        Neighbour { family: AF_INET6, addr: words }
    };
    let length = size_of::<Neighbour>() as i32;
    // SAFETY: `Neighbour` has the layout and size of `struct bpf_redir_neigh`.
    unsafe { bpf_redirect_neigh(next_hop.ifindex, (&raw mut neighbour).cast(), length, 0) as i32 }
}

/// What is told of a dropped packet.
#[derive(Clone, Copy, Debug)]
pub struct Dropped<'a> {
    /// The interface on which it was met.
    pub ifindex: u32,
    /// The hook.
    pub hook: Hook,
    /// Why.
    pub reason: DropReason,
    /// Its tuple, as far as it was read.
    pub tuple: &'a Tuple,
}

/// Carries out the verdict on a frame: for comparison with the classifiers, so a redirect goes nowhere.
#[inline(always)]
pub fn xdp(frame: &mut Frame, hook: Hook, scratch: &Scratch, step: Step) -> u32 {
    if step == Step::HOLD {
        return xdp_action::XDP_ABORTED;
    }
    let (ifindex, Scratch { tuple, decided, .. }) = (frame.ifindex(), scratch);
    if let Some(reason) = step.reason() {
        drop(frame, frame.context().cast(), &Dropped { ifindex, hook, reason, tuple });
        return xdp_action::XDP_DROP;
    }
    let kind = if step == Step::DONE { decided.kind() } else { Decided::PASS };
    if kind == Decided::FORWARD {
        return xdp_action::XDP_TX;
    }
    if kind != Decided::DELIVER {
        return xdp_action::XDP_PASS;
    }
    let delivery = decided.delivery();
    if delivery.routed && frame.store(0, &link_addresses(&delivery)).is_none() {
        let reason = DropReason::Rewrite;
        drop(frame, frame.context().cast(), &Dropped { ifindex, hook, reason, tuple });
        return xdp_action::XDP_DROP;
    }
    xdp_action::XDP_REDIRECT
}

#[inline(always)]
fn link_addresses(delivery: &Delivery) -> [u8; 12] {
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (delivery.dst.bytes, delivery.src.bytes);
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

/// Counts a drop, tells whoever listens, and shows the packet to whoever captures.
#[inline(always)]
pub(crate) fn drop<P: Packet>(packet: &P, context: *mut c_void, dropped: &Dropped<'_>) -> i32 {
    count(dropped);
    tell(packet, dropped);
    // SAFETY: the context is valid for the call.
    unsafe { steps::vnet_dropped(context, dropped.reason as u32, dropped.hook as u32) };
    TC_ACT_SHOT
}

/// Counts a drop; says how many there were here for this reason, on this CPU, before.
#[inline(always)]
pub(crate) fn count(dropped: &Dropped<'_>) -> u64 {
    let Dropped { ifindex, hook, reason, .. } = *dropped;
    let key = DropKey { ifindex, reason: reason as u8, hook: hook as u8, reserved: [0; 2] };
    match maps::DROPS.get_ptr_mut(key) {
        // SAFETY: this CPU's own counter.
        Some(count) => unsafe {
            *count += 1;
            *count - 1
        },
        // A failure means that the map is full of other reasons; the packet is dropped all the same.
        None => {
            _ = maps::DROPS.insert(key, 1, u64::from(BPF_ANY));
            0
        }
    }
}

/// Tells whoever listens of a drop.
#[inline(always)]
pub(crate) fn tell<P: Packet>(packet: &P, dropped: &Dropped<'_>) {
    let Dropped { ifindex, hook, reason, tuple } = *dropped;
    if let Some(mut slot) = maps::EVENTS.reserve(0) {
        let event = slot.as_mut_ptr();
        // SAFETY: reserved memory of the record's size; every field is written. Field by field, because the whole
        // would go through the small stack.
        unsafe {
            (*event).time = bpf_ktime_get_boot_ns();
            (*event).tuple = *tuple;
            (*event).translated = bytemuck::Zeroable::zeroed();
            (*event).ifindex = ifindex;
            (*event).length = packet.length();
            (*event).reason = reason as u8;
            (*event).hook = hook as u8;
            (*event).reserved = [0; 6];
        }
        slot.submit(0);
    }
}
