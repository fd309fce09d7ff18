//! What is left afterwards: of `down`, of a command that failed half-way, of one that was killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use vnet_tests::lab::{FAMILIES, HOST_V4, Lab, Netns, OUTSIDE_V4, UPLINK, eventually, vnet_binary};
use vnet_tests::peer::{Ask, Ping, Server};
use vnet_tests::report::report;

/// Moments, in milliseconds after its start, at which a command is killed. Together with what it takes to start
/// a process they lie before, in, and after its work; the outcome must not depend on where.
const MOMENTS: [u64; 14] = [0, 1, 2, 3, 5, 8, 12, 17, 23, 30, 40, 55, 80, 120];

#[test]
fn down_leaves_the_host_as_it_was() {
    let lab = Lab::new();
    lab.host().write("/proc/sys/net/ipv4/ip_local_reserved_ports", "8080,50000-50010");
    lab.host().ip(&format!("addr add 203.0.113.5/32 dev {UPLINK}"));
    let before = lab.snapshot();
    lab.vnet_ok(&["up"]);
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    let blue = lab.name("blue");
    lab.vnet_ok(&["network", "create", &blue, "--subnet", "10.55.0.0/24", "--subnet", "fd55::/64"]);
    let net3 = lab.endpoint_with("net3", &["--network", &blue]);
    for (n, endpoint) in [&net1, &net2, &net3].into_iter().enumerate() {
        let ports = format!("{}-{}", 8000 + 10 * n, 8009 + 10 * n);
        lab.vnet_ok(&["portmap", "add", &ports, &format!("{}:{ports}", endpoint.name())]);
    }
    lab.vnet_ok(&["masquerade", "add", "172.31.0.0/24"]);
    lab.vnet_ok(&["masquerade", "exclude", "10.8.0.0/16"]);
    lab.vnet_ok(&["network", "set", &blue, "--gateway-mode", "routed"]);
    lab.vnet_ok(&["floating", "add", "203.0.113.5", net2.name()]);
    lab.vnet_ok(&["up", "--nat-ports", "55000-55999", "--firewall", "respect"]);
    let _server = Server::echo(lab.outside(), "[::]:7");
    for (outside, _) in FAMILIES {
        Ask::tcp((outside, 7).into()).in_netns(&net1);
    }
    let up = lab.snapshot();
    for words in [&["link:", "vnet0"][..], &["namespace:", net1.name()], &["pins:"], &["state:"]] {
        assert!(up.mentions(words), "the comparison would not see {words:?}");
    }
    lab.vnet_ok(&["down"]);
    lab.snapshot().assert_same_as(&before);
    // Whatever was attached to the uplink is gone as well: TCX and clsact.
    let attached = lab.host().run(&["bpftool", "net", "show", "dev", UPLINK]).stdout;
    assert!(!attached.contains("uplink"), "{attached}");
}

#[test]
fn what_is_removed_piece_by_piece_is_gone_piece_by_piece() {
    let lab = Lab::up();
    let before = lab.snapshot();
    let net1 = lab.endpoint("net1");
    let blue = lab.name("blue");
    lab.vnet_ok(&["network", "create", &blue, "--subnet", "10.55.0.0/24"]);
    let net2 = lab.endpoint_with("net2", &["--network", &blue]);
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    lab.vnet_ok(&["portmap", "rm", "8088"]);
    lab.vnet_ok(&["ns", "rm", net1.name()]);
    lab.vnet(&["network", "rm", &blue]).fails_with(1, &[&blue, net2.name()]);
    lab.vnet_ok(&["ns", "rm", net2.name()]);
    lab.vnet_ok(&["network", "rm", &blue]);
    lab.snapshot().assert_same_as(&before);
    for (noun, list) in [("ns", "endpoints"), ("portmap", "portmaps"), ("flow", "flows")] {
        assert_eq!(lab.vnet_list(&[noun, "ls"], list), [] as [serde_json::Value; 0]);
    }
}

