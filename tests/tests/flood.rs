//! Floods, and tables that are full: what is there already goes on, and nobody pays for what another does.

use std::collections::HashMap;
use std::io::{BufRead as _, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vnet_common::{Hook, Proto, Tuple};
use vnet_tests::case::world::{HOST_MAC, NET1, PEER_MAC, UPLINK as STAGE_UPLINK, V4, V6, at, world};
use vnet_tests::case::{Entry, tuple};
use vnet_tests::frame::Frame;
use vnet_tests::frame::dissect::{Network, dissect};
use vnet_tests::lab::{
    Endpoint, FAMILIES, HOST_V4, HOST_V6, Lab, Netns, OUTSIDE_V4, OUTSIDE_V6, PATIENCE, UPLINK, eventually,
};
use vnet_tests::peer::{Ask, Counters, Flood, Server, interface_mac};
use vnet_tests::report::report;
use vnet_tests::runner::{Arrival, Fate, Host, Kernel, Runner, Stage};

/// Between two exchanges, so that the machine is left to the flood.
const PAUSE: Duration = Duration::from_millis(1);

/// A conversation that goes on and on: what one says comes back, and is compared.
struct Conversation {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<u64>>,
}

impl Conversation {
    /// With an echo server.
    fn begin(client: &Netns, server: SocketAddr) -> Self {
        let stream = client.enter(|| TcpStream::connect(server)).unwrap_or_else(|e| panic!("{server}: {e}"));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut stream = stream;
            greeted(&mut stream)?;
            let mut exchanges = 0_u64;
            while !stopped.load(Ordering::Relaxed) {
                let said: Vec<u8> = exchanges.to_be_bytes().repeat(128);
                stream.write_all(&said)?;
                let mut heard = vec![0; said.len()];
                stream.read_exact(&mut heard)?;
                assert_eq!(heard, said, "exchange {exchanges}");
                exchanges += 1;
                thread::sleep(PAUSE);
            }
            Ok(exchanges)
        });
        Self { stop, thread }
    }

    /// Ends it; how many exchanges there were.
    #[track_caller]
    fn end(self, what: &str) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let exchanges = self.thread.join().unwrap();
        exchanges.unwrap_or_else(|e| panic!("the conversation {what} broke off: {e}"))
    }
}

/// Reads the line with which an echo server begins.
fn greeted(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte)?;
    }
    Ok(())
}

/// Address `number` of those that nobody has.
fn forged(like: IpAddr, number: u32) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(0x6440_0000 + number)),
        IpAddr::V6(_) => {
            IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8_0bad_0000_0000_0000_0000_0000 + u128::from(number)))
        }
    }
}

/// Runs a flood beside something else that is done again and again, at least `at_least` times; how often it was.
fn beside<T: Send>(flood: impl FnOnce() -> T + Send, at_least: u32, mut again: impl FnMut(u32)) -> (T, u32) {
    thread::scope(|scope| {
        let flood = scope.spawn(flood);
        let mut times = 0;
        while !flood.is_finished() || times < at_least {
            again(times);
            times += 1;
            thread::sleep(PAUSE);
        }
        (flood.join().unwrap(), times)
    })
}

/// Frames to be sent, built before anything has to be fast.
fn frames(count: u32, frame: impl Fn(u32) -> Frame) -> Vec<Vec<u8>> {
    (0..count).map(|number| frame(number).build()).collect()
}

/// Sends them all, as fast as the interface takes them.
fn flood(netns: &Netns, interface: &str, frames: &[Vec<u8>]) -> Flood {
    let mut flood = Flood::out_of(netns, interface);
    frames.iter().for_each(|frame| flood.send(frame));
    flood
}

/// Packets that an interface has received.
fn received(netns: &Netns, interface: &str) -> u64 {
    netns.ip(&format!("-j -s link show dev {interface}")).json()[0]["stats64"]["rx"]["packets"]
        .as_u64()
        .unwrap()
}

