//! A second opinion on who may talk to whom: from what has been let through, not from the tables of flows.
//!
//! It knows nothing of states and confirmations, so it allows a little more than vnet does; what it does not allow is
//! a hole.

use std::collections::{HashMap, HashSet};

use vnet_common::{
    Addr, EndpointValue, MasqueradeValue, NetworkValue, Port, PortMapValue, PrefixKey, Proto, Tuple, Zone,
    filtering, mapping,
};
use vnet_datapath::L4;
use vnet_datapath::model::Model;

use crate::tables::longest;

/// A packet that went on: what it was and what it became. `became.zone` is where it went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passage {
    pub(crate) tuple: Tuple,
    pub(crate) became: Tuple,
    pub(crate) l4: L4,
}

impl Passage {
    fn is_echo(&self) -> bool {
        self.l4 == L4::Echo
    }

    /// Whether the receiver's port is the one that was asked for. The identifier of an echo is the sender's.
    fn keeps_port(&self) -> bool {
        self.became.dport == if self.is_echo() { self.became.sport } else { self.tuple.dport }
    }

    fn opens_tcp(&self) -> bool {
        matches!(self.l4, L4::Tcp(flags) if flags & 0x12 == 0x02)
    }
}

/// A way to the world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WayOut {
    pub(crate) ifindex: u32,
    /// The address that the host would use itself.
    pub(crate) host: Option<Addr>,
}

impl WayOut {
    /// By an interface, under its own address of the family of `dst`.
    pub(crate) fn by(model: &Model, ifindex: u32, dst: &Addr) -> Self {
        let own = model.uplinks.get(&ifindex).map(|uplink| if dst.is_v4() { uplink.v4 } else { uplink.v6 });
        Self { ifindex, host: own.filter(|addr| !addr.is_unspecified()) }
    }
}

/// Who has talked to whom.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// Whether entries are evicted now and then.
    evicts: bool,
    /// What packets with a tuple became, of both directions of a conversation, and when (seconds since boot). After an
    /// eviction a tuple may belong to two.
    known: HashMap<(Tuple, Tuple), u32>,
    /// External ports, and the endpoints' ports behind each.
    external: HashMap<(Addr, Port, Proto), HashMap<Inside, Shared>>,
}

/// An endpoint's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Inside {
    addr: Addr,
    port: Port,
    zone: Zone,
}

/// An external port that its owner uses towards several peers.
#[derive(Clone, Debug, Default)]
struct Shared {
    last: u32,
    peers: HashSet<Addr>,
}

type Ruling = Result<(), String>;

impl Rules {
    pub(crate) fn new(evicts: bool) -> Self {
        Self { evicts, ..Self::default() }
    }

    /// A packet of an endpoint that leaves for the world.
    pub(crate) fn leaves(&mut self, model: &Model, passage: &Passage, way: &WayOut) -> Ruling {
        if !self.is_known(model, passage) {
            self.begins_outwards(model, passage, way)?;
        }
        self.note(model, passage, Some(&model.endpoints[&passage.tuple.src]));
        Ok(())
    }

    /// A packet from the world that reaches an endpoint.
    pub(crate) fn arrives(&mut self, model: &Model, passage: &Passage) -> Ruling {
        if !self.is_known(model, passage) {
            self.begins_inwards(model, passage)?;
        }
        self.note(model, passage, None);
        Ok(())
    }

    /// A packet from one endpoint to another by an address of the host.
    pub(crate) fn returns(&mut self, model: &Model, passage: &Passage) -> Ruling {
        if !self.is_known(model, passage) {
            self.begins_hairpin(model, passage)?;
        }
        self.note(model, passage, Some(&model.endpoints[&passage.tuple.src]));
        Ok(())
    }

    /// A packet of an endpoint that is dropped: it may have got as far as to its port's mapping.
    pub(crate) fn fails(&mut self, model: &Model, tuple: &Tuple) {
        let Some(sender) = model.endpoints.get(&tuple.src) else { return };
        let inside = Inside { addr: tuple.src, port: tuple.sport, zone: sender.zone };
        let owned = self.external.values_mut().filter_map(|owners| owners.get_mut(&inside));
        owned.for_each(|shared| shared.last = model.clock);
    }

    /// Whether anything is known to be exchanged between an address of the world and an endpoint.
    pub(crate) fn have_met(&self, outsider: &Addr, endpoint: &Addr) -> bool {
        self.known.keys().any(|(_, became)| became.src == *outsider && became.dst == *endpoint)
    }

