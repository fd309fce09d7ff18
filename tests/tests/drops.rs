//! `vnet drops --pcapng`: the packets that are dropped, as programs read them which are not vnet's.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use vnet_common::DropReason;
use vnet_tests::lab::{
    Background, Endpoint, HOST_V4, Lab, Netns, OUTSIDE_V4, OUTSIDE_V6, UPLINK, eventually,
};
use vnet_tests::peer::Ping;

/// A packet as tshark reads it.
#[derive(Debug)]
struct Read {
    /// Seconds since 1970.
    time: f64,
    interface: String,
    length: usize,
    captured: usize,
    comment: String,
    /// Its addresses, of whichever family.
    source: String,
    destination: String,
    port: String,
}

/// What tshark reads of a file, packet by packet.
#[track_caller]
fn read(lab: &Lab, file: &Path) -> Vec<Read> {
    const FIELDS: [&str; 9] = [
        "frame.time_epoch",
        "frame.interface_name",
        "frame.len",
        "frame.cap_len",
        "frame.comment",
        "ip.src",
        "ip.dst",
        "ipv6.src",
        "ipv6.dst",
    ];
    let mut argv =
        vec!["tshark", "-r", text(file), "-n", "-T", "fields", "-E", "separator=|", "-E", "occurrence=f"];
    argv.extend(FIELDS.iter().chain(&["udp.dstport"]).flat_map(|field| ["-e", field]));
    let lines = lab.host().run(&argv).ok().stdout;
    let packet = |line: &str| {
        let fields: Vec<&str> = line.split('|').collect();
        let [time, interface, length, captured, comment, v4_from, v4_to, v6_from, v6_to, port] = fields[..]
        else {
            panic!("{} fields in {line:?}", fields.len())
        };
        Read {
            time: time.parse().expect("seconds"),
            interface: interface.to_owned(),
            length: length.parse().expect("a length"),
            captured: captured.parse().expect("a length"),
            comment: comment.to_owned(),
            source: format!("{v4_from}{v6_from}"),
            destination: format!("{v4_to}{v6_to}"),
            port: port.to_owned(),
        }
    };
    lines.lines().map(packet).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("ASCII")
}

/// A capture that has begun.
#[track_caller]
fn capture(lab: &Lab, file: &Path, options: &[&str]) -> Background {
    let capture = lab.vnet_start(&[&["drops", "--pcapng", text(file)], options].concat());
    let _ = capture.line_with(&["capturing to"]);
    capture
}

/// Ends a capture as people do.
#[track_caller]
fn end(mut capture: Background) {
    capture.signal(Signal::SIGINT);
    assert_eq!(capture.wait(), Some(0), "{:#?}", capture.lines());
}

/// Somebody outside who knows the way to endpoints, and an endpoint with an address that is not its own.
fn trouble(lab: &Lab) -> Endpoint {
    let web = lab.endpoint("web");
    lab.outside().ip(&format!("route add 192.168.0.0/24 via {HOST_V4}"));
    web.ip("addr add 192.168.0.77/32 dev eth0");
    // Nobody is asked for the gateway's hardware address in the name of that address.
    Ping::to(OUTSIDE_V4).in_netns(&web);
    web
}

/// Sends a datagram of so many bytes.
fn send(netns: &Netns, from: IpAddr, to: IpAddr, port: u16, bytes: usize) {
    let socket = netns.enter(|| UdpSocket::bind((from, 0))).expect("an address of the sender");
    socket.send_to(&vec![0x5a; bytes], SocketAddr::new(to, port)).expect("sent");
}

fn forged() -> IpAddr {
    "192.168.0.77".parse().expect("an address")
}

/// The file of a test, which goes with its directory.
fn file() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("drops.pcapng");
    (dir, file)
}

