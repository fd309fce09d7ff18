//! Entries of maps of another ABI carried into maps of this one, while packets pass.
//!
//! The kernel knows the fields of both (BTF), so an entry is carried over by their names: what both have is copied, a number
//! into one of another width if it fits, and what only the new one has is zero. So a field keeps its name and its meaning from
//! version to version, and a new one means with zero what held before it was there.
//!
//! ```text
//! follow     all entries, while the programs of the old maps go on
//! freeze     from here on no flow begins: a packet that would begin one is dropped, and sent again by whoever sent it
//! follow     what has changed since
//!            (the programs are exchanged)
//! complete   what has been added in between
//! thaw
//! ```
//!
//! Flows that both sets of maps know go on through whichever program their packets meet. A process that is killed leaves
//! the old maps frozen, so they have all there is: whoever comes next begins anew with them, and thaws.

use std::collections::{HashMap, HashSet};
use std::io;
use std::mem;
use std::os::fd::AsFd as _;

use aya::maps::{MapData, MapType};
use vnet_common::{ABI_VERSION, DatapathConfig, maps};

use super::batch::{self, Sizes};
use super::btf::{self, Described, Leaf};
use super::error::Error;
use super::maps::Table;
use super::programs::Place;

/// Maps that processes have opened for what comes out of them, and the count of that: they stay with the old ones.
const LEFT: [&str; 5] = [maps::EVENTS, maps::CAPTURE, maps::CAPTURED, maps::LOGGED, maps::LOGS];
/// Tables of flows: a flow is in one of them.
const OF_FLOWS: [&str; 2] = [maps::UNCONFIRMED, maps::CONNTRACK];

/// A key and a value, as they stand in a map.
type RawEntry = (Box<[u8]>, Box<[u8]>);

