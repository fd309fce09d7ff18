//! Headers as they stand in a packet.
//!
//! Each view is a plain struct of byte arrays, made from loaded bytes by a cast that cannot fail: no judgement,
//! no pointer into the packet. Offsets for writing come from `network-types`.

use core::mem::offset_of;

use bytemuck::{Pod, Zeroable, must_cast_mut, must_cast_ref};
use network_types::eth::EthHdr;
use network_types::icmp::Icmpv4Hdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;
use vnet_common::Mac;

/// EtherType.
pub const ETHERTYPE: u32 = offset_of!(EthHdr, ether_type) as u32;
/// Where the network header begins.
pub const NETWORK: u32 = EthHdr::LEN as u32;
/// IPv4 hop limit and protocol, which share a word of the checksum.
pub const IPV4_TTL: u32 = NETWORK + offset_of!(Ipv4Hdr, ttl) as u32;
/// IPv4 identification.
pub const IPV4_ID: u32 = NETWORK + offset_of!(Ipv4Hdr, id) as u32;
/// IPv4 header checksum.
pub const IPV4_CHECKSUM: u32 = NETWORK + offset_of!(Ipv4Hdr, check) as u32;
/// IPv4 source, with the destination behind it.
pub const IPV4_ADDRESSES: u32 = NETWORK + offset_of!(Ipv4Hdr, src_addr) as u32;
/// First byte behind a plain IPv4 header.
pub const IPV4_PAYLOAD: u32 = NETWORK + Ipv4Hdr::LEN as u32;
/// IPv6 hop limit.
pub const IPV6_HOP_LIMIT: u32 = NETWORK + offset_of!(Ipv6Hdr, hop_limit) as u32;
/// IPv6 source, with the destination behind it.
pub const IPV6_ADDRESSES: u32 = NETWORK + offset_of!(Ipv6Hdr, src_addr) as u32;
/// First byte behind a plain IPv6 header.
pub const IPV6_PAYLOAD: u32 = NETWORK + Ipv6Hdr::LEN as u32;
/// TCP checksum, from the TCP header on.
pub const TCP_CHECKSUM: u32 = offset_of!(TcpHdr, check) as u32;
/// UDP checksum, from the UDP header on.
pub const UDP_CHECKSUM: u32 = offset_of!(UdpHdr, check) as u32;
/// ICMP checksum of both families, from the ICMP header on.
pub const ICMP_CHECKSUM: u32 = offset_of!(Icmpv4Hdr, check) as u32;
/// ICMP query identifier of both families, from the ICMP header on.
pub const ICMP_IDENTIFIER: u32 = offset_of!(Icmpv4Hdr, data) as u32;
/// Where the target address of a neighbour message begins (RFC 4861 sections 4.3 and 4.4), from the ICMPv6
/// header on.
pub const NEIGHBOUR_TARGET: u32 = 8;

/// EtherTypes (IEEE 802) as they stand in a frame.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: [u8; 2] = [0x08, 0x00];
    /// IPv6.
    pub const IPV6: [u8; 2] = [0x86, 0xdd];
    /// ARP.
    pub const ARP: [u8; 2] = [0x08, 0x06];
}

/// ICMP message types that matter here.
pub mod icmp {
    /// ICMP echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// ICMP destination unreachable, "fragmentation needed" among its codes.
    pub const UNREACHABLE: u8 = 3;
    /// ICMP echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// ICMP time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// ICMP parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// Code of "unreachable", of either family: no route.
    pub const NO_ROUTE: u8 = 0;
    /// Code of ICMP "unreachable": it does not fit and must not be fragmented.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Code of ICMP "unreachable": communication administratively prohibited (RFC 1812 section 5.2.7.1).
    pub const PROHIBITED: u8 = 13;
    /// Code of ICMPv6 "unreachable": as much.
    pub const V6_PROHIBITED: u8 = 1;
    /// ICMPv6 destination unreachable.
    pub const V6_UNREACHABLE: u8 = 1;
    /// ICMPv6 packet too big.
    pub const V6_TOO_BIG: u8 = 2;
    /// ICMPv6 time exceeded.
    pub const V6_TIME_EXCEEDED: u8 = 3;
    /// ICMPv6 parameter problem.
    pub const V6_PARAMETER_PROBLEM: u8 = 4;
    /// ICMPv6 echo request.
    pub const V6_ECHO_REQUEST: u8 = 128;
    /// ICMPv6 echo reply.
    pub const V6_ECHO_REPLY: u8 = 129;
    /// Router advertisement (RFC 4861).
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation (RFC 4861).
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement (RFC 4861).
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Redirect (RFC 4861).
    pub const REDIRECT: u8 = 137;