fn publish(lab: &Lab, port: &str, endpoint: &Endpoint, target: u16, proto: &str) {
    lab.vnet_ok(&["portmap", "add", port, &format!("{}:{target}", endpoint.name()), "--proto", proto]);
}

#[test]
fn a_flood_of_forged_syns_to_a_published_port_harms_nobody() {
    const SOURCES: u32 = 300_000;
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _servers = [Server::echo(&net1, "[::]:80"), Server::echo(lab.outside(), "[::]:7")];
    publish(&lab, "8088", &net1, 80, "tcp");
    let (mac, host_mac) = (interface_mac(lab.outside(), UPLINK), interface_mac(lab.host(), UPLINK));
    let syns = frames(SOURCES, |number| {
        let to = if number % 3 == 0 { HOST_V6 } else { HOST_V4 };
        let from = SocketAddr::new(forged(to, number), 1024 + (number % 60_000) as u16);
        Frame::tcp(from, (to, 8088).into()).syn().macs(mac, host_mac)
    });
    let talks: Vec<_> = FAMILIES
        .iter()
        .flat_map(|(outside, host)| {
            let published = Conversation::begin(lab.outside(), (*host, 8088).into());
            let masqueraded = Conversation::begin(&net1, (*outside, 7).into());
            [(format!("with {host}"), published), (format!("of net1 with {outside}"), masqueraded)]
        })
        .collect();
    let before = received(&net1, "eth0");
    let flood = || flood(lab.outside(), UPLINK, &syns);
    let (flood, honest) = beside(flood, 50, |time| {
        let (outside, host) = FAMILIES[time as usize % 2];
        // To the port that is flooded, and from the endpoint that is.
        Ask::tcp((host, 8088).into()).in_netns(lab.outside());
        Ask::tcp((outside, 7).into()).in_netns(&net1);
    });
    let delivered = received(&net1, "eth0") - before;
    let exchanges: Vec<u64> = talks.into_iter().map(|(what, talk)| talk.end(&what)).collect();
    report(format_args!(
        "SYN flood: {} frames offered from {SOURCES} sources, {} found no room at the sender, {delivered} packets of \
         all kinds at the endpoint; {} honest connections, 0 failed; exchanges in 4 established ones {exchanges:?}, \
         0 lost",
        flood.sent() + flood.refused(),
        flood.refused(),
        2 * honest,
    ));
    assert!(delivered > u64::from(SOURCES) / 2, "the flood did not arrive: {delivered}");
    assert!(exchanges.iter().all(|count| *count > 10), "{exchanges:?}");
    for netns in [lab.outside(), net1.netns()] {
        assert_eq!(Counters::of(netns).get("TcpEstabResets"), 0, "connections reset in {}", netns.name());
    }
}

#[test]
fn a_spray_of_one_endpoint_costs_its_neighbours_nothing() {
    const DATAGRAMS: u32 = 100_000;
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let _servers = [Server::udp(lab.outside(), "[::]:53"), Server::echo(lab.outside(), "[::]:7")];
    // What the one that sprays has begun before goes on.
    let talks = FAMILIES.map(|(outside, _)| Conversation::begin(&net1, (outside, 7).into()));
    let (mac, gateway) = (interface_mac(&net1, "eth0"), interface_mac(lab.host(), "vnet0"));
    let datagrams = frames(DATAGRAMS, |number| {
        let outside = if number % 2 == 0 { OUTSIDE_V4 } else { OUTSIDE_V6 };
        let from = SocketAddr::new(net1.addr_like(outside), 1024 + (number % 60_000) as u16);
        // To somebody who does not answer.
        let to = SocketAddr::new(forged(outside, number), 9);
        Frame::udp(from, to).macs(mac, gateway)
    });
    let spray = || flood(&net1, "eth0", &datagrams);
    let (flood, lookups) = beside(spray, 200, |time| {
        let (outside, _) = FAMILIES[time as usize % 2];
        Ask::udp((outside, 53).into()).in_netns(&net2);
    });
    let exchanges = talks.map(|talk| talk.end("of the sprayer"));
    let refused = lab.dropped("quota");
    report(format_args!(
        "UDP spray: {} datagrams offered by one endpoint, {refused} refused by its quota; {lookups} lookups of its \
         neighbour, 0 lost; exchanges in its established connections {exchanges:?}",
        flood.sent(),
    ));
    assert!(refused > u64::from(DATAGRAMS) / 2, "{refused} of {DATAGRAMS}");
    assert_eq!(lab.dropped("no-free-port"), 0, "ports were left for all");
}

