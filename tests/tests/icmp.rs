//! ICMP errors: who gets them, about what, and what comes of it for programs, routes and flows.
//!
//! ```text
//!   net1, net2 --- host 203.0.113.1 --- 203.0.113.2 outside 198.51.100.1 --- 198.51.100.2 far
//! ```

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::libc;
use vnet_common::Mac;
use vnet_tests::frame::dissect::{Ip, Network, dissect};
use vnet_tests::frame::{DESTINATION_OPTIONS, Frame, IcmpError, describe};
use vnet_tests::lab::{Endpoint, FAMILIES, Lab, Netns, OUTSIDE_V4, OUTSIDE_V6, PATIENCE, UPLINK, eventually};
use vnet_tests::peer::{
    Ask, Capture, Counters, Ping, Pong, Server, Service, inject, interface_mac, receive, send,
};

/// What a stream carries: over 10,000 full packets.
const SOME: u64 = 16 << 20;

/// Addresses of the far host and of the router before it, by family.
const FAR: [(&str, &str, u8); 2] =
    [("198.51.100.2", "198.51.100.1", 24), ("2001:db8:51::2", "2001:db8:51::1", 64)];

/// A host behind `outside`, which is a router then.
struct Far(Netns);

impl Far {
    /// With a link of this MTU between both.
    fn behind(lab: &Lab, mtu: u16) -> Self {
        let far = Self(Netns::named(&lab.name("far")));
        far.0.create();
        lab.outside()
            .ip(&format!("link add far mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}", far.0.name()));
        for (netns, interface) in [(lab.outside(), "far"), (&far.0, "eth0")] {
            netns.write(&format!("/proc/sys/net/ipv6/conf/{interface}/accept_dad"), "0");
        }
        for (own, router, bits) in FAR {
            lab.outside().ip(&format!("addr add {router}/{bits} dev far nodad"));
            far.0.ip(&format!("addr add {own}/{bits} dev eth0 nodad"));
        }
        lab.outside().ip("link set far up");
        far.0.ip("link set eth0 up");
        for (_, router, _) in FAR {
            far.0.ip(&format!("route add default via {router}"));
        }
        for family in ["ipv4", "ipv6"] {
            lab.outside().write(&format!("/proc/sys/net/{family}/conf/all/forwarding"), "1");
        }
        // A router has no limit on what a test asks of it.
        lab.outside().write("/proc/sys/net/ipv4/icmp_ratemask", "0");
        lab.outside().write("/proc/sys/net/ipv6/icmp/ratelimit", "0");
        for family in [OUTSIDE_V4, OUTSIDE_V6] {
            let answered =
                || Ping::to(far.addr(family)).patience(Duration::from_millis(50)).try_in(lab.host()).is_ok();
            eventually(|| answered().then_some(()), || "the way to the far host".to_owned());
        }
        far
    }

    fn addr(&self, like: IpAddr) -> IpAddr {
        let (own, ..) = FAR[usize::from(like.is_ipv6())];
        own.parse().expect("an address")
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.0.delete();
    }
}

/// The packet that an ICMP error quotes, and who sent the error.
#[derive(Debug, PartialEq, Eq)]
struct Complaint {
    from: IpAddr,
    to: IpAddr,
    kind: u8,
    code: u8,
    about: (IpAddr, IpAddr),
    protocol: u8,
    transport: Vec<u8>,
}

impl Complaint {
    /// Reads one; `None` if the frame is none. What is quoted may be cut short.
    fn read(frame: &[u8]) -> Option<Self> {
        let Ok(Network::Ip(Ip { source, destination, protocol, carried, .. })) =
            dissect(frame).map(|d| d.network)
        else {
            return None;
        };
        let (&[kind, code], v4) = (carried.first_chunk()?, source.is_ipv4());
        let error = match protocol {
            1 => matches!(kind, 3 | 11 | 12),
            58 => matches!(kind, 1..=4),
            _ => false,
        };
        if !error {
            return None;
        }
        Frame::verify(frame).unwrap_or_else(|e| panic!("{}: {e}", describe(frame)));
        let quoted = carried.get(8..)?;
        let (header, protocol) =
            if v4 { (usize::from(quoted[0] & 15) * 4, quoted[9]) } else { (40, quoted[6]) };
        let addr = |at: usize| -> IpAddr {
            if v4 {
                <[u8; 4]>::try_from(&quoted[at..at + 4]).expect("four bytes").into()
            } else {
                <[u8; 16]>::try_from(&quoted[at..at + 16]).expect("sixteen bytes").into()
            }
        };
        let about = if v4 { (addr(12), addr(16)) } else { (addr(8), addr(24)) };
        let (from, to, transport) = (source, destination, quoted.get(header..)?.to_vec());
        Some(Self { from, to, kind, code, about, protocol, transport })
    }

