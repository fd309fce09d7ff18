//! The target `pipeline`.

use bytemuck::Zeroable;
use vnet_common::{
    Addr, DropReason, EndpointValue, Hook, MappingEntry, NetworkValue, Port, Proto, Tuple, Zone,
};
use vnet_datapath::{Delivery, Headers, Parsed, Place, Scratch, Slice, Verdict, parse, pipeline as datapath};

use crate::input::Input;
use crate::packet::{self, Built, NETWORK, sums, untranslated};
use crate::rules::{Passage, Rules, WayOut, keeps_address, network, way_out};
use crate::tables;
use crate::world::{ENDPOINT_ZONES, Family, PORTS, UPLINK, World, bridge_of, ifindex_of, mac_of};

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

const PAYLOAD: [u8; 255] = [0x5a; 255];

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
    let mut story = Story { model, evicts, rules: Rules::new(evicts) };
    for _ in 0..EVENTS {
        if input.is_empty() {
            break;
        }
        story.go_on(input);
    }
}

struct Story {
    model: vnet_datapath::model::Model,
    evicts: bool,
    rules: Rules,
}

/// What an event's first byte says; what follows is drawn as needed.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Somebody sends a packet to somebody.
    Sent,
    /// A packet of a flow that is tracked.
    Continued,
    /// Somebody sends to the external port of a mapping.
    Knocked,
    /// Any bytes at any hook.
    Raw,
    /// Seconds go by.
    Passed,
    /// An entry of the unconfirmed flows, or of the mappings, makes room.
    Evicted,
}

const KINDS: [Event; 8] = [
    Event::Sent,
    Event::Sent,
    Event::Continued,
    Event::Continued,
    Event::Knocked,
    Event::Raw,
    Event::Passed,
    Event::Evicted,
];

/// A frame and where it is met.
#[derive(Clone, Debug)]
struct Met {
    hook: Hook,
    place: Place,
    frame: Vec<u8>,
}

