//! Limits: endpoints send and receive no more than they may, whoever is at the other end, and their connections go on.

use std::io::{BufRead as _, BufReader};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use vnet_tests::datagrams::{assert_keeps_to, flood, flood_time};
use vnet_tests::lab::{Endpoint, FAMILIES, Lab, Netns, PATIENCE};
use vnet_tests::peer::{Server, Service, send};

/// Bits in a second.
const RATE: u64 = 40_000_000;
/// As `vnet limit set` wants it.
const RATE_TEXT: &str = "40mbit";
/// Bytes of a transfer: it takes a second.
const BYTES: u64 = RATE / 8;

/// Rates of fast links, as `vnet limit set` wants them and in bits a second.
const FAST: [(&str, f64); 2] = [("500mbit", 5e8), ("1gbit", 1e9)];

/// Sends [`BYTES`] from one namespace to a server, and says how long it took until the server had them all.
#[track_caller]
fn upload(from: &Netns, to: SocketAddr) -> Duration {
    let mut stream = from.enter(|| TcpStream::connect_timeout(&to, PATIENCE)).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let start = Instant::now();
    let sent = send(&mut stream, BYTES).expect("send");
    stream.shutdown(Shutdown::Write).unwrap();
    let mut digest = String::new();
    BufReader::new(stream).read_line(&mut digest).expect("the digest of what has arrived");
    assert_eq!(digest.trim_end(), format!("{sent} {BYTES}"), "what arrived is what was sent");
    start.elapsed()
}

/// Asserts that a transfer took as long as it must at [`RATE`], but for what may pass at once, and not for ever.
#[track_caller]
fn assert_limited(took: Duration, what: &str) {
    let least = Duration::from_secs_f64(0.94);
    assert!(took >= least && took < PATIENCE, "{what} took {took:?}");
}

/// Asserts that transfers are not limited: of a few, on a busy machine, one takes a fraction of the time.
#[track_caller]
fn assert_unlimited(from: &Netns, to: SocketAddr, what: &str) {
    let took: Vec<Duration> = (0..5).map(|_| upload(from, to)).collect();
    assert!(took.iter().any(|took| *took < Duration::from_millis(800)), "{what} took {took:?}");
}

fn sink(netns: &Netns, port: u16) -> Server {
    Server::tcp(netns, &format!("[::]:{port}"), Service::Sink)
}

/// What the endpoint's own interface sends through.
fn queue(endpoint: &Endpoint) -> String {
    endpoint.run(&["tc", "qdisc", "show", "dev", "eth0"]).stdout
}

fn limit(lab: &Lab, endpoint: &Endpoint, options: &[&str]) {
    lab.vnet_ok(&[&["limit", "set", endpoint.name()], options].concat());
}

#[test]
fn an_endpoint_sends_no_faster_than_it_may() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    limit(&lab, &net1, &["--egress", RATE_TEXT]);
    let _servers = [sink(lab.outside(), 5001), sink(&net2, 5001)];
    for (outside, _) in FAMILIES {
        assert_limited(upload(&net1, (outside, 5001).into()), "out to the world");
        let neighbour = net2.addr_like(outside);
        assert_limited(upload(&net1, (neighbour, 5001).into()), "over to a neighbour");
        assert_unlimited(&net2, (outside, 5001).into(), "what another sends");
    }
}

#[test]
fn an_endpoint_receives_no_faster_than_it_may_whoever_sends() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:5001", net1.name())]);
    limit(&lab, &net1, &["--ingress", RATE_TEXT]);
    let _servers = [sink(&net1, 5001), sink(&net2, 5001)];
    for (outside, host) in FAMILIES {
        let own = net1.addr_like(outside);
        assert_limited(upload(lab.outside(), (host, 8088).into()), "from outside by the published port");
        assert_limited(upload(&net2, (own, 5001).into()), "from a neighbour");
        assert_limited(upload(&net2, (host, 8088).into()), "from a neighbour by the published port");
        assert_limited(upload(lab.host(), (own, 5001).into()), "from the host");
        assert_unlimited(&net1, (net2.addr_like(outside), 5001).into(), "what it sends itself");
    }
}

