//! The packet logic in the kernel, by `BPF_PROG_TEST_RUN`.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::hash::Hash;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use aya::maps::{self, IterableMap, Map, MapData, PerCpuHashMap, PerCpuValues, RingBuf};
use aya::programs::{Program, ProgramError, SchedClassifier, TestRun, TestRunOptions, TestRunResult, Xdp};
use aya::{Ebpf, EbpfLoader};
use bytemuck::{Pod, Zeroable};
use vnet::instance::Instance;
use vnet_common::{
    Addr, AllowFrom, AllowFromKey, CtEntry, DatapathConfig, DropKey, DropReason, EndpointUse, EndpointValue,
    Event, FloatingValue, FlowHand, FragmentKey, FragmentValue, Hook, HostAddressValue, MappingEntry,
    MasqueradeValue, NetworkValue, PortMapKey, PortMapValue, PrefixKey, Proto, Tuple, UplinkValue, features,
    maps as names,
};
use vnet_datapath::model::Model;

use super::{Arrival, Fate, Outcome, Refused, Runner, Stage, Way, host};
use crate::case::Entry;

/// More than any frame that a test run takes.
const LARGEST_FRAME: usize = 4096;
const ETHERNET_HEADER: usize = 14;

/// A type of the ABI as aya wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Abi<T>(pub T);

// SAFETY: `bytemuck::Pod` demands at least what `aya::Pod` does: no padding, any bit pattern valid, no pointer;
// and `Abi<T>` has the layout of `T`.
unsafe impl<T: Pod> aya::Pod for Abi<T> {}

/// Parses an object and creates its maps, with its programs not yet loaded.
///
/// # Panics
/// When the object is empty, or the kernel refuses.
#[must_use]
pub fn load(object: &[u8], features: u32) -> Ebpf {
    load_with_room(object, features, names::FLOW_SLOTS_ENTRIES as u32)
}

/// As [`load`], with room for so many confirmed flows.
fn load_with_room(object: &[u8], features: u32, flows: u32) -> Ebpf {
    assert!(!object.is_empty(), "built without eBPF programs: `cargo xtask setup`, then build again");
    let mut loader = EbpfLoader::new();
    loader.override_global(features::SYMBOL, &features, true);
    loader.override_global("FLOW_SLOTS", &flows, true);
    loader.map_max_entries(names::FLOW_SLOTS, flows);
    loader.map_max_entries(names::CONNTRACK, 2 * flows);
    loader.map_max_entries(names::LOGS, names::LOG_BYTES);
    loader
        .load(object)
        .unwrap_or_else(|e| panic!("load the eBPF object (are you root?): {:#}", anyhow::Error::from(e)))
}

/// Runs in the kernel.
pub struct Kernel {
    way: Way,
    object: Ebpf,
    tables: Tables,
    drops: PerCpuHashMap<MapData, Abi<DropKey>, u64>,
    events: RingBuf<MapData>,
    /// Sockets that the model says the host has.
    sockets: Vec<OwnedFd>,
    out: Vec<u8>,
}

impl Kernel {
    /// The classifiers that vnet loads.
    ///
    /// # Panics
    /// When they cannot be loaded, as for [`Self::xdp`].
    #[must_use]
    pub fn tc(stage: &Stage) -> Self {
        Self::tc_with_room(stage, names::FLOW_SLOTS_ENTRIES as u32)
    }

    /// The same, with room for so many confirmed flows.
    #[must_use]
    pub fn tc_with_room(stage: &Stage, flows: u32) -> Self {
        Self::new(stage, Way::Tc, vnet::kernel::OBJECT, flows)
    }

    /// The same logic as XDP programs. They have neither [`Hook::ToUplink`] nor [`Hook::ToBridge`].
    #[must_use]
    pub fn xdp(stage: &Stage) -> Self {
        Self::new(stage, Way::Xdp, vnet::kernel::RUNNERS, names::FLOW_SLOTS_ENTRIES as u32)
    }

