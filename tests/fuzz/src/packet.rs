//! Packets: built with sums that are right, and read again without a line of the code under test.

use bytemuck::Zeroable;
use vnet_common::{Addr, DropReason, Mac, Port, Proto, Tuple, Zone};
use vnet_datapath::buffer::Buffer;
use vnet_datapath::{Headers, L4, Parsed, parse};

/// Where the network header begins.
pub(crate) const NETWORK: usize = 14;

/// What packets carry.
pub(crate) const PAYLOAD: [u8; 248] = [0x5a; 248];

/// A packet to be built.
#[derive(Clone, Debug)]
pub(crate) struct Built<'a> {
    pub(crate) tuple: Tuple,
    pub(crate) src_mac: Mac,
    /// TCP flags; 1 makes an echo message a reply.
    pub(crate) flags: u8,
    pub(crate) hop_limit: u8,
    pub(crate) part: Part,
    /// Whether UDP has one.
    pub(crate) checksum: bool,
    pub(crate) payload: &'a [u8],
}

/// What a packet is of its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    /// It begins a datagram, and more follows.
    First,
    /// It ends one.
    Later,
    /// All of it, with an option of IPv4 that does nothing.
    WithOptions,
}

/// The identification of all datagrams that come in pieces: so that pieces meet.
const IDENTIFICATION: u8 = 7;

impl Built<'_> {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Self { tuple, part, .. } = self;
        let transport = match part {
            // A multiple of eight bytes, as all but the last piece must be.
            Part::First => {
                let mut transport = self.transport();
                transport.truncate(transport.len() & !7);
                transport
            }
            Part::Later => self.payload.to_vec(),
            Part::Whole | Part::WithOptions => self.transport(),
        };
        let mut bytes = link_header(tuple, self.src_mac);
        let in_pieces = matches!(part, Part::First | Part::Later);
        // In eights, then three flags in front (IPv4) or behind (IPv6).
        let (more, offset) = (*part == Part::First, if *part == Part::Later { 9 } else { 0 });
        if tuple.src.is_v4() {
            let options = if *part == Part::WithOptions { 4 } else { 0 };
            let header = 20 + options;
            bytes.extend([0x45 + (options / 4) as u8, 0]);
            bytes.extend(((header + transport.len()) as u16).to_be_bytes());
            let flags = if in_pieces { u8::from(more) << 5 } else { 0x40 };
            bytes.extend([0, IDENTIFICATION, flags, offset, self.hop_limit, tuple.proto.number, 0, 0]);
            bytes.extend(tuple.src.v4_bytes());
            bytes.extend(tuple.dst.v4_bytes());
            // Options that do nothing (RFC 791 section 3.1).
            bytes.resize(NETWORK + header, 1);
        } else {
            let length = transport.len() + if in_pieces { 8 } else { 0 };
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend((length as u16).to_be_bytes());
            bytes.extend([if in_pieces { 44 } else { tuple.proto.number }, self.hop_limit]);
            bytes.extend(tuple.src.bytes);
            bytes.extend(tuple.dst.bytes);
            if in_pieces {
                let field = offset << 3 | u8::from(more);
                bytes.extend([tuple.proto.number, 0, 0, field, 0, 0, 0, IDENTIFICATION]);
            }
        }
        bytes.extend(transport);
        seal(&mut bytes);
        bytes
    }

    fn transport(&self) -> Vec<u8> {
        let Self { tuple, flags, payload, .. } = self;
        let ports = [tuple.sport.bytes, tuple.dport.bytes].concat();
        let length = (8 + payload.len() as u16).to_be_bytes();
        let reply = flags & 1 != 0;
        // A sum that is not zero is made right in the end.
        let sum = [0, u8::from(self.checksum)];
        let header = match tuple.proto {
            Proto::TCP => [&ports[..], &[0; 8], &[0x50, *flags, 1, 0, 0, 0, 0, 0]].concat(),
            Proto::UDP => [&ports[..], &length, &sum].concat(),
            Proto::SCTP => [&ports[..], &[0; 8]].concat(),
            Proto::ICMP => [&[if reply { 0 } else { 8 }, 0, 0, 0], &ports[..2], &[0, 1]].concat(),
            _ => [&[128 + u8::from(reply), 0, 0, 0], &ports[..2], &[0, 1]].concat(),
        };
        [&header[..], payload].concat()
    }
}