#[test]
fn what_is_not_vnet_s_is_left_alone() {
    let lab = Lab::new();
    let host = lab.host();
    // Neighbours on a real host: somebody's bridge, veth pair, rules, qdisc and settings, some named like ours.
    host.ip("link add cni0 type bridge");
    host.ip("addr add 10.88.0.1/16 dev cni0");
    host.ip("link set cni0 up");
    host.ip("link add vn-other type veth peer name vnet-other");
    host.ip("link set vn-other master cni0 up");
    host.ip("route add 198.51.100.0/24 via 203.0.113.2");
    host.run(&["tc", "qdisc", "add", "dev", "cni0", "root", "pfifo", "limit", "77"]).ok();
    host.run(&[
        "nft",
        "add table inet mine; add chain inet mine forward { type filter hook forward priority 0; }",
    ])
    .ok();
    host.write("/proc/sys/net/ipv4/conf/all/rp_filter", "2");
    let theirs = Netns::named(&lab.name("theirs"));
    theirs.create();
    let before = lab.snapshot();
    lab.vnet_ok(&["up"]);
    let net1 = lab.endpoint("net1");
    Ping::to(OUTSIDE_V4).in_netns(&net1);
    lab.vnet_ok(&["down"]);
    lab.snapshot().assert_same_as(&before);
    theirs.delete();
}

#[test]
fn a_foreign_thing_in_the_way_is_named_and_left_alone() {
    let lab = Lab::new();
    lab.host().ip("link add vnet0 type bridge");
    let before = lab.snapshot();
    lab.vnet(&["up"]).fails_with(1, &["vnet0"]);
    lab.snapshot().assert_same_as(&before);
    lab.vnet_ok(&["up", "--bridge", "ours0"]);
    let theirs = Netns::named(&lab.name("theirs"));
    theirs.create();
    let before = lab.snapshot();
    lab.vnet(&["ns", "create", theirs.name()]).fails_with(1, &[theirs.name()]);
    lab.snapshot().assert_same_as(&before);
    lab.vnet_ok(&["down"]);
    assert!(theirs.exists());
    theirs.delete();
}

/// A cgroup whose processes have this much memory, and the kernel for them.
struct MemoryLimit {
    dir: PathBuf,
}

impl MemoryLimit {
    /// `None` where cgroups do not limit memory.
    fn new(lab: &Lab, bytes: u64) -> Option<Self> {
        let first = Path::new("/sys/fs/cgroup/memory");
        let second = Path::new("/sys/fs/cgroup");
        let delegated = fs::read_to_string(second.join("cgroup.subtree_control")).unwrap_or_default();
        let (parent, limit) = if delegated.split_whitespace().any(|controller| controller == "memory") {
            (second, "memory.max")
        } else if first.join("memory.limit_in_bytes").exists() {
            (first, "memory.limit_in_bytes")
        } else {
            return None;
        };
        let it = Self { dir: parent.join(lab.name("small")) };
        fs::create_dir(&it.dir).unwrap();
        fs::write(it.dir.join(limit), bytes.to_string()).unwrap();
        Some(it)
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        fs::remove_dir(&self.dir).unwrap();
    }
}

#[test]
fn an_instance_that_there_is_no_memory_for_is_refused_and_leaves_nothing() {
    let lab = Lab::new();
    let before = lab.snapshot();
    // Enough for vnet and the tables as they are by default, and no more.
    let Some(limit) = MemoryLimit::new(&lab, 256 << 20) else {
        report("not tried without memory: no cgroup here limits it");
        return;
    };
    let up = |flows| {
        let (procs, vnet) = (limit.dir.join("cgroup.procs"), vnet_binary());
        let enter =
            format!("echo $$ > {} && exec {} up --max-flows {flows}", procs.display(), vnet.display());
        lab.host().run_with(&["sh".to_owned(), "-c".to_owned(), enter], &lab.environment())
    };
    up(4_000_000).fails_with(1, &["no memory", "conntrack", "4000000", "--max-flows"]);
    lab.snapshot().assert_same_as(&before);
    up(10_000).ok();
    lab.vnet_ok(&["down"]);
    lab.snapshot().assert_same_as(&before);
}

