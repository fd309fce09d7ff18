//! The packet logic over a slice and a [`Model`].

use std::collections::HashMap;

use bytemuck::Zeroable;
use vnet_common::{CtEntry, DropKey, DropReason, EndpointUse, Hook, MappingEntry, PortRange, Tuple};
use vnet_datapath::buffer::Buffer;
use vnet_datapath::model::Model;
use vnet_datapath::{Place, Scratch, Verdict, answer, pipeline};

use super::{Arrival, Fate, Kernel, Outcome, Refused, Runner, Way};
use crate::case::Entry;

/// Runs on the host.
#[derive(Debug, Default)]
pub struct Host {
    model: Model,
    drops: HashMap<DropKey, u64>,
}

impl Host {
    /// The tables, to be looked at or changed between packets.
    pub fn model(&mut self) -> &mut Model {
        &mut self.model
    }

    /// Takes over what a kernel's runner has learnt from its packets.
    pub fn take_over(&mut self, other: &mut Kernel) {
        other.learnt(&self.model);
        self.drops = other.drops();
    }

    /// Makes the next IPv4 identification that is drawn be `id`.
    pub fn numbers(&self, id: u16) {
        self.model.identification.set(id);
    }

    /// Makes the next source port that is drawn from the range of masquerade be `port`.
    pub fn draws(&self, port: u16) {
        self.model.seed.set(seed_for(port, self.model.config.nat_ports));
    }
}

impl Runner for Host {
    fn way(&self) -> Way {
        Way::Host
    }

    fn fill(&mut self, model: &Model) {
        self.model = model.clone();
        self.drops.clear();
    }

    fn run(&mut self, arrival: &Arrival<'_>) -> Result<Outcome, Refused> {
        let mut frame = arrival.frame.to_vec();
        let mut scratch = Scratch::zeroed();
        let verdict = verdict(&self.model, arrival, &mut frame, &mut scratch);
        let mut answer = None;
        let fate = match verdict {
            Ok(Verdict::Pass) => Fate::Passed,
            Ok(Verdict::Enter(_)) => Fate::Entered,
            Ok(Verdict::Forward(_)) => Fate::Forwarded,
            Ok(Verdict::Hold) => Fate::Held,
            Ok(Verdict::Return) => Fate::Returned,
            Ok(Verdict::Deliver(delivery)) => {
                if delivery.routed {
                    let (destination, source) = (delivery.dst, delivery.src);
                    frame[..6].copy_from_slice(&destination.bytes);
                    frame[6..12].copy_from_slice(&source.bytes);
                }
                Fate::Delivered
            }
            Err(reason) => {
                let key = DropKey {
                    ifindex: arrival.ifindex,
                    reason: reason as u8,
                    hook: arrival.hook as u8,
                    reserved: [0; 2],
                };
                *self.drops.entry(key).or_default() += 1;
                if scratch.answering.is_wanted() {
                    let mut packet = Buffer { segment: arrival.segment, ..Buffer::plain(frame.clone()) };
                    answer = answer::build(&mut packet, &scratch).map(|()| packet.bytes);
                }
                Fate::Dropped(reason)
            }
        };
        let began =
            self.model.began.borrow_mut().drain(..).map(|(tuple, entry)| (tuple, entry.translated)).collect();
        Ok(Outcome { fate, frame, answer, began, verdict: verdict.ok() })
    }

    fn flows(&mut self) -> HashMap<Tuple, Entry> {
        flows(&self.model)
    }

    fn mappings(&mut self) -> HashMap<Tuple, MappingEntry> {
        self.model.mappings.borrow().clone()
    }

    fn endpoint_use(&mut self) -> HashMap<u32, EndpointUse> {
        self.model.endpoint_use.borrow().clone()
    }

    fn drops(&mut self) -> HashMap<DropKey, u64> {
        self.drops.clone()
    }
}

/// Both flow tables of a model.
pub(super) fn flows(model: &Model) -> HashMap<Tuple, Entry> {
    let (confirmed, unconfirmed) = (model.conntrack.borrow(), model.unconfirmed.borrow());
    let of =
        |confirmed| move |(tuple, entry): (&Tuple, &CtEntry)| (*tuple, Entry { entry: *entry, confirmed });
    confirmed.iter().map(of(true)).chain(unconfirmed.iter().map(of(false))).collect()
}

fn verdict(
    model: &Model,
    arrival: &Arrival<'_>,
    frame: &mut Vec<u8>,
    scratch: &mut Scratch,
) -> Result<Verdict, DropReason> {
    let place =
        Place { ifindex: arrival.ifindex, arrived: arrival.came_in_by, waited: u32::from(arrival.waited) };
    // What the host itself sends: the classifier does not look at it either.
    if matches!(arrival.hook, Hook::ToUplink | Hook::ToBridge) && place.arrived == 0 {
        return Ok(Verdict::Pass);
    }
    let mut packet = Buffer { segment: arrival.segment, ..Buffer::plain(std::mem::take(frame)) };
    let verdict = pipeline::run(&mut packet, model, scratch, (arrival.hook, place));
    *frame = packet.bytes;
    verdict
}

/// The state of the model's chance generator after which it draws `port` from `range`.
fn seed_for(port: u16, range: PortRange) -> u32 {
    let span = u64::from(range.last - range.first) + 1;
    let wanted = u64::from(port - range.first);
    // The smallest number that is scaled down to the port.
    let drawn = (wanted << 32).div_ceil(span) as u32;
    // The model draws by xorshift32, each step of which can be undone.
    let undo_left = |x: u32, by: u32| (0..32 / by).fold(x, |y, _| x ^ (y << by));
    let undo_right = |x: u32, by: u32| (0..32 / by).fold(x, |y, _| x ^ (y >> by));
    undo_left(undo_right(undo_left(drawn, 5), 17), 13)
}

#[cfg(test)]
mod tests {
    use vnet_datapath::Tables as _;

    use super::*;

    #[test]
    fn the_model_draws_what_it_is_told_to() {
        let model = Model::default();
        for range in [(49_152, 65_535), (1, 65_535), (0, 65_535), (50_000, 50_000), (50_000, 50_002)] {
            let range = PortRange { first: range.0, last: range.1 };
            let span = u64::from(range.last - range.first) + 1;
            for port in (range.first..=range.last).step_by(7) {
                model.seed.set(seed_for(port, range));
                let drawn = (u64::from(model.random()) * span) >> 32;
                assert_eq!(range.first + drawn as u16, port);
            }
        }
    }
}
