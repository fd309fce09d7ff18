//! Pairing, selecting, forgetting, following and counting, on values.

use std::collections::HashMap;
use std::net::IpAddr;

use bytemuck::Zeroable;
use vnet_common::{
    Addr, CtEntry, CtState, DatapathConfig, EndpointUse, MappingEntry, Origin, Port, Proto, Tuple, Zone,
};

use super::*;

const NETWORK: Zone = Zone { id: 1 };
const ROOM: Room = Room { confirmed: 131_072, unanswered: 65_536 };
const CONFIG: DatapathConfig = DatapathConfig::DEFAULT;

fn addr(text: &str) -> Addr {
    Addr::from(text.parse::<IpAddr>().unwrap())
}

/// `ADDR:PORT > ADDR:PORT`, from a zone.
fn tuple(proto: Proto, zone: Zone, from: (&str, u16), to: (&str, u16)) -> Tuple {
    Tuple {
        src: addr(from.0),
        dst: addr(to.0),
        sport: Port::new(from.1),
        dport: Port::new(to.1),
        zone,
        proto,
        reserved: 0,
    }
}

/// A flow of an endpoint to the world: its port, and that of the host.
fn outgoing(proto: Proto, port: u16, external: u16) -> Flow {
    let peer = ("203.0.113.2", 80);
    flow(
        tuple(proto, NETWORK, ("192.168.0.2", port), peer),
        tuple(proto, Zone::WORLD, ("203.0.113.1", external), peer),
    )
}

/// A flow through a published port.
fn incoming(port: u16) -> Flow {
    let client = ("203.0.113.2", 4000);
    Flow {
        mapping: 7,
        ..flow(
            tuple(Proto::TCP, Zone::WORLD, client, ("203.0.113.1", port)),
            tuple(Proto::TCP, NETWORK, client, ("192.168.0.3", 80)),
        )
    }
}

fn flow(original: Tuple, translated: Tuple) -> Flow {
    Flow {
        original,
        translated,
        state: CtState::Established,
        confirmed: true,
        halves: Halves::Both,
        mapping: 0,
        mapped: false,
        brief: false,
        created: 1000,
        last_seen: 1100,
        sent: Traffic { packets: 3, bytes: 300 },
        received: Traffic { packets: 2, bytes: 200 },
    }
}

/// The entries that a flow has.
fn entries(flow: &Flow) -> [(Tuple, CtEntry); 2] {
    let entry = |origin: Origin, translated: Tuple, traffic: Traffic| CtEntry {
        translated,
        packets: traffic.packets,
        bytes: traffic.bytes,
        last_seen: flow.last_seen,
        created: flow.created,
        mapping: flow.mapping,
        state: flow.state as u8,
        origin: origin as u8,
        flags: if flow.mapped { CtEntry::FLAG_MAPPED } else { 0 },
        reserved: 0,
    };
    let [opener, answer] = flow.keys();
    [
        (opener, entry(Origin::Opener, flow.translated, flow.sent)),
        (answer, entry(Origin::Answer, flow.original.answer(), flow.received)),
    ]
}

fn tables(unconfirmed: &[(Tuple, CtEntry)], confirmed: &[(Tuple, CtEntry)]) -> Tables {
    let table = |entries: &[(Tuple, CtEntry)]| entries.iter().copied().collect();
    Tables { unconfirmed: table(unconfirmed), confirmed: table(confirmed) }
}

#[test]
fn the_halves_of_a_flow_are_one_flow_in_either_table() {
    let flow = outgoing(Proto::TCP, 4000, 50_000);
    let halves = entries(&flow);
    assert_eq!(pair(&tables(&[], &halves)), std::slice::from_ref(&flow));
    assert_eq!(pair(&tables(&halves, &[])), [Flow { confirmed: false, ..flow.clone() }]);
    // On its way from one to the other.
    assert_eq!(pair(&tables(&halves, &halves)), std::slice::from_ref(&flow));
    assert_eq!(pair(&tables(&halves, &halves[..1])), std::slice::from_ref(&flow));
    assert_eq!(pair(&tables(&halves[..1], &halves[1..])), [flow]);
}