#[test]
fn a_creation_that_fails_half_way_is_undone() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let before = lab.snapshot();
    let name = lab.name("net2");
    let taken = net1.v4().to_string();
    lab.vnet(&["ns", "create", &name, "--ip", &taken]).fails_with(1, &[&taken, net1.name()]);
    lab.snapshot().assert_same_as(&before);
    for (ip, word) in
        [("10.1.2.3", "10.1.2.3"), ("192.168.0.255", "192.168.0.255"), ("192.168.0.1", "192.168.0.1")]
    {
        lab.vnet(&["ns", "create", &name, "--ip", ip]).fails_with(1, &[word]);
    }
    lab.vnet(&["ns", "create", &name, "--network", "no-such"]).fails_with(1, &["no-such"]);
    lab.snapshot().assert_same_as(&before);
    // The address that was asked for in vain is still free.
    assert_eq!(lab.endpoint("net2").v4().to_string(), "192.168.0.3");
}

#[test]
fn an_up_that_is_killed_is_completed_by_up_and_removed_by_down() {
    let lab = Lab::new();
    let before = lab.snapshot();
    for moment in MOMENTS {
        let mut up = lab.vnet_start(&["up"]);
        // Not to wait for anything: this is the moment at which it dies.
        thread::sleep(Duration::from_millis(moment));
        up.signal(Signal::SIGKILL);
        up.wait();
        if moment % 2 == 0 {
            lab.vnet_ok(&["up"]);
            Ping::to(OUTSIDE_V4).in_netns(&lab.endpoint("net1"));
        }
        lab.vnet_ok(&["down"]);
        lab.snapshot().assert_same_as(&before);
    }
}

#[test]
fn a_creation_that_is_killed_is_completed_by_the_same_command() {
    let lab = Lab::up();
    let before = lab.snapshot();
    let name = lab.name("net1");
    for moment in MOMENTS {
        let mut create = lab.vnet_start(&["ns", "create", &name]);
        thread::sleep(Duration::from_millis(moment));
        create.signal(Signal::SIGKILL);
        create.wait();
        let net1 = lab.endpoint("net1");
        Ping::to(OUTSIDE_V4).in_netns(&net1);
        let mut publish = lab.vnet_start(&["portmap", "add", "8000-8099", &format!("{name}:8000-8099")]);
        thread::sleep(Duration::from_millis(moment));
        publish.signal(Signal::SIGKILL);
        publish.wait();
        lab.vnet_ok(&["portmap", "add", "8000-8099", &format!("{name}:8000-8099")]);
        let _server = Server::echo(&net1, "[::]:8077");
        Ask::tcp((HOST_V4, 8077).into()).in_netns(lab.outside());
        let mut remove = lab.vnet_start(&["ns", "rm", &name]);
        thread::sleep(Duration::from_millis(moment));
        remove.signal(Signal::SIGKILL);
        remove.wait();
        lab.vnet_ok(&["ns", "rm", &name]);
        lab.snapshot().assert_same_as(&before);
    }
}

#[test]
fn a_down_that_is_killed_is_completed_by_down() {
    let lab = Lab::new();
    let before = lab.snapshot();
    for moment in MOMENTS {
        lab.vnet_ok(&["up"]);
        let _net1 = lab.endpoint("net1");
        let mut down = lab.vnet_start(&["down"]);
        thread::sleep(Duration::from_millis(moment));
        down.signal(Signal::SIGKILL);
        down.wait();
        lab.vnet_ok(&["down"]);
        lab.snapshot().assert_same_as(&before);
    }
}

