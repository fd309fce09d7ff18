//! The three stories: a packet sent by an endpoint, one received by an uplink, one about to leave by an uplink
//! after a detour through the host's stack. Each reads: parse, look up, decide, check, rewrite, verdict.

use vnet_common::{Addr, DropReason, EndpointValue, NetworkValue, Tuple, UplinkValue, Zone};

use crate::conntrack::{self, Tracked};
use crate::nat::{Hop, Rewrite};
use crate::neighbour;
use crate::open::{Opening, SourcePorts, open};
use crate::packet::Packet;
use crate::parse::{Headers, L4, Parsed, parse};
use crate::published::{Target, published};
use crate::scratch::Scratch;
use crate::tables::{Flow, Route, RouteQuery, Source, Tables};
use crate::verdict::{Delivery, Verdict};
use crate::wire::tcp;

/// A packet that an endpoint sends, on the host-side end of its veth pair.
///
/// # Errors
/// The reason to drop it. Whatever an endpoint may not do, and whatever cannot be understood, ends here.
#[inline(always)]
pub fn from_endpoint<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch,
    ifindex: u32,
) -> Result<Verdict, DropReason> {
    let headers = match parse(packet, &mut scratch.tuple)? {
        Parsed::Ip(headers) => headers,
        Parsed::Arp => return arp(packet, tables, ifindex),
        Parsed::Other => return Err(DropReason::EtherType),
    };
    neighbour::check_icmpv6(packet, tables, &headers, ifindex)?;
    let Some(sender) = sender(tables, &headers, &scratch.tuple, ifindex)? else { return Ok(Verdict::Pass) };
    scratch.tuple.zone = sender.zone;
    let Tuple { src, dst, .. } = &scratch.tuple;
    if dst.is_loopback() {
        return Err(DropReason::Loopback);
    }
    // "This host" is nobody on a wire (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.2).
    if dst.is_unspecified() {
        return Err(DropReason::Malformed);
    }
    let to_all = dst.is_multicast_or_broadcast();
    let neighbour = src.same_prefix(dst, sender.prefix_len);
    let sibling = if to_all {
        neighbour::solicited(packet, &headers).and_then(|target| other(tables, sender, &target))
    } else if neighbour {
        tables.endpoint(dst)
    } else {
        None
    };
    if let Some(sibling) = sibling {
        return to_sibling(sender, sibling, headers.wire_length);
    }
    // Link-local addresses are never routed; it is neighbour discovery with the host, above all.
    if to_all || src.is_v6_link_local() || dst.is_v6_link_local() {
        return Ok(Verdict::Pass);
    }
    let mut job = Job { packet, tables, scratch, headers: &headers };
    let decision = if let Some(tracked) = job.tracked() {
        job.follow(&tracked, sender.bridge)?
    } else if tables.host_address(&job.scratch.tuple.dst).is_some() {
        job.host_bound()?
    } else if neighbour {
        // The network's own addresses that are nobody's, broadcast among them: the bridge knows best.
        Decision::Pass
    } else if tables.network(&job.scratch.tuple.dst).is_some() {
        return Err(DropReason::OtherNetwork);
    } else {
        job.world_bound(sender)?
    };
    job.carry_out(decision, Hop::Decrement)
}

/// A packet that an uplink receives.
///
/// # Errors
/// The reason to drop it: only for what is meant for an endpoint. All else passes untouched.
#[inline(always)]
pub fn from_uplink<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch,
) -> Result<Verdict, DropReason> {
    let Ok(Parsed::Ip(headers)) = parse(packet, &mut scratch.tuple) else { return Ok(Verdict::Pass) };
    let mut job = Job { packet, tables, scratch, headers: &headers };
    let decision = if let Some(tracked) = job.tracked() {
        job.follow(&tracked, 0)?
    } else if job.scratch.tuple.dst.is_loopback() {
        // A port published on a loopback address answers clients of the host alone (moby #45610).
        return Err(DropReason::Loopback);
    } else if tables.host_address(&job.scratch.tuple.dst).is_some() {
        job.published_to()?
    } else if tables.network(&job.scratch.tuple.dst).is_some() {
        return Err(DropReason::DirectAccess);
    } else {
        Decision::Pass
    };
    job.carry_out(decision, Hop::Decrement)
}

