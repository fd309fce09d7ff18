//! The connection that is judged: what is known of its first packet before there is one.

use std::net::IpAddr;

use super::rules::{Field, Hook, Part};
use crate::spec::{Ports, Protocol};

/// Bytes of an interface's name, filled with zeros (`IFNAMSIZ`).
const NAME_LENGTH: usize = 16;
/// Bytes of a TCP header without options.
const TRANSPORT_LENGTH: usize = 20;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`.
const NEW: u32 = 8;
/// `RTN_UNICAST`.
const UNICAST: u32 = 1;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;
/// `PACKET_HOST`.
const TO_US: u8 = 0;
/// The only flag of a connection's first segment.
const SYN: u8 = 0x02;

/// A new connection, or as many as there are ports, clients and source ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Where its packets pass.
    pub hook: Hook,
    /// The interface they come in by.
    pub input: Link,
    /// The interface they go out by, if they are forwarded.
    pub output: Option<Link>,
    /// Whether it is one of IPv4, and not of IPv6.
    pub v4: bool,
    /// Where it leads, if that is known. Who opens it never is.
    pub destination: Option<IpAddr>,
    /// Its protocol.
    pub protocol: Protocol,
    /// The ports it may lead to.
    pub ports: Ports,
}

/// An interface, as rules may name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
}

/// Values between two, compared byte by byte. What is not known lies between all zeros and all ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) low: Vec<u8>,
    pub(super) high: Vec<u8>,
    /// The bytes that all of the values have in common.
    known: Vec<bool>,
}

impl Span {
    fn exactly(value: &[u8]) -> Self {
        Self { low: value.to_vec(), high: value.to_vec(), known: vec![true; value.len()] }
    }

    /// Whether it is one value.
    pub(super) fn is_known(&self) -> bool {
        self.known.iter().all(|known| *known)
    }

    /// Whether a value differs from all of these in a byte that they have in common.
    pub(super) fn excludes(&self, value: &[u8]) -> bool {
        let mut bytes = self.low.iter().zip(&self.known).zip(value);
        bytes.any(|((byte, known), other)| *known && byte != other)
    }

    fn number(value: u32) -> Self {
        Self::exactly(&value.to_ne_bytes())
    }

    fn name(name: &str) -> Self {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(NAME_LENGTH, 0);
        Self::exactly(&bytes)
    }

    fn unknown(length: usize) -> Self {
        Self { low: vec![0; length], high: vec![0xff; length], known: vec![false; length] }
    }

    fn set(&mut self, offset: usize, low: &[u8], high: &[u8]) {
        self.low[offset..][..low.len()].copy_from_slice(low);
        self.high[offset..][..high.len()].copy_from_slice(high);
        let common = low.iter().zip(high).take_while(|(low, high)| low == high).count();
        self.known[offset..][..common].fill(true);
    }

    /// Bytes of it; unknown if they lie outside.
    fn slice(&self, offset: usize, length: usize) -> Self {
        if offset + length > self.low.len() {
            return Self::unknown(length);
        }
        let range = offset..offset + length;
        Self {
            low: self.low[range.clone()].to_vec(),
            high: self.high[range.clone()].to_vec(),
            known: self.known[range].to_vec(),
        }
    }

    /// With some bits only, and some of them turned over. Exact for what is known; a span that is not one value
    /// becomes one that holds at least all that comes out.
    fn masked(&self, mask: &[u8], flip: &[u8]) -> Self {
        let keeps_order = is_prefix(mask) && flip.iter().all(|byte| *byte == 0);
        let mut masked = self.clone();
        for i in 0..self.low.len() {
            let mask = mask.get(i).copied().unwrap_or(0xff);
            let flip = flip.get(i).copied().unwrap_or(0);
            masked.known[i] |= mask == 0;
            let exact = masked.known[i] || keeps_order;
            masked.low[i] = if exact { self.low[i] & mask ^ flip } else { 0 };
            masked.high[i] = if exact { self.high[i] & mask ^ flip } else { 0xff };
        }
        masked
    }
}

/// Whether a mask is ones, then zeros: such a mask keeps the order of what it is applied to.
fn is_prefix(mask: &[u8]) -> bool {
    let mut ended = false;
    mask.iter().all(|byte| {
        let fits = if ended { *byte == 0 } else { byte.leading_ones() + byte.trailing_zeros().min(8) >= 8 };
        ended |= *byte != 0xff;
        fits
    })
}

impl Connection {
    /// The values that parts of its first packet may have, one part after the other. In a register each begins at a
    /// multiple of four bytes.
    pub(super) fn span(&self, parts: &[Part]) -> Span {
        let mut all = Span::exactly(&[]);
        for part in parts {
            let span = self.field(&part.field).masked(&part.mask, &part.flip);
            let begin = all.low.len().next_multiple_of(4);
            all.low.resize(begin, 0);
            all.high.resize(begin, 0);
            all.known.resize(begin, true);
            all.low.extend(span.low);
            all.high.extend(span.high);
            all.known.extend(span.known);
        }
        all
    }

    fn field(&self, field: &Field) -> Span {
        let forwarded = self.hook == Hook::Forward;
        match field {
            Field::InputName => Span::name(&self.input.name),
            Field::InputIndex => Span::number(self.input.index),
            Field::OutputName => Span::name(self.output.as_ref().map_or("", |output| &output.name)),
            Field::OutputIndex => Span::number(self.output.as_ref().map_or(0, |output| output.index)),
            Field::Family => Span::exactly(&[if self.v4 { 2 } else { 10 }]),
            Field::Protocol => Span::exactly(&[self.protocol.number().number]),
            Field::EtherType => Span::exactly(if self.v4 { &[0x08, 0x00] } else { &[0x86, 0xdd] }),
            Field::State => Span::number(NEW),
            Field::Status => Span::number(0),
            Field::SourceKind => Span::number(UNICAST),
            Field::DestinationKind => Span::number(if forwarded { UNICAST } else { LOCAL }),
            Field::PacketType => Span::exactly(&[TO_US]),
            Field::Network { offset, length } => self.network_header().slice(*offset, *length),
            Field::Transport { offset, length } => self.transport_header().slice(*offset, *length),
            Field::Other { length, .. } => Span::unknown(*length),
        }
    }

    fn network_header(&self) -> Span {
        let protocol = self.protocol.number().number;
        let (length, protocol_at, destination_at) = if self.v4 { (20, 9, 16) } else { (40, 6, 24) };
        let mut header = Span::unknown(length);
        if self.v4 {
            // Not a fragment; nobody makes fragments of a first segment.
            header.set(6, &[0x40, 0x00], &[0x40, 0x00]);
        }
        header.set(protocol_at, &[protocol], &[protocol]);
        match self.destination {
            Some(IpAddr::V4(addr)) => header.set(destination_at, &addr.octets(), &addr.octets()),
            Some(IpAddr::V6(addr)) => header.set(destination_at, &addr.octets(), &addr.octets()),
            None => {}
        }
        header
    }

    fn transport_header(&self) -> Span {
        let mut header = Span::unknown(TRANSPORT_LENGTH);
        header.set(2, &self.ports.first().to_be_bytes(), &self.ports.last().to_be_bytes());
        if self.protocol == Protocol::Tcp {
            header.set(13, &[SYN], &[SYN]);
        }
        header
    }

    /// What is not known of a part, in words.
    pub(super) fn describe(&self, part: &Part) -> String {
        let source = if self.v4 { 12..16 } else { 8..24 };
        let text = match &part.field {
            Field::Network { offset, .. } if source.contains(offset) => "the source address",
            Field::Network { offset, .. } if *offset >= source.end => "the destination address",
            Field::Network { .. } => "the IP header",
            Field::Transport { offset: 0, .. } => "the source port",
            Field::Transport { offset: 2, .. } => "which of the ports it is",
            Field::Transport { .. } => "the transport header",
            Field::Other { what, .. } => what,
            _ => "what is known of the packet",
        };
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_that_keep_the_order_are_told_from_those_that_do_not() {
        for (mask, expected) in [
            (&[][..], true),
            (&[0xff, 0xff], true),
            (&[0xff, 0xf0, 0], true),
            (&[0x80], true),
            (&[0, 0], true),
            (&[0x7f], false),
            (&[0xf0, 0xff], false),
            (&[0, 1], false),
            (&[0xff, 0x05], false),
        ] {
            assert_eq!(is_prefix(mask), expected, "{mask:x?}");
        }
    }

    #[test]
    fn a_masked_span_holds_all_that_comes_out() {
        let mut net = Span::unknown(4);
        net.set(0, &[10, 0, 0, 1], &[10, 0, 0, 9]);
        assert_eq!(net.known, [true, true, true, false]);
        assert_eq!(net.masked(&[0xff, 0xff, 0xff, 0], &[]), Span::exactly(&[10, 0, 0, 0]));
        let last_bit = net.masked(&[0, 0, 0, 1], &[]);
        assert_eq!((last_bit.low, last_bit.high), (vec![0; 4], vec![0, 0, 0, 0xff]));
        assert_eq!(Span::number(8).masked(&6_u32.to_ne_bytes(), &[]), Span::number(0));
        assert_eq!(Span::exactly(&[5]).masked(&[4], &[1]), Span::exactly(&[5]));
        let turned = net.masked(&[], &[1]);
        assert_eq!((turned.low, turned.high), (vec![11, 0, 0, 0], vec![11, 0, 0, 0xff]));
    }

    #[test]
    fn a_byte_is_known_only_up_to_where_the_ends_part() {
        let mut ports = Span::unknown(4);
        ports.set(0, &[0x1f, 0x05], &[0x20, 0x05]);
        ports.set(2, &[7, 1], &[7, 9]);
        assert_eq!(ports.known, [false, false, true, false]);
        assert!(ports.excludes(&[0x1f, 5, 8, 1]) && !ports.excludes(&[0x1f, 6, 7, 0]));
    }
}
