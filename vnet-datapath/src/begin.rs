//! What becomes of a packet that belongs to no flow yet: whom it asks for, whether it may, and the flow it begins.
//!
//! Everything here is decided from the packet's headers and tuple, which are in [`Scratch`], and from the tables; the
//! packet itself is not looked at.

use vnet_common::{
    Addr, CtState, DropReason, EndpointValue, Hook, MasqueradeValue, NetworkValue, Origin, PortMapValue,
    Tuple, UplinkValue, Zone, mapping,
};

use crate::mappings::Admission;
use crate::parse::{Headers, L4};
use crate::published::{published, published_on};
use crate::scratch::{Scratch, SourcePorts};
use crate::step::Step;
use crate::tables::{Route, Source, Tables};
use crate::verdict::Verdict;
use crate::ways;
use crate::wire::tcp;

/// Decides on the packet of which `scratch` holds the headers, the tuple and where it was met.
#[must_use]
#[inline(always)]
pub fn begin<T: Tables>(tables: &T, scratch: &mut Scratch, hook: Hook) -> Step {
    scratch.opening.mapping = 0;
    let mut beginning = Beginning { tables, scratch };
    Step::of(match hook {
        Hook::FromEndpoint => beginning.sent_by_endpoint(),
        Hook::FromUplink => beginning.sent_by_the_world(),
        Hook::ToUplink => beginning.leaving(),
        // Nothing begins there.
        Hook::ToBridge | Hook::ToNetwork | Hook::FromHold | Hook::XdpUplink | Hook::Shape => Ok(Step::PASS),
    })
}

/// Decides on a packet of no flow that an endpoint sends to the world.
#[must_use]
#[inline(always)]
pub fn world_bound<T: Tables>(tables: &T, scratch: &mut Scratch) -> Step {
    Step::of(Beginning { tables, scratch }.world_bound())
}

/// A packet of no flow, and all there is to decide on it.
struct Beginning<'a, T> {
    tables: &'a T,
    scratch: &'a mut Scratch,
}

impl<'a, T: Tables> Beginning<'a, T> {
    /// From an endpoint.
    #[inline(always)]
    fn sent_by_endpoint(&mut self) -> Result<Step, Step> {
        let sender = self.sender()?;
        let Tuple { src, dst, .. } = &self.scratch.tuple;
        if self.tables.host_address(dst).is_some() {
            self.host_bound(sender)
        } else if src.same_prefix(dst, sender.prefix_len) {
            // The network's own addresses that are nobody's, broadcast among them: the bridge knows best, if there is one.
            if sender.has(NetworkValue::FLAG_UNBRIDGED) {
                return Err(Step::drop(DropReason::NoSuchEndpoint));
            }
            Ok(Step::PASS)
        } else if self.tables.network(dst).is_some() {
            Err(Step::drop(DropReason::OtherNetwork))
        } else if self.scratch.headers.is_icmp_error() {
            Err(Step::drop(DropReason::Unrelated))
        } else if !self.scratch.headers.is_translatable() {
            Err(Step::drop(DropReason::Untranslatable))
        } else {
            Ok(Step::WORLD)
        }
    }

