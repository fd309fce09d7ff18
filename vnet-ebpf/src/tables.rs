//! [`Tables`] over the maps and helpers.

use core::ffi::c_void;

use aya_ebpf::bindings::{
    BPF_ANY, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_NO_SRC_ADDR,
    BPF_FIB_LKUP_RET_NOT_FWDED, BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LOOKUP_SKIP_NEIGH, BPF_FIB_LOOKUP_SRC,
    BPF_NOEXIST, bpf_sock_tuple,
};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_jiffies64, bpf_ktime_get_boot_ns,
    bpf_ktime_get_coarse_ns, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release, bpf_spin_lock,
    bpf_spin_unlock,
};
use vnet_common::{
    Addr, AllowFrom, CtEntry, CtState, DatapathConfig, EndpointUse, EndpointValue, FloatingValue,
    FragmentKey, FragmentValue, HostAddressValue, LocalFlowKey, LocalFlowValue, MappingEntry,
    MasqueradeValue, NetworkValue, Origin, PortMapKey, PortMapValue, Proto, Tuple, UplinkValue, features,
};
use vnet_datapath::answer::Budget;
use vnet_datapath::local::LocalTables;
use vnet_datapath::mappings::Admission;
use vnet_datapath::step::Step;
use vnet_datapath::{Flow, Mapping, NextHop, Ports, Route, RouteQuery, Scratch, Tables};

use crate::environment;
use crate::maps;
use crate::steps;

const NANOSECONDS: u64 = 1_000_000_000;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The maps, and the context of the running program, which some helpers want.
#[derive(Debug)]
pub struct Maps {
    context: *mut c_void,
}

impl Maps {
    /// The maps as a program with this context sees them.
    #[inline(always)]
    pub fn new(context: *mut c_void) -> Self {
        Self { context }
    }

    /// The maps for a function that needs none of the helpers that want a context.
    #[inline(always)]
    pub fn without_context() -> Self {
        Self { context: core::ptr::null_mut() }
    }
}

/// An entry of the flow table, in place.
#[derive(Debug)]
pub struct MapFlow {
    entry: *mut CtEntry,
    confirmed: bool,
}

impl Flow for MapFlow {
    #[inline(always)]
    fn translate(&self, to: &mut Tuple) {
        // SAFETY: a map's value, which stays mapped while the program runs; see `Flow` on races.
        *to = unsafe { (*self.entry).translated };
    }

    #[inline(always)]
    fn answer(&self, to: &mut Tuple) {
        // SAFETY: as above. Field by field, because the whole would go through the small stack.
        let Tuple { src, dst, sport, dport, zone, proto, reserved: _ } = unsafe { &(*self.entry).translated };
        to.src = *dst;
        to.dst = *src;
        to.sport = *dport;
        to.dport = *sport;
        to.zone = *zone;
        to.proto = *proto;
        to.reserved = 0;
    }

    #[inline(always)]
    fn leads_to_answer_of(&self, tuple: &Tuple) -> bool {
        // SAFETY: as above.
        let Tuple { src, dst, sport, dport, zone, proto, reserved: _ } = unsafe { &(*self.entry).translated };
        *src == tuple.dst
            && *dst == tuple.src
            && *sport == tuple.dport
            && *dport == tuple.sport
            && *zone == tuple.zone
            && *proto == tuple.proto
    }

    #[inline(always)]
    fn created(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.entry).created }
    }

    #[inline(always)]
    fn last_seen(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.entry).last_seen }
    }

    #[inline(always)]
    fn state(&self) -> CtState {
        // SAFETY: as above.
        CtState::from_u8(unsafe { (*self.entry).state })
    }

    #[inline(always)]
    fn origin(&self) -> Origin {
        // SAFETY: as above.
        Origin::from_u8(unsafe { (*self.entry).origin })
    }

    #[inline(always)]
    fn flags(&self) -> u8 {
        // SAFETY: as above.
        unsafe { (*self.entry).flags }
    }

    #[inline(always)]
    fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    #[inline(always)]
    fn copy(&self, to: &mut CtEntry) {
        // SAFETY: as above; `to` is working memory, never an entry.
        unsafe { core::ptr::copy_nonoverlapping(self.entry, to, 1) };
    }

    #[inline(always)]
    fn count(&self, bytes: u32) {
        // SAFETY: as above. Not atomic: the target offers no such addition, and one direction of a flow is
        // nearly always handled by one CPU.
        unsafe {
            (*self.entry).packets = (*self.entry).packets.wrapping_add(1);
            (*self.entry).bytes = (*self.entry).bytes.wrapping_add(u64::from(bytes));
        }
    }

    #[inline(always)]
    fn refresh(&self, now: u32, state: CtState) {
        // SAFETY: as above.
        unsafe {
            (*self.entry).last_seen = now;
            (*self.entry).state = state as u8;
        }
    }
}

