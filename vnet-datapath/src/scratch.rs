//! Where tuples and entries are put together.

use bytemuck::{Pod, Zeroable};
use vnet_common::{Addr, CtEntry, FragmentKey, FragmentValue, Mac, MappingEntry, Tuple};

use crate::answer::Answer;
use crate::parse::Headers;
use crate::related::Quoted;
use crate::tables::NextHop;
use crate::verdict::{Delivery, Verdict};
use crate::wire::Front;

/// Working memory of one packet. In the kernel it is one CPU's element of a map: the programs' stack of 512
/// bytes is too small for it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Scratch {
    /// The packet's tuple as it arrived.
    pub tuple: Tuple,
    /// What it becomes.
    pub translated: Tuple,
    /// The tuple of the answers to that.
    pub answer: Tuple,
    /// A tuple to be removed or asked for.
    pub spare: Tuple,
    /// Another.
    pub noted: Tuple,
    /// An entry about to be added.
    pub entry: CtEntry,
    /// A mapping about to be added.
    pub mapping: MappingEntry,
    /// What the fragments of the packet's datagram have in common.
    pub fragment: FragmentKey,
    /// A flow about to begin.
    pub opening: Opening,
    /// A flow that goes on.
    pub progress: Progress,
    /// The packet's headers.
    pub headers: Headers,
    /// What is noted of them.
    pub datagram: FragmentValue,
    /// What it begins with.
    pub front: Front,
    /// Where the headers stand that it quotes, if it is an ICMP error.
    pub quoted: Quoted,
    /// Where it was met.
    pub place: Place,
    /// What becomes of it.
    pub decided: Decided,
    /// What kind of frame it is: one of the `FRAME_` constants.
    pub frame: u8,
    /// What has happened on its way: any of the `HAPPENED_` constants, for whoever logs.
    pub happened: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// What is said about it, if it is dropped.
    pub answering: Answer,
    /// The interface by which it enters the host's stack, if it goes on there: that of its network, if this has no
    /// bridge; 0 where it is.
    pub entrance: u32,
    /// Zero.
    pub padding: [u8; 4],
}

impl Scratch {
    /// An IP packet, of which the headers and the tuple are here.
    pub const FRAME_IP: u8 = 0;
    /// ARP.
    pub const FRAME_ARP: u8 = 1;
    /// Anything else.
    pub const FRAME_OTHER: u8 = 2;
    /// One that contradicts itself.
    pub const FRAME_MALFORMED: u8 = 3;

    /// A flow began with it.
    pub const HAPPENED_BEGIN: u8 = 1;
    /// It confirmed its flow.
    pub const HAPPENED_CONFIRM: u8 = 2;
}

/// Where a packet was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Place {
    /// The interface whose hook it is.
    pub ifindex: u32,
    /// The interface on which the host's stack sees it arrive: the bridge, for a packet of an endpoint. For a fragment
    /// that has waited: the interface on which it was met before.
    pub arrived: u32,
    /// Not 0 for a fragment that has waited for its first as long as it may.
    pub waited: u32,
}

/// A [`Verdict`] as plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Decided {
    ifindex: u32,
    next_hop: Addr,
    dst: Mac,
    src: Mac,
    kind: u8,
    routed: u8,
    queued: u8,
    reserved: u8,
}

impl Decided {
    /// The packet goes on through the host's stack.
    pub const PASS: u8 = 0;
    /// It leaves for [`Self::next_hop`].
    pub const FORWARD: u8 = 1;
    /// It is delivered by [`Self::delivery`].
    pub const DELIVER: u8 = 2;

    /// Keeps a verdict on a packet that goes on.
    #[inline(always)]
    pub fn keep(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Pass | Verdict::Enter(_) | Verdict::Hold | Verdict::Return => self.kind = Self::PASS,
            Verdict::Forward(NextHop { ifindex, addr }) => {
                self.kind = Self::FORWARD;
                self.ifindex = ifindex;
                self.next_hop = addr;
            }
            Verdict::Deliver(Delivery { ifindex, dst, src, routed, queued }) => {
                self.kind = Self::DELIVER;
                self.ifindex = ifindex;
                self.dst = dst;
                self.src = src;
                self.routed = routed as u8;
                self.queued = queued as u8;
            }
        }
    }

    /// Whether the packet goes on through the host's stack.
    #[must_use]
    #[inline(always)]
    pub const fn is_pass(&self) -> bool {
        self.kind == Self::PASS
    }

    /// Which it is: [`Self::PASS`], [`Self::FORWARD`] or [`Self::DELIVER`]. The kernel's runners go by this number: their
    /// verifier sees what is left undefined of a [`Verdict`] that has no next hop.
    #[must_use]
    #[inline(always)]
    pub const fn kind(&self) -> u8 {
        self.kind
    }

    /// Where a forwarded packet goes.
    #[must_use]
    #[inline(always)]
    pub const fn next_hop(&self) -> NextHop {
        NextHop { ifindex: self.ifindex, addr: self.next_hop }
    }

    /// Where a delivered packet goes.
    #[must_use]
    #[inline(always)]
    pub const fn delivery(&self) -> Delivery {
        let Self { ifindex, dst, src, routed, queued, .. } = *self;
        Delivery { ifindex, dst, src, routed: routed != 0, queued: queued != 0 }
    }

    /// The verdict that was kept.
    #[inline(always)]
    pub const fn verdict(&self) -> Verdict {
        match self.kind {
            Self::FORWARD => Verdict::Forward(self.next_hop()),
            Self::DELIVER => Verdict::Deliver(self.delivery()),
            _ => Verdict::Pass,
        }
    }
}

/// A flow about to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Opening {
    /// The port mapping that opens it, 0 if none does.
    pub mapping: u32,
    /// Length of its first packet in bytes, from the network header on.
    pub length: u32,
    /// The endpoint that opens it, by the host-side end of its veth pair; 0 for somebody else.
    pub owner: u32,
    /// A [`SourcePorts`].
    pub ports: u8,
    /// 1 if all flows of this source port share one external port, or the flow came in through such a mapping.
    pub mapped: u8,
    /// 1 if routing has chosen the external address.
    pub routed: u8,
    /// One of [`vnet_common::filtering`], for a mapping.
    pub filtering: u8,
    /// Which attempt at finding a source port it is, from 0.
    pub attempt: u8,
    /// 1 if no flow begins at the moment, whoever opens it.
    pub frozen: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

/// Which source ports a flow may get on its far side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SourcePorts {
    /// The host's address is the source: only ports that masquerade may use and no socket of the host does.
    Host = 0,
    /// The opener's own address is the source, or one that belongs to it alone: its own port unless that is taken.
    Own = 1,
}

/// A flow that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Progress {
    /// Seconds since boot.
    pub now: u32,
    /// A slot of the confirmed flows.
    pub slot: u32,
    /// The [`vnet_common::CtState`] that it had.
    pub old: u8,
    /// The one that it gets.
    pub state: u8,
    /// Which half is to be confirmed: 0 for that of `tuple`, 1 for that of `answer`.
    pub half: u8,
    /// 1 if it was found among the confirmed.
    pub confirmed: u8,
    /// Whose packet it is: a [`vnet_common::Origin`].
    pub origin: u8,
    /// Zero.
    pub reserved: [u8; 3],
}
