//! Many published ports: what the data path and the command line pay for them; and ten thousand that are one range.
//!
//! Everybody publishes all of them anew in each repetition, so that repetitions take turns here, too.

use std::time::Duration;

use crate::case::{Effort, Kind};
use crate::chart::thousands;
use crate::generator::Sample;
use crate::in_process::InProcess;
use crate::results::{Quantity, Section, VNET};
use crate::rival::{Many, Rival, range};
use crate::run::Run;

/// The section.
pub(crate) const NAME: &str = "mappings";
/// What is measured, each for a number of ports.
pub(crate) const LOAD: &str = "publish all";
pub(crate) const ENTRIES: &str = "publish all: their entries alone, in process";
pub(crate) const CONNECT: &str = "connect to the last";
pub(crate) const ADD: &str = "publish one more";
pub(crate) const REMOVE: &str = "take one back";
pub(crate) const ADD_IN_PROCESS: &str = "publish one more, in process";
const REMOVE_IN_PROCESS: &str = "take one back, in process";
/// How often in each repetition.
const TIMES_IN_PROCESS: u32 = 200;
/// What is measured of a range.
pub(crate) const RANGE: &str = "a range of 10,000 ports, publish it";

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
        in_turns(run, section, |section, rival| {
            eprintln!("==> published ports: {size}, {}", rival.name());
            match run.guarded(|| rival.publish_many(size, &|done| progress(run, done))) {
                Ok(Some(many)) => {
                    one(run, section, rival, (size, many.as_ref()));
                    run.take_down(rival.name(), many);
                }
                Ok(None) => {
                    section.lacks(rival.name(), "it publishes no ports, or only one for each process");
                }
                Err(error) => {
                    section.lacks(rival.name(), &format!("{size} could not be published: {error:#}"));
                }
            }
        });
    }
    in_turns(run, section, |section, rival| {
        let made = run.guarded(|| match rival.name() {
            VNET => Some(range::of_vnet()),
            _ => rival.publish_range(),
        });
        match made {
            Ok(Some(many)) => {
                range_of_ports(run, section, rival, many.as_ref());
                run.take_down(rival.name(), many);
            }
            // Said above.
            Ok(None) => {}
            Err(error) => section.lacks(rival.name(), &format!("no range could be published: {error:#}")),
        }
    });
}

/// Everybody once in each repetition. Who begins changes.
fn in_turns(run: &Run<'_>, section: &mut Section, mut measure: impl FnMut(&mut Section, &dyn Rival)) {
    for repetition in 0..run.plan.repetitions {
        for rival in run.beginning_with(repetition) {
            measure(section, rival);
        }
    }
}

fn range_of_ports(run: &Run<'_>, section: &mut Section, rival: &dyn Rival, many: &dyn Many) {
    let name = rival.name();
    let cost = |what: &str, unit| Quantity::cost(format!("a range of 10,000 ports, {what}"), unit);
    run.note(section, &Quantity::cost(RANGE, "ms"), name, || Ok(millis(many.add())));
    run.note(section, &cost(CONNECT, "µs"), name, || {
        run.rig.measure(&many.last(), Kind::Crr, Kind::Crr.count(run.plan.effort) / 3)
    });
    run.note(section, &cost("take it back", "ms"), name, || Ok(millis(many.remove())));
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
    run.note(section, &cost(CONNECT, "µs"), name, || {
        // Fewer than elsewhere: behind as many rules a connection takes milliseconds.
        run.rig.measure(&many.last(), Kind::Crr, Kind::Crr.count(run.plan.effort) / 3)
    });
    run.note(section, &cost(ADD, "ms"), name, || Ok(millis(many.add())));
    run.note(section, &cost(REMOVE, "ms"), name, || Ok(millis(many.remove())));
    let found = run.guarded(|| many.in_process(TIMES_IN_PROCESS)).and_then(Option::transpose);
    match found {
        Ok(Some(InProcess { add, remove, entries })) => {
            run.note(section, &cost(ENTRIES, "ms"), name, || Ok(entries));
            run.note(section, &cost(ADD_IN_PROCESS, "µs"), name, || Ok(add));
            run.note(section, &cost(REMOVE_IN_PROCESS, "µs"), name, || Ok(remove));
        }
        Ok(None) => {}
        Err(error) => run.note(section, &cost(ADD_IN_PROCESS, "µs"), name, || Err(error)),
    }
}

fn millis(took: Duration) -> Sample {
    Sample::plain(took.as_secs_f64() * 1e3)
}
