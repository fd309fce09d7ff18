//! The three stories: a packet sent by an endpoint, one received by an uplink, one about to leave by an uplink
//! after a detour through the host's stack. Each reads: parse, look up, decide, check, rewrite, verdict.

use bytemuck::Zeroable as _;
use vnet_common::{Addr, DropReason, EndpointValue, Hook, NetworkValue, Tuple, Zone};

use crate::begin::check_client;
use crate::conntrack::{self, Tracked};
use crate::fragments;
use crate::neighbour;
use crate::packet::Packet;
use crate::parse::{Headers, L4, Parsed, parse};
use crate::published::published_on;
use crate::scratch::{Place, Scratch};
use crate::step::{self, Inline, Step};
use crate::tables::{Flow, Route, Source, Tables};
use crate::verdict::{Delivery, Verdict};
use crate::ways;

/// Takes a packet all its way.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn run<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch,
    (hook, place): (Hook, Place),
) -> Result<Verdict, DropReason> {
    scratch.place = place;
    step::run(&mut Inline { packet, tables, hook }, scratch).verdict(scratch)
}

/// The first step: parses the packet.
#[inline(always)]
pub fn read<P: Packet>(packet: &P, scratch: &mut Scratch) {
    fragments::forget(scratch);
    scratch.answering.kind = 0;
    scratch.entrance = 0;
    scratch.happened = 0;
    // Whoever is told of a malformed packet is told what was read of it, and nothing of another.
    scratch.tuple.src = Addr::ANY_V6;
    scratch.tuple.dst = Addr::ANY_V6;
    scratch.frame = match parse(packet, &mut scratch.front, &mut scratch.tuple) {
        Ok(Parsed::Ip(headers)) => {
            scratch.headers = headers;
            Scratch::FRAME_IP
        }
        Ok(Parsed::Arp) => Scratch::FRAME_ARP,
        Ok(Parsed::Other) => Scratch::FRAME_OTHER,
        Err(_) => Scratch::FRAME_MALFORMED,
    };
}

/// The second step: finds the flow that the packet belongs to.
#[must_use]
#[inline(always)]
pub fn look<P: Packet, T: Tables>(packet: &P, tables: &T, scratch: &mut Scratch, hook: Hook) -> Step {
    Step::of(match hook {
        Hook::FromEndpoint => from_endpoint(packet, tables, scratch),
        Hook::FromUplink => from_uplink(tables, scratch),
        Hook::ToUplink => to_uplink(tables, scratch),
        Hook::ToBridge => to_bridge(tables, scratch),
        Hook::ToNetwork => to_network(tables, scratch),
        Hook::FromHold => Ok(fragments::from_hold(tables, scratch)),
        // Nothing is looked up there but what `early` does.
        Hook::XdpUplink | Hook::Shape => Ok(Step::PASS),
    })
}

/// [`look`] for [`Hook::ToUplink`], which needs no more of the packet than its headers.
#[must_use]
#[inline(always)]
pub fn look_leaving<T: Tables>(tables: &T, scratch: &mut Scratch) -> Step {
    Step::of(to_uplink(tables, scratch))
}

/// [`look`] for [`Hook::ToBridge`], likewise.
#[must_use]
#[inline(always)]
pub fn look_entering<T: Tables>(tables: &T, scratch: &mut Scratch) -> Step {
    Step::of(to_bridge(tables, scratch))
}

/// [`look`] for [`Hook::ToNetwork`], likewise.
#[must_use]
#[inline(always)]
pub fn look_delivering<T: Tables>(tables: &T, scratch: &mut Scratch) -> Step {
    Step::of(to_network(tables, scratch))
}

