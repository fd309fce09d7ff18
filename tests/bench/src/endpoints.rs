//! Endpoints by command: made, published, removed; and what a command takes to do nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use vnet_tests::lab::Lab;

use crate::case::Effort;
use crate::generator::Sample;
use crate::latency::rank;
use crate::results::{Quantity, Section, VNET};
use crate::run::Run;

/// The section.
pub(crate) const NAME: &str = "endpoints";
pub(crate) const CREATE: &str = "ns create, portmap add";
pub(crate) const REMOVE: &str = "portmap rm, ns rm";

/// How many of each in a repetition.
const fn count(effort: Effort) -> u16 {
    match effort {
        Effort::Full => 30,
        Effort::Quick => 5,
    }
}

/// Measures on a lab of its own in each repetition.
pub(crate) fn measure(run: &Run<'_>, section: &mut Section) {
    for _ in 0..run.plan.repetitions {
        match run.guarded(|| one(count(run.plan.effort))).and_then(|found| found) {
            Ok(found) => {
                for (what, sample) in found {
                    run.note(section, &Quantity::cost(what, "ms"), VNET, || Ok(sample));
                }
            }
            Err(error) => run.note(section, &Quantity::cost("all", "ms"), VNET, || Err(error)),
        }
    }
}

fn one(count: u16) -> Result<Vec<(&'static str, Sample)>> {
    let lab = Lab::new();
    let command = |args: &[&str]| {
        let start = Instant::now();
        lab.vnet_ok(args);
        start.elapsed()
    };
    let up = command(&["up"]);
    let (mut version, mut made, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..count {
        version.push(command(&["--version"]));
        let (name, port) = (lab.name(&format!("e{number}")), (8_000 + number).to_string());
        let create = command(&["ns", "create", &name]);
        made.push(create + command(&["portmap", "add", &port, &format!("{name}:80")]));
        removed.push(command(&["portmap", "rm", &port]) + command(&["ns", "rm", &name]));
    }
    let down = command(&["down"]);
    Ok(vec![
        ("vnet --version", median(version)?),
        (CREATE, median(made)?),
        (REMOVE, median(removed)?),
        ("up", median(vec![up])?),
        ("down", median(vec![down])?),
    ])
}

fn median(mut took: Vec<Duration>) -> Result<Sample> {
    took.sort_unstable();
    let median = rank(&took, 500).context("nothing was measured")?;
    Ok(Sample::plain(median.as_secs_f64() * 1e3))
}