    /// Source and destination port of the packet quoted.
    fn ports(&self) -> (u16, u16) {
        let [a, b, c, d, ..] = self.transport[..] else { panic!("{self:?} quotes too little") };
        (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
    }
}

/// Waits for an ICMP error.
fn complaint(capture: &mut Capture, expected: &str, wanted: impl Fn(&Complaint) -> bool) -> Complaint {
    let frame =
        capture.until(expected, |frame| Complaint::read(frame).is_some_and(|complaint| wanted(&complaint)));
    Complaint::read(&frame).expect("just read")
}

/// No frame has an address in it that belongs to the inside, quotes and all.
fn assert_nothing_of(frames: &[Vec<u8>], endpoint: &Endpoint) {
    for addr in endpoint.addresses() {
        let bytes = match addr {
            IpAddr::V4(addr) => addr.octets().to_vec(),
            IpAddr::V6(addr) => addr.octets().to_vec(),
        };
        let leaks = |frame: &&Vec<u8>| frame.windows(bytes.len()).any(|window| window == bytes);
        let leaked: Vec<_> = frames.iter().filter(leaks).map(|frame| describe(frame)).collect();
        assert!(leaked.is_empty(), "{addr} is in {leaked:#?}");
    }
}

const fn port_unreachable(like: IpAddr) -> (u8, u8) {
    if like.is_ipv4() { (3, 3) } else { (1, 4) }
}

#[test]
fn udp_to_a_closed_port_outside_is_refused() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    for (outside, _) in FAMILIES {
        // From a port that the host keeps to itself, so that the one outside is another.
        let own = SocketAddr::new(net1.addr_like(outside), 4_000);
        let mut inside = Capture::start(&net1, "eth0");
        let error = Ask::udp((outside, 9).into()).from(own).fails_in(&net1);
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        let seen = complaint(&mut inside, "port unreachable", |seen| seen.from == outside);
        assert_eq!((seen.kind, seen.code), port_unreachable(outside));
        assert_eq!((seen.to, seen.about, seen.ports()), (own.ip(), (own.ip(), outside), (4_000, 9)));
    }
    Counters::of(&net1).assert_no_checksum_errors();
}

#[test]
fn udp_to_a_published_port_where_nobody_listens_is_refused() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    lab.vnet_ok(&["portmap", "add", "7007", &format!("{}:7", net1.name()), "--proto", "udp"]);
    for (outside, host) in FAMILIES {
        let mut wire = Capture::start(lab.outside(), UPLINK);
        let error = Ask::udp((host, 7007).into()).from((outside, 5_000).into()).fails_in(lab.outside());
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        let seen = complaint(&mut wire, "port unreachable", |seen| seen.from == host);
        assert_eq!((seen.kind, seen.code), port_unreachable(host));
        assert_eq!((seen.to, seen.about, seen.ports()), (outside, (outside, host), (5_000, 7007)));
        assert_nothing_of(wire.frames(), &net1);
        // From a neighbour, and from the endpoint itself.
        for client in [&net2, &net1] {
            let error = Ask::udp((host, 7007).into()).fails_in(client);
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "from {}: {error}", client.name());
        }
    }
    for netns in [lab.outside(), net1.netns(), net2.netns()] {
        Counters::of(netns).assert_no_checksum_errors();
    }
}

