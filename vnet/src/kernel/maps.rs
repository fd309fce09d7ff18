//! The pinned maps: entries as the types of `vnet_common`.
//!
//! A map is opened once for writing, so that ten thousand entries go through one handle, and anew for reading it
//! as a whole. Whoever replaces the maps, or finds that somebody else may have, closes them ([`Maps::close`]).
//!
//! All map kinds with one value for a key are a [`Table`] here: hash, longest-prefix and array maps answer to
//! the same four system calls, and the sizes of key and value are checked against the kernel's when a map is
//! opened.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use aya::maps::{self, IterableMap, Map, MapData, MapError};
use aya::sys::SyscallError;
use bytemuck::Zeroable as _;
use vnet_common::{
    Addr, AllowFromKey, CtEntry, DatapathConfig, DropKey, EndpointUse, EndpointValue, FloatingValue,
    FlowHand, FragmentKey, FragmentValue, HostAddressValue, LimitClock, LimitKey, LimitValue, LocalFlowKey,
    LocalFlowValue, MappingEntry, MasqueradeValue, NetworkValue, PortMapKey, PortMapValue, PrefixKey, Tuple,
    UplinkValue,
};

use super::batch;
use super::error::Error;
use crate::flow::Usage;
use crate::instance::Instance;
use crate::plan::State;

/// From how many entries on it pays to look whether the map holds fewer than are asked for.
const MANY: usize = 4096;

/// A type of the ABI as aya wants it: aya's marker for plain data and bytemuck's mean the same, but neither
/// knows the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub(super) struct Abi<T>(pub(super) T);

// SAFETY: `bytemuck::Pod` demands at least what `aya::Pod` does: no padding, any bit pattern valid, no pointer;
// and `Abi<T>` has the layout of `T`.
unsafe impl<T: bytemuck::Pod> aya::Pod for Abi<T> {}

/// The maps of an instance.
#[derive(Debug)]
pub(super) struct Maps {
    pub(super) config: Table<u32, DatapathConfig>,
    pub(super) uplinks: Table<u32, UplinkValue>,
    pub(super) host_addresses: Table<Addr, HostAddressValue>,
    pub(super) networks: Table<PrefixKey, NetworkValue>,
    pub(super) masquerade: Table<PrefixKey, MasqueradeValue>,
    pub(super) unmasqueraded: Table<PrefixKey, u32>,
    pub(super) floating: Table<Addr, FloatingValue>,
    pub(super) denied: Table<PrefixKey, u32>,
    pub(super) endpoints: Table<Addr, EndpointValue>,
    pub(super) allow_from: Table<AllowFromKey, u32>,
    pub(super) port_map: Table<PortMapKey, PortMapValue>,
    pub(super) conntrack: Table<Tuple, CtEntry>,
    pub(super) unconfirmed: Table<Tuple, CtEntry>,
    pub(super) mappings: Table<Tuple, MappingEntry>,
    pub(super) flow_slots: Table<u32, Tuple>,
    pub(super) flow_hand: Table<u32, FlowHand>,
    pub(super) flood_sources: Table<Addr, u64>,
    pub(super) endpoint_use: Table<u32, EndpointUse>,
    pub(super) fragments: Table<FragmentKey, FragmentValue>,
    pub(super) local_flows: Table<LocalFlowKey, LocalFlowValue>,
    pub(super) limits: Table<LimitKey, LimitValue>,
    pub(super) limit_clocks: Table<u32, LimitClock>,
    drops: PathBuf,
    events: PathBuf,
    captured: PathBuf,
    logged: PathBuf,
}

