//! The lab by itself: what every other test takes for granted, without vnet.

use std::net::SocketAddr;
use std::time::Instant;

use vnet_tests::frame::{Frame, describe};
use vnet_tests::lab::{FAMILIES, HOST_V4, HOST_V6, Lab, OUTSIDE_V4, OUTSIDE_V6, UPLINK};
use vnet_tests::peer::{
    Ask, Capture, Counters, GIB, Ping, Server, Service, inject, interface_mac, receive, send,
};

#[test]
fn host_and_outside_talk_in_both_families() {
    let lab = Lab::new();
    let _tcp = Server::echo(lab.host(), "[::]:80");
    let udp = Server::udp(lab.host(), "[::]:53");
    for (outside, host) in FAMILIES {
        Ping::to(host).in_netns(lab.outside());
        Ping::to(outside).in_netns(lab.host());
        let answer = Ask::tcp((host, 80).into()).from((outside, 4000).into()).in_netns(lab.outside());
        assert_eq!(answer.seen, SocketAddr::new(outside, 4000));
        assert_eq!(answer.peer, SocketAddr::new(host, 80));
        for ask in [Ask::udp((host, 53).into()), Ask::udp_unconnected((host, 53).into())] {
            assert_eq!(ask.in_netns(lab.outside()).seen.ip(), outside);
        }
    }
    assert_eq!(udp.seen().len(), 4);
    Ask::tcp((HOST_V4, 81).into()).fails_in(lab.outside());
    Ask::udp((HOST_V4, 81).into()).fails_in(lab.outside());
    let _ = Ping::to("203.0.113.77".parse().unwrap()).fails_in(lab.outside());
}

#[test]
fn outside_knows_no_way_beyond_the_host() {
    let lab = Lab::new();
    for target in ["192.168.0.2", "fd00::2"] {
        let error = Ping::to(target.parse().unwrap()).fails_in(lab.outside()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NetworkUnreachable, "{error}");
    }
}

#[test]
fn a_capture_sees_what_is_on_the_wire_and_injected_frames_are_on_it() {
    let lab = Lab::new();
    let mut capture = Capture::start(lab.outside(), UPLINK);
    Ping::to(OUTSIDE_V4).in_netns(lab.host());
    Ping::to(OUTSIDE_V6).in_netns(lab.host());
    let lines = capture.lines();
    for expected in [
        "IP 203.0.113.1 > 203.0.113.2: ICMP echo request",
        "IP 203.0.113.2 > 203.0.113.1: ICMP echo reply",
        "IP6 2001:db8:113::1 > 2001:db8:113::2: ICMP6 echo request",
        "IP6 2001:db8:113::2 > 2001:db8:113::1: ICMP6 echo reply",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(expected)), "expected {expected:?} in {lines:#?}");
    }
    let (from, to) = (interface_mac(lab.host(), UPLINK), interface_mac(lab.outside(), UPLINK));
    let spoofed = Frame::udp("192.0.2.1:1".parse().unwrap(), (OUTSIDE_V4, 9).into()).macs(from, to);
    inject(lab.host(), UPLINK, &spoofed.build());
    let seen = capture.until("the injected one", |frame| describe(frame) == spoofed.to_string());
    assert_eq!(seen, spoofed.build());
}

#[test]
fn a_datagram_whose_checksum_is_wrong_is_counted() {
    let lab = Lab::new();
    let _server = Server::udp(lab.outside(), "0.0.0.0:53");
    Counters::of(lab.outside()).assert_no_checksum_errors();
    let (from, to) = (interface_mac(lab.host(), UPLINK), interface_mac(lab.outside(), UPLINK));
    let frame = Frame::udp((HOST_V4, 1).into(), (OUTSIDE_V4, 53).into()).payload(b"bad").macs(from, to);
    inject(lab.host(), UPLINK, &frame.flip(43).build());
    Ask::udp((OUTSIDE_V4, 53).into()).in_netns(lab.host());
    assert_eq!(Counters::of(lab.outside()).get("UdpInCsumErrors"), 1);
}

#[test]
fn ping_reports_errors_of_routers() {
    let lab = Lab::new();
    lab.host().write("/proc/sys/net/ipv4/ip_forward", "1");
    lab.host().write("/proc/sys/net/ipv6/conf/all/forwarding", "1");
    lab.host().ip("link add inner mtu 1280 type veth peer name beyond");
    lab.host().ip("link set beyond up");
    for (prefix, host) in [("192.0.2.1/24", HOST_V4), ("2001:db8:2::1/64", HOST_V6)] {
        lab.host().ip(&format!("addr add {prefix} dev inner"));
        lab.outside()
            .ip(&format!("route add {} via {host}", prefix.replace("1/", "0/").replace("::0", "::")));
    }
    lab.host().ip("link set inner up");
    for target in ["192.0.2.7", "2001:db8:2::7"] {
        let ping = Ping::to(target.parse().unwrap());
        let pong = ping.clone().ttl(1).fails_in(lab.outside()).unwrap();
        assert!(pong.is_time_exceeded(), "{pong:?}");
        let pong = ping.packet_size(1400).fails_in(lab.outside()).unwrap();
        assert_eq!(pong.too_big(), Some(1280), "{pong:?}");
    }
}

#[test]
fn streams_have_the_same_digest_at_both_ends_and_run_at_speed() {
    let lab = Lab::new();
    let _sink = Server::tcp(lab.outside(), "[::]:9000", Service::Sink);
    let _source = Server::tcp(lab.outside(), "[::]:9001", Service::Source { bytes: GIB });
    let started = Instant::now();
    lab.host().enter(|| {
        let mut stream = std::net::TcpStream::connect((OUTSIDE_V4, 9000)).unwrap();
        let digest = send(&stream, GIB).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        assert_eq!(answer, format!("{digest} {GIB}\n"));
        let stream = std::net::TcpStream::connect((OUTSIDE_V6, 9001)).unwrap();
        assert_eq!(receive(&stream).unwrap(), (digest, GIB));
    });
    eprintln!("2 GiB in {:?}", started.elapsed());
}

#[test]
fn nothing_of_a_lab_is_left() {
    let lab = Lab::new();
    let (name, netns) = (lab.instance().to_owned(), lab.host().clone());
    assert!(netns.exists());
    drop(lab);
    assert!(!netns.exists());
    assert!(!std::path::Path::new("/run/vnet-lab").join(name).exists());
}

#[test]
fn a_lab_is_cleaned_up_after_a_panic() {
    let mut netns = None;
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let lab = Lab::new();
        netns = Some(lab.host().clone());
        lab.host().ip("link show dev nonsense");
    }));
    assert!(outcome.is_err());
    assert!(!netns.unwrap().exists());
}

#[test]
fn two_hosts_see_nothing_of_each_other() {
    let (one, two) = (Lab::new(), Lab::new());
    one.host().ip("link add only-here type bridge");
    assert!(one.snapshot().mentions(&["link:", "only-here"]));
    assert!(!two.snapshot().mentions(&["only-here"]));
    let before = two.snapshot();
    two.snapshot().assert_same_as(&before);
}
