//! The host's own firewall: what is told of it, and that vnet neither needs nor touches it.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::Value;
use vnet_tests::lab::{Endpoint, FAMILIES, HOST_V4, HOST_V6, Lab, Netns, OUTSIDE_V4, OUTSIDE_V6, eventually};
use vnet_tests::peer::{Ask, Ping, Server};

/// What people type to close a host but for a few ports.
const BY_HAND: &[&str] = &[
    "-P INPUT DROP",
    "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "-A INPUT -m state --state INVALID -j DROP",
    "-A INPUT -i lo -j ACCEPT",
    "-A INPUT -p icmp -j ACCEPT",
    "-N web",
    "-N end",
    "-A INPUT -p tcp --dport 9011 -g end",
    "-A INPUT ! -f -p tcp --syn -j web",
    "-A INPUT ! -i eth+ -j ACCEPT",
    "-A INPUT -s 198.51.100.0/24 -p tcp --dport 3306 -j ACCEPT",
    "-A INPUT -p udp --sport 67 --dport 68 -j ACCEPT",
    "-A web -p tcp --dport 8443 -m comment --comment open -j ACCEPT",
    "-A web -p tcp -m multiport --dports 9000:9011,9443 -j ACCEPT",
    "-A web -m limit --limit 3/min -j LOG",
];

/// A firewall that lets 8443, 9000-9010 and 9443 pass, and stops 8088.
struct Firewall {
    name: &'static str,
    install: fn(&Netns),
    /// The host's addresses that it looks after.
    guards: &'static [IpAddr],
    /// What is told of it when it blocks a port.
    told: &'static [&'static str],
}

const FIREWALLS: [Firewall; 8] = [
    Firewall {
        name: "nft",
        install: |host| load(host, &["nft", "-f"], "workstation.nft"),
        guards: &[HOST_V4, HOST_V6],
        told: &[
            "the policy of chain input in table inet filter (nft)",
            "`nft insert rule inet filter input tcp dport 8088 accept`",
        ],
    },
    Firewall {
        name: "firewalld",
        install: |host| load(host, &["nft", "-f"], "firewalld.nft"),
        guards: &[HOST_V4, HOST_V6],
        told: &[
            "a rule of chain filter_IN_public in table inet firewalld (firewalld)",
            "`firewall-cmd --add-port=8088/tcp`",
        ],
    },
    Firewall {
        name: "iptables-nft",
        install: |host| type_in(host, "iptables-nft"),
        guards: &[HOST_V4],
        told: &[
            "the policy of chain INPUT in table ip filter (iptables)",
            "`iptables -I INPUT -p tcp --dport 8088 -j ACCEPT`",
        ],
    },
    Firewall {
        name: "iptables-legacy",
        install: |host| type_in(host, "iptables-legacy"),
        guards: &[HOST_V4],
        told: &[
            "the policy of chain INPUT in table ip filter (iptables-legacy)",
            "`iptables-legacy -I INPUT -p tcp",
        ],
    },
    Firewall {
        name: "ufw on nftables",
        install: |host| load(host, &["iptables-nft-restore"], "ufw.rules"),
        guards: &[HOST_V4],
        told: &["the policy of chain INPUT in table ip filter (ufw)", "`ufw allow 8088/tcp`"],
    },
    Firewall {
        name: "ufw on iptables-legacy",
        install: |host| load(host, &["iptables-legacy-restore"], "ufw.rules"),
        guards: &[HOST_V4],
        told: &["the policy of chain INPUT in table ip filter (ufw)", "`ufw allow 8088/tcp`"],
    },
    Firewall {
        name: "ufw for IPv6 on nftables",
        install: |host| load(host, &["ip6tables-nft-restore"], "ufw6.rules"),
        guards: &[HOST_V6],
        told: &["the policy of chain INPUT in table ip6 filter (ufw)", "`ufw allow 8088/tcp`"],
    },
    Firewall {
        name: "ufw for IPv6 on iptables-legacy",
        install: |host| load(host, &["ip6tables-legacy-restore"], "ufw6.rules"),
        guards: &[HOST_V6],
        told: &["the policy of chain INPUT in table ip6 filter (ufw)", "`ufw allow 8088/tcp`"],
    },
];