/// An endpoint-independent mapping, in place.
#[derive(Debug)]
pub struct MapMapping(*mut MappingEntry);

impl Mapping for MapMapping {
    #[inline(always)]
    fn translated(&self) -> Tuple {
        // SAFETY: as for flows.
        unsafe { (*self.0).translated }
    }

    #[inline(always)]
    fn last_seen(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).last_seen }
    }

    #[inline(always)]
    fn filtering(&self) -> u8 {
        // SAFETY: as above.
        unsafe { (*self.0).filtering }
    }

    #[inline(always)]
    fn flags(&self) -> u8 {
        // SAFETY: as above.
        unsafe { (*self.0).flags }
    }

    #[inline(always)]
    fn refresh(&self, now: u32, flags: u8) {
        // SAFETY: as above. Flags are taken away and not given, so that of two CPUs none gives back what the other took.
        unsafe {
            (*self.0).last_seen = now;
            if flags & CtEntry::FLAG_BRIEF == 0 {
                (*self.0).flags = 0;
            }
        }
    }

    #[inline(always)]
    fn renew(&self, flags: u8) {
        // SAFETY: as above.
        unsafe { (*self.0).flags = flags };
    }
}

impl Ports for Maps {
    #[inline(always)]
    fn host_address(&self, addr: &Addr) -> Option<&HostAddressValue> {
        // SAFETY: values of these maps are replaced whole, by the control plane alone.
        unsafe { maps::HOST_ADDRESSES.get(addr) }
    }

    #[inline(always)]
    fn port_map(&self, key: &PortMapKey) -> Option<&PortMapValue> {
        // SAFETY: as above.
        unsafe { maps::PORT_MAP.get(key) }
    }

    #[inline(always)]
    fn config(&self) -> Option<&DatapathConfig> {
        maps::CONFIG.get(0)
    }
}

impl Tables for Maps {
    type Flow<'a> = MapFlow;

    #[inline(always)]
    fn conntrack(&self, tuple: &Tuple) -> Option<MapFlow> {
        let before = self.moved();
        let confirmed = || maps::CONNTRACK.get_ptr_mut(tuple).map(|entry| MapFlow { entry, confirmed: true });
        let found = confirmed().or_else(|| self.unconfirmed(tuple));
        if found.is_none() && self.moved() != before {
            // Between the two looks another CPU may have moved it, which adds before it removes.
            return confirmed();
        }
        found
    }

    #[inline(always)]
    fn unconfirmed(&self, tuple: &Tuple) -> Option<MapFlow> {
        maps::UNCONFIRMED.get_ptr_mut(tuple).map(|entry| MapFlow { entry, confirmed: false })
    }

    #[inline(always)]
    fn is_confirmed(&self, tuple: &Tuple) -> bool {
        maps::CONNTRACK.get_ptr_mut(tuple).is_some()
    }

    #[inline(always)]
    fn add_flow(&self, tuple: &Tuple, entry: &CtEntry) -> Option<()> {
        maps::UNCONFIRMED.insert(tuple, entry, u64::from(BPF_NOEXIST)).ok()
    }

    #[inline(always)]
    fn add_confirmed(&self, tuple: &Tuple, entry: &CtEntry) -> Option<()> {
        maps::CONNTRACK.insert(tuple, entry, u64::from(BPF_NOEXIST)).ok()
    }

    #[inline(always)]
    fn remove_flow(&self, tuple: &Tuple) -> bool {
        self.remove_unconfirmed(tuple);
        maps::CONNTRACK.remove(tuple).is_ok()
    }

    #[inline(always)]
    fn moves(&self) {
        let Some(hand) = maps::FLOW_HAND.get_ptr_mut(0) else { return };
        // SAFETY: as above.
        unsafe {
            bpf_spin_lock((&raw mut (*hand).lock).cast());
            (*hand).moves = (*hand).moves.wrapping_add(1);
            bpf_spin_unlock((&raw mut (*hand).lock).cast());
        }
    }

    #[inline(always)]
    fn moved(&self) -> u32 {
        // SAFETY: as above; read anew each time.
        maps::FLOW_HAND
            .get_ptr_mut(0)
            .map_or(0, |hand| unsafe { core::ptr::read_volatile(&raw const (*hand).moves) })
    }

