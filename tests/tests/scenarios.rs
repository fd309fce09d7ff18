//! The scenarios vnet was asked for, each from `up` to real traffic, in both families, offloads on.
//!
//! Each is something people do by hand with `ip`, `brctl` and `iptables`; the numbers are those of the README's
//! table. What each needs in depth has a file of its own beside this one.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;

use vnet_tests::frame::dissect::{Network, dissect};
use vnet_tests::lab::{Endpoint, FAMILIES, HOST_V4, HOST_V6, Lab, UPLINK, eventually};
use vnet_tests::peer::{Answer, Ask, Capture, Ping, Server};

/// Addresses from which packets came or to which they went.
fn addresses(capture: &mut Capture) -> BTreeSet<IpAddr> {
    let mut addresses = BTreeSet::new();
    for frame in capture.frames() {
        match dissect(frame).unwrap().network {
            Network::Ip(ip) => addresses.extend([ip.source, ip.destination]),
            Network::Arp(arp) => addresses.extend([IpAddr::V4(arp.sender), IpAddr::V4(arp.target)]),
            Network::Other { ethertype, .. } => panic!("what is {ethertype:#06x}?"),
        }
    }
    addresses
}

/// TCP and UDP, the latter in both of its ways, to an echo server on the port.
fn ask_all(from: &vnet_tests::lab::Netns, target: SocketAddr) -> Vec<Answer> {
    let ways = [Ask::tcp(target), Ask::udp(target), Ask::udp_unconnected(target)];
    ways.iter().map(|ask| ask.in_netns(from)).collect()
}

/// Echo servers on a port, TCP and UDP, both families.
fn echo(netns: &vnet_tests::lab::Netns, port: u16) -> [Server; 2] {
    let listen = format!("[::]:{port}");
    [Server::echo(netns, &listen), Server::udp(netns, &listen)]
}

fn publish(lab: &Lab, published: &str, endpoint: &Endpoint, port: u16) {
    for proto in ["tcp", "udp"] {
        lab.vnet_ok(&["portmap", "add", published, &format!("{}:{port}", endpoint.name()), "--proto", proto]);
    }
}

fn assert_no_rules(lab: &Lab) {
    for netns in [lab.host(), lab.outside()] {
        assert_eq!(netns.run(&["nft", "list", "ruleset"]).ok().stdout, "");
        for program in ["iptables-save", "ip6tables-save"] {
            let saved = netns.run(&[program]).ok().stdout;
            let rules: Vec<_> = saved.lines().filter(|line| line.starts_with("-A")).collect();
            assert!(rules.is_empty(), "{program} in {}: {rules:#?}", netns.name());
        }
    }
}

#[test]
fn s1_an_endpoint_has_an_address_a_gateway_and_a_default_route() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    assert_eq!(net1.v4().to_string(), "192.168.0.2");
    assert!(net1.v6().to_string().starts_with("fd"), "a unique local address: {}", net1.v6());
    let gateways = net1.gateways();
    assert_eq!(gateways.len(), 2, "one default route of each family: {gateways:?}");
    assert!(gateways.contains(&"192.168.0.1".parse().unwrap()), "{gateways:?}");
    for gateway in gateways {
        Ping::to(gateway).in_netns(&net1);
    }
    let bridge = lab.host().ip("-d link show dev vnet0").stdout;
    assert!(bridge.contains(" bridge "), "{bridge}");
    // The namespace is one that `ip netns` knows, and `ns exec` enters it.
    let seen_by_ip = lab.host().run(&["ip", "netns", "exec", net1.name(), "ip", "-4", "addr"]).ok().stdout;
    let seen_by_exec = lab.vnet_ok(&["ns", "exec", net1.name(), "--", "ip", "-4", "addr"]).stdout;
    assert_eq!(seen_by_ip, seen_by_exec);
    assert!(seen_by_exec.contains("192.168.0.2/24"), "{seen_by_exec}");
    assert_no_rules(&lab);
}

#[test]
fn s2_endpoints_reach_the_world_and_the_world_sees_the_host() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _echo = echo(lab.outside(), 7);
    let mut wire = Capture::start(lab.outside(), UPLINK);
    for (outside, host) in FAMILIES {
        Ping::to(outside).in_netns(&net1);
        for answer in ask_all(&net1, (outside, 7).into()) {
            assert_eq!(answer.seen.ip(), host, "the address that the world sees");
            assert_eq!(answer.peer, SocketAddr::new(outside, 7), "the address that the endpoint talks to");
        }
    }
    let seen = addresses(&mut wire);
    assert!(seen.contains(&HOST_V4) && seen.contains(&HOST_V6), "{seen:?}");
    assert!(
        !seen.contains(&net1.v4()) && !seen.contains(&net1.v6()),
        "a private address is on the wire: {seen:?}"
    );
    assert_no_rules(&lab);
    let conntrack = "/proc/sys/net/netfilter/nf_conntrack_count";
    if fs::exists(conntrack).unwrap() {
        assert_eq!(lab.host().read(conntrack).trim(), "0", "the host's own connection tracking is not used");
    }
}

