//! Packets: built with sums that are right, and read again without a line of the code under test.

use vnet_common::{Mac, Proto, Tuple};
use vnet_datapath::checksum::Delta;
use vnet_datapath::{Covers, Headers, L4, L4Checksum, Packet, Slice};

/// Where the network header begins.
pub(crate) const NETWORK: usize = 14;

/// A packet to be built.
#[derive(Clone, Debug)]
pub(crate) struct Built<'a> {
    pub(crate) tuple: Tuple,
    pub(crate) src_mac: Mac,
    /// TCP flags; 1 makes an echo message a reply.
    pub(crate) flags: u8,
    pub(crate) hop_limit: u8,
    /// IPv4 options in words.
    pub(crate) options: usize,
    /// Whether UDP has one.
    pub(crate) checksum: bool,
    pub(crate) payload: &'a [u8],
}

impl Built<'_> {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Self { tuple, .. } = self;
        let transport = self.transport();
        let mut bytes = vec![2, 0, 0, 0, 0, 0xee];
        bytes.extend(self.src_mac.bytes);
        if tuple.src.is_v4() {
            let header = 20 + 4 * self.options;
            bytes.extend([0x08, 0x00, 0x45 + self.options as u8, 0]);
            bytes.extend(((header + transport.len()) as u16).to_be_bytes());
            bytes.extend([0, 1, 0x40, 0, self.hop_limit, tuple.proto.number, 0, 0]);
            bytes.extend(tuple.src.v4_bytes());
            bytes.extend(tuple.dst.v4_bytes());
            // Options that do nothing (RFC 791 section 3.1).
            bytes.resize(NETWORK + header, 1);
        } else {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend((transport.len() as u16).to_be_bytes());
            bytes.extend([tuple.proto.number, self.hop_limit]);
            bytes.extend(tuple.src.bytes);
            bytes.extend(tuple.dst.bytes);
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
    v4: bool,
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
        Some(Self { transport, end, sum, udp: proto == 17, pseudo, v4 })
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
    let header = frame.get(NETWORK).map_or(0, |first| 4 * usize::from(first & 15));
    let is_v4 = frame.get(12..NETWORK) == Some(&[0x08, 0x00]);
    let Some(header) = frame.get_mut(NETWORK..NETWORK + header).filter(|header| is_v4 && header.len() >= 20)
    else {
        return;
    };
    header[10..12].fill(0);
    let sum = checksum(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// What can be said of a packet's sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sums {
    /// That of the IPv4 header is right; there is none in IPv6.
    pub(crate) network: bool,
    /// That of the transport header is right, or there is none.
    pub(crate) transport: bool,
    /// There is none on purpose (UDP).
    pub(crate) absent: bool,
}

/// The sums of a packet, if it is one.
pub(crate) fn sums(frame: &[u8]) -> Option<Sums> {
    let anatomy = Anatomy::of(frame)?;
    let absent = anatomy.udp && anatomy.stored(frame) == Some(&[0, 0]);
    Some(Sums {
        network: !anatomy.v4 || checksum(&frame[NETWORK..anatomy.transport]) == 0,
        transport: anatomy.sum.is_none() || absent || anatomy.residue(frame) == 0,
        absent,
    })
}

/// A translated packet without all that a translation may change.
pub(crate) fn untranslated(frame: &[u8], headers: &Headers) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    let mut blank = |from: usize, length: usize| {
        if let Some(part) = bytes.get_mut(from..from + length) {
            part.fill(0);
        }
    };
    if headers.is_v4() {
        blank(NETWORK + 8, 1);
        blank(NETWORK + 10, 10);
    } else {
        blank(NETWORK + 7, 33);
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

/// A frame that may stand for several segments, or carry a tag beside its bytes.
#[derive(Debug)]
pub(crate) struct Dressed<'a> {
    pub(crate) slice: Slice<'a>,
    pub(crate) segment: u32,
    pub(crate) tagged: bool,
}

impl Packet for Dressed<'_> {
    fn length(&self) -> u32 {
        self.slice.length()
    }

    fn segment_payload(&self) -> u32 {
        self.segment
    }

    fn is_tagged(&self) -> bool {
        self.tagged
    }

    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.slice.load(offset)
    }

    fn store<const N: usize>(&mut self, offset: u32, bytes: &[u8; N]) -> Option<()> {
        self.slice.store(offset, bytes)
    }

    fn store_uncompensated(&mut self, offset: u32, byte: u8) -> Option<()> {
        self.slice.store_uncompensated(offset, byte)
    }

    fn fix_l3(&mut self, offset: u32, delta: Delta) -> Option<()> {
        self.slice.fix_l3(offset, delta)
    }

    fn fix_l4(&mut self, sum: L4Checksum, delta: Delta, covers: Covers) -> Option<()> {
        self.slice.fix_l4(sum, delta, covers)
    }
}
