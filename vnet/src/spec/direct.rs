//! A direct link: two endpoints joined by one veth pair, without a bridge and without the host.

use std::fmt;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vnet_common::Mac;

use super::{Error, InterfaceName, Name};

/// Two endpoints joined by one pair of interfaces; two endpoints have at most one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectLink {
    /// Its ends, by the names of their endpoints.
    pub ends: [DirectEnd; 2],
    /// MTU of both ends, in bytes.
    pub mtu: u32,
}

impl DirectLink {
    /// The endpoints that it joins.
    #[must_use]
    pub fn endpoints(&self) -> [&Name; 2] {
        self.ends.each_ref().map(|end| &end.endpoint)
    }
}

impl fmt::Display for DirectLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = self.endpoints();
        write!(f, "{a} to {b}")
    }
}

/// One end of a direct link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectEnd {
    /// The endpoint.
    pub endpoint: Name,
    /// Where its namespace can be opened.
    pub namespace: PathBuf,
    /// Its addresses on the link, at most one of each family.
    pub addresses: Vec<IpNet>,
    /// Its hardware address.
    #[serde(with = "super::mac_text")]
    pub mac: Mac,
    /// Name of its interface.
    pub ifname: InterfaceName,
}

/// Deals addresses out to both ends of a direct link: of each family the first to the first, the second to the second.
///
/// # Errors
/// When there are none, one or more than two of a family, or when two do not reach each other.
pub fn both_ends(given: &[IpNet]) -> Result<[Vec<IpNet>; 2], Error> {
    let mut ends = [Vec::new(), Vec::new()];
    for v4 in [true, false] {
        let of_family: Vec<IpNet> = given.iter().copied().filter(|net| net.addr().is_ipv4() == v4).collect();
        match of_family[..] {
            [] => {}
            [first, second] => {
                check_ends(first, second)?;
                ends[0].push(first);
                ends[1].push(second);
            }
            [net, ..] => {
                return Err(Error::DirectEnds { net, reason: "name two of its family, one for each end" });
            }
        }
    }
    if given.is_empty() { Err(Error::NoDirectEnds) } else { Ok(ends) }
}

fn check_ends(first: IpNet, second: IpNet) -> Result<(), Error> {
    for net in [first, second] {
        let bad = |reason| Err(Error::DirectEnds { net, reason });
        let addr = net.addr();
        if addr.is_loopback() || addr.is_multicast() || addr.is_unspecified() {
            return bad("no interface can have it");
        }
        let ends_prefix = addr == net.network() || addr == net.broadcast();
        if addr.is_ipv4() && net.prefix_len() < 31 && ends_prefix {
            return bad("it is the first or the last address of its prefix");
        }
    }
    let bad = |reason| Err(Error::DirectEnds { net: second, reason });
    if first.trunc() != second.trunc() {
        return bad("both ends are to be in one prefix, written like 192.168.1.1/24 and 192.168.1.2/24");
    }
    if first.addr() == second.addr() {
        return bad("the other end has it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_in_one_prefix_for_each_family() {
        let both = |texts: &[&str]| {
            let nets: Vec<IpNet> = texts.iter().map(|text| text.parse().unwrap()).collect();
            both_ends(&nets).map(|ends| ends.map(|end| end.len()))
        };
        assert_eq!(both(&["192.168.1.1/24", "192.168.1.2/24"]), Ok([1, 1]));
        assert_eq!(both(&["fd01::1/64", "10.0.0.0/31", "10.0.0.1/31", "fd01::2/64"]), Ok([2, 2]));
        for bad in [
            &[][..],
            &["192.168.1.1/24"],
            &["192.168.1.1/24", "192.168.2.2/24"],
            &["192.168.1.1/24", "192.168.1.2/25"],
            &["192.168.1.1/24", "192.168.1.1/24"],
            &["192.168.1.0/24", "192.168.1.1/24"],
            &["192.168.1.1/24", "192.168.1.2/24", "192.168.1.3/24"],
            &["192.168.1.1/24", "fd01::2/64"],
            &["127.0.0.1/8", "127.0.0.2/8"],
        ] {
            assert!(both(bad).is_err(), "{bad:?}");
        }
    }
}