    fn new(_stage: &Stage, way: Way, object: &[u8], flows: u32) -> Self {
        let mut object = load_with_room(object, vnet::kernel::Kernel::features(), flows);
        for (name, program) in object.programs_mut() {
            match program {
                Program::SchedClassifier(program) => program.load(),
                Program::Xdp(program) => program.load(),
                _ => Ok(()),
            }
            .unwrap_or_else(|e| panic!("load {name}: {:#}", anyhow::Error::from(e)));
        }
        let drops = PerCpuHashMap::try_from(object.take_map(names::DROPS).expect("drops"));
        let events = RingBuf::try_from(object.take_map(names::EVENTS).expect("events"));
        Self {
            way,
            tables: Tables::of(&mut object),
            drops: drops.expect("drop counters of the expected sizes"),
            events: events.expect("a ring buffer"),
            sockets: Vec::new(),
            object,
            out: vec![0; LARGEST_FRAME],
        }
    }

    /// Changes an entry of the flow table, or removes it.
    ///
    /// # Panics
    /// When there is no such entry to be removed.
    pub fn change_flow(&mut self, tuple: Tuple, confirmed: bool, entry: Option<CtEntry>) {
        let table = if confirmed { &mut self.tables.conntrack } else { &mut self.tables.unconfirmed };
        match entry {
            Some(entry) => table.insert([(tuple, entry)]),
            None => table.remove(&tuple),
        }
    }

    /// Copies what packets have left behind into a model.
    pub fn learnt(&mut self, model: &Model) {
        model.conntrack.replace(self.tables.conntrack.entries());
        model.unconfirmed.replace(self.tables.unconfirmed.entries());
        model.mappings.replace(self.tables.mappings.entries());
        model.fragments.replace(self.tables.fragments.entries());
        model.endpoint_use.replace(self.tables.endpoint_use.entries());
        let next = self.tables.next_slot();
        model.hand.set(next);
        let hand = self.tables.flow_hand.value(&0);
        model.sweep.set(hand.sweep);
        model.moves.set(hand.moves);
        model.slots.replace((0..next).map(|slot| (slot, self.tables.flow_slots.value(&slot))).collect());
    }

    /// Pins the tables, and the program of uplinks with XDP, as an instance's are: for whoever reads them from there.
    ///
    /// # Panics
    /// When the instance's directories are in no BPF file system.
    pub fn pin(&mut self, instance: &Instance) {
        let program = instance.program_pin(Hook::XdpUplink.name());
        fs::create_dir_all(instance.program_pin("")).expect("a directory for pins");
        self.tables.pin(&instance.pin_dir());
        let early = self.object.program_mut(Hook::XdpUplink.name()).expect("what vnet loads");
        early.pin(&program).unwrap_or_else(|e| panic!("pin {}: {e}", program.display()));
    }

    /// Replaces the configuration, and nothing else.
    pub fn configure(&mut self, config: DatapathConfig) {
        self.tables.config.insert([(0, config)]);
    }

    /// Whether uplinks with XDP let a frame pass, as it is.
    ///
    /// # Errors
    /// Why not.
    ///
    /// # Panics
    /// When the kernel refuses to run the program, the frame has changed, or what is counted is not what is done.
    pub fn early(&mut self, ifindex: u32, frame: &[u8]) -> Result<(), DropReason> {
        let before = self.drops();
        let result = self.run_early(ifindex, frame, 1);
        let length = result.data_size_out as usize;
        assert_eq!(&self.out[..length], frame, "XDP has changed a frame");
        let mut counted = self.drops();
        counted.retain(|key, count| before.get(key) != Some(count));
        let counted: Vec<(DropKey, u64)> =
            counted.iter().map(|(key, count)| (*key, count - before.get(key).unwrap_or(&0))).collect();
        match (result.return_value as i32, &counted[..]) {
            (XDP_PASS, []) => Ok(()),
            (XDP_DROP, [(key, 1)]) => {
                assert_eq!((key.ifindex, Hook::from_u8(key.hook)), (ifindex, Some(Hook::XdpUplink)));
                Err(DropReason::from_u8(key.reason).expect("a reason"))
            }
            unexpected => panic!("verdict and drops {unexpected:?}"),
        }
    }

    /// What the kernel says that the program of uplinks with XDP takes for a frame: the mean of so many runs.
    ///
    /// # Panics
    /// When the kernel refuses to run it.
    pub fn time_early(&mut self, ifindex: u32, frame: &[u8], runs: u32) -> Duration {
        self.run_early(ifindex, frame, runs).duration
    }

