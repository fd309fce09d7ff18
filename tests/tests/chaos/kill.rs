//! `kill -9` before each system call of a command that changes something: the same command, or `down`, leads to the same
//! end as without it.
//!
//! Between two such calls a killed command leaves the same behind, so these are all the moments there are. Every run
//! tries as many as fit into [`TIME`], in an order of its own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tempfile::NamedTempFile;
use vnet_tests::lab::{
    Call, End, Fate, HOST_V4, HOST_V6, Lab, Netns, OUTSIDE_V4, Snapshot, UPLINK, eventually,
};
use vnet_tests::peer::{Ask, Ping, Server};
use vnet_tests::report::report;

use super::upgrade::{Load, OtherBuild, mark, one_connection, other_abi};
use super::{Extent, chance, extent};

/// How long one command is killed again and again, unless all is to be tried.
const TIME: Duration = Duration::from_secs(6);
/// The least number of kills, however long they take.
const AT_LEAST: usize = 6;
/// One kill of so many is made good by `down` instead of by the same command, which takes longer.
const DOWN_OF: usize = 6;

/// A command to kill, and the states before and after it.
struct Case<'a> {
    lab: &'a Lab,
    command: Vec<&'a str>,
    /// The vnet that is killed, if it is not the one that does everything else.
    binary: Option<&'a Path>,
    /// Makes the state before the command, of a host without vnet.
    prepare: &'a dyn Fn(),
    /// Goes back from the state after the command to that before it.
    back: &'a dyn Fn(),
}

impl Case<'_> {
    fn run(&self) {
        let Self { lab, command, prepare, back, binary: _ } = self;
        let shown = command.join(" ");
        let untouched = lab.snapshot();
        prepare();
        let before = contents(lab);
        let calls = self.calls();
        let after = contents(lab);
        back();
        same(&contents(lab), &before, &format!("`vnet {shown}` and back"));
        let begun = Instant::now();
        let mut killed = 0;
        for nth in shuffled(calls.len()) {
            if extent() == Extent::Some && killed >= AT_LEAST && begun.elapsed() > TIME {
                break;
            }
            let Some(call) = self.killed_before(nth) else {
                // Threads do not always do the same things: this time it had less to do, and has done it.
                same(&contents(lab), &after, &format!("`vnet {shown}`"));
                back();
                continue;
            };
            killed += 1;
            let when = format!("`vnet {shown}` killed before {} ({nth} of {})", call.name(), calls.len());
            if killed % DOWN_OF == 0 {
                lab.vnet_ok(&["down"]);
                same(&lab.snapshot(), &untouched, &format!("{when}, then down"));
                prepare();
                same(&contents(lab), &before, &format!("{when}, then down, then made again"));
            } else {
                self.with_binary(|| drop(lab.vnet_ok(command)));
                same(&contents(lab), &after, &format!("{when}, then run again"));
                back();
            }
        }
        same(&contents(lab), &before, &format!("`vnet {shown}` killed {killed} times"));
        report(format_args!("`vnet {shown}`: killed at {killed} of {} moments, nothing lost", calls.len()));
    }

    /// Does something by the vnet that is killed.
    fn with_binary<T>(&self, work: impl FnOnce() -> T) -> T {
        let Some(binary) = self.binary else { return work() };
        let usual = self.lab.use_binary(binary.to_owned());
        let done = work();
        self.lab.use_binary(usual);
        done
    }

    /// Whether a kill is wanted before a call: before every call when that is asked for.
    fn is_moment(call: &Call) -> bool {
        extent() == Extent::EveryCall || call.changes_something()
    }

    /// Runs the command to its end: the moments at which it can be killed.
    fn calls(&self) -> Vec<Call> {
        let mut calls = Vec::new();
        let end = self.with_binary(|| {
            self.lab.vnet_followed(&self.command, |call| {
                if Self::is_moment(call) {
                    calls.push(*call);
                }
                Fate::GoesOn
            })
        });
        assert_eq!(end, End::Exited(0), "expected success of `vnet {}`", self.command.join(" "));
        assert!(calls.len() > 20, "{calls:?}");
        calls
    }

    /// Kills the command at the `nth` of its moments; nothing if it comes to its end before.
    fn killed_before(&self, nth: usize) -> Option<Call> {
        match self.interfered(nth, Fate::Killed) {
            (End::Killed, Some(call)) => Some(call),
            (End::Exited(0), None) => None,
            other => panic!("`vnet {}`, to be killed, ended otherwise: {other:?}", self.command.join(" ")),
        }
    }

    /// Runs the command, and has the `nth` of its moments end like this; which that was, if it comes to it.
    fn interfered(&self, nth: usize, fate: Fate) -> (End, Option<Call>) {
        let mut passed = 0;
        let mut at = None;
        let end = self.with_binary(|| {
            self.lab.vnet_followed(&self.command, |call| {
                if !Self::is_moment(call) {
                    return Fate::GoesOn;
                }
                passed += 1;
                if passed != nth + 1 {
                    return Fate::GoesOn;
                }
                at = Some(*call);
                fate
            })
        });
        (end, at)
    }
}

