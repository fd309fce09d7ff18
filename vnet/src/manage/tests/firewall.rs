//! What is told of the host's firewall, which is a value here.

use std::collections::BTreeMap;

use super::*;
use crate::firewall::{Action, Backend, Base, Bridged, Chain, Condition, Families, Field, Hook, Netfilter};
use crate::firewall::{Policy, Rule, Table, Test, Verdict};
use crate::kernel::Addressed;

/// A table of iptables with one chain, which drops all but what its rules accept.
fn drops(hook: Hook, chain: &str, rules: Vec<Rule>) -> Table {
    let base = Some(Base { hook, priority: 0, policy: Policy::Drop });
    Table {
        families: Families::V4,
        name: "filter".to_owned(),
        backend: Backend::Nftables,
        chains: BTreeMap::from([(chain.to_owned(), Chain { base, rules })]),
        sets: BTreeMap::new(),
    }
}

fn accepts_port(port: u16) -> Rule {
    let parts = vec![Field::Transport { offset: 2, length: 2 }.into()];
    let condition = Condition::Holds { parts, test: Test::equals(port.to_be_bytes().to_vec()) };
    Rule { conditions: vec![condition], action: Action::Accept }
}

async fn world_with(tables: Vec<Table>) -> World {
    let world = World::up().await;
    world.endpoint("net1").await.unwrap();
    *world.fake.netfilter.borrow_mut() = Some(Netfilter { tables, ..Netfilter::default() });
    world
}

async fn findings(world: &World) -> Vec<Finding> {
    let diagnosis = world.manager().diagnose().await.unwrap();
    assert_eq!(diagnosis.failed, [""; 0]);
    diagnosis.findings
}

#[tokio::test]
async fn publishing_what_the_firewall_would_block_is_noted_with_the_ways_out() {
    let world = world_with(vec![drops(Hook::Input, "INPUT", vec![accepts_port(443)])]).await;
    let notes = world.publish("8088", "net1:80").await.unwrap().notes;
    assert_eq!(notes.len(), 1);
    for words in [
        "8088/tcp",
        "the policy of chain INPUT in table ip filter (iptables)",
        "data path answers before it",
        "--allow-from",
        "127.0.0.1",
        "--firewall respect",
        "`iptables -I INPUT -p tcp --dport 8088 -j ACCEPT`",
    ] {
        assert!(notes[0].contains(words), "no {words:?} in {}", notes[0]);
    }
    assert_eq!(world.publish("8088", "net1:80").await.unwrap().notes, notes, "and again, for who missed it");
    for open in ["443", "127.0.0.1:8089", "[::1]:8089"] {
        assert_eq!(world.publish(open, "net1:80").await.unwrap().notes, [""; 0], "{open}");
    }
}

#[tokio::test]
async fn a_firewall_that_cannot_be_read_is_no_reason_not_to_publish() {
    let world = world_with(Vec::new()).await;
    *world.fake.netfilter.borrow_mut() = None;
    let notes = world.publish("8088", "net1:80").await.unwrap().notes;
    assert!(notes[0].contains("8088/tcp is not known: no rules for you"), "{notes:?}");
    let diagnosis = world.manager().diagnose().await.unwrap();
    assert_eq!(diagnosis.findings, []);
    let of_the_firewall = ["firewall", "docker-user", "forward", "br_netfilter"];
    assert_eq!(diagnosis.failed, of_the_firewall.map(|check| format!("{check}: no rules for you")));
}

#[tokio::test]
async fn rules_that_could_not_be_read_are_mentioned() {
    let world = world_with(Vec::new()).await;
    let unread = vec!["table ip filter of iptables-legacy, which could not be read".to_owned()];
    *world.fake.netfilter.borrow_mut() = Some(Netfilter { unread, ..Netfilter::default() });
    let notes = world.publish("8088", "net1:80").await.unwrap().notes;
    assert!(notes[0].contains("may block 8088/tcp: it has table ip filter of iptables-legacy"), "{notes:?}");
}

#[tokio::test]
async fn the_doctor_finds_nothing_on_a_host_without_rules() {
    let world = world_with(Vec::new()).await;
    world.publish("8088", "net1:80").await.unwrap();
    assert_eq!(world.manager().diagnose().await.unwrap(), Diagnosis::default());
}

#[tokio::test]
async fn the_doctor_says_what_each_hook_would_do() {
    let input = drops(Hook::Input, "INPUT", vec![accepts_port(443)]);
    let mut forward = drops(Hook::Forward, "FORWARD", Vec::new());
    forward.name = "security".to_owned();
    let world = world_with(vec![input, forward]).await;
    for published in ["8088", "443", "127.0.0.1:8089"] {
        world.publish(published, "net1:80").await.unwrap();
    }
    let found = findings(&world).await;
    let names: Vec<&str> = found.iter().map(|finding| finding.check).collect();
    assert_eq!(names, ["firewall", "forward"], "{found:#?}");
    assert!(found[0].problem.starts_with("port 8088/tcp is open to the world"), "{found:#?}");
    assert!(found[1].problem.contains("fast path is not affected"), "{found:#?}");
    assert!(found[1].fix.contains("iptables -I FORWARD -i vnet0 -j ACCEPT"), "{found:#?}");
    world.fake.netfilter.borrow_mut().as_mut().unwrap().bridged = Bridged { v4: true, v6: false };
    let found = findings(&world).await;
    assert_eq!(found[2].check, "br_netfilter");
    assert!(found[2].fix.contains("bridge-nf-call-iptables=0"), "{found:#?}");
}

