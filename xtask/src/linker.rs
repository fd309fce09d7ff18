//! bpf-linker, built against the LLVM of the toolchain it serves: it reads that compiler's bitcode, and another major
//! fails late with odd messages. It is kept under target/tools, one directory for each toolchain and LLVM, with a stamp
//! that is written last; it counts as good when the stamp is right and it runs.

use crate::process;
use crate::steps::Steps;
use crate::toolchain::{Origin, Toolchain};
use crate::workspace::Workspace;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const VERSION: &str = "0.13.0";
/// What this version of bpf-linker can be built against; each is a feature of it.
pub(crate) const LLVM_MAJORS: [&str; 3] = ["21", "22", "23"];

/// The path of a working bpf-linker for the toolchain; builds it if there is none.
pub(crate) fn ensure(workspace: &Workspace, toolchain: &Toolchain, steps: &mut Steps) -> Result<PathBuf> {
    let install = Install::plan(workspace, toolchain)?;
    if !install.is_good()? {
        // Two commands at once build it once.
        let lock = install.dir.with_file_name("bpf-linker.lock");
        let lock = File::create(&lock).with_context(|| format!("create {}", lock.display()))?;
        lock.lock().context("wait for another build of bpf-linker")?;
        if !install.is_good()? {
            let what = format!("building bpf-linker {VERSION} with LLVM {}", toolchain.version.llvm);
            steps.step(&what, || install.build(workspace, toolchain))?;
        }
    }
    Ok(install.binary())
}

struct Install {
    dir: PathBuf,
    libllvm: PathBuf,
    stamp: String,
}

impl Install {
    fn plan(workspace: &Workspace, toolchain: &Toolchain) -> Result<Self> {
        let origin = match &toolchain.origin {
            Origin::Nightly(name) => name,
            Origin::Debian => "debian",
        };
        let libllvm = libllvm_of(&toolchain.rustc)?;
        let dir =
            workspace.tools()?.join(format!("bpf-linker-{VERSION}-llvm-{}-{origin}", toolchain.version.llvm));
        let stamp = format!("bpf-linker {VERSION}, LLVM {}, {}\n", toolchain.version.llvm, libllvm.display());
        Ok(Self { dir, libllvm, stamp })
    }

    fn binary(&self) -> PathBuf {
        self.dir.join("bin/bpf-linker")
    }

    fn stamp_file(&self) -> PathBuf {
        self.dir.join("stamp")
    }

    fn is_good(&self) -> Result<bool> {
        let stamped = fs::read_to_string(self.stamp_file()).is_ok_and(|stamp| stamp == self.stamp);
        // Without the library path of the Cargo that runs us: the run path of the binary has to do.
        Ok(stamped
            && process::works(Command::new(self.binary()).arg("--version").env_remove("LD_LIBRARY_PATH"))?)
    }

    fn build(&self, workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
        let building = self.dir.join("build");
        let llvm = self.link_llvm()?;
        let mut cargo = workspace.cargo("install");
        cargo.args(["bpf-linker", "--locked", "--force", "--version", VERSION, "--no-default-features"]);
        cargo.args(["--features", &format!("llvm-{}", toolchain.version.llvm_major())]);
        cargo.arg("--root").arg(&self.dir).args(["--no-track", "--quiet"]);
        cargo.env("LLVM_PREFIX", llvm).env("CARGO_TARGET_DIR", &building);
        // 3 MB instead of 40.
        cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "false");
        process::run(&mut cargo)?;
        fs::remove_dir_all(&building).with_context(|| format!("remove {}", building.display()))?;
        fs::write(self.stamp_file(), &self.stamp).context("write the stamp of bpf-linker")
    }

    /// A prefix as bpf-linker's build expects it, without any LLVM development package: two links to the toolchain's own
    /// library, one for the linker of the host and one by which the finished binary finds it (its run path is this).
    fn link_llvm(&self) -> Result<PathBuf> {
        let prefix = self.dir.join("llvm");
        let lib = prefix.join("lib");
        if prefix.exists() {
            fs::remove_dir_all(&prefix).with_context(|| format!("remove {}", prefix.display()))?;
        }
        fs::create_dir_all(&lib).with_context(|| format!("create {}", lib.display()))?;
        let soname = self.libllvm.file_name().context("libLLVM has no name")?;
        for name in [Path::new("libLLVM.so"), Path::new(soname)] {
            symlink(&self.libllvm, lib.join(name)).with_context(|| format!("link {}", name.display()))?;
        }
        Ok(prefix)
    }
}

/// The LLVM library a rustc uses. The loader knows: `ldd` asks it.
fn libllvm_of(rustc: &Path) -> Result<PathBuf> {
    let ldd = process::output(Command::new("ldd").arg(rustc).env_remove("LD_LIBRARY_PATH"))?;
    let path =
        libllvm_in(&ldd).with_context(|| format!("{} has no LLVM as a shared library", rustc.display()))?;
    // `..` in it would tie it to the directory of rustc. The name itself is kept: it is what the loader looks for.
    let dir = path.parent().unwrap_or(Path::new("/"));
    let dir = dir.canonicalize().with_context(|| format!("find {}", dir.display()))?;
    Ok(dir.join(path.file_name().unwrap_or_default()))
}

/// `libLLVM.so.22.1 => /lib/x86_64-linux-gnu/libLLVM.so.22.1 (0x00007f…)`
fn libllvm_in(ldd: &str) -> Option<PathBuf> {
    let line = ldd.lines().map(str::trim).find(|line| line.starts_with("libLLVM"))?;
    let (_, path) = line.split_once(" => ")?;
    let (path, _) = path.rsplit_once(" (")?;
    Some(path.into())
}

#[cfg(test)]
mod tests {
    use super::libllvm_in;
    use std::path::Path;

    #[test]
    fn libllvm_is_found_in_what_ldd_prints() {
        let ldd = "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fe3dde1e000)\n\
                   \tlibLLVM.so.22.1 => /lib/x86_64-linux-gnu/libLLVM.so.22.1 (0x00007fe3d4e00000)\n";
        assert_eq!(libllvm_in(ldd).as_deref(), Some(Path::new("/lib/x86_64-linux-gnu/libLLVM.so.22.1")));
        assert_eq!(libllvm_in("\tlibLLVM.so.22.1 => not found\n"), None);
        assert_eq!(libllvm_in("\tstatically linked\n"), None);
    }
}
