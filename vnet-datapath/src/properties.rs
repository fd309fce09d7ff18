//! What holds for every packet and every sequence of packets.

mod interleavings;

use std::collections::HashMap;

use bytemuck::Zeroable;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use vnet_common::{
    Addr, CtEntry, EndpointValue, Hook, HostAddressValue, Mac, MasqueradeValue, NetworkValue, Origin, Port,
    PortMapKey, PortMapValue, PortRange, PrefixKey, Proto, Tuple, UplinkValue, Zone,
};

use crate::model::{Model, ModelRoute};
use crate::nat::{Hop, Rewrite};
use crate::pipeline;
use crate::related;
use crate::step::Step;
use crate::tables::NextHop;
use crate::{Parsed, Place, Scratch, Slice, Verdict, parse, published};

const NETWORK: usize = 14;
pub(super) const UPLINK: u32 = 1;
const BRIDGE: u32 = 2;
const ENDPOINT: u32 = 3;
const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
pub(super) const INSIDE: Zone = Zone { id: 1 };

/// A packet to be built.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) tuple: Tuple,
    pub(super) flags: u8,
    pub(super) hop_limit: u8,
    /// IPv4 options in words.
    pub(super) options: usize,
    pub(super) checksum: bool,
    pub(super) payload: Vec<u8>,
}

impl Packet {
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.with_transport(&self.transport())
    }

    fn with_transport(&self, transport: &[u8]) -> Vec<u8> {
        let Self { tuple, .. } = self;
        let mut bytes = vec![2, 0, 0, 0, 0, 9];
        bytes.extend(MAC.bytes);
        if tuple.src.is_v4() {
            let length = (20 + 4 * self.options + transport.len()) as u16;
            let mut header = vec![0x45 + self.options as u8, 0];
            header.extend(length.to_be_bytes());
            header.extend([0, 1, 0x40, 0, self.hop_limit, tuple.proto.number, 0, 0]);
            header.extend(tuple.src.v4_bytes());
            header.extend(tuple.dst.v4_bytes());
            header.resize(20 + 4 * self.options, 1);
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            bytes.extend([0x08, 0x00]);
            bytes.extend(header);
        } else {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend((transport.len() as u16).to_be_bytes());
            bytes.extend([tuple.proto.number, self.hop_limit]);
            bytes.extend(tuple.src.bytes);
            bytes.extend(tuple.dst.bytes);
        }
        bytes.extend(transport);
        bytes
    }

    fn transport(&self) -> Vec<u8> {
        let Self { tuple, payload, .. } = self;
        let ports = [tuple.sport.bytes, tuple.dport.bytes].concat();
        let length = (8 + payload.len() as u16).to_be_bytes();
        let (header, at) = match tuple.proto {
            Proto::TCP => ([&ports[..], &[0; 8], &[0x50, self.flags, 1, 0, 0, 0, 0, 0]].concat(), 16),
            Proto::UDP => ([&ports[..], &length, &[0; 2]].concat(), 6),
            Proto::ICMP => ([&[8, 0, 0, 0], &ports[..2], &[0, 1]].concat(), 2),
            _ => ([&[128, 0, 0, 0], &ports[..2], &[0, 1]].concat(), 2),
        };
        let mut bytes = [&header[..], payload].concat();
        if self.checksum || tuple.proto != Proto::UDP {
            let sum = match (checksum(&summed(tuple, &bytes)), tuple.proto) {
                (0, Proto::UDP) => 0xffff,
                (sum, _) => sum,
            };
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }
}

/// What a transport checksum covers: for all but ICMP a pseudo-header too.
fn summed(tuple: &Tuple, transport: &[u8]) -> Vec<u8> {
    if tuple.proto == Proto::ICMP {
        return transport.to_vec();
    }
    let (src, dst) = if tuple.src.is_v4() {
        (tuple.src.v4_bytes().to_vec(), tuple.dst.v4_bytes().to_vec())
    } else {
        (tuple.src.bytes.to_vec(), tuple.dst.bytes.to_vec())
    };
    let length = (transport.len() as u32).to_be_bytes();
    [&src[..], &dst, &length, &[0, 0, 0, tuple.proto.number], transport].concat()
}

