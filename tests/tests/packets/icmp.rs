//! ICMP errors: those about packets of flows are translated, outside and inside, and leave the flows as they are; what is
//! dropped is answered with one, if a router would.

use std::net::{IpAddr, SocketAddr};

use bytemuck::Zeroable as _;
use vnet_common::{
    Addr, CtState, DropReason, EndpointUse, Hook, Mac, NetworkValue, PortMapValue, PortRange, Proto,
    UplinkValue, Zone,
};
use vnet_datapath::model::Model;
use vnet_tests::case::world::{
    Family, HOST_MAC, MTU, NET1, NET2, PEER_MAC, UPLINK, V4, V6, at, now, published, world,
};
use vnet_tests::case::{Case, Flow};
use vnet_tests::frame::{BROADCAST_MAC, DESTINATION_OPTIONS, Frame, HOP_BY_HOP, IcmpError, ROUTING};
use vnet_tests::runner::{Arrival, Fate, Kernel, Runner as _, Stage};

use super::for_both_families;
use super::masquerade::echo;

pub(super) fn cases() -> Vec<Case> {
    let subjects: [fn(&Family) -> Vec<Case>; 12] = [
        from_the_world,
        from_endpoints,
        between_endpoints,
        through_the_stack,
        quotes,
        cut_short,
        unrelated,
        flows_stay_as_they_are,
        answered_to_the_world,
        answered_to_endpoints,
        quoted_by_answers,
        not_answered,
    ];
    let mut cases: Vec<Case> = subjects.into_iter().flat_map(for_both_families).collect();
    cases.extend(ipv4_quotes());
    cases.extend(ipv6_quotes());
    cases
}

/// Type and code.
type Kind = (u8, u8);

/// Every error of a family that is translated.
fn kinds(f: &Family) -> Vec<Kind> {
    if f.net1.is_ipv4() {
        (0..=15).map(|code| (3, code)).chain([(11, 0), (11, 1), (12, 0), (12, 1), (12, 2)]).collect()
    } else {
        let unreachable = (0..=7).map(|code| (1, code));
        unreachable.chain([(2, 0), (3, 0), (3, 1), (4, 0), (4, 1), (4, 2)]).collect()
    }
}

/// "Port unreachable" of a family.
const fn port_unreachable(f: &Family) -> Kind {
    if f.net1.is_ipv4() { (3, 3) } else { (1, 4) }
}

/// Bytes of a network header without options, which come before the transport header.
const fn network(f: &Family) -> usize {
    if f.net1.is_ipv4() { 20 } else { 40 }
}

/// An error about a packet.
fn error((from, to): (IpAddr, IpAddr), (kind, code): Kind, quote: &[u8]) -> Frame {
    Frame::icmp(from, to, kind, code).payload(quote)
}

/// A masqueraded flow, a packet of it as it was sent, and as it was seen in the world.
struct Masqueraded {
    flow: Flow,
    sent: Frame,
    seen: Frame,
}

/// An endpoint's flows to the world, each from another port there than its own.
fn masqueraded(f: &Family) -> Vec<(&'static str, Masqueraded)> {
    let (own, seen, www) = (at(f.net1, 1_234), at(f.host, 60_000), at(f.www, 53));
    let of = |proto, frame: fn(SocketAddr, SocketAddr) -> Frame| {
        let flow = Flow::masqueraded(proto, own, www, 60_000).established();
        Masqueraded { flow, sent: frame(own, www), seen: frame(seen, www) }
    };
    let ping = |from, id| Frame::echo_request(from, f.www, id, 3).payload(b"ping");
    // The checksum of SCTP covers no address; its port stays.
    let sctp =
        |from| Frame::protocol(from, f.www, 132).payload(b"\xea\x60\x00\x35\x01\x02\x03\x04\x05\x06\x07\x08");
    vec![
        ("UDP", of(Proto::UDP, |from, to| Frame::udp(from, to).payload(b"odd"))),
        ("UDP without a checksum", of(Proto::UDP, |from, to| Frame::udp(from, to).zero_udp_checksum())),
        ("TCP", of(Proto::TCP, |from, to| Frame::tcp(from, to).syn().tcp_options(&[2, 4, 5, 0xb4]))),
        (
            "a ping",
            Masqueraded {
                flow: Flow::masqueraded(echo(f), at(f.net1, 7), at(f.www, 7), 60_000).established(),
                sent: ping(f.net1, 7),
                seen: ping(f.host, 60_000),
            },
        ),
        (
            "SCTP",
            Masqueraded {
                flow: Flow::masqueraded(Proto::SCTP, at(f.net1, 60_000), www, 60_000).established(),
                sent: sctp(f.net1),
                seen: sctp(f.host),
            },
        ),
    ]
}

