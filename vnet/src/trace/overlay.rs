//! Live tables that can be written to without changing them: what a packet would change is kept above them, and
//! everything asked is noted.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::hash::Hash;

use bytemuck::Zeroable;
use elsa::FrozenMap;
use vnet_common::{
    Addr, CtEntry, CtState, DatapathConfig, EndpointUse, EndpointValue, FloatingValue, FlowHand, FragmentKey,
    FragmentValue, HostAddressValue, LocalFlowKey, LocalFlowValue, MappingEntry, MasqueradeValue,
    NetworkValue, Origin, PortMapKey, PortMapValue, Tuple, UplinkValue,
};
use vnet_datapath::answer::Budget;
use vnet_datapath::early::Early;
use vnet_datapath::local::LocalTables;
use vnet_datapath::mappings::{self, Admission};
use vnet_datapath::step::Step;
use vnet_datapath::{Flow, Mapping, Ports, Route, RouteQuery, Scratch, Tables, begin, conntrack};

use super::fact::{Change, Fact, Target, Tracked};
use super::live::{Forwarding, Live};

/// The tables as a described packet sees them.
pub(super) struct Overlay<'l, L: Live> {
    live: &'l L,
    /// The interface on which the packet is met.
    hooked: Cell<u32>,
    /// Whether the packet's own flow is what is looked for next.
    looking: Cell<bool>,
    /// Seconds for which nothing was heard of the packet's own flow, while that ends.
    over: Cell<Option<u32>>,
    /// The first thing that could not be read.
    error: RefCell<Option<L::Error>>,
    facts: RefCell<Vec<Fact>>,
    config: OnceCell<Option<DatapathConfig>>,
    host_addresses: Read<Addr, HostAddressValue>,
    port_map: Read<PortMapKey, PortMapValue>,
    endpoints: Read<Addr, EndpointValue>,
    networks: Read<Addr, NetworkValue>,
    masquerade: Read<Addr, MasqueradeValue>,
    floating: Read<Addr, FloatingValue>,
    uplinks: Read<u32, UplinkValue>,
    confirmed: Layer<Tuple, CtEntry>,
    unconfirmed: Layer<Tuple, CtEntry>,
    mappings: Layer<Tuple, MappingEntry>,
    fragments: Layer<FragmentKey, FragmentValue>,
    endpoint_use: Layer<u32, EndpointUse>,
    slots: Layer<u32, Tuple>,
    local_flows: Layer<LocalFlowKey, LocalFlowValue>,
    due: Layer<Addr, u64>,
    total_due: Layer<(), u64>,
    hand: Cell<Option<FlowHand>>,
    budget: Cell<Budget>,
}

/// What has been read of a table that no packet changes: read once, so that a packet is not judged by two states of it.
type Read<K, V> = FrozenMap<K, Box<Option<V>>>;

/// What has been read of a table that packets change, and what it would be.
struct Layer<K, V>(RefCell<HashMap<K, Entry<V>>>);

/// An entry of a layer.
#[derive(Clone, Copy)]
struct Entry<V> {
    before: Option<V>,
    after: Option<V>,
}

impl<K: Copy + Eq + Hash, V: Copy + PartialEq> Layer<K, V> {
    fn new() -> Self {
        Self(RefCell::default())
    }

    /// What is there, by what has been read before or else is read now.
    fn get<E>(&self, key: &K, read: impl FnOnce() -> Result<Option<V>, E>) -> Result<Option<V>, E> {
        if let Some(entry) = self.0.borrow().get(key) {
            return Ok(entry.after);
        }
        let before = read()?;
        self.0.borrow_mut().insert(*key, Entry { before, after: before });
        Ok(before)
    }

    /// Makes it something else; it has been read before.
    fn set(&self, key: &K, after: Option<V>) {
        self.0.borrow_mut().entry(*key).or_insert(Entry { before: None, after: None }).after = after;
    }

