//! `vnet run`: what happens around an instance is brought back within a second, metrics tell what is counted, and
//! nothing depends on its life.
//!
//! How long each repair took is reported. A busy machine may take longer than a second for it; longer than [`SOON`] is a
//! failure.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aya::programs::{SchedClassifier, TcAttachType};
use nix::sys::signal::Signal;
use openmetrics_parser::openmetrics::parse_openmetrics;
use serde_json::Value;
use tempfile::TempDir;
use vnet_common::{Addr, DatapathConfig, HostAddressValue, maps};
use vnet_tests::lab::{
    Background, FAMILIES, HOST_V4, Lab, Netns, OUTSIDE_V4, OUTSIDE_V6, UPLINK, eventually, vnet_binary,
};
use vnet_tests::peer::{Ask, Ping, Server, Service};
use vnet_tests::report::report;

/// How long a repair may take at most: on a machine with many times as much to do as it can, and yet far less than it would
/// take without news, by `--check` alone.
const SOON: Duration = Duration::from_secs(15);

/// Starts `vnet run` and waits until it has looked at everything.
fn run(lab: &Lab, args: &[&str]) -> Background {
    let run = lab.vnet_start(&[&["run"], args].concat());
    let _ = run.line_with(&["started"]);
    run
}

/// Waits until something is so, and says how long that took.
#[track_caller]
fn soon(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    eventually(|| is_so().then_some(()), || what.to_owned());
    let took = begin.elapsed();
    report(format_args!("{what}: after {} ms", took.as_millis()));
    assert!(took < SOON, "{what} took {took:?}");
}

fn pings(from: &Netns, to: IpAddr) -> bool {
    Ping::to(to).patience(Duration::from_millis(100)).try_in(from).is_ok()
}

/// Pings of both families, from an endpoint to the outside.
fn reaches_the_world(from: &Netns) -> bool {
    pings(from, OUTSIDE_V4) && pings(from, OUTSIDE_V6)
}

fn link(netns: &Netns, name: &str) -> Value {
    netns.ip(&format!("-j -d link show dev {name}")).json()[0].clone()
}

fn mtu(netns: &Netns, name: &str) -> u64 {
    link(netns, name)["mtu"].as_u64().expect("an MTU")
}

/// The host's end of an endpoint's link.
fn host_end(lab: &Lab, endpoint: &str) -> String {
    let found = lab.vnet_json(&["ns", "inspect", endpoint]);
    let name = &found["endpoints"][0]["interface"];
    name.as_str().unwrap_or_else(|| panic!("no interface in {found:#}")).to_owned()
}

fn host_addresses(lab: &Lab) -> Vec<IpAddr> {
    let entries = lab.entries::<Addr, HostAddressValue>(maps::HOST_ADDRESSES);
    entries.into_iter().map(|(addr, _)| IpAddr::from(addr)).collect()
}

/// The programs that `vnet status` finds attached to an interface.
fn attached(lab: &Lab, interface: &str) -> Vec<String> {
    let status = lab.vnet_json(&["status"]);
    let programs = status["programs"].as_array().expect("programs").iter();
    let on_it = programs.filter(|program| program["interface"] == interface);
    on_it.map(|program| program["hook"].as_str().expect("a name").to_owned()).collect()
}

fn problems(lab: &Lab) -> Vec<Value> {
    lab.vnet_json(&["status"])["problems"].as_array().expect("problems").clone()
}

/// What a process has used of its processor, in ticks, and how often it has gone to sleep.
fn usage(run: &Background) -> (u64, u64) {
    let read = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", run.pid())).expect("its account");
    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = fields[11].parse::<u64>().expect("ticks") + fields[12].parse::<u64>().expect("ticks");
    let status = read("status");
    let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    (ticks, sleeps.expect("a count").trim().parse().expect("a number"))
}

#[test]
fn addresses_of_the_host_are_followed_and_flows_end_with_theirs() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _server = Server::tcp(&net1, "[::]:80", Service::Sink);
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    let run = run(&lab, &[]);
    for (text, outside, bits) in [("203.0.113.9", OUTSIDE_V4, 24), ("2001:db8:113::9", OUTSIDE_V6, 64)] {
        let moved: IpAddr = text.parse().expect("an address");
        lab.host().ip(&format!("addr add {moved}/{bits} dev {UPLINK} nodad"));
        soon(&format!("{moved} is known"), || host_addresses(&lab).contains(&moved));
        // One connection to it, and one to the address that stays.
        let stays = FAMILIES.into_iter().find(|(other, _)| *other == outside).expect("a family").1;
        let connect =
            |host: IpAddr| lab.outside().enter(|| TcpStream::connect((host, 8088)).expect("connect"));
        let (to_moved, to_stays) = (connect(moved), connect(stays));
        let flow_of = |stream: &TcpStream| {
            let port = stream.local_addr().expect("connected").port().to_string();
            lab.vnet_list(&["flow", "ls", "--port", &port], "flows").len()
        };
        assert_eq!((flow_of(&to_moved), flow_of(&to_stays)), (1, 1));
        lab.host().ip(&format!("addr del {moved}/{bits} dev {UPLINK}"));
        soon(&format!("{moved} is forgotten"), || !host_addresses(&lab).contains(&moved));
        soon(&format!("the flow to {moved} has ended"), || flow_of(&to_moved) == 0);
        assert_eq!(flow_of(&to_stays), 1, "that of an address that stays goes on");
        let _ = run.line_with(&["forgotten", "entries of flows"]);
    }
    assert_eq!(problems(&lab), [Value::Null; 0]);
}

