//! Published ports, as clients in the world see them, and what the world may not do.

use vnet_common::{CtState, DropReason, Proto};
use vnet_tests::case::world::{Family, MTU, NET1, NET2, NET3, at, published};
use vnet_tests::case::{Case, Flow, tuple};
use vnet_tests::frame::{Frame, IcmpError};

use super::for_both_families;

pub(super) fn cases() -> Vec<Case> {
    let subjects: [fn(&Family) -> Vec<Case>; 4] = [opened, chosen, not_ours, refused];
    subjects.into_iter().flat_map(for_both_families).collect()
}

fn opened(f: &Family) -> Vec<Case> {
    let (client, web, server) = (at(f.www, 1234), at(f.host, published::WEB.port), at(f.net1, 80));
    let tcp = Flow::published(Proto::TCP, client, web, server).by(published::WEB.id);
    let (dns, resolver) = (at(f.host, published::DNS.port), at(f.net2, 53));
    let udp = Flow::published(Proto::UDP, client, dns, resolver).by(published::DNS.id);
    let got = at(f.spare, published::WEB.port);
    let by_got = Flow::published(Proto::TCP, client, got, server).by(published::WEB.id);
    vec![
        Case::from_uplink(
            "a published port answers on an address that the host has got since",
            Frame::tcp(client, got).syn(),
        )
        .delivered(NET1, Frame::tcp(client, server).syn())
        .leaves([by_got.just_seen()]),
        Case::from_uplink(
            "a client in the world reaches a published TCP port",
            Frame::tcp(client, web).syn(),
        )
        .delivered(NET1, Frame::tcp(client, server).syn())
        .leaves([tcp.just_seen()]),
        Case::from_uplink(
            "a client in the world reaches a published UDP port",
            Frame::udp(client, dns).payload(b"?"),
        )
        .delivered(NET2, Frame::udp(client, resolver).payload(b"?"))
        .leaves([udp.just_seen()]),
        Case::from_uplink(
            "a UDP client that sends no checksum gets one to nobody",
            Frame::udp(client, dns).zero_udp_checksum(),
        )
        .delivered(NET2, Frame::udp(client, resolver).zero_udp_checksum())
        .leaves([udp.just_seen()]),
        Case::from_uplink(
            "a packet in the middle of a connection opens a flow",
            Frame::tcp(client, web).ack().psh(),
        )
        .delivered(NET1, Frame::tcp(client, server).ack().psh())
        .leaves([tcp.just_seen()]),
        Case::from_uplink("a later packet follows its flow", Frame::tcp(client, web).ack().payload(b"GET /"))
            .tracked([tcp.established()])
            .delivered(NET1, Frame::tcp(client, server).ack().payload(b"GET /"))
            .leaves([tcp.established().just_seen()]),
        Case::from_uplink(
            "a flow lives on when its port is not published any more",
            Frame::tcp(client, web).ack(),
        )
        .tracked([tcp.established()])
        .given(|model| model.port_map.clear())
        .delivered(NET1, Frame::tcp(client, server).ack())
        .leaves([tcp.established().just_seen()]),
        Case::from_endpoint(
            NET1,
            "the server's answer leaves as the host's",
            Frame::tcp(server, client).syn().ack(),
        )
        .tracked([tcp])
        .forwarded(Frame::tcp(web, client).syn().ack())
        .leaves([tcp.in_state(CtState::Answered).just_seen()]),
        Case::from_endpoint(NET2, "the resolver's answer leaves as the host's", Frame::udp(resolver, client))
            .tracked([udp])
            .forwarded(Frame::udp(dns, client))
            .leaves([udp.in_state(CtState::Answered).just_seen()]),
        Case::from_endpoint(
            NET1,
            "an answer to a neighbour of the host is handed to it",
            Frame::tcp(server, at(f.peer, 9)).ack(),
        )
        .tracked([Flow::published(Proto::TCP, at(f.peer, 9), web, server)])
        .forwarded(Frame::tcp(web, at(f.peer, 9)).ack())
        .leaves([Flow::published(Proto::TCP, at(f.peer, 9), web, server)
            .in_state(CtState::Answered)
            .just_seen()]),
        Case::from_uplink(
            "a client's port is its own, whatever masquerade may use",
            Frame::tcp(at(f.www, 1), web).syn(),
        )
        .delivered(NET1, Frame::tcp(at(f.www, 1), server).syn())
        .leaves([Flow::published(Proto::TCP, at(f.www, 1), web, server).by(1).just_seen()]),
        Case::from_uplink(
            "of two clients that would look the same one gets another port",
            Frame::tcp(client, at(f.host, 8192)).syn(),
        )
        .given(|model| model.config.nat_ports = vnet_common::PortRange { first: 60_000, last: 60_000 })
        .tracked([Flow::published(Proto::TCP, client, at(f.gateway, 8192), at(f.net1, 7000)).by(5)])
        .delivered(NET1, Frame::tcp(at(f.www, 60_000), at(f.net1, 7000)).syn())
        .leaves([
            Flow::published(Proto::TCP, client, at(f.gateway, 8192), at(f.net1, 7000)).by(5),
            Flow::published(Proto::TCP, client, at(f.host, 8192), at(f.net1, 7000))
                .by(5)
                .from_port(60_000)
                .just_seen(),
        ]),
    ]
}

