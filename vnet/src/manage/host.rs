//! What the host has, and what follows from it: uplinks, clashes, its own addresses.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use vnet_common::{Addr, Zone};

use super::error::there_are;
use super::{Claim, Error, Manager, Wanted, kernel};
use crate::kernel::{Addressed, Interface, Route};
use crate::plan::{Resource, expand};
use crate::reconcile::Machine;
use crate::spec::{Floating, Going, InterfaceName, Network, Settings, Subnet};
use crate::store::Transaction;

/// What the host has at the moment.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) interfaces: Vec<Interface>,
    pub(super) routes: Vec<Route>,
}

impl Host {
    pub(super) async fn observe<M: Machine>(machine: &M) -> Result<Self, Error> {
        let routes = machine.routes().await.map_err(kernel("list the host's routes"))?;
        Ok(Self { routes, ..Self::without_routes(machine).await? })
    }

    /// The interfaces alone, for verbs that do not ask about routes.
    pub(super) async fn without_routes<M: Machine>(machine: &M) -> Result<Self, Error> {
        let interfaces = machine.interfaces().await.map_err(kernel("list the host's interfaces"))?;
        Ok(Self { interfaces, routes: Vec::new() })
    }

    /// The host as it is without what is to be gone.
    pub(super) fn without(mut self, going: &Going) -> Self {
        let gone: HashSet<&str> = going.interfaces().map(InterfaceName::as_str).collect();
        self.interfaces.retain(|interface| !gone.contains(interface.name.as_str()));
        self.routes.retain(|route| route.interface.as_deref().is_none_or(|name| !gone.contains(name)));
        self
    }

    pub(super) fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// The Ethernet interfaces with a default route, best first.
    pub(super) fn default_uplinks(&self) -> Result<Vec<InterfaceName>, Error> {
        let mut defaults: Vec<&Route> =
            self.routes.iter().filter(|r| r.destination.prefix_len() == 0).collect();
        defaults.sort_by_key(|route| route.metric);
        let mut uplinks: Vec<InterfaceName> = Vec::new();
        for name in defaults.iter().filter_map(|route| route.interface.as_deref()) {
            let is_ethernet = self.interface(name).is_some_and(|interface| interface.mac.is_some());
            if let Some(name) = name.parse().ok().filter(|name| is_ethernet && !uplinks.contains(name)) {
                uplinks.push(name);
            }
        }
        if uplinks.is_empty() { Err(Error::NoUplink { candidates: self.candidates() }) } else { Ok(uplinks) }
    }

    /// Checks that an interface can be an uplink; gives a note if it is down.
    pub(super) fn check_uplink(&self, name: &InterfaceName) -> Result<Option<String>, Error> {
        let Some(interface) = self.interface(name.as_str()) else {
            return Err(Error::NoSuchInterface { name: name.clone(), candidates: self.candidates() });
        };
        if interface.mac.is_none() || interface.name == "lo" {
            return Err(Error::NotEthernet { name: name.clone(), candidates: self.candidates() });
        }
        Ok((!interface.up).then(|| format!("uplink {name} is down: nothing passes before it is up")))
    }

    /// The interfaces that could be uplinks, for an error message.
    fn candidates(&self) -> String {
        let ethernet =
            self.interfaces.iter().filter(|interface| interface.mac.is_some() && interface.name != "lo");
        there_are(ethernet.map(|interface| &interface.name))
    }

    /// Checks that a prefix is nobody's: neither another network's nor on the host's routes or interfaces.
    pub(super) fn check_free(&self, subnet: Subnet, networks: &[Network]) -> Result<(), Error> {
        let subnet = subnet.net();
        for network in networks {
            if let Some(other) =
                network.segments.subnets().map(Subnet::net).find(|other| overlap(*other, subnet))
            {
                return Err(Error::OverlapsNetwork { subnet, other, network: network.name.clone() });
            }
        }
        match self.occupant(subnet) {
            Some(what) => Err(Error::OverlapsHost { subnet, what }),
            None => Ok(()),
        }
    }

