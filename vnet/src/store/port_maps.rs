//! Published ports in the store: found by what is published, by neighbour, and by endpoint.

use std::fmt;
use std::net::IpAddr;

use redb::{ReadableTable, ReadableTableMetadata, Table, TableDefinition};
use vnet_common::{Addr, PortMapKey};

use super::Error;
use super::tables::{Json, Transaction, decode, encode};
use crate::plan::{blocks, expand};
use crate::spec::{Name, PortMap, Protocol, Published};

/// Protocol; 0 for every address of the host or 1 for one; that address; first port. Mappings of one protocol and
/// address never overlap, so they stand in the order of their ports.
type PortKey = (u8, u8, [u8; 16], u16);

pub(super) const PORT_MAPS: TableDefinition<PortKey, Json> = TableDefinition::new("port_maps");
const PORT_MAPS_OF: TableDefinition<(&str, PortKey), ()> = TableDefinition::new("port_maps_of");
/// Ports that are published on one address of the host: protocol, what stands for the address's family, first port
/// and prefix length of the block; that address.
type ReservationKey = (u8, [u8; 16], u16, u8, [u8; 16]);

const RESERVATIONS: TableDefinition<ReservationKey, ()> = TableDefinition::new("reservations");
/// Number of the next mapping.
const NEXT: &str = "next_mapping";
/// How many blocks there are of each prefix length.
const BLOCKS: &str = "block_lengths";

/// The tables of published ports, open. To open them takes longer than to look something up or to note it, so whoever
/// deals with many mappings opens them once; nobody else can open them meanwhile.
pub struct PortMapTables<'t> {
    transaction: &'t Transaction,
    by_port: Table<'t, PortKey, Json>,
    by_endpoint: Table<'t, (&'static str, PortKey), ()>,
    reservations: Table<'t, ReservationKey, ()>,
}

impl fmt::Debug for PortMapTables<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortMapTables").finish_non_exhaustive()
    }
}

impl PortMapTables<'_> {
    /// A mapping of the same protocol and host address that shares a port with this one.
    pub fn overlapping(&self, published: &Published, protocol: Protocol) -> Result<Option<PortMap>, Error> {
        overlapping(&self.by_port, published, protocol)
    }

    /// Notes a mapping.
    pub fn put(&mut self, mapping: &PortMap) -> Result<(), Error> {
        let key = own_key(mapping);
        self.by_port.insert(key, encode(mapping)?.as_slice())?;
        self.by_endpoint.insert((mapping.endpoint.as_str(), key), ())?;
        for reserved in own_reservations(mapping) {
            self.reservations.insert(reserved, ())?;
        }
        self.transaction.count_blocks(mapping, |count, more| count + more)
    }

    /// Forgets a mapping.
    pub fn remove(&mut self, mapping: &PortMap) -> Result<(), Error> {
        let key = own_key(mapping);
        self.by_port.remove(key)?;
        self.by_endpoint.remove((mapping.endpoint.as_str(), key))?;
        for reserved in own_reservations(mapping) {
            self.reservations.remove(reserved)?;
        }
        self.transaction.count_blocks(mapping, u32::saturating_sub)
    }
}

fn overlapping(
    by_port: &impl ReadableTable<PortKey, Json>,
    published: &Published,
    protocol: Protocol,
) -> Result<Option<PortMap>, Error> {
    let group = |port| key(published, protocol, port);
    // Those that are there do not overlap, so only the last to begin before this one ends can reach into it.
    let Some(entry) = by_port.range(group(0)..=group(published.ports.last()))?.next_back() else {
        return Ok(None);
    };
    let other: PortMap = decode(entry?.1.value())?;
    Ok(other.published.ports.overlaps(published.ports).then_some(other))
}

