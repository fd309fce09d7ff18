//! Flows, drops and events, as they are printed.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use vnet_common::{Addr, DatapathConfig, DropKey, DropReason, Event, Hook, Tuple, Zone};

use super::table::words;
use super::{Listed, age, bytes};
use crate::flow::{self, News};

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
    /// The ends of a tuple.
    #[must_use]
    pub fn new(tuple: &Tuple, networks: &Networks) -> Self {
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
    /// The name of a side.
    #[must_use]
    pub fn name(&self, zone: Zone) -> String {
        match zone {
            Zone::WORLD => "world".to_owned(),
            Zone { id } => self.0.get(&id).cloned().unwrap_or_else(|| format!("network {id}")),
        }
    }
}

/// What tuples stand for: networks by number, endpoints by network and address.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The networks.
    pub networks: Networks,
    /// The endpoints.
    pub endpoints: HashMap<(Zone, Addr), String>,
}

impl Names {
    /// Whose an address is.
    #[must_use]
    pub fn endpoint(&self, zone: Zone, addr: Addr) -> Option<String> {
        self.endpoints.get(&(zone, addr)).cloned()
    }
}

/// A tracked flow: both directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// `tcp`, `udp`, `sctp`, `icmp` or `icmpv6`.
    pub protocol: String,
    /// `new`, `answered`, `established`, `opener-closed`, `answer-closed`, `closing` or `reset`.
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
    /// Whether both sides have shown that they hear each other, so that no other flow can displace it.
    pub confirmed: bool,
    /// Which of its two entries there are: `both`, or the `opener`'s or the `answer`'s alone. What is counted by the
    /// other one is 0.
    pub halves: &'static str,
    /// The endpoint that opened it, `null` if somebody else did.
    pub opener: Option<String>,
    /// The endpoint that it leads to, `null` if it leads elsewhere.
    pub target: Option<String>,
    /// Whether its external port is that of all flows of its socket (RFC 4787 REQ-1).
    pub endpoint_independent: bool,
    /// Seconds without a packet after which it is over.
    pub timeout: u32,
    /// Seconds until then, 0 if it is over.
    pub expires: u32,
    /// Whether it is over, and only there because nobody has met it since.
    pub expired: bool,
}

impl Flow {
    /// A flow as it is at a time, in seconds since boot.
    #[must_use]
    pub fn new(flow: &flow::Flow, names: &Names, config: &DatapathConfig, now: u32) -> Self {
        let flow::Flow { original, translated, sent, received, .. } = flow;
        Self {
            protocol: original.proto.to_string(),
            state: flow.state.name(),
            original: Side::new(original, &names.networks),
            translated: Side::new(translated, &names.networks),
            mapping: (flow.mapping != 0).then_some(flow.mapping),
            age: flow.age(now),
            idle: flow.idle(now),
            packets_sent: sent.packets,
            bytes_sent: sent.bytes,
            packets_received: received.packets,
            bytes_received: received.bytes,
            confirmed: flow.confirmed,
            halves: flow.halves.name(),
            opener: names.endpoint(original.zone, original.src),
            target: names.endpoint(translated.zone, translated.dst),
            endpoint_independent: flow.mapped,
            timeout: flow.timeout(config),
            expires: flow.left(config, now),
            expired: flow.is_over(config, now),
        }
    }

    /// Whether it is translated at all.
    fn is_translated(&self) -> bool {
        let ends = |side: &Side| (side.source, side.source_port, side.destination, side.destination_port);
        ends(&self.original) != ends(&self.translated)
    }

    /// Where it comes from: an endpoint and its network, or the world.
    fn whence(&self) -> String {
        place(self.opener.as_ref(), &self.original)
    }

    /// Where it leads to.
    fn whither(&self) -> String {
        place(self.target.as_ref(), &self.translated)
    }

    fn confirmation(&self) -> String {
        let confirmed = if self.confirmed { "yes" } else { "no" };
        match self.halves {
            "both" => confirmed.to_owned(),
            half => format!("{confirmed}, {half}'s half alone"),
        }
    }
}

