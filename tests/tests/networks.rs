//! Endpoints on several networks: every address answers where it was asked, by the network that it is on, and nothing
//! passes from one network to the other.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};
use vnet_tests::lab::{Endpoint, FAMILIES, Lab};
use vnet_tests::peer::{Ask, Ping, Server};

/// Prefixes of a second network.
const BLUE: [&str; 2] = ["10.1.0.0/24", "fd00:1::/64"];

fn lab_with_blue() -> Lab {
    let lab = Lab::up();
    lab.vnet_ok(&["network", "create", "blue", "--subnet", BLUE[0], "--subnet", BLUE[1]]);
    lab
}

/// An endpoint on the default network and on blue.
fn on_both(lab: &Lab) -> Endpoint {
    let web = lab.endpoint("web");
    lab.vnet_ok(&["network", "connect", "blue", web.name()]);
    Endpoint::observe(web.name())
}

/// The endpoint's addresses on an interface, IPv4 first.
fn addresses_on(endpoint: &Endpoint, ifname: &str) -> Vec<IpAddr> {
    let links = endpoint.ip(&format!("-j addr show dev {ifname}")).json();
    let infos = links[0]["addr_info"].as_array().expect("addresses").clone();
    let global = infos.iter().filter(|info| info["scope"] == "global");
    let mut found: Vec<IpAddr> =
        global.map(|info| info["local"].as_str().expect("an address").parse().expect("an address")).collect();
    found.sort();
    found
}

/// Interfaces of the default routes, IPv4 first.
fn default_interfaces(endpoint: &Endpoint) -> Vec<String> {
    let routes = ["-4", "-6"].map(|family| endpoint.ip(&format!("{family} -j route show default")).json());
    let routes = routes.iter().flat_map(|routes| routes.as_array().expect("a list"));
    routes.map(|route| route["dev"].as_str().expect("an interface").to_owned()).collect()
}

/// The rules that a namespace has beside the kernel's own.
fn rules(endpoint: &Endpoint) -> Vec<String> {
    let all = ["-4", "-6"].map(|family| endpoint.ip(&format!("{family} rule")).stdout);
    let lines = all.iter().flat_map(|text| text.lines());
    lines.filter(|line| line.starts_with("20000:")).map(str::to_owned).collect()
}

fn listed(lab: &Lab, name: &str) -> Value {
    lab.vnet_list(&["ns", "inspect", name], "endpoints")[0].clone()
}

#[test]
fn ports_published_for_either_address_answer_and_what_leaves_is_not_forged() {
    let lab = lab_with_blue();
    let web = on_both(&lab);
    let _outside = [Server::echo(lab.outside(), "[::]:7"), Server::udp(lab.outside(), "[::]:7")];
    assert_eq!(default_interfaces(&web), ["eth0", "eth0"]);
    let (own, blue) = (addresses_on(&web, "eth0"), addresses_on(&web, "eth1"));
    let _server = Server::echo(&web, "[::]:80");
    // A UDP socket of every address answers from the address that the default route gives it.
    let bound = own.iter().chain(&blue).map(|addr| SocketAddr::new(*addr, 80).to_string());
    let _servers: Vec<Server> = bound.map(|addr| Server::udp(&web, &addr)).collect();
    for (published, target) in [("8001", own[0]), ("8002", blue[0])] {
        for proto in ["tcp", "udp"] {
            lab.vnet_ok(&["portmap", "add", published, &format!("{target}:80"), "--proto", proto]);
        }
    }
    for (nth, (outside, host)) in FAMILIES.into_iter().enumerate() {
        for port in [8001, 8002] {
            for ask in [Ask::tcp((host, port).into()), Ask::udp((host, port).into())] {
                let answer = ask.in_netns(lab.outside());
                assert_eq!(answer.seen.ip(), outside, "the server sees the client's own address");
            }
            Ask::tcp((host, port).into()).in_netns(lab.host());
        }
        // What is sent from either address goes out under the host's.
        for from in [own[nth], blue[nth]] {
            for ask in [Ask::tcp((outside, 7).into()), Ask::udp((outside, 7).into())] {
                assert_eq!(ask.from((from, 0).into()).in_netns(&web).seen.ip(), host, "from {from}");
            }
        }
        Ping::to(outside).in_netns(&web);
    }
    for reason in ["source-address", "source-mac", "neighbour-spoof"] {
        assert_eq!(lab.dropped(reason), 0, "{reason}");
    }
}

