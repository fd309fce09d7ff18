//! What would become of a packet, as it is printed: each decision in a sentence.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use bytemuck::Zeroable as _;
use serde::Serialize;
use vnet_common::{
    Addr, CtEntry, CtState, DropReason, EndpointValue, Hook, NetworkValue, Origin, Tuple, Zone,
};
use vnet_datapath::buffer::Buffer;
use vnet_datapath::mappings::Admission;
use vnet_datapath::{L4, NextHop, Parsed, Route, Verdict, parse};

use super::flow::{Names, Side};
use super::{Format, List, age, print_json};
use crate::trace::{self, Change, End, Fact, Kind, Met, Onward, Target, Tracked, names_of};

/// What numbers in a trace stand for.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    /// Networks and endpoints.
    pub names: Names,
    /// The host's interfaces by index.
    pub interfaces: BTreeMap<u32, String>,
    /// Endpoints by the host-side end of their link.
    pub links: HashMap<String, String>,
    /// Published ports by number, in words.
    pub mappings: HashMap<u32, String>,
}

/// A packet's way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trace {
    /// The packet, in words.
    pub packet: String,
    /// Where it was taken to come from: `outside`, `host` or an endpoint's name.
    pub from: String,
    /// What it meets, in order.
    pub way: Vec<Leg>,
    /// What becomes of it: `delivered`, `forwarded`, `host`, `bridge`, `too-big`, `hop-limit`,
    /// `unroutable`, `held`, `not-ours` or
    /// `dropped`.
    pub verdict: &'static str,
    /// The name of the reason, if it is dropped.
    pub reason: Option<&'static str>,
    /// The endpoint that gets it.
    pub endpoint: Option<String>,
    /// The interface by which it goes.
    pub interface: Option<String>,
    /// The next hop, if it leaves.
    pub next_hop: Option<IpAddr>,
    /// Its ends as it gets there, unless it is dropped or is no IP packet.
    pub becomes: Option<Side>,
    /// The same in a sentence.
    pub text: String,
    /// What a real packet would leave behind.
    pub changes: Vec<ChangeLine>,
}

/// What one program does with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leg {
    /// The program, as in `vnet drops`; `host_connect` for those that see sockets of the host dial.
    pub hook: &'static str,
    /// The interface it is attached to.
    pub interface: Option<String>,
    /// What was asked and decided, in the order taken.
    pub decisions: Vec<Decision>,
    /// `deliver`, `forward`, `pass`, `hold` or `drop`.
    pub verdict: &'static str,
    /// The name of the reason, if it is dropped.
    pub reason: Option<&'static str>,
    /// What it means, in a sentence.
    pub text: String,
}

/// One question or decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// What it is about.
    pub about: &'static str,
    /// The answer in a sentence.
    pub text: String,
}

/// Something that a real packet would leave behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangeLine {
    /// The map.
    pub map: &'static str,
    /// `added`, `changed` or `removed`.
    pub change: &'static str,
    /// The entry in words.
    pub text: String,
}

impl Vocabulary {
    fn interface(&self, index: u32) -> String {
        self.interfaces.get(&index).cloned().unwrap_or_else(|| format!("interface {index}"))
    }

    /// The endpoint at the other end of a link.
    fn linked(&self, index: u32) -> Option<String> {
        self.links.get(self.interfaces.get(&index)?).cloned()
    }

    fn endpoint(&self, endpoint: &EndpointValue) -> String {
        match self.linked(endpoint.ifindex) {
            Some(name) => format!("endpoint {name}"),
            None => format!("the endpoint behind {}", self.interface(endpoint.ifindex)),
        }
    }

    fn network(&self, zone: Zone) -> String {
        self.names.networks.name(zone)
    }

    fn mapping(&self, id: u32) -> String {
        self.mappings
            .get(&id)
            .map_or_else(|| format!("mapping {id}"), |mapping| format!("{mapping} (mapping {id})"))
    }

    fn next_hop(&self, next_hop: &NextHop) -> String {
        format!("{} by {}", ip(next_hop.addr), self.interface(next_hop.ifindex))
    }

