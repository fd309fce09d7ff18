//! What was before: a file beside the state for each parameter of the host that vnet changes, written before the
//! change and removed after it has been taken back.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::error::Error;
use crate::instance::Instance;

/// Where they are, below the instance's directory.
const DIRECTORY: &str = "sysctl";

/// A note of what was before.
#[derive(Debug)]
pub(super) struct Former {
    directory: PathBuf,
    name: String,
}

impl Former {
    /// The note of that name, whether it has been made or not.
    pub(super) fn of(instance: &Instance, name: &str) -> Self {
        Self { directory: instance.run_dir().join(DIRECTORY), name: name.to_owned() }
    }

    /// The names of those that have been made.
    pub(super) fn names(instance: &Instance) -> Result<Vec<String>, Error> {
        let path = instance.run_dir().join(DIRECTORY);
        let names = fs::read_dir(&path).and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<Vec<_>>>()
        });
        match names {
            Ok(names) => Ok(names),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(Error::ReadFile { path, source }),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    /// What it says, if it has been made.
    pub(super) fn load(&self) -> Result<Option<String>, Error> {
        match fs::read_to_string(self.path()) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::ReadFile { path: self.path(), source }),
        }
    }

    /// Makes it so that a reader, or a crash, finds the old one or the new one.
    pub(super) fn save(&self, text: &str) -> Result<(), Error> {
        let new = self.directory.join(format!("{}+new", self.name));
        let saved = fs::create_dir_all(&self.directory)
            .and_then(|()| fs::write(&new, text))
            .and_then(|()| fs::rename(&new, self.path()));
        saved.map_err(|source| Error::WriteFile { path: self.path(), source })
    }

    /// Removes it; the directory goes with its last file.
    pub(super) fn remove(&self) -> Result<(), Error> {
        let path = self.path();
        fs::remove_file(&path).map_err(|source| Error::WriteFile { path, source })?;
        let _ = fs::remove_dir(&self.directory);
        Ok(())
    }
}
