//! The Internet checksum, changed by a difference: RFC 1624, nothing else.
//!
//! Sums are taken over native-endian words: one's complement addition does not care about the order of bytes
//! as long as it is the same throughout (RFC 1071 section 2 (B)), and so nothing is ever swapped.

use vnet_common::Addr;

/// The difference between what a checksum covered and what it is to cover.
#[derive(Clone, Copy, Debug)]
pub struct Delta {
    /// One's complement sum of 32-bit words, carries not yet folded back in.
    sum: u64,
}

impl Delta {
    /// No difference.
    pub const NONE: Self = Self { sum: 0 };

    /// Whether nothing was replaced.
    #[must_use]
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.sum == 0
    }

    /// Replaces two bytes at an even offset.
    #[must_use]
    #[inline(always)]
    pub const fn replace2(self, from: [u8; 2], to: [u8; 2]) -> Self {
        self.replace(u16::from_ne_bytes(from) as u32, u16::from_ne_bytes(to) as u32)
    }

    /// Replaces four bytes at an even offset.
    #[must_use]
    #[inline(always)]
    pub const fn replace4(self, from: [u8; 4], to: [u8; 4]) -> Self {
        self.replace(u32::from_ne_bytes(from), u32::from_ne_bytes(to))
    }

    /// Replaces an address by one of the same family.
    #[must_use]
    #[inline(always)]
    pub const fn replace_addr(self, from: &Addr, to: &Addr) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (from.words(), to.words());
        // The IPv4-mapped prefix is the same on both sides and contributes an all-ones word: nothing.
        self.replace(a, e).replace(b, f).replace(c, g).replace(d, h)
    }

    /// Both differences.
    #[must_use]
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self { sum: self.sum.wrapping_add(other.sum) }
    }

    #[inline(always)]
    const fn replace(self, from: u32, to: u32) -> Self {
        if from == to {
            return self;
        }
        // At most a few dozen 32-bit words are ever added: the upper half cannot overflow.
        Self { sum: self.sum.wrapping_add(!from as u64).wrapping_add(to as u64) }
    }

    /// The difference as the kernel's checksum helpers take it.
    #[must_use]
    #[inline(always)]
    pub const fn folded(self) -> u32 {
        let once = (self.sum & 0xffff_ffff) + (self.sum >> 32);
        ((once & 0xffff_ffff) + (once >> 32)) as u32
    }

    /// A checksum with the difference applied: RFC 1624 equation 3.
    #[must_use]
    #[inline(always)]
    pub const fn apply(self, sum: [u8; 2]) -> [u8; 2] {
        if self.is_none() {
            return sum;
        }
        let total = self.folded() as u64 + !u16::from_ne_bytes(sum) as u64;
        let total = (total & 0xffff) + ((total >> 16) & 0xffff) + (total >> 32);
        let total = (total & 0xffff) + (total >> 16);
        let total = (total & 0xffff) + (total >> 16);
        (!(total as u16)).to_ne_bytes()
    }

    /// A UDP checksum with the difference applied: zero means none and stays, a sum that comes out as zero is
    /// sent as all ones (RFC 768).
    #[must_use]
    #[inline(always)]
    pub const fn apply_unless_zero(self, sum: [u8; 2]) -> [u8; 2] {
        if u16::from_ne_bytes(sum) == 0 {
            return sum;
        }
        match u16::from_ne_bytes(self.apply(sum)) {
            0 => [0xff; 2],
            sum => sum.to_ne_bytes(),
        }
    }
}

/// One's complement sum of bytes: RFC 1071.
#[derive(Clone, Copy, Debug)]
pub struct Sum {
    /// Of 32-bit words, carries not yet folded back in.
    total: u64,
}

impl Sum {
    /// Of nothing.
    pub const NONE: Self = Self { total: 0 };

    /// Adds four bytes at an even offset.
    #[must_use]
    #[inline(always)]
    pub const fn add4(self, bytes: [u8; 4]) -> Self {
        // Fewer than 2^32 words are ever added.
        Self { total: self.total.wrapping_add(u32::from_ne_bytes(bytes) as u64) }
    }

