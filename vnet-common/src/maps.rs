//! Names and sizes of the maps: what pins, programs and `bpftool map dump` call them.

/// `Tuple` -> `CtEntry`, both directions of every confirmed flow. Never evicted: a flow ends by its timeout.
pub const CONNTRACK: &str = "conntrack";
/// `Tuple` -> `CtEntry`, both directions of every flow that is not confirmed yet. The least recently used make room.
pub const UNCONFIRMED: &str = "unconfirmed";
/// `Tuple` -> `MappingEntry`, both directions of every endpoint-independent mapping.
pub const MAPPINGS: &str = "mappings";
/// Index -> `Tuple`, one for each confirmed flow there is room for; its `reserved` is the last byte of when it began.
pub const FLOW_SLOTS: &str = "flow_slots";
/// 0 -> `FlowHand`.
pub const FLOW_HAND: &str = "flow_hand";
/// Interface index -> `EndpointUse`.
pub const ENDPOINT_USE: &str = "endpoint_use";
/// `FragmentKey` -> `FragmentValue`.
pub const FRAGMENTS: &str = "fragments";
/// `Addr` -> `EndpointValue`.
pub const ENDPOINTS: &str = "endpoints";
/// `PrefixKey` -> `NetworkValue`.
pub const NETWORKS: &str = "networks";
/// `PrefixKey` -> `MasqueradeValue`.
pub const MASQUERADE: &str = "masquerade";
/// `PrefixKey` of a destination -> 0: masquerade leaves packets to it alone.
pub const UNMASQUERADED: &str = "unmasqueraded";
/// External `Addr` -> `FloatingValue`.
pub const FLOATING: &str = "floating";
/// `PrefixKey` of a source -> its length in bits: what comes from it is dropped by uplinks with XDP.
pub const DENIED: &str = "denied";
/// `Addr` of a source's prefix -> nanoseconds since boot until which its new flows to published ports are accounted for.
pub const FLOOD_SOURCES: &str = "flood_sources";
/// `AllowFromKey` -> 0.
pub const ALLOW_FROM: &str = "allow_from";
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
/// `LimitKey` -> `LimitValue`.
pub const LIMITS: &str = "limits";
/// Number of a limit -> `LimitClock`.
pub const LIMIT_CLOCKS: &str = "limit_clocks";
/// `DropKey` -> packets, per CPU.
pub const DROPS: &str = "drops";
/// `Event` records.
pub const EVENTS: &str = "events";
/// 0 -> `CaptureFilter`.
pub const CAPTURE: &str = "capture";
/// CPU -> the perf event through which it hands over captured packets, each a `CaptureHeader` and its bytes.
pub const CAPTURED: &str = "captured";

/// Records that the programs have had to log, per CPU: those that found no room in [`LOGS`] as well.
pub const LOGGED: &str = "logged";
/// What they have logged. The name is aya-log's.
pub const LOGS: &str = "AYA_LOGS";

/// Every map, in the order in which they are listed to people.
pub const ALL: [&str; 28] = [
    CONFIG,
    UPLINKS,
    HOST_ADDRESSES,
    NETWORKS,
    ENDPOINTS,
    MASQUERADE,
    UNMASQUERADED,
    FLOATING,
    DENIED,
    PORT_MAP,
    ALLOW_FROM,
    CONNTRACK,
    UNCONFIRMED,
    MAPPINGS,
    FLOW_SLOTS,
    FLOW_HAND,
    ENDPOINT_USE,
    FRAGMENTS,
    LOCAL_FLOWS,
    FLOOD_SOURCES,
    LIMITS,
    LIMIT_CLOCKS,
    DROPS,
    EVENTS,
    CAPTURE,
    CAPTURED,
    LOGGED,
    LOGS,
];

/// Directions of confirmed flows that can be tracked at once: two for each flow.
pub const CONNTRACK_ENTRIES: usize = 262_144;
/// Confirmed flows that can be tracked at once.
pub const FLOW_SLOTS_ENTRIES: usize = CONNTRACK_ENTRIES / 2;
/// Name of the programs' read-only word with the number of entries that [`FLOW_SLOTS`] was made with.
pub const FLOW_SLOTS_SYMBOL: &str = "FLOW_SLOTS";
/// Directions of flows that can be waiting for confirmation at once.
pub const UNCONFIRMED_ENTRIES: usize = 131_072;
/// Directions of endpoint-independent mappings.
pub const MAPPING_ENTRIES: usize = 131_072;
/// Datagrams in fragments.
pub const FRAGMENT_ENTRIES: usize = 8_192;
/// Destinations that masquerade leaves alone.
pub const UNMASQUERADED_ENTRIES: usize = 1_024;
/// Floating addresses.
pub const FLOATING_ENTRIES: usize = 4_096;
/// Sources on the deny list.
pub const DENIED_ENTRIES: usize = 65_536;
/// Sources whose new flows to published ports are counted.
pub const FLOOD_SOURCE_ENTRIES: usize = 65_536;
/// Clients' prefixes of restricted mappings.
pub const ALLOW_FROM_ENTRIES: usize = 65_536;
/// Addresses of endpoints.
pub const ENDPOINT_ENTRIES: usize = 16_384;
/// Prefixes of networks.
pub const NETWORK_ENTRIES: usize = 1_024;
/// Masquerade rules, and one more for each floating address.
pub const MASQUERADE_ENTRIES: usize = 1_024 + FLOATING_ENTRIES;
/// Blocks of published ports.
pub const PORT_MAP_ENTRIES: usize = 131_072;
/// Uplinks.
pub const UPLINK_ENTRIES: usize = 64;
/// Addresses of the host.
pub const HOST_ADDRESS_ENTRIES: usize = 4_096;
/// Sockets of the host that talk to published ports.
pub const LOCAL_FLOW_ENTRIES: usize = 65_536;
/// How deep in the unified hierarchy a limited cgroup may be, its root counted.
pub const CGROUP_LEVELS: u32 = 16;
/// Limits of cgroups.
pub const LIMIT_ENTRIES: usize = 4_096;
/// Pairs of interface and drop reason.
pub const DROP_ENTRIES: usize = 16_384;
/// Size of the ring buffer, in bytes: a power of two, of whole pages.
pub const EVENT_BYTES: u32 = 256 * 1024;
/// Size of the ring buffer of the log, in bytes, likewise: half a kilobyte for each record.
pub const LOG_BYTES: u32 = 512 * 1024;
