//! [`Packet`] over a socket buffer: helpers throughout, which know about non-linear, aggregated and
//! checksum-offloaded packets.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode,
};
use aya_ebpf::helpers::generated::{
    bpf_csum_diff, bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail,
    bpf_skb_load_bytes, bpf_skb_set_tstamp, bpf_skb_store_bytes,
};
use vnet_common::features;
use vnet_datapath::answer::MAX_QUOTE;
use vnet_datapath::checksum::{Delta, Sum};
use vnet_datapath::wire::Front;
use vnet_datapath::{Covers, L4Checksum, Packet};

use crate::{environment, maps, steps};

/// `BPF_SKB_TSTAMP_DELIVERY_MONO` of `bpf_skb_set_tstamp` (Linux 5.18).
const BPF_SKB_TSTAMP_DELIVERY_MONO: u32 = 1;

/// `BPF_F_IPV6` of `bpf_l4_csum_replace` (Linux 6.16).
const BPF_F_IPV6: u64 = 1 << 7;

/// Length of an Ethernet header.
const ETHERNET: u32 = 14;

/// More than the headers of any packet, so that what the hardware was to sum began within.
const DISCARDED: u32 = 256;

/// Bytes that are summed at once, and how often.
const PART: usize = MAX_QUOTE as usize / PARTS;
const PARTS: usize = 4;
const _: () = assert!(PART.is_multiple_of(4) && PART * PARTS == MAX_QUOTE as usize && PART <= 512);

/// Bytes whose alignment the compiler knows: what it does not know to be aligned it reads byte by byte.
#[repr(C, align(8))]
struct Aligned<T> {
    bytes: T,
}

/// A socket buffer.
#[derive(Debug)]
pub struct Skb(*mut __sk_buff);

/// Reads a field of the context: volatile, because the verifier wants exactly the load of a whole field.
macro_rules! field {
    ($skb:expr, $name:ident) => {
        // SAFETY: the context is valid while the program runs.
        unsafe { core::ptr::read_volatile(&raw const (*$skb.0).$name) }
    };
}

impl Skb {
    /// The packet of a program's context.
    #[inline(always)]
    pub fn new(context: *mut __sk_buff) -> Self {
        Self(context)
    }

    /// The context.
    #[inline(always)]
    pub fn context(&self) -> *mut __sk_buff {
        self.0
    }

    /// Index of the interface whose hook is running.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        field!(self, ifindex)
    }

    /// Index of the interface on which the host received it, 0 if the host itself sends it.
    #[inline(always)]
    pub fn ingress_ifindex(&self) -> u32 {
        field!(self, ingress_ifindex)
    }

    /// For whom the link layer thinks it is (`PACKET_HOST` and kin).
    #[inline(always)]
    pub fn packet_type(&self) -> u32 {
        field!(self, pkt_type)
    }

    /// A word that travels with the packet inside the host.
    #[inline(always)]
    pub fn tc_index(&self) -> u32 {
        field!(self, tc_index)
    }

    /// Sets the word that travels with the packet inside the host.
    #[inline(always)]
    pub fn set_tc_index(&mut self, value: u32) {
        // SAFETY: classifiers may write this field.
        unsafe { core::ptr::write_volatile(&raw mut (*self.0).tc_index, value) };
    }

    /// Cuts the packet to a length, or lengthens it by zeros.
    #[inline(always)]
    fn resize(&mut self, length: u32) -> Option<()> {
        // SAFETY: plain numbers.
        let failed = unsafe { bpf_skb_change_tail(self.0, length, 0) };
        (failed == 0).then_some(())
    }

    /// Sets the word that routing and firewalls know a packet by.
    #[inline(always)]
    pub fn set_mark(&mut self, value: u32) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(&raw mut (*self.0).mark, value) };
    }

    /// The word that routing and firewalls know a packet by.
    #[inline(always)]
    pub fn mark(&self) -> u32 {
        field!(self, mark)
    }

    /// Bytes that it has on the wire: of an aggregate, those of all its segments with their headers. Known where packets
    /// leave.
    #[inline(always)]
    pub fn wire_length(&self) -> u32 {
        field!(self, wire_len)
    }

    /// Sets the word by which queueing disciplines know its class.
    #[inline(always)]
    pub fn set_priority(&mut self, class: u32) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(&raw mut (*self.0).priority, class) };
    }

    /// Has it leave at this time, in nanoseconds since boot (`CLOCK_MONOTONIC`), unless its sender wants it to leave
    /// later. A time further away than an hour is of another clock.
    #[inline(always)]
    pub fn leave_at(&mut self, at: u64, now: u64) {
        const HOUR: u64 = 3_600 * 1_000_000_000;
        let wanted = field!(self, tstamp);
        if at == now || wanted >= at && wanted.wrapping_sub(now) < HOUR {
            return;
        }
        if environment::has(features::SET_DEPARTURE) {
            // SAFETY: plain numbers.
            let failed = unsafe { bpf_skb_set_tstamp(self.0, at, BPF_SKB_TSTAMP_DELIVERY_MONO) };
            if failed == 0 {
                return;
            }
        }
        // An older kernel, or neither IPv4 nor IPv6.
        // SAFETY: classifiers may write this field.
        unsafe { core::ptr::write_volatile(&raw mut (*self.0).tstamp, at) };
    }

    #[inline(always)]
    fn put<const N: usize>(&mut self, offset: u32, bytes: &[u8; N], flags: u64) -> Option<()> {
        // SAFETY: `bytes` is `N` bytes long.
        let failed =
            unsafe { bpf_skb_store_bytes(self.0, offset, bytes.as_ptr().cast(), const { N as u32 }, flags) };
        (failed == 0).then_some(())
    }
}

