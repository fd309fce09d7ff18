//! The NAT with real sockets: what peers see of an endpoint, and what becomes of it under races, collisions and loss.

use std::collections::HashSet;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use vnet_tests::frame::Frame;
use vnet_tests::frame::dissect::{Network, dissect};
use vnet_tests::lab::{FAMILIES, Lab, Netns, PATIENCE, UPLINK, eventually};
use vnet_tests::peer::{Ask, Capture, Server, Service, inject, interface_mac, send};
use vnet_tests::report::report;

/// More addresses of `outside`, of the family of another.
fn more_addresses(lab: &Lab, like: IpAddr) -> [IpAddr; 2] {
    ["66", "67"].map(|last| {
        let (text, bits) = if like.is_ipv4() { ("203.0.113.", "24") } else { ("2001:db8:113::", "64 nodad") };
        let addr = format!("{text}{last}");
        lab.outside().ip(&format!("addr add {addr}/{bits} dev {UPLINK}"));
        addr.parse().unwrap()
    })
}

/// A UDP socket inside a namespace that does not wait for ever.
fn udp(netns: &Netns, at: SocketAddr) -> UdpSocket {
    let socket = netns.enter(|| UdpSocket::bind(at)).unwrap_or_else(|e| panic!("bind {at}: {e}"));
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Asks a server that says whom it sees.
fn seen_by(socket: &UdpSocket, server: SocketAddr) -> SocketAddr {
    socket.send_to(b"who am I?", server).unwrap();
    let (line, from) = heard(socket);
    assert_eq!(from, server);
    line.lines().next().unwrap().parse().unwrap()
}

fn heard(socket: &UdpSocket) -> (String, SocketAddr) {
    try_heard(socket).unwrap_or_else(|e| panic!("nothing came: {e}"))
}

/// What comes, if anything does in time.
fn try_heard(socket: &UdpSocket) -> std::io::Result<(String, SocketAddr)> {
    let mut buffer = [0; 1000];
    loop {
        match socket.recv_from(&mut buffer) {
            // A call with a time limit is not restarted by itself.
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            received => {
                let (length, from) = received?;
                return Ok((String::from_utf8_lossy(&buffer[..length]).into_owned(), from));
            }
        }
    }
}

#[test]
fn one_socket_shows_one_external_port_to_three_peers() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    for (outside, host) in FAMILIES {
        let peers = [&[outside][..], &more_addresses(&lab, outside)].concat();
        let at = |port: u16| peers.iter().map(move |peer| SocketAddr::new(*peer, port));
        let servers: Vec<_> =
            at(3478).chain(at(3479)).map(|at| (at, Server::udp(lab.outside(), &at.to_string()))).collect();
        // Kept (of the range) and drawn (not of it): both are one port for all.
        for own in [50_004, 4_000] {
            let socket = udp(&net1, (net1.addr_like(outside), own).into());
            let seen: HashSet<SocketAddr> = servers.iter().map(|(at, _)| seen_by(&socket, *at)).collect();
            assert_eq!(seen.len(), 1, "six sockets see {seen:?}");
            let seen = *seen.iter().next().unwrap();
            assert_eq!(seen.ip(), host);
            assert_eq!(seen.port() % 2, own % 2, "parity (RFC 4787 REQ-4): {seen}");
            // Each of their addresses may send from any port, nobody else from none.
            let other_port = udp(lab.outside(), SocketAddr::new(peers[1], 9999));
            other_port.send_to(b"from another port", seen).unwrap();
            assert_eq!(heard(&socket), ("from another port".to_owned(), SocketAddr::new(peers[1], 9999)));
        }
    }
}

#[test]
fn neighbours_reach_each_other_by_their_external_ports_and_are_seen_by_those() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let _server = Server::udp(lab.outside(), "[::]:3478");
    for (outside, _) in FAMILIES {
        let stun = SocketAddr::new(outside, 3478);
        let [one, two] = [(&net1, 4_001), (&net2, 4_002)]
            .map(|(endpoint, port)| udp(endpoint, (endpoint.addr_like(outside), port).into()));
        let [one_seen, two_seen] = [&one, &two].map(|socket| seen_by(socket, stun));
        two.send_to(b"hello neighbour", one_seen).unwrap();
        assert_eq!(heard(&one), ("hello neighbour".to_owned(), two_seen), "RFC 4787 REQ-9a");
        one.send_to(b"hello yourself", two_seen).unwrap();
        assert_eq!(heard(&two), ("hello yourself".to_owned(), one_seen));
        // Nobody else's business: no packet of it was outside.
        let own = SocketAddr::new(net1.addr_like(outside), 4_003);
        let own = udp(&net1, own);
        own.send_to(b"hello myself", one_seen).unwrap();
        let (line, from) = heard(&one);
        assert_eq!((line.as_str(), from), ("hello myself", seen_by(&own, stun)));
    }
}