fn from_the_world(f: &Family) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, Masqueraded { flow, sent, seen }) in masqueraded(f) {
        // A router on the way, or the receiver; with all of the packet, or with as little as there may be.
        for (length, words) in [(usize::MAX, "all of it"), (network(f) + 8, "eight bytes of it")] {
            let quote = |frame: &Frame| {
                let mut bytes = frame.network_bytes();
                bytes.truncate(length);
                bytes
            };
            for kind in kinds(f) {
                let (ty, code) = kind;
                for (who, from) in [("a router", f.peer), ("the receiver", f.www)] {
                    cases.push(
                        Case::from_uplink(
                            &format!(
                                "{who}'s error {ty}/{code} about {name}, quoting {words}, reaches the sender"
                            ),
                            error((from, f.host), kind, &quote(&seen)).icmp_rest([0, 0, 5, 0x14]),
                        )
                        .tracked([flow])
                        .delivered(
                            NET1,
                            error((from, f.net1), kind, &quote(&sent)).icmp_rest([0, 0, 5, 0x14]),
                        )
                        .uncounted(),
                    );
                }
            }
        }
    }
    let (client, public, server) = (at(f.www, 9), at(f.host, 8088), at(f.net1, 80));
    let flow = Flow::published(Proto::TCP, client, public, server).by(1).established();
    cases.push(
        Case::from_uplink(
            "an error about an answer from a published port reaches the server",
            error(
                (f.peer, f.host),
                port_unreachable(f),
                &Frame::tcp(public, client).syn().ack().network_bytes(),
            ),
        )
        .tracked([flow])
        .delivered(
            NET1,
            error(
                (f.peer, f.net1),
                port_unreachable(f),
                &Frame::tcp(server, client).syn().ack().network_bytes(),
            ),
        )
        .uncounted(),
    );
    cases
}

/// A flow to a published port, a packet of it as it was received, and as it was sent.
fn to_published(f: &Family) -> (Flow, Frame, Frame) {
    let (client, public, server) = (at(f.www, 9), at(f.host, 5353), at(f.net2, 53));
    let flow = Flow::published(Proto::UDP, client, public, server).by(2);
    let frame = |to| Frame::udp(client, to).payload(b"query");
    (flow, frame(server), frame(public))
}

fn from_endpoints(f: &Family) -> Vec<Case> {
    let (flow, received, sent) = to_published(f);
    let mut cases: Vec<Case> = kinds(f)
        .into_iter()
        .map(|kind| {
            let (ty, code) = kind;
            Case::from_endpoint(
                NET2,
                &format!("an endpoint's error {ty}/{code} about a packet to its published port leaves as the host's"),
                error((f.net2, f.www), kind, &received.network_bytes()),
            )
            .tracked([flow])
            .forwarded(error((f.host, f.www), kind, &sent.network_bytes()))
            .uncounted()
        })
        .collect();
    // An endpoint complains of answers, too: its socket may be gone.
    for (name, Masqueraded { flow, .. }) in masqueraded(f).into_iter().take(1) {
        let (www, seen, own) = (at(f.www, 53), at(f.host, 60_000), at(f.net1, 1_234));
        let (received, sent) = (Frame::udp(www, own), Frame::udp(www, seen));
        cases.push(
            Case::from_endpoint(
                NET1,
                &format!("an endpoint's error about an answer of {name} leaves as the host's"),
                error((f.net1, f.www), port_unreachable(f), &received.network_bytes()),
            )
            .tracked([flow])
            .forwarded(error((f.host, f.www), port_unreachable(f), &sent.network_bytes()))
            .uncounted(),
        );
    }
    cases.push(
        Case::from_endpoint(
            NET2,
            "an endpoint's error with its last hop goes to the stack",
            error((f.net2, f.www), port_unreachable(f), &received.network_bytes()).ttl(1),
        )
        .tracked([flow])
        .passes(),
    );
    cases
}

fn between_endpoints(f: &Family) -> Vec<Case> {
    let (client, public, server) = (at(f.net2, 50_000), at(f.host, 8088), at(f.net1, 80));
    let flow = Flow::hairpin(Proto::TCP, client, public, (server, 50_500)).by(1);
    let as_seen = at(f.host, 50_500);
    let own = Flow::hairpin(Proto::TCP, at(f.net1, 50_000), public, (server, 50_501)).by(1);
    let kind = port_unreachable(f);
    vec![
        Case::from_endpoint(
            NET1,
            "a server's error about a hairpin packet reaches the client, as from what it dialled",
            error((f.net1, f.host), kind, &Frame::tcp(as_seen, server).syn().network_bytes()),
        )
        .tracked([flow])
        .delivered(NET2, error((f.host, f.net2), kind, &Frame::tcp(client, public).syn().network_bytes()))
        .uncounted(),
        Case::from_endpoint(
            NET2,
            "a client's error about a hairpin answer reaches the server, as from what that saw",
            error((f.net2, f.host), kind, &Frame::tcp(public, client).syn().ack().network_bytes()),
        )
        .tracked([flow])
        .delivered(
            NET1,
            error((f.host, f.net1), kind, &Frame::tcp(server, as_seen).syn().ack().network_bytes()),
        )
        .uncounted(),
        Case::from_endpoint(
            NET1,
            "an endpoint that dials itself hears of its own errors",
            error((f.net1, f.host), kind, &Frame::tcp(at(f.host, 50_501), server).syn().network_bytes()),
        )
        .tracked([own])
        .delivered(
            NET1,
            error((f.host, f.net1), kind, &Frame::tcp(at(f.net1, 50_000), public).syn().network_bytes()),
        )
        .uncounted(),
        Case::from_endpoint(
            NET1,
            "a hairpin error with no hop left is dropped",
            error((f.net1, f.host), kind, &Frame::tcp(as_seen, server).syn().network_bytes()).ttl(1),
        )
        .tracked([flow])
        .dropped(DropReason::HopLimit),
    ]
}

