//! Endpoint-independent mappings, as a case gives or expects them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use vnet_common::{Addr, CtEntry, MappingEntry, Port, Proto, Tuple, Zone, filtering};

use super::flow::{AGE, SLACK};
use super::world::zone_of;

/// A mapping: both of its directions, unless one has been evicted, and the addresses that were sent to.
#[derive(Clone, Debug)]
#[must_use]
pub struct Mapped {
    inside: Tuple,
    outside: Tuple,
    filtering: u8,
    flags: u8,
    age: u32,
    halves: &'static [Half],
    /// With how long ago that was, unless it is as long as for the mapping.
    sent_to: Vec<Sent>,
}

/// What says that the endpoint has sent somewhere.
#[derive(Clone, Copy, Debug)]
struct Sent {
    peer: SocketAddr,
    age: Option<u32>,
    flags: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Inside,
    Outside,
}

impl Mapped {
    /// All that an endpoint's socket sends comes from this external address and port, which is open to addresses that
    /// were sent to.
    pub fn new(proto: Proto, endpoint: SocketAddr, external: SocketAddr) -> Self {
        let addr = Addr::from(external.ip());
        let key = |src, dst, sport, dport, zone| Tuple {
            src,
            dst,
            sport: Port::new(sport),
            dport: Port::new(dport),
            zone,
            proto,
            reserved: 0,
        };
        Self {
            inside: key(endpoint.ip().into(), addr, endpoint.port(), 0, zone_of(endpoint.ip())),
            outside: key(addr.any_of_family(), addr, 0, external.port(), Zone::WORLD),
            filtering: filtering::ADDRESS,
            flags: 0,
            age: AGE,
            halves: &[Half::Inside, Half::Outside],
            sent_to: Vec::new(),
        }
    }

    /// It is open to others.
    pub fn filtering(self, filtering: u8) -> Self {
        Self { filtering, ..self }
    }

    /// It has served nothing but questions to name servers.
    pub fn brief(self) -> Self {
        Self { flags: CtEntry::FLAG_BRIEF, ..self }
    }

    /// The endpoint has sent there, first of all sockets of that address.
    pub fn sent_to(mut self, peer: SocketAddr) -> Self {
        self.sent_to.push(Sent { peer, age: None, flags: 0 });
        self
    }

    /// The endpoint has asked a name server there, and nothing else.
    pub fn asked(mut self, server: SocketAddr) -> Self {
        self.sent_to.push(Sent { peer: server, age: None, flags: CtEntry::FLAG_BRIEF });
        self
    }

    /// As [`Self::asked`], but as [`Self::sent_before_to`].
    pub fn asked_before(mut self, server: SocketAddr) -> Self {
        self.sent_to.push(Sent { peer: server, age: Some(AGE), flags: CtEntry::FLAG_BRIEF });
        self
    }

    /// As [`Self::sent_to`], but as long ago as a mapping was used that says nothing of it.
    pub fn sent_before_to(mut self, peer: SocketAddr) -> Self {
        self.sent_to.push(Sent { peer, age: Some(AGE), flags: 0 });
        self
    }

    /// Last used that many seconds ago.
    pub fn aged(self, age: u32) -> Self {
        Self { age, ..self }
    }

    /// Last used now.
    pub fn just_seen(self) -> Self {
        self.aged(0)
    }

    /// The direction from the endpoint alone.
    pub fn only_inside(self) -> Self {
        Self { halves: &[Half::Inside], ..self }
    }

    /// The direction from outside alone.
    pub fn only_outside(self) -> Self {
        Self { halves: &[Half::Outside], ..self }
    }

    /// What says where the endpoint has sent, alone.
    pub fn only_permits(self) -> Self {
        Self { halves: &[], ..self }
    }

    fn entries(&self, now: u32) -> HashMap<Tuple, MappingEntry> {
        let Self { inside, outside, filtering, flags, age, halves, ref sent_to } = *self;
        let entry = |translated, age, flags| MappingEntry {
            translated,
            last_seen: now.saturating_sub(age),
            filtering,
            flags,
            reserved: [0; 2],
        };
        let both = [
            (Half::Inside, (inside, entry(outside.answer(), age, flags))),
            (Half::Outside, (outside, entry(inside.answer(), age, flags))),
        ];
        let kept = both.into_iter().filter(|(half, _)| halves.contains(half));
        let mut entries: HashMap<_, _> = kept.map(|(_, entry)| entry).collect();
        for Sent { peer, age: then, flags } in sent_to {
            entries.insert(from(outside, peer.ip()), entry(inside.answer(), then.unwrap_or(age), *flags));
        }
        entries
    }
}

/// The key of what an address sends to an external port.
fn from(outside: Tuple, peer: IpAddr) -> Tuple {
    Tuple { src: peer.into(), ..outside }
}

/// The entries of mappings at a time.
pub(super) fn entries(mappings: &[Mapped], now: u32) -> HashMap<Tuple, MappingEntry> {
    mappings.iter().flat_map(|mapped| mapped.entries(now)).collect()
}

/// How two mapping tables differ: one line for each entry.
pub(super) fn differences(
    expected: &HashMap<Tuple, MappingEntry>,
    found: &HashMap<Tuple, MappingEntry>,
) -> Vec<String> {
    let same = |one: &MappingEntry, other: &MappingEntry| {
        let fixed = |entry: &MappingEntry| (entry.translated, entry.filtering, entry.flags, entry.reserved);
        fixed(one) == fixed(other) && one.last_seen.abs_diff(other.last_seen) <= SLACK
    };
    let line = |what: &str, key: &Tuple, entry: &MappingEntry| {
        let MappingEntry { translated, last_seen, filtering, flags, reserved: _ } = entry;
        format!(
            "{what} mapping {key:?} => {translated:?}, seen at {last_seen}, filtering {filtering}, flags {flags}"
        )
    };
    let unlike = |key: &Tuple, entry: &MappingEntry, among: &HashMap<_, _>| {
        among.get(key).is_none_or(|other| !same(entry, other))
    };
    let missing = expected.iter().filter(|(key, entry)| unlike(key, entry, found));
    let unexpected = found.iter().filter(|(key, entry)| unlike(key, entry, expected));
    let mut lines: Vec<String> = missing.map(|(key, entry)| line("missing   ", key, entry)).collect();
    lines.extend(unexpected.map(|(key, entry)| line("unexpected", key, entry)));
    lines.sort();
    lines
}
