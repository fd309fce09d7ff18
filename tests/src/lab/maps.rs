//! The pinned maps of a lab's instance, as the kernel has them.

use std::fmt::Debug;
use std::hash::Hash;

use aya::maps::{HashMap, IterableMap, Map, MapData};
use bytemuck::Pod;

use super::Lab;
use crate::runner::Abi;

impl Lab {
    /// The entries of a pinned map with one value for each key.
    ///
    /// # Panics
    /// When there is no such map, or it has other types.
    #[must_use]
    #[track_caller]
    pub fn entries<K: Pod + Eq + Hash + Debug, V: Pod + Debug>(&self, map: &str) -> Vec<(K, V)> {
        let entries = self.pinned::<K, V>(map);
        let entries = entries.iter().map(|entry| entry.map(|(Abi(key), Abi(value))| (key, value)));
        entries.collect::<Result<_, _>>().unwrap_or_else(|e| panic!("read map {map}: {e}"))
    }

    /// The value of a key, which must be there.
    ///
    /// # Panics
    /// With what is there instead.
    #[must_use]
    #[track_caller]
    pub fn entry<K: Pod + Eq + Hash + Debug, V: Pod + Debug>(&self, map: &str, key: K) -> V {
        let entries = self.entries::<K, V>(map);
        let found = entries.iter().find(|(other, _)| *other == key);
        found.unwrap_or_else(|| panic!("no {key:?} in map {map}: {entries:#?}")).1
    }

    /// How many entries a pinned map has room for.
    ///
    /// # Panics
    /// When there is no such map.
    #[must_use]
    #[track_caller]
    pub fn room<K: Pod, V: Pod>(&self, map: &str) -> u32 {
        let info = self.pinned::<K, V>(map).map().info();
        info.unwrap_or_else(|e| panic!("look at map {map}: {e}")).max_entries()
    }

    #[track_caller]
    fn pinned<K: Pod, V: Pod>(&self, map: &str) -> HashMap<MapData, Abi<K>, Abi<V>> {
        let pin = self.pin_dir().join(map);
        let data = MapData::from_pin(&pin).unwrap_or_else(|e| panic!("open {}: {e}", pin.display()));
        // The variant says nothing but which wrapper is allowed; the system calls are those of all kinds.
        HashMap::try_from(Map::HashMap(data)).unwrap_or_else(|e| panic!("open map {map}: {e}"))
    }
}
