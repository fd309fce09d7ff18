//! What vnet made is taken away or changed by somebody else: it is brought back by the next `vnet up`, and until then
//! goes on working where it can.

use std::fs;
use std::path::PathBuf;
use std::thread;

use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use vnet_tests::lab::{Endpoint, FAMILIES, Lab, Netns, OUTSIDE_V4, Snapshot, UPLINK};
use vnet_tests::peer::{Ask, Ping, Server};

use super::{Extent, extent};

/// An instance with two endpoints, the first of which has a published port.
struct World {
    lab: Lab,
    untouched: Snapshot,
    net1: Endpoint,
    net2: Endpoint,
    /// The end on the host of the first one's link.
    port: String,
}

/// What becomes of traffic before anybody has done anything about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    /// All of it goes on.
    Works,
    /// Some of it does not.
    Stops,
}

use Meanwhile::{Stops, Works};

/// Something that somebody does to it.
type Harm = (&'static str, fn(&World), Meanwhile);

impl World {
    fn new() -> Self {
        let lab = Lab::new();
        let untouched = lab.snapshot();
        lab.vnet_ok(&["up"]);
        let (net1, net2) = (lab.endpoint("net1"), lab.endpoint("net2"));
        lab.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", net1.name())]);
        let endpoints = lab.vnet_list(&["ns", "ls"], "endpoints");
        let first = endpoints.iter().find(|endpoint| endpoint["name"] == net1.name()).expect("it is listed");
        let port = first["interface"].as_str().expect("a link").to_owned();
        Self { lab, untouched, net1, net2, port }
    }

    /// Asks everything that is to work.
    fn works(&self) {
        let Self { lab, net1, net2, .. } = self;
        let _server = Server::echo(net1, "[::]:80");
        for (outside, host) in FAMILIES {
            Ping::to(outside).in_netns(net1);
            Ping::to(net2.addr_like(outside)).in_netns(net1);
            for client in [lab.outside(), lab.host(), net2] {
                Ask::tcp((host, 8088).into()).in_netns(client);
            }
        }
        Ask::tcp("127.0.0.1:8088".parse().expect("an address")).in_netns(lab.host());
    }

    /// Does harm, one after the other, and has `vnet up` make it good.
    fn survives(self, harms: &[Harm]) {
        self.works();
        for (what, harm, meanwhile) in harms {
            println!("{what}");
            harm(&self);
            if *meanwhile == Works {
                self.works();
            }
            self.lab.vnet_ok(&["up"]);
            self.works();
            self.lab.assert_consistent();
        }
        self.lab.vnet_ok(&["down"]);
        self.lab.snapshot().assert_same_as(&self.untouched);
    }

    fn host(&self, args: &str) {
        self.lab.host().ip(args);
    }

    fn inside(&self, args: &str) {
        self.net1.ip(args);
    }

    /// The pins whose paths below the instance's directory begin so.
    fn pins(&self, begin: &str) -> Vec<PathBuf> {
        let directory = self.lab.pin_dir();
        let below = directory.join(begin);
        let (within, begin) = match begin.rsplit_once('/') {
            Some((within, begin)) => (directory.join(within), begin),
            None => (directory, begin),
        };
        let entries = fs::read_dir(&within).expect("list pins").flatten().map(|entry| entry.path());
        let name =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begin));
        let found: Vec<PathBuf> = entries.filter(name).collect();
        assert!(!found.is_empty(), "no pins {}", below.display());
        found
    }

    fn unpin(&self, begin: &str) {
        self.pins(begin).iter().for_each(|pin| fs::remove_file(pin).expect("remove a pin"));
    }

    /// Detaches links as an operator would, and leaves their pins.
    fn detach(&self, begin: &str) {
        for pin in self.pins(begin) {
            let pin = pin.to_str().expect("a path");
            self.lab.host().run(&["bpftool", "link", "detach", "pinned", pin]).ok();
        }
    }
}