fn through_the_stack(f: &Family) -> Vec<Case> {
    let (flow, received, sent) = to_published(f);
    let kind = port_unreachable(f);
    let inside = Flow::hairpin(Proto::TCP, at(f.net2, 50_000), at(f.host, 8088), (at(f.net1, 80), 50_500));
    let hairpin = Frame::tcp(at(f.host, 50_500), at(f.net1, 80)).syn();
    vec![
        Case::to_uplink(
            "an endpoint's error that the stack forwards leaves as the host's",
            error((f.net2, f.www), kind, &received.network_bytes()).ttl(7),
        )
        .tracked([flow])
        .passes_as(error((f.host, f.www), kind, &sent.network_bytes()).ttl(7))
        .uncounted(),
        Case::to_uplink(
            "an endpoint's error about no flow does not leave through the stack",
            error((f.net2, f.www), kind, &received.network_bytes()),
        )
        .dropped(DropReason::Unrelated),
        Case::to_uplink(
            "an endpoint's error about a flow between endpoints does not leave through the stack",
            error((f.net1, f.host), kind, &hairpin.network_bytes()),
        )
        .tracked([inside])
        .dropped(DropReason::Untranslatable),
    ]
}

/// An error of the world about a packet of a masqueraded flow, with quotes that are not simply the packet.
fn quoting(f: &Family, name: &str, change: impl Fn(&Masqueraded) -> (Vec<u8>, Vec<u8>)) -> Vec<Case> {
    masqueraded(f)
        .into_iter()
        .map(|(of, flow)| {
            let (seen, sent) = change(&flow);
            Case::from_uplink(
                &format!("an error about {of} that quotes {name} reaches the sender"),
                error((f.peer, f.host), port_unreachable(f), &seen),
            )
            .tracked([flow.flow])
            .delivered(NET1, error((f.peer, f.net1), port_unreachable(f), &sent))
            .uncounted()
        })
        .collect()
}

fn quotes(f: &Family) -> Vec<Case> {
    let routed = |frame: &Frame| frame.clone().ttl(1).traffic_class(0x28).network_bytes();
    let mut cases = quoting(f, "a packet with its last hop", |flow| (routed(&flow.seen), routed(&flow.sent)));
    // Of a checksum that had been wrong before, what is translated is wrong as well; nobody looks (RFC 5508 REQ-3c).
    let padded = |frame: &Frame| [frame.network_bytes(), vec![0; 9]].concat();
    cases.extend(quoting(f, "more than the packet", |flow| (padded(&flow.seen), padded(&flow.sent))));
    let extended = |frame: &Frame| {
        let mut bytes = frame.network_bytes();
        bytes.resize(128, 0);
        // RFC 4884 section 7: version, checksum of no interest here, an MPLS label stack of one entry.
        bytes.extend([0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0x10, 0x01, 0x01]);
        bytes
    };
    let length = if f.net1.is_ipv4() { [0, 128 / 4, 0, 0] } else { [128 / 8, 0, 0, 0] };
    for (name, Masqueraded { flow, sent, seen }) in masqueraded(f) {
        let kind = if f.net1.is_ipv4() { (11, 0) } else { (3, 0) };
        cases.push(
            Case::from_uplink(
                &format!("an error about {name} keeps its extensions"),
                error((f.peer, f.host), kind, &extended(&seen)).icmp_rest(length),
            )
            .tracked([flow])
            .delivered(NET1, error((f.peer, f.net1), kind, &extended(&sent)).icmp_rest(length))
            .uncounted(),
        );
    }
    cases.extend(extensions_behind_a_short_quote(f));
    cases.extend(fragments(f));
    cases
}

/// Where the TCP checksum would stand there is an extension, which nobody may touch.
fn extensions_behind_a_short_quote(f: &Family) -> Vec<Case> {
    let short = |frame: &Frame| {
        let mut bytes = frame.network_bytes();
        bytes.truncate(network(f) + 8);
        bytes.extend([
            0x20, 0, 0, 0, 0, 16, 1, 1, 0, 0x10, 0x01, 0x01, 0, 0x10, 0x02, 0x01, 0, 0x10, 0x03, 0x01,
        ]);
        bytes
    };
    let length = if f.net1.is_ipv4() { [0, 28 / 4, 0, 0] } else { [48 / 8, 0, 0, 0] };
    let kind = if f.net1.is_ipv4() { (11, 0) } else { (3, 0) };
    masqueraded(f)
        .into_iter()
        .filter(|(name, _)| *name == "TCP")
        .map(|(_, Masqueraded { flow, sent, seen })| {
            Case::from_uplink(
                "extensions behind eight bytes of TCP are not taken for its checksum",
                error((f.peer, f.host), kind, &short(&seen)).icmp_rest(length),
            )
            .tracked([flow])
            .delivered(NET1, error((f.peer, f.net1), kind, &short(&sent)).icmp_rest(length))
            .uncounted()
        })
        .collect()
}

