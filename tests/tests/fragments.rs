//! Datagrams in fragments, through every way there is: in order and out of order, large, mixed, and beside a flood of
//! fragments that belong to nothing.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vnet_common::Mac;
use vnet_common::maps::{FRAGMENT_ENTRIES, FRAGMENTS};
use vnet_tests::frame::Frame;
use vnet_tests::lab::{Endpoint, FAMILIES, HOST_V4, Lab, Netns, OUTSIDE_V4, PATIENCE, UPLINK, eventually};
use vnet_tests::peer::{Ask, Counters, Injector, Ping, Server, interface_mac};
use vnet_tests::report::report;

/// Payload of a fragment, in bytes.
const PIECE: u16 = 1400;
/// What three fragments carry.
const PAYLOAD: usize = 3600;
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
/// Bytes of fragments that may wait.
const WAITING: u64 = 512 * 1024;

/// Two endpoints, of which the first has a published port, and a server outside.
struct World {
    lab: Lab,
    net1: Endpoint,
    net2: Endpoint,
}

impl World {
    fn new() -> Self {
        let lab = Lab::up();
        let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
        lab.vnet_ok(&["portmap", "add", "5353", &format!("{}:53", net1.name()), "--proto", "udp"]);
        for (outside, _) in FAMILIES {
            // Everybody knows everybody's hardware address from here on.
            Ping::to(outside).in_netns(&net1);
            Ping::to(outside).in_netns(&net2);
        }
        Self { lab, net1, net2 }
    }

    /// From an endpoint to the world.
    fn out(&self, sender: &Endpoint, outside: IpAddr, host: IpAddr, port: u16) -> Path {
        let macs = (interface_mac(sender, "eth0"), interface_mac(self.lab.host(), "vnet0"));
        let injector = Injector::new(sender, "eth0");
        let from = SocketAddr::new(sender.addr_like(outside), port);
        let to = SocketAddr::new(outside, 9000);
        Path { what: "out", injector, macs, from, to, seen: SocketAddr::new(host, port) }
    }

    /// From the world to the published port.
    fn inward(&self, outside: IpAddr, host: IpAddr) -> Path {
        let macs = (interface_mac(self.lab.outside(), UPLINK), interface_mac(self.lab.host(), UPLINK));
        let injector = Injector::new(self.lab.outside(), UPLINK);
        let from = SocketAddr::new(outside, 5000);
        Path { what: "in", injector, macs, from, to: SocketAddr::new(host, 5353), seen: from }
    }

    /// From an endpoint to the published port.
    fn hairpin(&self, host: IpAddr) -> Path {
        let to = SocketAddr::new(host, 5353);
        let seen = SocketAddr::new(host, 50_900);
        Path { what: "hairpin", to, seen, ..self.out(&self.net2, host, host, 50_900) }
    }
}

/// A way for frames.
struct Path {
    what: &'static str,
    injector: Injector,
    macs: (Mac, Mac),
    from: SocketAddr,
    to: SocketAddr,
    /// Whom the receiver sees.
    seen: SocketAddr,
}

/// A datagram that is to arrive.
struct Datagram {
    pieces: Vec<Vec<u8>>,
    payload: Vec<u8>,
    seen: SocketAddr,
}

impl Path {
    fn frame(&self, id: u16, payload: &[u8]) -> Frame {
        Frame::udp(self.from, self.to).payload(payload).may_fragment().id(id).macs(self.macs.0, self.macs.1)
    }

    /// A datagram that has not been before, in three pieces.
    fn datagram(&self) -> Datagram {
        static ID: AtomicU16 = AtomicU16::new(1);
        self.datagram_with_id(ID.fetch_add(1, Ordering::Relaxed))
    }

    fn datagram_with_id(&self, id: u16) -> Datagram {
        let payload: Vec<u8> =
            (0..PAYLOAD).map(|n| (n as u16).wrapping_mul(self.from.port()).wrapping_add(id) as u8).collect();
        let pieces = self.frame(id, &payload).fragments(PIECE);
        assert_eq!(pieces.len(), 3);
        Datagram { pieces, payload, seen: self.seen }
    }

    fn send(&self, datagram: &Datagram, order: &[usize]) {
        order.iter().for_each(|&piece| self.injector.send(&datagram.pieces[piece]));
    }
}

fn listen(netns: &Netns, like: IpAddr, port: u16) -> UdpSocket {
    let any = if like.is_ipv4() { "0.0.0.0" } else { "::" };
    // A process that is just being started may still hold what was open when it was.
    let bind = || netns.enter(|| UdpSocket::bind((any, port)).ok());
    let socket = eventually(bind, || format!("port {port} to be free in {}", netns.name()));
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

/// The next datagram, whatever it is.
#[track_caller]
fn receive(socket: &UdpSocket, what: &str) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                buffer.truncate(length);
                return (buffer, from);
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => panic!("{what}: {e}"),
        }
    }
}

