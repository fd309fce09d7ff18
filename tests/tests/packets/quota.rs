//! What one endpoint may have in use (RFC 6888 REQ-4, REQ-5), and how ports are chosen (RFC 6056).

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use vnet_common::{CtState, DatapathConfig, DropReason, EndpointUse, Hook, PortRange, Proto};
use vnet_datapath::model::Model;
use vnet_tests::case::world::{
    Endpoint, FAMILIES, Family, HOST_MAC, NET1, NET2, PEER_MAC, UPLINK, V4, at, now, world,
};
use vnet_tests::case::{Case, Flow, tuple};
use vnet_tests::frame::dissect::{Network, dissect};
use vnet_tests::frame::{Frame, IcmpError};
use vnet_tests::report::report;
use vnet_tests::runner::{Arrival, Fate, Host, Outcome, Runner};

use super::for_both_families;
use super::mappings::usual;

/// Flows that an endpoint may have here, and begin without an answer.
const LIMIT: u32 = 3;

pub(super) fn cases() -> Vec<Case> {
    for_both_families(limits)
}

/// What an endpoint has in use.
fn uses(endpoint: Endpoint, flows: u32, credit: u32) -> impl FnOnce(&mut Model) {
    move |model| {
        model.config.endpoint_flows = LIMIT;
        model.config.unanswered = LIMIT;
        // So that what is earned in the moment of a case is less than one.
        model.config.udp_unreplied = 1_000;
        let credited = now();
        let used = EndpointUse { flows, credit, credited, ..bytemuck::Zeroable::zeroed() };
        model.endpoint_use.borrow_mut().insert(endpoint.ifindex, used);
    }
}

fn limits(f: &Family) -> Vec<Case> {
    let (client, other, server) = (at(f.net1, 50_000), at(f.net2, 50_001), at(f.www, 53));
    let flow = Flow::masqueraded(Proto::UDP, client, server, 50_000);
    let others = Flow::masqueraded(Proto::UDP, other, server, 50_001);
    let seen = at(f.host, 50_000);
    let first = || Frame::udp(client, server);
    let web = (at(f.www, 9), at(f.host, 8088), at(f.net1, 80));
    vec![
        Case::from_endpoint(
            NET1,
            "T6888-4: an endpoint with as many flows as it may have begins no other",
            first(),
        )
        .given(uses(NET1, LIMIT, LIMIT))
        .refused(DropReason::Quota, IcmpError::Prohibited),
        Case::from_endpoint(NET1, "T6888-4: one below its limit begins another", first())
            .given(uses(NET1, LIMIT - 1, LIMIT))
            .forwarded(Frame::udp(seen, server))
            .leaves([flow.just_seen()]),
        Case::from_endpoint(NET1, "T6888-4: what has begun goes on", first())
            .given(uses(NET1, LIMIT, 0))
            .tracked([flow.established()])
            .forwarded(Frame::udp(seen, server))
            .leaves([flow.established().just_seen()]),
        Case::from_endpoint(NET2, "T6888-4: and others are not affected", Frame::udp(other, server))
            .given(uses(NET1, LIMIT, 0))
            .forwarded(Frame::udp(at(f.host, 50_001), server))
            .leaves([others.just_seen()]),
        Case::from_endpoint(
            NET1,
            "T6888-5: an endpoint that nobody answers begins no more flows for a while",
            first(),
        )
        .given(uses(NET1, 0, 0))
        .refused(DropReason::Quota, IcmpError::Prohibited),
        Case::from_endpoint(NET1, "T6888-5: with credit left it does", first())
            .given(uses(NET1, 0, 1))
            .forwarded(Frame::udp(seen, server))
            .leaves([flow.just_seen()]),
        Case::from_endpoint(
            NET1,
            "T6888-4: an endpoint at its limit dials no published port either",
            Frame::tcp(client, at(f.host, 8089)).syn(),
        )
        .given(uses(NET1, LIMIT, LIMIT))
        .refused(DropReason::Quota, IcmpError::Prohibited),
        Case::from_uplink("T6888-4: it is still dialled by others", Frame::tcp(web.0, web.1).syn())
            .given(uses(NET1, LIMIT, 0))
            .delivered(NET1, Frame::tcp(web.0, web.2).syn())
            .leaves([Flow::published(Proto::TCP, web.0, web.1, web.2).by(1).just_seen()]),
        Case::from_endpoint(NET1, "T6888-4: without limits there is none", first())
            .given(uses(NET1, u32::MAX, 0))
            .given(|model| (model.config.endpoint_flows, model.config.unanswered) = (0, 0))
            .forwarded(Frame::udp(seen, server))
            .leaves([flow.just_seen()]),
    ]
}

