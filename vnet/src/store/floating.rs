//! Floating addresses in the store: found by either of their addresses.

use std::net::IpAddr;

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition};
use vnet_common::Addr;

use super::Error;
use super::tables::{Json, Transaction};
use crate::spec::Floating;

const FLOATING: TableDefinition<[u8; 16], Json> = TableDefinition::new("floating");
const FLOATING_OF: TableDefinition<[u8; 16], [u8; 16]> = TableDefinition::new("floating_of");

impl Transaction {
    /// The floating address that is this address of the host.
    pub fn floating(&self, external: IpAddr) -> Result<Option<Floating>, Error> {
        self.get(FLOATING, Addr::from(external).bytes)
    }

    /// The floating address that leads to this address of an endpoint.
    pub fn floating_of(&self, addr: IpAddr) -> Result<Option<Floating>, Error> {
        let index = self.inner.open_table(FLOATING_OF)?;
        match index.get(Addr::from(addr).bytes)? {
            Some(external) => self.get(FLOATING, external.value()),
            None => Ok(None),
        }
    }

    /// Every floating address, in ascending order.
    pub fn floatings(&self) -> Result<Vec<Floating>, Error> {
        self.all(FLOATING)
    }

    /// How many floating addresses there are.
    pub fn count_floatings(&self) -> Result<u64, Error> {
        Ok(self.inner.open_table(FLOATING)?.len()?)
    }

    /// Notes a floating address.
    pub fn put_floating(&self, floating: &Floating) -> Result<(), Error> {
        let [external, addr] = [floating.external, floating.addr].map(|addr| Addr::from(addr).bytes);
        self.inner.open_table(FLOATING_OF)?.insert(addr, external)?;
        self.put(FLOATING, external, floating)
    }

    /// Forgets a floating address.
    pub fn remove_floating(&self, floating: &Floating) -> Result<(), Error> {
        let [external, addr] = [floating.external, floating.addr].map(|addr| Addr::from(addr).bytes);
        self.inner.open_table(FLOATING_OF)?.remove(addr)?;
        self.inner.open_table(FLOATING)?.remove(external)?;
        Ok(())
    }
}
