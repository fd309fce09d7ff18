//! `vnet trace`: what it says comes true with real traffic, and saying it changes nothing.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use vnet_common::{CtEntry, EndpointUse, FlowHand, LocalFlowKey, LocalFlowValue, MappingEntry, Tuple, maps};
use vnet_tests::lab::{
    Endpoint, FAMILIES, HOST_V4, HOST_V6, Lab, OUTSIDE_V4, OUTSIDE_V6, UPLINK, eventually,
};
use vnet_tests::peer::{Ask, Ping, Server, Service};
use vnet_tests::report::report;

/// What a trace prints for programs.
fn trace(lab: &Lab, args: &[&str]) -> Value {
    let before = state(lab);
    let mut traces = lab.vnet_list(&[&["trace"], args].concat(), "traces");
    assert_eq!(state(lab), before, "a trace of {args:?} has changed something");
    assert_eq!(traces.len(), 1, "{traces:?}");
    traces.remove(0)
}

/// All that a packet could leave behind, as text.
fn state(lab: &Lab) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut add = |map: &str, entries: Vec<String>| {
        lines.extend(entries.into_iter().map(|entry| format!("{map} {entry}")));
    };
    for map in [maps::CONNTRACK, maps::UNCONFIRMED] {
        add(map, lab.entries::<Tuple, CtEntry>(map).iter().map(|entry| format!("{entry:?}")).collect());
    }
    let of = |entry: &(Tuple, MappingEntry)| format!("{entry:?}");
    add(maps::MAPPINGS, lab.entries::<Tuple, MappingEntry>(maps::MAPPINGS).iter().map(of).collect());
    let of = |entry: &(u32, EndpointUse)| format!("{entry:?}");
    add(maps::ENDPOINT_USE, lab.entries::<u32, EndpointUse>(maps::ENDPOINT_USE).iter().map(of).collect());
    let of = |entry: &(u32, FlowHand)| format!("{entry:?}");
    add(maps::FLOW_HAND, lab.entries::<u32, FlowHand>(maps::FLOW_HAND).iter().map(of).collect());
    let of = |entry: &(LocalFlowKey, LocalFlowValue)| format!("{entry:?}");
    let dialled = lab.entries::<LocalFlowKey, LocalFlowValue>(maps::LOCAL_FLOWS);
    add(maps::LOCAL_FLOWS, dialled.iter().map(of).collect());
    add(maps::DROPS, lab.vnet_list(&["drops"], "drops").iter().map(ToString::to_string).collect());
    lines.sort();
    lines.join("\n")
}

fn at(addr: IpAddr, port: u16) -> String {
    SocketAddr::new(addr, port).to_string()
}

/// Whether a trace has a decision about something, with all of these words.
fn says(trace: &Value, about: &str, words: &[&str]) -> bool {
    let way = trace["way"].as_array().expect("a way");
    way.iter().flat_map(|leg| leg["decisions"].as_array().expect("decisions")).any(|decision| {
        let text = decision["text"].as_str().expect("a sentence");
        decision["about"] == about && words.iter().all(|word| text.contains(word))
    })
}

#[track_caller]
fn assert_says(trace: &Value, about: &str, words: &[&str]) {
    assert!(says(trace, about, words), "nothing about {about} with {words:?} in {trace:#}");
}

/// A trace says that a packet is dropped, then real ones are, and are counted.
#[track_caller]
fn dropped_for(lab: &Lab, reason: &str, trace: &Value, send: impl FnOnce()) {
    assert_eq!((&trace["verdict"], &trace["reason"]), (&"dropped".into(), &reason.into()), "{trace:#}");
    let text = trace["text"].as_str().expect("a sentence");
    let drops = lab.dropped(reason);
    send();
    assert!(lab.dropped(reason) > drops, "nothing was counted as {reason}");
    let counted = lab.vnet_list(&["drops", "--reason", reason], "drops");
    for drop in &counted {
        let why = [&drop["explanation"], &drop["remedy"]].map(|word| word.as_str().expect("a sentence"));
        assert!(why.iter().all(|why| !why.is_empty() && text.contains(why)), "{drop} is not as in {text}");
    }
}

fn briefly(ask: Ask) -> Ask {
    ask.patience(Duration::from_millis(300))
}

fn web(lab: &Lab) -> Endpoint {
    let web = lab.endpoint("web");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", web.name())]);
    web
}