    fn change(&self, key: &K, change: impl FnOnce(&mut V)) {
        if let Some(Entry { after: Some(value), .. }) = self.0.borrow_mut().get_mut(key) {
            change(value);
        }
    }

    /// What is there, if it has been read.
    fn known(&self, key: &K) -> Option<V> {
        self.0.borrow().get(key).and_then(|entry| entry.after)
    }

    /// The entries that would not be what they are.
    fn changed(&self) -> Vec<(K, Entry<V>)> {
        let entries = self.0.borrow();
        let changed = entries.iter().filter(|(_, entry)| entry.before != entry.after);
        changed.map(|(key, entry)| (*key, *entry)).collect()
    }
}

impl<'l, L: Live> Overlay<'l, L> {
    pub(super) fn new(live: &'l L) -> Self {
        Self {
            live,
            hooked: Cell::new(0),
            looking: Cell::new(false),
            over: Cell::new(None),
            error: RefCell::new(None),
            facts: RefCell::default(),
            config: OnceCell::new(),
            host_addresses: Read::new(),
            port_map: Read::new(),
            endpoints: Read::new(),
            networks: Read::new(),
            masquerade: Read::new(),
            floating: Read::new(),
            uplinks: Read::new(),
            confirmed: Layer::new(),
            unconfirmed: Layer::new(),
            mappings: Layer::new(),
            fragments: Layer::new(),
            endpoint_use: Layer::new(),
            slots: Layer::new(),
            local_flows: Layer::new(),
            due: Layer::new(),
            total_due: Layer::new(),
            hand: Cell::new(None),
            budget: Cell::new(Budget::zeroed()),
        }
    }

    /// Where the packet is met from now on.
    pub(super) fn hook_at(&self, ifindex: u32) {
        self.hooked.set(ifindex);
    }

    /// That the packet's own flow is about to be looked for, or has been.
    pub(super) fn look(&self, about_to: bool) {
        self.looking.set(about_to);
    }

    /// [`Live::is_local`].
    pub(super) fn is_local(&self, addr: &Addr) -> bool {
        self.live.is_local(addr)
    }

    /// [`Live::forwarding`].
    pub(super) fn forwarding(&self, v4: bool, ifindex: u32) -> Forwarding {
        self.ok(self.live.forwarding(v4, ifindex), Forwarding::AsRouted)
    }

    /// Notes a fact.
    pub(super) fn note(&self, fact: Fact) {
        self.facts.borrow_mut().push(fact);
    }

    /// What has been noted since this was asked last; an error if something could not be read.
    pub(super) fn facts(&self) -> Result<Vec<Fact>, L::Error> {
        match self.error.take() {
            Some(error) => Err(error),
            None => Ok(self.facts.take()),
        }
    }

    /// What packets would have left behind.
    pub(super) fn changes(&self) -> Vec<Change> {
        let flows = |layer: &Layer<Tuple, CtEntry>, confirmed| {
            let mut changed = layer.changed();
            changed.sort_by_key(|(tuple, _)| *tuple);
            let change =
                move |(tuple, Entry { before, after })| Change::Flow { tuple, confirmed, before, after };
            changed.into_iter().map(change)
        };
        let mut mappings = self.mappings.changed();
        mappings.sort_by_key(|(key, _)| *key);
        let mapping = |(key, Entry { before, after })| Change::Mapping { key, before, after };
        let fragment = |(key, entry): (_, Entry<_>)| Some(Change::Fragment { key, after: entry.after? });
        let dialled = |(key, entry): (_, Entry<_>)| Some(Change::Dialled { key, after: entry.after? });
        let mut changes: Vec<Change> = flows(&self.unconfirmed, false).collect();
        changes.extend(flows(&self.confirmed, true));
        changes.extend(mappings.into_iter().map(mapping));
        changes.extend(self.fragments.changed().into_iter().filter_map(fragment));
        changes.extend(self.local_flows.changed().into_iter().filter_map(dialled));
        changes
    }

