//! A network: a bridge or what it has instead, its prefixes and its gateway.

use std::iter;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vnet_common::{Mac, NetworkValue, Zone};

use super::{Cidr, Error, GatewayMode, GsoSizes, InterfaceName, Name, NetworkOptions, Subnet};

/// A network of endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: Name,
    /// Its number, from 1: the zone of its flows.
    pub number: u16,
    /// Its prefixes.
    pub segments: Segments,
    /// Parts of its prefixes from which endpoints get addresses that they do not ask for, at most one of each family; a
    /// family without has the whole prefix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Cidr>,
    /// Addresses that endpoints get only if they ask for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<IpAddr>,
    /// Its bridge, or the interface that has the gateway's addresses instead.
    pub bridge: InterfaceName,
    /// If it has no bridge, the other end of that interface, which is one of a pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub far_end: Option<InterfaceName>,
    /// Hardware address of the bridge: where its endpoints send what leaves the network.
    #[serde(with = "super::mac_text")]
    pub mac: Mac,
    /// MTU of the bridge and its endpoints.
    pub mtu: u32,
    /// Whether nobody has chosen it: it is the first uplink's, also when that changes. Of a record that does not say,
    /// somebody has.
    #[serde(default)]
    pub follows_uplink: bool,
    /// Most bytes that the bridge and its endpoints are handed at once.
    #[serde(default)]
    pub gso: GsoSizes,
    /// Its endpoints reach neither the world nor other networks.
    pub internal: bool,
    /// Its endpoints do not reach each other.
    pub isolated: bool,
    /// What may be changed while it is in use.
    #[serde(default)]
    pub options: NetworkOptions,
}

impl Network {
    /// The zone of its flows.
    #[must_use]
    pub fn zone(&self) -> Zone {
        Zone { id: self.number }
    }

    /// Whether its endpoints are ports of a bridge.
    #[must_use]
    pub fn is_bridged(&self) -> bool {
        self.far_end.is_none()
    }

    /// The interfaces of the host that it has, but for those of its endpoints.
    pub fn interfaces(&self) -> impl Iterator<Item = &InterfaceName> {
        iter::once(&self.bridge).chain(&self.far_end)
    }

    /// Its flags as the data path knows them.
    #[must_use]
    pub fn flags(&self) -> u8 {
        let unbridged = if self.is_bridged() { 0 } else { NetworkValue::FLAG_UNBRIDGED };
        let internal = if self.internal { NetworkValue::FLAG_INTERNAL } else { 0 };
        let isolated = if self.isolated { NetworkValue::FLAG_ISOLATED } else { 0 };
        unbridged | internal | isolated | self.options.flags()
    }

    /// The part of a segment from which endpoints get addresses that they do not ask for, if it is not all of it.
    #[must_use]
    pub fn range_of(&self, segment: &Segment) -> Option<Cidr> {
        self.ranges.iter().copied().find(|range| segment.subnet.net().contains(&range.net()))
    }

    /// Whether its endpoints go out under another address, so that masquerade rules come with it.
    #[must_use]
    pub fn is_masqueraded(&self) -> bool {
        !self.internal && self.options.gateway_mode != GatewayMode::Routed
    }

    /// Which of its endpoints' mappings are endpoint-independent: bits of [`vnet_common::mapping`].
    #[must_use]
    pub fn mapping(&self) -> u8 {
        self.options.mapping()
    }

    /// Who may send to such a mapping: one of [`vnet_common::filtering`].
    #[must_use]
    pub fn filtering(&self) -> u8 {
        self.options.filtering()
    }
}

/// One prefix of a network and the gateway's address in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The prefix.
    pub subnet: Subnet,
    /// The gateway, an address of the bridge.
    pub gateway: IpAddr,
}

impl Segment {
    /// The gateway's address with the prefix's length, as the bridge has it.
    #[must_use]
    pub fn gateway_address(&self) -> IpNet {
        self.address(self.gateway)
    }

    /// An address of this segment with the prefix's length.
    #[must_use]
    pub fn address(&self, addr: IpAddr) -> IpNet {
        // An address of the segment is of its family, so its prefix's length always fits.
        IpNet::new(addr, self.subnet.net().prefix_len()).unwrap_or_else(|_| IpNet::from(addr))
    }
}

/// The prefixes of a network: one IPv4, one IPv6, or one of each, in the order given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Segments(Vec<Segment>);

