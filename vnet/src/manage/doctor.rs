//! The doctor: what is not as somebody would expect, and what to do about it. Nothing is changed.
//!
//! A check is an entry of [`CHECKS`]: a name and a function of what was found out about the host.

use super::host::Addresses;
use super::reachable::{firewall_says, in_full, is_for_the_host_alone, link, ports};
use super::{Error, Manager, kernel};
use crate::firewall::{Block, Connection, Families, Hook, Netfilter, Verdict, judge};
use crate::kernel::Addressed;
use crate::plan::{Resource, Shaper, State, expand};
use crate::reconcile::Machine;
use crate::spec::{Firewall, InterfaceName, Name, Network, PortMap, Ports, Protocol, Settings};
use crate::store::Transaction;

/// Something that is not as somebody would expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check that found it.
    pub check: &'static str,
    /// What it is.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

/// What came of all checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// What was found, in the order of the checks.
    pub findings: Vec<Finding>,
    /// The checks that could not be run, each with the reason.
    pub failed: Vec<String>,
}

/// What is known of the instance and its host.
struct Facts {
    settings: Settings,
    networks: Vec<Network>,
    mappings: Vec<PortMap>,
    interfaces: Vec<Addressed>,
    netfilter: Result<Netfilter, String>,
    /// Endpoints of which something is gone, and what.
    gone: Vec<(Name, Vec<Resource>)>,
    /// Limits of endpoints that are not as recorded, by the endpoint's name.
    limits: Vec<(Name, Shaper, State)>,
}

/// A check. It fails when what it needs to know could not be found out.
struct Check {
    name: &'static str,
    run: fn(&Facts) -> Result<Vec<Found>, String>,
}

/// A finding of the check that returns it.
struct Found {
    problem: String,
    fix: String,
}

/// Every check there is.
const CHECKS: [Check; 6] = [
    Check { name: "firewall", run: input_policy },
    Check { name: "docker-user", run: docker_user },
    Check { name: "forward", run: forward_policy },
    Check { name: "br_netfilter", run: bridged_frames },
    Check { name: "endpoints", run: endpoints },
    Check { name: "limits", run: limits },
];

/// The names of all checks.
pub fn checks() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|check| check.name)
}

impl<M: Machine> Manager<M> {
    /// Runs every check.
    ///
    /// # Errors
    /// When the record or the host's interfaces cannot be read.
    pub async fn diagnose(&self) -> Result<Diagnosis, Error> {
        let (transaction, settings) = self.begin()?;
        let host = Addresses::observe(&self.machine, &settings).await?;
        let facts = Facts {
            settings,
            networks: transaction.networks()?,
            mappings: transaction.port_maps()?,
            interfaces: host.interfaces,
            netfilter: self.machine.netfilter().map_err(|error| in_full(&error)),
            gone: self.lost_links(&transaction).await?,
            limits: self.lost_limits(&transaction).await?,
        };
        Ok(run(&facts))
    }

    /// The endpoints whose namespaces or links are gone.
    async fn lost_links(&self, transaction: &Transaction) -> Result<Vec<(Name, Vec<Resource>)>, Error> {
        let mut lost = Vec::new();
        for endpoint in transaction.endpoints()? {
            let networks = transaction.networks_of(&endpoint)?;
            let mut gone = Vec::new();
            for resource in expand::endpoint(&endpoint, &networks) {
                if !matches!(resource, Resource::Namespace { .. } | Resource::Veth(_)) {
                    continue;
                }
                let is_there = self.machine.is_there(&resource).await;
                if !is_there.map_err(kernel("look for endpoints"))? {
                    gone.push(resource);
                }
            }
            if !gone.is_empty() {
                lost.push((endpoint.name, gone));
            }
        }
        Ok(lost)
    }

    /// The limits of endpoints that are there, which are not as recorded.
    async fn lost_limits(&self, transaction: &Transaction) -> Result<Vec<(Name, Shaper, State)>, Error> {
        let mut lost = Vec::new();
        for endpoint in transaction.endpoints()?.into_iter().filter(|endpoint| !endpoint.limits.is_empty()) {
            let mut is_there = true;
            for link in &endpoint.links {
                let found = self.machine.has_interface(link.host_interface.as_str()).await;
                is_there &= found.map_err(kernel("look for interfaces of the host"))?;
            }
            if !is_there {
                continue;
            }
            for resource in expand::limits(&endpoint, &transaction.networks_of(&endpoint)?) {
                let state = self.machine.state(&resource).await;
                let state = state.map_err(kernel("look at the limits of endpoints"))?;
                if let (Resource::Limit(shaper), State::Absent | State::Differs(_)) = (resource, &state) {
                    lost.push((endpoint.name.clone(), shaper, state));
                }
            }
        }
        Ok(lost)
    }
}

fn run(facts: &Facts) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    for Check { name, run } in CHECKS {
        match run(facts) {
            Ok(found) => diagnosis.findings.extend(found.into_iter().map(|Found { problem, fix }| Finding {
                check: name,
                problem,
                fix,
            })),
            Err(why) => diagnosis.failed.push(format!("{name}: {why}")),
        }
    }
    diagnosis
}

