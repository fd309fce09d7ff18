//! New connections from the host to a published port at 127.0.0.1, as many as go, for long enough that ports, tables
//! and timeouts show: what is never reused has run out by then.

use std::time::Duration;

use crate::case::{Case, Effort};
use crate::generator::{Rate, Sample};
use crate::results::{Quantity, Section, VNET};
use crate::rival::{DOCKER_PROXY, Rival};
use crate::run::{Plan, Run};

/// The section.
pub(crate) const NAME: &str = "sustained";
/// What is measured.
pub(crate) const RATE: &str = "new connections";
pub(crate) const SLOWEST: &str = "new connections, in the slowest second";
pub(crate) const FAILED: &str = "connections that failed";

/// Who is measured, and how often at most: as often as other things would take too long. The others translate every
/// packet and have no limit of their own here.
const RIVALS: [(&str, u32); 2] = [(VNET, 2), (DOCKER_PROXY, 1)];
/// Seconds for a host to be made and taken down.
const SET_UP: u64 = 2;

/// How long.
const fn duration(effort: Effort) -> Duration {
    match effort {
        Effort::Full => Duration::from_secs(120),
        Effort::Quick => Duration::from_secs(10),
    }
}

/// How often somebody is measured.
fn repetitions(effort: Effort, repetitions: u32, rival: &str) -> u32 {
    let most = RIVALS.iter().find(|(name, _)| *name == rival).map_or(0, |(_, most)| *most);
    let most = if effort == Effort::Quick { most.min(1) } else { most };
    repetitions.min(most)
}

/// What all of it takes, in seconds.
pub(crate) fn takes(effort: Effort, all: u32) -> u64 {
    let often: u32 = RIVALS.iter().map(|(rival, _)| repetitions(effort, all, rival)).sum();
    (duration(effort).as_secs() + SET_UP) * u64::from(often)
}

/// Measures all of it.
pub(crate) fn measure(run: &Run<'_>, section: &mut Section) {
    let Plan { effort, repetitions: all, .. } = *run.plan;
    for repetition in 0..all {
        let wanted = |rival: &&dyn Rival| repetition < repetitions(effort, all, rival.name());
        for rival in run.beginning_with(repetition).filter(wanted) {
            match run.guarded(|| rival.set_up()) {
                Ok(site) => {
                    let found = run.guarded(|| {
                        let path = site.path(Case::HostLocal);
                        run.rig.sustain(&path, duration(effort), &|| run.interrupt.check())
                    });
                    note(run, section, rival, found.and_then(|found| found));
                    run.take_down(rival.name(), site);
                }
                Err(error) => section.lacks(rival.name(), &format!("it could not be set up: {error:#}")),
            }
        }
    }
}

fn note(run: &Run<'_>, section: &mut Section, rival: &dyn Rival, found: anyhow::Result<Rate>) {
    let more =
        |title: &str| Quantity { title: title.to_owned(), unit: "/s".to_owned(), more_is_better: true };
    let name = rival.name();
    match found {
        Ok(Rate { per_second, slowest_second, failed, latency, failures }) => {
            run.note(section, &more(RATE), name, || {
                Ok(Sample { latency: Some(latency), details: failures, ..Sample::plain(per_second) })
            });
            run.note(section, &more(SLOWEST), name, || Ok(Sample::plain(slowest_second)));
            run.note(section, &Quantity::cost(FAILED, "connections"), name, || Ok(Sample::plain(failed)));
        }
        Err(error) => run.note(section, &more(RATE), name, || Err(error)),
    }
}
