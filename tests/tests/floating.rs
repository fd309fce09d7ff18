//! Floating addresses, and destinations that masquerade leaves alone: what the world sees of them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use vnet_tests::lab::{Endpoint, FAMILIES, Lab, OUTSIDE_V4, PATIENCE, UPLINK};
use vnet_tests::peer::{Ask, Capture, Ping, Server};

const EXTERNAL_V4: &str = "203.0.113.5";
const EXTERNAL_V6: &str = "2001:db8:113::5";

/// A lab whose host has two more addresses, which it does not choose by itself; vnet is up.
fn lab_with_external_addresses() -> Lab {
    let lab = Lab::new();
    lab.host().ip(&format!("addr add {EXTERNAL_V4}/32 dev {UPLINK}"));
    lab.host().ip(&format!("addr add {EXTERNAL_V6}/128 dev {UPLINK} nodad preferred_lft 0"));
    lab.vnet_ok(&["up"]);
    lab
}

fn external_like(other: IpAddr) -> IpAddr {
    let external = if other.is_ipv4() { EXTERNAL_V4 } else { EXTERNAL_V6 };
    external.parse().expect("an address")
}

/// Gives both addresses to an endpoint.
fn float(lab: &Lab, endpoint: &Endpoint) {
    for external in [EXTERNAL_V4, EXTERNAL_V6] {
        lab.vnet_ok(&["floating", "add", external, endpoint.name()]);
    }
}

#[test]
fn all_that_arrives_for_a_floating_address_goes_to_its_endpoint() {
    let lab = lab_with_external_addresses();
    let net1 = lab.endpoint("net1");
    float(&lab, &net1);
    // Any port, also one that masquerade uses.
    for port in [22, 8088, 50_000] {
        let listen = format!("[::]:{port}");
        let servers = [Server::echo(&net1, &listen), Server::udp(&net1, &listen)];
        for (outside, _) in FAMILIES {
            let external = SocketAddr::new(external_like(outside), port);
            for ask in [Ask::tcp(external), Ask::udp(external)] {
                let answer = ask.in_netns(lab.outside());
                assert_eq!(answer.seen, answer.local, "the server sees the client's own address and port");
                assert_eq!(answer.peer, external);
            }
        }
        assert!(servers.iter().all(|server| server.seen().len() == 2));
    }
    // The endpoint answers, not the host.
    lab.host().write("/proc/sys/net/ipv4/icmp_echo_ignore_all", "1");
    lab.host().write("/proc/sys/net/ipv6/icmp/echo_ignore_all", "1");
    for (outside, host) in FAMILIES {
        Ping::to(external_like(outside)).in_netns(lab.outside());
        let _ = Ping::to(host).fails_in(lab.outside());
    }
}

#[test]
fn what_the_endpoint_of_a_floating_address_sends_comes_from_there_with_its_own_port() {
    let lab = lab_with_external_addresses();
    let [net1, net2] = ["net1", "net2"].map(|name| lab.endpoint(name));
    float(&lab, &net1);
    let _servers = [Server::echo(lab.outside(), "[::]:7"), Server::udp(lab.outside(), "[::]:7")];
    for (outside, host) in FAMILIES {
        let external = external_like(outside);
        for ask in [Ask::tcp((outside, 7).into()), Ask::udp((outside, 7).into())] {
            let from = SocketAddr::new(net1.addr_like(outside), 4_000);
            assert_eq!(ask.clone().from(from).in_netns(&net1).seen, SocketAddr::new(external, 4_000));
            assert_eq!(ask.in_netns(&net2).seen.ip(), host, "the others go out as before");
        }
        let mut wire = Capture::start(lab.outside(), UPLINK);
        Ping::to(outside).in_netns(&net1);
        let lines = wire.lines();
        assert!(lines.iter().any(|line| line.contains(&external.to_string())), "{lines:#?}");
    }
}

#[test]
fn neighbours_reach_an_endpoint_by_its_floating_address() {
    let lab = lab_with_external_addresses();
    let [net1, net2] = ["net1", "net2"].map(|name| lab.endpoint(name));
    float(&lab, &net1);
    let _servers = [Server::echo(&net1, "[::]:80"), Server::udp(&net1, "[::]:80")];
    for (outside, _) in FAMILIES {
        let external = SocketAddr::new(external_like(outside), 80);
        for ask in [Ask::tcp(external), Ask::udp(external)] {
            let answer = ask.in_netns(&net2);
            assert_eq!(answer.peer, external);
        }
    }
}

