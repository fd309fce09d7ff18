//! What can be chosen of an instance and of a network, and what of it reaches the maps and the host.

use std::net::IpAddr;

use serde_json::json;
use vnet_common::{
    Addr, CtEntry, DatapathConfig, EndpointValue, FloatingValue, MappingEntry, MasqueradeValue, NetworkValue,
    PortRange, PrefixKey, Tuple, Zone, filtering, mapping, maps,
};
use vnet_tests::lab::{FAMILIES, HOST_V4, Lab, OUTSIDE_V4, OUTSIDE_V6, UPLINK};
use vnet_tests::peer::{Ask, Server};

const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// The configuration, but for what the kernel says of itself.
fn config(lab: &Lab) -> DatapathConfig {
    let config: DatapathConfig = lab.entry::<u32, DatapathConfig>(maps::CONFIG, 0);
    assert_ne!(config.hold, 0, "fragments have nowhere to wait");
    DatapathConfig { netns_cookie: 0, hold: 0, ..config }
}

fn addr(text: &str) -> Addr {
    Addr::from(text.parse::<IpAddr>().expect("an address"))
}

fn host_prefix(text: &str) -> PrefixKey {
    PrefixKey::host(addr(text))
}

/// The values that all entries of the endpoints of a network have in common: flags, mapping, filtering.
#[track_caller]
fn endpoint_choices(lab: &Lab, network: u16) -> (u8, u8, u8) {
    let entries = lab.entries::<Addr, EndpointValue>(maps::ENDPOINTS);
    let mut of_network: Vec<(u8, u8, u8)> = entries
        .iter()
        .filter(|(_, value)| value.zone == Zone { id: network })
        .map(|(_, value)| (value.flags, value.mapping, value.filtering))
        .collect();
    of_network.dedup();
    assert_eq!(of_network.len(), 1, "entries of one network differ, or there are none: {entries:#?}");
    of_network[0]
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    let lab = Lab::up();
    let before = lab.snapshot();
    for args in [
        &["up", "--nat-ports", "50000"][..],
        &["up", "--nat-ports", "50000-50062"],
        &["up", "--timeout", "tcp=5m"],
        &["up", "--timeout", "udp-replied=never"],
        &["up", "--max-flows", "0"],
        &["up", "--firewall", "burn"],
        &["network", "set", "default"],
        &["network", "set", "default", "--filtering", "none"],
        &["masquerade", "exclude", "10.0.0.7/8"],
        &["floating", "add", "203.0.113.5"],
    ] {
        let output = lab.vnet(args);
        assert_eq!(output.status, Some(2), "expected a usage error: {output}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "say so on standard error: {output}");
    }
    let choices = lab.vnet(&["network", "set", "default", "--gateway-mode", "x"]);
    choices.fails_with(2, &["nat", "nat-unprotected", "routed"]);
    lab.snapshot().assert_same_as(&before);
}

#[test]
fn settings_are_changed_while_it_is_up_and_stay_until_they_are_changed_again() {
    let lab = Lab::new();
    lab.host().write(RESERVED, "8080,40010");
    let before = lab.snapshot();
    lab.vnet_ok(&["up"]);
    assert_eq!(config(&lab), DatapathConfig::DEFAULT);
    let net1 = lab.endpoint("net1");
    let changed = lab.vnet_ok(&[
        "up",
        "--nat-ports",
        "40000-40999",
        "--timeout",
        "udp-replied=10m",
        "--timeout",
        "tcp-established=1h",
        "--endpoint-flows",
        "0",
        "--endpoint-unanswered",
        "99",
    ]);
    assert!(
        changed.stderr.contains("RFC 5382") && !changed.stderr.contains("udp-replied"),
        "only what is below the minimum is noted: {changed}"
    );
    let expected = DatapathConfig {
        nat_ports: PortRange { first: 40_000, last: 40_999 },
        udp_replied: 600,
        tcp_established: 3_600,
        endpoint_flows: 0,
        unanswered: 99,
        ..DatapathConfig::DEFAULT
    };
    assert_eq!(config(&lab), expected);
    assert_eq!(lab.host().read(RESERVED).trim(), "8080,40000-40999");
    // Without an option all stays; and what is masqueraded now uses the ports.
    lab.vnet_ok(&["up"]);
    assert_eq!(config(&lab), expected);
    let _server = Server::udp(lab.outside(), "[::]:7");
    for (outside, _) in FAMILIES {
        let seen = Ask::udp((outside, 7).into()).in_netns(&net1).seen;
        assert!((40_000..=40_999).contains(&seen.port()), "{seen}");
    }
    let settings = &lab.vnet_json(&["status"])["settings"];
    assert_eq!(
        *settings,
        json!({
            "nat_port": 40_000,
            "nat_end": 40_999,
            "timeouts": {
                "tcp-established": 3_600,
                "tcp-opening": 240,
                "tcp-closing": 240,
                "udp-unreplied": 120,
                "udp-replied": 600,
                "dns": 10,
                "icmp-query": 60,
                "fragment": 30,
            },
            "max_flows": 131_072,
            "max_unanswered": 65_536,
            "endpoint_flows": 0,
            "endpoint_unanswered": 99,
            "firewall": "bypass",
            "xdp": {},
            "flood_rate": 0,
            "flood_total": 0,
        })
    );
    let status = lab.vnet_ok(&["status"]).stdout;
    for words in ["40000-40999", "udp-replied 10m", "tcp-established 1h", "any number", "bypass"] {
        assert!(status.contains(words), "no {words:?} in {status}");
    }
    // The ports that were the user's are the user's again.
    lab.vnet_ok(&["down"]);
    lab.snapshot().assert_same_as(&before);
}

#[test]
fn ports_for_masquerade_are_not_published_ones() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let target = format!("{}:80", net1.name());
    lab.vnet_ok(&["portmap", "add", "40500", &target]);
    let refused = lab.vnet(&["up", "--nat-ports", "40000-40999"]);
    refused.fails_with(1, &["40000-40999", "40500", net1.name(), "vnet portmap rm 40500"]);
    assert_eq!(config(&lab), DatapathConfig::DEFAULT);
    lab.vnet_ok(&["up", "--nat-ports", "50000-50999"]);
    lab.vnet(&["portmap", "add", "50999", &target]).fails_with(1, &["50000-50999"]);
    lab.vnet_ok(&["portmap", "add", "51000", &target]);
    // None left to the host is refused before anything is changed.
    let automatic = lab.host().read("/proc/sys/net/ipv4/ip_local_port_range");
    let automatic: Vec<&str> = automatic.split_whitespace().collect();
    lab.vnet_ok(&["portmap", "rm", "51000"]);
    lab.vnet_ok(&["portmap", "rm", "40500"]);
    let all = lab.vnet(&["up", "--nat-ports", &automatic.join("-")]);
    all.fails_with(1, &["ip_local_port_range", "--nat-ports"]);
    assert_eq!(config(&lab).nat_ports, PortRange { first: 50_000, last: 50_999 });
    assert_eq!(lab.host().read(RESERVED).trim(), "50000-50999");
}