impl Segments {
    /// Pairs prefixes with their gateways; a prefix without one gets its first address.
    ///
    /// # Errors
    /// When there is no prefix or two of a family, or when a gateway is outside of the prefixes or not an
    /// address an interface may have.
    pub fn new(subnets: &[Subnet], gateways: &[IpAddr]) -> Result<Self, Error> {
        let of_v4 = subnets.iter().filter(|subnet| subnet.is_v4()).count();
        if subnets.is_empty() || of_v4 > 1 || subnets.len() - of_v4 > 1 {
            return Err(Error::Prefixes { given: list(subnets.iter()) });
        }
        for (i, &gateway) in gateways.iter().enumerate() {
            check_gateway(subnets, gateway, &gateways[..i])?;
        }
        let pair = |&subnet: &Subnet| {
            let chosen = gateways.iter().copied().find(|&gateway| subnet.is_host(gateway));
            Segment { subnet, gateway: chosen.unwrap_or_else(|| subnet.first_host()) }
        };
        Ok(Self(subnets.iter().map(pair).collect()))
    }

    /// Each prefix with its gateway.
    pub fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.0.iter()
    }

    /// The prefixes alone.
    pub fn subnets(&self) -> impl Iterator<Item = Subnet> {
        self.0.iter().map(|segment| segment.subnet)
    }

    /// The segment of an address's family.
    #[must_use]
    pub fn of_family(&self, addr: IpAddr) -> Option<&Segment> {
        self.0.iter().find(|segment| segment.subnet.is_v4() == addr.is_ipv4())
    }

    /// Checks that addresses can be given out from these parts of the prefixes alone.
    ///
    /// # Errors
    /// When one is not part of a prefix, holds nothing for an endpoint, or is the second of its family.
    pub fn check_ranges(&self, ranges: &[Cidr]) -> Result<(), Error> {
        for (nth, range) in ranges.iter().enumerate() {
            let bad = |reason: String| Err(Error::Range { range: range.net(), reason });
            let net = range.net();
            let Some(segment) = self.iter().find(|it| it.subnet.net().contains(&net)) else {
                return bad(format!("it is no part of {}", list(self.subnets())));
            };
            if ranges[..nth].iter().any(|other| other.net().addr().is_ipv4() == net.addr().is_ipv4()) {
                return bad("a family has one range".to_owned());
            }
            let is_usable = |addr: IpAddr| segment.subnet.is_host(addr) && addr != segment.gateway;
            // Of a prefix of several addresses, at most the first and the last are none, and the gateway.
            if net.hosts().take(3).all(|addr| !is_usable(addr)) {
                return bad(format!("no endpoint can have an address of it in {}", segment.subnet));
            }
        }
        Ok(())
    }

    /// Checks that addresses can be reserved.
    ///
    /// # Errors
    /// When no endpoint could have one of them.
    pub fn check_reserved(&self, reserved: &[IpAddr]) -> Result<(), Error> {
        for (nth, &addr) in reserved.iter().enumerate() {
            let bad = |reason: String| Err(Error::Reserved { addr, reason });
            match self.iter().find(|segment| segment.subnet.is_host(addr)) {
                None => return bad(format!("no endpoint of {} can have it", list(self.subnets()))),
                Some(segment) if segment.gateway == addr => {
                    return bad(format!("it is the gateway of {}", segment.subnet));
                }
                Some(_) if reserved[..nth].contains(&addr) => return bad("it is named twice".to_owned()),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Whether one of them is IPv6.
    #[must_use]
    pub fn has_v6(&self) -> bool {
        self.subnets().any(|subnet| !subnet.is_v4())
    }
}

fn check_gateway(subnets: &[Subnet], gateway: IpAddr, before: &[IpAddr]) -> Result<(), Error> {
    let bad = |reason: String| Err(Error::Gateway { gateway, reason });
    if before.iter().any(|other| other.is_ipv4() == gateway.is_ipv4()) {
        return bad("the network has one gateway for each family".to_owned());
    }
    match subnets.iter().find(|subnet| subnet.net().contains(&gateway)) {
        None => bad(format!("it is not in {}", list(subnets.iter()))),
        Some(subnet) if !subnet.is_host(gateway) => {
            bad(format!("no interface can have that address of {subnet}"))
        }
        Some(_) => Ok(()),
    }
}

fn list(subnets: impl Iterator<Item = impl ToString>) -> String {
    let given = subnets.map(|subnet| subnet.to_string()).collect::<Vec<_>>().join(" ");
    if given.is_empty() { "none".to_owned() } else { given }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(subnets: &[&str], gateways: &[&str]) -> Result<Segments, Error> {
        let subnets: Vec<Subnet> = subnets.iter().map(|text| text.parse().unwrap()).collect();
        let gateways: Vec<IpAddr> = gateways.iter().map(|text| text.parse().unwrap()).collect();
        Segments::new(&subnets, &gateways)
    }

    #[test]
    fn each_prefix_has_a_gateway_of_its_own() {
        let both = segments(&["10.1.0.0/24", "fd01::/64"], &["fd01::fe"]).unwrap();
        let gateways: Vec<String> =
            both.iter().map(|segment| segment.gateway_address().to_string()).collect();
        assert_eq!(gateways, ["10.1.0.1/24", "fd01::fe/64"]);
        assert!(both.has_v6());
        assert_eq!(both.of_family("10.9.9.9".parse().unwrap()).unwrap().gateway.to_string(), "10.1.0.1");
    }

    #[test]
    fn prefixes_and_gateways_that_do_not_fit_are_refused() {
        for (subnets, gateways) in [
            (&[][..], &[][..]),
            (&["10.1.0.0/24", "10.2.0.0/24"], &[]),
            (&["fd01::/64", "fd02::/64"], &[]),
            (&["10.1.0.0/24"], &["10.2.0.1"]),
            (&["10.1.0.0/24"], &["10.1.0.0"]),
            (&["10.1.0.0/24"], &["10.1.0.255"]),
            (&["10.1.0.0/24"], &["fd00::1"]),
            (&["10.1.0.0/24"], &["10.1.0.1", "10.1.0.2"]),
            (&["fd01::/64"], &["fd01::"]),
        ] {
            assert!(segments(subnets, gateways).is_err(), "{subnets:?} {gateways:?}");
        }
    }

    #[test]
    fn ranges_and_reservations_are_part_of_the_prefixes() {
        let both = segments(&["10.1.0.0/24", "fd01::/64"], &[]).unwrap();
        let ranges = |texts: &[&str]| {
            let ranges: Vec<Cidr> = texts.iter().map(|text| text.parse().unwrap()).collect();
            both.check_ranges(&ranges).map_err(|error| error.to_string())
        };
        for good in [
            &[][..],
            &["10.1.0.128/25"],
            &["fd01::100/120", "10.1.0.0/30"],
            &["10.1.0.9/32"],
            &["10.1.0.0/24"],
        ] {
            assert_eq!(ranges(good), Ok(()), "{good:?}");
        }
        for bad in [
            &["10.2.0.0/25"][..],
            &["10.1.0.0/16"],
            &["10.1.0.0/25", "10.1.0.128/25"],
            &["10.1.0.0/31"],
            &["10.1.0.255/32"],
            &["fd01::1/128"],
        ] {
            assert!(ranges(bad).is_err(), "{bad:?}");
        }
        let reserved = |texts: &[&str]| {
            let addresses: Vec<IpAddr> = texts.iter().map(|text| text.parse().unwrap()).collect();
            both.check_reserved(&addresses)
        };
        assert!(reserved(&["10.1.0.2", "fd01::2", "10.1.0.254"]).is_ok());
        for bad in ["10.1.0.1", "10.1.0.0", "10.1.0.255", "10.2.0.2", "fd01::1", "fd01::"] {
            assert!(reserved(&[bad]).is_err(), "{bad}");
        }
        assert!(reserved(&["10.1.0.2", "10.1.0.2"]).is_err());
    }

    #[test]
    fn a_record_of_an_older_version_means_what_was_fixed_then() {
        let old = r#"{"name":"blue","number":2,"segments":[{"subnet":"10.1.0.0/24","gateway":"10.1.0.1"}],
            "bridge":"vnet-blue","mac":"02:00:00:00:00:01","mtu":1500,"internal":false,"isolated":true}"#;
        let network: Network = serde_json::from_str(old).unwrap();
        assert_eq!((network.options, network.is_bridged()), (NetworkOptions::default(), true));
        assert_eq!((network.flags(), network.is_masqueraded()), (NetworkValue::FLAG_ISOLATED, true));
        let again: Network = serde_json::from_str(&serde_json::to_string(&network).unwrap()).unwrap();
        assert_eq!(again, network);
    }
}
