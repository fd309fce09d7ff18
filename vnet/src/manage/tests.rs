//! Every verb against a machine in memory: what it makes, what it refuses, and what is left when it fails.

mod addresses;
mod apply;
mod cgroup_limit;
mod connection;
mod direct;
mod doctor;
mod firewall;
mod limit;
mod repair;
mod router;
mod xdp;

use std::cell::RefCell;

use tempfile::TempDir;
use vnet_common::{Addr, CtEntry, Port, PortMapKey, PortMapValue, Proto, Tuple, Zone};

use super::*;
use crate::kernel::{Addressed, BoundSocket};
use crate::plan::{GsoSizes, Veth};
use crate::reconcile::fake::{Fake, Fault, interface, route};
use crate::spec::{
    Cidr, Filtering, Firewall, GatewayMode, Mapping, Name, Namespace, NetworkChange, Protocol, SettingsChange,
};

/// A host, and the directory its instance keeps its record in.
struct World {
    fake: Fake,
    directory: TempDir,
}

impl World {
    fn new() -> Self {
        // In memory where there is such a place: the store syncs what it writes.
        let directory = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        Self { fake: Fake::host(), directory }
    }

    async fn up() -> Self {
        let world = Self::new();
        world.bring_up(Mode::Apply).await.unwrap();
        world
    }

    fn instance(&self) -> Instance {
        let run = self.directory.path().join("run");
        Instance::below("default", run, self.directory.path().join("bpf")).unwrap()
    }

    fn manager(&self) -> Manager<&Fake> {
        Manager::open(&self.instance(), &self.fake, Mode::Apply, 1000).unwrap()
    }

    async fn bring_up(&self, mode: Mode) -> Result<Done<Instantiated>, Error> {
        self.bring_up_as(&UpRequest::default(), mode).await
    }

    async fn bring_up_as(&self, request: &UpRequest, mode: Mode) -> Result<Done<Instantiated>, Error> {
        Manager::create(&self.instance(), &self.fake, mode, 1000).unwrap().up(request).await
    }

    async fn down(&self) -> Result<Done<Downed>, Error> {
        down(&self.instance(), &&self.fake, Mode::Apply).await
    }

    /// What is recorded, as text.
    fn record(&self) -> String {
        let store = Store::open(&self.instance()).unwrap();
        let record = store.begin().unwrap();
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:b}",
            record.directs().unwrap(),
            record.settings().unwrap(),
            record.networks().unwrap(),
            record.endpoints().unwrap(),
            record.port_maps().unwrap(),
            record.going().unwrap(),
            record.masquerades().unwrap(),
            record.unmasqueraded().unwrap(),
            record.denied().unwrap(),
            record.cgroup_limits().unwrap(),
            record.floatings().unwrap(),
            record.host_addresses().unwrap(),
            record.port_blocks().unwrap(),
        )
    }

    fn has(&self, test: impl Fn(&Resource) -> bool) -> bool {
        self.fake.present.borrow().iter().any(test)
    }

    async fn endpoint(&self, name: &str) -> Result<Done<crate::spec::Endpoint>, Error> {
        self.manager().create_endpoint(&endpoint(name)).await
    }

    async fn move_to(&self, published: &str, target: &str) -> Result<Done<crate::spec::PortMap>, Error> {
        let (published, target) = (published.parse().unwrap(), target.parse().unwrap());
        self.manager().repoint(&MoveRequest { published, target, protocol: Protocol::Tcp }).await
    }

    /// Takes back a TCP mapping, which must be there.
    async fn unpublish(&self, published: &str) {
        let done = self.manager().unpublish(&published.parse().unwrap(), Protocol::Tcp).await.unwrap();
        assert!(done.value.is_some(), "{published} is not published");
    }

    /// Publishes each of these to the same ports of net1.
    async fn publish_all(&self, published: &[&str]) -> Result<Done<Vec<crate::spec::PortMap>>, Error> {
        let request = |published: &&str| {
            let ports = published.rsplit(':').next().unwrap();
            port_map(published, &format!("net1:{ports}"))
        };
        self.manager().publish_all(&published.iter().map(request).collect::<Vec<_>>()).await
    }

    async fn publish(&self, published: &str, target: &str) -> Result<Done<crate::spec::PortMap>, Error> {
        self.manager().publish(&port_map(published, target)).await
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn network(text: &str, subnet: &str) -> NetworkRequest {
    NetworkRequest {
        name: name(text),
        subnets: vec![subnet.parse::<crate::spec::Subnet>().unwrap()],
        gateways: Vec::new(),
        ranges: Vec::new(),
        reserved: Vec::new(),
        bridge: None,
        no_bridge: false,
        mtu: None,
        internal: false,
        isolated: false,
        options: NetworkChange::default(),
    }
}

fn endpoint(text: &str) -> EndpointRequest {
    let places = vec![Place::on(Name::default_network())];
    let (name, namespace, limits) = (name(text), Namespace::Own, LimitChange::default());
    EndpointRequest { name, namespace, places, limits }
}

fn port_map(published: &str, target: &str) -> PortMapRequest {
    PortMapRequest {
        published: published.parse().unwrap(),
        target: target.parse().unwrap(),
        protocol: Protocol::Tcp,
        allow_from: Vec::new(),
    }
}

fn restricted(published: &str, target: &str, allow_from: &[&str]) -> PortMapRequest {
    let allow_from = allow_from.iter().map(|text| text.parse().unwrap()).collect();
    PortMapRequest { allow_from, ..port_map(published, target) }
}

fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    format!("{:#}", anyhow::Error::from(result.expect_err("a refusal")))
}

