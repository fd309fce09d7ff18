//! Published ports: how they are asked for, listed, refused and taken back.

use std::net::SocketAddr;

use nix::libc;
use vnet_tests::lab::{FAMILIES, HOST_V4, HOST_V6, Lab, UPLINK, vnet_binary};
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

#[test]
fn many_are_published_from_a_file_and_taken_back_by_one() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let name = net1.name();
    let directory = tempfile::TempDir::new().unwrap();
    let file = |name: &str, text: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let singles: String = (10_000..13_000).map(|port| format!("{port} {name}:{port}\n")).collect();
    let add = file(
        "add",
        format!(
            "# all of a kind\n{singles}\n\
             203.0.113.1:8088 {name}:80 --allow-from 203.0.113.0/24 --allow-from=10.0.0.0/8  # web\n\
             --proto udp 5000-5099 {name}:6000-6099\n"
        ),
    );
    let dry = lab.vnet_ok(&["portmap", "add", "--file", &add, "--dry-run"]);
    assert!(dry.stdout.contains("tcp ports 12999-12999"), "{dry}");
    assert_eq!(lab.vnet_list(&["portmap", "ls"], "portmaps").len(), 0);

    let made = lab.vnet_list(&["portmap", "add", "--file", &add], "portmaps");
    assert_eq!(made.len(), 3002);
    let mut listed = lab.vnet_list(&["portmap", "ls"], "portmaps");
    let by_number = |mapping: &serde_json::Value| mapping["id"].as_u64();
    listed.sort_by_key(by_number);
    assert_eq!(listed, made);
    assert_eq!(listed[3000]["allow_from"], serde_json::json!(["10.0.0.0/8", "203.0.113.0/24"]));
    let range =
        ["port", "end", "target_port", "target_end"].map(|field| listed[3001][field].as_u64().unwrap());
    assert_eq!((range, &listed[3001]["protocol"]), ([5000, 5099, 6000, 6099], &"udp".into()));
    let again = lab.vnet_ok(&["portmap", "add", "--file", &add]).stdout;
    assert_eq!(again, "published 3002 mappings (already)\n");

    // The last of them, and those with more to them, carry traffic.
    let _servers = [Server::echo(&net1, "[::]:12999"), Server::echo(&net1, "[::]:80")];
    let _udp = Server::udp(&net1, "[::]:6099");
    for (_, host) in FAMILIES {
        Ask::tcp((host, 12_999).into()).in_netns(lab.outside());
        Ask::udp((host, 5099).into()).in_netns(lab.outside());
    }
    Ask::tcp((HOST_V4, 8088).into()).in_netns(lab.outside());

    let back: String = (10_000..13_000).map(|port| format!("{port}\n")).collect();
    let back = file("back", format!("{back}5000-5099 --proto udp\n7 # never published\n"));
    let said = lab.vnet_ok(&["portmap", "rm", "--file", &back]).stdout;
    assert_eq!(said, "3001 mappings removed\n");
    let left = lab.vnet_list(&["portmap", "ls"], "portmaps");
    assert_eq!(left, made[3000..=3000]);
    Ask::tcp((HOST_V4, 12_999).into()).fails_in(lab.outside());
}

/// Counted is what it takes beyond a command that does nothing. Memory and the pages of the record are left out: how many
/// it takes depends on how vnet was built, and on how deep the record's trees are.
#[test]
fn publishing_one_more_asks_the_kernel_little_and_no_more_beside_many() {
    const AT_MOST: usize = 120;
    /// The record's library now and then wakes somebody who does not wait.
    const SLACK: usize = 5;
    const LEFT_OUT: [libc::c_long; 6] = [
        libc::SYS_brk,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_pread64,
        libc::SYS_pwrite64,
    ];
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let target = format!("{}:80", net1.name());
    let count = |args: &[&str]| {
        let calls = lab.system_calls_of_vnet(args);
        calls.iter().filter(|call| LEFT_OUT.iter().all(|other| **call != other.cast_unsigned())).count()
    };
    let nothing = count(&["--version"]);
    let calls = |port: &str| count(&["portmap", "add", port, &target]) - nothing;
    let alone = calls("8088");
    let lines: String = (10_000..11_000).map(|port| format!("{port} {target}\n")).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines).unwrap();
    lab.vnet_ok(&["portmap", "add", "--file", file.path().to_str().unwrap()]);
    let beside = calls("8089");
    assert!(alone <= AT_MOST && beside <= alone + SLACK, "{alone} system calls alone, {beside} beside many");
    assert_eq!(lab.vnet_list(&["portmap", "ls"], "portmaps").len(), 1_002);
}

