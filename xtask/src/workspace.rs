//! Where things are: the workspace, its target directory, and the Cargo we were started by.

use crate::process;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What the specification of the file says it begins with.
const CACHEDIR_TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n";

pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// What `CARGO_TARGET_DIR` or Cargo's configuration make of "target".
    pub(crate) target: PathBuf,
    pub(crate) cargo: PathBuf,
}

impl Workspace {
    pub(crate) fn locate() -> Result<Self> {
        let cargo = env::var_os("CARGO").context("CARGO is not set: start this with `cargo xtask`")?;
        let manifest_dir = env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?;
        let root = Path::new(&manifest_dir).parent().context("xtask has no parent directory")?.to_owned();
        let mut metadata = Command::new(&cargo);
        metadata.args(["metadata", "--no-deps", "--format-version=1", "--manifest-path"]);
        let metadata = process::output(metadata.arg(root.join("Cargo.toml")))?;
        let target = target_directory(&metadata).context("`cargo metadata` names no target directory")?;
        Ok(Self { root, target: target.into(), cargo: cargo.into() })
    }

    /// Cargo, in the workspace. The target directory is passed on because a relative `CARGO_TARGET_DIR` means another
    /// one when seen from another directory.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = Command::new(&self.cargo);
        cargo.arg(subcommand).current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        cargo
    }

    /// Where set-up keeps what it made.
    pub(crate) fn tools(&self) -> Result<PathBuf> {
        let tools = self.target.join("tools");
        fs::create_dir_all(&tools).with_context(|| format!("create {}", tools.display()))?;
        // By this file vnet/build.rs knows the target directory. Cargo writes it only when it made the directory.
        let tag = self.target.join("CACHEDIR.TAG");
        if !tag.exists() {
            fs::write(&tag, CACHEDIR_TAG).with_context(|| format!("write {}", tag.display()))?;
        }
        Ok(tools)
    }

    /// The release of vnet, which the tests and the demonstration use.
    pub(crate) fn release_binary(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }
}

/// The one thing wanted from the metadata, without a JSON library for it.
fn target_directory(metadata: &str) -> Option<String> {
    let (_, rest) = metadata.split_once(r#""target_directory":""#)?;
    let (path, _) = rest.split_once('"')?;
    Some(path.replace(r"\\", r"\"))
}

#[cfg(test)]
mod tests {
    use super::target_directory;

    #[test]
    fn the_target_directory_is_found_in_the_metadata() {
        let metadata = r#"{"packages":[],"target_directory":"/a b/target","version":1}"#;
        assert_eq!(target_directory(metadata).as_deref(), Some("/a b/target"));
        assert_eq!(target_directory("{}"), None);
    }
}
