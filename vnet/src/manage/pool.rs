//! Prefixes for networks that ask for none.

use ipnet::{IpNet, Ipv4Net};

use super::Error;
use super::host::Host;
use crate::ours;
use crate::spec::{Name, Network, Subnet};

/// The default network's IPv4 prefix.
const DEFAULT: &str = "192.168.0.0/24";
/// Where the IPv4 prefixes of other networks come from, in this order: private ones (RFC 1918), those first that are the
/// least likely to be in use elsewhere.
pub(super) const POOLS: [&str; 3] = ["172.24.0.0/13", "10.192.0.0/10", "192.168.0.0/16"];
/// Length of such a prefix in bits.
const LENGTH: u8 = 24;

/// The prefixes of the default network: always the same IPv4 one, and a local IPv6 one, which is left out where none is
/// free.
pub(super) fn default_subnets(
    instance: &str,
    host: &Host,
    networks: &[Network],
    ipv6: bool,
) -> Result<Vec<Subnet>, Error> {
    let name = Name::default_network();
    let v4: Subnet = DEFAULT.parse()?;
    if let Err(error) = host.check_free(v4, networks) {
        let free = subnets(instance, &name, host, networks, ipv6)?;
        let instead: Vec<String> = free.iter().map(|subnet| format!("--subnet {subnet}")).collect();
        let (clash, instead) = (error.clash(), instead.join(" "));
        return Err(Error::DefaultTaken { subnet: v4.net(), clash, instead });
    }
    Ok(std::iter::once(v4).chain(local(instance, &name, host, networks).filter(|_| ipv6)).collect())
}

/// The prefixes of a network that asks for none: the first of the [pools](POOLS) that overlaps nothing, and a local IPv6
/// one.
pub(super) fn subnets(
    instance: &str,
    name: &Name,
    host: &Host,
    networks: &[Network],
    ipv6: bool,
) -> Result<Vec<Subnet>, Error> {
    let parts = POOLS.iter().filter_map(|pool| pool.parse::<Ipv4Net>().ok()?.subnets(LENGTH).ok());
    let candidates = parts.flatten().filter_map(|net| Subnet::try_from(IpNet::V4(net)).ok());
    // The default network may come later, and takes no other.
    let is_default = |subnet: &Subnet| subnet.to_string() == DEFAULT;
    let v4 = candidates.filter(|it| !is_default(it)).find(|it| host.check_free(*it, networks).is_ok());
    let v4 = v4.ok_or_else(|| Error::PoolsTaken { name: name.clone(), pools: POOLS.join(", ") })?;
    Ok(std::iter::once(v4).chain(local(instance, name, host, networks).filter(|_| ipv6)).collect())
}

/// The first unique local prefix of a network that overlaps nothing.
fn local(instance: &str, name: &Name, host: &Host, networks: &[Network]) -> Option<Subnet> {
    let candidates = ours::local_prefixes(instance, name);
    let mut usable = candidates.filter_map(|prefix| Subnet::try_from(IpNet::V6(prefix)).ok());
    usable.find(|subnet| host.check_free(*subnet, networks).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Route;

    fn host(routes: &[&str]) -> Host {
        let route = |text: &&str| Route {
            destination: text.parse().unwrap(),
            interface: Some("eth0".to_owned()),
            gateway: None,
            metric: 0,
        };
        Host { interfaces: Vec::new(), routes: routes.iter().map(route).collect() }
    }

    fn chosen(routes: &[&str]) -> Result<Vec<String>, Error> {
        let chosen = subnets("default", &"blue".parse().unwrap(), &host(routes), &[], true)?;
        Ok(chosen.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_first_prefix_that_overlaps_nothing_is_chosen() {
        for (routes, expected) in [
            (&["0.0.0.0/0"][..], "172.24.0.0/24"),
            (&["172.24.0.0/16", "172.25.0.128/25"], "172.25.1.0/24"),
            (&["172.16.0.0/12"], "10.192.0.0/24"),
            (&["172.16.0.0/12", "10.0.0.0/8"], "192.168.1.0/24"),
        ] {
            let found = chosen(routes).unwrap();
            assert_eq!((found[0].as_str(), found.len()), (expected, 2), "{routes:?}");
            assert!(found[1].starts_with("fd") && found[1].ends_with("::/64"), "{found:?}");
        }
        let message = chosen(&["172.16.0.0/12", "10.0.0.0/8", "192.168.0.0/16"]).unwrap_err().to_string();
        assert!(message.contains("--subnet") && message.contains("172.24.0.0/13"), "{message}");
    }

    #[test]
    fn the_default_network_has_its_prefix_or_says_what_is_in_the_way() {
        let default = |routes: &[&str]| default_subnets("default", &host(routes), &[], true);
        assert_eq!(default(&[]).unwrap()[0].to_string(), DEFAULT);
        let message = default(&["192.168.0.0/16", "172.24.0.0/24"]).unwrap_err().to_string();
        for words in [
            "192.168.0.0/24",
            "the host's route to 192.168.0.0/16 over eth0",
            "vnet up --subnet 172.24.1.0/24",
        ] {
            assert!(message.contains(words), "{message}");
        }
    }
}
