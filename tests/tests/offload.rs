//! Large amounts and large packets: offloads on, digests at both ends, path MTU.

use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;
use vnet_tests::lab::{Endpoint, FAMILIES, HOST_V4, HOST_V6, Lab, Netns, OUTSIDE_V4, OUTSIDE_V6, UPLINK};
use vnet_tests::peer::{Ask, Capture, Counters, GIB, Ping, Server, Service, receive, send};

/// What a test streams where two gibibytes would be too much: still over 10,000 full packets.
const SOME: u64 = GIB / 16;

/// Sends to a sink and compares digests.
fn upload(from: &Netns, to: SocketAddr, bytes: u64) {
    from.enter(|| {
        let mut stream = TcpStream::connect(to).unwrap_or_else(|e| panic!("connect to {to}: {e}"));
        let digest = send(&stream, bytes).unwrap_or_else(|e| panic!("send to {to}: {e}"));
        stream.shutdown(Shutdown::Write).unwrap();
        let mut verdict = String::new();
        stream.read_to_string(&mut verdict).unwrap_or_else(|e| panic!("the digest of {to}: {e}"));
        assert_eq!(verdict, format!("{digest} {bytes}\n"), "what {to} received is not what was sent");
    });
}

/// Receives from a source and compares digests: the source sends what `send` would.
fn download(to: &Netns, from: SocketAddr, bytes: u64) {
    to.enter(|| {
        let stream = TcpStream::connect(from).unwrap_or_else(|e| panic!("connect to {from}: {e}"));
        let received = receive(&stream).unwrap_or_else(|e| panic!("receive from {from}: {e}"));
        let sent = send(std::io::sink(), bytes).unwrap();
        assert_eq!(received, (sent, bytes), "what came is not what {from} sent");
    });
}

fn assert_no_checksum_errors(lab: &Lab, endpoints: &[&Endpoint]) {
    let others = endpoints.iter().map(|endpoint| endpoint.netns());
    for netns in [lab.host(), lab.outside()].into_iter().chain(others) {
        Counters::of(netns).assert_no_checksum_errors();
    }
}

#[test]
fn two_gibibytes_come_in_through_a_published_port() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _sink = Server::tcp(&net1, "[::]:80", Service::Sink);
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    upload(lab.outside(), (HOST_V4, 8088).into(), 2 * GIB);
    upload(lab.outside(), (HOST_V6, 8088).into(), SOME);
    assert_no_checksum_errors(&lab, &[&net1]);
}

#[test]
fn two_gibibytes_go_out_through_masquerade() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _sink = Server::tcp(lab.outside(), "[::]:9", Service::Sink);
    upload(&net1, (OUTSIDE_V4, 9).into(), 2 * GIB);
    upload(&net1, (OUTSIDE_V6, 9).into(), SOME);
    assert_no_checksum_errors(&lab, &[&net1]);
}

#[test]
fn the_answers_of_both_are_as_large() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let _sources = [lab.outside(), net1.netns()]
        .map(|netns| Server::tcp(netns, "[::]:80", Service::Source { bytes: SOME }));
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    for (outside, host) in FAMILIES {
        download(&net1, (outside, 80).into(), SOME);
        download(lab.outside(), (host, 8088).into(), SOME);
        download(lab.host(), (host, 8088).into(), SOME);
        download(&net2, (host, 8088).into(), SOME);
        download(&net2, (net1.addr_like(host), 80).into(), SOME);
    }
    assert_no_checksum_errors(&lab, &[&net1, &net2]);
}

#[test]
fn packets_stay_large_all_the_way() {
    // Segmentation offload is on, and the way through vnet does not undo it: it would cost most of the speed.
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _sinks = [net1.netns(), lab.outside()].map(|netns| Server::tcp(netns, "[::]:80", Service::Sink));
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    for (outside, host) in FAMILIES {
        let mut ends = [Capture::start(&net1, "eth0"), Capture::start(lab.outside(), UPLINK)];
        upload(lab.outside(), (host, 8088).into(), 4 << 20);
        upload(&net1, (outside, 80).into(), 4 << 20);
        for end in &mut ends {
            let largest = end.frames().iter().map(Vec::len).max().unwrap_or(0);
            assert!(largest > 10_000, "the largest packet has {largest} bytes");
        }
    }
}

