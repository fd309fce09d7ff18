//! Endpoint-independent mappings: RFC 4787 and RFC 5382, requirement by requirement.

use std::net::SocketAddr;

use vnet_common::filtering::{ADDRESS, ADDRESS_AND_PORT, ENDPOINT_INDEPENDENT};
use vnet_common::mapping::{ENDPOINT_INDEPENDENT_TCP, ENDPOINT_INDEPENDENT_UDP};
use vnet_common::{
    Addr, CtState, DropReason, MasqueradeValue, Port, PortMapKey, PortMapValue, PortRange, Proto,
};
use vnet_datapath::model::Model;
use vnet_tests::case::world::{Family, NET1, NET2, NET3, at, published, subnets};
use vnet_tests::case::{Case, Flow, Mapped, SLACK, tuple};
use vnet_tests::frame::{Frame, IcmpError};

use super::for_both_families;
use super::masquerade::echo;

/// Seconds that a mapping of the world lives.
const LIFETIME: u32 = 30;
/// Seconds that one lives which has served nothing but questions to name servers.
const BRIEF: u32 = 12;
const UDP: Proto = Proto::UDP;

pub(super) fn cases() -> Vec<Case> {
    let subjects: [fn(&Family) -> Vec<Case>; 14] = [
        one_port,
        one_address,
        no_sharing,
        parity,
        refreshing,
        expiry,
        questions,
        filtering,
        hairpin,
        same_under_pressure,
        tcp,
        simultaneous_open,
        in_mid_stream,
        sctp,
    ];
    subjects.into_iter().flat_map(for_both_families).collect()
}

/// The mapping behaviour that networks have unless they are told otherwise.
pub(super) fn usual(model: &mut Model) {
    behave(model, ENDPOINT_INDEPENDENT_UDP, ADDRESS);
}

pub(super) fn behave(model: &mut Model, mapping: u8, filtering: u8) {
    for endpoint in model.endpoints.values_mut() {
        (endpoint.mapping, endpoint.filtering) = (mapping, filtering);
    }
}

fn range(first: u16, last: u16) -> impl FnOnce(&mut Model) {
    move |model| model.config.nat_ports = PortRange { first, last }
}

/// RFC 4787 REQ-1.
fn one_port(f: &Family) -> Vec<Case> {
    let (client, seen, server) = (at(f.net1, 1234), at(f.host, 60_000), at(f.www, 3478));
    let mapping = || Mapped::new(UDP, client, seen).sent_to(server);
    let flow = |to| Flow::masqueraded(UDP, client, to, 60_000).mapped();
    let used = || Mapped::new(UDP, client, seen).just_seen();
    let follows = |name: &str, to: SocketAddr, then: Mapped| {
        Case::from_endpoint(NET1, name, Frame::udp(client, to))
            .given(usual)
            .tracked([flow(server).established()])
            .mapped([mapping()])
            .forwarded(Frame::udp(seen, to))
            .leaves([flow(server).established(), flow(to).just_seen()])
            .leaves_mappings([then])
    };
    let kept = at(f.net1, 50_000);
    let (dialled, inner) = (at(f.gateway, published::DNS.port), at(f.net2, published::DNS.target_port));
    let by_gateway = at(f.gateway, 60_000);
    vec![
        Case::from_endpoint(
            NET1,
            "T4787-1: a socket's first datagram makes a mapping",
            Frame::udp(kept, server),
        )
        .given(usual)
        .forwarded(Frame::udp(at(f.host, 50_000), server))
        .leaves([Flow::masqueraded(UDP, kept, server, 50_000).mapped().just_seen()])
        .leaves_mappings([Mapped::new(UDP, kept, at(f.host, 50_000)).sent_to(server).just_seen()]),
        follows(
            "T4787-1: another port of the same server sees the same external port",
            at(f.www, 54),
            // What was sent there is noted by address, and the last of it stays.
            used().sent_to(at(f.www, 54)),
        ),
        follows(
            "T4787-1: another server sees the same external port",
            at(f.peer, 3478),
            used().sent_before_to(server).sent_to(at(f.peer, 3478)),
        ),
        Case::from_endpoint(
            NET1,
            "T4787-1: a neighbour's published port sees the same external port",
            Frame::udp(client, at(f.host, published::DNS.port)),
        )
        .given(usual)
        .mapped([mapping()])
        .delivered(NET2, Frame::udp(seen, inner))
        .leaves([Flow::hairpin(UDP, client, at(f.host, published::DNS.port), (inner, 60_000))
            .by(published::DNS.id)
            .mapped()
            .just_seen()])
        .leaves_mappings([used().sent_before_to(server).sent_to(inner)]),
        Case::from_endpoint(
            NET1,
            "a socket that dials another address of the host has a port there, and keeps the one that it had",
            Frame::udp(client, dialled),
        )
        .given(usual)
        .given(range(60_000, 60_000))
        .mapped([mapping()])
        .delivered(NET2, Frame::udp(by_gateway, inner))
        .leaves([Flow::hairpin(UDP, client, dialled, (inner, 60_000)).by(2).mapped().just_seen()])
        .leaves_mappings([mapping(), Mapped::new(UDP, client, by_gateway).sent_to(inner).just_seen()]),
        Case::from_endpoint(
            NET1,
            "a mapping whose inner half was evicted keeps its port",
            Frame::udp(kept, server),
        )
        .given(usual)
        .mapped([Mapped::new(UDP, kept, at(f.host, 50_000)).only_outside()])
        .forwarded(Frame::udp(at(f.host, 50_000), server))
        .leaves([Flow::masqueraded(UDP, kept, server, 50_000).mapped().just_seen()])
        .leaves_mappings([Mapped::new(UDP, kept, at(f.host, 50_000)).sent_to(server).just_seen()]),
        Case::from_endpoint(
            NET1,
            "a mapping whose outer half was evicted gets it back",
            Frame::udp(client, server),
        )
        .given(usual)
        .mapped([Mapped::new(UDP, client, seen).only_inside()])
        .forwarded(Frame::udp(seen, server))
        .leaves([flow(server).just_seen()])
        .leaves_mappings([used().sent_to(server)]),
        Case::from_endpoint(
            NET1,
            "a mapping whose outer half was evicted and taken gets another port",
            Frame::udp(client, server),
        )
        .given(usual)
        .given(range(60_000, 60_002))
        .mapped([
            Mapped::new(UDP, client, seen).only_inside(),
            Mapped::new(UDP, at(f.net2, 9), seen).only_outside(),
        ])
        .forwarded(Frame::udp(at(f.host, 60_002), server))
        .leaves([Flow::masqueraded(UDP, client, server, 60_002).mapped().just_seen()])
        .leaves_mappings([
            Mapped::new(UDP, at(f.net2, 9), seen).only_outside(),
            Mapped::new(UDP, client, at(f.host, 60_002)).sent_to(server).just_seen(),
        ]),
        Case::from_endpoint(
            NET1,
            "a port that somebody else uses towards one server is still the mapping's towards all others",
            Frame::udp(client, server),
        )
        .given(usual)
        .given(range(60_000, 60_002))
        .mapped([mapping()])
        .tracked([Flow::masqueraded(UDP, at(f.net2, 9), server, 60_000)])
        .forwarded(Frame::udp(at(f.host, 60_002), server))
        .leaves([
            Flow::masqueraded(UDP, at(f.net2, 9), server, 60_000),
            Flow::masqueraded(UDP, client, server, 60_002).mapped().just_seen(),
        ])
        .leaves_mappings([
            used().sent_before_to(server),
            Mapped::new(UDP, client, at(f.host, 60_002)).only_outside().sent_to(server).just_seen(),
        ]),
        Case::from_endpoint(
            NET1,
            "a mapping outlives a packet for which there was no port",
            Frame::udp(client, server),
        )
        .given(usual)
        .given(range(60_000, 60_000))
        .mapped([mapping()])
        .tracked([Flow::masqueraded(UDP, at(f.net2, 9), server, 60_000)])
        .refused(DropReason::NoFreePort, IcmpError::Prohibited)
        .leaves_mappings([used().sent_before_to(server)]),
    ]
}

