//! What vnet calls its own things: every name and hardware address it makes up, in one place.
//!
//! Made-up values are derived from the names of the instance and of the thing, so that the same commands give
//! the same network on any host. Where two would be equal, a further attempt gives another: callers walk the
//! candidates until one is free. Nothing is recognised as vnet's by its name: that is the store's to say.

use std::iter;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use ipnet::Ipv6Net;
use vnet_common::Mac;

use crate::spec::{InterfaceName, Name};

/// Bridge of the default network.
const DEFAULT_BRIDGE: &str = "vnet0";
/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";
/// How many candidates a walk tries before it gives up: each further one is as good as random.
pub const ATTEMPTS: u32 = 64;

/// Where a namespace of that name can be opened, and where `ip netns` looks for it.
#[must_use]
pub fn namespace_path(name: &Name) -> PathBuf {
    PathBuf::from(NAMESPACES).join(name.as_str())
}

/// Where the namespace of a router of that name can be opened: an instance of its own, called like it.
#[must_use]
pub fn home_path(instance: &str) -> PathBuf {
    PathBuf::from(NAMESPACES).join(instance)
}

/// Candidates for the host's end of a router's link to the outside: `vr-NAME`.
pub fn leg_interfaces(instance: &str) -> impl Iterator<Item = InterfaceName> {
    interface_names("vr-", instance, instance)
}

/// Candidates for the hardware address of a router outside.
pub fn leg_macs(instance: &str) -> impl Iterator<Item = Mac> + use<> {
    macs("router", instance, instance)
}

/// Candidates for a network's bridge: `vnet0` for the default network, `vnet-NAME` for the others.
pub fn bridge_names(instance: &str, network: &Name) -> impl Iterator<Item = InterfaceName> {
    let plain = if *network == Name::default_network() { DEFAULT_BRIDGE.parse().ok() } else { None };
    plain.into_iter().chain(interface_names("vnet-", instance, network.as_str()))
}

/// Candidates for the far end of what a network has in place of a bridge: `vnf-NAME`.
pub fn far_ends(instance: &str, network: &Name) -> impl Iterator<Item = InterfaceName> {
    interface_names("vnf-", instance, network.as_str())
}

/// Candidates for the host's end of an endpoint's veth pair: `vn-NAME`.
pub fn host_interfaces(instance: &str, endpoint: &Name) -> impl Iterator<Item = InterfaceName> {
    interface_names("vn-", instance, endpoint.as_str())
}

/// Candidates for the pair of interfaces between which fragments wait: `vfrag0` and `vfrag1`.
pub fn hold_interfaces(instance: &str) -> impl Iterator<Item = (InterfaceName, InterfaceName)> {
    let hashed = (0..ATTEMPTS).map({
        let instance = instance.to_owned();
        move |attempt| format!("-{:04x}", hash(&[b"hold", instance.as_bytes()], attempt) as u16)
    });
    iter::once(String::new()).chain(hashed).filter_map(|suffix| {
        Some((format!("vfrag0{suffix}").parse().ok()?, format!("vfrag1{suffix}").parse().ok()?))
    })
}

/// The prefix and the name if they fit, then the prefix, the beginning of the name, and a hash.
fn interface_names(prefix: &str, instance: &str, name: &str) -> impl Iterator<Item = InterfaceName> {
    let room = InterfaceName::MAX - prefix.len();
    let plain = (name.len() <= room).then(|| format!("{prefix}{name}"));
    let hashed = (0..ATTEMPTS).map({
        let start = &name[..name.len().min(room - 5)];
        let (prefix, instance, name) = (prefix.to_owned(), instance.to_owned(), name.to_owned());
        let start = start.to_owned();
        move |attempt| {
            let hash = hash(&[prefix.as_bytes(), instance.as_bytes(), name.as_bytes()], attempt);
            format!("{prefix}{start}-{:04x}", hash as u16)
        }
    });
    plain.into_iter().chain(hashed).filter_map(|text| text.parse().ok())
}

/// Candidates for the hardware address of a network's bridge.
pub fn bridge_macs(instance: &str, network: &Name) -> impl Iterator<Item = Mac> {
    macs("bridge", instance, network.as_str())
}

/// Candidates for the hardware address of an endpoint; for one of its further links, on a network.
pub fn endpoint_macs(
    instance: &str,
    endpoint: &Name,
    network: Option<&Name>,
) -> impl Iterator<Item = Mac> + use<> {
    let kind = network.map_or_else(|| "endpoint".to_owned(), |network| format!("endpoint on {network}"));
    macs(&kind, instance, endpoint.as_str())
}

/// Candidates for the hardware address of an endpoint's end of its direct link to another.
pub fn direct_macs(instance: &str, endpoint: &Name, other: &Name) -> impl Iterator<Item = Mac> + use<> {
    macs(&format!("direct link to {other}"), instance, endpoint.as_str())
}

/// Number of the routing table for what an endpoint sends from its addresses on a network: none of those that people
/// give, which are small, and as good as never that of another link in the same namespace.
#[must_use]
pub fn routing_table(instance: &str, endpoint: &Name, network: &Name) -> u32 {
    let words = [instance, endpoint.as_str(), network.as_str()].map(str::as_bytes);
    1 << 30 | hash(&[b"table", words[0], words[1], words[2]], 0) as u32 >> 2
}

