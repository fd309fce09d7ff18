//! Fragments: what the first one tells is noted, and the later ones, which have no ports, are recognised by it.
//!
//! Of IPv4, datagrams that are translated get another identification. Endpoints choose theirs without knowing of each
//! other, and behind one address the receiver could not tell their fragments apart (RFC 6864 section 5.3.1, RFC 7857
//! section 10). It is drawn at random for each datagram: two of the same addresses and protocol that are on their way
//! at once get the same in one of 65,536 cases. Those of IPv6 have 32 bits, are chosen so that nobody can foresee them
//! (RFC 7739), and stay what they are.

use bytemuck::{Pod, Zeroable};
use vnet_common::{DropReason, FragmentKey, FragmentValue, Hook, NetworkValue, Proto, Tuple, Zone};

use crate::checksum::Delta;
use crate::packet::Packet;
use crate::scratch::Scratch;
use crate::step::Step;
use crate::tables::Tables;
use crate::wire::{self, extension};

/// Largest datagram, in bytes behind its network header: more cannot be put together (RFC 791 section 3.1).
const LARGEST_DATAGRAM: u32 = 65_535;

/// What part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Piece {
    /// Identification of the datagram in network byte order; that of IPv4 comes first, before two zeros.
    pub id: [u8; 4],
    /// Where it stands in the datagram, in bytes.
    pub offset: u16,
    pub(crate) kind: u8,
    /// Bytes of headers in front of the payload, for a first fragment.
    pub header: u8,
}

const FIRST: u8 = 1;
const LATER: u8 = 2;
const CUTTABLE: u8 = 3;

/// The value of [`FragmentValue::fate`] for a first fragment on which nothing has been decided yet, and for a later one
/// of which nothing is known. No map has it.
const OPEN: u8 = 0;
/// The value for a first fragment whose fate is to be noted. No map has it either.
const TO_BE_NOTED: u8 = 253;

impl Piece {
    /// A packet that is no fragment.
    pub(crate) const WHOLE: Self = Self { id: [0; 4], offset: 0, kind: 0, header: 0 };

    /// What a network header says: `offset` in bytes, whether `more` fragments follow.
    #[inline(always)]
    pub(crate) const fn new(id: [u8; 4], offset: u16, more: bool) -> Self {
        let kind = match (offset, more) {
            (0, true) => FIRST,
            // Of IPv6 this may have a fragment header: it is one datagram by itself (RFC 6946).
            (0, false) => 0,
            (_, _) => LATER,
        };
        Self { id, offset, kind, header: 0 }
    }

    /// The same, of a whole packet of IPv4 that a router may cut.
    #[must_use]
    #[inline(always)]
    pub(crate) const fn cuttable(self) -> Self {
        Self { kind: if self.kind == 0 { CUTTABLE } else { self.kind }, ..self }
    }

    /// Whether its identification may matter to somebody although it is whole.
    #[must_use]
    #[inline(always)]
    pub const fn is_cuttable(&self) -> bool {
        self.kind == CUTTABLE
    }

    /// Whether it begins a datagram, and others follow: all headers are in it.
    #[must_use]
    #[inline(always)]
    pub const fn is_first(&self) -> bool {
        self.kind == FIRST
    }

    /// Whether it has no headers but that of the network.
    #[must_use]
    #[inline(always)]
    pub const fn is_later(&self) -> bool {
        self.kind == LATER
    }

    /// Whether it can be a piece of anything, with `length` bytes of the datagram, if `more` follow. All but the last
    /// are multiples of eight bytes long (RFC 791 section 3.2, RFC 8200 section 4.5).
    #[inline(always)]
    pub(crate) const fn fits(&self, length: u32, more: bool) -> bool {
        let end = (self.offset as u32).wrapping_add(length);
        end <= LARGEST_DATAGRAM && !(more && (length == 0 || length & 7 != 0))
    }
}

/// Prepares for what [`meet`] and [`noting`] are about: the packet is no fragment until it is known to be one.
#[inline(always)]
pub(crate) fn forget(scratch: &mut Scratch) {
    scratch.headers.piece = Piece::WHOLE;
    scratch.datagram.fate = OPEN;
}

