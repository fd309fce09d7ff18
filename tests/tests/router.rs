//! Routers in namespaces of their own: between a bridge outside, which is somebody else's, and a network inside.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use nix::sys::signal::Signal;
use vnet_tests::lab::{Endpoint, Lab, Netns, Output, Snapshot, eventually};
use vnet_tests::peer::{Ask, Ping, Server};

/// The bridge outside.
const OUTSIDE: &str = "br-out";
/// The provider's gateway, in both families.
const PROVIDER: [&str; 2] = ["16.158.1.1", "2001:db8:16::1"];
/// Somebody beyond it.
const WORLD: [&str; 2] = ["198.51.100.9", "2001:db8:51::9"];

/// A host with a bridge that somebody else has made, the provider's gateway and a neighbour on it.
struct Street {
    lab: Lab,
    provider: Netns,
    neighbour: Netns,
}

/// What a router is to have, with both families.
struct Plan {
    name: &'static str,
    v4: &'static str,
    v6: &'static str,
}

const R1: Plan = Plan { name: "r1", v4: "16.158.1.100/24", v6: "2001:db8:16::100/64" };
const R2: Plan = Plan { name: "r2", v4: "16.158.1.200/24", v6: "2001:db8:16::200/64" };

impl Street {
    fn new() -> Self {
        let lab = Lab::new();
        lab.host().ip(&format!("link add {OUTSIDE} type bridge"));
        lab.host().ip(&format!("link set {OUTSIDE} up"));
        let [provider, neighbour] = ["provider", "neighbour"].map(|name| Netns::named(&lab.name(name)));
        for (netns, port, v4, v6) in [
            (&provider, "port0", PROVIDER[0], PROVIDER[1]),
            (&neighbour, "port1", "16.158.1.7", "2001:db8:16::7"),
        ] {
            netns.create();
            lab.host().ip(&format!("link add {port} type veth peer name eth0 netns {}", netns.name()));
            lab.host().ip(&format!("link set {port} master {OUTSIDE} up"));
            netns.ip(&format!("addr add {v4}/24 dev eth0"));
            netns.ip(&format!("addr add {v6}/64 dev eth0 nodad"));
            netns.ip("link set eth0 up");
        }
        for addr in WORLD {
            let length = if addr.contains(':') { "128 nodad" } else { "32" };
            provider.ip(&format!("addr add {addr}/{length} dev lo"));
        }
        // IPv6 on the bridge is there a moment after it is up.
        let to: IpAddr = PROVIDER[1].parse().expect("an address");
        eventually(
            || Ping::to(to).try_in(&neighbour).is_ok().then_some(()),
            || "IPv6 on the bridge".to_owned(),
        );
        Self { lab, provider, neighbour }
    }

    fn router(&self, plan: &Plan) -> Router<'_> {
        let router = Router { street: self, name: self.lab.name(plan.name) };
        self.lab.vnet_ok(&router.create(plan));
        router
    }
}

impl Drop for Street {
    fn drop(&mut self) {
        self.provider.delete();
        self.neighbour.delete();
    }
}

/// A router of the lab's host.
struct Router<'a> {
    street: &'a Street,
    name: String,
}

impl Router<'_> {
    /// The command that makes it.
    fn create<'b>(&'b self, plan: &'b Plan) -> Vec<&'b str> {
        vec![
            "router",
            "create",
            &self.name,
            "--outside",
            OUTSIDE,
            "--address",
            plan.v4,
            "--address",
            plan.v6,
            "--gateway",
            PROVIDER[0],
            "--gateway",
            PROVIDER[1],
            "--subnet",
            "192.168.1.0/24",
            "--subnet",
            "fd16::/64",
        ]
    }

    fn with<'b>(&'b self, args: &[&'b str]) -> Vec<&'b str> {
        [&["--instance", &self.name], args].concat()
    }

    fn vnet_ok(&self, args: &[&str]) -> Output {
        self.street.lab.vnet_ok(&self.with(args))
    }

    fn endpoint(&self, short: &str, args: &[&str]) -> Endpoint {
        let name = self.street.lab.name(short);
        self.vnet_ok(&[&["ns", "create", &name], args].concat());
        Endpoint::observe(&name)
    }

    fn netns(&self) -> Netns {
        Netns::named(&self.name)
    }

    fn run_dir(&self) -> PathBuf {
        self.street.lab.run_dir().with_file_name(&self.name)
    }

    fn pin_dir(&self) -> PathBuf {
        self.street.lab.pin_dir().with_file_name(&self.name)
    }

    /// That nothing of it is there, whatever there is of others.
    fn assert_only_others(&self) {
        for path in [self.netns().path(), self.run_dir(), self.pin_dir()] {
            assert!(!path.exists(), "{} is left", path.display());
        }
    }

    /// That nothing of it is there, nor of any other.
    fn assert_gone(&self) {
        self.assert_only_others();
        let links = self.street.lab.host().ip("-o link").stdout;
        assert!(!links.contains("vr-"), "{links}");
    }
}