#[test]
fn the_mtu_of_the_uplink_is_followed_where_nobody_has_chosen_another() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let blue = lab.name("blue");
    lab.vnet_ok(&["network", "create", &blue, "--subnet", "10.55.0.0/24", "--mtu", "1450"]);
    let net2 = lab.endpoint_with("net2", &["--network", &blue]);
    // Somebody else's namespace, as a container runtime makes it.
    let theirs = Netns::named(&lab.name("theirs"));
    theirs.create();
    let path = format!("/run/netns/{}", theirs.name());
    let foreign = lab.name("foreign");
    lab.vnet_ok(&["ns", "attach", &foreign, "--netns", &path]);
    let run = run(&lab, &[]);
    let ends = [net1.name(), foreign.as_str()].map(|name| host_end(&lab, name));
    for size in [1400, 1500] {
        lab.host().ip(&format!("link set {UPLINK} mtu {size}"));
        soon(&format!("an MTU of {size} everywhere"), || {
            mtu(lab.host(), "vnet0") == size
                && ends.iter().all(|end| mtu(lab.host(), end) == size)
                && [net1.netns(), &theirs].iter().all(|netns| mtu(netns, "eth0") == size)
        });
        let networks = lab.vnet_list(&["network", "ls"], "networks");
        let noted = |name: &str| {
            let network = networks.iter().find(|network| network["name"] == name);
            network.expect("the network")["mtu"].as_u64().expect("an MTU")
        };
        assert_eq!((noted("default"), noted(&blue)), (size, 1450));
        assert_eq!((mtu(&net2, "eth0"), problems(&lab).len()), (1450, 0));
        assert!(reaches_the_world(&net1));
    }
    // IPv6 cannot do with so little: what cannot be followed is said, and nothing changes.
    lab.host().ip(&format!("link set {UPLINK} mtu 1000"));
    let _ = run.line_with(&["keeps its MTU of 1500", "1280"]);
    assert_eq!(mtu(lab.host(), "vnet0"), 1500);
    lab.vnet_ok(&["ns", "rm", &foreign]);
    theirs.delete();
}

/// A second way out of the host: `eth1`, with addresses of both families on both sides.
fn second_uplink(lab: &Lab) {
    lab.host().ip(&format!("link add eth1 type veth peer name eth1 netns {}", lab.outside().name()));
    for (netns, last) in [(lab.outside(), 2), (lab.host(), 1)] {
        netns.write("/proc/sys/net/ipv6/conf/eth1/accept_dad", "0");
        netns.ip(&format!("addr add 198.51.100.{last}/24 dev eth1"));
        netns.ip(&format!("addr add 2001:db8:51::{last}/64 dev eth1 nodad"));
        netns.ip("link set eth1 up");
    }
}

fn lead_out_of(lab: &Lab, uplink: &str) {
    let (v4, v6) = match uplink {
        UPLINK => (OUTSIDE_V4.to_string(), OUTSIDE_V6.to_string()),
        _ => ("198.51.100.2".to_owned(), "2001:db8:51::2".to_owned()),
    };
    lab.host().ip(&format!("route replace default via {v4} dev {uplink}"));
    // For IPv6 a route by another interface stands beside the first one.
    lab.host().ip("-6 route flush default");
    lab.host().ip(&format!("-6 route add default via {v6} dev {uplink}"));
}

#[test]
fn uplinks_that_nobody_has_named_follow_the_default_route() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _server = Server::echo(&net1, "[::]:80");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    second_uplink(&lab);
    let run = run(&lab, &[]);
    for (to, from) in [("eth1", UPLINK), (UPLINK, "eth1")] {
        lead_out_of(&lab, to);
        soon(&format!("the uplink is {to}"), || {
            lab.vnet_json(&["status"])["uplinks"] == serde_json::json!([to])
        });
        assert_eq!(attached(&lab, to), ["to_uplink", "from_uplink"]);
        assert_eq!(attached(&lab, from), [""; 0]);
        assert!(reaches_the_world(&net1), "through {to}");
        let host = if to == UPLINK { HOST_V4 } else { "198.51.100.1".parse().expect("an address") };
        Ask::tcp((host, 8088).into()).in_netns(lab.outside());
    }
    // First the new one, then the old one.
    let lines = run.lines();
    let at = |words: &[&str]| {
        let found = lines.iter().position(|line| words.iter().all(|word| line.contains(word)));
        found.unwrap_or_else(|| panic!("no {words:?} in {lines:#?}"))
    };
    assert!(
        at(&["repaired", "create program from_uplink on eth1"])
            < at(&["repaired", "remove program from_uplink on eth0"])
    );
    // Without a default route the uplink stays what it is.
    lab.host().ip("route del default");
    lab.host().ip("-6 route flush default");
    lab.vnet_ok(&["flow", "ls"]);
    let _ = run.lines();
    lead_out_of(&lab, UPLINK);
    soon("both families again", || reaches_the_world(&net1));
    assert_eq!(attached(&lab, UPLINK), ["to_uplink", "from_uplink"]);
}

#[test]
fn uplinks_that_somebody_has_named_stay_and_it_is_said_that_the_default_route_has_moved() {
    let lab = Lab::new();
    lab.vnet_ok(&["up", "--uplink", UPLINK]);
    second_uplink(&lab);
    let run = run(&lab, &[]);
    lead_out_of(&lab, "eth1");
    let _ = run.line_with(&["note", "the default route leads out of eth1", "vnet up --uplink eth1"]);
    assert_eq!(lab.vnet_json(&["status"])["uplinks"], serde_json::json!([UPLINK]));
    assert_eq!(attached(&lab, "eth1"), [""; 0]);
}

