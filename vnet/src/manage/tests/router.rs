//! Routers: instances in a namespace of their own.

use super::*;
use crate::kernel;
use crate::manage::RouterRequest;
use crate::spec::Router;

/// Number of the namespace that the bridge is in.
const HOST: u64 = 77;

/// A world whose machine is a namespace that was entered from a host with two bridges, and has nothing yet.
async fn entered(world: &World) {
    world.fake.namespace.set(5);
    world.fake.host.borrow_mut().truncate(1);
    world.fake.routes.borrow_mut().clear();
    world.fake.origin.set(Some(HOST));
    let bridge = |index, name: &str| kernel::Interface {
        kind: Some("bridge".to_owned()),
        mtu: 9000,
        ..interface(index, name, Some(9), &[])
    };
    let uplink = interface(2, "eth0", Some(1), &["203.0.113.1/24"]);
    *world.fake.outside.borrow_mut() = Some(vec![uplink, bridge(3, "br-out"), bridge(4, "br-in")]);
}

fn request() -> RouterRequest {
    RouterRequest {
        bridge: "br-out".parse().unwrap(),
        addresses: vec!["16.158.1.100/24".parse().unwrap(), "16.158.1.101/32".parse().unwrap()],
        gateways: vec!["16.158.1.1".parse().unwrap()],
        mac: None,
    }
}

fn asked(router: RouterRequest) -> UpRequest {
    let subnets = vec!["192.168.1.0/24".parse().unwrap()];
    UpRequest { subnets, router: Some(router), ..UpRequest::default() }
}

async fn make(world: &World) -> Result<Done<Instantiated>, Error> {
    world.bring_up_as(&asked(request()), Mode::Apply).await
}

async fn is_router(world: &World) {
    entered(world).await;
    make(world).await.unwrap();
}

fn leg(world: &World) -> Veth {
    let present = world.fake.present.borrow();
    let leg = present.iter().find_map(|resource| match resource {
        Resource::Leg(veth) => Some(veth.clone()),
        _ => None,
    });
    leg.expect("a link to the outside")
}

#[tokio::test]
async fn a_router_has_a_namespace_a_link_and_an_instance_whose_uplink_that_is() {
    let world = World::new();
    entered(&world).await;
    let planned = world.bring_up_as(&asked(request()), Mode::DryRun).await.unwrap();
    assert!(!world.instance().run_dir().exists() && world.fake.snapshot().is_empty());
    let done = make(&world).await.unwrap();
    assert_eq!(planned.ops, done.ops);
    assert!(
        matches!(&done.ops[0], Op::Create(Resource::Home { name }) if name == "default"),
        "{:?}",
        done.ops[0]
    );
    let link = leg(&world);
    assert_eq!(
        (link.host.as_str(), link.bridge.as_deref(), link.ifname.as_str()),
        ("vr-default", Some("br-out"), "eth0")
    );
    assert_eq!((link.mtu, link.addresses.len(), link.gateways.len()), (9000, 2, 1));
    let settings = done.value.settings;
    assert_eq!(settings.uplinks, ["eth0".parse().unwrap()]);
    assert_eq!(settings.router.unwrap().host, HOST);
    assert_eq!(done.value.network.mtu, 9000, "the uplink's");
    assert!(world.instance().router_mark().exists());
    // The same again, in other words too.
    assert_eq!(make(&world).await.unwrap().ops, []);
    assert_eq!(world.bring_up(Mode::Apply).await.unwrap().ops, []);
    world.down().await.unwrap();
    assert_eq!(world.fake.snapshot(), Vec::<String>::new());
    assert!(!world.instance().run_dir().exists());
}