    /// A tuple in words.
    fn ends(&self, tuple: &Tuple) -> String {
        Side::new(tuple, &self.names.networks).to_string()
    }
}

fn ip(addr: Addr) -> IpAddr {
    IpAddr::from(addr)
}

/// The decision that a fact stands for; nothing if it is one that nobody wonders about.
fn decision(fact: &Fact, met: Met, words: &Vocabulary) -> Option<Decision> {
    let from_endpoint = matches!(met, Met::Program(Hook::FromEndpoint, _));
    let (about, text) = match fact {
        Fact::Read { kind, tuple } => ("packet", packet(kind, tuple, words)),
        Fact::Endpoint(addr, Some(endpoint)) => {
            let (whose, network) = (words.endpoint(endpoint), words.network(endpoint.zone));
            ("endpoint", format!("{} is {whose} of network {network}", ip(*addr)))
        }
        Fact::Endpoint(addr, None) if from_endpoint => {
            ("endpoint", format!("{} is no endpoint's", ip(*addr)))
        }
        Fact::Network(addr, Some(network)) => (
            "network",
            format!("{} is inside network {}{}", ip(*addr), words.network(network.zone), modes(network)),
        ),
        Fact::HostAddress(addr, Some(value)) => (
            "host",
            format!("{} is an address of the host, on {}", ip(*addr), words.interface(value.ifindex)),
        ),
        Fact::HostAddress(addr, None) if addr.is_loopback() || addr.is_unspecified() => return None,
        Fact::HostAddress(addr, None) => ("host", format!("{} is no address of the host", ip(*addr))),
        Fact::Owns(addr, true) => ("host", format!("the host has {} at this moment", ip(*addr))),
        Fact::Owns(addr, false) => {
            ("host", format!("the host's routing does not take {} for its own", ip(*addr)))
        }
        Fact::Uplink(index, found) => {
            let is = if found.is_some() { "an uplink" } else { "no uplink of this instance" };
            ("uplink", format!("{} is {is}", words.interface(*index)))
        }
        Fact::Flow(None) => ("flow", "no flow is tracked that it belongs to".to_owned()),
        Fact::Flow(Some(tracked)) => ("flow", flow(tracked, words)),
        Fact::Over(idle) => {
            let idle = age(u64::from(*idle));
            ("flow", format!("that flow is over, since nothing was heard of it for {idle}: it is forgotten"))
        }
        Fact::Advanced(old, new) if old == new => ("flow", format!("the flow is kept alive, {}", new.name())),
        Fact::Advanced(old, new) => ("flow", format!("the flow goes from {} to {}", old.name(), new.name())),
        Fact::Confirmed => {
            ("flow", "both sides have shown that they hear each other: the flow is confirmed".to_owned())
        }
        Fact::LostAddress => (
            "flow",
            "the host has lost the address that the flow leaves under: it ends, and begins anew".to_owned(),
        ),
        Fact::Target(None) => ("mapping", "no port is published there, and no floating address".to_owned()),
        Fact::Target(Some(found)) => ("mapping", target(found, words)),
        Fact::Allowed { mapping, client, allowed } => {
            let may = if *allowed { "may" } else { "may not" };
            let (client, mapping) = (ip(*client), words.mapping(*mapping));
            ("mapping", format!("{client} {may} use {mapping}, by its --allow-from"))
        }
        Fact::Admission(Admission::Admitted, to) => (
            "mapping",
            format!("the port is an endpoint's own, open to this sender: it becomes {}", words.ends(to)),
        ),
        Fact::Admission(_, to) => {
            let whose = socket(to.dst, to.dport.number());
            ("mapping", format!("the port is that of {whose}, which has not sent to this sender"))
        }
        Fact::Socket(tuple, true) => ("socket", format!("a socket of the host takes {}", words.ends(tuple))),
        Fact::Socket(_, false) => return None,
        Fact::Masquerade(source, None) => {
            ("masquerade", format!("no masquerade rule covers {}", ip(*source)))
        }
        Fact::Masquerade(source, Some(rule)) => {
            let flags = rule.flags;
            let how = if flags & vnet_common::MasqueradeValue::FLAG_EXEMPT != 0 {
                "keeps its own address towards the world".to_owned()
            } else if flags & vnet_common::MasqueradeValue::FLAG_ONE_TO_ONE != 0 {
                format!("goes out as its floating address {}", ip(rule.to))
            } else if rule.to.is_unspecified() {
                "goes out as the address that the host would use".to_owned()
            } else {
                format!("goes out as {}", ip(rule.to))
            };
            ("masquerade", format!("{} {how}", ip(*source)))
        }
        Fact::Unmasqueraded(to) => ("masquerade", format!("masquerade leaves packets to {} alone", ip(*to))),
        Fact::Route(to, Route::Via(next_hop, source)) => {
            let source = if source.is_unspecified() {
                String::new()
            } else {
                format!(", with the source {}", ip(*source))
            };
            ("route", format!("the route to {} leads to {}{source}", ip(*to), words.next_hop(next_hop)))
        }
        Fact::Route(to, Route::Stack) => {
            ("route", format!("there is no route to {} that it could be forwarded by as it is", ip(*to)))
        }
        Fact::Quota(index) => {
            let who = words.linked(*index).unwrap_or_else(|| words.interface(*index));
            ("quota", format!("{who} has as many flows as it may have, and none of them is over"))
        }
        Fact::SourcePort { wished, tried, taken: true } if wished == tried => {
            ("port", format!("it keeps its source port, {}", tried.number()))
        }
        Fact::SourcePort { wished, tried, taken: true } => {
            let (wished, tried) = (wished.number(), tried.number());
            (
                "port",
                format!("its source port {wished} becomes {tried}: drawn, so a real packet may get another"),
            )
        }
        Fact::SourcePort { wished, tried, taken: false } if wished == tried => {
            ("port", format!("it cannot keep its source port {}", tried.number()))
        }
        Fact::SourcePort { tried, taken: false, .. } => {
            ("port", format!("port {} is in use", tried.number()))
        }
        Fact::Began { tuple, translated, mapping } => {
            let by = if *mapping == 0 { String::new() } else { format!(", by {}", words.mapping(*mapping)) };
            ("flow", format!("a flow begins: {} becomes {}{by}", words.ends(tuple), words.ends(translated)))
        }
        Fact::Related(tuple) => {
            ("flow", format!("it is an error about {} of a tracked flow", words.ends(tuple)))
        }
        Fact::Rewritten(from, to) if sides(from) == sides(to) => return None,
        Fact::Rewritten(from, to) => {
            ("rewrite", format!("{} is rewritten to {}", words.ends(from), words.ends(to)))
        }
        Fact::Answered(answer) => {
            let (who, kind, code) = (ip(answer.dst), answer.kind, answer.code);
            (
                "answer",
                format!(
                    "{who} is told so by an ICMP error (type {kind}, code {code}) from {}",
                    ip(answer.src)
                ),
            )
        }
        Fact::Denied(source, true) => ("deny", format!("{} is on the deny list", ip(*source))),
        Fact::Dialled(Some((addr, port))) => {
            let to = socket(*addr, port.number());
            ("dial", format!("the socket is connected to {to} instead; no packet of it is translated"))
        }
        Fact::Dialled(None) => (
            "dial",
            "no TCP or UDP port is published there for programs of the host: the socket dials as it asks"
                .to_owned(),
        ),
        Fact::HostsOwn => {
            ("host", "the host itself sends it: only what comes from elsewhere is looked at".to_owned())
        }
        Fact::Endpoint(_, None) | Fact::Network(_, None) | Fact::Denied(_, false) => return None,
    };
    Some(Decision { about, text })
}

