//! Why a packet was dropped: the only list of reasons anywhere.

use bytemuck::{Pod, Zeroable};

/// Declares [`DropReason`] from one table, so that numbers, names and explanations cannot drift apart.
macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $name:literal;)+) => {
        /// Why vnet dropped a packet. The numbers are part of the ABI: add, never reuse.
        ///
        /// As wide as the code of a step in the data path: a result that is one or the other has no byte then that
        /// only one of them defines, which the kernel's verifier refuses to see copied.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i32)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant = $number,)+
        }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The reason that a byte of a map or an event stands for.
            #[must_use]
            pub const fn from_u8(byte: u8) -> Option<Self> {
                match byte {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The name that commands and metrics print.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// One sentence for people.
            #[must_use]
            pub const fn explanation(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+),)+
                }
            }
        }
    };
}

drop_reasons! {
    /// A header is cut short or contradicts itself.
    Malformed = 1, "malformed";
    /// An endpoint sent something other than IPv4, IPv6 or ARP, or a VLAN tag.
    EtherType = 2, "ether-type";
    /// The source address is not the sending endpoint's.
    SourceAddress = 3, "source-address";
    /// The source hardware address is not the sending endpoint's.
    SourceMac = 4, "source-mac";
    /// An ARP or neighbour message claims an address that is not the sending endpoint's.
    NeighbourSpoof = 5, "neighbour-spoof";
    /// An endpoint sent a router advertisement.
    RouterAdvertisement = 6, "router-advertisement";
    /// Somebody outside addressed an endpoint directly, not through a published port.
    DirectAccess = 7, "direct-access";
    /// The destination is an endpoint of another network.
    OtherNetwork = 8, "other-network";
    /// The network is isolated: its endpoints do not reach each other.
    Isolated = 9, "isolated";
    /// The network is internal: its endpoints do not reach the world.
    Internal = 10, "internal";
    /// No masquerade rule covers the source, so nobody could answer.
    NoMasquerade = 11, "no-masquerade";
    /// The route leads out of an interface that is not an uplink of this instance.
    NotAnUplink = 12, "not-an-uplink";
    /// The uplink has no address of the packet's family to masquerade with.
    NoSourceAddress = 13, "no-source-address";
    /// No free source port was found within the bound of tries.
    NoFreePort = 14, "no-free-port";
    /// The flow table refused a new flow.
    FlowTableFull = 15, "flow-table-full";
    /// The published port's target is not an endpoint any more.
    NoSuchEndpoint = 16, "no-such-endpoint";
    /// The hop limit ran out on the way to an endpoint.
    HopLimit = 17, "hop-limit";
    /// The packet does not fit the endpoint's MTU.
    TooBig = 18, "too-big";
    /// A protocol without ports would have left an uplink without translation.
    Untranslatable = 19, "untranslatable";
    /// A rewrite of the packet failed in the kernel.
    Rewrite = 20, "rewrite";
    /// A loopback address as source or destination of a packet on the wire.
    Loopback = 21, "loopback";
    /// The endpoint has as many flows as it may have.
    Quota = 22, "quota";
    /// The mapping is not for this client: no `--allow-from` prefix covers it.
    NotAllowed = 23, "not-allowed";
    /// A later fragment of a datagram whose first fragment was not seen in time.
    Fragment = 24, "fragment";
    /// An ICMP error about a packet of no tracked flow.
    Unrelated = 25, "unrelated";
    /// The packet has a source route: an IPv4 option, or an IPv6 routing header of type 0.
    SourceRoute = 26, "source-route";
    /// An endpoint's external port is not open to this sender.
    Filtered = 27, "filtered";
    /// An endpoint sent what only a DHCP server sends.
    DhcpServer = 28, "dhcp-server";
    /// The source is on the deny list.
    Denied = 29, "denied";
    /// More new flows to published ports than `--flood-rate` or `--flood-total` allows.
    Flood = 30, "flood";
}

/// Key of the drop counters: where and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct DropKey {
    /// Interface on which the packet arrived.
    pub ifindex: u32,
    /// A [`DropReason`].
    pub reason: u8,
    /// A [`crate::Hook`].
    pub hook: u8,
    /// Zero.
    pub reserved: [u8; 2],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_round_trip() {
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(DropReason::from_u8(*reason as u8), Some(*reason));
            assert!(DropReason::ALL[..i].iter().all(|other| other.name() != reason.name()));
        }
        assert_eq!(DropReason::from_u8(0), None);
    }
}