#[test]
fn an_error_that_the_stack_forwards_is_translated_as_well() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let server = Server::udp(&net1, "[::]:7");
    lab.vnet_ok(&["portmap", "add", "7007", &format!("{}:7", net1.name()), "--proto", "udp"]);
    let (mac, gateway) = (interface_mac(&net1, "eth0"), interface_mac(lab.host(), "vnet0"));
    let families: Vec<_> = FAMILIES.into_iter().filter(|(outside, _)| lab.forwards(*outside)).collect();
    for &(outside, host) in &families {
        Ask::udp((host, 7007).into()).from((outside, 5_000).into()).in_netns(lab.outside());
        let own = net1.addr_like(outside);
        let received = Frame::udp((outside, 5_000).into(), (own, 7).into()).payload(b"?");
        let error = Frame::icmp_error(own, outside, IcmpError::HostUnreachable, &received).macs(mac, gateway);
        // The fast path leaves options alone.
        let error = if own.is_ipv4() {
            error.ip_options(&[1; 4])
        } else {
            error.ext_header(DESTINATION_OPTIONS, &[1; 6])
        };
        let mut wire = Capture::start(lab.outside(), UPLINK);
        inject(&net1, "eth0", &error.build());
        let seen = complaint(&mut wire, "host unreachable", |_| true);
        assert_eq!((seen.from, seen.to, seen.about), (host, outside, (outside, host)));
        assert_eq!(seen.ports(), (5_000, 7007));
        assert_nothing_of(wire.frames(), &net1);
    }
    assert_eq!(server.seen().len(), families.len());
}

/// A packet of each protocol by which routes are traced, to `to`.
fn probes(from: IpAddr, to: IpAddr, ttl: u8) -> [(u8, Frame); 3] {
    let (own, id) = (u16::from(ttl) + 4_000, u16::from(ttl));
    let tcp = Frame::tcp((from, own).into(), (to, 80).into()).syn();
    let udp = Frame::udp((from, own).into(), (to, 33_434).into()).payload(b"where");
    let icmp = if from.is_ipv4() { 1 } else { 58 };
    [(6, tcp.ttl(ttl)), (17, udp.ttl(ttl)), (icmp, Frame::echo_request(from, to, id, 1).ttl(ttl))]
}

/// Who says that the hop limit of these packets ran out, and about which.
fn hop(netns: &Netns, interface: &str, macs: (Mac, Mac), (protocol, frame): &(u8, Frame)) -> IpAddr {
    let mut capture = Capture::start(netns, interface);
    let frame = frame.clone().macs(macs.0, macs.1);
    inject(netns, interface, &frame.build());
    let seen = complaint(&mut capture, &format!("an error about {frame}"), |seen| seen.protocol == *protocol);
    let v4 = seen.from.is_ipv4();
    assert_eq!((seen.kind, seen.code), if v4 { (11, 0) } else { (3, 0) }, "{frame}: {seen:?}");
    let bytes = frame.build();
    let Ok(Network::Ip(sent)) = dissect(&bytes).map(|dissected| dissected.network) else {
        panic!("{frame} is IP")
    };
    assert_eq!((seen.to, seen.about), (sent.source, (sent.source, sent.destination)), "{frame}");
    // As it was sent, checksum included.
    let length = seen.transport.len().min(sent.carried.len());
    assert_eq!(seen.transport[..length], sent.carried[..length], "{frame}");
    seen.from
}

#[test]
fn a_trace_from_an_endpoint_shows_every_hop() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let far = Far::behind(&lab, 1500);
    let macs = (interface_mac(&net1, "eth0"), interface_mac(lab.host(), "vnet0"));
    for (outside, _) in FAMILIES {
        let (own, to) = (net1.addr_like(outside), far.addr(outside));
        let gateway = lab.forwards(outside).then(|| (1, net1.gateway_like(outside)));
        for (ttl, expected) in gateway.into_iter().chain([(2, outside)]) {
            for probe in probes(own, to, ttl) {
                assert_eq!(hop(&net1, "eth0", macs, &probe), expected, "hop {ttl} of {}", probe.1);
            }
        }
        // Who is there says so: with a reset, an error, a reply.
        let mut inside = Capture::start(&net1, "eth0");
        for (_, probe) in probes(own, to, 3) {
            inject(&net1, "eth0", &probe.macs(macs.0, macs.1).build());
        }
        inside
            .until("a reset", |frame| describe(frame).contains(&format!("{to}.80 > {own}.4003: Flags [R.]")));
        inside.until("an echo reply", |frame| describe(frame).contains("echo reply, id 3"));
        let seen = complaint(&mut inside, "port unreachable", |_| true);
        assert_eq!((seen.from, (seen.kind, seen.code)), (to, port_unreachable(to)));
        assert_eq!((seen.about, seen.ports()), ((own, to), (4_003, 33_434)));
    }
    Counters::of(&net1).assert_no_checksum_errors();
}

