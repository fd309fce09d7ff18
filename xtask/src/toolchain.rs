//! The Rust toolchain of the eBPF programs. It needs a core library for bpfel-unknown-none, which a stable toolchain of
//! rustup does not have. Two kinds do: a nightly with rust-src, which builds core from source, and Debian's rustc with
//! its prebuilt core. Which one there is, is looked up every time: that costs less than a record that may be stale.

use crate::apt;
use crate::debian::{OsRelease, RustPackages};
use crate::linker;
use crate::process;
use crate::steps::Steps;
use crate::workspace::Workspace;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const TARGET: &str = "bpfel-unknown-none";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// The version of Rust the workspace asks for.
const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

#[derive(Debug)]
pub(crate) struct Toolchain {
    pub(crate) origin: Origin,
    pub(crate) cargo: PathBuf,
    pub(crate) rustc: PathBuf,
    pub(crate) version: RustcVersion,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A nightly of rustup, by its name.
    Nightly(String),
    Debian,
}

/// What `rustc -vV` says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RustcVersion {
    pub(crate) release: String,
    pub(crate) llvm: String,
}

/// The toolchain to use, or what stands in the way.
struct Search {
    found: Option<Toolchain>,
    /// A nightly that lacks only its source.
    without_source: Option<String>,
    rustup: bool,
    passed_over: Vec<String>,
}

/// How to get a toolchain.
#[derive(Debug, PartialEq, Eq)]
enum Remedy {
    Apt(RustPackages),
    Rustup(Vec<String>),
    Tell(String),
}

/// Finds the toolchain, or installs one.
pub(crate) fn ensure(workspace: &Workspace, steps: &mut Steps) -> Result<Toolchain> {
    let search = Search::run(workspace)?;
    if let Some(toolchain) = search.found {
        return Ok(toolchain);
    }
    let why = format!("a core library for {TARGET}, to compile the eBPF programs");
    match remedy(&OsRelease::read(), process::is_root(), &search) {
        Remedy::Apt(packages) => {
            apt::install(steps, &[packages.rustc, packages.core], packages.suite, &why)?;
        }
        Remedy::Rustup(args) => {
            let what = format!("running `rustup {}`: {why}", args.join(" "));
            steps.step(&what, || process::run(Command::new("rustup").args(&args)))?;
        }
        Remedy::Tell(what) => bail!("{why} is missing{}\n{what}", search.reasons()),
    }
    let again = Search::run(workspace)?;
    let reasons = again.reasons();
    again.found.with_context(|| format!("what was installed does not serve{reasons}"))
}

impl Search {
    fn run(workspace: &Workspace) -> Result<Self> {
        let listed = process::output_if_present(Command::new("rustup").args(["toolchain", "list", "-v"]))?;
        let rustup = listed.is_some();
        let mut search = Self { found: None, without_source: None, rustup, passed_over: Vec::new() };
        for (name, sysroot) in nightlies(&listed.unwrap_or_default()) {
            search.consider_nightly(name, &sysroot)?;
        }
        search.consider_debian(workspace)?;
        Ok(search)
    }

    fn consider_nightly(&mut self, name: String, sysroot: &Path) -> Result<()> {
        if self.found.is_some() {
            return Ok(());
        }
        if !sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").exists() {
            self.passed_over.push(format!("rustup's {name} has no rust-src"));
            self.without_source.get_or_insert(name);
            return Ok(());
        }
        let [cargo, rustc] = ["bin/cargo", "bin/rustc"].map(|program| sysroot.join(program));
        self.consider(Toolchain {
            origin: Origin::Nightly(name),
            version: version_of(&rustc)?,
            cargo,
            rustc,
        });
        Ok(())
    }

    /// The Cargo is our own: it has just shown that it can read this workspace, and any will do beside a prebuilt core.
    fn consider_debian(&mut self, workspace: &Workspace) -> Result<()> {
        let rustc = Path::new(DEBIAN_RUSTC);
        if self.found.is_some() || !rustc.exists() {
            return Ok(());
        }
        let sysroot = process::output(Command::new(rustc).args(["--print", "sysroot"]))?;
        if !Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).exists() {
            self.passed_over.push(format!("{DEBIAN_RUSTC} has no core for {TARGET}"));
            return Ok(());
        }
        let (cargo, version) = (workspace.cargo.clone(), version_of(rustc)?);
        self.consider(Toolchain { origin: Origin::Debian, cargo, rustc: rustc.to_owned(), version });
        Ok(())
    }

    fn consider(&mut self, toolchain: Toolchain) {
        match toolchain.version.unfit() {
            None => self.found = Some(toolchain),
            Some(reason) => self.passed_over.push(format!("{} {reason}", toolchain.rustc.display())),
        }
    }

    fn reasons(&self) -> String {
        self.passed_over.iter().map(|reason| format!("\n  {reason}")).collect()
    }
}

fn remedy(os: &OsRelease, root: bool, search: &Search) -> Remedy {
    let rustup = match &search.without_source {
        Some(nightly) => format!("component add rust-src --toolchain {nightly}"),
        None => "toolchain install nightly --profile minimal --component rust-src".to_owned(),
    };
    let packages = os.rust_packages();
    match (os.is_debian(), root, search.rustup) {
        (true, true, _) => Remedy::Apt(packages),
        (false, _, true) => Remedy::Rustup(rustup.split(' ').map(str::to_owned).collect()),
        (true, false, _) => {
            let suite = packages.suite.map(|suite| format!("--target-release={suite} ")).unwrap_or_default();
            let apt = format!(
                "apt-get install --no-install-recommends {suite}{} {}",
                packages.rustc, packages.core
            );
            Remedy::Tell(format!("as root: {apt}\nor:      rustup {rustup}"))
        }
        (false, _, false) => Remedy::Tell(format!("install rustup, then: rustup {rustup}")),
    }
}