/// A host, and what is said to it.
pub(super) struct Talk {
    host: Host,
}

impl Talk {
    pub(super) fn new(change: impl FnOnce(&mut Model)) -> Self {
        let mut model = world();
        change(&mut model);
        let mut host = Host::default();
        host.fill(&model);
        Self { host }
    }

    pub(super) fn sends(&mut self, from: Endpoint, frame: Frame) -> Outcome {
        let bytes = frame.macs(from.mac, from.gateway_mac).build();
        self.run(Hook::FromEndpoint, from.ifindex, &bytes)
    }

    fn hears(&mut self, frame: Frame) -> Outcome {
        self.run(Hook::FromUplink, UPLINK, &frame.macs(PEER_MAC, HOST_MAC).build())
    }

    fn run(&mut self, hook: Hook, ifindex: u32, frame: &[u8]) -> Outcome {
        let arrival = Arrival { hook, ifindex, came_in_by: 0, waited: false, segment: 0, frame };
        self.host.run(&arrival).expect("the host runs anything")
    }

    /// Seconds pass.
    fn wait(&mut self, seconds: u32) {
        self.host.model().clock += seconds;
    }

    /// The external port that a datagram leaves from, if it leaves.
    fn external(&mut self, from: Endpoint, own: SocketAddr, to: SocketAddr) -> Option<u16> {
        source_port(&self.sends(from, Frame::udp(own, to)))
    }
}

fn source_port(outcome: &Outcome) -> Option<u16> {
    if outcome.fate != Fate::Forwarded {
        return None;
    }
    let Ok(Network::Ip(ip)) = dissect(&outcome.frame).map(|dissected| dissected.network) else {
        panic!("what left is no IP packet")
    };
    Some(ip.sockets().expect("a transport with ports").0.port())
}

#[test]
fn an_endpoint_at_its_limit_may_begin_flows_again_when_its_old_ones_are_over() {
    const FLOWS: u16 = 100;
    let mut talk = Talk::new(|model| {
        usual(model);
        model.config.endpoint_flows = u32::from(FLOWS);
    });
    let server = at(V4.www, 53);
    let begin = |talk: &mut Talk, port: u16| {
        let own = at(V4.net1, port);
        let external = talk.external(NET1, own, server);
        if let Some(external) = external {
            assert_eq!(talk.hears(Frame::udp(server, at(V4.host, external))).fate, Fate::Delivered);
        }
        external
    };
    for port in 0..FLOWS {
        assert!(begin(&mut talk, 50_000 + port).is_some(), "flow {port}");
    }
    assert_eq!(begin(&mut talk, 40_000), None, "one too many");
    let idle = talk.host.model().config.udp_replied + 1;
    talk.wait(idle);
    // Nobody has met the old flows since. A packet that is refused has looked at 64 flows, to find one that is over:
    // those that have begun anew are passed by.
    let mut refused = 0;
    for port in 0..FLOWS {
        let tries = (0..3).find(|_| begin(&mut talk, 30_000 + port).is_some());
        refused += tries.unwrap_or_else(|| panic!("flow {port} after the first were over"));
    }
    assert!(refused <= 3, "{refused} packets refused");
    assert_eq!(begin(&mut talk, 40_000), None, "one too many again");
    assert_eq!(talk.host.endpoint_use()[&NET1.ifindex].flows, u32::from(FLOWS));
}

#[test]
fn credit_for_unanswered_flows_comes_back_with_answers_and_with_time() {
    for family in &FAMILIES {
        let mut talk = Talk::new(|model| (model.config.unanswered, model.config.udp_unreplied) = (10, 20));
        let server = at(family.www, 53);
        let mut sent = 0;
        let mut spray = |talk: &mut Talk, count: u16| {
            let began = (0..count).filter(|_| {
                sent += 1;
                talk.external(NET1, at(family.net1, 50_000 + sent), server).is_some()
            });
            began.count()
        };
        assert_eq!(spray(&mut talk, 30), 10, "{}: as many as there is credit for", family.name);
        // An answer gives one back.
        let answer = Frame::udp(server, at(family.host, 50_001));
        assert_eq!(talk.hears(answer).fate, Fate::Delivered);
        assert_eq!(spray(&mut talk, 5), 1, "{}", family.name);
        talk.wait(4);
        assert_eq!(spray(&mut talk, 5), 2, "{}: ten in twenty seconds", family.name);
        talk.wait(100);
        assert_eq!(spray(&mut talk, 30), 10, "{}: never more than that", family.name);
        let refused = talk.host.endpoint_use()[&NET1.ifindex].refused;
        assert_eq!(refused, 20 + 4 + 3 + 20, "{}", family.name);
    }
}