#[tokio::test]
async fn a_router_of_both_families_knows_the_address_that_its_link_gives_itself() {
    let world = World::new();
    entered(&world).await;
    let mut router = request();
    router.addresses.push("2001:db8:16::100/64".parse().unwrap());
    router.gateways.push("fe80::1".parse().unwrap());
    world.bring_up_as(&asked(router), Mode::Apply).await.unwrap();
    let own = crate::ours::link_local(leg(&world).mac);
    assert!(world.has(|it| matches!(it, Resource::HostAddress { addr, .. } if *addr == own)));
    assert_eq!(leg(&world).gateways.len(), 2);
}

#[tokio::test]
async fn a_router_that_fails_is_undone() {
    fails_cleanly(entered, async |world| Ok(make(world).await?.ops.len())).await;
}

#[tokio::test]
async fn what_a_router_cannot_be_is_refused() {
    let world = World::new();
    entered(&world).await;
    let with = |change: fn(&mut RouterRequest)| {
        let mut router = request();
        change(&mut router);
        asked(router)
    };
    for (request, words) in [
        (
            with(|it| it.bridge = "eth0".parse().unwrap()),
            "eth0 outside is an interface without a kind and no bridge",
        ),
        (with(|it| it.bridge = "br7".parse().unwrap()), "no bridge br7 outside: there is br-out, br-in"),
        (with(|it| it.addresses.clear()), "needs an address outside"),
        (with(|it| it.gateways = vec!["10.0.0.1".parse().unwrap()]), "none of the prefixes"),
        (with(|it| it.addresses = vec!["192.168.1.7/24".parse().unwrap()]), "10.0.0.1"),
    ] {
        let mut request = request;
        let clashes = words == "10.0.0.1";
        if clashes {
            request.router.as_mut().unwrap().gateways.clear();
        }
        let words =
            if clashes { "192.168.1.0/24 overlaps the address 192.168.1.7/24 of eth0" } else { words };
        let error = message(world.bring_up_as(&request, Mode::Apply).await);
        assert!(error.contains(words), "{words}: {error}");
        assert!(!world.instance().run_dir().exists());
    }
    make(&world).await.unwrap();
    for (request, words) in [
        (with(|it| it.bridge = "br-in".parse().unwrap()), "is there already, with bridge br-out"),
        (with(|it| it.gateways.clear()), "gateway 16.158.1.1"),
        (with(|it| it.addresses.truncate(1)), "address 16.158.1.100/24 16.158.1.101/32"),
        (with(|it| it.mac = Some(vnet_common::Mac::new([2, 0, 0, 0, 0, 1]))), "hardware address 02:"),
    ] {
        let error = message(world.bring_up_as(&request, Mode::Apply).await);
        assert!(error.contains(words) && error.contains("vnet router rm default"), "{words}: {error}");
    }
    // An instance that is up is not made a router.
    let world = World::up().await;
    let error = message(world.bring_up_as(&asked(request()), Mode::Apply).await);
    assert!(error.contains("is no router"), "{error}");
}

#[tokio::test]
async fn a_router_is_worked_on_in_its_own_namespace_alone() {
    let world = World::new();
    is_router(&world).await;
    let refused = async || message(world.endpoint("net1").await);
    // From inside it, entered by other means.
    world.fake.origin.set(None);
    world.endpoint("net0").await.unwrap();
    world.fake.namespace.set(HOST);
    assert!(refused().await.contains("`vnet --instance default up` brings the router back"));
    world.fake.namespace.set(78);
    assert!(refused().await.contains("another network namespace"));
    world.fake.origin.set(Some(78));
    world.fake.namespace.set(5);
    assert!(refused().await.contains("another network namespace"), "the router is another host's");
    let error = message(make(&world).await);
    assert!(error.contains("another network namespace"), "{error}");
}