/// Has a program read one of the rule sets beside this file.
fn load(host: &Netns, program: &[&str], file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/firewall").join(file);
    host.run(&[program, &[path.to_str().expect("a path in UTF-8")]].concat()).ok();
}

fn type_in(host: &Netns, program: &str) {
    for line in BY_HAND {
        run(host, &format!("{program} -w {line}"));
    }
}

/// Runs a command with arguments separated by blanks; it must succeed.
fn run(netns: &Netns, command: &str) -> String {
    netns.run(&command.split_whitespace().collect::<Vec<_>>()).ok().stdout
}

/// Whether a server of the host itself is reached at a port from outside.
fn host_is_reached(lab: &Lab, host: IpAddr, port: u16, expected: bool) {
    let _server = Server::echo(lab.host(), &format!("[::]:{port}"));
    let ask = Ask::tcp((host, port).into());
    if expected {
        ask.in_netns(lab.outside());
    } else {
        ask.fails_in(lab.outside());
    }
}

fn publish(lab: &Lab, published: &str, to: &Endpoint) -> String {
    lab.vnet_ok(&["portmap", "add", published, &format!("{}:80", to.name())]).stderr
}

/// What `vnet status` says the host's firewall would do to what is published at a port.
fn verdict(lab: &Lab, published: &str) -> Value {
    let reachable = lab.vnet_list(&["status"], "reachable");
    let found = reachable.iter().find(|each| each["published"] == published);
    found.unwrap_or_else(|| panic!("no {published} in {reachable:#?}"))["firewall"].clone()
}

/// The judge is held against the kernel: what it says of a published port is what happens to a program of the host.
#[test]
fn what_is_told_of_a_firewall_is_what_it_does() {
    for Firewall { name, install, guards, told } in FIREWALLS {
        let lab = Lab::up();
        let net1 = lab.endpoint("net1");
        let _server = Server::echo(&net1, "[::]:80");
        install(lab.host());
        for (port, open) in
            [(8088, false), (8443, true), (9000, true), (9010, true), (9443, true), (9011, false)]
        {
            for guarded in guards {
                host_is_reached(&lab, *guarded, port, open);
            }
            let note = publish(&lab, &port.to_string(), &net1);
            assert_eq!(note.is_empty(), open, "{name}, port {port}: {note}");
            let verdict = verdict(&lab, &port.to_string());
            let expected = if open { "open" } else { "blocked" };
            assert_eq!(verdict["verdict"], expected, "{name}, port {port}: {verdict}");
            // Whatever it says, the data path answers first.
            for (_, host) in FAMILIES {
                Ask::tcp((host, port).into()).in_netns(lab.outside());
            }
            if port == 8088 {
                for words in told.iter().chain(&["--allow-from", "127.0.0.1", "--firewall respect"]) {
                    assert!(note.contains(words), "{name}: no {words:?} in {note}");
                }
            }
        }
    }
}

#[test]
fn without_rules_there_is_no_note_and_nothing_to_find() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    assert_eq!(publish(&lab, "8088", &net1), "");
    assert_eq!(verdict(&lab, "8088")["verdict"], "open");
    assert_eq!(lab.vnet_list(&["doctor"], "findings"), [] as [Value; 0]);
    assert!(lab.vnet_ok(&["doctor"]).stdout.starts_with("nothing found"));
    // Tables of iptables-legacy are there from the first question about them, and hold nothing.
    run(lab.host(), "iptables-legacy -S");
    run(lab.host(), "iptables-nft -S");
    assert_eq!(publish(&lab, "8089", &net1), "");
}