#[test]
fn a_half_that_is_alone_is_shown_as_such() {
    let flow = Flow { confirmed: false, ..incoming(8088) };
    let halves = entries(&flow);
    let opener = Flow { halves: Halves::Opener, received: Traffic::default(), ..flow.clone() };
    let answer = Flow { halves: Halves::Answer, sent: Traffic::default(), ..flow.clone() };
    assert_eq!(pair(&tables(&halves[..1], &[])), std::slice::from_ref(&opener));
    assert_eq!(pair(&tables(&halves[1..], &[])), [answer]);
    // The answer's place has been taken by another flow, which is whole.
    let other = Flow { original: Tuple { sport: Port::new(4001), ..flow.original }, ..flow };
    let others = entries(&other);
    assert_eq!(others[1].0, halves[1].0, "both wait for the same answers");
    let mut flows = pair(&tables(&[halves[0], others[0], others[1]], &[]));
    flows.sort_by_key(|flow| flow.original);
    assert_eq!(flows, [opener, other]);
}

#[test]
fn the_half_seen_last_says_how_the_flow_is() {
    let flow = outgoing(Proto::TCP, 4000, 50_000);
    let [opener, mut answer] = entries(&flow);
    (answer.1.last_seen, answer.1.state) = (1105, CtState::AnswerClosed as u8);
    let expected = Flow { last_seen: 1105, state: CtState::AnswerClosed, ..flow };
    assert_eq!(pair(&tables(&[], &[opener, answer])), [expected]);
}

#[test]
fn a_flow_is_over_after_its_timeout_and_not_before() {
    let mut flow = outgoing(Proto::UDP, 4000, 50_000);
    for (state, timeout) in [(CtState::New, 120), (CtState::Established, 300)] {
        flow.state = state;
        assert_eq!(flow.timeout(&CONFIG), timeout);
        let end = flow.last_seen + timeout;
        assert_eq!((flow.left(&CONFIG, end), flow.is_over(&CONFIG, end)), (0, false));
        assert!(flow.is_over(&CONFIG, end + 1));
        assert_eq!((flow.left(&CONFIG, end - 7), flow.idle(end), flow.age(end)), (7, timeout, timeout + 100));
    }
    assert_eq!(flow.idle(flow.last_seen - 1), 0, "a clock that was read before the packet");
}

#[test]
fn filters_select_by_everything_a_flow_has() {
    let udp = Flow { state: CtState::New, confirmed: false, ..outgoing(Proto::UDP, 4000, 50_000) };
    let flows = [outgoing(Proto::TCP, 4001, 50_001), udp, incoming(8088)];
    let selected =
        |filter: Filter| -> Vec<usize> { (0..flows.len()).filter(|&n| filter.selects(&flows[n])).collect() };
    let any = Filter::default;
    assert!(any().is_everything());
    assert_eq!(selected(any()), [0, 1, 2]);
    let endpoint = |text: &str| Filter { endpoint: Some([(NETWORK, addr(text))].into()), ..any() };
    assert_eq!(selected(endpoint("192.168.0.2")), [0, 1], "what it opened");
    assert_eq!(selected(endpoint("192.168.0.3")), [2], "what leads to it");
    assert_eq!(selected(endpoint("203.0.113.2")), [0; 0], "an address of another zone");
    assert_eq!(selected(Filter { proto: Some(Proto::UDP), ..any() }), [1]);
    let states = vec![CtState::New, CtState::Reset];
    assert_eq!(selected(Filter { states, ..any() }), [1]);
    for (port, expected) in [
        (4001, vec![0]),
        (50_000, vec![1]),
        (8088, vec![2]),
        (80, vec![0, 1, 2]),
        (4000, vec![1, 2]),
        (81, vec![]),
    ] {
        assert_eq!(selected(Filter { port: Some(port), ..any() }), expected, "{port}");
    }
    for (prefix, expected) in [
        ("192.168.0.2/32", vec![0, 1]),
        ("192.168.0.0/24", vec![0, 1, 2]),
        ("203.0.113.1/32", vec![0, 1, 2]),
        ("10.0.0.0/8", vec![]),
        ("::/0", vec![]),
    ] {
        let address = Some(prefix.parse().unwrap());
        assert_eq!(selected(Filter { address, ..any() }), expected, "{prefix}");
    }
    for (mapping, expected) in
        [(OfMapping::Any, vec![2]), (OfMapping::Port(8088), vec![2]), (OfMapping::Port(80), vec![])]
    {
        assert_eq!(selected(Filter { mapping: Some(mapping), ..any() }), expected);
    }
    assert_eq!(selected(Filter { confirmed: Some(false), ..any() }), [1]);
    assert_eq!(selected(Filter { confirmed: Some(true), ..any() }), [0, 2]);
    let both = Filter { proto: Some(Proto::TCP), port: Some(8088), ..any() };
    assert_eq!(selected(both), [2], "all that is asked must hold");
    let neither = Filter { proto: Some(Proto::UDP), port: Some(8088), ..any() };
    assert_eq!(selected(neither), [0; 0]);
}

