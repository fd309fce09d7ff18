//! From a [`Frame`] to its bytes.

use std::net::{IpAddr, Ipv6Addr};

use super::{Arp, Fragment, Frame, HOP_BY_HOP, Ip, Network, Tcp, Transport, UdpChecksum};

impl Frame {
    /// The bytes on the wire, from the Ethernet header on, without the frame check sequence.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut bytes = self.link_header();
        bytes.extend(self.network_bytes());
        bytes.extend(&self.trailer);
        for &offset in &self.flips {
            bytes[offset] ^= 0xff;
        }
        if let Some(length) = self.truncate {
            bytes.truncate(length);
        }
        bytes
    }

    /// The frames of the datagram cut into pieces of at most `piece` bytes behind the IP header; fewer than two
    /// if it fits.
    ///
    /// # Panics
    /// When the frame is not IP or `piece` is not a multiple of eight.
    #[must_use]
    pub fn fragments(&self, piece: u16) -> Vec<Vec<u8>> {
        assert!(piece > 0 && piece.is_multiple_of(8), "fragments are cut at multiples of eight");
        let Network::Ip(ip) = &self.network else { panic!("only IP is fragmented") };
        let whole = ip.transport_bytes();
        let count = whole.chunks(usize::from(piece)).count();
        let cut = |(n, bytes): (usize, &[u8])| {
            let fragment = Fragment { offset: n as u16 * piece, more: n + 1 < count };
            let mut frame = self.link_header();
            frame.extend(ip.around(bytes, Some(fragment)));
            frame
        };
        whole.chunks(usize::from(piece)).enumerate().map(cut).collect()
    }

    /// The packet without its Ethernet header.
    #[must_use]
    pub fn network_bytes(&self) -> Vec<u8> {
        match &self.network {
            Network::Arp(arp) => arp.bytes(),
            Network::Ip(ip) => ip.around(&ip.transport_bytes(), ip.fragment),
            Network::Raw { bytes, .. } => bytes.clone(),
        }
    }

    fn link_header(&self) -> Vec<u8> {
        let ethertype = match &self.network {
            Network::Arp(_) => 0x0806,
            Network::Ip(ip) if ip.source.is_ipv4() => 0x0800,
            Network::Ip(_) => 0x86dd,
            Network::Raw { ethertype, .. } => *ethertype,
        };
        let mut bytes = Vec::new();
        bytes.extend(self.destination.bytes);
        bytes.extend(self.source.bytes);
        for vlan in &self.vlans {
            bytes.extend(0x8100_u16.to_be_bytes());
            bytes.extend(vlan.to_be_bytes());
        }
        bytes.extend(ethertype.to_be_bytes());
        bytes
    }
}

impl Arp {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0, 1, 8, 0, 6, 4];
        bytes.extend(self.operation.to_be_bytes());
        bytes.extend(self.sender_mac.bytes);
        bytes.extend(self.sender);
        bytes.extend(self.target_mac.bytes);
        bytes.extend(self.target);
        bytes
    }
}