#[test]
fn a_spray_from_outside_on_a_published_port_costs_other_clients_nothing() {
    const SOURCES: u32 = 200_000;
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    // The port that is flooded is one that nobody reads: it is the way there that is tested.
    let _silent = net1.enter(|| UdpSocket::bind("[::]:5353")).unwrap();
    let _servers = [Server::udp(&net1, "[::]:53"), Server::udp(lab.outside(), "[::]:53")];
    publish(&lab, "5353", &net1, 5353, "udp");
    publish(&lab, "53", &net1, 53, "udp");
    let (mac, host_mac) = (interface_mac(lab.outside(), UPLINK), interface_mac(lab.host(), UPLINK));
    // Clients whose flows are confirmed already.
    let clients = FAMILIES.map(|(outside, host)| {
        let socket = lab.outside().enter(|| UdpSocket::bind((outside, 0))).unwrap();
        socket.connect((host, 53)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    });
    let asks = |socket: &UdpSocket| {
        socket.send(b"?").unwrap();
        let mut buffer = [0; 100];
        loop {
            match socket.recv(&mut buffer) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                answer => break assert!(answer.is_ok(), "{answer:?}"),
            }
        }
    };
    clients.iter().for_each(asks);
    let before = received(&net1, "eth0");
    let datagrams = frames(SOURCES, |number| {
        let to = if number % 2 == 0 { HOST_V4 } else { HOST_V6 };
        let from = SocketAddr::new(forged(to, number), 1024 + (number % 60_000) as u16);
        Frame::udp(from, (to, 5353).into()).payload(b"?").macs(mac, host_mac)
    });
    let flood = || flood(lab.outside(), UPLINK, &datagrams);
    let (flood, times) = beside(flood, 100, |time| {
        let (outside, host) = FAMILIES[time as usize % 2];
        asks(&clients[time as usize % 2]);
        Ask::udp((host, 53).into()).in_netns(lab.outside());
        Ask::udp((outside, 53).into()).in_netns(&net1);
    });
    let delivered = received(&net1, "eth0") - before;
    report(format_args!(
        "UDP flood from outside: {} datagrams offered from {SOURCES} sources, {delivered} packets of all kinds at the \
         endpoint; {} honest questions, 0 lost",
        flood.sent(),
        3 * times,
    ));
    assert!(delivered > u64::from(SOURCES) / 2, "the flood did not arrive: {delivered}");
}