impl Maps {
    /// The maps of an instance, none of them opened yet.
    pub(super) fn of(instance: &Instance) -> Self {
        use vnet_common::maps as names;
        Self {
            config: Table::new(instance, names::CONFIG),
            uplinks: Table::new(instance, names::UPLINKS),
            host_addresses: Table::new(instance, names::HOST_ADDRESSES),
            networks: Table::new(instance, names::NETWORKS),
            masquerade: Table::new(instance, names::MASQUERADE),
            unmasqueraded: Table::new(instance, names::UNMASQUERADED),
            floating: Table::new(instance, names::FLOATING),
            denied: Table::new(instance, names::DENIED),
            endpoints: Table::new(instance, names::ENDPOINTS),
            allow_from: Table::new(instance, names::ALLOW_FROM),
            port_map: Table::new(instance, names::PORT_MAP),
            conntrack: Table::new(instance, names::CONNTRACK),
            unconfirmed: Table::new(instance, names::UNCONFIRMED),
            mappings: Table::new(instance, names::MAPPINGS),
            flow_slots: Table::new(instance, names::FLOW_SLOTS),
            flow_hand: Table::new(instance, names::FLOW_HAND),
            flood_sources: Table::new(instance, names::FLOOD_SOURCES),
            endpoint_use: Table::new(instance, names::ENDPOINT_USE),
            fragments: Table::new(instance, names::FRAGMENTS),
            local_flows: Table::new(instance, names::LOCAL_FLOWS),
            limits: Table::new(instance, names::LIMITS),
            limit_clocks: Table::new(instance, names::LIMIT_CLOCKS),
            drops: instance.map_pin(names::DROPS),
            events: instance.map_pin(names::EVENTS),
            captured: instance.map_pin(names::CAPTURED),
            logged: instance.map_pin(names::LOGGED),
        }
    }

    /// Closes all of them: others may be pinned in their place.
    pub(super) fn close(&self) {
        self.config.close();
        self.uplinks.close();
        self.host_addresses.close();
        self.networks.close();
        self.masquerade.close();
        self.unmasqueraded.close();
        self.floating.close();
        self.denied.close();
        self.endpoints.close();
        self.allow_from.close();
        self.port_map.close();
        self.conntrack.close();
        self.unconfirmed.close();
        self.mappings.close();
        self.flow_slots.close();
        self.flow_hand.close();
        self.flood_sources.close();
        self.endpoint_use.close();
        self.fragments.close();
        self.local_flows.close();
        self.limits.close();
        self.limit_clocks.close();
    }

    /// The drop counters, summed over the CPUs.
    pub(super) fn drops(&self) -> Result<Vec<(DropKey, u64)>, Error> {
        let name = vnet_common::maps::DROPS;
        let Some(data) = open(&self.drops).map_err(|source| read_error(name, source))? else {
            return Ok(Vec::new());
        };
        let counters = maps::PerCpuHashMap::<_, Abi<DropKey>, u64>::try_from(Map::PerCpuHashMap(data));
        let counters = counters.map_err(|source| read_error(name, source))?;
        let sum = |entry: Result<(Abi<DropKey>, maps::PerCpuValues<u64>), MapError>| {
            entry.map(|(Abi(key), values)| (key, values.iter().sum()))
        };
        counters.iter().map(sum).collect::<Result<_, _>>().map_err(|source| read_error(name, source))
    }

    /// How many records the programs have had to log, summed over the CPUs.
    pub(super) fn logged(&self) -> Result<u64, Error> {
        let name = vnet_common::maps::LOGGED;
        let failed = |source| read_error(name, source);
        let data = open(&self.logged).map_err(failed)?;
        let data = data.ok_or_else(|| Error::NoMap { map: name, pin: self.logged.clone() })?;
        let counts = maps::PerCpuArray::<_, u64>::try_from(Map::PerCpuArray(data)).map_err(failed)?;
        counts.get(&0, 0).map(|counts| counts.iter().sum()).map_err(failed)
    }

