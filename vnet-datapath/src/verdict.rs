//! What becomes of a packet.

use vnet_common::Mac;

use crate::tables::NextHop;

/// What becomes of a packet that is not dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It goes on to whatever comes next: other programs on the hook, then the bridge or the host's stack.
    Pass,
    /// It goes on to the host's stack as if this interface had received it: that of its network, which has no bridge.
    Enter(u32),
    /// It leaves by an interface of the host towards a next hop.
    Forward(NextHop),
    /// It appears inside the namespace of an endpoint.
    Deliver(Delivery),
    /// It is a fragment that waits for the first of its datagram.
    Hold,
    /// It has waited, and appears on the interface where it was met before.
    Return,
}

/// Where a delivered packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The host-side end of the endpoint's veth pair.
    pub ifindex: u32,
    /// Hardware address of the endpoint.
    pub dst: Mac,
    /// Hardware address from which it gets the frame.
    pub src: Mac,
    /// Whether the frame comes from elsewhere and must get these addresses; one between neighbours has its own.
    pub routed: bool,
    /// Whether it has to go through the queue of the pair, and not past it.
    pub queued: bool,
}
