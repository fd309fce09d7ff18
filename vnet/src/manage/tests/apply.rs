//! Whole descriptions: all of one, or nothing; what is not described; what is written is read again.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::file::{self, Known, Model, Source};

/// Something of every kind.
const WHOLE: &str = r#"
excluded = ["10.8.0.0/16"]
denied = ["198.51.100.128/25"]
[instance]
uplinks = ["eth0", "eth1"]
nat-ports = "40000-49999"
endpoint-flows = 1000
flood-rate = 100
xdp = { eth0 = "native" }
timeouts = { udp-replied = "10m", dns = 20 }
[networks.default]
subnets = ["192.168.0.0/24", "fd00:1::/64"]
filtering = "address-and-port"
[networks.blue]
subnets = ["10.1.0.0/24"]
gateways = ["10.1.0.254"]
mtu = 1400
isolated = true
[endpoints.web]
addresses = ["192.168.0.80"]
egress = "50mbit"
ingress = "1gbit"
[endpoints.db]
network = "blue"
mac = "02:00:00:00:00:77"
ifname = "lan0"
[endpoints.lonely]
mode = "none"
[[portmaps]]
publish = 8088
target = "web:80"
[[portmaps]]
publish = "203.0.113.1:8000-8010"
target = "db:9000-9010"
protocol = "udp"
allow-from = ["192.0.2.0/24"]
[[masquerades]]
sources = "10.1.0.7/32"
to = "198.51.100.1"
[[floating]]
external = "203.0.113.9"
target = "db"
[[limits]]
cgroup = "/a"
egress = "10mbit"
[[limits]]
classid = "1:10"
egress = "20mbit"
egress-burst = "64k"
"#;

/// The same instance with something else about everything that can be changed, and some of it gone.
const OTHER: &str = r#"
excluded = ["10.9.0.0/16"]
[instance]
uplinks = ["eth0"]
firewall = "respect"
[networks.default]
subnets = ["192.168.0.0/24", "fd00:1::/64"]
gateway-mode = "nat-unprotected"
[networks.green]
subnets = ["10.1.0.0/24"]
[endpoints.web]
addresses = ["192.168.0.80"]
egress = "none"
ingress = "2gbit"
ingress-burst = "64k"
[endpoints.cache]
network = "green"
[[portmaps]]
publish = 8088
target = "cache:8080"
allow-from = ["192.0.2.0/24"]
[[portmaps]]
publish = "203.0.113.1:8005"
target = "web:9005"
protocol = "udp"
[[floating]]
external = "203.0.113.9"
target = "web"
[[limits]]
cgroup = "/sys/fs/cgroup/a"
egress = "30mbit"
[[limits]]
cgroup = "/a/b"
egress = "5mbit"
"#;

fn description(text: &str) -> Description {
    let known = Known { networks: [name("blue")].into(), endpoints: [name("web"), name("db")].into() };
    let source = Source { name: "vnet.toml".to_owned(), text: Ok(text.to_owned()) };
    file::read(vec![source], &known)
        .unwrap_or_else(|flawed| panic!("{}", flawed.problems(Vec::new())))
        .description
}

impl World {
    /// A host that has an address to float as well.
    fn with_addresses() -> Self {
        let world = Self::new();
        world.fake.host.borrow_mut()[1].addresses.push("203.0.113.9/24".parse().unwrap());
        world
    }

    async fn apply_as(&self, text: &str, mode: Mode, unnamed: Unnamed) -> Result<Done<Applied>, Error> {
        let manager = Manager::create(&self.instance(), &self.fake, mode, 1000).unwrap();
        manager.apply(&description(text), unnamed).await
    }

    pub(super) async fn apply(&self, text: &str, unnamed: Unnamed) -> Result<Done<Applied>, Error> {
        self.apply_as(text, Mode::Apply, unnamed).await
    }

    pub(super) fn exported(&self) -> String {
        let store = Store::open(&self.instance()).unwrap();
        let description = Description::of("default", &store.begin().unwrap()).unwrap();
        Model::from(&description).to_text().unwrap()
    }
}