#[test]
fn s3_a_published_port_is_reached_from_outside_and_the_server_sees_the_client() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let servers = echo(&net1, 80);
    publish(&lab, "8088", &net1, 80);
    for (outside, host) in FAMILIES {
        for answer in ask_all(lab.outside(), (host, 8088).into()) {
            assert_eq!(answer.seen.ip(), outside, "the client as the server saw it");
            assert_eq!(answer.seen.port(), answer.local.port(), "not even its port was changed");
            assert_eq!(answer.peer, SocketAddr::new(host, 8088), "the server as the client saw it");
        }
        // Nothing else is open.
        Ask::tcp((host, 80).into()).fails_in(lab.outside());
    }
    assert_eq!(servers.each_ref().map(|server| server.seen().len()), [2, 4]);
    assert_no_rules(&lab);
}

#[test]
fn s4_a_port_published_on_one_address_answers_there_only() {
    let lab = Lab::new();
    lab.host().ip(&format!("addr add 203.0.113.5/24 dev {UPLINK}"));
    lab.host().ip(&format!("addr add 2001:db8:113::5/64 dev {UPLINK} nodad"));
    lab.vnet_ok(&["up"]);
    let net1 = lab.endpoint("net1");
    let _echo = echo(&net1, 80);
    publish(&lab, "203.0.113.5:8088", &net1, 80);
    publish(&lab, "[2001:db8:113::5]:8088", &net1, 80);
    for (on, other) in [("203.0.113.5", HOST_V4), ("2001:db8:113::5", HOST_V6)] {
        let on = SocketAddr::new(on.parse().unwrap(), 8088);
        for from in [lab.outside(), lab.host()] {
            for answer in ask_all(from, on) {
                assert_eq!(answer.peer, on);
            }
            Ask::tcp((other, 8088).into()).fails_in(from);
            Ask::udp((other, 8088).into()).fails_in(from);
        }
    }
    Ask::tcp("127.0.0.1:8088".parse().unwrap()).fails_in(lab.host());
}

#[test]
fn s5_the_host_reaches_its_published_port_by_each_of_its_addresses() {
    let lab = Lab::new();
    lab.host().ip(&format!("addr add 203.0.113.5/24 dev {UPLINK}"));
    lab.vnet_ok(&["up"]);
    let net1 = lab.endpoint("net1");
    let _echo = echo(&net1, 80);
    publish(&lab, "8088", &net1, 80);
    let mut addresses = vec![HOST_V4, HOST_V6, "203.0.113.5".parse().unwrap()];
    addresses.extend(net1.gateways());
    assert_eq!(addresses.len(), 5);
    for address in addresses {
        for answer in ask_all(lab.host(), (address, 8088).into()) {
            assert_eq!(answer.peer, SocketAddr::new(address, 8088), "the program talks to whom it dialled");
        }
    }
}

#[test]
fn s6_the_host_reaches_its_published_port_by_its_loopback_addresses() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _echo = echo(&net1, 80);
    publish(&lab, "8088", &net1, 80);
    for loopback in ["127.0.0.1:8088", "127.9.9.9:8088", "[::1]:8088"] {
        let loopback: SocketAddr = loopback.parse().unwrap();
        for answer in ask_all(lab.host(), loopback) {
            assert_eq!(answer.peer, loopback, "the program talks to whom it dialled");
            assert!(net1.gateways().contains(&answer.seen.ip()), "the server sees the host: {answer:?}");
        }
    }
    for interface in ["all", UPLINK, "lo", "vnet0"] {
        let setting = format!("/proc/sys/net/ipv4/conf/{interface}/route_localnet");
        assert_eq!(lab.host().read(&setting).trim(), "0", "{setting} is not needed");
    }
}

#[test]
fn s8_endpoints_of_a_network_reach_each_other() {
    let lab = Lab::up();
    let endpoints = ["net1", "net2", "net3"].map(|name| lab.endpoint(name));
    let _echoes = endpoints.each_ref().map(|endpoint| echo(endpoint, 7));
    for from in &endpoints {
        for to in endpoints.iter().filter(|to| to.name() != from.name()) {
            for address in [to.v4(), to.v6()] {
                Ping::to(address).in_netns(from);
                for answer in ask_all(from, (address, 7).into()) {
                    assert_eq!(answer.seen.ip(), from.addr_like(address), "nothing is translated");
                }
            }
        }
    }
}

#[test]
fn s9_endpoints_and_host_reach_each_other() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _on_endpoint = echo(&net1, 80);
    let mut addresses = net1.gateways();
    addresses.extend([HOST_V4, HOST_V6]);
    for address in addresses {
        // Bound to the address: a UDP server on all of them would answer from the one nearest to the client.
        let on_host = SocketAddr::new(address, 7).to_string();
        let _servers = [Server::echo(lab.host(), &on_host), Server::udp(lab.host(), &on_host)];
        Ping::to(address).in_netns(&net1);
        for answer in ask_all(&net1, (address, 7).into()) {
            assert_eq!(answer.seen.ip(), net1.addr_like(address), "the host sees the endpoint itself");
            assert_eq!(answer.peer.ip(), address);
        }
    }
    for address in [net1.v4(), net1.v6()] {
        Ping::to(address).in_netns(lab.host());
        ask_all(lab.host(), (address, 80).into());
    }
}

