//! The tables as ordinary collections, with routes you state and a clock you set: what tests compare the kernel
//! with, and what `vnet trace` runs a described packet over.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use bytemuck::Zeroable;
use vnet_common::maps::FLOW_SLOTS_ENTRIES;
use vnet_common::{
    Addr, CtEntry, CtState, DatapathConfig, EndpointUse, EndpointValue, FloatingValue, FragmentKey,
    FragmentValue, HostAddressValue, LocalFlowKey, LocalFlowValue, MappingEntry, MasqueradeValue,
    NetworkValue, Origin, PortMapKey, PortMapValue, PrefixKey, Tuple, UplinkValue,
};

use crate::answer::Budget;
use crate::early::Early;
use crate::local::LocalTables;
use crate::tables::{Flow, Mapping, NextHop, Ports, Route, RouteQuery, Source, Tables};

/// A route of the model.
#[derive(Clone, Copy, Debug)]
pub struct ModelRoute {
    /// What it leads to.
    pub prefix: PrefixKey,
    /// Where it leads; an unspecified address means "directly to the destination".
    pub next_hop: NextHop,
    /// The source address the host would use.
    pub source: Addr,
    /// Largest packet it takes, in bytes.
    pub mtu: u16,
}

/// The tables as ordinary collections.
#[derive(Clone, Debug)]
pub struct Model {
    /// Confirmed flows.
    pub conntrack: RefCell<HashMap<Tuple, CtEntry>>,
    /// Flows that are not confirmed.
    pub unconfirmed: RefCell<HashMap<Tuple, CtEntry>>,
    /// Where confirmed flows are noted, by index.
    pub slots: RefCell<HashMap<u32, Tuple>>,
    /// How many slots there are.
    pub slot_count: u32,
    /// The next of these to look at.
    pub hand: Cell<u32>,
    /// The next of these to sweep.
    pub sweep: Cell<u32>,
    /// How many flows have been confirmed.
    pub moves: Cell<u32>,
    /// What endpoints have in use, by interface.
    pub endpoint_use: RefCell<HashMap<u32, EndpointUse>>,
    /// Endpoint-independent mappings.
    pub mappings: RefCell<HashMap<Tuple, MappingEntry>>,
    /// What is noted of datagrams in fragments.
    pub fragments: RefCell<HashMap<FragmentKey, FragmentValue>>,
    /// The next IPv4 identification to be drawn.
    pub identification: Cell<u16>,
    /// ICMP errors sent.
    pub icmp_budget: Cell<Budget>,
    /// Flows that began, in order.
    pub began: RefCell<Vec<(Tuple, CtEntry)>>,
    /// Endpoints' addresses.
    pub endpoints: HashMap<Addr, EndpointValue>,
    /// Networks by prefix.
    pub networks: HashMap<PrefixKey, NetworkValue>,
    /// Masquerade rules by prefix.
    pub masquerade: HashMap<PrefixKey, MasqueradeValue>,
    /// Destinations that masquerade leaves alone.
    pub unmasqueraded: HashMap<PrefixKey, u32>,
    /// Floating addresses.
    pub floating: HashMap<Addr, FloatingValue>,
    /// The deny list: the length of each prefix.
    pub denied: HashMap<PrefixKey, u32>,
    /// Until when new flows are accounted for, by their source's prefix.
    pub flood_sources: RefCell<HashMap<Addr, u64>>,
    /// The same for all sources together.
    pub flood_total: Cell<u64>,
    /// Published ports.
    pub port_map: HashMap<PortMapKey, PortMapValue>,
    /// Clients' prefixes of restricted mappings, by mapping.
    pub allow_from: HashMap<(u32, PrefixKey), u32>,
    /// Uplinks by interface index.
    pub uplinks: HashMap<u32, UplinkValue>,
    /// The host's addresses.
    pub host_addresses: HashMap<Addr, HostAddressValue>,
    /// What routing takes for the host's own besides: addresses that vnet has not noted, and broadcasts.
    pub unnoted: HashSet<Addr>,
    /// What sockets of the host dialled.
    pub local_flows: RefCell<HashMap<LocalFlowKey, LocalFlowValue>>,
    /// Tuples from the world that a socket of the host would take.
    pub host_sockets: HashSet<Tuple>,
    /// Routes.
    pub routes: Vec<ModelRoute>,
    /// Configuration.
    pub config: DatapathConfig,
    /// Seconds since boot.
    pub clock: u32,
    /// State of the chance generator.
    pub seed: Cell<u32>,
}

