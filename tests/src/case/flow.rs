//! Tracked flows, as a case gives or expects them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use vnet_common::{CtEntry, CtState, Origin, Port, Proto, Tuple, Zone};
use vnet_datapath::conntrack::is_brief;

use super::world::{Family, zone_of};

/// How long ago a given flow was last seen, unless [`Flow::aged`] says otherwise: longer than a moment, shorter
/// than any timeout.
pub(super) const AGE: u32 = 8;
/// Time that may pass between the writing of a case's flows and the reading of their times, in seconds.
pub const SLACK: u32 = 3;

/// A flow: both of its directions, unless one has been evicted.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Flow {
    opener: Tuple,
    translated: Tuple,
    state: CtState,
    mapping: u32,
    age: u32,
    kept: Kept,
    /// In which table; by its state if that is not said.
    confirmed: Option<bool>,
    flags: u8,
}

/// An entry of a flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The entry.
    pub entry: CtEntry,
    /// Whether it is in the table of the confirmed.
    pub confirmed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Both,
    Only(Origin),
}

impl Flow {
    /// A flow of an endpoint to the world, which sees the host's address, chosen by routing, and `port`.
    pub fn masqueraded(proto: Proto, endpoint: SocketAddr, to: SocketAddr, port: u16) -> Self {
        let host = SocketAddr::new(Family::of(to.ip()).host, port);
        let to_as_seen = if is_echo(proto) { SocketAddr::new(to.ip(), port) } else { to };
        let flow = Self::new(tuple(proto, endpoint, to), tuple(proto, host, to_as_seen).in_zone(Zone::WORLD));
        flow.routed()
    }

    /// A flow from the world to a published port of the host.
    pub fn published(proto: Proto, client: SocketAddr, dialled: SocketAddr, target: SocketAddr) -> Self {
        let translated = tuple(proto, client, target).in_zone(zone_of(target.ip()));
        Self::new(tuple(proto, client, dialled), translated)
    }

    /// A flow of an endpoint to a published port of the host, whose target sees the address that was dialled
    /// and `port`.
    pub fn hairpin(
        proto: Proto,
        client: SocketAddr,
        dialled: SocketAddr,
        (target, port): (SocketAddr, u16),
    ) -> Self {
        let as_seen = SocketAddr::new(dialled.ip(), port);
        let translated = tuple(proto, as_seen, target).in_zone(zone_of(target.ip()));
        Self::new(tuple(proto, client, dialled), translated)
    }

    fn new(opener: Tuple, translated: Tuple) -> Self {
        Self {
            opener,
            translated,
            state: CtState::New,
            mapping: 0,
            age: AGE,
            kept: Kept::Both,
            confirmed: None,
            flags: if is_brief(&opener) { CtEntry::FLAG_BRIEF } else { 0 },
        }
    }

    /// Both sides have been seen.
    pub const fn established(self) -> Self {
        Self { state: CtState::Established, ..self }
    }

    /// A FIN of both sides has been seen.
    pub const fn closing(self) -> Self {
        self.in_state(CtState::Closing)
    }

    /// Only the opener has been seen, or it has begun anew.
    pub const fn begun(self) -> Self {
        self.in_state(CtState::New)
    }

    /// It has come that far.
    pub const fn in_state(self, state: CtState) -> Self {
        Self { state, ..self }
    }

    /// In the table of the confirmed, whatever its state.
    pub const fn confirmed(self) -> Self {
        Self { confirmed: Some(true), ..self }
    }

    /// In the table of the unconfirmed, whatever its state.
    pub const fn unconfirmed(self) -> Self {
        Self { confirmed: Some(false), ..self }
    }

    /// Part of an endpoint-independent mapping.
    pub const fn mapped(self) -> Self {
        Self { flags: self.flags | CtEntry::FLAG_MAPPED, ..self }
    }

    /// Routing has chosen its external address.
    pub const fn routed(self) -> Self {
        Self { flags: self.flags | CtEntry::FLAG_ROUTED, ..self }
    }

    /// Opened by a port mapping.
    pub const fn by(self, mapping: u32) -> Self {
        Self { mapping, ..self }
    }

    /// The opener belongs to another network than its address says.
    pub fn in_zone(mut self, zone: Zone) -> Self {
        self.opener = self.opener.in_zone(zone);
        self
    }

    /// The world sees another address than that of the uplink, which a rule has chosen.
    pub fn seen_as(mut self, addr: IpAddr) -> Self {
        self.flags &= !CtEntry::FLAG_ROUTED;
        self.translated.src = addr.into();
        self
    }

    /// The target sees another port than the client's.
    pub const fn from_port(mut self, port: u16) -> Self {
        self.translated.sport = Port::new(port);
        self
    }

    /// Last seen that many seconds ago.
    pub const fn aged(self, age: u32) -> Self {
        Self { age, ..self }
    }

    /// Last seen now.
    pub const fn just_seen(self) -> Self {
        self.aged(0)
    }

