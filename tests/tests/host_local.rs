//! Programs of the host itself and published ports: who is answered, what they are told, what they may not do.

use std::net::{SocketAddr, UdpSocket};

use vnet_tests::lab::{FAMILIES, HOST_V4, Lab};
use vnet_tests::peer::{Ask, Server};

#[test]
fn an_unconnected_socket_hears_from_whom_it_asked() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _server = Server::udp(&net1, "[::]:53");
    lab.vnet_ok(&["portmap", "add", "5353", &format!("{}:53", net1.name()), "--proto", "udp"]);
    let targets: Vec<SocketAddr> = FAMILIES
        .iter()
        .map(|&(_, host)| SocketAddr::new(host, 5353))
        .chain(["127.0.0.1:5353", "[::1]:5353"].map(|text| text.parse().unwrap()))
        .collect();
    // One socket, several peers: what the second answer says must not be what the first one did.
    for pair in [[targets[0], targets[2]], [targets[1], targets[3]]] {
        let any = if pair[0].is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        lab.host().enter(|| {
            let socket = UdpSocket::bind(any).unwrap();
            socket.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            for target in [pair[0], pair[1], pair[0]] {
                socket.send_to(b"hello", target).unwrap();
                let (_, from) = socket.recv_from(&mut [0; 1500]).unwrap();
                assert_eq!(from, target);
            }
        });
    }
}

#[test]
fn a_socket_of_both_families_reaches_a_published_port_by_a_mapped_address() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _servers = [Server::echo(&net1, "[::]:80"), Server::udp(&net1, "[::]:80")];
    for proto in ["tcp", "udp"] {
        lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name()), "--proto", proto]);
    }
    for mapped in ["[::ffff:127.0.0.1]:8088", "[::ffff:203.0.113.1]:8088"] {
        let mapped: SocketAddr = mapped.parse().unwrap();
        for ask in [Ask::tcp(mapped), Ask::udp(mapped), Ask::udp_unconnected(mapped)] {
            assert_eq!(ask.in_netns(lab.host()).peer, mapped, "{ask}");
        }
    }
}

#[test]
fn other_hosts_on_the_same_kernel_are_left_alone() {
    let (one, two) = (Lab::up(), Lab::up());
    let net1 = one.endpoint("net1");
    let _published = Server::echo(&net1, "[::]:80");
    one.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    Ask::tcp("127.0.0.1:8088".parse().unwrap()).in_netns(one.host());
    // Neither the other host, nor an endpoint's own loopback, nor the outside.
    for elsewhere in [two.host(), net1.netns(), one.outside()] {
        Ask::tcp("127.0.0.1:8088".parse().unwrap()).fails_in(elsewhere);
        let own = Server::echo(elsewhere, "[::]:8088");
        Ask::tcp("127.0.0.1:8088".parse().unwrap()).in_netns(elsewhere);
        Ask::tcp("[::1]:8088".parse().unwrap()).in_netns(elsewhere);
        assert_eq!(own.seen().len(), 2);
    }
}

#[test]
fn programs_of_the_host_keep_their_own_ports() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    let own = Server::echo(lab.host(), "[::]:9099");
    for (_, host) in FAMILIES {
        for from in [lab.host(), lab.outside(), net1.netns()] {
            Ask::tcp((host, 9099).into()).in_netns(from);
        }
    }
    assert_eq!(own.seen().len(), 6);
}

#[test]
fn a_published_port_that_is_removed_is_the_host_s_again() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _target = Server::echo(&net1, "[::]:80");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    Ask::tcp("127.0.0.1:8088".parse().unwrap()).in_netns(lab.host());
    lab.vnet_ok(&["portmap", "rm", "8088"]);
    Ask::tcp("127.0.0.1:8088".parse().unwrap()).fails_in(lab.host());
    Ask::tcp((HOST_V4, 8088).into()).fails_in(lab.outside());
    let own = Server::echo(lab.host(), "[::]:8088");
    Ask::tcp("127.0.0.1:8088".parse().unwrap()).in_netns(lab.host());
    Ask::tcp((HOST_V4, 8088).into()).in_netns(lab.outside());
    assert_eq!(own.seen().len(), 2);
}