fn place(endpoint: Option<&String>, side: &Side) -> String {
    endpoint.map_or_else(|| side.zone.clone(), |endpoint| format!("{}/{endpoint}", side.zone))
}

fn traffic(packets: u64, count: u64) -> String {
    format!("{packets} ({})", bytes(count))
}

impl Listed for Flow {
    const NOUN: &'static str = "flows";
    const HEADER: &'static [&'static str] = &[
        "PROTO",
        "STATE",
        "CONFIRMED",
        "FROM",
        "ORIGINAL",
        "TO",
        "TRANSLATED",
        "MAPPING",
        "AGE",
        "IDLE",
        "LEFT",
        "SENT",
        "RECEIVED",
    ];

    fn row(&self) -> Vec<String> {
        vec![
            self.protocol.clone(),
            self.state.to_owned(),
            self.confirmation(),
            self.whence(),
            self.original.to_string(),
            self.whither(),
            self.translated.to_string(),
            words(self.mapping),
            age(self.age.into()),
            age(self.idle.into()),
            if self.expired { "over".to_owned() } else { age(self.expires.into()) },
            traffic(self.packets_sent, self.bytes_sent),
            traffic(self.packets_received, self.bytes_received),
        ]
    }
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
    /// What to do about it, for whoever wants such packets to go through.
    pub remedy: &'static str,
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
            remedy: reason.map_or("", DropReason::remedy),
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

pub(super) fn interface(index: u32, interfaces: &BTreeMap<u32, String>) -> String {
    interfaces.get(&index).cloned().unwrap_or_else(|| format!("if{index}"))
}

fn hook(byte: u8) -> &'static str {
    hook_name(Hook::from_u8(byte))
}

pub(super) fn hook_name(hook: Option<Hook>) -> &'static str {
    hook.map_or("unknown", Hook::name)
}

/// Something that has just become of a flow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FlowEvent {
    /// [`super::VERSION`].
    pub version: u32,
    /// Seconds since 1970.
    pub time: f64,
    /// `began`, `confirmed`, `changed` or `ended`.
    pub event: &'static str,
    /// The state before, if the flow was confirmed or changed.
    pub previous: Option<&'static str>,
    /// Why it ended: `timeout`, or `removed` if it was forgotten before.
    pub reason: Option<&'static str>,
    /// The flow as it is now, or was when last seen.
    #[serde(flatten)]
    pub flow: Flow,
}

impl FlowEvent {
    /// What is told now of a flow.
    #[must_use]
    pub fn new(news: News, flow: Flow) -> Self {
        let (event, previous, reason) = match news {
            News::Began => ("began", None, None),
            News::Confirmed(before) => ("confirmed", Some(before.name()), None),
            News::Changed(before) => ("changed", Some(before.name()), None),
            News::Ended(why) => ("ended", None, Some(why.name())),
        };
        Self { version: super::VERSION, time: wall_clock(), event, previous, reason, flow }
    }
}

impl fmt::Display for FlowEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, previous, reason, flow, .. } = self;
        let Flow { protocol, original, translated, state, .. } = flow;
        write!(f, "{} {event:<9} {protocol:<6} {original}", clock(self.time))?;
        if flow.is_translated() {
            write!(f, " becomes {translated}")?;
        }
        write!(f, ", {} to {}", flow.whence(), flow.whither())?;
        if let Some(previous) = previous.filter(|previous| previous != state) {
            write!(f, ", {previous} -> {state}")?;
        }
        let Some(reason) = reason else { return Ok(()) };
        let sent = traffic(flow.packets_sent, flow.bytes_sent);
        let received = traffic(flow.packets_received, flow.bytes_received);
        let lived = age(flow.age.into());
        write!(f, ", {reason} when {state}, after {lived}, {sent} sent and {received} received")
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

pub(super) fn wall_clock() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Hours, minutes and seconds of a day in UTC.
pub(super) fn clock(time: f64) -> String {
    let millis = (time * 1000.0) as u64 % 86_400_000;
    let (seconds, millis) = (millis / 1000, millis % 1000);
    format!("{:02}:{:02}:{:02}.{millis:03}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