#[test]
fn two_datagrams_of_one_socket_at_once_are_both_answered() {
    const SOCKETS: usize = 2_500;
    const SERVERS: u16 = 4;
    let lab = Lab::new();
    // Of ports alone: a flow that two processors begin at once seems to cost more of what an endpoint may begin than one
    // does, which a crowd like this one runs into where processors are kept waiting.
    lab.vnet_ok(&["up", "--endpoint-unanswered", "0"]);
    let net1 = lab.endpoint("net1");
    let _servers: Vec<Server> =
        (0..SERVERS).map(|n| Server::udp(lab.outside(), &format!("[::]:{}", 53 + n))).collect();
    let (mut lost, mut differing, mut moved) = (0, 0, 0);
    for (outside, _) in FAMILIES {
        let any: SocketAddr = (net1.addr_like(outside), 0).into();
        let sockets: Vec<Arc<UdpSocket>> = (0..SOCKETS).map(|_| Arc::new(udp(&net1, any))).collect();
        let both = Arc::new(Barrier::new(2));
        let ask = {
            let (sockets, both) = (sockets.clone(), Arc::clone(&both));
            move |question: &[u8], then: &mut dyn FnMut(usize, &UdpSocket)| {
                for (number, socket) in sockets.iter().enumerate() {
                    for server in 0..SERVERS {
                        // As a resolver asks for A and AAAA: from two threads, at the same moment.
                        both.wait();
                        socket.send_to(question, (outside, 53 + server)).unwrap();
                        both.wait();
                        then(number, socket);
                    }
                }
            }
        };
        let second = {
            let ask = ask.clone();
            thread::spawn(move || ask(b"AAAA", &mut |_, _| {}))
        };
        let mut ports = vec![None; SOCKETS];
        ask(b"A", &mut |number, socket| {
            let answers: Vec<String> =
                (0..2).map_while(|_| try_heard(socket).ok()).map(|(answer, _)| answer).collect();
            lost += 2 - answers.len();
            let seen: HashSet<&str> = answers.iter().filter_map(|answer| answer.lines().next()).collect();
            differing += usize::from(seen.len() > 1);
            let first =
                ports[number].get_or_insert_with(|| seen.iter().next().map(|seen| (*seen).to_owned()));
            moved += usize::from(seen.iter().any(|seen| first.as_deref() != Some(*seen)));
        });
        second.join().unwrap();
    }
    let asked = 2 * SOCKETS * usize::from(SERVERS);
    report(format_args!(
        "{asked} pairs of datagrams at once: {lost} lost, {differing} pairs seen from two ports, {moved} from \
         another port than the socket's first"
    ));
    assert_eq!((lost, differing, moved), (0, 0, 0), "{}", lab.vnet_ok(&["drops"]).stdout);
}

/// Each from a socket of its own, as many a resolver asks.
#[test]
fn an_endpoint_asks_name_servers_far_more_than_it_has_ports() {
    const PORTS: u64 = 64;
    const AT_ONCE: usize = 24;
    const ROUNDS: usize = 8;
    let lab = Lab::new();
    let up = lab.vnet_ok(&["up", "--nat-ports", "50000-50063", "--timeout", "dns=1s"]);
    assert!(up.stderr.contains("timeout dns of 1s is less than 5s (RFC 1035 section 4.2.1)"), "{up}");
    let net1 = lab.endpoint("net1");
    let _server = Server::udp(lab.outside(), "[::]:53");
    let ask = |outside: IpAddr| Ask::udp((outside, 53).into()).try_in(&net1);
    // Of each address of the host that has any.
    let in_use = || -> Vec<u64> {
        let stats = &lab.vnet_list(&["flow", "stats"], "stats")[0];
        let udp = stats["ports"].as_array().unwrap().iter().filter(|ports| ports["protocol"] == "udp");
        udp.map(|ports| ports["used"].as_u64().unwrap()).collect()
    };
    let mut most = 0;
    for round in 0..ROUNDS {
        eventually(
            || in_use().into_iter().all(|used| used <= PORTS / 4).then_some(()),
            || format!("most of {PORTS} ports free after {round} rounds: {:?} are used", in_use()),
        );
        for (outside, _) in FAMILIES {
            for question in 0..AT_ONCE {
                ask(outside).unwrap_or_else(|e| panic!("question {question} of round {round}: {e}"));
            }
        }
        most = in_use().into_iter().max().unwrap_or(0).max(most);
        let flows = lab.vnet_list(&["flow", "ls"], "flows");
        let to_servers = flows.iter().filter(|flow| flow["original"]["destination_port"] == 53);
        assert!(to_servers.clone().all(|flow| flow["timeout"] == 1), "{flows:#?}");
    }
    assert_eq!(lab.dropped("no-free-port"), 0);
    report(format_args!("{} questions of sockets, {most} of {PORTS} ports in use at most", ROUNDS * AT_ONCE));

    // As long as any other socket's port.
    lab.vnet_ok(&["up", "--timeout", "dns=5m"]);
    lab.vnet_ok(&["flow", "flush"]);
    for (outside, _) in FAMILIES {
        let asked = (0..=PORTS).take_while(|_| ask(outside).is_ok()).count() as u64;
        // The last of 64 may not be found at once.
        assert!((PORTS * 3 / 4..=PORTS).contains(&asked), "{asked} questions to {outside}");
    }
    assert!(lab.dropped("no-free-port") > 0);
}