/// Where a packet that leaves by an uplink comes from and goes.
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    /// The uplink.
    pub uplink: u32,
    /// The interface it arrived on, as the stack saw it: the bridge, for a packet of an endpoint.
    pub bridge: u32,
}

/// A packet that leaves by an uplink and was not sent there by [`from_endpoint`]: the host's stack has routed
/// it, because it had options, say. No endpoint's address leaves the host.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn to_uplink<P: Packet, T: Tables>(
    packet: &mut P,
    tables: &T,
    scratch: &mut Scratch,
    departure: Departure,
) -> Result<Verdict, DropReason> {
    scratch.tuple.src = Addr::ANY_V6;
    let parsed = parse(packet, &mut scratch.tuple);
    let src = &scratch.tuple.src;
    let headers = match parsed {
        Ok(Parsed::Ip(headers)) => headers,
        Ok(_) => return Ok(Verdict::Pass),
        // The stack has checked the network header of what it forwards, so the source at least has been read.
        Err(reason) if tables.endpoint(src).is_some() => return Err(reason),
        Err(_) => return Ok(Verdict::Pass),
    };
    let Some(sender) = tables.endpoint(src) else {
        return match tables.network(src) {
            Some(_) => Err(DropReason::SourceAddress),
            None => Ok(Verdict::Pass),
        };
    };
    if sender.bridge != departure.bridge {
        return Err(DropReason::SourceAddress);
    }
    if !headers.is_translatable() {
        return Err(DropReason::Untranslatable);
    }
    scratch.tuple.zone = sender.zone;
    let mut job = Job { packet, tables, scratch, headers: &headers };
    let opening = if let Some(tracked) = job.tracked() {
        job.scratch.translated = tracked.flow.translated();
        if job.scratch.translated.zone != Zone::WORLD {
            return Err(DropReason::Untranslatable);
        }
        conntrack::seen(tables, &headers, &tracked, job.scratch);
        None
    } else {
        let uplink = tables.uplink(departure.uplink).ok_or(DropReason::NotAnUplink)?;
        Some(job.masquerade(sender, own_address(uplink, &headers))?)
    };
    job.carry_out(Decision::Translate { opening, verdict: Verdict::Pass }, Hop::Keep)
}

/// What is to be done with a packet that is not dropped, before anything is done.
#[derive(Clone, Copy)]
enum Decision {
    /// Nothing.
    Pass,
    /// It gets the tuple `scratch.translated`.
    Translate {
        /// The flow to begin with it, unless it belongs to one.
        opening: Option<Opening>,
        /// What becomes of it then.
        verdict: Verdict,
    },
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
fn arp<P: Packet, T: Tables>(packet: &P, tables: &T, ifindex: u32) -> Result<Verdict, DropReason> {
    let Some(request) = neighbour::arp(packet, tables, ifindex)? else { return Ok(Verdict::Pass) };
    match other(tables, request.sender, &request.target) {
        Some(sibling) => to_sibling(request.sender, sibling, 0),
        None => Ok(Verdict::Pass),
    }
}

/// The sibling whose hardware address is asked for. The request goes to it and nobody else: flooded by the bridge
/// it would be subject to the host's firewall, which knows nothing of neighbour discovery between bridge ports.
/// An announcement of the sender's own address is for all to hear.
#[inline(always)]
fn other<'t, T: Tables>(tables: &'t T, sender: &EndpointValue, target: &Addr) -> Option<&'t EndpointValue> {
    tables.endpoint(target).filter(|sibling| sibling.ifindex != sender.ifindex)
}

/// To an endpoint of the same network: switched, not routed, so nothing in it changes. `wire_length` is that of
/// [`Headers`].
#[inline(always)]
fn to_sibling(
    sender: &EndpointValue,
    sibling: &EndpointValue,
    wire_length: u16,
) -> Result<Verdict, DropReason> {
    if sender.zone != sibling.zone {
        return Err(DropReason::OtherNetwork);
    }
    if sender.has(NetworkValue::FLAG_ISOLATED) && sender.ifindex != sibling.ifindex {
        return Err(DropReason::Isolated);
    }
    // The bridge drops what does not fit, and counts it.
    if wire_length > sibling.mtu {
        return Ok(Verdict::Pass);
    }
    let (ifindex, dst, src) = (sibling.ifindex, sibling.mac, sender.mac);
    Ok(Verdict::Deliver(Delivery { ifindex, dst, src, routed: false }))
}