    /// Whose packet it is.
    #[inline(always)]
    fn sender(&self) -> Result<&'a EndpointValue, DropReason> {
        self.tables.endpoint(&self.scratch.tuple.src).ok_or(DropReason::SourceAddress)
    }

    /// From an endpoint to an address of the host: a published port, a floating address, the external port of
    /// another endpoint's mapping, or the host itself.
    ///
    /// The receiver sees an external address (RFC 4787 REQ-9a), so that its answers come back here, even if client
    /// and receiver are neighbours.
    #[inline(always)]
    fn host_bound(&mut self, sender: &EndpointValue) -> Result<Step, Step> {
        // Only the first packet of a connection can be meant for an endpoint: any other is the answer to a socket of
        // the host, whose port may by chance be the same number.
        if matches!(self.l4(), L4::Tcp(flags) if flags & (tcp::SYN | tcp::ACK) != tcp::SYN) {
            return Ok(Step::PASS);
        }
        if !self.find_target()? {
            match self.admit() {
                Admission::Unmapped => return Ok(Step::PASS),
                Admission::Filtered => return Err(Step::drop(DropReason::Filtered)),
                Admission::Admitted => {}
            }
            if self.scratch.translated.zone != sender.zone {
                return Err(Step::drop(DropReason::OtherNetwork));
            }
        }
        self.scratch.translated.src = self.scratch.tuple.dst;
        self.open_for(Some(sender), SourcePorts::Host);
        self.deliver()
    }

    /// From outside: to an address of the host, to an endpoint's, or none of vnet's business.
    #[inline(always)]
    fn sent_by_the_world(&mut self) -> Result<Step, Step> {
        let dst = &self.scratch.tuple.dst;
        if dst.is_loopback() {
            // A port published on a loopback address answers clients of the host alone (moby #45610).
            return Err(Step::drop(DropReason::Loopback));
        }
        if self.tables.host_address(dst).is_none() {
            if let Some(network) = self.tables.network(dst) {
                return self.direct(network);
            }
            if !self.is_published_on_new_address() {
                return Ok(Step::PASS);
            }
        }
        self.published_to()
    }

    /// Whether the packet asks for a published port on an address that the host has got since vnet looked, or one to
    /// which there is no route at all, which routing does not tell from that; nobody has a mapping there yet. What is routed to others asks for published ports only by chance.
    #[inline(always)]
    fn is_published_on_new_address(&mut self) -> bool {
        // Routing does not tell broadcasts from the host's own addresses.
        if self.scratch.headers.is_for_a_group() || self.scratch.tuple.dst.is_multicast_or_broadcast() {
            return false;
        }
        // Whether the client may is not asked yet: the packet may be another's.
        if self.find_target() == Ok(false) {
            return false;
        }
        let Scratch { tuple, translated, .. } = &*self.scratch;
        let receiver = self.tables.endpoint(&translated.dst);
        receiver.is_some_and(|receiver| self.tables.owns(&tuple.dst, receiver.bridge))
    }

    /// From outside to an address of the host: a published port, a floating address, the external port of an
    /// endpoint's mapping, or the host itself. The receiver sees the client's own address.
    #[inline(always)]
    fn published_to(&mut self) -> Result<Step, Step> {
        let found = self.find_target()?;
        if found {
            let flags = self.scratch.headers.tcp_flags();
            // Nobody is waiting for a reset. What does not open a connection may answer a client of the host, to which
            // the kernel has given the very port by itself.
            let opens = flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
            if flags & tcp::RST != 0 || !opens && self.tables.host_socket(&self.scratch.tuple) {
                return Ok(Step::PASS);
            }
        } else {
            let admission = self.admit();
            // A mapping is for all peers, a socket of the host may be for one: it has not been in the way before.
            if admission == Admission::Unmapped || self.tables.host_socket(&self.scratch.tuple) {
                return Ok(Step::PASS);
            }
            if admission == Admission::Filtered {
                return Err(Step::drop(DropReason::Filtered));
            }
        }
        // Only an address that the host has at this moment: it may be a router, and have lost this one since vnet looked
        // (CVE-2025-67499).
        let receiver =
            self.tables.endpoint(&self.scratch.translated.dst).ok_or(DropReason::NoSuchEndpoint)?;
        if !self.tables.owns(&self.scratch.tuple.dst, receiver.bridge) {
            return Ok(Step::PASS);
        }
        self.open_for(None, SourcePorts::Own);
        self.scratch.opening.mapped = u8::from(!found);
        self.deliver_from_outside()
    }

    /// From outside to an endpoint's own address.
    #[inline(always)]
    fn direct(&mut self, network: &NetworkValue) -> Result<Step, Step> {
        let open = if network.flags & NetworkValue::FLAG_ROUTED != 0 {
            // What is published for a routed endpoint answers on its own address; anybody may ask whether it is there.
            self.l4() == L4::Echo || self.published_on_destination()?
        } else {
            network.flags & NetworkValue::FLAG_UNPROTECTED != 0 && self.scratch.headers.is_translatable()
        };
        if !open {
            return Err(Step::drop(DropReason::DirectAccess));
        }
        self.scratch.translated = self.scratch.tuple;
        self.scratch.translated.zone = network.zone;
        self.open_for(None, SourcePorts::Own);
        self.deliver_from_outside()
    }

    /// First packet of a flow from outside; its tuple is in `scratch.translated` already.
    #[inline(always)]
    fn deliver_from_outside(&mut self) -> Result<Step, Step> {
        // An address of ours out there is forged.
        if self.tables.network(&self.scratch.tuple.src).is_some() {
            return Err(Step::drop(DropReason::SourceAddress));
        }
        self.deliver()
    }

    /// First packet of a flow towards an endpoint; its tuple is in `scratch.translated` already.
    #[inline(always)]
    fn deliver(&mut self) -> Result<Step, Step> {
        let Scratch { tuple, translated, headers, decided, .. } = &mut *self.scratch;
        let verdict = ways::deliver(self.tables, headers, &translated.dst)?;
        decided.keep(ways::respect(self.tables, tuple, (Origin::Opener, CtState::New), verdict));
        Ok(Step::OPEN)
    }

    /// To the world: masqueraded, and handed to the next hop.
    #[inline(always)]
    fn world_bound(&mut self) -> Result<Step, Step> {
        let sender = self.sender()?;
        let Scratch { tuple, headers, .. } = &*self.scratch;
        let query = ways::query(headers, tuple, sender.bridge, Source::Wanted);
        let Some(Route::Via(next_hop, source)) = ways::route(self.tables, headers, query) else {
            return Ok(Step::PASS);
        };
        let uplink = self.tables.uplink(next_hop.ifindex).ok_or(DropReason::NotAnUplink)?;
        let source = if source.is_unspecified() { own_address(uplink, headers) } else { source };
        self.masquerade(sender, source)?;
        self.scratch.decided.keep(Verdict::Forward(next_hop));
        Ok(Step::OPEN)
    }

    /// To the world by the host's stack, which has chosen the uplink.
    #[inline(always)]
    fn leaving(&mut self) -> Result<Step, Step> {
        let sender = self.sender()?;
        let uplink = self.tables.uplink(self.scratch.place.ifindex).ok_or(DropReason::NotAnUplink)?;
        self.masquerade(sender, own_address(uplink, &self.scratch.headers))?;
        self.scratch.decided.keep(Verdict::Pass);
        Ok(Step::OPEN)
    }

    /// Describes the flow to the world to begin; `source` is what routing would choose.
    #[inline(always)]
    fn masquerade(&mut self, sender: &EndpointValue, source: Addr) -> Result<(), DropReason> {
        if sender.has(NetworkValue::FLAG_INTERNAL) {
            return Err(DropReason::Internal);
        }
        let Scratch { tuple, translated, .. } = &mut *self.scratch;
        *translated = *tuple;
        translated.zone = Zone::WORLD;
        let rule = self.tables.masquerade(&tuple.src);
        let kept = sender.has(NetworkValue::FLAG_ROUTED)
            || rule.is_some_and(|rule| rule.flags & MasqueradeValue::FLAG_EXEMPT != 0)
            || self.tables.is_unmasqueraded(&tuple.dst);
        let (mut ports, mut routed) = (SourcePorts::Own, 0);
        if !kept {
            let rule = rule.ok_or(DropReason::NoMasquerade)?;
            translated.src = if rule.to.is_unspecified() { source } else { rule.to };
            // Nobody beyond the next router could answer a link-local source.
            if translated.src.is_unspecified() || translated.src.is_v6_link_local() {
                return Err(DropReason::NoSourceAddress);
            }
            if rule.flags & MasqueradeValue::FLAG_ONE_TO_ONE == 0 {
                ports = SourcePorts::Host;
            }
            routed = u8::from(rule.to.is_unspecified());
        }
        self.open_for(Some(sender), ports);
        self.scratch.opening.routed = routed;
        Ok(())
    }

    /// What follows the packet's network header.
    #[inline(always)]
    fn l4(&self) -> L4 {
        self.scratch.headers.l4()
    }

    /// [`find_target`]: whether there is one.
    #[inline(always)]
    fn find_target(&mut self) -> Result<bool, DropReason> {
        let step = self.tables.find_target(self.scratch);
        step.reason().map_or(Ok(step == Step::OPEN), Err)
    }

    /// Whether the packet's port is published on exactly its destination, and for its source.
    #[inline(always)]
    fn published_on_destination(&mut self) -> Result<bool, DropReason> {
        if !has_ports(&self.scratch.headers) {
            return Ok(false);
        }
        let Scratch { tuple, opening, .. } = &mut *self.scratch;
        let Some(target) = published_on(self.tables, &tuple.dst, tuple.dport, tuple.proto) else {
            return Ok(false);
        };
        check_client(self.tables, target.mapping, &tuple.src)?;
        opening.mapping = target.mapping.id;
        Ok(true)
    }

    /// Whether the packet may come in through an endpoint-independent mapping, to what is then in
    /// `scratch.translated`.
    #[inline(always)]
    fn admit(&mut self) -> Admission {
        if !matches!(self.l4(), L4::Tcp(_) | L4::Udp) {
            return Admission::Unmapped;
        }
        self.tables.admit(self.scratch)
    }

    /// Describes the flow to begin, but for its mapping: opened by an endpoint or by somebody else.
    #[inline(always)]
    fn open_for(&mut self, owner: Option<&EndpointValue>, ports: SourcePorts) {
        let l4 = self.l4();
        let Scratch { opening, headers, .. } = &mut *self.scratch;
        opening.length = headers.length;
        opening.owner = 0;
        opening.ports = ports as u8;
        opening.mapped = 0;
        opening.routed = 0;
        opening.filtering = 0;
        let Some(owner) = owner else { return };
        opening.owner = owner.ifindex;
        let independent = match l4 {
            L4::Udp => mapping::ENDPOINT_INDEPENDENT_UDP,
            L4::Tcp(_) => mapping::ENDPOINT_INDEPENDENT_TCP,
            _ => 0,
        };
        if ports == SourcePorts::Host && owner.mapping & independent != 0 {
            opening.mapped = 1;
            opening.filtering = owner.filtering;
        }
    }
}