impl Transaction {
    /// Opens the tables of published ports.
    pub fn open_port_maps(&self) -> Result<PortMapTables<'_>, Error> {
        Ok(PortMapTables {
            transaction: self,
            by_port: self.inner.open_table(PORT_MAPS)?,
            by_endpoint: self.inner.open_table(PORT_MAPS_OF)?,
            reservations: self.inner.open_table(RESERVATIONS)?,
        })
    }

    /// A mapping of the same protocol and host address that shares a port with this one.
    pub fn overlapping(&self, published: &Published, protocol: Protocol) -> Result<Option<PortMap>, Error> {
        overlapping(&self.inner.open_table(PORT_MAPS)?, published, protocol)
    }

    /// A mapping that is published on exactly this address of the host, whatever its protocol.
    pub fn port_map_on(&self, host: IpAddr) -> Result<Option<PortMap>, Error> {
        let table = self.inner.open_table(PORT_MAPS)?;
        let wanted = (1, Addr::from(host).bytes);
        let mut next = Some(0);
        while let Some(proto) = next {
            let Some(entry) = table.range((proto, wanted.0, wanted.1, 0)..)?.next() else { break };
            let (key, mapping) = entry?;
            let (found, one, addr, _) = key.value();
            if (one, addr) == wanted {
                return decode(mapping.value()).map(Some);
            }
            // Among those of the protocol that was found the address comes later, or not at all.
            next = if found > proto && (one, addr) < wanted { Some(found) } else { found.checked_add(1) };
        }
        Ok(None)
    }

    /// Every mapping, by protocol, host address and port.
    pub fn port_maps(&self) -> Result<Vec<PortMap>, Error> {
        self.all(PORT_MAPS)
    }

    /// How many mappings there are.
    pub fn count_port_maps(&self) -> Result<u64, Error> {
        Ok(self.inner.open_table(PORT_MAPS)?.len()?)
    }

    /// The mappings that lead to an endpoint.
    pub fn port_maps_of(&self, endpoint: &Name) -> Result<Vec<PortMap>, Error> {
        let index = self.inner.open_table(PORT_MAPS_OF)?;
        let lowest = (endpoint.as_str(), (0, 0, [0; 16], 0));
        let highest = (endpoint.as_str(), (u8::MAX, u8::MAX, [u8::MAX; 16], u16::MAX));
        let table = self.inner.open_table(PORT_MAPS)?;
        let mut found = Vec::new();
        for entry in index.range(lowest..=highest)? {
            if let Some(value) = table.get(entry?.0.value().1)? {
                found.push(decode(value.value())?);
            }
        }
        Ok(found)
    }

    /// Whether a mapping has ports reserved under this key.
    pub fn is_reserved(&self, key: &PortMapKey) -> Result<bool, Error> {
        let table = self.inner.open_table(RESERVATIONS)?;
        let on = |host| reservation_key(key, host);
        let mut found = table.range(on([0; 16])..=on([u8::MAX; 16]))?;
        Ok(found.next().transpose()?.is_some())
    }

    /// A number no mapping has had, and neither any after it.
    pub fn next_mapping(&self) -> Result<u32, Error> {
        Ok(self.meta::<u32>(NEXT)?.max(1))
    }

    /// Notes that mappings have had the numbers before this one.
    pub fn set_next_mapping(&self, next: u32) -> Result<(), Error> {
        self.set_meta(NEXT, &next)
    }

    /// Notes a mapping.
    pub fn put_port_map(&self, mapping: &PortMap) -> Result<(), Error> {
        self.open_port_maps()?.put(mapping)
    }

    /// Forgets a mapping.
    pub fn remove_port_map(&self, mapping: &PortMap) -> Result<(), Error> {
        self.open_port_maps()?.remove(mapping)
    }

    /// Bit n says whether there are blocks with a prefix of n bits, n below 16.
    pub fn port_blocks(&self) -> Result<u32, Error> {
        let counts: [u32; 16] = self.meta(BLOCKS)?;
        let bits = counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(length, _)| 1 << length);
        Ok(bits.sum())
    }

    /// Counts the blocks of a mapping in or out. Single ports are not counted, so they cost nothing here.
    fn count_blocks(&self, mapping: &PortMap, update: fn(u32, u32) -> u32) -> Result<(), Error> {
        let blocks = blocks(mapping.published.ports);
        if blocks.iter().all(|block| block.prefix_len == 16) {
            return Ok(());
        }
        let mut counts: [u32; 16] = self.meta(BLOCKS)?;
        for block in blocks {
            if let Some(count) = counts.get_mut(usize::from(block.prefix_len)) {
                *count = update(*count, 1);
            }
        }
        self.set_meta(BLOCKS, &counts)
    }
}

fn own_key(mapping: &PortMap) -> PortKey {
    key(&mapping.published, mapping.protocol, mapping.published.ports.first())
}

fn own_reservations(mapping: &PortMap) -> Vec<ReservationKey> {
    // Without an address there are none.
    let host = mapping.published.host.map_or([0; 16], |host| Addr::from(host).bytes);
    expand::reservations(mapping).iter().map(|key| reservation_key(key, host)).collect()
}

fn reservation_key(key: &PortMapKey, host: [u8; 16]) -> ReservationKey {
    (key.proto.number, key.addr.bytes, key.port.number(), key.prefix_len, host)
}

fn key(published: &Published, protocol: Protocol, first: u16) -> PortKey {
    let (one, host) = published.host.map_or((0, [0; 16]), |host| (1, Addr::from(host).bytes));
    (protocol.number().number, one, host, first)
}
