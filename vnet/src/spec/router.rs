//! A router: an instance in a network namespace of its own, with a link to somebody else's bridge.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vnet_common::Mac;

use super::{Error, GsoSizes, InterfaceName};

/// What makes an instance a router: its link to the outside, which is its uplink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// Which network namespace the bridge is in.
    pub host: u64,
    /// The bridge, which is somebody else's.
    pub bridge: InterfaceName,
    /// The end of the link that is a port of the bridge.
    pub host_interface: InterfaceName,
    /// The end in the router's namespace.
    pub ifname: InterfaceName,
    /// Its hardware address.
    #[serde(with = "super::mac_text")]
    pub mac: Mac,
    /// MTU of the link in bytes: the bridge's.
    pub mtu: u32,
    /// Most bytes that it is handed at once: the bridge's.
    pub gso: GsoSizes,
    /// Its addresses, with the prefixes of whoever is outside.
    pub addresses: Vec<IpNet>,
    /// Where its default routes lead, at most one of each family.
    pub gateways: Vec<IpAddr>,
}

impl Router {
    /// Name of the end in the router's namespace.
    pub const IFNAME: &str = "eth0";

    /// Whether an address is one that the link may have beside its own: in one of its prefixes, and nobody's as far as is
    /// known.
    #[must_use]
    pub fn may_have(&self, addr: IpAddr) -> bool {
        let fits = |net: &IpNet| {
            net.contains(&addr) && check_host(IpNet::new_assert(addr, net.prefix_len())).is_ok()
        };
        let is_taken = self.addresses.iter().any(|net| net.addr() == addr) || self.gateways.contains(&addr);
        !is_taken && self.addresses.iter().any(fits)
    }

    /// Whether an address is none that an interface can have, as it is the first or the last of one of its prefixes.
    #[must_use]
    pub fn ends_prefix(&self, addr: IpAddr) -> bool {
        let mut around = self.addresses.iter().filter(|net| net.contains(&addr));
        around.any(|net| check_host(IpNet::new_assert(addr, net.prefix_len())).is_err())
    }
}

/// Checks a router's addresses outside, and that it reaches its gateways by them.
///
/// # Errors
/// When there are none, one is none that an interface can have or is named twice, or a gateway is not in their prefixes.
pub fn check_outside(addresses: &[IpNet], gateways: &[IpAddr]) -> Result<(), Error> {
    if addresses.is_empty() {
        return Err(Error::NoOutsideAddress);
    }
    for (nth, net) in addresses.iter().enumerate() {
        check_host(*net)?;
        if addresses[..nth].iter().any(|other| other.addr() == net.addr()) {
            return Err(Error::OutsideAddress { net: *net, reason: "it is named twice" });
        }
    }
    for (nth, gateway) in gateways.iter().enumerate() {
        let bad = |reason| Err(Error::OutsideGateway { gateway: *gateway, reason });
        if gateways[..nth].iter().any(|other| other.is_ipv4() == gateway.is_ipv4()) {
            return bad("there is another of its family");
        }
        if addresses.iter().any(|net| net.addr() == *gateway) {
            return bad("it is the router's own address");
        }
        let link_local = matches!(gateway, IpAddr::V6(gateway) if gateway.is_unicast_link_local());
        if link_local && addresses.iter().any(|net| net.addr().is_ipv6()) {
            continue;
        }
        let Some(net) = addresses.iter().find(|net| net.contains(gateway)) else {
            return bad("it is in none of the prefixes of the router's addresses");
        };
        if check_host(IpNet::new_assert(*gateway, net.prefix_len())).is_err() {
            return bad("no interface can have it");
        }
    }
    Ok(())
}

fn check_host(net: IpNet) -> Result<(), Error> {
    let bad = |reason| Err(Error::OutsideAddress { net, reason });
    let addr = net.addr();
    let link_local = match addr {
        IpAddr::V4(addr) => addr.is_link_local() || addr.is_broadcast(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    };
    if addr.is_loopback() || addr.is_multicast() || addr.is_unspecified() || link_local {
        return bad("a router cannot be known by it");
    }
    let (longest, ends_prefix) = match net {
        IpNet::V4(net) => (31, net.addr() == net.network() || net.addr() == net.broadcast()),
        IpNet::V6(net) => (127, net.addr() == net.network()),
    };
    if net.prefix_len() == 0 {
        return bad(
            "its prefix has no bits: write it with the length of the prefix outside, like 203.0.113.1/24",
        );
    }
    if net.prefix_len() < longest && ends_prefix {
        return bad("it is the first or the last address of its prefix");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(addresses: &[&str], gateways: &[&str]) -> Result<(), Error> {
        let addresses: Vec<IpNet> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let gateways: Vec<IpAddr> = gateways.iter().map(|text| text.parse().unwrap()).collect();
        check_outside(&addresses, &gateways)
    }

    #[test]
    fn a_gateway_is_a_neighbour_of_the_router() {
        for (addresses, gateways) in [
            (&["16.158.1.100/24"][..], &["16.158.1.1"][..]),
            (&["16.158.1.100/24", "16.158.1.103/32"], &[]),
            (&["10.0.0.0/31", "2001:db8::2/64"], &["10.0.0.1", "2001:db8::1"]),
            (&["2001:db8::2/64"], &["fe80::1"]),
        ] {
            check(addresses, gateways).unwrap();
        }
        for (addresses, gateways, expected) in [
            (&[][..], &[][..], "needs an address"),
            (&["16.158.1.0/24"], &[], "first or the last"),
            (&["16.158.1.255/24"], &[], "first or the last"),
            (&["2001:db8::/64"], &[], "first or the last"),
            (&["127.0.0.1/8"], &[], "known by it"),
            (&["fe80::1/64"], &[], "known by it"),
            (&["16.158.1.1/0"], &[], "no bits"),
            (&["16.158.1.1/24", "16.158.1.1/32"], &[], "twice"),
            (&["16.158.1.100/24"], &["16.158.2.1"], "none of the prefixes"),
            (&["16.158.1.100/24"], &["16.158.1.100"], "own address"),
            (&["16.158.1.100/24"], &["16.158.1.255"], "no interface"),
            (&["16.158.1.100/24"], &["fe80::1"], "none of the prefixes"),
            (&["16.158.1.100/24"], &["16.158.1.1", "16.158.1.2"], "another of its family"),
        ] {
            let error = check(addresses, gateways).unwrap_err().to_string();
            assert!(error.contains(expected), "{addresses:?} {gateways:?}: {error}");
        }
    }

    #[test]
    fn a_router_may_have_what_is_beside_its_own_addresses() {
        let router = Router {
            host: 1,
            bridge: "br-out".parse().unwrap(),
            host_interface: "vr-r".parse().unwrap(),
            ifname: Router::IFNAME.parse().unwrap(),
            mac: Mac::new([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            gso: GsoSizes::LEGACY,
            addresses: vec!["16.158.1.100/24".parse().unwrap(), "2001:db8::2/64".parse().unwrap()],
            gateways: vec!["16.158.1.1".parse().unwrap()],
        };
        let may = |text: &str| router.may_have(text.parse().unwrap());
        assert!(may("16.158.1.103") && may("2001:db8::103"));
        for not in ["16.158.1.100", "16.158.1.1", "16.158.1.255", "16.158.2.1", "2001:db8:1::1", "2001:db8::"]
        {
            assert!(!may(not), "{not}");
        }
        let text = serde_json::to_string(&router).unwrap();
        assert_eq!(serde_json::from_str::<Router>(&text).unwrap(), router);
    }
}