/// Why entries of a map cannot be carried over.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// It was made without type information.
    #[error("nothing tells what its entries consist of")]
    Untold,
    /// Its types cannot be asked for.
    #[error("what its entries consist of cannot be asked for, which takes CAP_SYS_ADMIN")]
    Unasked(#[source] io::Error),
    /// Prefixes of other keys would mean something else.
    #[error("its keys, which are prefixes, have other fields now")]
    Prefixes,
    /// A number is too large for the field that it would go to.
    #[error("an entry does not fit the fields of today")]
    TooLarge,
    /// It is of a kind whose entries are not read at once.
    #[error("it is another kind of map now")]
    Kind,
    /// The kernel refuses to read or write entries.
    #[error("its entries cannot be carried over")]
    Entries(#[source] io::Error),
}

/// The maps of another version, and those that take their entries over.
pub(super) struct Takeover {
    config: Carried,
    others: Vec<Carried>,
    new_config: Table<u32, DatapathConfig>,
}

/// Checks that the entries of a set's maps can be carried over, as far as can be told before there is another set.
pub(super) fn check(old: &Place<'_>) -> Result<(), Error> {
    for name in maps::ALL.into_iter().filter(|name| !LEFT.contains(name)) {
        if let Some(map) = open(old, name)? {
            types(&map).map_err(|obstacle| refused(old, name, obstacle))?;
        }
    }
    Ok(())
}

/// The first word of a set's configuration: the version of its maps, which stands there in every version.
pub(super) fn abi_version(set: &Place<'_>) -> Option<u32> {
    let map = open(set, maps::CONFIG).ok()??;
    let mut version = None;
    let read = batch::read_bytes(map.fd().as_fd(), sizes(&map).ok()?, |_, value| {
        version = value.get(..4).and_then(|word| word.try_into().ok()).map(u32::from_ne_bytes);
        false
    });
    read.ok().and(version)
}

impl Takeover {
    /// Looks at how the maps of two sets are laid out.
    pub(super) fn between(old: &Place<'_>, new: &Place<'_>) -> Result<Self, Error> {
        let carried = |name| {
            // A map that was not there yet begins empty.
            let Some((from, to)) = open(old, name)?.zip(open(new, name)?) else { return Ok(None) };
            Carried::new(name, from, to).map(Some).map_err(|obstacle| refused(old, name, obstacle))
        };
        let config = carried(maps::CONFIG)?.ok_or_else(|| refused(old, maps::CONFIG, Obstacle::Untold))?;
        let others = maps::ALL.into_iter().filter(|name| *name != maps::CONFIG && !LEFT.contains(name));
        let others = others.filter_map(|name| carried(name).transpose()).collect::<Result<_, _>>()?;
        let new_config = Table::pinned_at(new.map(maps::CONFIG), maps::CONFIG);
        Ok(Self { config, others, new_config })
    }

    /// Brings the new maps to where the old ones are.
    pub(super) fn follow(&mut self) -> Result<(), Error> {
        self.config.seen.clear();
        for map in [&mut self.config].into_iter().chain(&mut self.others) {
            map.follow().map_err(|obstacle| Error::Carry { map: map.name, obstacle })?;
        }
        self.change_new(|config| config.abi_version = ABI_VERSION)
    }

    /// Has no flow begin any more, neither with the old maps nor with the new ones.
    pub(super) fn freeze(&self) -> Result<(), Error> {
        self.set_frozen_in_old(true)?;
        self.change_new(|config| config.flags |= DatapathConfig::FLAG_FROZEN)
    }

    /// Adds what has been added to the old maps since they were followed: by packets that were under way then, and by the
    /// hooks that still worked with them.
    pub(super) fn complete(&mut self) -> Result<(), Error> {
        let of_flows = self.others.iter().filter(|map| OF_FLOWS.contains(&map.name));
        // One that has moved from one table to the other since is still where it was, and moves once more.
        let known: HashSet<Box<[u8]>> = of_flows.flat_map(|map| map.seen.keys().cloned()).collect();
        for map in &mut self.others {
            let known = if OF_FLOWS.contains(&map.name) { Some(&known) } else { None };
            map.complete(known).map_err(|obstacle| Error::Carry { map: map.name, obstacle })?;
        }
        Ok(())
    }

    /// Has flows begin with the new maps.
    pub(super) fn thaw(&self) -> Result<(), Error> {
        self.change_new(|config| config.flags &= !DatapathConfig::FLAG_FROZEN)
    }

    /// Has flows begin with the old maps again.
    pub(super) fn give_up(&self) -> Result<(), Error> {
        self.set_frozen_in_old(false)
    }

    fn change_new(&self, change: impl FnOnce(&mut DatapathConfig)) -> Result<(), Error> {
        let mut config = self.new_config.get(&0)?.unwrap_or(DatapathConfig::DEFAULT);
        change(&mut config);
        self.new_config.insert(0, config)
    }

    fn set_frozen_in_old(&self, frozen: bool) -> Result<(), Error> {
        // Versions without such a field do not know of this either.
        let Some(flags) = self.config.flags.filter(|flags| flags.size == 4) else { return Ok(()) };
        let failed = |source| Error::Carry { map: maps::CONFIG, obstacle: Obstacle::Entries(source) };
        let Carried { from, from_sizes, .. } = &self.config;
        let mut entry = None;
        let read = batch::read_bytes(from.fd().as_fd(), *from_sizes, |key, value| {
            entry = Some((key.to_vec(), value.to_vec()));
            false
        });
        read.map_err(failed)?;
        let Some((key, mut value)) = entry else { return Ok(()) };
        let Some(word) = value.get_mut(flags.offset..flags.offset + 4) else { return Ok(()) };
        let mut bits = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
        bits = if frozen { bits | DatapathConfig::FLAG_FROZEN } else { bits & !DatapathConfig::FLAG_FROZEN };
        word.copy_from_slice(&bits.to_ne_bytes());
        batch::write_bytes(from.fd().as_fd(), 1, &key, &value).map_err(|(_, source)| failed(source))
    }
}

/// Where a field is.
#[derive(Clone, Copy)]
struct At {
    offset: usize,
    size: usize,
}

/// A map whose entries are carried over.
struct Carried {
    name: &'static str,
    from: MapData,
    from_sizes: Sizes,
    to: MapData,
    to_sizes: Sizes,
    /// Its keys are places, all of which are always there, and zero to begin with.
    is_array: bool,
    key: Conversion,
    value: Conversion,
    /// Where a value has the field `flags`.
    flags: Option<At>,
    /// What has been carried over, in the old layout.
    seen: HashMap<Box<[u8]>, Seen>,
    /// How often it has been followed.
    times: u32,
}

/// The value of an entry that has been carried over.
struct Seen {
    value: Box<[u8]>,
    /// When it was there last, of [`Carried::times`].
    at: u32,
}

impl Carried {
    fn new(name: &'static str, from: MapData, to: MapData) -> Result<Self, Obstacle> {
        let of_new = kind(&to)?;
        if kind(&from)? != of_new {
            return Err(Obstacle::Kind);
        }
        let ((old_key, old_value), (new_key, new_value)) = (types(&from)?, types(&to)?);
        if of_new == MapType::LpmTrie && !old_key.is_laid_out_like(&new_key) {
            return Err(Obstacle::Prefixes);
        }
        let flags = old_value.leaves.iter().find(|leaf| leaf.path == "flags" && leaf.count == 1);
        let flags = flags.map(|Leaf { offset, size, .. }| At { offset: *offset, size: *size });
        let value = Conversion::between(&old_value, &new_value);
        let (from_sizes, to_sizes) = (sizes(&from)?, sizes(&to)?);
        Ok(Self {
            name,
            from_sizes,
            to_sizes,
            from,
            to,
            is_array: of_new == MapType::Array,
            key: Conversion::between(&old_key, &new_key),
            value,
            flags,
            seen: HashMap::new(),
            times: 0,
        })
    }

    fn read(&self, mut each: impl FnMut(&[u8], &[u8])) -> Result<(), Obstacle> {
        let all = batch::read_bytes(self.from.fd().as_fd(), self.from_sizes, |key, value| {
            each(key, value);
            true
        });
        let all = all.map_err(Obstacle::Entries)?;
        if all { Ok(()) } else { Err(Obstacle::Entries(io::ErrorKind::Unsupported.into())) }
    }

    fn follow(&mut self) -> Result<(), Obstacle> {
        let (mut seen, at) = (mem::take(&mut self.seen), self.times + 1);
        let mut changed: Vec<RawEntry> = Vec::new();
        let mut still_there = 0;
        let known = seen.len();
        self.read(|key, value| match seen.get_mut(key) {
            Some(entry) => {
                still_there += usize::from(entry.at != at);
                entry.at = at;
                if *entry.value != *value {
                    changed.push((key.into(), value.into()));
                }
            }
            None if self.is_array && value.iter().all(|byte| *byte == 0) => {}
            None => changed.push((key.into(), value.into())),
        })?;
        if still_there < known {
            let gone = seen.iter().filter(|(_, entry)| entry.at != at).map(|(key, _)| key);
            let (mut keys, mut count) = (Vec::new(), 0);
            for key in gone {
                keys.extend(self.converted_key(key)?);
                count += 1;
            }
            let deleted = batch::delete_bytes(self.to.fd().as_fd(), count, &keys);
            deleted.map_err(|(_, source)| Obstacle::Entries(source))?;
            seen.retain(|_, entry| entry.at == at);
        }
        self.times = at;
        self.seen = seen;
        self.write(changed)
    }

    /// Adds what is not there yet, nor in any of the tables that `known` is from.
    fn complete(&mut self, known: Option<&HashSet<Box<[u8]>>>) -> Result<(), Obstacle> {
        if self.is_array {
            return Ok(());
        }
        let mut added: Vec<RawEntry> = Vec::new();
        self.read(|key, value| {
            if !self.seen.contains_key(key) && known.is_none_or(|known| !known.contains(key)) {
                added.push((key.into(), value.into()));
            }
        })?;
        self.write(added)
    }

    fn write(&mut self, entries: Vec<RawEntry>) -> Result<(), Obstacle> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (key, value) in &entries {
            keys.extend(self.converted_key(key)?);
            values.extend(self.converted_value(value)?);
        }
        let written = batch::write_bytes(self.to.fd().as_fd(), entries.len(), &keys, &values);
        written.map_err(|(_, source)| Obstacle::Entries(source))?;
        let at = self.times;
        self.seen.extend(entries.into_iter().map(|(key, value)| (key, Seen { value, at })));
        Ok(())
    }

    fn converted_key(&self, key: &[u8]) -> Result<Vec<u8>, Obstacle> {
        let mut converted = vec![0; self.to_sizes.key];
        if self.key.carry(key, &mut converted) { Ok(converted) } else { Err(Obstacle::TooLarge) }
    }

    fn converted_value(&self, value: &[u8]) -> Result<Vec<u8>, Obstacle> {
        // Values for each CPU are as many as fit the bytes.
        let stride = |size: usize, bytes: usize| if size == bytes { size } else { size.next_multiple_of(8) };
        let old = value.chunks(stride(self.value.from, self.from_sizes.value));
        let mut converted = vec![0; self.to_sizes.value];
        let new = converted.chunks_mut(stride(self.value.to, self.to_sizes.value));
        let fits = old.zip(new).fold(true, |fits, (old, new)| fits & self.value.carry(old, new));
        if fits { Ok(converted) } else { Err(Obstacle::TooLarge) }
    }
}

