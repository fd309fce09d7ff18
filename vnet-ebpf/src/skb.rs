//! [`Packet`] over a socket buffer: helpers throughout, which know about non-linear, aggregated and
//! checksum-offloaded packets.

use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM};
use aya_ebpf::helpers::generated::{
    bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use vnet_common::features;
use vnet_datapath::checksum::Delta;
use vnet_datapath::{Covers, L4Checksum, Packet};

use crate::{environment, steps};

/// `BPF_F_IPV6` of `bpf_l4_csum_replace` (Linux 6.16).
const BPF_F_IPV6: u64 = 1 << 7;

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
        let mut bytes = core::mem::MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper fills all `N` bytes or fails.
        unsafe {
            let failed =
                bpf_skb_load_bytes(self.0.cast(), offset, bytes.as_mut_ptr().cast(), const { N as u32 });
            (failed == 0).then(|| bytes.assume_init())
        }
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
}