    /// How much of each map whose entries are counted by nobody else is in use: all but the flow tables, and those of
    /// one entry.
    pub(super) fn usage(&self) -> Result<Vec<(&'static str, Usage)>, Error> {
        let usages = [
            self.uplinks.usage(|_, _| true)?,
            self.host_addresses.usage(|_, _| true)?,
            self.networks.usage(|_, _| true)?,
            self.endpoints.usage(|_, _| true)?,
            self.masquerade.usage(|_, _| true)?,
            self.unmasqueraded.usage(|_, _| true)?,
            self.floating.usage(|_, _| true)?,
            self.denied.usage(|_, _| true)?,
            self.port_map.usage(|_, _| true)?,
            self.allow_from.usage(|_, _| true)?,
            self.mappings.usage(|_, _| true)?,
            // An array: those in use hold something.
            self.flow_slots.usage(|_, tuple| *tuple != Tuple::zeroed())?,
            self.endpoint_use.usage(|_, _| true)?,
            self.fragments.usage(|_, _| true)?,
            self.local_flows.usage(|_, _| true)?,
            self.limits.usage(|_, _| true)?,
            self.flood_sources.usage(|_, _| true)?,
        ];
        Ok(usages.into_iter().flatten().collect())
    }

    /// The ring buffer of events.
    pub(super) fn events(&self) -> Result<maps::RingBuf<MapData>, Error> {
        let name = vnet_common::maps::EVENTS;
        let data = open(&self.events).map_err(|source| read_error(name, source))?;
        let data = data.ok_or_else(|| Error::NoMap { map: name, pin: self.events.clone() })?;
        maps::RingBuf::try_from(Map::RingBuf(data)).map_err(|source| read_error(name, source))
    }

    /// The perf events of captured packets.
    pub(super) fn captured(&self) -> Result<maps::PerfEventArray<MapData>, Error> {
        let name = vnet_common::maps::CAPTURED;
        let data = open(&self.captured).map_err(|source| read_error(name, source))?;
        let data = data.ok_or_else(|| Error::NoMap { map: name, pin: self.captured.clone() })?;
        maps::PerfEventArray::try_from(Map::PerfEventArray(data)).map_err(|source| read_error(name, source))
    }
}

type Opened<K, V> = maps::HashMap<MapData, Abi<K>, Abi<V>>;

/// A pinned map with one value for each key.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    name: &'static str,
    pin: PathBuf,
    opened: RefCell<Option<Opened<K, V>>>,
}

