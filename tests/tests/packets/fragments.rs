//! Fragments follow the first of their datagram, which alone has ports; and options that say where a packet is to go.

use std::net::SocketAddr;

use vnet_common::{DatapathConfig, DropReason, FragmentKey, FragmentValue, NetworkValue, Port, Proto, Zone};
use vnet_datapath::model::Model;
use vnet_tests::case::world::{Endpoint, Family, NET1, NET2, NET3, STRAY, V4, V6, at, published, zone_of};
use vnet_tests::case::{Case, Flow};
use vnet_tests::frame::{Frame, HOP_BY_HOP, ROUTING};
use vnet_tests::runner::Fate;

use super::for_both_families;
use super::quota::Talk;

/// Something done to a frame.
type Change = fn(Frame) -> Frame;

/// The identification of a [`Frame`].
const SENT: u16 = 0x1234;
/// The one that the fragments of a [`noted`] datagram get, if they are IPv4.
const GIVEN: u16 = 0x7777;

pub(super) fn cases() -> Vec<Case> {
    let subjects =
        [leaving, coming_in, to_endpoints, through_the_stack, to_the_host, unknown, waiting, contradictory];
    let mut cases: Vec<Case> = subjects.into_iter().flat_map(for_both_families).collect();
    cases.extend(headers_of_ipv6());
    cases.extend(options());
    cases
}

/// RFC 7857 section 10: two endpoints behind one address would number their datagrams alike.
#[test]
fn a_packet_that_may_be_cut_gets_an_identification_of_its_own() {
    let mut talk = Talk::new(|_| {});
    let mut id_of = |from: Endpoint, sport, change: Change| {
        let frame = Frame::udp(at(from.addrs[0], sport), at(V4.www, 53)).id(SENT);
        let outcome = talk.sends(from, change(frame));
        assert_eq!(outcome.fate, Fate::Forwarded);
        u16::from_be_bytes([outcome.frame[18], outcome.frame[19]])
    };
    let ids = [NET1, NET2].map(|from| id_of(from, 50_000, Frame::may_fragment));
    assert!(ids[0] != ids[1] && !ids.contains(&SENT), "{ids:x?}");
    // Of one that never becomes a fragment it says nothing (RFC 6864 section 4.1).
    assert_eq!([NET1, NET2].map(|from| id_of(from, 50_001, |frame| frame)), [SENT; 2]);
}

/// The first fragment of a datagram of 56 bytes.
fn first(from: SocketAddr, to: SocketAddr) -> Frame {
    Frame::udp(from, to).payload(&[1; 32]).fragment(0, true)
}

/// The last.
fn last(from: SocketAddr, to: SocketAddr) -> Frame {
    Frame::udp(from, to).payload(&[2; 16]).fragment(40, false)
}

/// Notes that the first fragment between two sockets had a header of so many bytes and got this fate.
fn noted(model: &mut Model, (from, to): (SocketAddr, SocketAddr), proto: Proto, header: u8, fate: u8) {
    let v4 = from.is_ipv4();
    let [a, b] = SENT.to_be_bytes();
    let key = FragmentKey {
        src: from.ip().into(),
        dst: to.ip().into(),
        id: if v4 { [a, b, 0, 0] } else { [0, 0, a, b] },
        zone: zone_of(from.ip()),
        proto: if v4 { proto } else { Proto { number: 0 } },
        reserved: 0,
    };
    let value = FragmentValue {
        began: model.clock,
        sport: Port::new(from.port()),
        dport: Port::new(to.port()),
        id: GIVEN.to_be_bytes(),
        proto,
        header,
        fate,
        reserved: [0; 3],
    };
    model.fragments.borrow_mut().insert(key, value);
}