    /// Adds an IPv6 address.
    #[must_use]
    #[inline(always)]
    pub const fn add_addr(self, addr: &Addr) -> Self {
        let [a, b, c, d] = addr.words();
        Self { total: self.total.wrapping_add(a as u64 + b as u64 + c as u64 + d as u64) }
    }

    /// The sum of both.
    #[must_use]
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self { total: self.total.wrapping_add(other.total) }
    }

    /// A sum that was folded already, over bytes from an even offset on.
    #[must_use]
    #[inline(always)]
    pub const fn of(folded: u32) -> Self {
        Self { total: folded as u64 }
    }

    /// The checksum of the bytes.
    #[must_use]
    #[inline(always)]
    pub const fn checksum(self) -> [u8; 2] {
        (!self.folded()).to_ne_bytes()
    }

    /// Whether the bytes, their checksum among them, are intact.
    #[must_use]
    #[inline(always)]
    pub const fn is_whole(self) -> bool {
        self.folded() == u16::MAX
    }

    #[inline(always)]
    const fn folded(self) -> u16 {
        let total = (self.total & 0xffff_ffff) + (self.total >> 32);
        let total = (total & 0xffff) + ((total >> 16) & 0xffff) + (total >> 32);
        let total = (total & 0xffff) + (total >> 16);
        let total = (total & 0xffff) + (total >> 16);
        total as u16
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071, the slow way.
    fn sum(bytes: &[u8]) -> [u8; 2] {
        let mut total: u64 = bytes.chunks(2).map(|c| u64::from(u16::from_ne_bytes([c[0], c[1]]))).sum();
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        (!(total as u16)).to_ne_bytes()
    }

    /// Two sums mean the same if they differ at most in the representation of zero.
    fn same(a: [u8; 2], b: [u8; 2]) -> bool {
        let zero = |sum| u16::from_ne_bytes(sum).is_multiple_of(0xffff);
        a == b || (zero(a) && zero(b))
    }

    proptest! {
        #[test]
        fn a_difference_gives_what_a_new_sum_would(
            rest in prop::collection::vec(any::<[u8; 2]>(), 1..40),
            from in any::<([u8; 16], [u8; 4], [u8; 2])>(),
            to in any::<([u8; 16], [u8; 4], [u8; 2])>(),
        ) {
            let body = |part: &([u8; 16], [u8; 4], [u8; 2])| {
                let mut all = rest.concat();
                all.extend(part.0);
                all.extend(part.1);
                all.extend(part.2);
                all
            };
            let delta = Delta::NONE
                .replace_addr(&Addr::v6(from.0), &Addr::v6(to.0))
                .replace4(from.1, to.1)
                .replace2(from.2, to.2);
            prop_assert!(same(delta.apply(sum(&body(&from))), sum(&body(&to))));
        }

        #[test]
        fn there_and_back_is_the_identity(old in any::<[u8; 2]>(), from in any::<[u8; 4]>(), to in any::<[u8; 4]>()) {
            let there = Delta::NONE.replace4(from, to).apply(old);
            prop_assert!(same(Delta::NONE.replace4(to, from).apply(there), old));
        }
    }

    #[test]
    fn an_absent_udp_checksum_stays_absent() {
        let delta = Delta::NONE.replace4([1, 2, 3, 4], [5, 6, 7, 8]);
        assert_eq!(delta.apply_unless_zero([0, 0]), [0, 0]);
    }

    #[test]
    fn a_udp_checksum_that_becomes_zero_is_sent_as_all_ones() {
        // Covering 0xffff - x beside x sums to 0xffff, so the complement is zero.
        let before = sum(&[0x12, 0x34, 0x00, 0x01]);
        let delta = Delta::NONE.replace2([0x00, 0x01], [0xed, 0xcb]);
        assert_eq!(delta.apply(before), [0, 0]);
        assert_eq!(delta.apply_unless_zero(before), [0xff, 0xff]);
    }
}