    /// Whether anything is known to be exchanged between an endpoint and somebody to whom it is `external`.
    pub(crate) fn have_left(&self, external: &Addr, outsider: &Addr) -> bool {
        self.known.keys().any(|(_, became)| became.src == *external && became.dst == *outsider)
    }

    /// What is known of the ports of a packet, one a line.
    pub(crate) fn about(&self, tuple: &Tuple) -> String {
        let (from, to) = ((tuple.src, tuple.sport), (tuple.dst, tuple.dport));
        let ends = |it: &Tuple| [(it.src, it.sport), (it.dst, it.dport)];
        let known = self.known.iter().filter(|((it, became), _)| {
            let ends = [ends(it), ends(became)].concat();
            ends.contains(&from) || ends.contains(&to)
        });
        let known = known.map(|((it, became), last)| format!("known: {it:?} => {became:?}, at {last}\n"));
        let external =
            self.external.iter().filter(|((addr, port, _), _)| [from, to].contains(&(*addr, *port)));
        known.chain(external.map(|shared| format!("shared: {shared:?}\n"))).collect()
    }

    fn is_known(&self, model: &Model, passage: &Passage) -> bool {
        let last = self.known.get(&(passage.tuple, passage.became));
        last.is_some_and(|last| model.clock - last <= longest(&model.config, passage.tuple.proto))
    }

    fn note(&mut self, model: &Model, passage: &Passage, sender: Option<&EndpointValue>) {
        let Passage { tuple, became, .. } = *passage;
        let last = model.clock;
        self.known.insert((tuple, became), last);
        self.known.insert((became.answer(), tuple.answer()), last);
        if sender.is_some_and(|sender| shares_ports(sender, tuple.proto)) {
            let inside = Inside { addr: tuple.src, port: tuple.sport, zone: tuple.zone };
            let owners = self.external.entry((became.src, became.sport, tuple.proto)).or_default();
            if self.evicts {
                owners.values_mut().for_each(|shared| shared.last = last);
            }
            let shared = owners.entry(inside).or_default();
            shared.last = last;
            shared.peers.insert(became.dst);
        }
        if let Some(shared) = self.external.get_mut(&(tuple.dst, tuple.dport, tuple.proto)) {
            let inside = Inside { addr: became.dst, port: became.dport, zone: became.zone };
            // Of a mapping of which one half was evicted, the flows keep the port's next owner alive.
            let owners = shared.iter_mut().filter(|(owner, _)| **owner == inside || self.evicts);
            owners.for_each(|(_, shared)| shared.last = last);
        }
    }

    /// The first packet of a flow to the world.
    fn begins_outwards(&self, model: &Model, passage: &Passage, way: &WayOut) -> Ruling {
        let Passage { tuple, became, .. } = passage;
        let sender = &model.endpoints[&tuple.src];
        // Answers go where the host would send its own; what an endpoint begins leaves by an uplink.
        if !model.uplinks.contains_key(&way.ifindex) {
            return Err("it begins, but not towards an uplink".to_owned());
        }
        if sender.has(NetworkValue::FLAG_INTERNAL) {
            return Err("an internal network reaches the world".to_owned());
        }
        if became.dst != tuple.dst || !passage.keeps_port() {
            return Err("it goes somewhere else".to_owned());
        }
        let rule = masquerade(model, &tuple.src);
        if keeps_address(model, sender, tuple) {
            let port = became.sport == tuple.sport || in_range(model, became.sport);
            return if became.src == tuple.src && port {
                Ok(())
            } else {
                Err("translated all the same".to_owned())
            };
        }
        let Some(rule) = rule else { return Err("no rule covers its source".to_owned()) };
        let expected = if rule.to.is_unspecified() { way.host } else { Some(rule.to) };
        if Some(became.src) != expected {
            return Err(format!("its source should be {expected:?}"));
        }
        if rule.flags & MasqueradeValue::FLAG_ONE_TO_ONE != 0 {
            let port = became.sport == tuple.sport || in_range(model, became.sport);
            return if port { Ok(()) } else { Err("its port does not belong to it".to_owned()) };
        }
        self.check_source_port(model, passage)
    }