fn leaving(f: &Family) -> Vec<Case> {
    let (client, dns, seen) = (at(f.net1, 50_000), at(f.www, 53), at(f.host, 50_000));
    let flow = Flow::masqueraded(Proto::UDP, client, dns, 50_000);
    let middle = |from| Frame::udp(from, dns).payload(&[3; 24]).fragment(40, true);
    let ping = |from, more| {
        let request = Frame::echo_request(from, f.www, 7, 1).payload(&[4; 16]);
        if more { request.fragment(0, true) } else { request.fragment(24, false) }
    };
    let echo = if f.net1.is_ipv4() { Proto::ICMP } else { Proto::ICMPV6 };
    let web = at(f.www, 80);
    let segment = |from, more| {
        let segment = Frame::tcp(from, web).ack().payload(&[5; 20]);
        if more { segment.fragment(0, true) } else { segment.fragment(40, false) }
    };
    let stream = Flow::masqueraded(Proto::TCP, client, web, 50_000).established();
    let loose = |from| Frame::udp(from, dns).may_fragment();
    vec![
        Case::from_endpoint(NET1, "a packet that may be cut leaves", loose(client))
            .forwarded(loose(seen))
            .leaves([flow.just_seen()]),
        Case::from_endpoint(NET1, "a first fragment leaves as any packet does", first(client, dns))
            .forwarded(first(seen, dns))
            .leaves([flow.just_seen()]),
        Case::from_endpoint(NET1, "the last fragment follows the first", last(client, dns))
            .after(first(client, dns))
            .forwarded(last(seen, dns))
            .leaves([flow.just_seen()]),
        Case::from_endpoint(NET1, "the middle fragments follow the first", middle(client))
            .after(first(client, dns))
            .forwarded(middle(seen))
            .leaves([flow.just_seen()]),
        Case::from_endpoint(NET1, "fragments follow a flow that began long ago", last(client, dns))
            .tracked([flow.established()])
            .after(first(client, dns))
            .forwarded(last(seen, dns))
            .leaves([flow.established().just_seen()]),
        Case::from_endpoint(NET1, "fragments of a datagram that was sent twice", last(client, dns))
            .after(first(client, dns))
            .after(last(client, dns))
            .forwarded(last(seen, dns))
            .leaves([flow.just_seen()]),
        Case::from_endpoint(NET1, "a large ping leaves in fragments", ping(f.net1, false))
            .after(ping(f.net1, true))
            .forwarded(ping(f.host, false))
            .leaves([Flow::masqueraded(echo, at(f.net1, 7), at(f.www, 7), 7).just_seen()]),
        Case::from_endpoint(NET1, "a TCP segment in fragments leaves", segment(client, false))
            .tracked([stream])
            .after(segment(client, true))
            .forwarded(segment(seen, false))
            .leaves([stream.just_seen()]),
        Case::from_endpoint(NET1, "a fragment with its last hop goes to the stack", last(client, dns).ttl(1))
            .after(first(client, dns))
            .passes()
            .leaves([flow.just_seen()]),
        Case::from_endpoint(NET1, "fragments keep the identification of their datagram", last(client, dns))
            .given(move |model| noted(model, (client, dns), Proto::UDP, 8, FragmentValue::TRANSLATED))
            .tracked([flow])
            .forwarded(last(seen, dns).id(if f.net1.is_ipv4() { GIVEN } else { SENT }))
            .leaves([flow.just_seen()]),
    ]
}

fn coming_in(f: &Family) -> Vec<Case> {
    let (client, dns, seen) = (at(f.net1, 50_000), at(f.www, 53), at(f.host, 50_000));
    let flow = Flow::masqueraded(Proto::UDP, client, dns, 50_000);
    let tcp = Flow::masqueraded(Proto::TCP, client, dns, 50_000);
    let given = |frame: Frame| frame.id(if f.net1.is_ipv4() { GIVEN } else { SENT });
    vec![
        Case::from_uplink("a first fragment of an answer is delivered", first(dns, seen))
            .tracked([flow])
            .delivered(NET1, first(dns, client))
            .leaves([flow.established().just_seen()]),
        Case::from_uplink("the last fragment of an answer is delivered", last(dns, seen))
            .tracked([flow])
            .after(first(dns, seen))
            .delivered(NET1, last(dns, client))
            .leaves([flow.established().just_seen()]),
        Case::from_uplink("a later fragment says nothing of a connection", last(dns, seen))
            .given(move |model| noted(model, (dns, seen), Proto::TCP, 20, FragmentValue::TRANSLATED))
            .tracked([tcp])
            .link(
                Frame::tcp(dns, seen)
                    .payload(&[2; 16])
                    .fragment(40, false)
                    .macs(vnet_tests::case::world::PEER_MAC, vnet_tests::case::world::HOST_MAC),
            )
            .delivered(NET1, given(Frame::tcp(dns, client).payload(&[2; 16]).fragment(40, false)))
            .leaves([tcp.just_seen()]),
        Case::from_uplink("a fragment with its last hop is not delivered", last(dns, seen).ttl(1))
            .given(move |model| noted(model, (dns, seen), Proto::UDP, 8, FragmentValue::TRANSLATED))
            .tracked([flow])
            .dropped(DropReason::HopLimit),
    ]
}

