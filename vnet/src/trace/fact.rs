//! What a packet meets on its way: questions with their answers, and decisions, in the order taken.

use vnet_common::{
    Addr, CtEntry, CtState, EndpointValue, FragmentKey, FragmentValue, HostAddressValue, LocalFlowKey,
    LocalFlowValue, MappingEntry, MasqueradeValue, NetworkValue, Port, Tuple, UplinkValue,
};
use vnet_datapath::answer::Answer;
use vnet_datapath::mappings::Admission;
use vnet_datapath::{Headers, Route};

/// Something that was asked or decided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fact {
    /// The packet's headers were read.
    Read {
        /// What it is.
        kind: Kind,
        /// Its ends.
        tuple: Tuple,
    },
    /// Whose an address is.
    Endpoint(Addr, Option<EndpointValue>),
    /// Which network's prefix covers an address.
    Network(Addr, Option<NetworkValue>),
    /// Whether it is noted as the host's.
    HostAddress(Addr, Option<HostAddressValue>),
    /// Whether the kernel's routing takes it for the host's own now.
    Owns(Addr, bool),
    /// Whether an interface leads to the world.
    Uplink(u32, Option<UplinkValue>),
    /// The packet's own flow was looked for.
    Flow(Option<Tracked>),
    /// It is over, and forgotten: nothing was heard of it for so many seconds.
    Over(u32),
    /// It was told of the packet, which leads it to another state, or keeps it alive.
    Advanced(CtState, CtState),
    /// Both sides have shown that they hear each other.
    Confirmed,
    /// It has lost the address that routing had chosen for it, and ends.
    LostAddress,
    /// A floating address or published port was looked for.
    Target(Option<Target>),
    /// Whether a client may use a restricted mapping.
    Allowed {
        /// [`vnet_common::PortMapValue::id`].
        mapping: u32,
        /// The client.
        client: Addr,
        /// Whether it may.
        allowed: bool,
    },
    /// Whether the packet may come in by the external port of an endpoint-independent mapping.
    Admission(Admission, Tuple),
    /// Whether a socket of the host takes a packet with this tuple.
    Socket(Tuple, bool),
    /// The masquerade rule for a source.
    Masquerade(Addr, Option<MasqueradeValue>),
    /// Masquerade leaves packets to this destination alone.
    Unmasqueraded(Addr),
    /// Where the host's routing sends packets with this destination.
    Route(Addr, Route),
    /// The endpoint that begins the flow may have no more.
    Quota(u32),
    /// A source port was tried.
    SourcePort {
        /// The packet's own.
        wished: Port,
        /// The one tried.
        tried: Port,
        /// Whether it was free, and is the flow's now.
        taken: bool,
    },
    /// A flow begins.
    Began {
        /// Its packets as they arrive.
        tuple: Tuple,
        /// What they become.
        translated: Tuple,
        /// The mapping that opens it, 0 if none does.
        mapping: u32,
    },
    /// The packet is an ICMP error about one with this tuple.
    Related(Tuple),
    /// The packet was changed.
    Rewritten(Tuple, Tuple),
    /// It is answered with an ICMP error.
    Answered(Answer),
    /// The deny list was looked at.
    Denied(Addr, bool),
    /// A socket of the host is pointed elsewhere when it dials, or is not.
    Dialled(Option<(Addr, Port)>),
    /// The host itself sends the packet, which its programs let through.
    HostsOwn,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// An IPv4 or IPv6 packet.
    Ip(Headers),
    /// ARP.
    Arp,
    /// Anything else.
    Other,
    /// One that contradicts itself.
    Malformed,
}

/// The flow of a packet, as it was when that came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tracked {
    /// The packet's direction of it.
    pub entry: CtEntry,
    /// Whether both sides have shown that they hear each other.
    pub confirmed: bool,
    /// Seconds since its last packet.
    pub idle: u32,
}

/// Where a floating address or published port leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// What the packet becomes.
    pub translated: Tuple,
    /// The mapping, 0 for a floating address.
    pub mapping: u32,
    /// Whether the client may use it.
    pub allowed: bool,
}

/// What a packet would leave behind, had it been real.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// An entry of a flow table.
    Flow {
        /// Its key.
        tuple: Tuple,
        /// Whether the table is that of the confirmed.
        confirmed: bool,
        /// As it is.
        before: Option<CtEntry>,
        /// As it would be.
        after: Option<CtEntry>,
    },
    /// An entry of the endpoint-independent mappings.
    Mapping {
        /// Its key.
        key: Tuple,
        /// As it is.
        before: Option<MappingEntry>,
        /// As it would be.
        after: Option<MappingEntry>,
    },
    /// A datagram in fragments.
    Fragment {
        /// Its key.
        key: FragmentKey,
        /// What would be noted.
        after: FragmentValue,
    },
    /// What a socket of the host dialled.
    Dialled {
        /// Its key.
        key: LocalFlowKey,
        /// What would be noted.
        after: LocalFlowValue,
    },
}
