//! Every map. Names, keys and values are those of `vnet_common`; they are BTF-defined, so that
//! `bpftool map dump` prints fields by name.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{
    Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, PerfEventByteArray, RingBuf,
};
use aya_ebpf::macros::btf_map;
use vnet_common::maps::{
    ALLOW_FROM_ENTRIES, CONNTRACK_ENTRIES, DENIED_ENTRIES, DROP_ENTRIES, ENDPOINT_ENTRIES, EVENT_BYTES,
    FLOATING_ENTRIES, FLOOD_SOURCE_ENTRIES, FLOW_SLOTS_ENTRIES, FRAGMENT_ENTRIES, HOST_ADDRESS_ENTRIES,
    LIMIT_ENTRIES, LOCAL_FLOW_ENTRIES, MAPPING_ENTRIES, MASQUERADE_ENTRIES, NETWORK_ENTRIES,
    PORT_MAP_ENTRIES, UNCONFIRMED_ENTRIES, UNMASQUERADED_ENTRIES, UPLINK_ENTRIES,
};
use vnet_common::{
    Addr, AllowFrom, CaptureFilter, CtEntry, DatapathConfig, DropKey, EndpointUse, EndpointValue, Event,
    FloatingValue, FlowHand, FragmentKey, FragmentValue, HostAddressValue, LimitClock, LimitKey, LimitValue,
    LocalFlowKey, LocalFlowValue, MappingEntry, MasqueradeValue, NetworkValue, PortMapKey, PortMapValue,
    Tuple, UplinkValue,
};
use vnet_datapath::Scratch;
use vnet_datapath::answer::{Budget, MAX_QUOTE};

use crate::tables::{Fib, WAYS, Way};

/// Memory is taken as entries come: for maps that only the control plane fills, most of which stay small.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// Both directions of every confirmed flow.
#[btf_map(name = "conntrack")]
pub static CONNTRACK: HashMap<Tuple, CtEntry, CONNTRACK_ENTRIES> = HashMap::new();

/// Both directions of every flow that is not confirmed.
#[btf_map(name = "unconfirmed")]
pub static UNCONFIRMED: LruHashMap<Tuple, CtEntry, UNCONFIRMED_ENTRIES> = LruHashMap::new();

/// Both directions of every endpoint-independent mapping.
#[btf_map(name = "mappings")]
pub static MAPPINGS: LruHashMap<Tuple, MappingEntry, MAPPING_ENTRIES> = LruHashMap::new();

/// Where each confirmed flow is noted, so that the expired ones are found one after the other.
#[btf_map(name = "flow_slots")]
pub static FLOW_SLOTS: Array<Tuple, FLOW_SLOTS_ENTRIES> = Array::new();

/// The next of these to look at.
#[btf_map(name = "flow_hand")]
pub static FLOW_HAND: Array<FlowHand, 1> = Array::new();

/// What each endpoint has in use.
#[btf_map(name = "endpoint_use")]
pub static ENDPOINT_USE: HashMap<u32, EndpointUse, ENDPOINT_ENTRIES, ON_DEMAND> = HashMap::new();

/// Datagrams whose first fragment has passed.
#[btf_map(name = "fragments")]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentValue, FRAGMENT_ENTRIES> = LruHashMap::new();

/// Endpoints' addresses.
#[btf_map(name = "endpoints")]
pub static ENDPOINTS: HashMap<Addr, EndpointValue, ENDPOINT_ENTRIES, ON_DEMAND> = HashMap::new();

/// Networks' prefixes.
#[btf_map(name = "networks")]
pub static NETWORKS: LpmTrie<Addr, NetworkValue, NETWORK_ENTRIES> = LpmTrie::new();

/// Masquerade rules.
#[btf_map(name = "masquerade")]
pub static MASQUERADE: LpmTrie<Addr, MasqueradeValue, MASQUERADE_ENTRIES> = LpmTrie::new();

/// Destinations that masquerade leaves alone.
#[btf_map(name = "unmasqueraded")]
pub static UNMASQUERADED: LpmTrie<Addr, u32, UNMASQUERADED_ENTRIES> = LpmTrie::new();

/// Floating addresses.
#[btf_map(name = "floating")]
pub static FLOATING: HashMap<Addr, FloatingValue, FLOATING_ENTRIES, ON_DEMAND> = HashMap::new();

/// The deny list.
#[btf_map(name = "denied")]
pub static DENIED: LpmTrie<Addr, u32, DENIED_ENTRIES> = LpmTrie::new();

/// Until when the new flows of each source are accounted for.
#[btf_map(name = "flood_sources")]
pub static FLOOD_SOURCES: LruHashMap<Addr, u64, FLOOD_SOURCE_ENTRIES> = LruHashMap::new();

/// The same for all sources together. Not pinned: nobody else has any use for it.
#[btf_map(name = "flood_total")]
pub(crate) static FLOOD_TOTAL: Array<u64, 1> = Array::new();

/// Clients of restricted mappings.
#[btf_map(name = "allow_from")]
pub static ALLOW_FROM: LpmTrie<AllowFrom, u32, ALLOW_FROM_ENTRIES> = LpmTrie::new();

/// Published ports.
#[btf_map(name = "port_map")]
pub static PORT_MAP: HashMap<PortMapKey, PortMapValue, PORT_MAP_ENTRIES, ON_DEMAND> = HashMap::new();

