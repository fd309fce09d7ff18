//! vnet without the rights it does not need: `CAP_NET_ADMIN` and `CAP_BPF` do for all but namespaces and mounts.

use vnet_tests::lab::{Lab, Output, vnet_binary};

/// Runs vnet as root with these capabilities and no others, as `setpriv` calls them.
fn with(lab: &Lab, capabilities: &[&str], args: &[&str]) -> Output {
    let kept: Vec<String> = capabilities.iter().map(|name| format!(",+{name}")).collect();
    let bounds = format!("-all{}", kept.concat());
    let binary = vnet_binary();
    let vnet = [binary.to_str().expect("a path in UTF-8"), "--instance", lab.instance()];
    let argv = [&["setpriv", "--bounding-set", &bounds, "--"], &vnet[..], args].concat();
    let argv: Vec<String> = argv.into_iter().map(str::to_owned).collect();
    lab.host().run_with(&argv, &lab.environment())
}

/// What every command takes.
const EVERY: [&str; 2] = ["net_admin", "bpf"];

fn ok(lab: &Lab, capabilities: &[&str], args: &[&str]) -> String {
    let output = with(lab, capabilities, args);
    assert_eq!(output.status, Some(0), "with {capabilities:?}: {output}");
    output.stdout
}

#[track_caller]
fn lacks(lab: &Lab, capabilities: &[&str], args: &[&str], missing: &str) {
    let before = lab.snapshot();
    let output = with(lab, capabilities, args);
    assert_eq!(output.status, Some(1), "with {capabilities:?}: {output}");
    assert!(output.stderr.contains(&format!("what is missing: {missing} (to ")), "{output}");
    let after = lab.snapshot();
    assert_eq!(before, after, "nothing is half-done");
}

#[test]
fn an_instance_is_brought_up_without_the_right_to_administer_the_system() {
    let lab = Lab::new();
    lacks(&lab, &EVERY, &["up"], "CAP_PERFMON");
    ok(&lab, &["net_admin", "bpf", "perfmon"], &["up"]);
}

#[test]
fn an_instance_is_changed_with_two_capabilities() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    for args in [
        &["portmap", "add", "8088", &format!("{}:80", net1.name())][..],
        &["network", "create", "blue", "--subnet", "10.77.0.0/24"],
        &["masquerade", "add", "10.78.0.0/24"],
        &["status"],
        &["flow", "ls"],
        &["flow", "flush"],
        &["drops"],
        &["limit", "set", "--classid", "1:10", "--egress", "50mbit"],
        &["limit", "set", "--cgroup", "/", "--egress", "1gbit"],
        &["limit", "rm", "--classid", "1:10"],
        &["limit", "rm", "--cgroup", "/"],
        &["masquerade", "rm", "10.78.0.0/24"],
        &["portmap", "rm", "8088"],
        &["network", "rm", "blue"],
    ] {
        ok(&lab, &EVERY, args);
    }
}

#[test]
fn what_is_missing_is_named_before_anything_is_changed() {
    let lab = Lab::up();
    lacks(&lab, &["bpf"], &["status"], "CAP_NET_ADMIN");
    lacks(&lab, &["net_admin"], &["flow", "ls"], "CAP_BPF");
    lacks(&lab, &EVERY, &["ns", "create", &lab.name("net1")], "CAP_SYS_ADMIN");
    lacks(&lab, &[], &["down"], "CAP_NET_ADMIN");
}

#[test]
fn a_router_is_entered_with_the_right_to_enter_namespaces() {
    let lab = Lab::new();
    lab.host().ip("link add br-out type bridge");
    let create = ["router", "create", lab.instance(), "--outside", "br-out", "--address", "16.158.1.100/24"];
    let all = ["net_admin", "bpf", "perfmon", "sys_admin"];
    lacks(&lab, &all[..3], &create, "CAP_SYS_ADMIN");
    ok(&lab, &all, &create);
    lacks(&lab, &EVERY, &["status"], "CAP_SYS_ADMIN");
    ok(&lab, &["net_admin", "bpf", "sys_admin"], &["status"]);
    ok(&lab, &["net_admin", "bpf"], &["router", "ls"]);
}