/// The state of the host, with all that vnet has recorded and written if it is up.
fn contents(lab: &Lab) -> Snapshot {
    if lab.run_dir().exists() { lab.snapshot_with_contents() } else { lab.snapshot() }
}

#[track_caller]
fn same(now: &Snapshot, expected: &Snapshot, when: &str) {
    if let Some(differences) = now.differences_to(expected) {
        panic!("{when}: {differences}");
    }
}

/// The numbers below `count`, each once, in another order each time (Fisher and Yates).
fn shuffled(count: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        numbers.swap(last, usize::try_from(chance() % (last as u64 + 1)).expect("below a length"));
    }
    numbers
}

fn file(text: &str) -> NamedTempFile {
    let file = NamedTempFile::with_suffix(".toml").expect("a file");
    std::fs::write(file.path(), text).expect("write it");
    file
}

fn text(file: &NamedTempFile) -> &str {
    file.path().to_str().expect("a path in UTF-8")
}

#[test]
fn up() {
    let lab = Lab::new();
    lab.host().write("/proc/sys/net/ipv4/ip_local_reserved_ports", "8080,50000-50010");
    let case = Case {
        lab: &lab,
        command: vec!["up", "--firewall", "respect", "--xdp", "native"],
        binary: None,
        prepare: &|| {},
        back: &|| drop(lab.vnet_ok(&["down"])),
    };
    case.run();
    lab.vnet_ok(&["up"]);
    Ping::to(OUTSIDE_V4).in_netns(&lab.endpoint("net1"));
}

#[test]
fn up_of_what_is_up_with_other_choices() {
    let lab = Lab::new();
    let name = lab.name("net1");
    let case = Case {
        lab: &lab,
        command: vec!["up", "--nat-ports", "55000-55999", "--firewall", "respect", "--xdp", "generic"],
        binary: None,
        prepare: &|| {
            lab.vnet_ok(&["up"]);
            lab.vnet_ok(&["ns", "create", &name]);
        },
        back: &|| {
            lab.vnet_ok(&["up", "--nat-ports", "49152-65535", "--firewall", "bypass", "--xdp", "off"]);
        },
    };
    case.run();
}

#[test]
fn up_by_another_build() {
    let lab = Lab::new();
    let name = lab.name("net1");
    let other = OtherBuild::new();
    let case = Case {
        lab: &lab,
        command: vec!["up"],
        binary: Some(&other.path),
        prepare: &|| {
            lab.vnet_ok(&["up", "--xdp", "native"]);
            lab.vnet_ok(&["ns", "create", &name]);
        },
        back: &|| drop(lab.vnet_ok(&["up"])),
    };
    case.run();
    Ping::to(OUTSIDE_V4).in_netns(&lab.endpoint("net1"));
}

