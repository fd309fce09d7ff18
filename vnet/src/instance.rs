//! Where an instance keeps what it owns.
//!
//! ```text
//! /run/vnet/NAME/lock              held while a command changes anything
//! /run/vnet/NAME/router            that it is a router, which has a namespace of its own
//! /run/vnet/NAME/state.redb        what was asked for, and what was there before
//! /sys/fs/bpf/vnet/NAME/MAP        pinned maps (vnet_common::maps)
//! /sys/fs/bpf/vnet/NAME/programs/  pinned programs, by name
//! /sys/fs/bpf/vnet/NAME/links/     pinned attachments, PROGRAM@INTERFACE or PROGRAM@cgroup
//! /run/netns/NAME                  the namespace of a router
//! /run/netns/ENDPOINT              the namespaces it made, where `ip netns` looks for them
//! ```
//!
//! `VNET_BPFFS` moves `/sys/fs/bpf`, `VNET_RUN` moves `/run/vnet`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names and paths of one instance, and how long a command waits for its turn there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    name: String,
    run: PathBuf,
    bpffs: PathBuf,
    wait: Option<Duration>,
}

/// Why a word cannot name an instance.
#[derive(Debug, thiserror::Error)]
#[error("{name:?} cannot name an instance: use 1 to 32 letters, digits, '-' or '_'")]
pub struct BadInstanceName {
    name: String,
}

impl Instance {
    /// The instance called `name`, with its directories where the environment says.
    ///
    /// # Errors
    /// When the name could not be a directory's.
    pub fn new(name: &str) -> Result<Self, BadInstanceName> {
        let run = std::env::var_os("VNET_RUN").map_or_else(|| PathBuf::from("/run/vnet"), PathBuf::from);
        let bpffs =
            std::env::var_os("VNET_BPFFS").map_or_else(|| PathBuf::from("/sys/fs/bpf"), PathBuf::from);
        Self::below(name, run, bpffs)
    }

    /// The instance called `name`, with its directories below these.
    ///
    /// # Errors
    /// When the name could not be a directory's.
    pub fn below(name: &str, run: PathBuf, bpffs: PathBuf) -> Result<Self, BadInstanceName> {
        // bpffs refuses dots in names, so an instance has none either.
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 32 || !name.chars().all(fits) {
            return Err(BadInstanceName { name: name.to_owned() });
        }
        Ok(Self { name: name.to_owned(), run, bpffs, wait: None })
    }

    /// It, for a command that waits for the lock so long and no longer; without a bound as long as it takes.
    #[must_use]
    pub fn waiting(self, wait: Option<Duration>) -> Self {
        Self { wait, ..self }
    }

    /// How long a command waits for the lock; as long as it takes without.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        self.wait
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Directory of its state.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.run.join(&self.name)
    }

    /// The lock that a command holds while it changes anything.
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.run_dir().join("lock")
    }

    /// The state file.
    #[must_use]
    pub fn state_file(&self) -> PathBuf {
        self.run_dir().join("state.redb")
    }

    /// That the instance may be a router; whether it is says its state.
    #[must_use]
    pub fn router_mark(&self) -> PathBuf {
        self.run_dir().join("router")
    }

    /// The instances that have a directory of state where this one has its own, by name; their commands wait as long.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn all(&self) -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(&self.run) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            let instance = Self::below(&name, self.run.clone(), self.bpffs.clone());
            all.extend(instance.map(|instance| instance.waiting(self.wait)));
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Mount point of the BPF file system.
    #[must_use]
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// Directory of its pins.
    #[must_use]
    pub fn pin_dir(&self) -> PathBuf {
        self.bpffs.join("vnet").join(&self.name)
    }

    /// Pin of a map.
    #[must_use]
    pub fn map_pin(&self, map: &str) -> PathBuf {
        self.pin_dir().join(map)
    }

    /// Pin of a program.
    #[must_use]
    pub fn program_pin(&self, program: &str) -> PathBuf {
        self.pin_dir().join("programs").join(program)
    }

    /// Pin of a program's attachment. Dots in an interface's name become colons, which no interface name holds.
    #[must_use]
    pub fn link_pin(&self, program: &str, place: &str) -> PathBuf {
        self.pin_dir().join("links").join(format!("{program}@{}", place.replace('.', ":")))
    }
}