impl Facts {
    fn netfilter(&self) -> Result<&Netfilter, String> {
        self.netfilter.as_ref().map_err(String::clone)
    }

    /// The mappings that the world reaches.
    fn open_mappings(&self) -> impl Iterator<Item = &PortMap> {
        self.mappings.iter().filter(|mapping| !is_for_the_host_alone(mapping))
    }

    fn network_of(&self, mapping: &PortMap) -> Option<&Network> {
        self.networks.iter().find(|network| network.number == mapping.number)
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

/// Published ports that the host's firewall would block, did it see them.
fn input_policy(facts: &Facts) -> Result<Vec<Found>, String> {
    if facts.settings.firewall == Firewall::Respect {
        return Ok(Vec::new());
    }
    let netfilter = facts.netfilter()?;
    let unrestricted = facts.open_mappings().filter(|mapping| mapping.allow_from.is_empty());
    let found = unrestricted.filter_map(|mapping| {
        let verdict = firewall_says(netfilter, &facts.interfaces, &facts.settings, mapping);
        let block = verdict.block()?;
        let unless = match &verdict {
            Verdict::Undecided { why, .. } => format!(" unless {why} makes a difference,"),
            _ => String::new(),
        };
        Some(Found {
            problem: format!(
                "port {} is open to the world; the host's firewall would block it{unless} by {block}, but is not asked",
                ports(mapping)
            ),
            fix: format!(
                "publish it again with --allow-from CIDR or on 127.0.0.1, or let the firewall decide with `vnet up \
                 --firewall respect`; if it is meant to be open: `{}`",
                block.allow(mapping.protocol, mapping.published.ports)
            ),
        })
    });
    Ok(found.collect())
}

/// Rules that somebody made for Docker's published ports, and that mean vnet's as well to him.
fn docker_user(facts: &Facts) -> Result<Vec<Found>, String> {
    const CHAIN: &str = "DOCKER-USER";
    let netfilter = facts.netfilter()?;
    let found = facts.open_mappings().filter_map(|mapping| {
        let bridge = &facts.network_of(mapping)?.bridge;
        let verdicts = facts.settings.uplinks.iter().flat_map(|uplink| {
            mapping.targets.iter().map(|target| {
                let connection = Connection {
                    destination: Some(*target),
                    protocol: mapping.protocol,
                    ports: mapping.target_ports,
                    ..facts.forwarded(uplink, bridge, target.is_ipv4())
                };
                judge(netfilter, &connection)
            })
        });
        let verdict = verdicts.fold(Verdict::Open, Verdict::worse);
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

/// Endpoints whose namespace or link somebody else has removed.
fn endpoints(facts: &Facts) -> Result<Vec<Found>, String> {
    let found = facts.gone.iter().map(|(name, gone)| {
        let gone: Vec<String> = gone.iter().map(ToString::to_string).collect();
        Found {
            problem: format!("endpoint {name} is not there: gone is {}", gone.join("; ")),
            fix: format!(
                "bring it back with `vnet up`, or take it out of the record with `vnet ns rm {name}`"
            ),
        }
    });
    Ok(found.collect())
}

/// Limits that somebody has taken away or changed: whoever has `CAP_NET_ADMIN` in an endpoint's namespace can.
fn limits(facts: &Facts) -> Result<Vec<Found>, String> {
    let found = facts.limits.iter().map(|(name, shaper, state)| {
        let limit = Resource::Limit(shaper.clone());
        let how = match state {
            State::Differs(how) => how,
            State::Absent | State::Present => "it is gone",
        };
        let inside = shaper.namespace.as_ref().map_or(
            "",
            |_| "; if it was changed inside the namespace, keep CAP_NET_ADMIN from what runs there",
        );
        Found {
            problem: format!("endpoint {name}: {limit} is not in force: {how}"),
            fix: format!("bring it back with `vnet up`{inside}"),
        }
    });
    Ok(found.collect())
}

/// The host's firewall does not forward what endpoints send.
fn forward_policy(facts: &Facts) -> Result<Vec<Found>, String> {
    let outwards = |network: &Network, v4| {
        let connections =
            facts.settings.uplinks.iter().map(|uplink| facts.forwarded(&network.bridge, uplink, v4));
        connections.collect()
    };
    let found = forwarding(facts, |network| !network.internal, outwards)?;
    Ok(found.into_iter().map(|(block, bridge)| Found {
        problem: format!(
            "what endpoints on {bridge} send to the world would be dropped by {block}. The fast path is not affected; \
             what it leaves to the host's stack is lost: packets with IP options, and those that have to be cut into \
             fragments"
        ),
        fix: format!("nothing, unless endpoints send such packets; if they do: `{}`", block.allow_forwarding(&bridge)),
    }).collect())
}

/// Frames within a network that are shown to the host's firewall, and which it drops.
fn bridged_frames(facts: &Facts) -> Result<Vec<Found>, String> {
    let bridged = facts.netfilter()?.bridged;
    let within = |network: &Network, v4| {
        let shown = if v4 { bridged.v4 } else { bridged.v6 };
        if shown { vec![facts.forwarded(&network.bridge, &network.bridge, v4)] } else { Vec::new() }
    };
    let found = forwarding(facts, |network| !network.isolated, within)?;
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