#[test]
fn endpoints_come_back() {
    World::new().survives(&[
        ("its namespace is deleted", |it| it.host(&format!("netns del {}", it.net1.name())), Stops),
        (
            "its namespace is deleted while a program lives in it, so its link stays",
            |it| {
                // The program keeps the namespace as long as it is there, which is until the next line but one.
                let mut sleep = it.net1.start(&["sleep", "600"]);
                it.host(&format!("netns del {}", it.net1.name()));
                assert!(
                    it.lab.host().run(&["ip", "link", "show", &it.port]).status == Some(0),
                    "the link stays"
                );
                it.lab.vnet_ok(&["up"]);
                it.works();
                assert!(sleep.is_running());
            },
            Works,
        ),
        (
            "another namespace has its name",
            |it| {
                it.host(&format!("netns del {}", it.net1.name()));
                it.host(&format!("netns add {}", it.net1.name()));
            },
            Stops,
        ),
        ("its interface is deleted", |it| it.inside("link del eth0"), Stops),
        (
            "its interface is renamed",
            |it| {
                it.inside("link set eth0 down");
                it.inside("link set eth0 name lan0");
            },
            Stops,
        ),
        (
            "its interface is moved to another namespace",
            |it| {
                it.inside(&format!("link set eth0 netns {} name lan1", it.net2.name()));
            },
            Stops,
        ),
        ("its interface is down", |it| it.inside("link set eth0 down"), Stops),
        (
            "its interface has another hardware address",
            |it| it.inside("link set eth0 address 02:00:00:00:99:99"),
            Stops,
        ),
        ("its interface has another MTU", |it| it.inside("link set eth0 mtu 1280"), Works),
        ("its addresses are gone", |it| it.inside("addr flush dev eth0 scope global"), Stops),
        (
            "its default routes are gone",
            |it| {
                it.inside("-4 route del default");
                it.inside("-6 route del default");
            },
            Stops,
        ),
        (
            "IPv6 is switched off in it",
            |it| it.net1.write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1"),
            Stops,
        ),
        ("its end on the host is deleted", |it| it.host(&format!("link del {}", it.port)), Stops),
        ("its end on the host is down", |it| it.host(&format!("link set {} down", it.port)), Stops),
        (
            "its end on the host is in no bridge",
            |it| it.host(&format!("link set {} nomaster", it.port)),
            Stops,
        ),
        ("its program is detached", |it| it.detach("links/from_endpoint@"), Stops),
        ("the pin of its program is removed", |it| it.unpin("links/from_endpoint@"), Stops),
    ]);
}

#[test]
fn networks_and_uplinks_come_back() {
    World::new().survives(&[
        ("the bridge is down", |it| it.host("link set vnet0 down"), Stops),
        ("the bridge is deleted", |it| it.host("link del vnet0"), Stops),
        ("the bridge has lost its addresses", |it| it.host("addr flush dev vnet0 scope global"), Stops),
        (
            "the bridge has another hardware address",
            |it| it.host("link set vnet0 address 02:00:00:00:99:98"),
            Stops,
        ),
        (
            "the bridge does not forward",
            |it| {
                for family in ["ipv4", "ipv6"] {
                    it.lab.host().write(&format!("/proc/sys/net/{family}/conf/vnet0/forwarding"), "0");
                }
            },
            Stops,
        ),
        (
            "IPv6 is switched off on the bridge",
            |it| {
                it.lab.host().write("/proc/sys/net/ipv6/conf/vnet0/disable_ipv6", "1");
            },
            Stops,
        ),
        ("the guard of the bridge is detached", |it| it.detach("links/to_bridge@"), Works),
        ("where fragments wait is deleted", |it| it.host("link del vfrag0"), Works),
        (
            "where fragments wait is renamed",
            |it| {
                it.host("link set vfrag1 down");
                it.host("link set vfrag1 name else1");
            },
            Works,
        ),
        (
            "where fragments wait has no queue",
            |it| {
                it.lab.host().run(&["tc", "qdisc", "del", "dev", "vfrag0", "root"]).ok();
            },
            Works,
        ),
        (
            "the uplink's programs are detached",
            |it| {
                it.detach("links/from_uplink@");
                it.detach("links/to_uplink@");
            },
            Stops,
        ),
        (
            "the uplink goes down and up",
            |it| {
                it.host(&format!("link set {UPLINK} down"));
                it.host(&format!("link set {UPLINK} up"));
                it.host(&format!("-6 addr add 2001:db8:113::1/64 dev {UPLINK} nodad"));
                it.host("route replace default via 203.0.113.2");
                it.host("route replace default via 2001:db8:113::2");
            },
            Works,
        ),
        (
            "clsact comes and goes",
            |it| {
                it.lab.host().run(&["tc", "qdisc", "add", "dev", UPLINK, "clsact"]).ok();
                it.lab.host().run(&["tc", "qdisc", "del", "dev", UPLINK, "clsact"]).ok();
            },
            Works,
        ),
        (
            "the ports of masquerade are not reserved",
            |it| {
                it.lab.host().write("/proc/sys/net/ipv4/ip_local_reserved_ports", "\n");
            },
            Works,
        ),
        (
            "the host's own settings change",
            |it| {
                it.lab.host().write("/proc/sys/net/ipv4/ip_forward", "1");
                it.lab.host().write("/proc/sys/net/ipv4/ip_forward", "0");
            },
            Stops,
        ),
        (
            "the host's firewall is flushed",
            |it| drop(it.lab.host().run(&["nft", "flush", "ruleset"]).ok()),
            Works,
        ),
    ]);
}

