//! Why a description cannot be wanted.

use std::net::IpAddr;

use ipnet::IpNet;

/// A description that makes no sense in itself; what it may clash with is found out later.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a name.
    #[error("{text:?} is not a name: use 1 to {max} letters, digits, '_', '.' or '-', beginning with a letter or digit", max = super::Name::MAX)]
    Name {
        /// What was given.
        text: String,
    },
    /// A word that means something else.
    #[error(
        "an endpoint cannot be called {name}: to `vnet trace --from` that is not an endpoint; choose another name"
    )]
    ReservedName {
        /// The name.
        name: super::Name,
    },
    /// Not an interface's name.
    #[error("{text:?} cannot name an interface: use 1 to {max} visible characters other than '/' and ':'", max = super::InterfaceName::MAX)]
    InterfaceName {
        /// What was given.
        text: String,
    },
    /// Not a hardware address.
    #[error("{text:?} is not a hardware address: {reason}")]
    Mac {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A range that no addresses can come from.
    #[error("{range} cannot be a range of addresses to give out: {reason}")]
    Range {
        /// The range.
        range: IpNet,
        /// What is wrong with it.
        reason: String,
    },
    /// An address that cannot be reserved.
    #[error("{addr} cannot be reserved: {reason}")]
    Reserved {
        /// The address.
        addr: IpAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// An address that cannot be an end of a direct link.
    #[error("{net} cannot be an end of a direct link: {reason}")]
    DirectEnds {
        /// The address.
        net: IpNet,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A direct link without addresses.
    #[error("a direct link needs an address for each end: name both, like 192.168.1.1/24 and 192.168.1.2/24")]
    NoDirectEnds,
    /// An address that a router cannot have outside.
    #[error("{net} cannot be a router's address outside: {reason}")]
    OutsideAddress {
        /// The address.
        net: IpNet,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A router that nobody could know.
    #[error("a router needs an address outside, with the length of its prefix, like 203.0.113.1/24")]
    NoOutsideAddress,
    /// Not a neighbour of a router.
    #[error("{gateway} cannot be a router's gateway: {reason}")]
    OutsideGateway {
        /// The address.
        gateway: std::net::IpAddr,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a mode of an endpoint.
    #[error("{text:?} is not a mode: choose {}", super::LinkMode::WRITTEN)]
    LinkMode {
        /// What was given.
        text: String,
    },
    /// Not a route.
    #[error("{text:?} is not a route that an endpoint can have: {reason}")]
    Route {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a rate.
    #[error("{text:?} is not a rate: {reason}")]
    Rate {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a number of bytes.
    #[error("{text:?} is not a number of bytes: write it like 1514, 64k or 1m, 1024m at most")]
    Bytes {
        /// What was given.
        text: String,
    },
    /// Not an address with a prefix length.
    #[error("{text:?} is not a prefix: write it like 192.168.7.0/24 or fd00:7::/64")]
    NotAPrefix {
        /// What was given.
        text: String,
    },
    /// An address inside a prefix, not the prefix.
    #[error("{given} is an address inside a prefix: the prefix is {prefix}")]
    HostBits {
        /// What was given.
        given: IpNet,
        /// What was probably meant.
        prefix: IpNet,
    },
    /// A prefix no network of endpoints can have.
    #[error("{prefix} cannot be a network: {reason}")]
    Subnet {
        /// The prefix.
        prefix: IpNet,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A prefix no masquerade rule can cover.
    #[error("{prefix} cannot be masqueraded: {reason}")]
    Masquerade {
        /// The prefix.
        prefix: IpNet,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A prefix no client of a published port can have.
    #[error("{prefix} cannot be a prefix of clients: {reason}")]
    Clients {
        /// The prefix.
        prefix: IpNet,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A network with no or too many prefixes.
    #[error("a network has one IPv4 prefix, one IPv6 prefix, or one of each; given: {given}")]
    Prefixes {
        /// What was given.
        given: String,
    },
    /// A gateway that cannot be one.
    #[error("{gateway} cannot be the gateway: {reason}")]
    Gateway {
        /// The address.
        gateway: IpAddr,
        /// What is wrong with it.
        reason: String,
    },
    /// An address that cannot be an endpoint's or a mapping's.
    #[error("{text:?} is not a usable address: {reason}")]
    Address {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a port or a range of ports.
    #[error("{text:?} is not a port or a range of ports: {reason}")]
    Ports {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not one of a few words.
    #[error("{text:?} is not a {what}: choose {}", alternatives(words))]
    Choice {
        /// What was given.
        text: String,
        /// What it was to be.
        what: &'static str,
        /// The words.
        words: &'static [&'static str],
    },
    /// Not a time span.
    #[error("{text:?} is not a duration: {reason}")]
    Duration {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a cgroup.
    #[error("{text:?} is not a cgroup: {reason}")]
    Cgroup {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a class of `net_cls`.
    #[error("{text:?} is not a class: write it like 1:10 or 0x10010, in hexadecimal as in net_cls.classid")]
    ClassId {
        /// What was given.
        text: String,
    },
    /// Not `[HOST-IP:]PORT[-END]` or `TARGET:PORT[-END]`.
    #[error("{text:?} lacks its {missing}: write it like {example}")]
    Incomplete {
        /// What was given.
        text: String,
        /// What is missing.
        missing: &'static str,
        /// How it is written.
        example: &'static str,
    },
    /// Both ports in one word, as other programs want them.
    #[error(
        "{text:?} are two ports, and the second one is the target's: write vnet portmap add {published} \
         TARGET:{target}{protocol}, where TARGET is an endpoint's name or address"
    )]
    TwoPorts {
        /// What was given.
        text: String,
        /// What was probably to be published.
        published: Box<super::Published>,
        /// What was probably the target's.
        target: super::Ports,
        /// What names the protocol, if one was named.
        protocol: String,
    },
    /// Other ports at the target, of a protocol whose ports cannot be translated.
    #[error(
        "{published}/sctp cannot lead to port {target}: SCTP's checksum covers the ports (RFC 9260 section 6.8), so \
         only addresses are translated; write TARGET:{published}"
    )]
    SctpPorts {
        /// Published ports.
        published: super::Ports,
        /// The target's.
        target: super::Ports,
    },
    /// Two ranges of different length.
    #[error(
        "{published} are {count} ports, but the target's {target} are {target_count}: give both ranges the same length"
    )]
    Lengths {
        /// Published ports.
        published: super::Ports,
        /// How many.
        count: u32,
        /// The target's.
        target: super::Ports,
        /// How many.
        target_count: u32,
    },
}

/// "a, b or c".
fn alternatives(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        words => words.concat(),
    }
}
