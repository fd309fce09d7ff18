//! Endpoints and the world: their packets leave as the host's, and the answers find back.

use std::net::{IpAddr, SocketAddr};

use vnet_common::{
    Addr, CtState, DatapathConfig, DropReason, MasqueradeValue, NetworkValue, PortRange, Proto,
};
use vnet_datapath::model::Model;
use vnet_tests::case::world::{Family, NET1, NET3, STRAY, UPLINK, at, prefix, published, subnets};
use vnet_tests::case::{Case, Flow, SLACK, tuple};
use vnet_tests::frame::{Frame, IcmpError};

use super::for_both_families;

pub(super) fn cases() -> Vec<Case> {
    let subjects: [fn(&Family) -> Vec<Case>; 6] =
        [first_packets, later_packets, ports, scarce_ports, checksums, rules];
    subjects.into_iter().flat_map(for_both_families).collect()
}

pub(super) const fn echo(family: &Family) -> Proto {
    if family.net1.is_ipv4() { Proto::ICMP } else { Proto::ICMPV6 }
}

fn first_packets(f: &Family) -> Vec<Case> {
    let (client, web, dns) = (at(f.net1, 50_000), at(f.www, 80), at(f.www, 53));
    let seen = at(f.host, 50_000);
    let ping = |from: IpAddr| Frame::echo_request(from, f.www, 7, 1).payload(b"hello");
    vec![
        Case::from_endpoint(
            NET1,
            "an endpoint's first TCP packet leaves as the host's, from its own port",
            Frame::tcp(client, web).syn(),
        )
        .forwarded(Frame::tcp(seen, web).syn())
        .leaves([Flow::masqueraded(Proto::TCP, client, web, 50_000).just_seen()]),
        Case::from_endpoint(
            NET1,
            "an endpoint's first UDP packet leaves as the host's, from its own port",
            Frame::udp(client, dns).payload(b"who is it"),
        )
        .forwarded(Frame::udp(seen, dns).payload(b"who is it"))
        .leaves([Flow::masqueraded(Proto::UDP, client, dns, 50_000).just_seen()]),
        Case::from_endpoint(
            NET1,
            "an endpoint's ping leaves as the host's, with its own identifier",
            ping(f.net1),
        )
        .forwarded(ping(f.host))
        .leaves([Flow::masqueraded(echo(f), at(f.net1, 7), at(f.www, 7), 7).just_seen()]),
        Case::from_endpoint(
            NET3,
            "an endpoint of another network is masqueraded as well",
            Frame::udp(at(f.net3, 50_000), dns),
        )
        .forwarded(Frame::udp(seen, dns))
        .leaves([Flow::masqueraded(Proto::UDP, at(f.net3, 50_000), dns, 50_000).just_seen()]),
        Case::from_endpoint(
            NET1,
            "a packet to a neighbour of the host is handed to that neighbour",
            Frame::udp(client, at(f.peer, 53)),
        )
        .forwarded(Frame::udp(seen, at(f.peer, 53)))
        .by(UPLINK, f.peer)
        .leaves([Flow::masqueraded(Proto::UDP, client, at(f.peer, 53), 50_000).just_seen()]),
        Case::from_endpoint(
            NET1,
            "a first packet that is no SYN begins a flow too",
            Frame::tcp(client, web).ack().psh().payload(b"still there?"),
        )
        .forwarded(Frame::tcp(seen, web).ack().psh().payload(b"still there?"))
        .leaves([Flow::masqueraded(Proto::TCP, client, web, 50_000).just_seen()]),
        Case::from_endpoint(
            NET1,
            "a packet with padding behind it is counted without the padding",
            Frame::udp(client, dns).payload(b"x").trailer(&[0; 17]),
        )
        .forwarded(Frame::udp(seen, dns).payload(b"x").trailer(&[0; 17]))
        .leaves([Flow::masqueraded(Proto::UDP, client, dns, 50_000).just_seen()]),
        Case::from_endpoint(
            NET1,
            "traffic class and TCP options come through as they are",
            Frame::tcp(client, web).syn().traffic_class(0xb9).tcp_options(&[2, 4, 5, 0xb4, 4, 2]),
        )
        .forwarded(Frame::tcp(seen, web).syn().traffic_class(0xb9).tcp_options(&[2, 4, 5, 0xb4, 4, 2]))
        .leaves([Flow::masqueraded(Proto::TCP, client, web, 50_000).just_seen()]),
    ]
}