fn socket(addr: &str, port: u16) -> SocketAddr {
    SocketAddr::new(addr.parse().expect("an address"), port)
}

fn echo(netns: &Netns, port: u16) -> [Server; 2] {
    let listen = format!("[::]:{port}");
    [Server::echo(netns, &listen), Server::udp(netns, &listen)]
}

/// Echo servers beyond the provider's gateway: a datagram socket on every address would answer from the nearest.
fn world_servers(street: &Street) -> Vec<Server> {
    let listen = WORLD.map(|addr| socket(addr, 7).to_string());
    listen
        .iter()
        .flat_map(|at| [Server::echo(&street.provider, at), Server::udp(&street.provider, at)])
        .collect()
}

/// The host without what it numbers anew.
fn host(street: &Street) -> Snapshot {
    street.lab.snapshot()
}

#[track_caller]
fn same(now: &Snapshot, before: &Snapshot) {
    if let Some(differences) = now.differences_to(before) {
        panic!("{differences}");
    }
}

#[test]
fn s16_a_router_in_its_own_namespace_with_one_to_one_nat() {
    let street = Street::new();
    let lab = &street.lab;
    let before = host(&street);
    let bridge = || lab.host().ip(&format!("-j link show {OUTSIDE}")).json()[0]["address"].clone();
    let mac = bridge();
    let name = lab.name("r1");
    lab.vnet_ok(&[
        "router",
        "create",
        &name,
        "--outside",
        OUTSIDE,
        "--address",
        "16.158.1.100/24",
        "--gateway",
        "16.158.1.1",
        "--subnet",
        "192.168.1.0/24",
    ]);
    let router = Router { street: &street, name };
    let inside = router.endpoint("inside", &["--ip", "192.168.1.3"]);
    let plain = router.endpoint("plain", &[]);
    assert_eq!(inside.v4().to_string(), "192.168.1.3");
    let addresses = router.netns().ip("-4 -o addr").stdout;
    for address in ["16.158.1.100/24", "192.168.1.1/24"] {
        assert!(addresses.contains(address), "{addresses}");
    }
    assert!(router.netns().ip("route show default").stdout.contains("via 16.158.1.1"));
    let _outside = world_servers(&street);
    let world = socket(WORLD[0], 7);
    // By masquerade, whoever it is.
    for ask in [Ask::tcp(world), Ask::udp(world)] {
        for from in [&inside, &plain] {
            assert_eq!(ask.clone().in_netns(from).seen.ip().to_string(), "16.158.1.100");
        }
    }
    // One to one, both ways: the neighbour asks for the address by ARP, and the router answers.
    router.vnet_ok(&["floating", "add", "16.158.1.103", "192.168.1.3"]);
    let _inside = echo(&inside, 80);
    for from in [&street.provider, &street.neighbour] {
        for ask in [Ask::tcp(socket("16.158.1.103", 80)), Ask::udp(socket("16.158.1.103", 80))] {
            let answer = ask.in_netns(from);
            assert_eq!(answer.seen, answer.local, "the server sees the client's own address and port");
        }
        Ping::to("16.158.1.103".parse().unwrap()).in_netns(from);
        let neighbours = from.ip("neigh show 16.158.1.103").stdout;
        assert!(neighbours.contains("lladdr"), "{neighbours}");
    }
    for ask in [Ask::tcp(world), Ask::udp(world)] {
        assert_eq!(ask.clone().in_netns(&inside).seen.ip().to_string(), "16.158.1.103");
        assert_eq!(ask.in_netns(&plain).seen.ip().to_string(), "16.158.1.100", "the others as before");
    }
    // A port of the router's own address.
    let _plain = echo(&plain, 80);
    router.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", plain.name())]);
    let answer = Ask::tcp(socket("16.158.1.100", 8088)).in_netns(&street.neighbour);
    assert_eq!(answer.seen, answer.local);
    assert_eq!(bridge(), mac, "the bridge is known by another address");
    // And it is given back.
    router.vnet_ok(&["floating", "rm", "16.158.1.103"]);
    assert!(!router.netns().ip("-4 -o addr").stdout.contains("16.158.1.103"));
    // Nothing of it is left, whoever has the address next.
    let left = router.vnet_ok(&["up", "--dry-run"]).stdout;
    assert!(!left.contains("16.158.1.103"), "{left}");
    lab.vnet_ok(&["router", "rm", &router.name]);
    router.assert_gone();
    same(&host(&street), &before);
}

