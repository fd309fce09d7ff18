//! How the eBPF programs are built, written down in a file for `vnet/build.rs`, which only follows it; the lints follow
//! the same. So the knowledge of toolchains, flags and targets is here and nowhere else.
//!
//! The file has one `key=value` a line; a key may come again:
//! `cargo` the program; `env` a variable `NAME=VALUE`; `rustflag` one of rustc's flags; `arg` an argument of
//! `cargo build`; `watch` a file of the toolchain: when it changes, the programs are built anew.

use crate::toolchain::{Origin, TARGET, Toolchain};
use crate::workspace::Workspace;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EbpfBuild {
    /// A comment in the file. It changes with the compiler, whose own file may come with a time long past.
    compiler: String,
    pub(crate) cargo: String,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) rustflags: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) watch: Vec<String>,
}

impl EbpfBuild {
    pub(crate) fn new(workspace: &Workspace, toolchain: &Toolchain, linker: &Path) -> Self {
        let [rustc, linker] = [&toolchain.rustc, linker].map(|path| path.display().to_string());
        let mut build = Self {
            compiler: format!("rustc {}, LLVM {}", toolchain.version.release, toolchain.version.llvm),
            cargo: toolchain.cargo.display().to_string(),
            rustflags: rustflags(workspace),
            watch: vec![linker.clone(), rustc.clone()],
            args: vec![format!("--target={TARGET}"), "--release".into()],
            ..Self::default()
        };
        let mut set = |name: &str, value: String| build.env.push((name.to_owned(), value));
        set("RUSTC", rustc);
        set("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
        // A directory of its own: the Cargo that runs vnet/build.rs holds the lock of the other.
        set("CARGO_TARGET_DIR", workspace.target.join("ebpf").display().to_string());
        match toolchain.origin {
            Origin::Nightly(_) => build.args.push("-Zbuild-std=core".into()),
            // aya-ebpf uses an unstable feature. Its name, and not `1`, lets only that crate do so.
            Origin::Debian => set("RUSTC_BOOTSTRAP", "aya_ebpf".into()),
        }
        build
    }

    /// Writes the file, unless that changes nothing: its time of change makes vnet/build.rs run.
    pub(crate) fn save(&self, workspace: &Workspace) -> Result<()> {
        let path = workspace.tools()?.join("ebpf-toolchain.env");
        let text = self.to_text();
        if fs::read_to_string(&path).is_ok_and(|saved| saved == text) {
            return Ok(());
        }
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// The Cargo of the eBPF programs, or a program in its place such as cargo-clippy.
    pub(crate) fn command(&self, workspace: &Workspace, program: &str, subcommand: &str) -> Command {
        let mut command = Command::new(program);
        command.arg(subcommand).args(["--package", "vnet-ebpf", "--bins"]).args(&self.args);
        command.current_dir(&workspace.root).env_remove("RUSTUP_TOOLCHAIN");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.env("CARGO_ENCODED_RUSTFLAGS", self.rustflags.join("\x1f"));
        command
    }

    fn to_text(&self) -> String {
        let env: Vec<String> = self.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let lists =
            [("env", &env), ("rustflag", &self.rustflags), ("arg", &self.args), ("watch", &self.watch)];
        let about = "Written by `cargo xtask setup`, followed by vnet/build.rs";
        let mut text = format!("# {about}. {}\ncargo={}\n", self.compiler, self.cargo);
        for (key, values) in lists {
            values.iter().for_each(|value| text.push_str(&format!("{key}={value}\n")));
        }
        text
    }
}

fn rustflags(workspace: &Workspace) -> Vec<String> {
    let mut flags = vec![
        // The registers of the machine the programs are for, as aya-ebpf wants to know them.
        format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
        // BTF: bpf-linker makes it from the debug information.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Otherwise every set, move and comparison of memory is a call of a function that goes byte by byte.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        // The same object wherever the sources lie.
        format!("--remap-path-prefix={}=.", workspace.root.display()),
    ];
    flags.extend(cargo_home().map(|home| format!("--remap-path-prefix={}=/cargo", home.display())));
    flags
}

fn cargo_home() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"));
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home)
}

#[cfg(test)]
#[path = "../../vnet/build.rs"]
#[allow(
    dead_code,
    reason = "only the reader of the file is of interest here, not the build script around it"
)]
mod vnet_build;

#[cfg(test)]
mod tests {
    use super::{EbpfBuild, vnet_build};

    #[test]
    fn what_is_written_is_what_the_build_script_reads() {
        let strings = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        let written = EbpfBuild {
            compiler: "rustc 1.96.0, LLVM 22.1.8".into(),
            cargo: "/usr/bin/cargo".into(),
            env: vec![("RUSTC".into(), "/a b/rustc".into()), ("EMPTY".into(), String::new())],
            rustflags: strings(&["--cfg=bpf_target_arch=\"x86_64\"", "-Cdebuginfo=2"]),
            args: strings(&["--target=bpfel-unknown-none"]),
            watch: strings(&["/usr/bin/rustc", "/tools/bpf-linker"]),
        };
        let read = vnet_build::Recipe::parse(&written.to_text()).expect("a recipe");
        assert_eq!(read.cargo, written.cargo);
        assert_eq!(read.env, written.env);
        assert_eq!(read.rustflags, written.rustflags);
        assert_eq!(read.args, written.args);
        assert_eq!(read.watch, written.watch);
    }

    #[test]
    fn a_place_holder_is_no_recipe() {
        assert!(vnet_build::Recipe::parse("# nothing is set up yet\n").is_none());
    }
}