#[test]
fn pins_come_back() {
    World::new().survives(&[
        ("a program of the host is detached", |it| it.detach("links/host_connect4@"), Stops),
        ("the pin of a program of the host is removed", |it| it.unpin("links/host_connect4@"), Stops),
        ("the pins of what is attached are removed", |it| it.unpin("links/"), Stops),
        ("the pins of programs are removed", |it| it.unpin("programs/"), Works),
        ("the pin of a map is removed", |it| it.unpin("port_map"), Works),
        ("the pin of the flows is removed", |it| it.unpin("conntrack"), Works),
        (
            "the mark of the build is removed",
            |it| {
                for mark in it.pins("build-") {
                    fs::remove_dir(mark).expect("remove it");
                }
            },
            Works,
        ),
        (
            "all pins are removed",
            |it| {
                it.unpin("links/");
                it.unpin("programs/");
                for pin in it.pins("") {
                    let removed = if pin.is_dir() { fs::remove_dir(&pin) } else { fs::remove_file(&pin) };
                    removed.expect("remove it");
                }
                fs::remove_dir(it.lab.pin_dir()).expect("remove it");
            },
            Stops,
        ),
        (
            "the BPF file system is unmounted",
            |it| {
                let mounted = it.lab.pin_dir();
                let mounted = mounted.ancestors().nth(2).expect("where it is mounted");
                umount2(mounted, MntFlags::MNT_DETACH).expect("unmount it");
            },
            Stops,
        ),
        (
            "the machine starts anew, and only the record is kept",
            |it| {
                for endpoint in [&it.net1, &it.net2] {
                    it.host(&format!("netns del {}", endpoint.name()));
                }
                it.host("link del vnet0");
                it.host("link del vfrag0");
                it.lab.host().write("/proc/sys/net/ipv4/ip_local_reserved_ports", "\n");
                let mounted = it.lab.pin_dir();
                let mounted = mounted.ancestors().nth(2).expect("where it is mounted");
                umount2(mounted, MntFlags::MNT_DETACH).expect("unmount it");
            },
            Stops,
        ),
    ]);
}

/// Has the kernel remove namespaces for a while: what is removed after these has to wait.
fn keep_the_kernel_busy() {
    const NAMESPACES: usize = 300;
    thread::scope(|scope| {
        for _ in 0..NAMESPACES {
            scope.spawn(|| unshare(CloneFlags::CLONE_NEWNET).expect("make a namespace"));
        }
    });
}

/// The kernel takes a namespace's interfaces away some time after its name is gone, and `vnet up` finds them at any moment
/// of that.
#[test]
fn endpoints_come_back_while_the_kernel_is_still_removing_them() {
    const ENDPOINTS: usize = 8;
    let rounds = if extent() == Extent::Some { 5 } else { 50 };
    let lab = Lab::up();
    let endpoints: Vec<Endpoint> = (0..ENDPOINTS).map(|n| lab.endpoint(&format!("net{n}"))).collect();
    for round in 0..rounds {
        keep_the_kernel_busy();
        for endpoint in &endpoints[round % 2..] {
            let path = endpoint.path();
            umount2(&path, MntFlags::MNT_DETACH).expect("unmount a namespace");
            fs::remove_file(&path).expect("remove its name");
        }
        lab.vnet_ok(&["up"]);
        for endpoint in &endpoints {
            Ping::to(OUTSIDE_V4).in_netns(endpoint);
        }
        lab.assert_consistent();
    }
}

#[test]
fn what_cannot_be_brought_back_is_named_with_the_way_out() {
    let it = World::new();
    let name = it.net1.name();
    // The end on the host has another name: whose it is now is not for vnet to say.
    it.host(&format!("link set {} down", it.port));
    it.host(&format!("link set {} name else0", it.port));
    it.lab.vnet(&["up"]).fails_with(1, &["not all of it could be brought back", name, "eth0"]);
    // Everything else is as it should be.
    Ping::to(OUTSIDE_V4).in_netns(&it.net2);
    it.lab.vnet_ok(&["ns", "rm", name]);
    it.lab.vnet_ok(&["ns", "create", name]);
    it.lab.vnet_ok(&["portmap", "add", "8088", &format!("{name}:80")]);
    it.works();
    // A namespace that was attached has gone, and another may come under its path.
    let theirs = Netns::named(&it.lab.name("theirs"));
    theirs.create();
    let path = theirs.path();
    let path = path.to_str().expect("a path");
    let attached = it.lab.name("attached");
    it.lab.vnet_ok(&["ns", "attach", &attached, "--netns", path]);
    Ping::to(OUTSIDE_V4).in_netns(&theirs);
    theirs.delete();
    it.lab.vnet(&["up"]).fails_with(1, &[&attached, "vnet ns rm"]);
    theirs.create();
    it.lab.vnet(&["up"]).fails_with(1, &[&attached, "vnet ns rm"]);
    assert!(
        !theirs.ip("-o link").stdout.contains("eth0"),
        "nothing was put into a namespace that may be another's"
    );
    it.lab.vnet_ok(&["ns", "rm", &attached]);
    it.lab.vnet_ok(&["up"]);
    it.works();
    theirs.delete();
    it.lab.vnet_ok(&["down"]);
    it.lab.snapshot().assert_same_as(&it.untouched);
}