#[test]
fn neighbours_on_both_networks_are_reached_and_the_networks_stay_apart() {
    let lab = lab_with_blue();
    let web = on_both(&lab);
    let left = lab.endpoint("left");
    let right = lab.endpoint_with("right", &["--network", "blue"]);
    let _servers = [&web, &left, &right].map(|endpoint| Server::echo(endpoint, "[::]:80"));
    // Even if it wanted to route.
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        web.write(&format!("/proc/sys/net/{setting}"), "1");
    }
    for (nth, (outside, _)) in FAMILIES.into_iter().enumerate() {
        let on = |ifname: &str| addresses_on(&web, ifname)[nth];
        for (from, to) in [
            (&left, on("eth0")),
            (&right, on("eth1")),
            (&web, left.addr_like(outside)),
            (&web, right.addr_like(outside)),
        ] {
            Ask::tcp((to, 80).into()).in_netns(from);
            Ping::to(to).in_netns(from);
        }
        // By the network's router, and by the endpoint as one.
        Ask::tcp((right.addr_like(outside), 80).into()).fails_in(&left);
        Ask::tcp((on("eth1"), 80).into()).fails_in(&left);
        left.ip(&format!("route add {} via {}", right.addr_like(outside), on("eth0")));
        Ask::tcp((right.addr_like(outside), 80).into()).fails_in(&left);
        right.ip(&format!("route add {} via {}", left.addr_like(outside), on("eth1")));
        Ask::tcp((right.addr_like(outside), 80).into()).fails_in(&left);
    }
}

#[test]
fn a_connection_is_made_again_repaired_and_undone() {
    let lab = lab_with_blue();
    let web = lab.endpoint("web");
    let name = web.name();
    let alone = lab.snapshot();
    let planned = lab.vnet_ok(&["network", "connect", "blue", name, "--dry-run"]).stdout;
    assert!(planned.contains("eth1") && planned.contains("10.1.0.2/24"), "{planned}");
    lab.snapshot().assert_same_as(&alone);
    let said = lab.vnet_ok(&["network", "connect", "blue", name]).stdout;
    assert!(said.contains("192.168.0.2") && said.contains("10.1.0.2"), "{said}");
    let again = lab.vnet_ok(&["network", "connect", "blue", name]).stdout;
    assert!(again.ends_with("(already)\n"), "{again}");
    assert!(lab.vnet_ok(&["ns", "create", name]).stdout.ends_with("(already)\n"));

    let endpoint = listed(&lab, name);
    assert_eq!(endpoint["network"], "default");
    let links = endpoint["links"].as_array().unwrap();
    let shown: Vec<Value> =
        links.iter().map(|link| json!([link["network"], link["ifname"], link["default_routes"]])).collect();
    assert_eq!(shown, [json!(["default", "eth0", ["IPv4", "IPv6"]]), json!(["blue", "eth1", []])]);
    let inspected = lab.vnet_ok(&["ns", "inspect", name]).stdout;
    assert!(inspected.contains("link          eth1 to blue: 10.1.0.2 "), "{inspected}");
    assert_eq!(lab.vnet_list(&["network", "inspect", "blue"], "networks")[0]["endpoints"], 1);

    // Whoever takes something away inside of it, `up` brings it back.
    let rules_before = rules(&web);
    assert_eq!(rules_before.len(), 2, "{rules_before:?}");
    let table = rules_before[0].split_whitespace().skip_while(|word| *word != "lookup").nth(1);
    let table = table.expect("a table").to_owned();
    web.ip("rule del pref 20000");
    web.ip("-6 rule del pref 20000");
    web.ip(&format!("route flush table {table}"));
    lab.vnet_ok(&["up"]);
    assert_eq!(rules(&web), rules_before);
    let routes = web.ip(&format!("route show table {table}")).stdout;
    assert!(routes.contains("default via 10.1.0.1 dev eth1") && routes.contains("10.1.0.0/24"), "{routes}");
    assert!(lab.vnet_ok(&["up", "--dry-run"]).stdout.contains("nothing to do"));

    let said = lab.vnet_ok(&["network", "disconnect", "blue", name]).stdout;
    assert_eq!(said, format!("endpoint {name} is off network blue\n"));
    lab.snapshot().assert_same_as(&alone);
    assert_eq!(rules(&web), Vec::<String>::new());
    let again = lab.vnet_ok(&["network", "disconnect", "blue", name]).stdout;
    assert!(again.contains("nothing to remove"), "{again}");
}