/// A packet that an endpoint sends, on the host-side end of its veth pair: whatever an endpoint may not do, and
/// whatever cannot be understood, is dropped.
#[inline(always)]
fn from_endpoint<P: Packet, T: Tables>(packet: &P, tables: &T, scratch: &mut Scratch) -> Result<Step, Step> {
    let ifindex = scratch.place.ifindex;
    match scratch.frame {
        Scratch::FRAME_IP => {}
        Scratch::FRAME_ARP => return arp(packet, tables, scratch),
        Scratch::FRAME_OTHER => return Err(Step::drop(DropReason::EtherType)),
        _ => return Err(Step::drop(DropReason::Malformed)),
    }
    let headers = &scratch.headers;
    neighbour::check_icmpv6(packet, tables, headers, ifindex)?;
    let Some(sender) = sender(tables, headers, &scratch.tuple, ifindex)? else { return Ok(Step::PASS) };
    scratch.tuple.zone = sender.zone;
    scratch.place.arrived = sender.bridge;
    if sender.has(NetworkValue::FLAG_UNBRIDGED) {
        scratch.entrance = sender.bridge;
    }
    if headers.is_source_routed() {
        return Err(Step::drop(DropReason::SourceRoute));
    }
    let Tuple { src, dst, .. } = &scratch.tuple;
    if dst.is_loopback() {
        return Err(Step::drop(DropReason::Loopback));
    }
    // "This host" is nobody on a wire (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.2).
    if dst.is_unspecified() {
        return Err(Step::drop(DropReason::Malformed));
    }
    if is_from_dhcp_server(headers, &scratch.tuple) {
        return Err(Step::drop(DropReason::DhcpServer));
    }
    let to_all = dst.is_multicast_or_broadcast();
    let sibling = if to_all {
        neighbour::solicited(packet, headers).and_then(|target| other(tables, sender, &target))
    } else if src.same_prefix(dst, sender.prefix_len) {
        tables.endpoint(dst)
    } else {
        None
    };
    if let Some(sibling) = sibling {
        return to_sibling(sender, sibling, scratch);
    }
    // Link-local addresses are never routed; it is neighbour discovery with the host, above all.
    if to_all || src.is_v6_link_local() || dst.is_v6_link_local() {
        return Ok(Step::PASS);
    }
    if scratch.headers.is_icmp_error() {
        return Ok(related(scratch, Hook::FromEndpoint));
    }
    match tracked(tables, scratch) {
        Some(tracked) => follow(tables, scratch, &tracked, sender.bridge),
        None => Ok(Step::BEGIN),
    }
}

/// A packet that an uplink receives: only what is meant for an endpoint is dropped, all else passes untouched.
#[inline(always)]
fn from_uplink<T: Tables>(tables: &T, scratch: &mut Scratch) -> Result<Step, Step> {
    match scratch.frame {
        Scratch::FRAME_IP => {}
        // A stack that forwards looks at the network header alone.
        Scratch::FRAME_MALFORMED if is_inside(tables, &scratch.tuple.dst) => {
            return Err(Step::drop(DropReason::Malformed));
        }
        _ => return Ok(Step::PASS),
    }
    if scratch.headers.is_icmp_error() {
        return Ok(related(scratch, Hook::FromUplink));
    }
    match tracked(tables, scratch) {
        Some(tracked) => follow(tables, scratch, &tracked, 0),
        None => Ok(Step::BEGIN),
    }
}

/// Whether an address is inside a network and not the host's own.
#[inline(always)]
pub(crate) fn is_inside<T: Tables>(tables: &T, dst: &Addr) -> bool {
    tables.host_address(dst).is_none() && tables.network(dst).is_some()
}

/// A packet that leaves by an uplink and was not sent there by [`from_endpoint`]: the host's stack has routed
/// it, because it had options, say. No endpoint's address leaves the host untranslated, unless that was asked for.
#[inline(always)]
fn to_uplink<T: Tables>(tables: &T, scratch: &mut Scratch) -> Result<Step, Step> {
    let src = &scratch.tuple.src;
    match scratch.frame {
        Scratch::FRAME_IP => {}
        // The stack has checked the network header of what it forwards, so the source at least has been read.
        Scratch::FRAME_MALFORMED if tables.endpoint(src).is_some() => {
            return Err(Step::drop(DropReason::Malformed));
        }
        _ => return Ok(Step::PASS),
    }
    let headers = &scratch.headers;
    let Some(sender) = tables.endpoint(src) else {
        return match tables.network(src) {
            Some(_) => Err(Step::drop(DropReason::SourceAddress)),
            None => Ok(Step::PASS),
        };
    };
    if sender.bridge != scratch.place.arrived {
        return Err(Step::drop(DropReason::SourceAddress));
    }
    if !(headers.is_translatable() || headers.piece.is_later() || headers.is_icmp_error()) {
        return Err(Step::drop(DropReason::Untranslatable));
    }
    scratch.tuple.zone = sender.zone;
    if headers.is_icmp_error() {
        return Ok(related(scratch, Hook::ToUplink));
    }
    let Some(tracked) = tracked(tables, scratch) else { return Ok(Step::BEGIN) };
    tracked.flow.translate(&mut scratch.translated);
    if scratch.translated.zone != Zone::WORLD {
        return Err(Step::drop(DropReason::Untranslatable));
    }
    scratch.decided.keep(Verdict::Pass);
    Ok(go_on(&tracked, scratch))
}

