//! `cargo xtask build`: vnet, with its eBPF programs inside.

use crate::process;
use crate::setup;
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build target/release/vnet
    #[arg(long)]
    release: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Profile {
    Debug,
    Release,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut steps = Steps::default();
    let ready = setup::ensure(&mut steps)?;
    let profile = if args.release { Profile::Release } else { Profile::Debug };
    vnet(&ready.workspace, profile, &mut steps)
}

/// Builds vnet. Its build script builds the eBPF programs.
pub(crate) fn vnet(workspace: &Workspace, profile: Profile, steps: &mut Steps) -> Result<()> {
    let (what, flag) = match profile {
        Profile::Debug => ("building vnet and its eBPF programs", None),
        Profile::Release => ("building the release of vnet and its eBPF programs", Some("--release")),
    };
    steps.step(what, || {
        // Not `cargo build` with flags for everything: procedural macros cannot be linked so.
        let mut cargo = workspace.cargo("rustc");
        cargo.args(["--package", "vnet", "--bin", "vnet"]).args(flag);
        if matches!(profile, Profile::Release) && has_static_libc() {
            cargo.args(["--", "-Ctarget-feature=+crt-static"]);
        }
        process::run(&mut cargo)
    })
}

/// Builds a vnet whose maps are laid out otherwise, for tests of upgrades, and says where it is.
pub(crate) fn vnet_of_other_abi(workspace: &Workspace, steps: &mut Steps) -> Result<PathBuf> {
    let built = workspace.target.join("debug").join("vnet");
    let kept = workspace.target.join("other-abi").join("vnet");
    steps.step("building a vnet with another ABI, to upgrade from and to", || {
        let mut cargo = workspace.cargo("build");
        process::run(cargo.args(["--package", "vnet", "--bin", "vnet", "--features", "other-abi"]))?;
        fs::create_dir_all(kept.parent().unwrap_or(&workspace.target))?;
        // Moved, so that nobody takes it for the usual one.
        fs::rename(&built, &kept).with_context(|| format!("move {} to {}", built.display(), kept.display()))
    })?;
    Ok(kept)
}

/// Whether the C library can be linked into vnet, which then starts in two thirds of the time: three libraries need not
/// be found and joined with each command. Where it can not, vnet is linked as programs usually are.
fn has_static_libc() -> bool {
    // A compiler that has not got a file gives back its bare name.
    let found = process::output(Command::new("cc").arg("-print-file-name=libc.a"));
    cfg!(target_env = "gnu") && found.is_ok_and(|path| Path::new(path.trim()).is_absolute())
}
