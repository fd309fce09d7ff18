//! Published ports and the host's own programs: who has a port first, keeps it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};
use vnet::kernel::Kernel;
use vnet_common::features::SET_RETVAL;
use vnet_tests::lab::{Endpoint, FAMILIES, HOST_V4, Lab, Netns, OUTSIDE_V4, OUTSIDE_V6, UPLINK, eventually};
use vnet_tests::peer::{Ask, Server};

const SECOND: &str = "203.0.113.5";

/// What is bound: protocol, address, and whether the socket is restricted to IPv6.
#[derive(Clone, Copy, Debug)]
struct Bind<'a> {
    kind: SockType,
    on: &'a str,
    v6only: bool,
}

const fn tcp(on: &str) -> Bind<'_> {
    Bind { kind: SockType::Stream, on, v6only: false }
}

const fn udp(on: &str) -> Bind<'_> {
    Bind { kind: SockType::Datagram, on, v6only: false }
}

impl Bind<'_> {
    const fn v6only(self) -> Self {
        Self { v6only: true, ..self }
    }

    /// Binds a socket in a namespace, and listens.
    fn try_in(self, netns: &Netns) -> nix::Result<OwnedFd> {
        let on: SocketAddr = self.on.parse().expect("an address and a port");
        let family = if on.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        netns.enter(|| {
            let socket = socket(family, self.kind, SockFlag::SOCK_CLOEXEC, None)?;
            if on.is_ipv6() {
                setsockopt(&socket, sockopt::Ipv6V6Only, &self.v6only)?;
            }
            bind(socket.as_raw_fd(), &SockaddrStorage::from(on))?;
            if self.kind == SockType::Stream {
                listen(&socket, Backlog::new(8)?)?;
            }
            Ok(socket)
        })
    }

    /// Must succeed. A program that another test is just starting may have inherited the socket before, until it runs.
    #[track_caller]
    fn in_netns(self, netns: &Netns) -> OwnedFd {
        eventually(|| self.try_in(netns).ok(), || format!("{self:?} in {}", netns.name()))
    }

    /// Must be refused as a port that is in use; before Linux 6.1 the kernel has one error for all refusals.
    #[track_caller]
    fn refused_in(self, netns: &Netns) {
        let expected = if Kernel::features() & SET_RETVAL == 0 { Errno::EPERM } else { Errno::EADDRINUSE };
        assert_eq!(self.try_in(netns).expect_err("published"), expected, "{self:?} in {}", netns.name());
    }
}

/// A host with two addresses, and an endpoint.
fn lab() -> (Lab, Endpoint) {
    let lab = Lab::new();
    lab.host().ip(&format!("addr add {SECOND}/24 dev {UPLINK}"));
    lab.vnet_ok(&["up"]);
    let net1 = lab.endpoint("net1");
    (lab, net1)
}

fn target(endpoint: &Endpoint, port: u16) -> String {
    format!("{}:{port}", endpoint.name())
}

#[test]
fn a_port_that_a_program_of_the_host_holds_is_not_published_over_it() {
    let (lab, net1) = lab();
    let own = std::fs::read_to_string("/proc/self/comm").unwrap();
    let holder = format!("{} (pid {})", own.trim(), std::process::id());
    // What the host has bound; what cannot be published then, with the protocol; what can.
    for (held, refused, free) in [
        (tcp("0.0.0.0:8088"), vec!["8088", "203.0.113.1:8088", "8000-8100"], vec!["[2001:db8:113::1]:8088"]),
        (tcp("127.0.0.1:8088"), vec!["8088", "127.0.0.1:8088"], vec!["203.0.113.1:8088"]),
        (tcp("[::]:8088"), vec!["8088", "203.0.113.1:8088", "[::1]:8088"], vec![]),
        (tcp("[::]:8088").v6only(), vec!["8088", "[::1]:8088"], vec!["203.0.113.1:8088", "127.0.0.1:8088"]),
        (tcp("[::1]:8088"), vec!["8088", "[::1]:8088"], vec!["[2001:db8:113::1]:8088", "127.0.0.1:8088"]),
        (udp("0.0.0.0:8088"), vec![], vec!["8088"]),
    ] {
        let socket = held.in_netns(lab.host());
        for published in refused {
            let ports = published.rsplit(':').next().unwrap();
            let target = format!("{}:{ports}", net1.name());
            let words = ["port 8088/tcp is held by", &holder, held.on, "stop it"];
            lab.vnet(&["portmap", "add", published, &target]).fails_with(1, &words);
            assert_eq!(lab.vnet_list(&["portmap", "ls"], "portmaps"), [] as [serde_json::Value; 0]);
        }
        for published in free {
            lab.vnet_ok(&["portmap", "add", published, &target(&net1, 80)]);
            // Asked for again it is there already, whatever the host has bound.
            assert!(
                lab.vnet_ok(&["portmap", "add", published, &target(&net1, 80)]).stdout.contains("already")
            );
            lab.vnet_ok(&["portmap", "rm", published]);
        }
        drop(socket);
        lab.vnet_ok(&["portmap", "add", "8088", &target(&net1, 80)]);
        lab.vnet_ok(&["portmap", "rm", "8088"]);
    }
}