#[test]
fn an_uplink_that_goes_down_or_away_is_one_again_when_it_is_back() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let run = run(&lab, &[]);
    lab.host().ip(&format!("link set {UPLINK} down"));
    let _ = run.line_with(&["note", "uplink eth0 is down"]);
    let restore = || {
        for netns in [lab.host(), lab.outside()] {
            netns.write(&format!("/proc/sys/net/ipv6/conf/{UPLINK}/accept_dad"), "0");
            netns.ip(&format!("link set {UPLINK} up"));
        }
        for ((outside, host), bits) in FAMILIES.into_iter().zip([24, 64]) {
            for (netns, addr) in [(lab.outside(), outside), (lab.host(), host)] {
                let nodad = if bits == 64 { "nodad" } else { "" };
                netns.ip(&format!("addr replace {addr}/{bits} dev {UPLINK} {nodad}"));
            }
        }
        lead_out_of(&lab, UPLINK);
    };
    restore();
    soon("through the uplink that was down", || reaches_the_world(&net1));
    lab.host().ip(&format!("link del {UPLINK}"));
    let _ = run.line_with(&["note", "uplink eth0 is gone"]);
    lab.host().ip(&format!("link add {UPLINK} type veth peer name {UPLINK} netns {}", lab.outside().name()));
    restore();
    soon("through the uplink that was away", || reaches_the_world(&net1));
    soon("everything is as recorded", || problems(&lab).is_empty());
}

/// Whether the kernel says that a program is attached to an interface of the host.
fn runs(lab: &Lab, program: &str, interface: &str) -> bool {
    let direction = if program.starts_with("to_") { TcAttachType::Egress } else { TcAttachType::Ingress };
    let attached = lab.host().enter(|| SchedClassifier::query_tcx(interface, direction));
    let (_, programs) = attached.unwrap_or_else(|e| panic!("ask what is attached to {interface}: {e}"));
    programs.iter().any(|info| info.name_as_str() == Some(program))
}

/// Detaches a pinned link and leaves its pin (`BPF_LINK_DETACH`), as `bpftool link detach` does.
fn detach(pin: &Path) {
    let output = std::process::Command::new("bpftool")
        .args(["link", "detach", "pinned"])
        .arg(pin)
        .output()
        .expect("bpftool (`cargo xtask setup` installs it)");
    assert!(output.status.success(), "detach {}: {}", pin.display(), String::from_utf8_lossy(&output.stderr));
}

#[test]
fn hooks_that_are_removed_are_there_again() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let end = host_end(&lab, net1.name());
    let run = run(&lab, &[]);
    let pin =
        |program: &str, interface: &str| lab.pin_dir().join("links").join(format!("{program}@{interface}"));
    for (program, interface) in
        [("from_uplink", UPLINK), ("from_endpoint", end.as_str()), ("to_bridge", "vnet0")]
    {
        let pin = pin(program, interface);
        let is_attached = || runs(&lab, program, interface);
        assert!(is_attached(), "{program} on {interface}");
        fs::remove_file(&pin).expect("a pin");
        soon(&format!("{program} is pinned again"), || pin.exists());
        soon(&format!("{program} is attached again after its pin went"), is_attached);
        detach(&pin);
        soon(&format!("{program} is attached again after it was detached"), is_attached);
        let _ = run.line_with(&["repaired", &format!("program {program} on {interface}")]);
    }
    // A program of the set: all are loaded again, and what is in the maps stays.
    let program = lab.pin_dir().join("programs/from_uplink");
    fs::remove_file(&program).expect("a pin");
    // The verifier looks at all of them, which takes a busy machine a while.
    eventually(|| program.exists().then_some(()), || format!("the program: {:#?}", run.lines()));
    soon("endpoints reach the world", || reaches_the_world(&net1));
    // A map: all are made anew, and filled.
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    let _server = Server::echo(&net1, "[::]:80");
    let map = lab.pin_dir().join(maps::PORT_MAP);
    fs::remove_file(&map).expect("a pin");
    eventually(|| map.exists().then_some(()), || format!("the map to be pinned again: {:#?}", run.lines()));
    soon("the port is published again", || {
        Ask::tcp((HOST_V4, 8088).into()).patience(Duration::from_millis(200)).try_in(lab.outside()).is_ok()
    });
    soon("everything is as recorded", || problems(&lab).is_empty());
}

#[test]
fn bridges_links_and_namespaces_that_go_are_there_again() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let end = host_end(&lab, net1.name());
    let run = run(&lab, &[]);
    let works = || reaches_the_world(&net1) && pings(&net1, net2.v4()) && pings(&net2, net1.gateways()[0]);
    lab.host().ip("link set vnet0 down");
    soon("the bridge is up", || link(lab.host(), "vnet0")["operstate"] == "UP" && works());
    let _ = run.line_with(&["noticed", "network default", "it is down"]);
    lab.host().ip("link del vnet0");
    soon("the bridge is there", works);
    lab.host().ip(&format!("link del {end}"));
    soon("the link is there", works);
    let _ =
        run.line_with(&["noticed", &format!("endpoint {}", net1.name()), &format!("veth {end}"), "missing"]);
    net1.delete();
    // Its name is there a moment before it is mounted there.
    let device = |path: &Path| fs::metadata(path).map(|about| about.dev()).ok();
    let is_mounted = || device(&net1.path()).is_some_and(|own| Some(own) != device(Path::new("/run/netns")));
    soon("the namespace is there", || is_mounted() && works());
    // What an endpoint is inside is its own business, but for what vnet gave it.
    net1.ip(&format!("addr del {}/24 dev eth0", net1.v4()));
    soon("the address is there", works);
    net1.ip("link set eth0 down");
    soon("the end inside is up", works);
    lab.host().write("/proc/sys/net/ipv4/conf/vnet0/forwarding", "0");
    soon("the bridge forwards", || lab.host().read("/proc/sys/net/ipv4/conf/vnet0/forwarding").trim() == "1");
    soon("everything is as recorded", || problems(&lab).is_empty());
}

