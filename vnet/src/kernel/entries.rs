//! Resources that are one entry of a map.
//!
//! Resources name interfaces, entries number them; the number is looked up when an entry is written or compared.
//! An entry is removed by its key, which has no number in it but for uplinks, so that it can be removed when the
//! interface is gone.

use std::net::IpAddr;

use ipnet::IpNet;
use vnet_common::{
    ABI_VERSION, Addr, AllowFromKey, DatapathConfig, EndpointValue, FloatingValue, HostAddressValue,
    MasqueradeValue, NetworkValue, PortMapKey, PortMapValue, PrefixKey, UplinkValue,
};

use super::cgroup_limit;
use super::error::Error;
use super::interface::index_if_any;
use super::maps::{Maps, OTHER_VALUE};
use super::netlink::{Address, Netlink};
use crate::plan::{Op, Resource, State};

/// The configuration as loading leaves it: of no namespace, so that the cgroup hooks act nowhere.
pub(super) const UNCONFIGURED: DatapathConfig = DatapathConfig::DEFAULT;

/// The value of every prefix in `allow_from`: being there is all it says.
const ALLOWED: u32 = 0;

/// A resource's entry, with all it takes from the running system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Config(DatapathConfig),
    Uplink(u32, UplinkValue),
    HostAddress(Addr, HostAddressValue),
    Network(PrefixKey, NetworkValue),
    Masquerade(PrefixKey, MasqueradeValue),
    Unmasqueraded(PrefixKey),
    Floating(Addr, FloatingValue),
    Denied(PrefixKey),
    Endpoint(Addr, EndpointValue),
    AllowFrom(AllowFromKey),
    PortMap(PortMapKey, PortMapValue),
}

impl Entry {
    /// The entry of a resource that is one.
    fn of(resource: &Resource, netlink: &Netlink) -> Result<Self, Error> {
        Ok(match resource {
            Resource::Config { config, hold } => Self::Config(DatapathConfig {
                abi_version: ABI_VERSION,
                netns_cookie: netlink.cookie().map_err(|source| Error::NamespaceCookie { source })?,
                hold: hold.as_deref().map_or(Ok(0), |hold| index_of(netlink, hold))?,
                ..*config
            }),
            Resource::Uplink { interface } => {
                let index = index_of(netlink, interface)?;
                Self::Uplink(index, uplink(netlink, interface, index)?)
            }
            Resource::HostAddress { addr, interface } => Self::HostAddress(
                Addr::from(*addr),
                HostAddressValue { ifindex: index_of(netlink, interface)? },
            ),
            Resource::Network { subnet, bridge, zone, flags, gateway } => {
                let value = NetworkValue {
                    bridge: index_of(netlink, bridge)?,
                    zone: *zone,
                    flags: *flags,
                    reserved: 0,
                    gateway: Addr::from(*gateway),
                };
                Self::Network(prefix(subnet), value)
            }
            Resource::Masquerade { subnet, to, one_to_one } => {
                let any = Addr::from(subnet.addr()).any_of_family();
                let flags = if *one_to_one { MasqueradeValue::FLAG_ONE_TO_ONE } else { 0 };
                Self::Masquerade(prefix(subnet), MasqueradeValue { to: to.map_or(any, Addr::from), flags })
            }
            Resource::Unmasqueraded { subnet } => Self::Unmasqueraded(prefix(subnet)),
            Resource::Floating { external, addr, zone } => {
                let value = FloatingValue { addr: Addr::from(*addr), zone: *zone, reserved: [0; 2] };
                Self::Floating(Addr::from(*external), value)
            }
            Resource::Denied { subnet } => Self::Denied(prefix(subnet)),
            Resource::Endpoint { addr, .. } => Self::Endpoint(*addr, endpoint(netlink, resource)?),
            Resource::AllowFrom { key } => Self::AllowFrom(*key),
            Resource::PortMap { key, value } => Self::PortMap(*key, *value),
            other => unreachable!("{other} is not an entry that is found by its description"),
        })
    }