#[test]
fn a_udp_port_that_is_bound_is_not_published_over_it() {
    let (lab, net1) = lab();
    for on in ["0.0.0.0:5353", "[::]:5353"] {
        let socket = udp(on).in_netns(lab.host());
        let publish = ["portmap", "add", "5353", &target(&net1, 53), "--proto", "udp"];
        lab.vnet(&publish).fails_with(1, &["port 5353/udp is held by", on]);
        drop(socket);
        lab.vnet_ok(&publish);
        lab.vnet_ok(&["portmap", "rm", "5353", "--proto", "udp"]);
    }
}

#[test]
fn a_socket_of_another_namespace_is_in_nobodys_way() {
    let (lab, net1) = lab();
    let _others = [tcp("[::]:8088").in_netns(lab.outside()), tcp("[::]:8088").in_netns(&net1)];
    lab.vnet_ok(&["portmap", "add", "8088", &target(&net1, 80)]);
}

#[test]
fn a_published_port_is_not_for_programs_of_the_host() {
    let (lab, net1) = lab();
    let second = format!("{SECOND}:8088");
    let host = lab.host();
    for proto in ["tcp", "udp"] {
        let this = |on| if proto == "tcp" { tcp(on) } else { udp(on) };
        let other = |on| if proto == "tcp" { udp(on) } else { tcp(on) };
        let add = |published: &str| {
            lab.vnet_ok(&["portmap", "add", published, &target(&net1, 80), "--proto", proto]);
        };
        let rm = |published: &str| drop(lab.vnet_ok(&["portmap", "rm", published, "--proto", proto]));

        add("8088");
        for on in
            ["0.0.0.0:8088", "127.0.0.1:8088", &second, "[::]:8088", "[::1]:8088", "[2001:db8:113::1]:8088"]
        {
            this(on).refused_in(host);
        }
        this("[::]:8088").v6only().refused_in(host);
        for on in ["0.0.0.0:8087", "0.0.0.0:0", "[::]:8089"] {
            drop(this(on).in_netns(host));
        }
        drop(other("[::]:8088").in_netns(host));
        rm("8088");
        drop(this("[::]:8088").in_netns(host));

        // On one address: the others are the host's, as long as it names them.
        add(&second);
        for on in ["0.0.0.0:8088", &second, "[::]:8088"] {
            this(on).refused_in(host);
        }
        // Nobody can see in time that it would not hear IPv4.
        this("[::]:8088").v6only().refused_in(host);
        for on in ["127.0.0.1:8088", "203.0.113.1:8088", "[::1]:8088"] {
            drop(this(on).in_netns(host));
        }
        add("127.0.0.5:8088");
        rm(&second);
        this("0.0.0.0:8088").refused_in(host);
        drop(this(&second).in_netns(host));
        rm("127.0.0.5:8088");
        drop(this("0.0.0.0:8088").in_netns(host));
    }
}

#[test]
fn a_range_is_reserved_to_its_ends() {
    let (lab, net1) = lab();
    for published in ["9001-9099", &format!("{SECOND}:9001-9099")] {
        lab.vnet_ok(&["portmap", "add", published, &format!("{}:1001-1099", net1.name())]);
        for port in [9001, 9002, 9050, 9064, 9098, 9099] {
            tcp(&format!("0.0.0.0:{port}")).refused_in(lab.host());
            tcp(&format!("{SECOND}:{port}")).refused_in(lab.host());
        }
        for port in [9000, 9100] {
            drop(tcp(&format!("0.0.0.0:{port}")).in_netns(lab.host()));
        }
        lab.vnet_ok(&["portmap", "rm", published]);
    }
}

