//! What an instance was asked for, on disk.
//!
//! ```text
//! /run/vnet/NAME/             0700
//!   router                    there if it may be a router: looked for without the lock
//!   lock                      held by a command as long as it runs; holds the number of its process
//!   state.redb                one database, committed atomically
//!     meta                    schema, settings, next mapping, block lengths in use, what is to be gone
//!     networks                name -> Network
//!     endpoints               name -> Endpoint
//!     addresses               address -> name of its endpoint                     (index)
//!     port_maps               protocol, host address, first port -> PortMap
//!     port_maps_of            endpoint, protocol, host address, first port        (index)
//!     reservations            protocol, family, block, host address: published on one address (index)
//!     masquerades             prefix -> Masquerade
//!     unmasqueraded           prefix of destinations -> prefix
//!     floating                address of the host -> Floating
//!     floating_of             address of an endpoint -> address of the host       (index)
//!     direct                  names of two endpoints -> DirectLink
//!     cgroup_limits           cgroup -> CgroupLimit
//!     host_addresses          address -> interface: what the data path was told
//! ```
//!
//! Values are JSON, so that a state file can be read by people and by the next version. Keys are chosen so that
//! no question a command asks reads more than the answer: one mapping added beside fifty thousand others looks at
//! its neighbour only.
//!
//! Every command opens the state under the exclusive lock of its instance, so two commands at once queue. Whoever waits
//! for more than a second says for whom, and the lock of one that dies is free at once. What is
//! wanted is committed before the kernel is touched: a command killed at any point leaves a record that the same
//! command, or `down`, finds.

mod cgroup_limits;
mod damage;
mod direct;
mod floating;
mod lock;
mod port_maps;
mod reading;
mod tables;

pub use damage::tell_of_damage;
pub use lock::Lock;
pub use port_maps::PortMapTables;
pub use reading::Reading;
pub use tables::{Savepoint, Transaction};

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::backends::InMemoryBackend;
use redb::{Database, DatabaseError};

use crate::instance::Instance;

/// Version of the tables and of what is in them. Raised when an older vnet would misread a newer record.
///
/// 2: an endpoint has any number of links. A record of 1 is read as it is; vnet of 1 would take the links of one of 2 for
/// gone.
const SCHEMA: u32 = 2;
/// The oldest version whose records are read as they are.
const OLDEST_SCHEMA: u32 = 1;

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no state.
    #[error("instance {instance} is not up: run `vnet {arguments}up`{others}")]
    NotUp {
        /// The instance.
        instance: String,
        /// What names the instance on the command line, unless it is the default.
        arguments: String,
        /// Which others are, if there are some.
        others: String,
    },
    /// Another command is not done yet.
    #[error(
        "instance {instance} is being changed by {holder}, which this command was to wait for {} s and no longer: \
         run it again, or wait longer with --wait",
        waited.as_secs()
    )]
    Busy {
        /// The instance.
        instance: String,
        /// Whose the lock is.
        holder: String,
        /// How long it waited.
        waited: Duration,
    },
    /// A file or directory.
    #[error("{doing} {}{}", path.display(), way_out(source))]
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
    #[error("state file{}", match &**.0 {
        redb::Error::Io(source) => way_out(source),
        _ => "",
    })]
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
        let others = Self::others_up(instance).map_or_else(String::new, |others| format!("; {others}"));
        Self::NotUp { instance: name.to_owned(), arguments, others }
    }

    /// Which other instances are up, and how to name one; nothing if none is.
    pub(crate) fn others_up(instance: &Instance) -> Option<String> {
        let others = instance.all().ok()?.into_iter();
        let others = others.filter(|it| it.name() != instance.name() && it.state_file().exists());
        let names: Vec<String> = others.map(|it| it.name().to_owned()).collect();
        match &names[..] {
            [] => None,
            [one] => Some(format!("instance {one} is up: name it with --instance {one}")),
            several => Some(format!("instances {} are up: name one with --instance", several.join(", "))),
        }
    }
}