#[test]
fn the_room_for_flows_is_as_wished_and_fixed() {
    let lab = Lab::new();
    let rooms = |lab: &Lab| {
        [
            lab.room::<Tuple, CtEntry>(maps::CONNTRACK),
            lab.room::<u32, Tuple>(maps::FLOW_SLOTS),
            lab.room::<Tuple, CtEntry>(maps::UNCONFIRMED),
            lab.room::<Tuple, MappingEntry>(maps::MAPPINGS),
        ]
    };
    lab.vnet_ok(&["up", "--max-flows", "1000", "--max-unanswered", "300"]);
    assert_eq!(rooms(&lab), [2000, 1000, 600, 600]);
    for args in [["--max-flows", "1001"], ["--max-unanswered", "299"]] {
        lab.vnet(&["up", args[0], args[1]]).fails_with(1, &["1000", "300", "vnet down"]);
    }
    lab.vnet_ok(&["up", "--max-flows", "1000"]);
    assert_eq!(rooms(&lab), [2000, 1000, 600, 600]);
    let net1 = lab.endpoint("net1");
    let _server = Server::echo(lab.outside(), "[::]:7");
    Ask::tcp((OUTSIDE_V4, 7).into()).in_netns(&net1);
    lab.vnet_ok(&["down"]);
    lab.vnet_ok(&["up"]);
    assert_eq!(rooms(&lab), [262_144, 131_072, 131_072, 131_072]);
}