fn to_endpoints(f: &Family) -> Vec<Case> {
    let (client, public) = (at(f.www, 1234), at(f.host, published::DNS.port));
    let target = at(f.net2, 53);
    let flow = Flow::published(Proto::UDP, client, public, target).by(published::DNS.id);
    let (inner, elsewhere) = (at(f.net1, 50_000), at(f.host, published::IN_NAT_RANGE.port));
    let hairpin = Flow::hairpin(Proto::UDP, inner, public, (target, 50_000)).by(published::DNS.id);
    let seen = at(f.host, 50_000);
    let other = Flow::published(Proto::UDP, client, elsewhere, at(f.net3, 50)).by(published::IN_NAT_RANGE.id);
    let firewall = |model: &mut Model| model.config.flags |= DatapathConfig::FLAG_RESPECT_FIREWALL;
    let open = |model: &mut Model| {
        for network in model.networks.values_mut() {
            network.flags |= NetworkValue::FLAG_UNPROTECTED;
        }
    };
    let direct = Flow::published(Proto::UDP, client, target, target);
    vec![
        Case::from_uplink("a first fragment to a published port is delivered", first(client, public))
            .delivered(NET2, first(client, target))
            .leaves([flow.just_seen()]),
        Case::from_uplink("the last fragment to a published port is delivered", last(client, public))
            .after(first(client, public))
            .delivered(NET2, last(client, target))
            .leaves([flow.just_seen()]),
        Case::from_uplink("fragments to the port of another network are delivered", last(client, elsewhere))
            .after(first(client, elsewhere))
            .delivered(NET3, last(client, at(f.net3, 50)))
            .leaves([other.just_seen()]),
        Case::from_uplink("fragments that the firewall is to see go to the stack", last(client, public))
            .given(firewall)
            .after(first(client, public))
            .passes_as(last(client, target))
            .leaves([flow.just_seen()]),
        Case::from_endpoint(NET1, "fragments to a published port take the hairpin", last(inner, public))
            .after(first(inner, public))
            .delivered(NET2, last(seen, target))
            .leaves([hairpin.just_seen()]),
        Case::from_uplink("fragments reach an endpoint that anybody may address", last(client, target))
            .given(open)
            .after(first(client, target))
            .delivered(NET2, last(client, target).id(SENT))
            .leaves([direct.just_seen()]),
        Case::from_uplink("a later fragment alone does not reach it", last(client, target))
            .given(open)
            .dropped(DropReason::Fragment),
    ]
}

fn through_the_stack(f: &Family) -> Vec<Case> {
    let (client, dns, seen) = (at(f.net1, 50_000), at(f.www, 53), at(f.host, 50_000));
    let flow = Flow::masqueraded(Proto::UDP, client, dns, 50_000);
    let slow = first(client, dns).ttl(1);
    vec![
        Case::to_uplink("a first fragment that the stack sends leaves as the host's", first(client, dns))
            .passes_as(first(seen, dns))
            .leaves([flow.just_seen()]),
        Case::to_uplink("the last that the stack sends follows it", last(client, dns))
            .after(first(client, dns))
            .passes_as(last(seen, dns))
            .leaves([flow.just_seen()]),
        Case::to_uplink("a later fragment alone does not leave through the stack", last(client, dns))
            .dropped(DropReason::Fragment),
        Case::to_uplink("nor does one of a tracked flow", last(client, dns))
            .tracked([flow])
            .dropped(DropReason::Fragment),
        Case::to_uplink("nor one whose first went to the stack and not further", last(client, dns))
            .given(move |model| noted(model, (client, dns), Proto::UDP, 8, FragmentValue::PASSED))
            .tracked([flow])
            .dropped(DropReason::Fragment),
        Case::from_endpoint(NET1, "fragments follow the first into the stack", last(client, dns))
            .after(slow.clone())
            .passes(),
        Case::from_endpoint(NET1, "so do those of a tracked flow", last(client, dns))
            .tracked([flow])
            .after(slow)
            .passes(),
    ]
}

