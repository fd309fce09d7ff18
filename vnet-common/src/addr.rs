//! Addresses: one 16-byte type for both families, and the hardware address.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytemuck::{Pod, Zeroable, must_cast};

/// An IPv4 or IPv6 address in network byte order; IPv4 as `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2),
/// so that one map, one tuple and one code path serve both families.
///
/// Aligned, because eBPF copies and compares what is not byte by byte.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct Addr {
    /// The sixteen bytes as they would stand in an IPv6 header.
    pub bytes: [u8; 16],
}

impl Addr {
    /// Every IPv6 address (`::`), as a wildcard.
    pub const ANY_V6: Self = Self { bytes: [0; 16] };
    /// Every IPv4 address (`0.0.0.0`), as a wildcard.
    pub const ANY_V4: Self = Self::v4([0; 4]);

    /// An IPv4 address from the bytes of its header field.
    #[must_use]
    #[inline(always)]
    pub const fn v4(a: [u8; 4]) -> Self {
        Self::of_words([0, 0, MAPPED, u32::from_ne_bytes(a)])
    }

    /// An IPv6 address from the bytes of its header field.
    #[must_use]
    #[inline(always)]
    pub const fn v6(bytes: [u8; 16]) -> Self {
        Self { bytes }
    }

    /// Whether this is an IPv4 address.
    #[must_use]
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let [a, b, c, _] = self.words();
        a | b | (c ^ MAPPED) == 0
    }

    /// The IPv4 header field; of an IPv6 address its last four bytes.
    #[must_use]
    #[inline(always)]
    pub const fn v4_bytes(&self) -> [u8; 4] {
        let [.., last] = self.words();
        last.to_ne_bytes()
    }

    /// The wildcard of this address's family.
    #[must_use]
    #[inline(always)]
    pub const fn any_of_family(&self) -> Self {
        if self.is_v4() { Self::ANY_V4 } else { Self::ANY_V6 }
    }

    /// The address as it stands in memory, by words: to compare, add and copy, which eBPF does by no more at a time than
    /// it knows to be aligned.
    #[must_use]
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        must_cast(self.bytes)
    }

    /// The address that stands in memory as these words.
    #[must_use]
    #[inline(always)]
    pub const fn of_words(words: [u32; 4]) -> Self {
        Self { bytes: must_cast(words) }
    }

    /// The address as two numbers, most significant half first.
    #[must_use]
    #[inline(always)]
    pub const fn halves(&self) -> (u64, u64) {
        let [a, b, c, d] = self.words();
        (half(a, b), half(c, d))
    }

    /// Whether both addresses share their first `bits` bits, counted over the 128 (an IPv4 `/24` is 120).
    #[must_use]
    #[inline(always)]
    pub const fn same_prefix(&self, other: &Self, bits: u8) -> bool {
        let (high, low) = self.halves();
        let (other_high, other_low) = other.halves();
        let high_mask = leading_ones(bits);
        let low_mask = leading_ones(bits.saturating_sub(64));
        (high ^ other_high) & high_mask == 0 && (low ^ other_low) & low_mask == 0
    }

    /// IPv4 or IPv6 multicast, or the IPv4 limited broadcast.
    #[must_use]
    #[inline(always)]
    pub const fn is_multicast_or_broadcast(&self) -> bool {
        if self.is_v4() {
            let [.., last] = self.words();
            self.bytes[12] & 0xf0 == 0xe0 || last == u32::MAX
        } else {
            self.bytes[0] == 0xff
        }
    }

    /// IPv4 `127.0.0.0/8` or IPv6 `::1`.
    #[must_use]
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            self.bytes[12] == 127
        } else {
            let [a, b, c, d] = self.words();
            a | b | c == 0 && d == 1_u32.to_be()
        }
    }

    /// IPv6 `fe80::/10`.
    #[must_use]
    #[inline(always)]
    pub const fn is_v6_link_local(&self) -> bool {
        self.bytes[0] == 0xfe && self.bytes[1] & 0xc0 == 0x80
    }

    /// `0.0.0.0` or `::`.
    #[must_use]
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        let [a, b, c, d] = self.words();
        a | b | d == 0 && (c == 0 || c == MAPPED)
    }
}

/// The third word of an IPv4 address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// The number that two words are in network byte order.
#[inline(always)]
const fn half(high: u32, low: u32) -> u64 {
    ((u32::from_be(high) as u64) << 32) | u32::from_be(low) as u64
}

/// A mask of `bits` leading ones, all of them from 64 on.
#[inline(always)]
const fn leading_ones(bits: u8) -> u64 {
    match bits {
        0 => 0,
        64.. => u64::MAX,
        _ => u64::MAX << (64 - bits),
    }
}

impl From<IpAddr> for Addr {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(a) => Self::v4(a.octets()),
            IpAddr::V6(a) => Self::v6(a.octets()),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        if addr.is_v4() {
            Self::V4(Ipv4Addr::from(addr.v4_bytes()))
        } else {
            Self::V6(Ipv6Addr::from(addr.bytes))
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C, align(2))]
pub struct Mac {
    /// The six bytes in the order of the Ethernet header.
    pub bytes: [u8; 6],
}

impl Mac {
    /// A hardware address from its bytes.
    #[must_use]
    #[inline(always)]
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self { bytes }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.bytes;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_survive_the_round_trip() {
        for text in ["192.168.0.1", "0.0.0.0", "fd00::1", "::", "::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Addr::from(ip)), ip);
            assert_eq!(Addr::from(ip).is_v4(), ip.is_ipv4());
            assert_eq!(Addr::from(ip).is_unspecified(), ip.is_unspecified());
            assert_eq!(Addr::from(ip).is_loopback(), ip.is_loopback());
        }
    }

    #[test]
    fn prefixes_are_compared_over_128_bits() {
        let a = Addr::v4([192, 168, 0, 2]);
        assert!(a.same_prefix(&Addr::v4([192, 168, 0, 255]), 120));
        assert!(!a.same_prefix(&Addr::v4([192, 168, 1, 2]), 120));
        assert!(a.same_prefix(&Addr::v4([10, 0, 0, 1]), 96));
        assert!(!a.same_prefix(&Addr::v6([0xfd; 16]), 1));
        assert!(a.same_prefix(&Addr::v6([0xfd; 16]), 0));
        assert!(!a.same_prefix(&Addr::v4([192, 168, 0, 3]), 128));
    }

    #[test]
    fn multicast_and_broadcast_are_told_apart_from_unicast() {
        for (text, expected) in [
            ("224.0.0.251", true),
            ("239.255.255.250", true),
            ("255.255.255.255", true),
            ("240.0.0.1", false),
            ("192.168.0.255", false),
            ("ff02::1", true),
            ("fe80::1", false),
        ] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(Addr::from(ip).is_multicast_or_broadcast(), expected, "{text}");
        }
    }
}