fn later_packets(f: &Family) -> Vec<Case> {
    let (client, web, dns) = (at(f.net1, 1234), at(f.www, 80), at(f.www, 53));
    let seen = at(f.host, 50_001);
    let tcp = Flow::masqueraded(Proto::TCP, client, web, 50_001);
    let udp = Flow::masqueraded(Proto::UDP, client, dns, 50_001);
    let ping = Flow::masqueraded(echo(f), at(f.net1, 7), at(f.www, 7), 50_001);
    vec![
        Case::from_endpoint(
            NET1,
            "a later TCP packet keeps the port of its flow",
            Frame::tcp(client, web).ack().payload(b"GET /"),
        )
        .tracked([tcp.established()])
        .forwarded(Frame::tcp(seen, web).ack().payload(b"GET /"))
        .leaves([tcp.established().just_seen()]),
        Case::from_uplink("a SYN-ACK finds back to the endpoint", Frame::tcp(web, seen).syn().ack())
            .tracked([tcp])
            .delivered(NET1, Frame::tcp(web, client).syn().ack())
            .leaves([tcp.established().just_seen()]),
        Case::from_uplink("a SYN answers a SYN: simultaneous open", Frame::tcp(web, seen).syn())
            .tracked([tcp])
            .delivered(NET1, Frame::tcp(web, client).syn())
            .leaves([tcp.established().just_seen()]),
        Case::from_uplink(
            "a UDP answer finds back to the endpoint",
            Frame::udp(dns, seen).payload(b"it is me"),
        )
        .tracked([udp])
        .delivered(NET1, Frame::udp(dns, client).payload(b"it is me"))
        .leaves([udp.established().just_seen()]),
        Case::from_uplink(
            "a ping's answer finds back with the identifier it knows",
            pong(f.www, f.host, 50_001),
        )
        .tracked([ping])
        .delivered(NET1, pong(f.www, f.net1, 7))
        .leaves([ping.established().just_seen()]),
        Case::from_endpoint(NET1, "a later ping keeps the identifier of its flow", request(f.net1, f.www, 7))
            .tracked([ping.established()])
            .forwarded(request(f.host, f.www, 50_001))
            .leaves([ping.established().just_seen()]),
        Case::from_uplink("an answer from another port is not ours", Frame::udp(at(f.www, 54), seen))
            .tracked([udp])
            .passes(),
        Case::from_uplink("an answer from another address is not ours", Frame::udp(at(f.peer, 53), seen))
            .tracked([udp])
            .passes(),
        Case::from_uplink("an answer of another protocol is not ours", Frame::tcp(dns, seen).ack())
            .tracked([udp])
            .passes(),
        Case::from_uplink(
            "a packet from the world with an endpoint's addresses does not match its flow",
            Frame::tcp(client, web).ack(),
        )
        .tracked([tcp])
        .passes(),
        Case::from_uplink("an answer for an endpoint that is gone is dropped", Frame::udp(dns, seen))
            .tracked([udp])
            .given(|model| model.endpoints.remove(&Addr::from(NET1.addrs[0])))
            .given(|model| model.endpoints.remove(&Addr::from(NET1.addrs[1])))
            .dropped(DropReason::NoSuchEndpoint),
        Case::from_uplink("an answer whose hops have run out is dropped", Frame::udp(dns, seen).ttl(1))
            .tracked([udp])
            .refused(DropReason::HopLimit, IcmpError::TimeExceeded),
        Case::from_uplink("an answer that arrives with no hop left is dropped", Frame::udp(dns, seen).ttl(0))
            .tracked([udp])
            .refused(DropReason::HopLimit, IcmpError::TimeExceeded),
        Case::from_uplink("an answer with two hops left arrives with one", Frame::udp(dns, seen).ttl(2))
            .tracked([udp])
            .delivered(NET1, Frame::udp(dns, client))
            .with_ttl(1)
            .leaves([udp.established().just_seen()]),
    ]
}

fn request(from: IpAddr, to: IpAddr, id: u16) -> Frame {
    Frame::echo_request(from, to, id, 3).payload(b"odd")
}

fn pong(from: IpAddr, to: IpAddr, id: u16) -> Frame {
    Frame::echo_reply(from, to, id, 3).payload(b"odd")
}

