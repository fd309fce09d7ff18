//! Why a packet was dropped: the only list of reasons anywhere.

use bytemuck::{Pod, Zeroable};

/// Declares [`DropReason`] from one table, so that numbers, names, explanations and remedies cannot drift apart.
macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $name:literal, $remedy:literal;)+) => {
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

            /// What to do about it, for whoever wants such packets to go through: a sentence.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self {
                    $(Self::$variant => $remedy,)+
                }
            }
        }
    };
}

drop_reasons! {
    /// A header is cut short or contradicts itself.
    Malformed = 1, "malformed",
        "See what the sender makes of it, with tcpdump.";
    /// An endpoint sent something other than IPv4, IPv6 or ARP, or a VLAN tag.
    EtherType = 2, "ether-type",
        "Send IPv4, IPv6 or ARP; tag VLANs on the uplink instead.";
    /// The source address is not the sending endpoint's.
    SourceAddress = 3, "source-address",
        "Use the address that `vnet ns inspect` shows, or give the endpoint another with `vnet ns create --ip`.";
    /// The source hardware address is not the sending endpoint's.
    SourceMac = 4, "source-mac",
        "Use the hardware address that `vnet ns inspect` shows, or choose it with `vnet ns create --mac`.";
    /// An ARP or neighbour message claims an address that is not the sending endpoint's.
    NeighbourSpoof = 5, "neighbour-spoof",
        "Let the endpoint announce no addresses but its own.";
    /// An endpoint sent a router advertisement.
    RouterAdvertisement = 6, "router-advertisement",
        "Stop the router daemon in the endpoint: its network's router is the host.";
    /// Somebody outside addressed an endpoint directly, not through a published port.
    DirectAccess = 7, "direct-access",
        "Publish the port with `vnet portmap add`, or open the network with `--gateway-mode routed` or `nat-unprotected`.";
    /// The destination is an endpoint of another network.
    OtherNetwork = 8, "other-network",
        "Put both on one network, or publish the port with `vnet portmap add` and dial the host.";
    /// The network is isolated: its endpoints do not reach each other.
    Isolated = 9, "isolated",
        "Publish the port and dial the host, or make a network without `--isolated`.";
    /// The network is internal: its endpoints do not reach the world.
    Internal = 10, "internal",
        "Use a network that was made without `--internal`.";
    /// No masquerade rule covers the source, so nobody could answer.
    NoMasquerade = 11, "no-masquerade",
        "Add a rule with `vnet masquerade add`, or choose `--gateway-mode routed`.";
    /// The route leads out of an interface that is not an uplink of this instance.
    NotAnUplink = 12, "not-an-uplink",
        "Name the interface among the uplinks: `vnet up --uplink`.";
    /// The uplink has no address of the packet's family to masquerade with.
    NoSourceAddress = 13, "no-source-address",
        "Give the uplink an address of that family.";
    /// No free source port was found within the bound of tries.
    NoFreePort = 14, "no-free-port",
        "See `vnet flow stats`; widen the range with `vnet up --nat-ports`, or shorten a `--timeout`.";
    /// The flow table refused a new flow.
    FlowTableFull = 15, "flow-table-full",
        "See `vnet flow stats`; make room with `vnet up --max-flows` and `--max-unanswered`.";
    /// No endpoint has the address: the target of a published port any more, or in a network without a bridge the
    /// destination itself.
    NoSuchEndpoint = 16, "no-such-endpoint",
        "Ask `vnet network leases` who has which address; a port is moved by `vnet portmap move`, and taken back by `vnet portmap rm`.";
    /// The hop limit ran out on the way to an endpoint.
    HopLimit = 17, "hop-limit",
        "Look for a routing loop, or let the sender use a higher hop limit (traceroute needs this drop).";
    /// The packet does not fit the endpoint's MTU.
    TooBig = 18, "too-big",
        "Nothing, if path MTU discovery works: the sender is told what fits. Otherwise lower its MTU.";
    /// A protocol without ports would have left an uplink without translation.
    Untranslatable = 19, "untranslatable",
        "Use TCP, UDP, SCTP or ICMP echo, or `--gateway-mode routed`.";
    /// A rewrite of the packet failed in the kernel.
    Rewrite = 20, "rewrite",
        "Report it, with the packet: that should not happen.";
    /// A loopback address as source or destination of a packet on the wire.
    Loopback = 21, "loopback",
        "Use another address: loopback addresses stay within one host.";
    /// The endpoint has as many flows as it may have.
    Quota = 22, "quota",
        "See `vnet flow stats`; raise `vnet up --endpoint-flows` and `--endpoint-unanswered`, or 0 for no limit.";
    /// The mapping is not for this client: no `--allow-from` prefix covers it.
    NotAllowed = 23, "not-allowed",
        "Take the mapping back with `vnet portmap rm`, and publish it again with the client's prefix as one more `--allow-from`.";
    /// A later fragment of a datagram whose first fragment was not seen in time.
    Fragment = 24, "fragment",
        "Send smaller datagrams; a missing first fragment is lost elsewhere.";
    /// An ICMP error about a packet of no tracked flow.
    Unrelated = 25, "unrelated",
        "Nothing: an honest error is about a flow that is tracked, or has just ended.";
    /// The packet has a source route: an IPv4 option, or an IPv6 routing header of type 0.
    SourceRoute = 26, "source-route",
        "Send it without a source route.";
    /// An endpoint's external port is not open to this sender.
    Filtered = 27, "filtered",
        "Publish the port, let the endpoint send there first, or choose `vnet network set --filtering`.";
    /// An endpoint sent what only a DHCP server sends.
    DhcpServer = 28, "dhcp-server",
        "Run the DHCP server on the host.";
    /// The source is on the deny list.
    Denied = 29, "denied",
        "Take the prefix off with `vnet deny rm`.";
    /// More new flows to published ports than `--flood-rate` or `--flood-total` allows.
    Flood = 30, "flood",
        "Raise `vnet up --flood-rate` or `--flood-total`, or 0 for no limit.";
    /// Another version of vnet was taking the maps over, and no flow begins in that moment.
    Takeover = 31, "takeover",
        "Nothing: senders try again. If it goes on, a takeover was interrupted: `vnet up` completes it.";
    /// More waits already of what the sender's cgroup may send than may wait.
    OverLimit = 32, "over-limit",
        "Nothing, if senders slow down when packets are lost, as TCP does; otherwise raise the limit with `vnet limit set --cgroup`.";
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
            for sentence in [reason.explanation().trim(), reason.remedy()] {
                assert!(
                    sentence.ends_with('.') && sentence.starts_with(|c: char| c.is_uppercase()),
                    "{sentence}"
                );
            }
        }
        assert_eq!(DropReason::from_u8(0), None);
    }
}
