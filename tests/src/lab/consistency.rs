//! Whether what vnet recorded is what there is: looked up in the kernel, as far as that is possible without vnet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use serde_json::Value;
use vnet_common::{Addr, EndpointValue, Mac, NetworkValue, PortMapKey, PortMapValue, PrefixKey, maps};

use super::{Endpoint, Lab, namespaces_of};

impl Lab {
    /// Checks that record and kernel agree: no address is two endpoints', no port is published twice, every endpoint has
    /// its namespace, its link and its addresses, and there is nothing else. No command may be under way; only mappings
    /// of single ports without restrictions are understood.
    ///
    /// # Panics
    /// With what does not agree.
    #[track_caller]
    pub fn assert_consistent(&self) {
        // Addresses of the host come by themselves, and every command learns them by the way.
        let by_the_way = |op: &Value| op.as_str().is_some_and(|op| op.contains(" host address "));
        let mut ops = self.vnet_list(&["up", "--dry-run"], "ops");
        ops.retain(|op| !by_the_way(op));
        assert!(ops.is_empty(), "`vnet up` would have something to do: {ops:#?}");
        let networks = self.vnet_list(&["network", "ls"], "networks");
        let endpoints = self.vnet_list(&["ns", "ls"], "endpoints");
        self.check_links(&networks, &endpoints);
        self.check_addresses(&networks, &endpoints);
        self.check_port_maps(&endpoints);
    }

    #[track_caller]
    fn check_links(&self, networks: &[Value], endpoints: &[Value]) {
        let names: BTreeSet<&str> = endpoints.iter().map(|endpoint| text(endpoint, "name")).collect();
        let namespaces = namespaces_of(self.instance());
        let hosts = [self.host().name(), self.outside().name()];
        let found: BTreeSet<&str> =
            namespaces.iter().map(String::as_str).filter(|name| !hosts.contains(name)).collect();
        assert_eq!(found, names, "namespaces, and endpoints as recorded");
        let links = self.host().ip("-j -d link").json();
        let links = links.as_array().expect("a list");
        let unbridged = |network: &&Value| network["no_bridge"] == true;
        let bridged = networks.iter().filter(|network| !unbridged(network));
        let bridges: BTreeSet<&str> = bridged.map(|network| text(network, "bridge")).collect();
        let of_kind =
            |kind: &'static str| links.iter().filter(move |link| link["linkinfo"]["info_kind"] == kind);
        let found: BTreeSet<&str> = of_kind("bridge").map(|link| text(link, "ifname")).collect();
        assert_eq!(found, bridges, "bridges, and networks as recorded");
        let ports = of_kind("veth").filter(|link| link["master"].is_string());
        let ports: BTreeSet<&str> = ports.map(|link| text(link, "ifname")).collect();
        let unbridged: BTreeSet<&str> =
            networks.iter().filter(unbridged).map(|network| text(network, "name")).collect();
        let recorded = endpoints.iter().filter(|endpoint| !unbridged.contains(text(endpoint, "network")));
        let recorded: BTreeSet<&str> = recorded.map(|endpoint| text(endpoint, "interface")).collect();
        assert_eq!(ports, recorded, "ports of bridges, and links as recorded");
    }

    #[track_caller]
    fn check_addresses(&self, networks: &[Value], endpoints: &[Value]) {
        let mut owners: BTreeMap<IpAddr, &str> = BTreeMap::new();
        let mut expected: BTreeSet<IpAddr> = BTreeSet::new();
        for endpoint in endpoints {
            let name = text(endpoint, "name");
            let recorded: BTreeSet<IpAddr> = list(endpoint, "addresses").map(address).collect();
            let found: BTreeSet<IpAddr> = Endpoint::observe(name).addresses().iter().copied().collect();
            assert_eq!(found, recorded, "addresses of {name}, and as recorded");
            for addr in recorded {
                let other = owners.insert(addr, name);
                assert_eq!(other, None, "{addr} is also {name}'s");
            }
            expected.extend(found.iter().copied());
            if found.iter().any(IpAddr::is_ipv6) {
                expected.insert(link_local(text(endpoint, "mac")));
            }
        }
        let entries = self.entries::<Addr, EndpointValue>(maps::ENDPOINTS);
        let found: BTreeSet<IpAddr> = entries.iter().map(|(addr, _)| IpAddr::from(*addr)).collect();
        assert_eq!(found, expected, "addresses in the map, and of endpoints");
        let subnets = networks.iter().map(|network| list(network, "subnets").count()).sum::<usize>();
        assert_eq!(
            self.entries::<PrefixKey, NetworkValue>(maps::NETWORKS).len(),
            subnets,
            "prefixes in the map"
        );
    }

    #[track_caller]
    fn check_port_maps(&self, endpoints: &[Value]) {
        let names: BTreeSet<&str> = endpoints.iter().map(|endpoint| text(endpoint, "name")).collect();
        let mappings = self.vnet_list(&["portmap", "ls"], "portmaps");
        let mut expected = BTreeSet::new();
        for mapping in &mappings {
            let endpoint = text(mapping, "endpoint");
            assert!(names.contains(endpoint), "{mapping} leads to an endpoint that is not there");
            let number = |field: &str| mapping[field].as_u64().expect("a number");
            for target in list(mapping, "targets").map(address) {
                let new = expected.insert((number("port"), target.is_ipv4(), target, number("target_port")));
                assert!(new, "published twice: {mapping}");
            }
        }
        let entries = self.entries::<PortMapKey, PortMapValue>(maps::PORT_MAP);
        let entry = |(key, value): &(PortMapKey, PortMapValue)| {
            let (any, target) = (IpAddr::from(key.addr), IpAddr::from(value.addr));
            (u64::from(key.port.number()), any.is_ipv4(), target, u64::from(value.port.number()))
        };
        let found: BTreeSet<_> = entries.iter().map(entry).collect();
        assert_eq!(found, expected, "published ports in the map, and as recorded");
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value:#}"))
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().unwrap_or_else(|| panic!("no list {field} in {value:#}")).iter()
}

fn address(value: &Value) -> IpAddr {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no address"))
}

/// The link-local address that follows from a hardware address (RFC 4291, appendix A).
fn link_local(mac: &str) -> IpAddr {
    let octets = mac.split(':').map(|octet| u8::from_str_radix(octet, 16).expect("an octet"));
    let octets: Vec<u8> = octets.collect();
    let mac = Mac::new(octets.try_into().expect("six octets"));
    let [a, b, c, d, e, f] = mac.bytes;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]).into()
}