#[test]
fn a_published_port_is_reached_as_traced() {
    let lab = Lab::up();
    let web = web(&lab);
    let server = Server::echo(&web, "[::]:80");
    for (outside, host) in FAMILIES {
        let inside = web.addr_like(host);
        let (source, published) = (at(outside, 5555), at(host, 8088));
        let trace = trace(&lab, &["tcp", &source, &published]);
        assert_eq!(
            (&trace["from"], &trace["verdict"]),
            (&"outside".into(), &"delivered".into()),
            "{trace:#}"
        );
        assert_eq!(trace["endpoint"], web.name());
        assert_eq!(
            (&trace["becomes"]["destination"], &trace["becomes"]["destination_port"]),
            (&inside.to_string().into(), &80.into())
        );
        assert_eq!(trace["becomes"]["source"], outside.to_string());
        assert_eq!(trace["way"][0]["hook"], "from_uplink");
        assert_eq!(trace["way"][0]["interface"], UPLINK);
        assert_says(&trace, "packet", &["tcp", &source, &published, "syn"]);
        assert_says(&trace, "flow", &["no flow is tracked"]);
        assert_says(&trace, "mapping", &["8088", web.name(), &at(inside, 80)]);
        assert_says(&trace, "flow", &["a flow begins", &at(inside, 80)]);
        let changes = trace["changes"].as_array().expect("changes");
        let added =
            changes.iter().filter(|change| change["map"] == "unconfirmed" && change["change"] == "added");
        assert_eq!(added.count(), 2, "both halves of the flow: {trace:#}");
        Ask::tcp((host, 8088).into()).in_netns(lab.outside());
    }
    assert_eq!(server.seen().len(), 2);
    // What the host itself dials.
    for (source, dialled) in [("127.0.0.1:5555", "127.0.0.1:8088"), ("[::1]:5555", "[::1]:8088")] {
        let trace = trace(&lab, &["tcp", source, dialled]);
        assert_eq!((&trace["from"], &trace["verdict"]), (&"host".into(), &"delivered".into()), "{trace:#}");
        assert_eq!(trace["way"][0]["hook"], "host_connect");
        assert_says(&trace, "dial", &["is connected to", ":80"]);
        Ask::tcp(dialled.parse().unwrap()).in_netns(lab.host());
    }
    let elsewhere = trace(&lab, &["tcp", "127.0.0.1:5555", "127.0.0.1:8089"]);
    assert_eq!(elsewhere["verdict"], "host", "{elsewhere:#}");
    // A port that is not published is the host's.
    let trace = trace(&lab, &["tcp", &at(OUTSIDE_V4, 5555), &at(HOST_V4, 8089)]);
    assert_eq!(trace["verdict"], "host", "{trace:#}");
    assert_says(&trace, "mapping", &["no port is published"]);
    Ask::tcp((HOST_V4, 8089).into()).fails_in(lab.outside());
}