fn chosen(f: &Family) -> Vec<Case> {
    let client = at(f.www, 1234);
    let reaches = |name: &str, dialled, receiver, target, id| {
        Case::from_uplink(name, Frame::tcp(client, dialled).syn())
            .delivered(receiver, Frame::tcp(client, target).syn())
            .leaves([Flow::published(Proto::TCP, client, dialled, target).by(id).just_seen()])
    };
    vec![
        reaches(
            "a port published on one address beats the same on all",
            at(f.host, 8089),
            NET1,
            at(f.net1, 81),
            4,
        ),
        reaches(
            "a port published on all addresses answers on another",
            at(f.gateway, 8089),
            NET2,
            at(f.net2, 82),
            3,
        ),
        reaches(
            "the first port of a block leads to the target's first",
            at(f.host, 8192),
            NET1,
            at(f.net1, 7000),
            5,
        ),
        reaches(
            "a port within a block leads to the one counted on",
            at(f.host, 8197),
            NET1,
            at(f.net1, 7005),
            5,
        ),
        reaches(
            "the last port of a block leads to the target's last",
            at(f.host, 8207),
            NET1,
            at(f.net1, 7015),
            5,
        ),
        reaches("a single port beats the block around it", at(f.host, 8200), NET2, at(f.net2, 22), 6),
        reaches("a port leads to an endpoint of another network", at(f.host, 8090), NET3, at(f.net3, 80), 7),
        Case::from_uplink(
            "the port before a block is not published",
            Frame::tcp(client, at(f.host, 8191)).syn(),
        )
        .passes(),
        Case::from_uplink(
            "the port behind a block is not published",
            Frame::tcp(client, at(f.host, 8208)).syn(),
        )
        .passes(),
        Case::from_uplink(
            "blocks that the configuration does not know are not looked for",
            Frame::tcp(client, at(f.host, 8192)).syn(),
        )
        .given(|model| model.config.port_blocks = 0)
        .passes(),
        Case::from_uplink(
            "blocks of a length that the configuration does not know are not looked for",
            Frame::tcp(client, at(f.host, 8192)).syn(),
        )
        .given(|model| model.config.port_blocks = 1 << 11)
        .passes(),
        Case::from_uplink(
            "an answer to a client of the host, whose port is published by chance, is the host's",
            Frame::udp(client, at(f.host, 5353)),
        )
        .host_socket(tuple(Proto::UDP, client, at(f.host, 5353)))
        .passes(),
        Case::from_uplink(
            "and so is a segment of its connection",
            Frame::tcp(client, at(f.host, 8088)).ack(),
        )
        .host_socket(tuple(Proto::TCP, client, at(f.host, 8088)))
        .passes(),
        Case::from_uplink("a TCP port is not published for UDP", Frame::udp(client, at(f.host, 8088)))
            .passes(),
        Case::from_uplink(
            "a port published on another address only is not published",
            Frame::tcp(client, at(f.gateway, 8089)).syn(),
        )
        .given(|model| model.port_map.retain(|_, value| value.id != 3))
        .passes(),
    ]
}