/// A packet that the host's stack has routed into a network. What came in by an uplink has been judged there; by any
/// other interface an endpoint is reached no more directly than by an uplink, though the host be a router there.
#[inline(always)]
fn to_bridge<T: Tables>(tables: &T, scratch: &Scratch) -> Result<Step, Step> {
    let Place { ifindex, arrived, .. } = scratch.place;
    if arrived == ifindex || tables.uplink(arrived).is_some() || scratch.frame != Scratch::FRAME_IP {
        return Ok(Step::PASS);
    }
    let headers = &scratch.headers;
    let Some(endpoint) = tables.endpoint(&scratch.tuple.dst) else { return Ok(Step::PASS) };
    check_access(tables, headers, &scratch.tuple, endpoint)?;
    Ok(Step::PASS)
}

/// Whether whoever is neither the host nor in reach of an uplink may address an endpoint directly.
#[inline(always)]
fn check_access<T: Tables>(
    tables: &T,
    headers: &Headers,
    tuple: &Tuple,
    endpoint: &EndpointValue,
) -> Result<(), DropReason> {
    let Tuple { src, dst, dport, proto, .. } = tuple;
    let open = if endpoint.has(NetworkValue::FLAG_ROUTED) {
        match published_on(tables, dst, *dport, *proto) {
            Some(target) => check_client(tables, target.mapping, src).map(|()| true)?,
            None => headers.l4() == L4::Echo,
        }
    } else {
        endpoint.has(NetworkValue::FLAG_UNPROTECTED)
    };
    if open { Ok(()) } else { Err(DropReason::DirectAccess) }
}

/// A packet that the host sends into a network without a bridge, or has routed there: nobody but the endpoint of that
/// address gets it. Who may send it is as for [`to_bridge`]; what is for many is for nobody here.
#[inline(always)]
fn to_network<T: Tables>(tables: &T, scratch: &mut Scratch) -> Result<Step, Step> {
    match scratch.frame {
        Scratch::FRAME_IP => {}
        Scratch::FRAME_MALFORMED => return Err(Step::drop(DropReason::Malformed)),
        _ => return Ok(Step::PASS),
    }
    let Scratch { headers, tuple, decided, place, .. } = scratch;
    if tuple.dst.is_multicast_or_broadcast() {
        return Ok(Step::PASS);
    }
    let Some(endpoint) = tables.endpoint(&tuple.dst).filter(|endpoint| endpoint.bridge == place.ifindex)
    else {
        return Err(Step::drop(DropReason::NoSuchEndpoint));
    };
    if place.arrived != 0 && place.arrived != place.ifindex && tables.uplink(place.arrived).is_none() {
        check_access(tables, headers, tuple, endpoint)?;
    }
    let (ifindex, dst, src) = (endpoint.ifindex, endpoint.mac, endpoint.gateway_mac);
    // What leaves by an interface can only be sent out of another, through its queue.
    decided.keep(Verdict::Deliver(Delivery { ifindex, dst, src, routed: true, queued: true }));
    Ok(Step::DONE)
}

/// An ICMP error, to be looked into.
#[inline(always)]
fn related(scratch: &mut Scratch, hook: Hook) -> Step {
    scratch.quoted.hook = hook as u8;
    Step::RELATED
}

/// The packet's flow, if it is tracked.
#[inline(always)]
fn tracked<'t, T: Tables>(tables: &'t T, scratch: &mut Scratch) -> Option<Tracked<T::Flow<'t>>> {
    let has_tuple = fragments::meet(tables, scratch);
    let Scratch { tuple, spare, .. } = scratch;
    if has_tuple { conntrack::lookup(tables, tuple, spare) } else { None }
}

/// A packet of a tracked flow, from a bridge or (0) an uplink.
#[inline(always)]
fn follow<T: Tables>(
    tables: &T,
    scratch: &mut Scratch,
    tracked: &Tracked<T::Flow<'_>>,
    bridge: u32,
) -> Result<Step, Step> {
    let Scratch { tuple, translated, headers, decided, .. } = &mut *scratch;
    if headers.is_source_routed() {
        return Err(Step::drop(DropReason::SourceRoute));
    }
    tracked.flow.translate(translated);
    if translated.zone == Zone::WORLD {
        let query = ways::query(headers, tuple, bridge, Source::Given);
        match ways::route(tables, headers, query) {
            Some(Route::Via(next_hop, _)) => decided.keep(Verdict::Forward(next_hop)),
            _ => return Ok(Step::PASS),
        }
    } else {
        let verdict = ways::deliver(tables, headers, &translated.dst)?;
        let stage = (tracked.flow.origin(), tracked.flow.state());
        decided.keep(ways::respect(tables, tuple, stage, verdict));
    }
    Ok(go_on(tracked, scratch))
}

