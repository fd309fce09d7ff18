//! Endpoints on several networks.

use super::*;
use crate::manage::{ConnectRequest, LimitChange, Unnamed};
use crate::plan::{BySource, Shaper};
use crate::spec::Limit;

fn connect(network: &str) -> ConnectRequest {
    ConnectRequest { endpoint: name("net1"), place: Place::on(name(network)), default_route: false }
}

/// An endpoint on the default network, and two networks that it is not on.
async fn has_networks(world: &World) {
    is_up(world).await;
    world.endpoint("net1").await.unwrap();
    world.manager().create_network(&network("blue", "10.1.0.0/24")).await.unwrap();
    world.manager().create_network(&network("green", "10.2.0.0/24")).await.unwrap();
}

async fn is_connected(world: &World) {
    has_networks(world).await;
    let limit = |rate: &str| Some(Some(Limit { rate: rate.parse().unwrap(), burst: None }));
    let change = LimitChange { egress: limit("50mbit"), ingress: limit("100mbit") };
    world.manager().set_limits(&name("net1"), change, Unnamed::Goes).await.unwrap();
    world.manager().connect(&connect("blue")).await.unwrap();
    world.publish("8000-8003", "10.1.0.2:8000-8003").await.unwrap();
    world.publish("9000", "net1:9000").await.unwrap();
}

impl World {
    /// Of each interface of net1, the routers of its default routes and the addresses routed by source.
    fn routing(&self) -> Vec<(String, usize, Vec<String>)> {
        let mut found = Vec::new();
        for resource in self.fake.present.borrow().iter() {
            if let Resource::Veth(Veth { ifname, gateways, by_source, .. }) = resource {
                let sources = by_source.iter().flat_map(|BySource { sources, .. }| sources);
                found.push((ifname.clone(), gateways.len(), sources.map(ToString::to_string).collect()));
            }
        }
        found.sort();
        found
    }

    async fn disconnect(&self, network: &str) -> Result<usize, Error> {
        Ok(self.manager().disconnect(&name(network), &name("net1")).await?.ops.len())
    }
}