fn to_the_host(f: &Family) -> Vec<Case> {
    let (client, host) = (at(f.www, 1234), at(f.host, 9999));
    let inside = at(f.net1, 50_000);
    vec![
        Case::from_uplink("a first fragment to the host passes", first(client, host)).passes(),
        Case::from_uplink("a later fragment to the host passes after it", last(client, host))
            .after(first(client, host))
            .passes(),
        Case::from_uplink("a later fragment to the host passes without it", last(client, host)).passes(),
        Case::from_uplink(
            "a fragment to the host that overlaps its first is the host's business",
            Frame::tcp(client, host).payload(&[0; 8]).fragment(8, false),
        )
        .given(move |model| noted(model, (client, host), Proto::TCP, 20, FragmentValue::PASSED))
        .passes(),
        Case::from_uplink(
            "fragments of another protocol to the host pass",
            Frame::protocol(f.www, f.host, 50).payload(&[0; 16]).fragment(1480, false),
        )
        .passes(),
        Case::from_uplink("fragments that only pass through do", last(client, at(f.stray, 1))).passes(),
        Case::from_uplink("fragments to a loopback address do not", last(client, at(f.loopback, 53)))
            .dropped(DropReason::Loopback),
        Case::from_endpoint(NET1, "an endpoint sends the host a first fragment", first(inside, host))
            .passes(),
        Case::from_endpoint(NET1, "an endpoint sends the host the last fragment", last(inside, host))
            .after(first(inside, host))
            .passes(),
        Case::from_endpoint(NET1, "an endpoint sends the host a later fragment alone", last(inside, host))
            .dropped(DropReason::Fragment),
        Case::from_endpoint(
            NET1,
            "fragments to an address of the network that is nobody's pass",
            last(inside, at(f.nobody, 53)),
        )
        .passes(),
        Case::from_endpoint(NET1, "fragments to another network do not leave", last(inside, at(f.net3, 53)))
            .dropped(DropReason::OtherNetwork),
    ]
}

fn unknown(f: &Family) -> Vec<Case> {
    let (client, dns) = (at(f.net1, 50_000), at(f.www, 53));
    let flow = Flow::masqueraded(Proto::UDP, client, dns, 50_000);
    let known =
        move |model: &mut Model| noted(model, (client, dns), Proto::UDP, 8, FragmentValue::TRANSLATED);
    let case = |name: &str, frame| Case::from_endpoint(NET1, name, frame);
    let alone = |name: &str, frame| case(name, frame).tracked([flow]).dropped(DropReason::Fragment);
    let change = |change: fn(&mut FragmentKey, &mut FragmentValue)| {
        move |model: &mut Model| {
            known(model);
            let entries: Vec<_> = model.fragments.borrow_mut().drain().collect();
            for (mut key, mut value) in entries {
                change(&mut key, &mut value);
                model.fragments.borrow_mut().insert(key, value);
            }
        }
    };
    vec![
        alone("a later fragment without a first does not leave", last(client, dns)),
        alone("a later fragment of another datagram does not leave", last(client, dns).id(SENT + 1))
            .given(known),
        alone("a later fragment of another network's datagram does not leave", last(client, dns))
            .given(change(|key, _| key.zone = Zone { id: 2 })),
        alone("a later fragment of the world's datagram does not leave", last(client, dns))
            .given(change(|key, _| key.zone = Zone::WORLD)),
        alone("a later fragment that comes after half a minute does not leave", last(client, dns))
            .given(change(|_, value| value.began -= 32)),
        case("a later fragment of a flow that is over does not leave", last(client, dns))
            .given(known)
            .dropped(DropReason::Fragment),
        case("a later fragment is dropped for the same reason as its first", last(client, dns))
            .given(|model| {
                for endpoint in model.endpoints.values_mut() {
                    endpoint.flags |= NetworkValue::FLAG_INTERNAL;
                }
            })
            .after(first(client, dns))
            .dropped(DropReason::Internal),
        case(
            "fragments of a protocol without ports do not leave",
            Frame::protocol(f.net1, f.www, 47).payload(&[0; 16]).fragment(24, false),
        )
        .after(Frame::protocol(f.net1, f.www, 47).payload(&[0; 24]).fragment(0, true))
        .dropped(DropReason::Untranslatable),
    ]
}