#[test]
fn what_an_endpoint_sends_leaves_as_traced() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let server = Server::udp(lab.outside(), "[::]:5353");
    for (outside, host) in FAMILIES {
        let inside = net1.addr_like(host);
        // A port that masquerade keeps, as nobody has it.
        let trace = trace(&lab, &["udp", &at(inside, 50_001), &at(outside, 5353)]);
        assert_eq!(
            (&trace["from"], &trace["verdict"]),
            (&net1.name().into(), &"forwarded".into()),
            "{trace:#}"
        );
        let way = json!([trace["interface"], trace["next_hop"], trace["becomes"]["source"]]);
        assert_eq!(way, json!([UPLINK, outside, host]), "{trace:#}");
        assert_eq!(trace["becomes"]["source_port"], 50_001);
        assert_says(&trace, "route", &[UPLINK, &outside.to_string(), &host.to_string()]);
        assert_says(&trace, "masquerade", &[&inside.to_string()]);
        assert_says(&trace, "port", &["keeps", "50001"]);
        Ask::udp((outside, 5353).into()).from((inside, 50_001).into()).in_netns(&net1);
        assert_eq!(server.seen().last(), Some(&(host, 50_001).into()), "what the trace said is what came");
        // The flow is there now, and the answer is one.
        let again = self::trace(&lab, &["udp", &at(inside, 50_001), &at(outside, 5353)]);
        assert_says(&again, "flow", &["of its opener", "established"]);
        let answer = self::trace(&lab, &["udp", &at(outside, 5353), &at(host, 50_001)]);
        assert_eq!((&answer["verdict"], &answer["endpoint"]), (&"delivered".into(), &net1.name().into()));
        assert_says(&answer, "flow", &["an answer", "confirmed"]);
        // A ping, with a port of its own.
        let icmp = if outside.is_ipv4() { "icmp" } else { "icmpv6" };
        let ping = self::trace(&lab, &[icmp, &inside.to_string(), &outside.to_string(), "--id", "77"]);
        assert_eq!(ping["verdict"], "forwarded", "{ping:#}");
        Ping::to(outside).in_netns(&net1);
        // One that does not fit the way.
        let ping = self::trace(&lab, &[icmp, &inside.to_string(), &outside.to_string(), "--length", "1600"]);
        assert_eq!(ping["verdict"], "too-big", "{ping:#}");
        assert!(ping["text"].as_str().is_some_and(|text| text.contains("may not be cut")), "{ping:#}");
        // One that may be cut: of IPv6 no router may.
        let length = ["--length", "1600", "--fragmentable"];
        let ping =
            self::trace(&lab, &[&[icmp, &inside.to_string(), &outside.to_string()], &length[..]].concat());
        assert_eq!(ping["verdict"], if outside.is_ipv4() { "forwarded" } else { "too-big" }, "{ping:#}");
        if outside.is_ipv4() {
            let text = ping["way"][0]["text"].as_str().expect("a sentence");
            assert!(text.contains("cuts it into fragments"), "{ping:#}");
            assert_eq!((&ping["way"][1]["hook"], &ping["interface"]), (&"to_uplink".into(), &UPLINK.into()));
            assert_eq!(ping["becomes"]["source"], host.to_string(), "it leaves translated: {ping:#}");
            Ping::to(outside).packet_size(1600).in_netns(&net1);
        }
        // One that would not get any further.
        let ping = self::trace(&lab, &[icmp, &inside.to_string(), &outside.to_string(), "--ttl", "1"]);
        assert_eq!(ping["verdict"], "hop-limit", "{ping:#}");
        let pong = Ping::to(outside).ttl(1).patience(Duration::from_millis(500)).fails_in(&net1);
        assert!(outside.is_ipv6() || pong.expect("the host's word").is_time_exceeded());
    }
}

#[test]
fn what_is_dropped_is_dropped_for_the_reason_that_is_traced() {
    let lab = Lab::up();
    let web = web(&lab);
    let _server = Server::echo(&web, "[::]:80");
    let blue = lab.name("blue");
    lab.vnet_ok(&["network", "create", &blue, "--subnet", "10.77.0.0/24"]);
    let other = lab.endpoint_with("other", &["--network", &blue]);
    // Somebody outside who knows the way in.
    lab.outside().ip(&format!("route add {}/24 via {HOST_V4}", "192.168.0.0"));
    let direct = trace(&lab, &["tcp", &at(OUTSIDE_V4, 5555), &at(web.v4(), 80)]);
    dropped_for(&lab, "direct-access", &direct, || {
        briefly(Ask::tcp((web.v4(), 80).into())).fails_in(lab.outside());
    });
    // From one network to the other.
    let across = trace(&lab, &["tcp", &at(other.v4(), 5555), &at(web.v4(), 80)]);
    assert_eq!(across["from"], other.name());
    dropped_for(&lab, "other-network", &across, || {
        briefly(Ask::tcp((web.v4(), 80).into())).fails_in(&other);
    });
    assert_says(&across, "answer", &[&other.v4().to_string(), "type 3", "code 13"]);
    // With an address that is not its own.
    let spoofed = trace(&lab, &["icmp", "192.168.0.99", &OUTSIDE_V4.to_string(), "--from", web.name()]);
    assert_says(&spoofed, "endpoint", &["192.168.0.99", "no endpoint's"]);
    let gateway = web.gateway_like(OUTSIDE_V4);
    dropped_for(&lab, "source-address", &spoofed, || {
        // Its gateway has an address by now: asking for it with another's is dropped for that.
        Ping::to(gateway).in_netns(&web);
        web.ip("addr add 192.168.0.99/32 dev eth0");
        web.ip(&format!("route replace default via {gateway} src 192.168.0.99"));
        let ping = Ping::to(OUTSIDE_V4).patience(Duration::from_millis(300)).fails_in(&web);
        assert!(ping.is_err(), "{ping:?}");
    });
    // A port that is not for this client.
    lab.vnet_ok(&[
        "portmap",
        "add",
        "2222",
        &format!("{}:80", web.name()),
        "--allow-from",
        "198.51.100.0/24",
    ]);
    let refused = trace(&lab, &["tcp", &at(OUTSIDE_V4, 5555), &at(HOST_V4, 2222)]);
    assert_says(&refused, "mapping", &["2222", "not for everybody"]);
    dropped_for(&lab, "not-allowed", &refused, || {
        briefly(Ask::tcp((HOST_V4, 2222).into())).fails_in(lab.outside());
    });
    let admitted = trace(&lab, &["tcp", "198.51.100.7:5555", &at(HOST_V4, 2222)]);
    assert_eq!(admitted["verdict"], "delivered", "{admitted:#}");
    assert_says(&admitted, "mapping", &["198.51.100.7 may use"]);
    // In an uplink's driver.
    lab.vnet_ok(&["up", "--xdp", "generic"]);
    lab.vnet_ok(&["deny", "add", "203.0.113.2/32"]);
    let denied = trace(&lab, &["tcp", &at(OUTSIDE_V4, 5555), &at(HOST_V4, 8088)]);
    assert_eq!(
        (&denied["way"][0]["hook"], denied["way"].as_array().map(Vec::len)),
        (&"xdp_uplink".into(), Some(1))
    );
    dropped_for(&lab, "denied", &denied, || {
        briefly(Ask::tcp((HOST_V4, 8088).into())).fails_in(lab.outside());
    });
    lab.vnet_ok(&["deny", "rm", "203.0.113.2/32"]);
    let passed = trace(&lab, &["tcp", &at(OUTSIDE_V4, 5555), &at(HOST_V4, 8088)]);
    assert_eq!((&passed["verdict"], passed["way"].as_array().map(Vec::len)), (&"delivered".into(), Some(2)));
}

