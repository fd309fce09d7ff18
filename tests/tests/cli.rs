//! The command line: exit codes, messages, `--json`, `--dry-run`, doing things twice.

use serde_json::Value;
use vnet_tests::lab::{FAMILIES, Lab, UPLINK, eventually};
use vnet_tests::peer::{Ask, Ping, Server};

const LISTS: [(&[&str], &str); 7] = [
    (&["ns", "ls"], "endpoints"),
    (&["network", "ls"], "networks"),
    (&["portmap", "ls"], "portmaps"),
    (&["masquerade", "ls"], "masquerades"),
    (&["floating", "ls"], "floating"),
    (&["flow", "ls"], "flows"),
    (&["drops"], "drops"),
];

#[test]
fn nonsense_is_a_usage_error() {
    let lab = Lab::new();
    for args in [
        &["frobnicate"][..],
        &[],
        &["ns"],
        &["ns", "create"],
        &["ns", "create", "../etc"],
        &["ns", "create", "a b"],
        &["ns", "create", "net1", "--ip", "nowhere"],
        &["ns", "create", "net1", "--mac", "nowhere"],
        &["network", "connect", "blue"],
        &["network", "create", "blue", "--range", "10.0.0.0"],
        &["network", "create", "blue", "--subnet", "10.0.0.0"],
        &["network", "create", "blue", "--subnet", "10.0.0.0/33"],
        &["network", "create", "blue", "--subnet", "10.0.0.7/24"],
        &["portmap", "add", "8088"],
        &["portmap", "add", "0", "net1:80"],
        &["portmap", "add", "65536", "net1:80"],
        &["portmap", "add", "90-80", "net1:80-90"],
        &["portmap", "add", "8088", "net1"],
        &["portmap", "add", "fd00::1:80", "net1:80"],
        &["portmap", "add", "8088", "net1:80", "--proto", "smoke"],
        &["masquerade", "add", "10.0.0.0"],
        &["up", "--subnet", "everything"],
        &["--instance", "a/b", "status"],
    ] {
        let output = lab.vnet(args);
        assert_eq!(output.status, Some(2), "expected a usage error: {output}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "say so on standard error: {output}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    let lab = Lab::new();
    let help = lab.vnet_ok(&["--help"]).stdout;
    for noun in [
        "up",
        "down",
        "status",
        "network",
        "ns",
        "portmap",
        "masquerade",
        "floating",
        "flow",
        "drops",
        "trace",
    ] {
        assert!(help.contains(noun), "no {noun} in {help}");
    }
    assert!(lab.vnet_ok(&["--version"]).stdout.contains("vnet"));
    lab.vnet_ok(&["portmap", "add", "--help"]);
}

#[test]
fn what_is_not_up_says_so() {
    let lab = Lab::new();
    for args in [
        &["ns", "create", "net1"][..],
        &["ns", "ls"],
        &["network", "ls"],
        &["portmap", "add", "8088", "192.168.0.2:80"],
        &["masquerade", "ls"],
        &["flow", "ls"],
    ] {
        lab.vnet(args).fails_with(1, &["not up", lab.instance()]);
    }
    lab.vnet_ok(&["down"]);
}

#[test]
fn an_uplink_is_chosen_or_asked_for() {
    let lab = Lab::new();
    lab.host().ip("route del default");
    lab.host().ip("-6 route del default");
    lab.vnet(&["up"]).fails_with(1, &["default route", "--uplink", UPLINK]);
    lab.vnet(&["up", "--uplink", "eth7"]).fails_with(1, &["eth7", UPLINK]);
    lab.vnet(&["up", "--uplink", "lo"]).fails_with(1, &["lo"]);
    lab.vnet_ok(&["up", "--uplink", UPLINK]);
    let net1 = lab.endpoint("net1");
    // The other side is on the link, so there is no need for a default route.
    for (outside, _) in FAMILIES {
        Ping::to(outside).in_netns(&net1);
    }
}

#[test]
fn prefixes_in_use_are_refused_by_name() {
    let lab = Lab::new();
    lab.host().ip("route add 10.64.0.0/10 via 203.0.113.2");
    lab.vnet(&["up", "--subnet", "203.0.113.128/25"])
        .fails_with(1, &["203.0.113.128/25", "203.0.113.1", UPLINK]);
    lab.vnet(&["up", "--subnet", "10.100.0.0/16"]).fails_with(1, &["10.100.0.0/16", "10.64.0.0/10"]);
    lab.vnet_ok(&["up"]);
    let blue = lab.name("blue");
    let create = |subnet: &str| lab.vnet(&["network", "create", &blue, "--subnet", subnet]);
    create("192.168.0.0/25").fails_with(1, &["192.168.0.0/25", "192.168.0.0/24", "default"]);
    create("2001:db8:113::/80").fails_with(1, &["2001:db8:113::/80", UPLINK]);
    create("10.100.0.0/16").fails_with(1, &["10.64.0.0/10"]);
    create("10.55.0.0/24").ok();
}

#[test]
fn doing_it_twice_is_doing_it_once() {
    let lab = Lab::new();
    let (net1, blue) = (lab.name("net1"), lab.name("blue"));
    let publish = ["portmap", "add", "8088", &format!("{net1}:80")];
    let commands: [&[&str]; 8] = [
        &["up"],
        &["network", "create", &blue, "--subnet", "10.55.0.0/24"],
        &["ns", "create", &net1, "--network", &blue, "--ip", "10.55.0.9"],
        &publish,
        &["masquerade", "add", "172.31.0.0/24"],
        &["masquerade", "exclude", "10.8.0.0/16"],
        &["network", "set", &blue, "--gateway-mode", "nat-unprotected"],
        &["floating", "add", "203.0.113.1", &net1],
    ];
    for command in commands {
        lab.vnet_ok(command);
        let (once, lists) = (lab.snapshot(), all_lists(&lab));
        lab.vnet_ok(command);
        lab.snapshot().assert_same_as(&once);
        assert_eq!(all_lists(&lab), lists, "{command:?}");
    }
    // But not something else under the same name.
    lab.vnet(&["ns", "create", &net1]).fails_with(1, &[&net1]);
    lab.vnet(&["network", "create", &blue, "--subnet", "10.56.0.0/24"]).fails_with(1, &[&blue, "10.5"]);
}

/// What was asked for, as it is listed, without what changes by itself.
fn all_lists(lab: &Lab) -> Vec<Value> {
    let mut items: Vec<Value> =
        LISTS[..5].iter().flat_map(|(args, list)| lab.vnet_list(args, list)).collect();
    for item in &mut items {
        item.as_object_mut().expect("an object").remove("age");
    }
    items
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let lab = Lab::new();
    let before = lab.snapshot();
    let plan = lab.vnet_ok(&["up", "--dry-run"]);
    for word in ["bridge", "vnet0", "192.168.0", UPLINK] {
        assert!(plan.stdout.contains(word), "no {word} in the plan: {plan}");
    }
    lab.snapshot().assert_same_as(&before);
    lab.vnet_ok(&["up"]);
    let net1 = lab.endpoint("net1");
    let before = lab.snapshot();
    let (net2, blue) = (lab.name("net2"), lab.name("blue"));
    let target = format!("{}:80", net1.name());
    for (args, word) in [
        (&["ns", "create", &net2, "--dry-run"][..], net2.as_str()),
        (&["network", "create", &blue, "--subnet", "10.55.0.0/24", "--dry-run"], "10.55.0"),
        (&["portmap", "add", "8088", &target, "--dry-run"], "8088"),
        (&["ns", "rm", net1.name(), "--dry-run"], net1.name()),
        (&["down", "--dry-run"], "vnet0"),
    ] {
        let lists = all_lists(&lab);
        let plan = lab.vnet_ok(args);
        assert!(plan.stdout.contains(word), "no {word} in the plan: {plan}");
        lab.snapshot().assert_same_as(&before);
        assert_eq!(all_lists(&lab), lists, "{args:?}");
    }
}

#[test]
fn json_is_versioned_and_complete() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _server = Server::echo(lab.outside(), "[::]:7");
    lab.vnet_ok(&["portmap", "add", "203.0.113.1:9000-9009", &format!("{}:8000-8009", net1.name())]);
    for (outside, _) in FAMILIES {
        Ask::tcp((outside, 7).into()).in_netns(&net1);
    }
    for (args, list) in LISTS {
        let json = lab.vnet_json(args);
        assert_eq!(json["version"], 1, "{args:?}: {json:#}");
        assert!(json[list].is_array(), "{args:?}: {json:#}");
    }
    let endpoints = lab.vnet_list(&["ns", "ls"], "endpoints");
    assert_eq!(endpoints.len(), 1);
    assert_eq!(endpoints[0]["name"], net1.name());
    for address in net1.addresses() {
        assert!(
            endpoints[0].to_string().contains(&address.to_string()),
            "no {address} in {:#}",
            endpoints[0]
        );
    }
    let networks = lab.vnet_list(&["network", "ls"], "networks");
    assert_eq!(networks.len(), 1);
    assert_eq!(networks[0]["name"], "default");
    assert_eq!(networks[0]["bridge"], "vnet0");
    assert_eq!(lab.vnet_list(&["masquerade", "ls"], "masquerades").len(), 2);
    assert_eq!(lab.vnet_list(&["portmap", "ls"], "portmaps").len(), 1);
    assert_eq!(lab.vnet_list(&["flow", "ls"], "flows").len(), 2);
    let status = lab.vnet_json(&["status"]);
    assert_eq!(status["version"], 1, "{status:#}");
    for (args, word) in
        [(["ns", "inspect", net1.name()], net1.name()), (["network", "inspect", "default"], "vnet0")]
    {
        let inspected = lab.vnet_json(&args);
        assert_eq!(inspected["version"], 1, "{inspected:#}");
        assert!(inspected.to_string().contains(word), "{inspected:#}");
    }
    // An error is no JSON on standard output, and what is not there is named.
    let missing = lab.vnet(&["--json", "ns", "inspect", "nobody"]).fails_with(1, &["nobody"]);
    assert_eq!(missing.stdout, "");
}

#[test]
fn status_says_what_is_up() {
    let lab = Lab::new();
    let down = lab.vnet(&["status"]);
    assert!(down.to_string().contains("down") || down.to_string().contains("not up"), "{down}");
    lab.vnet_ok(&["up"]);
    let _net1 = lab.endpoint("net1");
    let status = lab.vnet_ok(&["status"]).stdout;
    for word in [lab.instance(), UPLINK, "vnet0"] {
        assert!(status.contains(word), "no {word} in {status}");
    }
}

#[test]
fn exec_is_the_command_in_the_namespace() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let exec = |argv: &[&str]| lab.vnet(&[&["ns", "exec", net1.name(), "--"], argv].concat());
    assert!(exec(&["ip", "-4", "addr"]).ok().stdout.contains("192.168.0.2"));
    // Its exit code, its arguments, its outputs.
    assert_eq!(exec(&["sh", "-c", "exit 42"]).status, Some(42));
    let echoed = exec(&["sh", "-c", "echo \"$0|$1\"; echo complaint >&2", "a b", "--json"]).ok();
    assert_eq!((echoed.stdout.as_str(), echoed.stderr.as_str()), ("a b|--json\n", "complaint\n"));
    exec(&["no-such-program"]).fails_with(1, &["no-such-program"]);
    lab.vnet(&["ns", "exec", "nobody", "--", "true"]).fails_with(1, &["nobody"]);
    // The file systems are seen as they are: `ip netns exec` would hide the pins.
    let pins = lab.pin_dir();
    assert!(exec(&["ls", pins.to_str().unwrap()]).ok().stdout.contains("port_map"));
}