#[test]
fn dropped_packets_are_captured_with_the_reason() {
    let lab = Lab::up();
    let web = trouble(&lab);
    let (_dir, path) = file();
    let (direct, source) = (DropReason::DirectAccess, DropReason::SourceAddress);
    // Nobody captures yet.
    send(lab.outside(), OUTSIDE_V4, web.v4(), 999, 10);
    let before = [direct, source].map(|reason| lab.dropped(reason.name()));
    let began = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let capture = capture(&lab, &path, &["--snaplen", "64"]);
    for port in [1001, 1002] {
        send(lab.outside(), OUTSIDE_V4, web.v4(), port, 10);
    }
    lab.outside().ip(&format!("-6 route add {}/128 via 2001:db8:113::1", web.v6()));
    send(lab.outside(), OUTSIDE_V6, web.v6(), 1003, 10);
    send(&web, forged(), OUTSIDE_V4, 1004, 1000);
    let dropped = || {
        let now = [direct, source].map(|reason| lab.dropped(reason.name()));
        (now == [before[0] + 3, before[1] + 1]).then_some(())
    };
    eventually(dropped, || "what was sent to be dropped".to_owned());
    end(capture);
    let ended = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    // Nobody captures any more.
    send(lab.outside(), OUTSIDE_V4, web.v4(), 1005, 10);

    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    let mut packets = read(&lab, &path);
    packets.retain(|packet| !packet.port.is_empty());
    packets.sort_by_key(|packet| packet.port.clone());
    let ports: Vec<&str> = packets.iter().map(|packet| packet.port.as_str()).collect();
    assert_eq!(ports, ["1001", "1002", "1003", "1004"], "{packets:#?}");
    for packet in &packets {
        assert!((began..=ended).contains(&packet.time), "{began} to {ended}: {packet:?}");
        let from_web = packet.port == "1004";
        let (reason, hook, interface) = if from_web {
            (source, "from_endpoint", interface_of(&lab, &web))
        } else {
            (direct, "from_uplink", UPLINK.to_owned())
        };
        assert_eq!(packet.interface, interface);
        let why = [reason.name(), hook, &interface, web.name(), reason.explanation().trim(), reason.remedy()];
        assert!(why.iter().all(|word| packet.comment.contains(word)), "{why:?} in {packet:?}");
        let (from, to) = match packet.port.as_str() {
            "1003" => (OUTSIDE_V6, web.v6()),
            "1004" => (forged(), OUTSIDE_V4),
            _ => (OUTSIDE_V4, web.v4()),
        };
        assert_eq!((&packet.source, &packet.destination), (&from.to_string(), &to.to_string()));
        let length =
            if from_web { 14 + 20 + 8 + 1000 } else { 14 + if from.is_ipv4() { 20 } else { 40 } + 8 + 10 };
        assert_eq!((packet.length, packet.captured), (length, length.min(64)), "{packet:?}");
    }
    // Another reader: libpcap.
    let shown = lab.host().run(&["tcpdump", "-nr", text(&path), "udp port 1001"]).ok().stdout;
    assert!(shown.contains(&format!("{}.1001", web.v4())), "{shown}");
}

/// The host's end of an endpoint's link.
fn interface_of(lab: &Lab, endpoint: &Endpoint) -> String {
    let shown = lab.vnet_list(&["ns", "inspect", endpoint.name()], "endpoints");
    shown[0]["interface"].as_str().expect("a link").to_owned()
}

#[test]
fn what_is_captured_can_be_chosen_and_bounded() {
    let lab = Lab::up();
    let web = trouble(&lab);
    let other = lab.endpoint("other");
    let (_dir, path) = file();
    // The kernel tells apart reasons and programs, vnet endpoints; each packet that is not asked for comes first.
    for options in [
        &["--reason", "source-address"][..],
        &["--hook", "from_endpoint"],
        &["--reason", "direct-access,source-address", "--hook", "from_endpoint,to_uplink"],
    ] {
        let mut capture = capture(&lab, &path, &[options, &["--count", "1"]].concat());
        send(lab.outside(), OUTSIDE_V4, web.v4(), 1001, 10);
        send(&web, forged(), OUTSIDE_V4, 1002, 10);
        assert_eq!(capture.wait(), Some(0), "{:#?}", capture.lines());
        let packets = read(&lab, &path);
        assert_eq!(packets.len(), 1, "{packets:#?}");
        assert_eq!(packets[0].port, "1002", "{options:?}");
    }
    let mut capture = capture(&lab, &path, &["--endpoint", other.name(), "--count", "2", "-f"]);
    for port in [1001, 1002] {
        send(lab.outside(), OUTSIDE_V4, web.v4(), port, 10);
        send(lab.outside(), OUTSIDE_V4, other.v4(), port, 10);
    }
    assert_eq!(capture.wait(), Some(0), "{:#?}", capture.lines());
    let packets = read(&lab, &path);
    let to: Vec<&str> = packets.iter().map(|packet| packet.destination.as_str()).collect();
    assert_eq!(to, [other.v4().to_string(), other.v4().to_string()]);
    // With -f it says so as well.
    let said = capture.lines();
    let told =
        said.iter().filter(|line| line.contains("direct-access") && line.contains(&other.v4().to_string()));
    assert_eq!(told.count(), 2, "{said:#?}");

    // A file has its bounds, and what is written to standard output can be read by another program.
    let most = 2_000;
    let mut bounded = self::capture(&lab, &path, &["--max-size", &most.to_string()]);
    while bounded.is_running() {
        send(lab.outside(), OUTSIDE_V4, web.v4(), 1001, 100);
    }
    assert_eq!(bounded.wait(), Some(0), "{:#?}", bounded.lines());
    let size = fs::metadata(&path).expect("a file").len();
    assert!(size > most / 2 && size <= most + 200, "{size} bytes: packets up to {most}, and the statistics");
    assert!(!read(&lab, &path).is_empty());

    let vnet = vnet_tests::lab::vnet_binary();
    let pipe =
        format!("{} drops --pcapng - --count 1 | tshark -r - -n -T fields -e udp.dstport", text(&vnet));
    let piped = lab.host().start_with(&["sh".into(), "-c".into(), pipe], &lab.environment());
    let _ = piped.line_with(&["capturing to -"]);
    send(lab.outside(), OUTSIDE_V4, web.v4(), 1003, 10);
    let _ = piped.line_with(&["1003"]);

    lab.vnet_ok(&["drops", "--pcapng", text(&path), "--duration", "1s"]);
    assert!(read(&lab, &path).is_empty());
    for (options, words) in [
        (&["--pcapng", "-", "-f"][..], &["-f", "name a file"][..]),
        (&["--count", "1"], &["--pcapng"]),
        (&["--snaplen", "64"], &["--pcapng"]),
        (&["--pcapng", "x", "--snaplen", "16385"], &["16384"]),
        (&["--pcapng", "x", "--count", "0"], &["--count"]),
    ] {
        lab.vnet(&[&["drops"], options].concat()).fails_with(2, words);
    }
    let nowhere = "/nowhere/drops.pcapng";
    lab.vnet(&["drops", "--pcapng", nowhere]).fails_with(1, &[nowhere, "No such file"]);
    lab.vnet(&["drops", "--pcapng", text(&path), "--endpoint", "nobody"]).fails_with(1, &["nobody"]);
}

