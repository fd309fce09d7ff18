//! From where published ports are reached, as it is printed.

use std::io::{self, Write};
use std::net::IpAddr;

use serde::Serialize;

use super::table::words;
use super::{Floating, Network, Status, table};
use crate::firewall::{By, Verdict};
use crate::spec::{self, GatewayMode};

/// A mapping and whom it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reachable {
    /// The mapping's number.
    pub id: u32,
    /// As it is published: address, if it is on one, and ports.
    pub published: String,
    /// How many ports that is.
    pub ports: u32,
    /// `tcp` or `udp`.
    pub protocol: spec::Protocol,
    /// Where it leads: endpoint and ports.
    pub target: String,
    /// `world`, or `host` for what is published on a loopback address.
    pub from: &'static str,
    /// The only clients that may use it; all, if there are none.
    pub allow_from: Vec<String>,
    /// The uplinks by which the world reaches it.
    pub uplinks: Vec<Uplink>,
    /// The networks whose endpoints reach it.
    pub networks: Vec<String>,
    /// What the host's own firewall says to the world, or would say if it were asked.
    pub firewall: Option<Firewall>,
}

/// An uplink and the addresses there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Uplink {
    /// The interface.
    pub interface: String,
    /// The addresses to dial.
    pub addresses: Vec<IpAddr>,
}

/// What the host's firewall says, or would say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Firewall {
    /// `open`, `blocked` or `undecided`.
    pub verdict: &'static str,
    /// Whose rules stop it: `ufw`, `firewalld`, `iptables`, `iptables-legacy` or `nft`.
    pub owner: Option<&'static str>,
    /// Their family and table.
    pub table: Option<String>,
    /// Their chain.
    pub chain: Option<String>,
    /// `policy` or `rule`.
    pub by: Option<&'static str>,
    /// Why it is undecided.
    pub why: Option<String>,
    /// All of it in a sentence.
    pub text: String,
    /// Whether it is asked: with `--firewall respect` its rules for forwarded packets decide, otherwise those for
    /// received ones would.
    pub asked: bool,
}

impl Firewall {
    /// A verdict, and whether it counts.
    #[must_use]
    pub fn new(verdict: &Verdict, asked: bool) -> Self {
        let block = verdict.block();
        let word = match verdict {
            Verdict::Open => "open",
            Verdict::Blocked(_) => "blocked",
            Verdict::Undecided { .. } => "undecided",
        };
        Self {
            verdict: word,
            owner: block.map(|block| block.owner.name()),
            table: block.map(|block| format!("{} {}", block.families.name(), block.table)),
            chain: block.map(|block| block.chain.clone()),
            by: block.map(|block| if block.by == By::Policy { "policy" } else { "rule" }),
            why: verdict.depends_on().map(str::to_owned),
            text: verdict.in_words(asked),
            asked,
        }
    }
}

impl Reachable {
    /// A mapping that only the host reaches; to be completed for one that the world does.
    #[must_use]
    pub fn by_host(mapping: &spec::PortMap) -> Self {
        Self {
            id: mapping.id,
            published: mapping.published.to_string(),
            ports: mapping.published.ports.count(),
            protocol: mapping.protocol,
            target: format!("{}:{}", mapping.endpoint, mapping.target_ports),
            from: "host",
            allow_from: mapping.allow_from.iter().map(ToString::to_string).collect(),
            uplinks: Vec::new(),
            networks: Vec::new(),
            firewall: None,
        }
    }

    fn row(&self) -> Vec<String> {
        let uplink = |uplink: &Uplink| format!("{} ({})", uplink.interface, words(&uplink.addresses));
        let from = if self.from == "host" {
            "this host only".to_owned()
        } else {
            let uplinks = self.uplinks.iter().map(uplink).collect::<Vec<_>>().join(", ");
            let who = if self.allow_from.is_empty() { "world".to_owned() } else { words(&self.allow_from) };
            format!("{who} by {uplinks}; networks {}", words(&self.networks))
        };
        let firewall = self.firewall.as_ref().map(|firewall| &firewall.text);
        vec![format!("{}/{}", self.published, self.protocol), self.target.clone(), from, words(firewall)]
    }
}

/// How many ports are open to whom.
fn summary(reachable: &[Reachable]) -> String {
    let count = |from| reachable.iter().filter(|each| each.from == from).map(|each| each.ports).sum::<u32>();
    let (world, host) = (count("world"), count("host"));
    let noun = if world == 1 { "port" } else { "ports" };
    format!("{world} {noun} open to the world, {host} to this host only")
}

/// How many mappings are shown to people; programs get all of them.
const SHOWN: usize = 20;

/// Which networks' endpoints are reached by their own addresses, by whoever has a route to them.
fn direct(networks: &[Network]) -> String {
    let open = |network: &&Network| network.gateway_mode == GatewayMode::NatUnprotected && !network.internal;
    let open: Vec<String> =
        networks.iter().filter(open).map(|it| format!("{} ({})", it.name, it.gateway_mode)).collect();
    if open.is_empty() { "none (nat)".to_owned() } else { format!("those of {}", open.join(", ")) }
}

/// Prints the section for people.
pub(super) fn print(out: &mut impl Write, status: &Status) -> io::Result<()> {
    let Status { reachable, networks, floating_addresses, .. } = status;
    writeln!(out, "\nreachable: {}; endpoints directly: {}", summary(reachable), direct(networks))?;
    for Floating { external, endpoint, address } in floating_addresses {
        writeln!(out, "all of {endpoint} ({address}): world by {external}, a floating address")?;
    }
    if reachable.is_empty() {
        return Ok(());
    }
    let rows = reachable.iter().take(SHOWN).map(Reachable::row);
    table::print(out, &["PUBLISHED", "TARGET", "FROM", "THE HOST'S FIREWALL"], rows)?;
    match reachable.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => writeln!(out, "and {more} more: `vnet status --json` has all"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reachable(ports: u32, from: &'static str) -> Reachable {
        Reachable {
            id: 1,
            published: "8088".to_owned(),
            ports,
            protocol: spec::Protocol::Tcp,
            target: "net1:80".to_owned(),
            from,
            allow_from: Vec::new(),
            uplinks: vec![Uplink { interface: "eth0".to_owned(), addresses: vec![[203, 0, 113, 1].into()] }],
            networks: vec!["default".to_owned()],
            firewall: Some(Firewall::new(&Verdict::Open, false)),
        }
    }

    fn printed(list: &[Reachable]) -> String {
        let mut out = Vec::new();
        print(&mut out, &Status { reachable: list.to_vec(), ..Status::not_up("default") }).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn ports_are_counted_by_whom_they_serve() {
        let list = [reachable(1, "world"), reachable(100, "world"), reachable(1, "host")];
        assert_eq!(summary(&list), "101 ports open to the world, 1 to this host only");
        assert_eq!(summary(&list[..1]), "1 port open to the world, 0 to this host only");
        assert_eq!(
            printed(&[]),
            "\nreachable: 0 ports open to the world, 0 to this host only; endpoints directly: none (nat)\n"
        );
    }

    #[test]
    fn people_are_not_shown_more_than_they_read() {
        let text = printed(&vec![reachable(1, "world"); SHOWN + 7]);
        assert!(text.ends_with("and 7 more: `vnet status --json` has all\n"), "{text}");
        assert_eq!(
            text.matches("world by eth0 (203.0.113.1); networks default  would let it pass").count(),
            SHOWN
        );
        assert!(printed(&[reachable(1, "host")]).contains("this host only"));
    }
}
