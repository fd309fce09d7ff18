//! `vnet-bench`: runs the benchmark, and is the load generator that it starts.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use vnet_bench::generator::{self, Load, Serve};

/// Measure vnet beside other ways to do the same; `cargo xtask bench` builds what it needs.
#[derive(Parser)]
#[command(name = "vnet-bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Be the client of one measurement
    #[command(hide = true)]
    Load(Load),
    /// Be the server of measurements
    #[command(hide = true)]
    Serve(Serve),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Load(load) => {
            println!("{}", serde_json::to_string(&generator::load(&load)?)?);
            Ok(())
        }
        Command::Serve(serve) => generator::serve(&serve),
    }
}