#[test]
fn the_default_routes_move_while_connections_go_on() {
    let lab = lab_with_blue();
    let web = lab.endpoint("web");
    let name = web.name();
    let _server = Server::echo(&web, "[::]:80");
    let _outside = Server::echo(lab.outside(), "[::]:7");
    lab.vnet_ok(&["portmap", "add", "8001", &format!("{name}:80")]);
    lab.vnet_ok(&["network", "connect", "blue", name, "--default-route"]);
    assert_eq!(default_interfaces(&web), ["eth1", "eth1"]);
    // The older mapping names the older address, the next one the newer.
    lab.vnet_ok(&["portmap", "add", "8002", &format!("{name}:80")]);
    let targets = lab.vnet_list(&["portmap", "ls"], "portmaps");
    let first = |nth: usize| targets[nth]["targets"][0].as_str().unwrap().to_owned();
    assert_eq!((first(0), first(1)), ("192.168.0.2".to_owned(), "10.1.0.2".to_owned()));
    for (outside, host) in FAMILIES {
        for port in [8001, 8002] {
            Ask::tcp((host, port).into()).in_netns(lab.outside());
        }
        assert_eq!(Ask::tcp((outside, 7).into()).in_netns(&web).seen.ip(), host);
    }
    let said = lab.vnet_ok(&["network", "disconnect", "blue", name]);
    assert!(said.stdout.contains("and with it its published 8002/tcp"), "{said}");
    assert!(
        said.stderr.contains("the IPv4 default route of endpoint") && said.stderr.contains("network default")
    );
    assert_eq!(default_interfaces(&web), ["eth0", "eth0"]);
    for (outside, host) in FAMILIES {
        Ask::tcp((host, 8001).into()).in_netns(lab.outside());
        Ask::tcp((host, 8002).into()).fails_in(lab.outside());
        assert_eq!(Ask::tcp((outside, 7).into()).in_netns(&web).seen.ip(), host);
    }
    // The first link goes as well.
    lab.vnet_ok(&["network", "connect", "blue", name]);
    lab.vnet_ok(&["network", "disconnect", "default", name]);
    assert_eq!(default_interfaces(&web), ["eth1", "eth1"]);
    for (outside, host) in FAMILIES {
        assert_eq!(Ask::tcp((outside, 7).into()).in_netns(&web).seen.ip(), host);
    }
}

#[test]
fn a_disconnected_address_has_no_flows_left() {
    let lab = lab_with_blue();
    let web = on_both(&lab);
    let _server = Server::echo(&web, "[::]:80");
    let blue = addresses_on(&web, "eth1");
    lab.vnet_ok(&["portmap", "add", "8002", &format!("{}:80", blue[0])]);
    Ask::tcp((FAMILIES[0].1, 8002).into()).in_netns(lab.outside());
    let flows = |lab: &Lab| -> usize {
        let flows = lab.vnet_list(&["flow", "ls"], "flows");
        flows.iter().filter(|flow| flow.to_string().contains(&blue[0].to_string())).count()
    };
    assert_ne!(flows(&lab), 0);
    lab.vnet_ok(&["network", "disconnect", "blue", web.name()]);
    assert_eq!(flows(&lab), 0);
}

#[test]
fn limits_hold_on_every_link() {
    let lab = lab_with_blue();
    let web = lab.endpoint("web");
    lab.vnet_ok(&["limit", "set", web.name(), "--egress", "50mbit", "--ingress", "1gbit"]);
    lab.vnet_ok(&["network", "connect", "blue", web.name()]);
    let queue = |ifname: &str| web.run(&["tc", "qdisc", "show", "dev", ifname]).stdout;
    for ifname in ["eth0", "eth1"] {
        assert!(queue(ifname).contains("tbf") && queue(ifname).contains("50Mbit"), "{}", queue(ifname));
    }
    for link in listed(&lab, web.name())["links"].as_array().unwrap() {
        let outer = lab.host().run(&["tc", "qdisc", "show", "dev", link["interface"].as_str().unwrap()]);
        assert!(outer.stdout.contains("tbf") && outer.stdout.contains("1Gbit"), "{outer}");
    }
    lab.vnet_ok(&["limit", "rm", web.name()]);
    for ifname in ["eth0", "eth1"] {
        assert!(!queue(ifname).contains("tbf"), "{}", queue(ifname));
    }
}

