//! Cutting a range of ports into the blocks of the port map.

use crate::spec::Ports;

/// Ports that share the first `prefix_len` of their 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// First port: the bits after the prefix are zero.
    pub first: u16,
    /// Length of the prefix in bits, 0 to 16.
    pub prefix_len: u8,
}

impl Block {
    /// How many ports it holds.
    #[must_use]
    pub fn size(self) -> u32 {
        1 << (16 - u32::from(self.prefix_len))
    }
}

/// The fewest blocks that hold exactly these ports, in ascending order: at most `2 * log2(n)` for n of them.
#[must_use]
pub fn blocks(ports: Ports) -> Vec<Block> {
    let end = u32::from(ports.last()) + 1;
    let mut first = u32::from(ports.first());
    let mut blocks = Vec::new();
    while first < end {
        // The largest block that begins here: as aligned as its first port, and not longer than what is left.
        let aligned = first.trailing_zeros().min(16);
        let bits = aligned.min((end - first).ilog2());
        blocks.push(Block { first: first as u16, prefix_len: (16 - bits) as u8 });
        first += 1 << bits;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ports(first: u16, last: u16) -> Ports {
        (first, last).try_into().unwrap()
    }

    #[test]
    fn one_port_is_one_block() {
        assert_eq!(blocks(ports(8088, 8088)), [Block { first: 8088, prefix_len: 16 }]);
        assert_eq!(blocks(ports(65535, 65535)), [Block { first: 65535, prefix_len: 16 }]);
    }

    #[test]
    fn an_aligned_range_is_one_block() {
        assert_eq!(blocks(ports(8192, 8192 + 1023)), [Block { first: 8192, prefix_len: 6 }]);
    }

    proptest! {
        #[test]
        fn blocks_hold_exactly_the_range(a in 1_u16.., b in 1_u16..) {
            let range = ports(a.min(b), a.max(b));
            let blocks = blocks(range);
            let mut next = u32::from(range.first());
            for block in &blocks {
                prop_assert_eq!(u32::from(block.first), next);
                prop_assert_eq!(u32::from(block.first) % block.size(), 0);
                next += block.size();
            }
            prop_assert_eq!(next, u32::from(range.last()) + 1);
            let most = (2.0 * f64::from(range.count()).log2()).max(1.0);
            prop_assert!(blocks.len() as f64 <= most.ceil(), "{} blocks for {}", blocks.len(), range);
        }
    }
}