#[test]
fn what_cannot_be_told_in_advance_is_said_to_depend() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    load(lab.host(), &["nft", "-f"], "workstation.nft");
    // An address of IPv4, since clients of IPv6 are stopped for certain.
    let note = publish(&lab, "203.0.113.1:3306", &net1);
    assert!(note.contains("unless the source address makes a difference"), "{note}");
    let undecided = verdict(&lab, "203.0.113.1:3306");
    assert_eq!(
        (&undecided["verdict"], &undecided["why"]),
        (&"undecided".into(), &"the source address".into())
    );
    assert_eq!(undecided["chain"], "input");
    // A range of which a part is open.
    let ports = format!("{}:9005-9015", net1.name());
    let note = lab.vnet_ok(&["portmap", "add", "9005-9015", &ports]).stderr;
    assert!(note.contains("unless which of the ports it is makes a difference"), "{note}");
    // Clients on a list are stopped, all others pass: nobody is surprised.
    run(lab.host(), "nft flush ruleset");
    run(lab.host(), "nft add table inet f2b");
    run(lab.host(), "nft add set inet f2b banned { type ipv4_addr ; }");
    run(lab.host(), "nft add chain inet f2b input { type filter hook input priority 0 ; }");
    run(lab.host(), "nft add rule inet f2b input ip saddr @banned drop");
    assert_eq!(publish(&lab, "8088", &net1), "");
    assert_eq!(verdict(&lab, "8088")["verdict"], "undecided");
}

#[test]
fn a_table_that_sleeps_blocks_nothing() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    run(lab.host(), "nft add table inet quiet { flags dormant ; }");
    run(lab.host(), "nft add chain inet quiet input { type filter hook input priority 0 ; policy drop ; }");
    host_is_reached(&lab, HOST_V4, 8088, true);
    assert_eq!(publish(&lab, "8088", &net1), "");
    run(lab.host(), "nft add table inet quiet");
    host_is_reached(&lab, HOST_V4, 8089, false);
    assert!(publish(&lab, "8089", &net1).contains("table inet quiet"));
}

#[test]
fn what_is_published_for_the_host_alone_concerns_no_firewall() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    load(lab.host(), &["nft", "-f"], "workstation.nft");
    assert_eq!(publish(&lab, "127.0.0.1:8088", &net1), "");
    assert_eq!(publish(&lab, "[::1]:8088", &net1), "");
    assert_eq!(lab.vnet_list(&["doctor"], "findings"), [] as [Value; 0]);
}

#[test]
fn status_says_from_where_each_port_is_reached() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let name = net1.name();
    for published in ["8088", "203.0.113.1:8089", "127.0.0.1:8090"] {
        publish(&lab, published, &net1);
    }
    lab.vnet_ok(&["portmap", "add", "9000-9009", &format!("{name}:9000-9009"), "--proto", "udp"]);
    let reachable = lab.vnet_list(&["status"], "reachable");
    let of = |published: &str| {
        let found = reachable.iter().find(|each| each["published"] == published);
        found.unwrap_or_else(|| panic!("no {published} in {reachable:#?}"))
    };
    let addresses = |published: &str| of(published)["uplinks"][0]["addresses"].clone();
    assert_eq!(of("8088")["from"], "world");
    assert_eq!(of("8088")["uplinks"][0]["interface"], "eth0");
    assert_eq!(addresses("8088"), Value::from(vec![HOST_V4.to_string(), HOST_V6.to_string()]));
    assert_eq!(of("8088")["networks"], Value::from(vec!["default"]));
    assert_eq!(addresses("203.0.113.1:8089"), Value::from(vec![HOST_V4.to_string()]));
    assert_eq!(of("127.0.0.1:8090")["from"], "host");
    assert_eq!(of("127.0.0.1:8090")["uplinks"], Value::Array(Vec::new()));
    assert_eq!(of("9000-9009")["ports"], 10);
    let text = lab.vnet_ok(&["status"]).stdout;
    for words in
        ["reachable: 12 ports open to the world, 1 to this host only", "endpoints directly: none (nat)"]
    {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
}