fn sides(tuple: &Tuple) -> (Addr, u16, Addr, u16) {
    (tuple.src, tuple.sport.number(), tuple.dst, tuple.dport.number())
}

fn socket(addr: Addr, port: u16) -> SocketAddr {
    SocketAddr::new(ip(addr), port)
}

fn packet(kind: &Kind, tuple: &Tuple, words: &Vocabulary) -> String {
    let headers = match kind {
        Kind::Ip(headers) => headers,
        Kind::Arp => return "it is ARP".to_owned(),
        Kind::Other => return "it is neither IPv4, IPv6 nor ARP".to_owned(),
        Kind::Malformed => return "its headers are cut short, or contradict themselves".to_owned(),
    };
    let mut text = format!("it is read as {} {}", tuple.proto, words.ends(tuple));
    if let L4::Tcp(flags) = headers.l4() {
        let _ = write!(text, " ({})", names_of(flags));
    }
    let _ = write!(text, ", {} bytes, hop limit {}", headers.length, headers.hop_limit);
    text
}

/// What of a network opens or closes it.
fn modes(network: &NetworkValue) -> String {
    let named = [
        (NetworkValue::FLAG_INTERNAL, "internal"),
        (NetworkValue::FLAG_ISOLATED, "isolated"),
        (NetworkValue::FLAG_UNPROTECTED, "nat-unprotected"),
        (NetworkValue::FLAG_ROUTED, "routed"),
        (NetworkValue::FLAG_UNBRIDGED, "without a bridge"),
    ];
    let modes: Vec<&str> =
        named.iter().filter(|(flag, _)| network.flags & flag != 0).map(|(_, name)| *name).collect();
    if modes.is_empty() { String::new() } else { format!(" ({})", modes.join(", ")) }
}

