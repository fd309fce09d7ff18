//! What an instance was asked for, on disk.
//!
//! ```text
//! /run/vnet/NAME/             0700
//!   lock                      held by a command as long as it runs; holds the number of its process
//!   state.redb                one database, committed atomically
//!     meta                    schema, settings, next mapping, block lengths in use
//!     networks                name -> Network
//!     endpoints               name -> Endpoint
//!     addresses               address -> name of its endpoint                     (index)
//!     port_maps               protocol, host address, first port -> PortMap
//!     port_maps_of            endpoint, protocol, host address, first port        (index)
//!     masquerades             prefix -> Masquerade
//!     host_addresses          address -> interface: what the data path was told
//! ```
//!
//! Values are JSON, so that a state file can be read by people and by the next version. Keys are chosen so that
//! no question a command asks reads more than the answer: one mapping added beside fifty thousand others looks at
//! its neighbour only.
//!
//! Every command opens the state under the exclusive lock of its instance, so two commands at once queue. What is
//! wanted is committed before the kernel is touched: a command killed at any point leaves a record that the same
//! command, or `down`, finds.

mod lock;
mod port_maps;
mod tables;

pub use lock::Lock;
pub use tables::{Savepoint, Transaction};

use std::io;
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError};

use crate::instance::Instance;

/// Version of the tables.
const SCHEMA: u32 = 1;

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no state.
    #[error("instance {instance} is not up: run `vnet {arguments}up`")]
    NotUp {
        /// The instance.
        instance: String,
        /// What names the instance on the command line, unless it is the default.
        arguments: String,
    },
    /// A file or directory.
    #[error("{doing} {}", path.display())]
    File {
        /// What was attempted.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The database is no database.
    #[error(
        "{} cannot be read, so nothing is known of what it held: move it away, run `vnet down` to remove \
         the maps and programs, and remove bridges and namespaces that are left by hand",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why it cannot be read.
        source: Box<redb::Error>,
    },
    /// The tables are of another version.
    #[error(
        "{} was written by another version of vnet (schema {found}, this one knows {SCHEMA}): \
         run `vnet down` with that version",
        path.display()
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The database failed at work.
    #[error("state file")]
    Database(#[source] Box<redb::Error>),
    /// A value is not what this version writes.
    #[error("the state file's entry for {key} cannot be understood")]
    Value {
        /// Its key.
        key: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

macro_rules! from_redb {
    ($($error:ident)+) => {
        $(impl From<redb::$error> for Error {
            fn from(error: redb::$error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        })+
    };
}

impl Error {
    /// What is said of an instance that is not up.
    pub(crate) fn not_up(instance: &Instance) -> Self {
        let name = instance.name();
        let arguments = if name == "default" { String::new() } else { format!("--instance {name} ") };
        Self::NotUp { instance: name.to_owned(), arguments }
    }
}

from_redb!(StorageError TableError TransactionError CommitError SavepointError);

/// The state of an instance, locked.
#[derive(Debug)]
pub struct Store {
    database: Database,
    place: Option<Place>,
}

/// Where a state lives that is not just in memory.
#[derive(Debug)]
struct Place {
    instance: Instance,
    _lock: Lock,
}

impl Store {
    /// Opens the state of an instance that is up, and waits for other commands to finish.
    ///
    /// # Errors
    /// When it is not up, or its state cannot be read.
    pub fn open(instance: &Instance) -> Result<Self, Error> {
        if !Self::exists(instance)? {
            return Err(Error::not_up(instance));
        }
        let lock = Lock::take(instance)?;
        if !Self::exists(instance)? {
            // It went down while this command waited, and taking the lock has made its directory again.
            // Best effort: an empty directory harms nobody.
            let _ = delete_files(instance);
            return Err(Error::not_up(instance));
        }
        Self::open_locked(instance, lock)
    }

    /// Whether an instance has a state.
    ///
    /// # Errors
    /// When one may not look.
    pub fn exists(instance: &Instance) -> Result<bool, Error> {
        let path = instance.state_file();
        // That one may not look is an error, not an absence.
        path.try_exists().map_err(|source| Error::File { doing: "look for", path, source })
    }

    /// Opens the state of an instance, makes it if there is none, and waits for other commands to finish.
    ///
    /// # Errors
    /// When it can be neither read nor made.
    pub fn create(instance: &Instance) -> Result<Self, Error> {
        let lock = Lock::take(instance)?;
        Self::open_locked(instance, lock)
    }

    /// A state that nobody else sees and that is gone afterwards: for a dry run, and for tests.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn in_memory() -> Result<Self, Error> {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).map_err(unify)?;
        let store = Self { database, place: None };
        store.check_schema(Path::new("memory"))?;
        Ok(store)
    }

    fn open_locked(instance: &Instance, lock: Lock) -> Result<Self, Error> {
        let path = instance.state_file();
        let database = Database::create(&path).map_err(|error| match error {
            DatabaseError::Storage(redb::StorageError::Io(source)) => {
                Error::File { doing: "open", path: path.clone(), source }
            }
            error => Error::Damaged { path: path.clone(), source: Box::new(error.into()) },
        })?;
        let place = Some(Place { instance: instance.clone(), _lock: lock });
        let store = Self { database, place };
        store.check_schema(&path)?;
        Ok(store)
    }

    /// Notes the version in a new database and refuses one of another version.
    fn check_schema(&self, path: &Path) -> Result<(), Error> {
        let transaction = self.begin()?;
        match transaction.schema()? {
            Some(SCHEMA) => Ok(()),
            Some(found) => Err(Error::Schema { path: path.to_owned(), found }),
            None => {
                transaction.set_schema(SCHEMA)?;
                transaction.commit().map(drop)
            }
        }
    }

    /// Begins to read and write; nothing is written before [`Transaction::commit`].
    ///
    /// # Errors
    /// When the database fails.
    pub fn begin(&self) -> Result<Transaction, Error> {
        Transaction::begin(&self.database)
    }

    /// Goes back to what was recorded before a transaction was committed.
    ///
    /// # Errors
    /// When the database fails.
    pub fn restore(&self, savepoint: &Savepoint) -> Result<(), Error> {
        Transaction::restore(&self.database, savepoint)
    }

    /// Removes the state and its directory; whoever waits for the lock finds that out.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn delete(&self) -> Result<(), Error> {
        match &self.place {
            Some(place) => delete_files(&place.instance),
            None => Ok(()),
        }
    }
}

/// Removes everything in an instance's directory, the lock last: who takes a new one finds nothing of the old.
fn delete_files(instance: &Instance) -> Result<(), Error> {
    let (directory, lock) = (instance.run_dir(), instance.lock_file());
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { doing: "remove", path, source }
    };
    for entry in std::fs::read_dir(&directory).map_err(failed(&directory))? {
        let path = entry.map_err(failed(&directory))?.path();
        if path.is_dir() {
            std::fs::remove_dir_all(&path).map_err(failed(&path))?;
        } else if path != lock {
            std::fs::remove_file(&path).map_err(failed(&path))?;
        }
    }
    std::fs::remove_file(&lock).map_err(failed(&lock))?;
    match std::fs::remove_dir(&directory) {
        // Somebody is bringing it up again already.
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(failed(&directory)(error)),
        _ => Ok(()),
    }
}

fn unify(error: impl Into<redb::Error>) -> Error {
    Error::Database(Box::new(error.into()))
}
