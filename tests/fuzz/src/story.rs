//! The target `pipeline`.

use std::mem;

use bytemuck::Zeroable;
use vnet_common::{Addr, CtEntry, DropReason, Hook, MappingEntry, Port, Proto, Tuple, Zone};
use vnet_datapath::buffer::Buffer;
use vnet_datapath::model::Model;
use vnet_datapath::{Parsed, Place, Scratch, Verdict, answer, mappings, pipeline as datapath};

use crate::input::Input;
use crate::judge::Judge;
use crate::packet::{self, Built, NETWORK, PAYLOAD, Part, read};
use crate::rules::{is_unbridged, network, way_out};
use crate::tables;
use crate::world::{
    ENDPOINT_ZONES, Family, HOLD, PORTS, STRAY, UPLINK, World, bridge_of, ifindex_of, mac_of,
};

/// Events of one input. More of them reach nothing new, and take time.
const EVENTS: usize = 150;

const PROTOCOLS: [Proto; 8] = [
    Proto::UDP,
    Proto::TCP,
    Proto::ICMP,
    Proto::SCTP,
    Proto::UDP,
    Proto::TCP,
    Proto::TCP,
    Proto { number: 47 },
];

/// Packets meet the hooks one after the other, over tables that live on. Of every one:
///
/// - what is dropped has not changed, and what goes on is what came but for addresses, ports, one hop and the sums, which
///   are right if they were;
/// - no endpoint speaks in another's name, and none's address reaches the world that should not;
/// - an endpoint gets from the world only what it asked for, what is published or mapped for it, and what its network's
///   gateway mode lets in;
/// - every flow is two halves that agree, and nobody is charged for another's.
///
/// The input is the options of a world and a list of events, each of which begins with a byte that says what it is.
///
/// # Panics
/// When one of that does not hold.
pub fn pipeline(data: &[u8]) {
    let input = &mut Input::new(data);
    let World { model, evicts } = World::choose(input);
    let mut story = Story { model, evicts, judge: Judge::new(evicts), waiting: Vec::new() };
    for _ in 0..EVENTS {
        if input.is_empty() {
            break;
        }
        story.go_on(input);
    }
}

struct Story {
    model: Model,
    evicts: bool,
    judge: Judge,
    /// Fragments that wait for their first, and how many events they have waited.
    waiting: Vec<(Met, u8)>,
}

/// What an event's first byte says; what follows is drawn as needed.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Somebody sends a packet to somebody.
    Sent,
    /// A packet of a flow that is tracked.
    Continued,
    /// An ICMP error about a packet of a flow that is tracked.
    Complained,
    /// Somebody sends to the external port of a mapping.
    Knocked,
    /// Any bytes at any hook.
    Raw,
    /// Seconds go by.
    Passed,
    /// An entry of the unconfirmed flows, or of the mappings, makes room.
    Evicted,
}

/// Events for which a fragment waits at most.
const LONGEST_WAIT: u8 = 3;

const KINDS: [Event; 8] = [
    Event::Sent,
    Event::Sent,
    Event::Continued,
    Event::Complained,
    Event::Knocked,
    Event::Raw,
    Event::Passed,
    Event::Evicted,
];

/// A frame and where it is met.
#[derive(Clone, Debug)]
pub(crate) struct Met {
    pub(crate) hook: Hook,
    pub(crate) place: Place,
    pub(crate) frame: Vec<u8>,
}

impl Story {
    fn go_on(&mut self, input: &mut Input<'_>) {
        let met = match input.pick(&KINDS) {
            Event::Sent => Some(sent(input)),
            Event::Continued => self.continued(input),
            Event::Complained => self.complained(input),
            Event::Knocked => self.knocked(input),
            Event::Raw => Some(raw(input)),
            Event::Passed => {
                self.model.clock += u32::from(input.word());
                None
            }
            Event::Evicted => {
                if self.evicts {
                    self.evict(input);
                }
                None
            }
        };
        let Some(mut met) = met else { return };
        if met.hook == Hook::ToBridge {
            met.hook = self.entry_of(met.place.ifindex);
        }
        self.goes(&met);
        for (met, waited) in mem::take(&mut self.waiting) {
            self.waits(met, waited);
        }
    }

    /// A packet, and what the host's stack makes of it.
    fn goes(&mut self, met: &Met) {
        let before = self.live_mappings();
        let passed_on = self.meets(met);
        if let Some(met) = passed_on.and_then(|frame| self.forwarded_by_the_stack(met, frame)) {
            self.meets(&met);
        }
        if !self.evicts {
            tables::check(&self.model);
            self.check_that_others_keep_their_mappings(met, &before);
        }
    }