fn flow(tracked: &Tracked, words: &Vocabulary) -> String {
    let Tracked { entry, confirmed, idle } = tracked;
    let CtEntry { translated, state, origin, mapping, .. } = entry;
    let confirmed = if *confirmed { "a confirmed" } else { "an unconfirmed" };
    let direction = match Origin::from_u8(*origin) {
        Origin::Opener => "of its opener",
        Origin::Answer => "an answer",
    };
    let by = if *mapping == 0 { String::new() } else { format!(", opened by {}", words.mapping(*mapping)) };
    format!(
        "it is {direction} in {confirmed} flow, {}, idle for {}{by}: it becomes {}",
        CtState::from_u8(*state).name(),
        age(u64::from(*idle)),
        words.ends(translated)
    )
}

fn target(Target { translated, mapping, allowed }: &Target, words: &Vocabulary) -> String {
    let to = socket(translated.dst, translated.dport.number());
    let whose = words.names.endpoint(translated.zone, translated.dst);
    let whose = whose.map(|name| format!(", endpoint {name}")).unwrap_or_default();
    match (mapping, allowed) {
        (0, _) => format!("it is a floating address, which leads to {}{whose}", ip(translated.dst)),
        (_, true) => format!("{} leads to {to}{whose}", words.mapping(*mapping)),
        (_, false) => format!("{} leads to {to}{whose}, but not for everybody", words.mapping(*mapping)),
    }
}

/// What a program does, in words.
fn leg(leg: &trace::Leg, words: &Vocabulary) -> Leg {
    let (hook, interface) = match leg.met {
        Met::Program(hook, ifindex) => (hook.name(), Some(words.interface(ifindex))),
        Met::Dial => ("host_connect", None),
    };
    let mut decisions: Vec<Decision> = Vec::new();
    for said in leg.facts.iter().filter_map(|fact| decision(fact, leg.met, words)) {
        // Some things are asked by several steps.
        if !decisions.contains(&said) {
            decisions.push(said);
        }
    }
    let reason = leg.verdict.err();
    let (verdict, text) = match leg.verdict {
        Err(reason) => ("drop", dropped(reason)),
        Ok(Verdict::Deliver(delivery)) => {
            let by = words.interface(delivery.ifindex);
            let whom = words.linked(delivery.ifindex).unwrap_or_else(|| "the endpoint".to_owned());
            ("deliver", format!("handed to {whom} by {by}, past the host's stack"))
        }
        Ok(Verdict::Forward(next_hop)) => {
            ("forward", format!("sent to {}, past the host's stack", words.next_hop(&next_hop)))
        }
        Ok(Verdict::Hold | Verdict::Return) => {
            ("hold", "kept until the first fragment of its datagram comes".to_owned())
        }
        Ok(Verdict::Pass) => ("pass", passed(leg, words)),
        Ok(Verdict::Enter(index)) => {
            ("pass", format!("{}; it gets there by {}", passed(leg, words), words.interface(index)))
        }
    };
    Leg { hook, interface, decisions, verdict, reason: reason.map(DropReason::name), text }
}