#[test]
fn a_reservation_is_the_hosts_business_alone() {
    let ((lab, net1), (other, _)) = (lab(), lab());
    lab.vnet_ok(&["portmap", "add", "8088", &target(&net1, 8088)]);
    tcp("0.0.0.0:8088").refused_in(lab.host());
    for elsewhere in [&*net1, lab.outside(), other.host()] {
        drop(tcp("0.0.0.0:8088").in_netns(elsewhere));
        drop(tcp("[::]:8088").in_netns(elsewhere));
    }
    // The endpoint's program may come later, and is what the port leads to.
    let _server = Server::echo(&net1, "[::]:8088");
    Ask::tcp((HOST_V4, 8088).into()).in_netns(lab.outside());
    Ask::tcp("127.0.0.1:8088".parse().unwrap()).in_netns(lab.host());
    lab.vnet_ok(&["down"]);
    drop(tcp("0.0.0.0:8088").in_netns(lab.host()));
}

#[test]
fn a_program_that_is_refused_reads_that_the_address_is_in_use() {
    let (lab, net1) = lab();
    lab.vnet_ok(&["portmap", "add", "8088", &target(&net1, 80)]);
    let error = lab.host().enter(|| std::net::TcpListener::bind("0.0.0.0:8088")).expect_err("published");
    let in_use = Kernel::features() & SET_RETVAL != 0;
    let expected = if in_use { io::ErrorKind::AddrInUse } else { io::ErrorKind::PermissionDenied };
    assert_eq!(error.kind(), expected, "{error}");
}

#[test]
fn every_form_of_what_is_published_leads_there() {
    let (lab, net1) = lab();
    let _servers: Vec<Server> = (80..83).map(|port| Server::echo(&net1, &format!("[::]:{port}"))).collect();
    const V4: &str = "203.0.113.1";
    const V6: &str = "[2001:db8:113::1]";
    // What is published, its target, what then answers, and what does not.
    for (published, target, answers, silent) in [
        ("8080", format!("{}:80", net1.name()), vec![(V4, 8080), (V6, 8080), (SECOND, 8080)], (V4, 8081)),
        ("8080-8082", format!("{}:80-82", net1.v4()), vec![(V4, 8082), (V6, 8081)], (V6, 8083)),
        ("203.0.113.5:8080", format!("{}:80", net1.name()), vec![(SECOND, 8080)], (V4, 8080)),
        (
            "203.0.113.5:8080-8082",
            format!("{}:80-82", net1.name()),
            vec![(SECOND, 8080), (SECOND, 8082)],
            (V4, 8082),
        ),
        ("[2001:db8:113::1]:8080", format!("[{}]:80", net1.v6()), vec![(V6, 8080)], (V4, 8080)),
        ("[2001:db8:113::1]:8080-8082", format!("{}:80-82", net1.name()), vec![(V6, 8082)], (V4, 8082)),
    ] {
        let ask = |(host, port): (&str, u16)| Ask::tcp(format!("{host}:{port}").parse().unwrap());
        lab.vnet_ok(&["portmap", "add", published, &target]);
        for answer in &answers {
            ask(*answer).in_netns(lab.outside());
            ask(*answer).in_netns(lab.host());
        }
        ask(silent).fails_in(lab.outside());
        ask(silent).fails_in(lab.host());
        lab.vnet_ok(&["portmap", "rm", published]);
        ask(answers[0]).fails_in(lab.outside());
    }
}

/// How many entries a map of the instance has.
fn entries(lab: &Lab, map: &str) -> usize {
    let pin = lab.pin_dir().join(map);
    let dump =
        lab.host().run(&["bpftool", "--json", "map", "dump", "pinned", pin.to_str().unwrap()]).ok().json();
    dump.as_array().expect("a list of entries").len()
}

#[test]
fn what_is_written_for_other_programs_is_answered_with_how_to_write_it() {
    let (lab, net1) = lab();
    for (written, word) in [
        ("8080:80", "vnet portmap add 8080 TARGET:80"),
        ("127.0.0.1:8080:80", "vnet portmap add 127.0.0.1:8080 TARGET:80"),
        ("53:53/udp", "vnet portmap add 53 TARGET:53 --proto udp"),
    ] {
        lab.vnet(&["portmap", "add", written]).fails_with(2, &[word]);
        lab.vnet(&["portmap", "add", written, net1.name()]).fails_with(2, &[word]);
    }
    let sctp = ["portmap", "add", "3868", &target(&net1, 3869), "--proto", "sctp"];
    lab.vnet(&sctp).fails_with(2, &["3868/sctp", "RFC 9260", "TARGET:3868"]);
    // An address of one family for an endpoint of the other.
    let four = lab.name("four");
    lab.vnet_ok(&["network", "create", &four, "--subnet", "10.44.0.0/24"]);
    let net4 = lab.endpoint_with("net4", &["--network", &four]);
    let words =
        ["2001:db8:113::1 cannot lead to endpoint", net4.name(), "no IPv6 address", "leave the address out"];
    lab.vnet(&["portmap", "add", "[2001:db8:113::1]:8080", &target(&net4, 80)]).fails_with(1, &words);
    assert_eq!(lab.vnet_list(&["portmap", "ls"], "portmaps"), [] as [serde_json::Value; 0]);
}