#[test]
fn uplinks_forward_where_the_firewall_is_respected_and_as_before_afterwards() {
    let lab = Lab::new();
    let v4 = format!("/proc/sys/net/ipv4/conf/{UPLINK}/forwarding");
    let v6 = format!("/proc/sys/net/ipv6/conf/{UPLINK}/force_forwarding");
    let router = format!("/proc/sys/net/ipv6/conf/{UPLINK}/forwarding");
    let has_v6 = lab.forwards(OUTSIDE_V6);
    let forwards = |lab: &Lab| {
        let v6 = has_v6.then(|| lab.host().read(&v6));
        (lab.host().read(&v4).trim() == "1", v6.is_none_or(|v6| v6.trim() == "1"))
    };
    let before = lab.snapshot();
    assert_eq!(lab.host().read(&v4).trim(), "0");
    lab.vnet_ok(&["up", "--firewall", "respect"]);
    assert_eq!(forwards(&lab), (true, true));
    assert_eq!(lab.host().read(&router).trim(), "0", "it goes on accepting router advertisements");
    assert_eq!(config(&lab).flags, DatapathConfig::FLAG_RESPECT_FIREWALL);
    assert_eq!(lab.vnet_json(&["status"])["settings"]["firewall"], "respect");
    lab.host().write(&v4, "0");
    let status = lab.vnet_ok(&["status"]).stdout;
    assert!(status.contains(&format!("forwarding of {UPLINK}")), "{status}");
    lab.vnet_ok(&["up"]);
    assert_eq!(forwards(&lab), (true, true), "brought back");
    lab.vnet_ok(&["up", "--firewall", "bypass"]);
    assert_eq!(lab.host().read(&v4).trim(), "0");
    assert_eq!(config(&lab).flags, 0);
    lab.vnet_ok(&["up", "--firewall", "respect"]);
    lab.vnet_ok(&["down"]);
    lab.snapshot().assert_same_as(&before);

    // What the user had switched on stays on.
    lab.host().write(&v4, "1");
    let before = lab.snapshot();
    lab.vnet_ok(&["up", "--firewall", "respect"]);
    lab.vnet_ok(&["down"]);
    lab.snapshot().assert_same_as(&before);
}