#[test]
fn up_by_a_build_with_another_abi() {
    let Some(other) = other_abi() else { return };
    let lab = Lab::new();
    let name = lab.name("net1");
    let case = Case {
        lab: &lab,
        command: vec!["up"],
        binary: Some(&other),
        prepare: &|| {
            lab.vnet_ok(&["up", "--xdp", "native"]);
            lab.vnet_ok(&["ns", "create", &name]);
        },
        back: &|| drop(lab.vnet_ok(&["up"])),
    };
    case.run();
    // The build that was to be replaced makes it good as well.
    let before = contents(&lab);
    let count = case.calls().len();
    (case.back)();
    let begun = Instant::now();
    for nth in shuffled(count) {
        if extent() == Extent::Some && begun.elapsed() > TIME {
            break;
        }
        let killed = case.killed_before(nth);
        (case.back)();
        same(
            &contents(&lab),
            &before,
            &format!("killed before {killed:?}, then `vnet up` by the former build"),
        );
    }
    Ping::to(OUTSIDE_V4).in_netns(&lab.endpoint("net1"));
}

/// Programs and maps are exchanged one after the other: whichever step fails, those of the former build are back in the
/// places that those of the new one had taken.
#[test]
fn up_by_a_build_with_another_abi_that_fails_half_way() {
    let Some(other) = other_abi() else { return };
    if !Fate::CAN_FAIL {
        println!("skipped: nobody here knows how to have system calls fail on this machine");
        return;
    }
    let lab = Lab::new();
    lab.vnet_ok(&["up", "--xdp", "native"]);
    let net1 = lab.endpoint("net1");
    let _servers = [Server::echo(&net1, "[::]:80"), Server::echo(lab.outside(), "[::]:7")];
    lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
    let connections =
        [(&*net1, (OUTSIDE_V4, 7)), (lab.outside(), (HOST_V6, 8088)), (lab.host(), (HOST_V4, 8088))];
    let over = Arc::new(AtomicBool::new(false));
    let kept = connections
        .map(|(netns, target)| Load::start(netns, "a connection", &over, one_connection(target.into())));
    let goes_on = || kept.iter().for_each(|load| load.answered_again(20));
    goes_on();
    let case = Case {
        lab: &lab,
        command: vec!["up"],
        binary: Some(&other),
        prepare: &|| {},
        back: &|| drop(lab.vnet_ok(&["up"])),
    };
    let (former, before) = (mark(&lab), contents(&lab));
    let calls = case.calls();
    (case.back)();
    let (begun, mut tried, mut went_back) = (Instant::now(), 0, 0);
    // A process that cannot end does not go on either.
    for nth in shuffled(calls.len()).into_iter().filter(|nth| calls[*nth].name() != "exit_group") {
        if extent() == Extent::Some && tried >= AT_LEAST && begun.elapsed() > TIME {
            break;
        }
        let (end, call) = case.interfered(nth, Fate::Fails(Errno::ENOMEM));
        let name = call.map_or("nothing", |call| call.name());
        let when = format!("`vnet up` of another ABI, with {name} failed ({nth} of {})", calls.len());
        assert!(matches!(end, End::Exited(_)), "{when}: {end:?}");
        let is_former = mark(&lab) == former;
        println!("{when}: {end:?}, of the former build: {is_former}");
        tried += 1;
        if is_former {
            assert_ne!(end, End::Exited(0), "{when}");
            same(&contents(&lab), &before, &when);
            // What is attached is compared with what is pinned.
            lab.assert_consistent();
            went_back += 1;
        }
        goes_on();
        for (netns, target) in connections {
            Ask::tcp(target.into()).in_netns(netns);
        }
        case.with_binary(|| {
            lab.vnet_ok(&["up"]);
            lab.assert_consistent();
        });
        (case.back)();
        goes_on();
    }
    over.store(true, Ordering::Relaxed);
    for load in kept {
        let (what, asked, answered) = load.join();
        assert_eq!(asked, answered, "{what}");
    }
    same(&contents(&lab), &before, &format!("`vnet up` of another ABI, with {tried} calls failed"));
    report(format_args!(
        "`vnet up` of another ABI: {tried} of {} calls failed, went back {went_back} times",
        calls.len()
    ));
}

