//! Ports and protocol numbers.

use core::fmt;

use bytemuck::{Pod, Zeroable};

/// A transport port in network byte order. The identifier of an ICMP query is carried as one: it tells flows
/// of one pair of addresses apart exactly as a port does (RFC 5508 section 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C, align(2))]
pub struct Port {
    /// The two bytes of the header field.
    pub bytes: [u8; 2],
}

impl Port {
    /// A port from its number.
    #[must_use]
    #[inline(always)]
    pub const fn new(number: u16) -> Self {
        Self { bytes: number.to_be_bytes() }
    }

    /// The port's number.
    #[must_use]
    #[inline(always)]
    pub const fn number(self) -> u16 {
        u16::from_be_bytes(self.bytes)
    }
}

impl PartialOrd for Port {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Port {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.number().cmp(&other.number())
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// An IP protocol number (RFC 5237). `ICMP` stands for the echo of both families in a tuple.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Proto {
    /// The number as it stands in the header.
    pub number: u8,
}

impl Proto {
    /// ICMP (RFC 792).
    pub const ICMP: Self = Self { number: 1 };
    /// TCP (RFC 9293).
    pub const TCP: Self = Self { number: 6 };
    /// UDP (RFC 768).
    pub const UDP: Self = Self { number: 17 };
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: Self = Self { number: 58 };
    /// SCTP (RFC 9260).
    pub const SCTP: Self = Self { number: 132 };

    /// The protocol's name, where vnet has one for it.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::ICMP => "icmp",
            Self::TCP => "tcp",
            Self::UDP => "udp",
            Self::ICMPV6 => "icmpv6",
            Self::SCTP => "sctp",
            _ => return None,
        })
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => self.number.fmt(f),
        }
    }
}

impl fmt::Debug for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
