//! An endpoint: a namespace, and its links to networks.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use vnet_common::{Mac, Zone};

use super::{Cidr, Error, InterfaceName, Limits, Name, one_or_many};

/// A network namespace that vnet serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its name.
    pub name: Name,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its links, each to another network; without one it has a loopback interface and nothing else. The default route
    /// of a family leads by the first of them that has an address of it.
    #[serde(default, alias = "link", deserialize_with = "one_or_many")]
    pub links: Vec<Link>,
    /// Seconds since 1970 at which it was made.
    pub created: u64,
    /// How much it may send and receive by each of its links.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
}

impl Endpoint {
    /// Its addresses, without prefixes, those of the first link first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.links.iter().flat_map(Link::addrs)
    }

    /// How it came by its namespace and its links.
    #[must_use]
    pub fn mode(&self) -> LinkMode {
        match &self.namespace {
            Namespace::Host => LinkMode::Host,
            Namespace::Shared { with, .. } => LinkMode::Container(with.clone()),
            Namespace::Own | Namespace::Foreign { .. } if self.links.is_empty() => LinkMode::None,
            Namespace::Own | Namespace::Foreign { .. } => LinkMode::Bridge,
        }
    }

    /// Whether its namespace was made for it, and so has its name.
    #[must_use]
    pub fn has_own_namespace(&self) -> bool {
        self.namespace == Namespace::Own
    }

    /// Whether its namespace is that of another endpoint.
    #[must_use]
    pub fn shares_with(&self, other: &Name) -> bool {
        self.shared_with() == Some(other)
    }

    /// The endpoint in whose namespace it is, if it is in another's.
    #[must_use]
    pub fn shared_with(&self) -> Option<&Name> {
        match &self.namespace {
            Namespace::Shared { with, .. } => Some(with),
            _ => None,
        }
    }

    /// Its link to a network.
    #[must_use]
    pub fn link_to(&self, network: &Name) -> Option<&Link> {
        self.links.iter().find(|link| link.network == *network)
    }

    /// The link that an address is of.
    #[must_use]
    pub fn link_of(&self, addr: IpAddr) -> Option<&Link> {
        self.links.iter().find(|link| link.addrs().any(|own| own == addr))
    }

    /// The link by which the default route of an address's family leads.
    #[must_use]
    pub fn default_link(&self, like: IpAddr) -> Option<&Link> {
        let has_family = |link: &&Link| link.addrs().any(|own| own.is_ipv4() == like.is_ipv4());
        self.links.iter().find(has_family)
    }

    /// Whether the default route of the family of one of its addresses leads by the link of that address.
    #[must_use]
    pub fn is_default(&self, addr: IpAddr) -> bool {
        self.default_link(addr).is_some_and(|link| link.addrs().any(|own| own == addr))
    }
}

/// Whose an endpoint's namespace is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    /// Made for the endpoint and removed with it.
    Own,
    /// Somebody else's: left alone when the endpoint goes.
    Foreign {
        /// Where it can be opened.
        path: PathBuf,
    },
    /// The host's, which has no links.
    Host,
    /// Another endpoint's, which has the links.
    Shared {
        /// The other endpoint, whose namespace is not shared itself.
        with: Name,
        /// Where it can be opened.
        path: PathBuf,
    },
}

/// How an endpoint comes by a namespace and a link, as a command line or a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LinkMode {
    /// In a namespace of its own, linked to the bridge of its network.
    #[default]
    Bridge,
    /// In a namespace of its own, with a loopback interface and nothing else.
    None,
    /// In the host's namespace.
    Host,
    /// In another endpoint's namespace.
    Container(Name),
}

impl LinkMode {
    /// How it is written, for lists of what can be chosen.
    pub const WRITTEN: &'static str = "bridge, none, host or container:NAME";
}

impl FromStr for LinkMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "bridge" => Ok(Self::Bridge),
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            other => match other.strip_prefix("container:") {
                Some(name) => Ok(Self::Container(name.parse()?)),
                None => Err(Error::LinkMode { text: text.to_owned() }),
            },
        }
    }
}

impl fmt::Display for LinkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge => f.write_str("bridge"),
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container(name) => write!(f, "container:{name}"),
        }
    }
}

/// How an endpoint is linked to a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The network.
    pub network: Name,
    /// The network's number.
    pub number: u16,
    /// The endpoint's addresses with the network's prefixes, at most one of each family.
    pub addresses: Vec<IpNet>,
    /// The endpoint's hardware address.
    #[serde(with = "super::mac_text")]
    pub mac: Mac,
    /// Name of its interface in the namespace.
    pub ifname: InterfaceName,
    /// Name of the other end, on the host.
    pub host_interface: InterfaceName,
    /// Seconds since 1970 at which it was made; with the endpoint where older versions did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<u64>,
    /// Routes beside the default ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<ExtraRoute>,
    /// Number of the routing table in the namespace for what is sent from the link's addresses where the default route
    /// leads elsewhere; a link that has always been the only one has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
}

impl Link {
    /// The zone of its flows.
    #[must_use]
    pub fn zone(&self) -> Zone {
        Zone { id: self.number }
    }