/// Whether a key of the mappings is to be forgotten.
fn is_doomed(doomed: &Doomed, key: &Tuple) -> bool {
    doomed.contains(key, &CtEntry::zeroed())
}

/// The keys of the mapping of port 4000 to the external 50000, as the data path makes them.
fn mapping_keys(peer: &str) -> [Tuple; 3] {
    let udp = Proto::UDP;
    [
        tuple(udp, NETWORK, ("192.168.0.2", 4000), ("203.0.113.1", 0)),
        tuple(udp, Zone::WORLD, ("0.0.0.0", 0), ("203.0.113.1", 50_000)),
        tuple(udp, Zone::WORLD, (peer, 0), ("203.0.113.1", 50_000)),
    ]
}

#[test]
fn what_is_doomed_are_both_halves_of_what_was_asked_for_and_nothing_else() {
    let flows = [outgoing(Proto::TCP, 4000, 50_000), outgoing(Proto::TCP, 4001, 50_001)];
    let doomed = Doomed::among(&flows, &Filter { port: Some(4000), ..Filter::default() });
    for (flow, expected) in flows.iter().zip([true, false]) {
        for (key, entry) in entries(flow) {
            assert_eq!(doomed.contains(&key, &entry), expected, "{key:?}");
            let later = CtEntry { created: entry.created + 1, ..entry };
            assert!(!doomed.contains(&key, &later), "what has begun since is another flow");
        }
    }
}

#[test]
fn a_mapping_goes_with_the_last_of_its_flows() {
    let one = Flow { mapped: true, ..outgoing(Proto::UDP, 4000, 50_000) };
    let elsewhere = |tuple: Tuple| Tuple { dst: addr("203.0.113.9"), dport: Port::new(53), ..tuple };
    let two =
        Flow { original: elsewhere(one.original), translated: elsewhere(one.translated), ..one.clone() };
    let filter = Filter { port: Some(80), ..Filter::default() };
    let [inside, outside, permission] = mapping_keys("203.0.113.2");
    let both = Doomed::among(&[one.clone(), two.clone()], &filter);
    assert!(is_doomed(&both, &permission), "the peer may not come back");
    assert!(!is_doomed(&both, &inside) && !is_doomed(&both, &outside), "the other flow has it as well");
    assert!(!is_doomed(&both, &mapping_keys("203.0.113.9")[2]));
    let last = Doomed::among(std::slice::from_ref(&one), &filter);
    assert!([inside, outside, permission].iter().all(|key| is_doomed(&last, key)));
    // The same one, begun anew by the peer.
    let from_peer =
        Flow { original: one.translated.answer(), translated: one.original.answer(), ..one.clone() };
    let last = Doomed::among(&[from_peer], &filter);
    assert!([inside, outside, permission].iter().all(|key| is_doomed(&last, key)));
    let unmapped = Doomed::among(&[Flow { mapped: false, ..one }], &filter);
    assert!(!is_doomed(&unmapped, &inside));
}

