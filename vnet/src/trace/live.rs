//! What a trace looks at and never changes.

use vnet_common::{
    Addr, CtEntry, DatapathConfig, EndpointUse, EndpointValue, FloatingValue, FlowHand, FragmentKey,
    FragmentValue, HostAddressValue, MappingEntry, MasqueradeValue, NetworkValue, PortMapKey, PortMapValue,
    Tuple, UplinkValue,
};
use vnet_datapath::{Route, RouteQuery};

/// Whether packets that an interface receives are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// As routing says.
    AsRouted,
    /// They are not, whatever routing says.
    Off,
    /// They are, though routing would say no of this interface: it is to be asked as for another one, of that number.
    AskedAs(u32),
}

/// An instance's tables, and what its programs ask of the kernel besides, to be read: each question is one of
/// [`vnet_datapath::Tables`] or [`vnet_datapath::early::Early`].
#[allow(missing_docs, reason = "they are documented there")]
pub trait Live {
    /// Why something cannot be read.
    type Error;

    fn config(&self) -> Result<Option<DatapathConfig>, Self::Error>;
    fn host_address(&self, addr: &Addr) -> Result<Option<HostAddressValue>, Self::Error>;
    fn port_map(&self, key: &PortMapKey) -> Result<Option<PortMapValue>, Self::Error>;
    fn confirmed(&self, tuple: &Tuple) -> Result<Option<CtEntry>, Self::Error>;
    fn unconfirmed(&self, tuple: &Tuple) -> Result<Option<CtEntry>, Self::Error>;
    /// Where the next look at the slots begins, if anybody has looked yet.
    fn hand(&self) -> Result<Option<FlowHand>, Self::Error>;
    fn slot(&self, index: u32) -> Result<Option<Tuple>, Self::Error>;
    /// How many slots there are.
    fn slots(&self) -> Result<u32, Self::Error>;
    fn endpoint_use(&self, ifindex: u32) -> Result<Option<EndpointUse>, Self::Error>;
    fn mapping(&self, key: &Tuple) -> Result<Option<MappingEntry>, Self::Error>;
    fn fragment(&self, key: &FragmentKey) -> Result<Option<FragmentValue>, Self::Error>;
    fn endpoint(&self, addr: &Addr) -> Result<Option<EndpointValue>, Self::Error>;
    fn network(&self, addr: &Addr) -> Result<Option<NetworkValue>, Self::Error>;
    fn masquerade(&self, source: &Addr) -> Result<Option<MasqueradeValue>, Self::Error>;
    fn is_unmasqueraded(&self, destination: &Addr) -> Result<bool, Self::Error>;
    fn floating(&self, external: &Addr) -> Result<Option<FloatingValue>, Self::Error>;
    fn is_allowed(&self, mapping: u32, client: &Addr) -> Result<bool, Self::Error>;
    fn uplink(&self, ifindex: u32) -> Result<Option<UplinkValue>, Self::Error>;
    fn is_denied(&self, source: &Addr) -> Result<bool, Self::Error>;
    fn source_due(&self, prefix: &Addr) -> Result<Option<u64>, Self::Error>;
    fn total_due(&self) -> Result<Option<u64>, Self::Error>;
    /// Asked by a program on the interface `hooked`.
    fn route(&self, query: &RouteQuery<'_>, hooked: u32) -> Result<Route, Self::Error>;
    /// Likewise.
    fn owns(&self, addr: &Addr, arrived: u32, hooked: u32) -> Result<bool, Self::Error>;
    /// Likewise.
    fn host_socket(&self, tuple: &Tuple, hooked: u32) -> Result<bool, Self::Error>;
    /// Whether an interface of the host has an address now, or it is the broadcast address of one: what the host's stack
    /// keeps for itself. Where there is no route, routing gives the same answer for that.
    fn is_local(&self, addr: &Addr) -> bool;
    /// Whether the host's stack forwards what it receives on an interface and has a route for. Programs are told by routing
    /// alone, which asks for another parameter of IPv6 than the stack does.
    fn forwarding(&self, v4: bool, ifindex: u32) -> Result<Forwarding, Self::Error>;
    fn now(&self) -> u32;
    fn nanoseconds(&self) -> u64;
    fn random(&self) -> u32;
}