fn waiting(f: &Family) -> Vec<Case> {
    let (client, dns, seen) = (at(f.net1, 50_000), at(f.www, 53), at(f.host, 50_000));
    let public = at(f.host, published::DNS.port);
    let flow = Flow::masqueraded(Proto::UDP, client, dns, 50_000);
    let hold = |model: &mut Model| model.config.hold = STRAY;
    let case = |name: &str, frame| Case::from_endpoint(NET1, name, frame).given(hold);
    let arrives = |name: &str, frame| Case::from_uplink(name, frame).given(hold);
    let known = move |fate| move |model: &mut Model| noted(model, (client, dns), Proto::UDP, 8, fate);
    vec![
        case("a later fragment waits for its first", last(client, dns)).waits(),
        case("one of a tracked flow too", last(client, dns)).tracked([flow]).waits(),
        case("one to the host too", last(client, at(f.host, 9999))).waits(),
        arrives("one of an answer too", last(dns, seen)).tracked([flow]).waits(),
        arrives("one to a published port too", last(dns, public)).waits(),
        case("it is dropped when it has waited", last(client, dns))
            .having_waited()
            .dropped(DropReason::Fragment),
        arrives("it is the host's when it has waited", last(dns, public)).having_waited().passes(),
        case("it leaves if its first has come meanwhile", last(client, dns))
            .given(known(FragmentValue::TRANSLATED))
            .tracked([flow])
            .having_waited()
            .forwarded(last(seen, dns).id(if f.net1.is_ipv4() { GIVEN } else { SENT }))
            .leaves([flow.just_seen()]),
        case("not more of them wait than may", last(client, dns))
            .given(|model| model.config.held_fragments = 0)
            .dropped(DropReason::Fragment),
        arrives("those to the host that may not wait pass", last(dns, public))
            .given(|model| model.config.held_fragments = 0)
            .passes(),
        case("a fragment without ports waits for nothing", {
            Frame::protocol(f.net1, f.www, 47).payload(&[0; 16]).fragment(24, false)
        })
        .dropped(DropReason::Fragment),
        arrives("fragments of another protocol wait for nothing", {
            Frame::protocol(f.www, f.host, 50).payload(&[0; 16]).fragment(1480, false)
        })
        .passes(),
        arrives("fragments to an endpoint's address wait for nothing", last(dns, at(f.net1, 53)))
            .dropped(DropReason::DirectAccess),
        arrives("fragments that only pass through wait for nothing", last(dns, at(f.stray, 1))).passes(),
        Case::to_uplink("fragments from the stack wait for nothing", last(client, dns))
            .given(hold)
            .dropped(DropReason::Fragment),
        Case::from_hold(NET1, "a fragment goes round while its first is unknown", last(client, dns)).waits(),
        Case::from_hold(NET1, "a fragment goes back when it has waited", last(client, dns))
            .having_waited()
            .returns(),
        Case::from_hold(NET1, "a fragment goes back when its first has left", last(client, dns))
            .given(known(FragmentValue::TRANSLATED))
            .returns(),
        Case::from_hold(NET1, "a fragment goes back when its first was dropped", last(client, dns))
            .given(known(DropReason::Internal as u8))
            .returns(),
        Case::from_hold(NET1, "a fragment goes back when it may not wait any more", last(client, dns))
            .given(|model| model.config.hold = 0)
            .returns(),
        Case::from_hold(NET1, "nothing but fragments comes out of there", Frame::udp(client, dns))
            .dropped(DropReason::Fragment),
    ]
}

