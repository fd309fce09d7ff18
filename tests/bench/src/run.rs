//! A run: everybody in turn, again and again, with progress on standard error.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use anyhow::{Result, anyhow};
use vnet_tests::interrupt::{Interrupt, Interrupted};

use crate::case::{Case, Effort, Kind};
use crate::conntrack;
use crate::endpoints;
use crate::floods;
use crate::generator::Sample;
use crate::machine::{CpuTime, Machine, today};
use crate::maker::{self, Maker};
use crate::mappings;
use crate::programs;
use crate::results::{Entrant, Quantity, Results, Section};
use crate::rig::Rig;
use crate::rival::{self, Absent, Rival};
use crate::sustained;
use crate::topic::Topic;

/// Says which commit is measured; `cargo xtask bench` sets it.
const COMMIT: &str = "VNET_COMMIT";

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How much.
    pub effort: Effort,
    /// How often.
    pub repetitions: u32,
    /// What.
    pub topics: Vec<Topic>,
    /// How traffic is measured.
    pub kinds: Vec<Kind>,
}

/// What a run has at hand.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) rig: &'a Rig,
    pub(crate) present: Vec<Box<dyn Rival>>,
    /// Those who make endpoints.
    pub(crate) makers: Vec<Box<dyn Maker>>,
    pub(crate) interrupt: &'a Interrupt,
}

/// Measures all of it.
///
/// # Errors
/// When the machine cannot be looked at.
///
/// # Panics
/// With [`Interrupted`] when somebody has asked to stop; what was set up is taken down on the way.
pub fn run(plan: &Plan, rig: &Rig, interrupt: &Interrupt) -> Result<Results> {
    eprintln!("{}", estimate(plan));
    let (mut machine, before) = (Machine::look()?, CpuTime::now()?);
    let date = today()?;
    let mut entrants = Vec::new();
    let mut present = rival::all();
    present.retain(|rival| enter(&mut entrants, (rival.name(), rival.what()), rival.version()));
    let mut makers = maker::all();
    makers.retain(|maker| enter(&mut entrants, (maker.name(), maker.what()), maker.version()));
    let run = Run { plan, rig, present, makers, interrupt };
    let mut topics: Vec<Section> =
        plan.topics.iter().map(|topic| Section::new(topic.name(), topic.what())).collect();
    let traffic = plan.topics.iter().any(|topic| matches!(topic, Topic::Traffic(_)));
    for repetition in (0..plan.repetitions).filter(|_| traffic) {
        run.repetition(repetition, &mut topics);
    }
    for (topic, section) in plan.topics.iter().zip(&mut topics) {
        match topic {
            Topic::Traffic(_) => {}
            Topic::Sustained => sustained::measure(&run, section),
            Topic::Mappings => mappings::measure(&run, section),
            Topic::Conntrack => conntrack::measure(&run, section),
            Topic::Programs => programs::measure(&run, section),
            Topic::Endpoints => endpoints::measure(&run, section),
            Topic::Floods => floods::measure(&run, section),
        }
    }
    let order: Vec<&str> = entrants.iter().map(|it| it.name.as_str()).collect();
    topics.iter_mut().for_each(|section| section.finish(&order));
    machine.stolen_percent = CpuTime::now()?.stolen_percent_since(&before);
    let (effort, repetitions) = (plan.effort, plan.repetitions);
    Ok(Results {
        date,
        commit: std::env::var(COMMIT).ok(),
        effort,
        repetitions,
        machine,
        rivals: entrants,
        topics,
    })
}

/// How long it will take, all of it and each topic.
fn estimate(plan: &Plan) -> String {
    let takes = |topic: &Topic| topic.takes(plan.effort, plan.repetitions);
    let each: Vec<String> =
        plan.topics.iter().map(|topic| format!("{topic} {}", roughly(takes(topic)))).collect();
    let all = roughly(plan.topics.iter().map(takes).sum());
    format!("this takes {all} on a quiet machine, longer on a busy one: {}", each.join(", "))
}

