//! `vnet flow`: what is listed, watched, flushed and counted, of flows that real sockets make.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData};
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;
use vnet_common::{Addr, CtEntry, CtState, DatapathConfig, Origin, Port, Proto, Tuple, Zone, maps as names};
use vnet_tests::lab::{FAMILIES, HOST_V4, Lab, Netns, OUTSIDE_V4, UPLINK, eventually};
use vnet_tests::peer::{Ping, Server};

/// How long a datagram is waited for that must not come.
const SILENCE: Duration = Duration::from_millis(300);

fn text(value: &impl ToString) -> String {
    value.to_string()
}

/// The flows that `vnet flow ls` lists with these filters.
fn listed(lab: &Lab, filters: &[&str]) -> Vec<Value> {
    lab.vnet_list(&[&["flow", "ls"], filters].concat(), "flows")
}

/// Waits until the one flow with a port is like this.
#[track_caller]
fn expect(lab: &Lab, port: u16, state: CtState, confirmed: bool) -> Value {
    let port = text(&port);
    let like = || {
        let mut flows = listed(lab, &["--port", &port]);
        let is = |flow: &Value| flow["state"] == state.name() && flow["confirmed"] == confirmed;
        (flows.len() == 1 && is(&flows[0])).then(|| flows.remove(0))
    };
    let found = || format!("{state:?}, confirmed: {confirmed}, in {:#?}", listed(lab, &["--port", &port]));
    eventually(like, found)
}

/// Both ends of a TCP connection.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    fn new(client: &Netns, server: &Netns, listen: SocketAddr, dial: SocketAddr) -> Self {
        let listener = server.enter(|| TcpListener::bind(listen)).expect("a free port");
        let client = client.enter(|| TcpStream::connect(dial)).expect("an answer");
        let (server, _) = listener.accept().expect("a connection");
        Self { client, server }
    }

    fn port(&self) -> u16 {
        self.client.local_addr().expect("connected").port()
    }

    /// Sends a few bytes there and back.
    fn talk(&mut self) -> std::io::Result<()> {
        let mut buffer = [0; 4];
        for (from, to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            let (mut from, mut to) = (from, to);
            from.write_all(b"ping")?;
            to.set_read_timeout(Some(Duration::from_secs(5)))?;
            to.read_exact(&mut buffer)?;
        }
        Ok(())
    }
}

/// A UDP socket in a namespace.
fn datagrams(netns: &Netns, bind: &str) -> UdpSocket {
    let socket = netns.enter(|| UdpSocket::bind(bind)).unwrap_or_else(|e| panic!("bind {bind}: {e}"));
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    socket
}

/// Where the next datagram comes from.
#[track_caller]
fn received(socket: &UdpSocket) -> SocketAddr {
    socket.recv_from(&mut [0; 64]).expect("a datagram").1
}

#[track_caller]
fn receives_nothing(socket: &UdpSocket) {
    socket.set_read_timeout(Some(SILENCE)).expect("a timeout");
    if let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
        panic!("a datagram came from {from}");
    }
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
}