#[test]
fn two_routers_with_the_same_prefix_inside_reach_each_other_by_floating_addresses() {
    let street = Street::new();
    let routers =
        [(R1, "a", ["16.158.1.103", "2001:db8:16::103"]), (R2, "b", ["16.158.1.203", "2001:db8:16::203"])]
            .map(|(plan, short, floating)| {
                let router = street.router(&plan);
                let endpoint = router.endpoint(short, &["--ip", "192.168.1.3", "--ip", "fd16::3"]);
                for external in floating {
                    router.vnet_ok(&["floating", "add", external, endpoint.name()]);
                }
                (router, endpoint, floating)
            });
    let _servers = [&routers[0].1, &routers[1].1].map(|endpoint| echo(endpoint, 80));
    for (from, to) in [(0, 1), (1, 0)] {
        for (own, other) in routers[from].2.iter().zip(routers[to].2) {
            Ping::to(other.parse().unwrap()).in_netns(&routers[from].1);
            for ask in [Ask::tcp(socket(other, 80)), Ask::udp(socket(other, 80))] {
                assert_eq!(ask.in_netns(&routers[from].1).seen.ip().to_string(), *own);
            }
        }
    }
    // IPv6 does not choose a floating address for what others send.
    let plain = routers[0].0.endpoint("plain", &[]);
    let _world = world_servers(&street);
    for (world, own) in WORLD.into_iter().zip(["16.158.1.100", "2001:db8:16::100"]) {
        assert_eq!(Ask::tcp(socket(world, 7)).in_netns(&plain).seen.ip().to_string(), own);
    }
    for (router, ..) in &routers {
        street.lab.vnet_ok(&["router", "rm", &router.name]);
        router.assert_only_others();
    }
}

#[test]
fn a_router_is_listed_repeated_and_planned() {
    let street = Street::new();
    let lab = &street.lab;
    let before = host(&street);
    let router = Router { street: &street, name: lab.name("r1") };
    let command = router.create(&R1);
    let planned = lab.vnet_ok(&[&command[..], &["--dry-run"]].concat()).stdout;
    for step in ["create namespace", &format!("in {OUTSIDE}, eth0 in"), "create program from_uplink on eth0"]
    {
        assert!(planned.contains(step), "{step}: {planned}");
    }
    router.assert_gone();
    same(&host(&street), &before);

    assert!(!lab.vnet_ok(&command).stdout.contains("(already)"));
    assert!(lab.vnet_ok(&command).stdout.contains("(already)"));
    let listed = lab.vnet_list(&["router", "ls"], "routers");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["name"], router.name);
    assert_eq!(listed[0]["outside"], OUTSIDE);
    assert_eq!(listed[0]["gateways"], serde_json::json!(PROVIDER));
    assert_eq!(listed[0]["netns"], router.netns().path().to_str().unwrap());
    let inspected = lab.vnet_list(&["router", "inspect", &router.name], "routers");
    for (key, value) in listed[0].as_object().expect("a router") {
        assert_eq!(inspected[0][key], *value, "{key}");
    }
    let status = lab.vnet_json(&router.with(&["status"]));
    assert_eq!(status["router"], listed[0]);
    assert_eq!(status["uplinks"], serde_json::json!(["eth0"]));
    assert_eq!(status["problems"], serde_json::json!([]));
    let other = lab.vnet(&["router", "inspect", "nobody"]);
    assert!(other.status == Some(1) && other.stderr.contains(&router.name), "{other}");
    // Another description of what is there, and another instance of its name.
    let mut other = router.create(&R2);
    other[2] = &router.name;
    let refused = lab.vnet(&other);
    assert!(refused.status == Some(1) && refused.stderr.contains("vnet router rm"), "{refused}");
    lab.vnet_ok(&["router", "rm", &router.name]);
    assert!(lab.vnet_ok(&["router", "rm", &router.name]).stdout.contains("nothing to remove"));
    router.assert_gone();
    same(&host(&street), &before);
}