/// A time to plan with.
fn roughly(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..=90 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

/// Notes somebody, once, and says whether he is there.
fn enter(
    entrants: &mut Vec<Entrant>,
    (name, what): (&'static str, &'static str),
    version: Result<String, Absent>,
) -> bool {
    let absent = version.as_ref().err().map(|Absent(reason)| reason.clone());
    if let Some(reason) = &absent {
        eprintln!("{name} is not measured: {reason}");
    }
    let is_there = absent.is_none();
    match entrants.iter_mut().find(|it| it.name == name) {
        Some(known) => known.what = format!("{}; {what}", known.what),
        None => entrants.push(Entrant {
            name: name.to_owned(),
            what: what.to_owned(),
            version: version.ok(),
            absent,
        }),
    }
    is_there
}

/// Everybody, in an order that moves on by one with each repetition.
pub(crate) fn beginning_with<T: ?Sized>(all: &[Box<T>], repetition: u32) -> impl Iterator<Item = &T> {
    let first = repetition as usize % all.len().max(1);
    let (before, from) = all.split_at(first);
    from.iter().chain(before).map(AsRef::as_ref)
}

impl Run<'_> {
    /// Everybody once. Who begins changes, so that what drifts in a repetition meets everybody.
    fn repetition(&self, number: u32, sections: &mut [Section]) {
        eprintln!("==> repetition {} of {}", number + 1, self.plan.repetitions);
        for rival in self.beginning_with(number) {
            self.traffic(rival, sections);
        }
    }

    /// Every rival that is there.
    pub(crate) fn beginning_with(&self, repetition: u32) -> impl Iterator<Item = &dyn Rival> {
        beginning_with(&self.present, repetition)
    }

    /// All cases of one rival, on one site.
    fn traffic(&self, rival: &dyn Rival, sections: &mut [Section]) {
        let cases: Vec<(usize, Case)> = self.wanted_cases().collect();
        let has = |case| rival.lacks(case).is_none();
        for &(at, case) in &cases {
            if let Some(reason) = rival.lacks(case) {
                sections[at].lacks(rival.name(), reason);
            }
        }
        if !cases.iter().any(|&(_, case)| has(case)) {
            return;
        }
        let site = match self.guarded(|| rival.set_up()) {
            Ok(site) => site,
            Err(error) => {
                let reason = format!("it could not be set up: {error:#}");
                eprintln!("    {}: {reason}", rival.name());
                cases.iter().for_each(|&(at, _)| sections[at].lacks(rival.name(), &reason));
                return;
            }
        };
        for &(at, case) in cases.iter().filter(|(_, case)| has(*case)) {
            for &kind in self.plan.kinds.iter().filter(|kind| rival.measures(**kind)) {
                let measure = || self.rig.measure(&site.path(case), kind, kind.count(self.plan.effort));
                let quantity = Quantity::from(kind);
                self.note(&mut sections[at], &quantity, rival.name(), measure);
            }
        }
        self.take_down(rival.name(), site);
    }

    /// The lab complains of what was left behind by panicking.
    pub(crate) fn take_down<T>(&self, rival: &str, site: T) {
        if let Err(error) = self.guarded(|| drop(site)) {
            eprintln!("    {rival}: {error:#}");
        }
    }

    fn wanted_cases(&self) -> impl Iterator<Item = (usize, Case)> {
        self.plan.topics.iter().enumerate().filter_map(|(at, topic)| match topic {
            Topic::Traffic(case) => Some((at, *case)),
            _ => None,
        })
    }

    /// Measures one thing and says what came of it.
    pub(crate) fn note(
        &self,
        section: &mut Section,
        quantity: &Quantity,
        rival: &str,
        measure: impl FnOnce() -> Result<Sample>,
    ) {
        let outcome = self.guarded(measure).and_then(|outcome| outcome);
        let said = match &outcome {
            Ok(sample) => format!("{:.2} {}", sample.value, quantity.unit),
            Err(error) => format!("failed: {error:#}"),
        };
        eprintln!("    {:<12} {:<16} {:<44} {said}", section.name, rival, quantity.title);
        section.note(quantity, rival, outcome);
    }

    /// Does something that panics when it fails, as the lab does; an interruption is passed on.
    pub(crate) fn guarded<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        self.interrupt.check();
        catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
            if panic.is::<Interrupted>() {
                std::panic::resume_unwind(panic);
            }
            anyhow!("{}", message(&*panic))
        })
    }
}

/// What a panic says.
#[must_use]
pub fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_takes_is_said_before() {
        let topics = vec![Topic::Sustained, Topic::Programs];
        let said = |effort, repetitions| {
            estimate(&Plan { effort, repetitions, topics: topics.clone(), kinds: Kind::ALL.to_vec() })
        };
        let text = said(Effort::Full, 100);
        assert!(text.contains("sustained 7 min, programs 2 min"), "{text}");
        let text = said(Effort::Quick, 1);
        assert!(text.contains("takes 26 s") && text.contains("sustained 24 s, programs 2 s"), "{text}");
    }

    #[test]
    fn everybody_begins_once() {
        let all: Vec<Box<str>> = ["a", "b", "c"].map(Box::from).into();
        let order = |repetition| beginning_with(&all, repetition).collect::<String>();
        assert_eq!([0, 1, 2, 3].map(order), ["abc", "bca", "cab", "abc"]);
    }
}
