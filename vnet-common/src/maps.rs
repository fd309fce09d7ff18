//! Names and sizes of the maps: what pins, programs and `bpftool map dump` call them.

/// `Tuple` -> `CtEntry`, both directions of every tracked flow.
pub const CONNTRACK: &str = "conntrack";
/// `Addr` -> `EndpointValue`.
pub const ENDPOINTS: &str = "endpoints";
/// `PrefixKey` -> `NetworkValue`.
pub const NETWORKS: &str = "networks";
/// `PrefixKey` -> `MasqueradeValue`.
pub const MASQUERADE: &str = "masquerade";
/// `PortMapKey` -> `PortMapValue`.
pub const PORT_MAP: &str = "port_map";
/// Interface index -> `UplinkValue`.
pub const UPLINKS: &str = "uplinks";
/// `Addr` -> `HostAddressValue`.
pub const HOST_ADDRESSES: &str = "host_addresses";
/// `LocalFlowKey` -> `LocalFlowValue`.
pub const LOCAL_FLOWS: &str = "local_flows";
/// 0 -> `DatapathConfig`.
pub const CONFIG: &str = "config";
/// `DropKey` -> packets, per CPU.
pub const DROPS: &str = "drops";
/// `Event` records.
pub const EVENTS: &str = "events";

/// Every map, in the order in which they are listed to people.
pub const ALL: [&str; 11] = [
    CONFIG,
    UPLINKS,
    HOST_ADDRESSES,
    NETWORKS,
    ENDPOINTS,
    MASQUERADE,
    PORT_MAP,
    CONNTRACK,
    LOCAL_FLOWS,
    DROPS,
    EVENTS,
];

/// Directions of flows that can be tracked at once: two for each flow.
pub const CONNTRACK_ENTRIES: usize = 262_144;
/// Addresses of endpoints.
pub const ENDPOINT_ENTRIES: usize = 16_384;
/// Prefixes of networks.
pub const NETWORK_ENTRIES: usize = 1_024;
/// Masquerade rules.
pub const MASQUERADE_ENTRIES: usize = 1_024;
/// Blocks of published ports.
pub const PORT_MAP_ENTRIES: usize = 131_072;
/// Uplinks.
pub const UPLINK_ENTRIES: usize = 64;
/// Addresses of the host.
pub const HOST_ADDRESS_ENTRIES: usize = 4_096;
/// Sockets of the host that talk to published ports.
pub const LOCAL_FLOW_ENTRIES: usize = 65_536;
/// Pairs of interface and drop reason.
pub const DROP_ENTRIES: usize = 16_384;
/// Size of the ring buffer, in bytes: a power of two, of whole pages.
pub const EVENT_BYTES: u32 = 256 * 1024;
