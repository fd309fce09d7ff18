//! Limits of cgroups.

use super::*;
use crate::manage::{CgroupLimitRequest, Unnamed};
use crate::plan::{Class, Queue};
use crate::spec::{Cgroup, Limit, Pacing};

fn request(cgroup: &str, rate: &str) -> CgroupLimitRequest {
    let limit = Limit { rate: rate.parse().unwrap(), burst: None };
    CgroupLimitRequest { cgroup: of(cgroup), limit }
}

fn of(cgroup: &str) -> Cgroup {
    match cgroup.parse() {
        Ok(class) => Cgroup::ClassId(class),
        Err(_) => Cgroup::Path(cgroup.parse().unwrap()),
    }
}

async fn set(world: &World, cgroup: &str, rate: &str) -> Result<usize, Error> {
    Ok(world.manager().limit_cgroup(&request(cgroup, rate), Unnamed::Stays).await?.ops.len())
}

async fn lift(world: &World, cgroup: &str) -> Result<usize, Error> {
    Ok(world.manager().unlimit_cgroup(&of(cgroup)).await?.ops.len())
}

async fn is_limited(world: &World) {
    is_up(world).await;
    set(world, "/a", "50mbit").await.unwrap();
}

/// What shapes, in words: queues with the numbers and parents of their classes, programs, limits.
fn in_force(world: &World) -> Vec<String> {
    let present = world.fake.present.borrow();
    let word = |resource: &Resource| match resource {
        Resource::Queue(Queue { interface, pacing, classes }) => {
            let class = |it: &Class| format!("{}<{}", it.number, it.parent.unwrap_or_default());
            let classes: Vec<String> = classes.iter().map(class).collect();
            Some(format!("{} {interface} {}", pacing.discipline(), classes.join(" ")).trim_end().to_owned())
        }
        Resource::Attachment { hook: vnet_common::Hook::Shape, interface } => {
            Some(format!("shape {interface}"))
        }
        Resource::CgroupLimit(share) => Some(format!("{} {}", share.cgroup, share.class.rate)),
        _ => None,
    };
    let mut words: Vec<String> = present.iter().filter_map(word).collect();
    words.sort();
    words
}

#[tokio::test]
async fn a_failed_change_of_a_cgroups_limit_is_undone() {
    fails_cleanly(is_up_only, async |world| set(world, "/a", "50mbit").await).await;
    fails_cleanly(is_limited, async |world| set(world, "/a", "10mbit").await).await;
    fails_cleanly(is_limited, async |world| set(world, "1:10", "10mbit").await).await;
}

async fn is_up_only(world: &World) {
    is_up(world).await;
}

#[tokio::test]
async fn a_lifting_that_fails_is_completed_by_the_next() {
    for fault in [Fault::Before, Fault::After, Fault::Killed] {
        for step in 0..3 {
            let world = World::new();
            is_up(&world).await;
            let before = world.fake.snapshot();
            set(&world, "/a", "50mbit").await.unwrap();
            world.fake.fail_at(step, fault);
            let failed = lift(&world, "/a").await;
            assert!(failed.is_err(), "{fault:?} at {step}");
            world.fake.heal();
            assert!(world.record().contains("CgroupLimit"), "it is still recorded");
            lift(&world, "/a").await.unwrap();
            assert_eq!(world.fake.snapshot(), before, "{fault:?} at {step}");
        }
    }
}