fn fragments(f: &Family) -> Vec<Case> {
    let (own, seen, www) = (at(f.net1, 1_234), at(f.host, 60_000), at(f.www, 53));
    let flow = Flow::masqueraded(Proto::UDP, own, www, 60_000).established();
    let piece = |from, n: usize| Frame::udp(from, www).payload(&[1; 64]).fragments(40)[n][14..].to_vec();
    // Reassembly took too long: what came of the datagram is quoted.
    let kind = if f.net1.is_ipv4() { (11, 1) } else { (3, 1) };
    let (flow_in, ..) = to_published(f);
    let later = Frame::udp(at(f.www, 9), at(f.net2, 53)).payload(&[1; 64]).fragments(40)[1][14..].to_vec();
    vec![
        Case::from_uplink(
            "an error that quotes a first fragment reaches the sender",
            error((f.peer, f.host), kind, &piece(seen, 0)),
        )
        .tracked([flow])
        .delivered(NET1, error((f.peer, f.net1), kind, &piece(own, 0)))
        .uncounted(),
        Case::from_uplink(
            "an error that quotes a later fragment, which has no ports, passes",
            error((f.peer, f.host), kind, &piece(seen, 1)),
        )
        .tracked([flow])
        .passes(),
        Case::from_endpoint(
            NET2,
            "an endpoint's error that quotes a later fragment does not leave",
            error((f.net2, f.www), kind, &later),
        )
        .tracked([flow_in])
        .dropped(DropReason::Unrelated),
    ]
}

/// Quotes of every length that is too short.
fn cut_short(f: &Family) -> Vec<Case> {
    let mut cases = Vec::new();
    let (flow_in, received, _) = to_published(f);
    for (name, Masqueraded { flow, seen, .. }) in masqueraded(f) {
        for length in 0..network(f) + 8 {
            cases.push(
                Case::from_uplink(
                    &format!("an error that quotes {length} bytes of {name} passes"),
                    error((f.peer, f.host), port_unreachable(f), &seen.network_bytes()[..length]),
                )
                .tracked([flow])
                .passes(),
            );
        }
    }
    for length in 0..network(f) + 8 {
        cases.push(
            Case::from_endpoint(
                NET2,
                &format!("an endpoint's error that quotes {length} bytes does not leave"),
                error((f.net2, f.www), port_unreachable(f), &received.network_bytes()[..length]),
            )
            .tracked([flow_in])
            .dropped(DropReason::Unrelated),
        );
    }
    cases
}