#[test]
fn datagrams_beyond_the_rate_wait_or_are_dropped() {
    const SIZE: usize = 1_000;
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    lab.vnet_ok(&["portmap", "add", "5002", &format!("{}:5002", net1.name()), "--proto", "udp"]);
    limit(&lab, &net1, &["--egress", "8mbit", "--ingress", "8mbit"]);
    let (outside, host) = FAMILIES[0];
    for (sender, receiver, to) in [(&*net1, lab.outside(), outside), (lab.outside(), &*net1, host)] {
        let socket = receiver.enter(|| UdpSocket::bind("[::]:5002")).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let counter = thread::spawn(move || {
            let (mut came, mut buffer) = (0_u64, [0; SIZE]);
            while socket.recv(&mut buffer).is_ok() {
                came += 1;
            }
            came
        });
        let from = sender.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        let start = Instant::now();
        // Sixteen times as much as may pass.
        while start.elapsed() < Duration::from_secs(2) {
            for _ in 0..16 {
                let _ = from.send_to(&[0; SIZE], (to, 5002));
            }
            thread::sleep(Duration::from_millis(1));
        }
        let seconds = start.elapsed().as_secs_f64();
        let came = counter.join().unwrap() as f64 * (SIZE + 42) as f64 * 8.0;
        // And 50 ms that wait, and a burst of 8 KiB.
        let most = 8e6 * (seconds + 0.06) * 1.02;
        assert!(came <= most, "{came} bits in {seconds} s to {to}");
        assert!(came >= 8e6 * seconds * 0.5, "{came} bits in {seconds} s to {to}: the link is idle");
    }
}

#[test]
fn datagrams_at_half_and_a_whole_gigabit_keep_to_the_limit() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    lab.vnet_ok(&["portmap", "add", "5003", &format!("{}:5003", net1.name()), "--proto", "udp"]);
    let (outside, host) = FAMILIES[0];
    for (text, rate) in FAST {
        limit(&lab, &net1, &["--egress", text, "--ingress", text]);
        for (sender, receiver, to, what) in [
            (&*net1, lab.outside(), outside, "what an endpoint sends"),
            (lab.outside(), &*net1, host, "what an endpoint receives"),
        ] {
            assert_keeps_to(rate, what, || {
                let receiver = receiver.enter(|| UdpSocket::bind("0.0.0.0:5003")).expect("a socket");
                let sender = sender.enter(|| {
                    let socket = UdpSocket::bind("0.0.0.0:0")?;
                    socket.connect((to, 5003)).map(|()| socket)
                });
                flood(&sender.expect("a connected socket"), &receiver, rate, flood_time())
            });
        }
    }
}

#[test]
fn a_burst_that_is_not_named_stays() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let bursts = |options: &[&str]| {
        limit(&lab, &net1, options);
        let listed = lab.vnet_list(&["limit", "ls"], "limits");
        (listed[0]["egress_burst"].clone(), listed[0]["ingress_burst"].clone())
    };
    assert_eq!(bursts(&["--egress", "50mbit", "--burst", "64k"]), (json!(65_536), json!(null)));
    assert_eq!(bursts(&["--egress", "60mbit", "--ingress", "60mbit"]), (json!(65_536), json!(null)));
    assert!(queue(&net1).contains("burst 64Kb") || queue(&net1).contains("burst 65536b"), "{}", queue(&net1));
    assert_eq!(bursts(&["--egress", "60mbit", "--burst", "default"]), (json!(null), json!(null)));
}

#[test]
fn a_limit_is_changed_and_lifted_while_a_connection_goes_on() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:5001", net1.name())]);
    let _servers = [sink(&net1, 5001), sink(lab.outside(), 5001)];
    for direction in ["--egress", "--ingress"] {
        limit(&lab, &net1, &[direction, "1mbit"]);
        let (outside, host) = FAMILIES[0];
        thread::scope(|scope| {
            // 40 seconds at that rate.
            let done = scope.spawn(|| match direction {
                "--egress" => upload(&net1, (outside, 5001).into()),
                _ => upload(lab.outside(), (host, 8088).into()),
            });
            for rate in ["2mbit", "1mbit", "10mbit", "none"] {
                limit(&lab, &net1, &[direction, rate]);
                if rate != "none" {
                    assert!(!done.is_finished(), "at {rate} it takes longer");
                }
            }
            assert!(done.join().unwrap() < PATIENCE);
        });
    }
    assert_eq!(lab.vnet_list(&["limit", "ls"], "limits").len(), 0);
}