impl Story {
    fn go_on(&mut self, input: &mut Input<'_>) {
        let met = match input.pick(&KINDS) {
            Event::Sent => Some(self.sent(input)),
            Event::Continued => self.continued(input),
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
        let Some(met) = met else { return };
        let before = self.live_mappings();
        let passed_on = self.meets(&met);
        if let Some(met) = passed_on.and_then(|frame| self.forwarded_by_the_stack(&met, frame)) {
            self.meets(&met);
        }
        if !self.evicts {
            tables::check(&self.model);
            self.check_that_others_keep_their_mappings(&met, before);
        }
    }

    fn sent(&self, input: &mut Input<'_>) -> Met {
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
        let frame = dressed(tuple, endpoint, options, input).bytes();
        met_at(endpoint, frame)
    }

    fn continued(&self, input: &mut Input<'_>) -> Option<Met> {
        let (which, options) = (input.byte(), input.byte());
        let (confirmed, unconfirmed) = (self.model.conntrack.borrow(), self.model.unconfirmed.borrow());
        let mut tracked: Vec<Tuple> = confirmed.keys().chain(unconfirmed.keys()).copied().collect();
        tracked.sort_unstable();
        let tuple = *tracked.get(usize::from(which) % tracked.len().max(1))?;
        let endpoint = self.endpoint_of(&tuple.src).filter(|_| tuple.zone != Zone::WORLD);
        let frame = dressed(tuple, endpoint, options, input).bytes();
        Some(met_at(endpoint, frame))
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
        let frame = dressed(tuple, endpoint, options, input).bytes();
        Some(met_at(endpoint, frame))
    }

    /// A packet that the hook of an endpoint has left to the host's stack: what the stack sends on.
    fn forwarded_by_the_stack(&self, met: &Met, mut frame: Vec<u8>) -> Option<Met> {
        let mut tuple = Tuple::zeroed();
        let Ok(Parsed::Ip(headers)) = parse(&Slice::new(&mut frame), &mut tuple) else { return None };
        let Tuple { src, dst, .. } = tuple;
        let leaves = way_out(&self.model, &dst).is_some_and(|way| way.ifindex == UPLINK);
        let stays = self.is_the_hosts(&dst) || network(&self.model, &dst).is_some() || !leaves;
        let for_all = dst.is_multicast_or_broadcast() || dst.is_loopback() || dst.is_unspecified();
        if met.hook != Hook::FromEndpoint
            || stays
            || for_all
            || src.is_v6_link_local()
            || headers.hop_limit < 2
        {
            return None;
        }
        let arrived = bridge_of(ENDPOINT_ZONES[self.endpoint_of(&src)?]);
        let hop_limit = NETWORK + if headers.is_v4() { 8 } else { 7 };
        frame[hop_limit] -= 1;
        packet::seal_network(&mut frame);
        Some(Met { hook: Hook::ToUplink, place: Place { ifindex: UPLINK, arrived }, frame })
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

    /// Runs a packet and holds what becomes of it to the rules. Returns it if it goes on through the host's stack.
    fn meets(&mut self, met: &Met) -> Option<Vec<u8>> {
        let mut after = met.frame.clone();
        let scratch = &mut Scratch::zeroed();
        let verdict = datapath::run(&mut Slice::new(&mut after), &self.model, scratch, (met.hook, met.place));
        if let Err(broken) = self.hold(met, &after, &verdict) {
            let mut tuple = Tuple::zeroed();
            let _ = parse(&Slice::new(&mut met.frame.clone()), &mut tuple);
            let known = self.rules.about(&tuple);
            let clock = self.model.clock;
            panic!("{broken}\n{tuple:?} at second {clock}\n{met:x?}\n{verdict:?}\n{after:x?}\n{known}");
        }
        (verdict == Ok(Verdict::Pass)).then_some(after)
    }

    fn hold(&mut self, met: &Met, after: &[u8], verdict: &Result<Verdict, DropReason>) -> Result<(), String> {
        let Ok(verdict) = verdict else {
            return require(met.frame == after, "a packet that is dropped has changed");
        };
        let mut before = met.frame.clone();
        let mut tuple = Tuple::zeroed();
        let parsed = parse(&Slice::new(&mut before), &mut tuple);
        let Ok(Parsed::Ip(headers)) = parsed else {
            require(met.frame == after, "what is no packet has changed")?;
            return self.hold_what_is_no_packet(met, &tuple, parsed.is_ok());
        };
        if met.hook == Hook::FromEndpoint {
            check_sender(met, &tuple, self.model.endpoints.get(&tuple.src))?;
        }
        let became = check_bytes(&before, after, &headers, verdict)?;
        match verdict {
            Verdict::Deliver(delivery) => self.hold_delivery(met, &headers, (tuple, became), delivery),
            Verdict::Forward(next_hop) => {
                require(met.hook == Hook::FromEndpoint, "forwarded back to where it came from")?;
                let way = way_out(&self.model, &tuple.dst).filter(|way| way.ifindex == next_hop.ifindex);
                let way = way.ok_or("forwarded where no route leads")?;
                require(!self.is_the_hosts(&became.dst), "what is the host's is forwarded")?;
                self.hold_departure(&headers, (tuple, became), &way)
            }
            Verdict::Pass => match met.hook {
                Hook::FromEndpoint => require(met.frame == after, "translated, and left to the stack"),
                Hook::ToUplink => {
                    let way = WayOut::by(&self.model, met.place.ifindex, &tuple.dst);
                    self.hold_departure(&headers, (tuple, became), &way)
                }
                Hook::FromUplink => self.hold_arrival(&headers, (tuple, became)),
            },
        }
    }

    /// A frame that goes on although it cannot be read, or is not IP.
    fn hold_what_is_no_packet(&self, met: &Met, tuple: &Tuple, understood: bool) -> Result<(), String> {
        match met.hook {
            Hook::FromEndpoint => require(understood, "an endpoint sends what cannot be read"),
            Hook::FromUplink => {
                let inside = network(&self.model, &tuple.dst).is_some() && !self.is_the_hosts(&tuple.dst);
                require(understood || !inside, "what cannot be read passes to an endpoint")
            }
            Hook::ToUplink => {
                let ours = self.model.endpoints.contains_key(&tuple.src);
                require(understood || !ours, "what cannot be read leaves with an endpoint's address")
            }
        }
    }

    fn is_the_hosts(&self, addr: &Addr) -> bool {
        self.model.host_addresses.contains_key(addr)
    }

    /// A packet that leaves by an uplink.
    fn hold_departure(
        &mut self,
        headers: &Headers,
        (tuple, became): (Tuple, Tuple),
        way: &WayOut,
    ) -> Result<(), String> {
        let Some(sender) = self.model.endpoints.get(&tuple.src) else {
            return require(network(&self.model, &became.src).is_none(), "nobody's address leaves");
        };
        if !headers.is_translatable() {
            let ours = self.model.endpoints.contains_key(&became.src);
            let known = self.rules.have_met(&tuple.dst, &tuple.src);
            return require(
                !ours || known || keeps_address(&self.model, sender, &tuple),
                "an endpoint's address leaves",
            );
        }
        let tuple = Tuple { zone: sender.zone, ..tuple };
        let became = Tuple { zone: Zone::WORLD, ..became };
        self.rules.leaves(&self.model, &Passage { tuple, became, l4: headers.l4() }, way)
    }

    /// A packet from the world that the host's stack gets, and sends to an endpoint if it is for one.
    fn hold_arrival(&mut self, headers: &Headers, (tuple, became): (Tuple, Tuple)) -> Result<(), String> {
        let Some(network) = network(&self.model, &became.dst).copied() else {
            return require(tuple == became, "translated, but for nobody");
        };
        if self.is_the_hosts(&became.dst) && tuple == became {
            return Ok(());
        }
        require(headers.is_translatable(), "what cannot be translated reaches an endpoint")?;
        require(self.model.endpoints.contains_key(&became.dst), "let in, but for nobody")?;
        let became = Tuple { zone: network.zone, ..became };
        self.rules.arrives(&self.model, &Passage { tuple, became, l4: headers.l4() })
    }

    /// A packet that appears in an endpoint's namespace.
    fn hold_delivery(
        &mut self,
        met: &Met,
        headers: &Headers,
        (tuple, became): (Tuple, Tuple),
        delivery: &Delivery,
    ) -> Result<(), String> {
        let receiver = self.model.endpoints.values().find(|endpoint| endpoint.ifindex == delivery.ifindex);
        let receiver = *receiver.ok_or("delivered to nobody")?;
        require(delivery.dst == receiver.mac, "delivered to another's hardware address")?;
        require(headers.wire_length <= receiver.mtu, "delivered, but too big")?;
        if !delivery.routed {
            require(met.hook == Hook::FromEndpoint, "switched from outside")?;
            let sender = self.model.endpoints[&tuple.src];
            require(sender.zone == receiver.zone, "switched to another network")?;
            let isolated = sender.has(NetworkValue::FLAG_ISOLATED) && sender.ifindex != receiver.ifindex;
            return require(!isolated, "switched within an isolated network");
        }
        require(delivery.src == receiver.gateway_mac, "not from its gateway")?;
        let owner = self.model.endpoints.get(&became.dst).map(|endpoint| endpoint.ifindex);
        require(owner == Some(receiver.ifindex), "delivered to another than it is for")?;
        let became = Tuple { zone: receiver.zone, ..became };
        if met.hook == Hook::FromUplink {
            if headers.is_translatable() {
                return self.rules.arrives(&self.model, &Passage { tuple, became, l4: headers.l4() });
            }
            return require(
                self.rules.have_met(&tuple.src, &became.dst),
                "what nobody asked for reaches an endpoint",
            );
        }
        let sender = self.model.endpoints[&tuple.src];
        let tuple = Tuple { zone: sender.zone, ..tuple };
        self.rules.returns(&self.model, &Passage { tuple, became, l4: headers.l4() })
    }

    /// The endpoints' ports whose mappings are not over.
    fn live_mappings(&self) -> Vec<(Tuple, MappingEntry)> {
        let mappings = self.model.mappings.borrow();
        let live = mappings.iter().filter(|(key, mapping)| {
            let idle = self.model.clock - mapping.last_seen;
            key.zone != Zone::WORLD && idle <= tables::longest(&self.model.config, key.proto)
        });
        live.map(|(key, mapping)| (*key, *mapping)).collect()
    }

    fn check_that_others_keep_their_mappings(&self, met: &Met, before: Vec<(Tuple, MappingEntry)>) {
        let mut tuple = Tuple::zeroed();
        let _ = parse(&Slice::new(&mut met.frame.clone()), &mut tuple);
        let mappings = self.model.mappings.borrow();
        for (key, mapping) in
            before.iter().filter(|(key, _)| (key.src, key.sport) != (tuple.src, tuple.sport))
        {
            let now = mappings.get(key).map(|mapping| mapping.translated);
            assert_eq!(now, Some(mapping.translated), "{met:?} has ended the mapping of {key:?}");
        }
    }
}

fn require(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise.to_owned()) }
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
    Met { hook, place: Place { ifindex, arrived: 0 }, frame }
}