    /// The entry of the opener's direction alone.
    pub const fn only_opener(self) -> Self {
        Self { kept: Kept::Only(Origin::Opener), ..self }
    }

    /// The entry of the answer's direction alone.
    pub const fn only_answer(self) -> Self {
        Self { kept: Kept::Only(Origin::Answer), ..self }
    }

    /// The key of the opener's direction.
    #[must_use]
    pub const fn opener(&self) -> Tuple {
        self.opener
    }

    /// The key of the answer's direction.
    #[must_use]
    pub const fn answer(&self) -> Tuple {
        self.translated.answer()
    }

    /// What the opener's packets become.
    #[must_use]
    pub const fn translated(&self) -> Tuple {
        self.translated
    }

    /// Its entries at a time.
    #[must_use]
    pub fn entries(&self, now: u32) -> HashMap<Tuple, Entry> {
        let of_state = !matches!(self.state, CtState::New | CtState::Answered);
        let confirmed = self.confirmed.unwrap_or(of_state);
        let half = |origin| {
            let (key, translated) = match origin {
                Origin::Opener => (self.opener, self.translated),
                Origin::Answer => (self.translated.answer(), self.opener.answer()),
            };
            let entry = CtEntry {
                translated,
                packets: 0,
                bytes: 0,
                last_seen: now.saturating_sub(self.age),
                created: now.saturating_sub(self.age),
                mapping: self.mapping,
                state: self.state as u8,
                origin: origin as u8,
                flags: self.flags,
                reserved: 0,
            };
            (key, Entry { entry, confirmed })
        };
        let kept = [Origin::Opener, Origin::Answer];
        kept.into_iter()
            .filter(|origin| self.kept == Kept::Both || self.kept == Kept::Only(*origin))
            .map(half)
            .collect()
    }
}

/// How two flow tables differ, but for counts and the moment at which a flow was created: one line for each
/// entry.
#[must_use]
pub fn differences(expected: &HashMap<Tuple, Entry>, found: &HashMap<Tuple, Entry>) -> Vec<String> {
    let mut lines = Vec::new();
    for (tuple, entry) in expected {
        match found.get(tuple) {
            None => lines.push(format!("missing    {}", describe(tuple, entry))),
            Some(other) if !same(entry, other) => lines.push(format!(
                "expected   {}\n    found      {}",
                describe(tuple, entry),
                describe(tuple, other)
            )),
            Some(_) => {}
        }
    }
    let unexpected = found.iter().filter(|(tuple, _)| !expected.contains_key(tuple));
    lines.extend(unexpected.map(|(tuple, entry)| format!("unexpected {}", describe(tuple, entry))));
    lines.sort();
    lines
}

fn same(one: &Entry, other: &Entry) -> bool {
    let (confirmed, Entry { entry: other, confirmed: other_confirmed }) = (one.confirmed, *other);
    let CtEntry {
        translated,
        packets: _,
        bytes: _,
        last_seen,
        created: _,
        mapping,
        state,
        origin,
        flags,
        reserved,
    } = one.entry;
    (translated, mapping, state, origin, flags, reserved, confirmed)
        == (
            other.translated,
            other.mapping,
            other.state,
            other.origin,
            other.flags,
            other.reserved,
            other_confirmed,
        )
        && last_seen.abs_diff(other.last_seen) <= SLACK
}

/// One line about an entry.
#[must_use]
pub fn describe(tuple: &Tuple, entry: &Entry) -> String {
    let Entry { entry, confirmed } = entry;
    let CtEntry {
        translated,
        packets,
        bytes,
        last_seen,
        created,
        mapping,
        state,
        origin,
        flags,
        reserved: _,
    } = entry;
    let table = if *confirmed { "confirmed" } else { "unconfirmed" };
    let (state, origin) = (CtState::from_u8(*state).name(), Origin::from_u8(*origin));
    format!(
        "{tuple:?} => {translated:?}, {table} {state} {origin:?}, {packets} packets, {bytes} bytes, seen at \
         {last_seen}, began at {created}, mapping {mapping}, flags {flags}"
    )
}

/// The tuple of packets between two sockets, as it arrives at vnet from the first.
#[must_use]
pub fn tuple(proto: Proto, from: SocketAddr, to: SocketAddr) -> Tuple {
    Tuple {
        src: from.ip().into(),
        dst: to.ip().into(),
        sport: Port::new(from.port()),
        dport: Port::new(to.port()),
        zone: zone_of(from.ip()),
        proto,
        reserved: 0,
    }
}

const fn is_echo(proto: Proto) -> bool {
    proto.number == Proto::ICMP.number || proto.number == Proto::ICMPV6.number
}

trait InZone {
    fn in_zone(self, zone: Zone) -> Self;
}

impl InZone for Tuple {
    fn in_zone(mut self, zone: Zone) -> Self {
        self.zone = zone;
        self
    }
}
