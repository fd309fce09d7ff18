//! The scenes, in the order in which they are played: each builds on those before it.

use vnet_tests::lab::{Netns, eventually};

use crate::play::{Play, Scene};

/// Every scene.
pub(crate) const ALL: &[Scene] = &[
    Scene { row: "S1", title: "an endpoint with an address and a gateway", play: endpoint },
    Scene { row: "S2", title: "out through masquerade", play: masquerade },
    Scene { row: "S3", title: "a published port, reached from outside", play: published },
    Scene { row: "S4", title: "published on one address of the host only", play: one_address },
    Scene { row: "S5", title: "the host reaches it by each of its addresses", play: own_addresses },
    Scene { row: "S6", title: "and by 127.0.0.1 and [::1]", play: loopback },
    Scene { row: "S8", title: "endpoints of one network reach each other", play: neighbours },
    Scene { row: "S9", title: "endpoints reach the gateway and services of the host", play: gateway },
    Scene { row: "S16", title: "a router in its own namespace, with one-to-one NAT", play: router },
    Scene { row: "S18", title: "no process stands in between", play: no_process },
    Scene { row: "look", title: "what the kernel holds, and what it does not", play: look },
];

/// What is about to be played.
pub(crate) fn picture(play: &Play<'_>) {
    play.say(&play.bold("vnet in a lab of network namespaces"));
    play.say(
        "
       outside                       host                                net1, net2, net3
    203.0.113.2 ------ eth0 203.0.113.1 | vnet0 192.168.0.1 ------ eth0 192.168.0.2, .3, .4
 2001:db8:113::2       2001:db8:113::1  |       fd..::1                 fd..::2, ::3, ::4

 Everything lives in namespaces of its own; the machine's network is not touched.",
    );
    play.say(&format!(" Names are shown without the prefix of this lab, {}", play.lab.name("")));
}

fn endpoint(play: &Play<'_>) {
    let net1 = create(play, "net1");
    let addresses = play.run(&net1, &["ip", "-brief", "addr", "show", "dev", "eth0"]).stdout;
    play.check(
        "net1 has 192.168.0.2 and a unique local address",
        addresses.contains("192.168.0.2/24") && addresses.contains(" fd"),
    );
    let routes = play.run(&net1, &["ip", "route"]).stdout;
    play.check("its default route leads to the bridge", routes.contains("default via 192.168.0.1"));
    ping_from(play, "net1", "192.168.0.1");
}

fn masquerade(play: &Play<'_>) {
    let outside = play.lab.outside();
    let capture = play.start(outside, &["tcpdump", "-nlqi", "eth0", "--immediate-mode", "ip or ip6"]);
    let _ = capture.line_with(&["listening on"]);
    ping_from(play, "net1", "203.0.113.2");
    ping_from(play, "net1", "2001:db8:113::2");
    serve_http(play, outside, None, 8000, "outside");
    let net1 = play.lab.name("net1");
    for (url, host) in
        [("http://203.0.113.2:8000/", "203.0.113.1"), ("http://[2001:db8:113::2]:8000/", "2001:db8:113::1")]
    {
        let page = play.vnet(&["ns", "exec", &net1, "--", "curl", "-sS", "--max-time", "5", url]).stdout;
        play.check(&format!("the outside sees {host}"), page.contains("outside sees") && page.contains(host));
    }
    play.serve(outside, &["peer", "udp", "53"]);
    wait_for_udp(outside, 53);
    let answer = play.vnet(&["ns", "exec", &net1, "--", "peer", "ask", "203.0.113.2:53"]).stdout;
    play.check("UDP as well", answer.contains("I see 203.0.113.1:"));
    play.say(&format!("  {:>8}$ {}", "outside", play.bold("tcpdump -nqi eth0")));
    let _ = capture.line_with(&["203.0.113.1", "53", "UDP"]);
    let lines = capture.lines();
    let packets: Vec<&str> = lines.iter().map(String::as_str).filter(|line| line.contains(" > ")).collect();
    play.show(packets.iter().take(6).copied());
    let private = |line: &&&str| line.contains("192.168.") || line.contains(" fd");
    play.check(
        &format!("of {} packets on the uplink none shows a private address", packets.len()),
        packets.len() > 10 && !packets.iter().any(|line| private(&line)),
    );
}