/// Interfaces that lead to the world.
#[btf_map(name = "uplinks")]
pub static UPLINKS: HashMap<u32, UplinkValue, UPLINK_ENTRIES, ON_DEMAND> = HashMap::new();

/// The host's addresses.
#[btf_map(name = "host_addresses")]
pub static HOST_ADDRESSES: HashMap<Addr, HostAddressValue, HOST_ADDRESS_ENTRIES, ON_DEMAND> = HashMap::new();

/// What sockets of the host dialled.
#[btf_map(name = "local_flows")]
pub static LOCAL_FLOWS: LruHashMap<LocalFlowKey, LocalFlowValue, LOCAL_FLOW_ENTRIES> = LruHashMap::new();

/// What cgroups may send.
#[btf_map(name = "limits")]
pub static LIMITS: HashMap<LimitKey, LimitValue, LIMIT_ENTRIES, ON_DEMAND> = HashMap::new();

/// When the next packet of each of these limits may leave.
#[btf_map(name = "limit_clocks")]
pub static LIMIT_CLOCKS: HashMap<u32, LimitClock, LIMIT_ENTRIES, ON_DEMAND> = HashMap::new();

/// The configuration.
#[btf_map(name = "config")]
pub static CONFIG: Array<DatapathConfig, 1> = Array::new();

/// Packets dropped, by where and why.
#[btf_map(name = "drops")]
pub static DROPS: PerCpuHashMap<DropKey, u64, DROP_ENTRIES> = PerCpuHashMap::new();

/// What is told to whoever listens.
#[btf_map(name = "events")]
pub static EVENTS: RingBuf<Event, { EVENT_BYTES as usize }> = RingBuf::new();

/// Which dropped packets are captured.
#[btf_map(name = "capture")]
pub static CAPTURE: Array<CaptureFilter, 1> = Array::new();

/// Where they are handed over. It has entries only while somebody captures: they go with his descriptor of the map.
#[btf_map(name = "captured")]
pub static CAPTURED: PerfEventByteArray = PerfEventByteArray::new();

/// Records that there were to log.
#[btf_map(name = "logged")]
pub(crate) static LOGGED: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Working memory of the packet that this CPU deals with. Not pinned: nobody else has any use for it.
#[btf_map(name = "scratch")]
static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// This CPU's working memory.
#[inline(always)]
pub fn scratch() -> Option<&'static mut Scratch> {
    // SAFETY: the classifiers run with bottom halves disabled, so no other packet is dealt with on this CPU until
    // this one is done, and each asks once. A step does so for what its caller has lent it.
    SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
}

/// The working memory that a step's caller has handed on to it, which is this CPU's, as the map has it: before Linux
/// 6.2 the verifier takes no argument of a function for a key or a value of a map, but part of another map's value.
///
/// # Safety
/// `argument` is this CPU's working memory, which the caller has borrowed for the call, or nothing.
#[inline(always)]
pub unsafe fn handed_on(argument: *mut Scratch) -> Option<&'static mut Scratch> {
    // Used, or the compiler takes what stands there for untouched by the step.
    if core::hint::black_box(argument).is_null() {
        return None;
    }
    scratch()
}

/// The two tuples of a flow that ends. Not pinned either.
#[btf_map(name = "ending")]
static ENDING: PerCpuArray<[Tuple; 2], 1> = PerCpuArray::new();

/// This CPU's ending flow.
#[inline(always)]
pub fn ending() -> Option<&'static mut [Tuple; 2]> {
    // SAFETY: as above; one flow has ended before the next one does.
    ENDING.get_ptr_mut(0).map(|ending| unsafe { &mut *ending })
}

/// Question and answer of a route lookup. Not pinned either.
#[btf_map(name = "fib")]
static FIB: PerCpuArray<Fib, 1> = PerCpuArray::new();

/// This CPU's route lookup.
#[inline(always)]
pub(crate) fn fib() -> Option<&'static mut Fib> {
    // SAFETY: as above; a lookup is over before the next one begins.
    FIB.get_ptr_mut(0).map(|fib| unsafe { &mut *fib })
}

/// Answers to route lookups. Not pinned either.
#[btf_map(name = "ways")]
static REMEMBERED: PerCpuArray<Way, WAYS> = PerCpuArray::new();

/// One of this CPU's answers.
#[inline(always)]
pub(crate) fn way(place: u32) -> Option<&'static mut Way> {
    // SAFETY: as above; a packet asks for one at a time.
    REMEMBERED.get_ptr_mut(place).map(|way| unsafe { &mut *way })
}

/// ICMP errors that this CPU has sent. Not pinned either.
#[btf_map(name = "icmp_budget")]
static ICMP_BUDGET: PerCpuArray<Budget, 1> = PerCpuArray::new();

/// This CPU's count of ICMP errors.
#[inline(always)]
pub(crate) fn icmp_budget() -> Option<&'static mut Budget> {
    // SAFETY: as above.
    ICMP_BUDGET.get_ptr_mut(0).map(|budget| unsafe { &mut *budget })
}

/// What an ICMP error quotes, while it is moved. Not pinned either.
#[btf_map(name = "quote")]
static QUOTE: PerCpuArray<[u8; MAX_QUOTE as usize], 1> = PerCpuArray::new();

/// This CPU's quote.
#[inline(always)]
pub(crate) fn quote() -> Option<*mut [u8; MAX_QUOTE as usize]> {
    QUOTE.get_ptr_mut(0)
}
