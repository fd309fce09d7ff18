//! A packet's way in steps, and who takes them.

use vnet_common::{DropReason, Hook};

use crate::answer;
use crate::begin;
use crate::conntrack;
use crate::fragments;
use crate::nat;
use crate::open;
use crate::packet::Packet;
use crate::pipeline;
use crate::related;
use crate::scratch::Scratch;
use crate::tables::Tables;
use crate::verdict::Verdict;

/// Where a packet stands after a step. A number, so that a step can be a function of its own in the kernel, whose
/// verifier knows nothing else to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Step {
    /// 1 to 255 are reasons to drop it.
    pub code: i32,
}

impl Step {
    /// It goes on as it is: it is not for vnet.
    pub const PASS: Self = Self { code: 0 };
    /// It belongs to no flow.
    pub const BEGIN: Self = Self { code: 256 };
    /// It belongs to no flow and is for the world.
    pub const WORLD: Self = Self { code: 261 };
    /// It is to begin the flow in `scratch.opening`.
    pub const OPEN: Self = Self { code: 257 };
    /// As [`Self::TRANSLATE`], once its flow is told what is in `scratch.progress`.
    pub const ADVANCE: Self = Self { code: 260 };
    /// It is to get the tuple `scratch.translated`, and what is in `scratch.decided` is to become of it.
    pub const TRANSLATE: Self = Self { code: 258 };
    /// It is an ICMP error, which may be about a packet of a flow.
    pub const RELATED: Self = Self { code: 272 };
    /// It is about the packet of a flow that has the tuple `scratch.noted`: [`related::relay`] is to be done.
    pub const RELAY: Self = Self { code: 273 };
    /// What is in `scratch.decided` is to become of it, as it is.
    pub const DONE: Self = Self { code: 259 };

    /// It is a fragment that is to wait for the first of its datagram.
    pub const HOLD: Self = Self { code: 262 };
    /// It has waited, and is to go back to where it was met before.
    pub const RETURN: Self = Self { code: 263 };

    /// It is to be dropped.
    #[must_use]
    #[inline(always)]
    pub const fn drop(reason: DropReason) -> Self {
        Self { code: reason as i32 }
    }

    /// The step of a story that may have ended early. Both ways of ending are numbers, so that the compiler has nothing
    /// undefined to carry along, which the verifier would refuse.
    #[must_use]
    #[inline(always)]
    pub const fn of(result: Result<Self, Self>) -> Self {
        match result {
            Ok(step) | Err(step) => step,
        }
    }

    /// The reason to drop it.
    #[must_use]
    #[inline(always)]
    pub const fn reason(self) -> Option<DropReason> {
        if self.code > 0 && self.code < 256 { DropReason::from_u8(self.code as u8) } else { None }
    }

    /// What becomes of the packet, after the last step.
    ///
    /// # Errors
    /// The reason to drop it.
    #[inline(always)]
    pub fn verdict(self, scratch: &Scratch) -> Result<Verdict, DropReason> {
        match self {
            Self::DONE if !scratch.decided.is_pass() => Ok(scratch.decided.verdict()),
            Self::HOLD => Ok(Verdict::Hold),
            Self::RETURN => Ok(Verdict::Return),
            step => match step.reason() {
                Some(reason) => Err(reason),
                None if scratch.entrance != 0 => Ok(Verdict::Enter(scratch.entrance)),
                None => Ok(Verdict::Pass),
            },
        }
    }
}

impl From<DropReason> for Step {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self::drop(reason)
    }
}

/// Takes the steps, each of which may be kept out of line: what is inlined is verified anew for every way that leads
/// there, and takes its part of a small stack.
pub trait Steps {
    /// Parses: [`pipeline::read`].
    fn read(&mut self, scratch: &mut Scratch);
    /// Looks up: [`pipeline::look`].
    fn look(&mut self, scratch: &mut Scratch) -> Step;
    /// Decides on a packet of no flow: [`begin::begin`].
    fn begin(&mut self, scratch: &mut Scratch) -> Step;
    /// Decides on a later fragment of no flow: [`fragments::straggler`].
    fn straggler(&mut self, scratch: &mut Scratch) -> Step;
    /// Decides on one that an endpoint sends to the world: [`begin::world_bound`].
    fn world_bound(&mut self, scratch: &mut Scratch) -> Step;
    /// Decides on an ICMP error: [`related::relate`].
    fn relate(&mut self, scratch: &mut Scratch) -> Step;
    /// Changes it: [`related::relay`].
    fn relay(&mut self, scratch: &mut Scratch) -> bool;
    /// Pays for a flow: [`open::prepare`].
    fn prepare(&mut self, scratch: &mut Scratch) -> bool;
    /// Tries a source port: [`open::try_port`].
    fn try_port(&mut self, scratch: &mut Scratch) -> bool;
    /// Makes the flow complete: [`open::complete`].
    fn complete(&mut self, scratch: &mut Scratch) -> bool;
    /// Tells the flow: [`conntrack::advance`].
    fn advance(&mut self, scratch: &mut Scratch) -> Step;
    /// Notes what became of a first fragment: [`fragments::note`].
    fn note(&mut self, scratch: &mut Scratch);
    /// Changes the packet: [`nat::rewrite`].
    fn rewrite(&mut self, scratch: &mut Scratch) -> bool;
    /// Decides what is said about a packet that is dropped: [`answer::decide`].
    fn answer(&mut self, scratch: &mut Scratch);
}

