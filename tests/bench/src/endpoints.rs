//! Endpoints: made, published, removed, one and many; and what a command takes to do nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use vnet_tests::lab::Lab;

use crate::case::Effort;
use crate::chart::thousands;
use crate::generator::Sample;
use crate::latency::rank;
use crate::maker::{Host, Maker, check_reachable};
use crate::results::{Quantity, Section, VNET};
use crate::run::{Run, beginning_with};

/// The section.
pub(crate) const NAME: &str = "endpoints";
pub(crate) const CREATE: &str = "create and publish a port";
pub(crate) const REMOVE: &str = "take the port back and remove";

/// How many of the first and of the last are compared.
const ENDS: usize = 20;

/// How many everybody makes in a repetition.
const fn count(effort: Effort) -> u16 {
    match effort {
        Effort::Full => 15,
        Effort::Quick => 5,
    }
}

/// Many endpoints at once.
#[derive(Clone, Copy, Debug)]
struct Crowd {
    endpoints: u16,
    /// On as many networks of their own; on the default one if that is 0. The kernel's bridges have 1,023 ports.
    networks: u16,
    /// How often in a run.
    repetitions: u32,
}

const fn crowds(effort: Effort) -> [Crowd; 2] {
    match effort {
        Effort::Full => [
            Crowd { endpoints: 200, networks: 0, repetitions: 3 },
            Crowd { endpoints: 1_000, networks: 4, repetitions: 2 },
        ],
        Effort::Quick => [
            Crowd { endpoints: 60, networks: 0, repetitions: 1 },
            Crowd { endpoints: 120, networks: 4, repetitions: 1 },
        ],
    }
}

/// Measures all of it.
pub(crate) fn measure(run: &Run<'_>, section: &mut Section) {
    for repetition in 0..run.plan.repetitions {
        for maker in beginning_with(&run.makers, repetition) {
            match run.guarded(|| beside_another(run, maker)) {
                Ok((host, found)) => {
                    for (what, sample) in found {
                        run.note(section, &Quantity::cost(what, "ms"), maker.name(), || Ok(sample));
                    }
                    run.take_down(maker.name(), host);
                }
                Err(error) => run.note(section, &Quantity::cost(CREATE, "ms"), maker.name(), || Err(error)),
            }
        }
        match run.guarded(|| commands(count(run.plan.effort))).and_then(|found| found) {
            Ok(found) => {
                for (what, sample) in found {
                    run.note(section, &Quantity::cost(what, "ms"), VNET, || Ok(sample));
                }
            }
            Err(error) => run.note(section, &Quantity::cost("up", "ms"), VNET, || Err(error)),
        }
    }
    for crowd in crowds(run.plan.effort) {
        for _ in 0..crowd.repetitions.min(run.plan.repetitions) {
            eprintln!("==> {}", crowd.title("one after another"));
            match run.guarded(|| crowd.measure(run)).and_then(|found| found) {
                Ok(found) => {
                    for (quantity, sample) in found {
                        run.note(section, &quantity, VNET, || Ok(sample));
                    }
                }
                Err(error) => {
                    let quantity = Quantity::cost(crowd.title("create all"), "s");
                    run.note(section, &quantity, VNET, || Err(error));
                }
            }
        }
    }
}