/// Rule sets as programs list them, without counters.
fn rules(host: &Netns) -> String {
    let without_counters = |text: String| -> String {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| format!("{}\n", line.split(" [").next().unwrap_or(line))).collect()
    };
    ["nft -s list ruleset", "iptables-legacy-save", "ip6tables-legacy-save"]
        .map(|command| without_counters(run(host, command)))
        .concat()
}

#[test]
fn vnet_adds_no_rule_to_any_firewall_and_takes_none_away() {
    let lab = Lab::new();
    load(lab.host(), &["nft", "-f"], "workstation.nft");
    load(lab.host(), &["nft", "-f"], "firewalld.nft");
    load(lab.host(), &["iptables-legacy-restore"], "ufw.rules");
    load(lab.host(), &["ip6tables-legacy-restore"], "ufw6.rules");
    let before = rules(lab.host());
    assert!(before.contains("filter_IN_public") && before.contains("ufw6-user-input"), "{before}");
    lab.vnet_ok(&["up"]);
    let net1 = lab.endpoint("net1");
    let _server = Server::echo(&net1, "[::]:80");
    publish(&lab, "8088", &net1);
    Ask::tcp((HOST_V4, 8088).into()).in_netns(lab.outside());
    Ping::to(OUTSIDE_V4).in_netns(&net1);
    lab.vnet_ok(&["doctor"]);
    lab.vnet_ok(&["status"]);
    assert_eq!(rules(lab.host()), before, "while it is up");
    lab.vnet_ok(&["down"]);
    assert_eq!(rules(lab.host()), before, "when it is down again");
}

/// Datagrams that go back and forth one by one, until this is dropped: each has to be answered.
struct Exchange {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Exchange {
    fn start(from: &Netns, to: SocketAddr) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&answered));
        let thread = from.spawn(move || {
            let socket =
                std::net::UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
            socket.connect(to).unwrap();
            socket.set_read_timeout(Some(vnet_tests::lab::PATIENCE)).unwrap();
            let mut buffer = [0; 512];
            while !stopped.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed).to_string();
                socket.send(number.as_bytes()).unwrap();
                let length =
                    socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{to}: {number} was lost: {e}"));
                assert!(buffer[..length].ends_with(number.as_bytes()));
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { stop, answered, thread: Some(thread) }
    }

    /// Waits until some more were answered.
    fn goes_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        let further = || (self.answered.load(Ordering::Relaxed) > before + 20).then_some(());
        eventually(further, || format!("answers beyond {before}"));
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("not ended yet").join().expect("every datagram was answered");
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// netavark #230, moby CVE-2025-54388: what lives in rules dies when somebody reloads his firewall.
#[test]
fn nothing_is_lost_while_a_firewall_is_flushed_and_loaded() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _servers =
        [Server::udp(&net1, "[::]:80"), Server::udp(lab.outside(), "[::]:7"), Server::echo(&net1, "[::]:80")];
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name()), "--proto", "udp"]);
    publish(&lab, "8088", &net1);
    let exchanges = [
        Exchange::start(lab.outside(), (HOST_V4, 8088).into()),
        Exchange::start(lab.outside(), (HOST_V6, 8088).into()),
        Exchange::start(&net1, (OUTSIDE_V4, 7).into()),
        Exchange::start(&net1, (OUTSIDE_V6, 7).into()),
    ];
    let mut stream = lab.outside().enter(|| std::net::TcpStream::connect((HOST_V4, 8088))).unwrap();
    let steps: [fn(&Netns); 8] = [
        |host| load(host, &["nft", "-f"], "workstation.nft"),
        |host| drop(run(host, "nft flush ruleset")),
        |host| load(host, &["iptables-nft-restore"], "ufw.rules"),
        |host| load(host, &["iptables-legacy-restore"], "ufw.rules"),
        |host| drop(run(host, "iptables-nft -F")),
        |host| drop(run(host, "iptables-legacy -F")),
        |host| drop(run(host, "iptables-nft -t nat -F")),
        |host| drop(run(host, "iptables-legacy -t nat -F")),
    ];
    for _ in 0..5 {
        for step in steps {
            step(lab.host());
            stream.write_all(b"still there").unwrap();
            exchanges.iter().for_each(Exchange::goes_on);
        }
    }
    exchanges.into_iter().for_each(Exchange::end);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut heard = String::new();
    std::io::Read::read_to_string(&mut stream, &mut heard).unwrap();
    assert_eq!(heard.matches("still there").count(), 40, "{heard}");
}