fn published(play: &Play<'_>) {
    let net1 = play.lab.name("net1");
    serve_http(play, play.lab.host(), Some(&net1), 80, "net1");
    let added = play.vnet(&["portmap", "add", "8088", &format!("{net1}:80")]);
    play.check("published", added.status == Some(0));
    for (url, client) in
        [("http://203.0.113.1:8088/", "203.0.113.2"), ("http://[2001:db8:113::1]:8088/", "2001:db8:113::2")]
    {
        let page = curl(play, play.lab.outside(), url);
        play.check(
            &format!("the server sees the client's own address, {client}"),
            page.contains("net1 sees") && page.contains(client),
        );
    }
}

fn one_address(play: &Play<'_>) {
    let host = play.lab.host();
    play.run(host, &["ip", "addr", "add", "203.0.113.5/24", "dev", "eth0"]);
    play.vnet(&["portmap", "add", "203.0.113.5:8089", &format!("{}:80", play.lab.name("net1"))]);
    let there = curl(play, play.lab.outside(), "http://203.0.113.5:8089/");
    play.check("203.0.113.5 answers", there.contains("net1 sees 203.0.113.2"));
    let elsewhere =
        play.run(play.lab.outside(), &["curl", "-sS", "--max-time", "2", "http://203.0.113.1:8089/"]);
    play.check("203.0.113.1 does not", elsewhere.status != Some(0));
}

fn own_addresses(play: &Play<'_>) {
    for address in ["203.0.113.1", "203.0.113.5", "192.168.0.1", "[2001:db8:113::1]"] {
        let page = curl(play, play.lab.host(), &format!("http://{address}:8088/"));
        play.check(&format!("{address} answers"), page.contains("net1 sees"));
    }
}

fn loopback(play: &Play<'_>) {
    for address in ["127.0.0.1", "[::1]"] {
        let page = curl(play, play.lab.host(), &format!("http://{address}:8088/"));
        play.check(&format!("{address} answers"), page.contains("net1 sees"));
    }
    let net1 = play.lab.name("net1");
    play.serve(play.lab.host(), &["vnet", "ns", "exec", &net1, "--", "peer", "udp", "53"]);
    wait_for_udp(&Netns::named(&net1), 53);
    play.vnet(&["portmap", "add", "5353", &format!("{net1}:53"), "--proto", "udp"]);
    for target in ["127.0.0.1:5353", "[::1]:5353"] {
        let answer = play.run(play.lab.host(), &["peer", "ask", target]).stdout;
        play.check(
            &format!("UDP, and the answer comes from {target}"),
            answer.starts_with(&format!("{target} answered")),
        );
    }
    let setting = play.run(play.lab.host(), &["sysctl", "net.ipv4.conf.all.route_localnet"]).stdout;
    play.check("without route_localnet", setting.trim().ends_with("= 0"));
}

fn neighbours(play: &Play<'_>) {
    create(play, "net2");
    create(play, "net3");
    for (from, to) in [("net2", "192.168.0.2"), ("net3", "192.168.0.3"), ("net1", "192.168.0.4")] {
        ping_from(play, from, to);
    }
    let net2 = play.lab.name("net2");
    let direct = play
        .vnet(&["ns", "exec", &net2, "--", "curl", "-sS", "--max-time", "5", "http://192.168.0.2/"])
        .stdout;
    play.check("directly, with its own address", direct.contains("net1 sees 192.168.0.3"));
    let page = play
        .vnet(&["ns", "exec", &net2, "--", "curl", "-sS", "--max-time", "5", "http://203.0.113.1:8088/"])
        .stdout;
    play.check(
        "through the published port, with the published address",
        page.contains("net1 sees 203.0.113.1"),
    );
}

