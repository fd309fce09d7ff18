//! Parts of files that do not go together, found without a machine.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;

use ipnet::IpNet;
use vnet_common::Addr;

use super::problem::{Problem, Spot};
use super::read::{Key, Known, Named};
use crate::manage::{Description, Doubt, Part, Place};
use crate::spec::{Name, Namespace, TargetHost};

type Spots = HashMap<Part, Spot>;
type Places = HashMap<(Part, Key), Spot>;

/// What does not go together.
pub(super) struct Found {
    /// What is said twice, or overlaps.
    pub(super) conflicts: Vec<Problem>,
    /// What leads to what is not there.
    pub(super) missing: Vec<Missing>,
}

/// Something that is named and is nowhere.
pub(super) struct Missing {
    pub(super) spot: Spot,
    pub(super) message: String,
    pub(super) name: Unknown,
}

/// The name of something that is nowhere.
pub(super) enum Unknown {
    Network(Name),
    Endpoint(Name),
}

impl Unknown {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Network(name) | Self::Endpoint(name) => name.as_str(),
        }
    }

    /// Has it that something of this name may be described.
    pub(super) fn put_into(self, doubt: &mut Doubt) {
        match self {
            Self::Network(name) => doubt.networks.insert(name),
            Self::Endpoint(name) => doubt.endpoints.insert(name),
        };
    }
}

/// Everything that is said twice, overlaps, or leads to what is not there.
pub(super) fn find(
    description: &Description,
    spots: &Spots,
    places: &Places,
    known: &Known,
    named: &Named,
) -> Found {
    let mut conflicts = Vec::new();
    conflicts.extend(ports(description, spots));
    conflicts.extend(subnets(description, places));
    conflicts.extend(bridges_and_none(description, places));
    conflicts.extend(twice(description, spots, places));
    conflicts.extend(linked_twice(description, places));
    Found { conflicts, missing: missing(description, places, known, named) }
}

fn at(spots: &Spots, part: Part) -> Spot {
    spots.get(&part).copied().unwrap_or_default()
}

/// Ports that are published twice. Sorted by where they begin, each can only overlap the one that reaches furthest of
/// those before it.
fn ports(description: &Description, spots: &Spots) -> Vec<Problem> {
    let mut all: Vec<_> = description.port_maps.iter().enumerate().collect();
    all.sort_by_key(|(_, it)| (it.protocol, it.published.host, it.published.ports));
    let mut furthest: Option<usize> = None;
    let mut found = Vec::new();
    for (nth, request) in all {
        let ports = request.published.ports;
        let before = furthest.map(|before| (before, &description.port_maps[before]));
        let same_group = before.filter(|(_, other)| {
            (other.protocol, other.published.host) == (request.protocol, request.published.host)
        });
        let Some((before, other)) = same_group else {
            furthest = Some(nth);
            continue;
        };
        if other.published.ports.last() >= ports.first() {
            // The one that stands later in the files is the one too many.
            let (first, second) = (before.min(nth), before.max(nth));
            let [a, b] = [first, second].map(|nth| description.port_maps[nth].published);
            let message =
                format!("{b}/{} is published twice, as {a}: leave one of the two out", request.protocol);
            let [other, spot] = [first, second].map(|nth| at(spots, Part::PortMap(nth)));
            found.push(Problem { spot, message, other: Some(other) });
        }
        if ports.last() > other.published.ports.last() {
            furthest = Some(nth);
        }
    }
    found
}