#[test]
fn limits_that_are_removed_are_in_force_again() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    lab.vnet_ok(&["limit", "set", net1.name(), "--egress", "50mbit", "--ingress", "80mbit"]);
    let end = host_end(&lab, net1.name());
    let _run = run(&lab, &[]);
    for (netns, interface, rate) in [(lab.host(), end.as_str(), "80Mbit"), (net1.netns(), "eth0", "50Mbit")] {
        let is_limited = || netns.run(&["tc", "qdisc", "show", "dev", interface]).stdout.contains(rate);
        assert!(is_limited());
        netns.run(&["tc", "qdisc", "del", "dev", interface, "root"]).ok();
        soon(&format!("the limit of {interface} is there"), is_limited);
    }
}

#[test]
fn what_cannot_be_repaired_is_said_once_and_tried_again_until_it_can() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let run = run(&lab, &["--hook-check", "0"]);
    // Somebody else takes the bridge's name, and is quicker.
    lab.host().run(&["sh", "-c", "ip link del vnet0 && ip link add vnet0 type veth peer name theirs"]).ok();
    let failed = ["failed", "network default", "vnet0"];
    let _ = run.line_with(&failed);
    // What else goes is brought back meanwhile, and what failed is not said again.
    lab.host().ip(&format!("addr add 203.0.113.9/32 dev {UPLINK}"));
    let added: IpAddr = "203.0.113.9".parse().expect("an address");
    soon("an address is known beside what cannot be repaired", || host_addresses(&lab).contains(&added));
    let (before, _) = usage(&run);
    std::thread::sleep(Duration::from_secs(3));
    let (after, _) = usage(&run);
    assert!(after - before <= 60, "{} ticks of 300 for what cannot be repaired", after - before);
    let said = run.lines().iter().filter(|line| failed.iter().all(|word| line.contains(word))).count();
    assert_eq!(said, 1, "{:#?}", run.lines());
    lab.host().ip("link del vnet0");
    eventually(|| reaches_the_world(&net1).then_some(()), || "the bridge".to_owned());
    let _ = run.line_with(&["recovered", "network default"]);
}

#[test]
fn it_ends_within_a_second_and_leaves_everything_as_it_is() {
    let lab = Lab::up();
    let _net1 = lab.endpoint("net1");
    let socket = lab.run_dir().with_file_name("notify.socket");
    let told = UnixDatagram::bind(&socket).expect("a socket");
    told.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut environment = lab.environment();
    environment.push(("NOTIFY_SOCKET".to_owned(), socket.to_str().expect("ASCII").to_owned()));
    environment.push(("WATCHDOG_USEC".to_owned(), "400000".to_owned()));
    let argv = [vnet_binary().to_str().expect("a path").to_owned(), "run".to_owned(), "--json".to_owned()];
    let is_told = |word: &str| {
        let mut buffer = [0; 1024];
        eventually(
            || {
                let length = told.recv(&mut buffer).ok()?;
                String::from_utf8_lossy(&buffer[..length])
                    .lines()
                    .any(|line| line.starts_with(word))
                    .then_some(())
            },
            || format!("{word:?} on the notification socket"),
        );
    };
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut run = lab.host().start_with(&argv, &environment);
        is_told("READY=1");
        is_told("WATCHDOG=1");
        let before = lab.snapshot();
        run.signal(Signal::SIGHUP);
        is_told("RELOADING=1");
        is_told("READY=1");
        let reloading = run.line_with(&["reloading", "SIGHUP"]);
        let event: Value = serde_json::from_str(&reloading).expect("JSON");
        assert_eq!((&event["version"], &event["event"]), (&1.into(), &"reloading".into()));
        // There is one of them.
        let second = lab.vnet(&["run"]);
        let pid = format!("process {}", run.pid());
        second.fails_with(1, &["at work", lab.instance(), &pid]);
        let begin = Instant::now();
        run.signal(signal);
        is_told("STOPPING=1");
        assert_eq!(run.wait(), Some(0));
        assert!(begin.elapsed() < Duration::from_secs(1), "{signal:?} took {:?}", begin.elapsed());
        lab.snapshot().assert_same_as(&before);
    }
    // Nothing is in the way of the next one.
    let mut run = run(&lab, &[]);
    lab.vnet_ok(&["down"]);
    assert_eq!(run.wait(), Some(0));
    assert!(run.lines().iter().any(|line| line.contains("taken down")), "{:#?}", run.lines());
    fs::remove_file(socket).expect("remove the socket");
}

#[test]
fn commands_work_beside_it_and_traffic_does_not_notice_its_death() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _server = Server::udp(&net1, "[::]:7");
    lab.vnet_ok(&["portmap", "add", "7007", &format!("{}:7", net1.name()), "--proto", "udp"]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ticker = scope.spawn(|| {
            lab.outside().enter(|| {
                let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
                socket.connect((HOST_V4, 7007)).expect("connect");
                socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
                let (mut sent, mut lost) = (0_u32, 0_u32);
                let mut buffer = [0; 256];
                while !stop.load(Ordering::Relaxed) {
                    socket.send(&sent.to_be_bytes()).expect("send");
                    sent += 1;
                    lost += u32::from(socket.recv(&mut buffer).is_err());
                }
                (sent, lost)
            })
        });
        for n in 0..5 {
            let mut run = run(&lab, &["--drops"]);
            let short = format!("more{n}");
            let _more = lab.endpoint(&short);
            lab.host().ip("link set vnet0 down");
            run.signal(Signal::SIGKILL);
            assert_eq!(run.wait(), None);
            lab.vnet_ok(&["up"]);
            lab.vnet_ok(&["ns", "rm", &lab.name(&short)]);
        }
        stop.store(true, Ordering::Relaxed);
        let (sent, lost) = ticker.join().expect("the ticker");
        report(format_args!("{sent} questions while it was killed five times, {lost} without an answer"));
        assert!(sent > 100 && lost == 0, "{lost} of {sent} lost");
    });
    assert_eq!(problems(&lab), [Value::Null; 0]);
}