impl<K, V> Table<K, V>
where
    K: bytemuck::Pod + Eq + Hash,
    V: bytemuck::Pod + PartialEq,
{
    fn new(instance: &Instance, name: &'static str) -> Self {
        Self::pinned_at(instance.map_pin(name), name)
    }

    /// A map of that name, pinned elsewhere than where an instance's maps are.
    pub(super) fn pinned_at(pin: PathBuf, name: &'static str) -> Self {
        Self { name, pin, opened: RefCell::new(None) }
    }

    fn close(&self) {
        self.opened.replace(None);
    }

    /// Does something with the map; `None` if it does not exist, or has other types: another version's.
    fn with<T>(
        &self,
        work: impl FnOnce(&mut Opened<K, V>) -> Result<T, MapError>,
    ) -> Result<Option<T>, MapError> {
        let mut opened = self.opened.borrow_mut();
        if opened.is_none() {
            let Some(data) = open(&self.pin)? else { return Ok(None) };
            // The variant says nothing but which wrapper is allowed; the system calls are those of all kinds.
            match maps::HashMap::try_from(Map::HashMap(data)) {
                Ok(map) => *opened = Some(map),
                Err(MapError::InvalidKeySize { .. } | MapError::InvalidValueSize { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        opened.as_mut().map(work).transpose()
    }

    /// The value of a key, if the map and the key exist. Of a longest-prefix map: the value of the longest
    /// prefix that covers the key.
    pub(super) fn get(&self, key: &K) -> Result<Option<V>, Error> {
        let found = self.with(|map| match map.get(&Abi(*key), 0) {
            Err(MapError::KeyNotFound) => Ok(None),
            found => found.map(|Abi(value)| Some(value)),
        });
        found.map(Option::flatten).map_err(|source| read_error(self.name, source))
    }

    /// All entries; none if the map does not exist.
    ///
    /// The map may change while it is read: an entry may then be missing or stem from another moment, but none
    /// is given twice.
    pub(super) fn entries(&self) -> Result<HashMap<K, V>, Error> {
        self.close();
        let entries = self.with(|map| {
            let mut entries = HashMap::new();
            let all = batch::read(descriptor(map), |key: K, value: V| {
                entries.insert(key, value);
                true
            });
            let all = all.map_err(|io_error| SyscallError { call: "BPF_MAP_LOOKUP_BATCH", io_error })?;
            if all { Ok(entries) } else { walk(map) }
        });
        entries.map(Option::unwrap_or_default).map_err(|source| read_error(self.name, source))
    }

    /// How many entries there are for which `counts` holds, and how many the map has room for; `None` if it does not
    /// exist.
    pub(super) fn usage(
        &self,
        counts: impl Fn(&K, &V) -> bool,
    ) -> Result<Option<(&'static str, Usage)>, Error> {
        self.close();
        let usage = self.with(|map| {
            let room = IterableMap::map(map).info()?.max_entries().into();
            let mut used = 0;
            let all = batch::read(descriptor(map), |key: K, value: V| {
                used += u64::from(counts(&key, &value));
                true
            });
            let all = all.map_err(|io_error| SyscallError { call: "BPF_MAP_LOOKUP_BATCH", io_error })?;
            if !all {
                used = walk(map)?.iter().filter(|(key, value)| counts(key, value)).count() as u64;
            }
            Ok(Usage { used, room })
        });
        self.close();
        let usage = usage.map_err(|source| read_error(self.name, source))?;
        Ok(usage.map(|usage| (self.name, usage)))
    }

    /// Writes an entry.
    pub(super) fn insert(&self, key: K, value: V) -> Result<(), Error> {
        match self.with(|map| map.insert(Abi(key), Abi(value), 0)) {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(Error::NoMap { map: self.name, pin: self.pin.clone() }),
            Err(source) if errno(&source) == Some(nix::libc::E2BIG) => Err(Error::MapFull { map: self.name }),
            Err(source) => Err(self.write_error_of(source)),
        }
    }

    /// Deletes an entry; says whether there was one.
    pub(super) fn remove(&self, key: &K) -> Result<bool, Error> {
        match self.with(|map| map.remove(&Abi(*key))) {
            Ok(done) => Ok(done.is_some()),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(source) if errno(&source) == Some(nix::libc::ENOENT) => Ok(false),
            Err(source) => Err(self.write_error_of(source)),
        }
    }

    /// Writes many entries, in order; an error comes with the number of those that were written.
    pub(super) fn insert_all(&self, keys: &[K], values: &[V]) -> Result<(), (usize, Box<Error>)> {
        let failed = |done, error| Err((done, Box::new(error)));
        match self.with(|map| Ok(batch::write(descriptor(map), keys, values))) {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(None) => failed(0, Error::NoMap { map: self.name, pin: self.pin.clone() }),
            Ok(Some(Err((done, error)))) if error.raw_os_error() == Some(nix::libc::E2BIG) => {
                failed(done, Error::MapFull { map: self.name })
            }
            Ok(Some(Err((done, error)))) => failed(done, self.write_error("BPF_MAP_UPDATE_BATCH", error)),
            Err(source) => failed(0, self.write_error_of(source)),
        }
    }

    /// Deletes many entries, in order, those that there are; an error comes with the number of those that were dealt
    /// with before.
    pub(super) fn remove_all(&self, keys: &[K]) -> Result<(), (usize, Box<Error>)> {
        let failed = |done, error| Err((done, Box::new(error)));
        match self.with(|map| Ok(batch::delete(descriptor(map), keys))) {
            Ok(None | Some(Ok(()))) => Ok(()),
            Ok(Some(Err((done, error)))) => failed(done, self.write_error("BPF_MAP_DELETE_BATCH", error)),
            Err(source) => failed(0, self.write_error_of(source)),
        }
    }

    fn write_error(&self, call: &'static str, io_error: io::Error) -> Error {
        self.write_error_of(SyscallError { call, io_error }.into())
    }

    fn write_error_of(&self, source: MapError) -> Error {
        Error::WriteMap { map: self.name, source }
    }

    /// How an entry stands.
    pub(super) fn state(&self, key: &K, wanted: &V) -> Result<State, Error> {
        Ok(compare(self.get(key)?, wanted))
    }

    /// How many entries stand, as by [`Self::state`]. Where that is less work they are not looked up one by one, but the
    /// map is read as a whole.
    pub(super) fn states(&self, wanted: &[(K, V)]) -> Result<Vec<State>, Error> {
        if wanted.len() >= MANY {
            let mut entries = HashMap::new();
            let read = self.with(|map| {
                let read = batch::read(descriptor(map), |key: K, value: V| {
                    entries.insert(key, value);
                    entries.len() <= wanted.len()
                });
                Ok(read.map_err(|io_error| SyscallError { call: "BPF_MAP_LOOKUP_BATCH", io_error })?)
            });
            let read = read.map_err(|source| read_error(self.name, source))?;
            if read != Some(false) && entries.len() <= wanted.len() {
                return Ok(wanted.iter().map(|(key, value)| compare(entries.remove(key), value)).collect());
            }
        }
        wanted.iter().map(|(key, value)| self.state(key, value)).collect()
    }
}

impl<V> Table<PrefixKey, V>
where
    V: bytemuck::Pod + PartialEq,
{
    /// How the entry of exactly this prefix stands: looking it up would find a shorter one as well.
    pub(super) fn exact_state(&self, key: &PrefixKey, wanted: &V) -> Result<State, Error> {
        if self.get(key)?.is_none() {
            return Ok(State::Absent);
        }
        Ok(compare(self.entries()?.remove(key), wanted))
    }
}

/// How an entry differs. What it says is for programs, which read it as numbers.
pub(super) const OTHER_VALUE: &str = "its entry in the map says something else than is recorded";

fn compare<V: PartialEq>(found: Option<V>, wanted: &V) -> State {
    match found {
        None => State::Absent,
        Some(found) if found == *wanted => State::Present,
        Some(_) => State::Differs(OTHER_VALUE.to_owned()),
    }
}

/// How many entries a pinned map has room for; `None` if there is none.
pub(super) fn room(pin: &Path, name: &'static str) -> Result<Option<u32>, Error> {
    let size = open(pin).and_then(|data| data.map(|data| Ok(data.info()?.max_entries())).transpose());
    size.map_err(|source| read_error(name, source))
}

/// Opens a pinned map; `None` if nothing is pinned there.
pub(super) fn open(pin: &Path) -> Result<Option<MapData>, MapError> {
    match MapData::from_pin(pin) {
        Err(error) if errno(&error) == Some(nix::libc::ENOENT) => Ok(None),
        opened => opened.map(Some),
    }
}

/// All entries, one after the other: for the kinds of map that cannot be read otherwise.
///
/// The kernel starts over when the entry it stood at is deleted.
fn walk<K, V>(map: &Opened<K, V>) -> Result<HashMap<K, V>, MapError>
where
    K: bytemuck::Pod + Eq + Hash,
    V: bytemuck::Pod,
{
    let mut entries = HashMap::new();
    // Starting over for ever is cut off: a busy table of n entries is walked twice at most.
    let size = IterableMap::map(map).info()?.max_entries();
    let bound = 2 * usize::try_from(size).unwrap_or(usize::MAX);
    for key in map.keys().take(bound) {
        let key = key?;
        match map.get(&key, 0) {
            Ok(Abi(value)) => drop(entries.insert(key.0, value)),
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(entries)
}

fn descriptor<K: bytemuck::Pod, V: bytemuck::Pod>(map: &Opened<K, V>) -> BorrowedFd<'_> {
    IterableMap::map(map).fd().as_fd()
}

fn errno(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(SyscallError { io_error, .. }) => io::Error::raw_os_error(io_error),
        _ => None,
    }
}

fn read_error(map: &'static str, source: MapError) -> Error {
    Error::ReadMap { map, source }
}