#[test]
fn flows_are_in_the_state_that_their_sockets_show() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    for (outside, host) in FAMILIES {
        let any = SocketAddr::new(if outside.is_ipv4() { "0.0.0.0" } else { "::" }.parse().unwrap(), 0);

        // Datagrams that nobody answers, and a ping that is.
        let silent = datagrams(lab.outside(), &SocketAddr::new(outside, 6000).to_string());
        let asking = datagrams(&net1, &any.to_string());
        asking.send_to(b"?", silent.local_addr().unwrap()).unwrap();
        expect(&lab, asking.local_addr().unwrap().port(), CtState::New, false);
        Ping::to(outside).in_netns(&net1);
        let protocol = if outside.is_ipv4() { "icmp" } else { "icmpv6" };
        let pings = listed(&lab, &["--proto", protocol, "--state", "established", "--confirmed"]);
        assert_eq!(pings.len(), 1, "{pings:#?}");

        // Through a published port the client has to show that it hears the answer.
        let server = datagrams(&net1, &SocketAddr::new(net1.addr_like(outside), 53).to_string());
        lab.vnet_ok(&["portmap", "add", "5353", &format!("{}:53", net1.name()), "--proto", "udp"]);
        let client = datagrams(lab.outside(), &SocketAddr::new(outside, 6001).to_string());
        client.send_to(b"?", (host, 5353)).unwrap();
        let from = received(&server);
        expect(&lab, 5353, CtState::New, false);
        server.send_to(b"!", from).unwrap();
        received(&client);
        expect(&lab, 5353, CtState::Answered, false);
        client.send_to(b"?", (host, 5353)).unwrap();
        received(&server);
        let flow = expect(&lab, 5353, CtState::Established, true);
        assert_eq!((&flow["opener"], &flow["target"]), (&Value::Null, &net1.name().into()), "{flow:#}");
        assert!(flow["mapping"].is_u64() && flow["endpoint_independent"] == false, "{flow:#}");
        lab.vnet_ok(&["portmap", "rm", "5353", "--proto", "udp"]);

        // A connection from its first to its last packet.
        let there = SocketAddr::new(outside, 6002);
        let connect = || Connection::new(&net1, lab.outside(), there, there);
        let connection = connect();
        let port = connection.port();
        let flow = expect(&lab, port, CtState::Established, true);
        assert_eq!((&flow["opener"], &flow["target"]), (&net1.name().into(), &Value::Null), "{flow:#}");
        assert_eq!((&flow["halves"], &flow["expired"]), (&"both".into(), &false.into()), "{flow:#}");
        let seconds = |field: &str| flow[field].as_u64().unwrap_or_else(|| panic!("no {field} in {flow:#}"));
        assert_eq!(seconds("timeout"), u64::from(DatapathConfig::DEFAULT.tcp_established));
        assert_eq!(seconds("expires") + seconds("idle"), seconds("timeout"), "{flow:#}");
        connection.client.shutdown(Shutdown::Write).unwrap();
        expect(&lab, port, CtState::OpenerClosed, true);
        connection.server.shutdown(Shutdown::Write).unwrap();
        let flow = expect(&lab, port, CtState::Closing, true);
        assert_eq!(flow["timeout"], DatapathConfig::DEFAULT.tcp_closing, "{flow:#}");

        let connection = connect();
        connection.server.shutdown(Shutdown::Write).unwrap();
        expect(&lab, connection.port(), CtState::AnswerClosed, true);

        let Connection { client, server } = connect();
        let port = client.local_addr().unwrap().port();
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&client.as_fd(), sockopt::Linger, &linger).unwrap();
        drop(client);
        expect(&lab, port, CtState::Reset, true);
        drop(server);
    }
}

