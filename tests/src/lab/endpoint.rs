//! An endpoint that vnet made, as the kernel sees it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

use serde_json::Value;

use super::{Netns, eventually};

/// An endpoint: its namespace and its addresses, read from the kernel and not from vnet's own account.
#[derive(Clone, Debug)]
pub struct Endpoint {
    netns: Netns,
    addresses: Vec<IpAddr>,
}

impl Endpoint {
    /// Looks at the interfaces other than the loopback in the namespace called `name`.
    ///
    /// # Panics
    /// When there is no such namespace.
    #[must_use]
    #[track_caller]
    pub fn observe(name: &str) -> Self {
        let netns = Netns::named(name);
        assert!(netns.exists(), "no namespace {name}");
        let links = netns.ip("-j addr").json();
        let addresses = global_addresses(&links).unwrap_or_default();
        Self { netns, addresses }
    }

    /// Its IPv4 address.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    #[track_caller]
    pub fn v4(&self) -> IpAddr {
        self.addr_like(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    /// Its global IPv6 address.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    #[track_caller]
    pub fn v6(&self) -> IpAddr {
        self.addr_like(IpAddr::V6(Ipv6Addr::UNSPECIFIED))
    }

    /// Its addresses, without those of its loopback and link-local ones.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Its address of the family of `other`.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    #[track_caller]
    pub fn addr_like(&self, other: IpAddr) -> IpAddr {
        let found = self.addresses.iter().find(|address| address.is_ipv4() == other.is_ipv4());
        *found.unwrap_or_else(|| panic!("{} has only {:?}", self.netns.name(), self.addresses))
    }

    /// Its link-local address, once it is in use.
    ///
    /// # Panics
    /// When it gets none.
    #[must_use]
    #[track_caller]
    pub fn link_local(&self) -> Ipv6Addr {
        eventually(
            || {
                let shown = self.netns.ip("-6 -o addr show dev eth0 scope link -tentative").stdout;
                let address = shown.split_whitespace().skip_while(|&word| word != "inet6").nth(1)?;
                address.split('/').next()?.parse().ok()
            },
            || format!("a link-local address in {}", self.netns.name()),
        )
    }

    /// Where its default routes lead, IPv4 first.
    #[must_use]
    pub fn gateways(&self) -> Vec<IpAddr> {
        let routes =
            ["-4", "-6"].map(|family| self.netns.ip(&format!("{family} -j route show default")).json());
        let gateways = routes.iter().filter_map(Value::as_array).flatten();
        gateways.filter_map(|route| route["gateway"].as_str()?.parse().ok()).collect()
    }

    /// Its gateway of the family of `other`.
    ///
    /// # Panics
    /// When it has no default route of that family.
    #[must_use]
    pub fn gateway_like(&self, other: IpAddr) -> IpAddr {
        let found = self.gateways().into_iter().find(|gateway| gateway.is_ipv4() == other.is_ipv4());
        found.unwrap_or_else(|| panic!("{} has no gateway of the family of {other}", self.netns.name()))
    }

    /// Its namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }
}

impl Deref for Endpoint {
    type Target = Netns;

    fn deref(&self) -> &Netns {
        &self.netns
    }
}

fn global_addresses(links: &Value) -> Option<Vec<IpAddr>> {
    let infos = links.as_array()?.iter().filter(|link| link["ifname"] != "lo");
    let infos = infos.filter_map(|link| link["addr_info"].as_array()).flatten();
    let global = infos.filter(|info| info["scope"] == "global");
    Some(global.filter_map(|info| info["local"].as_str()?.parse().ok()).collect())
}