#[test]
fn an_attached_namespace_is_left_as_it_was() {
    let lab = lab_with_blue();
    let name = lab.name("theirs");
    let theirs = vnet_tests::lab::Netns::named(&name);
    theirs.create();
    theirs.ip("link set lo up");
    let state = || {
        let shown = ["addr", "rule", "-6 rule", "route show table all", "-6 route show table all"];
        shown.map(|args| theirs.ip(args).stdout)
    };
    let before = state();
    let short = lab.name("web");
    lab.vnet_ok(&["ns", "attach", &short, "--netns", &format!("/run/netns/{name}")]);
    lab.vnet_ok(&["network", "connect", "blue", &short, "--route", "10.9.0.0/16"]);
    assert_ne!(state(), before);
    assert!(theirs.ip("route get 10.9.0.1").stdout.contains("via 10.1.0.1 dev eth1"));
    lab.vnet_ok(&["ns", "rm", &short]);
    assert_eq!(state(), before);
    theirs.delete();
}

#[test]
fn routes_are_there_brought_back_and_go_with_their_link() {
    let lab = lab_with_blue();
    let web = lab.endpoint_with("web", &["--route", "10.8.0.0/16"]);
    let options = ["--route", "10.9.0.0/16", "--route", "fd09::/64=fd00:1::9"];
    let said = lab.vnet_ok(&[&["network", "connect", "blue", web.name()], &options[..]].concat());
    assert!(
        said.stderr.contains("fd09::/64=fd00:1::9") && said.stderr.contains("routed by the host"),
        "{said}"
    );
    let leads = |to: &str| web.ip(&format!("route get {to}")).stdout;
    assert!(leads("10.8.0.1").contains("via 192.168.0.1 dev eth0"), "{}", leads("10.8.0.1"));
    assert!(leads("10.9.0.1").contains("via 10.1.0.1 dev eth1"), "{}", leads("10.9.0.1"));
    assert!(leads("10.9.0.1").contains("src 10.1.0.2"), "{}", leads("10.9.0.1"));
    assert!(leads("10.9.0.1 from 10.1.0.2").contains("dev eth1"));
    assert!(leads("fd09::1").contains("via fd00:1::9 dev eth1"), "{}", leads("fd09::1"));
    web.ip("route del 10.9.0.0/16");
    web.ip("route del 10.8.0.0/16");
    lab.vnet_ok(&["up"]);
    assert!(leads("10.8.0.1").contains("via 192.168.0.1 dev eth0"));
    assert!(leads("10.9.0.1").contains("via 10.1.0.1 dev eth1"));
    // The default routes move without the routes being given again, and these stay.
    lab.vnet_ok(&["network", "connect", "blue", web.name(), "--default-route"]);
    assert_eq!(default_interfaces(&web), ["eth1", "eth1"]);
    assert!(leads("10.9.0.1").contains("via 10.1.0.1 dev eth1"), "{}", leads("10.9.0.1"));
    let other = ["network", "connect", "blue", web.name(), "--default-route", "--route", "10.10.0.0/16"];
    lab.vnet(&other).fails_with(1, &["10.9.0.0/16"]);
    lab.vnet_ok(&["network", "connect", "default", web.name(), "--default-route"]);
    assert_eq!(default_interfaces(&web), ["eth0", "eth0"]);
    assert!(leads("10.8.0.1").contains("via 192.168.0.1 dev eth0"), "{}", leads("10.8.0.1"));
    let shown = lab.vnet_ok(&["ns", "inspect", web.name()]).stdout;
    assert!(shown.contains("routes 10.9.0.0/16 fd09::/64=fd00:1::9"), "{shown}");
    lab.vnet_ok(&["network", "disconnect", "blue", web.name()]);
    assert!(leads("10.9.0.1").contains("via 192.168.0.1 dev eth0"), "by the default route again");
    let bad = ["network", "connect", "blue", web.name(), "--route", "10.9.0.0/16=10.2.0.1"];
    lab.vnet(&bad).fails_with(1, &["10.9.0.0/16=10.2.0.1", "another address of 10.1.0.0/24"]);
    let bad = ["network", "connect", "blue", web.name(), "--route", "0.0.0.0/0"];
    lab.vnet(&bad).fails_with(2, &["--default-route"]);
}

