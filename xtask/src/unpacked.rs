//! Files out of packages of Debian's that are only unpacked, into `target/tools`: installed, some would start daemons that
//! change the machine's interfaces and rules.

use crate::apt;
use crate::debian::OsRelease;
use crate::process;
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file out of a package.
pub(crate) struct Unpacked {
    pub(crate) package: &'static str,
    /// What of the package is needed: a program, or a library of one.
    pub(crate) file: &'static str,
    /// Where it is in the package; the same where that is installed.
    pub(crate) places: &'static [&'static str],
    /// What tells whoever needs it where it is; its version is told by the same with `_VERSION`.
    pub(crate) variable: &'static str,
    pub(crate) why: &'static str,
    /// Whether one that is installed does as well: not where another package may bring something else by that name.
    pub(crate) installed_will_do: bool,
}

/// A file that is not installed.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
}

impl Unpacked {
    /// Makes sure of it; nothing is returned if it is installed.
    pub(crate) fn ensure(&self, workspace: &Workspace, steps: &mut Steps) -> Result<Option<Found>> {
        let Self { package, file: needed, why, .. } = self;
        let is_installed = || process::program_path(needed).is_some() || self.below(Path::new("/")).is_some();
        if self.installed_will_do && is_installed() {
            return Ok(None);
        }
        let dir = workspace.tools()?.join(package);
        if let Some(found) = self.unpacked(&dir)? {
            return Ok(Some(found));
        }
        if !OsRelease::read().is_debian() {
            bail!("it is not installed, and this is no Debian to get {package} from");
        }
        steps.step(&format!("unpacking Debian's {package} into target/tools: {needed} is {why}"), || {
            fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
            let file = apt::download(package, &dir)?;
            let mut unpack = Command::new("dpkg-deb");
            process::output(unpack.arg("--extract").arg(&file).arg(dir.join("root")))?;
            let mut query = Command::new("dpkg-deb");
            let version = process::output(query.arg("--field").arg(&file).arg("Version"))?;
            // Last, because by this file it is known that everything is there.
            fs::write(dir.join("version"), version.trim()).context("write the version")?;
            fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))
        })?;
        self.unpacked(&dir)?.map(Some).with_context(|| format!("{package} has no {needed}"))
    }

    /// What was unpacked before, if it was.
    fn unpacked(&self, dir: &Path) -> Result<Option<Found>> {
        let version = dir.join("version");
        if !version.exists() {
            return Ok(None);
        }
        let version = fs::read_to_string(&version).with_context(|| format!("read {}", version.display()))?;
        Ok(self.below(&dir.join("root")).map(|path| Found { path, version }))
    }

    /// The file in one of its places below a directory.
    fn below(&self, root: &Path) -> Option<PathBuf> {
        let mut places = self.places.iter().map(|place| root.join(place).join(self.file));
        places.find(|path| path.is_file())
    }
}