#[test]
fn a_trace_to_a_published_port_shows_the_host_as_a_hop() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let far = Far::behind(&lab, 1500);
    let _server = Server::echo(&net1, "[::]:80");
    lab.vnet_ok(&["portmap", "add", "80", &format!("{}:80", net1.name())]);
    lab.vnet_ok(&["portmap", "add", "33434", &format!("{}:33434", net1.name()), "--proto", "udp"]);
    let macs = (interface_mac(&far.0, "eth0"), interface_mac(lab.outside(), "far"));
    for ((outside, host), (_, router, _)) in FAMILIES.into_iter().zip(FAR) {
        let own = far.addr(outside);
        let router: IpAddr = router.parse().unwrap();
        for (ttl, expected) in [(1, router), (2, host)] {
            // The host answers pings itself.
            for probe in probes(own, host, ttl).into_iter().take(2) {
                assert_eq!(hop(&far.0, "eth0", macs, &probe), expected, "hop {ttl} of {}", probe.1);
            }
        }
        let mut wire = Capture::start(&far.0, "eth0");
        for (_, probe) in probes(own, host, 3) {
            inject(&far.0, "eth0", &probe.macs(macs.0, macs.1).build());
        }
        wire.until("an answer", |frame| {
            describe(frame).contains(&format!("{host}.80 > {own}.4003: Flags [S.]"))
        });
        let seen = complaint(&mut wire, "port unreachable", |_| true);
        assert_eq!((seen.from, (seen.kind, seen.code)), (host, port_unreachable(host)));
        assert_nothing_of(wire.frames(), &net1);
    }
    assert!(lab.dropped("hop-limit") >= 4);
    Counters::of(&far.0).assert_no_checksum_errors();
}

#[test]
fn a_published_port_of_a_neighbour_is_one_hop_away() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let _server = Server::echo(&net1, "[::]:80");
    lab.vnet_ok(&["portmap", "add", "80", &format!("{}:80", net1.name())]);
    let macs = (interface_mac(&net2, "eth0"), interface_mac(lab.host(), "vnet0"));
    for (_, host) in FAMILIES {
        let own = net2.addr_like(host);
        let [tcp, ..] = probes(own, host, 1);
        assert_eq!(hop(&net2, "eth0", macs, &tcp), net2.gateway_like(host));
        let mut inside = Capture::start(&net2, "eth0");
        let [(_, tcp), ..] = probes(own, host, 2);
        inject(&net2, "eth0", &tcp.macs(macs.0, macs.1).build());
        inside.until("an answer", |frame| {
            describe(frame).contains(&format!("{host}.80 > {own}.4002: Flags [S.]"))
        });
    }
}

/// The MTU that a namespace has learnt for the way to an address.
fn path_mtu(netns: &Netns, to: IpAddr) -> Option<u64> {
    let route = netns.ip(&format!("-j route get {to}")).json();
    route[0]["metrics"][0]["mtu"].as_u64()
}

/// Sends to a sink; returns how many bytes arrived. What is wrong with them shows in [`send`]'s digest.
fn upload(from: &Netns, to: SocketAddr) {
    from.enter(|| {
        let mut stream = TcpStream::connect(to).unwrap_or_else(|e| panic!("connect to {to}: {e}"));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let digest = send(&stream, SOME).unwrap_or_else(|e| panic!("send to {to}: {e}"));
        stream.shutdown(Shutdown::Write).unwrap();
        let mut verdict = String::new();
        stream.read_to_string(&mut verdict).unwrap_or_else(|e| panic!("the digest of {to}: {e}"));
        assert_eq!(verdict, format!("{digest} {SOME}\n"), "what {to} received is not what was sent");
    });
}

fn download(to: &Netns, from: SocketAddr) {
    to.enter(|| {
        let stream = TcpStream::connect(from).unwrap_or_else(|e| panic!("connect to {from}: {e}"));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let received = receive(&stream).unwrap_or_else(|e| panic!("receive from {from}: {e}"));
        assert_eq!(
            received,
            (send(std::io::sink(), SOME).unwrap(), SOME),
            "what came is not what {from} sent"
        );
    });
}

