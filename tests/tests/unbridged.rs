//! Networks without a bridge: everything that holds for those with one holds here, for more endpoints than a bridge has
//! ports.

use std::iter;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::json;
use vnet_tests::frame::Frame;
use vnet_tests::lab::{Endpoint, FAMILIES, HOST_V4, Lab, Netns, UPLINK, eventually};
use vnet_tests::peer::{Ask, Capture, Counters, Ping, Server, inject, interface_mac};
use vnet_tests::report::report;

/// Prefixes of the network.
const SUBNETS: [&str; 2] = ["10.1.0.0/16", "fd00:1::/64"];

/// Makes the network `crowd`.
fn create(lab: &Lab, options: &[&str]) {
    let network =
        ["network", "create", "crowd", "--subnet", SUBNETS[0], "--subnet", SUBNETS[1], "--no-bridge"];
    lab.vnet_ok(&[&network, options].concat());
}

fn lab_with_crowd() -> Lab {
    let lab = Lab::up();
    create(&lab, &[]);
    lab
}

fn on_crowd<const N: usize>(lab: &Lab, names: [&str; N]) -> [Endpoint; N] {
    names.map(|name| lab.endpoint_with(name, &["--network", "crowd"]))
}

/// Whoever reaches `servers` on port 7 by both protocols, and by a ping.
fn talks_to(from: &Netns, to: IpAddr) {
    Ask::udp((to, 7).into()).in_netns(from);
    Ask::tcp((to, 7).into()).in_netns(from);
    Ping::to(to).in_netns(from);
}

fn servers(on: &Netns) -> [Server; 2] {
    [Server::echo(on, "[::]:7"), Server::udp(on, "[::]:7")]
}

#[test]
fn endpoints_reach_each_other_the_host_and_the_world() {
    let lab = lab_with_crowd();
    let [one, two] = on_crowd(&lab, ["one", "two"]);
    let _servers = [servers(&two), servers(lab.host()), servers(lab.outside())];
    for (outside, host) in FAMILIES {
        let own = one.addr_like(outside);
        talks_to(&one, two.addr_like(outside));
        talks_to(&one, one.gateway_like(outside));
        // A UDP server of every address answers from the one that the host's routes give it.
        Ask::tcp((host, 7).into()).in_netns(&one);
        Ping::to(host).in_netns(&one);
        talks_to(lab.host(), two.addr_like(outside));
        Ping::to(own).in_netns(lab.host());
        for ask in [Ask::tcp((outside, 7).into()), Ask::udp((outside, 7).into())] {
            assert_eq!(ask.in_netns(&one).seen.ip(), host, "the world sees the host");
        }
        Ping::to(outside).in_netns(&one);
        // Among themselves, and with the host, they are who they are.
        assert_eq!(Ask::tcp((two.addr_like(outside), 7).into()).in_netns(&one).seen.ip(), own);
        assert_eq!(Ask::tcp((one.gateway_like(outside), 7).into()).in_netns(&one).seen.ip(), own);
    }
    // Neighbours by their link-local addresses, too.
    let near = |endpoint: &Endpoint| IpAddr::from(endpoint.link_local());
    one.run(&["ping", "-c", "1", "-W", "5", &format!("{}%eth0", near(&two))]).ok();
    lab.assert_consistent();
}

#[test]
fn a_connection_of_many_bytes_goes_through_whole() {
    let lab = lab_with_crowd();
    let [one, two] = on_crowd(&lab, ["one", "two"]);
    let _servers = [&one, lab.outside(), lab.host()].map(|on: &Netns| Server::echo(on, "[::]:7"));
    lab.vnet_ok(&["portmap", "add", "8007", &format!("{}:7", one.name())]);
    // Aggregates of 64 KiB, cut by whoever has to.
    let payload = vec![7; 1 << 20];
    for (outside, host) in FAMILIES {
        let between = (two.netns(), SocketAddr::new(one.addr_like(outside), 7));
        let from_host = (lab.host(), SocketAddr::new(one.addr_like(outside), 7));
        let to_host = (two.netns(), SocketAddr::new(two.gateway_like(outside), 7));
        let out = (two.netns(), SocketAddr::new(outside, 7));
        let published = (lab.outside(), SocketAddr::new(host, 8007));
        for (from, to) in [between, from_host, to_host, out, published] {
            let answer = Ask::tcp(to).payload(&payload).in_netns(from);
            assert_eq!(answer.payload.len(), payload.len(), "{} to {to}", from.name());
        }
    }
}