    /// Whether it is an ICMP echo, request or reply.
    #[must_use]
    #[inline(always)]
    pub const fn is_echo(kind: u8) -> bool {
        matches!(kind, ECHO_REQUEST | ECHO_REPLY)
    }

    /// Whether it is an ICMPv6 echo, request or reply.
    #[must_use]
    #[inline(always)]
    pub const fn is_v6_echo(kind: u8) -> bool {
        matches!(kind, V6_ECHO_REQUEST | V6_ECHO_REPLY)
    }
}

/// IPv6 extension headers that are walked over (RFC 8200 section 4).
pub mod extension {
    /// Hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing.
    pub const ROUTING: u8 = 43;
    /// Fragment.
    pub const FRAGMENT: u8 = 44;
    /// Destination options.
    pub const DESTINATION: u8 = 60;

    /// Whether it is one of these.
    #[must_use]
    #[inline(always)]
    pub const fn is_known(number: u8) -> bool {
        matches!(number, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
    }
}

/// IPv4 options that matter here (RFC 791 section 3.1).
pub mod option {
    /// No more options.
    pub const END: u8 = 0;
    /// Nothing, one byte long; every other option has its length behind its number.
    pub const NOTHING: u8 = 1;
    /// Loose source route.
    pub const LOOSE_SOURCE_ROUTE: u8 = 131;
    /// Strict source route.
    pub const STRICT_SOURCE_ROUTE: u8 = 137;
    /// The length of a packet that is too long for the field (IPv6; RFC 2675 section 2).
    pub const JUMBO: u8 = 0xc2;
}

/// TCP flags (RFC 9293 section 3.1).
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Acknowledgment field significant.
    pub const ACK: u8 = 0x10;
}

/// What a frame begins with: its headers, if they have no options and no extensions, read in one go because each read
/// costs a call in the kernel. Words of the network header are aligned.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct Front {
    /// Zero.
    pub reserved: [u8; 2],
    /// Bytes of the frame, as many as have been read.
    pub bytes: [u8; Front::V6],
}

impl Front {
    /// Bytes of a frame up to the end of an IPv4 header.
    pub const SHORTEST: usize = 34;
    /// Up to the end of a TCP header behind that.
    pub const V4: usize = 54;
    /// The same of IPv6.
    pub const V6: usize = 74;

    /// The Ethernet header.
    #[must_use]
    #[inline(always)]
    pub const fn ethernet(&self) -> &Ethernet {
        &self.v4().ethernet
    }

    /// The headers of a frame that has IPv4.
    #[must_use]
    #[inline(always)]
    pub const fn v4(&self) -> &FrontV4 {
        must_cast_ref(self)
    }

    /// The headers of a frame that has IPv6.
    #[must_use]
    #[inline(always)]
    pub const fn v6(&self) -> &FrontV6 {
        must_cast_ref(self)
    }

    /// The same, to be written.
    #[must_use]
    #[inline(always)]
    pub fn v6_mut(&mut self) -> &mut FrontV6 {
        must_cast_mut(self)
    }
}

/// A [`Front`] that has IPv4.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct FrontV4 {
    /// Zero.
    pub reserved: [u8; 2],
    /// The Ethernet header.
    pub ethernet: Ethernet,
    /// The network header.
    pub network: Ipv4,
    /// What follows it.
    pub transport: [u8; 20],
    /// More of that.
    pub rest: [u8; 20],
}

/// A [`Front`] that has IPv6.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct FrontV6 {
    /// Zero.
    pub reserved: [u8; 2],
    /// The Ethernet header.
    pub ethernet: Ethernet,
    /// The network header.
    pub network: Ipv6,
    /// What follows it.
    pub transport: [u8; 20],
}