#[test]
fn filters_select_and_sort_says_which_come_first() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let _servers = [Server::echo(&net2, "[::]:80"), Server::udp(lab.outside(), "[::]:7")];
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net2.name())]);
    let there = SocketAddr::new(OUTSIDE_V4, 6000);
    let mut tcp = Connection::new(&net1, lab.outside(), there, there);
    let udp = datagrams(&net2, "0.0.0.0:0");
    udp.send_to(&[0; 1200], (OUTSIDE_V4, 6001)).unwrap();
    let mut published =
        lab.outside().enter(|| TcpStream::connect(SocketAddr::new(HOST_V4, 8088))).expect("an answer");
    published.read_exact(&mut [0; 4]).unwrap();
    tcp.talk().unwrap();

    // Each by the port that its client has.
    let ports = [tcp.port(), udp.local_addr().unwrap().port(), published.local_addr().unwrap().port()];
    let selected = |filters: &[&str]| -> Vec<usize> {
        let flows = listed(&lab, filters);
        let number = |flow: &Value| {
            let port = flow["original"]["source_port"].as_u64();
            let found = ports.iter().position(|own| Some(u64::from(*own)) == port);
            found.unwrap_or_else(|| panic!("an unknown flow: {flow:#}"))
        };
        let mut numbers: Vec<usize> = flows.iter().map(number).collect();
        numbers.sort_unstable();
        numbers
    };
    eventually(|| (selected(&["--confirmed"]) == [0, 2]).then_some(()), || "two connections".to_owned());
    let external = listed(&lab, &["--port", &text(&ports[0])])[0]["translated"]["source_port"].clone();
    let client = text(&ports[2]);
    for (filters, expected) in [
        (&[][..], &[0, 1, 2][..]),
        (&["--endpoint", net1.name()], &[0]),
        (&["--endpoint", net2.name()], &[1, 2]),
        (&["--proto", "udp"], &[1]),
        (&["--state", "new"], &[1]),
        (&["--state", "new,established"], &[0, 1, 2]),
        (&["--state", "closing", "--state", "reset"], &[]),
        (&["--port", "8088"], &[2]),
        (&["--port", &client], &[2]),
        (&["--port", &text(&external)], &[0]),
        (&["--address", &text(&net1.v4())], &[0]),
        (&["--address", "192.168.0.0/24"], &[0, 1, 2]),
        (&["--address", "203.0.113.2", "--port", "6001"], &[1]),
        (&["--address", "2001:db8::/32"], &[]),
        (&["--mapping", "all"], &[2]),
        (&["--mapping", "8088"], &[2]),
        (&["--mapping", "80"], &[]),
        (&["--unconfirmed"], &[1]),
        (&["--confirmed", "--endpoint", net2.name(), "--proto", "tcp"], &[2]),
    ] {
        assert_eq!(selected(filters), expected, "{filters:?}");
    }
    let most = listed(&lab, &["--sort", "bytes", "--limit", "1"]);
    assert_eq!(most[0]["protocol"], "udp", "one large datagram: {most:#?}");
    let ages: Vec<u64> = listed(&lab, &["--sort", "age"]).iter().filter_map(|f| f["age"].as_u64()).collect();
    assert!(ages.len() == 3 && ages.is_sorted_by(|a, b| a >= b), "the oldest first: {ages:?}");
    let cut = lab.vnet_ok(&["flow", "ls", "--limit", "2"]);
    assert!(cut.stdout.lines().count() == 3 && cut.stderr.contains("2 of 3"), "{cut}");
    lab.vnet(&["flow", "ls", "--endpoint", "nobody"]).fails_with(1, &["nobody", net1.name()]);
}

#[test]
fn what_is_over_is_not_listed_as_live() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let asking = datagrams(&net1, "0.0.0.0:0");
    asking.send_to(b"?", (OUTSIDE_V4, 6000)).unwrap();
    let there = SocketAddr::new(OUTSIDE_V4, 6000);
    let _open = Connection::new(&net1, lab.outside(), there, there);
    assert_eq!(listed(&lab, &[]).len(), 2);
    // Unanswered datagrams are kept for no time at all, from now on.
    let mut config = config_map(&lab);
    let mut changed: DatapathConfig = bytemuck::cast(config.get(&0, 0).expect("a configuration"));
    changed.udp_unreplied = 0;
    config.set(0, bytemuck::cast::<_, [u8; CONFIG]>(changed), 0).expect("write the configuration");
    eventually(
        || (listed(&lab, &[]).len() == 1).then_some(()),
        || format!("one flow in {:#?}", listed(&lab, &[])),
    );
    let all = listed(&lab, &["--all"]);
    let expired: Vec<_> = all.iter().map(|flow| (&flow["protocol"], &flow["expired"])).collect();
    assert_eq!(expired, [(&"tcp".into(), &false.into()), (&"udp".into(), &true.into())], "{all:#?}");
    assert!(lab.vnet_ok(&["flow", "ls", "--all"]).stdout.contains("over"));
    let stats = stats(&lab);
    let unconfirmed = &stats["tables"][1];
    assert_eq!((&unconfirmed["used"], &unconfirmed["over"]), (&0.into(), &1.into()), "{unconfirmed:#}");
}