fn unrelated(f: &Family) -> Vec<Case> {
    let (flow, received, sent) = to_published(f);
    let kind = port_unreachable(f);
    let (own, seen, www) = (at(f.net1, 1_234), at(f.host, 60_000), at(f.www, 53));
    let out = Flow::masqueraded(Proto::UDP, own, www, 60_000).established();
    let about = |from, to| Frame::udp(from, to).network_bytes();
    let redirect = if f.net1.is_ipv4() { (5, 1) } else { (137, 0) };
    let unheard_of = if f.net1.is_ipv4() { (4, 0) } else { (100, 0) };
    vec![
        Case::from_uplink(
            "an error about a packet of the host's own passes",
            error((f.peer, f.host), kind, &about(at(f.host, 1_234), www)),
        )
        .tracked([out])
        .passes(),
        Case::from_uplink(
            "an error to another address than the packet's sender passes",
            error((f.peer, f.stray_host), kind, &about(seen, www)),
        )
        .tracked([out])
        .passes(),
        Case::from_uplink(
            "an error about what an endpoint received, from the other side, passes",
            error((f.peer, f.host), kind, &about(www, seen)),
        )
        .tracked([out])
        .passes(),
        Case::from_uplink(
            "an error to an endpoint's own address is dropped",
            error((f.peer, f.net1), kind, &about(own, www)),
        )
        .tracked([out])
        .dropped(DropReason::DirectAccess),
        Case::from_uplink(
            "a redirect passes, whatever it quotes",
            error((f.peer, f.host), redirect, &about(seen, www)),
        )
        .tracked([out])
        .passes(),
        Case::from_uplink(
            "an error that nobody has heard of passes",
            error((f.peer, f.host), unheard_of, &about(seen, www)),
        )
        .tracked([out])
        .passes(),
        Case::from_uplink(
            "an error about an expired flow passes, and the flow is gone",
            error((f.peer, f.host), kind, &about(seen, www)),
        )
        .tracked([out.aged(31)])
        .passes()
        .leaves([]),
        Case::from_endpoint(
            NET2,
            "an endpoint's error about no flow does not leave",
            error((f.net2, f.www), kind, &received.network_bytes()),
        )
        .dropped(DropReason::Unrelated),
        Case::from_endpoint(
            NET1,
            "an endpoint's error about a packet that its neighbour received does not leave",
            error((f.net1, f.www), kind, &received.network_bytes()),
        )
        .tracked([flow])
        .dropped(DropReason::Unrelated),
        Case::from_endpoint(
            NET2,
            "an endpoint's error to somebody else than the packet's sender does not leave",
            error((f.net2, f.peer), kind, &received.network_bytes()),
        )
        .tracked([flow])
        .dropped(DropReason::Unrelated),
        Case::from_endpoint(
            NET2,
            "an endpoint's error about a packet before translation does not leave",
            error((f.net2, f.www), kind, &sent.network_bytes()),
        )
        .tracked([flow])
        .dropped(DropReason::Unrelated),
        Case::from_endpoint(
            NET1,
            "an endpoint's error about a packet of the host reaches it",
            error((f.net1, f.gateway), kind, &about(at(f.gateway, 40_000), at(f.net1, 80))),
        )
        .passes(),
        Case::from_endpoint(
            NET1,
            "an endpoint's error to its neighbour is switched",
            error((f.net1, f.net2), kind, &about(at(f.net2, 40_000), at(f.net1, 80)))
                .macs(NET1.mac, NET2.mac),
        )
        .link(
            error((f.net1, f.net2), kind, &about(at(f.net2, 40_000), at(f.net1, 80)))
                .macs(NET1.mac, NET2.mac),
        )
        .switched(NET2),
        Case::from_endpoint(
            NET2,
            "an endpoint's error to another network does not arrive",
            error((f.net2, f.net3), kind, &about(at(f.net3, 1), at(f.net2, 80))),
        )
        .dropped(DropReason::OtherNetwork),
        Case::from_uplink(
            "an error too large for the endpoint is dropped",
            error(
                (f.peer, f.host),
                kind,
                &Frame::udp(seen, www).payload(&vec![1; usize::from(MTU)]).network_bytes(),
            ),
        )
        .tracked([out])
        .dropped(DropReason::TooBig),
        Case::from_uplink(
            "an error with no hop left is dropped",
            error((f.peer, f.host), kind, &about(seen, www)).ttl(1),
        )
        .tracked([out])
        .dropped(DropReason::HopLimit),
    ]
}

/// RFC 4787 REQ-12, RFC 5382 REQ-10, RFC 5508 REQ-6: neither ended, nor refreshed, nor confirmed.
fn flows_stay_as_they_are(f: &Family) -> Vec<Case> {
    let (own, seen, www) = (at(f.net1, 1_234), at(f.host, 60_000), at(f.www, 80));
    let flow = Flow::masqueraded(Proto::TCP, own, www, 60_000).aged(12);
    let quote = |from| Frame::tcp(from, www).syn().network_bytes();
    let kind = port_unreachable(f);
    CtState::ALL
        .into_iter()
        .map(|state| {
            Case::from_uplink(
                &format!("an error about a flow that is {} leaves it so", state.name()),
                error((f.peer, f.host), kind, &quote(seen)),
            )
            .tracked([flow.in_state(state)])
            .delivered(NET1, error((f.peer, f.net1), kind, &quote(own)))
            .uncounted()
            .leaves([flow.in_state(state)])
        })
        .collect()
}

/// An endpoint's MTU that is smaller than the uplink's.
const NARROW: u16 = 1300;

fn narrow(model: &mut Model) {
    model.endpoints.values_mut().for_each(|endpoint| endpoint.mtu = NARROW);
}

fn sized(f: &Family, from: SocketAddr, to: SocketAddr, size: u16) -> Frame {
    Frame::udp(from, to).payload(&vec![1; usize::from(size) - network(f) - 8])
}

