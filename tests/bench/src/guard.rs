//! What keeps the programs from becoming slower unnoticed, also on a busy machine: what each kind of packet costs, as a
//! multiple of a program that always does the same work, against what is recorded; and how long the programs are.
//! What the verifier makes of them is a test of its own (`tests/tests/verifier.rs`).
//!
//! Each number is the least of many rounds in which everything takes its turn. Whatever else runs only adds to some of
//! the rounds; and where a number is too large all the same, everything is measured again before that counts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use aya::programs::{Program, ProgramInfo};
use serde::{Deserialize, Serialize};
use vnet_tests::case::world::UPLINK;
use vnet_tests::frame::Frame;
use vnet_tests::runner::{Kernel, Stage, load};

use crate::ebpf::feeder::{Feed, Feeder};
use crate::ebpf::skb;
use crate::ebpf::timer::{Runs, Timed, in_turns};
use crate::ebpf::yardstick::yardstick;
use crate::programs;

/// How often a cost that is too large is measured again.
const TRIES: u32 = 4;
const RUNS: Runs = Runs { rounds: 60, packets: 1_000 };
/// What a cost may be at most, as a multiple of what is recorded: other CPUs do the same work in other proportions.
const COST_MARGIN: f64 = 1.6;
/// What it may be above that in any case, as a multiple of the yardstick: some packets cost next to nothing.
const COST_SLACK: f64 = 0.1;
/// What a length may be at most, as a multiple of what is recorded: kernels put a little more or less into programs.
const LENGTH_MARGIN: f64 = 1.3;
const YARDSTICK: &str = "yardstick";
/// What brings the record up to date.
const RECORD: &str = "cargo xtask guard --record";

/// What is recorded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What a packet costs, by kind, as a multiple of the yardstick.
    pub costs: BTreeMap<String, f64>,
    /// Bytes of each program for packets as the verifier leaves it, before it is compiled.
    pub lengths: BTreeMap<String, u32>,
}

/// Measures, and holds it against what is recorded; or records it.
///
/// # Errors
/// When something is above its bound, with its numbers and the way out.
pub fn guard(path: &Path, record: bool) -> Result<()> {
    let mut found = Record { costs: costs(RUNS)?, lengths: lengths()? };
    if record {
        return write(path, &found);
    }
    let recorded = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let recorded: Record =
        serde_json::from_str(&recorded).with_context(|| format!("understand {}", path.display()))?;
    for _ in 1..TRIES {
        if recorded.complaints_of(&found).is_empty() {
            break;
        }
        eprintln!("    too much: measuring again, in case that the machine was busy");
        found.keep_least(&costs(RUNS)?);
    }
    for (name, cost) in &found.costs {
        eprintln!("    {name:<34} {cost:>6.3} yardsticks, recorded {}", recorded.cost(name));
    }
    let complaints = recorded.complaints_of(&found);
    if complaints.is_empty() {
        return Ok(());
    }
    bail!(
        "{}\nIf the change is worth it, record that with `{RECORD}`, on a quiet machine, and say why in the commit.",
        complaints.join("\n")
    )
}

fn write(path: &Path, found: &Record) -> Result<()> {
    let mut rounded = found.clone();
    rounded.costs.values_mut().for_each(|cost| *cost = (*cost * 1e3).round() / 1e3);
    let json = serde_json::to_string_pretty(&rounded)? + "\n";
    fs::write(path, json).with_context(|| format!("write {}", path.display()))?;
    eprintln!("    recorded in {}", path.display());
    Ok(())
}

impl Record {
    /// What is above its bound, or on one side only.
    fn complaints_of(&self, found: &Self) -> Vec<String> {
        let mut complaints = Vec::new();
        if !self.costs.keys().eq(found.costs.keys()) || !self.lengths.keys().eq(found.lengths.keys()) {
            complaints.push("other programs or kinds of packets than those that are recorded".to_owned());
        }
        for (name, cost, recorded) in both(&self.costs, &found.costs) {
            if cost > recorded * COST_MARGIN + COST_SLACK {
                complaints.push(format!(
                    "{name}: a packet costs {cost:.2} times what the yardstick costs, recorded are {recorded:.2}: more \
                     than {COST_MARGIN} times as much"
                ));
            }
        }
        for (name, length, recorded) in both(&self.lengths, &found.lengths) {
            if f64::from(length) > f64::from(recorded) * LENGTH_MARGIN {
                complaints.push(format!(
                    "{name}: {length} bytes of instructions, recorded are {recorded}: more than {LENGTH_MARGIN} times as \
                     many"
                ));
            }
        }
        complaints
    }

    /// Takes over what is less.
    fn keep_least(&mut self, costs: &BTreeMap<String, f64>) {
        for (name, cost) in costs {
            self.costs.entry(name.clone()).and_modify(|it| *it = it.min(*cost)).or_insert(*cost);
        }
    }