#[test]
fn what_is_not_a_router_s_is_refused_and_left_alone() {
    let street = Street::new();
    let lab = &street.lab;
    let untouched = host(&street);
    lab.vnet_ok(&["up"]);
    let name = lab.name("r1");
    let make = |name: &str, bridge: &str| {
        let address = ["--address", R1.v4, "--subnet", "192.168.1.0/24"];
        lab.vnet(&[&["router", "create", name, "--outside", bridge][..], &address].concat())
    };
    let before = host(&street);
    let refused = |output: Output, words: &str| {
        assert_eq!(output.status, Some(1), "{output}");
        assert!(output.stderr.contains(words), "{words}: {output}");
        same(&host(&street), &before);
    };
    refused(make(&name, "vnet0"), "is that of network default of instance");
    refused(make(&name, "eth0"), "eth0 outside is a veth and no bridge");
    refused(make(&name, "br7"), OUTSIDE);
    // The host's own instance is none.
    refused(make(lab.instance(), OUTSIDE), "is no router");
    refused(lab.vnet(&["router", "rm", lab.instance()]), "is no router");
    // A namespace of that name is somebody else's.
    let theirs = Netns::named(&name);
    theirs.create();
    let output = make(&name, OUTSIDE);
    assert!(output.status == Some(1) && output.stderr.contains("is not vnet's"), "{output}");
    assert!(theirs.exists());
    theirs.delete();
    same(&host(&street), &before);
    // And so is an interface of the name that the link would have: it gets another.
    let link = || {
        make(&name, OUTSIDE).ok();
        lab.vnet_list(&["router", "ls"], "routers")[0]["interface"].as_str().expect("a name").to_owned()
    };
    let usual = link();
    lab.vnet_ok(&["router", "rm", &name]);
    lab.host().ip(&format!("link add {usual} type bridge"));
    assert_ne!(link(), usual);
    // Neither instance goes with the other.
    lab.vnet_ok(&["down"]);
    assert_eq!(lab.vnet_json(&["--instance", &name, "status"])["problems"], serde_json::json!([]));
    lab.vnet_ok(&["up"]);
    lab.vnet_ok(&["router", "rm", &name]);
    assert_eq!(lab.vnet_json(&["status"])["problems"], serde_json::json!([]));
    lab.host().ip(&format!("link del {usual}"));
    lab.vnet_ok(&["down"]);
    same(&host(&street), &untouched);
}

#[test]
fn a_router_is_worked_on_from_its_host_alone_or_from_within() {
    let street = Street::new();
    let lab = &street.lab;
    let router = street.router(&R1);
    let inside = router.endpoint("inside", &[]);
    // From within, as somebody may have it from before.
    let from = |netns: &Netns, args: &[&str]| lab.vnet_from(netns, &router.with(args));
    from(&router.netns(), &["portmap", "add", "8088", &format!("{}:80", inside.name())]).ok();
    from(&router.netns(), &["ns", "ls"]).ok();
    let before = lab.snapshot();
    for args in [&["up"][..], &["down"], &["down", "--dry-run"]] {
        let refused = from(&router.netns(), args);
        assert!(
            refused.status == Some(1) && refused.stderr.contains("run the command on its host"),
            "{refused}"
        );
        lab.snapshot().assert_same_as(&before);
    }
    // From another host, which has another bridge of that name.
    let elsewhere = lab.outside();
    elsewhere.ip(&format!("link add {OUTSIDE} type bridge"));
    for args in [&["portmap", "rm", "8088"][..], &["up"], &["down"], &["status"], &["ns", "create", "x"]] {
        let refused = from(elsewhere, args);
        assert!(
            refused.status == Some(1) && refused.stderr.contains("another network namespace"),
            "{refused}"
        );
    }
    let refused = lab.vnet_from(elsewhere, &router.create(&R1));
    assert!(refused.status == Some(1) && refused.stderr.contains("another network namespace"), "{refused}");
    let listed = lab.vnet_from(elsewhere, &["router", "ls", "--json"]).ok().json();
    assert_eq!(listed["routers"], serde_json::json!([]));
    elsewhere.ip(&format!("link del {OUTSIDE}"));
    assert_eq!(lab.vnet_json(&router.with(&["status"]))["problems"], serde_json::json!([]));
    lab.vnet_ok(&router.with(&["down"]));
    router.assert_gone();
}

