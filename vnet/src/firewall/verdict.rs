//! What the judge says, and how a firewall's owner is told to say otherwise.

use std::fmt;

use super::rules::{Backend, Families, Table};
use crate::spec::{Ports, Protocol};

/// What the host's firewall would do to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It lets it pass, whoever opens it.
    Open,
    /// It stops it, whoever opens it.
    Blocked(Block),
    /// That depends, or cannot be told.
    Undecided {
        /// On what, or why not.
        why: String,
        /// What stops it, unless something of that lets it pass.
        block: Option<Block>,
    },
}

impl Verdict {
    /// What stops the connection, at least in general.
    #[must_use]
    pub fn block(&self) -> Option<&Block> {
        match self {
            Self::Open => None,
            Self::Blocked(block) => Some(block),
            Self::Undecided { block, .. } => block.as_ref(),
        }
    }

    /// The graver of two.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        let gravity = |verdict: &Self| match verdict {
            Self::Open => 0,
            Self::Undecided { block: None, .. } => 1,
            Self::Undecided { block: Some(_), .. } => 2,
            Self::Blocked(_) => 3,
        };
        if gravity(&other) > gravity(&self) { other } else { self }
    }
}

impl Verdict {
    /// On what it depends, if it does.
    #[must_use]
    pub fn depends_on(&self) -> Option<&str> {
        match self {
            Self::Open | Self::Blocked(_) => None,
            Self::Undecided { why, .. } => Some(why),
        }
    }

    /// In words: what the firewall does, if it is asked, or else what it would do.
    #[must_use]
    pub fn in_words(&self, asked: bool) -> String {
        let blocks = if asked { "blocks it" } else { "would block it" };
        match self {
            Self::Open if asked => "lets it pass".to_owned(),
            Self::Open => "would let it pass".to_owned(),
            Self::Blocked(block) => format!("{blocks}: {block}"),
            Self::Undecided { why, block: None } => format!("undecided: depends on {why}"),
            Self::Undecided { why, block: Some(block) } => format!("{blocks}, depending on {why}: {block}"),
        }
    }
}

/// Where a connection is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Whose packets the table sees.
    pub families: Families,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// What of the chain.
    pub by: By,
    /// Whose table it is.
    pub owner: Owner,
}

/// What of a chain stops a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Its policy.
    Policy,
    /// One of its rules.
    Rule,
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { families, table, chain, by, owner } = self;
        let by = match by {
            By::Policy => "the policy",
            By::Rule => "a rule",
        };
        write!(f, "{by} of chain {chain} in table {} {table} ({owner})", families.name())
    }
}

impl Block {
    /// The command that lets published ports pass there.
    #[must_use]
    pub fn allow(&self, protocol: Protocol, ports: Ports) -> String {
        let (first, last) = (ports.first(), ports.last());
        let range = if first == last { format!("{first}") } else { format!("{first}:{last}") };
        let Self { chain, .. } = self;
        match self.owner {
            Owner::Ufw => format!("ufw allow {range}/{protocol}"),
            Owner::Firewalld => format!("firewall-cmd --add-port={ports}/{protocol}"),
            Owner::Iptables | Owner::IptablesLegacy => {
                format!("{} -I {chain} -p {protocol} --dport {range} -j ACCEPT", self.iptables())
            }
            Owner::Nft => format!("{} {protocol} dport {ports} accept", self.nft_insert()),
        }
    }

    /// The command that lets connections to these ports be forwarded there.
    #[must_use]
    pub fn allow_forwarded(&self, protocol: Protocol, ports: Ports) -> String {
        match self.owner {
            Owner::Ufw => {
                let range = ports.to_string().replace('-', ":");
                format!("ufw route allow proto {protocol} to any port {range}")
            }
            // Zones are asked about what comes in; between two of them, policies are.
            Owner::Firewalld => format!(
                "firewall-cmd --permanent --new-policy=vnet && firewall-cmd --permanent --policy=vnet \
                 --add-ingress-zone=ANY --add-egress-zone=ANY --add-port={ports}/{protocol} && firewall-cmd --reload"
            ),
            Owner::Iptables | Owner::IptablesLegacy | Owner::Nft => self.allow(protocol, ports),
        }
    }

    /// The command that lets what comes in by an interface be forwarded there.
    #[must_use]
    pub fn allow_forwarding(&self, from: &str) -> String {
        match self.owner {
            Owner::Ufw => format!("ufw route allow in on {from}"),
            Owner::Firewalld => format!("firewall-cmd --zone=trusted --add-interface={from}"),
            Owner::Iptables | Owner::IptablesLegacy => {
                format!("{} -I {} -i {from} -j ACCEPT", self.iptables(), self.chain)
            }
            Owner::Nft => format!("{} iifname {from} accept", self.nft_insert()),
        }
    }

    fn nft_insert(&self) -> String {
        let Self { families, table, chain, .. } = self;
        format!("nft insert rule {} {table} {chain}", families.name())
    }

    fn iptables(&self) -> String {
        let program = if self.families == Families::V6 { "ip6tables" } else { "iptables" };
        match self.owner {
            Owner::IptablesLegacy => format!("{program}-legacy"),
            _ => program.to_owned(),
        }
    }
}

/// Whose a table is, so far as its names tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The uncomplicated firewall.
    Ufw,
    /// firewalld.
    Firewalld,
    /// iptables, or somebody by way of it.
    Iptables,
    /// iptables with its older place in the kernel.
    IptablesLegacy,
    /// nft, or somebody by way of it.
    Nft,
}

impl Owner {
    /// The owner of a table.
    #[must_use]
    pub fn of(table: &Table) -> Self {
        let has = |test: &dyn Fn(&str) -> bool| table.chains.keys().any(|name| test(name));
        let of_iptables = ["filter", "mangle", "security"].contains(&table.name.as_str())
            && table.families != Families::Both
            && has(&|name| matches!(name, "INPUT" | "FORWARD"));
        if has(&|name| name.starts_with("ufw-") || name.starts_with("ufw6-")) {
            Self::Ufw
        } else if table.name == "firewalld" || has(&|name| name == "INPUT_ZONES") {
            Self::Firewalld
        } else if table.backend == Backend::Legacy {
            Self::IptablesLegacy
        } else if of_iptables {
            Self::Iptables
        } else {
            Self::Nft
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ufw => "ufw",
            Self::Firewalld => "firewalld",
            Self::Iptables => "iptables",
            Self::IptablesLegacy => "iptables-legacy",
            Self::Nft => "nft",
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