fn dropped(reason: DropReason) -> String {
    format!("dropped for {}: {} {}", reason.name(), reason.explanation().trim(), reason.remedy())
}

fn passed(leg: &trace::Leg, words: &Vocabulary) -> String {
    match (leg.onward, leg.met) {
        (Some(Onward::Host), _) => "left to the host's stack: it is for the host itself".to_owned(),
        (Some(Onward::Bridge(index)), Met::Dial) => {
            format!("the host's routes lead its packets to {}, as to any neighbour", words.interface(index))
        }
        (Some(Onward::Bridge(index)), _) => {
            format!(
                "left to the bridge {}, which hands it to whoever has the address",
                words.interface(index)
            )
        }
        (Some(Onward::Forwarded(next_hop)), _) => format!(
            "left to the host's stack, which sends it to {} if the host's firewall lets it",
            words.next_hop(&next_hop)
        ),
        (Some(Onward::Cut(next_hop)), _) => format!(
            "left to the host's stack, which cuts it into fragments, as it is too big for the way to {}, and sends those \
             if the host's firewall lets it",
            words.next_hop(&next_hop)
        ),
        (Some(Onward::TooBig(next_hop)), _) => format!(
            "left to the host's stack, which answers that it is too big for the way to {}: it may not be cut into \
             fragments",
            words.next_hop(&next_hop)
        ),
        (Some(Onward::HopLimit), _) => {
            "left to the host's stack, which does not forward it: its hop limit runs out".to_owned()
        }
        (Some(Onward::Nowhere), Met::Dial) => "nobody has that address any more".to_owned(),
        (Some(Onward::Nowhere), _) => {
            "left to the host's stack, which does not forward it: it has no route there, or is no router"
                .to_owned()
        }
        (None, Met::Program(Hook::ToBridge, index)) => {
            format!("let through: the bridge {} hands it to the endpoint", words.interface(index))
        }
        (None, Met::Program(Hook::ToNetwork, index)) => {
            format!("taken from {}, and handed to the endpoint", words.interface(index))
        }
        (None, Met::Program(Hook::ToUplink, index)) => {
            format!("let through: it leaves by {}", words.interface(index))
        }
        (None, Met::Program(Hook::XdpUplink, _)) => "let through, as it is".to_owned(),
        (None, _) => "let through: vnet has nothing to do with it".to_owned(),
    }
}

impl Trace {
    /// A trace in words.
    #[must_use]
    pub fn new(packet: String, from: String, trace: &trace::Trace, words: &Vocabulary) -> Self {
        let end = trace.end();
        let (interface, next_hop) = match end {
            End::Delivered(index) | End::Bridge(index) => (Some(words.interface(index)), None),
            End::Forwarded(NextHop { ifindex, addr }) => (Some(words.interface(ifindex)), Some(ip(addr))),
            _ => (None, None),
        };
        let way: Vec<Leg> = trace.legs.iter().map(|it| leg(it, words)).collect();
        let mut becomes = match end {
            End::Dropped(_) => None,
            _ => trace.legs.last().and_then(|last| tuple_of(&last.frame)),
        };
        let mut endpoint = None;
        if let (Some(tuple), End::Delivered(_) | End::Bridge(_)) = (&mut becomes, end) {
            let owner = words.names.endpoints.iter().find(|((_, addr), _)| *addr == tuple.dst);
            if let Some(((zone, _), name)) = owner {
                tuple.zone = *zone;
                endpoint = Some(name.clone());
            }
        }
        let text = way.last().map(|last| last.text.clone()).unwrap_or_default();
        Self {
            packet,
            from,
            way,
            verdict: name(end),
            reason: if let End::Dropped(reason) = end { Some(reason.name()) } else { None },
            endpoint,
            interface,
            next_hop,
            becomes: becomes.map(|tuple| Side::new(&tuple, &words.names.networks)),
            text,
            changes: trace.changes.iter().map(|change| line(change, words)).collect(),
        }
    }

