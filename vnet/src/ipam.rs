//! Which address of a subnet is next: pure, over the addresses that are taken.
//!
//! The lowest free address wins, so a freed one is used again and small networks stay small. Never given out:
//! the network's own address (in IPv6 the routers' anycast), the IPv4 broadcast address, the gateway.

use std::net::IpAddr;

use crate::spec::{Cidr, Name, Segment, Subnet};

/// Why an address cannot be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Every address is taken.
    #[error("{subnet} is full: all of its addresses are taken")]
    Full {
        /// The subnet.
        subnet: Subnet,
    },
    /// Every address of the range is taken.
    #[error(
        "{range}, the part of {subnet} to give out addresses from, is full: ask for another address with --ip"
    )]
    RangeFull {
        /// The range.
        range: Cidr,
        /// The subnet.
        subnet: Subnet,
    },
    /// The address is not in the subnet.
    #[error("{addr} is not in {subnet}")]
    Outside {
        /// The address.
        addr: IpAddr,
        /// The subnet.
        subnet: Subnet,
    },
    /// The address is the network's own or its broadcast address.
    #[error("no interface can have {addr}: it is the first or the last address of {subnet}")]
    NotAHost {
        /// The address.
        addr: IpAddr,
        /// The subnet.
        subnet: Subnet,
    },
    /// The address is the gateway's.
    #[error("{addr} is the gateway of {subnet}")]
    Gateway {
        /// The address.
        addr: IpAddr,
        /// The subnet.
        subnet: Subnet,
    },
    /// The address is another endpoint's.
    #[error("{addr} belongs to endpoint {owner}")]
    Taken {
        /// The address.
        addr: IpAddr,
        /// Whose it is.
        owner: Name,
    },
}

/// The lowest address of a segment, or of a range of it, that is neither the gateway nor taken. `taken` is in ascending
/// order; what is outside of the segment does not matter.
///
/// # Errors
/// When there is none.
pub fn lowest_free(
    segment: &Segment,
    range: Option<Cidr>,
    taken: impl IntoIterator<Item = IpAddr>,
) -> Result<IpAddr, Error> {
    let Segment { subnet, gateway } = *segment;
    let (first, last) = match range {
        Some(range) => {
            (range.net().network().max(subnet.first_host()), range.net().broadcast().min(subnet.last_host()))
        }
        None => (subnet.first_host(), subnet.last_host()),
    };
    let mut next = Some(first);
    let mut taken = taken.into_iter().skip_while(|&addr| addr < first).peekable();
    while let Some(candidate) = next.filter(|&addr| addr <= last) {
        let is_taken = taken.next_if(|&addr| addr <= candidate).is_some_and(|addr| addr == candidate);
        if candidate != gateway && !is_taken {
            return Ok(candidate);
        }
        next = successor(candidate);
    }
    Err(match range {
        Some(range) => Error::RangeFull { range, subnet },
        None => Error::Full { subnet },
    })
}

/// Checks that an endpoint may have an address; `owner` says whose it is already.
///
/// # Errors
/// When it may not.
pub fn check(segment: &Segment, addr: IpAddr, owner: Option<Name>) -> Result<(), Error> {
    let Segment { subnet, gateway } = *segment;
    if !subnet.net().contains(&addr) {
        return Err(Error::Outside { addr, subnet });
    }
    if !subnet.is_host(addr) {
        return Err(Error::NotAHost { addr, subnet });
    }
    if addr == gateway {
        return Err(Error::Gateway { addr, subnet });
    }
    owner.map_or(Ok(()), |owner| Err(Error::Taken { addr, owner }))
}