/// RFC 4787 REQ-2: paired, for there is one address.
fn one_address(f: &Family) -> Vec<Case> {
    let to = f.peer;
    let [subnet, _] = subnets(f);
    let as_peer = move |model: &mut Model| {
        usual(model);
        model.masquerade.insert(subnet, MasqueradeValue { to: to.into(), flags: 0 });
    };
    let (client, server, seen) = (at(f.net1, 50_000), at(f.www, 3478), at(to, 50_000));
    let ping = |from| Frame::echo_request(from, f.www, 7, 1);
    vec![
        Case::from_endpoint(
            NET1,
            "T4787-2: UDP leaves from the address of the rule",
            Frame::udp(client, server),
        )
        .given(as_peer)
        .forwarded(Frame::udp(seen, server))
        .leaves([Flow::masqueraded(UDP, client, server, 50_000).seen_as(to).mapped().just_seen()])
        .leaves_mappings([Mapped::new(UDP, client, seen).sent_to(server).just_seen()]),
        Case::from_endpoint(
            NET1,
            "T4787-2: TCP leaves from the same address",
            Frame::tcp(client, server).syn(),
        )
        .given(as_peer)
        .forwarded(Frame::tcp(seen, server).syn())
        .leaves([Flow::masqueraded(Proto::TCP, client, server, 50_000).seen_as(to).just_seen()]),
        Case::from_endpoint(NET1, "T4787-2: ICMP leaves from the same address", ping(f.net1))
            .given(as_peer)
            .forwarded(ping(to))
            .leaves([Flow::masqueraded(echo(f), at(f.net1, 7), at(f.www, 7), 7).seen_as(to).just_seen()]),
    ]
}