#[test]
fn what_is_left_to_the_hosts_stack_is_followed() {
    let lab = Lab::new();
    lab.vnet_ok(&["up", "--firewall", "respect"]);
    let web = web(&lab);
    let server = Server::tcp(&web, "[::]:80", Service::Echo);
    let first = trace(&lab, &["tcp", &at(OUTSIDE_V4, 5555), &at(HOST_V4, 8088)]);
    assert_eq!(
        (&first["verdict"], &first["endpoint"]),
        (&"delivered".into(), &web.name().into()),
        "{first:#}"
    );
    let hooks: Vec<&Value> = first["way"].as_array().expect("a way").iter().map(|leg| &leg["hook"]).collect();
    assert_eq!(hooks, ["from_uplink", "to_bridge"], "{first:#}");
    Ask::tcp((HOST_V4, 8088).into()).in_netns(lab.outside());
    assert_eq!(server.seen().len(), 1);
    // IPv6 is forwarded by a parameter of its own (Linux 6.17), for which routing does not ask.
    let forced = format!("/proc/sys/net/ipv6/conf/{UPLINK}/force_forwarding");
    let forces = std::path::Path::new("/proc/sys/net/ipv6/conf/all/force_forwarding").exists();
    let says_v6 = |expected: &str| {
        let said = trace(&lab, &["tcp", &at(OUTSIDE_V6, 5555), &at(HOST_V6, 8088)]);
        assert_eq!(said["verdict"], expected, "{said:#}");
    };
    if forces {
        says_v6("delivered");
        Ask::tcp((HOST_V6, 8088).into()).in_netns(lab.outside());
        lab.host().write(&forced, "0");
    } else {
        report(format_args!("this kernel has no force_forwarding: IPv6 is traced without it"));
    }
    says_v6("unroutable");
    Ask::tcp((HOST_V6, 8088).into()).fails_in(lab.outside());
    lab.host().write("/proc/sys/net/ipv6/conf/all/forwarding", "1");
    says_v6("delivered");
    Ask::tcp((HOST_V6, 8088).into()).in_netns(lab.outside());
    // To the host itself, and to a neighbour that nobody is.
    let own = trace(&lab, &["tcp", &at(web.v4(), 5555), &at(web.gateway_like(HOST_V4), 22)]);
    assert_eq!(own["verdict"], "host", "{own:#}");
    let nobody = trace(&lab, &["tcp", &at(web.v4(), 5555), "192.168.0.77:22"]);
    assert_eq!(nobody["verdict"], "bridge", "{nobody:#}");
    // Without a route the stack says so.
    lab.host().ip("route del default");
    let lost = || {
        let lost = trace(&lab, &["udp", &at(web.v4(), 5555), "198.51.100.9:53"]);
        (lost["verdict"] == "unroutable").then_some(())
    };
    // What routing has answered is good for a tick of the kernel's clock.
    eventually(lost, || "the route is gone".to_owned());
}

