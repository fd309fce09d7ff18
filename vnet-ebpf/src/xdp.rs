//! [`Packet`] over a frame as the driver received it: direct access, each with its own bounds check. Nothing is
//! offloaded yet, so checksums are complete.

use aya_ebpf::bindings::xdp_md;
use vnet_datapath::checksum::{Delta, Sum};
use vnet_datapath::wire::Front;
use vnet_datapath::{Covers, L4Checksum, Packet};

use crate::steps;

/// Headers end well before this; the verifier wants to know that offsets have a bound.
const MAX_OFFSET: u32 = OFFSET_BITS as u32;
const OFFSET_BITS: usize = 0xfff;

/// A received frame.
#[derive(Debug)]
pub struct Frame(*mut xdp_md);

impl Frame {
    /// The frame of a program's context.
    #[inline(always)]
    pub fn new(context: *mut xdp_md) -> Self {
        Self(context)
    }

    /// The context.
    #[inline(always)]
    pub fn context(&self) -> *mut xdp_md {
        self.0
    }

    /// Index of the interface that received it.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: as below.
        unsafe { core::ptr::read_volatile(&raw const (*self.0).ingress_ifindex) }
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the context is valid while the program runs; volatile so that both fields are loaded whole.
        unsafe {
            (
                core::ptr::read_volatile(&raw const (*self.0).data) as usize,
                core::ptr::read_volatile(&raw const (*self.0).data_end) as usize,
            )
        }
    }

    #[inline(always)]
    fn at<const N: usize>(&self, offset: u32) -> Option<*mut [u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        let (data, end) = self.bounds();
        // Opaque, or the compiler knows better than to mask, and keeps only bounds that the verifier cannot follow.
        let start = data + (core::hint::black_box(offset as usize) & OFFSET_BITS);
        (start + N <= end).then_some(start as *mut [u8; N])
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn length(&self) -> u32 {
        let (data, end) = self.bounds();
        (end - data) as u32
    }

    #[inline(always)]
    fn segment_payload(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn is_tagged(&self) -> bool {
        false
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        // SAFETY: `at` has checked that all `N` bytes lie inside the frame; byte arrays have no alignment.
        self.at(offset).map(|bytes| unsafe { *bytes })
    }

    /// Without a detour over the stack.
    #[inline(always)]
    fn start<const N: usize>(&self, to: &mut Front) -> u32 {
        const { assert!(N <= Front::V6) };
        let Some(bytes) = self.at::<N>(0) else { return 0 };
        // SAFETY: all `N` bytes lie inside the frame, and there is room for them.
        unsafe { core::ptr::copy_nonoverlapping(bytes.cast(), to.bytes.as_mut_ptr(), N) };
        const { N as u32 }
    }

    #[inline(always)]
    fn option(&self, at: u32) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { steps::vnet_option(self.0.cast(), at) }
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: u32, bytes: &[u8; N]) -> Option<()> {
        // SAFETY: as above.
        self.at(offset).map(|place| unsafe { *place = *bytes })
    }

    #[inline(always)]
    fn store_uncompensated(&mut self, offset: u32, byte: u8) -> Option<()> {
        self.store(offset, &[byte])
    }

    #[inline(always)]
    fn fix_l3(&mut self, offset: u32, delta: Delta) -> Option<()> {
        let sum = self.load(offset)?;
        self.store(offset, &delta.apply(sum))
    }

    #[inline(always)]
    fn fix_l4(&mut self, sum: L4Checksum, delta: Delta, _covers: Covers) -> Option<()> {
        match sum {
            L4Checksum::Always(offset) => self.fix_l3(offset, delta),
            L4Checksum::ZeroMeansNone(offset) => {
                let sum = self.load(offset)?;
                self.store(offset, &delta.apply_unless_zero(sum))
            }
        }
    }

    /// Nothing is ever sent.
    #[inline(always)]
    fn quote(&mut self, _front: u32, _length: u16) -> Option<Sum> {
        None
    }
}