fn answered_to_the_world(f: &Family) -> Vec<Case> {
    let (client, public, server) = (at(f.www, 9), at(f.host, published::DNS.port), at(f.net2, 53));
    let flow = Flow::published(Proto::UDP, client, public, server).by(2);
    let (own, seen, dns) = (at(f.net1, 1_234), at(f.host, 60_000), at(f.www, 53));
    let out = Flow::masqueraded(Proto::UDP, own, dns, 60_000).established();
    let too_big = IcmpError::TooBig { mtu: NARROW };
    let routed = |model: &mut Model| {
        model.networks.values_mut().for_each(|network| network.flags |= NetworkValue::FLAG_ROUTED);
        narrow(model);
    };
    let open = Flow::published(echo(f), at(f.www, 7), at(f.net1, 7), at(f.net1, 7)).established();
    vec![
        Case::from_uplink("a client whose datagram just fits is let in", sized(f, client, public, NARROW))
            .given(narrow)
            .delivered(NET2, sized(f, client, server, NARROW))
            .leaves([flow.just_seen()]),
        Case::from_uplink("a client is told what fits the endpoint", sized(f, client, public, NARROW + 1))
            .given(narrow)
            .refused(DropReason::TooBig, too_big),
        Case::from_uplink("so is a client whose flow is tracked", sized(f, client, public, NARROW + 1))
            .given(narrow)
            .tracked([flow])
            .refused(DropReason::TooBig, too_big),
        Case::from_uplink(
            "a server is told what fits the endpoint that it answers",
            sized(f, dns, seen, MTU),
        )
        .given(narrow)
        .tracked([out])
        .refused(DropReason::TooBig, too_big),
        Case::from_uplink(
            "a server whose answer has no hop left is told",
            Frame::echo_reply(f.www, f.host, 60_000, 1).ttl(1),
        )
        .tracked([Flow::masqueraded(echo(f), at(f.net1, 7), at(f.www, 7), 60_000)])
        .refused(DropReason::HopLimit, IcmpError::TimeExceeded),
        Case::from_uplink(
            "of a routed endpoint's MTU it is told by the host's address",
            Frame::echo_request(f.www, f.net1, 7, 1).payload(&vec![1; usize::from(NARROW)]),
        )
        .given(routed)
        .tracked([open])
        .refused(DropReason::TooBig, too_big)
        .answered_by(f.host),
    ]
}

fn answered_to_endpoints(f: &Family) -> Vec<Case> {
    let (client, dns) = (at(f.net1, 50_000), at(f.www, 53));
    let (neighbour, public, server) = (at(f.net1, 50_000), at(f.host, published::DNS.port), at(f.net2, 53));
    let inside = Flow::hairpin(Proto::UDP, neighbour, public, (server, 50_500)).by(2);
    let too_many = |model: &mut Model| {
        model.config.endpoint_flows = 5;
        let used = EndpointUse { flows: 5, credit: 100, credited: model.clock, ..EndpointUse::zeroed() };
        model.endpoint_use.borrow_mut().insert(NET1.ifindex, used);
    };
    let sends = |name: &str| Case::from_endpoint(NET1, name, Frame::udp(client, dns).payload(b"?"));
    vec![
        sends("an endpoint with too many flows is told that it may have no more")
            .given(too_many)
            .refused(DropReason::Quota, IcmpError::Prohibited),
        sends("an endpoint is told that there is no room for its flow")
            .tracked([Flow::masqueraded(Proto::UDP, at(f.net2, 50_000), dns, 50_000).aged(1)])
            .given(|model| model.config.nat_ports = PortRange { first: 50_000, last: 50_000 })
            .refused(DropReason::NoFreePort, IcmpError::Prohibited),
        sends("an endpoint is told that no uplink has an address of the family")
            .given(|model| {
                let uplink = UplinkValue { v4: Addr::ANY_V4, v6: Addr::ANY_V6 };
                model.uplinks.insert(UPLINK, uplink);
                model.routes.iter_mut().for_each(|route| route.source = Addr::ANY_V6);
            })
            .on_host_only()
            .refused(DropReason::NoSourceAddress, IcmpError::NetworkUnreachable),
        Case::from_endpoint(
            NET1,
            "an endpoint is told what fits a neighbour's published port",
            sized(f, neighbour, public, NARROW + 1),
        )
        .given(narrow)
        .refused(DropReason::TooBig, IcmpError::TooBig { mtu: NARROW }),
        Case::from_endpoint(
            NET2,
            "an endpoint is told what fits the neighbour that it answers",
            sized(f, server, at(f.host, 50_500), NARROW + 1),
        )
        .given(narrow)
        .tracked([inside])
        .refused(DropReason::TooBig, IcmpError::TooBig { mtu: NARROW }),
        Case::to_uplink(
            "an endpoint with too many flows is told even if the stack forwards what it sends",
            Frame::udp(client, dns).payload(b"?"),
        )
        .given(too_many)
        .refused(DropReason::Quota, IcmpError::Prohibited),
    ]
}

/// As much as there is, and not more than is sensible.
fn quoted_by_answers(f: &Family) -> Vec<Case> {
    let (client, public) = (at(f.www, 9), at(f.host, published::WEB.port));
    let most = if f.net1.is_ipv4() { 548 } else { 1232 };
    let headers = network(f) + 20;
    let with = |payload: usize| Frame::tcp(client, public).syn().payload(&vec![0xa5; payload]).ttl(1);
    let mut cases: Vec<Case> = [0, 1, 2, 3, most - headers - 1, most - headers, most - headers + 1, 1400]
        .into_iter()
        .map(|payload| {
            Case::from_uplink(
                &format!("of a packet with {payload} bytes of payload as much is quoted as there may be"),
                with(payload),
            )
            .refused(DropReason::HopLimit, IcmpError::TimeExceeded)
        })
        .collect();
    cases.extend([
        Case::from_uplink("what only fills up the frame is not quoted", with(1).trailer(&[0xff; 20]))
            .refused(DropReason::HopLimit, IcmpError::TimeExceeded),
        Case::from_uplink("of an aggregate the beginning is quoted", with(3000))
            .in_segments_of(1000)
            .refused(DropReason::HopLimit, IcmpError::TimeExceeded),
    ]);
    cases
}