    fn run_early(&mut self, ifindex: u32, frame: &[u8], repeat: u32) -> TestRunResult {
        let program: &Xdp = program(&self.object, Hook::XdpUplink.name());
        let context = XdpMd { data_end: frame.len() as u32, ingress_ifindex: ifindex, ..XdpMd::zeroed() };
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut *self.out),
            ctx_in: Some(bytemuck::bytes_of(&context)),
            repeat,
            ..TestRunOptions::new()
        };
        let length = frame.len();
        program.test_run(options).unwrap_or_else(|e| {
            panic!("run {} on {length} bytes: {:#}", Hook::XdpUplink.name(), anyhow::Error::from(e))
        })
    }

    /// The classifier of a hook, for whoever has it run by other means.
    ///
    /// # Panics
    /// When the runner is one of XDP programs.
    #[must_use]
    pub fn classifier(&self, hook: Hook) -> BorrowedFd<'_> {
        let program: &SchedClassifier = program(&self.object, hook.name());
        program.fd().expect("loaded by `new`").as_fd()
    }

    fn start(&mut self, arrival: &Arrival<'_>) -> Result<TestRunResult, ProgramError> {
        let (data_in, data_out) = (Some(arrival.frame), Some(&mut *self.out));
        let options = |context| {
            let ctx_in = Some(context);
            TestRunOptions { data_in, data_out, ctx_in, ..TestRunOptions::new() }
        };
        let (hook, frame) = (arrival.hook.name(), arrival.frame);
        match self.way {
            Way::Tc => {
                let context = SkBuff {
                    ifindex: arrival.ifindex,
                    ingress_ifindex: arrival.came_in_by,
                    gso_size: arrival.segment,
                    ..SkBuff::zeroed()
                };
                let program: &SchedClassifier = program(&self.object, hook);
                program.test_run(options(bytemuck::bytes_of(&context)))
            }
            Way::Xdp => {
                assert_eq!(arrival.segment, 0, "XDP knows no aggregates");
                let context = XdpMd {
                    data_end: frame.len() as u32,
                    ingress_ifindex: arrival.ifindex,
                    ..XdpMd::zeroed()
                };
                let program: &Xdp = program(&self.object, &format!("xdp_{hook}"));
                program.test_run(options(bytemuck::bytes_of(&context)))
            }
            Way::Host => unreachable!("the host is no kernel"),
        }
    }

    /// Whether test runs of this kind refuse a frame: without an Ethernet header, or as a socket buffer whose
    /// ethertype promises a network header that is not there.
    fn refuses(&self, frame: &[u8]) -> bool {
        let there = frame.len().checked_sub(ETHERNET_HEADER);
        let network = match frame.get(12..14) {
            Some([0x08, 0x00]) => 20,
            Some([0x86, 0xdd]) => 40,
            _ => 0,
        };
        there.is_none_or(|there| self.way == Way::Tc && there < network)
    }

    /// What the programs have told since the last run.
    fn told(&mut self) -> Vec<Event> {
        let mut told = Vec::new();
        while let Some(record) = self.events.next() {
            told.push(bytemuck::pod_read_unaligned(&record));
        }
        told
    }

    fn fate(&self, code: u32, drop: Option<&Event>) -> Fate {
        let code = code as i32;
        let fate = match self.way {
            Way::Tc => match code {
                TC_ACT_UNSPEC => Some(Fate::Passed),
                TC_ACT_REDIRECT => Some(Fate::Redirected),
                TC_ACT_SHOT => None,
                _ => panic!("unknown verdict {code} of a classifier"),
            },
            Way::Xdp => match code {
                XDP_PASS => Some(Fate::Passed),
                XDP_TX => Some(Fate::Forwarded),
                XDP_REDIRECT => Some(Fate::Delivered),
                XDP_ABORTED => Some(Fate::Held),
                XDP_DROP => None,
                _ => panic!("unknown verdict {code} of an XDP program"),
            },
            Way::Host => unreachable!("the host is no kernel"),
        };
        match (fate, drop) {
            (Some(fate), None) => fate,
            (None, Some(event)) => Fate::Dropped(event.drop_reason().expect("a reason")),
            (fate, drop) => panic!("verdict {fate:?} with the event {drop:?}"),
        }
    }
}

impl Runner for Kernel {
    fn way(&self) -> Way {
        self.way
    }