#[test]
fn people_read_sentences() {
    let lab = Lab::up();
    let web = web(&lab);
    let text = lab.vnet_ok(&["trace", "tcp", &at(OUTSIDE_V4, 5555), &at(HOST_V4, 8088)]).stdout;
    for words in [
        "tcp 203.0.113.2:5555 > 203.0.113.1:8088 (syn), from outside",
        "from_uplink on eth0",
        "203.0.113.1 is an address of the host, on eth0",
        "DELIVER",
        "nothing has been changed now",
        &format!("> {}:80", web.v4()),
    ] {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
}

#[test]
fn what_makes_no_sense_is_said_to() {
    let lab = Lab::new();
    let (source, to) = (at(OUTSIDE_V4, 5555), at(HOST_V4, 80));
    for (args, words) in [
        (&["tcp", "203.0.113.2", &to][..], &["203.0.113.2", "add a port"][..]),
        (&["tcp", "somewhere", &to], &["somewhere", "[2001:db8::2]:5555"]),
        (&["tcp", &source, "[2001:db8::1]:80"], &["203.0.113.2", "2001:db8::1", "different families"]),
        (&["icmp", &source, "203.0.113.1"], &["no ports", "--id"]),
        (&["icmp", "2001:db8::2", "2001:db8::1"], &["icmpv6"]),
        (&["udp", &source, &to, "--flags", "syn"], &["--flags", "TCP"]),
        (&["tcp", &source, &to, "--id", "7"], &["--id", "icmp"]),
        (&["tcp", &source, &to, "--length", "39"], &["39", "--length 40"]),
        (&["tcp", &source, &to, "--from", "host", "--uplink", UPLINK], &["--uplink", "outside"]),
    ] {
        lab.vnet(&[&["trace"], args].concat()).fails_with(2, words);
    }
    lab.vnet(&["trace", "tcp", &source, &to]).fails_with(1, &["not up"]);
    lab.host().ip("link add ext0 type veth peer name ext1");
    lab.vnet_ok(&["up", "--uplink", UPLINK, "--uplink", "ext0"]);
    lab.vnet(&["trace", "tcp", &source, &to]).fails_with(2, &["ext0", UPLINK, "--uplink"]);
    lab.vnet_ok(&["trace", "tcp", &source, &to, "--uplink", UPLINK]);
    lab.vnet(&["trace", "tcp", &source, &to, "--uplink", "eth7"]).fails_with(1, &["eth7", "ext0", UPLINK]);
    lab.vnet(&["trace", "tcp", &source, &to, "--from", "nobody"])
        .fails_with(1, &["no endpoint nobody, nor any other", "vnet ns create"]);
    let alone = lab.endpoint_with("alone", &["--mode", "none"]);
    lab.vnet(&["trace", "tcp", &source, &to, "--from", alone.name()])
        .fails_with(1, &[alone.name(), "no link"]);
}

#[test]
fn drops_are_chosen_by_reason_and_program() {
    let lab = Lab::up();
    let web = lab.endpoint("web");
    lab.outside().ip(&format!("route add 192.168.0.0/24 via {HOST_V4}"));
    let reason = lab.vnet_start(&["drops", "-f", "--reason", "malformed,direct-access"]);
    let other = lab.vnet_start(&["drops", "-f", "--reason", "source-address"]);
    let hook = lab.vnet_start(&["drops", "-f", "--hook", "from_uplink"]);
    // Whoever watches sees what happens from some moment on; so let it happen until it is seen.
    let seen = || {
        let _ = Ping::to(web.v4()).patience(Duration::from_millis(50)).fails_in(lab.outside());
        let told = |lines: Vec<String>| lines.iter().any(|line| line.contains("direct-access"));
        (told(reason.lines()) && told(hook.lines())).then_some(())
    };
    eventually(seen, || format!("a drop in {:#?} and {:#?}", reason.lines(), hook.lines()));
    assert_eq!(other.lines(), Vec::<String>::new());
    for (args, expected) in [
        (&["drops"][..], 1),
        (&["drops", "--reason", "direct-access,malformed"], 1),
        (&["drops", "--reason", "malformed"], 0),
        (&["drops", "--hook", "from_uplink"], 1),
        (&["drops", "--hook", "from_endpoint,to_bridge"], 0),
    ] {
        assert_eq!(lab.vnet_list(args, "drops").len(), expected, "{args:?}");
    }
    let text = lab.vnet_ok(&["drops"]).stdout;
    assert!(text.contains("direct-access: Publish the port with `vnet portmap add`"), "{text}");
    lab.vnet(&["drops", "--reason", "because"]).fails_with(2, &["because", "direct-access"]);
    lab.vnet(&["drops", "--hook", "from_below"]).fails_with(2, &["from_below", "from_endpoint"]);
}

#[test]
fn the_host_reaches_endpoints_by_their_own_addresses_as_traced() {
    let lab = Lab::up();
    let web = web(&lab);
    let _server = Server::echo(&web, "[::]:80");
    for inside in [web.v4(), web.v6()] {
        let mut networks = lab.vnet_list(&["network", "ls"], "networks").remove(0);
        let gateways = networks["gateways"].take();
        let of_family =
            |gateway: &&Value| gateway.as_str().is_some_and(|it| it.contains(':') == inside.is_ipv6());
        let gateway = gateways.as_array().expect("gateways").iter().find(of_family).expect("of each family");
        let gateway: IpAddr = gateway.as_str().expect("an address").parse().expect("an address");
        let echo = if inside.is_ipv4() { "icmp" } else { "icmpv6" };
        for args in [
            vec!["tcp".to_owned(), at(gateway, 5555), at(inside, 80)],
            vec!["udp".to_owned(), at(gateway, 5555), at(inside, 80)],
            vec![echo.to_owned(), gateway.to_string(), inside.to_string()],
        ] {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let trace = trace(&lab, &args);
            assert_eq!(
                (&trace["from"], &trace["verdict"]),
                (&"host".into(), &"delivered".into()),
                "{trace:#}"
            );
            assert_eq!((&trace["endpoint"], &trace["interface"]), (&web.name().into(), &"vnet0".into()));
            let hooks: Vec<&Value> =
                trace["way"].as_array().expect("a way").iter().map(|leg| &leg["hook"]).collect();
            assert_eq!(hooks, ["host_connect", "to_bridge"]);
            assert_says(&trace, "host", &["the host itself sends it"]);
            assert_eq!(trace["becomes"]["destination"], inside.to_string());
        }
        Ask::tcp((inside, 80).into()).in_netns(lab.host());
        Ping::to(inside).in_netns(lab.host());
    }
    // Nobody has that address; and what is for the rest of the world is the host's affair.
    let nobody = trace(&lab, &["tcp", "192.168.0.1:5555", "192.168.0.200:80"]);
    assert_eq!((&nobody["verdict"], &nobody["endpoint"]), (&"bridge".into(), &Value::Null), "{nobody:#}");
    let world = trace(&lab, &["tcp", &at(HOST_V4, 5555), &at(OUTSIDE_V4, 80)]);
    assert_eq!(world["verdict"], "not-ours", "{world:#}");
}

#[test]
fn words_of_a_trace_name_no_new_endpoint() {
    let lab = Lab::up();
    let web = web(&lab);
    for name in ["host", "outside"] {
        lab.vnet(&["ns", "create", name]).fails_with(2, &[name, "--from", "choose another name"]);
        let asked =
            lab.vnet(&["trace", "udp", "192.168.0.2:4000", "9.9.9.9:53", "--from", &format!("ns:{name}")]);
        asked.fails_with(1, &["there is no endpoint", name, web.name()]);
    }
    let from = format!("ns:{}", web.name());
    let trace = trace(&lab, &["udp", &at(web.v4(), 4000), &at(OUTSIDE_V4, 53), "--from", &from]);
    assert_eq!((&trace["from"], &trace["verdict"]), (&web.name().into(), &"forwarded".into()), "{trace:#}");
    lab.vnet(&["trace", "udp", "192.168.0.2:1", "9.9.9.9:2", "--from", "ns:"]).fails_with(2, &["ns:NAME"]);
}