/// Whether the packet has a tuple that a flow may have, by its own headers or by those of its datagram's first
/// fragment. Where it comes from is in `scratch.tuple`.
#[inline(always)]
pub(crate) fn meet<T: Tables>(tables: &T, scratch: &mut Scratch) -> bool {
    let translatable = scratch.headers.is_translatable();
    let Scratch { headers, tuple, fragment, datagram, .. } = scratch;
    if headers.piece.is_cuttable() {
        datagram.id = tables.identification();
    }
    if !headers.piece.is_first() && !headers.piece.is_later() {
        return translatable;
    }
    *fragment = FragmentKey {
        src: tuple.src,
        dst: tuple.dst,
        id: headers.piece.id,
        zone: tuple.zone,
        proto: if headers.is_v4() { tuple.proto } else { Proto { number: 0 } },
        reserved: 0,
    };
    if headers.piece.is_first() {
        datagram.fate = TO_BE_NOTED;
        return translatable;
    }
    recall(tables, scratch)
}

/// Whether a later fragment belongs to a datagram whose first was translated: it has its ports now.
#[inline(always)]
fn recall<T: Tables>(tables: &T, scratch: &mut Scratch) -> bool {
    let Scratch { headers, tuple, fragment, datagram, .. } = scratch;
    let Some(config) = tables.config() else { return false };
    if !tables.fragment(fragment, datagram) || tables.now().saturating_sub(datagram.began) > config.fragment {
        datagram.fate = OPEN;
        return false;
    }
    // It would replace what was looked at (RFC 1858, RFC 3128, RFC 5722).
    if datagram.fate == FragmentValue::TRANSLATED && headers.piece.offset < u16::from(datagram.header) {
        datagram.fate = DropReason::Malformed as u8;
    }
    tuple.proto = datagram.proto;
    tuple.sport = datagram.sport;
    tuple.dport = datagram.dport;
    datagram.fate == FragmentValue::TRANSLATED
}

/// What becomes of a later fragment that belongs to no flow: the same as of its first, for which it may have to wait.
/// What would be dropped, or would pass, whatever its first may have said does so without.
#[must_use]
#[inline(always)]
pub fn straggler<T: Tables>(tables: &T, scratch: &mut Scratch, hook: Hook) -> Step {
    let Tuple { src, dst, .. } = &scratch.tuple;
    let hosts = tables.host_address(dst).is_some();
    match hook {
        Hook::FromEndpoint => {
            let Some(sender) = tables.endpoint(src) else { return Step::drop(DropReason::SourceAddress) };
            if !hosts && src.same_prefix(dst, sender.prefix_len) {
                return Step::PASS;
            }
            if !hosts && tables.network(dst).is_some() {
                return Step::drop(DropReason::OtherNetwork);
            }
        }
        Hook::FromUplink => {
            if dst.is_loopback() {
                return Step::drop(DropReason::Loopback);
            }
            if !hosts {
                const OPENED: u8 = NetworkValue::FLAG_ROUTED | NetworkValue::FLAG_UNPROTECTED;
                match tables.network(dst) {
                    None => return Step::PASS,
                    Some(network) if network.flags & OPENED == 0 => {
                        return Step::drop(DropReason::DirectAccess);
                    }
                    Some(_) => {}
                }
            }
        }
        // Its first has not left this way: nothing leaves untranslated.
        Hook::ToUplink
        | Hook::ToBridge
        | Hook::ToNetwork
        | Hook::FromHold
        | Hook::XdpUplink
        | Hook::Shape => {
            return Step::drop(DropReason::Fragment);
        }
    }
    let fate = scratch.datagram.fate;
    if fate == OPEN && may_wait(tables, scratch) {
        return Step::HOLD;
    }
    match fate {
        FragmentValue::PASSED => Step::PASS,
        // Whatever is not vnet's is the host's.
        OPEN if hook == Hook::FromUplink && hosts => Step::PASS,
        fate => Step::drop(DropReason::from_u8(fate).unwrap_or(DropReason::Fragment)),
    }
}