#[test]
fn it_costs_nothing_while_nothing_happens() {
    let lab = Lab::up();
    let _net1 = lab.endpoint("net1");
    for (options, most) in [(&["--hook-check", "0"][..], 2), (&[], 8)] {
        let run = run(&lab, &[options, &["--log-level", "debug"]].concat());
        // What it did itself, and what the commands before did, is heard and looked at.
        let mut last = usage(&run);
        eventually(
            || {
                std::thread::sleep(Duration::from_millis(400));
                let now = usage(&run);
                let quiet = now.1 - std::mem::replace(&mut last, now).1 <= 1;
                quiet.then_some(())
            },
            || "it to fall asleep".to_owned(),
        );
        let (begin, heard) = (usage(&run), run.lines().len());
        std::thread::sleep(Duration::from_secs(3));
        // Namespaces of other tests come and go in the same directory.
        let heard = (run.lines().len() - heard) as u64;
        let end = usage(&run);
        let (ticks, sleeps) = (end.0 - begin.0, (end.1 - begin.1).saturating_sub(2 * heard));
        report(format_args!("{options:?}: {ticks} ticks, woken {sleeps} times in 3 s"));
        assert!(
            sleeps <= most && ticks <= 2,
            "{options:?}: {ticks} ticks, woken {sleeps} times: {:#?}",
            run.lines()
        );
    }
}

/// Asks for a path over HTTP and gives the whole answer.
fn http(stream: &mut (impl Read + Write), request: &str) -> String {
    write!(stream, "{request} HTTP/1.1\r\nHost: test\r\n\r\n").expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// The values of a metric's samples, by their labels as written.
fn metric(text: &str, name: &str) -> Vec<(String, f64)> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let of_name = samples.filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, labels) = series.split_once('{').map_or((series, ""), |(name, labels)| (name, labels));
        (found == name).then(|| (labels.trim_end_matches('}').to_owned(), value.parse().expect("a number")))
    });
    of_name.collect()
}

/// The sum of a metric's samples whose labels hold all of these.
fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let fits = |(found, _): &&(String, f64)| labels.iter().all(|label| found.contains(label));
    metric(text, name).iter().filter(fits).map(|(_, value)| value).sum()
}

#[test]
fn metrics_tell_what_went_through() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let _servers = [Server::udp(&net1, "[::]:7"), Server::udp(lab.outside(), "[::]:9")];
    lab.vnet_ok(&["portmap", "add", "7007", &format!("{}:7", net1.name()), "--proto", "udp"]);
    let socket = lab.run_dir().with_file_name("metrics.socket");
    let unix = format!("unix:{}", socket.display());
    lab.vnet(&["run", "--metrics", "0.0.0.0:9464"])
        .fails_with(2, &["others than this host", "--metrics-remote"]);
    let _run = run(&lab, &["--metrics", &unix]);
    let scrape = || {
        let mut stream = UnixStream::connect(&socket).expect("a server");
        let answer = http(&mut stream, "GET /metrics");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("application/openmetrics-text"), "{head}");
        // The rules of the format: types, units, suffixes, no series twice, an end.
        parse_openmetrics(body).unwrap_or_else(|error| panic!("{error}\n{body}"));
        body.to_owned()
    };
    // It serves before it has looked at everything for the first time.
    let first = eventually(
        || Some(scrape()).filter(|text| sum(text, "vnet_reconciles_total", &["ok"]) >= 1.0),
        || "a first look at everything".to_owned(),
    );
    assert_eq!(metric(&first, "vnet_up"), [(String::new(), 1.0)]);
    assert_eq!(sum(&first, "vnet_build_info", &[&format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert_eq!(metric(&first, "vnet_last_reconcile_success")[0].1, 1.0);

    let ask = |from: &Netns, to: SocketAddr, times: usize| {
        from.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.connect(to).expect("connect");
            for _ in 0..times {
                socket.send(&[7; 100]).expect("send");
                socket.recv(&mut [0; 256]).expect("an answer");
            }
        });
    };
    ask(lab.outside(), (HOST_V4, 7007).into(), 10);
    ask(&net2, (OUTSIDE_V4, 9).into(), 20);
    let second = scrape();
    let grown = |name: &str, labels: &[&str]| sum(&second, name, labels) - sum(&first, name, labels);
    let (one, two) = (format!("endpoint=\"{}\"", net1.name()), format!("endpoint=\"{}\"", net2.name()));
    let published = ["published=\"7007\"", "protocol=\"udp\"", one.as_str()];
    for way in ["inward", "outward"] {
        assert_eq!(grown(&format!("vnet_portmap_{way}_packets_total"), &published), 10.0, "{second}");
    }
    // An IPv4 header and one of UDP, and what an echo server sends before the echo.
    assert_eq!(grown("vnet_portmap_inward_bytes_total", &published), 10.0 * 128.0);
    assert!(grown("vnet_portmap_outward_bytes_total", &published) > 10.0 * 128.0);
    // Interfaces carry more than that: neighbour discovery.
    for (endpoint, least) in [(&one, 10.0), (&two, 20.0)] {
        for way in ["sent", "received"] {
            let packets = grown(&format!("vnet_endpoint_{way}_packets_total"), &[endpoint]);
            assert!((least..least + 15.0).contains(&packets), "{endpoint} {way} {packets}");
            let bytes = grown(&format!("vnet_endpoint_{way}_bytes_total"), &[endpoint]);
            assert!(bytes >= least * 128.0, "{endpoint} {way} {bytes} bytes");
        }
    }
    assert_eq!(sum(&second, "vnet_flows", &["network=\"default\""]), 2.0, "{second}");
    assert_eq!(sum(&second, "vnet_flow_slots_used", &[]), 2.0);
    assert_eq!(sum(&second, "vnet_map_entries", &["map=\"conntrack\""]), 4.0);
    assert_eq!(sum(&second, "vnet_map_capacity", &["map=\"conntrack\""]), 262_144.0);
    assert_eq!(sum(&second, "vnet_map_entries", &["map=\"endpoints\""]), 6.0);

    // Somebody from outside tries what is not published; its own account says how often.
    lab.outside().ip(&format!("route add {}/32 via {HOST_V4}", net1.v4()));
    for _ in 0..3 {
        let _ = Ping::to(net1.v4()).patience(Duration::from_millis(20)).fails_in(lab.outside());
    }
    let third = scrape();
    let drops = ["hook=\"from_uplink\"", "reason=\"direct-access\""];
    assert_eq!(sum(&third, "vnet_dropped_packets_total", &drops), lab.dropped("direct-access") as f64);
    assert!(sum(&third, "vnet_dropped_packets_total", &drops) >= 3.0);

    // An endpoint that is made anew counts anew; what is told goes on from where it was.
    lab.host().ip(&format!("link del {}", host_end(&lab, net2.name())));
    eventually(|| reaches_the_world(&net2).then_some(()), || "the link".to_owned());
    lab.vnet_ok(&["flow", "flush"]);
    let fourth = scrape();
    assert!(sum(&fourth, "vnet_repairs_total", &["kind=\"endpoint\""]) >= 1.0, "{fourth}");
    assert!(sum(&fourth, "vnet_changes_total", &["kind=\"interface\""]) >= 1.0);
    for (before, after) in [(&first, &second), (&second, &third), (&third, &fourth)] {
        let names = before.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"));
        for name in names.map(|name| format!("{name}_total")) {
            let now = metric(after, &name);
            for (labels, value) in metric(before, &name) {
                let found = now.iter().find(|(other, _)| *other == labels);
                assert!(
                    found.is_some_and(|(_, now)| *now >= value),
                    "{name}{{{labels}}} was {value}: {now:?}"
                );
            }
        }
    }
}