/// An uplink's address of the packet's family.
#[inline(always)]
fn own_address(uplink: &UplinkValue, headers: &Headers) -> Addr {
    if headers.v4 { uplink.v4 } else { uplink.v6 }
}

/// A packet being dealt with, and all there is to deal with it. `scratch.tuple` is the packet's.
struct Job<'a, P, T> {
    packet: &'a mut P,
    tables: &'a T,
    scratch: &'a mut Scratch,
    headers: &'a Headers,
}

impl<'a, P: Packet, T: Tables> Job<'a, P, T> {
    /// The packet's flow, if it is tracked.
    #[inline(always)]
    fn tracked(&mut self) -> Option<Tracked<T::Flow<'a>>> {
        if !self.headers.is_translatable() {
            return None;
        }
        let Scratch { tuple, spare, .. } = &mut *self.scratch;
        conntrack::lookup(self.tables, tuple, spare)
    }

    /// A packet of a tracked flow, from a bridge or (0) an uplink.
    #[inline(always)]
    fn follow(&mut self, tracked: &Tracked<T::Flow<'_>>, bridge: u32) -> Result<Decision, DropReason> {
        self.scratch.translated = tracked.flow.translated();
        let verdict = if self.scratch.translated.zone == Zone::WORLD {
            match self.route(bridge, Source::Given) {
                Some(Route::Via(next_hop, _)) => Verdict::Forward(next_hop),
                _ => return Ok(Decision::Pass),
            }
        } else {
            self.deliver()?
        };
        conntrack::seen(self.tables, self.headers, tracked, self.scratch);
        Ok(Decision::Translate { opening: None, verdict })
    }

    /// From an endpoint to an address of the host: a published port, or the host itself.
    ///
    /// The target of a published port sees the address that was dialled (RFC 4787 REQ-9a), so that its answers
    /// come back here, even if client and target are neighbours.
    #[inline(always)]
    fn host_bound(&mut self) -> Result<Decision, DropReason> {
        // Only the first packet of a connection can be meant for a published port: any other is the answer to a
        // socket of the host, whose port may by chance be the same number.
        let first = match self.headers.l4 {
            L4::Tcp(flags) => flags & (tcp::SYN | tcp::ACK) == tcp::SYN,
            L4::Udp => true,
            _ => false,
        };
        if !first {
            return Ok(Decision::Pass);
        }
        let Some(target) = self.wanted() else { return Ok(Decision::Pass) };
        self.scratch.translated = self.scratch.tuple;
        self.scratch.translated.src = self.scratch.tuple.dst;
        self.begin_delivery(&target, SourcePorts::Host)
    }

    /// From outside to an address of the host: a published port, or the host itself. The target of a published
    /// port sees the client's own address.
    #[inline(always)]
    fn published_to(&mut self) -> Result<Decision, DropReason> {
        let Some(target) = self.wanted() else { return Ok(Decision::Pass) };
        // Nobody is waiting for a reset.
        if self.headers.tcp_flags() & tcp::RST != 0 {
            return Ok(Decision::Pass);
        }
        // An address of ours out there is forged.
        if self.tables.network(&self.scratch.tuple.src).is_some() {
            return Err(DropReason::SourceAddress);
        }
        self.scratch.translated = self.scratch.tuple;
        self.begin_delivery(&target, SourcePorts::Own)
    }

    /// The published port that the packet asks for.
    #[inline(always)]
    fn wanted(&self) -> Option<Target<'a>> {
        if !matches!(self.headers.l4, L4::Tcp(_) | L4::Udp) {
            return None;
        }
        let Tuple { dst, dport, proto, .. } = &self.scratch.tuple;
        published(self.tables, dst, *dport, *proto)
    }

    /// First packet of a flow towards a published port's target; the source is in `scratch.translated` already.
    #[inline(always)]
    fn begin_delivery(&mut self, target: &Target<'_>, ports: SourcePorts) -> Result<Decision, DropReason> {
        let translated = &mut self.scratch.translated;
        translated.dst = target.mapping.addr;
        translated.dport = target.port;
        translated.zone = target.mapping.zone;
        let opening = Opening { ports, mapping: target.mapping.id, length: self.headers.length };
        Ok(Decision::Translate { opening: Some(opening), verdict: self.deliver()? })
    }

    /// To the world: masqueraded, and handed to the next hop.
    #[inline(always)]
    fn world_bound(&mut self, sender: &EndpointValue) -> Result<Decision, DropReason> {
        if !self.headers.is_translatable() {
            return Err(DropReason::Untranslatable);
        }
        // For the stack: it answers an expired hop limit, looks at options, and says what is unreachable.
        let Some(Route::Via(next_hop, source)) = self.route(sender.bridge, Source::Wanted) else {
            return Ok(Decision::Pass);
        };
        let uplink = self.tables.uplink(next_hop.ifindex).ok_or(DropReason::NotAnUplink)?;
        let source = if source.is_unspecified() { own_address(uplink, self.headers) } else { source };
        let opening = self.masquerade(sender, source)?;
        Ok(Decision::Translate { opening: Some(opening), verdict: Verdict::Forward(next_hop) })
    }

    /// The masqueraded flow to begin; `source` is what routing would choose.
    #[inline(always)]
    fn masquerade(&mut self, sender: &EndpointValue, source: Addr) -> Result<Opening, DropReason> {
        if sender.has(NetworkValue::FLAG_INTERNAL) {
            return Err(DropReason::Internal);
        }
        let rule = self.tables.masquerade(&self.scratch.tuple.src).ok_or(DropReason::NoMasquerade)?;
        let src = if rule.to.is_unspecified() { source } else { rule.to };
        // Nobody beyond the next router could answer a link-local source.
        if src.is_unspecified() || src.is_v6_link_local() {
            return Err(DropReason::NoSourceAddress);
        }
        self.scratch.translated = self.scratch.tuple;
        self.scratch.translated.src = src;
        self.scratch.translated.zone = Zone::WORLD;
        Ok(Opening { ports: SourcePorts::Host, mapping: 0, length: self.headers.length })
    }

    /// The way to the world, `None` if the packet is one for the stack.
    ///
    /// The destination of a packet to the world is never translated, so that of the packet is the one to route.
    #[inline(always)]
    fn route(&self, bridge: u32, source: Source) -> Option<Route> {
        let headers = self.headers;
        if headers.options || headers.hop_limit <= 1 {
            return None;
        }
        let query = RouteQuery { tuple: &self.scratch.tuple, length: headers.wire_length, bridge, source };
        Some(self.tables.route(&query))
    }

    /// Into the endpoint that a packet with the tuple `scratch.translated` goes to, if it may go on.
    #[inline(always)]
    fn deliver(&self) -> Result<Verdict, DropReason> {
        let receiver =
            self.tables.endpoint(&self.scratch.translated.dst).ok_or(DropReason::NoSuchEndpoint)?;
        if self.headers.hop_limit <= 1 {
            return Err(DropReason::HopLimit);
        }
        if self.headers.wire_length > receiver.mtu {
            return Err(DropReason::TooBig);
        }
        let (ifindex, dst, src) = (receiver.ifindex, receiver.mac, receiver.gateway_mac);
        Ok(Verdict::Deliver(Delivery { ifindex, dst, src, routed: true }))
    }

    /// Does what was decided: the one place where flows begin and packets change.
    #[inline(always)]
    fn carry_out(&mut self, decision: Decision, hop: Hop) -> Result<Verdict, DropReason> {
        let Decision::Translate { opening, verdict } = decision else { return Ok(Verdict::Pass) };
        if let Some(opening) = opening {
            open(self.tables, self.scratch, &opening)?;
        }
        let Scratch { tuple, translated, .. } = &*self.scratch;
        Rewrite { headers: self.headers, from: tuple, to: translated, hop }.apply(self.packet)?;
        Ok(verdict)
    }
}