/// A connection to an echo server, which has said whom it sees.
fn connection(from: &Netns, server: SocketAddr, patience: Duration) -> Option<(TcpStream, SocketAddr)> {
    let stream = from.enter(|| TcpStream::connect_timeout(&server, patience)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut line = String::new();
    std::io::BufReader::new(&stream).read_line(&mut line).unwrap();
    Some((stream, line.trim().parse().unwrap()))
}

/// Whether a connection goes on: what is said comes back.
fn goes_on(mut stream: &TcpStream) -> bool {
    let mut heard = [0; 5];
    stream.write_all(b"still").is_ok() && stream.read_exact(&mut heard).is_ok() && heard == *b"still"
}

#[test]
fn with_every_source_port_in_use_towards_one_server_others_are_reached_and_it_is_again_after_a_close() {
    let lab = Lab::new();
    lab.vnet_ok(&["up", "--nat-ports", "50000-50063", "--timeout", "tcp-closing=1s"]);
    let net1 = lab.endpoint("net1");
    let _servers = ["[::]:7", "[::]:8"].map(|at| Server::echo(lab.outside(), at));
    for (outside, _) in FAMILIES {
        let connect = |port| connection(&net1, (outside, port).into(), Duration::from_millis(300));
        let before = lab.dropped("no-free-port");
        let mut held: HashMap<u16, TcpStream> = HashMap::new();
        // Each takes what it finds in a number of tries: the last ones of 64 may not be found at once.
        for _ in 0..400 {
            if let Some((stream, seen)) = connect(7) {
                assert!(held.insert(seen.port(), stream).is_none(), "{seen} is given twice");
            } else if lab.dropped("no-free-port") > before && held.len() >= 60 {
                break;
            }
        }
        let refused = lab.dropped("no-free-port") - before;
        assert!((60..=64).contains(&held.len()) && refused > 0, "{} held, {refused} refused", held.len());
        let (elsewhere, _) = connect(8).expect("another server");
        assert!(goes_on(&elsewhere));
        assert!(held.values().all(goes_on), "{outside}: what there was goes on");
        report(format_args!(
            "{outside}: {} connections on 64 ports, {refused} packets refused, another server reached",
            held.len()
        ));
        held.drain().for_each(drop);
        eventually(|| connect(7), || format!("{outside}: a port after the close of all"));
    }
}

#[test]
fn with_the_flow_table_full_connections_go_on_and_new_ones_are_made() {
    const ROOM: usize = 1_024;
    let lab = Lab::new();
    lab.vnet_ok(&["up", "--max-flows", &ROOM.to_string()]);
    let net1 = lab.endpoint("net1");
    let _server = Server::echo(lab.outside(), "[::]:7");
    let connect = |n: usize| {
        let (outside, _) = FAMILIES[n % 2];
        connection(&net1, (outside, 7).into(), PATIENCE).expect("a connection").0
    };
    let first: Vec<TcpStream> = (0..512).map(connect).collect();
    let more: Vec<TcpStream> = (0..2_000).map(connect).collect();
    let lost = first.iter().filter(|stream| !goes_on(stream)).count();
    let lost_of_more = more.iter().filter(|stream| !goes_on(stream)).count();
    let flows = lab.vnet_list(&["flow", "ls"], "flows");
    let confirmed = flows.iter().filter(|flow| flow["confirmed"] == true).count();
    report(format_args!(
        "room for {ROOM} confirmed flows: of 512 connections {lost} lost while 2000 more were made, of these \
         {lost_of_more} lost; {confirmed} confirmed"
    ));
    assert_eq!((lost, lost_of_more), (0, 0));
    assert!(confirmed <= ROOM && confirmed > ROOM * 9 / 10, "{confirmed}");
}

/// Confirmed flows that there is room for.
const ROOM: u16 = 512;

/// A table without room for another confirmed flow.
struct Full<'a> {
    runner: &'a mut dyn Runner,
}