#[test]
fn metrics_are_served_over_tcp_to_whoever_asks_properly() {
    let lab = Lab::up();
    let _run = run(&lab, &["--metrics", "127.0.0.1:9464"]);
    let connect = || lab.host().enter(|| TcpStream::connect("127.0.0.1:9464")).expect("a server");
    // Some who never ask are in nobody's way.
    let idle: Vec<TcpStream> = (0..10).map(|_| connect()).collect();
    for (request, expected) in [
        ("GET /metrics", "200 OK"),
        ("HEAD /metrics", "200 OK"),
        ("GET /", "200 OK"),
        ("GET /secrets", "404 Not Found"),
        ("POST /metrics", "405 Method Not Allowed"),
    ] {
        let answer = http(&mut connect(), request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{request}: {answer}");
        assert_eq!(answer.contains("# EOF"), request == "GET /metrics", "{request}: {answer}");
    }
    drop(idle);
}

#[test]
fn drops_are_told_as_they_happen() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let run = run(&lab, &["--drops", "--json"]);
    lab.outside().ip(&format!("route add {}/32 via {HOST_V4}", net1.v4()));
    eventually(
        || {
            let _ = Ping::to(net1.v4()).patience(Duration::from_millis(50)).fails_in(lab.outside());
            run.lines().iter().any(|line| line.contains("direct-access")).then_some(())
        },
        || "a drop".to_owned(),
    );
    let line = run.line_with(&["direct-access"]);
    let event: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!((&event["hook"], &event["interface"]), (&"from_uplink".into(), &UPLINK.into()), "{event:#}");
}

#[test]
fn an_instance_must_be_up_to_be_looked_after() {
    let lab = Lab::new();
    lab.vnet(&["run"]).fails_with(1, &["is not up", "vnet"]);
    assert!(!lab.run_dir().exists());
}

/// How much the programs of a lab log.
fn log_level(lab: &Lab) -> u32 {
    lab.entry::<u32, DatapathConfig>(maps::CONFIG, 0).log_level
}

/// What `vnet run --json` has told of what the programs log.
fn logged(run: &Background, log: &str) -> Vec<Value> {
    let lines = run.lines();
    let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|event| event["log"] == log).collect()
}

