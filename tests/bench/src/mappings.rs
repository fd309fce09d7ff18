//! Many published ports: what the data path and the command line pay for them.
//!
//! To publish them takes minutes for some, so each rival does that once for each number of ports, and the repetitions
//! follow one another.

use std::time::Duration;

use crate::case::{Effort, Kind};
use crate::chart::thousands;
use crate::generator::Sample;
use crate::results::{Quantity, Section};
use crate::rival::{Many, Rival};
use crate::run::Run;

/// The section.
pub(crate) const NAME: &str = "mappings";
/// What is measured, each for a number of ports.
pub(crate) const LOAD: &str = "publish all, once";
pub(crate) const CONNECT: &str = "connect to the last";
pub(crate) const ADD: &str = "publish one more";
pub(crate) const REMOVE: &str = "take one back";

/// The numbers of ports between which a goal demands no difference.
pub(crate) const FEW: u16 = 10;
pub(crate) const MANY: u16 = 50_000;

/// The title of what is measured for a number of ports.
pub(crate) fn title(size: u16, what: &str) -> String {
    let ports = if size == 1 { "1 port".to_owned() } else { format!("{} ports", thousands(f64::from(size))) };
    format!("{ports}, {what}")
}

/// How many.
const fn sizes(effort: Effort) -> &'static [u16] {
    match effort {
        Effort::Full => &[1, FEW, 1_000, 10_000, MANY],
        Effort::Quick => &[1, FEW, 200],
    }
}

/// Measures all rivals that publish ports.
pub(crate) fn measure(run: &Run<'_>, section: &mut Section) {
    for &size in sizes(run.plan.effort) {
        for rival in &run.present {
            eprintln!("==> published ports: {size}, {}", rival.name());
            match run.guarded(|| rival.publish_many(size, &|done| progress(run, done))) {
                Ok(Some(many)) => {
                    one(run, section, rival.as_ref(), (size, many.as_ref()));
                    run.take_down(rival.as_ref(), many);
                }
                Ok(None) => {
                    section.lacks(rival.name(), "it publishes no ports, or only one for each process");
                }
                Err(error) => {
                    section.lacks(rival.name(), &format!("{size} could not be published: {error:#}"));
                }
            }
        }
    }
}

/// Says how far it is, now and then, and stops if that is wanted.
fn progress(run: &Run<'_>, done: u16) {
    run.interrupt.check();
    if done > 0 && done.is_multiple_of(1_000) {
        eprintln!("    {done} are published");
    }
}

fn one(run: &Run<'_>, section: &mut Section, rival: &dyn Rival, (size, many): (u16, &dyn Many)) {
    let name = rival.name();
    let cost = |what: &str, unit| Quantity::cost(title(size, what), unit);
    run.note(section, &cost(LOAD, "ms"), name, || Ok(millis(many.loaded_in())));
    for _ in 0..run.plan.repetitions {
        run.note(section, &cost(CONNECT, "µs"), name, || {
            // Fewer than elsewhere: behind as many rules a connection takes milliseconds.
            run.rig.measure(&many.last(), Kind::Crr, Kind::Crr.count(run.plan.effort) / 3)
        });
        run.note(section, &cost(ADD, "ms"), name, || Ok(millis(many.add())));
        run.note(section, &cost(REMOVE, "ms"), name, || Ok(millis(many.remove())));
    }
}

fn millis(took: Duration) -> Sample {
    Sample::plain(took.as_secs_f64() * 1e3)
}