#[test]
fn what_is_on_several_networks_goes_through_a_file_and_back() {
    let lab = lab_with_blue();
    let web = on_both(&lab);
    let blue: SocketAddr = (addresses_on(&web, "eth1")[0], 80).into();
    lab.vnet_ok(&["portmap", "add", "8002", &blue.to_string()]);
    let text = lab.vnet_ok(&["export"]).stdout;
    assert!(text.contains("links]]") && text.contains(&format!("target = \"{blue}\"")), "{text}");
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("vnet.toml");
    let apply = |text: &str, options: &[&str]| {
        std::fs::write(&path, text).unwrap();
        lab.vnet_ok(&[&["apply", "-f", path.to_str().unwrap()], options].concat()).stdout
    };
    assert_eq!(apply(&text, &["--prune"]), "nothing to change: everything is as described\n");
    // Without the second link, which goes only if what is not described is to go.
    let (before, after) = text.split_once("[[endpoints").unwrap();
    let rest = after.split_once("[[portmaps]]").map_or("", |(_, rest)| rest);
    assert!(rest.contains("8002"));
    apply(before, &[]);
    assert_eq!(listed(&lab, web.name())["links"].as_array().unwrap().len(), 2);
    apply(before, &["--prune"]);
    assert_eq!(listed(&lab, web.name())["links"].as_array().unwrap().len(), 1);
    assert_eq!(rules(&web), Vec::<String>::new());
    apply(&text, &[]);
    assert_eq!(lab.vnet_ok(&["export"]).stdout, text);
    let _server = Server::echo(&web, "[::]:80");
    Ask::tcp((FAMILIES[0].1, 8002).into()).in_netns(lab.outside());
    lab.vnet_ok(&["down"]);
    apply(&text, &[]);
    assert_eq!(lab.vnet_ok(&["export"]).stdout, text);
}

#[test]
fn endpoints_live_in_the_namespaces_of_others_and_of_the_host() {
    let lab = Lab::up();
    let web = lab.endpoint("web");
    let (side, tool) = (lab.name("side"), lab.name("tool"));
    let before = lab.snapshot();
    let mode = format!("container:{}", web.name());
    // There is nothing of them but the record, and yet something would happen.
    for (name, mode) in [(&side, mode.as_str()), (&tool, "host")] {
        let create = ["ns", "create", name, "--mode", mode, "--dry-run"];
        let planned = lab.vnet_ok(&create).stdout;
        assert!(planned.starts_with(&format!("record endpoint {name}: in the ")), "{planned}");
        assert_eq!(lab.vnet_json(&create)["ops"].as_array().map(Vec::len), Some(1));
    }
    let said = lab.vnet_ok(&["ns", "create", &side, "--mode", &mode]).stdout;
    assert_eq!(said, format!("endpoint {side}: in the namespace of {mode}\n"));
    let planned = lab.vnet_ok(&["ns", "create", &side, "--mode", &mode, "--dry-run"]).stdout;
    assert_eq!(planned, "nothing to do\n");
    lab.vnet_ok(&["ns", "create", &tool, "--mode", "host"]);
    lab.snapshot().assert_same_as(&before);

    // What runs there has the addresses of the one, or those of the host.
    let addresses = |name: &str| lab.vnet_ok(&["ns", "exec", name, "--", "ip", "-o", "addr"]).stdout;
    assert!(addresses(&side).contains(&web.v4().to_string()), "{}", addresses(&side));
    assert!(addresses(&tool).contains(&FAMILIES[0].1.to_string()), "{}", addresses(&tool));
    let elsewhere = lab.vnet_from(lab.outside(), &["ns", "exec", &tool, "--", "true"]);
    elsewhere.fails_with(1, &["lives in another network namespace"]);

    let _server = Server::echo(&web, "[::]:80");
    lab.vnet_ok(&["portmap", "add", "8001", &format!("{side}:80")]);
    for (_, host) in FAMILIES {
        Ask::tcp((host, 8001).into()).in_netns(lab.outside());
    }
    assert_eq!(lab.vnet_list(&["portmap", "ls"], "portmaps")[0]["endpoint"], web.name());
    assert_eq!(listed(&lab, &side)["mode"], mode);
    assert_eq!(listed(&lab, &tool)["mode"], "host");
    lab.vnet(&["portmap", "add", "8002", &format!("{tool}:80")]).fails_with(1, &["the host's namespace"]);
    lab.vnet(&["ns", "rm", web.name()]).fails_with(1, &[&side, "vnet ns rm"]);
    for options in
        [&["--mode", "host", "--ip", "192.168.0.9"][..], &["--mode", "macvlan"], &["--mode", "container:"]]
    {
        lab.vnet(&[&["ns", "create", "x"], options].concat()).fails_with(2, &[]);
    }
    lab.vnet_ok(&["portmap", "rm", "8001"]);
    let planned = lab.vnet_ok(&["ns", "rm", &side, "--dry-run"]).stdout;
    assert!(planned.starts_with(&format!("forget endpoint {side}")), "{planned}");
    lab.vnet_ok(&["ns", "rm", &side]);
    lab.vnet_ok(&["ns", "rm", &tool]);
    lab.snapshot().assert_same_as(&before);
    lab.vnet_ok(&["ns", "rm", web.name()]);
}