#[test]
fn a_half_that_is_alone_is_listed_as_such() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let there = SocketAddr::new(OUTSIDE_V4, 6000);
    let connection = Connection::new(&net1, lab.outside(), there, there);
    let flow = expect(&lab, connection.port(), CtState::Established, true);
    // The entry of the opener's direction is lost.
    let tuple = Tuple {
        src: Addr::from(net1.v4()),
        dst: Addr::from(OUTSIDE_V4),
        sport: Port::new(connection.port()),
        dport: Port::new(6000),
        zone: Zone { id: 1 },
        proto: Proto::TCP,
        reserved: 0,
    };
    conntrack(&lab).remove(&bytemuck::cast::<_, [u8; TUPLE]>(tuple)).expect("remove the opener's half");
    let flows = listed(&lab, &[]);
    assert_eq!(flows.len(), 1, "{flows:#?}");
    for field in ["original", "translated", "opener", "state", "confirmed", "packets_received"] {
        assert_eq!(flows[0][field], flow[field], "{field}");
    }
    assert_eq!((&flows[0]["halves"], &flows[0]["packets_sent"]), (&"answer".into(), &0.into()));
    let table = lab.vnet_ok(&["flow", "ls"]).stdout;
    assert!(table.contains("yes, answer's half alone"), "{table}");
}

#[test]
fn a_flush_ends_what_is_asked_for_and_lets_the_rest_go_on() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    for endpoint in [&net1, &net2] {
        // A port that masquerade would keep might be the same again afterwards.
        endpoint.write("/proc/sys/net/ipv4/ip_local_port_range", "4000 4999");
    }
    for (outside, _) in FAMILIES {
        let there = SocketAddr::new(outside, 6000);
        let mut connections = [&net1, &net2].map(|net| Connection::new(net, lab.outside(), there, there));
        for connection in &mut connections {
            connection.talk().unwrap();
        }
        let [doomed, spared] = &mut connections;
        let filter = ["--endpoint", net1.name(), "--proto", "tcp", "--address", &text(&outside)];
        let dry = lab.vnet_ok(&[&["flow", "flush", "--dry-run"], &filter[..]].concat());
        assert_eq!(dry.stdout, "forget 1 flow\n");
        doomed.talk().expect("a dry run ends nothing");
        let flushed = lab.vnet_json(&[&["flow", "flush"], &filter[..]].concat());
        assert_eq!(flushed["ops"], serde_json::json!(["forget 1 flow"]));
        spared.talk().expect("the other one goes on");
        // The answer comes from nobody that the endpoint knows.
        let answer = doomed.server.write_all(b"?").and_then(|()| {
            doomed.client.set_read_timeout(Some(SILENCE))?;
            doomed.client.read(&mut [0; 4])
        });
        assert!(!matches!(answer, Ok(1..)), "the flushed one goes on as well");
        spared.talk().expect("and on");
    }
    let count = listed(&lab, &[]).len();
    let dry = lab.vnet_ok(&["flow", "flush", "--dry-run"]).stdout;
    assert_eq!(dry, format!("forget {count} flows\n"));
    lab.vnet_ok(&["flow", "flush"]);
    assert!(listed(&lab, &["--all"]).is_empty());
    assert_eq!(lab.vnet_ok(&["flow", "flush"]).stdout, "0 flows forgotten\n", "again, and nothing is left");
}

#[test]
fn a_flushed_peer_cannot_come_back_through_the_mapping_of_a_socket() {
    let lab = Lab::up();
    lab.outside().ip(&format!("addr add 203.0.113.66/24 dev {UPLINK}"));
    let net1 = lab.endpoint("net1");
    let socket = datagrams(&net1, "0.0.0.0:4000");
    let peers = ["203.0.113.2:6000", "203.0.113.66:6000"].map(|addr| datagrams(lab.outside(), addr));
    let external = peers.each_ref().map(|peer| {
        socket.send_to(b"?", peer.local_addr().unwrap()).unwrap();
        received(peer)
    });
    assert_eq!(external[0], external[1], "one port for all that the socket sends");
    for peer in &peers {
        peer.send_to(b"!", external[0]).unwrap();
        received(&socket);
    }
    let flush = |address: &str| {
        let flushed = lab.vnet_ok(&["flow", "flush", "--address", address, "--port", "4000"]);
        assert_eq!(flushed.stdout, "1 flow forgotten\n");
    };
    flush("203.0.113.66");
    peers[1].send_to(b"!", external[0]).unwrap();
    receives_nothing(&socket);
    peers[0].send_to(b"!", external[0]).unwrap();
    assert_eq!(received(&socket), peers[0].local_addr().unwrap(), "the other one's flow goes on");
    flush("203.0.113.2");
    peers[0].send_to(b"!", external[0]).unwrap();
    receives_nothing(&socket);
    assert_eq!(lab.dropped("no-free-port"), 0);
}

