//! A packet in words, and the frame that these stand for.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use etherparse::{IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, PacketBuilder, PacketBuilderStep};
use vnet_common::{Mac, Proto};
use vnet_datapath::wire::tcp;

/// Most bytes that the length of an IPv4 packet can say.
const LONGEST: u16 = u16::MAX;

/// Names of TCP's flags.
pub const FLAGS: [(&str, u8); 5] =
    [("syn", tcp::SYN), ("ack", tcp::ACK), ("fin", tcp::FIN), ("rst", tcp::RST), ("psh", PSH)];
/// RFC 9293 section 3.1.
const PSH: u8 = 0x08;

/// A packet that is described: of one family, and for ICMP with the identifier of the query for ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its transport protocol.
    pub proto: Proto,
    /// From where.
    pub source: SocketAddr,
    /// To where.
    pub destination: SocketAddr,
    /// Flags of TCP.
    pub flags: u8,
    /// Whether it is the reply of an ICMP query.
    pub reply: bool,
    /// Time to live, or hop limit.
    pub hop_limit: u8,
    /// Length in bytes, network header included; as short as it can be if nothing is said.
    pub length: Option<u16>,
    /// Whether routers may cut it into fragments, of IPv4; of IPv6 they never do.
    pub fragmentable: bool,
}

/// Why there is no such packet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPacket {
    /// An address of either family.
    #[error("{0} and {1} are of different families: no packet has both")]
    Families(IpAddr, IpAddr),
    /// ICMP of the other family.
    #[error("{0} is not for {1}: ICMP is `icmp` for IPv4 and `icmpv6` for IPv6")]
    OtherIcmp(Proto, IpAddr),
    /// It is shorter than its headers.
    #[error(
        "a packet of {length} bytes has no room for its headers, which take {headers}: --length {headers} or more"
    )]
    TooShort {
        /// What was asked for.
        length: u16,
        /// What it takes at least.
        headers: u16,
    },
}

impl Described {
    /// The frame, with these link addresses.
    ///
    /// # Errors
    /// When there can be none.
    pub fn frame(&self, from: Mac, to: Mac) -> Result<Vec<u8>, NoPacket> {
        let headers = self.headers()?;
        let length = self.length.unwrap_or(headers);
        let Some(payload) = length.checked_sub(headers) else {
            return Err(NoPacket::TooShort { length, headers });
        };
        let payload = vec![0; usize::from(payload)];
        let link = PacketBuilder::ethernet2(from.bytes, to.bytes);
        let network = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = Ipv4Header {
                    time_to_live: self.hop_limit,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Ipv4Header::default()
                };
                header.dont_fragment = !self.fragmentable;
                link.ip(IpHeaders::Ipv4(header, Ipv4Extensions::default()))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                link.ipv6(source.octets(), destination.octets(), self.hop_limit)
            }
            (source, destination) => return Err(NoPacket::Families(source, destination)),
        };
        let mut frame = Vec::new();
        // Into memory, and of a length that fits.
        let written = self.write(network, &mut frame, &payload);
        written.map(|()| frame).map_err(|_| NoPacket::TooShort { length: LONGEST, headers })
    }

    /// Bytes that its headers take, from the network header on.
    fn headers(&self) -> Result<u16, NoPacket> {
        let (source, destination) = (self.source.ip(), self.destination.ip());
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(NoPacket::Families(source, destination));
        }
        let v4 = source.is_ipv4();
        if (self.proto == Proto::ICMP && !v4) || (self.proto == Proto::ICMPV6 && v4) {
            return Err(NoPacket::OtherIcmp(self.proto, source));
        }
        let transport = match self.proto {
            Proto::TCP => 20,
            Proto::SCTP => 12,
            _ => 8,
        };
        Ok(if v4 { 20 } else { 40 } + transport)
    }

    fn write(
        &self,
        network: PacketBuilderStep<IpHeaders>,
        frame: &mut Vec<u8>,
        payload: &[u8],
    ) -> Result<(), etherparse::err::packet::BuildWriteError> {
        let (from, to) = (self.source.port(), self.destination.port());
        let has = |flag| self.flags & flag != 0;
        match self.proto {
            Proto::TCP => {
                let mut packet = network.tcp(from, to, 1, u16::MAX);
                for (flag, set) in [
                    (tcp::SYN, PacketBuilderStep::syn as fn(_) -> _),
                    (tcp::FIN, PacketBuilderStep::fin),
                    (tcp::RST, PacketBuilderStep::rst),
                    (PSH, PacketBuilderStep::psh),
                ] {
                    packet = if has(flag) { set(packet) } else { packet };
                }
                let packet = if has(tcp::ACK) { packet.ack(1) } else { packet };
                packet.write(frame, payload)
            }
            Proto::UDP => network.udp(from, to).write(frame, payload),
            Proto::ICMP if self.reply => network.icmpv4_echo_reply(from, 1).write(frame, payload),
            Proto::ICMP => network.icmpv4_echo_request(from, 1).write(frame, payload),
            Proto::ICMPV6 if self.reply => network.icmpv6_echo_reply(from, 1).write(frame, payload),
            Proto::ICMPV6 => network.icmpv6_echo_request(from, 1).write(frame, payload),
            proto => {
                // SCTP's common header (RFC 9260 section 3.1), of which nobody here looks at more than the ports.
                let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
                segment.resize(12, 0);
                segment.extend_from_slice(payload);
                network.write(frame, IpNumber(proto.number), &segment)
            }
        }
    }
}

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { proto, source, destination, flags, reply, .. } = self;
        match *proto {
            Proto::ICMP | Proto::ICMPV6 => {
                let kind = if *reply { "reply" } else { "request" };
                let (from, to, id) = (source.ip(), destination.ip(), source.port());
                write!(f, "{proto} echo {kind} {from} > {to}, identifier {id}")
            }
            Proto::TCP => write!(f, "{proto} {source} > {destination} ({})", names_of(*flags)),
            _ => write!(f, "{proto} {source} > {destination}"),
        }
    }
}