    /// A fragment that was told to wait comes by, and goes back to where it was met or waits on.
    fn waits(&mut self, met: Met, waited: u8) {
        let over = u32::from(waited == LONGEST_WAIT);
        let place = Place { ifindex: HOLD, arrived: met.place.ifindex, waited: over };
        let (verdict, _) = self.judged(&Met { hook: Hook::FromHold, place, frame: met.frame.clone() });
        if verdict == Ok(Verdict::Hold) {
            assert_eq!(over, 0, "{met:?} waits for ever");
            self.waiting.push((met, waited + 1));
        } else {
            self.goes(&Met { place: Place { waited: over, ..met.place }, ..met });
        }
    }

    fn continued(&self, input: &mut Input<'_>) -> Option<Met> {
        let (which, options) = (input.byte(), input.byte());
        let (tuple, _) = self.tracked(which)?;
        let endpoint = self.endpoint_of(&tuple.src).filter(|_| tuple.zone != Zone::WORLD);
        Some(met_at(endpoint, dressed(tuple, endpoint, options, input).bytes()))
    }

    /// An error as a packet of a flow might cause it where it has got to: from its receiver, or a router on the way.
    fn complained(&self, input: &mut Input<'_>) -> Option<Met> {
        let (which, options, cut) = (input.byte(), input.byte(), input.byte());
        let (_, entry) = self.tracked(which)?;
        let about = entry.translated;
        let family = Family::of(!about.src.is_v4());
        let endpoint = self.endpoint_of(&about.dst).filter(|_| about.zone != Zone::WORLD);
        let src = match endpoint {
            Some(endpoint) if options & 4 == 0 => family.endpoints[endpoint],
            _ if options & 8 == 0 => about.dst,
            _ => input.pick(&family.everybody()),
        };
        let mut quote = dressed(about, None, options & !0x0c, input).bytes().split_off(NETWORK);
        quote.truncate(20 + usize::from(cut));
        let proto = if about.src.is_v4() { Proto::ICMP } else { Proto::ICMPV6 };
        let src_mac = mac_of(endpoint.unwrap_or(9));
        let kind = if about.src.is_v4() { [3, 11, 12, 3] } else { [1, 2, 3, 4] }[usize::from(options & 3)];
        let frame = packet::error((src, about.src), proto, (kind, src_mac), &quote);
        Some(met_at(endpoint, frame))
    }

    /// One of the entries of tracked flows.
    fn tracked(&self, which: u8) -> Option<(Tuple, CtEntry)> {
        let (confirmed, unconfirmed) = (self.model.conntrack.borrow(), self.model.unconfirmed.borrow());
        let mut tracked: Vec<(&Tuple, &CtEntry)> = confirmed.iter().chain(unconfirmed.iter()).collect();
        tracked.sort_unstable_by_key(|(tuple, _)| **tuple);
        let (tuple, entry) = tracked.get(usize::from(which) % tracked.len().max(1))?;
        Some((**tuple, **entry))
    }

    fn knocked(&self, input: &mut Input<'_>) -> Option<Met> {
        let (which, who, options) = (input.byte(), input.byte(), input.byte());
        let mappings = self.model.mappings.borrow();
        let mut external: Vec<Tuple> =
            mappings.keys().filter(|key| key.zone == Zone::WORLD).copied().collect();
        external.sort_unstable();
        let key = *external.get(usize::from(which) % external.len().max(1))?;
        let family = Family::of(!key.dst.is_v4());
        let endpoint = (who & 3 != 3).then_some(usize::from(who & 3));
        let src = match endpoint {
            Some(endpoint) => family.endpoints[endpoint],
            None => input.pick(&[family.www, family.peer, family.nobody]),
        };
        let sport = Port::new(PORTS[usize::from(who >> 4)]);
        let zone = endpoint.map_or(Zone::WORLD, |endpoint| ENDPOINT_ZONES[endpoint]);
        let tuple = Tuple { src, sport, zone, ..key };
        Some(met_at(endpoint, dressed(tuple, endpoint, options, input).bytes()))
    }