#[test]
fn a_watcher_sees_a_connection_from_its_beginning_to_its_end() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let mut watch = lab.vnet_start(&["--json", "flow", "watch", "--endpoint", net1.name(), "--proto", "tcp"]);
    let mut people = lab.vnet_start(&["flow", "watch", "--state", "closing"]);
    let there = SocketAddr::new(OUTSIDE_V4, 6000);
    let connect = |net: &Netns| Connection::new(net, lab.outside(), there, there);
    // Whoever watches sees what happens from some moment on; so let it happen until it is seen.
    let seen = |line: &str| -> Value { serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")) };
    eventually(
        || {
            drop(connect(&net1));
            (!watch.lines().is_empty() && !people.lines().is_empty()).then_some(())
        },
        || format!("an event; people see {:#?}", people.lines()),
    );
    let (connection, _other) = (connect(&net1), connect(&net2));
    let port = connection.port();
    let told = |event: &str, state: CtState| {
        let like = |line: &String| {
            let told = seen(line);
            let is = |field: &str, word: &str| told[field] == word;
            let own = told["original"]["source_port"] == port;
            (own && is("event", event) && is("state", state.name())).then_some(told)
        };
        let found = || watch.lines().iter().find_map(like);
        eventually(found, || format!("{event} of port {port}, {state:?}, in {:#?}", watch.lines()))
    };
    let began = told("began", CtState::New);
    assert_eq!((&began["version"], &began["opener"]), (&1.into(), &net1.name().into()), "{began:#}");
    assert!(began["time"].as_f64() > Some(1.6e9), "{began:#}");
    assert_eq!(told("confirmed", CtState::Established)["previous"], "new");
    drop(connection);
    // If it was looked at between the two FINs, it was closed by one side before.
    let before = told("changed", CtState::Closing)["previous"].clone();
    assert!(
        ["established", "opener-closed", "answer-closed"].iter().any(|state| before == *state),
        "{before}"
    );
    lab.vnet_ok(&["flow", "flush", "--port", &text(&port)]);
    let ended = told("ended", CtState::Closing);
    assert_eq!(ended["reason"], "removed", "{ended:#}");
    assert!(ended["packets_received"].as_u64() >= Some(2), "what was counted is told: {ended:#}");

    let others: Vec<String> =
        watch.lines().into_iter().filter(|l| seen(l)["opener"] != net1.name()).collect();
    assert!(others.is_empty(), "the filters hold: {others:#?}");
    let _ = people.line_with(&["ended", &text(&net1.v4()), "removed when closing"]);
    let unasked: Vec<String> = people.lines().into_iter().filter(|line| line.contains("began")).collect();
    assert!(unasked.is_empty(), "no flow begins as one that is closing: {unasked:#?}");
    watch.signal(Signal::SIGTERM);
    people.signal(Signal::SIGINT);
    assert_eq!((watch.wait(), people.wait()), (Some(0), Some(0)));
}

