//! From where a published port is reached, and what the host's own firewall would have said to that.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use vnet_common::Addr;

use super::Manager;
use crate::firewall::{Connection, Hook, Link, Netfilter, Verdict, judge};
use crate::kernel::Addressed;
use crate::reconcile::Machine;
use crate::spec::{Firewall, Floating, InterfaceName, Name, Network, PortMap, Settings};

/// Whom a mapping serves, beside the host itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The uplinks by which the world reaches it; none if it is published on a loopback address.
    pub uplinks: Vec<UplinkReach>,
    /// The networks whose endpoints reach it by the host's addresses.
    pub networks: Vec<Name>,
    /// What the host's firewall says to the world, or would say if it were asked; `None` for what is not open to the
    /// world.
    pub firewall: Option<Verdict>,
}

/// An uplink, and the host's addresses there that lead to a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkReach {
    /// The uplink.
    pub interface: InterfaceName,
    /// The addresses, without those that are valid on one link only.
    pub addresses: Vec<IpAddr>,
}

/// The host's addresses at which its ports are published: all of a floating address leads to its endpoint, before anybody
/// looks for a port.
#[must_use]
pub fn without_floating(mut interfaces: Vec<Addressed>, floatings: &[Floating]) -> Vec<Addressed> {
    let floating: HashSet<IpAddr> = floatings.iter().map(|floating| floating.external).collect();
    for interface in &mut interfaces {
        interface.addresses.retain(|net| !floating.contains(&net.addr()));
    }
    interfaces
}

/// From where a mapping is reached; `interfaces` are those [without floating addresses](without_floating).
#[must_use]
pub fn reach(
    netfilter: &Netfilter,
    interfaces: &[Addressed],
    settings: &Settings,
    networks: &[Network],
    mapping: &PortMap,
) -> Reach {
    if is_for_the_host_alone(mapping) {
        return Reach { uplinks: Vec::new(), networks: Vec::new(), firewall: None };
    }
    let uplink = |interface: &InterfaceName| UplinkReach {
        interface: interface.clone(),
        addresses: addresses(interfaces, interface, mapping),
    };
    let has_family = |network: &&Network| {
        network.segments.iter().any(|segment| leads_to(mapping, segment.gateway.is_ipv4()))
    };
    Reach {
        uplinks: settings.uplinks.iter().map(uplink).collect(),
        networks: networks.iter().filter(has_family).map(|network| network.name.clone()).collect(),
        firewall: Some(firewall_says(netfilter, interfaces, settings, networks, mapping)),
    }
}

/// What the host's firewall does to a client out there, the gravest of what it says at all uplinks and for all families:
/// where it is respected, to the packets that are forwarded for the mapping; where it is not asked, what it would do if
/// the mapping were a program of the host.
#[must_use]
pub(super) fn firewall_says(
    netfilter: &Netfilter,
    interfaces: &[Addressed],
    settings: &Settings,
    networks: &[Network],
    mapping: &PortMap,
) -> Verdict {
    if netfilter.is_empty() {
        return Verdict::Open;
    }
    let connections = settings.uplinks.iter().flat_map(|uplink| match settings.firewall {
        Firewall::Respect => forwarded(interfaces, uplink, networks, mapping),
        Firewall::Bypass => received(interfaces, uplink, mapping),
    });
    connections.map(|connection| judge(netfilter, &connection)).fold(Verdict::Open, Verdict::worse)
}

/// The connections that a mapping's clients would have to a program of the host.
fn received(interfaces: &[Addressed], uplink: &InterfaceName, mapping: &PortMap) -> Vec<Connection> {
    let families = [true, false].into_iter().filter(|v4| leads_to(mapping, *v4));
    let connection = |v4| Connection {
        hook: Hook::Input,
        input: link(interfaces, uplink),
        output: None,
        v4,
        destination: addresses(interfaces, uplink, mapping).into_iter().find(|addr| addr.is_ipv4() == v4),
        protocol: mapping.protocol,
        ports: mapping.published.ports,
    };
    families.map(connection).collect()
}

/// The connections that a mapping's clients have to its targets, once they are translated.
pub(super) fn forwarded(
    interfaces: &[Addressed],
    uplink: &InterfaceName,
    networks: &[Network],
    mapping: &PortMap,
) -> Vec<Connection> {
    let network = networks.iter().find(|network| network.number == mapping.number);
    let connection = |(network, target): (&Network, &IpAddr)| Connection {
        hook: Hook::Forward,
        input: link(interfaces, uplink),
        output: Some(link(interfaces, &network.bridge)),
        v4: target.is_ipv4(),
        destination: Some(*target),
        protocol: mapping.protocol,
        ports: mapping.target_ports,
    };
    let targets =
        network.iter().flat_map(|network| mapping.targets.iter().map(move |target| (*network, target)));
    targets.map(connection).collect()
}

/// An interface as rules may name it; one that is not there has no index.
pub(super) fn link(interfaces: &[Addressed], name: &InterfaceName) -> Link {
    let index =
        interfaces.iter().find(|interface| interface.name == name.as_str()).map_or(0, |found| found.index);
    Link { name: name.to_string(), index }
}

