//! What the host's own firewall does to vnet's packets, and what it would do if it were asked.

use super::super::reachable::{firewall_says, forwarded, is_for_the_host_alone, link, ports};
use super::{Facts, Found};
use crate::firewall::{Block, Connection, Families, Hook, Netfilter, Verdict, judge};
use crate::spec::{Firewall, InterfaceName, Network, PortMap, Ports, Protocol};

impl Facts {
    fn netfilter(&self) -> Result<&Netfilter, String> {
        self.netfilter.as_ref().map_err(String::clone)
    }

    /// The mappings that the world reaches.
    fn open_mappings(&self) -> impl Iterator<Item = &PortMap> {
        self.mappings.iter().filter(|mapping| !is_for_the_host_alone(mapping))
    }

    /// A new TCP connection that the host forwards.
    fn forwarded(&self, from: &InterfaceName, to: &InterfaceName, v4: bool) -> Connection {
        Connection {
            hook: Hook::Forward,
            input: link(&self.interfaces, from),
            output: Some(link(&self.interfaces, to)),
            v4,
            destination: None,
            protocol: Protocol::Tcp,
            ports: Ports::ALL,
        }
    }
}

/// Published ports that the host's firewall blocks, or would block if it were asked.
pub(super) fn published(facts: &Facts) -> Result<Vec<Found>, String> {
    let netfilter = facts.netfilter()?;
    let is_asked = facts.settings.firewall == Firewall::Respect;
    // Who says which clients may use it has thought of strangers.
    let surprising = facts.open_mappings().filter(|mapping| is_asked || mapping.allow_from.is_empty());
    let found = surprising.filter_map(|mapping| {
        let verdict = firewall_says(netfilter, &facts.interfaces, &facts.settings, &facts.networks, mapping);
        let block = verdict.block()?;
        let unless = verdict.depends_on().map(|why| format!(" unless {why} makes a difference,"));
        let unless = unless.unwrap_or_default();
        let found = if is_asked { blocked } else { not_asked };
        Some(found(mapping, block, &unless))
    });
    Ok(found.collect())
}

fn blocked(mapping: &PortMap, block: &Block, unless: &str) -> Found {
    Found {
        problem: format!(
            "port {} is published, and the host's firewall blocks it{unless} by {block}",
            ports(mapping)
        ),
        fix: format!(
            "`{}`, or no longer ask it, with `vnet up --firewall bypass`",
            block.allow_forwarded(mapping.protocol, mapping.target_ports)
        ),
    }
}

fn not_asked(mapping: &PortMap, block: &Block, unless: &str) -> Found {
    Found {
        problem: format!(
            "port {} is open to the world; the host's firewall would block it{unless} by {block}, but is not asked",
            ports(mapping)
        ),
        fix: format!(
            "publish it again with --allow-from CIDR or on 127.0.0.1, or have the host's rules for forwarded packets \
             decide with `vnet up --firewall respect`; if it is meant to be open: `{}`",
            block.allow(mapping.protocol, mapping.published.ports)
        ),
    }
}

/// Rules that somebody made for Docker's published ports, and that mean vnet's as well to him.
pub(super) fn docker_user(facts: &Facts) -> Result<Vec<Found>, String> {
    const CHAIN: &str = "DOCKER-USER";
    if facts.settings.firewall == Firewall::Respect {
        // It is asked like every other chain.
        return Ok(Vec::new());
    }
    let netfilter = facts.netfilter()?;
    let found = facts.open_mappings().filter_map(|mapping| {
        let uplinks = facts.settings.uplinks.iter();
        let connections =
            uplinks.flat_map(|uplink| forwarded(&facts.interfaces, uplink, &facts.networks, mapping));
        let verdict =
            connections.map(|connection| judge(netfilter, &connection)).fold(Verdict::Open, Verdict::worse);
        verdict.block().filter(|block| block.chain == CHAIN)?;
        Some(Found {
            problem: format!(
                "port {} is open to the world; chain {CHAIN} would block it, but is asked about Docker's ports only",
                ports(mapping)
            ),
            fix: "publish it again with --allow-from CIDR or on 127.0.0.1".to_owned(),
        })
    });
    Ok(found.collect())
}

/// The host's firewall does not forward what endpoints send.
pub(super) fn forward_policy(facts: &Facts) -> Result<Vec<Found>, String> {
    let outwards = |network: &Network, v4| {
        let connections =
            facts.settings.uplinks.iter().map(|uplink| facts.forwarded(&network.bridge, uplink, v4));
        connections.collect()
    };
    let found = forwarding(facts, |network| !network.internal, outwards)?;
    let answers = match facts.settings.firewall {
        Firewall::Bypass => "",
        Firewall::Respect => ", and answers to published ports unless a rule accepts established connections",
    };
    Ok(found.into_iter().map(|(block, bridge)| Found {
        problem: format!(
            "what endpoints on {bridge} send to the world would be dropped by {block}. The fast path is not affected; \
             what it leaves to the host's stack is lost: packets with IP options, and those that have to be cut into \
             fragments{answers}"
        ),
        fix: format!("nothing, unless endpoints send such packets; if they do: `{}`", block.allow_forwarding(&bridge)),
    }).collect())
}

/// Frames within a network that are shown to the host's firewall, and which it drops.
pub(super) fn bridged_frames(facts: &Facts) -> Result<Vec<Found>, String> {
    let bridged = facts.netfilter()?.bridged;
    let within = |network: &Network, v4| {
        let shown = if v4 { bridged.v4 } else { bridged.v6 };
        if shown { vec![facts.forwarded(&network.bridge, &network.bridge, v4)] } else { Vec::new() }
    };
    let found = forwarding(facts, |network| !network.isolated && network.is_bridged(), within)?;
    Ok(found.into_iter().map(|(block, bridge)| {
        let parameter = if block.families == Families::V6 { "ip6tables" } else { "iptables" };
        Found {
            problem: format!(
                "br_netfilter shows frames on {bridge} to the host's firewall, where they would be dropped by {block}. \
                 Endpoints reach each other past the bridge; what it floods for them, such as multicast, is lost"
            ),
            fix: format!(
                "`sysctl -w net.bridge.bridge-nf-call-{parameter}=0`, or `{}`",
                block.allow_forwarding(&bridge)
            ),
        }
    }).collect())
}

/// What stops connections over the bridges of some networks: each block once for each bridge.
fn forwarding(
    facts: &Facts,
    concerns: fn(&&Network) -> bool,
    connections: impl Fn(&Network, bool) -> Vec<Connection>,
) -> Result<Vec<(Block, String)>, String> {
    let netfilter = facts.netfilter()?;
    let mut found = Vec::new();
    for network in facts.networks.iter().filter(concerns) {
        let families: Vec<bool> = network.segments.iter().map(|segment| segment.gateway.is_ipv4()).collect();
        for connection in families.into_iter().flat_map(|v4| connections(network, v4)) {
            let verdict = judge(netfilter, &connection);
            let each = verdict.block().map(|block| (block.clone(), network.bridge.to_string()));
            found.extend(each.filter(|each| !found.contains(each)));
        }
    }
    Ok(found)
}