#[test]
fn limits_are_listed_kept_and_go_with_their_endpoint() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let name = net1.name();
    let said = lab.vnet_ok(&["limit", "set", name, "--egress", "50mbit", "--ingress", "1.5gbit"]).stdout;
    assert_eq!(said, format!("endpoint {name}: egress 50mbit, ingress 1500mbit\n"));
    let again = lab.vnet_ok(&["limit", "set", name, "--egress", "50mbit"]).stdout;
    assert_eq!(again, format!("endpoint {name}: egress 50mbit, ingress 1500mbit (already)\n"));
    lab.vnet_ok(&["limit", "set", name, "--egress", "50mbit", "--burst", "64k"]);
    let listed = lab.vnet_list(&["limit", "ls"], "limits");
    let expected = json!({
        "endpoint": name,
        "cgroup": null,
        "classid": null,
        "by": "tbf",
        "egress": 50_000_000,
        "egress_burst": 65_536,
        "ingress": 1_500_000_000,
        "ingress_burst": null,
    });
    assert_eq!(listed, [expected]);
    assert!(
        lab.vnet_ok(&["ns", "inspect", name])
            .stdout
            .contains("limited       egress 50mbit, ingress 1500mbit\n")
    );

    // Whoever takes it away inside is told of, and `up` brings it back.
    net1.run(&["tc", "qdisc", "del", "dev", "eth0", "root"]);
    let problem = "limit of 50mbit to what eth0 sends";
    let found = lab.vnet_ok(&["doctor"]);
    for words in [name, problem, "not in force: missing", "`vnet up`", "CAP_NET_ADMIN"] {
        assert!(found.stdout.contains(words), "{words}: {found}");
    }
    lab.vnet_ok(&["up"]);
    assert!(queue(&net1).contains("tbf"));
    // A change of the network leaves it alone.
    lab.vnet_ok(&["network", "set", "default", "--gateway-mode", "nat-unprotected"]);
    let _server = sink(lab.outside(), 5001);
    lab.vnet_ok(&["limit", "set", name, "--ingress", RATE_TEXT]);
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{name}:5001")]);
    let _inside = sink(&net1, 5001);
    assert_limited(upload(lab.outside(), (FAMILIES[0].1, 8088).into()), "after a change of the network");

    assert_eq!(lab.vnet_ok(&["limit", "rm", name]).stdout, format!("endpoint {name}: no limit\n"));
    assert_eq!(lab.vnet_ok(&["limit", "rm", name]).stdout, format!("endpoint {name}: no limit (already)\n"));
    assert!(!queue(&net1).contains("tbf"));
    assert_unlimited(lab.outside(), (FAMILIES[0].1, 8088).into(), "without a limit");
}

#[test]
fn what_cannot_be_limited_is_refused_by_name() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    lab.vnet(&["limit", "set", "nobody", "--egress", "1mbit"]).fails_with(1, &["nobody"]);
    let small = ["a burst of 1500 bytes has no room for a packet", "use 1522 at least"];
    lab.vnet(&["limit", "set", net1.name(), "--egress", "1mbit", "--burst", "1500"]).fails_with(1, &small);
    lab.vnet(&["limit", "set", net1.name(), "--egress", "1mbps"]).fails_with(2, &["50mbit"]);
    let alone = lab.name("alone");
    lab.vnet_ok(&["ns", "create", &alone, "--mode", "none"]);
    lab.vnet(&["limit", "set", &alone, "--egress", "1mbit"]).fails_with(1, &["is on no network"]);
    assert_eq!(lab.vnet_list(&["limit", "ls"], "limits").len(), 0);
}
