//! Programs out of Debian's packages: installed, or unpacked by `cargo xtask bench`, which says where.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rival::{Absent, find};

/// A program that is no command: it stands where its package puts it, and does not tell its version.
#[derive(Debug)]
pub(crate) struct Packaged {
    pub(crate) program: &'static str,
    pub(crate) package: &'static str,
    /// What of the environment says where it is, if it is not installed; with `_VERSION` it says its version.
    pub(crate) variable: &'static str,
    /// Where it is if it is installed.
    pub(crate) places: &'static [&'static str],
}

impl Packaged {
    /// Where it is.
    ///
    /// # Errors
    /// When it is nowhere.
    pub(crate) fn path(&self) -> Result<PathBuf, Absent> {
        let named = std::env::var_os(self.variable).map(PathBuf::from);
        let places = self.places.iter().map(|place| Path::new(place).join(self.program));
        let mut found = named.into_iter().chain(find(self.program)).chain(places);
        let absent = || Absent(format!("no {} (Debian's package {})", self.program, self.package));
        found.find(|path| path.is_file()).ok_or_else(absent)
    }

    /// The package and its version.
    ///
    /// # Errors
    /// When the program is nowhere.
    pub(crate) fn version(&self) -> Result<String, Absent> {
        self.path()?;
        let package = self.package;
        if let Ok(version) = std::env::var(format!("{}_VERSION", self.variable)) {
            return Ok(format!("{package} {version}"));
        }
        let query = ["--show", "--showformat=${Version}", package];
        let said = Command::new("dpkg-query").args(query).output();
        let said = said.ok().filter(|said| said.status.success()).map(|said| said.stdout);
        Ok(said.map_or_else(
            || format!("{} of unknown version", self.program),
            |said| format!("{package} {}", String::from_utf8_lossy(&said)),
        ))
    }
}