#[test]
fn a_router_whose_namespace_or_link_has_gone_comes_back_with_all_it_had() {
    let street = Street::new();
    let lab = &street.lab;
    let router = street.router(&R1);
    let inside = router.endpoint("inside", &["--ip", "192.168.1.3", "--ip", "fd16::3"]);
    for external in ["16.158.1.103", "2001:db8:16::103"] {
        router.vnet_ok(&["floating", "add", external, inside.name()]);
    }
    let _servers = [echo(&inside, 80)];
    let works = || {
        for external in ["16.158.1.103", "2001:db8:16::103"] {
            Ask::tcp(socket(external, 80)).in_netns(&street.neighbour);
        }
        for world in WORLD {
            Ping::to(world.parse().unwrap()).in_netns(&inside);
        }
        assert_eq!(lab.vnet_json(&router.with(&["status"]))["problems"], serde_json::json!([]));
    };
    works();
    // Its namespace: it ends, as nobody lives there.
    router.netns().delete();
    let refused = lab.vnet(&router.with(&["ns", "create", "x"]));
    assert!(refused.status == Some(1) && refused.stderr.contains("up` brings the router back"), "{refused}");
    router.vnet_ok(&["ns", "ls"]);
    router.vnet_ok(&["up"]);
    works();
    assert!(router.vnet_ok(&["up"]).stdout.contains("(already)"));
    // Another of its name, which is not touched.
    router.netns().delete();
    router.netns().create();
    let refused = lab.vnet(&router.with(&["up"]));
    assert!(refused.status == Some(1) && refused.stderr.contains("another network namespace"), "{refused}");
    router.netns().delete();
    lab.vnet_ok(&router.create(&R1));
    works();
    // Its name alone, while a process keeps the namespace.
    let keeper = router.netns().start(&["sleep", "600"]);
    router.netns().delete();
    router.vnet_ok(&["up"]);
    works();
    drop(keeper);
    // Its link.
    let port = lab.vnet_list(&["router", "ls"], "routers")[0]["interface"].as_str().unwrap().to_owned();
    lab.host().ip(&format!("link del {port}"));
    let problems = lab.vnet_json(&router.with(&["status"]))["problems"].to_string();
    assert!(problems.contains(&port), "{problems}");
    router.vnet_ok(&["up"]);
    works();
    // Its port, taken out of the bridge; then the bridge's MTU.
    lab.host().ip(&format!("link set {port} nomaster"));
    router.vnet_ok(&["up"]);
    works();
    lab.host().ip(&format!("link set {OUTSIDE} mtu 1400"));
    router.vnet_ok(&["up"]);
    assert_eq!(lab.vnet_list(&["router", "ls"], "routers")[0]["mtu"], 1400);
    works();
    router.netns().delete();
    lab.vnet_ok(&["router", "rm", &router.name]);
    router.assert_gone();
    assert!(!inside.netns().exists());
}