fn contradictory(f: &Family) -> Vec<Case> {
    let (client, dns, seen, web) = (at(f.net1, 50_000), at(f.www, 53), at(f.host, 50_000), at(f.www, 80));
    let stream = Flow::masqueraded(Proto::TCP, client, web, 50_000).established();
    let tcp = |offset| Frame::tcp(client, web).payload(&[0xff; 8]).fragment(offset, false);
    let overlapping = |offset| {
        Case::from_endpoint(NET1, &format!("a fragment at {offset} would replace a TCP header"), tcp(offset))
            .tracked([stream])
            .given(move |model| noted(model, (client, web), Proto::TCP, 24, FragmentValue::TRANSLATED))
            .dropped(DropReason::Malformed)
    };
    let malformed = |name: &str, frame: Change| {
        vec![
            Case::from_endpoint(NET1, &format!("{name} is dropped"), frame(Frame::udp(client, dns)))
                .dropped(DropReason::Malformed),
            Case::from_uplink(
                &format!("{name} from the world passes"),
                frame(Frame::udp(at(f.www, 9), at(f.host, published::DNS.port))),
            )
            .passes(),
        ]
    };
    let short =
        |bytes: usize| Frame::protocol(f.net1, f.www, 6).payload(&vec![0x50; bytes]).fragment(0, true);
    let mut cases = vec![
        overlapping(8),
        overlapping(16),
        Case::from_endpoint(NET1, "a fragment that begins where the TCP header ends leaves", tcp(24))
            .tracked([stream])
            .given(move |model| noted(model, (client, web), Proto::TCP, 24, FragmentValue::TRANSLATED))
            .forwarded(
                Frame::tcp(seen, web).payload(&[0xff; 8]).fragment(24, false).id(if f.net1.is_ipv4() {
                    GIVEN
                } else {
                    SENT
                }),
            )
            .leaves([stream.just_seen()]),
        Case::from_endpoint(NET1, "a first fragment too short for a TCP header is dropped", short(16))
            .dropped(DropReason::Malformed),
        Case::from_endpoint(NET1, "a first fragment too short for its TCP header is dropped", {
            Frame::tcp(client, web).tcp_options(&[1; 8]).payload(&[0; 4]).fragment(0, true)
        })
        .bytes(|bytes| {
            let doff = bytes.len() - 32 + 12;
            bytes[doff] = 9 << 4;
        })
        .dropped(DropReason::Malformed),
        Case::from_endpoint(NET1, "a first fragment of only a UDP header leaves", {
            Frame::udp(client, dns).fragment(0, true)
        })
        .forwarded(Frame::udp(seen, dns).fragment(0, true))
        .leaves([Flow::masqueraded(Proto::UDP, client, dns, 50_000).just_seen()]),
        Case::from_endpoint(NET1, "the last fragment may have any length", {
            Frame::udp(client, dns).payload(&[2; 13]).fragment(40, false)
        })
        .after(first(client, dns))
        .forwarded(Frame::udp(seen, dns).payload(&[2; 13]).fragment(40, false))
        .leaves([Flow::masqueraded(Proto::UDP, client, dns, 50_000).just_seen()]),
    ];
    let frames: [(&str, Change); 4] = [
        ("a first fragment of an odd length", |frame| frame.payload(&[1; 33]).fragment(0, true)),
        ("a middle fragment of an odd length", |frame| frame.payload(&[1; 12]).fragment(40, true)),
        ("an empty middle fragment", |frame| frame.fragment(40, true)),
        ("a fragment that ends beyond the longest datagram", |frame| {
            frame.payload(&[1; 16]).fragment(65_528, false)
        }),
    ];
    cases.extend(frames.into_iter().flat_map(|(name, frame)| malformed(name, frame)));
    cases
}

