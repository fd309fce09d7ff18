//! What must not work: nothing is reachable that was not published, nobody speaks in another's name.

use std::net::{IpAddr, SocketAddr};

use vnet_tests::frame::{Frame, SOURCE_MAC, describe};
use vnet_tests::lab::{Endpoint, FAMILIES, HOST_V4, Lab, Netns, OUTSIDE_V4, UPLINK};
use vnet_tests::peer::{Ask, Capture, Ping, Server, inject, interface_mac};

#[test]
fn a_host_that_routes_between_its_other_interfaces_does_not_open_its_networks() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _server = Server::echo(&net1, "[::]:80");
    // A neighbour on an interface that is no uplink, and a host that its owner has made a router.
    let lan = Netns::named(&lab.name("lan"));
    lan.create();
    lab.host().ip(&format!("link add lan0 type veth peer name eth0 netns {}", lan.name()));
    for (netns, interface, last) in [(lab.host(), "lan0", 1), (&lan, "eth0", 2)] {
        netns.ip(&format!("addr add 198.18.0.{last}/24 dev {interface}"));
        netns.ip(&format!("addr add 2001:db8:18::{last}/64 dev {interface} nodad"));
        netns.ip(&format!("link set {interface} up"));
    }
    lan.ip("route add default via 198.18.0.1");
    lan.ip("route add default via 2001:db8:18::1");
    lab.host().write("/proc/sys/net/ipv4/ip_forward", "1");
    lab.host().write("/proc/sys/net/ipv6/conf/all/forwarding", "1");
    for addr in [net1.v4(), net1.v6()] {
        Ask::tcp(SocketAddr::new(addr, 80)).fails_in(&lan);
        let _ = Ping::to(addr).fails_in(&lan);
        // The host itself is a neighbour.
        Ask::tcp(SocketAddr::new(addr, 80)).in_netns(lab.host());
    }
    assert!(lab.dropped("direct-access") >= 4);
    lan.delete();
}

#[test]
fn endpoints_cannot_be_addressed_from_outside() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _servers = [Server::echo(&net1, "[::]:80"), Server::udp(&net1, "[::]:80")];
    // Somebody on the same segment needs no more than a route.
    for (_, host) in FAMILIES {
        lab.outside().ip(&format!("route add {} via {host}", net1.addr_like(host)));
    }
    let mut inside = Capture::start(&net1, "eth0");
    for target in [net1.v4(), net1.v6()] {
        let before = lab.dropped("direct-access");
        let _ = Ping::to(target).fails_in(lab.outside());
        Ask::tcp((target, 80).into()).fails_in(lab.outside());
        Ask::udp((target, 80).into()).fails_in(lab.outside());
        assert!(lab.dropped("direct-access") >= before + 3, "each is counted");
    }
    let arrived: Vec<_> = inside.lines().into_iter().filter(|line| line.contains("113")).collect();
    assert!(arrived.is_empty(), "{arrived:#?}");
}

/// Sends a frame from an endpoint that must be dropped for `reason`, and never be seen outside or by a neighbour.
fn refused(lab: &Lab, from: &Endpoint, neighbour: &Endpoint, frame: &Frame, reason: &str) {
    let mut wires = [Capture::start(lab.outside(), UPLINK), Capture::start(neighbour, "eth0")];
    let before = lab.dropped(reason);
    inject(from, "eth0", &frame.build());
    assert_eq!(lab.dropped(reason), before + 1, "{frame} is counted as {reason}");
    for wire in &mut wires {
        let lines = wire.lines();
        assert!(!lines.contains(&frame.to_string()), "{frame} got through");
    }
}