/// An Ethernet header.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Ethernet {
    /// Destination hardware address.
    pub dst: Mac,
    /// Source hardware address.
    pub src: Mac,
    /// EtherType.
    pub ethertype: [u8; 2],
}

/// An IPv4 header without options (RFC 791 section 3.1).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Ipv4 {
    /// Version and length in 32-bit words.
    pub version_ihl: u8,
    /// Type of service.
    pub tos: u8,
    /// Length of the packet.
    pub total_length: [u8; 2],
    /// Identification.
    pub id: [u8; 2],
    /// Flags and fragment offset.
    pub fragment: [u8; 2],
    /// Time to live.
    pub ttl: u8,
    /// Protocol.
    pub proto: u8,
    /// Header checksum.
    pub checksum: [u8; 2],
    /// Source.
    pub src: [u8; 4],
    /// Destination.
    pub dst: [u8; 4],
}

/// An IPv6 header (RFC 8200 section 3).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Ipv6 {
    /// Version, traffic class and flow label.
    pub version_class_flow: [u8; 4],
    /// Length of what follows the header.
    pub payload_length: [u8; 2],
    /// What follows the header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source.
    pub src: [u8; 16],
    /// Destination.
    pub dst: [u8; 16],
}

/// A TCP header up to its flags.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Tcp {
    /// Source port.
    pub sport: [u8; 2],
    /// Destination port.
    pub dport: [u8; 2],
    /// Sequence number.
    pub sequence: [u8; 4],
    /// Acknowledgment number.
    pub acknowledgment: [u8; 4],
    /// Data offset in 32-bit words, upper four bits.
    pub data_offset: u8,
    /// Flags.
    pub flags: u8,
}

/// A UDP header (RFC 768).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Udp {
    /// Source port.
    pub sport: [u8; 2],
    /// Destination port.
    pub dport: [u8; 2],
    /// Length of header and payload.
    pub length: [u8; 2],
    /// Checksum.
    pub checksum: [u8; 2],
}

/// An ICMP echo header of either family (RFC 792, RFC 4443 section 4).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Echo {
    /// Message type.
    pub kind: u8,
    /// Message code.
    pub code: u8,
    /// Checksum.
    pub checksum: [u8; 2],
    /// Identifier.
    pub identifier: [u8; 2],
    /// Sequence number.
    pub sequence: [u8; 2],
}

/// An ARP message for IPv4 over Ethernet behind its Ethernet header (RFC 826).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Arp {
    /// Hardware and protocol types and lengths, as [`Self::IPV4_OVER_ETHERNET`] has them.
    pub kinds: [u8; 6],
    /// Request or reply.
    pub operation: [u8; 2],
    /// Sender's hardware address.
    pub sender_mac: [u8; 6],
    /// Sender's address.
    pub sender: [u8; 4],
    /// Target's hardware address.
    pub target_mac: [u8; 6],
    /// Target's address.
    pub target: [u8; 4],
}

impl Arp {
    /// Ethernet (1), IPv4 (0x0800), six and four bytes.
    pub const IPV4_OVER_ETHERNET: [u8; 6] = [0, 1, 8, 0, 6, 4];
    /// Operation of a request.
    pub const REQUEST: [u8; 2] = [0, 1];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_those_of_the_rfcs() {
        assert_eq!(
            (ETHERTYPE, NETWORK, IPV4_ID, IPV4_TTL, IPV4_CHECKSUM, IPV4_ADDRESSES),
            (12, 14, 18, 22, 24, 26)
        );
        assert_eq!((IPV6_HOP_LIMIT, IPV6_ADDRESSES, IPV6_PAYLOAD), (21, 22, 54));
        assert_eq!((TCP_CHECKSUM, UDP_CHECKSUM, ICMP_CHECKSUM, ICMP_IDENTIFIER), (16, 6, 2, 4));
        assert_eq!(
            (size_of::<Front>(), size_of::<Ipv4>(), size_of::<Ipv6>(), size_of::<Tcp>(), size_of::<Arp>()),
            (76, 20, 40, 14, 28)
        );
    }
}