#[test]
fn endpoints_learn_the_mtu_of_a_path_from_the_router_that_is_narrow() {
    for narrow in [1280, 1400] {
        let lab = Lab::up();
        let net1 = lab.endpoint("net1");
        let far = Far::behind(&lab, narrow);
        for (outside, _) in FAMILIES {
            let to = far.addr(outside);
            assert_eq!(path_mtu(&net1, to), None);
            let pong = Ping::to(to).packet_size(1500).fails_in(&net1).expect("an answer");
            assert_eq!((pong.sender(), pong.too_big()), (outside, Some(narrow)), "{pong:?}");
            assert_eq!(path_mtu(&net1, to), Some(u64::from(narrow)), "{to}");
            Ping::to(to).packet_size(usize::from(narrow)).in_netns(&net1);
        }
        Counters::of(&net1).assert_no_checksum_errors();
    }
}

#[test]
fn streams_find_their_way_past_a_narrow_router() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let far = Far::behind(&lab, 1300);
    // Both ends announce what their own links take, which is more than the link between takes.
    far.0.ip("link set eth0 mtu 1500");
    let _servers = [
        Server::tcp(&net1, "[::]:80", Service::Sink),
        Server::tcp(&net1, "[::]:81", Service::Source { bytes: SOME }),
        Server::tcp(&far.0, "[::]:80", Service::Sink),
    ];
    lab.vnet_ok(&["portmap", "add", "8088-8089", &format!("{}:80-81", net1.name())]);
    for (outside, host) in FAMILIES {
        let to = far.addr(outside);
        upload(&net1, (to, 80).into());
        assert_eq!(path_mtu(&net1, to), Some(1300), "{to}: masquerade");
        net1.ip("route flush cache");
        // What the endpoint sends as the answer of a published port.
        lab.outside().ip("link set far mtu 1290");
        download(&far.0, (host, 8089).into());
        assert_eq!(path_mtu(&net1, to), Some(1290), "{to}: published");
        lab.outside().ip("link set far mtu 1300");
        upload(&far.0, (host, 8088).into());
    }
    for netns in [net1.netns(), &far.0, lab.outside()] {
        Counters::of(netns).assert_no_checksum_errors();
    }
}

#[test]
fn an_uplink_that_becomes_narrow_does_not_break_its_streams() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _sinks = [net1.netns(), lab.outside()].map(|netns| Server::tcp(netns, "[::]:80", Service::Sink));
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    for (outside, host) in FAMILIES {
        // What is too big for the uplink is answered by the host's stack.
        let masqueraded = lab.forwards(outside).then(|| (net1.netns(), (outside, 80)));
        for (from, to) in masqueraded.into_iter().chain([(lab.outside(), (host, 8088))]) {
            let to = SocketAddr::from(to);
            let mut stream = from.enter(|| TcpStream::connect(to)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&vec![1; 4 << 20]).unwrap();
            for netns in [lab.host(), lab.outside()] {
                netns.ip(&format!("link set {UPLINK} mtu 1400"));
            }
            stream.write_all(&vec![2; 4 << 20]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut verdict = String::new();
            stream.read_to_string(&mut verdict).unwrap_or_else(|e| panic!("to {to}: {e}"));
            assert!(verdict.ends_with(&format!(" {}\n", 8 << 20)), "to {to}: {verdict}");
            for netns in [lab.host(), lab.outside()] {
                netns.ip(&format!("link set {UPLINK} mtu 1500"));
            }
        }
    }
}

/// An endpoint that takes less than the uplink does.
fn narrow_endpoint(lab: &Lab) -> Endpoint {
    let narrow = lab.name("narrow");
    let subnets = ["--subnet", "10.9.0.0/24", "--subnet", "fd09::/64", "--mtu", "1300"];
    lab.vnet_ok(&[&["network", "create", &narrow], &subnets[..]].concat());
    lab.endpoint_with("net1", &["--network", &narrow])
}