/// How bytes of one type become those of another.
#[derive(Debug, PartialEq, Eq)]
struct Conversion {
    /// Bytes of the first.
    from: usize,
    /// Bytes of the second.
    to: usize,
    moves: Vec<Move>,
}

/// Bytes that are copied.
#[derive(Debug, PartialEq, Eq)]
struct Move {
    from: usize,
    to: usize,
    count: usize,
    /// So many more of the first have to be zero.
    zeros: usize,
}

impl Conversion {
    fn between(from: &Described, to: &Described) -> Self {
        let pairs = to.leaves.iter().filter_map(|new| {
            let old = from.leaves.iter().find(|old| old.path == new.path)?;
            Some((old, new))
        });
        let moves = pairs.filter_map(|(old, new)| {
            let (from, to) = (old.offset, new.offset);
            if old.size == new.size {
                let count = old.count.min(new.count) * old.size;
                return Some(Move { from, to, count, zeros: (old.count * old.size).saturating_sub(count) });
            }
            // A number, little-endian, and never below zero.
            let count = old.size.min(new.size);
            (old.count == 1 && new.count == 1).then_some(Move { from, to, count, zeros: old.size - count })
        });
        Self { from: from.size, to: to.size, moves: moves.collect() }
    }

    /// Copies what both have; says whether it fits.
    fn carry(&self, old: &[u8], new: &mut [u8]) -> bool {
        self.moves.iter().all(|Move { from, to, count, zeros }| {
            new[*to..to + count].copy_from_slice(&old[*from..from + count]);
            old[from + count..from + count + zeros].iter().all(|byte| *byte == 0)
        })
    }
}

