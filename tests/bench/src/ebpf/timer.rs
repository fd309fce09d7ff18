//! Costs of several programs, measured in turns.

use anyhow::{Result, ensure};

use super::feeder::Feeder;

/// How much is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runs {
    /// Turns; the quickest counts.
    pub(crate) rounds: u32,
    /// Packets in each.
    pub(crate) packets: u32,
}

/// A kind of packet that one program deals with.
#[derive(Debug)]
pub(crate) struct Timed {
    pub(crate) name: &'static str,
    feeder: Feeder,
    /// What becomes of each packet.
    verdict: i32,
    with: u32,
    without: u32,
}

impl Timed {
    /// Packets that all have the same verdict.
    pub(crate) fn new(name: &'static str, feeder: Feeder, verdict: i32) -> Self {
        Self { name, feeder, verdict, with: u32::MAX, without: u32::MAX }
    }

    /// What one packet takes, in nanoseconds: the least with the program, less the least without it. Whatever disturbs
    /// only adds.
    pub(crate) fn cost(&self) -> f64 {
        f64::from(self.with) - f64::from(self.without)
    }

    fn turn(&mut self, number: u32, packets: u32) -> Result<()> {
        let at = number.wrapping_mul(packets);
        let ran = self.feeder.run(at, packets)?;
        let Self { name, verdict, .. } = self;
        ensure!(ran.verdict == *verdict, "{name}: the verdict is {} instead of {verdict}", ran.verdict);
        // The first time everything is new to the CPU.
        if number > 0 {
            self.with = self.with.min(ran.nanoseconds);
            self.without = self.without.min(self.feeder.run_nothing(at, packets)?.nanoseconds);
        }
        Ok(())
    }
}

/// Measures all of them, once each in every round.
///
/// # Errors
/// When the kernel refuses, or something else becomes of a packet than should.
pub(crate) fn in_turns(all: &mut [Timed], runs: Runs) -> Result<()> {
    for round in 0..=runs.rounds {
        all.iter_mut().try_for_each(|it| it.turn(round, runs.packets))?;
    }
    Ok(())
}
