//! `cargo xtask fuzz`: the fuzz targets of `tests/fuzz`, with coverage counters and libFuzzer, on any toolchain.
//!
//! The instrumentation is LLVM's, which a stable compiler passes on; `cargo-fuzz` would ask for a nightly because of the
//! sanitizers, and code without `unsafe` has no use for those.

use crate::process;
use crate::programs;
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command};

/// The package; its binaries are the targets.
const PACKAGE: &str = "vnet-fuzz";
/// Every target.
const TARGETS: [Target; 2] = [("parse", 400), ("pipeline", 1500)];
/// What the compiler is told: count every edge and comparison.
const RUSTFLAGS: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];
/// Seconds that each target has in `cargo xtask test`.
const SHORT: u32 = 20;
/// What a short run begins with, so that it can be repeated.
const SEED: u32 = 20_240_229;
/// Lines of a log that are shown when its target fails.
const LAST_LINES: usize = 60;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The target [default: all of them, side by side]
    #[arg(value_parser = TARGETS.map(|(name, _)| name))]
    target: Option<String>,
    /// How long
    #[arg(long, default_value_t = 600)]
    seconds: u32,
    /// What chance begins with [default: another every time]
    #[arg(long)]
    seed: Option<u32>,
    /// Keep of everything found so far what reaches something of its own, as the new corpus
    #[arg(long)]
    minimise: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut steps = Steps::default();
    let fuzzer = Fuzzer::build(&mut steps)?;
    let targets: Vec<_> =
        TARGETS.into_iter().filter(|(name, _)| args.target.as_deref().is_none_or(|it| it == *name)).collect();
    if args.minimise {
        return steps.step("minimising", || targets.iter().try_for_each(|(name, _)| fuzzer.minimise(name)));
    }
    let what = format!("fuzzing for {} s", args.seconds);
    let plan = Plan { seconds: args.seconds, seed: args.seed, begin: Begin::WithAllFound };
    steps.step(&what, || fuzzer.fuzz(&targets, &plan))
}

/// Runs every target over its corpus and a while beyond, always the same way.
pub(crate) fn briefly(steps: &mut Steps) -> Result<()> {
    let fuzzer = Fuzzer::build(steps)?;
    let what = format!("fuzzing for {SHORT} s");
    let plan = Plan { seconds: SHORT, seed: Some(SEED), begin: Begin::WithTheCorpus };
    steps.step(&what, || fuzzer.fuzz(&TARGETS, &plan))
}

/// A target's name, and the longest input that it is worth trying.
type Target = (&'static str, u32);

/// How to run targets.
struct Plan {
    seconds: u32,
    /// What chance begins with; another every time if it is not said.
    seed: Option<u32>,
    begin: Begin,
}

/// What a run begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// What is in the repository.
    WithTheCorpus,
    /// That, and what earlier runs on this machine have found.
    WithAllFound,
}

struct Fuzzer {
    /// Where the targets are built to.
    binaries: PathBuf,
    /// Where they keep what they find, and their logs.
    work: PathBuf,
    /// Those of the repository.
    corpora: PathBuf,
}

