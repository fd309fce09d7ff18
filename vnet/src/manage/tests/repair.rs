//! What the resident part brings back, against a machine in memory.

use std::collections::BTreeSet;

use super::*;

impl World {
    async fn repair(&self) -> Repaired {
        self.repair_of(&Scope::everything(), &BTreeSet::new()).await
    }

    async fn repair_of(&self, scope: &Scope, later: &BTreeSet<Object>) -> Repaired {
        self.manager().repair(scope, later).await.unwrap()
    }

    fn uplinks(&self) -> Vec<String> {
        let store = Store::open(&self.instance()).unwrap();
        let settings = store.begin().unwrap().settings().unwrap().expect("settings");
        settings.uplinks.iter().map(ToString::to_string).collect()
    }

    fn lose(&self, test: impl Fn(&Resource) -> bool) {
        self.fake.present.borrow_mut().retain(|resource| !test(resource));
    }

    fn mtu_of_eth0(&self, mtu: u32) {
        self.fake.host.borrow_mut()[1].mtu = mtu;
    }
}

/// The host's end of an endpoint's link.
fn host_end(endpoint: &str) -> String {
    crate::ours::host_interfaces("default", &name(endpoint)).next().expect("a name").to_string()
}

fn kinds(repaired: &Repaired) -> Vec<&'static str> {
    repaired.repairs.iter().map(|repair| repair.object.kind()).collect()
}

#[tokio::test]
async fn what_is_as_recorded_is_left_alone_and_nothing_is_written() {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    world.publish("8088", "net1:80").await.unwrap();
    let (before, record) = (world.fake.snapshot(), world.record());
    let repaired = world.repair().await;
    assert_eq!((&repaired.repairs[..], &repaired.notes[..], repaired.forgotten), (&[][..], &[][..], 0));
    assert_eq!((world.fake.snapshot(), world.record()), (before, record));
    assert!(repaired.interfaces.contains("vnet0") && repaired.interfaces.contains("eth0"));
    assert_eq!(repaired.endpoints, BTreeSet::from(["net1".to_owned()]));
}

#[tokio::test]
async fn each_part_is_brought_back_by_itself_and_said_to_have_been_found() {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    world.publish("8088", "net1:80").await.unwrap();
    let before = world.fake.snapshot();
    world.lose(|it| matches!(it, Resource::Attachment { interface, .. } if interface == "eth0"));
    world.lose(|it| matches!(it, Resource::Bridge { .. } | Resource::PortMap { .. } | Resource::Veth(_)));
    let repaired = world.repair().await;
    assert_eq!(kinds(&repaired), ["uplink", "network", "endpoint", "portmap"]);
    for repair in &repaired.repairs {
        assert_eq!((repair.failure.as_deref(), repair.ops.is_empty()), (None, false), "{repair:?}");
        assert!(repair.found.iter().all(|found| found.ends_with(": missing")), "{:?}", repair.found);
    }
    assert_eq!(world.fake.snapshot(), before);
}

#[tokio::test]
async fn only_what_is_concerned_is_looked_at_and_what_is_for_later_is_left_out() {
    let world = World::up().await;
    for name in ["net1", "net2"] {
        world.endpoint(name).await.unwrap();
    }
    let before = world.fake.snapshot();
    world.lose(|it| matches!(it, Resource::Veth(_)));
    let interfaces = BTreeSet::from([host_end("net1")]);
    let scope = Scope { interfaces, ..Scope::default() };
    let later = BTreeSet::from([Object::Endpoint(name("net1"))]);
    assert_eq!(world.repair_of(&scope, &later).await.repairs, []);
    let repaired = world.repair_of(&scope, &BTreeSet::new()).await;
    assert_eq!(repaired.repairs.len(), 1);
    assert_eq!(repaired.repairs[0].object, Object::Endpoint(name("net1")));
    assert_ne!(world.fake.snapshot(), before, "net2 is nobody's concern");
    // With its bridge an endpoint is.
    world.lose(|it| matches!(it, Resource::Bridge { .. }));
    assert_eq!(kinds(&world.repair_of(&Scope::default(), &BTreeSet::new()).await), ["network", "endpoint"]);
    assert_eq!(world.fake.snapshot(), before);
}