    fn fill(&mut self, model: &Model) {
        self.tables.fill(model);
        let counted: Vec<_> = self.drops.keys().map(|key| key.expect("a key")).collect();
        for key in counted {
            self.drops.remove(&key).expect("remove a drop counter");
        }
        // The old ones first: the new may want the same ports.
        self.sockets.clear();
        self.sockets = model.host_sockets.iter().map(open).collect();
        self.told();
    }

    fn run(&mut self, arrival: &Arrival<'_>) -> Result<Outcome, Refused> {
        let result = self.start(arrival);
        if self.refuses(arrival.frame) {
            assert!(result.is_err(), "{:?} takes a frame without its network header now", self.way);
            return Err(Refused);
        }
        let result = result.unwrap_or_else(|e| {
            let length = arrival.frame.len();
            panic!(
                "run {} by {:?} on {length} bytes: {:#}",
                arrival.hook.name(),
                self.way,
                anyhow::Error::from(e)
            )
        });
        let told = self.told();
        let (began, dropped): (Vec<&Event>, Vec<&Event>) = told.iter().partition(|event| event.reason == 0);
        for event in &dropped {
            let expected = (arrival.ifindex, arrival.hook as u8, arrival.frame.len());
            assert_eq!((event.ifindex, event.hook, event.length as usize), expected, "what {event:?} tells");
        }
        assert!(dropped.len() <= 1, "one packet dropped for several reasons: {dropped:?}");
        let mut frame = self.out[..result.data_size_out as usize].to_vec();
        let answered =
            self.way == Way::Tc && result.return_value as i32 == TC_ACT_REDIRECT && dropped.len() == 1;
        let answer = answered.then(|| std::mem::replace(&mut frame, arrival.frame.to_vec()));
        let code = if answered { TC_ACT_SHOT as u32 } else { result.return_value };
        Ok(Outcome {
            fate: self.fate(code, dropped.first().copied()),
            frame,
            answer,
            began: began.iter().map(|event| (event.tuple, event.translated)).collect(),
            verdict: None,
        })
    }

    fn flows(&mut self) -> HashMap<Tuple, Entry> {
        let model = Model::default();
        self.learnt(&model);
        host::flows(&model)
    }

    fn mappings(&mut self) -> HashMap<Tuple, MappingEntry> {
        self.tables.mappings.entries()
    }

    fn endpoint_use(&mut self) -> HashMap<u32, EndpointUse> {
        self.tables.endpoint_use.entries()
    }

    fn drops(&mut self) -> HashMap<DropKey, u64> {
        let sum = |entry: Result<(Abi<DropKey>, PerCpuValues<u64>), _>| {
            let (Abi(key), values) = entry.expect("a drop counter");
            assert!(
                DropReason::from_u8(key.reason).is_some() && Hook::from_u8(key.hook).is_some(),
                "{key:?}"
            );
            (key, values.iter().sum())
        };
        self.drops.iter().map(sum).collect()
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("way", &self.way).finish_non_exhaustive()
    }
}

fn program<'a, P>(object: &'a Ebpf, name: &str) -> &'a P
where
    &'a P: TryFrom<&'a Program, Error: std::fmt::Debug>,
{
    let program = object.program(name).unwrap_or_else(|| panic!("no program {name} in the object"));
    program.try_into().unwrap_or_else(|e| panic!("{name} is of another kind: {e:?}"))
}

/// A socket of the host that takes packets with this tuple.
fn open(tuple: &Tuple) -> OwnedFd {
    let at = (IpAddr::from(tuple.dst), tuple.dport.number());
    match tuple.proto {
        Proto::TCP => TcpListener::bind(at).map(OwnedFd::from),
        Proto::UDP => UdpSocket::bind(at).map(OwnedFd::from),
        proto => panic!("no sockets for {proto}"),
    }
    .unwrap_or_else(|e| panic!("bind a {} socket to {at:?}: {e}", tuple.proto))
}

/// The maps that a model describes.
#[derive(Debug)]
struct Tables {
    config: Table<u32, DatapathConfig>,
    uplinks: Table<u32, UplinkValue>,
    host_addresses: Table<Addr, HostAddressValue>,
    networks: Table<PrefixKey, NetworkValue>,
    masquerade: Table<PrefixKey, MasqueradeValue>,
    endpoints: Table<Addr, EndpointValue>,
    port_map: Table<PortMapKey, PortMapValue>,
    unmasqueraded: Table<PrefixKey, u32>,
    floating: Table<Addr, FloatingValue>,
    allow_from: Table<AllowFromKey, u32>,
    conntrack: Table<Tuple, CtEntry>,
    unconfirmed: Table<Tuple, CtEntry>,
    mappings: Table<Tuple, MappingEntry>,
    fragments: Table<FragmentKey, FragmentValue>,
    flow_slots: Table<u32, Tuple>,
    flow_hand: Table<u32, FlowHand>,
    endpoint_use: Table<u32, EndpointUse>,
    early: Option<Early>,
}