impl Fuzzer {
    fn build(steps: &mut Steps) -> Result<Self> {
        programs::ensure(steps)?;
        let workspace = Workspace::locate()?;
        let host = host_triple(&workspace)?;
        steps.step("building the fuzz targets", || {
            let mut cargo = workspace.cargo("build");
            // With a target, Cargo does not give build scripts these flags too.
            cargo.args(["--profile=fuzz", "--bins", "--package", PACKAGE, "--target", &host]);
            process::run(cargo.env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f")))
        })?;
        Ok(Self {
            binaries: workspace.target.join(host).join("fuzz"),
            work: workspace.target.join("fuzz"),
            corpora: workspace.root.join("tests/fuzz/corpus"),
        })
    }

    /// Runs targets side by side; waits for all of them before it complains.
    fn fuzz(&self, targets: &[Target], plan: &Plan) -> Result<()> {
        let started = targets.iter().map(|target| self.start(target, plan)).collect::<Result<Vec<_>>>()?;
        let finished = started.into_iter().map(Run::finish).collect::<Result<Vec<_>>>()?;
        let complaints: Vec<String> = finished.into_iter().flatten().collect();
        if complaints.is_empty() { Ok(()) } else { bail!("{}", complaints.join("\n")) }
    }

    fn start(&self, &(target, longest): &Target, plan: &Plan) -> Result<Run> {
        let work = self.work.join(target);
        let (found, crashes) = (work.join("found"), work.join("crashes"));
        if plan.begin == Begin::WithTheCorpus && found.exists() {
            // What was found before would make another run of this one.
            fs::remove_dir_all(&found).with_context(|| format!("remove {}", found.display()))?;
        }
        for dir in [&found, &crashes] {
            fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        let log = work.join("log");
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut command = Command::new(self.binaries.join(target));
        command.arg(format!("-max_total_time={}", plan.seconds)).arg(format!("-max_len={longest}"));
        command.arg(format!("-artifact_prefix={}/", crashes.display()));
        command.args(plan.seed.map(|seed| format!("-seed={seed}")));
        command.args([&found, &self.corpora.join(target)]);
        // Which rule was broken says enough; below that are only the fuzzer's own frames.
        command.env("RUST_BACKTRACE", "0").stderr(output);
        let child =
            command.spawn().with_context(|| format!("start {}", self.binaries.join(target).display()))?;
        Ok(Run { target, child, log })
    }

    /// Replaces a corpus by the smallest part of all that is known which reaches as much.
    fn minimise(&self, target: &str) -> Result<()> {
        let (corpus, merged) = (self.corpora.join(target), self.work.join(target).join("merged"));
        let found = self.work.join(target).join("found");
        for dir in [&merged, &found] {
            fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        }
        let mut command = Command::new(self.binaries.join(target));
        // How often an edge is taken would make thousands of inputs of it.
        process::run(
            command.args(["-set_cover_merge=1", "-use_counters=0"]).args([&merged, &corpus, &found]),
        )?;
        fs::remove_dir_all(&corpus).with_context(|| format!("remove {}", corpus.display()))?;
        fs::rename(&merged, &corpus).with_context(|| format!("move {} into place", merged.display()))
    }
}

/// A target that is running.
struct Run {
    target: &'static str,
    child: Child,
    log: PathBuf,
}

impl Run {
    /// Waits for its end. What it complains of, if anything.
    fn finish(mut self) -> Result<Option<String>> {
        let status = self.child.wait().with_context(|| format!("wait for {}", self.target))?;
        let log = fs::read(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        let log = String::from_utf8_lossy(&log);
        if status.success() {
            let done = log.lines().rfind(|line| line.contains("DONE")).unwrap_or("nothing to say");
            eprintln!("    {}: {done}", self.target);
            return Ok(None);
        }
        Ok(Some(self.complaint(&log)))
    }

    fn complaint(&self, log: &str) -> String {
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        let input = crash_file(log).unwrap_or("FILE");
        format!(
            "{last}\n{} has broken a rule; all it said is in {}\nrun the input again: cargo run --package {PACKAGE} \
             --bin {} {input}",
            self.target,
            self.log.display(),
            self.target
        )
    }
}

/// The file into which a fuzzer has written the input that it failed on.
fn crash_file(log: &str) -> Option<&str> {
    let (_, rest) = log.rsplit_once("Test unit written to ")?;
    rest.lines().next()
}

/// What the compiler builds for by itself.
fn host_triple(workspace: &Workspace) -> Result<String> {
    let said = process::output(workspace.cargo("-vV").env_remove("CARGO_TARGET_DIR"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`cargo -vV` names no host")?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_target_is_a_binary_with_a_corpus() {
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz");
        let manifest = fs::read_to_string(package.join("Cargo.toml")).expect("the manifest");
        let bins: Vec<&str> =
            manifest.split("[[bin]]\nname = \"").skip(1).filter_map(|it| it.split('"').next()).collect();
        assert_eq!(bins, TARGETS.map(|(name, _)| name));
        for (name, _) in TARGETS {
            assert!(package.join("corpus").join(name).is_dir(), "no corpus of {name}");
        }
    }

    #[test]
    fn the_failed_input_is_found_in_the_log() {
        let log = "==1== ERROR\nartifact_prefix='/a/'; Test unit written to /a/crash-1\nBase64: aa==\n";
        assert_eq!(crash_file(log), Some("/a/crash-1"));
        assert_eq!(crash_file("DONE"), None);
    }
}