#[test]
fn a_watcher_ends_with_its_reader_and_with_its_instance() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let watcher = || {
        lab.host().enter(|| {
            let mut command = std::process::Command::new(vnet_tests::lab::vnet_binary());
            command.args(["flow", "watch"]).envs(lab.environment());
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            command.spawn().expect("start vnet")
        })
    };
    let mut child = watcher();
    let socket = datagrams(&net1, "0.0.0.0:0");
    let mut out = child.stdout.take().expect("piped");
    // It is at work once it has told something. Each peer is another flow.
    let first = std::thread::spawn(move || out.read(&mut [0; 1]).map(|_| out));
    let mut port = 1000;
    eventually(
        || {
            port += 1;
            socket.send_to(b"?", (OUTSIDE_V4, port)).unwrap();
            first.is_finished().then_some(())
        },
        || "a flow to be told of".to_owned(),
    );
    // The reader goes, and nothing happens that could be written.
    drop(first.join().unwrap().expect("the first letter"));
    let status =
        eventually(|| child.try_wait().unwrap(), || "the watcher to end without its reader".to_owned());
    assert_eq!(status.code(), Some(0));

    let mut child = lab.vnet_start(&["flow", "watch"]);
    eventually(
        || {
            port += 1;
            socket.send_to(b"?", (OUTSIDE_V4, port)).unwrap();
            (!child.lines().is_empty()).then_some(())
        },
        || "a flow to be told of".to_owned(),
    );
    lab.vnet_ok(&["down"]);
    assert_eq!(child.wait(), Some(0), "{:#?}", child.lines());
    let _ = child.line_with(&["not up any more"]);
}

/// The one element of `vnet flow stats`.
fn stats(lab: &Lab) -> Value {
    let mut stats = lab.vnet_list(&["flow", "stats"], "stats");
    assert_eq!(stats.len(), 1);
    stats.remove(0)
}

#[test]
fn stats_count_flows_credit_and_ports() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let endpoint = |stats: &Value, name: &str| -> Value {
        let all = stats["endpoints"].as_array().expect("a list");
        all.iter()
            .find(|it| it["endpoint"] == name)
            .unwrap_or_else(|| panic!("no {name} in {stats:#}"))
            .clone()
    };
    let limits = DatapathConfig::DEFAULT;
    let fresh = endpoint(&stats(&lab), net1.name());
    assert_eq!((&fresh["flows"], &fresh["flows_limit"]), (&0.into(), &limits.endpoint_flows.into()));
    assert_eq!(fresh["unanswered_left"], limits.unanswered, "nothing has been sent yet");

    // Three connections of net1 from ports of their own, and five sockets of net2 that nobody answers.
    let connections: Vec<Connection> = (0..3)
        .map(|n| {
            let there = SocketAddr::new(OUTSIDE_V4, 6000 + n);
            Connection::new(&net1, lab.outside(), there, there)
        })
        .collect();
    let sockets: Vec<UdpSocket> = (0..5).map(|_| datagrams(&net2, "0.0.0.0:0")).collect();
    for socket in &sockets {
        socket.send_to(b"?", (OUTSIDE_V4, 6000)).unwrap();
    }
    let counted = eventually(
        || {
            let stats = stats(&lab);
            (stats["tables"][0]["used"] == 3 && stats["tables"][1]["used"] == 5).then_some(stats)
        },
        || format!("three and five flows in {:#}", stats(&lab)),
    );
    let tables: Vec<_> = counted["tables"].as_array().unwrap().iter().map(|t| t["map"].clone()).collect();
    assert_eq!(tables, [names::CONNTRACK, names::UNCONFIRMED, names::MAPPINGS, names::FRAGMENTS]);
    assert_eq!(counted["tables"][0]["room"], names::FLOW_SLOTS_ENTRIES);
    assert!(counted["tables"][2]["used"].as_u64() >= Some(10), "two for each socket of net2: {counted:#}");
    assert_eq!(counted["tables"][0]["forecast"]["full_in"], Value::Null, "three flows fill nothing");
    assert!(counted["tables"][0]["forecast"]["rate"].as_f64() > Some(0.0), "three in the last minute");
    let states: Vec<_> =
        counted["states"].as_array().unwrap().iter().map(|s| (&s["state"], &s["flows"])).collect();
    assert_eq!(states, [(&"new".into(), &5.into()), (&"established".into(), &3.into())]);
    assert_eq!(endpoint(&counted, net1.name())["flows"], 3);
    let net2_stats = endpoint(&counted, net2.name());
    assert_eq!((&net2_stats["flows"], &net2_stats["refused"]), (&0.into(), &0.into()), "{net2_stats:#}");
    assert!(
        net2_stats["unanswered_left"].as_u64() < Some(limits.unanswered.into()),
        "five are not answered: {net2_stats:#}"
    );
    let used = |proto: &str| -> u64 {
        let ports = counted["ports"].as_array().unwrap();
        let of = ports.iter().find(|it| it["protocol"] == proto && it["address"] == text(&HOST_V4));
        let of = of.unwrap_or_else(|| panic!("no ports of {proto} in {counted:#}"));
        let (used, left) = (of["used"].as_u64().unwrap(), of["left"].as_u64().unwrap());
        assert_eq!(used + left, 16_384, "{of:#}");
        used
    };
    let external = |proto: &str| {
        let flows = listed(&lab, &["--proto", proto]);
        let ports = flows.iter().map(|flow| flow["translated"]["source_port"].as_u64().unwrap());
        ports.collect::<std::collections::BTreeSet<_>>().len() as u64
    };
    assert_eq!((used("tcp"), used("udp")), (external("tcp"), external("udp")));
    assert_eq!(used("udp"), 5, "each socket has its own");
    assert_eq!(counted["warnings"], serde_json::json!([]));
    let printed = lab.vnet_ok(&["flow", "stats"]).stdout;
    for word in ["confirmed flows", "UNANSWERED LEFT", net1.name(), "49152-65535", "never"] {
        assert!(printed.contains(word), "no {word:?} in\n{printed}");
    }
    drop(connections);
}