/// RFC 4787 REQ-3, RFC 5382 REQ-7.
fn no_sharing(f: &Family) -> Vec<Case> {
    let (client, server, elsewhere) = (at(f.net1, 50_000), at(f.www, 3478), at(f.peer, 3478));
    let other = at(f.net2, 50_000);
    let others = || Mapped::new(UDP, other, at(f.host, 50_000)).sent_to(elsewhere);
    let others_flow = Flow::masqueraded(UDP, other, elsewhere, 50_000).mapped();
    let old = at(f.net2, 7);
    vec![
        Case::from_endpoint(
            NET1,
            "T4787-3: two endpoints do not share an external port, even for different servers",
            Frame::udp(client, server),
        )
        .given(usual)
        .given(range(50_000, 50_002))
        .mapped([others()])
        .tracked([others_flow])
        .forwarded(Frame::udp(at(f.host, 50_002), server))
        .leaves([others_flow, Flow::masqueraded(UDP, client, server, 50_002).mapped().just_seen()])
        .leaves_mappings([
            others(),
            Mapped::new(UDP, client, at(f.host, 50_002)).sent_to(server).just_seen(),
        ]),
        Case::from_endpoint(
            NET1,
            "T4787-3: with every port mapped a new socket is refused, not overloaded",
            Frame::udp(client, server),
        )
        .given(usual)
        .given(range(50_000, 50_000))
        .mapped([others()])
        .tracked([others_flow])
        .refused(DropReason::NoFreePort, IcmpError::Prohibited),
        Case::from_endpoint(
            NET1,
            "T4787-3: a port that a socket of the host uses is not mapped",
            Frame::udp(client, server),
        )
        .given(usual)
        .given(range(50_000, 50_002))
        .host_socket(tuple(UDP, server, at(f.host, 50_000)))
        .forwarded(Frame::udp(at(f.host, 50_002), server))
        .leaves([Flow::masqueraded(UDP, client, server, 50_002).mapped().just_seen()])
        .leaves_mappings([Mapped::new(UDP, client, at(f.host, 50_002)).sent_to(server).just_seen()]),
        Case::from_endpoint(
            NET1,
            "a port whose mapping is over is free, and both its halves go",
            Frame::udp(client, server),
        )
        .given(usual)
        .mapped([Mapped::new(UDP, old, at(f.host, 50_000)).aged(LIFETIME + 1)])
        .forwarded(Frame::udp(at(f.host, 50_000), server))
        .leaves([Flow::masqueraded(UDP, client, server, 50_000).mapped().just_seen()])
        .leaves_mappings([Mapped::new(UDP, client, at(f.host, 50_000)).sent_to(server).just_seen()]),
        Case::from_endpoint(
            NET1,
            "a port whose mapping is over does not take its former owner's new port along",
            Frame::udp(client, server),
        )
        .given(usual)
        .mapped([
            Mapped::new(UDP, old, at(f.host, 50_000)).only_outside().aged(LIFETIME + 1),
            Mapped::new(UDP, old, at(f.host, 60_000)),
        ])
        .forwarded(Frame::udp(at(f.host, 50_000), server))
        .leaves([Flow::masqueraded(UDP, client, server, 50_000).mapped().just_seen()])
        .leaves_mappings([
            Mapped::new(UDP, old, at(f.host, 60_000)),
            Mapped::new(UDP, client, at(f.host, 50_000)).sent_to(server).just_seen(),
        ]),
    ]
}

/// RFC 4787 REQ-4.
fn parity(f: &Family) -> Vec<Case> {
    let server = at(f.www, 3478);
    let becomes = |name: &str, own: u16, external: u16| {
        let client = at(f.net1, own);
        Case::from_endpoint(NET1, name, Frame::udp(client, server))
            .given(usual)
            .given(range(60_000, 60_001))
            .forwarded(Frame::udp(at(f.host, external), server))
            .leaves([Flow::masqueraded(UDP, client, server, external).mapped().just_seen()])
            .leaves_mappings([Mapped::new(UDP, client, at(f.host, external)).sent_to(server).just_seen()])
    };
    vec![
        becomes("T4787-4: an even port stays even", 1234, 60_000),
        becomes("T4787-4: an odd port stays odd", 1235, 60_001),
    ]
}

/// RFC 4787 REQ-6, RFC 7857 section 7.
fn refreshing(f: &Family) -> Vec<Case> {
    let (client, seen, server) = (at(f.net1, 1234), at(f.host, 60_000), at(f.www, 3478));
    let mapping = || Mapped::new(UDP, client, seen).sent_to(server);
    let flow = Flow::masqueraded(UDP, client, server, 60_000).mapped().established();
    let open = || Mapped::new(UDP, client, seen).filtering(ENDPOINT_INDEPENDENT);
    let eif = |model: &mut Model| behave(model, ENDPOINT_INDEPENDENT_UDP, ENDPOINT_INDEPENDENT);
    let stranger = at(f.peer, 9);
    let incoming = Flow::published(UDP, stranger, seen, client).mapped();
    vec![
        Case::from_endpoint(
            NET1,
            "T4787-6: what the endpoint sends keeps its mapping",
            Frame::udp(client, server),
        )
        .given(usual)
        .tracked([flow])
        .mapped([mapping()])
        .forwarded(Frame::udp(seen, server))
        .leaves([flow.just_seen()])
        .leaves_mappings([mapping().just_seen()]),
        Case::from_uplink("T4787-6a: so do the answers to it", Frame::udp(server, seen))
            .given(usual)
            .tracked([flow])
            .mapped([mapping()])
            .delivered(NET1, Frame::udp(server, client))
            .leaves([flow.just_seen()])
            .leaves_mappings([mapping().just_seen()]),
        Case::from_uplink("T7857-7: what strangers send does not keep a mapping", Frame::udp(stranger, seen))
            .given(eif)
            .tracked([incoming])
            .mapped([open()])
            .delivered(NET1, Frame::udp(stranger, client))
            .leaves([incoming.just_seen()])
            .leaves_mappings([open()]),
        Case::from_endpoint(
            NET1,
            "T7857-7: the endpoint's answer to a stranger does",
            Frame::udp(client, stranger),
        )
        .given(eif)
        .tracked([incoming])
        .mapped([open()])
        .forwarded(Frame::udp(seen, stranger))
        .leaves([incoming.in_state(CtState::Answered).just_seen()])
        .leaves_mappings([open().just_seen()]),
    ]
}