#[test]
fn ns_create() {
    let lab = Lab::new();
    let name = lab.name("net1");
    let case = Case {
        lab: &lab,
        command: vec!["ns", "create", &name],
        binary: None,
        prepare: &|| drop(lab.vnet_ok(&["up"])),
        back: &|| drop(lab.vnet_ok(&["ns", "rm", &name])),
    };
    case.run();
    Ping::to(OUTSIDE_V4).in_netns(&lab.endpoint("net1"));
}

#[test]
fn ns_rm() {
    let lab = Lab::new();
    lab.host().ip(&format!("addr add 203.0.113.5/32 dev {UPLINK}"));
    let name = lab.name("net1");
    let target = format!("{name}:8000-8009");
    let make = || {
        lab.vnet_ok(&["ns", "create", &name]);
        lab.vnet_ok(&["portmap", "add", "8000-8009", &target]);
        lab.vnet_ok(&["floating", "add", "203.0.113.5", &name]);
    };
    let case = Case {
        lab: &lab,
        command: vec!["ns", "rm", &name],
        binary: None,
        prepare: &|| {
            lab.vnet_ok(&["up"]);
            make();
        },
        back: &make,
    };
    case.run();
}

#[test]
fn portmap_add() {
    let lab = Lab::new();
    let name = lab.name("net1");
    let target = format!("{name}:8000-8099");
    let published = "203.0.113.1:8000-8099";
    let case = Case {
        lab: &lab,
        command: vec!["portmap", "add", published, &target, "--allow-from", "203.0.113.0/24"],
        binary: None,
        prepare: &|| {
            lab.vnet_ok(&["up"]);
            lab.vnet_ok(&["ns", "create", &name]);
        },
        back: &|| drop(lab.vnet_ok(&["portmap", "rm", published])),
    };
    case.run();
}

#[test]
fn portmap_rm() {
    let lab = Lab::new();
    let name = lab.name("net1");
    let target = format!("{name}:8000-8099");
    let publish =
        || drop(lab.vnet_ok(&["portmap", "add", "8000-8099", &target, "--allow-from", "203.0.113.0/24"]));
    let case = Case {
        lab: &lab,
        command: vec!["portmap", "rm", "8000-8099"],
        binary: None,
        prepare: &|| {
            lab.vnet_ok(&["up"]);
            lab.vnet_ok(&["ns", "create", &name]);
            publish();
        },
        back: &publish,
    };
    case.run();
}

#[test]
fn ns_attach() {
    let lab = Lab::new();
    let theirs = Netns::named(&lab.name("theirs"));
    theirs.create();
    let (name, path) = (lab.name("net1"), theirs.path());
    let case = Case {
        lab: &lab,
        command: vec!["ns", "attach", &name, "--netns", path.to_str().expect("a path")],
        binary: None,
        prepare: &|| drop(lab.vnet_ok(&["up"])),
        back: &|| drop(lab.vnet_ok(&["ns", "rm", &name])),
    };
    case.run();
    assert!(theirs.exists(), "it is not vnet's to remove");
    theirs.delete();
}

#[test]
fn limit_set() {
    let lab = Lab::new();
    let name = lab.name("net1");
    let case = Case {
        lab: &lab,
        command: vec!["limit", "set", &name, "--egress", "50mbit", "--ingress", "100mbit"],
        binary: None,
        prepare: &|| {
            lab.vnet_ok(&["up"]);
            lab.vnet_ok(&["ns", "create", &name]);
        },
        back: &|| drop(lab.vnet_ok(&["limit", "rm", &name])),
    };
    case.run();
}

#[test]
fn limit_set_of_a_class() {
    let lab = Lab::new();
    let case = Case {
        lab: &lab,
        command: vec!["limit", "set", "--classid", "1:10", "--egress", "50mbit"],
        binary: None,
        prepare: &|| drop(lab.vnet_ok(&["up"])),
        back: &|| drop(lab.vnet_ok(&["limit", "rm", "--classid", "1:10"])),
    };
    case.run();
}

