//! What arrives, without what two hosts may rightly choose for themselves.

use std::fmt;
use std::net::SocketAddr;

use vnet_tests::frame::dissect::{Ip, Network, dissect};
use vnet_tests::frame::{Frame, describe};

use super::talk::{Ends, Packet, Place};

const ICMP: [u8; 2] = [1, 58];

/// A packet that arrives somewhere.
#[derive(Clone)]
pub(crate) struct Arrival {
    pub(crate) place: Place,
    pub(crate) ends: Ends,
    pub(crate) rest: Rest,
    /// What is wrong with its sums. Of what a host sends itself, they may be yet to be made.
    pub(crate) wrong: Option<String>,
    line: String,
}

/// All of a packet but its ends, the sums over them, and what every sender draws: identification and flow label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    protocol: u8,
    pub(crate) ttl: u8,
    options: Vec<u8>,
    carried: Vec<u8>,
    /// It reports what became of another.
    pub(crate) is_error: bool,
}

impl Arrival {
    /// Reads a frame; `None` for neighbour discovery and what is not IP.
    pub(crate) fn read(place: Place, frame: &[u8]) -> Option<Self> {
        let Network::Ip(ip) = dissect(frame).ok()?.network else { return None };
        let kind = ip.carried.first().copied().unwrap_or(0);
        if ip.protocol == ICMP[1] && (130..=143).contains(&kind) {
            return None;
        }
        let is_echo = matches!((ip.protocol, kind), (1, 0 | 8) | (58, 128 | 129));
        let is_error = ICMP.contains(&ip.protocol) && !is_echo;
        let rest = Rest {
            protocol: ip.protocol,
            ttl: ip.ttl,
            options: ip.v4_header.get(20..).unwrap_or_default().to_vec(),
            carried: without_ends(&ip, is_echo),
            is_error,
        };
        let wrong = Frame::verify(frame).err();
        Some(Self { place, ends: ends_of(&ip, is_echo), rest, wrong, line: describe(frame) })
    }

    /// Whether the host has sent it as an answer to a packet, rather than translated that.
    pub(crate) fn answers(&self, packet: &Packet, twin: usize) -> bool {
        self.place == packet.place && (self.rest.is_error || self.ends == packet.ends[twin].reversed())
    }

    /// The first byte of an ICMP message, its type.
    pub(crate) fn kind(&self) -> u8 {
        self.rest.carried[0]
    }
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, rest, wrong, line, .. } = self;
        write!(f, "at {place:?}: {line}, ttl {}", rest.ttl)?;
        wrong.as_ref().map_or(Ok(()), |wrong| write!(f, " ({wrong})"))
    }
}

/// The identifier of an echo stands for both ports, as everywhere.
fn ends_of(ip: &Ip<'_>, is_echo: bool) -> Ends {
    let word = |at: usize| u16::from_be_bytes([ip.carried[at], ip.carried[at + 1]]);
    let (sport, dport) = match ip.sockets() {
        Some((from, to)) => (from.port(), to.port()),
        None if is_echo => (word(4), word(4)),
        None => (0, 0),
    };
    Ends { from: SocketAddr::new(ip.source, sport), to: SocketAddr::new(ip.destination, dport) }
}

fn without_ends(ip: &Ip<'_>, is_echo: bool) -> Vec<u8> {
    let mut bytes = ip.carried.to_vec();
    let mut blank = |at: std::ops::Range<usize>| {
        if let Some(part) = bytes.get_mut(at) {
            part.fill(0);
        }
    };
    match ip.protocol {
        6 => [0..4, 16..18].into_iter().for_each(&mut blank),
        17 => {
            blank(0..4);
            // That there is none is something to compare.
            if ip.carried.get(6..8) != Some(&[0, 0]) {
                blank(6..8);
            }
        }
        _ if is_echo => blank(2..6),
        // An error quotes a packet with all that was blanked above.
        _ => bytes.truncate(2),
    }
    bytes
}