#[test]
fn prefixes_are_chosen_where_nobody_is_and_leases_are_shown() {
    let lab = Lab::new();
    lab.host().ip("route add 172.24.0.0/24 via 203.0.113.2");
    lab.host().ip("route add 192.168.0.0/16 via 203.0.113.2");
    let refused = lab.vnet(&["up"]);
    let free = "vnet up --subnet 172.24.1.0/24 --subnet fd";
    let refused = refused.fails_with(1, &["192.168.0.0/24", "192.168.0.0/16 over eth0", free]);
    // What it advises can be done.
    let advised = refused.stderr.split("`vnet ").nth(1).unwrap().split('`').next().unwrap().to_owned();
    lab.vnet_ok(&advised.split(' ').collect::<Vec<_>>());
    lab.host().ip("route del 192.168.0.0/16");
    let said = lab.vnet_ok(&["network", "create", "blue"]).stdout;
    assert!(said.starts_with("network blue: 172.24.2.0/24 fd"), "{said}");
    assert!(lab.vnet_ok(&["network", "create", "blue"]).stdout.ends_with("(already)\n"));
    let options = ["--subnet", "10.1.0.0/24", "--range", "10.1.0.128/25", "--reserve", "10.1.0.128"];
    lab.vnet_ok(&[&["network", "create", "green"], &options[..]].concat());
    let web = lab.endpoint_with("web", &["--network", "green"]);
    assert_eq!(web.addresses(), ["10.1.0.129".parse::<IpAddr>().unwrap()]);
    lab.vnet_ok(&["network", "connect", "blue", web.name()]);
    let _server = Server::echo(&web, "[::]:80");
    for addr in addresses_on(&web, "eth1") {
        Ask::tcp((addr, 80).into()).in_netns(lab.host());
    }
    let leases = lab.vnet_list(&["network", "leases", "green"], "leases");
    let shown: Vec<Value> =
        leases.iter().map(|it| json!([it["address"], it["kind"], it["endpoint"]])).collect();
    let expected = [
        json!(["10.1.0.1", "gateway", null]),
        json!(["10.1.0.128", "reserved", null]),
        json!(["10.1.0.129", "endpoint", web.name()]),
    ];
    assert_eq!(shown, expected);
    let all = lab.vnet_ok(&["network", "leases"]).stdout;
    assert!(all.contains("172.24.2.2") && all.contains("(reserved)") && all.contains(web.name()), "{all}");
    lab.vnet(&["network", "leases", "red"]).fails_with(1, &["no network red", "blue"]);
}

