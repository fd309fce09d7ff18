//! `cargo xtask run`: the release of vnet with arguments, or the demonstration.

use crate::build::{self, Profile};
use crate::process;
use crate::programs;
use crate::setup;
use crate::steps::Steps;
use anyhow::Result;
use std::ffi::OsString;
use std::process::Command;

pub(crate) fn run(args: &[OsString]) -> Result<()> {
    let mut steps = Steps::default();
    let workspace = setup::ensure(&mut steps)?.workspace;
    let vnet = workspace.release_binary("vnet");
    if !args.is_empty() {
        build::vnet(&workspace, Profile::Release, &mut steps)?;
        return process::become_command(Command::new(vnet).args(args));
    }
    programs::ensure(&mut steps)?;
    build::vnet(&workspace, Profile::Release, &mut steps)?;
    steps.step("building the demonstration", || {
        let mut cargo = workspace.cargo("build");
        process::run(cargo.args(["--release", "--package", "vnet-tests", "--bin", "demo"]))
    })?;
    let mut demo = Command::new(workspace.release_binary("demo"));
    process::become_command(demo.env("VNET_BIN", vnet).env("PATH", process::path_with_admin_dirs()))
}