/// Whether a fragment of an unknown datagram may wait: if its first could be translated, if it has not waited yet, and
/// if not too many from the same interface do so already.
#[inline(always)]
fn may_wait<T: Tables>(tables: &T, scratch: &Scratch) -> bool {
    let Scratch { headers, tuple, place, .. } = scratch;
    let Some(config) = tables.config() else { return false };
    let protocol = matches!(tuple.proto, Proto::TCP | Proto::UDP | Proto::SCTP | Proto::ICMP | Proto::ICMPV6);
    // In IPv6 other headers may stand in front of it.
    let may_be_translated = protocol || (!headers.is_v4() && extension::is_known(tuple.proto.number));
    if config.hold == 0 || place.waited != 0 || !may_be_translated {
        return false;
    }
    let now = tables.now();
    let limit = config.held_fragments;
    let admitted = tables.endpoint_use(place.ifindex, |used| {
        if used.held_at != now {
            used.held_at = now;
            used.held = 0;
        }
        used.held = used.held.saturating_add(1);
        used.held <= limit
    });
    admitted.unwrap_or(false)
}

/// A fragment that waits: it goes back to where it came from when its first is known or it has waited long enough, and
/// otherwise waits on.
#[must_use]
#[inline(always)]
pub fn from_hold<T: Tables>(tables: &T, scratch: &mut Scratch) -> Step {
    if scratch.frame != Scratch::FRAME_IP || !scratch.headers.piece.is_later() {
        return Step::drop(DropReason::Fragment);
    }
    let origin = scratch.place.arrived;
    scratch.tuple.zone = match tables.endpoint(&scratch.tuple.src) {
        Some(sender) if sender.ifindex == origin => sender.zone,
        _ => Zone::WORLD,
    };
    let _ = meet(tables, scratch);
    let hold = tables.config().map_or(0, |config| config.hold);
    let over = scratch.place.waited != 0 || scratch.datagram.fate != OPEN || hold == 0;
    if over { Step::RETURN } else { Step::HOLD }
}

/// Whether the packet is a first fragment whose fate is now decided, and to be noted by [`note`].
#[inline(always)]
pub(crate) fn noting(scratch: &mut Scratch, step: Step) -> bool {
    if scratch.datagram.fate != TO_BE_NOTED {
        return false;
    }
    scratch.datagram.fate = match step.reason() {
        Some(reason) => reason as u8,
        None if step == Step::TRANSLATE => FragmentValue::TRANSLATED,
        None => FragmentValue::PASSED,
    };
    true
}

/// Notes what became of the first fragment in `scratch`, so that it becomes of the others.
#[inline(always)]
pub fn note<T: Tables>(tables: &T, scratch: &mut Scratch) {
    let Scratch { headers, tuple, translated, fragment, datagram, .. } = scratch;
    let [a, b, ..] = headers.piece.id;
    let same = tuple.src == translated.src && tuple.dst == translated.dst;
    let keeps = same || datagram.fate != FragmentValue::TRANSLATED || !headers.is_v4();
    *datagram = FragmentValue {
        began: tables.now(),
        sport: tuple.sport,
        dport: tuple.dport,
        id: if keeps { [a, b] } else { tables.identification() },
        proto: tuple.proto,
        header: headers.piece.header,
        fate: datagram.fate,
        reserved: [0; 3],
    };
    tables.put_fragment(fragment, datagram);
}

/// Gives a translated fragment of IPv4 the identification of its datagram, and a packet that may yet be cut one of its
/// own: endpoints that share an address do not agree on theirs (RFC 7857 section 10, RFC 6864 section 5.3.1).
#[inline(always)]
pub(crate) fn renumber<P: Packet>(packet: &mut P, scratch: &Scratch) -> Option<()> {
    let Scratch { headers, datagram, tuple, translated, .. } = scratch;
    let Piece { kind, .. } = headers.piece;
    let keeps = kind == CUTTABLE && tuple.src == translated.src && tuple.dst == translated.dst;
    if kind == 0 || keeps || !headers.is_v4() {
        return Some(());
    }
    let [a, b, ..] = headers.piece.id;
    packet.fix_l3(wire::IPV4_CHECKSUM, Delta::NONE.replace2([a, b], datagram.id))?;
    packet.store(wire::IPV4_ID, &datagram.id)
}