/// A packet with a tuple: hop limit, IPv4 options, UDP checksum and payload by `options`, TCP flags by another byte.
fn dressed<'a>(tuple: Tuple, endpoint: Option<usize>, options: u8, input: &mut Input<'_>) -> Built<'a> {
    Built {
        tuple,
        src_mac: mac_of(endpoint.unwrap_or(9)),
        flags: if tuple.proto == Proto::TCP { input.byte() } else { options >> 7 },
        hop_limit: [64, 1, 2, 255][usize::from(options & 3)],
        options: if options & 0x0c == 0x0c { 1 } else { 0 },
        checksum: options & 0x10 == 0,
        payload: &PAYLOAD[..[0, 7, 60, 255][usize::from(options >> 5 & 3)]],
    }
}

/// A frame as it is: where, whether its sums are made right, its length, its bytes.
fn raw(input: &mut Input<'_>) -> Met {
    let (at, length) = (input.byte(), input.byte());
    let mut frame = input.bytes(usize::from(length)).to_vec();
    if at & 0x80 != 0 {
        packet::seal(&mut frame);
    }
    match at & 7 {
        endpoint @ 0..=2 => met_at(Some(usize::from(endpoint)), frame),
        network @ 3..=4 => {
            let place = Place { ifindex: UPLINK, arrived: bridge_of(Zone { id: u16::from(network) - 2 }) };
            Met { hook: Hook::ToUplink, place, frame }
        }
        _ => met_at(None, frame),
    }
}