    #[inline(always)]
    fn remove_unconfirmed(&self, tuple: &Tuple) {
        let _ = maps::UNCONFIRMED.remove(tuple);
    }

    #[inline(always)]
    fn next_slot(&self) -> u32 {
        let Some(hand) = maps::FLOW_HAND.get_ptr_mut(0) else { return 0 };
        let slots = environment::flow_slots();
        // SAFETY: the map's only element; what the lock protects is changed between its two calls.
        unsafe {
            bpf_spin_lock((&raw mut (*hand).lock).cast());
            let next = if (*hand).next < slots { (*hand).next } else { 0 };
            (*hand).next = next.wrapping_add(1);
            bpf_spin_unlock((&raw mut (*hand).lock).cast());
            next
        }
    }

    #[inline(always)]
    fn next_swept(&self) -> u32 {
        let Some(hand) = maps::FLOW_HAND.get_ptr_mut(0) else { return 0 };
        let slots = environment::flow_slots();
        // SAFETY: as above.
        unsafe {
            bpf_spin_lock((&raw mut (*hand).lock).cast());
            let next = if (*hand).sweep < slots { (*hand).sweep } else { 0 };
            (*hand).sweep = next.wrapping_add(1);
            bpf_spin_unlock((&raw mut (*hand).lock).cast());
            next
        }
    }

    #[inline(always)]
    fn sweep_anew(&self) {
        let Some(hand) = maps::FLOW_HAND.get_ptr_mut(0) else { return };
        // SAFETY: the map's only element. Not under its lock: whichever CPU is last, the sweep goes on.
        unsafe { (*hand).sweep = 0 };
    }

    #[inline(always)]
    fn slot(&self, index: u32, tuple: &mut Tuple) {
        match maps::FLOW_SLOTS.get_ptr_mut(index) {
            // SAFETY: a map's element and working memory; one that another CPU is writing is no flow's, or another's.
            Some(slot) => unsafe { core::ptr::copy_nonoverlapping(slot, tuple, 1) },
            None => tuple.proto.number = 0,
        }
    }

    #[inline(always)]
    fn set_slot(&self, index: u32, tuple: &Tuple) {
        if let Some(slot) = maps::FLOW_SLOTS.get_ptr_mut(index) {
            // SAFETY: as above.
            unsafe { core::ptr::copy_nonoverlapping(tuple, slot, 1) };
        }
    }

    #[inline(always)]
    fn endpoint_use<R>(&self, ifindex: u32, change: impl FnOnce(&mut EndpointUse) -> R) -> Option<R> {
        let used = match maps::ENDPOINT_USE.get_ptr_mut(ifindex) {
            Some(used) => used,
            None => {
                // SAFETY: that is what it was made of, and `u64` is aligned as it has to be.
                let unused = unsafe { &*(&raw const UNUSED).cast::<EndpointUse>() };
                let _ = maps::ENDPOINT_USE.insert(ifindex, unused, u64::from(BPF_NOEXIST));
                maps::ENDPOINT_USE.get_ptr_mut(ifindex)?
            }
        };
        // SAFETY: an element of the map; what the lock protects is changed between its two calls.
        unsafe {
            bpf_spin_lock((&raw mut (*used).lock).cast());
            let result = change(&mut *used);
            bpf_spin_unlock((&raw mut (*used).lock).cast());
            Some(result)
        }
    }

    type Mapping<'a> = MapMapping;

    #[inline(always)]
    fn mapping(&self, key: &Tuple) -> Option<MapMapping> {
        maps::MAPPINGS.get_ptr_mut(key).map(MapMapping)
    }

    #[inline(always)]
    fn add_mapping(&self, key: &Tuple, mapping: &MappingEntry) -> Option<()> {
        maps::MAPPINGS.insert(key, mapping, u64::from(BPF_NOEXIST)).ok()
    }