/// RFC 1071, the slow way; of bytes with their checksum in place it is 0.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Says whether a packet's checksums are those of its tuple.
fn adds_up(bytes: &[u8], packet: &Packet, tuple: &Tuple) -> bool {
    let header = if tuple.src.is_v4() { 20 + 4 * packet.options } else { 40 };
    let (network, transport) = bytes[NETWORK..].split_at(header);
    let absent = tuple.proto == Proto::UDP && transport[6..8] == [0, 0];
    absent != (packet.checksum || tuple.proto != Proto::UDP)
        && (!tuple.src.is_v4() || checksum(network) == 0)
        && (absent || checksum(&summed(tuple, transport)) == 0)
}

fn addr(v4: bool) -> impl Strategy<Value = Addr> {
    any::<[u8; 16]>().prop_map(move |bytes| {
        if v4 { Addr::v4([bytes[0], bytes[1], bytes[2], bytes[3]]) } else { Addr::v6(bytes) }
    })
}

fn proto(v4: bool) -> impl Strategy<Value = Proto> {
    select(vec![Proto::TCP, Proto::UDP, if v4 { Proto::ICMP } else { Proto::ICMPV6 }])
}

fn tuple_of(v4: bool, proto: Proto) -> impl Strategy<Value = Tuple> {
    let echo = matches!(proto, Proto::ICMP | Proto::ICMPV6);
    (addr(v4), addr(v4), any::<u16>(), any::<u16>()).prop_map(move |(src, dst, sport, dport)| {
        let (sport, dport) = (Port::new(sport), Port::new(if echo { sport } else { dport }));
        Tuple { src, dst, sport, dport, zone: Zone::WORLD, proto, reserved: 0 }
    })
}

/// A packet, and a tuple that it could get.
fn packet_and_other() -> impl Strategy<Value = (Packet, Tuple)> {
    let kinds = any::<bool>().prop_flat_map(|v4| (Just(v4), proto(v4)));
    let tuples = kinds.prop_flat_map(|(v4, proto)| (tuple_of(v4, proto), tuple_of(v4, proto)));
    (tuples, any::<u8>(), 1_u8.., 0_usize..=10, any::<bool>(), vec(any::<u8>(), 0..64)).prop_map(
        |((tuple, other), flags, hop_limit, options, checksum, payload)| {
            (Packet { tuple, flags, hop_limit, options, checksum, payload }, other)
        },
    )
}

/// Parses a packet and gives it another tuple.
fn rewrite(bytes: &mut [u8], to: &Tuple, hop: Hop) -> Tuple {
    let mut from = Tuple::zeroed();
    let mut slice = Slice::new(bytes);
    let Ok(Parsed::Ip(headers)) = parse(&slice, &mut bytemuck::Zeroable::zeroed(), &mut from) else {
        panic!("not understood: {from:?}")
    };
    assert!(headers.is_translatable());
    Rewrite { headers: &headers, from: &from, to, hop }.apply(&mut slice).expect("memory can be written");
    from
}

/// Bytes of a quote from the transport header on; no checksum is cut in two.
fn quoted_length() -> impl Strategy<Value = usize> {
    (4_usize..100).prop_map(|words| 2 * words)
}

/// An ICMP error about a packet, from one address to another, that quotes as many bytes of its transport header and
/// what follows as said.
fn error(about: &Packet, (src, dst): (Addr, Addr), (kind, cut): (u8, usize)) -> Vec<u8> {
    let v4 = dst.is_v4();
    let header = if v4 { 20 + 4 * about.options } else { 40 };
    let mut quote = about.bytes().split_off(NETWORK);
    quote.truncate(header + cut);
    let (kinds, proto) =
        if v4 { (&[3_u8, 11, 12][..], Proto::ICMP) } else { (&[1, 2, 3, 4][..], Proto::ICMPV6) };
    let tuple = Tuple { src, dst, sport: Port::new(0), dport: Port::new(0), proto, ..about.tuple };
    let kind = kinds[usize::from(kind) % kinds.len()];
    let message = [vec![kind, 1, 0, 0, 0, 0, 0, 0], quote].concat();
    let (flags, payload) = (0, Vec::new());
    let outer = Packet { tuple, flags, hop_limit: 64, options: 0, checksum: true, payload };
    outer.with_transport(&with_checksum(&tuple, message))
}

