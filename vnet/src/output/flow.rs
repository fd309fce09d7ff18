//! Flows, drops and events, as they are printed.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use vnet_common::{CtEntry, CtState, DropKey, DropReason, Event, Hook, Origin, Tuple, Zone};

use super::{Listed, age, bytes};

/// Both ends of a packet, and the side it arrives from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Side {
    /// The network it arrives from, `world` for an uplink.
    pub zone: String,
    /// Source address.
    pub source: IpAddr,
    /// Source port; the identifier of an ICMP query.
    pub source_port: u16,
    /// Destination address.
    pub destination: IpAddr,
    /// Destination port; the identifier of an ICMP query.
    pub destination_port: u16,
}

impl Side {
    fn new(tuple: &Tuple, networks: &Networks) -> Self {
        Self {
            zone: networks.name(tuple.zone),
            source: tuple.src.into(),
            source_port: tuple.sport.number(),
            destination: tuple.dst.into(),
            destination_port: tuple.dport.number(),
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = socket(self.source, self.source_port);
        write!(f, "{source} > {}", socket(self.destination, self.destination_port))
    }
}

fn socket(addr: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(addr, port).to_string()
}

/// Names of networks by number.
#[derive(Clone, Debug, Default)]
pub struct Networks(pub BTreeMap<u16, String>);

impl Networks {
    fn name(&self, zone: Zone) -> String {
        match zone {
            Zone::WORLD => "world".to_owned(),
            Zone { id } => self.0.get(&id).cloned().unwrap_or_else(|| format!("network {id}")),
        }
    }
}

/// A tracked flow: both directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// `tcp`, `udp`, `icmp` or `icmpv6`.
    pub protocol: String,
    /// `new`, `established` or `closing`.
    pub state: &'static str,
    /// Its packets as the opener sends them.
    pub original: Side,
    /// The same packets as they leave; their `zone` is the side they leave to.
    pub translated: Side,
    /// The mapping that opened it, `null` if none did.
    pub mapping: Option<u32>,
    /// Seconds since its first packet.
    pub age: u32,
    /// Seconds since its last packet.
    pub idle: u32,
    /// Packets from the opener.
    pub packets_sent: u64,
    /// Bytes from the opener.
    pub bytes_sent: u64,
    /// Packets to the opener.
    pub packets_received: u64,
    /// Bytes to the opener.
    pub bytes_received: u64,
}

impl Listed for Flow {
    const NOUN: &'static str = "flows";
    const HEADER: &'static [&'static str] =
        &["PROTO", "STATE", "FROM", "ORIGINAL", "TO", "TRANSLATED", "AGE", "IDLE", "SENT", "RECEIVED"];

    fn row(&self) -> Vec<String> {
        let traffic = |packets: u64, count: u64| format!("{packets} ({})", bytes(count));
        vec![
            self.protocol.clone(),
            self.state.to_owned(),
            self.original.zone.clone(),
            self.original.to_string(),
            self.translated.zone.clone(),
            self.translated.to_string(),
            age(self.age.into()),
            age(self.idle.into()),
            traffic(self.packets_sent, self.bytes_sent),
            traffic(self.packets_received, self.bytes_received),
        ]
    }
}

/// Pairs the directions of a flow table's entries. `now` is in seconds since boot.
#[must_use]
pub fn flows(entries: &[(Tuple, CtEntry)], networks: &Networks, now: u32) -> Vec<Flow> {
    let by_tuple: HashMap<&Tuple, &CtEntry> = entries.iter().map(|(tuple, entry)| (tuple, entry)).collect();
    let openers = entries.iter().filter(|(_, entry)| Origin::from_u8(entry.origin) == Origin::Opener);
    let mut flows: Vec<Flow> = openers
        .map(|(tuple, entry)| {
            let answer = by_tuple.get(&entry.twin());
            Flow {
                protocol: tuple.proto.to_string(),
                state: CtState::from_u8(entry.state).name(),
                original: Side::new(tuple, networks),
                translated: Side::new(&entry.translated, networks),
                mapping: (entry.mapping != 0).then_some(entry.mapping),
                age: now.saturating_sub(entry.created),
                idle: now.saturating_sub(answer.map_or(0, |answer| answer.last_seen).max(entry.last_seen)),
                packets_sent: entry.packets,
                bytes_sent: entry.bytes,
                packets_received: answer.map_or(0, |answer| answer.packets),
                bytes_received: answer.map_or(0, |answer| answer.bytes),
            }
        })
        .collect();
    flows.sort_by(|a, b| (&a.protocol, &a.original).cmp(&(&b.protocol, &b.original)));
    flows
}

