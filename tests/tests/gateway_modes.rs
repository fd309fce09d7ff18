//! Gateway modes: who reaches whom, and under which address, where the world has a route to the endpoints.

use std::net::{IpAddr, SocketAddr};

use vnet_tests::lab::{Endpoint, FAMILIES, Lab};
use vnet_tests::peer::{Ask, Ping, Server};

/// A lab with an endpoint whose addresses the world has routes to.
fn lab_with_routes(mode: &str) -> (Lab, Endpoint) {
    let lab = Lab::up();
    lab.vnet_ok(&["network", "set", "default", "--gateway-mode", mode]);
    let net1 = lab.endpoint("net1");
    for (_, host) in FAMILIES {
        lab.outside().ip(&format!("route add {} via {host}", net1.addr_like(host)));
    }
    (lab, net1)
}

/// What the world sees of an endpoint that asks, for both families and both protocols.
fn seen(lab: &Lab, from: &Endpoint) -> Vec<(IpAddr, IpAddr)> {
    let _servers = [Server::echo(lab.outside(), "[::]:7"), Server::udp(lab.outside(), "[::]:7")];
    let mut seen = Vec::new();
    for (outside, host) in FAMILIES {
        for ask in [Ask::tcp((outside, 7).into()), Ask::udp((outside, 7).into())] {
            seen.push((ask.in_netns(from).seen.ip(), host));
        }
    }
    seen
}

#[test]
fn nat_hides_endpoints_and_shows_what_is_published() {
    let (lab, net1) = lab_with_routes("nat");
    let _server = Server::echo(&net1, "[::]:80");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    for (address, host) in seen(&lab, &net1) {
        assert_eq!(address, host);
    }
    for (outside, host) in FAMILIES {
        let own = net1.addr_like(outside);
        Ask::tcp((host, 8088).into()).in_netns(lab.outside());
        Ask::tcp((own, 80).into()).fails_in(lab.outside());
        let _ = Ping::to(own).fails_in(lab.outside());
    }
}

#[test]
fn an_unprotected_network_is_addressed_directly_and_goes_out_as_the_host() {
    let (lab, net1) = lab_with_routes("nat-unprotected");
    let _servers = [Server::echo(&net1, "[::]:80"), Server::udp(&net1, "[::]:80")];
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    for (address, host) in seen(&lab, &net1) {
        assert_eq!(address, host);
    }
    for (outside, host) in FAMILIES {
        let own = SocketAddr::new(net1.addr_like(outside), 80);
        for ask in [Ask::tcp(own), Ask::udp(own)] {
            let answer = ask.in_netns(lab.outside());
            assert_eq!((answer.seen, answer.peer), (answer.local, own), "untranslated both ways");
        }
        Ping::to(own.ip()).in_netns(lab.outside());
        Ask::tcp((host, 8088).into()).in_netns(lab.outside());
    }
    assert_eq!(lab.dropped("direct-access"), 0);
    assert!(
        lab.vnet_ok(&["status"]).stdout.contains("endpoints directly: those of default (nat-unprotected)")
    );
    // And from now on no more.
    lab.vnet_ok(&["network", "set", "default", "--gateway-mode", "nat"]);
    lab.vnet_ok(&["flow", "flush"]);
    for (outside, _) in FAMILIES {
        Ask::tcp((net1.addr_like(outside), 80).into()).fails_in(lab.outside());
    }
    assert!(lab.dropped("direct-access") >= 2);
}

#[test]
fn endpoints_of_a_routed_network_keep_their_addresses_and_answer_where_they_are_published() {
    let (lab, net1) = lab_with_routes("routed");
    let _servers = [80, 81].map(|port| Server::echo(&net1, &format!("[::]:{port}")));
    let published = FAMILIES.map(|(outside, _)| SocketAddr::new(net1.addr_like(outside), 80).to_string());
    for own in &published {
        lab.vnet_ok(&["portmap", "add", own, &format!("{}:80", net1.name())]);
    }
    for (n, (address, host)) in seen(&lab, &net1).into_iter().enumerate() {
        assert_eq!(address, net1.addr_like(host), "question {n}");
    }
    for (outside, _) in FAMILIES {
        Ping::to(outside).in_netns(&net1);
        let own = net1.addr_like(outside);
        let answer = Ask::tcp((own, 80).into()).in_netns(lab.outside());
        assert_eq!((answer.seen, answer.peer), (answer.local, (own, 80).into()), "untranslated both ways");
        Ask::tcp((own, 81).into()).fails_in(lab.outside());
    }
    for own in &published {
        lab.vnet_ok(&["portmap", "rm", own]);
    }
    for (outside, _) in FAMILIES {
        Ask::tcp((net1.addr_like(outside), 80).into()).fails_in(lab.outside());
    }
}

#[test]
fn a_change_of_the_mode_holds_for_the_next_flows() {
    let (lab, net1) = lab_with_routes("nat");
    for mode in ["nat", "routed", "nat"] {
        lab.vnet_ok(&["network", "set", "default", "--gateway-mode", mode]);
        lab.vnet_ok(&["flow", "flush"]);
        for (address, host) in seen(&lab, &net1) {
            let expected = if mode == "routed" { net1.addr_like(host) } else { host };
            assert_eq!(address, expected, "{mode}");
        }
    }
}