/// Makes `port` the only one that masquerade may use.
fn only(port: u16) -> impl FnOnce(&mut Model) {
    move |model| model.config.nat_ports = PortRange { first: port, last: port }
}

/// With no port left, one of a connection that is done goes to a new one, long before its time is up.
fn scarce_ports(f: &Family) -> Vec<Case> {
    use CtState::{AnswerClosed, Closing, Established, New, OpenerClosed, Reset};

    let (client, other, web) = (at(f.net1, 40_000), at(f.net2, 50_000), at(f.www, 80));
    let held = |state, age| Flow::masqueraded(Proto::TCP, other, web, 50_000).in_state(state).aged(age);
    let opens = |name: &str, held: Flow| {
        Case::from_endpoint(NET1, name, Frame::tcp(client, web).syn())
            .given(only(50_000))
            .given(|model| {
                let config = DatapathConfig::DEFAULT;
                model.config.tcp_established = config.tcp_established;
                model.config.tcp_opening = config.tcp_opening;
                model.config.tcp_closing = config.tcp_closing;
            })
            .tracked([held])
    };
    let granted =
        |name: &str, held: Flow| {
            opens(name, held)
                .forwarded(Frame::tcp(at(f.host, 50_000), web).syn())
                .leaves([Flow::masqueraded(Proto::TCP, client, web, 50_000).just_seen()])
        };
    let refused =
        |name: &str, held: Flow| opens(name, held).refused(DropReason::NoFreePort, IcmpError::Prohibited);
    let mut cases = vec![
        granted("the port of a connection that was reset is free after ten seconds", held(Reset, 11 + SLACK)),
        refused("it is not before", held(Reset, 10 - SLACK)),
        granted("the port of a closed connection is free after two minutes", held(Closing, 121 + SLACK)),
        refused("and not before", held(Closing, 120 - SLACK)),
    ];
    for state in [New, Established, OpenerClosed, AnswerClosed] {
        let name = format!("the port of a connection that is {state:?} stays its own");
        cases.push(refused(&name, held(state, 130)));
    }
    cases
}