/// How many packets were dropped for one reason where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drop {
    /// The interface on which they arrived.
    pub interface: String,
    /// The program that dropped them.
    pub hook: &'static str,
    /// The reason's name.
    pub reason: &'static str,
    /// How many.
    pub packets: u64,
    /// The reason in words.
    pub explanation: &'static str,
}

impl Drop {
    /// A counter, with the names of interfaces by index.
    #[must_use]
    pub fn new(key: &DropKey, packets: u64, interfaces: &BTreeMap<u32, String>) -> Self {
        let reason = DropReason::from_u8(key.reason);
        Self {
            interface: interface(key.ifindex, interfaces),
            hook: hook(key.hook),
            reason: reason.map_or("unknown", DropReason::name),
            packets,
            explanation: reason.map_or("", |reason| reason.explanation().trim()),
        }
    }
}

impl Listed for Drop {
    const NOUN: &'static str = "drops";
    const HEADER: &'static [&'static str] = &["INTERFACE", "HOOK", "REASON", "PACKETS", "BECAUSE"];

    fn row(&self) -> Vec<String> {
        let [interface, hook, reason, explanation] =
            [self.interface.as_str(), self.hook, self.reason, self.explanation].map(str::to_owned);
        vec![interface, hook, reason, self.packets.to_string(), explanation]
    }
}

fn interface(index: u32, interfaces: &BTreeMap<u32, String>) -> String {
    interfaces.get(&index).cloned().unwrap_or_else(|| format!("if{index}"))
}

fn hook(byte: u8) -> &'static str {
    Hook::from_u8(byte).map_or("unknown", Hook::name)
}

/// A flow that has just begun.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FlowEvent {
    /// [`super::VERSION`].
    pub version: u32,
    /// Seconds since 1970.
    pub time: f64,
    /// `tcp`, `udp`, `icmp` or `icmpv6`.
    pub protocol: String,
    /// Its first packet as it arrived.
    pub original: Side,
    /// As it left.
    pub translated: Side,
}

impl FlowEvent {
    /// The flow that an event tells of; nothing if it tells of a drop.
    #[must_use]
    pub fn new(event: &Event, networks: &Networks) -> Option<Self> {
        event.drop_reason().is_none().then(|| Self {
            version: super::VERSION,
            time: wall_clock(),
            protocol: event.tuple.proto.to_string(),
            original: Side::new(&event.tuple, networks),
            translated: Side::new(&event.translated, networks),
        })
    }
}

impl fmt::Display for FlowEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, original, translated, .. } = self;
        write!(f, "{} {protocol:<6} {original}", clock(self.time))?;
        let ends = |side: &Side| (side.source, side.source_port, side.destination, side.destination_port);
        if ends(original) != ends(translated) {
            write!(f, " becomes {translated}")?;
        }
        write!(f, ", {} to {}", original.zone, translated.zone)
    }
}

/// A packet that has just been dropped.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DropEvent {
    /// [`super::VERSION`].
    pub version: u32,
    /// Seconds since 1970.
    pub time: f64,
    /// The reason's name.
    pub reason: &'static str,
    /// The interface on which it arrived.
    pub interface: String,
    /// The program that dropped it.
    pub hook: &'static str,
    /// Its protocol, `null` if it had no readable tuple.
    pub protocol: Option<String>,
    /// Its ends.
    pub packet: Option<Side>,
    /// Its length in bytes.
    pub length: u32,
}

impl DropEvent {
    /// The drop that an event tells of; nothing if it tells of a flow.
    #[must_use]
    pub fn new(event: &Event, interfaces: &BTreeMap<u32, String>, networks: &Networks) -> Option<Self> {
        let reason = event.drop_reason()?;
        let readable = !(event.tuple.src.is_unspecified() && event.tuple.dst.is_unspecified());
        Some(Self {
            version: super::VERSION,
            time: wall_clock(),
            reason: reason.name(),
            interface: interface(event.ifindex, interfaces),
            hook: hook(event.hook),
            protocol: readable.then(|| event.tuple.proto.to_string()),
            packet: readable.then(|| Side::new(&event.tuple, networks)),
            length: event.length,
        })
    }
}

impl fmt::Display for DropEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, interface, hook, length, .. } = self;
        write!(f, "{} dropped for {reason}", clock(self.time))?;
        if let (Some(protocol), Some(packet)) = (&self.protocol, &self.packet) {
            write!(f, ": {protocol} {packet}")?;
        }
        write!(f, ", {length} bytes, {hook} on {interface}")
    }
}

fn wall_clock() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Hours, minutes and seconds of a day in UTC.
fn clock(time: f64) -> String {
    let millis = (time * 1000.0) as u64 % 86_400_000;
    let (seconds, millis) = (millis / 1000, millis % 1000);
    format!("{:02}:{:02}:{:02}.{millis:03}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