#[test]
fn stats_warn_of_an_endpoint_that_is_at_its_limit_and_say_what_was_refused() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let mut config = config_map(&lab);
    let mut narrow: DatapathConfig = bytemuck::cast(config.get(&0, 0).expect("a configuration"));
    // So few that none comes back within the test: one in a hundred seconds.
    (narrow.unanswered, narrow.udp_unreplied) = (2, 200);
    config.set(0, bytemuck::cast::<_, [u8; CONFIG]>(narrow), 0).expect("write the configuration");
    let sockets: Vec<UdpSocket> = (0..5).map(|_| datagrams(&net1, "0.0.0.0:0")).collect();
    for socket in &sockets {
        let _ = socket.send_to(b"?", (OUTSIDE_V4, 6000));
    }
    let stats = stats(&lab);
    let endpoint = &stats["endpoints"][0];
    assert_eq!((&endpoint["unanswered_left"], &endpoint["unanswered_limit"]), (&0.into(), &2.into()));
    assert_eq!(endpoint["refused"], 3, "of five: {endpoint:#}");
    let warning = format!("unanswered flows of endpoint {}: 2 of 2 in use", net1.name());
    assert!(stats["warnings"][0].as_str().is_some_and(|it| it.starts_with(&warning)), "{stats:#}");
    let printed = lab.vnet_ok(&["flow", "stats"]).stdout;
    assert!(printed.contains(&format!("warning: {warning}")), "{printed}");
}

