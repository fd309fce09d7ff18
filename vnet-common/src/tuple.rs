//! What identifies one direction of a flow.

use core::fmt;

use bytemuck::{Pod, Zeroable};

use crate::{Addr, Port, Proto};

/// Where a packet comes from: the world, or the network with this number. Part of every tuple, so that a
/// packet from the uplink can never match the flow of an endpoint by forging its addresses, and so that two
/// networks stay apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Zone {
    /// 0 is the world; networks count from 1.
    pub id: u16,
}

impl Zone {
    /// Everything beyond an uplink.
    pub const WORLD: Self = Self { id: 0 };
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::WORLD => f.write_str("world"),
            Self { id } => write!(f, "network {id}"),
        }
    }
}

/// One direction of a flow, always as it stands on the wire where vnet meets it: the source is the sender.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Tuple {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port; the identifier of an ICMP query.
    pub sport: Port,
    /// Destination port; the identifier of an ICMP query.
    pub dport: Port,
    /// Which side of vnet the packet with this tuple arrives from.
    pub zone: Zone,
    /// Transport protocol. ICMP echo is [`Proto::ICMP`] or [`Proto::ICMPV6`], requests and replies alike.
    pub proto: Proto,
    /// Zero: keys are compared byte by byte.
    pub reserved: u8,
}

impl Tuple {
    /// The tuple of the answer to a packet that leaves with this one: reversed, coming from the side that the
    /// packet left to. Its own inverse.
    #[must_use]
    #[inline(always)]
    pub const fn answer(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            zone: self.zone,
            proto: self.proto,
            reserved: 0,
        }
    }
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { src, dst, sport, dport, zone, proto, reserved: _ } = self;
        write!(f, "{proto} {src}.{sport} > {dst}.{dport} from {zone:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reversing_twice_is_the_identity() {
        let tuple = Tuple {
            src: Addr::v4([192, 168, 0, 2]),
            dst: Addr::v4([203, 0, 113, 2]),
            sport: Port::new(1234),
            dport: Port::new(80),
            zone: Zone { id: 1 },
            proto: Proto::TCP,
            reserved: 0,
        };
        assert_eq!(tuple.answer().answer(), tuple);
        assert_eq!(tuple.answer().dst, tuple.src);
    }
}