#[test]
fn restrictions_are_listed_entered_and_removed() {
    let (lab, net1) = lab();
    let add = ["portmap", "add", "8088", &target(&net1, 80)];
    let from = ["--allow-from", "203.0.113.0/24", "--allow-from", "203.0.113.9/32"];
    let done = lab.vnet_ok(&[&add[..], &from].concat());
    assert!(done.stderr.contains("no IPv6 prefix is allowed"), "{done}");
    let listed = lab.vnet_list(&["portmap", "ls"], "portmaps");
    assert_eq!(listed[0]["allow_from"], serde_json::json!(["203.0.113.0/24"]));
    let table = lab.vnet_ok(&["portmap", "ls"]).stdout;
    assert!(table.contains("ALLOW FROM") && table.contains("203.0.113.0/24"), "{table}");
    assert_eq!(entries(&lab, "allow_from"), 1);
    assert!(lab.vnet_ok(&[&add[..], &from].concat()).stdout.contains("already"));
    lab.vnet(&add).fails_with(1, &["allow-from 203.0.113.0/24", "vnet portmap rm 8088"]);
    // Programs of the host may always use it.
    let _server = Server::echo(&net1, "[::]:80");
    for own in ["127.0.0.1:8088", "[::1]:8088", "203.0.113.1:8088"] {
        Ask::tcp(own.parse().unwrap()).in_netns(lab.host());
    }
    // What is brought back is whole, and what is taken away as well.
    let pin = lab.pin_dir().join("allow_from");
    let key =
        format!("key hex {} 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00 00 00 ff ff cb 00 71 00", "98");
    let delete = format!("map delete pinned {} {key}", pin.display());
    lab.host().run(&[&["bpftool"], &delete.split(' ').collect::<Vec<_>>()[..]].concat()).ok();
    assert_eq!(entries(&lab, "allow_from"), 0);
    lab.vnet_ok(&["up"]);
    assert_eq!(entries(&lab, "allow_from"), 1);
    lab.vnet_ok(&["portmap", "rm", "8088"]);
    assert_eq!((entries(&lab, "allow_from"), entries(&lab, "port_map")), (0, 0));
    for (prefix, allowed) in
        [(format!("{OUTSIDE_V4}/24"), "203.0.113.0/24"), (format!("{OUTSIDE_V6}/64"), "::/64")]
    {
        lab.vnet(&[&add[..], &["--allow-from", &prefix]].concat()).fails_with(2, &[allowed]);
    }
}

#[test]
fn all_protocols_have_the_port_of_a_number() {
    let (lab, net1) = lab();
    let net2 = lab.endpoint("net2");
    lab.vnet_ok(&["portmap", "add", "3868", &target(&net1, 3868), "--proto", "sctp"]);
    lab.vnet_ok(&["portmap", "add", "3868", &target(&net2, 80)]);
    let listed = lab.vnet_list(&["portmap", "ls"], "portmaps");
    let protocols: Vec<&str> = listed.iter().filter_map(|mapping| mapping["protocol"].as_str()).collect();
    assert_eq!(protocols, ["tcp", "sctp"]);
    let _server = Server::echo(&net2, "[::]:80");
    for (_, host) in FAMILIES {
        Ask::tcp((host, 3868).into()).in_netns(lab.outside());
    }
    lab.vnet_ok(&["portmap", "rm", "3868"]);
    assert_eq!(entries(&lab, "port_map"), 2, "those of SCTP, one for each family");
    lab.vnet_ok(&["portmap", "move", "3868", &target(&net2, 3868), "--proto", "sctp"]);
    lab.vnet_ok(&["portmap", "rm", "3868", "--proto", "sctp"]);
    assert_eq!(entries(&lab, "port_map"), 0);
}