/// The next datagram must be this.
#[track_caller]
fn expect(socket: &UdpSocket, datagram: &Datagram, what: &str) {
    let (received, from) = receive(socket, what);
    assert_eq!(from, datagram.seen, "{what}");
    assert!(received == datagram.payload, "{what}: {} bytes of another datagram", received.len());
}

/// Each way, with the socket at its end.
fn for_each_path(world: &World, test: impl Fn(&Path, &UdpSocket, &str)) {
    for (outside, host) in FAMILIES {
        let (server, target) = (listen(world.lab.outside(), outside, 9000), listen(&world.net1, outside, 53));
        for (path, socket) in [
            (world.out(&world.net1, outside, host, 50_500), &server),
            (world.inward(outside, host), &target),
            (world.hairpin(host), &target),
        ] {
            test(&path, socket, &format!("{} from {} to {}", path.what, path.from, path.to));
        }
    }
}

#[test]
fn three_fragments_arrive_in_any_order() {
    let world = World::new();
    for_each_path(&world, |path, socket, what| {
        for order in ORDERS {
            let datagram = path.datagram();
            path.send(&datagram, &order);
            expect(socket, &datagram, &format!("{what} in order {order:?}"));
        }
    });
    assert_eq!(world.lab.dropped("fragment"), 0);
}

#[test]
fn two_datagrams_at_once_are_not_mixed_up() {
    let world = World::new();
    for_each_path(&world, |path, socket, what| {
        for (first, second) in ORDERS.into_iter().zip(ORDERS.into_iter().rev()) {
            let (one, other) = (path.datagram(), path.datagram());
            for (mine, yours) in first.into_iter().zip(second) {
                path.injector.send(&one.pieces[mine]);
                path.injector.send(&other.pieces[yours]);
            }
            let mut received: Vec<Vec<u8>> = (0..2)
                .map(|_| {
                    let (payload, from) = receive(socket, what);
                    assert_eq!(from, path.seen, "{what}");
                    payload
                })
                .collect();
            received.sort();
            let mut expected = [one.payload, other.payload];
            expected.sort();
            assert!(received == expected, "{what}, orders {first:?} and {second:?}: other datagrams arrived");
        }
    });
}

#[test]
fn a_fragment_waits_for_the_first_and_no_longer_than_it_may() {
    let world = World::new();
    for_each_path(&world, |path, socket, what| {
        // How long the first is under way: what the test is about.
        for delay in [1, 20, 100].map(Duration::from_millis) {
            let datagram = path.datagram();
            path.send(&datagram, &[2, 1]);
            let sent = Instant::now();
            thread::sleep(delay);
            path.send(&datagram, &[0]);
            let late = sent.elapsed();
            expect(socket, &datagram, &format!("{what}, {delay:?} before the first"));
            report(format_args!(
                "{what}: delivered {late:?} before the first, whole after {:?}",
                sent.elapsed()
            ));
        }
    });
    let before = world.lab.dropped("fragment");
    let path = world.out(&world.net1, OUTSIDE_V4, HOST_V4, 50_501);
    let orphans = path.datagram();
    let sent = Instant::now();
    path.send(&orphans, &[1, 2]);
    let dropped = || (world.lab.dropped("fragment") == before + 2).then_some(());
    eventually(dropped, || "two fragments dropped after they had waited".to_owned());
    report(format_args!("orphans dropped after at most {:?}", sent.elapsed()));
    assert!(sent.elapsed() > Duration::from_millis(150), "they did not wait");
    // Nothing of vnet's is left on what passes.
    let hold = world.lab.host().run(&["tc", "-s", "qdisc", "show", "dev", "vfrag0"]).ok().stdout;
    assert!(hold.contains("backlog 0b 0p"), "nothing waits any more: {hold}");
}

#[test]
fn large_datagrams_and_pings_go_through_real_sockets() {
    let world = World::new();
    let _servers = [Server::udp(world.lab.outside(), "[::]:9"), Server::udp(&world.net1, "[::]:53")];
    let payload: Vec<u8> = (0..65_000_u32).map(|n| ((n * n) >> 7) as u8).collect();
    for (outside, host) in FAMILIES {
        for size in [1473, 4000, 65_000] {
            let large = |to: SocketAddr| Ask::udp(to).payload(&payload[..size]);
            large((outside, 9).into()).in_netns(&world.net1);
            large((host, 5353).into()).in_netns(world.lab.outside());
            large((host, 5353).into()).in_netns(&world.net2);
            large((world.net1.addr_like(host), 53).into()).in_netns(&world.net2);
        }
        Ping::to(outside).packet_size(20_000).in_netns(&world.net1);
    }
    assert_eq!(world.lab.dropped("fragment"), 0);
    for netns in [world.lab.host(), world.lab.outside(), world.net1.netns(), world.net2.netns()] {
        Counters::of(netns).assert_no_checksum_errors();
    }
}

