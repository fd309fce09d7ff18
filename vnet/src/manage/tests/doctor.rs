//! What the doctor finds, on a host that is made of values.

use vnet_common::maps;

use super::*;
use crate::kernel::Environment;
use crate::spec::{Endpoint, Masquerade};

async fn world() -> World {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    assert_eq!(findings(&world).await, [], "nothing is wrong as yet");
    world
}

async fn findings(world: &World) -> Vec<Finding> {
    let diagnosis = world.manager().diagnose().await.unwrap();
    assert_eq!(diagnosis.failed, [""; 0]);
    diagnosis.findings
}

/// The only finding.
async fn found(world: &World) -> Finding {
    let found = findings(world).await;
    let [finding] = &found[..] else { panic!("{found:#?}") };
    finding.clone()
}

fn take_away(world: &World, is_taken: impl Fn(&Resource) -> bool) {
    let mut present = world.fake.present.borrow_mut();
    let before = present.len();
    present.retain(|resource| !is_taken(resource));
    assert_ne!(present.len(), before, "there was nothing of the kind");
}

#[tokio::test]
async fn endpoints_that_somebody_else_has_removed_are_missed() {
    let world = world().await;
    take_away(&world, |resource| matches!(resource, Resource::Veth(_)));
    let finding = found(&world).await;
    assert_eq!(finding.check, "endpoints");
    assert!(finding.problem.starts_with("endpoint net1 is not there: gone is veth vn-net1"), "{finding:#?}");
    assert!(finding.fix.contains("`vnet up`") && finding.fix.contains("`vnet ns rm net1`"), "{finding:#?}");
    world.bring_up(Mode::Apply).await.unwrap();
    assert_eq!(findings(&world).await, []);
}

#[tokio::test]
async fn an_endpoint_whose_entry_is_gone_is_named_with_it() {
    let world = world().await;
    take_away(&world, |it| matches!(it, Resource::Endpoint { addr, .. } if addr.is_v4()));
    let finding = found(&world).await;
    assert_eq!(finding.check, "endpoints");
    assert!(
        finding.problem.starts_with("endpoint net1 is not as recorded: endpoint 192.168.0.2"),
        "{finding:#?}"
    );
    assert!(finding.problem.ends_with(": missing"), "{finding:#?}");
}

#[tokio::test]
async fn whatever_is_recorded_and_gone_is_a_finding() {
    for is_taken in [
        |it: &Resource| matches!(it, Resource::Bridge { .. }),
        |it: &Resource| matches!(it, Resource::Attachment { hook, .. } if *hook == vnet_common::Hook::FromUplink),
        |it: &Resource| matches!(it, Resource::ReservedPorts { .. }),
        |it: &Resource| matches!(it, Resource::PortMap { key, .. } if key.port.number() == 8088 && key.addr.is_v4()),
        |it: &Resource| matches!(it, Resource::Masquerade { subnet, .. } if subnet.addr().is_ipv4()),
    ] {
        let world = world().await;
        world.publish("8088", "net1:80").await.unwrap();
        take_away(&world, is_taken);
        let finding = found(&world).await;
        assert_eq!(finding.check, "record", "{finding:#?}");
        assert!(finding.problem.ends_with(": missing"), "{finding:#?}");
        world.bring_up(Mode::Apply).await.unwrap();
        assert_eq!(findings(&world).await, [], "`vnet up` does not bring it back: {finding:#?}");
    }
}

#[tokio::test]
async fn an_uplink_that_is_gone_or_down_is_one_finding() {
    let world = world().await;
    world.fake.host.borrow_mut()[1].up = false;
    let finding = found(&world).await;
    assert_eq!((finding.check, finding.problem.contains("eth0 is down")), ("uplinks", true), "{finding:#?}");
    world.fake.host.borrow_mut().remove(1);
    take_away(&world, |it| match it {
        Resource::Uplink { interface } | Resource::Attachment { interface, .. } => interface == "eth0",
        _ => false,
    });
    let finding = found(&world).await;
    assert_eq!((finding.check, finding.problem.contains("eth0 is gone")), ("uplinks", true), "{finding:#?}");
}

#[tokio::test]
async fn a_default_route_by_another_interface_is_named() {
    let world = world().await;
    *world.fake.routes.borrow_mut() = vec![route("0.0.0.0/0", "eth1"), route("::/0", "eth0")];
    let finding = found(&world).await;
    assert_eq!(finding.check, "uplinks");
    assert!(finding.problem.contains("default route of IPv4 leads out by eth1"), "{finding:#?}");
    assert_eq!(finding.fix, "`vnet up --uplink eth1`");
}

