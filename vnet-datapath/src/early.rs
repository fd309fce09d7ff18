//! What an uplink with XDP drops before the host's stack has made a packet of it: frames of sources on the deny list,
//! malformed ones for an endpoint, and new flows to published ports beyond a rate. All else passes as it is.
//!
//! A rate is kept as one number: until when the flows that have begun are accounted for, each with its share of a
//! second (the generic cell rate algorithm, ITU-T I.371 annex A). A second's flows may come at once. Nothing has to be
//! locked or added up: what two CPUs write at the same moment costs a rate one flow, and what is over a rate writes
//! nothing at all.

use bytemuck::Zeroable as _;
use vnet_common::{Addr, DropReason, Proto, Tuple};

use crate::checksum::{Delta, Sum};
use crate::packet::{Covers, L4Checksum, Packet};
use crate::parse::{Headers, L4, NO_MORE, Parsed, parse};
use crate::pipeline::is_inside;
use crate::published::{published, published_on};
use crate::tables::Tables;
use crate::wire::{self, Front, ethertype, tcp};

const SECOND: u64 = 1_000_000_000;

/// What is asked of the world besides [`Tables`].
pub trait Early: Tables {
    /// Whether the deny list covers a source.
    fn is_denied(&self, source: &Addr) -> bool;
    /// Nanoseconds since boot.
    fn nanoseconds(&self) -> u64;
    /// Until when (nanoseconds since boot) the new flows of a source's prefix are accounted for; 0 if nothing is known
    /// of it.
    fn source_due(&self, prefix: &Addr) -> u64;
    /// Notes that.
    fn set_source_due(&self, prefix: &Addr, due: u64);
    /// The same for all sources together.
    fn total_due(&self) -> u64;
    /// Notes that.
    fn set_total_due(&self, due: u64);
}

/// Whether a received frame may pass. Who talks to whom is written to `tuple` as far as it was read.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn judge<P: Packet, T: Early>(packet: &P, tables: &T, tuple: &mut Tuple) -> Result<(), DropReason> {
    tuple.dst = Addr::ANY_V6;
    match source(packet) {
        Some(source) => tuple.src = source,
        None => return Ok(()),
    }
    if tables.is_denied(&tuple.src) {
        return Err(DropReason::Denied);
    }
    let mut front = Front::zeroed();
    let headers = match parse(&Glance(packet), &mut front, tuple) {
        Ok(Parsed::Ip(headers)) => headers,
        Ok(Parsed::Arp | Parsed::Other) => return Ok(()),
        Err(reason) => return if is_inside(tables, &tuple.dst) { Err(reason) } else { Ok(()) },
    };
    let Some(config) = tables.config() else { return Ok(()) };
    let limits = (config.flood_rate, config.flood_total);
    if limits == (0, 0) || !may_begin(&headers) || !is_published(tables, tuple) {
        return Ok(());
    }
    // Of a TCP flow the packet itself has shown it.
    if tuple.proto != Proto::TCP && tables.conntrack(tuple).is_some() {
        return Ok(());
    }
    admit(tables, &tuple.src, limits)
}

/// The source address of an IPv4 or IPv6 packet.
#[inline(always)]
fn source<P: Packet>(packet: &P) -> Option<Addr> {
    match packet.load(wire::ETHERTYPE)? {
        ethertype::IPV4 => packet.load(wire::IPV4_ADDRESSES).map(Addr::v4),
        ethertype::IPV6 => packet.load(wire::IPV6_ADDRESSES).map(Addr::v6),
        _ => None,
    }
}

/// Whether a packet may begin a flow, by all it shows.
#[inline(always)]
fn may_begin(headers: &Headers) -> bool {
    match headers.l4() {
        L4::Tcp(flags) => flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN,
        L4::Udp | L4::Sctp => true,
        L4::Echo | L4::Icmp(_) | L4::Opaque => false,
    }
}

/// Whether a packet asks for a published port, all those of a floating address among them.
#[inline(always)]
fn is_published<T: Tables>(tables: &T, tuple: &Tuple) -> bool {
    let Tuple { dst, dport, proto, .. } = tuple;
    if tables.host_address(dst).is_none() {
        // A routed endpoint has them on its own address.
        return tables.network(dst).is_some() && published_on(tables, dst, *dport, *proto).is_some();
    }
    published(tables, dst, *dport, *proto).is_some() || tables.floating(dst).is_some()
}

/// Counts a new flow, unless it is one too many. Who has gone too far himself has no part in what all have together.
#[inline(always)]
fn admit<T: Early>(tables: &T, source: &Addr, (rate, total): (u32, u32)) -> Result<(), DropReason> {
    let now = tables.nanoseconds();
    // First: it costs least, and a flood of forged sources leaves no trace of them then.
    let total_due = if total == 0 { 0 } else { next(tables.total_due(), now, total)? };
    if rate != 0 {
        let prefix = prefix(source);
        let due = next(tables.source_due(&prefix), now, rate)?;
        tables.set_source_due(&prefix, due);
    }
    if total != 0 {
        tables.set_total_due(total_due);
    }
    Ok(())
}

/// Until when flows are accounted for with one more, unless that is more than a second's; `rate` is not 0.
#[inline(always)]
fn next(due: u64, now: u64, rate: u32) -> Result<u64, DropReason> {
    let share = SECOND.checked_div(u64::from(rate)).unwrap_or(0);
    let next = due.max(now).wrapping_add(share);
    if next.wrapping_sub(now) > SECOND { Err(DropReason::Flood) } else { Ok(next) }
}

/// What counts as one source: whoever has an address has as a rule some more beside it (RFC 6177 for IPv6).
#[inline(always)]
fn prefix(source: &Addr) -> Addr {
    let [a, b, c, d] = source.words();
    Addr::of_words(if source.is_v4() { [a, b, c, d & V4_PREFIX] } else { [a, b, 0, 0] })
}

/// The first three bytes of an IPv4 address.
const V4_PREFIX: u32 = u32::from_ne_bytes([0xff, 0xff, 0xff, 0]);

/// A frame that is only looked at. What costs more to judge than it is worth here is left to those who come later: IPv4
/// options, and lengths that may be those of an aggregate, which generic XDP is given too.
struct Glance<'a, P>(&'a P);

impl<P: Packet> Packet for Glance<'_, P> {
    #[inline(always)]
    fn length(&self) -> u32 {
        self.0.length()
    }

    #[inline(always)]
    fn segment_payload(&self) -> u32 {
        1
    }

    #[inline(always)]
    fn is_tagged(&self) -> bool {
        self.0.is_tagged()
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.0.load(offset)
    }

    #[inline(always)]
    fn start<const N: usize>(&self, to: &mut Front) -> u32 {
        self.0.start::<N>(to)
    }

    #[inline(always)]
    fn option(&self, _at: u32) -> u32 {
        NO_MORE
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, _offset: u32, _bytes: &[u8; N]) -> Option<()> {
        None
    }

    #[inline(always)]
    fn store_uncompensated(&mut self, _offset: u32, _byte: u8) -> Option<()> {
        None
    }

    #[inline(always)]
    fn fix_l3(&mut self, _offset: u32, _delta: Delta) -> Option<()> {
        None
    }

    #[inline(always)]
    fn fix_l4(&mut self, _sum: L4Checksum, _delta: Delta, _covers: Covers) -> Option<()> {
        None
    }

    #[inline(always)]
    fn quote(&mut self, _front: u32, _length: u16) -> Option<Sum> {
        None
    }
}