fn link_header(tuple: &Tuple, src_mac: Mac) -> Vec<u8> {
    let ethertype = if tuple.src.is_v4() { [0x08, 0x00] } else { [0x86, 0xdd] };
    [&[2, 0, 0, 0, 0, 0xee], &src_mac.bytes[..], &ethertype].concat()
}

/// An ICMP error from one address to another, of a type, about what is quoted.
pub(crate) fn error(
    (src, dst): (Addr, Addr),
    proto: Proto,
    (kind, src_mac): (u8, Mac),
    quote: &[u8],
) -> Vec<u8> {
    let none = Port::new(0);
    let tuple = Tuple { src, dst, sport: none, dport: none, zone: Zone::WORLD, proto, reserved: 0 };
    let checksum = true;
    let part = Part::Whole;
    let echo = Built { tuple, src_mac, flags: 0, hop_limit: 64, part, checksum, payload: quote };
    let mut frame = echo.bytes();
    let message = frame.len() - quote.len() - 8;
    frame[message] = kind;
    frame[message + 4..message + 8].fill(0);
    seal(&mut frame);
    frame
}

/// The part of a packet that has sums, and where they stand.
struct Anatomy {
    /// Where the transport header begins.
    transport: usize,
    /// Where the packet ends; what comes after is padding.
    end: usize,
    /// Where its sum stands, from the transport header on; `None` for what has none that vnet changes.
    sum: Option<usize>,
    udp: bool,
    /// What is summed besides the transport header and what follows it.
    pseudo: Vec<u8>,
}

impl Anatomy {
    /// `None` if it is no whole IP packet with one of the transport headers that vnet translates: of IPv6, directly
    /// after the fixed header.
    fn of(frame: &[u8]) -> Option<Self> {
        let network = frame.get(NETWORK..)?;
        let v4 = match frame.get(12..NETWORK)? {
            [0x08, 0x00] => true,
            [0x86, 0xdd] => false,
            _ => return None,
        };
        let at = |offset: usize| {
            Some(usize::from(u16::from_be_bytes([*network.get(offset)?, *network.get(offset + 1)?])))
        };
        let (header, length, proto, addresses) = if v4 {
            let fragment = at(6)? & 0x3fff != 0;
            let proto = if fragment { return None } else { *network.get(9)? };
            (4 * usize::from(network[0] & 15), at(2)?, proto, network.get(12..20)?)
        } else {
            (40, 40 + at(4)?, *network.get(6)?, network.get(8..40)?)
        };
        let carried = length.checked_sub(header)?;
        let (sum, smallest) = match (proto, v4) {
            (6, _) => (Some(16), 20),
            (17, _) => (Some(6), 8),
            (1, true) | (58, false) => (Some(2), 8),
            (132, _) => (None, 12),
            _ => return None,
        };
        if header < 20 || carried < smallest || network.len() < length {
            return None;
        }
        let pseudo = if proto == 1 {
            Vec::new()
        } else {
            [addresses, &(carried as u32).to_be_bytes(), &[0, 0, 0, proto]].concat()
        };
        let (transport, end) = (NETWORK + header, NETWORK + length);
        Some(Self { transport, end, sum, udp: proto == 17, pseudo })
    }

    /// The sum over the packet as it is: 0 if the one that it carries is right.
    fn residue(&self, frame: &[u8]) -> u16 {
        checksum(&[&self.pseudo[..], &frame[self.transport..self.end]].concat())
    }

    fn stored<'f>(&self, frame: &'f [u8]) -> Option<&'f [u8]> {
        let at = self.transport + self.sum?;
        Some(&frame[at..at + 2])
    }
}

