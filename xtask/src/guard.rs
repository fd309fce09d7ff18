//! `cargo xtask guard`: whether a packet costs the eBPF programs much more than is recorded in `tests/bench/guard.json`.

use crate::process;
use crate::programs;
use crate::setup;
use crate::steps::Steps;
use anyhow::{Result, bail};

#[derive(Default, clap::Args)]
pub(crate) struct Args {
    /// Record what is measured: after a change that is worth its cost, on a quiet machine
    #[arg(long)]
    record: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    workspace(args, &mut Steps::default())
}

/// Sets up, builds and measures. How the measuring program is compiled does not matter: the kernel holds the clock.
pub(crate) fn workspace(args: &Args, steps: &mut Steps) -> Result<()> {
    if !process::is_root() {
        bail!("not root: measuring loads eBPF programs");
    }
    let workspace = setup::ensure(steps)?.workspace;
    programs::ensure(steps)?;
    steps.step("measuring what the eBPF programs cost", || {
        let mut cargo = workspace.cargo("run");
        cargo.args(["--quiet", "--package", "vnet-bench", "--bin", "vnet-bench", "--", "guard", "--file"]);
        cargo.arg(workspace.root.join("tests/bench/guard.json")).args(args.record.then_some("--record"));
        cargo.env("PATH", process::path_with_admin_dirs());
        process::run(&mut cargo)
    })
}