/// What Docker, ufw and firewalld do to everybody else's forwarding.
#[test]
fn a_forward_chain_that_drops_everything_is_in_nobodys_way() {
    for (program, forward) in [
        (
            "nft",
            "nft add table inet f ; add chain inet f forward { type filter hook forward priority 0 ; policy drop ; }",
        ),
        ("iptables-nft", "iptables-nft -P FORWARD DROP"),
        ("iptables-legacy", "iptables-legacy -P FORWARD DROP"),
    ] {
        let lab = Lab::up();
        let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
        let _servers = [Server::echo(&net1, "[::]:80"), Server::echo(lab.outside(), "[::]:80")];
        run(lab.host(), forward);
        publish(&lab, "8088", &net1);
        for (outside, host) in FAMILIES {
            Ask::tcp((host, 8088).into()).in_netns(lab.outside());
            Ask::tcp((host, 8088).into()).in_netns(&net2);
            Ask::tcp((outside, 80).into()).in_netns(&net1);
            Ask::tcp((net1.addr_like(host), 80).into()).in_netns(&net2);
            Ping::to(outside).in_netns(&net1);
        }
        let findings = lab.vnet_list(&["doctor"], "findings");
        let of_forward: Vec<&Value> =
            findings.iter().filter(|finding| finding["check"] == "forward").collect();
        assert_eq!(of_forward.len(), 1, "{program}: {findings:#?}");
        let problem = of_forward[0]["problem"].as_str().expect("words");
        assert!(
            problem.contains("vnet0")
                && problem.contains(&format!("({program})").replace("iptables-nft", "iptables")),
            "{problem}"
        );
    }
}

#[test]
fn the_doctor_lists_what_it_finds_with_a_way_out() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    publish(&lab, "8088", &net1);
    load(lab.host(), &["iptables-nft-restore"], "ufw.rules");
    run(lab.host(), "iptables-nft -N DOCKER-USER");
    run(lab.host(), "iptables-nft -I FORWARD -j DOCKER-USER");
    run(lab.host(), "iptables-nft -A DOCKER-USER -p tcp --dport 80 -j DROP");
    let bridged = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    // A kernel without br_netfilter has no such parameter, and shows no frame to anybody.
    let has_br_netfilter = lab.host().enter(|| Path::new(bridged).exists());
    let checks = |expected: &[&str]| {
        let findings = lab.vnet_list(&["doctor"], "findings");
        let checks: Vec<&str> = findings.iter().filter_map(|finding| finding["check"].as_str()).collect();
        assert_eq!(checks, expected, "{findings:#?}");
        assert!(findings.iter().all(|finding| finding["fix"].as_str().is_some_and(|fix| !fix.is_empty())));
    };
    if has_br_netfilter {
        lab.host().write(bridged, "0");
    }
    checks(&["firewall", "docker-user", "forward"]);
    if has_br_netfilter {
        lab.host().write(bridged, "1");
        checks(&["firewall", "docker-user", "forward", "br_netfilter"]);
    }
    let text = lab.vnet_ok(&["doctor"]).stdout;
    assert!(
        text.contains("firewall: port 8088/tcp is open to the world") && text.contains("\n  fix: "),
        "{text}"
    );
    run(lab.host(), "nft flush ruleset");
    checks(&[]);
}

#[test]
fn the_doctor_of_an_instance_that_is_not_up_says_so() {
    let lab = Lab::new();
    let findings = lab.vnet_list(&["doctor"], "findings");
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0]["check"], "instance");
}