/// RFC 4787 REQ-5.
fn expiry(f: &Family) -> Vec<Case> {
    let (client, seen, server) = (at(f.net1, 1234), at(f.host, 60_000), at(f.www, 3478));
    let mapping = |age| Mapped::new(UDP, client, seen).sent_to(server).aged(age);
    let flow = |port| Flow::masqueraded(UDP, client, server, port).mapped().just_seen();
    let from_server = at(f.www, 99);
    vec![
        Case::from_endpoint(
            NET1,
            "T4787-6: a mapping whose flows are over lives until its time is, and a new flow keeps it",
            Frame::udp(client, server),
        )
        .given(usual)
        .mapped([mapping(LIFETIME - SLACK)])
        .forwarded(Frame::udp(seen, server))
        .leaves([flow(60_000)])
        .leaves_mappings([mapping(0)]),
        Case::from_endpoint(
            NET1,
            "T4787-5: a mapping whose time is over is made anew",
            Frame::udp(client, server),
        )
        .given(usual)
        .given(range(60_002, 60_002))
        .mapped([mapping(LIFETIME + 1)])
        .forwarded(Frame::udp(at(f.host, 60_002), server))
        .leaves([flow(60_002)])
        .leaves_mappings([
            Mapped::new(UDP, client, seen).only_outside().sent_to(server).aged(LIFETIME + 1),
            Mapped::new(UDP, client, at(f.host, 60_002)).sent_to(server).just_seen(),
        ]),
        Case::from_uplink(
            "T4787-5: a mapping whose time is over admits nobody",
            Frame::udp(from_server, seen),
        )
        .given(usual)
        .mapped([mapping(LIFETIME + 1)])
        .passes(),
        Case::from_uplink("T4787-5: one that has time left does", Frame::udp(from_server, seen))
            .given(usual)
            .mapped([mapping(LIFETIME - SLACK)])
            .delivered(NET1, Frame::udp(from_server, client))
            .leaves([Flow::published(UDP, from_server, seen, client).mapped().just_seen()]),
    ]
}

/// RFC 4787 REQ-5a.
fn questions(f: &Family) -> Vec<Case> {
    let (client, seen, server) = (at(f.net1, 1234), at(f.host, 60_000), at(f.www, 53));
    let kept = at(f.net1, 50_000);
    let mapping = || Mapped::new(UDP, client, seen);
    let flow = |to| Flow::masqueraded(UDP, client, to, 60_000).mapped();
    let sends = |name: &str, to: SocketAddr, given: Mapped, then: Mapped| {
        Case::from_endpoint(NET1, name, Frame::udp(client, to))
            .given(usual)
            .mapped([given])
            .forwarded(Frame::udp(seen, to))
            .leaves([flow(to).just_seen()])
            .leaves_mappings([then.just_seen()])
    };
    let elsewhere = at(f.peer, 3478);
    let old = at(f.net2, 7);
    // From another port of the name server.
    let by_the_way = at(f.www, 99);
    let incoming = Flow::published(UDP, by_the_way, seen, client).mapped();
    let over = || Mapped::new(UDP, old, at(f.host, 50_000)).brief().asked(server);
    vec![
        Case::from_endpoint(
            NET1,
            "T4787-5a: a question to a name server makes a brief mapping",
            Frame::udp(kept, server),
        )
        .given(usual)
        .forwarded(Frame::udp(at(f.host, 50_000), server))
        .leaves([Flow::masqueraded(UDP, kept, server, 50_000).mapped().just_seen()])
        .leaves_mappings([Mapped::new(UDP, kept, at(f.host, 50_000)).brief().asked(server).just_seen()]),
        sends(
            "T4787-5a: it stays brief with a question to another",
            at(f.peer, 53),
            mapping().brief().asked(server),
            mapping().brief().asked_before(server).asked(at(f.peer, 53)),
        ),
        sends(
            "T4787-5a: it is like others once the socket sends elsewhere",
            elsewhere,
            mapping().brief().asked(server),
            mapping().asked_before(server).sent_to(elsewhere),
        ),
        sends(
            "T4787-5a: or to another port of the name server",
            at(f.www, 54),
            mapping().brief().asked(server),
            mapping().sent_to(server),
        ),
        sends(
            "T4787-5a: and no question makes one brief",
            server,
            mapping().sent_to(server),
            mapping().sent_to(server),
        ),
        Case::from_endpoint(
            NET1,
            "T4787-5a: nor is one that answers what came through it",
            Frame::udp(client, by_the_way),
        )
        .given(usual)
        .tracked([incoming])
        .mapped([mapping().brief().asked(server)])
        .forwarded(Frame::udp(seen, by_the_way))
        .leaves([incoming.in_state(CtState::Answered).just_seen()])
        .leaves_mappings([mapping().sent_to(server).just_seen()]),
        Case::from_uplink("T4787-5a: an answer keeps a brief mapping", Frame::udp(server, seen))
            .given(usual)
            .tracked([flow(server).established()])
            .mapped([mapping().brief().asked(server)])
            .delivered(NET1, Frame::udp(server, client))
            .leaves([flow(server).established().just_seen()])
            .leaves_mappings([mapping().brief().asked(server).just_seen()]),
        Case::from_uplink(
            "T4787-5a: when its time is over it admits nobody",
            Frame::udp(at(f.www, 99), seen),
        )
        .given(usual)
        .mapped([mapping().brief().asked(server).aged(BRIEF + 1)])
        .passes(),
        Case::from_endpoint(NET1, "T4787-5a: and its port is free", Frame::udp(kept, elsewhere))
            .given(usual)
            .given(range(50_000, 50_000))
            .mapped([over().aged(BRIEF + 1)])
            .forwarded(Frame::udp(at(f.host, 50_000), elsewhere))
            .leaves([Flow::masqueraded(UDP, kept, elsewhere, 50_000).mapped().just_seen()])
            .leaves_mappings([
                Mapped::new(UDP, kept, at(f.host, 50_000)).sent_to(elsewhere).just_seen(),
                over().only_permits().aged(BRIEF + 1),
            ]),
        Case::from_endpoint(NET1, "T4787-5a: not before", Frame::udp(kept, elsewhere))
            .given(usual)
            .given(range(50_000, 50_000))
            .mapped([over()])
            .refused(DropReason::NoFreePort, IcmpError::Prohibited),
    ]
}

