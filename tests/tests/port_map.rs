//! Published ports: how they are asked for, listed, refused and taken back.

use std::net::SocketAddr;

use vnet_tests::lab::{FAMILIES, HOST_V4, HOST_V6, Lab, UPLINK};
use vnet_tests::peer::{Ask, Server, Service};

#[test]
fn a_range_leads_port_by_port() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    // Not on any boundary of a power of two, so that it is cut into several blocks.
    lab.vnet_ok(&["portmap", "add", "9000-9099", &format!("{}:8005-8104", net1.name())]);
    lab.vnet_ok(&["portmap", "add", "9000-9099", &format!("{}:8005-8104", net1.name()), "--proto", "udp"]);
    for offset in [0, 1, 3, 8, 50, 63, 64, 98, 99] {
        let listen = format!("[::]:{}", 8005 + offset);
        let _servers = [Server::echo(&net1, &listen), Server::udp(&net1, &listen)];
        for (_, host) in FAMILIES {
            let published = SocketAddr::new(host, 9000 + offset);
            Ask::tcp(published).in_netns(lab.outside());
            Ask::udp(published).in_netns(lab.outside());
            Ask::tcp(published).in_netns(lab.host());
        }
    }
    let _around = [Server::echo(&net1, "[::]:8004"), Server::echo(&net1, "[::]:8105")];
    for beyond in [8999, 9100] {
        Ask::tcp((HOST_V4, beyond).into()).fails_in(lab.outside());
        Ask::tcp((HOST_V6, beyond).into()).fails_in(lab.host());
    }
}

#[test]
fn protocols_are_published_one_by_one() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _servers = [Server::echo(&net1, "[::]:53"), Server::udp(&net1, "[::]:53")];
    let target = format!("{}:53", net1.name());
    let (tcp, udp) = (Ask::tcp((HOST_V4, 5353).into()), Ask::udp((HOST_V4, 5353).into()));
    lab.vnet_ok(&["portmap", "add", "5353", &target]);
    tcp.in_netns(lab.outside());
    udp.fails_in(lab.outside());
    lab.vnet_ok(&["portmap", "add", "5353", &target, "--proto", "udp"]);
    udp.in_netns(lab.outside());
    lab.vnet_ok(&["portmap", "rm", "5353"]);
    tcp.fails_in(lab.outside());
    udp.in_netns(lab.outside());
    lab.vnet_ok(&["portmap", "rm", "5353", "--proto", "udp"]);
    udp.fails_in(lab.outside());
}

#[test]
fn a_mapping_for_one_address_beats_the_one_for_all() {
    let lab = Lab::new();
    lab.host().ip(&format!("addr add 203.0.113.5/24 dev {UPLINK}"));
    lab.vnet_ok(&["up"]);
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let (one, two) = (Server::echo(&net1, "[::]:80"), Server::echo(&net2, "[::]:80"));
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    lab.vnet_ok(&["portmap", "add", "203.0.113.5:8088", &format!("{}:80", net2.name())]);
    for from in [lab.outside(), lab.host()] {
        Ask::tcp((HOST_V4, 8088).into()).in_netns(from);
        Ask::tcp("203.0.113.5:8088".parse().unwrap()).in_netns(from);
    }
    assert_eq!([one.seen().len(), two.seen().len()], [2, 2]);
}

#[test]
fn a_target_may_be_an_address_or_a_name_and_both_families_are_published() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _server = Server::echo(&net1, "[::]:80");
    let targets = [net1.v4().to_string(), format!("[{}]", net1.v6()), net1.name().to_owned()];
    for (port, target) in (8088..).zip(targets) {
        lab.vnet_ok(&["portmap", "add", &port.to_string(), &format!("{target}:80")]);
        for (_, host) in FAMILIES {
            Ask::tcp((host, port).into()).in_netns(lab.outside());
        }
    }
}

#[test]
fn programs_as_people_use_them_reach_a_published_port() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _server = Server::tcp(&net1, "[::]:80", Service::Http { name: "net1".to_owned() });
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    for (from, url) in [
        (lab.outside(), "http://203.0.113.1:8088/"),
        (lab.outside(), "http://[2001:db8:113::1]:8088/"),
        (lab.host(), "http://127.0.0.1:8088/"),
        (lab.host(), "http://localhost:8088/"),
        (lab.host(), "http://[::1]:8088/"),
    ] {
        let page = from.run(&["curl", "--silent", "--show-error", "--max-time", "5", url]).ok().stdout;
        assert!(page.starts_with("net1 sees "), "{url}: {page}");
    }
}

