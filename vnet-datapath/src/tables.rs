//! Everything the logic asks of the world: maps, routes, sockets, clock and chance.

use vnet_common::{
    Addr, CtEntry, CtState, DatapathConfig, EndpointValue, HostAddressValue, MasqueradeValue, NetworkValue,
    Origin, PortMapKey, PortMapValue, Tuple, UplinkValue,
};

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
    fn translated(&self) -> Tuple;
    /// [`CtEntry::last_seen`].
    fn last_seen(&self) -> u32;
    /// [`CtEntry::created`].
    fn created(&self) -> u32;
    /// [`CtEntry::mapping`].
    fn mapping(&self) -> u32;
    /// [`CtEntry::state`].
    fn state(&self) -> CtState;
    /// [`CtEntry::origin`].
    fn origin(&self) -> Origin;
    /// Counts one packet.
    fn count(&self, bytes: u32);
    /// Notes that the flow was seen at `now` (seconds since boot) and is in `state`.
    fn refresh(&self, now: u32, state: CtState);
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

    /// The entry of packets with this tuple, expired or not.
    fn conntrack(&self, tuple: &Tuple) -> Option<Self::Flow<'_>>;
    /// Adds an entry; `None` if there is one already or no room. Of several CPUs that try at once one succeeds.
    fn add_flow(&self, tuple: &Tuple, entry: &CtEntry) -> Option<()>;
    /// Removes an entry, if it is there.
    fn remove_flow(&self, tuple: &Tuple);
    /// Tells whoever listens that a flow began.
    fn flow_began(&self, tuple: &Tuple, entry: &CtEntry);

    /// Whose address this is.
    fn endpoint(&self, addr: &Addr) -> Option<&EndpointValue>;
    /// The network whose prefix covers an address.
    fn network(&self, addr: &Addr) -> Option<&NetworkValue>;
    /// The masquerade rule for a source: that of the longest prefix.
    fn masquerade(&self, source: &Addr) -> Option<&MasqueradeValue>;
    /// An interface that leads to the world.
    fn uplink(&self, ifindex: u32) -> Option<&UplinkValue>;

    /// Asks the host's routing.
    fn route(&self, query: &RouteQuery<'_>) -> Route;
    /// Whether a socket of the host would take a packet with this tuple that arrives from the world.
    fn host_socket(&self, tuple: &Tuple) -> bool;
    /// Seconds since boot.
    fn now(&self) -> u32;
    /// A number nobody can foresee.
    fn random(&self) -> u32;
}