    /// The first packet of a flow from outside.
    fn begins_inwards(&self, model: &Model, passage: &Passage) -> Ruling {
        let Passage { tuple, became, .. } = passage;
        if network(model, &tuple.src).is_some() {
            return Err("an endpoint's address comes from outside".to_owned());
        }
        if became.src != tuple.src {
            return Err("the endpoint does not see who sends".to_owned());
        }
        if became.sport != tuple.sport && !in_range(model, became.sport) {
            return Err("a source port of nobody's".to_owned());
        }
        let direct = became.dst == tuple.dst && is_open(model, passage);
        let allowed = direct || is_asked_for(model, passage) || self.is_mapped(model, passage);
        if allowed { Ok(()) } else { Err("nobody asked for it and nothing publishes it".to_owned()) }
    }

    /// The first packet of a flow between endpoints by an address of the host.
    fn begins_hairpin(&self, model: &Model, passage: &Passage) -> Ruling {
        let Passage { tuple, became, l4 } = passage;
        if !model.host_addresses.contains_key(&tuple.dst) || became.src != tuple.dst {
            return Err("the receiver does not see the address that was asked".to_owned());
        }
        if matches!(l4, L4::Tcp(_)) && !passage.opens_tcp() {
            return Err("a connection that does not begin with a SYN".to_owned());
        }
        self.check_source_port(model, passage)?;
        let mapped = tuple.zone == became.zone && self.is_mapped(model, passage);
        if mapped || is_asked_for(model, passage) { Ok(()) } else { Err("nothing publishes it".to_owned()) }
    }