/// RFC 7857 section 10: behind one address nobody could tell them apart otherwise.
#[test]
fn two_endpoints_may_number_their_datagrams_alike() {
    let world = World::new();
    let server = listen(world.lab.outside(), OUTSIDE_V4, 9000);
    for id in 100..150 {
        let one = world.out(&world.net1, OUTSIDE_V4, HOST_V4, 50_502);
        let other = world.out(&world.net2, OUTSIDE_V4, HOST_V4, 50_503);
        let (first, second) = (one.datagram_with_id(id), other.datagram_with_id(id));
        for piece in 0..2 {
            one.send(&first, &[piece]);
            other.send(&second, &[piece]);
        }
        one.send(&first, &[2]);
        expect(&server, &first, &format!("the first endpoint's datagram {id}"));
        other.send(&second, &[2]);
        expect(&server, &second, &format!("the second endpoint's datagram {id}"));
    }
}

#[test]
fn fragments_leave_by_way_of_the_hosts_stack() {
    let world = World::new();
    let server = listen(world.lab.outside(), OUTSIDE_V4, 9000);
    let path = world.out(&world.net1, OUTSIDE_V4, HOST_V4, 50_504);
    // Every fragment has options, so none takes the short way.
    for order in ORDERS {
        let mut datagram = path.datagram();
        let id = 0x4000 + order[0] as u16 * 10 + order[1] as u16;
        let frame = path.frame(id, &datagram.payload).ip_options(&[7, 7, 4, 0, 0, 0, 0]);
        datagram.pieces = frame.fragments(PIECE);
        path.send(&datagram, &order);
        expect(&server, &datagram, &format!("with options, in order {order:?}"));
    }
    // What is too large for the path, and may be cut, is cut by the host (RFC 4787 REQ-13a).
    for netns in [world.lab.host(), world.lab.outside()] {
        netns.ip(&format!("link set {UPLINK} mtu 1300"));
    }
    let payload = vec![0x5a; 1400];
    for id in 0..5 {
        let whole = path.frame(0x5000 + id, &payload).build();
        let datagram = Datagram { pieces: vec![whole], payload: payload.clone(), seen: path.seen };
        path.send(&datagram, &[0]);
        expect(&server, &datagram, "a datagram that the host has cut");
    }
    // Fragments of an endpoint that the host has to cut again.
    let datagram = path.datagram();
    path.send(&datagram, &[0, 1, 2]);
    expect(&server, &datagram, "a datagram cut twice");
}

/// RFC 4787 REQ-14a.
#[test]
fn a_flood_of_fragments_harms_nobody_else() {
    const ORPHANS: u32 = 50_000;
    const EXCHANGES: u32 = 300;
    let world = World::new();
    let _servers = [Server::udp(world.lab.outside(), "[::]:9"), Server::udp(&world.net1, "[::]:53")];
    let flooding = AtomicBool::new(true);
    let most_waiting = thread::scope(|scope| {
        let floods = [
            (world.out(&world.net2, OUTSIDE_V4, HOST_V4, 50_505), ORPHANS),
            (world.inward(OUTSIDE_V4, HOST_V4), ORPHANS),
        ]
        .map(|(path, count)| scope.spawn(move || flood(&path, count)));
        let watch = scope.spawn(|| {
            let mut waiting = 0;
            while flooding.load(Ordering::Relaxed) {
                waiting = waiting.max(bytes_waiting(&world.lab));
            }
            waiting
        });
        let large = vec![7; 4000];
        for _ in 0..EXCHANGES {
            for (from, to) in [(world.net1.netns(), (OUTSIDE_V4, 9)), (world.lab.outside(), (HOST_V4, 5353))]
            {
                Ask::udp(to.into()).in_netns(from);
                Ask::udp(to.into()).payload(&large).in_netns(from);
            }
        }
        let still = floods.iter().filter(|flood| !flood.is_finished()).count();
        floods.into_iter().for_each(|flood| flood.join().expect("a flood"));
        flooding.store(false, Ordering::Relaxed);
        report(format_args!(
            "{} exchanges beside the flood, nothing lost; {still} floods went on",
            4 * EXCHANGES
        ));
        watch.join().expect("the watch")
    });
    let noted = datagrams_noted(&world.lab);
    // Every orphan of the endpoint is accounted for, those that waited for a while too.
    let dropped =
        || (world.lab.dropped("fragment") >= u64::from(ORPHANS)).then(|| world.lab.dropped("fragment"));
    let dropped =
        eventually(dropped, || format!("{ORPHANS} fragments dropped, not {}", world.lab.dropped("fragment")));
    report(format_args!(
        "{ORPHANS} orphans from an endpoint: {dropped} dropped; at most {most_waiting} bytes waited and \
         {noted} datagrams were noted"
    ));
    assert_eq!(dropped, u64::from(ORPHANS));
    assert!(most_waiting > 0 && most_waiting <= WAITING, "{most_waiting} bytes waited");
    assert!(noted > 1000 && noted <= FRAGMENT_ENTRIES, "{noted} datagrams noted");
    let path = world.out(&world.net1, OUTSIDE_V4, HOST_V4, 50_506);
    let server = listen(world.lab.outside(), OUTSIDE_V4, 9000);
    eventually(|| (bytes_waiting(&world.lab) == 0).then_some(()), || "nothing waits any more".to_owned());
    let datagram = path.datagram();
    path.send(&datagram, &[2, 1, 0]);
    // The port may be that of an exchange before.
    let (received, _) = receive(&server, "out of order, after the flood");
    assert!(received == datagram.payload, "out of order, after the flood: another datagram");
}

