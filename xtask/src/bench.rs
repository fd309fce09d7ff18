//! `cargo xtask bench`: vnet measured beside its rivals, and the page `docs/benchmarks` written from that.

use crate::apt;
use crate::build::{self, Profile};
use crate::debian::OsRelease;
use crate::process;
use crate::programs;
use crate::setup;
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
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

/// A rival out of a package of Debian's that is only unpacked: installed, some would start daemons that change the
/// machine's interfaces and rules.
struct Unpacked {
    package: &'static str,
    /// What of the package is measured.
    program: &'static str,
    /// Where it is in the package; the same where that is installed.
    places: &'static [&'static str],
    /// What tells the benchmark where it is; its version is told by the same with `_VERSION`.
    variable: &'static str,
}

const UNPACKED: [Unpacked; 3] = [
    Unpacked {
        package: "docker.io",
        program: "docker-proxy",
        places: &["usr/sbin", "usr/bin", "usr/libexec/docker"],
        variable: "VNET_DOCKER_PROXY",
    },
    Unpacked {
        package: "containernetworking-plugins",
        program: "portmap",
        places: &["usr/lib/cni"],
        variable: "VNET_CNI_PORTMAP",
    },
    Unpacked {
        package: "netavark",
        program: "netavark",
        places: &["usr/lib/podman", "usr/libexec/podman"],
        variable: "VNET_NETAVARK",
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
    let rivals = UNPACKED.map(|rival| (rival.ensure(&workspace, &mut steps), rival));
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
            Err(error) => eprintln!("{} will not be measured: {error:#}", rival.program),
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

/// A program out of a package that is not installed.
struct Found {
    path: PathBuf,
    version: String,
}

impl Unpacked {
    /// Makes sure of it; nothing is returned if it is installed.
    fn ensure(&self, workspace: &Workspace, steps: &mut Steps) -> Result<Option<Found>> {
        let Self { package, program, .. } = self;
        if process::program_path(program).is_some() || self.below(Path::new("/")).is_some() {
            return Ok(None);
        }
        let dir = workspace.tools()?.join(package);
        if let Some(found) = self.unpacked(&dir)? {
            return Ok(Some(found));
        }
        if !OsRelease::read().is_debian() {
            bail!("it is not installed, and this is no Debian to get {package} from");
        }
        steps.step(
            &format!("unpacking Debian's {package} into target/tools: {program} is a rival in benchmarks"),
            || {
                fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
                let file = apt::download(package, &dir)?;
                let mut unpack = Command::new("dpkg-deb");
                process::output(unpack.arg("--extract").arg(&file).arg(dir.join("root")))?;
                let mut query = Command::new("dpkg-deb");
                let version = process::output(query.arg("--field").arg(&file).arg("Version"))?;
                // Last, because by this file it is known that everything is there.
                fs::write(dir.join("version"), version.trim()).context("write the version")?;
                fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))
            },
        )?;
        self.unpacked(&dir)?.map(Some).with_context(|| format!("{package} has no {program}"))
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

    /// The program in one of its places below a directory.
    fn below(&self, root: &Path) -> Option<PathBuf> {
        let mut places = self.places.iter().map(|place| root.join(place).join(self.program));
        places.find(|path| path.is_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