/// The nightlies in what `rustup toolchain list -v` prints, with their directories: the plain one first, then the dated
/// ones, newest first.
fn nightlies(listed: &str) -> Vec<(String, PathBuf)> {
    let mut nightlies: Vec<_> = listed.lines().filter_map(listed_toolchain).collect();
    nightlies.retain(|(name, _)| name.starts_with("nightly"));
    let dated = |name: &str| name.starts_with("nightly-2");
    nightlies.sort_by(|(a, _), (b, _)| dated(a).cmp(&dated(b)).then_with(|| b.cmp(a)));
    nightlies
}

/// `NAME (flags) PATH`, where the flags may be absent.
fn listed_toolchain(line: &str) -> Option<(String, PathBuf)> {
    let (name, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim();
    let path = rest.strip_prefix('(').and_then(|flags| flags.split_once(')')).map_or(rest, |(_, path)| path);
    Some((name.to_owned(), PathBuf::from(path.trim())))
}

fn version_of(rustc: &Path) -> Result<RustcVersion> {
    let text = process::output(Command::new(rustc).arg("-vV"))?;
    RustcVersion::parse(&text)
        .with_context(|| format!("`{} -vV` names no release or no LLVM", rustc.display()))
}

impl RustcVersion {
    fn parse(text: &str) -> Option<Self> {
        let value =
            |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(|it| it.trim().to_owned());
        Some(Self { release: value("release:")?, llvm: value("LLVM version:")? })
    }

    pub(crate) fn llvm_major(&self) -> &str {
        self.llvm.split('.').next().unwrap_or(&self.llvm)
    }

    /// Why this rustc cannot build the eBPF programs, if it cannot.
    fn unfit(&self) -> Option<String> {
        if major_minor(&self.release) < major_minor(OLDEST) {
            return Some(format!("is {}, older than {OLDEST}", self.release));
        }
        if !linker::LLVM_MAJORS.contains(&self.llvm_major()) {
            return Some(format!(
                "has LLVM {}, which bpf-linker {} does not know",
                self.llvm,
                linker::VERSION
            ));
        }
        None
    }
}

fn major_minor(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN_VV: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\nbinary: rustc\n\
                             host: x86_64-unknown-linux-gnu\nrelease: 1.96.0\nLLVM version: 22.1.8\n";

    fn version(release: &str, llvm: &str) -> RustcVersion {
        RustcVersion { release: release.into(), llvm: llvm.into() }
    }

    #[test]
    fn rustc_tells_its_release_and_its_llvm() {
        assert_eq!(RustcVersion::parse(DEBIAN_VV), Some(version("1.96.0", "22.1.8")));
        assert_eq!(version("1.96.0", "22.1.8").llvm_major(), "22");
        assert_eq!(RustcVersion::parse("rustc 1.0.0\nrelease: 1.0.0\n"), None);
    }

    #[test]
    fn an_old_rustc_or_an_unknown_llvm_is_unfit() {
        assert_eq!(version("1.96.0", "22.1.8").unfit(), None);
        assert_eq!(version("1.97.0-nightly", "22.1.4").unfit(), None);
        assert!(version("1.85.0", "22.1.0").unfit().is_some_and(|reason| reason.contains("older")));
        assert!(version("1.99.0", "99.0.0").unfit().is_some_and(|reason| reason.contains("LLVM")));
    }

    #[test]
    fn nightlies_are_taken_plain_first_then_newest() {
        let listed = "stable-x86_64-unknown-linux-gnu (active, default) /r/stable\n\
                      nightly-2026-01-02-x86_64-unknown-linux-gnu /r/january\n\
                      nightly-2026-03-04-x86_64-unknown-linux-gnu (override) /r/march\n\
                      nightly-x86_64-unknown-linux-gnu /r/with space\n";
        let paths: Vec<_> = nightlies(listed).into_iter().map(|(_, path)| path).collect();
        assert_eq!(paths, ["/r/with space", "/r/march", "/r/january"].map(PathBuf::from));
        assert!(nightlies("no installed toolchains\n").is_empty());
    }

    #[test]
    fn the_remedy_depends_on_the_machine() {
        let search = |rustup, without_source: Option<&str>| Search {
            found: None,
            without_source: without_source.map(str::to_owned),
            rustup,
            passed_over: Vec::new(),
        };
        let [debian, other] = ["ID=debian\nVERSION_CODENAME=bookworm", "ID=fedora"].map(OsRelease::parse);
        assert_eq!(remedy(&debian, true, &search(true, None)), Remedy::Apt(debian.rust_packages()));
        let args = "component add rust-src --toolchain nightly".split(' ').map(str::to_owned).collect();
        assert_eq!(remedy(&other, false, &search(true, Some("nightly"))), Remedy::Rustup(args));
        let told = |remedy| match remedy {
            Remedy::Tell(what) => what,
            other => panic!("{other:?}"),
        };
        assert!(told(remedy(&debian, false, &search(true, None))).contains("libstd-rust-web-dev-bpf"));
        assert!(
            told(remedy(&other, true, &search(false, None))).contains("rustup toolchain install nightly")
        );
    }
}