#[tokio::test]
async fn uplinks_shape_while_a_cgroup_is_limited() {
    let world = World::new();
    is_limited(&world).await;
    assert_eq!(in_force(&world), ["/a 50mbit", "fq eth0", "shape eth0"]);
    // However it is written, and nothing is left to do.
    assert_eq!(set(&world, "/sys/fs/cgroup/a", "50mbit").await.unwrap(), 0);
    set(&world, "1:10", "1gbit").await.unwrap();
    assert_eq!(in_force(&world), ["/a 50mbit", "1:10 1gbit", "fq eth0", "shape eth0"]);
    lift(&world, "/a").await.unwrap();
    assert_eq!(lift(&world, "/a").await.unwrap(), 0);
    assert_eq!(in_force(&world), ["1:10 1gbit", "fq eth0", "shape eth0"]);
    // Another uplink shapes as well, and one that is none any more does not.
    let uplinks = UpRequest { uplinks: vec!["eth1".parse().unwrap()], ..UpRequest::default() };
    world.bring_up_as(&uplinks, Mode::Apply).await.unwrap();
    assert_eq!(in_force(&world), ["1:10 1gbit", "fq eth0", "fq eth1", "shape eth0", "shape eth1"]);
    lift(&world, "1:10").await.unwrap();
    assert_eq!(in_force(&world), Vec::<String>::new());
}

#[tokio::test]
async fn classes_are_inside_one_another_as_cgroups_are() {
    let world = World::new();
    world.fake.pacing.set(Some(Pacing::Htb));
    is_up(&world).await;
    for (cgroup, classes) in [
        ("/a/b", "htb eth0 1<0"),
        ("1:10", "htb eth0 1<0 2<0"),
        ("/a", "htb eth0 2<0 3<0 1<3"),
        ("/a/b/c/d", "htb eth0 2<0 3<0 1<3 4<1"),
    ] {
        set(&world, cgroup, "10mbit").await.unwrap();
        assert!(in_force(&world).contains(&classes.to_owned()), "{:?}", in_force(&world));
    }
    lift(&world, "/a/b").await.unwrap();
    assert!(in_force(&world).contains(&"htb eth0 2<0 3<0 4<3".to_owned()), "{:?}", in_force(&world));
    // The one that is chosen first stays for all: the kernel may have another by now.
    world.fake.pacing.set(Some(Pacing::Fq));
    set(&world, "/z", "10mbit").await.unwrap();
    assert!(in_force(&world).contains(&"htb eth0 1<0 2<0 3<0 4<3".to_owned()), "{:?}", in_force(&world));
}

#[tokio::test]
async fn a_kernel_that_cannot_make_packets_wait_is_named() {
    let world = World::new();
    world.fake.pacing.set(None);
    is_up(&world).await;
    let error = message(set(&world, "/a", "10mbit").await);
    assert!(error.contains("sch_fq") && error.contains("modprobe"), "{error}");
    assert!(world.manager().store.begin().unwrap().cgroup_limits().unwrap().is_empty());
}

#[tokio::test]
async fn limits_come_back_each_by_itself() {
    let world = World::new();
    is_limited(&world).await;
    let whole = world.fake.snapshot();
    let of_limits = |it: &Resource| {
        matches!(it, Resource::Queue(_) | Resource::CgroupLimit(_))
            || matches!(it, Resource::Attachment { hook: vnet_common::Hook::Shape, .. })
    };
    world.fake.present.borrow_mut().retain(|it| !of_limits(it));
    is_up(&world).await;
    assert_eq!(world.fake.snapshot(), whole);
    // What keeps the queue from coming back keeps nothing else from it.
    world.fake.present.borrow_mut().retain(|it| !of_limits(it));
    world.fake.fail_at(0, Fault::Before);
    let error = message(world.bring_up(Mode::Apply).await);
    assert!(error.contains("shaping on uplink eth0"), "{error}");
    assert_eq!(in_force(&world), ["/a 50mbit"]);
    world.fake.heal();
    is_up(&world).await;
    assert_eq!(world.fake.snapshot(), whole);
}

#[tokio::test]
async fn the_limit_of_a_cgroup_that_is_not_there_is_noted_and_found() {
    let world = World::new();
    is_up(&world).await;
    let done = world.manager().limit_cgroup(&request("/nowhere", "1mbit"), Unnamed::Stays).await.unwrap();
    assert!(done.notes[0].starts_with("there is no cgroup /nowhere"), "{:?}", done.notes);
    let diagnosis = world.manager().diagnose().await.unwrap();
    let found: Vec<_> = diagnosis.findings.iter().filter(|it| it.check == "limits").collect();
    assert_eq!(found.len(), 1, "{:?}", diagnosis.findings);
    assert!(found[0].problem.contains("/nowhere"), "{:?}", found[0]);
    assert!(found[0].fix.contains("`vnet limit rm --cgroup /nowhere`"), "{:?}", found[0]);
}