/// The message with its checksum in place.
fn with_checksum(tuple: &Tuple, mut message: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&summed(tuple, &message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

const fn icmp_of(v4: bool) -> Proto {
    if v4 { Proto::ICMP } else { Proto::ICMPV6 }
}

/// Gives an error about a packet with one tuple that about the same packet with another, as if it went on through the
/// host's stack; `inside` if it comes from an endpoint.
fn relay(bytes: &mut [u8], about: &Tuple, becomes: &Tuple, inside: bool) {
    let mut model = Model::default();
    let zone = if inside { INSIDE } else { Zone::WORLD };
    let mut scratch = Scratch::zeroed();
    let Ok(Parsed::Ip(headers)) =
        parse(&Slice::new(bytes), &mut bytemuck::Zeroable::zeroed(), &mut scratch.tuple)
    else {
        panic!("not understood")
    };
    assert!(headers.is_icmp_error());
    scratch.headers = headers;
    scratch.tuple.zone = zone;
    // The answer to the packet quoted is what the flow is found by.
    let key = Tuple { zone, ..about.answer() };
    let mut entry = CtEntry::zeroed();
    entry.translated = Tuple { zone: INSIDE, ..becomes.answer() };
    entry.last_seen = model.clock;
    model.conntrack.borrow_mut().insert(key, entry);
    let endpoint = |ifindex| EndpointValue { ifindex, mtu: 1500, mac: MAC, ..EndpointValue::zeroed() };
    model.endpoints.insert(key.src, endpoint(ENDPOINT));
    model.endpoints.insert(scratch.tuple.src, endpoint(ENDPOINT));
    model.endpoints.insert(becomes.src, endpoint(ENDPOINT));
    scratch.quoted.hook = if inside { Hook::FromEndpoint } else { Hook::FromUplink } as u8;
    assert_eq!(related::relate(&Slice::new(bytes), &model, &mut scratch), Step::RELAY);
    scratch.decided.keep(Verdict::Pass);
    related::relay(&mut Slice::new(bytes), &mut scratch).expect("memory can be written");
}

/// Bytes that look like a packet up to some point.
fn nearly_a_packet() -> impl Strategy<Value = Vec<u8>> {
    let damage = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (packet_and_other(), damage, any::<prop::sample::Index>()).prop_map(|((packet, _), damage, end)| {
        let mut bytes = packet.bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(end.index(2 * bytes.len()));
        bytes
    })
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..120), nearly_a_packet()]
}

