//! What the host does beside vnet: its addresses change, its firewall decides, its neighbours try things.

use std::net::{IpAddr, SocketAddr};

use vnet_tests::frame::{BROADCAST_MAC, Frame};
use vnet_tests::lab::{FAMILIES, Lab, Netns, UPLINK, eventually};
use vnet_tests::peer::{Ask, Capture, Ping, Server, inject, interface_mac};

#[test]
fn flows_leave_an_address_that_the_host_has_lost_without_any_command() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    for ((outside, host), (other, bits)) in
        FAMILIES.into_iter().zip([("203.0.113.9", 24), ("2001:db8:113::9", 64)])
    {
        let other: IpAddr = other.parse().expect("an address");
        let server = SocketAddr::new(outside, 7);
        let _server = Server::udp(lab.outside(), &server.to_string());
        // One socket that never falls silent.
        let ask = Ask::udp(server).from(SocketAddr::new(net1.addr_like(outside), 50_002));
        assert_eq!(ask.in_netns(&net1).seen.ip(), host);
        // IPv4 would lose the second address with the first, were it there already.
        lab.host().ip(&format!("addr del {host}/{bits} dev {UPLINK}"));
        lab.host().ip(&format!("addr add {other}/{bits} dev {UPLINK} nodad"));
        lab.host().ip(&format!("route replace default via {outside}"));
        let mut last = None;
        eventually(
            || {
                last = Some(ask.try_in(&net1).map(|answer| answer.seen));
                last.as_ref()?.as_ref().ok().filter(|seen| seen.ip() == other).copied()
            },
            || format!("datagrams from {other}"),
        );
    }
}

#[test]
fn a_port_is_published_on_an_address_that_the_host_has_got_without_any_command() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _servers = [Server::echo(&net1, "[::]:80"), Server::udp(&net1, "[::]:80")];
    for proto in ["tcp", "udp"] {
        lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name()), "--proto", proto]);
    }
    for (outside, text) in [("203.0.113.2", "203.0.113.9/24"), ("2001:db8:113::2", "2001:db8:113::9/64")] {
        let outside: IpAddr = outside.parse().expect("an address");
        lab.host().ip(&format!("addr add {text} dev {UPLINK} nodad"));
        let got: IpAddr = text.split('/').next().and_then(|addr| addr.parse().ok()).expect("an address");
        for ask in [Ask::tcp(SocketAddr::new(got, 8088)), Ask::udp(SocketAddr::new(got, 8088))] {
            let answer = ask.in_netns(lab.outside());
            assert_eq!(answer.seen.ip(), outside, "as its client is seen");
        }
    }
    // To everybody is not to the host, whatever frame it comes in.
    let (theirs, ours) = (interface_mac(lab.outside(), UPLINK), interface_mac(lab.host(), UPLINK));
    let mut capture = Capture::start(&net1, "eth0");
    let [from, everybody, last] = [("203.0.113.2", 5000), ("203.0.113.255", 8088), ("203.0.113.9", 8088)]
        .map(|(addr, port)| SocketAddr::new(addr.parse().expect("an address"), port));
    for (to, mac, text) in [(everybody, BROADCAST_MAC, "to everybody"), (last, ours, "to the host")] {
        let datagram = Frame::udp(from, to).payload(text.as_bytes());
        inject(lab.outside(), UPLINK, &datagram.macs(theirs, mac).build());
    }
    let says = |frame: &[u8], text: &str| frame.windows(text.len()).any(|part| part == text.as_bytes());
    capture.until("what is for the host", |frame| says(frame, "to the host"));
    assert!(!capture.frames().iter().any(|frame| says(frame, "to everybody")), "a broadcast came in");
}