fn ports(f: &Family) -> Vec<Case> {
    let (client, dns) = (at(f.net1, 50_000), at(f.www, 53));
    let other = at(f.net2, 50_000);
    let taken = Flow::masqueraded(Proto::UDP, other, dns, 50_000);
    let public = at(f.host, published::IN_NAT_RANGE.port);
    let of_published =
        Flow::published(Proto::UDP, dns, public, at(f.net3, published::IN_NAT_RANGE.target_port)).by(8);
    let moved = |proto: Proto, from: SocketAddr, given: Vec<Flow>| {
        let host = f.host;
        move |port: u16| {
            assert!(
                (49_152..=65_535).contains(&port) && port != from.port(),
                "{port} is taken or not in the range"
            );
            let frame = match proto {
                Proto::TCP => Frame::tcp(at(host, port), dns).syn(),
                _ => Frame::udp(at(host, port), dns),
            };
            let began = Flow::masqueraded(proto, from, dns, port).just_seen();
            (frame, given.iter().copied().chain([began]).collect())
        }
    };
    let outside = at(f.net1, 1234);
    let ping_taken = Flow::masqueraded(echo(f), at(f.net2, 7), at(f.www, 7), 7);
    vec![
        Case::from_endpoint(
            NET1,
            "a port outside the range of masquerade is moved into it",
            Frame::udp(outside, dns),
        )
        .given(only(60_000))
        .forwarded(Frame::udp(at(f.host, 60_000), dns))
        .leaves([Flow::masqueraded(Proto::UDP, outside, dns, 60_000).just_seen()]),
        Case::from_endpoint(NET1, "the first port of the range is kept", Frame::udp(at(f.net1, 49_152), dns))
            .forwarded(Frame::udp(at(f.host, 49_152), dns))
            .leaves([Flow::masqueraded(Proto::UDP, at(f.net1, 49_152), dns, 49_152).just_seen()]),
        Case::from_endpoint(NET1, "the last port of the range is kept", Frame::udp(at(f.net1, 65_535), dns))
            .forwarded(Frame::udp(at(f.host, 65_535), dns))
            .leaves([Flow::masqueraded(Proto::UDP, at(f.net1, 65_535), dns, 65_535).just_seen()]),
        Case::from_endpoint(
            NET1,
            "a port in use by another flow to the same server is moved",
            Frame::udp(client, dns),
        )
        .tracked([taken])
        .forwarded_from_a_drawn_port(moved(Proto::UDP, client, vec![taken])),
        Case::from_endpoint(
            NET1,
            "a port in use by another flow to another server is kept",
            Frame::udp(client, dns),
        )
        .tracked([Flow::masqueraded(Proto::UDP, other, at(f.peer, 53), 50_000)])
        .forwarded(Frame::udp(at(f.host, 50_000), dns))
        .leaves([
            Flow::masqueraded(Proto::UDP, other, at(f.peer, 53), 50_000),
            Flow::masqueraded(Proto::UDP, client, dns, 50_000).just_seen(),
        ]),
        Case::from_endpoint(
            NET1,
            "a port in use by a flow to a published port of the same number is moved",
            Frame::udp(at(f.net1, public.port()), dns),
        )
        .tracked([of_published])
        .forwarded_from_a_drawn_port(moved(
            Proto::UDP,
            at(f.net1, public.port()),
            vec![of_published],
        )),
        Case::from_endpoint(
            NET1,
            "a port that a UDP socket of the host uses is moved",
            Frame::udp(client, dns),
        )
        .host_socket(tuple(Proto::UDP, dns, at(f.host, 50_000)))
        .forwarded_from_a_drawn_port(moved(Proto::UDP, client, Vec::new())),
        Case::from_endpoint(
            NET1,
            "a port that a TCP socket of the host uses is moved",
            Frame::tcp(client, dns).syn(),
        )
        .host_socket(tuple(Proto::TCP, dns, at(f.host, 50_000)))
        .forwarded_from_a_drawn_port(moved(Proto::TCP, client, Vec::new())),
        Case::from_endpoint(
            NET1,
            "a port that a socket of another protocol uses is kept",
            Frame::udp(client, dns),
        )
        .host_socket(tuple(Proto::TCP, dns, at(f.host, 50_000)))
        .forwarded(Frame::udp(at(f.host, 50_000), dns))
        .leaves([Flow::masqueraded(Proto::UDP, client, dns, 50_000).just_seen()]),
        Case::from_endpoint(NET1, "with every port in use there is none left", Frame::udp(client, dns))
            .given(only(50_000))
            .tracked([taken])
            .refused(DropReason::NoFreePort, IcmpError::Prohibited),
        Case::from_endpoint(
            NET1,
            "with every port used by the host there is none left",
            Frame::udp(client, dns),
        )
        .given(only(50_000))
        .host_socket(tuple(Proto::UDP, dns, at(f.host, 50_000)))
        .refused(DropReason::NoFreePort, IcmpError::Prohibited),
        Case::from_endpoint(
            NET1,
            "a flow under an address that the host has no longer begins anew under the one it has",
            Frame::udp(client, dns),
        )
        .tracked([Flow::masqueraded(Proto::UDP, client, dns, 50_000)
            .seen_as(f.nobody)
            .routed()
            .established()])
        .forwarded(Frame::udp(at(f.host, 50_000), dns))
        .leaves([Flow::masqueraded(Proto::UDP, client, dns, 50_000).just_seen()]),
        Case::from_endpoint(
            NET1,
            "a flow under an address that a rule has chosen goes on, whoever has it",
            Frame::udp(client, dns),
        )
        .tracked([Flow::masqueraded(Proto::UDP, client, dns, 50_000).seen_as(f.nobody).established()])
        .forwarded(Frame::udp(at(f.nobody, 50_000), dns))
        .leaves([Flow::masqueraded(Proto::UDP, client, dns, 50_000)
            .seen_as(f.nobody)
            .established()
            .just_seen()]),
        Case::from_endpoint(NET1, "an identifier in use by another ping is moved", request(f.net1, f.www, 7))
            .given(only(60_000))
            .tracked([ping_taken])
            .forwarded(request(f.host, f.www, 60_000))
            .leaves([
                ping_taken,
                Flow::masqueraded(echo(f), at(f.net1, 7), at(f.www, 7), 60_000).just_seen(),
            ]),
    ]
}

