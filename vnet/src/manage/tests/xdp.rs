//! XDP on uplinks, and the deny list that it is for.

use super::*;
use crate::spec::Cidr;

fn xdp(settings: &[&str]) -> UpRequest {
    let xdp = settings.iter().map(|text| text.parse().unwrap()).collect();
    changed(SettingsChange { xdp, ..SettingsChange::default() })
}

fn limits(rate: u32, total: u32) -> UpRequest {
    let change =
        SettingsChange { flood_rate: Some(rate), flood_total: Some(total), ..SettingsChange::default() };
    changed(change)
}

/// The XDP programs that are attached, and whether each is generic.
fn attached(world: &World) -> Vec<(String, bool)> {
    let present = world.fake.present.borrow();
    let found = present.iter().filter_map(|resource| match resource {
        Resource::Xdp { interface, generic } => Some((interface.clone(), *generic)),
        _ => None,
    });
    let mut found: Vec<_> = found.collect();
    found.sort();
    found
}

fn denied(world: &World) -> usize {
    world.fake.present.borrow().iter().filter(|r| matches!(r, Resource::Denied { .. })).count()
}

fn prefixes(texts: &[&str]) -> Vec<Cidr> {
    texts.iter().map(|text| cidr(text)).collect()
}

async fn has_xdp(world: &World) {
    world.bring_up_as(&xdp(&["native"]), Mode::Apply).await.unwrap();
}

#[tokio::test]
async fn a_failed_up_with_xdp_is_undone() {
    let verb = async |world: &World| Ok(world.bring_up_as(&xdp(&["native"]), Mode::Apply).await?.ops.len());
    fails_cleanly(async |_| {}, verb).await;
    fails_cleanly(is_up, verb).await;
}

#[tokio::test]
async fn a_failed_change_of_the_mode_is_undone() {
    for mode in ["generic", "off"] {
        let request = xdp(&[mode]);
        let verb = async |world: &World| Ok(world.bring_up_as(&request, Mode::Apply).await?.ops.len());
        fails_cleanly(has_xdp, verb).await;
    }
}

#[tokio::test]
async fn a_failed_denial_is_undone() {
    let sources = prefixes(&["198.51.100.0/24", "2001:db8:bad::/48"]);
    fails_cleanly(has_xdp, async |world| Ok(world.manager().deny(&sources).await?.ops.len())).await;
}

#[tokio::test]
async fn each_uplink_has_its_own_mode_which_stays() {
    let world = World::up().await;
    assert_eq!(attached(&world), []);
    let both = UpRequest { uplinks: vec!["eth1".parse().unwrap()], ..xdp(&["eth1=native"]) };
    world.bring_up_as(&both, Mode::Apply).await.unwrap();
    assert_eq!(attached(&world), [("eth1".to_owned(), false)]);
    world.bring_up_as(&xdp(&["native", "eth1=generic"]), Mode::Apply).await.unwrap();
    assert_eq!(attached(&world), [("eth0".to_owned(), false), ("eth1".to_owned(), true)]);
    assert_eq!(world.bring_up(Mode::Apply).await.unwrap().ops, [], "without an option all stays");
    world.fake.present.borrow_mut().retain(|r| !matches!(r, Resource::Xdp { .. }));
    assert_eq!(world.bring_up(Mode::Apply).await.unwrap().ops.len(), 2, "brought back");
    world.fake.host.borrow_mut().retain(|interface| interface.name != "eth1");
    world.bring_up(Mode::Apply).await.unwrap();
    assert_eq!(attached(&world), [("eth0".to_owned(), false)], "what is no uplink any more");
    let error = message(world.bring_up_as(&xdp(&["eth1=native"]), Mode::Apply).await);
    assert!(error.contains("eth1 is no uplink") && error.contains("eth0"), "{error}");
    world.bring_up_as(&xdp(&["off"]), Mode::Apply).await.unwrap();
    assert_eq!(attached(&world), []);
    world.down().await.unwrap();
    assert_eq!(world.fake.snapshot(), Vec::<String>::new());
}

#[tokio::test]
async fn limits_of_floods_are_told_to_the_data_path_and_want_xdp() {
    let world = World::up().await;
    let done = world.bring_up_as(&limits(100, 5000), Mode::Apply).await.unwrap();
    assert_eq!(
        done.notes,
        ["the limits of floods do nothing without XDP on an uplink: `vnet up --xdp native`"]
    );
    let found = config(&world);
    assert_eq!((found.flood_rate, found.flood_total), (100, 5000));
    assert_eq!(world.bring_up_as(&xdp(&["native"]), Mode::Apply).await.unwrap().notes, [] as [String; 0]);
    assert_eq!(config(&world).flood_rate, 100, "what is not named stays");
    let another = UpRequest { uplinks: vec!["eth1".parse().unwrap()], ..UpRequest::default() };
    let notes = world.bring_up_as(&another, Mode::Apply).await.unwrap().notes;
    assert!(notes.iter().any(|note| note.starts_with("no XDP on eth1: nothing is denied")), "{notes:?}");
    world.bring_up_as(&limits(0, 0), Mode::Apply).await.unwrap();
    assert_eq!(config(&world).flood_total, 0);
}

#[tokio::test]
async fn sources_are_denied_and_allowed_again() {
    let world = World::up().await;
    let sources = prefixes(&["198.51.0.0/16", "198.51.100.0/25", "2001:db8:bad::/48"]);
    let error = message(world.manager().deny(&sources).await);
    assert!(error.contains("`vnet up --xdp native`"), "{error}");
    assert_eq!(denied(&world), 0);
    has_xdp(&world).await;
    assert_eq!(world.manager().deny(&sources).await.unwrap().ops.len(), 3);
    assert_eq!(world.manager().deny(&sources).await.unwrap().ops, []);
    world.fake.present.borrow_mut().retain(|r| !matches!(r, Resource::Denied { .. }));
    assert_eq!(world.bring_up(Mode::Apply).await.unwrap().ops.len(), 3, "brought back");
    let done = world.bring_up_as(&xdp(&["off"]), Mode::Apply).await.unwrap();
    assert_eq!(done.notes, ["the deny list does nothing without XDP on an uplink: `vnet up --xdp native`"]);

    let done = world.manager().allow(&prefixes(&["198.51.100.0/25", "10.0.0.0/8"])).await.unwrap();
    assert_eq!(done.value, prefixes(&["198.51.100.0/25"]));
    assert_eq!(done.notes, ["198.51.0.0/16 is denied as well, and holds 198.51.100.0/25"]);
    assert_eq!(denied(&world), 2);
    assert_eq!(world.manager().allow(&sources).await.unwrap().ops.len(), 2);
    assert_eq!(denied(&world), 0);
}

#[tokio::test]
async fn nobody_denies_the_uplinks_own_neighbourhood() {
    let world = World::new();
    has_xdp(&world).await;
    for covering in ["0.0.0.0/0", "203.0.113.0/24", "203.0.113.1/32", "::/0", "2001:db8::/32"] {
        let error = message(world.manager().deny(&prefixes(&["10.0.0.0/8", covering])).await);
        assert!(error.contains(covering) && error.contains("uplink eth0"), "{error}");
    }
    assert_eq!(denied(&world), 0, "all or nothing");
    world.manager().deny(&prefixes(&["203.0.113.128/25"])).await.unwrap();
}