    fn state(&self, maps: &Maps) -> Result<State, Error> {
        match self {
            Self::Config(config) => Ok(match maps.config.get(&0)? {
                None => State::Absent,
                // How much is logged is for the resident part alone to say.
                Some(found) if found == (DatapathConfig { log_level: found.log_level, ..*config }) => {
                    State::Present
                }
                Some(UNCONFIGURED) => State::Absent,
                Some(_) => State::Differs(OTHER_VALUE.to_owned()),
            }),
            Self::Uplink(key, value) => maps.uplinks.state(key, value),
            Self::HostAddress(key, value) => maps.host_addresses.state(key, value),
            Self::Network(key, value) => maps.networks.exact_state(key, value),
            // Only a floating address's own entry has this flag, so it needs not be looked for among the others.
            Self::Masquerade(key, value)
                if value.flags & MasqueradeValue::FLAG_ONE_TO_ONE != 0
                    && maps.masquerade.get(key)? == Some(*value) =>
            {
                Ok(State::Present)
            }
            Self::Masquerade(key, value) => maps.masquerade.exact_state(key, value),
            Self::Unmasqueraded(key) => maps.unmasqueraded.exact_state(key, &0),
            Self::Floating(key, value) => maps.floating.state(key, value),
            // The value says which prefix it is that was found, so none has to be looked for among the others.
            Self::Denied(key) => {
                let found = maps.denied.get(key)? == Some(key.prefix_len);
                Ok(if found { State::Present } else { State::Absent })
            }
            Self::Endpoint(key, value) => maps.endpoints.state(key, value),
            // None of a mapping's prefixes is inside another, so one that covers it is it.
            Self::AllowFrom(key) => maps.allow_from.state(key, &ALLOWED),
            Self::PortMap(key, value) => maps.port_map.state(key, value),
        }
    }

    fn write(self, maps: &Maps) -> Result<(), Error> {
        match self {
            Self::Config(config) => {
                let log_level = maps.config.get(&0)?.map_or(0, |found| found.log_level);
                maps.config.insert(0, DatapathConfig { log_level, ..config })
            }
            Self::Uplink(key, value) => maps.uplinks.insert(key, value),
            Self::HostAddress(key, value) => maps.host_addresses.insert(key, value),
            Self::Network(key, value) => maps.networks.insert(key, value),
            Self::Masquerade(key, value) => maps.masquerade.insert(key, value),
            Self::Unmasqueraded(key) => maps.unmasqueraded.insert(key, 0),
            Self::Floating(key, value) => maps.floating.insert(key, value),
            Self::Denied(key) => maps.denied.insert(key, key.prefix_len),
            Self::Endpoint(key, value) => maps.endpoints.insert(key, value),
            Self::AllowFrom(key) => maps.allow_from.insert(key, ALLOWED),
            Self::PortMap(key, value) => maps.port_map.insert(key, value),
        }
    }
}

/// How the entry of a resource stands.
pub(super) fn state(maps: &Maps, netlink: &Netlink, resource: &Resource) -> Result<State, Error> {
    if let Resource::CgroupLimit(share) = resource {
        let states = cgroup_limit::states(maps, std::slice::from_ref(share))?;
        return Ok(states.into_iter().next().unwrap_or(State::Absent));
    }
    match Entry::of(resource, netlink) {
        Ok(entry) => entry.state(maps),
        Err(error @ Error::NoInterface { .. }) if has_key(maps, resource)? => {
            Ok(State::Differs(error.to_string()))
        }
        Err(Error::NoInterface { .. }) => Ok(State::Absent),
        Err(error) => Err(error),
    }
}

/// How published ports stand, or limits of cgroups, all of them by as few questions as it takes; `None` if not all are
/// that.
pub(super) fn states_together(maps: &Maps, resources: &[Resource]) -> Option<Result<Vec<State>, Error>> {
    let share = |resource: &Resource| match resource {
        Resource::CgroupLimit(share) => Some(share.clone()),
        _ => None,
    };
    if let Some(shares) = resources.iter().map(share).collect::<Option<Vec<_>>>() {
        return Some(cgroup_limit::states(maps, &shares));
    }
    let entry = |resource: &Resource| match resource {
        Resource::PortMap { key, value } => Some((*key, *value)),
        _ => None,
    };
    let wanted: Vec<_> = resources.iter().map(entry).collect::<Option<_>>()?;
    Some(maps.port_map.states(&wanted))
}

