//! What IPv6 has that IPv4 has not. Everything both have is in the other files, for both.

use std::net::{IpAddr, SocketAddr};

use vnet_tests::frame::{DESTINATION_OPTIONS, Frame, HOP_BY_HOP, describe};
use vnet_tests::lab::{HOST_V4, HOST_V6, Lab, OUTSIDE_V4, OUTSIDE_V6, UPLINK};
use vnet_tests::peer::{Ask, Capture, Ping, Server, inject, interface_mac};

#[test]
fn a_network_may_have_ipv6_alone() {
    let lab = Lab::up();
    let six = lab.name("six");
    lab.vnet_ok(&["network", "create", &six, "--subnet", "fd66::/64"]);
    let net1 = lab.endpoint_with("net1", &["--network", &six]);
    assert_eq!(net1.addresses(), ["fd66::2".parse::<IpAddr>().unwrap()]);
    let _servers = [Server::echo(lab.outside(), "[::]:7"), Server::echo(&net1, "[::]:80")];
    assert_eq!(Ask::tcp((OUTSIDE_V6, 7).into()).in_netns(&net1).seen.ip(), HOST_V6);
    Ask::tcp((OUTSIDE_V4, 7).into()).fails_in(&net1);
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    Ask::tcp((HOST_V6, 8088).into()).in_netns(lab.outside());
    Ask::tcp((HOST_V4, 8088).into()).fails_in(lab.outside());
    Ask::tcp("[::1]:8088".parse().unwrap()).in_netns(lab.host());
}

#[test]
fn a_network_may_have_ipv4_alone() {
    let lab = Lab::new();
    lab.vnet_ok(&["up", "--subnet", "172.30.0.0/24"]);
    let net1 = lab.endpoint("net1");
    assert_eq!(net1.addresses(), ["172.30.0.2".parse::<IpAddr>().unwrap()]);
    let _servers = [Server::echo(lab.outside(), "[::]:7"), Server::echo(&net1, "[::]:80")];
    assert_eq!(Ask::tcp((OUTSIDE_V4, 7).into()).in_netns(&net1).seen.ip(), HOST_V4);
    Ask::tcp((OUTSIDE_V6, 7).into()).fails_in(&net1);
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    Ask::tcp((HOST_V4, 8088).into()).in_netns(lab.outside());
    Ask::tcp((HOST_V6, 8088).into()).fails_in(lab.outside());
}

#[test]
fn the_local_prefix_is_the_same_every_time() {
    let lab = Lab::up();
    let first = lab.endpoint("net1").v6();
    lab.vnet_ok(&["down"]);
    lab.vnet_ok(&["up"]);
    assert_eq!(lab.endpoint("net1").v6(), first);
    let other = Lab::up();
    let elsewhere = other.endpoint("net1").v6();
    assert_ne!(elsewhere, first, "two instances would clash if they were joined");
}

#[test]
fn an_address_is_usable_at_once() {
    // Duplicate address detection would take the first second of an endpoint's life.
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let addresses = net1.ip("-6 -o addr show dev eth0 scope global").stdout;
    assert!(!addresses.contains("tentative"), "{addresses}");
    Ping::to(OUTSIDE_V6).in_netns(&net1);
}

#[test]
fn link_local_neighbours_are_reached_and_stay_on_the_link() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let routers = net1.ip("-6 neigh show").stdout;
    assert!(!routers.contains("FAILED"), "{routers}");
    let listen = Server::echo(&net2, "[::]:7");
    let scope = net1.enter(|| nix::net::if_::if_nametoindex("eth0")).unwrap();
    let target = std::net::SocketAddrV6::new(net2.link_local(), 7, 0, scope);
    Ask::tcp(SocketAddr::V6(target)).in_netns(&net1);
    assert_eq!(listen.seen().len(), 1);
}

#[test]
fn packets_with_extension_headers_never_leave_with_an_inner_address() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let (mac, gateway) = (interface_mac(&net1, "eth0"), interface_mac(lab.host(), "vnet0"));
    let mut wire = Capture::start(lab.outside(), UPLINK);
    let plain = Frame::udp((net1.v6(), 50_000).into(), (OUTSIDE_V6, 7).into()).macs(mac, gateway);
    for header in [HOP_BY_HOP, DESTINATION_OPTIONS] {
        inject(&net1, "eth0", &plain.clone().ext_header(header, &[]).build());
    }
    inject(&net1, "eth0", &plain.build());
    let expected = Frame::udp((HOST_V6, 50_000).into(), (OUTSIDE_V6, 7).into()).to_string();
    wire.until(&expected, |frame| describe(frame) == expected);
    let leaked: Vec<_> =
        wire.lines().into_iter().filter(|line| line.contains(&net1.v6().to_string())).collect();
    assert!(leaked.is_empty(), "{leaked:#?}");
}

#[test]
fn fragments_are_not_sent_out_untranslated() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let (mac, gateway) = (interface_mac(&net1, "eth0"), interface_mac(lab.host(), "vnet0"));
    let mut wire = Capture::start(lab.outside(), UPLINK);
    for outside in [OUTSIDE_V4, OUTSIDE_V6] {
        let own = SocketAddr::new(net1.addr_like(outside), 50_000);
        let large = Frame::udp(own, (outside, 7).into()).payload(&[1; 3000]).macs(mac, gateway);
        for piece in large.fragments(1400) {
            inject(&net1, "eth0", &piece);
        }
        Ping::to(outside).in_netns(&net1);
    }
    let inner = [net1.v4().to_string(), net1.v6().to_string()];
    let leaked: Vec<_> =
        wire.lines().into_iter().filter(|line| inner.iter().any(|inner| line.contains(inner))).collect();
    assert!(leaked.is_empty(), "{leaked:#?}");
}