#[test]
fn an_endpoint_cannot_send_in_another_name() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let mac = interface_mac(&net1, "eth0");
    let gateway = interface_mac(lab.host(), "vnet0");
    let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
    let nobody = |like: IpAddr| if like.is_ipv4() { v6("192.168.0.77") } else { v6("2001:db8:bad::1") };
    for (outside, host) in FAMILIES {
        let to = SocketAddr::new(outside, 7);
        for source in [nobody(outside), net2.addr_like(outside), host, net1.gateway_like(host), outside] {
            let frame = Frame::udp((source, 1000).into(), to).macs(mac, gateway);
            refused(&lab, &net1, &net2, &frame, "source-address");
        }
        let own = SocketAddr::new(net1.addr_like(outside), 1000);
        refused(&lab, &net1, &net2, &Frame::udp(own, to).macs(SOURCE_MAC, gateway), "source-mac");
        let neighbour = SocketAddr::new(net2.addr_like(outside), 7);
        let frame =
            Frame::udp((nobody(outside), 1).into(), neighbour).macs(mac, interface_mac(&net2, "eth0"));
        refused(&lab, &net1, &net2, &frame, "source-address");
    }
}

#[test]
fn an_endpoint_cannot_claim_another_address() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let mac = interface_mac(&net1, "eth0");
    let victim = interface_mac(&net2, "eth0");
    let gateway = net1.gateway_like(net1.v4());
    for frame in [
        Frame::arp_reply(mac, gateway, victim, net2.v4()),
        Frame::arp_request(mac, gateway, net2.v4()),
        Frame::neighbour_advertisement(mac, net1.v6(), net2.v6(), net1.gateway_like(net1.v6()))
            .macs(mac, victim),
    ] {
        refused(&lab, &net1, &net2, &frame, "neighbour-spoof");
    }
    let advertisement = Frame::router_advertisement(mac, net1.link_local().into());
    refused(&lab, &net1, &net2, &advertisement, "router-advertisement");
    // And still the two know each other.
    Ping::to(net1.v4()).in_netns(&net2);
    Ping::to(net1.v6()).in_netns(&net2);
}

#[test]
fn an_endpoint_cannot_send_what_vnet_does_not_understand() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let (mac, gateway) = (interface_mac(&net1, "eth0"), interface_mac(lab.host(), "vnet0"));
    let udp = Frame::udp((net1.v4(), 1).into(), (OUTSIDE_V4, 7).into()).macs(mac, gateway);
    refused(&lab, &net1, &net2, &Frame::raw(0x88cc, &[0; 46]).macs(mac, gateway), "ether-type");
    refused(&lab, &net1, &net2, &udp.clone().vlan(7), "ether-type");
    refused(&lab, &net1, &net2, &udp.clone().truncate(30), "malformed");
    for outside in [OUTSIDE_V4, "2001:db8:113::2".parse().unwrap()] {
        // Without ports there is nothing by which to tell the answers apart.
        let gre = Frame::protocol(net1.addr_like(outside), outside, 47).payload(&[0; 20]).macs(mac, gateway);
        refused(&lab, &net1, &net2, &gre, "untranslatable");
    }
    refused(&lab, &net1, &net2, &udp.fragment(1480, false).payload(&[0; 32]), "fragment");
}

#[test]
fn a_port_published_on_a_loopback_address_answers_the_host_alone() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let servers = [Server::echo(&net1, "[::]:80"), Server::udp(&net1, "[::]:80")];
    for proto in ["tcp", "udp"] {
        for on in ["127.0.0.1:8088", "[::1]:8088"] {
            lab.vnet_ok(&["portmap", "add", on, &format!("{}:80", net1.name()), "--proto", proto]);
        }
    }
    for loopback in ["127.0.0.1:8088", "[::1]:8088"] {
        let loopback = loopback.parse().unwrap();
        Ask::tcp(loopback).in_netns(lab.host());
        Ask::udp(loopback).in_netns(lab.host());
    }
    for (_, host) in FAMILIES {
        for from in [lab.outside(), lab.host(), net2.netns()] {
            Ask::tcp((host, 8088).into()).fails_in(from);
            Ask::udp((host, 8088).into()).fails_in(from);
        }
    }
    // A neighbour on the wire can put any address into a frame.
    let (from, to) = (interface_mac(lab.outside(), UPLINK), interface_mac(lab.host(), UPLINK));
    let before = lab.dropped("loopback");
    for (outside, loopback) in
        [("203.0.113.2:1000", "127.0.0.1:8088"), ("[2001:db8:113::2]:1000", "[::1]:8088")]
    {
        let frame = Frame::udp(outside.parse().unwrap(), loopback.parse().unwrap()).payload(b"let me in");
        inject(lab.outside(), UPLINK, &frame.macs(from, to).build());
    }
    assert_eq!(lab.dropped("loopback"), before + 2);
    assert_eq!(servers.each_ref().map(|server| server.seen().len()), [2, 2], "only the host was answered");
}

