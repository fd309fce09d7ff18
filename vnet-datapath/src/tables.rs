//! Everything the logic asks of the world: maps, routes, sockets, clock and chance.

use vnet_common::{
    Addr, CtEntry, CtState, DatapathConfig, EndpointUse, EndpointValue, FloatingValue, FragmentKey,
    FragmentValue, HostAddressValue, MappingEntry, MasqueradeValue, NetworkValue, Origin, PortMapKey,
    PortMapValue, Tuple, UplinkValue,
};

use crate::answer::Budget;
use crate::mappings::{self, Admission};
use crate::scratch::Scratch;
use crate::step::Step;
use crate::{begin, conntrack};

/// Whether a route lookup is to choose a source address, which costs a little more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The one the host would use.
    Wanted,
    /// Not needed.
    Given,
}

/// A question to the host's routing, as it would ask itself when forwarding a packet of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct RouteQuery<'a> {
    /// The packet's tuple, before any translation.
    pub tuple: &'a Tuple,
    /// Length in bytes of the packet, or of the largest segment of an aggregate, from the network header on.
    pub length: u16,
    /// Interface it arrived on as the stack would see it: the bridge.
    pub bridge: u32,
    /// Whether a source address is wanted.
    pub source: Source,
}

/// Where to send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Interface it leaves by.
    pub ifindex: u32,
    /// Neighbour on that interface.
    pub addr: Addr,
}

/// The answer of the host's routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Send it there. The second part is the source address the host would use, unspecified if none was
    /// wanted or there is none.
    Via(NextHop, Addr),
    /// It does not fit the path, or the stack has to deal with it for another reason: there is no route, the
    /// destination is the host itself, the route prohibits it.
    Stack,
}

/// One direction of a tracked flow, in place. Other CPUs may change it at any time; every field but the
/// translation is only ever replaced whole, and the worst outcome is a time stamp or a count that is one packet
/// off. The translation is copied once and used from the copy.
pub trait Flow {
    /// [`CtEntry::translated`].
    fn translate(&self, to: &mut Tuple);
    /// The tuple of the answers to that: the twin's key.
    fn answer(&self, to: &mut Tuple);
    /// Whether it is the twin of the entry with this key: its packets become the answers to those.
    fn leads_to_answer_of(&self, tuple: &Tuple) -> bool;
    /// [`CtEntry::created`].
    fn created(&self) -> u32;
    /// [`CtEntry::last_seen`].
    fn last_seen(&self) -> u32;
    /// [`CtEntry::state`].
    fn state(&self) -> CtState;
    /// [`CtEntry::origin`].
    fn origin(&self) -> Origin;
    /// [`CtEntry::flags`].
    fn flags(&self) -> u8;
    /// Whether it was found among the confirmed.
    fn is_confirmed(&self) -> bool;
    /// The whole entry.
    fn copy(&self, to: &mut CtEntry);
    /// Counts one packet.
    fn count(&self, bytes: u32);
    /// Notes that the flow was seen at `now` (seconds since boot) and is in `state`.
    fn refresh(&self, now: u32, state: CtState);
}

/// One direction of an endpoint-independent mapping, in place; as [`Flow`] on changes by other CPUs.
pub trait Mapping {
    /// [`vnet_common::MappingEntry::translated`].
    fn translated(&self) -> Tuple;
    /// [`vnet_common::MappingEntry::last_seen`].
    fn last_seen(&self) -> u32;
    /// [`vnet_common::MappingEntry::filtering`].
    fn filtering(&self) -> u8;
    /// [`vnet_common::MappingEntry::flags`].
    fn flags(&self) -> u8;
    /// Notes that a flow of it with these [`CtEntry::flags`] was seen at `now` (seconds since boot): if it is not brief,
    /// neither is the mapping from then on.
    fn refresh(&self, now: u32, flags: u8);
    /// Forgets what it has served when it was over: it is as the flow with these [`CtEntry::flags`] that begins it anew.
    fn renew(&self, flags: u8);
}

/// What is needed to tell a published port.
pub trait Ports {
    /// Whether the host has an address.
    fn host_address(&self, addr: &Addr) -> Option<&HostAddressValue>;
    /// A block of published ports.
    fn port_map(&self, key: &PortMapKey) -> Option<&PortMapValue>;
    /// The instance's configuration.
    fn config(&self) -> Option<&DatapathConfig>;
}

/// Everything the packet logic asks of the world.
pub trait Tables: Ports {
    /// A tracked flow's entry.
    type Flow<'a>: Flow
    where
        Self: 'a;

    /// The entry of packets with this tuple, expired or not, among the confirmed or else the unconfirmed.
    fn conntrack(&self, tuple: &Tuple) -> Option<Self::Flow<'_>>;
    /// The entry among the unconfirmed, expired or not.
    fn unconfirmed(&self, tuple: &Tuple) -> Option<Self::Flow<'_>>;
    /// Whether there is an entry among the confirmed, expired or not.
    fn is_confirmed(&self, tuple: &Tuple) -> bool;
    /// Adds an entry to the unconfirmed; `None` if there is one already. Of several CPUs that try at once one
    /// succeeds.
    fn add_flow(&self, tuple: &Tuple, entry: &CtEntry) -> Option<()>;
    /// Adds an entry to the confirmed; `None` if there is one already or no room.
    fn add_confirmed(&self, tuple: &Tuple, entry: &CtEntry) -> Option<()>;
    /// Removes an entry, if it is there; whether it was among the confirmed.
    fn remove_flow(&self, tuple: &Tuple) -> bool;
    /// That an entry is among the confirmed by now and about to go from the unconfirmed: whoever has looked for it among
    /// the former too early, and then looks among the latter too late, or adds one there, has to look again.
    fn moves(&self);
    /// How often there was such a move, modulo 2^32.
    fn moved(&self) -> u32;
    /// Removes an entry from the unconfirmed alone.
    fn remove_unconfirmed(&self, tuple: &Tuple);
    /// Tells whoever listens that a flow began.
    fn flow_began(&self, tuple: &Tuple, entry: &CtEntry);