impl Packet for Skb {
    #[inline(always)]
    fn length(&self) -> u32 {
        field!(self, len)
    }

    #[inline(always)]
    fn segment_payload(&self) -> u32 {
        field!(self, gso_size)
    }

    #[inline(always)]
    fn is_tagged(&self) -> bool {
        field!(self, vlan_present) != 0
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut place = MaybeUninit::<Aligned<[u8; N]>>::uninit();
        // SAFETY: the helper fills all `N` bytes or fails.
        unsafe {
            let bytes = &raw mut (*place.as_mut_ptr()).bytes;
            let failed = bpf_skb_load_bytes(self.0.cast(), offset, bytes.cast(), const { N as u32 });
            (failed == 0).then(|| bytes.read())
        }
    }

    /// Without a detour over the stack.
    #[inline(always)]
    fn start<const N: usize>(&self, to: &mut Front) -> u32 {
        const { assert!(N <= Front::V6) };
        // SAFETY: there is room for all `N` bytes.
        let failed =
            unsafe { bpf_skb_load_bytes(self.0.cast(), 0, to.bytes.as_mut_ptr().cast(), const { N as u32 }) };
        if failed == 0 { const { N as u32 } } else { 0 }
    }

    #[inline(always)]
    fn option(&self, at: u32) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { steps::vnet_option(self.0.cast(), at) }
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: u32, bytes: &[u8; N]) -> Option<()> {
        self.put(offset, bytes, 0)
    }

    #[inline(always)]
    fn store_uncompensated(&mut self, offset: u32, byte: u8) -> Option<()> {
        self.put(offset, &[byte], u64::from(BPF_F_RECOMPUTE_CSUM))
    }

    #[inline(always)]
    fn fix_l3(&mut self, offset: u32, delta: Delta) -> Option<()> {
        if delta.is_none() {
            return Some(());
        }
        // SAFETY: plain numbers. With a size of 0 in the flags the helper takes a difference.
        let failed = unsafe { bpf_l3_csum_replace(self.0, offset, 0, u64::from(delta.folded()), 0) };
        (failed == 0).then_some(())
    }

    #[inline(always)]
    fn fix_l4(&mut self, sum: L4Checksum, delta: Delta, covers: Covers) -> Option<()> {
        if delta.is_none() {
            return Some(());
        }
        let (offset, mut flags) = match sum {
            L4Checksum::Always(offset) => (offset, 0),
            L4Checksum::ZeroMeansNone(offset) => (offset, u64::from(BPF_F_MARK_MANGLED_0)),
        };
        match covers {
            Covers::Body => {}
            Covers::PseudoHeaderV4 => flags |= u64::from(BPF_F_PSEUDO_HDR),
            Covers::PseudoHeaderV6 => {
                flags |= u64::from(BPF_F_PSEUDO_HDR);
                if environment::has(features::CHECKSUM_IPV6) {
                    flags |= BPF_F_IPV6;
                }
            }
        }
        // SAFETY: as above.
        let failed = unsafe { bpf_l4_csum_replace(self.0, offset, 0, u64::from(delta.folded()), flags) };
        (failed == 0).then_some(())
    }

    /// Sizes are constant wherever the verifier wants to know them: the quote is dealt with as if it was as long as the
    /// longest, with zeros behind it, which add nothing to a sum.
    #[inline(always)]
    fn quote(&mut self, front: u32, length: u16) -> Option<Sum> {
        let length = u32::from(length);
        let buffer = maps::quote()?;
        // From here on it is one plain packet: this undoes aggregation.
        self.resize(ETHERNET.wrapping_add(length))?;
        self.resize(ETHERNET + MAX_QUOTE)?;
        // SAFETY: the buffer, this CPU's own, has that many bytes.
        let failed =
            unsafe { bpf_skb_load_bytes(self.0.cast(), ETHERNET, buffer.cast(), const { MAX_QUOTE }) };
        if failed != 0 {
            return None;
        }
        // With the bytes that go here goes the place from which the hardware was to sum the packet.
        self.resize(front.wrapping_add(MAX_QUOTE + DISCARDED))?;
        // SAFETY: plain numbers.
        let failed = unsafe {
            bpf_skb_adjust_room(self.0, -(DISCARDED as i32), bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, 0)
        };
        if failed != 0 {
            return None;
        }
        // Kernels that have not noticed do when they are to keep account of a sum.
        let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
        // SAFETY: as above.
        let failed = unsafe { bpf_skb_store_bytes(self.0, front, buffer.cast(), const { MAX_QUOTE }, flags) };
        if failed != 0 {
            return None;
        }
        self.resize(front.wrapping_add(length))?;
        let mut sum = 0;
        for part in 0..PARTS {
            // SAFETY: a part of the buffer; the helper takes half a kilobyte at most.
            let of = unsafe {
                let from = buffer.cast::<u32>().add(part * (PART / 4));
                bpf_csum_diff(core::ptr::null_mut(), 0, from, const { PART as u32 }, sum)
            };
            sum = u32::try_from(of).ok()?;
        }
        Some(Sum::of(sum))
    }
}
