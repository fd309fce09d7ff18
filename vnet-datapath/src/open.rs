//! Beginning a flow: claiming a tuple for its answers, then remembering both directions.

use vnet_common::{CtEntry, CtState, DropReason, Origin, Port, Proto};

use crate::conntrack;
use crate::scratch::Scratch;
use crate::tables::{Flow, Tables};

/// Source ports tried before giving up. Each is a draw from the whole range, so with half of it in use towards
/// one destination the chance of failing is 1 in 256.
const MAX_TRIES: u32 = 8;

/// Which source ports a flow may get on its far side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourcePorts {
    /// The host's address is the source: only ports that masquerade may use and no socket of the host does.
    Host,
    /// The opener's own address is the source, or that of a published port: its own port unless that is taken.
    Own,
}

/// A flow about to begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    /// Which source ports will do.
    pub(crate) ports: SourcePorts,
    /// The port mapping that opens it, 0 if none does.
    pub(crate) mapping: u32,
    /// Length of its first packet in bytes, from the network header on.
    pub(crate) length: u32,
}

/// Begins a flow: from `scratch.tuple` to `scratch.translated`, whose source port is the one wished for and
/// becomes the one that was free.
///
/// The entry for the answers is made first and only if there is none: of two CPUs, or two flows, that want the
/// same tuple one gets it. The entry for the opener follows; if that is refused the first is taken back.
#[inline(always)]
pub(crate) fn open<T: Tables>(
    tables: &T,
    scratch: &mut Scratch,
    opening: &Opening,
) -> Result<(), DropReason> {
    let now = tables.now();
    scratch.entry = CtEntry {
        translated: scratch.tuple.answer(),
        packets: 0,
        bytes: 0,
        last_seen: now,
        created: now,
        mapping: opening.mapping,
        state: CtState::New as u8,
        origin: Origin::Answer as u8,
        reserved: [0; 2],
    };
    claim(tables, opening.ports, scratch)?;
    scratch.entry.translated = scratch.translated;
    scratch.entry.origin = Origin::Opener as u8;
    scratch.entry.packets = 1;
    scratch.entry.bytes = u64::from(opening.length);
    if tables.add_flow(&scratch.tuple, &scratch.entry).is_some() {
        tables.flow_began(&scratch.tuple, &scratch.entry);
        return Ok(());
    }
    tables.remove_flow(&scratch.answer);
    // Another packet of this flow was faster on another CPU (two datagrams of one socket): follow it.
    match tables.conntrack(&scratch.tuple) {
        Some(flow) => {
            scratch.translated = flow.translated();
            Ok(())
        }
        None => Err(DropReason::FlowTableFull),
    }
}

/// Finds a source port whose answers nobody else waits for, and takes it: adds `scratch.entry` for them.
#[inline(always)]
fn claim<T: Tables>(tables: &T, ports: SourcePorts, scratch: &mut Scratch) -> Result<(), DropReason> {
    let range = tables.config().ok_or(DropReason::NoFreePort)?.nat_ports;
    let Scratch { translated, answer, spare, entry, .. } = scratch;
    let wished = translated.sport.number();
    let echo = matches!(translated.proto, Proto::ICMP | Proto::ICMPV6);
    let mut fits = match ports {
        SourcePorts::Own => true,
        // An identifier of a query is in nobody's range.
        SourcePorts::Host => echo || (wished >= range.first && wished <= range.last),
    };
    for _ in 0..MAX_TRIES {
        if !fits {
            let span = u32::from(range.last).saturating_sub(u32::from(range.first)).saturating_add(1);
            let draw = (u64::from(tables.random()).wrapping_mul(u64::from(span)) >> 32) as u16;
            translated.sport = Port::new(range.first.wrapping_add(draw));
            if echo {
                translated.dport = translated.sport;
            }
        }
        fits = false;
        *answer = translated.answer();
        if ports == SourcePorts::Host && !echo && tables.host_socket(answer) {
            continue;
        }
        // Makes room if the holder of the tuple has expired.
        if conntrack::lookup(tables, answer, spare).is_some() {
            continue;
        }
        if tables.add_flow(answer, entry).is_some() {
            return Ok(());
        }
    }
    Err(DropReason::NoFreePort)
}