    #[inline(always)]
    fn put_mapping(&self, key: &Tuple, mapping: &MappingEntry) {
        let _ = maps::MAPPINGS.insert(key, mapping, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn remove_mapping(&self, key: &Tuple) {
        let _ = maps::MAPPINGS.remove(key);
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey, to: &mut FragmentValue) -> bool {
        let Some(value) = maps::FRAGMENTS.get_ptr(key) else { return false };
        // SAFETY: a map's value, replaced whole; `to` is working memory.
        unsafe { core::ptr::copy_nonoverlapping(value, to, 1) };
        true
    }

    #[inline(always)]
    fn put_fragment(&self, key: &FragmentKey, value: &FragmentValue) {
        let _ = maps::FRAGMENTS.insert(key, value, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn identification(&self) -> [u8; 2] {
        (self.random() as u16).to_ne_bytes()
    }

    #[inline(always)]
    fn flow_began(&self, tuple: &Tuple, entry: &CtEntry) {
        let Some(mut slot) = maps::EVENTS.reserve(0) else { return };
        // SAFETY: reading the clock has no preconditions.
        let time = unsafe { bpf_ktime_get_boot_ns() };
        let event = slot.as_mut_ptr();
        // SAFETY: reserved memory of the record's size; every field is written. Field by field, because the whole
        // would go through the small stack.
        unsafe {
            (*event).time = time;
            (*event).tuple = *tuple;
            (*event).translated = entry.translated;
            (*event).ifindex = 0;
            (*event).length = entry.bytes as u32;
            (*event).reason = 0;
            (*event).hook = 0;
            (*event).reserved = [0; 6];
        }
        slot.submit(0);
    }

    #[inline(always)]
    fn endpoint(&self, addr: &Addr) -> Option<&EndpointValue> {
        // SAFETY: as above.
        unsafe { maps::ENDPOINTS.get(addr) }
    }

    #[inline(always)]
    fn network(&self, addr: &Addr) -> Option<&NetworkValue> {
        maps::NETWORKS.get(&Key::new(128, *addr))
    }

    #[inline(always)]
    fn masquerade(&self, source: &Addr) -> Option<&MasqueradeValue> {
        maps::MASQUERADE.get(&Key::new(128, *source))
    }

    #[inline(always)]
    fn is_unmasqueraded(&self, destination: &Addr) -> bool {
        maps::UNMASQUERADED.get(&Key::new(128, *destination)).is_some()
    }

    #[inline(always)]
    fn floating(&self, external: &Addr) -> Option<&FloatingValue> {
        // SAFETY: as above.
        unsafe { maps::FLOATING.get(external) }
    }

    #[inline(always)]
    fn is_allowed(&self, mapping: u32, client: &Addr) -> bool {
        maps::ALLOW_FROM.get(&Key::new(160, AllowFrom { mapping, client: *client })).is_some()
    }

    #[inline(always)]
    fn uplink(&self, ifindex: u32) -> Option<&UplinkValue> {
        // SAFETY: as above.
        unsafe { maps::UPLINKS.get(ifindex) }
    }

    #[inline(always)]
    fn route(&self, query: &RouteQuery<'_>) -> Route {
        // SAFETY: no preconditions.
        let tick = unsafe { bpf_jiffies64() };
        let Some(way) = maps::way(Way::place(query)) else { return Route::Stack };
        if !way.answers(query, tick) {
            way.tick = 0;
            let Some(fib) = maps::fib() else { return Route::Stack };
            fib.ask(query);
            let has_source = environment::has(features::FIB_SOURCE);
            let flags = skip_neighbour() | if has_source { BPF_FIB_LOOKUP_SRC } else { 0 };
            // SAFETY: `Fib` has the layout and size of `struct bpf_fib_lookup`.
            let answer = unsafe {
                bpf_fib_lookup(self.context, (&raw mut *fib).cast(), size_of::<Fib>() as i32, flags)
            };
            // Without a known neighbour the packet waits for one at the next hop, as any other would.
            if answer != i64::from(BPF_FIB_LKUP_RET_SUCCESS)
                && answer != i64::from(BPF_FIB_LKUP_RET_NO_NEIGH)
                && answer != i64::from(BPF_FIB_LKUP_RET_NO_SRC_ADDR)
            {
                return Route::Stack;
            }
            way.ask(query);
            way.source = if has_source && answer != i64::from(BPF_FIB_LKUP_RET_NO_SRC_ADDR) {
                // The family of the next hop may differ from that of the packet, not that of the source.
                Fib::addr(query.tuple.src.is_v4(), &mut fib.src)
            } else {
                Addr::ANY_V6
            };
            way.next_hop = Fib::addr(fib.family == AF_INET, &mut fib.dst);
            way.ifindex = fib.ifindex;
            // What was asked with a length is answered with what fits.
            way.mtu = fib.length;
            way.tick = tick;
        }
        Route::Via(NextHop { ifindex: way.ifindex, addr: way.next_hop }, way.source)
    }

    #[inline(always)]
    fn owns(&self, addr: &Addr, arrived: u32) -> bool {
        let Some(fib) = maps::fib() else { return true };
        fib.ask_for(addr, arrived);
        // SAFETY: as above. What is for the host itself is not forwarded.
        let answer = unsafe {
            bpf_fib_lookup(self.context, (&raw mut *fib).cast(), size_of::<Fib>() as i32, skip_neighbour())
        };
        match answer as u32 {
            BPF_FIB_LKUP_RET_NOT_FWDED => true,
            BPF_FIB_LKUP_RET_FWD_DISABLED => self.host_address(addr).is_some(),
            _ => false,
        }
    }

    #[inline(always)]
    fn host_socket(&self, tuple: &Tuple) -> bool {
        // The helper tells the families apart by the length of the tuple.
        let mut key = [0_u8; 36];
        let (ports, length) = if tuple.src.is_v4() {
            key[0..4].copy_from_slice(&tuple.src.v4_bytes());
            key[4..8].copy_from_slice(&tuple.dst.v4_bytes());
            (8, 12)
        } else {
            key[0..16].copy_from_slice(&tuple.src.bytes);
            key[16..32].copy_from_slice(&tuple.dst.bytes);
            (32, 36)
        };
        key[ports..ports + 2].copy_from_slice(&tuple.sport.bytes);
        key[ports + 2..ports + 4].copy_from_slice(&tuple.dport.bytes);
        let key = (&raw mut key).cast::<bpf_sock_tuple>();
        // SAFETY: `key` holds at least `length` bytes laid out as `bpf_sock_tuple`; a socket found is released.
        unsafe {
            let socket = match tuple.proto {
                Proto::TCP => bpf_sk_lookup_tcp(self.context, key, length, CURRENT_NETNS, 0),
                Proto::UDP => bpf_sk_lookup_udp(self.context, key, length, CURRENT_NETNS, 0),
                _ => return false,
            };
            if socket.is_null() {
                return false;
            }
            bpf_sk_release(socket.cast());
        }
        true
    }

    #[inline(always)]
    fn icmp_budget<R>(&self, change: impl FnOnce(&mut Budget) -> R) -> Option<R> {
        maps::icmp_budget().map(change)
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: reading the clock has no preconditions.
        (unsafe { bpf_ktime_get_coarse_ns() } / NANOSECONDS) as u32
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: no preconditions.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn end(&self, tuple: &Tuple, _spare: &mut Tuple) {
        // SAFETY: the pointer is valid for the call.
        unsafe { steps::vnet_end(tuple) };
    }

    #[inline(always)]
    fn look_at_slot(&self, scratch: &mut Scratch) -> bool {
        // SAFETY: as above.
        unsafe { steps::vnet_look_at_slot(scratch) != 0 }
    }

    #[inline(always)]
    fn sweep_slot(&self, scratch: &mut Scratch) -> bool {
        // SAFETY: as above.
        unsafe { steps::vnet_sweep_slot(scratch) != 0 }
    }

    #[inline(always)]
    fn confirm_half(&self, scratch: &mut Scratch) -> bool {
        // SAFETY: as above.
        unsafe { steps::vnet_confirm_half(scratch) != 0 }
    }

    #[inline(always)]
    fn find_target(&self, scratch: &mut Scratch) -> Step {
        // SAFETY: as above.
        Step { code: unsafe { steps::vnet_find_target(scratch) } }
    }

    #[inline(always)]
    fn admit(&self, scratch: &mut Scratch) -> Admission {
        // SAFETY: as above.
        match unsafe { steps::vnet_admit(scratch) } {
            1 => Admission::Admitted,
            2 => Admission::Filtered,
            _ => Admission::Unmapped,
        }
    }
}

impl LocalTables for Maps {
    #[inline(always)]
    fn remember(&self, key: &LocalFlowKey, value: &LocalFlowValue) {
        let _ = maps::LOCAL_FLOWS.insert(key, value, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn recall(&self, key: &LocalFlowKey) -> Option<LocalFlowValue> {
        // SAFETY: values of this map are replaced whole and belong to one socket.
        unsafe { maps::LOCAL_FLOWS.get(key) }.copied()
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the hooks that ask this have made the maps for their context.
        unsafe { bpf_get_socket_cookie(self.context) }
    }
}

/// [`EndpointUse::NOTHING`], which has no place on the small stack. Numbers, because the kernel wants no lock there.
// SAFETY: both are plain numbers, of the same size.
static UNUSED: [u64; size_of::<EndpointUse>().div_ceil(8)] =
    unsafe { core::mem::transmute(EndpointUse::NOTHING) };

/// Ways that each CPU remembers.
pub(crate) const WAYS: usize = 64;
const _: () = assert!(WAYS.is_power_of_two());

/// The flag that leaves it to `bpf_redirect_neigh` to find the neighbour. Since Linux 6.3, so that a kernel that knows
/// of [`features::FIB_SOURCE`] (6.7) has it.
#[inline(always)]
fn skip_neighbour() -> u32 {
    if environment::has(features::FIB_SOURCE) { BPF_FIB_LOOKUP_SKIP_NEIGH } else { 0 }
}

/// `BPF_F_CURRENT_NETNS`.
const CURRENT_NETNS: u64 = u64::MAX;

/// A way that the kernel has answered, good for as long as its clock (`jiffies`) does not tick: a change of routes is
/// heeded within a hundredth of a second.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Way {
    /// When it was answered, 0 for never.
    tick: u64,
    src: Addr,
    dst: Addr,
    bridge: u32,
    ifindex: u32,
    next_hop: Addr,
    source: Addr,
    mtu: u16,
    proto: u8,
}

impl Way {
    /// Where the answer to a question is kept.
    #[inline(always)]
    fn place(query: &RouteQuery<'_>) -> u32 {
        let ([.., src], [.., dst]) = (query.tuple.src.words(), query.tuple.dst.words());
        // The last byte of either, in which addresses differ most.
        (u32::from_be(src) ^ u32::from_be(dst)) & const { WAYS as u32 - 1 }
    }

    /// Whether it is the answer to a question.
    #[inline(always)]
    fn answers(&self, query: &RouteQuery<'_>, tick: u64) -> bool {
        let RouteQuery { tuple, length, bridge, source: _ } = query;
        self.tick == tick
            && self.dst == tuple.dst
            && self.src == tuple.src
            && self.bridge == *bridge
            && self.proto == tuple.proto.number
            && *length <= self.mtu
    }

    /// Notes a question.
    #[inline(always)]
    fn ask(&mut self, query: &RouteQuery<'_>) {
        self.src = query.tuple.src;
        self.dst = query.tuple.dst;
        self.bridge = query.bridge;
        self.proto = query.tuple.proto.number;
    }
}

/// `struct bpf_fib_lookup` without its unions.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Fib {
    family: u8,
    proto: u8,
    sport: u16,
    dport: u16,
    length: u16,
    ifindex: u32,
    flow: u32,
    src: [u32; 4],
    dst: [u32; 4],
    vlan: u32,
    macs: [u32; 3],
}

impl Fib {
    /// Every field, since the kernel leaves its answer to the last question in place.
    #[inline(always)]
    fn ask(&mut self, query: &RouteQuery<'_>) {
        let v4 = query.tuple.src.is_v4();
        self.family = if v4 { AF_INET } else { AF_INET6 };
        self.proto = query.tuple.proto.number;
        self.sport = 0;
        self.dport = 0;
        self.length = query.length;
        self.ifindex = query.bridge;
        self.flow = 0;
        self.src = Self::field(&query.tuple.src, v4);
        self.dst = Self::field(&query.tuple.dst, v4);
        self.vlan = 0;
        self.macs = [0; 3];
    }

    /// The way to one address, from nowhere in particular.
    #[inline(always)]
    fn ask_for(&mut self, addr: &Addr, arrived: u32) {
        let v4 = addr.is_v4();
        self.family = if v4 { AF_INET } else { AF_INET6 };
        self.proto = 0;
        self.sport = 0;
        self.dport = 0;
        self.length = 0;
        self.ifindex = arrived;
        self.flow = 0;
        self.src = [0; 4];
        self.dst = Self::field(addr, v4);
        self.vlan = 0;
        self.macs = [0; 3];
    }

    /// An address as the kernel's structure has it: IPv4 in the first word.
    #[inline(always)]
    fn field(addr: &Addr, v4: bool) -> [u32; 4] {
        let words @ [.., last] = addr.words();
        if v4 { [last, 0, 0, 0] } else { words }
    }

    /// An address out of the kernel's structure.
    #[inline(always)]
    fn addr(v4: bool, field: &mut [u32; 4]) -> Addr {
        if v4 {
            let [first, ..] = *field;
            *field = Addr::v4(first.to_ne_bytes()).words();
        }
        // In place, and opaque: else each word waits for the other case in a place of its own on the small stack.
        Addr::of_words(*core::hint::black_box(field))
    }
}