impl Full<'_> {
    fn run(&mut self, hook: Hook, ifindex: u32, frame: &Frame) -> (Fate, Vec<u8>) {
        let bytes = frame.build();
        let arrival = Arrival { hook, ifindex, came_in_by: 0, waited: false, segment: 0, frame: &bytes };
        let outcome = self.runner.run(&arrival).expect("a whole frame");
        (outcome.fate, outcome.frame)
    }

    /// The endpoint sends to a server; from which port that leaves.
    fn sends(&mut self, frame: Frame) -> u16 {
        let (fate, frame) =
            self.run(Hook::FromEndpoint, NET1.ifindex, &frame.macs(NET1.mac, NET1.gateway_mac));
        assert!(fate.agrees_with(Fate::Forwarded), "{fate:?}");
        let Ok(Network::Ip(ip)) = dissect(&frame).map(|dissected| dissected.network) else { panic!("no IP") };
        ip.sockets().expect("ports").0.port()
    }

    /// A connection of the endpoint, answered; its external port.
    fn connects(&mut self, own: SocketAddr, server: SocketAddr) -> u16 {
        let external = self.sends(Frame::tcp(own, server).syn());
        let host = if own.is_ipv4() { V4.host } else { V6.host };
        let answer = Frame::tcp(server, at(host, external)).syn().ack().macs(PEER_MAC, HOST_MAC);
        let (fate, _) = self.run(Hook::FromUplink, STAGE_UPLINK, &answer);
        assert!(fate.agrees_with(Fate::Delivered), "{fate:?}");
        assert_eq!(self.sends(Frame::tcp(own, server).ack()), external, "it goes on");
        external
    }

    fn confirmed(&mut self) -> usize {
        self.runner.flows().values().filter(|entry| entry.confirmed).count() / 2
    }
}

/// Fills the table, then opens far more; what was there must not notice.
fn fill_and_overflow(runner: &mut dyn Runner) -> Vec<(SocketAddr, u16)> {
    const MORE: u16 = 5_000;
    let mut model = world();
    model.slot_count = u32::from(ROOM);
    (model.config.unanswered, model.config.endpoint_flows) = (0, 0);
    // Longer than the test takes, on a machine that does much else.
    model.config.tcp_established = 7_440;
    runner.fill(&model);
    let mut full = Full { runner };
    let server = |addr: SocketAddr| at(if addr.is_ipv4() { V4.www } else { V6.www }, 443);
    let own = |n: u16| at(if n.is_multiple_of(2) { V4.net1 } else { V6.net1 }, 10_000 + n);
    let first: Vec<_> = (0..ROOM).map(|n| (own(n), full.connects(own(n), server(own(n))))).collect();
    assert_eq!(full.confirmed(), usize::from(ROOM));
    for n in ROOM..ROOM + MORE {
        full.connects(own(n), server(own(n)));
    }
    assert_eq!(full.confirmed(), usize::from(ROOM), "there is no room for more");
    for (own, external) in &first {
        assert_eq!(full.sends(Frame::tcp(*own, server(*own)).ack()), *external, "{own} was confirmed");
    }
    let flows = full.runner.flows();
    let lost = first.iter().filter(|(own, _)| !is_confirmed(&flows, *own, server(*own))).count();
    assert_eq!(lost, 0, "confirmed flows that made room for others");
    report(format_args!(
        "{:?}: room for {ROOM} confirmed flows, {MORE} more opened: all of these were carried unconfirmed, none of the \
         first lost",
        full.runner.way()
    ));
    first
}

/// Whether a flow is among the confirmed.
fn is_confirmed(flows: &HashMap<Tuple, Entry>, own: SocketAddr, server: SocketAddr) -> bool {
    flows.get(&tuple(Proto::TCP, own, server)).is_some_and(|entry| entry.confirmed)
}

#[test]
fn a_full_table_keeps_what_it_has_and_takes_more_when_that_is_over() {
    let mut host = Host::default();
    let first = fill_and_overflow(&mut host);
    let over = host.model().config.tcp_established + 1;
    host.model().clock += over;
    let mut full = Full { runner: &mut host };
    for n in 0..ROOM {
        full.connects(at(V4.net1, 30_000 + n), at(V4.www, 443));
    }
    assert_eq!(full.confirmed(), usize::from(ROOM), "the new ones have their places");
    let (old, _) = first[0];
    assert!(!is_confirmed(&full.runner.flows(), old, at(V4.www, 443)));
}

#[test]
fn a_full_table_of_the_kernel_keeps_what_it_has() {
    Stage::run(|stage| {
        fill_and_overflow(&mut Kernel::tc_with_room(stage, u32::from(ROOM)));
    });
}