#[test]
fn two_commands_at_once_queue() {
    let lab = Lab::up();
    let names: Vec<String> = (1..=6).map(|n| lab.name(&format!("net{n}"))).collect();
    let mut creations: Vec<_> = names.iter().map(|name| lab.vnet_start(&["ns", "create", name])).collect();
    for creation in &mut creations {
        assert_eq!(creation.wait(), Some(0), "{:#?}", creation.lines());
    }
    let mut addresses: Vec<String> =
        names.iter().map(|name| vnet_tests::lab::Endpoint::observe(name).v4().to_string()).collect();
    addresses.sort();
    assert_eq!(addresses, (2..=7).map(|n| format!("192.168.0.{n}")).collect::<Vec<_>>());
}

#[test]
fn instances_live_side_by_side() {
    let (one, two) = (Lab::up(), Lab::up());
    for lab in [&one, &two] {
        let net1 = lab.endpoint("net1");
        assert_eq!(net1.v4().to_string(), "192.168.0.2", "each has the whole address space");
        let _server = Server::echo(&net1, "[::]:80");
        lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
        for (outside, host) in FAMILIES {
            Ping::to(outside).in_netns(&net1);
            Ask::tcp((host, 8088).into()).in_netns(lab.outside());
            Ask::tcp((host, 8088).into()).in_netns(lab.host());
        }
    }
    let before = two.snapshot();
    one.vnet_ok(&["down"]);
    two.snapshot().assert_same_as(&before);
    let net1 = vnet_tests::lab::Endpoint::observe(&two.name("net1"));
    Ping::to(vnet_tests::lab::OUTSIDE_V4).in_netns(&net1);
}