/// Finds the target of the floating address or published port that the packet asks for, and puts it into
/// `scratch.translated`, and the mapping into `scratch.opening`: [`Step::OPEN`] if there is one, else [`Step::PASS`].
#[must_use]
#[inline(always)]
pub fn find_target<T: Tables>(tables: &T, scratch: &mut Scratch) -> Step {
    let Scratch { tuple, translated, opening, headers, .. } = scratch;
    *translated = *tuple;
    if headers.is_translatable()
        && let Some(floating) = tables.floating(&tuple.dst)
    {
        translated.dst = floating.addr;
        translated.zone = floating.zone;
        return Step::OPEN;
    }
    if !has_ports(headers) {
        return Step::PASS;
    }
    let Some(target) = published(tables, &tuple.dst, tuple.dport, tuple.proto) else { return Step::PASS };
    translated.dst = target.mapping.addr;
    translated.dport = target.port;
    translated.zone = target.mapping.zone;
    opening.mapping = target.mapping.id;
    match check_client(tables, target.mapping, &tuple.src) {
        Ok(()) => Step::OPEN,
        Err(reason) => Step::drop(reason),
    }
}

/// Whether a packet has ports that can be published.
#[inline(always)]
fn has_ports(headers: &Headers) -> bool {
    matches!(headers.l4(), L4::Tcp(_) | L4::Udp | L4::Sctp)
}

/// An uplink's address of the packet's family.
#[inline(always)]
fn own_address(uplink: &UplinkValue, headers: &Headers) -> Addr {
    if headers.is_v4() { uplink.v4 } else { uplink.v6 }
}

/// Whether a client may use a mapping.
#[inline(always)]
pub(crate) fn check_client<T: Tables>(
    tables: &T,
    mapping: &PortMapValue,
    client: &Addr,
) -> Result<(), DropReason> {
    let allowed = mapping.flags & PortMapValue::FLAG_RESTRICTED == 0 || tables.is_allowed(mapping.id, client);
    if allowed { Ok(()) } else { Err(DropReason::NotAllowed) }
}