/// They are kept for four minutes, unless there are no others.
#[test]
fn ports_of_connections_that_were_reset_serve_again_when_there_are_no_others() {
    const PORTS: usize = 64;
    let lab = Lab::new();
    lab.vnet_ok(&["up", "--nat-ports", "50000-50063"]);
    let net1 = lab.endpoint("net1");
    let _server = Server::echo(lab.outside(), "[::]:80");
    for (outside, _) in FAMILIES {
        let resets = || {
            let connect = || TcpStream::connect_timeout(&(outside, 80).into(), PATIENCE);
            let stream = net1.enter(connect)?;
            setsockopt(&stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })?;
            io::Result::Ok(())
        };
        // Without reuse the first of them is free again after 240 seconds.
        let start = Instant::now();
        let mut made = 0;
        while made < PORTS * 3 / 2 {
            made += usize::from(resets().is_ok());
            assert!(start.elapsed() < Duration::from_secs(120), "{made} connections to {outside}");
        }
    }
}

#[test]
fn sockets_of_the_host_keep_their_ports() {
    const FIRST: u16 = 50_000;
    const COUNT: u16 = 200;
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    for (outside, host) in FAMILIES {
        // On this address alone: more will come, from which another answer would be.
        let far = SocketAddr::new(outside, 7).to_string();
        let _servers = [Server::echo(lab.outside(), &far), Server::udp(lab.outside(), &far)];
        // A client of the host that has the port of a mapping, but another peer. First, while nobody can have drawn it.
        let own = net1.addr_like(outside);
        let [other, _] = more_addresses(&lab, outside);
        let server = udp(lab.outside(), (other, 9).into());
        let client = udp(lab.host(), (host, 60_000).into());
        client.connect((other, 9)).unwrap();
        let ask = Ask::udp((outside, 7).into()).from((own, 60_000).into());
        assert_eq!(ask.in_netns(&net1).seen.port(), 60_000, "the host's socket is for another peer");
        client.send(b"?").unwrap();
        let (_, from) = heard(&server);
        assert_eq!(from, (host, 60_000).into());
        server.send_to(b"!", from).unwrap();
        assert_eq!(heard(&client), ("!".to_owned(), (other, 9).into()));
        // Every second port of those that masquerade may use.
        let ports = || (FIRST..FIRST + 2 * COUNT).step_by(2);
        let listeners: Vec<TcpListener> =
            ports().map(|port| lab.host().enter(|| TcpListener::bind((host, port))).unwrap()).collect();
        let receivers: Vec<UdpSocket> = ports().map(|port| udp(lab.host(), (host, port).into())).collect();
        for port in FIRST..FIRST + 2 * COUNT {
            for ask in [Ask::tcp((outside, 7).into()), Ask::udp((outside, 7).into())] {
                let seen = ask.from((own, port).into()).in_netns(&net1).seen;
                let of_host = seen.port() >= FIRST && seen.port() < FIRST + 2 * COUNT && seen.port() % 2 == 0;
                assert!(!of_host, "{own}:{port} is seen as {seen}, where a socket of the host is");
            }
        }
        for (listener, receiver) in listeners.iter().zip(&receivers) {
            let at = listener.local_addr().unwrap();
            let client = lab.outside().enter(|| TcpStream::connect(at)).unwrap();
            assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
            let sender = udp(lab.outside(), (outside, 0).into());
            sender.send_to(b"for the host", receiver.local_addr().unwrap()).unwrap();
            assert_eq!(heard(receiver).1, sender.local_addr().unwrap());
        }
    }
}