#[test]
fn s10_everything_works_with_forwarding_off_and_a_policy_of_drop() {
    let lab = Lab::new();
    for program in ["iptables", "ip6tables"] {
        lab.host().run(&[program, "-P", "FORWARD", "DROP"]).ok();
    }
    // What careful distributions set.
    for interface in ["all", "default", UPLINK] {
        lab.host().write(&format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter"), "1");
    }
    let forwarding = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];
    let before = forwarding.map(|setting| lab.host().read(setting));
    assert_eq!(before.each_ref().map(|value| value.trim()), ["0", "0"]);
    lab.vnet_ok(&["up"]);
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let _echoes = [echo(&net1, 80), echo(lab.outside(), 7)];
    publish(&lab, "8088", &net1, 80);
    for (outside, host) in FAMILIES {
        Ping::to(outside).in_netns(&net1);
        ask_all(&net1, (outside, 7).into());
        ask_all(lab.outside(), (host, 8088).into());
        ask_all(lab.host(), (host, 8088).into());
        ask_all(&net2, (host, 8088).into());
        ask_all(&net1, (host, 8088).into());
        ask_all(&net2, (net1.addr_like(host), 80).into());
    }
    assert_eq!(forwarding.map(|setting| lab.host().read(setting)), before, "global forwarding is left alone");
}

#[test]
fn s15_networks_are_made_like_docker_networks_and_keep_apart() {
    let lab = Lab::up();
    let blue = lab.name("blue");
    lab.vnet_ok(&["network", "create", &blue, "--subnet", "10.55.0.0/24", "--subnet", "fd55::/64"]);
    let net1 = lab.endpoint("net1");
    let [blue1, blue2] = ["blue1", "blue2"].map(|name| lab.endpoint_with(name, &["--network", &blue]));
    assert_eq!(blue1.v4().to_string(), "10.55.0.2");
    assert_eq!(blue2.v4().to_string(), "10.55.0.3");
    let _echoes = [echo(lab.outside(), 7), echo(&net1, 80), echo(&blue2, 80)];
    for (outside, host) in FAMILIES {
        // Each has the world and its own network.
        assert_eq!(ask_all(&blue1, (outside, 7).into())[0].seen.ip(), host);
        Ping::to(blue2.addr_like(host)).in_netns(&blue1);
        ask_all(&blue1, (blue2.addr_like(host), 80).into());
        // None has the other's.
        for (from, to) in [(&blue1, &net1), (&net1, &blue2)] {
            let to = to.addr_like(host);
            let _ = Ping::to(to).fails_in(from);
            Ask::tcp((to, 80).into()).fails_in(from);
            Ask::udp((to, 80).into()).fails_in(from);
        }
    }
    // What is published is public, for the other network as well.
    publish(&lab, "8088", &net1, 80);
    for (_, host) in FAMILIES {
        ask_all(&blue1, (host, 8088).into());
    }
}

/// Processes in a namespace, or run by vnet for this lab.
fn processes_of(lab: &Lab) -> Vec<String> {
    let host = fs::metadata(lab.host().path()).unwrap().ino();
    let instance = format!("VNET_INSTANCE={}\0", lab.instance());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let path = entry.path();
        let in_host = fs::metadata(path.join("ns/net")).is_ok_and(|netns| netns.ino() == host);
        let of_vnet = fs::read(path.join("environ")).is_ok_and(|environment| {
            environment.windows(instance.len()).any(|window| window == instance.as_bytes())
        });
        if in_host || of_vnet {
            found.push(
                String::from_utf8_lossy(&fs::read(path.join("cmdline")).unwrap_or_default()).into_owned(),
            );
        }
    }
    found
}

#[test]
fn s18_no_process_stands_between_client_and_server() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _echoes = [echo(&net1, 80), echo(lab.outside(), 7)];
    publish(&lab, "8088", &net1, 80);
    assert_eq!(processes_of(&lab), Vec::<String>::new(), "nothing of vnet runs, nothing runs on the host");
    let listening = lab.host().run(&["ss", "--no-header", "--listening", "--numeric", "--tcp", "--udp"]).ok();
    assert_eq!(listening.stdout, "", "nothing listens on the host");
    for (outside, host) in FAMILIES {
        ask_all(&net1, (outside, 7).into());
        ask_all(lab.outside(), (host, 8088).into());
        ask_all(lab.host(), (host, 8088).into());
    }
    // The question is asked right: a process of the host would have been found.
    let _sleep = lab.host().start(&["sleep", "60"]);
    // Its name is not yet to be seen at the moment it starts.
    eventually(
        || (processes_of(&lab) == ["sleep\x0060\x00"]).then_some(()),
        || format!("a process called sleep among {:?}", processes_of(&lab)),
    );
}