async fn floats(world: &World) {
    world.fake.host.borrow_mut()[1].addresses.push("203.0.113.9/24".parse().unwrap());
}

async fn is_whole(world: &World) {
    floats(world).await;
    world.apply(WHOLE, Unnamed::Stays).await.unwrap();
}

#[tokio::test]
async fn a_description_is_made_once_and_is_there_then() {
    let world = World::with_addresses();
    let planned = world.apply_as(WHOLE, Mode::DryRun, Unnamed::Stays).await.unwrap();
    assert_eq!((world.fake.snapshot(), world.instance().run_dir().exists()), (Vec::new(), false));
    let done = world.apply(WHOLE, Unnamed::Stays).await.unwrap();
    assert_eq!(done.ops, planned.ops, "the dry run says what is done");
    assert!(done.value.before.is_none() && done.value.after.port_maps.len() == 2);
    let (record, there) = (world.record(), world.fake.snapshot());
    for unnamed in [Unnamed::Stays, Unnamed::Goes] {
        let again = world.apply(WHOLE, unnamed).await.unwrap();
        assert_eq!(again.ops, [], "{unnamed:?}");
        assert_eq!(again.value.before.as_ref(), Some(&again.value.after), "{unnamed:?}");
        assert_eq!((world.record(), world.fake.snapshot()), (record.clone(), there.clone()), "{unnamed:?}");
    }
    assert_eq!(world.bring_up(Mode::Apply).await.unwrap().ops, []);
    world.down().await.unwrap();
    assert_eq!(world.fake.snapshot(), Vec::<String>::new());
}

#[tokio::test]
async fn what_verbs_made_is_exported_and_made_again() {
    let world = World::with_addresses();
    world.bring_up(Mode::Apply).await.unwrap();
    world.manager().create_network(&network("blue", "10.1.0.0/24")).await.unwrap();
    world.endpoint("net1").await.unwrap();
    world.endpoint("gone").await.unwrap();
    world.endpoint("net2").await.unwrap();
    world.manager().remove_endpoint(&name("gone")).await.unwrap();
    world.publish("8000-8010", "net2:8000-8010").await.unwrap();
    world.publish("[2001:db8::1]:443", "net1:443").await.unwrap();
    world.manager().publish(&restricted("22", "net1:22", &["192.0.2.0/24"])).await.unwrap();
    let (first, there) = (world.exported(), world.fake.snapshot());
    assert_eq!(world.apply(&first, Unnamed::Goes).await.unwrap().ops, [], "{first}");
    world.down().await.unwrap();
    world.apply(&first, Unnamed::Stays).await.unwrap();
    assert_eq!(world.exported(), first);
    // Mappings have other numbers.
    let kinds = |all: &[String]| -> Vec<String> {
        all.iter().map(|text| text.split([' ', '(']).next().unwrap().to_owned()).collect()
    };
    assert_eq!(kinds(&world.fake.snapshot()), kinds(&there));
}

#[tokio::test]
async fn a_description_that_fails_is_undone() {
    let verb = async |world: &World| Ok(world.apply(WHOLE, Unnamed::Stays).await?.ops.len());
    fails_cleanly(floats, verb).await;
}

#[tokio::test]
async fn a_description_that_adds_to_what_is_up_and_fails_is_undone() {
    let prepare = async |world: &World| {
        floats(world).await;
        world.bring_up(Mode::Apply).await.unwrap();
        world.endpoint("web2").await.unwrap();
        world.publish("7000", "web2:7000").await.unwrap();
    };
    let text = WHOLE.replace("[\"192.168.0.0/24\", \"fd00:1::/64\"]", "[]");
    fails_cleanly(prepare, async |world| Ok(world.apply(&text, Unnamed::Stays).await?.ops.len())).await;
}

