//! Endpoints that use the host's addresses: published ports, their own among them, and the host itself.

use vnet_common::{DropReason, PortRange, Proto};
use vnet_tests::case::world::{Family, NET1, NET2, NET3, at, published};
use vnet_tests::case::{Case, Flow, tuple};
use vnet_tests::frame::{Frame, IcmpError};

use super::for_both_families;

pub(super) fn cases() -> Vec<Case> {
    let subjects: [fn(&Family) -> Vec<Case>; 2] = [dialled, the_host_itself];
    subjects.into_iter().flat_map(for_both_families).collect()
}

fn dialled(f: &Family) -> Vec<Case> {
    let (client, web, server) = (at(f.net2, 50_000), at(f.host, published::WEB.port), at(f.net1, 80));
    let flow = Flow::hairpin(Proto::TCP, client, web, (server, 50_000)).by(published::WEB.id);
    let (own_client, own) =
        (at(f.net1, 50_000), Flow::hairpin(Proto::TCP, at(f.net1, 50_000), web, (server, 50_000)).by(1));
    let by_gateway = at(f.gateway, published::WEB.port);
    let dns = at(f.host, published::DNS.port);
    let moved = at(f.net2, 1234);
    vec![
        Case::from_endpoint(
            NET2,
            "a neighbour's published port answers on the host's address",
            Frame::tcp(client, web).syn(),
        )
        .delivered(NET1, Frame::tcp(at(f.host, 50_000), server).syn())
        .leaves([flow.just_seen()]),
        Case::from_endpoint(
            NET1,
            "the answer goes back as from the address that was dialled",
            Frame::tcp(server, at(f.host, 50_000)).syn().ack(),
        )
        .tracked([flow])
        .delivered(NET2, Frame::tcp(web, client).syn().ack())
        .leaves([flow.established().just_seen()]),
        Case::from_endpoint(NET2, "a later packet follows", Frame::tcp(client, web).ack())
            .tracked([flow.established()])
            .delivered(NET1, Frame::tcp(at(f.host, 50_000), server).ack())
            .leaves([flow.established().just_seen()]),
        Case::from_endpoint(
            NET1,
            "an endpoint reaches its own published port",
            Frame::tcp(own_client, web).syn(),
        )
        .delivered(NET1, Frame::tcp(at(f.host, 50_000), server).syn())
        .leaves([own.just_seen()]),
        Case::from_endpoint(
            NET1,
            "an endpoint's answer to itself finds back",
            Frame::tcp(server, at(f.host, 50_000)).syn().ack(),
        )
        .tracked([own])
        .delivered(NET1, Frame::tcp(web, own_client).syn().ack())
        .leaves([own.established().just_seen()]),
        Case::from_endpoint(
            NET2,
            "a published port answers on the gateway's address",
            Frame::tcp(client, by_gateway).syn(),
        )
        .delivered(NET1, Frame::tcp(at(f.gateway, 50_000), server).syn())
        .leaves([Flow::hairpin(Proto::TCP, client, by_gateway, (server, 50_000)).by(1).just_seen()]),
        Case::from_endpoint(
            NET1,
            "a neighbour's UDP port answers on the host's address",
            Frame::udp(own_client, dns).payload(b"?"),
        )
        .delivered(NET2, Frame::udp(at(f.host, 50_000), at(f.net2, 53)).payload(b"?"))
        .leaves([Flow::hairpin(Proto::UDP, own_client, dns, (at(f.net2, 53), 50_000)).by(2).just_seen()]),
        Case::from_endpoint(
            NET3,
            "what is published is open to other networks",
            Frame::tcp(at(f.net3, 50_000), web).syn(),
        )
        .delivered(NET1, Frame::tcp(at(f.host, 50_000), server).syn())
        .leaves([Flow::hairpin(Proto::TCP, at(f.net3, 50_000), web, (server, 50_000)).by(1).just_seen()]),
        Case::from_endpoint(
            NET2,
            "the target never sees a port of the host's own",
            Frame::tcp(moved, web).syn(),
        )
        .given(|model| model.config.nat_ports = PortRange { first: 60_000, last: 60_000 })
        .delivered(NET1, Frame::tcp(at(f.host, 60_000), server).syn())
        .leaves([Flow::hairpin(Proto::TCP, moved, web, (server, 60_000)).by(1).just_seen()]),
        Case::from_endpoint(
            NET1,
            "a published port is found by the block it is in",
            Frame::tcp(own_client, at(f.host, 8193)).syn(),
        )
        .delivered(NET1, Frame::tcp(at(f.host, 50_000), at(f.net1, 7001)).syn())
        .leaves([Flow::hairpin(
            Proto::TCP,
            own_client,
            at(f.host, 8193),
            (at(f.net1, 7001), 50_000),
        )
        .by(5)
        .just_seen()]),
        Case::from_endpoint(
            NET2,
            "a published port whose endpoint is gone drops endpoints' packets too",
            Frame::tcp(client, at(f.host, published::GONE.port)).syn(),
        )
        .dropped(DropReason::NoSuchEndpoint),
        Case::from_endpoint(
            NET2,
            "a hairpin packet with no hop left is dropped",
            Frame::tcp(client, web).syn().ttl(1),
        )
        .refused(DropReason::HopLimit, IcmpError::TimeExceeded),
    ]
}

fn the_host_itself(f: &Family) -> Vec<Case> {
    let (client, web) = (at(f.net1, 50_000), at(f.host, published::WEB.port));
    vec![
        Case::from_endpoint(
            NET1,
            "an endpoint pings its gateway",
            Frame::echo_request(f.net1, f.gateway, 1, 1),
        )
        .passes(),
        Case::from_endpoint(NET1, "an endpoint pings the host", Frame::echo_request(f.net1, f.host, 1, 1))
            .passes(),
        Case::from_endpoint(
            NET1,
            "an endpoint pings the host's address on another network",
            Frame::echo_request(f.net1, f.other_gateway, 1, 1),
        )
        .passes(),
        Case::from_endpoint(
            NET1,
            "an endpoint reaches a port of the host",
            Frame::tcp(client, at(f.host, 22)).syn(),
        )
        .passes(),
        Case::from_endpoint(
            NET1,
            "an endpoint reaches its gateway's resolver",
            Frame::udp(client, at(f.gateway, 53)),
        )
        .passes(),
        Case::from_endpoint(
            NET1,
            "a SYN-ACK to a published port is an answer to the host",
            Frame::tcp(client, web).syn().ack(),
        )
        .passes(),
        Case::from_endpoint(
            NET1,
            "a packet in mid-connection to a published port is an answer to the host",
            Frame::tcp(client, web).ack(),
        )
        .passes(),
        Case::from_endpoint(
            NET1,
            "a reset to a published port is an answer to the host",
            Frame::tcp(client, web).rst().ack(),
        )
        .passes(),
        Case::from_endpoint(
            NET1,
            "an endpoint speaks another protocol to the host",
            Frame::protocol(f.net1, f.host, 47),
        )
        .passes(),
        Case::from_endpoint(
            NET1,
            "an answer to a client on the host passes",
            Frame::tcp(at(f.net1, 80), at(f.gateway, 40_000)).syn().ack(),
        )
        .host_socket(tuple(Proto::UDP, at(f.www, 1), at(f.host, 40_000)))
        .passes(),
        Case::from_endpoint(
            NET1,
            "no endpoint talks to a loopback address",
            Frame::tcp(client, at(f.loopback, 8088)).syn(),
        )
        .dropped(DropReason::Loopback),
    ]
}