#[test]
fn clients_learn_the_mtu_of_an_endpoint() {
    let lab = Lab::up();
    let (net1, net2) = (narrow_endpoint(&lab), lab.endpoint("net2"));
    let _server = Server::udp(&net1, "[::]:7");
    lab.vnet_ok(&["portmap", "add", "7007", &format!("{}:7", net1.name()), "--proto", "udp"]);
    for (_, host) in FAMILIES {
        for (client, who) in [(lab.outside(), host), (net2.netns(), net2.gateway_like(host))] {
            assert_eq!(path_mtu(client, host), None);
            let mut capture = Capture::start(client, UPLINK);
            Ask::udp((host, 7007).into()).payload(&[7; 1400]).fails_in(client);
            assert_eq!(path_mtu(client, host), Some(1300), "from {}", client.name());
            let seen = complaint(&mut capture, "too big", |_| true);
            assert_eq!((seen.from, seen.about.1), (who, host));
            assert_eq!((seen.kind, seen.code), if host.is_ipv4() { (3, 4) } else { (2, 0) });
            assert_nothing_of(&capture.frames()[1..], &net1);
            Ask::udp((host, 7007).into()).payload(&[7; 1200]).in_netns(client);
        }
        Counters::of(&net2).assert_no_checksum_errors();
    }
    Counters::of(lab.outside()).assert_no_checksum_errors();
}

/// Has an interface send only what is summed already: whoever left that to the hardware is found out.
fn without_checksum_offload(netns: &Netns, interface: &str) {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    const ETHTOOL_STXCSUM: u32 = 0x17;
    let done = netns.enter(|| {
        // Any socket will do.
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let mut value = [ETHTOOL_STXCSUM, 0];
        // SAFETY: plain data, for which zeros are valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *to = libc::c_char::from_ne_bytes([byte]);
        }
        request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
        // SAFETY: the request names an `ethtool_value`, and both live until the call returns.
        match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    });
    done.unwrap_or_else(|e: std::io::Error| {
        panic!("checksum offload of {interface} in {}: {e}", netns.name())
    });
}

/// The host-side ends of all endpoints' interfaces.
fn host_ends(lab: &Lab) -> Vec<String> {
    let links = lab.host().ip("-j link show type veth").json();
    let names = links.as_array().expect("a list").iter().filter_map(|link| link["ifname"].as_str());
    names.filter(|name| name.starts_with("vn-")).map(str::to_owned).collect()
}

#[test]
fn answers_are_whole_even_if_what_they_quote_was_left_to_the_hardware_to_sum() {
    let lab = Lab::up();
    let (net1, net2) = (narrow_endpoint(&lab), lab.endpoint("net2"));
    lab.vnet_ok(&["portmap", "add", "7007", &format!("{}:7", net1.name()), "--proto", "udp"]);
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    let _server = Server::udp(&net1, "[::]:7");
    // The senders' own interfaces keep theirs: packets come with sums that are yet to be made.
    let ends = host_ends(&lab);
    assert_eq!(ends.len(), 2, "{ends:?}");
    for end in ends.iter().map(String::as_str).chain([UPLINK]) {
        without_checksum_offload(lab.host(), end);
    }
    for (_, host) in FAMILIES {
        for client in [lab.outside(), net2.netns()] {
            Ask::udp((host, 7007).into()).payload(&[7; 1400]).fails_in(client);
            assert_eq!(path_mtu(client, host), Some(1300), "from {}", client.name());
        }
    }
    for netns in [lab.outside(), net2.netns()] {
        Counters::of(netns).assert_no_checksum_errors();
    }
}

#[test]
fn an_endpoint_that_may_not_go_out_is_told_at_once() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _server = Server::echo(lab.outside(), "[::]:7");
    for rule in lab.vnet_list(&["masquerade", "ls"], "masquerades") {
        lab.vnet_ok(&["masquerade", "rm", rule["subnet"].as_str().unwrap_or_else(|| panic!("{rule:#}"))]);
    }
    for (outside, _) in FAMILIES {
        let error = Ask::tcp((outside, 7).into()).try_in(&net1).expect_err("nobody could answer");
        // "Communication administratively prohibited", as Linux tells programs of each family.
        let kind = if outside.is_ipv4() { ErrorKind::HostUnreachable } else { ErrorKind::PermissionDenied };
        assert_eq!(error.kind(), kind, "{error}");
        let pong = Ping::to(outside).fails_in(&net1).expect("an answer");
        let (from, kind) = (net1.gateway_like(outside), if outside.is_ipv4() { (3, 13) } else { (1, 1) });
        assert!(
            matches!(pong, Pong::Error { from: f, kind: k, code: c, .. } if (f, (k, c)) == (from, kind)),
            "{pong:?}"
        );
    }
    assert!(lab.dropped("no-masquerade") >= 4);
}