#[test]
fn a_network_is_changed_with_its_endpoints() {
    let lab = Lab::up();
    let _net1 = lab.endpoint("net1");
    let blue = lab.name("blue");
    lab.vnet_ok(&[
        "network",
        "create",
        &blue,
        "--subnet",
        "10.55.0.0/24",
        "--gateway-mode",
        "nat-unprotected",
        "--udp-mapping",
        "address-and-port",
    ]);
    let _net2 = lab.endpoint_with("net2", &["--network", &blue]);
    let default = (0, mapping::ENDPOINT_INDEPENDENT_UDP, filtering::ADDRESS);
    assert_eq!(endpoint_choices(&lab, 1), default);
    assert_eq!(endpoint_choices(&lab, 2), (NetworkValue::FLAG_UNPROTECTED, 0, filtering::ADDRESS));
    let flags = |prefix_len, text: &str| {
        let key = PrefixKey { prefix_len, addr: addr(text) };
        lab.entry::<PrefixKey, NetworkValue>(maps::NETWORKS, key).flags
    };
    assert_eq!(flags(120, "10.55.0.0"), NetworkValue::FLAG_UNPROTECTED);

    let set = ["network", "set", &blue, "--gateway-mode", "routed", "--tcp-mapping", "endpoint-independent"];
    let set = [&set[..], &["--filtering", "endpoint-independent"]].concat();
    let before = lab.vnet_json(&["network", "inspect", &blue]);
    let plan = lab.vnet_ok(&[&set[..], &["--dry-run"]].concat()).stdout;
    assert!(plan.contains("10.55.0.2") && plan.contains("remove masquerade 10.55.0.0/24"), "{plan}");
    assert_eq!(lab.vnet_json(&["network", "inspect", &blue]), before);
    lab.vnet_ok(&set);
    let changed =
        (NetworkValue::FLAG_ROUTED, mapping::ENDPOINT_INDEPENDENT_TCP, filtering::ENDPOINT_INDEPENDENT);
    assert_eq!(endpoint_choices(&lab, 2), changed);
    assert_eq!(endpoint_choices(&lab, 1), default, "the other network's stay");
    assert_eq!(flags(120, "10.55.0.0"), NetworkValue::FLAG_ROUTED);
    let has_rule = || {
        let rules = lab.entries::<PrefixKey, MasqueradeValue>(maps::MASQUERADE);
        rules.iter().any(|(key, _)| key.addr == addr("10.55.0.0"))
    };
    assert!(!has_rule());
    assert_eq!(lab.vnet_list(&["masquerade", "ls"], "masquerades").len(), 2);

    let shown = &lab.vnet_list(&["network", "inspect", &blue], "networks")[0];
    for (field, value) in [
        ("gateway_mode", "routed"),
        ("udp_mapping", "address-and-port"),
        ("tcp_mapping", "endpoint-independent"),
        ("filtering", "endpoint-independent"),
    ] {
        assert_eq!(shown[field], value, "{shown:#}");
    }
    let table = lab.vnet_ok(&["network", "inspect", &blue]).stdout;
    for words in
        ["gateway mode  routed", "UDP mapping   address-and-port", "filtering     endpoint-independent"]
    {
        assert!(table.contains(words), "no {words:?} in {table}");
    }
    // Asking for the network again is no way to change it, and says what is.
    let again = ["network", "create", &blue, "--subnet", "10.55.0.0/24"];
    lab.vnet_ok(&again);
    lab.vnet(&[&again[..], &["--gateway-mode", "nat"]].concat())
        .fails_with(1, &["routed", &format!("vnet network set {blue}")]);
    lab.vnet_ok(&["network", "set", &blue, "--gateway-mode", "nat"]);
    assert!(has_rule());
    assert_eq!(endpoint_choices(&lab, 2).0, 0);
    lab.vnet(&["network", "set", "nowhere", "--gateway-mode", "nat"]).fails_with(1, &["nowhere", "default"]);
    lab.vnet(&[
        "network",
        "create",
        "in",
        "--subnet",
        "10.56.0.0/24",
        "--internal",
        "--gateway-mode",
        "routed",
    ])
    .fails_with(1, &["internal", "routed"]);
}

#[test]
fn two_endpoints_of_one_network_leave_with_two_addresses() {
    let lab = Lab::new();
    for more in ["203.0.113.5/32", "203.0.113.6/32"] {
        lab.host().ip(&format!("addr add {more} dev {UPLINK}"));
    }
    // One that the host does not choose by itself.
    lab.host().ip(&format!("addr add 2001:db8:113::5/128 dev {UPLINK} nodad preferred_lft 0"));
    lab.vnet_ok(&["up"]);
    let [net1, net2, net3] = ["net1", "net2", "net3"].map(|name| lab.endpoint(name));
    let _server = Server::udp(lab.outside(), "[::]:7");
    let add = |endpoint: IpAddr, to: &str| {
        let length = if endpoint.is_ipv4() { 32 } else { 128 };
        let done = lab.vnet_ok(&["masquerade", "add", &format!("{endpoint}/{length}"), "--to", to]);
        assert_eq!(done.stderr, "", "the address is the host's");
    };
    add(net1.v4(), "203.0.113.5");
    add(net2.v4(), "203.0.113.6");
    add(net2.v6(), "2001:db8:113::5");
    for (endpoint, [v4, v6]) in [
        (&net1, ["203.0.113.5", "2001:db8:113::1"]),
        (&net2, ["203.0.113.6", "2001:db8:113::5"]),
        (&net3, ["203.0.113.1", "2001:db8:113::1"]),
    ] {
        for ((outside, _), seen) in FAMILIES.into_iter().zip([v4, v6]) {
            let answer = Ask::udp((outside, 7).into()).in_netns(endpoint);
            assert_eq!(answer.seen.ip().to_string(), seen, "{}", endpoint.name());
        }
    }
    lab.vnet_ok(&["masquerade", "rm", &format!("{}/32", net1.v4())]);
    let from = (net1.v4(), 50_003).into();
    let answer = Ask::udp((OUTSIDE_V4, 7).into()).from(from).in_netns(&net1);
    assert_eq!(answer.seen.ip(), HOST_V4, "as its network again");

    // An address that goes is not missed in silence.
    assert_eq!(lab.vnet_json(&["status"])["warnings"], json!([]));
    lab.host().ip(&format!("addr del 203.0.113.6/32 dev {UPLINK}"));
    let warnings = lab.vnet_json(&["status"])["warnings"].to_string();
    assert!(warnings.contains("203.0.113.6") && !warnings.contains("203.0.113.5"), "{warnings}");
    let status = lab.vnet_ok(&["status"]).stdout;
    assert!(status.contains("203.0.113.6 is not an address of this host"), "{status}");
    let noted = lab.vnet_ok(&["masquerade", "add", "192.168.0.77/32", "--to", "203.0.113.9"]);
    assert!(noted.stderr.contains("203.0.113.9 is not an address of this host"), "{noted}");
}

