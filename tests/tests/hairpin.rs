//! Published ports asked for from inside: by a neighbour of the server, by another network, by the server itself.

use std::net::SocketAddr;

use vnet_tests::lab::{FAMILIES, Lab};
use vnet_tests::peer::{Ask, Capture, Server};

#[test]
fn a_neighbour_reaches_the_published_port_and_the_server_sees_the_published_address() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let _servers = [Server::echo(&net1, "[::]:80"), Server::udp(&net1, "[::]:80")];
    for proto in ["tcp", "udp"] {
        lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name()), "--proto", proto]);
    }
    for (_, host) in FAMILIES {
        let published = SocketAddr::new(host, 8088);
        for ask in [Ask::tcp(published), Ask::udp(published), Ask::udp_unconnected(published)] {
            let answer = ask.in_netns(&net2);
            // RFC 4787 REQ-9a: from the external address, or the answer would take the short way back, untranslated.
            assert_eq!(answer.seen.ip(), host, "{ask}");
            assert_eq!(answer.peer, published, "{ask}");
        }
        // By the gateway's address as well: it is one of the host's.
        let gateway = net2.gateway_like(host);
        let answer = Ask::tcp((gateway, 8088).into()).in_netns(&net2);
        assert_eq!(answer.seen.ip(), gateway);
    }
}

#[test]
fn a_server_reaches_itself_through_its_published_port() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _servers = [Server::echo(&net1, "[::]:80"), Server::udp(&net1, "[::]:80")];
    for proto in ["tcp", "udp"] {
        lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name()), "--proto", proto]);
    }
    for (_, host) in FAMILIES {
        let published = SocketAddr::new(host, 8088);
        for ask in [Ask::tcp(published), Ask::udp(published), Ask::udp_unconnected(published)] {
            let answer = ask.in_netns(&net1);
            assert_eq!((answer.seen.ip(), answer.peer), (host, published), "{ask}");
        }
    }
}

#[test]
fn many_neighbours_with_the_same_source_port_are_told_apart() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let clients = ["net2", "net3", "net4"].map(|name| lab.endpoint(name));
    let server = Server::udp(&net1, "[::]:80");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name()), "--proto", "udp"]);
    for (_, host) in FAMILIES {
        for client in &clients {
            let from = SocketAddr::new(client.addr_like(host), 50_000);
            Ask::udp((host, 8088).into()).from(from).in_netns(client);
        }
    }
    let mut seen = server.seen();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 6, "two flows look the same to the server: {seen:?}");
}

#[test]
fn hairpin_needs_no_help_from_the_bridge() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let _server = Server::echo(&net1, "[::]:80");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    let mut inside = Capture::start(&net1, "eth0");
    for (_, host) in FAMILIES {
        Ask::tcp((host, 8088).into()).in_netns(&net2);
    }
    assert!(inside.lines().iter().any(|line| line.contains("Flags [S]")), "{:#?}", inside.lines());
    // No rules for br_netfilter to apply, and no port in hairpin mode.
    assert_eq!(lab.host().run(&["nft", "list", "ruleset"]).ok().stdout, "");
    let ports = lab.host().run(&["bridge", "-d", "link"]).ok().stdout;
    assert!(!ports.contains("hairpin on"), "{ports}");
}