#[test]
fn two_namespaces_are_joined_directly() {
    let lab = Lab::up();
    let (one, two) = (lab.name("one"), lab.name("two"));
    for name in [&one, &two] {
        lab.vnet_ok(&["ns", "create", name, "--mode", "none"]);
    }
    let before = lab.snapshot();
    let ends =
        ["--ip", "192.168.1.1/24", "--ip", "192.168.1.2/24", "--ip", "fd01::1/64", "--ip", "fd01::2/64"];
    let create = [&["link", "create", &one, &two], &ends[..]].concat();
    let said = lab.vnet_ok(&create).stdout;
    assert!(said.contains("link0 192.168.1.1/24 fd01::1/64 and link0 192.168.1.2/24 fd01::2/64"), "{said}");
    assert!(lab.vnet_ok(&create).stdout.ends_with("(already)\n"));
    // Nothing of it is on the host.
    lab.snapshot().assert_same_as(&before);
    let (one, two) = (Endpoint::observe(&one), Endpoint::observe(&two));
    let _server = Server::echo(&two, "[::]:80");
    let works = || {
        for (own, other) in [("192.168.1.1", "192.168.1.2"), ("fd01::1", "fd01::2")] {
            let (own, other): (IpAddr, IpAddr) = (own.parse().unwrap(), other.parse().unwrap());
            assert_eq!(Ask::tcp((other, 80).into()).in_netns(&one).seen.ip(), own);
            Ping::to(other).in_netns(&one);
            Ping::to(own).in_netns(&two);
        }
    };
    works();
    let links = lab.vnet_list(&["link", "ls"], "links");
    assert_eq!((links[0]["ends"][0]["endpoint"].as_str(), links.len()), (Some(one.name()), 1));
    assert!(lab.vnet_ok(&["ns", "inspect", two.name()]).stdout.contains("direct link   "));
    for list in [&["ns", "inspect", two.name()][..], &["ns", "ls"]] {
        let shown = lab.vnet_list(list, "endpoints");
        let shown = shown.iter().find(|endpoint| endpoint["name"] == two.name()).expect("it is listed");
        assert_eq!(shown["direct_links"], serde_json::Value::from(links.clone()));
    }
    let graph = lab.vnet_json(&["graph", "--interval", "0"]);
    let drawn = graph["unlinked"].as_array().unwrap().iter().find(|it| it["name"] == two.name()).unwrap();
    assert_eq!(drawn["direct"][0]["to"], one.name());
    assert_eq!(drawn["direct"][0]["addresses"], json!(["192.168.1.2", "fd01::2"]));
    let drawing = lab.vnet_ok(&["graph", "--interval", "0", "--format", "dot"]).stdout;
    assert_eq!(drawing.matches("[dir=none").count(), 1, "{drawing}");

    // Brought back when it has gone, in part or altogether.
    for damage in ["link set link0 down", "addr del 192.168.1.1/24 dev link0", "link del link0"] {
        one.ip(damage);
        lab.vnet_ok(&["up"]);
        works();
        assert!(lab.vnet_ok(&["up", "--dry-run"]).stdout.contains("nothing to do"), "after {damage}");
    }
    let text = lab.vnet_ok(&["export"]).stdout;
    assert!(text.contains("[[direct]]"), "{text}");
    lab.vnet_ok(&["link", "rm", two.name(), one.name()]);
    assert!(!one.ip("link").stdout.contains("link0") && !two.ip("link").stdout.contains("link0"));
    // Somebody else's interface of that name is left alone.
    one.ip("link add link0 type veth peer name other0");
    lab.vnet(&create).fails_with(1, &["is not vnet's"]);
    assert!(one.ip("link").stdout.contains("link0"));
    one.ip("link del link0");
    lab.vnet_ok(&create);
    let said = lab.vnet_ok(&["ns", "rm", one.name()]).stdout;
    assert!(said.contains("direct link") && said.contains("removed"), "{said}");
    assert!(!two.ip("link").stdout.contains("link0"));
}

#[test]
fn a_killed_connection_is_completed_by_the_same_command_and_a_disconnection_by_any() {
    let lab = lab_with_blue();
    let web = lab.endpoint("web");
    let _outside = Server::echo(lab.outside(), "[::]:7");
    let connect = ["network", "connect", "blue", web.name(), "--default-route"];
    let disconnect = ["network", "disconnect", "blue", web.name()];
    let time = |args: &[&str]| {
        let begun = std::time::Instant::now();
        lab.vnet_ok(args);
        begun.elapsed()
    };
    let whole = [time(&connect), time(&disconnect)];
    let mut killed = 0;
    for nth in 1..=10 {
        for (args, whole) in [(connect.as_slice(), whole[0]), (&disconnect, whole[1])] {
            let mut child = lab.vnet_start(args);
            // Not to wait for anything: this is when it is killed.
            std::thread::sleep(whole * nth / 11);
            if child.is_running() {
                child.signal(nix::sys::signal::Signal::SIGKILL);
            }
            killed += u32::from(child.wait() != Some(0));
            lab.vnet_ok(args);
            let connected = args == connect;
            let expected = if connected { "eth1" } else { "eth0" };
            assert_eq!(default_interfaces(&web), [expected; 2], "killed at {nth}/11");
            assert_eq!(rules(&web).len(), if connected { 2 } else { 0 }, "killed at {nth}/11");
            for (outside, _) in FAMILIES {
                for from in
                    addresses_on(&web, "eth0").into_iter().filter(|it| it.is_ipv4() == outside.is_ipv4())
                {
                    Ask::tcp((outside, 7).into()).from((from, 0).into()).in_netns(&web);
                }
            }
            // An address that the host has got meanwhile, by itself, is for the next command to learn.
            let left = lab.vnet_ok(&["up", "--dry-run"]).stdout;
            let left: Vec<&str> = left.lines().filter(|line| !line.contains("host address")).collect();
            assert!(left.is_empty() || left == ["nothing to do"], "killed at {nth}/11: {left:#?}");
        }
    }
    assert!(killed >= 5, "only {killed} commands were killed before they were done");
}