#[test]
fn a_watcher_is_told_of_a_flow_from_its_beginning_to_its_end() {
    let begun = Flow { state: CtState::New, confirmed: false, ..outgoing(Proto::TCP, 4000, 50_000) };
    let mut watch = Watch::new(Vec::new(), &CONFIG, 1100);
    // By the time the event is heard the flow has come further, which is for the next look to tell.
    let answered = Flow { state: CtState::Established, confirmed: true, ..begun.clone() };
    assert_eq!(watch.began(answered.clone()), [(News::Began, begun.clone())]);
    assert_eq!(watch.began(answered.clone()), [], "once");
    let mut look = |flows: &[Flow], now| watch.look(flows.to_vec(), &CONFIG, now);
    assert_eq!(look(std::slice::from_ref(&begun), 1101), []);
    assert_eq!(
        look(std::slice::from_ref(&answered), 1102),
        [(News::Confirmed(CtState::New), answered.clone())]
    );
    let closing = Flow { state: CtState::Closing, ..answered };
    assert_eq!(
        look(std::slice::from_ref(&closing), 1103),
        [(News::Changed(CtState::Established), closing.clone())]
    );
    assert_eq!(look(std::slice::from_ref(&closing), 1340), []);
    let over = [(News::Ended(Ended::Timeout), closing.clone())];
    assert_eq!(look(std::slice::from_ref(&closing), 1341), over, "although it is still in the table");
    assert_eq!(look(&[closing], 1342), []);
}

#[test]
fn a_watcher_is_told_of_what_it_missed() {
    let old = outgoing(Proto::TCP, 4000, 50_000);
    let mut watch = Watch::new(vec![old.clone()], &CONFIG, 1100);
    assert_eq!(watch.look(vec![old.clone()], &CONFIG, 1101), [], "what was there before is no news");
    // Its event was lost.
    let missed = Flow { created: 1101, ..outgoing(Proto::TCP, 4001, 50_001) };
    let all = |flow: &Flow| {
        let began = Flow { state: CtState::New, confirmed: false, ..flow.clone() };
        [(News::Began, began), (News::Confirmed(CtState::New), flow.clone())]
    };
    assert_eq!(watch.look(vec![old.clone(), missed.clone()], &CONFIG, 1102), all(&missed));
    assert_eq!(watch.began(missed.clone()), [], "the event comes late");
    // Flushed, and begun anew with the same tuple.
    let again = Flow { created: 1102, ..old.clone() };
    let told = watch.look(vec![again.clone(), missed.clone()], &CONFIG, 1103);
    assert_eq!(told[0], (News::Ended(Ended::Removed), old));
    assert_eq!(told[1..], all(&again));
    let told = watch.look(vec![again], &CONFIG, 1104);
    assert_eq!(told, [(News::Ended(Ended::Removed), missed)]);
}

#[test]
fn a_forecast_is_a_tank_with_a_hole_in_it() {
    let usage = |used, room| Usage { used, room };
    // 600 in a minute are 10 a second; each kept for 100 seconds makes 1000.
    assert_eq!(forecast(usage(0, 1001), 600, 100.0).full_in, None, "as many end as begin");
    assert_eq!(forecast(usage(0, 1000), 600, 100.0).full_in, None);
    assert_eq!(forecast(usage(0, 500), 600, 100.0).full_in, Some(70), "100 * ln 2 seconds to the half");
    assert_eq!(forecast(usage(400, 500), 600, 100.0).full_in, Some(19), "100 * ln (600 / 500)");
    assert_eq!(forecast(usage(500, 500), 600, 100.0).full_in, Some(0));
    assert_eq!(forecast(usage(10, 500), 0, 100.0).full_in, None, "nothing begins");
    assert_eq!(forecast(usage(0, 500), 0, 0.0).full_in, None, "nothing is there");
    // So long that hardly any ends before the room is full: room / rate.
    assert_eq!(forecast(usage(0, 1000), 600, 1e9).full_in, Some(101));
    assert!((forecast(usage(0, 1), 6, 1.0).rate - 0.1).abs() < 1e-9);
}

fn counted(flows: &[Flow], mappings: &HashMap<Tuple, MappingEntry>, now: u32) -> Stats {
    Stats::count(&Counted { flows, mappings, fragments: 0, endpoints: &[], room: ROOM }, &CONFIG, now)
}