#[tokio::test]
async fn up_makes_the_default_network_and_up_again_nothing() {
    let world = World::new();
    let done = world.bring_up(Mode::Apply).await.unwrap();
    let subnets: Vec<String> = done.value.network.segments.subnets().map(|s| s.to_string()).collect();
    assert_eq!(subnets[0], "192.168.0.0/24");
    assert!(subnets[1].starts_with("fd") && subnets[1].ends_with("::/64"), "{subnets:?}");
    assert!(world.has(|r| matches!(r, Resource::Bridge { name, .. } if name == "vnet0")));
    for addr in ["127.0.0.1", "::1", "203.0.113.1", "2001:db8::1", "198.51.100.1", "192.168.0.1"] {
        let addr: std::net::IpAddr = addr.parse().unwrap();
        assert!(world.has(|r| matches!(r, Resource::HostAddress { addr: a, .. } if *a == addr)), "{addr}");
    }
    assert_eq!(world.bring_up(Mode::Apply).await.unwrap().ops, []);
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_says_what_the_real_one_does() {
    let world = World::new();
    let planned = world.bring_up(Mode::DryRun).await.unwrap().ops;
    assert_eq!(world.fake.snapshot(), Vec::<String>::new());
    assert!(!world.directory.path().join("run").exists());
    assert_eq!(world.bring_up(Mode::Apply).await.unwrap().ops, planned);

    let (before, record) = (world.fake.snapshot(), world.record());
    let dry = Manager::open(&world.instance(), &world.fake, Mode::DryRun, 1000).unwrap();
    let planned = dry.create_endpoint(&endpoint("net1")).await.unwrap().ops;
    drop(dry);
    assert_eq!((world.fake.snapshot(), world.record()), (before, record));
    assert_eq!(world.endpoint("net1").await.unwrap().ops, planned);
}

#[tokio::test]
async fn everything_made_again_is_there_already_and_down_leaves_nothing() {
    let world = World::up().await;
    let manager = world.manager();
    let blue = network("blue", "10.1.0.0/24");
    let rule = MasqueradeRequest { subnet: "10.9.0.0/16".parse().unwrap(), to: None };
    let range = port_map("8000-8010", "net1:9000-9010");
    let first = [
        manager.create_network(&blue).await.unwrap().ops,
        manager.create_endpoint(&endpoint("net1")).await.unwrap().ops,
        manager.publish(&range).await.unwrap().ops,
        manager.add_masquerade(&rule).await.unwrap().ops,
    ];
    assert!(first.iter().all(|ops| !ops.is_empty()));
    let second = [
        manager.create_network(&blue).await.unwrap().ops,
        manager.create_endpoint(&endpoint("net1")).await.unwrap().ops,
        manager.publish(&range).await.unwrap().ops,
        manager.add_masquerade(&rule).await.unwrap().ops,
    ];
    assert!(second.iter().all(Vec::is_empty), "{second:?}");
    drop(manager);
    assert_eq!(world.bring_up(Mode::Apply).await.unwrap().ops, []);
    assert_eq!(world.down().await.unwrap().value, Downed::Instance);
    assert_eq!(world.fake.snapshot(), Vec::<String>::new());
    assert!(!world.instance().run_dir().exists());
    assert_eq!(world.down().await.unwrap().value, Downed::Nothing);
}

#[tokio::test]
async fn what_is_up_again_has_everything_that_had_gone() {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    world.publish("8088", "net1:80").await.unwrap();
    let whole = world.fake.snapshot();
    let count = whole.len();
    for lost in 0..count {
        let gone = world.fake.present.borrow_mut().remove(lost);
        world.bring_up(Mode::Apply).await.unwrap();
        assert_eq!(world.fake.snapshot(), whole, "after losing {gone}");
    }
}

/// Calls `verb` with every one of its steps failing in turn, and with the command killed at every step.
async fn fails_cleanly(prepare: impl AsyncFn(&World), verb: impl AsyncFn(&World) -> Result<usize, Error>) {
    let (steps, whole) = {
        let world = World::new();
        prepare(&world).await;
        (verb(&world).await.unwrap(), world.fake.snapshot())
    };
    assert!(steps > 0);
    for fault in [Fault::Before, Fault::After, Fault::Killed] {
        for step in 0..steps {
            let world = World::new();
            prepare(&world).await;
            let fresh = !world.instance().run_dir().exists();
            let before = world.fake.snapshot();
            let record = (!fresh).then(|| world.record());
            world.fake.fail_at(step, fault);
            let error = message(verb(&world).await);
            world.fake.heal();
            if fault != Fault::Killed {
                let after = world.fake.snapshot();
                // A changed configuration is not changed back: bits too many cost a look-up and no more.
                let compared = |snapshot: &[String]| -> Vec<String> {
                    let counts = |text: &&String| fault == Fault::Before || !text.starts_with("Config");
                    snapshot.iter().filter(counts).cloned().collect()
                };
                assert_eq!(compared(&after), compared(&before), "{fault:?} at {step}: {error}");
                assert_eq!((!fresh).then(|| world.record()), record, "{fault:?} at {step}");
                assert_eq!(world.instance().run_dir().exists(), !fresh);
            }
            // The same again reaches the end, and down leaves nothing, wherever it stopped.
            verb(&world).await.unwrap_or_else(|error| panic!("{fault:?} at {step}, then again: {error}"));
            let again = world.fake.snapshot();
            let only = |of: &[String], other: &[String]| -> Vec<String> {
                of.iter().filter(|text| !other.contains(text)).cloned().collect()
            };
            let both = (only(&again, &whole), only(&whole, &again));
            assert_eq!(both, (Vec::new(), Vec::new()), "{fault:?} at {step}, then again");
            world.down().await.unwrap();
            assert_eq!(world.fake.snapshot(), Vec::<String>::new(), "{fault:?} at {step}, then down");

            let world = World::new();
            prepare(&world).await;
            world.fake.fail_at(step, Fault::Killed);
            verb(&world).await.unwrap_err();
            world.fake.heal();
            world.down().await.unwrap();
            assert_eq!(world.fake.snapshot(), Vec::<String>::new(), "killed at {step}, then down");
        }
    }
}

async fn is_up(world: &World) {
    world.bring_up(Mode::Apply).await.unwrap();
}

#[tokio::test]
async fn a_failed_up_is_undone() {
    fails_cleanly(async |_| {}, async |world| Ok(world.bring_up(Mode::Apply).await?.ops.len())).await;
}

#[tokio::test]
async fn a_failed_network_is_undone() {
    let verb = async |world: &World| {
        Ok(world.manager().create_network(&network("blue", "10.1.0.0/24")).await?.ops.len())
    };
    fails_cleanly(is_up, verb).await;
}

#[tokio::test]
async fn a_failed_network_without_a_bridge_is_undone() {
    let request = NetworkRequest { no_bridge: true, ..network("blue", "10.1.0.0/24") };
    let verb = async |world: &World| Ok(world.manager().create_network(&request).await?.ops.len());
    fails_cleanly(is_up, verb).await;
}

#[tokio::test]
async fn without_a_bridge_an_endpoint_knows_its_gateway_and_nobody_else() {
    let world = World::up().await;
    let request = NetworkRequest { no_bridge: true, ..network("blue", "10.1.0.0/24") };
    world.manager().create_network(&request).await.unwrap();
    let near = |r: &Resource| matches!(r, Resource::Bridge { name, far_end: Some(far_end), .. } if name == "vnet-blue" && far_end == "vnf-blue");
    assert!(world.has(near));
    let attached = |hook: vnet_common::Hook| {
        world.has(|r| matches!(r, Resource::Attachment { hook: it, interface } if *it == hook && interface == "vnet-blue"))
    };
    assert!(attached(vnet_common::Hook::ToNetwork) && !attached(vnet_common::Hook::ToBridge));
    let places = vec![Place::on(name("blue"))];
    world.manager().create_endpoint(&EndpointRequest { places, ..endpoint("web") }).await.unwrap();
    let present = world.fake.present.borrow();
    let veth = present.iter().find_map(|r| match r {
        Resource::Veth(veth) => Some(veth),
        _ => None,
    });
    let veth = veth.unwrap();
    assert_eq!(veth.bridge, None);
    assert_eq!(veth.addresses, ["10.1.0.2/32".parse().unwrap()]);
    let gateway: IpAddr = "10.1.0.1".parse().unwrap();
    assert_eq!(veth.neighbours.iter().map(|(addr, _)| *addr).collect::<Vec<_>>(), [gateway]);
    let routes: Vec<(String, Option<IpAddr>)> =
        veth.routes.iter().map(|hop| (hop.destination.to_string(), hop.gateway)).collect();
    assert_eq!(routes, [("10.1.0.1/32".to_owned(), None), ("10.1.0.0/24".to_owned(), Some(gateway))]);
    // The data path still knows the network's prefix.
    assert!(present.iter().any(|r| matches!(r, Resource::Endpoint { prefix_len: 120, bridge, flags, .. }
        if bridge == "vnet-blue" && flags & vnet_common::NetworkValue::FLAG_UNBRIDGED != 0)));
}

#[tokio::test]
async fn a_network_has_a_bridge_of_a_name_or_none() {
    let world = World::up().await;
    let bridge = Some("br7".parse().unwrap());
    let request = NetworkRequest { no_bridge: true, bridge, ..network("blue", "10.1.0.0/24") };
    let error = message(world.manager().create_network(&request).await);
    assert!(error.contains("br7") && error.contains("leave out one of the two"), "{error}");
    let request = NetworkRequest { no_bridge: true, ..network("blue", "10.1.0.0/24") };
    world.manager().create_network(&request).await.unwrap();
    let error = message(world.manager().create_network(&network("blue", "10.1.0.0/24")).await);
    assert!(error.contains("no-bridge true"), "{error}");
}

#[tokio::test]
async fn a_failed_endpoint_is_undone() {
    fails_cleanly(is_up, async |world| Ok(world.endpoint("net1").await?.ops.len())).await;
}

#[tokio::test]
async fn a_failed_mapping_is_undone() {
    let prepare = async |world: &World| {
        is_up(world).await;
        world.endpoint("net1").await.unwrap();
        // An address that the mapping has to learn of.
        world.fake.host.borrow_mut()[1].addresses.push("203.0.113.9/24".parse().unwrap());
    };
    fails_cleanly(prepare, async |world| Ok(world.publish("8000-8011", "net1:8000-8011").await?.ops.len()))
        .await;
}

async fn has_a_mapping(world: &World) {
    is_up(world).await;
    world.endpoint("net1").await.unwrap();
    world.publish("8000", "net1:8000").await.unwrap();
}

#[tokio::test]
async fn many_mappings_are_published_together_or_not_at_all() {
    let all = ["8000", "8001", "9000-9011", "203.0.113.1:8000", "8001"];
    fails_cleanly(has_a_mapping, async |world| Ok(world.publish_all(&all).await?.ops.len())).await;
    let world = World::new();
    has_a_mapping(&world).await;
    let done = world.publish_all(&all).await.unwrap();
    let names: Vec<String> = done.value.iter().map(|mapping| mapping.published.to_string()).collect();
    assert_eq!(names, ["8000", "8001", "9000-9011", "203.0.113.1:8000"], "what was there, and each once");
    let ids: Vec<u32> = done.value.iter().map(|mapping| mapping.id).collect();
    assert_eq!(ids, [1, 2, 3, 4]);
    assert_eq!(world.publish("8002", "net1:8002").await.unwrap().value.id, 5);
}

#[tokio::test]
async fn every_mapping_that_cannot_be_had_is_named_and_none_is_published() {
    let world = World::new();
    has_a_mapping(&world).await;
    let on = "0.0.0.0".parse().unwrap();
    let held = BoundSocket { addr: on, port: 8003, v6only: false, inode: 1 };
    world.fake.sockets.borrow_mut().push((Proto::TCP, held));
    let (record, before) = (world.record(), world.fake.snapshot());
    let error = world.publish_all(&["8001", "7999-8000", "8003", "8001-8002", "49152"]).await.unwrap_err();
    let Error::Refused(refused) = error else { panic!("{error}") };
    let refused: Vec<(usize, String)> =
        refused.into_iter().map(|Refused { nth, error }| (nth, error.to_string())).collect();
    for ((nth, text), (at, words)) in refused.iter().zip([
        (1, "8000/tcp to net1:8000 is published"),
        (2, "held by nginx (pid 123)"),
        (3, "8001-8002/tcp is asked for twice: 8001/tcp to net1:8001"),
        (4, "49152 cannot be published"),
    ]) {
        assert!(*nth == at && text.contains(words), "{nth}: {text}");
    }
    assert_eq!(refused.len(), 4);
    assert_eq!((world.record(), world.fake.snapshot()), (record, before));
}

#[tokio::test]
async fn many_mappings_are_taken_back_together_or_not_at_all() {
    let world = World::new();
    has_a_mapping(&world).await;
    let before = world.fake.snapshot();
    world.publish_all(&["8001", "9000-9011", "203.0.113.1:8000"]).await.unwrap();
    let whole = world.fake.snapshot();
    let take_back = async |published: &[&str]| {
        let requests: Vec<_> = published.iter().map(|text| (text.parse().unwrap(), Protocol::Tcp)).collect();
        world.manager().unpublish_all(&requests).await
    };
    let error = message(take_back(&["8001", "9000", "9001"]).await);
    assert!(error.contains("request 2: 9000/tcp") && error.contains("request 3: 9001/tcp"), "{error}");
    assert_eq!(world.fake.snapshot(), whole);
    let done = take_back(&["8001", "9000-9011", "203.0.113.1:8000", "8001", "7000"]).await.unwrap();
    assert_eq!(done.value.len(), 3);
    assert_eq!(world.fake.snapshot(), before);
}

/// What the machine is asked and told while one mapping, one endpoint and one network are made and removed.
async fn calls_for_one_of_each(world: &World) -> Vec<std::collections::BTreeMap<&'static str, usize>> {
    let mut calls = Vec::new();
    let mut note = || calls.push(world.fake.take_calls());
    note();
    world.publish("1000", "net1:1000").await.unwrap();
    note();
    world.unpublish("1000").await;
    note();
    world.publish("2000-2010", "net1:2000-2010").await.unwrap();
    note();
    world.unpublish("2000-2010").await;
    note();
    world.endpoint("one").await.unwrap();
    note();
    world.manager().remove_endpoint(&name("one")).await.unwrap();
    note();
    world.manager().create_network(&network("one", "10.255.0.0/24")).await.unwrap();
    note();
    world.manager().remove_network(&name("one")).await.unwrap();
    note();
    calls.split_off(1)
}

