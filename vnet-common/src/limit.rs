//! How much processes of a cgroup may send by the uplinks.

use bytemuck::{Pod, Zeroable};

use crate::bpf_spin_lock;

/// Whose sockets a limit is for: one of the two is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct LimitKey {
    /// Number of a cgroup of the unified hierarchy (version 2); the limit holds for those below it as well.
    pub cgroup: u64,
    /// Class of `net_cls` (version 1): the major number in the upper half.
    pub classid: u32,
    /// Zero.
    pub reserved: u32,
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct LimitValue {
    /// Bytes in a second, counted as frames.
    pub rate: u64,
    /// Nanoseconds in which what passes at once after a pause would pass at the rate.
    pub burst: u64,
    /// Nanoseconds that a packet waits at most; one that would wait longer is dropped.
    pub queue: u64,
    /// The number of the limit: key of its [`LimitClock`].
    pub number: u32,
    /// Class of the uplinks' queueing discipline that shapes what is sent, as a packet's priority names it; 0 where the
    /// program gives packets the time at which they leave.
    pub class: u32,
}

/// When the next packet of a limit may leave. The key is the limit's number: it stays when the limit changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct LimitClock {
    /// Guards the rest.
    pub lock: bpf_spin_lock,
    /// Zero.
    pub reserved: u32,
    /// Nanoseconds since boot (`CLOCK_MONOTONIC`).
    pub next: u64,
}

impl LimitClock {
    /// That of a limit under which nothing was sent yet.
    pub const UNUSED: Self = Self { lock: bpf_spin_lock { val: 0 }, reserved: 0, next: 0 };
}