#[tokio::test]
async fn a_router_whose_namespace_has_gone_comes_back_in_another() {
    let world = World::new();
    is_router(&world).await;
    world.endpoint("net1").await.unwrap();
    let whole = world.fake.snapshot();
    // All goes that is in a namespace or on it; the maps stay, and with them pins of programs.
    let is_gone = |resource: &Resource| {
        matches!(
            resource,
            Resource::Home { .. } | Resource::Leg(_) | Resource::Bridge { .. } | Resource::Veth(_)
        )
    };
    world.fake.present.borrow_mut().retain(|resource| !is_gone(resource));
    world.fake.namespace.set(6);
    let error = message(world.endpoint("net2").await);
    assert!(error.contains("namespace of router default is gone"), "{error}");
    let ops = world.bring_up(Mode::DryRun).await.unwrap().ops;
    assert!(matches!(&ops[0], Op::Create(Resource::Home { .. })), "{:?}", ops[0]);
    world.bring_up(Mode::Apply).await.unwrap();
    assert_eq!(world.fake.snapshot(), whole);
    world.endpoint("net2").await.unwrap();
    assert_eq!(world.bring_up(Mode::Apply).await.unwrap().ops, []);
    // And it can be taken down without its namespace.
    world.fake.present.borrow_mut().retain(|resource| !is_gone(resource));
    world.fake.namespace.set(7);
    world.down().await.unwrap();
    assert!(!world.instance().run_dir().exists());
}

#[tokio::test]
async fn a_floating_address_of_the_prefix_outside_is_given_to_the_link() {
    let world = World::new();
    is_router(&world).await;
    world.endpoint("net1").await.unwrap();
    let float = async |external: &str| {
        let request =
            FloatingRequest { external: external.parse().unwrap(), target: "net1".parse().unwrap() };
        world.manager().add_floating(&request).await
    };
    let before = world.fake.snapshot();
    let done = float("16.158.1.103").await.unwrap();
    let given = |world: &World| {
        world.has(|it| matches!(it, Resource::ExternalAddress { interface, .. } if interface == "eth0"))
    };
    assert!(done.notes.is_empty() && given(&world));
    assert!(
        world
            .has(|it| matches!(it, Resource::HostAddress { addr, .. } if addr.to_string() == "16.158.1.103"))
    );
    assert_eq!(float("16.158.1.103").await.unwrap().ops, []);
    assert_eq!(world.bring_up(Mode::Apply).await.unwrap().ops, []);
    let text = world.exported();
    assert_eq!(world.apply(&text, Unnamed::Goes).await.unwrap().ops, []);
    for (external, words) in [
        ("16.158.1.1", "the router's gateway outside"),
        ("16.158.1.255", "the last address"),
        ("16.158.2.1", "`ip -n default addr add 16.158.2.1/32 dev eth0`"),
    ] {
        let error = message(float(external).await);
        assert!(error.contains(words), "{external}: {error}");
    }
    world.manager().remove_floating("16.158.1.103".parse().unwrap()).await.unwrap();
    // Its address goes from the data path with the next command.
    world.bring_up(Mode::Apply).await.unwrap();
    assert_eq!(world.fake.snapshot(), before);
    // One that the router has by its own description stays.
    let done = float("16.158.1.100").await.unwrap();
    assert!(!given(&world) && done.notes.len() == 1);
}

#[tokio::test]
async fn a_failed_floating_address_of_a_router_is_undone() {
    let prepare = async |world: &World| {
        is_router(world).await;
        world.endpoint("net1").await.unwrap();
    };
    let verb = async |world: &World| {
        let target = "net1".parse().unwrap();
        let request = FloatingRequest { external: "16.158.1.103".parse().unwrap(), target };
        Ok(world.manager().add_floating(&request).await?.ops.len())
    };
    fails_cleanly(prepare, verb).await;
}