    /// What was read, or nothing if that failed, which is noted.
    fn ok<T>(&self, read: Result<T, L::Error>, otherwise: T) -> T {
        read.unwrap_or_else(|error| {
            self.error.borrow_mut().get_or_insert(error);
            otherwise
        })
    }

    /// The entry of a table that no packet changes.
    fn read<'t, K: Eq + Hash + Copy, V>(
        &self,
        table: &'t Read<K, V>,
        key: &K,
        read: impl FnOnce() -> Result<Option<V>, L::Error>,
    ) -> Option<&'t V> {
        if let Some(known) = table.get(key) {
            return known.as_ref();
        }
        table.insert(*key, Box::new(self.ok(read(), None))).as_ref()
    }

    fn confirmed_entry(&self, tuple: &Tuple) -> Option<CtEntry> {
        self.ok(self.confirmed.get(tuple, || self.live.confirmed(tuple)), None)
    }

    fn unconfirmed_entry(&self, tuple: &Tuple) -> Option<CtEntry> {
        self.ok(self.unconfirmed.get(tuple, || self.live.unconfirmed(tuple)), None)
    }

    fn mapping_entry(&self, key: &Tuple) -> Option<MappingEntry> {
        self.ok(self.mappings.get(key, || self.live.mapping(key)), None)
    }

    fn hand(&self) -> FlowHand {
        match self.hand.get() {
            Some(hand) => hand,
            None => self.ok(self.live.hand(), None).unwrap_or(FlowHand::zeroed()),
        }
    }

    fn slots(&self) -> u32 {
        self.ok(self.live.slots(), 0)
    }
}

/// A direction of a flow, in the layer of its table.
pub(super) struct LayeredFlow<'a> {
    table: &'a Layer<Tuple, CtEntry>,
    tuple: Tuple,
    confirmed: bool,
}

impl LayeredFlow<'_> {
    fn entry(&self) -> CtEntry {
        self.table.known(&self.tuple).unwrap_or(CtEntry::zeroed())
    }
}

impl Flow for LayeredFlow<'_> {
    fn translate(&self, to: &mut Tuple) {
        *to = self.entry().translated;
    }

    fn answer(&self, to: &mut Tuple) {
        *to = self.entry().twin();
    }

    fn leads_to_answer_of(&self, tuple: &Tuple) -> bool {
        self.entry().translated == tuple.answer()
    }

    fn created(&self) -> u32 {
        self.entry().created
    }

    fn last_seen(&self) -> u32 {
        self.entry().last_seen
    }

    fn state(&self) -> CtState {
        CtState::from_u8(self.entry().state)
    }

    fn origin(&self) -> Origin {
        Origin::from_u8(self.entry().origin)
    }

    fn flags(&self) -> u8 {
        self.entry().flags
    }

    fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    fn copy(&self, to: &mut CtEntry) {
        *to = self.entry();
    }

    fn count(&self, bytes: u32) {
        self.table.change(&self.tuple, |entry| {
            entry.packets = entry.packets.wrapping_add(1);
            entry.bytes = entry.bytes.wrapping_add(u64::from(bytes));
        });
    }

    fn refresh(&self, now: u32, state: CtState) {
        self.table.change(&self.tuple, |entry| {
            entry.last_seen = now;
            entry.state = state as u8;
        });
    }
}

/// A direction of an endpoint-independent mapping, likewise.
pub(super) struct LayeredMapping<'a> {
    table: &'a Layer<Tuple, MappingEntry>,
    key: Tuple,
}

impl LayeredMapping<'_> {
    fn entry(&self) -> MappingEntry {
        self.table.known(&self.key).unwrap_or(MappingEntry::zeroed())
    }
}