/// Waits until a namespace has no TCP socket that `ss` would list for a filter.
fn gone(netns: &Netns, filter: &[&str]) {
    let sockets = || netns.run(&[&["ss", "-Htn"], filter].concat()).ok().stdout;
    eventually(|| sockets().is_empty().then_some(()), || format!("no socket with {filter:?}"));
}

#[test]
fn a_source_port_is_used_again_and_again() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    // The server closes first, so that nothing on the client's side is in the way: its own socket waits.
    let _server = Server::tcp(lab.outside(), "[::]:7", Service::Source { bytes: 100_000 });
    for (outside, _) in FAMILIES {
        let from = SocketAddr::new(net1.addr_like(outside), 50_010);
        for round in 0..4 {
            let mut stream = connected(&net1, from, (outside, 7).into());
            let mut bytes = Vec::new();
            let read = stream.read_to_end(&mut bytes);
            assert!(matches!(read, Ok(100_000)), "{outside}, round {round}: {read:?}");
            drop(stream);
            // Its last ACK may still be on the way, and the port is its own for so long.
            gone(&net1, &["state", "all", "sport = :50010"]);
        }
        // Once more, with an end that nobody takes part in.
        for _ in 0..3 {
            let stream = connected(&net1, from, (outside, 7).into());
            setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
            drop(stream);
            // The RST has arrived.
            gone(lab.outside(), &["state", "established", "sport = :7"]);
        }
    }
}

/// A TCP connection from an address and port that may have been used a moment ago.
fn connected(netns: &Netns, from: SocketAddr, to: SocketAddr) -> TcpStream {
    let family = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let stream = netns.enter(|| {
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
        connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
        Ok::<_, nix::Error>(TcpStream::from(socket))
    });
    let stream = stream.unwrap_or_else(|e| panic!("connect {from} to {to}: {e}"));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn two_that_connect_to_each_other_at_once_are_connected() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    for (outside, host) in FAMILIES {
        // A peer that is nobody: its packets are written by hand, and nobody resets what comes for it.
        let peer: IpAddr =
            if outside.is_ipv4() { "203.0.113.99" } else { "2001:db8:113::99" }.parse().unwrap();
        let mac = interface_mac(lab.outside(), UPLINK);
        let text: Vec<String> = mac.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        lab.host().ip(&format!("neigh add {peer} lladdr {} dev {UPLINK}", text.join(":")));
        let (own, seen, far) = (
            SocketAddr::new(net1.addr_like(outside), 50_020),
            SocketAddr::new(host, 50_020),
            SocketAddr::new(peer, 4_444),
        );
        let mut wire = Capture::start(lab.outside(), UPLINK);
        let connecting = {
            let netns = net1.netns().clone();
            thread::spawn(move || connected(&netns, own, far))
        };
        let says = |frame: Frame| {
            inject(lab.outside(), UPLINK, &frame.macs(mac, interface_mac(lab.host(), UPLINK)).build());
        };
        let syn = tcp_segment(&wire.until("a SYN", |frame| flags_of(frame, seen, far) == Some(0x02)));
        // Not its acknowledgement: a SYN of the peer's own, as if both had crossed.
        says(Frame::tcp(far, seen).syn().seq_ack(7_000, 0));
        let answer = tcp_segment(&wire.until("a SYN-ACK", |frame| flags_of(frame, seen, far) == Some(0x12)));
        assert_eq!(answer, (syn.0, 7_001));
        says(Frame::tcp(far, seen).syn().ack().seq_ack(7_000, syn.0.wrapping_add(1)));
        let mut stream = connecting.join().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), far);
        says(Frame::tcp(far, seen).ack().psh().seq_ack(7_001, syn.0.wrapping_add(1)).payload(b"crossed"));
        let mut text = [0; 7];
        stream.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"crossed");
    }
}

/// The TCP flags of a frame from one to the other.
fn flags_of(frame: &[u8], from: SocketAddr, to: SocketAddr) -> Option<u8> {
    let Ok(Network::Ip(ip)) = dissect(frame).map(|dissected| dissected.network) else { return None };
    (ip.protocol == 6 && ip.sockets() == Some((from, to))).then(|| ip.carried[13])
}

/// Sequence and acknowledgement number of a TCP frame.
fn tcp_segment(frame: &[u8]) -> (u32, u32) {
    let Ok(Network::Ip(ip)) = dissect(frame).map(|dissected| dissected.network) else { panic!("no IP") };
    let word = |at: usize| u32::from_be_bytes(ip.carried[at..at + 4].try_into().unwrap());
    (word(4), word(8))
}

