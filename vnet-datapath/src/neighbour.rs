//! Who may say what about addresses on a network: ARP (RFC 826) and neighbour discovery (RFC 4861).

use vnet_common::{Addr, DropReason, EndpointValue, Mac};

use crate::packet::Packet;
use crate::parse::{Headers, L4};
use crate::tables::Tables;
use crate::wire::{self, icmp};

/// An endpoint's ARP request, and the address it asks for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'t> {
    /// Who asks.
    pub sender: &'t EndpointValue,
    /// The address it asks for.
    pub target: Addr,
}

/// An endpoint's ARP message: it may speak of its own addresses only. `None` if it is no request, or one by an
/// endpoint that has no address yet.
///
/// # Errors
/// [`DropReason::NeighbourSpoof`] when it claims another's, [`DropReason::Malformed`] when it is none for IPv4
/// over Ethernet.
#[inline(always)]
pub fn arp<'t, P: Packet, T: Tables>(
    packet: &P,
    tables: &'t T,
    ifindex: u32,
) -> Result<Option<Request<'t>>, DropReason> {
    let arp: wire::Arp = bytemuck::cast(packet.load::<28>(wire::NETWORK).ok_or(DropReason::Malformed)?);
    if arp.kinds != wire::Arp::IPV4_OVER_ETHERNET {
        return Err(DropReason::Malformed);
    }
    let sender = Addr::v4(arp.sender);
    // A probe (RFC 5227 section 2.1.1) asks before it has an address, and names no sender: it claims nothing.
    if sender.is_unspecified() {
        return Ok(None);
    }
    match tables.endpoint(&sender) {
        Some(sender) if sender.ifindex == ifindex && sender.mac == Mac::new(arp.sender_mac) => {
            let request = Request { sender, target: Addr::v4(arp.target) };
            Ok((arp.operation == wire::Arp::REQUEST).then_some(request))
        }
        _ => Err(DropReason::NeighbourSpoof),
    }
}

/// The address that a neighbour solicitation asks for, `None` if the packet is none.
#[inline(always)]
pub fn solicited<P: Packet>(packet: &P, headers: &Headers) -> Option<Addr> {
    if headers.is_v4() || headers.l4() != L4::Icmp(icmp::NEIGHBOUR_SOLICITATION) {
        return None;
    }
    packet.load::<16>(headers.l4_offset.wrapping_add(wire::NEIGHBOUR_TARGET)).map(Addr::v6)
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
    let L4::Icmp(kind) = headers.l4() else { return Ok(()) };
    if headers.is_v4() {
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