impl Mapping for LayeredMapping<'_> {
    fn translated(&self) -> Tuple {
        self.entry().translated
    }

    fn last_seen(&self) -> u32 {
        self.entry().last_seen
    }

    fn filtering(&self) -> u8 {
        self.entry().filtering
    }

    fn flags(&self) -> u8 {
        self.entry().flags
    }

    fn refresh(&self, now: u32, flags: u8) {
        self.table.change(&self.key, |entry| {
            entry.last_seen = now;
            if flags & CtEntry::FLAG_BRIEF == 0 {
                entry.flags = 0;
            }
        });
    }

    fn renew(&self, flags: u8) {
        self.table.change(&self.key, |entry| entry.flags = flags);
    }
}

impl<L: Live> Ports for Overlay<'_, L> {
    fn host_address(&self, addr: &Addr) -> Option<&HostAddressValue> {
        let found = self.read(&self.host_addresses, addr, || self.live.host_address(addr));
        self.note(Fact::HostAddress(*addr, found.copied()));
        found
    }

    fn port_map(&self, key: &PortMapKey) -> Option<&PortMapValue> {
        self.read(&self.port_map, key, || self.live.port_map(key))
    }

    fn config(&self) -> Option<&DatapathConfig> {
        self.config.get_or_init(|| self.ok(self.live.config(), None)).as_ref()
    }
}