#[test]
fn an_mtu_below_that_of_ipv6_is_one_without_ipv6_and_is_raised_again() {
    let lab = Lab::up();
    lab.vnet_ok(&["network", "create", "low", "--subnet", "10.70.0.0/24", "--mtu", "1000"]);
    let low = lab.endpoint_with("low1", &["--network", "low"]);
    low.run(&["ping", "-c", "1", "-W", "5", "10.70.0.1"]).ok();
    assert!(lab.vnet_ok(&["up"]).stdout.contains("(already)"));
    lab.vnet_ok(&["network", "create", "usual", "--subnet", "10.71.0.0/24"]);
    let usual = lab.endpoint_with("usual1", &["--network", "usual"]);
    lab.host().ip("link set vnet-usual mtu 1000");
    usual.run(&["ip", "link", "set", "eth0", "mtu", "1000"]).ok();
    lab.vnet_ok(&["up"]);
    assert!(lab.host().ip("link show vnet-usual").stdout.contains("mtu 1500"));
    usual.run(&["ping", "-c", "1", "-W", "5", "-M", "do", "-s", "1472", "10.71.0.1"]).ok();
    assert!(lab.vnet_ok(&["up"]).stdout.contains("(already)"));
}

#[test]
fn a_network_that_overlaps_an_endpoint_s_direct_link_is_not_connected() {
    let lab = Lab::up();
    let (a, b) = (lab.endpoint_with("a", &["--mode", "none"]), lab.endpoint("b"));
    lab.vnet_ok(&["link", "create", a.name(), b.name(), "--ip", "10.50.0.1/24", "--ip", "10.50.0.2/24"]);
    lab.vnet_ok(&["network", "create", "over", "--subnet", "10.50.0.0/24"]);
    lab.vnet(&["network", "connect", "over", b.name()]).fails_with(1, &["overlaps", "10.50.0.2/24"]);
    a.run(&["ping", "-c", "1", "-W", "5", "10.50.0.2"]).ok();
    // And the doctor misses it when it is gone.
    a.run(&["ip", "link", "del", "link0"]).ok();
    assert!(lab.vnet_ok(&["doctor"]).stdout.contains("missing"), "{}", lab.vnet_ok(&["doctor"]));
    lab.vnet_ok(&["up"]);
    a.run(&["ping", "-c", "1", "-W", "5", "10.50.0.2"]).ok();
}

#[test]
fn a_namespace_that_cannot_be_opened_is_not_attached() {
    let lab = Lab::up();
    let name = lab.name("nowhere");
    for dry_run in [&["--dry-run"][..], &[]] {
        let attach = [&["ns", "attach", &name, "--netns", "/run/netns/nowhere"], dry_run].concat();
        lab.vnet(&attach).fails_with(1, &["/run/netns/nowhere"]);
    }
    assert_eq!(lab.vnet_list(&["ns", "ls"], "endpoints"), [] as [serde_json::Value; 0]);
}

#[test]
fn the_status_says_what_floating_addresses_open() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    lab.host().ip("addr add 203.0.113.5/32 dev eth0");
    lab.vnet_ok(&["floating", "add", "203.0.113.5", net1.name()]);
    let open = format!("all of {} (192.168.0.2): world by 203.0.113.5", net1.name());
    assert!(lab.vnet_ok(&["status"]).stdout.contains(&open), "{}", lab.vnet_ok(&["status"]));
}