#[test]
fn one_socket_has_one_external_port_for_many_peers_under_pressure() {
    const PEERS: u16 = 200;
    for family in &FAMILIES {
        let mut talk = Talk::new(|model| {
            usual(model);
            // Of a hundred ports ninety are in use, all of another endpoint.
            model.config.nat_ports = PortRange { first: 50_000, last: 50_099 };
        });
        for port in 0..90 {
            let own = at(family.net2, 50_000 + port);
            assert_eq!(talk.external(NET2, own, at(family.peer, 1)), Some(own.port()));
        }
        // Its own port is taken; it keeps the one that it gets.
        let own = at(family.net1, 50_000);
        let external = talk.external(NET1, own, at(family.www, 1)).expect("one of ten");
        assert!((50_090..50_100).contains(&external), "{external}");
        for peer in 2..PEERS {
            talk.wait(u32::from(peer % 2));
            assert_eq!(talk.external(NET1, own, at(family.www, peer)), Some(external), "peer {peer}");
        }
        // And is reached there by those whom it has written to, from any port.
        let incoming = talk.hears(Frame::udp(at(family.www, 9999), at(family.host, external)));
        assert_eq!(incoming.fate, Fate::Delivered);
        let stranger = talk.hears(Frame::udp(at(family.peer, 1), at(family.host, external)));
        assert_eq!(stranger.fate, Fate::Dropped(DropReason::Filtered));
    }
}

#[test]
fn a_flow_that_comes_back_again_and_again_takes_no_room_of_others() {
    const ROOM: u16 = 4;
    let mut talk = Talk::new(|model| model.slot_count = u32::from(ROOM));
    let server = at(V4.www, 123);
    let confirmed = |talk: &mut Talk, port: u16| {
        let own = at(V4.net1, port);
        assert_eq!(talk.external(NET1, own, server), Some(port));
        talk.hears(Frame::udp(server, at(V4.host, port)));
        talk.host.flows()[&tuple(Proto::UDP, own, server)].confirmed
    };
    // As a clock that is asked every so often from one port, each time a little after its flow is over.
    for _ in 0..3 * ROOM {
        assert!(confirmed(&mut talk, 50_000));
        let idle = talk.host.model().config.udp_replied + 1;
        talk.wait(idle);
    }
    for flow in 0..ROOM {
        assert!(confirmed(&mut talk, 50_000 + flow), "flow {flow} of {ROOM}");
    }
    assert!(!confirmed(&mut talk, 50_000 + ROOM), "there is no room for more");
}

#[test]
fn an_endpoint_that_sprays_for_ever_leaves_ports_to_others() {
    for family in &FAMILIES {
        let mut talk = Talk::new(|model| {
            usual(model);
            model.config = DatapathConfig::DEFAULT;
        });
        let (mut began, mut refused, mut own) = (0_u32, 0_u32, 0_u32);
        for second in 0..600_u32 {
            // Each from another socket, to a server that never answers, all of the same parity.
            for _ in 0..if second == 0 { 10_000 } else { 100 } {
                own += 1;
                let from = at(family.net1, (own % 16_000) as u16 * 2 + 2);
                let to = at(family.www, 1 + (own / 16_000) as u16);
                match talk.external(NET1, from, to) {
                    Some(_) => began += 1,
                    None => refused += 1,
                }
            }
            talk.wait(1);
            // A neighbour's lookups.
            for query in 0..2 {
                let from = at(family.net2, 2_000 + (2 * second + query) as u16);
                let external = talk.external(NET2, from, at(family.peer, 53));
                assert!(external.is_some(), "{}: {from} after {second} s, {began} flows began", family.name);
            }
        }
        report(format_args!(
            "{}: of a spray of {own} flows {began} began, {refused} were refused",
            family.name
        ));
        assert!(refused > began, "a spray that is not limited proves nothing");
    }
}