impl<L: Live> Tables for Overlay<'_, L> {
    type Flow<'a>
        = LayeredFlow<'a>
    where
        Self: 'a;

    fn conntrack(&self, tuple: &Tuple) -> Option<LayeredFlow<'_>> {
        let confirmed = self.confirmed_entry(tuple);
        let entry = confirmed.or_else(|| self.unconfirmed_entry(tuple));
        if self.looking.take() {
            let idle = |entry: &CtEntry| self.now().saturating_sub(entry.last_seen);
            let tracked =
                entry.map(|entry| Tracked { entry, confirmed: confirmed.is_some(), idle: idle(&entry) });
            self.note(Fact::Flow(tracked));
        }
        let confirmed = confirmed.is_some();
        let table = if confirmed { &self.confirmed } else { &self.unconfirmed };
        entry.map(|_| LayeredFlow { table, tuple: *tuple, confirmed })
    }

    fn unconfirmed(&self, tuple: &Tuple) -> Option<LayeredFlow<'_>> {
        let table = &self.unconfirmed;
        self.unconfirmed_entry(tuple).map(|_| LayeredFlow { table, tuple: *tuple, confirmed: false })
    }

    fn is_confirmed(&self, tuple: &Tuple) -> bool {
        self.confirmed_entry(tuple).is_some()
    }

    fn add_flow(&self, tuple: &Tuple, entry: &CtEntry) -> Option<()> {
        let free = self.unconfirmed_entry(tuple).is_none();
        free.then(|| self.unconfirmed.set(tuple, Some(*entry)))
    }

    fn add_confirmed(&self, tuple: &Tuple, entry: &CtEntry) -> Option<()> {
        let free = self.confirmed_entry(tuple).is_none();
        free.then(|| self.confirmed.set(tuple, Some(*entry)))
    }

    fn remove_flow(&self, tuple: &Tuple) -> bool {
        self.remove_unconfirmed(tuple);
        let found = self.confirmed_entry(tuple).is_some();
        self.confirmed.set(tuple, None);
        found
    }

    fn moves(&self) {}

    fn moved(&self) -> u32 {
        // There is but one packet.
        0
    }

    fn remove_unconfirmed(&self, tuple: &Tuple) {
        let _ = self.unconfirmed_entry(tuple);
        self.unconfirmed.set(tuple, None);
    }

    fn flow_began(&self, tuple: &Tuple, entry: &CtEntry) {
        let CtEntry { translated, mapping, .. } = *entry;
        self.note(Fact::Began { tuple: *tuple, translated, mapping });
    }

    fn next_slot(&self) -> u32 {
        let hand = self.hand();
        let next = if hand.next < self.slots() { hand.next } else { 0 };
        self.hand.set(Some(FlowHand { next: next.wrapping_add(1), ..hand }));
        next
    }

    fn next_swept(&self) -> u32 {
        let hand = self.hand();
        let next = if hand.sweep < self.slots() { hand.sweep } else { 0 };
        self.hand.set(Some(FlowHand { sweep: next.wrapping_add(1), ..hand }));
        next
    }

    fn sweep_anew(&self) {
        self.hand.set(Some(FlowHand { sweep: 0, ..self.hand() }));
    }

    fn slot(&self, index: u32, tuple: &mut Tuple) {
        let slot = self.ok(self.slots.get(&index, || self.live.slot(index)), None);
        *tuple = slot.unwrap_or(Tuple::zeroed());
    }

    fn set_slot(&self, index: u32, tuple: &Tuple) {
        self.slots.set(&index, Some(*tuple));
    }

    fn endpoint_use<R>(&self, ifindex: u32, change: impl FnOnce(&mut EndpointUse) -> R) -> Option<R> {
        let used = self.ok(self.endpoint_use.get(&ifindex, || self.live.endpoint_use(ifindex)), None);
        let mut used = used.unwrap_or(EndpointUse::NOTHING);
        let result = change(&mut used);
        self.endpoint_use.set(&ifindex, Some(used));
        Some(result)
    }

    type Mapping<'a>
        = LayeredMapping<'a>
    where
        Self: 'a;

    fn mapping(&self, key: &Tuple) -> Option<LayeredMapping<'_>> {
        self.mapping_entry(key).map(|_| LayeredMapping { table: &self.mappings, key: *key })
    }

    fn add_mapping(&self, key: &Tuple, mapping: &MappingEntry) -> Option<()> {
        let free = self.mapping_entry(key).is_none();
        free.then(|| self.mappings.set(key, Some(*mapping)))
    }

    fn put_mapping(&self, key: &Tuple, mapping: &MappingEntry) {
        let _ = self.mapping_entry(key);
        self.mappings.set(key, Some(*mapping));
    }

    fn remove_mapping(&self, key: &Tuple) {
        let _ = self.mapping_entry(key);
        self.mappings.set(key, None);
    }

    fn fragment(&self, key: &FragmentKey, to: &mut FragmentValue) -> bool {
        let found = self.ok(self.fragments.get(key, || self.live.fragment(key)), None);
        found.map(|value| *to = value).is_some()
    }

    fn put_fragment(&self, key: &FragmentKey, value: &FragmentValue) {
        let _ = self.ok(self.fragments.get(key, || self.live.fragment(key)), None);
        self.fragments.set(key, Some(*value));
    }

    fn identification(&self) -> [u8; 2] {
        (self.random() as u16).to_ne_bytes()
    }

    fn endpoint(&self, addr: &Addr) -> Option<&EndpointValue> {
        let found = self.read(&self.endpoints, addr, || self.live.endpoint(addr));
        self.note(Fact::Endpoint(*addr, found.copied()));
        found
    }

    fn network(&self, addr: &Addr) -> Option<&NetworkValue> {
        let found = self.read(&self.networks, addr, || self.live.network(addr));
        self.note(Fact::Network(*addr, found.copied()));
        found
    }

    fn masquerade(&self, source: &Addr) -> Option<&MasqueradeValue> {
        let found = self.read(&self.masquerade, source, || self.live.masquerade(source));
        self.note(Fact::Masquerade(*source, found.copied()));
        found
    }

    fn is_unmasqueraded(&self, destination: &Addr) -> bool {
        let left_alone = self.ok(self.live.is_unmasqueraded(destination), false);
        if left_alone {
            self.note(Fact::Unmasqueraded(*destination));
        }
        left_alone
    }

    fn floating(&self, external: &Addr) -> Option<&FloatingValue> {
        self.read(&self.floating, external, || self.live.floating(external))
    }

    fn is_allowed(&self, mapping: u32, client: &Addr) -> bool {
        let allowed = self.ok(self.live.is_allowed(mapping, client), false);
        self.note(Fact::Allowed { mapping, client: *client, allowed });
        allowed
    }

    fn uplink(&self, ifindex: u32) -> Option<&UplinkValue> {
        let found = self.read(&self.uplinks, &ifindex, || self.live.uplink(ifindex));
        self.note(Fact::Uplink(ifindex, found.copied()));
        found
    }

    fn route(&self, query: &RouteQuery<'_>) -> Route {
        let route = self.ok(self.live.route(query, self.hooked.get()), Route::Stack);
        self.note(Fact::Route(query.tuple.dst, route));
        route
    }

    fn owns(&self, addr: &Addr, arrived: u32) -> bool {
        let owned = self.ok(self.live.owns(addr, arrived, self.hooked.get()), false);
        self.note(Fact::Owns(*addr, owned));
        owned
    }

    fn host_socket(&self, tuple: &Tuple) -> bool {
        let taken = self.ok(self.live.host_socket(tuple, self.hooked.get()), false);
        self.note(Fact::Socket(*tuple, taken));
        taken
    }

    fn icmp_budget<R>(&self, change: impl FnOnce(&mut Budget) -> R) -> Option<R> {
        let mut budget = self.budget.get();
        let result = change(&mut budget);
        self.budget.set(budget);
        Some(result)
    }

    fn now(&self) -> u32 {
        self.live.now()
    }

    fn random(&self) -> u32 {
        self.live.random()
    }

    fn end(&self, tuple: &Tuple, spare: &mut Tuple) {
        if let Some(Fact::Flow(Some(Tracked { idle, .. }))) = self.facts.borrow().last().copied() {
            self.over.set(Some(idle));
        }
        conntrack::end(self, tuple, spare);
        if let Some(idle) = self.over.take() {
            self.note(Fact::Over(idle));
        }
    }

    fn find_target(&self, scratch: &mut Scratch) -> Step {
        let before = self.facts.borrow().len();
        let step = begin::find_target(self, scratch);
        let Scratch { translated, opening, .. } = scratch;
        let target =
            Target { translated: *translated, mapping: opening.mapping, allowed: step == Step::OPEN };
        // Who may use it was asked once it was found.
        self.facts.borrow_mut().insert(before, Fact::Target((step != Step::PASS).then_some(target)));
        step
    }

    fn admit(&self, scratch: &mut Scratch) -> Admission {
        let admission = mappings::admit(self, scratch);
        if admission != Admission::Unmapped {
            self.note(Fact::Admission(admission, scratch.translated));
        }
        admission
    }
}