#[test]
fn a_connection_to_a_port_that_the_host_listens_on_is_the_hosts() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _far = [Server::echo(lab.outside(), "[::]:7"), Server::udp(lab.outside(), "[::]:7")];
    for (outside, host) in FAMILIES {
        let own = SocketAddr::new(net1.addr_like(outside), 50_030);
        // The endpoint has the port, towards a server, and a mapping for UDP.
        let mut stream = connected(&net1, own, (outside, 7).into());
        assert_eq!(greeting(&mut stream), SocketAddr::new(host, 50_030));
        let socket = udp(&net1, own);
        assert_eq!(seen_by(&socket, (outside, 7).into()).port(), 50_030);
        let mut inside = Capture::start(&net1, "eth0");
        // Nobody listens: the host says so, and at once.
        let refused = Ask::tcp((host, 50_030).into()).fails_in(lab.outside());
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        // Somebody does.
        let listener = Server::echo(lab.host(), &SocketAddr::new(host, 50_030).to_string());
        Ask::tcp((host, 50_030).into()).in_netns(lab.outside());
        assert_eq!(listener.seen().len(), 1);
        assert!(!inside.lines().iter().any(|line| line.contains("Flags [S]")), "the endpoint heard of it");
        // And the endpoint's own connection goes on.
        stream.write_all(b"still mine").unwrap();
        let mut text = [0; 10];
        stream.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"still mine");
    }
}

/// The line with which an echo server begins.
fn greeting(stream: &mut TcpStream) -> SocketAddr {
    let mut line = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).unwrap();
        line.extend(byte);
    }
    String::from_utf8(line).unwrap().trim().parse().unwrap()
}

#[test]
fn a_connection_whose_flow_is_forgotten_goes_on_with_the_endpoints_next_packet() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let tcp = Server::echo(lab.outside(), "[::]:7");
    let _udp = Server::udp(lab.outside(), "[::]:7");
    for (outside, host) in FAMILIES {
        let own = SocketAddr::new(net1.addr_like(outside), 50_040);
        let mut stream = connected(&net1, own, (outside, 7).into());
        greeting(&mut stream);
        let socket = udp(&net1, own);
        seen_by(&socket, (outside, 7).into());
        let connections = tcp.seen().len();
        for round in 0..3 {
            lab.vnet_ok(&["flow", "flush"]);
            stream.write_all(b"anyway").unwrap();
            let mut text = [0; 6];
            stream.read_exact(&mut text).unwrap_or_else(|e| panic!("{outside}, round {round}: {e}"));
            assert_eq!(&text, b"anyway");
            assert_eq!(seen_by(&socket, (outside, 7).into()), SocketAddr::new(host, 50_040));
        }
        assert_eq!(tcp.seen().len(), connections, "it is the same connection");
        // From a port that cannot be kept: the server does not know who that is, and both learn of it.
        let mut stream = connected(&net1, (own.ip(), 4_040).into(), (outside, 7).into());
        greeting(&mut stream);
        lab.vnet_ok(&["flow", "flush"]);
        stream.write_all(b"who?").unwrap();
        let error = stream.read(&mut [0; 6]).expect_err("the server has no such connection");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{outside}: {error}");
    }
}

#[test]
fn a_stream_whose_flow_is_forgotten_goes_on_or_is_reset_and_never_hangs() {
    const BYTES: u64 = 48 << 20;
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _sink = Server::tcp(lab.outside(), "[::]:9", Service::Sink);
    let (mut whole, mut reset) = (0, 0);
    for (outside, _) in FAMILIES {
        for port in [50_050, 50_052, 50_054] {
            let stream = connected(&net1, (net1.addr_like(outside), port).into(), (outside, 9).into());
            let sender = thread::spawn(move || {
                let digest = send(&stream, BYTES)?;
                stream.shutdown(std::net::Shutdown::Write)?;
                let mut answer = String::new();
                (&stream).read_to_string(&mut answer)?;
                Ok::<_, std::io::Error>((digest, answer))
            });
            lab.vnet_ok(&["flow", "flush"]);
            match sender.join().unwrap() {
                Ok((digest, answer)) => {
                    assert_eq!(answer, format!("{digest} {BYTES}\n"), "{outside}");
                    whole += 1;
                }
                Err(error) => {
                    let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
                    assert!(kinds.contains(&error.kind()), "{outside}: {error}");
                    reset += 1;
                }
            }
        }
    }
    report(format_args!(
        "of {} streams whose flow was forgotten {whole} went on and {reset} were reset",
        whole + reset
    ));
}