/// RFC 1812 section 4.3.2.7.
fn not_answered(f: &Family) -> Vec<Case> {
    let (client, public) = (at(f.www, 9), at(f.host, published::WEB.port));
    let syn = || Frame::tcp(client, public).syn().ttl(1);
    let tracked = |client, dialled| Flow::published(Proto::TCP, client, dialled, at(f.net1, 80)).by(1);
    vec![
        Case::from_uplink("more errors than there may be in a second are not sent", syn())
            .given(|model| model.config.icmp_errors = 0)
            .dropped(DropReason::HopLimit),
        Case::from_uplink("what came to everybody on the link is not answered", syn())
            .link(syn().macs(PEER_MAC, BROADCAST_MAC))
            .dropped(DropReason::HopLimit),
        Case::from_uplink("what came to many on the link is not answered", syn())
            .link(syn().macs(PEER_MAC, Mac::new([0x33, 0x33, 0, 0, 0, 1])))
            .dropped(DropReason::HopLimit),
        Case::from_uplink(
            "an address of the host's own is not answered",
            Frame::tcp(at(f.stray_host, 9), public).syn().ttl(1),
        )
        .tracked([tracked(at(f.stray_host, 9), public)])
        .dropped(DropReason::HopLimit),
        Case::from_uplink(
            "a loopback address is not answered",
            Frame::tcp(at(f.loopback, 9), public).syn().ttl(1),
        )
        .dropped(DropReason::HopLimit),
        Case::from_uplink("many are not answered", Frame::tcp(at(f.multicast, 9), public).syn().ttl(1))
            .dropped(DropReason::HopLimit),
        Case::from_uplink(
            "an endpoint's address in the world is not answered",
            Frame::tcp(at(f.net2, 9), public).ttl(1),
        )
        .tracked([tracked(at(f.net2, 9), public).in_zone(Zone::WORLD)])
        .dropped(DropReason::HopLimit),
        Case::from_uplink("who may not use a mapping is told nothing", Frame::tcp(client, public).syn())
            .given(|model| {
                model
                    .port_map
                    .values_mut()
                    .for_each(|mapping| mapping.flags |= PortMapValue::FLAG_RESTRICTED);
            })
            .dropped(DropReason::NotAllowed),
        Case::from_uplink(
            "who addresses an endpoint directly is told nothing",
            Frame::tcp(client, at(f.net1, 80)).syn(),
        )
        .dropped(DropReason::DirectAccess),
        Case::from_endpoint(
            NET1,
            "who uses another's address is told nothing",
            Frame::tcp(at(f.net2, 50_000), at(f.www, 80)).syn(),
        )
        .given(|model| model.masquerade.clear())
        .dropped(DropReason::SourceAddress),
        Case::from_endpoint(
            NET1,
            "an endpoint without a gateway is told nothing",
            Frame::tcp(at(f.net1, 50_000), at(f.www, 80)).syn(),
        )
        .given(|model| {
            model.masquerade.clear();
            model.networks.values_mut().for_each(|network| network.gateway = Addr::ANY_V6);
        })
        .dropped(DropReason::NoMasquerade),
        Case::from_endpoint(
            NET1,
            "an endpoint's other protocols are dropped in silence",
            Frame::protocol(f.net1, f.net3, 47).payload(&[0; 20]),
        )
        .dropped(DropReason::OtherNetwork),
        Case::from_endpoint(
            NET1,
            "an endpoint's fragments are dropped in silence",
            Frame::udp(at(f.net1, 1), at(f.net3, 1)).payload(&[1; 16]).fragment(8, false),
        )
        .dropped(DropReason::OtherNetwork),
    ]
}