    /// A packet that the hook of an endpoint or of the uplink has left to the host's stack: what the stack sends on.
    fn forwarded_by_the_stack(&self, met: &Met, mut frame: Vec<u8>) -> Option<Met> {
        let (Ok(Parsed::Ip(headers)), Tuple { src, dst, .. }) = read(&frame) else { return None };
        let leaves = way_out(&self.model, &dst).is_some_and(|way| way.ifindex == UPLINK);
        let for_all = dst.is_multicast_or_broadcast() || dst.is_loopback() || dst.is_unspecified();
        let is_local = self.model.host_addresses.contains_key(&dst);
        if is_local || for_all || src.is_v6_link_local() || headers.hop_limit < 2 {
            return None;
        }
        let arrived = match met.hook {
            Hook::FromEndpoint => bridge_of(ENDPOINT_ZONES[self.endpoint_of(&src)?]),
            Hook::FromUplink => UPLINK,
            _ => return None,
        };
        let (hook, ifindex) = match network(&self.model, &dst) {
            Some(network) => (self.entry_of(network.bridge), network.bridge),
            None if leaves && met.hook == Hook::FromEndpoint => (Hook::ToUplink, UPLINK),
            None => return None,
        };
        let hop_limit = NETWORK + if headers.is_v4() { 8 } else { 7 };
        frame[hop_limit] -= 1;
        packet::seal_network(&mut frame);
        Some(Met { hook, place: Place { ifindex, arrived, waited: 0 }, frame })
    }

    /// The hook by which a network is entered: that of its bridge, or of what it has instead.
    fn entry_of(&self, interface: u32) -> Hook {
        if is_unbridged(&self.model, interface) { Hook::ToNetwork } else { Hook::ToBridge }
    }

    fn evict(&self, input: &mut Input<'_>) {
        let which = usize::from(input.byte());
        let (mut flows, mut mappings) =
            (self.model.unconfirmed.borrow_mut(), self.model.mappings.borrow_mut());
        let mut keys: Vec<Tuple> = flows.keys().chain(mappings.keys()).copied().collect();
        keys.sort_unstable();
        if let Some(key) = keys.get(which % keys.len().max(1)) {
            flows.remove(key);
            mappings.remove(key);
        }
    }

    /// Which endpoint an address belongs to.
    fn endpoint_of(&self, addr: &Addr) -> Option<usize> {
        let ifindex = self.model.endpoints.get(addr)?.ifindex;
        (0..ENDPOINT_ZONES.len()).find(|endpoint| ifindex_of(*endpoint) == ifindex)
    }

    /// Runs a packet and has what becomes of it judged. Returns it if it goes on through the host's stack.
    fn meets(&mut self, met: &Met) -> Option<Vec<u8>> {
        let (verdict, after) = self.judged(met);
        if verdict == Ok(Verdict::Hold) {
            self.waiting.push((met.clone(), 0));
        }
        matches!(verdict, Ok(Verdict::Pass | Verdict::Enter(_))).then_some(after)
    }

    /// What becomes of a packet, and of its bytes; it has been judged.
    fn judged(&mut self, met: &Met) -> (Result<Verdict, DropReason>, Vec<u8>) {
        let mut packet = Buffer::plain(met.frame.clone());
        let scratch = &mut Scratch::zeroed();
        let verdict = datapath::run(&mut packet, &self.model, scratch, (met.hook, met.place));
        let after = packet.bytes.clone();
        let answered = verdict.is_err() && scratch.answering.is_wanted();
        let answer = (answered && answer::build(&mut packet, scratch).is_some()).then_some(packet.bytes);
        let ruling = self.judge.hold(&self.model, met, &after, &verdict);
        let ruling = ruling.and_then(|()| self.judge.hold_answer(&self.model, met, answer.as_deref()));
        if let Err(broken) = ruling {
            let (_, tuple) = read(&met.frame);
            let known = self.judge.about(&tuple);
            let clock = self.model.clock;
            let Met { hook, place, frame } = met;
            let [frame, after] = [frame, &after].map(|frame| packet::shown(frame));
            let answer = answer.map(|answer| packet::shown(&answer));
            panic!(
                "{broken}\n{hook:?}, {place:?}, at second {clock}: {tuple:?}\n{frame}\n{verdict:?}, answered with \
                 {answer:?}\n{after}\n{known}"
            );
        }
        (verdict, after)
    }

    /// The endpoints' ports whose mappings are not over.
    fn live_mappings(&self) -> Vec<(Tuple, MappingEntry)> {
        let mappings = self.model.mappings.borrow();
        let is_live = |mapping: &MappingEntry| {
            let lifetime = mappings::timeout(&self.model.config, mapping.translated.proto, mapping.flags);
            self.model.clock - mapping.last_seen <= lifetime
        };
        let live = mappings.iter().filter(|(key, mapping)| {
            // Whoever wants the port asks the outer half.
            let outside = mappings.get(&mapping.translated.answer());
            key.zone != Zone::WORLD && is_live(mapping) && outside.is_none_or(is_live)
        });
        live.map(|(key, mapping)| (*key, *mapping)).collect()
    }