    /// The slot to look at next: each is named in turn, to whichever CPU asks.
    fn next_slot(&self) -> u32;
    /// The slot to sweep next: each in turn, from the first on after [`Self::sweep_anew`].
    fn next_swept(&self) -> u32;
    /// Makes the first slot the next to sweep.
    fn sweep_anew(&self);
    /// The flow noted in a slot, its last byte telling it from others of that tuple; all zero for none.
    fn slot(&self, index: u32, tuple: &mut Tuple);
    /// Notes a flow in a slot.
    fn set_slot(&self, index: u32, tuple: &Tuple);
    /// Looks at and changes what an endpoint has in use, by the host-side end of its veth pair. The change is made
    /// under a lock: it may compute, and nothing else.
    fn endpoint_use<R>(&self, ifindex: u32, change: impl FnOnce(&mut EndpointUse) -> R) -> Option<R>;

    /// A direction of an endpoint-independent mapping.
    type Mapping<'a>: Mapping
    where
        Self: 'a;

    /// The mapping with this key, expired or not.
    fn mapping(&self, key: &Tuple) -> Option<Self::Mapping<'_>>;
    /// Adds a mapping; `None` if there is one already.
    fn add_mapping(&self, key: &Tuple, mapping: &MappingEntry) -> Option<()>;
    /// Adds or replaces a mapping.
    fn put_mapping(&self, key: &Tuple, mapping: &MappingEntry);
    /// Removes a mapping, if it is there.
    fn remove_mapping(&self, key: &Tuple);

    /// Copies what is noted of a datagram in fragments; whether there is anything, too old or not.
    fn fragment(&self, key: &FragmentKey, to: &mut FragmentValue) -> bool;
    /// Notes what became of a first fragment.
    fn put_fragment(&self, key: &FragmentKey, value: &FragmentValue);
    /// An IPv4 identification that nobody can foresee.
    fn identification(&self) -> [u8; 2];

    /// Whose address this is.
    fn endpoint(&self, addr: &Addr) -> Option<&EndpointValue>;
    /// The network whose prefix covers an address.
    fn network(&self, addr: &Addr) -> Option<&NetworkValue>;
    /// The masquerade rule for a source: that of the longest prefix.
    fn masquerade(&self, source: &Addr) -> Option<&MasqueradeValue>;
    /// Whether masquerade leaves packets to this destination alone.
    fn is_unmasqueraded(&self, destination: &Addr) -> bool;
    /// The endpoint to which an external address belongs alone.
    fn floating(&self, external: &Addr) -> Option<&FloatingValue>;
    /// Whether a client may use a restricted mapping.
    fn is_allowed(&self, mapping: u32, client: &Addr) -> bool;
    /// An interface that leads to the world.
    fn uplink(&self, ifindex: u32) -> Option<&UplinkValue>;

    /// Asks the host's routing.
    fn route(&self, query: &RouteQuery<'_>) -> Route;
    /// Whether the host has this address now, as its routing sees it on the interface `arrived`: a bridge, where
    /// forwarding is on. Where it is not, routing does not say, and [`Ports::host_address`] does.
    fn owns(&self, addr: &Addr, arrived: u32) -> bool;
    /// Whether a socket of the host would take a packet with this tuple that arrives from the world.
    fn host_socket(&self, tuple: &Tuple) -> bool;
    /// Looks at and changes how many ICMP errors this CPU has sent.
    fn icmp_budget<R>(&self, change: impl FnOnce(&mut Budget) -> R) -> Option<R>;
    /// Seconds since boot.
    fn now(&self) -> u32;
    /// A number nobody can foresee.
    fn random(&self) -> u32;

    /// [`conntrack::end`], which a runner may keep out of line, as it may the steps ([`crate::step::Steps`]).
    #[inline(always)]
    fn end(&self, tuple: &Tuple, spare: &mut Tuple)
    where
        Self: Sized,
    {
        conntrack::end(self, tuple, spare);
    }

    /// [`conntrack::look_at_slot`], likewise.
    #[inline(always)]
    fn look_at_slot(&self, scratch: &mut Scratch) -> bool
    where
        Self: Sized,
    {
        conntrack::look_at_slot(self, scratch)
    }

    /// [`conntrack::sweep_slot`], likewise.
    #[inline(always)]
    fn sweep_slot(&self, scratch: &mut Scratch) -> bool
    where
        Self: Sized,
    {
        conntrack::sweep_slot(self, scratch)
    }

    /// [`conntrack::confirm_half`], likewise.
    #[inline(always)]
    fn confirm_half(&self, scratch: &mut Scratch) -> bool
    where
        Self: Sized,
    {
        conntrack::confirm_half(self, scratch)
    }

    /// [`begin::find_target`], likewise.
    #[inline(always)]
    fn find_target(&self, scratch: &mut Scratch) -> Step
    where
        Self: Sized,
    {
        begin::find_target(self, scratch)
    }

    /// [`mappings::admit`], likewise.
    #[inline(always)]
    fn admit(&self, scratch: &mut Scratch) -> Admission
    where
        Self: Sized,
    {
        mappings::admit(self, scratch)
    }
}