fn ipv4_quotes() -> Vec<Case> {
    let f = &V4;
    let mut cases = Vec::new();
    for words in 1..=10 {
        let options = vec![1; 4 * words];
        let with = |frame: &Frame| frame.clone().ip_options(&options).network_bytes();
        let name = format!("a header of {} words", 5 + words);
        cases.extend(quoting(f, &name, |flow| (with(&flow.seen), with(&flow.sent))));
    }
    let (own, seen, www) = (at(f.net1, 1_234), at(f.host, 60_000), at(f.www, 53));
    let flow = Flow::masqueraded(Proto::UDP, own, www, 60_000).established();
    let wrong = |frame: Frame| {
        let mut bytes = frame.network_bytes();
        bytes[10] ^= 1;
        bytes
    };
    let kind = port_unreachable(f);
    cases.extend([
        Case::from_uplink(
            "an error whose quote has a wrong header checksum is dropped",
            error((f.peer, f.host), kind, &wrong(Frame::udp(seen, www))),
        )
        .tracked([flow])
        .dropped(DropReason::Malformed),
        Case::from_uplink(
            "an error whose quote has options and a wrong header checksum is dropped",
            error((f.peer, f.host), kind, &wrong(Frame::udp(seen, www).ip_options(&[1; 40]))),
        )
        .tracked([flow])
        .dropped(DropReason::Malformed),
        Case::from_uplink(
            "an error about no flow passes, whatever its quote's checksum",
            error((f.peer, f.host), kind, &wrong(Frame::udp(seen, www))),
        )
        .passes(),
        {
            let (flow, received, _) = to_published(f);
            Case::from_endpoint(
                NET2,
                "an endpoint's error whose quote has a wrong header checksum is dropped",
                error((f.net2, f.www), kind, &wrong(received)),
            )
            .tracked([flow])
            .dropped(DropReason::Malformed)
        },
        Case::from_uplink(
            "an error that quotes IPv6 passes",
            error((f.peer, f.host), kind, &Frame::udp(at(V6.host, 60_000), at(V6.www, 53)).network_bytes()),
        )
        .tracked([flow])
        .passes(),
        Case::from_uplink(
            "an error with IP options is delivered with them",
            error((f.peer, f.host), kind, &Frame::udp(seen, www).network_bytes()).ip_options(&[1; 8]),
        )
        .tracked([flow])
        .delivered(
            NET1,
            error((f.peer, f.net1), kind, &Frame::udp(own, www).network_bytes()).ip_options(&[1; 8]),
        )
        .uncounted(),
    ]);
    cases.into_iter().map(|case| case.of_family(f)).collect()
}

fn ipv6_quotes() -> Vec<Case> {
    let f = &V6;
    let one = |frame: &Frame| frame.clone().ext_header(HOP_BY_HOP, &[1, 4, 0, 0, 0, 0]);
    let three =
        |frame: &Frame| one(frame).ext_header(ROUTING, &[0; 22]).ext_header(DESTINATION_OPTIONS, &[1; 14]);
    let four = |frame: &Frame| three(frame).ext_header(DESTINATION_OPTIONS, &[1; 6]);
    let mut cases = quoting(f, "an extension header", |flow| {
        (one(&flow.seen).network_bytes(), one(&flow.sent).network_bytes())
    });
    cases.extend(quoting(f, "three extension headers", |flow| {
        (three(&flow.seen).network_bytes(), three(&flow.sent).network_bytes())
    }));
    let (own, seen, www) = (at(f.net1, 1_234), at(f.host, 60_000), at(f.www, 53));
    let flow = Flow::masqueraded(Proto::UDP, own, www, 60_000).established();
    let kind = port_unreachable(f);
    cases.extend([
        Case::from_uplink(
            "an error that quotes four extension headers is not looked into",
            error((f.peer, f.host), kind, &four(&Frame::udp(seen, www)).network_bytes()),
        )
        .tracked([flow])
        .passes(),
        Case::from_uplink(
            "an error that quotes IPv4 passes",
            error((f.peer, f.host), kind, &Frame::udp(at(V4.host, 60_000), at(V4.www, 53)).network_bytes()),
        )
        .tracked([flow])
        .passes(),
        Case::from_uplink(
            "an error behind an extension header is delivered with it",
            one(&error((f.peer, f.host), kind, &Frame::udp(seen, www).network_bytes())),
        )
        .tracked([flow])
        .delivered(NET1, one(&error((f.peer, f.net1), kind, &Frame::udp(own, www).network_bytes())))
        .uncounted(),
    ]);
    cases.into_iter().map(|case| case.of_family(f)).collect()
}

#[test]
fn a_cpu_sends_so_many_errors_in_a_second_and_no_more() {
    const LIMIT: u32 = 10;
    Stage::run(|stage| {
        let mut kernel = Kernel::tc(stage);
        let mut model = world();
        model.config.icmp_errors = LIMIT;
        kernel.fill(&model);
        let last_hop = Frame::tcp(at(V4.www, 9), at(V4.host, published::WEB.port)).syn().ttl(1);
        let frame = last_hop.macs(PEER_MAC, HOST_MAC).build();
        let arrival = Arrival {
            hook: Hook::FromUplink,
            ifindex: UPLINK,
            came_in_by: 0,
            waited: false,
            segment: 0,
            frame: &frame,
        };
        let (begun, mut answered, mut dropped) = (now(), 0, 0);
        for _ in 0..20 * LIMIT {
            let outcome = kernel.run(&arrival).expect("a whole frame");
            dropped += u32::from(outcome.fate == Fate::Dropped(DropReason::HopLimit));
            answered += u32::from(outcome.answer.is_some());
        }
        // Each CPU that this ran on has a count of its own.
        let cpus = std::thread::available_parallelism().expect("a number of CPUs").get();
        let most = LIMIT * (now() - begun + 1) * u32::try_from(cpus).expect("few");
        assert_eq!(dropped, 20 * LIMIT, "counted as drops, answered or not");
        assert!((LIMIT..=most).contains(&answered), "{answered} answers, and {most} allowed");
    });
}