#[test]
fn a_stranger_outside_cannot_pose_as_an_endpoint() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let server = Server::udp(&net1, "[::]:80");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name()), "--proto", "udp"]);
    let (from, to) = (interface_mac(lab.outside(), UPLINK), interface_mac(lab.host(), UPLINK));
    let before = lab.dropped("source-address");
    for (_, host) in FAMILIES {
        let forged = SocketAddr::new(net2.addr_like(host), 1000);
        let frame = Frame::udp(forged, (host, 8088).into()).payload(b"trust me").macs(from, to);
        inject(lab.outside(), UPLINK, &frame.build());
    }
    assert_eq!(lab.dropped("source-address"), before + 2);
    Ask::udp((HOST_V4, 8088).into()).in_netns(lab.outside());
    assert_eq!(server.seen().len(), 1, "only the honest client was answered: {:?}", server.seen());
}

#[test]
fn an_internal_network_has_no_world_and_an_isolated_one_no_neighbours() {
    let lab = Lab::up();
    let (inner, alone) = (lab.name("inner"), lab.name("alone"));
    lab.vnet_ok(&[
        "network",
        "create",
        &inner,
        "--subnet",
        "10.66.0.0/24",
        "--subnet",
        "fd66::/64",
        "--internal",
    ]);
    lab.vnet_ok(&[
        "network",
        "create",
        &alone,
        "--subnet",
        "10.77.0.0/24",
        "--subnet",
        "fd77::/64",
        "--isolated",
    ]);
    let [inner1, inner2] = ["inner1", "inner2"].map(|name| lab.endpoint_with(name, &["--network", &inner]));
    let [alone1, alone2] = ["alone1", "alone2"].map(|name| lab.endpoint_with(name, &["--network", &alone]));
    let _servers = [
        Server::udp(lab.outside(), "[::]:7"),
        Server::udp(&inner2, "[::]:7"),
        Server::udp(&alone2, "[::]:7"),
    ];
    let mut wire = Capture::start(lab.outside(), UPLINK);
    for (outside, _) in FAMILIES {
        Ask::udp((outside, 7).into()).fails_in(&inner1);
        Ask::udp((inner2.addr_like(outside), 7).into()).in_netns(&inner1);
        Ask::udp((outside, 7).into()).in_netns(&alone1);
        Ask::udp((alone2.addr_like(outside), 7).into()).fails_in(&alone1);
        let _ = Ping::to(alone2.addr_like(outside)).fails_in(&alone1);
    }
    let leaked: Vec<_> =
        wire.lines().into_iter().filter(|line| line.contains("10.66.") || line.contains("fd66:")).collect();
    assert!(leaked.is_empty(), "{leaked:#?}");
}

#[test]
fn a_frame_that_is_allowed_gets_through() {
    // What the refusals above rest on: the same frame, told truthfully, does arrive.
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let (mac, gateway) = (interface_mac(&net1, "eth0"), interface_mac(lab.host(), "vnet0"));
    let mut wire = Capture::start(lab.outside(), UPLINK);
    for (outside, host) in FAMILIES {
        let frame =
            Frame::udp((net1.addr_like(outside), 50_000).into(), (outside, 7).into()).macs(mac, gateway);
        inject(&net1, "eth0", &frame.build());
        let expected = Frame::udp((host, 50_000).into(), (outside, 7).into()).to_string();
        let seen = wire.until(&expected, |frame| describe(frame) == expected);
        Frame::verify(&seen).unwrap();
    }
}