#[test]
fn a_router_is_made_by_a_file_and_exported() {
    let street = Street::new();
    let lab = &street.lab;
    let (name, web) = (lab.name("r1"), lab.name("web"));
    let router = Router { street: &street, name };
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let text = format!(
        "[router]\noutside = \"{OUTSIDE}\"\naddresses = [\"{}\"]\ngateways = [\"{}\"]\n\n\
         [networks.default]\nsubnets = [\"192.168.1.0/24\"]\n\n[endpoints.{web}]\naddresses = [\"192.168.1.3\"]\n\n\
         [[floating]]\nexternal = \"16.158.1.103\"\ntarget = \"{web}\"\n\n\
         [[limits]]\ncgroup = \"/vnet-tests-nobody\"\negress = \"50mbit\"\n",
        R1.v4, PROVIDER[0]
    );
    fs::write(file.path(), text).unwrap();
    let apply = router.with(&["apply", "-f", file.path().to_str().unwrap()]);
    let before = host(&street);
    lab.vnet_ok(&[&apply[..], &["--dry-run"]].concat());
    router.assert_gone();
    same(&host(&street), &before);
    lab.vnet_ok(&apply);
    // Nothing is to be brought back either: limits hold on the router's link, which was made by the same command.
    assert_eq!(lab.vnet_ok(&apply).stdout, "nothing to change: everything is as described\n");
    let inside = Endpoint::observe(&web);
    let _server = echo(&inside, 80);
    Ask::tcp(socket("16.158.1.103", 80)).in_netns(&street.neighbour);
    let exported = router.vnet_ok(&["export"]).stdout;
    lab.vnet_ok(&["router", "rm", &router.name]);
    router.assert_gone();
    fs::write(file.path(), &exported).unwrap();
    lab.vnet_ok(&apply);
    assert_eq!(router.vnet_ok(&["export"]).stdout, exported);
    // Somebody else's bridge is none of vnet's.
    lab.vnet_ok(&["router", "rm", &router.name]);
    lab.vnet_ok(&["up"]);
    fs::write(file.path(), exported.replace(OUTSIDE, "vnet0")).unwrap();
    let refused = lab.vnet(&apply);
    assert!(refused.status == Some(1) && refused.stderr.contains("network default"), "{refused}");
    router.assert_gone();
}

#[test]
fn the_resident_part_lives_in_the_router_and_keeps_it() {
    let street = Street::new();
    let lab = &street.lab;
    let router = street.router(&R1);
    let inside = router.endpoint("inside", &[]);
    let mut resident = lab.vnet_start(&router.with(&["run"]));
    let _ = resident.line_with(&["started"]);
    let is_whole = || lab.vnet_json(&router.with(&["status"]))["problems"] == serde_json::json!([]);
    let port = lab.vnet_list(&["router", "ls"], "routers")[0]["interface"].as_str().unwrap().to_owned();
    lab.host().ip(&format!("link del {port}"));
    eventually(|| is_whole().then_some(()), || lab.vnet(&router.with(&["status"])).to_string());
    for world in WORLD {
        Ping::to(world.parse().unwrap()).in_netns(&inside);
    }
    // It keeps the namespace, whose name comes back with the next look.
    router.netns().delete();
    resident.signal(Signal::SIGHUP);
    eventually(|| router.netns().exists().then_some(()), || resident.lines().join("\n"));
    eventually(|| is_whole().then_some(()), || resident.lines().join("\n"));
    lab.vnet_ok(&["router", "rm", &router.name]);
    assert_eq!(resident.wait(), Some(0), "it ends with the router");
    router.assert_gone();
}

#[test]
fn a_router_is_inspected_with_what_it_has_outside_and_inside() {
    let street = Street::new();
    let lab = &street.lab;
    let router = street.router(&R1);
    let web = router.endpoint("web", &["--ip", "192.168.1.3"]);
    router.vnet_ok(&["floating", "add", "16.158.1.103", web.name()]);
    router.vnet_ok(&["portmap", "add", "8088", &format!("{}:80", web.name())]);
    let inspect = ["router", "inspect", &router.name];
    let said = &lab.vnet_list(&inspect, "routers")[0];
    assert_eq!(
        (&said["state"], &said["mtu"], &said["outside_mtu"]),
        (&"up".into(), &1500.into(), &1500.into())
    );
    assert_eq!(said["addresses"], serde_json::json!([R1.v4, R1.v6]));
    assert_eq!((&said["endpoints"], &said["networks"][0]["name"]), (&1.into(), &"default".into()));
    assert_eq!(said["floating_addresses"][0]["external"], "16.158.1.103");
    assert_eq!(
        (&said["published"][0]["port"], &said["published"][0]["endpoint"]),
        (&8088.into(), &web.name().into())
    );
    let text = lab.vnet_ok(&inspect).stdout;
    let published = format!("8088/tcp to {}:80", web.name());
    let floating = format!("16.158.1.103 to {} (192.168.1.3)", web.name());
    for words in
        ["state", OUTSIDE, R1.v4, R1.v6, PROVIDER[0], "1500", "192.168.1.0/24", &floating, &published]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    lab.vnet_ok(&["router", "rm", &router.name]);
    router.assert_gone();
}

