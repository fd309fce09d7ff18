//! What is drawn.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::Serialize;

use crate::flow::Traffic;
use crate::output::bit_rate;
use crate::spec;

/// An instance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Graph {
    /// [`crate::output::VERSION`].
    pub version: u32,
    /// The instance's name.
    pub instance: String,
    /// Seconds over which rates were counted, `null` if they were not.
    pub interval: Option<f64>,
    /// The interfaces that lead to the world.
    pub uplinks: Vec<Uplink>,
    /// Its networks.
    pub networks: Vec<Network>,
    /// Endpoints on no network.
    pub unlinked: Vec<Endpoint>,
}

/// An interface that leads to the world.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Its addresses, without those of the link alone.
    pub addresses: Vec<IpAddr>,
    /// What goes over it, towards the world and from there.
    pub rates: Option<Rates>,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its bridge, or the interface that it has instead.
    pub bridge: String,
    /// Its prefixes.
    pub subnets: Vec<String>,
    /// Its gateways.
    pub gateways: Vec<IpAddr>,
    /// Its endpoints reach neither the world nor other networks.
    pub internal: bool,
    /// Its endpoints do not reach each other.
    pub isolated: bool,
    /// It has no bridge.
    pub no_bridge: bool,
    /// `nat`, `nat-unprotected` or `routed`.
    pub gateway_mode: spec::GatewayMode,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Endpoint {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The ports that are published for it.
    pub published: Vec<Published>,
    /// Its floating addresses.
    pub floating: Vec<Floating>,
    /// Bits that it may send in a second.
    pub egress_limit: Option<u64>,
    /// Bits that it may receive in a second.
    pub ingress_limit: Option<u64>,
    /// What it sends and receives.
    pub rates: Option<Rates>,
    /// Whether it has no namespace of its own but the host's.
    pub in_host: bool,
    /// The endpoint whose namespace it has, if it has none of its own.
    pub shares_with: Option<String>,
    /// Its direct links; of an endpoint on several networks on the first alone.
    pub direct: Vec<Direct>,
}

/// An endpoint's end of a direct link to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Direct {
    /// The other endpoint.
    pub to: String,
    /// Name of the interface.
    pub interface: String,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
}

impl Direct {
    pub(super) fn words(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        format!("{} ⇌ {}  {}", self.interface, self.to, addresses.join("  "))
    }
}

impl Graph {
    /// The two endpoints of each direct link, as `node` calls them by number of the network, or nothing for those on none,
    /// and by their place there.
    pub(super) fn direct_links(&self, node: fn(Option<usize>, usize) -> String) -> Vec<[String; 2]> {
        let networks = self.networks.iter().enumerate();
        let lists = networks.map(|(number, network)| (Some(number), &network.endpoints));
        let mut nodes = HashMap::new();
        let mut links = Vec::new();
        for (number, endpoints) in lists.chain([(None, &self.unlinked)]) {
            for (place, endpoint) in endpoints.iter().enumerate() {
                nodes.entry(endpoint.name.as_str()).or_insert_with(|| node(number, place));
                let others = endpoint.direct.iter().map(|direct| direct.to.as_str());
                // Both ends know of it.
                links.extend(others.filter(|to| endpoint.name.as_str() < *to).map(|to| [&endpoint.name, to]));
            }
        }
        let named = |ends: [&str; 2]| Some([nodes.get(ends[0])?.clone(), nodes.get(ends[1])?.clone()]);
        links.into_iter().filter_map(named).collect()
    }
}

/// A published port or range of ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Published {
    /// Where on the host, as `vnet portmap add` takes it.
    pub host: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: spec::Protocol,
    /// The endpoint's port or ports.
    pub target: String,
}

/// A floating address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Floating {
    /// The host's address.
    pub external: IpAddr,
    /// The endpoint's.
    pub address: IpAddr,
}

/// How much goes by in a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// Bits that are sent, with link headers.
    pub sent_bits: f64,
    /// Packets that are sent, an aggregate as one.
    pub sent_packets: f64,
    /// Bits that are received.
    pub received_bits: f64,
    /// Packets that are received.
    pub received_packets: f64,
}

impl Rates {
    /// What went by between two counts, which are so many seconds apart: of each what was sent, and what was received.
    /// An interface that was made anew meanwhile has counted less than before: nothing is known of it.
    #[must_use]
    pub fn between(before: [Traffic; 2], after: [Traffic; 2], seconds: f64) -> Option<Self> {
        if seconds <= 0.0 {
            return None;
        }
        let rate = |after: u64, before: u64| Some(after.checked_sub(before)? as f64 / seconds);
        let [sent, received] = [0, 1].map(|side| {
            let bytes = rate(after[side].bytes, before[side].bytes)?;
            Some((bytes * 8.0, rate(after[side].packets, before[side].packets)?))
        });
        let ((sent_bits, sent_packets), (received_bits, received_packets)) = sent.zip(received)?;
        Some(Self { sent_bits, sent_packets, received_bits, received_packets })
    }

    /// Both directions for people.
    pub(super) fn words(&self) -> String {
        format!("↑ {}  ↓ {}", bit_rate(self.sent_bits), bit_rate(self.received_bits))
    }
}

impl Network {
    /// What is not as usual of it.
    pub(super) fn flags(&self) -> Vec<&str> {
        let mode = self.gateway_mode;
        let flags = [
            (self.internal, "internal"),
            (self.isolated, "isolated"),
            (self.no_bridge, "no-bridge"),
            (mode != spec::GatewayMode::default(), mode.word()),
        ];
        flags.into_iter().filter(|(set, _)| *set).map(|(_, word)| word).collect()
    }
}

impl Published {
    pub(super) fn words(&self) -> String {
        format!("{}/{} → {}", self.host, self.protocol, self.target)
    }
}

impl Floating {
    pub(super) fn words(&self) -> String {
        format!("{} ⇄ {}", self.external, self.address)
    }
}

impl Endpoint {
    /// Whose namespace it has, if that is not its own.
    pub(super) fn namespace(&self) -> Option<String> {
        match (&self.shares_with, self.in_host) {
            (Some(other), _) => Some(format!("in the namespace of {other}")),
            (None, true) => Some("in the host's namespace".to_owned()),
            (None, false) => None,
        }
    }

    /// Its limits for people.
    pub(super) fn limits(&self) -> Option<String> {
        let words = |bits: Option<u64>| {
            bits.map(|bits| {
                spec::Rate::try_from(bits).map_or_else(|_| format!("{bits}bit"), |rate| rate.to_string())
            })
        };
        match (words(self.egress_limit), words(self.ingress_limit)) {
            (None, None) => None,
            (Some(egress), None) => Some(format!("limit ↑ {egress}")),
            (None, Some(ingress)) => Some(format!("limit ↓ {ingress}")),
            (Some(egress), Some(ingress)) => Some(format!("limit ↑ {egress}  ↓ {ingress}")),
        }
    }
}