/// TCP's flags in words.
#[must_use]
pub fn names_of(flags: u8) -> String {
    let names: Vec<&str> = FLAGS.iter().filter(|(_, bit)| flags & bit != 0).map(|(name, _)| *name).collect();
    if names.is_empty() { "no flags".to_owned() } else { names.join(",") }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use vnet_common::Tuple;
    use vnet_datapath::buffer::Buffer;
    use vnet_datapath::{Headers, Parsed, parse};

    use super::*;

    const FROM: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
    const TO: Mac = Mac::new([2, 0, 0, 0, 0, 2]);

    fn described(proto: Proto, source: &str, destination: &str) -> Described {
        let [source, destination] = [source, destination].map(|text| text.parse().expect("a socket address"));
        Described {
            proto,
            source,
            destination,
            flags: tcp::SYN,
            reply: false,
            hop_limit: 9,
            length: None,
            fragmentable: false,
        }
    }

    fn read(frame: &[u8]) -> (Headers, Tuple) {
        let mut tuple = Tuple::zeroed();
        let packet = Buffer::plain(frame.to_vec());
        match parse(&packet, &mut bytemuck::Zeroable::zeroed(), &mut tuple) {
            Ok(Parsed::Ip(headers)) => (headers, tuple),
            other => panic!("{other:?} is no packet"),
        }
    }

    #[test]
    fn the_data_path_reads_what_is_described() {
        for proto in [Proto::TCP, Proto::UDP, Proto::SCTP, Proto::ICMP, Proto::ICMPV6] {
            let pairs = [("192.0.2.1:7", "198.51.100.2:9", 20), ("[2001:db8::1]:7", "[2001:db8::2]:9", 40)];
            for (source, destination, network) in pairs {
                let it = described(proto, source, destination);
                let of_other = (proto == Proto::ICMP) != (network == 20);
                if [Proto::ICMP, Proto::ICMPV6].contains(&proto) && of_other {
                    assert_eq!(it.frame(FROM, TO), Err(NoPacket::OtherIcmp(proto, it.source.ip())));
                    continue;
                }
                let echo = [Proto::ICMP, Proto::ICMPV6].contains(&proto);
                for length in [None, Some(100), Some(3000)] {
                    let (headers, tuple) = read(&Described { length, ..it.clone() }.frame(FROM, TO).unwrap());
                    assert_eq!((tuple.src.into(), tuple.dst.into()), (it.source.ip(), it.destination.ip()));
                    assert_eq!(tuple.sport.number(), 7);
                    assert_eq!(tuple.dport.number(), if echo { 7 } else { 9 });
                    assert_eq!((tuple.proto, headers.hop_limit), (proto, 9));
                    assert!(headers.is_translatable() && headers.src_mac == FROM && !headers.has_options());
                    assert_eq!(headers.length, u32::from(length.unwrap_or(it.headers().unwrap())));
                }
                let least = it.headers().unwrap();
                let short = Described { length: Some(least - 1), ..it };
                let expected = NoPacket::TooShort { length: least - 1, headers: least };
                assert_eq!(short.frame(FROM, TO), Err(expected));
            }
        }
    }

    #[test]
    fn flags_are_those_that_are_named() {
        for (name, bit) in FLAGS {
            let it = Described { flags: bit, ..described(Proto::TCP, "192.0.2.1:7", "198.51.100.2:9") };
            assert_eq!(read(&it.frame(FROM, TO).unwrap()).0.tcp_flags() & 0x1f, bit, "{name}");
            assert_eq!(names_of(bit), name);
        }
        let all = FLAGS.iter().fold(0, |all, (_, bit)| all | bit);
        let it = Described { flags: all, ..described(Proto::TCP, "192.0.2.1:7", "198.51.100.2:9") };
        assert_eq!(read(&it.frame(FROM, TO).unwrap()).0.tcp_flags() & 0x1f, all);
    }

    #[test]
    fn ipv4_says_whether_it_may_be_cut() {
        const FLAGS_AT: usize = 14 + 6;
        for (fragmentable, flags) in [(false, 0x40), (true, 0)] {
            let it = described(Proto::UDP, "192.0.2.1:7", "198.51.100.2:9");
            let frame = Described { fragmentable, ..it }.frame(FROM, TO).unwrap();
            assert_eq!(frame[FLAGS_AT], flags);
            read(&frame);
        }
    }

    #[test]
    fn no_packet_is_of_two_families() {
        let it = described(Proto::UDP, "192.0.2.1:7", "[2001:db8::2]:9");
        let error = it.frame(FROM, TO).unwrap_err();
        assert_eq!(
            error.to_string(),
            "192.0.2.1 and 2001:db8::2 are of different families: no packet has both"
        );
    }
}
