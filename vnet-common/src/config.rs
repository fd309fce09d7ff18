//! The one entry of the configuration map.

use bytemuck::{Pod, Zeroable};

/// Ports by number, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, not below `first`.
    pub last: u16,
}

/// What the programs need to know of their instance. [`Self::abi_version`] stays first for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct DatapathConfig {
    /// [`crate::ABI_VERSION`] of the maps.
    pub abi_version: u32,
    /// Bit n is set if the port map may hold blocks with a prefix of n bits, n below 16: looked for in turn,
    /// longest first, after the single port.
    pub port_blocks: u32,
    /// Cookie of the instance's network namespace (`SO_NETNS_COOKIE`): cgroup hooks act only there.
    pub netns_cookie: u64,
    /// Source ports that masquerade may use.
    pub nat_ports: PortRange,
    /// How much the programs log: a [`crate::LogLevel`]. Of those that are read for every packet, to be near the others.
    /// The resident part sets it while it runs, and nothing else does.
    pub log_level: u32,
    /// Seconds an idle, established TCP flow is kept (RFC 5382 REQ-5: 7440 at least).
    pub tcp_established: u32,
    /// Seconds an idle TCP flow is kept while it opens (RFC 5382 REQ-5: 240 at least; RFC 7857 section 2.1 allows
    /// less).
    pub tcp_opening: u32,
    /// Seconds an idle TCP flow is kept after both FINs or a RST (as above; RFC 7857 section 2.2).
    pub tcp_closing: u32,
    /// Seconds an idle UDP flow is kept that has had no answer (RFC 4787 REQ-5: 120 at least).
    pub udp_unreplied: u32,
    /// Seconds an idle UDP flow is kept that has had one (RFC 4787 REQ-5 recommends 300).
    pub udp_replied: u32,
    /// Seconds an idle UDP flow is kept that an endpoint has opened to port 53, in any state (RFC 4787 REQ-5a allows
    /// less than REQ-5 for a well-known port).
    pub dns: u32,
    /// Seconds an idle ICMP query is kept (RFC 5508 REQ-2: 60 at least).
    pub icmp_query: u32,
    /// Seconds in which all fragments of a datagram must have come (RFC 791 section 3.2 suggests 15, Linux has 30).
    pub fragment: u32,
    /// Flows without an answer that an endpoint may have begun at once; it gets as many anew in the time that such
    /// a flow is kept (RFC 6888 REQ-5). 0 for no limit.
    pub unanswered: u32,
    /// Confirmed flows that an endpoint may have begun at once, each of which holds an external port (RFC 6888
    /// REQ-4). 0 for no limit.
    pub endpoint_flows: u32,
    /// ICMP errors that each CPU may answer with in a second (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 (f)).
    pub icmp_errors: u32,
    /// Any of the `FLAG_` constants.
    pub flags: u32,
    /// Interface out of which fragments are sent to wait for the first of their datagram, 0 for none.
    pub hold: u32,
    /// Fragments of each interface that may begin to wait in a second.
    pub held_fragments: u32,
    /// New flows to published ports that each source (an IPv4 `/24`, an IPv6 `/64`) may begin in a second, where XDP
    /// is on. 0 for no limit.
    pub flood_rate: u32,
    /// New flows to published ports that all sources together may begin in a second, likewise. 0 for no limit.
    pub flood_total: u32,
}

impl DatapathConfig {
    /// The first packets of published flows go through the host's stack once translated, so that the host's rules
    /// for forwarded packets decide on them.
    pub const FLAG_RESPECT_FIREWALL: u32 = 1;
    /// No flow begins: other maps are about to take these ones' entries over. The same bit of `flags` in every version.
    pub const FLAG_FROZEN: u32 = 2;

    /// Timeouts and ports as documented, of no namespace in particular.
    pub const DEFAULT: Self = Self {
        abi_version: crate::ABI_VERSION,
        port_blocks: 0,
        netns_cookie: 0,
        nat_ports: PortRange { first: 49152, last: 65535 },
        log_level: 0,
        tcp_established: 7440,
        tcp_opening: 240,
        tcp_closing: 240,
        udp_unreplied: 120,
        udp_replied: 300,
        dns: 10,
        icmp_query: 60,
        fragment: 30,
        // Each may hold an external port for as long as a mapping lives: less than half of them are one endpoint's.
        unanswered: 2_048,
        endpoint_flows: 65_536,
        icmp_errors: 1_000,
        flags: 0,
        hold: 0,
        held_fragments: 256,
        flood_rate: 0,
        flood_total: 0,
    };
}

/// What the running kernel offers beyond the oldest supported one: bits of the programs' read-only `FEATURES`
/// word, set when they are loaded, so that the verifier removes what the kernel would refuse.
pub mod features {
    /// Name of the word in the object file.
    pub const SYMBOL: &str = "FEATURES";
    /// `BPF_FIB_LOOKUP_SRC` (Linux 6.7): the route lookup also gives the source address.
    pub const FIB_SOURCE: u32 = 1;
    /// `BPF_F_IPV6` of `bpf_l4_csum_replace` (Linux 6.16, and stable kernels): right sums for hardware that
    /// hands over the checksum of a whole IPv6 packet.
    pub const CHECKSUM_IPV6: u32 = 2;
    /// `bpf_set_retval` in the cgroup hooks on addresses (Linux 6.1): they can say why they refuse.
    pub const SET_RETVAL: u32 = 4;
    /// `bpf_skb_set_tstamp` (Linux 5.18): a packet can be told from others whose time is that of its arrival.
    pub const SET_DEPARTURE: u32 = 8;
}