/// The maps that only the program of uplinks with XDP looks at.
#[derive(Debug)]
struct Early {
    denied: Table<PrefixKey, u32>,
    flood_sources: Table<Addr, u64>,
    flood_total: Table<u32, u64>,
}

impl Tables {
    fn of(object: &mut Ebpf) -> Self {
        Self {
            config: Table::of(object, names::CONFIG),
            uplinks: Table::of(object, names::UPLINKS),
            host_addresses: Table::of(object, names::HOST_ADDRESSES),
            networks: Table::of(object, names::NETWORKS),
            masquerade: Table::of(object, names::MASQUERADE),
            endpoints: Table::of(object, names::ENDPOINTS),
            port_map: Table::of(object, names::PORT_MAP),
            unmasqueraded: Table::of(object, names::UNMASQUERADED),
            floating: Table::of(object, names::FLOATING),
            allow_from: Table::of(object, names::ALLOW_FROM),
            conntrack: Table::of(object, names::CONNTRACK),
            unconfirmed: Table::of(object, names::UNCONFIRMED),
            mappings: Table::of(object, names::MAPPINGS),
            fragments: Table::of(object, names::FRAGMENTS),
            flow_slots: Table::of(object, names::FLOW_SLOTS),
            flow_hand: Table::of(object, names::FLOW_HAND),
            endpoint_use: Table::of(object, names::ENDPOINT_USE),
            early: object.map(names::DENIED).is_some().then(|| Early {
                denied: Table::of(object, names::DENIED),
                flood_sources: Table::of(object, names::FLOOD_SOURCES),
                flood_total: Table::of(object, "flood_total"),
            }),
        }
    }

    fn pin(&self, directory: &Path) {
        self.config.pin(directory, names::CONFIG);
        self.uplinks.pin(directory, names::UPLINKS);
        self.host_addresses.pin(directory, names::HOST_ADDRESSES);
        self.networks.pin(directory, names::NETWORKS);
        self.masquerade.pin(directory, names::MASQUERADE);
        self.endpoints.pin(directory, names::ENDPOINTS);
        self.port_map.pin(directory, names::PORT_MAP);
        self.unmasqueraded.pin(directory, names::UNMASQUERADED);
        self.floating.pin(directory, names::FLOATING);
        self.allow_from.pin(directory, names::ALLOW_FROM);
        self.conntrack.pin(directory, names::CONNTRACK);
        self.unconfirmed.pin(directory, names::UNCONFIRMED);
        self.mappings.pin(directory, names::MAPPINGS);
        self.fragments.pin(directory, names::FRAGMENTS);
        self.flow_slots.pin(directory, names::FLOW_SLOTS);
        self.flow_hand.pin(directory, names::FLOW_HAND);
        self.endpoint_use.pin(directory, names::ENDPOINT_USE);
        if let Some(Early { denied, flood_sources, flood_total: _ }) = &self.early {
            denied.pin(directory, names::DENIED);
            flood_sources.pin(directory, names::FLOOD_SOURCES);
        }
    }

    fn fill(&mut self, model: &Model) {
        // An array's one entry is only ever replaced.
        self.config.insert([(0, model.config)]);
        self.uplinks.replace(&model.uplinks);
        self.host_addresses.replace(&model.host_addresses);
        self.networks.replace(&model.networks);
        self.masquerade.replace(&model.masquerade);
        self.endpoints.replace(&model.endpoints);
        self.port_map.replace(&model.port_map);
        self.unmasqueraded.replace(&model.unmasqueraded);
        self.floating.replace(&model.floating);
        self.allow_from.replace(&model.allow_from.iter().map(allow_from).collect());
        self.conntrack.replace(&model.conntrack.borrow());
        self.unconfirmed.replace(&model.unconfirmed.borrow());
        self.mappings.replace(&model.mappings.borrow());
        self.fragments.replace(&model.fragments.borrow());
        self.endpoint_use.replace(&model.endpoint_use.borrow());
        self.flow_slots.insert((0..self.next_slot()).map(|slot| (slot, Tuple::zeroed())));
        self.flow_hand.insert([(0, FlowHand::zeroed())]);
        if let Some(Early { denied, flood_sources, flood_total }) = &mut self.early {
            denied.replace(&model.denied);
            flood_sources.replace(&model.flood_sources.borrow());
            flood_total.insert([(0, model.flood_total.get())]);
        }
    }

