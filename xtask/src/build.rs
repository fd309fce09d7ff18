//! `cargo xtask build`: vnet, with its eBPF programs inside.

use crate::process;
use crate::setup;
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::Result;

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
    steps.step(what, || process::run(workspace.cargo("build").args(["--package", "vnet"]).args(flag)))
}