/// What only one of two machines has.
fn difference(a: &[String], b: &[String]) -> Vec<String> {
    let only = |sign: &'static str, of: &[String], other: &[String]| -> Vec<String> {
        of.iter().filter(|text| !other.contains(text)).map(|text| format!("{sign}{text}")).collect()
    };
    [only("-", a, b), only("+", b, a)].concat()
}

/// What is there, but for the numbers of mappings, which are given once.
fn but_numbers(snapshot: &[String]) -> Vec<String> {
    let numberless = |text: &String| {
        let mut text = text.clone();
        for key in [" id: ", "mapping: "] {
            if let Some(at) = text.find(key) {
                let end = text[at + key.len()..].find([',', ' ', '}']).unwrap() + at + key.len();
                text.replace_range(at + key.len()..end, "_");
            }
        }
        text
    };
    let mut all: Vec<String> = snapshot.iter().map(numberless).collect();
    all.sort();
    all
}

#[tokio::test]
async fn changes_are_made_as_a_whole_and_then_what_is_not_described_goes() {
    let fresh = World::with_addresses();
    fresh.apply(OTHER, Unnamed::Goes).await.unwrap();
    let world = World::new();
    is_whole(&world).await;
    let whole = world.fake.snapshot();
    let record = world.record();
    let planned = world.apply_as(OTHER, Mode::DryRun, Unnamed::Goes).await.unwrap().ops;
    assert_eq!((world.fake.snapshot(), world.record()), (whole.clone(), record.clone()));
    let done = world.apply(OTHER, Unnamed::Goes).await.unwrap();
    let total = done.ops.len();
    let sorted = |ops: &[Op]| {
        let mut ops: Vec<String> = ops.iter().map(ToString::to_string).collect();
        ops.sort();
        ops.dedup();
        ops
    };
    assert_eq!(sorted(&done.ops), sorted(&planned));
    let end = world.fake.snapshot();
    assert_eq!(world.apply(OTHER, Unnamed::Goes).await.unwrap().ops, []);
    assert_eq!(world.exported(), fresh.exported(), "as if there had been nothing else");
    world.down().await.unwrap();
    assert_eq!(world.fake.snapshot(), Vec::<String>::new());

    let mut undone = 0;
    for fault in [Fault::Before, Fault::After, Fault::Killed] {
        for step in 0..total {
            let world = World::new();
            is_whole(&world).await;
            world.fake.fail_at(step, fault);
            let error = world.apply(OTHER, Unnamed::Goes).await.expect_err("a fault");
            world.fake.heal();
            if fault != Fault::Killed {
                if matches!(error, Error::NotMade { .. }) {
                    undone += 1;
                    assert_eq!(world.fake.snapshot(), whole, "{fault:?} at {step}: {error}");
                    assert_eq!(world.record(), record, "{fault:?} at {step}");
                } else {
                    // Everything described is there, and only some of what goes is left.
                    assert!(matches!(error, Error::Unsettled { .. }), "{fault:?} at {step}: {error}");
                    assert_eq!(world.exported(), fresh.exported(), "{fault:?} at {step}");
                }
            }
            world.apply(OTHER, Unnamed::Goes).await.unwrap();
            assert_eq!(but_numbers(&world.fake.snapshot()), but_numbers(&end), "{fault:?} at {step}, again");
            world.down().await.unwrap();
            assert_eq!(world.fake.snapshot(), Vec::<String>::new(), "{fault:?} at {step}, then down");
        }
    }
    assert!(undone > 20, "{undone} steps were undone");
}

#[tokio::test]
async fn a_killed_description_is_completed_by_any_other_command() {
    let total = {
        let world = World::new();
        is_whole(&world).await;
        world.apply(OTHER, Unnamed::Goes).await.unwrap().ops.len()
    };
    for step in 0..total {
        let world = World::new();
        is_whole(&world).await;
        world.fake.fail_at(step, Fault::Killed);
        world.apply(OTHER, Unnamed::Goes).await.unwrap_err();
        world.fake.heal();
        world.bring_up(Mode::Apply).await.unwrap();
        let bring_up = world.fake.snapshot();
        assert_eq!(world.apply(OTHER, Unnamed::Goes).await.unwrap().ops, [], "killed at {step}");
        assert_eq!(world.fake.snapshot(), bring_up, "killed at {step}");
    }
}

