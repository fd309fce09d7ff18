//! `cargo xtask test`: all tests of the workspace, against the release of vnet, and a while of fuzzing.

use crate::build::{self, Profile};
use crate::fuzz;
use crate::process;
use crate::programs;
use crate::setup;
use crate::steps::Steps;
use crate::unpacked::Unpacked;
use anyhow::Result;
use std::ffi::OsString;
use std::path::PathBuf;

/// What a container runtime for the tests takes. Without it, the tests that need one say so.
const RUNTIME: [Unpacked; 5] = [
    Unpacked {
        package: "docker.io",
        file: "dockerd",
        places: &["usr/sbin", "usr/bin"],
        variable: "VNET_DOCKERD",
        why: "a container runtime whose containers the tests attach",
        installed_will_do: true,
    },
    Unpacked {
        package: "containerd",
        file: "containerd",
        places: &["usr/bin"],
        variable: "VNET_CONTAINERD",
        why: "what dockerd runs containers by",
        installed_will_do: true,
    },
    Unpacked {
        package: "runc",
        file: "runc",
        places: &["usr/sbin", "usr/bin"],
        variable: "VNET_RUNC",
        why: "what containerd runs containers by",
        installed_will_do: true,
    },
    Unpacked {
        package: "libdevmapper1.02.1",
        file: "libdevmapper.so.1.02.1",
        places: &[
            "lib/x86_64-linux-gnu",
            "usr/lib/x86_64-linux-gnu",
            "lib/aarch64-linux-gnu",
            "usr/lib/aarch64-linux-gnu",
        ],
        variable: "VNET_LIBDEVMAPPER",
        why: "a library of dockerd's",
        installed_will_do: true,
    },
    Unpacked {
        package: "busybox-static",
        file: "busybox",
        places: &["bin", "usr/bin"],
        variable: "VNET_BUSYBOX",
        why: "what the containers of the tests consist of",
        // Package busybox has one that needs libraries.
        installed_will_do: false,
    },
];

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
    let other_abi = build::vnet_of_other_abi(&workspace, steps)?;
    let mut runtime: Vec<(&str, PathBuf)> = Vec::new();
    for part in &RUNTIME {
        match part.ensure(&workspace, steps) {
            Ok(found) => runtime.extend(found.map(|found| (part.variable, found.path))),
            Err(error) => eprintln!("no {}, {}: {error:#}", part.file, part.why),
        }
    }
    steps.step("testing", || {
        let mut cargo = workspace.cargo("test");
        cargo.args(args.packages()).args(&args.args).arg("--").args(&args.test_args);
        cargo.envs(runtime.iter().map(|(variable, path)| (variable, path)));
        cargo.env("VNET_BIN", workspace.release_binary("vnet")).env("VNET_OTHER_ABI", &other_abi);
        cargo.env("PATH", process::path_with_admin_dirs());
        process::run(&mut cargo)
    })?;
    if args.is_partial() { Ok(()) } else { fuzz::briefly(steps) }
}