/// RFC 4787 REQ-8, RFC 5382 REQ-3.
fn filtering(f: &Family) -> Vec<Case> {
    let (client, seen, server) = (at(f.net1, 1234), at(f.host, 60_000), at(f.www, 3478));
    let flow = Flow::masqueraded(UDP, client, server, 60_000).mapped().established();
    let modes = [
        ("endpoint-independent", ENDPOINT_INDEPENDENT),
        ("address-dependent", ADDRESS),
        ("address-and-port-dependent", ADDRESS_AND_PORT),
    ];
    let senders = [
        ("the address and port that were sent to", server, ADDRESS_AND_PORT),
        ("another port of that address", at(f.www, 54), ADDRESS),
        ("another address", at(f.peer, 3478), ENDPOINT_INDEPENDENT),
    ];
    let mut cases = Vec::new();
    for (mode, filtering) in modes {
        for (who, from, least) in senders {
            let permits = if filtering == ADDRESS { vec![server] } else { Vec::new() };
            let mapping = permits
                .into_iter()
                .fold(Mapped::new(UDP, client, seen).filtering(filtering), Mapped::sent_to);
            let name = format!("T4787-8: {mode} filtering and {who}");
            let case = Case::from_uplink(&name, Frame::udp(from, seen))
                .given(|model| behave(model, ENDPOINT_INDEPENDENT_UDP, filtering))
                .tracked([flow]);
            let incoming = Flow::published(UDP, from, seen, client).mapped().just_seen();
            let inside = Frame::udp(from, client);
            cases.push(if from == server {
                let then = mapping.clone().just_seen();
                let case = case.mapped([mapping]).delivered(NET1, inside);
                case.leaves([flow.just_seen()]).leaves_mappings([then])
            } else if filtering >= least {
                case.mapped([mapping]).delivered(NET1, inside).leaves([flow, incoming])
            } else {
                case.mapped([mapping]).dropped(DropReason::Filtered)
            });
        }
    }
    let mapping = || Mapped::new(UDP, client, seen).filtering(ENDPOINT_INDEPENDENT);
    cases.extend([
        Case::from_uplink(
            "T4787-8: a port without a mapping is the host's",
            Frame::udp(server, at(f.host, 60_001)),
        )
        .given(usual)
        .mapped([mapping()])
        .passes(),
        Case::from_uplink("T7857-5: a mapping of UDP is none of TCP", Frame::tcp(server, seen).syn())
            .given(usual)
            .mapped([mapping()])
            .passes(),
        Case::from_uplink(
            "an address of a network is forged, to a mapping too",
            Frame::udp(at(f.net2, 1), seen),
        )
        .given(usual)
        .mapped([mapping()])
        .dropped(DropReason::SourceAddress),
        Case::from_uplink("a mapping whose endpoint is gone leads nowhere", Frame::udp(server, seen))
            .given(|model| model.endpoints.remove(&client.ip().into()))
            .mapped([mapping()])
            .dropped(DropReason::NoSuchEndpoint),
        Case::from_uplink(
            "a socket of the host that has the port of a mapping hears its peer",
            Frame::udp(at(f.peer, 9), seen),
        )
        .given(usual)
        .mapped([Mapped::new(UDP, client, seen).sent_to(server)])
        .host_socket(tuple(UDP, at(f.peer, 9), seen))
        .passes(),
    ]);
    cases
}