fn gateway(play: &Play<'_>) {
    ping_from(play, "net1", "192.168.0.1");
    serve_http(play, play.lab.host(), None, 8080, "host");
    let net1 = play.lab.name("net1");
    for url in ["http://192.168.0.1:8080/", "http://203.0.113.1:8080/"] {
        let page = play.vnet(&["ns", "exec", &net1, "--", "curl", "-sS", "--max-time", "5", url]).stdout;
        play.check(
            "a service of the host answers, and sees the endpoint",
            page.contains("host sees 192.168.0.2"),
        );
    }
}

fn router(play: &Play<'_>) {
    let (lab, host) = (play.lab, play.lab.host());
    let provider = Netns::named(&lab.name("provider"));
    provider.create();
    host.ip("link add br-out type bridge");
    host.ip("link set br-out up");
    host.ip(&format!("link add port0 type veth peer name eth0 netns {}", provider.name()));
    host.ip("link set port0 master br-out up");
    provider.ip("addr add 16.158.1.1/24 dev eth0");
    provider.ip("link set eth0 up");
    play.say("  somebody's bridge br-out leads to a provider's gateway, 16.158.1.1");
    let [r1, web] = ["r1", "web"].map(|name| lab.name(name));
    let outside = ["--outside", "br-out", "--address", "16.158.1.100/24", "--gateway", "16.158.1.1"];
    let create = [&["router", "create", &r1][..], &outside, &["--subnet", "192.168.1.0/24"]].concat();
    play.check("one command", play.vnet(&create).status == Some(0));
    let of_router = |args: &[&str]| play.vnet(&[&["--instance", &r1], args].concat());
    of_router(&["ns", "create", &web, "--ip", "192.168.1.3"]);
    serve_http(play, &Netns::named(&web), None, 80, "web");
    serve_http(play, &provider, None, 80, "provider");
    let url = "http://16.158.1.1/";
    let exec = ["ns", "exec", &web, "--", "curl", "-sS", "--max-time", "5", url];
    play.check("by masquerade", of_router(&exec).stdout.contains("provider sees 16.158.1.100"));
    of_router(&["floating", "add", "16.158.1.103", "192.168.1.3"]);
    play.check("one to one", of_router(&exec).stdout.contains("provider sees 16.158.1.103"));
    let page = curl(play, &provider, "http://16.158.1.103/");
    play.check("both ways", page.contains("web sees 16.158.1.1"));
    play.vnet(&["router", "ls"]);
    play.check("and gone", play.vnet(&["router", "rm", &r1]).status == Some(0));
    host.ip("link del br-out");
    provider.delete();
}

fn no_process(play: &Play<'_>) {
    let listening = play.run(play.lab.host(), &["ss", "-Hltnp"]).stdout;
    let foreign = listening.lines().filter(|line| !line.contains(":8080")).count();
    play.check("nothing listens on the host but the service of the scene before", foreign == 0);
    let of_vnet = play.run(play.lab.host(), &["ps", "-C", "vnet", "-o", "pid=,args="]).stdout;
    let ours = of_vnet.lines().filter(|line| line.contains(play.lab.instance())).count();
    play.check("no process of vnet is alive for this host", ours == 0);
    let page = curl(play, play.lab.outside(), "http://203.0.113.1:8088/");
    play.check("and everything works", page.contains("net1 sees 203.0.113.2"));
    let forwarding = play.run(play.lab.host(), &["sysctl", "net.ipv4.ip_forward"]).stdout;
    play.check("global forwarding is as it was", forwarding.trim().ends_with("= 0"));
}