#[test]
fn published_ports_and_floating_addresses_answer() {
    let lab = lab_with_crowd();
    let [one, two] = on_crowd(&lab, ["one", "two"]);
    let bridged = lab.endpoint("bridged");
    let _servers = servers(&one);
    for proto in ["tcp", "udp"] {
        lab.vnet_ok(&["portmap", "add", "8007", &format!("{}:7", one.name()), "--proto", proto]);
    }
    for (outside, host) in FAMILIES {
        let local: IpAddr = if host.is_ipv4() { "127.0.0.1" } else { "::1" }.parse().unwrap();
        for (from, to) in [
            (lab.outside(), host),
            (lab.host(), host),
            (lab.host(), local),
            (two.netns(), host),
            (one.netns(), host),
            (bridged.netns(), host),
        ] {
            Ask::tcp((to, 8007).into()).in_netns(from);
            Ask::udp((to, 8007).into()).in_netns(from);
        }
        let seen = Ask::tcp((host, 8007).into()).in_netns(lab.outside()).seen;
        assert_eq!(seen.ip(), outside, "the server sees the client's own address");
    }
    lab.host().ip("addr add 203.0.113.9/24 dev eth0");
    let own = two.addr_like(HOST_V4);
    lab.vnet_ok(&["floating", "add", "203.0.113.9", &own.to_string()]);
    let _floating = [servers(&two), servers(lab.outside())];
    let floating: IpAddr = "203.0.113.9".parse().unwrap();
    talks_to(lab.outside(), floating);
    let (outside, _) = FAMILIES[0];
    assert_eq!(Ask::tcp((outside, 7).into()).in_netns(&two).seen.ip(), floating);
}

#[test]
fn nobody_else_gets_in_and_nobody_pretends() {
    let lab = lab_with_crowd();
    let [one, two] = on_crowd(&lab, ["one", "two"]);
    let bridged = lab.endpoint("bridged");
    let _servers = [servers(&one), servers(&bridged)];
    // The world has a route, and the host is a router: by its uplink and by another interface.
    lab.host().write("/proc/sys/net/ipv4/ip_forward", "1");
    lab.host().write("/proc/sys/net/ipv6/conf/all/forwarding", "1");
    let elsewhere = Netns::named(&lab.name("elsewhere"));
    elsewhere.create();
    lab.host().ip(&format!("link add side type veth peer name side netns {}", elsewhere.name()));
    for (netns, v4, v6) in
        [(lab.host(), "198.18.0.1/24", "fd18::1/64"), (&elsewhere, "198.18.0.2/24", "fd18::2/64")]
    {
        netns.ip(&format!("addr add {v4} dev side"));
        netns.ip(&format!("addr add {v6} dev side nodad"));
        netns.ip("link set side up");
    }
    elsewhere.ip("route add default via 198.18.0.1");
    elsewhere.ip("-6 route add default via fd18::1");
    for (outside, host) in FAMILIES {
        lab.outside().ip(&format!("route add {} via {host}", one.addr_like(outside)));
        for from in [lab.outside(), &elsewhere, bridged.netns()] {
            Ask::tcp((one.addr_like(outside), 7).into()).fails_in(from);
            Ask::udp((one.addr_like(outside), 7).into()).fails_in(from);
        }
        Ask::tcp((bridged.addr_like(outside), 7).into()).fails_in(&one);
    }
    // Forged sources, hardware addresses and claims about others.
    let (mac, gateway) = (interface_mac(&one, "eth0"), interface_mac(lab.host(), "vnet-crowd"));
    let heard = Server::udp(&two, "[::]:9");
    let before = ["source-address", "source-mac", "neighbour-spoof"].map(|reason| lab.dropped(reason));
    for (outside, _) in FAMILIES {
        let own = SocketAddr::new(one.addr_like(outside), 5);
        for (from, mac) in [
            (SocketAddr::new(bridged.addr_like(outside), 5), mac),
            (SocketAddr::new(one.gateway_like(outside), 5), mac),
            (own, gateway),
        ] {
            let frame = Frame::udp(from, (two.addr_like(outside), 9).into()).macs(mac, gateway);
            inject(&one, "eth0", &frame.build());
        }
    }
    inject(&one, "eth0", &Frame::arp_request(mac, two.v4(), one.gateway_like(HOST_V4)).build());
    let after = ["source-address", "source-mac", "neighbour-spoof"].map(|reason| lab.dropped(reason));
    assert_eq!([after[0] - before[0], after[1] - before[1], after[2] - before[2]], [4, 2, 1]);
    for (outside, _) in FAMILIES {
        Ask::udp((two.addr_like(outside), 9).into()).in_netns(&one);
    }
    assert_eq!(heard.seen().len(), 2, "only what is honest was heard: {:?}", heard.seen());
    elsewhere.delete();
}