#[test]
fn a_port_that_is_published_on_all_addresses_is_not_said_to_be_reached_by_a_floating_one() {
    let lab = lab_with_external_addresses();
    let [net1, net2] = ["net1", "net2"].map(|name| lab.endpoint(name));
    float(&lab, &net1);
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net2.name())]);
    let floating = Server::echo(&net1, "[::]:8088");
    let published = Server::echo(&net2, "[::]:80");
    let status = lab.vnet_json(&["status"]);
    let said = status["reachable"][0]["uplinks"][0]["addresses"].as_array().expect("addresses");
    for (outside, host) in FAMILIES {
        let external = external_like(outside);
        assert!(said.contains(&host.to_string().into()), "{status}");
        assert!(!said.contains(&external.to_string().into()), "all of it leads to another: {status}");
        // And so it is: a floating address keeps the port that was dialled.
        for dialled in [host, external] {
            assert_eq!(Ask::tcp((dialled, 8088).into()).in_netns(lab.outside()).peer.ip(), dialled);
        }
    }
    assert_eq!((floating.seen().len(), published.seen().len()), (2, 2));
    let text = lab.vnet_ok(&["status"]).stdout;
    assert!(text.contains(&format!("world by {EXTERNAL_V4}, a floating address")), "{text}");
}

#[test]
fn a_floating_address_that_is_taken_back_is_the_host_s_again() {
    let lab = lab_with_external_addresses();
    let net1 = lab.endpoint("net1");
    float(&lab, &net1);
    let _inside = Server::echo(&net1, "[::]:80");
    let external: SocketAddr = format!("{EXTERNAL_V4}:80").parse().expect("an address");
    let mut stream = lab.outside().enter(|| TcpStream::connect(external)).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(b"here").expect("a connection");
    let mut heard = [0; 1];
    assert_eq!(stream.read(&mut heard).expect("an answer"), 1);

    lab.vnet_ok(&["floating", "rm", EXTERNAL_V4]);
    // The connection ends: the host, which is asked now, knows nothing of it.
    let ended = loop {
        let mut more = [0; 512];
        let said = stream.write_all(b"still here?");
        match said.and_then(|()| stream.read(&mut more)) {
            Ok(0) => break None,
            Ok(_) => {}
            Err(error) => break Some(error.kind()),
        }
    };
    assert_eq!(ended, Some(std::io::ErrorKind::ConnectionReset));
    Ask::tcp(external).fails_in(lab.outside());
    let _host = Server::echo(lab.host(), "[::]:80");
    Ask::tcp(external).in_netns(lab.outside());
    let _server = Server::udp(lab.outside(), "[::]:7");
    let answer = Ask::udp((OUTSIDE_V4, 7).into()).in_netns(&net1);
    assert_eq!(answer.seen.ip().to_string(), "203.0.113.1");
}

#[test]
fn packets_to_destinations_that_are_left_out_keep_their_source() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    lab.outside().ip(&format!("addr add 203.0.113.66/24 dev {UPLINK}"));
    lab.outside().ip(&format!("addr add 2001:db8:113::66/64 dev {UPLINK} nodad"));
    let _server = Server::echo(lab.outside(), "[::]:7");
    for ((outside, host), other) in FAMILIES.into_iter().zip(["203.0.113.66", "2001:db8:113::66"]) {
        let other: IpAddr = other.parse().expect("an address");
        // A datagram socket on every address would answer from the first.
        let _servers =
            [outside, other].map(|on| Server::udp(lab.outside(), &SocketAddr::new(on, 7).to_string()));
        let own = net1.addr_like(outside);
        lab.outside().ip(&format!("route add {own} via {host}"));
        let length = if outside.is_ipv4() { 32 } else { 128 };
        let excluded = format!("{outside}/{length}");
        lab.vnet_ok(&["masquerade", "exclude", &excluded]);
        for (ask, masqueraded) in [
            (Ask::tcp((outside, 7).into()), Ask::tcp((other, 7).into())),
            (Ask::udp((outside, 7).into()), Ask::udp((other, 7).into())),
        ] {
            let answer = ask.in_netns(&net1);
            assert_eq!(answer.seen, answer.local, "address and port are the endpoint's own");
            assert_eq!(masqueraded.in_netns(&net1).seen.ip(), host);
        }
        Ping::to(outside).in_netns(&net1);
        // It opens nothing: who was not asked is not let in.
        let _inside = Server::udp(&net1, "[::]:9");
        Ask::udp((own, 9).into()).fails_in(lab.outside());

        lab.vnet_ok(&["masquerade", "include", &excluded]);
        assert_eq!(Ask::tcp((outside, 7).into()).in_netns(&net1).seen.ip(), host);
    }
}
