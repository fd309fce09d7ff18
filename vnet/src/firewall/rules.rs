//! Tables, chains, rules and sets, as far as they matter to a new connection.

use std::collections::BTreeMap;

/// Everything of netfilter that decides about packets to the host and through it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Netfilter {
    /// The tables with chains at a [`Hook`].
    pub tables: Vec<Table>,
    /// Rules that are there and could not be read, in words.
    pub unread: Vec<String>,
    /// Whether bridged frames are shown to the rules as well; of no meaning where there are none.
    pub bridged: Bridged,
}

impl Netfilter {
    /// Whether there is nothing that could decide about anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.unread.is_empty()
    }
}

/// Whether frames that a bridge forwards pass through the rules (`bridge-nf-call-iptables`), by family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bridged {
    /// Frames with IPv4 packets.
    pub v4: bool,
    /// Frames with IPv6 packets.
    pub v6: bool,
}

/// A place in a packet's way through the host where chains are hung up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets for the host itself.
    Input,
    /// Packets that the host forwards.
    Forward,
}

/// A table of nftables, of iptables, or of the older iptables with its own place in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Whose packets it sees.
    pub families: Families,
    /// Its name.
    pub name: String,
    /// Where it lives.
    pub backend: Backend,
    /// Its chains, by name.
    pub chains: BTreeMap<String, Chain>,
    /// Its sets and maps, by name.
    pub sets: BTreeMap<String, Set>,
}

/// The families whose packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4: `ip`.
    V4,
    /// IPv6: `ip6`.
    V6,
    /// Both: `inet`.
    Both,
}

impl Families {
    /// Whether it sees packets of a family.
    #[must_use]
    pub fn cover(self, v4: bool) -> bool {
        match self {
            Self::V4 => v4,
            Self::V6 => !v4,
            Self::Both => true,
        }
    }

    /// As `nft` calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
            Self::Both => "inet",
        }
    }
}

/// Where a table lives in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// nftables, where today's iptables puts its tables as well.
    Nftables,
    /// The older x_tables (`iptables-legacy`).
    Legacy,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where it hangs, if packets begin there; without, others jump to it.
    pub base: Option<Base>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Where packets begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The hook.
    pub hook: Hook,
    /// Chains of one hook are asked in the order of this.
    pub priority: i32,
    /// What becomes of what no rule decides about.
    pub policy: Policy,
}

/// What a base chain does at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// It lets pass.
    Accept,
    /// It drops.
    Drop,
}

/// A rule: if all of its conditions hold, its action is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The conditions.
    pub conditions: Vec<Condition>,
    /// The action.
    pub action: Action,
}

/// What a rule asks of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Parts of it, one after the other, pass a test.
    Holds {
        /// The parts; more than one only for sets of several things at once.
        parts: Vec<Part>,
        /// The test.
        test: Test,
    },
    /// Something that no first packet of a connection has.
    Never,
    /// Something else.
    Unknown {
        /// What it asks, in words.
        what: String,
        /// Whether it holds for most packets; a limit, say, does.
        usually: bool,
    },
}

/// A part of a packet or of what is known of it, masked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which.
    pub field: Field,
    /// The bits that count, from its first byte; empty for all of them.
    pub mask: Vec<u8>,
    /// Bits to turn over after that; empty for none.
    pub flip: Vec<u8>,
}

impl From<Field> for Part {
    fn from(field: Field) -> Self {
        Self { field, mask: Vec::new(), flip: Vec::new() }
    }
}

/// Where a part of a packet is found. Numbers of the kernel are in the byte order of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// Name of the interface it came in by, 16 bytes filled with zeros.
    InputName,
    /// Index of that interface: four bytes.
    InputIndex,
    /// Name of the interface it goes out by, 16 bytes filled with zeros.
    OutputName,
    /// Index of that interface: four bytes.
    OutputIndex,
    /// Its family: one byte, 2 or 10 (`NFPROTO_IPV4`, `NFPROTO_IPV6`).
    Family,
    /// Its protocol: one byte.
    Protocol,
    /// Its EtherType: two bytes, in network order.
    EtherType,
    /// State of its connection: four bytes, bits 1 invalid, 2 established, 4 related, 8 new, 64 untracked.
    State,
    /// What was translated of its connection: four bytes of `IPS_…` bits.
    Status,
    /// What kind of address its source is: four bytes of `RTN_…`.
    SourceKind,
    /// What kind of address its destination is: four bytes of `RTN_…`.
    DestinationKind,
    /// Whom the frame was for: one byte of `PACKET_…`.
    PacketType,
    /// Bytes of the IP header.
    Network {
        /// From this byte.
        offset: usize,
        /// So many.
        length: usize,
    },
    /// Bytes of the TCP or UDP header.
    Transport {
        /// From this byte.
        offset: usize,
        /// So many.
        length: usize,
    },
    /// Anything else: nothing is known of it but a description.
    Other {
        /// What it is, in words.
        what: String,
        /// Its length in bytes.
        length: usize,
    },
}

/// What is asked of parts of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// They lie in one of these ranges, both ends included; compared byte by byte over the length of the ends.
    Within {
        /// The ranges.
        ranges: Vec<(Vec<u8>, Vec<u8>)>,
        /// Or, on the contrary, in none.
        inverted: bool,
    },
    /// They are in a set of the table.
    InSet {
        /// Its name.
        set: String,
        /// Or, on the contrary, are not.
        inverted: bool,
    },
}

impl Test {
    /// Equal to a value.
    #[must_use]
    pub fn equals(value: Vec<u8>) -> Self {
        Self::Within { ranges: vec![(value.clone(), value)], inverted: false }
    }

    /// The contrary, if so wanted.
    #[must_use]
    pub fn inverted_if(self, wanted: bool) -> Self {
        match self {
            Self::Within { ranges, inverted } => Self::Within { ranges, inverted: inverted != wanted },
            Self::InSet { set, inverted } => Self::InSet { set, inverted: inverted != wanted },
        }
    }
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing that decides: counting, logging, marking.
    Continue,
    /// Lets the packet pass this hook's chain.
    Accept,
    /// Drops the packet, silently or not.
    Drop,
    /// Leaves the chain.
    Return,
    /// Goes through a chain, then on with the next rule.
    Jump(String),
    /// Goes through a chain and leaves this one.
    Goto(String),
    /// Does what a map has for parts of the packet; nothing if it has nothing.
    Map {
        /// The parts.
        parts: Vec<Part>,
        /// The map's name.
        set: String,
    },
    /// Something else, in words: the packet may end there.
    Unknown(String),
}

/// A set or a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// What is in it; `None` if that was not read.
    pub elements: Option<Vec<Element>>,
}

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// From here, byte by byte. Empty ends stand for everything that no other element holds; that element is last.
    pub low: Vec<u8>,
    /// To here, included.
    pub high: Vec<u8>,
    /// What a map has for it.
    pub action: Option<Action>,
}
