//! `cargo xtask`: the developer's commands, one module each. What they share is in `workspace` (where things are),
//! `process` (children and their errors), `steps` (what is said while working) and the modules `setup` is made of.

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

mod apt;
mod bench;
mod build;
mod ci;
mod debian;
mod ebpf_build;
mod fuzz;
mod guard;
mod linker;
mod lint;
mod process;
mod programs;
mod run;
mod setup;
mod steps;
mod test;
mod toolchain;
mod unpacked;
mod workspace;

/// Set up, build, run, test and check vnet.
///
/// Every command first makes sure that what it needs is there, and installs what is missing: a Rust toolchain with
/// a core library for eBPF, bpf-linker, and for `run`, `test`, `fuzz`, `bench`, `guard` and `ci` the programs
/// of the demonstration and the tests.
/// Packages are installed on Debian as root; anywhere else the command says what to install.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install what builds the eBPF programs; every other command begins with this
    Setup,
    /// Build vnet with its eBPF programs: target/debug/vnet, with --release target/release/vnet
    Build(build::Args),
    /// Build the release and run `vnet ARGS`; without ARGS, run the demonstration
    Run {
        /// What vnet is given: `cargo xtask run -- status`
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Run every test of the workspace, and the fuzz targets for a while; those of the data path and the lab need root
    Test(test::Args),
    /// Look for inputs that break the rules of tests/fuzz; what breaks one is kept, with the command that runs it again
    Fuzz(fuzz::Args),
    /// Measure vnet beside other ways to do the same, and write docs/benchmarks; needs root and a quiet machine
    Bench(bench::Args),
    /// See that a packet costs the eBPF programs not much more than is recorded; needs root
    Guard(guard::Args),
    /// Check format, lints on the host and for eBPF, and the documentation
    Lint,
    /// What has to pass before a change is accepted: lint, test, guard
    Ci,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Setup => setup::run(),
        Command::Build(args) => build::run(&args),
        Command::Run { args } => run::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Guard(args) => guard::run(&args),
        Command::Lint => lint::run(),
        Command::Ci => ci::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