    /// The slot after the last that a flow was noted in, as long as the hand has not gone round.
    fn next_slot(&self) -> u32 {
        self.flow_hand.value(&0).next
    }
}

fn allow_from(
    ((mapping, PrefixKey { prefix_len, addr }), value): (&(u32, PrefixKey), &u32),
) -> (AllowFromKey, u32) {
    let data = AllowFrom { mapping: *mapping, client: *addr };
    (AllowFromKey { prefix_len: 32 + prefix_len, data }, *value)
}

/// A map with one value for each key: hash, longest-prefix and array maps answer to the same system calls.
#[derive(Debug)]
struct Table<K, V>(maps::HashMap<MapData, Abi<K>, Abi<V>>);

impl<K: Pod + Eq + Hash, V: Pod> Table<K, V> {
    fn of(object: &mut Ebpf, name: &str) -> Self {
        let map = object.take_map(name).unwrap_or_else(|| panic!("no map {name} in the object"));
        let (Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) | Map::LpmTrie(data)) = map else {
            panic!("{name} is of another kind: {map:?}")
        };
        // The variant says nothing but which wrapper is allowed; it checks the sizes of key and value.
        let table = maps::HashMap::try_from(Map::HashMap(data));
        Self(table.unwrap_or_else(|e| panic!("open {name}: {:#}", anyhow::Error::from(e))))
    }

    fn pin(&self, directory: &Path, name: &str) {
        let pinned = IterableMap::map(&self.0).pin(directory.join(name));
        pinned.unwrap_or_else(|e| panic!("pin {name} in {}: {e}", directory.display()));
    }

    fn replace(&mut self, entries: &HashMap<K, V>) {
        let old: Vec<_> = self.0.keys().map(|key| key.expect("a key")).collect();
        for Abi(key) in old {
            self.remove(&key);
        }
        self.insert(entries.iter().map(|(key, value)| (*key, *value)));
    }

    fn remove(&mut self, key: &K) {
        self.0.remove(&Abi(*key)).expect("remove an entry");
    }

    fn insert(&mut self, entries: impl IntoIterator<Item = (K, V)>) {
        for (key, value) in entries {
            self.0.insert(Abi(key), Abi(value), 0).expect("write an entry");
        }
    }

    fn value(&self, key: &K) -> V {
        self.0.get(&Abi(*key), 0).expect("an element of an array").0
    }

    fn entries(&self) -> HashMap<K, V> {
        let entry = |entry: Result<(Abi<K>, Abi<V>), _>| {
            let (Abi(key), Abi(value)) = entry.expect("an entry");
            (key, value)
        };
        self.0.iter().map(entry).collect()
    }
}

const TC_ACT_UNSPEC: i32 = -1;
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;
const XDP_ABORTED: i32 = 0;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;
const XDP_REDIRECT: i32 = 4;

/// `struct __sk_buff`, as far as a test run lets a caller set it; all else has to be zero.
#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C)]
struct SkBuff {
    unset: [u32; 9],
    /// Only stored.
    ingress_ifindex: u32,
    /// From 2 on it has to be an interface of the caller's network namespace.
    ifindex: u32,
    unset_too: [u32; 33],
    /// Offset 176.
    gso_size: u32,
    rest: [u32; 3],
}

const _: () = {
    assert!(std::mem::offset_of!(SkBuff, ingress_ifindex) == 36);
    assert!(std::mem::offset_of!(SkBuff, gso_size) == 176);
    assert!(size_of::<SkBuff>() == 192);
};

/// `struct xdp_md`.
#[derive(Clone, Copy, Zeroable, Pod)]
#[repr(C)]
struct XdpMd {
    data: u32,
    /// Has to be the length of the frame.
    data_end: u32,
    data_meta: u32,
    /// Has to be an interface of the caller's network namespace.
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}
