//! A record that is only read: nothing is written for it, not even that somebody has it open, so it waits for no disk, and
//! the file stays as it is.

use redb::{
    Database, DatabaseError, Key, ReadOnlyDatabase, ReadTransaction, ReadableDatabase as _,
    ReadableTable as _, TableDefinition, TableError,
};
use serde::de::DeserializeOwned;

use super::port_maps::PORT_MAPS;
use super::tables::{ENDPOINTS, Json, NETWORKS, decode};
use super::{Error, Lock, OLDEST_SCHEMA, SCHEMA, Store, Transaction, unreadable};
use crate::instance::Instance;
use crate::spec::{Endpoint, Network, PortMap};

/// The state of an instance, locked, to be read.
#[allow(missing_debug_implementations, reason = "redb's transaction has none")]
pub struct Reading {
    transaction: ReadTransaction,
    _lock: Lock,
}

impl Reading {
    /// Opens the state of an instance that is up; nothing if a command is changing it at the moment.
    ///
    /// # Errors
    /// When it is not up, or its state cannot be read.
    pub fn open_if_free(instance: &Instance) -> Result<Option<Self>, Error> {
        if !Store::exists(instance)? {
            return Err(Error::not_up(instance));
        }
        let Some(lock) = Lock::take_if_free(instance)? else { return Ok(None) };
        if !Store::exists(instance)? {
            return Err(Error::not_up(instance));
        }
        let path = instance.state_file();
        let database = match ReadOnlyDatabase::open(&path) {
            // A command that had it open was killed.
            Err(DatabaseError::RepairAborted) => {
                drop(Database::open(&path).map_err(|error| unreadable(error, &path))?);
                ReadOnlyDatabase::open(&path)
            }
            opened => opened,
        };
        let database = database.map_err(|error| unreadable(error, &path))?;
        match Transaction::schema(&database)? {
            Some(found) if !(OLDEST_SCHEMA..=SCHEMA).contains(&found) => Err(Error::Schema { path, found }),
            _ => Ok(Some(Self { transaction: database.begin_read()?, _lock: lock })),
        }
    }

    /// Every network, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub fn networks(&self) -> Result<Vec<Network>, Error> {
        self.all(NETWORKS)
    }

    /// Every endpoint, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub fn endpoints(&self) -> Result<Vec<Endpoint>, Error> {
        self.all(ENDPOINTS)
    }

    /// Every mapping.
    ///
    /// # Errors
    /// When the database fails.
    pub fn port_maps(&self) -> Result<Vec<PortMap>, Error> {
        self.all(PORT_MAPS)
    }

    fn all<K: Key + 'static, T: DeserializeOwned>(
        &self,
        table: TableDefinition<K, Json>,
    ) -> Result<Vec<T>, Error> {
        let table = match self.transaction.open_table(table) {
            // Nothing of this kind was ever recorded.
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            opened => opened?,
        };
        table.iter()?.map(|entry| decode(entry?.1.value())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use tempfile::TempDir;

    use super::*;
    use crate::spec::Settings;

    fn instance(directory: &TempDir) -> Instance {
        let below = |name: &str| directory.path().join(name);
        Instance::below("default", below("run"), below("bpf")).unwrap()
    }

    #[test]
    fn to_read_writes_nothing_and_waits_for_nobody() {
        let directory = TempDir::new().unwrap();
        let instance = instance(&directory);
        let store = Store::create(&instance).unwrap();
        assert!(Reading::open_if_free(&instance).unwrap().is_none(), "somebody has it");
        let transaction = store.begin().unwrap();
        transaction.set_settings(&Settings::new(1, 1)).unwrap();
        transaction.commit().unwrap();
        drop(store);
        let file = fs::File::options().write(true).open(instance.state_file()).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let before = fs::read(instance.state_file()).unwrap();
        let reading = Reading::open_if_free(&instance).unwrap().unwrap();
        assert!(reading.networks().unwrap().is_empty() && reading.port_maps().unwrap().is_empty());
        // Whoever changes something waits for it.
        assert!(Store::open_if_free(&instance).unwrap().is_none());
        drop(reading);
        assert_eq!(fs::read(instance.state_file()).unwrap(), before);
        assert_eq!(file.metadata().unwrap().modified().unwrap(), SystemTime::UNIX_EPOCH);
        assert!(Store::open_if_free(&instance).unwrap().is_some());
    }

    #[test]
    fn a_record_that_a_killed_command_had_open_is_read_all_the_same() {
        let directory = TempDir::new().unwrap();
        let instance = instance(&directory);
        drop(Store::create(&instance).unwrap());
        let store = Store::open(&instance).unwrap();
        let transaction = store.begin().unwrap();
        transaction.set_settings(&Settings::new(1, 1)).unwrap();
        transaction.commit().unwrap();
        // What it looks like while it is open is what a kill leaves.
        let left = fs::read(instance.state_file()).unwrap();
        drop(store);
        fs::write(instance.state_file(), &left).unwrap();
        assert!(matches!(ReadOnlyDatabase::open(instance.state_file()), Err(DatabaseError::RepairAborted)));
        assert!(Reading::open_if_free(&instance).unwrap().unwrap().endpoints().unwrap().is_empty());
    }
}