#[test]
fn flows_are_counted_by_table_and_state_and_those_that_are_over_apart() {
    let new = Flow { state: CtState::New, confirmed: false, ..outgoing(Proto::UDP, 1, 50_000) };
    let flows = [outgoing(Proto::UDP, 2, 50_001), outgoing(Proto::TCP, 3, 50_002), new];
    let stats = counted(&flows, &HashMap::new(), 1100);
    let used = |stats: &Stats| stats.tables[..2].iter().map(|t| (t.usage.used, t.over)).collect::<Vec<_>>();
    assert_eq!(used(&stats), [(2, 0), (1, 0)]);
    let states: Vec<_> =
        stats.states.iter().map(|share| (share.state, share.flows, share.lifetime)).collect();
    // A hundred seconds old, with 120 to go; and on average with (300 + 7440) / 2.
    assert_eq!(states, [(CtState::New, 1, 220.0), (CtState::Established, 2, 3970.0)]);
    let later = counted(&flows, &HashMap::new(), 1100 + 301);
    assert_eq!(used(&later), [(1, 1), (0, 1)], "the datagrams' flows are over");
    assert_eq!(later.states.len(), 1);
}

#[test]
fn the_confirmed_table_is_foretold_by_what_came_in_the_last_minute() {
    let flow = |n: u16, created| Flow { created, ..outgoing(Proto::TCP, n, 50_000) };
    let mut flows: Vec<Flow> = (0..30).map(|n| flow(n, 1090)).collect();
    flows.push(flow(30, 1040));
    flows.push(Flow { confirmed: false, ..flow(31, 1090) });
    let stats = counted(&flows, &HashMap::new(), 1100);
    let forecast = stats.tables[0].forecast.expect("of the confirmed");
    assert!((forecast.rate - 0.5).abs() < 1e-9, "30 in a minute, one before that, one not confirmed");
    assert!(stats.tables[1..].iter().all(|table| table.forecast.is_none()));
}

#[test]
fn external_ports_are_counted_once_for_each_address_and_protocol() {
    let to = |flow: Flow, dport: u16| Flow {
        original: Tuple { dport: Port::new(dport), ..flow.original },
        translated: Tuple { dport: Port::new(dport), ..flow.translated },
        ..flow
    };
    let kept = |flow: Flow| Flow { translated: Tuple { src: flow.original.src, ..flow.translated }, ..flow };
    let flows = [
        outgoing(Proto::TCP, 1, 50_000),
        to(outgoing(Proto::TCP, 2, 50_000), 443),
        outgoing(Proto::TCP, 3, 50_001),
        outgoing(Proto::UDP, 4, 50_000),
        // Neither one of the host's ports, nor one of the range, nor masqueraded.
        kept(outgoing(Proto::TCP, 5, 50_002)),
        outgoing(Proto::TCP, 6, 4000),
        incoming(8088),
    ];
    let [inside, outside, permission] = mapping_keys("203.0.113.2");
    let mapping = |key: Tuple, port: u16, last_seen: u32| {
        let key = Tuple { dport: Port::new(port), ..key };
        (key, MappingEntry { translated: key.answer(), last_seen, filtering: 0, flags: 0, reserved: [0; 2] })
    };
    let mappings = [
        mapping(outside, 50_000, 1100),
        mapping(outside, 50_009, 1100),
        mapping(outside, 50_010, 700), // over
        mapping(permission, 50_011, 1100),
        mapping(inside, 0, 1100),
    ];
    let stats = counted(&flows, &mappings.into(), 1100);
    let ports: Vec<_> =
        stats.ports.iter().map(|fill| (fill.proto, fill.addr, fill.usage.used, fill.usage.left())).collect();
    let host = addr("203.0.113.1");
    assert_eq!(ports, [(Proto::TCP, host, 2, 16_382), (Proto::UDP, host, 2, 16_382)]);
    assert_eq!(stats.tables[2].usage.used, 5);
}