#[test]
fn a_change_that_is_killed_is_completed_by_the_same_command() {
    let lab = Lab::new();
    lab.host().ip(&format!("addr add 203.0.113.5/32 dev {UPLINK}"));
    let untouched = lab.snapshot();
    lab.vnet_ok(&["up"]);
    let net1 = lab.endpoint("net1");
    let before = lab.snapshot();
    let changes: [(&[&str], &[&str]); 4] = [
        (
            &["up", "--nat-ports", "55000-55999", "--firewall", "respect"],
            &["up", "--nat-ports", "49152-65535", "--firewall", "bypass"],
        ),
        (
            &["network", "set", "default", "--gateway-mode", "routed"],
            &["network", "set", "default", "--gateway-mode", "nat"],
        ),
        (&["masquerade", "exclude", "10.8.0.0/16"], &["masquerade", "include", "10.8.0.0/16"]),
        (&["floating", "add", "203.0.113.5", net1.name()], &["floating", "rm", "203.0.113.5"]),
    ];
    for (there, back) in changes {
        for moment in MOMENTS {
            for change in [there, back] {
                let mut command = lab.vnet_start(change);
                thread::sleep(Duration::from_millis(moment));
                command.signal(Signal::SIGKILL);
                command.wait();
                lab.vnet_ok(change);
            }
            let status = lab.vnet_json(&["status"]);
            assert_eq!(status["problems"].as_array().map(Vec::len), Some(0), "{status:#}");
            lab.snapshot().assert_same_as(&before);
        }
    }
    lab.vnet_ok(&["down"]);
    lab.snapshot().assert_same_as(&untouched);
}

#[test]
fn down_takes_what_is_published_with_it() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let _server = Server::echo(&net1, "[::]:80");
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    let published = Ask::tcp((HOST_V4, 8088).into());
    published.in_netns(lab.outside());
    published.in_netns(lab.host());
    lab.vnet_ok(&["down"]);
    published.fails_in(lab.outside());
    published.fails_in(lab.host());
    Ask::tcp("127.0.0.1:8088".parse().unwrap()).fails_in(lab.host());
    // And the host's own traffic is as it ever was.
    Ping::to(OUTSIDE_V4).in_netns(lab.host());
}

#[test]
fn an_endpoint_in_use_goes_all_the_same() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    let mut sleep = net1.start(&["sleep", "600"]);
    lab.vnet_ok(&["ns", "rm", net1.name()]);
    assert!(!net1.exists());
    assert!(sleep.is_running(), "the user's process is the user's");
    // Its name and its address are free for the next one.
    assert_eq!(lab.endpoint("net1").addresses(), net1.addresses());
}

#[test]
fn removing_twice_is_removing_once() {
    let lab = Lab::up();
    let net1 = lab.endpoint("net1");
    for _ in 0..2 {
        lab.vnet_ok(&["ns", "rm", net1.name()]);
        lab.vnet_ok(&["network", "rm", &lab.name("none")]);
        lab.vnet_ok(&["masquerade", "rm", "172.31.0.0/24"]);
    }
    for _ in 0..2 {
        lab.vnet_ok(&["down"]);
    }
}

#[test]
fn the_doctor_names_an_endpoint_whose_namespace_is_gone() {
    let lab = Lab::up();
    let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
    lab.host().run(&["ip", "netns", "del", net1.name()]);
    let found = eventually(
        || {
            let found = lab.vnet_ok(&["doctor"]).stdout;
            found.contains(&format!("endpoint {} is not there", net1.name())).then_some(found)
        },
        || "the doctor to miss it".to_owned(),
    );
    assert!(found.contains("`vnet up`") && !found.contains(net2.name()), "{found}");
    lab.vnet_ok(&["up"]);
    for endpoint in [&net1, &net2] {
        Ping::to(OUTSIDE_V4).in_netns(endpoint);
    }
    let found = lab.vnet(&["doctor"]).stdout;
    assert!(!found.contains(net1.name()), "{found}");
}