/// Locally administered unicast addresses (IEEE 802: the second-lowest bit of the first byte set, the lowest
/// clear).
fn macs(kind: &str, instance: &str, name: &str) -> impl Iterator<Item = Mac> + use<> {
    let words = [kind.to_owned(), instance.to_owned(), name.to_owned()];
    (0..ATTEMPTS).map(move |attempt| {
        let [a, b, c, d, e, ..] = hash(&words.each_ref().map(String::as_bytes), attempt).to_be_bytes();
        Mac::new([0x02, a, b, c, d, e])
    })
}

/// Candidates for a network's unique local prefix: `fd`, 40 bits for the instance, 16 for the network (RFC 4193).
pub fn local_prefixes(instance: &str, network: &Name) -> impl Iterator<Item = Ipv6Net> {
    let words = [instance.to_owned(), network.as_str().to_owned()];
    (0..ATTEMPTS).filter_map(move |attempt| {
        let [instance, network] = words.each_ref().map(String::as_bytes);
        let [a, b, c, d, e, ..] = hash(&[b"global", instance], attempt).to_be_bytes();
        let [f, g, ..] = hash(&[b"subnet", instance, network], attempt).to_be_bytes();
        let prefix = Ipv6Addr::from([0xfd, a, b, c, d, e, f, g, 0, 0, 0, 0, 0, 0, 0, 0]);
        Ipv6Net::new(prefix, 64).ok()
    })
}

/// The link-local address that an interface with this hardware address gives itself (RFC 4291 appendix A).
#[must_use]
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.bytes;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// FNV-1a over the words, each closed by a zero byte, stirred by the finalizer of splitmix64: the same on every
/// machine and in every version, which the standard library's hash does not promise.
fn hash(words: &[&[u8]], attempt: u32) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let attempt = attempt.to_be_bytes();
    let bytes = words.iter().flat_map(|word| word.iter().copied().chain([0])).chain(attempt);
    let mut hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn plain_names_come_first_and_all_fit() {
        assert_eq!(bridge_names("default", &name("default")).next().unwrap().as_str(), "vnet0");
        assert_eq!(bridge_names("default", &name("blue")).next().unwrap().as_str(), "vnet-blue");
        assert_eq!(host_interfaces("default", &name("net1")).next().unwrap().as_str(), "vn-net1");
        let long = name("a-rather-long-name-for-an-endpoint");
        let candidates: BTreeSet<_> = host_interfaces("default", &long).collect();
        assert_eq!(candidates.len(), ATTEMPTS as usize);
        assert!(candidates.iter().all(|name| name.as_str().starts_with("vn-a-rathe")));
    }

    #[test]
    fn interfaces_for_fragments_come_in_pairs() {
        let pairs: Vec<_> = hold_interfaces("default").collect();
        assert_eq!((pairs[0].0.as_str(), pairs[0].1.as_str()), ("vfrag0", "vfrag1"));
        assert_eq!(pairs.len(), 1 + ATTEMPTS as usize);
        let ends: BTreeSet<_> = pairs.into_iter().flat_map(|(entrance, exit)| [entrance, exit]).collect();
        assert_eq!(ends.len(), 2 * (1 + ATTEMPTS as usize));
    }

    #[test]
    fn made_up_values_depend_on_the_names_and_on_nothing_else() {
        let mac = |instance, endpoint| endpoint_macs(instance, &name(endpoint), None).next().unwrap();
        assert_eq!(mac("default", "net1"), mac("default", "net1"));
        assert_ne!(mac("default", "net1"), mac("other", "net1"));
        assert_ne!(mac("default", "net1"), mac("default", "net2"));
        assert_ne!(mac("default", "net1"), bridge_macs("default", &name("net1")).next().unwrap());
        // Golden: a new version must not give the endpoints of a running instance other addresses.
        assert_eq!(mac("default", "net1").to_string(), "02:01:13:41:50:e4");
        let further = endpoint_macs("default", &name("net1"), Some(&name("blue"))).next().unwrap();
        assert_ne!(further, mac("default", "net1"));
        let table = |network| routing_table("default", &name("net1"), &name(network));
        assert_ne!(table("blue"), table("green"));
        assert_eq!(table("blue") >> 30, 1);
        let prefix = local_prefixes("default", &name("default")).next().unwrap();
        assert_eq!(prefix.to_string(), "fdfb:a981:5ea0:d22a::/64");
    }

    #[test]
    fn hardware_addresses_are_local_unicast() {
        for i in 0..1000 {
            for mac in endpoint_macs("default", &name(&format!("n{i}")), None).take(2) {
                assert_eq!(mac.bytes[0] & 3, 2);
            }
        }
    }

    #[test]
    fn a_link_local_address_follows_from_the_hardware_address() {
        let mac = Mac::new([0x02, 0x00, 0x5e, 0x10, 0x00, 0x01]);
        assert_eq!(link_local(mac).to_string(), "fe80::5eff:fe10:1");
    }
}