#[test]
fn the_place_where_fragments_wait_is_repaired_and_leaves_others_alone() {
    let lab = Lab::new();
    let host = lab.host();
    host.ip("link add vfrag0 type bridge");
    let before = lab.snapshot();
    lab.vnet_ok(&["up"]);
    let links = host.ip("-j -d link").json();
    let of_vnet = |link: &&serde_json::Value| {
        link["linkinfo"]["info_kind"] == "veth"
            && link["ifname"].as_str().is_some_and(|name| name.starts_with("vfrag0-"))
    };
    let mut ours = links.as_array().expect("a list").iter().filter(of_vnet);
    let (Some(entrance), None) = (ours.next(), ours.next()) else { panic!("no pair of vnet's in {links:#}") };
    let entrance = entrance["ifname"].as_str().expect("a name").to_owned();
    let up = lab.snapshot();
    for harm in [
        vec!["tc", "qdisc", "del", "dev", &entrance, "root"],
        vec![
            "tc", "qdisc", "replace", "dev", &entrance, "root", "tbf", "rate", "1mbit", "burst", "100k",
            "limit", "1m",
        ],
        vec!["ip", "link", "set", &entrance, "down"],
        vec!["ip", "link", "set", &entrance, "mtu", "1500"],
    ] {
        host.run(&harm).ok();
        lab.vnet_ok(&["up"]);
        lab.snapshot().assert_same_as(&up);
    }
    // Another pair has other hardware addresses, which are nobody's business.
    host.ip(&format!("link del {entrance}"));
    lab.vnet_ok(&["up"]);
    let net1 = lab.endpoint("net1");
    Ping::to(OUTSIDE_V4).in_netns(&net1);
    let server = listen(lab.outside(), OUTSIDE_V4, 9000);
    let world = World { net2: net1.clone(), net1, lab };
    let path = world.out(&world.net1, OUTSIDE_V4, HOST_V4, 50_507);
    let datagram = path.datagram();
    path.send(&datagram, &[1, 2, 0]);
    expect(&server, &datagram, "out of order, after the repair");
    world.lab.vnet_ok(&["down"]);
    world.lab.snapshot().assert_same_as(&before);
}

/// Later fragments that belong to nothing, and from time to time a first one to the host that nothing follows.
fn flood(path: &Path, orphans: u32) {
    for n in 0..orphans {
        let orphan = path.frame(n as u16, &[9; 32]).fragment(1480 + 8 * (n >> 16) as u16, false);
        path.injector.send(&orphan.build());
        if n % 5 == 0 {
            let nobody = SocketAddr::new(HOST_V4, 7);
            let first =
                Frame::udp(path.from, nobody).payload(&[9; 32]).id(n as u16).macs(path.macs.0, path.macs.1);
            // The others do not belong to it: they came before.
            path.injector.send(&first.ttl(63).fragment(0, true).build());
        }
    }
}

fn bytes_waiting(lab: &Lab) -> u64 {
    let shown = lab.host().run(&["tc", "-s", "-j", "qdisc", "show", "dev", "vfrag0"]).ok().json();
    shown[0]["backlog"].as_u64().unwrap_or_else(|| panic!("no backlog in {shown}"))
}

fn datagrams_noted(lab: &Lab) -> usize {
    let map = lab.pin_dir().join(FRAGMENTS);
    let shown =
        lab.host().run(&["bpftool", "-j", "map", "dump", "pinned", map.to_str().expect("UTF-8")]).ok();
    shown.json().as_array().unwrap_or_else(|| panic!("no list in {shown}")).len()
}
