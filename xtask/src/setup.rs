//! `cargo xtask setup`: the toolchain of the eBPF programs, its linker, and the file that tells vnet/build.rs about both.
//! Quick when nothing is missing, so that every command can begin with it.

use crate::ebpf_build::EbpfBuild;
use crate::linker;
use crate::steps::Steps;
use crate::toolchain::{self, Origin, Toolchain};
use crate::workspace::Workspace;
use anyhow::{Result, bail};

/// What a command has after set-up.
pub(crate) struct Ready {
    pub(crate) workspace: Workspace,
    pub(crate) toolchain: Toolchain,
    pub(crate) ebpf_build: EbpfBuild,
}

pub(crate) fn run() -> Result<()> {
    let Toolchain { origin, rustc, version, .. } = ensure(&mut Steps::default())?.toolchain;
    let origin = match origin {
        Origin::Nightly(name) => format!("rustup's {name}"),
        Origin::Debian => format!("Debian's {}", rustc.display()),
    };
    eprintln!(
        "eBPF is built by {origin}, {} with LLVM {}, and bpf-linker {}",
        version.release,
        version.llvm,
        linker::VERSION
    );
    Ok(())
}

pub(crate) fn ensure(steps: &mut Steps) -> Result<Ready> {
    if cfg!(target_endian = "big") {
        bail!("vnet is for little-endian machines: its eBPF programs are built for {}", toolchain::TARGET);
    }
    let workspace = Workspace::locate()?;
    let toolchain = toolchain::ensure(&workspace, steps)?;
    let linker = linker::ensure(&workspace, &toolchain, steps)?;
    let ebpf_build = EbpfBuild::new(&workspace, &toolchain, &linker);
    ebpf_build.save(&workspace)?;
    Ok(Ready { workspace, toolchain, ebpf_build })
}
