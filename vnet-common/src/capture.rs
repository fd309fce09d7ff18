//! What a capture of dropped packets asks for and gets.

use bytemuck::{Pod, Zeroable};

use crate::{DropReason, Hook};

/// Most bytes of a packet that are captured.
pub const MAX_SNAPLEN: u32 = 16_384;

/// Which packets are captured; none when it is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct CaptureFilter {
    /// One bit for each [`DropReason`], by its number.
    pub reasons: u64,
    /// One bit for each [`Hook`], by its number.
    pub hooks: u32,
    /// Bytes of a packet that are kept, at most [`MAX_SNAPLEN`].
    pub snaplen: u32,
}

impl CaptureFilter {
    /// Those for one of these reasons by one of these hooks.
    #[must_use]
    pub fn new(reasons: &[DropReason], hooks: &[Hook], snaplen: u32) -> Self {
        Self {
            reasons: reasons.iter().fold(0, |bits, reason| bits | 1 << (*reason as u64 % 64)),
            hooks: hooks.iter().fold(0, |bits, hook| bits | 1 << (*hook as u32 % 32)),
            snaplen: snaplen.min(MAX_SNAPLEN),
        }
    }

    /// Whether a packet is captured, by the numbers of reason and hook.
    #[must_use]
    pub const fn selects(&self, reason: u32, hook: u32) -> bool {
        self.reasons >> (reason % 64) & 1 != 0 && self.hooks >> (hook % 32) & 1 != 0
    }
}

/// What stands before the bytes of a captured packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct CaptureHeader {
    /// Nanoseconds since boot (`CLOCK_BOOTTIME`).
    pub time: u64,
    /// Interface on which it was met.
    pub ifindex: u32,
    /// Its length in bytes, link header included.
    pub length: u32,
    /// How many of them follow.
    pub captured: u32,
    /// A [`DropReason`].
    pub reason: u8,
    /// A [`Hook`].
    pub hook: u8,
    /// Zero.
    pub reserved: [u8; 2],
}