/// Lets streams through the uplink be made of aggregates of up to three times 64 KiB: endpoints follow it.
fn with_big_tcp() -> (Lab, Endpoint) {
    let lab = Lab::new();
    for netns in [lab.host(), lab.outside()] {
        netns.set_gso(UPLINK, 3 << 16);
    }
    lab.vnet_ok(&["up"]);
    let net1 = lab.endpoint("net1");
    (lab, net1)
}

#[test]
fn where_the_uplink_has_big_tcp_packets_are_larger_than_their_length_field() {
    let (lab, net1) = with_big_tcp();
    let net2 = lab.endpoint("net2");
    let _sinks = [net1.netns(), lab.outside()].map(|netns| Server::tcp(netns, "[::]:80", Service::Sink));
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    for (outside, host) in FAMILIES {
        // Who sends, to whom, and an interface near the receiver.
        let ways: [(&Netns, SocketAddr, (&Netns, &str)); 5] = [
            (&net1, (outside, 80).into(), (lab.outside(), UPLINK)),
            (lab.outside(), (host, 8088).into(), (net1.netns(), "eth0")),
            (lab.host(), (host, 8088).into(), (net1.netns(), "eth0")),
            (&net2, (host, 8088).into(), (net1.netns(), "eth0")),
            (&net2, (net1.addr_like(host), 80).into(), (net1.netns(), "eth0")),
        ];
        for (from, to, (netns, interface)) in ways {
            let mut end = Capture::start(netns, interface);
            upload(from, to, SOME);
            let largest = end.frames().iter().map(Vec::len).max().unwrap_or(0);
            assert!(
                largest > 1 << 16,
                "from {} to {to}: the largest packet has {largest} bytes",
                from.name()
            );
        }
    }
    assert_no_checksum_errors(&lab, &[&net1, &net2]);
    for reason in ["too-big", "malformed"] {
        assert_eq!(lab.dropped(reason), 0, "{reason}");
    }
    let network = &lab.vnet_list(&["network", "ls"], "networks")[0];
    assert_eq!((&network["gso_max_size"], &network["gso_ipv4_max_size"]), (&json!(3 << 16), &json!(3 << 16)));
    let again = lab.vnet_ok(&["up", "--dry-run"]).stdout;
    assert!(!again.contains("change"), "{again}");
}

#[test]
fn without_big_tcp_at_the_uplink_endpoints_are_as_the_kernel_makes_them() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let network = &lab.vnet_list(&["network", "ls"], "networks")[0];
    assert_eq!((&network["gso_max_size"], &network["gso_ipv4_max_size"]), (&json!(1 << 16), &json!(1 << 16)));
    let detailed = net1.ip("-d link show dev eth0").stdout;
    assert!(detailed.contains("gso_max_size 65536"), "{detailed}");
}

#[test]
fn segmented_datagrams_arrive_whole() {
    const SEGMENT: usize = 1200;
    const SEGMENTS: usize = 20;
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    for (outside, _) in FAMILIES {
        let receiver = lab.outside().enter(|| UdpSocket::bind((outside, 7))).unwrap();
        receiver.set_read_timeout(Some(vnet_tests::lab::PATIENCE)).unwrap();
        let sent: Vec<u8> = (0..SEGMENT * SEGMENTS).map(|n| (n / SEGMENT) as u8).collect();
        net1.enter(|| {
            let any: SocketAddr = if outside.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
            let socket = UdpSocket::bind(any).unwrap();
            setsockopt(&socket, sockopt::UdpGsoSegment, &(SEGMENT as i32)).unwrap();
            assert_eq!(socket.send_to(&sent, (outside, 7)).unwrap(), sent.len());
        });
        let mut received: Vec<u8> = Vec::new();
        while received.len() < sent.len() {
            let mut buffer = [0; 2000];
            let length = receiver.recv(&mut buffer).expect("every segment arrives");
            assert_eq!(length, SEGMENT);
            received.extend(&buffer[..length]);
        }
        assert_eq!(received, sent);
    }
    assert_no_checksum_errors(&lab, &[&net1]);
}