proptest! {
    #[test]
    fn any_bytes_can_be_parsed(mut bytes in any_frame()) {
        let length = bytes.len() as u32;
        let mut tuple = Tuple::zeroed();
        if let Ok(Parsed::Ip(headers)) = parse(&Slice::new(&mut bytes), &mut bytemuck::Zeroable::zeroed(), &mut tuple) {
            prop_assert!(headers.length + 14 <= length);
            prop_assert_eq!(u32::from(headers.wire_length), headers.length);
            prop_assert_eq!(tuple.src.is_v4() && tuple.dst.is_v4(), headers.is_v4());
            if headers.is_translatable() {
                prop_assert!(headers.l4_offset + 8 <= 14 + headers.length);
            }
        }
    }

    #[test]
    fn any_bytes_have_a_verdict_and_change_only_if_they_go_on(frame in any_frame()) {
        let model = world();
        let scratch = &mut Scratch::zeroed();
        let mut bytes = frame.clone();
        for (hook, ifindex) in [
            (Hook::FromEndpoint, ENDPOINT),
            (Hook::FromUplink, UPLINK),
            (Hook::ToUplink, UPLINK),
        ] {
            let place = Place { ifindex, arrived: BRIDGE, waited: 0 };
            bytes.clone_from(&frame);
            let verdict = pipeline::run(&mut Slice::new(&mut bytes), &model, scratch, (hook, place));
            prop_assert!(verdict.is_ok() || bytes == frame);
        }
    }

    #[test]
    fn a_packet_is_read_as_it_was_written((packet, _) in packet_and_other()) {
        let mut bytes = packet.bytes();
        prop_assert!(adds_up(&bytes, &packet, &packet.tuple), "the builder is right");
        let mut tuple = Tuple::zeroed();
        let Ok(Parsed::Ip(headers)) = parse(&Slice::new(&mut bytes), &mut bytemuck::Zeroable::zeroed(), &mut tuple) else { panic!("not understood") };
        prop_assert_eq!(tuple, packet.tuple);
        prop_assert_eq!(headers.hop_limit, packet.hop_limit);
        prop_assert_eq!(headers.has_options(), packet.tuple.src.is_v4() && packet.options > 0);
        prop_assert_eq!(headers.length as usize, bytes.len() - NETWORK);
        prop_assert_eq!(headers.src_mac, MAC);
    }

    #[test]
    fn a_rewritten_packet_is_the_other_packet((packet, to) in packet_and_other()) {
        let mut bytes = packet.bytes();
        rewrite(&mut bytes, &to, Hop::Decrement);
        prop_assert!(adds_up(&bytes, &packet, &to));
        let expected = Packet { tuple: to, hop_limit: packet.hop_limit - 1, ..packet };
        prop_assert_eq!(bytes, expected.bytes());
    }

    /// With as much of the packet as an error quotes, and somebody on the way or the receiver complaining.
    #[test]
    fn an_error_becomes_one_about_the_other_packet(
        ((packet, to), cut, kind) in (packet_and_other(), quoted_length(), any::<u8>()),
        complainer in any::<[u8; 16]>(),
    ) {
        let v4 = to.src.is_v4();
        let from = if v4 { Addr::v4([192, 0, 2, complainer[0]]) } else { Addr::v6(complainer) };
        let other = Packet { tuple: to, ..packet.clone() };
        let mut bytes = error(&other, (from, to.src), (kind, cut));
        relay(&mut bytes, &to, &packet.tuple, false);
        prop_assert_eq!(bytes, error(&packet, (from, packet.tuple.src), (kind, cut)));
    }

    #[test]
    fn an_error_there_and_back_again_is_the_same(
        ((packet, to), cut, kind) in (packet_and_other(), quoted_length(), any::<u8>()),
    ) {
        let other = Packet { tuple: to, ..packet.clone() };
        let sent = error(&other, (to.dst, to.src), (kind, cut));
        let mut bytes = sent.clone();
        relay(&mut bytes, &to, &packet.tuple, true);
        prop_assert_eq!(&bytes, &error(&packet, (packet.tuple.dst, packet.tuple.src), (kind, cut)));
        relay(&mut bytes, &packet.tuple, &to, true);
        prop_assert_eq!(bytes, sent);
    }

    /// Its receiver will notice: a change by a difference hides nothing.
    #[test]
    fn an_error_with_a_wrong_checksum_keeps_a_wrong_one(
        ((packet, to), at, bit) in (packet_and_other(), any::<prop::sample::Index>(), 0_u8..8),
    ) {
        let v4 = to.src.is_v4();
        let other = Packet { tuple: to, ..packet.clone() };
        let mut bytes = error(&other, (to.dst, to.src), (0, 400));
        // Not in what is read: the quoted network header has a checksum of its own, ports would be another flow's.
        let message = NETWORK + if v4 { 20 } else { 40 };
        let header = if v4 { 20 + 4 * packet.options } else { 40 };
        let spared = [message..message + 2, message + 4..message + 8 + header + 8];
        let at = message + at.index(bytes.len() - message);
        prop_assume!(spared.iter().all(|range| !range.contains(&at)));
        bytes[at] ^= 1 << bit;
        relay(&mut bytes, &to, &packet.tuple, true);
        let tuple = Tuple { src: packet.tuple.dst, dst: packet.tuple.src, proto: icmp_of(v4), ..packet.tuple };
        prop_assert_ne!(checksum(&summed(&tuple, &bytes[message..])), 0);
    }

    #[test]
    fn there_and_back_again_is_the_identity((packet, to) in packet_and_other()) {
        let mut bytes = packet.bytes();
        let from = rewrite(&mut bytes, &to, Hop::Keep);
        let back = rewrite(&mut bytes, &from, Hop::Keep);
        prop_assert_eq!(back.sport, to.sport);
        prop_assert_eq!((back.src, back.dst), (to.src, to.dst));
        prop_assert_eq!(bytes, packet.bytes());
    }

    /// However a datagram is cut, and whichever way it goes, its fragments are those of the translated datagram.
    #[test]
    fn translated_fragments_make_the_translated_datagram(
        (packet, id) in datagram(),
        cuts in vec(3_usize..40, 0..6),
        answered in any::<bool>(),
    ) {
        let (whole, pieces) = (world(), world());
        let mut datagram = packet.clone();
        if answered {
            // Both know the flow, of which this is an answer.
            for model in [&whole, &pieces] {
                let mut bytes = packet.bytes();
                prop_assert!(goes_on(model, &packet.tuple, &mut bytes));
            }
            let opener = whole.conntrack.borrow().get(&packet.tuple).copied();
            let entry = opener.or_else(|| whole.unconfirmed.borrow().get(&packet.tuple).copied());
            datagram.tuple = entry.expect("a flow began").translated.answer();
        }
        let mut expected = datagram.bytes();
        let mut fragments = cut(&expected, &cuts, id);
        prop_assert!(goes_on(&whole, &datagram.tuple, &mut expected));
        for fragment in &mut fragments {
            prop_assert!(goes_on(&pieces, &datagram.tuple, fragment));
        }
        let (addresses, hops, payload) = put_together(&fragments);
        prop_assert_eq!((addresses, hops, payload), put_together(&[expected]));
        prop_assert!(fragments.len() == 1 || ids(&fragments).windows(2).all(|pair| pair[0] == pair[1]));
        let tracked = if answered { 2 } else { 1 } * 2;
        prop_assert!(pieces.unconfirmed.borrow().len() + pieces.conntrack.borrow().len() <= tracked);
    }

    /// Two flows that shared an answer could not be told apart by the answers.
    #[test]
    fn no_two_flows_share_an_answer(
        events in vec(event(), 1..120),
        ports in select(vec![1_u16, 2, 8, 16_384]),
        capacity in select(vec![1_u32, 3, 10, 1_024]),
        (mapping, filtering) in (0_u8..4, 0_u8..3),
    ) {
        let mut model = world();
        model.config.nat_ports = PortRange { first: 49_152, last: 49_152 + (ports - 1) };
        model.slot_count = capacity;
        for endpoint in model.endpoints.values_mut() {
            (endpoint.mapping, endpoint.filtering) = (mapping, filtering);
        }
        for event in events {
            event.happen(&mut model);
            let confirmed = model.conntrack.borrow();
            prop_assert!(confirmed.len() <= 2 * capacity as usize);
            let mut flows = model.unconfirmed.borrow().clone();
            flows.extend(confirmed.iter());
            prop_assert_eq!(flows.len(), confirmed.len() + model.unconfirmed.borrow().len(), "in one table only");
            for (tuple, entry) in &flows {
                pair_up(&flows, tuple, entry)?;
                prop_assert_eq!(confirmed.contains_key(tuple), confirmed.contains_key(&entry.twin()));
            }
            for addr in INSIDERS.map(Addr::v4) {
                let opened = |(tuple, entry): &(&Tuple, &CtEntry)| {
                    tuple.src == addr && tuple.zone == INSIDE && entry.origin == Origin::Opener as u8
                };
                let used = model.endpoint_use.borrow().get(&model.endpoints[&addr].ifindex).map_or(0, |used| used.flows);
                prop_assert_eq!(used as usize, confirmed.iter().filter(opened).count(), "flows of {:?}", addr);
            }
        }
    }

    #[test]
    fn a_range_of_ports_is_covered_by_its_blocks_and_nothing_else_is(
        ends in any::<(u16, u16)>(),
        target in any::<u16>(),
        asked in vec(any::<u16>(), 20),
    ) {
        let (first, last) = (ends.0.min(ends.1), ends.0.max(ends.1));
        let host = Addr::v4([203, 0, 113, 1]);
        let mut model = Model::default();
        publish(&mut model, &host, (first, last), target);
        let edges = [first, last, first.wrapping_sub(1), last.wrapping_add(1), 0, u16::MAX];
        for port in asked.into_iter().chain(edges) {
            let found = published(&model, &host, Port::new(port), Proto::TCP);
            let expected = (first..=last).contains(&port).then(|| target.wrapping_add(port - first));
            prop_assert_eq!(found.map(|target| target.port.number()), expected, "port {} of {}-{}", port, first, last);
            prop_assert_eq!(published(&model, &host, Port::new(port), Proto::UDP), None);
        }
        prop_assert!(model.port_map.len() <= 30);
    }
}