#[test]
fn a_router_whose_bridge_is_gone_says_who_has_to_make_it() {
    let street = Street::new();
    let lab = &street.lab;
    let router = street.router(&R1);
    let state = || lab.vnet_list(&["router", "ls"], "routers")[0]["state"].clone();
    assert_eq!(state(), "up");
    lab.host().ip(&format!("link del {OUTSIDE}"));
    assert_eq!(state(), "bridge-gone");
    let words = format!("bridge {OUTSIDE} outside");
    let refused = lab.vnet(&router.with(&["up"]));
    refused.fails_with(1, &[&words, "is gone", "whoever has made it has to make it again"]);
    let findings = lab.vnet_list(&router.with(&["doctor"]), "findings");
    let about: Vec<_> = findings.iter().filter(|it| it.to_string().contains(OUTSIDE)).collect();
    assert_eq!(about.len(), 1, "said once: {findings:#?}");
    assert_eq!(about[0]["check"], "uplinks");
    assert!(about[0]["fix"].to_string().contains("make it again, then `vnet --instance"), "{findings:#?}");
    let problems = lab.vnet_json(&router.with(&["status"]))["problems"].to_string();
    assert!(problems.contains(&words) && problems.contains("has to make it again"), "{problems}");
    let resident = lab.vnet_start(&router.with(&["run"]));
    let failed = resident.line_with(&["failed", &words]);
    assert!(failed.contains("whoever has made it has to make it again"), "{failed}");
    drop(resident);
    // Somebody else's interface of its name is none.
    lab.host().ip(&format!("link add {OUTSIDE} type veth peer name other"));
    lab.vnet(&router.with(&["up"])).fails_with(1, &["is gone, and a veth of its name is there"]);
    lab.host().ip(&format!("link del {OUTSIDE}"));
    lab.host().ip(&format!("link add {OUTSIDE} type bridge"));
    lab.host().ip(&format!("link set {OUTSIDE} up"));
    for port in ["port0", "port1"] {
        lab.host().ip(&format!("link set {port} master {OUTSIDE} up"));
    }
    router.vnet_ok(&["up"]);
    assert_eq!(state(), "up");
    Ping::to(PROVIDER[0].parse().unwrap()).in_netns(&router.netns());
    assert_eq!(lab.vnet_json(&router.with(&["status"]))["problems"], serde_json::json!([]));
    lab.vnet_ok(&["router", "rm", &router.name]);
    router.assert_gone();
}