#[test]
fn datagrams_larger_than_the_mtu_between_endpoints_arrive() {
    // Within a network the bridge carries fragments: nothing has to be translated.
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let _server = Server::udp(&net2, "[::]:7");
    for address in net2.addresses() {
        Ask::udp((*address, 7).into()).payload(&[7; 4000]).in_netns(&net1);
    }
}

/// A lab whose uplink takes less than its endpoints do.
fn with_narrow_uplink() -> (Lab, Endpoint) {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    for netns in [lab.host(), lab.outside()] {
        netns.ip(&format!("link set {UPLINK} mtu 1400"));
    }
    let mtu = net1.ip("-o link show dev eth0").stdout;
    assert!(mtu.contains("mtu 1500"), "{mtu}");
    (lab, net1)
}

#[test]
fn a_packet_too_large_for_the_uplink_is_answered() {
    let (lab, net1) = with_narrow_uplink();
    for (outside, _) in FAMILIES.into_iter().filter(|(outside, _)| lab.forwards(*outside)) {
        let pong = Ping::to(outside).packet_size(1500).fails_in(&net1).expect("an answer");
        assert_eq!(pong.too_big(), Some(1400), "{pong:?}");
        assert_eq!(pong.sender(), net1.gateway_like(outside));
        Ping::to(outside).packet_size(1400).in_netns(&net1);
    }
    drop(lab);
}

#[test]
fn streams_find_their_way_through_a_narrow_uplink() {
    let (lab, net1) = with_narrow_uplink();
    let _sinks = [net1.netns(), lab.outside()].map(|netns| Server::tcp(netns, "[::]:80", Service::Sink));
    let _source = Server::tcp(&net1, "[::]:81", Service::Source { bytes: SOME });
    lab.vnet_ok(&["portmap", "add", "8088-8089", &format!("{}:80-81", net1.name())]);
    for (outside, host) in FAMILIES {
        upload(&net1, (outside, 80).into(), SOME);
        upload(lab.outside(), (host, 8088).into(), SOME);
        download(lab.outside(), (host, 8089).into(), SOME);
    }
    assert_no_checksum_errors(&lab, &[&net1]);
}

#[test]
fn a_packet_too_large_for_the_endpoint_is_dropped_counted_and_answered() {
    let lab = Lab::up();
    let narrow = lab.name("narrow");
    lab.vnet_ok(&[
        "network",
        "create",
        &narrow,
        "--subnet",
        "10.9.0.0/24",
        "--subnet",
        "fd09::/64",
        "--mtu",
        "1300",
    ]);
    let net1 = lab.endpoint_with("net1", &["--network", &narrow]);
    let _servers = [Server::udp(&net1, "[::]:7"), Server::tcp(&net1, "[::]:80", Service::Sink)];
    lab.vnet_ok(&["portmap", "add", "7007", &format!("{}:7", net1.name()), "--proto", "udp"]);
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    for (_, host) in FAMILIES {
        upload(lab.outside(), (host, 8088).into(), SOME);
        // TCP learns what fits from the other side's segment size; a datagram has no such help.
        let before = lab.dropped("too-big");
        let large = Ask::udp((host, 7007).into()).payload(&[7; 1400]);
        large.fails_in(lab.outside());
        assert!(lab.dropped("too-big") > before, "a datagram of 1400 bytes to {host}");
        let route = lab.outside().ip(&format!("-j route get {host}")).json();
        assert_eq!(route[0]["metrics"][0]["mtu"], 1300, "what the client has learnt: {route:#}");
        let small = Ask::udp((host, 7007).into()).payload(&[7; 1200]);
        small.in_netns(lab.outside());
    }
}