#[test]
fn programs_log_flows_and_drops_while_somebody_reads() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _server = Server::tcp(&net1, "[::]:80", Service::Sink);
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    assert_eq!(log_level(&lab), 0, "nothing is logged when nobody reads");
    let mut run = run(&lab, &["--json", "--program-log", "debug"]);
    assert_eq!(log_level(&lab), 4);
    for (_, host) in FAMILIES {
        let before = logged(&run, "begin").len();
        drop(lab.outside().enter(|| TcpStream::connect((host, 8088)).expect("connect")));
        let of_this = |log: &str| {
            let events = logged(&run, log).into_iter();
            events.filter(|event| event["packet"]["destination"] == host.to_string()).collect::<Vec<_>>()
        };
        let begun = eventually(
            || of_this("begin").into_iter().next().filter(|_| logged(&run, "begin").len() > before),
            || format!("a record of a flow to {host}: {:#?}", run.lines()),
        );
        assert_eq!((&begun["hook"], &begun["protocol"]), (&"from_uplink".into(), &"tcp".into()), "{begun:#}");
        assert_eq!(begun["packet"]["destination_port"], 8088, "{begun:#}");
        assert_eq!(begun["becomes"]["destination"], net1.addr_like(host).to_string(), "{begun:#}");
        let confirmed =
            eventually(|| of_this("confirm").into_iter().next(), || format!("{:#?}", run.lines()));
        assert_eq!((&confirmed["level"], &confirmed["interface"]), (&"debug".into(), &UPLINK.into()));
    }
    // A packet with a forged source.
    net1.ip("addr add 10.9.9.9/32 dev lo");
    let socket = net1.enter(|| UdpSocket::bind("10.9.9.9:0").expect("bind"));
    socket.send_to(b"forged", (OUTSIDE_V4, 9)).expect("send");
    let dropped = eventually(
        || logged(&run, "drop").into_iter().find(|event| event["reason"] == "source-address"),
        || format!("a record of the drop: {:#?}", run.lines()),
    );
    assert_eq!(dropped["packet"]["source"], "10.9.9.9");
    assert_eq!(logged(&run, "packet").len(), 0, "that is for the level trace");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.wait(), Some(0));
    assert_eq!(log_level(&lab), 0, "nothing is logged any more");
    assert_eq!(problems(&lab), [Value::Null; 0]);
}

#[test]
fn a_level_that_a_killed_process_has_left_is_put_off_and_lost_records_are_told() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let mut killed = run(&lab, &["--program-log", "trace"]);
    // Whoever changes the configuration leaves the level as it is, while somebody reads.
    lab.vnet_ok(&["up", "--timeout", "icmp-query=70s"]);
    assert_eq!(log_level(&lab), 5);
    killed.signal(Signal::SIGKILL);
    killed.wait();
    assert_eq!(log_level(&lab), 5);
    // Nobody reads: the ring buffer fills up, and packets go on.
    let count = 4 * maps::LOG_BYTES / 512;
    let socket = net1.enter(|| UdpSocket::bind("0.0.0.0:0").expect("bind"));
    for _ in 0..count {
        socket.send_to(b"into the void", (OUTSIDE_V4, 9)).expect("send");
    }
    assert!(reaches_the_world(&net1));
    lab.vnet_ok(&["up"]);
    assert_eq!(log_level(&lab), 0);
    // One that is stopped does not read either, and tells of it afterwards.
    let slow = run(&lab, &["--program-log", "trace"]);
    slow.signal(Signal::SIGSTOP);
    for _ in 0..count {
        socket.send_to(b"into the void", (OUTSIDE_V4, 9)).expect("send");
    }
    slow.signal(Signal::SIGCONT);
    let line = slow.line_with(&["records of the programs are lost"]);
    report(format_args!("{line}"));
    assert!(slow.lines().iter().any(|line| line.contains("packet") && line.contains("forward")));
    drop(slow);
    let _quiet = run(&lab, &[]);
    assert_eq!(log_level(&lab), 0, "the next `vnet run` without a level puts it off as well");
}

