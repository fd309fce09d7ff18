//! A frame that owns its bytes: what a packet is to tests and `vnet trace`, where it may become another.

use crate::checksum::{Delta, Sum};
use crate::packet::{Covers, L4Checksum, Packet, Slice};
use crate::wire;

/// A frame in ordinary memory that may stand for several, to be cut into segments later (GSO), or carry a tag beside
/// its bytes. Unlike a [`Slice`] it can become an answer.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// The frame.
    pub bytes: Vec<u8>,
    /// Payload in bytes of each segment, 0 for a plain packet.
    pub segment: u32,
    /// Whether it carries a VLAN tag.
    pub tagged: bool,
}

impl Buffer {
    /// A plain packet.
    #[must_use]
    #[inline]
    pub const fn plain(bytes: Vec<u8>) -> Self {
        Self { bytes, segment: 0, tagged: false }
    }

    fn slice(&mut self) -> Slice<'_> {
        Slice::new(&mut self.bytes)
    }
}

impl Packet for Buffer {
    #[inline]
    fn length(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    #[inline]
    fn segment_payload(&self) -> u32 {
        self.segment
    }

    #[inline]
    fn is_tagged(&self) -> bool {
        self.tagged
    }

    #[inline]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.bytes.get(usize::try_from(offset).ok()?..)?.first_chunk().copied()
    }

    #[inline]
    fn store<const N: usize>(&mut self, offset: u32, bytes: &[u8; N]) -> Option<()> {
        self.slice().store(offset, bytes)
    }

    #[inline]
    fn store_uncompensated(&mut self, offset: u32, byte: u8) -> Option<()> {
        self.slice().store_uncompensated(offset, byte)
    }

    #[inline]
    fn fix_l3(&mut self, offset: u32, delta: Delta) -> Option<()> {
        self.slice().fix_l3(offset, delta)
    }

    #[inline]
    fn fix_l4(&mut self, sum: L4Checksum, delta: Delta, covers: Covers) -> Option<()> {
        self.slice().fix_l4(sum, delta, covers)
    }

    #[inline]
    fn quote(&mut self, front: u32, length: u16) -> Option<Sum> {
        let network = usize::try_from(wire::NETWORK).ok()?;
        let quoted = self.bytes.get(network..network + usize::from(length))?.to_vec();
        self.bytes = [vec![0; usize::try_from(front).ok()?], quoted.clone()].concat();
        (self.segment, self.tagged) = (0, false);
        let word = |bytes: &[u8]| std::array::from_fn(|at| bytes.get(at).copied().unwrap_or(0));
        Some(quoted.chunks(4).fold(Sum::NONE, |sum, bytes| sum.add4(word(bytes))))
    }
}
