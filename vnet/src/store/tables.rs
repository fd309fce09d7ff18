//! The tables, and what is asked of them.

use std::borrow::Borrow;
use std::net::IpAddr;

use redb::{
    Database, Key, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use vnet_common::{Addr, Mac};

use super::Error;
use crate::ours;
use crate::spec::{Cidr, Endpoint, Going, Hold, Masquerade, Name, Network, Settings, Subnet};

/// A JSON value.
pub(super) type Json = &'static [u8];

const META: TableDefinition<&str, Json> = TableDefinition::new("meta");
pub(super) const NETWORKS: TableDefinition<&str, Json> = TableDefinition::new("networks");
pub(super) const ENDPOINTS: TableDefinition<&str, Json> = TableDefinition::new("endpoints");
const MASQUERADES: TableDefinition<([u8; 16], u8), Json> = TableDefinition::new("masquerades");
const UNMASQUERADED: TableDefinition<([u8; 16], u8), Json> = TableDefinition::new("unmasqueraded");
const DENIED: TableDefinition<([u8; 16], u8), Json> = TableDefinition::new("denied");
const ADDRESSES: TableDefinition<[u8; 16], &str> = TableDefinition::new("addresses");
const INTERFACES: TableDefinition<&str, &str> = TableDefinition::new("interfaces");
/// Whose the interfaces are between which fragments wait; no network or endpoint has such a name.
const HOLD: &str = "(fragments)";
const HOST_ADDRESSES: TableDefinition<[u8; 16], &str> = TableDefinition::new("host_addresses");

/// What is to be gone, until it is.
const GOING: &str = "going";

/// A record to go back to.
pub type Savepoint = redb::Savepoint;

/// Reads, and writes that take effect together.
#[allow(missing_debug_implementations, reason = "redb's transaction has none")]
pub struct Transaction {
    pub(super) inner: WriteTransaction,
    before: Savepoint,
}

impl Transaction {
    pub(super) fn begin(database: &Database) -> Result<Self, Error> {
        let inner = database.begin_write()?;
        let before = inner.ephemeral_savepoint()?;
        Ok(Self { inner, before })
    }

    pub(super) fn restore(database: &Database, savepoint: &Savepoint) -> Result<(), Error> {
        let mut inner = database.begin_write()?;
        inner.restore_savepoint(savepoint)?;
        Ok(inner.commit()?)
    }

    /// Writes everything; what was recorded before can be restored with what this returns.
    ///
    /// # Errors
    /// When the database fails; nothing is written then.
    pub fn commit(self) -> Result<Savepoint, Error> {
        self.inner.commit()?;
        Ok(self.before)
    }

    pub(super) fn get<'k, K: Key + 'static, T: DeserializeOwned>(
        &self,
        table: TableDefinition<K, Json>,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> Result<Option<T>, Error> {
        let table = self.inner.open_table(table)?;
        table.get(key)?.map(|value| decode(value.value())).transpose()
    }

    pub(super) fn put<'k, K: Key + 'static>(
        &self,
        table: TableDefinition<K, Json>,
        key: impl Borrow<K::SelfType<'k>>,
        value: &impl Serialize,
    ) -> Result<(), Error> {
        self.inner.open_table(table)?.insert(key, encode(value)?.as_slice())?;
        Ok(())
    }

    pub(super) fn all<K: Key + 'static, T: DeserializeOwned>(
        &self,
        table: TableDefinition<K, Json>,
    ) -> Result<Vec<T>, Error> {
        let table = self.inner.open_table(table)?;
        table.iter()?.map(|entry| decode(entry?.1.value())).collect()
    }

    /// The version of a database; nothing if it is new. It is read without beginning to write.
    pub(super) fn schema(database: &impl ReadableDatabase) -> Result<Option<u32>, Error> {
        let table = match database.begin_read()?.open_table(META) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            table => table?,
        };
        table.get("schema")?.map(|value| decode(value.value())).transpose()
    }

    pub(super) fn set_schema(&self, schema: u32) -> Result<(), Error> {
        self.put(META, "schema", &schema)
    }

    /// What holds for the whole instance; nothing if it is not up.
    pub fn settings(&self) -> Result<Option<Settings>, Error> {
        self.get(META, "settings")
    }

    /// Notes what holds for the whole instance.
    pub fn set_settings(&self, settings: &Settings) -> Result<(), Error> {
        self.put(META, "settings", settings)
    }

    pub(super) fn meta<T: DeserializeOwned + Default>(&self, key: &str) -> Result<T, Error> {
        Ok(self.get(META, key)?.unwrap_or_default())
    }

    pub(super) fn set_meta(&self, key: &str, value: &impl Serialize) -> Result<(), Error> {
        self.put(META, key, value)
    }

    /// What is to be gone, and may not be yet.
    pub fn going(&self) -> Result<Going, Error> {
        self.meta(GOING)
    }

    /// Notes what is to be gone.
    pub fn set_going(&self, going: &Going) -> Result<(), Error> {
        self.set_meta(GOING, going)
    }

    /// A network.
    pub fn network(&self, name: &Name) -> Result<Option<Network>, Error> {
        self.get(NETWORKS, name.as_str())
    }

    /// The networks that an endpoint is linked to, in the order of its links.
    pub fn networks_of(&self, endpoint: &Endpoint) -> Result<Vec<Network>, Error> {
        let networks = endpoint.links.iter().map(|link| self.network(&link.network));
        networks.filter_map(Result::transpose).collect()
    }

    /// Every network, by name.
    pub fn networks(&self) -> Result<Vec<Network>, Error> {
        self.all(NETWORKS)
    }

    /// Notes a network.
    pub fn put_network(&self, network: &Network) -> Result<(), Error> {
        for interface in network.interfaces() {
            self.inner.open_table(INTERFACES)?.insert(interface.as_str(), network.name.as_str())?;
        }
        self.put(NETWORKS, network.name.as_str(), network)
    }

    /// Forgets a network.
    pub fn remove_network(&self, network: &Network) -> Result<(), Error> {
        for interface in network.interfaces() {
            self.inner.open_table(INTERFACES)?.remove(interface.as_str())?;
        }
        self.inner.open_table(NETWORKS)?.remove(network.name.as_str())?;
        Ok(())
    }

    /// An endpoint.
    pub fn endpoint(&self, name: &Name) -> Result<Option<Endpoint>, Error> {
        self.get(ENDPOINTS, name.as_str())
    }

    /// Every endpoint, by name.
    pub fn endpoints(&self) -> Result<Vec<Endpoint>, Error> {
        self.all(ENDPOINTS)
    }

    /// The names of all endpoints.
    pub fn endpoint_names(&self) -> Result<Vec<String>, Error> {
        let table = self.inner.open_table(ENDPOINTS)?;
        table.iter()?.map(|entry| Ok(entry?.0.value().to_owned())).collect()
    }

    /// How many endpoints there are.
    pub fn count_endpoints(&self) -> Result<u64, Error> {
        Ok(self.inner.open_table(ENDPOINTS)?.len()?)
    }

    /// Notes an endpoint that has come to be otherwise, so that its former links and addresses are nobody's.
    pub fn replace_endpoint(&self, before: &Endpoint, endpoint: &Endpoint) -> Result<(), Error> {
        self.remove_endpoint(before)?;
        self.put_endpoint(endpoint)
    }

    /// Notes an endpoint.
    pub fn put_endpoint(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let mut addresses = self.inner.open_table(ADDRESSES)?;
        for addr in indexed(endpoint) {
            addresses.insert(addr.bytes, endpoint.name.as_str())?;
        }
        let mut interfaces = self.inner.open_table(INTERFACES)?;
        for link in &endpoint.links {
            interfaces.insert(link.host_interface.as_str(), endpoint.name.as_str())?;
        }
        self.put(ENDPOINTS, endpoint.name.as_str(), endpoint)
    }

    /// Forgets an endpoint.
    pub fn remove_endpoint(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let mut addresses = self.inner.open_table(ADDRESSES)?;
        for addr in indexed(endpoint) {
            addresses.remove(addr.bytes)?;
        }
        let mut interfaces = self.inner.open_table(INTERFACES)?;
        for link in &endpoint.links {
            interfaces.remove(link.host_interface.as_str())?;
        }
        self.inner.open_table(ENDPOINTS)?.remove(endpoint.name.as_str())?;
        Ok(())
    }

    /// Whose an address is.
    pub fn owner_of(&self, addr: IpAddr) -> Result<Option<Name>, Error> {
        let table = self.inner.open_table(ADDRESSES)?;
        let owner = table.get(Addr::from(addr).bytes)?;
        Ok(owner.and_then(|name| name.value().parse().ok()))
    }

    /// Whether an endpoint has this hardware address: its link-local address follows from it.
    pub fn is_mac_taken(&self, mac: Mac) -> Result<bool, Error> {
        Ok(self.owner_of(IpAddr::V6(ours::link_local(mac)))?.is_some())
    }

    /// The addresses of a subnet that endpoints have, in ascending order.
    pub fn taken_in(&self, subnet: Subnet) -> Result<Vec<IpAddr>, Error> {
        let table = self.inner.open_table(ADDRESSES)?;
        let bound = |addr: IpAddr| Addr::from(addr).bytes;
        let range = table.range(bound(subnet.first_host())..=bound(subnet.last_host()))?;
        range.map(|entry| Ok(IpAddr::from(Addr { bytes: entry?.0.value() }))).collect()
    }

    /// Whether an interface is one of the instance's.
    pub fn has_interface(&self, name: &str) -> Result<bool, Error> {
        Ok(self.inner.open_table(INTERFACES)?.get(name)?.is_some())
    }

    /// Every interface of the instance's on the host.
    pub fn interfaces(&self) -> Result<Vec<String>, Error> {
        let table = self.inner.open_table(INTERFACES)?;
        table.iter()?.map(|entry| Ok(entry?.0.value().to_owned())).collect()
    }

    /// The name of the network or the endpoint that has an interface.
    pub fn owner_of_interface(&self, name: &str) -> Result<Option<String>, Error> {
        let table = self.inner.open_table(INTERFACES)?;
        Ok(table.get(name)?.map(|owner| owner.value().to_owned()))
    }

    /// Notes the interfaces between which fragments wait.
    pub fn put_hold(&self, hold: &Hold) -> Result<(), Error> {
        let mut interfaces = self.inner.open_table(INTERFACES)?;
        for name in [&hold.entrance, &hold.exit] {
            interfaces.insert(name.as_str(), HOLD)?;
        }
        Ok(())
    }

    /// A masquerade rule.
    pub fn masquerade(&self, subnet: Cidr) -> Result<Option<Masquerade>, Error> {
        self.get(MASQUERADES, prefix_key(subnet))
    }

    /// Every masquerade rule, by prefix.
    pub fn masquerades(&self) -> Result<Vec<Masquerade>, Error> {
        self.all(MASQUERADES)
    }

    /// Notes a masquerade rule.
    pub fn put_masquerade(&self, rule: &Masquerade) -> Result<(), Error> {
        self.put(MASQUERADES, prefix_key(rule.subnet), rule)
    }

    /// Forgets a masquerade rule.
    pub fn remove_masquerade(&self, subnet: Cidr) -> Result<(), Error> {
        self.inner.open_table(MASQUERADES)?.remove(prefix_key(subnet))?;
        Ok(())
    }

    /// Whether destinations are left out of masquerade, exactly these.
    pub fn is_unmasqueraded(&self, destinations: Cidr) -> Result<bool, Error> {
        Ok(self.inner.open_table(UNMASQUERADED)?.get(prefix_key(destinations))?.is_some())
    }

    /// Every prefix of destinations that masquerade leaves alone, in ascending order.
    pub fn unmasqueraded(&self) -> Result<Vec<Cidr>, Error> {
        self.all(UNMASQUERADED)
    }

    /// Notes that destinations are left out of masquerade.
    pub fn put_unmasqueraded(&self, destinations: Cidr) -> Result<(), Error> {
        self.put(UNMASQUERADED, prefix_key(destinations), &destinations)
    }

    /// Forgets that they are.
    pub fn remove_unmasqueraded(&self, destinations: Cidr) -> Result<(), Error> {
        self.inner.open_table(UNMASQUERADED)?.remove(prefix_key(destinations))?;
        Ok(())
    }

    /// Whether sources are on the deny list, exactly these.
    pub fn is_denied(&self, sources: Cidr) -> Result<bool, Error> {
        Ok(self.inner.open_table(DENIED)?.get(prefix_key(sources))?.is_some())
    }

    /// The deny list, in ascending order.
    pub fn denied(&self) -> Result<Vec<Cidr>, Error> {
        self.all(DENIED)
    }

    /// Notes that sources are on the deny list.
    pub fn put_denied(&self, sources: Cidr) -> Result<(), Error> {
        self.put(DENIED, prefix_key(sources), &sources)
    }

    /// Forgets that they are.
    pub fn remove_denied(&self, sources: Cidr) -> Result<(), Error> {
        self.inner.open_table(DENIED)?.remove(prefix_key(sources))?;
        Ok(())
    }

    /// The addresses of the host that the data path was told, with their interfaces.
    pub fn host_addresses(&self) -> Result<Vec<(IpAddr, String)>, Error> {
        let table = self.inner.open_table(HOST_ADDRESSES)?;
        let entry = |entry: (redb::AccessGuard<'_, [u8; 16]>, redb::AccessGuard<'_, &str>)| {
            (IpAddr::from(Addr { bytes: entry.0.value() }), entry.1.value().to_owned())
        };
        table.iter()?.map(|found| Ok(entry(found?))).collect()
    }

    /// Notes an address of the host.
    pub fn put_host_address(&self, addr: IpAddr, interface: &str) -> Result<(), Error> {
        self.inner.open_table(HOST_ADDRESSES)?.insert(Addr::from(addr).bytes, interface)?;
        Ok(())
    }

    /// Forgets an address of the host.
    pub fn remove_host_address(&self, addr: IpAddr) -> Result<(), Error> {
        self.inner.open_table(HOST_ADDRESSES)?.remove(Addr::from(addr).bytes)?;
        Ok(())
    }
}

/// What the index of addresses knows of an endpoint: its addresses, and the link-local one that stands for its
/// hardware address.
fn indexed(endpoint: &Endpoint) -> impl Iterator<Item = Addr> {
    let link_local = endpoint.links.iter().map(|link| IpAddr::V6(ours::link_local(link.mac)));
    endpoint.addresses().chain(link_local).map(Addr::from)
}

fn prefix_key(subnet: Cidr) -> ([u8; 16], u8) {
    (Addr::from(subnet.net().addr()).bytes, subnet.net().prefix_len())
}

pub(super) fn encode(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|source| Error::Value { key: "a new entry".into(), source })
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Value {
        key: String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned(),
        source,
    })
}