#[tokio::test]
async fn a_prefix_that_somebody_else_uses_by_now_is_named() {
    let world = world().await;
    world.fake.routes.borrow_mut().push(route("192.168.0.0/24", "vnet0"));
    assert_eq!(findings(&world).await, [], "the bridge's own route is no clash");
    world.fake.routes.borrow_mut().push(route("192.168.0.0/16", "eth1"));
    let finding = found(&world).await;
    assert_eq!(finding.check, "routes");
    assert!(finding.problem.contains("192.168.0.0/24 of network default"), "{finding:#?}");
    assert!(finding.problem.contains("192.168.0.0/16 over eth1"), "{finding:#?}");
}

#[tokio::test]
async fn an_uplink_that_carries_less_than_endpoints_send_is_named() {
    let world = world().await;
    world.fake.host.borrow_mut()[1].mtu = 1400;
    let finding = found(&world).await;
    assert_eq!(finding.check, "mtu");
    assert!(finding.problem.contains("uplink eth0 one of 1400"), "{finding:#?}");
}

#[tokio::test]
async fn an_address_that_the_host_has_lost_is_named() {
    let world = world().await;
    let store = Store::open(&world.instance()).unwrap();
    let transaction = store.begin().unwrap();
    let rules: Vec<Masquerade> = transaction.masquerades().unwrap();
    let rule = rules.into_iter().find(|rule| rule.subnet.net().addr().is_ipv4()).unwrap();
    let to = Some("203.0.113.77".parse().unwrap());
    transaction.put_masquerade(&Masquerade { to, ..rule.clone() }).unwrap();
    transaction.commit().unwrap();
    drop(store);
    world.bring_up(Mode::Apply).await.unwrap();
    let finding = found(&world).await;
    assert_eq!(finding.check, "addresses");
    assert!(finding.problem.contains("203.0.113.77 is not an address of this host"), "{finding:#?}");
}

#[tokio::test]
async fn what_the_kernel_does_not_do_is_said() {
    let world = world().await;
    let lacking = Environment {
        version: Some((6, 1, 100)),
        compiles_bpf: Some(false),
        forwards_v6: false,
        in_front: vec![(vnet_common::Hook::FromUplink, "eth0".to_owned(), vec![7, 9])],
        open_to_others: vec![("/run/vnet/default".into(), "is open to others (mode 0755)".to_owned())],
    };
    *world.fake.environment.borrow_mut() = lacking;
    let found = findings(&world).await;
    let checks: Vec<&str> = found.iter().map(|finding| finding.check).collect();
    assert_eq!(checks, ["kernel", "kernel", "kernel", "permissions", "hooks"], "{found:#?}");
    for (finding, words) in found.iter().zip([
        "bpf_jit_enable=1",
        "6.1.139",
        "ipv6.conf.all.forwarding=1",
        "chmod go-rwx",
        "bpftool prog show id 7",
    ]) {
        assert!(finding.fix.contains(words), "{finding:#?}");
    }
}

#[tokio::test]
async fn a_map_that_is_nearly_full_is_named() {
    let world = world().await;
    let store = Store::open(&world.instance()).unwrap();
    let transaction = store.begin().unwrap();
    let nearly = maps::FLOATING_ENTRIES * 9 / 10;
    for n in 0..nearly {
        let addr = std::net::Ipv4Addr::from(0xcb00_7200 + n as u32);
        let floating = crate::spec::Floating {
            external: addr.into(),
            addr: std::net::Ipv4Addr::from(0x0a00_0000 + n as u32).into(),
            endpoint: "net1".parse().unwrap(),
            number: 1,
            on: None,
        };
        transaction.put_floating(&floating).unwrap();
        world.fake.host.borrow_mut()[1].addresses.push(ipnet::IpNet::from(std::net::IpAddr::V4(addr)));
    }
    transaction.commit().unwrap();
    drop(store);
    world.bring_up(Mode::Apply).await.unwrap();
    let found = findings(&world).await;
    let full: Vec<&Finding> = found.iter().filter(|finding| finding.check == "room").collect();
    let [finding] = full[..] else { panic!("{found:#?}") };
    assert!(
        finding.problem.starts_with(&format!("floating addresses: {nearly} of 4096 in use")),
        "{finding:#?}"
    );
}

#[tokio::test]
async fn a_namespace_that_is_not_ours_is_attached_again() {
    let world = world().await;
    let store = Store::open(&world.instance()).unwrap();
    let transaction = store.begin().unwrap();
    let recorded = transaction.endpoint(&"net1".parse().unwrap()).unwrap().unwrap();
    let foreign = Endpoint { namespace: Namespace::Foreign { path: "/proc/4711/ns/net".into() }, ..recorded };
    transaction.put_endpoint(&foreign).unwrap();
    transaction.commit().unwrap();
    drop(store);
    take_away(&world, |resource| matches!(resource, Resource::Veth(_)));
    let finding = found(&world).await;
    assert!(finding.fix.contains("`vnet ns rm net1` and attach it again"), "{finding:#?}");
}

#[test]
fn every_check_has_its_line_in_the_docs() {
    let docs = include_str!("../../../../docs/doctor.md");
    let lines = docs.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(lines.collect::<Vec<_>>(), checks().collect::<Vec<_>>());
}