/// A datagram that an endpoint sends to the world, of either family, and the identification of its fragments.
fn datagram() -> impl Strategy<Value = (Packet, u16)> {
    let parts =
        (any::<bool>(), 0_usize..3, (1024..=u16::MAX, 1..=u16::MAX), 0_usize..900, any::<(bool, u16)>());
    parts.prop_map(|(v4, proto, (sport, dport), length, (checksum, id))| {
        let echo = if v4 { Proto::ICMP } else { Proto::ICMPV6 };
        let proto = [Proto::TCP, Proto::UDP, echo][proto];
        let (src, dst) = if v4 {
            (Addr::v4(INSIDERS[0]), Addr::v4(WORLD[1]))
        } else {
            (Addr::v6(INSIDER_V6), Addr::v6(WORLD_V6))
        };
        let (sport, dport) = (Port::new(sport), Port::new(if proto == echo { sport } else { dport }));
        let tuple = Tuple { src, dst, sport, dport, zone: INSIDE, proto, reserved: 0 };
        let payload = (0..length).map(|n| n as u8).collect();
        // A source port that masquerade cannot keep is drawn, by both models alike.
        (Packet { tuple, flags: 2, hop_limit: 64, options: 0, checksum: checksum || !v4, payload }, id)
    })
}

/// Sends a packet where one with this tuple comes from; whether it goes on, somewhere else than into the stack.
fn goes_on(model: &Model, tuple: &Tuple, bytes: &mut [u8]) -> bool {
    let place = |ifindex| Place { ifindex, arrived: 0, waited: 0 };
    let at = if tuple.zone == INSIDE {
        (Hook::FromEndpoint, place(model.endpoints[&tuple.src].ifindex))
    } else {
        (Hook::FromUplink, place(UPLINK))
    };
    let verdict = pipeline::run(&mut Slice::new(bytes), model, &mut Scratch::zeroed(), at);
    verdict.is_ok_and(|verdict| verdict != Verdict::Pass)
}

