//! The way out: which address and port the world sees, what is remembered, what is answered on the way.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use serde_json::Value;
use vnet_tests::frame::{Frame, describe};
use vnet_tests::lab::{FAMILIES, HOST_V4, Lab, OUTSIDE_V4, PATIENCE, UPLINK};
use vnet_tests::peer::{Ask, Capture, Ping, Server, inject, interface_mac};

/// Source ports that masquerade may use.
const NAT_PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;

#[test]
fn source_ports_are_kept_or_drawn_from_those_the_host_leaves_alone() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _servers = [Server::echo(lab.outside(), "[::]:7"), Server::udp(lab.outside(), "[::]:7")];
    for (outside, _) in FAMILIES {
        let own = net1.addr_like(outside);
        for ask in [Ask::tcp((outside, 7).into()), Ask::udp((outside, 7).into())] {
            let kept = ask.clone().from((own, 50_000).into()).in_netns(&net1);
            assert_eq!(kept.seen.port(), 50_000, "a port of the range is kept: {ask}");
            let drawn = ask.clone().from((own, 4_000).into()).in_netns(&net1);
            assert!(NAT_PORTS.contains(&drawn.seen.port()), "{} is not of the range: {ask}", drawn.seen);
            assert_eq!(drawn.local.port(), 4_000);
        }
    }
    let reserved = lab.host().read("/proc/sys/net/ipv4/ip_local_reserved_ports");
    assert_eq!(reserved.trim(), "49152-65535", "the host's own connections keep out of it");
}

#[test]
fn endpoints_that_use_the_same_source_port_are_told_apart() {
    let lab = Lab::up();
    let endpoints = ["net1", "net2", "net3"].map(|name| lab.endpoint(name));
    let tcp = Server::echo(lab.outside(), "[::]:7");
    let udp = Server::udp(lab.outside(), "[::]:7");
    for (outside, _) in FAMILIES {
        for endpoint in &endpoints {
            let from = SocketAddr::new(endpoint.addr_like(outside), 50_001);
            for ask in [Ask::tcp((outside, 7).into()), Ask::udp((outside, 7).into())] {
                ask.from(from).in_netns(endpoint);
            }
        }
    }
    for server in [tcp, udp] {
        let mut seen = server.seen();
        assert_eq!(seen.len(), 6);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 6, "two flows look the same from outside: {seen:?}");
    }
}

#[test]
fn concurrent_pings_with_the_same_identifier_reach_their_senders() {
    let lab = Lab::up();
    let endpoints = ["net1", "net2"].map(|name| lab.endpoint(name));
    // Raw sockets choose their identifiers; these are the same on purpose.
    for (outside, host) in FAMILIES {
        let mut wire = Capture::start(lab.outside(), UPLINK);
        let mut captures = endpoints.each_ref().map(|endpoint| Capture::start(endpoint, "eth0"));
        for endpoint in &endpoints {
            let gateway = interface_mac(lab.host(), "vnet0");
            let request = Frame::echo_request(endpoint.addr_like(outside), outside, 77, 1);
            inject(endpoint, "eth0", &request.macs(interface_mac(endpoint, "eth0"), gateway).build());
        }
        for (endpoint, capture) in endpoints.iter().zip(&mut captures) {
            let expected = Frame::echo_reply(outside, endpoint.addr_like(outside), 77, 1).to_string();
            capture.until(&expected, |frame| describe(frame) == expected);
        }
        let requests: Vec<_> =
            wire.lines().into_iter().filter(|line| line.contains("echo request")).collect();
        assert_eq!(requests.len(), 2, "{requests:#?}");
        assert!(requests.iter().all(|line| line.contains(&format!("{host} > "))), "{requests:#?}");
        assert_ne!(requests[0], requests[1], "both would get both answers");
    }
}

#[test]
fn flows_are_listed_with_both_tuples() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _server = Server::echo(lab.outside(), "[::]:7");
    for (outside, host) in FAMILIES {
        let answer = Ask::tcp((outside, 7).into()).in_netns(&net1);
        Ping::to(outside).in_netns(&net1);
        let flows = lab.vnet_list(&["flow", "ls"], "flows");
        let ends = |side: &Value| {
            let end = |addr: &str, port: &str| {
                format!("{} {}", side[addr].as_str().unwrap_or("?"), side[port].as_u64().unwrap_or(0))
            };
            (end("source", "source_port"), end("destination", "destination_port"))
        };
        let shown = |socket: SocketAddr| format!("{} {}", socket.ip(), socket.port());
        let of_tcp = flows
            .iter()
            .find(|flow| flow["protocol"] == "tcp" && ends(&flow["original"]).0 == shown(answer.local));
        let flow = of_tcp.unwrap_or_else(|| panic!("no flow of {answer:?} in {flows:#?}"));
        assert_eq!(ends(&flow["original"]).1, shown((outside, 7).into()), "{flow:#}");
        assert_eq!(ends(&flow["translated"]), (shown(answer.seen), shown((outside, 7).into())), "{flow:#}");
        assert_eq!(
            (&flow["original"]["zone"], &flow["translated"]["zone"]),
            (&"default".into(), &"world".into())
        );
        assert!(
            flow["packets_sent"].as_u64() >= Some(4) && flow["packets_received"].as_u64() >= Some(3),
            "{flow:#}"
        );
        assert_eq!(answer.seen.ip(), host);
        let icmp = if outside.is_ipv4() { "icmp" } else { "icmpv6" };
        assert!(flows.iter().any(|flow| flow["protocol"] == icmp), "no {icmp} flow in {flows:#?}");
    }
    let table = lab.vnet_ok(&["flow", "ls"]).stdout;
    assert!(table.contains(&net1.v4().to_string()) && table.contains("203.0.113.1"), "{table}");
}