#[test]
fn network_create() {
    let lab = Lab::new();
    let blue = lab.name("blue");
    let case = Case {
        lab: &lab,
        command: vec!["network", "create", &blue, "--subnet", "10.55.0.0/24", "--subnet", "fd55::/64"],
        binary: None,
        prepare: &|| drop(lab.vnet_ok(&["up"])),
        back: &|| drop(lab.vnet_ok(&["network", "rm", &blue])),
    };
    case.run();
}

#[test]
fn network_create_and_rm_without_a_bridge() {
    let lab = Lab::new();
    let blue = lab.name("blue");
    let create =
        ["network", "create", &blue, "--subnet", "10.55.0.0/24", "--subnet", "fd55::/64", "--no-bridge"];
    let make = || drop(lab.vnet_ok(&create));
    let remove = || drop(lab.vnet_ok(&["network", "rm", &blue]));
    let up = || drop(lab.vnet_ok(&["up"]));
    let case = Case { lab: &lab, command: create.to_vec(), binary: None, prepare: &up, back: &remove };
    case.run();
    lab.vnet_ok(&["down"]);
    let prepare = || {
        up();
        make();
    };
    let case = Case { command: vec!["network", "rm", &blue], prepare: &prepare, back: &make, ..case };
    case.run();
}

#[test]
fn ns_create_without_a_bridge() {
    let lab = Lab::new();
    let (name, blue) = (lab.name("net1"), lab.name("blue"));
    let case = Case {
        lab: &lab,
        command: vec!["ns", "create", &name, "--network", &blue],
        binary: None,
        prepare: &|| {
            lab.vnet_ok(&["up"]);
            let subnets = ["--subnet", "10.55.0.0/24", "--subnet", "fd55::/64"];
            lab.vnet_ok(&[&["network", "create", &blue, "--no-bridge"], &subnets[..]].concat());
        },
        back: &|| drop(lab.vnet_ok(&["ns", "rm", &name])),
    };
    case.run();
    Ping::to(OUTSIDE_V4).in_netns(&lab.endpoint_with("net1", &["--network", &blue]));
}

#[test]
fn network_rm() {
    let lab = Lab::new();
    let blue = lab.name("blue");
    let make = || {
        lab.vnet_ok(&["network", "create", &blue, "--subnet", "10.55.0.0/24", "--subnet", "fd55::/64"]);
    };
    let case = Case {
        lab: &lab,
        command: vec!["network", "rm", &blue],
        binary: None,
        prepare: &|| {
            lab.vnet_ok(&["up"]);
            make();
        },
        back: &make,
    };
    case.run();
}

#[test]
fn network_connect_and_disconnect() {
    let lab = Lab::new();
    let (name, blue) = (lab.name("net1"), lab.name("blue"));
    let connect = || drop(lab.vnet_ok(&["network", "connect", &blue, &name]));
    let disconnect = || drop(lab.vnet_ok(&["network", "disconnect", &blue, &name]));
    let prepare = || {
        lab.vnet_ok(&["up"]);
        lab.vnet_ok(&["ns", "create", &name]);
        lab.vnet_ok(&["network", "create", &blue, "--subnet", "10.55.0.0/24", "--subnet", "fd55::/64"]);
    };
    let case = Case {
        lab: &lab,
        command: vec!["network", "connect", &blue, &name],
        binary: None,
        prepare: &prepare,
        back: &disconnect,
    };
    case.run();
    lab.vnet_ok(&["down"]);
    let case = Case {
        command: vec!["network", "disconnect", &blue, &name],
        prepare: &|| {
            prepare();
            connect();
        },
        back: &connect,
        ..case
    };
    case.run();
}