impl Default for Model {
    #[inline]
    fn default() -> Self {
        Self {
            conntrack: RefCell::default(),
            unconfirmed: RefCell::default(),
            slots: RefCell::default(),
            slot_count: FLOW_SLOTS_ENTRIES as u32,
            hand: Cell::new(0),
            sweep: Cell::new(0),
            moves: Cell::new(0),
            endpoint_use: RefCell::default(),
            mappings: RefCell::default(),
            fragments: RefCell::default(),
            identification: Cell::new(1),
            icmp_budget: Cell::new(Budget::zeroed()),
            began: RefCell::default(),
            endpoints: HashMap::new(),
            networks: HashMap::new(),
            masquerade: HashMap::new(),
            unmasqueraded: HashMap::new(),
            floating: HashMap::new(),
            denied: HashMap::new(),
            flood_sources: RefCell::default(),
            flood_total: Cell::new(0),
            port_map: HashMap::new(),
            allow_from: HashMap::new(),
            uplinks: HashMap::new(),
            host_addresses: HashMap::new(),
            unnoted: HashSet::new(),
            local_flows: RefCell::default(),
            host_sockets: HashSet::new(),
            routes: Vec::new(),
            config: DatapathConfig::DEFAULT,
            clock: 1_000,
            seed: Cell::new(1),
        }
    }
}

/// An entry of the model's flow table.
#[derive(Debug)]
pub struct ModelFlow<'a> {
    model: &'a Model,
    tuple: Tuple,
    confirmed: bool,
}

impl ModelFlow<'_> {
    fn entry(&self) -> CtEntry {
        let entry = self.table().borrow().get(&self.tuple).copied();
        entry.unwrap_or(Zeroable::zeroed())
    }

    fn table(&self) -> &RefCell<HashMap<Tuple, CtEntry>> {
        if self.confirmed { &self.model.conntrack } else { &self.model.unconfirmed }
    }

    fn change(&self, change: impl FnOnce(&mut CtEntry)) {
        if let Some(entry) = self.table().borrow_mut().get_mut(&self.tuple) {
            change(entry);
        }
    }
}

impl Flow for ModelFlow<'_> {
    #[inline]
    fn translate(&self, to: &mut Tuple) {
        *to = self.entry().translated;
    }

    #[inline]
    fn answer(&self, to: &mut Tuple) {
        *to = self.entry().twin();
    }

    #[inline]
    fn leads_to_answer_of(&self, tuple: &Tuple) -> bool {
        self.entry().translated == tuple.answer()
    }

    #[inline]
    fn created(&self) -> u32 {
        self.entry().created
    }

    #[inline]
    fn last_seen(&self) -> u32 {
        self.entry().last_seen
    }

    #[inline]
    fn state(&self) -> CtState {
        CtState::from_u8(self.entry().state)
    }

    #[inline]
    fn origin(&self) -> Origin {
        Origin::from_u8(self.entry().origin)
    }

    #[inline]
    fn flags(&self) -> u8 {
        self.entry().flags
    }

    #[inline]
    fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    #[inline]
    fn copy(&self, to: &mut CtEntry) {
        *to = self.entry();
    }

    #[inline]
    fn count(&self, bytes: u32) {
        self.change(|entry| {
            entry.packets = entry.packets.wrapping_add(1);
            entry.bytes = entry.bytes.wrapping_add(u64::from(bytes));
        });
    }

    #[inline]
    fn refresh(&self, now: u32, state: CtState) {
        self.change(|entry| {
            entry.last_seen = now;
            entry.state = state as u8;
        });
    }
}

/// A mapping of the model.
#[derive(Debug)]
pub struct ModelMapping<'a> {
    model: &'a Model,
    key: Tuple,
}

impl ModelMapping<'_> {
    fn entry(&self) -> MappingEntry {
        self.model.mappings.borrow().get(&self.key).copied().unwrap_or(Zeroable::zeroed())
    }
}

impl Mapping for ModelMapping<'_> {
    #[inline]
    fn translated(&self) -> Tuple {
        self.entry().translated
    }

    #[inline]
    fn last_seen(&self) -> u32 {
        self.entry().last_seen
    }

    #[inline]
    fn filtering(&self) -> u8 {
        self.entry().filtering
    }

    #[inline]
    fn flags(&self) -> u8 {
        self.entry().flags
    }

    #[inline]
    fn refresh(&self, now: u32, flags: u8) {
        if let Some(entry) = self.model.mappings.borrow_mut().get_mut(&self.key) {
            entry.last_seen = now;
            if flags & CtEntry::FLAG_BRIEF == 0 {
                entry.flags = 0;
            }
        }
    }

    #[inline]
    fn renew(&self, flags: u8) {
        if let Some(entry) = self.model.mappings.borrow_mut().get_mut(&self.key) {
            entry.flags = flags;
        }
    }
}

/// Adds an entry that is not there.
fn add<V: Copy>(table: &RefCell<HashMap<Tuple, V>>, key: &Tuple, value: &V) -> Option<()> {
    let mut table = table.borrow_mut();
    if table.contains_key(key) {
        return None;
    }
    table.insert(*key, *value);
    Some(())
}