fn not_ours(f: &Family) -> Vec<Case> {
    let (client, web) = (at(f.www, 1234), at(f.host, published::WEB.port));
    vec![
        Case::from_uplink(
            "a port of the host itself is none of vnet's business",
            Frame::tcp(client, at(f.host, 22)).syn(),
        )
        .passes(),
        Case::from_uplink(
            "a packet that the host only routes passes",
            Frame::tcp(client, at(f.stray, 80)).syn(),
        )
        .passes(),
        Case::from_uplink("a ping to the host passes", Frame::echo_request(f.www, f.host, 1, 1)).passes(),
        Case::from_uplink("an ICMP error to the host passes", {
            let offender = Frame::udp(at(f.host, 50_000), at(f.www, 53));
            Frame::icmp_error(f.www, f.host, IcmpError::PortUnreachable, &offender)
        })
        .passes(),
        Case::from_uplink("another protocol to the host passes", Frame::protocol(f.www, f.host, 47)).passes(),
        Case::from_uplink("a reset to a published port opens nothing", Frame::tcp(client, web).rst())
            .passes(),
        Case::from_uplink("multicast from the world passes", Frame::udp(client, at(f.multicast, 5353)))
            .passes(),
        Case::from_uplink("a tagged frame from the world passes", Frame::tcp(client, web).syn().vlan(5))
            .passes(),
    ]
}

fn refused(f: &Family) -> Vec<Case> {
    let (client, web) = (at(f.www, 1234), at(f.host, published::WEB.port));
    let room = usize::from(MTU) - if f.net1.is_ipv4() { 20 + 8 } else { 40 + 8 };
    let dns = at(f.host, published::DNS.port);
    let of_size = |extra: usize| Frame::udp(client, dns).payload(&vec![7; room + extra]);
    let flow = Flow::published(Proto::UDP, client, dns, at(f.net2, 53)).by(published::DNS.id);
    let delivered = |extra: usize| Frame::udp(client, at(f.net2, 53)).payload(&vec![7; room + extra]);
    vec![
        Case::from_uplink(
            "an endpoint cannot be addressed from outside",
            Frame::tcp(client, at(f.net1, 80)).syn(),
        )
        .dropped(DropReason::DirectAccess),
        Case::from_uplink(
            "an endpoint cannot be pinged from outside",
            Frame::echo_request(f.www, f.net1, 1, 1),
        )
        .dropped(DropReason::DirectAccess),
        Case::from_uplink(
            "an endpoint gets no fragments from outside",
            Frame::udp(client, at(f.net1, 53)).fragment(16, false),
        )
        .dropped(DropReason::DirectAccess),
        Case::from_uplink(
            "an address of a network that is nobody's cannot be addressed either",
            Frame::tcp(client, at(f.nobody, 80)).syn(),
        )
        .dropped(DropReason::DirectAccess),
        Case::from_uplink(
            "a client with an endpoint's address is forged",
            Frame::tcp(at(f.net2, 1234), web).syn(),
        )
        .dropped(DropReason::SourceAddress),
        Case::from_uplink(
            "a client with any address of a network is forged",
            Frame::tcp(at(f.nobody, 1234), web).syn(),
        )
        .dropped(DropReason::SourceAddress),
        Case::from_uplink(
            "nobody outside talks to a loopback address",
            Frame::tcp(client, at(f.loopback, 8088)).syn(),
        )
        .dropped(DropReason::Loopback),
        Case::from_uplink(
            "a published port whose endpoint is gone drops",
            Frame::tcp(client, at(f.host, published::GONE.port)).syn(),
        )
        .dropped(DropReason::NoSuchEndpoint),
        Case::from_uplink("a client with no hop left does not get in", Frame::tcp(client, web).syn().ttl(1))
            .refused(DropReason::HopLimit, IcmpError::TimeExceeded),
        Case::from_uplink("a packet that just fits the endpoint gets in", of_size(0))
            .delivered(NET2, delivered(0))
            .leaves([flow.just_seen()]),
        Case::from_uplink("a packet one byte too big for the endpoint does not get in", of_size(1))
            .refused(DropReason::TooBig, IcmpError::TooBig { mtu: MTU }),
        Case::from_uplink("an aggregate gets in if its segments fit", of_size(1000))
            .in_segments_of(room as u32)
            .delivered(NET2, delivered(1000))
            .leaves([flow.just_seen()]),
        Case::from_uplink("an aggregate does not get in if its segments do not fit", of_size(1000))
            .in_segments_of(room as u32 + 1)
            .refused(DropReason::TooBig, IcmpError::TooBig { mtu: MTU }),
    ]
}
