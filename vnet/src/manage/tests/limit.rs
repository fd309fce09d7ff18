//! Limits of endpoints.

use super::*;
use crate::manage::{LimitChange, Unnamed};
use crate::plan::Shaper;
use crate::spec::Limit;

fn limit(rate: &str) -> Option<Option<Limit>> {
    Some(Some(Limit { rate: rate.parse().unwrap(), burst: None }))
}

async fn set(world: &World, change: LimitChange) -> Result<usize, Error> {
    Ok(world.manager().set_limits(&name("net1"), change, Unnamed::Goes).await?.ops.len())
}

async fn has_an_endpoint(world: &World) {
    is_up(world).await;
    world.endpoint("net1").await.unwrap();
}

const BOTH: [&str; 2] = ["50mbit", "200mbit"];

fn both() -> LimitChange {
    LimitChange { egress: limit(BOTH[0]), ingress: limit(BOTH[1]) }
}

async fn is_limited(world: &World) {
    has_an_endpoint(world).await;
    set(world, both()).await.unwrap();
}

/// The rates in force, and whether what is delivered to the endpoint goes through a queue.
fn in_force(world: &World) -> (Vec<String>, Vec<bool>) {
    let present = world.fake.present.borrow();
    let rates = present.iter().filter_map(|resource| match resource {
        Resource::Limit(Shaper { interface, rate, .. }) => Some(format!("{interface} {rate}")),
        _ => None,
    });
    let queued = present.iter().filter_map(|resource| match resource {
        Resource::Endpoint { flags, .. } => Some(flags & vnet_common::EndpointValue::FLAG_QUEUED != 0),
        _ => None,
    });
    (rates.collect(), queued.collect())
}

#[tokio::test]
async fn a_failed_change_of_limits_is_undone() {
    fails_cleanly(has_an_endpoint, async |world| set(world, both()).await).await;
    let other = LimitChange { egress: limit("10mbit"), ingress: limit("1gbit") };
    fails_cleanly(is_limited, async |world| set(world, other).await).await;
}

#[tokio::test]
async fn a_failed_lifting_of_limits_is_undone_or_completed() {
    let other = LimitChange { egress: Some(None), ingress: limit("1gbit") };
    for change in [other, LimitChange::NONE_LEFT] {
        let (steps, before, whole) = {
            let world = World::new();
            is_limited(&world).await;
            let before = world.fake.snapshot();
            (set(&world, change).await.unwrap(), before, world.fake.snapshot())
        };
        for fault in [Fault::Before, Fault::After, Fault::Killed] {
            for step in 0..steps {
                let failed = async || {
                    let world = World::new();
                    is_limited(&world).await;
                    world.fake.fail_at(step, fault);
                    let error = set(&world, change).await.unwrap_err();
                    world.fake.heal();
                    (world, error)
                };
                let (world, error) = failed().await;
                if matches!(error, Error::NotMade { .. }) && fault != Fault::Killed {
                    assert_eq!(world.fake.snapshot(), before, "{fault:?} at {step}: {error}");
                }
                set(&world, change).await.unwrap();
                assert_eq!(world.fake.snapshot(), whole, "{fault:?} at {step}, then again");
                world.down().await.unwrap();
                assert_eq!(world.fake.snapshot(), Vec::<String>::new(), "{fault:?} at {step}, then down");
                let (world, error) = failed().await;
                if !matches!(error, Error::NotMade { .. }) || fault == Fault::Killed {
                    world.bring_up(Mode::Apply).await.unwrap();
                    assert_eq!(world.fake.snapshot(), whole, "{fault:?} at {step}, then up");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_an_endpoint_receives_goes_through_a_queue_only_where_that_is_limited() {
    let world = World::new();
    has_an_endpoint(&world).await;
    let addresses = in_force(&world).1.len();
    let only = |egress, ingress| LimitChange { egress, ingress };
    for (change, rates, queued) in [
        (only(limit("50mbit"), None), vec!["eth0 50mbit"], false),
        (only(None, limit("1gbit")), vec!["eth0 50mbit", "vn-net1 1gbit"], true),
        (only(Some(None), limit("2gbit")), vec!["vn-net1 2gbit"], true),
        (LimitChange::NONE_LEFT, vec![], false),
    ] {
        assert_ne!(set(&world, change).await.unwrap(), 0);
        let (mut found, flags) = in_force(&world);
        found.sort();
        assert_eq!(
            (found, flags),
            (rates.iter().map(ToString::to_string).collect(), vec![queued; addresses])
        );
        assert_eq!(set(&world, change).await.unwrap(), 0, "it is there already");
    }
}

#[tokio::test]
async fn limits_come_back_with_their_endpoint_and_go_with_it() {
    let world = World::new();
    is_limited(&world).await;
    let whole = world.fake.snapshot();
    world.fake.present.borrow_mut().retain(|resource| !matches!(resource, Resource::Limit(_)));
    world.bring_up(Mode::Apply).await.unwrap();
    assert_eq!(world.fake.snapshot(), whole);
    world.manager().remove_endpoint(&name("net1")).await.unwrap();
    assert!(!world.has(|resource| matches!(resource, Resource::Limit(_))));
    is_limited(&World::new()).await;
    assert_eq!(world.down().await.unwrap().value, Downed::Instance);
    assert_eq!(world.fake.snapshot(), Vec::<String>::new());
}

#[tokio::test]
async fn the_limits_of_an_endpoint_that_is_not_there_are_noted() {
    let world = World::new();
    has_an_endpoint(&world).await;
    // As after a restart of the machine.
    world.fake.present.borrow_mut().retain(|resource| !matches!(resource, Resource::Veth(_)));
    let done = world.manager().set_limits(&name("net1"), both(), Unnamed::Goes).await.unwrap();
    assert_eq!(done.ops, []);
    assert_eq!(done.notes, ["endpoint net1 is not there: it is limited once `vnet up` brings it back"]);
    world.bring_up(Mode::Apply).await.unwrap();
    assert_eq!(in_force(&world).0.len(), 2);
}

#[tokio::test]
async fn a_burst_that_is_not_named_stays_until_it_is_to_follow_from_the_rate() {
    let world = World::new();
    has_an_endpoint(&world).await;
    let of = |rate: &str, burst: Option<&str>| {
        let burst = burst.map(|bytes| bytes.parse().unwrap());
        Some(Limit { rate: rate.parse().unwrap(), burst })
    };
    let set = async |egress: Option<Limit>, burst: Unnamed| {
        let change = LimitChange { egress: Some(egress), ingress: None };
        let done = world.manager().set_limits(&name("net1"), change, burst).await.unwrap();
        done.value.limits.egress
    };
    assert_eq!(set(of("10mbit", Some("64k")), Unnamed::Stays).await, of("10mbit", Some("64k")));
    assert_eq!(set(of("20mbit", None), Unnamed::Stays).await, of("20mbit", Some("64k")));
    assert_eq!(set(of("20mbit", Some("32k")), Unnamed::Stays).await, of("20mbit", Some("32k")));
    assert_eq!(set(of("20mbit", None), Unnamed::Goes).await, of("20mbit", None));
    // A limit that is taken away takes its burst with it.
    set(of("20mbit", Some("64k")), Unnamed::Stays).await;
    assert_eq!(set(None, Unnamed::Stays).await, None);
    assert_eq!(set(of("20mbit", None), Unnamed::Stays).await, of("20mbit", None));
}
