//! `cargo xtask lint`: format, clippy on the host and for eBPF, documentation. Every warning is an error.

use crate::apt;
use crate::debian::OsRelease;
use crate::process;
use crate::setup::{self, Ready};
use crate::steps::Steps;
use crate::toolchain::{Origin, TARGET};
use crate::workspace::Workspace;
use anyhow::{Result, bail};
use std::process::Command;

pub(crate) fn run() -> Result<()> {
    workspace(&mut Steps::default())
}

/// Sets up and runs all lints.
pub(crate) fn workspace(steps: &mut Steps) -> Result<()> {
    let ready = setup::ensure(steps)?;
    let workspace = &ready.workspace;
    for tool in [Tool::Rustfmt, Tool::Clippy] {
        ensure_host(tool, workspace, steps)?;
    }
    steps.step("checking the format", || process::run(workspace.cargo("fmt").args(["--all", "--check"])))?;
    steps.step("clippy on the host", || {
        let mut cargo = workspace.cargo("clippy");
        process::run(cargo.args(["--workspace", "--all-targets", "--", "-Dwarnings"]))
    })?;
    clippy_for_ebpf(&ready, steps)?;
    steps.step("building the documentation", || {
        let mut cargo = workspace.cargo("doc");
        process::run(cargo.args(["--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-Dwarnings"))
    })
}

/// Clippy must be of the version of the compiler, so it is the one that lies beside it.
fn clippy_for_ebpf(ready: &Ready, steps: &mut Steps) -> Result<()> {
    let clippy = ready.toolchain.rustc.with_file_name("cargo-clippy");
    if !clippy.exists() {
        install_ebpf_clippy(&ready.toolchain.origin, steps)?;
    }
    if clippy.exists() {
        return steps.step(&format!("clippy for {TARGET}"), || {
            let mut command = ready.ebpf_build.command(&ready.workspace, &clippy.to_string_lossy(), "clippy");
            process::run(command.env("CARGO", &ready.ebpf_build.cargo).args(["--", "-Dwarnings"]))
        });
    }
    let what = format!("only checking for {TARGET}, without clippy: there is no {}", clippy.display());
    steps.step(&what, || {
        let mut build = ready.ebpf_build.clone();
        build.rustflags.push("-Dwarnings".into());
        process::run(&mut build.command(&ready.workspace, &build.cargo, "check"))
    })
}

fn install_ebpf_clippy(origin: &Origin, steps: &mut Steps) -> Result<()> {
    match origin {
        Origin::Nightly(name) => rustup_component("clippy", &["--toolchain", name], steps),
        Origin::Debian if process::is_root() => {
            let packages = OsRelease::read().rust_packages();
            apt::install(steps, &[packages.clippy], packages.suite, "the lints of the eBPF programs")
        }
        Origin::Debian => Ok(()),
    }
}

#[derive(Clone, Copy)]
enum Tool {
    Rustfmt,
    Clippy,
}

/// Makes sure of a tool for the toolchain that builds the host's side.
fn ensure_host(tool: Tool, workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let (subcommand, component) = match tool {
        Tool::Rustfmt => ("fmt", "rustfmt"),
        Tool::Clippy => ("clippy", "clippy"),
    };
    if process::works(workspace.cargo(subcommand).arg("--version"))? {
        return Ok(());
    }
    if process::program_path("rustup").is_some() {
        return rustup_component(component, &[], steps);
    }
    let os = OsRelease::read();
    let packages = os.rust_packages();
    let package = match tool {
        Tool::Rustfmt => packages.rustfmt,
        Tool::Clippy => packages.clippy,
    };
    if os.is_debian() && process::is_root() {
        return apt::install(steps, &[package], packages.suite, &format!("`cargo {subcommand}` is missing"));
    }
    bail!(
        "`cargo {subcommand}` is missing: install rustup's component {component}, or Debian's package {package}"
    );
}

fn rustup_component(component: &str, toolchain: &[&str], steps: &mut Steps) -> Result<()> {
    steps.step(&format!("adding {component} with rustup: the lints need it"), || {
        process::run(Command::new("rustup").args(["component", "add", component]).args(toolchain))
    })
}
