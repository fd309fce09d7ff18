//! Who may say what about addresses on a network: ARP (RFC 826) and neighbour discovery (RFC 4861).

use vnet_common::{Addr, DropReason, Mac};

use crate::packet::Packet;
use crate::parse::{Headers, L4};
use crate::tables::Tables;
use crate::wire::{self, icmp};

/// An endpoint's ARP message: it may speak of its own addresses only.
///
/// # Errors
/// [`DropReason::NeighbourSpoof`] when it claims another's, [`DropReason::Malformed`] when it is none for IPv4
/// over Ethernet.
#[inline(always)]
pub fn check_arp<P: Packet, T: Tables>(packet: &P, tables: &T, ifindex: u32) -> Result<(), DropReason> {
    let arp: wire::Arp = bytemuck::cast(packet.load::<28>(wire::NETWORK).ok_or(DropReason::Malformed)?);
    if arp.kinds != wire::Arp::IPV4_OVER_ETHERNET {
        return Err(DropReason::Malformed);
    }
    let sender = Addr::v4(arp.sender);
    // A probe (RFC 5227 section 2.1.1) asks before it has an address, and names no sender: it claims nothing.
    if sender.is_unspecified() {
        return Ok(());
    }
    match tables.endpoint(&sender) {
        Some(endpoint) if endpoint.ifindex == ifindex && endpoint.mac == Mac::new(arp.sender_mac) => Ok(()),
        _ => Err(DropReason::NeighbourSpoof),
    }
}

/// An endpoint's ICMPv6 message: it is no router, and advertises its own addresses only.
///
/// # Errors
/// [`DropReason::RouterAdvertisement`] or [`DropReason::NeighbourSpoof`].
#[inline(always)]
pub fn check_icmpv6<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    headers: &Headers,
    ifindex: u32,
) -> Result<(), DropReason> {
    let L4::Icmp(kind) = headers.l4 else { return Ok(()) };
    if headers.v4 {
        return Ok(());
    }
    match kind {
        icmp::ROUTER_ADVERTISEMENT | icmp::REDIRECT => Err(DropReason::RouterAdvertisement),
        icmp::NEIGHBOUR_ADVERTISEMENT => {
            let offset = headers.l4_offset.wrapping_add(wire::NEIGHBOUR_TARGET);
            let target = Addr::v6(packet.load::<16>(offset).ok_or(DropReason::Malformed)?);
            match tables.endpoint(&target) {
                Some(endpoint) if endpoint.ifindex == ifindex => Ok(()),
                _ => Err(DropReason::NeighbourSpoof),
            }
        }
        _ => Ok(()),
    }
}