#[tokio::test]
async fn one_more_takes_as_many_questions_and_steps_beside_many_as_beside_one() {
    let world = World::new();
    has_a_mapping(&world).await;
    let alone = calls_for_one_of_each(&world).await;
    assert!(alone.iter().all(|calls| calls.values().sum::<usize>() > 2), "{alone:?}");
    let many: Vec<String> = (10_000..10_300).map(|port| port.to_string()).collect();
    world.publish_all(&many.iter().map(String::as_str).collect::<Vec<_>>()).await.unwrap();
    world.publish("20000-20099", "net1:20000-20099").await.unwrap();
    for n in 0..30 {
        world.endpoint(&format!("many{n}")).await.unwrap();
        world
            .manager()
            .create_network(&network(&format!("many{n}"), &format!("10.{n}.0.0/24")))
            .await
            .unwrap();
    }
    assert_eq!(calls_for_one_of_each(&world).await, alone);
}

#[tokio::test]
async fn a_failed_restricted_mapping_is_undone() {
    let prepare = async |world: &World| {
        is_up(world).await;
        world.endpoint("net1").await.unwrap();
        // Shares its reservation with the one that fails.
        world.publish("127.0.0.1:8000", "net1:80").await.unwrap();
    };
    let verb = async |world: &World| {
        let request = restricted("203.0.113.1:8000-8001", "net1:80-81", &["10.0.0.0/8", "192.0.2.0/24"]);
        Ok(world.manager().publish(&request).await?.ops.len())
    };
    fails_cleanly(prepare, verb).await;
}

async fn has_a_restricted_mapping(world: &World) {
    is_up(world).await;
    world.endpoint("net1").await.unwrap();
    world.endpoint("net2").await.unwrap();
    let request = restricted("8000-8002", "net1:8000-8002", &["10.0.0.0/8", "fd00::/64"]);
    world.manager().publish(&request).await.unwrap();
}

#[tokio::test]
async fn a_failed_move_is_undone() {
    let prepare = async |world: &World| {
        is_up(world).await;
        world.endpoint("net1").await.unwrap();
        world.endpoint("net2").await.unwrap();
        world.publish("8000-8002", "net1:8000-8002").await.unwrap();
    };
    fails_cleanly(prepare, async |world| Ok(world.move_to("8000-8002", "net2:80-82").await?.ops.len())).await;
}

/// Of the steps of such a move the first ones write what is new, the others take away what is left of the old.
#[tokio::test]
async fn a_failed_move_of_a_restricted_mapping_is_undone_or_completed() {
    let (steps, whole, record) = {
        let world = World::new();
        has_a_restricted_mapping(&world).await;
        let ops = world.move_to("8000-8002", "net2:80-82").await.unwrap().ops;
        (ops, world.fake.snapshot(), world.record())
    };
    let taken_away = steps.iter().filter(|op| matches!(op, Op::Remove(Resource::AllowFrom { .. }))).count();
    assert_eq!((taken_away, steps.len()), (2, 2 + 4 + 2), "{steps:?}");
    for fault in [Fault::Before, Fault::After, Fault::Killed] {
        for step in 0..steps.len() {
            let world = World::new();
            has_a_restricted_mapping(&world).await;
            let (before, record_before) = (world.fake.snapshot(), world.record());
            world.fake.fail_at(step, fault);
            let error = message(world.move_to("8000-8002", "net2:80-82").await);
            world.fake.heal();
            if fault != Fault::Killed && step < steps.len() - taken_away {
                assert!(error.contains("was not made"), "{error}");
                assert_eq!(world.fake.snapshot(), before, "{fault:?} at {step}: {error}");
                assert_eq!(world.record(), record_before, "{fault:?} at {step}");
            } else if fault != Fault::Killed {
                assert!(error.contains("run the same command again"), "{error}");
            }
            world.move_to("8000-8002", "net2:80-82").await.unwrap();
            assert_eq!(world.fake.snapshot(), whole, "{fault:?} at {step}, then again");
            assert_eq!(world.record(), record, "{fault:?} at {step}, then again");
            world.down().await.unwrap();
            assert_eq!(world.fake.snapshot(), Vec::<String>::new(), "{fault:?} at {step}, then down");
        }
    }
}

#[tokio::test]
async fn a_move_that_was_killed_is_completed_by_whatever_comes_next() {
    let steps = {
        let world = World::new();
        has_a_restricted_mapping(&world).await;
        world.move_to("8000-8002", "net2:80-82").await.unwrap().ops.len()
    };
    // Each of them on its own has to reach what it reaches after a move that was not killed.
    let then = async |world: &World, what: &str| match what {
        "up" => drop(world.bring_up(Mode::Apply).await.unwrap()),
        "add" => drop(world.publish("9000", "net1:80").await.unwrap()),
        "rm" => world.unpublish("8000-8002").await,
        target => drop(world.manager().remove_endpoint(&name(target)).await.unwrap()),
    };
    for what in ["up", "add", "rm", "net1", "net2"] {
        let expected = {
            let world = World::new();
            has_a_restricted_mapping(&world).await;
            world.move_to("8000-8002", "net2:80-82").await.unwrap();
            then(&world, what).await;
            (world.fake.snapshot(), world.record())
        };
        for step in 0..steps {
            let world = World::new();
            has_a_restricted_mapping(&world).await;
            *world.fake.flows.borrow_mut() = vec![flow(1)];
            world.fake.fail_at(step, Fault::Killed);
            world.move_to("8000-8002", "net2:80-82").await.unwrap_err();
            world.fake.heal();
            then(&world, what).await;
            assert_eq!((world.fake.snapshot(), world.record()), expected, "killed at {step}, then {what}");
            assert!(world.fake.flows.borrow().is_empty(), "killed at {step}, then {what}");
        }
    }
}

#[tokio::test]
async fn a_failed_removal_goes_on_and_can_be_repeated() {
    for step in 0..6 {
        let world = World::up().await;
        let before = world.fake.snapshot();
        world.endpoint("net1").await.unwrap();
        world.publish("8088", "net1:80").await.unwrap();
        world.fake.fail_at(step, Fault::Before);
        let error = message(world.manager().remove_endpoint(&name("net1")).await);
        assert!(error.contains("removed in part"), "{error}");
        world.fake.heal();
        let left = world.fake.snapshot().len() - before.len();
        assert_eq!(left, 1, "only what failed at {step} is left");
        world.manager().remove_endpoint(&name("net1")).await.unwrap();
        assert_eq!(world.fake.snapshot(), before);
    }
}