impl Ip {
    /// The IP header or headers around what they carry.
    fn around(&self, carried: &[u8], fragment: Option<Fragment>) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let length = 20 + self.options.len() + carried.len();
                let mut bytes = vec![0x40 | (5 + self.options.len() / 4) as u8, self.traffic_class];
                bytes.extend(self.length_field(length));
                bytes.extend(self.id.to_be_bytes());
                bytes.extend(self.fragment_field(fragment).to_be_bytes());
                bytes.extend([self.ttl, self.protocol(), 0, 0]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend(&self.options);
                let checksum = checksum(&bytes);
                bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
                bytes.extend(carried);
                bytes
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let (first, chain) = self.ext_header_chain(fragment, carried.len());
                let class = u32::from(self.traffic_class) << 20;
                let mut bytes = (0x6000_0000 | class).to_be_bytes().to_vec();
                bytes.extend(self.length_field(chain.len() + carried.len()));
                bytes.extend([first, self.ttl]);
                bytes.extend(source.octets());
                bytes.extend(destination.octets());
                bytes.extend(chain);
                bytes.extend(carried);
                bytes
            }
            _ => unreachable!("the constructors refuse mixed families"),
        }
    }

    fn length_field(&self, length: usize) -> [u8; 2] {
        (if self.jumbo { 0 } else { length as u16 }).to_be_bytes()
    }

    fn fragment_field(&self, fragment: Option<Fragment>) -> u16 {
        match fragment {
            Some(Fragment { offset, more }) => (offset / 8) | (u16::from(more) << 13),
            None => u16::from(self.dont_fragment) << 14,
        }
    }

    /// The extension headers, linked to each other and to the transport header, and the number of the first.
    fn ext_header_chain(&self, fragment: Option<Fragment>, carried: usize) -> (u8, Vec<u8>) {
        let mut headers = self.ext_headers.clone();
        if self.jumbo {
            // The length of all that follows the IPv6 header (RFC 2675 section 2).
            let length = 8 + headers.iter().map(|(_, header)| header.len()).sum::<usize>() + carried;
            let mut header = vec![0, 0, 0xc2, 4];
            header.extend((length as u32).to_be_bytes());
            headers.insert(0, (HOP_BY_HOP, header));
        }
        if let Some(Fragment { offset, more }) = fragment {
            let mut header = vec![0, 0];
            header.extend((offset | u16::from(more)).to_be_bytes());
            header.extend(u32::from(self.id).to_be_bytes());
            headers.push((44, header));
        }
        let mut next = self.protocol();
        for (number, header) in headers.iter_mut().rev() {
            header[0] = next;
            next = *number;
        }
        (next, headers.into_iter().flat_map(|(_, header)| header).collect())
    }

    fn protocol(&self) -> u8 {
        match &self.transport {
            Transport::Tcp(_) => 6,
            Transport::Udp { .. } => 17,
            Transport::Icmp { .. } if self.source.is_ipv4() => 1,
            Transport::Icmp { .. } => 58,
            Transport::Raw { protocol } => *protocol,
        }
    }

    /// The transport header and the payload; of a later fragment only the payload.
    fn transport_bytes(&self) -> Vec<u8> {
        if self.fragment.is_some_and(|fragment| fragment.offset > 0) {
            return self.payload.clone();
        }
        let (mut bytes, checksum_at) = match &self.transport {
            Transport::Tcp(tcp) => (tcp.header(), Some(16)),
            Transport::Udp { sport, dport, checksum } => {
                let mut header = Vec::new();
                header.extend(sport.to_be_bytes());
                header.extend(dport.to_be_bytes());
                header.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                header.extend([0, 0]);
                (header, matches!(checksum, UdpChecksum::Computed).then_some(6))
            }
            Transport::Icmp { kind, code, rest } => {
                let mut header = vec![*kind, *code, 0, 0];
                header.extend(rest);
                (header, Some(2))
            }
            Transport::Raw { .. } => (Vec::new(), None),
        };
        bytes.extend(&self.payload);
        if let Some(at) = checksum_at {
            let sum = self.transport_checksum(&bytes);
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    fn transport_checksum(&self, bytes: &[u8]) -> u16 {
        let mut summed = match (self.source, self.destination) {
            // Unlike ICMPv6, ICMP is not summed with the addresses.
            (IpAddr::V4(_), _) if matches!(self.transport, Transport::Icmp { .. }) => Vec::new(),
            (IpAddr::V4(source), IpAddr::V4(destination)) => [source.octets(), destination.octets()].concat(),
            (IpAddr::V6(source), IpAddr::V6(destination)) => [source.octets(), destination.octets()].concat(),
            _ => unreachable!("the constructors refuse mixed families"),
        };
        if !summed.is_empty() {
            summed.extend((bytes.len() as u32).to_be_bytes());
            summed.extend([0, 0, 0, self.protocol()]);
        }
        summed.extend(bytes);
        match (checksum(&summed), &self.transport) {
            // RFC 768: zero means "no checksum", so a sum that comes out as zero is sent as its other form.
            (0, Transport::Udp { .. }) => 0xffff,
            (sum, _) => sum,
        }
    }
}

impl Tcp {
    fn header(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.sport.to_be_bytes());
        bytes.extend(self.dport.to_be_bytes());
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        bytes.extend([((5 + self.options.len() / 4) as u8) << 4, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.options);
        bytes
    }
}

/// The group on which a neighbour is asked for (RFC 4291 section 2.7.1).
pub(super) fn solicited_node(target: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = target.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// The Internet checksum (RFC 1071) of bytes that hold zero where it will stand.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