/// Cuts a packet without options into fragments, `cuts` units of eight bytes long as far as they last.
fn cut(packet: &[u8], cuts: &[usize], id: u16) -> Vec<Vec<u8>> {
    let v4 = packet[NETWORK] >> 4 == 4;
    let (header, mut rest) = packet.split_at(NETWORK + if v4 { 20 } else { 40 });
    let (mut fragments, mut offset) = (Vec::new(), 0_u16);
    let mut lengths = cuts.iter().map(|cut| 8 * cut);
    loop {
        let length = lengths.next().filter(|length| *length < rest.len());
        let (piece, others) = rest.split_at(length.unwrap_or(rest.len()));
        let more = length.is_some();
        let mut bytes = header.to_vec();
        if v4 {
            bytes[16..18].copy_from_slice(&(20 + piece.len() as u16).to_be_bytes());
            bytes[18..20].copy_from_slice(&id.to_be_bytes());
            bytes[20..22].copy_from_slice(&((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
            bytes[24..26].fill(0);
            let sum = checksum(&bytes[NETWORK..]);
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        } else {
            bytes[18..20].copy_from_slice(&(8 + piece.len() as u16).to_be_bytes());
            let next = std::mem::replace(&mut bytes[20], 44);
            let [o, p] = (offset | u16::from(more)).to_be_bytes();
            let [a, b] = id.to_be_bytes();
            bytes.extend([next, 0, o, p, 0, 0, a, b]);
        }
        bytes.extend(piece);
        fragments.push(bytes);
        if !more {
            return fragments;
        }
        (offset, rest) = (offset + piece.len() as u16, others);
    }
}

/// What a receiver makes of fragments, or of a whole packet: addresses, hop limit, what follows the network header.
fn put_together(fragments: &[Vec<u8>]) -> (Vec<u8>, u8, Vec<u8>) {
    let first = &fragments[0];
    let v4 = first[NETWORK] >> 4 == 4;
    let carried = |bytes: &Vec<u8>| {
        assert!(!v4 || checksum(&bytes[NETWORK..NETWORK + 20]) == 0, "an IPv4 header adds up");
        bytes[NETWORK
            + if v4 {
                20
            } else if bytes[20] == 44 {
                48
            } else {
                40
            }..]
            .to_vec()
    };
    let addresses = if v4 { &first[26..34] } else { &first[22..54] };
    let hops = if v4 { first[22] } else { first[21] };
    (addresses.to_vec(), hops, fragments.iter().flat_map(carried).collect())
}

/// The identifications of fragments.
fn ids(fragments: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let at = if fragments[0][NETWORK] >> 4 == 4 { 18..20 } else { 58..62 };
    fragments.iter().map(|bytes| bytes[at.clone()].to_vec()).collect()
}

/// Every entry has a twin that knows it, of the same flow: so a tuple belongs to one flow.
fn pair_up(flows: &HashMap<Tuple, CtEntry>, tuple: &Tuple, entry: &CtEntry) -> Result<(), TestCaseError> {
    let Some(twin) = flows.get(&entry.twin()) else {
        return Err(TestCaseError::fail(format!("{tuple:?} => {:?} is alone", entry.translated)));
    };
    prop_assert_eq!(twin.twin(), *tuple);
    prop_assert_ne!(twin.origin, entry.origin);
    prop_assert_eq!((twin.created, twin.mapping, twin.state), (entry.created, entry.mapping, entry.state));
    Ok(())
}

/// Cuts a range into blocks from below, each as large as its position allows, and publishes them.
fn publish(model: &mut Model, on: &Addr, (first, last): (u16, u16), target: u16) {
    let (mut at, end) = (u32::from(first), u32::from(last) + 1);
    while at < end {
        let aligned = if at == 0 { 16 } else { at.trailing_zeros() };
        let bits = aligned.min((end - at).ilog2());
        let prefix_len = 16 - bits as u8;
        let key = PortMapKey { addr: *on, port: Port::new(at as u16), proto: Proto::TCP, prefix_len };
        let port = Port::new(target.wrapping_add(at as u16 - first));
        model.port_map.insert(key, PortMapValue { addr: *on, port, zone: INSIDE, id: 1, flags: 0 });
        if prefix_len < 16 {
            model.config.port_blocks |= 1 << prefix_len;
        }
        at += 1 << bits;
    }
}

/// Something that happens to the flow table.
#[derive(Clone, Debug)]
enum Event {
    /// An endpoint, or a client in the world, sends a packet.
    Sent(Packet),
    /// An answer to one of the tracked flows.
    Answered(prop::sample::Index, u8),
    /// Seconds go by.
    Passed(u32),
}

const GATEWAY: [u8; 4] = [192, 168, 0, 1];
pub(super) const INSIDERS: [[u8; 4]; 3] = [[192, 168, 0, 2], [192, 168, 0, 3], [192, 168, 0, 4]];
pub(super) const HOST: [u8; 4] = [203, 0, 113, 1];
const INSIDER_V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const HOST_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const WORLD_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
pub(super) const WORLD: [[u8; 4]; 2] = [[203, 0, 113, 2], [198, 51, 100, 7]];

/// Few addresses and ports, so that they meet.
fn event() -> impl Strategy<Value = Event> {
    let src = select([&INSIDERS[..], &WORLD].concat());
    let dst = select([&WORLD[..], &[HOST, HOST]].concat());
    let ports = (select(vec![49_152_u16, 49_153, 1_000]), select(vec![53_u16, 8088, 49_152, 49_153]));
    let proto = select(vec![Proto::TCP, Proto::UDP, Proto::ICMP]);
    let sent = (src, dst, ports, proto, any::<u8>()).prop_map(|(src, dst, (sport, dport), proto, flags)| {
        let dport = if proto == Proto::ICMP { sport } else { dport };
        let zone = if INSIDERS.contains(&src) { INSIDE } else { Zone::WORLD };
        let (sport, dport) = (Port::new(sport), Port::new(dport));
        let tuple = Tuple { src: Addr::v4(src), dst: Addr::v4(dst), sport, dport, zone, proto, reserved: 0 };
        Event::Sent(Packet { tuple, flags, hop_limit: 64, options: 0, checksum: true, payload: vec![1; 8] })
    });
    prop_oneof![
        8 => sent,
        4 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(which, flags)| Event::Answered(which, flags)),
        1 => (0_u32..400).prop_map(Event::Passed),
    ]
}

impl Event {
    fn happen(self, model: &mut Model) {
        let packet = match self {
            Self::Sent(packet) => packet,
            Self::Answered(which, flags) => {
                let (confirmed, unconfirmed) = (model.conntrack.borrow(), model.unconfirmed.borrow());
                let mut tracked: Vec<Tuple> = confirmed.keys().chain(unconfirmed.keys()).copied().collect();
                if tracked.is_empty() {
                    return;
                }
                tracked.sort_by_key(|tuple| format!("{tuple:?}"));
                let tuple = *which.get(&tracked);
                Packet { tuple, flags, hop_limit: 64, options: 0, checksum: true, payload: Vec::new() }
            }
            Self::Passed(seconds) => {
                model.clock += seconds;
                return;
            }
        };
        let mut bytes = packet.bytes();
        let (slice, scratch) = (&mut Slice::new(&mut bytes), &mut Scratch::zeroed());
        let from_endpoint = packet.tuple.zone == INSIDE;
        let ifindex = ENDPOINT + u32::from(packet.tuple.src.v4_bytes()[3]);
        let at = if from_endpoint { (Hook::FromEndpoint, ifindex) } else { (Hook::FromUplink, UPLINK) };
        let _ = pipeline::run(slice, model, scratch, (at.0, Place { ifindex: at.1, arrived: 0, waited: 0 }));
    }
}

/// Three endpoints, one of which publishes a port, and a way to the world.
pub(super) fn world() -> Model {
    let mut model = Model::default();
    for addr in INSIDERS {
        let ifindex = ENDPOINT + u32::from(addr[3]);
        model.endpoints.insert(
            Addr::v4(addr),
            EndpointValue {
                ifindex,
                bridge: BRIDGE,
                mac: MAC,
                gateway_mac: MAC,
                zone: INSIDE,
                mtu: 1500,
                prefix_len: 120,
                flags: 0,
                mapping: 0,
                filtering: 0,
            },
        );
    }
    let subnet = PrefixKey { prefix_len: 120, addr: Addr::v4([192, 168, 0, 0]) };
    model.networks.insert(
        subnet,
        NetworkValue { bridge: BRIDGE, zone: INSIDE, flags: 0, reserved: 0, gateway: Addr::v4(GATEWAY) },
    );
    model.masquerade.insert(subnet, MasqueradeValue { to: Addr::ANY_V4, flags: 0 });
    model.host_addresses.insert(Addr::v4(HOST), HostAddressValue { ifindex: UPLINK });
    let next_hop = NextHop { ifindex: UPLINK, addr: Addr::v4(WORLD[0]) };
    let everywhere = PrefixKey { prefix_len: 96, addr: Addr::ANY_V4 };
    model.routes.push(ModelRoute { prefix: everywhere, next_hop, source: Addr::v4(HOST), mtu: 1500 });
    let inside = model.endpoints[&Addr::v4(INSIDERS[0])];
    model.endpoints.insert(Addr::v6(INSIDER_V6), EndpointValue { prefix_len: 64, ..inside });
    let everywhere = PrefixKey { prefix_len: 0, addr: Addr::ANY_V6 };
    model.masquerade.insert(
        PrefixKey { prefix_len: 8, addr: Addr::v6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]) },
        MasqueradeValue { to: Addr::ANY_V6, flags: 0 },
    );
    model.uplinks.insert(UPLINK, UplinkValue { v4: Addr::v4(HOST), v6: Addr::v6(HOST_V6) });
    model.host_addresses.insert(Addr::v6(HOST_V6), HostAddressValue { ifindex: UPLINK });
    let next_hop = NextHop { ifindex: UPLINK, addr: Addr::v6(WORLD_V6) };
    model.routes.push(ModelRoute { prefix: everywhere, next_hop, source: Addr::v6(HOST_V6), mtu: 1500 });
    for (port, proto) in [(8088, Proto::TCP), (49_153, Proto::UDP)] {
        let key = PortMapKey { addr: Addr::ANY_V4, port: Port::new(port), proto, prefix_len: 16 };
        let target =
            PortMapValue { addr: Addr::v4(INSIDERS[0]), port: Port::new(80), zone: INSIDE, id: 1, flags: 0 };
        model.port_map.insert(key, target);
    }
    model
}