    /// Its addresses, without prefixes.
    pub fn addrs(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(IpNet::addr)
    }
}

/// A route of an endpoint beside the default ones, written `CIDR[=VIA]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExtraRoute {
    /// Where it leads.
    pub destination: Cidr,
    /// The router; the network's gateway without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
}

impl FromStr for ExtraRoute {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |reason| Error::Route { text: text.to_owned(), reason };
        let (destination, via) = match text.split_once('=') {
            Some((destination, via)) => (destination, Some(via)),
            None => (text, None),
        };
        let destination = destination.parse::<Cidr>().map_err(|error| match error {
            Error::Masquerade { reason, .. } => bad(reason),
            other => other,
        })?;
        if destination.net().prefix_len() == 0 {
            return Err(bad("the default route leads by the first link: choose that with --default-route"));
        }
        let never_routed = match destination.net() {
            // Linux routes link-local addresses of IPv4, and clouds keep what they tell about a machine there.
            IpNet::V4(net) => net.addr().is_multicast() || net.addr().is_loopback(),
            IpNet::V6(net) => {
                net.addr().is_unicast_link_local() || net.addr().is_multicast() || net.addr().is_loopback()
            }
        };
        if never_routed {
            return Err(bad("no gateway forwards to such addresses"));
        }
        let via = via.map(|via| via.parse().map_err(|_| bad("write CIDR or CIDR=VIA, VIA being an address")));
        let via: Option<IpAddr> = via.transpose()?;
        if via.is_some_and(|via| via.is_ipv4() != destination.net().addr().is_ipv4()) {
            return Err(bad("the router is of the other family"));
        }
        Ok(Self { destination, via })
    }
}

impl fmt::Display for ExtraRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        self.via.map_or(Ok(()), |via| write!(f, "={via}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_older_versions_have_one_link_or_none() {
        let old = r#"{"name":"web","namespace":"own","link":{"network":"default","number":1,
            "addresses":["192.168.0.2/24","fd00::2/64"],"mac":"02:00:00:00:00:02","ifname":"eth0",
            "host_interface":"vn-web"},"created":7}"#;
        let endpoint: Endpoint = serde_json::from_str(old).unwrap();
        assert_eq!(endpoint.links.len(), 1);
        let [link] = &endpoint.links[..] else { panic!("{endpoint:?}") };
        assert_eq!((link.ifname.as_str(), link.table, link.routes.len()), ("eth0", None, 0));
        let again: Endpoint = serde_json::from_str(&serde_json::to_string(&endpoint).unwrap()).unwrap();
        assert_eq!(again, endpoint);
        let alone = r#"{"name":"web","namespace":{"foreign":{"path":"/x"}},"link":null,"created":7}"#;
        assert_eq!(serde_json::from_str::<Endpoint>(alone).unwrap().links, []);
    }

    fn link(network: &str, number: u16, addresses: &[&str]) -> Link {
        Link {
            network: network.parse().unwrap(),
            number,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            mac: Mac::new([2, 0, 0, 0, 0, number as u8]),
            ifname: format!("eth{number}").parse().unwrap(),
            host_interface: format!("vn-{number}").parse().unwrap(),
            created: None,
            routes: Vec::new(),
            table: None,
        }
    }

    #[test]
    fn the_default_route_of_a_family_leads_by_the_first_link_that_has_it() {
        let endpoint = Endpoint {
            name: "web".parse().unwrap(),
            namespace: Namespace::Own,
            links: vec![link("one", 1, &["10.1.0.2/24"]), link("two", 2, &["10.2.0.2/24", "fd02::2/64"])],
            created: 0,
            limits: Limits::default(),
        };
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        for (own, is_default) in [("10.1.0.2", true), ("10.2.0.2", false), ("fd02::2", true)] {
            assert_eq!(endpoint.is_default(addr(own)), is_default, "{own}");
        }
        assert_eq!(endpoint.link_of(addr("10.2.0.2")).unwrap().number, 2);
        assert!(endpoint.link_to(&"three".parse().unwrap()).is_none());
    }

    #[test]
    fn modes_are_read_as_they_are_written() {
        for text in ["bridge", "none", "host", "container:web"] {
            assert_eq!(text.parse::<LinkMode>().unwrap().to_string(), text);
        }
        for text in ["", "Host", "container:", "container:a/b", "macvlan"] {
            assert!(text.parse::<LinkMode>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn routes_are_a_prefix_and_perhaps_a_router() {
        for text in ["10.9.0.0/16", "10.9.0.0/16=10.1.0.254", "fd09::/64=fd01::fe"] {
            assert_eq!(text.parse::<ExtraRoute>().unwrap().to_string(), text);
        }
        for text in ["10.9.0.1/16", "10.9.0.0/16=", "10.9.0.0/16=fd01::1", "0.0.0.0/0", "::/0=fd01::1", "x=y"]
        {
            assert!(text.parse::<ExtraRoute>().is_err(), "{text}");
        }
        for text in ["fe80::/64", "ff02::/16", "127.0.0.0/8", "224.0.0.0/4"] {
            assert!(text.parse::<ExtraRoute>().is_err(), "{text}");
        }
    }
}