#[tokio::test]
async fn down_goes_on_after_failures_and_can_be_repeated() {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    world.fake.fail_at(1, Fault::Before);
    let error = message(world.down().await);
    assert!(error.contains("removed in part"), "{error}");
    assert_eq!(world.fake.snapshot().len(), 1);
    world.fake.heal();
    world.down().await.unwrap();
    assert_eq!(world.fake.snapshot(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_not_recorded_as_ours_is_left_alone() {
    let bridge = Resource::Bridge {
        far_end: None,
        name: "vnet0".to_owned(),
        mac: vnet_common::Mac::new([2; 6]),
        mtu: 1500,
        gso: GsoSizes::LEGACY,
        addresses: Vec::new(),
    };
    let world = World::new();
    world.fake.present.borrow_mut().push(bridge.clone());
    let error = message(world.bring_up(Mode::Apply).await);
    assert!(error.contains("interface vnet0 exists") && error.contains("--bridge"), "{error}");
    assert_eq!(*world.fake.present.borrow(), [bridge]);
    assert!(!world.instance().run_dir().exists());

    let world = World::up().await;
    world.fake.present.borrow_mut().push(Resource::Namespace { name: "net1".to_owned() });
    let (before, record) = (world.fake.snapshot(), world.record());
    let error = message(world.endpoint("net1").await);
    assert!(error.contains("namespace net1 exists") && error.contains("vnet ns attach"), "{error}");
    assert_eq!((world.fake.snapshot(), world.record()), (before, record));
}

#[tokio::test]
async fn maps_whose_record_is_lost_are_removed_by_down() {
    let world = World::new();
    world.fake.present.borrow_mut().push(Resource::DataPath(crate::plan::TableSizes::default()));
    let error = message(world.bring_up(Mode::Apply).await);
    assert!(error.contains("vnet down"), "{error}");
    assert_eq!(world.down().await.unwrap().value, Downed::Leftovers);
    assert_eq!(world.fake.snapshot(), Vec::<String>::new());
}

#[tokio::test]
async fn a_directory_without_a_record_is_removed_by_down() {
    let world = World::new();
    std::fs::create_dir_all(world.instance().run_dir()).unwrap();
    std::fs::write(world.instance().state_file().with_extension("new"), "half").unwrap();
    assert_eq!(world.down().await.unwrap().value, Downed::Nothing);
    assert!(!world.instance().run_dir().exists());

    std::fs::create_dir_all(world.instance().run_dir()).unwrap();
    std::fs::write(world.instance().state_file().with_extension("new"), "half").unwrap();
    world.bring_up(Mode::Apply).await.unwrap();
    assert!(!world.instance().state_file().with_extension("new").exists());
}

#[tokio::test]
async fn nothing_can_be_done_with_what_is_not_up() {
    let world = World::new();
    let error = Manager::open(&world.instance(), &world.fake, Mode::Apply, 0).expect_err("not up");
    assert_eq!(error.to_string(), "instance default is not up: run `vnet up`");
    assert!(!world.instance().run_dir().exists());
}

#[tokio::test]
async fn uplinks_are_added_and_those_that_are_gone_are_dropped() {
    let world = World::up().await;
    let own = UpRequest { uplinks: vec!["vnet0".parse().unwrap()], ..UpRequest::default() };
    assert!(message(world.bring_up_as(&own, Mode::Apply).await).contains("of this instance"));
    let more = UpRequest { uplinks: vec!["eth1".parse().unwrap()], ..UpRequest::default() };
    let done = world.bring_up_as(&more, Mode::Apply).await.unwrap();
    assert_eq!(done.ops.len(), 3, "{:?}", done.ops);
    world.fake.host.borrow_mut().retain(|interface| interface.name != "eth1");
    let done = world.bring_up(Mode::Apply).await.unwrap();
    assert_eq!(done.notes, ["uplink eth1 is gone and no uplink any more"]);
    assert!(!world.has(|r| matches!(r, Resource::Attachment { interface, .. } if interface == "eth1")));
    assert!(!world.has(|r| matches!(r, Resource::HostAddress { interface, .. } if interface == "eth1")));
}

#[tokio::test]
async fn another_description_of_what_is_up_is_refused() {
    let world = World::up().await;
    let other = UpRequest { subnets: vec!["10.0.0.0/24".parse().unwrap()], ..UpRequest::default() };
    let error = message(world.bring_up_as(&other, Mode::Apply).await);
    assert!(error.contains("subnet 192.168.0.0/24") && error.contains("`vnet down`"), "{error}");

    world.manager().create_network(&network("blue", "10.1.0.0/24")).await.unwrap();
    let mut changed = network("blue", "10.2.0.0/24");
    changed.internal = true;
    let error = message(world.manager().create_network(&changed).await);
    assert_eq!(
        error,
        "network blue is there already, with subnet 10.1.0.0/24, internal false: to change it, first run \
         `vnet network rm blue`"
    );

    world.endpoint("net1").await.unwrap();
    let mut moved = endpoint("net1");
    moved.places[0].addresses = vec!["192.168.0.77".parse().unwrap()];
    let error = message(world.manager().create_endpoint(&moved).await);
    assert!(error.contains("address 192.168.0.2") && error.contains("`vnet ns rm net1`"), "{error}");
}

#[tokio::test]
async fn networks_do_not_overlap_and_are_not_removed_in_use() {
    let world = World::up().await;
    let manager = world.manager();
    manager.create_network(&network("blue", "10.1.0.0/24")).await.unwrap();
    let error = message(manager.create_network(&network("red", "10.1.0.0/16")).await);
    assert!(error.contains("overlaps 10.1.0.0/24 of network blue"), "{error}");
    let error = message(manager.create_network(&network("red", "203.0.113.0/24")).await);
    assert!(error.contains("eth0"), "{error}");

    let mut on_blue = endpoint("net1");
    on_blue.places[0].network = name("blue");
    manager.create_endpoint(&on_blue).await.unwrap();
    let error = message(manager.remove_network(&name("blue")).await);
    assert!(error.contains("in use by net1"), "{error}");
    manager.remove_endpoint(&name("net1")).await.unwrap();
    assert!(manager.remove_network(&name("blue")).await.unwrap().value.is_some());
    assert!(manager.remove_network(&name("blue")).await.unwrap().value.is_none());
    assert!(matches!(manager.remove_network(&Name::default_network()).await, Err(Error::DefaultNetwork)));
}

#[tokio::test]
async fn addresses_are_given_in_order_and_used_again() {
    let world = World::up().await;
    let mut addresses = Vec::new();
    for text in ["a", "b", "c"] {
        let endpoint = world.endpoint(text).await.unwrap().value;
        addresses.push(endpoint.addresses().next().unwrap().to_string());
    }
    assert_eq!(addresses, ["192.168.0.2", "192.168.0.3", "192.168.0.4"]);
    world.manager().remove_endpoint(&name("b")).await.unwrap();
    let again = world.endpoint("d").await.unwrap().value;
    assert_eq!(again.addresses().next().unwrap().to_string(), "192.168.0.3");

    let mut taken = endpoint("e");
    taken.places[0].addresses = vec!["192.168.0.4".parse().unwrap()];
    let error = message(world.manager().create_endpoint(&taken).await);
    assert_eq!(error, "address for endpoint e: 192.168.0.4 belongs to endpoint c");
}

#[tokio::test]
async fn an_endpoint_is_entered_under_each_of_its_addresses() {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    let entries: RefCell<Vec<(String, u8)>> = RefCell::default();
    world.has(|resource| {
        if let Resource::Endpoint { addr, prefix_len, .. } = resource {
            entries.borrow_mut().push((addr.to_string(), *prefix_len));
        }
        false
    });
    let entries = entries.into_inner();
    assert_eq!(entries[0], ("192.168.0.2".to_owned(), 120));
    assert!(
        entries[1].0.starts_with("fd") && entries[1].0.ends_with("::2") && entries[1].1 == 64,
        "{entries:?}"
    );
    assert!(entries[2].0.starts_with("fe80::") && entries[2].1 == 64, "{entries:?}");
    assert_eq!(entries.len(), 3);
}

#[tokio::test]
async fn an_endpoint_of_another_namespace_leaves_that_alone() {
    let world = World::up().await;
    let mut attached = endpoint("web");
    attached.namespace = Namespace::Foreign { path: "/proc/4711/ns/net".into() };
    let ops = world.manager().create_endpoint(&attached).await.unwrap().ops;
    let mentions = |ops: &[Op]| ops.iter().any(|op| op.to_string().contains("namespace"));
    assert!(!mentions(&ops), "{ops:?}");
    let ops = world.manager().remove_endpoint(&name("web")).await.unwrap().ops;
    assert!(!mentions(&ops), "{ops:?}");

    // What may be another namespace by now is not touched by an `up` that brings things back.
    world.manager().create_endpoint(&attached).await.unwrap();
    world.fake.present.borrow_mut().retain(|resource| !matches!(resource, Resource::Veth(Veth { .. })));
    let error = message(world.bring_up(Mode::Apply).await);
    assert!(error.contains("vnet ns rm web"), "{error}");
}

#[tokio::test]
async fn an_endpoint_without_a_network_is_a_namespace_and_nothing_else() {
    let world = World::up().await;
    let lonely = EndpointRequest { places: Vec::new(), ..endpoint("lonely") };
    let ops = world.manager().create_endpoint(&lonely).await.unwrap().ops;
    assert_eq!(ops, [Op::Create(Resource::Namespace { name: "lonely".to_owned() })]);
    let error = message(world.publish("80", "lonely:80").await);
    assert!(error.contains("is on no network"), "{error}");
}

#[tokio::test]
async fn a_target_is_found_by_address_and_by_name_and_published_in_both_families() {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    let by_address = world.publish("8088", "192.168.0.2:80").await.unwrap().value;
    assert_eq!((by_address.id, by_address.endpoint.as_str(), by_address.targets.len()), (1, "net1", 2));
    let keys = [Addr::ANY_V4, Addr::ANY_V6];
    for addr in keys {
        let key = PortMapKey { addr, port: Port::new(8088), proto: Proto::TCP, prefix_len: 16 };
        assert!(world.has(|r| matches!(r, Resource::PortMap { key: found, .. } if *found == key)), "{addr}");
    }
    assert_eq!(world.publish("8088", "net1:80").await.unwrap().ops, [], "the same by its name");
    let error = message(world.publish("8089", "net2:80").await);
    assert!(error.contains("no endpoint net2: there is net1 (192.168.0.2"), "{error}");
}

#[tokio::test]
async fn ports_are_taken_once_but_one_address_goes_before_all() {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    world.publish("8000-8010", "net1:80-90").await.unwrap();
    for taken in ["8000", "8010", "7999-8000", "7000-9000"] {
        let ports: crate::spec::Ports = taken.parse().unwrap();
        let error = message(world.publish(taken, &format!("net1:{ports}")).await);
        assert!(
            error.contains("8000-8010/tcp to net1:80-90") && error.contains("vnet portmap rm 8000-8010"),
            "{error}"
        );
    }
    assert!(world.publish("7999", "net1:80").await.is_ok());
    assert!(world.publish("8011", "net1:80").await.is_ok());
    assert!(world.publish("203.0.113.1:8005", "net1:80").await.is_ok());
    let udp = PortMapRequest { protocol: Protocol::Udp, ..port_map("8000", "net1:80") };
    assert!(world.manager().publish(&udp).await.is_ok());
}

#[tokio::test]
async fn ports_that_cannot_be_published_are_refused() {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    for (published, target, expected) in [
        ("49152", "net1:80", "49152-65535 are kept as source ports for masquerade"),
        ("49000-50000", "net1:49000-50000", "kept as source ports"),
        ("8000-8010", "net1:80", "8000-8010 are 11 ports, but the target's 80 are 1"),
        ("192.0.2.1:80", "net1:80", "192.0.2.1 is not an address of this host, which has 127.0.0.1"),
        ("8000", "10.0.0.1:80", "no endpoint 10.0.0.1"),
    ] {
        let error = message(world.publish(published, target).await);
        assert!(error.contains(expected), "{published}: {error}");
    }
    for allowed in ["127.0.0.1:80", "127.0.0.5:80", "[::1]:80", "192.168.0.1:80"] {
        world.publish(allowed, "net1:80").await.unwrap();
    }
    let mut internal = network("inner", "10.1.0.0/24");
    internal.internal = true;
    world.manager().create_network(&internal).await.unwrap();
    let mut inner = endpoint("net2");
    inner.places[0].network = name("inner");
    world.manager().create_endpoint(&inner).await.unwrap();
    assert!(message(world.publish("81", "net2:80").await).contains("internal"));
    let mut v4_only = network("v4", "10.2.0.0/24");
    v4_only.mtu = Some(1400);
    world.manager().create_network(&v4_only).await.unwrap();
    let mut four = endpoint("net3");
    four.places[0].network = name("v4");
    world.manager().create_endpoint(&four).await.unwrap();
    assert!(message(world.publish("[::1]:82", "net3:80").await).contains("no IPv6 address"));
}

#[tokio::test]
async fn sctp_is_published_on_the_target_s_own_port() {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    let sctp = |target| PortMapRequest { protocol: Protocol::Sctp, ..port_map("3868", target) };
    let error = message(world.manager().publish(&sctp("net1:3869")).await);
    assert!(error.contains("RFC 9260") && error.contains("TARGET:3868"), "{error}");
    let done = world.manager().publish(&sctp("net1:3868")).await.unwrap();
    assert!(done.ops.iter().all(|op| op.to_string().contains("sctp ports 3868-3868")), "{:?}", done.ops);
    let moved = MoveRequest {
        published: "3868".parse().unwrap(),
        target: "net1:80".parse().unwrap(),
        protocol: Protocol::Sctp,
    };
    assert!(message(world.manager().repoint(&moved).await).contains("RFC 9260"));
}

#[tokio::test]
async fn a_port_that_a_program_of_the_host_holds_is_refused_with_its_name() {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    let socket = |on: &str, inode| {
        let on: std::net::SocketAddr = on.parse().unwrap();
        BoundSocket { addr: on.ip(), port: on.port(), v6only: false, inode }
    };
    *world.fake.sockets.borrow_mut() = vec![
        (Proto::TCP, socket("0.0.0.0:8088", 7)),
        (Proto::TCP, socket("203.0.113.1:9000", 0)),
        (Proto::UDP, socket("0.0.0.0:5353", 7)),
    ];
    let before = (world.fake.snapshot(), world.record());
    for (published, expected) in [
        (
            "8088",
            "port 8088/tcp is held by nginx (pid 123) on 0.0.0.0:8088: stop it, have it use another address or \
             port, or publish another port",
        ),
        ("8080-8090", "port 8088/tcp is held by nginx (pid 123) on 0.0.0.0:8088"),
        ("127.0.0.1:8088", "port 8088/tcp is held by nginx (pid 123) on 0.0.0.0:8088"),
        ("9000", "port 9000/tcp is held by an unknown process on 203.0.113.1:9000"),
    ] {
        let ports: crate::spec::Published = published.parse().unwrap();
        let error = message(world.publish(published, &format!("net1:{}", ports.ports)).await);
        assert!(error.contains(expected), "{published}: {error}");
    }
    assert_eq!((world.fake.snapshot(), world.record()), before);
    for free in ["127.0.0.1:9000", "[::1]:8088", "5353"] {
        world.publish(free, "net1:80").await.unwrap();
    }
    // What is published already stays, whoever has bound it meanwhile.
    world.fake.sockets.borrow_mut().push((Proto::TCP, socket("0.0.0.0:5353", 7)));
    assert_eq!(world.publish("5353", "net1:80").await.unwrap().ops, []);
}

#[tokio::test]
async fn a_reservation_lasts_as_long_as_a_mapping_needs_it() {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    world.endpoint("net2").await.unwrap();
    let reserved = |world: &World| {
        let mut ports: Vec<u16> = Vec::new();
        for resource in world.fake.present.borrow().iter() {
            if let Resource::PortMap { key, .. } = resource
                && key.is_reservation()
            {
                ports.push(key.port.number());
            }
        }
        ports.sort_unstable();
        ports
    };
    world.publish("8088", "net1:80").await.unwrap();
    assert!(reserved(&world).is_empty(), "one for all addresses needs none");
    world.publish("127.0.0.1:8000", "net1:80").await.unwrap();
    world.publish("203.0.113.1:8000-8001", "net1:80-81").await.unwrap();
    world.publish("127.0.0.5:8000", "net2:80").await.unwrap();
    assert_eq!(reserved(&world), [8000, 8000], "a port, and a block of two that begins with it");
    world.unpublish("127.0.0.1:8000").await;
    assert_eq!(reserved(&world), [8000, 8000]);
    world.manager().remove_endpoint(&name("net2")).await.unwrap();
    assert_eq!(reserved(&world), [8000]);
    world.publish("[::1]:8000", "net1:80").await.unwrap();
    assert_eq!(reserved(&world), [8000, 8000], "families apart");
    world.manager().remove_endpoint(&name("net1")).await.unwrap();
    assert!(reserved(&world).is_empty());
}

#[tokio::test]
async fn restrictions_are_recorded_and_changed_by_no_accident() {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    let publish =
        async |allow_from: &[&str]| world.manager().publish(&restricted("8088", "net1:80", allow_from)).await;
    let done = publish(&["192.0.2.0/24", "10.1.0.0/16", "10.0.0.0/8"]).await.unwrap();
    assert_eq!(
        done.notes,
        ["no IPv6 prefix is allowed: over IPv6 only programs of this host can use 8088/tcp to net1:80"]
    );
    let again = publish(&["10.0.0.0/8", "192.0.2.0/24"]).await.unwrap();
    assert_eq!((again.ops, again.value), (Vec::new(), done.value));
    for others in [&[][..], &["10.0.0.0/8"], &["10.0.0.0/8", "192.0.2.0/24", "fd00::/64"]] {
        let error = message(publish(others).await);
        assert_eq!(
            error,
            "mapping 8088/tcp to net1:80 is there already, with allow-from 10.0.0.0/8 192.0.2.0/24: to change it, \
             first run `vnet portmap rm 8088`"
        );
    }
    let clients = |world: &World| world.has(|resource| matches!(resource, Resource::AllowFrom { .. }));
    assert!(clients(&world));
    world.unpublish("8088").await;
    assert!(!clients(&world));
    let idle = restricted("127.0.0.1:9000", "net1:80", &["fd00::/64"]);
    let notes = world.manager().publish(&idle).await.unwrap().notes;
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert_eq!(
        notes[1],
        "fd00::/64 allows nobody: 127.0.0.1:9000/tcp to net1:80 has no target of that family"
    );
    let open = message(world.publish("127.0.0.1:9000", "net1:80").await);
    assert!(open.contains("with allow-from fd00::/64"), "{open}");
    world.publish("9001", "net1:80").await.unwrap();
    let error = message(world.manager().publish(&restricted("9001", "net1:80", &["10.0.0.0/8"])).await);
    assert!(error.contains("with everybody allowed"), "{error}");
}

#[tokio::test]
async fn the_configuration_says_which_blocks_there_are() {
    let blocks = |world: &World| {
        let present = world.fake.present.borrow();
        present.iter().find_map(|r| {
            if let Resource::Config { config, .. } = r { Some(config.port_blocks) } else { None }
        })
    };
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    assert_eq!(blocks(&world), Some(0));
    let single = world.publish("80", "net1:80").await.unwrap().ops;
    assert!(!single.iter().any(|op| op.to_string().contains("configuration")), "{single:?}");
    world.publish("8000-8003", "net1:8000-8003").await.unwrap();
    assert_eq!(blocks(&world), Some(1 << 14));
    world.publish("9000-9004", "net1:9000-9004").await.unwrap();
    world.manager().unpublish(&"8000-8003".parse().unwrap(), Protocol::Tcp).await.unwrap();
    assert_eq!(blocks(&world), Some(1 << 14), "still used by the other range");
    world.manager().remove_endpoint(&name("net1")).await.unwrap();
    assert_eq!(blocks(&world), Some(0));
    assert!(!world.has(|r| matches!(r, Resource::PortMap { .. })));
}

#[tokio::test]
async fn a_range_counts_on_in_the_target() {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    world.publish("127.0.0.1:1003-1010", "net1:33-40").await.unwrap();
    let found: RefCell<Vec<(u16, u8, u16)>> = RefCell::default();
    world.has(|resource| {
        if let Resource::PortMap { key, value: PortMapValue { port, .. } } = resource
            && !key.is_reservation()
        {
            found.borrow_mut().push((key.port.number(), key.prefix_len, port.number()));
        }
        false
    });
    assert_eq!(found.into_inner(), [(1003, 16, 33), (1004, 14, 34), (1008, 15, 38), (1010, 16, 40)]);
}

#[tokio::test]
async fn taking_ports_back_ends_their_flows() {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    world.publish("8088", "net1:80").await.unwrap();
    world.publish("8089", "net1:80").await.unwrap();
    *world.fake.flows.borrow_mut() = vec![flow(1), flow(2), flow(0)];
    let error = message(world.manager().unpublish(&"8088-8090".parse().unwrap(), Protocol::Tcp).await);
    assert!(error.contains("8089/tcp to net1:80"), "{error}");
    assert!(
        world.manager().unpublish(&"8088".parse().unwrap(), Protocol::Tcp).await.unwrap().value.is_some()
    );
    let left: Vec<u32> = world.fake.flows.borrow().iter().map(|(_, entry)| entry.mapping).collect();
    assert_eq!(left, [2, 0]);
    assert!(
        world.manager().unpublish(&"8088".parse().unwrap(), Protocol::Tcp).await.unwrap().value.is_none()
    );
    world.manager().remove_endpoint(&name("net1")).await.unwrap();
    assert!(world.fake.flows.borrow().is_empty(), "all of them were net1's");
}

#[tokio::test]
async fn a_moved_mapping_has_another_number_and_its_old_flows_end() {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    world.endpoint("net2").await.unwrap();
    let made = world.manager().publish(&restricted("8088", "net1:80", &["10.0.0.0/8"])).await.unwrap().value;
    world.publish("8089", "net1:80").await.unwrap();
    *world.fake.flows.borrow_mut() = vec![flow(1), flow(2), flow(0)];
    let done = world.move_to("8088", "net2:8080").await.unwrap();
    let moved = done.value;
    assert_eq!((made.id, moved.id, moved.endpoint.as_str()), (1, 3, "net2"));
    assert_eq!(moved.allow_from, made.allow_from);
    let left: Vec<u32> = world.fake.flows.borrow().iter().map(|(_, entry)| entry.mapping).collect();
    assert_eq!(left, [2, 0]);
    // What the port leads to is exchanged and never absent; who may use it is known before, and forgotten after.
    let ops: Vec<String> = done.ops.iter().map(ToString::to_string).collect();
    assert_eq!(ops.len(), 4, "{ops:?}");
    assert_eq!(ops[0], "create clients 10.0.0.0/8 of mapping 3");
    assert!(ops[1..3].iter().all(|op| op.starts_with("change published tcp ports 8088-8088")), "{ops:?}");
    assert_eq!(ops[3], "remove clients 10.0.0.0/8 of mapping 1");
    assert_eq!(world.move_to("8088", "net2:8080").await.unwrap().ops, [], "it is there already");
    world.manager().remove_endpoint(&name("net1")).await.unwrap();
    assert_eq!(world.move_to("8088", "net2:8080").await.unwrap().value, moved, "it was not net1's any more");
}

#[tokio::test]
async fn a_move_to_a_target_of_one_family_takes_the_other_back() {
    let world = World::up().await;
    world.manager().create_network(&network("v4", "10.2.0.0/24")).await.unwrap();
    let mut four = endpoint("net4");
    four.places[0].network = name("v4");
    world.manager().create_endpoint(&four).await.unwrap();
    world.endpoint("net1").await.unwrap();
    let entries = |world: &World| {
        let present = world.fake.present.borrow();
        present.iter().filter(|resource| matches!(resource, Resource::PortMap { .. })).count()
    };
    world.publish("8088", "net1:80").await.unwrap();
    assert_eq!(entries(&world), 2);
    world.move_to("8088", "net4:80").await.unwrap();
    assert_eq!(entries(&world), 1);
    world.move_to("8088", "net1:80").await.unwrap();
    assert_eq!(entries(&world), 2);
}

#[tokio::test]
async fn what_cannot_be_moved_is_refused() {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    world.publish("8000-8010", "net1:80-90").await.unwrap();
    let before = (world.fake.snapshot(), world.record());
    for (published, target, expected) in [
        ("8011", "net1:80", "8011/tcp is not published: publish it with `vnet portmap add`"),
        ("8000", "net1:80", "move that with `vnet portmap move 8000-8010`"),
        ("127.0.0.1:8000", "net1:80", "127.0.0.1:8000/tcp is not published"),
        ("8000-8010", "net1:80", "8000-8010 are 11 ports"),
        ("8000-8010", "net9:80-90", "no endpoint net9"),
    ] {
        let error = message(world.move_to(published, target).await);
        assert!(error.contains(expected), "{published} to {target}: {error}");
    }
    assert_eq!((world.fake.snapshot(), world.record()), before);
}

fn flow(mapping: u32) -> (Tuple, CtEntry) {
    let tuple = Tuple {
        src: Addr::v4([203, 0, 113, 9]),
        dst: Addr::v4([203, 0, 113, 1]),
        sport: Port::new(1),
        dport: Port::new(2),
        zone: Zone::WORLD,
        proto: Proto::TCP,
        reserved: 0,
    };
    let translated = Tuple { dst: Addr::v4([192, 168, 0, 2]), zone: Zone { id: 1 }, ..tuple };
    let entry = CtEntry {
        translated,
        packets: 0,
        bytes: 0,
        last_seen: 0,
        created: 0,
        mapping,
        state: 1,
        origin: 1,
        flags: 0,
        reserved: 0,
    };
    (tuple, entry)
}

#[tokio::test]
async fn networks_bring_their_masquerade_and_take_it_away() {
    let world = World::up().await;
    let rules = |world: &World| {
        let store = Store::open(&world.instance()).unwrap();
        store.begin().unwrap().masquerades().unwrap().len()
    };
    let before = rules(&world);
    world.manager().create_network(&network("blue", "10.1.0.0/24")).await.unwrap();
    assert_eq!(rules(&world), before + 1);
    let own = MasqueradeRequest {
        subnet: "10.1.0.0/24".parse().unwrap(),
        to: Some("203.0.113.1".parse().unwrap()),
    };
    let error = message(world.manager().add_masquerade(&own).await);
    assert!(error.contains("vnet masquerade rm 10.1.0.0/24"), "{error}");
    world.manager().remove_masquerade(own.subnet).await.unwrap();
    world.manager().add_masquerade(&own).await.unwrap();
    world.manager().remove_network(&name("blue")).await.unwrap();
    assert_eq!(rules(&world), before + 1, "the user's own rule stays");
}

#[tokio::test]
async fn addresses_that_came_and_went_are_noticed() {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    {
        let mut host = world.fake.host.borrow_mut();
        host[1].addresses.remove(0);
        host.push(interface(9, "eth2", Some(9), &["192.0.2.9/24"]));
    }
    // A command that is killed in between forgets neither.
    world.fake.fail_at(0, Fault::Killed);
    world.publish("80", "net1:80").await.unwrap_err();
    world.fake.heal();
    let ops = world.publish("80", "net1:80").await.unwrap().ops;
    let ops: Vec<String> = ops.iter().map(ToString::to_string).collect();
    assert_eq!(ops[0], "remove host address 203.0.113.1 of eth0");
    assert_eq!(ops[1], "create host address 192.0.2.9 of eth2");
    assert_eq!(ops.len(), 4);
    assert_eq!(world.publish("80", "net1:80").await.unwrap().ops, []);
    assert!(!world.record().contains("203.0.113.1,"));
}

#[tokio::test]
async fn a_host_without_a_default_route_must_name_its_uplink() {
    let world = World::new();
    world.fake.routes.borrow_mut().clear();
    let error = message(world.bring_up(Mode::Apply).await);
    assert!(error.contains("--uplink IF") && error.contains("eth0, eth1"), "{error}");
    let named = UpRequest { uplinks: vec!["eth1".parse().unwrap()], ..UpRequest::default() };
    world.bring_up_as(&named, Mode::Apply).await.unwrap();
    assert_eq!(world.bring_up(Mode::Apply).await.unwrap().ops, [], "and keeps it");
    world.fake.routes.borrow_mut().push(route("10.0.0.0/8", "eth1"));
}

#[tokio::test]
async fn another_hosts_instance_is_left_alone() {
    let world = World::up().await;
    let before = world.fake.snapshot();
    world.fake.namespace.set(7);
    let errors = [
        message(world.bring_up(Mode::Apply).await),
        message(world.endpoint("net1").await),
        message(world.down().await),
    ];
    assert!(errors.iter().all(|error| error.contains("another network namespace")), "{errors:?}");
    assert_eq!(world.fake.snapshot(), before);
}

fn changed(change: SettingsChange) -> UpRequest {
    UpRequest { change, ..UpRequest::default() }
}

/// Everything that can be changed of an instance that is up.
fn other_settings() -> UpRequest {
    changed(SettingsChange {
        nat_ports: Some("40000-40999".parse().unwrap()),
        timeouts: vec!["udp-replied=10m".parse().unwrap()],
        endpoint_flows: Some(0),
        endpoint_unanswered: Some(99),
        firewall: Some(Firewall::Respect),
        ..SettingsChange::default()
    })
}

fn floating(external: &str, target: &str) -> FloatingRequest {
    FloatingRequest { external: external.parse().unwrap(), target: target.parse().unwrap() }
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

/// Two endpoints, and further addresses of the host for them.
async fn has_two_endpoints(world: &World) {
    let more = ["203.0.113.5/32", "203.0.113.6/32", "2001:db8::5/128"];
    world.fake.host.borrow_mut()[1].addresses.extend(more.map(|net| net.parse::<ipnet::IpNet>().unwrap()));
    is_up(world).await;
    world.endpoint("net1").await.unwrap();
    world.endpoint("net2").await.unwrap();
}

fn config(world: &World) -> vnet_common::DatapathConfig {
    let present = world.fake.present.borrow();
    let found = present
        .iter()
        .find_map(|r| if let Resource::Config { config, .. } = r { Some(*config) } else { None });
    found.expect("a configuration")
}

/// Flags, mapping and filtering of every entry of an endpoint, and the flags of every prefix of a network.
fn choices(world: &World) -> (Vec<(u8, u8, u8)>, Vec<u8>) {
    let present = world.fake.present.borrow();
    let entries = present.iter().filter_map(|resource| match resource {
        Resource::Endpoint { flags, mapping, filtering, .. } => Some((*flags, *mapping, *filtering)),
        _ => None,
    });
    let prefixes = present.iter().filter_map(|resource| match resource {
        Resource::Network { flags, .. } => Some(*flags),
        _ => None,
    });
    (entries.collect(), prefixes.collect())
}

fn has_rule(world: &World, wanted: &str) -> bool {
    let wanted: ipnet::IpNet = wanted.parse().unwrap();
    world.has(|resource| matches!(resource, Resource::Masquerade { subnet, .. } if *subnet == wanted))
}

#[tokio::test]
async fn a_failed_change_of_the_settings_is_undone() {
    let verb = async |world: &World| Ok(world.bring_up_as(&other_settings(), Mode::Apply).await?.ops.len());
    fails_cleanly(is_up, verb).await;
}

#[tokio::test]
async fn a_failed_way_back_to_the_bypass_is_undone() {
    let prepare = async |world: &World| {
        world.bring_up_as(&other_settings(), Mode::Apply).await.unwrap();
    };
    let bypass = changed(SettingsChange { firewall: Some(Firewall::Bypass), ..SettingsChange::default() });
    fails_cleanly(prepare, async |world| Ok(world.bring_up_as(&bypass, Mode::Apply).await?.ops.len())).await;
}

#[tokio::test]
async fn settings_are_changed_while_it_is_up_and_what_is_not_named_stays() {
    let world = World::up().await;
    world.bring_up_as(&other_settings(), Mode::Apply).await.unwrap();
    let expected = vnet_common::DatapathConfig {
        nat_ports: vnet_common::PortRange { first: 40_000, last: 40_999 },
        udp_replied: 600,
        endpoint_flows: 0,
        unanswered: 99,
        flags: vnet_common::DatapathConfig::FLAG_RESPECT_FIREWALL,
        ..vnet_common::DatapathConfig::DEFAULT
    };
    assert_eq!(config(&world), expected);
    assert!(world.has(|r| *r == Resource::ReservedPorts { first: 40_000, last: 40_999 }));
    assert!(world.has(|r| matches!(r, Resource::Forwarding { interface } if interface == "eth0")));
    assert_eq!(world.bring_up(Mode::Apply).await.unwrap().ops, [], "without an option all stays");

    let second = changed(SettingsChange {
        timeouts: vec!["tcp-established=1h".parse().unwrap()],
        firewall: Some(Firewall::Bypass),
        ..SettingsChange::default()
    });
    let done = world.bring_up_as(&second, Mode::Apply).await.unwrap();
    assert_eq!(done.notes, ["timeout tcp-established of 1h is less than 2h4m (RFC 5382 REQ-5)"]);
    assert_eq!(config(&world), vnet_common::DatapathConfig { tcp_established: 3600, flags: 0, ..expected });
    assert!(!world.has(|r| matches!(r, Resource::Forwarding { .. })));
}

#[tokio::test]
async fn an_uplink_forwards_as_long_as_it_is_one_and_the_firewall_is_respected() {
    let world = World::up().await;
    let both = UpRequest { uplinks: vec!["eth1".parse().unwrap()], ..other_settings() };
    world.bring_up_as(&both, Mode::Apply).await.unwrap();
    let forwarding = |world: &World| {
        let present = world.fake.present.borrow();
        present.iter().filter(|resource| matches!(resource, Resource::Forwarding { .. })).count()
    };
    assert_eq!(forwarding(&world), 2);
    world.fake.host.borrow_mut().retain(|interface| interface.name != "eth1");
    world.bring_up(Mode::Apply).await.unwrap();
    assert_eq!(forwarding(&world), 1);
    world.down().await.unwrap();
    assert_eq!(world.fake.snapshot(), Vec::<String>::new());
}

#[tokio::test]
async fn the_room_for_flows_is_fixed_until_down() {
    let world = World::new();
    let sized = |flows| changed(SettingsChange { max_flows: Some(flows), ..SettingsChange::default() });
    world.bring_up_as(&sized(1000), Mode::Apply).await.unwrap();
    let made = |world: &World, flows| {
        world.has(
            |r| matches!(r, Resource::DataPath(sizes) if sizes.flows == flows && sizes.unanswered == 65_536),
        )
    };
    assert!(made(&world, 1000));
    assert_eq!(world.bring_up_as(&sized(1000), Mode::Apply).await.unwrap().ops, []);
    let (before, record) = (world.fake.snapshot(), world.record());
    let error = message(world.bring_up_as(&sized(2000), Mode::Apply).await);
    assert!(error.contains("room for 1000 flows") && error.contains("`vnet down`"), "{error}");
    assert_eq!((world.fake.snapshot(), world.record()), (before, record));
    world.down().await.unwrap();
    world.bring_up_as(&sized(2000), Mode::Apply).await.unwrap();
    assert!(made(&world, 2000));
}

#[tokio::test]
async fn published_ports_and_ports_for_masquerade_keep_apart() {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    world.publish("40500-40509", "net1:80-89").await.unwrap();
    let (before, record) = (world.fake.snapshot(), world.record());
    let error = message(world.bring_up_as(&other_settings(), Mode::Apply).await);
    assert!(
        error.contains("40000-40999 cannot be kept") && error.contains("`vnet portmap rm 40500-40509`"),
        "{error}"
    );
    assert_eq!((world.fake.snapshot(), world.record()), (before, record));
    world.manager().unpublish(&"40500-40509".parse().unwrap(), Protocol::Tcp).await.unwrap();
    world.bring_up_as(&other_settings(), Mode::Apply).await.unwrap();
    let error = message(world.publish("40500", "net1:80").await);
    assert!(error.contains("40000-40999 are kept as source ports"), "{error}");
    world.publish("50000", "net1:80").await.unwrap();
}

#[tokio::test]
async fn a_failed_change_of_a_network_is_undone() {
    let change = NetworkChange {
        gateway_mode: Some(GatewayMode::Routed),
        udp_mapping: Some(Mapping::AddressAndPort),
        filtering: Some(Filtering::AddressAndPort),
        ..NetworkChange::default()
    };
    let set = async |world: &World, change| {
        Ok(world.manager().set_network(&Name::default_network(), change).await?.ops.len())
    };
    fails_cleanly(has_two_endpoints, async |world| set(world, change).await).await;
    let routed = async |world: &World| {
        has_two_endpoints(world).await;
        set(world, change).await.unwrap();
    };
    let back = NetworkChange { gateway_mode: Some(GatewayMode::Nat), ..NetworkChange::default() };
    fails_cleanly(routed, async |world| set(world, back).await).await;
}

#[tokio::test]
async fn a_change_of_a_network_reaches_its_prefixes_and_its_endpoints() {
    let world = World::new();
    has_two_endpoints(&world).await;
    assert_eq!(choices(&world), (vec![(0, 1, 1); 6], vec![0; 2]));
    let change = NetworkChange {
        gateway_mode: Some(GatewayMode::NatUnprotected),
        tcp_mapping: Some(Mapping::EndpointIndependent),
        filtering: Some(Filtering::EndpointIndependent),
        ..NetworkChange::default()
    };
    let default = Name::default_network();
    let done = world.manager().set_network(&default, change).await.unwrap();
    assert_eq!(done.ops.len(), 8, "{:?}", done.ops);
    assert_eq!(choices(&world), (vec![(4, 3, 2); 6], vec![4; 2]));
    assert_eq!(world.manager().set_network(&default, change).await.unwrap().ops, []);
    // What was not named stayed, and a new endpoint is like the others.
    world.endpoint("net3").await.unwrap();
    assert_eq!(choices(&world).0, vec![(4, 3, 2); 9]);
    assert_eq!(world.bring_up(Mode::Apply).await.unwrap().ops, []);
    let error = message(world.manager().set_network(&name("red"), change).await);
    assert!(error.contains("no network red: there is default"), "{error}");
}

#[tokio::test]
async fn a_routed_network_has_no_masquerade_and_gets_it_back() {
    let world = World::up().await;
    let routed = NetworkChange { gateway_mode: Some(GatewayMode::Routed), ..NetworkChange::default() };
    let nat = NetworkChange { gateway_mode: Some(GatewayMode::Nat), ..NetworkChange::default() };
    let request = NetworkRequest { options: routed, ..network("blue", "10.1.0.0/24") };
    world.manager().create_network(&request).await.unwrap();
    assert!(!has_rule(&world, "10.1.0.0/24"));
    assert_eq!(world.manager().create_network(&request).await.unwrap().ops, []);
    let set = async |change| world.manager().set_network(&name("blue"), change).await.unwrap();
    set(nat).await;
    assert!(has_rule(&world, "10.1.0.0/24"));
    set(routed).await;
    assert!(!has_rule(&world, "10.1.0.0/24"));
    // A rule of the user's own stays what it is, in either mode.
    let own = MasqueradeRequest { subnet: cidr("10.1.0.0/24"), to: Some("203.0.113.1".parse().unwrap()) };
    world.manager().add_masquerade(&own).await.unwrap();
    set(nat).await;
    set(routed).await;
    assert!(has_rule(&world, "10.1.0.0/24"));

    let other = NetworkRequest { options: nat, ..request };
    let error = message(world.manager().create_network(&other).await);
    assert_eq!(
        error,
        "network blue is there already, with gateway mode routed: to change it, run `vnet network set blue`"
    );
    let internal = NetworkRequest {
        internal: true,
        ..NetworkRequest { options: routed, ..network("in", "10.3.0.0/24") }
    };
    let error = message(world.manager().create_network(&internal).await);
    assert!(error.contains("network in cannot have gateway mode routed: it is internal"), "{error}");
}

#[tokio::test]
async fn a_change_leaves_out_an_endpoint_whose_link_is_gone() {
    let world = World::new();
    has_two_endpoints(&world).await;
    let is_gone = |r: &Resource| match r {
        Resource::Veth(veth) => veth.host == "vn-net2",
        Resource::Endpoint { interface, .. } | Resource::Attachment { interface, .. } => {
            interface == "vn-net2"
        }
        _ => false,
    };
    world.fake.present.borrow_mut().retain(|resource| !is_gone(resource));
    let change = NetworkChange { filtering: Some(Filtering::AddressAndPort), ..NetworkChange::default() };
    let done = world.manager().set_network(&Name::default_network(), change).await.unwrap();
    assert!(done.notes[0].contains("endpoint net2 is not there"), "{:?}", done.notes);
    world.bring_up(Mode::Apply).await.unwrap();
    assert_eq!(choices(&world).0, vec![(0, 1, 0); 6]);
}

#[tokio::test]
async fn a_failed_exclusion_is_undone() {
    fails_cleanly(is_up, async |world| Ok(world.manager().exclude(cidr("10.8.0.0/16")).await?.ops.len()))
        .await;
}

#[tokio::test]
async fn destinations_are_left_out_and_taken_in_again() {
    let world = World::up().await;
    let is_out = |subnet: &str| {
        let net = cidr(subnet).net();
        world.has(|r| matches!(r, Resource::Unmasqueraded { subnet } if *subnet == net))
    };
    for out in ["10.8.0.0/16", "10.0.0.0/8", "fd08::/64"] {
        assert_eq!(world.manager().exclude(cidr(out)).await.unwrap().ops.len(), 1);
        assert_eq!(world.manager().exclude(cidr(out)).await.unwrap().ops, []);
        assert!(is_out(out));
    }
    world.fake.present.borrow_mut().retain(|r| !matches!(r, Resource::Unmasqueraded { .. }));
    assert_eq!(world.bring_up(Mode::Apply).await.unwrap().ops.len(), 3, "brought back");
    let done = world.manager().include(cidr("10.8.0.0/16")).await.unwrap();
    assert_eq!(done.notes, ["10.0.0.0/8 is left out as well, and holds 10.8.0.0/16"]);
    assert!(done.value.is_some() && !is_out("10.8.0.0/16") && is_out("10.0.0.0/8"));
    assert!(world.manager().include(cidr("10.8.0.0/16")).await.unwrap().value.is_none());
}

#[tokio::test]
async fn a_failed_floating_address_is_undone() {
    fails_cleanly(has_two_endpoints, async |world| {
        Ok(world.manager().add_floating(&floating("203.0.113.5", "net1")).await?.ops.len())
    })
    .await;
}

#[tokio::test]
async fn a_floating_address_leads_both_ways_and_goes_with_its_endpoint() {
    let world = World::new();
    has_two_endpoints(&world).await;
    let before = world.fake.snapshot();
    let by_name = floating("203.0.113.5", "net1");
    let by_address = floating("203.0.113.5", "192.168.0.2");
    let done = world.manager().add_floating(&by_name).await.unwrap();
    assert_eq!(done.notes, Vec::<String>::new());
    assert_eq!(world.manager().add_floating(&by_address).await.unwrap().ops, [], "the same by its address");
    let out = Resource::Masquerade {
        subnet: "192.168.0.2/32".parse().unwrap(),
        to: Some("203.0.113.5".parse().unwrap()),
        one_to_one: true,
    };
    let into = Resource::Floating {
        external: "203.0.113.5".parse().unwrap(),
        addr: "192.168.0.2".parse().unwrap(),
        zone: Zone { id: 1 },
    };
    assert!(world.has(|r| *r == out) && world.has(|r| *r == into));
    world.manager().add_floating(&floating("2001:db8::5", "net1")).await.unwrap();
    world.manager().add_floating(&floating("203.0.113.6", "net2")).await.unwrap();
    let whole = world.fake.snapshot();
    let is_floating =
        |r: &Resource| matches!(r, Resource::Floating { .. } | Resource::Masquerade { one_to_one: true, .. });
    world.fake.present.borrow_mut().retain(|resource| !is_floating(resource));
    world.bring_up(Mode::Apply).await.unwrap();
    assert_eq!(world.fake.snapshot(), whole, "brought back");

    let removed = world.manager().remove_endpoint(&name("net1")).await.unwrap().value.unwrap();
    assert_eq!(removed.floating.len(), 2);
    world.endpoint("net1").await.unwrap();
    assert!(!world.has(|r| *r == out) && !world.has(|r| *r == into), "the next one does not inherit it");
    let external = "203.0.113.6".parse().unwrap();
    assert!(world.manager().remove_floating(external).await.unwrap().value.is_some());
    assert!(world.manager().remove_floating(external).await.unwrap().value.is_none());
    assert_eq!(world.fake.snapshot(), before);
}

#[tokio::test]
async fn an_address_that_cannot_float_is_refused_with_the_way_out() {
    let world = World::new();
    has_two_endpoints(&world).await;
    let mut internal = network("inner", "10.1.0.0/24");
    internal.internal = true;
    world.manager().create_network(&internal).await.unwrap();
    let mut inner = endpoint("net3");
    inner.places[0].network = name("inner");
    world.manager().create_endpoint(&inner).await.unwrap();
    world.publish("203.0.113.6:8088", "net2:80").await.unwrap();
    let own = MasqueradeRequest { subnet: cidr("192.168.0.3/32"), to: Some("203.0.113.6".parse().unwrap()) };
    world.manager().add_masquerade(&own).await.unwrap();
    world.manager().add_floating(&floating("203.0.113.5", "net1")).await.unwrap();

    let (before, record) = (world.fake.snapshot(), world.record());
    for (external, target, expected) in [
        ("203.0.113.7", "net2", "`ip addr add 203.0.113.7/32 dev UPLINK`"),
        ("2001:db8::7", "net2", "`ip addr add 2001:db8::7/128 dev UPLINK`"),
        ("192.168.0.1", "net2", "it is the gateway of network default"),
        ("127.0.0.1", "net2", "nobody outside could reach it"),
        ("203.0.113.6", "net9", "no endpoint net9"),
        ("203.0.113.6", "net3", "internal network inner"),
        ("2001:db8::5", "192.168.0.3", "192.168.0.3, which has no IPv6 address"),
        ("203.0.113.5", "net2", "203.0.113.5 for net1 (192.168.0.2) floats already"),
        ("203.0.113.6", "net1", "remove it with `vnet floating rm 203.0.113.5`"),
        ("203.0.113.6", "net2", "`vnet portmap rm 203.0.113.6:8088`"),
        ("203.0.113.1", "net2", "`vnet masquerade rm 192.168.0.3/32`"),
    ] {
        let error = message(world.manager().add_floating(&floating(external, target)).await);
        assert!(error.contains(expected), "{external} to {target}: {error}");
    }
    let error = message(world.publish("203.0.113.5:80", "net1:80").await);
    assert!(error.contains("`vnet floating rm 203.0.113.5`"), "{error}");
    let own = MasqueradeRequest { subnet: cidr("192.168.0.2/32"), to: None };
    let error = message(world.manager().add_masquerade(&own).await);
    assert!(error.contains("`vnet floating rm 203.0.113.5`"), "{error}");
    let routed = NetworkChange { gateway_mode: Some(GatewayMode::Routed), ..NetworkChange::default() };
    let error = message(world.manager().set_network(&Name::default_network(), routed).await);
    assert!(error.contains("`vnet floating rm 203.0.113.5`"), "{error}");
    assert_eq!((world.fake.snapshot(), world.record()), (before, record));

    world.manager().remove_floating("203.0.113.5".parse().unwrap()).await.unwrap();
    let done = world.manager().add_floating(&floating("203.0.113.1", "net1")).await.unwrap();
    assert!(done.notes[0].contains("the first IPv4 address of eth0"), "{:?}", done.notes);
    let error = message(world.manager().set_network(&Name::default_network(), routed).await);
    assert!(error.contains("`vnet floating rm 203.0.113.1`"), "{error}");
}

#[tokio::test]
async fn an_endpoint_of_a_routed_network_keeps_its_own_address() {
    let world = World::new();
    has_two_endpoints(&world).await;
    let routed = NetworkChange { gateway_mode: Some(GatewayMode::Routed), ..NetworkChange::default() };
    world.manager().set_network(&Name::default_network(), routed).await.unwrap();
    let error = message(world.manager().add_floating(&floating("203.0.113.5", "net1")).await);
    assert!(error.contains("routed network default"), "{error}");
}

#[tokio::test]
async fn taking_a_floating_address_back_ends_the_flows_by_it() {
    let world = World::new();
    has_two_endpoints(&world).await;
    world.manager().add_floating(&floating("203.0.113.5", "net1")).await.unwrap();
    let (tuple, entry) = flow(0);
    let [mut into, mut out, other] = [(tuple, entry); 3];
    into.0.dst = Addr::v4([203, 0, 113, 5]);
    out.1.translated.src = Addr::v4([203, 0, 113, 5]);
    *world.fake.flows.borrow_mut() = vec![into, out, other];
    world.manager().remove_floating("203.0.113.5".parse().unwrap()).await.unwrap();
    assert_eq!(*world.fake.flows.borrow(), [other]);
}

#[tokio::test]
async fn addresses_to_go_out_with_that_the_host_has_not_are_named() {
    let world = World::new();
    has_two_endpoints(&world).await;
    let rule = MasqueradeRequest { subnet: cidr("192.168.0.3/32"), to: Some("203.0.113.6".parse().unwrap()) };
    world.manager().add_masquerade(&rule).await.unwrap();
    world.manager().add_floating(&floating("203.0.113.5", "net1")).await.unwrap();
    let missing = || {
        let store = Store::open(&world.instance()).unwrap();
        let host: Vec<Addressed> = world.fake.host.borrow().iter().map(Addressed::from).collect();
        missing_addresses(&store.begin().unwrap(), &host).unwrap()
    };
    assert_eq!(missing(), Vec::<String>::new());
    world.fake.host.borrow_mut()[1].addresses.retain(|net| net.prefix_len() != 32);
    assert_eq!(
        missing(),
        [
            "masquerade of 192.168.0.3/32: 203.0.113.6 is not an address of this host",
            "floating address 203.0.113.5: it is not an address of this host",
        ]
    );
}

/// Where fragments wait, as it was made.
fn hold_of(world: &World) -> Option<(String, String)> {
    world.fake.present.borrow().iter().find_map(|resource| match resource {
        Resource::Hold { entrance, exit } => Some((entrance.clone(), exit.clone())),
        _ => None,
    })
}

fn configured_hold(world: &World) -> Option<String> {
    world.fake.present.borrow().iter().find_map(|resource| match resource {
        Resource::Config { hold, .. } => hold.clone(),
        _ => None,
    })
}

#[tokio::test]
async fn fragments_wait_between_interfaces_that_are_recorded_and_nobody_elses() {
    let world = World::new();
    world.fake.host.borrow_mut().push(interface(9, "vfrag1", Some(9), &[]));
    world.bring_up(Mode::Apply).await.unwrap();
    let (entrance, exit) = hold_of(&world).unwrap();
    assert!(entrance.starts_with("vfrag0-") && exit.starts_with("vfrag1-"), "{entrance} {exit}");
    assert_eq!(configured_hold(&world), Some(entrance.clone()));
    assert!(world.record().contains(&entrance) && world.record().contains(&exit));
    // Both are the instance's, whoever asks.
    let store = Store::open(&world.instance()).unwrap();
    assert!([&entrance, &exit].iter().all(|name| store.begin().unwrap().has_interface(name).unwrap()));
    drop(store);
    let again = world.bring_up(Mode::Apply).await.unwrap();
    assert_eq!((again.ops, again.notes), (Vec::new(), Vec::<String>::new()));
    // What is published later does not forget them.
    world.endpoint("net1").await.unwrap();
    world.publish("8000-8007", "net1:80-87").await.unwrap();
    assert_eq!(configured_hold(&world), Some(entrance));
    world.down().await.unwrap();
    assert_eq!(world.fake.snapshot(), Vec::<String>::new());
}

#[tokio::test]
async fn fragments_do_not_wait_where_the_kernel_cannot_make_them() {
    let world = World::new();
    world.fake.no_hold.set(true);
    let done = world.bring_up(Mode::Apply).await.unwrap();
    assert!(done.notes.iter().any(|note| note.contains("CONFIG_NET_SCH_TBF")), "{:?}", done.notes);
    assert_eq!((hold_of(&world), configured_hold(&world)), (None, None));
    // On another kernel they do.
    world.fake.no_hold.set(false);
    world.bring_up(Mode::Apply).await.unwrap();
    assert!(hold_of(&world).is_some() && configured_hold(&world).is_some());
}

#[test]
fn settings_of_before_fragments_waited_can_be_read() {
    let mut old = serde_json::to_value(Settings::new(1, 2)).unwrap();
    assert!(old.as_object_mut().unwrap().remove("hold").is_some());
    assert_eq!(serde_json::from_value::<Settings>(old).unwrap(), Settings::new(1, 2));
}