/// Writes the entry of a resource.
pub(super) async fn create(maps: &Maps, netlink: &Netlink, resource: &Resource) -> Result<(), Error> {
    if matches!(resource, Resource::Uplink { .. }) {
        remove_dead_uplinks(maps, netlink).await?;
    }
    if let Resource::CgroupLimit(share) = resource {
        return cgroup_limit::create(maps, share);
    }
    Entry::of(resource, netlink)?.write(maps)
}

/// Writes or deletes the entries of steps that join each other.
pub(super) fn apply_joined(maps: &Maps, ops: &[Op]) -> Result<(), (usize, Box<Error>)> {
    let entry = |op: &Op| match op {
        Op::Create(Resource::PortMap { key, value })
        | Op::Change(Resource::PortMap { key, value })
        | Op::Remove(Resource::PortMap { key, value }) => (*key, *value),
        other => unreachable!("nothing joins `{other}`"),
    };
    let (keys, values): (Vec<_>, Vec<_>) = ops.iter().map(entry).unzip();
    if matches!(ops, [Op::Remove(_), ..]) {
        maps.port_map.remove_all(&keys)
    } else {
        maps.port_map.insert_all(&keys, &values)
    }
}

/// Deletes the entry of a resource. One that is not there, or whose map is not, is deleted already.
pub(super) async fn remove(maps: &Maps, netlink: &Netlink, resource: &Resource) -> Result<(), Error> {
    match resource {
        Resource::Config { .. } => {
            // An array's entry cannot be deleted.
            if maps.config.get(&0)?.is_some() {
                maps.config.insert(0, UNCONFIGURED)?;
            }
        }
        Resource::Uplink { interface } => {
            if let Some(index) = index_if_any(netlink, interface)? {
                maps.uplinks.remove(&index)?;
            }
            remove_dead_uplinks(maps, netlink).await?;
        }
        Resource::HostAddress { addr, .. } => drop(maps.host_addresses.remove(&Addr::from(*addr))?),
        Resource::Network { subnet, .. } => drop(maps.networks.remove(&prefix(subnet))?),
        Resource::Masquerade { subnet, .. } => drop(maps.masquerade.remove(&prefix(subnet))?),
        Resource::Endpoint { addr, .. } => {
            // What it had in use goes with it.
            if let Some(endpoint) = maps.endpoints.get(addr)? {
                maps.endpoint_use.remove(&endpoint.ifindex)?;
            }
            maps.endpoints.remove(addr)?;
        }
        Resource::AllowFrom { key } => drop(maps.allow_from.remove(key)?),
        Resource::Unmasqueraded { subnet } => drop(maps.unmasqueraded.remove(&prefix(subnet))?),
        Resource::CgroupLimit(share) => cgroup_limit::remove(maps, share)?,
        Resource::Denied { subnet } => drop(maps.denied.remove(&prefix(subnet))?),
        Resource::Floating { external, .. } => drop(maps.floating.remove(&Addr::from(*external))?),
        Resource::PortMap { key, .. } => drop(maps.port_map.remove(key)?),
        other => unreachable!("{other} is not an entry of a map"),
    }
    Ok(())
}

/// Whether there is an entry for a resource, whatever it says.
fn has_key(maps: &Maps, resource: &Resource) -> Result<bool, Error> {
    Ok(match resource {
        Resource::HostAddress { addr, .. } => maps.host_addresses.get(&Addr::from(*addr))?.is_some(),
        Resource::Network { subnet, .. } => maps.networks.entries()?.contains_key(&prefix(subnet)),
        Resource::Endpoint { addr, .. } => maps.endpoints.get(addr)?.is_some(),
        // The others have no interface, or it is the key.
        _ => false,
    })
}