/// The entry with the longest prefix that covers an address.
fn longest<'m, V>(map: &'m HashMap<PrefixKey, V>, addr: &Addr) -> Option<&'m V> {
    map.iter()
        .filter(|(key, _)| covers(key, addr))
        .max_by_key(|(key, _)| key.prefix_len)
        .map(|(_, value)| value)
}

fn covers(key: &PrefixKey, addr: &Addr) -> bool {
    key.addr.same_prefix(addr, u8::try_from(key.prefix_len).unwrap_or(128))
}

impl Ports for Model {
    #[inline]
    fn host_address(&self, addr: &Addr) -> Option<&HostAddressValue> {
        self.host_addresses.get(addr)
    }

    #[inline]
    fn port_map(&self, key: &PortMapKey) -> Option<&PortMapValue> {
        self.port_map.get(key)
    }

    #[inline]
    fn config(&self) -> Option<&DatapathConfig> {
        Some(&self.config)
    }
}

impl Tables for Model {
    type Flow<'a> = ModelFlow<'a>;

    #[inline]
    fn conntrack(&self, tuple: &Tuple) -> Option<ModelFlow<'_>> {
        let confirmed = self.is_confirmed(tuple);
        let found = confirmed || self.unconfirmed.borrow().contains_key(tuple);
        found.then_some(ModelFlow { model: self, tuple: *tuple, confirmed })
    }

    #[inline]
    fn unconfirmed(&self, tuple: &Tuple) -> Option<ModelFlow<'_>> {
        let found = self.unconfirmed.borrow().contains_key(tuple);
        found.then_some(ModelFlow { model: self, tuple: *tuple, confirmed: false })
    }

    #[inline]
    fn is_confirmed(&self, tuple: &Tuple) -> bool {
        self.conntrack.borrow().contains_key(tuple)
    }

    #[inline]
    fn add_flow(&self, tuple: &Tuple, entry: &CtEntry) -> Option<()> {
        add(&self.unconfirmed, tuple, entry)
    }

    #[inline]
    fn add_confirmed(&self, tuple: &Tuple, entry: &CtEntry) -> Option<()> {
        add(&self.conntrack, tuple, entry)
    }

    #[inline]
    fn remove_flow(&self, tuple: &Tuple) -> bool {
        self.remove_unconfirmed(tuple);
        self.conntrack.borrow_mut().remove(tuple).is_some()
    }

    #[inline]
    fn moves(&self) {
        self.moves.set(self.moves.get().wrapping_add(1));
    }

    #[inline]
    fn moved(&self) -> u32 {
        self.moves.get()
    }

    #[inline]
    fn remove_unconfirmed(&self, tuple: &Tuple) {
        self.unconfirmed.borrow_mut().remove(tuple);
    }

    #[inline]
    fn next_slot(&self) -> u32 {
        let next = if self.hand.get() < self.slot_count { self.hand.get() } else { 0 };
        self.hand.set(next + 1);
        next
    }

    #[inline]
    fn next_swept(&self) -> u32 {
        let next = if self.sweep.get() < self.slot_count { self.sweep.get() } else { 0 };
        self.sweep.set(next + 1);
        next
    }

    #[inline]
    fn sweep_anew(&self) {
        self.sweep.set(0);
    }

    #[inline]
    fn slot(&self, index: u32, tuple: &mut Tuple) {
        *tuple = self.slots.borrow().get(&index).copied().unwrap_or(Zeroable::zeroed());
    }

    #[inline]
    fn set_slot(&self, index: u32, tuple: &Tuple) {
        self.slots.borrow_mut().insert(index, *tuple);
    }

    #[inline]
    fn endpoint_use<R>(&self, ifindex: u32, change: impl FnOnce(&mut EndpointUse) -> R) -> Option<R> {
        Some(change(self.endpoint_use.borrow_mut().entry(ifindex).or_insert(EndpointUse::NOTHING)))
    }

    type Mapping<'a> = ModelMapping<'a>;

    #[inline]
    fn mapping(&self, key: &Tuple) -> Option<ModelMapping<'_>> {
        self.mappings.borrow().contains_key(key).then_some(ModelMapping { model: self, key: *key })
    }

    #[inline]
    fn add_mapping(&self, key: &Tuple, mapping: &MappingEntry) -> Option<()> {
        add(&self.mappings, key, mapping)
    }

    #[inline]
    fn put_mapping(&self, key: &Tuple, mapping: &MappingEntry) {
        self.mappings.borrow_mut().insert(*key, *mapping);
    }

    #[inline]
    fn remove_mapping(&self, key: &Tuple) {
        self.mappings.borrow_mut().remove(key);
    }

    #[inline]
    fn fragment(&self, key: &FragmentKey, to: &mut FragmentValue) -> bool {
        self.fragments.borrow().get(key).map(|value| *to = *value).is_some()
    }

    #[inline]
    fn put_fragment(&self, key: &FragmentKey, value: &FragmentValue) {
        self.fragments.borrow_mut().insert(*key, *value);
    }

    #[inline]
    fn identification(&self) -> [u8; 2] {
        let id = self.identification.get();
        self.identification.set(id.wrapping_add(1));
        id.to_be_bytes()
    }

    #[inline]
    fn flow_began(&self, tuple: &Tuple, entry: &CtEntry) {
        self.began.borrow_mut().push((*tuple, *entry));
    }

    #[inline]
    fn endpoint(&self, addr: &Addr) -> Option<&EndpointValue> {
        self.endpoints.get(addr)
    }

    #[inline]
    fn network(&self, addr: &Addr) -> Option<&NetworkValue> {
        longest(&self.networks, addr)
    }

    #[inline]
    fn masquerade(&self, source: &Addr) -> Option<&MasqueradeValue> {
        longest(&self.masquerade, source)
    }

    #[inline]
    fn is_unmasqueraded(&self, destination: &Addr) -> bool {
        longest(&self.unmasqueraded, destination).is_some()
    }

    #[inline]
    fn floating(&self, external: &Addr) -> Option<&FloatingValue> {
        self.floating.get(external)
    }

    #[inline]
    fn is_allowed(&self, mapping: u32, client: &Addr) -> bool {
        self.allow_from.keys().any(|(id, prefix)| *id == mapping && covers(prefix, client))
    }

    #[inline]
    fn uplink(&self, ifindex: u32) -> Option<&UplinkValue> {
        self.uplinks.get(&ifindex)
    }

    #[inline]
    fn route(&self, query: &RouteQuery<'_>) -> Route {
        let dst = &query.tuple.dst;
        let best = self
            .routes
            .iter()
            .filter(|route| covers(&route.prefix, dst) && route.prefix.addr.is_v4() == dst.is_v4())
            .max_by_key(|route| route.prefix.prefix_len);
        match best {
            Some(route) if query.length <= route.mtu && !self.owns(dst, 0) => {
                let direct = route.next_hop.addr.is_unspecified();
                let addr = if direct { *dst } else { route.next_hop.addr };
                let source = match query.source {
                    Source::Wanted => route.source,
                    Source::Given => Addr::ANY_V6,
                };
                Route::Via(NextHop { ifindex: route.next_hop.ifindex, addr }, source)
            }
            _ => Route::Stack,
        }
    }

    #[inline]
    fn owns(&self, addr: &Addr, _arrived: u32) -> bool {
        self.host_addresses.contains_key(addr) || self.unnoted.contains(addr)
    }

    #[inline]
    fn host_socket(&self, tuple: &Tuple) -> bool {
        self.host_sockets.contains(tuple)
    }

    #[inline]
    fn icmp_budget<R>(&self, change: impl FnOnce(&mut Budget) -> R) -> Option<R> {
        let mut budget = self.icmp_budget.get();
        let result = change(&mut budget);
        self.icmp_budget.set(budget);
        Some(result)
    }

    #[inline]
    fn now(&self) -> u32 {
        self.clock
    }

    #[inline]
    fn random(&self) -> u32 {
        // xorshift32: tests want chance that repeats.
        let mut x = self.seed.get();
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.seed.set(x);
        x
    }
}

impl Early for Model {
    #[inline]
    fn is_denied(&self, source: &Addr) -> bool {
        longest(&self.denied, source).is_some()
    }

    #[inline]
    fn nanoseconds(&self) -> u64 {
        u64::from(self.clock) * 1_000_000_000
    }

    #[inline]
    fn source_due(&self, prefix: &Addr) -> u64 {
        self.flood_sources.borrow().get(prefix).copied().unwrap_or(0)
    }

    #[inline]
    fn set_source_due(&self, prefix: &Addr, due: u64) {
        self.flood_sources.borrow_mut().insert(*prefix, due);
    }

    #[inline]
    fn total_due(&self) -> u64 {
        self.flood_total.get()
    }

    #[inline]
    fn set_total_due(&self, due: u64) {
        self.flood_total.set(due);
    }
}

impl LocalTables for Model {
    #[inline]
    fn remember(&self, key: &LocalFlowKey, value: &LocalFlowValue) {
        self.local_flows.borrow_mut().insert(*key, *value);
    }

    #[inline]
    fn recall(&self, key: &LocalFlowKey) -> Option<LocalFlowValue> {
        self.local_flows.borrow().get(key).copied()
    }

    #[inline]
    fn cookie(&self) -> u64 {
        1
    }
}
