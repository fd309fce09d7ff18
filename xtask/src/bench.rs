//! `cargo xtask bench`: vnet measured beside its rivals, and the page `docs/benchmarks` written from that.

use crate::build::{self, Profile};
use crate::process;
use crate::programs;
use crate::setup;
use crate::steps::Steps;
use crate::unpacked::{Found, Unpacked};
use crate::workspace::Workspace;
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// What can be measured.
const CASES: [&str; 11] = [
    "masquerade",
    "published",
    "hairpin",
    "host-local",
    "direct",
    "sustained",
    "mappings",
    "conntrack",
    "programs",
    "endpoints",
    "floods",
];
/// How traffic can be measured.
const KINDS: [&str; 6] = ["rr", "crr", "stream1", "stream8", "udp", "ladder"];

const RIVALS: [Unpacked; 3] = [
    Unpacked {
        package: "docker.io",
        file: "docker-proxy",
        places: &["usr/sbin", "usr/bin", "usr/libexec/docker"],
        variable: "VNET_DOCKER_PROXY",
        why: "a rival in benchmarks",
        installed_will_do: true,
    },
    Unpacked {
        package: "containernetworking-plugins",
        file: "portmap",
        places: &["usr/lib/cni"],
        variable: "VNET_CNI_PORTMAP",
        why: "a rival in benchmarks",
        installed_will_do: true,
    },
    Unpacked {
        package: "netavark",
        file: "netavark",
        places: &["usr/lib/podman", "usr/libexec/podman"],
        variable: "VNET_NETAVARK",
        why: "a rival in benchmarks",
        installed_will_do: true,
    },
];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Few operations and two repetitions: enough to see that it works. Writes to target/bench
    #[arg(long)]
    quick: bool,
    /// How to measure traffic; may be repeated. Writes to target/bench [default: in every way]
    #[arg(long = "kind", value_name = "KIND", value_parser = KINDS)]
    kinds: Vec<String>,
    /// What to measure; some write to target/bench, all to docs/benchmarks [default: all]
    #[arg(value_name = "CASE", value_parser = CASES)]
    cases: Vec<String>,
}

impl Args {
    /// Where the page goes: only a whole one is worth keeping.
    fn directory(&self, workspace: &Workspace) -> PathBuf {
        let whole = !self.quick && self.cases.is_empty() && self.kinds.is_empty();
        if whole { workspace.root.join("docs/benchmarks") } else { workspace.target.join("bench") }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !process::is_root() {
        bail!("not root: benchmarks make network namespaces and load eBPF programs");
    }
    let mut steps = Steps::default();
    let workspace = setup::ensure(&mut steps)?.workspace;
    programs::ensure(&mut steps)?;
    let rivals = RIVALS.map(|rival| (rival.ensure(&workspace, &mut steps), rival));
    build::vnet(&workspace, Profile::Release, &mut steps)?;
    steps.step("building the benchmark", || {
        let mut cargo = workspace.cargo("build");
        process::run(cargo.args(["--release", "--package", "vnet-bench", "--bin", "vnet-bench"]))
    })?;
    let mut bench = Command::new(workspace.release_binary("vnet-bench"));
    bench.arg("run").args(args.quick.then_some("--quick"));
    bench.args(args.kinds.iter().flat_map(|kind| ["--kind", kind]));
    bench.arg("--out").arg(args.directory(&workspace)).args(&args.cases);
    bench.env("VNET_BIN", workspace.release_binary("vnet")).env("PATH", process::path_with_admin_dirs());
    if let Some(commit) = commit(&workspace) {
        bench.env("VNET_COMMIT", commit);
    }
    for (found, rival) in rivals {
        match found {
            Ok(Some(Found { path, version })) => {
                bench.env(rival.variable, path).env(format!("{}_VERSION", rival.variable), version);
            }
            Ok(None) => {}
            // The page says that it was not measured.
            Err(error) => eprintln!("{} will not be measured: {error:#}", rival.file),
        }
    }
    process::become_command(&mut bench)
}

/// What is measured, and whether it was changed since; nothing without git or its records.
fn commit(workspace: &Workspace) -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]).current_dir(&workspace.root);
    let said = git.output().ok().filter(|said| said.status.success())?;
    String::from_utf8(said.stdout).ok().map(|commit| commit.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_benchmark_knows_every_case() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bench/src");
        let read = |name: String| fs::read_to_string(source.join(name)).expect("a source of the benchmark");
        let (topics, cases) = (read("topic.rs".to_owned()), read("case.rs".to_owned()));
        for case in CASES {
            let of_traffic = cases.contains(&format!("=> \"{case}\""));
            let own = || read(format!("{case}.rs")).contains(&format!("NAME: &str = \"{case}\""));
            assert!(of_traffic || own(), "no case {case}");
        }
        for kind in KINDS {
            assert!(cases.contains(&format!("=> \"{kind}\"")), "no kind {kind}");
        }
        assert!(cases.contains(&format!("[Self; {}] = [Self::Rr", KINDS.len())), "another number of kinds");
        assert!(topics.contains(&format!("[Self; {}]", CASES.len())), "another number of cases");
    }
}