fn checksums(f: &Family) -> Vec<Case> {
    let (client, dns, seen) = (at(f.net1, 50_000), at(f.www, 53), at(f.host, 50_000));
    let flow = Flow::masqueraded(Proto::UDP, client, dns, 50_000);
    // What makes the sum over the translated packet zero: that very sum, put into the payload.
    let leaving = Frame::udp(seen, dns).payload(&[0, 0]).build();
    let at_checksum = leaving.len() - 4;
    let payload = [leaving[at_checksum], leaving[at_checksum + 1]];
    assert_eq!(Frame::udp(seen, dns).payload(&payload).build()[at_checksum..at_checksum + 2], [0xff, 0xff]);
    vec![
        Case::from_endpoint(
            NET1,
            "UDP without a checksum stays without",
            Frame::udp(client, dns).zero_udp_checksum(),
        )
        .forwarded(Frame::udp(seen, dns).zero_udp_checksum())
        .leaves([flow.just_seen()]),
        Case::from_uplink(
            "a UDP answer without a checksum stays without",
            Frame::udp(dns, seen).zero_udp_checksum().payload(b"?"),
        )
        .tracked([flow])
        .delivered(NET1, Frame::udp(dns, client).zero_udp_checksum().payload(b"?"))
        .leaves([flow.established().just_seen()]),
        Case::from_endpoint(
            NET1,
            "a UDP checksum that comes out as zero leaves as all ones",
            Frame::udp(client, dns).payload(&payload),
        )
        .forwarded(Frame::udp(seen, dns).payload(&payload))
        .leaves([flow.just_seen()]),
        Case::from_endpoint(
            NET1,
            "a wrong checksum leaves as wrong as it was",
            Frame::udp(client, dns).payload(b"?").flip(at_checksum + 2),
        )
        .forwarded(Frame::udp(seen, dns).payload(b"?").flip(at_checksum + 2))
        .leaves([flow.just_seen()]),
    ]
}

fn rules(f: &Family) -> Vec<Case> {
    let (client, dns) = (at(f.net1, 50_000), at(f.www, 53));
    let packet = || Frame::udp(client, dns);
    let [subnet, _] = subnets(f);
    let narrower = prefix(f.net1, if f.net1.is_ipv4() { 32 } else { 128 });
    let to = f.peer;
    let masqueraded_as_peer = Flow::masqueraded(Proto::UDP, client, dns, 50_000).seen_as(to).just_seen();
    vec![
        Case::from_endpoint(NET1, "without a rule for its source a packet is dropped", packet())
            .given(move |model| model.masquerade.remove(&subnet))
            .refused(DropReason::NoMasquerade, IcmpError::Prohibited),
        Case::from_endpoint(NET1, "a rule may name the address to leave with", packet())
            .given(move |model| model.masquerade.insert(subnet, MasqueradeValue { to: to.into(), flags: 0 }))
            .forwarded(Frame::udp(at(to, 50_000), dns))
            .leaves([masqueraded_as_peer]),
        Case::from_endpoint(NET1, "of two rules the one for fewer addresses holds", packet())
            .given(move |model| {
                model.masquerade.insert(narrower, MasqueradeValue { to: to.into(), flags: 0 })
            })
            .forwarded(Frame::udp(at(to, 50_000), dns))
            .leaves([masqueraded_as_peer]),
        Case::from_endpoint(NET1, "an endpoint of an internal network does not reach the world", packet())
            .given(|model| flag(model, NetworkValue::FLAG_INTERNAL))
            .refused(DropReason::Internal, IcmpError::Prohibited),
        Case::from_endpoint(
            NET1,
            "a packet to where no uplink leads is dropped",
            Frame::udp(client, at(f.stray, 53)),
        )
        .refused(DropReason::NotAnUplink, IcmpError::Prohibited),
        Case::from_endpoint(
            NET1,
            "an interface that became an uplink is one",
            Frame::udp(client, at(f.stray, 53)),
        )
        .given(|model| {
            let uplink = model.uplinks[&UPLINK];
            model.uplinks.insert(STRAY, uplink);
        })
        .forwarded(Frame::udp(at(f.stray_host, 50_000), at(f.stray, 53)))
        .by(STRAY, f.stray)
        .leaves([Flow::masqueraded(Proto::UDP, client, at(f.stray, 53), 50_000)
            .seen_as(f.stray_host)
            .routed()
            .just_seen()]),
    ]
}

/// Gives the endpoints of network 1 a flag.
pub(super) fn flag(model: &mut Model, flag: u8) {
    for endpoint in model.endpoints.values_mut().filter(|endpoint| endpoint.zone == NET1.zone) {
        endpoint.flags |= flag;
    }
}