fn look(play: &Play<'_>) {
    let host = play.lab.host();
    for argv in [&["iptables-save"][..], &["nft", "list", "ruleset"]] {
        let rules = play.run(host, argv);
        let any = rules.stdout.lines().any(|line| !line.starts_with('#') && !line.trim().is_empty());
        play.check(&format!("{} is empty", argv[0]), rules.status == Some(0) && !any);
    }
    let flows = play.vnet(&["flow", "ls"]).stdout;
    play.check(
        "the flow table has both sides of each translation",
        flows.contains("192.168.0.2") && flows.contains("203.0.113.1"),
    );
    let listed = play.vnet(&["portmap", "ls"]);
    play.check("the published ports are listed", listed.stdout.contains("8088"));
    let pin = play.lab.pin_dir().join("port_map");
    let map = play.quietly(host, &["bpftool", "map", "dump", "pinned", pin.to_str().expect("ASCII")]).stdout;
    play.show(elements(&map).iter().take(3).map(String::as_str));
    play.check(
        "bpftool reads the map by field name",
        ["prefix_len", "proto", "addr", "port"].iter().all(|field| map.contains(field)),
    );
    play.lab.outside().ip("route replace 192.168.0.0/24 via 203.0.113.1");
    let direct = play.run(play.lab.outside(), &["curl", "-sS", "--max-time", "1", "http://192.168.0.2/"]);
    play.check("who goes past the published port is not let in", direct.status != Some(0));
    let drops = play.vnet(&["drops"]).stdout;
    play.check("and is told of", drops.contains("direct-access"));
}

/// The elements of a map as bpftool prints them, each on one line.
fn elements(dump: &str) -> Vec<String> {
    let map: Vec<serde_json::Value> = serde_json::from_str(dump).unwrap_or_default();
    map.iter().map(ToString::to_string).collect()
}

/// The last one, played when the others are over.
pub(crate) const CURTAIN: Scene = Scene { row: "down", title: "nothing is left", play: curtain };

fn curtain(play: &Play<'_>) {
    play.stop_servers();
    play.lab.host().ip("addr del 203.0.113.5/24 dev eth0");
    let down = play.vnet(&["down"]);
    play.check("taken down", down.status == Some(0));
    play.lab.snapshot().assert_same_as(&play.before);
    play.check("interfaces, routes, settings, namespaces, pins and state are as they were", true);
}

fn create(play: &Play<'_>, short: &str) -> Netns {
    if short == "net1" {
        let up = play.vnet(&["up"]);
        play.check("the instance is up", up.status == Some(0));
    }
    let name = play.lab.name(short);
    let created = play.vnet(&["ns", "create", &name]);
    play.check(&format!("{short} is there"), created.status == Some(0));
    Netns::named(&name)
}

fn ping_from(play: &Play<'_>, from: &str, to: &str) {
    let name = play.lab.name(from);
    let pinged =
        play.quietly(play.lab.host(), &["vnet", "ns", "exec", &name, "--", "ping", "-c1", "-W2", to]);
    play.show(pinged.stdout.lines().filter(|line| line.contains("time=")));
    play.check(&format!("{to} answers"), pinged.status == Some(0));
}

fn curl(play: &Play<'_>, from: &Netns, url: &str) -> String {
    play.run(from, &["curl", "-sS", "--max-time", "5", url]).stdout
}

/// Starts an HTTP server and waits until it listens: in a namespace, or in an endpoint by `vnet ns exec`.
fn serve_http(play: &Play<'_>, place: &Netns, endpoint: Option<&str>, port: u16, name: &str) {
    let port_text = port.to_string();
    let server = ["peer", "http", &port_text, name];
    match endpoint {
        None => play.serve(place, &server),
        Some(endpoint) => play.serve(place, &[&["vnet", "ns", "exec", endpoint, "--"], &server[..]].concat()),
    }
    let netns = endpoint.map_or_else(|| place.clone(), Netns::named);
    wait_for(&netns, "-Hltn", port);
}

fn wait_for_udp(netns: &Netns, port: u16) {
    wait_for(netns, "-Hlun", port);
}

fn wait_for(netns: &Netns, kind: &str, port: u16) {
    let listens = || netns.run(&["ss", kind]).ok().stdout.contains(&format!(":{port} ")).then_some(());
    eventually(listens, || format!("a server on port {port} of {}", netns.name()));
}