/// What to do where the file system does not take what is to be written.
fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " (make room there and run the command again; what is up goes on)"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            " (make it writable and run the command again; what is up goes on)"
        }
        _ => "",
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

    /// Opens the state of an instance that is up; nothing if a command is changing it at the moment.
    ///
    /// # Errors
    /// When it is not up, or its state cannot be read.
    pub fn open_if_free(instance: &Instance) -> Result<Option<Self>, Error> {
        if !Self::exists(instance)? {
            return Err(Error::not_up(instance));
        }
        let Some(lock) = Lock::take_if_free(instance)? else { return Ok(None) };
        if !Self::exists(instance)? {
            return Err(Error::not_up(instance));
        }
        Self::open_locked(instance, lock).map(Some)
    }

    /// Who is changing an instance at the moment, for people; nothing if that is not known.
    #[must_use]
    pub fn holder(instance: &Instance) -> Option<String> {
        let owner = std::fs::read_to_string(instance.lock_file()).ok()?;
        (!owner.trim().is_empty()).then(|| format!("process {}", owner.trim()))
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
        if !Self::exists(instance)?
            && let Err(error) = make_file(&instance.state_file())
        {
            // Best effort: the error to report is the first one.
            let _ = delete_files(instance);
            return Err(error);
        }
        Self::open_locked(instance, lock)
    }

    /// Removes what a command that was killed may have left of an instance without a state.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn sweep(instance: &Instance) -> Result<(), Error> {
        if !instance.run_dir().exists() {
            return Ok(());
        }
        let lock = Lock::take(instance)?;
        if !Self::exists(instance)? {
            delete_files(instance)?;
        }
        drop(lock);
        Ok(())
    }

    /// A state that nobody else sees and that is gone afterwards: for a dry run, and for tests.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn in_memory() -> Result<Self, Error> {
        let database = Database::builder().create_with_backend(InMemoryBackend::new()).map_err(unify)?;
        check_schema(&database, Path::new("memory"))?;
        Ok(Self { database, place: None })
    }

    fn open_locked(instance: &Instance, lock: Lock) -> Result<Self, Error> {
        let path = instance.state_file();
        let database = Database::open(&path).map_err(|error| unreadable(error, &path))?;
        check_schema(&database, &path)?;
        let place = Some(Place { instance: instance.clone(), _lock: lock });
        Ok(Self { database, place })
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

    /// Marks the instance as one that may be a router: whoever finds the mark looks into the record.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn mark_router(&self) -> Result<(), Error> {
        let Some(place) = &self.place else { return Ok(()) };
        let path = place.instance.router_mark();
        let made = std::fs::File::options().create(true).truncate(false).write(true).open(&path);
        made.map(drop).map_err(|source| Error::File { doing: "make", path, source })
    }

    /// Closes the state, and keeps the lock, if it has one: nobody changes the file before that is dropped.
    #[must_use]
    pub fn close(self) -> Option<Lock> {
        let Self { database, place } = self;
        drop(database);
        place.map(|Place { _lock: lock, .. }| lock)
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

/// Removes everything in an instance's directory: the record first, since what is beside it says how to read it (that it may
/// be a router's, which has to be asked for where that lives); the lock last, since who takes a new one finds nothing of the
/// old.
fn delete_files(instance: &Instance) -> Result<(), Error> {
    let (directory, lock) = (instance.run_dir(), instance.lock_file());
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { doing: "remove", path, source }
    };
    let state = instance.state_file();
    match std::fs::remove_file(&state) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&state)(error)),
        _ => {}
    }
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
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(()),
        gone => gone.map_err(failed(&directory))?,
    }
    // The first instance made it. While there is another, it is not empty.
    if let Some(all) = directory.parent() {
        // Best effort: it may be a mount, or somebody else's.
        let _ = std::fs::remove_dir(all);
    }
    Ok(())
}

/// Makes an empty state. It appears as a whole: a database that is being made is not one yet, and whoever makes
/// it may be killed.
fn make_file(path: &Path) -> Result<(), Error> {
    let new = path.with_extension("new");
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { doing, path, source }
    };
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &new)(error)),
        _ => {}
    }
    let database = Database::create(&new).map_err(|error| unreadable(error, &new))?;
    check_schema(&database, &new)?;
    drop(database);
    std::fs::rename(&new, path).map_err(failed("rename", &new))
}

/// Notes the version in a database that is new or of an older version, and refuses one of another.
fn check_schema(database: &Database, path: &Path) -> Result<(), Error> {
    match Transaction::schema(database)? {
        Some(SCHEMA) => Ok(()),
        Some(found) if !(OLDEST_SCHEMA..SCHEMA).contains(&found) => {
            Err(Error::Schema { path: path.to_owned(), found })
        }
        _ => {
            let transaction = Transaction::begin(database)?;
            transaction.set_schema(SCHEMA)?;
            transaction.commit().map(drop)
        }
    }
}