#[test]
fn flows_and_drops_can_be_watched() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let flows = lab.vnet_start(&["flow", "watch"]);
    let drops = lab.vnet_start(&["drops", "-f"]);
    let _server = Server::echo(lab.outside(), "[::]:7");
    lab.outside().ip("route add 192.168.0.0/24 via 203.0.113.1");
    // Whoever watches sees what happens from some moment on; so let it happen until it is seen.
    eventually(
        || {
            Ask::tcp((vnet_tests::lab::OUTSIDE_V4, 7).into()).in_netns(&net1);
            flows.lines().iter().any(|line| line.contains("192.168.0.2")).then_some(())
        },
        || format!("a flow in {:#?}", flows.lines()),
    );
    eventually(
        || {
            let _ = Ping::to(net1.v4()).fails_in(lab.outside());
            drops.lines().iter().any(|line| line.contains("direct-access")).then_some(())
        },
        || format!("a drop in {:#?}", drops.lines()),
    );
}

#[test]
fn without_capabilities_it_says_which_is_missing() {
    let lab = Lab::new();
    let binary = vnet_tests::lab::vnet_binary();
    let bounded = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", "--"];
    let argv: Vec<&str> = bounded.into_iter().chain([binary.to_str().unwrap(), "up"]).collect();
    let argv: Vec<String> = argv.into_iter().map(str::to_owned).collect();
    lab.host().run_with(&argv, &lab.environment()).fails_with(1, &["CAP_NET_ADMIN"]);
}