fn headers_of_ipv6() -> Vec<Case> {
    let f = &V6;
    let (client, dns, seen) = (at(f.net1, 50_000), at(f.www, 53), at(f.host, 50_000));
    let flow = Flow::masqueraded(Proto::UDP, client, dns, 50_000);
    let atomic = |from| Frame::udp(from, dns).payload(b"whole").fragment(0, false);
    let padded = |frame: Frame| frame.ext_header(HOP_BY_HOP, &[1, 4, 0, 0, 0, 0]);
    let [_, own, link_local] = NET1.addrs;
    let advertisement = Frame::router_advertisement(NET1.mac, link_local);
    // The next header of a later fragment is nobody's business (RFC 8200 section 4.5).
    let as_options = |frame: Frame, name: &str| {
        Case::from_endpoint(NET1, name, frame).bytes(|bytes| bytes[54] = 60).after(first(client, dns))
    };
    let cases = [
        Case::from_endpoint(NET1, "a fragment header without fragments changes nothing", atomic(client))
            .forwarded(atomic(seen))
            .leaves([flow.just_seen()]),
        Case::from_endpoint(NET1, "it is no part of another datagram", atomic(client))
            .given(move |model| noted(model, (client, dns), Proto::UDP, 8, DropReason::Malformed as u8))
            .forwarded(atomic(seen))
            .leaves([flow.just_seen()]),
        Case::from_uplink("fragments behind other headers are delivered", padded(last(dns, seen)))
            .tracked([flow])
            .after(padded(first(dns, seen)))
            .delivered(NET1, padded(last(dns, client)))
            .leaves([flow.established().just_seen()]),
        as_options(last(client, dns).ttl(1), "a later fragment may name another protocol")
            .passes()
            .leaves([flow.just_seen()]),
        Case::from_endpoint(NET1, "a fragment in fragments is malformed", {
            first(client, dns).ext_header(44, &[0, 1, 0, 0, 0, 9])
        })
        .dropped(DropReason::Malformed),
        Case::from_endpoint(NET1, "a fragment header cut short is malformed", {
            Frame::protocol(f.net1, f.www, 44).payload(&[17, 0, 0, 1])
        })
        .dropped(DropReason::Malformed),
        Case::from_endpoint(NET1, "a router advertisement hides in no fragments", first(client, dns))
            .link(advertisement.clone().payload(&[0; 16]).fragment(0, true))
            .dropped(DropReason::RouterAdvertisement),
        Case::from_endpoint(NET1, "nor behind a fragment header", first(client, dns))
            .link(advertisement.fragment(0, false))
            .dropped(DropReason::RouterAdvertisement),
        Case::from_endpoint(NET1, "nor does a neighbour advertisement", first(client, dns))
            .link(
                Frame::neighbour_advertisement(NET1.mac, own, f.gateway, f.net2)
                    .payload(&[0; 32])
                    .fragment(0, true),
            )
            .dropped(DropReason::NeighbourSpoof),
    ];
    cases.into_iter().map(|case| case.of_family(f)).collect()
}