type Found = Vec<(&'static str, Sample)>;

/// Makes one after another and removes each before the next. Another stands all the time: with the last of all, some
/// remove their bridge and their rules.
fn beside_another(run: &Run<'_>, maker: &dyn Maker) -> (Box<dyn Host>, Found) {
    let host = maker.set_up();
    host.create(1);
    check_reachable(host.as_ref(), 1);
    let (mut made, mut removed) = (Vec::new(), Vec::new());
    for number in 2..2 + count(run.plan.effort) {
        run.interrupt.check();
        made.push(host.create(number));
        removed.push(host.remove(number));
    }
    host.remove(1);
    let found = [(CREATE, made), (REMOVE, removed)];
    let found = found.map(|(what, took)| (what, Sample::plain(median(&took).expect("some were made"))));
    (host, found.into())
}

/// vnet's other commands.
fn commands(count: u16) -> Result<Found> {
    let lab = Lab::new();
    let command = |args: &[&str]| {
        let start = Instant::now();
        lab.vnet_ok(args);
        start.elapsed()
    };
    let up = command(&["up"]);
    let versions: Vec<Duration> = (0..count).map(|_| command(&["--version"])).collect();
    let down = command(&["down"]);
    let found = [("vnet --version", versions), ("up", vec![up]), ("down", vec![down])];
    found.into_iter().map(|(what, took)| Ok((what, Sample::plain(median(&took)?)))).collect()
}

impl Crowd {
    fn title(&self, what: &str) -> String {
        let endpoints = thousands(f64::from(self.endpoints));
        match self.networks {
            0 => format!("{endpoints} endpoints, {what}"),
            networks => format!("{endpoints} endpoints on {networks} networks, {what}"),
        }
    }

    /// Makes all of them, each with a published port, then removes them in the same order.
    fn measure(&self, run: &Run<'_>) -> Result<Vec<(Quantity, Sample)>> {
        let lab = Lab::up();
        let networks: Vec<String> = (1..=self.networks).map(|number| format!("n{number}")).collect();
        for (number, network) in networks.iter().enumerate() {
            lab.vnet_ok(&["network", "create", network, "--subnet", &format!("10.{number}.0.0/22")]);
        }
        let timed = |what: &str, command: &dyn Fn(&str, &str)| {
            let mut took = Vec::new();
            for number in 1..=self.endpoints {
                run.interrupt.check();
                let (name, port) = (lab.name(&format!("e{number}")), (10_000 + number).to_string());
                let begun = Instant::now();
                command(&name, &port);
                took.push(begun.elapsed());
                if number.is_multiple_of(100) {
                    eprintln!("    {what}: {number}");
                }
            }
            took
        };
        let network_of = |port: &str| {
            let number: usize = port.parse().expect("a number");
            networks.get(number % networks.len().max(1))
        };
        let made = timed("created", &|name, port| {
            let mut create = vec!["ns", "create", name];
            create.extend(network_of(port).into_iter().flat_map(|network| ["--network", network]));
            lab.vnet_ok(&create);
            lab.vnet_ok(&["portmap", "add", port, &format!("{name}:80")]);
        });
        let removed = timed("removed", &|name, port| {
            lab.vnet_ok(&["portmap", "rm", port]);
            lab.vnet_ok(&["ns", "rm", name]);
        });
        let mut found =
            self.found(["create all", "create one of the first 20", "create one of the last 20"], &made)?;
        found.extend(
            self.found(["remove all", "remove one of the first 20", "remove one of the last 20"], &removed)?,
        );
        Ok(found)
    }

    fn found(&self, [all, first, last]: [&str; 3], took: &[Duration]) -> Result<Vec<(Quantity, Sample)>> {
        let seconds = took.iter().sum::<Duration>().as_secs_f64();
        let ends = [("number_1".to_owned(), took.first()), (format!("number_{}", took.len()), took.last())];
        let ends = ends.map(|(name, took)| (name + "_in_ms", took.map(millis).unwrap_or_default()));
        let whole = Sample { details: BTreeMap::from(ends), ..Sample::plain(seconds) };
        let each = |what: &str, took: &[Duration]| {
            anyhow::Ok((Quantity::cost(self.title(what), "ms"), Sample::plain(median(took)?)))
        };
        Ok(vec![
            (Quantity::cost(self.title(all), "s"), whole),
            each(first, &took[..ENDS.min(took.len())])?,
            each(last, &took[took.len().saturating_sub(ENDS)..])?,
        ])
    }
}

/// In milliseconds.
fn median(took: &[Duration]) -> Result<f64> {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    rank(&sorted, 500).as_ref().map(millis).context("nothing was measured")
}

fn millis(took: &Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_and_last_are_told_apart() {
        let crowd = Crowd { endpoints: 60, networks: 4, repetitions: 1 };
        let took: Vec<Duration> = (1..=60).map(Duration::from_millis).collect();
        let found = crowd.found(["all", "first", "last"], &took).unwrap();
        let shown: Vec<(&str, f64)> =
            found.iter().map(|(quantity, sample)| (quantity.title.as_str(), sample.value)).collect();
        assert_eq!(
            shown,
            [
                ("60 endpoints on 4 networks, all", 1.83),
                ("60 endpoints on 4 networks, first", 10.0),
                ("60 endpoints on 4 networks, last", 50.0),
            ]
        );
        let details = &found[0].1.details;
        assert_eq!((details["number_1_in_ms"], details["number_60_in_ms"]), (1.0, 60.0));
    }
}