/// Prefixes of networks that overlap.
fn subnets(description: &Description, places: &Places) -> Vec<Problem> {
    let bounds = |net: IpNet| (Addr::from(net.network()).bytes, Addr::from(net.broadcast()).bytes);
    let of = |nth: usize| {
        description.networks[nth].subnets.iter().enumerate().map(move |(at, net)| (nth, at, *net))
    };
    let mut all: Vec<_> = (0..description.networks.len()).flat_map(of).collect();
    all.sort_by_key(|(_, _, subnet)| bounds(subnet.net()));
    let mut found = Vec::new();
    let mut furthest: Option<(usize, usize, crate::spec::Subnet)> = None;
    for (nth, place, subnet) in all {
        let (first, last) = bounds(subnet.net());
        let Some(before) = furthest.filter(|(_, _, other)| bounds(other.net()).1 >= first) else {
            furthest = Some((nth, place, subnet));
            continue;
        };
        let (earlier, later) = if (before.0, before.1) < (nth, place) {
            (before, (nth, place, subnet))
        } else {
            ((nth, place, subnet), before)
        };
        if earlier.0 != later.0 {
            let spot = |(nth, place, _): (usize, usize, _)| {
                places.get(&(Part::Network(nth), Key::Nth(place))).copied().unwrap_or_default()
            };
            let name = &description.networks[earlier.0].name;
            let message = format!(
                "{} overlaps {} of network {name}: choose another prefix for one of the two",
                later.2, earlier.2
            );
            found.push(Problem { spot: spot(later), message, other: Some(spot(earlier)) });
        }
        if last > bounds(before.2.net()).1 {
            furthest = Some((nth, place, subnet));
        }
    }
    found
}

/// Networks that are to have a bridge of a name, and none.
fn bridges_and_none(description: &Description, places: &Places) -> Vec<Problem> {
    let mut found = Vec::new();
    for (nth, network) in description.networks.iter().enumerate() {
        if let Some(bridge) = network.bridge.as_ref().filter(|_| network.no_bridge) {
            let spot = places.get(&(Part::Network(nth), Key::Bridge)).copied().unwrap_or_default();
            let message = format!(
                "network {} is to have the bridge {bridge} and none: leave one of the two out",
                network.name
            );
            found.push(Problem { spot, message, other: None });
        }
    }
    found
}

/// Things that only one can have, with who has them.
struct Alone<'a, T> {
    what: &'a str,
    had: HashMap<T, Spot>,
    found: Vec<Problem>,
}

impl<'a, T: Hash + Eq + ToString> Alone<'a, T> {
    fn new(what: &'a str) -> Self {
        Self { what, had: HashMap::new(), found: Vec::new() }
    }

    fn take(&mut self, it: T, spot: Spot) {
        match self.had.entry(it) {
            Entry::Vacant(free) => {
                free.insert(spot);
            }
            Entry::Occupied(had) => {
                let message =
                    format!("{} {} is there twice: change one of the two", self.what, had.key().to_string());
                self.found.push(Problem { spot, message, other: Some(*had.get()) });
            }
        }
    }
}

fn twice(description: &Description, spots: &Spots, places: &Places) -> Vec<Problem> {
    let spot = |part, key| places.get(&(part, key)).copied().unwrap_or_default();
    let mut bridges = Alone::new("bridge");
    for (nth, network) in description.networks.iter().enumerate() {
        if let Some(bridge) = &network.bridge {
            bridges.take(bridge.clone(), spot(Part::Network(nth), Key::Bridge));
        }
    }
    let mut addresses: Alone<'_, IpAddr> = Alone::new("address");
    let mut macs = Alone::new("hardware address");
    for (nth, endpoint) in description.endpoints.iter().enumerate() {
        for (link, place) in endpoint.places.iter().enumerate() {
            for (at, addr) in place.addresses.iter().enumerate() {
                addresses.take(*addr, spot(Part::Endpoint(nth), Key::Address(link, at)));
            }
            if let Some(mac) = place.mac {
                macs.take(mac, spot(Part::Endpoint(nth), Key::Mac(link)));
            }
        }
    }
    let mut directs = Alone::new("the direct link between");
    for (nth, request) in description.directs.iter().enumerate() {
        let [a, b] = &request.endpoints;
        directs.take(format!("{} and {}", a.min(b), a.max(b)), at(spots, Part::Direct(nth)));
    }
    let mut rules = Alone::new("masquerade of");
    for (nth, rule) in description.masquerades.iter().enumerate() {
        rules.take(rule.subnet, at(spots, Part::Masquerade(nth)));
    }
    let mut floating: Alone<'_, IpAddr> = Alone::new("floating address");
    for (nth, request) in description.floating.iter().enumerate() {
        floating.take(request.external, at(spots, Part::Floating(nth)));
    }
    let mut excluded = Alone::new("excluded prefix");
    for (nth, prefix) in description.excluded.iter().enumerate() {
        excluded.take(*prefix, at(spots, Part::Excluded(nth)));
    }
    let mut denied = Alone::new("denied prefix");
    for (nth, prefix) in description.denied.iter().enumerate() {
        denied.take(*prefix, at(spots, Part::Denied(nth)));
    }
    [
        bridges.found,
        addresses.found,
        macs.found,
        directs.found,
        rules.found,
        floating.found,
        excluded.found,
        denied.found,
        limited_twice(description, spots),
    ]
    .concat()
}