#[test]
fn drawn_ports_are_spread_evenly_and_follow_no_order() {
    const DRAWS: usize = 10_000;
    const BINS: usize = 64;
    let range = PortRange { first: 49_152, last: 65_535 };
    let drawn = |seed: u32| -> Vec<u16> {
        let mut talk = Talk::new(|model| (model.config.nat_ports, model.config.unanswered) = (range, 0));
        talk.host.model().seed.set(seed);
        let server = |number: usize| at(V4.www, 1 + number as u16);
        // No source port is in the range, so each is drawn; no two flows are to the same server, so none is taken.
        (0..DRAWS)
            .map(|n| {
                let own = at(V4.net1, 1_000 + n as u16);
                let external = talk.external(NET1, own, server(n)).expect("a free port");
                assert_eq!(external % 2, own.port() % 2, "parity of {own} (RFC 4787 REQ-4)");
                external
            })
            .collect()
    };
    let ports = drawn(2_463_534_242);
    let mut bins = [0_u32; BINS];
    let width = (usize::from(range.last - range.first) + 1) / BINS;
    for port in &ports {
        bins[usize::from(port - range.first) / width] += 1;
    }
    let expected = DRAWS as f64 / BINS as f64;
    let chi_square: f64 = bins.iter().map(|bin| (f64::from(*bin) - expected).powi(2) / expected).sum();
    report(format_args!(
        "{DRAWS} drawn ports: chi-square {chi_square:.1} with {} degrees of freedom",
        BINS - 1
    ));
    // 63 degrees of freedom: 1 in 1000 is above 103.4, 1 in 1000 below 32.5. Too even is no chance either.
    assert!((32.5..103.4).contains(&chi_square), "{chi_square}: {bins:?}");
    let (mut run, mut longest) = (1, 1);
    for pair in ports.windows(2) {
        run = if pair[1] > pair[0] { run + 1 } else { 1 };
        longest = longest.max(run);
    }
    report(format_args!("longest run of rising ports: {longest}"));
    // 10,000 draws have a run of ten with a chance of 1 in 360.
    assert!(longest < 10, "{longest} ports in a row, each above the one before");
    let steps: HashSet<i32> = ports.windows(2).map(|pair| i32::from(pair[1]) - i32::from(pair[0])).collect();
    assert!(steps.len() > DRAWS / 2, "only {} different steps from one port to the next", steps.len());
    let other = drawn(88_675_123);
    let same = ports.iter().zip(&other).filter(|(a, b)| a == b).count();
    assert!(same < 20, "two instances agree on {same} of {DRAWS} ports");
}

#[test]
fn sixty_four_ports_are_sixty_four_flows_to_one_server_and_come_back() {
    let range = PortRange { first: 50_000, last: 50_063 };
    for family in &FAMILIES {
        let mut talk = Talk::new(|model| model.config.nat_ports = range);
        let (server, elsewhere) = (at(family.www, 80), at(family.peer, 80));
        let syn = |talk: &mut Talk, port: u16, to| {
            source_port(&talk.sends(NET1, Frame::tcp(at(family.net1, port), to).syn()))
        };
        let mut held = HashMap::new();
        // Each flow tries 32 of 64 ports at random: towards the end some do not find the last ones.
        for port in 1_000..1_400 {
            if let Some(external) = syn(&mut talk, port, server) {
                assert!(held.insert(external, port).is_none(), "{external} is given twice");
            }
        }
        assert_eq!(held.len(), 64, "{}", family.name);
        let refused = talk.sends(NET1, Frame::tcp(at(family.net1, 2_000), server).syn());
        assert_eq!(refused.fate, Fate::Dropped(DropReason::NoFreePort));
        // The same ports serve another server (RFC 7857 section 3).
        assert!(syn(&mut talk, 2_001, elsewhere).is_some());
        // Both sides close one, and its time passes: the others go on meanwhile.
        let (external, own) =
            held.iter().next().map(|(external, own)| (*external, *own)).expect("64 of them");
        let (inner, outer) = (at(family.net1, own), at(family.host, external));
        talk.hears(Frame::tcp(server, outer).syn().ack());
        for (external, own) in &held {
            let keeps = Frame::tcp(at(family.net1, *own), server).ack();
            talk.hears(Frame::tcp(server, at(family.host, *external)).syn().ack());
            assert_eq!(source_port(&talk.sends(NET1, keeps)), Some(*external));
        }
        talk.sends(NET1, Frame::tcp(inner, server).fin().ack());
        talk.hears(Frame::tcp(server, outer).fin().ack());
        let key = tuple(Proto::TCP, inner, server);
        assert_eq!(talk.host.flows()[&key].entry.state, CtState::Closing as u8);
        let (closing, established) = {
            let config = talk.host.model().config;
            (config.tcp_closing, config.tcp_established)
        };
        assert!(closing < established, "the others outlive it");
        talk.wait(closing + 1);
        let again = (2_100..2_400).find_map(|port| syn(&mut talk, port, server));
        assert_eq!(again, Some(external), "{}: the port that was closed", family.name);
    }
}
