//! Direct links between endpoints.

use super::*;
use crate::manage::DirectRequest;

fn direct(endpoints: [&str; 2], addresses: &[&str]) -> DirectRequest {
    DirectRequest {
        endpoints: endpoints.map(name),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        ifnames: [None, None],
        mtu: None,
    }
}

const ENDS: [&str; 2] = ["192.168.1.1/24", "192.168.1.2/24"];

async fn has_endpoints(world: &World) {
    is_up(world).await;
    for text in ["net1", "net2", "net3"] {
        world.endpoint(text).await.unwrap();
    }
}

async fn is_joined(world: &World) {
    has_endpoints(world).await;
    world.manager().create_direct(&direct(["net2", "net1"], &ENDS)).await.unwrap();
}

#[tokio::test]
async fn two_endpoints_are_joined_once_whoever_is_named_first() {
    let world = World::new();
    has_endpoints(&world).await;
    let done = world.manager().create_direct(&direct(["net2", "net1"], &ENDS)).await.unwrap();
    assert_eq!(done.ops.len(), 1);
    let ends: Vec<String> = done
        .value
        .ends
        .iter()
        .map(|end| format!("{} {} {}", end.endpoint, end.ifname, end.addresses[0]))
        .collect();
    assert_eq!(ends, ["net1 link0 192.168.1.2/24", "net2 link0 192.168.1.1/24"]);
    let turned = direct(["net1", "net2"], &[ENDS[1], ENDS[0]]);
    assert_eq!(world.manager().create_direct(&turned).await.unwrap().ops, []);
    let more = direct(["net1", "net3"], &["10.0.0.0/31", "10.0.0.1/31", "fd09::1/64", "fd09::2/64"]);
    let done = world.manager().create_direct(&more).await.unwrap();
    let names: Vec<&str> = done.value.ends.iter().map(|end| end.ifname.as_str()).collect();
    assert_eq!(names, ["link1", "link0"]);
    for (request, words) in [
        (direct(["net1", "net2"], &ENDS), "is there already, with 192.168.1.2/24 for net1"),
        (direct(["net1", "net1"], &ENDS), "cannot be joined to itself"),
        (direct(["net1", "nobody"], &ENDS), "no endpoint nobody"),
        (
            direct(["net2", "net3"], &["192.168.0.0/31", "192.168.0.1/31"]),
            "overlaps 192.168.0.3/24, which endpoint net2 has",
        ),
        (direct(["net2", "net3"], &["192.168.1.128/31", "192.168.1.129/31"]), "overlaps 192.168.1.1/24"),
        (direct(["net2", "net3"], &["10.9.0.1/24"]), "name two of its family"),
    ] {
        let error = message(world.manager().create_direct(&request).await);
        assert!(error.contains(words), "{words}: {error}");
    }
    assert_eq!(world.bring_up(Mode::Apply).await.unwrap().ops, []);
    let removed = world.manager().remove_endpoint(&name("net1")).await.unwrap().value.unwrap();
    assert_eq!(removed.directs.len(), 2);
    assert!(!world.has(|resource| matches!(resource, Resource::Direct(_))));
    world.down().await.unwrap();
    assert_eq!(world.fake.snapshot(), Vec::<String>::new());
}

#[tokio::test]
async fn a_direct_link_that_fails_is_undone_and_one_that_has_gone_comes_back() {
    let request = direct(["net1", "net2"], &ENDS);
    fails_cleanly(has_endpoints, async |world| Ok(world.manager().create_direct(&request).await?.ops.len()))
        .await;
    let world = World::new();
    is_joined(&world).await;
    let whole = world.fake.snapshot();
    world.fake.present.borrow_mut().retain(|resource| !matches!(resource, Resource::Direct(_)));
    world.bring_up(Mode::Apply).await.unwrap();
    assert_eq!(world.fake.snapshot(), whole);
    assert!(world.manager().remove_direct(&name("net1"), &name("net2")).await.unwrap().value.is_some());
    assert!(world.manager().remove_direct(&name("net2"), &name("net1")).await.unwrap().value.is_none());
}

#[tokio::test]
async fn direct_links_are_described_exported_and_taken_away_with_the_rest() {
    let world = World::new();
    is_joined(&world).await;
    let text = world.exported();
    assert!(text.contains("between = [\"net1\", \"net2\"]"), "{text}");
    assert_eq!(world.apply(&text, Unnamed::Goes).await.unwrap().ops, []);
    let without = text.split("[[direct]]").next().unwrap();
    world.apply(without, Unnamed::Stays).await.unwrap();
    assert!(world.has(|resource| matches!(resource, Resource::Direct(_))));
    world.apply(without, Unnamed::Goes).await.unwrap();
    assert!(!world.has(|resource| matches!(resource, Resource::Direct(_))));
    world.down().await.unwrap();
    world.apply(&text, Unnamed::Stays).await.unwrap();
    assert_eq!(world.exported(), text);
    // With an endpoint that is not described goes its link.
    let only = "[endpoints.net1]\n[endpoints.net3]\n";
    world.apply(only, Unnamed::Goes).await.unwrap();
    assert!(!world.has(|resource| matches!(resource, Resource::Direct(_))));
}