    fn cost(&self, name: &str) -> String {
        self.costs.get(name).map_or_else(|| "not".to_owned(), |cost| format!("{cost:.3}"))
    }
}

/// What two maps have under the same name: what was found, and what is recorded.
fn both<T: Copy>(
    recorded: &BTreeMap<String, T>,
    found: &BTreeMap<String, T>,
) -> impl Iterator<Item = (String, T, T)> {
    let pair = |(name, found): (&String, &T)| Some((name.clone(), *found, *recorded.get(name)?));
    found.iter().filter_map(pair).collect::<Vec<_>>().into_iter()
}

/// What each kind of packet costs, as a multiple of the yardstick.
fn costs(runs: Runs) -> Result<BTreeMap<String, f64>> {
    Stage::run(|stage| {
        let mut all = programs::kinds(&mut Kernel::tc(stage))?;
        let (yardstick, _table) = yardstick(1)?;
        let frame = Frame::tcp(programs::server(), programs::server()).ack().build();
        let feed = Feed { ifindex: UPLINK, frame: &frame, flows: None };
        all.push(Timed::new(YARDSTICK, Feeder::new(feed, &yardstick)?, skb::PASS));
        in_turns(&mut all, runs)?;
        let unit = all.pop().context("no yardstick")?.cost();
        ensure!(unit > 0.0, "the yardstick costs nothing: the kernel's clock is too coarse");
        let costs = all.iter().map(|it| (it.name, it.cost().max(0.0)));
        let costs = costs.chain(programs::early(&mut Kernel::tc(stage), runs));
        Ok(costs.map(|(name, cost)| (name.to_owned(), cost / unit)).collect())
    })
}

/// How long each program for packets is once the verifier is done with it.
fn lengths() -> Result<BTreeMap<String, u32>> {
    let mut object = load(vnet::kernel::OBJECT, vnet::kernel::Kernel::features());
    let mut lengths = BTreeMap::new();
    for (name, program) in object.programs_mut() {
        let name = name.to_owned();
        let info = match program {
            Program::SchedClassifier(program) => program.load().and_then(|()| program.info()),
            Program::Xdp(program) => program.load().and_then(|()| program.info()),
            _ => continue,
        };
        let info: ProgramInfo = info.with_context(|| format!("load {name}"))?;
        lengths.insert(name, info.size_translated().context("the kernel hides how long programs are")?);
    }
    Ok(lengths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(costs: &[(&str, f64)], lengths: &[(&str, u32)]) -> Record {
        Record {
            costs: costs.iter().map(|(name, cost)| ((*name).to_owned(), *cost)).collect(),
            lengths: lengths.iter().map(|(name, length)| ((*name).to_owned(), *length)).collect(),
        }
    }

    #[test]
    fn what_is_far_above_the_record_is_complained_of() {
        let recorded = record(&[("established", 1.0), ("nothing", 0.0)], &[("from_uplink", 1_000)]);
        assert!(recorded.complaints_of(&recorded).is_empty());
        let fine = record(&[("established", 1.69), ("nothing", 0.09)], &[("from_uplink", 1_300)]);
        assert!(recorded.complaints_of(&fine).is_empty());
        let slow = record(&[("established", 1.71), ("nothing", 0.0)], &[("from_uplink", 1_000)]);
        let complaints = recorded.complaints_of(&slow);
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].starts_with("established: a packet costs 1.71"), "{complaints:?}");
        let long = record(&[("established", 1.0), ("nothing", 0.11)], &[("from_uplink", 1_301)]);
        assert_eq!(recorded.complaints_of(&long).len(), 2);
        let other = record(&[("established", 1.0)], &[("from_uplink", 1_000)]);
        assert_eq!(recorded.complaints_of(&other).len(), 1);
    }

    #[test]
    fn the_least_counts() {
        let mut found = record(&[("a", 2.0), ("b", 1.0)], &[]);
        found.keep_least(&record(&[("a", 1.5), ("b", 1.5)], &[]).costs);
        assert_eq!(found, record(&[("a", 1.5), ("b", 1.0)], &[]));
    }

    /// What the guard is for, on whatever machine this is.
    #[test]
    fn a_program_that_works_twice_as_much_is_noticed() {
        Stage::run(|_| {
            let frame = Frame::tcp(programs::server(), programs::server()).ack().build();
            let feed = Feed { ifindex: UPLINK, frame: &frame, flows: None };
            let made = [1, 2].map(|times| yardstick(times).unwrap());
            let timed = |(it, _): &(_, _)| Timed::new(YARDSTICK, Feeder::new(feed, it).unwrap(), skb::PASS);
            let mut all = made.each_ref().map(timed);
            in_turns(&mut all, RUNS).unwrap();
            let [once, twice] = all.each_ref().map(Timed::cost);
            assert!(twice > COST_MARGIN * once, "{twice} ns instead of {once} ns");
        });
    }
}