/// An endpoint may send under its own address from its own hardware address, or without any to its neighbours.
fn check_sender(met: &Met, tuple: &Tuple, sender: Option<&EndpointValue>) -> Result<(), String> {
    match sender {
        Some(sender) => {
            require(sender.ifindex == met.place.ifindex, "in another's name")?;
            require(met.frame[6..12] == sender.mac.bytes, "from another's hardware address")
        }
        None => require(
            tuple.src == Addr::ANY_V6 && tuple.dst.is_multicast_or_broadcast(),
            "in the name of nobody",
        ),
    }
}

/// What a packet has become: nothing has changed that should not.
fn check_bytes(before: &[u8], after: &[u8], headers: &Headers, verdict: &Verdict) -> Result<Tuple, String> {
    let mut tuple = Tuple::zeroed();
    let mut copy = after.to_vec();
    let Ok(Parsed::Ip(changed)) = parse(&Slice::new(&mut copy), &mut tuple) else {
        return Err("it cannot be read any more".to_owned());
    };
    let routed = !matches!(verdict, Verdict::Pass | Verdict::Deliver(Delivery { routed: false, .. }));
    require(changed.hop_limit == headers.hop_limit - u8::from(routed), "hops are counted wrong")?;
    if before == after {
        return Ok(tuple);
    }
    if headers.is_translatable() {
        let kept = untranslated(before, headers) == untranslated(after, headers);
        require(kept, "more has changed than a translation may change")?;
    }
    let (Some(before), Some(after)) = (sums(before), sums(after)) else { return Ok(tuple) };
    require(after.network || !before.network, "the sum of the network header is wrong now")?;
    require(after.transport || !before.transport, "the sum of the transport header is wrong now")?;
    require(after.absent == before.absent, "a sum has come or gone")?;
    Ok(tuple)
}
