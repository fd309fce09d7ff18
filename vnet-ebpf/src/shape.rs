//! Limits of cgroups, where packets leave by an uplink.

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::helpers::generated::{
    bpf_get_cgroup_classid, bpf_ktime_get_ns, bpf_skb_ancestor_cgroup_id, bpf_spin_lock, bpf_spin_unlock,
};
use bytemuck::Zeroable as _;
use vnet_common::{DropReason, Hook, LimitKey, LimitValue, Tuple, maps::CGROUP_LEVELS};
use vnet_datapath::shape::{Departure, depart};

use crate::maps;
use crate::skb::Skb;
use crate::verdict::{self, Dropped};

/// What a limit makes of a packet.
enum Limited {
    /// It leaves at this time, in nanoseconds since boot.
    At(u64),
    /// A queue of the uplink shapes it, and those of the limits around this one.
    InClass(u32),
    /// It is dropped.
    Never,
}

/// Holds every limit of a packet's sender: that of its class, and those of its cgroup and of the cgroups around that,
/// the innermost first, so that what one of them drops takes nothing from those around it.
#[inline(always)]
pub fn run(skb: &mut Skb) -> i32 {
    // SAFETY: reading the clock has no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the context is valid while the program runs.
    let classid = unsafe { bpf_get_cgroup_classid(skb.context()) };
    if classid != 0 {
        match limited(skb, &LimitKey { cgroup: 0, classid, reserved: 0 }, now) {
            None => {}
            Some(Limited::At(time)) => skb.leave_at(time, now),
            Some(Limited::InClass(class)) => return in_class(skb, class),
            Some(Limited::Never) => return over_limit(skb),
        }
    }
    for above in 0..CGROUP_LEVELS {
        let level = (CGROUP_LEVELS - 1 - above) as i32;
        // SAFETY: as above. 0 if there is no sender any more, or its cgroup is not as deep.
        let cgroup = unsafe { bpf_skb_ancestor_cgroup_id(skb.context(), level) };
        if cgroup == 0 {
            continue;
        }
        match limited(skb, &LimitKey { cgroup, classid: 0, reserved: 0 }, now) {
            None => {}
            // Where the packet has it the verifier does not follow it from limit to limit.
            Some(Limited::At(time)) => skb.leave_at(time, now),
            Some(Limited::InClass(class)) => return in_class(skb, class),
            Some(Limited::Never) => return over_limit(skb),
        }
    }
    TC_ACT_UNSPEC
}

/// What the limit of a key makes of a packet, if there is one.
#[inline(always)]
fn limited(skb: &Skb, key: &LimitKey, now: u64) -> Option<Limited> {
    let limit = maps::LIMITS.get_ptr(key)?;
    // SAFETY: an entry of a map stays readable while a program runs that has found it.
    let limit: LimitValue = unsafe { *limit };
    if limit.class != 0 {
        return Some(Limited::InClass(limit.class));
    }
    // What has no clock was taken away at this moment.
    let clock = maps::LIMIT_CLOCKS.get_ptr_mut(limit.number)?;
    let length = skb.wire_length();
    // SAFETY: as above; what the lock protects is changed between its two calls.
    let departure = unsafe {
        bpf_spin_lock((&raw mut (*clock).lock).cast());
        let departure = depart(&limit, (*clock).next, now, length);
        if let Some(Departure { next, .. }) = departure {
            (*clock).next = next;
        }
        bpf_spin_unlock((&raw mut (*clock).lock).cast());
        departure
    };
    Some(departure.map_or(Limited::Never, |departure| Limited::At(departure.at)))
}

#[inline(always)]
fn in_class(skb: &mut Skb, class: u32) -> i32 {
    skb.set_priority(class);
    TC_ACT_UNSPEC
}

#[inline(always)]
fn over_limit(skb: &mut Skb) -> i32 {
    let context = skb.context().cast();
    let dropped = Dropped {
        ifindex: skb.ifindex(),
        hook: Hook::Shape,
        reason: DropReason::OverLimit,
        tuple: &Tuple::zeroed(),
    };
    verdict::drop(skb, context, &dropped)
}