impl<L: Live> Early for Overlay<'_, L> {
    fn is_denied(&self, source: &Addr) -> bool {
        let denied = self.ok(self.live.is_denied(source), false);
        self.note(Fact::Denied(*source, denied));
        denied
    }

    fn nanoseconds(&self) -> u64 {
        self.live.nanoseconds()
    }

    fn source_due(&self, prefix: &Addr) -> u64 {
        self.ok(self.due.get(prefix, || self.live.source_due(prefix)), None).unwrap_or(0)
    }

    fn set_source_due(&self, prefix: &Addr, due: u64) {
        self.due.set(prefix, Some(due));
    }

    fn total_due(&self) -> u64 {
        self.ok(self.total_due.get(&(), || self.live.total_due()), None).unwrap_or(0)
    }

    fn set_total_due(&self, due: u64) {
        self.total_due.set(&(), Some(due));
    }
}

impl<L: Live> LocalTables for Overlay<'_, L> {
    fn remember(&self, key: &LocalFlowKey, value: &LocalFlowValue) {
        self.local_flows.set(key, Some(*value));
    }

    fn recall(&self, key: &LocalFlowKey) -> Option<LocalFlowValue> {
        self.local_flows.known(key)
    }

    fn cookie(&self) -> u64 {
        // A socket that nobody has.
        0
    }
}