#[tokio::test]
async fn a_router_is_described_exported_and_made_by_a_file() {
    let world = World::new();
    entered(&world).await;
    let text = "[router]\noutside = \"br-out\"\naddresses = [\"16.158.1.100/24\"]\ngateways = [\"16.158.1.1\"]\n\n\
                [networks.default]\nsubnets = [\"192.168.1.0/24\"]\n\n[endpoints.web]\n\n\
                [[floating]]\nexternal = \"16.158.1.103\"\ntarget = \"web\"\n";
    world.apply(text, Unnamed::Goes).await.unwrap();
    let whole = world.fake.snapshot();
    assert_eq!(world.apply(text, Unnamed::Goes).await.unwrap().ops, []);
    let exported = world.exported();
    assert!(exported.contains("outside = \"br-out\"") && !exported.contains("uplinks"), "{exported}");
    world.down().await.unwrap();
    world.apply(&exported, Unnamed::Stays).await.unwrap();
    assert_eq!(world.fake.snapshot(), whole);
    // Without a word of it, it stays a router.
    let without = "[networks.default]\nsubnets = [\"192.168.1.0/24\"]\n";
    world.apply(without, Unnamed::Goes).await.unwrap();
    assert_eq!(leg(&world).bridge.as_deref(), Some("br-out"));
    let other = text.replace("br-out", "br-in");
    let error = message(world.apply(&other, Unnamed::Stays).await);
    assert!(error.contains("the router: router default is there already, with bridge br-out"), "{error}");
    let world = World::up().await;
    let error = message(world.apply(text, Unnamed::Stays).await);
    assert!(error.contains("is no router"), "{error}");
}

#[tokio::test]
async fn a_failed_description_of_a_router_is_undone() {
    let text = "[router]\noutside = \"br-out\"\naddresses = [\"16.158.1.100/24\"]\n\n[endpoints.web]\n";
    let verb = async |world: &World| Ok(world.apply(text, Unnamed::Stays).await?.ops.len());
    fails_cleanly(entered, verb).await;
}

#[tokio::test]
async fn the_resident_part_follows_the_bridge_and_repairs_the_link() {
    let world = World::new();
    is_router(&world).await;
    let whole = world.fake.snapshot();
    let repair = async || world.manager().repair(&Scope::everything(), &Default::default()).await.unwrap();
    assert_eq!(repair().await.repairs, []);
    world.fake.present.borrow_mut().retain(|it| !matches!(it, Resource::Home { .. } | Resource::Leg(_)));
    let repairs = repair().await.repairs;
    assert_eq!(repairs[0].object, Object::Uplink(Router::IFNAME.parse().unwrap()));
    assert_eq!(world.fake.snapshot(), whole);
    for interface in world.fake.outside.borrow_mut().iter_mut().flatten() {
        interface.mtu = 1400;
    }
    repair().await;
    assert_eq!(leg(&world).mtu, 1400);
    assert!(world.has(|it| matches!(it, Resource::Bridge { mtu: 1400, .. })));
    assert_eq!(repair().await.repairs, []);
}

#[test]
fn the_bridge_of_a_network_is_not_a_router_s_outside() {
    let world = World::new();
    let instance = world.instance();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(is_up(&world));
    let below = |name: &str| {
        Instance::below(name, world.directory.path().join("run"), world.directory.path().join("bpf")).unwrap()
    };
    let namespace = world.fake.namespace.get();
    let check = |bridge: &str, namespace| {
        let request = RouterRequest { bridge: bridge.parse().unwrap(), ..request() };
        check_outside_of(&below("r1"), &request, namespace)
    };
    let error = check("vnet0", namespace).unwrap_err().to_string();
    assert!(error.contains("network default of instance default"), "{error}");
    check("vnet0", namespace + 1).unwrap();
    check("br-out", namespace).unwrap();
    assert!(recorded_router(&instance).unwrap().is_none());
    assert_eq!(routers(&instance, namespace).unwrap().0.len(), 0);
    assert!(is_recorded(&instance).unwrap() && !is_recorded(&below("r1")).unwrap());

    let world = World::new();
    runtime.block_on(is_router(&world));
    let (found, unread) = routers(&world.instance(), HOST).unwrap();
    assert_eq!((found.len(), unread.len()), (1, 0));
    assert_eq!(found[0].router.bridge.as_str(), "br-out");
    assert_eq!(routers(&world.instance(), HOST + 1).unwrap().0.len(), 0, "that of another host");
}
