//! Prefixes: of a network, of a masquerade rule, and of the clients of a published port.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Error;

/// A prefix without host bits, for any family: the sources of a masquerade rule, or destinations that are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "IpNet", into = "IpNet")]
pub struct Cidr(IpNet);

impl Cidr {
    /// The prefix.
    #[must_use]
    pub fn net(self) -> IpNet {
        self.0
    }

    /// One address alone.
    ///
    /// # Errors
    /// As for a prefix.
    pub fn host(addr: IpAddr) -> Result<Self, Error> {
        IpNet::from(addr).try_into()
    }
}

impl TryFrom<IpNet> for Cidr {
    type Error = Error;

    fn try_from(net: IpNet) -> Result<Self, Error> {
        let net = without_host_bits(net)?;
        let bad = |reason| Error::Masquerade { prefix: net, reason };
        if net.addr().is_loopback() {
            return Err(bad("loopback addresses never leave the host"));
        }
        if net.addr().is_multicast() {
            return Err(bad("multicast addresses are not translated"));
        }
        if is_mapped(net.addr()) {
            return Err(bad("write an IPv4 prefix as IPv4"));
        }
        Ok(Self(net))
    }
}

/// A prefix of clients that may use a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "IpNet", into = "IpNet")]
pub struct Clients(IpNet);

impl Clients {
    /// The prefix.
    #[must_use]
    pub fn net(self) -> IpNet {
        self.0
    }

    /// The same clients in order, none of them named twice.
    #[must_use]
    pub fn distinct(given: &[Self]) -> Vec<Self> {
        let wider = |a: &Self, b: &Self| a != b && a.0.contains(&b.0);
        let mut distinct: Vec<Self> = given
            .iter()
            .filter(|clients| !given.iter().any(|other| wider(other, clients)))
            .copied()
            .collect();
        distinct.sort();
        distinct.dedup();
        distinct
    }
}

impl TryFrom<IpNet> for Clients {
    type Error = Error;

    fn try_from(net: IpNet) -> Result<Self, Error> {
        let net = without_host_bits(net)?;
        let bad = |reason| Error::Clients { prefix: net, reason };
        if net.addr().is_loopback() {
            return Err(bad("programs of the host itself may always use it"));
        }
        if net.addr().is_multicast() {
            return Err(bad("multicast addresses are never a source"));
        }
        if is_mapped(net.addr()) {
            return Err(bad("write an IPv4 prefix as IPv4"));
        }
        Ok(Self(net))
    }
}

/// A prefix that a network of endpoints may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "IpNet", into = "IpNet")]
pub struct Subnet(IpNet);

impl Subnet {
    /// The prefix.
    #[must_use]
    pub fn net(self) -> IpNet {
        self.0
    }

    /// The lowest address an interface may have: after the network's own, which in IPv6 is the routers' anycast.
    #[must_use]
    pub fn first_host(self) -> IpAddr {
        match self.0 {
            IpNet::V4(net) => IpAddr::V4((u32::from(net.network()) + 1).into()),
            IpNet::V6(net) => IpAddr::V6((u128::from(net.network()) + 1).into()),
        }
    }

    /// The highest address an interface may have: before the broadcast address, which IPv6 does not have.
    #[must_use]
    pub fn last_host(self) -> IpAddr {
        match self.0 {
            IpNet::V4(net) => IpAddr::V4((u32::from(net.broadcast()) - 1).into()),
            IpNet::V6(net) => IpAddr::V6(net.broadcast()),
        }
    }

    /// Whether an interface may have this address.
    #[must_use]
    pub fn is_host(self, addr: IpAddr) -> bool {
        self.0.contains(&addr) && self.first_host() <= addr && addr <= self.last_host()
    }

    /// Whether it is an IPv4 prefix.
    #[must_use]
    pub fn is_v4(self) -> bool {
        matches!(self.0, IpNet::V4(_))
    }
}

impl TryFrom<IpNet> for Subnet {
    type Error = Error;

    fn try_from(net: IpNet) -> Result<Self, Error> {
        let net = without_host_bits(net)?;
        match unfit(net) {
            Some(reason) => Err(Error::Subnet { prefix: net, reason }),
            None => Ok(Self(net)),
        }
    }
}

/// Why no network of endpoints can have a prefix.
fn unfit(net: IpNet) -> Option<&'static str> {
    let special = |special: &str| {
        let special: IpNet = special.parse().ok()?;
        (special.contains(&net) || net.contains(&special)).then_some(())
    };
    match net {
        IpNet::V4(v4) if !(8..=30).contains(&v4.prefix_len()) => {
            Some("an IPv4 prefix length is 8 to 30 bits")
        }
        IpNet::V6(v6) if !(16..=126).contains(&v6.prefix_len()) => {
            Some("an IPv6 prefix length is 16 to 126 bits")
        }
        _ if special("127.0.0.0/8").or(special("::1/128")).is_some() => Some("it holds loopback addresses"),
        _ if special("169.254.0.0/16").or(special("fe80::/10")).is_some() => {
            Some("it holds link-local addresses")
        }
        _ if special("224.0.0.0/4").or(special("ff00::/8")).is_some() => Some("it holds multicast addresses"),
        _ if special("0.0.0.0/8").or(special("240.0.0.0/4")).is_some() => Some("it holds reserved addresses"),
        _ if special("::ffff:0:0/96").or(special("::/96")).is_some() => {
            Some("it holds IPv4 addresses in IPv6 form")
        }
        _ => None,
    }
}