    /// What of the host uses a prefix. The default route leads everywhere, so it does not count.
    pub(super) fn occupant(&self, subnet: IpNet) -> Option<String> {
        let address = self.interfaces.iter().find_map(|interface| {
            let address = interface.addresses.iter().find(|address| overlap(address.trunc(), subnet))?;
            Some(format!("the address {address} of {}", interface.name))
        });
        let route = || {
            let leads_there =
                |route: &&Route| route.destination.prefix_len() > 0 && overlap(route.destination, subnet);
            let route = self.routes.iter().find(leads_there)?;
            let interface = route.interface.as_ref().map(|name| format!(" over {name}")).unwrap_or_default();
            Some(format!("the host's route to {}{interface}", route.destination))
        };
        address.or_else(route)
    }
}

/// The addresses that the host has at the moment, for verbs that ask about nothing else.
#[derive(Debug)]
pub(super) struct Addresses {
    /// The interfaces that have some, and the uplinks.
    pub(super) interfaces: Vec<Addressed>,
}

impl Addresses {
    pub(super) async fn observe<M: Machine>(machine: &M, settings: &Settings) -> Result<Self, Error> {
        let uplinks: Vec<&str> = settings.uplinks.iter().map(InterfaceName::as_str).collect();
        let interfaces = machine.addressed(&uplinks).await;
        Ok(Self { interfaces: interfaces.map_err(kernel("list the host's addresses"))? })
    }

    /// All of them, whatever the interface.
    pub(super) fn all(&self) -> impl Iterator<Item = IpAddr> {
        self.interfaces.iter().flat_map(|interface| interface.addresses.iter().map(IpNet::addr))
    }
}

impl From<&Host> for Addresses {
    fn from(host: &Host) -> Self {
        Self { interfaces: host.interfaces.iter().map(Addressed::from).collect() }
    }
}

/// Whether two prefixes share an address; those of different families do not.
fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Host addresses that the data path has to learn, and those it has to forget.
pub(super) struct Refresh {
    pub(super) wanted: Vec<Wanted>,
    pub(super) obsolete: Vec<Resource>,
}

impl<M: Machine> Manager<M> {
    /// Notes the host's addresses as they are. The gateways belong to their networks and are not part of it;
    /// neither are the links to endpoints, whose host side has no address that counts. All are looked at, not only
    /// those that are new to the record: the command that noted one may not have lived to tell the data path.
    pub(super) fn refresh(&self, transaction: &Transaction, host: &Addresses) -> Result<Refresh, Error> {
        let current = foreign_addresses(transaction, host)?;
        let recorded: BTreeMap<IpAddr, String> = transaction.host_addresses()?.into_iter().collect();
        let mut refresh = Refresh { wanted: Vec::new(), obsolete: Vec::new() };
        for (addr, interface) in &recorded {
            // Forgotten once the data path has forgotten it.
            if !current.contains_key(&Addr::from(*addr)) {
                refresh.obsolete.push(expand::host_address(*addr, interface));
            }
        }
        for (addr, interface) in current.values() {
            if recorded.get(addr) != Some(interface) {
                transaction.put_host_address(*addr, interface)?;
            }
            refresh.wanted.extend(Claim::Recorded.on([expand::host_address(*addr, interface)]));
        }
        Ok(refresh)
    }

    /// Forgets the addresses of the host that the data path has forgotten, and ends the flows that had them: nobody
    /// answers there any more, and whoever has such an address next is to be asked anew. Says how many entries went.
    pub(super) fn forget_host_addresses(&self, gone: &[IpAddr]) -> Result<usize, Error> {
        if gone.is_empty() {
            return Ok(0);
        }
        let transaction = self.store.begin()?;
        for addr in gone {
            transaction.remove_host_address(*addr)?;
        }
        transaction.commit()?;
        let gone: HashSet<Addr> = gone.iter().copied().map(Addr::from).collect();
        self.forget(|tuple, entry| {
            // To the address from outside, or from an endpoint to what is published there. That an endpoint goes to
            // whoever has the address now is another flow.
            let arrives = gone.contains(&tuple.dst) && (tuple.zone == Zone::WORLD || entry.mapping != 0);
            arrives || gone.contains(&entry.translated.src) && entry.translated.zone == Zone::WORLD
        })
    }
}