#[test]
fn strict_reverse_path_filters_are_in_nobodys_way() {
    let lab = Lab::new();
    for name in ["all", "default"] {
        lab.host().write(&format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"), "1");
    }
    // Nor is a host that answers for addresses of the asked interface alone.
    lab.host().write("/proc/sys/net/ipv4/conf/all/arp_ignore", "1");
    lab.vnet_ok(&["up"]);
    create(&lab, &[]);
    let [one, two] = on_crowd(&lab, ["one", "two"]);
    let _servers = [servers(&two), servers(lab.host()), servers(lab.outside())];
    for (outside, host) in FAMILIES {
        for to in [two.addr_like(outside), one.gateway_like(outside), outside] {
            talks_to(&one, to);
        }
        Ask::tcp((host, 7).into()).in_netns(&one);
        talks_to(lab.host(), two.addr_like(outside));
    }
}

#[test]
fn internal_isolated_and_routed_networks_are_what_they_say() {
    let lab = Lab::up();
    for (name, prefix, option) in
        [("inner", 66, "--internal"), ("alone", 77, "--isolated"), ("open", 88, "--gateway-mode=routed")]
    {
        let (v4, v6) = (format!("10.{prefix}.0.0/24"), format!("fd{prefix}::/64"));
        lab.vnet_ok(&["network", "create", name, "--subnet", &v4, "--subnet", &v6, "--no-bridge", option]);
    }
    let pair = |network: &str| {
        [1, 2].map(|nth| lab.endpoint_with(&format!("{network}{nth}"), &["--network", network]))
    };
    let ([inner1, inner2], [alone1, alone2], [open1, _]) = (pair("inner"), pair("alone"), pair("open"));
    let _servers = [servers(lab.outside()), servers(&inner2), servers(&alone2), servers(&open1)];
    lab.vnet_ok(&["portmap", "add", &format!("{}:7", open1.v4()), &format!("{}:7", open1.v4())]);
    lab.vnet_ok(&["portmap", "add", &format!("[{}]:7", open1.v6()), &format!("[{}]:7", open1.v6())]);
    let mut wire = Capture::start(lab.outside(), UPLINK);
    for (outside, host) in FAMILIES {
        Ask::udp((outside, 7).into()).fails_in(&inner1);
        talks_to(&inner1, inner2.addr_like(outside));
        talks_to(lab.host(), inner2.addr_like(outside));
        talks_to(&alone1, outside);
        Ask::udp((alone2.addr_like(outside), 7).into()).fails_in(&alone1);
        let _ = Ping::to(alone2.addr_like(outside)).fails_in(&alone1);
        let open = open1.addr_like(outside);
        lab.outside().ip(&format!("route add {open} via {host}"));
        assert_eq!(Ask::tcp((outside, 7).into()).in_netns(&open1).seen.ip(), open, "it keeps its address");
        Ask::tcp((open, 7).into()).in_netns(lab.outside());
        Ask::udp((open, 7).into()).fails_in(lab.outside());
        Ping::to(open).in_netns(lab.outside());
    }
    let leaked: Vec<_> =
        wire.lines().into_iter().filter(|line| line.contains("10.66.") || line.contains("fd66:")).collect();
    assert!(leaked.is_empty(), "{leaked:#?}");
}

#[test]
fn an_endpoint_is_on_a_network_with_and_one_without_a_bridge() {
    let lab = lab_with_crowd();
    let [one] = on_crowd(&lab, ["one"]);
    let (web, left) = (lab.endpoint("web"), lab.endpoint("left"));
    lab.vnet_ok(&["network", "connect", "crowd", web.name()]);
    let both = Endpoint::observe(web.name());
    let _servers = [servers(&one), servers(&left), servers(lab.outside())];
    let _published = Server::echo(&both, "[::]:80");
    let talks = |default: &str| {
        for (outside, host) in FAMILIES {
            talks_to(&both, one.addr_like(outside));
            talks_to(&both, left.addr_like(outside));
            talks_to(&both, outside);
            for addr in both.addresses().iter().copied().filter(|addr| addr.is_ipv4() == outside.is_ipv4()) {
                let seen = Ask::tcp((outside, 7).into()).from((addr, 0).into()).in_netns(&both).seen;
                assert_eq!(seen.ip(), host, "from {addr}, the default route by {default}");
                lab.vnet_ok(&["portmap", "add", "8080", &SocketAddr::new(addr, 80).to_string()]);
                Ask::tcp((host, 8080).into()).in_netns(lab.outside());
                lab.vnet_ok(&["portmap", "rm", "8080"]);
            }
        }
    };
    talks("default");
    lab.vnet_ok(&["network", "connect", "crowd", web.name(), "--default-route"]);
    talks("crowd");
    lab.vnet_ok(&["network", "disconnect", "default", web.name()]);
    for (outside, _) in FAMILIES {
        talks_to(&both, outside);
        talks_to(&both, one.addr_like(outside));
    }
    assert_eq!(lab.dropped("source-address"), 0);
}

/// How many endpoints: more than a bridge has ports, of which there are 1,023. `VNET_CROWD` chooses another number.
const CROWD: usize = 1_030;

#[test]
fn there_is_room_for_more_endpoints_than_a_bridge_has_ports() {
    let count: usize = std::env::var("VNET_CROWD").map_or(CROWD, |text| text.parse().expect("VNET_CROWD"));
    let lab = Lab::up();
    let name = |nth: usize| lab.name(&format!("e{nth}"));
    let endpoint = |nth: usize| format!("[endpoints.{}]\nnetwork = \"crowd\"\n", name(nth));
    let network =
        format!("[networks.crowd]\nsubnets = [\"{}\", \"{}\"]\nno-bridge = true\n", SUBNETS[0], SUBNETS[1]);
    let file = lab.run_dir().with_extension("toml");
    let begin = Instant::now();
    // A part at a time, as no command may take a minute here, and this machine may be a busy one.
    let all: Vec<usize> = (1..count).collect();
    for part in all.chunks(100) {
        let described: String =
            iter::once(network.clone()).chain(part.iter().map(|nth| endpoint(*nth))).collect();
        std::fs::write(&file, described).expect("write a file");
        lab.vnet_ok(&["apply", "-f", &file.display().to_string()]);
    }
    let took = begin.elapsed();
    report(format_args!(
        "{} endpoints by `vnet apply`: {took:.1?}, {:.1?} each",
        count - 1,
        took / (count as u32 - 1)
    ));
    // One more by hand, as often as it takes to be sure.
    let mut times = Vec::new();
    for _ in 0..5 {
        let begin = Instant::now();
        lab.vnet_ok(&["ns", "create", &name(count), "--network", "crowd"]);
        times.push(begin.elapsed());
        if times.len() < 5 {
            lab.vnet_ok(&["ns", "rm", &name(count)]);
        }
    }
    report(format_args!("one more by `vnet ns create`: {:.1?} at best", times.iter().min().expect("some")));
    let (first, last) = (Endpoint::observe(&name(1)), Endpoint::observe(&name(count)));
    let _servers = [servers(&last), servers(lab.host()), servers(lab.outside())];
    lab.vnet_ok(&["portmap", "add", "8007", &format!("{}:7", last.name())]);
    for (outside, host) in FAMILIES {
        for to in [last.addr_like(outside), first.gateway_like(outside), outside] {
            talks_to(&first, to);
        }
        talks_to(lab.host(), last.addr_like(outside));
        Ask::tcp((host, 8007).into()).in_netns(lab.outside());
    }
    // The host speaks to all of them, without a neighbour table that fills up.
    let host = lab.host();
    let endpoints: Vec<Endpoint> = (1..=count).map(|nth| Endpoint::observe(&name(nth))).collect();
    let socket = host.enter(|| UdpSocket::bind("[::]:0").expect("a socket"));
    for (outside, _) in FAMILIES {
        for endpoint in &endpoints {
            let to = match endpoint.addr_like(outside) {
                IpAddr::V4(addr) => addr.to_ipv6_mapped(),
                IpAddr::V6(addr) => addr,
            };
            socket.send_to(b"anybody", (to, 9)).expect("no error of the host's own");
        }
        let received = |endpoint: &&Endpoint| {
            let counters = Counters::of(endpoint.netns());
            let name = if outside.is_ipv4() { "UdpNoPorts" } else { "Udp6NoPorts" };
            counters.get(name) == 0
        };
        eventually(
            || (endpoints.iter().filter(received).count() == 0).then_some(()),
            || "what the host has sent to every endpoint".to_owned(),
        );
    }
    assert!(lab.vnet_list(&["up", "--dry-run"], "ops").is_empty());
    let begin = Instant::now();
    lab.vnet_ok(&["down"]);
    report(format_args!("all of them removed by `vnet down`: {:.1?}", begin.elapsed()));
}

#[test]
fn a_bridge_that_is_full_says_what_to_do() {
    let lab = Lab::up();
    let mut batch = String::new();
    for nth in 0..512 {
        batch += &format!("link add p{nth} master vnet0 type veth peer name q{nth}\n");
        // The last one finds no place, as a bridge has 1,023.
        batch += if nth == 511 { "" } else { "link set dev qNTH master vnet0\n" }
            .replace("NTH", &nth.to_string())
            .as_str();
    }
    let file = lab.run_dir().with_extension("batch");
    std::fs::write(&file, batch).expect("write a file");
    lab.host().ip(&format!("-batch {}", file.display()));
    lab.vnet(&["ns", "create", &lab.name("one")]).fails_with(1, &["vnet0", "1,023", "--no-bridge"]);
    create(&lab, &[]);
    let [one] = on_crowd(&lab, ["one"]);
    Ping::to(HOST_V4).in_netns(&one);
}

#[test]
fn a_resident_vnet_brings_the_interface_and_its_program_back() {
    let lab = lab_with_crowd();
    let [one, two] = on_crowd(&lab, ["one", "two"]);
    let run = lab.vnet_start(&["run"]);
    let _ = run.line_with(&["started"]);
    let pings =
        |from: &Netns, to: IpAddr| Ping::to(to).patience(Duration::from_millis(100)).try_in(from).is_ok();
    let works = || {
        FAMILIES.into_iter().all(|(outside, _)| {
            pings(&one, outside)
                && pings(&one, two.addr_like(outside))
                && pings(lab.host(), two.addr_like(outside))
        })
    };
    let end = lab.vnet_list(&["ns", "inspect", one.name()], "endpoints")[0]["interface"].clone();
    let end = end.as_str().expect("a name").to_owned();
    let pin = lab.pin_dir().join("links/to_network@vnet-crowd");
    for (what, command) in [
        ("the pair", "link del vnet-crowd"),
        ("the far end", "link set vnf-crowd down"),
        ("the address", "addr flush dev vnet-crowd"),
        ("the host's end of a link", &format!("link del {end}")),
    ] {
        assert!(works(), "before {what} goes");
        lab.host().ip(command);
        eventually(|| works().then_some(()), || format!("{what} to be back: {:#?}", run.lines()));
    }
    std::fs::remove_file(&pin).expect("a pin");
    eventually(|| (pin.exists() && works()).then_some(()), || "the program to be back".to_owned());
    lab.assert_consistent();
}

#[test]
fn packets_are_followed() {
    let lab = Lab::new();
    lab.vnet_ok(&["up", "--firewall", "respect"]);
    create(&lab, &[]);
    let [one, two] = on_crowd(&lab, ["one", "two"]);
    lab.vnet_ok(&["portmap", "add", "8007", &format!("{}:7", one.name()), "--proto", "udp"]);
    for (outside, _) in FAMILIES {
        let at = |addr: IpAddr, port: u16| SocketAddr::new(addr, port).to_string();
        let (own, sibling, gateway) =
            (one.addr_like(outside), two.addr_like(outside), one.gateway_like(outside));
        let nobody: IpAddr = if own.is_ipv4() { "10.1.7.7" } else { "fd00:1::77:7" }.parse().unwrap();
        for (from, to, verdict, hooks) in [
            (at(own, 5), at(sibling, 7), "delivered", &["from_endpoint"][..]),
            (at(own, 5), at(gateway, 7), "host", &["from_endpoint"]),
            (at(own, 5), at(outside, 7), "forwarded", &["from_endpoint"]),
            (at(own, 5), at(nobody, 7), "dropped", &["from_endpoint"]),
            (at(gateway, 5), at(own, 7), "delivered", &["host_connect", "to_network"]),
            (at(gateway, 5), at(nobody, 7), "dropped", &["host_connect", "to_network"]),
        ] {
            let trace = lab.vnet_list(&["trace", "udp", &from, &to], "traces").remove(0);
            assert_eq!(trace["verdict"], verdict, "{from} to {to}: {trace:#}");
            let way = trace["way"].as_array().expect("a way");
            assert_eq!(way.iter().map(|leg| &leg["hook"]).collect::<Vec<_>>(), hooks, "{trace:#}");
        }
        let text = lab.vnet_ok(&["trace", "udp", &at(own, 5), &at(gateway, 7)]).stdout;
        assert!(text.contains("it gets there by vnet-crowd"), "{text}");
    }
    // By the host's stack; of IPv6 the kernel does not tell programs that a single interface forwards.
    let (outside, host) = FAMILIES[0];
    let published = [SocketAddr::new(outside, 5), SocketAddr::new(host, 8007)].map(|at| at.to_string());
    let trace = lab.vnet_list(&["trace", "udp", &published[0], &published[1]], "traces").remove(0);
    assert_eq!(trace["verdict"], "delivered", "{trace:#}");
    let way = trace["way"].as_array().expect("a way");
    assert_eq!(way.iter().map(|leg| &leg["hook"]).collect::<Vec<_>>(), ["from_uplink", "to_network"]);
    let server = Server::udp(&one, "[::]:7");
    for (_, host) in FAMILIES {
        Ask::udp((host, 8007).into()).in_netns(lab.outside());
    }
    assert_eq!(server.seen().len(), 2);
    let lost = Frame::udp(SocketAddr::new(one.v4(), 5), "10.1.7.7:7".parse().unwrap());
    let (mac, gateway) = (interface_mac(&one, "eth0"), interface_mac(lab.host(), "vnet-crowd"));
    inject(&one, "eth0", &lost.macs(mac, gateway).build());
    assert_eq!(lab.dropped("no-such-endpoint"), 1);
    assert_eq!(lab.vnet_list(&["doctor"], "findings"), [] as [serde_json::Value; 0]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let lab = lab_with_crowd();
    let named = ["network", "create", "b", "--no-bridge", "--bridge", "br7"];
    lab.vnet(&named).fails_with(2, &["--no-bridge", "--bridge"]);
    lab.vnet(&["network", "create", "crowd"]).fails_with(1, &["no-bridge true"]);
    lab.vnet(&["network", "create", "default", "--no-bridge"]).fails_with(1, &["no-bridge false"]);
    let far = ["ns", "create", "far", "--network", "crowd", "--route", "10.9.0.0/16=10.1.0.9"];
    lab.vnet(&far).fails_with(1, &["no bridge", "10.1.0.1"]);
    lab.vnet_ok(&[
        "ns",
        "create",
        &lab.name("near"),
        "--network",
        "crowd",
        "--route",
        "10.9.0.0/16=10.1.0.1",
    ]);
    let described = "[networks.b]\nbridge = \"br7\"\nno-bridge = true\n";
    let file = lab.run_dir().with_extension("toml");
    std::fs::write(&file, described).expect("write a file");
    let file = file.display().to_string();
    lab.vnet(&["apply", "-f", &file]).fails_with(2, &["2:10", "br7"]);
}

#[test]
fn it_is_listed_described_and_applied() {
    let lab = lab_with_crowd();
    let network = lab.vnet_list(&["network", "inspect", "crowd"], "networks")[0].clone();
    assert_eq!((&network["bridge"], &network["no_bridge"]), (&json!("vnet-crowd"), &json!(true)));
    let listed = lab.vnet_ok(&["network", "ls"]).stdout;
    assert!(listed.lines().any(|line| line.contains("crowd") && line.contains("no-bridge")), "{listed}");
    let default = &lab.vnet_list(&["network", "inspect", "default"], "networks")[0];
    assert_eq!(default["no_bridge"], json!(false));
    let exported = lab.vnet_ok(&["export"]).stdout;
    assert!(exported.contains("no-bridge = true") && !exported.contains("vnet-crowd"), "{exported}");
    let file = lab.run_dir().with_extension("toml");
    std::fs::write(&file, &exported).expect("write a file");
    let file = file.display().to_string();
    assert_eq!(lab.vnet_json(&["apply", "-f", &file, "--dry-run"])["changes"], json!([]));
    lab.vnet_ok(&["network", "rm", "crowd"]);
    let links = lab.host().ip("-o link").stdout;
    assert!(!links.contains("crowd"), "both ends are gone: {links}");
    lab.vnet_ok(&["apply", "-f", &file]);
    assert_eq!(lab.vnet_ok(&["export"]).stdout, exported);
    lab.assert_consistent();
    let graph = lab.vnet_ok(&["graph", "--format", "dot"]).stdout;
    assert!(graph.contains("no-bridge"), "{graph}");
}

#[test]
fn what_was_taken_away_comes_back() {
    let lab = lab_with_crowd();
    let [one, two] = on_crowd(&lab, ["one", "two"]);
    lab.vnet_ok(&["limit", "set", one.name(), "--ingress", "100mbit"]);
    let _servers = [servers(&two), servers(lab.host()), servers(lab.outside())];
    let works = |what: &str| {
        lab.vnet_ok(&["up"]);
        lab.assert_consistent();
        for (outside, _) in FAMILIES {
            for to in [two.addr_like(outside), one.gateway_like(outside), outside] {
                talks_to(&one, to);
            }
            talks_to(lab.host(), two.addr_like(outside));
        }
        eprintln!("{what}: comes back");
    };
    works("nothing");
    let end = lab.vnet_list(&["ns", "inspect", one.name()], "endpoints")[0]["interface"].clone();
    let end = end.as_str().expect("a name").to_owned();
    for (netns, command) in [
        (lab.host(), "link del vnet-crowd"),
        (lab.host(), "link set vnf-crowd down"),
        (lab.host(), "link set vnet-crowd down"),
        (lab.host(), "link set vnet-crowd arp on"),
        (lab.host(), "link set vnf-crowd name other"),
        (lab.host(), "addr flush dev vnet-crowd"),
        (lab.host(), &format!("link set {end} down")),
        (lab.host(), &format!("link set {end} master vnet0")),
        (lab.host(), &format!("link del {end}")),
        (one.netns(), "link set eth0 down"),
        (one.netns(), "neigh flush dev eth0 nud permanent"),
        (one.netns(), "route flush dev eth0"),
        (one.netns(), "addr flush dev eth0"),
        (one.netns(), "link del eth0"),
    ] {
        netns.ip(command);
        assert!(!lab.vnet_list(&["up", "--dry-run"], "ops").is_empty(), "`{command}` is not noticed");
        works(command);
    }
}