    fn check_that_others_keep_their_mappings(&self, met: &Met, before: &[(Tuple, MappingEntry)]) {
        let (_, tuple) = read(&met.frame);
        let mappings = self.model.mappings.borrow();
        for (key, mapping) in
            before.iter().filter(|(key, _)| (key.src, key.sport) != (tuple.src, tuple.sport))
        {
            let now = mappings.get(key).map(|mapping| mapping.translated);
            assert_eq!(now, Some(mapping.translated), "{tuple:?} has ended the mapping of {key:?}");
        }
    }
}

/// Somebody, by two bits, sends something to somebody.
fn sent(input: &mut Input<'_>) -> Met {
    let (who, options) = (input.byte(), input.byte());
    let family = Family::of(who & 0x80 != 0);
    let proto = match input.pick(&PROTOCOLS) {
        Proto::ICMP if who & 0x80 != 0 => Proto::ICMPV6,
        proto => proto,
    };
    let everybody = family.everybody();
    let endpoint = (who & 3 != 3).then_some(usize::from(who & 3));
    let own = endpoint.map(|endpoint| family.endpoints[endpoint]);
    // One in eight lies about who it is.
    let lies = who >> 2 & 7 == 7;
    let src = match own {
        Some(own) if !lies => own,
        None if !lies => input.pick(&[family.www, family.peer]),
        _ => input.pick(&everybody),
    };
    let dst = input.pick(&everybody);
    let ports = input.byte();
    let (sport, dport) = (PORTS[usize::from(ports >> 4)], PORTS[usize::from(ports & 15)]);
    let (sport, dport) = (Port::new(sport), Port::new(if is_echo(proto) { sport } else { dport }));
    let zone = endpoint.map_or(Zone::WORLD, |endpoint| ENDPOINT_ZONES[endpoint]);
    let tuple = Tuple { src, dst, sport, dport, zone, proto, reserved: 0 };
    let met = met_at(endpoint, dressed(tuple, endpoint, options, input).bytes());
    if who & 0x43 == 0x43 {
        // Routed into network 1 by a host that forwards from elsewhere.
        let place = Place { ifindex: bridge_of(ENDPOINT_ZONES[0]), arrived: STRAY, waited: 0 };
        return Met { hook: Hook::ToBridge, place, ..met };
    }
    met
}

const fn is_echo(proto: Proto) -> bool {
    matches!(proto.number, 1 | 58)
}

/// The frame where it is met: at an endpoint's veth pair, or the uplink.
const fn met_at(endpoint: Option<usize>, frame: Vec<u8>) -> Met {
    let (hook, ifindex) = match endpoint {
        Some(endpoint) => (Hook::FromEndpoint, ifindex_of(endpoint)),
        None => (Hook::FromUplink, UPLINK),
    };
    Met { hook, place: Place { ifindex, arrived: 0, waited: 0 }, frame }
}

/// A packet with a tuple: hop limit, what part of a datagram it is, UDP checksum and payload by `options`, TCP flags by
/// another byte.
fn dressed<'a>(tuple: Tuple, endpoint: Option<usize>, options: u8, input: &mut Input<'_>) -> Built<'a> {
    let part = [Part::Whole, Part::First, Part::Later, Part::WithOptions][usize::from(options >> 2 & 3)];
    Built {
        tuple,
        src_mac: mac_of(endpoint.unwrap_or(9)),
        flags: if tuple.proto == Proto::TCP { input.byte() } else { options >> 7 },
        hop_limit: [64, 1, 2, 255][usize::from(options & 3)],
        part,
        checksum: options & 0x10 == 0,
        payload: &PAYLOAD[..[0, 8, 60, 248][usize::from(options >> 5 & 3)]],
    }
}

/// A frame as it is: where, whether its sums are made right, its length, its bytes.
fn raw(input: &mut Input<'_>) -> Met {
    let (at, length) = (input.byte(), input.byte());
    let mut frame = input.bytes(usize::from(length)).to_vec();
    if at & 0x80 != 0 {
        packet::seal(&mut frame);
    }
    let zone = |number: u8| Zone { id: u16::from(number) + 1 };
    match at & 7 {
        endpoint @ 0..=2 => met_at(Some(usize::from(endpoint)), frame),
        network @ 3..=4 => {
            let place = Place { ifindex: UPLINK, arrived: bridge_of(zone(network - 3)), waited: 0 };
            Met { hook: Hook::ToUplink, place, frame }
        }
        5 => {
            let place = Place { ifindex: bridge_of(zone(0)), arrived: STRAY, waited: 0 };
            Met { hook: Hook::ToBridge, place, frame }
        }
        _ => met_at(None, frame),
    }
}
