//! Builds the eBPF programs and puts them into `OUT_DIR`, each under the name of its binary in `vnet-ebpf/Cargo.toml`.
//!
//! `cargo xtask setup` finds or installs the toolchain and writes the recipe this follows. Without a recipe there is
//! nothing to build with: the objects are then empty, so that `cargo check`, `clippy` and `test` work in a fresh clone,
//! and a warning says what to do.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The crates the programs are made of.
const CRATES: [&str; 3] = ["vnet-ebpf", "vnet-datapath", "vnet-common"];
/// Relative to the target directory.
const RECIPE: &str = "tools/ebpf-toolchain.env";
/// What an inner Cargo may know of the outer one's surroundings: where crates come from, and the terminal.
/// The rest of `CARGO_*` is about this crate, or flags for the host.
const KEPT_FOR_CARGO: [&str; 6] =
    ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_"];

fn main() -> ExitCode {
    match embed_programs() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error}");
            ExitCode::FAILURE
        }
    }
}

fn embed_programs() -> Result<(), String> {
    // Relative paths: Cargo runs a build script in the directory of its package, and the workspace may move.
    let workspace = Path::new("..");
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: Cargo runs this")?);
    if env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() != Ok("little") {
        return Err("vnet is for little-endian machines".into());
    }
    watch_sources(workspace);
    let binaries = binaries(&read(&workspace.join("vnet-ebpf/Cargo.toml"))?);
    let Some(recipe) = find_recipe(workspace, &out_dir) else {
        println!(
            "cargo::warning=vnet is built without its eBPF programs: `cargo xtask setup`, then build again"
        );
        return binaries.iter().try_for_each(|name| write_empty(&out_dir.join(name)));
    };
    recipe.watch.iter().for_each(|file| watch(Path::new(file)));
    let built = recipe.build(workspace)?;
    binaries.iter().try_for_each(|name| copy(&built.join(name), &out_dir.join(name)))
}

/// How to build the eBPF programs: `xtask/src/ebpf_build.rs` writes it and says what each key means.
#[derive(Debug, Default)]
pub(crate) struct Recipe {
    pub(crate) cargo: String,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) rustflags: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) watch: Vec<String>,
}

impl Recipe {
    /// The recipe in a file, if it holds one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut recipe = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (key, value) = line.split_once('=')?;
            match key {
                "cargo" => recipe.cargo = value.to_owned(),
                "env" => {
                    let (name, value) = value.split_once('=')?;
                    recipe.env.push((name.to_owned(), value.to_owned()));
                }
                "rustflag" => recipe.rustflags.push(value.to_owned()),
                "arg" => recipe.args.push(value.to_owned()),
                "watch" => recipe.watch.push(value.to_owned()),
                _ => return None,
            }
        }
        (!recipe.cargo.is_empty()).then_some(recipe)
    }

    /// Builds the programs and says in which directory they are.
    fn build(&self, workspace: &Path) -> Result<PathBuf, String> {
        let mut cargo = Command::new(&self.cargo);
        cargo.arg("build").args(["--package", "vnet-ebpf", "--bins"]).args(&self.args).current_dir(workspace);
        if is_of_other_abi() {
            cargo.args(["--features", "vnet-common/other-abi"]);
        }
        if workspace.join("Cargo.lock").exists() {
            cargo.arg("--locked");
        }
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(is_of_the_outer_build) {
                cargo.env_remove(name);
            }
        }
        // How vnet itself is optimised must not change the programs, which bpf-linker puts together.
        cargo.env("CARGO_PROFILE_RELEASE_LTO", "false").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        cargo.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = self.target_dir() {
            cargo.env("CARGO_TARGET_DIR", dir);
        }
        cargo.env("CARGO_ENCODED_RUSTFLAGS", self.rustflags.join("\x1f"));
        match cargo.status() {
            Ok(status) if status.success() => self.output_dir(),
            Ok(status) => Err(format!("building the eBPF programs with {} failed: {status}", self.cargo)),
            Err(error) => Err(format!("start {}: {error}; if it has moved, `cargo xtask setup`", self.cargo)),
        }
    }

    fn output_dir(&self) -> Result<PathBuf, String> {
        let triple = self.args.iter().find_map(|arg| arg.strip_prefix("--target="));
        let dir = self.target_dir().zip(triple).map(|(dir, triple)| dir.join(triple).join("release"));
        dir.ok_or_else(|| format!("{RECIPE} names no target directory or no target: `cargo xtask setup`"))
    }

    /// Two builds side by side would take each other's files.
    fn target_dir(&self) -> Option<PathBuf> {
        let dir = self.env.iter().find(|(name, _)| name == "CARGO_TARGET_DIR").map(|(_, dir)| dir)?;
        Some(if is_of_other_abi() { PathBuf::from(format!("{dir}-other-abi")) } else { PathBuf::from(dir) })
    }
}

/// Whether this build of vnet is the one that tests take over from.
fn is_of_other_abi() -> bool {
    env::var_os("CARGO_FEATURE_OTHER_ABI").is_some()
}

/// Looks in the target directory this build writes to, then in the workspace's own: a second target directory can use
/// what was set up for the first.
fn find_recipe(workspace: &Path, out_dir: &Path) -> Option<Recipe> {
    let own =
        out_dir.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists()).map(|target| target.join(RECIPE));
    own.iter().for_each(|file| hold_place(file));
    let files = own.into_iter().chain([workspace.join("target").join(RECIPE)]);
    files.filter(|file| file.exists()).find_map(|file| {
        watch(&file);
        Recipe::parse(&fs::read_to_string(&file).ok()?)
    })
}

/// Leaves an empty file where there is none, so that it can be watched: Cargo runs a build script every time when a file
/// it watches is missing. Should that fail, a recipe written later is not noticed until something else changes.
fn hold_place(file: &Path) {
    if let Some(tools) = file.parent().filter(|_| !file.exists()) {
        let _ = fs::create_dir_all(tools).and_then(|()| File::create_new(file));
    }
}

/// The names of the binaries a manifest declares.
fn binaries(manifest: &str) -> Vec<String> {
    let tables = manifest.split("[[bin]]").skip(1);
    let name = |table: &str| {
        let line = table.lines().find_map(|line| line.trim().strip_prefix("name"))?;
        line.split('"').nth(1).map(str::to_owned)
    };
    tables.filter_map(name).collect()
}

fn is_of_the_outer_build(name: &str) -> bool {
    let rust =
        ["RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "CLIPPY_", "LD_LIBRARY_PATH", "MAKEFLAGS"];
    let cargo = name.starts_with("CARGO") && !KEPT_FOR_CARGO.iter().any(|kept| name.starts_with(kept));
    cargo || rust.iter().any(|prefix| name.starts_with(prefix))
}

/// Only what exists is watched; see [`hold_place`].
fn watch_sources(workspace: &Path) {
    let of_crates =
        CRATES.map(|name| ["src", "Cargo.toml", "build.rs"].map(|part| workspace.join(name).join(part)));
    let of_workspace = ["Cargo.toml", "Cargo.lock"].map(|name| workspace.join(name));
    of_crates.iter().flatten().chain(&of_workspace).filter(|path| path.exists()).for_each(|path| watch(path));
}

fn watch(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let copied = fs::copy(from, to).map(drop);
    copied.map_err(|error| format!("copy {} to {}: {error}", from.display(), to.display()))
}

fn write_empty(path: &Path) -> Result<(), String> {
    fs::write(path, []).map_err(|error| format!("write {}: {error}", path.display()))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("read {}: {error}", path.display()))
}
