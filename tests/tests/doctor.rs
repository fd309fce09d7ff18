//! The doctor, on hosts with which something is really wrong: it names that and nothing else, and what it advises helps.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use vnet_tests::lab::{Lab, eventually};

/// The findings, each as its check, its problem and its fix.
fn findings(lab: &Lab) -> Vec<(String, String, String)> {
    let text = |finding: &Value, key: &str| finding[key].as_str().expect("text").to_owned();
    let found = lab.vnet_list(&["doctor"], "findings");
    found.iter().map(|it| (text(it, "check"), text(it, "problem"), text(it, "fix"))).collect()
}

/// Waits for findings of these checks, in this order and no others, and gives their problems and fixes.
fn finds(lab: &Lab, checks: &[&str]) -> Vec<(String, String)> {
    let mut seen = Vec::new();
    let found = eventually(
        || {
            seen = findings(lab);
            seen.iter().map(|(check, ..)| check.as_str()).eq(checks.iter().copied()).then(|| seen.clone())
        },
        || format!("the doctor to find {checks:?}"),
    );
    found.into_iter().map(|(_, problem, fix)| (problem, fix)).collect()
}

#[test]
fn the_doctor_finds_nothing_on_a_host_that_is_well() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    lab.vnet_ok(&["portmap", "add", "9000-9999", &format!("{}:9000-9999", net1.name()), "--proto", "udp"]);
    lab.vnet_ok(&["limit", "set", net1.name(), "--egress", "50mbit", "--ingress", "50mbit"]);
    assert_eq!(findings(&lab), []);
}

#[test]
fn the_doctor_finds_what_is_not_as_recorded_and_up_brings_it_back() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    lab.host().ip("link set vnet0 mtu 1400");
    let [(problem, fix)] = &finds(&lab, &["record"])[..] else { unreachable!() };
    assert!(problem.contains("bridge vnet0") && fix.contains("`vnet up`"), "{problem}, {fix}");
    lab.vnet_ok(&["up"]);
    finds(&lab, &[]);

    let pins = lab.pin_dir().join("links");
    let links = fs::read_dir(&pins).expect("links").map(|entry| entry.expect("a link").path());
    let of_uplink = links.filter(|path| path.to_string_lossy().contains("from_uplink@"));
    of_uplink.for_each(|path| fs::remove_file(path).expect("unpin"));
    let [(problem, _)] = &finds(&lab, &["record"])[..] else { unreachable!() };
    assert!(problem.starts_with("program from_uplink on "), "{problem}");
    lab.vnet_ok(&["up"]);
    finds(&lab, &[]);

    net1.run(&["ip", "route", "del", "default"]);
    let [(problem, _)] = &finds(&lab, &["endpoints"])[..] else { unreachable!() };
    assert!(problem.contains("there is no route to 0.0.0.0/0 by 192.168.0.1"), "{problem}");
    lab.vnet_ok(&["up"]);
    finds(&lab, &[]);
}

#[test]
fn the_doctor_finds_what_is_wrong_with_the_host() {
    let lab = Lab::up();
    let _net1 = lab.endpoint("net1");
    let host = lab.host();
    host.ip("link set eth0 mtu 1400");
    let [(problem, _)] = &finds(&lab, &["mtu"])[..] else { unreachable!() };
    assert!(problem.contains("uplink eth0 one of 1400"), "{problem}");
    host.ip("link set eth0 mtu 1500");

    host.ip("link add other type veth peer name other2");
    host.ip("link set other up");
    host.ip("link set other2 up");
    host.ip("route add 192.168.0.128/25 dev other");
    let [(problem, _)] = &finds(&lab, &["routes"])[..] else { unreachable!() };
    assert!(problem.contains("192.168.0.128/25 over other"), "{problem}");
    host.ip("route del 192.168.0.128/25 dev other");

    host.ip("address add 198.51.100.1/24 dev other");
    host.ip("route replace default via 198.51.100.2");
    let [(problem, fix)] = &finds(&lab, &["uplinks"])[..] else { unreachable!() };
    assert!(problem.contains("IPv4 leads out by other"), "{problem}");
    assert_eq!(fix, "`vnet up --uplink other`");
    lab.vnet_ok(&["up", "--uplink", "other"]);
    finds(&lab, &[]);
    host.ip("link delete other");
    host.ip("route add default via 203.0.113.2");
    let [(problem, _)] = &finds(&lab, &["uplinks"])[..] else { unreachable!() };
    assert!(problem.contains("uplink other is gone"), "{problem}");
    lab.vnet_ok(&["up"]);
    finds(&lab, &[]);

    fs::set_permissions(lab.run_dir(), fs::Permissions::from_mode(0o755)).expect("open the directory");
    let [(problem, fix)] = &finds(&lab, &["permissions"])[..] else { unreachable!() };
    assert!(problem.contains("(mode 0755)") && fix.contains("chmod go-rwx"), "{problem}, {fix}");
    fs::set_permissions(lab.run_dir(), fs::Permissions::from_mode(0o700)).expect("close it");
    finds(&lab, &[]);

    host.ip("link set eth0 down");
    let found = findings(&lab);
    assert!(found.iter().any(|(_, problem, _)| problem.contains("uplink eth0 is down")), "{found:#?}");
}