#[test]
fn apply() {
    let lab = Lab::new();
    let (web, db) = (lab.name("web"), lab.name("db"));
    let first = file(&format!("[endpoints.\"{db}\"]\n"));
    let second = file(&format!(
        "[networks.blue]\nsubnets = [\"10.55.0.0/24\"]\n\n[endpoints.\"{web}\"]\nnetwork = \"blue\"\n\n\
         [[portmaps]]\npublish = 8088\ntarget = \"{web}:80\"\n"
    ));
    let case = Case {
        lab: &lab,
        command: vec!["apply", "-f", text(&second), "--prune"],
        binary: None,
        prepare: &|| drop(lab.vnet_ok(&["apply", "-f", text(&first)])),
        back: &|| drop(lab.vnet_ok(&["apply", "-f", text(&first), "--prune"])),
    };
    case.run();
}

/// The command that makes a router of the lab's instance, and the bridge outside that it needs.
fn router(lab: &Lab) -> Vec<&str> {
    // Without an address of its own a bridge has that of a port.
    lab.host().ip("link add br-out address 02:00:00:00:00:0b type bridge");
    lab.host().ip("link set br-out up");
    let outside = ["--outside", "br-out", "--address", "16.158.1.100/24", "--address", "2001:db8:16::100/64"];
    let inside = ["--gateway", "16.158.1.1", "--subnet", "192.168.1.0/24", "--subnet", "fd16::/64"];
    [&["router", "create", lab.instance()][..], &outside, &inside].concat()
}

#[test]
fn router_create() {
    let lab = Lab::new();
    let case = Case {
        lab: &lab,
        command: router(&lab),
        binary: None,
        prepare: &|| {},
        back: &|| drop(lab.vnet_ok(&["router", "rm", lab.instance()])),
    };
    case.run();
    assert!(!Netns::named(lab.instance()).exists());
}

#[test]
fn router_rm() {
    let lab = Lab::new();
    let create = router(&lab);
    let name = lab.name("net1");
    let make = || {
        lab.vnet_ok(&create);
        lab.vnet_ok(&["ns", "create", &name]);
        lab.vnet_ok(&["floating", "add", "16.158.1.103", &name]);
    };
    let command = vec!["router", "rm", lab.instance()];
    Case { lab: &lab, command, binary: None, prepare: &make, back: &make }.run();
}

#[test]
fn floating_add_in_a_router() {
    let lab = Lab::new();
    let create = router(&lab);
    let name = lab.name("net1");
    let case = Case {
        lab: &lab,
        command: vec!["floating", "add", "2001:db8:16::103", &name],
        binary: None,
        prepare: &|| {
            lab.vnet_ok(&create);
            lab.vnet_ok(&["ns", "create", &name]);
        },
        back: &|| {
            lab.vnet_ok(&["floating", "rm", "2001:db8:16::103"]);
            // The host's addresses are learnt and forgotten by the next command.
            lab.vnet_ok(&["up"]);
        },
    };
    case.run();
}

#[test]
fn up_of_a_router_whose_namespace_has_gone() {
    let lab = Lab::new();
    let create = router(&lab);
    let name = lab.name("net1");
    let lose = || {
        Netns::named(lab.instance()).delete();
        // The kernel takes it down a moment later.
        let is_left = || {
            let has = |netns: &Netns, end: &str| netns.ip("-o link").stdout.contains(end);
            has(lab.host(), "vr-") || has(&Netns::named(&name), "eth0")
        };
        eventually(|| (!is_left()).then_some(()), || "a namespace that is being taken down".to_owned());
    };
    let case = Case {
        lab: &lab,
        command: vec!["up"],
        binary: None,
        prepare: &|| {
            lab.vnet_ok(&create);
            lab.vnet_ok(&["ns", "create", &name]);
            lose();
        },
        back: &lose,
    };
    case.run();
}

#[test]
fn down() {
    let lab = Lab::new();
    let name = lab.name("net1");
    let target = format!("{name}:80");
    let make = || {
        lab.vnet_ok(&["up"]);
        lab.vnet_ok(&["ns", "create", &name]);
        lab.vnet_ok(&["portmap", "add", "8088", &target]);
    };
    Case { lab: &lab, command: vec!["down"], binary: None, prepare: &make, back: &make }.run();
}