#[test]
fn files_are_applied_at_the_start_and_on_sighup_all_or_nothing() {
    let lab = Lab::new();
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().to_str().expect("a path");
    let (web, db) = (lab.name("web"), lab.name("db"));
    let write = |text: &str| fs::write(directory.path().join("vnet.toml"), text).expect("write");
    let endpoints = || {
        let found = lab.vnet_list(&["ns", "ls"], "endpoints");
        found.iter().map(|it| it["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    // What is wrong at the start is said as `vnet apply` says it.
    write("[endpoints.web]\ncolour = \"red\"\n");
    let applied = lab.vnet(&["apply", "-f", path]);
    let run_it = lab.vnet(&["run", "-f", path]);
    run_it.fails_with(2, &["vnet.toml:2:1", "colour"]);
    applied.fails_with(2, &["vnet.toml:2:1", "colour"]);
    lab.vnet(&["run", "-f", "-"]).fails_with(2, &["standard input"]);
    write(&format!("[endpoints.{web}]\n[endpoints.{db}]\n"));
    let mut run = run(&lab, &["-f", path, "--prune"]);
    let _ = run.line_with(&["applied", "added"]);
    assert_eq!(endpoints().len(), 2);
    // A second one does not touch anything.
    write(&format!("[endpoints.{web}]\n"));
    lab.vnet(&["run", "-f", path, "--prune"]).fails_with(1, &["at work"]);
    assert_eq!(endpoints().len(), 2);
    // It is pruned, and looked after.
    run.signal(Signal::SIGHUP);
    let _ = run.line_with(&["reloading", "files are applied"]);
    let _ = run.line_with(&["applied", "1 removed"]);
    assert_eq!(endpoints(), std::slice::from_ref(&web));
    lab.host().ip("link set vnet0 down");
    soon("the bridge is up", || link(lab.host(), "vnet0")["operstate"] != "DOWN");
    // What is wrong on SIGHUP is told, and changes nothing.
    let before = lab.snapshot();
    write(&format!("[endpoints.{db}]\nnetwork = \"nowhere\"\n"));
    run.signal(Signal::SIGHUP);
    let line = run.line_with(&["refused", "nowhere"]);
    assert!(line.contains("everything stays as it was"), "{line}");
    assert!(line.contains("vnet.toml:2:"), "{line}");
    lab.snapshot().assert_same_as(&before);
    assert!(run.is_running());
    write(&format!("[endpoints.{web}]\n[endpoints.{db}]\n"));
    run.signal(Signal::SIGHUP);
    let _ = run.line_with(&["applied", "1 added"]);
    assert_eq!(endpoints().len(), 2);
    run.signal(Signal::SIGTERM);
    assert_eq!(run.wait(), Some(0));
    assert_eq!(endpoints().len(), 2, "it leaves everything as it is");
}

/// What of `ip` in a namespace shows.
fn shows(netns: &Netns, command: &str, words: &[&str]) -> bool {
    let shown = netns.ip(command).stdout;
    shown.lines().any(|line| words.iter().all(|word| line.contains(word)))
}

#[test]
fn routes_rules_and_direct_links_inside_are_there_again_at_once() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let blue = lab.name("blue");
    lab.vnet_ok(&["network", "create", &blue, "--subnet", "10.55.0.0/24"]);
    lab.vnet_ok(&["network", "connect", &blue, net1.name(), "--route", "10.77.0.0/16"]);
    lab.vnet_ok(&[
        "link",
        "create",
        net1.name(),
        net2.name(),
        "--ip",
        "10.66.0.1/30",
        "--ip",
        "10.66.0.2/30",
    ]);
    let table = |netns: &Netns, table: &str, words: &[&str]| {
        shows(netns, &format!("route show table {table}"), words)
    };
    let route = || table(&net1, "main", &["10.77.0.0/16"]);
    let rule =
        || net1.ip("rule show").stdout.lines().filter(|line| line.contains("from 10.55.0.")).count() == 1;
    assert!(route() && rule());
    let line =
        net1.ip("rule show").stdout.lines().find(|line| line.contains("from 10.55.0.")).map(str::to_owned);
    let line = line.expect("a rule");
    let words: Vec<&str> = line.split_whitespace().collect();
    let number =
        words.iter().position(|word| *word == "lookup").and_then(|at| words.get(at + 1)).expect("a table");
    let by_source = || table(&net1, number, &["default"]);
    assert!(by_source(), "{line}");
    // Nothing is looked at by itself within this test.
    let run = run(&lab, &["--check", "86400", "--hook-check", "0"]);
    net1.ip("route del 10.77.0.0/16");
    soon("an extra route is there", route);
    net1.ip(&format!("rule del from {} table {number}", words[2]));
    soon("the rule is there", rule);
    net1.ip(&format!("route del default table {number}"));
    soon("the link's own default route is there", by_source);
    net1.ip("route replace 10.77.0.0/16 via 10.55.0.99");
    let led = net1.ip("route show 10.77.0.0/16").stdout;
    soon("the route leads where it should", || {
        !net1.ip("route show 10.77.0.0/16").stdout.contains("10.55.0.99")
    });
    report(format_args!("it was {led:?}"));
    let links = |netns: &Netns| netns.ip("-j link show").json().as_array().expect("links").len();
    let before = links(&net1);
    let direct = net1.ip("-o addr show").stdout;
    let direct = direct.lines().find(|line| line.contains("10.66.0.")).expect("the direct link");
    let direct = direct.split_whitespace().nth(1).expect("its name").to_owned();
    net2.ip(&format!("link show {direct}"));
    net1.ip(&format!("link del {direct}"));
    soon("the direct link is there", || {
        links(&net1) == before && pings(&net1, "10.66.0.2".parse().expect("an address"))
    });
    soon("everything is as recorded", || problems(&lab).is_empty());
    drop(run);
}

#[test]
fn links_of_programs_that_are_detached_are_there_again() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _server = Server::echo(&net1, "[::]:80");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    lab.vnet_ok(&["up", "--xdp", &format!("{UPLINK}=generic")]);
    let _run = run(&lab, &["--check", "86400"]);
    for link in ["host_connect4@cgroup".to_owned(), format!("xdp_uplink@{UPLINK}")] {
        let pin = lab.pin_dir().join("links").join(&link);
        let number = || {
            let shown =
                lab.host().run(&["bpftool", "-j", "link", "show", "pinned", pin.to_str().expect("a path")]);
            shown.json()["id"].as_u64()
        };
        let before = number();
        lab.host().run(&["bpftool", "link", "detach", "pinned", pin.to_str().expect("a path")]).ok();
        soon(&format!("{link} is another"), || pin.exists() && number() != before);
        soon("everything is as recorded", || problems(&lab).is_empty());
    }
    for (_, host) in FAMILIES {
        Ask::tcp((host, 8088).into()).in_netns(lab.host());
    }
}

#[test]
fn parameters_inside_are_found_by_the_check_and_routes_are_counted() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let socket = lab.run_dir().join("metrics.sock");
    let place = format!("unix:{}", socket.display());
    let run = run(&lab, &["--check", "1", "--metrics", &place, "--log-level", "debug"]);
    for (name, other, own) in [("accept_ra", "2", "0"), ("autoconf", "1", "0")] {
        let path = format!("/proc/sys/net/ipv6/conf/eth0/{name}");
        net1.write(&path, other);
        soon(&format!("{name} is as recorded"), || net1.read(&path).trim() == own);
    }
    let counted = || {
        let mut stream = UnixStream::connect(&socket).expect("a server");
        sum(&http(&mut stream, "GET /metrics"), "vnet_changes_total", &["kind=\"route\""])
    };
    lab.host().ip("route add 10.99.0.0/16 via 203.0.113.2");
    let _ = run.line_with(&["heard", "a route"]);
    soon("a route that came is counted", || counted() >= 1.0);
    let before = counted();
    lab.host().ip("route del 10.99.0.0/16");
    soon("a route that went is counted", || counted() > before);
}