fn options() -> Vec<Case> {
    let mut cases: Vec<Case> = source_routes_of_ipv4();
    cases.extend(routing_headers());
    let (client, dns) = (at(V4.net1, 50_000), at(V4.www, 53));
    let passing: [(&str, &[u8]); 3] = [
        ("record route", &[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("timestamp", &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("router alert", &[148, 4, 0, 0]),
    ];
    for (name, option) in passing {
        let seen = at(V4.host, 50_000);
        let flow = Flow::masqueraded(Proto::UDP, client, dns, 50_000);
        let frame = |from| Frame::udp(from, dns).payload(b"data").ip_options(option);
        cases.extend([
            Case::from_endpoint(NET1, &format!("a packet with {name} goes to the stack"), frame(client))
                .passes(),
            Case::to_uplink(&format!("a packet with {name} leaves the stack translated"), frame(client))
                .passes_as(frame(seen))
                .leaves([flow.just_seen()]),
        ]);
    }
    let broken: [(&str, &[u8]); 4] = [
        ("of no length", &[7, 0, 4, 0]),
        ("of one byte", &[7, 1, 4, 0]),
        ("longer than the header", &[7, 5, 4, 0]),
        ("without a length", &[1, 1, 1, 7]),
    ];
    for (name, option) in broken {
        cases.extend([
            Case::from_endpoint(
                NET1,
                &format!("an endpoint's packet with an option {name} is dropped"),
                Frame::udp(client, dns).ip_options(option),
            )
            // What follows the header must not pass for the rest of an option.
            .bytes(|bytes| bytes[38..40].copy_from_slice(&[0, 0]))
            .dropped(DropReason::Malformed),
            Case::from_uplink(
                &format!("the world's packet with an option {name} passes"),
                Frame::udp(at(V4.www, 9), at(V4.host, published::DNS.port)).ip_options(option),
            )
            .bytes(|bytes| bytes[38..40].copy_from_slice(&[0, 0]))
            .passes(),
        ]);
    }
    cases
}

fn source_routes_of_ipv4() -> Vec<Case> {
    let f = &V4;
    let (client, dns, seen) = (at(f.net1, 50_000), at(f.www, 53), at(f.host, 50_000));
    let public = at(f.host, published::DNS.port);
    let flow = Flow::masqueraded(Proto::UDP, client, dns, 50_000);
    let mut cases = Vec::new();
    let routes: [(&str, &[u8]); 4] = [
        ("a loose source route", &[131, 7, 4, 198, 51, 100, 7, 0]),
        ("a strict source route", &[137, 7, 4, 198, 51, 100, 7, 0]),
        ("a source route behind other options", &[1, 1, 7, 3, 4, 131, 3, 4]),
        ("a source route at the end of all options", &[1, 1, 1, 1, 1, 1, 1, 131]),
    ];
    for (name, route) in routes {
        let with = |from, to| Frame::udp(from, to).payload(b"data").ip_options(route);
        let dropped = |from: &str, frame| {
            Case::from_endpoint(NET1, &format!("{name} {from}"), frame).dropped(DropReason::SourceRoute)
        };
        cases.extend([
            dropped("does not leave", with(client, dns)),
            dropped("of a tracked flow does not leave", with(client, dns)).tracked([flow]),
            dropped("does not reach a neighbour", with(client, at(f.net2, 53))),
            dropped("does not reach the host", with(client, at(f.gateway, 53))),
            Case::from_uplink(&format!("{name} does not reach a published port"), with(dns, public))
                .dropped(DropReason::SourceRoute),
            Case::from_uplink(&format!("{name} does not come back with an answer"), with(dns, seen))
                .tracked([flow])
                .dropped(DropReason::SourceRoute),
            Case::from_uplink(&format!("{name} to the host is the host's business"), with(dns, seen))
                .passes(),
        ]);
    }
    cases
}

fn routing_headers() -> Vec<Case> {
    let f = &V6;
    let (client, dns, seen) = (at(f.net1, 50_000), at(f.www, 53), at(f.host, 50_000));
    let public = at(f.host, published::DNS.port);
    let flow = Flow::masqueraded(Proto::UDP, client, dns, 50_000);
    let body = |kind: u8, left: u8| {
        let mut body = vec![kind, left, 0, 0, 0, 0];
        body.extend([0x20; 16]);
        body
    };
    let with =
        |from, to, kind, left| Frame::udp(from, to).payload(b"data").ext_header(ROUTING, &body(kind, left));
    vec![
        Case::from_endpoint(NET1, "a routing header of type 0 does not leave", with(client, dns, 0, 1))
            .dropped(DropReason::SourceRoute),
        Case::from_endpoint(NET1, "a routing header behind another is found", {
            with(client, dns, 0, 1).ext_header(HOP_BY_HOP, &[1, 4, 0, 0, 0, 0])
        })
        .dropped(DropReason::SourceRoute),
        Case::from_uplink(
            "a routing header of type 0 does not reach a published port",
            with(dns, public, 0, 1),
        )
        .dropped(DropReason::SourceRoute),
        Case::from_uplink(
            "a routing header of type 0 does not come back with an answer",
            with(dns, seen, 0, 1),
        )
        .tracked([flow])
        .dropped(DropReason::SourceRoute),
        Case::from_uplink(
            "a routing header of type 0 to the host is the host's business",
            with(dns, seen, 0, 1),
        )
        .passes(),
        Case::from_endpoint(
            NET1,
            "a routing header that is used up goes to the stack",
            with(client, dns, 0, 0),
        )
        .passes(),
        Case::from_endpoint(
            NET1,
            "a routing header of another type goes to the stack",
            with(client, dns, 2, 1),
        )
        .passes(),
    ]
}
