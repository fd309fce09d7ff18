//! Endpoint-independent mappings (RFC 4787 section 4.1): one external port for all that a socket sends, whatever the
//! destination, and the question who may send to it (section 5).
//!
//! A mapping is a flow without a peer, beside the flows that it has opened and that keep it alive: two entries that
//! name each other, and one more for each address that was sent to. All of them may be evicted under pressure, which
//! costs no flow anything, only that the socket's next one may get another port.

use vnet_common::{Addr, CtEntry, DatapathConfig, MappingEntry, Origin, Port, Proto, Tuple, Zone, filtering};

use crate::scratch::Scratch;
use crate::tables::{Mapping, Tables};

/// What all packets have in common that leave an endpoint's port with the external address `as_seen`: a socket that
/// reaches the world by several addresses, or dials the gateway's, has a port on each.
#[inline(always)]
fn inside(tuple: &Tuple, as_seen: Addr, key: &mut Tuple) {
    *key = *tuple;
    key.dst = as_seen;
    key.dport = Port::new(0);
}

/// What all packets to the external port of `translated` have in common, or those of one address.
#[inline(always)]
fn outside(translated: &Tuple, from: Addr, key: &mut Tuple) {
    *key = *translated;
    key.src = from;
    key.dst = translated.src;
    key.sport = Port::new(0);
    key.dport = translated.sport;
    key.zone = Zone::WORLD;
}

/// Seconds that a mapping with these [`MappingEntry::flags`] is kept without a packet: as long as any of its flows.
#[must_use]
#[inline(always)]
pub const fn timeout(config: &DatapathConfig, proto: Proto, flags: u8) -> u32 {
    if flags & CtEntry::FLAG_BRIEF != 0 {
        return config.dns;
    }
    match proto {
        Proto::UDP => longest(longest(config.udp_replied, config.udp_unreplied), config.dns),
        _ => config.tcp_established,
    }
}

#[inline(always)]
const fn longest(one: u32, other: u32) -> u32 {
    if one > other { one } else { other }
}

#[inline(always)]
fn is_over<T: Tables>(tables: &T, proto: Proto, mapping: &T::Mapping<'_>, now: u32) -> bool {
    let Some(config) = tables.config() else { return true };
    now.saturating_sub(mapping.last_seen()) > timeout(config, proto, mapping.flags())
}

/// Gives `scratch.translated` the external port of the mapping that `scratch.tuple` belongs to, on the address that it
/// has, and keeps the mapping alive (RFC 4787 REQ-6); `false` if there is none.
#[inline(always)]
pub(crate) fn port<T: Tables>(tables: &T, scratch: &mut Scratch) -> bool {
    let Scratch { tuple, translated, spare, noted, mapping: entry, entry: flow, .. } = scratch;
    let now = tables.now();
    inside(tuple, translated.src, spare);
    let Some(mapping) = tables.mapping(spare) else { return false };
    if is_over(tables, tuple.proto, &mapping, now) {
        tables.remove_mapping(spare);
        return false;
    }
    translated.sport = mapping.translated().sport;
    outside(translated, translated.src.any_of_family(), noted);
    match tables.mapping(noted) {
        Some(twin) if twin.translated().answer() == *spare => twin.refresh(now, flow.flags),
        // Evicted under pressure, and the port has been taken since.
        Some(_) => {
            tables.remove_mapping(spare);
            return false;
        }
        None => {
            *entry = MappingEntry {
                translated: spare.answer(),
                last_seen: now,
                filtering: mapping.filtering(),
                flags: mapping.flags() & flow.flags,
                reserved: [0; 2],
            };
            // Or another CPU is faster.
            if tables.add_mapping(noted, entry).is_none() {
                return false;
            }
        }
    }
    mapping.refresh(now, flow.flags);
    true
}

/// Takes the external port of `scratch.translated` for the source of `scratch.tuple`; `false` if it is another's.
///
/// A socket that has a port keeps it: one more is for the peers alone towards which somebody else uses the first.
/// `owned` says that it had one and that is no use.
#[inline(always)]
pub(crate) fn claim<T: Tables>(tables: &T, scratch: &mut Scratch, owned: bool) -> bool {
    let Scratch { tuple, translated, spare, noted, mapping, opening, entry, .. } = scratch;
    let now = tables.now();
    let mut flags = entry.flags & CtEntry::FLAG_BRIEF;
    outside(translated, translated.src.any_of_family(), spare);
    let mut held = false;
    if let Some(other) = tables.mapping(spare) {
        *noted = other.translated().answer();
        let over = is_over(tables, tuple.proto, &other, now);
        // Its own has been tried, unless the inner half was evicted, or another CPU is about to add that.
        held = is_inside(noted, tuple, translated.src) && tables.mapping(noted).is_none();
        if held {
            other.refresh(now, flags);
            if over {
                other.renew(flags);
            }
            flags = other.flags();
        } else if over {
            forget(tables, noted, spare);
        } else {
            return false;
        }
    }
    inside(tuple, translated.src, noted);
    *mapping = MappingEntry {
        translated: noted.answer(),
        last_seen: now,
        filtering: opening.filtering,
        flags,
        reserved: [0; 2],
    };
    if !held && tables.add_mapping(spare, mapping).is_none() {
        return false;
    }
    mapping.translated = spare.answer();
    if tables.add_mapping(noted, mapping).is_none() && !owned {
        // Another packet of the socket was faster, on another CPU: there is a port now, maybe this very one.
        if !leads_to(tables, noted, spare) {
            tables.remove_mapping(spare);
        }
        return false;
    }
    true
}