/// Cgroups that have two limits.
pub(super) fn limited_twice(description: &Description, spots: &Spots) -> Vec<Problem> {
    let mut limits = Alone::new("the limit of");
    for (nth, request) in description.cgroup_limits.iter().enumerate() {
        limits.take(request.cgroup.in_full(), at(spots, Part::CgroupLimit(nth)));
    }
    limits.found
}

/// Endpoints that have two links to one network.
fn linked_twice(description: &Description, places: &Places) -> Vec<Problem> {
    let mut found = Vec::new();
    for (nth, endpoint) in description.endpoints.iter().enumerate() {
        for (link, Place { network, .. }) in endpoint.places.iter().enumerate() {
            if endpoint.places[..link].iter().any(|other| other.network == *network) {
                let spot =
                    places.get(&(Part::Endpoint(nth), Key::Network(link))).copied().unwrap_or_default();
                let message = format!(
                    "endpoint {} is on network {network} twice: leave one of the two links out",
                    endpoint.name
                );
                found.push(Problem { spot, message, other: None });
            }
        }
    }
    found
}

/// Networks and endpoints that are named and are nowhere. An address may turn out to be one that is chosen.
fn missing(description: &Description, places: &Places, known: &Known, named: &Named) -> Vec<Missing> {
    let mut found = Vec::new();
    let mut missing = |part, key, name: Unknown| {
        let spot = places.get(&(part, key)).copied().unwrap_or_default();
        let message = match &name {
            Unknown::Network(name) => format!("there is no network {name}: describe it as [networks.{name}]"),
            Unknown::Endpoint(name) => {
                format!("there is no endpoint {name}: describe it as [endpoints.{name}]")
            }
        };
        found.push(Missing { spot, message, name });
    };
    for (nth, endpoint) in description.endpoints.iter().enumerate() {
        for (link, Place { network, .. }) in endpoint.places.iter().enumerate() {
            let is_known = *network == Name::default_network()
                || named.networks.contains_key(network)
                || known.networks.contains(network);
            if !is_known {
                missing(Part::Endpoint(nth), Key::Network(link), Unknown::Network(network.clone()));
            }
        }
        if let Namespace::Shared { with, .. } = &endpoint.namespace
            && !named.endpoints.contains_key(with)
            && !known.endpoints.contains(with)
        {
            missing(Part::Endpoint(nth), Key::Mode, Unknown::Endpoint(with.clone()));
        }
    }
    for (nth, request) in description.directs.iter().enumerate() {
        for name in &request.endpoints {
            if !named.endpoints.contains_key(name) && !known.endpoints.contains(name) {
                missing(Part::Direct(nth), Key::Target, Unknown::Endpoint(name.clone()));
            }
        }
    }
    let port_maps = description.port_maps.iter().enumerate();
    let port_maps = port_maps.map(|(nth, request)| (Part::PortMap(nth), &request.target.host));
    let floating = description.floating.iter().enumerate();
    let floating = floating.map(|(nth, request)| (Part::Floating(nth), &request.target));
    for (part, target) in port_maps.chain(floating) {
        let TargetHost::Name(name) = target else { continue };
        if !named.endpoints.contains_key(name) && !known.endpoints.contains(name) {
            missing(part, Key::Target, Unknown::Endpoint(name.clone()));
        }
    }
    found
}
