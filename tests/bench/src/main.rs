//! `vnet-bench`: runs the benchmark, and is the load generator that it starts.
//!
//! Nothing is left behind, also after Ctrl-C: what was set up is taken down, the servers end with it.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde::Serialize;
use vnet_bench::case::{Effort, Kind};
use vnet_bench::generator::{self, Load, Serve, Sustain};
use vnet_bench::in_process::{self, Publish};
use vnet_bench::results::Results;
use vnet_bench::rig::Rig;
use vnet_bench::run::{self, Plan, message};
use vnet_bench::topic::Topic;
use vnet_bench::{chart, guard, page};
use vnet_tests::interrupt::{Interrupt, Interrupted};

/// Measure vnet beside other ways to do the same; `cargo xtask bench` builds what it needs.
#[derive(Parser)]
#[command(name = "vnet-bench")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure, and write the page
    Run(Args),
    /// See that no program has become much slower or longer than is recorded
    Guard(Guard),
    /// Be the client of one measurement
    #[command(hide = true)]
    Load(Load),
    /// Be the client of a sustained rate
    #[command(hide = true)]
    Sustain(Sustain),
    /// Be a program that publishes ports
    #[command(hide = true)]
    Publish(Publish),
    /// Be the server of measurements
    #[command(hide = true)]
    Serve(Serve),
}

#[derive(clap::Args)]
struct Guard {
    /// The file with what is recorded
    #[arg(long)]
    file: PathBuf,
    /// Record what is measured instead
    #[arg(long)]
    record: bool,
}

#[derive(clap::Args)]
struct Args {
    /// Few operations, two repetitions: enough to see that it works
    #[arg(long)]
    quick: bool,
    /// How often everything is measured [default: 5, with --quick 2]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    repetitions: Option<u32>,
    /// The directory of the page
    #[arg(long)]
    out: PathBuf,
    /// How to measure traffic; may be repeated [default: in every way]
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<Kind>,
    /// What to measure [default: everything]
    #[arg(value_name = "CASE")]
    topics: Vec<Topic>,
}

impl Args {
    fn plan(&self) -> Plan {
        let effort = if self.quick { Effort::Quick } else { Effort::Full };
        let wanted = |topic: &Topic| self.topics.is_empty() || self.topics.contains(topic);
        Plan {
            effort,
            repetitions: self.repetitions.unwrap_or(effort.repetitions()),
            topics: Topic::ALL.into_iter().filter(wanted).collect(),
            kinds: Kind::ALL
                .into_iter()
                .filter(|kind| self.kinds.is_empty() || self.kinds.contains(kind))
                .collect(),
        }
    }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => return benchmark(&args),
        Command::Guard(Guard { file, record }) => guard::guard(&file, record),
        Command::Load(load) => generator::load(&load).and_then(|found| tell(&found)),
        Command::Sustain(order) => generator::sustain(&order).and_then(|found| tell(&found)),
        Command::Publish(order) => in_process::publish(&order).and_then(|found| tell(&found)),
        Command::Serve(serve) => generator::serve(&serve),
    };
    finish(outcome)
}

/// Prints what a process that measures has found, for the one that has started it.
fn tell(found: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(found)?);
    Ok(())
}

fn finish(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn benchmark(args: &Args) -> ExitCode {
    // Before any thread starts, so that all of them leave the signals to the one that waits for them.
    let interrupt = Interrupt::catch();
    // What fails is said once, where it is noted.
    std::panic::set_hook(Box::new(|_| {}));
    match std::panic::catch_unwind(|| measure_and_write(args, &interrupt)) {
        Ok(outcome) => finish(outcome),
        Err(panic) if panic.is::<Interrupted>() => {
            eprintln!("interrupted: everything is taken down, and no page written");
            ExitCode::from(130)
        }
        Err(panic) => finish(Err(anyhow::anyhow!("{}", message(&*panic)))),
    }
}

fn measure_and_write(args: &Args, interrupt: &Interrupt) -> Result<()> {
    let rig = Rig::new(&std::env::current_exe().context("find the load generator")?)?;
    write(&run::run(&args.plan(), &rig, interrupt)?, args)
}

fn write(results: &Results, args: &Args) -> Result<()> {
    fs::create_dir_all(&args.out).with_context(|| format!("create {}", args.out.display()))?;
    let json = serde_json::to_string_pretty(results)? + "\n";
    let mut files =
        vec![("results.json".to_owned(), json), ("README.md".to_owned(), page::markdown(results))];
    let charts = results.topics.iter().filter(|section| !section.measured.is_empty());
    files.extend(charts.map(|section| (format!("{}.svg", section.name), chart::svg(section))));
    for (name, text) in files {
        let path = args.out.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    eprintln!("==> {} is written", args.out.join("README.md").display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vnet_bench::case::Case;

    fn parse(words: &[&str]) -> Result<Plan, clap::Error> {
        let all = ["vnet-bench", "run", "--out", "x"].iter().chain(words);
        Cli::try_parse_from(all).map(|cli| match cli.command {
            Command::Run(args) => args.plan(),
            _ => unreachable!("asked to run"),
        })
    }

    #[test]
    fn everything_is_measured_five_times_unless_told_otherwise() {
        let plan = parse(&[]).unwrap();
        assert_eq!((plan.effort, plan.repetitions, plan.topics.len()), (Effort::Full, 5, Topic::ALL.len()));
        let plan = parse(&["--quick"]).unwrap();
        assert_eq!((plan.effort, plan.repetitions), (Effort::Quick, 2));
        assert_eq!(parse(&["--quick", "--repetitions", "3"]).unwrap().repetitions, 3);
    }

    #[test]
    fn cases_are_chosen_by_name_and_keep_their_order() {
        let plan = parse(&["host-local", "masquerade"]).unwrap();
        assert_eq!(plan.topics, [Case::Masquerade, Case::HostLocal].map(Topic::Traffic));
        let plan = parse(&["--kind", "crr", "--kind", "rr", "masquerade"]).unwrap();
        assert_eq!(plan.kinds, [Kind::Rr, Kind::Crr]);
        assert_eq!(parse(&["masquerade"]).unwrap().kinds, Kind::ALL);
        for wrong in [&["nonsense"][..], &["--repetitions", "0"], &["--repetitions", "101"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