#[tokio::test]
async fn a_cgroup_that_is_too_deep_is_refused_and_the_bound_named() {
    let world = World::new();
    is_up(&world).await;
    let deep = |levels: usize| "/a".repeat(levels);
    let error = message(set(&world, &deep(16), "10mbit").await);
    assert!(error.contains(&deep(16)) && error.contains("up to 15 levels"), "{error}");
    assert!(in_force(&world).is_empty() && !world.record().contains("CgroupLimit"), "{}", world.record());
    // Where the hierarchy is mounted does not count.
    set(&world, &format!("/sys/fs/cgroup{}", deep(15)), "10mbit").await.unwrap();
    assert!(in_force(&world).contains(&format!("{} 10mbit", deep(15))), "{:?}", in_force(&world));
}

#[tokio::test]
async fn a_burst_that_is_not_named_stays_until_it_is_to_follow_from_the_rate() {
    let world = World::new();
    is_up(&world).await;
    let set = async |rate: &str, burst: Option<&str>, unnamed: Unnamed| {
        let burst = burst.map(|bytes| bytes.parse().unwrap());
        let limit = Limit { rate: rate.parse().unwrap(), burst };
        let request = CgroupLimitRequest { cgroup: of("/a"), limit };
        let done = world.manager().limit_cgroup(&request, unnamed).await.unwrap();
        let recorded = world.manager().store.begin().unwrap().cgroup_limit(&of("/a")).unwrap();
        assert_eq!(recorded.unwrap(), done.value);
        done.value.limit.burst.map(u32::from)
    };
    assert_eq!(set("10mbit", Some("64k"), Unnamed::Stays).await, Some(65_536));
    assert_eq!(set("20mbit", None, Unnamed::Stays).await, Some(65_536));
    assert_eq!(set("20mbit", None, Unnamed::Goes).await, None);
    set("20mbit", Some("64k"), Unnamed::Stays).await;
    lift(&world, "/a").await.unwrap();
    assert_eq!(set("20mbit", None, Unnamed::Stays).await, None);
}

#[tokio::test]
async fn more_limits_inside_one_another_than_htb_has_levels_are_refused_and_named() {
    let world = World::new();
    world.fake.pacing.set(Some(Pacing::Htb));
    is_up(&world).await;
    let deep = |levels: usize| "/a".repeat(levels);
    // The innermost is not the last.
    for levels in [1, 3, 2, 5, 7, 6, 8] {
        set(&world, &deep(levels), "10mbit").await.unwrap();
    }
    let before = (in_force(&world), world.record());
    for another in [deep(4), deep(9), "/".to_owned()] {
        let error = message(set(&world, &another, "10mbit").await);
        let innermost = if another == deep(9) { deep(9) } else { deep(8) };
        let around = if another == "/" { "(/, /a, /a/a, " } else { "(/a, /a/a, /a/a/a, " };
        for words in
            [&format!("cgroup {innermost} would be inside 7 others"), around, "sch_htb", "limit rm --cgroup"]
        {
            assert!(error.contains(words), "{words}: {error}");
        }
        assert_eq!((in_force(&world), world.record()), before, "nothing is changed by {another}");
    }
    // Beside them there is room, and one of them can be changed.
    set(&world, "/b", "10mbit").await.unwrap();
    set(&world, "1:10", "10mbit").await.unwrap();
    set(&world, &deep(8), "20mbit").await.unwrap();
    // fq has no classes.
    let world = World::new();
    is_up(&world).await;
    for levels in 1..=15 {
        set(&world, &deep(levels), "10mbit").await.unwrap();
    }
}