#[tokio::test]
async fn the_doctor_knows_that_rules_for_docker_do_not_count() {
    let mut table = drops(Hook::Forward, "FORWARD", Vec::new());
    let jump = Rule { conditions: Vec::new(), action: Action::Jump("DOCKER-USER".to_owned()) };
    let chain = table.chains.get_mut("FORWARD").unwrap();
    chain.base.as_mut().unwrap().policy = Policy::Accept;
    chain.rules.push(jump);
    let refused = Rule { action: Action::Drop, ..accepts_port(80) };
    table.chains.insert("DOCKER-USER".to_owned(), Chain { base: None, rules: vec![refused] });
    let world = world_with(vec![table]).await;
    world.publish("8088", "net1:80").await.unwrap();
    world.publish("8089", "net1:81").await.unwrap();
    let found = findings(&world).await;
    let of_docker: Vec<&Finding> = found.iter().filter(|finding| finding.check == "docker-user").collect();
    assert_eq!(of_docker.len(), 1, "{found:#?}");
    assert!(of_docker[0].problem.contains("8088/tcp"), "{of_docker:?}");
}

#[tokio::test]
async fn a_firewall_that_is_respected_is_asked_about_what_is_forwarded() {
    let input = drops(Hook::Input, "INPUT", Vec::new());
    let mut forward = drops(Hook::Forward, "FORWARD", vec![accepts_port(80)]);
    forward.name = "security".to_owned();
    let world = world_with(vec![input, forward]).await;
    let respect = SettingsChange { firewall: Some(Firewall::Respect), ..SettingsChange::default() };
    world.bring_up_as(&UpRequest { change: respect, ..UpRequest::default() }, Mode::Apply).await.unwrap();
    assert_eq!(world.publish("8088", "net1:80").await.unwrap().notes, [""; 0], "the target's port decides");
    let notes = world.publish("80", "net1:8080").await.unwrap().notes;
    let [note] = &notes[..] else { panic!("{notes:?}") };
    assert!(note.starts_with("the host's firewall blocks 80/tcp, by the policy of chain FORWARD"), "{note}");
    assert!(note.contains("`iptables -I FORWARD -p tcp --dport 8080 -j ACCEPT`"), "{note}");
    let found = findings(&world).await;
    let of_ports: Vec<&str> =
        found.iter().filter(|it| it.check == "firewall").map(|it| it.problem.as_str()).collect();
    let [problem] = of_ports[..] else { panic!("{found:#?}") };
    assert!(
        problem.starts_with("port 80/tcp is published, and the host's firewall blocks it by"),
        "{problem}"
    );
    let forward = found.iter().find(|it| it.check == "forward").unwrap();
    assert!(forward.problem.contains("answers to published ports unless"), "{forward:?}");
}

#[tokio::test]
async fn a_port_is_reached_from_where_it_is_published() {
    let world = world_with(vec![drops(Hook::Input, "INPUT", Vec::new())]).await;
    for published in ["8088", "203.0.113.1:8089", "127.0.0.1:8090"] {
        world.publish(published, "net1:80").await.unwrap();
    }
    let store = Store::open(&world.instance()).unwrap();
    let record = store.begin().unwrap();
    let (settings, networks) = (record.settings().unwrap().unwrap(), record.networks().unwrap());
    let netfilter = world.fake.netfilter.borrow().clone().unwrap();
    let interfaces: Vec<Addressed> = world.fake.host.borrow().iter().map(Addressed::from).collect();
    let described = record.port_maps().unwrap().into_iter().map(|mapping| {
        let reach = reach(&netfilter, &interfaces, &settings, &networks, &mapping);
        let addresses = reach.uplinks.iter().flat_map(|uplink| &uplink.addresses);
        let blocked = matches!(reach.firewall, Some(Verdict::Blocked(_)));
        (addresses.map(ToString::to_string).collect(), reach.networks.len(), blocked)
    });
    let mut described: Vec<(Vec<String>, usize, bool)> = described.collect();
    described.sort();
    let text = |addresses: &[&str]| addresses.iter().map(|&addr| addr.to_owned()).collect::<Vec<_>>();
    let expected = [
        (Vec::new(), 0, false),
        (text(&["203.0.113.1"]), 1, true),
        (text(&["203.0.113.1", "2001:db8::1"]), 1, true),
    ];
    assert_eq!(described, expected);
}