#[tokio::test]
async fn what_is_not_described_stays_unless_it_is_to_go() {
    let world = World::new();
    is_whole(&world).await;
    let done = world.apply("[[portmaps]]\npublish = 8088\ntarget = \"db:81\"", Unnamed::Stays).await.unwrap();
    let Applied { before, after } = done.value;
    let changes: Vec<String> = file::diff(before.as_ref(), &after).iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["~ portmap 8088/tcp: target web:80 -> db:81"]);
    let kept: Vec<String> =
        file::kept(&Description::default(), &after).iter().map(ToString::to_string).collect();
    assert_eq!(kept.len(), 12, "{kept:#?}");
    assert_eq!(kept[0], "= denied 198.51.100.128/25: not in the file, stays (--prune removes it)");

    let done = world.apply("", Unnamed::Goes).await.unwrap();
    assert_eq!(done.value.after.endpoints, []);
    let only_up = World::with_addresses();
    let uplinks = "[instance]\nuplinks = [\"eth0\", \"eth1\"]\n[networks.default]\n\
                   subnets = [\"192.168.0.0/24\", \"fd00:1::/64\"]";
    only_up.apply(uplinks, Unnamed::Stays).await.unwrap();
    assert_eq!(difference(&world.fake.snapshot(), &only_up.fake.snapshot()), Vec::<String>::new());
}

#[tokio::test]
async fn everything_that_is_refused_is_named_and_nothing_is_touched() {
    let world = World::new();
    is_whole(&world).await;
    let held = BoundSocket { addr: "0.0.0.0".parse().unwrap(), port: 9999, v6only: false, inode: 1 };
    world.fake.sockets.borrow_mut().push((Proto::TCP, held));
    let (there, record) = (world.fake.snapshot(), world.record());
    let text = r#"
[instance]
max-flows = 5000
[networks.blue]
subnets = ["10.1.0.0/24"]
[networks.red]
subnets = ["203.0.113.0/25"]
[endpoints.web]
addresses = ["192.168.0.81"]
[endpoints.new]
addresses = ["192.168.0.80"]
[[portmaps]]
publish = 45000
target = "web:80"
[[portmaps]]
publish = 9999
target = "web:80"
[[floating]]
external = "203.0.113.77"
target = "web"
[[limits]]
cgroup = "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16"
egress = "1mbit"
"#;
    let source = Source { name: "vnet.toml".to_owned(), text: Ok(text.to_owned()) };
    let file = file::read(vec![source], &Known::default()).unwrap();
    let error = world.manager().apply(&file.description, Unnamed::Stays).await.unwrap_err();
    let Error::RefusedParts(refused) = error else { panic!("{error}") };
    let problems = file.refused(refused);
    let lines: Vec<&str> = problems.lines().iter().map(String::as_str).collect();
    for (line, (place, words)) in lines.iter().zip([
        ("vnet.toml:2:1: ", "room for 131072 flows"),
        ("vnet.toml:4:11: ", "network blue is there already, with isolated true"),
        ("vnet.toml:6:11: ", "203.0.113.0/25 overlaps the address 203.0.113.1/24 of eth0"),
        ("vnet.toml:8:12: ", "endpoint web is there already, with address 192.168.0.80"),
        ("vnet.toml:10:12: ", "address for endpoint new: 192.168.0.80 belongs to endpoint web"),
        ("vnet.toml:12:1: ", "45000 cannot be published"),
        ("vnet.toml:15:1: ", "held by nginx (pid 123)"),
        ("vnet.toml:18:1: ", "203.0.113.77 is not an address of this host"),
        ("vnet.toml:21:1: ", "only cgroups up to 15 levels below it can be limited"),
    ]) {
        assert!(line.starts_with(place) && line.contains(words), "{place}{words}: {lines:#?}");
    }
    assert_eq!(lines.len(), 9, "{lines:#?}");
    assert_eq!((world.fake.snapshot(), world.record()), (there, record));
}