/// Whether `key` is what [`inside`] makes.
#[inline(always)]
fn is_inside(key: &Tuple, tuple: &Tuple, as_seen: Addr) -> bool {
    key.src == tuple.src && key.sport == tuple.sport && key.zone == tuple.zone && key.dst == as_seen
}

/// Gives back what [`claim`] took.
#[inline(always)]
pub(crate) fn release<T: Tables>(tables: &T, scratch: &mut Scratch) {
    let Scratch { tuple, translated, spare, noted, .. } = scratch;
    outside(translated, translated.src.any_of_family(), spare);
    inside(tuple, translated.src, noted);
    forget(tables, noted, spare);
}

/// Removes a mapping by its two keys. The inner one may lead to another port by now.
#[inline(always)]
fn forget<T: Tables>(tables: &T, inside: &Tuple, outside: &Tuple) {
    tables.remove_mapping(outside);
    if leads_to(tables, inside, outside) {
        tables.remove_mapping(inside);
    }
}

/// Whether an inner half leads to the port of an outer one.
#[inline(always)]
fn leads_to<T: Tables>(tables: &T, inside: &Tuple, outside: &Tuple) -> bool {
    tables.mapping(inside).is_some_and(|mapping| mapping.translated().sport == outside.dport)
}

/// Notes that the endpoint has sent to the peer of `scratch.translated`.
#[inline(always)]
pub(crate) fn permit<T: Tables>(tables: &T, scratch: &mut Scratch) {
    let Scratch { tuple, translated, spare, noted, mapping, opening, entry, .. } = scratch;
    if opening.filtering != filtering::ADDRESS {
        return;
    }
    // The port may get another owner, who has not sent there.
    inside(tuple, translated.src, noted);
    outside(translated, translated.dst, spare);
    if let Some(given) = tables.mapping(spare)
        && given.translated().answer() == *noted
    {
        // What it was given for before may be kept longer.
        given.refresh(tables.now(), entry.flags);
        return;
    }
    *mapping = MappingEntry {
        translated: noted.answer(),
        last_seen: tables.now(),
        filtering: opening.filtering,
        flags: entry.flags & CtEntry::FLAG_BRIEF,
        reserved: [0; 2],
    };
    tables.put_mapping(spare, mapping);
}

/// Keeps the mapping of a flow with these [`CtEntry::flags`] alive, of which `scratch` holds a packet's tuple and what
/// that becomes.
///
/// What somebody else began keeps it alive only as far as the endpoint answers (RFC 4787 REQ-6, RFC 7857 section 7).
#[inline(always)]
pub(crate) fn refresh<T: Tables>(tables: &T, scratch: &mut Scratch, origin: Origin, flags: u8) {
    let Scratch { tuple, translated, answer, spare, noted, progress, .. } = scratch;
    let forward = origin == Origin::Opener;
    let opener_zone = if forward { tuple.zone } else { translated.zone };
    let outbound = forward == (opener_zone != Zone::WORLD);
    if opener_zone == Zone::WORLD && !outbound {
        return;
    }
    // The endpoint's own direction: this packet's, or that of its answers.
    if outbound {
        *noted = *translated;
        inside(tuple, translated.src, spare);
    } else {
        *noted = tuple.answer();
        inside(answer, tuple.dst, spare);
    }
    keep(tables, spare, progress.now, flags);
    outside(noted, noted.src.any_of_family(), spare);
    keep(tables, spare, progress.now, flags);
    outside(noted, noted.dst, spare);
    keep(tables, spare, progress.now, flags);
}

#[inline(always)]
fn keep<T: Tables>(tables: &T, key: &Tuple, now: u32, flags: u8) {
    if let Some(mapping) = tables.mapping(key) {
        mapping.refresh(now, flags);
    }
}

/// What became of a packet to an external port that no flow is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Admission {
    /// No mapping has that port.
    Unmapped = 0,
    /// The mapping's endpoint takes it: `scratch.translated` is what it becomes.
    Admitted = 1,
    /// The mapping is not open to this sender.
    Filtered = 2,
}

/// Whether a packet with `scratch.tuple` may come in through a mapping. A sender that is an endpoint of the same
/// network needs no permission: it could as well write to its neighbour directly.
#[inline(always)]
pub fn admit<T: Tables>(tables: &T, scratch: &mut Scratch) -> Admission {
    let Scratch { tuple, translated, spare, .. } = scratch;
    let now = tables.now();
    *spare = *tuple;
    spare.src = tuple.src.any_of_family();
    spare.sport = Port::new(0);
    spare.zone = Zone::WORLD;
    let Some(mapping) = tables.mapping(spare) else { return Admission::Unmapped };
    if is_over(tables, tuple.proto, &mapping, now) {
        return Admission::Unmapped;
    }
    let to = mapping.translated();
    *translated = *tuple;
    translated.dst = to.dst;
    translated.dport = to.dport;
    translated.zone = to.zone;
    if tuple.zone == to.zone || mapping.filtering() == filtering::ENDPOINT_INDEPENDENT {
        return Admission::Admitted;
    }
    if mapping.filtering() == filtering::ADDRESS {
        spare.src = if tuple.zone == Zone::WORLD { tuple.src } else { tuple.dst };
        let by_owner =
            |sent: &T::Mapping<'_>| sent.translated() == to && !is_over(tables, tuple.proto, sent, now);
        if tables.mapping(spare).is_some_and(|sent| by_owner(&sent)) {
            return Admission::Admitted;
        }
    }
    Admission::Filtered
}
