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
const CASES: [&str; 10] = [
    "masquerade",
    "published",
    "hairpin",
    "host-local",
    "direct",
    "mappings",
    "conntrack",
    "programs",
    "endpoints",
    "floods",
];
/// How traffic can be measured.
const KINDS: [&str; 6] = ["rr", "crr", "stream1", "stream8", "udp", "ladder"];
/// The rival that is a program of Debian's package docker.io.
const PROXY: &str = "docker-proxy";
const PACKAGE: &str = "docker.io";

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
    let proxy = ensure_proxy(&workspace, &mut steps);
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
    match proxy {
        Ok(Some(Proxy { path, version })) => {
            bench.env("VNET_DOCKER_PROXY", path).env("VNET_DOCKER_PROXY_VERSION", version);
        }
        Ok(None) => {}
        // The page says that it was not measured.
        Err(error) => eprintln!("{PROXY} will not be measured: {error:#}"),
    }
    process::become_command(&mut bench)
}

/// A proxy out of a package that is not installed.
struct Proxy {
    path: PathBuf,
    version: String,
}

/// Makes sure of docker-proxy; nothing is returned if it is installed. The package is only unpacked: installed, it
/// would start a daemon that changes the machine's interfaces and rules.
fn ensure_proxy(workspace: &Workspace, steps: &mut Steps) -> Result<Option<Proxy>> {
    if process::program_path(PROXY).is_some() {
        return Ok(None);
    }
    let dir = workspace.tools()?.join(PACKAGE);
    if let Some(proxy) = unpacked(&dir)? {
        return Ok(Some(proxy));
    }
    if !OsRelease::read().is_debian() {
        bail!("no {PROXY} on PATH, and no Debian to get it from");
    }
    steps.step(
        &format!("unpacking Debian's {PACKAGE} into target/tools: {PROXY} is a rival in benchmarks"),
        || {
            fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
            let package = apt::download(PACKAGE, &dir)?;
            let mut unpack = Command::new("dpkg-deb");
            process::output(unpack.arg("--extract").arg(&package).arg(dir.join("root")))?;
            let mut query = Command::new("dpkg-deb");
            let version = process::output(query.arg("--field").arg(&package).arg("Version"))?;
            // Last, because by this file it is known that everything is there.
            fs::write(dir.join("version"), version.trim()).context("write the version")?;
            fs::remove_file(&package).with_context(|| format!("remove {}", package.display()))
        },
    )?;
    unpacked(&dir)?.map(Some).with_context(|| format!("{PACKAGE} has no {PROXY}"))
}

/// The proxy that was unpacked before, if it was.
fn unpacked(dir: &Path) -> Result<Option<Proxy>> {
    let version = dir.join("version");
    if !version.exists() {
        return Ok(None);
    }
    let version = fs::read_to_string(&version).with_context(|| format!("read {}", version.display()))?;
    let places =
        ["usr/sbin", "usr/bin", "usr/libexec/docker"].map(|place| dir.join("root").join(place).join(PROXY));
    Ok(places.into_iter().find(|path| path.is_file()).map(|path| Proxy { path, version }))
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