#[test]
fn questions_to_name_servers_and_their_ports_are_over_soon() {
    let [_, outside, _] = mapping_keys("203.0.113.2");
    let question = Flow { brief: true, ..outgoing(Proto::UDP, 1, 50_000) };
    assert_eq!((question.timeout(&CONFIG), question.left(&CONFIG, 1103)), (10, 7));
    let mapping = |port: u16, flags| {
        let key = Tuple { dport: Port::new(port), ..outside };
        (
            key,
            MappingEntry { translated: key.answer(), last_seen: 1100, filtering: 0, flags, reserved: [0; 2] },
        )
    };
    let mappings = HashMap::from([
        mapping(50_000, CtEntry::FLAG_BRIEF),
        mapping(50_001, CtEntry::FLAG_BRIEF),
        mapping(50_002, 0),
    ]);
    let used = |now| {
        counted(std::slice::from_ref(&question), &mappings, now).ports.first().map(|fill| fill.usage.used)
    };
    assert_eq!((used(1110), used(1111), used(1401)), (Some(3), Some(1), None));
    // A hundred seconds old, with ten to go.
    let lifetime = counted(std::slice::from_ref(&question), &mappings, 1100).ports[0].forecast.lifetime;
    assert!((lifetime - 110.0).abs() < 1e-9, "{lifetime}");
}

#[test]
fn what_an_endpoint_may_still_do_is_what_it_was_given_up_to_now() {
    let config = DatapathConfig { unanswered: 120, udp_unreplied: 120, endpoint_flows: 10, ..CONFIG };
    let used = EndpointUse { flows: 9, credit: 20, credited: 1000, refused: 5, ..EndpointUse::zeroed() };
    let endpoints = [("net1".to_owned(), used), ("net2".to_owned(), EndpointUse::zeroed())];
    let mappings = HashMap::new();
    let counted =
        Counted { flows: &[], mappings: &mappings, fragments: 0, endpoints: &endpoints, room: ROOM };
    let fill = |config, now| Stats::count(&counted, config, now).endpoints;
    let left = |now| fill(&config, now).iter().map(|fill| fill.unanswered_left).collect::<Vec<_>>();
    assert_eq!(left(1000), [Some(20), Some(120)], "one that has sent nothing may do everything");
    assert_eq!(left(1030), [Some(50), Some(120)]);
    assert_eq!(left(2000), [Some(120), Some(120)]);
    let net1 = &fill(&config, 1000)[0];
    assert_eq!((net1.flows, net1.flows_limit, net1.refused), (9, Some(10), 5));
    let unlimited = DatapathConfig { unanswered: 0, endpoint_flows: 0, ..config };
    let net1 = &fill(&unlimited, 1000)[0];
    assert_eq!((net1.flows_limit, net1.unanswered_limit, net1.unanswered_left), (None, None, None));
}

#[test]
fn what_is_four_fifths_full_is_warned_of() {
    let config = DatapathConfig { unanswered: 100, endpoint_flows: 10, ..CONFIG };
    let warnings = |flows, credit| {
        let used = EndpointUse { flows, credit, credited: 1000, ..EndpointUse::zeroed() };
        let endpoints = [("net1".to_owned(), used)];
        let mappings = HashMap::new();
        let counted =
            Counted { flows: &[], mappings: &mappings, fragments: 0, endpoints: &endpoints, room: ROOM };
        Stats::count(&counted, &config, 1000).warnings()
    };
    assert_eq!(warnings(7, 21), [""; 0]);
    assert_eq!(
        warnings(8, 20),
        [
            "confirmed flows of endpoint net1: 8 of 10 in use (80.0 %); what it begins beyond that is dropped (quota)",
            "unanswered flows of endpoint net1: 80 of 100 in use (80.0 %); what it begins beyond that is dropped (quota)"
        ]
    );
    let narrow =
        DatapathConfig { nat_ports: vnet_common::PortRange { first: 50_000, last: 50_004 }, ..CONFIG };
    let flows: Vec<Flow> = (0..4).map(|n| outgoing(Proto::TCP, n, 50_000 + n)).collect();
    let mappings = HashMap::new();
    let counted =
        Counted { flows: &flows, mappings: &mappings, fragments: 8_000, endpoints: &[], room: ROOM };
    let warnings = Stats::count(&counted, &narrow, 1100).warnings();
    assert!(warnings[0].starts_with("fragmented datagrams: 8000 of 8192 in use (97.7 %); "), "{warnings:?}");
    assert!(warnings[1].starts_with("tcp ports of 203.0.113.1: 4 of 5 in use (80.0 %); "), "{warnings:?}");
    assert_eq!(warnings.len(), 2);
}