#[test]
fn one_captures_at_a_time_and_a_killed_capture_is_over() {
    let lab = Lab::up();
    let web = trouble(&lab);
    let (_dir, path) = file();
    let mut first = capture(&lab, &path, &[]);
    lab.vnet(&["drops", "--pcapng", "-"]).fails_with(1, &["another", "--pcapng", "end that first"]);
    // Following and counting go on beside a capture.
    let following = lab.vnet_start(&["drops", "-f"]);
    let heard = || {
        send(lab.outside(), OUTSIDE_V4, web.v4(), 1001, 10);
        following.lines().iter().any(|line| line.contains("direct-access")).then_some(())
    };
    eventually(heard, || format!("a drop to be told of: {:#?}", following.lines()));
    first.signal(Signal::SIGKILL);
    assert_eq!(first.wait(), None);
    let dropped = lab.dropped("direct-access");
    // The kernel lets go of what it had a moment later.
    let again = || {
        let mut second = lab.vnet_start(&["drops", "--pcapng", text(&path)]);
        let begun = || {
            let lines = second.lines();
            let begun = lines.iter().any(|line| line.contains("capturing to"));
            let refused = lines.iter().any(|line| line.contains("another"));
            (begun || refused).then_some(begun)
        };
        let begun = eventually(begun, || "a capture to begin or not".to_owned());
        second.signal(Signal::SIGTERM);
        (second.wait() == Some(0) && begun).then_some(())
    };
    eventually(again, || "a second capture".to_owned());
    send(lab.outside(), OUTSIDE_V4, web.v4(), 1001, 10);
    eventually(|| (lab.dropped("direct-access") > dropped).then_some(()), || "drops as ever".to_owned());
    // The data path goes away under a capture, which then has nothing to wait for but its end.
    let third = capture(&lab, &path, &[]);
    lab.vnet_ok(&["down"]);
    end(third);
}

#[test]
fn what_xdp_drops_is_captured_whole() {
    let lab = Lab::up();
    lab.vnet_ok(&["up", "--xdp", "native"]);
    lab.vnet_ok(&["deny", "add", "203.0.113.2/32"]);
    let (_dir, path) = file();
    let mut capture = capture(&lab, &path, &["--reason", "denied", "--count", "20"]);
    for port in 1001..=1020 {
        send(lab.outside(), OUTSIDE_V4, HOST_V4, port, 100);
    }
    assert_eq!(capture.wait(), Some(0), "{:#?}", capture.lines());
    let packets = read(&lab, &path);
    assert_eq!(packets.len(), 20, "{packets:#?}");
    for packet in &packets {
        assert!(packet.comment.contains("xdp_uplink") && packet.comment.contains("denied"), "{packet:?}");
        assert_eq!((packet.length, packet.captured, packet.interface.as_str()), (142, 142, UPLINK));
    }
}