fn successor(addr: IpAddr) -> Option<IpAddr> {
    match addr {
        IpAddr::V4(v4) => u32::from(v4).checked_add(1).map(|next| IpAddr::V4(next.into())),
        IpAddr::V6(v6) => u128::from(v6).checked_add(1).map(|next| IpAddr::V6(next.into())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::spec::Segments;

    fn segment(subnet: &str) -> Segment {
        let segments = Segments::new(&[subnet.parse().unwrap()], &[]).unwrap();
        *segments.iter().next().unwrap()
    }

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_endpoint_comes_after_the_gateway() {
        assert_eq!(lowest_free(&segment("192.168.0.0/24"), None, []).unwrap(), addr("192.168.0.2"));
        assert_eq!(lowest_free(&segment("fd00:1::/64"), None, []).unwrap(), addr("fd00:1::2"));
    }

    #[test]
    fn a_freed_address_is_used_again() {
        let taken = ["192.168.0.2", "192.168.0.4", "192.168.0.5"].map(addr);
        assert_eq!(lowest_free(&segment("192.168.0.0/24"), None, taken).unwrap(), addr("192.168.0.3"));
    }

    #[test]
    fn a_full_subnet_says_so() {
        let small = segment("10.0.0.0/30");
        assert_eq!(lowest_free(&small, None, []).unwrap(), addr("10.0.0.2"));
        assert_eq!(
            lowest_free(&small, None, [addr("10.0.0.2")]).unwrap_err(),
            Error::Full { subnet: small.subnet }
        );
    }

    #[test]
    fn a_range_bounds_what_is_given_out() {
        let segment = segment("192.168.0.0/24");
        let free = |range: &str, taken: &[&str]| {
            lowest_free(&segment, Some(range.parse().unwrap()), taken.iter().map(|text| addr(text)))
        };
        for (range, taken, expected) in [
            ("192.168.0.128/25", &[][..], "192.168.0.128"),
            ("192.168.0.128/25", &["192.168.0.2", "192.168.0.128"], "192.168.0.129"),
            ("192.168.0.0/30", &[], "192.168.0.2"),
            ("192.168.0.0/24", &[], "192.168.0.2"),
            ("192.168.0.252/30", &["192.168.0.252", "192.168.0.253"], "192.168.0.254"),
        ] {
            assert_eq!(free(range, taken).unwrap(), addr(expected), "{range} {taken:?}");
        }
        let full =
            free("192.168.0.252/30", &["192.168.0.252", "192.168.0.253", "192.168.0.254"]).unwrap_err();
        assert!(full.to_string().contains("192.168.0.252/30") && full.to_string().contains("--ip"), "{full}");
    }

    #[test]
    fn static_addresses_are_checked() {
        let segment = segment("192.168.0.0/24");
        assert!(check(&segment, addr("192.168.0.9"), None).is_ok());
        for (bad, owner, message) in [
            ("192.168.1.9", None, "192.168.1.9 is not in 192.168.0.0/24"),
            ("192.168.0.1", None, "192.168.0.1 is the gateway of 192.168.0.0/24"),
            (
                "192.168.0.255",
                None,
                "no interface can have 192.168.0.255: it is the first or the last address of 192.168.0.0/24",
            ),
            ("192.168.0.9", Some("web"), "192.168.0.9 belongs to endpoint web"),
        ] {
            let owner = owner.map(|name| name.parse().unwrap());
            assert_eq!(check(&segment, addr(bad), owner).unwrap_err().to_string(), message);
        }
    }

    proptest! {
        /// Taking and freeing in any order: never two leases of an address, never a reserved one, always the
        /// lowest, and full only when all are taken.
        #[test]
        fn leases_never_collide(frees in prop::collection::vec(prop::option::of(0_usize..14), 1..60)) {
            let segment = segment("10.1.2.0/28");
            let mut leased: BTreeSet<IpAddr> = BTreeSet::new();
            for free in frees {
                match free {
                    Some(nth) => {
                        if let Some(&addr) = leased.iter().nth(nth) {
                            leased.remove(&addr);
                        }
                    }
                    None => match lowest_free(&segment, None, leased.iter().copied()) {
                        Ok(addr) => {
                            prop_assert!(check(&segment, addr, None).is_ok());
                            prop_assert!(leased.insert(addr));
                            let below = (2..u32::from_be_bytes([0, 0, 0, addr.to_string().rsplit('.').next().unwrap().parse().unwrap()])).all(|host| leased.contains(&IpAddr::from([10, 1, 2, host as u8])));
                            prop_assert!(below);
                        }
                        Err(_) => prop_assert_eq!(leased.len(), 13),
                    },
                }
            }
        }
    }
}