/// RFC 4787 REQ-9 and REQ-9a, RFC 5382 REQ-8.
fn hairpin(f: &Family) -> Vec<Case> {
    let (inner, external) = (at(f.net1, 1234), at(f.host, 60_000));
    let client = at(f.net2, 50_000);
    let seen = at(f.host, 50_000);
    let target = || Mapped::new(UDP, inner, external);
    let clients = || Mapped::new(UDP, client, seen);
    let flow = Flow::hairpin(UDP, client, external, (inner, 50_000)).mapped();
    vec![
        Case::from_endpoint(
            NET2,
            "T4787-9: a neighbour reaches a mapping by its external port, and is seen by its own",
            Frame::udp(client, external),
        )
        .given(usual)
        .mapped([target()])
        .delivered(NET1, Frame::udp(seen, inner))
        .leaves([flow.just_seen()])
        .leaves_mappings([target(), clients().sent_to(inner).just_seen()]),
        Case::from_endpoint(
            NET2,
            "T4787-9a: a client that has a mapping is seen by that",
            Frame::udp(at(f.net2, 777), external),
        )
        .given(usual)
        .mapped([target(), Mapped::new(UDP, at(f.net2, 777), at(f.host, 61_001))])
        .delivered(NET1, Frame::udp(at(f.host, 61_001), inner))
        .leaves([Flow::hairpin(UDP, at(f.net2, 777), external, (inner, 61_001)).mapped().just_seen()])
        .leaves_mappings([
            target(),
            Mapped::new(UDP, at(f.net2, 777), at(f.host, 61_001)).sent_to(inner).just_seen(),
        ]),
        Case::from_endpoint(
            NET1,
            "T4787-9a: the answer comes from the external port that was dialled",
            Frame::udp(inner, seen),
        )
        .given(usual)
        .tracked([flow.established()])
        .mapped([target(), clients().sent_to(inner)])
        .delivered(NET2, Frame::udp(external, client))
        .leaves([flow.established().just_seen()])
        .leaves_mappings([target(), clients().sent_to(inner).just_seen()]),
        Case::from_endpoint(
            NET1,
            "T4787-9: a socket reaches itself by its external port, and sees itself as another",
            Frame::udp(inner, external),
        )
        .given(usual)
        .given(range(60_000, 60_002))
        .mapped([target()])
        .delivered(NET1, Frame::udp(at(f.host, 60_002), inner))
        .leaves([Flow::hairpin(UDP, inner, external, (inner, 60_002)).mapped().just_seen()])
        .leaves_mappings([
            target().just_seen(),
            Mapped::new(UDP, inner, at(f.host, 60_002)).only_outside().sent_to(inner).just_seen(),
        ]),
        Case::from_endpoint(
            NET3,
            "an endpoint of another network does not, for networks are apart",
            Frame::udp(at(f.net3, 50_000), external),
        )
        .given(usual)
        .mapped([target().filtering(ENDPOINT_INDEPENDENT)])
        .refused(DropReason::OtherNetwork, IcmpError::Prohibited),
    ]
}

/// RFC 4787 REQ-11: a socket whose port was taken has what any other has.
fn same_under_pressure(f: &Family) -> Vec<Case> {
    let (client, seen, server) = (at(f.net1, 50_000), at(f.host, 60_000), at(f.www, 3478));
    let mapping = || Mapped::new(UDP, client, seen).sent_to(server);
    let other = || Mapped::new(UDP, at(f.net2, 50_000), at(f.host, 50_000)).sent_to(server);
    let then = || Mapped::new(UDP, client, seen).just_seen().sent_before_to(server).sent_to(at(f.peer, 3478));
    vec![
        Case::from_endpoint(
            NET1,
            "T4787-11: a socket whose own port was another's keeps the one it got, for all servers",
            Frame::udp(client, at(f.peer, 3478)),
        )
        .given(usual)
        .mapped([mapping(), other()])
        .forwarded(Frame::udp(seen, at(f.peer, 3478)))
        .leaves([Flow::masqueraded(UDP, client, at(f.peer, 3478), 60_000).mapped().just_seen()])
        .leaves_mappings([then(), other()]),
        Case::from_endpoint(
            NET1,
            "T4787-11: even when its own port has become free",
            Frame::udp(client, at(f.peer, 3478)),
        )
        .given(usual)
        .mapped([mapping()])
        .forwarded(Frame::udp(seen, at(f.peer, 3478)))
        .leaves([Flow::masqueraded(UDP, client, at(f.peer, 3478), 60_000).mapped().just_seen()])
        .leaves_mappings([then()]),
        Case::from_uplink(
            "T4787-11: and admits those it has sent to, as any other",
            Frame::udp(at(f.www, 54), seen),
        )
        .given(usual)
        .mapped([mapping(), other()])
        .delivered(NET1, Frame::udp(at(f.www, 54), client))
        .leaves([Flow::published(UDP, at(f.www, 54), seen, client).mapped().just_seen()]),
    ]
}