/// Removes the entries of interfaces that are gone, whose names nobody knows any more.
async fn remove_dead_uplinks(maps: &Maps, netlink: &Netlink) -> Result<(), Error> {
    let links = netlink.links().await.map_err(|source| Error::ReadInterfaces { source })?;
    for index in maps.uplinks.entries()?.into_keys() {
        if links.iter().all(|link| link.index != index) {
            maps.uplinks.remove(&index)?;
        }
    }
    Ok(())
}

fn endpoint(netlink: &Netlink, resource: &Resource) -> Result<EndpointValue, Error> {
    let Resource::Endpoint {
        addr: _,
        interface,
        bridge,
        mac,
        gateway_mac,
        zone,
        mtu,
        prefix_len,
        flags,
        mapping,
        filtering,
    } = resource
    else {
        unreachable!("{resource} is not an endpoint")
    };
    Ok(EndpointValue {
        ifindex: index_of(netlink, interface)?,
        bridge: index_of(netlink, bridge)?,
        mac: *mac,
        gateway_mac: *gateway_mac,
        zone: *zone,
        mtu: *mtu,
        prefix_len: *prefix_len,
        flags: *flags,
        mapping: *mapping,
        filtering: *filtering,
    })
}

fn uplink(netlink: &Netlink, interface: &str, index: u32) -> Result<UplinkValue, Error> {
    let addresses = netlink.addresses(Some(index));
    let addresses =
        addresses.map_err(|source| Error::ReadInterface { interface: interface.to_owned(), source })?;
    Ok(UplinkValue {
        v4: first_global(&addresses, IpAddr::is_ipv4).map_or(Addr::ANY_V4, Addr::from),
        v6: first_global(&addresses, IpAddr::is_ipv6).map_or(Addr::ANY_V6, Addr::from),
    })
}

/// The address of a family to send from: the first that is valid everywhere, one that should be avoided only if
/// there is no other.
fn first_global(addresses: &[Address], of_family: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let candidates = || addresses.iter().filter(|address| address.global && of_family(&address.net.addr()));
    let good = candidates().find(|address| !address.avoided);
    good.or_else(|| candidates().next()).map(|address| address.net.addr())
}

/// A prefix as a key: counted over 128 bits, nothing set behind its length.
fn prefix(net: &IpNet) -> PrefixKey {
    let of_the_128 = match net {
        IpNet::V4(_) => 96,
        IpNet::V6(_) => 0,
    };
    PrefixKey { prefix_len: of_the_128 + u32::from(net.prefix_len()), addr: Addr::from(net.network()) }
}

fn index_of(netlink: &Netlink, interface: &str) -> Result<u32, Error> {
    index_if_any(netlink, interface)?.ok_or_else(|| Error::NoInterface { interface: interface.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_both_families_are_counted_over_128_bits() {
        for (net, prefix_len, addr) in [
            ("192.168.0.7/24", 120, "192.168.0.0"),
            ("0.0.0.0/0", 96, "0.0.0.0"),
            ("10.1.2.3/32", 128, "10.1.2.3"),
            ("fd00::7/64", 64, "fd00::"),
            ("::/0", 0, "::"),
        ] {
            let addr = Addr::from(addr.parse::<IpAddr>().unwrap());
            assert_eq!(prefix(&net.parse().unwrap()), PrefixKey { prefix_len, addr }, "{net}");
        }
    }

    #[test]
    fn the_first_good_global_address_is_chosen() {
        let address =
            |net: &str, global, avoided| Address { index: 1, net: net.parse().unwrap(), global, avoided };
        let addresses = [
            address("fe80::1/64", false, false),
            address("2001:db8::1/64", true, true),
            address("2001:db8::2/64", true, false),
            address("2001:db8::3/64", true, false),
            address("192.0.2.1/24", true, true),
        ];
        assert_eq!(first_global(&addresses, IpAddr::is_ipv6), Some("2001:db8::2".parse().unwrap()));
        assert_eq!(first_global(&addresses, IpAddr::is_ipv4), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(first_global(&addresses[..1], IpAddr::is_ipv6), None);
    }
}