#[test]
fn destinations_that_are_left_out_are_entered_and_listed() {
    let lab = Lab::up();
    for destinations in ["10.8.0.0/16", "fd08::/64", "10.8.0.0/16"] {
        lab.vnet_ok(&["masquerade", "exclude", destinations]);
    }
    let mut entered: Vec<PrefixKey> =
        lab.entries::<PrefixKey, u32>(maps::UNMASQUERADED).into_iter().map(|(key, _)| key).collect();
    entered.sort_unstable();
    let (v4, v6) = (
        PrefixKey { prefix_len: 112, addr: addr("10.8.0.0") },
        PrefixKey { prefix_len: 64, addr: addr("fd08::") },
    );
    assert_eq!(entered, [v6, v4]);
    let listed = lab.vnet_json(&["masquerade", "ls"]);
    assert_eq!(listed["excluded"], json!([{"subnet": "10.8.0.0/16"}, {"subnet": "fd08::/64"}]));
    assert_eq!(listed["masquerades"].as_array().map(Vec::len), Some(2));
    let table = lab.vnet_ok(&["masquerade", "ls"]).stdout;
    assert!(table.contains("10.8.0.0/16") && table.contains("EXCLUDED"), "{table}");
    lab.vnet_ok(&["masquerade", "include", "10.8.0.0/16", "--dry-run"]);
    lab.vnet_ok(&["masquerade", "include", "10.8.0.0/16"]);
    lab.vnet_ok(&["masquerade", "include", "10.8.0.0/16"]);
    assert_eq!(lab.vnet_json(&["masquerade", "ls"])["excluded"], json!([{"subnet": "fd08::/64"}]));
    assert_eq!(lab.entries::<PrefixKey, u32>(maps::UNMASQUERADED), [(v6, 0)]);
}