fn without_host_bits(net: IpNet) -> Result<IpNet, Error> {
    if net.trunc() == net { Ok(net) } else { Err(Error::HostBits { given: net, prefix: net.trunc() }) }
}

/// Whether an address is an IPv4 address in IPv6 form, which vnet keeps for itself.
pub(super) fn is_mapped(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(v6) if Ipv6Addr::to_ipv4_mapped(&v6).is_some())
}

macro_rules! prefix {
    ($($name:ident)+) => {
        $(
            impl FromStr for $name {
                type Err = Error;

                fn from_str(text: &str) -> Result<Self, Error> {
                    let net: IpNet = text.parse().map_err(|_| Error::NotAPrefix { text: text.to_owned() })?;
                    net.try_into()
                }
            }

            impl From<$name> for IpNet {
                fn from(prefix: $name) -> Self {
                    prefix.0
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.fmt(f)
                }
            }
        )+
    };
}

prefix!(Cidr Clients Subnet);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_a_prefix_of_usable_addresses() {
        for good in
            ["192.168.0.0/24", "10.0.0.0/8", "172.16.0.0/30", "fd00:1::/64", "2001:db8::/126", "fd00::/16"]
        {
            assert_eq!(good.parse::<Subnet>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "192.168.0.0",
            "192.168.0.0/33",
            "10.0.0.0/7",
            "172.16.0.0/31",
            "127.0.0.0/24",
            "0.0.0.0/8",
            "169.254.1.0/24",
            "224.0.1.0/24",
            "240.0.0.0/8",
            "::/64",
            "::ffff:10.0.0.0/104",
            "fe80::/64",
            "ff02::/64",
            "fd00::/127",
            "fd00::/15",
            "::1/126",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn host_bits_are_refused_with_the_prefix_that_was_meant() {
        let error = "192.168.0.5/24".parse::<Subnet>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "192.168.0.5/24 is an address inside a prefix: the prefix is 192.168.0.0/24"
        );
    }

    #[test]
    fn the_first_and_last_host_leave_out_what_is_not_an_interface() {
        let v4: Subnet = "192.168.0.0/24".parse().unwrap();
        assert_eq!(
            (v4.first_host().to_string(), v4.last_host().to_string()),
            ("192.168.0.1".into(), "192.168.0.254".into())
        );
        let v6: Subnet = "fd00::/126".parse().unwrap();
        assert_eq!(
            (v6.first_host().to_string(), v6.last_host().to_string()),
            ("fd00::1".into(), "fd00::3".into())
        );
        for (subnet, addr, host) in [
            (v4, "192.168.0.0", false),
            (v4, "192.168.0.255", false),
            (v4, "192.168.0.77", true),
            (v4, "192.168.1.1", false),
            (v6, "fd00::", false),
            (v6, "fd00::3", true),
            (v6, "192.168.0.1", false),
        ] {
            assert_eq!(subnet.is_host(addr.parse().unwrap()), host, "{addr}");
        }
    }

    #[test]
    fn masquerade_covers_any_unicast_prefix() {
        for good in ["192.168.0.0/24", "10.1.2.3/32", "0.0.0.0/0", "fd00::/64", "::/0"] {
            assert_eq!(good.parse::<Cidr>().unwrap().to_string(), good);
        }
        for bad in ["10.0.0.1/8", "127.0.0.0/8", "224.0.0.0/8", "x/8", "::1/128", "::ffff:1.2.3.4/128"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn clients_are_any_unicast_prefix_and_those_inside_others_are_left_out() {
        for bad in ["203.0.113.9", "203.0.113.9/24", "127.0.0.1/32", "224.0.0.0/4", "::ffff:1.2.3.0/120"] {
            assert!(bad.parse::<Clients>().is_err(), "{bad:?}");
        }
        let given = ["fd00::/64", "10.1.0.0/16", "10.0.0.0/8", "192.0.2.7/32", "10.0.0.0/8", "fd00::/16"];
        let given = given.map(|text| text.parse().unwrap());
        let distinct: Vec<String> = Clients::distinct(&given).iter().map(ToString::to_string).collect();
        assert_eq!(distinct, ["10.0.0.0/8", "192.0.2.7/32", "fd00::/16"]);
    }
}