#[tokio::test]
async fn what_fails_keeps_nothing_else_from_being_repaired() {
    let world = World::up().await;
    for name in ["net1", "net2"] {
        world.endpoint(name).await.unwrap();
    }
    let before = world.fake.snapshot();
    world.lose(|it| matches!(it, Resource::Veth(_)));
    world.fake.fail_at(0, Fault::Before);
    let repaired = world.repair().await;
    let failed: Vec<bool> = repaired.repairs.iter().map(|repair| repair.failure.is_some()).collect();
    assert_eq!(failed, [true, false], "{:?}", repaired.repairs);
    world.fake.heal();
    assert_eq!(kinds(&world.repair().await), ["endpoint"]);
    assert_eq!(world.fake.snapshot(), before);
}

#[tokio::test]
async fn uplinks_that_nobody_has_named_follow_the_default_route_new_ones_first() {
    let world = World::up().await;
    assert_eq!(world.uplinks(), ["eth0"]);
    *world.fake.routes.borrow_mut() = vec![route("0.0.0.0/0", "eth1")];
    let repaired = world.repair().await;
    let ops: Vec<String> =
        repaired.repairs.iter().flat_map(|repair| repair.ops.iter().map(ToString::to_string)).collect();
    let at = |text: &str| {
        let found = ops.iter().position(|op| op == text);
        found.unwrap_or_else(|| panic!("no {text:?} in {ops:#?}"))
    };
    assert!(at("create program from_uplink on eth1") < at("remove program from_uplink on eth0"));
    assert_eq!(world.uplinks(), ["eth1"]);
    assert_eq!(world.repair().await.repairs, []);
    // Without a default route there is no better one.
    world.fake.routes.borrow_mut().clear();
    assert_eq!(world.repair().await.repairs, []);
    assert_eq!(world.uplinks(), ["eth1"]);
}

#[tokio::test]
async fn an_uplink_that_cannot_be_had_leaves_the_old_one_where_it_is() {
    let world = World::up().await;
    let before = world.fake.snapshot();
    *world.fake.routes.borrow_mut() = vec![route("0.0.0.0/0", "eth1")];
    for n in 0..3 {
        world.fake.fail_at(n, Fault::Before);
        let repaired = world.repair().await;
        assert!(repaired.repairs[0].failure.is_some(), "{:?}", repaired.repairs);
        assert_eq!((world.uplinks(), world.fake.snapshot()), (vec!["eth0".to_owned()], before.clone()));
    }
    world.fake.heal();
    world.repair().await;
    assert_eq!(world.uplinks(), ["eth1"]);
}

#[tokio::test]
async fn uplinks_that_somebody_has_chosen_stay() {
    let world = World::new();
    let named = UpRequest { uplinks: vec!["eth0".parse().unwrap()], ..UpRequest::default() };
    world.bring_up_as(&named, Mode::Apply).await.unwrap();
    *world.fake.routes.borrow_mut() = vec![route("0.0.0.0/0", "eth1")];
    let repaired = world.repair().await;
    assert_eq!((world.uplinks(), &repaired.repairs[..]), (vec!["eth0".to_owned()], &[][..]));
    let note = &repaired.notes[0];
    assert!(note.contains("eth1") && note.contains("vnet up --uplink eth1"), "{note}");
}