#[test]
fn masquerade_follows_the_address_of_the_host() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _server = Server::udp(lab.outside(), "[::]:7");
    let ask = Ask::udp((OUTSIDE_V4, 7).into());
    assert_eq!(ask.in_netns(&net1).seen.ip(), HOST_V4);
    // As when a lease gives another address. Nothing of vnet runs that could be told.
    let other: IpAddr = "203.0.113.9".parse().unwrap();
    lab.host().ip(&format!("addr del {HOST_V4}/24 dev {UPLINK}"));
    lab.host().ip(&format!("addr add {other}/24 dev {UPLINK}"));
    lab.host().ip(&format!("route add default via {OUTSIDE_V4}"));
    assert_eq!(ask.in_netns(&net1).seen.ip(), other);
}

#[test]
fn masquerade_rules_say_who_goes_out_and_as_whom() {
    let lab = Lab::new();
    lab.host().ip(&format!("addr add 203.0.113.5/24 dev {UPLINK}"));
    lab.vnet_ok(&["up"]);
    let net1 = lab.endpoint("net1");
    let _server = Server::udp(lab.outside(), "[::]:7");
    let ask = Ask::udp((OUTSIDE_V4, 7).into());
    assert_eq!(ask.in_netns(&net1).seen.ip(), HOST_V4);

    lab.vnet_ok(&["masquerade", "rm", "192.168.0.0/24"]);
    lab.vnet_ok(&["flow", "flush"]);
    let mut wire = Capture::start(lab.outside(), UPLINK);
    ask.fails_in(&net1);
    assert!(lab.dropped("no-masquerade") >= 1);
    let leaked: Vec<_> = wire.lines().into_iter().filter(|line| line.contains("192.168.0.")).collect();
    assert!(leaked.is_empty(), "{leaked:#?}");

    lab.vnet_ok(&["masquerade", "add", "192.168.0.0/24", "--to", "203.0.113.5"]);
    assert_eq!(ask.in_netns(&net1).seen.to_string().split(':').next(), Some("203.0.113.5"));
    let rules = lab.vnet_list(&["masquerade", "ls"], "masquerades");
    assert!(rules.iter().any(|rule| rule.to_string().contains("203.0.113.5")), "{rules:#?}");
}

#[test]
fn a_packet_whose_ttl_runs_out_at_the_gateway_is_answered() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    for (outside, _) in FAMILIES.into_iter().filter(|(outside, _)| lab.forwards(*outside)) {
        let mut wire = Capture::start(lab.outside(), UPLINK);
        let pong = Ping::to(outside).ttl(1).fails_in(&net1).expect("an answer");
        assert!(pong.is_time_exceeded(), "{pong:?}");
        assert_eq!(pong.sender(), net1.gateway_like(outside), "the gateway answers, as a router would");
        assert!(!wire.lines().iter().any(|line| line.contains("echo request")), "it went out all the same");
        // One more, and it arrives.
        assert!(matches!(Ping::to(outside).ttl(2).try_in(&net1), Ok(vnet_tests::peer::Pong::Reply { .. })));
    }
}

#[test]
fn the_world_cannot_use_a_masqueraded_port() {
    let lab = Lab::up();
    lab.outside().ip(&format!("addr add 203.0.113.66/24 dev {UPLINK}"));
    let net1 = lab.endpoint("net1");
    let server = Server::udp(lab.outside(), "203.0.113.2:7");
    let own = SocketAddr::new(net1.v4(), 50_002);
    let socket = net1.enter(|| UdpSocket::bind(own)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 100];
    socket.send_to(b"?", (OUTSIDE_V4, 7)).unwrap();
    socket.recv_from(&mut buffer).unwrap();
    let seen = server.seen()[0];
    let mut inside = Capture::start(&net1, "eth0");
    // Somebody else, to the port that the endpoint's flow has, from whatever port.
    let before = lab.dropped("filtered");
    for from in ["203.0.113.66:7", "203.0.113.66:8"] {
        Ask::udp(seen).from(from.parse().unwrap()).fails_in(lab.outside());
    }
    assert_eq!(lab.dropped("filtered"), before + 2);
    let strangers: Vec<_> = inside.lines().into_iter().filter(|line| line.contains("UDP")).collect();
    assert!(strangers.is_empty(), "the endpoint was reached: {strangers:#?}");
    // The server itself is let in from another port: filtering is address-dependent (RFC 4787 REQ-8).
    let from: SocketAddr = "203.0.113.2:8".parse().unwrap();
    lab.outside().enter(|| UdpSocket::bind(from).unwrap().send_to(b"me again", seen)).unwrap();
    let (length, sender) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], sender), (&b"me again"[..], from));
}

#[test]
fn a_host_without_a_route_says_that_the_world_is_unreachable() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    lab.host().ip("route del default");
    let pong = Ping::to("198.51.100.1".parse().unwrap()).fails_in(&net1).expect("an answer");
    assert!(matches!(pong, vnet_tests::peer::Pong::Error { kind: 3, code: 0 | 1, .. }), "{pong:?}");
    assert_eq!(pong.sender(), net1.gateway_like(OUTSIDE_V4));
}