/// Every error of a family that is about a packet.
fn errors(like: IpAddr) -> Vec<(u8, u8)> {
    if like.is_ipv4() {
        (0..=15).map(|code| (3, code)).chain([(11, 0), (11, 1), (12, 0)]).collect()
    } else {
        (0..=7).map(|code| (1, code)).chain([(2, 0), (3, 0), (3, 1), (4, 0), (4, 1), (4, 2)]).collect()
    }
}

/// Asks an echo server over UDP; returns whom it sees.
fn ask(socket: &UdpSocket, server: SocketAddr) -> SocketAddr {
    socket.send_to(b"?", server).unwrap();
    let mut answer = [0; 200];
    let (length, _) = socket.recv_from(&mut answer).unwrap_or_else(|e| panic!("from {server}: {e}"));
    let text = String::from_utf8_lossy(&answer[..length]).into_owned();
    text.lines().next().and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("no address in {text:?}"))
}

/// RFC 4787 REQ-12, RFC 5382 REQ-10.
#[test]
fn no_error_ends_a_flow() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _servers = [Server::echo(lab.outside(), "[::]:7"), Server::udp(lab.outside(), "[::]:7")];
    let macs = (interface_mac(lab.outside(), UPLINK), interface_mac(lab.host(), UPLINK));
    for (outside, host) in FAMILIES {
        let (own, server) = (net1.addr_like(outside), SocketAddr::new(outside, 7));
        let stream = net1.enter(|| TcpStream::connect(server)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut lines = BufReader::new(&stream);
        let mut greeting = String::new();
        lines.read_line(&mut greeting).unwrap();
        let seen: SocketAddr = greeting.trim().parse().unwrap();
        let socket = net1.enter(|| UdpSocket::bind((own, 4_000))).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let seen_by_udp = ask(&socket, server);
        assert_eq!((seen.ip(), seen_by_udp.ip()), (host, host));

        let mut inside = Capture::start(&net1, "eth0");
        let kinds = errors(outside);
        for &(kind, code) in &kinds {
            for about in [Frame::tcp(seen, server).ack(), Frame::udp(seen_by_udp, server)] {
                // From a router that nobody has heard of (RFC 4787 REQ-12a), with an MTU in case that matters.
                let router: IpAddr = if host.is_ipv4() {
                    "192.0.2.1".parse().unwrap()
                } else {
                    "2001:db8:2::1".parse().unwrap()
                };
                let error = Frame::icmp(router, host, kind, code).icmp_rest([0, 0, 5, 0x14]);
                inject(
                    lab.outside(),
                    UPLINK,
                    &error.payload(&about.network_bytes()).macs(macs.0, macs.1).build(),
                );
            }
        }
        let arrived = |frames: &[Vec<u8>]| {
            let about =
                |frame: &Vec<u8>| Complaint::read(frame).is_some_and(|seen| seen.about == (own, outside));
            frames.iter().filter(|frame| about(frame)).count()
        };
        eventually(
            || (arrived(inside.frames()) == 2 * kinds.len()).then_some(()),
            || format!("{} errors in the endpoint", 2 * kinds.len()),
        );

        let flows = lab.vnet_list(&["flow", "ls"], "flows");
        for (protocol, port) in [("tcp", seen.port()), ("udp", seen_by_udp.port())] {
            let mut of_port = flows.iter().filter(|flow| {
                flow["protocol"] == protocol
                    && flow["translated"]["source_port"].as_u64() == Some(port.into())
            });
            let flow =
                of_port.next().unwrap_or_else(|| panic!("no {protocol} flow from {port} in {flows:#?}"));
            assert_eq!(flow["state"], "established", "{flow:#}");
        }
        (&stream).write_all(b"still there\n").unwrap();
        let mut echo = String::new();
        lines.read_line(&mut echo).unwrap();
        assert_eq!(echo, "still there\n");
        assert_eq!(ask(&socket, server), seen_by_udp, "the same port as before");
    }
}
