//! `cargo xtask test`: all tests of the workspace, against the release of vnet, and a while of fuzzing.

use crate::build::{self, Profile};
use crate::fuzz;
use crate::process;
use crate::programs;
use crate::setup;
use crate::steps::Steps;
use anyhow::Result;
use std::ffi::OsString;

#[derive(Default, clap::Args)]
pub(crate) struct Args {
    /// For `cargo test`: a part of a test's name, or options such as `--package vnet`
    #[arg(allow_hyphen_values = true)]
    args: Vec<OsString>,
    /// For the tests themselves: `cargo xtask test -- --nocapture`
    #[arg(last = true)]
    test_args: Vec<OsString>,
}

impl Args {
    /// Whether anything less than all tests was asked for.
    fn is_partial(&self) -> bool {
        !self.args.is_empty() || !self.test_args.is_empty()
    }

    /// All packages, unless some are named.
    fn packages(&self) -> Option<&str> {
        let named = |arg: &str| arg.starts_with("-p") || arg.starts_with("--package");
        let some = self.args.iter().any(|arg| arg.to_str().is_some_and(named));
        (!some).then_some("--workspace")
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    workspace(args, &mut Steps::default())
}

/// Sets up, builds, and runs `cargo test`.
pub(crate) fn workspace(args: &Args, steps: &mut Steps) -> Result<()> {
    if !process::is_root() {
        eprintln!("not root: the tests that load eBPF programs or make network namespaces will fail");
    }
    let workspace = setup::ensure(steps)?.workspace;
    programs::ensure(steps)?;
    build::vnet(&workspace, Profile::Release, steps)?;
    steps.step("testing", || {
        let mut cargo = workspace.cargo("test");
        cargo.args(args.packages()).args(&args.args).arg("--").args(&args.test_args);
        cargo.env("VNET_BIN", workspace.release_binary("vnet")).env("PATH", process::path_with_admin_dirs());
        process::run(&mut cargo)
    })?;
    if args.is_partial() { Ok(()) } else { fuzz::briefly(steps) }
}