/// Makes the sums of a packet right, if it is one; a UDP sum that is absent stays absent.
pub(crate) fn seal(frame: &mut [u8]) {
    seal_network(frame);
    let Some(anatomy) = Anatomy::of(frame) else { return };
    let (Some(sum), Some(stored)) = (anatomy.sum, anatomy.stored(frame)) else { return };
    if anatomy.udp && stored == [0, 0] {
        return;
    }
    let at = anatomy.transport + sum;
    frame[at..at + 2].fill(0);
    let sum = match anatomy.residue(frame) {
        0 if anatomy.udp => u16::MAX,
        sum => sum,
    };
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Makes the sum of an IPv4 header right.
pub(crate) fn seal_network(frame: &mut [u8]) {
    let Some(header) = network_header(frame) else { return };
    frame[24..26].fill(0);
    let sum = checksum(&frame[header]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// What can be said of a packet's sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sums {
    /// That of the IPv4 header is right; there is none in IPv6.
    pub(crate) network: bool,
    /// That of the transport header is right, or there is none that could be told.
    pub(crate) transport: bool,
    /// There is none on purpose (UDP).
    pub(crate) absent: bool,
}

/// The sums of a frame.
pub(crate) fn sums(frame: &[u8]) -> Sums {
    let network = network_header(frame).is_none_or(|header| checksum(&frame[header]) == 0);
    let Some(anatomy) = Anatomy::of(frame) else { return Sums { network, transport: true, absent: false } };
    let absent = anatomy.udp && anatomy.stored(frame) == Some(&[0, 0]);
    let transport = anatomy.sum.is_none() || absent || anatomy.residue(frame) == 0;
    Sums { network, transport, absent }
}

/// Where the IPv4 header stands, of a frame that has one.
fn network_header(frame: &[u8]) -> Option<std::ops::Range<usize>> {
    let header = 4 * usize::from(frame.get(NETWORK)? & 15);
    let whole = header >= 20 && frame.len() >= NETWORK + header && frame[12..NETWORK] == [0x08, 0x00];
    whole.then_some(NETWORK..NETWORK + header)
}

/// Source and destination of the packet that an ICMP error quotes.
pub(crate) fn quoted(frame: &[u8], headers: &Headers) -> Option<(Addr, Addr)> {
    let quote = frame.get(headers.l4_offset as usize + 8..)?;
    if headers.is_v4() {
        let at = |at: usize| Some(Addr::v4(*quote.get(at..)?.first_chunk()?));
        return Some((at(12)?, at(16)?));
    }
    let at = |at: usize| Some(Addr::v6(*quote.get(at..)?.first_chunk()?));
    Some((at(8)?, at(24)?))
}

/// A translated packet without all that a translation may change.
pub(crate) fn untranslated(frame: &[u8], headers: &Headers) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    let mut blank = |from: usize, length: usize| {
        if let Some(part) = bytes.get_mut(from..from + length) {
            part.fill(0);
        }
    };
    let piece = &headers.piece;
    if headers.is_v4() {
        if piece.is_first() || piece.is_later() || piece.is_cuttable() {
            // Fragments get another identification, and so does what may become some (RFC 6864 section 5.3.1).
            blank(NETWORK + 4, 2);
        }
        blank(NETWORK + 8, 1);
        blank(NETWORK + 10, 10);
    } else {
        blank(NETWORK + 7, 33);
    }
    if piece.is_later() {
        return bytes;
    }
    let transport = headers.l4_offset as usize;
    match headers.l4() {
        L4::Echo => blank(transport + 4, 2),
        _ => blank(transport, 4),
    }
    match headers.l4() {
        L4::Tcp(_) => blank(transport + 16, 2),
        L4::Udp => blank(transport + 6, 2),
        L4::Echo => blank(transport + 2, 2),
        _ => {}
    }
    bytes
}

/// RFC 1071, the slow way; of bytes with their checksum in place it is 0.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A frame as hexadecimal digits, without the payload that most have.
pub(crate) fn shown(frame: &[u8]) -> String {
    let payload = frame.iter().rev().take_while(|byte| **byte == PAYLOAD[0]).count();
    let digits: String = frame[..frame.len() - payload].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits} and {payload} bytes of {:02x}", PAYLOAD[0])
}

/// Reads a frame as the code under test does.
pub(crate) fn read(frame: &[u8]) -> (Result<Parsed, DropReason>, Tuple) {
    let mut tuple = Tuple::zeroed();
    (parse(&Buffer::plain(frame.to_vec()), &mut bytemuck::Zeroable::zeroed(), &mut tuple), tuple)
}