    /// Prints it: a list of one for programs, sentences for people.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn print(&self, out: &mut impl Write, format: Format) -> io::Result<()> {
        if format == Format::Json {
            return print_json(out, &List { noun: "traces", items: std::slice::from_ref(self) });
        }
        writeln!(out, "{}, from {}", self.packet, self.from)?;
        for leg in &self.way {
            let place = leg.interface.as_ref().map(|name| format!(" on {name}")).unwrap_or_default();
            writeln!(out, "\n{}{place}", leg.hook)?;
            leg.decisions.iter().try_for_each(|it| writeln!(out, "  {:<10}  {}", it.about, it.text))?;
            writeln!(out, "  {:<10}  {}", leg.verdict.to_uppercase(), leg.text)?;
        }
        if let Some(becomes) = &self.becomes {
            writeln!(out, "\n{}: {becomes}", self.verdict)?;
        } else {
            writeln!(out, "\n{}", self.verdict)?;
        }
        if !self.changes.is_empty() {
            writeln!(out, "\nA real packet would leave behind (nothing has been changed now):")?;
        }
        self.changes
            .iter()
            .try_for_each(|it| writeln!(out, "  {:<11}  {:<7}  {}", it.map, it.change, it.text))
    }
}

/// The ends of a frame.
fn tuple_of(frame: &[u8]) -> Option<Tuple> {
    let mut tuple = Tuple::zeroed();
    let parsed = parse(&Buffer::plain(frame.to_vec()), &mut bytemuck::Zeroable::zeroed(), &mut tuple);
    matches!(parsed, Ok(Parsed::Ip(_))).then_some(tuple)
}

const fn name(end: End) -> &'static str {
    match end {
        End::Delivered(_) => "delivered",
        End::Forwarded(_) => "forwarded",
        End::Host => "host",
        End::Bridge(_) => "bridge",
        End::TooBig => "too-big",
        End::HopLimit => "hop-limit",
        End::Nowhere => "unroutable",
        End::Held => "held",
        End::NotOurs => "not-ours",
        End::Dropped(_) => "dropped",
    }
}

const fn kind<T>(before: &Option<T>, after: &Option<T>) -> &'static str {
    match (before, after) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    }
}

fn line(change: &Change, words: &Vocabulary) -> ChangeLine {
    use vnet_common::maps;
    let of = |tuple: &Tuple| format!("{} {}", tuple.proto, words.ends(tuple));
    match change {
        Change::Flow { tuple, confirmed, before, after } => {
            let entry = after.or(*before);
            let becomes = entry.map(|entry| {
                let (state, packets) = (CtState::from_u8(entry.state).name(), entry.packets);
                format!(" becomes {}, {state}, packets: {packets}", words.ends(&entry.translated))
            });
            ChangeLine {
                map: if *confirmed { maps::CONNTRACK } else { maps::UNCONFIRMED },
                change: kind(before, after),
                text: format!("{}{}", of(tuple), becomes.unwrap_or_default()),
            }
        }
        Change::Mapping { key, before, after } => {
            let translated =
                after.or(*before).map(|entry| format!(" becomes {}", words.ends(&entry.translated)));
            ChangeLine {
                map: maps::MAPPINGS,
                change: kind(before, after),
                text: format!("{}{}", of(key), translated.unwrap_or_default()),
            }
        }
        Change::Fragment { .. } => ChangeLine {
            map: maps::FRAGMENTS,
            change: "added",
            text: "what became of the first fragment of its datagram".to_owned(),
        },
        Change::Dialled { key, after } => {
            let (to, dialled) =
                (socket(key.addr, key.port.number()), socket(after.addr, after.port.number()));
            let text = format!("the socket has dialled {dialled} and talks to {to}");
            ChangeLine { map: maps::LOCAL_FLOWS, change: "added", text }
        }
    }
}