/// RFC 5382 REQ-1, REQ-3, REQ-7, REQ-8, and RFC 7857 section 3.
fn tcp(f: &Family) -> Vec<Case> {
    let (client, server) = (at(f.net1, 50_000), at(f.www, 80));
    let (other, elsewhere) = (at(f.net2, 50_000), at(f.peer, 80));
    let all = ENDPOINT_INDEPENDENT_UDP | ENDPOINT_INDEPENDENT_TCP;
    let strict = move |model: &mut Model| behave(model, all, ADDRESS);
    let open = move |model: &mut Model| behave(model, all, ENDPOINT_INDEPENDENT);
    let syn = |from, to| Frame::tcp(from, to).syn();
    let tcp = Proto::TCP;
    let others = Flow::masqueraded(tcp, other, elsewhere, 50_000).established();
    let others_mapping = || Mapped::new(tcp, other, at(f.host, 50_000)).sent_to(elsewhere);
    let moved = at(f.net1, 1234);
    let mapping = || Mapped::new(tcp, moved, at(f.host, 60_000)).sent_to(server);
    let eif = || Mapped::new(tcp, moved, at(f.host, 60_000)).filtering(ENDPOINT_INDEPENDENT);
    vec![
        Case::from_endpoint(
            NET1,
            "T7857-3: TCP flows to different servers may have the same external port",
            syn(client, server),
        )
        .given(usual)
        .tracked([others])
        .forwarded(syn(at(f.host, 50_000), server))
        .leaves([others, Flow::masqueraded(tcp, client, server, 50_000).just_seen()]),
        Case::from_endpoint(
            NET1,
            "T5382-7: not where TCP mappings are endpoint-independent",
            syn(client, server),
        )
        .given(strict)
        .given(range(50_000, 50_002))
        .tracked([others.mapped()])
        .mapped([others_mapping()])
        .forwarded(syn(at(f.host, 50_002), server))
        .leaves([others.mapped(), Flow::masqueraded(tcp, client, server, 50_002).mapped().just_seen()])
        .leaves_mappings([
            others_mapping(),
            Mapped::new(tcp, client, at(f.host, 50_002)).sent_to(server).just_seen(),
        ]),
        Case::from_endpoint(
            NET1,
            "T5382-1: there a port has one external port for all servers",
            syn(moved, elsewhere),
        )
        .given(strict)
        .mapped([mapping()])
        .forwarded(syn(at(f.host, 60_000), elsewhere))
        .leaves([Flow::masqueraded(tcp, moved, elsewhere, 60_000).mapped().just_seen()])
        .leaves_mappings([Mapped::new(tcp, moved, at(f.host, 60_000))
            .just_seen()
            .sent_before_to(server)
            .sent_to(elsewhere)]),
        Case::from_uplink(
            "T5382-3: a SYN of an address that was sent to comes in",
            syn(at(f.www, 9), at(f.host, 60_000)),
        )
        .given(strict)
        .mapped([mapping()])
        .delivered(NET1, syn(at(f.www, 9), moved))
        .leaves([Flow::published(tcp, at(f.www, 9), at(f.host, 60_000), moved).mapped().just_seen()]),
        Case::from_uplink("T5382-3: a SYN of another address does not", syn(elsewhere, at(f.host, 60_000)))
            .given(strict)
            .mapped([mapping()])
            .dropped(DropReason::Filtered),
        Case::from_uplink(
            "T5382-3: unless filtering is endpoint-independent",
            syn(elsewhere, at(f.host, 60_000)),
        )
        .given(open)
        .mapped([eif()])
        .delivered(NET1, syn(elsewhere, moved))
        .leaves([Flow::published(tcp, elsewhere, at(f.host, 60_000), moved).mapped().just_seen()]),
        Case::from_uplink(
            "T5382-4: a SYN to a port of no mapping is left to the host",
            syn(elsewhere, at(f.host, 60_000)),
        )
        .given(usual)
        .tracked([Flow::masqueraded(tcp, moved, server, 60_000).established()])
        .passes(),
        Case::from_endpoint(
            NET2,
            "T5382-8: a neighbour connects to a mapping of TCP",
            syn(at(f.net2, 50_002), at(f.host, 60_000)),
        )
        .given(strict)
        .mapped([mapping()])
        .delivered(NET1, syn(at(f.host, 50_002), moved))
        .leaves([Flow::hairpin(tcp, at(f.net2, 50_002), at(f.host, 60_000), (moved, 50_002))
            .mapped()
            .just_seen()])
        .leaves_mappings([
            mapping(),
            Mapped::new(tcp, at(f.net2, 50_002), at(f.host, 50_002)).sent_to(moved).just_seen(),
        ]),
    ]
}

/// RFC 5382 REQ-2: both SYNs cross, and then both SYN-ACKs.
fn simultaneous_open(f: &Family) -> Vec<Case> {
    let (client, server, seen) = (at(f.net1, 1234), at(f.www, 80), at(f.host, 60_000));
    let flow = Flow::masqueraded(Proto::TCP, client, server, 60_000);
    let done = flow.established();
    vec![
        Case::from_uplink("T5382-2a: a SYN in answer to a SYN comes in", Frame::tcp(server, seen).syn())
            .given(usual)
            .tracked([flow])
            .delivered(NET1, Frame::tcp(server, client).syn())
            .leaves([done.just_seen()]),
        Case::from_endpoint(NET1, "T5382-2a: and is answered", Frame::tcp(client, server).syn().ack())
            .given(usual)
            .tracked([done])
            .forwarded(Frame::tcp(seen, server).syn().ack())
            .leaves([done.just_seen()]),
        Case::from_uplink("T5382-2a: as is the other", Frame::tcp(server, seen).syn().ack())
            .given(usual)
            .tracked([done])
            .delivered(NET1, Frame::tcp(server, client).syn().ack())
            .leaves([done.just_seen()]),
    ]
}