#[test]
fn a_floating_address_is_entered_both_ways_and_goes_with_its_endpoint() {
    let lab = Lab::new();
    lab.host().ip(&format!("addr add 203.0.113.5/32 dev {UPLINK}"));
    lab.host().ip(&format!("addr add 2001:db8:113::5/128 dev {UPLINK} nodad"));
    lab.vnet_ok(&["up"]);
    let [net1, net2] = ["net1", "net2"].map(|name| lab.endpoint(name));
    for _ in 0..2 {
        lab.vnet_ok(&["floating", "add", "203.0.113.5", net1.name()]);
        lab.vnet_ok(&["floating", "add", "2001:db8:113::5", &net2.v6().to_string()]);
    }
    let zone = Zone { id: 1 };
    for (external, own) in [("203.0.113.5", net1.v4()), ("2001:db8:113::5", net2.v6())] {
        let value = lab.entry::<Addr, FloatingValue>(maps::FLOATING, addr(external));
        assert_eq!(value, FloatingValue { addr: own.into(), zone, reserved: [0; 2] });
        let key = host_prefix(&own.to_string());
        let rule = lab.entry::<PrefixKey, MasqueradeValue>(maps::MASQUERADE, key);
        assert_eq!(rule, MasqueradeValue { to: addr(external), flags: MasqueradeValue::FLAG_ONE_TO_ONE });
    }
    let listed = lab.vnet_list(&["floating", "ls"], "floating");
    assert_eq!(
        listed,
        [
            json!({"external": "203.0.113.5", "endpoint": net1.name(), "address": net1.v4()}),
            json!({"external": "2001:db8:113::5", "endpoint": net2.name(), "address": net2.v6()}),
        ]
    );
    let inspected = lab.vnet_ok(&["ns", "inspect", net1.name()]).stdout;
    assert!(inspected.contains("203.0.113.5"), "{inspected}");
    assert_eq!(lab.vnet_json(&["status"])["floating"], 2);

    let target = format!("{}:80", net1.name());
    lab.vnet(&["portmap", "add", "203.0.113.5:80", &target])
        .fails_with(1, &["203.0.113.5", "vnet floating rm 203.0.113.5"]);
    lab.vnet(&["floating", "add", "203.0.113.9", net1.name()])
        .fails_with(1, &["203.0.113.9", "ip addr add 203.0.113.9/32"]);
    lab.vnet(&["floating", "add", "203.0.113.5", net2.name()])
        .fails_with(1, &[net1.name(), "vnet floating rm 203.0.113.5"]);
    lab.vnet(&["floating", "add", "192.168.0.1", net2.name()]).fails_with(1, &["gateway", "default"]);
    let removed = lab.vnet_ok(&["ns", "rm", net1.name()]).stdout;
    assert!(removed.contains("203.0.113.5"), "{removed}");
    lab.vnet_ok(&["floating", "rm", "2001:db8:113::5"]);
    lab.vnet_ok(&["floating", "rm", "2001:db8:113::5"]);
    assert_eq!(lab.entries::<Addr, FloatingValue>(maps::FLOATING), []);
    let rules = lab.entries::<PrefixKey, MasqueradeValue>(maps::MASQUERADE);
    assert!(rules.iter().all(|(key, _)| key.prefix_len < 128), "{rules:#?}");
    // The next one with that name and address does not inherit it.
    assert_eq!(lab.endpoint("net1").addresses(), net1.addresses());
    assert_eq!(lab.vnet_list(&["floating", "ls"], "floating"), [] as [serde_json::Value; 0]);
    assert_eq!(lab.entries::<PrefixKey, MasqueradeValue>(maps::MASQUERADE).len(), rules.len());
}

#[test]
fn everything_chosen_is_brought_back() {
    let lab = Lab::new();
    lab.host().ip(&format!("addr add 203.0.113.5/32 dev {UPLINK}"));
    lab.vnet_ok(&["up", "--timeout", "icmp-query=90", "--max-flows", "1000", "--firewall", "respect"]);
    let net1 = lab.endpoint("net1");
    lab.vnet_ok(&["network", "set", "default", "--filtering", "address-and-port"]);
    lab.vnet_ok(&["masquerade", "exclude", "10.8.0.0/16"]);
    lab.vnet_ok(&["floating", "add", "203.0.113.5", net1.name()]);
    let state = |lab: &Lab| {
        let mut rules = lab.entries::<PrefixKey, MasqueradeValue>(maps::MASQUERADE);
        rules.sort_unstable_by_key(|(key, _)| *key);
        (
            config(lab),
            rules,
            lab.entries::<PrefixKey, u32>(maps::UNMASQUERADED),
            lab.entries::<Addr, FloatingValue>(maps::FLOATING),
            endpoint_choices(lab, 1),
            lab.room::<u32, Tuple>(maps::FLOW_SLOTS),
        )
    };
    let before = state(&lab);
    // As after a boot, or a hand that slipped: no maps, no programs.
    let pins = lab.pin_dir();
    lab.host().run(&["rm", "-r", pins.to_str().expect("ASCII")]).ok();
    lab.vnet_ok(&["up"]);
    assert_eq!(state(&lab), before);
}
