//! A packet, as the logic sees it: bytes at offsets, and checksums that only ever change by a difference.

use crate::checksum::{Delta, Sum};
use crate::parse;
use crate::wire::Front;

/// What a change to a packet means for its transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers {
    /// An address of the IPv4 pseudo-header (RFC 9293 section 3.1).
    PseudoHeaderV4,
    /// An address of the IPv6 pseudo-header (RFC 8200 section 8.1).
    PseudoHeaderV6,
    /// The transport header or what follows it.
    Body,
}

/// Where a transport checksum stands, and what zero means there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4Checksum {
    /// At this offset; zero is a sum like any other.
    Always(u32),
    /// At this offset; zero means that there is none (UDP over IPv4, RFC 768) and must stay.
    ZeroMeansNone(u32),
}

/// A packet with an Ethernet header. Offsets count from its first byte.
pub trait Packet {
    /// Length of the whole frame in bytes; of an aggregate (GSO) all of it.
    fn length(&self) -> u32;

    /// Payload in bytes of each segment that an aggregate will be cut into, 0 for a plain packet.
    fn segment_payload(&self) -> u32;

    /// Whether it carries a VLAN tag beside its bytes.
    fn is_tagged(&self) -> bool;

    /// `N` bytes from `offset`; `None` if it is not that long.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// Reads what it begins with: as much of [`Front::V6`], [`Front::V4`] or [`Front::SHORTEST`] bytes as it has.
    /// Returns which, or 0 if it is not even that long.
    #[inline(always)]
    fn front(&self, to: &mut Front) -> u32 {
        match self.length() as usize {
            Front::V6.. => self.start::<{ Front::V6 }>(to),
            Front::V4.. => self.start::<{ Front::V4 }>(to),
            _ => self.start::<{ Front::SHORTEST }>(to),
        }
    }

    /// Reads its first `N` bytes; returns `N`, or 0 if it is not that long.
    #[inline(always)]
    fn start<const N: usize>(&self, to: &mut Front) -> u32 {
        match (self.load::<N>(0), to.bytes.first_chunk_mut()) {
            (Some(bytes), Some(place)) => {
                *place = bytes;
                const { N as u32 }
            }
            _ => 0,
        }
    }

    /// [`parse::option_at`], which a runner may keep out of line.
    #[inline(always)]
    fn option(&self, at: u32) -> u32
    where
        Self: Sized,
    {
        parse::option_at(self, at)
    }

    /// Replaces `N` bytes from `offset`; `None` if it is not that long or cannot be written.
    fn store<const N: usize>(&mut self, offset: u32, bytes: &[u8; N]) -> Option<()>;

    /// Replaces one byte that no transport checksum compensates for (the IPv6 hop limit).
    fn store_uncompensated(&mut self, offset: u32, byte: u8) -> Option<()>;

    /// Adjusts the IPv4 header checksum at `offset`.
    fn fix_l3(&mut self, offset: u32, delta: Delta) -> Option<()>;

    /// Adjusts a transport checksum. The runner knows whether the field holds the whole sum or, for a packet
    /// whose sum the hardware is yet to make (`CHECKSUM_PARTIAL`), that of the pseudo-header alone.
    fn fix_l4(&mut self, sum: L4Checksum, delta: Delta, covers: Covers) -> Option<()>;

    /// Makes it a plain frame of `front` bytes, for the caller to write, and the first `length` that followed its
    /// Ethernet header; returns the sum of those. `length` is at most [`crate::answer::MAX_QUOTE`], and not more than
    /// there is. `None` if the frame cannot be changed so, whatever may have become of it.
    fn quote(&mut self, front: u32, length: u16) -> Option<Sum>;
}

/// A frame in ordinary memory, with complete checksums: what tests and `vnet trace` use.
#[derive(Debug)]
pub struct Slice<'a> {
    bytes: &'a mut [u8],
}

impl<'a> Slice<'a> {
    /// The packet that these bytes are.
    #[inline]
    pub const fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes }
    }

    fn at<const N: usize>(&mut self, offset: u32) -> Option<&mut [u8; N]> {
        let offset = usize::try_from(offset).ok()?;
        self.bytes.get_mut(offset..)?.first_chunk_mut()
    }
}

impl Packet for Slice<'_> {
    #[inline]
    fn length(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    #[inline]
    fn segment_payload(&self) -> u32 {
        0
    }

    #[inline]
    fn is_tagged(&self) -> bool {
        false
    }

    #[inline]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.bytes.get(usize::try_from(offset).ok()?..)?.first_chunk().copied()
    }

    #[inline]
    fn store<const N: usize>(&mut self, offset: u32, bytes: &[u8; N]) -> Option<()> {
        *self.at(offset)? = *bytes;
        Some(())
    }

    #[inline]
    fn store_uncompensated(&mut self, offset: u32, byte: u8) -> Option<()> {
        self.store(offset, &[byte])
    }

    #[inline]
    fn fix_l3(&mut self, offset: u32, delta: Delta) -> Option<()> {
        let sum = self.at(offset)?;
        *sum = delta.apply(*sum);
        Some(())
    }

    #[inline]
    fn fix_l4(&mut self, sum: L4Checksum, delta: Delta, _covers: Covers) -> Option<()> {
        match sum {
            L4Checksum::Always(offset) => self.fix_l3(offset, delta),
            L4Checksum::ZeroMeansNone(offset) => {
                let sum = self.at(offset)?;
                *sum = delta.apply_unless_zero(*sum);
                Some(())
            }
        }
    }

    /// A slice stays as long as it is.
    #[inline]
    fn quote(&mut self, _front: u32, _length: u16) -> Option<Sum> {
        None
    }
}