fn row(ifname: &str, gateways: usize, sources: &[&str]) -> (String, usize, Vec<String>) {
    (ifname.to_owned(), gateways, sources.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn a_second_link_answers_by_itself_and_leaves_the_default_routes_alone() {
    let world = World::new();
    has_networks(&world).await;
    assert_eq!(world.routing(), [row("eth0", 2, &[])]);
    let done = world.manager().connect(&connect("blue")).await.unwrap();
    let v6: Vec<String> = done.value.addresses().map(|addr| addr.to_string()).collect();
    assert_eq!(world.routing(), [row("eth0", 2, &[]), row("eth1", 0, &["10.1.0.2"])]);
    assert_eq!(world.manager().connect(&connect("blue")).await.unwrap().ops, [], "the same again");
    // A third one that takes the IPv4 default route over; that of IPv6 stays where the family is.
    let first = ConnectRequest { default_route: true, ..connect("green") };
    let done = world.manager().connect(&first).await.unwrap();
    assert_eq!(done.value.links[0].network, name("green"));
    let expected = [row("eth0", 1, &["192.168.0.2"]), row("eth1", 0, &["10.1.0.2"]), row("eth2", 1, &[])];
    assert_eq!(world.routing(), expected);
    assert_eq!(world.manager().connect(&first).await.unwrap().ops, [], "the same again");
    // And back, on a link that is there.
    let back = ConnectRequest { default_route: true, ..connect("default") };
    assert_ne!(world.manager().connect(&back).await.unwrap().ops, []);
    let expected = [row("eth0", 2, &[]), row("eth1", 0, &["10.1.0.2"]), row("eth2", 0, &["10.2.0.2"])];
    assert_eq!(world.routing(), expected);
    assert!(v6[1].starts_with("fd"), "{v6:?}");
    assert_eq!(world.bring_up(Mode::Apply).await.unwrap().ops, []);
    world.down().await.unwrap();
    assert_eq!(world.fake.snapshot(), Vec::<String>::new());
}

#[tokio::test]
async fn names_of_interfaces_are_the_lowest_free_ones_or_as_asked_for() {
    let world = World::new();
    has_networks(&world).await;
    world.manager().connect(&connect("blue")).await.unwrap();
    world.disconnect("default").await.unwrap();
    let done = world.manager().connect(&connect("green")).await.unwrap();
    let names: Vec<&str> = done.value.links.iter().map(|link| link.ifname.as_str()).collect();
    assert_eq!(names, ["eth1", "eth0"]);
    let mut taken = connect("default");
    taken.place.ifname = Some("eth1".parse().unwrap());
    let error = message(world.manager().connect(&taken).await);
    assert!(
        error.contains("eth1") && error.contains("network blue") && error.contains("--ifname"),
        "{error}"
    );
    taken.place.ifname = Some("lan0".parse().unwrap());
    world.manager().connect(&taken).await.unwrap();
    assert_eq!(world.manager().connect(&taken).await.unwrap().ops, []);
    taken.place.ifname = Some("lan1".parse().unwrap());
    let error = message(world.manager().connect(&taken).await);
    assert!(
        error.contains("interface lan0") && error.contains("vnet network disconnect default net1"),
        "{error}"
    );
}

#[tokio::test]
async fn a_failed_connection_is_undone() {
    for default_route in [false, true] {
        let request = ConnectRequest { default_route, ..connect("blue") };
        fails_cleanly(has_networks, async |world| Ok(world.manager().connect(&request).await?.ops.len()))
            .await;
    }
    let back = ConnectRequest { default_route: true, ..connect("blue") };
    fails_cleanly(is_connected, async |world| Ok(world.manager().connect(&back).await?.ops.len())).await;
}

#[tokio::test]
async fn a_failed_disconnection_is_undone_or_completed() {
    for gone in ["default", "blue"] {
        let (steps, before, whole) = {
            let world = World::new();
            is_connected(&world).await;
            let before = world.fake.snapshot();
            (world.disconnect(gone).await.unwrap(), before, world.fake.snapshot())
        };
        for fault in [Fault::Before, Fault::After, Fault::Killed] {
            for step in 0..steps {
                let failed = async || {
                    let world = World::new();
                    is_connected(&world).await;
                    world.fake.fail_at(step, fault);
                    let error = world.disconnect(gone).await.unwrap_err();
                    world.fake.heal();
                    (world, error)
                };
                let (world, error) = failed().await;
                if matches!(error, Error::NotMade { .. }) && fault != Fault::Killed {
                    assert_eq!(world.fake.snapshot(), before, "{fault:?} at {step}: {error}");
                }
                world.disconnect(gone).await.unwrap();
                assert_eq!(world.fake.snapshot(), whole, "{gone}, {fault:?} at {step}, then again");
                world.down().await.unwrap();
                assert_eq!(world.fake.snapshot(), Vec::<String>::new(), "{fault:?} at {step}, then down");
                let (world, error) = failed().await;
                if !matches!(error, Error::NotMade { .. }) || fault == Fault::Killed {
                    world.bring_up(Mode::Apply).await.unwrap();
                    assert_eq!(world.fake.snapshot(), whole, "{gone}, {fault:?} at {step}, then up");
                }
                let (world, _) = failed().await;
                world.down().await.unwrap();
                assert_eq!(world.fake.snapshot(), Vec::<String>::new(), "{fault:?} at {step}, down at once");
            }
        }
    }
}

#[tokio::test]
async fn what_leads_to_a_link_goes_with_it_and_nothing_else() {
    let world = World::new();
    is_connected(&world).await;
    let done = world.manager().disconnect(&name("blue"), &name("net1")).await.unwrap();
    let gone = done.value.unwrap();
    let published: Vec<String> = gone.mappings.iter().map(ToString::to_string).collect();
    assert_eq!(published, ["8000-8003/tcp to net1:8000-8003"]);
    assert_eq!(done.notes, Vec::<String>::new());
    assert!(world.record().contains("9000"));
    assert_eq!(world.routing(), [row("eth0", 2, &[])]);
    assert!(!world.has(
        |resource| matches!(resource, Resource::Limit(Shaper { interface, .. }) if interface == "eth1")
    ));
    assert!(world.manager().disconnect(&name("blue"), &name("net1")).await.unwrap().value.is_none());

    // The last one as well: what is left is a namespace.
    let done = world.manager().disconnect(&name("default"), &name("net1")).await.unwrap();
    assert_eq!(
        done.notes,
        ["endpoint net1 has no IPv4 address any more", "endpoint net1 has no IPv6 address any more"]
    );
    assert_eq!(world.routing(), []);
    assert!(world.has(|resource| matches!(resource, Resource::Namespace { name } if name == "net1")));
    assert!(!world.has(|resource| matches!(resource, Resource::Limit(_) | Resource::Endpoint { .. })));
    assert_eq!(world.bring_up(Mode::Apply).await.unwrap().ops, []);
    // And is connected again.
    world.manager().connect(&connect("blue")).await.unwrap();
    assert_eq!(world.routing(), [row("eth0", 1, &[])]);
}

#[tokio::test]
async fn the_next_link_gets_the_default_routes_and_that_is_said() {
    let world = World::new();
    is_connected(&world).await;
    let done = world.manager().disconnect(&name("default"), &name("net1")).await.unwrap();
    assert_eq!(
        done.notes,
        [
            "the IPv4 default route of endpoint net1 leads by network blue now",
            "endpoint net1 has no IPv6 address any more"
        ]
    );
    assert_eq!(world.routing(), [row("eth1", 1, &[])]);
    let target = world.publish("80", "net1:80").await.unwrap().value;
    assert_eq!(target.targets, ["10.1.0.2".parse::<std::net::IpAddr>().unwrap()]);
}

#[tokio::test]
async fn a_name_means_the_link_of_the_default_routes_unless_another_alone_has_the_family() {
    let world = World::new();
    has_networks(&world).await;
    world.manager().connect(&ConnectRequest { default_route: true, ..connect("blue") }).await.unwrap();
    let targets = async |published: &str, target: &str| {
        let mapping = world.publish(published, target).await.unwrap().value;
        (mapping.number, mapping.targets.len(), mapping.targets[0].is_ipv4())
    };
    assert_eq!(targets("80", "net1:80").await, (2, 1, true));
    assert_eq!(targets("[2001:db8::1]:81", "net1:81").await, (1, 1, false));
    assert_eq!(targets("203.0.113.1:82", "net1:82").await, (2, 1, true));
    assert_eq!(targets("83", "192.168.0.2:83").await, (1, 2, true));
    // What is exported leads to the same places.
    let text = world.exported();
    assert!(text.contains("target = \"192.168.0.2:83\"") && text.contains("target = \"net1:81\""), "{text}");
    assert_eq!(world.apply(&text, Unnamed::Goes).await.unwrap().ops, [], "{text}");
}

#[tokio::test]
async fn routes_lead_by_their_link() {
    let world = World::new();
    has_networks(&world).await;
    let mut request = connect("blue");
    request.place.routes = vec!["10.9.0.0/16".parse().unwrap(), "10.8.0.0/16=10.1.0.9".parse().unwrap()];
    world.manager().connect(&request).await.unwrap();
    let routes = |resource: &Resource| match resource {
        Resource::Veth(veth) if veth.ifname == "eth1" => {
            let by_source = veth.by_source.as_ref().map_or(0, |by_source| by_source.routes.len());
            let text = |hop: &crate::plan::Hop| format!("{} {}", hop.destination, hop.gateway.unwrap());
            Some((veth.routes.iter().map(text).collect::<Vec<_>>(), by_source))
        }
        _ => None,
    };
    let found = world.fake.present.borrow().iter().find_map(routes).unwrap();
    assert_eq!(found, (vec!["10.9.0.0/16 10.1.0.1".to_owned(), "10.8.0.0/16 10.1.0.9".to_owned()], 4));
    assert_eq!(world.manager().connect(&request).await.unwrap().ops, []);
    let error = message(world.manager().connect(&connect("blue")).await);
    assert!(error.contains("route 10.9.0.0/16 10.8.0.0/16=10.1.0.9"), "{error}");
    for (route, reason) in [
        ("fd09::/64", "network green has no IPv6 prefix"),
        ("10.7.0.0/16=10.1.0.1", "the router must be another address of 10.2.0.0/24"),
        ("10.7.0.0/16=10.2.0.2", "the router must be another address of 10.2.0.0/24"),
        ("10.9.0.0/16", "its link to network blue leads there"),
        ("192.168.0.0/24", "its link to network default leads there"),
        ("10.2.0.0/24", "that is network green itself"),
    ] {
        let mut request = connect("green");
        request.place.routes = vec![route.parse().unwrap()];
        let error = message(world.manager().connect(&request).await);
        assert!(error.contains(reason), "{route}: {error}");
    }
}

#[tokio::test]
async fn what_cannot_be_connected_is_refused_by_name() {
    let world = World::new();
    has_networks(&world).await;
    let nobody = ConnectRequest { endpoint: name("nobody"), ..connect("blue") };
    assert!(message(world.manager().connect(&nobody).await).contains("no endpoint nobody: there is net1"));
    assert!(message(world.manager().connect(&connect("red")).await).contains("no network red"));
    let mut other = connect("default");
    other.place.addresses = vec!["192.168.0.9".parse().unwrap()];
    let error = message(world.manager().connect(&other).await);
    assert!(error.contains("with address 192.168.0.2"), "{error}");
    let users = world.manager().connect(&connect("blue")).await;
    users.unwrap();
    let error = message(world.manager().remove_network(&name("blue")).await);
    assert!(error.contains("vnet network disconnect blue NAME"), "{error}");
    world.fake.present.borrow_mut().retain(|resource| !matches!(resource, Resource::Veth(_)));
    let error = message(world.manager().connect(&connect("green")).await);
    assert!(error.contains("endpoint net1 is not there") && error.contains("vnet up"), "{error}");
}

/// On two networks, and then on another two.
const BEFORE: &str = r#"
[networks.blue]
subnets = ["10.1.0.0/24"]
[endpoints.net1]
[[endpoints.net1.links]]
network = "blue"
routes = ["10.9.0.0/16"]
[[portmaps]]
publish = 8088
target = "net1:80"
"#;
const AFTER: &str = r#"
[networks.green]
subnets = ["10.2.0.0/24"]
[networks.blue]
subnets = ["10.1.0.0/24"]
[endpoints.net1]
network = "green"
[[endpoints.net1.links]]
network = "blue"
routes = ["10.9.0.0/16"]
[[portmaps]]
publish = 8088
target = "net1:80"
"#;

#[tokio::test]
async fn a_description_moves_an_endpoint_from_network_to_network_or_fails_as_a_whole() {
    let prepared = async || {
        let world = World::new();
        world.apply(BEFORE, Unnamed::Stays).await.unwrap();
        world
    };
    let (steps, before, whole) = {
        let world = prepared().await;
        assert_eq!(world.apply(BEFORE, Unnamed::Goes).await.unwrap().ops, []);
        assert_eq!(world.routing(), [row("eth0", 2, &[]), row("eth1", 0, &["10.1.0.2"])]);
        let before = world.fake.snapshot();
        let steps = world.apply(AFTER, Unnamed::Goes).await.unwrap().ops.len();
        assert_eq!(world.apply(AFTER, Unnamed::Goes).await.unwrap().ops, []);
        assert_eq!(world.routing(), [row("eth1", 0, &["10.1.0.2"]), row("eth2", 1, &[])]);
        (steps, before, world.fake.snapshot())
    };
    for fault in [Fault::Before, Fault::After, Fault::Killed] {
        for step in 0..steps {
            let world = prepared().await;
            world.fake.fail_at(step, fault);
            let error = world.apply(AFTER, Unnamed::Goes).await.unwrap_err();
            world.fake.heal();
            if matches!(error, Error::NotMade { .. }) && fault != Fault::Killed {
                assert_eq!(world.fake.snapshot(), before, "{fault:?} at {step}: {error}");
            }
            world.apply(AFTER, Unnamed::Goes).await.unwrap();
            assert_eq!(world.fake.snapshot(), whole, "{fault:?} at {step}, then again: {error}");
            world.down().await.unwrap();
            assert_eq!(world.fake.snapshot(), Vec::<String>::new(), "{fault:?} at {step}, then down");
        }
    }
}

#[tokio::test]
async fn a_description_adds_links_and_takes_only_those_away_that_are_to_go() {
    let world = World::new();
    world.apply(BEFORE, Unnamed::Stays).await.unwrap();
    let without = BEFORE.split("[[endpoints").next().unwrap();
    world.apply(without, Unnamed::Stays).await.unwrap();
    assert_eq!(world.routing().len(), 2);
    world.apply(without, Unnamed::Goes).await.unwrap();
    assert_eq!(world.routing(), [row("eth0", 2, &[])]);
    // The order of the description is that of the default routes.
    world.apply(AFTER, Unnamed::Stays).await.unwrap();
    assert_eq!(world.routing().len(), 3);
    let record = world.record();
    let text = world.exported();
    assert!(text.contains("network = \"green\""), "{text}");
    assert_eq!(world.apply(&text, Unnamed::Goes).await.unwrap().ops, [], "{text}");
    assert_eq!(world.record(), record);
}

fn in_namespace(text: &str, namespace: Namespace) -> EndpointRequest {
    EndpointRequest { namespace, places: Vec::new(), ..endpoint(text) }
}

fn shared(with: &str) -> Namespace {
    Namespace::Shared { with: name(with), path: std::path::PathBuf::new() }
}

#[tokio::test]
async fn an_endpoint_in_the_namespace_of_another_means_that_one_and_keeps_it() {
    let world = World::new();
    has_networks(&world).await;
    let create = async |text: &str, namespace: Namespace| {
        world.manager().create_endpoint(&in_namespace(text, namespace)).await
    };
    assert_eq!(create("side", shared("net1")).await.unwrap().ops, []);
    // Whoever shares with that one shares with whom it shares.
    let done = create("more", shared("side")).await.unwrap();
    assert!(done.value.shares_with(&name("net1")) && done.value.links.is_empty());
    let path = crate::plan::expand::namespace_path(&done.value).unwrap();
    assert_eq!(path, std::path::Path::new("/run/netns/net1"));
    create("side", shared("net1")).await.unwrap();
    let mapping = world.publish("80", "more:80").await.unwrap().value;
    assert_eq!((mapping.endpoint.as_str(), mapping.targets.len()), ("net1", 2));
    let error = message(world.manager().remove_endpoint(&name("net1")).await);
    assert!(error.contains("shares its namespace with more side") && error.contains("vnet ns rm"), "{error}");
    let connect = ConnectRequest { endpoint: name("side"), ..connect("blue") };
    let error = message(world.manager().connect(&connect).await);
    assert!(error.contains("it shares the namespace of endpoint net1; name that"), "{error}");
    let error =
        message(world.manager().set_limits(&name("side"), LimitChange::NONE_LEFT, Unnamed::Goes).await);
    assert!(error.contains("endpoint net1"), "{error}");
    for (text, namespace, words) in [
        ("web", shared("nobody"), "no endpoint nobody"),
        ("net1", shared("net1"), "cannot share its own namespace"),
        ("side", Namespace::Host, "with mode container:net1"),
    ] {
        let error = message(create(text, namespace).await);
        assert!(error.contains(words), "{error}");
    }
    let text = world.exported();
    assert!(text.contains("mode = \"container:net1\""), "{text}");
    assert_eq!(world.apply(&text, Unnamed::Goes).await.unwrap().ops, []);
    assert_eq!(world.bring_up(Mode::Apply).await.unwrap().ops, []);
    for text in ["side", "more", "net1"] {
        world.manager().remove_endpoint(&name(text)).await.unwrap();
    }
    world.apply(&text, Unnamed::Stays).await.unwrap();
    assert_eq!(world.exported(), text, "whatever comes first in the file");
    world.down().await.unwrap();
    assert_eq!(world.fake.snapshot(), Vec::<String>::new());
}

#[tokio::test]
async fn an_endpoint_in_the_hosts_namespace_has_nothing_to_publish() {
    let world = World::new();
    is_up(&world).await;
    let before = world.fake.snapshot();
    let create = async |text: &str, namespace: Namespace| {
        world.manager().create_endpoint(&in_namespace(text, namespace)).await
    };
    create("tool", Namespace::Host).await.unwrap();
    assert_eq!(world.fake.snapshot(), before);
    for error in [
        message(world.publish("80", "tool:80").await),
        message(create("side", shared("tool")).await),
        message(world.manager().set_limits(&name("tool"), LimitChange::NONE_LEFT, Unnamed::Goes).await),
    ] {
        assert!(error.contains("endpoint tool has the host's namespace"), "{error}");
    }
    let text = world.exported();
    assert!(text.contains("mode = \"host\""), "{text}");
    assert_eq!(world.apply(&text, Unnamed::Goes).await.unwrap().ops, []);
    world.manager().remove_endpoint(&name("tool")).await.unwrap();
    assert_eq!(world.fake.snapshot(), before);
}