/// What is left to do for a packet of a tracked flow.
#[inline(always)]
fn go_on<F: Flow>(tracked: &Tracked<F>, scratch: &mut Scratch) -> Step {
    if conntrack::seen(tracked, scratch) { Step::ADVANCE } else { Step::TRANSLATE }
}

/// Whether only a DHCP server sends it (RFC 2131 section 4.1, RFC 8415 section 7.2): a neighbour that listened to it
/// would take its gateway and name server from an endpoint.
#[inline(always)]
fn is_from_dhcp_server(headers: &Headers, tuple: &Tuple) -> bool {
    let (server, client) = if headers.is_v4() { (67, 68) } else { (547, 546) };
    headers.l4() == L4::Udp && tuple.sport.number() == server && tuple.dport.number() == client
}

/// Whose packet it is: `None` for one without a source yet, which may only speak to its neighbours.
#[inline(always)]
fn sender<'t, T: Tables>(
    tables: &'t T,
    headers: &Headers,
    tuple: &Tuple,
    ifindex: u32,
) -> Result<Option<&'t EndpointValue>, DropReason> {
    let Tuple { src, dst, .. } = tuple;
    match tables.endpoint(src) {
        Some(endpoint) if endpoint.ifindex != ifindex => Err(DropReason::SourceAddress),
        Some(endpoint) if endpoint.mac != headers.src_mac => Err(DropReason::SourceMac),
        Some(endpoint) => Ok(Some(endpoint)),
        // Duplicate address detection and multicast reports before an address is in use (RFC 4862, RFC 3590).
        None if *src == Addr::ANY_V6 && dst.is_multicast_or_broadcast() => Ok(None),
        None => Err(DropReason::SourceAddress),
    }
}

/// An ARP message of an endpoint.
#[inline(always)]
fn arp<P: Packet, T: Tables>(packet: &P, tables: &T, scratch: &mut Scratch) -> Result<Step, Step> {
    let Some(request) = neighbour::arp(packet, tables, scratch.place.ifindex)? else { return Ok(Step::PASS) };
    // Without a bridge endpoints have no neighbours but their gateway, which they need not ask for.
    if request.sender.has(NetworkValue::FLAG_UNBRIDGED) {
        scratch.entrance = request.sender.bridge;
        return Ok(Step::PASS);
    }
    // Nothing of an earlier packet.
    scratch.headers = Headers::zeroed();
    match other(tables, request.sender, &request.target) {
        Some(sibling) => to_sibling(request.sender, sibling, scratch),
        None => Ok(Step::PASS),
    }
}

/// The sibling whose hardware address is asked for. The request goes to it and nobody else: flooded by the bridge
/// it would be subject to the host's firewall, which knows nothing of neighbour discovery between bridge ports.
/// An announcement of the sender's own address is for all to hear.
#[inline(always)]
fn other<'t, T: Tables>(tables: &'t T, sender: &EndpointValue, target: &Addr) -> Option<&'t EndpointValue> {
    tables.endpoint(target).filter(|sibling| sibling.ifindex != sender.ifindex)
}

/// To an endpoint of the same network: switched, not routed, so nothing in it changes but, without a bridge, the link
/// addresses: its sender has addressed it to the gateway.
#[inline(always)]
fn to_sibling(sender: &EndpointValue, sibling: &EndpointValue, scratch: &mut Scratch) -> Result<Step, Step> {
    if sender.zone != sibling.zone {
        return Err(Step::drop(DropReason::OtherNetwork));
    }
    if sender.has(NetworkValue::FLAG_ISOLATED) && sender.ifindex != sibling.ifindex {
        return Err(Step::drop(DropReason::Isolated));
    }
    // The bridge drops what does not fit, and counts it.
    if scratch.headers.wire_length > sibling.mtu {
        return Ok(Step::PASS);
    }
    let routed = sender.has(NetworkValue::FLAG_UNBRIDGED);
    let (ifindex, dst, src) =
        (sibling.ifindex, sibling.mac, if routed { sender.gateway_mac } else { sender.mac });
    let queued = sibling.has(EndpointValue::FLAG_QUEUED);
    scratch.decided.keep(Verdict::Deliver(Delivery { ifindex, dst, src, routed, queued }));
    Ok(Step::DONE)
}