#[test]
fn bpftool_shows_the_map_by_field_name() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    lab.vnet_ok(&["portmap", "add", "203.0.113.1:8088", &format!("{}:80", net1.name())]);
    let pin = lab.pin_dir().join("port_map");
    let dump = lab.host().run(&["bpftool", "map", "dump", "pinned", pin.to_str().unwrap()]).ok().stdout;
    let squeezed: String = dump.split_whitespace().collect();
    for field in [
        r#""key":"#,
        r#""value":"#,
        r#""addr":"#,
        r#""port":"#,
        r#""proto":"#,
        r#""prefix_len":16"#,
        r#""number":6"#,
    ] {
        assert!(squeezed.contains(field), "no {field} in {dump}");
    }
    // 8088 and 80 in network order, 192.168.0.2: bytes that a person can read.
    for bytes in ["[31,152]", "[0,80]", "203,0,113,1]", "192,168,0,2]"] {
        assert!(squeezed.contains(bytes), "no {bytes} in {dump}");
    }
}

#[test]
fn mappings_are_listed_and_asked_for_twice_are_there_once() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let target = format!("{}:80", net1.name());
    for _ in 0..2 {
        lab.vnet_ok(&["portmap", "add", "8088", &target]);
    }
    lab.vnet_ok(&[
        "portmap",
        "add",
        "203.0.113.1:9000-9009",
        &format!("{}:9000-9009", net1.name()),
        "--proto",
        "udp",
    ]);
    let listed = lab.vnet_list(&["portmap", "ls"], "portmaps");
    assert_eq!(listed.len(), 2, "{listed:#?}");
    let table = lab.vnet_ok(&["portmap", "ls"]).stdout;
    for word in ["8088", "tcp", "udp", "203.0.113.1", "9000-9009", net1.name()] {
        assert!(table.contains(word), "no {word} in {table}");
    }
    for _ in 0..2 {
        lab.vnet_ok(&["portmap", "rm", "8088"]);
    }
    assert_eq!(lab.vnet_list(&["portmap", "ls"], "portmaps").len(), 1);
}

#[test]
fn what_cannot_be_published_is_refused_by_name() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let [one, two] = [&net1, &net2].map(|endpoint| format!("{}:80", endpoint.name()));
    let none = lab.name("nobody");
    lab.vnet_ok(&["portmap", "add", "8088", &one]);
    lab.vnet_ok(&["portmap", "add", "9000-9099", &format!("{}:9000-9099", net1.name())]);
    let before = lab.vnet_json(&["portmap", "ls"]);
    for (published, target, words) in [
        ("8088", two.as_str(), vec!["8088", net1.name()]),
        ("9050", &two, vec!["9050", "9000-9099", net1.name()]),
        ("9099-9100", &format!("{}:1-2", net2.name()), vec!["9000-9099"]),
        ("8089", &format!("{none}:80"), vec![&none]),
        ("8089", "192.168.0.77:80", vec!["192.168.0.77"]),
        ("198.51.100.1:8089", &two, vec!["198.51.100.1", "203.0.113.1"]),
        ("50000", &two, vec!["50000", "49152-65535"]),
        ("8000-8010", &format!("{}:80-81", net2.name()), vec!["8000-8010", "80-81"]),
    ] {
        let refused = lab.vnet(&["portmap", "add", published, target]);
        assert!(matches!(refused.status, Some(1 | 2)), "expected a refusal: {refused}");
        for word in words {
            assert!(refused.stderr.contains(word), "expected {word:?} in: {refused}");
        }
    }
    assert_eq!(lab.vnet_json(&["portmap", "ls"]), before, "a refusal changes nothing");
}

#[test]
fn a_mapping_goes_with_its_endpoint() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    lab.vnet_ok(&["ns", "rm", net1.name()]);
    assert_eq!(lab.vnet_list(&["portmap", "ls"], "portmaps").len(), 0);
    // The next one with that address does not inherit it.
    let net2 = lab.endpoint("net2");
    assert_eq!(net2.v4(), net1.v4());
    let server = Server::echo(&net2, "[::]:80");
    Ask::tcp((HOST_V4, 8088).into()).fails_in(lab.outside());
    assert_eq!(server.seen(), []);
}

#[test]
fn a_connection_outlives_what_is_done_to_other_mappings() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let _server = Server::echo(&net1, "[::]:80");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    let mut stream = lab.outside().enter(|| std::net::TcpStream::connect((HOST_V4, 8088))).unwrap();
    stream.set_read_timeout(Some(vnet_tests::lab::PATIENCE)).unwrap();
    let mut say = |word: &str| {
        use std::io::{Read, Write};
        stream.write_all(word.as_bytes()).unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(word.as_bytes()) {
            let mut buffer = [0; 512];
            let length = stream.read(&mut buffer).unwrap();
            assert!(length > 0, "the connection broke at {word:?}");
            heard.extend(&buffer[..length]);
        }
    };
    say("before");
    lab.vnet_ok(&["portmap", "add", "9000-9099", &format!("{}:9000-9099", net2.name())]);
    lab.vnet_ok(&["portmap", "rm", "9000-9099"]);
    lab.vnet_ok(&["ns", "rm", net2.name()]);
    lab.vnet_ok(&["up"]);
    say("after");
}