#[test]
fn a_hundred_thousand_flows_are_listed_counted_and_flushed() {
    const FLOWS: u32 = 100_000;
    let lab = Lab::up();
    let _net1 = lab.endpoint("net1");
    let mut table = conntrack(&lab);
    for n in 0..FLOWS {
        for (tuple, entry) in made_up(n) {
            let (key, value): ([u8; TUPLE], [u8; ENTRY]) = (bytemuck::cast(tuple), bytemuck::cast(entry));
            table.insert(key, value, 0).expect("there is room");
        }
    }
    let began = std::time::Instant::now();
    let lines = lab.vnet_ok(&["flow", "ls"]).stdout.lines().count();
    let listing = began.elapsed();
    assert_eq!(lines, FLOWS as usize + 1, "each once, and the header");
    let began = std::time::Instant::now();
    let stats = stats(&lab);
    let counting = began.elapsed();
    assert_eq!(stats["tables"][0]["used"], FLOWS);
    assert_eq!(stats["ports"][0]["used"], 16_384, "all of the range: {:#}", stats["ports"]);
    assert!(stats["warnings"][0].as_str().is_some_and(|it| it.starts_with("tcp ports of")), "{stats:#}");
    vnet_tests::report::report(format_args!("{FLOWS} flows: listed in {listing:?}, counted in {counting:?}"));
    let few = listed(&lab, &["--port", "50000"]);
    assert!((6..=8).contains(&few.len()), "every 16384th of them: {}", few.len());
    lab.vnet_ok(&["flow", "flush", "--port", "50000"]);
    assert_eq!(
        lab.vnet_ok(&["flow", "flush"]).stdout,
        format!("{} flows forgotten\n", FLOWS as usize - few.len())
    );
}

#[test]
fn the_documented_timeouts_and_limits_are_the_defaults() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/flows.md");
    let page = std::fs::read_to_string(page).unwrap_or_else(|e| panic!("read {page}: {e}"));
    let config = DatapathConfig::DEFAULT;
    for (setting, value) in [
        ("tcp_established", config.tcp_established),
        ("tcp_opening", config.tcp_opening),
        ("tcp_closing", config.tcp_closing),
        ("udp_unreplied", config.udp_unreplied),
        ("udp_replied", config.udp_replied),
        ("dns", config.dns),
        ("icmp_query", config.icmp_query),
        ("fragment", config.fragment),
        ("endpoint_flows", config.endpoint_flows),
        ("unanswered", config.unanswered),
    ] {
        let row = format!("| {value} | `{setting}` |");
        assert!(page.lines().any(|line| line.contains(&row)), "no row with {row:?}");
    }
    for state in CtState::ALL {
        let row = format!("| `{}` |", state.name());
        assert!(page.lines().any(|line| line.starts_with(&row)), "no row of {state:?}");
    }
}

/// Both entries of a flow of 192.168.0.2.
fn made_up(n: u32) -> [(Tuple, CtEntry); 2] {
    let original = Tuple {
        src: Addr::v4([192, 168, 0, 2]),
        dst: Addr::from(IpAddr::from((0xc612_0000 + n / 16_384).to_be_bytes())),
        sport: Port::new(1024 + (n % 16_384) as u16),
        dport: Port::new(443),
        zone: Zone { id: 1 },
        proto: Proto::TCP,
        reserved: 0,
    };
    let translated = Tuple {
        src: Addr::from(HOST_V4),
        sport: Port::new(49_152 + (n % 16_384) as u16),
        zone: Zone::WORLD,
        ..original
    };
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE).expect("a clock").tv_sec()
        as u32;
    let opener = CtEntry {
        translated,
        packets: 1,
        bytes: 60,
        last_seen: now,
        created: now,
        mapping: 0,
        state: CtState::Established as u8,
        origin: Origin::Opener as u8,
        flags: 0,
        reserved: 0,
    };
    let answer = CtEntry { translated: original.answer(), origin: Origin::Answer as u8, ..opener };
    [(original, opener), (translated.answer(), answer)]
}

const TUPLE: usize = size_of::<Tuple>();
const ENTRY: usize = size_of::<CtEntry>();
const CONFIG: usize = size_of::<DatapathConfig>();

fn pinned(lab: &Lab, name: &str) -> MapData {
    MapData::from_pin(lab.pin_dir().join(name)).unwrap_or_else(|e| panic!("open map {name}: {e}"))
}

/// The table of confirmed flows.
fn conntrack(lab: &Lab) -> HashMap<MapData, [u8; TUPLE], [u8; ENTRY]> {
    HashMap::try_from(Map::HashMap(pinned(lab, names::CONNTRACK))).expect("of these sizes")
}

fn config_map(lab: &Lab) -> Array<MapData, [u8; CONFIG]> {
    Array::try_from(Map::Array(pinned(lab, names::CONFIG))).expect("of this size")
}