/// Takes a packet all its way. `scratch.place` says where it was met. If it is dropped, `scratch.answering` says what is
/// to be answered, for whoever carries out the verdict to do.
#[inline(always)]
pub fn run<S: Steps>(steps: &mut S, scratch: &mut Scratch) -> Step {
    let step = way(steps, scratch);
    if let Some(reason) = step.reason()
        && answer::is_answered(reason)
    {
        scratch.answering.reason = reason as u8;
        steps.answer(scratch);
    }
    step
}

/// All that a packet goes through.
#[inline(always)]
fn way<S: Steps>(steps: &mut S, scratch: &mut Scratch) -> Step {
    let step = decide(steps, scratch);
    if step == Step::RELAY {
        return if steps.relay(scratch) { Step::DONE } else { Step::drop(DropReason::Rewrite) };
    }
    if fragments::noting(scratch, step) {
        steps.note(scratch);
    }
    if step != Step::TRANSLATE {
        return step;
    }
    if steps.rewrite(scratch) { Step::DONE } else { Step::drop(DropReason::Rewrite) }
}

/// All but what changes the packet.
#[inline(always)]
fn decide<S: Steps>(steps: &mut S, scratch: &mut Scratch) -> Step {
    steps.read(scratch);
    let mut step = steps.look(scratch);
    if step == Step::RELATED {
        step = steps.relate(scratch);
    }
    if step == Step::ADVANCE {
        step = steps.advance(scratch);
    }
    if step == Step::BEGIN && scratch.headers.piece.is_later() {
        step = steps.straggler(scratch);
    } else if step == Step::BEGIN {
        step = steps.begin(scratch);
        if step == Step::WORLD {
            step = steps.world_bound(scratch);
        }
        if step == Step::OPEN && scratch.headers.is_source_routed() {
            return Step::drop(DropReason::SourceRoute);
        }
        if step == Step::OPEN {
            step = open::open(steps, scratch);
        }
    }
    step
}

/// Every step in one place: how packets in memory are dealt with.
#[derive(Debug)]
pub struct Inline<'a, P, T> {
    /// The packet.
    pub packet: &'a mut P,
    /// The tables.
    pub tables: &'a T,
    /// Where it was met.
    pub hook: Hook,
}

impl<P: Packet, T: Tables> Steps for Inline<'_, P, T> {
    #[inline(always)]
    fn read(&mut self, scratch: &mut Scratch) {
        pipeline::read(self.packet, scratch);
    }

    #[inline(always)]
    fn look(&mut self, scratch: &mut Scratch) -> Step {
        pipeline::look(self.packet, self.tables, scratch, self.hook)
    }

    #[inline(always)]
    fn begin(&mut self, scratch: &mut Scratch) -> Step {
        begin::begin(self.tables, scratch, self.hook)
    }

    #[inline(always)]
    fn straggler(&mut self, scratch: &mut Scratch) -> Step {
        fragments::straggler(self.tables, scratch, self.hook)
    }

    #[inline(always)]
    fn world_bound(&mut self, scratch: &mut Scratch) -> Step {
        begin::world_bound(self.tables, scratch)
    }

    #[inline(always)]
    fn relate(&mut self, scratch: &mut Scratch) -> Step {
        related::relate(self.packet, self.tables, scratch)
    }

    #[inline(always)]
    fn relay(&mut self, scratch: &mut Scratch) -> bool {
        related::relay(self.packet, scratch).is_some()
    }

    #[inline(always)]
    fn prepare(&mut self, scratch: &mut Scratch) -> bool {
        open::prepare(self.tables, scratch)
    }

    #[inline(always)]
    fn try_port(&mut self, scratch: &mut Scratch) -> bool {
        open::try_port(self.tables, scratch)
    }

    #[inline(always)]
    fn complete(&mut self, scratch: &mut Scratch) -> bool {
        open::complete(self.tables, scratch)
    }

    #[inline(always)]
    fn advance(&mut self, scratch: &mut Scratch) -> Step {
        conntrack::advance(self.tables, scratch)
    }

    #[inline(always)]
    fn note(&mut self, scratch: &mut Scratch) {
        fragments::note(self.tables, scratch);
    }

    #[inline(always)]
    fn rewrite(&mut self, scratch: &mut Scratch) -> bool {
        nat::rewrite(self.packet, scratch).is_some()
    }

    #[inline(always)]
    fn answer(&mut self, scratch: &mut Scratch) {
        answer::decide(self.tables, scratch);
    }
}