#[test]
fn a_port_is_published_no_longer_on_an_address_that_the_host_has_lost() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _server = Server::echo(&net1, "[::]:80");
    let moved: IpAddr = "203.0.113.5".parse().expect("an address");
    lab.host().ip(&format!("addr add {moved}/24 dev {UPLINK}"));
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    Ask::tcp(SocketAddr::new(moved, 8088)).in_netns(lab.outside());
    // It goes to somebody behind the host, which is its router from now on: no command of vnet is run.
    lab.host().ip(&format!("addr del {moved}/24 dev {UPLINK}"));
    let behind = Netns::named(&lab.name("behind"));
    behind.create();
    lab.host().ip(&format!("link add lan0 type veth peer name eth0 netns {}", behind.name()));
    lab.host().ip("link set lan0 up");
    lab.host().ip("addr add 198.18.0.1/24 dev lan0");
    lab.host().ip(&format!("route add {moved}/32 dev lan0"));
    lab.host().write("/proc/sys/net/ipv4/ip_forward", "1");
    behind.ip(&format!("addr add {moved}/32 dev eth0"));
    behind.ip("link set eth0 up");
    behind.ip("route add 198.18.0.1/32 dev eth0");
    behind.ip("route add default via 198.18.0.1");
    lab.outside().ip(&format!("route add {moved}/32 via 203.0.113.1"));
    let theirs = Server::echo(&behind, "0.0.0.0:8088");
    let answer = Ask::tcp(SocketAddr::new(moved, 8088)).in_netns(lab.outside());
    assert_eq!(theirs.seen(), [answer.local], "its new owner was reached");
    behind.delete();
}

/// A rule set in a namespace.
fn nft(netns: &Netns, rules: &str) {
    let path = std::env::temp_dir().join(format!("vnet-{}.nft", netns.name()));
    std::fs::write(&path, rules).expect("write a rule set");
    let output = netns.run(&["nft", "-f", path.to_str().expect("a path")]);
    std::fs::remove_file(&path).expect("remove it");
    output.ok();
}

#[test]
fn the_hosts_forward_rules_decide_on_new_connections_where_the_firewall_is_respected() {
    let lab = Lab::up();
    lab.vnet_ok(&["up", "--firewall", "respect"]);
    let net1 = lab.endpoint("net1");
    let _servers =
        [Server::echo(&net1, "[::]:80"), Server::echo(&net1, "[::]:81"), Server::udp(&net1, "[::]:53")];
    for (published, target) in [("8088", "80"), ("8089", "81")] {
        lab.vnet_ok(&["portmap", "add", published, &format!("{}:{target}", net1.name())]);
    }
    lab.vnet_ok(&["portmap", "add", "5353", &format!("{}:53", net1.name()), "--proto", "udp"]);
    let ask = |port: u16, host: IpAddr| Ask::tcp(SocketAddr::new(host, port));
    for (_, host) in FAMILIES {
        ask(8089, host).in_netns(lab.outside());
    }
    nft(
        lab.host(),
        "table inet own {
            chain forward {
                type filter hook forward priority 0; policy drop;
                tcp dport 80 accept
                udp dport 53 accept
                meta l4proto { icmp, ipv6-icmp } accept
            }
        }",
    );
    for (_, host) in FAMILIES {
        let answer = ask(8088, host).in_netns(lab.outside());
        assert_eq!(answer.seen.ip(), answer.local.ip(), "the client's own address is seen");
        Ask::udp(SocketAddr::new(host, 5353)).in_netns(lab.outside());
        ask(8089, host).fails_in(lab.outside());
        // Endpoints go out as before: their packets do not cross the host's stack.
        Ping::to(host).in_netns(&net1);
    }
    nft(lab.host(), "flush ruleset");
    for (_, host) in FAMILIES {
        ask(8089, host).in_netns(lab.outside());
    }
    // The fast path again.
    lab.vnet_ok(&["up", "--firewall", "bypass"]);
    nft(
        lab.host(),
        "table inet own { chain forward { type filter hook forward priority 0; policy drop; }; }",
    );
    for (_, host) in FAMILIES {
        ask(8089, host).in_netns(lab.outside());
    }
}

#[test]
fn an_endpoint_is_no_dhcp_server() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let mut heard = Capture::start(&net2, "eth0");
    let (from, to) = (interface_mac(&net1, "eth0"), interface_mac(&net2, "eth0"));
    let datagram = |to_addr: IpAddr, port: u16| {
        let sockets = (SocketAddr::new(net1.v4(), 67), SocketAddr::new(to_addr, port));
        Frame::udp(sockets.0, sockets.1).payload(b"take this").macs(from, to).build()
    };
    for to in [net2.v4(), "255.255.255.255".parse().expect("an address")] {
        inject(&net1, "eth0", &datagram(to, 68));
    }
    // What is allowed arrives after it.
    let marker = datagram(net2.v4(), 6_868);
    inject(&net1, "eth0", &marker);
    heard.until("the datagram that is allowed", |frame| frame == marker.as_slice());
    let offers = heard.frames().iter().filter(|frame| frame.get(36..38) == Some(&68_u16.to_be_bytes()[..]));
    assert_eq!(offers.count(), 0);
    assert_eq!(lab.dropped("dhcp-server"), 2);
}