/// Whether the system refused the file, or the file is no database.
fn unreadable(error: DatabaseError, path: &Path) -> Error {
    let path = path.to_owned();
    match error {
        DatabaseError::Storage(redb::StorageError::Io(source)) if source.raw_os_error().is_some() => {
            Error::File { doing: "open", path, source }
        }
        error => Error::Damaged { path, source: Box::new(error.into()) },
    }
}

fn unify(error: impl Into<redb::Error>) -> Error {
    Error::Database(Box::new(error.into()))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tempfile::TempDir;

    use super::*;
    use crate::spec::{PortMap, Protocol, Published, Settings};

    fn instance(directory: &TempDir) -> Instance {
        let below = |name: &str| directory.path().join(name);
        Instance::below("default", below("run"), below("bpf")).unwrap()
    }

    fn mapping(id: u32, published: &str) -> PortMap {
        let published: Published = published.parse().unwrap();
        PortMap {
            id,
            published,
            protocol: Protocol::Tcp,
            endpoint: "net1".parse().unwrap(),
            targets: vec!["192.168.0.2".parse().unwrap()],
            target_ports: published.ports,
            number: 1,
            allow_from: Vec::new(),
        }
    }

    #[test]
    fn what_is_committed_is_there_for_the_next_command() {
        let directory = TempDir::new().unwrap();
        let store = Store::create(&instance(&directory)).unwrap();
        let transaction = store.begin().unwrap();
        transaction.set_settings(&Settings::new(1, 2)).unwrap();
        transaction.put_port_map(&mapping(1, "[2001:db8::1]:8000-8010")).unwrap();
        transaction.commit().unwrap();
        // This one is dropped.
        store.begin().unwrap().put_port_map(&mapping(2, "80")).unwrap();
        drop(store);
        let store = Store::open(&instance(&directory)).unwrap();
        let transaction = store.begin().unwrap();
        assert_eq!(transaction.settings().unwrap(), Some(Settings::new(1, 2)));
        assert_eq!(transaction.port_maps().unwrap(), [mapping(1, "[2001:db8::1]:8000-8010")]);
        assert_eq!(transaction.port_maps_of(&"net1".parse().unwrap()).unwrap().len(), 1);
        assert_eq!(transaction.port_maps_of(&"net".parse().unwrap()).unwrap().len(), 0);
    }

    #[test]
    fn a_commit_can_be_taken_back() {
        let store = Store::in_memory().unwrap();
        let transaction = store.begin().unwrap();
        transaction.put_port_map(&mapping(1, "80")).unwrap();
        transaction.commit().unwrap();
        let transaction = store.begin().unwrap();
        transaction.put_port_map(&mapping(2, "8000-8003")).unwrap();
        assert_eq!(transaction.next_mapping().unwrap(), 1);
        transaction.set_next_mapping(2).unwrap();
        let before = transaction.commit().unwrap();
        store.restore(&before).unwrap();
        let transaction = store.begin().unwrap();
        assert_eq!(transaction.port_maps().unwrap(), [mapping(1, "80")]);
        assert_eq!((transaction.port_blocks().unwrap(), transaction.next_mapping().unwrap()), (0, 1));
    }

    #[test]
    fn neighbours_are_found_and_strangers_are_not() {
        let store = Store::in_memory().unwrap();
        let transaction = store.begin().unwrap();
        for (id, published) in [(1, "100-199"), (2, "300"), (3, "127.0.0.1:100"), (4, "65535")] {
            transaction.put_port_map(&mapping(id, published)).unwrap();
        }
        for (published, expected) in [
            ("99", None),
            ("100", Some(1)),
            ("150", Some(1)),
            ("199-250", Some(1)),
            ("200-299", None),
            ("1-400", Some(2)),
            ("127.0.0.1:99-101", Some(3)),
            ("127.0.0.1:300", None),
            ("[::1]:100", None),
            ("60000-65535", Some(4)),
        ] {
            let found = transaction.overlapping(&published.parse().unwrap(), Protocol::Tcp).unwrap();
            assert_eq!(found.map(|mapping| mapping.id), expected, "{published}");
            assert_eq!(transaction.overlapping(&published.parse().unwrap(), Protocol::Udp).unwrap(), None);
        }
    }

    #[test]
    fn a_mapping_on_an_address_is_found_whatever_its_protocol() {
        let store = Store::in_memory().unwrap();
        let transaction = store.begin().unwrap();
        let on =
            |host: &str| transaction.port_map_on(host.parse().unwrap()).unwrap().map(|mapping| mapping.id);
        assert_eq!(on("203.0.113.1"), None);
        for (id, published, protocol) in [
            (1, "80", Protocol::Tcp),
            (2, "203.0.113.1:80", Protocol::Tcp),
            (3, "203.0.113.1:90", Protocol::Tcp),
            (4, "203.0.113.3:80", Protocol::Udp),
            (5, "[2001:db8::1]:80", Protocol::Udp),
        ] {
            transaction.put_port_map(&PortMap { protocol, ..mapping(id, published) }).unwrap();
        }
        for (host, expected) in [
            ("203.0.113.0", None),
            ("203.0.113.1", Some(2)),
            ("203.0.113.2", None),
            ("203.0.113.3", Some(4)),
            ("203.0.113.4", None),
            ("2001:db8::1", Some(5)),
            ("2001:db8::2", None),
        ] {
            assert_eq!(on(host), expected, "{host}");
        }
    }

    #[test]
    fn another_version_and_a_damaged_file_are_refused_with_a_way_out() {
        let directory = TempDir::new().unwrap();
        let store = Store::create(&instance(&directory)).unwrap();
        let transaction = store.begin().unwrap();
        transaction.set_schema(SCHEMA + 1).unwrap();
        transaction.commit().unwrap();
        drop(store);
        let error = Store::open(&instance(&directory)).unwrap_err();
        assert!(matches!(error, Error::Schema { .. }) && error.to_string().contains("vnet down"));

        std::fs::write(instance(&directory).state_file(), b"nonsense".repeat(1000)).unwrap();
        let error = Store::open(&instance(&directory)).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains("move it away"));
    }

    #[test]
    fn a_record_of_an_older_version_is_one_of_this_version_from_then_on() {
        let directory = TempDir::new().unwrap();
        let store = Store::create(&instance(&directory)).unwrap();
        let transaction = store.begin().unwrap();
        transaction.set_schema(OLDEST_SCHEMA).unwrap();
        transaction.commit().unwrap();
        drop(store);
        let store = Store::open(&instance(&directory)).unwrap();
        assert_eq!(
            Transaction::schema(&store.database).unwrap(),
            Some(SCHEMA),
            "so that an older vnet refuses it"
        );
    }

    #[test]
    fn commands_queue_and_one_that_waited_for_down_finds_nothing() {
        let directory = TempDir::new().unwrap();
        let first = Store::create(&instance(&directory)).unwrap();
        let (tell, hear) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| tell.send(Store::open(&instance(&directory)).map(drop)).unwrap());
            assert!(hear.recv_timeout(Duration::from_millis(50)).is_err(), "the first has the lock");
            first.delete().unwrap();
            drop(first);
            assert!(matches!(hear.recv().unwrap(), Err(Error::NotUp { .. })));
        });
        assert!(!instance(&directory).run_dir().exists());
    }

    #[test]
    fn the_last_instance_takes_the_directory_of_all_along() {
        let directory = TempDir::new().unwrap();
        let below = |name: &str| directory.path().join(name);
        let [one, other] =
            ["one", "other"].map(|name| Instance::below(name, below("run"), below("bpf")).unwrap());
        let [first, second] = [&one, &other].map(|instance| Store::create(instance).unwrap());
        let not_up = Store::open(&instance(&directory)).unwrap_err().to_string();
        assert!(not_up.ends_with("; instances one, other are up: name one with --instance"), "{not_up}");
        first.delete().unwrap();
        assert!(other.state_file().exists(), "the other one stays");
        let not_up = Store::open(&one).unwrap_err().to_string();
        assert!(
            not_up.ends_with("`vnet --instance one up`; instance other is up: name it with --instance other")
        );
        second.delete().unwrap();
        assert!(!below("run").exists());
        // And it comes back.
        drop(Store::create(&one).unwrap());
        assert!(one.state_file().exists());
    }

    #[test]
    fn who_waits_no_longer_than_so_long_is_told_for_whom() {
        let directory = TempDir::new().unwrap();
        let _first = Store::create(&instance(&directory)).unwrap();
        for wait in [Duration::ZERO, Duration::from_millis(20)] {
            let error = Store::open(&instance(&directory).waiting(Some(wait))).unwrap_err();
            assert!(matches!(&error, Error::Busy { waited, .. } if *waited == wait), "{error:?}");
            let holder = format!("process {} (vnet", std::process::id());
            assert!(error.to_string().contains(&holder) && error.to_string().contains("--wait"), "{error}");
        }
    }

    #[test]
    fn the_directory_is_the_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = TempDir::new().unwrap();
        let _store = Store::create(&instance(&directory)).unwrap();
        let mode = instance(&directory).run_dir().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