/// Whether a mapping is published on a loopback address.
pub(super) fn is_for_the_host_alone(mapping: &PortMap) -> bool {
    mapping.published.host.is_some_and(|host| Addr::from(host).is_loopback())
}

/// Whether a mapping serves clients of a family.
pub(super) fn leads_to(mapping: &PortMap, v4: bool) -> bool {
    mapping.targets.iter().any(|target| target.is_ipv4() == v4)
}

/// The addresses of an uplink that lead to a mapping: the one it is published on, or those of its families.
fn addresses(interfaces: &[Addressed], uplink: &InterfaceName, mapping: &PortMap) -> Vec<IpAddr> {
    if let Some(host) = mapping.published.host {
        return vec![host];
    }
    let of_uplink = interfaces.iter().filter(|interface| interface.name == uplink.as_str());
    let own = of_uplink.flat_map(|interface| interface.addresses.iter().map(IpNet::addr));
    own.filter(|addr| leads_to(mapping, addr.is_ipv4()) && !Addr::from(*addr).is_v6_link_local()).collect()
}

impl<M: Machine> Manager<M> {
    /// What is worth knowing of the host's firewall when ports are published. That it cannot be read is no reason
    /// not to publish.
    pub(super) fn firewall_notes(
        &self,
        settings: &Settings,
        interfaces: Vec<Addressed>,
        networks: &[Network],
        mappings: &[PortMap],
    ) -> Vec<String> {
        // Who says which clients may use it has thought of strangers.
        let open = |mapping: &&PortMap| !is_for_the_host_alone(mapping) && mapping.allow_from.is_empty();
        let open: Vec<&PortMap> = mappings.iter().filter(open).collect();
        let [first, others @ ..] = &open[..] else { return Vec::new() };
        let netfilter = match self.machine.netfilter() {
            Ok(netfilter) => netfilter,
            Err(error) => {
                let (why, more) = (in_full(&error), more(others.len()));
                return vec![format!(
                    "what the host's firewall says to {}{more} is not known: {why}",
                    ports(first)
                )];
            }
        };
        if netfilter.is_empty() {
            return Vec::new();
        }
        let says = |mapping: &&PortMap| {
            let verdict = firewall_says(&netfilter, &interfaces, settings, networks, mapping);
            note(mapping, &verdict, settings.firewall)
        };
        let mut notes: Vec<String> = open.iter().filter_map(says).collect();
        let left_out = notes.len().saturating_sub(MAX_NOTES);
        if left_out > 0 {
            notes.truncate(MAX_NOTES);
            notes.push(format!(
                "the same goes for {left_out} more of these mappings: `vnet doctor` names them all"
            ));
        }
        notes
    }
}

/// How many mappings of one command get a note of their own.
const MAX_NOTES: usize = 10;

/// " and N more", if there are more.
fn more(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" and {others} more mappings") }
}

/// The ways out, for somebody who would rather have it as the firewall says.
const WAYS_OUT: &str = "restrict it with --allow-from CIDR, publish it on 127.0.0.1 for this host alone, or have \
                        the host's rules for forwarded packets decide with `vnet up --firewall respect`";

/// What to tell about a verdict; nothing if the port is as open as the firewall lets people think.
fn note(mapping: &PortMap, verdict: &Verdict, firewall: Firewall) -> Option<String> {
    let ports = ports(mapping);
    if firewall == Firewall::Respect {
        let block = verdict.block()?;
        let unless =
            verdict.depends_on().map(|why| format!(" unless {why} makes a difference")).unwrap_or_default();
        return Some(format!(
            "the host's firewall blocks {ports}{unless}, by {block}: `{}` opens it",
            block.allow_forwarded(mapping.protocol, mapping.target_ports)
        ));
    }
    let (says, allow) = match verdict {
        Verdict::Open => return None,
        Verdict::Blocked(block) => (format!("would block {ports}, by {block}"), Some(block)),
        Verdict::Undecided { why, block: Some(block) } => {
            (format!("would block {ports} unless {why} makes a difference, by {block}"), Some(block))
        }
        // A stranger passes, so nobody is surprised; but for rules that nobody has seen.
        Verdict::Undecided { why, block: None } if why.contains("could not be read") => {
            (format!("may block {ports}: it has {why}"), None)
        }
        Verdict::Undecided { block: None, .. } => return None,
    };
    let allow = allow.map(|block| {
        let command = block.allow(mapping.protocol, mapping.published.ports);
        format!("; if it is meant to be open, `{command}` tells the firewall")
    });
    Some(format!(
        "the host's firewall {says}. vnet's data path answers before it, so the port is open to everybody who reaches \
         the host: {WAYS_OUT}{}",
        allow.unwrap_or_default()
    ))
}

/// An error with its causes, each said once: what was attempted is often what the cause says as well.
#[must_use]
pub fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut last = text.clone();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !last.ends_with(&next) {
            text.push_str(&format!(": {next}"));
        }
        last = next;
        source = cause.source();
    }
    text
}

/// A mapping's ports, in words.
pub(super) fn ports(mapping: &PortMap) -> String {
    format!("{}/{}", mapping.published, mapping.protocol)
}