#[tokio::test]
async fn an_mtu_that_nobody_has_chosen_follows_the_uplink_by_run_and_by_up() {
    let world = World::up().await;
    let blue = NetworkRequest { mtu: Some(1400), ..network("blue", "10.1.0.0/24") };
    world.manager().create_network(&blue).await.unwrap();
    world.endpoint("net1").await.unwrap();
    let mtus = || {
        let store = Store::open(&world.instance()).unwrap();
        let networks = store.begin().unwrap().networks().unwrap();
        networks.iter().map(|network| network.mtu).collect::<Vec<_>>()
    };
    for (mtu, by_up) in [(9000, false), (1500, true), (1300, false)] {
        world.mtu_of_eth0(mtu);
        if by_up {
            world.bring_up(Mode::Apply).await.unwrap();
        } else {
            assert_eq!(kinds(&world.repair().await), ["network", "endpoint"]);
        }
        assert_eq!(mtus(), [1400, mtu]);
        assert!(world.has(|it| matches!(it, Resource::Veth(veth) if veth.mtu == mtu)));
        assert_eq!(world.repair().await.repairs, []);
    }
    world.mtu_of_eth0(1000);
    let repaired = world.repair().await;
    assert_eq!((mtus(), &repaired.repairs[..]), (vec![1400, 1300], &[][..]));
    assert!(repaired.notes[0].contains("1280"), "{:?}", repaired.notes);
}

#[tokio::test]
async fn an_address_that_the_host_has_lost_is_forgotten_with_its_flows() {
    let world = World::up().await;
    let external: Addr = "203.0.113.1".parse::<std::net::IpAddr>().unwrap().into();
    let (client, inside): (Addr, Addr) = (
        "198.51.100.9".parse::<std::net::IpAddr>().unwrap().into(),
        "192.168.0.2".parse::<std::net::IpAddr>().unwrap().into(),
    );
    let tuple = |zone: Zone, src: Addr, dst: Addr| Tuple {
        src,
        dst,
        sport: Port::new(1),
        dport: Port::new(2),
        zone,
        proto: Proto::TCP,
        ..bytemuck::Zeroable::zeroed()
    };
    let entry = |translated, mapping| CtEntry { translated, mapping, ..bytemuck::Zeroable::zeroed() };
    let net = Zone { id: 1 };
    let flows = [
        // Published: from the world to the address.
        (tuple(Zone::WORLD, client, external), entry(tuple(net, client, inside), 1)),
        // Masqueraded: from an endpoint, as the address.
        (tuple(net, inside, client), entry(tuple(Zone::WORLD, external, client), 0)),
        // To whoever else has the address by now, and one that has nothing to do with it.
        (tuple(net, inside, external), entry(tuple(Zone::WORLD, client, external), 0)),
        (tuple(net, inside, client), entry(tuple(Zone::WORLD, client, client), 0)),
    ];
    world.fake.flows.borrow_mut().extend(flows);
    world.fake.host.borrow_mut()[1].addresses.remove(0);
    let repaired = world.repair().await;
    assert_eq!((kinds(&repaired), repaired.forgotten), (vec!["addresses"], 2));
    assert_eq!(*world.fake.flows.borrow(), flows[2..]);
    assert_eq!(world.repair().await.forgotten, 0);
}

#[tokio::test]
async fn a_record_that_does_not_say_who_has_chosen_is_not_followed() {
    let world = World::up().await;
    {
        let store = Store::open(&world.instance()).unwrap();
        let transaction = store.begin().unwrap();
        let settings = transaction.settings().unwrap().unwrap();
        let mut old = serde_json::to_value(&settings).unwrap();
        old.as_object_mut().unwrap().remove("follows_default_route");
        transaction.set_settings(&serde_json::from_value(old).unwrap()).unwrap();
        for network in transaction.networks().unwrap() {
            let mut old = serde_json::to_value(&network).unwrap();
            old.as_object_mut().unwrap().remove("follows_uplink");
            transaction.put_network(&serde_json::from_value(old).unwrap()).unwrap();
        }
        transaction.commit().unwrap();
    }
    *world.fake.routes.borrow_mut() = vec![route("0.0.0.0/0", "eth1")];
    world.mtu_of_eth0(1400);
    assert_eq!((world.repair().await.repairs, world.uplinks()), (Vec::new(), vec!["eth0".to_owned()]));
}