    /// A source port on an address that the host uses too.
    fn check_source_port(&self, model: &Model, passage: &Passage) -> Ruling {
        let Passage { tuple, became, .. } = passage;
        match tuple.proto {
            Proto::SCTP if became.sport != tuple.sport => Err("a port that the checksum covers".to_owned()),
            Proto::TCP | Proto::UDP if !in_range(model, became.sport) => {
                Err("a source port that is not masquerade's".to_owned())
            }
            // A port that is one for all peers was asked for when it was taken, towards the first of them.
            Proto::TCP | Proto::UDP
                if model.host_sockets.contains(&became.answer()) && !self.has_external(model, passage) =>
            {
                Err("its answers are those of a socket of the host".to_owned())
            }
            _ if passage.is_echo() && became.sport != tuple.sport && !in_range(model, became.sport) => {
                Err("an identifier of nobody's".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Whether the sender's port has that external one already.
    fn has_external(&self, model: &Model, passage: &Passage) -> bool {
        let Passage { tuple, became, .. } = passage;
        let inside = Inside { addr: tuple.src, port: tuple.sport, zone: tuple.zone };
        let shared = self.external.get(&(became.src, became.sport, tuple.proto));
        shared
            .and_then(|shared| shared.get(&inside))
            .is_some_and(|shared| model.clock - shared.last <= longest(&model.config, tuple.proto))
    }

    /// Whether an external port leads there, and is open to the sender.
    fn is_mapped(&self, model: &Model, passage: &Passage) -> bool {
        let Passage { tuple, became, .. } = passage;
        let inside = Inside { addr: became.dst, port: became.dport, zone: became.zone };
        let owner = &model.endpoints[&became.dst];
        let shared = self.external.get(&(tuple.dst, tuple.dport, tuple.proto));
        let Some(shared) = shared.and_then(|shared| shared.get(&inside)) else { return false };
        if model.clock - shared.last > longest(&model.config, tuple.proto) {
            return false;
        }
        let neighbour = tuple.zone == became.zone;
        match owner.filtering {
            filtering::ENDPOINT_INDEPENDENT => true,
            filtering::ADDRESS => neighbour || shared.peers.contains(&tuple.src),
            _ => neighbour,
        }
    }
}

/// Whether all that a socket of the endpoint sends has one external port.
fn shares_ports(endpoint: &EndpointValue, proto: Proto) -> bool {
    match proto {
        Proto::UDP => endpoint.mapping & mapping::ENDPOINT_INDEPENDENT_UDP != 0,
        Proto::TCP => endpoint.mapping & mapping::ENDPOINT_INDEPENDENT_TCP != 0,
        _ => false,
    }
}

/// Whether an endpoint keeps its own address towards the world.
pub(crate) fn keeps_address(model: &Model, sender: &EndpointValue, tuple: &Tuple) -> bool {
    let exempt = |rule: &MasqueradeValue| rule.flags & MasqueradeValue::FLAG_EXEMPT != 0;
    sender.has(NetworkValue::FLAG_ROUTED)
        || masquerade(model, &tuple.src).is_some_and(exempt)
        || model.unmasqueraded.keys().any(|prefix| covers(prefix, &tuple.dst))
}

/// Whether a floating address or a published port leads there, and is for the sender.
fn is_asked_for(model: &Model, passage: &Passage) -> bool {
    let Passage { tuple, became, .. } = passage;
    if let Some(floating) = model.floating.get(&tuple.dst) {
        return became.dst == floating.addr && passage.keeps_port();
    }
    if passage.is_echo() || !model.host_addresses.contains_key(&tuple.dst) {
        return false;
    }
    // That of the very address, then the smallest block.
    let (mapping, port) = match published_on(model, tuple, &tuple.dst) {
        Some(found) => found,
        None => match published_on(model, tuple, &tuple.dst.any_of_family()) {
            Some(found) => found,
            None => return false,
        },
    };
    (became.dst, became.dport, became.zone) == (mapping.addr, port, mapping.zone)
        && is_for(model, mapping, tuple)
}

/// What is published at a packet's port, on exactly an address.
fn published_on<'m>(model: &'m Model, tuple: &Tuple, on: &Addr) -> Option<(&'m PortMapValue, Port)> {
    let number = u32::from(tuple.dport.number());
    let blocks = model.port_map.iter().filter(|(key, _)| {
        let first = u32::from(key.port.number());
        key.addr == *on
            && key.proto == tuple.proto
            && (first..first + (1 << (16 - key.prefix_len))).contains(&number)
    });
    let (key, mapping) = blocks.max_by_key(|(key, _)| key.prefix_len)?;
    let port = u32::from(mapping.port.number()) + number - u32::from(key.port.number());
    Some((mapping, Port::new(port as u16)))
}

fn is_for(model: &Model, mapping: &PortMapValue, tuple: &Tuple) -> bool {
    mapping.flags & PortMapValue::FLAG_RESTRICTED == 0
        || model.allow_from.keys().any(|(id, prefix)| *id == mapping.id && covers(prefix, &tuple.src))
}

/// Whether the gateway mode of the destination's network lets the sender in.
pub(crate) fn is_open(model: &Model, passage: &Passage) -> bool {
    let tuple = &passage.tuple;
    let Some(network) = network(model, &tuple.dst) else { return false };
    let published = || published_on(model, tuple, &tuple.dst).is_some_and(|(it, _)| is_for(model, it, tuple));
    passage.keeps_port()
        && (network.flags & NetworkValue::FLAG_UNPROTECTED != 0
            || network.flags & NetworkValue::FLAG_ROUTED != 0 && (passage.is_echo() || published()))
}

/// How the host would send a packet to the world.
pub(crate) fn way_out(model: &Model, dst: &Addr) -> Option<WayOut> {
    let routes = model
        .routes
        .iter()
        .filter(|route| route.prefix.addr.is_v4() == dst.is_v4() && covers(&route.prefix, dst));
    let route = routes.max_by_key(|route| route.prefix.prefix_len)?;
    let own = WayOut::by(model, route.next_hop.ifindex, dst);
    let host = Some(route.source).filter(|addr| !addr.is_unspecified());
    Some(WayOut { host: host.or(own.host), ..own })
}

/// The network that an address belongs to.
pub(crate) fn network<'m>(model: &'m Model, addr: &Addr) -> Option<&'m NetworkValue> {
    longest_prefix(&model.networks, addr)
}

/// Whether an interface is what a network has instead of a bridge.
pub(crate) fn is_unbridged(model: &Model, interface: u32) -> bool {
    let mut networks = model.networks.values().filter(|network| network.bridge == interface);
    networks.any(|network| network.flags & NetworkValue::FLAG_UNBRIDGED != 0)
}

fn masquerade<'m>(model: &'m Model, addr: &Addr) -> Option<&'m MasqueradeValue> {
    longest_prefix(&model.masquerade, addr)
}

fn longest_prefix<'m, V>(table: &'m HashMap<PrefixKey, V>, addr: &Addr) -> Option<&'m V> {
    let covering = table.iter().filter(|(prefix, _)| covers(prefix, addr));
    covering.max_by_key(|(prefix, _)| prefix.prefix_len).map(|(_, value)| value)
}

/// Bit by bit, unlike [`Addr::same_prefix`].
fn covers(prefix: &PrefixKey, addr: &Addr) -> bool {
    let bit = |addr: &Addr, n: u32| addr.bytes[n as usize / 8] >> (7 - n % 8) & 1;
    (0..prefix.prefix_len).all(|n| bit(&prefix.addr, n) == bit(addr, n))
}

fn in_range(model: &Model, port: Port) -> bool {
    let range = model.config.nat_ports;
    (range.first..=range.last).contains(&port.number())
}
