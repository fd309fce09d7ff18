//! The tables as ordinary collections, with routes you state and a clock you set: what tests compare the kernel
//! with, and what `vnet trace` runs a described packet over.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use vnet_common::{
    Addr, CtEntry, CtState, DatapathConfig, EndpointValue, HostAddressValue, LocalFlowKey, LocalFlowValue,
    MasqueradeValue, NetworkValue, Origin, PortMapKey, PortMapValue, PrefixKey, Tuple, UplinkValue,
};

use crate::local::LocalTables;
use crate::tables::{Flow, NextHop, Ports, Route, RouteQuery, Source, Tables};

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
    /// Tracked flows.
    pub conntrack: RefCell<HashMap<Tuple, CtEntry>>,
    /// Entries the flow table takes.
    pub conntrack_capacity: usize,
    /// Flows that began, in order.
    pub began: RefCell<Vec<(Tuple, CtEntry)>>,
    /// Endpoints' addresses.
    pub endpoints: HashMap<Addr, EndpointValue>,
    /// Networks by prefix.
    pub networks: HashMap<PrefixKey, NetworkValue>,
    /// Masquerade rules by prefix.
    pub masquerade: HashMap<PrefixKey, MasqueradeValue>,
    /// Published ports.
    pub port_map: HashMap<PortMapKey, PortMapValue>,
    /// Uplinks by interface index.
    pub uplinks: HashMap<u32, UplinkValue>,
    /// The host's addresses.
    pub host_addresses: HashMap<Addr, HostAddressValue>,
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
            conntrack_capacity: usize::MAX,
            began: RefCell::default(),
            endpoints: HashMap::new(),
            networks: HashMap::new(),
            masquerade: HashMap::new(),
            port_map: HashMap::new(),
            uplinks: HashMap::new(),
            host_addresses: HashMap::new(),
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
}

impl ModelFlow<'_> {
    fn entry(&self) -> CtEntry {
        self.model.conntrack.borrow().get(&self.tuple).copied().unwrap_or(bytemuck::Zeroable::zeroed())
    }
}

impl Flow for ModelFlow<'_> {
    #[inline]
    fn translated(&self) -> Tuple {
        self.entry().translated
    }

    #[inline]
    fn last_seen(&self) -> u32 {
        self.entry().last_seen
    }

    #[inline]
    fn created(&self) -> u32 {
        self.entry().created
    }

    #[inline]
    fn mapping(&self) -> u32 {
        self.entry().mapping
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
    fn count(&self, bytes: u32) {
        if let Some(entry) = self.model.conntrack.borrow_mut().get_mut(&self.tuple) {
            entry.packets = entry.packets.wrapping_add(1);
            entry.bytes = entry.bytes.wrapping_add(u64::from(bytes));
        }
    }

    #[inline]
    fn refresh(&self, now: u32, state: CtState) {
        if let Some(entry) = self.model.conntrack.borrow_mut().get_mut(&self.tuple) {
            entry.last_seen = now;
            entry.state = state as u8;
        }
    }
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
        self.conntrack.borrow().contains_key(tuple).then_some(ModelFlow { model: self, tuple: *tuple })
    }

    #[inline]
    fn add_flow(&self, tuple: &Tuple, entry: &CtEntry) -> Option<()> {
        let mut table = self.conntrack.borrow_mut();
        if table.contains_key(tuple) || table.len() >= self.conntrack_capacity {
            return None;
        }
        table.insert(*tuple, *entry);
        Some(())
    }

    #[inline]
    fn remove_flow(&self, tuple: &Tuple) {
        self.conntrack.borrow_mut().remove(tuple);
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
            Some(route) if query.length <= route.mtu && !self.host_addresses.contains_key(dst) => {
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
    fn host_socket(&self, tuple: &Tuple) -> bool {
        self.host_sockets.contains(tuple)
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

impl LocalTables for Model {
    #[inline]
    fn remember(&self, key: &LocalFlowKey, value: &LocalFlowValue) {
        self.local_flows.borrow_mut().insert(*key, *value);
    }

    #[inline]
    fn recall(&self, key: &LocalFlowKey) -> Option<LocalFlowValue> {
        self.local_flows.borrow().get(key).copied()
    }
}