#[tokio::test]
async fn addresses_that_are_asked_for_are_not_given_to_others() {
    let world = World::new();
    let text = "[endpoints.a]\n[endpoints.b]\naddresses = [\"192.168.0.2\"]\n[endpoints.c]\n";
    let done = world.apply(text, Unnamed::Stays).await.unwrap();
    let v4 = |nth: usize| done.value.after.endpoints[nth].places[0].addresses[0].to_string();
    assert_eq!([v4(0), v4(1), v4(2)], ["192.168.0.3", "192.168.0.2", "192.168.0.4"]);
}

/// Descriptions of instances that can be had on the host of these tests.
fn descriptions() -> impl Strategy<Value = String> {
    let ports = prop::collection::btree_map(1000_u16..2000, (0..4_u8, any::<bool>(), any::<bool>()), 0..12);
    let endpoints = prop::collection::btree_map("[a-z][a-z0-9.]{0,9}", (0..3_u8, any::<bool>()), 1..6);
    let choices = (any::<bool>(), any::<bool>(), 0..3_usize, 0..100_u32);
    (ports, endpoints, choices).prop_map(|(ports, endpoints, (internal, isolated, mode, flows))| {
        let mut text = format!("[instance]\nendpoint-flows = {flows}\n");
        let mode = GatewayMode::ALL[if internal { 0 } else { mode }];
        text +=
            &format!("[networks.blue]\nsubnets = [\"10.1.0.0/24\", \"fd01::/64\"]\ninternal = {internal}\n");
        text += &format!("isolated = {isolated}\ngateway-mode = \"{mode}\"\n");
        let mut public = Vec::new();
        for (nth, (name, (kind, mac))) in endpoints.iter().enumerate() {
            text += &format!("[endpoints.\"{name}\"]\n");
            match kind {
                0 => text += "mode = \"none\"\n",
                1 => text += "network = \"blue\"\n",
                _ => public.push(name.clone()),
            }
            if *mac && *kind > 0 {
                text += &format!("mac = \"02:00:00:00:01:{nth:02x}\"\nifname = \"lan{nth}\"\n");
                text += &format!("egress = \"{}kbit\"\negress-burst = {}\n", nth + 8, nth + 2000);
            }
        }
        for (nth, (port, (kind, udp, restricted))) in ports.iter().enumerate() {
            let Some(target) = public.get(nth % public.len().max(1)) else { break };
            let host = ["", "203.0.113.1:", "[2001:db8::1]:", "127.0.0.1:"][usize::from(*kind)];
            text += &format!("[[portmaps]]\npublish = \"{host}{port}\"\ntarget = \"{target}:{port}\"\n");
            if *udp {
                text += "protocol = \"udp\"\n";
            }
            if *restricted {
                text += "allow-from = [\"192.0.2.0/24\", \"2001:db8:1::/48\"]\n";
            }
        }
        text
    })
}

#[test]
fn whatever_is_recorded_is_exported_and_made_again() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let result = runner.run(&descriptions(), |text| {
        runtime.block_on(async {
            let world = World::new();
            world
                .apply(&text, Unnamed::Stays)
                .await
                .map_err(|error| TestCaseError::fail(error.to_string()))?;
            let first = world.exported();
            let read = description(&first);
            let store = Store::open(&world.instance()).unwrap();
            let recorded = Description::of("default", &store.begin().unwrap()).unwrap();
            drop(store);
            prop_assert_eq!(&read, &recorded, "{}", first);
            let again = world.apply(&first, Unnamed::Goes).await.unwrap().ops;
            prop_assert_eq!(again, vec![]);
            let other = World::new();
            other.apply(&first, Unnamed::Stays).await.unwrap();
            prop_assert_eq!(other.exported(), first);
            prop_assert_eq!(but_numbers(&other.fake.snapshot()), but_numbers(&world.fake.snapshot()));
            Ok(())
        })
    });
    result.unwrap();
}