/// The host's addresses that no network of this instance brought. Two interfaces may have the same link-local
/// address: the first counts.
fn foreign_addresses(
    transaction: &Transaction,
    host: &Addresses,
) -> Result<BTreeMap<Addr, (IpAddr, String)>, Error> {
    let networks = transaction.networks()?;
    let gateways: Vec<IpAddr> = networks.iter().flat_map(expand::gateways).collect();
    let going = transaction.going()?;
    let gone: HashSet<&str> = going.interfaces().map(InterfaceName::as_str).collect();
    let mut current = BTreeMap::new();
    for interface in &host.interfaces {
        // Or what a network has instead.
        let is_bridge = networks.iter().any(|network| network.bridge.as_str() == interface.name);
        if gone.contains(interface.name.as_str())
            || !is_bridge && transaction.has_interface(&interface.name)?
        {
            continue;
        }
        let counts =
            |addr: &IpAddr| !(gateways.contains(addr) || is_bridge && Addr::from(*addr).is_v6_link_local());
        for addr in interface.addresses.iter().map(IpNet::addr).filter(counts) {
            current.entry(Addr::from(addr)).or_insert_with(|| (addr, interface.name.clone()));
        }
    }
    // What a router's link has for an endpoint alone is part of the floating address.
    for Floating { external, on, .. } in transaction.floatings()? {
        if on.is_some() {
            current.remove(&Addr::from(external));
        }
    }
    Ok(current)
}

#[cfg(test)]
mod tests {
    use vnet_common::Mac;

    use super::*;
    use crate::spec::GsoSizes;

    fn interface(name: &str, ethernet: bool, addresses: &[&str]) -> Interface {
        Interface {
            index: 1,
            name: name.to_owned(),
            mac: ethernet.then(|| Mac::new([2, 0, 0, 0, 0, 1])),
            mtu: 1500,
            gso: GsoSizes::LEGACY,
            up: true,
            kind: None,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn route(destination: &str, interface: &str, metric: u32) -> Route {
        let destination = destination.parse().unwrap();
        Route { destination, interface: Some(interface.to_owned()), gateway: None, metric }
    }

    fn host() -> Host {
        Host {
            interfaces: vec![
                interface("lo", false, &["127.0.0.1/8", "::1/128"]),
                interface("eth0", true, &["203.0.113.1/24"]),
                interface("wlan0", true, &["198.51.100.7/24"]),
                interface("wg0", false, &["10.9.0.2/32"]),
            ],
            routes: vec![
                route("0.0.0.0/0", "wlan0", 600),
                route("0.0.0.0/0", "eth0", 100),
                route("::/0", "eth0", 1024),
                route("0.0.0.0/0", "wg0", 50),
                route("10.64.0.0/10", "wg0", 0),
            ],
        }
    }

    #[test]
    fn uplinks_are_the_ethernet_interfaces_with_a_default_route_best_first() {
        let uplinks: Vec<String> =
            host().default_uplinks().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(uplinks, ["eth0", "wlan0"]);
        let lost = Host { routes: Vec::new(), ..host() };
        let message = lost.default_uplinks().unwrap_err().to_string();
        assert!(message.contains("--uplink") && message.ends_with(": there is eth0, wlan0"), "{message}");
    }

    #[test]
    fn an_uplink_must_exist_and_be_ethernet() {
        let check = |name: &str| host().check_uplink(&name.parse().unwrap());
        assert_eq!(check("eth0").unwrap(), None);
        assert!(matches!(check("eth7").unwrap_err(), Error::NoSuchInterface { .. }));
        assert!(matches!(check("wg0").unwrap_err(), Error::NotEthernet { .. }));
        let mut down = host();
        down.interfaces[1].up = false;
        assert!(down.check_uplink(&"eth0".parse().unwrap()).unwrap().unwrap().contains("down"));
    }

    #[test]
    fn prefixes_of_the_host_are_refused_by_name() {
        for (subnet, expected) in [
            ("192.168.0.0/24", None),
            ("fd00:1::/64", None),
            (
                "203.0.113.0/25",
                Some(
                    "203.0.113.0/25 overlaps the address 203.0.113.1/24 of eth0: choose another prefix with --subnet",
                ),
            ),
            (
                "10.100.0.0/16",
                Some(
                    "10.100.0.0/16 overlaps the host's route to 10.64.0.0/10 over wg0: choose another prefix with --subnet",
                ),
            ),
            (
                "10.0.0.0/8",
                Some(
                    "10.0.0.0/8 overlaps the address 10.9.0.2/32 of wg0: choose another prefix with --subnet",
                ),
            ),
        ] {
            let found = host().check_free(subnet.parse().unwrap(), &[]).err().map(|error| error.to_string());
            assert_eq!(found.as_deref(), expected, "{subnet}");
        }
    }
}
