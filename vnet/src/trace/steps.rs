//! The steps of a packet's way, taken as ever, and what each came to noted.

use vnet_common::{CtState, Hook, Tuple};
use vnet_datapath::buffer::Buffer;
use vnet_datapath::step::{Inline, Step, Steps};
use vnet_datapath::{Scratch, Tables as _};

use super::fact::{Fact, Kind};
use super::live::Live;
use super::overlay::Overlay;

/// A packet's steps over the overlay.
pub(super) struct Noted<'a, 'l, L: Live> {
    steps: Inline<'a, Buffer, Overlay<'l, L>>,
}

impl<'a, 'l, L: Live> Noted<'a, 'l, L> {
    pub(super) fn new(packet: &'a mut Buffer, tables: &'a Overlay<'l, L>, hook: Hook) -> Self {
        Self { steps: Inline { packet, tables, hook } }
    }

    fn noted(&self, fact: Fact) {
        self.steps.tables.note(fact);
    }
}

/// What was read of a frame.
fn kind(scratch: &Scratch) -> Kind {
    match scratch.frame {
        Scratch::FRAME_IP => Kind::Ip(scratch.headers),
        Scratch::FRAME_ARP => Kind::Arp,
        Scratch::FRAME_OTHER => Kind::Other,
        _ => Kind::Malformed,
    }
}

impl<L: Live> Steps for Noted<'_, '_, L> {
    fn read(&mut self, scratch: &mut Scratch) {
        self.steps.read(scratch);
        self.noted(Fact::Read { kind: kind(scratch), tuple: scratch.tuple });
    }

    fn look(&mut self, scratch: &mut Scratch) -> Step {
        self.steps.tables.look(true);
        let step = self.steps.look(scratch);
        self.steps.tables.look(false);
        step
    }

    fn begin(&mut self, scratch: &mut Scratch) -> Step {
        self.steps.begin(scratch)
    }

    fn straggler(&mut self, scratch: &mut Scratch) -> Step {
        self.steps.straggler(scratch)
    }

    fn world_bound(&mut self, scratch: &mut Scratch) -> Step {
        self.steps.world_bound(scratch)
    }

    fn relate(&mut self, scratch: &mut Scratch) -> Step {
        let step = self.steps.relate(scratch);
        if step == Step::RELAY {
            self.noted(Fact::Related(scratch.noted));
        }
        step
    }

    fn relay(&mut self, scratch: &mut Scratch) -> bool {
        self.steps.relay(scratch)
    }

    fn prepare(&mut self, scratch: &mut Scratch) -> bool {
        let granted = self.steps.prepare(scratch);
        if !granted {
            self.noted(Fact::Quota(scratch.opening.owner));
        }
        granted
    }

    fn try_port(&mut self, scratch: &mut Scratch) -> bool {
        let taken = self.steps.try_port(scratch);
        let Scratch { tuple, translated, .. } = scratch;
        self.noted(Fact::SourcePort { wished: tuple.sport, tried: translated.sport, taken });
        taken
    }

    fn complete(&mut self, scratch: &mut Scratch) -> bool {
        self.steps.complete(scratch)
    }

    fn advance(&mut self, scratch: &mut Scratch) -> Step {
        let tables = self.steps.tables;
        let [old, new] = [scratch.progress.old, scratch.progress.state].map(CtState::from_u8);
        let own: Tuple = scratch.tuple;
        let before = tables.is_confirmed(&own);
        let step = self.steps.advance(scratch);
        if step == Step::BEGIN {
            self.noted(Fact::LostAddress);
            return step;
        }
        self.noted(Fact::Advanced(old, new));
        if !before && tables.is_confirmed(&own) {
            self.noted(Fact::Confirmed);
        }
        step
    }

    fn note(&mut self, scratch: &mut Scratch) {
        self.steps.note(scratch);
    }

    fn rewrite(&mut self, scratch: &mut Scratch) -> bool {
        let done = self.steps.rewrite(scratch);
        if done {
            self.noted(Fact::Rewritten(scratch.tuple, scratch.translated));
        }
        done
    }

    fn answer(&mut self, scratch: &mut Scratch) {
        self.steps.answer(scratch);
        if scratch.answering.is_wanted() {
            self.noted(Fact::Answered(scratch.answering));
        }
    }
}
