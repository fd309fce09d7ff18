//! Flows as values: the two halves of each brought together, selected, followed, counted.
//!
//! ```text
//! the maps' entries -- pair --> flows -- Filter --> those that were asked for -- Doomed --> what to forget
//!                                 |------ Watch ---> what has changed since the last look
//!                                 '------ Stats ---> what is used of what there is, and for how long that will do
//! ```
//!
//! Nothing here reads anything: times are seconds since boot, as the maps have them.

mod doomed;
mod filter;
mod log;
mod stats;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use vnet_common::{CtEntry, CtState, DatapathConfig, Event, Origin, Tuple};
use vnet_datapath::conntrack;

pub use doomed::Doomed;
pub use filter::{Filter, OfMapping};
pub use log::LogRecord;
pub use stats::{
    ALARM, Counted, EndpointFill, Fill, Forecast, PortFill, Room, StateShare, Stats, Usage, forecast,
};
pub use watch::{Ended, News, Told, Watch};

/// The entries of the flow tables: one for each direction.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// Of flows that are not confirmed.
    pub unconfirmed: HashMap<Tuple, CtEntry>,
    /// Of those that are. What is in both is on its way here.
    pub confirmed: HashMap<Tuple, CtEntry>,
}

impl Tables {
    /// The entry of a tuple.
    #[must_use]
    pub fn get(&self, tuple: &Tuple) -> Option<&CtEntry> {
        self.confirmed.get(tuple).or_else(|| self.unconfirmed.get(tuple))
    }

    fn entries(&self) -> impl Iterator<Item = (&Tuple, &CtEntry)> {
        let unconfirmed = self.unconfirmed.iter().filter(|(tuple, _)| !self.confirmed.contains_key(tuple));
        self.confirmed.iter().chain(unconfirmed)
    }
}

/// Which of a flow's two entries there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halves {
    /// Both, as it should be.
    Both,
    /// The opener's alone: the other was evicted, or is about to be made.
    Opener,
    /// The answer's alone.
    Answer,
}

impl Halves {
    /// A word for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Opener => "opener",
            Self::Answer => "answer",
        }
    }
}

/// Packets, and their bytes from the network header on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Traffic {
    fn of(entry: Option<&CtEntry>) -> Self {
        entry.map_or_else(Self::default, |entry| Self { packets: entry.packets, bytes: entry.bytes })
    }
}

/// A tracked flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The opener's packets as they arrive.
    pub original: Tuple,
    /// The same packets as they leave; the zone is the side they leave to.
    pub translated: Tuple,
    /// How far it has come.
    pub state: CtState,
    /// Whether both sides have shown that they hear each other.
    pub confirmed: bool,
    /// Which of its entries there are.
    pub halves: Halves,
    /// The port mapping that opened it, 0 if none did.
    pub mapping: u32,
    /// Whether it belongs to an endpoint-independent mapping.
    pub mapped: bool,
    /// Whether it is an endpoint's question to a name server.
    pub brief: bool,
    /// When it began.
    pub created: u32,
    /// When its last packet was seen.
    pub last_seen: u32,
    /// What the opener has sent.
    pub sent: Traffic,
    /// What the opener has been sent.
    pub received: Traffic,
}

impl Flow {
    /// The flow that has an entry at `tuple`, of which `twin` is the other one.
    fn of(tuple: &Tuple, entry: &CtEntry, twin: Option<&CtEntry>, confirmed: bool) -> Self {
        let newest = twin.filter(|twin| twin.last_seen > entry.last_seen).unwrap_or(entry);
        let flow = Self {
            original: *tuple,
            translated: entry.translated,
            state: CtState::from_u8(newest.state),
            confirmed,
            halves: if twin.is_some() { Halves::Both } else { Halves::Opener },
            mapping: entry.mapping,
            mapped: entry.flags & CtEntry::FLAG_MAPPED != 0,
            brief: entry.flags & CtEntry::FLAG_BRIEF != 0,
            created: entry.created,
            last_seen: newest.last_seen,
            sent: Traffic::of(Some(entry)),
            received: Traffic::of(twin),
        };
        match origin(entry) {
            Origin::Opener => flow,
            // Each half says what the other one's tuple is.
            Origin::Answer => Self {
                original: entry.twin(),
                translated: tuple.answer(),
                halves: Halves::Answer,
                sent: Traffic::default(),
                received: Traffic::of(Some(entry)),
                ..flow
            },
        }
    }

    /// The flow of which an event tells that it began, by what that says of it.
    #[must_use]
    pub fn begun(event: &Event) -> Self {
        let began = (event.time / 1_000_000_000) as u32;
        Self {
            original: event.tuple,
            translated: event.translated,
            state: CtState::New,
            confirmed: false,
            halves: Halves::Both,
            mapping: 0,
            mapped: false,
            brief: conntrack::is_brief(&event.tuple),
            created: began,
            last_seen: began,
            sent: Traffic { packets: 1, bytes: event.length.into() },
            received: Traffic::default(),
        }
    }

    /// Seconds without a packet after which it is over.
    #[must_use]
    pub fn timeout(&self, config: &DatapathConfig) -> u32 {
        let flags = if self.brief { CtEntry::FLAG_BRIEF } else { 0 };
        conntrack::timeout(config, self.original.proto, self.state, flags)
    }

    /// Seconds since its last packet.
    #[must_use]
    pub fn idle(&self, now: u32) -> u32 {
        now.saturating_sub(self.last_seen)
    }

    /// Seconds since it began.
    #[must_use]
    pub fn age(&self, now: u32) -> u32 {
        now.saturating_sub(self.created)
    }

    /// Seconds that it will be kept if no packet comes.
    #[must_use]
    pub fn left(&self, config: &DatapathConfig, now: u32) -> u32 {
        self.timeout(config).saturating_sub(self.idle(now))
    }

    /// Whether it has run out of time, and its entries are there only because nobody has met them since.
    #[must_use]
    pub fn is_over(&self, config: &DatapathConfig, now: u32) -> bool {
        self.idle(now) > self.timeout(config)
    }

    /// The keys of its entries: the opener's and the answer's.
    #[must_use]
    pub fn keys(&self) -> [Tuple; 2] {
        [self.original, self.translated.answer()]
    }
}

fn origin(entry: &CtEntry) -> Origin {
    Origin::from_u8(entry.origin)
}

/// Brings the halves of each flow together. A half whose twin is missing, or has become another flow's after an
/// eviction, is a flow of its own.
#[must_use]
pub fn pair(tables: &Tables) -> Vec<Flow> {
    let flow = |(tuple, entry): (&Tuple, &CtEntry)| {
        let twin = tables.get(&entry.twin());
        let twin = twin.filter(|twin| twin.twin() == *tuple && origin(twin) != origin(entry));
        if origin(entry) == Origin::Answer && twin.is_some() {
            return None;
        }
        let confirmed = tables.confirmed.contains_key(tuple)
            || (twin.is_some() && tables.confirmed.contains_key(&entry.twin()));
        Some(Flow::of(tuple, entry, twin, confirmed))
    };
    tables.entries().filter_map(flow).collect()
}