/// Flows of which nothing is known any more.
fn in_mid_stream(f: &Family) -> Vec<Case> {
    let (client, server) = (at(f.net1, 50_000), at(f.www, 80));
    let (stranger, web, target) = (at(f.www, 9), at(f.host, published::WEB.port), at(f.net1, 80));
    let data = |from, to| Frame::tcp(from, to).ack().psh().payload(b"and furthermore");
    let fin = |from, to| Frame::tcp(from, to).ack().fin();
    let flow = Flow::masqueraded(Proto::TCP, client, server, 50_000);
    let public = Flow::published(Proto::TCP, stranger, web, target).by(published::WEB.id);
    vec![
        Case::from_endpoint(
            NET1,
            "D5: a connection in mid-stream is picked up with its port",
            data(client, server),
        )
        .given(usual)
        .forwarded(data(at(f.host, 50_000), server))
        .leaves([flow.just_seen()]),
        Case::from_endpoint(NET1, "D5: one that ends too", fin(client, server))
            .given(usual)
            .forwarded(fin(at(f.host, 50_000), server))
            .leaves([flow.just_seen()]),
        Case::from_endpoint(
            NET1,
            "D5: with another port if its own is taken, which the server resets",
            data(client, server),
        )
        .given(usual)
        .given(range(50_000, 50_002))
        .tracked([Flow::masqueraded(Proto::TCP, at(f.net2, 50_000), server, 50_000).established()])
        .forwarded(data(at(f.host, 50_002), server))
        .leaves([
            Flow::masqueraded(Proto::TCP, at(f.net2, 50_000), server, 50_000).established(),
            Flow::masqueraded(Proto::TCP, client, server, 50_002).just_seen(),
        ]),
        Case::from_uplink(
            "D5: the server's side is left to the host, which resets it",
            data(server, at(f.host, 50_000)),
        )
        .given(usual)
        .passes(),
        Case::from_uplink("D5: a published port's connection is picked up from outside", data(stranger, web))
            .given(usual)
            .delivered(NET1, data(stranger, target))
            .leaves([public.just_seen()]),
    ]
}

/// An SCTP packet with an INIT chunk. Its CRC covers ports, and no addresses: it stays what it is.
fn init(from: SocketAddr, to: SocketAddr) -> Frame {
    let mut packet = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    packet.extend([0; 4]);
    packet.extend([0xde, 0xad, 0xbe, 0xef]);
    packet.extend([1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1]);
    Frame::protocol(from.ip(), to.ip(), Proto::SCTP.number).payload(&packet)
}

/// RFC 9260, and RFC 3257 section 4.4 on why ports stay.
fn sctp(f: &Family) -> Vec<Case> {
    let (client, server) = (at(f.net1, 5000), at(f.www, 36_412));
    let seen = at(f.host, 5000);
    let flow = Flow::masqueraded(Proto::SCTP, client, server, 5000);
    let (dialled, target, stranger) = (at(f.host, 2905), at(f.net1, 2905), at(f.www, 7));
    let public = Flow::published(Proto::SCTP, stranger, dialled, target).by(20);
    let key = PortMapKey {
        addr: Addr::from(f.host).any_of_family(),
        port: Port::new(2905),
        proto: Proto::SCTP,
        prefix_len: 16,
    };
    let value =
        PortMapValue { addr: f.net1.into(), port: Port::new(2905), zone: NET1.zone, id: 20, flags: 0 };
    let publish = move |model: &mut Model| {
        usual(model);
        model.port_map.insert(key, value);
    };
    vec![
        Case::from_endpoint(
            NET1,
            "SCTP leaves with its own port, whatever it is, and its CRC",
            init(client, server),
        )
        .given(usual)
        .forwarded(init(seen, server))
        .leaves([flow.just_seen()]),
        Case::from_uplink("an SCTP answer finds back", init(server, seen))
            .given(usual)
            .tracked([flow])
            .delivered(NET1, init(server, client))
            .leaves([flow.established().just_seen()]),
        Case::from_endpoint(
            NET1,
            "SCTP whose port is another's towards the same server is refused",
            init(client, server),
        )
        .given(usual)
        .tracked([Flow::masqueraded(Proto::SCTP, at(f.net2, 5000), server, 5000)])
        .refused(DropReason::NoFreePort, IcmpError::Prohibited),
        Case::from_uplink("a published SCTP port leads to the target's same port", init(stranger, dialled))
            .given(publish)
            .delivered(NET1, init(stranger, target))
            .leaves([public.just_seen()]),
        Case::from_endpoint(NET1, "its answer leaves", init(target, stranger))
            .given(publish)
            .tracked([public])
            .forwarded(init(dialled, stranger))
            .leaves([public.in_state(CtState::Answered).just_seen()]),
        Case::from_endpoint(NET2, "a neighbour dials a published SCTP port", init(at(f.net2, 9), dialled))
            .given(publish)
            .delivered(NET1, init(at(f.host, 9), target))
            .leaves([Flow::hairpin(Proto::SCTP, at(f.net2, 9), dialled, (target, 9)).by(20).just_seen()]),
    ]
}