#[test]
fn the_doctor_finds_what_differs_between_a_router_and_its_bridge() {
    let street = Street::new();
    let lab = &street.lab;
    let router = street.router(&R1);
    let found = |check: &str| {
        let findings = lab.vnet_list(&router.with(&["doctor"]), "findings");
        let found = findings.into_iter().filter(|finding| finding["check"] == check);
        found.map(|finding| finding.to_string()).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(found("mtu"), "");
    lab.host().ip(&format!("link set {OUTSIDE} mtu 1400"));
    let mtu = found("mtu");
    assert!(mtu.contains("MTU of 1400") && mtu.contains(OUTSIDE) && mtu.contains("up`"), "{mtu}");
    router.vnet_ok(&["up"]);
    assert_eq!(found("mtu"), "");
    // What is to be done is to be done inside.
    router.netns().ip("link set eth0 down");
    let down = found("uplinks");
    assert!(down.contains(&format!("`ip -n {} link set eth0 up`", router.name)), "{down}");
    lab.vnet_ok(&["router", "rm", &router.name]);
    router.assert_gone();
}

#[test]
fn who_reads_of_a_router_is_told_that_its_namespace_is_gone() {
    let street = Street::new();
    let lab = &street.lab;
    let router = street.router(&R1);
    router.endpoint("web", &[]);
    router.netns().delete();
    let text = format!("the namespace of router {} is gone", router.name);
    for (args, list) in [
        (&["ns", "ls"][..], "endpoints"),
        (&["network", "ls"], "networks"),
        (&["portmap", "ls"], "portmaps"),
        (&["floating", "ls"], "floating"),
        (&["flow", "ls"], "flows"),
    ] {
        let said = lab.vnet(&router.with(&[&["--json"], args].concat())).ok();
        assert_eq!(said.stderr.matches(&text).count(), 1, "{args:?}: {said}");
        let json = said.json();
        assert!(json["notices"][0].as_str().is_some_and(|notice| notice.contains(&text)), "{json:#}");
        assert!(json[list].is_array(), "{json:#}");
    }
    let status = lab.vnet_json(&router.with(&["status"]));
    assert!(status["problems"][0].as_str().is_some_and(|problem| problem.contains(&text)), "{status:#}");
    assert_eq!((&status["router"]["state"], &status["endpoints"]), (&"namespace-gone".into(), &1.into()));
    assert!(router.vnet_ok(&["status"]).stdout.contains(&text));
    let doctor = router.vnet_ok(&["doctor"]).stdout;
    assert!(
        doctor.contains(&text) && doctor.contains(&format!("`vnet --instance {} up`", router.name)),
        "{doctor}"
    );
    let listed = lab.vnet_ok(&["router", "ls"]).stdout;
    assert!(listed.contains("namespace-gone"), "{listed}");
    router.vnet_ok(&["up"]);
    let json = lab.vnet_json(&router.with(&["ns", "ls"]));
    assert!(json.get("notices").is_none(), "{json:#}");
    lab.vnet_ok(&["router", "rm", &router.name]);
    router.assert_gone();
}

#[test]
fn addresses_that_a_router_cannot_have_are_refused_with_the_reason() {
    let street = Street::new();
    let lab = &street.lab;
    let first = street.router(&R1);
    let web = first.endpoint("web", &[]);
    let float = |router: &Router<'_>, external: &str, target: &str| {
        lab.vnet(&router.with(&["floating", "add", external, target]))
    };
    for (external, words) in [
        (PROVIDER[0], "it is the router's gateway outside"),
        (PROVIDER[1], "it is the router's gateway outside"),
        ("16.158.1.255", "first or the last address"),
    ] {
        float(&first, external, web.name()).fails_with(1, &[external, words]);
    }
    let add = format!("`ip -n {} addr add 16.158.2.7/32 dev eth0`", first.name);
    float(&first, "16.158.2.7", web.name()).fails_with(1, &["no prefix", R1.v4, &add]);
    float(&first, "16.158.1.103", web.name()).ok();
    // Another router on the same bridge.
    let second = Router { street: &street, name: lab.name("r2") };
    let mac = lab.vnet_list(&["router", "ls"], "routers")[0]["mac"].as_str().unwrap().to_owned();
    for (address, mac, words) in [
        ("16.158.1.100/24", None, "an address of router"),
        ("16.158.1.103/24", None, "a floating address of router"),
        ("16.158.1.200/24", Some(&mac), "hardware address of router"),
    ] {
        let mut command = vec!["router", "create", &second.name, "--outside", OUTSIDE, "--address", address];
        command.extend(mac.into_iter().flat_map(|mac| ["--mac", mac.as_str()]));
        lab.vnet(&command).fails_with(1, &[words, &first.name, OUTSIDE]);
        second.assert_only_others();
    }
    let command = second.create(&R2);
    lab.vnet_ok(&command);
    let other = second.endpoint("other", &[]);
    for (external, words) in
        [("16.158.1.100", "an address of router"), ("16.158.1.103", "a floating address of router")]
    {
        float(&second, external, other.name()).fails_with(1, &[words, &first.name]);
    }
    // Given back, it is free.
    first.vnet_ok(&["floating", "rm", "16.158.1.103"]);
    float(&second, "16.158.1.103", other.name()).ok();
    // The bridge inside is vnet's to make.
    let mut command = second.create(&R2);
    let third = lab.name("r3");
    command[2] = &third;
    command[6] = "16.158.1.201/24";
    command[8] = "2001:db8:16::201/64";
    command.extend(["--bridge", "eth0"]);
    lab.vnet(&command)
        .fails_with(1, &["eth0 cannot be the bridge of a network", "it is the uplink", "--bridge"]);
    for router in [&first, &second] {
        lab.vnet_ok(&["router", "rm", &router.name]);
        router.assert_only_others();
    }
}