impl Described {
    fn is_laid_out_like(&self, other: &Self) -> bool {
        self.size == other.size && self.leaves == other.leaves
    }
}

fn open(set: &Place<'_>, name: &'static str) -> Result<Option<MapData>, Error> {
    super::maps::open(&set.map(name)).map_err(|source| Error::ReadMap { map: name, source })
}

fn types(map: &MapData) -> Result<(Described, Described), Obstacle> {
    btf::of_map(map.fd().as_fd()).map_err(Obstacle::Unasked)?.ok_or(Obstacle::Untold)
}

fn kind(map: &MapData) -> Result<MapType, Obstacle> {
    let kind = map.info().ok().and_then(|info| info.map_type().ok());
    match kind {
        Some(
            kind @ (MapType::Array
            | MapType::Hash
            | MapType::LruHash
            | MapType::PerCpuHash
            | MapType::LpmTrie),
        ) => Ok(kind),
        _ => Err(Obstacle::Kind),
    }
}

fn sizes(map: &MapData) -> Result<Sizes, Obstacle> {
    let info = map.info().map_err(|error| Obstacle::Entries(io::Error::other(error)))?;
    let (key, value) = (info.key_size() as usize, info.value_size() as usize);
    let value = match kind(map)? {
        MapType::PerCpuHash => {
            let cpus = aya::util::nr_cpus().map_err(|(_, error)| Obstacle::Entries(error))?;
            value.next_multiple_of(8) * cpus
        }
        _ => value,
    };
    Ok(Sizes { key, value })
}

fn refused(old: &Place<'_>, map: &'static str, obstacle: Obstacle) -> Error {
    Error::NotTakenOver { pins: old.root(), wanted: ABI_VERSION, map, obstacle }
}