#[test]
fn a_mapping_is_there_already_though_the_host_has_a_new_address() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let target = format!("{}:80", net1.name());
    let publish = || lab.vnet_ok(&["portmap", "add", "8088", &target]).stdout;
    let made = publish();
    lab.host().ip(&format!("address add 203.0.113.77/32 dev {UPLINK}"));
    assert_eq!(publish(), format!("{} (already)\n", made.trim_end()));
    // By the way, it was noted.
    let _server = Server::echo(&net1, "[::]:80");
    Ask::tcp("203.0.113.77:8088".parse().unwrap()).in_netns(lab.outside());
}

#[test]
fn a_file_with_bad_lines_publishes_nothing_and_names_them_all() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let name = net1.name();
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{name}:80")]);
    let before = lab.vnet_list(&["portmap", "ls"], "portmaps");
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("mappings");
    let path = path.to_str().unwrap();
    let refused = |text: String, status: i32, words: &[&str]| {
        std::fs::write(path, text).unwrap();
        let mut all = vec!["nothing was published"];
        all.extend(words);
        lab.vnet(&["portmap", "add", "--file", path]).fails_with(status, &all);
        assert_eq!(lab.vnet_list(&["portmap", "ls"], "portmaps"), before);
    };
    let at = |line: u32, reason: &str| format!("{path}:{line}: {reason}");
    refused(
        format!("80 {name}:80\n81\n82 {name}:x\n83 {name}:83 --proto icmp\n84 {name}:84 --from x\n"),
        2,
        &[
            "4 lines",
            &at(2, "TARGET:PORT[-END] is missing"),
            &at(3, "\"x\" is not a port"),
            &at(4, "\"icmp\" is no protocol: there are tcp, udp, sctp"),
            &at(5, "a line has no option --from"),
        ],
    );
    // What makes no sense only beside the endpoint or other lines.
    refused(format!("80 {name}:80-81\n"), 2, &["1 line:", &at(1, "")]);
    refused(
        format!(
            "\n8000-8100 {name}:8000-8100\n81 {name}:81\n81 {name}:82\n90 nobody:90\n192.0.2.1:91 {name}:91\n"
        ),
        1,
        &[
            "4 lines",
            &at(2, "8000-8100/tcp is taken"),
            &at(4, "81/tcp is asked for twice"),
            &at(5, "there is no endpoint nobody"),
            &at(6, "192.0.2.1 is not an address of this host"),
        ],
    );
    lab.vnet(&["portmap", "add", "--file", "/nowhere/mappings"]).fails_with(1, &["read /nowhere/mappings"]);
    std::fs::write(path, "8088\n8000-8100\n").unwrap();
    let words = ["nothing was removed", &at(2, "8000-8100/tcp is not published as such")];
    lab.vnet(&["portmap", "rm", "--file", path]).fails_with(1, &words);
    assert_eq!(lab.vnet_list(&["portmap", "ls"], "portmaps"), before);
}

#[test]
fn many_are_published_from_standard_input() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let vnet = vnet_binary();
    let script =
        format!("printf '80 {0}:80\\n81 {0}:81\\n' | {1} portmap add --file -", net1.name(), vnet.display());
    let argv = ["sh", "-c", &script].map(str::to_owned);
    assert_eq!(lab.host().run_with(&argv, &lab.environment()).ok().stdout, "published 2 mappings\n");
    assert_eq!(lab.vnet_list(&["portmap", "ls"], "portmaps").len(), 2);
    let script =
        format!("echo 80 | {} portmap rm --file -; echo x | {0} portmap add --file -", vnet.display());
    let argv = ["sh", "-c", &script].map(str::to_owned);
    lab.host().run_with(&argv, &lab.environment()).fails_with(2, &["standard input:1: "]);
    assert_eq!(lab.vnet_list(&["portmap", "ls"], "portmaps").len(), 1);
}
